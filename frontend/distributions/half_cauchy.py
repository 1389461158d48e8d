"""The half-Cauchy distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from kiln import functional as F
from kiln.creation import full_like, zeros_like
from kiln.distributions import constraints
from kiln.distributions.cauchy import Cauchy
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import AbsTransform

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["HalfCauchy"]


class HalfCauchy(TransformedDistribution):
    """|x| of Cauchy-distributed numbers x around 0."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _batched: ClassVar[dict[str, int]] = {}
    base_dist: Cauchy

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Cauchy(0, scale, validate_args=False), AbsTransform(), validate_args=validate_args)

    @property
    def scale(self) -> Tensor:
        """The scale of x."""
        return self.base_dist.scale

    @property
    def mean(self) -> Tensor:
        """Infinite."""
        return full_like(self.scale, math.inf)

    @property
    def mode(self) -> Tensor:
        """0."""
        return zeros_like(self.scale)

    @property
    def variance(self) -> Tensor:
        """Infinite."""
        return full_like(self.scale, math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        """The Cauchy one's and log(2); -inf below 0."""
        if self._validate_args:
            self._validate_sample(value)
        return F.where(value >= 0, self.base_dist.log_prob(value) + math.log(2), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """Twice the Cauchy one's, less 1."""
        if self._validate_args:
            self._validate_sample(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        """The Cauchy one's of (value + 1) / 2."""
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        """The Cauchy one's, less log(2)."""
        return self.base_dist.entropy() - math.log(2)
