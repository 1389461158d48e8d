"""A program runs in one place: what an operation brings from another one is there already."""

from __future__ import annotations

from kiln.ir.graph import Graph, rebuild


def stay(graph: Graph) -> Graph:
    """`graph` without `transfer`; `graph` itself when there is none."""
    if not any(op.op.name == "transfer" for op in graph.operations):
        return graph
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        mapped.update(
            zip(op.results, operands if op.op.name == "transfer" else builder.clone(op, operands), strict=True)
        )
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)
