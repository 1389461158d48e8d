"""What a capture knows of tensors: their memory as the graph sees it, their values, their gradients, and the questions
that were asked about their data."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import dataclass
from operator import le
from typing import Any, Final

import numpy as np

from kiln.base import REQUIRES_GRAD, TensorBase
from kiln.errors import CaptureError
from kiln.ir.graph import Attrs, SourceLoc, Value
from kiln.ir.ops.base import OpDef
from kiln.location import user_location

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


_MAX_QUESTIONS: Final = 128


class Given:
    """Answers to what is asked for its truth, in place of the data's. The last of them is given as long as the same
    line asks again (a loop that data would end soon is seen to its end, if it has one); then the data's."""

    __slots__ = ("_repeats", "_rest")

    def __init__(self, answers: Sequence[bool]) -> None:
        self._rest = list(answers)
        self._repeats = bool(answers)

    def answer(self, capture: Any, now: bool) -> bool:
        """The next one. `now`: what the data say. Refused after very many questions."""
        if self._rest:
            return self._rest.pop(0)
        if len(capture.queries) >= _MAX_QUESTIONS:
            capture.refuse(
                f"more than {_MAX_QUESTIONS} questions about tensor data are asked, one after the other"
                + because(capture),
                fix="let turns of loops do the same kind of thing to tensors, and nothing else",
            )
        last = capture.queries[-1] if self._repeats else None
        self._repeats = last is not None and isinstance(last.answer, bool) and last.loc == user_location()
        return last.answer if last is not None and self._repeats else now


def because(capture: Any) -> str:
    """What asked a capture last, since it could not be staged, and why, to be added to a message."""
    asked = None if capture.hooks is None else capture.hooks.asked
    return "" if asked is None else f"; this {asked[0].kind} can't be part of the program: {asked[1]}"


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


@dataclass(frozen=True)
class Twin:
    """A tensor of a capture that is `original` itself where the 0-d bool tensor `flag` holds `when`."""

    tensor: TensorBase
    original: TensorBase
    flag: TensorBase
    when: bool


def check_names(capture: Any, leaves: Sequence[Any], results: Sequence[TensorBase], grads: Container[int]) -> None:
    """Entangled when a result may share its memory with a tensor from outside, or with another result, as data decides,
    and it is not known how: compiled results would be tensors of their own. `leaves`: of what is returned; `grads`: ids
    of results that are gradients."""
    for t in results:
        sites = capture.parts.get(id(capture.entries[id(t)].storage))
        if sites and (capture.answers or capture.explored):
            raise Entangled("what is returned is a part of larger memory, as data decides", sites)
    if not capture.entangled:
        return
    roles: dict[int, set[int]] = {}  # of storages, by id: the leaves that they may be, or the results
    for k, x in enumerate(leaves):
        while id(x) in capture.twins:
            roles.setdefault(id(capture.entries[id(x)].storage), set()).add(k)
            x = capture.twins[id(x)].original
        if isinstance(x, TensorBase):
            roles.setdefault(id(capture.entries[id(x)].storage), set()).add(k)
    for k, t in enumerate(results):
        roles.setdefault(id(capture.entries[id(t)].storage), {-1 - k})
    for t in results:
        storage = capture.entries[id(t)].storage
        todo, seen = [storage], {id(storage)}
        for each in todo:
            sites, partners = capture.entangled.get(id(each), (frozenset(), ()))
            for other in _unexplained(capture, each, partners, results, grads):
                apart = len(roles[id(storage)] | roles.get(id(other), roles[id(storage)])) > 1
                if other.input is not None or (apart and other is not storage):
                    raise Entangled("what is returned is another name of a tensor, as data decides", sites)
                if id(other) not in seen:
                    seen.add(id(other))
                    todo.append(other)


def _unexplained(
    capture: Any, storage: Storage, partners: Sequence[Storage], results: Sequence[TensorBase], grads: Container[int]
) -> list[Storage]:
    """Those of `partners` that may share memory with `storage` for another reason than that its tensor is a twin."""
    left = list(partners)
    for twin in capture.twins.values():
        mine, its = capture.entries[id(twin.tensor)].storage, capture.entries[id(twin.original)].storage
        other = its if mine is storage else mine if its is storage else None
        views = any(t is not twin.tensor and capture.entries[id(t)].storage is mine for t in results)
        if other is not None and not views and id(twin.tensor) not in grads and sum(s is other for s in left) == 1:
            left = [s for s in left if s is not other]
    return left


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
