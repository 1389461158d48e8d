"""Which early values a forward program stores for its backward program: a minimum cut.

Recomputation as in AOTAutograd's min-cut partitioner (He and Yu, "Transcending runtime-memory tradeoffs", MLSys 2023).
Every decision about an early value of the joint graph has a price, in eighths of a byte:

- to *store* it: its bytes (twice for a view, which has to be copied);
- to compute it *again*: per element a quarter of a byte for exact arithmetic, two bytes for exp and its like; what must
  not be done twice is not for sale;
- to compute *ahead* what only derivative rules compute: next to nothing where it is as cheap, else not for sale; but
  for control flow, which they apply again for what is to be stored: that is always ahead.

The source's side of the cut is what the forward program computes; of it, what the other side reads is stored. Of
several cheapest cuts it is the one that repeats least. The answer depends on the graph alone.
"""

from __future__ import annotations

from typing import Final

from kiln.ir.graph import Operation, Value
from kiln.ir.ops.base import OpDef
from kiln.ir.passes.partition import AtHand, Early, can_repeat, is_flow, is_free, nbytes

_BYTE: Final = 8
_EXACT: Final = 2
_INEXACT: Final = 16
_AHEAD: Final = 1
_SOURCE: Final = "source"
_SINK: Final = "sink"

_Node = Operation | Value | str
_Edges = dict[tuple[_Node, _Node], int | None]
"""Prices of a network's edges; None: not for sale."""


def choose(early: Early, at_hand: AtHand) -> tuple[int, ...]:
    """The numbers of the early values to store."""
    edges = _network(early, at_hand)
    if all(end != _SINK for _, end in edges):
        return ()
    beyond = _beyond(edges)
    stored = {v for start, v in edges if isinstance(v, Value) and v in beyond and start not in beyond}
    return tuple(sorted(early.numbers[v] for v in stored))


def _network(early: Early, at_hand: AtHand) -> _Edges:
    """From the source through a node per operation and one per value to the sink."""
    free = set(early.kept(at_hand).values())  # there anyway, on both sides
    direct: set[Value] = set()  # there for derivative rules, which read it themselves
    edges: _Edges = {}
    for k, v in enumerate(early.joint.graph.inputs[: len(early.joint.source.inputs)]):
        if k in at_hand.direct:
            direct.add(v)
        if k in at_hand.inputs:
            free.add(v)
        else:
            edges[_SOURCE, v] = _BYTE * nbytes(v)
    for op in early.operations:
        operands = [early.canonical(v) for v in op.operands]
        if is_free(op):
            if all(v in free for v in operands):
                free.update(op.results)
            if all(v in direct for v in operands):
                direct.update(op.results)
        cheap = can_repeat(op)
        if op not in early.ahead and not is_flow(op):
            edges[op, _SINK] = sum(_AHEAD * r.type.likely_numel() for r in op.results) if cheap else None
        elif not is_free(op):
            edges[_SOURCE, op] = sum(map(_again, op.results)) if cheap else None
        for v in operands:
            if v not in free:
                edges[v, op] = None
        for r in op.results:
            if r not in free:
                edges[op, r] = _BYTE * nbytes(r) * (2 if is_free(op) else 1)
    for v in early.reads:
        if v not in free and v not in direct:
            edges[v, _SINK] = None
    return edges


def _again(v: Value) -> int:
    op = v.producer
    exact = op is not None and isinstance(op.op, OpDef) and "exact" in op.op.traits
    return v.type.likely_numel() * (_EXACT if exact else _INEXACT)


def _beyond(edges: _Edges) -> set[_Node]:
    """The sink's side of the cheapest cut; of several the one where it is smallest.

    By the maximum flow of Dinic (1970), Algorithm for solution of a problem of maximum flow in networks with power
    estimation, Soviet Math. Doklady 11: shortest ways are filled up, all of one length at a time.
    """
    unlimited = 1 + sum(price for price in edges.values() if price is not None)
    room: dict[_Node, dict[_Node, int]] = {_SOURCE: {}, _SINK: {}}
    for (start, end), price in edges.items():
        room.setdefault(start, {})[end] = unlimited if price is None else price
        room.setdefault(end, {}).setdefault(start, 0)
    while _SOURCE in (left := _steps_left(room)):
        ways = {node: list(ends) for node, ends in room.items()}
        while way := _shortest_way(room, left, ways):
            flow = min(room[a][b] for a, b in way)
            for a, b in way:
                room[a][b] -= flow
                room[b][a] += flow
    return set(left)


def _steps_left(room: dict[_Node, dict[_Node, int]]) -> dict[_Node, int]:
    """How far the sink is from each node that has a way to it with room left."""
    left: dict[_Node, int] = {_SINK: 0}
    queue: list[_Node] = [_SINK]
    for node in queue:
        for before in room[node]:
            if before not in left and room[before][node]:
                left[before] = left[node] + 1
                queue.append(before)
    return left


def _shortest_way(
    room: dict[_Node, dict[_Node, int]], left: dict[_Node, int], ways: dict[_Node, list[_Node]]
) -> list[tuple[_Node, _Node]]:
    """Edges with room from the source to the sink, each a step nearer; none: no such way is left. What leads nowhere
    is taken out of `ways`."""
    way: list[tuple[_Node, _Node]] = []
    node: _Node = _SOURCE
    while node != _SINK:
        options = ways[node]
        while options and not (room[node][options[-1]] and left.get(options[-1], -1) == left[node] - 1):
            options.pop()
        if options:
            way.append((node, options[-1]))
            node = options[-1]
        elif way:
            node, _ = way.pop()
            ways[node].pop()
        else:
            break
    return way
