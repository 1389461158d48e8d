"""In-place writes: to arguments, closures, parameters, views."""

from __future__ import annotations

from typing import Any

import numpy as np

import kiln
from kiln import nn
from tests.frontend.battery.kit import Table, linear, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


@right(captures=1)
def write_to_an_argument(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.add_(1.0)
        x *= 2
        x[0] = 5.0
        x[1:].sub_(0.5)
        return x.sum()

    g = c(f)
    for n in range(3):
        x = vector(n, 1, 2)
        see(g(x), x)
        see(g(x), x)


@right(captures=1)
def write_and_return_the_argument(c: Any, see: Any) -> None:
    f = c(lambda x: x.add_(1.0).mul_(2.0))
    for n in range(3):
        x = vector(n)
        see(f(x) is x, x)


@right(captures=1)
def read_before_and_after_a_write(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        before = x * 1
        part = x[1:]
        x.add_(10.0)
        return before, part * 1, part, x * 1

    g = c(f)
    for n in range(3):
        x = vector(n, 1, 2)
        see(g(x), x)


@right(captures=1)
def write_after_a_view_was_taken(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        v = x.reshape(2, 2).t()
        w = v[0]
        x[2] = 7.0
        w.mul_(2.0)
        return v, w * 1, x * 1

    g = c(f)
    for n in range(3):
        x = vector(n, 1, 2, 3)
        see(g(x), x)


@right(captures=1)
def write_through_a_long_chain(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.reshape(2, 6)[:, 1:5].reshape(2, 2, 2).permute(2, 0, 1)[0].unsqueeze(0)[0, :, 1].fill_(9.0)
        return x.sum()

    g = c(f)
    for n in range(3):
        x = kiln.arange(12.0) + n
        see(g(x), x)


@right(captures=1)
def overlapping_writes(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x[1:].copy_(x[:-1] * 1)
        x[:2].add_(x[2:4])
        x[:-1] = x[1:]
        return x

    g = c(f)
    for n in range(3):
        see(g(vector(n, 1, 2, 3, 4)))


@right(captures=1)
def write_to_a_fresh_tensor(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        out = kiln.zeros(3, 2)
        for k in range(3):
            out[k] = x * k
        out[:, 0].add_(1.0)
        return out

    g = c(f)
    for n in range(3):
        see(g(vector(n, 1)))


@right(captures=1)
def write_to_a_result_that_is_returned_before(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = x * 2
        z = y + 1
        y.add_(5.0)
        return z, y, y[0]

    g = c(f)
    for n in range(3):
        see(g(vector(n, 1)))


@right(captures=1)
def write_to_a_closure(c: Any, see: Any) -> None:
    total = kiln.zeros(2)

    def f(x: Any) -> Any:
        total.add_(x)
        return total * 2

    g = c(f)
    for n in range(4):
        see(g(vector(n, 1)), total)
    total.zero_()
    see(g(vector(3, 1)), total)


@right(captures=1)
def write_to_a_part_of_a_closure(c: Any, see: Any) -> None:
    table = kiln.zeros(3, 2)

    def f(x: Any, n: int) -> Any:
        table[n] = x
        return table.sum()

    g = c(lambda x: f(x, 1))
    for n in range(4):
        see(g(vector(n, 1)), table)


@right()
def write_at_a_place_that_is_an_argument(c: Any, see: Any) -> None:
    table = kiln.zeros(3, 2)

    def f(x: Any, n: int) -> Any:
        table[n] = x
        return table.sum()

    g = c(f)
    for n in (0, 1, 2, 0, 1, 2):
        see(g(vector(n, 1), n), table)


@right(captures=1)
def step_counter_in_a_tensor(c: Any, see: Any) -> None:
    count = kiln.tensor(0)

    def f(x: Any) -> Any:
        count.add_(1)
        return x / count

    g = c(f)
    for _ in range(5):
        see(g(vector(1)), count)


@right()
def running_mean_in_a_module(c: Any, see: Any) -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            self.register_buffer("mean", kiln.zeros(2))
            self.register_buffer("count", kiln.tensor(0))
            self.scale = nn.Parameter(kiln.ones(2))

        def forward(self, x: Any) -> Any:
            if self.training:
                with kiln.no_grad():
                    self.mean.mul_(0.9).add_(x.mean(0) * 0.1)
                    self.count.add_(1)
            return (x - self.mean) * self.scale

    norm = Norm()
    f = c(norm)
    for n in range(6):
        norm.train(n < 4)
        y = f(kiln.arange(6.0).reshape(3, 2) + n)
        y.sum().backward()
        see(y, norm.mean, norm.count, norm.scale)


@right(captures=2)
def write_to_a_view_argument(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.mul_(3.0)
        return x[0]

    g = c(f)
    for n in range(3):
        base = kiln.arange(12.0).reshape(3, 4) + n
        see(g(base[:, 1]), base)
        see(g(base[1]), base)


@right()
def write_when_the_base_is_read_elsewhere(c: Any, see: Any) -> None:
    base = kiln.arange(4.0)
    view = base[1:3]

    def f() -> Any:
        view.add_(1.0)
        return view * 1

    g = c(f)
    for _ in range(3):
        see(g(), base)


@refused()
def view_and_base_of_the_closure(c: Any, see: Any) -> None:
    base = kiln.arange(4.0)
    view = base[1:3]

    def f() -> Any:
        view.add_(1.0)
        return base * 1

    see(c(f)())


@refused()
def overlapping_arguments_written(c: Any, see: Any) -> None:
    def f(a: Any, b: Any) -> Any:
        a.add_(1.0)
        return b * 1

    g = c(f)
    base = kiln.arange(6.0)
    see(g(base[:3], base[1:4]))


@refused()
def overlapping_arguments_written_later(c: Any, see: Any) -> None:
    def f(a: Any, b: Any) -> Any:
        a.add_(1.0)
        return b * 1

    g = c(f)
    see(g(vector(1, 2, 3), vector(4, 5, 6)), g(vector(1, 2, 3), vector(4, 5, 6)))
    a = np.arange(6.0).astype(np.float32)
    see(g(kiln.from_numpy(a[:3]), kiln.from_numpy(a[1:4])))


@refused()
def disjoint_parts_of_one_tensor_written(c: Any, see: Any) -> None:
    def f(a: Any, b: Any) -> Any:
        a.add_(b)

    base = kiln.arange(6.0)
    c(f)(base[:3], base[3:])
    see(base)


@right()
def same_argument_twice_written(c: Any, see: Any) -> None:
    def f(a: Any, b: Any) -> Any:
        a.add_(1.0)
        return b * 1

    g = c(f)
    for n in range(3):
        a, b = vector(n, 1), vector(n, 2)
        see(g(a, a), a, g(a, b), a, b)


@right()
def closure_passed_and_written(c: Any, see: Any) -> None:
    w = vector(1, 2)

    def f(x: Any) -> Any:
        w.add_(1.0)
        return x * 1

    g = c(f)
    see(g(vector(5, 6)), g(vector(5, 6)), w)
    try:
        see(g(w), w)  # may be refused: the argument is the tensor that is written
    except kiln.CaptureError:
        w.add_(1.0)
        see(w * 1, w)
    see(g(vector(5, 6)), w)


@right()
def closure_passed_first_and_written(c: Any, see: Any) -> None:
    w = vector(1, 2)

    def f(x: Any) -> Any:
        x.add_(1.0)
        return w * 1

    g = c(f)
    see(g(w), w)
    for _ in range(2):
        x = vector(5, 6)
        see(g(x), x, w)


@right()
def written_under_both_modes(c: Any, see: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        x.copy_(y)
        return x * 1

    g = c(f)
    for n in range(3):
        x = vector(0, 0)
        see(g(x, vector(n, 1)), x)
        with kiln.no_grad():
            see(g(x, vector(n, 1)), x)


@right()
def writes_with_casts_and_broadcasts(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        out = kiln.zeros(2, 3, dtype=kiln.int64)
        out.copy_(x)
        out[0] = x * 2
        out[:, 1].add_(1)
        out += kiln.tensor([1])
        flags = out > 2
        flags[0] = True
        return out, flags

    g = c(f)
    for n in range(3):
        see(g(vector(n, 1.7, -2.9)))


@right()
def read_only_memory(c: Any, see: Any) -> None:
    a = np.ones(2, np.float32)
    a.flags.writeable = False
    f = c(lambda x: x.add_(1.0))
    for x in (vector(1, 2), kiln.from_numpy(a), vector(1, 2), kiln.from_numpy(a)):
        see.attempt(lambda x=x: f(x))
    see(a)


@right()
def memory_of_numpy(c: Any, see: Any) -> None:
    f = c(lambda x: x.add_(1.0)[0])
    for _ in range(3):
        a = np.arange(4.0)
        view = f(kiln.from_numpy(a))
        a[0] = 7.0
        see(view, a)


@right(captures=1)
def swap(c: Any, see: Any) -> None:
    def f(a: Any, b: Any) -> None:
        t = a.clone()
        a.copy_(b)
        b.copy_(t)

    g = c(f)
    for n in range(3):
        a, b = vector(n, 1), vector(5, 6)
        g(a, b)
        see(a, b)


@right(captures=1)
def write_a_tensor_onto_itself(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.copy_(x)
        x[:2] = x[:2]
        x.add_(x)
        x.mul_(x[0])
        return x

    g = c(f)
    for n in range(3):
        see(g(vector(n, 1, 2)))


@right(captures=1)
def transposed_write_of_itself(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.copy_(x.t())
        return x.sum(0)

    g = c(f)
    for n in range(3):
        x = kiln.arange(9.0).reshape(3, 3) + n
        see(g(x), x)


@right(captures=1)
def zero_fill_and_state(c: Any, see: Any) -> None:
    buffers = [vector(1), vector(2)]

    def f(x: Any) -> Any:
        for b in buffers:
            b.mul_(0.5)
        buffers[0] += x
        return buffers[0] + buffers[1]

    g = c(f)
    for n in range(3):
        see(g(vector(n)), buffers)


@right(captures=1)
def augmented_assignment_to_an_attribute(c: Any, see: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self.total = vector(0)

    box = Box()

    def f(x: Any) -> Any:
        box.total += x
        return box.total * 1

    g = c(f)
    for n in range(3):
        see(g(vector(n)), box.total)


@right(captures=1)
def double_buffering(c: Any, see: Any) -> None:
    state = {"a": vector(1, 2), "b": vector(0, 0)}

    def f() -> Any:
        state["b"].copy_(state["a"] * 2)
        state["a"].copy_(state["b"] + 1)
        return state["a"].sum()

    g = c(f)
    for _ in range(4):
        see(g(), state)


@right()
def parameters_shared_by_two_layers(c: Any, see: Any) -> None:
    a, b = linear(), linear(seed=4)
    b.weight = a.weight
    f = c(lambda x: b(a(x)))
    for n in range(3):
        f(vector(n, 1)).sum().backward()
        see(a.weight, b.weight, a.bias, b.bias)
    b.weight = nn.Parameter(a.weight.detach().clone())
    see(f(vector(1, 1)), f(vector(1, 1)))


@right()
def parameters_that_share_memory(c: Any, see: Any) -> None:
    a, b = linear(), linear(seed=4)
    b.weight = nn.Parameter(a.weight)
    f = c(lambda x: b(a(x)))
    for n in range(3):
        f(vector(n, 1)).sum().backward()
        see(a.weight, b.weight)
        with kiln.no_grad():
            a.weight.add_(0.5)


@refused()
def parameters_that_share_memory_written(c: Any, see: Any) -> None:
    a, b = linear(), linear(seed=4)
    b.weight = nn.Parameter(a.weight)

    def f() -> Any:
        with kiln.no_grad():
            a.weight.add_(1.0)
        return b.weight.sum()

    see(c(f)())


@right()
def module_converted_between(c: Any, see: Any) -> None:
    layer = linear()
    f = c(layer)
    see(f(vector(1, 2)), f(vector(1, 2)))
    layer.double()
    x = kiln.tensor([1.0, 2.0], dtype=kiln.float64)
    see(f(x), f(x))
    layer.float()
    see(f(vector(1, 2)), f(vector(1, 2)))


@right()
def state_loaded_between(c: Any, see: Any) -> None:
    layer, other = linear(), linear(seed=9)
    f = c(layer)
    see(f(vector(1, 2)), f(vector(1, 2)))
    layer.load_state_dict(other.state_dict())
    see(f(vector(1, 2)), f(vector(1, 2)))


@right()
def state_dict_inside(c: Any, see: Any) -> None:
    layer = linear()
    f = c(lambda x: layer.state_dict()["weight"] * x)
    for n in range(3):
        see(f(vector(n, 1)))
        with kiln.no_grad():
            layer.weight.add_(1.0)


@right()
def averaged_weights(c: Any, see: Any) -> None:
    layer, average = linear(), linear()

    @c
    def update() -> None:
        with kiln.no_grad():
            for p, q in zip(layer.parameters(), average.parameters(), strict=True):
                q.mul_(0.9).add_(p * 0.1)

    for _ in range(3):
        update()
        with kiln.no_grad():
            layer.weight.add_(1.0)
        see(list(average.parameters()))


@right()
def large_results_and_inputs(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = x @ x.t()
        x.add_(1.0)
        return y, (x * y.sum()).mean(), x[5:9, ::3]

    g = c(f)
    for n in range(3):
        x = (kiln.arange(4096.0).reshape(64, 64) - n).sin()
        see(g(x), x)
