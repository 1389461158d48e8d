"""Steps that a library carries out: no code of their own, but a place in the order and memory from the plan."""

from __future__ import annotations

from collections.abc import Sequence

from kiln.codegen.domain import definition
from kiln.codegen.layout import Layout, place, row_major
from kiln.codegen.plan import Plan, Pointer, Step, pointer
from kiln.ir.graph import Operation, Value
from kiln.ir.ops.base import Library
from kiln.ir.printer import attribute
from kiln.ir.program import CheckSite, LibraryCall, Place, Slot


def is_library_step(step: Step) -> bool:
    return step.site is not None


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


def library_call(step: Step, plan: Plan, slots: Sequence[Slot]) -> LibraryCall:
    """What the runtime is told of a step."""
    op = step.operation
    positions = {(slot.kind, slot.index): k for k, slot in enumerate(slots)}

    def found(v: Value, argument: object, strides: tuple[int, ...]) -> Place:
        assert isinstance(argument, Pointer)
        if argument.root in plan.arena:
            return Place(positions["arena", 0], plan.arena[argument.root] + argument.nbytes, v.type, strides)
        return Place(positions[plan.targets[argument.root]], argument.nbytes, v.type, strides)

    values = (*op.operands, *op.results)
    strides = (*step.strides, *(_static(Layout(r, 0, row_major(r.type.shape))) for r in op.results))
    places = tuple(map(found, values, step.args, strides))
    count = len(op.operands)
    assert step.site is not None
    return LibraryCall(op.op.name, tuple(op.attrs.items()), places[:count], places[count:], step.site)
