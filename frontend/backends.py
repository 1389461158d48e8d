"""`kiln.backends`: switches of libraries that PyTorch uses. They can be set; those of `cuda.matmul` and `cudnn` that
say so change what products and convolutions on a GPU are, the others nothing."""

from __future__ import annotations

from typing import Any

from kiln import products
from kiln.base import PRODUCTS


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


class _Convolutions(_Switches):
    """`enabled`: whether a GPU's tensor cores compute convolutions of 16-bit floats (kiln has no cuDNN: the kernels are
    its own). If not, they are those of float32, with the CPU's bits. The other switches change nothing."""

    @property
    def enabled(self) -> bool:
        return PRODUCTS.cores

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        products.change(cores=bool(enabled), what="cudnn.enabled")


cudnn = _Convolutions(benchmark=False, deterministic=True, allow_tf32=False, benchmark_limit=10)


class _Matmul(_Switches):
    """`allow_tf32`: whether products of float32 may be rounded to tf32 (as `kiln.set_float32_matmul_precision("high")`
    says). Accumulation is always in float32, whatever the other switches."""

    @property
    def allow_tf32(self) -> bool:
        return PRODUCTS.tf32

    @allow_tf32.setter
    def allow_tf32(self, allowed: bool) -> None:
        products.change(tf32=bool(allowed), what="allow_tf32")


cuda = _Switches(
    preferred_blas_library=products.preferred_blas_library,
    matmul=_Matmul(
        allow_fp16_reduced_precision_reduction=False,
        allow_bf16_reduced_precision_reduction=False,
    ),
)
mps, mkl, mkldnn, openmp, opt_einsum = (_Switches() for _ in range(5))
