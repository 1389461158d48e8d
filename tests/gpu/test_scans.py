"""Scans of long lines on a GPU: tiles that are scanned side by side, in one order whatever lies where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.codegen.cuda import scan, scan_text
from kiln.codegen.cuda.pipeline import compile_cuda
from kiln.ir.gpu_program import CudaProgram
from kiln.ir.graph import GraphBuilder
from kiln.ir.ops import OPS
from kiln.ir.types import Sym, TensorType, float32
from tests import tolerances as tol
from tests.codegen.cuda_host import Host
from tests.codegen.test_cuda_ops import needs_compiler, program
from tests.gpu import shim
from tests.gpu.conftest import Gpu
from tests.ops.sampling import Sample
from tests.ops.test_declarations import same_bits

Array = np.ndarray[Any, Any]
SMALL = scan.Sizes(short=32, threads=64, tiles=2)
"""Tiles of 1024 elements of up to 4 bytes, of 512 others; 2 of them are one block's."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> scan.Sizes:
    monkeypatch.setattr(scan, "SIZES", SMALL)
    return SMALL


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    if dtype == "bool" or dtype.startswith(("int", "uint")):
        return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def sample(name: str, *operands: Array, dim: int = -1, reverse: bool = False) -> Sample:
    attrs: dict[str, Any] = {"dim": dim % operands[0].ndim}
    return Sample(
        f"{name}-{operands[0].dtype}-{operands[0].shape}",
        operands,
        attrs | ({} if name == "cumargmax" else {"reverse": reverse}),
    )


def on_cpu(name: str, s: Sample) -> Array:
    operands = [kiln.from_numpy(x) for x in s.operands]
    return np.asarray(OPS[name].bind(operands, s.attrs, receiver=kiln.zeros(1))[0].numpy())


def on_gpu(calls: list[tuple[str, Sample]]) -> list[tuple[CudaProgram, Array]]:
    """The programs and their results, which every order of threads gives."""
    made = [program(name, s) for name, s in calls]
    host, found = Host(made), []
    for (name, s), p in zip(calls, made, strict=True):
        results = [host.run(p, list(s.operands), order=order)[0][0] for order in shim.ORDERS]
        assert all(same_bits(r, results[0]) for r in results), f"{name} {s.label}: orders differ"
        found.append((p, results[0]))
    return found


# ------------------------------------------------------------------------------------------- the order


def doubling(states: list[Any], join: Callable[[Any, Any], Any]) -> list[Any]:
    """What a warp does with the states of its threads."""
    distance = 1
    while distance < 32:
        states = [s if k < distance else join(states[k - distance], s) for k, s in enumerate(states)]
        distance *= 2
    return states


def tile_of(elements: list[Any], each: int, join: Callable[[Any, Any], Any]) -> tuple[list[tuple[Any, Any]], Any]:
    """Of every element what comes before its thread's piece (None: nothing) and its own in that; then the tile's."""
    pieces: list[list[Any]] = []
    for start in range(0, len(elements), each):
        piece = [elements[start]]
        for x in elements[start + 1 : start + each]:
            piece.append(join(piece[-1], x))
        pieces.append(piece)
    found, warps = list[tuple[Any, Any]](), None
    for start in range(0, len(pieces), 32):
        warp = pieces[start : start + 32]
        upto = doubling([p[-1] for p in warp], join)
        for k, piece in enumerate(warp):
            before = warps if k == 0 else upto[k - 1] if warps is None else join(warps, upto[k - 1])
            found += [(before, x) for x in piece]
        warps = upto[-1] if warps is None else join(warps, upto[-1])
    return found, warps


def in_tiles(elements: list[Any], each: int, count: int, join: Callable[[Any, Any], Any]) -> list[Any]:
    """The contract's order for long lines: tiles of `count` threads, `each` elements per thread, the states of all
    tiles in the same order, by 8."""
    size = each * count
    tiles = [tile_of(elements[k : k + size], each, join) for k in range(0, len(elements), size)]
    totals = [total for _, total in tiles]
    carries = totals if len(totals) == 1 else in_tiles(totals, 8, count, join)
    found = []
    for k, (tile, _) in enumerate(tiles):
        for before, x in tile:
            if k:
                before = carries[k - 1] if before is None else join(carries[k - 1], before)
            found.append(x if before is None else join(before, x))
    return found


@needs_compiler
def test_sums_have_the_order_that_is_promised(small: scan.Sizes) -> None:
    calls = []
    for dtype in ("float32", "float64"):
        tile = small.threads * (8 if dtype == "float64" else 16)
        for n in (33, tile, tile + 1, 2 * tile + 1, 10 * tile + 5):
            calls.append(("cumsum", sample("cumsum", numbers((n,), dtype))))
    for (_, s), (_, got) in zip(calls, on_gpu(calls), strict=True):
        (x,) = s.operands
        whole = 8 if x.dtype.itemsize == 8 else 16
        assert same_bits(got, np.array(in_tiles(list(x), whole, small.threads, lambda a, b: a + b))), s.label


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_no_worse_than_a_chain(dtype: str) -> None:
    """With the sizes that a GPU has, and all of one sign, where a chain loses most."""
    x = np.abs(numbers((2, 20000), dtype))
    s = sample("cumsum", x)
    ((made, got),) = on_gpu([("cumsum", s)])
    exact = np.cumsum(x.astype(np.longdouble), axis=-1)
    unit = np.finfo(dtype).eps * np.abs(exact).max()
    mine, chain = (float(np.abs(y - exact).max() / unit) for y in (got, on_cpu("cumsum", s)))
    assert mine < tol.SCANNED < chain
    assert len(made.launches) == 3


# --------------------------------------------------------------------------------------- exact results


@needs_compiler
@pytest.mark.parametrize("dtype", ["int64", "bool", "float16", "float32"])
def test_what_has_no_order_has_the_bits_of_the_cpu(dtype: str, small: scan.Sizes) -> None:
    """Integers, and places of the largest elements, with ties, NaNs and zeros of both signs."""
    calls, lengths = [], (32, 33, 513, 1025, 2049, 4500)
    for k, n in enumerate(lengths):
        x = numbers((3, n), dtype, k)
        if x.dtype.kind == "f":
            x = np.round(x)
            x[0, n // 2 :: 7], x[:, ::5] = np.nan, -0.0
        calls.append(("cumargmax", sample("cumargmax", x)))
        calls.append(("cumargmax", sample("cumargmax", np.ascontiguousarray(x.T), dim=0)))
        if dtype.startswith("int"):
            y = numbers((3, n), dtype, k + 1)
            calls.append(("cumsum", sample("cumsum", x, reverse=k % 2 == 0)))
            calls.append(("recur", sample("recur", x[:, ::-1].copy(), y, reverse=k % 2 == 1)))
            calls.append(("recur", sample("recur", x.T.copy(), y.T, dim=0)))
    for (name, s), (_, got) in zip(calls, on_gpu(calls), strict=True):
        assert same_bits(got, on_cpu(name, s)), s.label


@needs_compiler
def test_very_many_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a block looks at together."""
    monkeypatch.setattr(scan, "SIZES", replace(SMALL, threads=32))
    s = sample("cumsum", numbers((70001,), "int64"))
    ((made, got),) = on_gpu([("cumsum", s)])
    assert same_bits(got, on_cpu("cumsum", s)) and len(made.launches) == 3


@needs_compiler
def test_short_lines_have_the_bits_of_the_cpu(small: scan.Sizes) -> None:
    calls = []
    for shape in ((1, 1), (70, 1), (5, 17), (300, 32), (2, 0), (0, 5)):
        x = numbers(shape, "float32")
        calls.append(("cumsum", sample("cumsum", x)))
        calls.append(("recur", sample("recur", x, x[::-1].copy(), reverse=True)))
    for (name, s), (_, got) in zip(calls, on_gpu(calls), strict=True):
        assert same_bits(got, on_cpu(name, s)), s.label


@needs_compiler
def test_bits_do_not_depend_on_where_lines_lie(small: scan.Sizes) -> None:
    """Rows, columns, strides, lines that begin anywhere, batches, and a size that is known late."""
    for dtype in ("float32", "float16"):
        x = numbers((5, 2500), dtype)
        columns, cube = np.ascontiguousarray(x.T), np.ascontiguousarray(x.reshape(5, 1, 2500, 1))
        wide = np.repeat(x, 3, axis=1)[:, 1::3]
        shifted = np.concatenate([x[:, :1], x], axis=1)[:, 1:]
        calls = [
            ("cumsum", sample("cumsum", v, dim=d))
            for v, d in ((x, 1), (columns, 0), (columns.T, 1), (cube, 2), (wide, 1), (shifted, 1), (x[3:4], 1))
        ]
        first, turned, *rest = (got for _, got in on_gpu(calls))
        assert same_bits(turned.T.copy(), first)
        *rest, alone = rest
        assert all(same_bits(r.reshape(first.shape), first) for r in rest)
        assert same_bits(alone, first[3:4])


@needs_compiler
def test_symbolic_sizes(small: scan.Sizes) -> None:
    """One program has the bits of every size's own."""
    n, m = Sym("n"), Sym("m")
    for dim in (0, 1):
        builder = GraphBuilder("t")
        x = builder.input(TensorType(float32, (n, m)))
        outputs = [
            *builder.add(OPS["cumsum"], [x], {"dim": dim, "reverse": True}),
            *builder.add(OPS["recur"], [x, x], {"dim": dim, "reverse": False}),
        ]
        made = compile_cuda(builder.build(outputs))
        shapes = [(3, 20), (2, 40), (0, 3), (3, 0), (2, 5000)]
        data = [np.tanh(numbers(s[:: 1 if dim else -1], "float32")) for s in shapes]
        calls = [
            call
            for x in data
            for call in (
                ("cumsum", sample("cumsum", x, dim=dim, reverse=True)),
                ("recur", sample("recur", x, x, dim=dim)),
            )
        ]
        wanted = [got for _, got in on_gpu(calls)]
        host = Host([made])
        for k, x in enumerate(data):
            got, _ = host.run(made, [x], dict(zip("nm", x.shape, strict=True)))
            assert all(map(same_bits, got, wanted[2 * k : 2 * k + 2])), x.shape


# ------------------------------------------------------------------------------------------ recurrences


@needs_compiler
@pytest.mark.parametrize("dim", [0, 1])
def test_recurrences_that_could_overflow_are_chains(dim: int, small: scan.Sizes) -> None:
    """Lines side by side: one of factors of at most 1, one that grows, one whose chain stays at 1, a NaN, a term."""
    a = np.tanh(numbers((5, 3000), "float32"))
    b = numbers((5, 3000), "float32", 1)
    a[1], a[2], b[2] = numbers((3000,), "float32", 2) * 4, 2, -1
    b[2, 0] = 1
    a[3, 1500], b[4, 2000] = np.nan, 1e30
    if dim == 0:
        a, b = a.T.copy(), b.T.copy()
    s = sample("recur", a, b, dim=dim)
    ((made, got),) = on_gpu([("recur", s)])
    wanted = on_cpu("recur", s)
    if dim == 0:
        got, wanted = got.T.copy(), wanted.T.copy()
    assert same_bits(got[1:], wanted[1:]) and (wanted[2] == 1).all()
    assert not same_bits(got[0], wanted[0])
    assert np.abs(got[0] - wanted[0]).max() < tol.SCANNED_CHAIN * np.finfo(np.float32).eps * np.abs(wanted[0]).max()
    assert len(made.launches) == 5


# --------------------------------------------------------------------------------------- whole programs


def test_eager_compiled_and_gradients(gpu: Gpu) -> None:
    x = numbers((3, 5000), "float32")
    w = numbers((3, 5000), "float32", 1)

    def f(x: kiln.Tensor, w: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
        x = x.clone().requires_grad_()
        y = kiln.cumsum(x, 1) + kiln.logcumsumexp(x, 1)
        return y.detach(), kiln.grad(y, [x], w)[0]

    on_device = [kiln.from_numpy(v).to("cuda") for v in (x, w)]
    eager = [t.cpu().numpy() for t in f(*on_device)]
    compiled = [t.cpu().numpy() for t in kiln.compile(f)(*on_device)]
    host = [t.numpy() for t in f(*map(kiln.from_numpy, (x, w)))]
    assert all(map(same_bits, eager, compiled))
    for mine, theirs in zip(eager, host, strict=True):
        assert np.abs(mine - theirs).max() < tol.SCANNED_CHAIN * np.finfo(np.float32).eps * np.abs(theirs).max()


# --------------------------------------------------------------------------------- tests of the tests


@needs_compiler
@pytest.mark.parametrize("which", ["APPLY", "SUMS_ACROSS", "CHAIN", "ACROSS"])
def test_a_missing_barrier_shows(which: str, small: scan.Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one of each text, by another result or an error in some order of threads."""
    x = numbers((20, 20) if which == "CHAIN" else (3000, 5) if which == "SUMS_ACROSS" else (2, 3000), "float32")
    s = sample("cumsum", x, dim=0 if which == "SUMS_ACROSS" else 1)
    ((_, wanted),) = on_gpu([("cumsum", s)])
    text, barrier, seen = getattr(scan_text, which), "__syncthreads();", 0
    for k in range(text.count(barrier)):
        before, after = text.split(barrier)[: k + 1], text.split(barrier)[k + 1 :]
        without = barrier.join(before) + ";" + barrier.join(after)
        monkeypatch.setattr(scan_text, which, without)
        monkeypatch.setattr(scan_text, "HELP", tuple(without if h == text else h for h in scan_text.HELP))
        try:
            ((_, got),) = on_gpu([("cumsum", s)])
        except (AssertionError, shim.KernelError):
            seen += 1
        else:
            seen += not same_bits(got, wanted)
    assert seen > 0


def test_masks_ask_the_host_for_one_number(gpu: Gpu) -> None:
    """`nonzero` and masks, empty and full ones among them, as the CPU finds them, eagerly and compiled."""
    x, y = numbers((40, 70), "float32"), numbers((40, 70), "float32", 1)

    def f(x: kiln.Tensor, y: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
        picked = x[x > 1], x[x > 100], x[x == x], kiln.masked_scatter(x, x > 0.5, y)
        return *picked, kiln.nonzero(x < -2), kiln.nonzero(x[0] > 0), kiln.unique(x.sign())

    given = [kiln.from_numpy(v).to("cuda") for v in (x, y)]
    eager, compiled = ([t.cpu().numpy() for t in run(*given)] for run in (f, kiln.compile(f)))
    wanted = [t.numpy() for t in f(*map(kiln.from_numpy, (x, y)))]
    assert all(map(same_bits, eager, wanted)) and all(map(same_bits, compiled, wanted))
    mask = given[0].flatten() > 0.9
    copies = gpu.counts["memcpy"]
    mask.nonzero()
    assert gpu.real or gpu.counts["memcpy"] - copies == 2  # a constant there, the count back
