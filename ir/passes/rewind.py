"""The gradient of a `while_loop`: its turns are done again, from the last to the first.

How many turns there will be is not known beforehand, so there is no memory for the states of all of them. They are
counted in the forward part. Backward cuts them into segments of `SEGMENT` turns and keeps the states before a few
segments, in `SLOTS` places; the last segment that is not yet done is reached from the nearest state kept, and its turns
are then walked back with their states at hand. While there is a place for every segment in between, each is kept; else
the way is halved. So up to SLOTS * SEGMENT turns are done twice, and n turns about (1/2) n log2(n) times.

Griewank (1992), Achieving logarithmic growth of temporal and spatial complexity in reverse automatic differentiation,
Optimization Methods and Software 1, has the principle; the schedule here is a plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kiln.ir.graph import AttrValue, Graph, GraphBuilder, Value
from kiln.ir.ops.base import OPS, Call
from kiln.ir.ops.control import nested, stacked_type
from kiln.ir.passes.autodiff import differentiate
from kiln.ir.passes.flow import (
    after,
    constant,
    contributing,
    full,
    inexact,
    inline,
    inputs,
    nothing,
    types_of,
)
from kiln.ir.types import TensorType, int64

BITS: Final = 5
SEGMENT: Final = 1 << BITS
"""Turns whose states are all kept while their gradients are taken."""
SLOTS: Final = 32
"""States that are kept before segments."""

_COUNT: Final = TensorType(int64, ())


def while_loop(call: Call, *grads: Any) -> list[Any]:
    """The gradients of a loop."""
    body = nested(call.attrs, "body")
    count = len(body.outputs)
    moved = inexact(body.outputs)
    fixed = contributing(body, moved, [k for k in range(count, len(call.operands)) if call.needs[k]])
    if not moved:
        return [None] * len(call.operands)
    receiver = next(g for g in grads if g is not None)
    given = [grads[k] if grads[k] is not None else nothing(body.outputs[k].type, receiver) for k in moved]
    so_far = [(k, call.running[k]) for k in fixed]
    totals = [nothing(call.operands[k].ttype, receiver) if r is None else r for k, r in so_far]
    state, still = list(call.operands[:count]), list(call.operands[count:])
    turns = _turns(call.attrs, state, still)
    made = _Rewind(body, moved, fixed).run(state, still, turns, [*given, *totals])
    found = dict(zip([*moved, *fixed], made, strict=True))
    for k in moved:
        found[k] = after(call.running[k], found[k])
    return [found.get(k) if need else None for k, need in enumerate(call.needs)]


def _turns(attrs: Any, state: Sequence[Any], still: Sequence[Any]) -> Any:
    """How often the loop turns: the loop once more, with a counter behind what it carries."""
    count = len(state)

    def counting(graph: Graph, more: Callable[[GraphBuilder, Value], list[Value]]) -> Graph:
        builder = GraphBuilder(graph.name)
        carried = inputs(builder, types_of(graph.inputs[:count]))
        turn = builder.input(_COUNT, "turn")
        constants = inputs(builder, types_of(graph.inputs[count:]))
        return builder.build([*inline(builder, graph, [*carried, *constants]), *more(builder, turn)])

    counted: dict[str, AttrValue] = {
        "test": counting(nested(attrs, "test"), lambda b, turn: []),
        "body": counting(nested(attrs, "body"), lambda b, turn: [_Maker(b)("add", turn, 1)]),
    }
    return OPS["while_loop"].bind([*state, full(_COUNT, 0, state[0]), *still], counted)[-1]


class _Maker:
    """Ops by name on values of a builder; a number is one of the type of the value before it."""

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder

    def __call__(self, op: str, *operands: Value | int, **attrs: AttrValue) -> Value:
        (made,) = self.builder.add(OPS[op], [self.value(x) for x in operands], attrs)
        return made

    def value(self, x: Value | int) -> Value:
        return constant(self.builder, _COUNT, x) if isinstance(x, int) else x


def _row(t: TensorType) -> dict[str, AttrValue]:
    """The attributes of `gather` and `scatter` for a row of a stack of values of type `t`."""
    return {"at": (), "place": (-1, *range(t.rank)), "wrap": False}


class _Rewind:
    """The graphs of the backward part, for one loop. What is carried there is: the segments left, the turns of the last
    of them, the slot in use; the segments before which states were kept; these states; the gradients of what moved;
    the sums of what stood still."""

    def __init__(self, body: Graph, moved: Sequence[int], fixed: Sequence[int]) -> None:
        self.body = body
        self.states = types_of(body.outputs)
        self.constants = types_of(body.inputs[len(self.states) :])
        self.sums = [body.inputs[k].type for k in (*moved, *fixed)]
        running = [False] * len(moved) + [True] * len(fixed)
        seeds = [body.outputs[k] for k in moved]
        wanted = [*moved, *fixed]
        self.joint = differentiate(body, seeds, [True] * len(seeds), wanted, running, set(body.operations))

    def run(self, state: Sequence[Any], still: Sequence[Any], turns: Any, sums: Sequence[Any]) -> tuple[Any, ...]:
        def number(value: int) -> Any:
            return full(_COUNT, value, turns)

        segments = OPS["shift_right"](OPS["add"](turns, number(SEGMENT - 1)), number(BITS))
        before = OPS["shift_left"](OPS["sub"](segments, number(1)), number(BITS))
        rest = OPS["sub"](turns, before)
        kept = [self._stacked(x) for x in state]
        places = full(TensorType(int64, (SLOTS,)), 0, turns)
        carried = [segments, rest, number(0), places, *kept, *sums]
        attrs: dict[str, AttrValue] = {
            "test": self._test([*types_of(carried), *types_of(still)]),
            "body": self._body(types_of(carried), len(kept)),
        }
        return tuple(OPS["while_loop"].bind([*carried, *still], attrs)[4 + len(kept) :])

    def _stacked(self, x: Any) -> Any:
        """A stack, all of whose rows are `x` at first."""
        return OPS["broadcast"](x, **_rows(x.ttype))

    def _test(self, types: Sequence[TensorType]) -> Graph:
        builder = GraphBuilder("left")
        left = inputs(builder, types)[0]
        return builder.build([_Maker(builder)("gt", left, 0)])

    def _body(self, types: Sequence[TensorType], kept: int) -> Graph:
        """Go to the next segment to be kept or done, and keep its state, or do it."""
        builder = GraphBuilder("rewind")
        segments, rest, top, places, *others = inputs(builder, types)
        stacks, sums = others[:kept], others[kept:]
        still = inputs(builder, self.constants)
        m = _Maker(builder)
        at = m("gather", places, top, **_row(_COUNT))
        state = [m("gather", x, top, **_row(t)) for x, t in zip(stacks, self.states, strict=True)]
        last = m("sub", segments, 1)
        gap, free = m("sub", last, at), m("sub", SLOTS - 1, top)
        one = m("add", at, m("minimum", gap, 1))
        half = m("add", at, m("shift_right", gap, 1))
        goal = m("where", m("le", gap, free), one, m("where", m("gt", free, 0), half, last))
        state = self._advanced(builder, state, m("shift_left", m("sub", goal, at), BITS), still)
        operands = [m("lt", goal, last), goal, at, segments, rest, top, places, *stacks, *sums, *state, *still]
        inner = types_of(operands[1:])
        branches: dict[str, AttrValue] = {"then": self._keep(inner, kept), "else": self._done(inner, kept)}
        return builder.build(builder.add(OPS["cond"], operands, branches))

    def _advanced(
        self, builder: GraphBuilder, state: Sequence[Value], turns: Value, still: Sequence[Value]
    ) -> list[Value]:
        """The state so many turns later."""
        test, body = GraphBuilder("ahead"), GraphBuilder(self.body.name)
        types = [*self.states, _COUNT, *self.constants]
        left = inputs(test, types)[len(self.states)]
        values = inputs(body, types)
        now, turn, constants = values[: len(state)], values[len(state)], values[len(state) + 1 :]
        attrs: dict[str, AttrValue] = {
            "test": test.build([_Maker(test)("gt", left, 0)]),
            "body": body.build([*inline(body, self.body, [*now, *constants]), _Maker(body)("sub", turn, 1)]),
        }
        return list(builder.add(OPS["while_loop"], [*state, turns, *still], attrs)[:-1])

    def _entered(self, builder: GraphBuilder, types: Sequence[TensorType], kept: int) -> tuple[list[Value], ...]:
        values = inputs(builder, types)
        sizes = [6, kept, len(self.sums), len(self.states), len(self.constants)]
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        return tuple(values[end - size : end] for size, end in zip(sizes, ends, strict=True))

    def _keep(self, types: Sequence[TensorType], kept: int) -> Graph:
        """Keep a state in the next slot."""
        builder = GraphBuilder("keep")
        (goal, _, segments, rest, top, places), stacks, sums, state, _ = self._entered(builder, types, kept)
        m = _Maker(builder)
        slot = m("add", top, 1)
        places = m("scatter", places, goal, slot, **_row(_COUNT))
        rows = zip(stacks, state, self.states, strict=True)
        stacks = [m("scatter", x, new, slot, **_row(t)) for x, new, t in rows]
        return builder.build([segments, rest, slot, places, *stacks, *sums])

    def _done(self, types: Sequence[TensorType], kept: int) -> Graph:
        """The gradients of a segment, from the state before it."""
        builder = GraphBuilder("segment")
        (goal, at, segments, rest, top, places), stacks, sums, state, still = self._entered(builder, types, kept)
        m = _Maker(builder)
        turns = m("iota", dtype=int64, shape=(SEGMENT,), dim=0)
        forward: dict[str, AttrValue] = {"body": self._recorded(), "carried": len(state), "xs": 1, "length": SEGMENT}
        made = builder.add(OPS["scan"], [*state, turns, rest, *still], forward | {"reverse": False})
        states = made[len(state) :]
        backward: dict[str, AttrValue] = {"body": self._reversed(), "carried": len(sums), "xs": 1 + len(states)}
        operands = [*sums, turns, *states, rest, *still]
        sums = list(builder.add(OPS["scan"], operands, backward | {"length": SEGMENT, "reverse": True}))
        # A state that was kept before this very segment is not needed any more; the first one stays.
        top = m("where", m("eq", goal, at), m("maximum", m("sub", top, 1), 0), top)
        return builder.build([m("sub", segments, 1), m.value(SEGMENT), top, places, *stacks, *sums])

    def _recorded(self) -> Graph:
        """A turn, if it is one of the segment's; and the state before it."""
        builder = GraphBuilder("turn")
        values = inputs(builder, [*self.states, _COUNT, _COUNT, *self.constants])
        state, (turn, rest), still = (
            values[: len(self.states)],
            values[len(self.states) :][:2],
            values[len(self.states) + 2 :],
        )
        there = _Maker(builder)("lt", turn, rest)
        branches = {"then": self.body, "else": _same(types_of([*state, *still]), range(len(state)))}
        return builder.build([*builder.add(OPS["cond"], [there, *state, *still], branches), *state])

    def _reversed(self) -> Graph:
        """The gradients of a turn, if it is one of the segment's."""
        builder = GraphBuilder("back")
        first = len(self.sums)
        values = inputs(builder, [*self.sums, _COUNT, *self.states, _COUNT, *self.constants])
        sums, turn, state = values[:first], values[first], values[first + 1 :][: len(self.states)]
        rest, still = values[first + 1 + len(state)], values[first + 2 + len(state) :]
        there = _Maker(builder)("lt", turn, rest)
        operands = [*state, *still, *sums]
        branches = {
            "then": self._gradients(),
            "else": _same(types_of(operands), range(len(operands) - first, len(operands))),
        }
        return builder.build(builder.add(OPS["cond"], [there, *operands], branches))

    def _gradients(self) -> Graph:
        """Those of one turn, of its state, what stands still, the gradients after it and the sums."""
        builder = GraphBuilder(self.joint.graph.name)
        made = inline(builder, self.joint.graph, inputs(builder, [v.type for v in self.joint.graph.inputs]))
        found = zip(self.joint.found, self.sums, strict=True)
        return builder.build([constant(builder, t, -0.0) if k is None else made[k] for k, t in found])


def _rows(t: TensorType) -> dict[str, AttrValue]:
    """The attributes of `broadcast` that stack a value."""
    return {"dims": tuple(range(1, t.rank + 1)), "shape": stacked_type(t, SLOTS).shape}


def _same(types: Sequence[TensorType], kept: Sequence[int]) -> Graph:
    """The graph that gives some of its inputs."""
    builder = GraphBuilder("same")
    values = inputs(builder, types)
    return builder.build([values[k] for k in kept])
