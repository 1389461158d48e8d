"""Steps that a library carries out: a Python function on NumPy arrays that lie where the plan says.

Operands are made row-major first, element by element in logical order, so that no result depends on strides; and the
floating-point control register is what it is in generated code. The library's own threads are the library's affair
(docs/numerics.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kiln.ir.ops.base import OPS, Library
from kiln.ir.program import LibraryCall, Place
from kiln.runtime.threads import pool

DEFAULT_MXCSR: Final = 0x1F80
"""Round to nearest, subnormals kept, no traps: as the entries of programs set it."""


class _Memory:
    """Memory at an address, for NumPy to look at."""

    __slots__ = ("__array_interface__",)

    def __init__(self, place: Place, address: int) -> None:
        dtype = place.type.dtype.numpy
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (address, False),
            "typestr": dtype.str,
            "shape": place.type.static_shape(),
            "strides": tuple(s * dtype.itemsize for s in place.strides),
        }


def _array(place: Place, slots: Sequence[int]) -> np.ndarray[Any, Any]:
    return np.asarray(_Memory(place, slots[place.slot] + place.offset))


def perform(call: LibraryCall, slots: Sequence[int]) -> None:
    """Carry out one call. `slots` are addresses (those that the call's places name); the caller keeps the memory alive.
    `ir.ops.base.LibraryError` when the library refuses; then nothing has been written."""
    lower = OPS[call.op].lower
    assert isinstance(lower, Library)
    operands = [np.array(_array(place, slots), order="C", copy=None) for place in call.operands]
    exchange = pool().exchange_csr
    before = exchange(DEFAULT_MXCSR)
    try:
        with np.errstate(all="ignore"):
            made = lower.run(*operands, **dict(call.attrs))
    finally:
        exchange(before)
    results = made if isinstance(made, tuple) else (made,)
    for place, result in zip(call.results, results, strict=True):
        assert result.dtype == place.type.dtype.numpy and result.shape == place.type.static_shape()
        _array(place, slots)[...] = result
