"""Distances between vectors, and lengths brought under a bound. Differences are taken first, for every size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kiln import functional as F
from kiln.base import TensorBase
from kiln.convolution import table
from kiln.errors import InvalidValueError, ShapeError
from kiln.gathering import index_select
from kiln.promotion import cast_to, in_float32, tensor_arg
from kiln.reductions import vector_norm

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["cdist", "pdist", "renorm"]


@in_float32
def cdist(
    x1: TensorBase, x2: TensorBase, p: float = 2.0, compute_mode: str | None = "use_mm_for_euclid_dist_if_necessary"
) -> Tensor:
    """The distances of order `p` between the rows of [..., P, M] and of [..., R, M], as [..., P, R]; leading dimensions
    broadcast. The gradient at distance 0 is 0. `compute_mode` changes nothing."""
    del compute_mode
    a, b = tensor_arg("cdist", x1), tensor_arg("cdist", x2)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise ShapeError("expects [..., P, M] and [..., R, M]", op="cdist", operands=[a.ttype, b.ttype])
    if p < 0:
        raise InvalidValueError(f"the order must not be negative, got {p}", op="cdist")
    gaps = F.sub(F.unsqueeze(a, -2), F.unsqueeze(b, -3))
    if not a.shape[-1]:
        return F.sum(gaps, -1)
    return vector_norm(gaps, p, -1)


@in_float32
def pdist(input: TensorBase, p: float = 2.0) -> Tensor:
    """The distances of order `p` between all pairs of rows i < j of [N, M], as [N * (N - 1) / 2]."""
    x = tensor_arg("pdist", input)
    if x.ndim != 2:
        raise ShapeError("expects a matrix", op="pdist", operands=[x.ttype])
    if p < 0:
        raise InvalidValueError(f"the order must not be negative, got {p}", op="pdist")
    i, j = np.triu_indices(x.shape[0], 1)
    gaps = F.sub(*[index_select(x, 0, table(x, np.asarray(k, np.int64))) for k in (i, j)])
    return vector_norm(gaps, p, -1) if x.shape[1] else F.sum(gaps, -1)


@in_float32
def renorm(input: TensorBase, p: float, dim: int, maxnorm: float) -> Tensor:
    """The slices of `dim` whose norm of order `p` is above `maxnorm` scaled down to it."""
    x = tensor_arg("renorm", input)
    if p <= 0 or maxnorm < 0:
        raise InvalidValueError(f"p must be positive and maxnorm not negative, got {p} and {maxnorm}", op="renorm")
    d = F.dim_index("renorm", dim, x.ndim)
    if x.ndim < 2:
        raise ShapeError("expects at least 2 dimensions", op="renorm", operands=[x.ttype])
    norm = vector_norm(x, p, [k for k in range(x.ndim) if k != d], keepdim=True)
    scale = F.where(F.gt(norm, float(maxnorm)), F.div(float(maxnorm), F.add(norm, 1e-7)), 1.0)
    return F.mul(x, cast_to(scale, x.dtype))
