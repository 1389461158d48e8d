"""Factorisations of matrices: Cholesky, LU, QR, eigenvalues of symmetric matrices, singular values.

With torch.linalg's names and arguments (`kiln.linalg`), and those of torch's older functions, whose names end in an
underscore here. All take stacks of matrices: every dimension but the last two is a batch. They are ops that LAPACK
carries out (ir/ops/matrix.py), and compositions of such, so all of it can be captured and differentiated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from kiln import functional as F
from kiln import movement as M
from kiln.base import TensorBase
from kiln.complexes import conj
from kiln.errors import DTypeError, GradError, InvalidValueError, NotYetError, ShapeError
from kiln.ir.ops.base import OPS
from kiln.ir.types import DType, int32, int64
from kiln.promotion import apply, broadcast_to, cast_to, full_like_number, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "cholesky", "cholesky_ex", "eig", "eigh", "eigvals", "eigvalsh", "householder_product", "lu", "lu_factor",
    "lu_factor_ex", "lu_unpack", "qr", "svd", "svdvals",
]  # fmt: skip


def matrix_arg(name: str, A: object, square: bool = False, pairs: bool = False) -> Tensor:
    """A stack of matrices of float32 or float64; with `pairs` they may be complex."""
    x = tensor_arg(name, A)
    if x.dtype.is_complex and not pairs:
        raise NotYetError("complex matrices are not supported", op=name, operands=[x.ttype])
    if not x.dtype.is_inexact or x.dtype.is_half:
        raise DTypeError(
            f"is not defined for {x.dtype}", op=name, operands=[x.ttype], fix="use .float() (float32) or .double()"
        )
    if x.ndim < 2:
        raise ShapeError("expects at least 2 dimensions", op=name, operands=[x.ttype])
    if square and x.shape[-1] != x.shape[-2]:
        raise ShapeError("expects a stack of square matrices", op=name, operands=[x.ttype])
    return x


def turned(x: Tensor) -> Tensor:
    """The matrices transposed."""
    return F.transpose(x, -2, -1)


def adjoint(x: Tensor) -> Tensor:
    """The matrices transposed, complex ones conjugated."""
    return conj(turned(x))


def identity(like: Tensor, m: int, n: int) -> Tensor:
    """The m x n matrix with ones on the diagonal, in the dtype of `like`."""
    return cast_to(F.eq(_counter(like, m, n, 0), _counter(like, m, n, 1)), like.dtype)


def _counter(like: Tensor, m: int, n: int, dim: int) -> Tensor:
    (made,) = OPS["iota"].bind((), {"shape": (m, n), "dtype": int64, "dim": dim}, receiver=like)
    return cast("Tensor", made)


def zeros(like: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """Memory of its own with zeros."""
    return F.clone(full_like_number(like, dtype, 0, shape))


def first_flaw(bad: Tensor) -> Tensor:
    """Of each row the position of its first true element, from 1; 0 where all are false. int32."""
    if not bad.shape[-1]:
        return zeros(bad, bad.shape[:-1], int32)
    position = F.add(F.argmax(cast_to(bad, int32), -1), 1)
    return cast_to(F.where(F.any(bad, -1), position, 0), int32)


# ------------------------------------------------------------------------------------------- cholesky


class CholeskyEx(NamedTuple):
    """What `cholesky_ex` returns. `info`: 0, or the order of the first leading minor that is not positive definite."""

    L: Tensor
    info: Tensor


def _factor(name: str, A: TensorBase, upper: bool, check: bool) -> Tensor:
    x = matrix_arg(name, A, square=True, pairs=True)
    if upper:
        return adjoint(apply(OPS["cholesky"], adjoint(x), check=check))
    return apply(OPS["cholesky"], x, check=check)


def cholesky(A: TensorBase, *, upper: bool = False) -> Tensor:
    """L with L @ L.mT = A for symmetric positive definite A, of which the lower triangle is read; with `upper` U with
    U.mT @ U = A, from the upper one. LinAlgError where A is not positive definite."""
    return _factor("cholesky", A, upper, True)


def cholesky_ex(A: TensorBase, *, upper: bool = False, check_errors: bool = False) -> CholeskyEx:
    """(L, info) without an error: where info is k > 0, L is NaN from row k on."""
    factor = _factor("cholesky_ex", A, upper, check_errors)
    diagonal = M.diagonal(factor.detach(), 0, -2, -1)
    return CholeskyEx(factor, first_flaw(F.ne(diagonal, diagonal)))


def cholesky_(input: TensorBase, upper: bool = False) -> Tensor:
    """`kiln.linalg.cholesky` as a function of its own (torch.cholesky)."""
    return cholesky(input, upper=upper)


# ------------------------------------------------------------------------------------------------- lu


class LU(NamedTuple):
    """What `lu` and `lu_unpack` return: A = P @ L @ U."""

    P: Tensor
    L: Tensor
    U: Tensor


class LUFactor(NamedTuple):
    """What `lu_factor` returns: both factors in one matrix, and the exchanges of rows, from 1."""

    LU: Tensor
    pivots: Tensor


class LUFactorEx(NamedTuple):
    """What `lu_factor_ex` returns. `info`: 0, or the first row, from 1, where U has a zero on its diagonal."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


def _eliminated(name: str, A: TensorBase, pivot: bool, check: bool) -> LUFactor:
    x = matrix_arg(name, A, pairs=True)
    if not pivot:
        raise NotYetError("elimination without pivoting is not supported", op=name, fix="use pivot=True")
    return LUFactor(*x.__kiln_bind__(OPS["lu_factor"], (x,), {"check": check}))


def lu_factor(A: TensorBase, *, pivot: bool = True) -> LUFactor:
    """(LU, pivots) by Gaussian elimination with partial pivoting, for `lu_solve`: L below the diagonal (its own is 1),
    U on and above it. LinAlgError where U has a zero on its diagonal."""
    return _eliminated("lu_factor", A, pivot, True)


def lu_factor_ex(A: TensorBase, *, pivot: bool = True, check_errors: bool = False) -> LUFactorEx:
    """(LU, pivots, info) without an error."""
    found = _eliminated("lu_factor_ex", A, pivot, check_errors)
    return LUFactorEx(*found, _zero_pivot(found.LU))


def _zero_pivot(factors: Tensor) -> Tensor:
    return first_flaw(F.eq(M.diagonal(factors.detach(), 0, -2, -1), 0.0))


def lu(A: TensorBase, *, pivot: bool = True) -> LU:
    """(P, L, U) with A = P @ L @ U: a permutation, a lower triangle with ones on its diagonal, an upper triangle."""
    return lu_unpack(*_eliminated("lu", A, pivot, False))


def lu_unpack(LU_data: TensorBase, LU_pivots: TensorBase, unpack_data: bool = True, unpack_pivots: bool = True) -> LU:
    """(P, L, U) of what `lu_factor` returned. What is not unpacked is an empty tensor."""
    factors = matrix_arg("lu_unpack", LU_data, pairs=True)
    m, n = factors.shape[-2:]
    k = min(m, n)
    nothing = zeros(factors, (0,), factors.dtype)
    P = L = U = nothing
    if unpack_pivots:
        order = row_order("lu_unpack", LU_pivots, m)
        P = cast_to(F.eq(_counter(factors, m, m, 0), F.unsqueeze(order, -2)), factors.dtype)
    if unpack_data:
        L = F.add(M.tril(_columns(factors, k), -1), identity(factors, m, k))
        U = M.triu(_columns(turned(factors), k).mT)
    return LU(P, L, U)


def _columns(x: Tensor, k: int) -> Tensor:
    return x if x.shape[-1] == k else M.narrow(x, -1, 0, k)


def row_order(name: str, pivots: TensorBase, rows: int) -> Tensor:
    """The order of rows that exchanges lead to, int64."""
    p = tensor_arg(name, pivots)
    if p.dtype is not int32:
        raise DTypeError("pivots must be int32, as lu_factor gives them", op=name, operands=[p.ttype])
    if not p.ndim or p.shape[-1] > rows:
        raise ShapeError(f"the pivots do not fit {rows} rows", op=name, operands=[p.ttype])
    return apply(OPS["lu_permutation"], p, rows=rows)


def in_order(x: Tensor, order: Tensor) -> Tensor:
    """The rows of stacks of matrices in an order, int64 [..., rows]."""
    batch = x.ndim - 2
    place = (*range(batch), -1, batch + 1)
    return apply(OPS["gather"], x, order, at=tuple(range(batch + 1)), place=place, wrap=False)


def lu_(A: TensorBase, pivot: bool = True, get_infos: bool = False) -> LUFactor | LUFactorEx:
    """(LU, pivots), or with `get_infos` (LU, pivots, info) without an error (torch.lu)."""
    return lu_factor_ex(A, pivot=pivot) if get_infos else lu_factor(A, pivot=pivot)


# ------------------------------------------------------------------------------------------------- qr


class QR(NamedTuple):
    """What `qr` returns: A = Q @ R."""

    Q: Tensor
    R: Tensor


def qr(A: TensorBase, mode: str = "reduced") -> QR:
    """(Q, R) with orthonormal columns and an upper triangle: of min(m, n) columns and rows, in mode "complete" of m;
    mode "r" gives an empty Q. GradError for a gradient in mode "complete" where m > n."""
    x = matrix_arg("qr", A, pairs=True)
    if mode not in ("reduced", "complete", "r"):
        raise InvalidValueError(f'mode must be "reduced", "complete" or "r", not {mode!r}', op="qr")
    if mode == "complete" and x.shape[-2] > x.shape[-1]:
        if x.requires_grad:
            raise GradError(
                "mode 'complete' has no derivative where there are more rows than columns",
                op="qr",
                operands=[x.ttype],
                fix='use mode="reduced", or detach()',
            )
        return QR(*x.__kiln_bind__(OPS["qr_complete"], (x,), {}))
    q, r = x.__kiln_bind__(OPS["qr"], (x,), {})
    return QR(zeros(x, (0,), x.dtype) if mode == "r" else q, r)


def qr_(input: TensorBase, some: bool = True) -> QR:
    """(Q, R), of min(m, n) columns and rows if `some`, else of m (torch.qr)."""
    return qr(input, "reduced" if some else "complete")


def householder_product(A: TensorBase, tau: TensorBase) -> Tensor:
    """The first n columns of the product of reflections 1 - tau[i] * v[i] @ v[i].mH, v[i] being column i of A below the
    diagonal, 1 on it and 0 above."""
    x, t = matrix_arg("householder_product", A, pairs=True), tensor_arg("householder_product", tau)
    m, n = x.shape[-2:]
    if t.dtype is not x.dtype or t.ndim != x.ndim - 1 or t.shape[:-1] != x.shape[:-2] or not t.shape[-1] <= n <= m:
        raise ShapeError("expects A [..., m, n] and tau [..., k] with m >= n >= k", op="householder_product",
                         operands=[x.ttype, t.ttype])  # fmt: skip
    v = F.add(M.tril(x, -1), identity(x, m, n))
    q = broadcast_to(identity(x, m, n), x.shape)
    for i in reversed(range(t.shape[-1])):
        column = M.narrow(v, -1, i, 1)
        scaled = F.mul(column, F.unsqueeze(M.narrow(t, -1, i, 1), -1))
        q = F.sub(q, F.matmul(scaled, F.matmul(adjoint(column), q)))
    return q


# --------------------------------------------------------------------------------------- eigh and svd


class Eigh(NamedTuple):
    """What `eigh` returns: A = V @ diag(w) @ V.mH."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def eigh(A: TensorBase, UPLO: str = "L") -> Eigh:
    """(eigenvalues, eigenvectors) of symmetric (or Hermitian) matrices, of which the lower ("L") or upper ("U")
    triangle is read; the eigenvalues ascend. Eigenvectors have gradients where no eigenvalue repeats. LinAlgError for
    NaN and infinities."""
    x = matrix_arg("eigh", A, square=True, pairs=True)
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise InvalidValueError(f'UPLO must be "L" or "U", not {UPLO!r}', op="eigh")
    return Eigh(*x.__kiln_bind__(OPS["eigh"], (x,), {"upper": UPLO.upper() == "U"}))


def eigvalsh(A: TensorBase, UPLO: str = "L") -> Tensor:
    """The eigenvalues of `eigh`."""
    return eigh(A, UPLO).eigenvalues


class Eig(NamedTuple):
    """What `eig` returns: A @ V = V @ diag(w)."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def eig(A: TensorBase) -> Eig:
    """(eigenvalues, eigenvectors) of square matrices, complex, in no order; the eigenvectors have length 1. Gradients
    are for functions that do not depend on the direction in which an eigenvector points in the complex plane, where no
    eigenvalue repeats. LinAlgError for NaN and infinities."""
    x = matrix_arg("eig", A, square=True, pairs=True)
    return Eig(*x.__kiln_bind__(OPS["eig"], (x,), {}))


def eigvals(A: TensorBase) -> Tensor:
    """The eigenvalues of `eig`."""
    return eig(A).eigenvalues


class SVD(NamedTuple):
    """What `svd` returns: A = U @ diag(S) @ Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def svd(A: TensorBase, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """(U, S, Vh): singular values in descending order, U and Vh square, or of min(m, n) columns and rows unless
    `full_matrices`. U and Vh have gradients where no singular value repeats; those by further columns are ignored."""
    if driver is not None:
        raise InvalidValueError("a driver can be chosen on GPUs only", op="svd")
    x = matrix_arg("svd", A, pairs=True)
    return SVD(*x.__kiln_bind__(OPS["svd"], (x,), {"full": bool(full_matrices)}))


def svdvals(A: TensorBase, *, driver: str | None = None) -> Tensor:
    """The singular values, in descending order."""
    return svd(A, False, driver=driver).S


class SVDTransposed(NamedTuple):
    """What torch.svd returns: A = U @ diag(S) @ V.mH."""

    U: Tensor
    S: Tensor
    V: Tensor


def svd_(input: TensorBase, some: bool = True, compute_uv: bool = True) -> SVDTransposed:
    """(U, S, V), with min(m, n) columns if `some`; without `compute_uv` U and V are zeros (torch.svd)."""
    if compute_uv:
        u, s, vh = svd(input, not some)
        return SVDTransposed(u, s, adjoint(vh))
    x = matrix_arg("svd", input, pairs=True)
    m, n = x.shape[-2:]
    u, v = (zeros(x, (*x.shape[:-2], k, k), x.dtype) for k in (m, n))
    return SVDTransposed(u, svdvals(x), v)
