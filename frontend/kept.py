"""The Python state that a function can reach, as it was: what is tried out leaves no trace.

Contents of containers, attributes, variables of functions around it, and what tensors are. What is in the memory of
tensors is not kept here, but for states of random numbers.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterable
from types import CellType, FunctionType
from typing import Any, Final

import numpy as np

from kiln import dispatch
from kiln.base import TensorBase
from kiln.location import is_kiln
from kiln.random import Generator

MUTABLE: Final = (list, dict, set, collections.deque, bytearray)
_MISSING: Final = object()
_OF_TENSORS: Final = ("_ptr", "_layout", "_flags", "_node", "_index", "_buffer", "_grad", "_view", "_hooks")


def held(x: Any) -> tuple[Any, ...]:
    """What a container holds: of a dict the keys, then the values."""
    return (*x.keys(), *x.values()) if isinstance(x, dict) else tuple(x)


def put_back(x: Any, before: tuple[Any, ...]) -> bool:
    """Make a container hold that again; whether it did not."""
    now = held(x)
    if len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True)):
        return False
    x.clear()
    if isinstance(x, dict):
        half = len(before) // 2
        x.update(zip(before[:half], before[half:], strict=True))
    elif isinstance(x, set):
        x.update(before)
    else:
        x.extend(before)
    return True


class Kept:
    """See the module: `objects`, what is in them if they are containers, and `tensors` with their gradients."""

    def __init__(self, objects: Iterable[Any], tensors: Iterable[TensorBase]) -> None:
        self._known: set[int] = set()
        self._back: list[Callable[[], Any]] = []
        self._objects: list[Any] = []  # alive, so that their ids are theirs
        for x in objects:
            self._note(x)
        for t in tensors:
            self._tensor(t)

    def restore(self) -> None:
        """Everything is as it was."""
        for put in self._back:
            put()

    def _new(self, x: Any) -> bool:
        if id(x) in self._known:
            return False
        self._known.add(id(x))
        self._objects.append(x)
        return True

    def _note(self, first: Any) -> None:
        todo = [first]
        while todo:
            x = todo.pop()
            if isinstance(x, (str, bytes, int, float, complex, type(None))) or not self._new(x):
                continue
            if isinstance(x, TensorBase):
                self._known.discard(id(x))
                self._tensor(x)
            elif isinstance(x, (*MUTABLE, tuple, frozenset)):
                todo += self._container(x)
            elif isinstance(x, CellType):
                self._back.append(_cell(x))
            elif isinstance(x, Generator):
                self._memory(x.state)
            elif isinstance(x, FunctionType):
                if not is_kiln(x.__module__ or ""):
                    self._container(x.__globals__)
            elif isinstance(x, type):
                self._back.append(_class(x))
            else:
                self._attributes(x)

    def _container(self, x: Any) -> tuple[Any, ...]:
        before = held(x)
        if isinstance(x, MUTABLE):
            self._back.append(lambda: put_back(x, before))
        if type(x) not in (*MUTABLE, tuple, frozenset):
            self._attributes(x)
        return before

    def _attributes(self, x: Any) -> None:
        attributes = getattr(x, "__dict__", None)
        if isinstance(attributes, dict):
            self._container(attributes)
        names = [n for c in type(x).__mro__ for n in _slots(c) if hasattr(c, n)]
        if names:
            self._back.append(_slotted(x, names))

    def _tensor(self, t: TensorBase) -> None:
        if not self._new(t):
            return
        parts = [(name, getattr(t, name, _MISSING)) for name in _OF_TENSORS]
        buffer, version = t._buffer, t._buffer.version

        def back() -> None:
            for name, value in parts:
                if value is not _MISSING:
                    setattr(t, name, value)
            buffer.version = version

        self._back.append(back)
        if t._grad is not None:
            self._tensor(t._grad)
        if t._view is not None:
            self._tensor(t._view.base)

    def _memory(self, t: TensorBase) -> None:
        self._tensor(t)
        data = np.array(t._array())

        def back() -> None:
            dispatch.restore(t, data)

        self._back.append(back)


def _slots(kind: type) -> tuple[str, ...]:
    names = vars(kind).get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names) if not is_kiln(kind.__module__) else ()


def _cell(cell: CellType) -> Callable[[], None]:
    before = _contents(cell)

    def back() -> None:
        if _contents(cell) is before:
            return
        if before is _MISSING:
            del cell.cell_contents
        else:
            cell.cell_contents = before

    return back


def _contents(cell: CellType) -> Any:
    with contextlib.suppress(ValueError):  # not bound
        return cell.cell_contents
    return _MISSING


def _class(kind: type) -> Callable[[], None]:
    before = dict(vars(kind))

    def back() -> None:
        now = dict(vars(kind))
        for name in now.keys() - before.keys():
            type.__delattr__(kind, name)
        for name, value in before.items():
            if now.get(name, _MISSING) is not value:
                type.__setattr__(kind, name, value)

    return back


def _slotted(x: Any, names: list[str]) -> Callable[[], None]:
    before = [(name, getattr(x, name, _MISSING)) for name in names]

    def back() -> None:
        for name, value in before:
            if getattr(x, name, _MISSING) is not value:
                if value is _MISSING:
                    object.__delattr__(x, name)
                else:
                    object.__setattr__(x, name, value)

    return back
