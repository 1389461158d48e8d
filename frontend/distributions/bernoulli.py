"""The Bernoulli distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.autograd.grad_mode import no_grad
from kiln.creation import arange
from kiln.distributions import constraints
from kiln.distributions.binary import BinaryDistribution, negative_log_likelihood
from kiln.distributions.distribution import enumerated
from kiln.distributions.exp_family import ExponentialFamily
from kiln.distributions.utils import broadcast_all
from kiln.maths import log1p, logit
from kiln.random import bernoulli

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Bernoulli"]


class Bernoulli(BinaryDistribution, ExponentialFamily):
    """1 with the probability `probs`, or of the log-odds `logits`; else 0."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True
    _batched = {"probs": 0, "logits": 0}
    _mean_carrier_measure = 0

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        name = self._choose(probs, logits)
        (parameter,) = broadcast_all(logits if probs is None else probs)
        vars(self)[name] = parameter
        super().__init__(parameter.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """probs."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The likelier one; NaN where both are alike."""
        p = self.probs
        return F.where(p == 0.5, math.nan, (p >= 0.5).to(p.dtype))

    @property
    def variance(self) -> Tensor:
        """probs (1 - probs)."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """0 and 1, in the dtype of the parameter."""
        with no_grad():
            return bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """log(probs) of 1, log(1 - probs) of 0."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -negative_log_likelihood(logits, value)

    def entropy(self) -> Tensor:
        """-p log(p) - (1 - p) log(1 - p)."""
        return negative_log_likelihood(self.logits, self.probs)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 and 1."""
        return enumerated(self, arange(2, dtype=self._param.dtype, device=self._param.device), expand)

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (logit(self.probs),)

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        return log1p(F.exp(natural_params[0]))
