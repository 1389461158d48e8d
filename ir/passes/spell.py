"""Ops spelled out as those that they stand for, wherever nothing computes them at once: `addmm` that no library has as
the product and the sum, convolutions by tensor cores as those of float32, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kiln.ir.graph import Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.ops import OPS
from kiln.ir.types import TensorType, float32

_Spelling = Callable[[GraphBuilder, Operation, Sequence[Value]], Value]


def spell(graph: Graph) -> Graph:
    """`graph` without `addmm`, and without convolutions by tensor cores."""
    return _spelled(graph, False)


def spell_own(graph: Graph) -> Graph:
    """`graph` without those `addmm` that are not a library's."""
    return _spelled(graph, True)


def _spelled(graph: Graph, gpu: bool) -> Graph:
    chosen = {op: how for op in graph.operations if (how := _spelling(op, gpu)) is not None}
    if not chosen:
        return graph
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        if op in chosen:
            mapped[op.result] = chosen[op](builder, op, operands)
        else:
            mapped.update(zip(op.results, builder.clone(op, operands), strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)


def _spelling(op: Operation, gpu: bool) -> _Spelling | None:
    """What spells an op out; None where it stays."""
    if op.op.name == "addmm" and not (gpu and "library" in op.attrs):
        return _addmm
    return _convolution if "tensor_cores" in op.attrs and not gpu else None


def _addmm(builder: GraphBuilder, op: Operation, operands: Sequence[Value]) -> Value:
    a, b, c = operands
    dtype, shape = op.result.type.dtype, op.result.type.shape
    half = dtype.is_half
    (value,) = builder.add(OPS["matmul"], [a, b], {"dtype": float32} if half else {}, op.loc)
    if half:
        (c,) = builder.add(OPS["cast"], [c], {"dtype": float32}, op.loc)
    dims = (*range(len(shape) - 2), len(shape) - 1)
    (rows,) = builder.add(OPS["broadcast"], [c], {"dims": dims, "shape": shape}, op.loc)
    (value,) = builder.add(OPS["add"], [value, rows], {}, op.loc)
    if half:
        (value,) = builder.add(OPS["cast"], [value], {"dtype": dtype}, op.loc)
    return value


def _convolution(builder: GraphBuilder, op: Operation, operands: Sequence[Value]) -> Value:
    wide = [builder.add(OPS["cast"], [v], {"dtype": float32}, op.loc)[0] for v in operands]
    attrs = {k: v for k, v in op.attrs.items() if k not in ("tensor_cores", "dtype")}
    found = op.result.type
    t = TensorType(float32, found.shape, found.device)  # sizes may have names, which rules can't find
    (value,) = builder.append(op.op, wide, attrs, [t], op.loc)
    return value if found.dtype is float32 else builder.add(OPS["cast"], [value], {"dtype": found.dtype}, op.loc)[0]
