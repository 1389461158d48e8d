"""Rows (see `elementwise.py`) of the inverse error function, the logarithm of the gamma function, and its derivatives;
`codegen/gamma.py` defines the first three."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, Dense, ElementContext, OpDef, OpTypeError, quiet, register, same_types
from kiln.ir.ops.create import full_like
from kiln.ir.ops.elementwise import FLOATS, exp, mul
from kiln.ir.ops.elementwise import _fn as fn
from kiln.ir.ops.elementwise import _lit as lit
from kiln.ir.ops.elementwise import _unary as unary
from kiln.ir.types import TensorType


def _each(f: Callable[[float], float]) -> Callable[..., Any]:
    """The reference that applies a function of Python floats element by element."""
    apply = np.vectorize(f, otypes=[np.float64])
    return lambda xp, a: (apply(np.asarray(a, np.float64)) if a.size else np.asarray(a)).astype(a.dtype)


def _erfinv_of(x: float) -> float:
    """By Newton's method, on erfc where that is precise."""
    a = abs(x)
    if not a < 1:
        return math.copysign(math.inf, x) if a == 1 else math.nan
    y = a if a < 0.5 else math.sqrt(-math.log1p(-a))
    for _ in range(60):
        gap = math.erf(y) - a if a < 0.5 else (1 - a) - math.erfc(y)
        y -= gap * math.sqrt(math.pi) / 2 * math.exp(y * y)
    return math.copysign(y, x)


def _lgamma_of(x: float) -> float:
    if math.isinf(x) or abs(x) > 2.5e305 or (x <= 0 and x == math.floor(x)):
        return math.inf
    return math.lgamma(x)


def _digamma_of(x: float) -> float:
    """Recurrence up to 15, then the asymptotic series."""
    if x == 0:
        return -math.copysign(math.inf, x)
    if x < 0:
        if math.isinf(x) or x == math.floor(x):
            return math.nan
        return _digamma_of(1 - x) - math.pi / math.tan(math.pi * (x - round(x)))
    below = []
    while x < 15:
        below.append(-1 / x)
        x += 1
    z = 1 / (x * x)
    series = z * (1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z / 132))))
    return math.fsum([*below, math.log(x) if x < math.inf else x, -0.5 / x, -series])


erfinv: Final[OpDef] = unary(
    "erfinv", "The inverse error function; infinite at 1 and -1, NaN beyond. Derivative: t * sqrt(pi) / 2 * e^(y * y).",
    FLOATS, _each(_erfinv_of), fn("erfinv"),
    lambda call, t: mul(mul(t, full_like(t, math.sqrt(math.pi) / 2)), exp(mul(call.results[0], call.results[0]))),
    saves="y",
)  # fmt: skip
lgamma: Final[OpDef] = unary(
    "lgamma", "log |gamma(a)|; infinite at 0 and negative integers. Derivative: t * digamma(a).", FLOATS,
    _each(_lgamma_of), fn("lgamma"), lambda call, t: mul(t, digamma(call.operands[0])), saves="x",
)  # fmt: skip
digamma: Final[OpDef] = unary(
    "digamma", "The derivative of lgamma; -inf at 0, inf at -0, NaN at negative integers.", FLOATS,
    _each(_digamma_of), fn("digamma"), lambda call, t: mul(t, polygamma(call.operands[0], n=1)), saves="x",
)  # fmt: skip


_TERMS: Final = 12
"""Of the sum that polygamma begins with; the rest is the Euler-Maclaurin formula."""
_BERNOULLI: Final = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


def _order(attrs: Attrs) -> int:
    n = attrs["n"]
    assert isinstance(n, int)
    return n


def _polygamma_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = same_types("polygamma", operands, FLOATS)
    n = attrs.get("n")
    if not isinstance(n, int) or n < 1:
        raise OpTypeError("polygamma", f"the order is {n!r}, not a positive number", "value")
    return (t,)


def _power(x: Any, n: int, times: Callable[[Any, Any], Any]) -> Any:
    """x^n by squaring."""
    result, square = None, x
    while n:
        if n & 1:
            result = square if result is None else times(result, square)
        n >>= 1
        square = times(square, square) if n else square
    return result


def _polygamma(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    """(-1)^(n + 1) n! times the sum of (x + k)^-(n + 1); below 0 by reflection."""
    a, n = ctx.read(0, index), _order(ctx.attrs)
    one = lit(a, 1)
    negative = L.apply("lt", a, lit(a, 0))
    x = L.select(negative, L.sub(one, a), L.apply("abs", a))

    def inverse_power(x: L.Expr) -> L.Expr:
        power: L.Expr = _power(L.apply("div", one, x), n + 1, L.mul)
        return power

    y = L.add(x, lit(x, _TERMS))
    w = L.apply("div", one, y)
    lead = _power(w, n, L.mul)
    square, factor = L.mul(w, w), 1.0
    tail = lit(x, 0)
    for j in range(len(_BERNOULLI), 0, -1):
        factor = _BERNOULLI[j - 1] * math.prod(range(n + 1, n + 2 * j)) / math.factorial(2 * j)
        tail = L.mul(square, L.add(tail, lit(x, factor)))
    total = L.mul(lead, L.add(lit(x, 1 / n), L.add(L.mul(w, lit(x, 0.5)), tail)))
    for k in range(_TERMS - 1, -1, -1):
        total = L.add(total, inverse_power(L.add(x, lit(x, k)) if k else x))
    value = L.mul(total, lit(x, (-1) ** (n + 1) * math.factorial(n)))
    cotangent = L.apply("div", L.apply("cospi", a), L.apply("sinpi", a))
    *rest, first = _cotangent(n)
    turn = lit(x, first)
    for c in reversed(rest):
        turn = L.add(L.mul(turn, cotangent), lit(x, c))
    turn = L.mul(turn, lit(x, math.pi ** (n + 1)))
    reflected = L.sub(value if n % 2 == 0 else L.apply("neg", value), turn)
    pole = L.apply("and", L.apply("eq", a, L.apply("floor", a)), L.apply("gt", a, lit(a, -math.inf)))
    reflected = L.select(pole, lit(x, math.inf * (-1) ** (n + 1)), reflected)
    return L.select(negative, reflected, value)


def _cotangent(n: int) -> list[int]:
    """The n-th derivative of cot x as a polynomial in cot x: that of p(cot x) is -(1 + cot^2 x) p'(cot x)."""
    p = [0, 1]
    for _ in range(n):
        slope = [k * c for k, c in enumerate(p)][1:]
        p = [-a - b for a, b in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    return p


def _polygamma_ref(xp: Any, a: Any, *, n: int) -> Any:
    sign = 1.0 if n % 2 else -1.0

    def of(x: float) -> float:
        if x < 0:
            if not math.isfinite(x):
                return math.nan
            if x == round(x):
                return math.inf * sign
            cotangent = 1 / math.tan(math.pi * (x - round(x)))
            powers = [c * math.prod([cotangent] * k) for k, c in enumerate(_cotangent(n)) if c]
            turn: float = math.pi ** (n + 1) * sum(powers)
            return -sign * of(1 - x) - turn
        if x == 0:
            return math.inf * sign
        y = x + 30
        terms = [float((x + k) ** -(n + 1)) if x + k < 1e150 else 0.0 for k in range(30)]
        tail = 1 / n + 0.5 / y
        for j, b in enumerate(_BERNOULLI[:4], 1):
            tail += b * math.prod(range(n + 1, n + 2 * j)) / math.factorial(2 * j) * y ** (-2 * j) if y < 1e30 else 0
        return sign * math.factorial(n) * math.fsum([*terms, float((1 / y) ** n) * tail])

    def checked(x: float) -> float:
        try:
            return of(x)
        except OverflowError:
            return math.inf * sign

    return _each(checked)(xp, a)


def _polygamma_slope(call: Call, t: Any) -> Any:
    return mul(t, polygamma(call.operands[0], n=_order(call.attrs) + 1))


polygamma: Final[OpDef] = register(OpDef(
    "polygamma",
    "polygamma(a; n): the n-th derivative of digamma, n >= 1.",
    _polygamma_types, quiet(_polygamma_ref), Dense(_polygamma, pointwise=True),
    vjp=lambda call, g: (_polygamma_slope(call, g),),
    jvp=lambda call, t: (None if t is None else _polygamma_slope(call, t),),
    traits=frozenset({"elementwise"}), saved_operands=(0,), arity=1,
))  # fmt: skip
