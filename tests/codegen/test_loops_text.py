"""Kernels as text: readable, the same for equal kernels, and every node has a form."""

from __future__ import annotations

import pytest

from kiln.codegen.schedule import schedule
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.loops import Alloc, Carry, For, If, Invoke, Kernel, Let, Reduce, Stmt, Store, Verify, index
from kiln.ir.loops_gpu import Move
from kiln.ir.loops_text import print_kernel
from tests.codegen.kernels import HOST, buffer, var


def softmax(suffix: str = "") -> Kernel:
    """Rows of a softmax; `suffix` makes the variables' names others."""
    i, j, r = (var(stem + suffix) for stem in ("i", "j", "r"))
    rows, n = 4, 10
    x, y = buffer("x", T.float32, rows, n), buffer("y", T.float32, rows, n)
    top, total = var("top" + suffix, T.float32), var("total" + suffix, T.float32)
    shifted = L.apply("exp", L.sub(L.load(x, [i, j]), top))
    again = L.apply("exp", L.sub(L.load(x, [i, r]), top))
    body: tuple[Stmt, ...] = (
        Reduce((top,), "max", "lanes", ((r, index(n)),), (), (L.load(x, [i, r]),)),
        Reduce((total,), "add", "lanes", ((r, index(n)),), (), (again,)),
        For("vector", j, index(0), index(n), (Store(y, (i, j), L.apply("div", shifted, total)),)),
    )
    return Kernel("softmax", (x, y), (For("parallel", i, index(0), index(rows), body, grain=index(2)),))


def test_a_kernel_reads_like_python() -> None:
    assert str(softmax()) == (
        "def softmax(x: float32[4, 10] strides (10, 1), y: float32[4, 10] strides (10, 1)):\n"
        "  for i in parallel(4) grain 2:\n"
        "    top = max over r in 10 by lanes:\n"
        "      yield x[i, r]\n"
        "    total = add over r1 in 10 by lanes:\n"
        "      yield exp((x[i, r1] - top))\n"
        "    for j in vector(10):\n"
        "      y[i, j] = (exp((x[i, j] - top)) / total)\n"
    )


def test_names_of_variables_do_not_show() -> None:
    assert print_kernel(softmax()) == print_kernel(softmax("_7")) == print_kernel(softmax("_12"))


def test_schedules_print_the_same_every_time() -> None:
    assert print_kernel(schedule(softmax(), HOST)) == print_kernel(schedule(softmax(), HOST))


def test_every_statement_has_a_form() -> None:
    i, n, a, b = var("i"), var("n"), var("a"), var("b")
    x = buffer("x", T.float32, n, strides=(1,))
    e = L.load(x, [i])
    loop = For(
        "serial",
        i,
        index(1),
        n,
        (
            Verify(L.apply("lt", i, n), 3, i),
            If(L.apply("gt", e, L.const(0, T.float32)), (Store(x, (i,), e),)),
        ),
        2,
        (Carry(a, index(0), L.add(a, index(1)), b),),
    )
    room = L.Buffer("room", T.float32, (8,), (1,), "stack")
    body = (
        Alloc(room),
        loop,
        Let(var("c"), L.mul(b, index(2))),
        L.While(L.apply("lt", a, n), (L.Barrier(),), (Carry(a, b, L.add(a, index(1)), b),)),
        Move(x, (b,), room, n, store=False),
        Invoke("other", ((room, index(4)), b)),
    )
    text = print_kernel(Kernel("forms", (x, n), body))
    assert text == (
        "def forms(x: float32[n] strides (1), n):\n"
        "  stack room: float32[8] strides (1)\n"
        "  for i in range(1, n, 2) carrying a = 0:\n"
        "    verify (i < n) site 3 value i\n"
        "    if (x[i] > 0.0):\n"
        "      x[i] = x[i]\n"
        "    a <- (a + 1)\n"
        "  c = (a * 2)\n"
        "  while (a1 < n) carrying a1 = a:\n"
        "    barrier\n"
        "    a1 <- (a1 + 1)\n"
        "  move room <- x[a1] of n\n"
        "  other(room+4, a1)\n"
    )


def test_every_expression_has_a_form() -> None:
    x = buffer("x", T.float32, 64)
    lane = L.ramp(index(8), 4)
    mask = L.apply("lt", lane, L.splat(var("n"), 4))
    v = L.load(x, [lane], mask)
    swapped = L.shuffle([v], [3, 2, 1, 0])
    body = (
        Store(x, (lane,), L.select(mask, L.const(-0.0, v.type), swapped), mask),
        Let(var("w", T.float32), L.Warp(L.Vec(T.float32), L.const(1, T.float32), 8)),
        Let(var("k", T.int32), L.bitcast(L.cast(L.const(1, T.int64), T.float32), T.int32)),
    )
    text = print_kernel(Kernel("forms", (x, var("m")), body))
    for part in (
        "ramp(8)",
        "splat(n)",
        "where",
        "shuffle(",
        "; 3, 2, 1, 0)",
        "splat(-0.0)",
        "shuffle_xor(1.0, 8)",
    ):
        assert part in text
    assert "bitcast(cast(1, float32), int32)" in text


def test_special_values_are_exact() -> None:
    y = buffer("y", T.float32, 1)
    for value, shown in (
        (float("inf"), "inf"),
        (-0.0, "-0.0"),
        (0.1, "0.10000000149011612"),
        (1e-45, "1.40129"),
    ):
        kernel = Kernel("constant", (y,), (Store(y, (index(0),), L.const(value, T.float32)),))
        assert f"y[0] = {shown}" in print_kernel(kernel)


def test_unknown_nodes_are_refused() -> None:
    with pytest.raises(TypeError, match="no text for Stmt"):
        print_kernel(Kernel("bad", (), (Stmt(),)))
