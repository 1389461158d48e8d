"""Membership, choices, replaced parts, histograms, distances, numerical derivatives: against NumPy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.checking import Array, agrees, compiles, differentiates, layouts

RNG = np.random.default_rng(12)
INF, NAN = math.inf, math.nan


def test_isin() -> None:
    table = np.array([1, 5, 7, 1])
    for x in layouts(lambda shape: np.asarray(RNG.integers(0, 9, shape))):
        agrees(kiln.isin, np.isin, x, table)
        agrees(lambda x, y: kiln.isin(x, y, invert=True), lambda x, y: np.isin(x, y, invert=True), x, table)
    floats = kiln.tensor([1.0, NAN, INF, -0.0])
    assert kiln.isin(floats, kiln.tensor([NAN, 1.0, 0.0])).tolist() == [True, False, False, True]
    assert kiln.isin(floats, kiln.tensor([NAN])).tolist() == [False] * 4
    assert kiln.isin(floats, kiln.tensor([])).tolist() == [False] * 4
    assert kiln.isin(3, kiln.tensor([3, 4])).item() and not kiln.isin(kiln.tensor(2), 3).item()
    assert kiln.isin(kiln.tensor([True, False]), kiln.tensor([True])).tolist() == [True, False]
    with pytest.raises(kiln.ArgumentError, match="isin"):
        kiln.isin(1, 2)


def test_combinations_and_places() -> None:
    x = RNG.normal(size=5)
    for r in (1, 2, 3, 6):
        wanted = np.array(list(itertools.combinations(x, r))).reshape(-1, r)
        agrees(lambda t, r=r: kiln.combinations(t, r), lambda _, w=wanted: w, x)
    got = kiln.combinations(kiln.from_numpy(x), with_replacement=True)
    assert got.tolist() == [list(c) for c in itertools.combinations_with_replacement(x.tolist(), 2)]
    differentiates(lambda t: kiln.combinations(t, 2), x)
    i = np.array([[3, 7], [22, 59]])
    for got, wanted in zip(
        kiln.unravel_index(kiln.from_numpy(i), (3, 4, 5)), np.unravel_index(i, (3, 4, 5)), strict=True
    ):
        assert got.tolist() == wanted.tolist()
    assert kiln.broadcast_shapes((2, 1), (3,), 1) == (2, 3)
    assert [p.shape for p in kiln.split_with_sizes(kiln.ones(2, 5), [1, 4], 1)] == [(2, 1), (2, 4)]
    for call, kind in (
        (lambda: kiln.combinations(kiln.ones(2, 2)), kiln.ShapeError),
        (lambda: kiln.combinations(kiln.ones(2), -1), kiln.InvalidValueError),
        (lambda: kiln.unravel_index(kiln.ones(2), (2,)), kiln.DTypeError),
        (lambda: kiln.broadcast_shapes((2,), (3,)), kiln.ShapeError),
    ):
        with pytest.raises(kind):
            call()


def replaced(part: Any) -> Any:
    def ref(x: Array, v: Array) -> Array:
        out = x.copy()
        part(out)[...] = v
        return out

    return ref


@pytest.mark.parametrize(
    "f, part, shape",
    [
        (lambda x, v: x.select_scatter(v, 1, -2), lambda x: x[:, -2], (2, 3)),
        (lambda x, v: kiln.slice_scatter(x, v, 1, 1, None, 2), lambda x: x[:, 1::2], (2, 2, 3)),
        (lambda x, v: x.slice_scatter(v, start=1), lambda x: x[1:], (1, 4, 3)),
        (lambda x, v: x.diagonal_scatter(v, 1, 1, 2), lambda x: np.einsum("ijj->ij", x[:, :2, 1:]), (2, 2)),
    ],
)
def test_replaced_parts(f: Any, part: Any, shape: Any) -> None:
    x, v = RNG.normal(size=(2, 4, 3)), RNG.normal(size=shape)
    agrees(f, replaced(part), x, v)
    agrees(f, replaced(part), RNG.normal(size=(3, 4, 2)).T, v)
    differentiates(f, x, v)
    with pytest.raises(kiln.ShapeError, match="src must have shape"):
        f(kiln.from_numpy(x), kiln.zeros(7, dtype=kiln.float64))


def test_histogram() -> None:
    v, w = RNG.normal(size=50), RNG.normal(size=50)
    x = kiln.from_numpy(v)
    edges = np.array([-1.0, 0.0, 0.5, 2.0])
    cases: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
        (4, {}, {}),
        (5, {"range": (-1.0, 1.0)}, {"range": (-1.0, 1.0)}),
        (3, {"density": True}, {"density": True}),
        (4, {"weight": kiln.from_numpy(w)}, {"weights": w}),
        (kiln.from_numpy(edges), {}, {}),
    ]
    for bins, ours, theirs in cases:
        hist, found = x.histogram(bins, **ours)
        wanted, wanted_edges = np.histogram(v, bins if isinstance(bins, int) else edges, **theirs)
        np.testing.assert_allclose(hist.numpy(), wanted, rtol=1e-12)
        np.testing.assert_allclose(found.numpy(), wanted_edges, rtol=1e-14)
    compiles(lambda t: kiln.histogram(t, 5, range=(-1.0, 1.0)), v.astype(np.float32))
    assert kiln.histogram(kiln.zeros(0), 2).hist.tolist() == [0, 0]
    with pytest.raises(kiln.InvalidValueError, match="histogram"):
        x.histogram(0)
    with pytest.raises(kiln.DTypeError, match="histogram"):
        kiln.histogram(kiln.tensor([1]), 2)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, INF])
def test_distances(p: float) -> None:
    def ref(x: Array, y: Array) -> Array:
        return np.asarray(np.linalg.norm(x[..., :, None, :] - y[..., None, :, :], ord=p, axis=-1))

    def norm(x: Array, y: Array) -> Array:
        gaps = x[..., :, None, :] - y[..., None, :, :]
        return np.asarray((np.abs(gaps) ** p).sum(-1) ** (1 / p) if p not in (0.0, INF) else ref(x, y))

    x, y = RNG.normal(size=(2, 5, 3)), RNG.normal(size=(1, 4, 3))
    agrees(lambda a, b: kiln.cdist(a, b, p), norm, x, y, ulp=16.0)
    i, j = np.triu_indices(5, 1)
    agrees(lambda a: kiln.pdist(a, p), lambda a: norm(a, a)[i, j], x[0], ulp=16.0)
    if p >= 1:
        differentiates(lambda a, b: kiln.cdist(a, b, p), x, y)
        differentiates(lambda a: kiln.pdist(a, p), x[0])


def test_distance_edges() -> None:
    x = kiln.zeros(2, 3, requires_grad=True)
    kiln.cdist(x, x.detach()).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0, 0, 0]] * 2
    assert kiln.cdist(kiln.ones(0, 3), kiln.ones(2, 3)).shape == (0, 2)
    assert kiln.cdist(kiln.ones(1, 0), kiln.ones(2, 0)).tolist() == [[0, 0]]
    assert kiln.pdist(kiln.ones(1, 3)).shape == (0,)
    y = RNG.normal(size=(3, 4))
    norms = np.linalg.norm(y, axis=0)
    agrees(lambda t: t.renorm(2, 1, 1.2), lambda a: a * np.where(norms > 1.2, 1.2 / (norms + 1e-7), 1), y, ulp=4.0)
    differentiates(lambda t: kiln.renorm(t, 2, 0, 1.0), y)
    for call in (lambda: kiln.cdist(kiln.ones(2, 3), kiln.ones(2, 2)), lambda: kiln.pdist(kiln.ones(2))):
        with pytest.raises(kiln.ShapeError, match="dist"):
            call()
    with pytest.raises(kiln.InvalidValueError, match="renorm"):
        kiln.renorm(kiln.ones(2, 2), 0, 0, 1.0)


def test_vander() -> None:
    x = RNG.normal(size=4)
    for n, up in ((None, False), (3, True), (1, False), (0, True)):
        agrees(lambda t, n=n, up=up: kiln.vander(t, n, up), lambda a, n=n, up=up: np.vander(a, n, up), x, ulp=4.0)
    assert kiln.vander(kiln.tensor([1, 2, 3])).tolist() == np.vander([1, 2, 3]).tolist()
    differentiates(lambda t: kiln.vander(t, 4), x)


@pytest.mark.parametrize("order", [1, 2])
def test_gradient(order: int) -> None:
    x, at = RNG.normal(size=(3, 5, 4)), np.array([0.0, 1.0, 1.5, 4.0, 5.0])
    f = lambda t: kiln.gradient(t, edge_order=order)  # noqa: E731
    for got, wanted in zip(f(kiln.from_numpy(x)), np.gradient(x, edge_order=order), strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12, atol=1e-14)
    compiles(f, x)
    g = lambda t, c: kiln.gradient(t, spacing=(c, 2.5), dim=(1, 2), edge_order=order)  # noqa: E731
    wanted = np.gradient(x, at, 2.5, axis=(1, 2), edge_order=order)
    for got, w in zip(g(kiln.from_numpy(x), kiln.from_numpy(at)), wanted, strict=True):
        np.testing.assert_allclose(got.numpy(), w, rtol=1e-12, atol=1e-14)
    differentiates(g, x, at)
    with pytest.raises(kiln.ShapeError, match="gradient"):
        kiln.gradient(kiln.ones(order), edge_order=order)


def test_frexp() -> None:
    odd = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 3.7, 1e300, -1e-300, 5e-324, INF, -INF, NAN, 2.0**-100, 1023.9999])
    with np.errstate(over="ignore"):
        single = odd.astype(np.float32)
    for x in (odd, single, np.exp2(np.arange(-149, 128.0)).astype(np.float32), RNG.normal(size=(0, 2))):
        mantissa, exponent = kiln.frexp(kiln.from_numpy(x))
        finite = np.isfinite(x)
        wanted = np.frexp(x)
        np.testing.assert_array_equal(mantissa.numpy(), wanted[0])
        np.testing.assert_array_equal(exponent.numpy()[finite], wanted[1][finite])
        assert exponent.dtype is kiln.int32 and mantissa.numpy().dtype == x.dtype
    compiles(lambda t: kiln.frexp(t), odd)
    (g,) = kiln.grad(kiln.frexp(y := kiln.tensor([0.3, 5.0], requires_grad=True)).mantissa.sum(), y)
    assert g.tolist() == [2.0, 0.125]
