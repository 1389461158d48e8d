"""Attributes, classes and their methods that a compiled function reads."""

from __future__ import annotations

import enum
import functools
import types
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from tests.frontend.battery.kit import Table, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


class Box:
    """Any attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


@right(captures=2)
def attribute_replaced(c: Any, see: Any) -> None:
    box = Box(w=vector(2))
    f = c(lambda x: x * box.w)
    see(f(vector(5)), f(vector(5)))
    box.w = vector(3)
    see(f(vector(5)), f(vector(5)))


@right(captures=1)
def attribute_that_is_not_read_changes(c: Any, see: Any) -> None:
    box = Box(w=vector(2), step=0)
    f = c(lambda x: x * box.w)
    for n in range(4):
        box.step = n
        see(f(vector(5)))


@right(captures=1)
def trainer_keeps_a_history(c: Any, see: Any) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.w, self.losses, self.steps = vector(1, 2), [], 0

        def step(self, x: Any) -> Any:
            return (self.w * x).sum()

        def fit(self) -> Any:
            for n in range(4):
                self.losses.append(self.step(vector(n, n)).item())
                self.steps += 1
            return self.losses

    Trainer.step = c(Trainer.step)
    see(Trainer().fit())


@right()
def attribute_added_and_removed(c: Any, see: Any) -> None:
    box: Any = Box()
    f = c(lambda x: x * getattr(box, "scale", 1.0) + hasattr(box, "shift"))
    see(f(vector(5)), f(vector(5)))
    box.scale = 3.0
    see(f(vector(5)), f(vector(5)))
    box.shift = None
    see(f(vector(5)), f(vector(5)))
    del box.scale
    see(f(vector(5)), f(vector(5)))


@right()
def attribute_by_name_in_an_argument(c: Any, see: Any) -> None:
    box = Box(a=2.0, b=3.0)
    f = c(lambda x, name: x * getattr(box, name))
    see(f(vector(5), "a"), f(vector(5), "b"), f(vector(5), "a"))
    box.a = 7.0
    see(f(vector(5), "a"), f(vector(5), "b"))


@right()
def attribute_counted_inside(c: Any, see: Any) -> None:
    box = Box(n=0)

    def f(x: Any) -> Any:
        box.n += 1
        return x * box.n

    see(c(f)(vector(5)))


@right()
def attribute_keeps_a_result(c: Any, see: Any) -> None:
    box = Box(last=None)

    def f(x: Any) -> Any:
        box.last = x * 2
        return box.last + 1

    see(c(f)(vector(5)))


@right()
def attribute_set_and_restored(c: Any, see: Any) -> None:
    box = Box(k=2.0)

    def f(x: Any) -> Any:
        before, box.k = box.k, 5.0
        y = x * box.k
        box.k = before
        return y * box.k

    g = c(f)
    see(g(vector(5)), g(vector(5)), box.k)
    box.k = 3.0
    see(g(vector(5)), g(vector(5)), box.k)


@right()
def attribute_memoised(c: Any, see: Any) -> None:
    box: Any = Box()

    def f(x: Any) -> Any:
        if not hasattr(box, "cache"):
            box.cache = x * 2
        return x + box.cache

    see(c(f)(vector(5)))


@right()
def attribute_memoised_before(c: Any, see: Any) -> None:
    box: Any = Box()

    def f(x: Any) -> Any:
        if not hasattr(box, "cache"):
            box.cache = x * 2
        return x + box.cache

    f(vector(7))
    g = c(f)
    see(g(vector(5)), g(vector(5)))
    box.cache = vector(100)
    see(g(vector(5)), g(vector(5)))


@right()
def slots(c: Any, see: Any) -> None:
    class Slotted:
        __slots__ = ("k", "w")

        def __init__(self) -> None:
            self.w = vector(2)

    box = Slotted()
    f = c(lambda x: x * box.w * getattr(box, "k", 1.0))
    see(f(vector(5)), f(vector(5)))
    box.w = vector(3)
    see(f(vector(5)), f(vector(5)))
    box.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def private_slots_of_a_base(c: Any, see: Any) -> None:
    class Base:
        __slots__ = ("__k",)

        def set(self, k: float) -> None:
            self.__k = k

        def get(self) -> float:
            return self.__k

    class Derived(Base):
        __slots__ = ()

    box = Derived()
    box.set(2.0)
    f = c(lambda x: x * box.get())
    see(f(vector(5)), f(vector(5)))
    box.set(3.0)
    see(f(vector(5)), f(vector(5)))


@right()
def class_attribute(c: Any, see: Any) -> None:
    class Box:
        k: ClassVar[float] = 2.0

    box = Box()
    f = c(lambda x: x * box.k)
    see(f(vector(5)), f(vector(5)))
    Box.k = 3.0
    see(f(vector(5)), f(vector(5)))
    box.k = 4.0  # type: ignore[misc]
    see(f(vector(5)), f(vector(5)))
    del box.k
    see(f(vector(5)), f(vector(5)))


@right()
def class_attribute_of_a_base(c: Any, see: Any) -> None:
    class Base:
        k = 2.0

    class Derived(Base):
        pass

    f = c(lambda x: x * Derived.k)
    see(f(vector(5)), f(vector(5)))
    Base.k = 3.0
    see(f(vector(5)), f(vector(5)))
    Derived.k = 4.0
    see(f(vector(5)), f(vector(5)))


@right()
def class_of_an_object_replaced(c: Any, see: Any) -> None:
    class A:
        def go(self, x: Any) -> Any:
            return x * 2

    class B:
        def go(self, x: Any) -> Any:
            return x * 3

    box: Any = A()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    box.__class__ = B
    see(f(vector(5)), f(vector(5)))


@right()
def class_of_a_slotted_object_replaced(c: Any, see: Any) -> None:
    class A:
        __slots__ = ("k",)

        def go(self, x: Any) -> Any:
            return x * 2

    class B:
        __slots__ = ("k",)

        def go(self, x: Any) -> Any:
            return x * 3

    box: Any = A()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    box.__class__ = B
    see(f(vector(5)), f(vector(5)))


@right()
def bases_of_a_class_replaced(c: Any, see: Any) -> None:
    class A:
        def go(self, x: Any) -> Any:
            return x * 2

    class B:
        def go(self, x: Any) -> Any:
            return x * 3

    class Derived(A):
        pass

    box = Derived()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    Derived.__bases__ = (B,)
    see(f(vector(5)), f(vector(5)))


@right()
def method_patched_on_the_class(c: Any, see: Any) -> None:
    class A:
        def go(self, x: Any) -> Any:
            return x * 2

    box = A()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    A.go = lambda self, x: x * 3  # type: ignore[method-assign]
    see(f(vector(5)), f(vector(5)))


@right()
def method_patched_on_the_object(c: Any, see: Any) -> None:
    class A:
        def go(self, x: Any) -> Any:
            return x * 2

    box: Any = A()
    f = c(lambda x: box.go(x))
    see(f(vector(5)), f(vector(5)))
    box.go = lambda x: x * 3
    see(f(vector(5)), f(vector(5)))


@right()
def bound_method_compiled(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.w = vector(2)

        def go(self, x: Any) -> Any:
            return x * self.w

    box = A()
    f = c(box.go)
    see(f(vector(5)), f(vector(5)))
    box.w = vector(3)
    see(f(vector(5)), f(vector(5)))


@right(captures=4)
def decorated_method(c: Any, see: Any) -> None:
    class A:
        def __init__(self, k: float) -> None:
            self.k = k

        @c
        def go(self, x: Any) -> Any:
            return x * self.k

    a, b = A(2.0), A(3.0)
    for _ in range(3):
        see(a.go(vector(5)), b.go(vector(5)), A.go(a, vector(6)))
    a.k = 7.0
    see(a.go(vector(5)), b.go(vector(5)))


@right()
def decorated_static_and_class_methods(c: Any, see: Any) -> None:
    class A:
        k = 2.0

        @staticmethod
        @c
        def plain(x: Any) -> Any:
            return x * 2

        @classmethod
        @c
        def of_class(cls, x: Any) -> Any:
            return x * cls.k

    class B(A):
        k = 3.0

    for _ in range(3):
        see(
            A.plain(vector(5)),
            A().plain(vector(5)),
            A.of_class(vector(5)),
            B.of_class(vector(5)),
            B().of_class(vector(5)),
        )
    A.k = 9.0
    see(A.of_class(vector(5)), B.of_class(vector(5)))


@right()
def decorated_property(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.w = vector(2)

        @property
        @c
        def double(self) -> Any:
            return self.w * 2

    a = A()
    for n in range(3):
        see(a.double)
        a.w.add_(float(n))


@right()
def decorated_call(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.w = vector(2)

        @c
        def __call__(self, x: Any) -> Any:
            return x * self.w

    a = A()
    for n in range(3):
        see(a(vector(5)))
        a.w.add_(float(n))


@right()
def super_of_a_compiled_method(c: Any, see: Any) -> None:
    class A:
        k = 2.0

        @c
        def go(self, x: Any) -> Any:
            return x * self.k

    class B(A):
        @c
        def go(self, x: Any) -> Any:
            return super().go(x) + 1

    b = B()
    for _ in range(3):
        see(b.go(vector(5)))
    A.k = 5.0
    see(b.go(vector(5)), b.go(vector(5)))


@right()
def callable_object_compiled(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.k = 2.0

        def __call__(self, x: Any) -> Any:
            return x * self.k

    a = A()
    f = c(a)
    see(f(vector(5)), f(vector(5)))
    a.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def property_with_logic(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self._k = 2.0

        @property
        def k(self) -> float:
            return self._k * self.unit

        unit = 10.0

    a = A()
    f = c(lambda x: x * a.k)
    see(f(vector(5)), f(vector(5)))
    a._k = 3.0
    see(f(vector(5)), f(vector(5)))
    A.unit = 1.0
    see(f(vector(5)), f(vector(5)))


@right()
def cached_property_filled_inside(c: Any, see: Any) -> None:
    class A:
        @functools.cached_property
        def w(self) -> Any:
            return vector(2) * 2

    a = A()
    see(c(lambda x: x * a.w)(vector(5)))


@right()
def cached_property_filled_before(c: Any, see: Any) -> None:
    class A:
        @functools.cached_property
        def w(self) -> Any:
            return vector(2) * 2

    a = A()
    see(a.w)
    f = c(lambda x: x * a.w)
    see(f(vector(5)), f(vector(5)))
    a.w = vector(9)
    see(f(vector(5)), f(vector(5)))


@right()
def dynamic_attributes(c: Any, see: Any) -> None:
    class A:
        def __init__(self) -> None:
            self.table = {"k": 2.0}

        def __getattr__(self, name: str) -> Any:
            return self.__dict__["table"][name]

    a = A()
    f = c(lambda x: x * a.k)
    see(f(vector(5)), f(vector(5)))
    a.table["k"] = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def intercepted_attributes(c: Any, see: Any) -> None:
    class A:
        k = 2.0

        def __getattribute__(self, name: str) -> Any:
            found = object.__getattribute__(self, name)
            return found * 10 if name == "k" else found

    a = A()
    f = c(lambda x: x * a.k)
    see(f(vector(5)), f(vector(5)))
    A.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def descriptor_with_state(c: Any, see: Any) -> None:
    class Descriptor:
        def __init__(self) -> None:
            self.k = 2.0

        def __get__(self, instance: Any, owner: Any = None) -> float:
            return self.k

    d = Descriptor()

    class A:
        k = d

    a = A()
    f = c(lambda x: x * a.k)
    see(f(vector(5)), f(vector(5)))
    d.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def metaclass_with_state(c: Any, see: Any) -> None:
    class Meta(type):
        k = 2.0

        @property
        def scale(cls) -> float:
            return cls.k

    class A(metaclass=Meta):
        pass

    f = c(lambda x: x * A.scale)
    see(f(vector(5)), f(vector(5)))
    Meta.k = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def operators_of_the_users(c: Any, see: Any) -> None:
    class Scale:
        def __init__(self, k: float) -> None:
            self.k = k

        def __mul__(self, x: Any) -> Any:
            return x * self.k

        def __getitem__(self, n: int) -> float:
            return self.k + n

        def __len__(self) -> int:
            return int(self.k)

        def __bool__(self) -> bool:
            return self.k > 2.5

        def __iter__(self) -> Any:
            yield from (self.k, 1.0)

        def __contains__(self, n: float) -> bool:
            return n == self.k

        def __enter__(self) -> float:
            return self.k

        def __exit__(self, *_: object) -> None:
            pass

    s = Scale(2.0)

    def f(x: Any) -> Any:
        with s as k:
            y = s * x * s[1] * len(s) + (3 if s else 4) + sum(s) + (2.0 in s)
            return y * k

    g = c(f)
    see(g(vector(5)), g(vector(5)))
    s.k = 3.0
    see(g(vector(5)), g(vector(5)))


@right()
def dataclass_state(c: Any, see: Any) -> None:
    @dataclass
    class Config:
        k: float = 2.0
        tags: list[str] = field(default_factory=list)

    config = Config()
    f = c(lambda x: x * config.k + len(config.tags))
    see(f(vector(5)), f(vector(5)))
    config.k = 3.0
    see(f(vector(5)), f(vector(5)))
    config.tags.append("a")
    see(f(vector(5)), f(vector(5)))


@right()
def dataclass_made_inside(c: Any, see: Any) -> None:
    @dataclass(frozen=True)
    class Pair:
        a: Any
        b: Any

    f = c(lambda x: Pair(x * 2, x * 3).a)
    see(f(vector(5)), f(vector(5)))


@right()
def named_tuple_state(c: Any, see: Any) -> None:
    class Pair(NamedTuple):
        a: Any
        b: float

    pair = Pair(vector(2), 3.0)
    f = c(lambda x: x * pair.a * pair.b)
    see(f(vector(5)), f(vector(5)))
    pair = pair._replace(b=5.0)
    see(f(vector(5)), f(vector(5)))


@right()
def enum_decides(c: Any, see: Any) -> None:
    class Mode(enum.Enum):
        ADD = 1
        MUL = 2

    mode = Mode.ADD
    f = c(lambda x: x + 2 if mode is Mode.ADD else x * 2)
    see(f(vector(5)), f(vector(5)))
    mode = Mode.MUL
    see(f(vector(5)), f(vector(5)))


@right()
def enum_member_with_an_attribute(c: Any, see: Any) -> None:
    class Mode(enum.Enum):
        A = 1

    Mode.A.scale = 2.0  # type: ignore[attr-defined]
    f = c(lambda x: x * Mode.A.scale)  # type: ignore[attr-defined]
    see(f(vector(5)), f(vector(5)))
    Mode.A.scale = 3.0  # type: ignore[attr-defined]
    see(f(vector(5)))


@right()
def string_with_an_attribute(c: Any, see: Any) -> None:
    class Name(str):
        pass

    name: Any = Name("a")
    name.scale = 2.0
    f = c(lambda x: x * name.scale)
    see(f(vector(5)), f(vector(5)))
    name.scale = 3.0
    see(f(vector(5)))


@right()
def simple_namespace(c: Any, see: Any) -> None:
    args = types.SimpleNamespace(lr=0.1, layers=[1, 2])
    f = c(lambda x: x * args.lr * sum(args.layers))
    see(f(vector(5)), f(vector(5)))
    args.lr = 0.2
    see(f(vector(5)), f(vector(5)))
    args.layers[0] = 4
    see(f(vector(5)), f(vector(5)))


@right()
def dict_subclass_with_attribute_access(c: Any, see: Any) -> None:
    class Attributes(dict):  # type: ignore[type-arg]
        def __getattr__(self, name: str) -> Any:
            return self[name]

    config = Attributes(k=2.0)
    f = c(lambda x: x * config.k)
    see(f(vector(5)), f(vector(5)))
    config["k"] = 3.0
    see(f(vector(5)), f(vector(5)))


@right()
def list_subclass_with_state(c: Any, see: Any) -> None:
    class Items(list):  # type: ignore[type-arg]
        scale = 1.0

    items = Items([2.0])
    f = c(lambda x: x * items[0] * items.scale)
    see(f(vector(5)), f(vector(5)))
    items.scale = 3.0
    see(f(vector(5)), f(vector(5)))
    items[0] = 5.0
    see(f(vector(5)), f(vector(5)))


@right()
def protocol_with_a_member(c: Any, see: Any) -> None:
    from typing import Protocol, runtime_checkable

    @runtime_checkable
    class Sized(Protocol):
        extent: float

    box = Box()
    f = c(lambda x: x * 2 if isinstance(box, Sized) else x * 3)
    see(f(vector(5)), f(vector(5)))
    box.extent = 1.0
    see(f(vector(5)))


@right()
def exception_as_state(c: Any, see: Any) -> None:
    error = ValueError(2.0)
    f = c(lambda x: x * error.args[0])
    see(f(vector(5)), f(vector(5)))
    error.args = (3.0,)
    see(f(vector(5)))
