"""Convolutions of groups of few results become part of generated kernels.

The kernels of `conv.py` compute vectors of channels, which are nearly empty then (depthwise convolution: one channel
per group). Element by element along the columns is faster, and what follows is computed at once. The order of
accumulation is the same.
"""

from __future__ import annotations

from typing import Final

from kiln.ir.graph import Graph, Operation, rebuild
from kiln.ir.ops import OPS

FEW: Final = 2
"""Results per group."""


def direct(graph: Graph) -> Graph:
    """Replace `conv2d` and `conv2d_input` of few results per group, but for those by tensor cores."""
    if not any(_few(op) for op in graph.operations):
        return graph
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        if _few(op):
            types = [v.type for v in op.results]  # sizes may have names
            made = builder.append(OPS[f"{op.op.name}_direct"], operands, op.attrs, types, op.loc)
        else:
            made = builder.clone(op, operands)
        mapped.update(zip(op.results, made, strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)


def _few(op: Operation) -> bool:
    if op.op.name not in ("conv2d", "conv2d_input") or "tensor_cores" in op.attrs:
        return False
    results, channels = op.operands[1].type.shape[:2]
    groups = op.attrs["groups"]
    assert isinstance(results, int) and isinstance(channels, int) and isinstance(groups, int)
    return (results // groups if op.op.name == "conv2d" else channels) <= FEW
