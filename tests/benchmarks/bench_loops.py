"""Loops on data: programs whose number of turns the data decide, as users of kiln and torch write them.

    python tests/benchmarks/bench_loops.py [--threads 1] [--only newton]

kiln and torch run the same text. JAX, which can't, runs the same computation with `jax.lax.while_loop`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import harness
import numpy as np

F32 = np.float32
WIDTH, WORDS, LONGEST, END = 4, 64, 48, 0
LIMIT = 100
ODE_END, ODE_TOLERANCE = 8.0, 1e-4
Arrays = list[np.ndarray[Any, Any]]
Make = Callable[[Any], Callable[..., Any]]


# ----------------------------------------------------------------- as users write them, for kiln and for torch


def newton(L: Any) -> Callable[..., Any]:
    def square_root(a: Any) -> Any:
        x = a
        while ((x * x - a).abs() > 1e-5 * a).any():
            x = 0.5 * (x + a / x)
        return x

    return square_root


def mandelbrot(L: Any) -> Callable[..., Any]:
    def escapes(re: Any, im: Any) -> Any:
        x, y = L.zeros_like(re), L.zeros_like(im)
        turns = L.zeros_like(re)
        inside = L.ones_like(re, dtype=L.bool)
        k = 0
        while inside.any() and k < LIMIT:
            x, y = L.where(inside, x * x - y * y + re, x), L.where(inside, 2 * x * y + im, y)
            inside = x * x + y * y <= 4
            turns = turns + inside
            k += 1
        return turns

    return escapes


def beam_search(L: Any) -> Callable[..., Any]:
    def search(moves: Any, first: Any, places: Any, stay: Any) -> Any:
        """moves [WORDS, WORDS]: log probabilities of the next word; stay [WORDS]: those after the end."""
        scores, last = first.topk(WIDTH)
        words = L.where(places == 0, last[:, None], L.zeros_like(last)[:, None])
        done = last == END
        length = 1
        while length < LONGEST and not done.all():
            total = scores[:, None] + L.where(done[:, None], stay, moves[last])
            scores, best = total.flatten().topk(WIDTH)
            parent = best // WORDS
            last = best % WORDS
            words = L.where(places == length, last[:, None], words[parent])
            done = done[parent] | (last == END)
            length += 1
        return words, scores

    return search


def ragged_rnn(L: Any) -> Callable[..., Any]:
    def last_states(xs: Any, lengths: Any, w: Any, u: Any, b: Any) -> Any:
        """xs [T, N, D], of which sequence n has `lengths[n]`."""
        h = L.zeros_like(xs[0])
        t = 0
        while (lengths > t).any():
            new = L.tanh(xs[t] @ w + h @ u + b)
            h = L.where((lengths > t)[:, None], new, h)
            t += 1
        return h

    return last_states


def ode(L: Any) -> Callable[..., Any]:
    def slope(y: Any, mu: Any) -> Any:
        return L.stack([y[1], mu * (1 - y[0] * y[0]) * y[1] - y[0]])

    def solve(y: Any, mu: Any, t: Any, h: Any) -> Any:
        """Van der Pol oscillators by the pair of Bogacki and Shampine, with step control."""
        k1 = slope(y, mu)
        while t < ODE_END:
            h = L.minimum(h, ODE_END - t)
            k2 = slope(y + h * 0.5 * k1, mu)
            k3 = slope(y + h * 0.75 * k2, mu)
            after = y + h * (2 / 9 * k1 + 1 / 3 * k2 + 4 / 9 * k3)
            k4 = slope(after, mu)
            error = (h * (-5 / 72 * k1 + 1 / 12 * k2 + 1 / 9 * k3 - 1 / 8 * k4)).abs().max()
            if error <= ODE_TOLERANCE:
                t = t + h
                y, k1 = after, k4
            h = h * L.clamp(0.9 * (ODE_TOLERANCE / (error + 1e-30)) ** (1 / 3), 0.2, 5.0)
        return y

    return solve


# ------------------------------------------------------------------------------------------ for JAX


def jax_newton(jax: Any) -> Callable[..., Any]:
    jnp, lax = jax.numpy, jax.lax

    def run(a: Any) -> Any:
        return lax.while_loop(
            lambda x: (jnp.abs(x * x - a) > 1e-5 * a).any(), lambda x: jnp.float32(0.5) * (x + a / x), a
        )

    return run


def jax_mandelbrot(jax: Any) -> Callable[..., Any]:
    jnp, lax = jax.numpy, jax.lax

    def run(re: Any, im: Any) -> Any:
        def turn(state: Any) -> Any:
            x, y, turns, inside, k = state
            x, y = jnp.where(inside, x * x - y * y + re, x), jnp.where(inside, 2 * x * y + im, y)
            inside = x * x + y * y <= 4
            return x, y, turns + inside, inside, k + 1

        zero = jnp.zeros_like(re)
        start = (zero, zero, zero, jnp.ones_like(re, dtype=bool), 0)
        return lax.while_loop(lambda s: s[3].any() & (s[4] < LIMIT), turn, start)[2]

    return run


def jax_beam_search(jax: Any) -> Callable[..., Any]:
    jnp, lax = jax.numpy, jax.lax

    def run(moves: Any, first: Any, places: Any, stay: Any) -> Any:
        def turn(state: Any) -> Any:
            scores, last, words, done, length = state
            total = scores[:, None] + jnp.where(done[:, None], stay, moves[last])
            scores, best = lax.top_k(total.ravel(), WIDTH)
            parent, last = best // WORDS, best % WORDS
            words = jnp.where(places == length, last[:, None], words[parent])
            return scores, last, words, done[parent] | (last == END), length + 1

        scores, last = lax.top_k(first, WIDTH)
        words = jnp.where(places == 0, last[:, None], 0)
        start = (scores, last, words, last == END, 1)
        scores, _, words, *_ = lax.while_loop(lambda s: (s[4] < LONGEST) & ~s[3].all(), turn, start)
        return words, scores

    return run


def jax_ragged_rnn(jax: Any) -> Callable[..., Any]:
    jnp, lax = jax.numpy, jax.lax

    def run(xs: Any, lengths: Any, w: Any, u: Any, b: Any) -> Any:
        def turn(state: Any) -> Any:
            h, t = state
            new = jnp.tanh(xs[t] @ w + h @ u + b)
            return jnp.where((lengths > t)[:, None], new, h), t + 1

        return lax.while_loop(lambda s: (lengths > s[1]).any(), turn, (jnp.zeros_like(xs[0]), 0))[0]

    return run


def jax_ode(jax: Any) -> Callable[..., Any]:
    jnp, lax = jax.numpy, jax.lax

    def slope(y: Any, mu: Any) -> Any:
        return jnp.stack([y[1], mu * (1 - y[0] * y[0]) * y[1] - y[0]])

    def run(y: Any, mu: Any, t: Any, h: Any) -> Any:
        def turn(state: Any) -> Any:
            y, k1, t, h = state
            h = jnp.minimum(h, ODE_END - t)
            k2 = slope(y + h * 0.5 * k1, mu)
            k3 = slope(y + h * 0.75 * k2, mu)
            after = y + h * (2 / 9 * k1 + 1 / 3 * k2 + 4 / 9 * k3)
            k4 = slope(after, mu)
            error = jnp.abs(h * (-5 / 72 * k1 + 1 / 12 * k2 + 1 / 9 * k3 - 1 / 8 * k4)).max()
            fits = error <= ODE_TOLERANCE
            y, k1 = jnp.where(fits, after, y), jnp.where(fits, k4, k1)
            t = jnp.where(fits, t + h, t)
            return y, k1, t, h * jnp.clip(0.9 * (ODE_TOLERANCE / (error + 1e-30)) ** (1 / 3), 0.2, 5.0)

        return lax.while_loop(lambda s: s[2] < ODE_END, turn, (y, slope(y, mu), t, h))[0]

    return run


# ------------------------------------------------------------------------------------------ inputs


def inputs(rng: np.random.Generator) -> dict[str, Arrays]:
    re, im = np.meshgrid(np.linspace(-2, 0.5, 128, dtype=F32), np.linspace(-1.2, 1.2, 128, dtype=F32))
    moves = rng.standard_normal((WORDS, WORDS)) * 2
    moves -= np.log(np.exp(moves).sum(1, keepdims=True))
    moves[:, END] -= 3
    stay = np.where(np.arange(WORDS) == END, 0, -np.inf)
    weights = [rng.standard_normal((64, 64)) / 8 for _ in range(2)]
    lengths = rng.integers(5, 60, 16)
    start = np.stack([rng.uniform(-2, 2, 64), rng.uniform(-2, 2, 64)])
    return {
        "newton": [rng.uniform(0.1, 100, 1000).astype(F32)],
        "mandelbrot": [re, im],
        "beam search": [moves.astype(F32), moves[1].astype(F32), np.arange(LONGEST)[None], stay.astype(F32)],
        "ragged RNN": [rng.standard_normal((60, 16, 64)), lengths, *weights, rng.standard_normal(64)],
        "ODE": [start, np.linspace(0.5, 2, 64), np.asarray(0.0), np.asarray(0.1)],
    }


PROGRAMS: dict[str, tuple[Make, Make]] = {
    "newton": (newton, jax_newton),
    "mandelbrot": (mandelbrot, jax_mandelbrot),
    "beam search": (beam_search, jax_beam_search),
    "ragged RNN": (ragged_rnn, jax_ragged_rnn),
    "ODE": (ode, jax_ode),
}


def _flat(result: Any) -> np.ndarray[Any, Any]:
    parts = result if isinstance(result, tuple) else (result,)
    return np.concatenate([np.asarray(p, np.float64).ravel() for p in parts])


def _mean(result: Any) -> np.ndarray[Any, Any]:
    """At the border of the Mandelbrot set another rounding is another number of turns."""
    return _flat(result).mean()[None]


def main() -> None:
    options = harness.arguments(__doc__ or "")
    for name, arrays in inputs(np.random.default_rng(0)).items():
        if options.only in name:
            of = _mean if name == "mandelbrot" else _flat
            case = harness.Case(
                name,
                harness.candidates(*PROGRAMS[name], [a.astype(F32) if a.dtype == np.float64 else a for a in arrays]),
                result=of,
                tolerance=1e-2,
            )
            harness.report(case, options.rounds)


if __name__ == "__main__":
    main()
