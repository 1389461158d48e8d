"""Loops that decode: what picks, sorts, draws and writes by position is native code; a loop around it is one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.test_staging import bits

RNG = np.random.default_rng(3)
WORDS, LONGEST, END = 37, 9, 0
MOVES = RNG.standard_normal((WORDS, WORDS)).astype("float32")


def scores_of(seed: int, words: int = WORDS) -> Any:
    return kiln.from_numpy(np.random.default_rng(seed).standard_normal(words).astype("float32"))


def one_call(f: Callable[..., Any], *calls: tuple[Any, ...]) -> None:
    """Compiled, `f` gives eager's bits, holds a loop, and is one native function."""
    wanted = [seeded(f, args) for args in calls]
    compiled = kiln.compile(f, fullgraph=True)
    for args, result in zip(calls, wanted, strict=True):
        assert seeded(compiled, args) == result
    (region,) = compiled.regions()
    assert any(op.op.name == "while_loop" for op in region.graph.operations)
    (entry,) = region.forward.program.entries
    assert isinstance(entry, str)


def seeded(f: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    kiln.manual_seed(5)
    return bits(f(*args))


def looped(turn: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """`turn(x, k)` until the data say stop."""

    def f(x: Any) -> Any:
        k = kiln.tensor(0)
        while (x.sum() > -1e9) & (k < 6):
            x = turn(x, k)
            k = k + 1
        return x, k

    return f


TURNS: dict[str, Callable[[Any, Any], Any]] = {
    "topk": lambda x, k: x.index_fill(0, x.topk(3).indices, 0.25),
    "topk, smallest": lambda x, k: x - kiln.topk(x, 5, largest=False).values.sum(),
    "sort": lambda x, k: kiln.sort(x, descending=True).values * 0.5 + x,
    "argsort": lambda x, k: x[x.argsort()] - k,
    "kthvalue": lambda x, k: kiln.where(x > x.kthvalue(4).values, x - 1, x),
    "median": lambda x, k: x - x.median(),
    "cumsum": lambda x, k: x.softmax(0).cumsum(0) - x,
    "cummax": lambda x, k: x + x.cummax(0).values * 0.1,
    "searchsorted": lambda x, k: x + kiln.searchsorted(x.sort().values, x).to(x.dtype) * 0.01,
    "argmax": lambda x, k: x.scatter(0, x.argmax(0, keepdim=True), -1.0),
    "gather": lambda x, k: x.gather(0, kiln.arange(36, -1, -1)) * 0.9,
    "scatter_add": lambda x, k: x.scatter_add(0, kiln.arange(37) % 5, x * 0.1),
    "index_put": lambda x, k: x.index_put((kiln.stack([k, k + 1]),), kiln.ones(2)),
    "one element": lambda x, k: kiln.where(kiln.arange(37) == k, x.max(), x),
    "multinomial": lambda x, k: x - x.softmax(0)[kiln.multinomial(x.softmax(0), 3)].sum(),
    "rand": lambda x, k: x + kiln.rand(37),
    "randint": lambda x, k: x[kiln.randint(0, 37, (37,))],
    "randperm": lambda x, k: x[kiln.randperm(37)] + k,
}


@pytest.mark.parametrize("name", TURNS)
def test_a_loop_around_it_is_one_call(name: str) -> None:
    one_call(looped(TURNS[name]), *[(scores_of(seed),) for seed in range(3)])


def test_a_branch_around_a_topk_is_one_call() -> None:
    def f(x: Any) -> Any:
        k = kiln.tensor(0)
        while k < 8:
            x = x - x.topk(2).values.mean() if x.sum() > 0 else x + x.topk(4, largest=False).values[-1].abs() + k
            k = k + 1
        return x

    one_call(f, *[(scores_of(seed),) for seed in range(3)])


@pytest.mark.parametrize("beams", [1, 3])
def test_beam_search(beams: int) -> None:
    def search(first: Any, moves: Any) -> Any:
        scores, last = first.topk(beams)
        words = kiln.where(kiln.arange(LONGEST) == 0, last[:, None], 0)
        length = 1
        while length < LONGEST and not (last == END).all():
            total = scores[:, None] + moves[last]
            scores, best = total.flatten().topk(beams)
            last = best % WORDS
            words = kiln.where(kiln.arange(LONGEST) == length, last[:, None], words[best // WORDS])
            length += 1
        return words, scores, length

    one_call(search, *[(scores_of(seed), kiln.from_numpy(MOVES)) for seed in range(3)])


def test_sampling_from_the_largest() -> None:
    def sample(x: Any, moves: Any) -> Any:
        """The nucleus of the 12 largest, words one after the other."""
        words = kiln.zeros(LONGEST, dtype=kiln.int64)
        at, word = kiln.tensor(0), kiln.tensor(1)
        while (at < LONGEST) & (word != END):
            values, indices = x.topk(12)
            p = values.softmax(0)
            kept = kiln.where(p.cumsum(0) - p < 0.9, p, 0.0)
            word = indices[kiln.multinomial(kept, 1)].squeeze(0)
            words = words.scatter(0, at.reshape(1), word.reshape(1))
            x = moves[word]
            at = at + 1
        return words, at

    one_call(sample, *[(scores_of(seed), kiln.from_numpy(MOVES)) for seed in range(3)])
