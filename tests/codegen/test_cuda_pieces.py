"""Launches that are one: which steps may be, and that no bit changes, whatever the order of threads and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kiln.codegen.cuda import pipeline
from kiln.codegen.cuda.pipeline import compile_cuda
from kiln.codegen.cuda.together import FEW_BYTES
from kiln.ir.gpu_program import MOST_WORDS, CudaProgram, Look
from kiln.ir.graph import Graph, Value
from kiln.ir.types import Sym, TensorType, float32, int64
from tests.codegen.cuda_host import Host
from tests.codegen.graphs import Maker, same_bits
from tests.gpu import shim

Array = np.ndarray[Any, Any]
pytestmark = pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))
SIZES = (3, 56, 1000, 8, 257, 7)


def pieces(program: CudaProgram) -> list[int]:
    """Of each launch how many pieces it has; 0 if it is none of several."""
    return [len(launch.pieces) for launch in program.launches]


def numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def as_apart(
    graph: Graph,
    arrays: list[Array],
    monkeypatch: pytest.MonkeyPatch,
    sizes: dict[str, int] | None = None,
    **options: Any,
) -> CudaProgram:
    """The program of a graph, which has the bits of the one whose launches are left apart, in every order."""
    made = compile_cuda(graph, **options)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "gathered", lambda steps, *_: list(steps))
        apart = compile_cuda(graph, **options)
    assert not any(pieces(apart))
    host = Host([made, apart])
    wanted, _ = host.run(apart, [x.copy() for x in arrays], sizes)
    for order in shim.ORDERS:
        got, _ = host.run(made, [x.copy() for x in arrays], sizes, order)
        assert all(map(same_bits, got, wanted))
    return made


def scaled_sums(*sizes: int | str) -> Graph:
    """For each size a * c + b of arrays of its own; c is a number that all share."""
    m = Maker()

    def arrays() -> list[Value]:
        types = [TensorType(float32, (Sym(d) if isinstance(d, str) else d,)) for d in sizes]
        return [m.builder.input(t) for t in types]

    left, right, c = arrays(), arrays(), m.input()
    return m.build(*(m.add(m.mul(a, m.spread(c, *a.type.shape, dims=())), b) for a, b in zip(left, right, strict=True)))


def operands(*sizes: int) -> list[Array]:
    return [*map(numbers, sizes), *map(numbers, sizes), np.array(0.3, np.float32)]


# ------------------------------------------------------------------------------------------------------- the bits


@pytest.mark.parametrize("bounds", [False, True])
def test_pieces_of_any_size(bounds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 3 elements have no wide accesses, and so another text. With KILN_CUDA_DEBUG=1 what is looked at are each
    piece's bounds."""
    made = as_apart(scaled_sums(*SIZES), operands(*SIZES), monkeypatch, bounds=bounds)
    assert sorted(pieces(made)) == [0, 5]
    assert all(("k_within(" in k.function) == bounds for k in made.kernels)
    assert made.plan().count("\n     ") == 5, "a line for each piece"


def test_pieces_at_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = SIZES[1:]
    views = [numbers(n + 4)[k % 4 : n + k % 4] for k, n in enumerate(sizes * 2)]
    made = as_apart(scaled_sums(*sizes), [*views, np.array(2.0, np.float32)], monkeypatch)
    assert pieces(made) == [5]


@pytest.mark.parametrize("sizes", [(5, 900, 64), (0, 7, 0), (2100, 0, 1), (0, 0, 0)])
def test_pieces_of_symbolic_sizes(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """One of no elements has no blocks."""
    named = dict(zip("abc", sizes, strict=True))
    assert pieces(as_apart(scaled_sums(*"abc"), operands(*sizes), monkeypatch, named)) == [3]


def test_rows_and_transposes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces whose threads meet in their warp, or in shared memory."""
    m = Maker()
    x = [m.input(9, 70), m.input(33, 70), m.input(40, 50), m.input(70, 90)]
    turned = [m.relu(m.permute(v, dims=(1, 0))) for v in x[2:]]
    graph = m.build(*(m.sum(v, dims=(1,)) for v in x[:2]), *turned)
    made = as_apart(graph, [numbers(*v.type.static_shape()) for v in x], monkeypatch)
    assert pieces(made) == [2, 2]
    assert "__shfl_xor_sync" in made.source() and "__shared__" in made.source()


def test_more_arguments_than_a_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = tuple(8 + k % 7 for k in range(300))
    made = as_apart(scaled_sums(*sizes), operands(*sizes), monkeypatch)
    assert len(made.launches) == 4 and sum(pieces(made)) == len(sizes)
    assert len(made.kernels) == 1, "one text for all"
    for launch in made.launches:
        assert len(launch.words(launch.numbers({}), launch.args)) <= MOST_WORDS


def test_kernels_do_not_depend_on_how_many_pieces_there_are() -> None:
    made = [compile_cuda(scaled_sums(*range(8, 8 + n))) for n in (8, 9)]
    assert [k.name for k in made[0].kernels] == [k.name for k in made[1].kernels]


# ------------------------------------------------------------------------------------------------ what stays apart


def test_what_needs_the_other_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    m = Maker()
    x, y, z = m.input(64), m.input(32), m.input(32)
    first = m.exp(x)
    then = m.exp(m.cumsum(first, dim=0, reverse=False))
    made = as_apart(m.build(then, m.exp(y), m.exp(z)), [numbers(64), numbers(32), numbers(32)], monkeypatch)
    assert sorted(pieces(made)) == [0, 0, 3]


def test_what_overwrites_what_the_other_reads_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the others of its form may come earlier."""
    m = Maker()
    x, y, z = m.input(64), m.input(64), m.input(64)
    graph = m.build(m.exp(x), m.exp(y), m.exp(z), aliases=[(1, 0)])  # x becomes exp(y)
    made = as_apart(graph, [numbers(64), numbers(64) + 1, numbers(64) + 2], monkeypatch)
    assert pieces(made) == [2, 0]
    assert made.aliases == ((1, 0),)


def test_nothing_is_overwritten_before_the_last_check() -> None:
    m = Maker()
    x, y, at = m.input(8), m.input(8), m.input(2, dtype=int64)
    first = m.exp(x)
    picked = m.gather(m.cumsum(x, dim=0, reverse=False), at, at=(0,), place=(-1,), wrap=True)
    made = compile_cuda(m.build(first, picked, m.exp(y), aliases=[(2, 1)]))
    assert pieces(made) == [0] * len(made.launches)
    given = [numbers(8), numbers(8), np.array([1, 9])]
    before = given[1].copy()
    _, failed = Host([made]).run(made, given)
    assert failed is not None and same_bits(given[1], before)
    looks = [isinstance(step, Look) for step in made.steps]
    assert looks.index(True) == len(looks) - 2


@pytest.mark.parametrize("n", [64, FEW_BYTES // 4 + 4])
def test_memory_stays_what_it_was(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large results in the arena are not made earlier than they have to be."""
    m = Maker()
    x = [m.input(n) for _ in range(3)]
    graph = m.build(*(m.cumsum(m.exp(v), dim=0, reverse=False) for v in x))
    made = compile_cuda(graph)
    assert max(pieces(made)) == (3 if n == 64 else 0)
    assert made.arena_bytes == (3 * 256 if n == 64 else -(-4 * n // 64) * 64)
    if n == 64:
        as_apart(graph, [numbers(n) + k for k in range(3)], monkeypatch)
