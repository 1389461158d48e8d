"""A capture without a run: ops are recorded and their results described, but nothing is computed.

For functions of kiln's own that look at types and shapes of tensors and at nothing else: what they do can then be
known before it is done. A question about data is refused as in every capture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kiln import dispatch
from kiln.base import TensorBase, layout_of
from kiln.capture import Capture
from kiln.errors import from_type_error
from kiln.ir.graph import Attrs, AttrValue, Graph, GraphBuilder, Value
from kiln.ir.ops.base import OpDef, OpTypeError
from kiln.ir.types import Dim, TensorType


class Sketch(Capture):
    """A capture whose tensors hold no data: the memory of results is theirs, but nothing was written to it. Its
    operations have no lines: what fails does so at the line of the call that runs them."""

    def __init__(self, name: str, arguments: Sequence[TensorBase]) -> None:
        super().__init__(name, arguments, {}, None)

    def execute(self, op: OpDef, operands: Sequence[Any], attrs: Attrs, receiver: Any) -> tuple[Any, ...]:
        """Results of the right types; views are views."""
        if op.view is not None or op.name == "transfer":
            return dispatch.run(op, operands, attrs)
        try:
            types = op.infer_types([t.ttype for t in operands], attrs)
        except OpTypeError as error:
            raise from_type_error(error, operands) from None
        device = receiver._layout.device
        return tuple([dispatch.empty(layout_of(t.dtype, t.static_shape(), None, device)) for t in types])

    def ask(self, tensor: TensorBase, what: str, fold: Callable[[Any], Any]) -> Any:
        """There is no data."""
        self.forbid(tensor, what)


def generalised(graph: Graph, dim: Callable[[int], Dim]) -> Graph:
    """`graph` with every size replaced by what `dim` makes of it, in types and in shapes among attributes. For graphs
    of elementwise ops and of ops without operands, for which it means the same at other sizes."""
    builder = GraphBuilder(graph.name)

    def shape(sizes: Sequence[Any]) -> tuple[Dim, ...]:
        return tuple([dim(d) for d in sizes])

    mapped: dict[Value, Value] = {
        v: builder.input(TensorType(v.type.dtype, shape(v.type.shape)), v.hint) for v in graph.inputs
    }
    for op in graph.operations:
        attrs: dict[str, AttrValue] = dict(op.attrs)
        if "shape" in attrs:
            attrs["shape"] = shape(op.result.type.shape)
        mapped.update(zip(op.results, builder.add(op.op, [mapped[v] for v in op.operands], attrs, op.loc), strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)


class Update:
    """The loaded program of a sketch that only wrote to its arguments (`made`, right after it; all are on one device):
    to run on others."""

    __slots__ = ("_bumps", "_executable", "_written")

    def __init__(self, graph: Graph, made: Sequence[TensorBase]) -> None:
        device = made[0]._layout.device
        program = dispatch.build(graph, [None] * len(made), name=graph.name, device=device)
        self._executable = dispatch.load(program, device)
        self._written = tuple([i for _, i in sorted(program.aliases)])
        self._bumps = tuple([(k, t._buffer.version) for k, t in enumerate(made) if t._buffer.version])

    def run(self, tensors: Sequence[TensorBase], sizes: Sequence[int]) -> None:
        """Give `tensors` (contiguous, writable, apart in memory) their new contents; versions count every write."""
        values = [t._ptr for t in tensors]
        self._executable.run([*values, *[values[k] for k in self._written], *sizes])
        for k, count in self._bumps:
            tensors[k]._buffer.version += count
