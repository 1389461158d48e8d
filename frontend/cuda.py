"""`kiln.cuda`: what programs ask before they use a GPU. This version keeps tensors on the CPU."""

from __future__ import annotations

__all__ = ["device_count", "is_available"]


def is_available() -> bool:
    """Whether tensors can be put on a GPU: False."""
    return False


def device_count() -> int:
    """How many GPUs can hold tensors: 0."""
    return 0
