"""Small kernels: evaluator, scheduled evaluator and native code on every target agree bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kiln.codegen.interpret import evaluate
from kiln.codegen.llvm.emit import emit_kernel
from kiln.codegen.schedule import schedule
from kiln.ir import loops as L
from kiln.ir import order
from kiln.ir import types as T
from kiln.ir.loops import Alloc, Carry, Expr, For, If, Invoke, Kernel, Let, Reduce, Store, Verify, index
from kiln.ir.loops_walk import walk
from kiln.ir.program import Module, Program, Slot
from kiln.ir.types import DType
from kiln.runtime.executable import load
from kiln.runtime.threads import get_num_threads, set_num_threads
from tests.codegen.kernels import HOST, Array, agree, buffer, ordinary, same_bits, values, var

SIZES = [0, 1, 15, 16, 17, 100]
FLOATS = [T.float32, T.float64]
i, j, r = var("i"), var("j"), var("r")


def loop(kind: str, v: L.Var, hi: int | Expr, *body: L.Stmt, grain: int | None = None) -> For:
    return For(kind, v, index(0), L.as_index(hi), body, grain=None if grain is None else index(grain))


# ----------------------------------------------------------------------------------- elementwise


@pytest.mark.parametrize("dtype", [T.float32, T.float64, T.int64, T.bool_], ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_vector_loop(n: int, dtype: DType) -> None:
    x, y = buffer("x", dtype, n), buffer("y", dtype, n)
    e = L.load(x, [i])
    kernel = Kernel("twice", (x, y), (loop("vector", i, n, Store(y, (i,), L.mul(L.add(e, e), e))),))
    a = values(dtype, n)
    got, _ = agree(kernel, {"x": a, "y": np.zeros_like(a)})
    with np.errstate(all="ignore"):
        assert same_bits(got["y"], (a + a) * a)


@pytest.mark.parametrize("n", SIZES)
def test_run_time_sizes_and_strides(n: int) -> None:
    size, step = var("n"), var("s")
    x, y = buffer("x", T.float32, size, strides=[step]), buffer("y", T.float32, size, strides=[1])
    body = Store(y, (i,), L.apply("neg", L.load(x, [i])))
    kernel = Kernel("negated", (x, y, size, step), (loop("vector", i, size, body),))
    for s in (0, 1, 3):
        a = values(T.float32, n * max(1, s))
        got, _ = agree(kernel, {"x": a, "y": np.zeros(n, np.float32)}, {"n": n, "s": s})
        assert same_bits(got["y"], -(a[::s] if s else np.repeat(a[:1], n))[:n])


@pytest.mark.parametrize("strides", [(20, 1), (1, 5), (0, 1), (1, 0), (0, 0), (40, 2)], ids=str)
def test_layouts(strides: tuple[int, int]) -> None:
    """Contiguous, transposed, broadcast and strided operands, read and written."""
    rows, columns = 5, 20
    x, y = buffer("x", T.float32, rows, columns, strides=strides), buffer("y", T.float32, rows, columns)
    z = buffer("z", T.float32, rows, columns, strides=(1, rows))
    e = L.add(L.load(x, [i, j]), L.load(y, [i, j]))
    inner = loop("vector", j, columns, Store(y, (i, j), e), Store(z, (i, j), e))
    kernel = Kernel("layouts", (x, y, z), (loop("parallel", i, rows, inner, grain=1),))
    a, b = values(T.float32, 200, 1), values(T.float32, 100, 2)
    got, _ = agree(kernel, {"x": a, "y": b, "z": np.zeros(100, np.float32)})
    seen = np.lib.stride_tricks.as_strided(a, (rows, columns), [4 * s for s in strides])
    assert same_bits(got["y"], (seen + b.reshape(rows, columns)).ravel())
    assert same_bits(got["z"].reshape(columns, rows).T.ravel(), got["y"])


@pytest.mark.parametrize("kind", ["parallel", "serial"])
@pytest.mark.parametrize(("lo", "hi", "step"), [(0, 40, 1), (0, 33, 1), (3, 40, 1), (0, 40, 3)])
def test_rows_of_transposed_operands(kind: str, lo: int, hi: int, step: int) -> None:
    """They are visited in square tiles, whatever rows there are."""
    x, y = buffer("x", T.float32, 40, 21, strides=(1, 40)), buffer("y", T.float32, 40, 21)
    inner = loop("vector", j, 21, Store(y, (i, j), L.load(x, [i, j])))
    kernel = Kernel("turned", (x, y), (For(kind, i, index(lo), index(hi), (inner,), step),))
    a = values(T.float32, 840)
    got, _ = agree(kernel, {"x": a, "y": np.zeros(840, np.float32)})
    wanted = np.zeros((40, 21), np.float32)
    wanted[lo:hi:step] = a.reshape(21, 40).T[lo:hi:step]
    assert same_bits(got["y"], wanted.ravel())


def test_rows_that_depend_on_each_other_keep_their_order() -> None:
    """Each row reads columns of the row before that lie in another tile; a triangle's rows have their own ends."""
    n = 40
    x, y = buffer("x", T.float32, n, n, strides=(1, n)), buffer("y", T.float32, n + 1, n + 9)
    e = L.add(L.load(y, [i, j + 9]), L.load(x, [i, j]))
    rows = loop("serial", i, n, loop("vector", j, n, Store(y, (i + 1, j), e)))
    a, b = values(T.float32, n * n), values(T.float32, (n + 1) * (n + 9))
    agree(Kernel("dependent", (x, y), (rows,)), {"x": a, "y": b})
    z = buffer("z", T.float32, n, n)
    triangle = loop("parallel", i, n, loop("vector", j, i, Store(z, (i, j), L.load(x, [i, j]))), grain=1)
    got, _ = agree(Kernel("triangle", (x, z), (triangle,)), {"x": a, "z": np.zeros(n * n, np.float32)})
    below = np.tri(n, k=-1, dtype=bool)
    assert same_bits(got["z"], np.where(below, a.reshape(n, n).T, np.float32(0)).ravel())


def test_data_dependent_indices() -> None:
    n = 37
    at, x, y = buffer("at", T.int64, n), buffer("x", T.float64, 50), buffer("y", T.float64, n)
    k = L.load(at, [i])
    kernel = Kernel("gather", (at, x, y), (loop("vector", i, n, Store(y, (i,), L.load(x, [k]))),))
    a, where = values(T.float64, 50), np.random.default_rng(0).integers(0, 50, n)
    got, _ = agree(kernel, {"at": where, "x": a, "y": np.zeros(n)})
    assert same_bits(got["y"], a[where])


@pytest.mark.parametrize("n", [3, 16, 21])
def test_masked_loads_and_stores_touch_nothing_else(n: int) -> None:
    """Lanes whose mask is false lie outside of x (the evaluator would notice), and keep y's old value."""
    x, y = buffer("x", T.float32, 4), buffer("y", T.float32, n)
    inside = L.apply("lt", i, index(4))
    e = L.load(x, [i], inside)
    stored = Store(y, (i,), e, L.apply("ne", i, index(2)))
    kernel = Kernel("masked", (x, y), (loop("vector", i, n, stored),))
    a = values(T.float32, 4)
    got, _ = agree(kernel, {"x": a[:4], "y": np.full(n, 7, np.float32)})
    wanted = np.zeros(n, np.float32)
    wanted[: min(n, 4)] = a[: min(n, 4)]
    wanted[2] = 7
    assert same_bits(got["y"], wanted)


def test_a_mask_over_one_element() -> None:
    """A scalar that only some lanes may read: it is not touched when no lane wants it."""
    n = 20
    x, y = buffer("x", T.float32, 1), buffer("y", T.float32, n)
    for first, length in ((0, 1), (15, 1), (99, 0)):
        e = L.load(x, [index(0)], L.apply("ge", i, index(first)))
        kernel = Kernel(f"wanted{first}", (x, y), (loop("vector", i, n, Store(y, (i,), e)),))
        got, _ = agree(kernel, {"x": np.full(length, 3, np.float32), "y": np.ones(n, np.float32)})
        assert same_bits(got["y"], np.where(np.arange(n) >= first, 3, 0).astype(np.float32))


def test_booleans_are_bytes_in_memory_and_bits_in_registers() -> None:
    n = 45
    x, y = buffer("x", T.float32, n), buffer("y", T.bool_, n)
    z = buffer("z", T.bool_, n, strides=[1])
    less = L.apply("lt", L.load(x, [i]), L.const(0, T.float32))
    body = Store(y, (i,), L.apply("xor", less, L.load(z, [i])))
    a, b = values(T.float32, n), values(T.bool_, n)
    kernel = Kernel("signs", (x, z, y), (loop("vector", i, n, body),))
    got, _ = agree(kernel, {"x": a, "z": b, "y": np.zeros(n, bool)})
    assert same_bits(got["y"], (a < 0) ^ b)


def test_in_place() -> None:
    """x is written while it is read."""
    n = 33
    x = buffer("x", T.float32, n)
    kernel = Kernel("inplace", (x,), (loop("vector", i, n, Store(x, (i,), L.apply("neg", L.load(x, [i])))),))
    a = values(T.float32, n)
    got, _ = agree(kernel, {"x": a})
    assert same_bits(got["x"], -a)


def test_a_shared_load_is_read_once_and_a_new_one_again() -> None:
    """One Load object means one read, before the store; another object sees what was stored."""
    x, y = buffer("x", T.float32, 1), buffer("y", T.float32, 2)
    zero, one = index(0), index(1)
    old, new = L.load(x, [zero]), L.load(x, [zero])
    body = (
        Let(var("first", T.float32), old),
        Store(x, (zero,), L.add(old, L.const(1, T.float32))),
        Store(y, (zero,), old),
        Store(y, (one,), new),
    )
    got, _ = agree(Kernel("shared", (x, y), body), {"x": np.array([5], np.float32), "y": np.zeros(2, np.float32)})
    assert got["y"].tolist() == [5, 6]


# ------------------------------------------------------------------------------------- reductions


def reduction(combine: str, how: str, x: L.Buffer, at: list[Expr], axes: list[tuple[L.Var, int | Expr]]) -> Reduce:
    value = L.load(x, at)
    results = (var("m", x.dtype), var("k")) if combine == "argmax" else (var("m", x.dtype),)
    found = (value, axes[0][0]) if combine == "argmax" else (value,)
    return Reduce(results, combine, how, tuple((v, L.as_index(n)) for v, n in axes), (), found)


FOLDS: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "max": lambda a, b: np.where((a != a) | (a > b), a, b),
    "min": lambda a, b: np.where((a != a) | (a < b), a, b),
    "or": np.logical_or,
    "and": np.logical_and,
}
COMBINES = [
    *((c, d) for c in ("add", "max", "min") for d in (T.float32, T.float64, T.int64)),
    ("max", T.bool_),
    ("or", T.bool_),
    ("and", T.bool_),
]


@pytest.mark.parametrize(("combine", "dtype"), COMBINES, ids=str)
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "run time"])
def test_lanes_order(combine: str, dtype: DType, fixed: bool) -> None:
    """The last dimension reduced: the evaluator is `order.fold`, and native code is the evaluator."""
    rows = 3
    for n in (1, 16, 65, 200) if fixed else (1, 63, 64, 200):
        size: int | Expr = n if fixed else var("n")
        x = buffer("x", dtype, rows, size, strides=(n if fixed else size, 1))
        y = buffer("y", dtype, rows)
        reduce = reduction(combine, "lanes", x, [i, r], [(r, size)])
        body = loop("parallel", i, rows, reduce, Store(y, (i,), reduce.results[0]), grain=1)
        params = (x, y) if isinstance(size, int) else (x, y, size)
        for a in (values(dtype, rows * n), ordinary(dtype, rows * n)):
            kernel = Kernel("rows", params, (body,))
            got, _ = agree(kernel, {"x": a, "y": np.zeros(rows, dtype.numpy)}, {"n": n})
            with np.errstate(all="ignore"):
                neutral = order.identity(combine, dtype)
                wanted = order.fold(a.reshape(rows, n), (1,), FOLDS[combine], neutral)
            assert same_bits(got["y"], wanted)


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "run time"])
@pytest.mark.parametrize("n", [order.BLOCK, order.BLOCK + 17, 2 * order.BLOCK + 100])
def test_lanes_order_over_blocks(n: int, fixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    size: int | Expr = n if fixed else var("n")
    x, y = buffer("x", T.float32, size, strides=(1,)), buffer("y", T.float32, 1)
    reduce = reduction("add", "lanes", x, [r], [(r, size)])
    params = (x, y) if isinstance(size, int) else (x, y, size)
    kernel = Kernel("long", params, (reduce, Store(y, (index(0),), reduce.results[0])))
    a = ordinary(T.float32, n, seed=4)
    got, _ = agree(kernel, {"x": a, "y": np.zeros(1, np.float32)}, {"n": n})
    wanted = order.fold(a, (0,), np.add, np.float32(-0.0)).reshape(1)
    assert same_bits(got["y"], wanted)
    # These very numbers tell the orders apart.
    monkeypatch.setattr(order, "BLOCK", 2 * n if n > order.BLOCK else 1024)
    assert not same_bits(wanted, order.fold(a, (0,), np.add, np.float32(-0.0)).reshape(1))


@pytest.mark.parametrize(("combine", "dtype"), COMBINES, ids=str)
def test_serial_order(combine: str, dtype: DType) -> None:
    """The first dimensions reduced, in every lane of a vector loop over the last one."""
    for rows, columns in ((1, 1), (5, 16), (7, 83)):
        x, y = buffer("x", dtype, rows, columns), buffer("y", dtype, columns)
        reduce = reduction(combine, "serial", x, [r, j], [(r, rows)])
        kernel = Kernel(
            "columns",
            (x, y),
            (loop("vector", j, columns, reduce, Store(y, (j,), reduce.results[0]), grain=8),),
        )
        a = values(dtype, rows * columns)
        got, _ = agree(kernel, {"x": a, "y": np.zeros(columns, dtype.numpy)})
        with np.errstate(all="ignore"):
            neutral = order.identity(combine, dtype)
            wanted = order.fold(a.reshape(rows, columns), (0,), FOLDS[combine], neutral)
        assert same_bits(got["y"], wanted)


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "run time"])
def test_serial_order_over_blocks_and_two_axes(fixed: bool) -> None:
    p, q, columns = 20, 30, 5  # 600 rows are three blocks
    sizes: tuple[int | Expr, int | Expr] = (p, q) if fixed else (var("p"), var("q"))
    k = var("k")
    x = buffer("x", T.float32, *sizes, columns, strides=(q * columns, columns, 1))
    y = buffer("y", T.float32, columns)
    reduce = reduction("add", "serial", x, [r, k, j], [(r, sizes[0]), (k, sizes[1])])
    params = (x, y, *(s for s in sizes if isinstance(s, L.Var)))
    kernel = Kernel("planes", params, (loop("vector", j, columns, reduce, Store(y, (j,), reduce.results[0])),))
    a = ordinary(T.float32, p * q * columns)
    got, _ = agree(kernel, {"x": a, "y": np.zeros(columns, np.float32)}, {"p": p, "q": q})
    assert same_bits(got["y"], order.fold(a.reshape(p, q, columns), (0, 1), np.add, np.float32(-0.0)))


def test_both_orders_nested() -> None:
    """All dimensions reduced: lanes over the last, serial over the others."""
    rows, n = 300, 40
    x, y = buffer("x", T.float32, rows, n), buffer("y", T.float32, 1)
    inner = reduction("add", "lanes", x, [i, r], [(r, n)])
    total = var("total", T.float32)
    outer = Reduce((total,), "add", "serial", ((i, index(rows)),), (inner,), (inner.results[0],))
    a = ordinary(T.float32, rows * n)
    kernel = Kernel("all", (x, y), (outer, Store(y, (index(0),), total)))
    got, _ = agree(kernel, {"x": a, "y": np.zeros(1, np.float32)})
    assert same_bits(got["y"], order.fold(a.reshape(rows, n), (0, 1), np.add, np.float32(-0.0)).reshape(1))


@pytest.mark.parametrize("how", ["lanes", "serial"])
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "run time"])
@pytest.mark.parametrize(("combine", "dtype"), COMBINES, ids=str)
def test_empty_reductions(combine: str, dtype: DType, how: str, fixed: bool) -> None:
    size: int | Expr = 0 if fixed else var("n")
    x, y = buffer("x", dtype, size, strides=(1,)), buffer("y", dtype, 1)
    reduce = reduction(combine, how, x, [r], [(r, size)])
    params = (x, y) if isinstance(size, int) else (x, y, size)
    kernel = Kernel("empty", params, (reduce, Store(y, (index(0),), reduce.results[0])))
    got, _ = agree(kernel, {"x": np.zeros(0, dtype.numpy), "y": np.ones(1, dtype.numpy)}, {"n": 0})
    wanted = 0.0 if combine == "add" else order.identity(combine, dtype)
    assert same_bits(got["y"], np.array([wanted], dtype.numpy))


@pytest.mark.parametrize("dtype", [T.float32, T.float64, T.int64, T.bool_], ids=str)
@pytest.mark.parametrize("how", ["lanes", "serial"])
def test_argmax(how: str, dtype: DType) -> None:
    """NaN wins over numbers, the lowest index wins ties."""
    n = 70
    x, y, z = buffer("x", dtype, n), buffer("y", dtype, 1), buffer("z", T.int64, 1)
    reduce = reduction("argmax", how, x, [r], [(r, n)])
    stores = (Store(y, (index(0),), reduce.results[0]), Store(z, (index(0),), reduce.results[1]))
    kernel = Kernel("best", (x, y, z), (reduce, *stores))
    cases = [values(dtype, n, 3), np.zeros(n, dtype.numpy), np.ones(n, dtype.numpy)]
    if dtype.is_floating_point:
        cases += [np.full(n, -np.inf, dtype.numpy), np.where(np.arange(n) % 2, -0.0, 0.0).astype(dtype.numpy)]
        cases += [np.where(np.isin(np.arange(n), (40, 66)), np.nan, np.inf).astype(dtype.numpy)]
    for a in cases:
        got, _ = agree(kernel, {"x": a, "y": np.zeros(1, dtype.numpy), "z": np.zeros(1, np.int64)})
        assert got["z"][0] == np.argmax(a)
        assert same_bits(got["y"], a[np.argmax(a)].reshape(1))


def test_a_row_kept_on_the_stack() -> None:
    """Softmax-like: three phases over one row, the middle one kept in a stack buffer."""
    rows, n = 4, 37
    x, y = buffer("x", T.float32, rows, n), buffer("y", T.float32, rows, n)
    keep = L.Buffer("keep", T.float32, (n,), (1,), "stack")
    top = reduction("max", "lanes", x, [i, r], [(r, n)])
    shifted = L.apply("exp", L.sub(L.load(x, [i, j]), top.results[0]))
    total = var("total", T.float32)
    add = Reduce((total,), "add", "lanes", ((r, index(n)),), (), (L.load(keep, [r]),))
    k = var("k")
    body = (
        Alloc(keep),
        top,
        loop("vector", j, n, Store(keep, (j,), shifted)),
        add,
        loop("vector", k, n, Store(y, (i, k), L.apply("div", L.load(keep, [k]), total))),
    )
    kernel = Kernel("softmax", (x, y), (loop("parallel", i, rows, *body, grain=1),))
    a = ordinary(T.float32, rows * n)
    got, _ = agree(kernel, {"x": a, "y": np.zeros(rows * n, np.float32)})
    np.testing.assert_allclose(got["y"].reshape(rows, n).sum(1), 1, rtol=1e-6)


# --------------------------------------------------------------------------------------- control


def test_carried_values_and_branches() -> None:
    """A running maximum with a branch, in a serial loop that starts elsewhere and takes steps."""
    n = 50
    x, y = buffer("x", T.float32, n), buffer("y", T.float32, n)
    m, after = var("m", T.float32), var("after", T.float32)
    e = L.load(x, [i])
    stored = If(L.apply("gt", e, m), (Store(y, (i,), e),), (Store(y, (i,), L.apply("neg", e)),))
    carry = Carry(m, L.const(-1, T.float32), L.apply("max", m, e), after)
    walk_ = For("serial", i, index(3), index(n), (stored,), 7, (carry,))
    kernel = Kernel("running", (x, y), (walk_, Store(y, (index(0),), after)))
    a = ordinary(T.float32, n)
    got, _ = agree(kernel, {"x": a, "y": np.zeros(n, np.float32)})
    wanted, best = np.zeros(n, np.float32), np.float32(-1)
    for k in range(3, n, 7):
        wanted[k] = a[k] if a[k] > best else -a[k]
        best = max(best, a[k])
    wanted[0] = best
    assert same_bits(got["y"], wanted)


@pytest.mark.parametrize("columns", [5, 16, 40])
def test_carried_vectors(columns: int) -> None:
    """Horner's scheme: a serial loop inside a vector loop carries one value per lane, and its index as a scalar."""
    terms = 6
    c, x, y = buffer("c", T.float32, terms), buffer("x", T.float32, columns), buffer("y", T.float32, columns)
    s, last = var("s", T.float32), var("last", T.float32)
    step = L.apply("fma", s, L.load(x, [j]), L.load(c, [i]))
    inner = For("serial", i, index(0), index(terms), (), 1, (Carry(s, L.const(0, T.float32), step, last),))
    kernel = Kernel("horner", (c, x, y), (loop("vector", j, columns, inner, Store(y, (j,), last)),))
    a, b = ordinary(T.float32, terms), values(T.float32, columns)
    got, _ = agree(kernel, {"c": a, "x": b, "y": np.zeros(columns, np.float32)})
    wanted = np.zeros(columns, np.float32)
    with np.errstate(all="ignore"):
        for k in range(terms):
            wanted = order.fma(wanted, b, a[k])
    assert same_bits(got["y"], wanted)


def test_while() -> None:
    """Collatz steps of one number: scheduled while loops are scalar."""
    x, y = buffer("x", T.int64, 1), buffer("y", T.int64, 1)
    a, b, steps, count = var("a"), var("b"), var("steps"), var("count")
    odd = L.apply("eq", L.apply("mod", a, index(2)), index(1))
    following = L.select(odd, L.add(L.mul(a, index(3)), index(1)), L.apply("div", a, index(2)))
    turn = L.While(
        L.apply("gt", a, index(1)),
        (),
        (
            Carry(a, L.load(x, [index(0)]), following, b),
            Carry(steps, index(0), L.add(steps, index(1)), count),
        ),
    )
    kernel = Kernel("collatz", (x, y), (turn, Store(y, (index(0),), count)))
    for n, wanted in ((1, 0), (27, 111)):
        got, _ = agree(kernel, {"x": np.array([n]), "y": np.array([-1])})
        assert got["y"].tolist() == [wanted]


def test_workspace_and_invoke() -> None:
    """A kernel allocates a workspace of run-time size, has another kernel fill it, and reads it."""
    n, m = var("n"), var("m")
    source, sink = buffer("source", T.float32, m, strides=(1,)), buffer("sink", T.float32, m, strides=(1,))
    body = Store(sink, (i,), L.mul(L.load(source, [i]), L.const(2, T.float32)))
    double = Kernel("double", (source, sink, m), (loop("vector", i, m, body),))
    x, y = buffer("x", T.float32, n, strides=(1,)), buffer("y", T.float32, n, strides=(1,))
    room = L.Buffer("room", T.float32, (n,), (1,), "workspace")
    call = Invoke("double", ((x, index(2)), (room, index(0)), L.sub(n, index(2))))
    copy = loop("vector", j, L.sub(n, index(2)), Store(y, (j,), L.load(room, [j])))
    kernel = Kernel("outer", (x, y, n), (Alloc(room), call, copy))
    for size in (2, 19, 70):
        a = values(T.float32, size)
        got, _ = agree(kernel, {"x": a, "y": np.zeros(size, np.float32)}, {"n": size}, helpers=[double])
        with np.errstate(all="ignore"):
            assert same_bits(got["y"][: size - 2], a[2:] * np.float32(2))


def test_a_workspace_that_does_not_fit_is_reported() -> None:
    n = var("n")
    room = L.Buffer("room", T.float32, (n,), (1,), "workspace")
    kernel = schedule(Kernel("huge", (n,), (Alloc(room), Store(room, (index(0),), L.const(1, T.float32)))), HOST)
    entry = (
        "declare i32 @huge(ptr, i64)\n"
        "define i32 @main_huge(ptr %ctx, ptr %args) {\n"
        "  %n = load i64, ptr %args\n"
        "  %s = call i32 @huge(ptr %ctx, i64 %n)\n"
        "  ret i32 %s\n}\n"
    )
    modules = (emit_kernel(kernel, HOST), Module("main_huge", entry, ("main_huge",), ("huge",)))
    program = Program("huge", HOST, modules, ("main_huge",), (Slot("size", 0, "n"),), (), ())
    executable = load(program)
    executable.run([64])
    with pytest.raises(MemoryError):
        executable.run([1 << 58])
    executable.run([64])


# ---------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize("n", [1, 16, 50])
@pytest.mark.parametrize("kind", ["serial", "vector"])
def test_failed_checks(kind: str, n: int) -> None:
    """The first failing element in program order is recorded with its value; the kernel goes on."""
    x, y = buffer("x", T.int64, n), buffer("y", T.int64, n)
    e = L.load(x, [i])
    body = (Verify(L.apply("lt", e, index(100)), 5, e), Store(y, (i,), e))
    kernel = Kernel("checked", (x, y), (loop(kind, i, n, *body),))
    a = np.arange(n)
    _, failures = agree(kernel, {"x": a, "y": np.zeros(n, np.int64)})
    assert failures == []
    for bad in {0, n // 2, n - 1}:
        b = a.copy()
        b[bad:] += 1000
        got, failures = agree(kernel, {"x": b, "y": np.zeros(n, np.int64)})
        assert failures[0] == (5, 1000 + bad)
        assert len(failures) == n - bad
        assert (got["y"] == b).all()


def test_checks_under_a_mask() -> None:
    n = 40
    x = buffer("x", T.int64, n)
    e = L.load(x, [i])
    check = Verify(L.apply("lt", e, index(30)), 2, e, L.apply("lt", i, index(20)))
    kernel = Kernel("half", (x,), (loop("vector", i, n, check),))
    assert agree(kernel, {"x": np.arange(n)})[1] == []
    assert agree(kernel, {"x": np.arange(n) + 11})[1] == [(2, 30)]


# ---------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads(threads: int) -> None:
    """Outer values, stack buffers and reductions inside parallel bodies, whatever the number of threads."""
    rows, n = 64, 50
    x, y = buffer("x", T.float32, rows, n), buffer("y", T.float32, rows)
    scale = L.load(x, [index(0), index(0)])
    keep = L.Buffer("keep", T.float32, (n,), (1,), "stack")
    copy = loop("vector", j, n, Store(keep, (j,), L.mul(L.load(x, [i, j]), scale)))
    total = var("total", T.float32)
    add = Reduce((total,), "add", "lanes", ((r, index(n)),), (), (L.load(keep, [r]),))
    body = (Alloc(keep), copy, add, Store(y, (i,), total))
    kernel = Kernel("rows", (x, y), (Let(var("s", T.float32), scale), loop("parallel", i, rows, *body, grain=1)))
    a = ordinary(T.float32, rows * n)
    before = get_num_threads()
    set_num_threads(threads)
    try:
        got, _ = agree(kernel, {"x": a, "y": np.zeros(rows, np.float32)})
    finally:
        set_num_threads(before)
    wanted = order.fold(a.reshape(rows, n) * a[0], (1,), np.add, np.float32(-0.0))
    assert same_bits(got["y"], wanted)


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "run time"])
def test_a_long_vector_loop_is_cut_for_threads(fixed: bool) -> None:
    n = 3 * 4096 + 5
    size: int | Expr = n if fixed else var("n")
    x, y = buffer("x", T.float32, size, strides=(1,)), buffer("y", T.float32, size, strides=(1,))
    body = Store(y, (i,), L.apply("sqrt", L.load(x, [i])))
    params = (x, y) if isinstance(size, int) else (x, y, size)
    kernel = Kernel("roots", params, (loop("vector", i, size, body, grain=4096),))
    assert any(isinstance(s, For) and s.kind == "parallel" for s in walk(schedule(kernel, HOST).body))
    a = values(T.float32, n)
    got, _ = agree(kernel, {"x": a, "y": np.zeros(n, np.float32)}, {"n": n})
    with np.errstate(all="ignore"):
        assert same_bits(got["y"], np.sqrt(a))


# ------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_scheduled_says_so() -> None:
    x = buffer("x", T.float32, 4, 4)
    rows = reduction("add", "lanes", x, [i, r], [(r, 4)])
    refused: list[tuple[L.Stmt, str]] = [
        (loop("vector", i, 4, rows), "row reduction inside a vector loop"),
        (loop("vector", i, 4, Store(x, (index(0), index(0)), L.cast(i, T.float32))), "all hit one element"),
        (loop("vector", i, 4, If(L.apply("lt", i, index(2)), ())), "vector condition"),
        (For("vector", i, index(1), index(4), ()), "from 0 in steps of 1"),
        (loop("vector", i, 4, loop("serial", j, i)), "lanes of a vector loop"),
        (L.Barrier(), "no CPU schedule for Barrier"),
    ]
    for s, message in refused:
        with pytest.raises(TypeError, match=message):
            schedule(Kernel("refused", (x,), (s,)), HOST)


def test_logical_kernels_are_not_emitted() -> None:
    x = buffer("x", T.float32, 4)
    kernel = Kernel("logical", (x,), (loop("vector", i, 4, Store(x, (i,), L.const(0, T.float32))),))
    with pytest.raises(TypeError, match="must be scheduled first"):
        emit_kernel(kernel, HOST)


def test_same_text_every_time() -> None:
    x = buffer("x", T.float32, 100)
    kernel = Kernel("text", (x,), (loop("vector", i, 100, Store(x, (i,), L.apply("exp", L.load(x, [i])))),))
    first = emit_kernel(schedule(kernel, HOST), HOST)
    assert first.text == emit_kernel(schedule(kernel, HOST), HOST).text
    assert len(first.text.splitlines()) < 200
    assert evaluate(kernel, {"x": np.zeros(100, np.float32)}) == []
