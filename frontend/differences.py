"""Numerical derivatives, and floating point numbers taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln import pointwise as P
from kiln import return_types
from kiln.base import TensorBase
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.ir import types as T
from kiln.maths import log2
from kiln.promotion import cast_to, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["frexp", "gradient"]


def _along(x: Tensor, d: int, *bounds: int | None) -> Tensor:
    return x[(*[slice(None)] * d, slice(*bounds))]


def _gradient(x: Tensor, d: int, spacing: Any, edge_order: int) -> Tensor:
    """Central differences inside, one-sided ones of first or second order at the ends."""
    n = x.shape[d]
    slopes = F.sub(_along(x, d, 1, None), _along(x, d, None, -1))
    if isinstance(spacing, TensorBase) and spacing.ndim:
        points = tensor_arg("gradient", spacing)
        if points.shape != (n,):
            raise ShapeError(f"there must be {n} coordinates", op="gradient", operands=[x.ttype, points.ttype])
        gaps = F.reshape(F.sub(points[1:], points[:-1]), (n - 1, *[1] * (x.ndim - 1 - d)))
        slopes = F.div(slopes, gaps)
        total = F.add(gaps[:-1], gaps[1:])
        shares = F.div(gaps[1:], total), F.div(gaps[:-1], total)
        low, high = _along(slopes, d, None, -1), _along(slopes, d, 1, None)
        inner = F.add(F.mul(low, shares[0]), F.mul(high, shares[1]))
        ends: Any = (shares[1][:1], shares[0][-1:]) if edge_order == 2 else None
    else:
        inner = F.div(F.sub(_along(x, d, 2, None), _along(x, d, None, -2)), spacing * 2)
        slopes = F.div(slopes, spacing)
        ends = (0.5, 0.5) if edge_order == 2 else None
    begin, end = _along(slopes, d, 0, 1), _along(slopes, d, n - 2, n - 1)
    if ends is not None:  # the parabola through three points
        begin = F.sub(begin, F.mul(F.sub(_along(slopes, d, 1, 2), begin), ends[0]))
        end = F.add(end, F.mul(F.sub(end, _along(slopes, d, n - 3, n - 2)), ends[1]))
    return F.cat([begin, inner, end], d)


def gradient(input: TensorBase, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> list[Tensor]:
    """Estimates of the derivative along each of `dim` (default: all), in input's shape. `spacing`: the distance between
    neighbours, one number or one for each dimension, or tensors of coordinates."""
    x = tensor_arg("gradient", input)
    if x.dtype.kind != "float":
        x = cast_to(x, T.float32)
    dims = (
        F.dim_tuple("gradient", dim, x.ndim)
        if not isinstance(dim, Sequence)
        else tuple(F.dim_index("gradient", d, x.ndim) for d in dim)
    )
    if edge_order not in (1, 2):
        raise InvalidValueError(f"edge_order must be 1 or 2, got {edge_order}", op="gradient")
    steps = list(spacing) if isinstance(spacing, (tuple, list)) else [spacing] * len(dims)
    if len(steps) != len(dims):
        raise ArgumentError(f"spacing must be one for each of {len(dims)} dimensions", op="gradient")
    for d in dims:
        if x.shape[d] <= edge_order:
            raise ShapeError(f"dimension {d} needs more than {edge_order} elements", op="gradient", operands=[x.ttype])
    return [_gradient(x, d, step, edge_order) for d, step in zip(dims, steps, strict=True)]


def frexp(input: TensorBase) -> Any:
    """(mantissa, exponent): input = mantissa * 2 ** exponent exactly, with |mantissa| in [0.5, 1) and int32 exponents;
    0, infinities and NaN are their own mantissas, with exponent 0."""
    x = tensor_arg("frexp", input)
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op="frexp", operands=[x.ttype])
    wide = cast_to(x, T.float32) if x.dtype.is_half else x
    usual = F.logical_and(P.isfinite(wide), F.ne(wide, 0.0)).detach()
    bits = 25 if wide.dtype.bits == 32 else 54
    tiny = F.logical_and(usual, F.lt(F.abs(wide), 2.0**-100)).detach()
    scaled = F.where(usual, F.where(tiny, F.mul(F.mul(wide, 2.0**bits), 2.0**bits), wide), 1.0)
    power = P.floor(log2(F.abs(scaled.detach())))
    half = P.trunc(F.mul(power, 0.5))  # two factors, so that neither overflows
    m = F.mul(F.mul(scaled, F.pow(2.0, F.neg(half))), F.pow(2.0, F.sub(half, power)))
    size = F.abs(m.detach())
    move = F.where(F.ge(size, 2.0), 2.0, F.where(F.ge(size, 1.0), 1.0, F.where(F.lt(size, 0.5), -1.0, 0.0)))
    m = F.mul(m, F.pow(2.0, F.neg(move)))
    exponent = F.sub(F.add(power, move), F.where(tiny, 2.0 * bits, 0.0))
    mantissa = cast_to(F.where(usual, m, wide), x.dtype)
    return return_types.frexp(mantissa, cast_to(F.where(usual, exponent, 0.0), T.int32))
