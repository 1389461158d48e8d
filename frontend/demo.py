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
from kiln.device import placed
from kiln.digits import Digits, draw, load_digits
from kiln.ir.types import CPU, Device
from kiln.region import Region, stages_of
from kiln.report import Chapter, Course, report
from kiln.runtime.info import environment
from kiln.serialization import replacing

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
    region: Region | None = None  # the compiled step for full batches

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


def batches(data: Digits, rng: np.random.Generator, device: Device) -> Iterator[tuple[kiln.Tensor, kiln.Tensor]]:
    """The rows in a new order, 64 at a time, on `device`; the short last batch is kept."""
    order = rng.permutation(len(data.labels))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield kiln.from_numpy(data.images[rows]).to(device), kiln.from_numpy(data.labels[rows]).to(device)


def train(data: Digits, kind: Kind, seed: int, epochs: int, compiled: bool, device: Device = CPU) -> Run:
    """Train one model with Adam; the only difference between the two modes is the line with `kiln.compile`."""
    kiln.manual_seed(seed)
    model = kind.make().to(device)
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

    fired = kiln.compile(step) if compiled else None
    run_step: Callable[[kiln.Tensor, kiln.Tensor], Any] = fired or step
    rng = np.random.default_rng(seed)
    progress = Progress(f"{kind.name} seed {seed} {'compiled' if compiled else 'eager'}", epochs)
    started = time.perf_counter()
    for epoch in range(epochs):
        for x, y in batches(data, rng, device):
            wait(device)
            t0 = time.perf_counter()
            loss = run_step(x, y)
            wait(device)
            elapsed = time.perf_counter() - t0
            if not run.losses:
                run.first_seconds = elapsed
            if epoch > 0 and len(x) == BATCH:
                run.seconds.append(elapsed)
            run.losses.append(loss.item())
        progress.update(epoch + 1, run.losses[-1])
    if fired is not None:
        run.region = fired.regions()[0]
    total = time.perf_counter() - started
    progress.close(f"loss {run.losses[-1]:.6f}   {total:.2f} s")
    return run


def wait(device: Device) -> None:
    """Until a GPU has done what it was given, so that times are of the work and not of handing it over."""
    if device.kind == "cuda":
        kiln.cuda.synchronize(device)


def predict(model: nn.Module, data: Digits) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The most probable digit of each row, computed where the model is."""
    device = next(model.parameters()).device
    with kiln.no_grad():
        return np.asarray(model(kiln.from_numpy(data.images).to(device)).argmax(dim=1).cpu().numpy())


def run(epochs: int | None = None, seeds: int = 3, out: str = "kiln-demo", device: str = "cpu") -> int:
    """Train both models with every seed in both modes, compare, save, report, classify in a new process; 0 when all is
    well.

    `epochs` holds for both; by default each takes its own number. DeviceError for a device that is not there."""
    if (epochs is not None and epochs < 2) or seeds < 1:
        print("kiln demo: needs at least 2 epochs and 1 seed", file=sys.stderr)
        return 2
    place = placed("demo", device)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    data, held_out = load_digits("train"), load_digits("held-out")
    print(f"UCI handwritten digits: {len(data.labels)} rows to train on, {len(held_out.labels)} held out")
    failed = 0
    chapters = []
    for kind in KINDS:
        courses, fired = compare(data, held_out, kind, kind.epochs if epochs is None else epochs, seeds, place)
        failed = failed or int(not all(c.identical for c in courses))
        weights = folder / f"{kind.name}.safetensors"
        kiln.save(fired.model.state_dict(), weights)
        print(f"saved {weights}; a new process now loads it:", flush=True)
        where = ["--device", device] if place is not CPU else []
        child = subprocess.run([sys.executable, "-m", "kiln", "classify", str(weights), *where], check=False)
        failed = failed or child.returncode
        assert fired.region is not None, "a compiled run has compiled something"
        fused = dict(stages_of(fired.region))["fused"]
        chapters.append(Chapter(kind.name, repr(fired.model), courses, predict(fired.model, held_out), fused))
    page = folder / "report.html"
    with replacing(page) as file:
        file.write(report(chapters, held_out, environment()).encode())
    print(
        f"wrote {page}: loss curves, confusion matrices, misread digits and the compiled graphs; open it in a browser"
    )
    return failed


def compare(
    data: Digits, held_out: Digits, kind: Kind, epochs: int, seeds: int, device: Device = CPU
) -> tuple[list[Course], Run]:
    """Train with every seed, eagerly and compiled; how that went, and the last compiled run."""
    courses: list[Course] = []
    for seed in range(seeds):
        eager = train(data, kind, seed, epochs, False, device)
        fired = train(data, kind, seed, epochs, True, device)
        accuracy = float((predict(fired.model, held_out) == held_out.labels).mean())
        course = Course(
            seed, eager.losses, fired.losses, eager.step_ms(), fired.step_ms(), fired.first_seconds * 1e3, accuracy
        )
        courses.append(course)
        same = "bit-identical" if course.identical else f"DIFFER by up to {course.gap:g}"
        print(
            f"  held-out accuracy {accuracy:.2%}; {len(eager.losses)} losses {same}; "
            f"step {course.eager_ms:.3f} ms eager, {course.compiled_ms:.3f} ms compiled "
            f"({course.eager_ms / course.compiled_ms:.1f}x); first compiled call {course.first_ms:.0f} ms"
        )
    worst = max(0.0 if c.identical else c.gap for c in courses)
    median = statistics.median(c.accuracy for c in courses)
    print(f"{kind.name}: median accuracy {median:.2%}, largest loss difference {worst:g}")
    return courses, fired


def classify(weights: str, device: str = "cpu") -> int:
    """Load weights, classify the held-out digits, draw the first one that is misread. DeviceError for a device that is
    not there."""
    place = placed("classify", device)
    state = kiln.load(weights)
    model = make_cnn() if any(name.startswith("features") for name in state) else make_model()
    model.load_state_dict(state)
    model.to(place)
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
