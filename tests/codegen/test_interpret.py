"""The evaluator notices what native code does not, and refuses what it does not define."""

from __future__ import annotations

import numpy as np
import pytest

from kiln.codegen import matmul
from kiln.codegen.interpret import EvaluationError, evaluate
from kiln.ir import loops as L
from kiln.ir import order
from kiln.ir import types as T
from kiln.ir.loops import Alloc, Carry, Expr, For, Invoke, Kernel, Let, Reduce, Stmt, Store, index
from tests.codegen.kernels import HOST, buffer, ordinary, same_bits, var

i, j = var("i"), var("j")
x = buffer("x", T.float32, 8)
ONE = L.const(1, T.float32)


def run(*body: Stmt, backward: bool = False) -> list[float]:
    memory = np.arange(8, dtype=np.float32)
    evaluate(Kernel("k", (x,), body), {"x": memory}, backward=backward)
    return [float(v) for v in memory]


def each(kind: str, *body: Stmt, hi: int = 8) -> For:
    return For(kind, i, index(0), index(hi), body)


@pytest.mark.parametrize("at", [-1, 8])
def test_accesses_outside_of_a_buffer(at: int) -> None:
    with pytest.raises(EvaluationError, match=f"x has 8 elements, offset {at} is accessed"):
        run(Store(x, (index(at),), ONE))
    with pytest.raises(EvaluationError, match="offset"):
        run(Store(x, (index(0),), L.load(x, [index(at)])))
    with pytest.raises(EvaluationError, match="offset"):
        run(Store(x, (L.ramp(index(at - 7 if at > 0 else at), 8),), L.const(0, L.Vec(T.float32, 8))))


def test_masked_lanes_are_not_accessed() -> None:
    mask = L.apply("lt", L.ramp(index(6), 4), L.const(8, L.Vec(T.int64, 4)))
    assert run(Store(x, (L.ramp(index(6), 4),), L.const(0, L.Vec(T.float32, 4)), mask))[5:] == [5, 0, 0]


def test_names_without_a_value() -> None:
    with pytest.raises(EvaluationError, match="variable i is not bound here"):
        run(Store(x, (i,), ONE))
    with pytest.raises(EvaluationError, match="variable i is not bound here"):
        run(each("serial", Store(x, (i,), ONE)), Store(x, (i,), ONE))  # a loop's variable ends with the loop
    with pytest.raises(EvaluationError, match="buffer y is not bound here"):
        run(Store(buffer("y", T.float32, 8), (index(0),), ONE))


def test_lets_end_with_their_block() -> None:
    a = var("a", T.float32)
    with pytest.raises(EvaluationError, match="variable a is not bound here"):
        run(L.If(L.const(True, T.bool_), (Let(a, ONE),)), Store(x, (index(0),), a))


def test_iterations_that_are_not_independent_show_backward() -> None:
    shift = each("vector", Store(x, (i + 1,), L.load(x, [i])), hi=7)
    assert run(shift) != run(shift, backward=True)
    ordered = each("serial", Store(x, (i + 1,), L.load(x, [i])), hi=7)
    assert run(ordered) == run(ordered, backward=True)


def test_fresh_memory_spoils_what_reads_it() -> None:
    room = L.Buffer("room", T.float32, (4,), (1,), "stack")
    assert np.isnan(run(Alloc(room), Store(x, (index(0),), L.load(room, [index(2)])))[0])


def test_wrong_memory_is_refused() -> None:
    kernel = Kernel("k", (x,), ())
    for bad in (np.zeros(8), np.zeros((2, 4), np.float32)):
        with pytest.raises(TypeError, match="x takes a 1-D float32 array"):
            evaluate(kernel, {"x": bad})
    with pytest.raises(KeyError):
        evaluate(kernel, {})


def test_what_is_not_defined_here_says_so() -> None:
    carry = Carry(var("c"), index(0), var("c"), var("d"))
    lanes = L.Vec(T.bool_, 4)
    refused: list[tuple[Stmt, type[Exception], str]] = [
        (L.Barrier(), NotImplementedError, "no Barrier"),
        (each("grid"), NotImplementedError, "no grid loops"),
        (Let(var("w", T.float32), L.Warp(L.Vec(T.float32), ONE, 1)), NotImplementedError, "no Warp"),
        (L.While(L.const(True, lanes), (), ()), NotImplementedError, "no vector While"),
        (For("parallel", i, index(0), index(1), (), 1, (carry,)), EvaluationError, "parallel loop carries"),
        (Invoke("nobody", ()), EvaluationError, "no kernel called 'nobody'"),
        (
            Reduce((var("m", T.float32),), "add", "sideways", ((j, index(2)),), (), (ONE,)),
            EvaluationError,
            "sideways",
        ),
    ]
    for s, error, message in refused:
        with pytest.raises(error, match=message):
            run(s)


def test_calls_pass_memory_at_an_offset() -> None:
    n, y = var("n"), buffer("y", T.float32, 8)
    fill = Kernel("fill", (y, n), (For("serial", i, index(0), n, (Store(y, (i,), ONE),)),))
    memory = np.zeros(8, np.float32)
    outer = Kernel("outer", (x,), (Invoke("fill", ((x, index(3)), index(2))),))
    evaluate(outer, {"x": memory}, functions={"fill": fill})
    assert memory.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


def test_reductions_see_their_body() -> None:
    """Statements of a Reduce run once a point, before its value."""
    square, total = var("square", T.float32), var("total", T.float32)
    value: Expr = L.load(x, [j])
    body = (Let(square, L.mul(value, value)), Store(x, (j,), ONE))
    reduce = Reduce((total,), "add", "serial", ((j, index(8)),), body, (square,))
    assert run(reduce, Store(x, (index(0),), total)) == [140, *[1] * 7]


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 1, 300), (9, 50, 3)], ids=str)
def test_the_matrix_product_is_the_contraction_order(shape: tuple[int, int, int]) -> None:
    """The kernels of `codegen/matmul.py`, evaluated: the largest scheduled kernels there are."""
    m, n, k = shape
    a, b = ordinary(T.float32, m * k), ordinary(T.float32, k * n, 1)
    c = np.full(m * n, 7, np.float32)
    kernels = {kernel.name: kernel for kernel in matmul.kernels(T.float32, HOST)}
    entry = kernels["kiln_matmul_float32"]
    numbers = [1, m, n, k, m * k, k, 1, k * n, n, 1, m * n, n, 1]
    names = [p.name for p in entry.params]
    scalars = dict(zip(names[3:], numbers, strict=True))
    evaluate(entry, dict(zip(names, (a, b, c), strict=False)), scalars, functions=kernels)
    assert same_bits(c.reshape(m, n), order.contract(a.reshape(m, k), b.reshape(k, n)))
