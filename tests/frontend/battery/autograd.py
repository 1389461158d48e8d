"""Gradients: through compiled calls, inside them, of any order; `.grad`, training steps, modes."""

from __future__ import annotations

from typing import Any

import kiln
from kiln import nn
from kiln.errors import KilnIndexError
from tests.frontend.battery.kit import Table, linear, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


def model() -> Any:
    return nn.Sequential(linear(2, 3), nn.Tanh(), linear(3, 1, seed=5))


def data(n: int) -> Any:
    return (kiln.arange(8.0).reshape(4, 2) * 0.3 - n).sin()


# ------------------------------------------------------------------------------------------ through a call


@right(captures=1)
def backward_outside(c: Any, see: Any) -> None:
    f = c(lambda x, w: ((x * w).tanh() * x).sum())
    for n in range(3):
        x, w = vector(n, 1, grad=True), vector(2, 0.5, grad=True)
        y = f(x, w)
        see(y)
        y.backward()
        see(x, w, y)


@right(captures=1)
def accumulated_outside(c: Any, see: Any) -> None:
    w = vector(2, 0.5, grad=True)
    f = c(lambda x: (x * w).exp().sum())
    for n in range(4):
        f(vector(0.1 * n, 1)).backward()
        see(w)


@right(captures=1)
def mixed_with_eager_uses(c: Any, see: Any) -> None:
    w = vector(2, 0.5, grad=True)
    f = c(lambda x: (x * w).exp() + w)
    for n in range(3):
        w.grad = None
        early = w * 0.3
        y = f(vector(0.1 * n, 1) * early)
        late = w / 3 + y
        (late.sum() + early.sum() + f(late).sum()).backward()
        see(w)


@right(captures=1)
def grad_with_gradient_given(c: Any, see: Any) -> None:
    f = c(lambda x: x.exp())
    for n in range(3):
        x = vector(n, 1, grad=True)
        f(x).backward(vector(2, 3))
        see(x, kiln.grad(f(x), x, vector(5, 7)))


@right(captures=1)
def some_results_have_gradients(c: Any, see: Any) -> None:
    f = c(lambda x, w: (x * w, x * 2, (x * w).detach(), w, w * 1, x > 0))
    for n in range(3):
        x, w = vector(n, 1), vector(2, 3, grad=True)
        out = f(x, w)
        see(out)
        (out[0] + out[4]).sum().backward()
        see(w)


@right(captures=1)
def only_one_of_two_results_is_used(c: Any, see: Any) -> None:
    f = c(lambda x: (x.exp(), x.tanh() * x))
    for n in range(4):
        x = vector(n, 1, grad=True)
        f(x)[n % 2].sum().backward()
        see(x)


@right()
def results_backward_one_after_the_other(c: Any, see: Any) -> None:
    f = c(lambda x: ((x * x).sum(), x.exp().sum()))
    for n in range(3):
        x = vector(n, 1, grad=True)
        a, b = f(x)
        a.backward()
        see(x)
        b.backward()
        see(x)


@right()
def backward_twice_with_nothing_saved(c: Any, see: Any) -> None:
    f = c(lambda x: (x + 1).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = f(x)
        y.backward()
        y.backward()
        see(x)


@right()
def backward_twice_with_something_saved(c: Any, see: Any) -> None:
    f = c(lambda x: (x * x).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = f(x)
        y.backward()
        see.attempt(y.backward)
        see(x)


@right(captures=1)
def retained(c: Any, see: Any) -> None:
    f = c(lambda x: (x * x).exp().sum())
    for n in range(3):
        x = vector(0.1 * n, 1, grad=True)
        y = f(x)
        for _ in range(3):
            y.backward(retain_graph=True)
        see(x, kiln.grad(y, x), x)


@right(captures=1)
def second_derivatives(c: Any, see: Any) -> None:
    f = c(lambda x, w: ((x * w).tanh() * x * w).sum())
    for n in range(3):
        x, w = vector(n, 1, grad=True), vector(0.5, 0.3, grad=True)
        gx, gw = kiln.grad(f(x, w), (x, w), create_graph=True)
        see(gx, gw)
        ((gx * gx).sum() + gw.sum()).backward()
        see(x, w)


@right(captures=1)
def third_derivatives(c: Any, see: Any) -> None:
    f = c(lambda x: (x * x * x * x).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = f(x)
        for _ in range(3):
            (y,) = kiln.grad(y.sum(), x, create_graph=True)
            see(y)


@right(captures=1)
def gradient_and_hessian_product_of_a_compiled_model(c: Any, see: Any) -> None:
    net = model()
    f = c(lambda x: net(x).square().mean())
    params = list(net.parameters())
    for n in range(3):
        grads = kiln.grad(f(data(n)), params, create_graph=True)
        total = sum((g * g).sum() for g in grads)
        total.backward()
        see(params)
        net.zero_grad()


@right(captures=1)
def backward_with_create_graph(c: Any, see: Any) -> None:
    f = c(lambda x: (x * x * x).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        f(x).backward(create_graph=True)
        g = x.grad
        see(g, g.requires_grad)
        x.grad = None
        g.sum().backward()
        see(x)


@right(captures=1)
def dropout_like_second_derivatives(c: Any, see: Any) -> None:
    f = c(lambda x: (x * x * (kiln.rand(2) > 0.5)).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = f(x)
        y.backward()
        see(x)


@right(wrong="a compiled call that draws random numbers has no derivatives of derivatives")
def random_second_derivatives(c: Any, see: Any) -> None:
    f = c(lambda x: (x * x * kiln.rand(2)).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        (g,) = kiln.grad(f(x), x, create_graph=True)
        see(g)
        g.sum().backward()
        see(x)


@right()
def second_derivatives_after_a_write_inside(c: Any, see: Any) -> None:
    def f(x: Any, count: Any) -> Any:
        count.add_(1.0)
        return (x * x * x).sum()

    g = c(f)
    for n in range(3):
        x, count = vector(n, 1, grad=True), vector(0)
        (first,) = kiln.grad(g(x, count), x, create_graph=True)
        first.sum().backward()
        see(x, count)


@right(captures=1)
def compiled_inside_compiled(c: Any, see: Any) -> None:
    g = c(lambda x: (x * x).tanh())
    f = c(lambda x: g(x).sum() + g(x * 2).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        f(x).backward()
        see(x)


@right(captures=2)
def compiled_after_compiled(c: Any, see: Any) -> None:
    f, g = c(lambda x: x.exp()), c(lambda x: (x * x).sum())
    for n in range(3):
        x = vector(0.1 * n, 1, grad=True)
        g(f(x)).backward()
        see(x)


@right()
def non_leaf_arguments(c: Any, see: Any) -> None:
    f = c(lambda x: x * x)
    for n in range(3):
        x = vector(n, 1, grad=True)
        h = x * 2
        f(h).sum().backward()
        see(x, h)
        f(f(x)).sum().backward()
        see(x)


@right()
def argument_returned_with_a_history(c: Any, see: Any) -> None:
    f = c(lambda h: (h, h[0], h * 1))
    for n in range(3):
        x = vector(n, 1, grad=True)
        h = x * 2
        same, part, other = f(h)
        see(same is h, same, part, other)
        (same.sum() + part * 3 + (other * other).sum()).backward()
        see(x)


@right()
def view_of_a_leaf_returned(c: Any, see: Any) -> None:
    f = c(lambda x: (x[1:], x.reshape(1, 2)))
    for n in range(3):
        x = vector(n, 1, grad=True)
        a, b = f(x)
        see(a, b)
        see.attempt(lambda a=a: a.add_(1.0))
        with kiln.no_grad():
            x.mul_(3.0)
        see(a, b)
        (a.sum() + (b * b).sum()).backward()
        see(x)


@right()
def view_returned_and_written_under_no_grad(c: Any, see: Any) -> None:
    f = c(lambda x: x[1:])
    for n in range(3):
        x = vector(n, 1, grad=True)
        a = f(x)
        with kiln.no_grad():
            a.add_(1.0)
        see(a, x)
        (a * a).sum().backward()
        see(x)


@right()
def view_of_a_result_written(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = x * 2
        return y, y[1:]

    g = c(f)
    for n in range(3):
        x, w = vector(n, 1, 2, grad=True), vector(4, 5, grad=True)
        y, v = g(x)
        v.mul_(w)
        see(y, v)
        (y * y).sum().backward()
        see(x, w)


@right()
def result_written_then_backward(c: Any, see: Any) -> None:
    f = c(lambda x: (x + 1, x.exp()))
    for n in range(3):
        x = vector(n, 1, grad=True)
        a, _ = f(x)
        a.mul_(2.0)
        see(a)
        a.sum().backward()
        see(x)


@right()
def saved_result_written_then_backward(c: Any, see: Any) -> None:
    f = c(lambda x: x.exp())
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = f(x)
        y.mul_(2.0)
        see(y)
        see.attempt(y.sum().backward)
        see(x)


@right()
def input_written_between_call_and_backward(c: Any, see: Any) -> None:
    for k in range(4):
        f = c(
            [
                lambda x, w: (x * w).sum(),
                lambda x, w: (x + w).sum(),
                lambda x, w: (w * w + x).sum(),
                lambda x, w: ((x + w).exp()).sum(),
            ][k]
        )
        for n in range(3):
            x, w = vector(n, 1), vector(2, 3, grad=True)
            y = f(x, w)
            x.add_(1.0)
            see.attempt(y.backward)
            see(w)


@right()
def leaf_written_between_call_and_backward(c: Any, see: Any) -> None:
    for k in range(4):
        f = c(
            [
                lambda x: (x * x).sum(),
                lambda x: x.exp().sum(),
                lambda x: x.relu().sum(),
                lambda x: (x * 3 + 1).sum(),
            ][k]
        )
        for n in range(3):
            x = vector(n, 1, grad=True)
            y = f(x)
            with kiln.no_grad():
                x.add_(1.0)
            see.attempt(y.backward)
            see(x)


@right()
def saved_input_overwritten_inside(c: Any, see: Any) -> None:
    def f(x: Any, w: Any) -> Any:
        y = (x * w).sum()
        with kiln.no_grad():
            x.add_(1.0)
        return y

    g = c(f)
    for n in range(3):
        x, w = vector(n, 1), vector(2, 3, grad=True)
        see.attempt(g(x, w).backward)
        see(w, x)


@right(captures=1)
def write_with_gradients_inside(c: Any, see: Any) -> None:
    def f(x: Any, w: Any) -> Any:
        out = kiln.zeros(3)
        out[:2] = x * w
        out[1:] *= w[0]
        out[2] = w.sum()
        return out

    g = c(f)
    for n in range(3):
        x, w = vector(n, 1, grad=True), vector(2, 3, grad=True)
        y = g(x, w)
        see(y)
        (y * y).sum().backward()
        see(x, w)


@right(captures=1)
def write_to_a_clone_with_gradients(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = x.clone()
        y.mul_(y)
        y[0].add_(1.0)
        z = y.exp()
        y.zero_()
        return z.sum() + y.sum()

    g = c(f)
    for n in range(3):
        x = vector(0.1 * n, 1, grad=True)
        g(x).backward()
        see(x)


@refused()
def argument_becomes_computed(c: Any, see: Any) -> None:
    def f(x: Any, w: Any) -> None:
        x.add_(w)

    x, w = vector(1, 1), vector(2, 3, grad=True)
    c(f)(x, w)
    see(x)


@refused()
def buffer_becomes_computed(c: Any, see: Any) -> None:
    buffer, w = vector(0, 0), vector(2, 3, grad=True)

    def f(x: Any) -> Any:
        buffer.mul_(0.9)
        buffer.add_(w * x)
        return buffer * 1

    see(c(f)(vector(1, 1)))


@refused()
def computed_argument_written(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.mul_(2.0)
        return x

    x = vector(1, 1, grad=True)
    h = x * 3
    c(f)(h)
    h.sum().backward()
    see(x)


@right()
def leaf_written_inside_is_an_error(c: Any, see: Any) -> None:
    f = c(lambda x: x.add_(1.0))
    for n in range(2):
        see.attempt(lambda n=n: f(vector(n, grad=True)))
        see.attempt(lambda n=n: f(vector(n)))


@right(captures=1)
def integers_and_bools_between(c: Any, see: Any) -> None:
    f = c(lambda x: (x * (x > 0.5) + x.long() + kiln.where(x > 0.2, x, x * x)).sum())
    for n in range(3):
        x = vector(0.3 * n, 1, grad=True)
        f(x).backward()
        see(x)


@right(captures=1)
def mixed_precision(c: Any, see: Any) -> None:
    f = c(lambda x, w: (x.double() * w).sum().float() * x.sum())
    for n in range(3):
        x, w = vector(n, 1, grad=True), kiln.tensor([1.0, 3.0], dtype=kiln.float64, requires_grad=True)
        f(x, w).backward()
        see(x, w)


@right(captures=1)
def strided_leaves(c: Any, see: Any) -> None:
    f = c(lambda x: (x.t() @ x).sum() + x.sum(0).exp().sum())
    for n in range(3):
        x = (kiln.arange(6.0).reshape(2, 3) * 0.1 + n).t().detach().requires_grad_()
        f(x).backward()
        see(x)


@right(captures=2)
def empty_gradients(c: Any, see: Any) -> None:
    f = c(lambda x: (x * x).sum())
    for n in (0, 2, 0, 2):
        x = kiln.ones(n).requires_grad_()
        f(x).backward()
        see(x)


@right(captures=1)
def unused_inputs_get_none(c: Any, see: Any) -> None:
    f = c(lambda x, y: (x * 2).sum() + (y * 0).detach().sum())
    for n in range(3):
        x, y = vector(n, 1, grad=True), vector(2, 3, grad=True)
        out = f(x, y)
        see(kiln.grad(out, (x, y), allow_unused=True, retain_graph=True))
        out.backward()
        see(x, y)


@right()
def unused_input_is_an_error(c: Any, see: Any) -> None:
    f = c(lambda x, y: (x * 2).sum() + y.detach().sum())
    for n in range(3):
        x, y = vector(n, 1, grad=True), vector(2, 3, grad=True)
        see.attempt(lambda x=x, y=y: kiln.grad(f(x, y), (x, y)))


@right(captures=1)
def grad_of_an_intermediate(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2, (x * 2).exp().sum()))

    def g(x: Any) -> Any:
        h, _ = f(x)
        return kiln.grad((h * h).sum(), h)

    for n in range(3):
        see(g(vector(n, 1, grad=True)))


@right(wrong="results of one compiled call do not depend on one another on the tape")
def gradient_of_a_result_by_another(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        h = x * 2
        return h, h.exp().sum()

    g = c(f)
    for n in range(3):
        h, y = g(vector(0.1 * n, 1, grad=True))
        see.attempt(lambda h=h, y=y: kiln.grad(y, h))


# -------------------------------------------------------------------------------------------- inside a call


@right(captures=1)
def grad_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x = x.detach().requires_grad_()
        y = (x * x).exp().sum()
        (g,) = kiln.grad(y, x)
        return y.detach(), g

    h = c(f)
    for n in range(3):
        see(h(vector(0.1 * n, 1)))


@right(captures=1)
def grad_inside_of_an_argument(c: Any, see: Any) -> None:
    f = c(lambda x: kiln.grad((x * x).sum(), x)[0])
    for n in range(3):
        x = vector(n, 1, grad=True)
        see(f(x), x)


@refused()
def requires_grad_set_on_an_argument(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.requires_grad_()
        return kiln.grad((x * x).sum(), x)[0]

    g = c(f)
    for n in range(3):
        x = vector(n, 1)
        see(g(x), x)


@refused()
def requires_grad_taken_from_an_argument(c: Any, see: Any) -> None:
    f = c(lambda x: x.requires_grad_(False) * 2)
    for n in range(3):
        x = vector(n, 1, grad=True)
        see(f(x), x)


@refused()
def requires_grad_set_on_a_closure(c: Any, see: Any) -> None:
    w = vector(1, 2)
    see(c(lambda x: x * w.requires_grad_())(vector(1, 1)))


@refused()
def requires_grad_set_and_taken_back(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.requires_grad_()
        (g,) = kiln.grad((x * x).sum(), x)
        x.requires_grad_(False)
        return g

    h = c(f)
    for n in range(3):
        x = vector(n, 1)
        see(h(x), x)


@refused()
def backward_inside_through_the_history_of_an_argument(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    f = c(lambda h: (h * h).sum().backward() or w * 1)
    for make in (lambda: w * w, lambda: w * w, lambda: w + w):
        w.grad = None
        see(f(make()), w)


@refused()
def grad_inside_through_the_history_of_an_argument(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    f = c(lambda h: kiln.grad((h * h).sum(), w)[0])
    for make in (lambda: w + 1, lambda: w + 1, lambda: w + w):
        see(f(make()))


@refused()
def backward_inside_through_a_view_of_a_leaf(c: Any, see: Any) -> None:
    w, v = vector(2, 3, grad=True), vector(5, 7, grad=True)
    f = c(lambda h: (h * h).sum().backward() or w * 1)
    for t in (w, w, v, w):
        w.grad = v.grad = None
        see(f(t[:]), w, v)


@right()
def grad_inside_of_a_computed_argument(c: Any, see: Any) -> None:
    f = c(lambda h: kiln.grad((h * h).sum(), h)[0])
    w = vector(2, 3, grad=True)
    for make in (lambda: w * w, lambda: w + w, lambda: w[:], lambda: w * 1):
        see(f(make()))


@refused()
def grad_inside_of_a_computed_argument_with_a_hook(c: Any, see: Any) -> None:
    f = c(lambda h: kiln.grad((h * h).sum(), h)[0])
    w = vector(2, 3, grad=True)
    for k in (2.0, 2.0, 3.0):
        h = w * w
        h.register_hook(lambda g: g * k)  # noqa: B023
        see(f(h))


@right()
def gradient_penalty(c: Any, see: Any) -> None:
    net = model()
    params = list(net.parameters())

    def loss(x: Any) -> Any:
        x = x.detach().requires_grad_()
        (g,) = kiln.grad(net(x).sum(), x, create_graph=True)
        return ((g * g).sum(-1).sqrt() - 1).square().mean()

    f = c(loss)
    for n in range(3):
        f(data(n)).backward()
        see(params)


@right()
def gradient_penalty_with_backward_inside(c: Any, see: Any) -> None:
    net = model()
    params = list(net.parameters())

    def step(x: Any) -> Any:
        net.zero_grad()
        x = x.detach().requires_grad_()
        (g,) = kiln.grad(net(x).sum(), x, create_graph=True)
        loss = ((g * g).sum(-1).sqrt() - 1).square().mean()
        loss.backward()
        return loss.detach()

    f = c(step)
    for n in range(3):
        see(f(data(n)), params)


@right()
def second_derivatives_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = (x * x * x).sum()
        (g,) = kiln.grad(y, x, create_graph=True)
        (h,) = kiln.grad(g.sum(), x, create_graph=True)
        return g, h

    k = c(f)
    for n in range(3):
        x = vector(n, 1, grad=True)
        g, h = k(x)
        see(g, h)
        (g.sum() + h.sum()).backward()
        see(x)


@right()
def loss_returned_after_backward_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = (x * x).sum()
        y.backward()
        return y

    g = c(f)
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = g(x)
        see(y, x)
        see.attempt(y.backward)
        see(x)


@right()
def loss_returned_after_retained_backward_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = (x * x).sum()
        y.backward(retain_graph=True)
        return y

    g = c(f)
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = g(x)
        see(y, x)
        y.backward()
        see(x)


@refused()
def leaf_made_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        w = kiln.ones(2, requires_grad=True)
        return w, (w * x).sum()

    g = c(f)
    for n in range(3):
        w, y = g(vector(n, 1))
        see(w, y)
        y.backward()
        see(w)


@refused()
def detached_leaf_made_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def f(x: Any) -> Any:
        h = (x * w).detach().requires_grad_()
        return h, (h * w).sum()

    g = c(f)
    for n in range(3):
        h, y = g(vector(n, 1))
        see(h, y)
        y.backward()
        see(h, w)


@right(captures=1)
def leaf_made_inside_and_returned_alone(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2).detach().requires_grad_())
    for n in range(3):
        y = f(vector(n, 1, grad=True))
        see(y)
        (y * y).sum().backward()
        see(y)


@right()
def gradient_of_a_leaf_made_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        h = x.clone().detach().requires_grad_()
        (h * h).sum().backward()
        return h, h.grad

    g = c(f)
    for n in range(3):
        h, grad = g(vector(n, 1))
        see(h, grad, h.grad is grad)


@right()
def backward_inside_makes_grads(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def f(x: Any) -> None:
        (w * x).sum().backward()

    g = c(f)
    for n in range(5):
        g(vector(n, 1))
        see(w)
        if n == 3:
            w.grad = None


@right()
def grads_of_arguments(c: Any, see: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        (x * y).sum().backward()
        return x.grad, y.grad

    g = c(f)
    x, y = vector(1, 2, grad=True), vector(3, 4, grad=True)
    for n in range(4):
        a, b = g(x, y)
        see(a, b, a is x.grad, b is y.grad)
        if n == 2:
            x.grad = None


@right()
def kept_gradients_keep_being_updated(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def f(x: Any) -> None:
        (w * x).sum().backward()

    g = c(f)
    g(vector(1, 1))
    kept = w.grad
    for n in range(3):
        g(vector(n, 1))
        see(kept, kept is w.grad)


@right()
def grads_set_to_zero_or_none(c: Any, see: Any) -> None:
    for to_none in (True, False):
        w = vector(2, 3, grad=True)
        optimizer = kiln.optim.SGD([w], lr=0.1)

        def step(x: Any, w: Any = w, optimizer: Any = optimizer, to_none: bool = to_none) -> Any:
            optimizer.zero_grad(set_to_none=to_none)
            loss = (w * x).square().sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        f = c(step)
        for n in range(4):
            see(f(vector(n, 1)), w)


@right()
def grads_cleared_only_sometimes(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def f(x: Any) -> Any:
        if w.grad is not None:
            w.grad.mul_(0.5)
        (w * x).sum().backward()
        return w.grad * 1

    g = c(f)
    for n in range(6):
        see(g(vector(n, 1)), w)
        if n == 2:
            w.grad = None


@right()
def grad_assigned_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def f(x: Any) -> Any:
        w.grad = x * 2
        return w.grad

    g = c(f)
    for n in range(3):
        out = g(vector(n, 1))
        see(out, w, out is w.grad)


@right()
def grad_clipped_inside(c: Any, see: Any) -> None:
    net = model()
    params = list(net.parameters())

    def step(x: Any) -> Any:
        net.zero_grad()
        net(x).square().sum().backward()
        norm = sum((p.grad * p.grad).sum() for p in params).sqrt()
        for p in params:
            p.grad = p.grad * (1.0 / (norm + 1.0))
        with kiln.no_grad():
            for p in params:
                p -= p.grad * 0.1
        return norm

    f = c(step)
    for n in range(4):
        see(f(data(n)), params)


@right()
def grad_of_an_argument_set_from_outside(c: Any, see: Any) -> None:
    f = c(lambda x: x.grad * 2 if x.grad is not None else x * 3)
    for n in range(5):
        x = vector(n, 1, grad=True)
        if n in (1, 2, 4):
            x.grad = vector(n, n)
        see(f(x), x)


@right()
def gradients_swapped(c: Any, see: Any) -> None:
    a, b = vector(1, grad=True), vector(2, grad=True)

    def f() -> None:
        a.grad, b.grad = b.grad, a.grad

    g = c(f)
    a.grad, b.grad = vector(10), vector(20)
    for _ in range(3):
        g()
        see(a, b)


@right()
def one_gradient_for_two(c: Any, see: Any) -> None:
    a, b = vector(1, grad=True), vector(2, grad=True)

    def f(x: Any) -> None:
        a.grad = b.grad = x * 2

    g = c(f)
    for n in range(3):
        g(vector(n))
        see(a, b, a.grad is b.grad)


@right()
def gradient_shared_from_outside(c: Any, see: Any) -> None:
    a, b = vector(1, grad=True), vector(2, grad=True)
    a.grad = b.grad = vector(5)
    try:
        f = c(lambda x: a.grad * x + b.grad)
        see(f(vector(1)))
    except kiln.CaptureError:
        see(a.grad * vector(1) + b.grad)


# ------------------------------------------------------------------------------------------------ training


@right()
def training_step(c: Any, see: Any) -> None:
    for make in (
        lambda p: kiln.optim.SGD(p, lr=0.1),
        lambda p: kiln.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
        lambda p: kiln.optim.Adam(p, lr=0.01),
        lambda p: kiln.optim.AdamW(p, lr=0.01),
    ):
        net = model()
        optimizer = make(net.parameters())

        def step(x: Any, y: Any, net: Any = net, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
            return loss

        f = c(step)
        for n in range(5):
            loss = f(data(n), kiln.ones(4, 1))
            see(loss, list(net.parameters()), [list(s.values()) for s in optimizer.state.values()])


@right()
def training_with_a_compiled_model_only(c: Any, see: Any) -> None:
    net = model()
    optimizer = kiln.optim.Adam(net.parameters(), lr=0.05)
    f = c(net)
    for n in range(5):
        optimizer.zero_grad()
        loss = (f(data(n)) - 1).square().mean()
        loss.backward()
        optimizer.step()
        see(loss, list(net.parameters()))


@right()
def training_with_compiled_loss_and_optimizer(c: Any, see: Any) -> None:
    net = model()
    optimizer = kiln.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    loss_of = c(lambda x: net(x).square().mean())
    update = c(optimizer.step)
    clear = c(optimizer.zero_grad)
    for n in range(5):
        clear()
        loss = loss_of(data(n))
        loss.backward()
        update()
        see(loss, list(net.parameters()))


@right()
def gradient_accumulation(c: Any, see: Any) -> None:
    net = model()
    optimizer = kiln.optim.SGD(net.parameters(), lr=0.1)

    def micro(x: Any) -> Any:
        loss = net(x).square().mean() / 2
        loss.backward()
        return loss.detach()

    f = c(micro)
    for n in range(6):
        see(f(data(n)))
        if n % 2:
            optimizer.step()
            see(list(net.parameters()))
            optimizer.zero_grad()


@right()
def learning_rate_as_a_tensor(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    lr = kiln.tensor(0.1)
    optimizer = kiln.optim.SGD([w], lr=lr)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()

    f = c(step)
    for n in range(4):
        f(vector(n, 1))
        lr.mul_(0.5)
        see(w)


@right(captures=3)
def learning_rate_schedule(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    optimizer = kiln.optim.SGD([w], lr=0.1)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()

    f = c(step)
    for n in range(6):
        optimizer.param_groups[0]["lr"] = 0.1 / (n + 1)
        f(vector(n, 1))
        see(w)


@right()
def frozen_parameters(c: Any, see: Any) -> None:
    net = model()
    f = c(net)
    for n in range(6):
        net[0].requires_grad_(n % 2 == 0)
        f(data(n)).sum().backward()
        see(list(net.parameters()))
        net.zero_grad()


@right()
def train_and_eval(c: Any, see: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.layer = linear()

        def forward(self, x: Any) -> Any:
            y = self.layer(x)
            return y * (kiln.rand(2) > 0.5) * 2 if self.training else y

    net = Net()
    f = c(net)
    for n in range(8):
        net.train(n % 4 < 2)
        see(f(vector(n, 1)))


@right()
def layer_replaced_and_added(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(), nn.ReLU())
    f = c(net)
    see(f(vector(1, 2)), f(vector(1, 2)))
    net.add_module("0", linear(seed=8))
    see(f(vector(1, 2)), f(vector(1, 2)))
    net.append(linear(seed=9))
    see(f(vector(1, 2)), f(vector(1, 2)))


@right()
def compiled_layer_in_a_module(c: Any, see: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.a = c(linear())
            self.b = linear(seed=4)

        def forward(self, x: Any) -> Any:
            return self.b(self.a(x))

    net = Net()
    see(len(list(net.parameters())), sorted(net.state_dict()))
    optimizer = kiln.optim.SGD(net.parameters(), lr=0.1)
    for n in range(3):
        optimizer.zero_grad()
        net(vector(n, 1)).sum().backward()
        optimizer.step()
        see(net(vector(n, 1)))


@right()
def compiled_layer_in_sequential(c: Any, see: Any) -> None:
    net = nn.Sequential(c(linear()), nn.ReLU())
    for n in range(3):
        see(net(vector(n, 1)))


@right()
def compiled_sequential_is_a_sequence(c: Any, see: Any) -> None:
    net = c(model())
    see(len(net), [type(layer).__name__ for layer in net], net[0].weight)
    see(net(data(1)), net(data(1)))


@right()
def attributes_of_a_compiled_module(c: Any, see: Any) -> None:
    net = c(model())
    see(list(net.parameters()), net.training, sorted(net.state_dict()))
    net.eval()
    see(net.training, net(data(1)), net(data(2)))
    net.scale = 3.0
    see(net.scale, net.zero_grad(), isinstance(net.state_dict(), dict))


@right()
def compiled_module_copied(c: Any, see: Any) -> None:
    import copy

    net = c(linear())
    see(net(vector(1, 2)), net(vector(1, 2)))
    other = copy.deepcopy(net)
    with kiln.no_grad():
        other.weight.zero_()
    see(net(vector(1, 2)), other(vector(1, 2)), other(vector(1, 2)))


@right()
def module_copied_and_compiled(c: Any, see: Any) -> None:
    import copy

    net = model()
    f = c(net)
    see(f(data(1)), f(data(1)))
    other = c(copy.deepcopy(net))
    with kiln.no_grad():
        net[0].weight.zero_()
    see(f(data(1)), other(data(1)), other(data(1)))


@right()
def compiled_forward_of_a_module(c: Any, see: Any) -> None:
    class Net(nn.Module):
        def __init__(self, seed: int) -> None:
            self.layer = linear(seed=seed)

        @c
        def forward(self, x: Any) -> Any:
            return self.layer(x).relu()

    a, b = Net(1), Net(2)
    for n in range(3):
        (a(vector(n, 1)).sum() + b(vector(n, 1)).sum()).backward()
        see(list(a.parameters()), list(b.parameters()))


# --------------------------------------------------------------------------------------------------- modes


@right(captures=2)
def no_grad_outside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    f = c(lambda x: x * w)
    for n in range(4):
        if n % 2:
            with kiln.no_grad():
                see(f(vector(n, 1)))
        else:
            see(f(vector(n, 1)))


@right(captures=1)
def no_grad_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def f(x: Any) -> Any:
        with kiln.no_grad():
            y = x * w
        return y, x * w, kiln.is_grad_enabled()

    g = c(f)
    for n in range(3):
        see(g(vector(n, 1)))


@right(captures=1)
def no_grad_as_a_decorator(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    @c
    @kiln.no_grad()
    def f(x: Any) -> Any:
        return x * w

    for n in range(3):
        see(f(vector(n, 1)))


@right()
def no_grad_around_a_compiled_function(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    f = kiln.no_grad()(c(lambda x: x * w))
    for n in range(3):
        see(f(vector(n, 1)))


@right()
def enable_grad_inside_no_grad(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        with kiln.enable_grad():
            return (x * x).sum()

    g = c(f)
    for n in range(3):
        x = vector(n, 1, grad=True)
        with kiln.no_grad():
            y = g(x)
        see(y)
        y.backward()
        see(x)


@right()
def backward_inside_no_grad(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def f(x: Any) -> Any:
        with kiln.enable_grad():
            (w * x).sum().backward()
        return x * w

    g = c(f)
    for n in range(3):
        with kiln.no_grad():
            see(g(vector(n, 1)), w)


@refused()
def grad_mode_left_changed(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        kiln.set_grad_enabled(False)
        return x * 2

    try:
        see(c(f)(vector(1)))
    finally:
        kiln.set_grad_enabled(True)


@right()
def grad_mode_is_asked_for(c: Any, see: Any) -> None:
    f = c(lambda x: x * 2 if kiln.is_grad_enabled() else x * 3)
    for n in range(4):
        with kiln.set_grad_enabled(n % 2 == 0):
            see(f(vector(1)))


@right()
def optimizer_step_with_a_closure(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    optimizer = kiln.optim.SGD([w], lr=0.1)

    def step(x: Any) -> Any:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = (w * x).square().sum()
            loss.backward()
            return loss

        return optimizer.step(closure).detach()

    f = c(step)
    for n in range(4):
        see(f(vector(n, 1)), w)


# --------------------------------------------------------------------------------------- checks and errors


@right()
def check_fails_after_a_write(c: Any, see: Any) -> None:
    def f(count: Any, logits: Any, labels: Any) -> Any:
        count.add_(1.0)
        return nn.functional.cross_entropy(logits, labels)

    g = c(f)
    count = vector(0)
    for label in (0, 1, 5, 2):
        see.attempt(g, count, kiln.arange(3.0).reshape(1, 3), kiln.tensor([label]))
        see(count)


@right()
def check_fails_and_is_caught(c: Any, see: Any) -> None:
    def f(logits: Any, labels: Any) -> Any:
        try:
            return nn.functional.cross_entropy(logits, labels)
        except KilnIndexError:
            return logits.sum() * 0

    g = c(f)
    for label in (0, 1, 5, 2):
        see.attempt(g, kiln.arange(3.0).reshape(1, 3), kiln.tensor([label]))


@right()
def check_fails_alone(c: Any, see: Any) -> None:
    f = c(nn.functional.cross_entropy)
    for label in (0, 1, 5, 2, -7, 1):
        see.attempt(f, kiln.arange(3.0).reshape(1, 3), kiln.tensor([label]))


@right()
def check_of_an_unused_value_fails(c: Any, see: Any) -> None:
    def f(logits: Any, labels: Any) -> Any:
        nn.functional.cross_entropy(logits, labels)
        return logits * 2

    g = c(f)
    for label in (0, 1, 5, 2):
        see.attempt(g, kiln.arange(3.0).reshape(1, 3), kiln.tensor([label]))
