"""Whole programs: memory plan, updates in place, symbolic sizes, odd strides, failures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import kiln
from kiln.codegen.pipeline import compile_graph
from kiln.ir.graph import GraphBuilder
from kiln.ir.interpreter import evaluate_ref
from kiln.ir.ops import OPS
from kiln.ir.types import Sym, TensorType, float32, int64
from kiln.runtime.executable import ProgramError, load
from kiln.runtime.targets import LEVELS, detect, host_target, use_target
from kiln.runtime.threads import get_num_threads, set_num_threads
from tests.codegen.graphs import Array, Maker, RandomGraph, compiled, execute, floats, restrided, run, same_bits
from tests.ops.test_declarations import same_bits as same_numbers  # one NaN is as good as another

# ----------------------------------------------------------------------------------- memory plan


def test_intermediates_share_the_arena() -> None:
    """A chain of products needs two places, not eleven."""
    m = Maker()
    x = m.input(32, 32)
    y = x
    for _ in range(12):
        y = m.matmul(x, y)
    assert compiled(m.build(y)).arena_bytes == 2 * 32 * 32 * 4


def test_values_that_live_together_lie_apart() -> None:
    m = Maker()
    x = m.input(8, 8)
    parts = [m.matmul(x, x)]
    for _ in range(6):
        parts.append(m.matmul(parts[-1], x))
    total = parts[0]
    for p in parts[1:]:
        total = m.add(total, p)
    graph, a = m.build(total), floats(0, 8, 8)
    assert same_bits(run(graph, [a])[0], run(graph, [a], fuse=False)[0])


def test_equal_kernels_are_one_module() -> None:
    m = Maker()
    x, w = m.input(8, 8), m.input(8, 8)
    y = x
    for _ in range(6):
        y = m.relu(m.matmul(y, w))
    program = compiled(m.build(y))
    assert len(program.modules) == 3  # relu, matmul, entry


def test_no_output_depends_on_the_arena_of_another_run() -> None:
    m = Maker()
    x = m.input(16, 16)
    program = compiled(m.build(m.matmul(m.matmul(x, x), x)))
    a, b = floats(1, 16, 16), floats(2, 16, 16)
    first = execute(program, [a])[0].copy()
    execute(program, [b])
    assert same_bits(execute(program, [a])[0], first)


def test_slots_are_in_order() -> None:
    builder = GraphBuilder("t")
    x = builder.input(TensorType(float32, (Sym("n"), Sym("m"))))
    graph = builder.build(builder.add(OPS["sum"], [x], {"dims": (1,)}))
    program = compile_graph(graph, host_target(), [(Sym("s0"), Sym("s1"))])
    assert [s.kind for s in program.slots] == ["input", "output", "size", "size", "size", "size"]
    assert [s.name for s in program.slots if s.kind == "size"] == ["m", "n", "s0", "s1"]
    assert program.work == 0


# ------------------------------------------------------------------------------ symbolic sizes


def test_symbolic_sizes_and_strides() -> None:
    """One program serves every size, contiguous or not."""
    builder = GraphBuilder("t")
    x = builder.input(TensorType(float32, (Sym("n"), Sym("m"))))
    graph = builder.build(builder.add(OPS["sum"], [x], {"dims": (1,)}))
    executable = load(compile_graph(graph, host_target(), [(Sym("s0"), Sym("s1"))]))
    for n, m in [(1, 1), (3, 17), (5, 200), (2, 5000), (4, 0)]:
        for a in (floats(n, n, m), floats(n, m, n).T):
            out = np.empty(n, "float32")
            sizes = {"n": n, "m": m, "s0": a.strides[0] // 4, "s1": a.strides[1] // 4}
            pointers = [x.__array_interface__["data"][0] for x in (a, out)]
            executable.run([*pointers, *(sizes[k] for k in ("m", "n", "s0", "s1"))])
            wanted = OPS["sum"].ref(np, a, dims=(1,))
            assert same_bits(out, wanted), (n, m)


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_symbolic_matmul(rank: int) -> None:
    """Any batch dimensions with any strides."""
    batch = (2, 3, 2)[: rank - 2]
    names = [f"b{i}" for i in range(rank - 2)]
    builder = GraphBuilder("t")
    a = builder.input(TensorType(float32, tuple(map(Sym, [*names, "m", "k"]))))
    b = builder.input(TensorType(float32, tuple(map(Sym, [*names, "k", "n"]))))
    graph = builder.build(builder.add(OPS["matmul"], [a, b], {}))
    strides = [tuple(Sym(f"s{x}{i}") for i in range(rank)) for x in range(2)]
    program = compile_graph(graph, host_target(), strides)
    sizes = dict(zip(names, batch, strict=True)) | {"m": 5, "k": 7, "n": 20}
    x, y = floats(1, *batch, 5, 7), floats(2, 20, 7, *reversed(batch)).T
    y = np.moveaxis(y, [-2, -1], [-1, -2]) if y.shape[-2:] != (7, 20) else y
    for k, array in enumerate((x, y)):
        sizes |= {f"s{k}{i}": s // 4 for i, s in enumerate(array.strides)}
    out = np.empty((*batch, 5, 20), "float32")
    pointers = [v.__array_interface__["data"][0] for v in (x, y, out)]
    load(program).run([*pointers, *(sizes[s.name] for s in program.slots if s.kind == "size")])
    assert same_bits(out, OPS["matmul"].ref(np, x, y))


# ------------------------------------------------------------------------------------- strides


@pytest.mark.parametrize("op", ["add", "sum", "matmul", "pick", "cat", "copy", "argmax"])
def test_odd_strides_give_the_same_bits(op: str) -> None:
    attrs = {"sum": {"dims": (0,)}, "argmax": {"dims": (1,)}, "cat": {"dim": 1}}.get(op, {})
    for kind in range(8):
        a, b = floats(1, 20, 20), floats(2, 20, 20)
        arrays: list[Array] = [restrided(a, kind), restrided(b, kind + 8)]
        if op == "pick":
            arrays[1] = np.arange(20)
        if op in ("sum", "copy", "argmax"):
            arrays.pop()
        m = Maker()
        inputs = [m.input(*x.shape, dtype=int64 if x.dtype.kind == "i" else float32) for x in arrays]
        graph = m.build(getattr(m, op)(*inputs, **attrs))
        assert same_bits(run(graph, arrays)[0], evaluate_ref(graph, arrays)[0]), kind


def test_repeated_memory() -> None:
    """Strides of zero: one element many times."""
    m = Maker()
    x, y = m.input(6, 40), m.input(6, 40)
    graph = m.build(m.add(x, y), m.sum(m.mul(x, y), dims=(1,)))
    a, b = np.broadcast_to(floats(3, 40), (6, 40)), np.broadcast_to(floats(4, 6, 1), (6, 40))
    for got, wanted in zip(run(graph, [a, b]), evaluate_ref(graph, [a, b]), strict=True):
        assert same_bits(got, wanted)


# ------------------------------------------------------------------------------------ in place


def copies(graph_program: object) -> int:
    return sum(m.name.startswith("write_back") for m in graph_program.modules)  # type: ignore[attr-defined]


def test_update_is_in_place() -> None:
    m = Maker()
    w, g = m.input(30, 7), m.input(30, 7)
    graph = m.build(m.sub(w, m.mul(g, m.like(g, 0.5))), aliases=[(0, 0)])
    program = compiled(graph)
    assert copies(program) == 0 and program.arena_bytes == 0 and program.aliases == ((0, 0),)
    a, b = floats(5, 30, 7), floats(6, 30, 7)
    wanted = a - b * np.float32(0.5)
    execute(program, [a, b])
    assert same_bits(a, wanted)


def test_update_of_strided_memory_is_in_place() -> None:
    m = Maker()
    w, g = m.input(30, 7), m.input(30, 7)
    graph = m.build(m.sub(w, g), aliases=[(0, 0)])
    a, b = floats(5, 7, 30).T, floats(6, 30, 7)
    program = compiled(graph, [a, b])
    assert copies(program) == 0
    wanted = a - b
    execute(program, [a, b])
    assert same_bits(np.ascontiguousarray(a), wanted)


def test_two_inputs_change_places() -> None:
    m = Maker()
    x, y = m.input(5, 6), m.input(5, 6)
    graph = m.build(m.copy(y), m.copy(x), aliases=[(0, 0), (1, 1)])
    a, b = floats(7, 5, 6), floats(8, 5, 6)
    olds = a.copy(), b.copy()
    run(graph, [a, b])
    assert same_bits(a, olds[1]) and same_bits(b, olds[0])


def test_the_old_content_is_read_first() -> None:
    """Transposed reads, and readers after the writer in program order, see what was there before."""
    m = Maker()
    x = m.input(6, 6)
    new = m.add(m.permute(x, dims=(1, 0)), x)
    graph = m.build(new, m.matmul(x, x), aliases=[(0, 0)])
    a = floats(9, 6, 6)
    old = a.copy()
    _, product = run(graph, [a])
    assert same_bits(a, old.T + old) and same_bits(product, OPS["matmul"].ref(np, old, old))


def test_a_failed_check_leaves_everything_as_it_was() -> None:
    """Also what was written before the check in program order."""
    m = Maker()
    w, x, i = m.input(4, 5), m.input(4, 5), m.input(4, dtype=int64)
    new = m.add(w, x)
    graph = m.build(new, m.pick(new, i), aliases=[(0, 0)])
    a, b = floats(10, 4, 5), floats(11, 4, 5)
    old = a.copy()
    for fuse in (True, False):
        program = compiled(graph, passes=fuse)
        with pytest.raises(ProgramError, match="-1") as failure:
            execute(program, [a, b, np.array([0, 1, -1, 2])])
        assert failure.value.site.kind == "index" and failure.value.site.op == "pick"
        assert same_bits(a, old)
    execute(compiled(graph), [a, b, np.array([0, 1, 4, 2])])
    assert same_bits(a, old + b)


@pytest.mark.parametrize("seed", range(40))
def test_random_writes(seed: int) -> None:
    """Updates of inputs with any strides, fused or not, are those of a program without aliases."""
    made = RandomGraph(seed, 30)
    graph = made.writing_graph()
    values = type(graph)(graph.name, graph.inputs, graph.operations, graph.outputs)
    wanted = run(values, made.arrays, fuse=False)
    written = {a.input for a in graph.aliases}
    for fuse in (True, False):
        arrays = [restrided(a, seed + k) for k, a in enumerate(made.arrays)]
        outputs = run(graph, arrays, fuse=fuse)
        for got, want in zip(outputs, wanted, strict=True):
            assert same_bits(got, want)
        for k, (array, before) in enumerate(zip(arrays, made.arrays, strict=True)):
            assert k in written or same_bits(array, before)


# ------------------------------------------------------------------------- targets and threads


def test_every_target_and_thread_count_gives_the_same_bits() -> None:
    m = Maker()
    x, y = m.input(300, 70), m.input(300, 70)
    z = m.softmax(m.add(x, y))
    graph = m.build(z, m.sum(z, dims=(0,)), m.sum(m.mul(z, z), dims=(0, 1)), m.argmax(y, dims=(0,)))
    arrays = [floats(1, 300, 70), floats(2, 300, 70)]
    wanted = run(graph, arrays)
    levels = [t for t in LEVELS.values() if t.arch == detect().arch and t.vector_bits <= detect().vector_bits and t.fma]
    before = get_num_threads()
    try:
        for level, threads in itertools.product(levels, (1, 2, 3, 7)):
            set_num_threads(threads)
            with use_target(level):
                assert all(map(same_bits, run(graph, arrays), wanted)), (level, threads)
    finally:
        set_num_threads(before)


def test_stages_are_kept_when_asked_for() -> None:
    m = Maker()
    program = compiled(m.build(m.exp(m.input(4))), stages=True)
    names = [name.split()[0] for name, _ in program.stages]
    assert names == ["captured", "simplified", "fused", "loops", "scheduled", "llvm", "plan", "entry"]


def test_a_check_runs_although_nothing_needs_its_result() -> None:
    m = Maker()
    x, i = m.input(3, 4), m.input(3, dtype=int64)
    y = m.softmax(x)
    m.pick(y, i)
    program = compiled(m.build(y))
    assert len(program.modules) == 2
    execute(program, [floats(1, 3, 4), np.array([0, 1, 2])])
    with pytest.raises(ProgramError, match="index 4"):
        execute(program, [floats(1, 3, 4), np.array([0, 1, 4])])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8"])
def test_products_that_are_made_transposed_keep_their_bits(dtype: str) -> None:
    """`turn`: more rows than one block of the contraction order, odd sizes, special values."""
    kind = getattr(kiln, dtype)
    rng = np.random.default_rng(3)
    for shape in ((5, 3, 700), (2, 33, 65, 19), (1, 1, 1), (4, 2, 0)):
        *batch, m, n, k = shape
        a, b = (kiln.from_numpy(rng.normal(size=(*batch, *s)) * 9).to(kind) for s in ((m, k), (k, n)))
        if k > 600 and kind.is_floating_point:
            a[0, 3], a[1, 5], b[7, 1], b[9, 0] = np.inf, np.nan, -np.inf, -0.0
        run = kiln.compile(lambda a, b: ((a @ b).mT + 1, (a.mT @ (a @ b)).mT))
        wanted = [x.numpy() for x in ((a @ b).mT + 1, (a.mT @ (a @ b)).mT)]
        run(a, b)
        for got, want in zip(run(a, b), wanted, strict=True):
            assert same_numbers(got.numpy(), want)
