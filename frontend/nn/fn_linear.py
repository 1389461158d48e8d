"""Products, norms and distances of vectors."""

from __future__ import annotations

import math

from kiln import functional as F
from kiln.base import TensorBase
from kiln.errors import ShapeError
from kiln.promotion import broadcast_shapes, broadcast_to, floating, in_float32, inexact, tensor_arg
from kiln.reductions import vector_norm
from kiln.tensor import Tensor

__all__ = ["bilinear", "cosine_similarity", "normalize", "pairwise_distance"]


@in_float32
def bilinear(input1: TensorBase, input2: TensorBase, weight: TensorBase, bias: TensorBase | None = None) -> Tensor:
    """y[k] = input1 @ weight[k] @ input2 + bias[k], for [..., in1], [..., in2] and weight [out, in1, in2].

    input1 is multiplied with all of weight as one matrix product; the products with input2 are then summed.
    """
    a, b, w = tensor_arg("bilinear", input1), tensor_arg("bilinear", input2), tensor_arg("bilinear", weight)
    types = [a.ttype, b.ttype, w.ttype]
    if w.ndim != 3 or a.shape[:-1] != b.shape[:-1] or (a.shape[-1:], b.shape[-1:]) != (w.shape[1:2], w.shape[2:]):
        raise ShapeError("expects [..., in1], [..., in2] and a weight [out, in1, in2]", op="bilinear", operands=types)
    out, in1, in2 = w.shape
    batch = a.shape[:-1]
    columns = F.reshape(F.permute(w, 1, 0, 2), (in1, out * in2))
    partial = F.reshape(F.matmul(F.reshape(a, (math.prod(batch), in1)), columns), (*batch, out, in2))
    y = F.sum(F.mul(partial, F.unsqueeze(b, -2)), -1)
    return y if bias is None else F.add(y, bias)


@in_float32
def normalize(input: TensorBase, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """input / max(norm, eps), with the p-norm along `dim`."""
    x = inexact("normalize", input)
    return F.div(x, F.maximum(vector_norm(x, p, dim, keepdim=True), float(eps)))


@in_float32
def cosine_similarity(x1: TensorBase, x2: TensorBase, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """sum(a * b) along `dim`, with a = x1 / max(norm(x1), eps) and b likewise."""
    a, b = floating("cosine_similarity", x1), floating("cosine_similarity", x2)
    shape = broadcast_shapes("cosine_similarity", a, b)
    a, b = broadcast_to(a, shape), broadcast_to(b, shape)
    return F.sum(F.mul(normalize(a, 2.0, dim, eps), normalize(b, 2.0, dim, eps)), dim)


@in_float32
def pairwise_distance(
    x1: TensorBase, x2: TensorBase, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last dimension."""
    difference = F.add(F.sub(floating("pairwise_distance", x1), x2), float(eps))
    return vector_norm(difference, p, -1, keepdim)
