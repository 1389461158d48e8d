"""What converted code calls to read and write attributes and items while a branch is tried out."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

from kiln.base import MODES, TensorBase
from kiln.capture import Capture, entangle
from kiln.convert import PythonHooks
from kiln.staging_numbers import Number, all_known
from kiln.staging_trial import Noted, Unstaged


class Loads:
    """Python's own operations; what is read is noted, and what would last is refused."""

    def __init__(self, noted: Noted, rolling: Sequence[Any]) -> None:
        self._noted = noted
        self._rolling = rolling

    def load_attr(self, x: Any, name: str) -> Any:
        found = getattr(x, name)
        if not isinstance(x, TensorBase):
            self._noted.note(found)
        return found

    def load_item(self, x: Any, key: Any) -> Any:
        if isinstance(x, TensorBase) and isinstance(key, Number):
            for loop in reversed(self._rolling):
                if (row := loop.row(x, key.tensor)) is not None:
                    return row
        if isinstance(x, TensorBase) and (place := staged_place(x, key)) is not None:
            return part_of(x, place)
        found = x[all_known(key)]
        if not isinstance(x, TensorBase) and id(x) in self._noted:
            self._noted.note(found)
        return found

    def load_global(self, name: str, value: Any) -> Any:
        self._noted.note(value)
        return value

    def store_attr(self, x: Any, name: str, value: Any) -> None:
        raise Unstaged(f"a branch that sets the attribute {name}")

    def delete_attr(self, x: Any, name: str) -> None:
        raise Unstaged(f"a branch that deletes the attribute {name}")

    def store_item(self, x: Any, key: Any, value: Any) -> None:
        if not isinstance(x, (TensorBase, list, dict)):
            raise Unstaged(f"a branch that sets an item of a {type(x).__qualname__}")
        x[all_known(key)] = all_known(value) if isinstance(x, TensorBase) else value

    def delete_item(self, x: Any, key: Any) -> None:
        if not isinstance(x, (list, dict)):
            raise Unstaged(f"a branch that deletes an item of a {type(x).__qualname__}")
        del x[key]

    def store_global(self, space: dict[str, Any], name: str, value: Any) -> None:
        raise Unstaged(f"a branch that sets the global {name}")


def staged_place(x: Any, key: Any) -> Any:
    """`key` with a tensor in place of its only number that tensors decide; None where it is of another kind."""
    keys = key if type(key) is tuple else (key,)
    staged = [k for k in keys if isinstance(k, Number)]
    if len(staged) != 1 or staged[0].kind is not int:
        return None
    if not all(isinstance(k, (Number, slice, int, type(None), type(...))) for k in keys):
        return None
    if any(isinstance(k, bool) or (isinstance(k, slice) and all_known(k) != k) for k in keys):
        return None
    return tuple([k.tensor if isinstance(k, Number) else k for k in keys])


def part_of(x: Any, place: Any) -> Any:
    """x[place], which Python makes a view: here it is a copy, so neither may be written from here on."""
    made = x[place]
    capture = MODES.recorder
    assert isinstance(capture, Capture)
    capture.value_of(x)
    entangle(capture, capture.entries[id(made)].storage, capture.entries[id(x)].storage, "an item")
    return made


class Stores:
    """What is stored where it may last is a Python number, not one that tensors decide (`staging_numbers.py`)."""

    load_attr = staticmethod(getattr)
    load_item = staticmethod(lambda x, key: x[all_known(key)])
    load_global = staticmethod(PythonHooks.load_global)
    delete_attr = staticmethod(delattr)
    delete_item = staticmethod(operator.delitem)

    @staticmethod
    def store_attr(x: Any, name: str, value: Any) -> None:
        setattr(x, name, all_known(value))

    @staticmethod
    def store_item(x: Any, key: Any, value: Any) -> None:
        x[all_known(key)] = all_known(value)

    @staticmethod
    def store_global(space: dict[str, Any], name: str, value: Any) -> None:
        space[name] = all_known(value)


NAMES: Final = tuple(name for name in vars(Loads) if not name.startswith("_"))
