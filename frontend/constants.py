"""Numbers and markers with a name in PyTorch's name space."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any, Final, SupportsIndex, overload

from kiln.errors import ArgumentError

e: Final = math.e
inf: Final = math.inf
nan: Final = math.nan
pi: Final = math.pi
newaxis: Final = None


class Size(tuple[int, ...]):
    """A shape: a tuple of sizes that tells how many elements they make. Parts and sums of it are sizes, too.

    ArgumentError unless it is made of integers.

    >>> import kiln
    >>> shape = kiln.zeros(2, 3).shape
    >>> shape, shape.numel(), shape[1:] + (4,), shape == (2, 3)
    (kiln.Size([2, 3]), 6, kiln.Size([3, 4]), True)
    """

    __slots__ = ()

    def __new__(cls, sizes: Iterable[SupportsIndex] = ()) -> Size:
        given = tuple(sizes)
        try:
            return tuple.__new__(cls, [operator.index(n) for n in given])
        except TypeError:
            k, odd = next((k, n) for k, n in enumerate(given) if not hasattr(n, "__index__"))
            raise ArgumentError(f"takes ints (item {k} is a {type(odd).__name__})", op="Size") from None

    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self)

    def __repr__(self) -> str:
        return f"kiln.Size({list(self)})"

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Size: ...
    def __getitem__(self, index: Any) -> Any:
        found = _item(self, index)
        return tuple.__new__(Size, found) if found.__class__ is tuple else found

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, tuple):
            raise ArgumentError(f"can only concatenate a tuple, not a {type(other).__name__}", op="Size")
        return Size(tuple.__add__(self, other))

    def __radd__(self, other: Any) -> Any:
        return Size(tuple.__add__(other, self)) if isinstance(other, tuple) else NotImplemented

    def __mul__(self, count: Any) -> Any:
        return tuple.__new__(Size, tuple.__mul__(self, count))

    __rmul__ = __mul__

    def __reduce__(self) -> Any:
        return Size, (tuple(self),)


_item = tuple.__getitem__


class MemoryFormat:
    """How elements may lie in memory. Functions accept these and heed none: results are row-major."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"kiln.{self._name}"


class Layout(MemoryFormat):
    """How tensors are stored."""

    __slots__ = ()


contiguous_format: Final = MemoryFormat("contiguous_format")
preserve_format: Final = MemoryFormat("preserve_format")
channels_last: Final = MemoryFormat("channels_last")
channels_last_3d: Final = MemoryFormat("channels_last_3d")
strided: Final = Layout("strided")
