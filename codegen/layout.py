"""Where values lie: the table beside the graph that says which memory a value is, and with which strides.

Results of computing operations are materialised row-major. View operations of something materialised are only
other strides on the same memory; a view that strides cannot express is computed like any other operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kiln.ir.graph import Graph, Operation, Value
from kiln.ir.ops.base import OpDef
from kiln.ir.types import Dim, Shape, Sym, contiguous_strides

Strides = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The memory of `root` (a graph input or a computed value), from element `offset` on, with strides in
    elements: those of the value that lies there, whose dtype may be another than the root's."""

    root: Value
    offset: int
    strides: Strides


def row_major(shape: Shape) -> Strides:
    """Row-major strides; for a symbolic shape, of the outer dimensions, `lower` multiplies them out itself."""
    static = [d for d in shape if isinstance(d, int)]
    if len(static) != len(shape):
        raise ValueError("row_major of a symbolic shape")
    return contiguous_strides(tuple(static))


def is_view(op: Operation) -> bool:
    """Whether an operation may be a mere change of strides."""
    return isinstance(op.op, OpDef) and op.op.view is not None


def assign(graph: Graph, input_strides: Sequence[Strides | None]) -> dict[Value, Layout | None]:
    """The layout of every value. None: materialised row-major in memory of its own (its layout is itself)."""
    table: dict[Value, Layout | None] = {}
    for v, strides in zip(graph.inputs, input_strides, strict=True):
        table[v] = None if strides is None else Layout(v, 0, strides)
    for op in graph.operations:
        for r in op.results:
            table[r] = _view_layout(op, table) if is_view(op) else None
    return table


def place(v: Value, table: dict[Value, Layout | None]) -> Layout:
    """A value's layout, spelled out for static shapes."""
    found = table[v]
    return found if found is not None else Layout(v, 0, row_major(v.type.shape))


def _view_layout(op: Operation, table: dict[Value, Layout | None]) -> Layout | None:
    assert isinstance(op.op, OpDef) and op.op.view is not None
    (operand,) = op.operands
    shape = operand.type.shape
    if any(isinstance(d, Sym) for d in (*shape, *op.result.type.shape)):
        return None
    source = place(operand, table)
    if any(isinstance(s, Sym) for s in source.strides):
        return None
    strides = tuple(s for s in source.strides if isinstance(s, int))
    placed = op.op.view(operand.type.static_shape(), strides, source.offset, op.attrs)
    return None if placed is None else Layout(source.root, placed[2], placed[1])
