"""Images read at places between pixels: `grid_sample`, `affine_grid`, and the cubic convolution of `interpolate`.

All are gathers and weighed sums, so they have gradients with respect to images and places.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kiln import functional as F
from kiln import pointwise as P
from kiln.base import TensorBase
from kiln.convolution import table
from kiln.errors import DTypeError, InvalidValueError, NotYetError, ShapeError
from kiln.gathering import gather, index_select
from kiln.ir import types as T
from kiln.promotion import cast_to, in_float32, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["affine_grid", "cubic", "grid_sample"]

_SHARPNESS = -0.75


def _cubic_weights(t: Any) -> tuple[Any, Any, Any, Any]:
    """The weights of the elements at -1, 0, 1 and 2 for a place t in [0, 1): Keys' cubic convolution with a = -0.75."""
    a = _SHARPNESS

    def near(x: Any) -> Any:
        return (x * (a + 2) - (a + 3)) * x * x + 1

    def far(x: Any) -> Any:
        return ((x * a - 5 * a) * x + 8 * a) * x - 4 * a

    return far(t + 1), near(t), near(1 - t), far(2 - t)


def cubic(x: Tensor, d: int, m: int, scale: float, align_corners: bool) -> Tensor:
    """Dimension `d` with m elements, by cubic convolution; beyond the edge lies what lies at the edge."""
    n = x.shape[d]
    kind = x.dtype.numpy.type
    i = np.arange(m).astype(x.dtype.numpy)
    if align_corners:
        at = i * kind((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        at = (i + kind(0.5)) * kind(scale) - kind(0.5)
    low = np.floor(at)
    result: Any = None
    for step, weight in enumerate(_cubic_weights(at - low), -1):
        places = np.clip(low.astype(np.int64) + step, 0, n - 1)
        column = np.asarray(weight, x.dtype.numpy).reshape(m, *[1] * (x.ndim - 1 - d))
        term = F.mul(index_select(x, d, table(x, places)), table(x, column))
        result = term if result is None else F.add(result, term)
    assert result is not None
    return result  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------------------------- grids


def affine_grid(theta: TensorBase, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Places for `grid_sample`: the pixels of an image of `size` [N, C, H, W] (or [N, C, D, H, W]) under affine maps
    theta [N, 2, 3] (or [N, 3, 4]), as [N, H, W, 2] (or [N, D, H, W, 3]): x, y(, z) from -1 to 1, which are the
    outermost pixels with `align_corners`, else the outer borders."""
    maps = tensor_arg("affine_grid", theta)
    if not maps.dtype.is_floating_point:
        raise DTypeError(f"is not defined for {maps.dtype}", op="affine_grid", operands=[maps.ttype])
    dims = len(size) - 2
    if dims not in (2, 3) or maps.ndim != 3 or maps.shape != (size[0], dims, dims + 1):
        raise ShapeError(
            f"size {tuple(size)} needs maps [{size[0]}, {dims}, {dims + 1}]", op="affine_grid", operands=[maps.ttype]
        )
    extents = [int(n) for n in size[2:]]
    if min(extents) < 1:
        raise InvalidValueError(f"sizes must be positive, got {tuple(size)}", op="affine_grid")

    def line(n: int) -> np.ndarray[Any, Any]:
        if n == 1:
            return np.zeros(1)
        steps = np.linspace(-1.0, 1.0, n)
        return steps if align_corners else steps * ((n - 1) / n)

    axes = np.meshgrid(*[line(n) for n in extents], indexing="ij")
    points = np.stack([*reversed(axes), np.ones(extents)], -1).reshape(1, -1, dims + 1)
    base = table(maps, points.astype(np.float32 if maps.dtype.is_half else maps.dtype.numpy))
    base = F.expand(cast_to(base, maps.dtype), (maps.shape[0], -1, -1))
    return F.reshape(F.matmul(base, F.transpose(maps, 1, 2)), (maps.shape[0], *extents, dims))


_PADDINGS = ("zeros", "border", "reflection")


def grid_sample(
    input: TensorBase,
    grid: TensorBase,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """Images [N, C, H, W] (or [N, C, D, H, W]) read at the places `grid` [N, h, w, 2] (or [N, d, h, w, 3]), as
    [N, C, h, w] (or [N, C, d, h, w]). A place is x, y(, z), from -1 to 1: the outermost pixels with `align_corners`,
    else the outer borders. mode: "bilinear", "nearest" or (of images) "bicubic"; beyond the borders lie "zeros", the
    edge ("border") or the mirrored image ("reflection"). A NaN counts as -1."""
    x, g = tensor_arg("grid_sample", input), tensor_arg("grid_sample", grid)
    types = [x.ttype, g.ttype]
    dims = x.ndim - 2
    if dims not in (2, 3) or g.ndim != x.ndim or g.shape[-1] != dims or g.shape[0] != x.shape[0]:
        raise ShapeError(
            "expects [N, C, H, W] and [N, h, w, 2], or one dimension more", op="grid_sample", operands=types
        )
    if x.dtype is not g.dtype or not x.dtype.is_floating_point:
        raise DTypeError("both must have one floating-point dtype", op="grid_sample", operands=types)
    if 0 in x.shape[2:]:
        raise ShapeError("expects an input that is not empty", op="grid_sample", operands=types)
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise InvalidValueError(f'mode must be "bilinear", "nearest" or "bicubic", got {mode!r}', op="grid_sample")
    if mode == "bicubic" and dims == 3:
        raise NotYetError('mode "bicubic" is for images only', op="grid_sample")
    if padding_mode not in _PADDINGS:
        raise InvalidValueError(f"padding_mode must be one of {_PADDINGS}, got {padding_mode!r}", op="grid_sample")
    return _sampled(x, g, mode, padding_mode, bool(align_corners))


@in_float32
def _sampled(x: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    extents = list(reversed(x.shape[2:]))  # as coordinates come: x first
    places = []
    for k, n in enumerate(extents):
        at = F.add(grid[..., k], 1.0)
        at = F.mul(at, (n - 1) / 2) if align else F.div(F.sub(F.mul(at, float(n)), 1.0), 2.0)
        places.append(at if mode == "bicubic" else _brought_in(at, n, padding, align))
    if mode == "nearest":
        return _pixels(x, [P.round(p.detach()) for p in places])
    lows = [P.floor(p.detach()) for p in places]
    parts = [F.sub(p, low) for p, low in zip(places, lows, strict=True)]
    steps: tuple[int, ...] = (0, 1) if mode == "bilinear" else (-1, 0, 1, 2)
    weights = [(F.sub(1.0, t), t) if mode == "bilinear" else _cubic_weights(t) for t in parts]
    result: Any = None
    for corner in itertools.product(range(len(steps)), repeat=len(places)):  # the last coordinate changes slowest
        choice = tuple(reversed(corner))
        corners = [F.add(low, float(steps[c])) if steps[c] else low for low, c in zip(lows, choice, strict=True)]
        if mode == "bicubic":
            corners = [_brought_in(p, n, padding, align) for p, n in zip(corners, extents, strict=True)]
        weight = math.prod([w[c] for w, c in zip(weights[1:], choice[1:], strict=True)], start=weights[0][choice[0]])
        term = F.mul(_pixels(x, corners), F.unsqueeze(weight, 1))
        result = term if result is None else F.add(result, term)
    return result  # type: ignore[no-any-return]


def _brought_in(at: Tensor, n: int, padding: str, align: bool) -> Tensor:
    """Places along a dimension of n elements, mirrored or clipped as the padding says."""
    if padding == "zeros":
        return at
    if padding == "reflection":
        low, span = (0.0, float(n - 1)) if align else (-0.5, float(n))
        if not span:
            return F.mul(at, 0.0)
        gap = F.abs(F.sub(at, low))
        turns = P.floor(F.div(gap.detach(), span))
        rest = F.sub(gap, F.mul(turns, span))
        odd = F.ne(P.fmod(turns, 2.0), 0.0)
        at = F.where(odd, F.add(F.sub(span, rest), low), F.add(rest, low))
    return F.clamp(F.where(P.isnan(at), 0.0, at), 0.0, float(n - 1))


def _pixels(x: Tensor, places: Sequence[Tensor]) -> Tensor:
    """x [N, C, ...] at whole numbers (as floats), one tensor [N, ...] for each of x, y(, z): 0 outside."""
    inside: Any = None
    flat: Any = None
    step = 1
    for at, n in zip(places, reversed(x.shape[2:]), strict=True):
        here = F.logical_and(F.ge(at, 0.0), F.le(at, float(n - 1)))
        inside = here if inside is None else F.logical_and(inside, here)
        index = F.mul(cast_to(F.where(here, at.detach(), 0.0), T.int64), step)
        flat = index if flat is None else F.add(flat, index)
        step *= n
    count, channels = x.shape[:2]
    shape = places[0].shape[1:]
    index = F.expand(F.reshape(flat, (count, 1, math.prod(shape))), (-1, channels, -1))
    found = gather(F.reshape(x, (count, channels, step)), 2, index)
    return F.where(F.unsqueeze(inside, 1), F.reshape(found, (count, channels, *shape)), 0.0)
