"""Initial values for parameters, in place, with PyTorch's distributions and bounds."""

from __future__ import annotations

import math
from typing import TypeVar

from kiln import random
from kiln.autograd import no_grad
from kiln.errors import ShapeError
from kiln.tensor import Tensor

AnyTensor = TypeVar("AnyTensor", bound=Tensor)


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan in, fan out) of a weight of shape [out, in, ...]. ShapeError below two dimensions."""
    if tensor.ndim < 2:
        raise ShapeError("fan in and fan out need at least two dimensions", operands=[tensor.ttype])
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def uniform_(tensor: AnyTensor, a: float = 0.0, b: float = 1.0) -> AnyTensor:
    """Uniform in [a, b)."""
    with no_grad():
        return random.uniform_(tensor, a, b)


def normal_(tensor: AnyTensor, mean: float = 0.0, std: float = 1.0) -> AnyTensor:
    """Normal with this mean and standard deviation."""
    with no_grad():
        return random.normal_(tensor, mean, std)


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


def kaiming_uniform_(tensor: AnyTensor, a: float = 0.0) -> AnyTensor:
    """Uniform in +- sqrt(6 / ((1 + a^2) fan_in)): K. He et al., "Delving deep into rectifiers", 2015 (leaky ReLU of
    slope `a`, fan-in mode)."""
    bound = math.sqrt(6.0 / ((1 + a * a) * fans(tensor)[0]))
    return uniform_(tensor, -bound, bound)


def xavier_uniform_(tensor: AnyTensor, gain: float = 1.0) -> AnyTensor:
    """Uniform in +- gain sqrt(6 / (fan_in + fan_out)): X. Glorot and Y. Bengio, 2010."""
    fan_in, fan_out = fans(tensor)
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound)
