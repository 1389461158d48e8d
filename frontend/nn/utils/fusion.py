"""Two layers made one: a convolution or a linear layer, and the batch normalisation behind it, both in evaluation."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from kiln import functional as F
from kiln.autograd import no_grad
from kiln.errors import InvalidValueError
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.tensor import Tensor

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]

AnyModule = TypeVar("AnyModule", bound=Module)


def fuse_conv_bn_eval(conv: AnyModule, bn: Any, transpose: bool = False) -> AnyModule:
    """A copy of a convolution (`transpose`: a transposed one) that computes what it and a batch normalisation behind it
    do. InvalidValueError unless both are in evaluation, with running statistics."""
    made: Any = _fusible("fuse_conv_bn_eval", conv, bn)
    rest = (bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, transpose)
    made.weight, made.bias = fuse_conv_bn_weights(made.weight, made.bias, *rest)
    fused: AnyModule = made
    return fused


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """The weight and the bias of `fuse_conv_bn_eval`, from those of both layers and the statistics."""
    return _fused(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 1 if transpose else 0)


def fuse_linear_bn_eval(linear: AnyModule, bn: Any) -> AnyModule:
    """A copy of a linear layer that computes what it and a batch normalisation behind it do. InvalidValueError unless
    both are in evaluation, with running statistics, and of as many features (or the normalisation of one)."""
    made: Any = _fusible("fuse_linear_bn_eval", linear, bn)
    if bn.num_features not in (made.out_features, 1):
        message = f"{made.out_features} features can't be normalised as {bn.num_features}"
        raise InvalidValueError(message, op="fuse_linear_bn_eval")
    rest = (bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    made.weight, made.bias = fuse_linear_bn_weights(made.weight, made.bias, *rest)
    fused: AnyModule = made
    return fused


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """The weight and the bias of `fuse_linear_bn_eval`, from those of both layers and the statistics."""
    return _fused(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _fusible(op: str, layer: Module, bn: Any) -> Any:
    """A copy of the layer, if both can be fused."""
    if layer.training or bn.training:
        raise InvalidValueError("fusing is for evaluation", op=op, fix="call .eval() on both")
    if bn.running_mean is None or bn.running_var is None:
        raise InvalidValueError("the normalisation tracks no statistics", op=op)
    return copy.deepcopy(layer)


@no_grad()
def _fused(
    w: Tensor,
    b: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    dim: int,
) -> tuple[Parameter, Parameter]:
    """`dim` of w is that of the results."""
    scale = F.rsqrt(F.add(var, eps))
    scale = scale if weight is None else F.mul(scale, weight)
    shape = [1] * w.ndim
    shape[dim] = -1
    shift = F.mul(F.neg(mean) if b is None else F.sub(b, mean), scale)
    shift = shift if bias is None else F.add(shift, bias)
    if shift.numel() != w.shape[dim]:  # one feature for all
        shift = F.expand(shift, (w.shape[dim],)).clone()
    fused = F.mul(w, F.reshape(scale, shape)).to(w.dtype), shift.to(w.dtype if b is None else b.dtype)
    wants = w.requires_grad, b is not None and b.requires_grad
    return Parameter(fused[0], wants[0]), Parameter(fused[1], wants[1])
