"""Capture and compiled functions: the world looks as after the eager call, and what can't be repeated is refused."""

from __future__ import annotations

import cProfile
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import dispatch, nn
from kiln.errors import CaptureError, GradError, KilnIndexError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "errors"


def same(a: Any, b: Any) -> bool:
    return a.numpy().tobytes() == b.numpy().tobytes() and a.shape == b.shape and a.dtype is b.dtype


def three_calls(f: Callable[..., Any], *args: Any) -> list[Any]:
    return [f(*args) for _ in range(3)]


# --------------------------------------------------------------------------------- results and aliasing


def test_containers_scalars_and_none_come_back() -> None:
    @kiln.compile
    def f(x: Any, pair: Any, *, scale: float, label: str = "a") -> Any:
        return {"y": x * scale, "rest": [pair[0] + pair[1], (None, label, 3)]}

    x, pair = kiln.ones(2, 3), (kiln.ones(3), kiln.zeros(3))
    for out in three_calls(lambda: f(x, pair, scale=2.5)):
        assert same(out["y"], x * 2.5)
        assert same(out["rest"][0], kiln.ones(3))
        assert out["rest"][1] == (None, "a", 3)
    assert same(f(x, pair, scale=3.0)["y"], x * 3.0)
    assert len(f.regions()) == 2


def test_outputs_alias_inputs_as_in_eager() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        return x, x[1], x.t()

    for x in (kiln.ones(2, 3), kiln.ones(2, 3)):
        itself, row, turned = f(x)
        assert itself is x
        row.fill_(5.0)
        assert x.numpy()[1].tolist() == [5.0] * 3
        assert turned.numpy()[0].tolist() == [1.0, 5.0]


def test_outputs_that_share_memory_share_it() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        y = x + 1
        return y, y[0]

    for _ in range(2):
        y, head = f(kiln.zeros(2, 2))
        head.fill_(9.0)
        assert y.numpy()[0].tolist() == [9.0, 9.0]


def test_in_place_writes_reach_the_caller() -> None:
    @kiln.compile
    def f(x: Any, y: Any) -> None:
        x += y
        x[1:] *= 2
        y[0].fill_(7.0)

    def eager(x: Any, y: Any) -> None:
        x += y
        x[1:] *= 2
        y[0].fill_(7.0)

    for _ in range(3):
        a, b = kiln.arange(4.0), kiln.ones(4)
        c, d = kiln.arange(4.0), kiln.ones(4)
        f(a, b)
        eager(c, d)
        assert same(a, c)
        assert same(b, d)


def test_writes_to_strided_inputs_land_in_their_places() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        x.mul_(3.0)
        return x.sum()

    for _ in range(2):
        base = kiln.ones(4, 6)
        view = base[:, ::2]
        total = f(view)
        assert total.item() == 36.0
        assert base.numpy()[0].tolist() == [3.0, 1.0, 3.0, 1.0, 3.0, 1.0]


def test_a_failing_check_leaves_the_world_as_eager_does() -> None:
    @kiln.compile
    def f(counter: Any, logits: Any, labels: Any) -> Any:
        counter += 1
        return nn.functional.cross_entropy(logits, labels)

    counter, logits = kiln.zeros(()), kiln.zeros(2, 3)
    f(counter, logits, kiln.tensor([0, 2]))
    f(counter, logits, kiln.tensor([0, 2]))
    with pytest.raises(KilnIndexError, match="out of"):
        f(counter, logits, kiln.tensor([0, 3]))
    assert counter.item() == 3.0  # the write before it was done
    f(counter, logits, kiln.tensor([0, 1]))
    assert counter.item() == 4.0


# ------------------------------------------------------------------------------------------- gradients


def test_backward_through_a_compiled_function_continues_the_fold() -> None:
    kiln.manual_seed(3)

    def region(x: Any, w: Any) -> Any:
        return (x @ w).tanh() * x.sum()

    fast = kiln.compile(region)
    results = []
    for f in (region, fast, fast, fast):
        kiln.manual_seed(4)
        x, w = kiln.randn(5, 4).requires_grad_(), kiln.randn(4, 3).requires_grad_()
        before = (x * 0.1).sum()
        y = f(x, w)
        after = (x / 3).exp().sum() + w.sum()
        (y.sum() + before + after).backward()
        assert x.grad is not None
        assert w.grad is not None
        results.append(x.grad.numpy().tobytes() + w.grad.numpy().tobytes())
    assert len(set(results)) == 1


def test_second_derivatives_through_a_compiled_function() -> None:
    def f(x: Any) -> Any:
        return (x * x).tanh().sum()

    fast = kiln.compile(f)
    found = []
    for g in (f, fast, fast):
        x = kiln.tensor([0.3, -1.2, 2.0], requires_grad=True)
        (first,) = kiln.grad(g(x), x, create_graph=True)
        assert first is not None
        (second,) = kiln.grad(first.sum(), x)
        assert second is not None
        found.append(first.detach().numpy().tobytes() + second.numpy().tobytes())
    assert len(set(found)) == 1


def test_a_used_up_region_says_so() -> None:
    f = kiln.compile(lambda x: (x * x).sum())
    x = kiln.ones(3).requires_grad_()
    f(x)
    y = f(x)
    y.backward()
    with pytest.raises(GradError, match="retain_graph"):
        y.backward()


def test_grads_accumulate_or_appear_as_in_eager() -> None:
    def make() -> tuple[Any, Any]:
        p = kiln.ones(3).requires_grad_()

        def step(x: Any) -> Any:
            loss = (p * x).sum()
            loss.backward()
            return loss.detach()

        return p, step

    p, step = make()
    q, other = make()
    fast = kiln.compile(other)
    for k in range(4):
        x = kiln.full((3,), float(k))
        assert same(step(x), fast(x))
        assert same(p.grad, q.grad)


# -------------------------------------------------------------------------------------- state and guards


def test_changed_state_is_seen() -> None:
    settings = {"scale": 2.0}
    f = kiln.compile(lambda x: x * settings["scale"])
    x = kiln.ones(2)
    assert f(x).tolist() == [2.0, 2.0]
    settings["scale"] = 5.0
    assert f(x).tolist() == [5.0, 5.0]
    assert "settings" in f.log[-1] or "changed" in f.log[-1]


def test_a_replaced_parameter_is_seen() -> None:
    layer = nn.Linear(2, 2, bias=False)
    f = kiln.compile(layer)
    x = kiln.ones(1, 2)
    for _ in range(2):
        assert same(f(x).detach(), layer(x).detach())
    layer.weight = nn.Parameter(kiln.full((2, 2), 3.0))
    assert f(x).detach().tolist() == [[6.0, 6.0]]


def test_a_changed_learning_rate_is_seen() -> None:
    p = kiln.ones(1).requires_grad_()
    optimizer = kiln.optim.SGD([p], lr=1.0)

    @kiln.compile
    def step() -> None:
        optimizer.zero_grad()
        (p * 2).sum().backward()
        optimizer.step()

    step()
    step()
    assert p.item() == -3.0
    optimizer.param_groups[0]["lr"] = 0.5
    step()
    assert p.item() == -4.0


def test_shapes_and_modes_are_part_of_the_signature() -> None:
    f = kiln.compile(lambda x: x.sum() * 2)
    for n in (0, 1, 2, 7, 64, 7, 1):
        assert f(kiln.ones(n)).item() == 2.0 * n
    assert len(f.regions()) == 5
    x = kiln.ones(7).requires_grad_()
    with kiln.no_grad():
        assert not f(x).requires_grad
        assert not f(x).requires_grad
    assert f(x).requires_grad
    assert f(x).requires_grad


def test_random_state_advances_as_in_eager() -> None:
    f = kiln.compile(lambda x: x + kiln.rand(3))
    draws = []
    for g in (lambda x: x + kiln.rand(3), f):
        kiln.manual_seed(11)
        draws.append(b"".join(g(kiln.zeros(3)).numpy().tobytes() for _ in range(4)))
    assert draws[0] == draws[1]


def test_threads_share_one_compiled_function() -> None:
    f = kiln.compile(lambda x: (x * 2 + 1).sum())
    wrong: list[float] = []

    def work(n: int) -> None:
        for _ in range(20):
            got = f(kiln.ones(n)).item()
            if got != 3.0 * n:
                wrong.append(got)

    workers = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 3, 64, 1000, 3, 2, 1)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


# ----------------------------------------------------------------------------------------------- trace


def test_trace_takes_what_its_example_showed() -> None:
    traced = kiln.jit.trace(lambda x: x * 2, kiln.ones(3))
    assert traced(kiln.full((3,), 4.0)).tolist() == [8.0] * 3
    with pytest.raises(CaptureError, match="dimension 0 of x is 4, known was 3"):
        traced(kiln.ones(4))


# -------------------------------------------------------------------------------------------- refusals


def branch(x: Any) -> Any:
    if x.sum() > 0:
        return x
    return -x[0]


def loop(x: Any) -> Any:
    while x.max() < 10:
        x = kiln.cat([x, x * 2])
    return x


def number(x: Any) -> Any:
    return x * x.mean().item()


def to_numpy(x: Any) -> Any:
    return kiln.from_numpy(np.sort(x.numpy()))


CALLS: list[int] = []


def counts(x: Any) -> Any:
    CALLS.append(1)
    return x


def stray(x: Any) -> Any:
    return x + kiln.from_numpy(np.ones(3, np.float32))


@pytest.mark.parametrize("f", [branch, loop, number, to_numpy, counts, stray], ids=lambda f: f.__name__)
def test_refusals_are_golden(f: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    with pytest.raises(CaptureError) as caught:
        kiln.jit.trace(f, kiln.arange(3.0))
    lines = str(caught.value).split("\n")
    assert len(lines) <= 15
    text = "\n".join(line.replace(str(Path(__file__)), "test_capture.py") for line in lines)
    text = __import__("re").sub(r"test_capture\.py:\d+", "test_capture.py:LINE", text) + "\n"
    path = GOLDEN / f"{f.__name__}.txt"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


def test_first_use_of_a_view_after_a_write_keeps_its_gradient() -> None:
    """The view's new history is made when it is first read: before the op that reads it, not in its midst."""

    def written(x: Any) -> Any:
        base = x.clone()
        part = base[1:]
        part.mul_(3)
        return part * 5

    for f in (written, kiln.compile(written)):
        x = kiln.ones(3, requires_grad=True)
        f(x).sum().backward()
        assert x.grad.tolist() == [0, 15, 15]


def test_memory_shared_by_two_inputs_must_not_be_written() -> None:
    @kiln.compile(fullgraph=True)
    def f(a: Any, b: Any) -> Any:
        a += 1
        return a + b

    base = kiln.ones(4)
    with pytest.raises(CaptureError, match="share memory"):
        f(base[:3], base[1:])
    f(kiln.ones(3), kiln.ones(3))
    with pytest.raises(CaptureError, match="share memory"):
        f(base[:3], base[1:])


def test_an_exception_inside_leaves_no_capture_behind() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        f(kiln.ones(1))
    assert kiln.ones(2).sum().item() == 2.0


def test_garbage_collection_by_others_does_not_disturb_a_capture() -> None:
    import gc

    def callback(phase: str, info: dict[str, int]) -> None:
        seen.append(phase)

    seen: list[str] = []
    before = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(5, 2, 2)
    try:
        f = kiln.compile(lambda x: [x * k for k in range(20)][-1] + 1)
        assert f(kiln.ones(2)).tolist() == f(kiln.ones(2)).tolist() == [20.0, 20.0]
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(callback)


def test_kernels_are_made_unwatched_and_what_follows_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[object] = []
    build = dispatch.build

    def spying(*args: Any, **kwargs: Any) -> Any:
        watched.append(sys.getprofile())
        return build(*args, **kwargs)

    monkeypatch.setattr(dispatch, "_kernels", {})
    monkeypatch.setattr(dispatch, "_launches", {})
    monkeypatch.setattr(dispatch, "build", spying)

    def f(x: Any) -> Any:
        y = x * 3.5
        time.sleep(0)
        return y

    x = kiln.ones(3)
    watched.clear()
    with pytest.raises(kiln.CaptureError, match="sleep"):
        kiln.compile(f, fullgraph=True)(x)
    assert watched == [None]
    assert sys.getprofile() is None


def test_a_capture_under_a_profiler_leaves_it_running() -> None:
    profile = cProfile.Profile()
    profile.enable()
    try:
        f = kiln.compile(lambda x: x * 2)
        assert f(kiln.ones(2)).tolist() == f(kiln.ones(2)).tolist() == [2.0, 2.0]
        assert sys.getprofile() is not None
    finally:
        profile.disable()
