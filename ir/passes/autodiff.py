"""Reverse-mode differentiation of a graph, before any other pass.

The same rules as on the eager tape, in the same order: operations are visited in reverse program order, and the
gradient of a value is the left fold over its uses in that order; a use without a gradient adds nothing. So the
gradients of a compiled region equal eager's bit for bit, also when the region's inputs are used outside: their running
gradients come in and the region's uses are folded onto them.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from kiln.ir.graph import Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.ops.base import OPS, Call, OpDef


class NoDerivative(Exception):
    """An operation on the way back has no derivative rule."""

    def __init__(self, op: Operation) -> None:
        super().__init__(f"{op.op.name} has no derivative")
        self.operation = op


@dataclass(frozen=True)
class Differentiated:
    """`forward`: the original outputs, then what backward needs to have saved. `saved` says for each residual
    where it is: (True, position of an input) or (False, position among forward's outputs). `backward`: of the
    residuals, the output gradients that are given, and the running gradients that are given, in this order; its
    outputs are the gradients of the wanted inputs that have one: `found` says for each wanted input which output
    that is, or None."""

    forward: Graph
    saved: tuple[tuple[bool, int], ...]
    residuals: tuple[Value, ...]  # of the original graph, as `saved`
    backward: Graph
    joint: Graph  # of the original inputs, output gradients and running gradients: what backward computes
    found: tuple[int | None, ...]


def differentiate(
    graph: Graph,
    seeds: Sequence[Value],
    given: Sequence[bool],
    wanted: Sequence[int],
    running: Sequence[bool],
    taped: Set[Operation],
) -> Differentiated:
    """Differentiate `graph`.

    `seeds` are the values that gradients come in for, `given` which of them get one; `wanted` are the positions of the
    inputs that gradients are for, `running` which of those have a running gradient. `taped` are the operations that
    gradients flow through (detached ones are not among them). NoDerivative when a rule is missing.
    """
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        mapped.update(zip(op.results, builder.clone(op, [mapped[v] for v in op.operands]), strict=True))
    count = len(graph.operations)
    totals: dict[Value, Value] = {}
    starts: list[Value] = []
    requires = _requiring(graph, wanted, taped)
    for v, has in zip(seeds, given, strict=True):
        if has:
            g = builder.input(v.type, "grad")
            starts.append(g)
            if v in requires:
                _fold(totals, v, g)
    inputs = [graph.inputs[k] for k in wanted]
    for v, has in zip(inputs, running, strict=True):
        if has:
            g = builder.input(v.type, "running")
            starts.append(g)
            totals[v] = _after(totals.get(v), g)
    for op in reversed(graph.operations):
        if op in taped and any(r in totals for r in op.results):
            _visit(op, mapped, requires, totals)
    results = [totals.get(v) for v in inputs]
    outputs = list(dict.fromkeys(r for r in results if r is not None))
    found = tuple(None if r is None else outputs.index(r) for r in results)
    joint = builder.build(outputs)
    return _split(graph, joint, mapped, starts, count, found)


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


def _after(seed: Value | None, running: Value) -> Value:
    """A seed on an input itself comes after the uses outside that were folded before."""
    return running if seed is None else OPS["add"](running, seed)


def _visit(op: Operation, mapped: dict[Value, Value], requires: set[Value], totals: dict[Value, Value]) -> None:
    assert isinstance(op.op, OpDef)
    needs = tuple(v in requires for v in op.operands)
    if not any(needs):
        return
    if op.op.vjp is None:
        raise NoDerivative(op)
    call = Call(tuple(mapped[v] for v in op.operands), tuple(mapped[r] for r in op.results), op.attrs, needs)
    grads = op.op.vjp(call, *[totals.get(r) for r in op.results])
    for v, g, need in zip(op.operands, grads, needs, strict=True):
        if need and g is not None:
            _fold(totals, v, g)


# ------------------------------------------------------------------------------------------- splitting


def _split(
    graph: Graph,
    joint: Graph,
    mapped: dict[Value, Value],
    starts: Sequence[Value],
    count: int,
    found: tuple[int | None, ...],
) -> Differentiated:
    """Cut the joint graph after its forward part. Residuals are what the rest reads of it; views and literals are
    made anew instead."""
    ahead, behind = joint.operations[:count], joint.operations[count:]
    early = {r for op in ahead for r in op.results} | set(joint.inputs[: len(graph.inputs)])
    original = {new: old for old, new in mapped.items()}
    back = GraphBuilder(f"{graph.name}_backward")
    inside: dict[Value, Value] = {}
    residuals: list[Value] = []

    def cheap(v: Value) -> bool:
        op = v.producer
        return op is not None and isinstance(op.op, OpDef) and (op.op.view is not None or "constant" in op.op.traits)

    def need(v: Value) -> None:
        """Make sure an early value will be there: as a residual, or made from one."""
        op = v.producer
        if op is not None and cheap(v):
            for x in op.operands:
                need(x)
        elif v not in residuals:
            residuals.append(v)

    used = [v for op in behind for v in op.operands if v in early] + [v for v in joint.outputs if v in early]
    for v in dict.fromkeys(used):
        need(v)
    for v in residuals:
        inside[v] = back.input(v.type, "saved")
    for g in starts:
        inside[g] = back.input(g.type, g.hint)

    def get(v: Value) -> Value:
        if v not in inside:
            op = v.producer
            assert op is not None and v in early and cheap(v)
            inside[v] = back.clone(op, [get(x) for x in op.operands])[v.index]
        return inside[v]

    for op in behind:
        inside.update(zip(op.results, back.clone(op, [get(v) for v in op.operands]), strict=True))
    backward = back.build([get(v) for v in joint.outputs])
    kept = [original[v] for v in residuals]
    forward, saved = _with_residuals(graph, kept)
    return Differentiated(forward, saved, tuple(kept), backward, joint, found)


def _with_residuals(graph: Graph, residuals: Sequence[Value]) -> tuple[Graph, tuple[tuple[bool, int], ...]]:
    """The graph with residuals as further outputs; inputs that it does not overwrite are their own residual."""
    positions = {v: k for k, v in enumerate(graph.inputs)}
    written = {a.input for a in graph.aliases}
    outputs, saved = list(graph.outputs), []
    for v in residuals:
        k = positions.get(v)
        if k is not None and k not in written:
            saved.append((True, k))
        else:
            saved.append((False, len(outputs)))
            outputs.append(v)
    forward = Graph(graph.name, graph.inputs, graph.operations, tuple(outputs), graph.aliases).verify()
    return forward, tuple(saved)
