"""The negative binomial distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.activation import logsigmoid
from kiln.autograd.grad_mode import no_grad
from kiln.distributions import constraints, sampling
from kiln.distributions.binary import BinaryDistribution
from kiln.distributions.utils import broadcast_all
from kiln.maths import lgamma
from kiln.pointwise import floor
from kiln.random import poisson

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["NegativeBinomial"]


class NegativeBinomial(BinaryDistribution):
    """How many trials succeed, each with the probability `probs`, before `total_count` of them have failed; that may be
    any positive number."""

    arg_constraints = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }
    support = constraints.nonnegative_integer
    _batched = {"total_count": 0, "probs": 0, "logits": 0}

    def __init__(
        self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name = self._choose(probs, logits)
        count, parameter = broadcast_all(total_count, logits if probs is None else probs)
        self.total_count = count.to(parameter.dtype)
        vars(self)[name] = parameter
        super().__init__(parameter.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """total_count probs / (1 - probs)."""
        return self.total_count * F.exp(self.logits)

    @property
    def mode(self) -> Tensor:
        """floor((total_count - 1) probs / (1 - probs)), at least 0."""
        return F.clamp(floor((self.total_count - 1) * F.exp(self.logits)), 0.0)

    @property
    def variance(self) -> Tensor:
        """mean / (1 - probs)."""
        return self.mean / F.sigmoid(-self.logits)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Poisson numbers of rates that are gamma numbers."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            rate = sampling.gamma(self.total_count.expand(shape)) * F.exp(self.logits)
            return poisson(rate)

    def log_prob(self, value: Tensor) -> Tensor:
        """log of (total_count + value - 1 over value) (1 - probs)^total_count probs^value."""
        if self._validate_args:
            self._validate_sample(value)
        n, logits = self.total_count, self.logits
        ways = lgamma(n + value) - lgamma(1.0 + value) - lgamma(n)
        ways = F.where(n + value == 0.0, 0.0, ways)
        return n * logsigmoid(-logits) + value * logsigmoid(logits) + ways
