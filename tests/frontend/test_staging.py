"""Control flow on tensor data as users write it: staged, in one capture, with eager's bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import kiln


def bits(x: Any) -> Any:
    """A result to the last bit."""
    if isinstance(x, kiln.Tensor):
        return str(x.dtype), tuple(x.shape), x.detach().numpy().tobytes()
    if isinstance(x, (tuple, list)):
        return type(x), [bits(v) for v in x]
    if isinstance(x, dict):
        return {k: bits(v) for k, v in x.items()}
    return type(x), repr(x)


def check_staged(f: Callable[..., Any], calls: Sequence[tuple[Any, ...]], fullgraph: bool = True) -> Any:
    """Compiled, `f` gives eager's results for all calls, captured once and staged in all the others."""
    compiled = kiln.compile(f, fullgraph=fullgraph)
    for args in calls:
        assert bits(compiled(*args)) == bits(f(*args))
    report = compiled.report()
    assert (report.captured, report.staged) == (1, len(calls) - 1), str(report)
    return compiled


def size_of(compiled: Any) -> int:
    """How many operations its only graph has."""
    (region,) = compiled.regions()
    return len(region.graph.operations)


# --------------------------------------------------------------------------------- whole programs


def test_newton_iterates_to_a_tolerance() -> None:
    def sqrt(a: Any, tolerance: float = 1e-6) -> Any:
        x = kiln.ones_like(a)
        steps = 0
        while ((x * x - a).abs() > tolerance * a).any():
            x = 0.5 * (x + a / x)
            steps += 1
            if steps >= 40:
                break
        return x, steps

    a = kiln.tensor([1.0, 2.0, 9.0])
    check_staged(sqrt, [(a * k,) for k in (1.0, 17.0, 1e-3, 1e4, 3e-9)])


def test_mandelbrot_escapes_on_whole_arrays() -> None:
    def escape(re: Any, im: Any, limit: int) -> Any:
        x, y = kiln.zeros_like(re), kiln.zeros_like(im)
        count = kiln.zeros(re.shape, dtype=kiln.int64)
        mask = kiln.ones(re.shape, dtype=kiln.bool)
        n = 0
        while mask.any() and n < limit:
            x, y = x * x - y * y + re, 2 * x * y + im
            mask = mask & (x * x + y * y <= 4)
            count = count + mask.long()
            n += 1
        return count

    grid = kiln.linspace(-2, 1, 12).reshape(1, 12).expand(8, 12).contiguous()
    rows = kiln.linspace(-1, 1, 8).reshape(8, 1).expand(8, 12).contiguous()
    compiled = check_staged(escape, [(grid * k, rows, 30) for k in (1.0, 0.3, 5.0, 9.0)])
    assert size_of(compiled) < 30


def test_beam_search_ends_when_all_beams_do() -> None:
    kiln.manual_seed(2)
    table = kiln.randn(7, 7).log_softmax(-1)

    def search(start: Any, width: int = 3, longest: int = 6) -> Any:
        tokens = kiln.zeros(width, longest, dtype=kiln.int64)
        scores = kiln.full((width,), -1e9)
        scores = kiln.where(kiln.arange(width) == 0, 0.0, scores)
        last = start.expand(width).contiguous()
        done = kiln.zeros(width, dtype=kiln.bool)
        place = kiln.arange(longest)
        step = 0
        while not done.all() and step < longest:
            following = kiln.where(done.unsqueeze(1), 0.0, table[last])
            total = (scores.unsqueeze(1) + following).reshape(-1)
            scores, best = total.topk(width)
            beam, word = best // 7, best % 7
            tokens = kiln.where(place == step, word.unsqueeze(1), tokens[beam])
            done = done[beam] | (word == 0)
            last = word
            step += 1
        return tokens, scores, step

    check_staged(search, [(kiln.tensor([k]),) for k in (1, 3, 4, 6)])


def test_rnn_over_a_ragged_batch() -> None:
    kiln.manual_seed(3)
    weight, recurrent = kiln.randn(4, 5) * 0.5, kiln.randn(5, 5) * 0.5

    def rnn(x: Any, lengths: Any) -> Any:
        h = kiln.zeros(x.shape[1], 5)
        for t in range(lengths.max()):
            new = kiln.tanh(x[t] @ weight + h @ recurrent)
            h = kiln.where((t < lengths).unsqueeze(1), new, h)
        return h

    x = kiln.randn(6, 3, 4)
    calls = [(x, kiln.tensor(lengths)) for lengths in ([1, 2, 3], [6, 1, 1], [2, 2, 2], [0, 0, 0])]
    check_staged(rnn, calls)


def test_adaptive_runge_kutta_accepts_and_rejects_steps() -> None:
    def solve(y0: Any, t1: Any, tolerance: float = 1e-4) -> Any:
        def slope(t: Any, y: Any) -> Any:
            return -y * y * kiln.cos(3 * t) - 0.5 * y

        t, h, y = kiln.zeros(()), kiln.full((), 0.2), y0
        accepted = rejected = 0
        while t < t1:
            if t + h > t1:
                h = t1 - t
            k1 = slope(t, y)
            k2 = slope(t + h / 2, y + h / 2 * k1)
            k3 = slope(t + 0.75 * h, y + 0.75 * h * k2)
            proposal = y + h * (2 / 9 * k1 + 1 / 3 * k2 + 4 / 9 * k3)
            k4 = slope(t + h, proposal)
            error = (h * (-5 / 72 * k1 + 1 / 12 * k2 + 1 / 9 * k3 - 1 / 8 * k4)).abs().max()
            if error <= tolerance:
                t = t + h
                y = proposal
                accepted += 1
            else:
                rejected += 1
            h = h * (0.9 * (tolerance / (error + 1e-12)) ** 0.5).clamp(0.2, 4.0)
        return y, accepted, rejected

    y = kiln.tensor([1.0, -0.3, 2.0])
    check_staged(solve, [(y * k, kiln.tensor(end)) for k, end in ((1.0, 1.0), (0.1, 3.0), (3.0, 2.0), (1.0, 0.1))])


# --------------------------------------------------------------------------------- what is staged


def test_branches_ternaries_conditions_and_early_returns() -> None:
    def f(x: Any, limit: float) -> Any:
        if x.sum() > limit and x.min() > -5:
            x = x * 2
        elif not x.max() < 0:
            x = x - 1
        y = x.exp() if -1 < x[0] < 1 else x.abs()
        if y.sum() > 1e6:
            return y * 0
        sign = 1 if x[0] > 0 or x[1] > 0 else -1
        return y * sign

    calls = [(kiln.tensor(v), 1.0) for v in ([1.0, 2.0], [-1.0, 0.5], [-9.0, -8.0], [60.0, 1.0], [0.5, 0.1])]
    check_staged(f, calls)


def test_numbers_live_in_the_graph() -> None:
    def f(x: Any) -> Any:
        n, scale, found = 3, 0.5, False
        if x.sum() > 0:
            n, scale = 5, 2.5
        if x[0] > 1:
            found = True
        y = x * scale + n
        total = n * 0.5 + scale
        if found:
            y = y - total
        return y, n, scale, found, total, n % 3 == 2

    check_staged(f, [(kiln.tensor([v, 0.5]),) for v in (1.0, -1.0, 2.0, -3.0)])


def test_what_python_insists_on_is_a_decision() -> None:
    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        n = 2
        if x.sum() > 0:
            n = 3
        kind = "int" if isinstance(n, int) else "?"
        return x.reshape(n, -1) * n, kind, f"{n}", {n: x}, [0, 1, 2, 3][n]

    for v in (1.0, -1.0, 2.0, -2.0):
        x = kiln.full((6,), v)
        assert bits(f(x)) == bits(f._function(x))
    assert f.report().captured == 2


def test_breaks_and_returns_in_loops() -> None:
    def f(x: Any, limit: Any) -> Any:
        total = x * 0
        for k in range(limit):
            if k == 3:
                continue
            total = total + x * k
            if total.sum() > 20:
                break
        else:
            total = -total
        steps = 0
        while True:
            steps += 1
            x = x * 2
            if x.abs().max() > 100:
                return total, x, steps

    check_staged(f, [(kiln.tensor([v, 1.0]), kiln.tensor(n)) for v, n in ((1.0, 3), (2.0, 9), (-5.0, 6), (0.1, 0))])


def test_a_loop_inside_a_loop_inside_a_branch() -> None:
    def collatz(n: Any) -> Any:
        longest = kiln.zeros((), dtype=kiln.int64)
        if n > 0:
            for start in range(1, n):
                k = kiln.zeros((), dtype=kiln.int64) + start
                length = kiln.zeros((), dtype=kiln.int64)
                while k != 1:
                    k = k // 2 if k % 2 == 0 else 3 * k + 1
                    length = length + 1
                longest = kiln.maximum(longest, length)
        return longest

    check_staged(collatz, [(kiln.tensor(n),) for n in (5, 12, 1, -3)])


def test_random_numbers_in_branches_and_loops() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            x = x + kiln.rand(2)
        while x.sum() < 5:
            x = x + kiln.rand(2)
        return x + kiln.rand(2)

    compiled = kiln.compile(f, fullgraph=True)
    for v in (1.0, -1.0, 9.0, 2.0):
        x = kiln.tensor([v, v])
        kiln.manual_seed(5)
        expected, state = bits(f(x)), bits(kiln.default_generator.state)
        kiln.manual_seed(5)
        assert bits(compiled(x)) == expected
        assert bits(kiln.default_generator.state) == state
    assert compiled.report().staged == 3


def test_functions_methods_modules_and_closures_are_staged() -> None:
    def clipped(x: Any, most: float) -> Any:
        return x if x.abs().max() < most else x * 0

    class Net(kiln.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = kiln.nn.Linear(3, 3)
            self.inner.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            y = self.inner(x)
            if y.sum() > 0:
                y = y + 1
            return clipped(y, 50.0)

    kiln.manual_seed(0)
    net = kiln.nn.Sequential(Net(), Net())
    compiled = kiln.compile(net, fullgraph=True)
    for v in (1.0, -2.0, 300.0, 0.1):
        x = kiln.tensor([v, 1.0, -v])
        assert bits(compiled(x)) == bits(net(x))
    assert compiled.report().staged == 3


def test_a_scripted_function_is_staged_for_all_data() -> None:
    scripted = kiln.jit.script(lambda x: x * 2 if x.sum() > 0 else -x)
    for v in (1.0, -1.0):
        x = kiln.tensor([v, v])
        assert scripted(x).tolist() == ([2 * v] * 2 if v > 0 else [-v] * 2)


# ---------------------------------------------------------------------------- what is left to Python


def left_to_python(f: Callable[..., Any], make: Callable[[float], tuple[Any, ...]]) -> Any:
    """Compiled calls do what eager ones do, arguments included, and some are decided."""
    compiled = kiln.compile(f)
    for v in (1.0, -1.0, 2.0, -2.0, 3.0, -3.0):
        one, other = make(v), make(v)
        assert bits(compiled(*one)) == bits(f(*other))
        assert bits(one) == bits(other)
    assert compiled.report().decided
    return compiled


def test_what_a_branch_does_to_the_world_happens_once() -> None:
    seen: list[str] = []

    class Box:
        count = 0

    box = Box()

    def f(x: Any) -> Any:
        if x.sum() > 0:
            seen.append("positive")
            y = x * 2
        else:
            box.count += 1
            y = x * 3
        return y

    compiled = kiln.compile(f)
    for v in (1.0, -1.0, 2.0, -2.0):
        assert compiled(kiln.tensor([v])).tolist() == [v * 2 if v > 0 else v * 3]
    assert (seen, box.count) == (["positive"] * 2, 2)


def test_writes_in_branches_reach_the_arguments() -> None:
    def f(x: Any, y: Any) -> Any:
        if x.sum() > 0:
            y += x
        else:
            y[0] = x[1]
        return y * 1

    left_to_python(f, lambda v: (kiln.tensor([v, v]), kiln.ones(2)))


def test_a_tensor_that_may_be_another_name_is_written() -> None:
    def f(x: Any) -> Any:
        y = x
        if x.sum() > 0:
            y = x * 2
        y += 1
        return y * 1

    left_to_python(f, lambda v: (kiln.tensor([v, v]),))

    def g(x: Any) -> Any:
        y = x * 3
        if x.sum() > 0:
            z = y[0:1]
        else:
            z = x[0:1] * 1
        y *= 2
        return z + y

    left_to_python(g, lambda v: (kiln.tensor([v, v]),))

    def h(x: Any) -> Any:
        y = x * 1
        z = y if x.sum() > 0 else x + 0
        return "same" if z is y else "other"

    left_to_python(h, lambda v: (kiln.tensor([v, v]),))


def test_results_of_other_kinds_are_decided() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x, "positive"
        return x.double()

    def g(x: Any) -> Any:
        if x.sum() > 0:
            extra = x + 1
        return extra if x.sum() > 0 else x

    def h(x: Any) -> Any:
        parts = [x]
        if x.sum() > 0:
            parts = [x, x]
        return kiln.cat(parts)

    for function in (f, g, h):
        left_to_python(function, lambda v: (kiln.tensor([v, v]),))


def test_exceptions_in_branches_are_the_users_own() -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        total = 0.0
        for row in x:
            if row.sum() < 0:
                raise ValueError("negative")
            total = total + row.sum()
        return total

    for _ in range(2):
        assert f(kiln.ones(3, 2)).item() == 6
        with pytest.raises(ValueError, match="negative"):
            f(-kiln.ones(3, 2))


def test_iterators_and_lists_are_not_touched_by_trials() -> None:
    def f(x: Any) -> Any:
        items = iter([1.0, 2.0, 3.0])
        made = [x]
        if x.sum() > 0:
            x = x * next(items)
            made += [x]
        x = x * next(items)
        return x, len(made)

    left_to_python(f, lambda v: (kiln.tensor([v, v]),))


def test_recursion_under_a_condition_is_decided() -> None:
    def depth(x: Any) -> Any:
        if x.sum() > 4:
            return x
        return depth(x * 2) + 1

    def f(x: Any) -> Any:
        return depth(x.abs() + 0.5)

    left_to_python(f, lambda v: (kiln.tensor([v]),))


def test_gradients_are_eagers() -> None:
    w = kiln.tensor([0.5, -1.5], requires_grad=True)

    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        y = x * w
        if y.sum() > 0:
            y = y * w + y
        with kiln.no_grad():
            scale = 2.0
            if y.max() > 1:
                scale = 1.0
        return (y * scale).sum()

    for v in (1.0, -1.0, 2.0, -2.0) * 2:
        grads = []
        for function in (f, f._function):
            w.grad = None
            function(kiln.tensor([v, 1.0])).backward()
            grads.append(bits(w.grad))
        assert grads[0] == grads[1]


def test_staging_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kiln.base.STAGES, "enabled", False)
    f = kiln.compile(lambda x: x * 2 if x.sum() > 0 else -x)
    for v in (1.0, -1.0, 2.0):
        f(kiln.tensor([v]))
    assert (f.report().staged, f.report().captured) == (0, 2)


def test_a_test_that_assigns() -> None:
    def f(x: Any) -> Any:
        most = x.max()
        while (s := x.sum()) < 4 and (most := x.max()) < 100:
            x = x + 1
        return s, x, most if s < 4 else -s

    check_staged(f, [(kiln.tensor([v, 1.0]),) for v in (1.0, -4.0, 3.0, 99.0)])


def test_strides_that_differ_are_not_joined() -> None:
    def f(x: Any) -> Any:
        y = x.reshape(1, 3)
        y = y.t() if x.sum() > 0 else y.reshape(3, 1)
        return y.stride(), y * 1

    left_to_python(f, lambda v: (kiln.tensor([v, v, v]),))


def test_decisions_after_staged_branches_are_found_again() -> None:
    @kiln.compile(fullgraph=True)
    def f(x: Any) -> Any:
        y = x * 2 if x.sum() > 0 else x - 1
        return y * (0, 1, 2, 3)[int(y.abs().max() % 4)]

    for v in (1.0, -1.0, 2.0, 3.0, 0.5, 1.5, -2.0, 2.5) * 2:
        x = kiln.tensor([v, v])
        assert bits(f(x)) == bits(f._function(x))
    assert f.report().captured == 4
