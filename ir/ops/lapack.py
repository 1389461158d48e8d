"""What the ops of `matrix` call: NumPy's `linalg` (LAPACK) on stacks of matrices, and two algorithms it does not have.

Operands are row-major arrays and are never written to. Each matrix of a stack is computed by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from kiln.ir.ops.base import LibraryError

Array = np.ndarray[Any, Any]

BLOCK: Final = 32
"""Columns that are factored, and rows that are substituted, one by one; what is beyond them by a matrix product."""


def _which(batch: tuple[int, ...], at: tuple[int, ...]) -> str:
    """Where in a stack a matrix is, for a message."""
    return f"matrix {at if len(at) > 1 else at[0]} of the stack" if batch else "the matrix"


def cholesky(a: Array, *, check: bool) -> Array:
    """The lower factor. Of a matrix that is not positive definite an error; without `check` its factor is NaN from the
    first row on that has none."""
    try:
        return np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        result = np.zeros_like(a)
    for at in np.ndindex(a.shape[:-2]):
        k = _definite(a[at])
        if k < a.shape[-1]:
            if check:
                what = _which(a.shape[:-2], at)
                raise LibraryError(f"{what} is not positive definite (its leading minor of order {k + 1} is not)")
            result[at][k:] = np.nan
        result[at][:k, :k] = np.linalg.cholesky(a[at][:k, :k])
    return result


def _definite(a: Array) -> int:
    """How many leading minors in a row are positive definite."""
    low, high = 0, a.shape[-1]
    while low < high:
        middle = (low + high + 1) // 2
        try:
            np.linalg.cholesky(a[:middle, :middle])
        except np.linalg.LinAlgError:
            high = middle - 1
        else:
            low = middle
    return low


def inv(a: Array, *, check: bool) -> Array:
    """The inverses. Of a singular matrix an error, or without `check` NaN."""
    return _each_regular(np.linalg.inv, a, (), check)


def solve(a: Array, b: Array, *, check: bool) -> Array:
    """x with a @ x = b. Of a singular matrix an error, or without `check` NaN."""
    return _each_regular(np.linalg.solve, a, (b,), check)


def _each_regular(function: Callable[..., Array], a: Array, others: tuple[Array, ...], check: bool) -> Array:
    try:
        return function(a, *others)
    except np.linalg.LinAlgError:
        result = np.full_like(others[0] if others else a, np.nan)
    for at in np.ndindex(a.shape[:-2]):
        try:
            result[at] = function(a[at], *(x[at] for x in others))
        except np.linalg.LinAlgError:
            if check:
                raise LibraryError(f"{_which(a.shape[:-2], at)} is singular") from None
    return result


def eigh(a: Array, *, upper: bool) -> tuple[Array, Array]:
    """Ascending eigenvalues and eigenvectors of symmetric matrices, of which one triangle is read."""
    _finite(np.triu(a) if upper else np.tril(a))
    try:
        w, v = np.linalg.eigh(a, "U" if upper else "L")
    except np.linalg.LinAlgError:
        raise LibraryError(_no_convergence(a)) from None
    return w, v


def eig(a: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors, complex."""
    try:
        w, v = np.linalg.eig(a)
    except np.linalg.LinAlgError:
        raise LibraryError(_no_convergence(a)) from None
    paired = np.result_type(a.dtype, np.complex64)
    return w.astype(paired), v.astype(paired)


def svd(a: Array, *, full: bool) -> tuple[Array, Array, Array]:
    """u, s, vh with a = u @ diag(s) @ vh; s descends."""
    _finite(a)
    try:
        u, s, vh = np.linalg.svd(a, full)
    except np.linalg.LinAlgError:
        raise LibraryError(_no_convergence(a)) from None
    return u, s, vh


def _finite(a: Array) -> None:
    """LAPACK's iterations may turn infinities and NaNs into numbers, or never end."""
    if not np.isfinite(a).all():
        raise LibraryError(_no_convergence(a))


def _no_convergence(a: Array) -> str:
    reason = "" if np.isfinite(a).all() else ": there are infinities or NaNs among its elements"
    return f"the iteration did not converge{reason}"


def qr(a: Array) -> tuple[Array, Array]:
    """q, r with a = q @ r, of min(m, n) columns and rows."""
    q, r = np.linalg.qr(a, "reduced")
    return q, r


def qr_complete(a: Array) -> tuple[Array, Array]:
    """q, r with a = q @ r, of m columns and rows."""
    q, r = np.linalg.qr(a, "complete")
    return q, r


# ----------------------------------------------------------------------- what NumPy does not have


def triangular_solve(a: Array, b: Array, *, upper: bool, unit: bool) -> Array:
    """x with t @ x = b, t the upper or lower triangle of a, with ones on its diagonal if `unit`: by substitution, row
    after row, the rows of earlier blocks by one product."""
    n = a.shape[-1]
    x = b.copy()
    starts = range(0, n, BLOCK)
    for start in reversed(starts) if upper else starts:
        stop = min(start + BLOCK, n)
        for i in reversed(range(start, stop)) if upper else range(start, stop):
            done = slice(i + 1, stop) if upper else slice(start, i)
            if done.start < done.stop:
                x[..., i : i + 1, :] -= a[..., i : i + 1, done] @ x[..., done, :]
            if not unit:
                x[..., i, :] /= a[..., i, i, None]
        rest = slice(0, start) if upper else slice(stop, n)
        if rest.start < rest.stop:
            x[..., rest, :] -= a[..., rest, start:stop] @ x[..., start:stop, :]
    return x


def size(x: Array) -> Array:
    """What pivots are compared by: the magnitude, of complex numbers as LAPACK takes it."""
    return np.asarray(np.abs(x.real) + np.abs(x.imag) if x.dtype.kind == "c" else np.abs(x))


def lu_factor(a: Array, *, check: bool) -> tuple[Array, Array]:
    """l (below the diagonal) and u in one matrix, and the row that each row was exchanged with, from 1: Gaussian
    elimination with partial pivoting, by blocks of columns (Golub and Van Loan, 3.4). A column of zeros is passed, or
    with `check` an error."""
    m, n = a.shape[-2:]
    k = min(m, n)
    lu = a.reshape(-1, m, n).copy() if a.size else np.zeros((0, m, n), a.dtype)
    each = np.arange(len(lu))
    pivots = np.empty((len(lu), k), np.int32)
    for start in range(0, k, BLOCK):
        stop = min(start + BLOCK, k)
        for j in range(start, stop):
            p = j + size(lu[:, j:, j]).argmax(axis=1)
            pivots[:, j] = p + 1
            moved = lu[each, p]
            lu[each, p] = lu[:, j]
            lu[:, j] = moved
            pivot = lu[:, j, j, None]
            lu[:, j + 1 :, j] = np.where(pivot != 0, lu[:, j + 1 :, j] / pivot, lu[:, j + 1 :, j])
            lu[:, j + 1 :, j + 1 : stop] -= lu[:, j + 1 :, j, None] * lu[:, j, None, j + 1 : stop]
        if stop < n:
            right = np.ascontiguousarray(lu[:, start:stop, stop:])
            right = triangular_solve(lu[:, start:stop, start:stop], right, upper=False, unit=True)
            lu[:, start:stop, stop:] = right
            lu[:, stop:, stop:] -= lu[:, stop:, start:stop] @ right
    if check:
        _check_pivots(lu.reshape(*a.shape[:-2], m, n))
    shape = (*a.shape[:-2], k)
    if not a.size:
        return a.copy(), np.broadcast_to(np.arange(1, k + 1, dtype=np.int32), shape)
    return lu.reshape(a.shape), pivots.reshape(shape)


def _check_pivots(lu: Array) -> None:
    zero = np.argwhere(np.diagonal(lu, 0, -2, -1) == 0)
    if len(zero):
        *at, i = map(int, zero[0])
        which = _which(lu.shape[:-2], tuple(at))
        raise LibraryError(f"{which} is singular: the factor u has a zero on its diagonal in row {i}")


def lu_permutation(pivots: Array, *, rows: int) -> Array:
    """The order of the rows after these exchanges, int64: row i is what was row `permutation[i]`."""
    batch, k = pivots.shape[:-1], pivots.shape[-1]
    order = np.broadcast_to(np.arange(rows), (*batch, rows)).reshape(-1, rows).copy() if rows else None
    if order is None:
        return np.zeros((*batch, 0), np.int64)
    each, swaps = np.arange(len(order)), pivots.reshape(len(order), k).astype(np.int64) - 1
    if ((swaps < 0) | (swaps >= rows)).any():
        raise LibraryError(f"the pivots must be rows from 1 to {rows}")
    for j in range(k):
        moved = order[each, swaps[:, j]]
        order[each, swaps[:, j]] = order[:, j]
        order[:, j] = moved
    return order.reshape(*batch, rows)


# --------------------------------------------------------------------------- functions of matrices


def det(a: Array) -> Array:
    """Determinants, of singular matrices zeros."""
    return np.asarray(np.linalg.det(a), a.dtype)


def slogdet(a: Array) -> tuple[Array, Array]:
    """Signs and logarithms of the magnitudes of determinants: 0 and -inf of singular matrices."""
    sign, log = np.linalg.slogdet(a)
    return np.asarray(sign, a.dtype), np.asarray(log, a.real.dtype)


def pinv(a: Array, *, atol: float, rtol: float, hermitian: bool) -> Array:
    """The pseudoinverses by singular values, those not above max(atol, rtol * the largest) being taken for zero."""
    if not a.size:
        return np.zeros((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)
    _finite(np.tril(a) if hermitian else a)
    try:
        if hermitian:
            w, u = np.linalg.eigh(a)
            s, sign, vh = np.abs(w), np.sign(w), np.conj(np.swapaxes(u, -1, -2))
        else:
            u, s, vh = np.linalg.svd(a, full_matrices=False)
            sign = np.ones_like(s)
    except np.linalg.LinAlgError:
        raise LibraryError(_no_convergence(a)) from None
    limit = np.maximum(s.dtype.type(atol), s.dtype.type(rtol) * s.max(axis=-1, keepdims=True))
    inverse = np.where(s > limit, sign / s, 0).astype(s.dtype)
    v, uh = (np.conj(np.swapaxes(x, -1, -2)) for x in (vh, u))
    return np.asarray(v @ (inverse[..., None] * uh))


PADE: Final = (64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000,
    10559470521600, 670442572800, 33522128640, 1323241920, 40840800, 960960, 16380, 182, 1)  # fmt: skip
PADE_RADIUS: Final = 5.371920351148152


def matrix_exp(a: Array) -> Array:
    """The exponentials, by scaling, a diagonal Padé approximant of order 13, and squaring (Higham, 2005)."""
    result = np.empty_like(a)
    for at in np.ndindex(a.shape[:-2]):
        result[at] = _exp_of(a[at].astype(np.float64)).astype(a.dtype)
    return result


def _exp_of(a: Array) -> Array:
    if len(a) == 1:
        return np.asarray(np.exp(a))
    norm = float(np.abs(a).sum(axis=0).max(initial=0))
    if not np.isfinite(norm):
        return np.full_like(a, np.nan)
    squarings = max(0, int(np.ceil(np.log2(norm / PADE_RADIUS)))) if norm else 0
    a = a / 2.0**squarings
    b, one = PADE, np.eye(len(a))
    a2 = a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    odd = a @ (a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * one)
    even = a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * one
    found = np.linalg.solve(even - odd, even + odd)
    for _ in range(squarings):
        found = found @ found
    return found
