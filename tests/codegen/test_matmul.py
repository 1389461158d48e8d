"""The matrix product against the contraction order of `ir/order.py`, bit for bit, natively on every target."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import pytest

from kiln.codegen import matmul
from kiln.ir import order
from kiln.ir import types as T
from kiln.ir.halves import converted, widened
from kiln.ir.types import DType
from kiln.runtime import context, targets
from kiln.runtime.modules import load_module
from kiln.runtime.threads import get_num_threads, set_num_threads

Array = np.ndarray[Any, Any]
HOST = targets.detect()
TARGETS = [name for name, t in targets.LEVELS.items() if t.arch == HOST.arch and t.vector_bits <= HOST.vector_bits]
DTYPES = [T.float32, T.float64, T.int64]


@functools.cache
def function(dtype: DType, level: str) -> Any:
    target = targets.LEVELS[level]
    address = load_module(matmul.matmul_module(dtype, target), target, lambda name: None)[f"kiln_matmul_{dtype}"]
    return ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 13)(address)


def product(a: Array, b: Array, level: str = TARGETS[0], out: Array | None = None) -> Array:
    """a [batch, M, K] @ b [batch, K, N], with the strides that they have."""
    batch, m, k = a.shape
    n = b.shape[2]
    c = np.full((batch, m, n), 7, a.dtype) if out is None else out
    pointers = [x.__array_interface__["data"][0] for x in (a, b, c)]
    strides = [s // x.itemsize for x in (a, b, c) for s in x.strides]
    call = function(T.dtype_named(a.dtype.name), level)
    assert call(context.current().address, *pointers, batch, m, n, k, *strides) == 0
    return c


def layout(x: Array, kind: str) -> Array:
    """The same values as a contiguous, transposed or strided array."""
    if kind == "transposed":
        return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    if kind == "strided":
        room = np.full((*x.shape[:-2], x.shape[-2] * 2, x.shape[-1] * 3), 7, x.dtype)
        room[..., ::2, ::3] = x
        return room[..., ::2, ::3]
    return np.ascontiguousarray(x)


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> Array:
    if dtype is T.int64:
        return rng.integers(-(2**62), 2**62, shape)
    return rng.standard_normal(shape).astype(dtype.numpy)


def small_integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> Array:
    """Values whose products and sums are exact in every order: for tests of what is computed from where."""
    return rng.integers(-8, 9, shape).astype(dtype.numpy)


def same(x: Array, y: Array) -> bool:
    """Bit equality, all NaNs being equal."""
    nan = np.isnan(x) & np.isnan(y) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    return x.shape == y.shape and bool((nan | (x.view(f"u{x.itemsize}") == y.view(f"u{y.itemsize}"))).all())


def fma32(a: Array, b: Array, c: Array) -> Array:
    """a * b + c rounded once to float32, for finite values: the sum of the exact product in float64, rounded to odd
    (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008), then to nearest."""
    p, c = a.astype(np.float64) * b, c.astype(np.float64)
    s = p + c
    t = s - p
    error = (p - (s - t)) + (c - t)
    odd = s.view(np.int64) & 1
    toward = np.where(error > 0, np.inf, -np.inf)
    return np.where((error != 0) & (odd == 0), np.nextafter(s, toward), s).astype(np.float32)


def contract32(a: Array, b: Array) -> Array:
    """`order.contract` for finite float32, fast."""
    total: Array | None = None
    for start in range(0, a.shape[-1], order.KBLOCK):
        acc = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
        for k in range(start, min(a.shape[-1], start + order.KBLOCK)):
            acc = fma32(a[..., :, k : k + 1], b[..., k : k + 1, :], acc)
        total = acc if total is None else total + acc
    assert total is not None
    return total


def test_the_fast_oracle_is_the_oracle() -> None:
    rng = np.random.default_rng(0)
    a, b = normal(rng, (1, 3, 300), T.float32), normal(rng, (1, 300, 4), T.float32)
    assert same(contract32(a, b), order.contract(a, b))


@pytest.mark.parametrize("level", TARGETS)
@pytest.mark.parametrize("dtype", [T.float32, T.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 2, 9, 30), (1, 1, 3, 260), (1, 3, 2, 513)], ids=str)
def test_order(level: str, dtype: DType, shape: tuple[int, int, int, int]) -> None:
    batch, m, n, k = shape
    rng = np.random.default_rng(1)
    a, b = normal(rng, (batch, m, k), dtype), normal(rng, (batch, k, n), dtype)
    assert same(product(a, b, level), order.contract(a, b))


@pytest.mark.parametrize("level", TARGETS)
def test_order_when_large(level: str) -> None:
    rng = np.random.default_rng(2)
    a, b = normal(rng, (1, 45, 530), T.float32), normal(rng, (1, 530, 101), T.float32)
    wanted = contract32(a, b)
    assert same(product(a, b, level), wanted)
    assert same(product(a, layout(b, "transposed"), level), wanted)
    # Each row and column is what it would be alone: the order depends on k only.
    assert same(product(a[:, 7:8], b, level), wanted[:, 7:8])
    assert same(product(a[:, :, :], b[:, :, 99:100], level), wanted[:, :, 99:100])


@pytest.mark.parametrize("level", TARGETS)
@pytest.mark.parametrize("dtype", [T.float32, T.float64], ids=str)
def test_special_values(level: str, dtype: DType) -> None:
    info = np.finfo(dtype.numpy)
    pool = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        info.smallest_subnormal,
        -info.tiny,
        info.max,
        -info.max,
        1.0,
        -1.5,
    ]
    rng = np.random.default_rng(3)
    a = rng.choice(np.array(pool, dtype.numpy), (1, 9, 6))
    b = rng.choice(np.array(pool, dtype.numpy), (1, 6, 20))
    assert same(product(a, b, level), order.contract(a, b))
    zeros = np.zeros((1, 2, 3), dtype.numpy)
    assert not np.signbit(product(-zeros, zeros.swapaxes(1, 2).copy(), level)).any()  # +0 + -0 is +0


@pytest.mark.parametrize("level", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kinds", ["CCC", "CTC", "TCC", "TTC", "SSC", "CCT", "TSS", "SCT", "CTS"])
def test_layouts(level: str, dtype: DType, kinds: str) -> None:
    names = {"C": "contiguous", "T": "transposed", "S": "strided"}
    rng = np.random.default_rng(4)
    for batch, m, n, k in [
        (1, 1, 1, 1),
        (2, 9, 50, 3),
        (1, 1, 40, 64),
        (3, 33, 1, 20),
        (2, 30, 100, 20),
        (1, 26, 49, 300),
    ]:
        a, b = small_integers(rng, (batch, m, k), dtype), small_integers(rng, (batch, k, n), dtype)
        la, lb, lc = (names[x] for x in kinds)
        out = layout(np.full((batch, m, n), 7, a.dtype), lc)
        product(layout(a, la), layout(b, lb), level, out)
        assert (out == np.matmul(a, b)).all(), (batch, m, n, k)
        if lc == "strided":  # what lies between the elements is left alone
            assert out.base is not None
            assert (out.base[..., 1::2, :] == 7).all() and (out.base[..., 1::3] == 7).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_broadcast_operands(dtype: DType) -> None:
    rng = np.random.default_rng(5)
    a, b = small_integers(rng, (1, 1, 37), dtype), small_integers(rng, (1, 37, 1), dtype)
    wide_a, wide_b = np.broadcast_to(a, (3, 30, 37)), np.broadcast_to(b, (3, 37, 52))
    assert (product(wide_a, wide_b) == np.matmul(wide_a, wide_b)).all()


@pytest.mark.parametrize("level", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_empty(level: str, dtype: DType) -> None:
    rng = np.random.default_rng(6)
    for batch, m, n, k in [(0, 3, 3, 3), (1, 0, 4, 4), (1, 4, 0, 4), (2, 30, 70, 0), (1, 3, 3, 0)]:
        c = product(small_integers(rng, (batch, m, k), dtype), small_integers(rng, (batch, k, n), dtype), level)
        assert not c.any() and not (dtype.is_floating_point and np.signbit(c).any())


@pytest.mark.parametrize("level", TARGETS)
def test_integers_wrap(level: str) -> None:
    rng = np.random.default_rng(7)
    a, b = normal(rng, (2, 13, 70), T.int64), normal(rng, (2, 70, 30), T.int64)
    assert (product(a, b, level) == np.matmul(a, b)).all()


@pytest.mark.parametrize("level", TARGETS)
@pytest.mark.parametrize("dtype", [T.float16, T.bfloat16, T.uint8, T.int16], ids=str)
@pytest.mark.parametrize("kinds", ["CCC", "CTC", "TSC", "SCS", "CCT"])
def test_narrow_types(level: str, dtype: DType, kinds: str) -> None:
    """Integers wrap; 16-bit floats give float32's result rounded once."""
    names = {"C": "contiguous", "T": "transposed", "S": "strided"}
    rng = np.random.default_rng(12)
    for batch, m, n, k in [(2, 9, 50, 3), (3, 33, 1, 20), (1, 26, 49, 300), (1, 1, 70, 40)]:
        if dtype.is_half:
            a, b = (converted(rng.standard_normal(s), dtype) for s in ((batch, m, k), (batch, k, n)))
            wanted = converted(contract32(widened(a), widened(b)), dtype)
        else:
            a, b = (rng.integers(dtype.least, dtype.most, s, dtype.numpy) for s in ((batch, m, k), (batch, k, n)))
            wanted = np.matmul(a, b)
        la, lb, lc = (names[x] for x in kinds)
        out = layout(np.full((batch, m, n), 7, a.dtype), lc)
        product(layout(a, la), layout(b, lb), level, out)
        assert (out.view(f"u{out.itemsize}") == wanted.view(f"u{out.itemsize}")).all(), (batch, m, n, k)


@pytest.mark.parametrize("dtype", [T.float16, T.bfloat16], ids=str)
def test_more_than_one_slab_of_halves(dtype: DType) -> None:
    rng = np.random.default_rng(13)
    a, b = small_integers(rng, (1, 5, 9000), T.float32), small_integers(rng, (1, 9000, 300), T.float32)
    wanted = converted(np.matmul(a, b), dtype)
    assert (product(converted(a, dtype), converted(b, dtype)) == wanted).all()
    assert (product(converted(a, dtype), layout(converted(b, dtype), "transposed")) == wanted).all()


@pytest.mark.parametrize("shape", [(1, 30, 600, 4096), (1, 5, 7, 9000), (1, 40, 60, 9000), (700, 26, 65, 100)], ids=str)
def test_more_than_one_slab(shape: tuple[int, int, int, int]) -> None:
    batch, m, n, k = shape
    assert k > matmul.K_CHUNK or batch * n * k > matmul.WORKSPACE
    rng = np.random.default_rng(8)
    a, b = small_integers(rng, (batch, m, k), T.float32), small_integers(rng, (batch, k, n), T.float32)
    assert (product(a, b) == np.matmul(a, b)).all()
    assert (product(a, layout(b, "transposed")) == np.matmul(a, b)).all()


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(9)
    a, b = normal(rng, (3, 150, 300), T.float32), normal(rng, (3, 300, 333), T.float32)
    before = get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 7):
            set_num_threads(threads)
            results.append(product(a, layout(b, "transposed")))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        assert same(results[0], other)


@pytest.mark.skipif(len(TARGETS) < 2, reason="this machine runs one target only")
@pytest.mark.parametrize("dtype", [T.float32, T.float64], ids=str)
def test_targets_agree(dtype: DType) -> None:
    rng = np.random.default_rng(10)
    a, b = normal(rng, (1, 50, 600), dtype), normal(rng, (1, 600, 90), dtype)
    first, *others = [product(a, b, level) for level in TARGETS]
    for other in others:
        assert same(first, other)


def test_transposed_turns_a_block() -> None:
    from kiln.ir import loops as L

    rows: list[L.Expr] = [L.Var(L.Vec(T.float32, 4), f"r{i}") for i in range(4)]

    def lane(e: L.Expr, k: int) -> tuple[str, int]:
        if isinstance(e, L.Shuffle):
            pick = e.picks[k]
            return lane(e.operands[pick // 4], pick % 4)
        assert isinstance(e, L.Var)
        return e.name, k

    turned = matmul.transposed(rows)
    assert [[lane(turned[i], e) for e in range(4)] for i in range(4)] == [
        [(f"r{e}", i) for e in range(4)] for i in range(4)
    ]


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="no matrix product of bool"):
        matmul.matmul_module(T.bool_, HOST)
