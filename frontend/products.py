"""What computes matrix products and convolutions on a GPU, and with which precision: switches with PyTorch's names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kiln import there
from kiln.base import LAYERED, MODES, PRODUCTS, TensorBase
from kiln.errors import InvalidValueError

_FEWEST: Final = 4
"""Channels per group that are worth a tensor core's products, which take 8 at a time; a convolution without groups is
worth them in any case."""
_LARGEST: Final = 1 << 26
"""Of a dimension: kernels count places along one with 32 bits."""
_LIBRARIES: Final = {"default": True, "cublaslt": True, "cublas": True, "kiln": False}


def told(a: TensorBase, b: TensorBase, lies: str) -> dict[str, Any]:
    """The attributes of a `matmul` of `a` and `b` that say which library computes it; none on a CPU, where there is no
    library, or for types that none multiplies. `lies`: how operands may be expected to lie, by what is computed and
    not by where they are: row by row (n) or transposed (t)."""
    device = a._layout.device
    if device.kind == "cpu" or device is not b._layout.device or not PRODUCTS.library:
        return {}
    dtype = a._layout.dtype
    if not dtype.is_floating_point or not there.multiplies(device):
        return {}
    return {"library": lies, "tf32": True} if PRODUCTS.tf32 and dtype.name == "float32" else {"library": lies}


def at_once(x: TensorBase, weight: TensorBase, bias: TensorBase) -> dict[str, Any]:
    """The attributes of an `addmm` of `x`, the transposed `weight` and `bias`; none where no library computes that."""
    layout, turned, added = x._layout, weight._layout, bias._layout
    if layout.device.kind == "cpu" or not layout.shape or not layout.numel or len(turned.shape) != 2:
        return {}
    if any(y.dtype is not layout.dtype or y.device is not layout.device for y in (turned, added)):
        return {}
    if layout.shape[-1] != turned.shape[1] or added.shape != turned.shape[:1]:
        return {}
    return {} if any(t._flags & LAYERED for t in (x, weight, bias)) else told(x, weight, "nt")


def tensor_cores(x: TensorBase, weight: TensorBase, groups: object, sizes: Iterable[int]) -> bool:
    """Whether tensor cores of a GPU are to compute a convolution of `x` and `weight`: of 16-bit floats, on compute
    capability 8.0 or later, unless `kiln.backends.cudnn.enabled` is False. That follows from dtype and shapes (`sizes`:
    what else is as large as a dimension), never from where tensors lie."""
    layout, other = x._layout, weight._layout
    if not layout.dtype.is_half or layout.device.kind == "cpu" or other.device is not layout.device:
        return False
    if not PRODUCTS.cores or not isinstance(groups, int) or groups < 1:
        return False
    if groups > 1 and min(other.shape[0] // groups, other.shape[1]) < _FEWEST:
        return False
    if 0 in other.shape or max((*layout.shape, *other.shape, *sizes)) >= _LARGEST:
        return False
    return there.has_tensor_cores(layout.device)


def change(*, library: bool | None = None, tf32: bool | None = None, cores: bool | None = None, what: str) -> None:
    """Set what holds for products and convolutions from here on. CaptureError inside a captured function, which could
    not repeat it."""
    if MODES.recorder is not None:
        MODES.recorder.reject(f"{what} inside a captured function", fix="call it before the compiled function")
    PRODUCTS.set(
        PRODUCTS.library if library is None else library,
        PRODUCTS.tf32 if tf32 is None else tf32,
        PRODUCTS.cores if cores is None else cores,
    )


def preferred_blas_library(backend: str | None = None) -> str:
    """What computes products of floating-point matrices on a GPU from now on: "default", "cublas" and "cublaslt" are
    NVIDIA's cublasLt, where it is installed, "kiln" kiln's own kernels, which have the CPU's bits. Returns what is set
    ("cublaslt" or "kiln"); None changes nothing."""
    if backend is not None:
        if backend not in _LIBRARIES:
            names = ", ".join(_LIBRARIES)
            raise InvalidValueError(f"the library is one of {names}, not {backend!r}", op="preferred_blas_library")
        change(library=_LIBRARIES[backend], what="preferred_blas_library()")
    return "cublaslt" if PRODUCTS.library else "kiln"
