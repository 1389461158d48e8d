"""exp, log, tanh, erf, sin, cos, pow and cos(pi x) as loop-IR arithmetic: one definition per function and dtype.

Only basic intrinsics are used (fused multiply-add where stated, integer operations on the bit patterns), so that
eager, fused and GPU code contain the same operations and give the same bits. Coefficients are kiln's own
(`tests/tools/derive_math.py`: minimax by Remez' exchange in 60-digit arithmetic); the bounds below are the largest
errors found, in units in the last place, rounded up (float32: over every float by the slow test of
`tests/codegen/test_mathlib.py`, pow excepted; else over random samples, a hundred thousand and more). NaN gives NaN;
infinities and zeros are exact; subnormal arguments and results are handled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from kiln.codegen import math_tables as tables
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.loops import Expr, Vec
from kiln.ir.types import DType


def expand(fn: str, args: tuple[Expr, ...]) -> Expr:
    """The arithmetic that defines `fn` for its operands' dtype, in as many lanes as they have."""
    dtype = args[0].dtype
    from kiln.codegen import gamma  # which are built on this module
    from kiln.codegen import mathlib_more as more

    if dtype is T.float32:
        make = _F32.get(fn) or more.F32.get(fn) or gamma.F32.get(fn)
    elif dtype is T.float64:
        make = _F64.get(fn) or more.F64.get(fn) or gamma.F64.get(fn)
    else:
        make = None
    if make is None:
        raise NotImplementedError(f"{fn} of {dtype} has no definition yet")
    return make(*args)


# ------------------------------------------------------------------------------------------ helpers


def _c(value: float, like: Expr) -> Expr:
    return L.const(value, like.type)


def _i(value: int, like: Expr) -> Expr:
    """An integer literal as wide as `like`."""
    return L.const(value, Vec(_int_of(like.dtype), like.lanes))


def _int_of(dtype: DType) -> DType:
    return T.int32 if dtype.bits == 32 else T.int64


def _mul(a: Expr, b: Expr) -> Expr:
    return L.apply("mul", a, b)


def _add(a: Expr, b: Expr) -> Expr:
    return L.apply("add", a, b)


def _sub(a: Expr, b: Expr) -> Expr:
    return L.apply("sub", a, b)


def _fma(a: Expr, b: Expr, c: Expr) -> Expr:
    return L.apply("fma", a, b, c)


def _poly(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Horner's scheme in fused multiply-adds; lowest degree first."""
    p = _c(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        p = _fma(p, x, _c(c, x))
    return p


def _bits(x: Expr) -> Expr:
    return L.bitcast(x, _int_of(x.dtype))


def _float(bits: Expr, dtype: DType) -> Expr:
    return L.bitcast(bits, dtype)


def _with_sign(magnitude: Expr, sign_of: Expr) -> Expr:
    """|magnitude| with the sign bit of `sign_of`."""
    top = _i(-(1 << (magnitude.dtype.bits - 1)), magnitude)
    sign = L.apply("and", _bits(sign_of), top)
    return _float(L.apply("or", _bits(magnitude), sign), magnitude.dtype)


def _pick(cond: Expr, a: Expr, b: Expr) -> Expr:
    return L.select(cond, a, b)


def _test(fn: str, a: Expr, b: float) -> Expr:
    return L.apply(fn, a, _c(b, a))


def _split(value: float, bits: int) -> tuple[float, float]:
    """value as a head of `bits` significant bits and the rest."""
    m, e = math.frexp(value)
    head = math.ldexp(math.floor(math.ldexp(m, bits)), e - bits)
    return head, value - head


LN2: Final = math.log(2)
# The part of ln 2 that a float64 cannot hold: ln 2 - float64(ln 2).
LN2_TAIL: Final = 2.3190468138462996e-17


def _power_of_two(n: Expr, dtype: DType) -> Expr:
    """2^n for an integer n in the range of normal exponents."""
    mantissa, bias = (23, 127) if dtype.bits == 32 else (52, 1023)
    shifted = L.apply("shl", _add(n, L.const(bias, n.type)), L.const(mantissa, n.type))
    return _float(shifted, dtype)


def _reduce_exp(x: Expr) -> tuple[Expr, Expr]:
    """x = n ln 2 + r with an integer n (as float) and |r| <= ln(2)/2; ln 2 in two parts (Cody and Waite)."""
    n = L.apply("rint", _mul(x, _c(1 / LN2, x)))
    if x.dtype is T.float32:
        high, low = _split(LN2, 15)
    else:
        high, low = _split(LN2, 32)
        low += LN2_TAIL
    return n, _fma(n, _c(-low, x), _fma(n, _c(-high, x), x))


def _expm1_reduced(r: Expr) -> Expr:
    """e^r - 1 for reduced r."""
    table = tables.EXP_F32 if r.dtype is T.float32 else tables.EXP_F64
    return _fma(_mul(r, r), _poly(r, table), r)


# ------------------------------------------------------------------------------------------------ exp


def _exp(x: Expr) -> Expr:
    """e^x: reduction by ln 2, a polynomial of degree 6 (float32) or 11 (float64), scaling in two steps so that
    subnormal results round once. Bounds: 1.02 ulp (float32), 1.05 ulp (float64)."""
    top, low = (89.0, -104.5) if x.dtype is T.float32 else (710.0, -746.0)
    clamped = _pick(_test("gt", x, top), _c(top, x), x)
    clamped = _pick(_test("lt", x, low), _c(low, x), clamped)
    n, r = _reduce_exp(clamped)
    p = _add(_expm1_reduced(r), _c(1.0, x))
    whole = L.cast(n, _int_of(x.dtype))
    half = L.apply("shr", whole, L.const(1, whole.type))
    scaled = _mul(_mul(p, _power_of_two(half, x.dtype)), _power_of_two(_sub(whole, half), x.dtype))
    return _pick(L.apply("ne", x, x), x, scaled)


# ------------------------------------------------------------------------------------------------ log


def _decompose(x: Expr) -> tuple[Expr, Expr]:
    """x = 2^e (1 + f) with f from sqrt(1/2) - 1 to sqrt(2) - 1; e as float. For positive finite x."""
    single = x.dtype is T.float32
    mantissa, scale = (23, 2.0**24) if single else (52, 2.0**54)
    tiny = _test("lt", x, 2.0**-126 if single else 2.0**-1022)
    lifted = _pick(tiny, _mul(x, _c(scale, x)), x)
    correction = _pick(tiny, _c(-24.0 if single else -54.0, x), _c(0.0, x))
    bits = _bits(lifted)
    # Adding 1 - sqrt(1/2) to the bit pattern carries into the exponent exactly when the fraction is above sqrt(2).
    root = 0x3F3504F3 if single else 0x3FE6A09E667F3BCD
    one = 0x3F800000 if single else 0x3FF0000000000000
    shifted = _add(bits, _i(one - root, x))
    exponent = _sub(L.apply("shr", shifted, _i(mantissa, x)), _i(127 if single else 1023, x))
    fraction = _add(L.apply("and", shifted, _i((1 << mantissa) - 1, x)), _i(root, x))
    return _add(L.cast(exponent, x.dtype), correction), _sub(_float(fraction, x.dtype), _c(1.0, x))


def _log_edges(x: Expr, value: Expr) -> Expr:
    """log of zeros (-inf), infinity, negative numbers and NaN (NaN)."""
    value = _pick(_test("eq", x, math.inf), x, value)
    value = _pick(_test("eq", x, 0.0), _c(-math.inf, x), value)
    return _pick(L.apply("ge", x, _c(0.0, x)), value, _c(math.nan, x))


def _log_f32(x: Expr) -> Expr:
    """log x = e ln 2 + f - f^2/2 + f^3 p(f), degree 8. Bound: 0.84 ulp."""
    e, f = _decompose(x)
    high, low = _split(LN2, 12)
    square = _mul(f, f)
    tail = _fma(_mul(f, square), _poly(f, tables.LOG_F32), _mul(e, _c(low, x)))
    tail = _fma(square, _c(-0.5, x), tail)
    return _log_edges(x, _fma(e, _c(high, x), _add(f, tail)))


def _log_f64(x: Expr) -> Expr:
    """log(1 + f) = f - (h - s (h + R)) with s = f / (2 + f), h = f^2/2, R a polynomial in s^2 (the scheme of
    fdlibm, Sun Microsystems 1993; own coefficients). Bound: 0.87 ulp."""
    e, f = _decompose(x)
    high, low = _split(LN2, 32)
    s = L.apply("div", f, _add(f, _c(2.0, x)))
    z = _mul(s, s)
    rest = _mul(z, _poly(z, tables.LOG_F64))
    h = _mul(_mul(f, f), _c(0.5, x))
    small = _fma(s, _add(h, rest), _mul(e, _c(low + LN2_TAIL, x)))
    return _log_edges(x, _sub(_mul(e, _c(high, x)), _sub(_sub(h, small), f)))


# ----------------------------------------------------------------------------------------------- tanh


def _tanh(x: Expr) -> Expr:
    """x + x^3 p(x^2) where it is small, else 1 - 2 / (e^2|x| + 1). Bounds: 1.06 ulp (float32), 1.35 ulp (float64)."""
    single = x.dtype is T.float32
    table, near, far = (tables.TANH_F32, 0.8, 10.0) if single else (tables.TANH_F64, 0.625, 20.0)
    magnitude = L.apply("abs", x)
    clamped = _pick(_test("gt", magnitude, far), _c(far, x), magnitude)
    n, r = _reduce_exp(_add(clamped, clamped))
    grown = _mul(_add(_expm1_reduced(r), _c(1.0, x)), _power_of_two(L.cast(n, _int_of(x.dtype)), x.dtype))
    large = _sub(_c(1.0, x), L.apply("div", _c(2.0, x), _add(grown, _c(1.0, x))))
    z = _mul(x, x)
    small = _fma(_mul(_poly(z, table), z), x, x)
    result = _with_sign(_pick(_test("lt", magnitude, near), small, large), x)
    return _pick(L.apply("ne", x, x), x, result)


# ------------------------------------------------------------------------------------------------ erf


def _erf_f32(x: Expr) -> Expr:
    """x + x p(x^2) below 0.92, else 1 - e^q(|x|). Bound: 1.11 ulp."""
    magnitude = L.apply("abs", x)
    clamped = _pick(_test("gt", magnitude, 4.0), _c(4.0, x), magnitude)
    large = _sub(_c(1.0, x), _exp(_poly(clamped, tables.ERF_LARGE_F32)))
    small = _fma(x, _poly(_mul(x, x), tables.ERF_SMALL_F32), x)
    result = _pick(_test("lt", magnitude, 0.92), small, _with_sign(large, x))
    return _pick(L.apply("ne", x, x), x, result)


def _erf_f64(x: Expr) -> Expr:
    """x + x p(x^2) below 0.875, else 1 - e^(-x^2) g(2 / (2 + |x|)) with g fitted to e^(x^2) erfc(x).
    Bound: 1.42 ulp."""
    magnitude = L.apply("abs", x)
    clamped = _pick(_test("gt", magnitude, 6.0), _c(6.0, x), magnitude)
    t = L.apply("div", _c(2.0, x), _add(clamped, _c(2.0, x)))
    decay = _exp(L.apply("neg", _mul(clamped, clamped)))
    large = _fma(L.apply("neg", decay), _poly(t, tables.ERFCX_F64), _c(1.0, x))
    small = _fma(x, _poly(_mul(x, x), tables.ERF_SMALL_F64), x)
    result = _pick(_test("lt", magnitude, 0.875), small, _with_sign(large, x))
    return _pick(L.apply("ne", x, x), x, result)


# ---------------------------------------------------------------------------------------------- cospi


def _cospi(x: Expr) -> Expr:
    """cos(pi x): the nearest integer is taken off exactly, then cosine up to 1/4, sine of the rest above.
    NaN for infinities. Bounds: 0.99 ulp (float32), 1.03 ulp (float64)."""
    sine, cosine = (
        (tables.SINPI_F32, tables.COSPI_F32) if x.dtype is T.float32 else (tables.SINPI_F64, tables.COSPI_F64)
    )
    n = L.apply("rint", x)
    y = L.apply("abs", _sub(x, n))
    far = _test("gt", y, 0.25)
    t = _pick(far, _sub(_c(0.5, x), y), y)
    z = _mul(t, t)
    pi = float(x.dtype.numpy.type(math.pi))
    pi_low = math.pi - pi if x.dtype is T.float32 else 1.2246467991473532e-16  # pi - pi as x's dtype holds it
    by_sine = _fma(t, _c(pi, x), _fma(_mul(t, z), _poly(z, sine), _mul(t, _c(pi_low, x))))
    by_cosine = _fma(_poly(z, cosine), z, _c(1.0, x))
    value = _pick(far, by_sine, by_cosine)
    half = _mul(n, _c(0.5, x))
    odd = L.apply("ne", half, L.apply("floor", half))
    return _pick(odd, L.apply("neg", value), value)


# -------------------------------------------------------------------------------------- sums and products


def _two_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """a + b and its rounding error, exactly (Knuth)."""
    total = _add(a, b)
    part = _sub(total, a)
    return total, _add(_sub(a, _sub(total, part)), _sub(b, part))


def _two_product(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """a * b and its rounding error, exactly where the error does not underflow."""
    product = _mul(a, b)
    return product, _fma(a, b, L.apply("neg", product))


# ---------------------------------------------------------------------------------------- sin and cos


def _digits(x: Expr, digits: tuple[float, ...], width: int, first: int, count: int) -> tuple[Expr, list[Expr]]:
    """The `count` groups of digits of 2/pi that matter for x >= 0, and x scaled to them.

    Digits whose product with x is a multiple of four turn nothing (Payne and Hanek, "Radian reduction for
    trigonometric functions", 1983): one group of `width` bits is dropped for every `width` bits of x's exponent from
    `first` on. A binary search, one select a group and level, finds them without a table in memory. x comes back
    below 2^(first + width).
    """
    groups: list[Expr] = [_c(d, x) for d in digits]
    drop = 1 << (len(digits) - count).bit_length() - 1
    while drop:
        far = _test("ge", x, 2.0 ** (first + width * drop))
        x = _pick(far, _mul(x, _c(2.0 ** (-width * drop), x)), x)
        kept = groups[: count + drop - 1]
        for k in range(min(len(kept), len(groups) - drop)):  # beyond: no finite x drops as many
            kept[k] = _pick(far, groups[k + drop], groups[k])
        groups, drop = kept, drop // 2
    return x, groups


def _mod4(x: Expr) -> Expr:
    """x less a multiple of 4, exactly: from -2 to 2."""
    return _fma(L.apply("rint", _mul(x, _c(0.25, x))), _c(-4.0, x), x)


def _quarters_of_float32(x: Expr) -> tuple[Expr, Expr]:
    """x >= 0, a float32 widened to float64, as n quarter turns (modulo 4) and a rest in radians. The products of 24
    and 29 bits are exact, and so are the sums where they cancel."""
    x, groups = _digits(x, tables.TWO_OVER_PI_F32, 29, 25, 4)
    t = [_mul(_mul(x, _c(2.0 ** (-29 * k), x)) if k else x, d) for k, d in enumerate(groups)]
    a, b = _mod4(t[0]), _mod4(t[1])
    n = L.apply("rint", _add(_add(a, b), t[2]))
    part = _add(_add(_add(_sub(a, n), b), t[2]), t[3])
    return n, _mul(part, _c(math.pi / 2, x))


def _quarters_of_float64(x: Expr) -> tuple[Expr, Expr, Expr]:
    """x >= 0 as n quarter turns (modulo 4) and a rest in radians as a sum of two floats. Exact products and sums of
    five groups of digits; no float64 is nearer than 2^-61 to a quarter turn, and the error is below 2^-117."""
    scaled, groups = _digits(x, tables.TWO_OVER_PI_F64, 53, 54, 5)
    products = [_two_product(_mul(scaled, _c(2.0 ** (-53 * k), x)) if k else scaled, d) for k, d in enumerate(groups)]
    (p0, e0), (p1, e1), (p2, e2), (p3, e3), (p4, _) = products
    total, middle, small = _mod4(p0), [e2, p3], _add(e3, p4)  # p0 < 2^107, each further word 2^53 times smaller
    for term in (_mod4(e0), _mod4(p1), e1, p2):
        total, error = _two_sum(total, term)
        middle.append(error)
    n = L.apply("rint", total)
    total = _sub(total, n)
    for term in middle:
        total, error = _two_sum(total, term)
        small = _add(small, error)
    part = _add(total, small)
    part_low = _add(_sub(total, part), small)
    half_pi, half_pi_low = math.pi / 2, 6.123233995736766e-17  # pi / 2 as a sum of two floats
    r, r_low = _two_product(part, _c(half_pi, x))
    r_low = _add(r_low, _fma(part, _c(half_pi_low, x), _mul(part_low, _c(half_pi, x))))
    near = _test("lt", x, math.pi / 4)  # there x is the rest itself, without loss
    zero = _c(0.0, x)
    return _pick(near, zero, n), _pick(near, x, r), _pick(near, zero, r_low)


def _turned(n: Expr, sine: Expr, cosine: Expr, quarters: int) -> Expr:
    """The sine of a rest to which n + `quarters` quarter turns are added back."""
    # Added to 1.5 * 2^52, a small integer stands in the last bits of the float's pattern.
    turns = _bits(_add(n, _c(1.5 * 2.0**52 + quarters, n)))
    odd = L.apply("ne", L.apply("and", turns, _i(1, n)), _i(0, n))
    flip = L.apply("shl", L.apply("and", turns, _i(2, n)), _i(62, n))
    return _float(L.apply("xor", _bits(_pick(odd, cosine, sine)), flip), n.dtype)


def _trig_f32(x: Expr, quarters: int) -> Expr:
    """sin(x + quarters * pi / 2) for x >= 0, in float64 up to the last rounding."""
    n, r = _quarters_of_float32(L.cast(x, T.float64))
    z = _mul(r, r)
    sine = _fma(_mul(r, z), _poly(z, tables.SIN_F32), r)
    cosine = _fma(_mul(z, z), _poly(z, tables.COS_F32), _fma(z, _c(-0.5, z), _c(1.0, z)))
    return L.cast(_turned(n, sine, cosine, quarters), T.float32)


def _trig_f64(x: Expr, quarters: int) -> Expr:
    """sin(x + quarters * pi / 2) for x >= 0; the polynomials take the low part of the rest to first order."""
    n, r, low = _quarters_of_float64(x)
    z = _mul(r, r)
    half = _mul(z, _c(0.5, x))
    sine_low = _fma(L.apply("neg", half), low, low)
    sine = _add(r, _fma(_mul(r, z), _poly(z, tables.SIN_F64), sine_low))
    one = _c(1.0, x)
    head = _sub(one, half)
    tail = _fma(_mul(z, z), _poly(z, tables.COS_F64), L.apply("neg", _mul(r, low)))
    cosine = _add(head, _add(_sub(_sub(one, head), half), tail))
    return _turned(n, sine, cosine, quarters)


def _sin_f32(x: Expr) -> Expr:
    """sin x by reduction to a quarter turn, exact for every float32, then polynomials of degree 9 and 8, all in
    float64. NaN for infinities. Bound: 0.501 ulp."""
    return _odd(x, _trig_f32(L.apply("abs", x), 0))


def _cos_f32(x: Expr) -> Expr:
    """cos x; method and bound as for sin."""
    return _trig_f32(L.apply("abs", x), 1)


def _sin_f64(x: Expr) -> Expr:
    """sin x by reduction to a quarter turn with more than 117 bits, then polynomials of degree 13 and 14 (the
    arrangement of fdlibm, Sun Microsystems 1993; own coefficients). NaN for infinities. Bound: 0.83 ulp."""
    return _odd(x, _trig_f64(L.apply("abs", x), 0))


def _cos_f64(x: Expr) -> Expr:
    """cos x; method and bound as for sin."""
    return _trig_f64(L.apply("abs", x), 1)


def _odd(x: Expr, value: Expr) -> Expr:
    """f(x) for an odd f, given f(|x|)."""
    sign = L.apply("and", _bits(x), _i(-(1 << (x.dtype.bits - 1)), x))
    return _float(L.apply("xor", _bits(value), sign), x.dtype)


# ------------------------------------------------------------------------------------------------ pow


def _precise_log(x: Expr) -> tuple[Expr, Expr]:
    """log x of positive finite float64 as a sum of two floats, to about 2^-63: 2 s + 2/3 s^3 in double-double
    arithmetic (s = f / (2 + f), with the division's remainder), the rest of the series in float64."""
    e, f = _decompose(x)
    d = _add(f, _c(2.0, x))
    d_low = _sub(f, _sub(d, _c(2.0, x)))
    s = L.apply("div", f, d)
    negative = L.apply("neg", s)
    s_low = L.apply("div", _fma(negative, d_low, _fma(negative, d, f)), d)
    z = _mul(s, s)
    z_low = _fma(_add(s, s), s_low, _fma(s, s, L.apply("neg", z)))
    t = _mul(s, z)
    t_low = _fma(s_low, z, _fma(s, z_low, _fma(s, z, L.apply("neg", t))))
    third, third_low = 2 / 3, 3.700743415417188e-17  # 2/3 as a sum of two floats
    q = _mul(t, _c(third, x))
    q_low = _fma(t, _c(third, x), L.apply("neg", q))
    q_low = _fma(t_low, _c(third, x), _fma(t, _c(third_low, x), q_low))
    rest = _mul(_mul(t, z), _poly(z, tables.POW_F64))
    high, low = _split(LN2, 32)
    total, error1 = _two_sum(_mul(e, _c(high, x)), _add(s, s))
    total, error2 = _two_sum(total, q)
    small = _add(_add(error1, error2), _add(_add(s_low, s_low), _add(q_low, rest)))
    small = _fma(e, _c(low + LN2_TAIL, x), small)
    head = _add(total, small)
    return head, _add(_sub(total, head), small)


def _pow_f64(x: Expr, y: Expr) -> Expr:
    """|x|^y = e^(y log|x|) with the logarithm in double-double, then the cases of IEEE 754 pow: y = 0 or x = 1 gives
    1; negative x needs an integer y, and an odd one keeps the sign. Bound: 1.95 ulp."""
    magnitude = L.apply("abs", x)
    zero, infinite = _test("eq", magnitude, 0.0), _test("eq", magnitude, math.inf)
    edge = L.apply("or", zero, infinite)
    high, low = _precise_log(_pick(edge, _c(1.0, x), magnitude))
    high = _pick(zero, _c(-math.inf, x), _pick(infinite, _c(math.inf, x), high))
    p = _mul(y, high)
    p_low = _fma(y, low, _fma(y, high, L.apply("neg", p)))
    usual = L.apply("lt", L.apply("abs", p), _c(800.0, x))  # false for NaN and infinities too
    p_low = _pick(usual, p_low, _c(0.0, x))
    top = _pick(_test("gt", p, 710.0), _c(710.0, x), p)
    clamped = _pick(_test("lt", top, -746.0), _c(-746.0, x), top)
    n, r = _reduce_exp(clamped)
    grown = _add(_expm1_reduced(_add(r, p_low)), _c(1.0, x))
    whole = L.cast(n, T.int64)
    half = L.apply("shr", whole, L.const(1, whole.type))
    result = _mul(_mul(grown, _power_of_two(half, x.dtype)), _power_of_two(_sub(whole, half), x.dtype))
    result = _pick(L.apply("ne", p, p), p, result)
    result = _pick(_test("eq", magnitude, 1.0), _c(1.0, x), result)
    integer = L.apply("eq", L.apply("floor", y), y)
    halved = _mul(y, _c(0.5, x))
    odd = L.apply("and", integer, L.apply("ne", L.apply("floor", halved), halved))
    flipped = L.apply("and", odd, _test("lt", _with_sign(_c(1.0, x), x), 0.0))
    result = _pick(flipped, L.apply("neg", result), result)
    finite = L.apply("and", _test("lt", magnitude, math.inf), _test("lt", L.apply("abs", y), math.inf))
    senseless = L.apply("and", L.apply("and", _test("lt", x, 0.0), finite), L.apply("not", integer))
    nan = L.apply("or", senseless, L.apply("or", L.apply("ne", x, x), L.apply("ne", y, y)))
    result = _pick(nan, _c(math.nan, x), result)
    return _pick(L.apply("or", _test("eq", y, 0.0), _test("eq", x, 1.0)), _c(1.0, x), result)


def _pow_f32(x: Expr, y: Expr) -> Expr:
    """Through float64, rounded once more. Bound: 0.501 ulp."""
    return L.cast(_pow_f64(L.cast(x, T.float64), L.cast(y, T.float64)), T.float32)


# ----------------------------------------------------------------------------------------------- fmod


def _fmod_f32(x: Expr, y: Expr) -> Expr:
    """x - y * trunc(x / y), exactly: in float64 the quotient is taken off 48 bits at a time, each remainder exact (the
    quotient is rounded to nearest, so that an error in its last place does not matter). NaN for y = 0, infinite x."""
    a, b = (L.cast(L.apply("abs", v), T.float64) for v in (x, y))
    inverse = L.apply("div", _c(1.0, a), b)
    r = a
    for k in range(5, -1, -1):  # quotients are below 2^278
        part, shift = L.apply("rint", _mul(r, _mul(inverse, _c(2.0 ** (-48 * k), a)))), 2.0 ** (48 * k)
        r = _fma(L.apply("neg", part), _mul(b, _c(shift, a)), r)
    return L.cast(_fmod_result(x, a, b, r), x.dtype)


def _fmod_result(x: Expr, a: Expr, b: Expr, r: Expr) -> Expr:
    """The remainder of a = |x| and b, given it up to one b; infinite b leave x."""
    r = _pick(_test("lt", r, 0.0), _add(r, b), r)
    r = _pick(L.apply("and", _test("eq", b, math.inf), _test("lt", a, math.inf)), a, r)
    return _with_sign(r, L.cast(x, a.dtype))


def _mantissa(x: Expr) -> tuple[Expr, Expr]:
    """A positive finite float64 as m * 2^e with 1 <= m < 2 and an int64 e."""
    tiny = _test("lt", x, 2.0**-1022)
    bits = _bits(_pick(tiny, _mul(x, _c(2.0**54, x)), x))
    exponent = _sub(L.apply("shr", bits, _i(52, x)), _pick(tiny, _i(1023 + 54, x), _i(1023, x)))
    fraction = L.apply("or", L.apply("and", bits, _i((1 << 52) - 1, x)), _i(1023 << 52, x))
    return _float(fraction, x.dtype), exponent


def _fmod_f64(x: Expr, y: Expr) -> Expr:
    """As for float32, but on the mantissas, which are scaled up by at most 50 bits in each of 42 steps: nothing can
    overflow, whatever the exponents."""
    a, b = L.apply("abs", x), L.apply("abs", y)
    (r, high), (m, low) = _mantissa(a), _mantissa(b)
    inverse, left = L.apply("div", _c(1.0, a), m), _sub(high, low)
    for k in range(43):
        if k:
            step = L.apply("max", L.apply("min", left, _i(50, a)), _i(0, a))
            r, left = _mul(r, _power_of_two(step, a.dtype)), _sub(left, step)
        r = _fma(L.apply("neg", L.apply("rint", _mul(r, inverse))), m, r)
    r = _pick(_test("lt", r, 0.0), _add(r, m), r)
    half = L.apply("shr", low, L.const(1, low.type))
    r = _mul(_mul(r, _power_of_two(half, a.dtype)), _power_of_two(_sub(low, half), a.dtype))
    r = _pick(L.apply("lt", a, b), a, r)
    odd = L.apply("or", _test("eq", b, 0.0), L.apply("not", _test("lt", a, math.inf)))
    r = _pick(L.apply("or", odd, L.apply("ne", b, b)), _c(math.nan, a), r)
    return _fmod_result(x, a, b, r)


_F32: Final[dict[str, Callable[..., Expr]]] = {
    "exp": _exp,
    "log": _log_f32,
    "tanh": _tanh,
    "erf": _erf_f32,
    "cospi": _cospi,
    "sin": _sin_f32,
    "cos": _cos_f32,
    "pow": _pow_f32,
    "fmod": _fmod_f32,
}
_F64: Final[dict[str, Callable[..., Expr]]] = {
    "exp": _exp,
    "log": _log_f64,
    "tanh": _tanh,
    "erf": _erf_f64,
    "cospi": _cospi,
    "sin": _sin_f64,
    "cos": _cos_f64,
    "pow": _pow_f64,
    "fmod": _fmod_f64,
}
