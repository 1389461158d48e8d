"""Window functions, with torch.signal.windows' names and arguments.

All make a vector of `M` elements, float32 or float64 (by default the default dtype), computed in float64 and rounded;
that of one element is 1. `sym`: symmetric, for filters; else periodic, for Fourier transforms. Errors:
InvalidValueError for a negative M, another dtype, or a parameter out of its range; ArgumentError for wrong types.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kiln.creation import tensor
from kiln.errors import ArgumentError, InvalidValueError
from kiln.ir import types as T
from kiln.ir.types import DType
from kiln.promotion import get_default_dtype
from kiln.spelling import maker_names
from kiln.tensor import Tensor
from kiln.windows import Numbers, cosines, kaisers, made, triangle

__all__ = [
    *("bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine", "general_hamming", "hamming"),
    *("hann", "kaiser", "nuttall"),
]


def _checked(name: str, M: int, dtype: DType | None) -> DType:
    if not isinstance(M, int) or isinstance(M, bool):
        raise ArgumentError(f"M must be an int, not {type(M).__name__}", op=name)
    if M < 0:
        raise InvalidValueError(f"M must not be negative, got {M}", op=name)
    kind = get_default_dtype() if dtype is None else dtype
    if kind not in (T.float32, T.float64):
        raise InvalidValueError(f"dtype must be float32 or float64, got {kind}", op=name)
    return kind


def _steps(M: int, sym: bool) -> int:
    return max(M - 1 if sym else M, 1)


def _places(M: int, first: float) -> Numbers:
    return np.arange(M, dtype=np.float64) + first


def _sum(
    name: str, M: int, a: Sequence[float], sym: bool, dtype: DType | None, device: Any, requires_grad: bool
) -> Tensor:
    kind = _checked(name, M, dtype)
    return made(cosines(M, _steps(M, sym), a), kind, device, requires_grad)


@maker_names
def general_cosine(
    M: int,
    *,
    a: Iterable[float],
    sym: bool = True,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The sum over i of (-1)^i * a[i] * cos(2 pi i k / n), n = M - 1 with `sym`, else M."""
    if not isinstance(a, Iterable):
        raise ArgumentError("the coefficients must be a list or tuple", op="general_cosine")
    coefficients = [float(x) for x in a]
    if not coefficients:
        raise InvalidValueError("there are no coefficients", op="general_cosine")
    return _sum("general_cosine", M, coefficients, sym, dtype, device, requires_grad)


@maker_names
def general_hamming(
    M: int,
    *,
    alpha: float = 0.54,
    sym: bool = True,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """alpha - (1 - alpha) * cos(2 pi k / n), n = M - 1 with `sym`, else M."""
    return _sum("general_hamming", M, (alpha, 1 - alpha), sym, dtype, device, requires_grad)


@maker_names
def hamming(
    M: int, *, sym: bool = True, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """0.54 - 0.46 * cos(2 pi k / n), n = M - 1 with `sym`, else M."""
    return _sum("hamming", M, (0.54, 0.46), sym, dtype, device, requires_grad)


@maker_names
def hann(
    M: int, *, sym: bool = True, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """0.5 - 0.5 * cos(2 pi k / n), n = M - 1 with `sym`, else M."""
    return _sum("hann", M, (0.5, 0.5), sym, dtype, device, requires_grad)


@maker_names
def blackman(
    M: int, *, sym: bool = True, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """0.42 - 0.5 * cos(2 pi k / n) + 0.08 * cos(4 pi k / n), n = M - 1 with `sym`, else M."""
    return _sum("blackman", M, (0.42, 0.5, 0.08), sym, dtype, device, requires_grad)


@maker_names
def nuttall(
    M: int, *, sym: bool = True, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The minimal 4-term Blackman-Harris window: the cosine sum of 0.3635819, 0.4891775, 0.1365995 and 0.0106411
    (Nuttall, 1981: "Some windows with very good sidelobe behavior")."""
    return _sum("nuttall", M, (0.3635819, 0.4891775, 0.1365995, 0.0106411), sym, dtype, device, requires_grad)


@maker_names
def bartlett(
    M: int, *, sym: bool = True, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """1 - |2 k / n - 1|, n = M - 1 with `sym`, else M."""
    kind = _checked("bartlett", M, dtype)
    return made(triangle(M, _steps(M, sym)), kind, device, requires_grad)


@maker_names
def kaiser(
    M: int,
    *,
    beta: float = 12.0,
    sym: bool = True,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """i0(beta * sqrt(1 - (2 k / n - 1)^2)) / i0(beta), n = M - 1 with `sym`, else M; beta >= 0."""
    kind = _checked("kaiser", M, dtype)
    if beta < 0:
        raise InvalidValueError(f"beta must not be negative, got {beta}", op="kaiser")
    return made(kaisers(M, _steps(M, sym), beta), kind, device, requires_grad)


@maker_names
def cosine(
    M: int, *, sym: bool = True, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """sin(pi * (k + 0.5) / n), n = M with `sym`, else M + 1."""
    kind = _checked("cosine", M, dtype)
    return made(np.sin(_places(M, 0.5) * np.pi / max(M if sym else M + 1, 1)), kind, device, requires_grad)


@maker_names
def exponential(
    M: int,
    *,
    center: float | None = None,
    tau: float = 1.0,
    sym: bool = True,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """exp(-|k - center| / tau), by default around the middle; another `center` only without `sym`. tau > 0."""
    kind = _checked("exponential", M, dtype)
    if tau <= 0:
        raise InvalidValueError(f"tau must be positive, got {tau}", op="exponential")
    if sym and center is not None:
        raise InvalidValueError("a symmetric window has its center in the middle", op="exponential", fix="sym=False")
    middle = (M - 1 if sym or M < 2 else M) / 2 if center is None else center
    return tensor(np.exp(-np.abs(_places(M, -middle) / tau)), dtype=kind, requires_grad=requires_grad)


@maker_names
def gaussian(
    M: int,
    *,
    std: float = 1.0,
    sym: bool = True,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """exp(-((k - middle) / std)^2 / 2), std > 0."""
    kind = _checked("gaussian", M, dtype)
    if std <= 0:
        raise InvalidValueError(f"the deviation must be positive, got {std}", op="gaussian")
    k = _places(M, -(M - 1 if sym or M < 2 else M) / 2) / (std * math.sqrt(2))
    return made(np.exp(-k * k), kind, device, requires_grad)
