"""Categorical distributions of one-hot vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kiln import functional as F
from kiln.creation import eye
from kiln.distributions import constraints
from kiln.distributions.categorical import Categorical
from kiln.distributions.distribution import Distribution, enumerated
from kiln.gathering import one_hot

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["OneHotCategorical", "OneHotCategoricalStraightThrough"]


class OneHotCategorical(Distribution):
    """Vectors [n] of one 1, at an index of a categorical distribution."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.one_hot
    has_enumerate_support = True
    _batched = {"_categorical": 0}

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self._categorical = Categorical(probs, logits)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args=validate_args)

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
        """probs."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The likeliest vector."""
        return one_hot(self._categorical.mode, self._event_shape[0]).to(self._param.dtype)

    @property
    def variance(self) -> Tensor:
        """probs (1 - probs)."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Vectors, in the dtype of the parameter."""
        return one_hot(self._categorical.sample(sample_shape), self._event_shape[0]).to(self._param.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """That of the index of the 1."""
        if self._validate_args:
            self._validate_sample(value)
        return self._categorical.log_prob(F.argmax(value, -1))

    def entropy(self) -> Tensor:
        """The categorical one's."""
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The n unit vectors."""
        return enumerated(self, eye(self._event_shape[0], dtype=self._param.dtype, device=self._param.device), expand)


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """One-hot vectors whose gradient is taken for that of the probabilities (Bengio, Leonard and Courville, 2013:
    "Estimating or propagating gradients through stochastic neurons for conditional computation")."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Vectors, with the gradient of `probs`."""
        probs = self.probs
        return self.sample(sample_shape) + (probs - probs.detach())
