"""log1p, log2, log10, exp2, expm1, atan, asin, acos, atan2, sinh, cosh, asinh, acosh, atanh and erfc, in the manner of
`mathlib.py` and on top of it.

The definitions are for float64; float32 goes through float64 and is rounded once more (0.501 ulp). Bounds are the
largest errors found over random samples, in units in the last place, rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from kiln.codegen import math_tables as tables
from kiln.codegen import mathlib as M
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.loops import Expr

Definition = Callable[..., Expr]

_HALF_PI: Final = (math.pi / 2, 6.123233995736766e-17)  # pi / 2, 1 / ln 2 and 1 / ln 10 as sums of two floats
_LOG2_E: Final = (1.4426950408889634, 2.0355273740931033e-17)
_LOG10_E: Final = (0.4342944819032518, 1.098319650216765e-17)


def _div(a: Expr, b: Expr) -> Expr:
    return L.apply("div", a, b)


def _sqrt(a: Expr) -> Expr:
    return L.apply("sqrt", a)


def _neg(a: Expr) -> Expr:
    return L.apply("neg", a)


def _abs(a: Expr) -> Expr:
    return L.apply("abs", a)


def _nan_stays(x: Expr, value: Expr) -> Expr:
    return L.select(L.apply("ne", x, x), x, value)


# ---------------------------------------------------------------------------------------- logarithms


def _log1p(x: Expr) -> Expr:
    """log(u) for u = 1 + x, less what u lost in rounding over u (Goldberg, "What every computer scientist should
    know about floating-point arithmetic", 1991, theorem 4). Bound: 1.4 ulp."""
    one = M._c(1.0, x)
    u = L.add(one, x)
    value = M._sub(M._log_f64(u), _div(M._sub(M._sub(u, one), x), u))
    value = M._pick(L.apply("le", u, M._c(0.0, x)), M._log_edges(u, value), value)
    return M._pick(L.apply("or", L.apply("eq", u, one), M._test("eq", x, math.inf)), x, value)


def _log_to(base: tuple[float, float]) -> Definition:
    """log x in another base: the logarithm as a sum of two floats times its factor as such. Exact for powers of the
    base. Bound: 0.51 ulp."""

    def log(x: Expr) -> Expr:
        high, low = M._precise_log(x)
        product = M._mul(high, M._c(base[0], x))
        rest = M._fma(high, M._c(base[0], x), _neg(product))
        rest = M._fma(high, M._c(base[1], x), M._fma(low, M._c(base[0], x), rest))
        return M._log_edges(x, L.add(product, rest))

    return log


# --------------------------------------------------------------------------------------- exponentials


def _exp2(x: Expr) -> Expr:
    """2^n e^(f ln 2) with the nearest integer n; exact for integers. Bound: 1.4 ulp."""
    clamped = M._pick(M._test("gt", x, 1025.0), M._c(1025.0, x), x)
    clamped = M._pick(M._test("lt", x, -1080.0), M._c(-1080.0, x), clamped)
    n = L.apply("rint", clamped)
    p = L.add(M._expm1_reduced(M._mul(M._sub(clamped, n), M._c(M.LN2, x))), M._c(1.0, x))
    whole = L.cast(n, T.int64)
    half = L.apply("shr", whole, L.const(1, whole.type))
    scaled = M._mul(M._mul(p, M._power_of_two(half, x.dtype)), M._power_of_two(M._sub(whole, half), x.dtype))
    return _nan_stays(x, scaled)


def _expm1(x: Expr) -> Expr:
    """2^n (e^r - 1) + (2^n - 1) for x = n ln 2 + r; e^x and -1 far out. Bound: 1.6 ulp."""
    clamped = M._pick(M._test("gt", x, 40.0), M._c(40.0, x), x)
    clamped = M._pick(M._test("lt", x, -40.0), M._c(-40.0, x), clamped)
    n, r = M._reduce_exp(clamped)
    scale = M._power_of_two(L.cast(n, T.int64), x.dtype)
    near = M._fma(M._expm1_reduced(r), scale, M._sub(scale, M._c(1.0, x)))
    value = M._pick(M._test("gt", x, 39.0), M._exp(x), near)
    value = M._pick(M._test("lt", x, -38.0), M._c(-1.0, x), value)
    return _nan_stays(x, M._pick(M._test("eq", x, 0.0), x, value))


def _half_exp(a: Expr) -> Expr:
    """e^a / 2 without overflow before the result does."""
    h = M._exp(M._mul(a, M._c(0.5, a)))
    return M._mul(M._mul(h, M._c(0.5, a)), h)


def _sinh(x: Expr) -> Expr:
    """(t + t / (t + 1)) / 2 for t = e^|x| - 1; e^|x| / 2 far out. Bound: 2.5 ulp."""
    a = _abs(x)
    t = _expm1(M._pick(M._test("gt", a, 22.0), M._c(22.0, x), a))
    near = M._mul(L.add(t, _div(t, L.add(t, M._c(1.0, x)))), M._c(0.5, x))
    return _nan_stays(x, M._with_sign(M._pick(M._test("lt", a, 22.0), near, _half_exp(a)), x))


def _cosh(x: Expr) -> Expr:
    """e^|x| / 2 + 1 / (2 e^|x|); e^|x| / 2 far out. Bound: 2.5 ulp."""
    a = _abs(x)
    e = M._exp(M._pick(M._test("gt", a, 22.0), M._c(22.0, x), a))
    near = L.add(M._mul(e, M._c(0.5, x)), _div(M._c(0.5, x), e))
    return _nan_stays(x, M._pick(M._test("lt", a, 22.0), near, _half_exp(a)))


# ----------------------------------------------------------------------------------- inverse hyperbolic


def _asinh(x: Expr) -> Expr:
    """log1p(a + a^2 / (1 + sqrt(a^2 + 1))); log(a) + ln 2 far out. Bound: 2.2 ulp."""
    a, one = _abs(x), M._c(1.0, x)
    square = M._mul(a, a)
    near = _log1p(L.add(a, _div(square, L.add(one, _sqrt(L.add(square, one))))))
    far = L.add(M._log_f64(a), M._c(M.LN2, x))
    return _nan_stays(x, M._with_sign(M._pick(M._test("lt", a, 2.0**28), near, far), x))


def _acosh(x: Expr) -> Expr:
    """log1p(t + sqrt(2 t + t^2)) for t = x - 1; log(x) + ln 2 far out; NaN below 1. Bound: 2.2 ulp."""
    t = M._sub(x, M._c(1.0, x))
    near = _log1p(L.add(t, _sqrt(L.add(L.add(t, t), M._mul(t, t)))))
    value = M._pick(M._test("gt", x, 2.0**28), L.add(M._log_f64(x), M._c(M.LN2, x)), near)
    return M._pick(M._test("lt", x, 1.0), M._c(math.nan, x), value)


def _atanh(x: Expr) -> Expr:
    """log1p(2 a / (1 - a)) / 2; infinite at 1, NaN beyond. Bound: 2.2 ulp."""
    a = _abs(x)
    value = M._mul(_log1p(_div(L.add(a, a), M._sub(M._c(1.0, x), a))), M._c(0.5, x))
    return _nan_stays(x, M._pick(L.apply("le", a, M._c(1.0, x)), M._with_sign(value, x), M._c(math.nan, x)))


# ------------------------------------------------------------------------------- inverse trigonometric


def _atan_unit(t: Expr) -> Expr:
    """atan t for t from 0 to 1: a polynomial up to tan(pi / 8), beyond it pi / 4 + atan((t - 1) / (t + 1))."""
    one = M._c(1.0, t)
    far = M._test("gt", t, math.sqrt(2) - 1)
    u = M._pick(far, _div(M._sub(t, one), L.add(t, one)), t)
    z = M._mul(u, u)
    value = M._fma(M._mul(M._poly(z, tables.ATAN_F64), z), u, u)
    turned = L.add(M._c(_HALF_PI[0] / 2, t), L.add(value, M._c(_HALF_PI[1] / 2, t)))
    return M._pick(far, turned, value)


def _from_half_pi(value: Expr) -> Expr:
    return M._sub(M._c(_HALF_PI[0], value), M._sub(value, M._c(_HALF_PI[1], value)))


def _atan(x: Expr) -> Expr:
    """atan |x|, or pi / 2 - atan(1 / |x|) beyond 1. Bound: 1.5 ulp."""
    a = _abs(x)
    big = M._test("gt", a, 1.0)
    value = _atan_unit(M._pick(big, _div(M._c(1.0, x), a), a))
    return _nan_stays(x, M._with_sign(M._pick(big, _from_half_pi(value), value), x))


def _asin(x: Expr) -> Expr:
    """atan(x / sqrt((1 - x) (1 + x))); NaN beyond 1. Bound: 2.6 ulp."""
    one = M._c(1.0, x)
    return _atan(_div(x, _sqrt(M._mul(M._sub(one, x), L.add(one, x)))))


def _acos(x: Expr) -> Expr:
    """2 atan(sqrt((1 - x) / (1 + x))); NaN beyond 1. Bound: 2.6 ulp."""
    one = M._c(1.0, x)
    half = _atan(_sqrt(_div(M._sub(one, x), L.add(one, x))))
    return L.add(half, half)


def _atan2(y: Expr, x: Expr) -> Expr:
    """The angle of (x, y): atan of the smaller over the larger, turned into its octant; signed zeros and infinities as
    C's atan2. Bound: 1.8 ulp."""
    a, b = _abs(y), _abs(x)
    large, small = L.apply("max", a, b), L.apply("min", a, b)
    quotient = _div(small, large)
    quotient = M._pick(M._test("eq", large, 0.0), M._c(0.0, x), quotient)
    quotient = M._pick(M._test("eq", small, math.inf), M._c(1.0, x), quotient)
    value = _atan_unit(quotient)
    value = M._pick(L.apply("gt", a, b), _from_half_pi(value), value)
    left = M._test("lt", M._with_sign(M._c(1.0, x), x), 0.0)
    turned = M._sub(M._c(math.pi, x), M._sub(value, M._c(2 * _HALF_PI[1], x)))
    value = M._with_sign(M._pick(left, turned, value), y)
    return _nan_stays(x, _nan_stays(y, value))


# ------------------------------------------------------------------------------------------------ erfc


def _erfc(x: Expr) -> Expr:
    """1 - erf(x) below 1/2, else e^(-x^2) t g(t) for t = 2 / (2 + x), with the rounding error of x^2 taken to first
    order. Bound: 4 ulp."""
    far = M._pick(M._test("gt", x, 28.0), M._c(28.0, x), x)
    far = M._pick(M._test("lt", far, 0.5), M._c(0.5, x), far)
    square, error = M._two_product(far, far)
    t = _div(M._c(2.0, x), L.add(far, M._c(2.0, x)))
    decay = M._exp(_neg(square))
    tail = M._mul(M._fma(_neg(decay), error, decay), M._mul(t, M._poly(t, tables.ERFCX_FAR_F64)))
    return _nan_stays(x, M._pick(M._test("lt", x, 0.5), M._sub(M._c(1.0, x), M._erf_f64(x)), tail))


F64: Final[dict[str, Definition]] = {
    "log1p": _log1p,
    "log2": _log_to(_LOG2_E),
    "log10": _log_to(_LOG10_E),
    "exp2": _exp2,
    "expm1": _expm1,
    "sinh": _sinh,
    "cosh": _cosh,
    "asinh": _asinh,
    "acosh": _acosh,
    "atanh": _atanh,
    "atan": _atan,
    "asin": _asin,
    "acos": _acos,
    "atan2": _atan2,
    "erfc": _erfc,
}


def _through_float64(define: Definition) -> Definition:
    return lambda *args: L.cast(define(*(L.cast(a, T.float64) for a in args)), T.float32)


F32: Final[dict[str, Definition]] = {name: _through_float64(define) for name, define in F64.items()}
