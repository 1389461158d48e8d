"""How kernels access memory: several points per thread, rows that are read once, tiles of transposes. The bits are the
CPU's at any size, alignment and stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kiln.codegen.cuda.pipeline import compile_cuda
from kiln.ir.gpu_program import CudaProgram, number
from kiln.ir.graph import Graph
from kiln.ir.types import DType, Sym, TensorType, bfloat16, bool_, complex64, float32, float64, int8
from tests.codegen.cuda_host import Host
from tests.codegen.graphs import Maker, compiled, execute, floats, same_bits
from tests.gpu import nvrtc, shim

Array = np.ndarray[Any, Any]
needs_compiler = pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))


def agrees(graph: Graph, arrays: Sequence[Array]) -> CudaProgram:
    """The program, whose results were those of the CPU's."""
    strides = [None if a.flags.c_contiguous else tuple(s // a.itemsize for s in a.strides) for a in arrays]
    made = compile_cuda(graph, strides)
    got, failed = Host([made]).run(made, arrays)
    assert failed is None
    for a, b in zip(got, execute(compiled(graph, arrays), arrays), strict=True):
        assert same_bits(a, b)
    return made


def some(dtype: DType, *shape: int) -> Array:
    return (floats(0, *shape) * 3).astype(dtype.numpy)


@needs_compiler
@pytest.mark.parametrize("dtype", [float32, float64, bfloat16, int8, complex64], ids=str)
@pytest.mark.parametrize("n", [1, 4, 1003])
def test_lines(dtype: DType, n: int) -> None:
    m = Maker()
    x, y = m.input(n, dtype=dtype), m.input(n, dtype=dtype)
    source = agrees(m.build(m.add(m.mul(x, y), y)), [some(dtype, n), some(dtype, n)[::-1].copy()]).source()
    assert ("k_get" in source) == (n >= 4)


@needs_compiler
def test_a_line_that_is_not_aligned() -> None:
    m = Maker()
    graph = m.build(m.exp(m.input(45)))
    memory = floats(0, 64)
    for start in range(5):
        agrees(graph, [memory[start : start + 45]])


@needs_compiler
@pytest.mark.parametrize("shape", [(5, 8), (3, 7), (33, 12), (1, 4)])
def test_broadcast_rows(shape: tuple[int, int]) -> None:
    m = Maker()
    x, row, column = m.input(*shape), m.input(shape[1]), m.input(shape[0])
    total = m.add(x, m.spread(row, *shape, dims=(1,)))
    graph = m.build(m.mul(total, m.per_row(column, *shape)))
    agrees(graph, [floats(0, *shape), floats(1, shape[1]), floats(2, shape[0])])


@needs_compiler
def test_any_size() -> None:
    """One text for every size."""
    m = Maker()
    n, k = Sym("n"), Sym("k")
    x, y = (m.builder.input(TensorType(float32, (n, k))) for _ in range(2))
    added = m.add(x, y)
    sums = m.sum(added, dims=(1,))
    made = compile_cuda(m.build(added, sums), [None, (Sym("a"), 1)])
    host = Host([made])
    for shape in ((3, 5), (8, 16), (0, 3), (1, 1), (2, 300), (2, 5000)):
        wide = floats(1, shape[0], shape[1] + 3)
        a, b = floats(0, *shape), wide[:, : shape[1]]
        got, failed = host.run(made, [a, b], {"n": shape[0], "k": shape[1], "a": shape[1] + 3})
        assert failed is None
        assert same_bits(got[0], a + b)
        fixed = Maker()
        p, q = fixed.input(*shape), fixed.input(*shape)
        wanted = execute(compiled(fixed.build(fixed.sum(fixed.add(p, q), dims=(1,)))), [a, b.copy()])
        assert same_bits(got[1], wanted[0])


@needs_compiler
@pytest.mark.parametrize("columns", [3, 64, 130, 1001, 5000])
def test_rows_are_read_once(columns: int) -> None:
    m = Maker()
    graph = m.build(m.softmax(m.input(5, columns)), m.log_softmax(m.input(5, columns)))
    source = agrees(graph, [floats(0, 5, columns), floats(1, 5, columns)]).source()
    assert "in0_row + " in source
    assert "in0[" not in source and source.count(", in0, ") == 2  # what asks for the rows


@needs_compiler
@pytest.mark.parametrize("shape", [(2, 33, 70), (1, 16, 16), (3, 40, 15)])
@pytest.mark.parametrize("dtype", [float32, bool_, float64], ids=str)
def test_transposes(shape: tuple[int, int, int], dtype: DType) -> None:
    m = Maker()
    x, y = m.input(*shape, dtype=dtype), m.input(shape[0], shape[2], shape[1], dtype=dtype)
    turned = m.permute(x, dims=(0, 2, 1))
    both = m.eq(turned, y) if dtype is bool_ else m.add(turned, y)
    source = agrees(m.build(both), [some(dtype, *shape), some(dtype, shape[0], shape[2], shape[1])]).source()
    assert ("tile0" in source) == (min(shape[1:]) >= 16)


@needs_compiler
@pytest.mark.parametrize("order", sorted(shim.ORDERS))
def test_threads_in_any_order(order: str) -> None:
    m = Maker()
    x = m.input(40, 150)
    graph = m.build(m.copy(m.permute(x, dims=(1, 0))), m.softmax(x))
    made, a = compile_cuda(graph), floats(0, 40, 150)
    got, failed = Host([made]).run(made, [a], order=order)
    assert failed is None
    for one, other in zip(got, execute(compiled(graph), [a]), strict=True):
        assert same_bits(one, other)


@needs_compiler
@pytest.mark.parametrize("turned", [False, True])
def test_large_and_small_products(turned: bool) -> None:
    """Two kernels, of which the sizes choose one: large tiles where there are enough of them."""
    m = Maker()
    b, p, k, q = map(Sym, "bpkq")
    x, y = m.builder.input(TensorType(float32, (b, p, k))), m.builder.input(TensorType(float32, (b, k, q)))
    strides = (Sym("s"), 1, Sym("t")) if turned else None
    made = compile_cuda(m.build(m.matmul(x, y)), [strides, None])
    small, large = sorted(
        made.launches, key=lambda launch: number(launch.blocks, {"b": 64, "p": 100, "q": 130, "k": 1})
    )
    host = Host([made])
    for shape in ((64, 100, 300, 130), (2, 100, 17, 130), (3, 5, 300, 7)):
        count, rows, depth, columns = shape
        a, c = floats(0, count, rows, depth), floats(1, count, depth, columns)
        if turned:
            a = np.ascontiguousarray(a.transpose(0, 2, 1)).transpose(0, 2, 1)
        sizes = dict(zip("bpkq", shape, strict=True)) | {"s": rows * depth, "t": rows}
        used = [number(launch.blocks, sizes) > 0 for launch in (small, large)]
        assert used == ([False, True] if count == 64 else [True, False])
        (got,), failed = host.run(made, [a, c], sizes)
        fixed = Maker()
        graph = fixed.build(fixed.matmul(fixed.input(*a.shape), fixed.input(*c.shape)))
        assert failed is None and same_bits(got, execute(compiled(graph, [a, c]), [a, c])[0])


@pytest.mark.parametrize("dtype", [float32, float64, bfloat16, int8, complex64], ids=str)
def test_accesses_have_16_bytes(dtype: DType) -> None:
    nvrtc.need()
    m = Maker()
    x, y = (m.builder.input(TensorType(dtype, (Sym("n"),))) for _ in range(2))
    text = nvrtc.assembly(compile_cuda(m.build(m.add(x, y))).source())
    wide = [kind for kind in ("v4.f32", "v2.f64", "v4.u32", "v4.b32", "v2.b64") if f"ld.global.{kind}" in text]
    assert wide and any(f"st.global.{kind}" in text for kind in wide)
