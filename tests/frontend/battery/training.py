"""Training steps, modes, and checks that fail."""

from __future__ import annotations

from typing import Any

import kiln
from kiln import nn
from kiln.errors import KilnIndexError
from tests.frontend.battery.autograd import data, model
from tests.frontend.battery.kit import Table, linear, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


# ---------------------------------------------------------------------------------------- training


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


# ------------------------------------------------------------------------------------------- modes


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


# ------------------------------------------------------------------------------- checks and errors


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
