"""Numbers and markers with a name in PyTorch's name space."""

from __future__ import annotations

import math
from typing import Final

e: Final = math.e
inf: Final = math.inf
nan: Final = math.nan
pi: Final = math.pi
newaxis: Final = None
Size: type[tuple[int, ...]] = tuple
"""Shapes are plain tuples."""


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
