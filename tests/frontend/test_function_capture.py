"""Functions with a derivative of the user's in compiled calls: gradients outside of the call pass them as they do
eagerly, to any order, bit for bit; what a compiled call could not repeat is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import kiln
from kiln.errors import CaptureError, CaptureWarning, GradError

Function = kiln.autograd.Function
LOG: list[Any] = []
SCALE = 2.0


class Step(Function):
    @staticmethod
    def forward(ctx: Any, x: Any, clip: float) -> Any:
        ctx.save_for_backward(x)
        ctx.clip = clip
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() < ctx.clip) * x * 0.1, None


class Polar(Function):
    @staticmethod
    def forward(ctx: Any, x: Any, y: Any) -> Any:
        r = (x * x + y * y).sqrt()
        ctx.save_for_backward(x, y, r)
        ctx.mark_non_differentiable(mask := r > 1)
        return r, mask

    @staticmethod
    def backward(ctx: Any, grad: Any, _: Any) -> Any:
        x, y, r = ctx.saved_tensors
        return grad * x / r, grad * y / r if ctx.needs_input_grad[1] else None


class Reverse(Function):
    @staticmethod
    def forward(ctx: Any, x: Any, amount: float) -> Any:
        ctx.amount = amount
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return -ctx.amount * grad, None


class Same(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.scale = kiln.full((3,), 0.3)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * ctx.scale


class Wide(Function):
    """A gradient that is summed to its argument's shape."""

    @staticmethod
    def forward(ctx: Any, x: Any, row: Any) -> Any:
        ctx.save_for_backward(x)
        return x * row

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad, (grad * x)[None].expand(2, 3)


def straight(x: Any, y: Any) -> Any:
    return (Step.apply(x, 0.6) * x).sum() + y.sum()


def polar(x: Any, y: Any) -> Any:
    return Polar.apply(x, y)


def inside(x: Any, y: Any) -> Any:
    r, mask = Polar.apply(x * 2, y * x)
    return (r * r * x).sum(), mask


def reversed_(x: Any, y: Any) -> Any:
    return Reverse.apply(x, 0.5).sin().sum() * y.sum()


def many(x: Any, y: Any) -> Any:
    h = Reverse.apply(x.tanh(), 0.5)
    return Polar.apply(h, Step.apply(y, 1.0) + h)[0] * x


def itself(x: Any, y: Any) -> Any:
    return Same.apply(x * y) * Same.apply(x)


def twice(x: Any, y: Any) -> Any:
    return Polar.apply(x, x)[0] * 0.1 + x * y


def summed(x: Any, y: Any) -> Any:
    return Wide.apply(x, y * 0.7).exp()


FUNCTIONS = [straight, polar, inside, reversed_, many, itself, twice, summed]


def first(r: Any) -> Any:
    return r[0] if isinstance(r, tuple) else r


def gradients(f: Callable[..., Any], size: int = 3) -> list[Any]:
    """Gradients of calls that come again, with one argument that wants none, over two calls, and of gradients."""
    seen = []
    for k in range(6):
        x = kiln.linspace(-0.7, 1.3 + k, size).requires_grad_()
        y = kiln.linspace(1.1, 2.3, size).requires_grad_(k != 2)
        if k in (3, 5):
            r = first(f(x, y))
            (g,) = kiln.autograd.grad((r * r).sum(), x, create_graph=True)
            (g * g).sum().backward()
        elif k == 4:
            (first(f(x, y)).sum() * 0.3 + (first(f(x, y)) * x).sum()).backward()
        else:
            first(f(x, y)).sum().backward()
        seen.append([None if t.grad is None else t.grad.numpy().tobytes() for t in (x, y)])
    return seen


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("door", ["compile", "script"])
def test_gradients_pass_what_the_user_wrote(f: Callable[..., Any], door: str) -> None:
    compiled = kiln.jit.script(f) if door == "script" else kiln.compile(f, fullgraph=True)
    assert gradients(compiled) == gradients(f)
    assert compiled.report().eager == 0
    assert compiled.report().captured == 2


def test_other_sizes() -> None:
    compiled = kiln.compile(polar, fullgraph=True)
    for size in (3, 4, 5, 3):
        assert gradients(compiled, size) == gradients(polar, size)


class Prints(Reverse):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        print("backward")
        return grad * 2, None


class Appends(Reverse):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        LOG.append(1)
        return grad * 2, None


class Counts(Reverse):
    @staticmethod
    def forward(ctx: Any, x: Any, amount: float) -> Any:
        ctx.count = 0
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        ctx.count += 1
        return grad * ctx.count, None


class ReadsState(Reverse):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * SCALE, None


class Asks(Reverse):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return (grad * 2 if grad.sum() > 0 else grad), None


class Fails(Reverse):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        raise ValueError("no")


class Draws(Reverse):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * kiln.rand(3), None


REFUSED = [Prints, Appends, Counts, ReadsState, Asks, Draws]


@pytest.mark.parametrize("cls", REFUSED, ids=lambda c: c.__name__)
def test_what_no_compiled_walk_could_repeat(cls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        return cls.apply(x, 0.5) * 3

    seen = []
    with pytest.warns(CaptureWarning, match="whose Python code a compiled call does not run"):
        for g in (f, kiln.compile(f)):
            LOG.clear()
            kiln.manual_seed(0)
            rows = []
            for n in (1.0, -1.0, 2.0):
                x = kiln.full((3,), n, requires_grad=True)
                y = g(x)
                rows.append((list(LOG), y.tolist()))
                (y * x).sum().backward()
                rows.append((list(LOG), x.grad.tolist()))
            seen.append((rows, capsys.readouterr().out))
    assert seen[0] == seen[1]
    with pytest.raises(CaptureError, match="whose Python code"):
        kiln.compile(f, fullgraph=True)(kiln.ones(3, requires_grad=True))
    # without a gradient outside, there is nothing to refuse
    kiln.compile(lambda x: f(x).detach(), fullgraph=True)(kiln.ones(3, requires_grad=True))
    assert not capsys.readouterr().out


def test_an_error_of_backward_is_raised_by_the_walk() -> None:
    compiled = kiln.compile(lambda x: Fails.apply(x, 0.5))
    for _ in range(2):
        with pytest.warns(CaptureWarning) if compiled.report().captured == 0 else _nothing():
            y = compiled(kiln.ones(3, requires_grad=True))
        with pytest.raises(ValueError, match="no"):
            y.sum().backward()


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_once_differentiable() -> None:
    class Once(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @kiln.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 2 * x * grad

    for f in (Once.apply, kiln.compile(lambda x: Once.apply(x), fullgraph=True)):
        for _ in range(2):
            x = kiln.tensor([1.0, 3.0], requires_grad=True)
            f(x).sum().backward()
            assert x.grad.tolist() == [2.0, 6.0]
        (g,) = kiln.autograd.grad((f(x) * x).sum(), x, create_graph=f is Once.apply)
    with pytest.raises(GradError, match="once_differentiable"):
        (g,) = kiln.autograd.grad(f(x).sum(), x, create_graph=True)
        g.sum().backward()


def test_a_saved_tensor_is_written_before_the_walk() -> None:
    for f in (polar, kiln.compile(polar, fullgraph=True)):
        for _ in range(2):
            x, y = kiln.ones(3, requires_grad=True), kiln.ones(3)
            r, _ = f(x, y)
            y.add_(1)
            with pytest.raises(GradError, match="modified in place"):
                r.sum().backward()


def test_what_ctx_holds_is_written_in_the_call() -> None:
    class Holds(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, factor: Any) -> Any:
            ctx.factor = factor
            return x * factor

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * ctx.factor, None

    def f(x: Any) -> Any:
        factor = x.detach() * 2
        y = Holds.apply(x, factor)
        factor.add_(1)
        return y

    with pytest.warns(CaptureWarning, match="Holds"):
        for g in (f, kiln.compile(f)):
            for _ in range(2):
                x = kiln.ones(3, requires_grad=True)
                g(x).sum().backward()
                assert x.grad.tolist() == [3.0, 3.0, 3.0]
