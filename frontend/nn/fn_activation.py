"""Activations with PyTorch's arguments where they differ from the functions of `kiln`, and those that draw numbers."""

from __future__ import annotations

from kiln import functional as F
from kiln.base import TensorBase
from kiln.creation import arange
from kiln.errors import InvalidValueError
from kiln.ir.types import DType
from kiln.promotion import cast_to, in_float32, tensor_arg
from kiln.random import rand
from kiln.tensor import Tensor

__all__ = ["gumbel_softmax", "log_softmax", "relu", "rrelu", "softmax", "softmin"]


def relu(input: TensorBase, inplace: bool = False) -> Tensor:
    """max(input, 0); with `inplace` written into the input."""
    x = tensor_arg("relu", input)
    return x.copy_(F.relu(x)) if inplace else F.relu(x)


def rrelu(
    input: TensorBase,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """input where it is not negative, else times a slope: in training one drawn between `lower` and `upper` for each
    element (Xu et al., 2015), otherwise their mean."""
    x = kept = tensor_arg("rrelu", input)
    if lower > upper:
        raise InvalidValueError(f"lower {lower} lies above upper {upper}", op="rrelu")
    if inplace and x.requires_grad:
        kept = F.clone(x)  # the derivative reads what the write below destroys
    if training:
        drawn = rand(x.shape, dtype=x.dtype, device=x.device)
        slope: Tensor | float = F.add(F.mul(drawn, float(upper - lower)), float(lower))
    else:
        slope = (lower + upper) / 2
    result = F.where(F.ge(kept, 0.0), kept, F.mul(kept, slope))
    return x.copy_(result) if inplace else result


def _dim(x: Tensor, dim: int | None) -> int:
    """`dim`, or by the rank: 0 for 0, 1 or 3 dimensions, else 1."""
    return dim if dim is not None else 0 if x.ndim in (0, 1, 3) else 1


def softmax(input: TensorBase, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """softmax along `dim` (None: 0 for tensors of 0, 1 or 3 dimensions, else 1)."""
    return F.softmax(input, _dim(tensor_arg("softmax", input), dim), dtype)


def log_softmax(input: TensorBase, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """log_softmax along `dim` (None: as in `softmax`)."""
    return F.log_softmax(input, _dim(tensor_arg("log_softmax", input), dim), dtype)


def softmin(input: TensorBase, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """softmax(-input) along `dim` (None: as in `softmax`)."""
    return softmax(F.neg(input), dim, dtype=dtype)


@in_float32
def gumbel_softmax(logits: TensorBase, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """softmax((logits + g) / tau) with g = -log(-log(u)) for uniform u in (0, 1) (Jang et al., 2017). `hard`: the
    one-hot vector of its maximum, with the gradient of the soft one. `eps` does nothing."""
    x = tensor_arg("gumbel_softmax", logits)
    u = F.sub(1.0, rand(x.shape, dtype=x.dtype, device=x.device))  # in (0, 1]
    noise = F.neg(F.log(F.neg(F.log(F.clamp(u, max=1.0 - 2.0**-24)))))
    soft = F.softmax(F.div(F.add(x, noise), float(tau)), dim)
    if not hard:
        return soft
    top = F.argmax(soft, dim, keepdim=True)
    places = _places(soft, dim)
    one_hot = cast_to(F.eq(places, top), soft.dtype)
    return F.add(F.sub(one_hot, soft.detach()), soft)


def _places(x: Tensor, dim: int) -> Tensor:
    """0, 1, ... along `dim`, shaped to be compared with `x`."""
    d = F.dim_index("gumbel_softmax", dim, x.ndim)
    return F.reshape(arange(x.shape[d], device=x.device), (-1, *[1] * (x.ndim - d - 1)))
