"""CUDA graphs: compiled functions with mode="reduce-overhead", and graphs that a program records itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.errors import KilnIndexError
from kiln.runtime import cuda_driver
from tests.gpu.conftest import Gpu
from tests.gpu.test_training import mlp

F = nn.functional


@pytest.fixture(autouse=True)
def _clean(gpu: Gpu) -> Iterator[None]:
    session = cuda_driver.session()
    yield
    kiln.cuda.set_sync_debug_mode(0)
    session.debug = False
    for each in session.gpus:
        each.fault = ""
        each.use(each.default)


def recorded(function: Any, **more: Any) -> Any:
    return kiln.compile(function, mode="reduce-overhead", **more)


def bits(x: Any) -> bytes:
    return np.ascontiguousarray(x.detach().cpu().numpy()).tobytes()


def chain(x: Any, w: Any) -> Any:
    """A few kernels."""
    return ((x @ w).softmax(-1) @ w).sum(-1)


def sample(seed: int = 0) -> Any:
    return kiln.randn(6, 6, generator=kiln.Generator().manual_seed(seed)).cuda()


# ---------------------------------------------------------------------------------------- compiled functions


def test_a_graph_is_one_launch(fake: Gpu) -> None:
    f, plain, w = recorded(chain), kiln.compile(chain), sample(9)
    kept = []
    for k in range(7):
        x = sample(k)  # elsewhere each time, since all are kept
        fake.counts.clear()
        made = f(x, w)
        kept.append((x, made))
        if k > 4:
            assert fake.counts["graph launch"] == 1 and fake.counts["launch"] == 0, fake.counts
            assert fake.counts["synchronize"] == 0
        assert fake.counts["malloc while capturing"] == 0
    for x, made in kept:
        assert bits(made) == bits(plain(x, w)), "a later call has changed an earlier result"
    (told,) = f.report().graphs
    assert "launches in one graph" in told and told in str(f.report())
    assert not plain.report().graphs


def test_what_stays_where_it_is_is_not_copied(fake: Gpu) -> None:
    f, x, w = recorded(chain), sample(), sample(1)
    for _ in range(5):
        f(x, w)
    captures = fake.counts["capture"]
    fake.counts.clear()
    for k in range(3):
        x.mul_(1.5)
        wanted = bits(chain(x, w))
        fake.counts.clear()
        assert bits(f(x, w)) == wanted, k
        assert fake.counts["capture"] == 0 and fake.counts["launch"] == 0
        assert fake.counts["memcpy"] <= 2, "the result, and reading it"
    assert captures


def test_training_with_changing_numbers() -> None:
    """Learning rates and step counts are read anew, and parameters changed in place."""

    def trained(mode: Any) -> list[bytes]:
        kiln.manual_seed(0)
        model = nn.Linear(5, 3).cuda()
        opt = kiln.optim.Adam(model.parameters(), lr=0.01)
        slower = kiln.optim.lr_scheduler.ExponentialLR(opt, 0.7)

        def step(x: Any, y: Any) -> Any:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            return loss

        run = kiln.compile(step, mode=mode)
        found = []
        for k in range(7):
            found.append(bits(run(sample(k)[:4, :5].contiguous(), kiln.tensor([0, 2, 1, k % 3]).cuda())))
            slower.step()
            if k == 4:
                with kiln.no_grad():
                    model.weight.mul_(0.5)
        if mode:
            assert run.report().compiled >= 5, run.report()
            assert any("between them the host: checks" in told for told in run.report().graphs), run.report()
        return [*found, *(bits(p) for p in model.parameters())]

    assert trained("reduce-overhead") == trained(None)


def test_random_numbers_go_on(fake: Gpu) -> None:
    def noisy(x: Any) -> Any:
        return chain(x + kiln.rand(6, 6, device="cuda"), x)

    x, found = sample(), []
    for f in (noisy, recorded(noisy)):
        kiln.manual_seed(3)
        found.append([bits(f(x)) for _ in range(6)])
    assert found[0] == found[1] and len(set(found[0])) == 6


def test_gradients_outside_of_the_function(fake: Gpu) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).cuda()
    f = recorded(model)
    for k in range(6):
        x = sample(k)[:, :4]
        kiln.manual_seed(k)
        fake.counts.clear()
        f(x).square().sum().backward()
        graphs = fake.counts["graph launch"]
        made = [p.grad for p in model.parameters()]
        model.zero_grad()
        model(x).square().sum().backward()
        assert [bits(g) for g in made] == [bits(p.grad) for p in model.parameters()], k
        model.zero_grad()
    assert graphs == 2, "forward and backward"


def test_inputs_that_are_not_contiguous() -> None:
    f = recorded(lambda x, w: chain(x, w))
    w, kept = sample(2), []
    for k in range(6):
        x = kiln.arange(72.0).cuda().add(k).reshape(6, 12)[:, 1::2]
        kept.append(x)
        assert bits(f(x, w)) == bits(chain(x, w)), k


def test_sizes_have_graphs_of_their_own(fake: Gpu) -> None:
    f, w = recorded(chain, dynamic=True), sample()
    for turn in range(4):
        for n in (2, 3, 5):
            x = sample(turn)[:n]
            fake.counts.clear()
            assert bits(f(x, w)) == bits(chain(x, w))
    assert fake.counts["graph launch"] == 1


def test_a_failed_check_is_raised_and_leaves_things_as_they_were() -> None:
    def look_up(table: Any, at: Any) -> Any:
        table.mul_(1.0)
        rows = table.exp()[at]
        return chain(rows @ rows.mT, table[:3, :3])

    told = kiln.explain(look_up, sample(), kiln.tensor([0, 5, 2]).cuda())
    assert told.cuda().plan().count("check error") == 1, "what is read is not overwritten"
    f, table = recorded(look_up), sample()
    good, bad = kiln.tensor([0, 5, 2]).cuda(), kiln.tensor([0, 50, 2]).cuda()
    before = bits(table)
    for k in range(8):
        if k % 2:
            with pytest.raises(KilnIndexError, match="50"):
                f(table, bad)
            assert bits(table) == before
        assert bits(f(table, good)) == bits(look_up(table, good))
    assert "checks" in f.report().graphs[0]


def test_loops_and_branches_are_the_hosts(fake: Gpu) -> None:
    def f(x: Any) -> Any:
        y = (x @ x).softmax(-1) @ x
        z = kiln.cond(y.sum() > 0, lambda: (y @ x).softmax(-1), lambda: (y @ x).softmax(-1) @ y)
        return (z @ x).softmax(-1) @ z

    run = recorded(f)
    for k in range(12):
        x = sample(k % 3) * (1 if k % 2 else -1)
        assert bits(run(x)) == bits(f(x)), k
    assert run.report().captured == 1 and "branches" in run.report().graphs[0]
    fake.counts.clear()
    run(x)
    assert fake.counts["graph launch"] >= 2


def test_loops_of_known_length_are_part_of_graphs(fake: Gpu) -> None:
    def f(x: Any) -> Any:
        for _ in range(10):
            x = (x @ x).softmax(-1)
        return x, x.sum()

    run = recorded(f)
    for k in range(6):
        x = sample(k)
        fake.counts.clear()
        made = run(x)
        launches = fake.counts["launch"], fake.counts["graph launch"]
        assert [bits(m) for m in made] == [bits(m) for m in f(x)], k
    assert launches == (0, 1)
    (told,) = run.report().graphs
    assert "launches in one graph" in told and int(told.split()[1]) > 20


def test_why_not() -> None:
    one = recorded(lambda x: x + 1)
    moved = recorded(lambda x, w: x.add_((x @ w).softmax(-1) @ w))
    w, kept = sample(), []
    for k in range(5):
        kept.append(sample(k))
        one(kept[-1])
        assert bits(moved(kept[-1], w)) == bits(kept[-1])
    assert "since no two launches follow each other" in one.report().graphs[0]
    assert "lies elsewhere at every call" in moved.report().graphs[0]


def test_what_cuda_refuses_runs_without(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = cuda_driver.session().cupy.cuda.Stream

    def refuse(self: Any) -> Any:
        end(self)
        raise cuda_driver.session().cupy.cuda.runtime.CUDARuntimeError(901)

    end = stream.end_capture
    monkeypatch.setattr(stream, "end_capture", refuse)
    f, w = recorded(chain), sample(9)
    with pytest.warns(UserWarning, match="no CUDA graph: CUDA can't record it"):
        for k in range(4):
            assert bits(f(sample(k), w)) == bits(chain(sample(k), w))
    assert "CUDA can't record it" in f.report().graphs[0]


def test_streams_have_graphs_of_their_own(fake: Gpu) -> None:
    f, w, x = recorded(chain), sample(9), sample()
    wanted = bits(chain(x, w))
    queues = [kiln.cuda.Stream(), kiln.cuda.Stream()]
    kiln.cuda.synchronize()
    for _ in range(5):
        made = []
        for queue in queues:
            with kiln.cuda.stream(queue):
                fake.counts.clear()
                made.append(f(x, w))
                graphs = fake.counts["graph launch"]
        kiln.cuda.synchronize()
        assert [bits(m) for m in made] == [wanted] * 2
    assert graphs == 1


def test_modes_are_torchs() -> None:
    for mode in (None, "default", "max-autotune-no-cudagraphs"):
        assert not kiln.compile(chain, mode=mode).report().graphs
    with pytest.raises(kiln.InvalidValueError, match="'fast'"):
        kiln.compile(chain, mode="fast")  # type: ignore[call-overload]
    f = kiln.compile(mode="reduce-overhead")(chain)
    assert f(kiln.eye(6), kiln.eye(6)).shape == (6,) and not f.report().graphs, "nothing changes on the CPU"


# ------------------------------------------------------------------------------------------------ recorded by hand


def test_what_is_recorded_is_done_by_replays(fake: Gpu) -> None:
    x, w = sample(), sample(1)
    compiled = kiln.compile(chain)
    for _ in range(2):
        chain(x, w), compiled(x, w)
    g = kiln.cuda.CUDAGraph()
    fake.counts.clear()
    with kiln.cuda.graph(g):
        assert kiln.cuda.is_current_stream_capturing()
        eager = chain(x, w) * 2
        total = x.add_(1).sum()
        both = compiled(x, w)
    assert not kiln.cuda.is_current_stream_capturing()
    assert bits(x) == bits(sample()), "nothing was done"
    for k in range(3):
        x.copy_(sample(k))
        fake.counts.clear()
        g.replay()
        assert fake.counts["graph launch"] == 1 and fake.counts["launch"] == 0 == fake.counts["synchronize"]
        assert bits(eager) == bits(chain(sample(k), w) * 2)
        assert bits(x) == bits(sample(k) + 1) and bits(total) == bits((sample(k) + 1).sum())
        assert bits(both) == bits(chain(sample(k) + 1, w))


def test_a_graph_keeps_what_it_reads() -> None:
    def made() -> tuple[Any, Any, Any]:
        model, x = nn.Linear(6, 6).cuda(), sample()
        f = kiln.compile(lambda x: model(x).softmax(-1) * kiln.arange(6, device="cuda"))
        with kiln.no_grad():
            f(x)
            wanted = bits(f(x))
            g = kiln.cuda.CUDAGraph()
            with kiln.cuda.graph(g):
                y = f(x)
        return g, y, wanted

    g, y, wanted = made()
    used = kiln.cuda.memory_allocated()
    others = [sample(k) for k in range(30)]  # which get what is free
    g.replay()
    assert bits(y) == wanted and others
    g.reset()
    del g, y, others
    assert kiln.cuda.memory_allocated() < used


def test_graphs_share_memory(fake: Gpu) -> None:
    x = sample()
    chain(x, x)
    pool = kiln.cuda.graph_pool_handle()
    first, second, third = (kiln.cuda.CUDAGraph() for _ in range(3))
    with kiln.cuda.graph(first, pool=pool):
        a = chain(x, x)
    with kiln.cuda.graph(second, pool=first.pool()):
        b = chain(x, a.reshape(6, 1) * x)
    with kiln.cuda.graph(third, pool):
        c = chain(b * x, x)
    for g in (first, second, third):
        g.replay()
    assert bits(c) == bits(chain(chain(x, chain(x, x).reshape(6, 1) * x) * x, x))


def test_a_whole_training_step() -> None:
    def trained(graphed: bool) -> list[bytes]:
        kiln.manual_seed(0)
        model, _, _ = mlp()
        model.cuda()
        for p in model.parameters():
            p.grad = kiln.zeros_like(p)
        x, y = kiln.zeros(4, 5, device="cuda"), kiln.tensor([0, 2, 1, 0]).cuda()

        def step() -> Any:
            model.zero_grad(set_to_none=False)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            with kiln.no_grad():
                for p in model.parameters():
                    p.sub_(p.grad * 0.1)
            return loss.detach()

        losses = [step(), step()]
        g = kiln.cuda.CUDAGraph()
        if graphed:
            with kiln.cuda.graph(g):
                losses.append(step())
        found = []
        for k in range(3):
            x.copy_(sample(k)[:4, :5])
            if graphed:
                g.replay()
            else:
                losses[2:] = [step()]
            found.append(bits(losses[2]))
        return [*found, *(bits(p) for p in model.parameters())]

    assert trained(True) == trained(False)


def test_checks_are_raised_by_replays() -> None:
    table, at = sample(), kiln.tensor([1, 2]).cuda()
    (table * 2)[at].sum()
    g = kiln.cuda.CUDAGraph()
    with kiln.cuda.graph(g):
        rows = (table * 2)[at].sum()
    g.replay()
    assert bits(rows) == bits((table * 2)[at].sum())
    at.fill_(9)
    for _ in range(2):
        with pytest.raises(KilnIndexError, match="9"):
            g.replay()
    at.fill_(3)
    g.replay()
    assert bits(rows) == bits((table * 2)[at].sum())


def test_what_can_not_be_recorded() -> None:
    x, host, other = sample(), kiln.ones(6), kiln.cuda.CUDAGraph()
    with kiln.cuda.graph(other):
        x * 3
    things: dict[str, Any] = {
        "replaying": other.replay,
        "waiting": lambda: x.sum().item(),
        "to the host": lambda: x.cpu(),
        "from the host": lambda: host.cuda(),
        "for a GPU": kiln.cuda.synchronize,
        "library": lambda: kiln.linalg.eigvals(x @ x.mT),
        "already": lambda: kiln.cuda.CUDAGraph().capture_begin(),
    }
    for match, thing in things.items():
        g = kiln.cuda.CUDAGraph()
        with pytest.raises((kiln.DeviceError, kiln.InvalidValueError), match=match), kiln.cuda.graph(g):
            x * 2
            thing()
        assert not kiln.cuda.is_current_stream_capturing()
        with pytest.raises(kiln.InvalidValueError, match="nothing has been recorded"):
            g.replay()
        assert bits(x) == bits(sample())
    with pytest.raises(kiln.InvalidValueError, match="default stream"):
        kiln.cuda.CUDAGraph().capture_begin()
    with pytest.raises(kiln.InvalidValueError, match="does not record"):
        kiln.cuda.CUDAGraph().capture_end()


def test_streams_that_join_a_recording() -> None:
    x, side = sample(), kiln.cuda.Stream()
    wanted = bits(x * 2 + 1 + x * 3)
    kiln.cuda.synchronize()

    def record(back: bool) -> tuple[kiln.cuda.CUDAGraph, Any]:
        g = kiln.cuda.CUDAGraph()
        with kiln.cuda.graph(g):
            main = kiln.cuda.current_stream()
            side.wait_stream(main)
            with kiln.cuda.stream(side):
                there = x * 3
            y = x * 2 + 1
            if back:
                main.wait_stream(side)
            y = y + there
        return g, y

    g, y = record(True)
    g.replay()
    assert bits(y) == wanted
    with pytest.raises(kiln.DeviceError, match="cudaErrorStreamCaptureUnjoined"):
        record(False)
    queued = kiln.cuda.Stream()
    with (
        pytest.raises(kiln.DeviceError, match=r"cudaErrorStreamCapture(Isolation|Invalidated)"),
        kiln.cuda.graph(kiln.cuda.CUDAGraph()),
    ):
        kiln.cuda.current_stream().wait_stream(queued)


def test_graphed_callables(fake: Gpu) -> None:
    model, w = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)).cuda(), sample(1)
    plain = [bits(model(sample(k))) for k in range(3)]
    graphed, f = kiln.cuda.make_graphed_callables((model, chain), ((sample(),), (sample(), w)))
    assert graphed is model
    for k in range(3):
        assert bits(graphed(sample(k))) == plain[k]
        assert bits(f(sample(k), w)) == bits(chain(sample(k), w))
    fake.counts.clear()
    f(sample(), w)
    assert fake.counts["graph launch"] == 1


def test_products_of_the_library_are_part_of_graphs(blas: Any, gpu: Gpu) -> None:
    """Also of operands that do not lie as the library wants them, which are copied to memory that stays."""

    def f(x: Any, w: Any) -> Any:
        return ((x @ w).relu() @ w).softmax(-1) @ w

    memory = kiln.arange(120.0).cuda().sin()
    run, w, x = recorded(f), memory[1:37].reshape(6, 6), memory[41:113].reshape(6, 12)[:, 3:9]  # at odd places
    kept = []
    for k in range(6):
        wanted = bits(f(x, w))
        kept.append(run(x, w))
        gpu.counts.clear()
        assert bits(kept[-1]) == wanted, k
        with kiln.no_grad():
            memory.mul_(0.9)
    run(x, w)
    (told,) = run.report().graphs
    assert "in one graph" in told
    g = kiln.cuda.CUDAGraph()
    with kiln.cuda.graph(g):
        y = f(x, w)
    others = [kiln.full((6, 6), 3.0, device="cuda") for _ in range(20)]
    g.replay()
    assert bits(y) == bits(f(x, w)) and others


def test_memory_of_other_streams_in_a_recording() -> None:
    x, side = sample(), kiln.cuda.Stream()
    x * 2 + 1
    g = kiln.cuda.CUDAGraph()
    with kiln.cuda.graph(g):
        y = x * 2
        y.record_stream(kiln.cuda.current_stream())
        y.record_stream(side)
        y = y + 1
    for _ in range(2):
        g.replay()
        assert bits(y) == bits(x * 2 + 1)
