"""Cholesky factors of random correlation matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.autograd.grad_mode import no_grad
from kiln.creation import arange
from kiln.distributions import constraints
from kiln.distributions.beta import Beta
from kiln.distributions.distribution import Distribution
from kiln.distributions.utils import broadcast_all
from kiln.dtypes import finfo
from kiln.maths import lgamma
from kiln.movement import diag_embed
from kiln.random import randn
from kiln.special import multigammaln

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["LKJCholesky"]


class LKJCholesky(Distribution):
    """Cholesky factors [dim, dim] of correlation matrices of a density proportional to their determinant to the power
    of concentration - 1: uniform where `concentration` is 1.

    Drawn by the onion method (Lewandowski, Kurowicka and Joe, 2009: "Generating random correlation matrices based on
    vines and extended onion method")."""

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky
    _batched = {"concentration": 0, "_beta": 1}

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None) -> None:
        if dim < 2:
            self._refuse(f"Expected dim to be an integer greater than or equal to 2. Found dim={dim}.")
        self.dim = dim
        (self.concentration,) = broadcast_all(concentration)
        marginal = self.concentration + 0.5 * (dim - 2)
        offset = 0.5 * F.clamp(
            arange(dim, dtype=self.concentration.dtype, device=self.concentration.device) - 1, 0.0
        )  # nothing is drawn for the first row
        self._beta = Beta(offset + 0.5, marginal.unsqueeze(-1) - offset)
        super().__init__(self.concentration.shape, (dim, dim), validate_args)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Factors, without a gradient: each row a point of a hypersphere whose radius is the root of a beta number."""
        with no_grad():
            y = self._beta.sample(sample_shape).unsqueeze(-1)
            noise = randn(self._extended_shape(sample_shape), dtype=y.dtype, device=y.device).tril(-1)
            length = F.sqrt((noise * noise).sum(-1, True))
            w = F.sqrt(y) * (noise / F.where(length > 0, length, 1.0))
            rest = F.clamp(1 - (w * w).sum(-1), finfo(y.dtype).tiny)
            return w + diag_embed(F.sqrt(rest))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density of the factor."""
        if self._validate_args:
            self._validate_sample(value)
        below = self.dim - 1
        diagonal = value.diagonal(dim1=-1, dim2=-2)[..., 1:]
        rows = arange(2, self.dim + 1, dtype=self.concentration.dtype, device=self.concentration.device)
        order = 2 * (self.concentration - 1).unsqueeze(-1) + self.dim - rows
        alpha = self.concentration + 0.5 * below
        norm = 0.5 * below * math.log(math.pi) + multigammaln(alpha - 0.5, below) - lgamma(alpha) * below
        return (order * F.log(diagonal)).sum(-1) - norm
