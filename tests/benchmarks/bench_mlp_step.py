"""One training step of the demo's classifier (64-128-64-10, batch 64, cross-entropy, Adam) in every library.

    python tests/benchmarks/bench_mlp_step.py [--threads 1]

Each candidate trains a model of its own from the same weights on the same batch; the losses of the first steps are
compared before anything is timed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np

SIZES = [64, 128, 64, 10]
BATCH, RATE, CHECKED = 64, 2e-3, 5
Weights = list[np.ndarray[Any, Any]]
Step = Callable[[], Any]


def weights(rng: np.random.Generator) -> Weights:
    """[weight, bias] of each layer, as torch starts them."""
    made: Weights = []
    for fan, out in itertools.pairwise(SIZES):
        bound = fan**-0.5
        made += [rng.uniform(-bound, bound, (out, fan)), rng.uniform(-bound, bound, out)]
    return [w.astype(np.float32) for w in made]


def kiln_step(start: Weights, x: Any, y: Any, compiled: bool) -> Step:
    import kiln
    from kiln import demo, nn

    model = demo.make_model()
    model.load_state_dict({n: kiln.from_numpy(w) for n, w in zip(model.state_dict(), start, strict=True)})
    optimizer = kiln.optim.Adam(model.parameters(), lr=RATE)
    loss_fn = nn.CrossEntropyLoss()
    xs, ys = kiln.from_numpy(x), kiln.from_numpy(y)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    call = kiln.compile(step) if compiled else step
    return lambda: call(xs, ys)


def torch_step(torch: Any, start: Weights, x: Any, y: Any, compiled: bool) -> Step:
    nn = torch.nn
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    model.load_state_dict({n: torch.from_numpy(w) for n, w in zip(model.state_dict(), start, strict=True)})
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    xs, ys = torch.from_numpy(x), torch.from_numpy(y)
    run = torch.compile(model) if compiled else model
    loss_fn = nn.CrossEntropyLoss()

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_fn(run(xs), ys)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def jax_step(jax: Any, start: Weights, x: Any, y: Any) -> Step:
    jnp = jax.numpy

    def loss_of(params: Any, x: Any, y: Any) -> Any:
        for i in range(0, len(params), 2):
            x = x @ params[i].T + params[i + 1]
            x = jax.nn.relu(x) if i + 2 < len(params) else x
        picked = jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1)
        return -picked.mean()

    @jax.jit
    def step(params: Any, m: Any, v: Any, t: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        m = [a + (g - a) * 0.1 for a, g in zip(m, grads, strict=True)]
        v = [a * 0.999 + g * g * 0.001 for a, g in zip(v, grads, strict=True)]
        rate, scale = RATE / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
        params = [p - a / (jnp.sqrt(b) / scale + 1e-8) * rate for p, a, b in zip(params, m, v, strict=True)]
        return loss, params, m, v, t + 1

    state = [jnp.asarray(w) for w in start]
    held: list[Any] = [state, [s * 0 for s in state], [s * 0 for s in state], jnp.asarray(1.0)]
    xs, ys = jnp.asarray(x), jnp.asarray(y.astype(np.int32))

    def run() -> Any:
        loss, *held[:] = step(*held, xs, ys)
        return loss.block_until_ready()

    return run


def first_steps(ready: dict[str, Step]) -> None:
    """Run the first steps of each, and raise unless all train alike."""
    losses: dict[str, list[float]] = {}
    for name, run in ready.items():
        started = time.perf_counter()
        first = float(run())
        print(f"{name:16} first step {1e3 * (time.perf_counter() - started):8.1f} ms")
        losses[name] = [first, *(float(run()) for _ in range(CHECKED - 1))]
    assert losses["kiln compiled"] == losses["kiln eager"], "eager and compiled kiln differ"
    for name, values in losses.items():
        assert np.allclose(values, losses["kiln eager"], rtol=1e-4), f"{name} trains differently: {values}"


def main() -> None:
    options = harness.arguments(__doc__ or "")
    rng = np.random.default_rng(0)
    start = weights(rng)
    x, y = rng.standard_normal((BATCH, 64), np.float32), rng.integers(0, 10, BATCH)
    steps: dict[str, Callable[[], Step]] = {
        "kiln compiled": lambda: kiln_step(start, x, y, True),
        "kiln eager": lambda: kiln_step(start, x, y, False),
    }
    if (torch := harness.torch()) is not None:
        steps["torch eager"] = lambda: torch_step(torch, start, x, y, False)
        if harness.torch_compiles():
            steps["torch.compile"] = lambda: torch_step(torch, start, x, y, True)
    if (jax := harness.jax()) is not None:
        steps["jax jit"] = lambda: jax_step(jax, start, x, y)

    with harness.no_garbage_collection():
        ready = {name: make() for name, make in steps.items()}
        first_steps(ready)
        times = harness.paired(ready, options.rounds)
    flops = 6 * BATCH * sum(a * b for a, b in itertools.pairwise(SIZES))
    best = harness.floors(options.threads).flops
    print(f"\ntraining step, {options.threads} thread(s)")
    for name, seconds in times.items():
        print(f"  {name:16}{seconds * 1e6:10.1f} us {seconds / times['kiln compiled']:8.2f}x")
    print(f"  {'floor (products)':16}{flops / best * 1e6:10.1f} us {flops / best / times['kiln compiled']:8.2f}x")
    print(f"  the losses of the first {CHECKED} steps agree; medians of {options.rounds} interleaved rounds")


if __name__ == "__main__":
    main()
