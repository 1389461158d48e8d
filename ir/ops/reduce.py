"""Reductions over `dims` (sorted, non-negative, at least one); reduced dimensions are dropped.

The order of accumulation is `ir/order.py`'s, for eager and compiled code alike, whatever the strides and threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import order
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, OpDef, OpTypeError, Reduction, ints_attr, quiet, register
from kiln.ir.ops.cast import cast
from kiln.ir.ops.create import full_like
from kiln.ir.ops.elementwise import ANY, BOOL, NUMERIC, div, eq, mul, where
from kiln.ir.ops.movement import broadcast, inverse, permute, reshape
from kiln.ir.ops.scan import products_before
from kiln.ir.types import DType, TensorType, dtype_of_numpy, int64


def _checked_dims(op: str, t: TensorType, attrs: Attrs) -> tuple[int, ...]:
    dims = ints_attr(attrs, "dims")
    if not dims:
        raise OpTypeError(op, "needs at least one dimension to reduce", "value")
    for d in dims:
        if not 0 <= d < t.rank:
            raise OpTypeError(op, f"dimension {d} is out of range for {t}", "dim")
    if list(dims) != sorted(set(dims)):
        raise OpTypeError(op, f"dimensions {dims} are not sorted and distinct", "value")
    return dims


def _types(
    op: str, among: Sequence[DType], to: DType | None = None, *, empty: bool = True, single: bool = False
) -> Callable[[Sequence[TensorType], Attrs], tuple[TensorType, ...]]:
    """The type rule: dims dropped, dtype kept or `to`; `empty` says whether reducing nothing has a value."""

    def infer(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        (t,) = operands
        if t.dtype not in among:
            raise OpTypeError(op, f"is not defined for {t.dtype}", "dtype")
        dims = _checked_dims(op, t, attrs)
        if single and len(dims) != 1:
            raise OpTypeError(op, f"reduces one dimension, not {len(dims)}", "value")
        for d in dims:
            if not empty and t.shape[d] == 0:
                raise OpTypeError(
                    op, f"dimension {d} of {t} is empty, and nothing has no {op}", "dim", "check numel() first"
                )
        kept = tuple(n for d, n in enumerate(t.shape) if d not in dims)
        return (TensorType(to or t.dtype, kept, t.device),)

    return infer


def kept_dims(t: TensorType, dims: Sequence[int]) -> tuple[int, ...]:
    """The dimensions of `t` that stay when `dims` are reduced."""
    return tuple(d for d in range(t.rank) if d not in dims)


def _spread(reduced: Any, call: Call) -> Any:
    """A reduced value repeated over the operand's shape."""
    t: TensorType = call.operands[0].ttype
    return broadcast(reduced, shape=t.shape, dims=kept_dims(t, ints_attr(call.attrs, "dims")))


# ----------------------------------------------------------------------------------------------- sum


def _sum_ref(xp: Any, x: Any, *, dims: tuple[int, ...]) -> Any:
    if any(x.shape[d] == 0 for d in dims):
        return np.zeros(tuple(n for d, n in enumerate(x.shape) if d not in dims), x.dtype)
    return order.fold(x, dims, np.add, -0.0 if x.dtype.kind == "f" else 0)


sum_: Final[OpDef] = register(
    OpDef(
        "sum",
        "sum(a; dims): of integers (wrapping) and floats; an empty sum is +0.",
        _types("sum", NUMERIC),
        quiet(_sum_ref),
        Reduction("add"),
        vjp=lambda call, g: (_spread(g, call),),
        jvp=lambda call, t: (None if t is None else sum_(t, **call.attrs),),
        traits=frozenset({"reduction", "parts"}),
        arity=1,
    )
)


# ---------------------------------------------------------------------------------------------- prod


def _prod_ref(xp: Any, x: Any, *, dims: tuple[int, ...]) -> Any:
    if any(x.shape[d] == 0 for d in dims):
        return np.ones(tuple(n for d, n in enumerate(x.shape) if d not in dims), x.dtype)
    return order.fold(x, dims, np.multiply, 1)


def _others(call: Call) -> Any:
    """For every element the product of the others that it is multiplied with: those before it times those behind it, so
    that zeros do no harm."""
    (x,), dims = call.operands, ints_attr(call.attrs, "dims")
    shape: tuple[Any, ...] = x.ttype.shape
    if 0 in shape:
        return x
    turn = (*kept_dims(x.ttype, dims), *dims)
    lead = tuple(shape[d] for d in turn[: len(shape) - len(dims)])
    rows = reshape(permute(x, dims=turn), shape=(*lead, math.prod(shape[d] for d in dims)))
    products = mul(*(products_before(rows, len(lead), reverse) for reverse in (False, True)))
    return permute(reshape(products, shape=tuple(shape[d] for d in turn)), dims=inverse(turn))


def _prod_jvp(call: Call, t: Any) -> Sequence[Any]:
    return (None if t is None else sum_(mul(t, _others(call)), **call.attrs),)


prod: Final[OpDef] = register(
    OpDef(
        "prod",
        "prod(a; dims): of integers (wrapping) and floats; an empty product is 1.",
        _types("prod", NUMERIC),
        quiet(_prod_ref),
        Reduction("mul"),
        vjp=lambda call, g: (mul(_spread(g, call), _others(call)),),
        jvp=_prod_jvp,
        traits=frozenset({"reduction"}),
        saved_operands=(0,),
        arity=1,
    )
)


# ------------------------------------------------------------------------------------------- extrema


def _extremum_ref(combine: str) -> Callable[..., Any]:
    def wins(a: Any, b: Any) -> Any:
        return np.where(((a > b) if combine == "max" else (a < b)) | (a != a), a, b)

    def ref(xp: Any, x: Any, *, dims: tuple[int, ...]) -> Any:
        dtype = dtype_of_numpy(x.dtype)
        assert dtype is not None
        return order.fold(x, dims, wins, order.identity(combine, dtype))

    return ref


def _ties(call: Call) -> tuple[Any, Any]:
    """Where the operand equals the extremum, and how many such elements there are per result."""
    (x,), (y,) = call.operands, call.results
    tied = eq(x, _spread(y, call))
    return tied, sum_(cast(tied, dtype=x.ttype.dtype), dims=call.attrs["dims"])


def _extremum_vjp(call: Call, g: Any) -> Sequence[Any]:
    tied, count = _ties(call)
    share = _spread(div(g, count), call)
    return (where(tied, share, full_like(share, 0.0)),)


def _extremum_jvp(call: Call, t: Any) -> Sequence[Any]:
    if t is None:
        return (None,)
    tied, count = _ties(call)
    return (div(sum_(where(tied, t, full_like(t, 0.0)), dims=call.attrs["dims"]), count),)


def _extremum(name: str, combine: str, doc: str) -> OpDef:
    return register(
        OpDef(
            name,
            doc,
            _types(name, ANY, empty=False),
            quiet(_extremum_ref(combine)),
            Reduction(combine),
            vjp=_extremum_vjp,
            jvp=_extremum_jvp,
            traits=frozenset({"reduction", "exact"}),
            saved_operands=(0,),
            saved_results=(0,),
            arity=1,
        )
    )


amax: Final[OpDef] = _extremum(
    "amax", "max", "amax(a; dims): the largest element; NaN wins. Its gradient is shared evenly among ties."
)
amin: Final[OpDef] = _extremum(
    "amin", "min", "amin(a; dims): the smallest element; NaN wins. Its gradient is shared evenly among ties."
)

argmax: Final[OpDef] = register(
    OpDef(
        "argmax",
        "argmax(a; dims=(d,)): int64 index along d of the largest element; NaN wins, then the lowest index.",
        _types("argmax", ANY, int64, empty=False, single=True),
        lambda xp, x, *, dims: np.asarray(np.argmax(x, axis=dims[0]), np.int64),
        Reduction("argmax"),
        traits=frozenset({"reduction", "exact"}),
        arity=1,
    )
)


# --------------------------------------------------------------------------------------------- logic

any_: Final[OpDef] = register(
    OpDef(
        "any",
        "any(a; dims): or over bool; false when empty.",
        _types("any", BOOL),
        lambda xp, x, *, dims: xp.any(x, axis=dims),
        Reduction("or"),
        traits=frozenset({"reduction", "exact", "foldable"}),
        arity=1,
    )
)
all_: Final[OpDef] = register(
    OpDef(
        "all",
        "all(a; dims): and over bool; true when empty.",
        _types("all", BOOL),
        lambda xp, x, *, dims: xp.all(x, axis=dims),
        Reduction("and"),
        traits=frozenset({"reduction", "exact", "foldable"}),
        arity=1,
    )
)
