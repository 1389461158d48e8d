"""Places where Python keeps state, and how they are read and written: contents of dicts, lists, deques and sets,
attributes of instances and classes, slots, closure cells.

Everything is read and written past what classes make of it (`__setattr__`, properties, methods of subclasses): what is
compared and put back is what the interpreter itself keeps.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import CellType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Kind:
    """Places of one kind: `held` gives a dict, list or set of what is there, and `put` and `drop` change it. A sequence
    is put items from a position on."""

    held: Callable[[Any], Any]
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


DICT: Final = Kind(dict.copy, dict.__setitem__, dict.__delitem__)
ORDERED: Final = Kind(_in_order, OrderedDict.__setitem__, OrderedDict.__delitem__)
RECORD: Final = Kind(
    lambda x: dict(vars(x)), lambda x, key, value: vars(x).__setitem__(key, value), lambda x, key: vars(x).pop(key)
)
CLASS: Final = Kind(lambda x: dict(vars(x)), type.__setattr__, type.__delattr__)
CELL: Final = Kind(_in_cell, setattr, delattr)
LIST: Final = Kind(list.copy, _fill_list, _never)
DEQUE: Final = Kind(lambda x: list(deque.__iter__(x)), _fill_deque, _never)
SET: Final = Kind(set.copy, lambda x, key, value: set.add(x, key), _never)
SEQUENCES: Final = (LIST, DEQUE)

_MISSING: Final = object()


def slots(names: set[str]) -> Kind:
    """The places of slots with these names (a set that may grow)."""

    def held(x: Any) -> dict[str, Any]:
        return {name: value for name in sorted(names) if (value := getattr(x, name, _MISSING)) is not _MISSING}

    return Kind(held, object.__setattr__, object.__delattr__)


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
    """A container that guards look at. `names`: the keys that matter; None for all."""

    __slots__ = ("before", "container", "kind", "names", "path")

    def __init__(self, path: str, kind: Kind, container: Any) -> None:
        self.path = path
        self.kind = kind
        self.container = container
        self.names: set[str] | None = set()
        self.before: Any = None

    def held(self) -> Any:
        """What is there now, as far as it matters."""
        now = self.kind.held(self.container)
        names = self.names
        return now if names is None or type(now) is not dict else {k: v for k, v in now.items() if k in names}
