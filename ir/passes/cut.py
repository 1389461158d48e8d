"""Parts of a graph: what is needed for some values when others are known."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kiln.ir.graph import Graph, GraphBuilder, Operation, Value, rebuild


def needed(operations: Sequence[Operation], wanted: Collection[Value], known: Collection[Value]) -> list[Operation]:
    """The operations that `wanted` depend on, in order, where `known` need none."""
    live = set(wanted).difference(known)
    found = []
    for op in reversed(operations):
        if any(r in live for r in op.results):
            found.append(op)
            live.update(v for v in op.operands if v not in known)
    return found[::-1]


def part(
    name: str,
    inputs: Sequence[Value],
    operations: Sequence[Operation],
    known: Sequence[Value],
    outputs: Sequence[Value],
) -> Graph:
    """`operations` as a graph of their own: its inputs are `inputs`, then `known`."""
    builder = GraphBuilder(name)
    mapped = {v: builder.input(v.type, v.hint) for v in (*inputs, *known)}
    for op in operations:
        mapped.update(zip(op.results, builder.clone(op, [mapped[v] for v in op.operands]), strict=True))
    return builder.build([mapped[v] for v in outputs])


def given(graph: Graph, known: Sequence[Value]) -> Graph:
    """`graph` with further inputs that hold `known`, values of its own. Operations that nothing needs any more are
    still there."""
    builder, mapped = rebuild(graph)
    held = {v: builder.input(v.type, v.hint) for v in known}
    for op in graph.operations:
        if not all(r in held for r in op.results):
            mapped.update(zip(op.results, builder.clone(op, [mapped[v] for v in op.operands]), strict=True))
        mapped.update({r: held[r] for r in op.results if r in held})
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)
