"""Memory of results: what they share with inputs, with each other and with the next call."""

from __future__ import annotations

from typing import Any

import numpy as np

import kiln
from tests.frontend.battery.kit import Table, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


@right(captures=1)
def input_returned(c: Any, see: Any) -> None:
    f = c(lambda x: x)
    for n in range(3):
        x = vector(n)
        see(f(x) is x, x)


@right()
def input_returned_that_requires_grad(c: Any, see: Any) -> None:
    f = c(lambda x: (x, x * 2))
    for n in range(3):
        x = vector(n, grad=True)
        same, y = f(x)
        see(same is x, y)
        (same * y).sum().backward()
        see(x)


@right(captures=1)
def closure_tensor_returned(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: (w, w[0], x + w))
    for n in range(3):
        same, part, _ = f(vector(n, n))
        see(same is w, same, part)
        part.fill_(float(n))
        see(w)


@right(captures=1)
def one_result_twice(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = x * 2
        return y, [y, {"y": y}]

    g = c(f)
    for n in range(3):
        a, (b, d) = g(vector(n))
        see(a, b, d, a is b, b is d["y"])
        a.add_(1.0)
        see(b)


@right(captures=1)
def equal_results_are_two(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2, x * 2, x.clone(), x.clone()))
    for n in range(3):
        out = f(vector(n))
        see(out)
        out[0].add_(1.0)
        out[2].add_(1.0)
        see(out)


@right(captures=1)
def views_of_a_result(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = x * 2
        return y[1:], y, y.reshape(2, 2), y.reshape(2, 2).t()[0], y.detach()

    g = c(f)
    for n in range(3):
        out = g(vector(n, 1, 2, 3))
        see(out)
        out[0].fill_(9.0)
        see(out)
        out[3].fill_(5.0)
        see(out)


@right(captures=1)
def view_of_a_result_alone(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2)[1:3].t() if x.ndim > 1 else (x * 2)[1:3])
    for n in range(3):
        y = f(vector(n, 1, 2, 3))
        see(y)
        y.add_(1.0)
        see(y)


@right(captures=1)
def views_of_an_input(c: Any, see: Any) -> None:
    f = c(lambda x: (x[1:], x.reshape(2, 2), x.reshape(2, 2).t(), x[0], x[::2], x.unsqueeze(0)))
    for n in range(3):
        x = vector(n, 1, 2, 3)
        out = f(x)
        see(out)
        for k, y in enumerate(out):
            y.fill_(float(k))
            see(x, out)
        x.zero_()
        see(out)


@right(captures=2)
def views_of_a_view(c: Any, see: Any) -> None:
    f = c(lambda x: (x[1:], x.t() if x.ndim > 1 else x))
    for n in range(3):
        base = kiln.arange(12.0).reshape(3, 4) + n
        out = f(base[:, 1:])
        see(out)
        out[0].fill_(7.0)
        see(base)
        out = f(base[1])
        out[0].fill_(8.0)
        see(base)


@right(captures=1)
def detached_input(c: Any, see: Any) -> None:
    f = c(lambda x: x.detach())
    for n in range(3):
        x = vector(n, 1, grad=True)
        y = f(x)
        see(y)
        with kiln.no_grad():
            x.add_(1.0)
        see(y)
        y.mul_(2.0)
        see(x, y)


@right(captures=1)
def detached_result(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        y = x * 2
        return y, y.detach(), y.detach()[0]

    g = c(f)
    for n in range(3):
        x = vector(n, 1, grad=True)
        y, d, e = g(x)
        see(y, d, e)
        y.sum().backward()
        d.mul_(2.0)
        see(x, y, d, e)


@right(captures=1)
def detached_result_alone(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2).detach())
    for n in range(3):
        y = f(vector(n, 1, grad=True))
        see(y)
        y.add_(1.0)
        y.requires_grad_()
        (y * y).sum().backward()
        see(y)


@right(captures=1)
def contiguous_and_to_give_the_input_itself(c: Any, see: Any) -> None:
    f = c(lambda x: (x.contiguous(), x.to(kiln.float32), x.float(), x.clone(), x.to(kiln.float32, copy=True)))
    for n in range(3):
        x = vector(n, 1)
        out = f(x)
        see([y is x for y in out], out)


@right()
def reshape_copies_or_not(c: Any, see: Any) -> None:
    f = c(lambda x: x.reshape(-1))
    for n in range(2):
        x = kiln.arange(6.0).reshape(2, 3) + n
        for y in (x, x.t(), x[:, :2], x[:1]):
            out = f(y)
            out.fill_(9.0)
            see(out, x)


@right()
def expanded_results(c: Any, see: Any) -> None:
    f = c(lambda x: (x.expand(2, 2), (x * 2).expand(3, 2), kiln.zeros(()).expand(2, 2), kiln.ones(1, 2).expand(2, 2)))
    for n in range(3):
        x = vector(n, 1)
        out = f(x)
        see(out)
        for y in out:
            see.attempt(lambda y=y: y.add_(1.0))
        x.add_(1.0)
        see(out)


@right(captures=1)
def constants_made_inside(c: Any, see: Any) -> None:
    f = c(
        lambda: (kiln.zeros(2), kiln.ones(2, 2), kiln.full((2,), 3.0), kiln.arange(3), kiln.eye(2), kiln.tensor([1.5]))
    )
    for _ in range(3):
        out = f()
        see(out)
        for y in out:
            y.add_(1)
        see(out)


@right(captures=1)
def one_constant_twice(c: Any, see: Any) -> None:
    def f() -> Any:
        z = kiln.zeros(2)
        return z, z[0], kiln.zeros(2), z

    g = c(f)
    for _ in range(3):
        out = g()
        see(out)
        out[1].fill_(4.0)
        see(out)


@right(captures=1)
def results_are_new_each_time(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda x: (w * 2, kiln.ones(2), x * 1))
    kept = []
    for n in range(4):
        kept.append(f(vector(n, n)))
        kept[-1][0].add_(float(n))
        kept[-1][1].add_(float(n))
        see(kept)


@right(captures=1)
def computed_from_a_closure_only(c: Any, see: Any) -> None:
    w = vector(1, 2)
    f = c(lambda: (w + 1, w[:1] + 0))
    for n in range(3):
        see(f())
        w.add_(float(n))


@right()
def copies_of_results_of_expanded_inputs(c: Any, see: Any) -> None:
    f = c(lambda x: (x, x[0], x.clone(), x * 2))
    for n in range(3):
        out = f(vector(n, 1).expand(3, 2))
        see(out)


@right()
def empty_results(c: Any, see: Any) -> None:
    f = c(lambda x: (x[:0], x[1:1] * 2, kiln.zeros(0), x[:0].sum()))
    for n in range(3):
        see(f(vector(n, 1)))


@right()
def non_tensor_results(c: Any, see: Any) -> None:
    f = c(lambda x: (x.shape, x.ndim, x.dtype is kiln.float32, None, ..., "a", 2.5, x.numel(), len(x), (), [], {}))
    for n in range(3):
        see(f(vector(n, 1)))


@refused()
def array_returned(c: Any, see: Any) -> None:
    see(c(lambda x: (x, np.ones(2)))(vector(1)))


@refused()
def object_returned(c: Any, see: Any) -> None:
    class Box:
        def __init__(self, x: Any) -> None:
            self.x = x

    see(c(lambda x: Box(x * 2))(vector(1)).x)


@refused()
def closure_returned(c: Any, see: Any) -> None:
    see(c(lambda x: lambda: x * 2)(vector(1))())


@refused()
def generator_returned(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        yield x * 2

    see(list(c(f)(vector(1))))


@right()
def list_of_the_closure_returned(c: Any, see: Any) -> None:
    ws = [vector(1)]
    see(c(lambda: ws)())


@right()
def tuple_of_the_closure_returned(c: Any, see: Any) -> None:
    ws = (vector(1), vector(2))
    f = c(lambda: ws)
    for _ in range(3):
        out = f()
        see(out, out[0] is ws[0])
