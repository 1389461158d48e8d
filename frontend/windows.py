"""Window functions under their older names; `kiln.signal.windows` has all of them.

Computed in float64 from the index of each element, then rounded. With `periodic` a window of n elements is the first n
of the symmetric one of n + 1, as a Fourier transform wants it; else it is symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kiln.creation import tensor
from kiln.errors import ArgumentError, DTypeError, InvalidValueError
from kiln.ir.types import DType
from kiln.promotion import get_default_dtype
from kiln.spelling import maker_names
from kiln.tensor import Tensor

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"]

Numbers = np.ndarray[tuple[int], np.dtype[np.float64]]


# ------------------------------------------------------------------------------------------- formulas


def cosines(n: int, steps: int, coefficients: Sequence[float]) -> Numbers:
    """The alternating sum of coefficients[i] * cos(2 pi i k / steps) for k below n."""
    k = np.arange(n, dtype=np.float64)
    terms = [(-1) ** i * c * np.cos(2 * np.pi * i * k / steps) for i, c in enumerate(coefficients)]
    return np.asarray(sum(terms, start=np.zeros(n)))


def triangle(n: int, steps: int) -> Numbers:
    """1 - |2 k / steps - 1| for k below n."""
    return 1 - np.abs(2 * np.arange(n, dtype=np.float64) / steps - 1)


def kaisers(n: int, steps: int, beta: float) -> Numbers:
    """i0(beta * sqrt(1 - (2 k / steps - 1)^2)) / i0(beta) for k below n."""
    x = 2 * np.arange(n, dtype=np.float64) / steps - 1
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.i0(beta * np.sqrt(np.maximum(1 - x * x, 0))) / np.i0(np.float64(beta)))


# ------------------------------------------------------------------------------------------- functions


def _checked(name: str, n: int, dtype: DType | None) -> DType:
    if not isinstance(n, int) or isinstance(n, bool):
        raise ArgumentError(f"window_length must be an int, not {type(n).__name__}", op=name)
    if n < 0:
        raise InvalidValueError(f"window_length must not be negative, got {n}", op=name)
    kind = get_default_dtype() if dtype is None else dtype
    if not isinstance(kind, DType) or not kind.is_floating_point:
        raise DTypeError(f"windows are no {kind}", op=name, fix="use a floating-point dtype")
    return kind


def made(values: Numbers, dtype: DType, device: Any, requires_grad: bool) -> Tensor:
    """The window as a tensor; one of a single element is a 1."""
    return tensor(values if len(values) != 1 else np.ones(1), dtype=dtype, device=device, requires_grad=requires_grad)


def _steps(n: int, periodic: bool) -> int:
    """Of how many steps a full turn has; at least 1, so that a window of one element is defined."""
    return max(n if periodic else n - 1, 1)


def _cosine_window(
    name: str, n: int, periodic: bool, sums: Sequence[float], dtype: DType | None, device: Any, grad: bool
) -> Tensor:
    kind = _checked(name, n, dtype)
    return made(cosines(n, _steps(n, periodic), sums), kind, device, grad)


@maker_names
def hann_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """0.5 - 0.5 * cos(2 pi k / n), n = window_length with `periodic`, else window_length - 1.

    A vector of the default dtype unless told. InvalidValueError for a negative length, DTypeError unless `dtype` is
    floating point."""
    return _cosine_window("hann_window", window_length, periodic, (0.5, 0.5), dtype, device, requires_grad)


@maker_names
def hamming_window(
    window_length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """alpha - beta * cos(2 pi k / n), n and errors as in `hann_window`."""
    return _cosine_window("hamming_window", window_length, periodic, (alpha, beta), dtype, device, requires_grad)


@maker_names
def blackman_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """0.42 - 0.5 * cos(2 pi k / n) + 0.08 * cos(4 pi k / n), n and errors as in `hann_window`."""
    return _cosine_window("blackman_window", window_length, periodic, (0.42, 0.5, 0.08), dtype, device, requires_grad)


@maker_names
def bartlett_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """1 - |2 k / n - 1|, n and errors as in `hann_window`."""
    kind = _checked("bartlett_window", window_length, dtype)
    return made(triangle(window_length, _steps(window_length, periodic)), kind, device, requires_grad)


@maker_names
def kaiser_window(
    window_length: int,
    periodic: bool = True,
    beta: float = 12.0,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """i0(beta * sqrt(1 - (2 k / n - 1)^2)) / i0(beta), n and errors as in `hann_window`."""
    kind = _checked("kaiser_window", window_length, dtype)
    return made(kaisers(window_length, _steps(window_length, periodic), beta), kind, device, requires_grad)
