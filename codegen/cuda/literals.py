"""Dtypes and literals in CUDA C."""

from __future__ import annotations

import math
from typing import Final

from kiln.ir import types as T
from kiln.ir.halves import bits_of
from kiln.ir.loops import Const
from kiln.ir.types import DType

C_TYPES: Final[dict[DType, str]] = {
    T.bool_: "bool",
    T.int8: "signed char",
    T.int16: "short",
    T.uint8: "unsigned char",
    T.uint16: "unsigned short",
    T.int32: "int",
    T.int64: "long long",
    T.uint32: "unsigned int",
    T.uint64: "unsigned long long",
    T.float16: "unsigned short",
    T.bfloat16: "unsigned short",
    T.float32: "float",
    T.float64: "double",
    T.complex64: "float2",
    T.complex128: "double2",
}


def literal(c: Const) -> str:
    """A C literal of exactly this value; floats in hexadecimal."""
    v = c.value
    match c.dtype.name:
        case "bool":
            return "true" if v else "false"
        case "int64":
            return f"{v}ll" if v != -(2**63) else "(-9223372036854775807ll - 1)"
        case "int8" | "int16" | "uint8" | "uint16":
            return f"({C_TYPES[c.dtype]}){v}"
        case "int32":
            return str(v) if v != -(2**31) else "(-2147483647 - 1)"
        case "uint32":
            return f"{v}u"
        case "uint64":
            return f"{v}ull"
        case "float16" | "bfloat16":
            return f"(unsigned short){bits_of(v, c.dtype):#x}"
    x, single = float(v), c.dtype is T.float32
    if math.isnan(x):
        return "__int_as_float(0x7fc00000)" if single else "__longlong_as_double(0x7ff8000000000000ll)"
    if math.isinf(x):
        bits = ("0x7f800000" if x > 0 else "(int)0xff800000u") if single else ""
        wide = "0x7ff0000000000000ll" if x > 0 else "(long long)0xfff0000000000000ull"
        return f"__int_as_float({bits})" if single else f"__longlong_as_double({wide})"
    short = repr(x)
    if (x == int(x) and abs(x) < 1e6) or len(short) <= 6:
        text = short
    else:
        text = x.hex()
    return text + ("f" if single else "")
