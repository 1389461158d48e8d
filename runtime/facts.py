"""Whether Python's objects still hold what they held: one native call over a flat table.

`Facts` lists places (dicts, lists, entries, slots, what some of Python's C functions give) with the objects that are
there now; `seal` makes of them a function that says, in about a ns a place, whether the same objects are there still.
The loop is `facts.ll`, compiled (or fetched from the cache) like any kernel. It reads Python's objects through Python's
public C functions, and words of memory only where `places.py` has found out by experiment what lies there. What a dict
holds is looked at again only when its version tag moved, where there are such tags.

The interpreter must be CPython with its lock: `available` says so, and that a first table told changes apart.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from types import CellType
from typing import Any, Final

from kiln.runtime import calls, places
from kiln.runtime.loader import LoadError

_PYTHON: Final = (
    *("PyDict_Size", "PyDict_Next", "PyDict_GetItem", "PyList_Size", "PyList_GetItem", "PyLong_AsVoidPtr"),
    *("PyBool_FromLong", "PyErr_Clear", "Py_DecRef"),
)
_HEAD: Final = 3
"""Words before the pairs of a table."""
_AT_ONCE: Final = 4
"""The number of pairs is a multiple of this."""
_UNSEEN: Final = -1
"""A version tag that no dict has."""


class Facts:
    """A table under construction. It knows objects by their addresses: whoever uses it keeps them alive."""

    def __init__(self) -> None:
        self._pairs: list[int] = []  # addresses and words
        self._dicts: dict[int, list[int]] = {}  # rows, by the dict that they tell of
        self._rows: list[int] = []  # other rows

    def entries(self, mapping: dict[Any, Any], keys: Iterable[Any], values: Sequence[Any], some: Any) -> None:
        """A dict has these keys in this order, and these values but for those that are `some`."""
        table: list[int] = []
        for key, value in zip(keys, values, strict=True):
            table += (id(key), 0 if value is some else id(value))
        self._dicts.setdefault(id(mapping), []).extend((1, id(mapping), len(values), *table))

    def entry(self, mapping: dict[Any, Any], key: str, value: Any, missing: Any) -> None:
        """A dict holds `value` at `key`; nothing, if that is `missing`."""
        row = (2, id(mapping), id(key), 0 if value is missing else id(value))
        self._dicts.setdefault(id(mapping), []).extend(row)

    def word(self, address: int, x: Any) -> None:
        """The word of memory at `address` is the address of `x`."""
        self._pairs += (address, id(x))

    def items(self, items: list[Any], now: Sequence[Any]) -> None:
        """A list holds these."""
        self._rows += (3, id(items), len(now), *map(id, now))

    def empty(self, items: set[Any]) -> None:
        """A set holds nothing."""
        self._rows += (4, calls.address("PySet_Size"), id(items), 0, 0)

    def kind(self, x: Any, cls: type) -> None:
        """The class of `x`."""
        self.word(id(x) + places.class_word(), cls)

    def code(self, function: Callable[..., Any], name: str, value: Any) -> None:
        """`__code__`, `__defaults__` or `__kwdefaults__` of a function."""
        self._pairs += (id(function) + places.function_word(name), 0 if value is None else id(value))

    def cell(self, cell: CellType, value: Any, missing: Any) -> None:
        """What a closure cell holds; nothing, if that is `missing`."""
        self._pairs += (id(cell) + places.cell_word(), 0 if value is missing else id(value))

    def bases(self, cls: type, mro: tuple[type, ...]) -> None:
        """The bases of a class and their order."""
        self.word(id(cls) + places.mro_word(), mro)

    def space(self, x: Any, attributes: dict[str, Any]) -> None:
        """The dict behind the attributes of `x`."""
        offset = places.dict_word(type(x))
        if offset is not None and places.word_at(id(x) + offset) == id(attributes):
            self.word(id(x) + offset, attributes)
        else:
            self._rows += (5, calls.address("PyObject_GenericGetDict"), id(x), 0, id(attributes))

    def attribute(self, x: Any, name: str, value: Any, missing: Any) -> None:
        """An attribute that is found without running code of Python's."""
        self._rows += (5, calls.address("PyObject_GetAttr"), id(x), id(name), 0 if value is missing else id(value))

    def seal(self, kept: object = None) -> Callable[[], bool]:
        """The function that says whether all of it is so. It keeps `kept` alive."""
        tag, dicts = places.tag_word(), list(self._dicts.items())
        rest = list(self._rows)
        if tag is None:
            for _, rows in dicts:
                rest += rows
            dicts = []
        pairs = len(self._pairs) // 2 + len(dicts)
        more = -pairs % _AT_ONCE  # of the table itself, to fill up
        n = pairs + more
        table = [n, n - len(dicts), 0, *(0, n) * more, *self._pairs]
        for mapping, _ in dicts:
            table += (mapping + (tag or 0), _UNSEEN)
        wheres = len(table)
        table += [0] * len(dicts)
        table[2] = len(table)
        table += (*rest, 0)
        for k, (_, rows) in enumerate(dicts):
            table[wheres + k] = len(table)
            table += (*rows, 0)
        words = array("q", table)
        address = words.buffer_info()[0]
        for k in range(more):
            words[_HEAD + 2 * k] = address
        return calls.bound(_method(), words, kept)


@functools.cache
def _method() -> Any:
    return calls.methods("facts", {"kiln_facts_hold": calls.NO_ARGUMENTS}, _PYTHON)["kiln_facts_hold"]


@functools.cache
def available() -> bool:
    """Whether there is native checking here."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    if sys.implementation.name != "cpython" or not locked or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    try:
        _method()
        return _tells()
    except (LoadError, LookupError):
        return False


def _tells() -> bool:
    """Whether tables notice changes of each kind of place."""
    some, missing = object(), object()

    def function() -> object:
        return some

    class A:
        pass

    x, key, items, mapping = A(), "a", [some], {"a": some}
    cell = (function.__closure__ or ())[0]

    def table() -> Callable[[], bool]:
        facts = Facts()
        facts.entries(mapping, tuple(mapping), tuple(mapping.values()), missing)
        facts.entry(mapping, key, mapping[key], missing)
        facts.items(items, tuple(items))
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            facts.code(function, name, getattr(function, name))
        facts.cell(cell, cell.cell_contents, missing)
        facts.space(x, x.__dict__)
        facts.bases(A, A.__mro__)
        facts.kind(x, type(x))
        return facts.seal()

    def define() -> None:
        function.__defaults__ = (1,)

    changes: tuple[Callable[[], object], ...] = (
        lambda: mapping.update(b=1),
        lambda: mapping.update(b=2),
        lambda: items.append(1),
        lambda: items.__setitem__(0, 1),
        define,
        lambda: setattr(x, "__dict__", {}),
        lambda: setattr(x, "__class__", type("C", (A,), {})),
        lambda: setattr(cell, "cell_contents", 1),
    )
    for change in changes:
        check = table()
        if not check():
            return False
        change()
        if check():
            return False
    return True
