"""The categorical distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kiln import functional as F
from kiln.autograd.grad_mode import no_grad
from kiln.creation import arange, full
from kiln.distributions import constraints
from kiln.distributions.distribution import Distribution, enumerated
from kiln.distributions.utils import lazy_property, logits_to_probs, probs_to_logits
from kiln.dtypes import finfo
from kiln.gathering import gather
from kiln.ir.types import int64
from kiln.movement import broadcast_tensors
from kiln.random import multinomial
from kiln.reductions import logsumexp

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Categorical"]


class Categorical(Distribution):
    """Indices 0 ... n - 1 of the probabilities `probs` [..., n], which are brought to the sum 1, or of the unnormalised
    logarithms of such, `logits`."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    _batched = {"probs": 1, "logits": 1}

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        if (probs is None) == (logits is None):
            self._refuse("Either `probs` or `logits` must be specified, but not both.")
        name, given = ("probs", probs) if logits is None else ("logits", logits)
        if given is None or given.ndim < 1:
            self._refuse(f"`{name}` parameter must be at least one-dimensional.")
        normal = given / given.sum(-1, True) if logits is None else given - logsumexp(given, -1, True)
        vars(self)[name] = normal
        self._num_events = normal.shape[-1]
        super().__init__(normal.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """0 ... n - 1."""
        return constraints.integer_interval(0, self._num_events - 1)

    @lazy_property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities."""
        return probs_to_logits(self.probs)

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities."""
        return logits_to_probs(self.logits)

    @property
    def _param(self) -> Tensor:
        """The one that was given."""
        return self.probs if "probs" in vars(self) else self.logits

    @property
    def param_shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return self._param.shape

    @property
    def mean(self) -> Tensor:
        """NaN: indices have none."""
        return full(self._extended_shape(), math.nan, dtype=self._param.dtype, device=self._param.device)

    @property
    def mode(self) -> Tensor:
        """The likeliest index."""
        return F.argmax(self.probs, -1)

    @property
    def variance(self) -> Tensor:
        """NaN: indices have none."""
        return full(self._extended_shape(), math.nan, dtype=self._param.dtype, device=self._param.device)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Indices, int64."""
        shape = self._extended_shape(sample_shape)
        if 0 in shape:
            return full(shape, 0, dtype=int64, device=self._param.device)
        with no_grad():
            rows = self.probs.reshape((-1, self._num_events))
            drawn = multinomial(rows, math.prod(sample_shape), True)
            return drawn.t().reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithms of the probabilities of indices."""
        if self._validate_args:
            self._validate_sample(value)
        index = value.to(int64).unsqueeze(-1)
        index, logits = broadcast_tensors(index, self.logits)
        return gather(logits, -1, index[..., :1]).squeeze(-1)

    def entropy(self) -> Tensor:
        """-sum of p log(p)."""
        logits = F.clamp(self.logits, finfo(self._param.dtype).min)
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 ... n - 1."""
        return enumerated(self, arange(self._num_events, dtype=int64, device=self._param.device), expand)
