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
from kiln.ir.ops.movement import permute
from kiln.ir.types import DType, TensorType, float32


def _matmul_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    a, b = operands
    if a.dtype is not b.dtype:
        raise OpTypeError("matmul", f"operands have dtypes {a.dtype} and {b.dtype}", "dtype")
    if a.dtype not in NUMERIC:
        raise OpTypeError("matmul", f"is not defined for {a.dtype}", "dtype")
    if a.rank < 2 or a.rank != b.rank:
        raise OpTypeError("matmul", f"takes two stacks of matrices of equal rank, got {a} and {b}")
    if a.shape[:-2] != b.shape[:-2]:
        raise OpTypeError("matmul", f"batch dimensions of {a} and {b} differ")
    if a.shape[-1] != b.shape[-2]:
        raise OpTypeError(
            "matmul",
            f"{a} has {a.shape[-1]} columns, {b} has {b.shape[-2]} rows",
            fix="transpose one of them?",
        )
    to = attrs.get("dtype", a.dtype)
    if not isinstance(to, DType) or (to is not a.dtype and not (a.dtype.is_half and to is float32)):
        raise OpTypeError("matmul", f"gives {a.dtype}, not {to}", "dtype", "only 16-bit floats can give float32")
    return (TensorType(to, (*a.shape[:-1], b.shape[-1]), a.device),)


def _matmul_ref(xp: Any, a: Any, b: Any, *, dtype: DType | None = None) -> Any:
    return np.matmul(a, b) if a.dtype.kind in "iu" else order.contract(a, b)


def transposed(x: Any) -> Any:
    """The last two dimensions swapped (a view)."""
    rank = x.ttype.rank
    return permute(x, dims=(*range(rank - 2), rank - 1, rank - 2))


def _matmul_vjp(call: Call, g: Any) -> Sequence[Any]:
    a, b = call.operands
    if g.ttype.dtype is not a.ttype.dtype:
        g = cast(g, dtype=a.ttype.dtype)
    return (
        matmul(g, transposed(b)) if call.needs[0] else None,
        matmul(transposed(a), g) if call.needs[1] else None,
    )


def _matmul_jvp(call: Call, ta: Any, tb: Any) -> Sequence[Any]:
    a, b = call.operands
    parts = [] if ta is None else [matmul(ta, b, **call.attrs)]
    parts += [] if tb is None else [matmul(a, tb, **call.attrs)]
    return (None if not parts else parts[0] if len(parts) == 1 else add(*parts),)


matmul: Final[OpDef] = register(
    OpDef(
        "matmul",
        "matmul(a, b): [..., M, K] @ [..., K, N] -> [..., M, N] with equal batch dimensions; the contraction order of "
        "ir/order.py for floats, wrapping sums for integers; +0 where K is 0. Of 16-bit floats it is float32's, "
        "rounded once, or with dtype=float32 not at all.",
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
