"""Mixtures of distributions of one family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kiln import functional as F
from kiln.autograd.grad_mode import no_grad
from kiln.constants import Size
from kiln.distributions import constraints
from kiln.distributions.categorical import Categorical
from kiln.distributions.distribution import Distribution
from kiln.gathering import gather
from kiln.reductions import logsumexp

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["MixtureSameFamily"]


class MixtureSameFamily(Distribution):
    """A mixture of the distributions in the last dimension of `component_distribution`'s batch, chosen by
    `mixture_distribution`, a Categorical."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self,
        mixture_distribution: Categorical,
        component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(mixture_distribution, Categorical):
            self._refuse("The Mixture distribution needs to be an instance of kiln.distributions.Categorical")
        if not isinstance(component_distribution, Distribution):
            self._refuse("The Component distribution needs to be an instance of kiln.distributions.Distribution")
        self._mixture_distribution, self._component_distribution = mixture_distribution, component_distribution
        mixed, batch = mixture_distribution.batch_shape, component_distribution.batch_shape[:-1]
        for i, j in zip(reversed(mixed), reversed(batch), strict=False):
            if i != 1 and j != 1 and i != j:
                self._refuse(
                    f"`mixture_distribution.batch_shape` ({mixed}) is not compatible with "
                    f"`component_distribution.batch_shape`({batch})"
                )
        n, parts = mixture_distribution.param_shape[-1], component_distribution.batch_shape[-1]
        if n != parts:
            self._refuse(
                f"`mixture_distribution component` ({n}) does not equal `component_distribution.batch_shape[-1]` "
                f"({parts})"
            )
        self._num_component = n
        event = component_distribution.event_shape
        self._event_ndims = len(event)
        super().__init__(batch, event, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The components and their choice expanded."""
        new = self._get_checked_instance(MixtureSameFamily, _instance)
        vars(new).update(vars(self))
        batch = Size(batch_shape)
        new._component_distribution = self._component_distribution.expand((*batch, self._num_component))
        new._mixture_distribution = self._mixture_distribution.expand(batch)
        new._batch_shape = batch
        return new

    @constraints.dependent_property
    def support(self) -> Any:
        """What every component supports."""
        return constraints.MixtureSameFamilyConstraint(self._component_distribution.support)

    @property
    def mixture_distribution(self) -> Categorical:
        """Which component."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        """The components."""
        return self._component_distribution

    def _pad(self, x: Tensor) -> Tensor:
        """With a dimension for the components."""
        return x.unsqueeze(-1 - self._event_ndims)

    def _probs(self) -> Tensor:
        """The components' probabilities, to be multiplied with their moments."""
        probs = self._mixture_distribution.probs
        lead = (1,) * (len(self._batch_shape) - (probs.ndim - 1))
        return probs.reshape((*lead, *probs.shape, *(1,) * self._event_ndims))

    @property
    def mean(self) -> Tensor:
        """The mean of the components' means."""
        return (self._probs() * self._component_distribution.mean).sum(-1 - self._event_ndims)

    @property
    def variance(self) -> Tensor:
        """The mean of the components' variances, and the variance of their means."""
        gap = self._component_distribution.mean - self._pad(self.mean)
        return (self._probs() * (self._component_distribution.variance + gap**2)).sum(-1 - self._event_ndims)

    def cdf(self, value: Tensor) -> Tensor:
        """The mean of the components'."""
        return (self._component_distribution.cdf(self._pad(value)) * self._mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the mean of the components' densities."""
        if self._validate_args:
            self._validate_sample(value)
        of_parts = self._component_distribution.log_prob(self._pad(value))
        return logsumexp(of_parts + F.log_softmax(self._mixture_distribution.logits, -1), -1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """One of all components' samples each."""
        with no_grad():
            dim = len(sample_shape) + len(self._batch_shape)
            drawn = self._component_distribution.sample(sample_shape)
            index = self._mixture_distribution.expand(self._batch_shape).sample(sample_shape)
            index = index.reshape((*index.shape, *(1,) * (self._event_ndims + 1)))
            index = index.expand((*index.shape[: dim + 1], *self._event_shape))
            return gather(drawn, dim, index).squeeze(dim)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self._mixture_distribution},\n  {self._component_distribution})"
