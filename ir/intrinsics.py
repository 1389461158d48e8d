"""The intrinsics of the loop IR: names, arities, result types and definitions.

Each is total: what C leaves undefined has one stated result here, and evaluator, LLVM text and CUDA text follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """arity and result rule of an intrinsic ("same": as the operands, "bool", "given", "part" of a complex type, or
    "pair": the complex type that such parts make), and its definition."""

    arity: int
    result: str
    doc: str


INTRINSICS: Final[dict[str, Intrinsic]] = {
    "add": Intrinsic(2, "same", "IEEE, or wrapping integer; on bool: or"),
    "sub": Intrinsic(2, "same", "IEEE, or wrapping integer"),
    "mul": Intrinsic(2, "same", "IEEE, or wrapping integer; on bool: and"),
    "div": Intrinsic(2, "same", "IEEE; integers: C's truncation, x/0 = 0, INT_MIN/-1 = INT_MIN"),
    "mod": Intrinsic(2, "same", "integers only: C's remainder, x%0 = 0, INT_MIN%-1 = 0"),
    "neg": Intrinsic(1, "same", "flips the sign bit; integers wrap"),
    "abs": Intrinsic(1, "same", "clears the sign bit; integers wrap"),
    "sqrt": Intrinsic(1, "same", "IEEE"),
    "fma": Intrinsic(3, "same", "a * b + c rounded once"),
    "rint": Intrinsic(1, "same", "to the nearest integer, ties to even"),
    "floor": Intrinsic(1, "same", "towards -inf"),
    "max": Intrinsic(2, "same", "a if a is NaN, else a if a > b, else b"),
    "min": Intrinsic(2, "same", "a if a is NaN, else a if a < b, else b"),
    "eq": Intrinsic(2, "bool", "ordered equal"),
    "ne": Intrinsic(2, "bool", "unordered or unequal"),
    "lt": Intrinsic(2, "bool", "ordered; signedness by dtype; false < true"),
    "le": Intrinsic(2, "bool", "ordered"),
    "gt": Intrinsic(2, "bool", "ordered"),
    "ge": Intrinsic(2, "bool", "ordered"),
    "and": Intrinsic(2, "same", "bitwise, or logical on bool"),
    "or": Intrinsic(2, "same", "bitwise, or logical on bool"),
    "xor": Intrinsic(2, "same", "bitwise, or logical on bool"),
    "not": Intrinsic(1, "same", "bitwise, or logical on bool"),
    "shl": Intrinsic(2, "same", "left shift; amounts are below the width"),
    "shr": Intrinsic(2, "same", "right shift: arithmetic on int, logical on uint; amounts below the width"),
    "select": Intrinsic(3, "second", "args: bool condition, a, b"),
    "cast": Intrinsic(
        1,
        "given",
        "value conversion: float to integer truncates, NaN and out of range give the minimum; anything to bool "
        "is != 0; integers wrap; int to float rounds to nearest even",
    ),
    "bitcast": Intrinsic(1, "given", "same bits, same width"),
    "real": Intrinsic(1, "part", "the first part of a complex number"),
    "imag": Intrinsic(1, "part", "the second part of a complex number"),
    "complex": Intrinsic(2, "pair", "the complex number of two parts"),
    # Functions of ir/ops rows, expanded by codegen/mathlib.py into the above (one definition per dtype):
    "exp": Intrinsic(1, "same", "see mathlib"),
    "log": Intrinsic(1, "same", "see mathlib"),
    "tanh": Intrinsic(1, "same", "see mathlib"),
    "erf": Intrinsic(1, "same", "see mathlib"),
    "sin": Intrinsic(1, "same", "see mathlib"),
    "cos": Intrinsic(1, "same", "see mathlib"),
    "cospi": Intrinsic(1, "same", "see mathlib"),
    "pow": Intrinsic(2, "same", "see mathlib"),
    "fmod": Intrinsic(2, "same", "see mathlib"),
    "log1p": Intrinsic(1, "same", "see mathlib_more"),
    "log2": Intrinsic(1, "same", "see mathlib_more"),
    "log10": Intrinsic(1, "same", "see mathlib_more"),
    "exp2": Intrinsic(1, "same", "see mathlib_more"),
    "expm1": Intrinsic(1, "same", "see mathlib_more"),
    "sinh": Intrinsic(1, "same", "see mathlib_more"),
    "cosh": Intrinsic(1, "same", "see mathlib_more"),
    "asinh": Intrinsic(1, "same", "see mathlib_more"),
    "acosh": Intrinsic(1, "same", "see mathlib_more"),
    "atanh": Intrinsic(1, "same", "see mathlib_more"),
    "atan": Intrinsic(1, "same", "see mathlib_more"),
    "asin": Intrinsic(1, "same", "see mathlib_more"),
    "acos": Intrinsic(1, "same", "see mathlib_more"),
    "erfc": Intrinsic(1, "same", "see mathlib_more"),
    "atan2": Intrinsic(2, "same", "see mathlib_more"),
    "sinpi": Intrinsic(1, "same", "see gamma"),
    "erfinv": Intrinsic(1, "same", "see gamma"),
    "lgamma": Intrinsic(1, "same", "see gamma"),
    "digamma": Intrinsic(1, "same", "see gamma"),
}

MATH_FUNCTIONS: Final = frozenset(name for name, each in INTRINSICS.items() if each.doc.startswith("see "))
"""The functions that codegen/mathlib.py, mathlib_more.py and gamma.py define."""
