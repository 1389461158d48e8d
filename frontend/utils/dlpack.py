"""Tensors to and from other libraries without a copy (https://dmlc.github.io/dlpack)."""

from __future__ import annotations

from typing import Any

from kiln.exchange import from_dlpack
from kiln.tensor import Tensor

__all__ = ["from_dlpack", "to_dlpack"]


def to_dlpack(tensor: Tensor) -> Any:
    """A capsule for another library's `from_dlpack`, to be used once; most take the tensor itself."""
    return tensor.__dlpack__()
