"""Rounding, remainders, predicates, bits, choices and in-place forms, against NumPy and values that PyTorch gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.checking import Array, agrees, compiles, differentiates, layouts

INF, NAN = math.inf, math.nan
RNG = np.random.default_rng(11)


def floats(dtype: str, scale: float = 3.0) -> Callable[[tuple[int, ...]], Array]:
    return lambda shape: np.asarray(RNG.normal(size=shape) * scale, dtype)


def integers(shape: tuple[int, ...]) -> Array:
    return np.asarray(RNG.integers(-20, 20, shape))


def awkward(dtype: str) -> Array:
    return np.array([0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e10, -1e30, INF, -INF, NAN], dtype)


class TestRounding:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(
        ("name", "ref"),
        [("floor", np.floor), ("ceil", np.ceil), ("trunc", np.trunc), ("fix", np.trunc), ("round", np.rint)],
    )
    def test_floats(self, name: str, ref: Any, dtype: str) -> None:
        f = getattr(kiln, name)
        for x in (*layouts(floats(dtype)), awkward(dtype)):
            agrees(f, ref, x)
            agrees(lambda t: getattr(t, name)(), ref, x)

    def test_integers_stay_and_bools_are_refused(self) -> None:
        for name in ("floor", "ceil", "trunc", "round"):
            x = kiln.tensor([1, -2])
            result = getattr(kiln, name)(x)
            assert result.tolist() == [1, -2] and result.data_ptr() != x.data_ptr()
            with pytest.raises(kiln.DTypeError, match=name):
                getattr(kiln, name)(kiln.tensor([True]))

    def test_decimals(self) -> None:
        x = kiln.tensor([1.2345, -6.789, 1250.0], dtype=kiln.float64)
        np.testing.assert_allclose(kiln.round(x, decimals=2).numpy(), [1.23, -6.79, 1250], rtol=1e-15)
        np.testing.assert_allclose(kiln.round(x, decimals=-2).numpy(), [0, 0, 1200], rtol=1e-15)
        with pytest.raises(kiln.DTypeError, match="decimals"):
            kiln.round(kiln.tensor([1]), decimals=1)

    def test_frac(self) -> None:
        for x in layouts(floats("float64")):
            agrees(kiln.frac, lambda x: x - np.trunc(x), x)
        with pytest.raises(kiln.DTypeError):
            kiln.frac(kiln.tensor([1]))

    def test_gradients(self) -> None:
        x = np.array([0.3, -1.7, 2.2])
        differentiates(kiln.frac, x)
        for f in (kiln.floor, kiln.ceil, kiln.trunc, kiln.round):
            differentiates(f, x)


class TestDivision:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_floats_against_numpy(self, dtype: str) -> None:
        for a in layouts(floats(dtype, 30)):
            b = np.asarray(RNG.uniform(0.3, 4, a.shape) * RNG.choice([-1, 1], a.shape), dtype)
            agrees(kiln.remainder, np.mod, a, b)
            agrees(kiln.fmod, np.fmod, a, b)
            agrees(kiln.floor_divide, np.floor_divide, a, b)
            agrees(lambda x, y: kiln.div(x, y, rounding_mode="trunc"), lambda x, y: np.trunc(x / y), a, b)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_remainders_are_exact_at_any_ratio(self, dtype: str) -> None:
        top = 126 if dtype == "float32" else 1000
        a, b = (np.asarray(RNG.normal(size=300) * np.exp2(RNG.uniform(-top, top, 300)), dtype) for _ in range(2))
        agrees(kiln.fmod, np.fmod, a, b)

    def test_integers(self) -> None:
        a, b = np.meshgrid(np.arange(-9, 10), np.array([-4, -3, -1, 1, 2, 5]))
        agrees(kiln.floor_divide, np.floor_divide, a, b)
        agrees(kiln.remainder, np.mod, a, b)
        agrees(kiln.fmod, np.fmod, a, b)
        agrees(lambda x, y: kiln.div(x, y, rounding_mode="floor"), np.floor_divide, a, b)
        agrees(lambda x, y: kiln.div(x, y, rounding_mode="trunc"), lambda x, y: np.trunc(x / y).astype(np.int64), a, b)

    def test_special_quotients(self) -> None:
        x = kiln.tensor([1.0, -1.0, 0.0, INF, 5.0, -5.0])
        y = kiln.tensor([0.0, 0.0, 0.0, 2.0, INF, INF])
        assert str(kiln.floor_divide(x, y).tolist()) == "[inf, -inf, nan, nan, 0.0, -1.0]"
        assert str(kiln.remainder(x, y).tolist()) == "[nan, nan, nan, nan, 5.0, inf]"
        assert str(kiln.fmod(x, y).tolist()) == "[nan, nan, nan, nan, 5.0, -5.0]"

    def test_division_of_integers_by_zero(self) -> None:
        x, zero = kiln.tensor([7, 8]), kiln.tensor([1, 0])
        for f in (kiln.floor_divide, kiln.remainder, kiln.fmod):
            for run in (f, kiln.compile(f)):
                for error in (RuntimeError, ZeroDivisionError):
                    with pytest.raises(error, match="divided by zero"):
                        run(x, zero)
        with pytest.raises(kiln.errors.DivisionByZeroError, match="trunc_divide"):
            kiln.div(x, 0, rounding_mode="trunc")

    def test_least_integer_by_minus_one_wraps(self) -> None:
        least = kiln.tensor([-(2**63)])
        assert (least // -1).item() == -(2**63)
        assert (least % -1).item() == 0

    def test_promotion_and_errors(self) -> None:
        assert (kiln.tensor([7, -7]) // 2.0).tolist() == [3.0, -4.0]
        assert (7 % kiln.tensor([4, -4])).tolist() == [3, -1]
        assert divmod(7, 2) == (3, 1)
        for bad in (kiln.floor_divide, kiln.remainder, kiln.fmod):
            with pytest.raises(kiln.DTypeError, match="bools"):
                bad(kiln.tensor([True]), kiln.tensor([True]))
        with pytest.raises(kiln.InvalidValueError, match="rounding_mode"):
            kiln.div(kiln.tensor([1.0]), 2, rounding_mode="up")

    def test_gradients(self) -> None:
        a, b = np.array([5.3, -4.1, 2.2]), np.array([1.3, 1.7, -0.9])
        differentiates(kiln.remainder, a, b)
        differentiates(kiln.fmod, a, b)
        differentiates(kiln.floor_divide, a, b)


class TestSignsAndPredicates:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("name", ["isnan", "isinf", "isfinite", "isposinf", "isneginf", "signbit", "isreal"])
    def test_predicates(self, name: str, dtype: str) -> None:
        for x in (*layouts(floats(dtype)), awkward(dtype)):
            agrees(getattr(kiln, name), getattr(np, name), x)

    def test_predicates_of_integers_and_bools(self) -> None:
        for x in (np.array([1, -2, 0]), np.array([True, False])):
            for name in ("isnan", "isinf", "isfinite", "isreal"):
                agrees(getattr(kiln, name), getattr(np, name), x)
            agrees(kiln.isposinf, lambda x: np.zeros(x.shape, bool), x)
            agrees(kiln.signbit, lambda x: x < 0 if x.dtype != bool else np.zeros(x.shape, bool), x)

    def test_signs(self) -> None:
        x = awkward("float64")
        agrees(kiln.sign, lambda x: np.where(np.isnan(x) | (x == 0), 0.0, np.sign(x)), x)
        agrees(kiln.copysign, np.copysign, x, x[::-1].copy())
        agrees(kiln.nextafter, np.nextafter, *map(np.array, np.meshgrid(x, x)))
        assert kiln.sign(kiln.tensor([True, False])).tolist() == [True, False]
        assert kiln.copysign(kiln.tensor([1, 2]), -1).tolist() == [-1.0, -2.0]
        assert kiln.positive(kiln.tensor([1])).tolist() == [1]
        with pytest.raises(kiln.DTypeError):
            kiln.positive(kiln.tensor([True]))
        differentiates(kiln.copysign, np.array([1.0, -2.0]), np.array([-1.0, -2.0]))

    def test_closeness(self) -> None:
        a = kiln.tensor([1.0, INF, NAN, -INF, 1e-9])
        b = kiln.tensor([1.0 + 1e-6, INF, NAN, INF, 0.0])
        assert kiln.isclose(a, b).tolist() == [True, True, False, False, True]
        assert kiln.isclose(a, b, equal_nan=True).tolist() == [True, True, True, False, True]
        assert kiln.isclose(a, b, rtol=0, atol=0).tolist() == [False, True, False, False, False]
        assert kiln.isclose(kiln.tensor([1, 2]), kiln.tensor([1, 3])).tolist() == [True, False]
        assert kiln.allclose(a[:2], b[:2]) is True and kiln.allclose(a, b) is False
        assert kiln.equal(a[:2], a[:2]) and not kiln.equal(a, a) and not kiln.equal(a, a[:2])
        with pytest.raises(kiln.DTypeError):
            kiln.isclose(a, a.double())


class TestChoices:
    def test_nan_to_num(self) -> None:
        for dtype in ("float32", "float64"):
            agrees(kiln.nan_to_num, np.nan_to_num, awkward(dtype))
            agrees(
                lambda x: kiln.nan_to_num(x, nan=1.0, posinf=2.0, neginf=-2.0),
                lambda x: np.nan_to_num(x, nan=1.0, posinf=2.0, neginf=-2.0),
                awkward(dtype),
            )
        differentiates(kiln.nan_to_num, np.array([1.0, INF, 2.0])[[0, 2]])

    def test_extrema_beside_nan(self) -> None:
        a, b = map(np.array, np.meshgrid(awkward("float64"), awkward("float64")))
        for name in ("fmax", "fmin"):
            got = getattr(kiln, name)(kiln.from_numpy(a), kiln.from_numpy(b)).numpy()
            np.testing.assert_array_equal(got, getattr(np, name)(a, b))
            compiles(getattr(kiln, name), a, b)
            differentiates(getattr(kiln, name), np.array([1.0, 2.0]), np.array([1.5, 1.0]))

    def test_clamps(self) -> None:
        x = awkward("float32")
        agrees(lambda t: kiln.clamp_min(t, -1.0), lambda x: np.where(x < -1, np.float32(-1), x), x)
        agrees(lambda t: kiln.clamp_max(t, 1.0), lambda x: np.where(x > 1, np.float32(1), x), x)
        agrees(lambda t: kiln.clip(t, -1.0, 1.0), lambda x: np.clip(x, np.float32(-1), np.float32(1)), x)

    def test_heaviside(self) -> None:
        x, v = np.array([-2.0, 0.0, 3.0, NAN]), np.array(0.5)
        got = kiln.heaviside(kiln.from_numpy(x), kiln.from_numpy(v))
        assert got.tolist() == [0.0, 0.5, 1.0, 0.0]

    def test_combinations(self) -> None:
        a, b, c = (RNG.normal(size=(3, 4)) for _ in range(3))
        agrees(lambda *t: kiln.addcmul(*t, value=0.5), lambda a, b, c: a + b * 0.5 * c, a, b, c)
        agrees(lambda *t: kiln.addcdiv(*t, value=2.0), lambda a, b, c: a + b * 2.0 / c, a, b, c)
        agrees(lambda *t: kiln.lerp(*t, 0.3), lambda a, b: a + (b - a) * 0.3, a, b)
        agrees(lambda *t: kiln.lerp(*t, 0.7), lambda a, b: b - (b - a) * (1 - 0.7), a, b)
        w = RNG.uniform(0, 1, (3, 4))
        lerp = lambda a, b, w: np.where(np.abs(w) < 0.5, a + w * (b - a), b - (b - a) * (1 - w))  # noqa: E731
        agrees(kiln.lerp, lerp, a, b, w)
        for f, arrays in ((kiln.addcmul, (a, b, c)), (kiln.addcdiv, (a, b, c)), (kiln.lerp, (a, b, w))):
            differentiates(f, *arrays)
        assert kiln.ldexp(kiln.tensor([1.5]), kiln.tensor([3])).tolist() == [12.0]
        assert kiln.float_power(kiln.tensor([2]), -1).dtype is kiln.float64
        with pytest.raises(kiln.DTypeError):
            kiln.lerp(kiln.tensor([1]), kiln.tensor([2]), 0.5)
        with pytest.raises(kiln.DTypeError):
            kiln.addcdiv(kiln.tensor([1.0]), kiln.tensor([2]), kiln.tensor([2]))


class TestBits:
    @pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor"])
    def test_bitwise(self, name: str) -> None:
        for a in layouts(integers):
            agrees(getattr(kiln, name), getattr(np, name), a, integers(a.shape))
        agrees(getattr(kiln, name), getattr(np, name), np.array([True, False]), np.array([True, True]))
        assert getattr(kiln, name)(kiln.tensor([True]), 2).dtype is kiln.int64
        with pytest.raises(kiln.DTypeError, match=name):
            getattr(kiln, name)(kiln.tensor([1.0]), 2)

    def test_not(self) -> None:
        agrees(kiln.bitwise_not, np.invert, np.array([0, 5, -7]))
        agrees(kiln.logical_xor, np.logical_xor, np.array([0.0, 2.0, NAN]), np.array([1.0, 1.0, 0.0]))

    def test_shifts(self) -> None:
        x = kiln.tensor([1, -1, 5])
        assert (x << 3).tolist() == [8, -8, 40] and (x >> 1).tolist() == [0, -1, 2]
        assert (x << 64).tolist() == [0, 0, 0] and (x >> 64).tolist() == [0, -1, 0]
        assert (x << -1).tolist() == [0, 0, 0] and (x >> -1).tolist() == [0, -1, 0]
        assert (1 << x[::2]).tolist() == [2, 32]
        for a in layouts(integers):
            agrees(kiln.bitwise_left_shift, np.left_shift, a, np.abs(integers(a.shape)))
            agrees(kiln.bitwise_right_shift, np.right_shift, a, np.abs(integers(a.shape)))
        with pytest.raises(kiln.DTypeError):
            kiln.tensor([1.0]) << 1

    def test_powers_of_integers(self) -> None:
        x = kiln.tensor([-3, -1, 0, 1, 2, 3])
        assert (x**2).tolist() == [9, 1, 0, 1, 4, 9] and (x**3).tolist() == [-27, -1, 0, 1, 8, 27]
        assert (x ** kiln.tensor([-1])).tolist() == [0, -1, 0, 1, 0, 0]
        assert (2**x).tolist() == [0, 0, 1, 2, 4, 8]
        assert (kiln.tensor([3]) ** 41).item() == (3**41 + 2**63) % 2**64 - 2**63
        with pytest.raises(kiln.DTypeError, match="negative"):
            x**-1
        with pytest.raises(kiln.DTypeError):
            kiln.tensor([True]) ** kiln.tensor([True])


class TestInPlace:
    def test_results_are_those_of_the_functions(self) -> None:
        calls: dict[str, tuple[Any, ...]] = {
            "relu_": (), "exp_": (), "clamp_": (-1.0, 1.0), "pow_": (2.0,), "round_": (), "floor_divide_": (0.5,),
            "remainder_": (0.7,), "lerp_": (kiln.ones(3, 4), 0.25), "copysign_": (-1.0,), "sub_": (1.0,),
            "sigmoid_": (),
        }  # fmt: skip
        x = np.asarray(RNG.normal(size=(3, 4)), np.float32)
        for name, args in calls.items():
            target = kiln.from_numpy(x.copy())
            wanted = getattr(target, name[:-1])(*args).numpy()
            assert getattr(target, name)(*args) is target, name
            assert target.numpy().tobytes() == wanted.tobytes(), name

        def run(t: Any) -> Any:
            y = t * 1.0
            y.exp_().clamp_(0.5, 2.0)
            y[0].floor_()
            return y

        compiles(run, x)

    def test_operators(self) -> None:
        x = kiln.tensor([7, -7, 12])
        keep = x
        x //= 2
        x %= 5
        x ^= 1
        x <<= 2
        x |= 1
        x &= 13
        x >>= 1
        x **= 2
        assert keep is x
        assert x.tolist() == [((((((v // 2) % 5) ^ 1) << 2 | 1) & 13) >> 1) ** 2 for v in (7, -7, 12)]

    def test_gradients_flow(self) -> None:
        def f(x: Any) -> Any:
            y = x * 2.0
            y.sigmoid_()
            y.pow_(3.0)
            return y * y

        differentiates(f, np.array([0.3, -0.4]))

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(kiln.DTypeError, match="exp_"):
            kiln.tensor([1, 2]).exp_()
        with pytest.raises(kiln.ShapeError, match="remainder_"):
            kiln.tensor([1.0]).remainder_(kiln.tensor([1.0, 2.0]))
        with pytest.raises(kiln.GradError, match="relu_"):
            kiln.ones(2).requires_grad_().relu_()
        with kiln.no_grad():
            kiln.ones(2).requires_grad_().relu_()


def test_nextafter_has_no_history() -> None:
    """As in PyTorch: the result wants no gradient, and what it is written to gets none there."""
    x = kiln.arange(4.0).requires_grad_()
    assert not kiln.nextafter(x, x + 1).requires_grad
    y = x * 2
    y[1:].nextafter_(x[1:])
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 0.0, 0.0, 0.0]
