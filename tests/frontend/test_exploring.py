"""Scripts whose branches can't be staged: every way that data may take is captured with the first call, and nothing of
that is seen."""

from __future__ import annotations

import collections
import contextlib
import io
import linecache
import random
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.errors import CaptureError
from kiln.exploring import MAX_WAYS
from kiln.kept import Kept


def bits(x: Any) -> Any:
    """What tells results apart."""
    if isinstance(x, kiln.Tensor):
        return str(x.dtype), tuple(x.shape), x.detach().numpy().tobytes()
    if isinstance(x, (list, tuple)):
        return type(x), [bits(y) for y in x]
    return x


def alike(function: Any, *calls: tuple[Any, ...], captured: int = 1) -> Any:
    """Script calls give what eager calls give, and only `captured` of them are captured. Returns the script."""
    scripted = kiln.jit.script(function)
    for args in calls:
        eager = function(*[a.clone() if isinstance(a, kiln.Tensor) else a for a in args])
        assert bits(scripted(*args)) == bits(eager)
    report = scripted.report()
    assert report.captured == captured
    assert report.eager == report.decided == 0
    assert report.compiled + report.staged == len(calls) - captured
    return scripted


def vector(*values: float) -> Any:
    return kiln.tensor([float(v) for v in values])


def test_ways_are_printed() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            if x[0] > 1:
                raise ValueError("large")
            return x
        return None

    scripted = kiln.jit.script(f)
    scripted(vector(-1))
    lines = [line.strip() for line in scripted.ways.splitlines()]
    questions = [line.partition("  #")[0] for line in lines if line.startswith("bool()")]
    assert questions == ["bool() of if x.sum() > 0:", "bool() of if x[0] > 1:"]
    assert sorted(line for line in lines if line.startswith("is")) == ["is False:"] * 2 + ["is True:"] * 2
    assert lines.count("Python") == 1
    assert sum(line.startswith("graph f(") for line in lines) == 2


def test_results_of_other_kinds() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 10:
            return None
        if x.sum() > 0:
            return x, "positive"
        return x.double()

    scripted = alike(f, (vector(1, 2),), (vector(-1, 2),), (vector(-4, 2),), (vector(9, 2),), (vector(3, 2),))
    assert "3 ways through it" in scripted.report().captures[0]


def test_lists_that_grow_until_data_say_stop() -> None:
    def f(x: Any, limit: int) -> Any:
        out = [x]
        for k in range(limit):  # noqa: B007 (it is returned)
            x = x * 2
            out.append(x)
            if x.sum() > 10:
                break
        else:
            return None
        return kiln.stack(out), k

    alike(f, (vector(1, 1), 4), (vector(4, 0), 4), (vector(0.1, 0), 4), (vector(20, 1), 4))


def test_gradients_follow_the_way_that_was_taken() -> None:
    w = kiln.tensor([1.0, -2.0], requires_grad=True)

    def f(x: Any) -> Any:
        y = (w * x).tanh()
        if y.sum() > 0:
            return y.square()
        return (y * w).exp(), y

    scripted = kiln.jit.script(f)
    for n in (1, -1, 2, -2):
        gradients = []
        for g in (f, scripted):
            out = g(vector(n, 0.5))
            total = sum(t.sum() for t in (out if isinstance(out, tuple) else (out,)))
            gradients.append(bits(kiln.autograd.grad(total, w)[0]))
        assert gradients[0] == gradients[1]
    assert scripted.report().captured == 1


@pytest.mark.parametrize("first", [1.0, 90.0])
def test_writes_and_gradients_belong_to_the_way_that_was_taken(first: float) -> None:
    def make() -> tuple[Any, Any, Any]:
        w, scale = kiln.tensor([1.0, 2.0], requires_grad=True), kiln.tensor(1024.0)

        def step(x: Any) -> Any:
            w.grad = None
            ((w * x).exp().sum() * scale).backward()
            g = w.grad / scale
            if kiln.isinf(g).any() or kiln.isnan(g).any():
                scale.mul_(0.5)
                return None
            with kiln.no_grad():
                w.sub_(0.01 * g)
            scale.mul_(2)
            return g

        return step, w, scale

    eager, *plain = make()
    step, *state = make()
    scripted = kiln.jit.script(step)
    for n in (first, 1.0, 90.0, 2.0, 95.0):
        assert bits(scripted(vector(n, 1))) == bits(eager(vector(n, 1)))
        assert bits(state) == bits(plain)
        assert bits(state[0].grad) == bits(plain[0].grad)
        assert [t._version for t in state] == [t._version for t in plain]
    assert scripted.report().captured == 1


def test_ways_that_raise_raise_at_their_line() -> None:
    def f(x: Any) -> Any:
        if (x < 0).any():
            raise ValueError("negative")
        if not x.isfinite().all():
            raise AssertionError("not finite")
        return x.sqrt()

    scripted = kiln.jit.script(f)
    assert bits(scripted(vector(1, 4))) == bits(vector(1, 2))
    for bad, error in (
        (vector(-1, 4), ValueError("negative")),
        (vector(1, float("inf")), AssertionError("not finite")),
    ):
        with pytest.raises(type(error), match=str(error)) as caught:
            scripted(bad)
        assert caught.traceback[-1].name == "f"
    assert bits(scripted(vector(9, 4))) == bits(vector(3, 2))
    assert scripted.report().captured == 1


def test_ways_that_end_the_program_end_it_when_they_are_taken() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            raise SystemExit(3)
        return x

    for opened in (kiln.jit.script(f), kiln.compile(f)):
        assert bits(opened(vector(-1, 0))) == bits(vector(-1, 0))
        with pytest.raises(SystemExit):
            opened(vector(1, 0))


def test_questions_without_branches() -> None:
    def f(rows: list[Any], limit: float) -> Any:
        kept = [r for r in rows if r.sum() > limit]
        return sorted(kept, key=lambda r: r[0]), any((r == 0).all() for r in rows)

    rows = [vector(1, 2), vector(0, 0), vector(3, -1)]
    scripted = kiln.jit.script(f)
    for given in (rows, rows[::-1], [-r for r in rows], [r * 0 for r in rows]):
        assert bits(scripted(given, 0.5)) == bits(f(given, 0.5))
    assert scripted.report().captured == 1


def test_recursion_on_data() -> None:
    def collapse(x: Any, depth: int = 0) -> Any:
        if depth > 4 or x.abs().sum() < 1:
            return x, depth
        return collapse(x / 3, depth + 1)

    alike(collapse, (vector(2, 2),), (vector(0, 0.1),), (vector(200, 2),), (vector(20, 2),), (vector(1e4, 2),))


def test_random_states_are_drawn_from_once() -> None:
    def f(x: Any) -> Any:
        out = []
        for _ in range(3):
            x = x + kiln.randn(2)
            if kiln.rand(()) < 0.5:
                out.append(kiln.rand(2))
        return x, out

    scripted = kiln.jit.script(f)
    kiln.manual_seed(3)
    expected = [bits(f(vector(0, 1))) for _ in range(6)]
    kiln.manual_seed(3)
    assert [bits(scripted(vector(0, 1))) for _ in range(6)] == expected
    assert scripted.report().captured == 1


def test_numbers_and_draws_that_another_way_has() -> None:
    """Other numbers make other graphs of the branches, with more results than those of the first call."""

    def f(x: Any, k: int = 1) -> Any:
        if bool(x[0] < x[1]):
            k = k + 1
        else:
            k = 2 * k
            kiln.rand_like(x)
        return x * k

    scripted = kiln.jit.script(f)
    for values, k in (((1, 2), 2), ((2, 1), 1), ((1, 2), 1), ((3, 1), 3)):
        found = []
        for g in (f, scripted):
            kiln.manual_seed(0)
            found.append((g(vector(*values), k=k).tolist(), kiln.rand(2).tolist()))
        assert found[0] == found[1]


def test_sizes_that_data_decide_are_like_shapes() -> None:
    def f(x: Any, y: Any) -> Any:
        chosen = y[x > 0]
        if chosen.sum() > 5:
            return chosen * 2
        return chosen, kiln.bincount(x.clamp(0, 3).long())

    scripted = kiln.jit.script(f)
    calls = [
        ((1, -1), (2, 3)),
        ((1, 1), (2, 3)),
        ((1, 1), (2, 4)),
        ((-1, 1), (2, 9)),
        ((-1, -1), (1, 1)),
        ((2, 2), (1, 1)),
    ]
    for x, y in (*calls, *calls):
        assert bits(scripted(vector(*x), vector(*y))) == bits(f(vector(*x), vector(*y)))
    report = scripted.report()
    assert report.eager == report.decided == 0
    assert report.staged >= len(calls)
    assert all("another size" in why for why in report.captures[1:])


@pytest.mark.parametrize("door", [kiln.compile, kiln.jit.script])
def test_errors_that_are_caught(door: Any) -> None:
    """What comes after an `except` holds for data that lead there; the message is that of the call's data."""

    def f(a: Any, b: Any) -> Any:
        try:
            return kiln.linalg.solve(a, b), "solved"
        except RuntimeError as error:
            return kiln.linalg.pinv(a) @ b, str(error)

    good, bad, b = 2 * kiln.eye(2), kiln.ones(2, 2), kiln.ones(2, 1)
    opened = door(f)
    for a in (good, bad, good, bad, kiln.stack([good, bad]), kiln.stack([bad, good]), kiln.stack([good, bad])):
        assert bits(opened(a, b.expand(*a.shape[:-2], 2, 1))) == bits(f(a, b.expand(*a.shape[:-2], 2, 1)))
    assert opened.report().eager == 0
    assert opened.report().captured == 4


def test_errors_of_checks_that_are_caught() -> None:
    def f(p: Any, x: Any) -> Any:
        try:
            return kiln.distributions.Bernoulli(p).log_prob(x)
        except ValueError:
            return x * 0

    opened = kiln.compile(f)
    for n in (0.5, 2.0, 0.25, -1.0):
        assert bits(opened(vector(n), vector(1))) == bits(f(vector(n), vector(1)))
    assert opened.report().eager == 0


def test_nothing_of_it_is_seen() -> None:
    @dataclass
    class State:
        seen: list[Any] = field(default_factory=list)

    outer, state, calls = vector(1, 1), State(), 0
    kiln.manual_seed(5)

    def f(x: Any) -> Any:
        made = State()
        if x.sum() > 0:
            made.seen.append(x)
            outer.add_(x)
            return made.seen[0] * 2, len(state.seen)
        outer.mul_(3)
        return outer.clone()

    scripted = kiln.jit.script(f)
    version = outer._version
    scripted(vector(1, 2))
    assert bits(outer) == bits(vector(2, 3))
    assert outer._version == version + 1
    assert state == State()
    assert calls == 0
    expected = kiln.rand(2)
    kiln.manual_seed(5)
    assert bits(kiln.rand(2)) == bits(expected)


def test_state_that_only_another_way_changes_changes_on_that_way() -> None:
    log: list[str] = []
    box = {"count": 0}

    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x
        log.append("negative")
        box["count"] += 1
        return -x

    scripted = kiln.jit.script(f)
    scripted(vector(1, 2))
    assert log == []
    assert box == {"count": 0}
    for n in range(1, 4):
        scripted(vector(-1, -2))
        assert log == ["negative"] * n
        assert box == {"count": n}


def test_prints_on_other_ways_do_not_happen() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x
        print("negative")
        return -x

    scripted = kiln.jit.script(f)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        scripted(vector(1, 2))
        assert printed.getvalue() == ""
        scripted(vector(-1, -2))
        assert printed.getvalue() == "negative\n"
    assert scripted.report().captured == 1


def test_a_view_at_a_place_that_data_decide_is_refused_each_time() -> None:
    """Its place in memory can be seen."""
    x = kiln.zeros(3, 4)
    scripted = kiln.jit.script(lambda x, y: x[int(y.sum())])
    for n in (1, 2, 1):
        with pytest.raises(CaptureError, match="asks for tensor data"):
            scripted(x, vector(n))


def test_containers_that_one_branch_changes_and_the_other_puts_right() -> None:
    def f(items: list[Any], x: Any) -> int:
        if x.sum() > 0:
            items.append(x)
        else:
            items.clear()
        return len(items)

    for opened in (kiln.compile(f), kiln.jit.script(f)):
        for n in (1, -1, 1, -1):
            given: list[Any] = []
            assert opened(given, vector(n)) == len(given) == (n > 0)


def test_too_many_ways_are_refused() -> None:
    def f(x: Any) -> Any:
        out = []
        for k in range(10):
            if x[k] > 0:
                out.append(x[k])
        return out

    with pytest.raises(CaptureError, match=f"more than {MAX_WAYS} ways through f") as caught:
        kiln.jit.script(f)(kiln.ones(10))
    assert "if x[k] > 0:" in str(caught.value)


def test_loops_without_end_are_refused() -> None:
    def f(x: Any) -> Any:
        out = []
        while x.sum() > 1:
            x = x / 2
            out.append(x)
        return out

    with pytest.raises(CaptureError, match="more than 128 questions"):
        kiln.jit.script(f)(vector(1, 2))


def test_staged_loops_end_whatever_is_answered_before() -> None:
    def f(x: Any) -> Any:
        if not x.isfinite().all():
            return None
        while (x * x - 2).abs().max() > 1e-3:
            x = (x + 2 / x) / 2
        return x

    alike(f, (vector(float("nan"), 1),), (vector(1, 3),), (vector(2, 3),), (vector(1, float("inf")),))


def test_places_that_can_be_staged_are() -> None:
    def f(x: Any) -> Any:
        y = x * 2 if x.sum() > 0 else -x
        if y.max() > 3:
            return None
        return y

    scripted = alike(f, (vector(1, 1),), (vector(-1, -1),), (vector(9, 1),), (vector(-9, 1),))
    assert "2 ways through it" in scripted.report().captures[0]
    assert all(region.staged for region in scripted.regions())


def test_random_programs() -> None:
    """Functions of nested branches with results of all kinds, on all of their ways."""
    for seed in range(12):
        draw = random.Random(seed)

        source = ["def f(x):", "    kept = [x]"]
        for k in range(draw.randint(2, 4)):
            test = draw.choice(["x.sum() > 0", "x[0] < x[1]", "(x > 1).any() and x[0] > 0", "not (x < 0).all()"])
            deed = draw.choice(["kept.append(x * 2)", "kept.pop() if kept else None", "return kept, x", "return None"])
            source += [f"    if {test}:", f"        {deed}", f"    x = x * {draw.choice([2, -1, 0.5])} + {k}"]
        source.append("    return kept, x.double() if x[1] > 0 else x")
        space: dict[str, Any] = {}
        name = f"<ways {seed}>"
        linecache.cache[name] = (0, None, [line + "\n" for line in source], name)
        exec(compile("\n".join(source), name, "exec"), space)
        scripted = kiln.jit.script(space["f"])
        for n in range(8):
            x = vector(draw.uniform(-2, 2), draw.uniform(-2, 2))
            assert bits(scripted(x)) == bits(space["f"](x)), (seed, n)
        assert scripted.report().captured == 1


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a = 1


def test_kept_puts_everything_back() -> None:
    class Thing:
        kind = "one"

    def counter() -> Any:
        count = 0

        def inner() -> int:
            nonlocal count
            count += 1
            return count

        return inner

    thing, slotted, inner = Thing(), Slotted(), counter()
    thing.items = [1, [2, 3]]  # type: ignore[attr-defined]
    queue, table, some = collections.deque([1, 2], maxlen=2), {"b": 1, "a": 2}, {1, 2}
    t = kiln.ones(2, requires_grad=True)
    generator = kiln.Generator().manual_seed(4)
    assert inner.__closure__ is not None
    nested = thing.items[1]  # type: ignore[attr-defined]
    kept = Kept([thing, Thing, slotted, queue, table, some, nested, inner.__closure__[0], generator], [t])
    thing.items[1].append(4)  # type: ignore[attr-defined]
    thing.items = None  # type: ignore[attr-defined]
    thing.new = 1  # type: ignore[attr-defined]
    Thing.kind = "two"
    Thing.more = 1  # type: ignore[attr-defined]
    slotted.a, slotted.b = 2, 3
    queue.append(5)
    table["a"] = table.pop("b")
    some.add(7)
    inner()
    drawn = kiln.rand(2, generator=generator)
    t.sum().backward()
    t.requires_grad_(False)
    kept.restore()
    assert vars(thing) == {"items": [1, [2, 3]]}
    assert Thing.kind == "one"
    assert not hasattr(Thing, "more")
    assert slotted.a == 1
    assert not hasattr(slotted, "b")
    assert list(queue) == [1, 2]
    assert list(table.items()) == [("b", 1), ("a", 2)]
    assert some == {1, 2}
    assert inner() == 1
    assert bits(kiln.rand(2, generator=generator)) == bits(drawn)
    assert t.grad is None
    assert t.requires_grad


def test_warnings_of_kiln_are_not_repeated() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return None
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scripted = kiln.jit.script(f)
        assert scripted(vector(1)) is None
        assert np.array_equal(scripted(vector(-1)).numpy(), [-1])
