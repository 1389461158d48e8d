"""Which operations become one kernel, and that it changes no bit."""

from __future__ import annotations

import time

import numpy as np
import pytest

from kiln.codegen.fusion import MAX_OPERATIONS, fuse
from kiln.codegen.layout import assign
from kiln.ir.graph import Constant, Graph
from kiln.ir.parser import parse_graph
from kiln.ir.types import int64
from tests.codegen.graphs import (
    Maker,
    RandomGraph,
    bodies,
    check_golden,
    compiled,
    execute,
    floats,
    fused_equals_unfused,
    kernels,
    run,
    same_bits,
)


def fused(graph: Graph) -> Graph:
    return fuse(graph, assign(graph, [None] * len(graph.inputs)))


def cross_entropy(rows: int = 7, columns: int = 40) -> Graph:
    """Mean cross-entropy of rows, and its gradient, as the derivative rules write it."""
    m = Maker("cross_entropy")
    x, target = m.input(rows, columns), m.input(rows, dtype=int64)
    lsm = m.log_softmax(x)
    loss = m.neg(m.pick(lsm, target))
    position = m.iota(shape=(rows, columns), dtype=int64, dim=1)
    hit = m.eq(position, m.spread(target, rows, columns, dims=(0,)))
    share = m.like(x, -1 / rows)
    g = m.where(hit, share, m.like(x, 0.0))
    through = m.per_row(m.sum(g, dims=(1,)), rows, columns)
    return m.build(loss, m.sub(g, m.mul(m.exp(lsm), through)))


def bias_gradient(rows: int = 20, columns: int = 33) -> Graph:
    """ReLU's gradient, the bias gradient below it, and the update of the bias."""
    m = Maker("bias_gradient")
    y, g, bias = m.input(rows, columns), m.input(rows, columns), m.input(columns)
    zero = m.like(y, 0.0)
    masked = m.where(m.le(y, zero), zero, g)
    total = m.sum(masked, dims=(0,))
    return m.build(masked, m.sub(bias, m.mul(total, m.like(total, 0.1))), aliases=[(1, 2)])


# ------------------------------------------------------------------------------------------ groups


def test_chain_of_pointwise_operations() -> None:
    m = Maker()
    x, y = m.input(6, 7), m.input(6, 7)
    graph = m.build(m.relu(m.add(m.mul(x, y), m.exp(x))))
    assert bodies(fused(graph)) == [["mul", "exp", "add", "relu"]]


def test_softmax_is_one_kernel() -> None:
    m = Maker()
    graph = m.build(m.softmax(m.input(7, 100)))
    assert len(bodies(fused(graph))) == 1
    assert fused_equals_unfused(graph, [floats(0, 7, 100, special=True)])


def test_log_softmax_is_one_kernel() -> None:
    m = Maker()
    graph = m.build(m.log_softmax(m.input(5, 33)))
    assert len(bodies(fused(graph))) == 1
    assert fused_equals_unfused(graph, [floats(1, 5, 33)])


def test_softmax_over_columns_is_one_kernel() -> None:
    m = Maker()
    x = m.input(30, 21)
    e = m.exp(m.sub(x, m.spread(m.amax(x, dims=(0,)), 30, 21, dims=(1,))))
    graph = m.build(m.div(e, m.spread(m.sum(e, dims=(0,)), 30, 21, dims=(1,))))
    assert len(bodies(fused(graph))) == 1
    assert fused_equals_unfused(graph, [floats(2, 30, 21)])


def test_cross_entropy_forward_and_backward_are_one_kernel() -> None:
    graph = cross_entropy()
    assert len(bodies(fused(graph))) == 1
    target = np.arange(7) % 40
    assert fused_equals_unfused(graph, [floats(3, 7, 40), target])


def test_bias_gradient_takes_the_update_with_it() -> None:
    graph = bias_gradient()
    assert len(bodies(fused(graph))) == 1
    assert fused_equals_unfused(graph, [floats(4, 20, 33), floats(5, 20, 33), floats(6, 33)])


def test_kept_value_along_the_wrong_dimension_stays_outside() -> None:
    """A row sum spread over the columns of a square is not in the row that is being computed."""
    m = Maker()
    x = m.input(8, 8)
    graph = m.build(m.mul(x, m.spread(m.sum(x, dims=(1,)), 8, 8, dims=(1,))))
    assert [len(b) for b in bodies(fused(graph))] == [1, 1]
    assert fused_equals_unfused(graph, [floats(7, 8, 8)])


def test_transposed_member_stays_outside() -> None:
    m = Maker()
    x = m.input(8, 8)
    e = m.exp(x)
    graph = m.build(m.add(e, m.permute(e, dims=(1, 0))))
    assert len(bodies(fused(graph))) == 2
    assert fused_equals_unfused(graph, [floats(8, 8, 8)])


def test_groups_form_no_cycle() -> None:
    """exp and mul must not join around the matrix product between them."""
    m = Maker()
    x = m.input(8, 8)
    e = m.exp(x)
    product = m.matmul(e, e)
    graph = m.build(m.mul(e, m.add(product, e)))
    assert [op.op.name for op in fused(graph).operations] == ["fusion", "matmul", "fusion"]
    assert fused_equals_unfused(graph, [floats(9, 8, 8)])


def test_views_and_literals_cost_no_kernel() -> None:
    m = Maker()
    x = m.input(4, 6)
    turned = m.reshape(m.permute(x, dims=(1, 0)), shape=(6, 1, 4))
    graph = m.build(m.mul(turned, m.full(shape=(6, 1, 4), dtype=x.type.dtype, value=2.0)))
    assert len(kernels(compiled(graph))) == 1
    assert same_bits(run(graph, [floats(10, 4, 6)])[0], floats(10, 4, 6).T.reshape(6, 1, 4) * np.float32(2))


def test_constants_in_memory_are_read_where_they_are() -> None:
    m = Maker()
    x, data = m.input(3, 4), np.arange(12, dtype="float32").reshape(3, 4)
    c = m.constant(data=Constant(data))
    graph = m.build(m.add(x, c), c)
    first, second = run(graph, [floats(11, 3, 4)])
    assert same_bits(first, floats(11, 3, 4) + data) and same_bits(second, data)


def test_a_check_is_never_read_in_part_only() -> None:
    """The index check covers every row, although only some rows of its result are used."""
    m = Maker()
    x, i = m.input(3, 4), m.input(3, dtype=int64)
    picked = m.pick(x, i)
    total = m.sum(m.add(x, m.spread(picked, 3, 4, dims=(0,))), dims=(1,))
    graph = m.build(m.slice(picked, starts=(0,), stops=(1,), steps=(1,)), total)
    from kiln.runtime.executable import ProgramError

    with pytest.raises(ProgramError, match="index 9"):
        run(graph, [floats(12, 3, 4), np.array([0, 1, 9])])


def test_an_update_waits_for_what_can_fail() -> None:
    """The bias update does not join the kernel that the next matrix product needs: it could not be in place."""
    m = Maker()
    g, w, bias = m.input(8, 8), m.input(8, 8), m.input(8)
    masked = m.relu(g)
    update = m.sub(bias, m.sum(masked, dims=(0,)))
    graph = m.build(update, m.matmul(masked, w), aliases=[(0, 2)])
    program = compiled(graph)
    assert [m.name.split("_")[0] for m in program.modules[:-1]].count("copy") == 0
    assert fused_equals_unfused(graph, [floats(13, 8, 8), floats(14, 8, 8), floats(15, 8)])


def test_groups_have_a_size_limit() -> None:
    m = Maker()
    x = m.input(16)
    y = x
    for _ in range(3 * MAX_OPERATIONS):
        y = m.sub(x, y)
    sizes = [len(b) for b in bodies(fused(m.build(y)))]
    assert sum(sizes) == 3 * MAX_OPERATIONS and max(sizes) <= MAX_OPERATIONS


def test_time_does_not_grow_with_the_square() -> None:
    def seconds(count: int) -> float:
        m = Maker()
        x = m.input(4, 4)
        y = x
        for k in range(count):
            y = m.matmul(x, y) if k % 4 == 3 else m.add(m.exp(y), x)
        graph = m.build(y)
        start = time.perf_counter()
        fused(graph)
        return time.perf_counter() - start

    seconds(50)
    # Eight times the operations: about 8 times the time, where the square would be 64 times.
    assert min(seconds(1600) for _ in range(2)) < 32 * min(seconds(200) for _ in range(3))


# ------------------------------------------------------------------------------------------ equality


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_keep_their_bits(seed: int) -> None:
    made = RandomGraph(seed)
    assert fused_equals_unfused(made.graph(), made.arrays)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1400))
def test_more_random_graphs_keep_their_bits(seed: int) -> None:
    made = RandomGraph(seed, 60)
    assert fused_equals_unfused(made.graph(8), made.arrays)


def test_fused_graph_prints_and_parses() -> None:
    for seed in range(5):
        graph = fused(RandomGraph(seed).graph())
        assert str(parse_graph(str(graph))) == str(graph)


# ------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("make", [cross_entropy, bias_gradient])
def test_golden(make: object, request: pytest.FixtureRequest) -> None:
    graph = make()  # type: ignore[operator]
    program = compiled(graph, stages=True)
    text = "\n".join(
        f"---- {stage} ----\n{text}"
        for stage, text in program.stages
        if stage.split()[0] in ("captured", "fused", "loops")
    )
    check_golden(f"fusion/{graph.name}.txt", text + "\n", request.config.getoption("--update-golden"))


def test_every_output_is_written_once() -> None:
    """Repeated, viewed and literal outputs are memory of their own."""
    m = Maker()
    x = m.input(2, 3)
    y = m.neg(x)
    graph = m.build(y, y, x, m.permute(y, dims=(1, 0)), m.like(x, 3.0))
    a = floats(16, 2, 3)
    for program in (compiled(graph), compiled(graph, passes=False)):
        out = execute(program, [a])
        wanted = [-a, -a, a, -a.T, np.full((2, 3), 3, "float32")]
        assert all(same_bits(o, w) for o, w in zip(out, wanted, strict=True))
