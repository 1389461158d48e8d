"""Distributions of |x|, where x is symmetric around 0."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from kiln import functional as F
from kiln.creation import zeros_like
from kiln.distributions import constraints
from kiln.distributions.distribution import Distribution
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import AbsTransform

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Folded"]


class Folded(TransformedDistribution):
    """|x| of numbers x from `whole`, a symmetric distribution with a scale."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _batched: ClassVar[dict[str, int]] = {}
    whole: ClassVar[type[Distribution]]
    base_dist: Any

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        base = self.whole(0, scale, validate_args=False)  # type: ignore[arg-type]
        super().__init__(base, AbsTransform(), validate_args=validate_args)

    @property
    def scale(self) -> Tensor:
        """The scale of x."""
        scale: Tensor = self.base_dist.scale
        return scale

    @property
    def mode(self) -> Tensor:
        """0."""
        return zeros_like(self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        """The whole one's and log(2); -inf below 0."""
        if self._validate_args:
            self._validate_sample(value)
        return F.where(value >= 0, self.base_dist.log_prob(value) + math.log(2), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """Twice the whole one's, less 1."""
        if self._validate_args:
            self._validate_sample(value)
        below: Tensor = 2 * self.base_dist.cdf(value) - 1
        return below

    def icdf(self, value: Tensor) -> Tensor:
        """The whole one's of (value + 1) / 2."""
        quantile: Tensor = self.base_dist.icdf((value + 1) / 2)
        return quantile

    def entropy(self) -> Tensor:
        """The whole one's, less log(2)."""
        entropy: Tensor = self.base_dist.entropy() - math.log(2)
        return entropy
