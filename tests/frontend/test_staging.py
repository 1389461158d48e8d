"""Control flow on tensor data as users write it: staged, in one capture, with eager's bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import kiln


def bits(x: Any) -> Any:
    """A result to the last bit."""
    if isinstance(x, kiln.Tensor):
        return str(x.dtype), tuple(x.shape), x.detach().numpy().tobytes()
    if isinstance(x, (tuple, list)):
        return type(x), [bits(v) for v in x]
    if isinstance(x, dict):
        return {k: bits(v) for k, v in x.items()}
    return type(x), repr(x)


def check_staged(f: Callable[..., Any], calls: Sequence[tuple[Any, ...]], fullgraph: bool = True) -> Any:
    """Compiled, `f` gives eager's results for all calls, captured once and staged in all the others."""
    compiled = kiln.compile(f, fullgraph=fullgraph)
    for args in calls:
        assert bits(compiled(*args)) == bits(f(*args))
    report = compiled.report()
    assert (report.captured, report.staged) == (1, len(calls) - 1), str(report)
    return compiled


def size_of(compiled: Any) -> int:
    """How many operations its only graph has."""
    (region,) = compiled.regions()
    return len(region.graph.operations)


# --------------------------------------------------------------------------------- whole programs


def test_newton_iterates_to_a_tolerance() -> None:
    def sqrt(a: Any, tolerance: float = 1e-6) -> Any:
        x = kiln.ones_like(a)
        steps = 0
        while ((x * x - a).abs() > tolerance * a).any():
            x = 0.5 * (x + a / x)
            steps += 1
            if steps >= 40:
                break
        return x, steps

    a = kiln.tensor([1.0, 2.0, 9.0])
    check_staged(sqrt, [(a * k,) for k in (1.0, 17.0, 1e-3, 1e4, 3e-9)])


def test_mandelbrot_escapes_on_whole_arrays() -> None:
    def escape(re: Any, im: Any, limit: int) -> Any:
        x, y = kiln.zeros_like(re), kiln.zeros_like(im)
        count = kiln.zeros(re.shape, dtype=kiln.int64)
        mask = kiln.ones(re.shape, dtype=kiln.bool)
        n = 0
        while mask.any() and n < limit:
            x, y = x * x - y * y + re, 2 * x * y + im
            mask = mask & (x * x + y * y <= 4)
            count = count + mask.long()
            n += 1
        return count

    grid = kiln.linspace(-2, 1, 12).reshape(1, 12).expand(8, 12).contiguous()
    rows = kiln.linspace(-1, 1, 8).reshape(8, 1).expand(8, 12).contiguous()
    compiled = check_staged(escape, [(grid * k, rows, 30) for k in (1.0, 0.3, 5.0, 9.0)])
    assert size_of(compiled) < 30


def test_beam_search_ends_when_all_beams_do() -> None:
    kiln.manual_seed(2)
    table = kiln.randn(7, 7).log_softmax(-1)

    def search(start: Any, width: int = 3, longest: int = 6) -> Any:
        tokens = kiln.zeros(width, longest, dtype=kiln.int64)
        scores = kiln.full((width,), -1e9)
        scores = kiln.where(kiln.arange(width) == 0, 0.0, scores)
        last = start.expand(width).contiguous()
        done = kiln.zeros(width, dtype=kiln.bool)
        place = kiln.arange(longest)
        step = 0
        while not done.all() and step < longest:
            following = kiln.where(done.unsqueeze(1), 0.0, table[last])
            total = (scores.unsqueeze(1) + following).reshape(-1)
            scores, best = total.topk(width)
            beam, word = best // 7, best % 7
            tokens = kiln.where(place == step, word.unsqueeze(1), tokens[beam])
            done = done[beam] | (word == 0)
            last = word
            step += 1
        return tokens, scores, step

    check_staged(search, [(kiln.tensor([k]),) for k in (1, 3, 4, 6)])


def test_rnn_over_a_ragged_batch() -> None:
    kiln.manual_seed(3)
    weight, recurrent = kiln.randn(4, 5) * 0.5, kiln.randn(5, 5) * 0.5

    def rnn(x: Any, lengths: Any) -> Any:
        h = kiln.zeros(x.shape[1], 5)
        for t in range(lengths.max()):
            new = kiln.tanh(x[t] @ weight + h @ recurrent)
            h = kiln.where((t < lengths).unsqueeze(1), new, h)
        return h

    x = kiln.randn(6, 3, 4)
    calls = [(x, kiln.tensor(lengths)) for lengths in ([1, 2, 3], [6, 1, 1], [2, 2, 2], [0, 0, 0])]
    check_staged(rnn, calls)


def test_adaptive_runge_kutta_accepts_and_rejects_steps() -> None:
    def solve(y0: Any, t1: Any, tolerance: float = 1e-4) -> Any:
        def slope(t: Any, y: Any) -> Any:
            return -y * y * kiln.cos(3 * t) - 0.5 * y

        t, h, y = kiln.zeros(()), kiln.full((), 0.2), y0
        accepted = rejected = 0
        while t < t1:
            if t + h > t1:
                h = t1 - t
            k1 = slope(t, y)
            k2 = slope(t + h / 2, y + h / 2 * k1)
            k3 = slope(t + 0.75 * h, y + 0.75 * h * k2)
            proposal = y + h * (2 / 9 * k1 + 1 / 3 * k2 + 4 / 9 * k3)
            k4 = slope(t + h, proposal)
            error = (h * (-5 / 72 * k1 + 1 / 12 * k2 + 1 / 9 * k3 - 1 / 8 * k4)).abs().max()
            if error <= tolerance:
                t = t + h
                y = proposal
                accepted += 1
            else:
                rejected += 1
            h = h * (0.9 * (tolerance / (error + 1e-12)) ** 0.5).clamp(0.2, 4.0)
        return y, accepted, rejected

    y = kiln.tensor([1.0, -0.3, 2.0])
    check_staged(solve, [(y * k, kiln.tensor(end)) for k, end in ((1.0, 1.0), (0.1, 3.0), (3.0, 2.0), (1.0, 0.1))])
