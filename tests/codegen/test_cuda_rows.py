"""Reductions on a GPU: teams of threads for rows of every length, several launches for few long runs. The bits are the
CPU's; what is read of memory, and how often, is counted."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from kiln.codegen.cuda.pipeline import compile_cuda
from kiln.ir.gpu_program import CudaProgram
from kiln.ir.graph import Graph, Value
from kiln.ir.types import DType, Sym, TensorType, bfloat16, float32, float64, int8, int64
from tests.codegen.cuda_host import Host
from tests.codegen.graphs import Maker, compiled, execute, floats, same_bits
from tests.codegen.test_cuda_access import agrees, needs_compiler, some
from tests.gpu import shim


@needs_compiler
@pytest.mark.parametrize("order", sorted(shim.ORDERS))
def test_rows_of_every_length(order: str) -> None:
    """Teams of 1 to 32 threads, whose elements are neighbours or not; the last block of threads has rows to spare."""
    m, arrays, results = Maker(), [], []
    lengths = {float32: (1, 2, 3, 5, 8, 16, 63, 64, 65, 130, 1001, 1024, 4100)}
    for dtype in (float32, float64, bfloat16, int8, int64):
        for n in lengths.get(dtype, (3, 40, 128, 1001)):
            x = m.input(19, n, dtype=dtype)
            arrays.append(some(dtype, 19, n))
            results += [m.sum(x, dims=(1,)), m.amax(x, dims=(1,)), m.argmax(x, dims=(1,))]
    graph = m.build(*results)
    made = compile_cuda(graph)
    got, failed = Host([made]).run(made, arrays, order=order)
    assert failed is None
    for a, b in zip(got, execute(compiled(graph), arrays), strict=True):
        assert same_bits(a, b)


@needs_compiler
@pytest.mark.parametrize("n", [3, 64, 77, 4096])
def test_zeros_of_either_sign_and_nans(n: int) -> None:
    m = Maker()
    x = m.input(40, n)
    a = floats(0, 40, n, special=True)
    a[::2] = np.where(np.random.default_rng(0).random((20, n)) < 0.5, 0.0, -0.0)
    agrees(m.build(m.sum(x, dims=(1,)), m.amax(x, dims=(1,)), m.amin(x, dims=(1,)), m.prod(x, dims=(1,))), [a])


@needs_compiler
def test_rows_at_places_that_do_not_allow_wide_accesses() -> None:
    m = Maker()
    graph = m.build(m.softmax(m.input(5, 128)))
    memory = floats(0, 5 * 131 + 8)
    for start, pitch in ((1, 128), (0, 131), (3, 130), (4, 132)):
        rows = np.lib.stride_tricks.as_strided(memory[start:], (5, 128), (pitch * 4, 4))
        agrees(graph, [rows])


def launches(made: CudaProgram) -> int:
    return len(made.launches)


@needs_compiler
@pytest.mark.parametrize("n", [90_000, 131_072 * 2])
def test_a_long_line_is_summed_by_many_blocks(n: int) -> None:
    m = Maker()
    x = m.input(n)
    total = m.sum(m.mul(x, x), dims=(0,))
    made = agrees(m.build(m.sqrt(total)), [floats(0, n)])
    assert launches(made) == 2


@needs_compiler
def test_few_long_rows() -> None:
    """Blocks of rows, their sums, and so on for each reduction; then the results."""
    m = Maker()
    made = agrees(m.build(m.softmax(m.input(2, 50_001))), [floats(0, 2, 50_001)])
    assert launches(made) == 5
    m = Maker()
    made = agrees(m.build(m.argmax(m.input(3, 70_000), dims=(1,))), [floats(0, 3, 70_000)])
    assert launches(made) == 2


@needs_compiler
@pytest.mark.parametrize("dtype", [float32, bfloat16, int64], ids=str)
def test_columns(dtype: DType) -> None:
    m = Maker()
    x = m.input(1030, 40, dtype=dtype)
    square = m.mul(x, x)
    made = agrees(m.build(m.sum(square, dims=(0,)), m.amax(square, dims=(0,))), [some(dtype, 1030, 40)])
    assert launches(made) == 2  # both read it once
    m = Maker()
    made = agrees(m.build(m.sum(m.input(3, 1000, 40, dtype=dtype), dims=(1,))), [some(dtype, 3, 1000, 40)])
    assert launches(made) == 2


@needs_compiler
def test_many_blocks_of_columns() -> None:
    """Their sums are added by a block of threads each."""
    m = Maker()
    x = m.abs(m.input(10_000, 7))
    made = agrees(m.build(m.sum(x, dims=(0,)), m.sqrt(m.sum(m.mul(x, x), dims=(0,)))), [floats(0, 10_000, 7)])
    assert launches(made) == 3
    assert "__syncthreads" in made.source()


def normalised(m: Maker, x: Value, dims: tuple[int, ...], old: Value) -> tuple[Value, Value]:
    """x minus its mean over `dims`, over its deviation; and old / 2 + mean."""
    shape = x.type.static_shape()
    kept = tuple(d for d in range(len(shape)) if d not in dims)
    small = tuple(shape[d] for d in kept)
    n = float(np.prod([shape[d] for d in dims]))

    def mean(v: Value) -> Value:
        return m.div(m.sum(v, dims=dims), m.full(shape=small, dtype=float32, value=n))

    average = mean(x)
    d = m.sub(x, m.spread(average, *shape, dims=kept))
    deviation = m.sqrt(mean(m.mul(d, d)))
    half = m.full(shape=small, dtype=float32, value=0.5)
    return m.div(d, m.spread(deviation, *shape, dims=kept)), m.add(m.mul(old, half), average)


@needs_compiler
@pytest.mark.parametrize("dims, shape", [((0, 2, 3), (9, 5, 40, 28)), ((0,), (2000, 33)), ((1,), (3, 900, 20))])
def test_statistics_over_the_batch(dims: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """What is kept of a row is an input too, and its memory the result's: it is read before it is written."""
    m = Maker()
    small = tuple(n for d, n in enumerate(shape) if d not in dims)
    x, old = m.input(*shape), m.input(*small)
    graph = m.build(*normalised(m, x, dims, old), aliases=[(1, 1)])
    arrays = [floats(0, *shape), floats(1, *small)]
    wanted = execute(compiled(graph), [a.copy() for a in arrays])
    made = compile_cuda(graph)
    host = Host([made])
    for order in shim.ORDERS:
        copies = [a.copy() for a in arrays]
        got, failed = host.run(made, copies, order=order)
        assert failed is None
        for a, b in zip(got, wanted, strict=True):
            assert same_bits(a, b)
    assert launches(made) > 3


@needs_compiler
def test_sums_over_the_batch_share_their_reads() -> None:
    m = Maker()
    x, y = m.abs(m.input(30, 3, 40, 12)), m.input(30, 3, 40, 12)
    graph = m.build(m.sum(x, dims=(0, 2, 3)), m.sqrt(m.sum(m.mul(x, y), dims=(0, 2, 3))))
    made = agrees(graph, [floats(0, 30, 3, 40, 12), floats(1, 30, 3, 40, 12)])
    assert launches(made) == 3
    assert traffic(graph)["in0"] == traffic(graph)["in1"] == 1


@needs_compiler
def test_columns_of_any_number() -> None:
    m = Maker()
    n = Sym("n")
    x = m.builder.input(TensorType(float32, (n, 24)))
    made = compile_cuda(m.build(m.sum(m.mul(x, x), dims=(0,))))
    host = Host([made])
    for rows in (0, 1, 255, 256, 257, 3000):
        a = floats(0, rows, 24)
        fixed = Maker()
        y = fixed.input(rows, 24)
        wanted = execute(compiled(fixed.build(fixed.sum(fixed.mul(y, y), dims=(0,)))), [a])
        for order in shim.ORDERS:
            got, failed = host.run(made, [a], {"n": rows}, order=order)
            assert failed is None and same_bits(got[0], wanted[0])


def traffic(graph: Graph) -> dict[str, int]:
    """How often the text reads and writes each parameter in global memory, rounds of one loop counted once."""
    found: dict[str, int] = {}
    for text in compile_cuda(graph).kernels:
        for moved, there in re.findall(r", (\w+\d), |\b((?:in|out|work)\d+)\[", text.function.partition("{")[2]):
            name = moved or there
            if not re.fullmatch(r"(in|out|work)\d+", name):
                continue
            found[name] = found.get(name, 0) + 1
    return found


def layer_norm(m: Maker, x: Value, weight: Value) -> Value:
    rows, columns = x.type.static_shape()

    def mean(v: Value) -> Value:
        return m.per_row(
            m.div(m.sum(v, dims=(1,)), m.full(shape=(rows,), dtype=float32, value=float(columns))), rows, columns
        )

    d = m.sub(x, mean(x))
    return m.mul(m.div(d, m.sqrt(mean(m.mul(d, d)))), m.spread(weight, rows, columns, dims=(1,)))


def forms(m: Maker, columns: int) -> Sequence[Value]:
    x, y = m.input(64, columns), m.input(64, columns)
    gradient = m.mul(y, m.sub(x, m.per_row(m.sum(m.mul(x, y), dims=(1,)), 64, columns)))
    return m.softmax(x), m.log_softmax(x), layer_norm(m, x, m.input(columns)), gradient


@pytest.mark.parametrize("columns", [256, 1024, 4096, 8192])
def test_rows_are_read_and_written_once(columns: int) -> None:
    """softmax, log_softmax, layer_norm and the gradient of softmax: as many accesses as there are operands."""
    for k in range(4 if columns < 8192 else 3):  # two such rows have no room
        m = Maker()
        found = traffic(m.build(forms(m, columns)[k]))
        assert found == dict.fromkeys(found, 1), (k, found)
        assert set(found) >= {"in0", "out0"}


@needs_compiler
@pytest.mark.parametrize("dtype", [float32, bfloat16], ids=str)
@pytest.mark.parametrize("values, table", [((3000,), (50,)), ((2, 900, 12), (40, 12)), ((700, 300), (9, 300))])
def test_values_that_meet_do_so_in_order(values: tuple[int, ...], table: tuple[int, ...], dtype: DType) -> None:
    """More than a round of them, rows of the table of any width."""
    places = values[: len(values) - len(table) + 1]
    m = Maker()
    x, at = m.input(*values, dtype=dtype), m.input(*places, dtype=int64)
    rank = len(places)
    attrs = {"at": tuple(range(rank)), "place": (-1, *range(rank, len(values))), "wrap": True}
    graph = m.build(m.scatter_add(m.full(shape=table, dtype=dtype, value=1.5), x, at, **attrs))
    indices = np.random.default_rng(0).integers(-table[0], table[0], places)
    indices[..., ::3] = 1  # many meet one element
    arrays = [some(dtype, *values), indices]
    made = compile_cuda(graph)
    assert "k_rank" in made.source()
    host = Host([made])
    wanted = execute(compiled(graph), arrays)
    for order in shim.ORDERS:
        got, failed = host.run(made, arrays, order=order)
        assert failed is None
        assert same_bits(got[0], wanted[0])


@needs_compiler
def test_a_place_that_does_not_exist_is_told() -> None:
    m = Maker()
    x, at = m.input(700), m.input(700, dtype=int64)
    attrs = {"at": (0,), "place": (-1,), "wrap": True}
    graph = m.build(m.scatter_add(m.full(shape=(5,), dtype=float32, value=0.0), x, at, **attrs))
    made = compile_cuda(graph)
    indices = np.zeros(700, np.int64)
    indices[650] = 5
    _, failed = Host([made]).run(made, [floats(0, 700), indices])
    assert failed is not None and failed[1] == 5


@needs_compiler
def test_any_number_of_rows() -> None:
    """One text for every batch: its last block of threads has rows to spare."""
    m = Maker()
    n = Sym("n")
    x = m.builder.input(TensorType(float32, (n, 10)))
    made = compile_cuda(m.build(m.sum(m.exp(x), dims=(1,)), m.sum(x, dims=(0, 1))))
    host = Host([made])
    for rows in (0, 1, 63, 64, 65, 400):
        a = floats(0, rows, 10)
        fixed = Maker()
        y = fixed.input(rows, 10)
        wanted = execute(compiled(fixed.build(fixed.sum(fixed.exp(y), dims=(1,)), fixed.sum(y, dims=(0, 1)))), [a])
        for order in shim.ORDERS:
            got, failed = host.run(made, [a], {"n": rows}, order=order)
            assert failed is None
            assert all(map(same_bits, got, wanted))
