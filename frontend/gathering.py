"""Functions that read and write at indices, composed from `gather` and the scatters of `ir/ops/gather.py`.

Values meet an element in ascending order, so sums and overwriting have one result whatever the number of threads: the
last value written to an element stays. Results whose size depends on data (`nonzero`, `unique`, `masked_select`, ...)
are found on the host, and refused in a capture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import numpy as np

from kiln import functional as F
from kiln import indexing
from kiln.answers import extremes
from kiln.autograd import write_in_place
from kiln.base import MODES, Operand, TensorBase
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, KilnIndexError, ShapeError
from kiln.ir import types as T
from kiln.ir.ops.base import OPS, OpDef
from kiln.positions import flat_positions, host_tensor, how_many, positions
from kiln.promotion import (
    CATEGORY,
    apply,
    broadcast_shapes,
    broadcast_to,
    brought,
    cast_to,
    dtype_of_number,
    full_like_number,
    number,
    same_place,
    tensor_arg,
)
from kiln.spelling import numpy_names

if TYPE_CHECKING:
    from kiln.tensor import Tensor

Self = TypeVar("Self", bound="Tensor")

__all__ = [
    "argwhere", "bincount", "embedding", "gather", "histc", "index_add", "index_copy", "index_fill", "index_put",
    "index_reduce", "index_select", "masked_fill", "masked_scatter", "masked_select", "nonzero", "one_hot", "put",
    "scatter", "scatter_add", "scatter_reduce", "take", "take_along_dim", "unique", "unique_consecutive",
]  # fmt: skip

_GATHER, _SCATTER, _ADD, _MUL = (OPS[k] for k in ("gather", "scatter", "scatter_add", "scatter_mul"))
_REDUCE: Final = {
    "sum": _ADD,
    "prod": _MUL,
    "mean": _ADD,
    "amax": OPS["scatter_max"],
    "amin": OPS["scatter_min"],
}


# ------------------------------------------------------------------------------------------- arguments


def _index(name: str, x: object) -> Tensor:
    """An index tensor as int64; DTypeError unless int64 or int32."""
    i = tensor_arg(name, x)
    if i.dtype not in (T.int64, T.int32):
        raise DTypeError(f"the index must be int64, not {i.dtype}", op=name, operands=[i.ttype], fix="use .long()")
    return cast_to(i, T.int64)


def _line(name: str, x: object) -> Tensor:
    """An index of at most one dimension, as one of exactly one."""
    i = _index(name, x)
    if i.ndim > 1:
        raise ShapeError("the index must be a vector", op=name, operands=[i.ttype])
    return i if i.ndim else F.reshape(i, (1,))


def _same_dtype(name: str, x: Tensor, other: Tensor) -> None:
    if x.dtype is not other.dtype:
        raise DTypeError(
            "both must have one dtype", op=name, operands=[x.ttype, other.ttype], fix="cast one with .to()"
        )


def _vector(x: Tensor) -> Tensor:
    """A 0-d tensor as a vector of one element."""
    return x if x.ndim else F.reshape(x, (1,))


def _along(rank: int, dim: int) -> dict[str, Any]:
    """The scheme of torch.gather: an index of the table's rank."""
    return {"at": tuple(range(rank)), "place": tuple([-1 if d == dim else d for d in range(rank)]), "wrap": False}


def _slices(rank: int, dim: int, ndim: int = 1) -> dict[str, Any]:
    """The scheme of index_select: an index of `ndim` dimensions takes the place of `dim`."""
    place = tuple([d if d < dim else -1 if d == dim else d + ndim - 1 for d in range(rank)])
    return {"at": tuple(range(dim, dim + ndim)), "place": place, "wrap": False}


# --------------------------------------------------------------------------------------------- reading


@numpy_names
def gather(input: TensorBase, dim: int, index: TensorBase, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j][k] = input[i][index[i][j][k]][k] for dim = 1 (so for every dim and rank): an int64 index of input's
    rank, at most as long in the other dimensions. KilnIndexError out of range. `sparse_grad` changes nothing here."""
    del sparse_grad
    x, i = tensor_arg("gather", input), _index("gather", index)
    d = F.dim_index("gather", dim, x.ndim)
    shape = i.shape
    x, i = _paired("gather", x, i)
    result = apply(_GATHER, x, i, **_along(x.ndim, d))
    return result if result.shape == shape else F.reshape(result, shape)


def _paired(name: str, x: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    """Table and index of one rank, at least 1."""
    if max(x.ndim, 1) != max(i.ndim, 1):
        raise ShapeError("the index must have as many dimensions as the tensor", op=name, operands=[x.ttype, i.ttype])
    return _vector(x), _vector(i)


@numpy_names
def index_select(input: TensorBase, dim: int, index: TensorBase) -> Tensor:
    """The slices of `dim` that a vector of int64 names, one after the other. KilnIndexError out of range."""
    x, i = tensor_arg("index_select", input), _line("index_select", index)
    d = F.dim_index("index_select", dim, x.ndim)
    if not x.ndim:
        return F.reshape(apply(_GATHER, F.reshape(x, (1,)), i, **_slices(1, 0)), ())
    return apply(_GATHER, x, i, **_slices(x.ndim, d))


def take(input: TensorBase, index: TensorBase) -> Tensor:
    """The elements of the flattened input at `index` (any shape; negative ones count from the end)."""
    x, i = tensor_arg("take", input), _index("take", index)
    scheme = {**_slices(1, 0, i.ndim), "wrap": True}
    return apply(_GATHER, F.reshape(x, (-1,)), i, **scheme)


@numpy_names
def take_along_dim(input: TensorBase, indices: TensorBase, dim: int | None = None) -> Tensor:
    """gather() with the other dimensions broadcast together; without `dim`, of the flattened tensors."""
    x, i = tensor_arg("take_along_dim", input), _index("take_along_dim", indices)
    if dim is None:
        return gather(F.reshape(x, (-1,)), 0, F.reshape(i, (-1,)))
    if x.ndim != i.ndim:
        raise ShapeError("expects as many dimensions as the tensor", op="take_along_dim", operands=[x.ttype, i.ttype])
    d = F.dim_index("take_along_dim", dim, x.ndim)
    if not x.ndim:
        return gather(x, d, i)
    pairs = [(n, m) for k, (n, m) in enumerate(zip(x.shape, i.shape, strict=True)) if k != d]
    if any(n != m and 1 not in (n, m) for n, m in pairs):
        raise ShapeError("sizes can't be broadcast", op="take_along_dim", operands=[x.ttype, i.ttype])
    shape = [m if n == 1 else n for n, m in zip(x.shape, i.shape, strict=True)]
    x = broadcast_to(x, (*shape[:d], x.shape[d], *shape[d + 1 :]))
    return gather(x, d, broadcast_to(i, (*shape[:d], i.shape[d], *shape[d + 1 :])))


def embedding(
    input: TensorBase,
    weight: TensorBase,
    padding_idx: int | None = None,
    *,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """weight[input]: rows of a table [V, D] for int64 numbers of any shape, as [..., D]. The row `padding_idx` gets no
    gradient. The gradient adds rows in ascending order of `input`. KilnIndexError for a number outside [0, V)."""
    i, w = _index("embedding", input), tensor_arg("embedding", weight)
    if w.ndim != 2:
        raise ShapeError("the table must be a matrix", op="embedding", operands=[i.ttype, w.ttype])
    if max_norm is not None or scale_grad_by_freq or sparse or norm_type != 2.0:
        raise InvalidValueError("max_norm, norm_type, scale_grad_by_freq and sparse are not supported", op="embedding")
    rows = apply(_GATHER, w, i, **_slices(2, 0, i.ndim))
    if padding_idx is None:
        return rows
    if not -w.shape[0] <= padding_idx < w.shape[0]:
        raise KilnIndexError(f"padding_idx {padding_idx} is out of range for {w.shape[0]} rows", op="embedding")
    padding = F.unsqueeze(F.eq(i, padding_idx % w.shape[0]), -1)
    return F.where(padding, rows.detach(), rows)


def masked_select(input: TensorBase, mask: TensorBase) -> Tensor:
    """The elements where the bool mask holds, as a vector; both are broadcast. CaptureError in a capture."""
    x, m = tensor_arg("masked_select", input), _mask("masked_select", mask)
    shape = broadcast_shapes("masked_select", x, m)
    return indexing.get(broadcast_to(x, shape), broadcast_to(m, shape))


def _mask(name: str, x: object) -> Tensor:
    m = tensor_arg(name, x)
    if m.dtype is not T.bool_:
        raise DTypeError(f"the mask must be bool, not {m.dtype}", op=name, operands=[m.ttype])
    return m


# ------------------------------------------------------------------------------------- writing along dim


def scatter(
    input: TensorBase,
    dim: int,
    index: TensorBase,
    src: Operand | None = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """A copy of input with out[i][index[i][j][k]][k] = src[i][j][k] for dim = 1 (so for every dim and rank). `src` is
    a tensor at least as large as `index`, or a number. Where an element is named twice, the last value stays (and
    alone gets a gradient). reduce="add" or "multiply" combines instead."""
    if (src is None) == (value is None):
        raise ArgumentError("takes either src or value", op="scatter")
    ops = {None: _SCATTER, "add": _ADD, "multiply": _MUL}
    if reduce not in ops:
        raise InvalidValueError(f'reduce must be "add" or "multiply", got {reduce!r}', op="scatter")
    return _scattered("scatter", ops[reduce], input, dim, index, value if src is None else src)


def _scattered(name: str, op: OpDef, input: TensorBase, dim: int, index: TensorBase, src: Any) -> Tensor:
    x, i = tensor_arg(name, input), _index(name, index)
    d = F.dim_index(name, dim, x.ndim)
    shape = x.shape
    x, i = _paired(name, x, i)
    v = _source(name, x, i, src)
    result = apply(op, x, v, i, **_along(x.ndim, d))
    return result if result.shape == shape else F.reshape(result, shape)


def _source(name: str, x: Tensor, i: Tensor, src: Any) -> Tensor:
    """The values for an index: a number everywhere, or the leading part of a tensor."""
    if not isinstance(src, TensorBase):
        return full_like_number(x, x.dtype, number(src), i.shape)
    v = _vector(cast("Tensor", src))
    _same_dtype(name, x, v)
    if v.ndim != i.ndim or any(n > m for n, m in zip(i.shape, v.shape, strict=True)):
        raise ShapeError("src must be at least as large as the index", op=name, operands=[i.ttype, v.ttype])
    if v.shape == i.shape:
        return v
    return apply(OPS["slice"], v, starts=(0,) * i.ndim, stops=i.shape, steps=(1,) * i.ndim)


def scatter_add(input: TensorBase, dim: int, index: TensorBase, src: TensorBase) -> Tensor:
    """As `scatter`, with values added, in ascending order of `index`."""
    return _scattered("scatter_add", _ADD, input, dim, index, tensor_arg("scatter_add", src))


def scatter_reduce(
    input: TensorBase, dim: int, index: TensorBase, src: TensorBase, reduce: str, *, include_self: bool = True
) -> Tensor:
    """As `scatter`, with values combined: reduce = "sum", "prod", "mean", "amax" or "amin". Without `include_self`
    the old values of elements that are named do not count."""
    x, i, v = tensor_arg("scatter_reduce", input), _index("scatter_reduce", index), tensor_arg("scatter_reduce", src)
    d = F.dim_index("scatter_reduce", dim, x.ndim)
    shape = x.shape
    x, i = _paired("scatter_reduce", x, i)
    v = _source("scatter_reduce", x, i, v)
    result = _reduced("scatter_reduce", x, v, i, _along(x.ndim, d), reduce, include_self)
    return result if result.shape == shape else F.reshape(result, shape)


def _reduced(
    name: str, x: Tensor, v: Tensor, i: Tensor, scheme: dict[str, Any], reduce: str, include_self: bool
) -> Tensor:
    if reduce not in _REDUCE:
        raise InvalidValueError(f"reduce must be one of {', '.join(_REDUCE)}, got {reduce!r}", op=name)
    table = x
    if not include_self:
        first = full_like_number(v, v.dtype, _identity(reduce, x.dtype), v.shape)
        table = apply(_SCATTER, x, first, i, **scheme)
    result = apply(_REDUCE[reduce], table, v, i, **scheme)
    if reduce != "mean":
        return result
    counts = full_like_number(x, T.int64, int(include_self), x.shape)
    counts = apply(_ADD, counts, full_like_number(v, T.int64, 1, v.shape), i, **scheme)
    counts = F.maximum(counts, 1)
    if x.dtype.is_inexact:
        return F.div(result, cast_to(counts, x.dtype))
    return F.div(result, counts, rounding_mode="floor")


def _identity(reduce: str, dtype: T.DType) -> bool | int | float:
    """What changes nothing."""
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    low = reduce == "amax"
    if dtype.kind == "float":
        return -math.inf if low else math.inf
    if dtype.kind == "bool":
        return not low
    return dtype.least if low else dtype.most


# ------------------------------------------------------------------------------------- writing slices


def _with_slices(name: str, op: OpDef, input: TensorBase, dim: int, index: TensorBase, source: Any) -> Tensor:
    x, i = tensor_arg(name, input), _line(name, index)
    d = F.dim_index(name, dim, x.ndim)
    table = _vector(x)
    shape = (*table.shape[:d], i.shape[0], *table.shape[d + 1 :])
    if isinstance(source, TensorBase):
        v = _vector(cast("Tensor", source))
        _same_dtype(name, x, v)
        if v.shape != shape:
            raise ShapeError(f"the source must have shape {list(shape)}", op=name, operands=[x.ttype, v.ttype])
    else:
        v = full_like_number(x, x.dtype, number(source), shape)
    result = apply(op, table, v, i, **_slices(table.ndim, d))
    return result if x.ndim else F.reshape(result, ())


def index_add(input: TensorBase, dim: int, index: TensorBase, source: TensorBase, *, alpha: float = 1) -> Tensor:
    """input with alpha * source's slices added to the slices of `dim` that `index` (int64 vector) names, ascending."""
    v = tensor_arg("index_add", source)
    return _with_slices("index_add", _ADD, input, dim, index, v if alpha == 1 else F.mul(v, alpha))


def index_copy(input: TensorBase, dim: int, index: TensorBase, source: TensorBase) -> Tensor:
    """input with source's slices in place of the slices of `dim` that `index` names; the last one named stays."""
    return _with_slices("index_copy", _SCATTER, input, dim, index, tensor_arg("index_copy", source))


def index_fill(input: TensorBase, dim: int, index: TensorBase, value: Operand) -> Tensor:
    """input with a number (or 0-d tensor) in the slices of `dim` that `index` names (negative ones from the end)."""
    x, i = tensor_arg("index_fill", input), _line("index_fill", index)
    d = F.dim_index("index_fill", dim, x.ndim)
    table = _vector(x)
    shape = (*table.shape[:d], i.shape[0], *table.shape[d + 1 :])
    v = _number_like("index_fill", x, value, shape)
    scheme = {**_slices(table.ndim, d), "wrap": True}
    result = apply(_SCATTER, table, v, i, **scheme)
    return result if x.ndim else F.reshape(result, ())


def _number_like(name: str, x: Tensor, value: Operand, shape: tuple[int, ...]) -> Tensor:
    """A number or 0-d tensor in x's dtype, everywhere in `shape`; DTypeError when it is of a higher category."""
    if isinstance(value, TensorBase):
        if value.ndim:
            raise ShapeError("the value must be a number or a 0-d tensor", op=name, operands=[x.ttype, value.ttype])
        dtype = value.dtype
    else:
        dtype = dtype_of_number(number(value))
    if CATEGORY[dtype.kind] > CATEGORY[x.dtype.kind]:
        raise DTypeError(f"a value of {dtype} can't be written to {x.dtype}", op=name, operands=[x.ttype])
    if isinstance(value, TensorBase):
        return broadcast_to(cast_to(brought(name, (x, value))[1], x.dtype), shape)
    return full_like_number(x, x.dtype, number(value), shape)


def index_reduce(
    input: TensorBase, dim: int, index: TensorBase, source: TensorBase, reduce: str, *, include_self: bool = True
) -> Tensor:
    """As `index_add`, with slices combined: reduce = "prod", "mean", "amax" or "amin"."""
    x, i, v = tensor_arg("index_reduce", input), _line("index_reduce", index), tensor_arg("index_reduce", source)
    d = F.dim_index("index_reduce", dim, x.ndim)
    if reduce == "sum":
        raise InvalidValueError('"sum" is index_add', op="index_reduce")
    _same_dtype("index_reduce", x, v)
    table, v = _vector(x), _vector(v)
    shape = (*table.shape[:d], i.shape[0], *table.shape[d + 1 :])
    if v.shape != shape:
        raise ShapeError(f"the source must have shape {list(shape)}", op="index_reduce", operands=[x.ttype, v.ttype])
    result = _reduced("index_reduce", table, v, i, _slices(table.ndim, d), reduce, include_self)
    return result if x.ndim else F.reshape(result, ())


# ------------------------------------------------------------------------------------- writing anywhere


def index_put(
    input: TensorBase, indices: Sequence[TensorBase | None], values: Operand, accumulate: bool = False
) -> Tensor:
    """input with `values` (broadcast) at input[indices]; with `accumulate` they are added, ascending. DTypeError
    unless the dtypes agree."""
    x = tensor_arg("index_put", input)
    if isinstance(values, TensorBase):
        _same_dtype("index_put", x, cast("Tensor", values))
    return indexing.written(x, tuple([slice(None) if i is None else i for i in indices]), values, accumulate)


def put(input: TensorBase, index: TensorBase, source: TensorBase, accumulate: bool = False) -> Tensor:
    """input with source's elements at positions `index` (same number of elements) of the flattened tensor."""
    x, i, v = tensor_arg("put", input), _index("put", index), tensor_arg("put", source)
    _same_dtype("put", x, v)
    if i.numel() != v.numel():
        raise ShapeError("index and source must have as many elements", op="put", operands=[i.ttype, v.ttype])
    scheme = {**_slices(1, 0), "wrap": True}
    op = _ADD if accumulate else _SCATTER
    flat = apply(op, F.reshape(x, (-1,)), F.reshape(v, (-1,)), F.reshape(i, (-1,)), **scheme)
    return F.reshape(flat, x.shape)


def masked_fill(input: TensorBase, mask: TensorBase, value: Operand) -> Tensor:
    """`value` (a number or 0-d tensor) where the bool mask holds, else input; both are broadcast."""
    x, m = tensor_arg("masked_fill", input), _mask("masked_fill", mask)
    same_place("masked_fill", (x, m))
    shape = broadcast_shapes("masked_fill", x, m)
    v = _number_like("masked_fill", x, value, shape)
    return apply(OPS["where"], broadcast_to(m, shape), v, broadcast_to(x, shape))


def masked_scatter(input: TensorBase, mask: TensorBase, source: TensorBase) -> Tensor:
    """input with source's elements, in order, where the bool mask holds. CaptureError in a capture."""
    x, m, v = tensor_arg("masked_scatter", input), _mask("masked_scatter", mask), tensor_arg("masked_scatter", source)
    _same_dtype("masked_scatter", x, v)
    shape = broadcast_shapes("masked_scatter", x, m)
    wide, m = broadcast_to(x, shape), broadcast_to(m, shape)
    count = how_many(m, "masked_scatter, which needs as many values as the mask has ones,")
    if count > v.numel():
        raise ShapeError(
            f"the mask has {count} ones, the source {v.numel()} elements", op="masked_scatter", operands=[v.ttype]
        )
    return indexing.written(wide, (m,), F.reshape(v, (-1,))[:count], False)


# ------------------------------------------------------------------------------------------- in place


def _in_place(name: str, function: Callable[..., Tensor]) -> Callable[..., Any]:
    """The method that writes a function's result into its tensor."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Derivatives, the other operands' too, may read the tensor as it was, which the write below would destroy.
        tensors = [x for x in (self, *args, *kwargs.values()) if isinstance(x, TensorBase)]
        recorded = MODES.grad_enabled and any(cast("Tensor", x).requires_grad for x in tensors)
        kept = F.clone(self) if recorded else self
        value = function(kept, *args, **kwargs)
        if value.shape != self.shape:
            raise ShapeError(f"the result has shape {list(value.shape)}", op=name, operands=[self.ttype])
        write_in_place(self, name, OPS["copy"], (value,), {})
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`{function.__name__}`, written into the tensor itself."
    return method


scatter_ = _in_place("scatter_", scatter)
scatter_add_ = _in_place("scatter_add_", scatter_add)
scatter_reduce_ = _in_place("scatter_reduce_", scatter_reduce)
index_add_ = _in_place("index_add_", index_add)
index_copy_ = _in_place("index_copy_", index_copy)
index_fill_ = _in_place("index_fill_", index_fill)
index_reduce_ = _in_place("index_reduce_", index_reduce)
index_put_ = _in_place("index_put_", index_put)
put_ = _in_place("put_", put)
masked_fill_ = _in_place("masked_fill_", masked_fill)
masked_scatter_ = _in_place("masked_scatter_", masked_scatter)


# ------------------------------------------------------------------------------ sizes that depend on data


def nonzero(input: TensorBase, *, as_tuple: bool = False) -> Any:
    """The indices of nonzero elements, row-major, as int64 [count, rank]; or as one vector per dimension."""
    x = tensor_arg("nonzero", input)
    found = positions(x if x.dtype is T.bool_ else F.ne(x, 0), "nonzero()")
    if as_tuple:
        return tuple(found)
    if x.ndim:
        return F.stack(found, 1)
    return full_like_number(found[0], T.int64, 0, (found[0].numel(), 0))


def argwhere(input: TensorBase) -> Tensor:
    """nonzero(input)."""
    return cast("Tensor", nonzero(input))


def bincount(input: TensorBase, weights: TensorBase | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, ... is in a vector of int64; with `weights`, the sum of theirs, ascending (float64,
    or float32 for those). At least `minlength` long. CaptureError in a capture: its length is data."""
    x = _index("bincount", input)
    if x.ndim != 1:
        raise ShapeError("expects a vector", op="bincount", operands=[x.ttype])
    if minlength < 0:
        raise InvalidValueError(f"minlength must not be negative, got {minlength}", op="bincount")
    array = x._read("bincount(), whose length is the largest number,", extremes)
    if array.size and int(array.min()) < 0:
        raise InvalidValueError("numbers must not be negative", op="bincount")
    length = max(minlength, int(array.max()) + 1 if array.size else 0)
    if weights is None:
        v = full_like_number(x, T.int64, 1, x.shape)
    else:
        v = tensor_arg("bincount", weights)
        if v.shape != x.shape:
            raise ShapeError("weights must have the shape of the input", op="bincount", operands=[x.ttype, v.ttype])
        v = v if v.dtype is T.float32 else cast_to(v, T.float64)
    if not length:
        return F.clone(v)
    return apply(_ADD, full_like_number(v, v.dtype, 0, (length,)), v, x, **_slices(1, 0))


def histc(input: TensorBase, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of `bins` equal parts of [min, max] (the last includes max), as input's float
    dtype. With min = max the range is that of the data: then CaptureError in a capture."""
    x = tensor_arg("histc", input)
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op="histc", operands=[x.ttype])
    if bins <= 0:
        raise InvalidValueError(f"bins must be positive, got {bins}", op="histc")
    low, high = float(min), float(max)
    if low > high or not (math.isfinite(low) and math.isfinite(high)):
        raise InvalidValueError(f"[{low}, {high}] is no range", op="histc")
    flat = F.reshape(x, (-1,)).detach()
    if low == high and x.numel():
        array = flat._read("histc() without a range", extremes)
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InvalidValueError(f"the data's range [{low}, {high}] is not finite", op="histc")
    if low == high:
        low, high = low - 1, high + 1
    inside = F.logical_and(F.ge(flat, low), F.le(flat, high))
    place = cast_to(F.div(F.mul(F.sub(F.where(inside, flat, low), low), float(bins)), high - low), T.int64)
    ones = cast_to(inside, x.dtype)
    zeros = full_like_number(flat, x.dtype, 0, (bins,))
    return apply(_ADD, zeros, ones, F.minimum(place, bins - 1), **_slices(1, 0))


def one_hot(tensor: TensorBase, num_classes: int = -1) -> Tensor:
    """int64 [..., num_classes] with 1 at each class of an int64 tensor [...] and 0 elsewhere. -1: one more than the
    largest class, which a capture refuses. KilnIndexError for a class outside [0, num_classes)."""
    x = _index("one_hot", tensor)
    if num_classes == -1:
        array = x._read("one_hot() without num_classes", extremes)
        if not array.size:
            raise InvalidValueError("no classes to count", op="one_hot", fix="pass num_classes")
        num_classes = int(array.max()) + 1
    if num_classes < 1:
        raise InvalidValueError(f"num_classes must be positive, got {num_classes}", op="one_hot")
    i = F.unsqueeze(x, -1)
    zeros = full_like_number(x, T.int64, 0, (*x.shape, num_classes))
    return apply(_SCATTER, zeros, full_like_number(x, T.int64, 1, i.shape), i, **_along(i.ndim, i.ndim - 1))


class Unique(NamedTuple):
    """What `unique` finds besides the values, each None unless asked for."""

    values: Tensor
    inverse: Tensor | None
    counts: Tensor | None


def _unique_result(found: Unique) -> Any:
    asked = [t for t in found if t is not None]
    return asked[0] if len(asked) == 1 else tuple(asked)


def unique(
    input: TensorBase,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements (or slices of `dim`), ascending; with `return_inverse` where each element went, with
    `return_counts` how often each came. NaNs are all different."""
    del sorted  # they always are
    x = tensor_arg("unique", input)
    if x.dtype.is_complex:
        raise DTypeError("complex numbers have no order", op="unique", operands=[x.ttype], fix="use view_as_real")
    if dim is None and MODES.recorder is not None:
        return _unique_result(_unique_captured(x, return_inverse, return_counts))
    array = x._read("unique()")
    axis = None if dim is None else F.dim_index("unique", dim, x.ndim)
    values, inverse, counts = np.unique(array, return_inverse=True, return_counts=True, axis=axis, equal_nan=False)
    inverse = inverse.reshape(array.shape if axis is None else -1)
    return _unique_result(
        Unique(
            host_tensor(values, x),
            host_tensor(inverse, x) if return_inverse else None,
            host_tensor(counts, x) if return_counts else None,
        )
    )


def _unique_captured(x: Tensor, return_inverse: bool, return_counts: bool) -> Unique:
    """As on the host, by ops of a graph: sorted, each element that differs from the one before is new."""
    line = F.reshape(x, (-1,))
    order = apply(OPS["argsort"], line, descending=False)
    ascending = apply(_GATHER, line, order, **_along(1, 0))
    n = line.numel()
    first = full_like_number(line, T.bool_, True, (min(n, 1),))
    fresh = F.cat([first, F.ne(ascending[1:], ascending[:-1])]) if n > 1 else first
    starts = flat_positions(fresh, "unique()")
    values = apply(_GATHER, ascending, starts, **_along(1, 0))
    inverse = counts = None
    if return_inverse:
        ranks = F.sub(apply(OPS["cumsum"], cast_to(fresh, T.int64), dim=0, reverse=False), 1)
        inverse = F.reshape(apply(_SCATTER, F.clone(ranks), ranks, order, **_along(1, 0)), x.shape)
    if return_counts:
        end = full_like_number(line, T.int64, n, (1,))
        counts = F.sub(F.cat([starts[1:], end]), starts) if n else starts
    return Unique(values, inverse, counts)


def unique_consecutive(
    input: TensorBase, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """As `unique` without sorting: only equal neighbours become one."""
    x = tensor_arg("unique_consecutive", input)
    array = x._read("unique_consecutive()")
    axis = 0 if dim is None else F.dim_index("unique_consecutive", dim, x.ndim)
    line = array.reshape(-1) if dim is None else np.moveaxis(np.atleast_1d(array), axis, 0)
    rows = line.reshape(len(line), -1) if line.size else line.reshape(len(line), 0)
    fresh = np.ones(len(line), bool)
    if len(line) > 1:
        fresh[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    values = line[fresh]
    inverse = np.cumsum(fresh) - 1
    counts = np.diff(np.append(np.flatnonzero(fresh), len(line)))
    if dim is None:
        inverse = inverse.reshape(array.shape)
    else:
        values = np.moveaxis(values, 0, axis)
    return _unique_result(
        Unique(
            host_tensor(values, x),
            host_tensor(inverse, x) if return_inverse else None,
            host_tensor(counts, x) if return_counts else None,
        )
    )
