"""The Weibull distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.creation import ones_like
from kiln.distributions import constraints
from kiln.distributions.exponential import Exponential
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import AffineTransform, PowerTransform
from kiln.distributions.utils import broadcast_all, euler_constant
from kiln.maths import lgamma

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Weibull"]


class Weibull(TransformedDistribution):
    """scale e^(1 / concentration) of standard exponential numbers e."""

    arg_constraints = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive
    _batched = {"scale": 0, "concentration": 0, "concentration_reciprocal": 0}

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = broadcast_all(scale, concentration)
        self.concentration_reciprocal = F.reciprocal(self.concentration)
        base = Exponential(ones_like(self.scale), validate_args=validate_args)
        transforms = [PowerTransform(self.concentration_reciprocal), AffineTransform(loc=0, scale=self.scale)]
        super().__init__(base, transforms, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """scale Gamma(1 + 1 / concentration)."""
        return self.scale * F.exp(lgamma(1 + self.concentration_reciprocal))

    @property
    def mode(self) -> Tensor:
        """scale ((concentration - 1) / concentration)^(1 / concentration)."""
        return self.scale * ((self.concentration - 1) / self.concentration) ** self.concentration_reciprocal

    @property
    def variance(self) -> Tensor:
        """scale^2 (Gamma(1 + 2 / concentration) - Gamma(1 + 1 / concentration)^2)."""
        r = self.concentration_reciprocal
        return self.scale**2 * (F.exp(lgamma(1 + 2 * r)) - F.exp(2 * lgamma(1 + r)))

    def entropy(self) -> Tensor:
        """Euler's constant times (1 - 1 / concentration) + log(scale / concentration) + 1."""
        r = self.concentration_reciprocal
        return euler_constant * (1 - r) + F.log(self.scale * r) + 1
