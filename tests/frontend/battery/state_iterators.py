"""What is used up: iterators, generators, counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, vector

PROGRAMS = program = Programs()


@program
def iterator_held_across_calls(c: Any) -> None:
    values = iter([1.0, 2.0, 3.0, 4.0])
    f = c(lambda x: x * next(values))
    for _ in range(3):
        f(vector(1, 2))
    c.see(next(values))


@program
def iterator_as_an_argument(c: Any) -> None:
    @c
    def f(xs: Any) -> Any:
        return sum(x.sum() for x in xs)

    for n in (2, 3, 2):
        it = iter([draw(2, seed=k) for k in range(n)])
        f(it)
        c.see(list(it))


@program
def generator_held_across_calls(c: Any) -> None:
    def scales() -> Iterator[float]:
        k = 1.0
        while True:
            yield k
            k *= 2

    source = scales()
    f = c(lambda x: x * next(source))
    for _ in range(4):
        f(vector(1, 2))


@program
def generator_with_send(c: Any) -> None:
    def average() -> Any:
        total, n, value = kiln.zeros(()), 0, None
        while True:
            x = yield value
            total, n = total + x, n + 1
            value = total / n

    running = average()
    next(running)
    f = c(lambda x: running.send(x.sum()))
    for n in range(4):
        f(vector(n, 1))


@program
def generator_returned(c: Any) -> None:
    def rows(x: Any) -> Iterator[Any]:
        for row in x:
            yield row * 2

    f = c(rows)
    for n in (1, 2, 1):
        c.see(list(f(draw(n, 2))))


@program
def counter_of_itertools(c: Any) -> None:
    count = itertools.count()

    @c
    def f(x: Any) -> Any:
        n = next(count)
        return x + n if n % 2 else x - n

    for _ in range(5):
        f(vector(1, 2))


@program
def cycle_of_scales(c: Any) -> None:
    scales = itertools.cycle([1.0, 2.0])
    f = c(lambda x: x * next(scales))
    for _ in range(5):
        f(vector(1, 2))


@program
def map_and_zip_used_up(c: Any) -> None:
    doubled = map(float, [1, 2, 3])

    @c
    def f(x: Any) -> Any:
        return [x * v for v in doubled]

    for _ in range(3):
        f(vector(1, 2))


@program
def iterator_of_ones_own(c: Any) -> None:
    class Steps:
        def __init__(self) -> None:
            self.at = 0

        def __iter__(self) -> Steps:
            return self

        def __next__(self) -> int:
            self.at += 1
            if self.at % 3 == 0:
                raise StopIteration
            return self.at

    steps = Steps()
    f = c(lambda x: [x * k for k in steps])
    for _ in range(3):
        f(vector(1))


@program
def sequence_by_getitem_alone(c: Any) -> None:
    class Powers:
        limit = 3

        def __getitem__(self, k: int) -> int:
            if k >= self.limit:
                raise IndexError(k)
            return 2**k

    powers = Powers()
    f = c(lambda x: sum(x * p for p in powers))
    f(vector(1, 2))
    Powers.limit = 4
    f(vector(1, 2))
    powers.limit = 2
    f(vector(1, 2))


@program
def callable_iterator_with_a_sentinel(c: Any) -> None:
    stack = [1, 2, 3, 0]
    f = c(lambda x: [x * k for k in iter(stack.pop, 1)])
    f(vector(1, 2))
    stack.extend([4, 1, 7])
    f(vector(1, 2))
    stack.extend([1])
    f(vector(1, 2))
