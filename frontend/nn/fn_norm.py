"""Normalisation: every function here is the composition that it is written as.

All of them centre first and take the variance as the mean of squared differences; what is normalised together is
flattened to one dimension where possible, so that its order of summation is that of a row. 16-bit floats are widened
first, and the result is rounded once, to the dtype of the input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kiln import functional as F
from kiln.autograd import no_grad
from kiln.base import TensorBase
from kiln.dtypes import finfo
from kiln.errors import DTypeError, InvalidValueError, ShapeError
from kiln.ir.ops.base import OPS
from kiln.promotion import apply, cast_to, in_float32, tensor_arg, wide
from kiln.tensor import Tensor

__all__ = [
    "batch_norm",
    "cross_map_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "rms_norm",
]


def _standardised(d: Tensor, var: Tensor, eps: float) -> Tensor:
    """d * rsqrt(var + eps)."""
    return F.mul(d, F.rsqrt(F.add(var, float(eps))))


def _rows(x: Tensor, eps: float) -> Tensor:
    """Each row (last dimension) with mean 0 and variance 1."""
    d = F.sub(x, F.mean(x, -1, keepdim=True))
    return _standardised(d, F.mean(F.mul(d, d), -1, keepdim=True), eps)


def _floats(name: str, input: TensorBase) -> Tensor:
    x = tensor_arg(name, input)
    if x.dtype.kind != "float":
        raise DTypeError(f"is not defined for {x.dtype}", op=name, operands=[x.ttype])
    return x


def _rounded(y: Tensor, x: Tensor) -> Tensor:
    """`y` in the dtype of `x`, where that is a 16-bit float."""
    return cast_to(y, x.dtype) if x.dtype.is_half else y


def _by_channel(p: TensorBase, x: Tensor) -> Tensor:
    """A tensor [C] shaped to go along dimension 1 of `x`."""
    return F.reshape(p, (1, -1, *[1] * (x.ndim - 2)))


def _scaled(y: Tensor, weight: TensorBase | None, bias: TensorBase | None) -> Tensor:
    """y * weight + bias, either of which may be missing."""
    if weight is not None:
        y = F.mul(y, wide(weight))
    return y if bias is None else F.add(y, wide(bias))


def _scaled_by_channel(y: Tensor, weight: TensorBase | None, bias: TensorBase | None) -> Tensor:
    w = None if weight is None else _by_channel(weight, y)
    return _scaled(y, w, None if bias is None else _by_channel(bias, y))


def _trailing(name: str, x: Tensor, shape: Sequence[int], weights: Sequence[TensorBase | None]) -> Tensor:
    """`x` with the dimensions `shape`, its last ones, flattened into one."""
    shape = tuple(shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"the last dimensions must be {list(shape)}", op=name, operands=[x.ttype])
    for w in weights:
        if w is not None and w.shape != shape:
            raise ShapeError(f"weights must have shape {list(shape)}", op=name, operands=[x.ttype, w.ttype])
    return F.reshape(x, (*x.shape[: x.ndim - len(shape)], math.prod(shape)))


def layer_norm(
    input: TensorBase,
    normalized_shape: Sequence[int],
    weight: TensorBase | None = None,
    bias: TensorBase | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) * rsqrt(var + eps) * weight + bias over the last dimensions, which are `normalized_shape`."""
    x = _floats("layer_norm", input)
    rows = wide(_trailing("layer_norm", x, normalized_shape, (weight, bias)))
    return _rounded(_scaled(F.reshape(_rows(rows, eps), x.shape), weight, bias), x)


def rms_norm(
    input: TensorBase, normalized_shape: Sequence[int], weight: TensorBase | None = None, eps: float | None = None
) -> Tensor:
    """x * rsqrt(mean(x * x) + eps) * weight over the last dimensions, which are `normalized_shape`; `eps` defaults to
    the dtype's epsilon."""
    x = _floats("rms_norm", input)
    rows = wide(_trailing("rms_norm", x, normalized_shape, (weight,)))
    eps = finfo(x.dtype).eps if eps is None else eps
    y = _standardised(rows, F.mean(F.mul(rows, rows), -1, keepdim=True), eps)
    return _rounded(_scaled(F.reshape(y, x.shape), weight, None), x)


def group_norm(
    input: TensorBase,
    num_groups: int,
    weight: TensorBase | None = None,
    bias: TensorBase | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Over each of `num_groups` groups of channels of every sample [N, C, ...]; weight and bias are [C]."""
    x = _floats("group_norm", input)
    if x.ndim < 2:
        raise ShapeError("expects at least 2 dimensions", op="group_norm", operands=[x.ttype])
    n, c = x.shape[:2]
    if num_groups < 1 or c % num_groups:
        raise InvalidValueError(f"{c} channels can't be divided into {num_groups} groups", op="group_norm")
    rows = F.reshape(wide(x), (n, num_groups, math.prod(x.shape[1:]) // num_groups))
    return _rounded(_scaled_by_channel(F.reshape(_rows(rows, eps), x.shape), weight, bias), x)


def _update(running: TensorBase | None, value: Tensor, momentum: float | Tensor) -> None:
    """running = momentum * value + (1 - momentum) * running, in place."""
    if running is not None:
        r = tensor_arg("batch_norm", running)
        old = F.mul(wide(r), 1.0 - momentum if isinstance(momentum, float) else F.sub(1.0, momentum))
        r.copy_(F.add(F.mul(value.detach(), momentum), old))


def batch_norm(
    input: TensorBase,
    running_mean: TensorBase | None,
    running_var: TensorBase | None,
    weight: TensorBase | None = None,
    bias: TensorBase | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Over all samples of each channel of [N, C, ...].

    In training with the batch's own mean and variance, which then move the running ones in place (the variance
    unbiased); otherwise with the running ones. `momentum` may be a 0-d tensor. InvalidValueError when training on one
    value per channel.
    """
    x = _floats("batch_norm", input)
    if x.ndim < 2:
        raise ShapeError("expects at least 2 dimensions", op="batch_norm", operands=[x.ttype])
    for t in (running_mean, running_var, weight, bias):
        if t is not None and t.shape != x.shape[1:2]:
            raise ShapeError(f"statistics and weights must have shape [{x.shape[1]}]", op="batch_norm",
                             operands=[x.ttype, t.ttype])  # fmt: skip
    if not training:
        if running_mean is None or running_var is None:
            raise InvalidValueError("needs running_mean and running_var outside training", op="batch_norm")
        d = F.sub(wide(x), _by_channel(wide(running_mean), x))
        y = _standardised(d, _by_channel(wide(running_var), x), eps)
        return _rounded(_scaled_by_channel(y, weight, bias), x)
    count = x.numel() // x.shape[1] if x.shape[1] else 0
    if count == 1:
        raise InvalidValueError(f"training needs more than 1 value per channel, got {x.ttype}", op="batch_norm")
    dims = [0, *range(2, x.ndim)]
    mean = F.mean(wide(x), dims, keepdim=True)
    d = F.sub(wide(x), mean)
    var = F.mean(F.mul(d, d), dims, keepdim=True)
    with no_grad():
        momentum = momentum if isinstance(momentum, TensorBase) else float(momentum)
        _update(running_mean, F.reshape(mean.detach(), (-1,)), momentum)
        unbiased = F.mul(F.reshape(var.detach(), (-1,)), count / max(count - 1, 1))
        _update(running_var, unbiased, momentum)
    return _rounded(_scaled_by_channel(_standardised(d, var, eps), weight, bias), x)


def instance_norm(
    input: TensorBase,
    running_mean: TensorBase | None = None,
    running_var: TensorBase | None = None,
    weight: TensorBase | None = None,
    bias: TensorBase | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Over each channel of every sample of [N, C, ...]; running statistics are moved by the samples' average."""
    x = _floats("instance_norm", input)
    if x.ndim < 3:
        raise ShapeError("expects at least 3 dimensions", op="instance_norm", operands=[x.ttype])
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    n, c = x.shape[:2]
    count = math.prod(x.shape[2:])
    if count == 1:
        raise InvalidValueError(f"needs more than 1 value per channel, got {x.ttype}", op="instance_norm")
    rows = F.reshape(wide(x), (n, c, count))
    mean = F.mean(rows, -1, keepdim=True)
    d = F.sub(rows, mean)
    var = F.mean(F.mul(d, d), -1, keepdim=True)
    with no_grad():
        _update(running_mean, F.mean(F.reshape(mean.detach(), (n, c)), 0), float(momentum))
        unbiased = F.mul(F.reshape(var.detach(), (n, c)), count / max(count - 1, 1))
        _update(running_var, F.mean(unbiased, 0), float(momentum))
    return _rounded(_scaled_by_channel(F.reshape(_standardised(d, var, eps), x.shape), weight, bias), x)


@in_float32
def local_response_norm(
    input: TensorBase, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha * mean of x * x over `size` neighbouring channels, zeros outside) ** beta, for [N, C, ...]."""
    x = _floats("local_response_norm", input)
    if x.ndim < 3:
        raise ShapeError("expects at least 3 dimensions", op="local_response_norm", operands=[x.ttype])
    if size < 1:
        raise InvalidValueError(f"size is {size}", op="local_response_norm")
    if not x.numel():
        return x
    rows = F.reshape(F.mul(x, x), (x.shape[0], x.shape[1], -1))
    window: dict[str, Any] = {"kernel": (size, 1), "stride": (1, 1), "padding": (size // 2, (size - 1) // 2, 0, 0)}
    total = F.reshape(apply(OPS["sum_pool2d"], rows, **window), x.shape)
    return F.div(x, F.pow(F.add(F.mul(F.div(total, float(size)), float(alpha)), float(k)), float(beta)))


@in_float32
def cross_map_norm(input: TensorBase, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """x / (k + alpha / size * sum of x * x over neighbouring channels) ** beta, for [N, C, H, W]: over (size - 1) // 2
    channels on each side, and, as PyTorch has it, channel 0 for all."""
    x = _floats("CrossMapLRN2d", input)
    if x.ndim != 4:
        raise ShapeError("expects 4 dimensions", op="CrossMapLRN2d", operands=[x.ttype])
    if size < 1:
        raise InvalidValueError(f"size is {size}", op="CrossMapLRN2d")
    n, c, half = x.shape[0], x.shape[1], (size - 1) // 2
    if not x.numel():
        return x
    rows = F.reshape(F.mul(x, x), (n, c, -1))
    window: dict[str, Any] = {"kernel": (2 * half + 1, 1), "stride": (1, 1), "padding": (half, half, 0, 0)}
    total = apply(OPS["sum_pool2d"], rows, **window)
    if c > half + 1:
        near, far = total[:, : half + 1], F.add(total[:, half + 1 :], rows[:, :1])
        total = F.cat([near, far], 1)
    scale = F.add(F.mul(F.reshape(total, x.shape), alpha / size), float(k))
    return F.mul(F.pow(scale, -float(beta)), x)
