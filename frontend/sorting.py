"""Order: sorting, the largest and smallest, positions in sorted rows.

All of it is `argsort` (stable; NaN counts as larger than every number), its beginning `topk`, or `searchsorted` of
`ir/ops/sort.py`, and reading at the positions found; so values have gradients, and everything can be captured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln import return_types
from kiln.base import Operand, TensorBase
from kiln.errors import DTypeError, InvalidValueError, KilnIndexError, ShapeError
from kiln.ir.ops.base import OPS
from kiln.ir.ops.sort import LONGEST, MOST
from kiln.ir.types import bool_, float64, int32, int64
from kiln.promotion import apply, cast_to, full_like_number, number, result_type, tensor_arg
from kiln.return_types import Pair
from kiln.spelling import numpy_names

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["argsort", "bucketize", "kthvalue", "msort", "searchsorted", "sort", "topk"]


def positions(x: Tensor, d: int, descending: bool) -> Tensor:
    """The positions along `d` in order; 0 of a 0-d tensor."""
    x = x.detach()
    if not x.ndim:
        return F.reshape(apply(OPS["argsort"], F.reshape(x, (1,)), descending=descending), ())
    if x.shape[d] >= LONGEST:  # wide elements have the same order
        x = cast_to(x, float64 if x.dtype.is_floating_point else int64)
    if d == x.ndim - 1:
        return apply(OPS["argsort"], x, descending=descending)
    return F.transpose(apply(OPS["argsort"], F.transpose(x, d, -1), descending=descending), d, -1)


def first_positions(x: Tensor, d: int, k: int, descending: bool) -> Tensor:
    """The first `k` positions along `d` in order; 0 of a 0-d tensor."""
    if not x.ndim or not 1 <= k <= MOST:
        order = positions(x, d, descending)
        return order[(*[slice(None)] * d, slice(0, k))] if x.ndim else order
    x = x.detach()
    if d == x.ndim - 1:
        return apply(OPS["topk"], x, k=k, descending=descending)
    return F.transpose(apply(OPS["topk"], F.transpose(x, d, -1), k=k, descending=descending), d, -1)


def gathered(x: Tensor, d: int, indices: Tensor) -> Tensor:
    """x at positions along `d`."""
    if not x.ndim:
        return F.clone(x)
    place = tuple([-1 if k == d else k for k in range(x.ndim)])
    return apply(OPS["gather"], x, indices, at=tuple(range(x.ndim)), place=place, wrap=False)


@numpy_names
def sort(input: TensorBase, dim: int = -1, descending: bool = False, stable: bool = False) -> Pair:
    """(values, indices) with the elements along `dim` in order. Always stable; NaN is larger than every number."""
    del stable
    x = tensor_arg("sort", input)
    d = F.dim_index("sort", dim, x.ndim)
    indices = positions(x, d, descending)
    made: Pair = return_types.sort(gathered(x, d, indices), indices)
    return made


@numpy_names
def argsort(input: TensorBase, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices of `sort`, int64."""
    del stable
    x = tensor_arg("argsort", input)
    return positions(x, F.dim_index("argsort", dim, x.ndim), descending)


def msort(input: TensorBase) -> Tensor:
    """The values of `sort` along dimension 0."""
    return sort(input, 0).values


@numpy_names
def topk(input: TensorBase, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Pair:
    """(values, indices) of the k largest (or smallest) elements along `dim`, the most extreme first; of equal ones
    the first. NaN is the largest."""
    del sorted  # they always are
    x = tensor_arg("topk", input)
    d = F.dim_index("topk", dim, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if not 0 <= k <= n:
        raise InvalidValueError(f"k is {k}, there are {n} elements along dimension {d}", op="topk", operands=[x.ttype])
    indices = F.contiguous(first_positions(x, d, k, largest))
    made: Pair = return_types.topk(gathered(x, d, indices), indices)
    return made


@numpy_names
def kthvalue(input: TensorBase, k: int, dim: int = -1, keepdim: bool = False) -> Pair:
    """(values, indices) of the k-th smallest element (from 1) along `dim`; NaN is the largest."""
    x = tensor_arg("kthvalue", input)
    d = F.dim_index("kthvalue", dim, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if not 1 <= k <= n:
        raise InvalidValueError(f"k is {k}, there are {n} elements along dimension {d}", op="kthvalue")
    return _one(return_types.kthvalue, x, d, _kept(first_positions(x, d, k, False), d, k - 1), keepdim)


def _kept(indices: Tensor, d: int, k: int) -> Tensor:
    """The k-th of the positions along `d`, which stays with size one."""
    return indices[(*[slice(None)] * d, slice(k, k + 1))] if indices.ndim else indices


def _one(kind: Any, x: Tensor, d: int, indices: Tensor, keepdim: bool) -> Pair:
    """One element along `d`."""
    values = gathered(x, d, indices)
    if not keepdim and x.ndim:
        values, indices = F.squeeze(values, d), F.squeeze(indices, d)
    made: Pair = kind(values, F.contiguous(indices))
    return made


def lower_median(input: TensorBase, dim: int, keepdim: bool = False) -> Pair:
    """(values, indices) of the lower one of the two middle elements along `dim`, or of the first NaN where there is
    one. KilnIndexError when there are no elements."""
    x = tensor_arg("median", input)
    d = F.dim_index("median", dim, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if not n:
        raise KilnIndexError(f"dimension {d} has no elements", op="median", operands=[x.ttype])
    indices = _kept(positions(x, d, False), d, (n - 1) // 2)
    if x.dtype.kind == "float" and x.ndim:
        nan = F.ne(x, x)
        first = F.argmax(cast_to(nan, x.dtype), d, keepdim=True)
        indices = F.where(F.any(nan, d, keepdim=True), first, indices)
    return _one(return_types.median, x, d, indices, keepdim)


# ---------------------------------------------------------------------------------------- sorted rows


def searchsorted(
    sorted_sequence: TensorBase,
    input: Operand,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: TensorBase | None = None,
) -> Tensor:
    """Where elements of `input` would be inserted in ascending rows (the last dimension; one row serves all), int64 (or
    int32): before the elements equal to them, or with right=True (side="right") behind. `sorter`: what would sort the
    rows."""
    row = tensor_arg("searchsorted", sorted_sequence)
    if side not in (None, "left", "right") or (side == "left" and right):
        raise InvalidValueError(f"side is {side!r}, right is {right}", op="searchsorted")
    if not row.ndim:
        raise ShapeError("the sorted sequence needs a dimension", op="searchsorted", operands=[row.ttype])
    if isinstance(input, TensorBase):
        v = tensor_arg("searchsorted", input)
        if v.dtype is not row.dtype:
            raise DTypeError("both must have one dtype", op="searchsorted", operands=[row.ttype, v.ttype])
    else:
        v = full_like_number(row, result_type(row, number(input)), number(input), ())
    if sorter is not None:
        order = tensor_arg("searchsorted", sorter)
        if order.shape != row.shape:
            raise ShapeError(
                "the sorter must have the rows' shape", op="searchsorted", operands=[row.ttype, order.ttype]
            )
        row = gathered(row, row.ndim - 1, order)
    dtype = result_type(row, v)
    if dtype is bool_:
        raise DTypeError("is not defined for bools", op="searchsorted", operands=[row.ttype, v.ttype])
    table, values = cast_to(row.detach(), dtype), cast_to(v.detach(), dtype)
    kind = int32 if out_int32 else int64
    if table.ndim == 1:
        found = apply(OPS["searchsorted"], table, F.reshape(values, (-1,)), right=right or side == "right")
        return cast_to(F.reshape(found, v.shape), kind)
    if table.shape[:-1] != values.shape[:-1]:
        raise ShapeError("all dimensions but the last must agree", op="searchsorted", operands=[row.ttype, v.ttype])
    return cast_to(apply(OPS["searchsorted"], table, values, right=right or side == "right"), kind)


def bucketize(input: Operand, boundaries: TensorBase, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of ascending boundaries (a vector) below each element, int64; with right=True, not above it."""
    row = tensor_arg("bucketize", boundaries)
    if row.ndim != 1:
        raise ShapeError("boundaries must be a vector", op="bucketize", operands=[row.ttype])
    return searchsorted(row, input, out_int32=out_int32, right=right)
