"""Random kernels, and those that lowering makes of random graphs: all ways of running them agree bit for bit."""

from __future__ import annotations

import random

import numpy as np
import pytest

from kiln.codegen import steps
from kiln.codegen.llvm import exprs
from kiln.codegen.schedule import schedule
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.loops import Buffer, Expr, For, Kernel, Reduce, Store, index
from kiln.ir.target import Target
from tests.codegen.graphs import RandomGraph, compiled
from tests.codegen.kernels import TARGETS, Array, agree, buffer, native, ordinary, values, var

i, j, r = var("i"), var("j"), var("r")
UNARY = ("neg", "abs", "sqrt", "rint", "floor")
BINARY = ("add", "sub", "mul", "div", "max", "min")


def tree(rng: random.Random, leaves: list[Expr], depth: int) -> Expr:
    """A random expression over float leaves, some of it shared."""
    if depth == 0 or rng.random() < 0.1:
        return rng.choice(leaves)
    a = tree(rng, leaves, depth - 1)
    kind = rng.randrange(6)
    if kind == 0:
        made = L.apply(rng.choice(UNARY), a)
    elif kind < 4:
        made = L.apply(rng.choice(BINARY), a, tree(rng, leaves, depth - 1))
    elif kind == 4:
        made = L.apply("fma", a, rng.choice(leaves), rng.choice(leaves))
    else:
        b = rng.choice(leaves)
        made = L.select(L.apply(rng.choice(["lt", "ne", "ge"]), a, b), b, a)
    leaves.append(made)
    return made


def random_kernel(seed: int) -> tuple[Kernel, dict[str, Array]]:
    """Rows of elements: operands of random layouts, perhaps a reduction per row or column, and its uses."""
    rng = random.Random(seed)
    dtype = rng.choice([T.float32, T.float64])
    rows, columns = rng.choice([1, 3, 5]), rng.choice([1, 7, 16, 33, 70])
    layouts = [(columns, 1), (1, rows), (0, 1), (1, 0), (2 * columns, 2), (columns + 3, 1), (0, 0)]
    operands = [buffer(f"x{k}", dtype, rows, columns, strides=rng.choice(layouts)) for k in range(3)]
    arrays = {b.name: values(dtype, 400 + rows * columns, seed + k) for k, b in enumerate(operands)}
    y = buffer("y", dtype, rows, columns)
    arrays["y"] = np.zeros(rows * columns, dtype.numpy)
    m, body = var("m", dtype), []
    kind = rng.choice(["none", "lanes", "serial"])
    if kind != "none":
        at = [i, r] if kind == "lanes" else [r, j]
        inner = tree(rng, [L.load(b, at) for b in operands], 2)
        extent = columns if kind == "lanes" else rows
        body = [Reduce((m,), rng.choice(["add", "max", "min"]), kind, ((r, index(extent)),), (), (inner,))]
    leaves = [L.load(b, [i, j]) for b in operands] + ([m] if body else []) + [L.const(rng.gauss(0, 1), dtype)]
    store = Store(y, (i, j), tree(rng, leaves, 4), L.apply("ne", j, index(2)) if rng.random() < 0.3 else None)
    if kind == "serial":
        # The reduction belongs to a column, all of whose elements follow.
        column = For("serial", i, index(0), index(rows), (store,))
        statement = For("vector", j, index(0), index(columns), (*body, column))
    else:
        row = For("vector", j, index(0), index(columns), (store,))
        statement = For("parallel", i, index(0), index(rows), (*body, row), grain=index(1))
    return Kernel("random", (*operands, y), (statement,)), arrays


@pytest.mark.parametrize("seed", range(40))
def test_random_kernels(seed: int) -> None:
    agree(*random_kernel(seed))


def memory(b: Buffer, seed: int) -> Array:
    """Memory for a buffer of constant layout."""
    size = 1
    for n, stride in zip(b.shape, b.strides, strict=True):
        assert isinstance(n, int) and isinstance(stride, int)
        if n == 0:
            return np.zeros(0, b.dtype.numpy)
        size += (n - 1) * stride
    return (values if b.dtype.is_floating_point else ordinary)(b.dtype, size, seed)


@pytest.mark.parametrize("seed", range(12))
def test_kernels_of_random_graphs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indices into x may be out of range here: then every way reports a failed check, and goes on alike."""
    found: list[Kernel] = []

    def spy(kernel: Kernel, target: Target) -> Kernel:
        found.append(kernel)
        return schedule(kernel, target)

    monkeypatch.setattr(steps, "schedule", spy)
    made = RandomGraph(seed)
    compiled(made.graph())
    assert found
    for kernel in found:
        arrays = {p.name: memory(p, seed + k) for k, p in enumerate(kernel.params) if isinstance(p, Buffer)}
        if sum(a.size for a in arrays.values()) < 600:  # the evaluator is slow
            agree(kernel, arrays)


# --------------------------------------------------------------------------------- do these tests see?


def sums(n: int, how: str) -> tuple[Kernel, dict[str, Array]]:
    """Eight sums of n numbers: one alone may well round to the same bits in another order."""
    x, y, m = buffer("x", T.float32, 8, n), buffer("y", T.float32, 8), var("m", T.float32)
    reduce = Reduce((m,), "add", how, ((r, index(n)),), (), (L.load(x, [i, r]),))
    rows = For("serial", i, index(0), index(8), (reduce, Store(y, (i,), m)))
    return Kernel("sums", (x, y), (rows,)), {"x": ordinary(T.float32, 8 * n), "y": np.zeros(8, np.float32)}


@pytest.mark.parametrize(
    ("how", "name", "value"),
    [("lanes", "BLOCK", 128), ("serial", "ROWS", 128), ("lanes", "LANES", 8)],
)
def test_another_order_of_the_same_sum_is_noticed(
    how: str, name: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree(*sums(300, how))
    monkeypatch.setattr(f"kiln.codegen.schedule.{name}", value)
    if name == "LANES":
        monkeypatch.setattr("kiln.codegen.schedule.STEP", 4 * value)
    with pytest.raises(AssertionError, match="scheduled: y differs"):
        agree(*sums(300, how))


def test_wrong_native_code_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fadd` for `fsub`, in the emitter alone."""
    x, y = buffer("x", T.float32, 20), buffer("y", T.float32, 20)
    e = L.apply("sub", L.load(x, [i]), L.const(1, T.float32))
    kernel = Kernel("less", (x, y), (For("vector", i, index(0), index(20), (Store(y, (i,), e),)),))
    arrays = {"x": ordinary(T.float32, 20), "y": np.zeros(20, np.float32)}
    agree(kernel, arrays)
    monkeypatch.setitem(exprs._FLOAT_OPS, "sub", "fadd")
    with pytest.raises(AssertionError, match=f"{next(iter(TARGETS))}: y differs in 20, first at 0"):
        agree(kernel, arrays)


def test_native_writes_outside_of_a_buffer_are_noticed() -> None:
    """A scheduled kernel whose last vector has no mask."""
    x = buffer("x", T.float32, 32)
    store = Store(x, (L.ramp(index(16), 16),), L.const(1, L.Vec(T.float32, 16)))
    with pytest.raises(AssertionError, match="x was written outside of its bounds"):
        native([Kernel("beyond", (x,), (store,))], next(iter(TARGETS)), {"x": np.zeros(20, np.float32)}, {})
