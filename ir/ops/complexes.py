"""Functions of complex numbers as loop expressions of their parts, for the rows of `elementwise` and `transcendental`.

Every product and sum is rounded by itself. At infinities and NaN the formulas decide, but where C's Annex G has a
finite or infinite answer that costs one select. Each function of two operands takes two pairs.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.loops import Expr
from kiln.ir.ops.pairs import joined
from kiln.ir.types import DTYPES, float32, float64

Pair = tuple[Expr, Expr]


def parts(z: Expr) -> Pair:
    return L.apply("real", z), L.apply("imag", z)


def pair(p: Pair | Expr) -> Expr:
    """The complex number of two parts; what is one expression (a truth, a real number) is the result itself."""
    return p if isinstance(p, Expr) else L.apply("complex", *p)


def lit(x: Expr, value: float) -> Expr:
    return L.const(value, x.type)


def _f(name: str, *args: Expr) -> Expr:
    return L.apply(name, *args)


def _both(p: Expr, q: Expr) -> Expr:
    return _f("and", p, q)


# -------------------------------------------------------------------------------------------- arithmetic


def add(a: Pair, b: Pair) -> Pair:
    return _f("add", a[0], b[0]), _f("add", a[1], b[1])


def sub(a: Pair, b: Pair) -> Pair:
    return _f("sub", a[0], b[0]), _f("sub", a[1], b[1])


def neg(a: Pair) -> Pair:
    return _f("neg", a[0]), _f("neg", a[1])


def mul(a: Pair, b: Pair) -> Pair:
    """(re re - im im, re im + im re)."""
    return (
        _f("sub", _f("mul", a[0], b[0]), _f("mul", a[1], b[1])),
        _f("add", _f("mul", a[0], b[1]), _f("mul", a[1], b[0])),
    )


def div(a: Pair, b: Pair) -> Pair:
    """Smith's algorithm (1962), as NumPy and PyTorch do it: scaled by the larger part of the divisor. By zero: each
    part over zero."""
    (x, y), (c, d) = a, b
    size_c, size_d = _f("abs", c), _f("abs", d)
    wide = _f("ge", size_c, size_d)
    ratio = _f("div", L.select(wide, d, c), L.select(wide, c, d))
    big, small = L.select(wide, c, d), L.select(wide, d, c)
    scale = _f("div", lit(c, 1.0), _f("add", big, _f("mul", small, ratio)))
    xr, yr = _f("mul", x, ratio), _f("mul", y, ratio)
    re = L.select(wide, _f("add", x, yr), _f("add", xr, y))
    im = L.select(wide, _f("sub", y, xr), _f("sub", yr, x))
    zero = _both(_f("eq", c, lit(c, 0.0)), _f("eq", d, lit(c, 0.0)))
    return (
        L.select(zero, _f("div", x, size_c), _f("mul", re, scale)),
        L.select(zero, _f("div", y, size_d), _f("mul", im, scale)),
    )


def eq(a: Pair, b: Pair) -> Expr:
    return _both(_f("eq", a[0], b[0]), _f("eq", a[1], b[1]))


def ne(a: Pair, b: Pair) -> Expr:
    return _f("or", _f("ne", a[0], b[0]), _f("ne", a[1], b[1]))


def mul_ref(a: Any, b: Any) -> Any:
    """`mul` in NumPy: its own product may be rounded otherwise."""
    return joined(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)


def div_ref(a: Any, b: Any) -> Any:
    """`div` in NumPy."""
    c, d = b.real, b.imag
    wide, zero = np.abs(c) >= np.abs(d), (c == 0) & (d == 0)
    big, small = np.where(wide, c, d), np.where(wide, d, c)
    ratio = small / big
    scale = c.dtype.type(1) / (big + small * ratio)
    re = np.where(wide, a.real + a.imag * ratio, a.real * ratio + a.imag)
    im = np.where(wide, a.imag - a.real * ratio, a.imag * ratio - a.real)
    return joined(np.where(zero, a.real / np.abs(c), re * scale), np.where(zero, a.imag / np.abs(d), im * scale))


# --------------------------------------------------------------------------------------------- functions


def modulus(x: Expr, y: Expr) -> Expr:
    """The length of (x, y) without overflow on the way; infinite beside an infinity, also of a NaN."""
    if x.dtype is float32:
        wide = [_f("mul", e, e) for e in (L.cast(x, float64), L.cast(y, float64))]
        found = L.cast(_f("sqrt", _f("add", *wide)), float32)
    else:
        a, b = _f("abs", x), _f("abs", y)
        high, low = L.select(_f("ge", a, b), a, b), L.select(_f("ge", a, b), b, a)
        ratio = _f("div", low, high)
        found = _f("mul", high, _f("sqrt", _f("add", lit(x, 1.0), _f("mul", ratio, ratio))))
        found = L.select(_f("eq", low, lit(x, 0.0)), high, found)
    endless = lit(x, float("inf"))
    either = _f("or", _f("eq", _f("abs", x), endless), _f("eq", _f("abs", y), endless))
    return L.select(either, endless, found)


def exp(z: Pair) -> Pair:
    """e**x (cos y + i sin y); a y of 0 stays."""
    x, y = z
    size, real = _f("exp", x), _f("eq", y, lit(y, 0.0))
    return (
        L.select(real, size, _f("mul", size, _f("cos", y))),
        L.select(real, y, _f("mul", size, _f("sin", y))),
    )


def log(z: Pair) -> Pair:
    """(log |z|, atan2(y, x)); near the unit circle log |z| is half of log1p of (high - 1)(high + 1) + low low."""
    x, y = z
    a, b = _f("abs", x), _f("abs", y)
    high, low = L.select(_f("ge", a, b), a, b), L.select(_f("ge", a, b), b, a)
    size, one = modulus(x, y), lit(x, 1.0)
    off = _f("add", _f("mul", _f("sub", high, one), _f("add", high, one)), _f("mul", low, low))
    near = _both(_f("ge", size, lit(x, 0.71)), _f("le", size, lit(x, 1.73)))
    close = _f("mul", lit(x, 0.5), _f("log1p", L.select(near, off, lit(x, 0.0))))
    return L.select(near, close, _f("log", size)), _f("atan2", y, x)


def _scaled(z: Pair, by: float) -> Pair:
    return _f("mul", z[0], lit(z[0], by)), _f("mul", z[1], lit(z[1], by))


def log2(z: Pair) -> Pair:
    return _scaled(log(z), 1 / math.log(2))


def log10(z: Pair) -> Pair:
    return _scaled(log(z), 1 / math.log(10))


def exp2(z: Pair) -> Pair:
    return exp(_scaled(z, math.log(2)))


def log1p(z: Pair) -> Pair:
    """log(1 + z); for small z, log |1 + z| is half of log1p of x (2 + x) + y y."""
    x, y = z
    near = _both(_f("lt", _f("abs", x), lit(x, 0.5)), _f("lt", _f("abs", y), lit(x, 0.5)))
    off = _f("add", _f("mul", x, _f("add", lit(x, 2.0), x)), _f("mul", y, y))
    close = _f("mul", lit(x, 0.5), _f("log1p", L.select(near, off, lit(x, 0.0))))
    re, im = log((_f("add", lit(x, 1.0), x), y))
    return L.select(near, close, re), im


def expm1(z: Pair) -> Pair:
    """(expm1(x) cos y - 2 sin(y / 2) ** 2, e**x sin y)."""
    x, y = z
    half = _f("sin", _f("mul", y, lit(y, 0.5)))
    re = _f("sub", _f("mul", _f("expm1", x), _f("cos", y)), _f("mul", lit(x, 2.0), _f("mul", half, half)))
    return re, exp(z)[1]


def sqrt(z: Pair) -> Pair:
    """With t = sqrt((|x| + |z|) / 2): (t, y / 2t) for x >= 0, else (|y| / 2t, t with the sign of y)."""
    x, y = z
    half, zero = lit(x, 0.5), lit(x, 0.0)
    t = _f("sqrt", _f("add", _f("mul", half, _f("abs", x)), _f("mul", half, modulus(x, y))))
    other = _f("div", _f("mul", half, _f("abs", y)), t)
    other = L.select(_f("eq", t, zero), zero, other)
    right = _f("not", _f("lt", x, zero))
    re, im = L.select(right, t, other), copysign(L.select(right, other, t), y)
    endless = _f("eq", _f("abs", y), lit(x, float("inf")))
    return L.select(endless, _f("abs", y), re), L.select(endless, y, im)


def modulus_ref(x: Any, y: Any) -> Any:
    """`modulus` in NumPy."""
    if x.dtype == np.float32:
        a, b = x.astype(np.float64), y.astype(np.float64)
        found = np.sqrt(a * a + b * b).astype(np.float32)
    else:
        a, b = np.abs(x), np.abs(y)
        high, low = np.where(a >= b, a, b), np.where(a >= b, b, a)
        ratio = low / high
        found = np.where(low == 0, high, high * np.sqrt(1 + ratio * ratio))
    return np.where(np.isinf(x) | np.isinf(y), x.dtype.type(np.inf), found)


def sqrt_ref(z: Any) -> Any:
    """`sqrt` in NumPy."""
    x, y, half = z.real, z.imag, z.real.dtype.type(0.5)
    t = np.sqrt(half * np.abs(x) + half * modulus_ref(x, y))
    other = np.where(t == 0, x.dtype.type(0), half * np.abs(y) / t)
    right = ~(x < 0)
    re, im = np.where(right, t, other), np.copysign(np.where(right, other, t), y)
    endless = np.isinf(y)
    return joined(np.where(endless, np.abs(y), re), np.where(endless, y, im))


_SIGNS: Final = {"float32": "uint32", "float64": "uint64"}


def copysign(x: Expr, y: Expr) -> Expr:
    """|x| with the sign bit of y."""
    bits = DTYPES[_SIGNS[x.dtype.name]]
    top = L.const(1 << (bits.bits - 1), L.Vec(bits, x.lanes))
    sign = _f("and", L.bitcast(y, bits), top)
    return L.bitcast(_f("or", L.bitcast(_f("abs", x), bits), sign), x.dtype)


def sin(z: Pair) -> Pair:
    x, y = z
    return _f("mul", _f("sin", x), _f("cosh", y)), _f("mul", _f("cos", x), _f("sinh", y))


def cos(z: Pair) -> Pair:
    x, y = z
    return _f("mul", _f("cos", x), _f("cosh", y)), _f("neg", _f("mul", _f("sin", x), _f("sinh", y)))


def sinh(z: Pair) -> Pair:
    x, y = z
    return _f("mul", _f("sinh", x), _f("cos", y)), _f("mul", _f("cosh", x), _f("sin", y))


def cosh(z: Pair) -> Pair:
    x, y = z
    return _f("mul", _f("cosh", x), _f("cos", y)), _f("mul", _f("sinh", x), _f("sin", y))


def tanh(z: Pair) -> Pair:
    """(sinh x cosh x, sin y cos y) / (sinh x ** 2 + cos y ** 2); for |x| beyond 20 (where that is 1 to the last place)
    (+-1, 4 sin y cos y e**(-2 |x|))."""
    x, y = z
    s, c = _f("sin", y), _f("cos", y)
    turn, size = _f("mul", s, c), _f("abs", x)
    far = _f("gt", size, lit(x, 20.0))
    inner = L.select(far, lit(x, 0.0), x)
    sh, ch = _f("sinh", inner), _f("cosh", inner)
    under = _f("add", _f("mul", sh, sh), _f("mul", c, c))
    tail = _f("mul", _f("mul", lit(x, 4.0), turn), _f("exp", _f("mul", lit(x, -2.0), size)))
    return (
        L.select(far, copysign(lit(x, 1.0), x), _f("div", _f("mul", sh, ch), under)),
        L.select(far, tail, _f("div", turn, under)),
    )


def tan(z: Pair) -> Pair:
    """-i tanh(i z)."""
    re, im = tanh((_f("neg", z[1]), z[0]))
    return im, _f("neg", re)


def asin(z: Pair) -> Pair:
    """Kahan (1987): with r = sqrt(1 - z), s = sqrt(1 + z): (atan(x / re(r s)), asinh(im(conj(r) s)))."""
    one, y = lit(z[0], 1.0), z[1]
    r, s = sqrt((_f("sub", one, z[0]), _f("neg", y))), sqrt((_f("add", one, z[0]), y))
    return _f("atan2", z[0], mul(r, s)[0]), _f("asinh", mul((r[0], _f("neg", r[1])), s)[1])


def acos(z: Pair) -> Pair:
    """Kahan (1987): (2 atan(re(r) / re(s)), asinh(im(conj(s) r))), with the roots of `asin`."""
    one, y = lit(z[0], 1.0), z[1]
    r, s = sqrt((_f("sub", one, z[0]), _f("neg", y))), sqrt((_f("add", one, z[0]), y))
    turn = _f("mul", lit(y, 2.0), _f("atan2", r[0], s[0]))
    return turn, _f("asinh", mul((s[0], _f("neg", s[1])), r)[1])


def acosh(z: Pair) -> Pair:
    """Kahan (1987): with r = sqrt(z - 1), s = sqrt(z + 1): (asinh(re(conj(r) s)), 2 atan(im(r) / re(s)))."""
    one, y = lit(z[0], 1.0), z[1]
    r, s = sqrt((_f("sub", z[0], one), y)), sqrt((_f("add", z[0], one), y))
    turn = _f("mul", lit(y, 2.0), _f("atan2", r[1], s[0]))
    return _f("asinh", mul((r[0], _f("neg", r[1])), s)[0]), turn


def atanh(z: Pair) -> Pair:
    """For x >= 0 (log1p(4 x / ((1 - x) ** 2 + y y)) / 4, atan2(2 y, (1 - x) (1 + x) - y y) / 2); odd in x."""
    x, y = _f("abs", z[0]), z[1]
    one = lit(x, 1.0)
    left, square = _f("sub", one, x), _f("mul", y, y)
    far = _f("add", _f("mul", left, left), square)
    size = _f("log1p", _f("div", _f("mul", lit(x, 4.0), x), far))
    across = _f("sub", _f("mul", left, _f("add", one, x)), square)
    turn = _f("atan2", _f("mul", lit(x, 2.0), y), across)
    return copysign(_f("mul", lit(x, 0.25), size), z[0]), _f("mul", lit(x, 0.5), turn)


def asinh(z: Pair) -> Pair:
    """-i asin(i z)."""
    re, im = asin((_f("neg", z[1]), z[0]))
    return im, _f("neg", re)


def atan(z: Pair) -> Pair:
    """-i atanh(i z)."""
    re, im = atanh((_f("neg", z[1]), z[0]))
    return im, _f("neg", re)


def sigmoid(z: Pair) -> Pair:
    one, zero = lit(z[0], 1.0), lit(z[0], 0.0)
    return div((one, zero), add((one, zero), exp(neg(z))))


def power(a: Pair, b: Pair) -> Pair:
    """exp(b log a); 1 where b is 0, and 0 where a is 0 and b's real part positive."""
    zero, one = lit(a[0], 0.0), lit(a[0], 1.0)
    re, im = exp(mul(b, log(a)))
    nothing = _both(_both(_f("eq", a[0], zero), _f("eq", a[1], zero)), _f("gt", b[0], zero))
    unit = _both(_f("eq", b[0], zero), _f("eq", b[1], zero))
    re, im = L.select(nothing, zero, re), L.select(nothing, zero, im)
    return L.select(unit, one, re), L.select(unit, zero, im)
