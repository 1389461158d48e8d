"""Linear systems, inverses, determinants and functions of matrices, with torch.linalg's names and arguments
(`kiln.linalg`), and those of torch's older functions. All take stacks of matrices, which broadcast where there are two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kiln import functional as F
from kiln import movement as M
from kiln.base import TensorBase
from kiln.complexes import angle
from kiln.dtypes import finfo
from kiln.errors import DTypeError, InvalidValueError, NotYetError, ShapeError
from kiln.factorizations import adjoint as conj_turned
from kiln.factorizations import eigvalsh as _eigvalsh
from kiln.factorizations import identity, in_order, lu_factor_ex, matrix_arg, row_order, svdvals, turned, zeros
from kiln.ir.ops.base import OPS
from kiln.ir.types import int64
from kiln.movement import narrow
from kiln.promotion import apply, broadcast_to, pair, parts, tensor_arg

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = [
    "cholesky_inverse", "cholesky_solve", "det", "inv", "inv_ex", "logdet", "lstsq", "lu_solve", "matrix_exp",
    "matrix_power", "matrix_rank", "pinv", "slogdet", "solve", "solve_ex", "solve_triangular", "tensorinv",
    "tensorsolve", "triangular_solve",
]  # fmt: skip


def _stacks(name: str, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Two stacks of matrices with one batch shape and one dtype."""
    if A.dtype is not B.dtype:
        raise DTypeError(
            "operands have different dtypes", op=name, operands=[A.ttype, B.ttype], fix="cast one with .to()"
        )
    first, second = A.shape[:-2], B.shape[:-2]
    rank = max(len(first), len(second))
    batch = []
    for a, b in zip((1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second, strict=True):
        if a != b and 1 not in (a, b):
            raise ShapeError("batch dimensions can't be broadcast", op=name, operands=[A.ttype, B.ttype])
        batch.append(b if a == 1 else a)
    return broadcast_to(A, (*batch, *A.shape[-2:])), broadcast_to(B, (*batch, *B.shape[-2:]))


def _fits(name: str, A: Tensor, B: Tensor, left: bool = True) -> None:
    if B.shape[-2 if left else -1] != A.shape[-1]:
        raise ShapeError(
            f"A has {A.shape[-1]} {'rows' if left else 'columns'}, B {B.shape[-2 if left else -1]}",
            op=name,
            operands=[A.ttype, B.ttype],
        )


# ------------------------------------------------------------------------------- systems and inverses


class SolveEx(NamedTuple):
    """What `solve_ex` returns. `info`: 0, or where elimination met the first zero pivot, from 1."""

    result: Tensor
    info: Tensor


class InvEx(NamedTuple):
    """What `inv_ex` returns. `info`: 0, or where elimination met the first zero pivot, from 1."""

    inverse: Tensor
    info: Tensor


def _solved(name: str, A: TensorBase, B: TensorBase, left: bool, check: bool) -> Tensor:
    a, b = matrix_arg(name, A, square=True, pairs=True), tensor_arg(name, B)
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    if vector and not left:
        raise ShapeError("vectors can't stand on the left", op=name, operands=[a.ttype, b.ttype])
    b = matrix_arg(name, F.unsqueeze(b, -1) if vector else b, pairs=True)
    _fits(name, a, b, left)
    a, b = _stacks(name, a, b)
    if not left:
        return turned(apply(OPS["solve"], turned(a), turned(b), check=check))
    x = apply(OPS["solve"], a, b, check=check)
    return F.squeeze(x, -1) if vector else x


def solve(A: TensorBase, B: TensorBase, *, left: bool = True) -> Tensor:
    """X with A @ X = B (unless `left`: X @ A = B). B may be a vector, or a stack of vectors of shape A.shape[:-1].
    LinAlgError where A is singular."""
    return _solved("solve", A, B, left, True)


def solve_ex(A: TensorBase, B: TensorBase, *, left: bool = True, check_errors: bool = False) -> SolveEx:
    """(result, info) without an error: where A is singular, the result is NaN."""
    x = _solved("solve_ex", A, B, left, check_errors)
    return SolveEx(x, lu_factor_ex(tensor_arg("solve_ex", A).detach()).info)


def inv(A: TensorBase) -> Tensor:
    """The inverses of square matrices. LinAlgError where one is singular."""
    return apply(OPS["inv"], matrix_arg("inv", A, square=True, pairs=True), check=True)


def inv_ex(A: TensorBase, *, check_errors: bool = False) -> InvEx:
    """(inverse, info) without an error: of a singular matrix the inverse is NaN."""
    x = matrix_arg("inv_ex", A, square=True, pairs=True)
    return InvEx(apply(OPS["inv"], x, check=check_errors), lu_factor_ex(x.detach()).info)


def _identities(x: Tensor) -> Tensor:
    return broadcast_to(identity(x, x.shape[-1], x.shape[-1]), x.shape)


def inverse(input: TensorBase) -> Tensor:
    """`kiln.linalg.inv`."""
    return inv(input)


def solve_triangular(
    A: TensorBase, B: TensorBase, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """X with A @ X = B (unless `left`: X @ A = B) for a triangular A; the other triangle, and with `unitriangular` the
    diagonal, is not read. A zero on the diagonal is divided by."""
    name = "solve_triangular"
    a, b = matrix_arg(name, A, square=True, pairs=True), matrix_arg(name, B, pairs=True)
    _fits(name, a, b, left)
    a, b = _stacks(name, a, b)
    upper, unit = bool(upper), bool(unitriangular)
    if left:
        return apply(OPS["triangular_solve"], a, b, upper=upper, unit=unit)
    return turned(apply(OPS["triangular_solve"], turned(a), turned(b), upper=not upper, unit=unit))


class TriangularSolve(NamedTuple):
    """What `triangular_solve` returns."""

    solution: Tensor
    cloned_coefficient: Tensor


def triangular_solve(
    b: TensorBase, A: TensorBase, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> TriangularSolve:
    """(solution, a copy of A) of A @ X = b, or with `transpose` of A.mT @ X = b, for a triangular A."""
    a = matrix_arg("triangular_solve", A, square=True, pairs=True)
    used, is_upper = (turned(a), not upper) if transpose else (a, upper)
    return TriangularSolve(solve_triangular(used, b, upper=is_upper, unitriangular=unitriangular), F.clone(a))


def lu_solve(LU: TensorBase, pivots: TensorBase, B: TensorBase, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """X with A @ X = B (unless `left`: X @ A = B; with `adjoint` A.mH in place of A), from `lu_factor` of A."""
    name = "lu_solve"
    a, b = matrix_arg(name, LU, square=True, pairs=True), matrix_arg(name, B, pairs=True)
    _fits(name, a, b, left)
    if not left:
        return conj_turned(lu_solve(a, pivots, conj_turned(b), adjoint=not adjoint))
    order = row_order(name, pivots, a.shape[-1])
    if order.shape != a.shape[:-1]:
        raise ShapeError("the pivots do not belong to these factors", op=name, operands=[a.ttype, order.ttype])
    a, b = _stacks(name, a, b)
    order = broadcast_to(order, a.shape[:-1])
    if adjoint:
        y = solve_triangular(conj_turned(a), b, upper=False)
        y = solve_triangular(conj_turned(a), y, upper=True, unitriangular=True)
        return in_order(y, apply(OPS["argsort"], order, descending=False))
    y = solve_triangular(a, in_order(b, order), upper=False, unitriangular=True)
    return solve_triangular(a, y, upper=True)


def lu_solve_(b: TensorBase, LU_data: TensorBase, LU_pivots: TensorBase) -> Tensor:
    """`kiln.linalg.lu_solve` with the right side first (torch.lu_solve)."""
    return lu_solve(LU_data, LU_pivots, b)


def cholesky_solve(B: TensorBase, L: TensorBase, upper: bool = False) -> Tensor:
    """X with A @ X = B, from the factor of `cholesky` of A (with `upper` its upper one)."""
    factor = matrix_arg("cholesky_solve", L, square=True, pairs=True)
    lower = conj_turned(factor) if upper else factor
    y = solve_triangular(lower, B, upper=False)
    return solve_triangular(conj_turned(lower), y, upper=True)


def cholesky_inverse(L: TensorBase, upper: bool = False) -> Tensor:
    """The inverse of A, from the factor of `cholesky` of A (with `upper` its upper one)."""
    factor = matrix_arg("cholesky_inverse", L, square=True, pairs=True)
    return cholesky_solve(_identities(factor), factor, upper)


# --------------------------------------------------------------------------------------- determinants


class SlogDet(NamedTuple):
    """What `slogdet` returns."""

    sign: Tensor
    logabsdet: Tensor


def det(A: TensorBase) -> Tensor:
    """The determinants of square matrices; that of an empty one is 1. The gradient at singular matrices is 0."""
    return apply(OPS["det"], matrix_arg("det", A, square=True, pairs=True))


def slogdet(A: TensorBase) -> SlogDet:
    """(sign, logabsdet): the determinants' signs and the logarithms of their magnitudes; (0, -inf) of singular ones."""
    x = matrix_arg("slogdet", A, square=True, pairs=True)
    return SlogDet(*x.__kiln_bind__(OPS["slogdet"], (x,), {}))


def logdet(input: TensorBase) -> Tensor:
    """The logarithms of determinants: -inf of singular matrices, NaN where the determinant is negative; of complex
    ones with an imaginary part from -pi to pi."""
    sign, log = slogdet(matrix_arg("logdet", input, square=True, pairs=True))
    if sign.dtype.is_complex:
        return pair(log, angle(sign))
    return F.where(F.eq(sign, -1.0), math.nan, log)


# ----------------------------------------------------------------- pseudoinverse, rank, least squares


def _tolerances(name: str, x: Tensor, atol: Any, rtol: Any) -> tuple[float, float]:
    """`atol` and `rtol` as numbers: by default max(m, n) * eps of the largest singular value, where there is no
    atol."""
    for value in (atol, rtol):
        if isinstance(value, TensorBase):
            raise NotYetError("tolerances that are tensors are not supported", op=name, fix="pass numbers")
    default = max(x.shape[-2:]) * finfo(x.dtype.part).eps if not atol else 0.0
    return float(atol or 0.0), float(default if rtol is None else rtol)


def pinv(A: TensorBase, *, atol: float | None = None, rtol: float | None = None, hermitian: bool = False) -> Tensor:
    """The Moore-Penrose pseudoinverses. Singular values not above max(atol, rtol * the largest) count as zero; with
    `hermitian` they are eigenvalues, and the lower triangle is read."""
    x = matrix_arg("pinv", A, square=hermitian, pairs=True)
    least, part = _tolerances("pinv", x, atol, rtol)
    return apply(OPS["pinv"], x, atol=least, rtol=part, hermitian=bool(hermitian))


def pinverse(input: TensorBase, rcond: float = 1e-15) -> Tensor:
    """`kiln.linalg.pinv` with the relative tolerance `rcond`."""
    return pinv(input, rtol=rcond)


def matrix_rank(
    A: TensorBase, *, atol: float | None = None, rtol: float | None = None, hermitian: bool = False
) -> Tensor:
    """How many singular values (with `hermitian`, magnitudes of eigenvalues) are above max(atol, rtol * the largest),
    int64."""
    x = matrix_arg("matrix_rank", A, square=hermitian, pairs=True)
    least, part = _tolerances("matrix_rank", x, atol, rtol)
    if not min(x.shape[-2:]):
        return zeros(x, x.shape[:-2], int64)
    sizes = F.abs(_eigvalsh(x.detach())) if hermitian else svdvals(x.detach())
    limit = F.clamp(F.mul(F.amax(sizes, -1, keepdim=True), part), least)
    return F.sum(F.gt(sizes, limit), -1)


class LstSq(NamedTuple):
    """What `lstsq` returns."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


def lstsq(A: TensorBase, B: TensorBase, rcond: float | None = None, *, driver: str | None = None) -> LstSq:
    """(solution, residuals, rank, singular_values): the X that makes the sum of squares of A @ X - B least, and of
    these the least X. B may be a stack of vectors of shape A.shape[:-1]. Singular values not above `rcond` times the
    largest (by default max(m, n) * eps) count as zero.

    All drivers (LAPACK's "gelsy", "gels", "gelsd", "gelss") compute the same here, by the pseudoinverse; what they
    return besides the solution follows torch: "gels" residuals, "gelsy" the rank, the others both and singular values.
    NotYetError for residuals that depend on the rank inside a captured function ("gelsd", "gelss")."""
    name = "lstsq"
    a, b = matrix_arg(name, A, pairs=True), tensor_arg(name, B)
    if driver not in (None, "gelsy", "gels", "gelsd", "gelss"):
        raise InvalidValueError(
            f"there is no driver {driver!r}", op=name, fix='use "gelsy", "gels", "gelsd" or "gelss"'
        )
    vector = b.ndim == a.ndim - 1 and b.shape == a.shape[:-1]
    b = matrix_arg(name, F.unsqueeze(b, -1) if vector else b, pairs=True)
    if b.shape[-2] != a.shape[-2]:
        raise ShapeError("A and B must have as many rows", op=name, operands=[a.ttype, b.ttype])
    a, b = _stacks(name, a, b)
    m, n = a.shape[-2:]
    rtol = max(m, n) * finfo(a.dtype.part).eps if rcond is None else float(rcond)
    solution = F.matmul(apply(OPS["pinv"], a, atol=0.0, rtol=rtol, hermitian=False), b)
    nothing = zeros(a, (0,), a.dtype.part)
    residuals, values, rank = nothing, nothing, zeros(a, (0,), int64)
    if driver != "gels":
        rank = matrix_rank(a, rtol=rtol)
    if driver in ("gelsd", "gelss"):
        values = svdvals(a)
    if m > n and (driver == "gels" or (driver in ("gelsd", "gelss") and bool(F.all(F.eq(rank, n))))):
        residuals = F.sum(F.square(F.abs(F.sub(F.matmul(a, solution), b))), -2)
    return LstSq(F.squeeze(solution, -1) if vector else solution, residuals, rank, values)


# ------------------------------------------------------------------------------------ powers, tensors


def matrix_power(A: TensorBase, n: int) -> Tensor:
    """The n-th power of square matrices, by repeated squaring; a negative power is that of the inverse."""
    x = tensor_arg("matrix_power", A)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError("expects a stack of square matrices", op="matrix_power", operands=[x.ttype])
    if not isinstance(n, int) or isinstance(n, bool):
        raise InvalidValueError(f"the exponent must be an int, not {n!r}", op="matrix_power")
    if n == 0:
        return F.clone(_identities(x))
    base, left = (inv(x), -n) if n < 0 else (x, n)
    result: Tensor | None = None
    while left:
        if left & 1:
            result = base if result is None else F.matmul(result, base)
        left >>= 1
        if left:
            base = F.matmul(base, base)
    assert result is not None
    return F.clone(result) if result is x else result


def matrix_exp(A: TensorBase) -> Tensor:
    """The exponentials of square matrices: the sums of their power series. Of a complex one it is that of the real
    matrix [[re, -im], [im, re]], which is made alike."""
    x = matrix_arg("matrix_exp", A, square=True, pairs=True)
    if not x.dtype.is_complex:
        return apply(OPS["matrix_exp"], x)
    (re, im), n = parts(x), x.shape[-1]
    found = apply(OPS["matrix_exp"], F.cat([F.cat([re, F.neg(im)], -1), F.cat([im, re], -1)], -2))
    left = narrow(found, -1, 0, n)
    return pair(narrow(left, -2, 0, n), narrow(left, -2, n, n))


def tensorinv(A: TensorBase, ind: int = 2) -> Tensor:
    """The inverse of A as a map from its last dimensions to its first `ind`: tensordot(tensorinv(A), A, ind) is the
    identity."""
    x = tensor_arg("tensorinv", A)
    if not isinstance(ind, int) or ind <= 0:
        raise InvalidValueError(f"ind must be a positive int, not {ind!r}", op="tensorinv")
    front, back = x.shape[:ind], x.shape[ind:]
    if math.prod(front) != math.prod(back):
        raise ShapeError(
            f"the first {ind} dimensions must have as many elements as the others", op="tensorinv", operands=[x.ttype]
        )
    return F.reshape(inv(F.reshape(x, (math.prod(front), math.prod(back)))), (*back, *front))


def tensorsolve(A: TensorBase, B: TensorBase, dims: Sequence[int] | None = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B; the dimensions `dims` of A are moved to its end first."""
    x, b = tensor_arg("tensorsolve", A), tensor_arg("tensorsolve", B)
    if dims is not None:
        x = M.movedim(x, tuple(dims), tuple(range(x.ndim - len(dims), x.ndim)))
    shape = x.shape[b.ndim :]
    if math.prod(shape) != math.prod(x.shape[: b.ndim]) or math.prod(shape) != b._layout.numel:
        raise ShapeError("A is no square map onto B", op="tensorsolve", operands=[x.ttype, b.ttype])
    square = F.reshape(x, (b._layout.numel, math.prod(shape)))
    return F.reshape(solve(square, F.reshape(b, (-1,))), shape)
