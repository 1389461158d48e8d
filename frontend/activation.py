"""Activation functions, under PyTorch's names: each one op in what it rounds, composed of primitives.

`inplace=True` writes the result into the input, and returns that.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kiln import functional as F
from kiln.base import MODES, TensorBase
from kiln.errors import DTypeError, InvalidValueError, ShapeError
from kiln.inplace import copy_
from kiln.ir.ops.base import OPS
from kiln.maths import expm1, log1p
from kiln.promotion import apply, cast_to, in_float32, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *(
        "celu",
        "elu",
        "gelu",
        "glu",
        "hardshrink",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "logsigmoid",
        "mish",
    ),
    *("prelu", "relu6", "selu", "silu", "softmin", "softplus", "softshrink", "softsign", "tanhshrink", "threshold"),
]

Function = TypeVar("Function", bound=Callable[..., Any])

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


_WHOLE = frozenset({"hardtanh", "relu6", "threshold"})
"""What takes integers as they are."""
_WIDENED = frozenset({"softsign", "tanhshrink"})
"""What takes integers as floats of the default type."""


def _float_arg(name: str, x: object) -> Tensor:
    t = tensor_arg(name, x)
    if t.dtype.is_integer and name in _WHOLE:
        return t
    if t.dtype.is_integer and name in _WIDENED:
        return cast_to(t, MODES.default_dtype)
    if t.dtype.kind != "float" and not (t.dtype.is_complex and name in ("silu", "tanhshrink")):
        raise DTypeError(f"is not defined for {t.dtype}", op=name, operands=[t.ttype], fix="convert it with float()")
    return t


def _activation(function: Function) -> Function:
    """16-bit floats are computed in float32 and rounded once; `inplace` is honoured."""
    once = in_float32(function)
    names = list(inspect.signature(function).parameters)[1:]
    place = names.index("inplace") if "inplace" in names else len(names)

    @functools.wraps(function)
    def run(input: TensorBase, *args: Any, **kwargs: Any) -> Any:
        inplace = kwargs.pop("inplace", False) if place < len(names) else False
        if len(args) > place:
            inplace, args = args[place], (*args[:place], *args[place + 1 :])
        x = _float_arg(function.__name__, input)
        if not inplace:
            return once(x, *args, **kwargs)
        # The derivative may read what the write below destroys.
        return copy_(x, once(F.clone(x) if MODES.grad_enabled and x.requires_grad else x, *args, **kwargs))

    return cast("Function", run)


@_activation
def silu(input: TensorBase, inplace: bool = False) -> Tensor:
    """input * sigmoid(input) (Elfwing et al., 2017)."""
    return F.mul(input, F.sigmoid(input))


@_activation
def softplus(input: TensorBase, beta: float = 1.0, threshold: float = 20.0, inplace: bool = False) -> Tensor:
    """log(1 + e^(beta * input)) / beta, and input where beta * input exceeds `threshold`."""
    scaled = F.mul(input, beta)
    far = F.gt(scaled, threshold)
    return F.where(far, input, F.div(log1p(F.exp(F.where(far, 0.0, scaled))), beta))


@_activation
def mish(input: TensorBase, inplace: bool = False) -> Tensor:
    """input * tanh(softplus(input)) (Misra, 2019)."""
    return F.mul(input, F.tanh(softplus(input)))


@_activation
def logsigmoid(input: TensorBase, inplace: bool = False) -> Tensor:
    """log(sigmoid(input)) without overflow: min(input, 0) - log1p(e^-|input|)."""
    return F.sub(F.minimum(input, 0.0), log1p(F.exp(F.neg(F.abs(input)))))


@_activation
def elu(input: TensorBase, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where positive, else alpha * (e^input - 1) (Clevert et al., 2015)."""
    positive = F.gt(input, 0.0)
    return F.where(positive, input, F.mul(expm1(F.where(positive, 0.0, input)), alpha))


@_activation
def celu(input: TensorBase, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where positive, else alpha * (e^(input / alpha) - 1) (Barron, 2017)."""
    if alpha == 0:
        raise InvalidValueError("alpha can't be 0", op="celu")
    positive = F.gt(input, 0.0)
    return F.where(positive, input, F.mul(expm1(F.div(F.where(positive, 0.0, input), alpha)), alpha))


@_activation
def selu(input: TensorBase, inplace: bool = False) -> Tensor:
    """scale * elu(input, alpha) with the constants of Klambauer et al. (2017)."""
    positive = F.gt(input, 0.0)
    negative = F.mul(expm1(F.where(positive, 0.0, input)), _SELU_SCALE * _SELU_ALPHA)
    return F.where(positive, F.mul(input, _SELU_SCALE), negative)


@_activation
def leaky_relu(input: TensorBase, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """input where positive, else input * negative_slope."""
    return F.where(F.gt(input, 0.0), input, F.mul(input, negative_slope))


@_activation
def prelu(input: TensorBase, weight: TensorBase) -> Tensor:
    """input where positive, else input * weight: one weight, or one for each channel (dimension 1)."""
    w = tensor_arg("prelu", weight)
    if w.numel() != 1:
        if input.ndim < 2 or w.ndim != 1 or w.shape[0] != input.shape[1]:
            raise ShapeError("weight needs one number, or one for each channel", op="prelu", operands=[input.ttype])
        w = F.reshape(w, (1, -1, *[1] * (input.ndim - 2)))
    return F.where(F.gt(input, 0.0), input, F.mul(input, w))


def _limit(x: TensorBase, number: float) -> float:
    return int(number) if x.dtype.is_integer else number


@_activation
def hardtanh(input: TensorBase, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """input brought between min_val and max_val; the derivative is 0 at and beyond them. Of integers these are rounded
    towards 0."""
    min_val, max_val = _limit(input, min_val), _limit(input, max_val)
    if input.dtype.kind == "uint" and min_val < 0:
        raise InvalidValueError(f"min_val {min_val} is negative", op="hardtanh", operands=[input.ttype])
    if min_val > max_val:
        raise InvalidValueError(f"min_val {min_val} lies above max_val {max_val}", op="hardtanh")
    above = F.where(F.ge(input, max_val), max_val, input)
    return F.where(F.le(input, min_val), min_val, above)


@_activation
def relu6(input: TensorBase, inplace: bool = False) -> Tensor:
    """min(max(input, 0), 6)."""
    return hardtanh(input, 0.0, 6.0)


@_activation
def hardsigmoid(input: TensorBase, inplace: bool = False) -> Tensor:
    """relu6(input + 3) / 6."""
    return F.div(relu6(F.add(input, 3.0)), 6.0)


@_activation
def hardswish(input: TensorBase, inplace: bool = False) -> Tensor:
    """input * relu6(input + 3) / 6 (Howard et al., 2019)."""
    return F.div(F.mul(input, relu6(F.add(input, 3.0))), 6.0)


@_activation
def hardshrink(input: TensorBase, lambd: float = 0.5) -> Tensor:
    """input, and 0 where |input| is at most lambd."""
    return F.where(F.le(F.abs(input), lambd), 0.0, input)


@_activation
def softshrink(input: TensorBase, lambd: float = 0.5) -> Tensor:
    """input brought towards 0 by lambd, and 0 where it is within that."""
    if lambd < 0:
        raise InvalidValueError(f"lambd must not be negative, got {lambd}", op="softshrink")
    moved = F.where(F.gt(input, 0.0), F.sub(input, lambd), F.add(input, lambd))
    return F.where(F.le(F.abs(input), lambd), 0.0, moved)


@_activation
def tanhshrink(input: TensorBase) -> Tensor:
    """input - tanh(input)."""
    return F.sub(input, F.tanh(input))


@_activation
def softsign(input: TensorBase) -> Tensor:
    """input / (1 + |input|), as 1 / (1 / |input| + 1) where that is infinite."""
    return F.where(
        F.eq(F.abs(input), math.inf), F.where(F.gt(input, 0.0), 1.0, -1.0), F.div(input, F.add(F.abs(input), 1.0))
    )


@_activation
def threshold(input: TensorBase, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """input where it exceeds `threshold`, else `value`; of integers both are rounded towards 0."""
    return F.where(F.le(input, _limit(input, threshold)), _limit(input, value), input)


def softmin(input: TensorBase, dim: int = -1, dtype: Any = None) -> Tensor:
    """softmax(-input, dim)."""
    x = tensor_arg("softmin", input)
    return F.softmax(F.neg(x if dtype is None else x.to(dtype)), dim)


def glu(input: TensorBase, dim: int = -1) -> Tensor:
    """The first half of `dim` times the sigmoid of the second (Dauphin et al., 2016)."""
    x = _float_arg("glu", input)
    d = F.dim_index("glu", dim, x.ndim)
    if not x.ndim or x.shape[d] % 2:
        raise ShapeError(f"dimension {dim} can't be halved", op="glu", operands=[x.ttype])
    half = x.shape[d] // 2
    index: list[slice] = [slice(None)] * x.ndim
    first, second = (x[(*index[:d], part, *index[d + 1 :])] for part in (slice(0, half), slice(half, None)))
    return _gated(first, second)


@in_float32
def _gated(value: TensorBase, gate: TensorBase) -> Tensor:
    return F.mul(value, F.sigmoid(gate))


def gelu(input: TensorBase, approximate: str = "none") -> Tensor:
    """input * Phi(input) by erf; with approximate="tanh"
    0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))."""
    if approximate == "none":
        return apply(OPS["gelu"], tensor_arg("gelu", input))
    if approximate != "tanh":
        raise InvalidValueError(f'approximate must be "none" or "tanh", got {approximate!r}', op="gelu")
    return _gelu_tanh(tensor_arg("gelu", input))


@in_float32
def _gelu_tanh(x: Tensor) -> Tensor:
    inner = F.mul(F.add(x, F.mul(F.mul(F.mul(x, x), x), 0.044715)), math.sqrt(2 / math.pi))
    return F.mul(F.mul(x, 0.5), F.add(F.tanh(inner), 1.0))
