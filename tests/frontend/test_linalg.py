"""Systems, factorisations and functions of matrices: against NumPy, against what defines them, and torch's corners."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.linalg import LinAlgError
from tests.frontend.checking import compiles, differentiates, flat, tensors

Array = np.ndarray[Any, Any]
L = kiln.linalg
RNG = np.random.default_rng(7)


def matrices(*shape: int, dtype: str = "float64") -> Array:
    """Far from singular."""
    x = np.asarray(np.random.default_rng(sum(shape)).normal(size=shape))
    if len(shape) > 1:
        k = min(shape[-2:])
        x[..., range(k), range(k)] += 3
    return x.astype(dtype)


def definite(*shape: int) -> Array:
    x = matrices(*shape)
    return np.asarray(x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1]))


def symmetric(*shape: int) -> Array:
    x = matrices(*shape)
    return np.asarray(x + np.swapaxes(x, -1, -2) + np.diag(np.arange(shape[-1]) * 5.0))


def t(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def near(got: Any, wanted: Any, tolerance: float = 1e-11) -> None:
    got, wanted = (np.asarray(x.detach().numpy() if isinstance(x, kiln.Tensor) else x) for x in (got, wanted))
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    if got.dtype == np.float32:
        tolerance = 2e-4
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


AWKWARD: dict[str, Callable[[Array], Array]] = {
    "plain": lambda x: x,
    "turned": lambda x: t(np.ascontiguousarray(t(x))),
    "spread": lambda x: np.repeat(np.repeat(x, 2, -1), 3, -2)[..., ::3, ::2],
    "single": lambda x: x.astype(np.float32),
    "no-stack": lambda x: x[:0],
    "repeated": lambda x: np.broadcast_to(x[:1], x.shape),
}

NUMPY: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Array, ...]]] = {
    "solve": (L.solve, np.linalg.solve, (matrices(2, 4, 4), matrices(2, 4, 3))),
    "inv": (L.inv, np.linalg.inv, (matrices(3, 4, 4),)),
    "det": (L.det, np.linalg.det, (matrices(3, 4, 4),)),
    "slogdet": (L.slogdet, np.linalg.slogdet, (matrices(3, 4, 4),)),
    "cholesky": (L.cholesky, np.linalg.cholesky, (definite(3, 4, 4),)),
    "eigvalsh": (L.eigvalsh, np.linalg.eigvalsh, (symmetric(3, 4, 4),)),
    "svdvals": (L.svdvals, lambda a: np.linalg.svd(a, compute_uv=False), (matrices(2, 4, 3),)),
    "pinv": (L.pinv, np.linalg.pinv, (matrices(2, 4, 3),)),
    "rank": (L.matrix_rank, np.linalg.matrix_rank, (matrices(2, 4, 3),)),
    "power": (lambda a: L.matrix_power(a, 5), lambda a: np.linalg.matrix_power(a, 5), (matrices(2, 3, 3) / 4,)),
    "inverse power": (
        lambda a: L.matrix_power(a, -3), lambda a: np.linalg.matrix_power(a, -3), (matrices(2, 3, 3),)
    ),
    "zeroth power": (lambda a: a.matrix_power(0), lambda a: np.linalg.matrix_power(a, 0), (matrices(2, 3, 3),)),
    "cond": (L.cond, np.linalg.cond, (matrices(2, 3, 4),)),
    **{
        f"cond {p}": (lambda a, p=p: L.cond(a, p), lambda a, p=p: np.linalg.cond(a, p), (matrices(2, 3, 3),))
        for p in (2, -2, 1, -1, math.inf, -math.inf, "fro", "nuc")
    },
    **{
        f"norm {p}": (
            lambda a, p=p: L.matrix_norm(a, p), lambda a, p=p: np.linalg.norm(a, p, (-2, -1)), (matrices(2, 3, 4),)
        )
        for p in (2, -2, "nuc")
    },
    "norm of others": (
        lambda a: L.matrix_norm(a, 2, (0, -1), True), lambda a: np.linalg.norm(a, 2, (0, 2), True), (matrices(2, 3, 4),)
    ),
    "qr": (L.qr, np.linalg.qr, (matrices(2, 4, 3),)),
    "complete": (lambda a: L.qr(a, "complete"), lambda a: np.linalg.qr(a, "complete"), (matrices(2, 4, 3),)),
    "multi_dot": (
        lambda a, b, c: L.multi_dot([a[0], b[0], c[0]]), lambda a, b, c: np.linalg.multi_dot([a[0], b[0], c[0]]),
        (matrices(1, 3, 4), matrices(1, 4, 2), matrices(1, 2, 5)),
    ),
    "vander": (lambda a: L.vander(a, N=4), lambda a: a[..., None] ** np.arange(4), (matrices(2, 3),)),
    "old vander": (lambda a: kiln.vander(a[0, 0], 4), lambda a: np.vander(a[0, 0], 4), (matrices(1, 2, 3),)),
    "increasing": (
        lambda a: kiln.vander(a[0, 0], increasing=True), lambda a: np.vander(a[0, 0], increasing=True),
        (matrices(1, 2, 3),),
    ),
    "cross": (L.cross, np.cross, (matrices(2, 4, 3), matrices(2, 4, 3))),
    "vecdot": (lambda a, b: L.vecdot(a, b, dim=1), lambda a, b: (a * b).sum(1), (matrices(2, 3, 4), matrices(2, 3, 4))),
    "diagonal": (L.diagonal, lambda a: np.diagonal(a, 0, -2, -1), (matrices(2, 3, 4),)),
}  # fmt: skip


@pytest.mark.parametrize("layout", AWKWARD)
@pytest.mark.parametrize("name", NUMPY)
def test_against_numpy(name: str, layout: str) -> None:
    f, ref, arrays = NUMPY[name]
    if layout == "no-stack" and name in ("multi_dot", "norm of others", "old vander", "increasing"):
        pytest.skip("no stack to be empty")
    given = tuple(np.asarray(AWKWARD[layout](x)) for x in arrays)
    wanted = ref(*given)
    results = flat(f(*tensors(given)))
    for got, each in zip(results, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        near(got, each)
        assert got.dtype == kiln.from_numpy(given[0]).dtype or got.dtype == kiln.int64
    compiles(f, *given)


# ----------------------------------------------------------------------------- what defines them


@pytest.mark.parametrize("shape", [(3, 3), (2, 5, 3), (2, 3, 5), (40, 37), (0, 3), (3, 0), (2, 0, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_factors_give_the_matrix_back(shape: tuple[int, ...], dtype: str) -> None:
    x = matrices(*shape, dtype=dtype)
    a = kiln.from_numpy(x)
    p, lower, upper = L.lu(a)
    near(p @ lower @ upper, x)
    assert (lower.numpy() == np.tril(lower.numpy())).all() and (upper.numpy() == np.triu(upper.numpy())).all()
    k = min(shape[-2:])
    assert (np.diagonal(lower.numpy(), 0, -2, -1) == 1).all() and np.abs(lower.numpy()).max(initial=0) <= 1
    for mode in ("reduced", "complete"):
        q, r = L.qr(a, mode)
        near(q @ r, x)
        near(q.mT @ q, np.broadcast_to(np.eye(q.shape[-1]), (*shape[:-2], q.shape[-1], q.shape[-1])))
        assert (r.numpy() == np.triu(r.numpy())).all()
    for full in (False, True):
        u, s, vh = L.svd(a, full)
        near(u[..., :k] * s.unsqueeze(-2) @ vh[..., :k, :], x)
        assert u.shape[-1] == (shape[-2] if full else k) and vh.shape[-2] == (shape[-1] if full else k)
    near(a.svd().V @ a.svd().S.diag_embed() @ a.svd().U.mT, t(x))
    inverse = L.pinv(a)
    near(a @ inverse @ a, x)


def test_triangles() -> None:
    x, b = matrices(2, 5, 5), matrices(2, 5, 3)
    for upper in (False, True):
        for unit in (False, True):
            triangle = np.triu(x) if upper else np.tril(x)
            if unit:
                triangle[..., range(5), range(5)] = 1
            a = kiln.from_numpy(x)
            near(triangle @ L.solve_triangular(a, kiln.from_numpy(b), upper=upper, unitriangular=unit).numpy(), b)
            side = L.solve_triangular(a, kiln.from_numpy(t(b)), upper=upper, unitriangular=unit, left=False)
            near(side.numpy() @ triangle, t(b))
            old = kiln.triangular_solve(kiln.from_numpy(b), a, upper, True, unit)
            near(t(triangle) @ old.solution.numpy(), b)
            near(old.cloned_coefficient, x)
    one = L.solve_triangular(kiln.from_numpy(x[0]), kiln.from_numpy(b), upper=True)
    near(np.triu(x[0]) @ one.numpy(), b)
    zero = L.solve_triangular(kiln.tensor([[0.0]]), kiln.tensor([[1.0]]), upper=True)
    assert zero.item() == math.inf


def test_systems_with_sides_of_all_kinds() -> None:
    x = matrices(2, 3, 4, 4)
    a = kiln.from_numpy(x)
    for side in (matrices(4), matrices(2, 3, 4), matrices(4, 2), matrices(3, 4, 2), matrices(2, 1, 4, 2)):
        got = L.solve(a, kiln.from_numpy(side)).numpy()
        vector = side.ndim == 1 or side.shape == (2, 3, 4)
        wanted = np.linalg.solve(x, side[..., None] if vector else side)
        near(got, wanted[..., 0] if vector else wanted)
    side = matrices(3, 5, 4)
    near(L.solve(a, kiln.from_numpy(side), left=False).numpy() @ x, np.broadcast_to(side, (2, 3, 5, 4)))
    factors = L.lu_factor(a)
    for adjoint in (False, True):
        matrix = t(x) if adjoint else x
        b = matrices(2, 3, 4, 2)
        near(matrix @ L.lu_solve(*factors, kiln.from_numpy(b), adjoint=adjoint).numpy(), b)
        near(L.lu_solve(*factors, kiln.from_numpy(t(b)), adjoint=adjoint, left=False).numpy() @ matrix, t(b))
    near(kiln.lu_solve(kiln.from_numpy(b), *kiln.lu(a)), L.solve(a, kiln.from_numpy(b)))
    for upper in (False, True):
        m = definite(2, 4, 4)
        f = kiln.cholesky(kiln.from_numpy(m), upper)
        near((f.mT @ f if upper else f @ f.mT), m)
        near(m @ kiln.cholesky_solve(kiln.from_numpy(matrices(2, 4, 3)), f, upper).numpy(), matrices(2, 4, 3))
        near(m @ f.cholesky_inverse(upper).numpy(), np.broadcast_to(np.eye(4), m.shape))


def test_one_triangle_is_read() -> None:
    m, junk = symmetric(4, 4), matrices(4, 4)
    lower = kiln.from_numpy(np.tril(m) + np.triu(junk, 1))
    upper = kiln.from_numpy(np.triu(m) + np.tril(junk, -1))
    whole = L.eigvalsh(kiln.from_numpy(m))
    near(L.eigvalsh(lower), whole)
    near(L.eigvalsh(upper, "U"), whole)
    d = definite(4, 4)
    near(L.cholesky(kiln.from_numpy(np.tril(d) + np.triu(junk, 1))), np.linalg.cholesky(d))
    near(L.cholesky(kiln.from_numpy(np.triu(d) + np.tril(junk, -1)), upper=True), np.linalg.cholesky(d).T)


def test_least_squares() -> None:
    x, b = matrices(2, 5, 3), matrices(2, 5, 2)
    wanted = np.stack([np.linalg.lstsq(m, side, rcond=None)[0] for m, side in zip(x, b, strict=True)])
    rest = ((x @ wanted - b) ** 2).sum(1)
    sizes = {None: (0, 2, 0), "gelsy": (0, 2, 0), "gels": (4, 0, 0), "gelsd": (4, 2, 6), "gelss": (4, 2, 6)}
    for driver, (residuals, rank, values) in sizes.items():
        found = L.lstsq(kiln.from_numpy(x), kiln.from_numpy(b), driver=driver)
        near(found.solution, wanted)
        assert [r.numel() for r in found[1:]] == [residuals, rank, values]
        if residuals:
            near(found.residuals, rest)
        if rank:
            assert found.rank.tolist() == [3, 3]
    wide = L.lstsq(kiln.from_numpy(t(x)), kiln.from_numpy(matrices(2, 3, 1)))
    near(wide.solution, np.linalg.pinv(t(x)) @ matrices(2, 3, 1))
    vectors = L.lstsq(kiln.from_numpy(x), kiln.from_numpy(b[..., 0]))
    near(vectors.solution, wanted[..., 0])
    low = np.outer([1.0, 2, 3], [1.0, 1])
    found = L.lstsq(kiln.from_numpy(low), kiln.ones(3, 1, dtype=kiln.float64), driver="gelsd")
    assert found.rank.item() == 1 and found.residuals.numel() == 0
    compiles(lambda a, y: L.lstsq(a, y).solution, x, b)


def test_exponential() -> None:
    a = np.array([[0.0, 1.0], [-1.0, 0.0]]) * 2.5
    near(L.matrix_exp(kiln.from_numpy(a)), [[math.cos(2.5), math.sin(2.5)], [-math.sin(2.5), math.cos(2.5)]])
    x = symmetric(2, 3, 3) / 3
    w, v = np.linalg.eigh(x)
    near(kiln.from_numpy(x).matrix_exp(), v * np.exp(w)[..., None, :] @ t(v), 1e-9)
    assert kiln.matrix_exp(kiln.zeros(2, 0, 0)).shape == (2, 0, 0)
    assert kiln.matrix_exp(kiln.tensor([[-math.inf]])).item() == 0
    compiles(L.matrix_exp, x)


def test_tensors_as_maps() -> None:
    a = matrices(6, 6).reshape(2, 3, 6)
    near(L.tensorinv(kiln.from_numpy(a)), np.linalg.tensorinv(a))
    b = matrices(2, 3)
    near(L.tensorsolve(kiln.from_numpy(a), kiln.from_numpy(b)), np.linalg.tensorsolve(a, b))
    moved = np.moveaxis(a, 2, 0)
    near(L.tensorsolve(kiln.from_numpy(moved), kiln.from_numpy(b), (0,)), np.linalg.tensorsolve(moved, b, (0,)))
    with pytest.raises(kiln.ShapeError, match="tensorinv"):
        L.tensorinv(kiln.zeros(2, 3), 1)
    with pytest.raises(ValueError, match="ind must be"):
        L.tensorinv(kiln.zeros(2, 2), 0)
    with pytest.raises(kiln.ShapeError, match="tensorsolve"):
        L.tensorsolve(kiln.zeros(2, 3), kiln.zeros(2))


def test_householder_products_are_what_reflections_make() -> None:
    a, tau = matrices(5, 3), np.array([0.5, 1.5, 0.25])
    wanted = np.eye(5)
    for i in range(3):
        v = np.array([0.0] * i + [1.0] + list(a[i + 1 :, i]))
        wanted = wanted @ (np.eye(5) - tau[i] * np.outer(v, v))
    near(kiln.orgqr(kiln.from_numpy(a), kiln.from_numpy(tau)), wanted[:, :3])
    stack = L.householder_product(kiln.from_numpy(np.stack([a, a])), kiln.from_numpy(np.stack([tau, tau])))
    near(stack[1], wanted[:, :3])
    with pytest.raises(kiln.ShapeError, match="tau"):
        L.householder_product(kiln.zeros(3, 5), kiln.zeros(3))


# -------------------------------------------------------------------------------------- torch's corners


def test_results_have_torchs_names() -> None:
    a = kiln.from_numpy(definite(3, 3))
    fields = {
        L.eigh: ("eigenvalues", "eigenvectors"),
        L.svd: ("U", "S", "Vh"),
        kiln.svd: ("U", "S", "V"),
        L.qr: ("Q", "R"),
        L.slogdet: ("sign", "logabsdet"),
        L.lu: ("P", "L", "U"),
        L.lu_factor: ("LU", "pivots"),
        L.lu_factor_ex: ("LU", "pivots", "info"),
        L.cholesky_ex: ("L", "info"),
        L.inv_ex: ("inverse", "info"),
    }
    for f, names in fields.items():
        assert f(a)._fields == names
    assert L.solve_ex(a, a)._fields == ("result", "info")
    assert L.lstsq(a, a)._fields == ("solution", "residuals", "rank", "singular_values")
    assert kiln.triangular_solve(a, a)._fields == ("solution", "cloned_coefficient")
    assert L.lu_factor(a).pivots.dtype is kiln.int32 and L.inv_ex(a).info.dtype is kiln.int32
    assert kiln.svd(a, compute_uv=False).U.tolist() == np.zeros((3, 3)).tolist()
    assert L.qr(a, "r").Q.shape == (0,)
    assert kiln.lu_unpack(*L.lu_factor(a), unpack_data=False).L.shape == (0,)
    assert kiln.lu_unpack(*L.lu_factor(a), unpack_pivots=False).P.shape == (0,)


def test_determinants_of_singular_and_empty_matrices() -> None:
    a = kiln.tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    d = L.det(a)
    d.backward()
    assert d.item() == 0 and a.grad is not None and a.grad.tolist() == [[0, 0], [0, 0]]
    assert [x.item() for x in L.slogdet(a)] == [0, -math.inf]
    assert L.det(kiln.zeros(2, 0, 0)).tolist() == [1, 1]
    assert [x.tolist() for x in L.slogdet(kiln.zeros(2, 0, 0))] == [[1, 1], [0, 0]]
    logs = kiln.logdet(kiln.tensor([[[2.0, 0], [0, 3]], [[-1, 0], [0, 1]], [[0, 0], [0, 0]]])).tolist()
    assert logs[0] == pytest.approx(math.log(6)) and math.isnan(logs[1]) and logs[2] == -math.inf
    assert L.cond(kiln.zeros(0, 0)).item() == 0 and L.cond(kiln.zeros(2, 2), "fro").item() == math.inf
    assert L.matrix_norm(kiln.zeros(0, 3), 2).item() == 0 and L.matrix_norm(kiln.zeros(0, 3), "nuc").item() == 0
    assert L.matrix_rank(kiln.zeros(3, 0, 2)).tolist() == [0, 0, 0]


def test_info_in_place_of_errors() -> None:
    flawed = kiln.tensor([[[1.0, 2], [2, 1]], [[2, 1], [1, 2]], [[1, 2], [2, 4]], [[-1, 0], [0, 1]]])
    assert L.cholesky_ex(flawed).info.tolist() == [2, 0, 2, 1]
    near(L.cholesky_ex(flawed).L[1], np.linalg.cholesky(np.array([[2.0, 1], [1, 2]])).astype(np.float32))
    assert L.inv_ex(flawed).info.tolist() == [0, 0, 2, 0]
    near(L.inv_ex(flawed).inverse[1], np.linalg.inv(np.array([[2.0, 1], [1, 2]])).astype(np.float32))
    assert math.isnan(L.inv_ex(flawed).inverse[2, 0, 0].item())
    assert L.solve_ex(flawed, flawed).info.tolist() == [0, 0, 2, 0]
    assert L.lu_factor_ex(flawed).info.tolist() == [0, 0, 2, 0]
    assert L.lu_factor_ex(kiln.zeros(3, 0, 2)).info.tolist() == [0, 0, 0]
    assert kiln.lu(flawed, get_infos=True)[2].tolist() == [0, 0, 2, 0]
    assert L.matrix_rank(flawed).tolist() == [2, 2, 1, 2]
    assert L.matrix_rank(flawed, hermitian=True).tolist() == [2, 2, 1, 2]
    assert L.matrix_rank(flawed, atol=1.5).tolist() == [1, 1, 1, 0]
    compiles(lambda a: L.cholesky_ex(a).info, flawed.numpy())


REFUSED: dict[str, tuple[Callable[[kiln.Tensor], Any], str]] = {
    "inv": (L.inv, "matrix 1 of the stack is singular"),
    "solve": (lambda a: L.solve(a, a), "matrix 1 of the stack is singular"),
    "lu_factor": (L.lu_factor, "matrix 1 of the stack is singular: .* in row 1"),
    "cholesky": (L.cholesky, "matrix 1 of the stack is not positive definite .its leading minor of order 2"),
    "svd": (lambda a: L.svd(a * math.nan), "did not converge: there are infinities or NaNs"),
    "eig": (lambda a: L.eig(a * math.inf), "did not converge: there are infinities or NaNs"),
    "eigh": (lambda a: L.eigh(a * math.inf), "did not converge: there are infinities or NaNs"),
    "pinv": (lambda a: L.pinv(a * math.inf), "did not converge: there are infinities or NaNs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_numbers_make_impossible(name: str) -> None:
    f, message = REFUSED[name]
    good, bad = kiln.eye(3).expand(2, 3, 3), kiln.tensor([np.eye(3), np.ones((3, 3))], dtype=kiln.float32)
    compiled = kiln.compile(f)
    if "NaN" not in message:
        compiled(good)
        compiled(good)
    for run in (f, compiled):
        with pytest.raises(LinAlgError, match=f"^{name}: .*{message}") as caught:
            run(bad)
        assert caught.value.loc is not None and caught.value.loc.file == __file__
        for base in (RuntimeError, np.linalg.LinAlgError, kiln.KilnError):
            assert isinstance(caught.value, base)


def test_one_element_that_is_not_finite() -> None:
    """Of which LAPACK's iterations make numbers, or no end. What is not read may be anything."""
    for value in (math.nan, math.inf):
        a = kiln.eye(5)
        a[1, 2] = value
        for f in (L.svd, L.svdvals, L.pinv, L.eig, lambda x: L.eigvalsh(x, UPLO="U")):
            with pytest.raises(LinAlgError, match="infinities or NaNs"):
                f(a)
        assert L.eigvalsh(a).tolist() == [1.0] * 5


def test_a_refusal_inside_a_program_changes_nothing() -> None:
    state = kiln.zeros(2, 2)

    def step(a: kiln.Tensor) -> kiln.Tensor:
        state.add_(1.0)
        return L.inv(a + state * 0) * 2

    compiled = kiln.compile(step)
    for _ in range(2):
        compiled(kiln.eye(2))
    before = state.tolist()
    with pytest.raises(LinAlgError, match="singular"):
        compiled(kiln.zeros(2, 2))
    assert state.tolist() == [[x + 1 for x in row] for row in before]  # as eager: what comes before has happened


@pytest.mark.parametrize(
    ("f", "kind", "message"),
    [
        (lambda: L.inv(kiln.zeros(2, 3)), kiln.ShapeError, "inv: expects a stack of square"),
        (lambda: L.inv(kiln.zeros(3)), kiln.ShapeError, "inv: expects at least 2"),
        (lambda: L.inv(kiln.zeros(2, 2, dtype=kiln.int64)), kiln.DTypeError, "inv: is not defined for int64"),
        (lambda: L.svd(kiln.zeros(2, 2, dtype=kiln.float16)), kiln.DTypeError, "svd: is not defined for float16"),
        (lambda: L.solve(kiln.eye(2), kiln.eye(2).double()), kiln.DTypeError, "solve: operands have different"),
        (lambda: L.solve(kiln.eye(2), kiln.eye(3)), kiln.ShapeError, "solve: A has 2 rows, B 3"),
        (lambda: L.solve(kiln.eye(2), kiln.ones(2), left=False), kiln.ShapeError, "vectors can't stand"),
        (lambda: L.solve(kiln.ones(2, 2, 2), kiln.ones(3, 2, 2)), kiln.ShapeError, "can't be broadcast"),
        (lambda: L.eigh(kiln.eye(2), "X"), ValueError, "UPLO"),
        (lambda: L.qr(kiln.eye(2), "q"), ValueError, "mode"),
        (lambda: L.svd(kiln.eye(2), driver="gesvd"), ValueError, "driver"),
        (lambda: L.lstsq(kiln.eye(2), kiln.eye(2), driver="x"), ValueError, "driver"),
        (lambda: L.lstsq(kiln.eye(2), kiln.eye(3)), kiln.ShapeError, "as many rows"),
        (lambda: L.lu(kiln.eye(2), pivot=False), NotImplementedError, "pivoting"),
        (lambda: L.pinv(kiln.eye(2), rtol=kiln.ones(1)), NotImplementedError, "tolerances"),
        (lambda: L.lu_solve(kiln.eye(2), kiln.ones(2), kiln.eye(2)), kiln.DTypeError, "pivots must be int32"),
        (
            lambda: L.lu_solve(kiln.eye(2), kiln.ones(2, dtype=kiln.int32) * 3, kiln.eye(2)),
            LinAlgError, "pivots must be rows from 1 to 2",
        ),
        (lambda: L.matrix_power(kiln.zeros(2, 3), 2), kiln.ShapeError, "square"),
        (lambda: L.matrix_power(kiln.eye(2), 0.5), ValueError, "exponent"),
        (lambda: L.multi_dot([kiln.eye(2)]), ValueError, "at least two"),
        (lambda: L.multi_dot([kiln.eye(2), kiln.ones(2), kiln.eye(2)]), kiln.ShapeError, "vectors at the ends"),
        (lambda: L.vander(kiln.ones(3), N=1), ValueError, "greater than 1"),
        (lambda: L.cross(kiln.ones(3), kiln.ones(2, 3)), kiln.ShapeError, "as many dimensions"),
        (lambda: L.qr(kiln.ones(3, 2, requires_grad=True), "complete"), kiln.GradError, "no derivative"),
    ],
)  # fmt: skip
def test_errors(f: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        f()


# ----------------------------------------------------------------------------------------- gradients


def even(a: kiln.Tensor) -> kiln.Tensor:
    """The symmetric part."""
    return (a + a.mT) * 0.5


DERIVED: dict[str, tuple[Callable[..., Any], tuple[Array, ...]]] = {
    "solve": (L.solve, (matrices(2, 3, 3), matrices(2, 3, 2))),
    "solve-right": (lambda a, b: L.solve(a, b, left=False), (matrices(3, 3), matrices(2, 3))),
    "solve-broadcast": (L.solve, (matrices(3, 3), matrices(2, 3, 2))),
    "inv": (L.inv, (matrices(2, 3, 3),)),
    "det": (L.det, (matrices(2, 3, 3),)),
    "logdet": (kiln.logdet, (definite(2, 3, 3),)),
    "slogdet": (lambda a: L.slogdet(a).logabsdet, (matrices(2, 3, 3),)),
    "cholesky": (lambda a: L.cholesky(even(a)), (definite(2, 3, 3),)),
    "cholesky-upper": (lambda a: L.cholesky(even(a), upper=True), (definite(3, 3),)),
    "cholesky_solve": (kiln.cholesky_solve, (matrices(3, 2), definite(3, 3))),
    "cholesky_inverse": (kiln.cholesky_inverse, (definite(3, 3),)),
    "solve_triangular": (lambda a, b: L.solve_triangular(a, b, upper=True), (matrices(3, 3), matrices(3, 2))),
    "lu": (L.lu, (matrices(2, 4, 3),)),
    "lu_solve": (lambda a, b: L.lu_solve(*L.lu_factor(a), b), (matrices(3, 3), matrices(3, 2))),
    "lu_solve-adjoint": (
        lambda a, b: L.lu_solve(*L.lu_factor(a), b, adjoint=True, left=False), (matrices(3, 3), matrices(2, 3))
    ),
    "qr": (L.qr, (matrices(2, 4, 3),)),
    "qr-r": (lambda a: L.qr(a, "r").R, (matrices(3, 4),)),
    "eigh": (lambda a: L.eigh(even(a)), (symmetric(2, 3, 3),)),
    "eigvalsh": (lambda a: L.eigvalsh(even(a), "U"), (symmetric(2, 3, 3),)),
    "svd": (lambda a: L.svd(a, False), (matrices(4, 3),)),
    "svdvals": (L.svdvals, (matrices(2, 3, 4),)),
    "pinv": (L.pinv, (matrices(2, 4, 3),)),
    "lstsq": (lambda a, b: L.lstsq(a, b, driver="gels")[:2], (matrices(4, 2), matrices(4, 3))),
    "power": (lambda a: L.matrix_power(a, -2), (matrices(3, 3),)),
    "exp": (L.matrix_exp, (matrices(2, 3, 3) / 4,)),
    "norm-2": (lambda a: L.matrix_norm(a, 2), (matrices(3, 4),)),
    "norm-nuc": (lambda a: L.matrix_norm(a, "nuc"), (matrices(3, 4),)),
    "cond": (L.cond, (matrices(3, 3),)),
    "householder": (L.householder_product, (matrices(4, 3), matrices(3))),
    "vander": (lambda a: L.vander(a, N=4), (matrices(2, 3),)),
}  # fmt: skip


@pytest.mark.parametrize("name", DERIVED)
def test_gradients(name: str) -> None:
    f, arrays = DERIVED[name]
    differentiates(f, *arrays, second=True, tolerance=1e-5)


# ----------------------------------------------------------------------------------- complex matrices


def paired(*shape: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    k = min(shape[-2:])
    x[..., range(k), range(k)] += 3
    return x


def hermitian(*shape: int) -> Array:
    x = paired(*shape)
    return np.asarray(x @ np.conj(t(x)) + np.eye(shape[-1]))


COMPLEX: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Array, ...]]] = {
    "solve": (L.solve, np.linalg.solve, (paired(2, 3, 3), paired(2, 3, 2))),
    "inv": (L.inv, np.linalg.inv, (paired(2, 3, 3),)),
    "det": (L.det, np.linalg.det, (paired(2, 3, 3),)),
    "cholesky": (L.cholesky, np.linalg.cholesky, (hermitian(2, 3, 3),)),
    "eigvalsh": (L.eigvalsh, np.linalg.eigvalsh, (hermitian(2, 3, 3),)),
    "eigvals": (L.eigvals, np.linalg.eigvals, (paired(2, 3, 3),)),
    "pinv": (L.pinv, np.linalg.pinv, (paired(2, 4, 3),)),
    "svdvals": (L.svdvals, lambda a: np.linalg.svd(a, compute_uv=False), (paired(2, 4, 3),)),
    **{
        f"norm {p}": (
            lambda a, p=p: L.matrix_norm(a, p), lambda a, p=p: np.linalg.norm(a, p, (-2, -1)), (paired(2, 3, 4),)
        )
        for p in (2, -2, "nuc", "fro", 1, -math.inf)
    },
    "cond": (L.cond, np.linalg.cond, (paired(2, 3, 3),)),
    "cond 1": (lambda a: L.cond(a, 1), lambda a: np.linalg.cond(a, 1), (paired(2, 3, 3),)),
    "sign": (lambda a: L.slogdet(a).sign, lambda a: np.linalg.slogdet(a).sign, (paired(2, 3, 3),)),
    "logabsdet": (lambda a: L.slogdet(a).logabsdet, lambda a: np.linalg.slogdet(a).logabsdet, (paired(2, 3, 3),)),
    "rank": (L.matrix_rank, np.linalg.matrix_rank, (paired(2, 4, 3),)),
    "lstsq": (
        lambda a, b: L.lstsq(a, b).solution, lambda a, b: np.linalg.lstsq(a, b)[0], (paired(4, 3), paired(4, 2))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_matrices_against_numpy(name: str) -> None:
    f, ref, arrays = COMPLEX[name]
    for given in (arrays, tuple(x.astype(np.complex64) for x in arrays)):
        got, wanted = f(*tensors(given)).numpy(), ref(*given)
        assert got.dtype == wanted.dtype
        near(got, wanted, 1e-11 if got.itemsize > 8 or got.dtype == np.float64 else 1e-3)
        compiles(lambda *xs: kiln.view_as_real(f(*xs)) if f(*xs).dtype.is_complex else f(*xs), *given)


def test_complex_factors_give_the_matrix_back() -> None:
    x, b, h = paired(2, 4, 4), paired(2, 4, 3, seed=1), hermitian(2, 4, 4)
    a, side, positive = (kiln.from_numpy(v) for v in (x, b, h))
    p, lower, upper = L.lu(a)
    near(p @ lower @ upper, x)
    for is_upper in (False, True):
        f = L.cholesky(positive, upper=is_upper)
        near(f.mH @ f if is_upper else f @ f.mH, h)
        near(positive @ kiln.cholesky_solve(side, f, is_upper), b)
    for adjoint in (False, True):
        matrix = a.mH if adjoint else a
        near(matrix @ L.lu_solve(*L.lu_factor(a), side, adjoint=adjoint), b)
        near(L.lu_solve(*L.lu_factor(a), side.mT, adjoint=adjoint, left=False) @ matrix, t(b))
    near(L.solve(a, side.mT, left=False) @ a, t(b))
    w, v = L.eigh(positive)
    assert w.dtype is kiln.float64
    near(v * w.unsqueeze(-2) @ v.mH, h)
    for real in (a, kiln.from_numpy(matrices(2, 4, 4)), kiln.from_numpy(matrices(3, 3).astype(np.float32))):
        w, v = L.eig(real)
        assert w.dtype.is_complex
        np.testing.assert_allclose((real.to(v.dtype) @ v).numpy(), (v * w.unsqueeze(-2)).numpy(), rtol=1e-4, atol=1e-5)
    for shape in ((4, 4), (5, 3), (3, 5)):
        wide = paired(2, *shape)
        z = kiln.from_numpy(wide)
        q, r = L.qr(z)
        near(q @ r, wide)
        near(q.mH @ q, np.broadcast_to(np.eye(min(shape)), (2, min(shape), min(shape))))
        u, s, vh = L.svd(z, False)
        near(u * s.unsqueeze(-2) @ vh, wide)
        near(z.svd().U * z.svd().S.unsqueeze(-2) @ z.svd().V.mH, wide)
    assert L.inv_ex(kiln.from_numpy(x * 0)).info.tolist() == [1, 1]
    assert L.cholesky_ex(kiln.from_numpy(-h)).info.tolist() == [1, 1]
    assert L.eig(a)._fields == ("eigenvalues", "eigenvectors") and L.eig(kiln.zeros(0, 0)).eigenvalues.shape == (0,)


def test_complex_exponentials_logarithms_and_reflections() -> None:
    x = paired(2, 3, 3) / 2
    w, v = np.linalg.eig(x)
    near(L.matrix_exp(kiln.from_numpy(x)), v * np.exp(w)[..., None, :] @ np.linalg.inv(v), 1e-10)
    assert L.matrix_exp(kiln.zeros(2, 0, 0).cdouble()).shape == (2, 0, 0)
    near(kiln.logdet(kiln.from_numpy(x)), np.log(np.linalg.det(x)))
    q, tau = paired(4, 3), paired(3, 3, seed=1)[0]
    wanted = np.eye(4, dtype=complex)
    for i in range(3):
        u = np.concatenate([np.zeros(i), [1], q[i + 1 :, i]])
        wanted = wanted @ (np.eye(4) - tau[i] * np.outer(u, u.conj()))
    near(L.householder_product(kiln.from_numpy(q), kiln.from_numpy(tau)), wanted[:, :3])
    for f, arrays in ((L.matrix_exp, (x,)), (kiln.logdet, (x,)), (L.householder_product, (q, tau))):
        compiles(lambda *t, f=f: kiln.view_as_real(f(*t)), *arrays)
        differentiates(f, *arrays, tolerance=1e-5)


def of_parts(f: Callable[..., kiln.Tensor]) -> Callable[..., kiln.Tensor]:
    """`f` of complex matrices, given real and imaginary parts by turns; its result in parts."""

    def function(*parts: kiln.Tensor) -> kiln.Tensor:
        result = f(*[kiln.complex(re, im) for re, im in zip(parts[::2], parts[1::2], strict=True)])
        return kiln.view_as_real(result) if result.dtype.is_complex else result

    return function


def even_pairs(a: kiln.Tensor) -> kiln.Tensor:
    """The Hermitian part."""
    return (a + a.mH) * 0.5


def turned_alike(v: kiln.Tensor) -> kiln.Tensor:
    """What of eigenvectors does not depend on their directions in the complex plane."""
    return v.unsqueeze(-2) * v.conj().unsqueeze(-3)


DERIVED_COMPLEX: dict[str, tuple[Callable[..., kiln.Tensor], tuple[Array, ...]]] = {
    "solve": (lambda a, b: L.solve(a, b, left=False), (paired(3, 3), paired(2, 3))),
    "cholesky": (lambda a: L.cholesky(even_pairs(a), upper=True), (hermitian(3, 3),)),
    "cholesky_solve": (kiln.cholesky_solve, (paired(3, 2), hermitian(3, 3))),
    "lu_solve": (lambda a, b: L.lu_solve(*L.lu_factor(a), b, adjoint=True), (paired(3, 3), paired(3, 2))),
    "det": (L.det, (paired(2, 3, 3),)),
    "eigvalsh": (lambda a: L.eigvalsh(even_pairs(a)), (hermitian(3, 3),)),
    "eigh": (lambda a: turned_alike(L.eigh(even_pairs(a)).eigenvectors), (hermitian(3, 3),)),
    "qr": (lambda a: kiln.cat([L.qr(a).Q, L.qr(a).R]), (paired(3, 3),)),
    "qr-wide": (lambda a: L.qr(a).R, (paired(2, 3),)),
    "sign": (lambda a: L.slogdet(a).sign, (paired(3, 3),)),
    "logabsdet": (lambda a: L.slogdet(a).logabsdet, (paired(3, 3),)),
    "svdvals": (L.svdvals, (paired(4, 3),)),
    "svd": (lambda a: (lambda f: (f.U * f.S.unsqueeze(-2).sqrt()) @ f.Vh)(L.svd(a, False)), (paired(3, 3),)),
    "svd-tall": (lambda a: (lambda f: f.U @ f.Vh)(L.svd(a, False)), (paired(4, 3),)),
    "svd-wide": (lambda a: (lambda f: f.U @ f.Vh)(L.svd(a, False)), (paired(2, 4),)),
    "left": (lambda a: turned_alike(L.svd(a, False).U), (paired(4, 3),)),
    "right": (lambda a: turned_alike(L.svd(a, False).Vh.mH), (paired(3, 4),)),
    "eigvals": (L.eigvals, (paired(3, 3),)),
    "eig": (lambda a: turned_alike(L.eig(a).eigenvectors), (paired(3, 3),)),
}


@pytest.mark.parametrize("name", DERIVED_COMPLEX)
def test_gradients_of_complex_matrices(name: str) -> None:
    f, arrays = DERIVED_COMPLEX[name]
    parts = [np.ascontiguousarray(p) for x in arrays for p in (x.real, x.imag)]
    differentiates(of_parts(f), *parts, second=True, tolerance=1e-5)


def test_gradients_of_complex_eigenvalues_of_real_matrices() -> None:
    x = np.array([[0.5, -2.0, 0.1], [1.5, 0.3, 0.2], [0.1, 0.4, 2.0]])
    differentiates(lambda a: kiln.view_as_real(L.eigvals(a)), x, second=True, tolerance=1e-5)
    differentiates(lambda a: kiln.view_as_real(turned_alike(L.eig(a).eigenvectors)), x, tolerance=1e-5)


def test_gradients_where_values_repeat() -> None:
    """The pseudoinverse and the singular values of the identity are differentiable, its singular vectors are not."""
    a = kiln.eye(3, dtype=kiln.float64).requires_grad_()
    (found,) = kiln.grad(L.pinv(a).sum(), [a])
    near(found, -np.ones((3, 3)))
    (found,) = kiln.grad(L.svdvals(a).sum(), [a])
    near(found, np.eye(3))


def test_a_training_step_in_one_program() -> None:
    """A Gaussian's likelihood, with its backward and its update."""
    rng = np.random.default_rng(0)
    data = kiln.from_numpy(rng.normal(size=(20, 3)) @ matrices(3, 3).T)

    def run(compiled: bool) -> list[list[float]]:
        root = kiln.eye(3, dtype=kiln.float64).requires_grad_()
        optimiser = kiln.optim.SGD([root], lr=0.01)

        def step(x: kiln.Tensor) -> kiln.Tensor:
            optimiser.zero_grad()
            covariance = root @ root.mT + kiln.eye(3, dtype=kiln.float64)
            factor = L.cholesky(covariance)
            white = L.solve_triangular(factor, x.mT, upper=False)
            loss = (white * white).sum() / len(x) + 2 * L.diagonal(factor).log().sum()
            loss.backward()
            optimiser.step()
            return loss.detach()

        go = kiln.compile(step) if compiled else step
        losses = [go(data).item() for _ in range(6)]
        assert losses[-1] < losses[0]
        return [losses, *root.detach().tolist()]

    assert run(True) == run(False)


def test_large_products_repeat() -> None:
    """The library's own threads do not change its bits from call to call."""
    a = kiln.from_numpy(matrices(300, 300))
    for f in (L.inv, L.cholesky, L.det, L.svdvals, L.lu_factor):
        x = a @ a.mT if f is L.cholesky else a
        first, again = ([r.numpy() for r in flat(f(x))] for _ in range(2))
        for p, q in zip(first, again, strict=True):
            assert (p == q).all()
