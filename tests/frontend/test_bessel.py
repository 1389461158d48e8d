"""Bessel and Airy functions, zeta, incomplete gamma functions, quantiles and orthogonal polynomials: against mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import kiln
from kiln import special
from tests.frontend.checking import compiles, differentiates, layouts

Array = np.ndarray[Any, Any]
INF, NAN = math.inf, math.nan
RNG = np.random.default_rng(5)
BESSEL: dict[str, tuple[Callable[[Any], Any], float]] = {
    "airy_ai": (mpmath.airyai, -25.0),
    "bessel_j0": (lambda x: mpmath.besselj(0, x), -40.0),
    "bessel_j1": (lambda x: mpmath.besselj(1, x), -40.0),
    "bessel_y0": (lambda x: mpmath.bessely(0, x), 0.0),
    "bessel_y1": (lambda x: mpmath.bessely(1, x), 0.0),
    "modified_bessel_i0": (lambda x: mpmath.besseli(0, x), -40.0),
    "modified_bessel_i1": (lambda x: mpmath.besseli(1, x), -40.0),
    "modified_bessel_k0": (lambda x: mpmath.besselk(0, x), 0.0),
    "modified_bessel_k1": (lambda x: mpmath.besselk(1, x), 0.0),
    "scaled_modified_bessel_k0": (lambda x: mpmath.besselk(0, x) * mpmath.exp(x), 0.0),
    "scaled_modified_bessel_k1": (lambda x: mpmath.besselk(1, x) * mpmath.exp(x), 0.0),
    "spherical_bessel_j0": (lambda x: mpmath.sin(x) / x if x else mpmath.mpf(1), -40.0),
}
"""What each is, and from where on it is defined, or looked at."""
EDGES: dict[str, list[float]] = {  # at -inf, -1, 0, inf
    "airy_ai": [NAN, 0.5355608832923521, 0.3550280538878172, NAN],
    "bessel_j0": [NAN, 0.7651976865579666, 1, NAN],
    "bessel_j1": [NAN, -0.4400505857449335, 0, NAN],
    "bessel_y0": [NAN, NAN, -INF, NAN],
    "bessel_y1": [NAN, NAN, -INF, NAN],
    "modified_bessel_i0": [NAN, 1.2660658777520082, 1, NAN],
    "modified_bessel_i1": [NAN, -0.565159103992485, 0, NAN],
    "modified_bessel_k0": [NAN, NAN, INF, 0],
    "modified_bessel_k1": [NAN, NAN, INF, 0],
    "scaled_modified_bessel_k0": [NAN, NAN, INF, 0],
    "scaled_modified_bessel_k1": [NAN, NAN, INF, 0],
    "spherical_bessel_j0": [0, 0.8414709848078965, 1, 0],
}


def exact(f: Callable[..., Any], *arrays: Array, digits: int = 30) -> Array:
    """mpmath's values of float64 numbers, rounded."""
    with mpmath.workdps(digits):
        return np.array([float(f(*map(mpmath.mpf, map(float, xs)))) for xs in zip(*arrays, strict=True)])


@pytest.mark.parametrize("name", BESSEL)
def test_bessel_and_airy_functions(name: str) -> None:
    f, (ref, low) = getattr(special, name), BESSEL[name]
    x = np.concatenate([RNG.uniform(low, 40, 60), RNG.uniform(max(low, -9), 9, 60), 10.0 ** RNG.uniform(-12, 0, 20)])
    size = 0.0 if low == 0 and "bessel_y" not in name else 0.1  # what oscillates loses digits where it is small
    got, wanted = f(kiln.from_numpy(x)).numpy(), exact(ref, x)
    assert (abs(got - wanted) <= 2e-13 * abs(wanted) + 4e-14 * size).all(), (x, got - wanted)
    single = x.astype(np.float32)
    got, wanted = f(kiln.from_numpy(single)).numpy(), exact(ref, single)
    assert got.dtype == np.float32
    assert (abs(got - wanted) <= 1e-7 * abs(wanted) + 1e-8 * size + 1e-45).all()
    edges = f(kiln.tensor([-INF, -1.0, 0.0, INF], dtype=kiln.float64)).numpy()
    np.testing.assert_allclose(edges, EDGES[name], rtol=2e-15)
    assert math.isnan(f(kiln.tensor([NAN])).item())
    for y in layouts(lambda shape: np.asarray(RNG.uniform(low, 12, shape))):
        assert f(kiln.from_numpy(y)).shape == y.shape
        compiles(f, y)
    assert f(kiln.tensor([1])).dtype is kiln.float32
    assert not f(kiln.ones(3, requires_grad=True)).requires_grad
    with pytest.raises(kiln.ArgumentError, match=name):
        f(1.0)
    with pytest.raises(kiln.DTypeError, match=name):
        f(kiln.ones(2).cfloat())


def test_ndtri() -> None:
    p = np.concatenate([RNG.uniform(0, 1, 80), 10.0 ** -RNG.uniform(0, 300, 60), 1 - 10.0 ** -RNG.uniform(1, 15, 30)])
    wanted = exact(lambda p: -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * p), p, digits=330)
    np.testing.assert_allclose(special.ndtri(kiln.from_numpy(p)).numpy(), wanted, rtol=1e-15)
    single = p[p > 1e-38].astype(np.float32)
    single = single[(single > 0) & (single < 1)]
    wanted = exact(lambda p: -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * p), single, digits=60)
    np.testing.assert_allclose(special.ndtri(kiln.from_numpy(single)).numpy(), wanted, rtol=1e-7)
    edges = kiln.tensor([-0.1, 0.0, 0.5, 1.0, 1.1, NAN])
    np.testing.assert_array_equal(special.ndtri(edges).numpy(), [NAN, -INF, 0, INF, NAN, NAN])
    differentiates(special.ndtri, np.array([0.01, 0.1353, 0.2, 0.5, 0.7, 0.9, 0.99]), second=True)
    x = kiln.tensor([1e-8, 0.3, 0.999], dtype=kiln.float64, requires_grad=True)
    special.ndtri(x).sum().backward()
    y = special.ndtri(x.detach())
    np.testing.assert_allclose(x.grad.numpy(), (math.sqrt(2 * math.pi) * (y * y / 2).exp()).numpy(), rtol=1e-12)
    for z in layouts(lambda shape: np.asarray(RNG.uniform(0, 1, shape))):
        compiles(special.ndtri, z)


# ------------------------------------------------------------------------------------- two arguments


def test_incomplete_gamma() -> None:
    a = np.exp(RNG.uniform(math.log(1e-3), math.log(900), 150))
    x = a * np.exp(RNG.normal(size=150) * RNG.choice([0.05, 0.3, 1.5], 150))
    small = 10.0 ** -RNG.uniform(1, 12, 30)
    a, x = np.concatenate([a, small]), np.concatenate([x, RNG.uniform(0.01, 3, 30)])
    for f, ref in (
        (special.gammainc, lambda a, x: mpmath.gammainc(a, 0, x, regularized=True)),
        (special.gammaincc, lambda a, x: mpmath.gammainc(a, x, mpmath.inf, regularized=True)),
    ):
        wanted = exact(ref, a, x, digits=60)
        got = f(kiln.from_numpy(a), kiln.from_numpy(x)).numpy()
        np.testing.assert_allclose(got, wanted, rtol=5e-13, atol=1e-300)
        one, two = a.astype(np.float32), x.astype(np.float32)
        got = f(kiln.from_numpy(one), kiln.from_numpy(two)).numpy()
        np.testing.assert_allclose(got, exact(ref, one, two, digits=60), rtol=1e-7, atol=1e-40)
    near = kiln.tensor([1e5, 1e8, 1e12, 1e15], dtype=kiln.float64)
    np.testing.assert_allclose(special.gammainc(near, near).numpy(), 0.5 + 1 / (3 * np.sqrt(2 * np.pi * near.numpy())))


def test_incomplete_gamma_at_the_edges() -> None:
    numbers = [-1.0, 0.0, 3.0, INF, NAN]
    a, x = (kiln.tensor(t) for t in np.meshgrid(numbers, numbers, indexing="ij"))
    p3 = 0.5768099188731566
    lower = [[NAN] * 5, [NAN, NAN, 1, 1, NAN], [NAN, 0, p3, 1, NAN], [NAN, 0, 0, NAN, 0], [NAN, 0, NAN, 1, NAN]]
    np.testing.assert_allclose(kiln.igamma(a, x).numpy(), lower, rtol=1e-14)
    np.testing.assert_allclose(kiln.igammac(a, x).numpy(), 1 - np.array(lower), rtol=1e-14)
    y = kiln.tensor([1.0, 2.0])
    assert y.igamma(y).tolist() == kiln.igamma(y, y).tolist()
    assert y.clone().igammac_(y).tolist() == special.gammaincc(y, y).tolist()
    assert y.clone().igamma_(y).tolist() == special.gammainc(y, y).tolist()
    assert kiln.igamma(y.half(), y.half()).dtype is kiln.float16
    for f in (kiln.igamma, kiln.igammac):
        with pytest.raises(kiln.ArgumentError, match="gammainc"):
            f(1.0, y)
        with pytest.raises(kiln.DTypeError, match="gammainc"):
            f(y.long(), y.long())


@pytest.mark.parametrize("name", ["gammainc", "gammaincc", "zeta"])
def test_gradients_by_the_second_argument(name: str) -> None:
    f = getattr(special, name)
    a = kiln.tensor([1.5, 4.0, 30.0, 2.5], dtype=kiln.float64)
    x = np.array([0.4, 5.0, 28.0, 1.7])
    differentiates(lambda t: f(a, t), x, second=True)
    differentiates(lambda t: f(2.0 * kiln.ones(4, dtype=kiln.float64), t), x, second=True)
    for y in layouts(lambda shape: np.asarray(RNG.uniform(0.1, 12, shape))):
        compiles(f, np.asarray(y + 1), y)
    b = kiln.ones(4, dtype=kiln.float64).requires_grad_()
    with pytest.raises(kiln.GradError, match=name):
        f(b + 1, kiln.from_numpy(x)).sum().backward()
    compiled = kiln.compile(lambda b, x: f(b + 1, x).sum())
    with pytest.warns(kiln.errors.CaptureWarning, match=name), pytest.raises(kiln.GradError, match=name):
        compiled(b, kiln.from_numpy(x)).backward()


def test_zeta() -> None:
    s = np.concatenate([1 + 10.0 ** RNG.uniform(-4, 1.5, 60), RNG.integers(2, 9, 30)])
    q = np.concatenate([10.0 ** RNG.uniform(-3, 3, 60), -RNG.uniform(0.1, 8, 30)])

    def ref(s: Any, q: Any) -> Any:
        terms = mpmath.fsum((q + k) ** (-s) for k in range(30))
        return terms + mpmath.zeta(s, q + 30)

    got = special.zeta(kiln.from_numpy(s), kiln.from_numpy(q)).numpy()
    np.testing.assert_allclose(got, exact(ref, s, q, digits=120), rtol=2e-13)
    numbers = [NAN, 0.5, 1.0, 1.5, 2.0, INF]
    a, b = (kiln.tensor(t, dtype=kiln.float64) for t in np.meshgrid(numbers, [-INF, -2, -1.5, 0, 1, 2, INF, NAN]))
    basel = math.pi**2 / 6
    np.testing.assert_allclose(
        special.zeta(a, b).numpy(),
        [
            [INF, NAN, INF, INF, INF, INF],
            [INF, NAN, INF, INF, INF, INF],
            [NAN, NAN, INF, NAN, 9.379246644989124, INF],
            [INF, NAN, INF, INF, INF, INF],
            [NAN, NAN, INF, 2.612375348685488, basel, 1],
            [NAN, NAN, INF, 1.6123753486854886, basel - 1, NAN],
            [NAN, NAN, INF, NAN, NAN, NAN],
            [NAN, NAN, INF, NAN, NAN, NAN],
        ],
        rtol=1e-14,
    )
    assert special.zeta(kiln.tensor([2, 3]), 1).dtype is kiln.float32
    assert special.zeta(2.0, kiln.tensor([1.0])).item() == pytest.approx(basel, rel=1e-7)


# ------------------------------------------------------------------------------- orthogonal polynomials


def chebyshev(first: Any) -> Callable[[int, Any], Any]:
    def of(n: int, x: Any) -> Any:
        p, q = mpmath.mpf(1), first(x)
        for _ in range(n):
            p, q = q, 2 * x * q - p
        return p

    return of


def laguerre(n: int, x: Any) -> Any:
    terms = [mpmath.binomial(n, k) * (-x) ** k / mpmath.factorial(k) for k in range(n + 1)]
    return mpmath.fsum(terms)


POLYNOMIALS: dict[str, Callable[[int, Any], Any]] = {
    "chebyshev_polynomial_t": chebyshev(lambda x: x),
    "chebyshev_polynomial_u": chebyshev(lambda x: 2 * x),
    "chebyshev_polynomial_v": chebyshev(lambda x: 2 * x - 1),
    "chebyshev_polynomial_w": chebyshev(lambda x: 2 * x + 1),
    "hermite_polynomial_h": mpmath.hermite,
    "hermite_polynomial_he": lambda n, x: mpmath.mpf(2) ** (-mpmath.mpf(n) / 2) * mpmath.hermite(n, x / mpmath.sqrt(2)),
    "laguerre_polynomial_l": laguerre,
    "legendre_polynomial_p": mpmath.legendre,
}
POLYNOMIALS |= {f"shifted_{k}": (lambda n, x, f=f: f(n, 2 * x - 1)) for k, f in POLYNOMIALS.items() if "cheb" in k}  # type: ignore[misc]


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials(name: str) -> None:
    f, ref = getattr(special, name), POLYNOMIALS[name]
    x = np.concatenate([np.linspace(-2.25, 2.25, 19), RNG.uniform(-1, 1, 20)])
    for n in (0, 1, 2, 3, 6, 7, 12, 31):
        with mpmath.workdps(50):
            wanted = np.array([float(ref(n, mpmath.mpf(float(v)))) for v in x])
        got = f(kiln.from_numpy(x), n).numpy()
        scale = np.maximum(abs(wanted), np.median(abs(wanted)))
        assert (abs(got - wanted) <= 2e-13 * scale + 1e-13).all(), (n, x, got - wanted)
        degrees = kiln.full((len(x),), n, dtype=kiln.float64)
        assert f(kiln.from_numpy(x), degrees).numpy().tolist() == got.tolist()
    n = np.array([-2.0, -0.5, 2.7, 7.0, 0.0, NAN])
    got = f(kiln.full((6,), 0.3, dtype=kiln.float64), kiln.from_numpy(n))
    alone = [f(kiln.tensor([0.3], dtype=kiln.float64), k).item() for k in (-2, 0, 2, 7, 0, -1)]
    assert got.tolist() == alone and alone[0] == 0 and alone[1] == 1
    for y in layouts(lambda shape: np.asarray(RNG.uniform(-2, 2, shape))):
        compiles(lambda t: f(t, 9), y)
    assert f(kiln.tensor([1, 2]), 3).dtype is kiln.float32
    assert f(0.5, kiln.tensor([1.0, 3.0])).shape == (2,)
    assert not f(kiln.ones(3, requires_grad=True), 2).requires_grad
    with pytest.raises(kiln.ArgumentError, match=name):
        f(0.5, 3)


def test_degrees_as_tensors_in_captures() -> None:
    x, n = kiln.linspace(-2, 2, 9), kiln.arange(9).float()
    f = kiln.compile(special.chebyshev_polynomial_u)
    assert f(x, n).tolist() == special.chebyshev_polynomial_u(x, n).tolist()
    with pytest.raises(kiln.CaptureError):
        kiln.jit.trace(special.legendre_polynomial_p, (x, n))
    f = kiln.compile(special.legendre_polynomial_p, fullgraph=True)
    for degrees in (n, n, n + 2, n.flip(0), n):
        assert f(x, degrees).tolist() == special.legendre_polynomial_p(x, degrees).tolist()
    assert math.isnan(special.hermite_polynomial_h(x[:1], 129).item())
    assert math.isnan(special.hermite_polynomial_he(x[:1].double(), 513).item())
    assert special.hermite_polynomial_he(x[4:5].double(), 101).item() == 0
