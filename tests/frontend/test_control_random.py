"""Random programs of branches, loops and scans inside each other: captured they are eager, gradients included, bit for
bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.test_control import equal

Values = list[kiln.Tensor]
Statement = Callable[[Values], kiln.Tensor]


class Program:
    """A function of vectors. Values are vectors of three numbers; a block is a list of statements, each of which adds
    one value to those before it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.block = self._block(3, 3, 5)

    def __call__(self, *vectors: kiln.Tensor) -> kiln.Tensor:
        return kiln.stack(self._run(self.block, list(vectors))[-3:]).sum(0)

    def _run(self, block: Sequence[Statement], values: Values) -> Values:
        values = list(values)
        for statement in block:
            values.append(statement(values))
        return values

    def _block(self, known: int, depth: int, size: int) -> list[Statement]:
        return [self._statement(known + k, depth) for k in range(self.random.randint(1, size))]

    def _statement(self, known: int, depth: int) -> Statement:
        kinds = [self._unary, self._binary, self._binary, self._binary, self._detached]
        if depth:
            kinds += [self._branch, self._loop, self._scan, self._map] * 2
        return self.random.choice(kinds)(known, depth)

    def _any(self, known: int) -> int:
        return self.random.randrange(known)

    def _unary(self, known: int, depth: int) -> Statement:
        f = self.random.choice(
            [kiln.sin, kiln.tanh, kiln.relu, lambda x: x.sum().expand(3), lambda x: x.flip(0), kiln.neg]
        )
        k = self._any(known)
        return lambda v: f(v[k])

    def _binary(self, known: int, depth: int) -> Statement:
        f = self.random.choice([kiln.add, kiln.mul, kiln.sub, kiln.maximum, lambda a, b: a * b.mean(), lambda a, b: a])
        i, j = self._any(known), self._any(known)
        return lambda v: f(v[i], v[j])

    def _detached(self, known: int, depth: int) -> Statement:
        k = self._any(known)
        return lambda v: v[k].detach() * 0.5

    def _branch(self, known: int, depth: int) -> Statement:
        one, other = (self._block(known, depth - 1, 3) for _ in range(2))
        k, i, j = self._any(known), self._any(known), self._any(known)

        def run(v: Values) -> kiln.Tensor:
            a, b = kiln.cond(
                v[k].sum() > 0,
                lambda x: (self._run(one, v)[-1], x),
                lambda x: (x * 2, self._run(other, v)[-1]),
                (v[i],),
            )
            return a * 0.5 + b * v[j]

        return run

    def _loop(self, known: int, depth: int) -> Statement:
        body, turns = self._block(known + 2, depth - 1, 3), self.random.choice([0, 1, 2, 4])
        i, j = self._any(known), self._any(known)

        def run(v: Values) -> kiln.Tensor:
            def step(n: kiln.Tensor, a: kiln.Tensor, b: kiln.Tensor) -> Any:
                made = self._run(body, [*v, a, b])
                return n + 1, (made[-1] * 0.5).tanh(), made[-2] * 0.25

            start = (kiln.tensor(0), v[i], v[j])
            _, a, b = kiln.while_loop(lambda n, a, b: n < turns, step, start)
            return a + b

        return run

    def _scan(self, known: int, depth: int) -> Statement:
        body, reverse = self._block(known + 2, depth - 1, 3), self.random.random() < 0.5
        i, rows = self._any(known), [self._any(known) for _ in range(self.random.randint(1, 4))]
        both = self.random.random() < 0.7

        def run(v: Values) -> kiln.Tensor:
            def turn(c: kiln.Tensor, x: kiln.Tensor) -> Any:
                made = self._run(body, [*v, c, x])
                return made[-1].tanh(), (made[-1], made[-2])

            xs = kiln.stack([v[k] for k in rows])
            c, (one, two) = kiln.scan(turn, v[i], xs, reverse=reverse)
            return c + two[-1] + one[0] if both else one.sum(0)

        return run

    def _map(self, known: int, depth: int) -> Statement:
        body, rows = self._block(known + 1, depth - 1, 2), [self._any(known) for _ in range(3)]

        def run(v: Values) -> kiln.Tensor:
            return kiln.map(lambda x: self._run(body, [*v, x])[-1], kiln.stack([v[k] for k in rows])).sum(0)

        return run


def vectors(seed: int) -> list[kiln.Tensor]:
    rng = np.random.default_rng(seed)
    return [kiln.from_numpy(rng.normal(size=3)).requires_grad_() for _ in range(3)]


def known(g: Any) -> Any:
    """A gradient, None being zeros: what has none depends on the data in eager code."""
    return kiln.zeros(3, dtype=kiln.float64) if g is None else g + 0.0


@pytest.mark.parametrize("seed", range(24))
def test_captured_is_eager(seed: int) -> None:
    program = Program(seed)

    def taken(f: Any, arguments: Sequence[Any]) -> list[Any]:
        y = f(*arguments)
        if y.requires_grad:
            y.sum().backward()
        return [y, *(known(x.grad) for x in arguments)]

    compiled = kiln.compile(fullgraph=True)(program)
    for data in range(3):
        equal(taken(compiled, vectors(data)), taken(program, vectors(data)))
