"""Exceptions, contexts and text around tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, vector

PROGRAMS = program = Programs()


@program
def context_that_scales(c: Any) -> None:
    factor = [1.0]

    @contextlib.contextmanager
    def scaled(by: float) -> Iterator[None]:
        factor.append(by)
        try:
            yield
        finally:
            factor.pop()

    @c
    def f(x: Any, by: float | None) -> Any:
        if by is None:
            return x * factor[-1]
        with scaled(by):
            return x * factor[-1]

    for by in (2.0, None, 3.0, 2.0):
        f(draw(2), by)


@program
def gradients_off_for_a_part(c: Any) -> None:
    @c
    def f(x: Any, frozen: bool) -> Any:
        context = kiln.no_grad() if frozen else contextlib.nullcontext()
        with context:
            y = x.exp()
        return y * x

    for frozen in (True, False, True):
        f(draw(2, grad=True), frozen)


@program
def exit_stack(c: Any) -> None:
    @c
    def f(x: Any, off: bool) -> Any:
        with contextlib.ExitStack() as stack:
            if off:
                stack.enter_context(kiln.no_grad())
            y = x.sin()
        return y, kiln.is_grad_enabled()

    for off in (True, False, True):
        f(draw(2, grad=True), off)


@program
def a_class_as_context(c: Any) -> None:
    class Shift:
        def __init__(self, x: Any) -> None:
            self.mean = x.mean()

        def __enter__(self) -> Any:
            return self.mean

        def __exit__(self, *error: object) -> bool:
            return error[0] is ZeroDivisionError

    @c
    def f(x: Any, fail: bool) -> Any:
        y = x
        with Shift(x) as mean:
            y = y - mean
            if fail:
                raise ZeroDivisionError
            y = y * 2
        return y

    for fail in (True, False, True):
        f(draw(3), fail)


@program
def try_the_inverse(c: Any) -> None:
    @c
    def solve(a: Any, b: Any) -> Any:
        try:
            return kiln.linalg.solve(a, b), "solve"
        except RuntimeError:
            return kiln.linalg.pinv(a) @ b, "pinv"

    good, bad = kiln.eye(2) + draw(2, 2) * 0.1, kiln.ones(2, 2)
    for a in (good, bad, good, bad):
        solve(a, vector(1, 2))


@program
def try_else_finally(c: Any) -> None:
    @c
    def f(x: Any, key: str) -> Any:
        table = {"double": 2.0, "half": 0.5}
        done = []
        try:
            by = table[key]
        except KeyError as error:
            done.append(f"no {error}")
            y = x
        else:
            done.append("else")
            y = x * by
        finally:
            done.append("finally")
        return y, done

    for key in ("double", "third", "half", "double"):
        f(draw(2), key)


@program
def errors_of_ones_own(c: Any) -> None:
    class Diverged(Exception):
        def __init__(self, step: int, value: float) -> None:
            super().__init__(f"diverged at step {step}: {value:.2f}")
            self.step = step

    @c
    def iterate(x: Any, steps: int) -> Any:
        for k in range(steps):
            x = x * x
            if x.abs().max() > 100:
                raise Diverged(k, float(x.abs().max()))
        return x

    for x in (vector(1, 0.5), vector(5, 1), vector(1, 0.5), vector(4, 1)):
        try:
            iterate(x, 3)
        except Diverged as error:
            c.see(str(error), error.step)


@program
def errors_chained_and_retried(c: Any) -> None:
    @c
    def robust(x: Any, jitters: tuple[float, ...]) -> Any:
        for jitter in jitters:
            try:
                return kiln.linalg.cholesky(x + jitter * kiln.eye(len(x))), jitter
            except RuntimeError as error:
                last = error
        raise ValueError("not positive definite") from last

    good, bad = kiln.eye(2), kiln.tensor([[1.0, 2.0], [2.0, 1.0]])
    for x in (good, bad, good, bad):
        robust(x, (0.0, 2.0))
    try:
        robust(bad, (0.0, 0.1))
    except ValueError as error:
        c.see(str(error))


@program
def shapes_asserted(c: Any) -> None:
    @c
    def check(x: Any, n: int) -> Any:
        assert x.shape[-1] == n, f"expected {n}, got {tuple(x.shape)}"
        assert x.isfinite().all(), "not finite"
        return x.sum(-1)

    for x, n in ((draw(2), 2), (draw(3), 2), (vector(1, float("nan")), 2), (draw(2), 2)):
        try:
            check(x, n)
        except AssertionError as error:
            c.see(str(error))


@program
def prints_of_the_loss(c: Any) -> None:
    @c
    def step(x: Any, number: int) -> Any:
        loss = x.square().mean()
        if number % 2 == 0:
            print(f"step {number}: loss {loss.item():.3f}")
        return loss

    for n in range(4):
        step(vector(n, 1), n)


@program
def text_made_of_values(c: Any) -> None:
    @c
    def describe(x: Any) -> str:
        low, high = x.min().item(), x.max().item()
        return f"{tuple(x.shape)} in [{low:.2f}, {high:.2f}]" + (" !" if high > 2 else "")

    for x in (vector(1, 2), vector(1, 3), vector(1, 2), vector(1, 2, 3)):
        describe(x)


@program
def tensor_printed_in_text(c: Any) -> None:
    @c
    def show(x: Any) -> Any:
        return f"x = {x}", x + 1

    for x in (vector(1, 2), vector(1, 3), vector(1, 2)):
        show(x)


@program
def walrus_in_a_loop(c: Any) -> None:
    @c
    def shrink(x: Any) -> Any:
        n = 0
        while (norm := x.norm()) > 1:
            x, n = x / norm.sqrt() / 1.5, n + 1
        return x, norm, n

    for x in (vector(3, 4), vector(0.1), vector(3, 4)):
        shrink(x)
