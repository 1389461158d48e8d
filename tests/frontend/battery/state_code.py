"""Code made or replaced while the program runs, exceptions with state, names that are not there."""

from __future__ import annotations

import operator
from typing import Any

import kiln
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, vector

PROGRAMS = program = Programs()


@program
def exception_with_state(c: Any) -> None:
    class Retry(Exception):
        count = 0

        def __init__(self, x: Any) -> None:
            super().__init__(x.sum().item())
            type(self).count += 1
            self.x = x

    @c
    def f(x: Any) -> Any:
        try:
            if x.sum() > 2:
                raise Retry(x)
        except Retry as error:
            return error.x / 2, error.args
        return x, ()

    for k in (1, 3, 1, 3):
        f(vector(k))
    c.see(Retry.count)


@program
def exception_raised_again(c: Any) -> None:
    kept = ValueError("kept")
    kept.hits = 0  # type: ignore[attr-defined]

    @c
    def f(x: Any) -> Any:
        if len(x) > 1:
            kept.hits += 1  # type: ignore[attr-defined]
            raise kept
        return x

    for n in (1, 2, 1, 2):
        try:
            f(vector(*range(n)))
        except ValueError as error:
            c.see(error is kept, error.hits)  # type: ignore[attr-defined]


@program
def text_executed(c: Any) -> None:
    @c
    def f(x: Any, text: str) -> Any:
        space: dict[str, Any] = {"x": x}
        exec(text, space)
        return space["y"]

    for text in ("y = x * 2", "y = x + 1", "y = x * 2"):
        f(vector(1, 2), text)


@program
def text_evaluated(c: Any) -> None:
    k = 2.0
    f = c(lambda x, text: eval(text, {"x": x, "k": k}))
    for text in ("x * k", "x + k", "x * k"):
        f(vector(1, 2), text)


@program
def function_made_by_exec(c: Any) -> None:
    space: dict[str, Any] = {"kiln": kiln, "scale": 2.0}
    exec("def f(x):\n    return kiln.sin(x) * scale if x.sum() > 0 else x\n", space)
    f = c(space["f"])
    f(vector(1, 2))
    f(vector(-1, -2))
    space["scale"] = 3.0
    f(vector(1, 2))
    f(vector(-1, -2))


@program
def code_replaced(c: Any) -> None:
    def f(x: Any) -> Any:
        return x * 2

    def g(x: Any) -> Any:
        return x + 1

    h = c(f)
    h(vector(1, 2))
    f.__code__ = g.__code__
    h(vector(1, 2))


@program
def method_patched_on_an_instance(c: Any) -> None:
    class Net(kiln.nn.Module):
        def forward(self, x: Any) -> Any:
            return self.act(x) * 2

        def act(self, x: Any) -> Any:
            return x.relu()

    net = Net()
    f = c(net)
    f(vector(-1, 2))
    net.act = lambda x: x.tanh()  # type: ignore[method-assign]
    f(vector(-1, 2))
    Net.forward = lambda self, x: self.act(x) * 5  # type: ignore[method-assign]
    f(vector(-1, 2))


@program
def attribute_getters(c: Any) -> None:
    class Box:
        def __init__(self) -> None:
            self.inner = type("Inner", (), {"k": 2.0})()

    box = Box()
    get = operator.attrgetter("inner.k")
    f = c(lambda x: x * get(box))
    f(vector(1, 2))
    box.inner.k = 3.0
    f(vector(1, 2))


@program
def reference_cycles(c: Any) -> None:
    class Node:
        def __init__(self, k: float) -> None:
            self.k = k
            self.next: Any = None

    a, b = Node(2.0), Node(3.0)
    a.next, b.next = b, a

    @c
    def f(x: Any, n: int) -> Any:
        node = a
        for _ in range(n):
            x, node = x * node.k, node.next
        return x

    f(vector(1), 3)
    b.k = 5.0
    f(vector(1), 3)
    b.next = b
    f(vector(1), 3)


@program
def names_deleted(c: Any) -> None:
    scale = 2.0

    @c
    def f(x: Any) -> Any:
        return x * scale

    f(vector(1, 2))
    del scale
    try:
        f(vector(1, 2))
    except NameError as error:
        c.see(str(error))
    scale = 3.0
    f(vector(1, 2))


@program
def local_maybe_unbound(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        if x.sum() > 0:
            y = x * 2
        return y

    for k in (1, -1, 1, -1):
        try:
            f(vector(k, 1.0 * k))
        except UnboundLocalError as error:
            c.see(str(error))


@program
def frames_looked_at(c: Any) -> None:
    @c
    def f(x: Any) -> Any:
        y = x * 2
        return sorted(locals()), y

    for n in (1, 2, 1):
        f(draw(n))


@program
def try_that_fails_at_first(c: Any) -> None:
    @c
    def invert(a: Any) -> Any:
        try:
            return kiln.linalg.inv(a), "inv"
        except kiln.linalg.LinAlgError:
            return a.T, "transposed"

    good, bad = 2 * kiln.eye(2), kiln.ones(2, 2)
    for a in (bad, good, bad, good, good):
        invert(a)


@program
def index_that_may_be_out_of_range(c: Any) -> None:
    @c
    def look_up(x: Any, k: Any) -> Any:
        try:
            return x[k] + 1
        except IndexError:
            return x[0]

    for k in (7, 1, 0, 7, 1):
        look_up(vector(1, 2), kiln.tensor(k))


@program
def division_that_may_be_by_zero(c: Any) -> None:
    @c
    def share(a: Any, n: Any) -> Any:
        try:
            a //= n
        except ZeroDivisionError:
            a += 100
        return a * 2

    for n in (0, 2, 0, 3):
        share(kiln.tensor([8]), kiln.tensor([n]))


@program
def arguments_of_distributions_checked(c: Any) -> None:
    @c
    def logp(scale: Any, x: Any) -> Any:
        return kiln.distributions.Gamma(scale, scale).log_prob(x)

    for scale, x in ((1.0, 2.0), (-1.0, 2.0), (1.0, -2.0), (1.0, 2.0)):
        try:
            logp(vector(scale, 1), vector(x, 1))
        except ValueError as error:
            c.see(type(error).__name__)


@program
def weights_of_draws_checked(c: Any) -> None:
    draws = [
        c(lambda p: kiln.multinomial(p, 1)),
        c(lambda p: kiln.bernoulli(p)),
        c(lambda p: kiln.poisson(p)),
    ]
    for p in ((0.5, 0.5), (-1.0, 0.5), (0.5, 0.5), (0.0, 0.0), (2.0, 0.5)):
        for f in draws:
            try:
                f(vector(*p))
            except ValueError as error:
                c.see(str(error).partition("\n")[0])


@program
def lengths_checked(c: Any) -> None:
    segments = c(lambda x, n: kiln.segment_reduce(x, "sum", lengths=n))
    loss = c(lambda x, n: kiln.nn.functional.ctc_loss(x, kiln.tensor([[1, 2]]), n, kiln.tensor([2])))
    for lengths in ([3, 0], [2, 0], [4, -1], [1, 2]):
        try:
            segments(vector(1, 2, 3), kiln.tensor(lengths))
        except ValueError as error:
            c.see(str(error).partition("\n")[0])
    for length in (3, 9, 3, -1):
        try:
            loss(draw(3, 1, 3).log_softmax(-1), kiln.tensor([length]))
        except ValueError as error:
            c.see(str(error).partition("\n")[0])


@program
def draw_checked_within_try(c: Any) -> None:
    @c
    def pick(p: Any) -> Any:
        try:
            return kiln.multinomial(p, 1)
        except ValueError:
            return kiln.tensor([-1])

    for p in ((-1.0, 0.5), (0.5, 0.5), (-1.0, 0.5), (0.5, 0.5)):
        pick(vector(*p))
