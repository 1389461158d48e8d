"""Calls that change attributes: of instances, classes, functions and modules, and variables of functions around."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field
from typing import Any

import kiln
from kiln import nn
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


@program
def attributes_deleted_and_set_again(c: Any) -> None:
    class Box:
        pass

    box: Any = Box()
    box.a, box.unread, box.b = vector(1), vector(9), vector(2)

    @c
    def f(x: Any) -> Any:
        held = box.a
        del box.a
        box.a = held * x
        return box.b

    for n in range(4):
        f(vector(n + 1))
        c.see(list(vars(box)))


@program
def attribute_deleted(c: Any) -> None:
    class Box:
        pass

    box: Any = Box()

    @c
    def f(x: Any) -> Any:
        if hasattr(box, "a"):
            del box.a
            return x + 1
        box.a = x * 2
        return x - 1

    for n in range(5):
        f(vector(n))


@program
def closure_cell_unbound(c: Any) -> None:
    held = vector(1)

    @c
    def f(x: Any) -> Any:
        nonlocal held
        try:
            y = held + x
        except NameError:
            held = x
            return x
        del held
        return y

    for n in range(4):
        f(vector(n))


@program
def slots_kept(c: Any) -> None:
    class Pair:
        __slots__ = ("a", "b")

    pair = Pair()
    pair.a = vector(1)

    @c
    def f(x: Any) -> Any:
        pair.a = pair.a * 2 + x
        pair.b = pair.a - 1
        return pair.b

    for n in range(5):
        f(vector(n))
        if n == 3:
            del pair.b


@program
def instances_made_on_first_use(c: Any) -> None:
    class Meter:
        def __init__(self, name: str) -> None:
            self.name = name
            self.total = kiln.zeros(1)
            self.others: list[Any] = []

    meters: dict[str, Meter] = {}

    @c
    def f(x: Any, name: str) -> Any:
        if name not in meters:
            meters[name] = Meter(name)
        meters[name].total = meters[name].total + x
        return meters[name].total

    for n, name in enumerate(("a", "a", "b", "a", "a", "b", "b")):
        f(vector(n), name)
        if n == 4:
            meters.clear()


@program
def instances_of_a_class_that_counts(c: Any) -> None:
    class Node:
        made: list[Any] = []  # noqa: RUF012

        def __init__(self, x: Any) -> None:
            self.x = x
            type(self).made.append(self)

    @c
    def f(x: Any) -> Any:
        return Node(x * 2).x

    for n in range(3):
        f(vector(n))
        c.see([node.x for node in Node.made])


@program
def instances_with_finalisers(c: Any) -> None:
    gone: list[int] = []

    class Node:
        def __init__(self, n: int) -> None:
            self.n = n

        def __del__(self) -> None:
            gone.append(self.n)

    held: dict[str, Any] = {}

    @c
    def f(x: Any, n: int) -> Any:
        held["node"] = Node(n)
        return x * n

    for n in range(3):
        f(vector(1), n)


@program
def functions_made_and_kept(c: Any) -> None:
    held: dict[str, Any] = {"f": None}

    @c
    def f(x: Any) -> Any:
        before = held["f"]
        held["f"] = lambda y: y * 2
        return x if before is None else before(x)

    for n in range(3):
        f(vector(n))


@program
def data_class_argument_changed(c: Any) -> None:
    @dataclass
    class Batch:
        x: Any
        weights: list[Any] = field(default_factory=list)

    @c
    def f(batch: Batch) -> Any:
        batch.x = batch.x * 2
        batch.weights.append(batch.x.sum())
        return batch

    for n in range(3):
        batch = Batch(vector(n, 1))
        c.see(f(batch) is batch, batch.x, batch.weights)


@program
def module_that_remembers(c: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()
            self.register_buffer("mean", kiln.zeros(2))
            self.last: Any = None
            self.steps = 0

        def forward(self, x: Any) -> Any:
            y = self.layer(x)
            self.mean = 0.9 * self.mean + 0.1 * y.detach()
            self.last = y
            self.steps += 1
            return y - self.mean

    net = Net()
    f = c(net)
    for n in range(5):
        f(draw(2, seed=n))
        c.see(net.steps, net.state_dict())


@program
def module_copied_between(c: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.state = {"h": kiln.zeros(2)}

        def forward(self, x: Any) -> Any:
            self.state["h"] = self.state["h"] + x
            return self.state["h"] * 2

    net = Net()
    f = c(net.forward)
    for n in range(3):
        f(vector(n, 1))
    other = copy.deepcopy(net)
    g = c(other.forward)
    for n in range(3):
        g(vector(n, 1))
        f(vector(n, 2))
    c.see(net.state, other.state)


@program
def methods_of_several_objects(c: Any) -> None:
    class Counter:
        def __init__(self) -> None:
            self.total = vector(0)

        def add(self, x: Any) -> Any:
            self.total = self.total + x
            return self.total

    add = c(Counter.add)
    a, b = Counter(), Counter()
    for n in range(4):
        add(a, vector(n))
        add(b, vector(2 * n))
    b.total = a.total
    for n in range(3):
        add(a, vector(n))
        add(b, vector(2 * n))
        c.see(a.total is b.total)


@program
def generator_that_counts(c: Any) -> None:
    pulled: list[int] = []

    def rows(x: Any) -> Any:
        for n in range(3):
            pulled.append(n)
            yield x * n

    @c
    def f(x: Any) -> Any:
        total = x
        for row in rows(x):
            total = total + row
            if len(pulled) % 3 == 2:
                break
        return total

    for n in range(3):
        f(vector(n))


@program
def memo_by_several_keys(c: Any) -> None:
    known: dict[Any, Any] = {}

    def table(n: int, scale: float) -> Any:
        if (n, scale) not in known:
            known[n, scale] = kiln.arange(n) * scale
        return known[n, scale]

    @c
    def f(x: Any, scale: float) -> Any:
        return x + table(len(x), scale)

    for n, scale in ((2, 1.0), (3, 1.0), (2, 1.0), (2, 0.5), (3, 1.0), (2, 0.5)):
        f(draw(n), scale)


@program
def cached_property_dropped(c: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self.x = vector(1, 2)

        @functools.cached_property
        def twice(self) -> Any:
            return self.x * 2

    box = Box()

    @c
    def f(x: Any) -> Any:
        return box.twice + x

    for n in range(6):
        f(vector(n, 1))
        if n == 2:
            del box.twice
            box.x = vector(3, 4)
        if n == 4:
            box.twice = vector(7, 7)


@program
def global_dictionary_of_a_function(c: Any) -> None:
    def helper(x: Any) -> Any:
        helper.calls = getattr(helper, "calls", 0) + 1  # type: ignore[attr-defined]
        helper.last = x * 2  # type: ignore[attr-defined]
        return helper.last  # type: ignore[attr-defined]

    @c
    def f(x: Any) -> Any:
        return helper(x) + 1

    for n in range(4):
        f(vector(n))
        c.see(vars(helper))


@program
def attribute_set_past_its_class(c: Any) -> None:
    class Frozen:
        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError("frozen")

    box: Any = Frozen()
    object.__setattr__(box, "a", vector(1))

    @c
    def f(x: Any) -> Any:
        object.__setattr__(box, "a", box.a + x)
        object.__setattr__(box, "unread", x)
        return box.a

    for n in range(4):
        f(vector(n))
        c.see(vars(box))
