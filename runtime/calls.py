"""Native code as functions of Python's: a call costs some 50 ns, a third of what ctypes takes to pack and convert.

`calls.ll` and `facts.ll` define methods as CPython's C code would; here they become functions of Python's, each bound
to a table of 64-bit words.
"""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from kiln.ir.program import Module
from kiln.runtime import targets
from kiln.runtime.modules import load_module

NO_ARGUMENTS: Final = 4
"""METH_NOARGS."""
IN_AN_ARRAY: Final = 128
"""METH_FASTCALL."""
_MAX_SLOTS: Final = 4096
"""More are not put on the stack."""
_PYTHON: Final = (
    *("PyLong_AsVoidPtr", "PyLong_AsLongLong", "PyLong_FromLong", "PyErr_Occurred", "PyErr_BadArgument"),
    *("PyEval_SaveThread", "PyEval_RestoreThread"),
)


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@functools.cache
def address(name: str) -> int:
    """Where a C function of Python's is."""
    found = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    assert found is not None
    return found


def methods(name: str, exports: dict[str, int], imports: tuple[str, ...]) -> dict[str, Any]:
    """The methods that `<name>.ll`, beside this file, defines: `exports` says with which flags, `imports` which C
    functions of Python's it calls. LoadError when they can't be had."""
    text = Path(__file__).with_name(f"{name}.ll").read_text()
    # The baseline target: there are no vectors, and one object serves every machine. Optimising it wins nothing.
    at = load_module(Module(name, text, tuple(exports), imports, plain=True), targets.LEVELS["baseline"], address)
    return {each: ctypes.pointer(_Method(each.encode(), at[each], flags, None)) for each, flags in exports.items()}


def bound(method: Any, words: array[int], kept: object = None) -> Callable[..., Any]:
    """A method as a function: its self is the address of `words`, which it keeps alive, and `kept` with them."""
    function: Callable[..., Any] = _maker()(method, words.buffer_info()[0], (words, kept))
    return function


@functools.cache
def _maker() -> Any:
    """PyCFunction_NewEx(method, self, module): the "module" is whatever the function is to keep alive."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.POINTER(_Method), ctypes.py_object, ctypes.py_object]
    return make


@functools.cache
def _callers() -> dict[str, Any]:
    return methods("calls", {"kiln_call": IN_AN_ARRAY, "kiln_call_unlocked": IN_AN_ARRAY}, _PYTHON)


def caller(entry: int, slots: int, keeps_lock: bool) -> Callable[..., int] | None:
    """`int32 entry(context, slots)` as a function of the context and the slots, ints all; None if they are too many.
    `keeps_lock`: it does not hand the interpreter lock over."""
    if slots > _MAX_SLOTS:
        return None
    return bound(_callers()["kiln_call" if keeps_lock else "kiln_call_unlocked"], array("q", [entry, slots]))
