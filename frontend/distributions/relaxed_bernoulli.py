"""Bernoulli distributions relaxed to numbers between 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kiln import functional as F
from kiln.activation import softplus
from kiln.base import TensorBase
from kiln.distributions import constraints
from kiln.distributions.binary import BinaryDistribution
from kiln.distributions.transformed_distribution import TransformedDistribution
from kiln.distributions.transforms import SigmoidTransform
from kiln.distributions.utils import broadcast_all, clamp_probs
from kiln.maths import log1p
from kiln.random import rand

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["LogitRelaxedBernoulli", "RelaxedBernoulli"]


class LogitRelaxedBernoulli(BinaryDistribution):
    """The log-odds of `RelaxedBernoulli` (Maddison, Mnih and Teh, 2017: "The concrete distribution")."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.real
    has_rsample = True
    _batched = {"probs": 0, "logits": 0}

    def __init__(
        self, temperature: Tensor, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self.temperature = temperature
        name = self._choose(probs, logits)
        (parameter,) = broadcast_all(logits if probs is None else probs)
        vars(self)[name] = parameter
        super().__init__(parameter.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(log-odds of a uniform number + logits) / temperature."""
        shape = self._extended_shape(sample_shape)
        probs = clamp_probs(self.probs.expand(shape))
        u = clamp_probs(rand(shape, dtype=probs.dtype, device=probs.device))
        return (F.log(u) - log1p(-u) + F.log(probs) - log1p(-probs)) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        gap = logits - value * self.temperature
        return F.add(gap - 2 * softplus(gap), _log(self.temperature))


def _log(temperature: Any) -> Any:
    return F.log(temperature) if isinstance(temperature, TensorBase) else math.log(temperature)


class RelaxedBernoulli(TransformedDistribution):
    """Numbers in (0, 1) that are close to Bernoulli numbers when `temperature` is low, and differentiable."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _batched: ClassVar[dict[str, int]] = {}
    base_dist: LogitRelaxedBernoulli

    def __init__(
        self, temperature: Tensor, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        base = LogitRelaxedBernoulli(temperature, probs, logits)
        super().__init__(base, SigmoidTransform(), validate_args=validate_args)

    @property
    def temperature(self) -> Tensor:
        """As given."""
        return self.base_dist.temperature

    @property
    def logits(self) -> Tensor:
        """The log-odds."""
        return self.base_dist.logits

    @property
    def probs(self) -> Tensor:
        """The probability."""
        return self.base_dist.probs
