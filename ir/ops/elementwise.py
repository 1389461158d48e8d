"""Elementwise ops, a row each: result[i] depends on operand[i] alone; operands agree in type exactly.

A row gives the element types it takes, the NumPy oracle, the scalar loop expression, and its derivative
written with other ops. Unary rows need one rule only: `slope(call, t)` is t times the derivative, which is
both the gradient (t: the result's) and the tangent (t: the operand's). What is not differentiable (floor,
sign, comparisons) passes zero, or nothing where the result is not floating point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.ops import complexes as C
from kiln.ir.ops.base import Call, Dense, ElementContext, OpDef, OpTypeError, quiet, register, same_types
from kiln.ir.ops.cast import cast as cast
from kiln.ir.ops.create import full_like
from kiln.ir.ops.pairs import conj
from kiln.ir.types import COMPLEX_DTYPES, REAL_DTYPES, TENSOR_DTYPES, DType, TensorType, bool_

FLOATS: Final = tuple(d for d in REAL_DTYPES if d.is_floating_point)
INTS: Final = tuple(d for d in REAL_DTYPES if d.is_integer)
NUMERIC: Final = (*INTS, *FLOATS)
ANY: Final = REAL_DTYPES
BOOL: Final = (bool_,)

Among = Sequence[DType]
Ref = Callable[..., Any]
Scalar = Callable[..., L.Expr]
Pairs = Callable[..., "C.Pair | L.Expr"]
Slope = Callable[[Call, Any], Any]
Slopes = tuple[Slope, Slope]
Infer = Callable[[Sequence[TensorType], Attrs], tuple[TensorType, ...]]


def _row(
    name: str,
    doc: str,
    among: Among,
    ref: Ref,
    expr: Scalar,
    *,
    arity: int,
    infer: Infer | None = None,
    to_bool: bool = False,
    traits: str = "",
    pairs: Pairs | None = None,
    **rest: Any,
) -> OpDef:
    """Register an op whose element is `expr` of the operands' elements, and whose result has their type (or
    bool instead, or what `infer` says). With `pairs` it takes complex numbers too: the same of their parts."""
    among = (*among, *COMPLEX_DTYPES) if pairs is not None else among

    def rule(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        t = same_types(name, operands, among)
        return (TensorType(bool_, t.shape, t.device) if to_bool else t,)

    def element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
        operands = [ctx.read(k, index) for k in range(arity)]
        if pairs is not None and operands[0].dtype.is_complex:
            return C.pair(pairs(*map(C.parts, operands)))
        return expr(*operands)

    lower, all_traits = Dense(element, pointwise=True), frozenset({"elementwise", *traits.split()})
    return register(OpDef(name, doc, infer or rule, quiet(ref), lower, traits=all_traits, arity=arity, **rest))


def _conjugated(slope: Slope, call: Call, g: Any) -> Any:
    """The gradient of a function of complex numbers: `g` times the conjugate of the derivative."""
    return conj(slope(call, conj(g)))


def _unary(
    name: str,
    doc: str,
    among: Among,
    ref: Ref,
    expr: Scalar,
    slope: Slope,
    saves: str = "",
    traits: str = "",
    pairs: Pairs | None = None,
) -> OpDef:
    """A unary row; `saves` says what `slope` reads: "x" (the operand), "y" (the result) or neither."""

    def vjp(call: Call, g: Any) -> Sequence[Any]:
        curved = saves and g.ttype.dtype.is_complex
        return (_conjugated(slope, call, g) if curved else slope(call, g),)

    def jvp(call: Call, t: Any) -> Sequence[Any]:
        return (None if t is None else slope(call, t),)

    saved: dict[str, Any] = {f"saved_{'operands' if k == 'x' else 'results'}": (0,) for k in saves}
    return _row(name, doc, among, ref, expr, arity=1, vjp=vjp, jvp=jvp, traits=traits, pairs=pairs, **saved)


def _binary(
    name: str,
    doc: str,
    among: Among,
    ref: Ref,
    expr: Scalar,
    slopes: Slopes,
    saves: str | tuple[str, str] = "",
    traits: str = "",
    pairs: Pairs | None = None,
) -> OpDef:
    """A binary row; `slopes` are the derivatives towards a and b, `saves` what they (each) read: of "a", "b", "y"."""

    def vjp(call: Call, g: Any) -> Sequence[Any]:
        curved = saves and g.ttype.dtype.is_complex
        needed = zip(slopes, call.needs, strict=True)
        return tuple(
            None if not need else _conjugated(slope, call, g) if curved else slope(call, g) for slope, need in needed
        )

    def jvp(call: Call, ta: Any, tb: Any) -> Sequence[Any]:
        parts = [slope(call, t) for slope, t in zip(slopes, (ta, tb), strict=True) if t is not None]
        return (None if not parts else parts[0] if len(parts) == 1 else add(*parts),)

    pair = saves if isinstance(saves, tuple) else (saves, saves)
    reads = [(tuple(k for k, x in enumerate("ab") if x in read), (0,) if "y" in read else ()) for read in pair]
    saved: dict[str, Any] = {"saved_operands": tuple(sorted({k for operands, _ in reads for k in operands}))}
    saved["saved_results"] = reads[0][1] or reads[1][1]
    saved["saved_for"] = () if reads[0] == reads[1] else tuple(reads)
    return _row(name, doc, among, ref, expr, arity=2, vjp=vjp, jvp=jvp, traits=traits, pairs=pairs, **saved)


def _predicate(
    name: str, doc: str, among: Among, numpy_name: str, intrinsic: str, arity: int, pairs: Pairs | None = None
) -> OpDef:
    """A row whose result is bool and which has no derivative."""

    def ref(xp: Any, *operands: Any) -> Any:
        return getattr(xp, numpy_name)(*operands)

    traits = "exact foldable"
    return _row(name, doc, among, ref, _fn(intrinsic), arity=arity, to_bool=True, traits=traits, pairs=pairs)


def _fn(name: str) -> Callable[..., L.Expr]:
    """The expression that applies one intrinsic."""
    return lambda *args: L.apply(name, *args)


def _lit(x: L.Expr, value: float) -> L.Expr:
    """`value` in the type of `x`."""
    return L.const(value, x.type)


# ---------------------------------------------------------------------------------- arithmetic

add: Final[OpDef] = _binary(
    "add", "a + b; integers wrap; on bool: or.", ANY,
    lambda xp, a, b: xp.add(a, b), _fn("add"),
    (lambda call, t: t, lambda call, t: t),
    traits="exact foldable commutative", pairs=C.add,
)  # fmt: skip
sub: Final[OpDef] = _binary(
    "sub", "a - b; integers wrap.", NUMERIC,
    lambda xp, a, b: xp.subtract(a, b), _fn("sub"),
    (lambda call, t: t, lambda call, t: neg(t)),
    traits="exact foldable", pairs=C.sub,
)  # fmt: skip
mul: Final[OpDef] = _binary(
    "mul", "a * b; integers wrap; on bool: and.", ANY,
    lambda xp, a, b: C.mul_ref(a, b) if a.dtype.kind == "c" else xp.multiply(a, b), _fn("mul"),
    (lambda call, t: mul(t, call.operands[1]), lambda call, t: mul(t, call.operands[0])),
    saves=("b", "a"), traits="exact foldable commutative", pairs=C.mul,
)  # fmt: skip
div: Final[OpDef] = _binary(
    "div", "a / b, IEEE. The derivative towards b is -(t / b) * y.", FLOATS,
    lambda xp, a, b: C.div_ref(a, b) if a.dtype.kind == "c" else xp.divide(a, b), _fn("div"),
    (lambda call, t: div(t, call.operands[1]), lambda call, t: neg(mul(div(t, call.operands[1]), call.results[0]))),
    saves=("b", "by"), traits="exact foldable", pairs=C.div,
)  # fmt: skip
neg: Final[OpDef] = _unary(
    "neg", "-a: the sign bit flipped; integers wrap.", NUMERIC,
    lambda xp, a: xp.negative(a), _fn("neg"),
    lambda call, t: neg(t),
    traits="exact foldable", pairs=C.neg,
)  # fmt: skip


def _sign_expr(x: L.Expr) -> L.Expr:
    one, zero, minus = (_lit(x, v) for v in (1, 0, -1))  # no unsigned number is below 0, whatever -1 is there
    return L.select(L.apply("gt", x, zero), one, L.select(L.apply("lt", x, zero), minus, zero))


abs_: Final[OpDef] = _unary(
    "abs", "|a|; integers wrap. The derivative at 0 is 0.", NUMERIC,
    lambda xp, a: xp.abs(a), _fn("abs"),
    lambda call, t: mul(t, sign(call.operands[0])),
    saves="x", traits="exact foldable",
)  # fmt: skip
sign: Final[OpDef] = _unary(
    "sign", "1, -1, or +0 where a is a zero or NaN. The derivative is 0.", NUMERIC,
    lambda xp, a: xp.where(a > 0, 1, xp.where(a < 0, -1, 0)).astype(a.dtype),
    _sign_expr,
    lambda call, t: full_like(t, 0.0),
    traits="exact foldable",
)  # fmt: skip
floor: Final[OpDef] = _unary(
    "floor", "The largest integer not above a. The derivative is 0.", FLOATS,
    lambda xp, a: xp.floor(a), _fn("floor"),
    lambda call, t: full_like(t, 0.0),
    traits="exact",
)  # fmt: skip
sqrt: Final[OpDef] = _unary(
    "sqrt", "The square root, correctly rounded; NaN below 0, -0 of -0. Derivative: t / (y + y).", FLOATS,
    lambda xp, a: C.sqrt_ref(a) if a.dtype.kind == "c" else xp.sqrt(a), _fn("sqrt"),
    lambda call, t: div(t, add(call.results[0], call.results[0])),
    saves="y", traits="exact foldable", pairs=C.sqrt,
)  # fmt: skip


# ---------------------------------------------------------------------------- scalar functions


def _erf_ref(xp: Any, a: Any) -> Any:
    wide = np.vectorize(math.erf, otypes=[np.float64])(np.asarray(a, np.float64)) if a.size else a
    return xp.asarray(wide).astype(a.dtype)


exp: Final[OpDef] = _unary(
    "exp", "e to the a (codegen/mathlib.py).", FLOATS,
    lambda xp, a: xp.exp(a), _fn("exp"),
    lambda call, t: mul(t, call.results[0]),
    saves="y", pairs=C.exp,
)  # fmt: skip
log: Final[OpDef] = _unary(
    "log", "The natural logarithm: -inf at 0, NaN below (codegen/mathlib.py).", FLOATS,
    lambda xp, a: xp.log(a), _fn("log"),
    lambda call, t: div(t, call.operands[0]),
    saves="x", pairs=C.log,
)  # fmt: skip
sin: Final[OpDef] = _unary(
    "sin", "The sine of a in radians; NaN at infinities (codegen/mathlib.py).", FLOATS,
    lambda xp, a: xp.sin(a), _fn("sin"),
    lambda call, t: mul(t, cos(call.operands[0])),
    saves="x", pairs=C.sin,
)  # fmt: skip
cos: Final[OpDef] = _unary(
    "cos", "The cosine of a in radians; NaN at infinities (codegen/mathlib.py).", FLOATS,
    lambda xp, a: xp.cos(a), _fn("cos"),
    lambda call, t: neg(mul(t, sin(call.operands[0]))),
    saves="x", pairs=C.cos,
)  # fmt: skip
tanh: Final[OpDef] = _unary(
    "tanh", "The hyperbolic tangent (codegen/mathlib.py). Derivative: t * (1 - y * y).", FLOATS,
    lambda xp, a: xp.tanh(a), _fn("tanh"),
    lambda call, t: mul(t, sub(full_like(t, 1.0), mul(call.results[0], call.results[0]))),
    saves="y", pairs=C.tanh,
)  # fmt: skip


def _erf_slope(call: Call, t: Any) -> Any:
    scaled = mul(t, full_like(t, 2 / math.sqrt(math.pi)))
    return mul(scaled, exp(neg(mul(call.operands[0], call.operands[0]))))


erf: Final[OpDef] = _unary(
    "erf", "The error function (codegen/mathlib.py). Derivative: (t * 2 / sqrt(pi)) * exp(-(a * a)).", FLOATS,
    _erf_ref, _fn("erf"),
    _erf_slope,
    saves="x",
)  # fmt: skip
sigmoid: Final[OpDef] = _unary(
    "sigmoid", "1 / (1 + exp(-a)) in these steps. Derivative: (t * (1 - y)) * y.", FLOATS,
    lambda xp, a: 1 / (1 + xp.exp(-a)),
    lambda x: L.apply("div", _lit(x, 1), L.add(_lit(x, 1), L.apply("exp", L.apply("neg", x)))),
    lambda call, t: mul(mul(t, sub(full_like(t, 1.0), call.results[0])), call.results[0]),
    saves="y", pairs=C.sigmoid,
)  # fmt: skip
relu: Final[OpDef] = _unary(
    "relu", "+0 where a <= 0, else a (so NaN stays). The derivative is 0 where a <= 0, else 1.", NUMERIC,
    lambda xp, a: xp.where(a <= 0, a.dtype.type(0), a),
    lambda x: L.select(L.apply("le", x, _lit(x, 0)), _lit(x, 0), x),
    lambda call, t: where(le(call.results[0], full_like(t, 0.0)), full_like(t, 0.0), t),
    saves="y", traits="exact foldable",
)  # fmt: skip


def _gelu_slope(call: Call, t: Any) -> Any:
    """t * (cdf(a) + a * pdf(a)), cdf = (erf(a / sqrt 2) + 1) / 2, pdf = exp(-a * a / 2) / sqrt(2 pi)."""
    a = call.operands[0]
    half = full_like(t, 0.5)
    cdf = mul(add(erf(mul(a, full_like(t, math.sqrt(0.5)))), full_like(t, 1.0)), half)
    pdf = mul(exp(neg(mul(mul(a, a), half))), full_like(t, 1 / math.sqrt(2 * math.pi)))
    return mul(t, add(cdf, mul(a, pdf)))


gelu: Final[OpDef] = _unary(
    "gelu", "(a * 0.5) * (erf(a * sqrt(1/2)) + 1) in these steps (Hendrycks and Gimpel, 2016).", FLOATS,
    lambda xp, a: (a * a.dtype.type(0.5)) * (_erf_ref(xp, a * a.dtype.type(math.sqrt(0.5))) + a.dtype.type(1)),
    lambda x: L.mul(L.mul(x, _lit(x, 0.5)), L.add(L.apply("erf", L.mul(x, _lit(x, math.sqrt(0.5)))), _lit(x, 1))),
    _gelu_slope,
    saves="x",
)  # fmt: skip


def _pow_base(call: Call, t: Any) -> Any:
    """t * (b * a ** (b - 1)), and 0 where b is 0 whatever a."""
    zero, b = full_like(t, 0.0), call.operands[1]
    return where(eq(b, zero), zero, mul(t, mul(b, pow_(call.operands[0], sub(b, full_like(t, 1.0))))))


def _pow_exponent(call: Call, t: Any) -> Any:
    """t * (y * log a), and 0 where a is 0 and b >= 0 (there y does not change with b)."""
    zero, a = full_like(t, 0.0), call.operands[0]
    still = eq(a, zero)
    if not a.ttype.dtype.is_complex:
        still = logical_and(still, ge(call.operands[1], zero))
    return where(still, zero, mul(t, mul(call.results[0], log(a))))


pow_: Final[OpDef] = _binary(
    "pow", "a to the b as C's pow: pow(x, 0) = pow(1, y) = 1 also for NaN (codegen/mathlib.py).", FLOATS,
    lambda xp, a, b: xp.power(a, b), _fn("pow"),
    (_pow_base, _pow_exponent),
    saves=("ab", "aby"), pairs=C.power,
)  # fmt: skip


# ------------------------------------------------------------------------------------- extrema


def _share(loses: str) -> Slope:
    """t where an operand wins, half of it at a tie, none where it `loses`; all beside a NaN (as torch)."""

    def slope(call: Call, t: Any) -> Any:
        a, b = call.operands
        tied = where(eq(a, b), mul(t, full_like(t, 0.5)), t)
        return where((lt if loses == "lt" else gt)(a, b), full_like(t, 0.0), tied)

    return slope


maximum: Final[OpDef] = _binary(
    "maximum", "a if a is NaN or a > b, else b: NaN wins. The derivative is shared evenly at ties.", ANY,
    lambda xp, a, b: xp.where((a > b) | (a != a), a, b), _fn("max"),
    (_share("lt"), _share("gt")),
    saves="ab", traits="exact foldable",
)  # fmt: skip
minimum: Final[OpDef] = _binary(
    "minimum", "a if a is NaN or a < b, else b: NaN wins. The derivative is shared evenly at ties.", ANY,
    lambda xp, a, b: xp.where((a < b) | (a != a), a, b), _fn("min"),
    (_share("gt"), _share("lt")),
    saves="ab", traits="exact foldable",
)  # fmt: skip


# --------------------------------------------------------------------------- comparison, logic
eq: Final[OpDef] = _predicate("eq", "a == b; false with a NaN.", ANY, "equal", "eq", 2, C.eq)
ne: Final[OpDef] = _predicate("ne", "a != b; true with a NaN.", ANY, "not_equal", "ne", 2, C.ne)
lt: Final[OpDef] = _predicate("lt", "a < b; false with a NaN; false < true.", ANY, "less", "lt", 2)
le: Final[OpDef] = _predicate("le", "a <= b; false with a NaN.", ANY, "less_equal", "le", 2)
gt: Final[OpDef] = _predicate("gt", "a > b; false with a NaN.", ANY, "greater", "gt", 2)
ge: Final[OpDef] = _predicate("ge", "a >= b; false with a NaN.", ANY, "greater_equal", "ge", 2)

logical_and: Final[OpDef] = _predicate("logical_and", "a and b, of bool.", BOOL, "logical_and", "and", 2)
logical_or: Final[OpDef] = _predicate("logical_or", "a or b, of bool.", BOOL, "logical_or", "or", 2)
logical_not: Final[OpDef] = _predicate("logical_not", "not a, of bool.", BOOL, "logical_not", "not", 1)


# ----------------------------------------------------------------------------------------- where


def _where_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    cond, t = operands[0], same_types("where", operands[1:], TENSOR_DTYPES)
    if cond.dtype is not bool_:
        raise OpTypeError("where", f"the condition is {cond.dtype}, not bool", "dtype")
    if cond.shape != t.shape:
        raise OpTypeError("where", f"the condition has type {cond}, the operands {t}")
    return (t,)


def _where_vjp(call: Call, g: Any) -> Sequence[Any]:
    zero, cond = full_like(g, 0.0), call.operands[0]
    _, a, b = call.needs
    return (None, where(cond, g, zero) if a else None, where(cond, zero, g) if b else None)


def _where_jvp(call: Call, tc: Any, ta: Any, tb: Any) -> Sequence[Any]:
    if ta is None and tb is None:
        return (None,)
    zero = full_like(tb if ta is None else ta, 0.0)
    return (where(call.operands[0], zero if ta is None else ta, zero if tb is None else tb),)


where: Final[OpDef] = _row(
    "where", "where(cond, a, b): a where cond, else b.", ANY,
    lambda xp, cond, a, b: xp.where(cond, a, b), L.select,
    arity=3, infer=_where_types, vjp=_where_vjp, jvp=_where_jvp, saved_operands=(0,), traits="exact foldable",
)  # fmt: skip
