"""What eager control flow leaves on the tape besides the ops of its functions: where values go in and out.

A value that enters a loop, or leaves a branch or a turn, passes a *border*, which gathers its gradient before it flows
on, and gives one of negative zeros (which change nothing they are added to) to a value that has none where others have
one. So the order of additions, and what is visited, is that of the compiled gradient, where a branch or a loop is one
operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kiln import dispatch
from kiln.autograd.tape import Node, attach_one, edge_of, refresh
from kiln.base import MODES, READONLY, REQUIRES_GRAD, TensorBase, layout_of
from kiln.ir.ops.base import OPS
from kiln.ir.types import TensorType


def nothing(t: TensorType, receiver: Any) -> Any:
    """The gradient of what has none: negative zeros."""
    value: float | complex = complex(-0.0, -0.0) if t.dtype.is_complex else -0.0
    (made,) = OPS["full"].bind((), {"shape": t.shape, "dtype": t.dtype, "value": value}, receiver=receiver)
    return made


def _given(grads: Sequence[Any]) -> Any:
    return next(g for g in grads if g is not None)


class Border(Node):
    """Copies of tensors. Where one of them has a gradient, all do."""

    __slots__ = ()

    @property
    def operation(self) -> str:
        return "the border of a branch or a loop"

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        receiver = _given(grads)
        return [nothing(t, receiver) if g is None else g for g, t in zip(grads, self.results, strict=True)]

    def release(self) -> None:
        """Nothing is saved."""


class Parted(Node):
    """Tensors as they are. Each has its own gradient, or none."""

    __slots__ = ()

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        return grads

    def release(self) -> None:
        """Nothing is saved."""


class Slices(Node):
    """Slices of a tensor along its first dimension, each a view."""

    __slots__ = ("whole",)

    def __init__(self, x: Any) -> None:
        part = TensorType(x.dtype, x.shape[1:], x.device)
        super().__init__([edge_of(x)], [part] * x.shape[0])
        self.whole = x.ttype

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        receiver = _given(grads)
        parts = [nothing(t, receiver) if g is None else g for g, t in zip(grads, self.results, strict=True)]
        return [stacked(parts)]

    def release(self) -> None:
        """Nothing is saved."""


class ScanEnd(Node):
    """What a scan gives: what is stacked of every turn, then copies of what was carried last."""

    __slots__ = ("count", "length")

    def __init__(self, parts: Sequence[Sequence[Any]], carried: Sequence[Any], results: Sequence[TensorType]) -> None:
        edges = [edge_of(t) for of_one in parts for t in of_one]
        super().__init__([*edges, *map(edge_of, carried)], results)
        self.count = len(parts)
        self.length = len(parts[0]) if parts else 0

    @property
    def operation(self) -> str:
        return "scan"

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        receiver = _given(grads)
        made: list[Any] = []
        for g in grads[: self.count]:
            made += [None] * self.length if g is None else [row(g, k) for k in range(self.length)]
        last = zip(grads[self.count :], self.results[self.count :], strict=True)
        return [*made, *(nothing(t, receiver) if g is None else g for g, t in last)]

    def release(self) -> None:
        """Nothing is saved."""


def row(x: Any, k: int) -> Any:
    """x[k], by ops."""
    ends = {"starts": (k, *(0 for _ in x.shape[1:])), "stops": (k + 1, *x.shape[1:]), "steps": (1,) * x.ndim}
    return OPS["reshape"](OPS["slice"](x, **ends), shape=x.shape[1:])


def stacked(parts: Sequence[Any]) -> Any:
    """Tensors of one type in a row, by ops."""
    rows = [OPS["reshape"](t, shape=(1, *t.shape)) for t in parts]
    (made,) = OPS["cat"].bind(rows, {"dim": 0}) if len(rows) > 1 else OPS["copy"].bind(rows, {})
    return made


def _copy(t: Any) -> Any:
    return dispatch.run(OPS["copy"], (t,), {})[0]


def _wanted(tensors: Sequence[Any]) -> bool:
    """Whether gradients flow to one of the tensors, whose histories are brought up to date."""
    if not MODES.grad_enabled:
        return False
    for t in tensors:
        if t._view is not None:
            refresh(t)
    return any(t._flags & REQUIRES_GRAD for t in tensors)


def passed(tensors: Sequence[Any]) -> list[Any]:
    """Copies, beyond a border."""
    made = list(map(_copy, tensors))
    if _wanted(tensors):
        node = Border([edge_of(t) for t in tensors], [t.ttype for t in tensors])
        _attach(node, made, tensors, 0)
    return made


def parted(tensors: Sequence[Any]) -> list[Any]:
    """What a turn leaves to be stacked: on the same memory, beyond a border."""
    if not _wanted(tensors):
        return list(tensors)
    made = [dispatch.tensor_on(t._buffer, t._ptr, t._layout, READONLY) for t in tensors]
    _attach(Parted([edge_of(t) for t in tensors], [t.ttype for t in tensors]), made, tensors, 0)
    return made


def _attach(node: Node, made: Sequence[Any], sources: Sequence[Any], first: int) -> None:
    for k, (t, source) in enumerate(zip(made, sources, strict=True)):
        if source._flags & REQUIRES_GRAD and t.dtype.is_inexact:
            attach_one(t, node, first + k)


def slices(x: TensorBase) -> list[Any]:
    """Read-only views of the slices along the first dimension."""
    layout = layout_of(x.dtype, x.shape[1:], x._layout.strides[1:], x._layout.device)
    step = x._layout.strides[0] * x.dtype.itemsize
    made = [dispatch.tensor_on(x._buffer, x._ptr + k * step, layout, READONLY) for k in range(x.shape[0])]
    if made and _wanted([x]):
        node = Slices(x)
        for k, t in enumerate(made):
            attach_one(t, node, k)
    return made


def ended(parts: Sequence[Sequence[Any]], carried: Sequence[Any], types: Sequence[TensorType]) -> list[Any]:
    """What a scan gives: for each of `parts`, of the types `types`, all turns in a row, then copies of `carried`."""
    made: list[Any] = []
    for of_one, t in zip(parts, types, strict=True):
        rows = [dispatch.run(OPS["reshape"], (y,), {"shape": (1, *y.shape)})[0] for y in of_one]
        if len(rows) > 1:
            made.append(dispatch.run(OPS["cat"], rows, {"dim": 0})[0])
        else:
            made.append(
                _copy(rows[0]) if rows else dispatch.empty(layout_of(t.dtype, (0, *t.static_shape()), None, t.device))
            )
    made += map(_copy, carried)
    flat = [*(y for of_one in parts for y in of_one), *carried]
    if _wanted(flat):
        node = ScanEnd(parts, carried, [t.ttype for t in made])
        for k, of_one in enumerate(parts):
            if made[k].dtype.is_inexact and any(y._flags & REQUIRES_GRAD for y in of_one):
                attach_one(made[k], node, k)
        _attach(node, made[len(parts) :], carried, len(parts))
    return made
