"""Special functions, gcd and lcm, Poisson numbers: against values in 30 digits, NumPy and the moments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import special
from tests.frontend.checking import agrees, compiles, differentiates, layouts

INF, NAN = math.inf, math.nan
RNG = np.random.default_rng(8)
X = [-30.0, -8.5, -3.0, -0.3, 0.0, 0.7, 2.0, 8.0, 9.5, 30.0]
I0 = [
    781672297823.9775, 683.1619269901156, 4.8807925858650245, 1.022626879351597, 1.0, 1.1263030183068092,
    2.2795853023360673, 427.5641157218048, 1753.4809905273228, 781672297823.9775,
]  # fmt: skip
I1 = [
    -768532038938.957, -641.6199025400667, -3.9533702174026093, -0.15169384000359276, 0.0, 0.37187967777700864,
    1.590636854637329, 399.8731367825601, 1658.4530777821342, 768532038938.957,
]  # fmt: skip
LOG_NDTR = [
    -454.3212439563432, -39.19739642821767, -6.607726221510349, -0.9621028181688507, -0.6931471805599453,
    -0.2770239422771313, -0.02301290932896349, -6.220960574271786e-16, -1.0494515075362604e-21, -4.906713927148187e-198,
]  # fmt: skip
ERFCX = {
    -5.0: 144009798674.66104, -0.3: 1.4537492328427655, 0.0: 1.0, 0.7: 0.525930337349441, 2.0: 0.25539567631050575,
    7.9: 0.07085747736739713, 8.0: 0.06998516620088092, 9.5: 0.05906467835256389, 30.0: 0.01879588886141675,
    1e5: 5.6418958351954685e-06,
}  # fmt: skip


def values(f: Any, x: list[float], dtype: Any = kiln.float64) -> Any:
    return f(kiln.tensor(x, dtype=dtype)).numpy()


def test_bessel_functions() -> None:
    x = np.array(X)
    for f, scaled, wanted in ((special.i0, special.i0e, I0), (special.i1, special.i1e, I1)):
        np.testing.assert_allclose(values(f, X), wanted, rtol=2e-15 * 8)
        np.testing.assert_allclose(values(scaled, X), np.array(wanted) * np.exp(-abs(x)), rtol=2e-15 * 8)
        np.testing.assert_allclose(values(f, X, kiln.float32), wanted, rtol=2e-6)
        assert math.isnan(values(scaled, [NAN])[0]) and values(scaled, [INF])[0] == 0
        differentiates(f, np.array([-7.5, -0.4, 0.0, 0.3, 2.0, 9.0]), tolerance=1e-5)
    for y in layouts(lambda shape: np.asarray(RNG.uniform(-12, 12, shape))):
        agrees(special.i0e, lambda v: np.i0(v) * np.exp(-abs(v)), y, ulp=16.0)
        compiles(special.i1, y)
    assert kiln.i0(kiln.tensor([0])).dtype is kiln.float32


def test_normal_distribution() -> None:
    np.testing.assert_allclose(values(special.log_ndtr, X), LOG_NDTR, rtol=1e-13)
    np.testing.assert_allclose(values(special.ndtr, X), np.exp(LOG_NDTR), rtol=1e-12)
    np.testing.assert_allclose(values(special.erfcx, [*ERFCX]), [*ERFCX.values()], rtol=2e-15)
    np.testing.assert_allclose(values(special.erfcx, [*ERFCX], kiln.float32), [*ERFCX.values()], rtol=1e-6)
    assert values(special.erfcx, [-INF, INF]).tolist() == [INF, 0]
    assert values(special.log_ndtr, [-INF, INF]).tolist() == [-INF, 0]
    assert values(special.entr, [-1.0, 0.0, 1.0, INF]).tolist() == [-INF, 0, 0, -INF]
    for f in (special.erfcx, special.log_ndtr, special.ndtr, special.entr):
        assert math.isnan(values(f, [NAN])[0])
        for y in layouts(lambda shape: np.asarray(RNG.uniform(0.1, 12, shape))):
            compiles(f, y)
        differentiates(f, np.array([0.2, 0.7, 1.3, 2.0]), second=True)
        half = kiln.tensor([0.5, 2.0], dtype=kiln.bfloat16)
        assert f(half).dtype is kiln.bfloat16
    differentiates(special.log_ndtr, np.array([-9.0, -2.0, -0.5]), second=True)
    differentiates(special.erfcx, np.array([-2.0, 7.0, 8.5]), second=True)
    with pytest.raises(kiln.ArgumentError, match="erfcx"):
        special.erfcx(1.0)


def test_gamma() -> None:
    x = [0.5, 3.25, -1.5]
    np.testing.assert_allclose(
        [values(lambda t, n=n: special.polygamma(n, t), x) for n in (0, 1, 3)],
        [
            [-1.9635100260214235, 1.016990911068179, 0.7031566406452432],
            [4.934802200544679, 0.3597982903095799, 9.379246644989124],
            [97.40909103400244, 0.09043335532465574, 194.59427621918763],
        ],
        rtol=1e-13,
    )
    assert kiln.tensor([2.0]).polygamma(1).item() == kiln.polygamma(1, kiln.tensor([2.0])).item()
    differentiates(lambda t: kiln.polygamma(2, t), np.array([0.4, 1.3, 5.0]), second=True)
    with pytest.raises(kiln.InvalidValueError, match="polygamma"):
        kiln.polygamma(-1, kiln.ones(2))
    got = kiln.mvlgamma(kiln.tensor([3.5], dtype=kiln.float64), 3).item()
    assert got == pytest.approx(1.5 * math.log(math.pi) + sum(math.lgamma(3.5 - j / 2) for j in range(3)), rel=1e-14)
    with pytest.raises(kiln.InvalidValueError, match="multigammaln"):
        special.multigammaln(kiln.ones(2), 0)


@pytest.mark.parametrize("name", special.__all__)
def test_names_resolve(name: str) -> None:
    assert callable(getattr(special, name))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8])
def test_gcd_and_lcm(dtype: Any) -> None:
    low = 0 if dtype is np.uint8 else -11
    for x in layouts(lambda shape: np.asarray(RNG.integers(low, 12, shape), dtype)):
        y = np.asarray(RNG.integers(low, 12, x.shape), dtype)
        agrees(kiln.gcd, np.gcd, x, y)
        agrees(lambda a, b: a.lcm(b), np.lcm, x, y)


def test_gcd_of_neighbours_of_fibonacci() -> None:
    fibonacci = [1, 1]
    while fibonacci[-1] + fibonacci[-2] < 2**63:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    a, b = (kiln.tensor(x) for x in (fibonacci[1:], fibonacci[:-1]))
    assert kiln.gcd(a, b).tolist() == [1] * len(a)
    assert kiln.gcd(a * 0 + 3 * 2**60, 2**61).tolist() == [2**60] * len(a)
    with pytest.raises(kiln.DTypeError, match="gcd"):
        kiln.gcd(kiln.ones(2), 3)
    with pytest.raises(kiln.DTypeError, match="lcm"):
        kiln.lcm(kiln.tensor([True]), True)


@pytest.mark.parametrize("rate", [0.3, 4.0, 9.9, 10.0, 35.0, 2000.0])
def test_poisson(rate: float) -> None:
    n = 40000
    x = kiln.poisson(kiln.full((n,), rate), kiln.Generator(3))
    assert x.dtype is kiln.float32 and bool((x == x.floor()).all()) and bool((x >= 0).all())
    drawn = x.double()
    assert abs(drawn.mean().item() - rate) < 5 * math.sqrt(rate / n)
    assert abs(drawn.var().item() / rate - 1) < 5 * math.sqrt((2 + 1 / rate) / n)
    if rate < 100:
        k = int(rate)
        p = math.exp(-rate + k * math.log(rate) - math.lgamma(k + 1))
        assert abs((drawn == k).double().mean().item() - p) < 5 * math.sqrt(p / n)


def test_poisson_edges() -> None:
    assert kiln.poisson(kiln.zeros(3, 2)).tolist() == [[0, 0]] * 3
    assert kiln.poisson(kiln.zeros(0)).shape == (0,)
    assert kiln.poisson(kiln.tensor([3.0, 40.0], dtype=kiln.float16)).dtype is kiln.float16
    rates = kiln.tensor([0.5, 3.0, 12.0, 400.0])

    def draws(f: Any) -> list[list[float]]:
        kiln.manual_seed(5)
        return [f(rates).tolist() for _ in range(3)]

    assert draws(kiln.compile(kiln.poisson)) == draws(kiln.poisson)
    with pytest.raises(kiln.InvalidValueError, match="poisson"):
        kiln.poisson(kiln.tensor([-1.0]))
    with pytest.raises(kiln.DTypeError, match="poisson"):
        kiln.poisson(kiln.tensor([1]))


def test_where_of_a_condition_alone() -> None:
    x = np.array([[0, 3, 0], [1, 0, 2]])
    for got, wanted in zip(kiln.where(kiln.from_numpy(x)), np.nonzero(x), strict=True):
        assert got.tolist() == wanted.tolist()
    t = kiln.from_numpy(x)
    assert t.where(t > 1, -1).tolist() == [[-1, 3, -1], [-1, -1, 2]]
    with pytest.raises(kiln.ArgumentError, match="where"):
        kiln.where(t > 1, t)


def test_einsum_with_lists() -> None:
    a, b = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5))
    f = lambda x, y: kiln.einsum(x, [0, 1], y, [1, 2], [2, 0])  # noqa: E731
    agrees(f, lambda x, y: (x @ y).T, a, b, ulp=8.0, scale=4.0)
    x, y = kiln.from_numpy(a), kiln.from_numpy(b)
    assert kiln.einsum(x, [0, 51], y, [51, 2]).tolist() == kiln.einsum("aZ,Zc", x, y).tolist()
    assert kiln.einsum(x, [..., 1], [...]).tolist() == x.sum(1).tolist()
    with pytest.raises(kiln.InvalidValueError, match="einsum"):
        kiln.einsum(x, [0, 52])
    with pytest.raises(kiln.ArgumentError, match="einsum"):
        kiln.einsum(x, y)


def test_positions_as_int32() -> None:
    row = kiln.tensor([1.0, 2.0, 3.0])
    for found in (
        kiln.searchsorted(row, kiln.tensor([2.0, 0.5]), out_int32=True),
        kiln.bucketize(kiln.tensor([2.0, 0.5]), row, out_int32=True),
    ):
        assert found.dtype is kiln.int32 and found.tolist() == [1, 0]


def test_integer_means() -> None:
    """Means are rounded down, as PyTorch does."""
    x, index = kiln.tensor([3, -3, 1, 7]), kiln.tensor([0, 1, 0, 2, 2, 2])
    source = kiln.tensor([1, -2, -4, 5, -6, -4])
    assert x.scatter_reduce(0, index, source, "mean").tolist() == [0, -3, -1, 7]
    assert x.scatter_reduce(0, index, source, "mean", include_self=False).tolist() == [-2, -2, -2, 7]
    assert x.index_reduce(0, index, source, "mean").tolist() == [0, -3, -1, 7]
