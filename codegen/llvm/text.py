"""Spelling of LLVM IR: types, constants, function attributes."""

from __future__ import annotations

import math
import struct
from typing import Final

from kiln.ir.halves import bits_of
from kiln.ir.loops import Vec
from kiln.ir.target import Target
from kiln.ir.types import DType

_SCALARS: Final = {"float32": "float", "float64": "double", "bool": "i1"}
_SUFFIX: Final = {"float": "f32", "double": "f64"}
BITS: Final = {"float": 32, "double": 64, "i8": 8, "i16": 16, "i32": 32, "i64": 64}
"""How wide an element of a vector in memory is."""


def scalar_type(dtype: DType) -> str:
    """The register type of one element; bool is i1 in registers and i8 in memory, 16-bit floats are bits. A complex
    number is a vector of its parts."""
    if dtype.is_complex:
        return f"<2 x {scalar_type(dtype.part)}>"
    return _SCALARS.get(dtype.name) or f"i{dtype.bits}"


def llvm_type(vec: Vec) -> str:
    """`<16 x float>`, or the element type for one lane. Lanes of complex numbers are one vector of all parts, real and
    imaginary ones in turn."""
    if vec.dtype.is_complex:
        return f"<{2 * vec.lanes} x {scalar_type(vec.dtype.part)}>"
    scalar = scalar_type(vec.dtype)
    return scalar if vec.lanes == 1 else f"<{vec.lanes} x {scalar}>"


def memory_type(vec: Vec) -> str:
    """The type that is loaded and stored."""
    if vec.dtype.is_complex:
        return llvm_type(vec)
    scalar = "i8" if vec.dtype.kind == "bool" else scalar_type(vec.dtype)
    return scalar if vec.lanes == 1 else f"<{vec.lanes} x {scalar}>"


def mangled(type_text: str) -> str:
    """A type as intrinsics spell it in their names: `<16 x float>` is v16f32."""
    if type_text.startswith("<"):
        lanes, _, element = type_text[1:-1].partition(" x ")
        return f"v{lanes}{_SUFFIX.get(element, element if element != 'ptr' else 'p0')}"
    return _SUFFIX.get(type_text, type_text)


def alignment(dtype: DType) -> int:
    """How the elements of a type lie in memory: complex numbers like their parts."""
    return dtype.part.itemsize


def constant(vec: Vec, value: int | float | bool) -> str:
    """A literal of exactly this value."""
    if vec.lanes > 1:
        one = Vec(vec.dtype)
        return f"splat ({scalar_type(vec.dtype)} {constant(one, value)})"
    if vec.dtype.is_half:
        return str(bits_of(value, vec.dtype))
    if vec.dtype.is_floating_point:
        if math.isnan(value):
            return "0x7FF8000000000000"
        return f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"
    if vec.dtype.kind == "bool":
        return "true" if value else "false"
    return str(int(value))


def function_attributes(target: Target) -> str:
    """Attributes of every kernel function."""
    if target.vector_bits < 512:
        return "nounwind"
    return 'nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512"'
