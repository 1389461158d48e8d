"""The inverse gamma distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from kiln import functional as F
from kiln.distributions import constraints
from kiln.distributions.gamma import Gamma
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import PowerTransform
from kiln.maths import digamma, lgamma

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["InverseGamma"]


class InverseGamma(TransformedDistribution):
    """1 / x of gamma numbers x."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    has_rsample = True
    _batched: ClassVar[dict[str, int]] = {}
    base_dist: Gamma

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        base = Gamma(concentration, rate, validate_args=validate_args)
        super().__init__(base, PowerTransform(-base.rate.new_ones(())), validate_args=validate_args)

    @property
    def concentration(self) -> Tensor:
        """The concentration of x."""
        return self.base_dist.concentration

    @property
    def rate(self) -> Tensor:
        """The rate of x."""
        return self.base_dist.rate

    @property
    def mean(self) -> Tensor:
        """rate / (concentration - 1); infinite where the concentration is at most 1."""
        c = self.concentration
        return F.where(c > 1, self.rate / (c - 1), math.inf)

    @property
    def mode(self) -> Tensor:
        """rate / (concentration + 1)."""
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        """rate^2 / ((concentration - 1)^2 (concentration - 2)); infinite where the concentration is at most 2."""
        c = self.concentration
        return F.where(c > 2, self.rate**2 / ((c - 1) ** 2 * (c - 2)), math.inf)

    def entropy(self) -> Tensor:
        """c + log(rate Gamma(c)) - (1 + c) digamma(c)."""
        c = self.concentration
        return c + F.log(self.rate) + lgamma(c) - (1 + c) * digamma(c)
