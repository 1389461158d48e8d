"""Functions and classes: closures, decorators, inheritance, properties, recursion, `match`."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import kiln
from kiln import nn
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


@program
def inheritance(c: Any) -> None:
    class Layer(abc.ABC):
        gain = 1.0

        def __init__(self, w: Any) -> None:
            self.w = w

        @abc.abstractmethod
        def activate(self, x: Any) -> Any: ...

        def __call__(self, x: Any) -> Any:
            return self.activate(x * self.w) * self.gain

    class Rectified(Layer):
        def activate(self, x: Any) -> Any:
            return x.relu()

    class Leaky(Rectified):
        gain = 2.0

        def __init__(self, w: Any, slope: float) -> None:
            super().__init__(w)
            self.slope = slope

        def activate(self, x: Any) -> Any:
            return super().activate(x) + self.slope * x

    @c
    def f(layers: tuple[Any, ...], x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    a, b = Rectified(vector(1, -1)), Leaky(vector(2, 2), 0.1)
    for layers in ((a,), (a, b), (b,), (a, b)):
        f(layers, vector(1, 2))


@program
def mixins_and_the_order_of_methods(c: Any) -> None:
    class Base:
        def forward(self, x: Any) -> Any:
            return x

    class Scaled(Base):
        def forward(self, x: Any) -> Any:
            return 2 * super().forward(x)

    class Shifted(Base):
        def forward(self, x: Any) -> Any:
            return 1 + super().forward(x)

    class Both(Scaled, Shifted):
        pass

    class Other(Shifted, Scaled):
        pass

    @c
    def f(kind: type, x: Any) -> Any:
        return kind().forward(x)

    for kind in (Both, Other, Both):
        f(kind, vector(1, 2))


@program
def property_made_of_a_parameter(c: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.raw = nn.Parameter(vector(0.5, -1))
            self.positive = True

        @property
        def weight(self) -> Any:
            return nn.functional.softplus(self.raw) if self.positive else self.raw

        def forward(self, x: Any) -> Any:
            return x * self.weight

    inner = Net()
    net = c(inner)
    for positive in (True, False, True):
        inner.positive = positive
        net(vector(1, 2)).sum().backward()


@program
def property_with_a_setter(c: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self._value = vector(1, 2)

        @property
        def value(self) -> Any:
            return self._value * 2

        @value.setter
        def value(self, new: Any) -> None:
            self._value = new / 2

    box = Box()

    @c
    def f(x: Any) -> Any:
        box.value = box.value + x
        return box.value

    for n in range(3):
        f(vector(n, 1))


@program
def cached_property(c: Any) -> None:
    class Kernel:
        def __init__(self, x: Any) -> None:
            self.x = x

        @functools.cached_property
        def gram(self) -> Any:
            return self.x @ self.x.T

        def trace(self, scale: float) -> Any:
            return self.gram.trace() * scale

    kernel = Kernel(draw(2, 2))
    f = c(kernel.trace)
    for scale in (1.0, 2.0, 1.0):
        f(scale)


@program
def operators_of_a_class(c: Any) -> None:
    @dataclass
    class Dual:
        a: Any
        b: Any

        def __add__(self, other: Any) -> Dual:
            other = other if isinstance(other, Dual) else Dual(other, 0.0)
            return Dual(self.a + other.a, self.b + other.b)

        def __mul__(self, other: Any) -> Dual:
            if isinstance(other, Dual):
                return Dual(self.a * other.a, self.a * other.b + self.b * other.a)
            return Dual(self.a * other, self.b * other)

        __rmul__ = __mul__

    @c
    def f(x: Any, n: int) -> Any:
        d = Dual(x, kiln.ones_like(x))
        out = d
        for _ in range(n):
            out = 2.0 * out * d + 1.0
        return out.a, out.b

    for n in (1, 2, 1):
        f(vector(1, 2), n)


@program
def collection_of_ones_own(c: Any) -> None:
    class Bag:
        def __init__(self, *items: Any) -> None:
            self.items = list(items)

        def __len__(self) -> int:
            return len(self.items)

        def __iter__(self) -> Any:
            return iter(self.items)

        def __getitem__(self, k: int) -> Any:
            return self.items[k]

        def __contains__(self, x: Any) -> bool:
            return any((x == y).all() for y in self.items)

    @c
    def f(bag: Bag, x: Any) -> Any:
        if x in bag:
            return sum(bag) * len(bag)
        return bag[-1] - x

    bag = Bag(vector(1, 2), vector(3, 4))
    for x in (vector(1, 2), vector(5, 5), vector(3, 4)):
        f(bag, x)
    bag.items.append(vector(5, 5))
    f(bag, vector(5, 5))


@program
def structural_protocol(c: Any) -> None:
    class Prior(Protocol):
        def logp(self, x: Any) -> Any: ...

    @dataclass(frozen=True)
    class Normal:
        mean: float

        def logp(self, x: Any) -> Any:
            return -0.5 * (x - self.mean) ** 2

    @dataclass(frozen=True)
    class Uniform:
        high: float

        def logp(self, x: Any) -> Any:
            return kiln.where((x >= 0) & (x <= self.high), 0.0, -float("inf"))

    @c
    def total(prior: Prior, x: Any) -> Any:
        return prior.logp(x).sum()

    for prior in (Normal(0.0), Uniform(1.0), Normal(1.0), Normal(0.0)):
        total(prior, vector(0.5, 0.7))


@program
def singleton_of_settings(c: Any) -> None:
    class Settings:
        instance: Settings | None = None
        scale = 2.0

        @classmethod
        def get(cls) -> Settings:
            if cls.instance is None:
                cls.instance = cls()
            return cls.instance

    @c
    def f(x: Any) -> Any:
        return x * Settings.get().scale

    for n in range(4):
        f(vector(n, 1))
        if n == 2:
            Settings.get().scale = 5.0
    f(vector(1, 1))


@program
def hooks_listed_by_a_user(c: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()
            self.after: list[Callable[[Any], Any]] = []

        def forward(self, x: Any) -> Any:
            x = self.layer(x)
            for f in self.after:
                x = f(x)
            return x

    inner = Net()
    net = c(inner)
    net(draw(2))
    inner.after.append(lambda x: x * 2)
    net(draw(2))
    net(draw(2))
    inner.after.clear()
    net(draw(2))
