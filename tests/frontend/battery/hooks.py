"""Hooks, derivatives of the user's, `.data`, anomaly detection, inference mode, optimisers' options."""

from __future__ import annotations

from typing import Any

import numpy as np

import kiln
from kiln import nn
from tests.frontend.battery.kit import Table, linear, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


# -------------------------------------------------------------------------------------------------- hooks


@right(captures=1)
def hook_on_a_leaf_outside(c: Any, see: Any) -> None:
    f = c(lambda x, w: (x * w).sum())
    for n in range(3):
        x, w = vector(n, 1, grad=True), vector(2, 3, grad=True)
        w.register_hook(lambda g: g * 10)
        x.register_hook(lambda g: see(g))
        f(x, w).backward()
        see(x, w)


@right(captures=2)
def hook_added_and_removed(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    f = c(lambda x: (x * w).sum())
    for n in range(6):
        handle = w.register_hook(lambda g: g * 10) if n % 3 else None
        f(vector(n, 1)).backward()
        see(w)
        if handle:
            handle.remove()


@right()
def hook_added_and_removed_with_the_gradient_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def step(x: Any) -> Any:
        w.grad = None
        (x * w).sum().backward()
        return w.grad * 1

    f = c(step)
    for n in range(6):
        factor = float(n)
        handle = w.register_hook(lambda g, factor=factor: g * factor) if n % 3 else None
        see(f(vector(n, 1)), w)
        if handle:
            handle.remove()


@right()
def hook_on_a_leaf_whose_gradient_is_itself(c: Any, see: Any) -> None:
    w = vector(2, grad=True)

    def step(x: Any) -> Any:
        (g,) = kiln.grad(w, w, kiln.ones(1))
        return x * g

    f = c(step)
    for n in range(4):
        handle = w.register_hook(lambda g: g * 5) if n % 2 else None
        see(f(vector(n)))
        if handle:
            handle.remove()


@right(captures=1)
def hook_on_a_result(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2, x.exp()))
    for n in range(3):
        x = vector(0.1 * n, 1, grad=True)
        a, b = f(x)
        a.register_hook(lambda g: g * 10)
        b.register_hook(lambda g: see(g))
        (a * b).sum().backward()
        see(x)


@right(captures=1)
def hook_on_an_argument_that_was_computed(c: Any, see: Any) -> None:
    f = c(lambda h: (h * h).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        h = x * 3
        h.register_hook(lambda g: g + 1)
        f(h).backward()
        see(x)


@right(captures=1)
def retained_gradients(c: Any, see: Any) -> None:
    f = c(lambda h: (h * h, h * 3))
    for n in range(3):
        x = vector(n, 1, grad=True)
        h = x * 3
        h.retain_grad()
        a, b = f(h)
        a.retain_grad()
        (a * b).sum().backward()
        see(x, h, a, b)


@right()
def hooks_and_second_derivatives(c: Any, see: Any) -> None:
    f = c(lambda x: x * x * x)
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = f(x)
        y.register_hook(lambda g: g * 2)
        y.retain_grad()
        (g,) = kiln.grad(y.sum(), x, create_graph=True)
        see(g, y)
        g.sum().backward()
        see(x, y)


@right()
def hook_after_accumulation(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    seen: list[Any] = []
    w.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    f = c(lambda x: (x * w).sum())
    for n in range(3):
        f(vector(n, 1)).backward()
        see(w, list(seen))


@right()
def optimizer_in_a_hook(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def update(t: Any) -> None:
        with kiln.no_grad():
            t -= t.grad * 0.1
        t.grad = None

    w.register_post_accumulate_grad_hook(update)
    f = c(lambda x: (x * w).square().sum())
    for n in range(4):
        f(vector(n, 1)).backward()
        see(w)


@right()
def hook_runs_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    w.register_hook(lambda g: g * 10)

    def f(x: Any) -> Any:
        (x * w).sum().backward()
        return w.grad * 1

    g = c(f)
    for n in range(3):
        see(g(vector(n, 1)), w)


@right()
def hook_with_state_runs_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    k = 10.0
    w.register_hook(lambda g: g * k)

    def f(x: Any) -> Any:
        (x * w).sum().backward()

    g = c(f)
    for n in range(5):
        g(vector(n, 1))
        see(w)
        k = 10.0 if n < 2 else 100.0


@right()
def hook_that_counts_runs_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    counts: list[int] = []
    w.register_hook(lambda g: counts.append(1))

    def f(x: Any) -> Any:
        (x * w).sum().backward()

    g = c(f)
    for n in range(3):
        g(vector(n, 1))
        see(w, len(counts))


@right()
def hook_registered_inside_for_a_value_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        h = x * 2
        h.register_hook(lambda g: g * 5)
        return kiln.grad((h * h).sum(), x)[0]

    g = c(f)
    for n in range(3):
        see(g(vector(n, 1, grad=True)))


@refused()
def hook_registered_inside_that_outlives_the_call(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        h = x * 2
        h.register_hook(lambda g: g * 5)
        return h

    g = c(f)
    for n in range(3):
        x = vector(n, 1, grad=True)
        g(x).sum().backward()
        see(x)


@refused()
def hook_registered_inside_on_an_argument(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.register_hook(lambda g: g * 5)
        return (x * x).sum()

    x = vector(1, 1, grad=True)
    c(f)(x).backward()
    see(x)


@refused()
def retained_inside_and_returned(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        h = x * 2
        h.retain_grad()
        return h, (h * h).sum()

    g = c(f)
    for n in range(3):
        x = vector(n, 1, grad=True)
        h, y = g(x)
        y.backward()
        see(x, h)


@right()
def retained_inside_with_backward_inside(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        h = x * 2
        h.retain_grad()
        (h * h).sum().backward()
        return h.grad

    g = c(f)
    for n in range(3):
        x = vector(n, 1, grad=True)
        see(g(x), x)


# --------------------------------------------------------------------------------- derivatives of the user's


class Cube(kiln.autograd.Function):
    """x ** 3, with a derivative that tells itself by a factor of 10."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 30 * x * x * grad


@right()
def function_inside_with_gradients_inside(c: Any, see: Any) -> None:
    f = c(lambda x: kiln.grad(Cube.apply(x).sum(), x)[0])
    for n in range(3):
        see(f(vector(n, 1, grad=True)))


@right()
def function_inside_with_gradients_outside(c: Any, see: Any) -> None:
    f = c(lambda x: Cube.apply(x).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        f(x).backward()
        see(x)


@right()
def function_inside_without_gradients(c: Any, see: Any) -> None:
    f = c(lambda x: Cube.apply(x).sum())
    for n in range(3):
        see(f(vector(n, 1)))
        with kiln.no_grad():
            see(f(vector(n, 1, grad=True)))


@right()
def function_around_a_compiled_function(c: Any, see: Any) -> None:
    g = c(lambda x: x * x * x)

    class Around(kiln.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return g(x)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return g(ctx.saved_tensors[0]) * grad

    for n in range(3):
        x = vector(n, 1, grad=True)
        y = Around.apply(x)
        y.sum().backward()
        see(x, y)


@right()
def function_patched_between(c: Any, see: Any) -> None:
    class Mine(kiln.autograd.Function):
        k = 2.0

        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * Mine.k

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * Mine.k

    f = c(lambda x: kiln.grad(Mine.apply(x).sum(), x)[0])
    see(f(vector(1, grad=True)), f(vector(1, grad=True)))
    Mine.k = 3.0
    see(f(vector(1, grad=True)), f(vector(1, grad=True)))


# ------------------------------------------------------------------------------------------ data and detach_


@right()
def data_replaced_outside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    f = c(lambda x: (x * w).sum())
    for n in range(4):
        f(vector(n, 1)).backward()
        w.data = w.data - 0.1 * w.grad
        see(w)
        w.grad = None


@right()
def data_replaced_by_another_shape(c: Any, see: Any) -> None:
    w = vector(2, 3)
    f = c(lambda x: x * w)
    for n in range(4):
        see(f(vector(n)))
        w.data = vector(*range(n + 1))


@right()
def data_replaced_by_the_data_of_another(c: Any, see: Any) -> None:
    w, v = vector(2, 3), vector(5, 6)

    def f(x: Any) -> Any:
        w.add_(x)
        return v * 1

    g = c(f)
    see(g(vector(1, 1)), g(vector(1, 1)), w, v)
    w.data = v.data
    try:
        see(g(vector(1, 1)), w, v)
    except kiln.CaptureError:
        w.add_(vector(1, 1))
        see(v * 1, w, v)


@refused()
def data_written_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def f(x: Any) -> Any:
        w.data.add_(x)
        w.data.mul_(0.5)
        return (w * x).sum()

    g = c(f)
    for n in range(3):
        y = g(vector(n, 1))
        see(y, w)
        y.backward()
        see(w)


@refused()
def data_replaced_inside(c: Any, see: Any) -> None:
    w = vector(2, 3)

    def f(x: Any) -> Any:
        w.data = w.data * x
        return w * 1

    g = c(f)
    for n in range(3):
        see(g(vector(n, 1)), w)


@right()
def data_between_call_and_backward(c: Any, see: Any) -> None:
    f = c(lambda x: (x * x).sum())
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = f(x)
        x.data = vector(7, 8)
        see.attempt(y.backward)


@right()
def detached_in_place_outside(c: Any, see: Any) -> None:
    f = c(lambda h: h * 2)
    for _ in range(2):
        x = vector(1, 2, grad=True)
        h = x * 3
        see(f(h))
        h.detach_()
        see(f(h))


@refused()
def detached_in_place_inside(c: Any, see: Any) -> None:
    f = c(lambda h: h.detach_() * 2)
    for _ in range(2):
        h = vector(1, 2, grad=True) * 3
        see(f(h), h)


@right()
def truncated_backpropagation(c: Any, see: Any) -> None:
    w = vector(0.5, 0.3, grad=True)
    f = c(lambda h, x: (h * w + x).tanh())
    h = vector(0, 0)
    for n in range(6):
        h = f(h, vector(n, 1))
        if n % 3 == 2:
            h.sum().backward()
            see(w, h)
            h = h.detach()


@right()
def recurrent_state_in_place(c: Any, see: Any) -> None:
    w = vector(0.5, 0.3, grad=True)
    h = vector(0, 0)

    def f(x: Any) -> Any:
        y = (h * w + x).tanh()
        h.copy_(y.detach())
        return y.sum()

    g = c(f)
    for n in range(4):
        see(g(vector(n, 1)), h)


# ------------------------------------------------------------------------------------------------ modes


@right()
def inference_mode_outside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    f = c(lambda x: (x * w, kiln.is_inference_mode_enabled()))
    for n in range(4):
        with kiln.inference_mode(n % 2 == 0):
            see(f(vector(n, 1)))


@right()
def inference_mode_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    def f(x: Any) -> Any:
        with kiln.inference_mode():
            y = x * w
        return y, y * w

    g = c(f)
    for n in range(3):
        a, b = g(vector(n, 1))
        see(a, b)
        b.sum().backward()
        see(w)


@right()
def generator_under_no_grad(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)

    @kiln.no_grad()
    def steps(x: Any) -> Any:
        for k in range(2):
            yield x * w * k

    f = c(lambda x: [y + w for y in steps(x)])
    for n in range(3):
        see(f(vector(n, 1)))


@right()
def anomaly_detection_outside(c: Any, see: Any) -> None:
    f = c(lambda x: x.sqrt().sum())
    for n in range(4):
        x = vector(0 if n % 2 else 1, -1, grad=True)
        with kiln.autograd.detect_anomaly():
            y = f(x)
            see.attempt(y.backward)


@right()
def anomaly_detection_around_a_backward_inside(c: Any, see: Any) -> None:
    f = c(lambda x: kiln.grad(x.sqrt().sum(), x)[0])
    see(f(vector(1, -1, grad=True)), f(vector(1, -1, grad=True)))
    for _ in range(2):
        with kiln.autograd.detect_anomaly():
            see.attempt(lambda: f(vector(1, -1, grad=True)))


# ------------------------------------------------------------------------------------------- optimisers


@right()
def learning_rates_of_all_kinds(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    optimizer = kiln.optim.SGD([w], lr=0.1, momentum=0.9)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).square().sum().backward()
        optimizer.step()

    f = c(step)
    for lr in (0.1, 0.05, 1, 0, 0.0, -0.0, 1e-30, 0.3, np.float32(0.1), np.float64(0.2)):
        optimizer.param_groups[0]["lr"] = lr
        f(vector(0.3, 0.1))
        see(w, list(optimizer.state[w].values()))


@right()
def momentum_switched_on_and_off(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    optimizer = kiln.optim.SGD([w], lr=0.1)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).square().sum().backward()
        optimizer.step()

    f = c(step)
    for momentum in (0.0, 0.5, 0.9, 0.0, 0.5):
        optimizer.param_groups[0]["momentum"] = momentum
        f(vector(0.3, 0.1))
        f(vector(0.3, 0.1))
        see(w)


@right()
def options_read_by_the_users_code(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    optimizer = kiln.optim.Adam([w], lr=0.1)
    f = c(lambda x: x * optimizer.param_groups[0]["lr"] + optimizer.param_groups[0]["betas"][0])
    for lr in (0.1, 0.1, 0.2, 0.2):
        optimizer.param_groups[0]["lr"] = lr
        see(f(vector(1, 2)))
    optimizer.param_groups[0]["betas"] = (0.5, 0.5)
    see(f(vector(1, 2)), f(vector(1, 2)))


@right()
def group_added_between(c: Any, see: Any) -> None:
    w, v = vector(2, 3, grad=True), vector(4, grad=True)
    optimizer = kiln.optim.SGD([w], lr=0.1)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        ((w * x).square().sum() * v.sum()).backward()
        optimizer.step()

    f = c(step)
    for n in range(6):
        if n == 3:
            optimizer.add_param_group({"params": [v], "lr": 0.01})
        f(vector(0.3, 0.1))
        see(w, v)


@right()
def optimizer_state_loaded_between(c: Any, see: Any) -> None:
    def make() -> Any:
        w = vector(2, 3, grad=True)
        return w, kiln.optim.Adam([w], lr=0.1)

    w, optimizer = make()
    v, other = make()

    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).square().sum().backward()
        optimizer.step()

    f = c(step)
    for n in range(6):
        if n == 3:
            other.zero_grad()
            v.grad = vector(1, 1)
            other.step()
            optimizer.load_state_dict(other.state_dict())
        f(vector(0.3, 0.1))
        see(w, list(optimizer.state[w].values()))


@right()
def scheduler_between(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(), nn.Tanh())
    optimizer = kiln.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = kiln.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    f = c(step)
    for n in range(6):
        see(f(vector(n, 1)), list(net.parameters()))
        scheduler.step()


@refused()
def scheduler_inside(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    optimizer = kiln.optim.SGD([w], lr=0.1)
    scheduler = kiln.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
        scheduler.step()

    f = c(step)
    for n in range(6):
        f(vector(n, 1))
        see(w)


@right()
def parameter_without_a_gradient(c: Any, see: Any) -> None:
    w, v = vector(2, 3, grad=True), vector(4, grad=True)
    optimizer = kiln.optim.Adam([w, v], lr=0.1)

    def step(x: Any, both: bool) -> None:
        optimizer.zero_grad()
        loss = (w * x).square().sum()
        (loss * v.sum() if both else loss).backward()
        optimizer.step()

    f = c(step)
    for n in range(6):
        f(vector(0.3, 0.1), n % 2 == 0)
        see(w, v, list(optimizer.state[v].values()))
