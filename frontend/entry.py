"""Calls of a compiled function, and what it keeps for those of one signature, and state of what it reaches."""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kiln.composite import plain_classes
from kiln.dynamic import Family
from kiln.pytree import flatten
from kiln.reach import Reached
from kiln.signature import beside
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
    recorded: bool = False
    """Programs run as CUDA graphs where they can."""
    donated: Container[int] = ()
    """Ids of tensor arguments that the caller has given up."""


class Entry:
    """The ways that calls can go while the guards hold, which say also which arguments are tensors that the function
    reaches by itself."""

    __slots__ = ("_counted", "_hold", "_key", "_slots", "_strangers", "known", "objects", "reached", "tree")

    def __init__(self, reached: Reached, tensors: Sequence[Any], objects: Sequence[Any], family: Family | None) -> None:
        self.reached = reached
        self.tree = Tree(family)
        self.objects = objects  # kept alive: the signature knows them by id
        self._slots = tuple(reached.guards.moved)
        self._counted = tuple(reached.guards.counted)
        told = self._told(tensors)
        assert told is not None
        self._key, tensors = told
        self.known = [id(t) if id(t) in reached.guards.tensors else 0 for t in tensors]
        self._strangers = not any(self.known)
        self._hold = reached.guards.hold

    def _told(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], Sequence[Any]] | None:
        return beside(tensors, [slot.read() for slot in self._slots]) if self._slots else ((), tensors)

    def given(self, tensors: Sequence[Any]) -> Sequence[Any] | None:
        """The tensor arguments of a call, and those that it reads where others are put at each call; None if these are
        not as they were."""
        if not all(type(slot.read()) is int for slot in self._counted):
            return None
        if not self._slots:
            return tensors
        told = self._told(tensors)
        return told[1] if told is not None and told[0] == self._key else None

    def fits(self, tensors: Sequence[Any]) -> Sequence[Any] | None:
        """What a call with these tensor arguments is given, if it goes one of these ways."""
        given = self.given(tensors) if self._slots else tensors
        if given is None:
            return None
        reached = self.reached.guards.tensors
        if self._strangers:
            for t in given:
                if id(t) in reached:
                    return None
            return given if self._hold() else None
        same = self.known == [id(t) if id(t) in reached else 0 for t in given]
        return given if same and self._hold() else None


def find(entries: Sequence[Entry], tensors: Sequence[Any]) -> tuple[Entry | None, Found | Eager | None]:
    """Where a call ends, if one of these knows; else, perhaps, an entry whose ways begin like its."""
    begun = None
    for entry in entries:
        given = entry.fits(tensors)
        if given is not None:
            found = entry.tree.find(given)
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
