"""Reverse-mode differentiation of a graph, before any other pass.

The same rules as on the eager tape, in the same order: operations are visited in reverse program order, and the
gradient of a value is the left fold over its uses in that order; a use without a gradient adds nothing. So the
gradients of a compiled region equal eager's bit for bit, also when the region's inputs are used outside: their running
gradients come in and the region's uses are folded onto them.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from kiln.ir.graph import Graph, Operation, Value, rebuild
from kiln.ir.ops.base import OPS, Call, OpDef, Vjp

T = TypeVar("T")


class NoDerivative(Exception):
    """An operation on the way back has no derivative rule."""

    def __init__(self, op: Operation) -> None:
        by = "".join(f" by operand {k}" for k in getattr(op.op, "underived", ()))
        super().__init__(f"{op.op.name} has no derivative{by}")
        self.operation = op


@dataclass(frozen=True)
class Joint:
    """`source`, and the graph that computes it and then its gradients: of the inputs of `source`, the gradients that
    are given and the running gradients, in this order. Its first `ahead` operations are those of `source`; its outputs
    are the gradients of the wanted inputs that have one: `found` says for each wanted input which output, or None."""

    source: Graph
    graph: Graph
    ahead: int
    found: tuple[int | None, ...]

    def twins(self) -> dict[Value, Value]:
        """For each value of `source` the one of `graph` that it is."""
        found = dict(zip(self.source.inputs, self.graph.inputs, strict=False))
        for op, twin in zip(self.source.operations, self.graph.operations, strict=False):
            found.update(zip(op.results, twin.results, strict=True))
        return found


def differentiate(
    graph: Graph,
    seeds: Sequence[Value],
    given: Sequence[bool],
    wanted: Sequence[int],
    running: Sequence[bool],
    taped: Set[Operation],
) -> Joint:
    """Differentiate `graph`; `partition.py` cuts what comes out in two.

    `seeds` are the values that gradients come in for, `given` which of them get one; `wanted` are the positions of the
    inputs that gradients are for, `running` which of those have a running gradient. `taped` are the operations that
    gradients flow through (detached ones are not among them). NoDerivative when a rule is missing.
    """
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        plain = op.op.name == "through"
        made = builder.add(OPS["detach"], operands[:1], {}) if plain else builder.clone(op, operands)
        mapped.update(zip(op.results, made, strict=True))
    totals: dict[Value, Value] = {}
    requires = _requiring(graph, wanted, taped)
    grads = [(v, builder.input(v.type, "grad")) for v, has in zip(seeds, given, strict=True) if has]
    inputs = [graph.inputs[k] for k in wanted]
    for v, has in zip(inputs, running, strict=True):
        if has:
            totals[v] = builder.input(v.type, "running")
    for v, g in grads:  # a seed on an input itself comes after the uses outside that were folded before
        if v in requires:
            _fold(totals, v, g)
    for op in reversed(graph.operations):
        if op in taped and any(r in totals for r in op.results):
            builder.loc = op.loc
            _visit(op, mapped, requires, totals)
    results = [totals.get(v) for v in inputs]
    outputs = list(dict.fromkeys(r for r in results if r is not None))
    found = tuple(None if r is None else outputs.index(r) for r in results)
    return Joint(graph, builder.build(outputs), len(graph.operations), found)


def _requiring(graph: Graph, wanted: Sequence[int], taped: Set[Operation]) -> set[Value]:
    """Values that gradients flow to: wanted inputs, and float results of taped operations on such."""
    requires = {graph.inputs[k] for k in wanted}
    for op in graph.operations:
        if op in taped and any(v in requires for v in op.operands):
            requires.update(r for r in op.results if r.type.dtype.is_inexact)
    return requires


def _fold(totals: dict[Value, Value], v: Value, g: Any) -> None:
    """Add one more use's gradient, the running one on the left."""
    before = totals.get(v)
    totals[v] = g if before is None else OPS["add"](before, g)


def _visit(op: Operation, mapped: dict[Value, Value], requires: set[Value], totals: dict[Value, Value]) -> None:
    assert isinstance(op.op, OpDef)
    needs = tuple(v in requires for v in op.operands)
    if not any(needs):
        return
    if op.op.vjp is None or not op.op.derives(needs):
        raise NoDerivative(op)
    call = Call(tuple(mapped[v] for v in op.operands), tuple(mapped[r] for r in op.results), op.attrs, needs)
    seeds = [totals.get(r) for r in op.results]
    if "folds" in op.op.traits:
        running = [totals.get(v) for v in op.operands]
        totals.update((v, g) for v, g in folded(op.op.vjp, call, seeds, op.operands, running) if g is not None)
        return
    grads = op.op.vjp(call, *seeds)
    for v, g, need in zip(op.operands, grads, needs, strict=True):
        if need and g is not None:
            _fold(totals, v, g)


def folded(
    vjp: Vjp, call: Call, grads: Sequence[Any], places: Sequence[T], running: Sequence[Any]
) -> list[tuple[T, Any]]:
    """What gradients have gathered at `places` (those of the operands) after a call of an op that folds. Where operands
    are the same, the last one's uses come first."""
    last = {place: k for k, place in enumerate(places)}
    so_far = tuple(r if last[place] == k else None for k, (place, r) in enumerate(zip(places, running, strict=True)))
    made = vjp(replace(call, running=so_far), *grads)
    totals: dict[T, Any] = {}
    for place, g, need, before in reversed(list(zip(places, made, call.needs, so_far, strict=True))):
        if not need or (g is None and before is None):
            continue
        gathered = totals.get(place)
        use = before if g is None else g  # with nothing to add, it is as before
        totals[place] = use if gathered is None else OPS["add"](gathered, use)
    return list(totals.items())
