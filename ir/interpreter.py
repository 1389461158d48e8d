"""Graphs as instructions: apply every operation again, to anything that answers the operand protocol.

Over `Value`s this copies or inlines a graph, over eager tensors it executes it op by op, and over NumPy arrays with
the ops' own `ref` it is the oracle of the tests. Another interpretation (types, tangents) needs only other operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from kiln.ir.graph import Attrs, Graph, Operation, Value
from kiln.ir.ops.base import OpDef
from kiln.ir.ops.control import nested, number, scan_parts, stacked_type
from kiln.ir.types import TensorType

T = TypeVar("T")
Array = np.ndarray[Any, Any]


class InterpretError(Exception):
    """A graph can't be run as asked: wrong number of inputs, or a `ref` that breaks its op's type rule."""


def walk(graph: Graph, inputs: Sequence[T], apply: Callable[[Operation, list[T]], Sequence[T]]) -> list[T]:
    """The outputs of `graph` when its inputs stand for `inputs` and `apply(operation, operands)` gives the
    results of each operation, in program order."""
    if len(inputs) != len(graph.inputs):
        raise InterpretError(f"graph {graph.name} takes {len(graph.inputs)} inputs, got {len(inputs)}")
    known: dict[Value, T] = dict(zip(graph.inputs, inputs, strict=True))
    for operation in graph.operations:
        results = apply(operation, [known[v] for v in operation.operands])
        known.update(zip(operation.results, results, strict=True))
    return [known[v] for v in graph.outputs]


def run(graph: Graph, inputs: Sequence[Any], receiver: Any = None) -> list[Any]:
    """Apply every operation to operands (`Value`s of one builder, or tensors). Ops without operands are bound
    through `receiver`, by default the first input."""
    target = receiver if receiver is not None or not inputs else inputs[0]

    def apply(operation: Operation, operands: list[Any]) -> Sequence[Any]:
        op = operation.op
        if not isinstance(op, OpDef):
            raise InterpretError(f"{op.name} has no declaration to apply")
        if not operands and target is None:
            raise InterpretError(f"{op.name} has no operands: run() needs a receiver")
        return op.bind(operands, operation.attrs, None if operands else target)

    return walk(graph, inputs, apply)


def follow(
    op: OpDef,
    operands: Sequence[T],
    attrs: Attrs,
    inside: Callable[[Graph, Sequence[T]], list[T]],
    truth: Callable[[T], bool],
    part: Callable[[T, int], T],
    stack: Callable[[Sequence[T], TensorType], T],
) -> list[T]:
    """The results of control flow: `inside(graph, inputs)` runs a graph, `truth` reads a bool, `part` is a slice, and
    `stack` puts values in a row to one of a type."""
    if op.name == "cond":
        return inside(nested(attrs, "then" if truth(operands[0]) else "else"), operands[1:])
    body = nested(attrs, "body")
    if op.name == "while_loop":
        count = len(body.outputs)
        state, constants = list(operands[:count]), operands[count:]
        while truth(inside(nested(attrs, "test"), [*state, *constants])[0]):
            state = inside(body, [*state, *constants])
        return state
    carried, xs, constants = scan_parts(operands, attrs)
    length, reverse = number(attrs, "length"), attrs["reverse"]
    rows: list[list[T]] = [[] for _ in range(length)]
    state = list(carried)
    for k in reversed(range(length)) if reverse else range(length):
        made = inside(body, [*state, *(part(x, k) for x in xs), *constants])
        state, rows[k] = made[: len(carried)], made[len(carried) :]
    types = [stacked_type(v.type, length) for v in body.outputs[len(carried) :]]
    return [*state, *(stack([row[n] for row in rows], t) for n, t in enumerate(types))]


def evaluate_ref(graph: Graph, arrays: Sequence[Any]) -> list[Array]:
    """The outputs of `graph` on NumPy arrays by the ops' references; every result is held against the op's
    type rule (InterpretError)."""

    def apply(operation: Operation, operands: list[Array]) -> Sequence[Array]:
        op = operation.op
        if not isinstance(op, OpDef):
            raise InterpretError(f"{op.name} has no reference")
        results = op.ref(np, *operands, **operation.attrs)
        arrays = [np.asarray(r) for r in (results if isinstance(results, tuple) else (results,))]
        for array, value in zip(arrays, operation.results, strict=True):
            wanted = value.type
            if array.dtype != wanted.dtype.numpy or array.shape != wanted.shape:
                raise InterpretError(f"ref of {op.name} gave {array.dtype}{list(array.shape)}, its rule says {wanted}")
        return arrays

    return walk(graph, [np.asarray(a) for a in arrays], apply)
