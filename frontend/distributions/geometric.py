"""The geometric distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import functional as F
from kiln.autograd.grad_mode import no_grad
from kiln.checks import holds
from kiln.creation import zeros_like
from kiln.distributions import constraints, sampling
from kiln.distributions.binary import BinaryDistribution, negative_log_likelihood
from kiln.distributions.utils import broadcast_all
from kiln.maths import log1p
from kiln.pointwise import floor

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Geometric"]


class Geometric(BinaryDistribution):
    """How many trials fail before the first success, each succeeding with the probability `probs`."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer
    _batched = {"probs": 0, "logits": 0}

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        name = self._choose(probs, logits)
        (parameter,) = broadcast_all(logits if probs is None else probs)
        vars(self)[name] = parameter
        super().__init__(parameter.shape, validate_args=validate_args)
        if self._validate_args and probs is not None and not holds(parameter > 0):
            self._refuse(
                f"Expected parameter probs ({type(parameter).__name__} of shape {tuple(parameter.shape)}) of "
                f"distribution {self!r} to be positive but found invalid values:\n{parameter[parameter <= 0]}"
            )

    @property
    def mean(self) -> Tensor:
        """1 / probs - 1."""
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        """0."""
        return zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        """(1 / probs - 1) / probs."""
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Exponential numbers of the rate -log(1 - probs), rounded down."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            return floor(sampling.exponential(shape, self.probs.dtype, self.probs.device) / -log1p(-self.probs))

    def log_prob(self, value: Tensor) -> Tensor:
        """value log(1 - probs) + log(probs)."""
        if self._validate_args:
            self._validate_sample(value)
        value, probs = broadcast_all(value, self.probs)
        failing = F.where((probs == 1) & (value == 0), 0.0, probs)  # 0 times log(0) is 0 here
        return value * log1p(-failing) + F.log(probs)

    def entropy(self) -> Tensor:
        """Of a Bernoulli trial, / probs."""
        return negative_log_likelihood(self.logits, self.probs) / self.probs
