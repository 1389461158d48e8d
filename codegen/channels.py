"""Where the operands of convolutions by tensor cores lie: with the channels that are added up as neighbours.

A product takes 16 bytes at a time along what it sums over (`codegen/cuda/convolution_tensor.py`). So operands are
copied to where they lie so, as views of what they were: fusion then lets the kernels that compute them write them
there. The gradients of one convolution share their copies; those of the forward pass are its own, and needed no longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kiln.codegen.layout import Strides, assign
from kiln.ir.graph import Graph, Operation, Value, rebuild
from kiln.ir.ops import OPS
from kiln.ir.ops.conv import LAST
from kiln.ir.passes.inside import inner_changed

_RESULTS_LAST: Final = (1, 2, 3, 0)


def channels_last(graph: Graph, strides: Sequence[Strides | None]) -> Graph:
    """`graph` with such copies; `graph` itself when it needs none."""
    graph = inner_changed(graph, lambda op, key, inner: channels_last(inner, [None] * len(inner.inputs)))
    if not any("tensor_cores" in op.attrs for op in graph.operations):
        return graph
    layouts = assign(graph, strides)
    builder, mapped = rebuild(graph)
    made: dict[tuple[Value, tuple[int, ...], bool], Value] = {}

    def copied(v: Value, order: tuple[int, ...], op: Operation) -> Value:
        """`v` in memory in this order of its dimensions."""
        layout, last = layouts[v], order[-1]
        if v.type.shape[last] == 1 or (layout is not None and layout.strides[last] == 1):
            return mapped[v]
        key = v, order, op.op.name == "conv2d"
        if key not in made:
            (turned,) = builder.add(OPS["permute"], [mapped[v]], {"dims": order}, op.loc)
            (there,) = builder.add(OPS["copy"], [turned], {}, op.loc)
            back = tuple(order.index(d) for d in range(len(order)))
            (made[key],) = builder.add(OPS["permute"], [there], {"dims": back}, op.loc)
        return made[key]

    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        if "tensor_cores" in op.attrs:
            a, b = op.operands
            operands = [copied(a, LAST, op), copied(b, _RESULTS_LAST if op.op.name == "conv2d_input" else LAST, op)]
        mapped.update(zip(op.results, builder.clone(op, operands), strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)
