"""Accuracy and special values of the functions in `codegen/mathlib.py`, through compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import kiln
from kiln.ir import loops as L
from kiln.ir import types as T

mpmath.mp.dps = 40
Array = np.ndarray[Any, Any]

FUNCTIONS: dict[str, tuple[Callable[[Any], Any], tuple[float, float]]] = {
    "exp": (mpmath.exp, (-87.0, 88.6)),
    "log": (mpmath.log, (1e-30, 1e30)),
    "tanh": (mpmath.tanh, (-11.0, 11.0)),
    "erf": (mpmath.erf, (-5.0, 5.0)),
}
BOUNDS = {  # largest error allowed, in units in the last place; the docstrings state the same
    "exp": {"float32": 1.0, "float64": 1.0},
    "log": {"float32": 0.9, "float64": 1.0},
    "tanh": {"float32": 1.5, "float64": 2.5},
    "erf": {"float32": 1.5, "float64": 1.5},
}


def ulps(got: Array, want: list[Any]) -> Array:
    """Distance in units in the last place of the exact value."""
    errors = []
    for g, w in zip(got, want, strict=True):
        rounded = got.dtype.type(float(w))
        errors.append(float(abs(mpmath.mpf(float(g)) - w)) / float(np.spacing(abs(rounded))))
    return np.array(errors)


def samples(name: str, dtype: str, n: int) -> Array:
    low, high = FUNCTIONS[name][1]
    rng = np.random.default_rng(0)
    if name == "exp" and dtype == "float64":
        low, high = -708.0, 709.0
    if name == "log":
        x = np.exp(rng.uniform(np.log(low), np.log(high), n))
        return np.concatenate([x, 1 + rng.uniform(-0.1, 0.1, n)]).astype(dtype)
    x = rng.uniform(low, high, n)
    return np.concatenate([x, rng.uniform(-1, 1, n), rng.uniform(-1, 1, n) * 1e-3]).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_accuracy(name: str, dtype: str) -> None:
    x = samples(name, dtype, 1500)
    got = getattr(kiln, name)(kiln.from_numpy(x)).numpy()
    want = [FUNCTIONS[name][0](mpmath.mpf(float(v))) for v in x]
    worst = ulps(got, want)
    where = int(worst.argmax())
    assert worst[where] <= BOUNDS[name][dtype], f"{worst[where]} ulp at {x[where]!r}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(dtype: str) -> None:
    inf, nan, tiny = np.inf, np.nan, float(np.finfo(dtype).smallest_subnormal)
    x = np.array([inf, -inf, nan, 0.0, -0.0, tiny, -tiny, 1e30, -1e30], dtype)
    table = {
        "exp": [inf, 0, nan, 1, 1, 1, 1, inf, 0],
        "tanh": [1, -1, nan, 0.0, -0.0, tiny, -tiny, 1, -1],
        "erf": [1, -1, nan, 0.0, -0.0, None, None, 1, -1],
        "log": [inf, nan, nan, -inf, -inf, None, nan, None, nan],
    }
    for name, want in table.items():
        got = getattr(kiln, name)(kiln.from_numpy(x)).numpy()
        for g, w, v in zip(got, want, x, strict=True):
            if w is not None:
                expected = np.array(w, dtype)
                same = (np.isnan(g) and np.isnan(expected)) or (g == expected and np.signbit(g) == np.signbit(expected))
                assert same, f"{name}({v!r}) = {g!r}, expected {expected!r}"


def test_log_of_subnormals() -> None:
    x = np.array([np.finfo(np.float32).smallest_subnormal * k for k in (1, 3, 1000)], np.float32)
    got = kiln.log(kiln.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, np.log(x.astype(np.float64)), rtol=1e-7)


def test_exp_of_subnormal_results_rounds_once() -> None:
    x = np.linspace(-103.9, -87.4, 2000).astype(np.float32)
    got = kiln.exp(kiln.from_numpy(x)).numpy()
    gap = np.abs(got.astype(np.float64) - np.exp(x.astype(np.float64)))
    assert np.all(gap <= 1.01 * np.spacing(np.maximum(got, np.finfo(np.float32).smallest_subnormal)))


def test_missing_definitions_say_so() -> None:
    from kiln.codegen.mathlib import expand

    with pytest.raises(NotImplementedError, match="exp of int64"):
        expand("exp", (L.const(1, T.int64),))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_float32(name: str) -> None:
    """All 2^32 floats against float64, in chunks."""
    worst, at = 0.0, 0.0
    reference = {"exp": np.exp, "log": np.log, "tanh": np.tanh}.get(name)
    for start in range(0, 2**32, 2**24):
        x = np.arange(start, start + 2**24, dtype=np.uint64).astype(np.uint32).view(np.float32)
        x = x[np.isfinite(x)]
        if not x.size:
            continue
        got = getattr(kiln, name)(kiln.from_numpy(x.copy())).numpy()
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            want = kiln.erf(kiln.from_numpy(wide)).numpy() if reference is None else reference(wide)
            keep = np.isfinite(want) & (np.abs(want) < 3.4e38)
            gap = np.abs(got.astype(np.float64) - want) / np.spacing(np.abs(want.astype(np.float32))).astype(np.float64)
        gap = np.where(keep, gap, 0)
        if gap.max() > worst:
            worst, at = float(gap.max()), float(x[gap.argmax()])
    assert worst <= BOUNDS[name]["float32"], f"{worst} ulp at {at!r}"
