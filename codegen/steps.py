"""The computing operations of a fused graph as steps: one call each, of a generated kernel or of a template.

Kernels are named after what they compute and the hash of their text, so equal ones are one module, whichever program
they are in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Final, cast

from kiln.codegen.control import Flow, flow_step, flow_work
from kiln.codegen.conv import conv_step, conv_work
from kiln.codegen.domain import definition
from kiln.codegen.layout import Layout, assign, is_layout
from kiln.codegen.library import library_step
from kiln.codegen.llvm.emit import emit_kernel
from kiln.codegen.lower import Lowered, lower
from kiln.codegen.matmul import matmul_module
from kiln.codegen.plan import Argument, Pointer, Step, pointer
from kiln.codegen.scan import SCANS, lower_scan
from kiln.codegen.scatter import lower_scatter
from kiln.codegen.schedule import schedule
from kiln.codegen.sort import SORTS, lower_sort
from kiln.ir import loops as L
from kiln.ir.graph import Graph, Operation, Value
from kiln.ir.loops import Kernel
from kiln.ir.ops.base import Control, Library, Scatter
from kiln.ir.ops.fusion import body_of
from kiln.ir.program import CheckSite, Module
from kiln.ir.target import Target
from kiln.ir.types import Dim, Sym, row_major

CONVOLUTIONS: Final = frozenset({"conv2d", "conv2d_input", "conv2d_weight"})
Strides = tuple[Dim, ...]
Note = Callable[[str, object], None]
"""note(stage, what): keeps the printed form of a stage, when someone asked for it."""


def steps(
    graph: Graph,
    layouts: dict[Value, Layout | None],
    target: Target,
    sites: list[CheckSite],
    note: Note,
) -> list[Step]:
    """One step per computing operation of a fused graph; equal kernels are made once."""
    return _steps(graph, layouts, target, sites, note, {})


def _steps(
    graph: Graph,
    layouts: dict[Value, Layout | None],
    target: Target,
    sites: list[CheckSite],
    note: Note,
    made: dict[object, Step],
) -> list[Step]:
    """`made`: the steps of fusions so far, here and in the graphs around and inside."""
    steps: list[Step] = []

    def inside(inner: Graph, strides: list[Strides | None]) -> list[Step]:
        return _steps(inner, assign(inner, strides), target, sites, note, made)

    for op in graph.operations:
        if op.op.name == "fusion":
            key = (
                body_key(body_of(op.attrs)),
                *(None if p is None else p.strides for p in map(layouts.get, op.operands)),
            )
            known = made.get(key)
            if known is None or known.may_refuse:  # a check names its own line
                step = made[key] = fusion_step(op, layouts, [None] * len(op.results), target, sites, note)
            else:
                step = _same_step(known, op, layouts)
            steps.append(step)
        elif op.op.name == "matmul":
            steps.append(_matmul_step(op, layouts, target))
        elif op.op.name in CONVOLUTIONS:
            steps.append(conv_step(op, layouts, target))
        elif isinstance(definition(op).lower, Scatter):
            steps.append(_scatter_step(op, layouts, target, sites, note))
        elif isinstance(definition(op).lower, Library):
            steps.append(library_step(op, layouts, sites))
        elif isinstance(definition(op).lower, Control):
            steps.append(flow_step(op, layouts, inside))
        elif op.op.name in (*SORTS, *SCANS):
            make = lower_scan if op.op.name in SCANS else lower_sort
            lowered = make(op, [None if p is None else p.strides for p in map(layouts.__getitem__, op.operands)])
            steps.append(_kernel_step(op, lowered, _arguments(op, layouts, lowered), target, note))
        elif op.op.name not in ("constant", "full") and not is_layout(op, layouts):
            raise TypeError(f"no step for {op.op.name} in a fused graph")
    return steps


def body_key(body: Graph) -> object:
    """What two equal bodies have in common: operations over numbered values, and types."""
    numbers = {v: k for k, v in enumerate(body.values())}
    operations = [
        (op.op, tuple(numbers[v] for v in op.operands), tuple((k, type(x), repr(x)) for k, x in op.attrs.items()))
        for op in body.operations
    ]
    # `repr` tells -0.0 from 0.0, and one Constant from another.
    return tuple(operations), tuple(v.type for v in body.inputs), tuple(numbers[v] for v in body.outputs)


def fusion_step(
    op: Operation,
    layouts: dict[Value, Layout | None],
    out_strides: Sequence[Strides | None],
    target: Target,
    sites: list[CheckSite],
    note: Note,
) -> Step:
    """Lower, schedule and emit a fusion."""
    body = body_of(op.attrs)
    strides = [None if p is None else p.strides for p in map(layouts.__getitem__, op.operands)]
    lowered = lower(body, strides, out_strides, sites)
    kernel = Kernel(body.name, lowered.kernel.params, lowered.kernel.body)
    note(f"loops {body.name}", kernel)
    scheduled = schedule(kernel, target)
    note(f"scheduled {body.name}", scheduled)
    module = _named(emit_kernel(Kernel("kernel", scheduled.params, scheduled.body), target), body.name)
    note(f"llvm {body.name}", module.text)
    return Step(op, module.exports[0], (module,), _arguments(op, layouts, lowered), lowered)


def _same_step(known: Step, op: Operation, layouts: dict[Value, Layout | None]) -> Step:
    """A call of a kernel that another operation has made."""
    assert known.lowered is not None
    return Step(op, known.symbol, known.modules, _arguments(op, layouts, known.lowered), known.lowered)


def _arguments(op: Operation, layouts: dict[Value, Layout | None], lowered: Lowered) -> tuple[Argument, ...]:
    """Pointers to the operands and results, then sizes."""
    places = [layouts[v] for v in op.operands]
    pointers = [pointer(v, p) for v, p in zip(op.operands, places, strict=True)]
    return (*pointers, *(Pointer(r) for r in op.results), *(Sym(s) for s in lowered.symbols))


def _named(module: Module, stem: str) -> Module:
    """A kernel's module under a name made of its content, so that equal kernels are one."""
    symbol = f"{stem}_{digest(module.text)}"
    text = module.text.replace("@kernel(", f"@{symbol}(").replace('@"kernel.body', f'@"{symbol}.body')
    return Module(symbol, text, (symbol,), module.imports)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _scatter_step(
    op: Operation, layouts: dict[Value, Layout | None], target: Target, sites: list[CheckSite], note: Note
) -> Step:
    """A table that is one number everywhere is part of the kernel; with `in_place` the result's memory is the table."""
    table = op.operands[0].producer
    in_place = bool(op.attrs.get("in_place", False))
    full = table is not None and table.op.name == "full"
    fill = cast("bool | int | float | complex", table.attrs["value"]) if full and table is not None else None
    strides = [None if p is None else p.strides for p in map(layouts.__getitem__, op.operands)]
    lowered = lower_scatter(op, fill, strides, sites)
    arguments = _arguments(op, layouts, lowered)
    return _kernel_step(op, lowered, arguments[1:] if full or in_place else arguments, target, note)


def _kernel_step(
    op: Operation,
    lowered: Lowered,
    arguments: tuple[Argument, ...],
    target: Target,
    note: Note,
) -> Step:
    """Schedule and emit an operation that is a kernel by itself."""
    note(f"loops {op.op.name}", lowered.kernel)
    scheduled = schedule(lowered.kernel, target)
    note(f"scheduled {op.op.name}", scheduled)
    module = _named(emit_kernel(scheduled, target), op.op.name)
    note(f"llvm {op.op.name}", module.text)
    return Step(op, module.exports[0], (module,), arguments, lowered)


def _matmul_step(op: Operation, layouts: dict[Value, Layout | None], target: Target) -> Step:
    """[..., M, K] @ [..., K, N]: one call, or a loop over outer batch dimensions around it."""
    a, b = op.operands
    rank = a.type.rank
    module = matmul_module(a.type.dtype, target)
    symbol = f"kiln_matmul_{a.type.dtype}"
    if op.result.type.dtype is not a.type.dtype:
        symbol += f"_{op.result.type.dtype}"
    pa, pb = layouts[a], layouts[b]
    sa = _matrix_strides(a, pa)
    sb = _matrix_strides(b, pb)
    sc = _matrix_strides(op.result, None)
    m, k, n = a.type.shape[-2], a.type.shape[-1], b.type.shape[-1]
    batch: Dim = a.type.shape[-3] if rank > 2 else 1
    pointers = (
        pointer(a, pa),
        pointer(b, pb),
        Pointer(op.result),
    )
    sizes = (batch, m, n, k, *sa[-3:], *sb[-3:], *sc[-3:])
    if rank <= 3:
        return Step(op, symbol, (module,), (*pointers, *sizes))
    return _batched_step(op, module, symbol, pointers, sizes, (sa, sb, sc), target)


def _matrix_strides(v: Value, layout: Layout | None) -> tuple[Dim, ...]:
    """Strides of a stack of matrices, with a batch stride also where there is none."""
    strides = row_major(v.type.shape) if layout is None else layout.strides
    return strides if len(strides) > 2 else (0, *strides)


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
    symbols: dict[str, L.Var] = {}

    def size(d: Dim) -> L.Expr:
        if isinstance(d, int):
            return L.index(d)
        total: L.Expr = L.index(1)
        for factor in d.name.split("*"):
            literal = L.index(int(factor)) if factor.isdigit() else None
            total = L.mul(total, literal or symbols.setdefault(factor, L.Var(L.INDEX, factor)))
        return total

    values = (*op.operands, op.result)
    buffers = tuple(L.Buffer(x, v.type.dtype, (), ()) for x, v in zip("abc", values, strict=True))
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


def step_work(step: Step) -> int:
    """The estimated scalar operations of a step; 0 where nobody knows."""
    if isinstance(step, Flow):
        return flow_work(step, step_work)
    return step.lowered.work if step.lowered is not None else template_work(step.operation)


def template_work(op: Operation) -> int:
    """Multiplications and additions of an operation that a template computes."""
    if isinstance(definition(op).lower, Library):
        return 0  # it gives the interpreter's lock away by itself
    return conv_work(op) if op.op.name in CONVOLUTIONS else _matmul_work(op)


def _matmul_work(op: Operation) -> int:
    shape = (*op.result.type.shape, op.operands[0].type.shape[-1])
    return 2 * math.prod(d for d in shape if isinstance(d, int))
