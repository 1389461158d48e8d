"""`kiln demo`: one training script on real data, run eagerly and compiled, and the two compared bit for bit."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import kiln
from kiln import nn
from kiln.digits import Digits, draw, load_digits

BATCH = 64


def make_model() -> nn.Sequential:
    """The classifier: an MLP 64-128-64-10."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


class Cnn(nn.Module):
    """The classifier with a sense of place: two convolutions over the 8 x 8 image, a pool, an MLP 512-64-10."""

    def __init__(self) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, rows: kiln.Tensor) -> kiln.Tensor:
        images = rows.reshape(rows.shape[0], 1, 8, 8)
        scores: kiln.Tensor = self.head(self.features(images))
        return scores


def make_cnn() -> Cnn:
    """The convolutional classifier."""
    return Cnn()


@dataclass(frozen=True)
class Kind:
    """One of the demo's models: how it is called and made, and how many passes over the data it needs."""

    name: str
    make: Callable[[], nn.Module]
    epochs: int


KINDS = (Kind("mlp", make_model, 30), Kind("cnn", make_cnn, 20))


@dataclass
class Run:
    """What one training run leaves: the model, every step's loss, the seconds of every full-batch step."""

    model: nn.Module
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    first_seconds: float = 0.0

    def step_ms(self) -> float:
        """Median time of a full-batch step after the first epoch, in milliseconds."""
        return statistics.median(self.seconds) * 1e3


class Progress:
    """A live line on a terminal; one line per run elsewhere."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._live = label, total, sys.stdout.isatty()

    def update(self, done: int, loss: float) -> None:
        if self._live:
            bar = "#" * (24 * done // self._total)
            print(
                f"\r{self._label:22} [{bar:24}] epoch {done:3}/{self._total}  loss {loss:.4f}",
                end="",
                flush=True,
            )

    def close(self, summary: str) -> None:
        print(f"\r{self._label:22} {summary:60}" if self._live else f"{self._label:22} {summary}", flush=True)


def batches(data: Digits, rng: np.random.Generator) -> Iterator[tuple[kiln.Tensor, kiln.Tensor]]:
    """The rows in a new order, 64 at a time; the short last batch is kept."""
    order = rng.permutation(len(data.labels))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield kiln.from_numpy(data.images[rows]), kiln.from_numpy(data.labels[rows])


def train(data: Digits, kind: Kind, seed: int, epochs: int, compiled: bool) -> Run:
    """Train one model with Adam; the only difference between the two modes is the line with `kiln.compile`."""
    kiln.manual_seed(seed)
    model = kind.make()
    run = Run(model)
    optimizer = kiln.optim.Adam(model.parameters(), lr=2e-3)
    loss_fn = nn.CrossEntropyLoss()

    def step(x: kiln.Tensor, y: kiln.Tensor) -> kiln.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        detached: kiln.Tensor = loss.detach()
        return detached

    run_step: Callable[[kiln.Tensor, kiln.Tensor], Any] = kiln.compile(step) if compiled else step
    rng = np.random.default_rng(seed)
    progress = Progress(f"{kind.name} seed {seed} {'compiled' if compiled else 'eager'}", epochs)
    started = time.perf_counter()
    for epoch in range(epochs):
        for x, y in batches(data, rng):
            t0 = time.perf_counter()
            loss = run_step(x, y)
            elapsed = time.perf_counter() - t0
            if not run.losses:
                run.first_seconds = elapsed
            if epoch > 0 and len(x) == BATCH:
                run.seconds.append(elapsed)
            run.losses.append(loss.item())
        progress.update(epoch + 1, run.losses[-1])
    total = time.perf_counter() - started
    progress.close(f"loss {run.losses[-1]:.6f}   {total:.2f} s")
    return run


def predict(model: nn.Module, data: Digits) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The most probable digit of each row."""
    with kiln.no_grad():
        return np.asarray(model(kiln.from_numpy(data.images)).argmax(dim=1).numpy())


def run(epochs: int | None = None, seeds: int = 3, out: str = "kiln-demo") -> int:
    """Train both models with every seed in both modes, compare, save, classify in a new process; 0 when all is well.

    `epochs` holds for both; by default each takes its own number."""
    if (epochs is not None and epochs < 2) or seeds < 1:
        print("kiln demo: needs at least 2 epochs and 1 seed", file=sys.stderr)
        return 2
    data, held_out = load_digits("train"), load_digits("held-out")
    print(f"UCI handwritten digits: {len(data.labels)} rows to train on, {len(held_out.labels)} held out")
    failed = 0
    for kind in KINDS:
        model, same = compare(data, held_out, kind, kind.epochs if epochs is None else epochs, seeds)
        weights = Path(out) / f"{kind.name}.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        kiln.save(model.state_dict(), weights)
        print(f"saved {weights}; a new process now loads it:", flush=True)
        child = subprocess.run([sys.executable, "-m", "kiln", "classify", str(weights)], check=False)
        failed = failed or child.returncode or int(not same)
    return failed


def compare(data: Digits, held_out: Digits, kind: Kind, epochs: int, seeds: int) -> tuple[nn.Module, bool]:
    """Train with every seed, eagerly and compiled; the last compiled model, and whether all losses were the same."""
    accuracies: list[float] = []
    worst = 0.0
    for seed in range(seeds):
        eager = train(data, kind, seed, epochs, compiled=False)
        fired = train(data, kind, seed, epochs, compiled=True)
        same = np.array(eager.losses).tobytes() == np.array(fired.losses).tobytes()
        gap = max(abs(a - b) for a, b in zip(eager.losses, fired.losses, strict=True))
        worst = max(worst, gap if not same else 0.0)
        accuracies.append(float((predict(fired.model, held_out) == held_out.labels).mean()))
        print(
            f"  held-out accuracy {accuracies[-1]:.2%}; {len(eager.losses)} losses "
            f"{'bit-identical' if same else f'DIFFER by up to {gap:g}'}; step {eager.step_ms():.3f} ms eager, "
            f"{fired.step_ms():.3f} ms compiled ({eager.step_ms() / fired.step_ms():.1f}x); "
            f"first compiled call {fired.first_seconds * 1e3:.0f} ms"
        )
    print(f"{kind.name}: median accuracy {statistics.median(accuracies):.2%}, largest loss difference {worst:g}")
    return fired.model, worst == 0.0


def classify(weights: str) -> int:
    """Load weights, classify the held-out digits, draw the first one that is misread."""
    state = kiln.load(weights)
    model = make_cnn() if any(name.startswith("features") for name in state) else make_model()
    model.load_state_dict(state)
    held_out = load_digits("held-out")
    guesses = predict(model, held_out)
    wrong = np.flatnonzero(guesses != held_out.labels)
    right = len(guesses) - len(wrong)
    print(f"  {right} of {len(guesses)} held-out digits read rightly ({right / len(guesses):.2%})")
    if len(wrong):
        i = int(wrong[0])
        print(f"  one it misreads: a {held_out.labels[i]} taken for a {guesses[i]}")
        print(draw(held_out.images[i]))
    return 0
