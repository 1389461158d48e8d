"""Dead code: operations whose results nothing needs are dropped. Operations that can fail (trait "check") stay,
since eager execution would have raised. State advances (of random generators) are outputs, so they stay too."""

from __future__ import annotations

from kiln.ir.graph import Graph, Operation, Value, rebuild
from kiln.ir.ops.base import OpDef


def can_fail(op: Operation) -> bool:
    """Whether running the operation, or one inside it, may raise at the user."""
    own = isinstance(op.op, OpDef) and "check" in op.op.traits
    return own or any(can_fail(inner) for graph in op.graphs() for inner in graph.operations)


def dce(graph: Graph) -> Graph:
    """`graph` without dead operations; `graph` itself when there are none."""
    live: set[Value] = set(graph.outputs)
    kept: list[Operation] = []
    for op in reversed(graph.operations):
        if can_fail(op) or any(r in live for r in op.results):
            kept.append(op)
            live.update(op.operands)
    if len(kept) == len(graph.operations):
        return graph
    builder, mapped = rebuild(graph)
    for op in reversed(kept):
        mapped.update(zip(op.results, builder.clone(op, [mapped[v] for v in op.operands]), strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)
