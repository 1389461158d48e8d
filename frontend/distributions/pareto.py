"""The Pareto distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.distributions import constraints
from kiln.distributions.exponential import Exponential
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import AffineTransform, ExpTransform
from kiln.distributions.utils import broadcast_all

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Pareto"]


class Pareto(TransformedDistribution):
    """The density alpha scale^alpha / x^(alpha + 1) on x >= scale."""

    arg_constraints = {"alpha": constraints.positive, "scale": constraints.positive}
    _batched = {"scale": 0, "alpha": 0}

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = broadcast_all(scale, alpha)
        base = Exponential(self.alpha, validate_args=validate_args)
        transforms = [ExpTransform(), AffineTransform(loc=0, scale=self.scale)]
        super().__init__(base, transforms, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From `scale` on."""
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self) -> Tensor:
        """alpha scale / (alpha - 1); infinite where alpha is at most 1."""
        a = F.clamp(self.alpha, 1.0)
        return a * self.scale / (a - 1)

    @property
    def mode(self) -> Tensor:
        """scale."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """scale^2 alpha / ((alpha - 1)^2 (alpha - 2)); infinite where alpha is at most 2."""
        a = F.clamp(self.alpha, 2.0)
        return self.scale**2 * a / ((a - 1) ** 2 * (a - 2))

    def entropy(self) -> Tensor:
        """log(scale / alpha) + 1 + 1 / alpha."""
        return F.log(self.scale / self.alpha) + (1 + F.reciprocal(self.alpha))
