"""Calls of a compiled function, and what it keeps for those of one signature, and state of what it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kiln.composite import plain_classes
from kiln.pytree import flatten
from kiln.reach import Reached
from kiln.tree import Tree


class Call(NamedTuple):
    """A call, and what `signature` says of it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keep: tuple[int, ...]
    key: tuple[Any, ...]
    tensors: list[Any]
    objects: list[Any]


class Entry:
    """The ways that calls can go while the guards hold, which say also which arguments are tensors that the function
    reaches by itself."""

    __slots__ = ("known", "objects", "reached", "tree")

    def __init__(self, reached: Reached, tensors: Sequence[Any], objects: Sequence[Any]) -> None:
        self.reached = reached
        self.tree = Tree()
        self.objects = objects  # kept alive: the signature knows them by id
        self.known = [id(t) if id(t) in reached.guards.tensors else 0 for t in tensors]

    def fits(self, tensors: Sequence[Any]) -> bool:
        """Whether calls with these tensor arguments go one of these ways."""
        reached = self.reached.guards.tensors
        for t, known in zip(tensors, self.known, strict=True):
            if known != (id(t) if id(t) in reached else 0):
                return False
        return self.reached.guards.hold()


def watched(call: Call) -> tuple[Any, ...]:
    """What guards look at among the arguments: objects that the signature knows only by which they are, and classes of
    containers and of tensors."""
    containers: list[Any] = []
    flatten((call.args, call.kwargs), containers, call.keep)
    kinds = [type(x) for x in containers if type(x) not in (list, dict)]
    kinds += [type(x) for x in call.tensors if type(x) not in plain_classes()]
    return (*[x for x in call.objects if not isinstance(x, np.ndarray)], *kinds)
