"""The logistic-normal distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from kiln.distributions import constraints
from kiln.distributions.independent import Independent
from kiln.distributions.normal import Normal
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import StickBreakingTransform

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["LogisticNormal"]


class LogisticNormal(TransformedDistribution):
    """Points [n + 1] of the simplex, made of n normal numbers by breaking sticks."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex
    has_rsample = True
    _batched: ClassVar[dict[str, int]] = {}
    base_dist: Independent

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args=validate_args)
        base = base if base.batch_shape else base.expand((1,))
        super().__init__(base, StickBreakingTransform(), validate_args=validate_args)

    def _normal(self) -> Normal:
        return cast("Normal", self.base_dist.base_dist)

    @property
    def loc(self) -> Tensor:
        """The mean of the normal numbers."""
        return self._normal().loc

    @property
    def scale(self) -> Tensor:
        """Their deviation."""
        return self._normal().scale
