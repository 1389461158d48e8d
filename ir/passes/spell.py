"""`addmm` spelled out as the product and the sum that it stands for, wherever no library computes it at once."""

from __future__ import annotations

from kiln.ir.graph import Graph, rebuild
from kiln.ir.ops import OPS
from kiln.ir.types import float32


def spell(graph: Graph) -> Graph:
    """`graph` without `addmm`."""
    return _spelled(graph, False)


def spell_own(graph: Graph) -> Graph:
    """`graph` without those `addmm` that are not a library's."""
    return _spelled(graph, True)


def _spelled(graph: Graph, libraries: bool) -> Graph:
    chosen = {op for op in graph.operations if op.op.name == "addmm" and not (libraries and "library" in op.attrs)}
    if not chosen:
        return graph
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        if op not in chosen:
            mapped.update(zip(op.results, builder.clone(op, operands), strict=True))
            continue
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
        mapped[op.result] = value
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)
