"""Gradients through compiled calls, of any order."""

from __future__ import annotations

from typing import Any

import kiln
from kiln import nn
from tests.frontend.battery.kit import Table, linear, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


def model() -> Any:
    return nn.Sequential(linear(2, 3), nn.Tanh(), linear(3, 1, seed=5))


def data(n: int) -> Any:
    return (kiln.arange(8.0).reshape(4, 2) * 0.3 - n).sin()


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


@right()
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


@right()
def gradients_seen_inside_a_chain_of_results(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        h = x * 2
        k = h.exp()
        return h, k, (k * h).sum(), x.sum()

    g = c(f)
    for n in range(3):
        x = vector(0.1 * n, 1, grad=True)
        h, k, y, z = g(x)
        h.retain_grad()
        k.register_hook(lambda t: t * 3)
        see(*kiln.grad(y + z, [k, h, x], retain_graph=True))
        see(*kiln.grad((y * k).sum(), [h], create_graph=True))
        (y + z + (h * 5).sum()).backward()
        see(h.grad, x.grad)


@right()
def gradient_of_random_numbers_by_another_result(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        h = x * kiln.rand(2)
        return h, (h * kiln.rand(2)).sum(), kiln.rand(1)

    g = c(f)
    for n in range(3):
        x = vector(0.1 * n, 1, grad=True)
        h, y, r = g(x)
        see(r, *kiln.grad(y, h, retain_graph=True), *kiln.grad(y, x))


@right()
def gradient_of_a_result_by_another(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        h = x * 2
        return h, h.exp().sum()

    g = c(f)
    for n in range(3):
        h, y = g(vector(0.1 * n, 1, grad=True))
        see.attempt(lambda h=h, y=y: kiln.grad(y, h))


@right(captures=1)
def leaf_made_inside_and_its_gradient_returned(c: Any, see: Any) -> None:
    w = linear()

    def f(x: Any) -> Any:
        x = x.detach().requires_grad_()
        w(x).exp().sum().backward()
        return x.grad

    f = c(f)
    for n in range(4):
        w.zero_grad()
        see(f(vector(n, 1)), w.weight.grad)
