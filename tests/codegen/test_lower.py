"""From a fusion's body to loops: what is stored when, kept where, and that nothing outside the operands is touched."""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
from collections.abc import Callable

import numpy as np
import pytest

from kiln.codegen.interpret import evaluate
from kiln.codegen.lower import Lowered, lower
from kiln.ir import loops as L
from kiln.ir import loops_walk as W
from kiln.ir.graph import Graph, Value
from kiln.ir.interpreter import evaluate_ref
from kiln.ir.types import DTYPES, TensorType
from tests.codegen.graphs import Array, Maker, compiled, execute, floats, fused_equals_unfused, run, same_bits


def lowered(graph: Graph) -> Lowered:
    return lower(graph, [None] * len(graph.inputs), [None] * len(graph.outputs), [])


def statements(graph: Graph, kind: type[L.Stmt]) -> list[L.Stmt]:
    return [s for s in W.walk(lowered(graph).kernel.body) if isinstance(s, kind)]


def expressions(graph: Graph, fn: str) -> int:
    """How often a function is computed in the kernel's text."""
    seen: set[L.Expr] = set()

    def visit(e: L.Expr) -> None:
        if e not in seen:
            seen.add(e)
            for c in W.expr_children(e):
                visit(c)

    for s in W.walk(lowered(graph).kernel.body):
        for e in W.stmt_exprs(s):
            visit(e)
        for _, ends in W.stmt_blocks(s):
            for e in ends:
                visit(e)
    return sum(isinstance(e, L.Apply) and e.fn == fn for e in seen)


# ------------------------------------------------------------------------------------- structure


def test_a_costly_row_is_computed_once() -> None:
    m = Maker()
    graph = m.build(m.softmax(m.input(7, 100)))
    assert expressions(graph, "exp") == 1
    assert [s.buffer.scope for s in statements(graph, L.Alloc) if isinstance(s, L.Alloc)] == ["stack"]


def test_a_costly_row_that_is_an_output_needs_no_stack() -> None:
    m = Maker()
    x = m.input(7, 100)
    e = m.exp(x)
    graph = m.build(e, m.div(e, m.per_row(m.sum(e, dims=(1,)), 7, 100)))
    assert expressions(graph, "exp") == 1 and not statements(graph, L.Alloc)
    assert fused_equals_unfused(graph, [floats(1, 7, 100)])


def test_a_very_long_row_is_computed_again() -> None:
    m = Maker()
    graph = m.build(m.softmax(m.input(2, 1 << 20)))
    assert expressions(graph, "exp") == 2 and not statements(graph, L.Alloc)


@pytest.mark.parametrize("output", [False, True], ids=["stack", "output"])
@pytest.mark.parametrize("rows", [1, 7])
def test_an_element_of_a_kept_row_is_not_read_before_the_row_is_stored(rows: int, output: bool) -> None:
    """What a pass needs once per row is computed before its loop, when the row that it stores is not there yet."""
    m = Maker()
    x, y = m.input(rows, 100), m.input(rows, 100)
    e = m.div(x, m.like(x, 3.0))
    first = m.reshape(m.slice(e, starts=(0, 0), stops=(rows, 1), steps=(1, 1)), shape=(rows,))
    other = m.sqrt(m.abs(y))
    below = m.where(m.lt(e, m.per_row(first, rows, 100)), e, other)
    total = m.sum(below, dims=(1,))
    ratio = m.div(m.mul(e, other), m.per_row(total, rows, 100))
    graph = m.build(*([e, ratio] if output else [ratio]))
    assert expressions(graph, "sqrt") == 1  # rows are kept
    arrays = [floats(1, rows, 100), floats(2, rows, 100)]
    outputs = [np.full((rows, 100), np.nan, np.float32) for _ in graph.outputs]
    memory = {f"in{k}": a.ravel() for k, a in enumerate(arrays)}
    assert not evaluate(lowered(graph).kernel, memory | {f"out{k}": a.ravel() for k, a in enumerate(outputs)})
    assert all(map(same_bits, outputs, run(graph, arrays, fuse=False)))


def test_full_outputs_are_stored_while_they_are_summed() -> None:
    """One pass over memory: the store stands inside the reduction."""
    m = Maker()
    x = m.input(40, 50)
    y = m.mul(x, x)
    graph = m.build(y, m.sum(y, dims=(0,)))
    (reduce,) = statements(graph, L.Reduce)
    assert isinstance(reduce, L.Reduce) and any(isinstance(s, L.Store) for s in reduce.body)
    assert len(statements(graph, L.For)) == 1


def test_contiguous_operands_are_walked_as_one_row() -> None:
    m = Maker()
    x, y = m.input(3, 4, 5), m.input(3, 4, 5)
    (loop,) = statements(m.build(m.add(x, y)), L.For)
    assert isinstance(loop, L.For) and loop.kind == "vector" and isinstance(loop.hi, L.Const) and loop.hi.value == 60


def test_few_outer_iterations_are_merged() -> None:
    """Two times thirty rows are sixty to share out, not two."""
    m = Maker()
    x = m.input(2, 30, 8)
    loops = statements(m.build(m.sum(x, dims=(2,))), L.For)
    assert [s.kind for s in loops if isinstance(s, L.For)] == ["parallel"]
    (loop,) = loops
    assert isinstance(loop, L.For) and isinstance(loop.hi, L.Const) and loop.hi.value == 60


def test_work_is_estimated() -> None:
    m = Maker()
    x = m.input(10, 10)
    small = lowered(m.build(m.add(x, x))).work
    m = Maker()
    x = m.input(100, 100)
    assert 100 <= small < lowered(m.build(m.add(x, x))).work


# ---------------------------------------------------------------------------------------- memory


class Fenced:
    """Arrays that end exactly where readable memory ends."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.maps: list[mmap.mmap] = []

    def array(self, like: Array) -> Array:
        page = mmap.PAGESIZE
        room = -(-max(1, like.nbytes) // page) * page
        block = mmap.mmap(-1, room + page)
        self.maps.append(block)
        start = ctypes.addressof(ctypes.c_char.from_buffer(block))
        if self.libc.mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        made = np.frombuffer(block, like.dtype, like.size, room - like.nbytes).reshape(like.shape)
        made[...] = like
        return made


def _relu(m: Maker, x: Value) -> Value:
    return m.relu(x)


def _sum_rows(m: Maker, x: Value) -> Value:
    return m.sum(x, dims=(1,))


def _sum_columns(m: Maker, x: Value) -> Value:
    return m.sum(x, dims=(0,))


def _turn(m: Maker, x: Value) -> Value:
    return m.exp(m.permute(x, dims=(1, 0)))


def _double(m: Maker, x: Value) -> Value:
    return m.cat(x, x, dim=1)


@pytest.mark.parametrize("columns", [1, 3, 15, 16, 17, 63, 65, 100])
@pytest.mark.parametrize("make", [_relu, Maker.softmax, _sum_rows, _sum_columns, _turn, _double])
def test_nothing_past_the_end_is_read_or_written(make: Callable[[Maker, Value], Value], columns: int) -> None:
    m = Maker()
    graph = m.build(make(m, m.input(3, columns)))
    fence = Fenced()
    a = fence.array(floats(1, 3, columns))
    program = compiled(graph)
    out = fence.array(np.zeros(program.output_types[0].static_shape(), "float32"))
    from kiln.runtime.executable import load

    load(program).run([x.__array_interface__["data"][0] for x in (a, out)])
    assert same_bits(out, execute(program, [a.copy()])[0])


# ------------------------------------------------------------------------------------ empty shapes


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_empty_shapes(shape: tuple[int, int]) -> None:
    m = Maker()
    x = m.input(*shape)
    total = m.sum(x, dims=(1,))
    graph = m.build(m.exp(x), total, m.sum(x, dims=(0,)), m.sum(x, dims=(0, 1)), m.neg(total))
    a = floats(1, *shape)
    for got, wanted in zip(execute(compiled(graph), [a]), evaluate_ref(graph, [a]), strict=True):
        assert same_bits(got, wanted)


@pytest.mark.parametrize("shape", [(5, 7), (16, 16), (33, 50), (100, 3), (2, 40, 40)])
def test_transposed_operands(shape: tuple[int, ...]) -> None:
    """Tiles of rows and columns, whole and partial, on every rank and dtype."""
    for dtype in ("float32", "float64"):
        m = Maker()
        x = m.builder.input(TensorType(DTYPES[dtype], shape[::-1]))
        y = m.builder.input(TensorType(DTYPES[dtype], shape))
        graph = m.build(m.sub(m.permute(x, dims=tuple(reversed(range(len(shape))))), y))
        a, b = floats(1, *shape[::-1], dtype=dtype), floats(2, *shape, dtype=dtype)
        assert same_bits(execute(compiled(graph), [a, b])[0], a.T - b)
