"""The generalized Pareto distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.creation import zeros_like
from kiln.distributions import constraints
from kiln.distributions.distribution import Distribution
from kiln.distributions.utils import broadcast_all
from kiln.maths import expm1, log1p
from kiln.pointwise import isclose
from kiln.random import rand

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["GeneralizedPareto"]


class GeneralizedPareto(Distribution):
    """What exceeds a threshold `loc`: the survival function (1 + concentration z)^(-1 / concentration) of
    z = (x - loc) / scale, and exp(-z) where `concentration` is 0."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real}
    has_rsample = True
    _batched = {"loc": 0, "scale": 0, "concentration": 0}

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """From `loc` on; up to loc - scale / concentration where that is below 0."""
        c = self.concentration
        end = self.loc - self.scale / F.where(c < 0, c, -1.0)
        return constraints.interval(self.loc, F.where(c < 0, end, math.inf))

    def _split(self) -> tuple[Tensor, Tensor]:
        """Where the concentration counts as 0, where formulas are linear in it, and one to divide by."""
        zero = isclose(self.concentration, zeros_like(self.concentration))
        return zero, F.where(zero, 1.0, self.concentration)

    @property
    def mean(self) -> Tensor:
        """loc + scale / (1 - concentration); NaN where that is 1 or more."""
        valid = self.concentration < 1
        return F.where(valid, self.loc + self.scale / (1 - F.where(valid, self.concentration, 0.5)), math.nan)

    @property
    def variance(self) -> Tensor:
        """scale^2 / ((1 - concentration)^2 (1 - 2 concentration)); NaN where that is 1/2 or more."""
        valid = self.concentration < 0.5
        c = F.where(valid, self.concentration, 0.25)
        return F.where(valid, self.scale**2 / ((1 - c) ** 2 * (1 - 2 * c)), math.nan)

    @property
    def mode(self) -> Tensor:
        """loc."""
        return self.loc

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """By inversion of the cdf."""
        return self.icdf(rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device))

    def log_prob(self, value: Tensor) -> Tensor:
        """-log(scale) - (1 / concentration + 1) log(1 + concentration z)."""
        if self._validate_args:
            self._validate_sample(value)
        z = (value - self.loc) / self.scale
        zero, c = self._split()
        power = 1 / c + 1
        formula = F.where(power == 0, 0.0, power * log1p(c * z))
        return -F.log(self.scale) - F.where(zero, z + self.concentration * (z - 0.5 * z * z), formula)

    def log_survival_function(self, value: Tensor) -> Tensor:
        """log of the probability of more than `value`."""
        if self._validate_args:
            self._validate_sample(value)
        z = (value - self.loc) / self.scale
        zero, c = self._split()
        return F.where(zero, 0.5 * self.concentration * z * z - z, -log1p(c * z) / c)

    def log_cdf(self, value: Tensor) -> Tensor:
        """log of `cdf`."""
        return log1p(-F.exp(self.log_survival_function(value)))

    def cdf(self, value: Tensor) -> Tensor:
        """1 - the survival function."""
        return F.exp(self.log_cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        zero, c = self._split()
        log_rest = log1p(-value)
        near_zero = 0.5 * self.concentration * log_rest * log_rest - log_rest
        return self.loc + self.scale * F.where(zero, near_zero, expm1(-c * log_rest) / c)

    def entropy(self) -> Tensor:
        """log(scale) + concentration + 1."""
        return F.log(self.scale) + self.concentration + 1
