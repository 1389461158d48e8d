"""The Laplace distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.distributions import constraints
from kiln.distributions.distribution import Distribution
from kiln.distributions.utils import broadcast_all
from kiln.dtypes import finfo
from kiln.maths import expm1, log1p
from kiln.pointwise import sign
from kiln.random import rand

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Laplace"]


class Laplace(Distribution):
    """The density exp(-|x - loc| / scale) / (2 scale)."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    _batched = {"loc": 0, "scale": 0}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """2 scale^2."""
        return 2 * self.scale**2

    @property
    def stddev(self) -> Tensor:
        """sqrt(2) scale."""
        return 2**0.5 * self.scale

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """By inversion of the cdf, from a uniform number in (-1, 1)."""
        eps = finfo(self.loc.dtype).eps
        drawn = rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        u = drawn * (2 - eps) + (eps - 1)
        return self.loc - self.scale * sign(u) * log1p(-F.abs(u))

    def log_prob(self, value: Tensor) -> Tensor:
        """-log(2 scale) - |value - loc| / scale."""
        if self._validate_args:
            self._validate_sample(value)
        return -F.log(2 * self.scale) - F.abs(value - self.loc) / self.scale

    def cdf(self, value: Tensor) -> Tensor:
        """Half an exponential's on either side."""
        if self._validate_args:
            self._validate_sample(value)
        gap = value - self.loc
        return 0.5 - 0.5 * sign(gap) * expm1(-F.abs(gap) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        gap = value - 0.5
        return self.loc - self.scale * sign(gap) * log1p(-2 * F.abs(gap))

    def entropy(self) -> Tensor:
        """1 + log(2 scale)."""
        return 1 + F.log(2 * self.scale)
