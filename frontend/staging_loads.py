"""What converted code calls to read and write attributes and items while a branch is tried out."""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from typing import Any, Final

from kiln.base import TensorBase
from kiln.convert import PythonHooks
from kiln.staging_numbers import Number, known, with_python_numbers
from kiln.staging_places import opened, read, write
from kiln.staging_trial import Noted, Unstaged


class Loads:
    """Python's own operations; what is read is noted, and what would last is refused."""

    def __init__(self, noted: Noted, avoid: Container[Hashable], rolling: Sequence[Any]) -> None:
        self._noted = noted
        self._avoid = avoid
        self._rolling = rolling

    def load_attr(self, x: Any, name: str) -> Any:
        found = getattr(known(x), name)
        if not isinstance(x, TensorBase):
            self._noted.note(found)
        return found

    def load_item(self, x: Any, key: Any) -> Any:
        if isinstance(x, TensorBase):
            for loop in reversed(self._rolling) if isinstance(key, Number) else ():
                if (row := loop.row(x, key.tensor)) is not None:
                    return row
            return read(x, key, self._avoid)
        found = x[with_python_numbers(key)]
        if not isinstance(x, TensorBase) and id(x) in self._noted:
            self._noted.note(found)
        return found

    def open_item(self, x: Any, key: Any) -> Any:
        return opened(x, key) if isinstance(x, TensorBase) else self.load_item(x, key)

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
        if isinstance(x, TensorBase):
            write(x, key, value)
        else:
            x[with_python_numbers(key)] = value

    def delete_item(self, x: Any, key: Any) -> None:
        if not isinstance(x, (list, dict)):
            raise Unstaged(f"a branch that deletes an item of a {type(x).__qualname__}")
        del x[key]

    def store_global(self, space: dict[str, Any], name: str, value: Any) -> None:
        raise Unstaged(f"a branch that sets the global {name}")


class Stores:
    """What is stored where it may last is a Python number, not one that tensors decide (`staging_numbers.py`)."""

    load_global = staticmethod(PythonHooks.load_global)
    delete_attr = staticmethod(delattr)

    def __init__(self, avoid: Container[Hashable]) -> None:
        self._avoid = avoid

    @staticmethod
    def load_attr(x: Any, name: str) -> Any:
        return getattr(known(x), name)

    def load_item(self, x: Any, key: Any) -> Any:
        return read(x, key, self._avoid) if isinstance(x, TensorBase) else x[with_python_numbers(key)]

    def open_item(self, x: Any, key: Any) -> Any:
        return opened(x, key) if isinstance(x, TensorBase) else x[with_python_numbers(key)]

    def store_item(self, x: Any, key: Any, value: Any) -> None:
        if isinstance(x, TensorBase):
            write(x, key, value)
        else:  # those from outside are given Python's own in the end
            x[with_python_numbers(key)] = value if type(x) in (list, dict) else with_python_numbers(value)

    @staticmethod
    def delete_item(x: Any, key: Any) -> None:
        del x[with_python_numbers(key)]

    @staticmethod
    def store_attr(x: Any, name: str, value: Any) -> None:
        setattr(x, name, with_python_numbers(value))

    @staticmethod
    def store_global(space: dict[str, Any], name: str, value: Any) -> None:
        space[name] = with_python_numbers(value)


NAMES: Final = tuple(name for name in vars(Loads) if not name.startswith("_"))
