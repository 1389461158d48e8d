"""Kernels that stop at accesses beyond their buffers: they do, and otherwise nothing is different."""

from __future__ import annotations

import numpy as np
import pytest

import kiln
from kiln.codegen.cuda.emit import emit_scheduled, extent
from kiln.codegen.cuda.schedule import schedule
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaProgram, CudaText, Launch, Memory, number
from kiln.ir.loops import INDEX, Buffer, For, Kernel, Store, Var
from kiln.ir.program import Slot
from kiln.ir.types import TensorType, float32
from tests.codegen.cuda_host import Host
from tests.codegen.test_cuda_ops import EXACT, needs_compiler, program, same_as_the_cpu, some
from tests.gpu import shim
from tests.ops.samples import Sample, samples

N = 40


def shifted(by: int, mask: bool = False) -> CudaText:
    """A kernel that copies `N` elements to places `by` further, masked ones where they exist."""
    x, y, i = Buffer("x", float32, (N,), (1,)), Buffer("y", float32, (N,), (1,)), Var(INDEX, "i")
    place = L.add(i, L.index(by))
    exists = L.apply("lt", place, L.index(N)) if mask else None
    body = (For("parallel", i, L.index(0), L.index(N), (Store(y, (place,), L.load(x, (i,)), exists),)),)
    return emit_scheduled(schedule(Kernel("shifted", (x, y), body)), bounds=True)


def run(text: CudaText) -> np.ndarray:
    t = TensorType(float32, (N,))
    launch = Launch(text.name, text.threads, text.blocks, (Memory("input"), Memory("output")), False)
    slots = (Slot("input", 0), Slot("output", 0))
    made = CudaProgram("shift", (text,), (launch,), slots, (t,), (t,), (), 0, (), (), (), ())
    (out,), failed = Host([made]).run(made, [np.arange(N, dtype=np.float32)])
    assert failed is None
    return out


@needs_compiler
def test_what_is_beyond_stops_a_kernel() -> None:
    assert run(shifted(0)).tolist() == list(range(N))
    assert run(shifted(3, mask=True)).tolist()[3:] == list(range(N - 3))
    for by in (1, -1, 5000):
        with pytest.raises(shim.KernelError):
            run(shifted(by))


def test_extents() -> None:
    def known(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int]:
        low, high = extent(Buffer("x", float32, shape, strides))
        return number(low, {}), number(high, {})

    assert known((), ()) == (0, 1)
    assert known((3, 4), (4, 1)) == (0, 12)
    assert known((3, 4), (0, 2)) == (0, 7)
    assert known((3, 4), (-4, 1)) == (-8, 4)


def test_only_where_asked_for() -> None:
    (sample,) = some("matmul", 1)
    for bounds in (False, True):
        assert all(("k_within" in k.source) == bounds for k in program("matmul", sample, bounds).kernels)


def stay_within(calls: list[tuple[str, Sample]]) -> None:
    """Kernels with bounds go through, with the CPU's bits."""
    made = [program(name, sample, bounds=True) for name, sample in calls]
    host = Host(made)
    for (name, sample), one in zip(calls, made, strict=True):
        same_as_the_cpu(host, name, sample, one)


@needs_compiler
def test_rows_that_are_read_backwards() -> None:
    """Threads take several elements, also where a row ends: nothing before its first one is read."""
    stay_within([("reverse", s) for s in samples("reverse") if s.label.endswith("-line-(0,)")])


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", EXACT)
def test_no_sample_reaches_beyond(name: str) -> None:
    stay_within([(name, s) for s in samples(name)])


def test_debug_builds_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: kiln.Tensor) -> kiln.Tensor:
        return kiln.softmax(x * 2, -1)

    graph = kiln.explain(f, kiln.randn(3, 70)).region.graph
    strides = [None] * len(graph.inputs)
    plain = kiln.dispatch.build(graph, strides, device=kiln.device("cuda:0"))
    monkeypatch.setenv("KILN_CUDA_DEBUG", "1")
    checked = kiln.dispatch.build(graph, strides, device=kiln.device("cuda:0"))
    assert "k_within" in checked.source() and "k_within" not in plain.source()
    assert plain.launches and len(plain.launches) == len(checked.launches)
