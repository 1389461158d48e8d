"""16-bit floats: kernels' own conversions against the nearest value found by search, on every target; and the rule
that each op computes in float32 and rounds once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.codegen import halves
from kiln.codegen.cuda.emit import emit_kernel
from kiln.codegen.interpret import evaluate
from kiln.codegen.llvm.text import constant
from kiln.codegen.schedule import schedule
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.halves import bits_of, converted, round_number, widened
from kiln.ir.loops import For, Kernel, Store, index
from kiln.ir.types import DType
from kiln.runtime import targets
from tests.codegen.kernels import TARGETS, agree, buffer, var

Array = np.ndarray[Any, Any]
HALVES = [T.float16, T.bfloat16]
ALL_BITS = np.arange(1 << 16, dtype=np.uint16)


def value_of(bits: Array, dtype: DType) -> Array:
    """The numbers behind bit patterns, by the formats' definition, in float64."""
    digits, bias = (10, 15) if dtype is T.float16 else (7, 127)
    exponent = (bits.astype(np.int64) & 0x7FFF) >> digits
    fraction = bits.astype(np.float64) * 0 + (bits & ((1 << digits) - 1)) / 2.0**digits
    top = exponent == (1 << (15 - digits)) - 1
    value = np.where(exponent == 0, np.ldexp(fraction, 1 - bias), np.ldexp(1 + fraction, exponent - bias))
    value = np.where(top, np.where(fraction == 0, np.inf, np.nan), value)
    return np.where(bits >> 15, -value, value)


def nearest_bits(x: Array, dtype: DType) -> Array:
    """The bits of the nearest number, found by bisection; ties go to even bits, what is beyond the largest number by
    half a unit or more to infinity."""
    sizes = value_of(ALL_BITS[: 1 << 15], dtype)
    sizes = sizes[np.isfinite(sizes)].astype(np.longdouble)
    beyond = 2 * sizes[-1] - sizes[-2]  # the number that would follow stands for infinity
    grid = np.append(sizes, beyond)
    with np.errstate(invalid="ignore"):  # signalling NaN
        size = np.abs(x.astype(np.longdouble))
    high = np.clip(np.searchsorted(grid, size), 1, len(grid) - 1)
    low = high - 1
    below, above = size - grid[low], grid[high] - size
    pick = np.where((above < below) | ((above == below) & (high % 2 == 0)) | (size >= beyond), high, low)
    nan = 0x7E00 if dtype is T.float16 else 0x7FC0
    return np.where(np.isnan(x), nan, pick | (np.signbit(x).astype(np.int64) << 15)).astype(np.uint16)


def bits(x: Array) -> Array:
    return np.ascontiguousarray(x).view(np.uint16)


def same(got: Array, wanted: Array, dtype: DType) -> bool:
    """Equal bits, all NaNs being one."""
    nan = np.isnan(value_of(got, dtype))
    return bool(((got == wanted) | (nan & np.isnan(value_of(wanted, dtype)))).all())


def awkward(dtype: DType, source: type) -> Array:
    """Every number, every midpoint, and their neighbours in `source`, of both signs; infinities, NaN, random bits."""
    sizes = value_of(ALL_BITS[: 1 << 15], dtype)
    sizes = sizes[np.isfinite(sizes)]
    exact = np.concatenate(
        [sizes, (sizes[1:] + sizes[:-1]) / 2, [2 * sizes[-1] - sizes[-2], sizes[-1] * (1 + 2.0**-9)]]
    )
    with np.errstate(all="ignore"):
        x = exact.astype(source)
        x = np.concatenate([x, np.nextafter(x, source(np.inf)), np.nextafter(x, source(0))])
        if source is np.float64:  # where rounding to float32 first would land on a midpoint
            x = np.concatenate([x, exact * (1 + 2.0**-30), exact * (1 - 2.0**-30), exact * (1 + 2.0**-50)])
        noise = np.random.default_rng(0).integers(0, 256, 100_000 * np.dtype(source).itemsize, np.uint8).view(source)
    return np.concatenate([x, -x, noise, np.array([np.inf, -np.inf, np.nan, 1e300], np.float64).astype(source)])


def everywhere(run: Callable[[], Array]) -> list[Array]:
    found = []
    for target in TARGETS.values():
        with targets.use_target(target):
            found.append(run())
    return found


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_widening_is_exact(dtype: DType) -> None:
    x = ALL_BITS.view(dtype.numpy)
    wanted = value_of(ALL_BITS, dtype).astype(np.float32)
    for got in [widened(x), *everywhere(lambda: kiln.from_numpy(x).float().numpy())]:
        assert np.array_equal(got, wanted, equal_nan=True)
        assert (np.signbit(got) == np.signbit(wanted))[~np.isnan(wanted)].all()


@pytest.mark.parametrize("source", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounding_is_to_nearest_even_and_once(dtype: DType, source: type) -> None:
    with np.errstate(over="ignore"):
        x = awkward(dtype, source)
    wanted = nearest_bits(x, dtype)
    for got in [converted(x, dtype), *everywhere(lambda: kiln.from_numpy(x).to(dtype).numpy())]:
        assert same(bits(got), wanted, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_float32(dtype: DType) -> None:
    for start in range(0, 1 << 32, 1 << 24):
        x = np.arange(start, start + (1 << 24), dtype=np.int64).astype(np.uint32).view(np.float32)
        assert same(bits(kiln.from_numpy(x).to(dtype).numpy()), bits(converted(x, dtype)), dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_evaluator_and_native_code_agree(dtype: DType) -> None:
    """As kernels: from and to every other type, in vectors and one by one, widened by the target and by kiln."""
    i, n = var("i"), 85
    rng = np.random.default_rng(1)
    others = [T.float32, T.float64, T.int8, T.uint8, T.int32, T.int64, T.bool_, *HALVES]
    arrays = {"h": rng.integers(0, 1 << 16, n, np.uint16).view(dtype.numpy)}
    h = buffer("h", dtype, n)
    body, buffers = [], [h]
    for other in others:
        wide = np.linspace(-70000, 70000, n) if other.bits > 16 else np.linspace(-100, 100, n)
        arrays[f"x{other}"] = converted(wide, other) if other.kind != "uint" else np.arange(n).astype(other.numpy)
        x, y, z = buffer(f"x{other}", other, n), buffer(f"y{other}", other, n), buffer(f"z{other}", dtype, n)
        arrays |= {y.name: np.zeros(n, other.numpy), z.name: np.zeros(n, dtype.numpy)}
        buffers += [x, y, z]
        body += [Store(y, (i,), L.cast(L.load(h, [i]), other)), Store(z, (i,), L.cast(L.load(x, [i]), dtype))]
    for kind in ("vector", "serial"):
        kernel = Kernel(f"convert_{dtype}_{kind}", tuple(buffers), (For(kind, i, index(0), index(n), tuple(body)),))
        got, _ = agree_bits(kernel, arrays)
        evaluated = {k: a.copy() for k, a in arrays.items()}
        evaluate(schedule(kernel, targets.LEVELS["baseline"]), evaluated)  # which widens float16 by itself
        for name, a in got.items():
            assert (a.view(np.uint8) == evaluated[name].view(np.uint8)).all() or np.isnan(widened(a)).any(), name


def agree_bits(kernel: Kernel, arrays: dict[str, Array]) -> Any:
    """`agree`, without NaN among the operands (whose bits may differ)."""
    clean = {k: np.where(a != a, np.zeros((), a.dtype), a).astype(a.dtype) for k, a in arrays.items()}
    arrays.update(clean)
    return agree(kernel, arrays)


def test_constants_are_bits() -> None:
    assert constant(L.Vec(T.float16), 1.0) == str(0x3C00)
    assert constant(L.Vec(T.bfloat16), -2.0) == str(0xC000)
    assert constant(L.Vec(T.bfloat16, 4), 1.0) == "splat (i16 16256)"
    assert bits_of(float("nan"), T.float16) == 0x7E00 and bits_of(float("inf"), T.bfloat16) == 0x7F80
    assert round_number(1 + 2.0**-11 + 2.0**-40, T.float16) == 1 + 2.0**-10
    assert L.const(0.1, T.bfloat16).value == 0.10009765625


def test_arithmetic_on_bits_is_refused() -> None:
    h = buffer("h", T.bfloat16, 4)
    x = L.load(h, [index(0)])
    kernel = Kernel("wrong", (h,), (Store(h, (index(0),), L.apply("add", x, x)),))
    with pytest.raises(TypeError, match="computed with as float32"):
        from kiln.codegen.llvm.emit import emit_kernel as emit

        emit(schedule(kernel, TARGETS["baseline"]), TARGETS["baseline"])


def test_cuda_has_the_same_integer_code() -> None:
    h, f, i = buffer("h", T.float16, 100), buffer("f", T.bfloat16, 100), var("i")
    body = (Store(f, (i,), L.cast(L.load(h, [i]), T.bfloat16)),)
    source = emit_kernel(Kernel("k", (h, f), (For("vector", i, index(0), index(100), body),))).source
    assert "const unsigned short *h" in source and "unsigned short *f" in source
    assert "__uint_as_float" in source and "half" not in source


def test_conversion_chains() -> None:
    x = L.Var(L.Vec(T.float16), "x")
    assert halves.expand(L.Apply(L.Vec(T.float16), "cast", (x,))) is x
    assert not halves.is_conversion(L.cast(L.Var(L.Vec(T.float32), "y"), T.float64))


# ------------------------------------------------------------------------------------ one rounding an op


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_fusion_keeps_the_rounding_of_each_op(dtype: DType) -> None:
    rng = np.random.default_rng(2)
    a, b = (kiln.from_numpy(converted(rng.standard_normal((9, 37)), dtype)) for _ in range(2))

    def chain(a: kiln.Tensor, b: kiln.Tensor) -> kiln.Tensor:
        return ((a * b + a) * b - a).sum(1)

    def by_hand(a: Array, b: Array) -> Array:
        def r(x: Array) -> Array:
            return widened(converted(x, dtype))

        product = r(r(r(r(a * b) + a) * b) - a)
        return kiln.from_numpy(product).sum(1).numpy()

    wide_a, wide_b = widened(a.numpy()), widened(b.numpy())
    wanted = bits(converted(by_hand(wide_a, wide_b), dtype))
    compiled = kiln.compile(chain)
    for got in (chain(a, b), compiled(a, b), compiled(a, b)):
        assert (bits(got.numpy()) == wanted).all()
    once = chain(kiln.from_numpy(wide_a), kiln.from_numpy(wide_b)).to(dtype)
    assert (bits(once.numpy()) != wanted).any()  # so the roundings between are there


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_sums_are_accumulated_in_float32(dtype: DType) -> None:
    ones = kiln.ones(3, 5000, dtype=dtype)
    assert (ones.sum(1).float() == float(round_number(5000.0, dtype))).all()
    assert ones.sum().item() == round_number(15000.0, dtype)
    big = kiln.full((4, 100), 60000.0, dtype=dtype)
    assert (big.mean(0) == big[0]).all() and (big[:2].mean() == big[0, 0]).item()  # float16's sum would overflow
    with_tail = kiln.cat([kiln.tensor([256.0], dtype=dtype), kiln.full((512,), 0.25, dtype=dtype)])
    assert with_tail.sum().item() == 384.0  # 256 + 0.25 is 256 in bfloat16


@pytest.mark.parametrize("source", [T.int64, T.int32, T.float64, T.float32], ids=str)
def test_a_tail_of_one_lane_writes_one_element(source: DType) -> None:
    """Narrowed numbers in a masked vector of one lane: what lies behind it (the next row, already stored) stays."""
    rows, n, i, r = 3, 17, var("i"), var("r")
    narrow = [d for d in (T.int32, T.int16, T.int8, *HALVES) if d.bits < source.bits]
    x = buffer("x", source, rows, n)
    outs = [buffer(f"y{d}", d, rows, n) for d in narrow]
    body = []
    for y in outs:
        e = L.load(x, [r, i])
        if source.is_floating_point and not y.dtype.is_half:
            e = L.cast(e, T.int32)
        body.append(Store(y, (r, i), L.cast(e, y.dtype)))
    inner = For("serial", r, index(0), index(rows), tuple(body))
    arrays = {y.name: np.zeros(rows * n, y.dtype.numpy) for y in outs}
    arrays["x"] = np.arange(1, rows * n + 1).astype(source.numpy)
    agree(Kernel(f"tails_{source}", (x, *outs), (For("vector", i, index(0), index(n), (inner,)),)), arrays)
