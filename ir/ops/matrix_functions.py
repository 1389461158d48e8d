"""Functions of matrices that a library carries out (`lapack`): determinants, pseudoinverse, exponential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kiln.ir.graph import Attrs
from kiln.ir.ops import lapack
from kiln.ir.ops.base import Call, OpTypeError
from kiln.ir.ops.create import full_like
from kiln.ir.ops.elementwise import add, eq, mul, sub, where
from kiln.ir.ops.linalg import matmul, transposed
from kiln.ir.ops.matrix import (
    CHECK,
    diagonal_matrix,
    diagonal_of,
    joined,
    library_op,
    matrices,
    part,
    same_as_operand,
    solve,
)
from kiln.ir.ops.movement import broadcast
from kiln.ir.ops.reduce import sum_
from kiln.ir.types import TensorType

# --------------------------------------------------------------------------------------- determinants


def _traces(x: Any) -> Any:
    """The sums of the diagonals of square matrices."""
    found = diagonal_of(x)
    return sum_(found, dims=(found.ttype.rank - 1,))


def _everywhere(v: Any, like: Any) -> Any:
    """A number per matrix in all of the matrix."""
    return broadcast(v, shape=like.ttype.shape, dims=tuple(range(v.ttype.rank)))


def _on_diagonals(v: Any, like: Any) -> Any:
    """A number per matrix along the diagonal of the matrix, zeros elsewhere."""
    shape = like.ttype.shape[:-1]
    return diagonal_matrix(broadcast(v, shape=shape, dims=tuple(range(v.ttype.rank))))


def _regular(a: Any, det: Any) -> Any:
    """`a`, with ones in place of matrices whose determinant is 0: the derivative there is taken for 0, as in torch."""
    ones = _on_diagonals(full_like(det, 1.0), a)
    everywhere = _everywhere(det, a)
    return where(eq(everywhere, full_like(everywhere, 0.0)), ones, a)


def _det_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = matrices("det", operands[0], square=True)
    return (TensorType(t.dtype, t.shape[:-2], t.device),)


def _det_vjp(call: Call, g: Any) -> Sequence[Any]:
    """The adjugate's transpose: y * inv(a)'."""
    a, y = call.operands[0], call.results[0]
    return (solve(transposed(_regular(a, y)), _on_diagonals(mul(g, y), a), check=False),)


def _det_jvp(call: Call, t: Any) -> Sequence[Any]:
    a, y = call.operands[0], call.results[0]
    return (None if t is None else mul(y, _traces(solve(_regular(a, y), t, check=False))),)


det: Final = library_op(
    "det",
    "det(a): determinants of square matrices (LAPACK getrf). The derivative at singular matrices is 0.",
    _det_types,
    lapack.det,
    vjp=_det_vjp,
    jvp=_det_jvp,
    saved_operands=(0,),
    saved_results=(0,),
)


def _slogdet_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = matrices("slogdet", operands[0], square=True)
    result = TensorType(t.dtype, t.shape[:-2], t.device)
    return (result, result)


def _slogdet_vjp(call: Call, _: Any, g: Any) -> Sequence[Any]:
    a = call.operands[0]
    return (None if g is None else solve(transposed(a), _on_diagonals(g, a), check=False),)


def _slogdet_jvp(call: Call, t: Any) -> Sequence[Any]:
    return (None, None if t is None else _traces(solve(call.operands[0], t, check=False)))


slogdet: Final = library_op(
    "slogdet",
    "slogdet(a): (sign, log |det|) of square matrices (LAPACK getrf), (0, -inf) of singular ones, whose derivative is "
    "NaN.",
    _slogdet_types,
    lapack.slogdet,
    vjp=_slogdet_vjp,
    jvp=_slogdet_jvp,
    saved_operands=(0,),
)


# --------------------------------------------------------------------------------------- pseudoinverse


def _pinv_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = matrices("pinv", operands[0], square=bool(attrs["hermitian"]))
    if any(not isinstance(attrs[k], float) for k in ("atol", "rtol")):
        raise OpTypeError("pinv", "atol and rtol must be floats", "value")
    *batch, m, n = t.shape
    return (TensorType(t.dtype, (*batch, n, m), t.device),)


def _pinv_vjp(call: Call, g: Any) -> Sequence[Any]:
    """The transpose of `_pinv_jvp` (Golub and Pereyra, 1973)."""
    a, p = call.operands[0], call.results[0]
    pt, gt = transposed(p), transposed(g)
    first = matmul(pt, matmul(g, pt))
    inner = matmul(gt, matmul(p, pt))
    second = sub(inner, matmul(a, matmul(p, inner)))
    inner = matmul(pt, matmul(p, gt))
    third = sub(inner, matmul(inner, matmul(p, a)))
    return (sub(add(second, third), first),)


def _pinv_jvp(call: Call, t: Any) -> Sequence[Any]:
    """-p t p + p p' t' (1 - a p) + (1 - p a) t' p' p: for changes that keep the rank."""
    if t is None:
        return (None,)
    a, p = call.operands[0], call.results[0]
    pt, tt = transposed(p), transposed(t)
    first = matmul(p, matmul(t, p))
    inner = matmul(p, matmul(pt, tt))
    second = sub(inner, matmul(inner, matmul(a, p)))
    inner = matmul(tt, matmul(pt, p))
    third = sub(inner, matmul(p, matmul(a, inner)))
    return (sub(add(second, third), first),)


pinv: Final = library_op(
    "pinv",
    "pinv(a; atol, rtol, hermitian): Moore-Penrose pseudoinverses (LAPACK gesdd, or syevd of the lower triangle if "
    "hermitian); singular values not above max(atol, rtol * the largest) count as zero. Derivatives are for changes "
    "that keep the rank.",
    _pinv_types,
    lapack.pinv,
    vjp=_pinv_vjp,
    jvp=_pinv_jvp,
    saved_operands=(0,),
    saved_results=(0,),
    traits=CHECK,
)


# ----------------------------------------------------------------------------------------- exponential


def _exp_ref(xp: Any, a: Any) -> Any:
    """The power series of the matrix over 2**10, squared ten times, in extended precision."""
    x = np.asarray(a, np.longdouble) / 1024
    total_, term = np.zeros_like(x) + np.eye(x.shape[-1]), np.zeros_like(x) + np.eye(x.shape[-1])
    for k in range(1, 20):
        term = term @ x / k
        total_ = total_ + term
    for _ in range(10):
        total_ = total_ @ total_
    return total_.astype(a.dtype)


def _derivative(a: Any, t: Any) -> Any:
    """The derivative of the exponential at `a` along `t`: a corner of exp([[a, t], [0, a]]) (Mathias, 1996)."""
    n = a.ttype.shape[-1]
    block = joined(joined(a, t, -1), joined(full_like(a, 0.0), a, -1), -2)
    whole = matrix_exp(block)
    return part(part(whole, -2, 0, n), -1, n, whole.ttype.shape[-1])


matrix_exp: Final = library_op(
    "matrix_exp",
    "matrix_exp(a): exponentials of square matrices (scaling, Padé approximant of order 13, squaring; in float64).",
    same_as_operand("matrix_exp"),
    lapack.matrix_exp,
    ref=_exp_ref,
    vjp=lambda call, g: (_derivative(transposed(call.operands[0]), g),),
    jvp=lambda call, t: (None if t is None else _derivative(call.operands[0], t),),
    saved_operands=(0,),
)
