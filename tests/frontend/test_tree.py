"""Decisions on tensor data, and calls that run eagerly: which way a call goes, and what is said about it."""

from __future__ import annotations

import threading
import time
import warnings
from typing import Any

import pytest

import kiln
from kiln.errors import CaptureError, CaptureWarning
from kiln.tree import MAX_ANSWERS


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is staged."""
    monkeypatch.setattr(kiln.base.STAGES, "enabled", False)


@pytest.mark.usefixtures("decided")
def test_each_answer_is_captured_once_and_then_compiled() -> None:
    runs = []

    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x.exp()
        return x.sin() if x[0] > -5 else x * 2

    for n in (1.0, -1.0, -9.0) * 3:
        x = kiln.tensor([n, n])
        runs.append(f(x).tolist())
    assert runs[:3] == runs[3:6] == runs[6:]
    assert f.log == ["first call", *["a question about tensor data had another answer"] * 2]
    assert len(f.regions()) == 3


@pytest.mark.usefixtures("decided")
def test_independent_branches_share_their_beginnings() -> None:
    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        for k in range(6):
            x = x + k if x[k] > 0 else x * 2
        return x

    def eager(x: Any) -> Any:
        return f._function(x)

    kiln.manual_seed(3)
    inputs = [kiln.randn(6) for _ in range(80)]
    for x in inputs * 2:
        assert f(x).numpy().tobytes() == eager(x).numpy().tobytes()
    (entry,) = next(iter(f._entries.values()))
    assert len(f.regions()) <= 64
    assert entry.tree.decisions <= 63


def test_too_many_answers_are_told_once_and_run_eagerly() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        return x * {x.sum().item(): x.sum().item()}[x.sum().item()]

    with pytest.warns(CaptureWarning, match="different answers") as told:
        for n in range(MAX_ANSWERS + 9):
            x = kiln.tensor([float(n), 1.0])
            assert f(x).tolist() == [n * (n + 1.0), n + 1.0]
    assert len(told) == 1
    assert told[0].filename == __file__


def test_what_cannot_be_compiled_runs_eagerly_with_one_warning() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        time.sleep(0)
        return x + 1

    with pytest.warns(CaptureWarning, match=r"(?s)f runs eagerly.*sleep.*test_tree\.py:\d+ in f.*fix:") as told:
        for n in range(3):
            assert f(kiln.tensor([1.0 * n])).tolist() == [n + 1.0]
    assert len(told) == 1
    assert not f.regions()


def test_only_the_way_that_cannot_be_compiled_runs_eagerly() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        y = x * 2
        if y.sum() < 0:
            time.sleep(0)
        return y + 1

    with pytest.warns(CaptureWarning):
        for n in (1.0, -1.0, 2.0, -2.0, 3.0):
            assert f(kiln.tensor([n])).tolist() == [2 * n + 1]
    assert len(f.regions()) == 1
    with pytest.raises(CaptureError, match="sleep"):
        kiln.compile(f._function, fullgraph=True)(kiln.tensor([-1.0]))


def test_state_that_is_made_once_does_not_stay_eager() -> None:
    class Lazy:
        table: Any = None

        def __call__(self, x: Any) -> Any:
            if self.table is None:
                self.table = kiln.arange(3.0)
            return x + self.table

    f = kiln.compile(Lazy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(4):
            assert f(kiln.full((3,), float(n))).tolist() == [n, n + 1.0, n + 2.0]
    assert len(f.regions()) == 2
    assert f.report().eager == 0


def test_state_that_always_changes_is_told() -> None:
    counts = [0]

    @kiln.compile
    def f(x: Any) -> Any:
        counts[0] += 1
        return x * counts[0]

    with pytest.warns(CaptureWarning, match="other Python state") as told:
        assert [f(kiln.ones(1)).item() for _ in range(40)] == [float(n + 1) for n in range(40)]
    assert len(told) == 1


def test_an_exception_for_some_data_is_the_users_own() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        if x.min() < 0:
            raise KeyError(x.min().item())
        return x.sqrt()

    for _ in range(2):
        assert f(kiln.tensor([4.0])).tolist() == [2.0]
        with pytest.raises(KeyError, match=r"-3\.0"):
            f(kiln.tensor([-3.0]))


def test_whether_a_gradient_is_there_may_decide_before_data_does() -> None:
    w = kiln.ones(2, requires_grad=True)

    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        y = x * 2 if w.grad is None else x * -3
        return y + 1 if y.sum() > 0 else y - 1

    def expected(x: Any) -> Any:
        return f._function(x).tolist()

    for grad in (None, kiln.ones(2), None, kiln.ones(2)):
        w.grad = grad
        for n in (1.0, -1.0):
            x = kiln.tensor([n, n])
            assert f(x).tolist() == expected(x)


@pytest.mark.parametrize("staged", [False, True])
def test_threads_go_their_ways(staged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kiln.base.STAGES, "enabled", staged)

    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        while x.sum() < 50:
            x = x * 3 if x[0] > x[1] else x * 2
        return x

    wrong: list[Any] = []

    def work(seed: int) -> None:
        g = kiln.Generator().manual_seed(seed)
        for _ in range(20):
            x = kiln.rand(2, generator=g) + 1
            if f(x).tolist() != f._function(x).tolist():
                wrong.append(x)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_second_derivatives_on_each_way() -> None:
    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        return (x**3).sum() if x.sum() > 0 else (x**4).sum()

    for n in (1.0, -1.0, 2.0, -2.0):
        x = kiln.tensor([n, n], requires_grad=True)
        (first,) = kiln.autograd.grad(f(x), x, create_graph=True)
        (second,) = kiln.autograd.grad(first.sum(), x)
        assert second.tolist() == ([6 * n] * 2 if n > 0 else [12 * n * n] * 2)


def test_a_trace_answers_no_questions() -> None:
    with pytest.raises(CaptureError, match="asks for tensor data"):
        kiln.jit.trace(lambda x: x * x.sum().item(), kiln.ones(2))


def test_recompiling_names_the_argument_and_the_dimension() -> None:
    def f(x: Any, scale: float = 1.0, *rest: Any, **options: Any) -> Any:
        return (x["a"] * scale).sum()

    warned = kiln.compile(f, on_recompile="warn")
    strict = kiln.compile(f, on_recompile="raise")
    for g in (warned, strict):
        g({"a": kiln.ones(2, 3)}, 2.0)
    cases = [
        (({"a": kiln.ones(2, 4)}, 2.0), r"dimension 1 of x\['a'\] is 4, known was 3"),
        (({"a": kiln.ones(2, 3)}, 3.0), r"scale is float 3.0, known was float 2.0"),
        (({"a": kiln.ones(2, 3), "b": 1}, 2.0), "the arguments have another structure"),
        (({"a": kiln.ones(2, 3, dtype=kiln.float64)}, 2.0), r"x\['a'\] is float64"),
    ]
    for args, message in cases:
        with pytest.raises(CaptureError, match=f"f has to be captured again: {message}"):
            strict(*args)
    with pytest.warns(CaptureWarning, match="dimension 1") as told:
        warned(*cases[0][0])
    assert told[0].filename == __file__
    assert kiln.compile(f, disable=True) is f
    with pytest.raises(kiln.InvalidValueError, match="on_recompile"):
        kiln.compile(f, on_recompile="explode")  # type: ignore[call-overload]


def test_too_many_captures_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kiln.capturing, "MAX_CAPTURES", 5)
    f = kiln.compile(lambda x, n: x * n)
    with pytest.warns(CaptureWarning, match="captured 5 times") as told:
        for n in range(9):
            assert f(kiln.ones(1), n).tolist() == [n]
            assert f(kiln.ones(1), 0).tolist() == [0]
    assert len(told) == 1


def test_effects_and_changed_state_do_not_capture_for_ever() -> None:
    seen: list[int] = []

    @kiln.compile
    def f(x: Any) -> Any:
        time.sleep(0)
        seen.append(1)
        return x + 1

    with pytest.warns(CaptureWarning):
        for _ in range(9):
            f(kiln.ones(1))
    assert len(seen) == 9
    assert f.report().captured <= 4
