"""Functions: closures, decorators, partials, recursion, `match`."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import kiln
from kiln import nn
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


@program
def counter_in_a_closure(c: Any) -> None:
    calls = 0

    @c
    def f(x: Any) -> Any:
        nonlocal calls
        calls += 1
        return x * calls

    for n in range(4):
        f(vector(n))


@program
def counter_in_a_tensor(c: Any) -> None:
    calls = kiln.tensor(0)

    @c
    def f(x: Any) -> Any:
        calls.add_(1)
        if calls % 2 == 0:
            return x * calls
        return x

    for n in range(4):
        f(vector(n, 1))


@program
def settings_in_a_closure(c: Any) -> None:
    scale, offset = 2.0, vector(1, 2)

    @c
    def f(x: Any) -> Any:
        return x * scale + offset

    for k in range(4):
        f(vector(k, k))
        scale = 3.0 if k % 2 else 2.0
        offset.add_(1)


@program
def factory_of_functions(c: Any) -> None:
    def power(n: int) -> Callable[[Any], Any]:
        def f(x: Any) -> Any:
            return x**n

        return f

    functions = [power(n) for n in (1, 2, 3)]

    @c
    def total(x: Any, which: slice) -> Any:
        return sum(f(x).sum() for f in functions[which])

    for which in (slice(0, 2), slice(1, 3), slice(0, 2)):
        total(vector(1, 2), which)


@program
def lambdas_bound_late_and_early(c: Any) -> None:
    late = [lambda x: x * k for k in range(3)]  # noqa: B023 (users write it)
    early = [lambda x, k=k: x * k for k in range(3)]

    @c
    def f(x: Any, which: str) -> Any:
        return [g(x) for g in (late if which == "late" else early)]

    for which in ("late", "early", "late"):
        f(vector(1, 2), which)


@program
def decorator_with_arguments(c: Any) -> None:
    def clipped(low: float, high: float) -> Any:
        def wrap(f: Any) -> Any:
            @functools.wraps(f)
            def inner(*args: Any, **kwargs: Any) -> Any:
                return f(*args, **kwargs).clamp(low, high)

            return inner

        return wrap

    @clipped(-1, 1)
    @clipped(-3, 3)
    def g(x: Any, by: float = 2.0) -> Any:
        return x * by

    f = c(g)
    f(vector(1, 2))
    f(vector(0.1, 2), 3.0)
    f(vector(1, -2), by=2.0)


@program
def decorator_that_remembers(c: Any) -> None:
    def memoised(f: Any) -> Any:
        known: dict[Any, Any] = {}

        def inner(n: int) -> Any:
            if n not in known:
                known[n] = f(n)
            return known[n]

        return inner

    @memoised
    def frequencies(n: int) -> Any:
        return kiln.arange(n) / n

    @c
    def encode(x: Any) -> Any:
        return (x * frequencies(len(x))).sin()

    for n in (2, 3, 2, 3):
        encode(draw(n))


@program
def partial_of_a_function(c: Any) -> None:
    def f(a: Any, b: Any, scale: float) -> Any:
        return (a - b).square().sum() * scale

    target = vector(1, 2)
    g = c(functools.partial(f, b=target, scale=2.0))
    for k in range(3):
        g(vector(k, 1))
        target.add_(1)


@program
def chosen_by_name(c: Any) -> None:
    table: dict[str, Any] = {"relu": nn.functional.relu, "none": lambda x: x, "square": operator.methodcaller("square")}

    @c
    def f(x: Any, name: str) -> Any:
        return getattr(kiln, name)(x) if name not in table else table[name](x)

    for name in ("relu", "none", "square", "tanh", "relu"):
        f(vector(-1, 2), name)


@program
def recursion_on_structure(c: Any) -> None:
    @dataclass
    class Node:
        value: Any
        left: Node | None = None
        right: Node | None = None

    w = draw(2, 2, seed=1, grad=True)

    def encode(node: Node | None) -> Any:
        if node is None:
            return kiln.zeros(2)
        return (node.value + w @ encode(node.left) - w @ encode(node.right)).tanh()

    f = c(encode)
    small = Node(draw(2))
    f(small)
    f(Node(draw(2), small, Node(draw(2, seed=3))))
    f(small)


@program
def recursion_on_data(c: Any) -> None:
    def collapse(x: Any, depth: int = 0) -> Any:
        if depth > 4 or x.abs().sum() < 1:
            return x, depth
        return collapse(x / 3, depth + 1)

    f = c(collapse)
    for x in (vector(2, 2), vector(0.1), vector(2, 2), vector(20, 2)):
        f(x)


@program
def mutual_recursion(c: Any) -> None:
    def even(x: Any, n: int) -> Any:
        return x if n == 0 else odd(x + 1, n - 1)

    def odd(x: Any, n: int) -> Any:
        return -x if n == 0 else even(x * 2, n - 1)

    f = c(even)
    for n in (2, 3, 2):
        f(vector(1, 2), n)


@program
def strassen(c: Any) -> None:
    def multiply(a: Any, b: Any) -> Any:
        n = len(a)
        if n <= 1 or n % 2:
            return a @ b
        h = n // 2
        (a1, a2), (a3, a4) = (r.split(h, 1) for r in a.split(h))
        (b1, b2), (b3, b4) = (r.split(h, 1) for r in b.split(h))
        m1, m2 = multiply(a1 + a4, b1 + b4), multiply(a3 + a4, b1)
        m3, m4 = multiply(a1, b2 - b4), multiply(a4, b3 - b1)
        m5, m6, m7 = multiply(a1 + a2, b4), multiply(a3 - a1, b1 + b2), multiply(a2 - a4, b3 + b4)
        return kiln.cat([kiln.cat([m1 + m4 - m5 + m7, m3 + m5], 1), kiln.cat([m2 + m4, m1 - m2 + m3 + m6], 1)])

    f = c(multiply)
    for n in (2, 3, 2):
        f(draw(n, n), draw(n, n, seed=1))


@program
def match_on_shapes_and_types(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        match x:
            case None:
                return kiln.zeros(1)
            case float() | int():
                return kiln.full((2,), float(x))
            case [first, *rest]:
                return first + len(rest)
            case {"x": value, **others}:
                return value * (1 + len(others))
            case kiln.Tensor(shape=(n,)):
                return x * n
            case _:
                return x.sum()

    for x in (
        None,
        2.0,
        [vector(1), vector(2)],
        {"x": vector(3), "y": 1},
        vector(1, 2),
        draw(2, 2),
        None,
        vector(1, 2),
    ):
        f(x)


@program
def pipeline_with_reduce(c: Any) -> None:
    steps = [linear(), kiln.tanh, lambda x: x * 2, linear(seed=4)]

    @c
    def run(x: Any, until: int) -> Any:
        return functools.reduce(lambda y, f: f(y), steps[:until], x)

    for until in (2, 4, 2):
        run(draw(2), until)


@program
def products_and_windows_of_indices(c: Any) -> None:
    @c
    def f(x: Any, n: int) -> Any:
        pairs = kiln.stack([x[i] * x[j] for i, j in itertools.combinations(range(n), 2)])
        steps = kiln.stack([b - a for a, b in itertools.pairwise(x[:n])])
        return pairs.sum(), list(itertools.accumulate(steps, operator.mul))

    for n in (2, 3, 2):
        f(draw(3), n)
