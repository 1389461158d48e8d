"""Conversions between NumPy arrays of any element types, as kiln defines them (docs/numerics.md).

NumPy and ml_dtypes only hold the 16-bit floats here. Rounding to them is done once, from the float32 or float64 that
is there (ml_dtypes would round float64 to float32 first), to nearest even, by scaling and `rint`: plain and exact. The
code that kernels run is another one (`codegen/halves.py`); tests hold the two against each other.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from kiln.ir.types import DType

Array = np.ndarray[Any, Any]

PARAMETERS: Final = {"float16": (10, -14, 65504.0), "bfloat16": (7, -126, float.fromhex("0x1.fep127"))}
"""Digits behind the leading one, the least exponent of normal numbers, and the largest number of a 16-bit float."""


def nearest(x: Array, dtype: DType) -> Array:
    """The floats of `x` rounded once to the values of the 16-bit `dtype`, as float64."""
    digits, least, most = PARAMETERS[dtype.name]
    with np.errstate(all="ignore"):
        wide = np.asarray(x, np.float64)
        scale = np.maximum(np.frexp(wide)[1] - 1, least) - digits
        value = np.ldexp(np.rint(np.ldexp(wide, -scale)), scale)
        value = np.where(np.isfinite(wide), value, wide)
        return np.where(np.abs(value) > most, np.copysign(np.inf, wide), value)


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether NumPy's `dtype` is one of the 16-bit floats."""
    return dtype.name in PARAMETERS


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether NumPy's `dtype` is a floating-point one (whose kind is not "f" for bfloat16)."""
    return dtype.kind == "f" or is_half(dtype)


def widened(x: Array) -> Array:
    """A 16-bit float array as float32, exactly; other arrays as they are."""
    if x.dtype.name == "bfloat16":
        return (np.ascontiguousarray(x).view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(x.shape)
    return x.astype(np.float32) if x.dtype.name == "float16" else x


def converted(x: Array, dtype: DType) -> Array:
    """A copy of `x` as `dtype`: integers wrap, integers become 16-bit floats by way of float32. Floats that do not fit
    an integer type are the caller's business."""
    x = np.asarray(x)
    if x.dtype == dtype.numpy:
        return x.copy()
    x = widened(x)
    if x.dtype.kind == "c" and not dtype.is_complex:
        x = x.real
    with np.errstate(all="ignore"):  # infinity is a result, and a signalling NaN one too
        if not dtype.is_half:
            return x.astype(dtype.numpy, copy=True)
        exact = nearest(x if x.dtype.kind == "f" else x.astype(np.float32), dtype).astype(np.float32)
    if dtype.name == "float16":
        return exact.astype(np.float16)
    return np.asarray((exact.view(np.uint32) >> 16).astype(np.uint16).view(dtype.numpy)).reshape(x.shape)


def bits_of(value: float, dtype: DType) -> int:
    """The bits of a 16-bit float."""
    if math.isnan(value):
        return 0x7E00 if dtype.name == "float16" else 0x7FC0
    exact = float(nearest(np.asarray(value), dtype))
    if dtype.name == "float16":
        return int(np.float16(exact).view(np.uint16))
    return int(np.float32(exact).view(np.uint32)) >> 16


def round_number(value: float, dtype: DType) -> float:
    """`value` rounded to a floating-point `dtype`."""
    if dtype.is_half:
        return float(nearest(np.asarray(value), dtype))
    with np.errstate(over="ignore"):
        return float(dtype.numpy.type(value))
