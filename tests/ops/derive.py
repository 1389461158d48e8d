"""Derivatives of graphs for the tests, by nothing but the ops' rules: a plain reverse sweep and a plain forward sweep.

Operands and results that an op does not declare as saved are replaced by bare types, so a rule that reads more than it
says fails here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kiln.ir.graph import Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.interpreter import evaluate_ref
from kiln.ir.ops import OPS
from kiln.ir.ops.base import Call, OpDef
from kiln.ir.ops.create import zeros_of
from kiln.ir.types import DTYPES, TensorType
from tests.ops.sampling import Sample

Array = np.ndarray[Any, Any]


class OnlyType:
    """What a derivative rule gets for something its op does not save."""

    def __init__(self, ttype: TensorType) -> None:
        self.ttype = ttype


def type_of(x: Array) -> TensorType:
    return TensorType(DTYPES[x.dtype.name], x.shape)


def graph_of(op: OpDef, sample: Sample) -> Graph:
    """The graph of one op; its outputs are the results that have gradients, if any has."""
    builder = GraphBuilder(op.name)
    inputs = [builder.input(t) for t in sample.types()]
    results = sample.bind(op, inputs)
    return builder.build([r for r in results if differentiable(r)] or results)


def differentiable(v: Value) -> bool:
    return v.type.dtype.is_inexact


def call_of(operation: Operation, known: dict[Value, Any], needs: tuple[bool, ...] = ()) -> Call:
    """The operation as its rule may see it, over the operands that `known` has for the values."""
    op = operation.op
    assert isinstance(op, OpDef)
    reads, kept = op.saved(needs) if needs else (op.saved_operands, op.saved_results)
    operands = tuple(known[v] if i in reads else OnlyType(v.type) for i, v in enumerate(operation.operands))
    results = tuple(known[v] if i in kept else OnlyType(v.type) for i, v in enumerate(operation.results))
    return Call(operands, results, operation.attrs, needs or (True,) * len(operands))


def gradient(graph: Graph) -> Graph:
    """inputs + gradients of the outputs -> gradients of the floating-point inputs, folded over uses in reverse
    program order."""
    builder, known = rebuild(graph)
    for operation in graph.operations:
        results = builder.clone(operation, [known[v] for v in operation.operands])
        known.update(zip(operation.results, results, strict=True))
    wanted = {v for v in graph.inputs if differentiable(v)}
    for operation in graph.operations:
        if any(v in wanted for v in operation.operands):
            wanted.update(v for v in operation.results if differentiable(v))
    grads: dict[Value, Any] = {}

    def add(v: Value, g: Any) -> None:
        if g is not None:
            assert g.ttype == v.type, f"gradient {g.ttype} of a {v.type}"
            grads[v] = g if v not in grads else OPS["add"](grads[v], g)

    for v in graph.outputs:
        add(v, builder.input(v.type))
    for operation in reversed(graph.operations):
        given = [grads.get(v) for v in operation.results]
        needs = tuple(v in wanted for v in operation.operands)
        op = operation.op
        if not any(needs) or all(g is None for g in given) or not any(map(differentiable, operation.results)):
            continue
        assert isinstance(op, OpDef) and op.vjp is not None, f"{op.name} has no derivative"
        back = op.vjp(call_of(operation, known, needs), *given)
        assert len(back) == len(operation.operands)
        for v, g, need in zip(operation.operands, back, needs, strict=True):
            if need:
                add(v, g)
    outputs = []
    for v in graph.inputs:
        if differentiable(v):
            outputs.append(grads[v] if v in grads else zeros_of(v.type, known[graph.inputs[0]]))
    return builder.build(outputs)


def tangent(graph: Graph) -> Graph:
    """inputs + tangents of the floating-point inputs -> tangents of the outputs."""
    builder, known = rebuild(graph)
    tangents: dict[Value, Any] = {v: builder.input(v.type) for v in graph.inputs if differentiable(v)}

    for operation in graph.operations:
        results = builder.clone(operation, [known[v] for v in operation.operands])
        known.update(zip(operation.results, results, strict=True))
        given = [tangents.get(v) for v in operation.operands]
        op = operation.op
        assert isinstance(op, OpDef)
        if all(t is None for t in given) or op.jvp is None:
            continue
        forward = op.jvp(call_of(operation, known), *given)
        assert len(forward) == len(operation.results)
        for v, t in zip(operation.results, forward, strict=True):
            if t is not None:
                assert t.ttype == v.type, f"tangent {t.ttype} of a {v.type}"
                tangents[v] = t
    some = known[graph.inputs[0]]
    return builder.build([tangents.get(v) or zeros_of(v.type, some) for v in graph.outputs])


def difference(graph: Graph, arrays: Sequence[Array], direction: Sequence[Array], step: float) -> list[Array]:
    """Central difference of the outputs along `direction` (one array per floating-point input)."""

    def at(scale: float) -> list[Array]:
        moves = iter(direction)
        moved = [x + scale * next(moves) if x.dtype.kind in "fc" else x for x in arrays]
        return evaluate_ref(graph, moved)

    return [(a - b) / (2 * step) for a, b in zip(at(step), at(-step), strict=True)]
