"""The multinomial distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kiln import functional as F
from kiln.distributions import constraints
from kiln.distributions.binomial import Binomial
from kiln.distributions.categorical import Categorical
from kiln.distributions.distribution import Distribution
from kiln.distributions.utils import broadcast_all
from kiln.gathering import one_hot
from kiln.maths import lgamma

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Multinomial"]


class Multinomial(Distribution):
    """How often each of n outcomes comes in `total_count` trials, with the probabilities `probs` [..., n]."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    _batched = {"_categorical": 0, "_binomial": 1}

    def __init__(
        self,
        total_count: int = 1,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._categorical = Categorical(probs=probs, logits=logits)
        self._binomial = Binomial(total_count=total_count, probs=self.probs)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Counts of a sum of at most `total_count`."""
        return constraints.multinomial(self.total_count)

    @property
    def _param(self) -> Tensor:
        return self._categorical._param

    @property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def param_shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        """total_count probs."""
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        """total_count probs (1 - probs)."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts, in the dtype of the parameter: of `total_count` categorical indices."""
        n = self._event_shape[0]
        drawn = self._categorical.sample((self.total_count, *sample_shape))
        return one_hot(drawn, n).sum(0).to(self._param.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log of total_count! times the product of probs_k^value_k / value_k!."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        logits = F.where((value == 0) & (logits == -math.inf), 0.0, logits)
        ways = lgamma(value.sum(-1) + 1) - lgamma(value + 1).sum(-1)
        return ways + (logits * value).sum(-1)

    def entropy(self) -> Tensor:
        """By the entropy of one trial and what the counts' order takes away."""
        n = self.total_count
        counts = self._binomial.enumerate_support(expand=False)[1:]
        spread = (F.exp(self._binomial.log_prob(counts)) * lgamma(counts + 1)).sum((0, -1))
        return n * self._categorical.entropy() - math.lgamma(n + 1) + spread
