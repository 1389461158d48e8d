"""Runs of elements, points in boxes, binomial numbers, low rank, and names that are gone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.checking import compiles, differentiates

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(4)
INF, NAN = math.inf, math.nan
NUMPY = {"sum": np.sum, "mean": np.mean, "prod": np.prod, "max": np.max, "min": np.min}
EMPTY = {"sum": 0.0, "mean": NAN, "prod": 1.0, "max": -INF, "min": INF}


def runs(x: Array, lengths: list[int], reduce: str) -> Array:
    """The reductions of runs along the first dimension."""
    found, begin = [], 0
    for n in lengths:
        part = x[begin : begin + n]
        found.append(NUMPY[reduce](part, axis=0) if n else np.full(x.shape[1:], EMPTY[reduce]))
        begin += n
    return np.array(found)


@pytest.mark.parametrize("reduce", NUMPY)
def test_segment_reduce(reduce: str) -> None:
    lengths = [2, 0, 3, 1]
    n = kiln.tensor(lengths)
    for x in (RNG.normal(size=6), RNG.normal(size=(6, 3)), RNG.normal(size=(3, 12))[:, ::2].T):
        wanted = runs(x, lengths, reduce)
        got = kiln.segment_reduce(kiln.from_numpy(x), reduce, lengths=n)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-14)
        offsets = kiln.tensor([0, 2, 2, 5, 6])
        assert np.array_equal(
            kiln.segment_reduce(kiln.from_numpy(x), reduce, offsets=offsets).numpy(), got.numpy(), equal_nan=True
        )
        compiles(lambda t: kiln.segment_reduce(t, reduce, lengths=n), x)
        full = kiln.tensor([2, 3, 1])
        differentiates(lambda t, f=full: kiln.segment_reduce(t, reduce, lengths=f), x, second=reduce == "prod")
    rows = RNG.normal(size=(2, 5, 3))
    each = [[2, 3], [0, 5]]
    got = kiln.segment_reduce(kiln.from_numpy(rows), reduce, lengths=kiln.tensor(each), axis=1)
    wanted = np.stack([runs(r, e, reduce) for r, e in zip(rows, each, strict=True)])
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-14)


def test_segment_reduce_with_a_first_number() -> None:
    x, n = kiln.arange(6.0) + 1, kiln.tensor([2, 0, 4])
    for reduce, first, wanted in (
        ("sum", 10, [13, 10, 28]), ("mean", 10, [6.5, 10, 7]), ("max", 3.5, [3.5, 3.5, 6]), ("min", 2.5, [1, 2.5, 2.5]),
        ("prod", 2, [4, 2, 720]),
    ):  # fmt: skip
        assert kiln.segment_reduce(x, reduce, lengths=n, initial=first).tolist() == wanted
    y = kiln.tensor([1.0, 2, 2, 4, 0, 6], requires_grad=True)
    kiln.segment_reduce(y, "max", lengths=kiln.tensor([3, 0, 3]), initial=2.0).sum().backward()
    assert y.grad.tolist() == [0, 0.5, 0.5, 0, 0, 1]
    part = kiln.segment_reduce(x, "sum", lengths=kiln.tensor([2, 3]), unsafe=True)
    assert part.tolist() == [3, 12]
    assert kiln.segment_reduce(x, "sum", offsets=kiln.tensor([1, 2, 5])).tolist() == [2, 12]
    assert kiln.segment_reduce(x.half(), "mean", lengths=n, initial=1).dtype is kiln.float16
    assert kiln.segment_reduce(kiln.zeros(0), "sum", lengths=kiln.tensor([0, 0])).tolist() == [0, 0]


def test_segment_reduce_refuses() -> None:
    x, n = kiln.arange(6.0), kiln.tensor([2, 4])
    for error, call in (
        (kiln.InvalidValueError, lambda: kiln.segment_reduce(x, "sum", lengths=kiln.tensor([2, 3]))),
        (kiln.InvalidValueError, lambda: kiln.segment_reduce(x, "sum", lengths=kiln.tensor([-2, 8]))),
        (kiln.InvalidValueError, lambda: kiln.segment_reduce(x, "median", lengths=n)),
        (kiln.ArgumentError, lambda: kiln.segment_reduce(x, "sum")),
        (kiln.ShapeError, lambda: kiln.segment_reduce(x.reshape(2, 3), "sum", lengths=n, axis=1)),
        (kiln.DTypeError, lambda: kiln.segment_reduce(x.long(), "sum", lengths=n)),
        (kiln.DTypeError, lambda: kiln.segment_reduce(x, "sum", lengths=n.float())),
        (kiln.NotYetError, lambda: kiln.segment_reduce(x, "sum", indices=n)),
    ):
        with pytest.raises(error, match="segment_reduce"):
            call()


def test_histogramdd() -> None:
    x, w = RNG.normal(size=(50, 3)), RNG.uniform(size=50)
    t, weights = kiln.from_numpy(x), kiln.from_numpy(w)
    for bins in (3, [2, 4, 3]):
        for density in (False, True):
            for given, weight in ((None, None), (w, weights)):
                wanted, edges = np.histogramdd(x, bins, density=density, weights=given)
                hist, found = kiln.histogramdd(t, bins, weight=weight, density=density)
                np.testing.assert_allclose(hist.numpy(), wanted, rtol=1e-12)
                for a, b in zip(found, edges, strict=True):
                    np.testing.assert_allclose(a.numpy(), b, rtol=1e-12)
    spans = [(-1.0, 1.0), (0.0, 2.0), (-2.0, 0.5)]
    wanted, _ = np.histogramdd(x, [2, 3, 4], range=spans)
    hist, _ = kiln.histogramdd(t.reshape(5, 10, 3), [2, 3, 4], range=[n for s in spans for n in s])
    assert hist.tolist() == wanted.tolist()
    edges = [np.array([-1.0, 0.0, 0.5, 2.0]), np.array([-0.5, 0.5]), np.array([-3.0, 0.0, 3.0])]
    wanted, _ = np.histogramdd(x, edges)
    made = [kiln.from_numpy(e) for e in edges]
    assert kiln.histogramdd(t, made).hist.tolist() == wanted.tolist()
    compiles(lambda t: kiln.histogramdd(t, made).hist, x)
    for error, call in (
        (kiln.ShapeError, lambda: kiln.histogramdd(t[0], 3)),
        (kiln.InvalidValueError, lambda: kiln.histogramdd(t, [2, 3])),
        (kiln.InvalidValueError, lambda: kiln.histogramdd(t, 0)),
        (kiln.InvalidValueError, lambda: kiln.histogramdd(t, 2, range=[0.0, 1.0])),
        (kiln.DTypeError, lambda: kiln.histogramdd(t.long(), 2)),
        (kiln.ShapeError, lambda: kiln.histogramdd(t, 2, weight=weights[:4])),
    ):
        with pytest.raises(error, match="histogramdd"):
            call()


@pytest.mark.parametrize(("n", "p"), [(10.0, 0.3), (40.0, 0.9), (200.0, 0.4), (5000.0, 0.01)])
def test_binomial(n: float, p: float) -> None:
    size = 30000
    x = kiln.binomial(kiln.full((size,), n), kiln.full((size,), p), kiln.Generator(2))
    assert x.dtype is kiln.float32 and bool(((x >= 0) & (x <= n) & (x == x.floor())).all())
    mean, spread = n * p, n * p * (1 - p)
    assert abs(x.double().mean().item() - mean) < 5 * math.sqrt(spread / size)
    assert abs(x.double().var().item() / spread - 1) < 5 * math.sqrt(3 / size)
    again = kiln.binomial(kiln.full((size,), n), kiln.full((size,), p), kiln.Generator(2))
    assert again.tolist() == x.tolist()


def test_binomial_at_the_edges() -> None:
    count, prob = kiln.tensor([-1.0, 4, 4, 4, 7.9, NAN, 4, 0]), kiln.tensor([0.5, -1, 1, 1.5, 1, 0.5, NAN, 0.5])
    got = kiln.binomial(count, prob).numpy()
    np.testing.assert_array_equal(got, [0, 0, 4, 4, 7, NAN, NAN, 0])
    assert kiln.binomial(kiln.ones(2, 1), kiln.ones(3)).shape == (2, 3)
    assert kiln.binomial(kiln.zeros(0), kiln.zeros(0)).shape == (0,)

    def draws(f: Any) -> list[float]:
        kiln.manual_seed(5)
        return [x for _ in range(3) for x in f(kiln.tensor([9.0, 90.0, 900.0]), kiln.tensor([0.2, 0.5, 0.7])).tolist()]

    assert draws(kiln.binomial) == draws(kiln.compile(kiln.binomial))
    with pytest.raises(kiln.DTypeError, match="binomial"):
        kiln.binomial(kiln.tensor([3]), kiln.tensor([0.5]))


def test_low_rank() -> None:
    for shape in ((9, 5), (5, 9), (2, 7, 6)):
        a = RNG.normal(size=(*shape[:-1], 3)) @ RNG.normal(size=(*shape[:-2], 3, shape[-1]))
        t = kiln.from_numpy(a)
        u, s, v = kiln.svd_lowrank(t, 4)
        assert u.shape == (*shape[:-1], 4) and v.shape == (*shape[:-2], shape[-1], 4)
        np.testing.assert_allclose((u * s.unsqueeze(-2) @ v.mT).numpy(), a, atol=1e-10)
        np.testing.assert_allclose(s.numpy()[..., :3], np.linalg.svd(a, compute_uv=False)[..., :3], rtol=1e-10)
        centred = a - a.mean(-2, keepdims=True)
        u, s, v = kiln.pca_lowrank(t, 4)
        np.testing.assert_allclose((u * s.unsqueeze(-2) @ v.mT).numpy(), centred, atol=1e-10)
        np.testing.assert_allclose(
            kiln.svd_lowrank(t, 4, M=t.mean(-2, True))[1].numpy()[..., :3], s.numpy()[..., :3], rtol=1e-9
        )
    assert kiln.pca_lowrank(kiln.randn(8, 3))[1].shape == (3,)
    for q, niter in ((7, 2), (2, -1)):
        with pytest.raises(kiln.InvalidValueError, match="pca_lowrank"):
            kiln.pca_lowrank(kiln.randn(8, 6), q, niter=niter)


def test_norm_except_dim() -> None:
    x = RNG.normal(size=(2, 3, 4))
    t = kiln.from_numpy(x)
    np.testing.assert_allclose(kiln.norm_except_dim(t).numpy(), np.sqrt((x**2).sum((1, 2), keepdims=True)))
    np.testing.assert_allclose(kiln.norm_except_dim(t, 1, 1).numpy(), abs(x).sum((0, 2), keepdims=True))
    assert kiln.norm_except_dim(t, 2, -1).item() == pytest.approx(np.linalg.norm(x))


@pytest.mark.parametrize("name", ["eig", "lstsq", "matrix_rank", "solve", "symeig"])
def test_removed_functions_say_what_to_call(name: str) -> None:
    x = kiln.eye(2)
    args = (x,) if name in ("eig", "matrix_rank", "symeig") else (x, x)
    with pytest.raises(RuntimeError, match=r"(?s)removed.*kiln\.linalg"):
        getattr(kiln, name)(*args)
    if name != "matrix_rank":
        with pytest.raises(RuntimeError, match=name):
            getattr(x, name)(*args[1:])


def test_methods_that_write() -> None:
    n = kiln.tensor([12, 18])
    assert n.clone().gcd_(kiln.tensor([8, 27])).tolist() == [4, 9]
    assert kiln.lcm_(n.clone(), kiln.tensor([8, 27])).tolist() == [24, 54]
    x = kiln.tensor([3.0, 4.5])
    assert x.clone().i0_().tolist() == kiln.i0_(x.clone()).tolist() == kiln.i0(x).tolist()
    assert x.clone().mvlgamma_(2).tolist() == x.mvlgamma(2).tolist()
    assert x.clone().polygamma_(2).tolist() == x.polygamma(2).tolist()
    y = x.clone().requires_grad_()
    (y * 1).polygamma_(1).sum().backward()
    assert y.grad.tolist() == x.polygamma(2).tolist()
