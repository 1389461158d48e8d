"""Where values lie: the table beside the graph that says which memory a value is, and with which strides.

Results of computing operations are materialised row-major. View operations of something materialised are only
other strides on the same memory; a view that strides cannot express is computed like any other operation. A write in
place (`writes.py`) has the memory of its table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from kiln.ir.graph import Graph, Operation, Value
from kiln.ir.ops.base import OpDef, ints_attr, shape_attr
from kiln.ir.types import Dim, Sym, product, row_major

Strides = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The memory of `root` (a graph input or a computed value), from element `offset` on, with strides in
    elements: those of the value that lies there, whose dtype may be another than the root's."""

    root: Value
    offset: int
    strides: Strides


def is_view(op: Operation) -> bool:
    """Whether an operation may be a mere change of strides."""
    return isinstance(op.op, OpDef) and op.op.view is not None


def is_in_place(op: Operation) -> bool:
    """Whether the memory of the result is that of the first operand."""
    return bool(op.attrs.get("in_place", False))


def is_layout(op: Operation, layouts: Mapping[Value, Layout | None]) -> bool:
    """Whether nothing is to be done for an operation, as its result is there: a view, or what has been written in place
    as a part of it."""
    return layouts[op.result] is not None and (is_view(op) or (is_in_place(op) and op.op.name == "slice_scatter"))


def assign(graph: Graph, input_strides: Sequence[Strides | None]) -> dict[Value, Layout | None]:
    """The layout of every value. None: materialised row-major in memory of its own (its layout is itself)."""
    table: dict[Value, Layout | None] = {}
    for v, strides in zip(graph.inputs, input_strides, strict=True):
        table[v] = None if strides is None else Layout(v, 0, strides)
    for op in graph.operations:
        for r in op.results:
            if is_in_place(op):
                table[r] = place(op.operands[0], table)
            else:
                table[r] = _view_layout(op, table) if is_view(op) else None
    return table


def place(v: Value, table: Mapping[Value, Layout | None]) -> Layout:
    """A value's layout, spelled out."""
    found = table[v]
    return found if found is not None else Layout(v, 0, row_major(v.type.shape))


_SYMBOLIC_VIEWS: Final = frozenset({"reshape", "permute", "broadcast", "detach"})


def _view_layout(op: Operation, table: dict[Value, Layout | None]) -> Layout | None:
    assert isinstance(op.op, OpDef) and op.op.view is not None
    (operand,) = op.operands
    source = place(operand, table)
    numbers = (*operand.type.shape, *op.result.type.shape, *source.strides)
    if "starts" in op.attrs:
        numbers += shape_attr(op.attrs, "starts")
    if not any(isinstance(d, Sym) for d in numbers):
        strides = tuple(s for s in source.strides if isinstance(s, int))
        placed = op.op.view(operand.type.static_shape(), strides, source.offset, op.attrs)
        return None if placed is None else Layout(source.root, placed[2], placed[1])
    if op.op.name == "slice":
        return _part(op, source)
    if op.op.name not in _SYMBOLIC_VIEWS:
        return None
    view = cast("Callable[..., tuple[Strides, Strides, int] | None]", op.op.view)  # products of sizes are sizes
    found = view(operand.type.shape, source.strides, source.offset, op.attrs)
    return None if found is None else Layout(source.root, found[2], found[1])


def _part(op: Operation, source: Layout) -> Layout | None:
    """The layout of a slice whose sizes are symbolic; None where it begins at a place that is."""
    offset = source.offset
    for start, step in zip(shape_attr(op.attrs, "starts"), source.strides, strict=True):
        far = product((start, step))
        if not isinstance(far, int):
            return None
        offset += far
    steps = zip(source.strides, ints_attr(op.attrs, "steps"), strict=True)
    return Layout(source.root, offset, tuple(product(pair) for pair in steps))
