"""Derivatives of control flow, as control flow.

The gradient of a `cond` is a cond of its branches' gradients; that of a `scan` is a scan the other way round. What the
gradient of a nested graph needs of its forward part (`partition.py` chooses, as for whole programs) comes from the
operation applied once more, with these values as further results: `merge` then makes one of the two. A `while_loop`
has no memory for all turns: it keeps a few states, and does the turns between them again (`rewind.py`).

Uses are added up in eager's order: of operands that stand still turn by turn, onto what they have gathered before
(the trait "folds"); what moves passes a border (`frontend/control_nodes.py`), so that its gradient is one use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kiln.ir.graph import AttrValue, Graph, GraphBuilder, Value
from kiln.ir.ops.base import OPS, Call
from kiln.ir.ops.control import nested, number
from kiln.ir.passes.autodiff import differentiate
from kiln.ir.passes.mincut import choose
from kiln.ir.passes.partition import AtHand, Early, split
from kiln.ir.types import CPU, TensorType


def full_attrs(t: TensorType, value: float) -> dict[str, AttrValue]:
    """The attributes of a `full` of type `t`."""
    kinds: dict[str, AttrValue] = {"bool": bool(value), "float": value, "complex": complex(value, value)}
    return {"shape": t.shape, "dtype": t.dtype, "value": kinds.get(t.dtype.kind, int(value))}


def full(t: TensorType, value: float, receiver: Any) -> Any:
    """`value` everywhere, made where `receiver` is."""
    (made,) = OPS["full"].bind((), full_attrs(t, value), receiver=receiver)
    return made


def nothing(t: TensorType, receiver: Any) -> Any:
    """The gradient of what has none: negative zeros, which change nothing they are added to."""
    return full(t, -0.0, receiver)


def inexact(values: Sequence[Value]) -> list[int]:
    """The positions of values that have gradients."""
    return [k for k, v in enumerate(values) if v.type.dtype.is_inexact]


def inline(builder: GraphBuilder, graph: Graph, operands: Sequence[Value]) -> list[Value]:
    """The outputs of `graph`, appended to `builder`, of these operands."""
    mapped = dict(zip(graph.inputs, operands, strict=True))
    for op in graph.operations:
        mapped.update(zip(op.results, builder.clone(op, [mapped[v] for v in op.operands]), strict=True))
    return [mapped[v] for v in graph.outputs]


def constant(builder: GraphBuilder, t: TensorType, value: float) -> Value:
    """`value` everywhere, in a graph that is being built."""
    (made,) = builder.add(OPS["full"], [], full_attrs(t, value))
    return made


def inputs(builder: GraphBuilder, types: Sequence[TensorType], hint: str = "") -> list[Value]:
    """Inputs of a graph for operands of these types, wherever those are."""
    return [builder.input(t.on(CPU), hint) for t in types]


def types_of(values: Sequence[Any]) -> list[TensorType]:
    return [v.ttype for v in values]


def after(running: Any, g: Any) -> Any:
    """One use more."""
    return g if running is None else OPS["add"](running, g)


# ------------------------------------------------------------------------------------------- pieces


@dataclass(frozen=True)
class Pieces:
    """The two parts of a nested graph. `forward` gives what the graph gives, then what is stored. `backward` takes
    `operands` ((True, an input of forward) or (False, an output of it)), the gradients of the seeds, and the running
    gradients; `found` says which of its outputs the gradient of a wanted input is (None: there is none)."""

    forward: Graph
    backward: Graph
    operands: tuple[tuple[bool, int], ...]
    found: tuple[int | None, ...]
    wanted: tuple[TensorType, ...]
    count: int  # of the outputs of the graph itself

    def stored(self) -> list[TensorType]:
        """The types of what is stored."""
        return [v.type for v in self.forward.outputs[self.count :]]

    def read(self) -> list[int]:
        """The inputs of forward that backward reads."""
        return [k for is_input, k in self.operands if is_input]

    def gradients(
        self, builder: GraphBuilder, known: Mapping[int, Value], stored: Sequence[Value], grads: Sequence[Value]
    ) -> list[Value]:
        """The gradients of all wanted inputs: `known` inputs of forward, what it stored, then the gradients of the
        seeds and the running ones."""
        operands = [known[k] if is_input else stored[k - self.count] for is_input, k in self.operands]
        made = inline(builder, self.backward, [*operands, *grads])
        return [
            constant(builder, t, -0.0) if k is None else made[k] for k, t in zip(self.found, self.wanted, strict=True)
        ]


def contributing(graph: Graph, seeds: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Those of `wanted` that gradients of the outputs `seeds` flow to."""
    outputs = [graph.outputs[k] for k in seeds]
    taped = set(graph.operations)
    joint = differentiate(graph, outputs, [True] * len(outputs), wanted, [False] * len(wanted), taped)
    return [k for k, found in zip(wanted, joint.found, strict=True) if found is not None]


def pieces(
    graph: Graph, seeds: Sequence[int], wanted: Sequence[int], running: Sequence[bool], at_hand: Sequence[int]
) -> Pieces:
    """Differentiate a nested graph. `seeds` are the outputs that get gradients, which are folded in this order;
    `at_hand` the inputs that backward can have for nothing."""
    outputs = [graph.outputs[k] for k in seeds]
    joint = differentiate(graph, outputs, [True] * len(outputs), wanted, running, set(graph.operations))
    known = frozenset(at_hand)
    places = AtHand(known, known, frozenset())
    numbering: dict[object, int] = {}
    early = Early(joint, numbering)
    cut = split(early, numbering, choose(early, places), places)
    types = tuple(graph.inputs[k].type for k in wanted)
    return Pieces(cut.forward, cut.backward, cut.operands, cut.found, types, len(graph.outputs))


# --------------------------------------------------------------------------------------------- cond


def cond(call: Call, *grads: Any) -> list[Any]:
    """The gradients of a branch, in that branch."""
    graphs = [nested(call.attrs, key) for key in _SIDES]
    pred, *operands = call.operands
    receiver = next(g for g in grads if g is not None)
    seeds = inexact(graphs[0].outputs)
    needed = [k for k in range(len(operands)) if call.needs[k + 1]]
    flows = {k for graph in graphs for k in contributing(graph, seeds, needed)}
    wanted = [k for k in needed if k in flows]
    if not wanted:
        return [None] * len(call.operands)
    sides = [pieces(graph, seeds, wanted, [True] * len(wanted), range(len(operands))) for graph in graphs]
    stored = [side.stored() for side in sides]
    saved: Sequence[Any] = ()
    if any(stored):
        forward = [_side_forward(n, side, stored) for n, side in enumerate(sides)]
        saved = OPS["cond"].bind([pred, *operands], _sides(forward))[len(grads) :]
    types = [v.type for v in graphs[0].outputs]
    given = [nothing(types[k], receiver) if grads[k] is None else grads[k] for k in seeds]
    so_far = [call.running[k + 1] for k in wanted]
    totals = [nothing(operands[k].ttype, receiver) if r is None else r for k, r in zip(wanted, so_far, strict=True)]
    parts = [operands, saved, [*given, *totals]]
    backward = [_side_backward(n, side, stored, [types_of(p) for p in parts]) for n, side in enumerate(sides)]
    made = OPS["cond"].bind([pred, *operands, *saved, *given, *totals], _sides(backward))
    found = dict(zip(wanted, made, strict=True))
    return [None, *(found.get(k) for k in range(len(operands)))]


_SIDES: Final = ("then", "else")


def _sides(graphs: Sequence[Graph]) -> dict[str, AttrValue]:
    return dict(zip(_SIDES, graphs, strict=True))


def _side_forward(n: int, side: Pieces, stored: Sequence[Sequence[TensorType]]) -> Graph:
    """One branch with what both store; of the other one: zeros."""
    builder = GraphBuilder(side.forward.name)
    made = inline(builder, side.forward, inputs(builder, [v.type for v in side.forward.inputs]))
    kept: list[Value] = []
    for m, types in enumerate(stored):
        kept += made[side.count :] if m == n else [constant(builder, t, 0.0) for t in types]
    return builder.build([*made[: side.count], *kept])


def _side_backward(
    n: int, side: Pieces, stored: Sequence[Sequence[TensorType]], types: Sequence[Sequence[TensorType]]
) -> Graph:
    builder = GraphBuilder(side.backward.name)
    operands, saved, grads = (inputs(builder, each) for each in types)
    first = len(stored[0]) if n else 0
    own = saved[first : first + len(stored[n])]
    return builder.build(side.gradients(builder, dict(enumerate(operands)), own, grads))


# --------------------------------------------------------------------------------------------- scan


def scan(call: Call, *grads: Any) -> list[Any]:
    """A scan the other way round, which carries the gradients of what was carried and of what stood still."""
    body, length = nested(call.attrs, "body"), number(call.attrs, "length")
    count, after_xs = number(call.attrs, "carried"), number(call.attrs, "carried") + number(call.attrs, "xs")
    receiver = next(g for g in grads if g is not None)
    moved = inexact(body.outputs[:count])
    ys = [k for k in inexact(body.outputs) if k >= count and grads[k] is not None]
    seeds = [*ys, *moved]
    flows = contributing(body, seeds, [k for k in range(count, len(call.operands)) if call.needs[k]])
    sliced, fixed = [k for k in flows if k < after_xs], [k for k in flows if k >= after_xs]
    wanted = [*moved, *sliced, *fixed]
    if not wanted:
        return [None] * len(call.operands)
    running = [k in fixed for k in wanted]
    part = pieces(body, seeds, wanted, running, range(count, len(call.operands)))
    saved: Sequence[Any] = ()
    if part.stored():
        saved = OPS["scan"].bind(call.operands, {**call.attrs, "body": part.forward})[len(grads) :]
    read = part.read()
    xs, constants = [k for k in read if k < after_xs], [k for k in read if k >= after_xs]
    given = [grads[k] if grads[k] is not None else nothing(body.outputs[k].type, receiver) for k in moved]
    so_far = [call.running[k] for k in fixed]
    totals = [nothing(call.operands[k].ttype, receiver) if r is None else r for k, r in zip(fixed, so_far, strict=True)]
    walked = [*saved, *(call.operands[k] for k in xs), *(grads[k] for k in ys)]
    still = [call.operands[k] for k in constants]
    turn = GraphBuilder(body.name)
    gradients, sums = inputs(turn, types_of(given)), inputs(turn, types_of(totals))
    stored = inputs(turn, part.stored())
    known = dict(zip(xs, inputs(turn, [body.inputs[k].type for k in xs]), strict=True))
    from_ys = inputs(turn, [body.outputs[k].type for k in ys])
    known.update(zip(constants, inputs(turn, types_of(still)), strict=True))
    made = part.gradients(turn, known, stored, [*from_ys, *gradients, *sums])
    first, last = len(moved), len(moved) + len(sliced)
    attrs: dict[str, AttrValue] = {
        "body": turn.build([*made[:first], *made[last:], *made[first:last]]),
        "carried": len(given) + len(totals),
        "xs": len(walked),
        "length": length,
        "reverse": not call.attrs["reverse"],
    }
    results = OPS["scan"].bind([*given, *totals, *walked, *still], attrs)
    before = dict(zip([*moved, *fixed, *sliced], results, strict=True))
    for k in (*moved, *sliced):
        before[k] = after(call.running[k], before[k])
    return [before.get(k) if need else None for k, need in enumerate(call.needs)]
