"""The in-place fills of `kiln.random` as methods: mixed into `Tensor`. (That module lies above tensors.)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from kiln.base import TensorBase

if TYPE_CHECKING:
    from kiln.random import Generator

Self = TypeVar("Self", bound="RandomMethods")


class RandomMethods(TensorBase):
    """The part of `Tensor` that draws random numbers."""

    __slots__ = ()

    def _filled(self, name: str, *args: Any, **kwargs: Any) -> Any:
        from kiln import random

        return getattr(random, name)(self, *args, **kwargs)

    def uniform_(self: Self, from_: float = 0, to: float = 1, *, generator: Generator | None = None) -> Self:
        """Uniform numbers from `from_` to below `to`, in place."""
        self._filled("uniform_", from_, to, generator)
        return self

    def normal_(self: Self, mean: float = 0, std: float = 1, *, generator: Generator | None = None) -> Self:
        """Normal numbers, in place."""
        self._filled("normal_", mean, std, generator)
        return self

    def bernoulli_(self: Self, p: Any = 0.5, *, generator: Generator | None = None) -> Self:
        """1 with probability `p`, a number or a tensor, else 0, in place."""
        self._filled("bernoulli_", p, generator=generator)
        return self

    def random_(self: Self, from_: int = 0, to: int | None = None, *, generator: Generator | None = None) -> Self:
        """random_(), random_(to) or random_(from_, to): integers from 0 or `from_` to below `to`, in place."""
        self._filled("random_", from_, to, generator=generator)
        return self

    def exponential_(self: Self, lambd: float = 1, *, generator: Generator | None = None) -> Self:
        """Exponential numbers of rate `lambd`, in place."""
        self._filled("exponential_", lambd, generator=generator)
        return self

    def log_normal_(self: Self, mean: float = 1, std: float = 2, *, generator: Generator | None = None) -> Self:
        """exp of normal numbers, in place."""
        self._filled("log_normal_", mean, std, generator=generator)
        return self

    def cauchy_(self: Self, median: float = 0, sigma: float = 1, *, generator: Generator | None = None) -> Self:
        """Cauchy-distributed numbers, in place."""
        self._filled("cauchy_", median, sigma, generator=generator)
        return self

    def geometric_(self: Self, p: float, *, generator: Generator | None = None) -> Self:
        """Trials of success `p` until the first one, in place."""
        self._filled("geometric_", p, generator=generator)
        return self

    def bernoulli(self, p: float | None = None, *, generator: Generator | None = None) -> Any:
        """`kiln.bernoulli` of this tensor."""
        return self._filled("bernoulli", p, generator=generator)

    def multinomial(self, num_samples: int, replacement: bool = False, *, generator: Generator | None = None) -> Any:
        """`kiln.multinomial` of this tensor."""
        return self._filled("multinomial", num_samples, replacement, generator=generator)
