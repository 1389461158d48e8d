"""The log-normal distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kiln import functional as F
from kiln.distributions import constraints
from kiln.distributions.normal import Normal
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import ExpTransform
from kiln.maths import expm1

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["LogNormal"]


class LogNormal(TransformedDistribution):
    """exp(x) of normal numbers x of mean `loc` and deviation `scale`."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive
    has_rsample = True
    _batched: ClassVar[dict[str, int]] = {}
    base_dist: Normal

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(loc, scale, validate_args=validate_args), ExpTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Tensor:
        """The mean of x."""
        return self.base_dist.loc

    @property
    def scale(self) -> Tensor:
        """The deviation of x."""
        return self.base_dist.scale

    @property
    def mean(self) -> Tensor:
        """exp(loc + scale^2 / 2)."""
        return F.exp(self.loc + self.scale**2 / 2)

    @property
    def mode(self) -> Tensor:
        """exp(loc - scale^2)."""
        return F.exp(self.loc - self.scale**2)

    @property
    def variance(self) -> Tensor:
        """(exp(scale^2) - 1) exp(2 loc + scale^2)."""
        square = self.scale**2
        return expm1(square) * F.exp(2 * self.loc + square)

    def entropy(self) -> Tensor:
        """The normal one's and loc."""
        return self.base_dist.entropy() + self.loc
