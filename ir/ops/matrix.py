"""Linear systems and factorisations of stacks of matrices, carried out by a library (`lapack`).

Float32 and float64, complex64 and complex128. Derivatives are those of torch, written with ops,
so they have derivatives of their own. In the formulas X' is the transpose (of complex numbers conjugated) and tril(X)
keeps the lower triangle; where an op reads a triangle of a symmetric matrix only, its derivative is for changes that
keep the matrix symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir.graph import Attrs
from kiln.ir.ops import lapack
from kiln.ir.ops.base import Call, Library, OpDef, OpTypeError, Reads, quiet, register
from kiln.ir.ops.create import full_like, iota
from kiln.ir.ops.elementwise import add, div, eq, ge, gt, mul, neg, sub, where
from kiln.ir.ops.gather import gather
from kiln.ir.ops.linalg import matmul, transposed
from kiln.ir.ops.movement import broadcast, cat, slice_
from kiln.ir.ops.pairs import complex_, conj, imag, real
from kiln.ir.ops.sort import argsort
from kiln.ir.types import COMPLEX_DTYPES, Dim, DType, TensorType, float32, float64, int32, int64

FLOATS: Final = (float32, float64)
NUMBERS: Final = (*FLOATS, *COMPLEX_DTYPES)
CHECK: Final = frozenset({"check"})
MAY_REFUSE: Final = frozenset({"cholesky", "inv", "solve", "lu_factor", "lu_permutation", "eigh", "svd", "eig", "pinv"})
"""Ops that can't be carried out on some matrices. Which, their first operand tells alone."""


def library_op(
    name: str,
    doc: str,
    infer: Callable[[Sequence[TensorType], Attrs], tuple[TensorType, ...]],
    run: Callable[..., Any],
    arity: int = 1,
    ref: Callable[..., Any] | None = None,
    **rest: Any,
) -> OpDef:
    """Register an op that `run` carries out; `ref` is the oracle where `run` is kiln's own algorithm."""
    oracle = (lambda xp, *arrays, **attrs: run(*arrays, **attrs)) if ref is None else ref
    return register(OpDef(name, doc, infer, quiet(oracle), Library("library", run), arity=arity, **rest))


# ----------------------------------------------------------------------------------------- type rules


def matrices(op: str, t: TensorType, square: bool = False, among: Sequence[DType] = NUMBERS) -> TensorType:
    """`t`, which must be a stack of matrices of such numbers."""
    if t.dtype not in among:
        fix = "use .float()" if t.dtype.is_half or not t.dtype.is_floating_point else ""
        raise OpTypeError(op, f"is not defined for {t.dtype}", "dtype", fix)
    if t.rank < 2:
        raise OpTypeError(op, f"{t} must have at least 2 dimensions")
    if square and t.shape[-1] != t.shape[-2]:
        raise OpTypeError(op, f"{t} must be a stack of square matrices")
    return t


def same_as_operand(
    op: str, among: Sequence[DType] = NUMBERS
) -> Callable[[Sequence[TensorType], Attrs], tuple[TensorType, ...]]:
    return lambda operands, attrs: (matrices(op, operands[0], True, among),)


def _system(op: str) -> Callable[[Sequence[TensorType], Attrs], tuple[TensorType, ...]]:
    def rule(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        a, b = matrices(op, operands[0], square=True), operands[1]
        if b.dtype is not a.dtype:
            raise OpTypeError(op, f"operands have dtypes {a.dtype} and {b.dtype}", "dtype")
        if b.rank != a.rank or b.shape[:-1] != a.shape[:-1]:
            raise OpTypeError(op, f"{b} are no right sides of {a}")
        return (b,)

    return rule


# ------------------------------------------------------------------------------- words of the formulas


def _triangle(x: Any, upper: bool, strict: bool = False) -> Any:
    """The lower or upper triangle, with the diagonal unless `strict`; zeros elsewhere."""
    rank = x.ttype.rank
    rows, columns = (_counter(x, d) for d in (rank - 2, rank - 1))
    first, second = (columns, rows) if upper else (rows, columns)
    return where((gt if strict else ge)(first, second), x, full_like(x, 0.0))


def _counter(x: Any, dim: int) -> Any:
    return iota.bind((), {"shape": x.ttype.shape, "dtype": int64, "dim": dim}, receiver=x)[0]


def _on_diagonal(x: Any, value: Any) -> Any:
    """`x` with its diagonal replaced by that of `value`."""
    rank = x.ttype.rank
    return where(eq(_counter(x, rank - 2), _counter(x, rank - 1)), value, x)


def diagonal_matrix(v: Any) -> Any:
    wide = in_rows(v, v.ttype.shape[-1])
    return _on_diagonal(full_like(wide, 0.0), wide)


def in_rows(v: Any, rows: Dim) -> Any:
    """A vector [..., n] repeated as the rows of [..., rows, n]."""
    shape, rank = v.ttype.shape, v.ttype.rank
    return broadcast(v, shape=(*shape[:-1], rows, shape[-1]), dims=(*range(rank - 1), rank))


def _in_columns(v: Any, columns: Dim) -> Any:
    """A vector [..., n] repeated as the columns of [..., n, columns]."""
    return broadcast(v, shape=(*v.ttype.shape, columns), dims=tuple(range(v.ttype.rank)))


def _half_diagonal(x: Any) -> Any:
    return _on_diagonal(x, mul(x, full_like(x, 0.5)))


def _symmetric(x: Any) -> Any:
    return mul(add(x, adjoint(x)), full_like(x, 0.5))


def adjoint(x: Any) -> Any:
    """The transpose, of complex numbers conjugated."""
    return conj(transposed(x)) if x.ttype.dtype.is_complex else transposed(x)


def _of_kind(x: Any, like: Any) -> Any:
    """Real numbers as complex ones where those of `like` are."""
    return complex_(x, full_like(x, 0.0)) if like.ttype.dtype.is_complex else x


def product(a: Any, b: Any) -> Any:
    """The matrix product, of complex numbers by their parts."""
    if not a.ttype.dtype.is_complex:
        return matmul(a, b)
    (p, q), (u, v) = (real(a), imag(a)), (real(b), imag(b))
    return complex_(sub(matmul(p, u), matmul(q, v)), add(matmul(p, v), matmul(q, u)))


def part(x: Any, dim: int, start: Dim, stop: Dim) -> Any:
    shape, rank = x.ttype.shape, x.ttype.rank
    if (start, stop) == (0, shape[dim]):
        return x
    starts = tuple(start if d == dim % rank else 0 for d in range(rank))
    stops = tuple(stop if d == dim % rank else n for d, n in enumerate(shape))
    return slice_(x, starts=starts, stops=stops, steps=(1,) * rank)


def joined(a: Any, b: Any, dim: int) -> Any:
    return cat(a, b, dim=dim % a.ttype.rank)


def total(*parts: Any) -> Any:
    """The sum of what there is, from the left; None of nothing."""
    found = None
    for x in parts:
        if x is not None:
            found = x if found is None else add(found, x)
    return found


def _after_inverse(x: Any, a: Any, upper: bool, unit: bool = False) -> Any:
    """x @ inverse(a)' of a triangular a."""
    return adjoint(triangular_solve(a, adjoint(x), upper=upper, unit=unit))


# -------------------------------------------------------------------------------- inverse and systems


def _inv_vjp(call: Call, g: Any) -> Sequence[Any]:
    y = adjoint(call.results[0])
    return (neg(product(product(y, g), y)),)


def _inv_jvp(call: Call, t: Any) -> Sequence[Any]:
    y = call.results[0]
    return (None if t is None else neg(product(product(y, t), y)),)


inv: Final[OpDef] = library_op(
    "inv",
    "inv(a; check): the inverses of square matrices (LAPACK gesv). A singular one is an error, or NaN without check. "
    "Derivative: -y @ t @ y.",
    same_as_operand("inv"),
    lapack.inv,
    vjp=_inv_vjp,
    jvp=_inv_jvp,
    saved_results=(0,),
    traits=CHECK,
)


_SYSTEM_READS: Final[tuple[Reads, Reads]] = (((0,), (0,)), ((0,), ()))
"""What the gradients of a system's matrix and right sides read: the latter not the solution."""


def _solve_vjp(call: Call, g: Any) -> Sequence[Any]:
    a = call.operands[0]
    by_b = solve(adjoint(a), g, **call.attrs)
    by_a = neg(product(by_b, adjoint(call.results[0]))) if call.needs[0] else None
    return (by_a, by_b if call.needs[1] else None)


def _solve_jvp(call: Call, ta: Any, tb: Any) -> Sequence[Any]:
    change = total(tb, None if ta is None else neg(product(ta, call.results[0])))
    return (None if change is None else solve(call.operands[0], change, **call.attrs),)


solve: Final[OpDef] = library_op(
    "solve",
    "solve(a, b; check): x with a @ x = b for square matrices (LAPACK gesv). A singular one is an error, or NaN "
    "without check.",
    _system("solve"),
    lapack.solve,
    arity=2,
    vjp=_solve_vjp,
    jvp=_solve_jvp,
    saved_operands=(0,),
    saved_results=(0,),
    saved_for=_SYSTEM_READS,
    traits=CHECK,
)


def _triangular_ref(xp: Any, a: Any, b: Any, *, upper: bool, unit: bool) -> Any:
    """Substitution, in double precision where that is wider."""
    wide = np.result_type(b.dtype, np.longdouble)
    a, x, n = np.asarray(a, wide), np.array(b, wide), a.shape[-1]
    for i in range(n)[:: -1 if upper else 1]:
        for j in range(i + 1, n) if upper else range(i):
            x[..., i, :] -= a[..., i, j, None] * x[..., j, :]
        if not unit:
            x[..., i, :] /= a[..., i, i, None]
    return x.astype(b.dtype)


def _triangular_vjp(call: Call, g: Any) -> Sequence[Any]:
    a, upper, unit = call.operands[0], bool(call.attrs["upper"]), bool(call.attrs["unit"])
    by_b = triangular_solve(adjoint(a), g, upper=not upper, unit=unit)
    if not call.needs[0]:
        return (None, by_b)
    by_a = _triangle(neg(product(by_b, adjoint(call.results[0]))), upper, strict=unit)
    return (by_a, by_b if call.needs[1] else None)


def _triangular_jvp(call: Call, ta: Any, tb: Any) -> Sequence[Any]:
    upper, unit = bool(call.attrs["upper"]), bool(call.attrs["unit"])
    moved = None if ta is None else neg(product(_triangle(ta, upper, strict=unit), call.results[0]))
    change = total(tb, moved)
    return (None if change is None else triangular_solve(call.operands[0], change, **call.attrs),)


triangular_solve: Final[OpDef] = library_op(
    "triangular_solve",
    "triangular_solve(a, b; upper, unit): x with t @ x = b, t the upper or lower triangle of a (the other one is not "
    "read), with ones on its diagonal if unit. Zeros on the diagonal are divided by.",
    _system("triangular_solve"),
    lapack.triangular_solve,
    arity=2,
    ref=_triangular_ref,
    vjp=_triangular_vjp,
    jvp=_triangular_jvp,
    saved_operands=(0,),
    saved_results=(0,),
    saved_for=_SYSTEM_READS,
)


# ------------------------------------------------------------------------------------------- cholesky


def _cholesky_vjp(call: Call, g: Any) -> Sequence[Any]:
    """inv(y)' @ phi(y' @ g) @ inv(y), symmetrised; phi: tril with half the diagonal."""
    y = call.results[0]
    inner = _half_diagonal(_triangle(product(adjoint(y), g), upper=False))
    turned = adjoint(y)
    outer = triangular_solve(turned, inner, upper=True, unit=False)
    found = _after_inverse(outer, turned, upper=True)
    return (_symmetric(found),)


def _cholesky_jvp(call: Call, t: Any) -> Sequence[Any]:
    """y @ phi(inv(y) @ t @ inv(y)'), t symmetrised."""
    if t is None:
        return (None,)
    y = call.results[0]
    inner = _after_inverse(triangular_solve(y, _symmetric(t), upper=False, unit=False), y, upper=False)
    return (product(y, _half_diagonal(_triangle(inner, upper=False))),)


cholesky: Final[OpDef] = library_op(
    "cholesky",
    "cholesky(a; check): lower triangular y with y @ y' = a for symmetric positive definite matrices, of which the "
    "lower triangle is read (LAPACK potrf). One that is not positive definite is an error, or without check NaN from "
    "the first row on that fails.",
    same_as_operand("cholesky"),
    lapack.cholesky,
    vjp=_cholesky_vjp,
    jvp=_cholesky_jvp,
    saved_results=(0,),
    traits=CHECK,
)


# ------------------------------------------------------------------------------------------------- lu


def _lu_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = matrices("lu_factor", operands[0])
    return (t, TensorType(int32, (*t.shape[:-2], _least(t)), t.device))


def _least(t: TensorType) -> int:
    m, n = t.shape[-2:]
    assert isinstance(m, int) and isinstance(n, int)
    return min(m, n)


def _lu_ref(xp: Any, a: Any, *, check: bool) -> Any:
    """Elimination element by element, in double precision where that is wider."""
    lu = np.array(a, np.result_type(a.dtype, np.longdouble))
    m, n = a.shape[-2:]
    pivots = np.zeros((*a.shape[:-2], min(m, n)), np.int32)
    for at in np.ndindex(a.shape[:-2]):
        x = lu[at]
        for j in range(min(m, n)):
            p = j + int(lapack.size(x[j:, j]).argmax())
            pivots[at][j] = p + 1
            x[[j, p]] = x[[p, j]]
            if x[j, j] != 0:
                x[j + 1 :, j] /= x[j, j]
            x[j + 1 :, j + 1 :] -= x[j + 1 :, j, None] * x[j, None, j + 1 :]
    return lu.astype(a.dtype), pivots


def rows_in_order(x: Any, order: Any) -> Any:
    """The rows of stacks of matrices in an order [..., rows]."""
    batch = x.ttype.rank - 2
    return gather(x, order, at=tuple(range(batch + 1)), place=(*range(batch), -1, batch + 1), wrap=False)


def _lu_vjp(call: Call, g: Any, _: Any = None) -> Sequence[Any]:
    """With a = l @ u and M = inv(l) @ da @ inv(u) of the leading square: dl = l @ tril(M, -1), du = triu(M) @ u."""
    if g is None:
        return (None,)
    lu, pivots = call.results
    m, n = lu.ttype.shape[-2:]
    k = _least(lu.ttype)
    square = part(part(lu, -2, 0, k), -1, 0, k)
    turned = adjoint(square)  # its upper triangle is l', its lower one u'
    head = part(part(g, -2, 0, k), -1, 0, k)
    unit_lower = _on_diagonal(_triangle(square, upper=False, strict=True), full_like(square, 1.0))
    by_l = product(adjoint(unit_lower), _triangle(head, upper=False, strict=True))
    by_u = product(_triangle(head, upper=True), adjoint(_triangle(square, upper=True)))
    if n > k:
        right = part(g, -1, k, n)
        by_l = sub(by_l, product(right, adjoint(part(lu, -1, k, n))))
    if m > k:
        below = part(g, -2, k, m)
        by_u = sub(by_u, product(adjoint(part(lu, -2, k, m)), below))
    inner = add(_triangle(by_l, upper=False, strict=True), _triangle(by_u, upper=True))
    found = triangular_solve(turned, inner, upper=True, unit=True)
    found = adjoint(triangular_solve(square, adjoint(found), upper=True, unit=False))
    if n > k:
        found = joined(found, triangular_solve(turned, right, upper=True, unit=True), -1)
    if m > k:
        rest = adjoint(triangular_solve(square, adjoint(below), upper=True, unit=False))
        found = joined(found, rest, -2)
    order = lu_permutation(pivots, rows=m)
    return (rows_in_order(found, argsort(order, descending=False)),)


def _lu_jvp(call: Call, t: Any) -> Sequence[Any]:
    if t is None:
        return (None, None)
    lu, pivots = call.results
    m, n = lu.ttype.shape[-2:]
    k = _least(lu.ttype)
    t = rows_in_order(t, lu_permutation(pivots, rows=m))
    square = part(part(lu, -2, 0, k), -1, 0, k)
    turned = adjoint(square)
    left = triangular_solve(square, part(t, -2, 0, k), upper=False, unit=True)
    inner = triangular_solve(turned, adjoint(part(left, -1, 0, k)), upper=False, unit=False)
    inner = adjoint(inner)
    strict, rest = _triangle(inner, upper=False, strict=True), _triangle(inner, upper=True)
    unit_lower = _on_diagonal(_triangle(square, upper=False, strict=True), full_like(square, 1.0))
    found = add(product(unit_lower, strict), product(rest, _triangle(square, upper=True)))
    if n > k:
        found = joined(found, sub(part(left, -1, k, n), product(strict, part(lu, -1, k, n))), -1)
    if m > k:
        below = triangular_solve(turned, adjoint(part(t, -2, k, m)), upper=False, unit=False)
        found = joined(found, sub(adjoint(below), product(part(lu, -2, k, m), rest)), -2)
    return (found, None)


lu_factor: Final[OpDef] = library_op(
    "lu_factor",
    "lu_factor(a; check): (lu, pivots) with l @ u = a after exchanging row i with row pivots[i] - 1 for each i in "
    "turn; l is below lu's diagonal (on it are ones), u on and above it. Partial pivoting; pivots are int32. With "
    "check, a zero on u's diagonal is an error.",
    _lu_types,
    lapack.lu_factor,
    ref=_lu_ref,
    vjp=_lu_vjp,
    jvp=_lu_jvp,
    saved_results=(0, 1),
    traits=CHECK,
)


def _order_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t, rows = operands[0], attrs["rows"]
    if t.dtype is not int32:
        raise OpTypeError("lu_permutation", f"pivots are int32, not {t.dtype}", "dtype")
    if t.rank == 0 or not isinstance(rows, int) or not isinstance(t.shape[-1], int) or t.shape[-1] > rows:
        raise OpTypeError("lu_permutation", f"{t} are no exchanges of {rows} rows")
    return (TensorType(int64, (*t.shape[:-1], rows), t.device),)


lu_permutation: Final[OpDef] = library_op(
    "lu_permutation",
    "lu_permutation(pivots; rows): the order of `rows` rows after lu_factor's exchanges, int64.",
    _order_types,
    lapack.lu_permutation,
    traits=frozenset({"check", "exact"}),
)


# ------------------------------------------------------------------------------------------------- qr


def _qr_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = matrices("qr", operands[0])
    *batch, m, n = t.shape
    k = _least(t)
    return (TensorType(t.dtype, (*batch, m, k), t.device), TensorType(t.dtype, (*batch, k, n), t.device))


def _complete_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = matrices("qr_complete", operands[0])
    m = t.shape[-2]
    return (TensorType(t.dtype, (*t.shape[:-1], m), t.device), t)


def _qr_vjp(call: Call, gq: Any, gr: Any) -> Sequence[Any]:
    """With r = [u v], u square: (gq + q @ s) @ inv(u)', where s is triu(gu @ u' - q' @ gq) and its transpose, with
    half the diagonal; v = q' @ a's last columns, so gq has q @ v @ gv' besides, and those columns have q @ gv."""
    q, r = call.results
    k, n = r.ttype.shape[-2:]
    u = part(r, -1, 0, k)
    gu = None if gr is None else part(gr, -1, 0, k)
    last = None
    if gr is not None and n != k:
        gv = part(gr, -1, k, n)
        last = product(q, gv)
        gq = total(gq, product(q, product(part(r, -1, k, n), adjoint(gv))))
    inner = None if gu is None else product(gu, adjoint(u))
    if gq is not None:
        theirs = product(adjoint(q), gq)
        inner = neg(theirs) if inner is None else sub(inner, theirs)
    assert inner is not None
    upper = _half_diagonal(_triangle(inner, upper=True))
    found = total(gq, product(q, add(upper, adjoint(upper))))
    found = adjoint(triangular_solve(u, adjoint(found), upper=True, unit=False))
    if n != k:
        found = joined(found, full_like(part(_in(q, n), -1, k, n), 0.0) if last is None else last, -1)
    return (found,)


def _in(q: Any, n: Dim) -> Any:
    """Zeros of as many rows as q has, and n columns."""
    t = q.ttype
    return full_like(
        broadcast(full_like(part(q, -1, 0, 1), 0.0), shape=(*t.shape[:-1], n), dims=tuple(range(t.rank))), 0.0
    )


def _qr_jvp(call: Call, t: Any) -> Sequence[Any]:
    """dq = da @ inv(u) - q @ (s - triu(..)): with M = q' @ da @ inv(u), du = phi(M) @ u, dq = da @ inv(u) - q @ phi(M);
    phi(M): triu of M + M', half the diagonal."""
    if t is None:
        return (None, None)
    q, r = call.results
    k, n = r.ttype.shape[-2:]
    u = part(r, -1, 0, k)
    scaled = adjoint(triangular_solve(adjoint(u), adjoint(part(t, -1, 0, k)), upper=False, unit=False))
    inner = product(adjoint(q), scaled)
    phi = _half_diagonal(_triangle(add(inner, adjoint(inner)), upper=True))
    dq = sub(scaled, product(q, phi))
    dr = product(phi, u)
    if n != k:
        columns = product(q, part(r, -1, k, n))  # of a
        dv = add(product(adjoint(dq), columns), product(adjoint(q), part(t, -1, k, n)))
        dr = joined(dr, dv, -1)
    return (dq, dr)


qr: Final[OpDef] = library_op(
    "qr",
    "qr(a): (q, r) with q @ r = a, q [..., m, k] with orthonormal columns, r [..., k, n] upper triangular, "
    "k = min(m, n) (LAPACK geqrf, orgqr).",
    _qr_types,
    lapack.qr,
    vjp=_qr_vjp,
    jvp=_qr_jvp,
    saved_results=(0, 1),
)

qr_complete: Final[OpDef] = library_op(
    "qr_complete",
    "qr_complete(a): (q, r) with q @ r = a, q [..., m, m] orthogonal, r [..., m, n] (LAPACK geqrf, orgqr). Its last "
    "columns are arbitrary, so it has no derivative.",
    _complete_types,
    lapack.qr_complete,
)


# --------------------------------------------------------------------------------------- eigh and svd


def _gaps(w: Any) -> Any:
    """w[k] - w[j] at (j, k), 1 on the diagonal."""
    n = w.ttype.shape[-1]
    found = sub(in_rows(w, n), _in_columns(w, n))
    return _on_diagonal(found, full_like(found, 1.0))


def _eigh_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = matrices("eigh", operands[0], square=True)
    return (TensorType(t.dtype.part, t.shape[:-1], t.device), t)


def _eigh_vjp(call: Call, gw: Any, gv: Any) -> Sequence[Any]:
    """v @ (v' @ gv / gaps, with gw on the diagonal) @ v', symmetrised."""
    w, v = call.results
    diagonal = None if gw is None else _of_kind(diagonal_matrix(gw), v)
    inner = diagonal
    if gv is not None:
        off = div(product(adjoint(v), gv), _of_kind(_gaps(w), v))
        inner = _on_diagonal(off, full_like(off, 0.0) if diagonal is None else diagonal)
    return (_symmetric(product(v, product(inner, adjoint(v)))),)


def _eigh_jvp(call: Call, t: Any) -> Sequence[Any]:
    if t is None:
        return (None, None)
    w, v = call.results
    inner = product(adjoint(v), product(_symmetric(t), v))
    off = _on_diagonal(div(inner, _of_kind(_gaps(w), v)), full_like(inner, 0.0))
    change = diagonal_of(inner)
    return (real(change) if change.ttype.dtype.is_complex else change, product(v, off))


def diagonal_of(x: Any) -> Any:
    """The diagonals of square matrices, [..., n]."""
    order = _counter_vector(x)
    batch = x.ttype.rank - 2
    return gather(x, order, order, at=tuple(range(batch + 1)), place=(*range(batch), -1, -1), wrap=False)


def _counter_vector(x: Any) -> Any:
    shape = x.ttype.shape[:-1]
    return iota.bind((), {"shape": shape, "dtype": int64, "dim": len(shape) - 1}, receiver=x)[0]


eigh: Final[OpDef] = library_op(
    "eigh",
    "eigh(a; upper): (w, v) with a @ v = v @ diag(w), w ascending, v orthogonal, for symmetric matrices, of which one "
    "triangle is read (LAPACK syevd). An error where the iteration does not converge.",
    _eigh_types,
    lapack.eigh,
    vjp=_eigh_vjp,
    jvp=_eigh_jvp,
    saved_results=(0, 1),
    traits=CHECK,
)


def _svd_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = matrices("svd", operands[0])
    *batch, m, n = t.shape
    k = _least(t)
    rows, columns = (m, n) if attrs["full"] else (k, k)
    shapes = ((*batch, m, rows), (*batch, k), (*batch, columns, n))
    dtypes = (t.dtype, t.dtype.part, t.dtype)
    return tuple(TensorType(dtype, shape, t.device) for dtype, shape in zip(dtypes, shapes, strict=True))


def _leading(call: Call) -> tuple[Any, Any, Any]:
    """u, s and v without the arbitrary columns of the full ones."""
    u, s, vh = call.results
    k = s.ttype.shape[-1]
    return part(u, -1, 0, k), s, adjoint(part(vh, -2, 0, k))


def _skewed(x: Any, gaps: Any) -> Any:
    """(x - x') / gaps."""
    return div(sub(x, adjoint(x)), _of_kind(gaps, x))


def _outside(q: Any, x: Any) -> Any:
    """What of x is orthogonal to the columns of q."""
    return sub(x, product(q, product(adjoint(q), x)))


def _svd_vjp(call: Call, gu: Any, gs: Any, gvh: Any) -> Sequence[Any]:
    """u @ (skew(u' @ gu) / e @ S + S @ skew(v' @ gv) / e + diag(gs)) @ v', and for what the columns do not span
    (1 - u u') @ gu @ inv(S) @ v' and u @ inv(S) @ gv' @ (1 - v v'); e are the gaps of the squares of s. Of complex
    numbers the diagonal of the sum has half of skew(u' @ gu) @ inv(S) besides."""
    u, s, v = _leading(call)
    (m, k), n = u.ttype.shape[-2:], v.ttype.shape[-2]
    gaps = _gaps(mul(s, s)) if gu is not None or gvh is not None else None
    inner = None if gs is None else _of_kind(diagonal_matrix(gs), u)
    beside: list[Any] = []
    if gu is not None:
        gu = part(gu, -1, 0, k)
        along = product(adjoint(u), gu)
        inner = total(inner, mul(_skewed(along, gaps), _of_kind(in_rows(s, k), u)))
        if gvh is not None and u.ttype.dtype.is_complex:
            turns = div(imag(along), in_rows(s, k))
            zero = full_like(turns, 0.0)
            inner = add(inner, complex_(zero, _on_diagonal(zero, turns)))
        if m != k:
            beside.append(product(div(_outside(u, gu), _of_kind(in_rows(s, m), u)), adjoint(v)))
    if gvh is not None:
        gv = adjoint(part(gvh, -2, 0, k))
        inner = total(inner, mul(_of_kind(_in_columns(s, k), u), _skewed(product(adjoint(v), gv), gaps)))
        if n != k:
            beside.append(product(u, adjoint(div(_outside(v, gv), _of_kind(in_rows(s, n), u)))))
    return (total(product(u, product(inner, adjoint(v))), *beside),)


def _svd_jvp(call: Call, t: Any) -> Sequence[Any]:
    if t is None:
        return (None, None, None)
    if call.attrs["full"] and call.results[0].ttype.shape[-1] != call.results[2].ttype.shape[-2]:
        raise OpTypeError("svd", "full singular vectors of a matrix that is not square have no tangent", "value")
    u, s, v = _leading(call)
    (m, k), n = u.ttype.shape[-2:], v.ttype.shape[-2]
    along = product(adjoint(u), product(t, v))
    gaps, columns, rows = (_of_kind(x, u) for x in (_gaps(mul(s, s)), in_rows(s, k), _in_columns(s, k)))
    first = div(add(mul(along, columns), mul(rows, adjoint(along))), gaps)
    second = div(add(mul(rows, along), mul(adjoint(along), columns)), gaps)
    turns = full_like(along, 0.0)
    change = diagonal_of(along)
    if u.ttype.dtype.is_complex:  # shared evenly
        angle = div(imag(along), in_rows(add(s, s), k))
        turns, change = complex_(full_like(angle, 0.0), angle), real(change)
    du, dv = product(u, _on_diagonal(first, turns)), product(v, _on_diagonal(second, neg(turns)))
    if m != k:
        du = add(du, div(_outside(u, product(t, v)), _of_kind(in_rows(s, m), u)))
    if n != k:
        dv = add(dv, div(_outside(v, product(adjoint(t), u)), _of_kind(in_rows(s, n), u)))
    return (du, change, adjoint(dv))


svd: Final[OpDef] = library_op(
    "svd",
    "svd(a; full): (u, s, vh) with u @ diag(s) @ vh = a, s descending, u and v with k = min(m, n) orthonormal columns, "
    "or if full square (LAPACK gesdd). An error where the iteration does not converge. Gradients by the columns beyond "
    "k are ignored: those are arbitrary.",
    _svd_types,
    lapack.svd,
    vjp=_svd_vjp,
    jvp=_svd_jvp,
    saved_results=(0, 1, 2),
    traits=CHECK,
)


# ------------------------------------------------------------------------------------------------ eig


def _eig_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = matrices("eig", operands[0], square=True)
    paired = t.dtype.paired
    return (TensorType(paired, t.shape[:-1], t.device), TensorType(paired, t.shape, t.device))


def _eig_vjp(call: Call, gw: Any, gv: Any) -> Sequence[Any]:
    """inv(v)' @ (M / conj(gaps), with gw on the diagonal) @ v'; M is v' @ gv less what would change the columns'
    length, v' @ v @ diag(re(v' @ gv))."""
    w, v = call.results
    inner = None if gw is None else diagonal_matrix(gw)
    if gv is not None:
        along = product(adjoint(v), gv)
        lengths = _of_kind(in_rows(real(diagonal_of(along)), v.ttype.shape[-1]), v)
        off = div(sub(along, product(adjoint(v), mul(v, lengths))), conj(_gaps(w)))
        inner = _on_diagonal(off, full_like(off, 0.0) if inner is None else inner)
    found = solve(adjoint(v), product(inner, adjoint(v)), check=False)
    return (found if call.operands[0].ttype.dtype.is_complex else real(found),)


def _eig_jvp(call: Call, t: Any) -> Sequence[Any]:
    if t is None:
        return (None, None)
    w, v = call.results
    along = solve(v, product(_of_kind(t, v) if not t.ttype.dtype.is_complex else t, v), check=False)
    off = _on_diagonal(div(along, _gaps(w)), full_like(along, 0.0))
    change = product(v, off)
    lengths = real(diagonal_of(product(adjoint(v), change)))
    return (diagonal_of(along), sub(change, mul(v, _of_kind(in_rows(lengths, v.ttype.shape[-1]), v))))


eig: Final[OpDef] = library_op(
    "eig",
    "eig(a): complex (w, v) with a @ v = v @ diag(w), the columns of v of length 1, in no order (LAPACK geev). An "
    "error where the iteration does not converge.",
    _eig_types,
    lapack.eig,
    vjp=_eig_vjp,
    jvp=_eig_jvp,
    saved_results=(0, 1),
    traits=CHECK,
)
