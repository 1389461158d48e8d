"""Basic indexing: ints, slices with positive steps, None and Ellipsis, always as views.

`x[index]` is one `slice` (ints keep a dimension of size one there) and one `reshape` that drops the ints'
dimensions and adds those of None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kiln.base import TensorBase
from kiln.errors import ArgumentError, InvalidValueError, KilnIndexError, NotYetError
from kiln.ir.ops.base import OPS

if TYPE_CHECKING:
    from kiln.tensor import Tensor


def get(x: Tensor, index: Any) -> Tensor:
    """x[index] as a view.

    KilnIndexError out of range, InvalidValueError for negative steps, NotYetError for lists, arrays and
    tensors as indices.
    """
    items = _expand(x, index if isinstance(index, tuple) else (index,))
    starts, stops, steps, shape = [], [], [], []
    d = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        n = x.shape[d]
        if isinstance(item, slice):
            start, stop, step = _slice_bounds(item, n)
            shape.append(-(-(stop - start) // step))
        else:
            start = _position(item, n, d)
            stop, step = start + 1, 1
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        d += 1
    whole = all(a == 0 and b == n and s == 1 for a, b, s, n in zip(starts, stops, steps, x.shape, strict=True))
    part = x if whole else cast("Tensor", OPS["slice"](x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps)))
    if whole or tuple(shape) != part.shape:
        return cast("Tensor", OPS["reshape"](part, shape=tuple(shape)))
    return part


def _expand(x: Tensor, items: tuple[Any, ...]) -> list[Any]:
    """One item per dimension (and the Nones), with Ellipsis and missing dimensions written out."""
    for item in items:
        _check(item)
    used = sum(item is not None and item is not Ellipsis for item in items)
    if used > x.ndim:
        raise KilnIndexError(f"{used} indices for {x.ndim} dimensions", operands=[x.ttype])
    if sum(item is Ellipsis for item in items) > 1:
        raise KilnIndexError("an index can have only one ellipsis")
    rest = [slice(None)] * (x.ndim - used)
    for i, item in enumerate(items):
        if item is Ellipsis:
            return [*items[:i], *rest, *items[i + 1 :]]
    return [*items, *rest]


def _check(item: Any) -> None:
    if item is None or item is Ellipsis or isinstance(item, slice):
        return
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        return
    if isinstance(item, (TensorBase, np.ndarray, list, bool, np.bool_)):
        raise NotYetError(
            f"indexing by {type(item).__name__} is not supported",
            fix="use ints, slices, None and ...; kiln.where selects by condition",
        )
    raise ArgumentError(f"indices must be ints, slices, None or ..., not {type(item).__name__}")


def _position(item: Any, n: int, dim: int) -> int:
    i = int(item)
    if not -n <= i < n:
        raise KilnIndexError(f"index {i} is out of range for dimension {dim} of size {n}")
    return i % n


def _slice_bounds(item: slice, n: int) -> tuple[int, int, int]:
    step = 1 if item.step is None else int(item.step)
    if step <= 0:
        raise InvalidValueError(f"the step of a slice must be positive, got {step}")
    start, stop, step = item.indices(n)
    return start, max(start, stop), step
