"""Graph to Program: the pipeline reads as a table of contents.

Autodiff has already run when a graph comes here: on the raw capture, before any of these passes (docs/numerics.md).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

from kiln.codegen import entry, plan
from kiln.codegen.domain import is_literal
from kiln.codegen.fusion import fuse
from kiln.codegen.layout import Layout, assign, is_view, row_major
from kiln.codegen.llvm.emit import emit_kernel
from kiln.codegen.lower import lower
from kiln.codegen.matmul import matmul_module
from kiln.codegen.plan import Argument, Plan, Pointer, Step
from kiln.codegen.schedule import schedule
from kiln.ir import loops as L
from kiln.ir.graph import Constant, Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.loops import Kernel
from kiln.ir.ops import OPS
from kiln.ir.ops.fusion import body_of
from kiln.ir.passes.cse import cse
from kiln.ir.passes.dce import dce
from kiln.ir.passes.fold import fold
from kiln.ir.program import CheckSite, Module, Program, Slot
from kiln.ir.target import Target
from kiln.ir.types import Dim, Sym

Strides = tuple[Dim, ...]
Note = Callable[[str, object], None]

PASSES: tuple[Callable[[Graph], Graph], ...] = (fold, cse, dce)
"""Exact, target-independent rewrites, in order."""


def compile_graph(
    graph: Graph,
    target: Target,
    input_strides: Sequence[Strides | None] | None = None,
    *,
    name: str = "",
    stages: bool = False,
    passes: bool = True,
) -> Program:
    """Compile a graph to text and plans.

    `input_strides`: of each input in elements, None for row-major; `Sym`s become size slots, as symbolic
    dimensions do. An output that `graph.aliases` declares is written to its input's memory, with its strides.
    `stages` keeps the printed text of every stage in `Program.stages`.
    """
    strides: list[Strides | None] = [None] * len(graph.inputs) if input_strides is None else list(input_strides)
    kept: list[tuple[str, str]] = []
    note: Note = (lambda stage, what: kept.append((stage, str(what)))) if stages else (lambda stage, what: None)
    graph.verify()
    note("captured", graph)
    if passes:
        for rewrite in PASSES:
            graph = rewrite(graph)
        note("simplified", graph)
    graph = _materialise(graph)
    fused = fuse(graph, assign(graph, strides), passes)
    note("fused", fused)
    return _generate(fused, strides, target, name or graph.name, note, kept)


def _generate(
    graph: Graph, strides: list[Strides | None], target: Target, name: str, note: Note, kept: list[tuple[str, str]]
) -> Program:
    """The back half: kernels, memory plan, entry."""
    layouts = assign(graph, strides)
    sites: list[CheckSite] = []
    made = Plan(_steps(graph, layouts, target, sites, note))
    graph = _write_back(graph, made, layouts, strides, target, sites, note)
    slots = _place(graph, made, strides)
    note("plan", made)
    symbol = f"main_{_digest(str(made) + name)}"
    main = entry.emit_entry(symbol, made, slots, target)
    note("entry", main.text)
    modules = {m.name: m for step in made.steps for m in step.modules}
    work = sum(s.lowered.work if s.lowered is not None else _matmul_work(s.operation) for s in made.steps)
    return Program(
        name=name,
        target=target,
        modules=(*modules.values(), main),
        entry=symbol,
        slots=slots,
        input_types=tuple(v.type for v in graph.inputs),
        output_types=tuple(v.type for v in graph.outputs),
        aliases=tuple((a.output, a.input) for a in graph.aliases),
        arena_bytes=made.arena_bytes,
        constants=tuple(made.constants),
        checks=tuple(sites),
        work=0 if any(slot.kind == "size" for slot in slots) else max(1, work),
        stages=tuple(kept),
    )


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
        if op.op.name == "matmul":
            for k, v in enumerate(op.operands):
                if _source_is_literal(v):
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


def _source_is_literal(v: Value) -> bool:
    while v.producer is not None and is_view(v.producer):
        v = v.producer.operands[0]
    return v.producer is not None and is_literal(v.producer)


# ------------------------------------------------------------------------------------------- kernels


def _steps(
    graph: Graph,
    layouts: dict[Value, Layout | None],
    target: Target,
    sites: list[CheckSite],
    note: Note,
) -> list[Step]:
    """One step per computing operation of a fused graph."""
    steps = []
    for op in graph.operations:
        if op.op.name == "fusion":
            steps.append(_fusion_step(op, layouts, [None] * len(op.results), target, sites, note))
        elif op.op.name == "matmul":
            steps.append(_matmul_step(op, layouts, target))
        elif op.op.name != "constant" and not (is_view(op) and layouts[op.result] is not None):
            raise TypeError(f"no step for {op.op.name} in a fused graph")
    return steps


def _fusion_step(
    op: Operation,
    layouts: dict[Value, Layout | None],
    out_strides: Sequence[Strides | None],
    target: Target,
    sites: list[CheckSite],
    note: Note,
) -> Step:
    body = body_of(op.attrs)
    places = [layouts[v] for v in op.operands]
    lowered = lower(body, [None if p is None else p.strides for p in places], out_strides, sites)
    kernel = Kernel(body.name, lowered.kernel.params, lowered.kernel.body)
    note(f"loops {body.name}", kernel)
    scheduled = schedule(kernel, target)
    note(f"scheduled {body.name}", scheduled)
    module = _named(emit_kernel(Kernel("kernel", scheduled.params, scheduled.body), target), body.name)
    note(f"llvm {body.name}", module.text)
    args: list[Argument] = [
        Pointer(v, 0) if p is None else Pointer(p.root, p.offset) for v, p in zip(op.operands, places, strict=True)
    ]
    args += [Pointer(r) for r in op.results]
    args += [Sym(s) for s in lowered.symbols]
    return Step(op, module.exports[0], (module,), tuple(args), lowered)


def _named(module: Module, stem: str) -> Module:
    """A kernel's module under a name made of its content, so that equal kernels are one."""
    symbol = f"{stem}_{_digest(module.text)}"
    text = module.text.replace("@kernel(", f"@{symbol}(").replace('@"kernel.body', f'@"{symbol}.body')
    return Module(symbol, text, (symbol,), module.imports)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _matmul_step(op: Operation, layouts: dict[Value, Layout | None], target: Target) -> Step:
    """[..., M, K] @ [..., K, N]: one call, or a loop over outer batch dimensions around it."""
    a, b = op.operands
    rank = a.type.rank
    module = matmul_module(a.type.dtype, target)
    symbol = f"kiln_matmul_{a.type.dtype}"
    pa, pb = layouts[a], layouts[b]
    sa = _matrix_strides(a, pa)
    sb = _matrix_strides(b, pb)
    sc = _matrix_strides(op.result, None)
    m, k, n = a.type.shape[-2], a.type.shape[-1], b.type.shape[-1]
    batch: Dim = a.type.shape[-3] if rank > 2 else 1
    pointers = (
        Pointer(a) if pa is None else Pointer(pa.root, pa.offset),
        Pointer(b) if pb is None else Pointer(pb.root, pb.offset),
        Pointer(op.result),
    )
    sizes = (batch, m, n, k, *sa[-3:], *sb[-3:], *sc[-3:])
    if rank <= 3:
        return Step(op, symbol, (module,), (*pointers, *sizes))
    return _batched_step(op, module, symbol, pointers, sizes, (sa, sb, sc), target)


def _matrix_strides(v: Value, layout: Layout | None) -> tuple[Dim, ...]:
    """Strides of a stack of matrices, with a batch stride also where there is none."""
    if layout is not None:
        strides = layout.strides
    elif any(isinstance(d, Sym) for d in v.type.shape):
        strides = tuple(_symbolic_stride(v, d) for d in range(v.type.rank))
    else:
        strides = row_major(v.type.shape)
    return strides if len(strides) > 2 else (0, *strides)


def _symbolic_stride(v: Value, d: int) -> Dim:
    """The row-major stride of a symbolic shape: 1, or a product of dimensions, which the entry multiplies."""
    inner = v.type.shape[d + 1 :]
    return 1 if not inner else Sym("*".join(str(x) for x in inner))


def _batched_step(
    op: Operation,
    module: Module,
    symbol: str,
    pointers: tuple[Pointer, ...],
    sizes: tuple[Dim, ...],
    strides: tuple[tuple[Dim, ...], ...],
    target: Target,
) -> Step:
    """A small kernel that loops over the outer batch dimensions of a matmul and calls it."""
    outer = op.operands[0].type.shape[:-3]
    dtype = op.result.type.dtype
    symbols: dict[str, L.Var] = {}

    def size(d: Dim) -> L.Expr:
        if isinstance(d, int):
            return L.index(d)
        total: L.Expr = L.index(1)
        for factor in d.name.split("*"):
            literal = L.index(int(factor)) if factor.isdigit() else None
            total = L.mul(total, literal or symbols.setdefault(factor, L.Var(L.INDEX, factor)))
        return total

    buffers = tuple(L.Buffer(x, dtype, (), ()) for x in ("a", "b", "c"))
    loops = [L.Var(L.INDEX, f"b{i}") for i in range(len(outer))]
    places: list[L.Expr] = []
    for step in strides:
        at: L.Expr = L.index(0)
        for var, s in zip(loops, step[:-3], strict=True):
            at = L.add(at, L.mul(var, size(s)))
        places.append(at)
    arguments: list[L.Expr | tuple[L.Buffer, L.Expr]] = list(zip(buffers, places, strict=True))
    arguments += [size(d) for d in sizes]
    body: L.Block = (L.Invoke(symbol, tuple(arguments)),)
    for var, d in reversed(list(zip(loops, outer, strict=True))):
        body = (L.For("serial", var, L.index(0), size(d), body),)
    names = tuple(sorted(symbols))
    kernel = Kernel("kernel", (*buffers, *(symbols[s] for s in names)), body)
    wrapper = _named(emit_kernel(kernel, target), "matmul_batches")
    return Step(op, wrapper.exports[0], (module, wrapper), (*pointers, *(Sym(s) for s in names)))


def _matmul_work(op: Operation) -> int:
    shape = (*op.result.type.shape, op.operands[0].type.shape[-1])
    return 2 * math.prod(d for d in shape if isinstance(d, int))


# --------------------------------------------------------------------------------------- memory plan


def _write_back(
    graph: Graph,
    made: Plan,
    layouts: dict[Value, Layout | None],
    strides: list[Strides | None],
    target: Target,
    sites: list[CheckSite],
    note: Note,
) -> Graph:
    """Make aliased outputs end in their inputs' memory: computed there where that is safe, else copied at the
    very end, after the last step that can fail. Returns the graph with its final outputs."""
    outputs = list(graph.outputs)
    late: list[Step] = []
    for a in graph.aliases:
        v, into = graph.outputs[a.output], strides[a.input]
        if plan.in_place(graph, a, made.steps, layouts, into):
            if into is not None:
                at = next(k for k, s in enumerate(made.steps) if v in s.operation.results)
                results = made.steps[at].operation.results
                wanted = [into if r is v else _stored(made.steps[at], i) for i, r in enumerate(results)]
                made.steps[at] = _fusion_step(made.steps[at].operation, layouts, wanted, target, sites, note)
            continue
        copied = _copy_of(v)
        late.append(_fusion_step(copied, {v: None}, [into], target, sites, note))
        outputs[a.output] = copied.result
    made.steps.extend(late)
    return Graph(graph.name, graph.inputs, graph.operations, tuple(outputs), graph.aliases)


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


def _place(graph: Graph, made: Plan, strides: Sequence[Strides | None]) -> tuple[Slot, ...]:
    """Decide every value's memory; returns the slots in their order."""
    for k, v in enumerate(graph.inputs):
        made.targets[v] = ("input", k)
    for k, v in enumerate(graph.outputs):
        made.targets[v] = ("output", k)
    for op in graph.operations:
        if op.op.name == "constant" and not is_literal(op):
            data = op.attrs["data"]
            assert isinstance(data, Constant)
            made.targets[op.result] = ("constant", len(made.constants))
            made.constants.append(data)
    computed = [r for s in made.steps for r in s.operation.results if r not in made.targets]
    plan.allocate(made, computed)
    symbols = [a.name for s in made.steps for a in s.args if isinstance(a, Sym)]
    names = sorted({factor for name in symbols for factor in name.split("*") if not factor.isdigit()})
    return (
        *(Slot("input", k) for k in range(len(graph.inputs))),
        *(Slot("output", k) for k in range(len(graph.outputs))),
        *(Slot("size", 0, n) for n in names),
        *(Slot("constant", k) for k in range(len(made.constants))),
        *([Slot("arena")] if made.arena_bytes else []),
    )
