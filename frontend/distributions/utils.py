"""What distributions share: parameters brought together, probabilities and logits, triangles as vectors."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from kiln import functional as F
from kiln.base import MODES, TensorBase
from kiln.creation import tensor
from kiln.dtypes import finfo
from kiln.errors import InvalidValueError
from kiln.maths import log1p
from kiln.movement import broadcast_tensors
from kiln.ranges import tril_indices

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    *("broadcast_all", "clamp_probs", "euler_constant", "lazy_property", "logits_to_probs", "probs_to_logits"),
    *("tril_matrix_to_vec", "vec_to_tril_matrix"),
]

euler_constant: Final = 0.57721566490153286060

R = TypeVar("R")
Shape = Sequence[int]


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Tensors and numbers as tensors of one shape. Numbers take the dtype of the first tensor, or the default one."""
    if not all(isinstance(v, (TensorBase, Number)) for v in values):
        kinds = ", ".join(type(v).__name__ for v in values)
        raise InvalidValueError(
            f"Input arguments must all be instances of Number or kiln.Tensor, got {kinds}", op="broadcast_all"
        )
    dtype = next((v.dtype for v in values if isinstance(v, TensorBase)), MODES.default_dtype)
    device = next((v.device for v in values if isinstance(v, TensorBase)), None)
    made = [v if isinstance(v, TensorBase) else tensor(v, dtype=dtype, device=device) for v in values]
    return tuple(broadcast_tensors(*made))


def are_numbers(*values: Any) -> bool:
    """Whether all of them are plain numbers."""
    return all(isinstance(v, Number) for v in values)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """The softmax over the last dimension, or the sigmoid if `is_binary`."""
    return F.sigmoid(logits) if is_binary else F.softmax(logits, -1)


def clamp_probs(probs: Tensor) -> Tensor:
    """Kept inside of (0, 1) by the dtype's precision."""
    eps = finfo(probs.dtype).eps
    return F.clamp(probs, eps, 1 - eps)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """The logarithms of clamped probabilities, or the log-odds if `is_binary`."""
    clamped = clamp_probs(probs)
    return F.log(clamped) - log1p(-clamped) if is_binary else F.log(clamped)


def sum_rightmost(value: Tensor, dims: int) -> Tensor:
    """The sum over the last `dims` dimensions."""
    return value if dims == 0 else value.reshape((*value.shape[:-dims], -1)).sum(-1)


class lazy_property(Generic[R]):
    """An attribute that is computed when it is asked for, unless the instance holds it.

    It is not kept: distributions never change, so functions that share one can be captured and compiled."""

    def __init__(self, wrapped: Callable[[Any], R]) -> None:
        self.wrapped = wrapped
        functools.update_wrapper(self, wrapped)  # type: ignore[arg-type]

    @overload
    def __get__(self, instance: None, owner: Any = None) -> lazy_property[R]: ...

    @overload
    def __get__(self, instance: object, owner: Any = None) -> R: ...

    def __get__(self, instance: Any, owner: Any = None) -> lazy_property[R] | R:
        return self if instance is None else self.wrapped(instance)


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The elements of matrices [..., n, n] on and below the diagonal `diag`, row by row, as a vector each."""
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise InvalidValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].", op="tril_matrix_to_vec")
    rows, columns = tril_indices(n, n, diag)
    return mat.reshape((*mat.shape[:-2], n * n)).index_select(-1, rows * n + columns)


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The inverse of `tril_matrix_to_vec`: zeros elsewhere. InvalidValueError if no triangle has so many elements."""
    count = vec.shape[-1]
    root = math.sqrt((1 + 2 * diag) ** 2 + 8 * count + 4 * abs(diag) * (diag + 1))
    n = round((-(1 + 2 * diag) + root) / 2)
    rows, columns = tril_indices(n, n, diag)
    if rows.numel() != count:
        raise InvalidValueError(
            f"The size of last dimension is {count} which cannot be expressed as the lower triangular part of a square "
            "D x D matrix.",
            op="vec_to_tril_matrix",
        )
    empty = vec.new_zeros((*vec.shape[:-1], n * n))
    return empty.index_copy(-1, rows * n + columns, vec).reshape((*vec.shape[:-1], n, n))
