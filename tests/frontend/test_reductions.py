"""Further reductions and running ones, against NumPy, compiled, and through finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.checking import Array, agrees, compiles, differentiates

RNG = np.random.default_rng(3)
INF, NAN = math.inf, math.nan


def normal(*shape: int) -> Array:
    return np.asarray(RNG.normal(size=shape))


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
