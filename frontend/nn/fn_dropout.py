"""Dropout: a uniform number is drawn for each element (or channel), which is kept where the number is at least p.

The numbers come from the default generator, whose state advances by one number per element (or channel).
"""

from __future__ import annotations

import math

from kiln import functional as F
from kiln.base import TensorBase
from kiln.errors import InvalidValueError, ShapeError
from kiln.promotion import cast_to, tensor_arg
from kiln.random import rand
from kiln.tensor import Tensor

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]

_ALPHA = 1.0507009873554804934193349852946 * 1.6732632423543772848170429916717
"""-_ALPHA is what SELU tends to for very negative arguments."""


def check_p(name: str, p: float) -> None:
    """InvalidValueError unless `p` is a probability."""
    if not 0.0 <= p <= 1.0:
        raise InvalidValueError(f"p is a probability, between 0 and 1, got {p}", op=name)


def _kept(x: Tensor, p: float, by_channel: bool) -> Tensor:
    """Bools: True with probability 1 - p, per element or per channel of [N, C, ...]."""
    shape = (*x.shape[:2], *[1] * (x.ndim - 2)) if by_channel else x.shape
    return F.ge(rand(shape, dtype=x.dtype, device=x.device), float(p))


def _finish(x: Tensor, result: Tensor, inplace: bool) -> Tensor:
    return x.copy_(result) if inplace else result


def _drop(name: str, input: TensorBase, p: float, training: bool, inplace: bool, by_channel: bool = False) -> Tensor:
    x = tensor_arg(name, input)
    check_p(name, p)
    if by_channel and x.ndim < 2:
        raise ShapeError("expects at least 2 dimensions", op=name, operands=[x.ttype])
    if not training or p == 0 or not x.numel():
        return x
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0
    noise = F.mul(cast_to(_kept(x, p, by_channel), x.dtype), scale)
    return _finish(x, F.mul(x, noise), inplace)


def dropout(input: TensorBase, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """input * kept / (1 - p) in training, else `input` itself."""
    return _drop("dropout", input, p, training, inplace)


def dropout1d(input: TensorBase, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of [N, C, L] or [C, L] dropped."""
    return _drop_channels("dropout1d", input, p, training, inplace, 2)


def dropout2d(input: TensorBase, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of [N, C, H, W] dropped; three dimensions are taken as [N, C, L]."""
    return _drop("dropout2d", input, p, training, inplace, by_channel=True)


def dropout3d(input: TensorBase, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of [N, C, D, H, W] or [C, D, H, W] dropped."""
    return _drop_channels("dropout3d", input, p, training, inplace, 4)


def _drop_channels(name: str, input: TensorBase, p: float, training: bool, inplace: bool, single: int) -> Tensor:
    """`single`: dimensions of one sample; with one more, the first counts samples."""
    x = tensor_arg(name, input)
    if x.ndim not in (single, single + 1):
        raise ShapeError(f"expects {single} or {single + 1} dimensions", op=name, operands=[x.ttype])
    if x.ndim > single:
        return _drop(name, x, p, training, inplace, by_channel=True)
    result = _drop(name, F.unsqueeze(x, 0), p, training, inplace, by_channel=True)
    return x if inplace else F.squeeze(result, 0)


def alpha_dropout(input: TensorBase, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropped elements become SELU's lower limit, and all are scaled and shifted so that mean and variance of a
    standard normal input are kept (Klambauer et al., 2017)."""
    return _alpha("alpha_dropout", input, p, training, inplace, by_channel=False)


def feature_alpha_dropout(input: TensorBase, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels of [N, C, ...]."""
    return _alpha("feature_alpha_dropout", input, p, training, inplace, by_channel=True)


def _alpha(name: str, input: TensorBase, p: float, training: bool, inplace: bool, by_channel: bool) -> Tensor:
    x = tensor_arg(name, input)
    check_p(name, p)
    if by_channel and x.ndim < 2:
        raise ShapeError("expects at least 2 dimensions", op=name, operands=[x.ttype])
    if not training or p == 0 or not x.numel():
        return x
    if p == 1:
        return _finish(x, F.mul(x, 0.0), inplace)
    a = 1.0 / math.sqrt((_ALPHA**2 * p + 1) * (1 - p))
    kept = cast_to(_kept(x, p, by_channel), x.dtype)
    shift = F.add(F.mul(F.sub(kept, 1.0), _ALPHA * a), _ALPHA * a * p)
    return _finish(x, F.add(F.mul(x, F.mul(kept, a)), shift), inplace)
