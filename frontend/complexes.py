"""Complex numbers: their parts, their making, and what real numbers lack.

Arithmetic and the elementary functions take complex tensors where they stand; this module has the rest. `real`, `imag`,
`view_as_real` and `view_as_complex` are views: writes to them show in their tensor. A conjugate is computed at once
(there are no lazy ones), so it is memory of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kiln import functional as F
from kiln import pointwise as P
from kiln.base import LAYERED, TensorBase
from kiln.errors import DTypeError, InvalidValueError, ShapeError
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.promotion import apply, broadcast_shapes, broadcast_to, cast_to, floating, full_like_number, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "angle", "complex", "conj", "conj_physical", "imag", "is_conj", "polar", "real", "resolve_conj",
    "resolve_neg", "sgn", "view_as_complex", "view_as_real",
]  # fmt: skip


def complex(real: TensorBase, imag: TensorBase) -> Tensor:
    """The complex numbers with these parts: float32 (complex64) or float64 (complex128) tensors, broadcast.

    DTypeError for other dtypes, and when the two differ.
    """
    return F.pair(*_floats("complex", real, imag))


def polar(abs: TensorBase, angle: TensorBase) -> Tensor:
    """The complex numbers with these absolute values and angles: (abs * cos(angle), abs * sin(angle)). As `complex`."""
    size, turn = _floats("polar", abs, angle)
    return F.pair(F.mul(size, F.cos(turn)), F.mul(size, F.sin(turn)))


def _floats(name: str, first: TensorBase, second: TensorBase) -> tuple[Tensor, Tensor]:
    a, b = tensor_arg(name, first), tensor_arg(name, second)
    if a.dtype is not b.dtype or a.dtype not in (T.float32, T.float64):
        raise DTypeError(
            "takes two tensors of float32, or of float64",
            op=name,
            operands=[a.ttype, b.ttype],
            fix="cast them with .float()",
        )
    shape = broadcast_shapes(name, a, b)
    return broadcast_to(a, shape), broadcast_to(b, shape)


# ------------------------------------------------------------------------------------------------- views


def view_as_real(input: TensorBase) -> Tensor:
    """The memory of a complex tensor as floats, with a last dimension of size 2: a view. DTypeError for others."""
    x = tensor_arg("view_as_real", input)
    if not x.dtype.is_complex:
        raise DTypeError(f"takes complex tensors, not {x.dtype}", op="view_as_real", operands=[x.ttype])
    return apply(OPS["view_as_real"], x)


def view_as_complex(input: TensorBase) -> Tensor:
    """The memory of a float32 or float64 tensor [..., 2] as complex numbers [...]: a view. DTypeError for other dtypes,
    ShapeError for another last dimension, InvalidValueError where strides or place in memory do not fit pairs."""
    x = tensor_arg("view_as_complex", input)
    if x.dtype not in (T.float32, T.float64):
        fix = "cast it with .float()"
        raise DTypeError(f"takes float32 or float64, not {x.dtype}", op="view_as_complex", operands=[x.ttype], fix=fix)
    if not x.ndim or x.shape[-1] != 2:
        raise ShapeError("the last dimension must have size 2", op="view_as_complex", operands=[x.ttype])
    op = OPS["view_as_complex"]
    assert op.view is not None
    pairs = op.view(x.shape, x._layout.strides, 0, {}) is not None
    if x._flags & LAYERED:  # what is inside is copied where it must be
        return apply(op, x)
    if not pairs or (x._ptr - x._buffer.ptr) % x.dtype.paired.itemsize:
        raise InvalidValueError(
            "the last stride must be 1, the others and the storage offset even",
            op="view_as_complex",
            operands=[x.ttype],
            fix="contiguous(), or clone() it first",
        )
    return apply(op, x)


def real(input: TensorBase) -> Tensor:
    """The real parts of a complex tensor, as a view; a real tensor itself."""
    x = tensor_arg("real", input)
    return _part(x, 0) if x.dtype.is_complex else x


def imag(input: TensorBase) -> Tensor:
    """The imaginary parts of a complex tensor, as a view. DTypeError for real ones."""
    x = tensor_arg("imag", input)
    if not x.dtype.is_complex:
        raise DTypeError(f"is not defined for {x.dtype}", op="imag", operands=[x.ttype], fix="use zeros_like")
    return _part(x, 1)


def _part(x: Tensor, which: int) -> Tensor:
    return view_as_real(x)[..., which]


# -------------------------------------------------------------------------------------------- conjugates


def conj(input: TensorBase) -> Tensor:
    """The complex conjugates, in memory of their own; a real tensor itself."""
    x = tensor_arg("conj", input)
    return apply(OPS["conj"], x) if x.dtype.is_complex else x


def conj_physical(input: TensorBase) -> Tensor:
    """As `conj`; of a real tensor a copy."""
    x = tensor_arg("conj_physical", input)
    return conj(x) if x.dtype.is_complex else F.clone(x)


def resolve_conj(input: TensorBase) -> Tensor:
    """The tensor itself: conjugates are computed at once."""
    return tensor_arg("resolve_conj", input)


def resolve_neg(input: TensorBase) -> Tensor:
    """The tensor itself: negations are computed at once."""
    return tensor_arg("resolve_neg", input)


def is_conj(input: TensorBase) -> bool:
    """False: conjugates are computed at once."""
    tensor_arg("is_conj", input)
    return False


# --------------------------------------------------------------------------------------- size, direction


def angle(input: TensorBase) -> Tensor:
    """The angle of each complex number, atan2(imag, real), with a gradient of 0 at 0; of real numbers 0, or pi where
    they are negative, NaN where they are NaN (integers as the default dtype)."""
    x = tensor_arg("angle", input)
    if not x.dtype.is_complex:
        return _real_angle(x)
    re, im = F.parts(x)
    nothing = F.logical_and(F.eq(re, 0.0), F.eq(im, 0.0))
    plain = apply(OPS["atan2"], im, re)
    safe = apply(OPS["atan2"], F.where(nothing, 0.0, im), F.where(nothing, 1.0, re))
    return F.where(nothing, plain.detach(), safe)


def _real_angle(x: Tensor) -> Tensor:
    f = floating("angle", x)
    turned = F.where(F.lt(f, 0.0), full_like_number(f, f.dtype, math.pi), 0.0)
    return F.where(F.ne(f, f), f, turned)


def sgn(input: TensorBase) -> Tensor:
    """Complex numbers divided by their absolute value, 0 where they are 0 (also the gradient); of real ones `sign`."""
    x = tensor_arg("sgn", input)
    if not x.dtype.is_complex:
        return P.sign(x)
    size = F.abs(x)
    nothing = F.eq(size, 0.0)
    scaled = F.div(x, cast_to(F.where(nothing, 1.0, size), x.dtype))
    return F.where(nothing, 0.0, scaled)
