"""The binomial distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.activation import logsigmoid
from kiln.autograd.grad_mode import no_grad
from kiln.creation import arange
from kiln.distributions import constraints, sampling
from kiln.distributions.binary import BinaryDistribution
from kiln.distributions.distribution import enumerated
from kiln.distributions.utils import broadcast_all
from kiln.maths import lgamma
from kiln.pointwise import floor

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Binomial"]


class Binomial(BinaryDistribution):
    """How many of `total_count` trials succeed, each with the probability `probs`."""

    arg_constraints = {
        "total_count": constraints.nonnegative_integer,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    has_enumerate_support = True
    _batched = {"total_count": 0, "probs": 0, "logits": 0}

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name = self._choose(probs, logits)
        count, parameter = broadcast_all(total_count, logits if probs is None else probs)
        self.total_count = count.to(parameter.dtype)
        vars(self)[name] = parameter
        super().__init__(parameter.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """0 to `total_count`."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        """total_count probs."""
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        """floor((total_count + 1) probs), at most total_count."""
        return F.minimum(floor((self.total_count + 1) * self.probs), self.total_count)

    @property
    def variance(self) -> Tensor:
        """total_count probs (1 - probs)."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts, in the dtype of the parameter."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            return sampling.binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log of (total_count over value) probs^value (1 - probs)^(total_count - value)."""
        if self._validate_args:
            self._validate_sample(value)
        n, logits = self.total_count, self.logits
        ways = lgamma(n + 1) - lgamma(value + 1) - lgamma(n - value + 1)
        return value * logits + n * logsigmoid(-logits) + ways

    def entropy(self) -> Tensor:
        """The sum over all values; `total_count` must be the same in the whole batch."""
        log_prob = self.log_prob(self._values("entropy", False))
        return -(F.exp(log_prob) * log_prob).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 to `total_count`, which must be the same in the whole batch."""
        return self._values("enumerate_support", expand)

    def _values(self, op: str, expand: bool) -> Tensor:
        most = int(self.total_count.max())
        if int(self.total_count.min()) != most:
            raise NotImplementedError(f"Inhomogeneous total count not supported by `{op}`.")
        return enumerated(self, arange(1 + most, dtype=self._param.dtype, device=self._param.device), expand)
