"""`kiln.cuda.amp`: `kiln.amp` for GPUs, under PyTorch's older names."""

from __future__ import annotations

from typing import Any

from kiln import amp

__all__ = ["GradScaler", "autocast"]


class autocast(amp.autocast):
    """`kiln.amp.autocast("cuda", ...)`."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(amp.GradScaler):
    """`kiln.amp.GradScaler("cuda", ...)`."""

    def __init__(self, *given: Any, enabled: bool = True, **options: Any) -> None:
        super().__init__("cuda", *given, enabled=enabled, **options)
