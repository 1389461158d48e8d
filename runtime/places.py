"""Where CPython keeps what guards look at: offsets of words of memory, found by experiment.

Each is found by changing an object again and again and keeping the words that follow. Nothing here is true by itself:
`facts.available` and `tag_word` say whether it may be used.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from types import CellType, FunctionType, MappingProxyType
from typing import Any, Final

_MANAGED_DICT: Final = 1 << 4
"""Py_TPFLAGS_MANAGED_DICT: instances keep the pointer to their dict before themselves."""
_TAGGED: Final = ((3, 11), (3, 12))
"""Versions of CPython in which whatever writes to a dict moves its version tag. In 3.13 attributes of an instance are
written past the tag of its dict; later there is none."""


def word_at(address: int) -> int:
    """The word of memory there, unsigned."""
    return ctypes.c_uint64.from_address(address).value


def dict_of(proxy: MappingProxyType[str, Any]) -> dict[str, Any] | None:
    """The dict that a class keeps its attributes in, of which `vars(cls)` is a view, if it can be had."""
    found = gc.get_referents(proxy)
    return found[0] if len(found) == 1 and type(found[0]) is dict else None


def _following(x: object, changes: Iterable[Callable[[], object]], start: int = 0) -> int:
    """The offset from `x` of the one word that is always the address of what the latest change returned (0: None).
    LookupError when there is no such word, or more than one."""
    found = list(range(start, type(x).__basicsize__, 8))
    for change in changes:
        there = change()
        word = 0 if there is None else id(there)
        found = [offset for offset in found if word_at(id(x) + offset) == word]
    if len(found) != 1:
        raise LookupError("there is no one word of memory that follows an attribute")
    return found[0]


def _put(x: object, name: str, value: object) -> Callable[[], object]:
    """A change: an attribute becomes `value`."""

    def put() -> object:
        object.__setattr__(x, name, value)
        return value

    return put


@functools.cache
def word_of(cls: type, slot: str) -> int:
    """Where instances of `cls` (and of classes derived from it) keep the slot `slot`, in bytes from their address.
    `cls` must have slots alone."""
    x: object = object.__new__(cls)
    return _following(x, [_put(x, slot, object()) for _ in range(2)])


@functools.cache
def class_word() -> int:
    """Where objects keep their class."""

    class A:
        pass

    class B(A):
        pass

    x = A()
    return _following(x, [_put(x, "__class__", cls) for cls in (A, B, A)])


def dict_word(kind: type) -> int | None:
    """Where instances of a class keep the dict of their attributes, once somebody asked for it; None where that is not
    known."""
    if kind.__flags__ & _MANAGED_DICT:
        return _managed_dict()
    return kind.__dictoffset__ if kind.__dictoffset__ > 0 else None


@functools.cache
def _managed_dict() -> int | None:
    class A:
        pass

    class B:
        __slots__ = ("__dict__", "__weakref__", "a", "b")

    found: set[int] = set()
    for x in (A(), B()):
        if not type(x).__flags__ & _MANAGED_DICT:
            return None
        changes: list[Callable[[], object]] = [functools.partial(vars, x), *(_put(x, "__dict__", {}) for _ in range(2))]
        try:
            found.add(_following(x, changes, start=-32))
        except LookupError:
            return None
    return found.pop() if len(found) == 1 else None


@functools.cache
def mro_word() -> int:
    """Where classes keep their `__mro__`."""

    class A:
        pass

    class B:
        pass

    class C(A):
        pass

    def based(cls: type) -> object:
        C.__bases__ = (cls,)
        return C.__mro__

    return _following(C, [functools.partial(based, cls) for cls in (A, B, A)])


@functools.cache
def function_word(name: str) -> int:
    """Where functions keep `__code__`, `__defaults__`, `__kwdefaults__`."""

    def f() -> None:
        pass

    def g() -> None:
        pass

    values: tuple[object, ...] = {
        "__code__": (f.__code__, g.__code__, f.__code__),
        "__defaults__": ((1,), None, (2,)),
        "__kwdefaults__": ({}, None, {}),
    }[name]
    return _following(f, [_put(f, name, value) for value in values])


@functools.cache
def cell_word() -> int:
    """Where closure cells keep what they hold; 0 when that is nothing."""
    cell = CellType(1)

    def emptied() -> None:
        del cell.cell_contents

    changes = [_put(cell, "cell_contents", object()), emptied, _put(cell, "cell_contents", object())]
    return _following(cell, changes)


@functools.cache
def tag_word() -> int | None:
    """Where dicts keep a tag that is another, never seen before, after each change; None where there is no such word.

    CPython keeps one privately, of 64 bits (PEP 509). It is used where the source says that it is kept up to date, and
    only after changes by every kind of road have moved it, and reading has not.
    """
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in _TAGGED:
        return None
    found = list(range(16, dict.__basicsize__, 8))
    seen: dict[int, set[int]] = {offset: set() for offset in found}
    for mapping, moves, act in _acts():
        before = {offset: word_at(id(mapping) + offset) for offset in found}
        act()
        now = {offset: word_at(id(mapping) + offset) for offset in found}
        for offset in found:
            seen[offset].add(before[offset])
        found = [o for o in found if (now[o] not in seen[o] if moves else now[o] == before[o])]
    return found[0] if len(found) == 1 else None


def _acts() -> Iterator[tuple[dict[Any, Any], bool, Callable[[], object]]]:
    """Dicts, with what changes them (True) or only reads them, to be called before the next is asked for."""
    plain: dict[Any, Any] = {}
    for change in (
        lambda: operator.setitem(plain, "a", object()),  # into an empty one
        lambda: operator.setitem(plain, "a", object()),
        lambda: plain.update(a=object()),
        lambda: plain.update(b=object()),
        lambda: plain.setdefault("c", object()),
        lambda: operator.setitem(plain, 1, object()),
        lambda: operator.setitem(plain, 1, object()),
        lambda: plain.pop("c"),
        lambda: operator.delitem(plain, "b"),
        lambda: plain.__ior__({"a": object()}),
        lambda: plain.__init__(a=object()),  # type: ignore[misc]
        lambda: plain.popitem(),
        lambda: plain.clear(),
        lambda: plain.update({"a": object(), "b": object()}),  # an empty one may take the keys over
    ):
        yield plain, True, change
        for read in (len, list, dict.copy, repr, lambda d: d.get("a"), lambda d: "z" in d):
            yield plain, False, functools.partial(read, plain)

    class A:
        pass

    class B:
        pass

    few, many = A(), B()
    few.a = many.a = object()  # type: ignore[attr-defined]
    for k in range(64):  # more than instances share the keys of
        setattr(many, f"a{k}", k)
    owners: list[tuple[Any, dict[Any, Any]]] = [(few, vars(few)), (many, vars(many)), (A, dict_of(vars(A)) or {})]
    for x, mapping in owners:
        raw = type.__setattr__ if x is A else object.__setattr__
        for turn in _hot(_attribute, x):
            yield mapping, True, turn
        for change in (
            lambda x=x: setattr(x, "a", object()),
            lambda x=x: setattr(x, "a", object()),
            lambda x=x: setattr(x, "b", object()),
            lambda x=x, raw=raw: raw(x, "a", object()),
            lambda x=x, raw=raw: raw(x, "c", object()),
            lambda x=x: delattr(x, "b"),
            lambda x=x: setattr(x, "b", object()),
        ):
            yield mapping, True, change
            yield mapping, False, functools.partial(getattr, x, "a")
        for turn in _hot(_attribute, x):  # a dict with room for other keys than those of the class
            yield mapping, True, turn
    space: dict[str, Any] = {}
    for turn in _hot(_global, None, space):
        yield space, True, turn


_HOT: Final = 40
"""Turns of a loop after which the interpreter has made its instructions special ones, which write in ways of their
own."""


def _attribute(x: Any) -> Iterator[None]:
    while True:
        x.a = object()
        yield


def _global(x: Any) -> Iterator[None]:
    global _a
    while True:
        _a = object()
        yield


_a: object


def _hot(
    function: Callable[[Any], Iterator[None]], x: Any, space: dict[str, Any] | None = None
) -> Iterator[Callable[[], None]]:
    """The turns of a loop in code that has not run before: it is made special for what it meets first."""
    assert isinstance(function, FunctionType)
    turns: Iterator[None] = FunctionType(function.__code__.replace(), {} if space is None else space)(x)
    return repeat(turns.__next__, _HOT)
