"""Batches in pinned memory: what `DataLoader(pin_memory=True)` gives."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kiln import cuda
from kiln.base import TensorBase
from kiln.data.collate import _mapping, _sequence


class Pinned(Iterator[Any]):
    """The batches of another iterator, pinned one by one."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches = batches

    def __next__(self) -> Any:
        return pinned(next(self.batches))


def pinning(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches in pinned memory; as they are, with a warning, where there is no GPU."""
    if cuda.is_available():
        return Pinned(batches)
    warnings.warn("pin_memory is set, but there is no GPU: batches are not pinned", UserWarning, stacklevel=3)
    return batches


def pinned(x: Any) -> Any:
    """Tensors of the CPU in pinned memory, also those in containers; what has a method `pin_memory`, as that says."""
    if isinstance(x, TensorBase):
        return x.pin_memory() if x.device.kind == "cpu" else x  # type: ignore[attr-defined]
    if isinstance(x, str | bytes):
        return x
    if isinstance(x, Mapping):
        return _mapping(x, {key: pinned(value) for key, value in x.items()})
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(pinned, x))
    if isinstance(x, Sequence):
        return _sequence(x, [pinned(each) for each in x])
    return x.pin_memory() if hasattr(x, "pin_memory") else x
