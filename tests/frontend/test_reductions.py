"""Products, variances, norms, medians, counts and cumulative functions, against NumPy and values that PyTorch gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.runtime import threads
from tests.frontend.checking import Array, agrees, compiles, differentiates, same_bits

INF, NAN = math.inf, math.nan
RNG = np.random.default_rng(21)


def normal(*shape: int) -> Array:
    return np.asarray(RNG.normal(size=shape))


def arrays() -> list[Array]:
    """Two-dimensional ones whose memory lies differently."""
    return [normal(5, 7), normal(7, 5).T, normal(8, 21)[::2, 1::3], normal(3, 1), normal(4, 200)]


class TestSumsAndProducts:
    def test_prod(self) -> None:
        for x in arrays():
            for d in (0, 1, -1):
                agrees(lambda t, d=d: kiln.prod(t, d), lambda x, d=d: x.prod(axis=d), x, ulp=64)
                agrees(lambda t, d=d: t.prod(d, True), lambda x, d=d: x.prod(axis=d, keepdims=True), x, ulp=64)
            agrees(kiln.prod, np.prod, x, ulp=256)
        agrees(kiln.prod, np.prod, np.array([[3, 2**62], [5, -7]]))
        assert kiln.prod(kiln.tensor([True, True])).dtype is kiln.int64
        assert kiln.prod(kiln.zeros(0, 3)).item() == 1.0 and kiln.prod(kiln.zeros(0, 3), 0).tolist() == [1, 1, 1]
        assert kiln.prod(kiln.tensor(3.0)).item() == 3.0
        assert kiln.prod(kiln.tensor([2, 3]), dtype=kiln.float64).dtype is kiln.float64

    def test_the_gradient_of_a_product_beside_zeros(self) -> None:
        one, two = np.array([2.0, 0.0, 3.0]), np.array([2.0, 0.0, 0.0])
        for x, wanted in ((one, [0.0, 6.0, 0.0]), (two, [0.0, 0.0, 0.0]), (np.array([2.0, 3.0]), [3.0, 2.0])):
            t = kiln.from_numpy(x).requires_grad_()
            assert kiln.grad(kiln.prod(t), t)[0].tolist() == wanted
        x = normal(3, 4)
        x[1, 2] = 0.0
        differentiates(lambda t: kiln.prod(t, 1), x, second=True)
        differentiates(kiln.prod, x, second=True)

    def test_nan_is_skipped(self) -> None:
        x = normal(4, 6)
        x[0, 1] = x[2] = NAN
        with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
            mean = np.nanmean(x, axis=1)
        np.testing.assert_allclose(kiln.nanmean(kiln.from_numpy(x), 1).numpy(), mean, rtol=1e-14)
        agrees(lambda t: kiln.nansum(t, 1), lambda x: np.nansum(x, axis=1), x, ulp=8)
        differentiates(lambda t: kiln.nansum(t, 1), normal(2, 3))
        differentiates(kiln.nanmean, normal(2, 3))
        assert kiln.nansum(kiln.tensor([1, 2])).item() == 3
        with pytest.raises(kiln.DTypeError, match="nanmean"):
            kiln.nanmean(kiln.tensor([1]))

    def test_count_nonzero(self) -> None:
        x = np.array([[0, 2, 0], [1, -1, 0]])
        agrees(kiln.count_nonzero, np.count_nonzero, x)
        agrees(lambda t: kiln.count_nonzero(t, 1), lambda x: np.count_nonzero(x, axis=1), x)
        assert kiln.count_nonzero(kiln.tensor([NAN, 0.0])).item() == 1

    def test_logsumexp(self) -> None:
        for x in arrays():
            for dim in (0, 1, (0, 1)):
                ref = lambda x, dim=dim: np.log(np.exp(x).sum(axis=dim))  # noqa: E731
                agrees(lambda t, dim=dim: kiln.logsumexp(t, dim), ref, x, ulp=16, scale=1.0)
        far = kiln.tensor([1000.0, 1000.0])
        assert kiln.logsumexp(far, 0).item() == pytest.approx(1000 + math.log(2))
        assert kiln.logsumexp(kiln.tensor([-INF, -INF]), 0).item() == -INF
        assert kiln.logsumexp(kiln.tensor([INF, 1.0]), 0).item() == INF
        assert kiln.logsumexp(kiln.zeros(0, 2), 0).tolist() == [-INF, -INF]
        assert kiln.logsumexp(kiln.zeros(2, 3), 1, keepdim=True).shape == (2, 1)
        differentiates(lambda t: kiln.logsumexp(t, 1), normal(3, 4), second=True)


class TestVariances:
    @pytest.mark.parametrize("dim", [None, 0, 1, (0, 1)])
    @pytest.mark.parametrize("correction", [0, 1, 0.5])
    def test_against_numpy(self, dim: Any, correction: float) -> None:
        def var(x: Array) -> Any:
            return np.var(x, axis=dim, ddof=correction)

        for x in arrays()[:3]:
            agrees(lambda t: kiln.var(t, dim, correction=correction), var, x, ulp=64)
            agrees(lambda t: kiln.std(t, dim, correction=correction), lambda x: np.sqrt(var(x)), x, ulp=64)

    def test_arguments(self) -> None:
        x = kiln.tensor([1.0, 2.0, 4.0])
        assert x.var(False).item() == kiln.var(x, correction=0).item() == kiln.var(x, 0, False).item()
        assert x.std(0, True, True).shape == (1,)
        (v, m), (s, n) = kiln.var_mean(x, 0, keepdim=True), kiln.std_mean(x)
        assert v.shape == m.shape == (1,) and m.item() == n.item() == pytest.approx(7 / 3)
        assert s.item() == pytest.approx(math.sqrt(v.item()))
        assert math.isnan(kiln.var(kiln.ones(1)).item()) and kiln.var(x, correction=5).item() == INF
        with pytest.raises(kiln.DTypeError, match="var"):
            kiln.var(kiln.tensor([1, 2]))
        with pytest.raises(kiln.InvalidValueError, match="both"):
            kiln.var(x, 0, True, correction=1)

    def test_gradients(self) -> None:
        for f in (kiln.var, kiln.std):
            differentiates(lambda t, f=f: f(t, 1), normal(3, 4), second=True)
        differentiates(lambda t: kiln.var_mean(t, 0), normal(3, 4))

    def test_halves_are_rounded_once(self) -> None:
        x = kiln.from_numpy(normal(3, 50).astype(np.float32)).to(kiln.bfloat16)
        for f in (kiln.var, kiln.std, kiln.norm, lambda t: kiln.logsumexp(t, 1), kiln.prod):
            result = f(x)
            assert result.dtype is kiln.bfloat16
            assert result.tolist() == f(x.float()).to(kiln.bfloat16).tolist()


class TestNorms:
    @pytest.mark.parametrize("p", [0, 0.5, 1, 2, 3, 2.5, -1, INF, -INF])
    def test_against_numpy(self, p: float) -> None:
        def ref(x: Array) -> Array:
            return np.asarray(np.linalg.norm(x, ord=p, axis=1), np.float64)

        for x in arrays()[:3]:
            agrees(lambda t: kiln.linalg.vector_norm(t, p, 1), ref, x, ulp=32)
            agrees(lambda t: kiln.norm(t, p, 1, True), lambda x: ref(x)[:, None], x, ulp=32)
        if p:
            differentiates(lambda t: kiln.linalg.vector_norm(t, p, 0), normal(4, 3) * 2 + 0.1)

    def test_at_zero_the_gradient_is_zero(self) -> None:
        for p in (0.5, 1.0, 2.0, 3.0, 1.5):
            t = kiln.zeros(3).requires_grad_()
            assert kiln.grad(kiln.norm(t, p), t)[0].tolist() == [0, 0, 0], p

    def test_arguments(self) -> None:
        x = kiln.tensor([[3.0, 4.0], [0.0, 0.0]])
        assert kiln.norm(x).item() == kiln.norm(x, "fro").item() == 5.0
        assert kiln.norm(x, dtype=kiln.float64).dtype is kiln.float64
        assert kiln.dist(x, x + 1.0, 1).item() == 4.0
        with pytest.raises(kiln.NotYetError):
            kiln.norm(x, "nuc")
        with pytest.raises(kiln.DTypeError, match="vector_norm"):
            kiln.norm(kiln.tensor([1]))


class TestOrderStatistics:
    def test_aminmax(self) -> None:
        x = normal(4, 5)
        low, high = kiln.aminmax(kiln.from_numpy(x), dim=1, keepdim=True)
        assert low.shape == (4, 1) and (high.numpy()[:, 0] == x.max(axis=1)).all()
        assert kiln.aminmax(kiln.from_numpy(x)).min.item() == x.min()

    def test_median(self) -> None:
        for n in (1, 4, 7):
            x = RNG.permutation(3 * n).reshape(3, n).astype(np.float64)
            want = np.sort(x, axis=1)[:, (n - 1) // 2]
            values, indices = kiln.median(kiln.from_numpy(x), 1)
            assert (values.numpy() == want).all()
            assert (np.take_along_axis(x, indices.numpy()[:, None], 1)[:, 0] == want).all()
            assert kiln.median(kiln.from_numpy(x)).item() == np.sort(x.ravel())[(3 * n - 1) // 2]
        nan = kiln.tensor([[1.0, NAN, 3.0, 2.0], [NAN, NAN, NAN, NAN], [4.0, 1.0, 2.0, 3.0]])
        assert [str(v) for v in kiln.median(nan, 1).values.tolist()] == ["nan", "nan", "2.0"]
        assert [str(v) for v in kiln.nanmedian(nan, 1).values.tolist()] == ["2.0", "nan", "2.0"]
        assert kiln.nanmedian(nan, 1, True).indices.shape == (3, 1)
        assert kiln.nanmedian(nan).item() == 2.0 and math.isnan(kiln.median(nan).item())
        assert math.isnan(kiln.median(kiln.zeros(0)).item())
        assert kiln.median(kiln.tensor([3, 1, 2])).item() == 2
        for f in (kiln.median, kiln.nanmedian):
            with pytest.raises(kiln.DTypeError, match="median"):
                f(kiln.tensor([True]))
        compiles(lambda t: kiln.nanmedian(t, 1), nan.numpy())
        compiles(lambda t: kiln.median(t, 0), nan.numpy())

    def test_equal_elements_share_the_gradient_of_the_median(self) -> None:
        t = kiln.tensor([1.0, 2.0, 2.0, 5.0, 2.0], requires_grad=True)
        assert kiln.grad(kiln.median(t), t)[0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3])
        differentiates(lambda x: kiln.median(x, 1).values, normal(3, 5))
        differentiates(kiln.nanmedian, normal(3, 5))

    def test_mode(self) -> None:
        x = kiln.tensor([[3, 1, 2, 1, 3], [0, 5, 5, 4, 4], [7, 7, 7, 1, 1]])
        values, indices = kiln.mode(x)
        assert values.tolist() == [1, 4, 7] and indices.tolist() == [3, 4, 2]
        assert kiln.mode(x, 0, keepdim=True).values.shape == (1, 5)
        compiles(lambda t: kiln.mode(t, 1), x.numpy())


class TestCumulative:
    @pytest.mark.parametrize("dim", [0, 1, -1])
    def test_sums_and_products_are_numpys(self, dim: int) -> None:
        for x in arrays():
            for dtype in (np.float32, np.float64):
                agrees(lambda t: kiln.cumsum(t, dim), lambda x: np.cumsum(x, axis=dim), x.astype(dtype))
                agrees(lambda t: kiln.cumprod(t, dim), lambda x: np.cumprod(x, axis=dim), x.astype(dtype))
        whole = RNG.integers(-5, 6, (4, 6))
        agrees(lambda t: kiln.cumsum(t, dim), lambda x: np.cumsum(x, axis=dim), whole)
        agrees(lambda t: kiln.cumprod(t, dim), lambda x: np.cumprod(x, axis=dim), whole)

    def test_shapes_and_dtypes(self) -> None:
        assert kiln.cumsum(kiln.tensor([True, True]), 0).tolist() == [1, 2]
        assert kiln.cumsum(kiln.tensor([1, 2]), 0, dtype=kiln.float32).dtype is kiln.float32
        assert kiln.cumsum(kiln.tensor(3.0), 0).shape == ()
        assert kiln.cumprod(kiln.zeros(2, 0), 1).shape == (2, 0)
        x = kiln.ones(3)
        assert x.cumsum_(0) is x and x.tolist() == [1, 2, 3]
        with pytest.raises(kiln.KilnIndexError, match="cumsum"):
            kiln.cumsum(kiln.ones(2), 1)

    def test_no_thread_count_changes_a_bit(self) -> None:
        x = kiln.from_numpy(normal(300, 2000).astype(np.float32))
        before = threads.get_num_threads()
        wanted = [kiln.cumsum(x, d).numpy().tobytes() for d in (0, 1)]
        try:
            for n in (1, 3):
                threads.set_num_threads(n)
                assert [kiln.cumsum(x, d).numpy().tobytes() for d in (0, 1)] == wanted
        finally:
            threads.set_num_threads(before)

    def test_gradients(self) -> None:
        x = normal(3, 4)
        differentiates(lambda t: kiln.cumsum(t, 1), x)
        x[1, 2] = x[2, 0] = x[2, 3] = 0.0
        differentiates(lambda t: kiln.cumprod(t, 1), x, second=True)
        differentiates(lambda t: kiln.cumprod(t, 0), x, second=True)
        differentiates(lambda t: kiln.logcumsumexp(t, 1), normal(3, 4), second=True)
        differentiates(lambda t: kiln.cummax(t, 1).values, normal(3, 4))
        differentiates(lambda t: kiln.cummin(t, 0).values, normal(3, 4))

    def test_extremes(self) -> None:
        for x in arrays():
            for d in (0, 1):
                np.testing.assert_array_equal(
                    kiln.cummax(kiln.from_numpy(x), d).values.numpy(), np.maximum.accumulate(x, axis=d)
                )
                np.testing.assert_array_equal(
                    kiln.cummin(kiln.from_numpy(x), d).values.numpy(), np.minimum.accumulate(x, axis=d)
                )
        x = kiln.tensor([1.0, 3.0, 3.0, 2.0, NAN, 5.0])
        values, indices = kiln.cummax(x, 0)
        assert indices.tolist() == [0, 1, 2, 2, 4, 4] and math.isnan(values[5].item())
        assert kiln.cummin(kiln.tensor([2, 2, 3, 1]), 0).indices.tolist() == [0, 1, 1, 3]
        assert kiln.cummin(kiln.tensor([True, False, True]), 0).values.tolist() == [True, False, False]
        compiles(lambda t: kiln.cummin(t, 1), normal(4, 5))

    def test_logcumsumexp(self) -> None:
        for x in arrays():
            ref = lambda x: np.logaddexp.accumulate(x, axis=1)  # noqa: E731
            agrees(lambda t: kiln.logcumsumexp(t, 1), ref, x, ulp=256, scale=1.0)
        x = kiln.tensor([-INF, -INF, 1.0, 1000.0, INF, 2.0, NAN, 0.0])
        got = kiln.logcumsumexp(x, 0).tolist()
        assert got[:6] == [-INF, -INF, 1, 1000, INF, INF] and math.isnan(got[6]) and math.isnan(got[7])
        with pytest.raises(kiln.DTypeError):
            kiln.logcumsumexp(kiln.tensor([1]), 0)


class TestDifferences:
    def test_diff(self) -> None:
        x = normal(4, 6)
        for n in (0, 1, 2):
            for d in (0, 1):
                agrees(lambda t, n=n, d=d: kiln.diff(t, n, d), lambda x, n=n, d=d: np.diff(x, n, d), x)
        t = kiln.from_numpy(x)
        assert kiln.diff(t, dim=0, prepend=t[:1], append=t[-1:]).shape == (5, 6)
        assert kiln.diff(kiln.tensor([True, False, False])).tolist() == [True, False]
        assert kiln.diff(kiln.ones(3), 7).shape == (0,)
        with pytest.raises(kiln.ShapeError, match="diff"):
            kiln.diff(kiln.tensor(1.0))

    def test_trapezoids(self) -> None:
        y, x = normal(3, 5), np.cumsum(RNG.uniform(0.1, 1, 5))
        agrees(kiln.trapezoid, lambda y, x: np.trapezoid(y, x), y, x, ulp=32, scale=1.0)
        agrees(
            lambda t: kiln.trapezoid(t, dx=0.5, dim=0), lambda y: np.trapezoid(y, dx=0.5, axis=0), y, ulp=8, scale=1.0
        )
        assert kiln.cumulative_trapezoid(kiln.tensor([0.0, 5.0, 5.0])).tolist() == [2.5, 7.5]
        differentiates(kiln.trapezoid, y, x)
        with pytest.raises(kiln.InvalidValueError, match="both"):
            kiln.trapezoid(kiln.ones(3), kiln.ones(3), dx=1)


def test_captured_scans_keep_their_gradients() -> None:
    """A loss through a scan, forward and backward in one program."""

    def step(t: Any) -> Any:
        x = t.detach().requires_grad_()
        kiln.logsumexp(kiln.cumsum(x, 1) * kiln.cumprod(x, 0), 1).sum().backward()
        return x.grad

    x = normal(4, 5)
    eager = step(kiln.from_numpy(x)).numpy()
    compiled = kiln.compile(step)
    for _ in range(2):
        assert same_bits(compiled(kiln.from_numpy(x)).numpy(), eager)


# ------------------------------------------------------------------------------------ every one of them


def lse(x: Array, axis: int) -> Array:
    return np.asarray(np.log(np.exp(x).sum(axis)))


OVER_DIM: dict[str, tuple[Any, Any]] = {
    "var": (lambda t: kiln.var(t, 1), lambda x: x.var(1, ddof=1)),
    "var0": (lambda t: t.var(0, unbiased=False, keepdim=True), lambda x: x.var(0, keepdims=True)),
    "var all": (lambda t: t.var(), lambda x: x.var(ddof=1)),
    "std": (lambda t: kiln.std(t, (0, 1), correction=0), lambda x: x.std()),
    "std false": (lambda t: t.std(False), lambda x: x.std()),
    "norm": (lambda t: t.norm(), lambda x: np.sqrt((x * x).sum())),
    "norm1": (lambda t: kiln.norm(t, 1, dim=1), lambda x: abs(x).sum(1)),
    "norm3": (lambda t: t.norm(3, dim=0, keepdim=True), lambda x: (abs(x) ** 3).sum(0, keepdims=True) ** (1 / 3)),
    "norm inf": (lambda t: t.norm(INF, dim=1), lambda x: abs(x).max(1)),
    "norm -inf": (lambda t: t.norm(-INF, dim=1), lambda x: abs(x).min(1)),
    "logsumexp": (lambda t: kiln.logsumexp(t, 1), lambda x: lse(x, 1)),
    "prod": (lambda t: kiln.prod(t, 1), lambda x: x.prod(1)),
    "prod all": (lambda t: t.prod(), lambda x: x.prod()),
    "cumsum": (lambda t: kiln.cumsum(t, 1), lambda x: x.cumsum(1)),
    "cumsum0": (lambda t: t.cumsum(0), lambda x: x.cumsum(0)),
    "cumprod": (lambda t: kiln.cumprod(t, -1), lambda x: x.cumprod(-1)),
    "logcumsumexp": (lambda t: kiln.logcumsumexp(t, 1), lambda x: np.log(np.exp(x).cumsum(1))),
    "diff": (lambda t: kiln.diff(t), lambda x: np.diff(x)),
    "diff2": (lambda t: kiln.diff(t, 2, 0), lambda x: np.diff(x, 2, 0)),
    "aminmax": (lambda t: kiln.aminmax(t, dim=1).max, lambda x: x.max(1)),
    "cummax": (lambda t: kiln.cummax(t, 1).values, lambda x: np.maximum.accumulate(x, 1)),
    "cummin": (lambda t: t.cummin(0).values, lambda x: np.minimum.accumulate(x, 0)),
    "median": (lambda t: kiln.median(t, 1).values, lambda x: np.sort(x, 1)[:, (x.shape[1] - 1) // 2]),
    "dist": (lambda t: kiln.dist(t, 1.0), lambda x: np.sqrt(((x - 1) ** 2).sum())),
}


@pytest.mark.parametrize("name", OVER_DIM)
def test_reductions(name: str) -> None:
    f, ref = OVER_DIM[name]
    for x in (normal(4, 5).T, normal(6, 8)[::2, 1::3], normal(7, 37)):
        agrees(f, ref, x, ulp=64.0, scale=1.0)
        compiles(f, np.asarray(x, np.float32))
    differentiates(f, normal(4, 5))
    half = kiln.from_numpy(normal(3, 4)).half()
    assert f(half).dtype is kiln.float16


def test_integers_count_in_int64() -> None:
    x = kiln.tensor([[1, 2, 3], [4, 5, 6]], dtype=kiln.int32)
    assert kiln.prod(x).item() == 720 and kiln.prod(x).dtype is kiln.int64
    assert kiln.cumsum(x, 1).tolist() == [[1, 3, 6], [4, 9, 15]]
    assert kiln.cumprod(x, 0).tolist() == [[1, 2, 3], [4, 10, 18]]
    assert kiln.cumsum(kiln.tensor([True, True]), 0).tolist() == [1, 2]
    assert kiln.count_nonzero(kiln.tensor([[0, 1], [2, 3]]), 0).tolist() == [1, 2]
    assert kiln.diff(kiln.tensor([True, False, False])).tolist() == [True, False]
    with pytest.raises(kiln.DTypeError, match="std"):
        kiln.std(x)


def test_edges() -> None:
    empty, scalar = kiln.zeros(0, 3), kiln.tensor(2.0)
    assert kiln.prod(empty, 0).tolist() == [1, 1, 1] and kiln.prod(empty).item() == 1
    assert kiln.cumsum(empty, 0).shape == (0, 3) and kiln.cumsum(scalar, 0).item() == 2
    assert kiln.logsumexp(empty, 0).tolist() == [-INF] * 3
    assert kiln.logsumexp(kiln.tensor([-INF, -INF]), 0).item() == -INF
    assert kiln.logsumexp(kiln.tensor([1000.0, 1000.0]), 0).item() == pytest.approx(1000 + math.log(2))
    assert math.isnan(kiln.var(scalar).item()) and kiln.var(scalar, correction=0).item() == 0
    assert kiln.median(kiln.tensor([3.0, 1.0, 2.0, 4.0])).item() == 2
    assert math.isnan(kiln.median(kiln.tensor([3.0, NAN])).item())
    assert kiln.nansum(kiln.tensor([1.0, NAN, 2.0])).item() == 3
    assert kiln.nanmean(kiln.tensor([1.0, NAN, 2.0])).item() == 1.5
    values, places = kiln.cummax(kiln.tensor([1.0, 3.0, 3.0, NAN, 5.0]), 0)
    assert values.tolist()[:3] == [1, 3, 3] and math.isnan(values.tolist()[4]) and places.tolist() == [0, 1, 2, 3, 3]
    w = kiln.zeros(3, requires_grad=True)
    w.norm().backward()
    assert w.grad is not None and w.grad.tolist() == [0, 0, 0]
    x = kiln.tensor([2.0, 0.0, 3.0], requires_grad=True)
    (g,) = kiln.grad(x.prod(), x)
    assert g.tolist() == [0, 6, 0]
    spread, mean = kiln.std_mean(kiln.tensor([1.0, 3.0]))
    assert (spread.item(), mean.item()) == (pytest.approx(math.sqrt(2)), 2)
    with pytest.raises(kiln.NotYetError, match="nuclear"):
        kiln.norm(kiln.ones(2, 2), "nuc")
    with pytest.raises(kiln.KilnIndexError, match="cumsum"):
        kiln.cumsum(kiln.ones(2), 1)
