"""Reductions of runs of elements, counts of points in boxes, and binomial numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kiln import functional as F
from kiln import movement as M
from kiln import return_types
from kiln.base import TensorBase
from kiln.checks import holds
from kiln.convolution import table
from kiln.cumulative import cumsum
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, NotYetError, ShapeError
from kiln.gathering import scatter_add, scatter_reduce
from kiln.ir import types as T
from kiln.pointwise import floor
from kiln.promotion import cast_to, full_like_number, in_float32, tensor_arg, together
from kiln.selection import _span
from kiln.sorting import searchsorted

if TYPE_CHECKING:
    from kiln.random import Generator
    from kiln.tensor import Tensor

__all__ = ["binomial", "histogramdd", "segment_reduce"]

_NAMES: Final = {"sum": "sum", "mean": "sum", "prod": "prod", "max": "amax", "amax": "amax", "min": "amin",
                 "amin": "amin"}  # fmt: skip
_EMPTY: Final = {"sum": 0.0, "prod": 1.0, "amax": -math.inf, "amin": math.inf}


def segment_reduce(
    data: TensorBase,
    reduce: str,
    *,
    lengths: TensorBase | None = None,
    indices: TensorBase | None = None,
    offsets: TensorBase | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Tensor:
    """One number for each run of elements along `axis`: the "sum", "mean", "prod", "max" or "min".

    How long runs are say `lengths`, or `offsets` where they begin and the last one ends: integers, for all dimensions
    before `axis` and then one for each run. `initial` takes part in each reduction, and is the result of an empty run,
    otherwise 0, NaN, 1, -inf and inf. Floats only.

    InvalidValueError for lengths that are negative or do not add up to the size (unless `unsafe`), and for another
    `reduce`; ShapeError, DTypeError. NotYetError for `indices`.
    """
    x = tensor_arg("segment_reduce", data)
    if indices is not None:
        raise NotYetError("runs can't be given by indices", op="segment_reduce", fix="pass lengths or offsets")
    if reduce not in _NAMES:
        raise InvalidValueError(f"reduce must be sum, mean, prod, max or min, got {reduce!r}", op="segment_reduce")
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op="segment_reduce", operands=[x.ttype], fix="use .float()")
    given = lengths if lengths is not None else offsets
    if given is None:
        raise ArgumentError("needs lengths or offsets", op="segment_reduce")
    runs = tensor_arg("segment_reduce", given)
    if not runs.dtype.is_integer:
        raise DTypeError(f"lengths must be integers, not {runs.dtype}", op="segment_reduce", operands=[runs.ttype])
    d = F.dim_index("segment_reduce", axis, x.ndim)
    if runs.ndim != d + 1 or x.ndim <= d or runs.shape[:-1] != x.shape[:d]:
        raise ShapeError("lengths have the dimensions before axis, and one for runs", op="segment_reduce",
                         operands=[x.ttype, runs.ttype])  # fmt: skip
    runs = cast_to(runs, T.int64)
    if lengths is not None:
        _check_lengths(x, runs, d, unsafe)
        runs = F.cat([full_like_number(runs, T.int64, 0, (*runs.shape[:-1], 1)), cumsum(runs, -1)], -1)
    return _segments(x, runs, reduce, d, initial)


def _check_lengths(x: Tensor, runs: Tensor, d: int, unsafe: bool) -> None:
    if not holds(F.ge(runs, 0)):
        raise InvalidValueError("a length is negative", op="segment_reduce")
    if not unsafe and not holds(F.eq(F.sum(runs, -1), x.shape[d])):
        raise InvalidValueError(f"lengths do not add up to {x.shape[d]}", op="segment_reduce", fix="unsafe=True")


@in_float32
def _segments(x: Tensor, ends: Tensor, reduce: str, d: int, initial: float | None) -> Tensor:
    """`ends`: where runs begin, and where the last one ends. What lies in none goes to one more run, left out later."""
    lead, n, rest = x.shape[:d], x.shape[d], x.shape[d + 1 :]
    count = ends.shape[-1] - 1
    places = F.expand(table(x, np.arange(n)), (*lead, n))
    run = F.sub(searchsorted(ends, F.contiguous(places), right=True), 1)
    run = F.where(F.logical_or(F.lt(run, 0), F.gt(run, count)), count, run)
    run = F.expand(F.reshape(run, (*lead, n, *(1 for _ in rest))), x.shape)
    kind = _NAMES[reduce]
    start = full_like_number(x, x.dtype, _EMPTY[kind], (*lead, count + 1, *rest))
    found = M.narrow(scatter_reduce(start, d, run, x, kind, include_self=False), d, 0, count)
    if initial is not None:
        first = float(initial)
        match kind:
            case "sum":
                found = F.add(found, first)
            case "prod":
                found = F.mul(found, first)
            case "amax":
                found = F.where(F.lt(found, first), first, found)
            case _:
                found = F.where(F.gt(found, first), first, found)
    if reduce != "mean":
        return found
    many = F.sub(ends[..., 1:], ends[..., :-1])
    many = cast_to(F.reshape(many, (*lead, count, *(1 for _ in rest))), x.dtype)
    empty = F.eq(many, 0.0)
    return F.where(empty, math.nan if initial is None else float(initial), F.div(found, F.where(empty, 1.0, many)))


def histogramdd(
    input: TensorBase,
    bins: int | Sequence[Any],
    *,
    range: Sequence[float] | None = None,
    weight: TensorBase | None = None,
    density: bool = False,
) -> Any:
    """(hist, bin_edges) of points: `input` is [..., D], and hist has D dimensions. How many points, or what sum of
    weights, lie between neighbouring edges, the last ones included; with `density`, so that hist times the volumes of
    boxes adds up to 1. Edges are vectors, or equal parts of `range`, a low and a high number for each dimension
    (default: those of the data, which a capture refuses)."""
    x = tensor_arg("histogramdd", input).detach()
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op="histogramdd", operands=[x.ttype])
    if x.ndim < 2:
        raise ShapeError("expects points, [..., D]", op="histogramdd", operands=[x.ttype])
    size = x.shape[-1]
    parts = [bins] * size if isinstance(bins, int) else list(bins)
    if len(parts) != size:
        raise InvalidValueError(f"needs bins for {size} dimensions, got {len(parts)}", op="histogramdd")
    if range is not None and len(range) != 2 * size:
        raise InvalidValueError(f"needs a range of {2 * size} numbers, got {len(range)}", op="histogramdd")
    points = F.reshape(x, (-1, size))
    edges, inside, place = [], None, None
    for k, part in enumerate(parts):
        line = points[:, k]
        span = None if range is None else (range[2 * k], range[2 * k + 1])
        edge = _edges(x, line, part, span)
        edges.append(edge)
        count = edge.shape[0] - 1
        at = F.where(F.eq(line, edge[-1]), count - 1, F.sub(searchsorted(edge, line, right=True), 1))
        here = F.logical_and(F.ge(line, edge[0]), F.le(line, edge[-1]))
        inside = here if inside is None else F.logical_and(inside, here)
        place = at if place is None else F.add(F.mul(place, count), at)
    if inside is None or place is None:
        raise ShapeError("points have no dimensions", op="histogramdd", operands=[x.ttype])
    shape = tuple([e.shape[0] - 1 for e in edges])
    values = cast_to(inside, x.dtype)
    if weight is not None:
        w = tensor_arg("histogramdd", weight)
        if w.shape != x.shape[:-1]:
            raise ShapeError("needs a weight for each point", op="histogramdd", operands=[x.ttype, w.ttype])
        values = F.where(inside, F.reshape(cast_to(w, x.dtype), (-1,)), 0.0)
    zeros = full_like_number(x, x.dtype, 0, (math.prod(shape),))
    hist = F.reshape(scatter_add(zeros, 0, F.where(inside, place, 0), values), shape)
    if density:
        hist = F.div(hist, F.sum(hist))
        for k, e in enumerate(edges):
            hist = F.div(hist, F.reshape(F.sub(e[1:], e[:-1]), tuple([-1 if j == k else 1 for j in _dims(size)])))
    return return_types.histogramdd(hist, tuple(edges))


def _dims(size: int) -> list[int]:
    return list(range(size))


def _edges(x: Tensor, line: Tensor, part: Any, span: tuple[float, float] | None) -> Tensor:
    if isinstance(part, TensorBase):
        edges = tensor_arg("histogramdd", part)
        if edges.ndim != 1 or edges.dtype is not x.dtype or edges.shape[0] < 2:
            what = "edges must be vectors of the input's dtype"
            raise ShapeError(what, op="histogramdd", operands=[x.ttype, edges.ttype])
        return edges
    if not isinstance(part, int) or part < 1:
        raise InvalidValueError(f"bins must be positive, got {part}", op="histogramdd")
    return cast_to(table(x, np.linspace(*_span(line, span), part + 1)), x.dtype)


def binomial(count: TensorBase, prob: TensorBase, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials of probability `prob` succeed: floats, broadcast, in their common dtype, without a
    gradient. 0 where one is not positive, all for probabilities from 1 on; fractions of trials count nothing, and NaN
    gives NaN. DTypeError for other dtypes."""
    from kiln.distributions import sampling  # lies above this file

    for x in (tensor_arg("binomial", count), tensor_arg("binomial", prob)):
        if x.dtype.kind != "float":
            raise DTypeError(f"is not defined for {x.dtype}", op="binomial", operands=[x.ttype], fix="use .float()")
    n, p = together("binomial", count.detach(), prob.detach())  # type: ignore[attr-defined]
    trials = floor(n)
    usual = F.logical_and(F.gt(n, 0.0), F.logical_and(F.gt(p, 0.0), F.lt(p, 1.0)))
    drawn = sampling.binomial(F.where(usual, trials, 1.0), F.where(usual, p, 0.5), generator)
    none = F.logical_or(F.le(n, 0.0), F.le(p, 0.0))
    other = F.where(none, 0.0, F.where(F.logical_and(F.ge(p, 1.0), F.gt(n, 0.0)), trials, math.nan))
    return F.where(usual, drawn, other)
