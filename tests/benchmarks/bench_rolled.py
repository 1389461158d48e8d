"""Loops of 1,000 turns, as users of kiln and torch write them.

    python tests/benchmarks/bench_rolled.py [--threads 1] [--only euler]

kiln and torch run the same text. JAX runs the same computation with `jax.lax.scan` or `jax.lax.fori_loop`. First calls,
with their compilation, are timed once; torch.compile unrolls such loops, and is left out of what takes it minutes
(`--unrolled` asks for it).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np

TURNS = 1000
Make = Callable[[Any], Callable[..., Any]]


def euler(L: Any) -> Callable[..., Any]:
    def run(x: Any) -> Any:
        for _ in range(TURNS):
            x = x + 0.01 * (x.sin() - x)
        return x

    return run


def power(L: Any) -> Callable[..., Any]:
    def run(a: Any, v: Any) -> Any:
        for _ in range(TURNS):
            v = a @ v
            v = v / v.norm()
        return v

    return run


def rnn(L: Any) -> Callable[..., Any]:
    def run(xs: Any, h: Any, w: Any, u: Any) -> Any:
        out = []
        for x in xs:
            h = L.tanh(x @ w + h @ u)
            out.append(h)
        return L.stack(out)

    return run


def jax_euler(jax: Any) -> Callable[..., Any]:
    jnp, lax = jax.numpy, jax.lax
    return lambda x: lax.fori_loop(0, TURNS, lambda _, x: x + jnp.float32(0.01) * (jnp.sin(x) - x), x)


def jax_power(jax: Any) -> Callable[..., Any]:
    jnp, lax = jax.numpy, jax.lax

    def turn(a: Any, v: Any) -> Any:
        v = a @ v
        return v / jnp.linalg.norm(v)

    return lambda a, v: lax.fori_loop(0, TURNS, lambda _, v: turn(a, v), v)


def jax_rnn(jax: Any) -> Callable[..., Any]:
    jnp, lax = jax.numpy, jax.lax

    def run(xs: Any, h: Any, w: Any, u: Any) -> Any:
        def turn(h: Any, x: Any) -> Any:
            h = jnp.tanh(x @ w + h @ u)
            return h, h

        return lax.scan(turn, h, xs)[1]

    return run


def inputs(rng: np.random.Generator) -> dict[str, list[np.ndarray[Any, Any]]]:
    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape).astype(np.float32)

    a = np.abs(normal(64, 64))
    return {
        "euler": [normal(256)],
        "power": [a, np.ones(64, np.float32)],
        "rnn": [normal(TURNS, 4, 32), np.zeros((4, 32), np.float32), normal(32, 32) / 8, normal(32, 32) / 8],
    }


PROGRAMS: dict[str, tuple[Make, Make]] = {
    "euler": (euler, jax_euler),
    "power": (power, jax_power),
    "rnn": (rnn, jax_rnn),
}


def main() -> None:
    if "--unrolled" in sys.argv:
        sys.argv.remove("--unrolled")
        os.environ["BENCH_UNROLLED"] = "1"  # the process may start anew
    unrolled = "BENCH_UNROLLED" in os.environ
    options = harness.arguments(__doc__ or "")
    for name, arrays in inputs(np.random.default_rng(0)).items():
        if options.only not in name:
            continue
        candidates = harness.candidates(*PROGRAMS[name], arrays, compiled_by_torch=unrolled)
        for each, run in candidates.items():
            started = time.perf_counter()
            run()
            run()  # kiln compiles what the first call captured
            print(f"{name}: {each}: first two calls {time.perf_counter() - started:.2f} s", flush=True)
        harness.report(harness.Case(name, candidates, result=np.asarray, tolerance=1e-3), options.rounds)


if __name__ == "__main__":
    main()
