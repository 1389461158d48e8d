"""Steps that a library carries out: a Python function on NumPy arrays that lie where the plan says.

Operands are made row-major first, element by element in logical order, so that no result depends on strides; and the
floating-point control register is what it is in generated code. The library's own threads are the library's affair
(docs/numerics.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir.ops.base import OPS, Library, LibraryError
from kiln.ir.program import LibraryCall, Place
from kiln.runtime.threads import pool

DEFAULT_MXCSR: Final = 0x1F80
"""Round to nearest, subnormals kept, no traps: as the entries of programs set it."""


class _Memory:
    """Memory at an address, for NumPy to look at."""

    __slots__ = ("__array_interface__",)

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


class _View:
    """Arrays at one place of different calls."""

    __slots__ = ("interface", "offset", "slot")

    def __init__(self, place: Place) -> None:
        dtype = place.type.dtype.numpy
        self.slot, self.offset = place.slot, place.offset
        self.interface = {
            "version": 3,
            "typestr": dtype.str,
            "shape": place.type.static_shape(),
            "strides": tuple(s * dtype.itemsize for s in place.strides),
        }

    def __call__(self, slots: Sequence[int]) -> np.ndarray[Any, Any]:
        return np.asarray(_Memory({**self.interface, "data": (slots[self.slot] + self.offset, False)}))


@contextlib.contextmanager
def _usual_arithmetic() -> Iterator[None]:
    """Subnormal numbers are numbers, and nothing warns."""
    exchange = pool().exchange_csr
    before = exchange(DEFAULT_MXCSR)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        exchange(before)


def refusal(op: str, matrices: np.ndarray[Any, Any], attrs: Mapping[str, Any]) -> str | None:
    """What `LibraryError` says when a library op is called on these matrices, whatever its other operands; None if it
    isn't raised."""
    lower = OPS[op].lower
    assert isinstance(lower, Library)
    others = [np.zeros((*matrices.shape[:-1], 1), matrices.dtype)] if op == "solve" else []
    with _usual_arithmetic():
        try:
            lower.run(np.array(matrices, order="C", copy=None), *others, **attrs)
        except LibraryError as error:
            return str(error)
    return None


class Performer:
    """Carries out one call again and again. Thread-safe."""

    __slots__ = ("attrs", "call", "operands", "results", "run", "types")

    def __init__(self, call: LibraryCall) -> None:
        lower = OPS[call.op].lower
        assert isinstance(lower, Library)
        self.call = call
        self.run = lower.run
        self.attrs = dict(call.attrs)
        self.operands = tuple(map(_View, call.operands))
        self.results = tuple(map(_View, call.results))
        self.types = tuple((p.type.dtype.numpy, p.type.static_shape()) for p in call.results)

    def __call__(self, slots: Sequence[int]) -> None:
        """`slots` are addresses (those that the call's places name); the caller keeps the memory alive.
        `ir.ops.base.LibraryError` when the library refuses; then nothing has been written."""
        operands = [np.array(view(slots), order="C", copy=None) for view in self.operands]
        with _usual_arithmetic():
            made = self.run(*operands, **self.attrs)
        results = made if isinstance(made, tuple) else (made,)
        assert tuple((r.dtype, r.shape) for r in results) == self.types, f"{self.call.op}: not what its type rule says"
        for view, result in zip(self.results, results, strict=True):
            view(slots)[...] = result
