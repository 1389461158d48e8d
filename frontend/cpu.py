"""`kiln.cpu`: the CPU as a device, by PyTorch's names. There is one, and nothing on it has to be waited for."""

from __future__ import annotations

import sys
from typing import Any

from kiln import cpu_amp as amp

__all__ = ["amp", "current_device", "device_count", "is_available", "synchronize"]


def is_available() -> bool:
    """True."""
    return True


def device_count() -> int:
    """1."""
    return 1


def current_device() -> str:
    """ "cpu"."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Nothing: what was called on the CPU is done."""
    del device


sys.modules[f"{__name__}.amp"] = amp  # so that `from kiln.cpu.amp import autocast` finds it
