"""`Function`: user's derivatives, eagerly and captured; Jacobians, Hessians, gradcheck."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.autograd import Function, gradcheck, gradgradcheck
from kiln.autograd import functional as AF
from kiln.autograd.function import once_differentiable

RNG = np.random.default_rng(5)


def leaf(*shape: int) -> kiln.Tensor:
    return kiln.tensor(RNG.standard_normal(shape), requires_grad=True)


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x * x * grad


class Exp(Function):
    """Saves its result."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (y,) = ctx.saved_tensors
        return y * grad


class Scale(Function):
    """An argument that is no tensor, and `setup_context`."""

    @staticmethod
    def forward(x: Any, factor: float) -> Any:
        return x * factor

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * ctx.factor, None


class SumAndDouble(Function):
    """Two results; what arrives for them is noted."""

    seen: Any = None
    materialize = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.set_materialize_grads(SumAndDouble.materialize)
        return x.sum(), x * 2

    @staticmethod
    def backward(ctx: Any, a: Any, b: Any) -> Any:
        SumAndDouble.seen = (a, b)
        x = 0 if b is None else b * 2
        return x + (0 if a is None else a) + kiln.zeros(3, dtype=kiln.float64)


class Square_(Function):
    """In place."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x.clone())
        x.mul_(x.clone())
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return 2 * ctx.saved_tensors[0] * grad


class Identity(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 10


def test_derivatives_of_every_order() -> None:
    for f in (Cube.apply, Exp.apply, lambda x: Scale.apply(x, 2.5), lambda x: Exp.apply(Cube.apply(x))):
        assert gradcheck(f, leaf(2, 3))
        assert gradgradcheck(f, leaf(2, 3))
    x = leaf(3)
    for f, plain in ((Cube.apply, lambda x: x * x * x), (Exp.apply, kiln.exp)):
        ours = theirs = None
        for g in (f, plain):
            (d,) = kiln.grad(g(x).sum(), x, create_graph=True)
            (dd,) = kiln.grad(d.sum(), x, create_graph=True)
            (ddd,) = kiln.grad(dd.sum(), x)
            ours, theirs = theirs, ddd
        assert ours is not None and np.allclose(ours.numpy(), theirs.numpy())


def test_a_wrong_derivative_fails_gradcheck() -> None:
    class Wrong(Cube):
        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return 2 * ctx.saved_tensors[0] * grad

    with pytest.raises(kiln.GradError, match="gradient of output 0 by input 0 is wrong"):
        gradcheck(Wrong.apply, leaf(3))
    assert gradcheck(Wrong.apply, leaf(3), raise_exception=False) is False
    with pytest.raises(TypeError, match="float64"):
        gradcheck(Cube.apply, kiln.ones(2, requires_grad=True))


def test_gradcheck_of_what_has_no_gradient() -> None:
    """As torch's: it passes where all differences are zero."""
    assert gradcheck(kiln.floor, leaf(3))
    assert gradgradcheck(kiln.floor, leaf(3))
    assert gradcheck(lambda x: (x.detach() * 0, x.detach() > 1), leaf(3))
    with pytest.raises(kiln.GradError, match="output 0 requires no gradient, but depends on input 0"):
        gradcheck(lambda x: x.detach() * 2, leaf(3))
    with pytest.raises(kiln.GradError, match="gradgradcheck: no output requires a gradient"):
        gradgradcheck(lambda x: x.detach() * 0, leaf(3))


def test_context_knows_what_is_needed() -> None:
    seen = []

    class Product(Function):
        @staticmethod
        def forward(ctx: Any, a: Any, n: int, b: Any) -> Any:
            assert not kiln.is_grad_enabled()
            seen.append(ctx.needs_input_grad)
            ctx.save_for_backward(a, None, b)
            return a * b * n

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            a, nothing, b = ctx.saved_tensors
            assert nothing is None
            return grad * b * 2, None, grad * a * 2, None  # one more None is fine

    a, b = leaf(3), kiln.ones(3, dtype=kiln.float64)
    y = Product.apply(a, 2, b)
    y.sum().backward()
    assert seen == [(True, False, False)]
    assert np.array_equal(a.grad.numpy(), 2 * b.numpy())
    assert y.grad_fn.name() == "ProductBackward"
    assert repr(y).endswith("grad_fn=<ProductBackward>)")
    with kiln.no_grad():
        assert Product.apply(a, 2, b).grad_fn is None
    assert Product.apply(b, 2, b).grad_fn is None


@pytest.mark.parametrize("materialize", [True, False])
def test_missing_gradients(materialize: bool) -> None:
    SumAndDouble.materialize = materialize
    x = leaf(3)
    _, doubled = SumAndDouble.apply(x)
    doubled.sum().backward()
    a, b = SumAndDouble.seen
    assert b is not None
    assert (a is None) is not materialize
    if materialize:
        assert a.shape == () and a.item() == 0
    assert np.array_equal(x.grad.numpy(), [2.0, 2.0, 2.0])


def test_non_differentiable_results() -> None:
    class Sort(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            mask = x * 0
            index = x.argmax()
            ctx.mark_non_differentiable(mask, index)
            return x * 2, mask, index, "text"

        @staticmethod
        def backward(ctx: Any, grad: Any, *_: Any) -> Any:
            return grad * 2

    x = leaf(4)
    y, mask, index, text = Sort.apply(x)
    assert y.requires_grad and not mask.requires_grad and not index.requires_grad and text == "text"
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), np.full(4, 2.0))


def test_writes_in_place() -> None:
    x = leaf(3)
    y = x * 1
    z = Square_.apply(y)
    assert z is y
    (g,) = kiln.grad(y.sum(), x)
    assert np.allclose(g.numpy(), 2 * x.detach().numpy())
    y = x * 1
    Square_.apply(y[1:])  # through a view
    (g,) = kiln.grad(y.sum(), x)
    assert np.allclose(g.numpy(), [1.0, *(2 * x.detach().numpy()[1:])])
    with pytest.raises(kiln.GradError, match="leaf that requires a gradient"):
        Square_.apply(x)


def test_a_result_that_is_an_argument() -> None:
    x = leaf(3)
    y = Identity.apply(x)
    assert y is not x and y.data_ptr() == x.data_ptr() and x.is_leaf
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), np.full(3, 10.0))
    base = x * 1
    y = Identity.apply(base)
    base.mul_(2)  # y's memory is base's
    with pytest.raises(kiln.GradError, match="a view that a Function returned"):
        y.sum().backward()


def test_saved_tensors_are_checked() -> None:
    x = leaf(3)
    a = x * 1
    y = Cube.apply(a)
    a.add_(1)
    with pytest.raises(kiln.GradError, match=r"Cube: .*at version 1, was saved at version 0"):
        y.sum().backward()
    y = Cube.apply(x)
    y.sum().backward()
    with pytest.raises(kiln.GradError, match="retain_graph"):
        y.sum().backward()
    y = Cube.apply(x)
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    a = x * 1
    y = a * a
    a.data = kiln.zeros(3, dtype=kiln.float64)
    with pytest.raises(kiln.GradError, match=r"\.data"):
        y.sum().backward()


def test_wrong_backwards() -> None:
    def made(result: Any) -> Any:
        class Bad(Function):
            @staticmethod
            def forward(ctx: Any, x: Any, n: int) -> Any:
                return x * n

            @staticmethod
            def backward(ctx: Any, grad: Any) -> Any:
                return result(grad)

        return Bad

    x = leaf(3)
    for result, error, match in (
        (lambda g: g, kiln.GradError, "returned 1 gradients for 2"),
        (lambda g: (g, g), kiln.GradError, "argument 1 of forward, which is not a tensor"),
        (lambda g: (1.0, None), TypeError, "returned a float"),
        (lambda g: (kiln.zeros(4), None), kiln.ShapeError, "another shape"),
    ):
        with pytest.raises(error, match=match):
            made(result).apply(x, 2).sum().backward()
    made(lambda g: (kiln.ones(2, 3), None)).apply(x, 2).sum().backward()  # summed to the shape, cast to the dtype
    assert x.grad.dtype is kiln.float64 and np.array_equal(x.grad.numpy(), np.full(3, 2.0))
    with pytest.raises(NotImplementedError):
        Function.apply(x)
    with pytest.raises(TypeError):
        Cube.apply(x=x)


def test_once_differentiable() -> None:
    class Once(Cube):
        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            assert not kiln.is_grad_enabled()
            return grad * kiln.from_numpy(3 * x.detach().numpy() ** 2)

    x = leaf(3)
    (g,) = kiln.grad(Once.apply(x).sum(), x, create_graph=True)
    assert np.allclose(g.detach().numpy(), 3 * x.detach().numpy() ** 2)
    with pytest.raises(kiln.GradError, match="once_differentiable"):
        g.sum().backward()


def test_gradients_are_not_taken_over() -> None:
    weight = kiln.ones(3, dtype=kiln.float64)

    class Weighted(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * weight

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return weight

    x = leaf(3)
    for _ in range(3):
        Weighted.apply(x).sum().backward()
    assert np.array_equal(weight.numpy(), np.ones(3))
    assert np.array_equal(x.grad.numpy(), np.full(3, 3.0))


def test_no_leaks() -> None:
    gc.disable()
    try:
        for f in (Cube, Exp, Identity):
            x = leaf(3)
            y = f.apply(x)
            dead = [weakref.ref(y), weakref.ref(y.grad_fn)]
            y.sum().backward()
            del y
            assert [r() for r in dead] == [None, None], f  # without the help of the collector
    finally:
        gc.enable()
    x = leaf(3)
    y = Cube.apply(x)
    x.grad = (y * 1).detach()
    y.register_hook(lambda g, y=y: None)  # a cycle through the tape
    dead = [weakref.ref(y)]
    del y
    gc.collect()
    assert dead[0]() is None


# ---------------------------------------------------------------------------------------------- captured


def training_step(f: Any) -> Any:
    def step(x: Any, w: Any) -> Any:
        loss = (f(x) * w).sum()
        (g,) = kiln.grad(loss, x)
        return loss, g

    return step


@pytest.mark.parametrize("f", [Cube.apply, Exp.apply, lambda x: Scale.apply(x, 1.5), Identity.apply])
def test_gradients_taken_inside_are_captured(f: Any) -> None:
    x, w = leaf(4, 5), leaf(4, 5).detach()
    eager, compiled = training_step(f), kiln.compile(training_step(f))
    for _ in range(3):
        for a, b in zip(eager(x, w), compiled(x, w), strict=True):
            assert np.array_equal(a.detach().numpy(), b.detach().numpy())
        w = w * 2
    assert compiled.log == ["first call"]


def test_double_backward_is_captured() -> None:
    def f(x: Any) -> Any:
        (g,) = kiln.grad(Cube.apply(x).sum(), x, create_graph=True)
        return kiln.grad((g * g).sum(), x)[0]

    x = leaf(5)
    compiled = kiln.compile(f)
    for _ in range(2):
        assert np.array_equal(f(x).numpy(), compiled(x).numpy())


class Asking(kiln.autograd.Function):
    """Its backward depends on the gradient's data."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2 if g.sum() > 0 else g


def test_gradients_taken_outside_pass_what_can_be_recorded() -> None:
    x = leaf(3)
    compiled = kiln.compile(lambda x: Cube.apply(x).sum() * 2, fullgraph=True)
    for _ in range(2):
        assert np.array_equal(kiln.grad(compiled(x), x)[0].numpy(), kiln.grad(Cube.apply(x).sum() * 2, x)[0].numpy())
    compiled = kiln.compile(lambda x: Asking.apply(x).sum() * 2, fullgraph=True)
    with pytest.raises(kiln.CaptureError, match="back through Asking"):
        compiled(x)
    for _ in range(2):  # no gradient wanted: all is well
        assert np.array_equal(compiled(x.detach()).numpy(), (x.detach() * 2).sum().numpy() * 2)
        with kiln.no_grad():
            compiled(x)


def test_hooks_inside_are_refused_when_gradients_are_taken_outside() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        y.register_hook(lambda g: g * 100)
        return y.sum()

    def inside(x: Any) -> Any:
        return kiln.grad(f(x), x)[0]

    x = leaf(3)
    with pytest.raises(kiln.CaptureError, match="register_hook"):
        kiln.compile(f, fullgraph=True)(x)
    compiled = kiln.compile(inside)
    for _ in range(2):
        assert np.array_equal(compiled(x).numpy(), np.full(3, 200.0))
    with pytest.raises(kiln.CaptureError, match="register_hook on a tensor from outside"):
        kiln.compile(lambda x: x.register_hook(lambda g: g), fullgraph=True)(x)


# ----------------------------------------------------------------------------------------- functional


def test_jacobian_and_hessian() -> None:
    a, b = leaf(2), leaf(3)
    j = AF.jacobian(lambda x: kiln.stack([x[0] * x[1], x[0] ** 2, x[1]]), a)
    u, v = a.detach().numpy()
    assert np.allclose(j.numpy(), [[v, u], [2 * u, 0], [0, 1]])
    assert not j.requires_grad
    ((ja, jb), (ka, kb)) = AF.jacobian(lambda x, y: (x.sum() * y, x * 1), (a, b))
    assert [t.shape for t in (ja, jb, ka, kb)] == [(3, 2), (3, 3), (2, 2), (2, 3)]
    assert np.allclose(jb.numpy(), np.eye(3) * a.detach().numpy().sum())
    assert np.allclose(kb.numpy(), 0)
    with pytest.raises(kiln.GradError, match="does not depend"):
        AF.jacobian(lambda x, y: x * 1, (a, b), strict=True)
    h = AF.hessian(lambda x: (x[0] ** 3) * x[1], a)
    assert np.allclose(h.numpy(), [[6 * u * v, 3 * u * u], [3 * u * u, 0]])
    hh = AF.hessian(lambda x, y: (x * x).sum() * (y * y).sum(), (a, b))
    assert hh[0][1].shape == (2, 3)
    assert np.allclose(hh[0][1].numpy(), 4 * np.outer(a.detach().numpy(), b.detach().numpy()))
    assert AF.jacobian(lambda x: x * 2, a, create_graph=True).requires_grad is False  # a constant
    assert AF.jacobian(lambda x: x * x, a, create_graph=True).requires_grad
    assert AF.jacobian(lambda x: x * 2, leaf(0)).shape == (0, 0)


def test_products() -> None:
    a, b = leaf(3), leaf(3)

    def f(x: Any, y: Any) -> Any:
        return x.exp() * y, (x * y).sum()

    x, y = a.detach().numpy(), b.detach().numpy()
    va, vb = kiln.tensor(RNG.standard_normal(3)), kiln.tensor(RNG.standard_normal(3))
    out, product = AF.jvp(f, (a, b), (va, vb))
    assert np.allclose(out[0].numpy(), np.exp(x) * y)
    assert np.allclose(product[0].numpy(), np.exp(x) * y * va.numpy() + np.exp(x) * vb.numpy())
    assert np.allclose(product[1].numpy(), (y * va.numpy() + x * vb.numpy()).sum())
    out, product = AF.vjp(f, (a, b), (va, kiln.tensor(2.0, dtype=kiln.float64)))
    assert np.allclose(product[0].numpy(), np.exp(x) * y * va.numpy() + 2 * y)
    out, product = AF.hvp(lambda t: (t**3).sum(), a, va)
    assert np.allclose(product.numpy(), 6 * x * va.numpy())
    assert np.allclose(AF.vhp(lambda t: (t**3).sum(), a, va)[1].numpy(), product.numpy())
    with pytest.raises(kiln.ShapeError):
        AF.jvp(f, (a, b), (va, va[:2]))
    with pytest.raises(kiln.GradError, match="one element"):
        AF.vjp(lambda t: t * 2, a)
