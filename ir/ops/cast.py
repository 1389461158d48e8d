"""The one op that changes element types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.halves import converted
from kiln.ir.ops.base import Call, Dense, OpDef, OpTypeError, quiet, register
from kiln.ir.types import REAL_DTYPES, DType, TensorType, int32


def _cast_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,), dtype = operands, attrs["dtype"]
    if not isinstance(dtype, DType) or dtype not in REAL_DTYPES or t.dtype not in REAL_DTYPES:
        raise OpTypeError("cast", f"can't convert {t.dtype} to {dtype}", "dtype")
    return (TensorType(dtype, t.shape, t.device),)


def _cast_ref(xp: Any, x: Any, *, dtype: DType) -> Any:
    if x.dtype.kind == "f" and dtype.is_integer:
        wide = dtype if dtype.bits >= 32 else int32
        low, wider = float(wide.least), x.astype(np.float64)  # exact, and int32's limits need it
        fits = (wider > low - 1) if wide is int32 else (wider >= low)
        return xp.where(fits & (wider < -low), wider, low).astype(wide.numpy).astype(dtype.numpy)
    return converted(x, dtype)


def _cast_expr(x: L.Expr, dtype: DType) -> L.Expr:
    """A float becomes a narrow integer by way of int32, and wraps."""
    if x.dtype.is_floating_point and dtype.is_integer and dtype.bits < 32:
        x = L.cast(x, int32)
    return L.cast(x, dtype)


def _cast_vjp(call: Call, g: Any) -> Sequence[Any]:
    return (cast(g, dtype=call.operands[0].ttype.dtype),)


def _cast_jvp(call: Call, t: Any) -> Sequence[Any]:
    to: Any = call.attrs["dtype"]
    return (None if t is None or not to.is_floating_point else cast(t, dtype=to),)


cast: Final[OpDef] = register(OpDef(
    "cast",
    "cast(a; dtype): value conversion. Float to int64 and int32 truncates, NaN and out of range give the minimum; "
    "float to a narrower integer goes by way of int32; integers wrap; anything to bool is != 0; to a float rounds to "
    "nearest even, to 16-bit floats once from float64, by way of float32 from integers.",
    _cast_types, quiet(_cast_ref),
    Dense(lambda ctx, index: _cast_expr(ctx.read(0, index), ctx.result_type.dtype), pointwise=True),
    _cast_vjp, _cast_jvp,
    traits=frozenset({"elementwise", "exact"}), arity=1,
))  # fmt: skip
