"""Matrix products that a library of the GPU computes (`ir.gpu_program.Product`): ops `matmul` and `addmm` that say so.

Whether it does is part of the op, decided where the op was made, and so is which operands it is told are transposed: so
compiled code and single ops ask for the same products, wherever fusion and views have left the operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kiln.codegen.cuda.emit import emit_scheduled
from kiln.codegen.cuda.host import memory
from kiln.codegen.cuda.schedule import launches
from kiln.codegen.layout import Layout, Strides, place
from kiln.codegen.lower import Style, lower
from kiln.codegen.plan import Argument, Plan, Pointer, Step, pointer
from kiln.ir.gpu_program import CudaText, Launch, Matrix, Memory, Product
from kiln.ir.graph import GraphBuilder, Operation, Value
from kiln.ir.ops import OPS
from kiln.ir.types import Dim, Sym

Text = Callable[[CudaText, str], CudaText]
"""Gives a kernel its name."""


@dataclass(frozen=True)
class Planned:
    """What is known of a product before the plan of the memory is."""

    dense: tuple[CudaText, ...]
    sizes: tuple[tuple[Sym, ...], ...]
    strides: tuple[Strides, ...]


def is_product(op: Operation) -> bool:
    """Whether the library computes this op."""
    return op.op.name in ("matmul", "addmm") and "library" in op.attrs


def product_step(
    op: Operation, layouts: Mapping[Value, Layout | None], symbol: str, style: Style, text: Text
) -> tuple[Step, Planned]:
    """The step, and what `product` needs of it."""
    table = dict(layouts)
    strides = tuple(place(v, table).strides for v in op.operands)
    made = [_dense(v, layouts[v], turned, style) for v, turned in zip(op.operands, _turned(op), strict=True)]
    planned = Planned(tuple(text(t, "dense") for t, _ in made), tuple(sizes for _, sizes in made), strides)
    pointers = (*(pointer(v, layouts[v]) for v in op.operands), Pointer(op.result))
    dims: list[Dim] = [d for some in (*strides, *(v.type.shape for v in op.operands)) for d in some]
    sizes = dict.fromkeys(d for d in dims if isinstance(d, Sym))
    return Step(op, symbol, (), (*pointers, *sizes)), planned


def product(step: Step, planned: Planned, plan: Plan) -> Product:
    """What the runtime is told."""
    op = step.operation
    a, b = op.operands[:2]
    left, right, *rest = (_matrix(step.args[k], planned, k, turned, plan, op) for k, turned in enumerate(_turned(op)))
    return Product(
        left,
        right,
        rest[0] if rest else None,
        memory(step.args[len(op.operands)], plan),
        a.type.shape[:-2],
        a.type.shape[-2],
        b.type.shape[-1],
        a.type.shape[-1],
        a.type.dtype,
        op.result.type.dtype,
        bool(op.attrs.get("tf32", False)),
        op.loc,
    )


def _turned(op: Operation) -> tuple[bool, ...]:
    library = str(op.attrs["library"])
    return library[0] == "t", library[1] == "t", *(False for _ in op.operands[2:])


def _matrix(argument: Argument, planned: Planned, which: int, turned: bool, plan: Plan, op: Operation) -> Matrix:
    at, text = memory(argument, plan), planned.dense[which]
    copy = Launch(text.name, text.threads, text.blocks, (at, Memory("dense"), *planned.sizes[which]), False, op.loc)
    return Matrix(at, planned.strides[which], turned, copy)


def _dense(v: Value, layout: Layout | None, turned: bool, style: Style) -> tuple[CudaText, tuple[Sym, ...]]:
    """The kernel that copies matrices to where they lie as the library is told, and the sizes that it takes."""
    builder = GraphBuilder("dense")
    x = builder.input(v.type)
    if turned:
        rank = v.type.rank
        (x,) = builder.add(OPS["permute"], [x], {"dims": (*range(rank - 2), rank - 1, rank - 2)})
    body = builder.build(builder.add(OPS["copy"], [x], {}))
    lowered = lower(body, [None if layout is None else layout.strides], [None], [], style)
    (scheduled,), _ = launches(lowered.kernel)
    return emit_scheduled(scheduled), tuple(Sym(name) for name in lowered.symbols)
