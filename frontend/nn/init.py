"""Initial values, written into a tensor in place and without a trace on the tape; each function returns the tensor."""

from __future__ import annotations

import math
from typing import TypeVar

from kiln import random
from kiln.autograd import no_grad
from kiln.errors import InvalidValueError, ShapeError
from kiln.random import Generator
from kiln.tensor import Tensor

AnyTensor = TypeVar("AnyTensor", bound=Tensor)

_GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2),
    "selu": 3 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much the standard deviation should be scaled before this function; `param`: leaky_relu's slope (0.01)."""
    if nonlinearity not in _GAINS:
        raise InvalidValueError(f"no gain known for {nonlinearity!r}; known: {', '.join(_GAINS)}", op="calculate_gain")
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    return _GAINS[nonlinearity]


def uniform_(tensor: AnyTensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> AnyTensor:
    """Uniform in [a, b)."""
    with no_grad():
        return random.uniform_(tensor, a, b, generator)


def normal_(tensor: AnyTensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> AnyTensor:
    """Normal with this mean and standard deviation."""
    with no_grad():
        return random.normal_(tensor, mean, std, generator)


def constant_(tensor: AnyTensor, val: float) -> AnyTensor:
    """`val` everywhere."""
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: AnyTensor) -> AnyTensor:
    """0 everywhere."""
    return constant_(tensor, 0.0)


def ones_(tensor: AnyTensor) -> AnyTensor:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def _fans(tensor: Tensor) -> tuple[int, int]:
    """(inputs, outputs) of one unit: of a weight [out, in, ...], the sizes behind count for both."""
    if tensor.ndim < 2:
        raise ShapeError("fan-in and fan-out need at least two dimensions", operands=[tensor.ttype])
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise InvalidValueError(f'mode must be "fan_in" or "fan_out", got {mode!r}')
    return _fans(tensor)[mode == "fan_out"]


def xavier_uniform_(tensor: AnyTensor, gain: float = 1.0, generator: Generator | None = None) -> AnyTensor:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: AnyTensor, gain: float = 1.0, generator: Generator | None = None) -> AnyTensor:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), generator)


def kaiming_uniform_(
    tensor: AnyTensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> AnyTensor:
    """Uniform in +-gain * sqrt(3 / fan) (He et al., 2015); `a` is leaky_relu's slope."""
    bound = math.sqrt(3) * calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: AnyTensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> AnyTensor:
    """Normal with standard deviation gain / sqrt(fan) (He et al., 2015); `a` is leaky_relu's slope."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)
