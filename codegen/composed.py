"""Ops that are compositions where there is no kernel for them (`ir.ops.base.Composed`) become what they are made of."""

from __future__ import annotations

from kiln.codegen.domain import definition
from kiln.ir.graph import Graph, rebuild
from kiln.ir.ops.base import Composed


def composed(graph: Graph) -> Graph:
    """`graph` with other ops in the place of composed ones; `graph` itself when it has none."""
    if not any(isinstance(definition(op).lower, Composed) for op in graph.operations):
        return graph
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        operands, lower = [mapped[v] for v in op.operands], definition(op).lower
        if isinstance(lower, Composed):
            builder.loc = op.loc
            made = lower.parts(*operands, **op.attrs)
        else:
            made = builder.clone(op, operands)
        mapped.update(zip(op.results, made, strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)
