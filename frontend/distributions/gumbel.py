"""The Gumbel distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.creation import ones_like
from kiln.distributions import constraints
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import AffineTransform, ExpTransform
from kiln.distributions.uniform import Uniform
from kiln.distributions.utils import broadcast_all, euler_constant
from kiln.dtypes import finfo

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Gumbel"]


class Gumbel(TransformedDistribution):
    """loc - scale log(-log(u)) of uniform numbers u: what the largest of many numbers is like."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    _batched = {"loc": 0, "scale": 0}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        info, ones = finfo(self.loc.dtype), ones_like(self.loc)
        base = Uniform(ones * info.tiny, ones * (1 - info.eps), validate_args=validate_args)
        flipped = AffineTransform(loc=0, scale=-ones)
        transforms = [ExpTransform().inv, flipped, ExpTransform().inv, AffineTransform(loc=self.loc, scale=-self.scale)]
        super().__init__(base, transforms, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """y - exp(y) - log(scale), y being (loc - value) / scale."""
        if self._validate_args:
            self._validate_sample(value)
        y = (self.loc - value) / self.scale
        return y - F.exp(y) - F.log(self.scale)

    @property
    def mean(self) -> Tensor:
        """loc and Euler's constant times scale."""
        return self.loc + self.scale * euler_constant

    @property
    def mode(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def stddev(self) -> Tensor:
        """scale pi / sqrt(6)."""
        return math.pi / math.sqrt(6) * self.scale

    @property
    def variance(self) -> Tensor:
        """scale^2 pi^2 / 6."""
        return self.stddev**2

    def entropy(self) -> Tensor:
        """log(scale) + 1 and Euler's constant."""
        return F.log(self.scale) + (1 + euler_constant)
