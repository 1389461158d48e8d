"""Pooling: the largest element or the mean of windows, compositions over `ir/ops/pool.py`.

A line is an image of one row. Volumes are pooled plane by plane, and then along the depth: all positions of a plane
at once. Padding is not there: a maximum does not see it, and a mean counts it only where `count_include_pad` says so.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from kiln import functional as F
from kiln.base import TensorBase
from kiln.convolution import at_least, batched, sizes, table
from kiln.errors import ArgumentError, InvalidValueError, ShapeError
from kiln.gathering import gather
from kiln.ir import types as T
from kiln.ir.ops.base import OPS, OpDef
from kiln.pointwise import floor_divide
from kiln.promotion import apply, cast_to, in_float32, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d", "adaptive_max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d",
    "lp_pool2d", "lp_pool3d", "max_pool1d", "max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices",
    "max_pool3d", "max_pool3d_with_indices",
]  # fmt: skip

Sizes: TypeAlias = "int | Sequence[int]"
OutputSizes: TypeAlias = "int | Sequence[int | None] | None"

_MAX, _INDEX, _SUM, _SLICE = OPS["max_pool2d"], OPS["max_pool2d_index"], OPS["sum_pool2d"], OPS["slice"]


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


Attrs: TypeAlias = "dict[str, Any]"


class Passes(NamedTuple):
    """What the primitives take: for images, and behind it (of volumes) for the depth, with planes as columns."""

    flat: Attrs
    deep: Attrs | None


_ONE = Window(1, 1, 0, 1, 1, 1)
"""The windows along a dimension that is not there."""


def _passes(windows: Sequence[Window], dilated: bool) -> Passes:
    def attrs(rows: Window, columns: Window) -> Attrs:
        found: Attrs = {
            "kernel": (rows.kernel, columns.kernel),
            "stride": (rows.stride, columns.stride),
            "padding": (rows.before, rows.behind(), columns.before, columns.behind()),
        }
        return {**found, "dilation": (rows.dilation, columns.dilation)} if dilated else found

    if len(windows) == 3:
        return Passes(attrs(*windows[1:]), attrs(windows[0], _ONE))
    return Passes(attrs(*(_ONE, *windows)[-2:]), None)


def _pooled(op: OpDef, x: Tensor, passes: Passes) -> Tensor:
    """[..., H, W] or [..., D, H, W] pooled: planes first, then along the depth."""
    y = apply(op, x, **passes.flat)
    if passes.deep is None:
        return y
    z = apply(op, columns(y, 2), **passes.deep)
    return F.reshape(z, (*z.shape[:-1], *y.shape[-2:]))


def _places(x: Tensor, passes: Passes) -> Tensor:
    """Where the largest of each window of `_pooled` are, in row-major order of their image or volume."""
    inside = apply(_INDEX, x, **passes.flat)
    if passes.deep is None:
        return inside
    plane = inside.shape[-2] * inside.shape[-1]
    at = apply(_INDEX, columns(apply(_MAX, x, **passes.flat), 2), **passes.deep)
    met = gather(columns(inside, 3), -1, columns(at, 2))
    depth = F.reshape(floor_divide(at, plane), met.shape)
    found = F.add(F.mul(depth, x.shape[-2] * x.shape[-1]), met)
    return F.reshape(found, (*at.shape[:-1], *inside.shape[-2:]))


def columns(x: Tensor, dims: int) -> Tensor:
    """The last `dims` dimensions as one."""
    lead = x.shape[: x.ndim - dims]
    return F.reshape(x, (*lead, math.prod(x.shape[x.ndim - dims :])))


def _images(x: Tensor, dims: int) -> Tensor:
    return F.unsqueeze(x, 2) if dims == 1 else x


def _shaped(y: Tensor, dims: int, single: bool) -> Tensor:
    return squeezed(F.squeeze(y, 2) if dims == 1 else y, single)


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


def max_pool3d(
    input: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool2d` over volumes [N, C, D, H, W] or [C, D, H, W]; indices are (plane * H + row) * W + column."""
    return _max_pool("max_pool3d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 3)


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
    passes = _passes(_windows(op, x, kernel_size, stride, padding, dilation, ceil_mode, dims), True)
    x = _images(x, dims)
    largest = _shaped(_pooled(_MAX, x, passes), dims, single)
    return (largest, _shaped(_places(x, passes), dims, single)) if return_indices else largest


def with_indices(name: str, pool: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    """`pool` with `return_indices`, whatever is given for it."""

    @functools.wraps(pool)
    def run(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        bound = inspect.signature(pool).bind(*args, **kwargs)
        bound.arguments["return_indices"] = True
        found: tuple[Tensor, Tensor] = pool(*bound.args, **bound.kwargs)
        return found

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"`{pool.__name__}` with `return_indices`."
    return run


max_pool1d_with_indices = with_indices("max_pool1d_with_indices", max_pool1d)
max_pool2d_with_indices = with_indices("max_pool2d_with_indices", max_pool2d)
max_pool3d_with_indices = with_indices("max_pool3d_with_indices", max_pool3d)


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


@in_float32
def avg_pool3d(
    input: TensorBase,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """`avg_pool2d` over volumes [N, C, D, H, W] or [C, D, H, W]: the sums of planes are added along the depth."""
    return _avg_pool(
        "avg_pool3d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 3
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
    total = _pooled(_SUM, _images(_summable(x), dims), _passes(windows, False))
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
    return _products(total, lengths)


def _products(total: Tensor, lengths: Sequence[Sequence[float]]) -> Tensor:
    """How many elements each window has, from the lengths along each dimension."""
    return table(total, functools.reduce(np.multiply.outer, map(np.array, lengths)).astype(total.dtype.numpy))


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


@in_float32
def lp_pool3d(
    input: TensorBase,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """`lp_pool2d` over volumes [N, C, D, H, W] or [C, D, H, W]."""
    return _lp_pool("lp_pool3d", input, norm_type, kernel_size, stride, ceil_mode, 3)


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


@in_float32
def adaptive_avg_pool3d(input: TensorBase, output_size: OutputSizes) -> Tensor:
    """`adaptive_avg_pool2d` over volumes [N, C, D, H, W] or [C, D, H, W]."""
    return _adaptive_avg("adaptive_avg_pool3d", input, output_size, 3)


def adaptive_max_pool1d(input: TensorBase, output_size: OutputSizes, return_indices: bool = False) -> Any:
    """`adaptive_max_pool2d` over a line [N, C, L] or [C, L]."""
    return _adaptive_max("adaptive_max_pool1d", input, output_size, return_indices, 1)


def adaptive_max_pool2d(input: TensorBase, output_size: OutputSizes, return_indices: bool = False) -> Any:
    """The largest elements of the windows of `adaptive_avg_pool2d`; with `return_indices` as `max_pool2d`."""
    return _adaptive_max("adaptive_max_pool2d", input, output_size, return_indices, 2)


def adaptive_max_pool3d(input: TensorBase, output_size: OutputSizes, return_indices: bool = False) -> Any:
    """`adaptive_max_pool2d` over volumes [N, C, D, H, W] or [C, D, H, W]."""
    return _adaptive_max("adaptive_max_pool3d", input, output_size, return_indices, 3)


adaptive_max_pool1d_with_indices = with_indices("adaptive_max_pool1d_with_indices", adaptive_max_pool1d)
adaptive_max_pool2d_with_indices = with_indices("adaptive_max_pool2d_with_indices", adaptive_max_pool2d)
adaptive_max_pool3d_with_indices = with_indices("adaptive_max_pool3d_with_indices", adaptive_max_pool3d)


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


def _spans(n: int, count: int) -> list[float]:
    """The lengths of `count` windows that cover n elements."""
    return [float(-(-(i + 1) * n // count) - i * n // count) for i in range(count)]


def _adaptive_avg(op: str, input: TensorBase, output_size: OutputSizes, dims: int) -> Tensor:
    """One window for all is a mean; others are summed element by element."""
    x, single = batched(op, tensor_arg(op, input), dims)
    out = _output_sizes(op, x, output_size, dims)
    dtype, x = x.dtype, _summable(x)
    if 0 in out:
        return cast_to(squeezed(_empty(x, out), single), dtype)
    if all(size == 1 for size in out):
        mean = F.mean(x, tuple(range(2, 2 + dims)), keepdim=True)
        return cast_to(squeezed(mean, single), dtype)
    lengths = [_spans(n, size) for n, size in zip(x.shape[2:], out, strict=True)]
    total = _pooled(_SUM, _images(x, dims), _bins(out))
    if all(len(set(each)) == 1 for each in lengths):
        divisor: Any = math.prod(each[0] for each in lengths)
    else:
        divisor = _products(total, lengths)
    return cast_to(_shaped(F.div(total, divisor), dims, single), dtype)


def _adaptive_max(op: str, input: TensorBase, output_size: OutputSizes, return_indices: bool, dims: int) -> Any:
    x, single = batched(op, tensor_arg(op, input), dims)
    out = _output_sizes(op, x, output_size, dims)
    if 0 in out:
        places = F.argmax(x, -1, keepdim=True)
        values, indices = (squeezed(_empty(part, out), single) for part in (x, places))
        return (values, indices) if return_indices else values
    x, passes = _images(x, dims), _bins(out)
    values = _shaped(_pooled(_MAX, x, passes), dims, single)
    return (values, _shaped(_places(x, passes), dims, single)) if return_indices else values


def _bins(out: Sequence[int]) -> Passes:
    """Rows and columns (a line has one row); each column of the depth is a position of the planes."""
    flat: Attrs = {"bins": (1, *out)[-2:]}
    return Passes(flat, {"bins": (out[0], out[1] * out[2])} if len(out) == 3 else None)


def _empty(x: Tensor, out: Sequence[int]) -> Tensor:
    """No windows."""
    starts, stops = [0] * x.ndim, [*x.shape[:-1], 0]
    nothing = apply(_SLICE, x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.ndim)
    return F.reshape(nothing, (*x.shape[:2], *out))


def squeezed(x: Tensor, single: bool) -> Tensor:
    return F.squeeze(x, 0) if single else x
