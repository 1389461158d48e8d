"""Classes whose operators and hooks keep count."""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import Any, ClassVar

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import vector

PROGRAMS = program = Programs()


@program
def number_with_state(c: Any) -> None:
    class Counted(float):
        uses = 0

        def __mul__(self, other: Any) -> Any:
            type(self).uses += 1
            return float(self) * other

        __rmul__ = __mul__

    k = Counted(2.0)
    f = c(lambda x: k * x)
    for _ in range(3):
        f(vector(1, 2))
    c.see(Counted.uses)


@program
def string_of_ones_own(c: Any) -> None:
    class Name(str):
        calls = 0

        def __eq__(self, other: object) -> bool:
            Name.calls += 1
            return str(self) == other

        __hash__ = str.__hash__

    name = Name("double")
    f = c(lambda x: x * 2 if name == "double" else x)
    for _ in range(3):
        f(vector(1, 2))
    c.see(Name.calls)


@program
def truth_and_length_with_effects(c: Any) -> None:
    class Sometimes:
        asked = 0

        def __bool__(self) -> bool:
            Sometimes.asked += 1
            return Sometimes.asked % 2 == 1

    s = Sometimes()
    f = c(lambda x: x * 2 if s else x)
    for _ in range(4):
        f(vector(1, 2))


@program
def comparison_with_state(c: Any) -> None:
    @functools.total_ordering
    class Version:
        def __init__(self, n: int) -> None:
            self.n = n

        def __lt__(self, other: Version) -> bool:
            return self.n < other.n

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Version) and self.n == other.n

    a, b = Version(1), Version(2)
    f = c(lambda x: x * 2 if a >= b else x)
    f(vector(1, 2))
    a.n = 3
    f(vector(1, 2))
    b.n = 5
    f(vector(1, 2))


@program
def enumeration_with_a_method(c: Any) -> None:
    class Act(enum.Enum):
        RELU = "relu"
        TANH = "tanh"

        def __call__(self, x: Any) -> Any:
            return getattr(kiln, self.value)(x)

    f = c(lambda x, act: act(x))
    for act in (Act.RELU, Act.TANH, Act("relu")):
        f(vector(-1, 2), act)


@program
def flags_of_settings(c: Any) -> None:
    class Flag(enum.Flag):
        SCALE = enum.auto()
        SHIFT = enum.auto()

    @c
    def f(x: Any, flags: Flag) -> Any:
        if Flag.SCALE in flags:
            x = x * 2
        if Flag.SHIFT in flags:
            x = x + 1
        return x

    for flags in (Flag.SCALE, Flag.SCALE | Flag.SHIFT, Flag(0), Flag.SCALE):
        f(vector(1, 2), flags)


@program
def subscription_of_a_class(c: Any) -> None:
    class Scaled:
        known: ClassVar[list[float]] = []

        def __class_getitem__(cls, k: float) -> Any:
            cls.known.append(k)
            return lambda x: x * k

    f = c(lambda x: Scaled[2.0](x))
    for _ in range(3):
        f(vector(1, 2))
    c.see(Scaled.known)


@program
def subclass_hook(c: Any) -> None:
    class Base:
        kinds: ClassVar[list[str]] = []

        def __init_subclass__(cls) -> None:
            Base.kinds.append(cls.__name__)

    @c
    def f(x: Any) -> Any:
        class Local(Base):
            pass

        return x * len(Local.kinds)

    for _ in range(3):
        f(vector(1, 2))


@program
def dataclass_with_a_factory(c: Any) -> None:
    made: list[int] = []

    def fresh() -> list[int]:
        made.append(len(made))
        return [len(made)]

    @dataclasses.dataclass
    class Box:
        items: list[int] = dataclasses.field(default_factory=fresh)

    f = c(lambda x: x * Box().items[0])
    for _ in range(3):
        f(vector(1, 2))
