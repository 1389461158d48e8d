"""The gamma distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.distributions import constraints, sampling
from kiln.distributions.exp_family import ExponentialFamily
from kiln.distributions.utils import broadcast_all
from kiln.dtypes import finfo
from kiln.maths import digamma, lgamma, xlogy
from kiln.special import gammainc

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Gamma"]


class Gamma(ExponentialFamily):
    """The density rate^concentration x^(concentration - 1) exp(-rate x) / Gamma(concentration) on x > 0.

    Samples are differentiable, by implicit reparameterisation."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _batched = {"concentration": 0, "rate": 0}
    _mean_carrier_measure = 0

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """concentration / rate."""
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        """(concentration - 1) / rate, at least 0."""
        return F.clamp((self.concentration - 1) / self.rate, 0.0)

    @property
    def variance(self) -> Tensor:
        """concentration / rate^2."""
        return self.concentration / self.rate**2

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Standard gamma numbers / rate, and above 0."""
        shape = self._extended_shape(sample_shape)
        drawn = sampling.gamma(self.concentration.expand(shape)) / self.rate
        return F.clamp(drawn, finfo(drawn.dtype).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        if self._validate_args:
            self._validate_sample(value)
        a, rate = self.concentration, self.rate
        return xlogy(a, rate) + xlogy(a - 1, value) - rate * value - lgamma(a)

    def cdf(self, value: Tensor) -> Tensor:
        """The regularised lower incomplete gamma function."""
        if self._validate_args:
            self._validate_sample(value)
        return gammainc(self.concentration, self.rate * value)

    def entropy(self) -> Tensor:
        """concentration - log(rate) + log(Gamma(concentration)) + (1 - concentration) digamma(concentration)."""
        a = self.concentration
        return a - F.log(self.rate) + lgamma(a) + (1.0 - a) * digamma(a)

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return self.concentration - 1, -self.rate

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        x, y = natural_params
        return lgamma(x + 1) + (x + 1) * F.log(-F.reciprocal(y))
