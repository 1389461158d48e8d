"""Calls of a compiled function, and what it keeps for those of one signature, and state of what it reaches."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kiln.composite import plain_classes
from kiln.dynamic import Family
from kiln.pytree import flatten
from kiln.reach import Reached
from kiln.tree import Eager, Found, Tree


class Call(NamedTuple):
    """A call, and what `signature` says of it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keep: tuple[int, ...]
    key: tuple[Any, ...]
    tensors: list[Any]
    objects: list[Any]


class Manner(NamedTuple):
    """How a call is recorded."""

    strict: bool
    """CaptureError is raised where the call can't be compiled; else it goes on eagerly, and the recording's `end` says
    so, or is None if the call changed Python state."""
    door: str
    """Where the call came in (`kiln.jit`): a trace stages nothing, and only `compile` answers questions about data."""
    avoid: dict[Hashable, str]
    """Places in the code that are not staged, and why."""
    frozen: frozenset[int]
    """Ids of tensors from outside that become constants."""
    family: Family | None
    """The captures that may share code with this one."""
    check_nan: bool
    """The call raises NanError if its results hold a NaN that it made."""


class Entry:
    """The ways that calls can go while the guards hold, which say also which arguments are tensors that the function
    reaches by itself."""

    __slots__ = ("_hold", "_strangers", "known", "objects", "reached", "tree")

    def __init__(self, reached: Reached, tensors: Sequence[Any], objects: Sequence[Any], family: Family | None) -> None:
        self.reached = reached
        self.tree = Tree(family)
        self.objects = objects  # kept alive: the signature knows them by id
        self.known = [id(t) if id(t) in reached.guards.tensors else 0 for t in tensors]
        self._strangers = not any(self.known)
        self._hold = reached.guards.hold

    def fits(self, tensors: Sequence[Any]) -> bool:
        """Whether calls with these tensor arguments go one of these ways."""
        reached = self.reached.guards.tensors
        if self._strangers:
            for t in tensors:
                if id(t) in reached:
                    return False
            return self._hold()
        return self.known == [id(t) if id(t) in reached else 0 for t in tensors] and self._hold()


def find(entries: Sequence[Entry], tensors: Sequence[Any]) -> tuple[Entry | None, Found | Eager | None]:
    """Where a call ends, if one of these knows; else, perhaps, an entry whose ways begin like its."""
    begun = None
    for entry in entries:
        if entry.fits(tensors):
            found = entry.tree.find(tensors)
            if found is not None:
                return entry, found
            begun = entry if entry.tree.decisions else begun
    return begun, None


def watched(call: Call) -> tuple[Any, ...]:
    """What guards look at among the arguments: objects that the signature knows only by which they are, and classes of
    containers and of tensors."""
    containers: list[Any] = []
    flatten((call.args, call.kwargs), containers, call.keep)
    kinds = [type(x) for x in containers if type(x) not in (list, dict)]
    kinds += [type(x) for x in call.tensors if type(x) not in plain_classes()]
    return (*[x for x in call.objects if not isinstance(x, np.ndarray)], *kinds)
