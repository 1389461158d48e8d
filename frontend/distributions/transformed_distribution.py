"""Distributions of functions of random numbers."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kiln.autograd.grad_mode import no_grad
from kiln.constants import Size
from kiln.distributions import constraints
from kiln.distributions.distribution import Distribution
from kiln.distributions.independent import Independent
from kiln.distributions.transforms import ComposeTransform, Transform
from kiln.distributions.utils import sum_rightmost

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["TransformedDistribution"]


class TransformedDistribution(Distribution):
    """What `transforms`, one after another, make of numbers of `base_distribution`; the density follows from their
    Jacobians."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    _batched: ClassVar[dict[str, int]] = {}

    def __init__(
        self,
        base_distribution: Distribution,
        transforms: Transform | list[Transform],
        validate_args: bool | None = None,
    ) -> None:
        parts = [transforms] if isinstance(transforms, Transform) else transforms
        if not isinstance(parts, list) or not all(isinstance(t, Transform) for t in parts):
            self._refuse(f"transforms must be a Transform or a list of Transforms, but was {transforms}")
        self.transforms = parts
        whole = ComposeTransform(parts)
        need, event = whole.domain.event_dim, len(base_distribution.event_shape)
        shape = base_distribution.batch_shape + base_distribution.event_shape
        if len(shape) < need:
            self._refuse(f"base_distribution needs to have shape with size at least {need}, but got {shape}.")
        made = whole.forward_shape(shape)
        expanded = whole.inverse_shape(made)
        if shape != expanded:
            base_distribution = base_distribution.expand(expanded[: len(expanded) - event])
        if need > event:
            base_distribution = Independent(base_distribution, need - event)
        self.base_dist = base_distribution
        cut = len(made) - max(whole.codomain.event_dim, event + whole.codomain.event_dim - need)
        super().__init__(made[:cut], made[cut:], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The base, and parameters, expanded; the transforms are the same."""
        owner: Any = next(c for c in type(self).__mro__ if "_batched" in vars(c))
        new = self._get_checked_instance(owner, _instance)
        batch = Size(batch_shape)
        vars(new).update(vars(self))
        for name in owner._batched:
            vars(new)[name] = vars(self)[name].expand(batch)
        shape = batch + self._event_shape
        for t in reversed(self.transforms):
            shape = t.inverse_shape(shape)
        new.base_dist = self.base_dist.expand(shape[: len(shape) - len(self.base_dist.event_shape)])
        new._batch_shape = batch
        return new

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """The codomain of the last transform."""
        if not self.transforms:
            return self.base_dist.support
        last = self.transforms[-1].codomain
        more = len(self._event_shape) - last.event_dim
        return constraints.independent(last, more) if more > 0 else last

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base's samples are differentiable."""
        return bool(self.base_dist.has_rsample)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The base's, transformed, without a gradient."""
        with no_grad():
            return self._transformed(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The base's, transformed."""
        return self._transformed(self.base_dist.rsample(sample_shape))

    def _transformed(self, x: Tensor) -> Tensor:
        for t in self.transforms:
            x = t(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        """The base's, less the logarithms of the Jacobians' determinants."""
        if self._validate_args:
            self._validate_sample(value)
        event, total, y = len(self._event_shape), None, value
        for t in reversed(self.transforms):
            x = t.inv(y)
            event += t.domain.event_dim - t.codomain.event_dim
            term = sum_rightmost(t.log_abs_det_jacobian(x, y), event - t.domain.event_dim)
            total = -term if total is None else total - term
            y = x
        base = sum_rightmost(self.base_dist.log_prob(y), event - len(self.base_dist.event_shape))
        return base if total is None else total + base

    def _turned(self, value: Tensor) -> Tensor:
        """1 - value where the transforms decrease."""
        sign = functools.reduce(operator.mul, (t.sign for t in self.transforms), 1)
        return value if isinstance(sign, int) and sign == 1 else sign * (value - 0.5) + 0.5

    def cdf(self, value: Tensor) -> Tensor:
        """The base's at the inverse of `value`."""
        for t in reversed(self.transforms):
            value = t.inv(value)
        if self._validate_args:
            self.base_dist._validate_sample(value)
        return self._turned(self.base_dist.cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        """The base's, transformed."""
        return self._transformed(self.base_dist.icdf(self._turned(value)))
