"""Data sets: sequences of samples, and streams of them."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

from kiln.creation import from_numpy
from kiln.data.sampler import permutation
from kiln.errors import ArgumentError, InvalidValueError, KilnIndexError
from kiln.random import Generator
from kiln.tensor import Tensor

Sample = TypeVar("Sample", covariant=True)


class Dataset(Generic[Sample]):
    """The base of data sets: `dataset[i]` is sample i; most have a length. One that can give several samples at once
    may define `__getitems__(indices)`."""

    def __getitem__(self, index: Any) -> Sample:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__()")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[Sample]):
    """The base of data sets that are iterated over: `__iter__` gives samples. Each worker of a loader iterates over
    its own copy: `get_worker_info` tells which part is its."""

    def __iter__(self) -> Iterator[Sample]:
        raise NotImplementedError(f"{type(self).__name__} does not define __iter__()")

    def __add__(self, other: Dataset[Any]) -> Any:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors of one length: sample i is the tuple of their elements i."""

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors or any(len(t) != len(tensors[0]) for t in tensors):
            raise InvalidValueError("needs tensors of one length", operands=[t.ttype for t in tensors])
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple([t[index] for t in self.tensors])

    def __len__(self) -> int:
        return len(self.tensors[0])

    def batch(self, indices: Sequence[Any]) -> list[Tensor] | None:
        """What `default_collate` makes of these samples, gathered at once. None where that needs more: numbers out of
        range or of another kind than int, tensors on a GPU, or that gradients flow through."""
        n = len(self)
        plain = all(type(i) is int and -n <= i < n for i in indices)
        if not plain or not indices or any(t.requires_grad or t.is_cuda for t in self.tensors):
            return None
        return [from_numpy(t.numpy()[indices]) for t in self.tensors]


class StackDataset(Dataset[Any]):
    """Data sets of one length side by side: sample i is the tuple of their samples i, or a dict of them when they were
    given by name."""

    def __init__(self, *args: Dataset[Any], **kwargs: Dataset[Any]) -> None:
        if bool(args) == bool(kwargs):
            raise InvalidValueError("takes data sets either by position or by name", op="StackDataset")
        self.datasets: Any = kwargs or args
        lengths = {len(cast("Any", d)) for d in (*args, *kwargs.values())}
        if len(lengths) != 1:
            raise InvalidValueError(f"the data sets have lengths {sorted(lengths)}", op="StackDataset")
        (self._length,) = lengths

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple([dataset[index] for dataset in self.datasets])

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[Any]):
    """Data sets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise InvalidValueError("needs at least one data set", op="ConcatDataset")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise InvalidValueError(
                "an IterableDataset has no samples by number", op="ConcatDataset", fix="use ChainDataset"
            )
        self.cumulative_sizes = list(itertools.accumulate(len(cast("Any", d)) for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise KilnIndexError(f"no sample {index} among {len(self)}", op="ConcatDataset")
        k = bisect.bisect_right(self.cumulative_sizes, i)
        return self.datasets[k][i - (self.cumulative_sizes[k - 1] if k else 0)]


class ChainDataset(IterableDataset[Any]):
    """Iterable data sets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        for d in self.datasets:
            if not isinstance(d, IterableDataset):
                raise ArgumentError(f"takes IterableDatasets, not a {type(d).__name__}", op="ChainDataset")
            yield from d

    def __len__(self) -> int:
        return sum(len(cast("Any", d)) for d in self.datasets)


class Subset(Dataset[Sample]):
    """The samples of `dataset` whose numbers are in `indices`, in that order."""

    def __init__(self, dataset: Dataset[Sample], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Sample:
        if isinstance(index, list):
            return cast("Sample", self.__getitems__(index))
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        chosen = [self.indices[i] for i in indices]
        together = getattr(self.dataset, "__getitems__", None)
        if together is not None:
            return list(together(chosen))
        return [self.dataset[i] for i in chosen]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Dataset[Sample], lengths: Sequence[float], generator: Generator | None = None
) -> list[Subset[Sample]]:
    """Subsets of the given lengths, which share the samples out at random. Lengths that add up to 1 are fractions; what
    they leave over by rounding down goes to the first subsets, one sample each.

    InvalidValueError when the lengths do not add up.
    """
    total = len(cast("Any", dataset))
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        if any(not 0 <= share <= 1 for share in lengths):
            raise InvalidValueError("fractions lie between 0 and 1", op="random_split")
        counts = [math.floor(total * share) for share in lengths]
        for k in range(total - sum(counts)):
            counts[k % len(counts)] += 1
    else:
        counts = [int(n) for n in lengths]
    if sum(counts) != total:
        raise InvalidValueError(f"lengths {list(lengths)} do not add up to {total} samples", op="random_split")
    order = permutation(total, generator)
    ends = list(itertools.accumulate(counts))
    return [Subset(dataset, order[end - n : end]) for n, end in zip(counts, ends, strict=True)]
