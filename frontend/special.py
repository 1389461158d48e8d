"""`kiln.special`: special functions, under PyTorch's names. Integers and bools are taken in the default dtype.

Most are public functions of `kiln` under another name; Bessel functions lie in `bessel.py`, orthogonal polynomials in
`polynomials.py`.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Final

from kiln import bessel, polynomials
from kiln import functional as F
from kiln import special_tables as N
from kiln.base import Operand, TensorBase
from kiln.bessel import airy_ai as airy_ai
from kiln.bessel import bessel_j0 as bessel_j0
from kiln.bessel import bessel_j1 as bessel_j1
from kiln.bessel import bessel_y0 as bessel_y0
from kiln.bessel import bessel_y1 as bessel_y1
from kiln.bessel import i0 as i0
from kiln.bessel import i0e as i0e
from kiln.bessel import i1 as i1
from kiln.bessel import i1e as i1e
from kiln.bessel import modified_bessel_i0 as modified_bessel_i0
from kiln.bessel import modified_bessel_i1 as modified_bessel_i1
from kiln.bessel import modified_bessel_k0 as modified_bessel_k0
from kiln.bessel import modified_bessel_k1 as modified_bessel_k1
from kiln.bessel import scaled_modified_bessel_k0 as scaled_modified_bessel_k0
from kiln.bessel import scaled_modified_bessel_k1 as scaled_modified_bessel_k1
from kiln.bessel import spherical_bessel_j0 as spherical_bessel_j0
from kiln.errors import ArgumentError, DTypeError, InvalidValueError
from kiln.functional import log_softmax as log_softmax
from kiln.functional import softmax as softmax
from kiln.ir import types as T
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
from kiln.pointwise import floor, fmod, trunc
from kiln.pointwise import round as round
from kiln.polynomials import chebyshev_polynomial_t as chebyshev_polynomial_t
from kiln.polynomials import chebyshev_polynomial_u as chebyshev_polynomial_u
from kiln.polynomials import chebyshev_polynomial_v as chebyshev_polynomial_v
from kiln.polynomials import chebyshev_polynomial_w as chebyshev_polynomial_w
from kiln.polynomials import hermite_polynomial_h as hermite_polynomial_h
from kiln.polynomials import hermite_polynomial_he as hermite_polynomial_he
from kiln.polynomials import laguerre_polynomial_l as laguerre_polynomial_l
from kiln.polynomials import legendre_polynomial_p as legendre_polynomial_p
from kiln.polynomials import shifted_chebyshev_polynomial_t as shifted_chebyshev_polynomial_t
from kiln.polynomials import shifted_chebyshev_polynomial_u as shifted_chebyshev_polynomial_u
from kiln.polynomials import shifted_chebyshev_polynomial_v as shifted_chebyshev_polynomial_v
from kiln.polynomials import shifted_chebyshev_polynomial_w as shifted_chebyshev_polynomial_w
from kiln.promotion import apply, cast_to, floating, in_float32, tensor_arg, together
from kiln.reductions import logsumexp as logsumexp

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammainc", "gammaincc"),
    *("gammaln", "log1p", "log_ndtr", "log_softmax", "logit", "logsumexp", "multigammaln", "ndtr", "ndtri"),
    *("polygamma", "psi", "round", "sinc", "softmax", "xlog1py", "xlogy", "zeta"),
    *bessel.__all__,
    *polynomials.__all__,
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


@in_float32
def ndtri(input: TensorBase) -> Tensor:
    """The number below which a standard normal number is with probability `input`, the inverse of `ndtr`: -inf at 0,
    inf at 1, NaN beyond. In the middle by erfinv; else by a series in 1 / sqrt(-2 log p), p being the smaller one of
    `input` and 1 - `input`."""
    x = floating("ndtri", input)
    p = cast_to(x, T.float64)
    upper = F.gt(p, 0.5)
    small = F.where(upper, F.sub(1.0, p), p)
    middle = F.gt(small, math.exp(-2))
    inside = F.logical_and(F.gt(small, 0.0), F.logical_not(middle))
    r = F.sqrt(F.mul(F.log(F.where(inside, small, math.exp(-2))), -2.0))
    tail = F.where(F.lt(r, 6.0), _quantile(r, 2.0, 6.0, N.NDTRI_MIDDLE), _quantile(r, 6.0, 38.7, N.NDTRI_FAR))
    center = F.mul(erfinv(F.sub(F.mul(F.where(middle, p, 0.5), 2.0), 1.0)), math.sqrt(2))
    value = F.where(middle, center, F.where(upper, tail, F.neg(tail)))
    value = F.where(F.logical_or(inside, middle), value, F.where(F.eq(p, 0.0), -math.inf, math.nan))
    return cast_to(F.where(F.eq(p, 1.0), math.inf, value), x.dtype)


def _quantile(r: Tensor, low: float, high: float, coefficients: tuple[float, ...]) -> Tensor:
    """r times a series in 1 / r, of r brought between `low` and `high`."""
    near = F.clamp(r, low, high)
    span = 1 / low - 1 / high
    at = F.sub(F.mul(F.sub(F.reciprocal(near), 1 / high), 2 / span), 1.0)
    return F.mul(r, apply(OPS["chebyshev"], at, c=coefficients))


# ------------------------------------------------------------------------------- gamma, with two arguments


def _gammas(name: str, input: TensorBase, other: TensorBase) -> Tensor:
    tensor_arg(name, input), tensor_arg(name, other)
    a, x = together(name, input, other)
    if a.dtype.kind != "float":
        raise DTypeError(f"is not defined for {a.dtype}", op=name, operands=[a.ttype, x.ttype], fix="use .float()")
    return cast_to(apply(OPS[name], cast_to(a, T.float64), cast_to(x, T.float64)), a.dtype)


def gammainc(input: TensorBase, other: TensorBase) -> Tensor:
    """The lower incomplete gamma function P(a, x), a = `input`, x = `other`: the integral of t^(a - 1) e^-t from 0 to x
    over gamma(a). Floats, broadcast; computed in float64. NaN where one is negative. GradError for a gradient by
    `input`, which is not defined here."""
    return _gammas("gammainc", input, other)


def gammaincc(input: TensorBase, other: TensorBase) -> Tensor:
    """The upper incomplete gamma function Q(a, x) = 1 - P(a, x), see `gammainc`."""
    return _gammas("gammaincc", input, other)


def zeta(input: Operand, other: Operand) -> Tensor:
    """Hurwitz' zeta function: the sum of (q + k)^-x over k >= 0, x = `input`, q = `other`. Infinite at x = 1 and where
    q is 0 or a negative integer; NaN for x below 1, and for other negative q where x is no integer. Computed in
    float64. GradError for a gradient by `input`, which is not defined here."""
    x, q = (floating("zeta", t) for t in together("zeta", input, other))
    kind = x.dtype
    x, q = cast_to(x, T.float64), cast_to(q, T.float64)
    negative = F.lt(q, 0.0)
    a = F.where(negative, F.neg(q), 0.5)
    whole = floor(a)
    pole = F.logical_or(F.eq(q, 0.0), F.logical_and(negative, F.eq(a, whole)))
    part = F.where(
        pole, 0.5, F.sub(a, whole)
    )  # the terms of negative numbers end with -part, the others begin with 1 - part
    op = OPS["zeta"]
    ahead = apply(op, x, F.where(negative, F.sub(1.0, part), F.where(pole, 1.0, q)))
    odd = F.ne(fmod(x, 2.0), 0.0)
    behind = F.sub(apply(op, x, part), apply(op, x, F.add(a, 1.0)))
    value = F.where(negative, F.add(ahead, F.where(odd, F.neg(behind), behind)), ahead)
    value = F.where(F.logical_and(negative, F.ne(x, floor(x))), math.nan, value)
    value = F.where(F.logical_and(pole, F.logical_not(F.lt(x, 1.0))), math.inf, value)
    value = F.where(F.eq(x, math.inf), F.where(F.lt(q, 1.0), math.inf, F.where(F.eq(q, 1.0), 1.0, math.nan)), value)
    return cast_to(F.where(F.eq(x, 1.0), math.inf, value), kind)
