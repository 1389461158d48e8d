"""Sorts of long rows on a GPU: tiles, merges by many blocks, and the first few of the first few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln.codegen.cuda import sort, sort_text
from kiln.codegen.cuda.pipeline import compile_cuda
from kiln.ir.gpu_program import CudaProgram, number
from kiln.ir.graph import GraphBuilder
from kiln.ir.ops import OPS
from kiln.ir.types import Sym, TensorType, float32, int64
from tests.codegen.cuda_host import Host
from tests.codegen.test_cuda_ops import needs_compiler, program
from tests.gpu import shim
from tests.gpu.conftest import Gpu
from tests.ops.sampling import Sample
from tests.ops.test_declarations import same_bits

Array = np.ndarray[Any, Any]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 512 elements."""
    monkeypatch.setattr(sort, "SIZES", sort.Sizes(threads=64))


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    """With many equals; of floats NaNs, infinities and zeros of both signs."""
    rng = np.random.default_rng(seed)
    if dtype[0] != "f":
        return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
    x = np.round(rng.normal(size=shape) * 20).astype(dtype)
    for k, special in enumerate((np.nan, np.inf, -np.inf, -0.0, 0.0)):
        x.flat[k :: 17 + k] = special
    return x


def sample(x: Array, descending: bool, k: int = 0) -> tuple[str, Sample]:
    attrs = {"descending": descending} | ({"k": k} if k else {})
    return "topk" if k else "argsort", Sample(f"{x.dtype}-{x.shape}-{descending}-{k}", (x,), attrs)


def on_cpu(name: str, s: Sample) -> Array:
    operands = [kiln.from_numpy(x) for x in s.operands]
    return np.asarray(OPS[name].bind(operands, s.attrs, receiver=kiln.zeros(1))[0].numpy())


def check(calls: list[tuple[str, Sample]]) -> list[CudaProgram]:
    """The bits of the CPU, in any order of threads."""
    made = [program(name, s) for name, s in calls]
    host = Host(made)
    for (name, s), p in zip(calls, made, strict=True):
        wanted = on_cpu(name, s)
        for order in shim.ORDERS:
            got = host.run(p, list(s.operands), order=order)[0][0]
            assert same_bits(got, wanted), f"{name} {s.label} {order}"
    return made


LENGTHS = (1, 32, 33, 64, 65, 255, 257, 512, 513, 1024, 1025, 1537, 2600)
"""Around one tile, two, and those that merge with less than their equal or with nothing."""


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "int64", "float16", "bool"])
def test_every_length(dtype: str, small: None) -> None:
    made = check([sample(numbers((2, n), dtype, n), n % 2 == 0) for n in LENGTHS])
    assert [len(p.launches) for p in made] == [1] * 8 + [2, 2, 3, 3, 4]


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_the_first_few(dtype: str, small: None) -> None:
    calls = [sample(numbers((2, n), dtype, n), n % 2 == 0, k) for n in LENGTHS[5:] for k in (1, 100)]
    calls.append(sample(np.full((1, 1300), 127 if dtype == "int8" else np.nan, dtype), False, 128))
    made = check(calls)
    assert max(len(p.launches) for p in made) == 3


@needs_compiler
def test_memory_of_every_kind(small: None) -> None:
    x = numbers((700, 3), "float32")
    views = (x.T, x[::2].T, np.broadcast_to(x[:, 0], (2, 700)), x.reshape(2, 350, 3).transpose(0, 2, 1), x[:0].T)
    check([call for v in views for call in (sample(v, True), *([sample(v, False, 3)] if v.shape[-1] else []))])


@needs_compiler
@pytest.mark.parametrize("dtype", [float32, int64])
def test_symbolic_sizes(dtype: Any, small: None) -> None:
    builder = GraphBuilder("t")
    x = builder.input(TensorType(dtype, (Sym("m"), Sym("n"))))
    graph = builder.build(
        [
            *builder.add(OPS["argsort"], [x], {"descending": True}),
            *builder.add(OPS["topk"], [x], {"k": 7, "descending": False}),
        ]
    )
    made = compile_cuda(graph)
    host = Host([made])
    for shape in ((3, 20), (1, 512), (2, 513), (1, 2100), (0, 30)):
        x = numbers(shape, dtype.name)
        got, _ = host.run(made, [x], dict(zip("mn", shape, strict=True)))
        wanted = [on_cpu(*sample(x, True)), on_cpu(*sample(x, False, 7))]
        assert all(map(same_bits, got, wanted)), shape


@needs_compiler
def test_short_rows() -> None:
    """A warp's each, and more of them than warps."""
    calls = [
        sample(numbers((33, n), "float32", n), n % 2 == 0, k) for n in (1, 10, 32, 40, 64) for k in (0, 1, 10) if k <= n
    ]
    calls += [sample(numbers((3, 40), "int64"), True), sample(numbers((0, 40), "int64"), True)]
    check([*calls, sample(numbers((64, 5), "float16").T, False, 3)])


def test_lookups_are_side_by_side() -> None:
    """A thread for each element that is looked up."""
    rows, values = (np.zeros((3, n), "float32") for n in (1000, 5000))
    (launch,) = program("searchsorted", Sample("", (rows, values), {"right": False})).launches
    assert number(launch.blocks, {}) * launch.threads >= 3 * 5000


def test_a_long_row_is_shared_out() -> None:
    """A million: blocks for 512 tiles, and a launch for each doubling of what is sorted; or 50 of each left."""
    x = np.zeros((1, 1 << 20), "float32")
    blocks = [[number(p.blocks, {}) for p in program(*sample(x, False, k)).launches] for k in (0, 50)]
    assert blocks == [[512] * 10, [512, 13, 1]]


@needs_compiler
@pytest.mark.parametrize("which", ["SORT", "MERGE_RUNS", "FIRST"])
def test_a_missing_barrier_shows(which: str, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one of each text."""
    call = sample(numbers((2, 1500), "float32"), False, 5 if which == "FIRST" else 0)
    text, barrier, seen = getattr(sort_text, which), "__syncthreads();", 0
    for k in range(text.count(barrier)):
        before, after = text.split(barrier)[: k + 1], text.split(barrier)[k + 1 :]
        monkeypatch.setattr(sort_text, which, barrier.join(before) + ";" + barrier.join(after))
        try:
            check([call])
        except (AssertionError, shim.KernelError):
            seen += 1
    assert seen >= 2


def test_sorting_is_eagers_and_has_a_gradient(gpu: Gpu) -> None:
    x, w = numbers((2, 2100), "float32"), np.arange(4200, dtype=np.float32).reshape(2, 2100)

    def f(x: kiln.Tensor, w: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
        x = x.clone().requires_grad_()
        values, places = kiln.sort(x, dim=1, descending=True)
        return places, values.detach(), kiln.grad(values, [x], w)[0]

    given = [kiln.from_numpy(v).to("cuda") for v in (x, w)]
    eager, compiled = ([t.cpu().numpy() for t in run(*given)] for run in (f, kiln.compile(f)))
    host = [t.numpy() for t in f(*map(kiln.from_numpy, (x, w)))]
    assert all(map(same_bits, eager, compiled)) and all(map(same_bits, eager, host))
