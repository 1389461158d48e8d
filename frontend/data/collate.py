"""From samples to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kiln.creation import as_tensor, tensor
from kiln.errors import ArgumentError, ShapeError
from kiln.functional import stack
from kiln.ir import types as T
from kiln.tensor import Tensor


def default_convert(data: Any) -> Any:
    """The same structure with NumPy arrays and numbers in it made tensors; everything else stays."""
    if isinstance(data, Tensor):
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind in "SUO" else as_tensor(np.asarray(data))
    if isinstance(data, Mapping):
        return _mapping(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(default_convert, data))
    if isinstance(data, tuple):
        return [default_convert(x) for x in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _sequence(data, [default_convert(x) for x in data])
    return data


def default_collate(batch: Any) -> Any:
    """Samples of one structure as one: tensors, arrays and numbers are stacked in a new first dimension (Python floats
    as float64), strings gathered in a list; mappings, named tuples and sequences are gone through.

    >>> from kiln.data import default_collate
    >>> default_collate([{"x": [1.5, 2], "name": "a"}, {"x": [2.5, 3], "name": "b"}])
    {'x': [tensor([1.5000, 2.5000], dtype=kiln.float64), tensor([2, 3])], 'name': ['a', 'b']}

    ArgumentError for samples of other kinds, ShapeError for sequences of different lengths.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(list(batch))
    if isinstance(first, (np.ndarray, np.generic)) and first.dtype.kind not in "SUO":
        return stack([as_tensor(np.asarray(x)) for x in batch])
    if isinstance(first, float):
        return tensor(list(batch), dtype=T.float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return _mapping(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise ShapeError("the samples of a batch have different lengths", op="default_collate")
        parts = [default_collate(list(samples)) for samples in zip(*batch, strict=True)]
        if isinstance(first, tuple):
            return type(first)(*parts) if hasattr(first, "_fields") else parts
        return _sequence(first, parts)
    raise ArgumentError(
        f"a batch is made of tensors, NumPy arrays, numbers, strings, dicts and lists, not of {type(first).__name__}",
        op="default_collate",
        fix="pass a collate_fn",
    )


def _mapping(like: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """`items` as a mapping of the same type, where that can be made of a dict."""
    try:
        return type(like)(items)  # type: ignore[call-arg]
    except TypeError:
        return items


def _sequence(like: Sequence[Any], items: list[Any]) -> Any:
    """`items` as a sequence of the same type, where that can be made of a list."""
    try:
        return type(like)(items)  # type: ignore[call-arg]
    except TypeError:  # a range, for example
        return items
