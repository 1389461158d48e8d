"""Steps that a library carries out: no code of their own, but a place in the order and memory from the plan. And the
branches and loops around them, which are then no native code either."""

from __future__ import annotations

from collections.abc import Sequence

from kiln.codegen.control import Flow
from kiln.codegen.domain import definition
from kiln.codegen.layout import Layout, place
from kiln.codegen.plan import Plan, Pointer, Step, pointer
from kiln.ir.graph import Operation, Value
from kiln.ir.ops.base import Library
from kiln.ir.ops.control import TRUTH
from kiln.ir.printer import attribute
from kiln.ir.program import BranchCall, CarriedPlace, CheckSite, Entry, LibraryCall, LoopCall, Place, SlicedPlace, Slot
from kiln.ir.types import TensorType, contiguous_strides


def library_step(op: Operation, layouts: dict[Value, Layout | None], sites: list[CheckSite]) -> Step:
    """The step of an op that a library carries out, on operands of any strides."""
    assert isinstance(definition(op).lower, Library)
    for v in (*op.operands, *op.results):
        v.type.static_shape()  # library calls know their sizes
    attrs = ", ".join(f"{k}={attribute(value)}" for k, value in op.attrs.items())
    name = f"library {op.op.name}" + (f" {{{attrs}}} " if attrs else "")
    sites.append(CheckSite("linalg", op.op.name, "", op.loc))
    places = [place(v, layouts) for v in op.operands]
    arguments = (*(pointer(v, layouts[v]) for v in op.operands), *map(Pointer, op.results))
    strides = tuple(_static(p) for p in places)
    return Step(op, name, (), arguments, site=len(sites) - 1, strides=strides)


def _static(layout: Layout) -> tuple[int, ...]:
    found = tuple(s for s in layout.strides if isinstance(s, int))
    assert len(found) == len(layout.strides), "library calls know their strides"
    return found


class _Finder:
    """Where values are in terms of slots."""

    def __init__(self, plan: Plan, slots: Sequence[Slot]) -> None:
        self.plan = plan
        self.positions = {(slot.kind, slot.index): k for k, slot in enumerate(slots)}

    def place(self, type: TensorType, argument: object, strides: tuple[int, ...] | None = None) -> Place:
        """Of a value of `type` at a pointer; row-major unless told."""
        assert isinstance(argument, Pointer)
        root, offset = self.plan.locate(argument)
        strides = contiguous_strides(type.static_shape()) if strides is None else strides
        if root in self.plan.arena:
            return Place(self.positions["arena", 0], self.plan.arena[root] + offset, type, strides)
        return Place(self.positions[self.plan.targets[root]], offset, type, strides)


def library_call(step: Step, plan: Plan, slots: Sequence[Slot]) -> LibraryCall:
    """What the runtime is told of a step."""
    op, finder = step.operation, _Finder(plan, slots)
    strides = (*step.strides, *([None] * len(op.results)))
    values = zip((*op.operands, *op.results), step.args, strides, strict=True)
    places = tuple(finder.place(v.type, argument, s) for v, argument, s in values)
    count = len(op.operands)
    assert step.site is not None
    return LibraryCall(op.op.name, tuple(op.attrs.items()), places[:count], places[count:], step.site)


def flow_entry(flow: Flow, plan: Plan, slots: Sequence[Slot], inner: Sequence[tuple[Entry, ...]]) -> Entry:
    """What the runtime is told of a branch or a loop that holds library calls; `inner`: what it does inside."""
    op, finder = flow.operation, _Finder(plan, slots)
    if op.op.name == "cond":
        return BranchCall(finder.place(TRUTH, flow.source[0]), *inner)
    moving = [finder.positions["pointer", n] for n in plan.moving[op]]
    count = flow.carried
    after = len(moving) - len(flow.inner[-1].graph.outputs)  # the first one that is written through
    carried = tuple(
        CarriedPlace(
            moving[k],
            moving[after + k],
            finder.place(r.type, flow.source[k]),
            finder.place(r.type, Pointer(r)),
            finder.place(r.type, Pointer(flow.spare[k])),
        )
        for k, r in enumerate(op.results[:count])
    )
    pointers = [*moving[count:after], *moving[after + count :]]
    whole = [*flow.source[count:after], *map(Pointer, op.results[count:])]
    starts = [finder.place(_nothing(p.root.type), p) for p in whole]
    sliced = tuple(map(SlicedPlace, pointers, starts, flow.pace))
    if op.op.name == "scan":
        return LoopCall((), None, inner[0], carried, sliced, flow.length, bool(op.attrs["reverse"]))
    (pred,) = flow.inner[0].graph.outputs
    return LoopCall(inner[0], finder.place(TRUTH, Pointer(pred)), inner[1], carried, (), 0, False)


def _nothing(t: TensorType) -> TensorType:
    """No elements: of what is looked at by its address alone."""
    return TensorType(t.dtype, (0,))
