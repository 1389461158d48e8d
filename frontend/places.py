"""Places where Python keeps state, and how they are read and written: contents of dicts, lists, deques and sets,
attributes of instances and classes, slots, closure cells.

Everything is read and written past what classes make of it (`__setattr__`, properties, methods of subclasses): what is
compared and put back is what the interpreter itself keeps.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from types import CellType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Kind:
    """Places of one kind: `held` gives a dict, list or set of what is there, `put` and `drop` change it. A sequence is
    put items from a position on."""

    held: Callable[[Any], Any]
    get: Callable[[Any, Any], Any]
    """One entry or item; MISSING where there is none."""
    put: Callable[[Any, Any, Any], object]
    drop: Callable[[Any, Any], object]


def _in_order(x: Any) -> dict[Any, Any]:
    return dict(OrderedDict.items(x))


def _in_cell(cell: CellType) -> dict[str, Any]:
    try:
        return {"cell_contents": cell.cell_contents}
    except ValueError:  # not bound
        return {}


def _fill_list(x: list[Any], start: int, items: Iterable[Any]) -> None:
    list.__setitem__(x, slice(start, None), items)


def _fill_deque(x: deque[Any], start: int, items: Iterable[Any]) -> None:
    while deque.__len__(x) > start:
        deque.pop(x)
    deque.extend(x, items)


def _never(x: Any, key: Any) -> None:
    raise AssertionError("nothing is dropped from such places")


def _entry(x: dict[Any, Any], key: Any) -> Any:
    return dict.get(x, key, MISSING)


def _item(x: Any, n: int) -> Any:
    try:
        return (list if isinstance(x, list) else deque).__getitem__(x, n)
    except IndexError:
        return MISSING


def _attribute(x: Any, name: str) -> Any:
    try:
        return getattr(x, name, MISSING)
    except ValueError:  # a cell that is not bound
        return MISSING


MISSING: Final = object()
"""Stands for an attribute or a global that is not there."""

DICT: Final = Kind(dict.copy, _entry, dict.__setitem__, dict.__delitem__)
ORDERED: Final = Kind(_in_order, _entry, OrderedDict.__setitem__, OrderedDict.__delitem__)
RECORD: Final = Kind(
    lambda x: dict(vars(x)),
    lambda x, key: vars(x).get(key, MISSING),
    lambda x, key, value: vars(x).__setitem__(key, value),
    lambda x, key: vars(x).pop(key),
)
CLASS: Final = Kind(
    lambda x: dict(vars(x)), lambda x, key: vars(x).get(key, MISSING), type.__setattr__, type.__delattr__
)
CELL: Final = Kind(_in_cell, _attribute, setattr, delattr)
LIST: Final = Kind(list.copy, _item, _fill_list, _never)
DEQUE: Final = Kind(lambda x: list(deque.__iter__(x)), _item, _fill_deque, _never)
SET: Final = Kind(set.copy, lambda x, key: key, lambda x, key, value: set.add(x, key), _never)
SEQUENCES: Final = (LIST, DEQUE)


def slots(names: set[str]) -> Kind:
    """The places of slots with these names (a set that may grow)."""

    def held(x: Any) -> dict[str, Any]:
        return {name: value for name in sorted(names) if (value := getattr(x, name, MISSING)) is not MISSING}

    return Kind(held, _attribute, object.__setattr__, object.__delattr__)


def kind_of(x: Any) -> Kind | None:
    """The kind of a container; None for one that can't change, or can't be followed."""
    if isinstance(x, dict):
        return ORDERED if isinstance(x, OrderedDict) else DICT
    for cls, kind in _KINDS:
        if isinstance(x, cls):
            return kind
    return None


_KINDS: Final = ((list, LIST), (deque, DEQUE), (set, SET), (CellType, CELL))


class Spot:
    """A container that guards look at. `names`: the keys that matter; None for all. `named`: whether code reaches what
    it holds by names alone, of variables or attributes."""

    __slots__ = ("before", "container", "kind", "named", "names", "path")

    def __init__(self, path: str, kind: Kind, container: Any) -> None:
        self.path = path
        self.kind = kind
        self.container = container
        self.names: set[str] | None = set()
        self.before: Any = None
        self.named = kind in (CELL, DICT)

    def held(self) -> Any:
        """What is there now, as far as it matters."""
        now = self.kind.held(self.container)
        names = self.names
        return now if names is None or type(now) is not dict else {k: v for k, v in now.items() if k in names}


class Slot:
    """A place whose tensor is another one at each call: calls read it there."""

    __slots__ = ("container", "get", "key", "path")

    def __init__(self, path: str, kind: Kind, container: Any, key: Any) -> None:
        """`path` names it; the variable, of a closure cell."""
        self.path = path
        self.container = container
        self.key = key
        self.get = kind.get

    def read(self) -> Any:
        """What is there now."""
        return self.get(self.container, self.key)


class Moving:
    """Places where calls put one tensor in place of another, or a number in place of the one before, by what was seen
    so far."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, set[Any]]] = {}

    def add(self, container: Any, key: Any) -> None:
        """Another such place."""
        if len(self._known) >= _MAX_MOVING:
            self._known.clear()
        self._known.setdefault(id(container), (container, set()))[1].add(key)

    def forget(self, container: Any, key: Any) -> None:
        """It is no such place."""
        self._known[id(container)][1].discard(key)

    def keys(self, container: Any) -> Set[Any]:
        """Which of a container's."""
        return self._known[id(container)][1] if id(container) in self._known else _NONE


_MAX_MOVING: Final = 256
_NONE: Final[frozenset[Any]] = frozenset()
