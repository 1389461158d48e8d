"""Where a NaN comes from: what functions compiled with `check_nan` do when a call's results hold one.

The recorded graph is then run once more, op by op, on what the call was given. Beside each value goes where its NaN
comes from: from outside, or from the first op that made one of operands without any. Nested graphs are walked turn by
turn, so that an op in a loop is named with its turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kiln import dispatch
from kiln.autograd import no_grad
from kiln.base import TensorBase, layout_of
from kiln.control_nodes import row, stacked
from kiln.errors import NanError
from kiln.ir import interpreter
from kiln.ir.graph import Graph, Operation
from kiln.ir.ops.base import OPS, OpDef
from kiln.ir.ops.control import CONTROL, nested, number
from kiln.ir.types import TensorType
from kiln.pytree import flatten

if TYPE_CHECKING:
    from kiln.capture import Capture
    from kiln.region import Region


@dataclass(frozen=True)
class Origin:
    """Where a NaN comes from: the `number`th op that made one, in these turns of the loops around it, outermost first;
    or from outside (no operation)."""

    number: int = -1
    operation: Operation | None = None
    turns: tuple[tuple[Operation, int], ...] = ()


OUTSIDE = Origin()
_Known: TypeAlias = "tuple[Any, Origin | None]"
"""A tensor, and where the NaNs in it come from, if there are any."""


def holds(t: Any) -> bool:
    """Whether a tensor holds a NaN."""
    return t.dtype.is_inexact and bool(np.isnan(t._array()).any())


def _first(known: Sequence[Origin | None]) -> Origin | None:
    """The first op among origins; else the outside, if it is one of them."""
    ops = [origin for origin in known if origin is not None and origin.operation is not None]
    if ops:
        return min(ops, key=lambda origin: origin.number)
    return OUTSIDE if any(origin is not None for origin in known) else None


class _Walk:
    """One run of a graph, op by op."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver
        self._count = 0
        self._turns: list[tuple[Operation, int]] = []

    def run(self, graph: Graph, given: Sequence[_Known]) -> list[_Known]:
        return interpreter.walk(graph, given, self._apply)

    def _apply(self, operation: Operation, operands: list[_Known]) -> Sequence[_Known]:
        op = operation.op
        assert isinstance(op, OpDef)
        if op.name in CONTROL:
            return self._follow(operation, op, operands)
        made = op.bind([t for t, _ in operands], operation.attrs, None if operands else self._receiver)
        before = _first([origin for _, origin in operands])
        return [(t, (before or self._new(operation)) if holds(t) else None) for t in made]

    def _new(self, operation: Operation) -> Origin:
        self._count += 1
        return Origin(self._count, operation, tuple(self._turns))

    def _follow(self, operation: Operation, op: OpDef, operands: Sequence[_Known]) -> Sequence[_Known]:
        body = None if op.name == "cond" else nested(operation.attrs, "body")
        turn, step = 0, 1
        if op.name == "scan" and operation.attrs["reverse"]:
            turn, step = number(operation.attrs, "length") - 1, -1

        def inside(graph: Graph, given: Sequence[_Known]) -> list[_Known]:
            nonlocal turn
            if graph is not body:
                return self.run(graph, given)
            self._turns.append((operation, turn))
            made = self.run(graph, given)
            self._turns.pop()
            turn += step
            return made

        return interpreter.follow(op, operands, operation.attrs, inside, _truth, _part, _stack)


def _truth(known: _Known) -> bool:
    return bool(known[0]._array())


def _part(known: _Known, k: int) -> _Known:
    t, origin = known
    part = row(t, k)
    return part, origin if origin is not None and holds(part) else None


def _stack(parts: Sequence[_Known], t: TensorType) -> _Known:
    if not parts:
        return dispatch.empty(layout_of(t.dtype, t.static_shape())), None
    return stacked([each for each, _ in parts]), _first([origin for _, origin in parts])


def _origins(graph: Graph, given: Sequence[Any], known: Mapping[int, Origin]) -> list[Origin | None]:
    """Where NaNs in the outputs of a graph come from. `known` says it of NaNs in what is `given`."""
    with no_grad():
        inputs = [(t.detach(), known.get(k, OUTSIDE) if holds(t) else None) for k, t in enumerate(given)]
        receiver = inputs[0][0] if inputs else dispatch.empty(layout_of(graph.outputs[0].type.dtype, ()))
        return [origin for _, origin in _Walk(receiver).run(graph, inputs)]


def _demand_none(origins: Sequence[Origin | None], message: str, fix: str) -> None:
    """NanError for the first op among origins."""
    first = _first(origins)
    if first is None or first.operation is None:
        return
    operation = first.operation
    turns = ", ".join(f"turn {k} of the {loop.op.name}{_at(loop)}" for loop, k in first.turns)
    raise NanError(
        message + (f", in {turns}" if turns else ""),
        op=operation.op.name,
        operands=[v.type for v in operation.operands],
        loc=operation.loc,
        fix=fix,
        turns=tuple(k for _, k in first.turns),
    )


def _at(loop: Operation) -> str:
    return "" if loop.loc is None else f" at {loop.loc}"


_MADE = "it gave the first NaN of the call, from operands without one"
_FIX = "look at its operands: 0/0, inf - inf, a root or logarithm of a negative number, ..."


# --------------------------------------------------------------------------------------------- calls


def copied(t: Any) -> Any:
    """What a tensor holds now."""
    return dispatch.run(OPS["copy"], (t,), {})[0]


def before(region: Region, inputs: Sequence[Any]) -> list[Any]:
    """What a call is given; of tensors that it writes to, copies."""
    return [copied(t) if k in region.written else t for k, t in enumerate(inputs)]


def look(region: Region, given: Sequence[Any], inputs: Sequence[Any], buffers: Sequence[Any]) -> dict[int, Origin]:
    """NanError if the results of a warm call hold a NaN that it made. Else where the NaNs come from that are in what it
    stored for its gradient, by output."""
    layouts = region.compile().layouts
    outputs = [
        None if b is None or layout is None else dispatch.tensor_on(b, b.ptr, layout)
        for b, layout in zip(buffers, layouts, strict=True)
    ]
    for alias in region.graph.aliases:
        outputs[alias.output] = inputs[alias.input]
    bad = [k for k, t in enumerate(outputs) if t is not None and holds(t)]
    if not bad:
        return {}
    graph = region.graph if region.plan is None else region.plan.forward
    origins = _origins(graph, given, {})
    _raise(region, given, inputs, [origins[k] for k in bad if k < len(region.graph.outputs)])
    return {k: origin for k in bad if (origin := origins[k]) is not None and origin.operation is not None}


def look_at_capture(region: Region, capture: Capture, returned: Any) -> None:
    """NanError if what a captured call returned or wrote holds a NaN that it made."""
    assert capture.before is not None
    inputs = [t for _, t in capture.inputs]
    written = [inputs[k] for k in region.written]
    found = [t for t in flatten(returned)[0] if isinstance(t, TensorBase)]
    grads = [slot.final for slot in capture.grads.values() if slot.written and slot.final is not None]
    if any(map(holds, [*found, *written, *grads])):
        given = [capture.before.get(id(t), t) for t in inputs]
        _raise(region, given, inputs, _origins(region.graph, given, {}))


def _raise(region: Region, given: Sequence[Any], inputs: Sequence[Any], origins: Sequence[Origin | None]) -> None:
    """`_demand_none`; what the call wrote to is as before, then."""
    try:
        _demand_none(origins, _MADE, _FIX)
    except NanError:
        for k in region.written:
            dispatch.write(inputs[k], OPS["copy"], (given[k],), {})
        raise


def look_back(graph: Graph, operands: Sequence[Any], known: Mapping[int, Origin], found: Sequence[Any]) -> None:
    """NanError if gradients that a program found hold a NaN that it made, or that comes from what the call stored
    (`known`, by operand)."""
    if any(map(holds, found)):
        origins = _origins(graph, operands, known)
        _demand_none(
            [origin for origin in origins if origin in known.values()],
            "it gave a NaN that the call's results do not hold, but their gradient does",
            "choose its operands with kiln.where, not only its result",
        )
        _demand_none(origins, "it gave the first NaN of a gradient, in the derivative of this line", _FIX)
