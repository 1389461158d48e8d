"""Membership, choices of elements, and copies with one part replaced."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kiln import functional as F
from kiln import movement as M
from kiln import pointwise as P
from kiln import return_types
from kiln.answers import extremes
from kiln.base import Operand, TensorBase
from kiln.convolution import table
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.gathering import index_select, scatter_add
from kiln.ir import types as T
from kiln.promotion import cast_to, full_like_number, result_type, tensor_arg
from kiln.sorting import searchsorted, sort

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "broadcast_shapes", "combinations", "diagonal_scatter", "histogram", "isin", "select_scatter", "slice_scatter",
    "split_with_sizes", "unravel_index",
]  # fmt: skip


def isin(elements: Operand, test_elements: Operand, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Which of `elements` are among `test_elements` (with `invert`: are not), as bools. NaN is equal to nothing."""
    del assume_unique
    known = [x for x in (elements, test_elements) if isinstance(x, TensorBase)]
    if not known:
        raise ArgumentError("expected at least one tensor", op="isin")
    dtype = result_type(elements, test_elements)

    def made(x: Any) -> Tensor:
        if isinstance(x, TensorBase):
            return cast_to(tensor_arg("isin", x).detach(), dtype)
        return full_like_number(known[0], dtype, x, ())

    x, table_ = made(elements), F.reshape(made(test_elements), (-1,))
    if dtype is T.bool_:
        x, table_ = cast_to(x, T.uint8), cast_to(table_, T.uint8)
    if not table_.shape[0]:
        return full_like_number(x, T.bool_, invert)
    some = None
    if dtype.kind == "float":  # NaN in the table: another element in its place, if there is one
        none = P.isnan(table_)
        least = F.amin(F.where(none, math.inf, table_))
        table_, some = F.where(none, least, table_), F.logical_not(F.all(none))
    row = sort(table_).values
    place = F.clamp(searchsorted(row, x), max=row.shape[0] - 1)
    found = F.eq(F.reshape(index_select(row, 0, F.reshape(place, (-1,))), x.shape), x)
    found = found if some is None else F.logical_and(found, some)
    return F.logical_not(found) if invert else found


def combinations(input: TensorBase, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of `r` elements of a vector in their order, as rows [count, r]."""
    x = tensor_arg("combinations", input)
    if x.ndim != 1:
        raise ShapeError("expects a vector", op="combinations", operands=[x.ttype])
    if r < 0:
        raise InvalidValueError(f"r must not be negative, got {r}", op="combinations")
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(x.shape[0]), r)), np.int64).reshape(-1, r)
    if not r:
        return x[:0]
    return F.reshape(index_select(x, 0, table(x, rows.reshape(-1))), rows.shape)


def unravel_index(indices: TensorBase, shape: Any) -> tuple[Tensor, ...]:
    """The places in a tensor of `shape` that row-major numbers stand for, one int64 tensor for each dimension."""
    i = tensor_arg("unravel_index", indices)
    if not i.dtype.is_integer:
        raise DTypeError(f"numbers must be integers, not {i.dtype}", op="unravel_index", operands=[i.ttype])
    i = cast_to(i, T.int64)
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    found: list[Tensor] = []
    for n in reversed(sizes):
        found.append(P.remainder(i, n))
        i = P.floor_divide(i, n)
    return tuple(reversed(found))


def broadcast_shapes(*shapes: Any) -> tuple[int, ...]:
    """The shape that tensors of these shapes (tuples or ints) broadcast to; ShapeError where there is none."""
    each = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    try:
        return tuple(np.broadcast_shapes(*each))
    except ValueError:
        raise ShapeError(f"{', '.join(map(str, each))} can't be broadcast", op="broadcast_shapes") from None


def split_with_sizes(input: TensorBase, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of these sizes along `dim`, one after the other."""
    return tuple(M.split(input, list(split_sizes), dim))


# ------------------------------------------------------------------------------------ one part replaced


def _replaced(name: str, input: TensorBase, src: TensorBase, part: Callable[[Tensor], Tensor]) -> Tensor:
    """A copy of `input` with `src` in place of a view. The view's elements are found by number."""
    x, v = tensor_arg(name, input), tensor_arg(name, src)
    numbers = table(x, np.arange(x.numel(), dtype=np.int64).reshape(x.shape))
    places = part(numbers)
    if places.shape != v.shape:
        raise ShapeError(f"src must have shape {list(places.shape)}", op=name, operands=[x.ttype, v.ttype])
    flat, i = F.reshape(x, (-1,)), F.reshape(places, (-1,))
    made = flat.scatter(0, i, F.reshape(cast_to(v, x.dtype), (-1,)))
    return F.reshape(made, x.shape)


def select_scatter(input: TensorBase, src: TensorBase, dim: int, index: int) -> Tensor:
    """A copy of input whose slice select(dim, index) is `src`."""
    return _replaced("select_scatter", input, src, lambda x: M.select(x, dim, index))


def slice_scatter(
    input: TensorBase, src: TensorBase, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy of input whose elements start:end:step along `dim` are `src`."""

    def part(x: Tensor) -> Tensor:
        d = F.dim_index("slice_scatter", dim, x.ndim)
        return x[(*[slice(None)] * d, slice(start, end, step))]

    return _replaced("slice_scatter", input, src, part)


def diagonal_scatter(input: TensorBase, src: TensorBase, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of input whose diagonal(offset, dim1, dim2) is `src`."""
    return _replaced("diagonal_scatter", input, src, lambda x: M.diagonal(x, offset, dim1, dim2))


# --------------------------------------------------------------------------------------------- counting


def histogram(
    input: TensorBase,
    bins: int | TensorBase,
    *,
    range: tuple[float, float] | None = None,
    weight: TensorBase | None = None,
    density: bool = False,
) -> Any:
    """(hist, bin_edges): how many elements (or what sum of weights) lie between neighbouring edges, the last edge
    included; with `density`, so that hist times widths adds up to 1. Edges are given, or equal parts of `range`
    (default: that of the data, which a capture refuses)."""
    x = tensor_arg("histogram", input).detach()
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op="histogram", operands=[x.ttype])
    flat = F.reshape(x, (-1,))
    if isinstance(bins, TensorBase):
        edges = tensor_arg("histogram", bins)
        if edges.ndim != 1 or edges.dtype is not x.dtype or not edges.shape[0]:
            what = "edges must be a vector of the input's dtype"
            raise ShapeError(what, op="histogram", operands=[x.ttype, edges.ttype])
    else:
        if bins < 1:
            raise InvalidValueError(f"bins must be positive, got {bins}", op="histogram")
        edges = cast_to(table(x, np.linspace(*_span(flat, range), bins + 1)), x.dtype)
    count = edges.shape[0] - 1
    place = F.sub(searchsorted(edges, flat, right=True), 1)
    place = F.where(F.eq(flat, edges[-1]), count - 1, place)
    inside = F.logical_and(F.ge(flat, edges[0]), F.le(flat, edges[-1]))
    values = cast_to(inside, x.dtype)
    if weight is not None:
        w = tensor_arg("histogram", weight)
        if w.shape != x.shape:
            raise ShapeError("weights must have the input's shape", op="histogram", operands=[x.ttype, w.ttype])
        values = F.where(inside, F.reshape(cast_to(w, x.dtype), (-1,)), 0.0)
    zeros = full_like_number(flat, x.dtype, 0, (count,))
    hist = scatter_add(zeros, 0, F.where(inside, place, 0), values)
    if density:
        hist = F.div(hist, F.mul(F.sum(hist), F.sub(edges[1:], edges[:-1])))
    return return_types.histogram(hist, edges)


def _span(flat: Tensor, given: tuple[float, float] | None) -> tuple[float, float]:
    if given is not None:
        low, high = map(float, given)
    elif not flat.numel():
        low, high = 0.0, 0.0
    else:
        data = flat._read("histogram() without a range", extremes)
        low, high = float(data.min()), float(data.max())
    if low > high or not (math.isfinite(low) and math.isfinite(high)):
        raise InvalidValueError(f"[{low}, {high}] is no range", op="histogram")
    return (low - 0.5, high + 0.5) if low == high else (low, high)
