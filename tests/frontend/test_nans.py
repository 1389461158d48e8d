"""`kiln.compile(check_nan=True)`: which op made the first NaN of a compiled call, on which line, in which turn."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.errors import NanError

NAN = float("nan")


def line_of(function: Any, text: str) -> int:
    """The line of a function's source that holds a text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(k for k, line in enumerate(lines) if text in line)


def looking(function: Callable[..., Any]) -> Any:
    return kiln.compile(function, fullgraph=True, check_nan=True)


def found(call: Callable[[], Any]) -> NanError:
    with pytest.raises(NanError) as raised:
        call()
    return raised.value


def test_the_op_and_the_line() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        z = (y - 3).log()  # here
        return z.sum()

    compiled = looking(f)
    for x in ([1.0, 2.0], [2.0, 1.0], [1.0, 1.0]):  # the capture, then its program
        error = found(lambda x=x: compiled(kiln.tensor(x)))
        assert isinstance(error, RuntimeError) and isinstance(error, kiln.KilnError)
        assert error.op == "log" and error.turns == () and "without one" in error.message
        assert error.loc is not None and error.loc.line == line_of(f, "# here")
        assert "z = (y - 3).log()" in str(error)
    assert compiled(kiln.tensor([2.0, 2.0])).item() == 0.0
    assert compiled.report().compiled == 1  # of four, the one that gave something: the first was the capture
    assert np.isnan(kiln.compile(f)(kiln.tensor([1.0, 2.0])).item())


def test_a_nan_that_came_in_is_not_the_calls() -> None:
    compiled = looking(lambda x, y: ((x * 2).sum(), (y / y).sum()))
    one, zero = kiln.tensor([1.0]), kiln.tensor([0.0])
    for _ in range(2):
        values = compiled(kiln.tensor([NAN, 1.0]), one)
        assert np.isnan(values[0].item()) and values[1].item() == 1.0
    assert found(lambda: compiled(kiln.tensor([NAN, 1.0]), zero)).op == "div"
    compiled = looking(lambda x: x / 0)
    for value in (1.0, -1.0):  # infinities are no NaNs
        assert np.isinf(compiled(kiln.tensor([value])).item())


def test_a_nan_that_nothing_shows() -> None:
    compiled = looking(lambda x: kiln.where(x > 0, x.sqrt(), 0))
    for x in ([1.0, 4.0], [1.0, -4.0]):
        assert compiled(kiln.tensor(x)).tolist() == [1.0, max(x[1], 0) ** 0.5]


def while_loop(x: Any, n: Any) -> Any:
    def body(i: Any, x: Any) -> Any:
        x = x - 0.5
        return i + 1, x.sqrt()  # here

    return kiln.while_loop(lambda i, x: i < n, body, (kiln.tensor(0), x))


def scan(c: Any, xs: Any, reverse: bool) -> Any:
    def body(c: Any, x: Any) -> Any:
        return c + x, (c - x).log()  # here

    return kiln.scan(body, c, xs, reverse=reverse)


def test_the_turn_of_a_while_loop() -> None:
    compiled = looking(while_loop)
    x = kiln.tensor([1.0, 2.0])
    for start, turn in ((x, 2), (x, 2), (x + 0.5, 3), (x * 0, 0)):
        error = found(lambda start=start: compiled(start, kiln.tensor(8)))
        assert error.op == "sqrt" and error.turns == (turn,), str(error)
        assert error.loc is not None and error.loc.line == line_of(while_loop, "# here")
        loop = f"turn {turn} of the while_loop at {error.loc.file}:{line_of(while_loop, 'kiln.while_loop')}"
        assert loop in error.message
    assert compiled(x, kiln.tensor(0))[1].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_turn_of_a_scan(reverse: bool) -> None:
    compiled = looking(scan)
    rows = [[0.0, 0.0], [0.0, 0.0], [0.0, 5.0], [0.0, 0.0]]
    for _ in range(3):
        error = found(lambda: compiled(kiln.tensor([1.0, 2.0]), kiln.tensor(rows), reverse))
        assert error.op == "log" and error.turns == (2,), str(error)
    assert not compiled(kiln.tensor([1.0, 2.0]), kiln.zeros(4, 2), reverse)[1].isnan().any()


def test_loops_in_loops_and_branches() -> None:
    def f(x: Any) -> Any:
        def row(total: Any, x: Any) -> Any:
            def turn(i: Any, x: Any) -> Any:
                return i + 1, kiln.cond(x > 0, lambda x: x - 1, lambda x: x.log() * 0 + 5, (x,))

            return total + kiln.while_loop(lambda i, x: i < 4, turn, (kiln.tensor(0), x))[1], x

        return kiln.scan(row, kiln.tensor(0.0), x)[0]

    compiled = looking(f)
    for _ in range(2):
        assert compiled(kiln.tensor([9.0, 8.0])).item() == 9.0
        error = found(lambda: compiled(kiln.tensor([9.0, 8.0, 1.5])[1:]))
        assert error.op == "log" and error.turns == (1, 2)
        assert "turn 1 of the scan" in error.message and ", turn 2 of the while_loop" in error.message


def test_a_nan_that_a_loop_washes_out() -> None:
    def f(x: Any) -> Any:
        def turn(c: Any, x: Any) -> Any:
            return kiln.where(x < 0, kiln.zeros(()), c + x.log()), c

        return kiln.scan(turn, kiln.tensor(0.0), x)[0]

    compiled = looking(f)
    x = kiln.tensor([1.0, -1.0, 1.0])
    for _ in range(2):
        assert compiled(x).item() == 0.0


def test_what_was_written_is_as_before() -> None:
    w, model = kiln.tensor([1.0, 4.0]), kiln.nn.Linear(2, 2)

    @looking
    def step(x: Any) -> Any:
        w.sub_(x)
        w[1:].sqrt_()  # here
        return x * 2

    two = kiln.tensor([2.0, 2.0])
    step(two * 0)
    w.copy_(kiln.tensor([1.0, 4.0]))
    error = found(lambda: step(kiln.tensor([2.0, 5.0])))
    assert error.op == "sqrt" and w.tolist() == [1.0, 4.0]
    other = looking(step._function)  # the same in the call that is captured
    assert found(lambda: other(kiln.tensor([2.0, 5.0]))).op == "sqrt" and w.tolist() == [1.0, 4.0]
    optimizer = kiln.optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.tolist()

    @looking
    def train(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) - 1e30).exp().log().sum()
        loss.backward()
        optimizer.step()
        return loss.detach() * 0 + 1

    for _ in range(2):
        assert found(lambda: train(two)).op in ("mul", "div")
        assert model.weight.tolist() == before


def test_gradients() -> None:
    def f(x: Any) -> Any:
        return (x * x).sqrt().sum()  # here

    compiled = looking(f)
    compiled(kiln.ones(2, requires_grad=True)).backward()
    x = kiln.tensor([0.0, 1.0], requires_grad=True)
    error = found(lambda: compiled(x).backward())
    assert "of a gradient" in error.message
    assert error.loc is not None and error.loc.line == line_of(f, "# here")
    bad = kiln.tensor([NAN, 1.0])  # what came in is not its fault
    double = looking(lambda x: x * 2)
    for _ in range(2):
        assert np.isnan(kiln.grad(double(x), x, bad)[0].tolist()[0])


def test_gradients_of_what_nothing_shows() -> None:
    """A value that is stored for the gradient alone is NaN: the forward op is named."""

    def f(x: Any, y: Any) -> Any:
        z = (x @ y).log()  # here
        return kiln.where(z.isnan(), 0, z * z).sum()

    compiled = looking(f)
    y = kiln.eye(2)
    good, bad = (kiln.tensor([[1.0, 2.0], [3.0, n]], requires_grad=True) for n in (4.0, -4.0))
    compiled(good, y).backward()
    error = found(lambda: compiled(bad, y).backward())
    assert error.op == "log" and error.loc is not None and error.loc.line == line_of(f, "# here")


def test_gradients_in_loops() -> None:
    def f(x: Any) -> Any:
        return kiln.scan(lambda c, x: (c + x, (c * x * x).sqrt()), kiln.tensor(1.0), x)[1].sum()

    compiled = looking(f)
    compiled(kiln.ones(3, requires_grad=True)).backward()
    x = kiln.tensor([1.0, 0.0, 1.0], requires_grad=True)
    error = found(lambda: compiled(x).backward())
    assert error.turns == (1,) and "of a gradient" in error.message
    inside = looking(lambda x: kiln.grad(f(x), x)[0])
    for _ in range(2):
        assert found(lambda: inside(x)).turns == (1,)


def test_where_it_is_asked_for() -> None:
    @kiln.compile(check_nan=True)
    def f(x: Any) -> Any:
        return x.log() if x.sum() > 0 else x.sqrt()

    for _ in range(2):
        assert found(lambda: f(kiln.tensor([2.0, -1.0]))).op == "log"
        assert found(lambda: f(kiln.tensor([-2.0, 1.0]))).op == "sqrt"
        assert f(kiln.tensor([1.0, 1.0])).tolist() == [0.0, 0.0]
    assert f.report().decided >= 1
    module = kiln.compile(kiln.nn.Softmax(-1), check_nan=True)
    for _ in range(2):
        assert found(lambda: module(kiln.tensor([-np.inf, -np.inf]))).op == "sub"
        assert module(kiln.zeros(2)).tolist() == [0.5, 0.5]
