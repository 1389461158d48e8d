"""Branches and loops as steps that hold steps.

The graphs inside go through the same passes, fusion and lowering as the outer one, once, however often a loop turns.
Their operands are no copies: an input of a nested graph *is* the memory of the operand, or a part of it. What a branch
gives is written straight to the operation's results. What a loop carries lies in turn in two places: a turn reads one
and writes the other, through *moving pointers*, which are also how a scan walks along slices. The first turn reads the
operands themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kiln.codegen.layout import Layout, assign
from kiln.codegen.plan import Plan, Pointer, Step, pointer
from kiln.ir.graph import Graph, Operation, Value, rebuild
from kiln.ir.ops import OPS
from kiln.ir.ops.control import nested, number, scan_parts
from kiln.ir.passes.inside import inner_changed
from kiln.ir.types import Dim, Sym, row_major

Strides = tuple[Dim, ...]
Layouts = dict[Value, Layout | None]


@dataclass(slots=True)
class Inner:
    """The steps of a nested graph."""

    graph: Graph
    steps: list[Step]


@dataclass(slots=True)
class Flow(Step):
    """A branch or a loop. `inner`: then and else; test and body; or the body of a scan."""

    inner: tuple[Inner, ...] = ()
    spare: tuple[Value, ...] = ()
    """The second places of what a loop carries; the results are the first ones."""
    source: tuple[Pointer, ...] = ()
    """Where the operands are, in their order."""
    pace: tuple[int, ...] = ()
    """Of a scan's xs, then of its ys: bytes from one slice to the next."""

    def parts(self) -> Sequence[tuple[str, Sequence[Step], Sequence[Value]]]:
        names = {"cond": ("then", "else"), "while_loop": ("test", "body"), "scan": ("body",)}[self.operation.op.name]
        return [(name, inner.steps, inner.graph.outputs) for name, inner in zip(names, self.inner, strict=True)]

    def extra(self) -> Sequence[Value]:
        return self.spare

    @property
    def carried(self) -> int:
        """How many values a loop carries."""
        return len(self.spare)

    @property
    def length(self) -> int:
        """The turns of a scan."""
        return number(self.operation.attrs, "length")


def is_host_step(step: Step) -> bool:
    """Whether a step is a library's, or holds one: then Python runs it."""
    return step.site is not None or any(is_host_step(s) for inner in inner_of(step) for s in inner.steps)


def inner_of(step: Step) -> tuple[Inner, ...]:
    """What a step holds."""
    return step.inner if isinstance(step, Flow) else ()


def every_step(steps: Sequence[Step]) -> Iterator[Step]:
    """All steps, those inside others after them."""
    for step in steps:
        yield step
        for inner in inner_of(step):
            yield from every_step(inner.steps)


# --------------------------------------------------------------------------------- before the steps


def inner_strides(op: Operation, layouts: Layouts) -> list[Strides | None]:
    """The strides of the inputs of an operation's graphs."""

    def found(v: Value) -> Strides | None:
        layout = layouts[v]
        return None if layout is None else layout.strides

    if op.op.name == "cond":
        return list(map(found, op.operands[1:]))
    if op.op.name == "while_loop":
        carried = len(op.results)
        return [*([None] * carried), *map(found, op.operands[carried:])]
    state, xs, constants = scan_parts(op.operands, op.attrs)
    sliced = [None if (s := found(x)) is None else s[1:] for x in xs]
    return [*([None] * len(state)), *sliced, *map(found, constants)]


def within(
    graph: Graph, strides: Sequence[Strides | None], change: Callable[[Graph, list[Strides | None]], Graph]
) -> Graph:
    """`graph` with `change` applied to the graphs that control flow in it holds."""
    layouts = assign(graph, strides)
    return inner_changed(graph, lambda op, key, inner: change(inner, inner_strides(op, layouts)))


def dense(graph: Graph, strides: Sequence[Strides | None]) -> Graph:
    """Row-major copies of what loops carry and what is not row-major: all turns run the same code."""
    layouts = assign(graph, strides)

    def loose(op: Operation) -> list[int]:
        count = {"while_loop": len(op.results), "scan": op.attrs.get("carried", 0)}.get(op.op.name, 0)
        assert isinstance(count, int)
        places = [(k, layouts[v]) for k, v in enumerate(op.operands[:count])]
        return [k for k, p in places if p is not None and p.strides != row_major(op.operands[k].type.shape)]

    if not any(map(loose, graph.operations)):
        return graph
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        for k in loose(op):
            (operands[k],) = builder.add(OPS["copy"], [operands[k]], {})
        mapped.update(zip(op.results, builder.clone(op, operands), strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)


# ------------------------------------------------------------------------------------------- steps


def flow_step(op: Operation, layouts: Layouts, make: Callable[[Graph, list[Strides | None]], list[Step]]) -> Flow:
    """The step of a branch or a loop; `make` gives the steps of a nested graph."""
    if op.op.name != "cond":
        for v in (*op.operands, *op.results):
            v.type.static_shape()  # loops know the sizes of what they move
    keys = {"cond": ("then", "else"), "while_loop": ("test", "body"), "scan": ("body",)}[op.op.name]
    strides = inner_strides(op, layouts)
    inner = tuple(Inner(g, make(g, strides)) for g in (nested(op.attrs, key) for key in keys))
    modules = {m.name: m for part in inner for s in part.steps for m in s.modules}
    source = tuple(pointer(v, layouts[v]) for v in op.operands)
    args = (*source, *map(Pointer, op.results))
    flow = Flow(op, op.op.name, tuple(modules.values()), args, inner=inner, source=source)
    if op.op.name != "cond":
        count = len(op.results) if op.op.name == "while_loop" else number(op.attrs, "carried")
        flow.spare = tuple(Value(r.type, None, k) for k, r in enumerate(op.results[:count]))
    if op.op.name == "scan":
        flow.pace = _pace(op, layouts)
    return flow


def _pace(op: Operation, layouts: Layouts) -> tuple[int, ...]:
    _, xs, _ = scan_parts(op.operands, op.attrs)
    found = []
    for v in (*xs, *op.results[number(op.attrs, "carried") :]):
        layout = layouts[v]
        step = row_major(v.type.shape)[0] if layout is None else layout.strides[0]
        assert isinstance(step, int)
        found.append(step * v.type.dtype.itemsize)
    return tuple(found)


def flow_work(flow: Flow, work: Callable[[Step], int]) -> int:
    """The estimated scalar operations of a branch or a scan; 0 for what can't be known."""
    parts = [sum(work(s) for s in inner.steps) for inner in flow.inner]
    unknown = any(s.operation.op.name == "while_loop" for s in every_step([flow]))
    if unknown:
        return 0
    return max(parts) if flow.operation.op.name == "cond" else flow.length * sum(parts)


def spins(steps: Sequence[Step]) -> bool:
    """Whether nobody knows how long the steps take."""
    return any(s.operation.op.name == "while_loop" for s in every_step(steps))


# ------------------------------------------------------------------------------------ where things are


def bind(flow: Flow, plan: Plan) -> None:
    """Say what the inputs and outputs of the nested graphs are, here and further inside."""
    op = flow.operation
    if op.op.name == "cond":
        for inner in flow.inner:
            plan.bound.update(zip(inner.graph.inputs, flow.source[1:], strict=True))
            plan.bound.update({v: Pointer(r) for v, r in zip(inner.graph.outputs, op.results, strict=True)})
    else:
        _bind_loop(flow, plan)
    for inner in flow.inner:
        for step in inner.steps:
            if isinstance(step, Flow):
                bind(step, plan)


def _bind_loop(flow: Flow, plan: Plan) -> None:
    """Moving pointers: what is read and what is written of each carried value; slices; the rest stands still."""
    count, sliced = flow.carried, number(flow.operation.attrs, "xs") if flow.operation.op.name == "scan" else 0
    body = flow.inner[-1].graph

    def moving() -> tuple[str, int]:
        plan.pointers += 1
        return ("pointer", plan.pointers - 1)

    read = [moving() for _ in range(count + sliced)]
    written = [moving() for _ in body.outputs]
    plan.moving[flow.operation] = tuple(n for _, n in (*read, *written))
    plan.targets.update(zip(body.outputs, written, strict=True))
    for inner in flow.inner:
        plan.targets.update(zip(inner.graph.inputs, read, strict=False))
        plan.bound.update(zip(inner.graph.inputs[len(read) :], flow.source[len(read) :], strict=True))


def nbytes(v: Value) -> int:
    """The bytes of a value."""
    return math.prod(d for d in v.type.shape if not isinstance(d, Sym)) * v.type.dtype.itemsize
