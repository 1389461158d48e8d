"""The Kumaraswamy distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.creation import zeros_like
from kiln.distributions import constraints
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import AffineTransform, PowerTransform
from kiln.distributions.uniform import Uniform
from kiln.distributions.utils import broadcast_all, euler_constant
from kiln.maths import digamma, lgamma, log1p

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Kumaraswamy"]


class Kumaraswamy(TransformedDistribution):
    """Numbers in [0, 1], much like those of a beta distribution: (1 - u^(1 / concentration0))^(1 / concentration1) of
    uniform numbers u."""

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True
    _batched = {"concentration1": 0, "concentration0": 0}

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        zeros = zeros_like(self.concentration0)
        base = Uniform(zeros, zeros + 1, validate_args=validate_args)
        transforms = [
            PowerTransform(F.reciprocal(self.concentration0)),
            AffineTransform(loc=1.0, scale=-1.0),
            PowerTransform(F.reciprocal(self.concentration1)),
        ]
        super().__init__(base, transforms, validate_args=validate_args)

    def _moment(self, n: int) -> Tensor:
        a, b = 1 + n / self.concentration1, self.concentration0
        return b * F.exp(lgamma(a) + lgamma(b) - lgamma(a + b))

    @property
    def mean(self) -> Tensor:
        """The first moment."""
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        """((1 - c0)^(1 / c0)) / (1 - c0 c1); NaN where a concentration is below 1."""
        c1, c0 = self.concentration1, self.concentration0
        log_mode = log1p(-c0) / c0 - log1p(-c0 * c1)
        return F.exp(F.where((c0 < 1) | (c1 < 1), math.nan, log_mode))

    @property
    def variance(self) -> Tensor:
        """The second moment less the square of the first."""
        return self._moment(2) - self.mean**2

    def entropy(self) -> Tensor:
        """-E[log_prob]."""
        t1, t0 = 1 - F.reciprocal(self.concentration1), 1 - F.reciprocal(self.concentration0)
        harmonic = digamma(self.concentration0 + 1) + euler_constant
        return t0 + t1 * harmonic - F.log(self.concentration1) - F.log(self.concentration0)
