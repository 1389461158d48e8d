"""Public functions of whole numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kiln import functional as F
from kiln import pointwise as P
from kiln.base import Operand
from kiln.errors import DTypeError
from kiln.promotion import together

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["gcd", "lcm"]

_STEPS: Final = {8: 12, 16: 24, 32: 46, 64: 92}
"""By the bits of a dtype: how often Euclid's algorithm divides at most (two neighbours of Fibonacci's sequence)."""


def _whole(name: str, input: Operand, other: Operand) -> tuple[Tensor, Tensor]:
    a, b = together(name, input, other)
    if not a.dtype.is_integer:
        raise DTypeError(f"is not defined for {a.dtype}", op=name, operands=[a.ttype, b.ttype])
    return a, b


def gcd(input: Operand, other: Operand) -> Tensor:
    """The greatest common divisor of integers, elementwise and broadcast; not negative, and gcd(0, 0) is 0."""
    a, b = (F.abs(x) for x in _whole("gcd", input, other))
    for _ in range(_STEPS[a.dtype.bits]):
        done = F.eq(b, 0)
        rest = P.fmod(a, F.where(done, 1, b))
        a, b = F.where(done, a, b), F.where(done, 0, rest)
    return a


def lcm(input: Operand, other: Operand) -> Tensor:
    """The least common multiple of integers, elementwise and broadcast; not negative, and 0 if either is 0."""
    a, b = _whole("lcm", input, other)
    divisor = gcd(a, b)
    quotient = F.div(a, F.where(F.eq(divisor, 0), 1, divisor), rounding_mode="trunc")
    return F.abs(F.mul(quotient, b))
