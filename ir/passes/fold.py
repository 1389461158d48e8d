"""Folding: what is known before the program runs is computed now, where the result is the same bit for bit.

Three rules: views that change nothing vanish and views of views merge; views and elementwise functions of a `full`
are a `full`; a cast to the same dtype, a negation of a negation, and a part of a complex number that was just made of
its parts, vanish. Nothing here may change a bit for any
input: x * 1 and x + 0 stay (NaN payloads aside, x + 0.0 turns -0.0 into 0.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kiln.ir.graph import AttrValue, Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.halves import converted
from kiln.ir.ops.base import OPS, OpDef, ints_attr, shape_attr
from kiln.ir.types import Sym, TensorType

_PARTS = {"real": 0, "imag": 1}
_VIEWS = frozenset({"reshape", "permute", "broadcast", "slice"})


def fold(graph: Graph) -> Graph:
    """`graph` with all rules applied once, in program order; `graph` itself when none applies."""
    builder, mapped = rebuild(graph)
    changed = False
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        replaced = _simplified(op, operands, builder)
        if replaced is None:
            mapped.update(zip(op.results, builder.clone(op, operands), strict=True))
        else:
            changed = True
            mapped[op.result] = replaced
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases) if changed else graph


def _simplified(op: Operation, operands: Sequence[Value], builder: GraphBuilder) -> Value | None:
    """What the operation's result is instead, or None."""
    if len(op.results) != 1 or not operands:
        return None
    name, first = op.op.name, operands[0]
    if name in _VIEWS:
        return _view(op, first, builder)
    if name in ("detach", "through"):  # gradients were taken before
        return first
    if name == "cast" and op.result.type.dtype is first.type.dtype:
        return first
    inner = first.producer
    if name in _PARTS and inner is not None and inner.op.name == "complex":
        return inner.operands[_PARTS[name]]
    if name == "neg" and inner is not None and inner.op.name == "neg":
        return inner.operands[0]
    return _constant(op, operands, builder)


def _view(op: Operation, first: Value, builder: GraphBuilder) -> Value | None:
    name, result = op.op.name, op.result.type
    inner = first.producer
    if inner is not None and inner.op.name == "full":
        return _full(result, inner.attrs["value"], op, builder)
    same_shape = result.shape == first.type.shape
    if same_shape and (
        name in ("reshape", "broadcast") or (name == "slice" and set(ints_attr(op.attrs, "steps")) <= {1})
    ):
        return first
    if name == "permute":
        dims = ints_attr(op.attrs, "dims")
        if dims == tuple(range(len(dims))):
            return first
        if inner is not None and inner.op.name == "permute":
            before = ints_attr(inner.attrs, "dims")
            attrs = {"dims": tuple(before[d] for d in dims)}
            return builder.add(op.op, [inner.operands[0]], attrs, op.loc)[0]
    if name == "reshape" and inner is not None and inner.op.name == "reshape":
        return builder.add(op.op, [inner.operands[0]], {"shape": shape_attr(op.attrs, "shape")}, op.loc)[0]
    return None


def _full(type: TensorType, value: object, op: Operation, builder: GraphBuilder) -> Value:
    assert isinstance(value, bool | int | float | complex)
    shape: tuple[Any, ...] = type.shape
    attrs: dict[str, AttrValue] = {"shape": shape, "dtype": type.dtype, "value": value}
    return builder.add(OPS["full"], [], attrs, op.loc)[0]


def _constant(op: Operation, operands: Sequence[Value], builder: GraphBuilder) -> Value | None:
    """An elementwise function of fills, where NumPy's result is bit-equal (trait "foldable")."""
    if not isinstance(op.op, OpDef) or not {"foldable", "elementwise"} <= op.op.traits:
        return None
    producers = [v.producer for v in operands]
    if any(p is None or p.op.name != "full" for p in producers) or any(
        isinstance(d, Sym) for d in op.result.type.shape
    ):
        return None
    values = []
    for p in producers:
        assert p is not None
        values.append(converted(np.asarray(p.attrs["value"]), p.result.type.dtype))
    found = np.asarray(op.op.ref(np, *values, **op.attrs))
    return _full(op.result.type, found.item(), op, builder)
