"""More public functions of one element: rounding, remainders, predicates, bits, and small compositions.

Names, arguments, dtypes and derivatives follow PyTorch; each function is the composition that it is written as.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kiln import functional as F
from kiln.base import Operand, TensorBase
from kiln.errors import DTypeError, InvalidValueError
from kiln.ir import types as T
from kiln.ir.ops.base import OPS, OpDef
from kiln.promotion import (
    apply,
    binary,
    cast_to,
    dtype_of_number,
    full_like_number,
    number,
    result_type,
    tensor_arg,
    together,
)

if TYPE_CHECKING:
    from kiln.tensor import Tensor

_FLOOR, _CEIL, _TRUNC, _ROUND = OPS["floor"], OPS["ceil"], OPS["trunc"], OPS["round"]


# ---------------------------------------------------------------------------------------------- rounding


def _rounded(op: OpDef, input: TensorBase) -> Tensor:
    """`op` of floats, a copy of integers; DTypeError for bools and complex numbers."""
    x = _ordered(op.name, input)
    if x.dtype.kind == "bool":
        raise DTypeError("is not defined for bool", op=op.name, operands=[x.ttype])
    return apply(op, x) if x.dtype.kind == "float" else F.clone(x)


def floor(input: TensorBase) -> Tensor:
    """The largest integers not above `input`, in its dtype; the gradient is 0."""
    return _rounded(_FLOOR, input)


def ceil(input: TensorBase) -> Tensor:
    """The smallest integers not below `input`, in its dtype; the gradient is 0."""
    return _rounded(_CEIL, input)


def trunc(input: TensorBase) -> Tensor:
    """`input` cut towards 0, in its dtype; the gradient is 0."""
    return _rounded(_TRUNC, input)


fix = trunc


def round(input: TensorBase, *, decimals: int = 0) -> Tensor:
    """The nearest integers, the even one of two; with `decimals` the nearest multiples of 10 ** -decimals, as
    round(input * 10 ** decimals) / 10 ** decimals. The gradient is 0."""
    if not decimals:
        return _rounded(_ROUND, input)
    x = tensor_arg("round", input)
    if x.dtype.kind != "float":
        raise DTypeError(f"decimals are not defined for {x.dtype}", op="round", operands=[x.ttype])
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return F.div(apply(_ROUND, F.mul(x, scale)), scale)
    return F.mul(apply(_ROUND, F.div(x, scale)), scale)


def frac(input: TensorBase) -> Tensor:
    """input - trunc(input), of floats."""
    x = tensor_arg("frac", input)
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op="frac", operands=[x.ttype])
    return F.sub(x, apply(_TRUNC, x))


# ---------------------------------------------------------------------------------- division and remainder


def _divided(name: str, floats: OpDef, integers: OpDef, input: Operand, other: Operand) -> Tensor:
    a, b = together(name, input, other)
    if a.dtype.kind == "bool":
        raise DTypeError("is not defined for bools", op=name, operands=[a.ttype, b.ttype])
    return apply(floats if a.dtype.kind == "float" else integers, a, b)


def floor_divide(input: Operand, other: Operand) -> Tensor:
    """floor(input / other), broadcast and promoted: of floats by the exact remainder, as Python's `//`; of integers
    DivisionByZeroError where `other` is 0. The gradient is 0."""
    return _divided("floor_divide", OPS["floor_divide"], OPS["floor_divide_int"], input, other)


def remainder(input: Operand, other: Operand) -> Tensor:
    """What floor_divide leaves, with the sign of `other` (Python's `%`); exact. NaN where a float is divided by 0,
    DivisionByZeroError for integers."""
    return _divided("remainder", OPS["remainder"], OPS["remainder_int"], input, other)


def fmod(input: Operand, other: Operand) -> Tensor:
    """What a division cut towards 0 leaves, with the sign of `input` (C's fmod); exact. NaN where a float is divided
    by 0, DivisionByZeroError for integers."""
    return _divided("fmod", OPS["fmod"], OPS["fmod_int"], input, other)


divide, multiply, subtract = F.div, F.mul, F.sub


def divmod(input: Operand, other: Operand) -> tuple[Tensor, Tensor]:
    """(floor_divide, remainder)."""
    return floor_divide(input, other), remainder(input, other)


# -------------------------------------------------------------------------------------------------- signs


def sign(input: TensorBase) -> Tensor:
    """1, -1 or 0 (also of NaN), in the dtype of `input`; of bools themselves. The gradient is 0."""
    x = tensor_arg("sign", input)
    return F.clone(x) if x.dtype.kind == "bool" else apply(OPS["sign"], x)


def positive(input: TensorBase) -> Tensor:
    """`input` itself; DTypeError for bools."""
    x = tensor_arg("positive", input)
    if x.dtype.kind == "bool":
        raise DTypeError("is not defined for bool", op="positive", operands=[x.ttype])
    return x


absolute, negative = F.abs, F.neg


def signbit(input: TensorBase) -> Tensor:
    """Whether the sign bit is set (also of -0.0), as bools."""
    x = _ordered("signbit", input)
    if x.dtype.kind == "bool":
        return F.logical_and(x, False)
    if x.dtype.kind != "float":
        return F.lt(x, 0)
    x = x.detach()
    return F.lt(copysign(full_like_number(x, x.dtype, 1.0), x), 0.0)


def copysign(input: TensorBase, other: Operand) -> Tensor:
    """|input| with the signs of `other`, broadcast; integers become floats. The gradient at 0 is 0. DTypeError for
    complex numbers."""
    dtype = result_type(input, other)
    floats = dtype if dtype.is_inexact else dtype_of_number(1.0)
    return apply(OPS["copysign"], *together("copysign", input, other, dtype=floats))


def nextafter(input: TensorBase, other: TensorBase) -> Tensor:
    """The floats next to `input` on the way to `other`; without a gradient."""
    a, b = (tensor_arg("nextafter", x).detach() for x in (input, other))
    return binary(OPS["nextafter"], a, b)


# --------------------------------------------------------------------------------------------- predicates


def isnan(input: TensorBase) -> Tensor:
    """Whether each element is NaN."""
    x = tensor_arg("isnan", input)
    return F.ne(x, x)


def isinf(input: TensorBase) -> Tensor:
    """Whether each element is infinite."""
    x = tensor_arg("isinf", input).detach()
    if x.dtype.is_complex:
        return F.logical_or(*map(isinf, F.parts(x)))
    return F.eq(F.abs(x), math.inf) if x.dtype.kind == "float" else _nowhere(x)


def isposinf(input: TensorBase) -> Tensor:
    """Whether each element is +infinity. DTypeError for complex numbers."""
    x = _ordered("isposinf", input)
    return F.eq(x, math.inf) if x.dtype.kind == "float" else _nowhere(x)


def isneginf(input: TensorBase) -> Tensor:
    """Whether each element is -infinity. DTypeError for complex numbers."""
    x = _ordered("isneginf", input)
    return F.eq(x, -math.inf) if x.dtype.kind == "float" else _nowhere(x)


def isfinite(input: TensorBase) -> Tensor:
    """Whether each element is neither infinite nor NaN."""
    x = tensor_arg("isfinite", input).detach()
    if x.dtype.is_complex:
        return F.logical_and(*map(isfinite, F.parts(x)))
    return F.lt(F.abs(x), math.inf) if x.dtype.kind == "float" else F.eq(x, x)


def isreal(input: TensorBase) -> Tensor:
    """Whether each element is real: of complex numbers those with an imaginary part of 0, else all."""
    x = tensor_arg("isreal", input)
    if x.dtype.is_complex:
        return F.eq(F.parts(x)[1], 0.0)
    return F.logical_not(_nowhere(x))


def _ordered(name: str, input: TensorBase) -> Tensor:
    """A tensor of real numbers."""
    x = tensor_arg(name, input)
    if x.dtype.is_complex:
        raise DTypeError("complex numbers have no order", op=name, operands=[x.ttype], fix="use .real, .imag or abs()")
    return x


def _nowhere(x: Tensor) -> Tensor:
    """False in every place."""
    return F.logical_and(F.eq(x, x), False)


def isclose(
    input: TensorBase, other: TensorBase, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Whether |input - other| <= atol + rtol * |other|, elementwise; infinities are close to themselves, and with
    `equal_nan` NaNs to NaNs. DTypeError unless the dtypes agree."""
    a, b = tensor_arg("isclose", input).detach(), tensor_arg("isclose", other).detach()
    if a.dtype is not b.dtype:
        raise DTypeError("operands have different dtypes", op="isclose", operands=[a.ttype, b.ttype])
    if rtol < 0 or atol < 0:
        raise InvalidValueError("tolerances must not be negative", op="isclose")
    close = F.eq(a, b)
    if equal_nan:
        close = F.logical_or(close, F.logical_and(isnan(a), isnan(b)))
    if rtol == 0 and atol == 0:
        return close
    if not a.dtype.is_inexact:
        a, b = F.div(a, 1.0), F.div(b, 1.0)
    gap = F.abs(F.sub(a, b))
    near = F.le(gap, F.add(F.abs(F.mul(b, rtol)), atol))
    return F.logical_or(close, F.logical_and(isfinite(gap), near))


def allclose(
    input: TensorBase, other: TensorBase, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Whether all elements are close (`isclose`), as a Python bool."""
    return bool(F.all(isclose(input, other, rtol, atol, equal_nan)))


def equal(input: TensorBase, other: TensorBase) -> bool:
    """Whether two tensors have the same shape and elements (NaN differs from itself), as a Python bool."""
    a, b = tensor_arg("equal", input), tensor_arg("equal", other)
    return a.shape == b.shape and bool(F.all(F.eq(a, b)))


# ------------------------------------------------------------------------------------------------ choices


def nan_to_num(
    input: TensorBase, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """`input` with NaN, +infinity and -infinity replaced; by default by 0 and the largest and smallest number."""
    x = tensor_arg("nan_to_num", input)
    if x.dtype.is_complex:
        return F.pair(*[nan_to_num(part, nan, posinf, neginf) for part in F.parts(x)])
    if x.dtype.kind != "float":
        return F.clone(x)
    largest = float(_largest(x.dtype))
    high = largest if posinf is None else posinf
    low = -largest if neginf is None else neginf
    made = F.where(isnan(x), 0.0 if nan is None else nan, x)
    made = F.where(isposinf(x), high, made)
    return F.where(isneginf(x), low, made)


def _largest(dtype: T.DType) -> float:
    """The largest finite number of a floating-point type, by its bits: exponent field all ones but the last."""
    exponent, mantissa = {"float16": (5, 10), "bfloat16": (8, 7), "float32": (8, 23), "float64": (11, 52)}[dtype.name]
    return math.ldexp(2.0 - math.ldexp(1.0, -mantissa), (1 << (exponent - 1)) - 1)


def clip(input: TensorBase, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """As `clamp`."""
    return F.clamp(input, min, max)


def clamp_min(input: TensorBase, min: Operand) -> Tensor:
    """`input`, or `min` where that is larger."""
    return F.clamp(input, min=min)


def clamp_max(input: TensorBase, max: Operand) -> Tensor:
    """`input`, or `max` where that is smaller."""
    return F.clamp(input, max=max)


def fmax(input: Operand, other: Operand) -> Tensor:
    """The larger one; the number beside a NaN. The gradient goes to the chosen one, `input` at ties."""
    a, b = together("fmax", input, other)
    return F.where(F.logical_or(F.ge(a, b), isnan(b)), a, b)


def fmin(input: Operand, other: Operand) -> Tensor:
    """The smaller one; the number beside a NaN. The gradient goes to the chosen one, `input` at ties."""
    a, b = together("fmin", input, other)
    return F.where(F.logical_or(F.le(a, b), isnan(b)), a, b)


def heaviside(input: TensorBase, values: TensorBase) -> Tensor:
    """0 below 0 (and for NaN), 1 above, and `values` at 0. DTypeError unless the dtypes agree."""
    x, v = tensor_arg("heaviside", input), tensor_arg("heaviside", values)
    if x.dtype is not v.dtype:
        raise DTypeError("operands have different dtypes", op="heaviside", operands=[x.ttype, v.ttype])
    return F.where(F.eq(x, 0), v, cast_to(F.gt(x, 0), x.dtype))


# ------------------------------------------------------------------------------------------- combinations


def lerp(input: TensorBase, end: TensorBase, weight: Operand) -> Tensor:
    """input + weight * (end - input) for weights below 0.5 in size, else end - (end - input) * (1 - weight), so that
    both ends are met exactly. DTypeError unless the dtypes agree."""
    a, b = tensor_arg("lerp", input), tensor_arg("lerp", end)
    tensors = [a, b, *([weight] if isinstance(weight, TensorBase) else [])]
    if not a.dtype.is_inexact or any(x.dtype is not a.dtype for x in tensors):
        raise DTypeError("needs one floating-point dtype", op="lerp", operands=[x.ttype for x in tensors])
    gap = F.sub(b, a)
    if not isinstance(weight, TensorBase):
        w = number(weight)
        return F.add(a, F.mul(gap, w)) if abs(w) < 0.5 else F.sub(b, F.mul(gap, 1.0 - w))
    near, far = F.add(a, F.mul(weight, gap)), F.sub(b, F.mul(gap, F.sub(1.0, weight)))
    return F.where(F.lt(F.abs(weight), 0.5), near, far)


def addcmul(input: TensorBase, tensor1: TensorBase, tensor2: TensorBase, *, value: float = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    product = F.mul(tensor1, tensor2) if value == 1 else F.mul(F.mul(tensor1, value), tensor2)
    return F.add(input, product)


def addcdiv(input: TensorBase, tensor1: TensorBase, tensor2: TensorBase, *, value: float = 1) -> Tensor:
    """input + value * tensor1 / tensor2. DTypeError where both are integers."""
    a, b = tensor_arg("addcdiv", tensor1), tensor_arg("addcdiv", tensor2)
    if not a.dtype.is_inexact and not b.dtype.is_inexact:
        types = [a.ttype, b.ttype]
        raise DTypeError("integers are not divided here", op="addcdiv", operands=types, fix="cast them to floats")
    quotient = F.div(tensor1 if value == 1 else F.mul(tensor1, value), tensor2)
    return F.add(input, quotient)


def ldexp(input: TensorBase, other: TensorBase) -> Tensor:
    """input * 2 ** other."""
    power = F.pow(2.0, tensor_arg("ldexp", other))
    return F.mul(tensor_arg("ldexp", input), power)


def float_power(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent in float64, or in complex128 where one of them is complex."""
    dtype = T.complex128 if result_type(input, exponent).is_complex else T.float64
    return apply(OPS["pow"], *together("float_power", input, exponent, dtype=dtype))


# ------------------------------------------------------------------------------------------ bits and logic


def bitwise_left_shift(input: Operand, other: Operand) -> Tensor:
    """input << other, of integers; 0 where `other` is negative or not below the width."""
    return _shifted("bitwise_left_shift", OPS["shift_left"], input, other)


def bitwise_right_shift(input: Operand, other: Operand) -> Tensor:
    """input >> other, of integers, keeping the sign; 0 or -1 where `other` is negative or not below the width."""
    return _shifted("bitwise_right_shift", OPS["shift_right"], input, other)


def _shifted(name: str, op: OpDef, input: Operand, other: Operand) -> Tensor:
    a, b = together(name, input, other)
    if a.dtype.kind in ("float", "bool"):
        raise DTypeError(f"is not defined for {a.dtype}", op=name, operands=[a.ttype, b.ttype])
    return apply(op, a, b)


def logical_xor(input: Operand, other: Operand) -> Tensor:
    """Exactly one is nonzero, as bools."""
    return apply(OPS["bitwise_xor"], *together("logical_xor", input, other, dtype=T.bool_))
