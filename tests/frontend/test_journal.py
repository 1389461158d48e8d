"""Calls that change Python state, compiled: see also the programs in battery/state_journal.py."""

from __future__ import annotations

import collections
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import kiln
from kiln.capturing import MAX_DRIFTS
from kiln.counting import only_counted
from kiln.errors import CaptureError, CaptureWarning
from kiln.journal import Draft, Fills, Journal, Known, New, Puts, Scene
from kiln.places import DEQUE, DICT, LIST, ORDERED, kind_of
from kiln.reach import reach


def vector(*numbers: float) -> Any:
    return kiln.tensor([float(x) for x in numbers])


def effects_of(holder: Any, change: Callable[[], None]) -> list[Any]:
    """What a change of what a function holds becomes."""

    def reads() -> Any:
        return holder

    reached = reach(reads)
    journal = Journal(reached.guards, ())
    change()
    journal.look()
    return journal.effects(Draft(lambda x: (-1, x), reached.seen, {}))


# -------------------------------------------------------------------------------------- single effects


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(a=5),
        lambda d: d.update(d=5, e=[1, (2, {"x": 3})]),
        lambda d: d.pop("a"),
        lambda d: d.update(a=d.pop("a")),
        lambda d: d.update(a=d.pop("a"), b=7),
        lambda d: d.clear(),
        lambda d: (d.clear(), d.update(c=1, b=2, a=3)),
    ],
)
@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_dicts_end_with_the_same_entries_in_the_same_order(kind: type, change: Callable[[Any], Any]) -> None:
    one, other = kind(a=1, b=2, c=3), kind(a=1, b=2, c=3)
    (effect,) = effects_of(one, lambda: change(one)) or [None]
    assert isinstance(effect, Puts)
    again = Puts(effect.kind, Known(other), effect.dropped, effect.puts)
    again.commit(Scene((), ()))
    assert list(other.items()) == list(one.items())
    assert repr(other) == repr(one)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.append(4),
        lambda x: x.pop(),
        lambda x: x.reverse(),
        lambda x: x.insert(1, [1]),
        lambda x: x.clear(),
        lambda x: x.extend("ab"),
    ],
)
@pytest.mark.parametrize("kind", [list, collections.deque])
def test_sequences_end_with_the_same_items(kind: type, change: Callable[[Any], Any]) -> None:
    one, other = kind([1, 2, 3]), kind([1, 2, 3])
    (effect,) = effects_of(one, lambda: change(one))
    assert isinstance(effect, Fills)
    Fills(effect.kind, Known(other), effect.start, effect.items).commit(Scene((), ()))
    assert other == one


def test_an_appended_item_leaves_the_others_alone() -> None:
    held = [1, 2, 3]
    (effect,) = effects_of(held, lambda: held.append(4))
    assert effect.start == 3


def test_new_containers_are_made_once_for_each_call() -> None:
    inner = New(list, (), (Known(1),))
    both = New(dict, ("a", "b"), (inner, inner))
    first, second = both.build(Scene((), ())), both.build(Scene((), ()))
    assert first == second == {"a": [1], "b": [1]}
    assert first["a"] is first["b"] is not second["a"]


def test_kinds_of_places() -> None:
    assert kind_of([]) is LIST
    assert kind_of({}) is DICT
    assert kind_of(collections.OrderedDict()) is ORDERED
    assert kind_of(collections.deque()) is DEQUE
    assert kind_of((1, 2)) is kind_of(1) is None


# -------------------------------------------------------------------------------------------- counting


def test_what_is_only_counted() -> None:
    calls = 0

    def counts(self: Any) -> None:
        nonlocal calls
        calls += 1
        self.steps -= 2

    def reads(self: Any) -> Any:
        return self.steps, calls

    def sets(self: Any) -> None:
        self.steps = 0

    def asks(self: Any) -> Any:
        return getattr(self, "steps")  # noqa: B009

    def adds_itself(self: Any) -> None:
        self.steps += self.steps

    code = [counts.__code__]
    assert only_counted("steps", code, set())
    assert only_counted("calls", code, set())
    assert not only_counted("other", code, set())
    assert not only_counted("calls", code, {"cell_contents"})
    for other in (reads, sets, asks, adds_itself):
        assert not only_counted("steps", [*code, other.__code__], set())
    assert not only_counted("calls", [*code, reads.__code__], set())


class Net(kiln.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: Any) -> Any:
        self.steps += 1
        return x * 2


@pytest.mark.parametrize("door", [kiln.compile, kiln.jit.script])
def test_counters_do_not_capture_again(door: Any) -> None:
    net = Net()
    f = door(net)
    for n in range(10):
        f(vector(1, n))
        assert net.steps == n + 1
    net.steps = 2**80
    f(vector(1, 2))
    assert net.steps == 2**80 + 1
    assert f.report().captured == 2
    net.steps = 2.5
    f(vector(1, 2))
    assert net.steps == 3.5
    net.steps = True
    f(vector(1, 2))
    assert net.steps == 2
    assert type(net.steps) is int


def test_a_counter_that_is_read_later_on_is_followed() -> None:
    class Other(Net):
        def forward(self, x: Any) -> Any:
            self.steps += 1
            return self.after(x)

        def after(self, x: Any) -> Any:
            return x

    net = Other()
    f = kiln.compile(net)
    for _ in range(4):
        f(vector(1))
    Other.after = lambda self, x: x * self.steps  # type: ignore[method-assign]
    for n in range(5, 9):
        assert f(vector(1)).tolist() == [n]
        assert net.steps == n


# ------------------------------------------------------------------------------------- calls in a row


def test_state_that_is_replaced_is_captured_twice() -> None:
    state = {"m": vector(0, 0)}

    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        state["m"] = 0.5 * state["m"] + x
        return state["m"]

    expected = vector(0, 0)
    for n in range(6):
        expected = 0.5 * expected + vector(n, 1)
        out = f(vector(n, 1))
        assert out is state["m"]
        assert out.tolist() == expected.tolist()
    assert f.report().captured == 2
    assert f.report().compiled == 4


def test_what_changes_differently_each_time_runs_eagerly_in_the_end() -> None:
    history: list[float] = []

    @kiln.compile
    def f(x: Any) -> Any:
        history.append(len(history) * 0.5)
        return x * history[-1]

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for n in range(MAX_DRIFTS + 5):
            assert f(vector(2)).tolist() == [n]
    assert len(history) == MAX_DRIFTS + 5
    (warning,) = [w for w in told if w.category is CaptureWarning]
    assert "each call finds other Python state than the one before: history" in str(warning.message)
    assert f.report().captured == MAX_DRIFTS


def test_nothing_is_committed_when_a_check_fails() -> None:
    log: list[Any] = []

    @kiln.compile
    def f(x: Any, i: Any) -> Any:
        log.append("begun")
        row = x[i]
        log.append("done")
        del log[:]
        return row

    x = kiln.arange(3)
    for _ in range(3):
        f(x, kiln.tensor([1]))
    assert f.report().compiled == 2
    with pytest.raises(IndexError):
        f(x, kiln.tensor([7]))
    assert log == ["begun"]


def test_threads_count_every_call() -> None:
    state: dict[str, Any] = {"total": vector(0)}
    net = Net()

    @kiln.compile
    def f(x: Any) -> Any:
        state["total"] = state["total"] + x
        return net(x)

    f(vector(1))
    f(vector(1))

    def work() -> None:
        for _ in range(50):
            f(vector(1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state["total"].tolist() == [202.0]
    assert net.steps == 202


def test_an_argument_that_is_state_is_refused() -> None:
    kept = {"xs": [vector(1)]}

    @kiln.compile(fullgraph=True)
    def f(xs: Any) -> Any:
        xs.append(xs[0] * 2)
        return len(kept["xs"])

    assert f([vector(1)]) == 1
    assert f([vector(2)]) == 1
    with pytest.raises(CaptureError, match="also reaches by itself"):
        f(kept["xs"])


def test_what_can_not_be_made_again_is_named() -> None:
    held: dict[str, Any] = {}

    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        held["g"] = lambda: x
        return x * 2

    with pytest.raises(CaptureError, match=r"changed Python state: held \(to a new builtins.function\)"):
        f(vector(1))


def test_traces_do_not_change_state() -> None:
    held: dict[str, Any] = {"m": vector(0)}

    def f(x: Any) -> Any:
        held["m"] = x * 2
        return x + 1

    with pytest.raises(CaptureError, match="changed Python state: held"):
        kiln.jit.trace(f, vector(1))
