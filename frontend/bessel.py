"""Bessel and Airy functions (`kiln.special`), as Chebyshev series (coefficients computed from their definitions in 45
digits or more) between the places where they oscillate or grow, and of amplitude and phase beyond (DLMF 10.17, 10.40
and 9.7).

All but `i0`, `i0e`, `i1` and `i1e` are computed in float64, rounded once, and have no history, as in PyTorch: gradients
do not pass through them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from kiln import functional as F
from kiln import special_tables as tables
from kiln.base import TensorBase
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.pointwise import sign
from kiln.promotion import apply, cast_to, floating, in_float32

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "i0", "i0e", "i1", "i1e", "modified_bessel_i0"),
    *("modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0"),
    *("scaled_modified_bessel_k1", "spherical_bessel_j0"),
]

# ------------------------------------------------------------------- modified, of the first kind

_I0_NEAR: Final = (
    0.33839763720473803, -0.3046826723431984, 0.17162090152220877, -0.09490109704804764, 0.04930528423967071,
    -0.02373741480589947, 0.010546460394594998, -0.004324309995050576, 0.0016394756169413357, -0.0005763755745385824,
    0.00018850288509584165, -5.754195010082104e-05, 1.6448448070728896e-05, -4.4167383584587505e-06,
    1.1173875391201037e-06, -2.670793853940612e-07, 6.046995022541919e-08, -1.300025009986248e-08,
    2.6598237246823866e-09, -5.189795601635263e-10, 9.675809035373237e-11, -1.726826291441556e-11, 2.95505266312964e-12,
    -4.856446783111929e-13, 7.676185498604936e-14, -1.1685332877993451e-14, 1.715391285555133e-15,
    -2.431279846547955e-16, 3.3307945188222384e-17, -4.4153416464793395e-18,
)  # fmt: skip
_I0_FAR: Final = (
    0.4022452055070544, 0.0033691164782556943, 6.889758346916825e-05, 2.8913705208347567e-06, 2.0489185894690638e-07,
    2.266668990498178e-08, 3.3962320257083865e-09, 4.94060238822497e-10, 1.1889147107846439e-11,
    -3.1499165279632416e-11, -1.3215811840447713e-11, -1.7941785315068062e-12, 7.180124451383666e-13,
    3.8527783827421426e-13, 1.54008621752141e-14, -4.150569347287222e-14, -9.554846698828307e-15,
    3.8116806693526224e-15, 1.7725601330565263e-15, -3.425485619677219e-16, -2.8276239805165836e-16,
    3.461222867697461e-17, 4.46562142029676e-17, -4.830504485944182e-18, -7.233180487874754e-18,
)  # fmt: skip
_I1_NEAR: Final = (
    0.12629359322181682, -0.17641651835783406, 0.1026436586898471, -0.05294598120809499, 0.024726449030626516,
    -0.010564084894626197, 0.004156422944312888, -0.0015135724506312532, 0.0005122859561685758, -0.00016176081582589674,
    4.781565107550054e-05, -1.3273163656039436e-05, 3.4702513081376785e-06, -8.568720264695455e-07,
    2.0032947535521353e-07, -4.445059128796328e-08, 9.381537386495773e-09, -1.8872497517228294e-09,
    3.625590281552117e-10, -6.663489723502027e-11, 1.1736186298890901e-11, -1.9839743977649436e-12,
    3.223793365945575e-13, -5.042185504727912e-14, 7.600684294735408e-15, -1.1055969477353862e-15,
    1.5536319577362005e-16, -2.111421214358166e-17, 2.7779141127610464e-18,
)  # fmt: skip
_I1_FAR: Final = (
    0.38928811750914005, -0.009761097491361469, -0.00011058893876262371, -3.882564808877691e-06, -2.512236237870209e-07,
    -2.6314688468895196e-08, -3.835380385964237e-09, -5.589743462196584e-10, -1.8974958123505413e-11,
    3.2526035830154884e-11, 1.4125807436613782e-11, 2.0356285441470896e-12, -7.198551776245908e-13,
    -4.0835511110921974e-13, -2.1015418427726643e-14, 4.272440016711951e-14, 1.0420276984128802e-14,
    -3.8144030724370075e-15, -1.8803547755107825e-15, 3.3082023109209285e-16, 2.96262899764595e-16,
    -3.209525921993424e-17, -4.6503053684893586e-17, 4.414348323071708e-18, 7.517296310842105e-18,
)  # fmt: skip


def _chebyshev(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The sum of coefficients[k] * T_k(x), by Clenshaw's recurrence."""
    twice = F.mul(x, 2.0)
    head, *rest = coefficients
    b, later = F.add(F.mul(x, 0.0), rest[-1]), F.mul(x, 0.0)
    for c in reversed(rest[:-1]):
        b, later = F.add(F.sub(F.mul(twice, b), later), c), b
    return F.add(F.sub(F.mul(x, b), later), head)


def _bessel(x: Tensor, near: Sequence[float], far: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Where |x| is at most 8, the series there, and beyond."""
    a = F.abs(x)
    inside = F.le(a, 8.0)
    b = F.where(inside, 8.0, a)
    low = _chebyshev(F.sub(F.mul(F.where(inside, a, 8.0), 0.25), 1.0), near)
    high = F.div(_chebyshev(F.sub(F.div(16.0, b), 1.0), far), F.sqrt(b))
    return inside, low, high


@in_float32
def i0e(input: TensorBase) -> Tensor:
    """i0(input) * exp(-|input|)."""
    inside, low, high = _bessel(floating("i0e", input), _I0_NEAR, _I0_FAR)
    return F.where(inside, low, high)


@in_float32
def i0(input: TensorBase) -> Tensor:
    """The modified Bessel function of the first kind of order 0."""
    x = floating("i0", input)
    return F.mul(F.exp(F.abs(x)), i0e(x))


@in_float32
def i1e(input: TensorBase) -> Tensor:
    """i1(input) * exp(-|input|)."""
    x = floating("i1e", input)
    inside, low, high = _bessel(x, _I1_NEAR, _I1_FAR)
    return F.where(inside, F.mul(F.where(inside, x, 0.0), low), F.mul(sign(x), high))


@in_float32
def i1(input: TensorBase) -> Tensor:
    """The modified Bessel function of the first kind of order 1."""
    x = floating("i1", input)
    return F.mul(F.exp(F.abs(x)), i1e(x))


# ------------------------------------------------------------------------------------------ the others

Function = TypeVar("Function", bound=Callable[..., Any])


def in_float64(function: Function) -> Function:
    """A function of one tensor that is given as float64, without history, and whose result is rounded to its dtype."""

    @functools.wraps(function)
    def run(input: TensorBase) -> Tensor:
        x = floating(function.__name__, input).detach()
        return cast_to(function(cast_to(x, T.float64)), x.dtype)

    return cast("Function", run)


def series(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """The sum of coefficients[k] * T_k(x)."""
    return apply(OPS["chebyshev"], x, c=coefficients)


def _waves(x: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """J and Y of this order (0 or 1) from 8 on: amplitudes times cosine and sine of x - pi / 4 (- pi / 2)."""
    inverse = F.div(8.0, x)
    at = F.sub(F.mul(F.mul(inverse, inverse), 2.0), 1.0)
    p = series(at, (tables.P0_FAR, tables.P1_FAR)[order])
    q = F.mul(inverse, series(at, (tables.Q0_FAR, tables.Q1_FAR)[order]))
    s, c = F.sin(x), F.cos(x)
    cosine, sine = (F.add(s, c), F.sub(s, c)) if order == 0 else (F.sub(s, c), F.neg(F.add(s, c)))
    size = F.sqrt(F.mul(x, math.pi))
    return (
        F.div(F.sub(F.mul(p, cosine), F.mul(q, sine)), size),
        F.div(F.add(F.mul(p, sine), F.mul(q, cosine)), size),
    )


def _square(x: Tensor) -> Tensor:
    """From 0 to 8, what the series there take: x^2 / 32 - 1."""
    return F.sub(F.div(F.mul(x, x), 32.0), 1.0)


@in_float64
def bessel_j0(input: Tensor) -> Tensor:
    """The Bessel function of the first kind of order 0; NaN at infinities."""
    a = F.abs(input)
    near = F.le(a, 8.0)
    return F.where(near, series(_square(F.where(near, a, 0.0)), tables.J0_NEAR), _waves(F.where(near, 8.0, a), 0)[0])


@in_float64
def bessel_j1(input: Tensor) -> Tensor:
    """The Bessel function of the first kind of order 1; NaN at infinities."""
    a = F.abs(input)
    near = F.le(a, 8.0)
    x = F.where(near, input, 0.0)
    far = F.mul(sign(input), _waves(F.where(near, 8.0, a), 1)[0])
    return F.where(near, F.mul(x, series(_square(x), tables.J1_NEAR)), far)


@in_float64
def bessel_y0(input: Tensor) -> Tensor:
    """The Bessel function of the second kind of order 0: -inf at 0, NaN below and at infinity."""
    near = F.le(F.abs(input), 8.0)
    x = F.where(near, input, 1.0)
    at = _square(x)
    log = F.mul(F.mul(F.log(x), series(at, tables.J0_NEAR)), 2 / math.pi)
    return F.where(near, F.add(log, series(at, tables.Y0_NEAR)), _waves(F.where(near, 8.0, input), 0)[1])


@in_float64
def bessel_y1(input: Tensor) -> Tensor:
    """The Bessel function of the second kind of order 1: -inf at 0, NaN below and at infinity."""
    near = F.le(F.abs(input), 8.0)
    x = F.where(near, input, 1.0)
    at = _square(x)
    j = F.mul(x, series(at, tables.J1_NEAR))
    log = F.mul(F.sub(F.mul(F.log(x), j), F.reciprocal(x)), 2 / math.pi)
    value = F.where(near, F.add(log, F.mul(x, series(at, tables.Y1_NEAR))), _waves(F.where(near, 8.0, input), 1)[1])
    return F.where(F.eq(input, 0.0), -math.inf, value)


@in_float64
def modified_bessel_i0(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind of order 0; NaN at infinities."""
    return i0(input)


@in_float64
def modified_bessel_i1(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind of order 1; NaN at infinities."""
    return i1(input)


def _k0(x: Tensor, scaled: bool) -> Tensor:
    near = F.le(x, 2.0)
    a, b = F.where(near, x, 1.0), F.where(near, 2.0, x)
    low = series(F.sub(F.div(F.mul(a, a), 2.0), 1.0), tables.K0_NEAR)
    low = F.sub(low, F.mul(F.log(F.mul(a, 0.5)), i0(a)))
    return _joined(near, low, a, F.div(series(F.sub(F.div(4.0, b), 1.0), tables.K0_FAR), F.sqrt(b)), b, scaled)


def _k1(x: Tensor, scaled: bool) -> Tensor:
    near = F.le(x, 2.0)
    a, b = F.where(near, x, 1.0), F.where(near, 2.0, x)
    low = F.div(series(F.sub(F.div(F.mul(a, a), 2.0), 1.0), tables.K1_NEAR), a)
    low = F.add(low, F.mul(F.log(F.mul(a, 0.5)), i1(a)))
    low = F.where(F.eq(a, 0.0), math.inf, low)
    return _joined(near, low, a, F.div(series(F.sub(F.div(4.0, b), 1.0), tables.K1_FAR), F.sqrt(b)), b, scaled)


def _joined(near: Tensor, low: Tensor, a: Tensor, high: Tensor, b: Tensor, scaled: bool) -> Tensor:
    """`low` at `a` where `near`, else `high`, which is scaled, at `b`."""
    if scaled:
        return F.where(near, F.mul(low, F.exp(a)), high)
    return F.where(near, low, F.mul(high, F.exp(F.neg(b))))


@in_float64
def modified_bessel_k0(input: Tensor) -> Tensor:
    """The modified Bessel function of the second kind of order 0: inf at 0, NaN below."""
    return _k0(input, False)


@in_float64
def modified_bessel_k1(input: Tensor) -> Tensor:
    """The modified Bessel function of the second kind of order 1: inf at 0, NaN below."""
    return _k1(input, False)


@in_float64
def scaled_modified_bessel_k0(input: Tensor) -> Tensor:
    """modified_bessel_k0(input) * exp(input)."""
    return _k0(input, True)


@in_float64
def scaled_modified_bessel_k1(input: Tensor) -> Tensor:
    """modified_bessel_k1(input) * exp(input)."""
    return _k1(input, True)


@in_float64
def spherical_bessel_j0(input: Tensor) -> Tensor:
    """sin(input) / input: 1 at 0, 0 at infinities."""
    near, far = F.lt(F.abs(input), 0.5), F.eq(F.abs(input), math.inf)
    z = F.mul(F.where(near, input, 0.0), F.where(near, input, 0.0))
    low: Any = 1.0
    for k in range(7, 0, -1):
        low = F.sub(1.0, F.mul(F.div(z, 2.0 * k * (2 * k + 1)), low))
    x = F.where(F.logical_or(near, far), 1.0, input)
    return F.where(near, low, F.where(far, 0.0, F.div(F.sin(x), x)))


_AIRY_LOW: Final = 6.0
_AIRY_HIGH: Final = 2.0


@in_float64
def airy_ai(input: Tensor) -> Tensor:
    """The Airy function Ai; NaN at infinities."""
    low, high = F.lt(input, -_AIRY_LOW), F.gt(input, _AIRY_HIGH)
    middle = F.logical_not(F.logical_or(low, high))
    value = series(F.div(F.add(F.where(middle, input, 0.0), 2.0), 4.0), tables.AIRY_MIDDLE)
    value = F.where(low, _airy_waves(F.where(low, F.neg(input), _AIRY_LOW)), value)
    value = F.where(high, _airy_decay(F.where(high, input, _AIRY_HIGH)), value)
    return F.where(F.eq(F.abs(input), math.inf), math.nan, value)


def _zeta_of(x: Tensor) -> Tensor:
    """2 / 3 * x^(3 / 2)"""
    return F.mul(F.mul(x, F.sqrt(x)), 2 / 3)


def _airy_waves(x: Tensor) -> Tensor:
    """Ai(-x), x >= 6."""
    zeta = _zeta_of(x)
    inverse = F.div(2 / 3 * _AIRY_LOW**1.5, zeta)
    at = F.sub(F.mul(F.mul(inverse, inverse), 2.0), 1.0)
    s, c = F.sin(zeta), F.cos(zeta)
    total = F.mul(series(at, tables.AIRY_COS), F.add(s, c))
    total = F.add(total, F.mul(F.mul(inverse, series(at, tables.AIRY_SIN)), F.sub(s, c)))
    return F.div(total, F.mul(F.sqrt(F.sqrt(x)), math.sqrt(2 * math.pi)))


def _airy_decay(x: Tensor) -> Tensor:
    """Ai(x), x >= 2."""
    zeta = _zeta_of(x)
    at = F.sub(F.div(4 / 3 * _AIRY_HIGH**1.5, zeta), 1.0)
    return F.mul(F.div(series(at, tables.AIRY_FAR), F.sqrt(F.sqrt(x))), F.exp(F.neg(zeta)))
