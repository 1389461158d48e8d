"""Convolution over three dimensions, composed of convolutions over the last two: one for each tap of the depth, of all
planes that this tap meets, added in ascending order of the taps. Planes that lie in the padding do not exist: they are
skipped, as within planes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from kiln import functional as F
from kiln.ir.graph import AttrValue
from kiln.ir.ops.base import OPS
from kiln.promotion import apply, broadcast_to, full_like_number, wide

if TYPE_CHECKING:
    from kiln.tensor import Tensor

_CONV2D, _CONV2D_INPUT = OPS["conv2d"], OPS["conv2d_input"]
_SLICE, _SCATTER = OPS["slice"], OPS["slice_scatter"]


class _Run(NamedTuple):
    """Planes at equal distances: `planes` of them from `first` on."""

    first: int
    step: int
    planes: int

    def whole(self, planes: int) -> bool:
        return self == (0, 1, planes)

    def of(self, x: Tensor) -> Tensor:
        """These planes of x [D, ...]."""
        if self.whole(x.shape[0]):
            return x
        return apply(_SLICE, x, **self._range(x))

    def added(self, total: Tensor, part: Tensor) -> Tensor:
        """`total` with `part` added to these planes."""
        if self.whole(total.shape[0]):
            return F.add(total, part)
        return apply(_SCATTER, total, F.add(self.of(total), part), **self._range(total))

    def alone(self, part: Tensor, planes: int) -> Tensor:
        """`part` in these planes of `planes`, zeros in the others."""
        if self.whole(planes):
            return part
        zeros = full_like_number(part, part.dtype, 0, (planes, *part.shape[1:]))
        return apply(_SCATTER, zeros, part, **self._range(zeros))

    def _range(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        rest = x.shape[1:]
        stop = self.first + (self.planes - 1) * self.step + 1
        return {
            "starts": (self.first, *[0] * len(rest)),
            "stops": (stop, *rest),
            "steps": (self.step, *[1] * len(rest)),
        }


def _meetings(
    fine: int, coarse: int, taps: int, stride: int, before: int, dilation: int
) -> Iterator[tuple[int, _Run, _Run]]:
    """For each tap that meets anything: the tap, the places among `fine` that it meets, and the positions among
    `coarse` that meet them: position p meets place p * stride - before + tap * dilation."""
    for tap in range(taps):
        ahead = tap * dilation - before
        low = max(0, -(ahead // stride))
        high = min(coarse, (fine - 1 - ahead) // stride + 1)
        if low < high:
            yield tap, _Run(low * stride + ahead, stride, high - low), _Run(low, 1, high - low)


def _planes(x: Tensor) -> Tensor:
    """[N, C, D, H, W] -> [D, N, C, H, W], in memory too where that makes runs of planes one batch."""
    turned = F.permute(x, (2, 0, 1, 3, 4))
    return turned.contiguous() if x.shape[0] > 1 else turned


def _batch(planes: Tensor) -> Tensor:
    return F.reshape(planes, (planes.shape[0] * planes.shape[1], *planes.shape[2:]))


def _tap(w: Tensor, tap: int) -> Tensor:
    """The weights of one tap of the depth: [O, C, KD, KH, KW] -> [O, C, KH, KW]."""
    o, c, _, kh, kw = w.shape
    cut = apply(_SLICE, w, starts=(0, 0, tap, 0, 0), stops=(o, c, tap + 1, kh, kw), steps=(1, 1, 1, 1, 1))
    return F.squeeze(cut, 2)


def _summed(parts: Iterator[tuple[_Run, Tensor]], planes: int) -> Tensor | None:
    """The sum of parts at their planes, put back as [N, C, D, H, W]; None if there are no parts."""
    total: Tensor | None = None
    for run, part in parts:
        total = run.alone(part, planes) if total is None else run.added(total, part)
    return None if total is None else F.permute(total, (1, 2, 0, 3, 4)).contiguous()


def nothing(x: Tensor, w: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of this shape, sums of no products: with gradients (zeros) all the same."""
    parts = [apply(_SLICE, v, starts=(0,) * v.ndim, stops=(0, *v.shape[1:]), steps=(1,) * v.ndim) for v in (x, w)]
    return broadcast_to(F.add(F.sum(parts[0]), F.sum(parts[1])), shape).contiguous()


def convolved(
    x: Tensor,
    w: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    around: Sequence[int],
    dilation: Sequence[int],
    how: Mapping[str, AttrValue],
) -> Tensor:
    """x [N, C, D, H, W], w [O, C/groups, KD, KH, KW] -> [N, O, *size]; `around` is the padding before and behind each
    dimension, `how` more attributes: the groups, and whether tensor cores multiply."""
    planes, n = _planes(x), x.shape[0]

    def one(tap: int, places: _Run) -> Tensor:
        images = _batch(places.of(planes))
        attrs = {"stride": tuple(stride[1:]), "padding": tuple(around[2:]), "dilation": tuple(dilation[1:])}
        y = apply(_CONV2D, images, _tap(w, tap), **attrs, **how)
        return F.reshape(y, (places.planes, n, *y.shape[1:]))

    met = _meetings(x.shape[2], size[0], w.shape[2], stride[0], around[0], dilation[0])
    total = _summed(((positions, one(tap, places)) for tap, places, positions in met), size[0])
    return nothing(wide(x), wide(w), (n, w.shape[0], *size)) if total is None else total


def transposed(
    x: Tensor,
    w: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    around: Sequence[int],
    dilation: Sequence[int],
    how: Mapping[str, AttrValue],
) -> Tensor:
    """The gradient of `convolved` by x [N, C, *size], given that by its result: x [N, O, D, H, W], w [O, C/groups, KD,
    KH, KW]."""
    planes, n = _planes(x), x.shape[0]

    def one(tap: int, positions: _Run) -> Tensor:
        images = _batch(positions.of(planes))
        attrs = {"stride": tuple(stride[1:]), "padding": tuple(around[2:]), "dilation": tuple(dilation[1:])}
        y = apply(_CONV2D_INPUT, images, _tap(w, tap), size=tuple(size[1:]), **attrs, **how)
        return F.reshape(y, (positions.planes, n, *y.shape[1:]))

    met = _meetings(size[0], x.shape[2], w.shape[2], stride[0], around[0], dilation[0])
    total = _summed(((places, one(tap, positions)) for tap, places, positions in met), size[0])
    return nothing(wide(x), wide(w), (n, w.shape[1] * cast("int", how["groups"]), *size)) if total is None else total
