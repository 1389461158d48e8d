"""More elementwise rows (see `elementwise.py`): rounding, remainders, bits, integer division and power."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, Dense, ElementContext, OpDef, quiet, register, same_types
from kiln.ir.ops.create import full_like
from kiln.ir.ops.elementwise import BOOL, FLOATS, INTS, div, mul, neg, sign
from kiln.ir.ops.elementwise import _binary as binary
from kiln.ir.ops.elementwise import _fn as fn
from kiln.ir.ops.elementwise import _lit as lit
from kiln.ir.ops.elementwise import _row as row
from kiln.ir.ops.elementwise import _unary as unary
from kiln.ir.types import TensorType, dtype_named, int64

BITS: Final = (*BOOL, *INTS)
WIDE_FLOATS: Final = tuple(d for d in FLOATS if not d.is_half)


def _flat(call: Call, t: Any) -> Any:
    """The slope of what is constant but for jumps."""
    return full_like(t, 0.0)


# ------------------------------------------------------------------------------------------ rounding


def _ceil(x: L.Expr) -> L.Expr:
    return L.apply("neg", L.apply("floor", L.apply("neg", x)))


def _trunc(x: L.Expr) -> L.Expr:
    return L.select(L.apply("lt", x, lit(x, 0)), _ceil(x), L.apply("floor", x))


ceil: Final[OpDef] = unary(
    "ceil", "The smallest integer not below a. The derivative is 0.", FLOATS,
    lambda xp, a: xp.ceil(a), _ceil, _flat, traits="exact foldable",
)  # fmt: skip
trunc: Final[OpDef] = unary(
    "trunc", "a without its fraction. The derivative is 0.", FLOATS,
    lambda xp, a: xp.trunc(a), _trunc, _flat, traits="exact foldable",
)  # fmt: skip
round_: Final[OpDef] = unary(
    "round", "The nearest integer, the even one of two. The derivative is 0.", FLOATS,
    lambda xp, a: xp.rint(a), fn("rint"), _flat, traits="exact foldable",
)  # fmt: skip


# ------------------------------------------------------------------------------------------ remainders


def _remainder(a: L.Expr, b: L.Expr) -> L.Expr:
    rest = L.apply("fmod", a, b)
    return L.select(_wrong_side(rest, b), L.add(rest, b), rest)


def _wrong_side(rest: L.Expr, b: L.Expr) -> L.Expr:
    """Whether a remainder that is not 0 has the other sign than the divisor."""
    zero = lit(b, 0)
    other = L.apply("ne", L.apply("lt", rest, zero), L.apply("lt", b, zero))
    return L.apply("and", L.apply("ne", rest, zero), other)


def _remainder_ref(xp: Any, a: Any, b: Any) -> Any:
    rest = xp.fmod(a, b)
    return xp.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


def _floor_divide(a: L.Expr, b: L.Expr) -> L.Expr:
    """CPython's way (floatobject.c): the quotient of what fmod leaves is an integer up to rounding."""
    zero, one = lit(b, 0), lit(b, 1)
    rest = L.apply("fmod", a, b)
    quotient = L.apply("div", L.sub(a, rest), b)
    quotient = L.select(_wrong_side(rest, b), L.sub(quotient, one), quotient)
    whole = L.apply("floor", quotient)
    whole = L.select(L.apply("gt", L.sub(quotient, whole), lit(b, 0.5)), L.add(whole, one), whole)
    plain = L.apply("div", a, b)
    whole = L.select(L.apply("eq", quotient, zero), _copysign(zero, plain), whole)
    return L.select(L.apply("eq", b, zero), plain, whole)


def _floor_divide_ref(xp: Any, a: Any, b: Any) -> Any:
    rest = xp.fmod(a, b)
    quotient = (a - rest) / b
    quotient = xp.where((rest != 0) & ((rest < 0) != (b < 0)), quotient - 1, quotient)
    whole = xp.floor(quotient)
    whole = xp.where(quotient - whole > 0.5, whole + 1, whole)
    whole = xp.where(quotient == 0, xp.copysign(a.dtype.type(0), a / b), whole)
    return xp.where(b == 0, a / b, whole)


def _copysign(a: L.Expr, b: L.Expr) -> L.Expr:
    word = dtype_named(f"int{a.dtype.bits}")
    top = L.const(-(1 << (word.bits - 1)), L.Vec(word, a.lanes))
    magnitude = L.apply("and", L.bitcast(a, word), L.apply("not", top))
    return L.bitcast(L.apply("or", magnitude, L.apply("and", L.bitcast(b, word), top)), a.dtype)


floor_divide: Final[OpDef] = binary(
    "floor_divide", "floor(a / b), by the exact remainder; a / b where b is 0. The derivative is 0.", FLOATS,
    _floor_divide_ref, _floor_divide, (_flat, _flat), traits="exact",
)  # fmt: skip
fmod: Final[OpDef] = binary(
    "fmod", "a - b * trunc(a / b), exactly; the sign of a; NaN where b is 0 or a infinite.", FLOATS,
    lambda xp, a, b: xp.fmod(a, b), fn("fmod"),
    (lambda call, t: t, lambda call, t: neg(mul(t, trunc(div(*call.operands))))),
    saves=("", "ab"), traits="exact",
)  # fmt: skip
remainder: Final[OpDef] = binary(
    "remainder", "fmod(a, b), plus b where that has the other sign than b.", FLOATS,
    _remainder_ref, _remainder,
    (lambda call, t: t, lambda call, t: neg(mul(t, floor_divide(*call.operands)))),
    saves=("", "ab"), traits="exact",
)  # fmt: skip


# -------------------------------------------------------------------------------------- signs and neighbours


def _copysign_slope(call: Call, t: Any) -> Any:
    """t where the sign stays, -t where it turns, 0 at 0."""
    return mul(t, mul(sign(call.operands[0]), sign(call.results[0])))


copysign: Final[OpDef] = binary(
    "copysign", "|a| with the sign bit of b. The derivative at a = 0 is 0.", FLOATS,
    lambda xp, a, b: xp.copysign(a, b), _copysign, (_copysign_slope, _flat),
    saves=("ay", ""), traits="exact",
)  # fmt: skip


def _nextafter(a: L.Expr, b: L.Expr) -> L.Expr:
    word = dtype_named(f"int{a.dtype.bits}")
    bits, zero = L.bitcast(a, word), lit(a, 0)
    one, minus = (L.const(v, bits.type) for v in (1, -1))
    away = L.apply("eq", L.apply("lt", a, b), L.apply("lt", zero, a))
    moved = L.bitcast(L.add(bits, L.select(away, one, minus)), a.dtype)
    moved = L.select(L.apply("eq", a, zero), _copysign(L.bitcast(one, a.dtype), b), moved)
    moved = L.select(L.apply("eq", a, b), b, moved)
    return L.select(L.apply("eq", a, a), L.select(L.apply("eq", b, b), moved, b), a)


nextafter: Final[OpDef] = row(
    "nextafter", "The number next to a on the way to b; b where they are equal.", WIDE_FLOATS,
    lambda xp, a, b: xp.nextafter(a, b), _nextafter, arity=2, traits="exact",
)  # fmt: skip


# ------------------------------------------------------------------------------------------------ bits

bitwise_and: Final[OpDef] = row(
    "bitwise_and", "a & b; of bool: and.", BITS,
    lambda xp, a, b: xp.bitwise_and(a, b), fn("and"), arity=2, traits="exact foldable commutative",
)  # fmt: skip
bitwise_or: Final[OpDef] = row(
    "bitwise_or", "a | b; of bool: or.", BITS,
    lambda xp, a, b: xp.bitwise_or(a, b), fn("or"), arity=2, traits="exact foldable commutative",
)  # fmt: skip
bitwise_xor: Final[OpDef] = row(
    "bitwise_xor", "a ^ b; of bool: whether they differ.", BITS,
    lambda xp, a, b: xp.bitwise_xor(a, b), fn("xor"), arity=2, traits="exact foldable commutative",
)  # fmt: skip
bitwise_not: Final[OpDef] = row(
    "bitwise_not", "~a; of bool: not.", BITS,
    lambda xp, a: xp.invert(a), fn("not"), arity=1, traits="exact foldable",
)  # fmt: skip


def _inside(amount: L.Expr) -> L.Expr:
    """Whether a shift amount lies below the width (and is not negative)."""
    low = L.apply("ge", amount, lit(amount, 0))
    return L.apply("and", low, L.apply("lt", amount, lit(amount, amount.dtype.bits)))


def _shift_left(a: L.Expr, b: L.Expr) -> L.Expr:
    ok = _inside(b)
    return L.select(ok, L.apply("shl", a, L.select(ok, b, lit(b, 0))), lit(a, 0))


def _shift_right(a: L.Expr, b: L.Expr) -> L.Expr:
    ok = _inside(b)
    rest = L.apply("shr", a, lit(a, a.dtype.bits - 1)) if a.dtype.kind == "int" else lit(a, 0)
    return L.select(ok, L.apply("shr", a, L.select(ok, b, lit(b, 0))), rest)


def _shift_ref(name: str) -> Callable[..., Any]:
    def ref(xp: Any, a: Any, b: Any) -> Any:
        width = 8 * a.itemsize
        ok = (b >= 0) & (b < width)
        shifted = getattr(xp, name)(a, xp.where(ok, b, 0).astype(a.dtype))
        outside = xp.where(a < 0, -1, 0) if name == "right_shift" else xp.zeros_like(a)
        return xp.where(ok, shifted, outside.astype(a.dtype))

    return ref


shift_left: Final[OpDef] = row(
    "shift_left", "a << b; 0 where b is negative or not below the width.", INTS,
    _shift_ref("left_shift"), _shift_left, arity=2, traits="exact",
)  # fmt: skip
shift_right: Final[OpDef] = row(
    "shift_right", "a >> b, keeping the sign; as if by the whole width where b is negative or not below it.", INTS,
    _shift_ref("right_shift"), _shift_right, arity=2, traits="exact",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- integers


def _divided(
    name: str, doc: str, ref: Callable[[Any, Any, Any], Any], expr: Callable[[L.Expr, L.Expr], L.Expr]
) -> OpDef:
    """A division of integers, which checks that the divisor is not 0."""

    def infer(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        return (same_types(name, operands, INTS),)

    def element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
        a, b = ctx.read(0, index), ctx.read(1, index)
        ctx.check(L.apply("ne", b, lit(b, 0)), "zero", "an integer was divided by zero", L.cast(b, int64))
        return expr(a, b)

    def checked(xp: Any, a: Any, b: Any) -> Any:
        if not b.all():
            raise ZeroDivisionError(f"{name}: an integer was divided by zero")
        return ref(xp, a, b)

    traits = frozenset({"elementwise", "exact", "check"})
    return register(OpDef(name, doc, infer, quiet(checked), Dense(element, pointwise=True), traits=traits, arity=2))


def _least_by_minus_one(xp: Any, a: Any, b: Any) -> Any:
    """Where a quotient wraps (NumPy leaves that open)."""
    return (b == -1) if a.dtype.kind == "i" else xp.zeros(b.shape, bool)


def _floor_div_int_ref(xp: Any, a: Any, b: Any) -> Any:
    wraps = _least_by_minus_one(xp, a, b)
    return xp.where(wraps, xp.negative(a), xp.floor_divide(a, xp.where(wraps, 1, b).astype(a.dtype)))


def _remainder_int_ref(xp: Any, a: Any, b: Any) -> Any:
    return (a - _floor_div_int_ref(xp, a, b) * b).astype(a.dtype)


def _fmod_int_ref(xp: Any, a: Any, b: Any) -> Any:
    return (a - _trunc_div_int_ref(xp, a, b) * b).astype(a.dtype)


def _trunc_div_int_ref(xp: Any, a: Any, b: Any) -> Any:
    down = _floor_div_int_ref(xp, a, b)
    rest = (a - down * b).astype(a.dtype)
    return (down + ((rest != 0) & ((a < 0) != (b < 0)))).astype(a.dtype)


def _floor_div_int(a: L.Expr, b: L.Expr) -> L.Expr:
    quotient, rest = L.apply("div", a, b), L.apply("mod", a, b)
    return L.select(_wrong_side(rest, b), L.apply("sub", quotient, lit(b, 1)), quotient)


def _remainder_int(a: L.Expr, b: L.Expr) -> L.Expr:
    rest = L.apply("mod", a, b)
    return L.select(_wrong_side(rest, b), L.apply("add", rest, b), rest)


floor_divide_int: Final[OpDef] = _divided(
    "floor_divide_int", "floor(a / b) of integers (wrapping). A divisor 0 is an error.",
    _floor_div_int_ref, _floor_div_int,
)  # fmt: skip
trunc_divide_int: Final[OpDef] = _divided(
    "trunc_divide_int", "a / b of integers, cut towards 0 (wrapping). A divisor 0 is an error.",
    _trunc_div_int_ref, fn("div"),
)  # fmt: skip
remainder_int: Final[OpDef] = _divided(
    "remainder_int", "a - b * floor(a / b) of integers. A divisor 0 is an error.", _remainder_int_ref, _remainder_int
)
fmod_int: Final[OpDef] = _divided(
    "fmod_int", "a - b * trunc(a / b) of integers. A divisor 0 is an error.", _fmod_int_ref, fn("mod")
)


def _pow_int(a: L.Expr, b: L.Expr) -> L.Expr:
    """By squaring, over all bits of the exponent; of negative powers only those of 1 and -1 are integers."""
    zero, one, minus = (lit(a, v) for v in (0, 1, -1))
    odd = L.apply("ne", L.apply("and", b, one), zero)
    result, square = L.select(odd, a, one), a
    for k in range(1, b.dtype.bits - (b.dtype.kind == "int")):
        square = L.apply("mul", square, square)
        bit = L.apply("ne", L.apply("and", L.apply("shr", b, lit(b, k)), one), zero)
        result = L.select(bit, L.apply("mul", result, square), result)
    if b.dtype.kind != "int":
        return result
    unit = L.select(L.apply("eq", a, minus), L.select(odd, minus, one), L.select(L.apply("eq", a, one), one, zero))
    return L.select(L.apply("lt", b, zero), unit, result)


def _pow_int_ref(xp: Any, a: Any, b: Any) -> Any:
    def one(x: int, n: int) -> int:
        if n >= 0:
            power: int = pow(x, n, modulus)
            return power
        return {1: 1, -1: -1 if n % 2 else 1}.get(x, 0) % modulus

    modulus: int = 1 << 8 * a.itemsize
    powers = [one(int(x), int(n)) for x, n in zip(a.ravel(), b.ravel(), strict=True)]
    return np.array(powers, np.uint64).astype(f"u{a.itemsize}").view(a.dtype).reshape(a.shape)


pow_int: Final[OpDef] = row(
    "pow_int", "a to the b of integers (wrapping); of negative b: 0, but for a = 1 and -1.", INTS,
    _pow_int_ref, _pow_int, arity=2, traits="exact",
)  # fmt: skip
