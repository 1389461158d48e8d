"""Samplers: in which order the numbers of samples come. All randomness is kiln's: `kiln.manual_seed` or a generator."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from kiln.errors import ArgumentError, InvalidValueError
from kiln.ir import types as T
from kiln.random import Generator, rand

Number = TypeVar("Number", covariant=True)


def uniform(count: int, generator: Generator | None) -> np.ndarray[Any, Any]:
    """Float64 numbers in [0, 1)."""
    return rand(count, dtype=T.float64, device="cpu", generator=generator).numpy()


def permutation(n: int, generator: Generator | None) -> list[int]:
    """0 to n - 1 in random order: sorted by n random keys."""
    order: list[int] = np.argsort(uniform(n, generator), kind="stable").tolist()
    return order


class Sampler(Generic[Number]):
    """The base of samplers: iterables of numbers (or of lists of them)."""

    def __iter__(self) -> Iterator[Number]:
        raise NotImplementedError(f"{type(self).__name__} does not define __iter__()")


class SequentialSampler(Sampler[int]):
    """All numbers in order."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """Random numbers: all in random order, or `num_samples` of them (more than there are: in several rounds). With
    `replacement` each is drawn from all."""

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise ArgumentError(f"replacement must be a bool, got {replacement!r}", op="RandomSampler")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if (
            not isinstance(self.num_samples, int)
            or self.num_samples < 0
            or (num_samples is not None and not num_samples)
        ):
            raise InvalidValueError(f"num_samples must be a positive int, got {num_samples!r}", op="RandomSampler")

    @property
    def num_samples(self) -> int:
        """How many numbers one iteration gives."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n, wanted = len(self.data_source), self.num_samples
        if self.replacement:
            drawn: list[int] = (uniform(wanted, self.generator) * n).astype(np.int64).tolist()
            yield from drawn
            return
        while wanted > 0 and n:
            yield from permutation(n, self.generator)[:wanted]
            wanted -= n

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given numbers in random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for i in permutation(len(self.indices), self.generator):
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """`num_samples` numbers drawn with probabilities proportional to `weights`, with replacement or without."""

    def __init__(
        self, weights: Any, num_samples: int, replacement: bool = True, generator: Generator | None = None
    ) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise InvalidValueError(f"num_samples must be a positive int, got {num_samples!r}", op=type(self).__name__)
        if not isinstance(replacement, bool):
            raise ArgumentError(f"replacement must be a bool, got {replacement!r}", op=type(self).__name__)
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1 or not (self.weights >= 0).all() or not 0 < self.weights.sum() < np.inf:
            raise InvalidValueError("weights must be a vector of numbers that are not negative", op=type(self).__name__)
        if not replacement and num_samples > np.count_nonzero(self.weights):
            raise InvalidValueError(
                f"can't draw {num_samples} of {np.count_nonzero(self.weights)} numbers without replacement",
                op=type(self).__name__,
            )
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        if self.replacement:
            heap = np.cumsum(self.weights)
            drawn = np.searchsorted(heap, uniform(self.num_samples, self.generator) * heap[-1], side="right")
        else:  # the k largest of u ** (1 / weight) (Efraimidis and Spirakis, 2006), compared by their logarithms
            with np.errstate(divide="ignore"):
                keys = np.log(uniform(len(self.weights), self.generator)) / self.weights
            drawn = np.argsort(-keys, kind="stable")[: self.num_samples]
        yield from drawn.tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` numbers of another sampler; the last may be shorter, or is left out (`drop_last`)."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise InvalidValueError(f"batch_size must be a positive int, got {batch_size!r}", op="BatchSampler")
        if not isinstance(drop_last, bool):
            raise ArgumentError(f"drop_last must be a bool, got {drop_last!r}", op="BatchSampler")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        numbers = iter(self.sampler)
        while batch := list(itertools.islice(numbers, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
