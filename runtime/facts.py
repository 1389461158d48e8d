"""Whether Python's objects still hold what they held: one native call over a flat table.

`Facts` lists places (dicts, lists, entries, slots, what some of Python's C functions give) with the objects that are
there now; `seal` makes of them a function that says, in a few ns a place, whether the same objects are there still. The
loop is `facts.ll`, compiled (or fetched from the cache) like any kernel; it reads Python's objects through Python's
public C functions, and words of memory only where `word_of` has found out by experiment what lies there.

The interpreter must be CPython with its lock: `available` says so, and that a first table told changes apart.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import CellType, MappingProxyType
from typing import Any, Final

from kiln.ir.program import Module
from kiln.runtime import targets
from kiln.runtime.loader import LoadError
from kiln.runtime.modules import load_module

_PYTHON: Final = (
    *("PyDict_Size", "PyDict_Next", "PyDict_GetItem", "PyList_Size", "PyList_GetItem", "PyLong_AsVoidPtr"),
    *("PyBool_FromLong", "PyErr_Clear", "Py_DecRef"),
)
_NO_ARGUMENTS: Final = 4
"""METH_NOARGS."""


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class Facts:
    """A table under construction. It knows objects by their addresses: whoever uses it keeps them alive."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._memory: list[int] = []

    def entries(self, mapping: dict[Any, Any], keys: Iterable[Any], values: Sequence[Any], some: Any) -> None:
        """A dict has these keys in this order, and these values but for those that are `some`."""
        table: list[int] = []
        for key, value in zip(keys, values, strict=True):
            table += (id(key), 0 if value is some else id(value))
        self._words += (1, id(mapping), len(values), *table)

    def word(self, address: int, x: Any) -> None:
        """The word of memory at `address` is the address of `x`."""
        self._memory += (address, id(x))

    def entry(self, mapping: dict[Any, Any], key: str, value: Any, missing: Any) -> None:
        """A dict holds `value` at `key`; nothing, if that is `missing`."""
        self._words += (3, id(mapping), id(key), 0 if value is missing else id(value))

    def items(self, items: list[Any], now: Sequence[Any]) -> None:
        """A list holds these."""
        self._words += (4, id(items), len(now), *map(id, now))

    def empty(self, items: set[Any]) -> None:
        """A set holds nothing."""
        self._words += (5, _address("PySet_Size"), id(items), 0, 0)

    def kind(self, x: Any, cls: type) -> None:
        """The class of `x`."""
        self.word(id(x) + class_word(), cls)

    def code(self, function: Callable[..., Any], name: str, value: Any) -> None:
        """`__code__`, `__defaults__` or `__kwdefaults__` of a function."""
        self._words += (5, _address(_OF_FUNCTIONS[name]), id(function), 0, 0 if value is None else id(value))

    def cell(self, cell: CellType, value: Any, missing: Any) -> None:
        """What a closure cell holds; nothing, if that is `missing`."""
        self._words += (6, _address("PyCell_Get"), id(cell), 0, 0 if value is missing else id(value))

    def space(self, x: Any, attributes: dict[str, Any]) -> None:
        """The dict behind the attributes of `x`."""
        self._words += (6, _address("PyObject_GenericGetDict"), id(x), 0, id(attributes))

    def attribute(self, x: Any, name: str, value: Any, missing: Any) -> None:
        """An attribute that is found without running code of Python's."""
        self._words += (6, _address("PyObject_GetAttr"), id(x), id(name), 0 if value is missing else id(value))

    def seal(self, kept: object = None) -> Callable[[], bool]:
        """The function that says whether all of it is so. It keeps `kept` alive."""
        table = array("q", [2, len(self._memory) // 2, *self._memory, *self._words, 0])
        check: Callable[[], bool] = _maker()(_method(), table.buffer_info()[0], (table, kept))
        return check


_OF_FUNCTIONS: Final = {
    "__code__": "PyFunction_GetCode",
    "__defaults__": "PyFunction_GetDefaults",
    "__kwdefaults__": "PyFunction_GetKwDefaults",
}


@functools.cache
def _address(name: str) -> int:
    found = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    assert found is not None
    return found


@functools.cache
def _method() -> Any:
    text = Path(__file__).with_name("facts.ll").read_text()
    module = Module("facts", text, ("kiln_facts_hold",), _PYTHON, plain=True)
    at = load_module(module, targets.LEVELS["baseline"], _address)
    return ctypes.pointer(_Method(b"facts_hold", at["kiln_facts_hold"], _NO_ARGUMENTS, None))


@functools.cache
def _maker() -> Any:
    """PyCFunction_NewEx(method, self, module): the "module" is whatever the function is to keep alive."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.POINTER(_Method), ctypes.py_object, ctypes.py_object]
    return make


def dict_of(proxy: MappingProxyType[str, Any]) -> dict[str, Any] | None:
    """The dict that a class keeps its attributes in, of which `vars(cls)` is a view, if it can be had."""
    found = gc.get_referents(proxy)
    return found[0] if len(found) == 1 and type(found[0]) is dict else None


@functools.cache
def word_of(cls: type, slot: str) -> int:
    """Where instances of `cls` (and of classes derived from it) keep the slot `slot`, in bytes from their address: the
    one word that follows what is put there. `cls` must have slots alone; LookupError when it is not to be found."""
    probe: Any = object.__new__(cls)
    found = set(range(0, cls.__basicsize__, 8))
    for x in (object(), object()):
        object.__setattr__(probe, slot, x)
        words = array("q", ctypes.string_at(id(probe), cls.__basicsize__))
        found &= {8 * k for k, word in enumerate(words) if word == id(x)}
    return _only(found)


@functools.cache
def class_word() -> int:
    """Where objects keep their class; LookupError when it is not to be found."""

    class A:
        pass

    class B(A):
        pass

    probe: Any = A()
    found = set(range(0, A.__basicsize__, 8))
    for cls in (A, B, A):
        probe.__class__ = cls
        words = array("q", ctypes.string_at(id(probe), A.__basicsize__))
        found &= {8 * k for k, word in enumerate(words) if word == id(cls)}
    return _only(found)


def _only(found: set[int]) -> int:
    if len(found) != 1:
        raise LookupError("there is no one word of memory that follows an attribute")
    return found.pop()


@functools.cache
def available() -> bool:
    """Whether there is native checking here."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    if sys.implementation.name != "cpython" or not locked or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    try:
        _method()
        class_word()
    except (LoadError, LookupError):
        return False
    return _tells()


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
        facts.code(function, "__defaults__", function.__defaults__)
        facts.cell(cell, cell.cell_contents, missing)
        facts.space(x, x.__dict__)
        facts.attribute(A, "__mro__", A.__mro__, missing)
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
