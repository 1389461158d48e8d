"""One training step of the demo's small CNN (two 3x3 convolutions, a pool, two linear layers; 8x8 images, batch 64,
cross-entropy, Adam) in every library.

    python tests/benchmarks/bench_cnn_step.py [--threads 1]

Each candidate trains a model of its own from the same weights on the same batch; the losses of the first steps are
compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bench_mlp_step
import harness
import numpy as np

SHAPES = [(16, 1, 3, 3), (32, 16, 3, 3), (64, 512), (10, 64)]
BATCH, RATE, CHECKED = 64, 2e-3, 5
Weights = list[np.ndarray[Any, Any]]
Step = Callable[[], Any]


def weights(rng: np.random.Generator) -> Weights:
    """[weight, bias] of each layer, as torch starts them."""
    made: Weights = []
    for shape in SHAPES:
        bound = float(np.prod(shape[1:])) ** -0.5
        made += [rng.uniform(-bound, bound, shape), rng.uniform(-bound, bound, shape[0])]
    return [w.astype(np.float32) for w in made]


def kiln_step(start: Weights, x: Any, y: Any, compiled: bool) -> Step:
    import kiln
    from kiln import demo, nn

    model = demo.make_cnn()
    model.load_state_dict({n: kiln.from_numpy(w) for n, w in zip(model.state_dict(), start, strict=True)})
    optimizer = kiln.optim.Adam(model.parameters(), lr=RATE)
    loss_fn = nn.CrossEntropyLoss()
    xs, ys = kiln.from_numpy(x.reshape(BATCH, 64)), kiln.from_numpy(y)

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
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
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

    def convolve(x: Any, w: Any, b: Any) -> Any:
        return jax.nn.relu(jax.lax.conv(x, w, (1, 1), "SAME") + b[:, None, None])

    def loss_of(params: Any, x: Any, y: Any) -> Any:
        w1, b1, w2, b2, w3, b3, w4, b4 = params
        x = convolve(convolve(x, w1, b1), w2, b2)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        x = jax.nn.relu(x.reshape(len(x), -1) @ w3.T + b3) @ w4.T + b4
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


def main() -> None:
    options = harness.arguments(__doc__ or "")
    rng = np.random.default_rng(0)
    start = weights(rng)
    x, y = rng.standard_normal((BATCH, 1, 8, 8), np.float32), rng.integers(0, 10, BATCH)
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
        bench_mlp_step.first_steps(ready)
        times = harness.paired(ready, options.rounds)
    pixels = (64, 64, 1, 1)
    flops = 6 * BATCH * sum(int(np.prod(shape)) * n for shape, n in zip(SHAPES, pixels, strict=True))
    best = harness.floors(options.threads).flops
    print(f"\ntraining step, {options.threads} thread(s)")
    for name, seconds in times.items():
        print(f"  {name:16}{seconds * 1e6:10.1f} us {seconds / times['kiln compiled']:8.2f}x")
    print(f"  {'floor (products)':16}{flops / best * 1e6:10.1f} us {flops / best / times['kiln compiled']:8.2f}x")
    print(f"  the losses of the first {CHECKED} steps agree; medians of {options.rounds} interleaved rounds")


if __name__ == "__main__":
    main()
