"""What the host does between launches: calls of libraries, branches and loops, and looks at the error record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kiln.codegen.control import Flow, nbytes
from kiln.codegen.plan import Argument, Plan, Pointer, Step
from kiln.ir.gpu_program import (
    Array,
    Branch,
    Carried,
    CudaStep,
    HostCall,
    Launch,
    Look,
    Loop,
    Memory,
    Product,
    Sliced,
    every,
)
from kiln.ir.types import TensorType, contiguous_strides


def memory(a: Argument, plan: Plan) -> Memory:
    """Where a pointer argument points to."""
    assert isinstance(a, Pointer)
    root, offset = plan.locate(a)
    if root in plan.arena:
        return Memory("arena", 0, plan.arena[root] + offset)
    kind, index = plan.targets[root]
    return Memory(kind, index, offset)


def host_call(step: Step, plan: Plan) -> HostCall:
    """The step of an op that a library carries out."""
    op = step.operation
    assert step.site is not None

    def array(a: Argument, t: TensorType, strides: tuple[int, ...] | None) -> Array:
        return Array(memory(a, plan), t, contiguous_strides(t.static_shape()) if strides is None else strides)

    count = len(op.operands)
    places = [*step.strides, *([None] * len(op.results))]
    values = zip(step.args, (*op.operands, *op.results), places, strict=True)
    arrays = tuple(array(a, v.type, strides) for a, v, strides in values)
    return HostCall(op.op.name, tuple(op.attrs.items()), arrays[:count], arrays[count:], step.site)


def flow(step: Flow, plan: Plan, inner: Sequence[tuple[CudaStep, ...]]) -> Branch | Loop:
    """A branch or a loop; `inner`: what it does inside."""
    op = step.operation
    if op.op.name == "cond":
        return Branch(memory(step.source[0], plan), *inner)
    moving, count = plan.moving[op], step.carried
    after = len(moving) - len(step.inner[-1].graph.outputs)  # the first one that is written through
    carried = tuple(
        Carried(
            moving[k],
            moving[after + k],
            memory(step.source[k], plan),
            memory(Pointer(r), plan),
            memory(Pointer(step.spare[k]), plan),
            nbytes(r),
        )
        for k, r in enumerate(op.results[:count])
    )
    pointers = [*moving[count:after], *moving[after + count :]]
    whole = [*step.source[count:after], *map(Pointer, op.results[count:])]
    sliced = tuple(Sliced(n, memory(p, plan), pace) for n, p, pace in zip(pointers, whole, step.pace, strict=True))
    if op.op.name == "scan":
        return Loop((), None, inner[0], carried, sliced, step.length, bool(op.attrs["reverse"]))
    (pred,) = step.inner[0].graph.outputs
    return Loop(inner[0], memory(Pointer(pred), plan), inner[1], carried, (), 0, False)


# ------------------------------------------------------------------------------------------ checks


def with_looks(steps: Sequence[CudaStep], aliases: Sequence[tuple[int, int]]) -> tuple[CudaStep, ...]:
    """The steps, with a look at the error record wherever a check may have failed that nobody has looked for: before
    what overwrites an input, before the host uses data, and at the end."""
    kept = {Memory("output", o) for o, _ in aliases}  # on the memory of inputs, which steps read by their own names

    def overwrites(step: CudaStep) -> bool:
        args = step.args if isinstance(step, Launch) else (step.result,) if isinstance(step, Product) else ()
        return any(isinstance(a, Memory) and replace(a, offset=0) in kept for a in args)

    def run(steps: Sequence[CudaStep], open: bool) -> tuple[list[CudaStep], bool]:
        """`open`: whether a check before may have failed; the same of after."""
        out: list[CudaStep] = []
        for step in steps:
            reads = isinstance(step, HostCall | Branch) or (isinstance(step, Loop) and step.pred is not None)
            if open and (reads or overwrites(step)):
                out.append(Look())
                open = False
            if isinstance(step, Branch):
                (then, a), (other, b) = run(step.then, open), run(step.other, open)
                step, open = replace(step, then=tuple(then), other=tuple(other)), a or b
            elif isinstance(step, Loop):
                step, open = loop(step, open)
            elif isinstance(step, Launch):
                open = open or step.error
            out.append(step)
        return out, open

    def loop(step: Loop, open: bool) -> tuple[Loop, bool]:
        open = open or any(isinstance(s, Launch) and s.error for s in every(step.body))  # in the turn before
        test, open = run(step.test, open)
        if open and step.pred is not None:
            test.append(Look())
            open = False
        body, after = run(step.body, open)
        return replace(step, test=tuple(test), body=tuple(body)), open or (step.pred is None and after)

    out, open = run(steps, False)
    return (*out, Look()) if open else tuple(out)
