"""Initial values, written into a tensor in place and without a trace on the tape; each function returns the tensor."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from kiln import random
from kiln.autograd import no_grad
from kiln.creation import from_numpy
from kiln.errors import InvalidValueError, ShapeError
from kiln.ir import types as T
from kiln.random import Generator
from kiln.tensor import Tensor

AnyTensor = TypeVar("AnyTensor", bound=Tensor)
Function = TypeVar("Function", bound=Callable[..., Any])

_GAINS = {
    "linear": 1.0,
    **{f"conv{kind}{n}d": 1.0 for kind in ("", "_transpose") for n in (1, 2, 3)},
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


# ------------------------------------------------------------------- what is worked out on the host, in NumPy


def _drawn(distribution: str, tensor: Tensor, generator: Generator | None, *shape: int) -> np.ndarray[Any, Any]:
    """float64 numbers from kiln's generator."""
    draw = random.rand if distribution == "uniform" else random.randn
    return draw(shape or tensor.shape, dtype=T.float64, generator=generator).numpy()


def _fill(tensor: AnyTensor, values: np.ndarray[Any, Any]) -> AnyTensor:
    with no_grad():
        return tensor.copy_(from_numpy(np.ascontiguousarray(values, np.float64)))


def trunc_normal_(
    tensor: AnyTensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> AnyTensor:
    """Normal with this mean and standard deviation, between `a` and `b`: uniform numbers between the two ends'
    probabilities, through the inverse of the distribution function."""
    import statistics  # start-up time

    normal = statistics.NormalDist()
    low, high = normal.cdf((a - mean) / std), normal.cdf((b - mean) / std)
    p = low + (high - low) * _drawn("uniform", tensor, generator)
    p = np.clip(p, 2.0**-1074, 1.0 - 2.0**-53).reshape(-1)
    x = np.fromiter(map(normal.inv_cdf, p.tolist()), np.float64, p.size)
    return _fill(tensor, np.clip(x * std + mean, a, b).reshape(tensor.shape))


def eye_(tensor: AnyTensor) -> AnyTensor:
    """The identity matrix. ShapeError for other ranks than 2."""
    if tensor.ndim != 2:
        raise ShapeError("expects a matrix", op="eye_", operands=[tensor.ttype])
    return _fill(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: AnyTensor, groups: int = 1) -> AnyTensor:
    """A convolution's weight [out, in, sizes...] that passes channels on as they are, per group."""
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError("expects 3, 4 or 5 dimensions", op="dirac_", operands=[tensor.ttype])
    if groups < 1 or tensor.shape[0] % groups:
        raise InvalidValueError(f"{tensor.shape[0]} channels can't be divided into {groups} groups", op="dirac_")
    values = np.zeros(tensor.shape)
    per_group = tensor.shape[0] // groups
    centre = tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for d in range(min(per_group, tensor.shape[1])):
            values[(group * per_group + d, d, *centre)] = 1.0
    return _fill(tensor, values)


def orthogonal_(tensor: AnyTensor, gain: float = 1, generator: Generator | None = None) -> AnyTensor:
    """Rows, or columns if there are fewer, that are orthogonal and of length `gain`: from the QR factors of normal
    numbers, Q times the signs of R's diagonal (Saxe et al., 2013). Trailing dimensions count as columns."""
    if tensor.ndim < 2:
        raise ShapeError("expects at least 2 dimensions", op="orthogonal_", operands=[tensor.ttype])
    if not tensor.numel():
        return tensor
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    flat = _drawn("normal", tensor, generator, rows, columns)
    q, r = np.linalg.qr(flat.T if rows < columns else flat)
    q = q * np.sign(np.diag(r))
    return _fill(tensor, gain * (q.T if rows < columns else q).reshape(tensor.shape))


def sparse_(tensor: AnyTensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> AnyTensor:
    """Normal with this standard deviation, and in each column a share `sparsity` of zeros (Martens, 2010)."""
    if tensor.ndim != 2:
        raise ShapeError("expects a matrix", op="sparse_", operands=[tensor.ttype])
    zeros = math.ceil(sparsity * tensor.shape[0])
    values = std * _drawn("normal", tensor, generator)
    order = np.argsort(_drawn("uniform", tensor, generator), axis=0, kind="stable")
    np.put_along_axis(values, order[:zeros], 0.0, axis=0)
    return _fill(tensor, values)


# ------------------------------------------------------------------------------------ under older names


def _older(function: Function) -> Function:
    """`function` under its name without the underscore; a call warns."""
    old = function.__name__[:-1]

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        message = f"`nn.init.{old}` is now deprecated in favor of `nn.init.{old}_`."
        warnings.warn(message, FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    run.__name__ = run.__qualname__ = old
    run.__doc__ = f"`{old}_`, under its older name (warns)."
    return cast("Function", run)


uniform, normal, constant = _older(uniform_), _older(normal_), _older(constant_)
eye, dirac, orthogonal, sparse = _older(eye_), _older(dirac_), _older(orthogonal_), _older(sparse_)
xavier_uniform, xavier_normal = _older(xavier_uniform_), _older(xavier_normal_)
kaiming_uniform, kaiming_normal = _older(kaiming_uniform_), _older(kaiming_normal_)
