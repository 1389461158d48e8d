"""`Distribution`: what all of them share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from kiln.autograd.grad_mode import no_grad
from kiln.base import TensorBase
from kiln.checks import holds
from kiln.constants import Size
from kiln.distributions import constraints
from kiln.distributions.utils import lazy_property
from kiln.errors import InvalidValueError

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["Distribution"]

Self = TypeVar("Self", bound="Distribution")


class Distribution:
    """A probability distribution, or a batch of independent ones of shape `batch_shape`; one sample of one of them has
    the shape `event_shape`.

    Arguments are validated unless `validate_args` is False; by default as `set_default_validate_args` says. What
    depends on data is not asked inside of a captured function, which could not ask again, and of `vmap`.
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args: bool = __debug__
    _batched: ClassVar[dict[str, int]]
    """Attributes that `expand` expands, tensors and distributions, with their number of dimensions after the batch's.
    The class whose attributes these are is the one whose `__init__` made the instance, or it can't be expanded."""

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether arguments are validated unless told; at first they are, save under `python -O`."""
        if value not in (True, False):
            raise InvalidValueError(f"expected a bool, got {value!r}", op="set_default_validate_args")
        Distribution._validate_args = value

    def __init__(
        self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (), validate_args: bool | None = None
    ) -> None:
        self._batch_shape = Size(batch_shape)
        self._event_shape = Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._validate_parameters()

    def _validate_parameters(self) -> None:
        try:
            rules = self.arg_constraints
        except NotImplementedError:
            warnings.warn(
                f"{type(self)} does not define `arg_constraints`. Please set `arg_constraints = {{}}` or initialize "
                "the distribution with `validate_args=False` to turn off validation.",
                stacklevel=4,
            )
            return
        for name, constraint in rules.items():
            derived = name not in vars(self) and isinstance(getattr(type(self), name, None), lazy_property)
            if constraints.is_dependent(constraint) or derived:
                continue
            value = getattr(self, name)
            if not holds(constraint.check(value)):
                self._refuse(
                    f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)}) of distribution "
                    f"{self!r} to satisfy the constraint {constraint!r}, but found invalid values:\n{value}"
                )

    def _refuse(self, message: str) -> NoReturn:
        raise InvalidValueError(message, op=type(self).__name__)

    def _lacks(self, name: str) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} does not implement {name}")

    def expand(self: Self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """The same with its batch expanded to `batch_shape`; parameters are expanded, as views, and nothing is
        validated again."""
        owner: Any = next((c for c in type(self).__mro__ if "_batched" in vars(c)), None)
        if owner is None:
            self._lacks("expand")
        new = self._get_checked_instance(owner, _instance)
        batch = Size(batch_shape)
        for name, value in vars(self).items():
            after = owner._batched.get(name)
            if after is not None:
                shape = value.batch_shape if isinstance(value, Distribution) else value.shape
                value = value.expand((*batch, *shape[len(shape) - after :]))
            vars(new)[name] = value
        new._batch_shape = batch
        return new

    def _get_checked_instance(self: Self, cls: Any, _instance: Any = None) -> Self:
        """A new instance of this class to be filled by `expand`, or `_instance`; only if `cls` made this one."""
        if _instance is None and type(self).__init__ != cls.__init__:
            raise NotImplementedError(
                f"Subclass {type(self).__name__} of {cls.__name__} that defines a custom __init__ method must also "
                "define a custom .expand() method."
            )
        return type(self).__new__(type(self)) if _instance is None else _instance

    @property
    def batch_shape(self) -> Size:
        """The shape that parameters are batched over."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one sample of one distribution of the batch."""
        return self._event_shape

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What parameters must satisfy, by their names."""
        self._lacks("arg_constraints")

    @property
    def support(self) -> Any:
        """The constraint that samples satisfy."""
        self._lacks("support")

    @property
    def mean(self) -> Tensor:
        """The mean, [*batch_shape, *event_shape]."""
        self._lacks("mean")

    @property
    def mode(self) -> Tensor:
        """The mode, [*batch_shape, *event_shape]."""
        self._lacks("mode")

    @property
    def variance(self) -> Tensor:
        """The variance, [*batch_shape, *event_shape]."""
        self._lacks("variance")

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Samples [*sample_shape, *batch_shape, *event_shape], without a gradient."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Samples [*sample_shape, *batch_shape, *event_shape] through which gradients flow to the parameters."""
        self._lacks("rsample")

    def sample_n(self, n: int) -> Tensor:
        """`sample((n,))`, which is what to write."""
        warnings.warn(
            "`sample_n(n)` will be deprecated. Use `sample((n,))` instead.", category=FutureWarning, stacklevel=2
        )
        return self.sample((n,))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability, at `value`, which broadcasts with the batch."""
        self._lacks("log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of at most `value`."""
        self._lacks("cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """What `cdf` gives `value` of."""
        self._lacks("icdf")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a discrete distribution along a new first dimension, [n, *batch_shape, *event_shape]; with
        expand=False the dimensions of the batch are 1."""
        self._lacks("enumerate_support")

    def entropy(self) -> Tensor:
        """The entropy in nats, [*batch_shape]."""
        self._lacks("entropy")

    def perplexity(self) -> Tensor:
        """exp of the entropy."""
        return self.entropy().exp()

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _validate_sample(self, value: Any) -> None:
        """InvalidValueError unless `value` could be a sample."""
        if not isinstance(value, TensorBase):
            self._refuse("The value argument to log_prob must be a Tensor")
        shape, event = value.shape, self._event_shape
        if shape[max(0, len(shape) - len(event)) :] != event:
            self._refuse(f"The right-most size of value must match event_shape: {shape} vs {event}.")
        expected = self._batch_shape + event
        for i, j in zip(reversed(shape), reversed(expected), strict=False):
            if i != 1 and j != 1 and i != j:
                self._refuse(f"Value is not broadcastable with batch_shape+event_shape: {shape} vs {expected}.")
        try:
            support = self.support
        except NotImplementedError:
            warnings.warn(
                f"{type(self)} does not define `support` to enable sample validation. Please initialize the "
                "distribution with `validate_args=False` to turn off validation.",
                stacklevel=3,
            )
            return
        if not holds(support.check(value)):
            self._refuse(
                f"Expected value argument ({type(value).__name__} of shape {tuple(shape)}) to be within the support "
                f"({support!r}) of the distribution {self!r}, but found invalid values:\n{value}"
            )

    def __repr__(self) -> str:
        parameters = ((name, vars(self)[name]) for name in self.arg_constraints if name in vars(self))
        shown = ", ".join(f"{n}: {v if v.numel() == 1 else v.shape}" for n, v in parameters)
        return f"{type(self).__name__}({shown})"


def enumerated(distribution: Distribution, values: Tensor, expand: bool) -> Tensor:
    """All values of a discrete distribution, [n, *event_shape], with the dimensions of its batch put in, of size 1
    unless `expand`."""
    batch, event = distribution.batch_shape, distribution.event_shape
    made = values.reshape((-1, *(1 for _ in batch), *event))
    return made.expand((-1, *batch, *event)) if expand else made
