"""What a compiled call does to the world besides its result: each of these was once different from the eager call."""

from __future__ import annotations

from typing import Any

import pytest

import kiln
from kiln.errors import CaptureError, CaptureWarning


def test_a_write_to_one_of_several_elements_in_one_place() -> None:
    def f(x: Any) -> Any:
        x[1:2].add_(1.0)
        return x * 1

    compiled = kiln.compile(f)
    with pytest.warns(CaptureWarning, match="several elements share"):
        assert [g(kiln.tensor([0.5]).expand(3)).tolist() for g in (f, compiled, compiled)] == [[1.5] * 3] * 3
    with pytest.raises(CaptureError, match="several elements share one place"):
        kiln.compile(f, fullgraph=True)(kiln.tensor([0.5]).expand(3))


@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
def test_an_error_that_data_led_to_and_that_was_caught() -> None:
    def f(x: Any) -> Any:
        z = x * 1
        try:
            z = z[(x * 2).long()]
        except IndexError:
            z = z - 100.0
        return z

    compiled = kiln.compile(f)
    inputs = [[-1.0, 0.25, 2.0], [0.5, -0.5, 1.0]] * 3
    assert [compiled(kiln.tensor(x)).tolist() for x in inputs] == [f(kiln.tensor(x)).tolist() for x in inputs]
    compiled = kiln.compile(f, fullgraph=True)
    assert [compiled(kiln.tensor(inputs[1])).tolist() for _ in range(2)] == [f(kiln.tensor(inputs[1])).tolist()] * 2
    assert compiled(kiln.tensor(inputs[0])).tolist() == f(kiln.tensor(inputs[0])).tolist()


def _counting() -> tuple[Any, Any]:
    n = 1

    def f(x: Any) -> Any:
        nonlocal n
        m = 3
        if (x > 0.3).any():
            n = 2
            m = 4
        if (x > 0.9).any():
            n = m
        return x * n

    return f, lambda: n


@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
def test_a_variable_of_a_function_around_is_set_in_a_branch() -> None:
    f, n = _counting()
    g, m = _counting()
    compiled = kiln.compile(g)
    for v in (0.0, 0.5, 1.0, 0.5, 0.0) * 2:
        expected = f(kiln.tensor([v])).item(), n()
        found = compiled(kiln.tensor([v])).item(), m()
        assert found == expected
        assert type(found[1]) is int


def test_what_is_printed_after_a_staged_branch(capsys: pytest.CaptureFixture[str]) -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        y = x * 2
        if y.sum() > 0:
            y = y + 1
        print("here")
        return y

    for v in (1.0, -1.0, 1.0):
        f(kiln.tensor([v]))
    assert f.report().eager == 0
    assert capsys.readouterr().out == "here\n" * 3


def test_a_result_that_may_be_another_tensor_is_that_tensor() -> None:
    """Which tensor is returned depends on data: the compiled call gives eager's object, and writes reach it."""
    held = kiln.tensor([5.0, 6.0])

    def pick(x: Any) -> Any:
        z = x * 2
        if x.sum() > 0:
            return z
        return held

    def root(a: Any) -> Any:
        x = a
        while ((x * x - a).abs() > 1e-5 * a).any():
            x = 0.5 * (x + a / x)
        return x

    picked, compiled = kiln.compile(pick), kiln.compile(root)
    for v in (1.0, -1.0, 2.0, -1.0, -1.0):
        before = held.clone()
        got = picked(kiln.full((2,), v))
        assert (got is held) == (v < 0)
        got += 1
        assert held.tolist() == (before + 1.0 * (v < 0)).tolist()
    for v in (4.0, 1.0, 9.0, 1.0):
        a = kiln.tensor([v])
        assert (compiled(a) is a) == (root(a) is a) == (v == 1.0)


def _late(x: Any) -> Any:
    y = late + 1 if x.sum() > 0 else x  # noqa: F821
    late = 3
    return y + 0 * late


def _late_in_a_loop(x: Any) -> Any:
    n = 0
    while x.sum() > n:
        x = x - late  # noqa: F821
        n += 1
    late = 1
    return x + 0 * late


@pytest.mark.parametrize("f", [_late, _late_in_a_loop])
def test_a_variable_that_is_not_bound_yet(f: Any) -> None:
    compiled = kiln.compile(f)
    for v in (1.0, -1.0, 1.0):
        for call in (f, compiled):
            if v > 0:
                with pytest.raises(UnboundLocalError, match="cannot access local variable 'late'"):
                    call(kiln.tensor([v]))
            else:
                assert call(kiln.tensor([v])).tolist() == [v]


def test_gradients_are_taken_once_in_a_branch() -> None:
    weight = kiln.tensor([-1.0, 0.5, 2.0], requires_grad=True)

    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        (weight * x.detach()).sum().backward()
        return x

    compiled = kiln.compile(f)
    for v in (1.0, -1.0, 1.0, -2.0):
        seen = []
        for call in (f, compiled):
            weight.grad = None
            got = call(kiln.full((3,), v)).tolist()
            seen.append((got, None if weight.grad is None else weight.grad.tolist()))
        assert seen[0] == seen[1]


def test_what_only_the_next_turn_reads_is_kept() -> None:
    def f(z: Any, y: Any) -> Any:
        w = z + y
        for _ in (1, 2, 3):
            w = w + y
            if y[1] > 1.5:
                break
        return y * 1

    compiled = kiln.compile(f)
    for v in (1.0, 2.0, 1.0):
        y = kiln.full((3,), v)
        assert compiled(y, y).tolist() == f(y, y).tolist()


def test_a_gradient_that_is_also_reached_otherwise() -> None:
    def run(jit: Any) -> list[Any]:
        w, kept = kiln.ones(2, requires_grad=True), [kiln.tensor([1.0, 2.0])]

        def f(x: Any) -> Any:
            return x + w.grad * 10 + kept[0]

        f = jit(f)
        seen = []
        for grad in (kept[0], kiln.tensor([7.0, 7.0]), kept[0], None, kept[0], kiln.tensor([5.0, 5.0])):
            w.grad = kiln.tensor([3.0, 3.0]) if grad is None else grad
            seen.append(f(kiln.zeros(2)).tolist())
        return seen

    assert run(kiln.compile) == run(lambda f: f) == [[11, 22], [71, 72], [11, 22], [31, 32], [11, 22], [51, 52]]


def test_a_tried_way_that_is_not_what_was_staged_leaves_no_trace() -> None:
    def run(door: Any) -> list[Any]:
        kept, w = [kiln.zeros(3), kiln.ones(3)], kiln.ones(3)

        def f(x: Any, y: Any) -> Any:
            z, n = x + y, 0
            while n < 2 and w[1] > 0:
                n += 1
                if x[1] > -0.25:
                    x, y = y, x
                w.requires_grad_(False)
            for u in kept:
                u.add_(1)
            return z * 1

        f, seen = door(f), []
        for k in range(4):
            f(kept[0] if k % 2 else kiln.ones(3), kiln.zeros(3))
            seen.append([u.tolist() for u in kept])
        return seen

    assert run(kiln.jit.script) == run(lambda f: f)
