"""Tensors of evenly spaced numbers and of index pairs, made on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from kiln.creation import tensor
from kiln.errors import DTypeError, InvalidValueError
from kiln.ir import types as T
from kiln.ir.types import DType
from kiln.tensor import Tensor

__all__ = ["linspace", "logspace", "tril_indices", "triu_indices"]


def _line(
    name: str, start: float, end: float, steps: int, dtype: DType
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Numbers counted from both ends towards the middle, in float64."""
    if steps < 0:
        raise InvalidValueError(f"steps must not be negative, got {steps}", op=name)
    if dtype is T.bool_:
        raise DTypeError("is not defined for bool", op=name)
    if steps == 1:
        return np.array([float(start)])
    k = np.arange(steps, dtype=np.float64)
    step = (float(end) - float(start)) / max(steps - 1, 1)
    return np.where(k < steps // 2, float(start) + step * k, float(end) - step * (steps - 1 - k))


def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` evenly spaced numbers from start to end, both included; float32 unless told. They are counted in
    float64 from both ends towards the middle, then rounded (integers: cut)."""
    dtype = dtype or T.float32
    line = _line("linspace", start, end, steps, dtype)
    return tensor(line, dtype=dtype, device=device, requires_grad=requires_grad)


def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """base to the power of linspace(start, end, steps), computed in float64."""
    dtype = dtype or T.float32
    powers = np.power(float(base), _line("logspace", start, end, steps, dtype))
    return tensor(powers, dtype=dtype, device=device, requires_grad=requires_grad)


def tril_indices(row: int, col: int, offset: int = 0, *, device: Any = None) -> Tensor:
    """The rows and columns of the elements on and below a diagonal of a [row, col] matrix, int64 [2, count]."""
    return tensor(np.stack(np.tril_indices(row, offset, col)).astype(np.int64), device=device)


def triu_indices(row: int, col: int, offset: int = 0, *, device: Any = None) -> Tensor:
    """The rows and columns of the elements on and above a diagonal of a [row, col] matrix, int64 [2, count]."""
    return tensor(np.stack(np.triu_indices(row, offset, col)).astype(np.int64), device=device)
