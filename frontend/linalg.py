"""`kiln.linalg`: torch.linalg's functions, with its names and arguments. Norms and products live here, the rest in
`kiln.factorizations` and `kiln.systems`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln import contraction, cumulative
from kiln import functional as F
from kiln import movement as M
from kiln.base import TensorBase
from kiln.errors import DTypeError, InvalidValueError, ShapeError
from kiln.errors import LinAlgError as LinAlgError
from kiln.factorizations import cholesky as cholesky
from kiln.factorizations import cholesky_ex as cholesky_ex
from kiln.factorizations import eig as eig
from kiln.factorizations import eigh as eigh
from kiln.factorizations import eigvals as eigvals
from kiln.factorizations import eigvalsh as eigvalsh
from kiln.factorizations import householder_product as householder_product
from kiln.factorizations import lu as lu
from kiln.factorizations import lu_factor as lu_factor
from kiln.factorizations import lu_factor_ex as lu_factor_ex
from kiln.factorizations import matrix_arg, zeros
from kiln.factorizations import qr as qr
from kiln.factorizations import svd as svd
from kiln.factorizations import svdvals as svdvals
from kiln.functional import Dims, dim_index
from kiln.functional import matmul as matmul
from kiln.ir.types import DType, int64
from kiln.promotion import cast_to, full_like_number, in_float32, tensor_arg
from kiln.reductions import vector_norm as vector_norm
from kiln.systems import det as det
from kiln.systems import inv as inv
from kiln.systems import inv_ex as inv_ex
from kiln.systems import lstsq as lstsq
from kiln.systems import lu_solve as lu_solve
from kiln.systems import matrix_exp as matrix_exp
from kiln.systems import matrix_power as matrix_power
from kiln.systems import matrix_rank as matrix_rank
from kiln.systems import pinv as pinv
from kiln.systems import slogdet as slogdet
from kiln.systems import solve as solve
from kiln.systems import solve_ex as solve_ex
from kiln.systems import solve_triangular as solve_triangular
from kiln.systems import tensorinv as tensorinv
from kiln.systems import tensorsolve as tensorsolve

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh",
    "householder_product", "inv", "inv_ex", "lstsq", "lu", "lu_factor", "lu_factor_ex", "lu_solve", "matmul",
    "matrix_exp", "matrix_norm", "matrix_power", "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve",
    "solve_ex", "solve_triangular", "svd", "svdvals", "tensorinv", "tensorsolve", "vander", "vecdot", "vector_norm",
]  # fmt: skip


def matrix_norm(
    A: TensorBase, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The norm of the matrices in two dimensions: "fro" (the root of the sum of squares), the largest (or for negative
    `ord` least) sum of magnitudes of a column (1, -1) or row (inf, -inf) or singular value (2, -2), "nuc" the sum of
    singular values."""
    x = tensor_arg("matrix_norm", A)
    if x.ndim < 2:
        raise ShapeError("expects at least 2 dimensions", op="matrix_norm", operands=[x.ttype])
    if not x.dtype.is_inexact:
        raise DTypeError(f"is not defined for {x.dtype}", op="matrix_norm", operands=[x.ttype], fix="use .float()")
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise InvalidValueError(f"dim must be two dimensions, got {dim!r}", op="matrix_norm")
    rows, columns = (dim_index("matrix_norm", d, x.ndim) for d in dim)
    if rows == columns:
        raise InvalidValueError(f"the dimensions must differ, got {dim!r}", op="matrix_norm")
    if ord == "fro":
        return vector_norm(x, 2, (rows, columns), keepdim, dtype=dtype)
    if ord in (2, -2, "nuc"):
        wide = x if dtype is None else cast_to(x, dtype)
        return _spectral(M.movedim(wide, (rows, columns), (-2, -1)), ord, (rows, columns), keepdim)
    if isinstance(ord, str) or ord not in (1, -1, math.inf, -math.inf):
        raise InvalidValueError(f"there is no matrix norm of ord {ord!r}", op="matrix_norm")
    summed, chosen = (rows, columns) if abs(ord) == 1 else (columns, rows)
    return _extreme_sum(x if dtype is None else cast_to(x, dtype), summed, chosen, ord > 0, keepdim)


def _spectral(x: Tensor, ord: Any, dims: tuple[int, int], keepdim: bool) -> Tensor:
    """Of the singular values of the last two dimensions; they were `dims`."""
    values = svdvals(matrix_arg("matrix_norm", x, pairs=True))
    if ord != "nuc" and not values.shape[-1] and ord < 0:
        raise ShapeError("nothing has no least singular value", op="matrix_norm", operands=[x.ttype])
    if ord == "nuc" or not values.shape[-1]:
        result = F.sum(values, -1)
    else:
        result = (F.amax if ord > 0 else F.amin)(values, -1)
    if not keepdim:
        return result
    for d in sorted(dims):
        result = F.unsqueeze(result, d)
    return result


@in_float32
def _extreme_sum(x: Tensor, summed: int, chosen: int, largest: bool, keepdim: bool) -> Tensor:
    sums = F.sum(F.abs(x), summed, keepdim=True)
    result = (F.amax if largest else F.amin)(sums, chosen, keepdim=True)
    shape = [n for d, n in enumerate(result.shape) if d not in (summed, chosen)]
    return result if keepdim else F.reshape(result, shape)


def norm(
    A: TensorBase, ord: Any = None, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Without `ord` the root of the sum of squares over `dim` (default: all). Else `vector_norm` over one dimension,
    `matrix_norm` over two; without `dim` the tensor must be a vector or a matrix."""
    x = tensor_arg("norm", A)
    if ord is None:
        return vector_norm(x, 2, dim, keepdim, dtype=dtype)
    if dim is None:
        if x.ndim not in (1, 2):
            raise ShapeError("without dim, ord is for vectors and matrices", op="norm", operands=[x.ttype])
        dim = tuple(range(x.ndim))
    if isinstance(dim, int) or (len(dim) == 1 and not isinstance(ord, str)):
        return vector_norm(x, ord, dim, keepdim, dtype=dtype)
    return matrix_norm(x, ord, tuple(dim), keepdim, dtype=dtype)


def cond(A: TensorBase, p: Any = None) -> Tensor:
    """The condition numbers: the largest singular value over the least (p None or 2; -2: the inverse of that), or the
    norm of order `p` of the matrix times that of its inverse, inf of singular matrices."""
    x = matrix_arg("cond", A, pairs=True)
    if p is None or p in (2, -2):
        values = svdvals(x)
        if not values.shape[-1]:
            return zeros(x, x.shape[:-2], x.dtype.part)
        most, least = F.amax(values, -1), F.amin(values, -1)
        return F.div(least, most) if p == -2 else F.div(most, least)
    x = matrix_arg("cond", A, square=True, pairs=True)
    if not x.shape[-1]:
        return zeros(x, x.shape[:-2], x.dtype.part)
    inverse, info = inv_ex(x)
    result = F.mul(matrix_norm(x, p), matrix_norm(inverse, p))
    return F.where(F.ne(info, 0), math.inf, result)


def cross(input: TensorBase, other: TensorBase, *, dim: int = -1) -> Tensor:
    """Cross products of vectors of three elements along `dim`."""
    a, b = tensor_arg("cross", input), tensor_arg("cross", other)
    if a.ndim != b.ndim:
        raise ShapeError("expects as many dimensions of both", op="cross", operands=[a.ttype, b.ttype])
    return contraction.cross(a, b, dim)


def vecdot(x: TensorBase, y: TensorBase, *, dim: int = -1) -> Tensor:
    """Sums of products along `dim`; the others broadcast."""
    return F.sum(F.mul(tensor_arg("vecdot", x), tensor_arg("vecdot", y)), dim)


def diagonal(A: TensorBase, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """`kiln.diagonal` of the last two dimensions by default."""
    return M.diagonal(A, offset, dim1, dim2)


def multi_dot(tensors: Sequence[TensorBase]) -> Tensor:
    """The product of matrices (the first and the last may be vectors), from left to right: its bits must not depend on
    which order of multiplication the sizes make cheapest."""
    if len(tensors) < 2:
        raise InvalidValueError(f"needs at least two tensors, got {len(tensors)}", op="multi_dot")
    each = [tensor_arg("multi_dot", t) for t in tensors]
    wanted = [(1, 2), *[(2,)] * (len(each) - 2), (1, 2)]
    if any(t.ndim not in ranks for t, ranks in zip(each, wanted, strict=True)):
        raise ShapeError("expects matrices, or vectors at the ends", op="multi_dot", operands=[t.ttype for t in each])
    result, *rest = each
    for t in rest:
        result = F.matmul(result, t)
    return result


def vander(x: TensorBase, *, N: int | None = None) -> Tensor:
    """The powers 0 to N - 1 (N: as many as there are elements) of each element, along a new last dimension."""
    t = tensor_arg("vander", x)
    if not t.ndim:
        raise ShapeError("expects at least one dimension", op="vander", operands=[t.ttype])
    n = t.shape[-1] if N is None else N
    if not isinstance(n, int) or n < 0 or (N is not None and N <= 1):
        raise InvalidValueError(f"N must be greater than 1, got {N!r}", op="vander")
    return _powers(t, n)


def _powers(t: Tensor, n: int) -> Tensor:
    """The powers 0 to n - 1 along a new last dimension; those of integers are int64."""
    t = cast_to(t, int64) if t.dtype.kind in ("bool", "int", "uint") else t
    if n == 0:
        return zeros(t, (*t.shape, 0), t.dtype)
    ones = full_like_number(t, t.dtype, 1, (*t.shape, 1))
    powers = cumulative.cumprod(F.expand(F.unsqueeze(t, -1), (*t.shape, n - 1)), -1)
    return F.cat([ones, powers], -1)


def vander_(x: TensorBase, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers N - 1 down to 0 of a vector's elements (if `increasing`, 0 to N - 1), a row each (torch.vander)."""
    t = tensor_arg("vander", x)
    if t.ndim != 1:
        raise ShapeError("expects a vector", op="vander", operands=[t.ttype])
    n = t.shape[0] if N is None else N
    if not isinstance(n, int) or n < 0:
        raise InvalidValueError(f"N must be a non-negative int, got {N!r}", op="vander")
    powers = _powers(t, n)
    return powers if increasing else M.flip(powers, 1)
