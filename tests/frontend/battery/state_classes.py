"""Classes that do things behind attributes, and code made while the program runs."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import vector

PROGRAMS = program = Programs()


@program
def attribute_of_a_class(c: Any) -> None:
    class Scale:
        by = 2.0

    f = c(lambda x: x * Scale.by)
    for by in (2.0, 3.0, 2.0):
        Scale.by = by
        f(vector(1, 2))


@program
def attribute_of_a_class_counted(c: Any) -> None:
    class Counter:
        calls: ClassVar[int] = 0

        def __call__(self, x: Any) -> Any:
            type(self).calls += 1
            return x * self.calls

    f = c(Counter())
    for _ in range(4):
        f(vector(1, 2))


@program
def instance_that_hides_the_class(c: Any) -> None:
    class Scale:
        by = 2.0

    s = Scale()
    f = c(lambda x: x * s.by)
    f(vector(1, 2))
    s.by = 3.0
    f(vector(1, 2))
    del s.by
    f(vector(1, 2))
    Scale.by = 7.0
    f(vector(1, 2))


@program
def base_class_changed(c: Any) -> None:
    class A:
        def g(self, x: Any) -> Any:
            return x * 2

    class B(A):
        pass

    b = B()
    f = c(lambda x: b.g(x))
    f(vector(1, 2))
    A.g = lambda self, x: x * 5  # type: ignore[method-assign]
    f(vector(1, 2))
    B.g = lambda self, x: x * 7  # type: ignore[method-assign]
    f(vector(1, 2))


@program
def class_of_an_object_changed(c: Any) -> None:
    class A:
        def g(self, x: Any) -> Any:
            return x * 2

    class B:
        def g(self, x: Any) -> Any:
            return x * 3

    a: Any = A()
    f = c(lambda x: a.g(x))
    f(vector(1, 2))
    a.__class__ = B
    f(vector(1, 2))
    a.g = lambda x: x * 4
    f(vector(1, 2))


@program
def descriptor_with_storage(c: Any) -> None:
    class Logged:
        def __set_name__(self, owner: type, name: str) -> None:
            self.name = "_" + name
            self.reads = 0

        def __get__(self, instance: Any, owner: type) -> Any:
            if instance is None:
                return self
            self.reads += 1
            return getattr(instance, self.name)

        def __set__(self, instance: Any, value: Any) -> None:
            setattr(instance, self.name, value * 2)

    class Box:
        value = Logged()

    box = Box()
    box.value = vector(1, 2)
    f = c(lambda x: x + box.value)
    for _ in range(3):
        f(vector(1, 2))
    c.see(Box.value.reads)


@program
def descriptor_without_state(c: Any) -> None:
    class Squared:
        def __init__(self, name: str) -> None:
            self.name = name

        def __get__(self, instance: Any, owner: type) -> Any:
            return getattr(instance, self.name) ** 2

    class Box:
        side = 3.0
        area = Squared("side")

    box = Box()
    f = c(lambda x: x * box.area)
    f(vector(1, 2))
    box.side = 2.0
    f(vector(1, 2))
    Box.area = Squared("height")  # type: ignore[assignment]
    box.height = 5.0  # type: ignore[attr-defined]
    f(vector(1, 2))


@program
def metaclass_with_a_registry(c: Any) -> None:
    class Registry(type):
        known: ClassVar[dict[str, type]] = {}

        def __new__(mcs, name: str, bases: Any, space: Any) -> Any:
            cls = super().__new__(mcs, name, bases, space)
            mcs.known[name] = cls
            return cls

    class Base(metaclass=Registry):
        pass

    class Twice(Base):
        def __call__(self, x: Any) -> Any:
            return x * 2

    @c
    def f(x: Any, name: str) -> Any:
        return Registry.known[name]()(x)  # type: ignore[operator]

    f(vector(1, 2), "Twice")

    class Thrice(Base):
        def __call__(self, x: Any) -> Any:
            return x * 3

    for name in ("Thrice", "Twice", "Thrice"):
        f(vector(1, 2), name)


@program
def metaclass_that_calls(c: Any) -> None:
    class Single(type):
        def __call__(cls, *args: Any) -> Any:
            if "only" not in cls.__dict__:
                cls.only = super().__call__(*args)
            return cls.only

    class Scale(metaclass=Single):
        def __init__(self, by: float) -> None:
            self.by = by

    f = c(lambda x, by: x * Scale(by).by)
    for by in (2.0, 3.0, 2.0):
        f(vector(1, 2), by)


@program
def attributes_made_up(c: Any) -> None:
    class Proxy:
        def __init__(self, target: Any) -> None:
            self.__dict__["target"] = target
            self.__dict__["asked"] = []

        def __getattr__(self, name: str) -> Any:
            self.asked.append(name)
            return getattr(self.target, name)

    class Settings:
        scale = 2.0

    proxy = Proxy(Settings())
    f = c(lambda x: x * proxy.scale)
    for _ in range(3):
        f(vector(1, 2))
    c.see(proxy.asked)


@program
def attributes_from_a_dictionary(c: Any) -> None:
    class Record:
        def __init__(self, **fields: Any) -> None:
            object.__setattr__(self, "fields", fields)

        def __getattr__(self, name: str) -> Any:
            try:
                return self.fields[name]
            except KeyError:
                raise AttributeError(name) from None

        def __setattr__(self, name: str, value: Any) -> None:
            self.fields[name] = value

    record = Record(scale=2.0)

    @c
    def f(x: Any) -> Any:
        return x * record.scale + getattr(record, "shift", 0.0)

    f(vector(1, 2))
    record.scale = 3.0
    f(vector(1, 2))
    record.shift = vector(1, 1)
    f(vector(1, 2))


@program
def attribute_access_overridden(c: Any) -> None:
    class Loud:
        def __init__(self) -> None:
            self.scale = 2.0
            self.reads = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "scale":
                self.reads += 1
            return object.__getattribute__(self, name)

    loud = Loud()
    f = c(lambda x: x * loud.scale)
    for _ in range(3):
        f(vector(1, 2))
    c.see(loud.reads)


@program
def slots(c: Any) -> None:
    class Point:
        __slots__ = ("w", "x")

        def __init__(self, x: Any, w: float) -> None:
            self.x, self.w = x, w

    p = Point(vector(1, 2), 2.0)
    f = c(lambda y: p.x * p.w + y)
    f(vector(1, 2))
    p.w = 3.0
    f(vector(1, 2))
    p.x = vector(5, 5)
    f(vector(1, 2))


@program
def slots_written(c: Any) -> None:
    class Cell:
        __slots__ = ("n",)

    cell = Cell()
    cell.n = 0

    @c
    def f(x: Any) -> Any:
        cell.n += 1
        return x * cell.n

    for _ in range(3):
        f(vector(1, 2))
