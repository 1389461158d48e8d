"""Graph to CUDA program: the CPU's passes, fusion, loop nests and memory plan, another schedule, another text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, cast

from kiln.codegen import plan as plans
from kiln.codegen.control import Flow, flow_step, inner_of
from kiln.codegen.cuda import attention, convolution, fft, linalg, scan, sort, spectral
from kiln.codegen.cuda.contraction import CONTRACTIONS, contraction
from kiln.codegen.cuda.emit import emit_scheduled
from kiln.codegen.cuda.host import flow, host_call, memory, with_looks
from kiln.codegen.cuda.pieces import Form, Formed, Part, formed, together
from kiln.codegen.cuda.products import Planned, is_product, product, product_step
from kiln.codegen.cuda.schedule import Scheduled, launches
from kiln.codegen.cuda.template import Template
from kiln.codegen.cuda.together import Together, gathered
from kiln.codegen.domain import definition
from kiln.codegen.layout import Layout, assign, is_layout
from kiln.codegen.library import library_step
from kiln.codegen.lower import Lowered, Style, lower
from kiln.codegen.pipeline import Layouts, place_values, prepare, write_back
from kiln.codegen.plan import Argument, Plan, Pointer, Step, pointer
from kiln.codegen.scatter import lower_scatter
from kiln.codegen.sort import SORTS, lower_sort
from kiln.codegen.steps import Note, Strides, body_key, digest
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaProgram, CudaStep, CudaText, Launch, Memory, Workspace
from kiln.ir.graph import Alias, Constant, Graph, Operation, Value
from kiln.ir.ops.base import Control, Library, Scatter
from kiln.ir.ops.fusion import body_of
from kiln.ir.program import CheckSite
from kiln.ir.types import Dim, Sym

STYLE: Final = Style(nested="parallel", stack_bytes=1 << 14)
"""All independent loops become the grid; two rows of a kernel lie in shared memory."""
TEMPLATES: Final[dict[str, Template]] = {
    **attention.TEMPLATES,
    **convolution.TEMPLATES,
    **fft.TEMPLATES,
    **linalg.TEMPLATES,
    **scan.TEMPLATES,
    **sort.TEMPLATES,
    **spectral.TEMPLATES,
}
"""Kernels whose text is written by hand, by the op's name."""


def compile_cuda(
    graph: Graph,
    input_strides: Sequence[Strides | None] | None = None,
    *,
    name: str = "",
    note: Note = lambda stage, what: None,
    passes: bool = True,
    donated: Sequence[int] = (),
    bounds: bool = False,
) -> CudaProgram:
    """Compile a graph to CUDA text and a plan. The arguments are those of `codegen.pipeline.compile_graph`. With
    `bounds` generated kernels stop at accesses beyond their buffers."""
    strides: list[Strides | None] = [None] * len(graph.inputs) if input_strides is None else list(input_strides)
    graph = prepare(graph, strides, note, passes, libraries=True)
    return _Pipeline(note, bounds).run(graph, strides, name or graph.name, donated)


class _Pipeline:
    """The kernels made so far; by a step's symbol its launches (text and size), their workspaces, their turns, and
    which of the tables they read; or its schedule, where it is one launch that could be a piece, and then its form.
    `fusions`: the steps of those that may be there again."""

    def __init__(self, note: Note, bounds: bool) -> None:
        self.note = note
        self.bounds = bounds
        self.sites: list[CheckSite] = []
        self.texts: dict[str, CudaText] = {}
        self.products: dict[str, Planned] = {}
        self.made: dict[str, tuple[list[CudaText], list[Workspace], Sequence[int], Sequence[int]]] = {}
        self.tables: dict[str, tuple[int, Constant]] = {}
        self.fusions: dict[object, Step] = {}
        self.single: dict[str, Scheduled] = {}
        self.formed: dict[str, Formed | None] = {}
        self.symbols = 0

    def run(self, graph: Graph, strides: list[Strides | None], name: str, donated: Sequence[int]) -> CudaProgram:
        layouts = assign(graph, strides)
        plan = Plan(self._steps(graph, layouts))
        plan.constants += [table for _, table in self.tables.values()]
        reused = plans.take_over(graph, donated, plan.steps, layouts, strides)
        graph = write_back(graph, plan, layouts, strides, self._fusion)
        plan.steps = self._gathered(plan.steps, graph, [*graph.aliases, *reused], layouts)
        slots = place_values(graph, plan)
        aliases = tuple((a.output, a.input) for a in (*graph.aliases, *reused))
        workspaces: list[Workspace] = []
        steps = with_looks(self._run(plan.steps, plan, workspaces), aliases)
        program = CudaProgram(
            name=name,
            kernels=(),
            steps=steps,
            slots=tuple(s for s in slots if s.kind != "pointer"),
            input_types=tuple(v.type for v in graph.inputs),
            output_types=tuple(v.type for v in graph.outputs),
            aliases=aliases,
            arena_bytes=plan.arena_bytes,
            locals=tuple(plan.locals),
            workspaces=tuple(workspaces),
            constants=tuple(plan.constants),
            checks=tuple(self.sites),
            pointers=plan.pointers,
        )
        names = dict.fromkeys(launch.kernel for launch in program.launches)
        names |= dict.fromkeys(m.dense.kernel for p in program.products for m in p.operands)
        program = replace(program, kernels=tuple(self.texts[n] for n in names))
        self.note("cuda", program)
        return program

    # --------------------------------------------------------------------------------------- steps

    def _steps(self, graph: Graph, layouts: Layouts) -> list[Step]:
        return [s for op in graph.operations if (s := self._step(op, layouts)) is not None]

    def _step(self, op: Operation, layouts: Layouts) -> Step | None:
        """The step of a computing operation; None for one that only looks at memory."""
        name, lower_as = op.op.name, definition(op).lower
        if name == "fusion":
            return self._fusion(op, layouts, [None] * len(op.results))
        strides = [None if p is None else p.strides for p in map(layouts.__getitem__, op.operands)]
        if (template := TEMPLATES.get(name)) and (filled := template(op, layouts, self.sites)):
            symbol = self._symbol(name)
            texts, tables = [self._text(t, name) for t in filled.texts], [self._table(c) for c in filled.constants]
            self.made[symbol] = (texts, list(filled.workspaces), filled.turns, tables)
            return Step(op, symbol, (), _arguments(op, layouts, filled.sizes))
        if is_product(op):
            symbol = self._symbol(name)
            step, self.products[symbol] = product_step(op, layouts, symbol, STYLE, self._text)
            return step
        if name in CONTRACTIONS:
            scheduled, sizes = contraction(op, layouts)
            symbol = self._symbol(name)
            self.made[symbol] = ([self._text(emit_scheduled(s, self.bounds), name) for s in scheduled], [], (), ())
            return Step(op, symbol, (), _arguments(op, layouts, sizes))
        if name in SORTS:
            return self._kernel(op, layouts, lower_sort(op, strides, STYLE), name)
        if isinstance(lower_as, Scatter):
            return self._scatter(op, layouts, strides)
        if isinstance(lower_as, Library):
            return library_step(op, layouts, self.sites)
        if isinstance(lower_as, Control):
            return flow_step(op, layouts, lambda inner, strides: self._steps(inner, assign(inner, strides)))
        if name in ("constant", "full") or is_layout(op, layouts):
            return None
        raise TypeError(f"no step for {name} in a fused graph")

    def _fusion(self, op: Operation, layouts: Layouts, out_strides: Sequence[Strides | None]) -> Step:
        body = body_of(op.attrs)
        strides = [None if p is None else p.strides for p in map(layouts.__getitem__, op.operands)]
        key = (body.name, body_key(body), tuple(strides), tuple(out_strides))
        known = self.fusions.get(key)
        if known is None:
            made = self._kernel(op, layouts, lower(body, strides, out_strides, self.sites, STYLE), body.name)
            if not made.may_refuse:  # a check names its own line
                self.fusions[key] = made
            return made
        assert known.lowered is not None
        return Step(op, known.symbol, (), _arguments(op, layouts, known.lowered.symbols), known.lowered)

    def _scatter(self, op: Operation, layouts: Layouts, strides: Sequence[Strides | None]) -> Step:
        """A table that is one number everywhere is part of the kernel; with `in_place` the result's memory is it."""
        table = op.operands[0].producer
        full = table is not None and table.op.name == "full"
        fill = cast("bool | int | float | complex", table.attrs["value"]) if full and table is not None else None
        lowered = lower_scatter(op, fill, strides, self.sites, STYLE)
        known = full or bool(op.attrs.get("in_place", False))
        return self._kernel(op, layouts, lowered, op.op.name, 1 if known else 0)

    def _kernel(self, op: Operation, layouts: Layouts, lowered: Lowered, stem: str, skipped: int = 0) -> Step:
        self.note(f"loops {stem}", lowered.kernel)
        scheduled, scratch = launches(lowered.kernel)
        symbol = self._symbol(stem)
        if len(scheduled) == 1 and not scratch and not lowered.checks:
            self.single[symbol] = scheduled[0]
        else:
            texts = [self._text(emit_scheduled(s, self.bounds), stem) for s in scheduled]
            self.made[symbol] = (texts, [Workspace(b.dtype, _elements(b)) for b in scratch], (), ())
        return Step(op, symbol, (), _arguments(op, layouts, lowered.symbols)[skipped:], lowered)

    def _symbol(self, stem: str) -> str:
        self.symbols += 1
        return f"{stem}#{self.symbols}"

    def _table(self, table: Constant) -> int:
        """Its place among the program's constants; equal ones are one."""
        return self.tables.setdefault(table.digest(), (len(self.tables), table))[0]

    def _text(self, text: CudaText, stem: str) -> CudaText:
        """A kernel under a name made of its content, so that equal kernels are one."""
        name = f"{stem}_{digest(text.source)}"
        function = text.function.replace(f"\n{text.name}(", f"\n{name}(", 1)
        made = replace(text, name=name, function=function)
        self.texts.setdefault(name, made)
        return made

    # ------------------------------------------------------------------------------------ launches

    def _gathered(self, steps: list[Step], graph: Graph, aliases: Sequence[Alias], layouts: Layouts) -> list[Step]:
        """The steps, those together that can be one launch."""
        # Launches of one form are of one name and have as many parameters, which is soon known.
        likeness = {s.symbol: (_stem(s), len(s.args)) for s in steps if s.symbol in self.single}
        alike = Counter(likeness[s.symbol] for s in steps if s.symbol in likeness)

        def form(step: Step) -> Form | None:
            if alike[likeness.get(step.symbol, ("", 0))] < 2:
                return None
            if step.symbol not in self.formed:
                self.formed[step.symbol] = formed(self.single[step.symbol], self.bounds)
            found = self.formed[step.symbol]
            return None if found is None else found.form

        return gathered(steps, graph, aliases, layouts, form) if any(n > 1 for n in alike.values()) else steps

    def _run(self, steps: Sequence[Step], plan: Plan, workspaces: list[Workspace]) -> tuple[CudaStep, ...]:
        """What is done for these steps, in order."""
        out: list[CudaStep] = []
        for step in steps:
            if isinstance(step, Flow):
                out.append(flow(step, plan, [self._run(i.steps, plan, workspaces) for i in inner_of(step)]))
            elif step.site is not None:
                out.append(host_call(step, plan))
            elif isinstance(step, Together):
                out += self._together(step, plan, workspaces)
            elif step.symbol in self.products:
                out.append(product(step, self.products[step.symbol], plan))
            else:
                out += self._launches(step, plan, workspaces)
        return tuple(out)

    def _together(self, step: Together, plan: Plan, workspaces: list[Workspace]) -> list[Launch]:
        parts = []
        for piece in step.pieces:
            found = self.formed[piece.symbol]
            assert found is not None
            args = tuple(memory(a, plan) if isinstance(a, Pointer) else a for a in piece.args)
            parts.append(Part(found, args, piece.operation.loc))
        made = together(parts)
        if made is None:
            return [launch for piece in step.pieces for launch in self._launches(piece, plan, workspaces)]
        return [replace(launch, kernel=self._text(text, _stem(step)).name) for text, launch in made]

    def _launches(self, step: Step, plan: Plan, workspaces: list[Workspace]) -> list[Launch]:
        if step.symbol not in self.made:
            text = self._text(emit_scheduled(self.single[step.symbol], self.bounds), _stem(step))
            self.made[step.symbol] = ([text], [], (), ())
        texts, scratch, turns, tables = self.made[step.symbol]
        first = len(workspaces)
        workspaces += scratch
        pointers = [memory(a, plan) for a in step.args if isinstance(a, Pointer)]
        pointers += [Memory("workspace", first + k) for k in range(len(scratch))]
        pointers += [Memory("constant", k) for k in tables]
        sizes = [a for a in step.args if not isinstance(a, Pointer)]
        loc = step.operation.loc
        return [
            Launch(t.name, t.threads, t.blocks, (*pointers, *sizes, *turns[k : k + 1]), t.has_checks, loc)
            for k, t in enumerate(texts)
        ]


def _stem(step: Step) -> str:
    """What kernels of a step are named after."""
    return step.symbol.partition("#")[0]


def _elements(b: L.Buffer) -> L.Expr:
    total: L.Expr = L.index(1)
    for d in b.shape:
        total = L.mul(total, L.as_index(d))
    return total


def _arguments(op: Operation, layouts: dict[Value, Layout | None], sizes: Sequence[Dim | str]) -> tuple[Argument, ...]:
    """Pointers to the operands and results, then sizes."""
    pointers = [pointer(v, layouts[v]) for v in op.operands]
    return (*pointers, *(Pointer(r) for r in op.results), *(Sym(s) if isinstance(s, str) else s for s in sizes))
