"""Gradients taken inside compiled calls, and `.grad` there."""

from __future__ import annotations

from typing import Any

import kiln
from tests.frontend.battery.autograd import data, model
from tests.frontend.battery.kit import Table, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


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
