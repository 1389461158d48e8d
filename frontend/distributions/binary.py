"""What distributions with a parameter that is a probability, or its log-odds, share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kiln.activation import logsigmoid
from kiln.distributions.distribution import Distribution
from kiln.distributions.utils import lazy_property, logits_to_probs, probs_to_logits

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["BinaryDistribution"]


class BinaryDistribution(Distribution):
    """Has `probs` or `logits`; the other one follows from it."""

    def _choose(self, probs: Any, logits: Any) -> str:
        """The name of the one that is given."""
        if (probs is None) == (logits is None):
            self._refuse("Either `probs` or `logits` must be specified, but not both.")
        return "logits" if probs is None else "probs"

    @lazy_property
    def logits(self) -> Tensor:
        """The log-odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """The probability."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def _param(self) -> Tensor:
        """The one that was given."""
        return self.probs if "probs" in vars(self) else self.logits

    @property
    def param_shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return self._param.shape


def negative_log_likelihood(logits: Tensor, value: Tensor) -> Tensor:
    """-log of the probability of `value` by these log-odds, precise for both outcomes."""
    return -value * logsigmoid(logits) - (1 - value) * logsigmoid(-logits)
