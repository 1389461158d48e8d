"""Accuracy and special values of the functions in `codegen/mathlib.py`, each a kernel of its own, on every target."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from kiln.codegen.llvm.emit import emit_kernel
from kiln.codegen.mathlib import expand
from kiln.codegen.schedule import schedule
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.intrinsics import MATH_FUNCTIONS
from kiln.runtime import context, targets
from kiln.runtime.modules import load_module

Array = np.ndarray[Any, Any]
HOST = targets.detect()
TARGETS = [n for n, t in targets.LEVELS.items() if t.arch == HOST.arch and t.fma and t.vector_bits <= HOST.vector_bits]
INF, NAN = math.inf, math.nan

REFERENCES: dict[str, Callable[..., Any]] = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "cospi": mpmath.cospi,
    "pow": mpmath.power,
    "fmod": lambda x, y: mpmath.mpf(math.fmod(x, y)),
    "log1p": mpmath.log1p,
    "log2": lambda x: mpmath.log(x, 2),
    "log10": mpmath.log10,
    "exp2": lambda x: mpmath.power(2, x),
    "expm1": mpmath.expm1,
    "sinh": mpmath.sinh,
    "cosh": mpmath.cosh,
    "asinh": mpmath.asinh,
    "acosh": mpmath.acosh,
    "atanh": mpmath.atanh,
    "atan": mpmath.atan,
    "asin": mpmath.asin,
    "acos": mpmath.acos,
    "atan2": mpmath.atan2,
    "erfc": mpmath.erfc,
    "sinpi": mpmath.sinpi,
    "erfinv": mpmath.erfinv,
    "lgamma": lambda x: mpmath.re(mpmath.loggamma(x)),
    "digamma": mpmath.digamma,
}
BOUNDS: dict[str, dict[str, float]] = {  # largest error allowed, in units in the last place, as the docstrings say
    "exp": {"float32": 1.02, "float64": 1.05},
    "log": {"float32": 0.84, "float64": 0.87},
    "tanh": {"float32": 1.06, "float64": 1.35},
    "erf": {"float32": 1.11, "float64": 1.42},
    "sin": {"float32": 0.501, "float64": 0.83},
    "cos": {"float32": 0.501, "float64": 0.83},
    "cospi": {"float32": 0.99, "float64": 1.03},
    "pow": {"float32": 0.501, "float64": 1.95},
    "fmod": {"float32": 0.0, "float64": 0.0},
    "log1p": {"float32": 0.501, "float64": 1.4},
    "log2": {"float32": 0.501, "float64": 0.51},
    "log10": {"float32": 0.501, "float64": 0.51},
    "exp2": {"float32": 0.501, "float64": 1.4},
    "expm1": {"float32": 0.501, "float64": 1.6},
    "sinh": {"float32": 0.501, "float64": 2.5},
    "cosh": {"float32": 0.501, "float64": 2.5},
    "asinh": {"float32": 0.501, "float64": 2.2},
    "acosh": {"float32": 0.501, "float64": 2.2},
    "atanh": {"float32": 0.501, "float64": 2.2},
    "atan": {"float32": 0.501, "float64": 1.5},
    "asin": {"float32": 0.501, "float64": 2.6},
    "acos": {"float32": 0.501, "float64": 2.6},
    "atan2": {"float32": 0.501, "float64": 1.8},
    "erfc": {"float32": 0.501, "float64": 4.0},
    "sinpi": {"float32": 0.99, "float64": 1.03},
    "erfinv": {"float32": 0.501, "float64": 3.5},
    "lgamma": {"float32": 0.501, "float64": 6.0},
    "digamma": {"float32": 0.501, "float64": 6.0},
}

SERIES = {"erf", "erfc", "erfinv", "lgamma", "digamma"}
"""What takes mpmath the longer the more digits it is asked for, and needs no reduction."""


@functools.cache
def function(name: str, dtype: T.DType, arity: int, level: str) -> Any:
    """The function over arrays of n elements: `i32 (ctx, operands..., out, n)`."""
    n, i = L.Var(L.INDEX, "n"), L.Var(L.INDEX, "i")
    *operands, out = (L.Buffer(f"a{k}", dtype, (n,), (1,)) for k in range(arity + 1))
    value = L.apply(name, *(L.load(b, (i,)) for b in operands))
    loop = L.For("vector", i, L.index(0), n, (L.Store(out, (i,), value),))
    target = targets.LEVELS[level]
    module = emit_kernel(schedule(L.Kernel(f"test_{name}", (*operands, out, n), (loop,)), target), target)
    address = load_module(module, target, lambda symbol: None)[module.exports[0]]
    return ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * (arity + 2), ctypes.c_int64)(address)


def call(name: str, *operands: Array, level: str = TARGETS[0]) -> Array:
    out = np.empty_like(operands[0])
    pointers = [x.__array_interface__["data"][0] for x in (*operands, out)]
    compiled = function(name, T.dtype_named(out.dtype.name), len(operands), level)
    assert compiled(context.current().address, *pointers, out.size) == 0
    return out


def spread(rng: np.random.Generator, n: int, low: float, high: float) -> Array:
    """Numbers of both signs whose exponents are uniform between those of low and high."""
    return np.exp2(rng.uniform(np.log2(low), np.log2(high), n)) * rng.choice([-1.0, 1.0], n)


def samples(name: str, dtype: str, n: int) -> tuple[Array, ...]:
    """Operands that matter: dense where the method changes, spread over the exponents elsewhere."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    tiny, huge = float(info.tiny), float(info.max) / 2
    top = float(np.log(info.max))
    small = spread(rng, n, 1e-6, 1.0)
    parts = {
        "exp": (rng.uniform(-top + 2, top - 0.1, n), small),
        "log": (np.abs(spread(rng, n, tiny, huge)), 1 + rng.uniform(-0.3, 0.5, n)),
        "tanh": (rng.uniform(-11, 11, n), rng.uniform(-1, 1, n), small),
        "erf": (rng.uniform(-6, 6, n), rng.uniform(-1, 1, n), small),
        "sin": (rng.uniform(-7, 7, n), spread(rng, n, 1e-6, huge), np.rint(rng.uniform(-999, 999, n)) * np.pi / 2),
        "cospi": (rng.uniform(-3, 3, n), spread(rng, n, 1e-3, 1e3)),
    }
    parts["cos"] = parts["sin"]
    parts["log2"] = parts["log10"] = parts["log"]
    parts["log1p"] = (np.abs(spread(rng, n, tiny, huge)), rng.uniform(-0.999, 2, n), small * 0.9)
    parts["exp2"] = (rng.uniform(-top / 0.7 + 4, top / 0.7, n), small)
    parts["expm1"] = (rng.uniform(-45, top - 0.1, n), rng.uniform(-2, 2, n), spread(rng, n, tiny, 1.0))
    parts["sinh"] = parts["cosh"] = (rng.uniform(-top, top, n), rng.uniform(-23, 23, n), small)
    parts["asinh"] = (spread(rng, n, tiny, huge), rng.uniform(-3, 3, n), small)
    parts["acosh"] = (1 + np.abs(spread(rng, n, 1e-6, huge)), 1 + np.abs(small))
    parts["atanh"] = parts["asin"] = parts["acos"] = (rng.uniform(-1, 1, n), small, 1 - np.abs(small) * 1e-3)
    parts["atan"] = (spread(rng, n, tiny, huge), rng.uniform(-3, 3, n), small)
    parts["erfc"] = (rng.uniform(-6, 9 if dtype == "float32" else 26, n), rng.uniform(-1, 1, n), small)
    parts["sinpi"] = parts["cospi"]
    ends = np.copysign(1 - np.exp2(rng.uniform(np.log2(float(info.eps)), -1, n)), rng.normal(size=n))
    parts["erfinv"] = (rng.uniform(-1, 1, n), small, ends)
    positive = (rng.uniform(0, 12, n), np.abs(spread(rng, n, 1e-6, 1e30)), 1.46163 + rng.normal(size=n) * 0.01)
    parts["lgamma"] = (*positive, 1 + rng.normal(size=n) * 0.01, 2 + rng.normal(size=n) * 0.01)
    parts["digamma"] = positive
    if name in parts:
        return (np.concatenate(parts[name]).astype(dtype),)
    if name == "atan2":
        return spread(rng, n, 1e-9, 1e9).astype(dtype), spread(rng, n, 1e-9, 1e9).astype(dtype)
    if name == "fmod":
        return spread(rng, n, tiny, huge).astype(dtype), spread(rng, n, tiny, huge).astype(dtype)
    base = np.concatenate([np.abs(spread(rng, n, tiny, huge)), 1 + rng.uniform(-1e-3, 1e-3, n)]).astype(dtype)
    logs = np.log(base.astype(np.float64))
    exponent = rng.uniform(-top + 2, top - 0.1, 2 * n) / np.where(np.abs(logs) < 1e-8, 1.0, logs)
    return base, exponent.astype(dtype)


def worst(name: str, operands: tuple[Array, ...], got: Array) -> tuple[float, int]:
    """The largest distance from the exact value in units in the last place, and where it is."""
    largest, where = 0.0, 0
    with mpmath.workprec(300 if name in SERIES else 1200):  # enough to reduce the largest float64 by pi
        for k, value in enumerate(got):
            exact = REFERENCES[name](*(mpmath.mpf(float(x[k])) for x in operands))
            spacing = np.spacing(abs(got.dtype.type(float(exact))))
            error = float(abs(mpmath.mpf(float(value)) - exact) / mpmath.mpf(float(spacing)))
            if not error <= largest:
                largest, where = error, k
    return largest, where


def same_bits(a: Array, b: Array) -> bool:
    return bool(((a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")) | (np.isnan(a) & np.isnan(b))).all())


def test_every_function_has_a_reference_and_a_bound() -> None:
    assert set(REFERENCES) == set(BOUNDS) == MATH_FUNCTIONS


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_accuracy(name: str, dtype: str) -> None:
    operands = samples(name, dtype, 400)
    got = call(name, *operands)
    error, where = worst(name, operands, got)
    assert error <= BOUNDS[name][dtype], f"{error} ulp at {[x[where] for x in operands]}"
    for level in TARGETS[1:]:
        assert same_bits(call(name, *operands, level=level), got)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_next_to_quarter_turns(name: str, dtype: str) -> None:
    """The floats that come nearest to multiples of pi/2 (Muller, "Elementary Functions", 2006, for float64; the
    others found by search), where reduction cancels most."""
    near = {
        "float32": [16367173 * 2.0**72, 1.6e9, 33 * math.pi / 2, 104350 * math.pi, 2.0**127],
        "float64": [6381956970095103 * 2.0**797, 5.319372648326541e255, 355.0, 2.0**1023, 1.7e308, 2.0**902, 2.0**107],
    }
    x = np.array([s * v for v in near[dtype] for s in (1, -1)], dtype)
    x = np.concatenate([x, np.nextafter(x, np.zeros_like(x))])
    error, where = worst(name, (x,), call(name, x))
    assert error <= BOUNDS[name][dtype], f"{error} ulp at {x[where]!r}"


SPECIAL: dict[str, list[tuple[float, float]]] = {
    "exp": [(INF, INF), (-INF, 0.0), (0.0, 1.0), (-0.0, 1.0), (1e30, INF), (-1e30, 0.0)],
    "log": [(INF, INF), (-INF, NAN), (0.0, -INF), (-0.0, -INF), (1.0, 0.0), (-1.0, NAN), (-1e-30, NAN)],
    "tanh": [(INF, 1.0), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (1e30, 1.0), (-1e30, -1.0)],
    "erf": [(INF, 1.0), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (1e30, 1.0), (-1e30, -1.0)],
    "sin": [(INF, NAN), (-INF, NAN), (0.0, 0.0), (-0.0, -0.0)],
    "cos": [(INF, NAN), (-INF, NAN), (0.0, 1.0), (-0.0, 1.0)],
    "log1p": [(INF, INF), (-1.0, -INF), (-2.0, NAN), (-INF, NAN), (0.0, 0.0), (-0.0, -0.0), (1e-30, 1e-30)],
    "log2": [(INF, INF), (0.0, -INF), (-1.0, NAN), (8.0, 3.0), (2.0**-30, -30.0), (1.0, 0.0)],
    "log10": [(INF, INF), (0.0, -INF), (-1.0, NAN), (1000.0, 3.0), (1e15, 15.0), (1.0, 0.0)],
    "exp2": [(INF, INF), (-INF, 0.0), (3.0, 8.0), (-30.0, 2.0**-30), (0.0, 1.0), (1e30, INF), (-1e30, 0.0)],
    "expm1": [(INF, INF), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (1e30, INF), (-1e30, -1.0), (1e-30, 1e-30)],
    "sinh": [(INF, INF), (-INF, -INF), (0.0, 0.0), (-0.0, -0.0), (1e30, INF)],
    "cosh": [(INF, INF), (-INF, INF), (0.0, 1.0), (1e30, INF)],
    "asinh": [(INF, INF), (-INF, -INF), (0.0, 0.0), (-0.0, -0.0)],
    "acosh": [(INF, INF), (1.0, 0.0), (0.5, NAN), (-3.0, NAN), (-1e30, NAN), (-INF, NAN)],
    "atanh": [(1.0, INF), (-1.0, -INF), (0.0, 0.0), (-0.0, -0.0), (1.5, NAN), (-INF, NAN)],
    "atan": [(INF, math.pi / 2), (-INF, -math.pi / 2), (0.0, 0.0), (-0.0, -0.0), (1.0, math.pi / 4)],
    "asin": [(1.0, math.pi / 2), (-1.0, -math.pi / 2), (0.0, 0.0), (-0.0, -0.0), (1.5, NAN)],
    "acos": [(1.0, 0.0), (-1.0, math.pi), (0.0, math.pi / 2), (-1.5, NAN)],
    "erfc": [(INF, 0.0), (-INF, 2.0), (0.0, 1.0), (1e30, 0.0), (-1e30, 2.0)],
    "cospi": [(INF, NAN), (-INF, NAN), (0.0, 1.0), (-0.0, 1.0), (1.0, -1.0), (0.5, 0.0), (2.0**60, 1.0)],
    "sinpi": [(INF, NAN), (0.0, 0.0), (-0.0, -0.0), (1.0, 0.0), (-2.0, -0.0), (-2.5, -1.0), (2.0**60, 0.0)],
    "erfinv": [(1.0, INF), (-1.0, -INF), (0.0, 0.0), (-0.0, -0.0), (1.5, NAN), (-INF, NAN)],
    "lgamma": [(INF, INF), (-INF, INF), (0.0, INF), (-0.0, INF), (1.0, 0.0), (2.0, 0.0), (-3.0, INF), (-3e38, INF)],
    "digamma": [(INF, INF), (-INF, NAN), (0.0, -INF), (-0.0, INF), (-3.0, NAN)],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(SPECIAL))
def test_special_values(name: str, dtype: str) -> None:
    x, want = (np.array(column, dtype) for column in zip(*SPECIAL[name], (NAN, NAN), strict=True))
    for level in TARGETS:
        got = call(name, x, level=level)
        assert same_bits(got, want), list(zip(x, got, want, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pow_follows_c(dtype: str) -> None:
    """All pairs of special numbers, against the C library's pow."""
    info = np.finfo(dtype)
    numbers = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 1e9 + 1, 2.0**60, float(info.max), float(info.smallest_subnormal), INF]
    line = np.array([NAN, *numbers, *(-v for v in numbers)], dtype)
    x, y = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(line, line))
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    got = call("pow", x, y)
    exact = np.isin(want, [0.0, 1.0, -1.0]) | ~np.isfinite(want)
    assert same_bits(got[exact], want[exact])
    np.testing.assert_allclose(got[~exact], want[~exact], rtol=4 * float(info.eps))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_atan2_follows_c(dtype: str) -> None:
    """All pairs of special numbers, against the C library's atan2."""
    line = np.array([NAN, *(s * v for v in (0.0, 0.5, 1.0, 3.0, 1e30, INF) for s in (1, -1))], dtype)
    y, x = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(line, line))
    want, got = np.arctan2(y.astype(np.float64), x.astype(np.float64)), call("atan2", y, x)
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()
    np.testing.assert_allclose(got, want, rtol=2 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["tanh", "sin", "log1p", "expm1", "sinh", "asinh", "atanh", "atan", "asin"])
def test_the_smallest_numbers_are_their_own_value(name: str, dtype: str) -> None:
    x = np.array([k * np.finfo(dtype).smallest_subnormal for k in (1, -1, 3, 1000, -12345)], dtype)
    assert same_bits(call(name, x), x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "whole"), [("lgamma", math.lgamma), ("digamma", mpmath.digamma)])
def test_gamma_functions_of_negative_numbers(name: str, whole: Callable[[float], Any], dtype: str) -> None:
    x = -np.random.default_rng(1).uniform(0.01, 40, 300).astype(dtype)
    got = call(name, x).astype(np.float64)
    want = np.array([float(whole(float(v))) for v in x])
    assert (np.abs(got - want) <= 6 * float(np.finfo(dtype).eps) * np.maximum(1, np.abs(want))).all()


def test_log_of_subnormals() -> None:
    for dtype in ("float32", "float64"):
        x = np.array([np.finfo(dtype).smallest_subnormal * k for k in (1, 3, 1000)], dtype)
        error, where = worst("log", (x,), call("log", x))
        assert error <= BOUNDS["log"][dtype], f"{error} ulp at {x[where]!r}"


def test_subnormal_results_round_once() -> None:
    x = np.linspace(-103.9, -87.4, 600).astype(np.float32)
    assert worst("exp", (x,), call("exp", x))[0] <= 1.01
    x = np.linspace(-745.1, -708.5, 600)
    assert worst("exp", (x,), call("exp", x))[0] <= 1.01


def test_missing_definitions_say_so() -> None:
    with pytest.raises(NotImplementedError, match="exp of int64"):
        expand("exp", (L.const(1, T.int64),))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MATH_FUNCTIONS - {"pow", "fmod", "atan2"}))
def test_every_float32(name: str) -> None:
    """All 2^32 floats in chunks, against float64: the C library's, or where NumPy has none this library's own."""
    largest, at = 0.0, 0.0
    for start in range(0, 2**32, 2**22):
        x = np.arange(start, start + 2**22, dtype=np.uint64).astype(np.uint32).view(np.float32)
        got, wide = call(name, x), x.astype(np.float64)
        with np.errstate(all="ignore"):
            want = getattr(np, name)(wide) if hasattr(np, name) else call(name, wide)
            rounded = want.astype(np.float32)
            gap = np.abs(got.astype(np.float64) - want) / np.spacing(np.abs(rounded)).astype(np.float64)
        usual = np.isfinite(rounded)
        assert same_bits(got[~usual], rounded[~usual])
        gap = np.where(usual, gap, 0)
        if gap.max() > largest:
            largest, at = float(gap.max()), float(x[gap.argmax()])
    assert largest <= BOUNDS[name]["float32"], f"{largest} ulp at {at!r}"
