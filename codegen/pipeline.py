"""Graph to Program: the pipeline reads as a table of contents.

Autodiff has already run when a graph comes here: on the raw capture, before any of these passes (docs/numerics.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from kiln.codegen import entry, plan
from kiln.codegen.channels import channels_last
from kiln.codegen.composed import composed
from kiln.codegen.control import Flow, bind, dense, every_step, is_host_step, spins, within
from kiln.codegen.direct import direct
from kiln.codegen.domain import definition, is_literal
from kiln.codegen.fusion import fuse
from kiln.codegen.layout import Layout, assign, is_in_place, is_view
from kiln.codegen.library import flow_entry, library_call
from kiln.codegen.plan import Plan, Step
from kiln.codegen.steps import Note, Strides, digest, fusion_step, step_work, steps
from kiln.codegen.writes import is_settled, source_is_literal, write_in_place
from kiln.ir import loops as L
from kiln.ir.arena import Local
from kiln.ir.graph import Constant, Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.ops import OPS
from kiln.ir.ops.base import Scatter, Template
from kiln.ir.passes.cse import cse
from kiln.ir.passes.dce import dce
from kiln.ir.passes.fold import fold
from kiln.ir.passes.inside import everywhere, prune
from kiln.ir.passes.merge import merge
from kiln.ir.passes.spell import spell, spell_own
from kiln.ir.passes.stay import stay
from kiln.ir.passes.turn import turn
from kiln.ir.program import CheckSite, Entry, Module, Program, Slot
from kiln.ir.target import Target
from kiln.ir.types import Sym, row_major

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    everywhere(merge), everywhere(turn), everywhere(fold), everywhere(cse), prune, dce
)  # fmt: skip
"""Exact, target-independent rewrites, in order, of what runs in one place; also of the graphs inside control flow."""
Layouts = dict[Value, Layout | None]
MakeFusion = Callable[[Operation, Layouts, "Sequence[Strides | None]"], Step]


def compile_graph(
    graph: Graph,
    target: Target,
    input_strides: Sequence[Strides | None] | None = None,
    *,
    name: str = "",
    stages: bool = False,
    passes: bool = True,
    donated: Sequence[int] = (),
) -> Program:
    """Compile a graph to text and plans.

    `input_strides`: of each input in elements, None for row-major; `Sym`s become size slots, as symbolic
    dimensions do. An output that `graph.aliases` declares is written to its input's memory, with its strides.
    `stages` keeps the printed text of every stage in `Program.stages`.
    `donated`: inputs whose memory outputs may take over, where that costs nothing; `Program.aliases` says which did.
    """
    strides: list[Strides | None] = [None] * len(graph.inputs) if input_strides is None else list(input_strides)
    kept: list[tuple[str, str]] = []
    note: Note = (lambda stage, what: kept.append((stage, str(what)))) if stages else (lambda stage, what: None)
    fused = prepare(everywhere(composed)(graph), strides, note, passes)
    return _generate(fused, strides, target, name or graph.name, note, kept, donated)


def prepare(
    graph: Graph, strides: list[Strides | None], note: Note, passes: bool = True, libraries: bool = False
) -> Graph:
    """The front half, which is the same on every target: the passes and fusion. `libraries`: for a GPU, where products
    can be a library's, and convolutions tensor cores'."""
    graph.verify()
    note("captured", graph)
    graph = everywhere(spell_own if libraries else spell)(graph)
    if passes:
        for rewrite in (everywhere(stay), *PASSES):
            graph = rewrite(graph)
        note("simplified", graph)
    if libraries:
        graph = channels_last(graph, strides)
    fused = _fused(graph, strides, passes)
    note("fused", fused)
    return fused


def _fused(graph: Graph, strides: Sequence[Strides | None], passes: bool) -> Graph:
    """The kernels of a graph and of those inside it."""
    graph = dense(write_in_place(_materialise(direct(graph)), strides), strides)
    graph = fuse(graph, assign(graph, strides), passes)
    return within(graph, strides, lambda inner, strides: _fused(inner, strides, passes))


def _generate(
    graph: Graph,
    strides: list[Strides | None],
    target: Target,
    name: str,
    note: Note,
    kept: list[tuple[str, str]],
    donated: Sequence[int],
) -> Program:
    """The back half: kernels, memory plan, entry."""
    layouts = assign(graph, strides)
    sites: list[CheckSite] = []
    made = Plan(steps(graph, layouts, target, sites, note))

    def fusion(op: Operation, layouts: Layouts, out_strides: Sequence[Strides | None]) -> Step:
        return fusion_step(op, layouts, out_strides, target, sites, note)

    reused = plan.take_over(graph, donated, made.steps, layouts, strides)
    graph = write_back(graph, made, layouts, strides, fusion)
    made.reused = [(a.output, a.input) for a in reused]
    slots = place_values(graph, made)
    note("plan", made)
    symbol = f"main_{digest(str(made) + name)}"
    run = _Entries(symbol, made, slots, target)
    entries = run.all()
    for main in run.modules:
        note("entry", main.text)
    modules = {m.name: m for step in made.steps for m in step.modules}
    work = sum(map(step_work, made.steps))
    return Program(
        name=name,
        target=target,
        modules=(*modules.values(), *run.modules),
        entries=entries,
        slots=slots,
        input_types=tuple(v.type for v in graph.inputs),
        output_types=tuple(v.type for v in graph.outputs),
        aliases=tuple((a.output, a.input) for a in (*graph.aliases, *reused)),
        arena_bytes=made.arena_bytes,
        locals=tuple(made.locals),
        constants=tuple(made.constants),
        checks=tuple(sites),
        work=0 if spins(made.steps) or any(slot.kind == "size" for slot in slots) else max(1, work),
        stages=tuple(kept),
    )


class _Entries:
    """What a run calls: native functions for the runs of generated steps, with the library's calls between them."""

    def __init__(self, symbol: str, made: Plan, slots: tuple[Slot, ...], target: Target) -> None:
        self.symbol = symbol
        self.made = made
        self.slots = slots
        self.target = target
        self.modules: list[Module] = []

    def all(self) -> tuple[Entry, ...]:
        return self.of(self.made.steps) or (self._native(()),)

    def of(self, steps: Sequence[Step]) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        for host, run in itertools.groupby(steps, is_host_step):
            together = list(run)
            entries += map(self._host, together) if host else [self._native(together)]
        return tuple(entries)

    def _native(self, steps: Sequence[Step]) -> str:
        name = self.symbol if not self.modules else f"{self.symbol}_{len(self.modules)}"
        self.modules.append(entry.emit_entry(name, self.made, steps, self.slots, self.target))
        return name

    def _host(self, step: Step) -> Entry:
        if isinstance(step, Flow):
            return flow_entry(step, self.made, self.slots, [self.of(inner.steps) for inner in step.inner])
        return library_call(step, self.made, self.slots)


# ------------------------------------------------------------------------------------ before fusion


def _materialise(graph: Graph) -> Graph:
    """Insert a `copy` wherever a value must be memory of its own but would be none: outputs that are inputs,
    views, literals or repeated, and literal operands of templates."""
    copy = OPS["copy"]
    builder, mapped = rebuild(graph)
    changed = False

    def own(v: Value) -> Value:
        (made,) = builder.add(copy, [mapped[v]], {})
        return made

    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        lower = definition(op).lower
        if isinstance(lower, Template):
            for k, v in enumerate(op.operands):
                filled = v.producer is not None and v.producer.op.name == "full"
                if isinstance(lower, Scatter) and k == 0 and filled:
                    continue  # part of its kernel
                if source_is_literal(v):
                    operands[k], changed = own(v), True
        mapped.update(zip(op.results, builder.clone(op, operands), strict=True))
    outputs: list[Value] = []
    for v in graph.outputs:
        producer = v.producer
        plain = producer is not None and not is_view(producer) and producer.op.name != "constant"
        if plain and producer is not None and not is_literal(producer) and mapped[v] not in outputs:
            outputs.append(mapped[v])
        else:
            outputs.append(own(v))
            changed = True
    return builder.build(outputs, graph.aliases) if changed else graph


# --------------------------------------------------------------------------------------- memory plan


def write_back(graph: Graph, made: Plan, layouts: Layouts, strides: list[Strides | None], fusion: MakeFusion) -> Graph:
    """Make aliased outputs end in their inputs' memory: written there (`writes.py`) or computed there where that is
    safe, else copied at the very end, after the last step that can fail. Returns the graph with its final outputs.
    `fusion` makes the step of a fusion whose results have these strides."""
    outputs = list(graph.outputs)
    late: list[Step] = []
    _write_home(graph, made, layouts)
    for a in graph.aliases:
        v, into = graph.outputs[a.output], strides[a.input]
        if is_settled(graph, a, layouts):
            continue
        if plan.in_place(graph, a, made.steps, layouts, into):
            if into is not None:
                at = next(k for k, s in enumerate(made.steps) if v in s.operation.results)
                results = made.steps[at].operation.results
                wanted = [into if r is v else _stored(made.steps[at], i) for i, r in enumerate(results)]
                made.steps[at] = fusion(made.steps[at].operation, layouts, wanted)
            continue
        copied = _copy_of(v)
        late.append(fusion(copied, {v: None}, [into]))
        outputs[a.output] = copied.result
    made.steps.extend(late)
    return Graph(graph.name, graph.inputs, graph.operations, tuple(outputs), graph.aliases)


def _write_home(graph: Graph, made: Plan, layouts: Layouts) -> None:
    """Writes in place go by the output's name, not the input's, as all that overwrites inputs does."""
    homes = {graph.inputs[a.input]: graph.outputs[a.output] for a in graph.aliases}
    for step in made.steps:
        if not is_in_place(step.operation):
            continue
        v = step.operation.result
        there = layouts[v]
        if there is not None and there.root in homes:
            home = plan.Pointer(homes[there.root], there.offset, v.type.dtype)
            step.args = tuple(home if a == plan.Pointer(v) else a for a in step.args)
            if home.root is not v:
                made.bound[v] = home


def _copy_of(v: Value) -> Operation:
    """A fusion that only copies `v`, outside any graph (a step of the plan alone)."""
    builder = GraphBuilder("write_back")
    body = builder.build(builder.add(OPS["copy"], [builder.input(v.type)], {}))
    return Operation(OPS["fusion"], (v,), {"body": body}, [v.type], None)


def _stored(step: Step, output: int) -> Strides | None:
    """The strides with which a kernel stores an output now (None: row-major)."""
    assert step.lowered is not None
    buffers = [p for p in step.lowered.kernel.params if isinstance(p, L.Buffer) and p.name.startswith("out")]
    found = tuple(s for s in buffers[output].strides if isinstance(s, int))
    shape = step.operation.results[output].type.shape
    return None if len(found) != len(shape) or found == row_major(shape) else found


def place_values(graph: Graph, made: Plan) -> tuple[Slot, ...]:
    """Decide every value's memory; returns the slots in their order."""
    for k, v in enumerate(graph.inputs):
        made.targets[v] = ("input", k)
    for k, v in enumerate(graph.outputs):
        made.targets[v] = ("output", k)
    flows = [s for s in every_step(made.steps) if isinstance(s, Flow)]
    for inside in (graph, *(inner.graph for flow in flows for inner in flow.inner)):
        _place_constants(inside, made)
    for step in made.steps:
        if isinstance(step, Flow):
            bind(step, made)
    computed = [r for s in every_step(made.steps) for r in (*s.operation.results, *s.extra())]
    plan.allocate(made, [r for r in computed if r not in made.targets and r not in made.bound])
    symbols = [a.name for s in every_step(made.steps) for a in s.args if isinstance(a, Sym)]
    names = sorted({name for symbol in symbols for name in Sym(symbol).factors()[1]} | _names(made.locals))
    moving = [n for flow in flows if is_host_step(flow) for n in made.moving.get(flow.operation, ())]
    return (
        *(Slot("input", k) for k in range(len(graph.inputs))),
        *(Slot("output", k) for k in range(len(graph.outputs))),
        *(Slot("size", 0, n) for n in names),
        *(Slot("constant", k) for k in range(len(made.constants))),
        *([Slot("arena")] if made.arena_bytes else []),
        *(Slot("local", k) for k in range(len(made.locals))),
        *(Slot("pointer", n) for n in moving),
    )


def _names(values: Sequence[Local]) -> set[str]:
    """The names in the sizes of what the arena holds."""
    return {name for v in values if isinstance(v.nbytes, Sym) for name in v.nbytes.factors()[1]}


def _place_constants(graph: Graph, made: Plan) -> None:
    for op in graph.operations:
        if op.op.name == "constant" and not is_literal(op):
            data = op.attrs["data"]
            assert isinstance(data, Constant)
            made.targets[op.result] = ("constant", len(made.constants))
            made.constants.append(data)
