"""What element types are like: their limits, and questions about them."""

from __future__ import annotations

from dataclasses import dataclass

from kiln.base import MODES, TensorBase
from kiln.errors import ArgumentError, DTypeError
from kiln.ir.types import DType

__all__ = ["finfo", "iinfo", "is_complex", "is_floating_point"]

_LIMITS = {  # digits behind the leading one, least exponent of normal numbers, decimal digits
    "float16": (10, -14, 3),
    "bfloat16": (7, -126, 2),
    "float32": (23, -126, 6),
    "float64": (52, -1022, 15),
}


@dataclass(frozen=True, init=False)
class finfo:
    """Limits of a floating-point dtype or of a complex one's parts (default: the default dtype). DTypeError for others.

    >>> import kiln
    >>> kiln.finfo(kiln.float64).eps
    2.220446049250313e-16
    """

    bits: int
    eps: float
    max: float
    min: float
    tiny: float
    smallest_normal: float
    resolution: float
    dtype: str

    def __init__(self, type: DType | None = None) -> None:
        d = _checked("finfo", MODES.default_dtype if type is None else type).part
        if not d.is_floating_point:
            raise DTypeError(f"is for floating-point dtypes, not {d}", op="finfo", fix="use kiln.iinfo")
        digits, least, decimals = _LIMITS[d.name]
        largest = (2.0 - 2.0**-digits) * 2.0 ** (1 - least)
        values = (d.bits, 2.0**-digits, largest, -largest, 2.0**least, 2.0**least, 10.0**-decimals, d.name)
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, init=False)
class iinfo:
    """Limits of an integer dtype. DTypeError for others.

    >>> import kiln
    >>> kiln.iinfo(kiln.int16).max
    32767
    """

    bits: int
    max: int
    min: int
    dtype: str

    def __init__(self, type: DType) -> None:
        d = _checked("iinfo", type)
        if not d.is_integer:
            raise DTypeError(f"is for integer dtypes, not {d}", op="iinfo", fix="use kiln.finfo")
        for name, value in zip(self.__dataclass_fields__, (d.bits, d.most, d.least, d.name), strict=True):
            object.__setattr__(self, name, value)


def _checked(name: str, dtype: object) -> DType:
    if not isinstance(dtype, DType):
        raise ArgumentError(f"expected a dtype, got {type(dtype).__name__}", op=name, fix="for example kiln.float32")
    return dtype


def is_floating_point(input: TensorBase) -> bool:
    """Whether the dtype of a tensor is a floating-point one."""
    return _tensor("is_floating_point", input).dtype.is_floating_point


def is_complex(input: TensorBase) -> bool:
    """Whether the dtype of a tensor is a complex one."""
    return _tensor("is_complex", input).dtype.is_complex


def _tensor(name: str, x: object) -> TensorBase:
    if not isinstance(x, TensorBase):
        raise ArgumentError(f"expected a tensor, got {type(x).__name__}", op=name)
    return x
