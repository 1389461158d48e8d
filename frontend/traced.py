"""What a capture knows of tensors: their memory as the graph sees it, their values, their gradients, and the questions
that were asked about their data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import le
from typing import Any

import numpy as np

from kiln.base import REQUIRES_GRAD, TensorBase
from kiln.errors import CaptureError
from kiln.ir.graph import Attrs, SourceLoc, Value
from kiln.ir.ops.base import OpDef

Chain = tuple[tuple[OpDef, Attrs], ...]


class Entangled(CaptureError):
    """Something was done to a tensor that a staged branch or loop may, or may not, have made another name of a tensor
    from before. `sites`: which ones, to be left unstaged from now on."""

    def __init__(self, message: str, sites: frozenset[Hashable]) -> None:
        super().__init__(message)
        self.sites = sites


def edge(t: TensorBase) -> bool:
    """Whether gradients flow to `t` or to the tensor that it is a view of."""
    whole = t if t._view is None else t._view.base
    return bool((t._flags | whole._flags) & REQUIRES_GRAD)


class Storage:
    """Memory as the graph sees it: the value of its root tensor, and how often it was written."""

    __slots__ = ("input", "root", "stamp", "value", "version")

    def __init__(self, root: TensorBase, value: Value, input: int | None) -> None:
        self.root = root
        self.value = value
        self.input = input
        self.stamp = 0
        self.version = root._buffer.version


class Entry:
    """A traced tensor: its storage, the views between, and its value as of a stamp of the storage."""

    __slots__ = ("chain", "stamp", "storage", "tensor", "value")

    def __init__(self, tensor: TensorBase, storage: Storage, chain: Chain, value: Value) -> None:
        self.tensor = tensor
        self.storage = storage
        self.chain = chain
        self.value = value
        self.stamp = storage.stamp


class GradSlot:
    """What happened to the `.grad` of one tensor: was the gradient from before seen, and what is left."""

    __slots__ = ("before", "final", "read", "tensor", "written")

    def __init__(self, tensor: TensorBase) -> None:
        self.tensor = tensor
        self.before: TensorBase | None = None
        self.final: TensorBase | None = None
        self.read = False  # before it was written: then a warm call must find it as it was
        self.written = False


def check_separate(inputs: Sequence[TensorBase], written: Sequence[int]) -> None:
    """CaptureError if an input that is written shares memory with another one: the graph takes them for apart."""
    starts = [t._buffer.ptr for t in inputs]
    if len(set(starts)) == len(starts) and all(t._buffer.owner is None for t in inputs):
        return  # blocks of our allocator never overlap
    ends = sorted([t._buffer.ptr + t._buffer.nbytes for t in inputs])
    if all(map(le, ends, sorted(starts)[1:])):
        return  # as many have ended as begin before: no two at once
    for k in written:
        memory = inputs[k]._buffer
        for i, t in enumerate(inputs):
            other = t._buffer
            if i != k and memory.ptr < other.ptr + other.nbytes and other.ptr < memory.ptr + memory.nbytes:
                raise CaptureError(
                    "two tensors from outside share memory, and one of them is written in place",
                    operands=[inputs[k].ttype, t.ttype],
                    fix="pass the whole tensor and take the views inside the function",
                )


def entangle(capture: Any, one: Storage, other: Storage, site: Hashable) -> None:
    """From here on two storages may share memory in a capture, as data decides at `site`."""
    for a, b in ((one, other), (other, one)):
        sites, partners = capture.entangled.get(id(a), (frozenset(), ()))
        capture.entangled[id(a)] = sites | {site}, (*partners, b)


def check_names(capture: Any, results: Sequence[TensorBase]) -> None:
    """Entangled when a result may be a tensor from outside, or another result, as data decides: compiled results would
    be tensors of their own."""
    if not capture.entangled:
        return
    storages = [capture.entries[id(t)].storage for t in results]
    returned = {id(s) for s in storages}
    for storage in storages:
        todo, seen = [storage], {id(storage)}
        for each in todo:
            sites, partners = capture.entangled.get(id(each), (frozenset(), ()))
            for other in partners:
                if other.input is not None or (id(other) in returned and other is not storage):
                    raise Entangled("what is returned is another name of a tensor, as data decides", sites)
                if id(other) not in seen:
                    seen.add(id(other))
                    todo.append(other)


@dataclass(frozen=True)
class Query:
    """Data that Python asked for: `fold` made `answer` of what `value` held, after so many operations were recorded and
    so many inputs were met."""

    value: Value
    answer: Hashable
    fold: Callable[[np.ndarray[Any, Any]], Hashable]
    what: str
    loc: SourceLoc | None
    operations: int
    inputs: int
