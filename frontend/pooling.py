"""Pooling: the largest element or the mean of windows, compositions over `ir/ops/pool.py`.

A line is an image of one row. Padding is not there: a maximum does not see it, and a mean counts it only where
`count_include_pad` says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from kiln import functional as F
from kiln.base import TensorBase
from kiln.convolution import at_least, batched, sizes, table
from kiln.errors import ArgumentError, InvalidValueError, ShapeError
from kiln.gathering import take
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.promotion import apply, cast_to, in_float32, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "lp_pool1d",
    "lp_pool2d",
    "max_pool1d",
    "max_pool2d",
]

Sizes: TypeAlias = "int | Sequence[int]"
OutputSizes: TypeAlias = "int | Sequence[int | None] | None"

_MAX, _INDEX, _SUM, _SLICE = OPS["max_pool2d"], OPS["max_pool2d_index"], OPS["sum_pool2d"], OPS["slice"]
_LARGE = 64
"""Larger windows of adaptive means are summed by reductions, where they neither overlap nor leave gaps."""


class Window(NamedTuple):
    """The windows along one dimension: `windows` of them, over `n` elements."""

    kernel: int
    stride: int
    before: int
    dilation: int
    windows: int
    n: int

    def span(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    def behind(self) -> int:
        """Elements beyond the end that the last window reaches."""
        return max(0, (self.windows - 1) * self.stride + self.span() - self.before - self.n)

    def lengths(self, include_padding: bool) -> list[int]:
        """How many elements each window has; padding counts, if at all, as far as was asked for."""
        found = []
        for i in range(self.windows):
            begin = i * self.stride - self.before
            end = min(begin + self.kernel, self.n + self.before)
            found.append(end - begin if include_padding else min(end, self.n) - max(begin, 0))
        return found


def _windows(
    op: str,
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    dims: int,
) -> list[Window]:
    """The windows along each spatial dimension; with `ceil_mode` also one that begins inside and ends outside."""
    kernel, spread = sizes(op, "kernel_size", kernel_size, dims), sizes(op, "dilation", dilation, dims)
    no_stride = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    steps = kernel if no_stride else sizes(op, "stride", stride, dims)
    around = sizes(op, "padding", padding, dims)
    for name, values, least in (("kernel_size", kernel, 1), ("stride", steps, 1), ("dilation", spread, 1)):
        at_least(op, name, values, least)
    at_least(op, "padding", around, 0)
    found = []
    for n, k, s, p, d in zip(x.shape[2:], kernel, steps, around, spread, strict=True):
        if p > k // 2:
            raise InvalidValueError(f"padding {p} is more than half the kernel size {k}", op=op)
        room = n + 2 * p - d * (k - 1) - 1
        count = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        if (room < 0 and not ceil_mode) or count < 1 or n == 0:
            message = f"a window of {k} (dilation {d}) does not fit in {n} elements and padding {p}"
            raise ShapeError(message, op=op, operands=[x.ttype])
        found.append(Window(k, s, p, d, count, n))
    return found


def _attrs(windows: Sequence[Window]) -> dict[str, Any]:
    """What the primitives take; rows come first, of which a line has one."""
    rows, columns = windows if len(windows) == 2 else (Window(1, 1, 0, 1, 1, 1), windows[0])
    return {
        "kernel": (rows.kernel, columns.kernel),
        "stride": (rows.stride, columns.stride),
        "padding": (rows.before, rows.behind(), columns.before, columns.behind()),
    }


def _images(x: Tensor, windows: Sequence[Window]) -> Tensor:
    """Rows and columns, without those at the end that no window reaches (they would count as a window's begin)."""
    return F.unsqueeze(x, 2) if len(windows) == 1 else x


def _shaped(y: Tensor, dims: int, single: bool) -> Tensor:
    y = F.squeeze(y, 2) if dims == 1 else y
    return F.squeeze(y, 0) if single else y


# --------------------------------------------------------------------------------------------- maxima


def max_pool1d(
    input: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool2d` over a line [N, C, L] or [C, L]."""
    return _max_pool("max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 1)


def max_pool2d(
    input: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of [N, C, H, W] or [C, H, W] (NaN wins); `stride` is `kernel_size` unless
    given. With `return_indices` also where it is in its image, row * W + column, the first one of several. The gradient
    goes there."""
    return _max_pool("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 2)


def _max_pool(
    op: str,
    input: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    return_indices: bool,
    dims: int,
) -> Any:
    x, single = batched(op, tensor_arg(op, input), dims)
    windows = _windows(op, x, kernel_size, stride, padding, dilation, ceil_mode, dims)
    spread = (*[1] * (2 - dims), *[w.dilation for w in windows])
    x, attrs = _images(x, windows), {**_attrs(windows), "dilation": spread}
    largest = _shaped(apply(_MAX, x, **attrs), dims, single)
    return (largest, _shaped(apply(_INDEX, x, **attrs), dims, single)) if return_indices else largest


# ---------------------------------------------------------------------------------------------- means


@in_float32
def avg_pool1d(
    input: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """`avg_pool2d` over a line [N, C, L] or [C, L]."""
    return _avg_pool("avg_pool1d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1)


@in_float32
def avg_pool2d(
    input: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The sum of each window of [N, C, H, W] or [C, H, W], in row-major order, divided by the number of its elements:
    with `count_include_pad` those in the padding too; or by `divisor_override`."""
    return _avg_pool(
        "avg_pool2d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2
    )


def _avg_pool(
    op: str,
    input: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    dims: int,
) -> Tensor:
    if divisor_override is not None and divisor_override == 0:
        raise InvalidValueError("divisor_override is 0", op=op)
    x, single = batched(op, tensor_arg(op, input), dims)
    windows = _windows(op, x, kernel_size, stride, padding, 1, ceil_mode, dims)
    total = apply(_SUM, _images(_summable(x), windows), **_attrs(windows))
    mean = F.div(total, _divisor(total, windows, count_include_pad, divisor_override))
    return _shaped(cast_to(mean, x.dtype), dims, single)


def _summable(x: Tensor) -> Tensor:
    """Half types are summed and divided as float32, and rounded once."""
    return cast_to(x, T.float32) if x.dtype.is_half else x


def _divisor(total: Tensor, windows: Sequence[Window], include_padding: bool, override: int | None) -> Any:
    """One number if it is the same for all windows, else one per position."""
    if override is not None:
        return float(override)
    lengths = [w.lengths(include_padding) for w in windows]
    if all(len(set(each)) == 1 for each in lengths):
        return float(math.prod(each[0] for each in lengths))
    rows, columns = lengths if len(lengths) == 2 else ([1], lengths[0])
    return table(total, np.outer(rows, columns).astype(total.dtype.numpy))


@in_float32
def lp_pool1d(
    input: TensorBase,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """`lp_pool2d` over a line [N, C, L] or [C, L]."""
    return _lp_pool("lp_pool1d", input, norm_type, kernel_size, stride, ceil_mode, 1)


@in_float32
def lp_pool2d(
    input: TensorBase,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """(avg_pool2d(x ** norm_type) * elements of a window) ** (1 / norm_type)."""
    return _lp_pool("lp_pool2d", input, norm_type, kernel_size, stride, ceil_mode, 2)


def _lp_pool(
    op: str,
    input: TensorBase,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None,
    ceil_mode: bool,
    dims: int,
) -> Tensor:
    if norm_type == 0:
        raise InvalidValueError("norm_type is 0", op=op)
    powers = F.pow(tensor_arg(op, input), float(norm_type))
    mean = _avg_pool(op, powers, kernel_size, stride, 0, ceil_mode, True, None, dims)
    return F.pow(F.mul(mean, float(math.prod(sizes(op, "kernel_size", kernel_size, dims)))), 1.0 / norm_type)


# ------------------------------------------------------------------------------------------- adaptive


@in_float32
def adaptive_avg_pool1d(input: TensorBase, output_size: OutputSizes) -> Tensor:
    """`adaptive_avg_pool2d` over a line [N, C, L] or [C, L]."""
    return _adaptive_avg("adaptive_avg_pool1d", input, output_size, 1)


@in_float32
def adaptive_avg_pool2d(input: TensorBase, output_size: OutputSizes) -> Tensor:
    """The means of `output_size` windows that together cover [N, C, H, W] or [C, H, W] (None: as many as elements).
    Window i of n over `size` elements goes from floor(i * size / n) to ceil((i + 1) * size / n)."""
    return _adaptive_avg("adaptive_avg_pool2d", input, output_size, 2)


def adaptive_max_pool1d(input: TensorBase, output_size: OutputSizes, return_indices: bool = False) -> Any:
    """`adaptive_max_pool2d` over a line [N, C, L] or [C, L]."""
    return _adaptive_max("adaptive_max_pool1d", input, output_size, return_indices, 1)


def adaptive_max_pool2d(input: TensorBase, output_size: OutputSizes, return_indices: bool = False) -> Any:
    """The largest elements of the windows of `adaptive_avg_pool2d`; with `return_indices` as `max_pool2d`."""
    return _adaptive_max("adaptive_max_pool2d", input, output_size, return_indices, 2)


def _output_sizes(op: str, x: Tensor, given: OutputSizes, dims: int) -> list[int]:
    each = list(given) if isinstance(given, (tuple, list)) else [given] * dims
    if len(each) != dims:
        raise ArgumentError(f"output_size must be an int or {dims} of them, got {given!r}", op=op)
    found = [
        n if size is None else sizes(op, "output_size", size, 1)[0] for n, size in zip(x.shape[2:], each, strict=True)
    ]
    at_least(op, "output_size", found, 0)
    if 0 in x.shape[2:]:
        raise ShapeError("expects an input that is not empty", op=op, operands=[x.ttype])
    return found


def _spans(n: int, count: int) -> list[tuple[int, int]]:
    """Where each of `count` windows over n elements begins and ends."""
    return [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]


def _even(x: Tensor, out: Sequence[int]) -> list[Window] | None:
    """The windows if all of a dimension have one size and none overlap."""
    if any(size == 0 or n % size for n, size in zip(x.shape[2:], out, strict=True)):
        return None
    return [Window(n // size, n // size, 0, 1, size, n) for n, size in zip(x.shape[2:], out, strict=True)]


def _adaptive_avg(op: str, input: TensorBase, output_size: OutputSizes, dims: int) -> Tensor:
    x, single = batched(op, tensor_arg(op, input), dims)
    out = _output_sizes(op, x, output_size, dims)
    windows, dtype, x = _even(x, out), x.dtype, _summable(x)
    if windows is not None:
        return cast_to(_shaped_mean(x, windows, dims, single), dtype)
    lengths = []
    for d, (n, size) in enumerate(zip(x.shape[2:], out, strict=True), 2):
        spans = _spans(n, size)
        x = F.cat([F.sum(_cut(x, d, *span), d, keepdim=True) for span in spans], d) if spans else _cut(x, d, 0, 0)
        lengths.append([float(end - begin) for begin, end in spans])
    counts = np.outer(lengths[0], lengths[1]) if dims == 2 else np.asarray(lengths[0])
    mean = F.div(x, table(x, counts.astype(x.dtype.numpy)))
    mean = cast_to(mean, dtype)
    return F.squeeze(mean, 0) if single else mean


def _shaped_mean(x: Tensor, windows: Sequence[Window], dims: int, single: bool) -> Tensor:
    """Small windows by `sum_pool2d`; large ones by a reduction over dimensions of their own."""
    elements = math.prod(w.kernel for w in windows)
    if elements <= _LARGE:
        total = _shaped(apply(_SUM, _images(x, windows), **_attrs(windows)), dims, single)
    else:
        split = F.reshape(x, (*x.shape[:2], *[n for w in windows for n in (w.windows, w.kernel)]))
        summed = F.sum(split, tuple(range(3, 3 + 2 * dims, 2)))
        total = F.squeeze(summed, 0) if single else summed
    return F.div(total, float(elements))


def _cut(x: Tensor, d: int, begin: int, end: int) -> Tensor:
    """Elements begin..end of dimension d."""
    starts, stops = [0] * x.ndim, list(x.shape)
    starts[d], stops[d] = begin, end
    return apply(_SLICE, x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.ndim)


def _adaptive_max(op: str, input: TensorBase, output_size: OutputSizes, return_indices: bool, dims: int) -> Any:
    x, single = batched(op, tensor_arg(op, input), dims)
    out = _output_sizes(op, x, output_size, dims)
    x = F.unsqueeze(x, 2) if dims == 1 else x
    out = [1, *out] if dims == 1 else out
    windows = _even(x, out)
    if windows is not None:
        attrs = {**_attrs(windows), "dilation": (1, 1)}
        values, indices = apply(_MAX, x, **attrs), apply(_INDEX, x, **attrs)
    else:
        values, indices = _uneven_max(x, out)
    values = _shaped(values, dims, single)
    return (values, _shaped(indices, dims, single)) if return_indices else values


def _uneven_max(x: Tensor, out: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Window by window: each is an image of its own."""
    if 0 in out:
        empty = (*x.shape[:2], *out)
        return F.reshape(_cut(x, 3, 0, 0), empty), F.reshape(_cut(F.argmax(x, 3, keepdim=True), 3, 0, 0), empty)
    width = x.shape[3]
    rows, places = [], []
    for top, bottom in _spans(x.shape[2], out[0]):
        line, at = [], []
        for left, right in _spans(width, out[1]):
            part = _cut(_cut(x, 2, top, bottom), 3, left, right)
            kernel = (bottom - top, right - left)
            attrs = {"kernel": kernel, "stride": kernel, "padding": (0, 0, 0, 0), "dilation": (1, 1)}
            line.append(apply(_MAX, part, **attrs))
            row, column = np.divmod(np.arange(math.prod(kernel)), kernel[1])
            offsets = table(x, (row + top) * width + column + left)
            index = apply(_INDEX, part, **attrs)
            at.append(take(offsets, index))
        rows.append(F.cat(line, 3))
        places.append(F.cat(at, 3))
    return F.cat(rows, 2), F.cat(places, 2)
