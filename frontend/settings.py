"""Switches that PyTorch programs set: what they ask for holds here always, or is not there to be had."""

from __future__ import annotations

from typing import Any

from kiln.base import MODES, PRODUCTS
from kiln.device import placed
from kiln.errors import InvalidValueError
from kiln.ir.types import CPU, Device
from kiln.products import change

__all__ = [
    "are_deterministic_algorithms_enabled", "get_default_device", "get_deterministic_debug_mode",
    "get_float32_matmul_precision", "get_num_interop_threads", "is_deterministic_algorithms_warn_only_enabled",
    "is_warn_always_enabled", "set_default_device", "set_deterministic_debug_mode", "set_float32_matmul_precision",
    "set_flush_denormal", "set_num_interop_threads", "set_warn_always", "use_deterministic_algorithms",
]  # fmt: skip

_MODES = ("default", "warn", "error")
_set: dict[str, Any] = {"deterministic": 0, "precision": "highest", "interop": 1, "warn": False}


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for determinism: all functions are deterministic anyway."""
    _set["deterministic"] = (1 if warn_only else 2) if mode else 0


def are_deterministic_algorithms_enabled() -> bool:
    """What `use_deterministic_algorithms` was told last."""
    return bool(_set["deterministic"])


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether it was told to warn only."""
    return bool(_set["deterministic"] == 1)


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """0 or "default", 1 or "warn", 2 or "error": changes nothing."""
    if debug_mode not in (0, 1, 2, *_MODES):
        raise InvalidValueError(f"the mode is one of {_MODES} or 0, 1, 2, not {debug_mode!r}")
    _set["deterministic"] = _MODES.index(debug_mode) if isinstance(debug_mode, str) else debug_mode


def get_deterministic_debug_mode() -> int:
    """The mode as a number."""
    return int(_set["deterministic"])


def set_float32_matmul_precision(precision: str) -> None:
    """How precise matrix products of float32 are on a GPU, where a library computes them: "highest" is float32, "high"
    and "medium" round what is multiplied to tf32 (10 bits). CPUs always compute in float32."""
    if precision not in ("highest", "high", "medium"):
        raise InvalidValueError(f'the precision is "highest", "high" or "medium", not {precision!r}')
    change(tf32=precision != "highest", what="set_float32_matmul_precision()")
    _set["precision"] = precision


def get_float32_matmul_precision() -> str:
    """What was set last; "highest" at first. `backends.cuda.matmul.allow_tf32` sets it too."""
    return "highest" if not PRODUCTS.tf32 else "medium" if _set["precision"] == "medium" else "high"


def set_num_interop_threads(num: int) -> None:
    """Threads between operations: there are none."""
    if num < 1:
        raise InvalidValueError(f"the number of threads is positive, not {num}", op="set_num_interop_threads")
    _set["interop"] = num


def get_num_interop_threads() -> int:
    """What was set last; 1 at first."""
    return int(_set["interop"])


def set_flush_denormal(mode: bool) -> bool:
    """Whether denormal numbers can be flushed to zero: only if they need not be."""
    return not mode


def set_warn_always(b: bool) -> None:
    """Warnings follow Python's filters."""
    _set["warn"] = bool(b)


def is_warn_always_enabled() -> bool:
    """What was set last."""
    return bool(_set["warn"])


def set_default_device(device: Any) -> None:
    """Where this thread makes new tensors that are not told where; None is the CPU. DeviceError for a device that is
    not there."""
    if MODES.recorder is not None:
        MODES.recorder.reject(
            "set_default_device() inside a captured function", fix="call it before the compiled function"
        )
    MODES.device = CPU if device is None else placed("set_default_device", device)


def get_default_device() -> Device:
    """Where this thread makes new tensors that are not told where."""
    return MODES.device
