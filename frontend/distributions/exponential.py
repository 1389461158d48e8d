"""The exponential distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.creation import zeros_like
from kiln.distributions import constraints, sampling
from kiln.distributions.exp_family import ExponentialFamily
from kiln.distributions.utils import broadcast_all
from kiln.maths import log1p

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Exponential"]


class Exponential(ExponentialFamily):
    """The density rate exp(-rate x) on x >= 0."""

    arg_constraints = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _batched = {"rate": 0}
    _mean_carrier_measure = 0

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """1 / rate."""
        return F.reciprocal(self.rate)

    @property
    def mode(self) -> Tensor:
        """0."""
        return zeros_like(self.rate)

    @property
    def stddev(self) -> Tensor:
        """1 / rate."""
        return F.reciprocal(self.rate)

    @property
    def variance(self) -> Tensor:
        """1 / rate^2."""
        return self.rate**-2

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Standard exponential numbers / rate."""
        return sampling.exponential(self._extended_shape(sample_shape), self.rate.dtype, self.rate.device) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """log(rate) - rate value."""
        if self._validate_args:
            self._validate_sample(value)
        return F.log(self.rate) - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        """1 - exp(-rate value)."""
        if self._validate_args:
            self._validate_sample(value)
        return 1 - F.exp(-self.rate * value)

    def icdf(self, value: Tensor) -> Tensor:
        """-log(1 - value) / rate."""
        return -log1p(-value) / self.rate

    def entropy(self) -> Tensor:
        """1 - log(rate)."""
        return 1.0 - F.log(self.rate)

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (-self.rate,)

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        return -F.log(-natural_params[0])
