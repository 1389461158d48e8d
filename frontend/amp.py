"""`kiln.amp`: automatic mixed precision, which has to be switched off.

As in PyTorch on a machine without a GPU, asking for it on "cuda" warns and computes in full precision; on a GPU, too.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

from kiln.errors import NotYetError

__all__ = ["GradScaler", "autocast", "is_autocast_available"]


def is_autocast_available(device_type: str) -> bool:
    """Whether `autocast` does anything there: False."""
    del device_type
    return False


def _switched_off(what: str, device_type: str, enabled: bool) -> None:
    """Warn, or refuse, unless `what` is switched off."""
    if not enabled:
        return
    if device_type.split(":")[0] == "cpu":
        raise NotYetError(f"{what} is not supported on the CPU", fix="pass enabled=False, or cast with .to(dtype)")
    from kiln import cuda  # which has these under older names

    why = "which it does not change" if cuda.is_available() else "which is not there"
    warnings.warn(f"{what} on {device_type!r}, {why}: full precision is used", stacklevel=3)


class autocast(contextlib.ContextDecorator):
    """A `with` block (or a decorator) in which products would be taken in 16-bit floats. It changes nothing."""

    def __init__(
        self, device_type: str = "cuda", dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        del cache_enabled
        _switched_off("autocast", device_type, enabled)
        self.device, self.fast_dtype = device_type, dtype

    def __enter__(self) -> autocast:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class GradScaler:
    """Scales losses so that 16-bit gradients do not vanish. Without mixed precision it passes everything through."""

    def __init__(self, device: str = "cuda", *_: Any, enabled: bool = True, **__: Any) -> None:
        _switched_off("GradScaler", device, enabled)

    def is_enabled(self) -> bool:
        """False."""
        return False

    def scale(self, outputs: Any) -> Any:
        """`outputs`."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Gradients are not scaled."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """optimizer.step(...)."""
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | None = None) -> None:
        """There is no scale."""

    def get_scale(self) -> float:
        """1."""
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes nothing over."""
