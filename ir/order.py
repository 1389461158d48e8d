"""The orders of floating-point accumulation, written down once (docs/numerics.md gives the reasons).

Eager kernels, fused kernels, every thread count and every CPU follow these orders, so that they agree bit
for bit; the functions here are the slow, plain statement of each order and the bit oracle of the tests.
All of them depend on the logical shape alone, never on strides, thread counts or vector width.

*lanes* (the reduced dimension is the last logical one). The run of n elements is cut into blocks of
`BLOCK`. In a block, element i goes to accumulator i % 64 (`GROUPS` groups of `LANES` lanes), each an
ascending chain that starts from the identity. Then groups combine as (g0 + g1) + (g2 + g3), then lanes
as a tree over halves: lane l with lane l + 8, then + 4, + 2, + 1. Block results combine ascending.

*serial* (the reduced dimensions do not include the last one). The reduced index space, flattened
row-major, is cut into blocks of `ROWS`; a block is one ascending chain from the identity; block results
combine ascending.

*both*: a reduction over several dimensions that include the last one is, by definition, the lanes
reduction over the last dimension followed by the serial reduction over the others.

*contraction*: k is cut into blocks of `KBLOCK`; a block is one ascending chain of fused multiply-adds from
+0; block sums are added ascending, the first one standing alone. An empty contraction is +0.

*convolution*: a contraction over (kh, kw, c), its blocks cut in that full space; taps that meet nothing (padding) are
skipped: they do not exist, but their numbers are counted. The gradient by the images is one over (kh, kw, o), that
by the weights one over (n, oh, ow).

*scan*: one ascending chain along the dimension (or descending), the first element standing alone. (GPUs have another
order for long lines of floats: codegen/cuda/scan_text.py.)

The identity of + is -0.0 (x + -0.0 is x for every x, also -0.0); an empty sum is +0.0, an empty product 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kiln.ir.types import DType

if TYPE_CHECKING:  # only slow oracles compute with fractions
    from fractions import Fraction

LANES: Final = 16
GROUPS: Final = 4
BLOCK: Final = 4096
ROWS: Final = 256
KBLOCK: Final = 256

Combine = Callable[[Any, Any], Any]


def identity(combine: str, dtype: DType) -> int | float | bool:
    """The neutral element of a combine: x `combine` identity is x, bit for bit."""
    if combine == "add":
        return -0.0 if dtype.is_floating_point else 0
    if combine == "mul":
        return 1.0 if dtype.is_floating_point else 1
    if combine in ("max", "argmax", "min"):
        sign = 1 if combine == "min" else -1
        if dtype.is_floating_point:
            return sign * math.inf
        if dtype.kind == "bool":
            return combine == "min"
        return dtype.most if combine == "min" else dtype.least
    return {"or": False, "and": True}[combine]


def fold_lanes(run: np.ndarray[Any, Any], combine: Combine, identity: object) -> Any:
    """The lanes order over the last axis of `run` (shape [..., n]); result shape [...]. n = 0 gives the
    identity: callers state what an empty reduction means."""
    n = run.shape[-1]
    total: Any = None
    for start in range(0, n, BLOCK):
        block = run[..., start : start + BLOCK]
        acc = np.full((*run.shape[:-1], GROUPS * LANES), identity, run.dtype)
        for step in range(0, block.shape[-1], GROUPS * LANES):
            part = block[..., step : step + GROUPS * LANES]
            w = part.shape[-1]
            acc[..., :w] = combine(acc[..., :w], part)
        g = [acc[..., i * LANES : (i + 1) * LANES] for i in range(GROUPS)]
        lanes = combine(combine(g[0], g[1]), combine(g[2], g[3]))
        width = LANES // 2
        while width:
            lanes = combine(lanes[..., :width], lanes[..., width : 2 * width])
            width //= 2
        total = lanes[..., 0] if total is None else combine(total, lanes[..., 0])
    return np.full(run.shape[:-1], identity, run.dtype) if total is None else total


def fold_serial(rows: np.ndarray[Any, Any], combine: Combine, identity: object) -> Any:
    """The serial order over the first axis of `rows` (shape [n, ...]); result shape [...]."""
    total: Any = None
    for start in range(0, rows.shape[0], ROWS):
        acc = np.full(rows.shape[1:], identity, rows.dtype)
        for row in rows[start : start + ROWS]:
            acc = combine(acc, row)
        total = acc if total is None else combine(total, acc)
    return np.full(rows.shape[1:], identity, rows.dtype) if total is None else total


def fold(x: np.ndarray[Any, Any], dims: tuple[int, ...], combine: Combine, identity: object) -> Any:
    """`x` reduced over `dims` (sorted, non-negative) in the contract's order; reduced dims are dropped."""
    x = np.asarray(x)
    last = x.ndim - 1
    rest = tuple(d for d in dims if d != last)
    if last in dims:
        x = np.asarray(fold_lanes(x, combine, identity))
    if rest:
        moved = np.moveaxis(x, rest, range(len(rest)))
        n = 1
        for d in moved.shape[: len(rest)]:
            n *= d
        x = np.asarray(fold_serial(moved.reshape(n, *moved.shape[len(rest) :]), combine, identity))
    return x


def fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once, elementwise, for float32 or float64 arrays."""
    dtype = np.asarray(a).dtype
    x, y, z = (np.asarray(v, np.float64) for v in (a, b, c))
    with np.errstate(all="ignore"):
        product = x * y
        total = product + z
        if dtype == np.float32:  # the product is exact; a sum rounded to odd rounds again as the exact one would
            return np.where(np.isfinite(total), _odd_sum(product, z), total).astype(np.float32)
        within = (np.abs(x) < 2.0**500) & (np.abs(y) < 2.0**500) & (np.abs(z) < 2.0**1000)
        exact = within & (np.abs(product) > 2.0**-900)
        out = np.where(exact, _odd_fma(x, y, product, z), total)
    if not exact.all():
        x, y, z = np.broadcast_arrays(x, y, z)
        for i in map(tuple, np.argwhere(~exact & np.isfinite(x) & np.isfinite(y) & (x != 0.0) & (y != 0.0))):
            # an infinite addend is the result, also where the product, rounded by itself, is infinite the other way
            out[i] = fma_by_fractions(float(x[i]), float(y[i]), float(z[i]), dtype) if np.isfinite(z[i]) else z[i]
    return out


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """The float64 sum and what it misses (Knuth)."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)


def _odd_sum(a: Any, b: Any) -> Any:
    """The float64 sum rounded to odd: where it is not exact, the neighbour whose last bit is set."""
    s, missed = _two_sum(a, b)
    even = np.asarray(s).view(np.int64) & 1 == 0
    return np.where((missed != 0.0) & even, np.nextafter(s, np.copysign(np.inf, missed)), s)


def _odd_fma(x: Any, y: Any, product: Any, z: Any) -> Any:
    """x * y + z in float64, rounded once (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums:
    proved algorithms using rounding to odd"), where neither the product's parts nor the sums leave the range."""
    (x1, x2), (y1, y2) = _halves(x), _halves(y)
    missed = x2 * y2 - (((product - x1 * y1) - x2 * y1) - x1 * y2)  # by Dekker: product + missed is x * y
    high, low = _two_sum(z, missed)
    high, rest = _two_sum(product, high)
    return high + _odd_sum(low, rest)


def _halves(a: Any) -> tuple[Any, Any]:
    """Two numbers of 26 bits at most whose sum is `a` (Veltkamp)."""
    scaled = a * (2.0**27 + 1.0)
    high = scaled - (scaled - a)
    return high, a - high


def fma_by_fractions(x: float, y: float, z: float, dtype: np.dtype[Any]) -> Any:
    """x * y + z of finite numbers, rounded once: slow, but plainly right."""
    from fractions import Fraction

    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact == 0:
        # The sign of an exact zero follows IEEE 754: that of the product and addend if they agree, else +.
        return dtype.type(math.copysign(0.0, x) * math.copysign(1.0, y) + z) if x == 0 or y == 0 else dtype.type(0.0)
    return round_fraction(exact, dtype)


def round_fraction(q: Fraction, dtype: np.dtype[Any]) -> Any:
    """The float of `dtype` nearest to the rational q, ties to even (subnormals and overflow included)."""
    from fractions import Fraction

    if q == 0:
        return dtype.type(0.0)
    info = np.finfo(dtype)
    digits, emin = info.nmant, int(info.minexp)
    sign, q = (-1, -q) if q < 0 else (1, q)
    e = q.numerator.bit_length() - q.denominator.bit_length()
    if q < Fraction(2) ** e:
        e -= 1
    scale = max(e, emin) - digits
    scaled = q / Fraction(2) ** scale
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    twice = 2 * rest - scaled.denominator
    if twice > 0 or (twice == 0 and whole & 1):
        whole += 1
    if whole == 0:
        return dtype.type(sign * 0.0)
    if whole.bit_length() + scale > info.maxexp:
        return dtype.type(sign * np.inf)
    return dtype.type(sign * np.ldexp(float(whole), scale))


def contract(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """a [..., M, K] @ b [..., K, N] in the contraction order, equal batch dims; slow and exact."""
    k = a.shape[-1]
    out = np.zeros((*a.shape[:-1], b.shape[-1]), a.dtype)
    for start in range(0, k, KBLOCK):
        acc = np.zeros_like(out)
        for j in range(start, min(k, start + KBLOCK)):
            acc = fma(a[..., :, j : j + 1], b[..., j : j + 1, :], acc)
        out = acc if start == 0 else out + acc
    return out


def taps(axis: Any, n: int, count: int) -> np.ndarray[Any, Any]:
    """Of each position of a convolution's result along one dimension and each of `count` taps: the element met among
    n, or -1. `axis` has `stride`, `before`, `dilation` and `size` (see ir/ops/conv.py)."""
    position, tap = np.arange(max(0, axis.size(n, count)))[:, None], np.arange(count)[None, :]
    met = position * axis.stride - axis.before + tap * axis.dilation
    return np.where((met >= 0) & (met < n), met, -1)


def no_taps(n: int, count: int) -> np.ndarray[Any, Any]:
    """A table like that of `taps` in which nothing meets anything."""
    return np.full((n, count), -1)


class _Chain:
    """The contraction order for terms that come one by one: `step` adds a * b at the places of `where` to element k."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.block, self.acc, self.total = 0, np.zeros(shape, dtype), np.zeros(shape, dtype)

    def step(self, k: int, where: Any, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> None:
        if k // KBLOCK != self.block:
            self.close(k // KBLOCK)
        self.acc[where] = fma(a, b, self.acc[where])

    def close(self, block: int) -> np.ndarray[Any, Any]:
        """End all blocks before number `block`; those without terms add +0."""
        while self.block < block:
            self.total = self.acc if self.block == 0 else self.total + self.acc
            self.block, self.acc = self.block + 1, np.zeros_like(self.acc)
        return self.total


def convolve(
    x: np.ndarray[Any, Any], w: np.ndarray[Any, Any], rows: Any, columns: Any, groups: int
) -> np.ndarray[Any, Any]:
    """x [N, C, H, W] with w [O, C/groups, KH, KW] in the convolution order; `rows` [OH, KH] and `columns` [OW, KW] say
    which element of x a position meets at a tap (-1: none). Slow and exact."""
    (n, _, _, _), (o, c, kh, kw) = x.shape, w.shape
    out = np.zeros((n, o, len(rows), len(columns)), x.dtype)
    for group in range(groups):
        of_x = slice(group * c, (group + 1) * c)
        of_w = slice(group * (o // groups), (group + 1) * (o // groups))
        images, weights = x[:, of_x], w[of_w]
        chain = _Chain((n, o // groups, len(rows), len(columns)), x.dtype)
        for i, j, channel in np.ndindex(kh, kw, c):
            meets = (rows[:, i] >= 0).nonzero()[0], (columns[:, j] >= 0).nonzero()[0]
            where = np.ix_(range(n), range(o // groups), *meets)
            met = images[:, channel][np.ix_(range(n), rows[meets[0], i], columns[meets[1], j])]
            chain.step((i * kw + j) * c + channel, where, met[:, None], weights[:, channel, i, j][None, :, None, None])
        out[:, of_w] = chain.close(max(1, -(-kh * kw * c // KBLOCK)))
    return out


def correlate(
    x: np.ndarray[Any, Any], g: np.ndarray[Any, Any], rows: Any, columns: Any, groups: int
) -> np.ndarray[Any, Any]:
    """The gradient by the weights: x [N, C, H, W] and g [N, O, OH, OW] to [O, C/groups, KH, KW]; `rows` and `columns`
    as for `convolve`. Slow and exact."""
    (n, channels, _, _), (_, o, oh, ow) = x.shape, g.shape
    c, some = channels // groups, o // groups
    out = np.zeros((o, c, rows.shape[1], columns.shape[1]), x.dtype)
    for group in range(groups):
        images, results = x[:, group * c : (group + 1) * c], g[:, group * some : (group + 1) * some]
        chain = _Chain((some, c, rows.shape[1], columns.shape[1]), x.dtype)
        for image, i, j in np.ndindex(n, oh, ow):
            meets = (rows[i] >= 0).nonzero()[0], (columns[j] >= 0).nonzero()[0]
            where = np.ix_(range(some), range(c), *meets)
            met = images[image][np.ix_(range(c), rows[i, meets[0]], columns[j, meets[1]])]
            chain.step((image * oh + i) * ow + j, where, met[None], results[image, :, i, j][:, None, None, None])
        out[group * some : (group + 1) * some] = chain.close(max(1, -(-n * oh * ow // KBLOCK)))
    return out
