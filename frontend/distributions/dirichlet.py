"""The Dirichlet distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kiln import functional as F
from kiln.distributions import constraints, sampling
from kiln.distributions.exp_family import ExponentialFamily
from kiln.gathering import one_hot
from kiln.maths import digamma, lgamma, xlogy

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Dirichlet"]


class Dirichlet(ExponentialFamily):
    """Points of the simplex [..., n], of a density proportional to the product of x_k^(concentration_k - 1).

    Samples are differentiable, by implicit reparameterisation of the gamma numbers whose shares they are."""

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True
    _batched = {"concentration": 1}

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if concentration.ndim < 1:
            self._refuse("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """concentration / its sum."""
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Tensor:
        """Where the density is largest; if all concentrations are below 1, the corner of the first of the least bad."""
        above = F.clamp(self.concentration - 1, 0.0)
        total = above.sum(-1, True)
        inner = above / F.where(total > 0, total, 1.0)
        corner = one_hot(F.argmax(inner, -1), above.shape[-1]).to(above.dtype)
        corners = (self.concentration < 1).all(-1, True)
        return F.where(corners, corner, above / total)

    @property
    def variance(self) -> Tensor:
        """c (total - c) / (total^2 (total + 1))."""
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total**2 * (total + 1))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Gamma numbers / their sum, by way of their logarithms."""
        return sampling.dirichlet(self.concentration.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        if self._validate_args:
            self._validate_sample(value)
        a = self.concentration
        return xlogy(a - 1.0, value).sum(-1) + lgamma(a.sum(-1)) - lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        """log of the multivariate beta function - (n - total) digamma(total) - sum of (a - 1) digamma(a)."""
        a, n = self.concentration, int(self.concentration.shape[-1])
        total = a.sum(-1)
        return lgamma(a).sum(-1) - lgamma(total) - (n - total) * digamma(total) - ((a - 1.0) * digamma(a)).sum(-1)

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.concentration,)

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        (x,) = natural_params
        return lgamma(x).sum(-1) - lgamma(x.sum(-1))
