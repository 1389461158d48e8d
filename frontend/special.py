"""`kiln.special`: special functions, under PyTorch's names. Integers and bools are taken in the default dtype.

Most are public functions of `kiln` under another name. The Bessel functions are Chebyshev series of the scaled ones
(coefficients computed in 50 digits from their definition), on [0, 8] in the argument and beyond in its reciprocal.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kiln import functional as F
from kiln.base import TensorBase
from kiln.errors import ArgumentError, InvalidValueError
from kiln.functional import log_softmax as log_softmax
from kiln.functional import softmax as softmax
from kiln.ir.ops.base import OPS
from kiln.maths import digamma as digamma
from kiln.maths import erfc as erfc
from kiln.maths import erfinv as erfinv
from kiln.maths import exp2 as exp2
from kiln.maths import expm1 as expm1
from kiln.maths import lgamma as gammaln
from kiln.maths import log1p as log1p
from kiln.maths import logit as logit
from kiln.maths import sinc as sinc
from kiln.maths import xlog1py as xlog1py
from kiln.maths import xlogy as xlogy
from kiln.pointwise import round as round
from kiln.pointwise import sign, trunc
from kiln.promotion import apply, floating, in_float32
from kiln.reductions import logsumexp as logsumexp

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammaln", "i0", "i0e", "i1"),
    *("i1e", "log1p", "log_ndtr", "log_softmax", "logit", "logsumexp", "multigammaln", "ndtr", "polygamma", "psi"),
    *("round", "sinc", "softmax", "xlog1py", "xlogy"),
]

erf, expit, psi = F.erf, F.sigmoid, digamma

# ----------------------------------------------------------------------------------------------- gamma


def polygamma(n: int, input: TensorBase) -> Tensor:
    """The n-th derivative of `digamma`, n >= 0; infinite or NaN at 0 and negative integers."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise ArgumentError(f"the order must be an int, got {type(n).__name__}", op="polygamma")
    if n < 0:
        raise InvalidValueError(f"the order must not be negative, got {n}", op="polygamma")
    return digamma(input) if n == 0 else apply(OPS["polygamma"], floating("polygamma", input), n=n)


@in_float32
def multigammaln(input: TensorBase, p: int) -> Tensor:
    """The logarithm of the gamma function of `p` dimensions: p (p - 1) / 4 * log(pi) and the sum of
    lgamma(input - j / 2) for j < p. Meant for input > (p - 1) / 2."""
    x = floating("multigammaln", input)
    if p < 1:
        raise InvalidValueError(f"p must be at least 1, got {p}", op="multigammaln")
    terms = (gammaln(F.sub(x, j / 2) if j else x) for j in range(p))
    return F.add(functools.reduce(F.add, terms), p * (p - 1) / 4 * math.log(math.pi))


# ------------------------------------------------------------------------------ of the normal distribution


@in_float32
def entr(input: TensorBase) -> Tensor:
    """-input * log(input): 0 at 0, -inf below."""
    x = floating("entr", input)
    inside = F.gt(x, 0.0)
    value = F.neg(F.mul(x, F.log(F.where(inside, x, 1.0))))
    outside = F.where(F.lt(x, 0.0), -math.inf, F.mul(x, 0.0))  # 0 at 0, and NaN of NaN
    return F.where(inside, value, outside)


_STEP: Final = 32.0
_EDGE: Final = 8.0
_TERMS: Final = 16
"""Of the asymptotic series of erfcx beyond `_EDGE`, where what is left out is below 4e-17."""


@in_float32
def erfcx(input: TensorBase) -> Tensor:
    """exp(input^2) * erfc(input), without overflow or underflow on the way for positive input. The square is taken
    apart into one that is exact and a small rest; from 8 on it is the asymptotic series."""
    x = floating("erfcx", input)
    near = F.lt(x, _EDGE)
    a = F.clamp(F.where(near, x, 0.0), min=-30.0)  # it is infinite below -27
    s = F.div(trunc(F.mul(a.detach(), _STEP)), _STEP)
    square = F.mul(F.exp(F.mul(s, s)), F.exp(F.mul(F.sub(a, s), F.add(a, s))))
    b = F.where(near, _EDGE, x)
    w = F.div(F.reciprocal(F.square(b)), -2.0)
    series: Any = 1.0
    for k in range(_TERMS, 0, -1):
        series = F.add(F.mul(F.mul(w, 2.0 * k - 1.0), series), 1.0)
    far = F.div(series, F.mul(b, math.sqrt(math.pi)))
    return F.where(near, F.mul(square, erfc(a)), far)


@in_float32
def ndtr(input: TensorBase) -> Tensor:
    """The probability that a standard normal number is below `input`: erfc(-input / sqrt(2)) / 2."""
    return F.mul(erfc(F.mul(floating("ndtr", input), -math.sqrt(0.5))), 0.5)


@in_float32
def log_ndtr(input: TensorBase) -> Tensor:
    """log(ndtr(input)), precise far below 0."""
    t = F.mul(floating("log_ndtr", input), math.sqrt(0.5))
    low = F.lt(t, -math.sqrt(0.5))
    a, b = F.where(low, t, -1.0), F.where(low, 0.0, t)
    below = F.sub(F.log(F.mul(erfcx(F.neg(a)), 0.5)), F.square(a))
    return F.where(low, below, log1p(F.mul(erfc(b), -0.5)))


# ---------------------------------------------------------------------------------- Bessel functions

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
