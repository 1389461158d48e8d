"""Numbers that code only counts up or down: `self.steps += 1`, and never reads otherwise.

What such a number is makes no difference to a call, so guards need not look at it, and a compiled call adds what the
captured one has added. That it is so is read off the byte code of all code that the call may run.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterable, Set
from types import CodeType
from typing import Final

_LOADS: Final = frozenset({"LOAD_ATTR", "LOAD_DEREF", "LOAD_GLOBAL"})
_STORES: Final = frozenset({"STORE_ATTR", "STORE_DEREF", "STORE_GLOBAL"})
_NUMBERS: Final = frozenset({"LOAD_CONST", "LOAD_SMALL_INT"})
_LOCAL: Final = frozenset({"LOAD_CLOSURE", "LOAD_FAST", "STORE_FAST", "DELETE_FAST", "LOAD_FAST_CHECK", "MAKE_CELL"})
_SKIPPED: Final = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL", "SWAP", "PRECALL"})
_HOOKS: Final = frozenset({"__setattr__", "__getattribute__", "__getattr__", "__get__", "__set__", "__delattr__"})
"""Functions that see attributes on their way."""
_OPEN: Final = frozenset({"__closure__", "cell_contents"})
"""Attributes through which variables of other functions can be read."""


def only_counted(name: str, code: Iterable[CodeType], attributes: Set[str]) -> bool:
    """Whether all of this code does nothing with the name but to add whole numbers to what it stands for.
    `attributes`: all names of attributes in it."""
    if attributes & _OPEN:
        return False
    parts = list(code)
    if any(part.co_name in _HOOKS for part in parts):
        return False
    times = [_counts(name, part) for part in parts]
    return None not in times and any(times)


@functools.lru_cache(maxsize=4096)
def _counts(name: str, code: CodeType) -> int | None:
    """How often code counts; None if it does something else with the name."""
    if any(c == name or (isinstance(c, (tuple, frozenset)) and name in c) for c in code.co_consts):
        return None  # getattr, keyword arguments, keys: whatever a string may be good for
    steps = [i for i in dis.get_instructions(code) if i.opname not in _SKIPPED]
    fine: set[int] = set()
    for n in range(len(steps) - 3):
        load, number, add, store = steps[n : n + 4]
        adds = add.opname == "BINARY_OP" and add.argrepr in ("+=", "-=")
        whole = number.opname in _NUMBERS and type(number.argval) is int
        if load.argval == store.argval == name and load.opname in _LOADS and store.opname in _STORES and adds and whole:
            fine |= {n, n + 3}
    for n, step in enumerate(steps):
        if n not in fine and step.argval == name and step.opname not in _LOCAL and _names(step.opname):
            return None
    return len(fine)


def _names(opname: str) -> bool:
    return not opname.startswith(("LOAD_CONST", "LOAD_SMALL", "COMPARE", "BINARY", "JUMP", "POP_JUMP", "CALL"))
