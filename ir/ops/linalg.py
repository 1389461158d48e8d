"""Linear algebra: the matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import order
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import BILINEAR, Call, OpDef, OpTypeError, Template, quiet, register
from kiln.ir.ops.cast import cast
from kiln.ir.ops.elementwise import NUMERIC, add
from kiln.ir.ops.movement import broadcast, permute
from kiln.ir.ops.reduce import sum_
from kiln.ir.types import Dim, DType, TensorType, float32


def _matmul_types(operands: Sequence[TensorType], attrs: Attrs, op: str = "matmul") -> tuple[TensorType, ...]:
    a, b = operands
    if a.dtype is not b.dtype:
        raise OpTypeError(op, f"operands have dtypes {a.dtype} and {b.dtype}", "dtype")
    if a.dtype not in NUMERIC:
        raise OpTypeError(op, f"is not defined for {a.dtype}", "dtype")
    if a.rank < 2 or a.rank != b.rank:
        raise OpTypeError(op, f"takes two stacks of matrices of equal rank, got {a} and {b}")
    if a.shape[:-2] != b.shape[:-2]:
        raise OpTypeError(op, f"batch dimensions of {a} and {b} differ")
    if a.shape[-1] != b.shape[-2]:
        raise OpTypeError(
            op,
            f"{a} has {a.shape[-1]} columns, {b} has {b.shape[-2]} rows",
            fix="transpose one of them?",
        )
    to = attrs.get("dtype", a.dtype)
    if not isinstance(to, DType) or (to is not a.dtype and not (a.dtype.is_half and to is float32)):
        raise OpTypeError(op, f"gives {a.dtype}, not {to}", "dtype", "only 16-bit floats can give float32")
    if (library := attrs.get("library")) is not None:
        if library not in ("nn", "nt", "tn", "tt"):
            raise OpTypeError(op, f"library says how the operands lie, nn, nt, tn or tt, not {library!r}", "dtype")
        if not a.dtype.is_floating_point:
            raise OpTypeError(op, f"no library multiplies {a.dtype}", "dtype")
    return (TensorType(to, (*a.shape[:-1], b.shape[-1]), a.device),)


def _addmm_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    a, b, c = operands
    (product,) = _matmul_types((a, b), attrs, "addmm")
    if c.dtype is not a.dtype:
        raise OpTypeError("addmm", f"what is added has dtype {c.dtype}, the matrices {a.dtype}", "dtype")
    if c.shape != (*product.shape[:-2], product.shape[-1]):
        raise OpTypeError("addmm", f"{c} is no row for each of the matrices {product}")
    return (TensorType(a.dtype, product.shape, a.device),)


def _addmm_ref(xp: Any, a: Any, b: Any, c: Any, **attrs: Any) -> Any:
    return _matmul_ref(xp, a, b) + c[..., None, :]


def _matmul_ref(
    xp: Any, a: Any, b: Any, *, dtype: DType | None = None, library: str | None = None, tf32: bool = False
) -> Any:
    return np.matmul(a, b) if a.dtype.kind in "iu" else order.contract(a, b)


def transposed(x: Any) -> Any:
    """The last two dimensions swapped (a view)."""
    rank = x.ttype.rank
    return permute(x, dims=(*range(rank - 2), rank - 1, rank - 2))


def _matmul_vjp(call: Call, g: Any) -> Sequence[Any]:
    a, b = call.operands[:2]
    if g.ttype.dtype is not a.ttype.dtype:
        g = cast(g, dtype=a.ttype.dtype)
    if "library" in call.attrs:
        return _library_vjp(call, a, b, g)
    return (
        matmul(g, transposed(b)) if call.needs[0] else None,
        matmul(transposed(a), g) if call.needs[1] else None,
    )


def _library_vjp(call: Call, a: Any, b: Any, g: Any) -> Sequence[Any]:
    """The gradients as the library's products too, each laid out as its operand is said to be. They say of themselves
    how the operands lie: `g` row-major, the others as they were."""
    attrs = {k: v for k, v in call.attrs.items() if k == "tf32"}
    left, right = (x == "t" for x in str(call.attrs["library"]))
    da = db = None
    if call.needs[0] and left:
        da = transposed(matmul(b, transposed(g), library=_told(right, True), **attrs))
    elif call.needs[0]:
        da = matmul(g, transposed(b), library=_told(False, not right), **attrs)
    if call.needs[1] and right:
        db = transposed(matmul(transposed(g), a, library=_told(True, left), **attrs))
    elif call.needs[1]:
        db = matmul(transposed(a), g, library=_told(not left, False), **attrs)
    return da, db


def _told(left: bool, right: bool) -> str:
    return "nt"[left] + "nt"[right]


def _matmul_jvp(call: Call, ta: Any, tb: Any) -> Sequence[Any]:
    a, b = call.operands[:2]
    parts = [] if ta is None else [matmul(ta, b, **call.attrs)]
    parts += [] if tb is None else [matmul(a, tb, **call.attrs)]
    return (None if not parts else parts[0] if len(parts) == 1 else add(*parts),)


def _addmm_vjp(call: Call, g: Any) -> Sequence[Any]:
    rank = call.operands[2].ttype.rank
    return (*_matmul_vjp(call, g), sum_(g, dims=(rank - 1,)) if call.needs[2] else None)


def _addmm_jvp(call: Call, ta: Any, tb: Any, tc: Any) -> Sequence[Any]:
    (made,) = _matmul_jvp(call, ta, tb)
    if tc is None:
        return (made,)
    rows = as_rows(tc, call.results[0].ttype.shape)
    return (rows if made is None else add(made, rows),)


def as_rows(c: Any, shape: tuple[Dim, ...]) -> Any:
    """What an `addmm` of this shape adds, as it is added."""
    rank = len(shape)
    return broadcast(c, dims=(*range(rank - 2), rank - 1), shape=shape)


matmul: Final[OpDef] = register(
    OpDef(
        "matmul",
        "matmul(a, b): [..., M, K] @ [..., K, N] -> [..., M, N] with equal batch dimensions; the contraction order of "
        "ir/order.py for floats, wrapping sums for integers; +0 where K is 0. Of 16-bit floats it is float32's, "
        "rounded once, or with dtype=float32 not at all. With `library` a GPU's library computes it, in its own order, "
        "and is told whether operands lie row by row (n) or transposed (t); with tf32 it may round float32 to tf32.",
        _matmul_types,
        quiet(_matmul_ref),
        Template("matmul"),
        vjp=_matmul_vjp,
        jvp=_matmul_jvp,
        saved_operands=(0, 1),
        saved_for=BILINEAR,
        arity=2,
    )
)


addmm: Final[OpDef] = register(
    OpDef(
        "addmm",
        "addmm(a, b, c): [..., M, K] @ [..., K, N] + [..., 1, N], for c [..., N]: matmul and add, for 16-bit floats "
        "rounded once. With `library` and tf32 as of matmul; otherwise it becomes these ops before code is made.",
        _addmm_types,
        quiet(_addmm_ref),
        Template("addmm"),
        vjp=_addmm_vjp,
        jvp=_addmm_jvp,
        saved_operands=(0, 1),
        saved_for=(*BILINEAR, ((), ())),
        arity=3,
    )
)
