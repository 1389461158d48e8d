"""Ops without operands: constants of one value, counters, literal data.

They are bound through a receiver (`op.bind((), attrs, receiver=x)`), whose graph or device takes the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.graph import Attrs, Constant
from kiln.ir.halves import converted
from kiln.ir.ops.base import Dense, ElementContext, OpDef, OpTypeError, literal, quiet, register, shape_attr
from kiln.ir.types import REAL_DTYPES, TENSOR_DTYPES, DType, Shape, TensorType, dtype_of_numpy


def checked_type(op: str, attrs: Attrs, among: Sequence[DType] = TENSOR_DTYPES) -> TensorType:
    """The type that the attributes `shape` and `dtype` state; OpTypeError when they state none of `among`."""
    dtype, shape = attrs["dtype"], shape_attr(attrs, "shape")
    if not isinstance(dtype, DType) or dtype not in among:
        raise OpTypeError(op, f"can't make a tensor of {dtype}", "dtype")
    check_shape(op, shape)
    return TensorType(dtype, shape)


def check_shape(op: str, shape: Shape) -> None:
    """OpTypeError unless every dimension is at least 0."""
    if any(isinstance(d, int) and d < 0 for d in shape):
        raise OpTypeError(op, f"shape {shape} has a negative dimension", "value")


# ---------------------------------------------------------------------------------------------- full


def _full_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = checked_type("full", attrs)
    value = attrs["value"]
    if not isinstance(value, bool | int | float) and not (isinstance(value, complex) and t.dtype.is_complex):
        raise OpTypeError("full", f"value {value!r} is not a number", "value")
    if t.dtype.is_integer and not (isinstance(value, int) and t.dtype.least <= value <= t.dtype.most):
        raise OpTypeError("full", f"value {value!r} is no {t.dtype}", "value")
    if t.dtype.kind == "bool" and not isinstance(value, bool):
        raise OpTypeError("full", f"value {value!r} is not a bool", "value")
    return (t,)


def _full_ref(xp: Any, *, shape: tuple[int, ...], dtype: DType, value: complex) -> Any:
    return xp.full(shape, converted(np.asarray(value), dtype))


def _full_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    value = ctx.attrs["value"]
    assert isinstance(value, bool | int | float | complex)
    with np.errstate(over="ignore"):  # too large for the dtype is infinity
        return literal(value, ctx.result_type.dtype)


full: Final[OpDef] = register(
    OpDef(
        "full",
        "full(; shape, dtype, value): `value` everywhere. A bool takes a bool, integers an int that fits, floats any "
        "number (rounded to the dtype), complex types also a complex one.",
        _full_types,
        quiet(_full_ref),
        Dense(_full_element),
        traits=frozenset({"constant", "exact", "foldable"}),
        arity=0,
    )
)


def full_like(x: Any, value: float) -> Any:
    """`value` in the shape and dtype of operand `x`, made where `x` lives: the literal of derivative rules."""
    attrs: dict[str, Any] = {"shape": x.ttype.shape, "dtype": x.ttype.dtype, "value": value}
    return full.bind((), attrs, receiver=x)[0]


def zeros_of(t: TensorType, receiver: Any) -> Any:
    """Zeros of type `t`, made where operand `receiver` lives."""
    zero: Any = {"bool": False, "float": 0.0, "complex": 0.0}.get(t.dtype.kind, 0)
    return full.bind((), {"shape": t.shape, "dtype": t.dtype, "value": zero}, receiver=receiver)[0]


# ---------------------------------------------------------------------------------------------- iota


def _iota_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = checked_type("iota", attrs, REAL_DTYPES[1:])
    dim = attrs["dim"]
    if not isinstance(dim, int) or not 0 <= dim < t.rank:
        raise OpTypeError("iota", f"dimension {dim} is out of range for rank {t.rank}", "dim")
    return (t,)


def _iota_ref(xp: Any, *, shape: tuple[int, ...], dtype: DType, dim: int) -> Any:
    counts = converted(np.arange(shape[dim]), dtype)
    along = [-1 if d == dim else 1 for d in range(len(shape))]
    return xp.broadcast_to(counts.reshape(along), shape).copy()


def _iota_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    dim = ctx.attrs["dim"]
    assert isinstance(dim, int)
    return L.cast(index[dim], ctx.result_type.dtype)


iota: Final[OpDef] = register(
    OpDef(
        "iota",
        "iota(; shape, dtype, dim): 0, 1, 2, ... along `dim`, the same along all others (integers wrap; no bool).",
        _iota_types,
        _iota_ref,
        Dense(_iota_element),
        traits=frozenset({"constant", "exact", "foldable"}),
        arity=0,
    )
)


# ------------------------------------------------------------------------------------------ constant


def _constant_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    data = attrs["data"]
    if not isinstance(data, Constant):
        raise OpTypeError("constant", f"data is a {type(data).__name__}, not a Constant", "value")
    dtype = dtype_of_numpy(data.data.dtype)
    if dtype not in TENSOR_DTYPES:
        raise OpTypeError("constant", f"can't hold NumPy's {data.data.dtype}", "dtype")
    return (TensorType(dtype, tuple(data.data.shape)),)


def _constant_ref(xp: Any, *, data: Constant) -> Any:
    return xp.asarray(data.data)


def _constant_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    data = ctx.attrs["data"]
    assert isinstance(data, Constant)
    if data.data.size != 1:
        raise OpTypeError("constant", "data of several elements lives in memory and is bound, not computed", "value")
    return literal(data.data.item(), ctx.result_type.dtype)


constant: Final[OpDef] = register(
    OpDef(
        "constant",
        "constant(; data): literal data held by a `Constant`. Programs carry it as memory; only a single element "
        "is ever part of a kernel's text.",
        _constant_types,
        _constant_ref,
        Dense(_constant_element),
        traits=frozenset({"constant", "exact", "foldable"}),
        arity=0,
    )
)
