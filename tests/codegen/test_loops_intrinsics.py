"""Every intrinsic on every dtype and on special values: what NumPy or plain Python say, the evaluator and native code
say too, on every target, scalar and vector."""

# ruff: noqa: RUF024  (nothing here changes the lists)
from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from kiln.ir import loops as L
from kiln.ir import order
from kiln.ir import types as T
from kiln.ir.intrinsics import INTRINSICS, MATH_FUNCTIONS
from kiln.ir.loops import Const, Expr, For, Kernel, Store, index
from kiln.ir.types import DType
from tests.codegen.kernels import Array, agree, buffer, same_bits, values, var

i = var("i")
N = 53  # three whole vectors and a tail
FLOATS = [T.float32, T.float64]
SIGNED = [T.int8, T.int16, T.int32, T.int64]
INTEGERS = [*SIGNED, T.uint8, T.uint16, T.uint32, T.uint64]
ALL = [*FLOATS, *INTEGERS, T.bool_]
RULES: dict[str, list[DType]] = {
    **dict.fromkeys(("add", "mul", "max", "min", "select"), ALL),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), ALL),
    **dict.fromkeys(("sub", "div"), [*FLOATS, *INTEGERS]),
    **dict.fromkeys(("neg", "abs"), [*FLOATS, *SIGNED, T.uint8]),
    **dict.fromkeys(("sqrt", "fma", "rint", "floor"), FLOATS),
    **dict.fromkeys(("mod", "shl", "shr"), INTEGERS),
    **dict.fromkeys(("and", "or", "xor", "not"), [*INTEGERS, T.bool_]),
}
PARTS = {"complex", "real", "imag"}
CASES = [(fn, dtype) for fn, dtypes in RULES.items() for dtype in dtypes]


def run_all(
    made: list[Expr],
    arrays: dict[str, Array],
    buffers: list[L.Buffer],
    name: str,
    orders: tuple[bool, ...] = (False, True),
) -> list[Array]:
    """Each of `made` over a vector loop and again over a serial one, in one kernel; both give the same bits."""
    n = len(next(iter(arrays.values())))
    outputs = [[buffer(f"{k}{stem}", e.dtype, n) for k, e in enumerate(made)] for stem in "vs"]
    loops = [
        For(kind, i, index(0), index(n), tuple(Store(y, (i,), e) for y, e in zip(ys, made, strict=True)))
        for kind, ys in zip(("vector", "serial"), outputs, strict=True)
    ]
    flat = [y for ys in outputs for y in ys]
    empty = {y.name: np.zeros(n, y.dtype.numpy) for y in flat}
    got, _ = agree(Kernel(name, (*buffers, *flat), tuple(loops)), {**arrays, **empty}, orders=orders)
    results = [[got[y.name] for y in ys] for ys in outputs]
    assert all(map(same_bits, *results))
    return results[0]


def run(made: Expr, arrays: dict[str, Array], buffers: list[L.Buffer], name: str) -> Array:
    return run_all([made], arrays, buffers, name)[0]


def operands(dtype: DType, arity: int) -> tuple[dict[str, Array], list[L.Buffer]]:
    names = "abc"[:arity]
    arrays = {name: values(dtype, N, k) for k, name in enumerate(names)}
    if arity > 1:  # equal operands, zeros and -1 as the second one, NaN against numbers and itself
        arrays["b"][::7] = arrays["a"][::7]
        arrays["b"][3::11] = 0
    return arrays, [buffer(name, dtype, N) for name in names]


def test_every_intrinsic_is_tested() -> None:
    assert set(RULES) | {"cast", "bitcast"} | PARTS | MATH_FUNCTIONS == set(INTRINSICS)


@pytest.mark.parametrize(("dtype", "whole"), [(T.float32, T.complex64), (T.float64, T.complex128)])
def test_parts_of_complex_numbers(dtype: DType, whole: DType) -> None:
    """Parts go in and come out as they are, special values and signs too."""
    arrays, buffers = operands(dtype, 2)
    x = L.apply("complex", *(L.load(b, [i]) for b in buffers))
    made, real, imag = run_all([x, L.apply("real", x), L.apply("imag", x)], arrays, buffers, f"parts_{dtype}")
    assert made.dtype == whole.numpy
    assert same_bits(real, arrays["a"]) and same_bits(imag, arrays["b"])
    assert same_bits(made.real, arrays["a"]) and same_bits(made.imag, arrays["b"])


@pytest.mark.parametrize(("fn", "dtype"), CASES, ids=[f"{f}-{d}" for f, d in CASES])
def test_intrinsic(fn: str, dtype: DType) -> None:
    arity = INTRINSICS[fn].arity - (fn == "select")
    arrays, buffers = operands(dtype, arity)
    args = [L.load(b, [i]) for b in buffers]
    if fn in ("shl", "shr"):
        args[1:] = [Const(args[0].type, 5)]  # type: ignore[list-item]
    if fn == "select":
        made = L.select(L.apply("ge", *args), *args)
    else:
        made = L.apply(fn, *args)
    got = run(made, arrays, buffers, f"{fn}_{dtype}")
    wanted = [reference(fn, dtype, *(a[k] for a in arrays.values())) for k in range(N)]
    with np.errstate(all="ignore"):
        assert same_bits(got, np.array(wanted).astype(made.dtype.numpy))


def reference(fn: str, dtype: DType, a: object, b: object = None, c: object = None) -> object:
    """One element by the words of `INTRINSICS`, on Python's integers and fractions where that is possible."""
    x, y = (np.asarray(v).item() if v is not None else None for v in (a, b))
    with np.errstate(all="ignore"):
        if fn in ("eq", "ne", "lt", "le", "gt", "ge"):
            return {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}[fn]
        if fn in ("max", "min"):
            return a if x != x else (a if (x > y if fn == "max" else x < y) else b)
        if fn == "select":
            return a if x >= y else b
        if dtype.kind == "bool":
            table = {"add": x or y, "mul": x and y, "and": x and y, "or": x or y, "xor": x != y, "not": not x}
            return table[fn]
        if dtype.is_floating_point:
            return float_reference(fn, dtype, a, b, c)
        return integer_reference(fn, dtype, int(x), int(y or 0))


def integer_reference(fn: str, dtype: DType, x: int, y: int) -> object:
    if fn in ("div", "mod"):
        quotient = 0 if y == 0 else int(Fraction(x, y))
        exact = quotient if fn == "div" else 0 if y == 0 else x - quotient * y
    else:
        exact = {
            "add": x + y, "sub": x - y, "mul": x * y, "neg": -x, "abs": abs(x), "not": ~x,
            "and": x & y, "or": x | y, "xor": x ^ y, "shl": x << 5, "shr": x >> 5,
        }[fn]  # fmt: skip
    wrapped = exact % 2**dtype.bits
    if dtype.kind == "int" and wrapped >= 2 ** (dtype.bits - 1):
        wrapped -= 2**dtype.bits
    return dtype.numpy.type(wrapped)


def float_reference(fn: str, dtype: DType, a: object, b: object, c: object) -> object:
    if fn == "fma":
        return order.fma(np.array([a]), np.array([b]), np.array([c]))[0]
    table = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
    if fn in table:
        return table[fn](a, b)
    unary = {"neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "rint": np.rint, "floor": np.floor}
    return unary[fn](a)


# ------------------------------------------------------------------------------------------- division


@pytest.mark.parametrize("fn", ["div", "mod"])
def test_division_by_constants(fn: str) -> None:
    arrays, buffers = operands(T.int64, 1)
    a = L.load(buffers[0], [i])
    divisors = [1, -1, 0, 3, -8, 10, 1 << 40, -(2**63)]
    got = run_all([L.apply(fn, a, index(d)) for d in divisors], arrays, buffers, f"{fn}_by")
    for found, d in zip(got, divisors, strict=True):
        assert found.tolist() == [integer_reference(fn, T.int64, int(x), d) for x in arrays["a"]]


# -------------------------------------------------------------------------------------------- casts

EDGES = [
    *(s * 2.0**k + d for s in (1, -1) for k in (31, 32, 63, 64) for d in (0.0, 0.5, -0.5, 1.0, -1.0, 2048.0, -2048.0)),
    *(s * 2.0**k + d for s in (1, -1) for k in (7, 8, 15, 16) for d in (0.0, 0.5, -0.5, 1.0, -1.0)),
    0.5, -0.5, 0.99, -0.99, -1.0, 1.5, -1.5, 1e300, -1e300, 1e-320, math.inf, -math.inf, math.nan, 0.0, -0.0,
]  # fmt: skip


@pytest.mark.parametrize("source", ALL, ids=str)
def test_casts(source: DType) -> None:
    a = values(source, N)
    if source.is_floating_point:
        with np.errstate(over="ignore"):
            a = np.concatenate([a, np.array(EDGES).astype(source.numpy)])
    elif source.kind != "bool":
        odd = [2**24 + 1, 2**53 + 1, 2**53 + 3, 2**62 + 2**38 + 1, 2**63 - 1, 2**64 - 2**39 - 1]
        a = np.concatenate([a, (np.array(odd, np.uint64)).astype(source.numpy)])
    x = buffer("a", source, len(a))
    e = L.load(x, [i])
    got = run_all([L.Apply(L.Vec(t), "cast", (e,)) for t in ALL], {"a": a}, [x], f"casts_{source}")
    with np.errstate(all="ignore"):
        for found, target in zip(got, ALL, strict=True):
            wanted = np.array([converted(v.item(), source, target) for v in a], target.numpy)
            assert same_bits(found, wanted), f"to {target}"


def converted(v: float | int | bool, source: DType, target: DType) -> object:
    """One value converted, by way of exact fractions."""
    if target.kind == "bool":
        return v != 0
    if target.is_floating_point:
        if source.is_floating_point:
            return target.numpy.type(v)
        exact = Fraction(v)
        return order.round_fraction(exact, target.numpy)
    low = -(2 ** (target.bits - 1)) if target.kind == "int" else 0
    high = 2 ** (target.bits - (target.kind == "int"))
    if source.is_floating_point:
        return int(v) if math.isfinite(v) and low <= int(v) < high else low
    return integer_reference("or", target, int(v), 0)


@pytest.mark.parametrize(
    ("source", "target"),
    [(T.float32, T.uint32), (T.int32, T.float32), (T.float64, T.int64), (T.uint64, T.float64)],
    ids=str,
)
def test_bitcasts(source: DType, target: DType) -> None:
    a = values(source, N)
    x = buffer("a", source, N)
    got = run(L.bitcast(L.load(x, [i]), target), {"a": a}, [x], f"bits_{source}")
    assert same_bits(got, a.view(target.numpy))


# ---------------------------------------------------------------------------------- vector-only nodes


@pytest.mark.parametrize("dtype", [T.float32, T.int64, T.bool_], ids=str)
def test_shuffles(dtype: DType) -> None:
    """Lanes of two vectors reversed and interleaved, and one lane alone (written as a scheduled kernel)."""
    x, y, z = buffer("x", dtype, 16), buffer("y", dtype, 16), buffer("z", dtype, 1)
    low, high = (L.load(x, [L.ramp(index(k), 8)]) for k in (0, 8))
    picks = [k // 2 + 8 * (k % 2) for k in range(16)][::-1]
    body = (
        Store(y, (L.ramp(index(0), 16),), L.shuffle([low, high], picks)),
        Store(z, (index(0),), L.shuffle([low, high], [11])),
    )
    a = values(dtype, 16)
    got, _ = agree(Kernel("shuffled", (x, y, z), body), {"x": a, "y": a.copy(), "z": a[:1]})
    assert same_bits(got["y"], a[picks])
    assert same_bits(got["z"], a[11:12])


@pytest.mark.parametrize("fn", sorted(MATH_FUNCTIONS))
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_functions_are_the_same_everywhere(fn: str, dtype: DType) -> None:
    """exp and its like: one definition, so evaluator and every target agree to the bit. (In which order elements come
    has nothing to do with the function, and evaluating these takes long.)"""
    arity = INTRINSICS[fn].arity
    arrays = {name: values(dtype, N, k) for k, name in enumerate("ab"[:arity])}
    buffers = [buffer(name, dtype, N) for name in arrays]
    made = L.apply(fn, *(L.load(b, [i]) for b in buffers))
    run_all([made], arrays, buffers, f"{fn}_{dtype}", orders=(False,))
