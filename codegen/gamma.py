"""sin(pi x), the inverse error function, and the logarithm of the gamma function with its derivative, in the manner of
`mathlib.py` and on top of it.

But for sinpi the definitions are for float64; float32 goes through float64 and is rounded once more (0.501 ulp). Bounds
are the largest errors found over random samples, in units in the last place, rounded up; those of lgamma and digamma
count units of 1 where the argument is negative and the value smaller, since the zeros there are not met.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from kiln.codegen import math_tables as tables
from kiln.codegen.mathlib import _add, _c, _cospi, _fma, _log_f64, _mul, _odd, _pick, _poly, _sub, _test
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.loops import Expr

Make = Callable[..., Expr]
PI_LOW: Final = 1.2246467991473532e-16  # pi - float64(pi)
DIGAMMA_ROOT: Final = (1.4616321449683622, 9.549995429965697e-17)
"""Where digamma is 0, as a sum of two float64."""


def _single(make: Make) -> Make:
    """A function of float32 by way of float64."""
    return lambda x: L.cast(make(L.cast(x, T.float64)), T.float32)


def _abs(x: Expr) -> Expr:
    return L.apply("abs", x)


def _neg(x: Expr) -> Expr:
    return L.apply("neg", x)


def _div(a: Expr, b: Expr) -> Expr:
    return L.apply("div", a, b)


def _sqrt(x: Expr) -> Expr:
    return L.apply("sqrt", x)


def _sinpi(x: Expr) -> Expr:
    """sin(pi x): as cospi; of integers 0 with their sign. Bounds: 0.99 ulp (float32), 1.03 ulp (float64)."""
    single = x.dtype is T.float32
    sine, cosine = (tables.SINPI_F32, tables.COSPI_F32) if single else (tables.SINPI_F64, tables.COSPI_F64)
    n = L.apply("rint", x)
    rest = _sub(x, n)
    y = _abs(rest)
    far = _test("gt", y, 0.25)
    t = _pick(far, _sub(_c(0.5, x), y), y)
    z = _mul(t, t)
    pi = float(x.dtype.numpy.type(math.pi))
    pi_low = math.pi - pi if single else PI_LOW
    by_sine = _fma(t, _c(pi, x), _fma(_mul(t, z), _poly(z, sine), _mul(t, _c(pi_low, x))))
    value = _odd(rest, _pick(far, _fma(_poly(z, cosine), z, _c(1.0, x)), by_sine))
    half = _mul(n, _c(0.5, x))
    value = _pick(L.apply("ne", half, L.apply("floor", half)), _neg(value), value)
    return _pick(L.apply("and", L.apply("eq", x, n), _test("lt", _abs(x), math.inf)), _odd(x, _c(0.0, x)), value)


def _erfinv(x: Expr) -> Expr:
    """x p(x^2) up to 3/4, else a polynomial (of two) in sqrt(-log(1 - |x|)). NaN above 1. Bound: 3.5 ulp."""
    a = _abs(x)
    s = _sqrt(_neg(_log_f64(_sub(_c(1.0, x), a))))
    middle = _poly(_sub(s, _c(2.0, x)), tables.ERFINV_MIDDLE)
    far = _poly(_sub(s, _c(4.5, x)), tables.ERFINV_FAR)
    value = _pick(_test("lt", s, 2.9), middle, far)
    value = _pick(_test("le", a, 0.75), _mul(a, _poly(_mul(a, a), tables.ERFINV_NEAR)), value)
    return _odd(x, _pick(_test("eq", a, 1.0), _c(math.inf, x), value))


def _lgamma(x: Expr) -> Expr:
    """log |gamma(x)|: w (w + 1) q(w) around 2, which the recurrence reaches from below 8, Stirling's series above,
    reflection below 0. Bound: 6 ulp for positive x; for negative x 6 ulp of 1 or of the value."""
    a, one = _abs(x), _c(1.0, x)
    far = _test("ge", a, 8.0)
    b = _pick(far, _c(2.0, x), a)
    z, product = b, one
    for _ in range(6):
        above = _test("gt", z, 2.5)
        less = _sub(z, one)
        z, product = _pick(above, less, z), _pick(above, _mul(product, less), product)
    up, twice = _test("lt", b, 1.5), _test("lt", b, 0.5)
    w = _pick(twice, b, _pick(up, _sub(b, one), _sub(z, _c(2.0, x))))
    grown = _pick(twice, _mul(b, _add(b, one)), b)
    log = _log_f64(_pick(far, a, _pick(up, grown, product)))
    around = _mul(_mul(w, _add(w, one)), _poly(w, tables.LGAMMA))
    near = _pick(up, _sub(around, log), _add(around, log))
    inverse = _div(one, a)
    series = _fma(inverse, _poly(_mul(inverse, inverse), tables.STIRLING), _c(math.log(2 * math.pi) / 2 - 0.5, x))
    positive = _pick(far, _fma(_sub(a, _c(0.5, x)), _sub(log, one), series), near)
    reflected = _sub(_log_f64(_div(_c(math.pi, x), _mul(a, _abs(_sinpi(a))))), positive)
    reflected = _pick(_test("lt", a, 2.0**-60), positive, reflected)
    negative = _test("lt", x, 0.0)
    value = _pick(negative, reflected, positive)
    pole = L.apply("and", negative, L.apply("eq", x, L.apply("floor", x)))
    return _pick(L.apply("or", pole, _test("eq", a, math.inf)), _c(math.inf, x), value)


def _digamma(x: Expr) -> Expr:
    """The logarithmic derivative of gamma: (z - root) q(z) on [1, 2], which the recurrence reaches from below 10, the
    asymptotic series above, reflection below 0. -inf at +0, inf at -0, NaN at negative integers. Bound: 6 ulp for
    positive x; for negative x 6 ulp of 1 or of the value."""
    one, negative = _c(1.0, x), _test("lt", x, 0.0)
    p = _pick(negative, _sub(one, x), x)
    far = _test("ge", p, 10.0)
    b = _pick(far, one, p)
    z, above, below = b, _c(0.0, x), one
    for _ in range(8):
        step = _test("gt", z, 2.0)
        less = _sub(z, one)
        above = _pick(step, _fma(above, less, below), above)
        z, below = _pick(step, less, z), _pick(step, _mul(below, less), below)
    up = _test("lt", b, 1.0)
    z = _pick(up, _add(b, one), z)
    root = _sub(_sub(z, _c(DIGAMMA_ROOT[0], x)), _c(DIGAMMA_ROOT[1], x))
    near = _mul(root, _poly(_sub(z, _c(1.5, x)), tables.DIGAMMA))
    near = _add(near, _pick(up, _div(_c(-1.0, x), b), _div(above, below)))
    inverse = _div(one, p)
    square = _mul(inverse, inverse)
    bernoulli = (-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12)
    rest = _fma(square, _poly(square, bernoulli), _mul(inverse, _c(-0.5, x)))
    value = _pick(far, _add(_log_f64(p), rest), near)
    value = _pick(_test("eq", p, math.inf), p, value)
    turn = _div(_mul(_c(math.pi, x), _cospi(x)), _sinpi(x))
    turn = _pick(L.apply("eq", x, L.apply("floor", x)), _c(math.nan, x), turn)
    return _pick(negative, _sub(value, turn), value)


_DOUBLE: Final[dict[str, Make]] = {"erfinv": _erfinv, "lgamma": _lgamma, "digamma": _digamma}
F64: Final[dict[str, Make]] = {"sinpi": _sinpi, **_DOUBLE}
F32: Final[dict[str, Make]] = {"sinpi": _sinpi, **{name: _single(make) for name, make in _DOUBLE.items()}}
