"""More reductions and running ones, under PyTorch's names: each a composition of primitives, in the order that it is
written in. 16-bit floats are computed in float32, and each result is rounded once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from kiln import functional as F
from kiln.base import TensorBase
from kiln.errors import DTypeError, InvalidValueError, KilnIndexError, NotYetError
from kiln.functional import Dims, Extremum, dim_index, dim_tuple
from kiln.gathering import gather
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.ir.types import DType
from kiln.maths import logaddexp
from kiln.promotion import cast_to, floating, tensor_arg, wide
from kiln.sorting import Sorted, lower_median

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("aminmax", "count_nonzero", "cummax", "cummin", "cumprod", "cumsum", "diff", "dist", "logcumsumexp", "logsumexp"),
    *("median", "nanmean", "nansum", "norm", "prod", "std", "std_mean", "var", "var_mean", "vector_norm"),
]

Function = TypeVar("Function", bound=Callable[..., Any])


def _in_float32(function: Function) -> Function:
    """The first argument, of 16-bit floats, as float32, and the result, or each of them, back."""

    @functools.wraps(function)
    def run(input: TensorBase, *args: Any, **kwargs: Any) -> Any:
        x = tensor_arg(function.__name__, input)
        if not x.dtype.is_half:
            return function(x, *args, **kwargs)
        result = function(wide(x), *args, **kwargs)
        if isinstance(result, TensorBase):
            return cast_to(cast("Tensor", result), x.dtype)
        return type(result)(*(cast_to(t, x.dtype) if t.dtype is T.float32 else t for t in result))

    return cast("Function", run)


def _floats(name: str, x: Tensor) -> Tensor:
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op=name, operands=[x.ttype], fix="convert it with float()")
    return x


# ------------------------------------------------------------------------------------- variance


class _Spread(NamedTuple):
    """What std_mean and var_mean return."""

    spread: Tensor
    mean: Tensor


def _variance(name: str, x: Tensor, dim: Any, unbiased: Any, keepdim: bool, correction: Any) -> _Spread:
    """The mean of squared differences from the mean, divided by count - correction; NaN where that is 0, as 0 / 0."""
    _floats(name, x)
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise InvalidValueError("takes unbiased or correction, not both", op=name)
    less = (1 if unbiased in (None, True) else 0) if correction is None else correction
    dims = dim_tuple(name, dim, x.ndim)
    count = math.prod([x.shape[d] for d in dims])
    center = F.div(F.sum(x, dims, keepdim=True), float(count))
    gap = F.sub(x, center)
    total = F.sum(F.mul(gap, gap), dims, keepdim=keepdim)
    return _Spread(F.div(total, max(0.0, float(count - less))), center if keepdim else F.sum(center, dims))


@_in_float32
def var(
    input: TensorBase, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """The variance over `dim` (default: all), with divisor count - correction (default 1; 0 for unbiased=False)."""
    return _variance("var", cast("Tensor", input), dim, unbiased, keepdim, correction).spread


@_in_float32
def std(
    input: TensorBase, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """The square root of `var`."""
    return F.sqrt(_variance("std", cast("Tensor", input), dim, unbiased, keepdim, correction).spread)


@_in_float32
def var_mean(
    input: TensorBase, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> _Spread:
    """(var, mean)."""
    return _variance("var_mean", cast("Tensor", input), dim, unbiased, keepdim, correction)


@_in_float32
def std_mean(
    input: TensorBase, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> _Spread:
    """(std, mean)."""
    found = _variance("std_mean", cast("Tensor", input), dim, unbiased, keepdim, correction)
    return _Spread(F.sqrt(found.spread), found.mean)


# ----------------------------------------------------------------------------------------- norms


@_in_float32
def vector_norm(
    x: TensorBase, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """(sum of |x|^ord)^(1/ord) over `dim` (default: all); the largest or least magnitude for ord = inf or -inf, the
    count of nonzero elements for 0. The derivative at a norm of 0 is 0 for ord = 2."""
    t = _floats("vector_norm", cast("Tensor", x) if dtype is None else cast_to(cast("Tensor", x), dtype))
    magnitude = F.abs(t)
    if ord == math.inf:
        return F.amax(magnitude, dim, keepdim)
    if ord == -math.inf:
        return F.amin(magnitude, dim, keepdim)
    if ord == 0:
        return F.sum(cast_to(F.ne(t, 0.0), t.dtype), dim, keepdim)
    if ord == 1:
        return F.sum(magnitude, dim, keepdim)
    if ord == 2:
        total = F.sum(F.mul(t, t), dim, keepdim)
        zero = F.eq(total, 0.0)
        return F.where(zero, 0.0, F.sqrt(F.where(zero, 1.0, total)))
    return F.pow(F.sum(F.pow(magnitude, ord), dim, keepdim), 1 / ord)


def norm(
    input: TensorBase, p: Any = "fro", dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """`vector_norm` with torch.norm's arguments: p a number, or "fro" (2)."""
    if p == "nuc":
        raise NotYetError("the nuclear norm needs singular values", op="norm")
    if not (p is None or p == "fro" or isinstance(p, (int, float))):
        raise InvalidValueError(f'p must be a number or "fro", got {p!r}', op="norm")
    return vector_norm(tensor_arg("norm", input), 2 if p in (None, "fro") else p, dim, keepdim, dtype=dtype)


def dist(input: TensorBase, other: TensorBase, p: float = 2) -> Tensor:
    """The p-norm of input - other."""
    return vector_norm(F.sub(tensor_arg("dist", input), other), p)


@_in_float32
def logsumexp(input: TensorBase, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(e^input)) over `dim`, without overflow: the largest element is taken out."""
    x = floating("logsumexp", input)
    dims = dim_tuple("logsumexp", dim, x.ndim)
    top = F.amax(x.detach(), dims, keepdim=True) if x.numel() else F.sum(x.detach(), dims, keepdim=True)
    top = F.where(F.eq(F.abs(top), math.inf), 0.0, top)
    total = F.log(F.sum(F.exp(F.sub(x, top)), dims, keepdim=True))
    result = F.add(total, top)
    return result if keepdim else F.reshape(result, [n for d, n in enumerate(x.shape) if d not in dims])


# ---------------------------------------------------------------------------------- NaN, counts, products


@_in_float32
def nansum(input: TensorBase, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """`sum` of what is not NaN."""
    x = cast("Tensor", input)
    if x.dtype.kind == "float":
        x = F.where(F.ne(x, x), 0.0, x)
    return F.sum(x, dim, keepdim, dtype=dtype)


@_in_float32
def nanmean(input: TensorBase, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """`mean` of what is not NaN; NaN where there is nothing else."""
    x = _floats("nanmean", cast("Tensor", input))
    count = F.sum(cast_to(F.eq(x, x), x.dtype), dim, keepdim)
    return F.div(nansum(x, dim, keepdim, dtype=dtype), count)


def count_nonzero(input: TensorBase, dim: Dims = None) -> Tensor:
    """How many elements are not 0, as int64."""
    return F.sum(F.ne(tensor_arg("count_nonzero", input), 0), dim)


class MinMax(NamedTuple):
    """What aminmax returns."""

    min: Tensor
    max: Tensor


def aminmax(input: TensorBase, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """The least and the largest element over `dim` (default: all)."""
    return MinMax(F.amin(input, dim, keepdim), F.amax(input, dim, keepdim))


def median(input: TensorBase, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower one of the two middle elements, NaN if there is one: of all, or (values, indices) along `dim`."""
    x = tensor_arg("median", input)
    if x.dtype is T.bool_:
        raise DTypeError("is not defined for bools", op="median", operands=[x.ttype])
    if dim is None:
        return lower_median(F.reshape(x, (-1,)), 0).values
    found: Sorted = lower_median(x, dim, keepdim)
    return Extremum(found.values, found.indices)


def _halved(x: Tensor, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first half of dimension `d`, the second, and what is left over (of size 0 or 1)."""
    half = x.shape[d] // 2
    parts = (slice(0, half), slice(half, 2 * half), slice(2 * half, None))
    first, second, rest = (x[(*[slice(None)] * d, part)] for part in parts)
    return first, second, rest


@_in_float32
def prod(input: TensorBase, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The product over `dim` (default: all): halves are multiplied with each other until one element is left. Bools
    and integers give int64."""
    x = cast("Tensor", input)
    x = cast_to(x, dtype if dtype is not None else x.dtype if x.dtype.kind == "float" else T.int64)
    if dim is None:
        result = prod(F.reshape(x, (-1,)), 0)
        return F.reshape(result, [1] * x.ndim) if keepdim else result
    d = dim_index("prod", dim, x.ndim)
    if not x.ndim:
        return F.clone(x)
    shape = [n for k, n in enumerate(x.shape) if k != d]
    if not x.shape[d]:
        return F.add(F.sum(x, d, keepdim), 1)
    while x.shape[d] > 1:
        first, second, rest = _halved(x, d)
        x = F.mul(first, second)
        if rest.shape[d]:
            x = F.cat([x, rest], d)
    return F.clone(x) if keepdim else F.reshape(x, shape)


# ------------------------------------------------------------------------------------------ running


def _running(name: str, x: Tensor, dim: int, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Every element combined with all before it along `dim`: in steps of 1, 2, 4, ..., each element takes in what
    lies that far before it (Hillis and Steele, "Data parallel algorithms", 1986)."""
    d = dim_index(name, dim, x.ndim)
    if not x.ndim:
        return F.clone(x)
    before: tuple[slice, ...] = (slice(None),) * d
    step = 1
    while step < x.shape[d]:
        moved = combine(x[(*before, slice(0, x.shape[d] - step))], x[(*before, slice(step, None))])
        x = F.cat([x[(*before, slice(0, step))], moved], d)
        step *= 2
    return x if step > 1 else F.clone(x)


@_in_float32
def cumsum(input: TensorBase, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Sums of all elements up to each along `dim`; bools and integers give int64."""
    x = cast("Tensor", input)
    x = cast_to(x, dtype if dtype is not None else x.dtype if x.dtype.kind == "float" else T.int64)
    return _running("cumsum", x, dim, F.add)


@_in_float32
def cumprod(input: TensorBase, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Products of all elements up to each along `dim`; bools and integers give int64."""
    x = cast("Tensor", input)
    x = cast_to(x, dtype if dtype is not None else x.dtype if x.dtype.kind == "float" else T.int64)
    return _running("cumprod", x, dim, F.mul)


@_in_float32
def logcumsumexp(input: TensorBase, dim: int) -> Tensor:
    """log of the cumsum of e^input along `dim`, without overflow."""
    return _running("logcumsumexp", _floats("logcumsumexp", cast("Tensor", input)), dim, logaddexp)


def _running_extremum(name: str, input: TensorBase, dim: int, better: Callable[[Any, Any], Tensor]) -> Extremum:
    """Running extrema with the last index that reaches each; a NaN stays."""
    x = tensor_arg(name, input)
    d = dim_index(name, dim, x.ndim)
    if not x.ndim:
        return Extremum(F.clone(x), F.sum(cast_to(F.ne(x, x), T.int64)) * 0)
    before: tuple[slice, ...] = (slice(None),) * d
    values, size = x.detach(), x.shape[d]
    (places,) = OPS["iota"].bind((), {"shape": x.shape, "dtype": T.int64, "dim": d}, receiver=x)
    step = 1
    while step < size:
        early, late = (*before, slice(0, size - step)), (*before, slice(step, None))
        keep = F.logical_or(better(values[late], values[early]), F.ne(values[late], values[late]))
        keep = F.logical_or(keep, F.eq(values[late], values[early]))
        keep = F.logical_and(keep, F.logical_or(F.eq(values[early], values[early]), F.ne(values[late], values[late])))
        head = (*before, slice(0, step))
        values, places = (F.cat([now[head], F.where(keep, now[late], now[early])], d) for now in (values, places))
        step *= 2
    return Extremum(gather(x, d, places), places)


def cummax(input: TensorBase, dim: int) -> Extremum:
    """(values, indices) of the largest element up to each along `dim`; the last one among equals, NaN wins."""
    return _running_extremum("cummax", input, dim, F.gt)


def cummin(input: TensorBase, dim: int) -> Extremum:
    """(values, indices) of the least element up to each along `dim`; the last one among equals, NaN wins."""
    return _running_extremum("cummin", input, dim, F.lt)


def diff(input: TensorBase, n: int = 1, dim: int = -1) -> Tensor:
    """Differences of neighbours along `dim`, `n` times; of bools, whether they differ."""
    x = tensor_arg("diff", input)
    if not x.ndim:
        raise KilnIndexError("a 0-d tensor has no neighbours", op="diff", operands=[x.ttype])
    d = dim_index("diff", dim, x.ndim)
    before: tuple[slice, ...] = (slice(None),) * d
    for _ in range(n):
        late, early = x[(*before, slice(1, None))], x[(*before, slice(0, max(0, x.shape[d] - 1)))]
        x = F.ne(late, early) if x.dtype is T.bool_ else F.sub(late, early)
    return x
