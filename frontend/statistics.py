"""Quantiles and covariances, under PyTorch's names: sorting, reading at indices, reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.base import TensorBase
from kiln.errors import DTypeError, InvalidValueError, ShapeError
from kiln.functional import dim_index
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.pointwise import ceil, floor, lerp
from kiln.pointwise import round as rounded
from kiln.promotion import cast_to, floating, full_like_number, in_float32, number, tensor_arg
from kiln.sorting import gathered, positions

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["corrcoef", "cov", "nanquantile", "quantile"]

INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


# --------------------------------------------------------------------------------------- quantiles


def quantile(
    input: TensorBase, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The values that shares `q` (a number, or a tensor of at most one dimension, in [0, 1]) of the elements along
    `dim` (default: all) do not exceed, of float32 or float64; NaN where there is a NaN. The rank q * (n - 1) falls
    between two elements: "linear" interpolates, "lower", "higher" and "nearest" (half to even) choose, "midpoint" is
    their mean. A vector q adds a first dimension. A q outside [0, 1] raises InvalidValueError, in a tensor
    KilnIndexError."""
    return _quantile("quantile", input, q, dim, keepdim, interpolation)


def nanquantile(
    input: TensorBase, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """`quantile` of what is not NaN; NaN where there is nothing else."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation)


def _quantile(name: str, input: TensorBase, q: Any, dim: int | None, keepdim: bool, interpolation: str) -> Tensor:
    x = tensor_arg(name, input)
    if x.dtype not in (T.float32, T.float64):
        raise DTypeError("is defined for float32 and float64", op=name, operands=[x.ttype], fix="cast it with .to()")
    if interpolation not in INTERPOLATIONS:
        raise InvalidValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}", op=name)
    shares = _shares(name, x, q)
    lead, rank = shares.shape, x.ndim
    d = 0 if dim is None else dim_index(name, dim, rank)
    kept = [1 if dim is None or k == d else n for k, n in enumerate(x.shape)]
    rows = F.reshape(x, (-1,)) if dim is None or not rank else F.transpose(x, d, -1)
    if not rows.shape[-1]:
        raise InvalidValueError("there are no elements", op=name, operands=[x.ttype])
    found = _at_shares(rows, F.reshape(shares, (-1,)), name == "nanquantile", interpolation)
    if dim is not None and rank:
        found = F.transpose(found, d, -1)
        sizes = [shares.numel() if k == d else n for k, n in enumerate(kept)]
        found = F.permute(F.reshape(found, sizes), (d, *[k for k in range(rank) if k != d]))
    shape = kept if keepdim else [] if dim is None else [n for k, n in enumerate(kept) if k != d]
    return F.reshape(found, (*lead, *shape))


def _shares(name: str, x: Tensor, q: Any) -> Tensor:
    if not isinstance(q, TensorBase):
        if not 0 <= float(number(q)) <= 1:
            raise InvalidValueError(f"q must be in [0, 1], got {q}", op=name)
        return full_like_number(x, x.dtype, float(q), ())
    shares = tensor_arg(name, q)
    if shares.ndim > 1:
        raise ShapeError("q must be a number or a vector", op=name, operands=[x.ttype, shares.ttype])
    if shares.dtype is not x.dtype:
        raise DTypeError("q must have the tensor's dtype", op=name, operands=[x.ttype, shares.ttype])
    return shares


def _at_shares(rows: Tensor, shares: Tensor, skip_nan: bool, interpolation: str) -> Tensor:
    """[..., n] at shares [s] as [..., s]; NaNs are sorted to the end."""
    ordered = gathered(rows, rows.ndim - 1, positions(rows, rows.ndim - 1, False))
    n = rows.shape[-1]
    if skip_nan:
        count = F.sum(cast_to(F.eq(rows, rows), rows.dtype), -1, keepdim=True)
        ranks = F.mul(shares, F.clamp(F.sub(count, 1.0), min=0.0))
    else:
        ranks = F.where(F.any(F.ne(rows, rows), -1, keepdim=True), float(n - 1), F.mul(shares, float(n - 1)))
    if interpolation in ("lower", "higher", "nearest"):
        ranks = {"lower": floor, "higher": ceil, "nearest": rounded}[interpolation](ranks)
    inside = F.logical_and(F.ge(shares, 0.0), F.le(shares, 1.0))
    below = F.where(inside, cast_to(floor(ranks.detach()), T.int64), n)  # there is no n-th: reading it raises
    low = gathered(ordered, rows.ndim - 1, below)
    if interpolation in ("lower", "higher", "nearest"):
        return low
    above = cast_to(ceil(ranks.detach()), T.int64)
    high = gathered(ordered, rows.ndim - 1, F.where(inside, above, n))
    return lerp(low, high, 0.5 if interpolation == "midpoint" else F.sub(ranks, cast_to(below, ranks.dtype)))


# ------------------------------------------------------------------------------------- covariance


@in_float32
def cov(
    input: TensorBase,
    *,
    correction: int = 1,
    fweights: TensorBase | None = None,
    aweights: TensorBase | None = None,
) -> Tensor:
    """The covariances of variables (rows) over observations (columns): (x - mean) (x - mean)^T / (n - correction); a
    number for one variable. fweights: how often (integers) each observation counts; aweights: how much."""
    x = tensor_arg("cov", input)
    if x.ndim > 2:
        raise ShapeError(f"expects at most 2 dimensions, got {x.ndim}", op="cov", operands=[x.ttype])
    if x.dtype is T.bool_:
        raise DTypeError("is not defined for bools", op="cov", operands=[x.ttype])
    x = floating("cov", x)
    x = x if x.ndim == 2 else F.reshape(x, (1, -1))
    weights = _weights(x, fweights, aweights)
    if weights is None:
        total: Any = float(x.shape[1])
        divisor: Any = max(0.0, total - correction)
        center = F.div(F.sum(x, 1, keepdim=True), total)
    else:
        total = F.sum(weights)
        less: Any = correction
        if aweights is not None and correction:
            less = F.div(F.mul(F.sum(F.mul(weights, floating("cov", aweights))), correction), total)
        divisor = F.clamp(F.sub(total, less), min=0.0)
        center = F.div(F.sum(F.mul(x, weights), 1, keepdim=True), total)
    gap = F.sub(x, center)
    product = F.matmul(gap, F.t(gap if weights is None else F.mul(gap, weights)))
    return F.squeeze(F.div(product, divisor))


def _weights(x: Tensor, fweights: TensorBase | None, aweights: TensorBase | None) -> Tensor | None:
    result: Tensor | None = None
    for label, given, kinds in (("fweights", fweights, ("int", "uint")), ("aweights", aweights, ("float",))):
        if given is None:
            continue
        w = tensor_arg("cov", given)
        if w.dtype.kind not in kinds:
            kind = "floats" if kinds == ("float",) else "integers"
            raise DTypeError(f"{label} must be {kind}", op="cov", operands=[x.ttype, w.ttype])
        if w.ndim > 1 or w.numel() != x.shape[1]:
            raise ShapeError(f"{label} must have one number per observation", op="cov", operands=[x.ttype, w.ttype])
        w = cast_to(F.reshape(w, (-1,)), x.dtype)
        result = w if result is None else F.mul(result, w)
    return result


@in_float32
def corrcoef(input: TensorBase) -> Tensor:
    """The correlations of variables (rows) over observations (columns), kept within [-1, 1]: `cov` divided by both
    standard deviations; 1 for one variable."""
    c = cov(input)
    if not c.ndim:
        return F.div(c, c)
    n = c.shape[0]
    (place,) = OPS["iota"].bind((), {"shape": (n, 1), "dtype": T.int64, "dim": 0}, receiver=c)
    spread = F.sqrt(gathered(c, 1, place))
    return F.clamp(F.div(F.div(c, spread), F.t(spread)), -1.0, 1.0)
