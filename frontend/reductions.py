"""Public reductions beyond those of `functional.py`: products, variances, norms, and what skips NaN or counts.

Each is the composition that it is written as. 16-bit floats are computed in float32 and rounded once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln import pointwise as P
from kiln import return_types
from kiln.base import Operand, TensorBase
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, NotYetError
from kiln.functional import Dims
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.ir.types import DType
from kiln.promotion import apply, cast_to, full_like_number, in_float32, inexact, promote_types, tensor_arg
from kiln.return_types import MinMax, Pair
from kiln.sorting import gathered, lower_median, positions
from kiln.spelling import numpy_names

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("aminmax", "count_nonzero", "dist", "logsumexp", "median", "mode", "nanmean", "nanmedian", "nansum", "norm"),
    *("prod", "std", "std_mean", "var", "var_mean", "vector_norm"),
]


def _floats(name: str, input: object) -> Tensor:
    """A floating point operand; DTypeError otherwise."""
    x = tensor_arg(name, input)
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op=name, operands=[x.ttype], fix="cast to a float dtype")
    return x


def _inexact(name: str, input: object) -> Tensor:
    """A floating point or complex operand; DTypeError otherwise."""
    x = tensor_arg(name, input)
    return x if x.dtype.is_complex else _floats(name, x)


def _count(name: str, x: Tensor, dim: Dims) -> int:
    """How many elements each result is made of."""
    return math.prod([x.shape[d] for d in F.dim_tuple(name, dim, x.ndim)])


# ----------------------------------------------------------------------------------------- sums, products


@numpy_names
def prod(input: TensorBase, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The product along `dim` (default: of all), 1 of nothing; bools and integers multiply as int64, wrapping. The
    gradient is right beside zeros too."""
    x = tensor_arg("prod", input)
    if dtype is None:
        dtype = x.dtype if x.dtype.is_inexact else T.int64
    x = cast_to(x, dtype)
    return _complex_prod(x, dim, keepdim) if x.dtype.is_complex else F.reduce(OPS["prod"], x, dim, keepdim)


def _complex_prod(x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    """Halves are multiplied with each other, an odd last element is kept, until one is left."""
    flat = F.reshape(x, (-1,)) if dim is None or not x.ndim else x
    d = 0 if flat is not x else F.dim_index("prod", dim or 0, x.ndim)
    lead = (slice(None),) * d
    y = flat
    while (n := y.shape[d]) > 1:
        half = n // 2
        product = F.mul(y[(*lead, slice(0, half))], y[(*lead, slice(half, 2 * half))])
        y = F.cat([product, y[(*lead, slice(2 * half, n))]], d) if n % 2 else product
    if not n:
        y = full_like_number(y, y.dtype, 1.0, (*y.shape[:d], 1, *y.shape[d + 1 :]))
    shape = tuple([1 if dim is None or k == d else s for k, s in enumerate(x.shape)])
    kept = shape if keepdim else tuple([s for k, s in enumerate(x.shape) if dim is not None and k != d])
    return F.clone(F.reshape(y, kept))


@numpy_names
def nansum(input: TensorBase, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The sum with NaN counted as 0."""
    x = tensor_arg("nansum", input)
    if x.dtype.is_complex:
        raise DTypeError(f"is not defined for {x.dtype}", op="nansum", operands=[x.ttype], fix="use sum, or nan_to_num")
    return F.sum(F.where(P.isnan(x), 0.0, x) if x.dtype.kind == "float" else x, dim, keepdim, dtype=dtype)


@numpy_names
def nanmean(input: TensorBase, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The mean of what is not NaN; NaN where there is nothing else."""
    x = _floats("nanmean", input)
    return _nanmean(x if dtype is None else cast_to(x, dtype), dim, keepdim)


@in_float32
def _nanmean(x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    count = F.sum(cast_to(F.eq(x, x), x.dtype), dim, keepdim)
    return F.div(nansum(x, dim, keepdim), count)


@numpy_names
def count_nonzero(input: TensorBase, dim: Dims = None) -> Tensor:
    """How many elements are not zero (NaN is not), int64."""
    return F.sum(cast_to(tensor_arg("count_nonzero", input), T.bool_), dim)


@in_float32
@numpy_names
def logsumexp(input: TensorBase, dim: Dims, keepdim: bool = False) -> Tensor:
    """m + log(sum(exp(input - m))) along `dim`, where m is the largest (of real parts), or 0 where that
    is infinite; m takes no part in the gradient. Integers become floats."""
    x = inexact("logsumexp", input)
    dims = F.dim_tuple("logsumexp", dim, x.ndim)
    if 0 in [x.shape[d] for d in dims]:
        return F.log(F.sum(F.exp(x), dim, keepdim))
    largest = F.amax((F.parts(x)[0] if x.dtype.is_complex else x).detach(), dims, keepdim=True)
    largest = F.where(P.isinf(largest), 0.0, largest)
    total = F.log(F.sum(F.exp(F.sub(x, largest)), dim, keepdim=True))
    result = F.add(total, largest)
    return result if keepdim else F.squeeze(result, dims) if dims else result


# -------------------------------------------------------------------------------------------- variances


def _correction(name: str, unbiased: bool | None, correction: float | None) -> float:
    if unbiased is not None and correction is not None:
        raise InvalidValueError("takes unbiased or correction, not both", op=name)
    return float(unbiased) if unbiased is not None else 1.0 if correction is None else float(correction)


def _moments(
    name: str, input: TensorBase, dim: Any, unbiased: bool | None, keepdim: bool, correction: float | None
) -> tuple[Tensor, Tensor]:
    """Variance and mean: sum((x - mean)^2) / max(0, n - correction). A bool in the place of `dim` is `unbiased`."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    x = _inexact(name, input)
    divisor = max(0.0, _count(name, x, dim) - _correction(name, unbiased, correction))
    mean = F.mean(x, dim, keepdim=True)
    gap = F.sub(x, mean)
    variance = F.div(F.sum(_squares(gap), dim, keepdim), divisor)
    return variance, mean if keepdim else F.reshape(mean, variance.shape)


def _squares(x: Tensor) -> Tensor:
    """x * x, of complex numbers re * re + im * im."""
    if not x.dtype.is_complex:
        return F.mul(x, x)
    re, im = F.parts(x)
    return F.add(F.mul(re, re), F.mul(im, im))


def _widely(name: str, input: TensorBase) -> tuple[Tensor, DType]:
    """The operand, as float32 where it has 16 bits, and its dtype."""
    x = tensor_arg(name, input)
    return (cast_to(x, T.float32) if x.dtype.is_half else x), x.dtype


@numpy_names
def var(
    input: TensorBase,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance along `dim` (default: of all): sum((x - mean)^2) / max(0, n - correction), correction 1 by default.
    DTypeError for integers and bools."""
    x, dtype = _widely("var", input)
    return cast_to(_moments("var", x, dim, unbiased, keepdim, correction)[0], dtype.part)


@numpy_names
def std(
    input: TensorBase,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """sqrt(var); its gradient where that is 0 is NaN unless the outer one is 0."""
    x, dtype = _widely("std", input)
    return cast_to(F.sqrt(_moments("std", x, dim, unbiased, keepdim, correction)[0]), dtype.part)


@numpy_names
def var_mean(
    input: TensorBase,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(var, mean)."""
    x, dtype = _widely("var_mean", input)
    variance, mean = _moments("var_mean", x, dim, unbiased, keepdim, correction)
    return cast_to(variance, dtype.part), cast_to(mean, dtype)


@numpy_names
def std_mean(
    input: TensorBase,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(std, mean)."""
    x, dtype = _widely("std_mean", input)
    variance, mean = _moments("std_mean", x, dim, unbiased, keepdim, correction)
    return cast_to(F.sqrt(variance), dtype.part), cast_to(mean, dtype)


# ------------------------------------------------------------------------------------------------ norms


def vector_norm(
    x: TensorBase, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The norm of order `ord` along `dim` (default: of all elements): sum(|x|^ord)^(1 / ord), the largest or smallest
    size for inf and -inf, the number of nonzero elements for 0. The gradient at the zero vector is 0. DTypeError for
    integers and bools, and where `dtype` is narrower; InvalidValueError of nothing for negative orders and inf."""
    t = _inexact("vector_norm", x)
    if not isinstance(ord, (int, float)) or isinstance(ord, bool):
        raise ArgumentError(f"ord must be a number, got {ord!r}", op="vector_norm")
    if dtype is not None and promote_types(t.dtype, dtype) is not dtype:
        raise DTypeError(
            f"can't be narrowed to {dtype}", op="vector_norm", operands=[t.ttype], fix="cast it with .to()"
        )
    if (ord < 0 or ord == math.inf) and not _count("vector_norm", t, dim):
        raise InvalidValueError(f"nothing has no norm of order {ord}", op="vector_norm", operands=[t.ttype])
    return _norm(t if dtype is None else cast_to(t, dtype), float(ord), dim, keepdim)


@in_float32
def _norm(x: Tensor, p: float, dim: Dims, keepdim: bool) -> Tensor:
    if x.dtype.is_complex and p != 2:
        x = F.abs(x)
    size = F.abs(x)
    if p in (math.inf, -math.inf):
        return (F.amax if p > 0 else F.amin)(size, () if dim is None else dim, keepdim)
    if p == 0:
        return F.sum(cast_to(F.ne(x, 0.0), x.dtype), dim, keepdim)
    if p == 1:
        return F.sum(size, dim, keepdim)
    if p == 2:
        powers = _squares(x)
    elif p >= 1:
        powers = F.pow(size, p)
    else:  # there the power's slope at 0 is infinite, and counts nothing
        still = F.eq(x, 0.0)
        powers = F.where(still, 0.0 if p > 0 else math.inf, F.pow(F.where(still, 1.0, size), p))
    total = F.sum(powers, dim, keepdim)
    zero = F.eq(total, 0.0)
    safe = F.where(zero, 1.0, total)
    none = 0.0 if p > 0 else math.inf
    return F.where(zero, none, F.sqrt(safe) if p == 2 else F.pow(safe, 1.0 / p))


@numpy_names
def norm(
    input: TensorBase,
    p: float | str | None = "fro",
    dim: Dims = None,
    keepdim: bool = False,
    out: None = None,
    dtype: DType | None = None,
) -> Tensor:
    """vector_norm of order `p`; "fro" and None mean 2. The nuclear norm is not there yet."""
    if out is not None:
        raise NotYetError("out= is not supported", op="norm", fix="use copy_")
    if p == "nuc":
        raise NotYetError("the nuclear norm is not supported", op="norm")
    if isinstance(p, str) and p != "fro":
        raise InvalidValueError(f'p must be a number, "fro" or None, got {p!r}', op="norm")
    return vector_norm(input, 2 if p is None or isinstance(p, str) else p, dim, keepdim, dtype=dtype)


def dist(input: TensorBase, other: Operand, p: float = 2) -> Tensor:
    """The norm of order `p` of input - other, all elements together."""
    return vector_norm(F.sub(_inexact("dist", input), other), p)


# --------------------------------------------------------------------------------------------- extremes


@numpy_names
def aminmax(input: TensorBase, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """(amin, amax) along `dim` (default: of all)."""
    dims: Dims = () if dim is None else dim
    made: MinMax = return_types.aminmax(F.amin(input, dims, keepdim), F.amax(input, dims, keepdim))
    return made


@numpy_names
def median(input: TensorBase, dim: int | None = None, keepdim: bool = False) -> Any:
    """median(input): the lower one of the two middle elements, NaN if there is one or nothing; equals share the
    gradient. median(input, dim): (values, indices) along a dimension. DTypeError for bools."""
    x = tensor_arg("median", input)
    if x.dtype is T.bool_:
        raise DTypeError("is not defined for bools", op="median", operands=[x.ttype])
    if dim is not None:
        return lower_median(x, dim, keepdim)
    if not x.numel():
        return _nothing("median", x)
    return _shared(x, lower_median(F.reshape(x, (-1,)), 0).values)


@numpy_names
def nanmedian(input: TensorBase, dim: int | None = None, keepdim: bool = False) -> Any:
    """As `median`, of what is not NaN; NaN where there is nothing else."""
    x = tensor_arg("nanmedian", input)
    if x.dtype.kind != "float":
        return median(x, dim, keepdim)
    if dim is None:
        return _shared(x, nanmedian(F.reshape(x, (-1,)), 0).values) if x.numel() else _nothing("nanmedian", x)
    d = F.dim_index("nanmedian", dim, x.ndim)
    if not x.ndim:
        return return_types.nanmedian(*lower_median(x, dim, keepdim))
    order = positions(x, d, False)  # NaN comes last
    numbers = F.sum(F.eq(x, x).detach(), d, keepdim=True)
    middle = F.clamp(P.floor_divide(F.sub(numbers, 1), 2), min=0)
    indices = gathered(order, d, middle)
    values = gathered(x, d, indices)
    return _found(return_types.nanmedian, values, indices, d, keepdim)


def _nothing(name: str, x: Tensor) -> Tensor:
    if x.dtype.kind != "float":
        raise InvalidValueError("there are no elements", op=name, operands=[x.ttype])
    return F.sum(F.mul(x, math.nan)) * math.nan


def _shared(x: Tensor, value: Tensor) -> Tensor:
    """`value`, an element of `x`, with a gradient that the elements equal to it share."""
    if not x.requires_grad:
        return value
    value = value.detach()
    equal = F.logical_or(F.eq(x, value), F.logical_and(P.isnan(x), P.isnan(value)))
    moves = F.where(F.logical_and(equal, P.isfinite(x)), F.sub(x, x.detach()), 0.0)
    return F.add(value, F.div(F.sum(moves), F.sum(cast_to(equal, x.dtype))))


def _found(kind: Any, values: Tensor, indices: Tensor, d: int, keepdim: bool) -> Pair:
    made: Pair = kind(values, indices) if keepdim else kind(F.squeeze(values, d), F.squeeze(indices, d))
    return made


@numpy_names
def mode(input: TensorBase, dim: int = -1, keepdim: bool = False) -> Pair:
    """(values, indices) of the most frequent element along `dim`: the smallest of several, and where it is last."""
    x = tensor_arg("mode", input)
    d = F.dim_index("mode", dim, x.ndim)
    if not x.ndim:
        return _found(return_types.mode, *lower_median(x, dim, keepdim), d, keepdim=True)
    if not x.shape[d]:
        raise InvalidValueError(f"dimension {d} has no elements", op="mode", operands=[x.ttype])
    order = positions(x, d, False)
    row = gathered(x.detach(), d, order)
    lead = (slice(None),) * d
    same = F.eq(row[(*lead, slice(1, None))], row[(*lead, slice(None, -1))])
    first = F.logical_and(F.eq(order[(*lead, slice(0, 1))], -1), False)
    ones = F.add(F.mul(order, 0), 1)
    runs = apply(OPS["recur"], cast_to(F.cat([first, same], d), T.int64), ones, dim=d, reverse=False)
    indices = gathered(order, d, F.argmax(runs, d, keepdim=True))
    values = gathered(x, d, indices)
    return _found(return_types.mode, values, indices, d, keepdim)
