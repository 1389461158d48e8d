"""Convolutions and their transposes, and the patches that they see: compositions over `ir/ops/conv.py`.

A convolution over a line is one over images of one row; one over volumes is composed in `kiln.volumes`. The bias is
added to the finished sums.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np

from kiln import functional as F
from kiln import products, volumes
from kiln.base import TensorBase
from kiln.errors import ArgumentError, DTypeError, InvalidValueError, ShapeError
from kiln.gathering import index_add, index_select
from kiln.ir.graph import Constant
from kiln.ir.ops.base import OPS
from kiln.ir.types import float32
from kiln.promotion import apply, broadcast_to, cast_to, full_like_number, in_float32, tensor_arg, wide

if TYPE_CHECKING:
    from kiln.ir.types import DType
    from kiln.tensor import Tensor

__all__ = [
    "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "fold",
    "unfold",
]  # fmt: skip

Sizes: TypeAlias = "int | Sequence[int]"

_CONV2D, _CONV2D_INPUT = OPS["conv2d"], OPS["conv2d_input"]
_SLICE, _SCATTER = OPS["slice"], OPS["slice_scatter"]


# ------------------------------------------------------------------------------------------- arguments


def sizes(op: str, name: str, value: Any, dims: int) -> tuple[int, ...]:
    """One number for all dimensions, or one for each."""
    given = list(value) if isinstance(value, (tuple, list)) else [value]
    for n in given:
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool):
            raise ArgumentError(f"{name} must be an int or {dims} of them, got {value!r}", op=op)
    if len(given) not in (1, dims):
        raise ArgumentError(f"{name} must be an int or {dims} of them, got {value!r}", op=op)
    return tuple([int(n) for n in (given if len(given) == dims else given * dims)])


def at_least(op: str, name: str, values: Sequence[int], least: int) -> None:
    """InvalidValueError unless each value is `least` or more."""
    if any(v < least for v in values):
        raise InvalidValueError(f"{name} must be at least {least}, got {list(values)}", op=op)


def table(like: TensorBase, data: np.ndarray[Any, Any]) -> Tensor:
    """Numbers that follow from sizes alone, as a constant: a capture takes it into its graph."""
    (made,) = OPS["constant"].bind((), {"data": Constant(np.ascontiguousarray(data))}, receiver=like)
    return cast("Tensor", made)


def batched(op: str, x: Tensor, dims: int) -> tuple[Tensor, bool]:
    """Images [N, C, ...] of `dims` spatial dimensions, and whether N was missing."""
    if x.ndim == dims + 1:
        return F.unsqueeze(x, 0), True
    if x.ndim != dims + 2:
        spatial = ("L", "H, W", "D, H, W")[dims - 1]
        raise ShapeError(f"expects an input of shape [N, C, {spatial}] or [C, {spatial}]", op=op, operands=[x.ttype])
    return x, False


def _padding(
    op: str, padding: object, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """Before and behind each dimension."""
    if padding == "valid":
        return (0,) * (2 * len(kernel))
    if padding == "same":
        if any(s != 1 for s in stride):
            raise InvalidValueError('padding="same" needs stride 1', op=op)
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple([n for total in totals for n in (total // 2, total - total // 2)])
    if isinstance(padding, str):
        raise InvalidValueError(f'padding must be numbers, "same" or "valid", got {padding!r}', op=op)
    each = sizes(op, "padding", padding, len(kernel))
    at_least(op, "padding", each, 0)
    return tuple([n for p in each for n in (p, p)])


def _weight(op: str, weight: TensorBase, dims: int, x: Tensor) -> Tensor:
    w = tensor_arg(op, weight)
    if w.ndim != dims + 2:
        raise ShapeError(f"expects a weight of {dims + 2} dimensions", op=op, operands=[x.ttype, w.ttype])
    return w


def _line(x: Tensor) -> Tensor:
    """[N, C, L] as images of one row."""
    return F.unsqueeze(x, 2)


def _finished(op: str, y: Tensor, bias: TensorBase | None, single: bool) -> Tensor:
    """Plus the bias of each channel; without N if there was none."""
    if bias is not None:
        b = wide(tensor_arg(op, bias))
        if b.shape != (y.shape[1],):
            raise ShapeError(f"the bias must have shape [{y.shape[1]}]", op=op, operands=[b.ttype])
        # Repeated along all positions as one dimension, so that its gradient sums long runs.
        flat = broadcast_to(F.reshape(b, (y.shape[1], 1)), (*y.shape[:2], math.prod(y.shape[2:])))
        y = F.add(y, F.reshape(flat, y.shape))
    return F.squeeze(y, 0) if single else y


# ----------------------------------------------------------------------------------------- convolution

Function = TypeVar("Function", bound=Callable[..., Any])


def _of_one_dtype(function: Function) -> Function:
    """Refuses tensors of several dtypes, before any are widened."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, TensorBase)]
        if any(x.dtype is not tensors[0].dtype for x in tensors):
            types = [x.ttype for x in tensors]
            what = "input, weight and bias have different dtypes"
            raise DTypeError(what, op=function.__name__, operands=types, fix="cast them with .to()")
        return function(*args, **kwargs)

    return cast("Function", run)


@_of_one_dtype
def conv1d(
    input: TensorBase,
    weight: TensorBase,
    bias: TensorBase | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` over a line: input [N, C, L] or [C, L], weight [O, C/groups, K]."""
    return _convolution("conv1d", input, weight, bias, stride, padding, dilation, groups, 1)


@_of_one_dtype
def conv2d(
    input: TensorBase,
    weight: TensorBase,
    bias: TensorBase | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Sums over taps and channels: input [N, C, H, W] or [C, H, W], weight [O, C/groups, KH, KW], bias [O], all of
    one floating-point dtype -> [N, O, OH, OW] with OH = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1.

    padding="same" pads so that stride 1 keeps the size (one more behind than before where that is uneven), "valid"
    does not pad. Padding is not there: nothing is multiplied by it.
    """
    return _convolution("conv2d", input, weight, bias, stride, padding, dilation, groups, 2)


@_of_one_dtype
def conv3d(
    input: TensorBase,
    weight: TensorBase,
    bias: TensorBase | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` over volumes: input [N, C, D, H, W] or [C, D, H, W], weight [O, C/groups, KD, KH, KW]. The convolutions
    of the single taps of the depth are added in ascending order."""
    return _convolution("conv3d", input, weight, bias, stride, padding, dilation, groups, 3)


@_of_one_dtype
def conv_tbc(input: TensorBase, weight: TensorBase, bias: TensorBase, pad: int = 0) -> Tensor:
    """`conv1d` with the time first: input [T, N, C], weight [K, C, O], bias [O] -> [T + 2 * pad - K + 1, N, O]."""
    x, w, b = (tensor_arg("conv_tbc", t) for t in (input, weight, bias))
    if x.ndim != 3 or w.ndim != 3:
        types = [x.ttype, w.ttype]
        raise ShapeError("expects an input [T, N, C] and a weight [K, C, O]", op="conv_tbc", operands=types)
    turned = F.permute(x, (1, 2, 0)), F.permute(w, (2, 1, 0))
    return F.permute(_convolution("conv_tbc", *turned, b, 1, pad, 1, 1, 1), (2, 0, 1))


def _convolution(
    op: str,
    input: TensorBase,
    weight: TensorBase,
    bias: TensorBase | None,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
    dims: int,
) -> Tensor:
    x, single = batched(op, tensor_arg(op, input), dims)
    w = _weight(op, weight, dims, x)
    steps, spread = sizes(op, "stride", stride, dims), sizes(op, "dilation", dilation, dims)
    at_least(op, "stride", steps, 1)
    at_least(op, "dilation", spread, 1)
    around = _padding(op, padding, w.shape[2:], steps, spread)
    dtype, x, w, how = _multiplied(x, w, groups, (*around, *spread), bias is None and dims < 3)
    if dims == 1:
        x, w = _line(x), _line(w)
        steps, spread, around = (1, *steps), (1, *spread), (0, 0, *around)
    if dims == 3:
        y = volumes.convolved(x, w, _positions(op, x, w, steps, around, spread), steps, around, spread, how)
    else:
        y = apply(_CONV2D, x, w, stride=steps, padding=around, dilation=spread, **how)
    return cast_to(_finished(op, F.squeeze(y, 2) if dims == 1 else y, bias, single), dtype)


def _multiplied(
    x: Tensor, w: Tensor, groups: int, sizes: Sequence[int], finished: bool
) -> tuple[DType, Tensor, Tensor, dict[str, Any]]:
    """What is multiplied, and how: the dtype of the result, the operands and attributes. 16-bit floats are rounded
    once, at the end: by the convolution itself when it is `finished` then."""
    dtype = x._layout.dtype
    if not dtype.is_half:
        return dtype, x, w, {"groups": groups}
    if products.tensor_cores(x, w, groups, sizes):
        how: dict[str, Any] = {"groups": groups, "tensor_cores": True}
        return dtype, x, w, how if finished else {**how, "dtype": float32}
    return dtype, wide(x), wide(w), {"groups": groups}


def _positions(
    op: str, x: Tensor, w: Tensor, stride: Sequence[int], around: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """The spatial sizes of the result."""
    found = []
    for d, (n, k) in enumerate(zip(x.shape[2:], w.shape[2:], strict=True)):
        padded, span = n + around[2 * d] + around[2 * d + 1], dilation[d] * (k - 1) + 1
        if padded < span:
            message = f"a kernel that spans {span} does not fit in {padded} (padding included) of dimension {d + 2}"
            raise ShapeError(message, op=op, operands=[x.ttype, w.ttype])
        found.append((padded - span) // stride[d] + 1)
    return found


@_of_one_dtype
def conv_transpose1d(
    input: TensorBase,
    weight: TensorBase,
    bias: TensorBase | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """`conv_transpose2d` over a line: input [N, C, L] or [C, L], weight [C, O/groups, K]."""
    return _transposed("conv_transpose1d", input, weight, bias, stride, padding, output_padding, groups, dilation, 1)


@_of_one_dtype
def conv_transpose2d(
    input: TensorBase,
    weight: TensorBase,
    bias: TensorBase | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """The gradient of `conv2d` by its input, as a function: input [N, C, H, W] or [C, H, W], weight [C, O/groups, KH,
    KW], bias [O] -> [N, O, OH, OW] with OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.
    """
    return _transposed("conv_transpose2d", input, weight, bias, stride, padding, output_padding, groups, dilation, 2)


@_of_one_dtype
def conv_transpose3d(
    input: TensorBase,
    weight: TensorBase,
    bias: TensorBase | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """`conv_transpose2d` over volumes: input [N, C, D, H, W] or [C, D, H, W], weight [C, O/groups, KD, KH, KW]."""
    return _transposed("conv_transpose3d", input, weight, bias, stride, padding, output_padding, groups, dilation, 3)


def _transposed(
    op: str,
    input: TensorBase,
    weight: TensorBase,
    bias: TensorBase | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
    dims: int,
) -> Tensor:
    x, single = batched(op, tensor_arg(op, input), dims)
    w = _weight(op, weight, dims, x)
    steps, spread = sizes(op, "stride", stride, dims), sizes(op, "dilation", dilation, dims)
    around, more = sizes(op, "padding", padding, dims), sizes(op, "output_padding", output_padding, dims)
    for name, values, least in (("stride", steps, 1), ("dilation", spread, 1), ("padding", around, 0)):
        at_least(op, name, values, least)
    at_least(op, "output_padding", more, 0)
    for s, d, extra in zip(steps, spread, more, strict=True):
        if extra >= max(s, d):
            raise InvalidValueError(f"output_padding {extra} must be smaller than stride or dilation", op=op)
    if 0 in x.shape[2:]:
        raise ShapeError("expects an input that is not empty", op=op, operands=[x.ttype])
    out = [
        (n - 1) * s - 2 * p + d * (k - 1) + extra + 1
        for n, s, p, d, k, extra in zip(x.shape[2:], steps, around, spread, w.shape[2:], more, strict=True)
    ]
    if any(n < 1 for n in out):
        raise ShapeError(f"the result would have size {out}", op=op, operands=[x.ttype, w.ttype])
    if dims == 1:
        x, w = _line(x), _line(w)
        steps, spread, around, out, more = (1, *steps), (1, *spread), (0, *around), [1, *out], (0, *more)
    # What is asked for beyond the end first takes the place of padding there; what no tap reaches is zeros.
    pads = tuple([n for p, extra in zip(around, more, strict=True) for n in (p, max(0, p - extra))])
    reached = [n - max(0, extra - p) for n, p, extra in zip(out, around, more, strict=True)]
    dtype, x, w, how = _multiplied(x, w, groups, (*pads, *spread, *out), bias is None and dims < 3)
    if any(n < 1 for n in reached):
        y = volumes.nothing(wide(x), wide(w), (x.shape[0], w.shape[1] * groups, *out))
    elif dims == 3:
        y = volumes.transposed(x, w, reached, steps, pads, spread, how)
    else:
        y = apply(_CONV2D_INPUT, x, w, size=tuple(reached), padding=pads, stride=steps, dilation=spread, **how)
    if list(y.shape[2:]) != list(out):
        zeros = full_like_number(y, y.dtype, 0, (*y.shape[:2], *out))
        y = apply(_SCATTER, zeros, y, starts=(0,) * y.ndim, stops=tuple(y.shape), steps=(1,) * y.ndim)
    return cast_to(_finished(op, F.squeeze(y, 2) if dims == 1 else y, bias, single), dtype)


# --------------------------------------------------------------------------------------------- patches


class _Patches(NamedTuple):
    """Where the patches of an image with its padding lie."""

    around: tuple[int, ...]
    taps: int
    positions: int
    shape: tuple[int, int]  # of the image with padding
    places: np.ndarray[Any, Any]  # of [tap, position], flat


def _patches(op: str, size: Sequence[int], kernel: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes) -> _Patches:
    taps, spread = sizes(op, "kernel_size", kernel, 2), sizes(op, "dilation", dilation, 2)
    around, steps = sizes(op, "padding", padding, 2), sizes(op, "stride", stride, 2)
    for name, values, least in (("kernel_size", taps, 1), ("dilation", spread, 1), ("stride", steps, 1)):
        at_least(op, name, values, least)
    at_least(op, "padding", around, 0)
    rooms = [n + 2 * p - d * (k - 1) - 1 for n, p, d, k in zip(size, around, spread, taps, strict=True)]
    if any(room < 0 for room in rooms):
        raise ShapeError(f"a kernel of {list(taps)} does not fit in {list(size)} (padding included)", op=op)
    rows, columns = (
        np.arange(k)[:, None] * d + np.arange(room // s + 1) * s
        for k, d, room, s in zip(taps, spread, rooms, steps, strict=True)
    )
    shape = (size[0] + 2 * around[0], size[1] + 2 * around[1])
    places = rows[:, None, :, None] * shape[1] + columns[None, :, None, :]
    return _Patches(around, math.prod(taps), rows.shape[1] * columns.shape[1], shape, places.reshape(-1))


def unfold(input: TensorBase, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:
    """The patches that a convolution sees: [N, C, H, W] or [C, H, W] -> [N, C * KH * KW, L], L positions; padding
    counts as zeros."""
    x, single = batched("unfold", tensor_arg("unfold", input), 2)
    of = _patches("unfold", x.shape[2:], kernel_size, dilation, padding, stride)
    n, c, height, width = x.shape
    if any(of.around):
        canvas = full_like_number(x, x.dtype, 0, (n, c, *of.shape))
        stops = (n, c, of.around[0] + height, of.around[1] + width)
        x = apply(_SCATTER, canvas, x, starts=(0, 0, *of.around), stops=stops, steps=(1, 1, 1, 1))
    cut = index_select(F.reshape(x, (n, c, math.prod(of.shape))), 2, table(x, of.places))
    patches = F.reshape(cut, (n, c * of.taps, of.positions))
    return F.squeeze(patches, 0) if single else patches


@in_float32
def fold(
    input: TensorBase,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Tensor:
    """The reverse of `unfold`: [N, C * KH * KW, L] or [C * KH * KW, L] -> [N, C, *output_size]; where patches overlap
    they are added, tap by tap."""
    x = tensor_arg("fold", input)
    single = x.ndim == 2
    x = F.unsqueeze(x, 0) if single else x
    out = sizes("fold", "output_size", output_size, 2)
    of = _patches("fold", out, kernel_size, dilation, padding, stride)
    if x.ndim != 3 or x.shape[1] % of.taps or x.shape[2] != of.positions:
        message = f"expects [N, C * {of.taps}, {of.positions}]"
        raise ShapeError(message, op="fold", operands=[x.ttype])
    n, c = x.shape[0], x.shape[1] // of.taps
    zero = full_like_number(x, x.dtype, 0, (n, c, math.prod(of.shape)))
    patches = F.reshape(x, (n, c, of.taps * of.positions))
    total = F.reshape(index_add(zero, 2, table(x, of.places), patches), (n, c, *of.shape))
    if any(of.around):
        stops = (n, c, of.around[0] + out[0], of.around[1] + out[1])
        total = apply(_SLICE, total, starts=(0, 0, *of.around), stops=stops, steps=(1, 1, 1, 1))
    return F.squeeze(total, 0) if single else total
