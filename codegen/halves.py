"""The 16-bit floats in kernels: held as bits, widened to float32 exactly, rounded back once (to nearest even).

This is kiln's own integer code on every target: LLVM's conversions call a runtime library on some CPUs, and flush
denormals on others. Denormals are kept, NaN stays NaN. Only widening float16 may be left to the machine, where it has
an exact instruction for it. `ir/halves.py` says the same in other words for NumPy; tests hold the two against each
other on every float16 and bfloat16, and on float32 and float64 around every boundary.
"""

from __future__ import annotations

from typing import Final

from kiln.ir import loops as L
from kiln.ir.loops import Apply, Expr, Vec
from kiln.ir.types import DType, bfloat16, float16, float32, float64, uint16, uint32

_INFINITY: Final = 0x7F800000  # of float32


def is_conversion(e: Expr) -> bool:
    """Whether `e` converts from or to a 16-bit float."""
    return isinstance(e, Apply) and e.fn == "cast" and (e.dtype.is_half or e.args[0].dtype.is_half)


def expand(e: Expr, widens: bool = False) -> Expr:
    """A conversion from or to a 16-bit float out of other intrinsics; others go by way of float32, but float64 is
    rounded once. With `widens` the target widens float16 by itself."""
    assert isinstance(e, Apply)
    (x,) = e.args
    if x.dtype is e.dtype:
        return x
    if x.dtype.is_half:
        wide = Apply(Vec(float32, x.lanes), "cast", (x,)) if widens and x.dtype is float16 else widened(x)
        return narrowed(wide, e.dtype) if e.dtype.is_half else L.cast(wide, e.dtype)
    single = to_odd(x) if x.dtype is float64 else L.cast(x, float32)
    return narrowed(single, e.dtype)


def _u(value: int, like: Expr) -> Expr:
    return L.const(value, like.type)


def _and(a: Expr, mask: int) -> Expr:
    return L.apply("and", a, _u(mask, a))


def _or(a: Expr, b: Expr) -> Expr:
    return L.apply("or", a, b)


def _shl(a: Expr, n: int) -> Expr:
    return L.apply("shl", a, _u(n, a))


def _shr(a: Expr, n: int) -> Expr:
    return L.apply("shr", a, _u(n, a))


def widened(x: Expr) -> Expr:
    """A 16-bit float as float32. bfloat16 is its upper half. A float16 is scaled: its bits, moved to where float32 has
    exponent and fraction, are 2**-112 times its value, denormal or not."""
    bits = L.cast(L.bitcast(x, uint16), uint32)
    if x.dtype is bfloat16:
        return L.bitcast(_shl(bits, 16), float32)
    moved = _shl(_and(bits, 0x7FFF), 13)
    scaled = L.apply("mul", L.bitcast(moved, float32), L.const(2.0**112, Vec(float32, x.lanes)))
    odd = L.apply("ge", moved, _u(0x7C00 << 13, moved))  # infinity, NaN
    value = L.select(odd, _or(moved, _u(_INFINITY, moved)), L.bitcast(scaled, uint32))
    return L.bitcast(_or(value, _shl(_and(bits, 0x8000), 16)), float32)


def narrowed(x: Expr, dtype: DType) -> Expr:
    """A float32 as the nearest 16-bit float."""
    bits = L.bitcast(x, uint32)
    found = _to_bfloat16(x, bits) if dtype is bfloat16 else _to_float16(bits)
    return L.bitcast(L.cast(found, uint16), dtype)


def _to_bfloat16(x: Expr, bits: Expr) -> Expr:
    """Adding just under half a unit, and one more if the unit is odd, carries into the upper half when it rounds up."""
    odd = _and(_shr(bits, 16), 1)
    rounded = L.add(L.add(bits, _u(0x7FFF, bits)), odd)
    return _shr(L.select(L.apply("ne", x, x), _or(bits, _u(0x400000, bits)), rounded), 16)


def _to_float16(bits: Expr) -> Expr:
    """Normal numbers as above, with another bias; below 2**-14 an addition to 0.5, whose last place is float16's
    smallest number, rounds; from 2**16 on, and what rounds to it, is infinity."""
    sign, size = _and(_shr(bits, 16), 0x8000), _and(bits, 0x7FFFFFFF)
    odd = _and(_shr(size, 13), 1)
    normal = _shr(L.add(L.sub(size, _u((112 << 23) - 0xFFF, size)), odd), 13)
    half = L.const(0.5, Vec(float32, bits.lanes))
    small = L.sub(L.bitcast(L.apply("add", L.bitcast(size, float32), half), uint32), L.bitcast(half, uint32))
    nan = L.apply("gt", size, _u(_INFINITY, size))
    large = L.select(nan, _u(0x7E00, size), _u(0x7C00, size))
    found = L.select(L.apply("lt", size, _u(113 << 23, size)), small, normal)
    return _or(L.select(L.apply("ge", size, _u(143 << 23, size)), large, found), sign)


def to_odd(x: Expr) -> Expr:
    """A float64 as float32, cut towards zero with the last bit set unless that is exact ("round to odd"): rounding that
    once more to a float with fewer digits gives what rounding `x` itself would (Boldo and Melquiond, 2008)."""
    near = L.cast(x, float32)
    back = L.cast(near, float64)
    inexact = L.cast(L.apply("ne", back, x), uint32)
    beyond = L.cast(L.apply("gt", L.apply("abs", back), L.apply("abs", x)), uint32)
    return L.bitcast(_or(L.sub(L.bitcast(near, uint32), beyond), inexact), float32)
