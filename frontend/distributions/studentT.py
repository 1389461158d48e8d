"""Student's t distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.distributions import constraints
from kiln.distributions.chi2 import Chi2
from kiln.distributions.distribution import Distribution
from kiln.distributions.utils import broadcast_all
from kiln.maths import digamma, lgamma, log1p
from kiln.random import randn

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["StudentT"]


class StudentT(Distribution):
    """loc + scale * normal / sqrt(chi2(df) / df)."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    _batched = {"df": 0, "loc": 0, "scale": 0, "_chi2": 0}

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        self._chi2 = Chi2(self.df)
        super().__init__(self.df.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """loc; NaN where df is at most 1."""
        return F.where(self.df <= 1, math.nan, self.loc)

    @property
    def mode(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """scale^2 df / (df - 2); infinite where df is at most 2, NaN where it is at most 1."""
        finite = self.df > 2
        df = F.where(finite, self.df, 3.0)
        value = F.where(finite, self.scale**2 * df / (df - 2), math.inf)
        return F.where(self.df <= 1, math.nan, value)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """By its definition."""
        x = randn(self._extended_shape(sample_shape), dtype=self.df.dtype, device=self.df.device)
        return self.loc + self.scale * x * F.rsqrt(self._chi2.rsample(sample_shape) / self.df)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        if self._validate_args:
            self._validate_sample(value)
        y, df = (value - self.loc) / self.scale, self.df
        norm = F.log(self.scale) + 0.5 * F.log(df) + 0.5 * math.log(math.pi)
        norm = norm + lgamma(0.5 * df) - lgamma(0.5 * (df + 1.0))
        return -0.5 * (df + 1.0) * log1p(y**2 / df) - norm

    def entropy(self) -> Tensor:
        """-E[log_prob]."""
        half, more = 0.5 * self.df, 0.5 * (self.df + 1)
        log_beta = lgamma(half) + math.lgamma(0.5) - lgamma(more)
        return F.log(self.scale) + more * (digamma(more) - digamma(half)) + 0.5 * F.log(self.df) + log_beta
