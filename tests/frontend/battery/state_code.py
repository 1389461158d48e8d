"""Code made or replaced while the program runs, exceptions with state, names that are not there."""

from __future__ import annotations

import operator
from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, vector

PROGRAMS = program = Programs()


@program
def exception_with_state(c: Any) -> None:
    class Retry(Exception):
        count = 0

        def __init__(self, x: Any) -> None:
            super().__init__(x.sum().item())
            type(self).count += 1
            self.x = x

    @c
    def f(x: Any) -> Any:
        try:
            if x.sum() > 2:
                raise Retry(x)
        except Retry as error:
            return error.x / 2, error.args
        return x, ()

    for k in (1, 3, 1, 3):
        f(vector(k))
    c.see(Retry.count)


@program
def exception_raised_again(c: Any) -> None:
    kept = ValueError("kept")
    kept.hits = 0  # type: ignore[attr-defined]

    @c
    def f(x: Any) -> Any:
        if len(x) > 1:
            kept.hits += 1  # type: ignore[attr-defined]
            raise kept
        return x

    for n in (1, 2, 1, 2):
        try:
            f(vector(*range(n)))
        except ValueError as error:
            c.see(error is kept, error.hits)  # type: ignore[attr-defined]


@program
def text_executed(c: Any) -> None:
    @c
    def f(x: Any, text: str) -> Any:
        space: dict[str, Any] = {"x": x}
        exec(text, space)
        return space["y"]

    for text in ("y = x * 2", "y = x + 1", "y = x * 2"):
        f(vector(1, 2), text)


@program
def text_evaluated(c: Any) -> None:
    k = 2.0
    f = c(lambda x, text: eval(text, {"x": x, "k": k}))
    for text in ("x * k", "x + k", "x * k"):
        f(vector(1, 2), text)


@program
def function_made_by_exec(c: Any) -> None:
    space: dict[str, Any] = {"kiln": kiln, "scale": 2.0}
    exec("def f(x):\n    return kiln.sin(x) * scale if x.sum() > 0 else x\n", space)
    f = c(space["f"])
    f(vector(1, 2))
    f(vector(-1, -2))
    space["scale"] = 3.0
    f(vector(1, 2))
    f(vector(-1, -2))


@program
def code_replaced(c: Any) -> None:
    def f(x: Any) -> Any:
        return x * 2

    def g(x: Any) -> Any:
        return x + 1

    h = c(f)
    h(vector(1, 2))
    f.__code__ = g.__code__
    h(vector(1, 2))


@program
def method_patched_on_an_instance(c: Any) -> None:
    class Net(kiln.nn.Module):
        def forward(self, x: Any) -> Any:
            return self.act(x) * 2

        def act(self, x: Any) -> Any:
            return x.relu()

    net = Net()
    f = c(net)
    f(vector(-1, 2))
    net.act = lambda x: x.tanh()  # type: ignore[method-assign]
    f(vector(-1, 2))
    Net.forward = lambda self, x: self.act(x) * 5  # type: ignore[method-assign]
    f(vector(-1, 2))


@program
def attribute_getters(c: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self.inner = type("Inner", (), {"k": 2.0})()

    box = Box()
    get = operator.attrgetter("inner.k")
    f = c(lambda x: x * get(box))
    f(vector(1, 2))
    box.inner.k = 3.0
    f(vector(1, 2))


@program
def reference_cycles(c: Any) -> None:
    class Node:
        def __init__(self, k: float) -> None:
            self.k = k
            self.next: Any = None

    a, b = Node(2.0), Node(3.0)
    a.next, b.next = b, a

    @c
    def f(x: Any, n: int) -> Any:
        node = a
        for _ in range(n):
            x, node = x * node.k, node.next
        return x

    f(vector(1), 3)
    b.k = 5.0
    f(vector(1), 3)
    b.next = b
    f(vector(1), 3)


@program
def names_deleted(c: Any) -> None:
    scale = 2.0

    @c
    def f(x: Any) -> Any:
        return x * scale

    f(vector(1, 2))
    del scale
    try:
        f(vector(1, 2))
    except NameError as error:
        c.see(str(error))
    scale = 3.0
    f(vector(1, 2))


@program
def local_maybe_unbound(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        if x.sum() > 0:
            y = x * 2
        return y

    for k in (1, -1, 1, -1):
        try:
            f(vector(k, 1.0 * k))
        except UnboundLocalError as error:
            c.see(str(error))


@program
def frames_looked_at(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        y = x * 2
        return sorted(locals()), y

    for n in (1, 2, 1):
        f(draw(n))
