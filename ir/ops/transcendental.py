"""More functions of one or two numbers, each a row (see `elementwise.py`) over its intrinsic, which
`codegen/mathlib_more.py` defines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.ops import complexes as C
from kiln.ir.ops.base import Call, OpDef
from kiln.ir.ops.create import full_like
from kiln.ir.ops.elementwise import FLOATS, add, div, eq, exp, mul, neg, sqrt, sub, where
from kiln.ir.ops.elementwise import _binary as binary
from kiln.ir.ops.elementwise import _fn as fn
from kiln.ir.ops.elementwise import _unary as unary

Slope = Callable[[Call, Any], Any]
WIDE_FLOATS: Final = tuple(d for d in FLOATS if not d.is_half)


def _square(x: Any) -> Any:
    return mul(x, x)


def _one(x: Any) -> Any:
    return full_like(x, 1.0)


def _over(denominator: Callable[[Any], Any]) -> Slope:
    """t divided by a function of the operand."""
    return lambda call, t: div(t, denominator(call.operands[0]))


def _wide(name: str, function: Callable[[float], float]) -> Callable[..., Any]:
    """A reference that goes through Python's float64 function, number by number."""

    def one(value: float) -> float:
        try:
            return function(value)
        except (OverflowError, ValueError):
            return math.nan

    def ref(xp: Any, a: Any) -> Any:
        wide = np.vectorize(one, otypes=[np.float64])(np.asarray(a, np.float64)) if a.size else a
        return xp.asarray(wide).astype(a.dtype)

    ref.__name__ = name
    return ref


log1p: Final[OpDef] = unary(
    "log1p", "log(1 + a), accurate for small a. Derivative: t / (1 + a).", FLOATS,
    lambda xp, a: xp.log1p(a), fn("log1p"), _over(lambda x: add(_one(x), x)), saves="x", pairs=C.log1p,
)  # fmt: skip
log2: Final[OpDef] = unary(
    "log2", "The logarithm to base 2. Derivative: t / (a * ln 2).", FLOATS,
    lambda xp, a: xp.log2(a), fn("log2"), _over(lambda x: mul(x, full_like(x, math.log(2)))), saves="x", pairs=C.log2,
)  # fmt: skip
log10: Final[OpDef] = unary(
    "log10", "The logarithm to base 10. Derivative: t / (a * ln 10).", FLOATS,
    lambda xp, a: xp.log10(a), fn("log10"), _over(lambda x: mul(x, full_like(x, math.log(10)))), saves="x",
    pairs=C.log10,
)  # fmt: skip
exp2: Final[OpDef] = unary(
    "exp2", "2 to the a. Derivative: t * (y * ln 2).", FLOATS,
    lambda xp, a: xp.exp2(a), fn("exp2"),
    lambda call, t: mul(t, mul(call.results[0], full_like(t, math.log(2)))), saves="y", pairs=C.exp2,
)  # fmt: skip
expm1: Final[OpDef] = unary(
    "expm1", "e to the a, less 1, accurate for small a. Derivative: t * (y + 1).", FLOATS,
    lambda xp, a: xp.expm1(a), fn("expm1"), lambda call, t: mul(t, add(call.results[0], _one(t))), saves="y",
    pairs=C.expm1,
)  # fmt: skip


def _tan(x: L.Expr) -> L.Expr:
    return L.apply("div", L.apply("sin", x), L.apply("cos", x))


tan: Final[OpDef] = unary(
    "tan", "sin(a) / cos(a). Derivative: t * (1 + y * y).", FLOATS,
    lambda xp, a: xp.tan(a), _tan, lambda call, t: mul(t, add(_one(t), _square(call.results[0]))), saves="y",
    pairs=C.tan,
)  # fmt: skip
sinh: Final[OpDef] = unary(
    "sinh", "The hyperbolic sine. Derivative: t * cosh(a).", FLOATS,
    lambda xp, a: xp.sinh(a), fn("sinh"), lambda call, t: mul(t, cosh(call.operands[0])), saves="x", pairs=C.sinh,
)  # fmt: skip
cosh: Final[OpDef] = unary(
    "cosh", "The hyperbolic cosine. Derivative: t * sinh(a).", FLOATS,
    lambda xp, a: xp.cosh(a), fn("cosh"), lambda call, t: mul(t, sinh(call.operands[0])), saves="x", pairs=C.cosh,
)  # fmt: skip
asin: Final[OpDef] = unary(
    "asin", "The inverse sine; NaN beyond 1. Derivative: t / sqrt(1 - a * a).", FLOATS,
    lambda xp, a: xp.arcsin(a), fn("asin"), _over(lambda x: sqrt(sub(_one(x), _square(x)))), saves="x",
    pairs=C.asin,
)  # fmt: skip
acos: Final[OpDef] = unary(
    "acos", "The inverse cosine; NaN beyond 1. Derivative: -(t / sqrt(1 - a * a)).", FLOATS,
    lambda xp, a: xp.arccos(a), fn("acos"),
    lambda call, t: neg(div(t, sqrt(sub(_one(t), _square(call.operands[0]))))), saves="x",
    pairs=C.acos,
)  # fmt: skip
atan: Final[OpDef] = unary(
    "atan", "The inverse tangent. Derivative: t / (1 + a * a).", FLOATS,
    lambda xp, a: xp.arctan(a), fn("atan"), _over(lambda x: add(_one(x), _square(x))), saves="x",
    pairs=C.atan,
)  # fmt: skip
asinh: Final[OpDef] = unary(
    "asinh", "The inverse hyperbolic sine. Derivative: t / sqrt(a * a + 1).", FLOATS,
    lambda xp, a: xp.arcsinh(a), fn("asinh"), _over(lambda x: sqrt(add(_square(x), _one(x)))), saves="x",
    pairs=C.asinh,
)  # fmt: skip


def _roots(x: Any) -> Any:
    """sqrt(x * x - 1), of complex x the product of two roots: it has their sign."""
    one = _one(x)
    return mul(sqrt(sub(x, one)), sqrt(add(x, one))) if x.ttype.dtype.is_complex else sqrt(sub(_square(x), one))


acosh: Final[OpDef] = unary(
    "acosh", "The inverse hyperbolic cosine; NaN below 1. Derivative: t / sqrt(a * a - 1).", FLOATS,
    lambda xp, a: xp.arccosh(a.astype(xp.result_type(a, xp.float64))).astype(a.dtype), fn("acosh"),
    _over(_roots), saves="x", pairs=C.acosh,
)  # fmt: skip
atanh: Final[OpDef] = unary(
    "atanh", "The inverse hyperbolic tangent; NaN beyond 1. Derivative: t / (1 - a * a).", FLOATS,
    lambda xp, a: xp.arctanh(a), fn("atanh"), _over(lambda x: sub(_one(x), _square(x))), saves="x",
    pairs=C.atanh,
)  # fmt: skip
erfc: Final[OpDef] = unary(
    "erfc", "1 - erf(a), accurate for large a. Derivative: (t * -2 / sqrt(pi)) * exp(-(a * a)).", FLOATS,
    _wide("erfc", math.erfc), fn("erfc"),
    lambda call, t: mul(mul(t, full_like(t, -2 / math.sqrt(math.pi))), exp(neg(_square(call.operands[0])))), saves="x",
)  # fmt: skip


def _radius(call: Call) -> Any:
    return add(_square(call.operands[0]), _square(call.operands[1]))


atan2: Final[OpDef] = binary(
    "atan2", "The angle of the point (b, a), as C's atan2. Derivatives: t * b and t * -a over a * a + b * b.", FLOATS,
    lambda xp, a, b: xp.arctan2(a, b), fn("atan2"),
    (
        lambda call, t: div(mul(t, call.operands[1]), _radius(call)),
        lambda call, t: neg(div(mul(t, call.operands[0]), _radius(call))),
    ),
    saves="ab",
)  # fmt: skip


def _towards(k: int) -> Slope:
    """t * (operand k over the result), and 0 where that is 0."""

    def slope(call: Call, t: Any) -> Any:
        y, zero = call.results[0], full_like(t, 0.0)
        nothing = eq(y, zero)
        return where(nothing, zero, mul(t, div(call.operands[k], where(nothing, full_like(t, 1.0), y))))

    return slope


modulus: Final[OpDef] = binary(
    "modulus", "sqrt(a * a + b * b) without overflow on the way, the length of a complex number: infinite where a or b "
    "is. Derivatives: t * (a / y) and t * (b / y), 0 where y is 0.", WIDE_FLOATS,
    lambda xp, a, b: C.modulus_ref(a, b), C.modulus, (_towards(0), _towards(1)), saves="aby",
    traits="exact foldable commutative",
)  # fmt: skip
