"""The incomplete gamma functions and Hurwitz' zeta function, of float64.

For gammainc, P(a, x), and gammaincc, Q(a, x) = 1 - P(a, x), whichever is smaller is computed, by

- Temme's uniform expansion (1979: "The asymptotic expansion of the incomplete gamma functions"; DLMF 8.12) for a >= 20
  and 0.3 <= x / a <= 2.5;
- else the power series of P (DLMF 8.11.4) for x <= a + 1, and beyond the continued fraction of Q (DLMF 8.9.2,
  contracted), both of a fixed number of terms;
- but Q for a < 1/2, x < 2 from the power series of gamma(a, x) (DLMF 8.7.3), where 1 - P would cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, Dense, ElementContext, OpDef, quiet, register, same_types
from kiln.ir.ops.create import full_like
from kiln.ir.ops.elementwise import _lit as lit
from kiln.ir.ops.elementwise import add, eq, exp, log, mul, neg, sub, where
from kiln.ir.ops.gamma import lgamma
from kiln.ir.ops.incomplete_tables import EULER_MACLAURIN, LOG_GAMMA_1P, STIRLING, TEMME
from kiln.ir.types import TensorType, float64

Expr = L.Expr
SERIES_TERMS: Final = 56
FRACTION_TERMS: Final = 50
SMALL_TERMS: Final = 26
LARGE: Final = 20.0
"""From where on `a` is large: Temme's expansion holds."""


def _f(name: str, *args: Expr) -> Expr:
    return L.apply(name, *args)


def _below(x: Expr, value: float) -> Expr:
    return _f("lt", x, lit(x, value))


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    total = lit(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = _f("fma", total, x, lit(x, c))
    return total


# --------------------------------------------------------------------------------- incomplete gamma


def _gap(mu: Expr, ratio: Expr) -> Expr:
    """mu - log(1 + mu), ratio being 1 + mu: near 0 from the series of 2 atanh(mu / (2 + mu))."""
    s = _f("div", mu, L.add(mu, lit(mu, 2)))
    z = L.mul(s, s)
    series = _horner(z, [2 / (2 * k + 3) for k in range(13)])
    near = L.mul(s, L.sub(mu, L.mul(z, series)))
    return L.select(_f("lt", _f("abs", mu), lit(mu, 0.4)), near, L.sub(mu, _f("log", ratio)))


def _uniform(a: Expr, eta: Expr, scaled: Expr) -> tuple[Expr, Expr]:
    """P and Q by Temme's expansion; `scaled` is exp(-a eta^2 / 2) / sqrt(2 pi a)."""
    w = _f("div", lit(a, 1), a)
    total = _horner(eta, TEMME[-1])
    for row in reversed(TEMME[:-1]):
        total = _f("fma", total, w, _horner(eta, row))
    rest, z = L.mul(scaled, total), L.mul(eta, _f("sqrt", L.mul(a, lit(a, 0.5))))
    half = lit(a, 0.5)
    return L.sub(L.mul(half, _f("erfc", _f("neg", z))), rest), L.add(L.mul(half, _f("erfc", z)), rest)


def _series(a: Expr, x: Expr) -> Expr:
    """The sum of x^n / ((a + 1) ... (a + n))."""
    one = lit(a, 1)
    total = one
    for n in range(SERIES_TERMS, 0, -1):
        total = L.add(one, L.mul(_f("div", x, L.add(a, lit(a, n))), total))
    return total


def _fraction(a: Expr, x: Expr) -> Expr:
    """1 / (x + 1 - a - 1 (1 - a) / (x + 3 - a - 2 (2 - a) / ...))."""
    gap = L.sub(x, a)
    total = L.add(gap, lit(a, 2 * FRACTION_TERMS + 1))
    for n in range(FRACTION_TERMS, 0, -1):
        top = L.mul(lit(a, n), L.sub(lit(a, n), a))
        total = L.sub(L.add(gap, lit(a, 2 * n - 1)), _f("div", top, total))
    return _f("div", lit(a, 1), total)


def _small(a: Expr, x: Expr) -> Expr:
    """Q for a < 1/2, x < 2: 1 - e^u - e^u * a * (the sum of (-x)^n / ((a + n) n!)), u = a log x - log gamma(1 + a)."""
    t = L.sub(L.mul(a, lit(a, 4)), lit(a, 1))
    first, *rest = LOG_GAMMA_1P
    b, later = lit(a, rest[-1]), lit(a, 0)
    for c in reversed(rest[:-1]):
        b, later = L.add(L.sub(L.mul(L.add(t, t), b), later), lit(a, c)), b
    log_gamma = L.mul(a, L.add(L.sub(L.mul(t, b), later), lit(a, first)))
    u = L.sub(L.mul(a, _f("log", x)), log_gamma)
    total = lit(a, 0)
    for n in range(SMALL_TERMS, 0, -1):
        inverse = _f("div", lit(a, 1), L.add(a, lit(a, n)))
        total = L.mul(L.mul(x, lit(a, -1 / n)), L.add(inverse, total))
    return L.sub(_f("neg", _f("expm1", u)), L.mul(_f("exp", u), L.mul(a, total)))


def _both(a: Expr, x: Expr) -> tuple[Expr, Expr]:
    """P and Q, of positive and finite numbers."""
    one, large = lit(a, 1), _f("ge", a, lit(a, LARGE))
    mu, ratio = _f("div", L.sub(x, a), a), _f("div", x, a)
    gap = _gap(mu, ratio)
    decay = _f("exp", _f("neg", L.mul(a, gap)))
    scaled = _f("div", decay, _f("sqrt", L.mul(a, lit(a, 2 * math.pi))))
    w = _f("div", one, a)
    stirling = _f("exp", _f("neg", L.mul(w, _horner(L.mul(w, w), STIRLING))))
    plain = _f("exp", L.sub(L.sub(L.mul(a, _f("log", x)), x), _f("lgamma", L.add(a, one))))
    lead = L.select(large, L.mul(scaled, stirling), plain)  # x^a e^-x / gamma(a + 1)
    eta = L.mul(_f("sqrt", L.add(gap, gap)), L.select(_below(mu, 0), lit(a, -1), one))
    p_uniform, q_uniform = _uniform(a, eta, scaled)
    p_low = L.mul(lead, _series(a, x))
    q_high = L.mul(L.mul(lead, a), _fraction(a, x))
    tiny = _f("and", _below(a, 0.5), _below(x, 2))
    q_low = L.select(tiny, _small(a, x), L.sub(one, p_low))
    low = _f("le", x, L.add(a, one))
    between = _f("and", _f("ge", ratio, lit(a, 0.3)), _f("le", ratio, lit(a, 2.5)))
    uniform = _f("and", large, between)
    p = L.select(uniform, p_uniform, L.select(low, p_low, L.sub(one, L.select(tiny, q_low, q_high))))
    return p, L.select(uniform, q_uniform, L.select(_f("or", low, tiny), q_low, q_high))


def _incomplete(upper: bool) -> Callable[[ElementContext, tuple[Expr, ...]], Expr]:
    def element(ctx: ElementContext, index: tuple[Expr, ...]) -> Expr:
        a, x = ctx.read(0, index), ctx.read(1, index)
        zero, none, all_, nan = lit(a, 0), lit(a, float(upper)), lit(a, float(not upper)), lit(a, math.nan)
        value = _both(a, x)[upper]
        value = L.select(_f("eq", x, lit(x, math.inf)), all_, value)
        endless = L.select(_f("eq", x, lit(x, math.inf)), nan, none)
        value = L.select(_f("eq", a, lit(a, math.inf)), endless, value)
        value = L.select(_f("eq", x, zero), none, value)
        value = L.select(_f("eq", a, zero), L.select(_f("gt", x, zero), all_, nan), value)
        return L.select(_f("or", _below(a, 0), _below(x, 0)), nan, value)

    return element


def _lead(a: float, x: float) -> float:
    """x^a e^-x / gamma(a + 1), in extended precision where a is large."""
    if a < LARGE:
        return math.exp(a * math.log(x) - x - math.lgamma(a + 1))
    b, w = np.longdouble(a), 1 / np.longdouble(a)
    stirling = sum([c * w ** (2 * k + 1) for k, c in enumerate(STIRLING)])
    return float(np.exp(b * np.log(x / b) + (b - x) - stirling) / np.sqrt(2 * np.pi * b))


def _p_of(a: float, x: float) -> tuple[float, float]:
    """P and Q by as many terms as it takes."""
    lead = _lead(a, x)
    if x <= a + 1:
        total, term, n = 1.0, 1.0, 1
        while term > 1e-18 * total:
            term *= x / (a + n)
            total, n = total + term, n + 1
        return lead * total, 1 - lead * total
    terms = 200 + int(4 * math.sqrt(a))
    fraction = x - a + 2 * terms + 1
    for n in range(terms, 0, -1):
        fraction = x - a + 2 * n - 1 - n * (n - a) / fraction
    return 1 - lead * a / fraction, lead * a / fraction


def _ref(upper: bool) -> Callable[..., Any]:
    none, all_ = float(upper), float(not upper)

    def of(a: float, x: float) -> float:
        if a < 0 or x < 0 or (a == 0 and not x > 0):
            return math.nan
        if a == 0:
            return all_
        if x == 0:
            return none
        if a == math.inf:
            return math.nan if x == math.inf else none
        if x == math.inf:
            return all_
        if a != a or x != x:
            return math.nan
        if a > 1e6 and abs(x - a) > a / 2:
            return none if x < a else all_
        return _p_of(a, x)[upper]

    every = np.vectorize(of, otypes=[np.float64])
    return lambda xp, a, x: every(a, x) if a.size else np.asarray(a * x)


def _types(name: str) -> Callable[[Sequence[TensorType], Attrs], tuple[TensorType, ...]]:
    return lambda operands, attrs: (same_types(name, operands, (float64,)),)


def _density(call: Call, t: Any) -> Any:
    """t times the derivative of P by x: x^(a - 1) e^-x / gamma(a), 0 at infinity."""
    a, x = call.operands
    far = eq(x, full_like(x, math.inf))
    at = where(far, full_like(x, 1.0), x)
    exponent = sub(sub(mul(sub(a, full_like(a, 1.0)), log(at)), at), lgamma(a))
    return mul(t, where(far, full_like(x, 0.0), exp(exponent)))


def _second(slope: Callable[[Call, Any], Any]) -> dict[str, Any]:
    """The rules of an op with a derivative by its second operand alone."""
    return {
        "vjp": lambda call, g: (None, slope(call, g)),
        "jvp": lambda call, ta, tb: (None if tb is None else slope(call, tb),),
        "saved_operands": (0, 1),
        "underived": (0,),
    }


gammainc: Final[OpDef] = register(OpDef(
    "gammainc", "P(a, x), the incomplete gamma function from 0 to x over gamma(a).", _types("gammainc"),
    quiet(_ref(False)), Dense(_incomplete(False), pointwise=True), traits=frozenset({"elementwise"}), arity=2,
    **_second(_density),
))  # fmt: skip
gammaincc: Final[OpDef] = register(OpDef(
    "gammaincc", "Q(a, x), the incomplete gamma function from x on over gamma(a).", _types("gammaincc"),
    quiet(_ref(True)), Dense(_incomplete(True), pointwise=True), traits=frozenset({"elementwise"}), arity=2,
    **_second(lambda call, t: neg(_density(call, t))),
))  # fmt: skip


# ------------------------------------------------------------------------------------------------- zeta

ZETA_TERMS: Final = 12


def _zeta(ctx: ElementContext, index: tuple[Expr, ...]) -> Expr:
    """The first terms, and the rest by the Euler-Maclaurin formula (DLMF 25.11.5), which is left out where the terms
    fall so fast that it does not count (and would overflow)."""
    x, q = ctx.read(0, index), ctx.read(1, index)
    one, power = lit(x, 1), _f("neg", x)
    total = lit(x, 0)
    for k in range(ZETA_TERMS - 1, -1, -1):
        total = L.add(total, _f("pow", L.add(q, lit(q, k)) if k else q, power))
    y = L.add(q, lit(q, ZETA_TERMS))
    w = _f("div", one, y)
    square, tail = L.mul(w, w), lit(x, 0)
    for j in range(len(EULER_MACLAURIN), 0, -1):
        here = L.add(lit(x, EULER_MACLAURIN[j - 1]), tail)
        ahead = L.add(x, lit(x, 2 * j - 2))
        grown = ahead if j == 1 else L.mul(ahead, L.add(x, lit(x, 2 * j - 3)))
        tail = L.mul(L.mul(here, grown), w if j == 1 else square)
    tail = L.mul(_f("pow", y, power), L.add(L.add(_f("div", y, L.sub(x, one)), lit(x, 0.5)), tail))
    counts = _f("lt", x, L.mul(y, lit(y, 6)))
    value = L.add(total, L.select(counts, tail, lit(x, 0)))
    value = L.select(_f("eq", x, one), lit(x, math.inf), value)
    unknown = _f("or", _below(x, 1), _f("or", _f("lt", q, lit(q, 0)), _f("ne", x, x)))
    return L.select(unknown, lit(x, math.nan), value)


def _zeta_ref(xp: Any, x: Any, q: Any) -> Any:
    def of(s: float, q: float) -> float:
        if s < 1 or q < 0 or s != s or (s > 1 and q != q):
            return math.nan
        if s == 1 or q == 0:
            return math.inf
        if math.isinf(s) or math.isinf(q):
            return math.nan if s < math.inf else float(np.power(q, -s))
        terms = [float(np.power(q + k, -s)) for k in range(40)]
        y = q + 40
        first = float(np.power(y, -s))
        rest = [first * y / (s - 1), first / 2]
        grown = first / y
        for j, c in enumerate(EULER_MACLAURIN[:8], 1):
            grown *= s if j == 1 else (s + 2 * j - 3) * (s + 2 * j - 2) / y / y
            rest.append(c * grown)
        return sum(terms) + (math.fsum(rest) if s < 6 * y else 0.0)

    return np.vectorize(of, otypes=[np.float64])(x, q) if x.size else np.asarray(x * q)


def _zeta_slope(call: Call, t: Any) -> Any:
    """t * -x * zeta(x + 1, q)."""
    x, q = call.operands
    return neg(mul(mul(t, x), zeta(add(x, full_like(x, 1.0)), q)))


zeta: Final[OpDef] = register(OpDef(
    "zeta", "The sum of (q + k)^-x over k >= 0, for q >= 0; infinite at x = 1, NaN below.", _types("zeta"),
    quiet(_zeta_ref), Dense(_zeta, pointwise=True), traits=frozenset({"elementwise"}), arity=2, **_second(_zeta_slope),
))  # fmt: skip
