"""Dimensions and sizes as users give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from kiln.errors import ArgumentError, InvalidValueError, KilnIndexError

Dims: TypeAlias = "int | Sequence[int] | None"


def dim_index(name: str, dim: int, rank: int) -> int:
    """`dim` counted from the front; KilnIndexError out of range. A 0-d tensor counts as one dimension."""
    span = rank if rank else 1
    if not isinstance(dim, (int, np.integer)) or isinstance(dim, bool):
        raise ArgumentError(f"a dimension must be an int, got {type(dim).__name__}", op=name)
    if not -span <= dim < span:
        raise KilnIndexError(
            f"dimension {dim} is out of range [{-span}, {span - 1}]",
            op=name,
            fix=f"the tensor has {rank} dimension{'' if rank == 1 else 's'}; negative ones count from the last",
        )
    return int(dim) % span


def dim_tuple(name: str, dim: Dims, rank: int) -> tuple[int, ...]:
    """Sorted dimensions; all of them for None or (). Repeated ones are an error."""
    if dim is None or (not isinstance(dim, int) and not len(dim)):
        return tuple(range(rank))
    each = [dim] if isinstance(dim, int) else list(dim)
    dims = sorted(dim_index(name, d, rank) for d in each)
    if len(set(dims)) != len(dims):
        raise InvalidValueError(f"dimension {dims} appears twice", op=name)
    return tuple(dims) if rank else ()


def size_tuple(name: str, sizes: Sequence[Any]) -> tuple[int, ...]:
    """Sizes given as f(2, 3) or f((2, 3)), as a tuple of ints."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = sizes[0]
    for n in sizes:
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool):
            raise ArgumentError(f"sizes must be ints, got {type(n).__name__}", op=name, fix="convert them with int()")
    return tuple([int(n) for n in sizes])
