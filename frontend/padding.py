"""Padding, resizing, and exchanging channels for pixels: compositions of moves; `interpolate` also weighs.

What repeats elements (reflection, replication, nearest neighbours) has the sum over the copies as its gradient.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kiln import functional as F
from kiln.base import TensorBase
from kiln.convolution import at_least, sizes, table
from kiln.errors import ArgumentError, InvalidValueError, NotYetError, ShapeError
from kiln.gathering import index_select
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from kiln.promotion import apply, cast_to, full_like_number, tensor_arg
from kiln.resampling import cubic

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "channel_shuffle", "interpolate", "pad", "pixel_shuffle", "pixel_unshuffle", "upsample", "upsample_bilinear",
    "upsample_nearest",
]  # fmt: skip

_SLICE, _SCATTER = OPS["slice"], OPS["slice_scatter"]


def _cut(x: Tensor, d: int, begin: int, end: int) -> Tensor:
    """Elements begin..end of dimension d."""
    starts, stops = [0] * x.ndim, list(x.shape)
    starts[d], stops[d] = begin, end
    return apply(_SLICE, x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.ndim)


# ------------------------------------------------------------------------------------------------ pad


def pad(input: TensorBase, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """More elements before and behind dimensions: `pad` gives (before, behind) of the last dimension, then of the one
    before it, and so on; negative numbers take elements away.

    mode "constant": `value` (default 0), any dimensions. "reflect" (without the edge), "replicate" (the edge),
    "circular": the last dimensions of [N, C, ...] or [C, ...], as many as `pad` has pairs.
    """
    x = tensor_arg("pad", input)
    if not isinstance(pad, (tuple, list)) or any(not isinstance(n, (int, np.integer)) for n in pad):
        raise ArgumentError(f"pad must be a sequence of ints, got {pad!r}", op="pad")
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise InvalidValueError(f"pad must hold at most {x.ndim} pairs, got {list(pad)}", op="pad")
    pairs = {x.ndim - 1 - k: (int(pad[2 * k]), int(pad[2 * k + 1])) for k in range(len(pad) // 2)}
    for d, (before, behind) in pairs.items():
        if x.shape[d] + min(before, 0) + min(behind, 0) < 0 or x.shape[d] + before + behind < 0:
            message = f"{before} and {behind} leave nothing of dimension {d}"
            raise ShapeError(message, op="pad", operands=[x.ttype])
    if mode == "constant":
        return _constant_pad(x, pairs, 0 if value is None else value)
    if mode not in _MODES:
        raise InvalidValueError(f'mode must be "constant" or one of {sorted(_MODES)}, got {mode!r}', op="pad")
    if value is not None:
        raise InvalidValueError(f"value is for constant padding, not for {mode!r}", op="pad")
    if x.ndim not in (len(pairs) + 1, len(pairs) + 2):
        message = f"mode {mode!r} pads the dimensions behind [N, C] or [C], got {len(pairs)} pairs"
        raise ShapeError(message, op="pad", operands=[x.ttype])
    for d in sorted(pairs):
        x = _MODES[mode](x, d, *pairs[d])
    return x


def _constant_pad(x: Tensor, pairs: dict[int, tuple[int, int]], value: float) -> Tensor:
    for d, (before, behind) in pairs.items():
        if before < 0 or behind < 0:
            x = _cut(x, d, max(0, -before), x.shape[d] + min(behind, 0))
    starts = tuple([max(0, pairs.get(d, (0, 0))[0]) for d in range(x.ndim)])
    stops = tuple([a + n for a, n in zip(starts, x.shape, strict=True)])
    shape = tuple([b + max(0, pairs.get(d, (0, 0))[1]) for d, b in enumerate(stops)])
    if shape == x.shape:
        return F.clone(x)
    canvas = full_like_number(x, x.dtype, value, shape)
    return apply(_SCATTER, canvas, x, starts=starts, stops=stops, steps=(1,) * x.ndim)


def _reflected(x: Tensor, d: int, before: int, behind: int) -> Tensor:
    n = x.shape[d]
    if before >= n or behind >= n:
        message = f"padding ({before}, {behind}) must be smaller than dimension {d} of size {n}"
        raise ShapeError(message, op="pad", operands=[x.ttype])
    place = np.abs(np.arange(-before, n + behind))
    return index_select(x, d, table(x, np.where(place < n, place, 2 * (n - 1) - place)))


def _replicated(x: Tensor, d: int, before: int, behind: int) -> Tensor:
    n = x.shape[d]
    if n == 0:
        raise ShapeError(f"dimension {d} has no edge to repeat", op="pad", operands=[x.ttype])

    def edge(i: int, count: int) -> list[Tensor]:
        return [F.expand(_cut(x, d, i, i + 1), (*x.shape[:d], count, *x.shape[d + 1 :]))] if count > 0 else []

    return _joined(x, d, before, behind, edge(0, before), edge(n - 1, behind))


def _circular(x: Tensor, d: int, before: int, behind: int) -> Tensor:
    x = _cut(x, d, max(0, -before), x.shape[d] + min(behind, 0))
    n, before, behind = x.shape[d], max(0, before), max(0, behind)
    if before > n or behind > n:
        message = f"padding ({before}, {behind}) must not be larger than dimension {d} of size {n}"
        raise ShapeError(message, op="pad", operands=[x.ttype])
    front = [_cut(x, d, n - before, n)] if before > 0 else []
    back = [_cut(x, d, 0, behind)] if behind > 0 else []
    return _joined(x, d, before, behind, front, back)


def _joined(x: Tensor, d: int, before: int, behind: int, front: list[Tensor], back: list[Tensor]) -> Tensor:
    """Front, what stays of the middle, back."""
    middle = _cut(x, d, max(0, -before), x.shape[d] + min(behind, 0))
    return F.cat([*front, middle, *back], d) if front or back else middle


_MODES: dict[str, Callable[[Tensor, int, int, int], Tensor]] = {
    "reflect": _reflected,
    "replicate": _replicated,
    "circular": _circular,
}


# --------------------------------------------------------------------------------------- interpolation


_RANKS: Final = {
    "nearest": (3, 4, 5), "nearest-exact": (3, 4, 5), "linear": (3,), "bilinear": (4,), "trilinear": (5,),
    "bicubic": (4,), "area": (3, 4, 5),
}  # fmt: skip
"""Of which tensors interpolate() takes its modes."""


def interpolate(
    input: TensorBase,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """The spatial dimensions of [N, C, L], [N, C, H, W] or [N, C, D, H, W] with other sizes: `size`, or
    floor(size * scale_factor).

    mode "nearest": element floor(i * scale) each; "nearest-exact": floor((i + 0.5) * scale); "linear" (of lines) and
    "bilinear" (of images): (and "trilinear") the two nearest per dimension, weighed by distance, columns first,
    where with `align_corners` the outermost elements keep their places, and else the outer borders do; "bicubic": the
    four nearest, by cubic convolution; "area": the means of `adaptive_avg_pool2d`. scale is the old size over
    the new one, or 1 / scale_factor, unless `recompute_scale_factor`.
    """
    x = tensor_arg("interpolate", input)
    if x.ndim < 3:
        raise ShapeError("expects [N, C, ...] with at least one more dimension", op="interpolate", operands=[x.ttype])
    if antialias:
        raise NotYetError("antialias is not supported", op="interpolate")
    if mode not in _RANKS:
        raise InvalidValueError(f"mode must be one of {list(_RANKS)}, got {mode!r}", op="interpolate")
    if x.ndim not in _RANKS[mode]:
        raise ShapeError(f"mode {mode!r} is not for {x.ndim} dimensions", op="interpolate", operands=[x.ttype])
    if (mode.startswith("nearest") or mode == "area") and align_corners is not None:
        raise InvalidValueError(f"align_corners is not for mode {mode!r}", op="interpolate")
    if not x.dtype.is_floating_point and not mode.startswith("nearest"):
        raise InvalidValueError(f"mode {mode!r} is not defined for {x.dtype}", op="interpolate")
    out, scales = _new_sizes(x, size, scale_factor, bool(recompute_scale_factor))
    if 0 in x.shape[2:]:
        raise ShapeError("expects an input that is not empty", op="interpolate", operands=[x.ttype])
    if mode == "area":
        means = {3: adaptive_avg_pool1d, 4: adaptive_avg_pool2d, 5: adaptive_avg_pool3d}
        return means[x.ndim](x, out)
    dtype = x.dtype
    if dtype.is_half and not mode.startswith("nearest"):
        x = cast_to(x, T.float32)  # weighed there, and rounded once
    for d in reversed(range(2, x.ndim)):
        n, m = x.shape[d], out[d - 2]
        if mode.startswith("nearest"):
            x = _nearest(x, d, m, scales[d - 2], 0.5 if mode == "nearest-exact" else 0.0)
        elif n != m or (scales[d - 2] != 1.0 and not align_corners):
            x = (cubic if mode == "bicubic" else _linear)(x, d, m, scales[d - 2], bool(align_corners))
    return F.clone(x) if x is input else cast_to(x, dtype)


def upsample(
    input: TensorBase,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`interpolate`, under its older name (warns)."""
    _deprecated("upsample")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: TensorBase, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "nearest", under its older name (warns)."""
    _deprecated("upsample_nearest")
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: TensorBase, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "bilinear" and `align_corners`, under its older name (warns)."""
    _deprecated("upsample_bilinear")
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def _deprecated(name: str) -> None:
    message = f"`nn.functional.{name}` is deprecated. Use `nn.functional.interpolate` instead."
    warnings.warn(message, stacklevel=3)


def _new_sizes(x: Tensor, size: Any, factor: Any, recompute: bool) -> tuple[list[int], list[float]]:
    """New sizes, and how many old elements one new element is wide, per dimension."""
    dims, old = x.ndim - 2, x.shape[2:]
    if (size is None) == (factor is None):
        raise InvalidValueError("needs either size or scale_factor", op="interpolate")
    if size is not None:
        if recompute:
            raise InvalidValueError("recompute_scale_factor needs scale_factor", op="interpolate")
        out = list(sizes("interpolate", "size", size, dims))
        at_least("interpolate", "size", out, 1)
        return out, [n / m for n, m in zip(old, out, strict=True)]
    factors = list(factor) if isinstance(factor, (tuple, list)) else [factor] * dims
    if len(factors) != dims or any(isinstance(f, bool) or not isinstance(f, (int, float)) for f in factors):
        raise ArgumentError(f"scale_factor must be a number or {dims} of them, got {factor!r}", op="interpolate")
    out = [math.floor(n * f) for n, f in zip(old, factors, strict=True)]
    if any(m < 1 for m in out):
        raise ShapeError(f"scale_factor {factor} makes size {out}", op="interpolate", operands=[x.ttype])
    if recompute:
        return out, [n / m for n, m in zip(old, out, strict=True)]
    return out, [1.0 / f for f in factors]


def _gathered(x: Tensor, d: int, places: Sequence[int]) -> Tensor:
    """The elements at `places` of dimension d, which ascend."""
    n, m = x.shape[d], len(places)
    times = m // n if n else 0
    if m == n * times and list(places) == [i // times for i in range(m)]:
        shape = (*x.shape[: d + 1], 1, *x.shape[d + 1 :])
        wide = F.expand(F.reshape(x, shape), (*shape[: d + 1], times, *shape[d + 2 :]))
        return F.reshape(wide, (*x.shape[:d], m, *x.shape[d + 1 :]))
    if m <= 1 or len({b - a for a, b in itertools.pairwise(places)} | {1}) == 1:
        return _cut(x, d, places[0], places[0] + m)
    return index_select(x, d, table(x, np.asarray(places, np.int64)))


def _nearest(x: Tensor, d: int, m: int, scale: float, shift: float) -> Tensor:
    """Places are computed in float32."""
    at = np.floor((np.arange(m, dtype=np.float32) + np.float32(shift)) * np.float32(scale))
    return _gathered(x, d, [int(i) for i in np.minimum(at, x.shape[d] - 1)])


def _linear(x: Tensor, d: int, m: int, scale: float, align_corners: bool) -> Tensor:
    """Two gathers along dimension d: x[low] * (1 - weight) + x[high] * weight."""
    n = x.shape[d]
    kind = x.dtype.numpy.type
    i = np.arange(m).astype(x.dtype.numpy)
    if align_corners:
        at = i * kind((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        at = np.maximum((i + kind(0.5)) * kind(scale) - kind(0.5), kind(0.0))
    low = np.minimum(np.floor(at).astype(np.int64), n - 1)
    high = np.minimum(low + 1, n - 1)
    weight = np.clip(at - low.astype(at.dtype), 0, 1).reshape(m, *[1] * (x.ndim - 1 - d))
    first = F.mul(_gathered(x, d, low.tolist()), table(x, 1 - weight))
    return F.add(first, F.mul(_gathered(x, d, high.tolist()), table(x, weight)))


# ----------------------------------------------------------------------------------------- pixel shuffle


def pixel_shuffle(input: TensorBase, upscale_factor: int) -> Tensor:
    """[..., C * r * r, H, W] -> [..., C, H * r, W * r]: the channels of a group become the pixels of a square."""
    x = tensor_arg("pixel_shuffle", input)
    (r,) = sizes("pixel_shuffle", "upscale_factor", upscale_factor, 1)
    at_least("pixel_shuffle", "upscale_factor", (r,), 1)
    if x.ndim < 3 or x.shape[-3] % (r * r):
        raise ShapeError(f"expects [..., C * {r * r}, H, W]", op="pixel_shuffle", operands=[x.ttype])
    *lead, c, h, w = x.shape
    split = F.reshape(x, (*lead, c // (r * r), r, r, h, w))
    k = len(lead)
    moved = F.permute(split, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    return F.reshape(moved, (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: TensorBase, downscale_factor: int) -> Tensor:
    """The reverse of `pixel_shuffle`: [..., C, H * r, W * r] -> [..., C * r * r, H, W]."""
    x = tensor_arg("pixel_unshuffle", input)
    (r,) = sizes("pixel_unshuffle", "downscale_factor", downscale_factor, 1)
    at_least("pixel_unshuffle", "downscale_factor", (r,), 1)
    if x.ndim < 3 or x.shape[-1] % r or x.shape[-2] % r:
        raise ShapeError(f"expects [..., C, H * {r}, W * {r}]", op="pixel_unshuffle", operands=[x.ttype])
    *lead, c, h, w = x.shape
    split = F.reshape(x, (*lead, c, h // r, r, w // r, r))
    k = len(lead)
    moved = F.permute(split, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    return F.reshape(moved, (*lead, c * r * r, h // r, w // r))


def channel_shuffle(input: TensorBase, groups: int) -> Tensor:
    """Channels of [N, C, ...] in another order: those of `groups` groups take turns."""
    x = tensor_arg("channel_shuffle", input)
    (g,) = sizes("channel_shuffle", "groups", groups, 1)
    at_least("channel_shuffle", "groups", (g,), 1)
    if x.ndim < 3 or x.shape[1] % g:
        raise ShapeError(f"expects [N, C, ...] with C divisible by {g}", op="channel_shuffle", operands=[x.ttype])
    n, c, *rest = x.shape
    return F.reshape(F.transpose(F.reshape(x, (n, g, c // g, *rest)), 1, 2), x.shape)
