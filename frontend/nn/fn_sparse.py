"""Rows of a table by number: one by one, or added up in bags."""

from __future__ import annotations

from kiln import functional as F
from kiln import gathering
from kiln.autograd import no_grad
from kiln.base import TensorBase
from kiln.creation import arange, zeros
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, KilnIndexError, NotYetError, ShapeError
from kiln.ir import types as T
from kiln.promotion import cast_to, tensor_arg
from kiln.reductions import vector_norm
from kiln.sorting import searchsorted
from kiln.tensor import Tensor

__all__ = ["embedding", "embedding_bag"]


def _supported(name: str, scale_grad_by_freq: bool, sparse: bool) -> None:
    if scale_grad_by_freq:
        raise NotYetError("scale_grad_by_freq is not supported", op=name)
    if sparse:
        raise NotYetError("there are no sparse gradients", op=name, fix="pass sparse=False")


def _renormalise(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows that are looked up and longer than `max_norm` down to it, in place."""
    with no_grad():
        flat = F.reshape(index, (-1,))
        used = gathering.index_fill(zeros(weight.shape[0], dtype=T.bool_, device=weight.device), 0, flat, True)
        norm = vector_norm(weight.detach(), norm_type, 1)
        long = F.logical_and(used, F.gt(norm, float(max_norm)))
        scale = F.where(long, F.div(float(max_norm), F.add(norm, 1e-7)), 1.0)
        weight.copy_(F.mul(weight, F.unsqueeze(scale, 1)))


def embedding(
    input: TensorBase,
    weight: TensorBase,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """weight[input]: rows of a table [V, D] for int64 numbers of any shape, as [..., D].

    The row `padding_idx` gets no gradient; the gradient adds rows in ascending order of `input`. With `max_norm` the
    rows that are looked up are first scaled down to that `norm_type`-norm, in place (a capture's results can
    then want no gradients). KilnIndexError for a number outside [0, V).
    """
    _supported("embedding", scale_grad_by_freq, sparse)
    if max_norm is not None:
        _renormalise(tensor_arg("embedding", weight), tensor_arg("embedding", input), max_norm, norm_type)
    return gathering.embedding(input, weight, padding_idx)


def embedding_bag(
    input: TensorBase,
    weight: TensorBase,
    offsets: TensorBase | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: TensorBase | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or maximum (`mode`) of the rows of each bag, as [bags, D]; 0 for an empty bag.

    `input`: int64 numbers, [bags, length], or a vector in which bag k starts at offsets[k] (`include_last_offset`: the
    last offset is the end). `per_sample_weights` multiply the rows (mode "sum"); rows `padding_idx` do not count. Rows
    are added in ascending order.
    """
    op = "embedding_bag"
    _supported(op, scale_grad_by_freq, sparse)
    i, w = tensor_arg(op, input), tensor_arg(op, weight)
    if mode not in ("sum", "mean", "max"):
        raise InvalidValueError(f'mode must be "sum", "mean" or "max", got {mode!r}', op=op)
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != i.shape):
        raise InvalidValueError('per_sample_weights need mode "sum" and the shape of the input', op=op)
    bag, count = _bags(op, i, offsets, include_last_offset)
    flat = F.reshape(i, (-1,))
    rows = embedding(flat, w, None, max_norm, norm_type)
    if per_sample_weights is not None:
        rows = F.mul(rows, F.reshape(per_sample_weights, (-1, 1)))
    kept = None
    if padding_idx is not None:
        if not -w.shape[0] <= padding_idx < w.shape[0]:
            raise KilnIndexError(f"padding_idx {padding_idx} is out of range for {w.shape[0]} rows", op=op)
        kept = F.ne(flat, padding_idx % w.shape[0])
        rows = F.where(F.unsqueeze(kept, 1), rows, -float("inf") if mode == "max" else 0.0)
    nothing = zeros(count, w.shape[1], dtype=w.dtype, device=w.device)
    if mode == "sum":
        return gathering.index_add(nothing, 0, bag, rows)
    ones = F.add(zeros(flat.shape[0], dtype=w.dtype, device=w.device), 1.0) if kept is None else cast_to(kept, w.dtype)
    size = F.unsqueeze(gathering.index_add(zeros(count, dtype=w.dtype, device=w.device), 0, bag, ones), 1)
    if mode == "mean":
        return F.div(gathering.index_add(nothing, 0, bag, rows), F.where(F.eq(size, 0.0), 1.0, size))
    index = F.expand(F.unsqueeze(bag, 1), *rows.shape)
    largest = gathering.scatter_reduce(nothing, 0, index, rows, "amax", include_self=False)
    return F.where(F.eq(size, 0.0), 0.0, largest)


def _bags(op: str, i: Tensor, offsets: TensorBase | None, include_last: bool) -> tuple[Tensor, int]:
    """The bag of each number of the flattened input, and how many bags there are."""
    if i.ndim == 2:
        if offsets is not None:
            raise ArgumentError("offsets are for a vector; each row of a matrix is a bag", op=op)
        n, length = i.shape
        return F.reshape(F.expand(F.unsqueeze(arange(n, device=i.device), 1), n, length), (-1,)), n
    if i.ndim != 1 or offsets is None:
        raise ShapeError("expects a matrix, or a vector with offsets", op=op, operands=[i.ttype])
    starts = tensor_arg(op, offsets)
    if starts.dtype is not T.int64 or starts.ndim != 1:
        raise DTypeError("offsets must be an int64 vector", op=op, operands=[starts.ttype])
    if include_last:
        starts = starts[:-1]
    return F.sub(searchsorted(starts, arange(i.shape[0], device=i.device), right=True), 1), starts.shape[0]
