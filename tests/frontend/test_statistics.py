"""Quantiles, covariances and kiln.linalg's norms, against NumPy, compiled, and through differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.checking import Array, agrees, compiles, differentiates

RNG = np.random.default_rng(5)
INF, NAN = math.inf, math.nan
METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


def normal(*shape: int) -> Array:
    return np.asarray(RNG.normal(size=shape))


def shapes() -> list[Array]:
    return [normal(4, 5).T, normal(6, 8)[::2, 1::3], normal(7, 37)]


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Array], Any]]] = {
    "quantile all": (lambda t: kiln.quantile(t, 0.3), lambda x: np.quantile(x, 0.3)),
    "quantile 0": (lambda t: t.quantile(0.8, 0, keepdim=True), lambda x: np.quantile(x, 0.8, 0, keepdims=True)),
    "nanquantile": (lambda t: kiln.nanquantile(t, 0.45, 1), lambda x: np.quantile(x, 0.45, 1)),
    "cov": (lambda t: kiln.cov(t), lambda x: np.cov(x)),
    "cov 0": (lambda t: t.cov(correction=0), lambda x: np.cov(x, ddof=0)),
    "corrcoef": (lambda t: t.corrcoef(), lambda x: np.corrcoef(x)),
    "matrix_norm": (lambda t: kiln.linalg.matrix_norm(t), np.linalg.norm),
    "norm 1": (lambda t: kiln.linalg.norm(t, 1), lambda x: np.linalg.norm(x, 1)),
    "norm -1": (lambda t: kiln.linalg.norm(t, -1), lambda x: np.linalg.norm(x, -1)),
    "norm inf": (lambda t: kiln.linalg.norm(t, INF), lambda x: np.linalg.norm(x, INF)),
    "norm -inf": (lambda t: kiln.linalg.matrix_norm(t, -INF), lambda x: np.linalg.norm(x, -INF)),
    "vector_norm": (lambda t: kiln.linalg.vector_norm(t, 3, 1), lambda x: np.linalg.norm(x, 3, 1)),
    "norm along": (lambda t: kiln.linalg.norm(t, dim=1, keepdim=True), lambda x: np.linalg.norm(x, axis=1)[:, None]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_statistics(name: str) -> None:
    f, ref = FUNCTIONS[name]
    for x in shapes():
        agrees(f, ref, x, ulp=256.0, scale=1.0)
        compiles(f, np.asarray(x, np.float32))
    if name != "corrcoef":  # whose diagonal is kept at 1
        differentiates(f, normal(4, 5))


@pytest.mark.parametrize("how", METHODS)
def test_quantiles_of_several_shares(how: str) -> None:
    q = np.array([0.0, 0.1, 1 / 6, 0.5, 0.84, 1.0])
    for x in (*shapes(), normal(2, 9, 3)):
        for dim in (None, 0, 1):
            f = lambda t, s, d=dim: kiln.quantile(t, s, d, interpolation=how)  # noqa: E731
            agrees(f, lambda a, s, d=dim: np.quantile(a, s, d, method=how), x, q, ulp=64.0, scale=1.0)
    kept = kiln.quantile(kiln.from_numpy(normal(2, 9, 3)), kiln.from_numpy(q), 1, keepdim=True, interpolation=how)
    assert kept.shape == (6, 2, 1, 3)


def test_nan() -> None:
    x = kiln.tensor([[1.0, NAN, 3.0, 2.0], [NAN, NAN, NAN, NAN], [4.0, 1.0, 3.0, 2.0]])
    assert str(kiln.quantile(x, 0.5, 1).tolist()) == "[nan, nan, 2.5]"
    assert str(kiln.nanquantile(x, 0.5, 1).tolist()) == "[2.0, nan, 2.5]"


def test_covariances_with_weights() -> None:
    x, often, much = normal(3, 6), np.array([1, 2, 3, 1, 1, 2]), np.abs(normal(6)) + 0.1
    f = lambda t, a, b: kiln.cov(t, fweights=a, aweights=b)  # noqa: E731
    agrees(f, lambda t, a, b: np.cov(t, fweights=a, aweights=b), x, often, much, ulp=64.0, scale=1.0)
    differentiates(f, x, often, much)
    assert kiln.corrcoef(kiln.tensor([1.0, 2.0])).item() == 1
    assert kiln.cov(kiln.tensor([[0, 2, 1], [2, 0, 3]])).tolist()[0] == [1, -1]
    assert kiln.cov(kiln.from_numpy(x).half()).dtype is kiln.float16


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: kiln.quantile(kiln.ones(3), 1.5), kiln.InvalidValueError, "quantile: q must"),
    (lambda: kiln.quantile(kiln.ones(3), kiln.tensor([1.5])), kiln.KilnIndexError, "out of bounds"),
    (lambda: kiln.quantile(kiln.ones(3), kiln.tensor([[0.5]])), kiln.ShapeError, "a number or a vector"),
    (lambda: kiln.quantile(kiln.ones(3), kiln.ones(1).double()), kiln.DTypeError, "the tensor's dtype"),
    (lambda: kiln.quantile(kiln.ones(3).half(), 0.5), kiln.DTypeError, "float32 and float64"),
    (lambda: kiln.quantile(kiln.ones(0), 0.5), kiln.InvalidValueError, "no elements"),
    (lambda: kiln.quantile(kiln.ones(3), 0.5, interpolation="x"), kiln.InvalidValueError, "interpolation"),
    (lambda: kiln.cov(kiln.ones(1, 2, 3)), kiln.ShapeError, "at most 2"),
    (lambda: kiln.cov(kiln.ones(1, 2), fweights=kiln.ones(2)), kiln.DTypeError, "integers"),
    (lambda: kiln.cov(kiln.ones(1, 2), aweights=kiln.ones(3)), kiln.ShapeError, "per observation"),
    (lambda: kiln.linalg.matrix_norm(kiln.ones(2)), kiln.ShapeError, "at least 2"),
    (lambda: kiln.linalg.matrix_norm(kiln.ones(2, 2), 3), kiln.InvalidValueError, "ord 3"),
    (lambda: kiln.linalg.matrix_norm(kiln.ones(2, 2), dim=(0, 0)), kiln.InvalidValueError, "differ"),
    (lambda: kiln.linalg.norm(kiln.ones(2, 2, 2), 2), kiln.ShapeError, "vectors and matrices"),
    (lambda: kiln.linalg.vector_norm(kiln.ones(2), "fro"), kiln.ArgumentError, "ord must be a number"),
    (lambda: kiln.linalg.vector_norm(kiln.ones(0), INF), kiln.InvalidValueError, "nothing has no norm"),
    (lambda: kiln.linalg.vector_norm(kiln.ones(2).double(), dtype=kiln.float32), kiln.DTypeError, "narrowed"),
]


@pytest.mark.parametrize(("call", "error", "match"), ERRORS)
def test_errors(call: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
