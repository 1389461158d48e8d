"""Public functions whose results run along a dimension: cumulative sums, products and extremes, differences.

They are compositions of the scans of `ir/ops/scan.py`, which walk a dimension in ascending order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln import pointwise as P
from kiln import return_types
from kiln.base import TensorBase
from kiln.errors import DTypeError, InvalidValueError, ShapeError
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.ir.ops.scan import products
from kiln.ir.types import DType
from kiln.promotion import apply, cast_to, in_float32, tensor_arg
from kiln.return_types import Pair
from kiln.sorting import gathered
from kiln.spelling import numpy_names

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("cummax", "cummin", "cumprod", "cumsum", "cumulative_trapezoid", "diff", "logcumsumexp", "trapezoid", "trapz"),
]


def _operand(name: str, input: TensorBase, dim: int, dtype: DType | None) -> tuple[Tensor, int]:
    """The operand (bools and integers as int64 unless `dtype` says otherwise) with at least one dimension, and the
    dimension counted from the front."""
    x = tensor_arg(name, input)
    x = cast_to(x, dtype if dtype is not None else x.dtype if x.dtype.is_inexact else T.int64)
    d = F.dim_index(name, dim, x.ndim)
    return (x if x.ndim else F.reshape(x, (1,))), d


@numpy_names
def cumsum(input: TensorBase, dim: int, *, dtype: DType | None = None) -> Tensor:
    """The sums of the elements up to each one along `dim`, one after another; bools and integers sum as int64."""
    x, d = _operand("cumsum", input, dim, dtype)
    return F.reshape(apply(OPS["cumsum"], x, dim=d, reverse=False), input.shape)


@numpy_names
def cumprod(input: TensorBase, dim: int, *, dtype: DType | None = None) -> Tensor:
    """The products of the elements up to each one along `dim`, one after another; bools and integers multiply as int64,
    wrapping. The gradient is right beside zeros too."""
    x, d = _operand("cumprod", input, dim, dtype)
    if x.dtype.is_complex:
        return F.reshape(_complex_products(x, d), input.shape)
    if x.dtype.kind == "float":
        return F.reshape(products(x, d, False), input.shape)
    lead = (slice(None),) * d
    rest = F.mul(x[(*lead, slice(1, None))], 0)
    made = apply(OPS["recur"], x, F.cat([x[(*lead, slice(0, 1))], rest], d), dim=d, reverse=False)
    return F.reshape(made, input.shape)


def _complex_products(x: Tensor, d: int) -> Tensor:
    """Running products in rounds: each element times the one 1, 2, 4, ... before it (Hillis and Steele, 1986)."""
    lead, step = (slice(None),) * d, 1
    while step < x.shape[d]:
        later, earlier = x[(*lead, slice(step, None))], x[(*lead, slice(None, -step))]
        x = F.cat([x[(*lead, slice(0, step))], F.mul(earlier, later)], d)
        step *= 2
    return F.clone(x)


@numpy_names
def cummax(input: TensorBase, dim: int) -> Pair:
    """(values, indices) of the largest element up to each one along `dim`: the last of equals; NaN is the largest."""
    return _extreme(return_types.cummax, "cummax", input, dim, False)


@numpy_names
def cummin(input: TensorBase, dim: int) -> Pair:
    """(values, indices) of the smallest element up to each one along `dim`: the last of equals; NaN is the smallest."""
    return _extreme(return_types.cummin, "cummin", input, dim, True)


def _extreme(made: Any, name: str, input: TensorBase, dim: int, smallest: bool) -> Pair:
    x = tensor_arg(name, input)
    d = F.dim_index(name, dim, x.ndim)
    row = x if x.ndim else F.reshape(x, (1,))
    key = row.detach()
    if smallest:  # what reverses the order exactly
        key = F.neg(key) if x.dtype.kind == "float" else F.bitwise_not(key)
    indices = apply(OPS["cumargmax"], key, dim=d)
    found: Pair = made(F.reshape(gathered(row, d, indices), x.shape), F.reshape(indices, x.shape))
    return found


@in_float32
@numpy_names
def logcumsumexp(input: TensorBase, dim: int) -> Tensor:
    """The log of the sums of exp(input) up to each element along `dim`: sums of exp(input - m), with m the largest so
    far, which takes no part in the gradient."""
    x = tensor_arg("logcumsumexp", input)
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op="logcumsumexp", operands=[x.ttype])
    d = F.dim_index("logcumsumexp", dim, x.ndim)
    if not x.ndim or not x.numel():
        return F.clone(x)
    largest = cummax(x.detach(), d).values
    largest = F.where(P.isfinite(largest), largest, F.where(P.isnan(largest), largest, 0.0))
    lead = (slice(None),) * d
    before = F.cat([largest[(*lead, slice(0, 1))], largest[(*lead, slice(None, -1))]], d)
    factors, terms = F.exp(F.sub(before, largest)), F.exp(F.sub(x, largest))
    return F.add(F.log(apply(OPS["recur"], factors, terms, dim=d, reverse=False)), largest)


# --------------------------------------------------------------------------------------------- differences


@numpy_names
def diff(
    input: TensorBase,
    n: int = 1,
    dim: int = -1,
    prepend: TensorBase | None = None,
    append: TensorBase | None = None,
) -> Tensor:
    """The differences of neighbours along `dim`, `n` times over; of bools whether they differ. `prepend` and `append`
    are joined to the input first."""
    x = tensor_arg("diff", input)
    if not x.ndim:
        raise ShapeError("expects at least one dimension", op="diff", operands=[x.ttype])
    if n < 0:
        raise InvalidValueError(f"n must not be negative, got {n}", op="diff")
    d = F.dim_index("diff", dim, x.ndim)
    parts = [p for p in (prepend, x, append) if p is not None]
    if len(parts) > 1:
        x = F.cat(parts, d)
    lead = (slice(None),) * d
    for _ in range(min(n, x.shape[d])):
        later, earlier = x[(*lead, slice(1, None))], x[(*lead, slice(None, -1))]
        x = F.ne(later, earlier) if x.dtype.kind == "bool" else F.sub(later, earlier)
    return x if n else F.clone(x)


def _areas(name: str, y: TensorBase, x: TensorBase | None, dx: Any, dim: int) -> tuple[Tensor, int]:
    """Twice the areas of the trapezoids between neighbours along `dim`."""
    t = tensor_arg(name, y)
    if not t.ndim:
        raise ShapeError("expects at least one dimension", op=name, operands=[t.ttype])
    if x is not None and dx is not None:
        raise InvalidValueError("takes x or dx, not both", op=name)
    d = F.dim_index(name, dim, t.ndim)
    lead = (slice(None),) * d
    both = F.add(t[(*lead, slice(1, None))], t[(*lead, slice(None, -1))])
    if x is None:
        return F.mul(both, 1 if dx is None else dx), d
    width = diff(x, dim=-1 if x.ndim == 1 else d)
    return F.mul(both, F.reshape(width, (-1, *[1] * (t.ndim - 1 - d))) if x.ndim == 1 else width), d


def trapezoid(y: TensorBase, x: TensorBase | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral of `y` along `dim` by the trapezoidal rule, at points `x` or `dx` (default 1) apart."""
    areas, d = _areas("trapezoid", y, x, dx, dim)
    return F.div(F.sum(areas, d), 2)


def cumulative_trapezoid(y: TensorBase, x: TensorBase | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integrals up to each point but the first, as `trapezoid`."""
    areas, d = _areas("cumulative_trapezoid", y, x, dx, dim)
    return F.div(cumsum(areas, d), 2)


trapz = trapezoid
