"""Back from the largest elements of windows to where they were, and windows that lie at random: compositions over
`gather` and `scatter`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kiln import functional as F
from kiln.base import TensorBase
from kiln.convolution import Sizes, at_least, batched, sizes, table
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.gathering import gather, scatter
from kiln.ir import types as T
from kiln.pooling import columns, squeezed, with_indices
from kiln.promotion import broadcast_to, cast_to, full_like_number, tensor_arg
from kiln.random import rand

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "fractional_max_pool2d", "fractional_max_pool2d_with_indices", "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices", "max_unpool1d", "max_unpool2d", "max_unpool3d",
]  # fmt: skip


# ------------------------------------------------------------------------------------------ unpooling


def max_unpool1d(
    input: TensorBase,
    indices: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """`max_unpool2d` over a line [N, C, L] or [C, L]."""
    return _unpool("max_unpool1d", input, indices, kernel_size, stride, padding, output_size, 1)


def max_unpool2d(
    input: TensorBase,
    indices: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros with the elements of input [N, C, H, W] or [C, H, W] at the places `indices` (as `max_pool2d` gives them;
    of several at one place the last one stays, and alone gets a gradient). The result is (H - 1) * stride - 2 * padding
    + kernel_size high, or `output_size`, which must lie within a stride of that. KilnIndexError for a place outside."""
    return _unpool("max_unpool2d", input, indices, kernel_size, stride, padding, output_size, 2)


def max_unpool3d(
    input: TensorBase,
    indices: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """`max_unpool2d` over volumes [N, C, D, H, W] or [C, D, H, W]."""
    return _unpool("max_unpool3d", input, indices, kernel_size, stride, padding, output_size, 3)


def _unpool(
    op: str,
    input: TensorBase,
    indices: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    output_size: Sequence[int] | None,
    dims: int,
) -> Tensor:
    x, places = tensor_arg(op, input), tensor_arg(op, indices)
    if places.dtype is not T.int64:
        raise DTypeError("indices must be int64", op=op, operands=[x.ttype, places.ttype], fix="cast them with .long()")
    if places.shape != x.shape:
        raise ShapeError("input and indices must have the same shape", op=op, operands=[x.ttype, places.ttype])
    x, single = batched(op, x, dims)
    kernel, around = sizes(op, "kernel_size", kernel_size, dims), sizes(op, "padding", padding, dims)
    steps = kernel if stride is None else sizes(op, "stride", stride, dims)
    at_least(op, "stride", steps, 1)
    usual = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(x.shape[2:], steps, around, kernel, strict=True)]
    out = usual if output_size is None else _near(op, list(output_size), usual, steps)
    at_least(op, "output_size", out, 0)
    flat = F.reshape(places, (*x.shape[:2], math.prod(x.shape[2:])))
    zeros = full_like_number(x, x.dtype, 0, (*x.shape[:2], math.prod(out)))
    found = scatter(zeros, 2, flat, columns(x, dims))
    return squeezed(F.reshape(found, (*x.shape[:2], *out)), single)


def _near(op: str, wanted: list[int], usual: list[int], steps: Sequence[int]) -> list[int]:
    """The wanted size (of all dimensions, or the spatial ones), which must be near the usual one."""
    dims = len(usual)
    if len(wanted) == dims + 2:
        wanted = wanted[2:]
    if len(wanted) != dims:
        raise ArgumentError(f"output_size must have {dims} or {dims + 2} numbers, got {len(wanted)}", op=op)
    for n, size, s in zip(wanted, usual, steps, strict=True):
        if not size - s < n < size + s:
            message = f"output_size {wanted} must lie less than {list(steps)} from {usual}"
            raise InvalidValueError(message, op=op)
    return wanted


# ----------------------------------------------------------------------------------- fractional pooling


def fractional_max_pool2d(
    input: TensorBase,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: TensorBase | None = None,
) -> Any:
    """The largest elements of `output_size` windows that lie at random over [N, C, H, W] or [C, H, W], about equally
    far from each other (Graham, 2014); `output_ratio` gives the size as a part of the input's. `_random_samples`
    [N, C, 2] in [0, 1): what decides where windows of columns and of rows lie; drawn unless given."""
    op = "fractional_max_pool2d"
    return _fractional(op, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, 2)


def fractional_max_pool3d(
    input: TensorBase,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: TensorBase | None = None,
) -> Any:
    """`fractional_max_pool2d` over volumes [N, C, D, H, W] or [C, D, H, W]; `_random_samples` [N, C, 3] are of planes,
    rows and columns."""
    op = "fractional_max_pool3d"
    return _fractional(op, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, 3)


fractional_max_pool2d_with_indices = with_indices("fractional_max_pool2d_with_indices", fractional_max_pool2d)
fractional_max_pool3d_with_indices = with_indices("fractional_max_pool3d_with_indices", fractional_max_pool3d)


def _fractional(
    op: str,
    input: TensorBase,
    kernel_size: Sizes,
    output_size: Sizes | None,
    output_ratio: float | Sequence[float] | None,
    return_indices: bool,
    samples: TensorBase | None,
    dims: int,
) -> Any:
    x, single = batched(op, tensor_arg(op, input), dims)
    kernel = sizes(op, "kernel_size", kernel_size, dims)
    at_least(op, "kernel_size", kernel, 1)
    out = _wanted(op, x, output_size, output_ratio, dims)
    for n, k, count in zip(x.shape[2:], kernel, out, strict=True):
        if count + k - 1 > n:
            message = f"{count} windows of {k} need at least {count + k - 1} elements, there are {n}"
            raise ShapeError(message, op=op, operands=[x.ttype])
    drawn = rand((*x.shape[:2], dims), dtype=x.dtype, device=x.device) if samples is None else tensor_arg(op, samples)
    if drawn.shape != (*x.shape[:2], dims):
        message = f"_random_samples must have shape {[*x.shape[:2], dims]}"
        raise ShapeError(message, op=op, operands=[x.ttype, drawn.ttype])
    order = range(dims) if dims == 3 else (1, 0)  # columns come first where there are two
    starts = [_starts(drawn[:, :, d], n, k, m) for d, n, k, m in zip(order, x.shape[2:], kernel, out, strict=True)]
    places = _met(starts, x.shape[2:], kernel)
    values = F.reshape(gather(columns(x, dims), 2, columns(places, dims + 1)), places.shape)
    largest, at = F.max(values, -1, keepdim=True)
    if not return_indices:
        return squeezed(F.squeeze(largest, -1), single)
    return tuple([squeezed(F.squeeze(part, -1), single) for part in (largest, gather(places, -1, at))])


def _wanted(op: str, x: Tensor, size: Sizes | None, ratio: float | Sequence[float] | None, dims: int) -> list[int]:
    """How many windows there are along each dimension."""
    if size is not None:
        found = list(sizes(op, "output_size", size, dims))
    elif ratio is None:
        raise ArgumentError("needs output_size or output_ratio", op=op)
    else:
        parts = list(ratio) if isinstance(ratio, Sequence) else [ratio] * dims
        if len(parts) != dims:
            raise ArgumentError(f"output_ratio must be a number or {dims} of them, got {ratio!r}", op=op)
        found = [int(n * r) for n, r in zip(x.shape[2:], parts, strict=True)]
    at_least(op, "output_size", found, 1)
    return found


def _starts(sample: Tensor, n: int, kernel: int, count: int) -> Tensor:
    """Where each of `count` windows begins, [N, C, count]: the last one at the end, the others where equal steps from
    a random begin lead, rounded down."""
    last = full_like_number(sample, T.int64, n - kernel, (*sample.shape, 1))
    if count == 1:
        return last
    step = table(sample, np.asarray(n - kernel, sample.dtype.numpy) / np.asarray(count - 1, sample.dtype.numpy))
    sample = F.unsqueeze(sample.detach(), -1)
    counted = table(sample, np.arange(count - 1).astype(sample.dtype.numpy))
    begins = cast_to(F.mul(F.add(counted, sample), step), T.int64)
    return F.cat([F.sub(begins, cast_to(F.mul(sample, step), T.int64)), last], -1)


def _met(starts: Sequence[Tensor], shape: Sequence[int], kernel: Sequence[int]) -> Tensor:
    """The flat places of each window's elements in row-major order: [N, C, *windows, elements]."""
    dims, first = len(starts), starts[0]
    windows = tuple([s.shape[2] for s in starts])
    total: Tensor | None = None
    for d, begin in enumerate(starts):
        taps = np.arange(kernel[d]).reshape([kernel[d] if e == d else 1 for e in range(dims)])
        inside = table(first, np.broadcast_to(taps, kernel).reshape(-1).astype(np.int64))
        spread = F.reshape(begin, (*begin.shape[:2], *[windows[d] if e == d else 1 for e in range(dims)], 1))
        along = F.mul(F.add(spread, inside), math.prod(shape[d + 1 :]))
        total = along if total is None else F.add(total, along)
    assert total is not None
    return broadcast_to(total, (*first.shape[:2], *windows, math.prod(kernel)))
