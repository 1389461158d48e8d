"""Philox4x32-10 as loop-IR integer arithmetic, and numbers made of its words.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Final

from kiln.ir import loops as L
from kiln.ir.halves import PARAMETERS
from kiln.ir.loops import Expr, Vec
from kiln.ir.types import DType, float32, uint32, uint64

Words = tuple[Expr, Expr, Expr, Expr]
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
ROUNDS: Final = 10


def _halves(x: Expr) -> tuple[Expr, Expr]:
    """The low and high 32 bits of a 64-bit integer."""
    wide = L.bitcast(x, uint64)
    return L.cast(wide, uint32), L.cast(L.apply("shr", wide, L.const(32, wide.type)), uint32)


def _product(a: int, x: Expr) -> tuple[Expr, Expr]:
    """The low and high word of a 32 x 32 bit product."""
    wide = L.cast(x, uint64)
    return _halves(L.apply("mul", wide, L.const(a, wide.type)))


def philox(counter: Expr, key: Expr) -> Words:
    """Four uint32 words of an int64 counter (the low words of the 128-bit counter) and an int64 key."""
    x0, x1 = _halves(counter)
    zero: Expr = L.const(0, x0.type)
    x2, x3 = zero, zero
    k0, k1 = _halves(key)
    for r in range(ROUNDS):
        if r:
            k0 = L.apply("add", k0, L.const(_WEYL[0], k0.type))
            k1 = L.apply("add", k1, L.const(_WEYL[1], k1.type))
        low0, high0 = _product(_MULTIPLIERS[0], x0)
        low1, high1 = _product(_MULTIPLIERS[1], x2)
        x0, x1, x2, x3 = (
            L.apply("xor", L.apply("xor", high1, x1), k0),
            low1,
            L.apply("xor", L.apply("xor", high0, x3), k1),
            low0,
        )
    return x0, x1, x2, x3


def _fraction(high: Expr, low: Expr, dtype: DType) -> Expr:
    """24 bits of `high` (8 for bfloat16, 11 for float16), or 53 bits of both words, as a fraction: exact, in [0, 1)."""
    if dtype.is_half:
        digits = PARAMETERS[dtype.name][0] + 1
        top = L.apply("shr", high, L.const(32 - digits, high.type))
        return L.apply("mul", L.cast(top, float32), L.const(2.0**-digits, Vec(float32, high.lanes)))
    if dtype is float32:
        top = L.apply("shr", high, L.const(8, high.type))
        return L.apply("mul", L.cast(top, dtype), L.const(2.0**-24, Vec(dtype, high.lanes)))
    wide, rest = L.cast(high, uint64), L.cast(low, uint64)
    joined = L.apply("or", L.apply("shl", wide, L.const(21, wide.type)), L.apply("shr", rest, L.const(11, rest.type)))
    return L.apply("mul", L.cast(joined, dtype), L.const(2.0**-53, Vec(dtype, high.lanes)))


def uniform(words: Words, dtype: DType) -> Expr:
    """A number in [0, 1): 24 bits of the first word for float32, 53 bits of the first two for float64."""
    return _fraction(words[0], words[1], dtype)


def normal(words: Words, dtype: DType) -> Expr:
    """A standard normal number by Box and Muller (1958): sqrt(-2 log u1) cos(2 pi u2), u1 in (0, 1]. For 16-bit floats
    it is float32's, to be rounded."""
    dtype = float32 if dtype.is_half else dtype
    w0, w1, w2, w3 = words
    first, second = ((w0, w0), (w1, w1)) if dtype is float32 else ((w0, w1), (w2, w3))
    u1 = _fraction(*first, dtype)
    u1 = L.apply("add", u1, L.const(2.0**-24 if dtype is float32 else 2.0**-53, u1.type))
    u2 = _fraction(*second, dtype)
    radius = L.apply("sqrt", L.apply("mul", L.const(-2.0, u1.type), L.apply("log", u1)))
    return L.apply("mul", radius, L.apply("cospi", L.apply("add", u2, u2)))
