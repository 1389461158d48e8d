"""`kiln.backends`: switches of libraries that PyTorch uses. They can be set, and change nothing here."""

from __future__ import annotations

from typing import Any


class _Switches:
    """Attributes to set, and whether the library is there."""

    def __init__(self, available: bool = False, **values: Any) -> None:
        vars(self).update(values, _available=available)

    def is_available(self) -> bool:
        """Whether it is there."""
        return bool(vars(self)["_available"])

    def is_built(self) -> bool:
        """Whether it is there."""
        return self.is_available()

    def version(self) -> None:
        """None: there is no version."""


cudnn = _Switches(enabled=False, benchmark=False, deterministic=True, allow_tf32=False, benchmark_limit=10)
cuda = _Switches(
    matmul=_Switches(
        allow_tf32=False,
        allow_fp16_reduced_precision_reduction=False,
        allow_bf16_reduced_precision_reduction=False,
    )
)
mps, mkl, mkldnn, openmp, opt_einsum = (_Switches() for _ in range(5))
