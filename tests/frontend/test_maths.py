"""Mathematical functions and activations, against NumPy's float64 and values that PyTorch gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.autograd import gradcheck, gradgradcheck
from kiln.nn import functional as F
from tests.frontend.checking import Array, agrees, compiles, differentiates, layouts

INF, NAN = math.inf, math.nan
RNG = np.random.default_rng(5)
UNARY: dict[str, tuple[Any, float, float]] = {
    "log1p": (np.log1p, -0.9, 5), "log2": (np.log2, 0.1, 9), "log10": (np.log10, 0.1, 9), "exp2": (np.exp2, -9, 9),
    "expm1": (np.expm1, -5, 5), "tan": (np.tan, -1.4, 1.4), "sinh": (np.sinh, -5, 5), "cosh": (np.cosh, -5, 5),
    "asin": (np.arcsin, -0.95, 0.95), "acos": (np.arccos, -0.95, 0.95), "atan": (np.arctan, -9, 9),
    "asinh": (np.arcsinh, -9, 9), "acosh": (np.arccosh, 1.1, 9), "atanh": (np.arctanh, -0.95, 0.95),
    "erfc": (np.vectorize(math.erfc, otypes=[np.float64]), -3, 3), "sinc": (np.sinc, -3, 3),
    "rad2deg": (np.rad2deg, -9, 9), "deg2rad": (np.deg2rad, -900, 900),
    "logit": (lambda x: np.log(x / (1 - x)), 0.05, 0.95),
}  # fmt: skip
BINARY: dict[str, Any] = {
    "atan2": np.arctan2, "hypot": np.hypot, "logaddexp": np.logaddexp, "logaddexp2": np.logaddexp2,
}  # fmt: skip


def uniform(low: float, high: float) -> Any:
    return lambda shape: np.asarray(RNG.uniform(low, high, shape))


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    ref, low, high = UNARY[name]
    f = getattr(kiln, name)
    for x in layouts(uniform(low, high)):
        scale = 1.0 if name in ("sinc", "logit") else 0.0  # these cross zero by cancellation
        agrees(f, ref, x, ulp=6.0, scale=scale)
        single = np.asarray(x, np.float32)
        wide = lambda x, ref=ref: np.asarray(ref(x.astype(np.float64)), np.float32)  # noqa: E731
        agrees(f, wide, single, ulp=6.0, scale=scale)
        agrees(lambda t, name=name: getattr(t, name)(), ref, x, ulp=6.0, scale=scale)
    differentiates(f, RNG.uniform(low, high, (3, 4)))
    assert f(kiln.tensor([1])).dtype is kiln.float32
    half = kiln.tensor([0.3, 0.7], dtype=kiln.bfloat16)
    assert f(half).dtype is kiln.bfloat16
    with pytest.raises(TypeError, match=name):
        f("1")


@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str) -> None:
    ref, f = BINARY[name], getattr(kiln, name)
    for x in layouts(uniform(-3, 3)):
        agrees(f, ref, x, np.asarray(RNG.uniform(-3, 3, x.shape)), ulp=8.0, scale=1.0)
    differentiates(f, RNG.uniform(0.3, 2, (3, 4)), RNG.uniform(-2, -0.3, (3, 4)))
    odd = np.array([0.0, -0.0, 1.0, -2.0, INF, -INF, NAN, 1e300])
    a, b = (g.ravel() for g in np.meshgrid(odd, odd))
    agrees(f, ref, a, b, ulp=8.0)
    with pytest.raises(kiln.ShapeError, match=name):
        f(kiln.ones(2), kiln.ones(3))


def test_gamma_and_inverse_error_functions() -> None:
    """Against the identities that define them, and their derivatives to second order."""
    x = RNG.uniform(-0.95, 0.95, 50)
    np.testing.assert_allclose(kiln.erf(kiln.erfinv(kiln.from_numpy(x))).numpy(), x, rtol=1e-14)
    lgamma = np.vectorize(math.lgamma, otypes=[np.float64])
    for y in layouts(lambda shape: np.asarray(RNG.uniform(-3.4, 20, shape) + 0.05)):
        agrees(kiln.lgamma, lgamma, y, ulp=16.0, scale=4.0)
        compiles(kiln.digamma, y)
    t = kiln.from_numpy(RNG.uniform(0.1, 5, 20))
    np.testing.assert_allclose(kiln.digamma(t + 1.0).numpy(), (kiln.digamma(t) + 1 / t).numpy(), rtol=1e-13, atol=1e-14)
    assert kiln.digamma(kiln.tensor(1.0, dtype=kiln.float64)).item() == pytest.approx(-0.5772156649015329, rel=1e-15)
    differentiates(kiln.erfinv, RNG.uniform(-0.8, 0.8, (3, 4)), second=True)
    for f in (kiln.lgamma, kiln.digamma):
        differentiates(f, np.array([0.3, 1.4, 2.5, 7.0, -0.4, -2.6]), second=True)
        assert f(kiln.tensor([2])).dtype is kiln.float32
        with pytest.raises(TypeError, match=f.__name__):
            f("1")


def test_xlogy() -> None:
    x, y = kiln.tensor([0.0, 0.0, 2.0, 0.0]), kiln.tensor([0.0, NAN, 3.0, INF])
    got = kiln.xlogy(x, y).tolist()
    assert got[0] == got[3] == 0 and math.isnan(got[1]) and got[2] == pytest.approx(2 * math.log(3))
    assert kiln.xlog1py(kiln.tensor([0.0, 2.0]), kiln.tensor([-1.0, 3.0])).tolist()[0] == 0
    differentiates(kiln.xlogy, RNG.uniform(0.5, 2, 5), RNG.uniform(0.5, 2, 5))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


ACTIVATIONS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "silu": ((), lambda x: x * sigmoid(x)),
    "softplus": ((), lambda x: np.log1p(np.exp(x))),
    "mish": ((), lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "logsigmoid": ((), lambda x: np.log(sigmoid(x))),
    "elu": ((1.3,), lambda x: np.where(x > 0, x, 1.3 * np.expm1(x))),
    "celu": ((0.7,), lambda x: np.where(x > 0, x, 0.7 * np.expm1(x / 0.7))),
    "selu": ((), lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
    "leaky_relu": ((0.2,), lambda x: np.where(x > 0, x, 0.2 * x)),
    "hardtanh": ((-1.0, 2.0), lambda x: np.clip(x, -1, 2)),
    "relu6": ((), lambda x: np.clip(x, 0, 6)),
    "hardsigmoid": ((), lambda x: np.clip(x + 3, 0, 6) / 6),
    "hardswish": ((), lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "hardshrink": ((0.4,), lambda x: np.where(abs(x) > 0.4, x, 0)),
    "softshrink": ((0.4,), lambda x: np.sign(x) * np.maximum(abs(x) - 0.4, 0)),
    "tanhshrink": ((), lambda x: x - np.tanh(x)),
    "softsign": ((), lambda x: x / (1 + abs(x))),
    "threshold": ((0.3, -7.0), lambda x: np.where(x > 0.3, x, -7.0)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    args, ref = ACTIVATIONS[name]
    f = getattr(F, name)
    for x in layouts(lambda shape: np.asarray(RNG.normal(size=shape) * 4)):
        agrees(lambda t: f(t, *args), ref, x, ulp=16.0, scale=1.0)
        compiles(lambda t: f(t, *args), np.asarray(x, np.float32))
    differentiates(lambda t: f(t, *args), RNG.normal(size=(4, 5)) * 2 + 0.05)
    half = kiln.tensor([0.25, -1.5], dtype=kiln.float16)
    assert f(half, *args).dtype is kiln.float16
    assert f(half, *args).tolist() == f(half.float(), *args).half().tolist()
    integers = kiln.tensor([-1, 0, 2, 9])
    if name in OF_INTEGERS:
        assert f(integers, *args).dtype is OF_INTEGERS[name]
        assert f(integers, *args).float().tolist() == f(integers.float(), *args).tolist()
        return
    with pytest.raises(kiln.DTypeError, match=name):
        f(integers, *args)


OF_INTEGERS = {
    "hardtanh": kiln.int64, "relu6": kiln.int64, "threshold": kiln.int64,
    "softsign": kiln.float32, "tanhshrink": kiln.float32,
}  # fmt: skip
"""The dtypes that PyTorch's activations give for int64, where they take it."""


def test_activations_in_place() -> None:
    x = kiln.tensor([-1.0, 2.0])
    assert F.leaky_relu(x, 0.5, inplace=True) is x and x.tolist() == [-0.5, 2.0]
    assert F.leaky_relu(x, 0.5, True) is x and x.tolist() == [-0.25, 2.0]
    with pytest.raises(TypeError):
        F.tanhshrink(x, inplace=True)


def test_extremes() -> None:
    x = kiln.tensor([-INF, -1000.0, 1000.0, INF], requires_grad=True)
    assert F.softplus(x).tolist() == [0, 0, 1000, INF]
    assert F.logsigmoid(x).tolist() == [-INF, -1000, 0, 0]
    assert F.elu(x).tolist() == [-1, -1, 1000, INF]
    assert F.softsign(x).tolist()[::3] == [-1, 1]
    (g,) = kiln.grad(F.softplus(x).sum(), x)
    assert g.tolist() == [0, 0, 1, 1]


def test_glu_prelu_softmin() -> None:
    x = RNG.normal(size=(3, 4, 6))
    agrees(lambda t: F.glu(t), lambda x: x[..., :3] * sigmoid(x[..., 3:]), x, ulp=8.0)
    agrees(lambda t: F.glu(t, 1), lambda x: x[:, :2] * sigmoid(x[:, 2:]), x, ulp=8.0)
    w = kiln.tensor([0.1, 0.2, 0.3, 0.4], dtype=kiln.float64)
    agrees(lambda t: F.prelu(t, w), lambda x: np.where(x > 0, x, x * w.numpy()[:, None]), x, ulp=1.0)
    differentiates(lambda t, v: F.prelu(t, v), x + 0.01, w.numpy())
    np.testing.assert_allclose(F.softmin(kiln.tensor([1.0, 2.0]), 0).sum().item(), 1, rtol=1e-6)
    with pytest.raises(kiln.ShapeError, match="glu"):
        F.glu(kiln.ones(3))
    with pytest.raises(kiln.ShapeError, match="prelu"):
        F.prelu(kiln.ones(2, 3), kiln.ones(2))


@pytest.mark.parametrize("name", ["hypot", "logaddexp", "logaddexp2"])
def test_second_derivatives_where_operands_are_equal(name: str) -> None:
    """What is the larger one changes there; the function is smooth all the same."""
    x, y = ([1.0, -2.0, 0.5], [1.0, -2.0, 0.25])
    a, b = (kiln.tensor(v, dtype=kiln.float64, requires_grad=True) for v in (x, y))
    assert gradcheck(getattr(kiln, name), (a, b))
    assert gradgradcheck(getattr(kiln, name), (a, b))
    assert gradgradcheck(kiln.compile(getattr(kiln, name)), (b, a))


def test_nans_and_infinities_of_logaddexp() -> None:
    inf, nan = math.inf, math.nan
    pairs = [(inf, nan), (nan, inf), (nan, 1.0), (1.0, nan), (inf, -inf), (-inf, -inf), (inf, inf), (-inf, 2.0)]
    a, b = (kiln.tensor(list(v), requires_grad=True) for v in zip(*pairs, strict=True))
    found = kiln.logaddexp(a, b)
    np.testing.assert_array_equal(found.detach().numpy(), [nan, nan, nan, nan, inf, -inf, inf, 2.0])
    for g in kiln.grad(found[4:].sum(), (a, b)):
        assert np.isfinite(g.numpy()[4:]).all()
