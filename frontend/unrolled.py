"""Captured control flow on the tape, turn by turn: what derivatives of gradients go through.

A branch or a loop of a compiled function is one operation, whose gradient is one, too. Differentiated again, that
would add up in another order than eager code does. So its node *expands* before: its graphs are applied as eager code
applies their functions (`control.py`), and leave the very nodes on the tape that eager code would have left.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from kiln.autograd import enable_grad
from kiln.autograd.tape import Node, edge_of, next_sequence, nodes_since
from kiln.base import TensorBase
from kiln.control_nodes import ended, parted, passed, slices
from kiln.ir import interpreter
from kiln.ir.graph import Attrs, Graph, Operation
from kiln.ir.ops.base import OpDef
from kiln.ir.ops.control import CONTROL, nested, number, scan_parts


def unroll(node: Node, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> list[Any]:
    """The results of control flow, computed again on the tape, by nodes with numbers just below that of `node`."""
    start = next_sequence()
    with enable_grad():
        results = _flow(op, operands, attrs)
    made = sorted(nodes_since([edge_of(t) for t in results], start), key=lambda each: each.sequence)
    for k, each in enumerate(made, 1):
        each.sequence = node.sequence - Fraction(len(made) + 1 - k, len(made) + 1)
    return results


def _flow(op: OpDef, operands: Sequence[Any], attrs: Attrs) -> list[Any]:
    if op.name == "cond":
        return passed(_run(nested(attrs, "then" if _holds(operands[0]) else "else"), operands[1:], operands[0]))
    if op.name == "scan":
        return _scan(operands, attrs)
    test, body = nested(attrs, "test"), nested(attrs, "body")
    count = len(body.outputs)
    state, constants = passed(operands[:count]), operands[count:]
    while _holds(_run(test, [*state, *constants], operands[0])[0]):
        state = passed(_run(body, [*state, *constants], operands[0]))
    return state


def _holds(answer: TensorBase) -> bool:
    return bool(answer._array())


def _scan(operands: Sequence[Any], attrs: Attrs) -> list[Any]:
    body, length = nested(attrs, "body"), number(attrs, "length")
    carried, xs, constants = scan_parts(operands, attrs)
    count = len(carried)
    state, parts = passed(carried), [slices(x) for x in xs]
    rows: list[list[Any]] = [[]] * length
    for k in reversed(range(length)) if attrs["reverse"] else range(length):
        made = _run(body, [*state, *(part[k] for part in parts), *constants], operands[0])
        state = passed(made[:count])
        rows[k] = parted(made[count:])
    types = [v.type for v in body.outputs[count:]]
    results = ended([[row[n] for row in rows] for n in range(len(types))], state, types)
    return [*results[len(types) :], *results[: len(types)]]


def _run(graph: Graph, inputs: Sequence[Any], receiver: Any) -> list[Any]:
    """The outputs of a graph, op by op, control flow in it unrolled."""

    def apply(operation: Operation, operands: list[Any]) -> Sequence[Any]:
        op = operation.op
        assert isinstance(op, OpDef)
        if op.name in CONTROL:
            return _flow(op, operands, operation.attrs)
        if op.name == "detach":
            return [operands[0].detach()]
        results = op.bind(operands, operation.attrs, None if operands else receiver)
        if results[0]._node is not None:
            results[0]._node.site = operation.loc
        return results

    return interpreter.walk(graph, inputs, apply)
