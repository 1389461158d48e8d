"""Mathematical functions of real numbers, under PyTorch's names. Integers and bools are taken in the default dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from kiln import functional as F
from kiln.base import Operand, TensorBase
from kiln.ir.ops.base import OPS, OpDef
from kiln.promotion import apply, binary, floating, in_float32, inexact, result_type, tensor_arg, together

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cosh", "deg2rad", "erfc", "exp2", "expm1"),
    *(
        "digamma",
        "erfinv",
        "hypot",
        "lgamma",
        "log10",
        "log1p",
        "log2",
        "logaddexp",
        "logaddexp2",
        "logit",
        "rad2deg",
        "sinc",
        "sinh",
        "tan",
    ),
    *("xlog1py", "xlogy"),
]


def _unary(name: str, doc: str) -> Callable[[TensorBase], Tensor]:
    op = OPS[name]

    def function(input: TensorBase) -> Tensor:
        return apply(op, inexact(name, input))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


log1p = _unary("log1p", "log(1 + input), accurate for small input.")
log2 = _unary("log2", "The logarithm to base 2.")
log10 = _unary("log10", "The logarithm to base 10.")
exp2 = _unary("exp2", "2 to the input.")
expm1 = _unary("expm1", "e to the input, less 1, accurate for small input.")
tan = _unary("tan", "The tangent of an angle in radians.")
sinh = _unary("sinh", "The hyperbolic sine.")
cosh = _unary("cosh", "The hyperbolic cosine.")
asin = _unary("asin", "The inverse sine in radians; NaN beyond 1.")
acos = _unary("acos", "The inverse cosine in radians; NaN beyond 1.")
atan = _unary("atan", "The inverse tangent in radians.")
asinh = _unary("asinh", "The inverse hyperbolic sine.")
acosh = _unary("acosh", "The inverse hyperbolic cosine; NaN below 1.")
atanh = _unary("atanh", "The inverse hyperbolic tangent; NaN beyond 1.")
erfc = _unary("erfc", "1 - erf(input), accurate for large input.")
erfinv = _unary("erfinv", "The inverse error function; infinite at 1 and -1, NaN beyond.")
lgamma = _unary("lgamma", "log |gamma(input)|; infinite at 0 and negative integers.")
digamma = _unary("digamma", "The derivative of lgamma; NaN at negative integers.")


def _floats(name: str, a: Operand, b: Operand) -> tuple[Tensor, ...]:
    """Both operands broadcast, in their common floating point dtype."""
    dtype = result_type(a, b)
    if dtype.kind == "float":
        return together(name, a, b)
    return tuple(floating(name, x) for x in together(name, a, b))


def _pair(op: OpDef, a: Operand, b: Operand) -> Tensor:
    if result_type(a, b).kind == "float":
        return binary(op, a, b)
    return apply(op, *_floats(op.name, a, b))


def atan2(input: Operand, other: Operand) -> Tensor:
    """The angle of the point (other, input) in radians, from -pi to pi."""
    return _pair(OPS["atan2"], input, other)


def _ordered(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The larger one, or one that is NaN, and the other one. Equal ones keep their order, so that derivatives are those
    of a smooth function on one side (those of maximum would share a second derivative out wrongly)."""
    swap = F.logical_or(F.gt(b, a), F.ne(b, b))
    return F.where(swap, b, a), F.where(swap, a, b)


@in_float32
def hypot(input: Operand, other: Operand) -> Tensor:
    """sqrt(input^2 + other^2) without overflow on the way: the larger times sqrt(1 + quotient^2)."""
    a, b = (F.abs(x) for x in _floats("hypot", input, other))
    large, small = _ordered(a, b)
    quotient = F.where(F.eq(large, 0.0), F.mul(large, 0.0), F.div(small, F.where(F.eq(large, 0.0), 1.0, large)))
    value = F.mul(large, F.sqrt(F.add(F.square(quotient), 1.0)))
    return F.where(F.logical_or(F.eq(a, math.inf), F.eq(b, math.inf)), math.inf, value)


@in_float32
def logaddexp(input: TensorBase, other: TensorBase) -> Tensor:
    """log(e^input + e^other) without overflow: the larger plus log1p(e^-difference)."""
    a, b = _floats("logaddexp", input, other)
    large, small = _ordered(a, b)
    infinite = F.eq(F.abs(large), math.inf)  # infinities that are equal have no difference
    gap = F.where(infinite, 0.0, F.sub(small, F.where(infinite, 0.0, large)))
    return F.where(infinite, large, F.add(large, log1p(F.exp(gap))))


@in_float32
def logaddexp2(input: TensorBase, other: TensorBase) -> Tensor:
    """log2(2^input + 2^other), as `logaddexp`."""
    ln2 = math.log(2)
    a, b = _floats("logaddexp2", input, other)
    return F.div(logaddexp(F.mul(a, ln2), F.mul(b, ln2)), ln2)


@in_float32
def xlogy(input: Operand, other: Operand) -> Tensor:
    """input * log(other), and 0 where input is 0 (unless other is NaN)."""
    a, b = _floats("xlogy", input, other)
    zero = F.logical_and(F.eq(a, 0.0), F.eq(b, b))
    return F.where(zero, 0.0, F.mul(a, F.log(F.where(zero, 1.0, b))))


@in_float32
def xlog1py(input: Operand, other: Operand) -> Tensor:
    """input * log1p(other), and 0 where input is 0 (unless other is NaN)."""
    a, b = _floats("xlog1py", input, other)
    zero = F.logical_and(F.eq(a, 0.0), F.eq(b, b))
    return F.where(zero, 0.0, F.mul(a, log1p(F.where(zero, 1.0, b))))


@in_float32
def logit(input: TensorBase, eps: float | None = None) -> Tensor:
    """log(input / (1 - input)); with `eps`, of input brought between eps and 1 - eps."""
    x = floating("logit", input)
    if eps is not None:
        x = F.clamp(x, eps, 1 - eps)
    return F.log(F.div(x, F.sub(1.0, x)))


@in_float32
def sinc(input: TensorBase) -> Tensor:
    """sin(pi * input) / (pi * input), and 1 at 0."""
    x = floating("sinc", input)
    zero = F.eq(x, 0.0)
    angle = F.mul(F.where(zero, 1.0, x), math.pi)
    return F.where(zero, 1.0, F.div(F.sin(angle), angle))


def rad2deg(input: TensorBase) -> Tensor:
    """Radians as degrees."""
    return F.mul(floating("rad2deg", tensor_arg("rad2deg", input)), 180 / math.pi)


def deg2rad(input: TensorBase) -> Tensor:
    """Degrees as radians."""
    return F.mul(floating("deg2rad", tensor_arg("deg2rad", input)), math.pi / 180)
