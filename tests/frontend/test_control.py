"""`cond`, `while_loop`, `scan`, `map`: what they compute, what they refuse, and that captured they are eager bit for
bit, gradients included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.errors import ArgumentError, CaptureError, CaptureWarning, DTypeError, GradError, ShapeError
from kiln.ir.parser import parse_graph
from kiln.pytree import flatten
from tests.ops.second_order import along, bits, differentiable, first_order, leaves, second_order
from tests.ops.second_order import same as bits_equal
from tests.ops.test_declarations import same_bits

Function = Callable[..., Any]


def tensor(*shape: int, seed: int = 0, dtype: Any = kiln.float32) -> kiln.Tensor:
    return kiln.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def equal(a: Any, b: Any) -> None:
    """Containers of tensors, equal bit for bit."""
    (xs, one), (ys, other) = flatten(a), flatten(b)
    assert one == other
    for x, y in zip(xs, ys, strict=True):
        if not isinstance(x, kiln.Tensor):
            assert x == y
        else:
            assert same_bits(x.detach().numpy(), y.detach().numpy()), (x, y)


def same(f: Function, *arguments: Any) -> Any:
    """`f` eagerly, captured, and warm: equal. Returns the compiled function."""
    compiled = kiln.compile(fullgraph=True)(f)
    wanted = f(*arguments)
    for _ in range(2):
        equal(compiled(*arguments), wanted)
    return compiled


def gradients(f: Function, arguments: Sequence[Any]) -> list[Any]:
    """Of a sum over all inexact results, by arguments that have gradients."""
    leaves = [x.detach().clone().requires_grad_() if x.dtype.is_floating_point else x for x in arguments]
    results = [y for y in flatten(f(*leaves))[0] if y.dtype.is_floating_point and y.requires_grad]
    kiln.autograd.backward([(y * y).sum() for y in results])
    return [x.grad for x in leaves if x.dtype.is_floating_point]


def same_gradients(f: Function, *arguments: Any) -> list[Any]:
    """Gradients taken eagerly, outside the compiled function, and inside it: equal. Returns them."""
    wanted = gradients(f, arguments)
    outside = kiln.compile(fullgraph=True)(f)
    for _ in range(2):
        equal(gradients(outside, arguments), wanted)

    def step(*leaves: Any) -> Any:
        results = [y for y in flatten(f(*leaves))[0] if y.dtype.is_floating_point and y.requires_grad]
        total = sum([(y * y).sum() for y in reversed(results[:-1])], (results[-1] * results[-1]).sum())
        inputs = [x for x in leaves if x.dtype.is_floating_point]
        return kiln.autograd.grad(total, inputs, allow_unused=True)

    if len([x for x in flatten(f(*arguments))[0] if x.dtype.is_floating_point]) == 1:
        leaves = [x.detach().clone().requires_grad_() if x.dtype.is_floating_point else x for x in arguments]
        equal(list(kiln.compile(fullgraph=True)(step)(*leaves)), wanted)
    return wanted


def slope(f: Function, *arguments: Any) -> None:
    """Gradients against differences, in float64."""
    found = same_gradients(f, *arguments)
    rng = np.random.default_rng(5)

    def value(arrays: Sequence[Any]) -> float:
        results = flatten(f(*arrays))[0]
        return sum(float((y * y).sum()) for y in results if y.dtype.is_floating_point)

    along = [kiln.from_numpy(rng.normal(size=x.shape)) if x.dtype.is_floating_point else x for x in arguments]
    h = 1e-6

    def moved(sign: float) -> list[Any]:
        return [x + (d * (sign * h)) if x.dtype.is_floating_point else x for x, d in zip(arguments, along, strict=True)]

    numeric = (value(moved(1.0)) - value(moved(-1.0))) / (2 * h)
    floats = [d for x, d in zip(arguments, along, strict=True) if x.dtype.is_floating_point]
    analytic = sum(float((g * d).sum()) for g, d in zip(found, floats, strict=True) if g is not None)
    assert abs(numeric - analytic) <= 1e-4 * (1 + abs(numeric))


# --------------------------------------------------------------------------------------------- cond


def chosen(x: kiln.Tensor, w: kiln.Tensor) -> Any:
    return kiln.cond(
        x.sum() > 0, lambda a: {"y": (a @ w).tanh(), "n": (a, 3)}, lambda a: {"y": a * w[0], "n": (w, 3)}, (x,)
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_branch_is_chosen(sign: float) -> None:
    x, w = tensor(3, 3).abs() * sign, tensor(3, 3, seed=1)
    compiled = same(chosen, x, w)
    assert len(compiled.regions()) == 1
    equal(compiled(-x, w), chosen(-x, w))  # the same program
    assert len(compiled.regions()) == 1


def test_a_python_bool_is_python() -> None:
    x = tensor(3)
    assert kiln.cond(True, lambda a: a, lambda a: a + 1, (x,)) is x


def test_results_have_memory_of_their_own() -> None:
    def f(x: kiln.Tensor) -> Any:
        y, z = kiln.cond(x.sum() > -1e9, lambda a: (a, a), lambda a: (a + 1, a), (x,))
        y += 1
        return x * 1, y, z

    same(f, tensor(3))
    x = tensor(3)
    y = kiln.cond(x.sum() > -1e9, lambda: x, lambda: x + 1)
    y.zero_()
    assert float(x.abs().sum()) > 0


def test_a_predicate_of_one_element_in_any_shape() -> None:
    same(lambda p, x: kiln.cond(p > 0, lambda: x + 1, lambda: x - 1), tensor(1, 1), tensor(2))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_of_branches(sign: float) -> None:
    def f(x: kiln.Tensor, w: kiln.Tensor) -> kiln.Tensor:
        y = kiln.cond(x.sum() > 0, lambda a: (a @ w).tanh() * w, lambda a: a * w.sum() + a.exp(), (x,))
        return y * w

    slope(f, tensor(3, 3, dtype=kiln.float64).abs() * sign, tensor(3, 3, seed=1, dtype=kiln.float64))


def test_gradients_of_results_that_are_operands() -> None:
    def f(x: kiln.Tensor, w: kiln.Tensor) -> Any:
        a, b = kiln.cond(w.sum() > 0, lambda: (x, x * w), lambda: (w, x))
        return a * x, b * w

    for sign in (1.0, -1.0):
        same_gradients(f, tensor(3), tensor(3, seed=2).abs() * sign)


def test_a_gradient_stops_at_detach() -> None:
    def f(x: kiln.Tensor) -> kiln.Tensor:
        return kiln.cond(x.sum() > -1e9, lambda a: a * a.detach(), lambda a: a, (x,))

    (g,) = same_gradients(f, tensor(3))
    x = tensor(3)
    equal(g, 2 * (x * x) * x)


def test_random_numbers_in_branches() -> None:
    def f(p: kiln.Tensor, x: kiln.Tensor) -> Any:
        y = kiln.cond(p > 0, lambda: x + kiln.rand(4), lambda: x * 2)
        return y, kiln.rand(2)

    compiled = kiln.compile(fullgraph=True)(f)
    for p in (1.0, -1.0, 1.0):
        kiln.manual_seed(7)
        wanted = f(kiln.tensor(p), kiln.zeros(4)), kiln.rand(1)
        kiln.manual_seed(7)
        equal((compiled(kiln.tensor(p), kiln.zeros(4)), kiln.rand(1)), wanted)


def test_a_failing_branch_fails_only_when_it_runs() -> None:
    def f(p: kiln.Tensor, i: kiln.Tensor, x: kiln.Tensor) -> kiln.Tensor:
        return kiln.cond(p > 0, lambda: x[i], lambda: x[0:1])

    compiled = kiln.compile(fullgraph=True)(f)
    x, far = tensor(3), kiln.tensor([7])
    equal(compiled(kiln.tensor(-1.0), far, x), x[0:1])
    for _ in range(2):
        with pytest.raises(IndexError):
            compiled(kiln.tensor(1.0), far, x)


@pytest.mark.parametrize(
    ("branches", "error", "match"),
    [
        ((lambda x: x, lambda x: (x, x)), ArgumentError, r"true_fn returns \*, false_fn \(\*, \*\)"),
        ((lambda x: x, lambda x: x.double()), DTypeError, "float64.*float32 is wanted"),
        ((lambda x: {"a": (x, x)}, lambda x: {"a": (x, x.sum())}), ShapeError, r"at \['a'\]\[1\]"),
        ((lambda x: (x, 1), lambda x: (x, 2)), ArgumentError, "true_fn returns int 1 at .1., false_fn int 2"),
        ((lambda x: None, lambda x: None), CaptureError, "give no tensors"),
        ((lambda x: x.add_(1), lambda x: x), CaptureError, "true_fn writes in place to a tensor from outside"),
        ((lambda x: x, lambda x: x * float(x.sum())), CaptureError, "asks for tensor data inside false_fn"),
    ],
)
def test_branches_must_agree(branches: Any, error: type[Exception], match: str) -> None:
    x = tensor(3)
    before = x.clone()
    with pytest.raises(error, match=match):
        kiln.compile(fullgraph=True)(lambda x: kiln.cond(x.sum() > -1e9, *branches, (x,)))(x)
    equal(x, before)


def test_a_branch_keeps_to_itself() -> None:
    def f(x: kiln.Tensor) -> kiln.Tensor:
        log: list[int] = []

        def branch() -> kiln.Tensor:
            log.append(1)
            return x * 2

        return kiln.cond(x.sum() > 0, branch, lambda: x) + len(log)

    for compiled in (kiln.compile(fullgraph=True)(f), kiln.compile(f)):
        with pytest.raises(CaptureError, match="true_fn changes a variable or a container from outside"):
            compiled(tensor(3))


def test_what_is_refused_runs_eagerly() -> None:
    """Unless the whole function must be one graph."""

    def f(x: kiln.Tensor) -> kiln.Tensor:
        return kiln.cond(x.sum() > -1e9, lambda a: a * float(a.sum()), lambda a: a, (x + 1,)) * 2

    compiled, x = kiln.compile(f), tensor(3)
    with pytest.warns(CaptureWarning, match="asks for tensor data inside true_fn"):
        equal(compiled(x), f(x))
    equal(compiled(x), f(x))


def test_recursion_on_a_condition_is_refused() -> None:
    def f(x: kiln.Tensor) -> kiln.Tensor:
        return kiln.cond(x.sum() > 100, lambda: x, lambda: f(x * 2 + 1))

    x = tensor(3).abs()
    assert float(f(x).sum()) > 100
    with pytest.raises(CaptureError, match="a function calls itself on a condition of tensors"):
        kiln.compile(fullgraph=True)(f)(x)


def test_arguments_are_checked() -> None:
    x = tensor(3)
    with pytest.raises(ArgumentError, match="pred is a str"):
        kiln.cond("yes", lambda: x, lambda: x)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="no bool tensor"):
        kiln.cond(x.sum(), lambda: x, lambda: x)
    with pytest.raises(ShapeError, match="not one element"):
        kiln.cond(x > 0, lambda: x, lambda: x)
    with pytest.raises(ArgumentError, match="expected a function"):
        kiln.cond(x.sum() > 0, x, lambda: x)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="operands is a Tensor"):
        kiln.cond(x.sum() > 0, lambda a: a, lambda a: a, x)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- while_loop


def newton(a: kiln.Tensor) -> Any:
    """The square root of `a`, and how many steps it took."""

    def far(x: kiln.Tensor, n: kiln.Tensor) -> kiln.Tensor:
        return ((x * x - a).abs() > 1e-12 * a) & (n < 50)

    def step(x: kiln.Tensor, n: kiln.Tensor) -> Any:
        return (x + a / x) * 0.5, n + 1

    return kiln.while_loop(far, step, (a, kiln.tensor(0)))


def test_newton() -> None:
    compiled = same(newton, kiln.tensor(2.0, dtype=kiln.float64))
    root, steps = compiled(kiln.tensor(1e4, dtype=kiln.float64))
    assert float(root) == 100.0 and 5 < int(steps) < 20
    assert len(compiled.regions()) == 1


def mandelbrot(c: kiln.Tensor) -> kiln.Tensor:
    """After how many steps each point escapes, 100 at most."""

    def inside(z: kiln.Tensor, count: kiln.Tensor, n: kiln.Tensor) -> kiln.Tensor:
        return (n < 100) & (z.abs() <= 2).any()

    def step(z: kiln.Tensor, count: kiln.Tensor, n: kiln.Tensor) -> Any:
        here = z.abs() <= 2
        return kiln.where(here, z * z + c, z), count + here.to(kiln.int32), n + 1

    start = (kiln.zeros_like(c), kiln.zeros(c.shape, dtype=kiln.int32), kiln.tensor(0))
    return kiln.while_loop(inside, step, start)[1]


def test_mandelbrot() -> None:
    x, y = np.meshgrid(np.linspace(-2, 0.5, 40), np.linspace(-1.2, 1.2, 30))
    c = x + 1j * y
    same(mandelbrot, kiln.from_numpy(c))
    z, count = np.zeros_like(c), np.zeros(c.shape, np.int32)
    for _ in range(100):
        here = np.abs(z) <= 2
        z[here] = z[here] ** 2 + c[here]
        count += here
    assert (np.abs(mandelbrot(kiln.from_numpy(c)).numpy() - count) <= 1).mean() > 0.999


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_any_number_of_turns(n: int) -> None:
    def f(n: kiln.Tensor, x: kiln.Tensor) -> Any:
        state = {"i": kiln.tensor(0), "x": [x, x > 0, x.double()]}

        def step(s: Any) -> Any:
            x, sign, wide = s["x"]
            return {"i": s["i"] + 1, "x": [x * 1.5, ~sign, wide.cumsum(0)]}

        return kiln.while_loop(lambda s: s["i"] < n, step, state)

    same(f, kiln.tensor(n), tensor(4))


def test_the_graph_does_not_grow_with_the_turns() -> None:
    def f(n: kiln.Tensor) -> Any:
        return kiln.while_loop(lambda i, s: i < n, lambda i, s: (i + 1, s + i), (kiln.tensor(0), kiln.tensor(0)))

    compiled = kiln.compile(fullgraph=True)(f)
    assert int(compiled(kiln.tensor(10))[1]) == 45
    assert int(compiled(kiln.tensor(10_000))[1]) == 49_995_000
    (region,) = compiled.regions()
    assert len(region.graph.operations) == 5
    assert str(parse_graph(str(region.graph))) == str(parse_graph(str(parse_graph(str(region.graph)))))
    assert len(region.forward.program.entries) == 1  # one native call


@pytest.mark.parametrize("n", [0, 1, 3, 31, 32, 33, 70])
def test_gradients_of_loops(n: int) -> None:
    def f(n: kiln.Tensor, x: kiln.Tensor, w: kiln.Tensor) -> kiln.Tensor:
        def step(i: kiln.Tensor, x: kiln.Tensor, y: kiln.Tensor) -> Any:
            return i + 1, (x * w).sin() + y * 0.25, x - w * 0.5

        _, a, b = kiln.while_loop(lambda i, x, y: i < n, step, (kiln.tensor(0), x, w))
        return a * w + b

    slope(f, kiln.tensor(n), tensor(3, dtype=kiln.float64), tensor(3, seed=1, dtype=kiln.float64))


def test_gradients_of_many_turns() -> None:
    """More segments than there are slots."""

    def f(n: kiln.Tensor, x: kiln.Tensor, w: kiln.Tensor) -> kiln.Tensor:
        return kiln.while_loop(lambda i, x: i < n, lambda i, x: (i + 1, (x * w).cos()), (kiln.tensor(0), x))[1]

    arguments = [kiln.tensor(2000), tensor(2), tensor(2, seed=1)]
    equal(gradients(kiln.compile(fullgraph=True)(f), arguments), gradients(f, arguments))


def test_in_place_writes_to_what_is_carried() -> None:
    def f(x: kiln.Tensor) -> Any:
        def step(i: kiln.Tensor, y: kiln.Tensor) -> Any:
            i += 1
            y[0] = y[1] + 1
            y *= 2
            return i, y

        return kiln.while_loop(lambda i, y: i < 3, step, (kiln.tensor(0), x)), x * 1

    same(f, tensor(3))


@pytest.mark.parametrize(
    ("body", "error", "match"),
    [
        (lambda i, x: (i + 1, x.sum()), ShapeError, r"body_fn returns of shape \[\] at \[1\], where \[3\] is wanted"),
        (lambda i, x: (i + 0.5, x), DTypeError, r"body_fn returns float32 at \[0\], where int64 is wanted"),
        (lambda i, x: (i, x, x), ArgumentError, r"returns \(\*, \*, \*\), where \(\*, \*\) is wanted"),
        (lambda i, x: (i, 1.0), ArgumentError, "is a float"),
        (lambda i, x: [i, x], ArgumentError, "same structure"),
    ],
)
def test_carried_values_keep_their_types(body: Function, error: type[Exception], match: str) -> None:
    def f(x: kiln.Tensor) -> Any:
        return kiln.while_loop(lambda i, x: i < 3, body, (kiln.tensor(0), x))

    for function in (f, kiln.compile(fullgraph=True)(f)):
        with pytest.raises(error, match=match):
            function(tensor(3))


def test_what_a_loop_does_not_take() -> None:
    x = tensor(3)
    with pytest.raises(ArgumentError, match="nothing is carried"):
        kiln.while_loop(lambda: True, lambda: (), ())
    with pytest.raises(ArgumentError, match=r"carried\[1\] is a int"):
        kiln.while_loop(lambda a, b: a.sum() > 0, lambda a, b: (a, b), (x, 1))
    with pytest.raises(ArgumentError, match="what cond_fn returns is a bool"):
        kiln.while_loop(lambda a: True, lambda a: (a,), (x,))

    def draws(x: kiln.Tensor) -> Any:
        return kiln.while_loop(lambda a: kiln.rand(()) < 0.5, lambda a: (a + 1,), (x,))

    draws(x)
    with pytest.raises(CaptureError, match="cond_fn draws random numbers"):
        kiln.compile(fullgraph=True)(draws)(x)


# --------------------------------------------------------------------------------------------- scan


def recurrence(w: kiln.Tensor, h: kiln.Tensor, xs: kiln.Tensor, reverse: bool = False) -> Any:
    def cell(h: kiln.Tensor, x: kiln.Tensor) -> Any:
        h = (h @ w + x).tanh()
        return h, {"sum": (h * w[0]).sum(1), "state": h}

    return kiln.scan(cell, h, xs, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("turns", [1, 2, 6])
def test_a_recurrence(turns: int, reverse: bool) -> None:
    w, h, xs = tensor(4, 4) * 0.5, tensor(2, 4, seed=1), tensor(turns, 2, 4, seed=2)
    compiled = same(recurrence, w, h, xs, reverse)
    assert len(compiled.regions()[0].graph.operations) == 1
    state, states = h, []
    for x in reversed(list(xs)) if reverse else list(xs):
        state = (state @ w + x).tanh()
        states.append(state)
    equal(recurrence(w, h, xs, reverse)[1]["state"], kiln.stack(states[::-1] if reverse else states))


def test_strided_slices_and_carried() -> None:
    def f(h: kiln.Tensor, xs: kiln.Tensor) -> Any:
        return kiln.scan(lambda h, x: (h * 0.5 + x, h.T.sum(0)), h.T, xs.transpose(0, 2))

    same(f, tensor(3, 4), tensor(3, 4, 5, seed=1))


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_scans(reverse: bool) -> None:
    def f(w: kiln.Tensor, h: kiln.Tensor, xs: kiln.Tensor) -> kiln.Tensor:
        last, ys = recurrence(w, h, xs, reverse)
        return last.sum() + (ys["sum"] * ys["sum"]).sum() + (ys["state"] * w[1]).sum()

    wide = kiln.float64
    slope(f, tensor(4, 4, dtype=wide) * 0.5, tensor(2, 4, seed=1, dtype=wide), tensor(5, 2, 4, seed=2, dtype=wide))


def test_gradients_of_one_tensor_in_all_its_roles() -> None:
    def f(x: kiln.Tensor) -> kiln.Tensor:
        c, ys = kiln.scan(lambda c, r: (c * r + x[0], c * x.sum()), x[1], x)
        return c * ys.sum() + x

    slope(f, tensor(3, 3, dtype=kiln.float64))


def test_gradients_through_stacked_values_alone() -> None:
    def f(x: kiln.Tensor, w: kiln.Tensor) -> kiln.Tensor:
        return kiln.scan(lambda c, r: (c * w, c * r), w, x)[1]

    slope(f, tensor(4, 3, dtype=kiln.float64), tensor(3, seed=1, dtype=kiln.float64))


def test_the_gradient_keeps_what_it_needs() -> None:
    """The forward program stores; the backward program has one loop, and does not go forward again."""
    w, h, xs = tensor(4, 4).requires_grad_(), tensor(2, 4, seed=1), tensor(6, 2, 4, seed=2)
    compiled = kiln.compile(fullgraph=True)(lambda w, h, xs: recurrence(w, h, xs)[0])
    compiled(w, h, xs)
    plan = compiled.regions()[0].plan
    assert [op.op.name for op in plan.backward.operations].count("scan") == 1
    program = compiled.regions()[0].forward.program
    assert len(program.entries) == 1
    text = program.modules[-1].text
    assert text.count("= phi i64") == 1  # the loop that gives the results and the one that stores are one


def test_empty_scans() -> None:
    def f(x: kiln.Tensor, c: kiln.Tensor) -> Any:
        return kiln.scan(lambda c, r: (c + r, {"y": (c > 0, r.double())}), c, x)

    same(f, kiln.zeros(0, 3), tensor(3))
    same(lambda c: kiln.scan(lambda c, _: (c * 2, None), c, length=0), tensor(3))

    def last(c: kiln.Tensor) -> kiln.Tensor:
        return kiln.scan(lambda c, r: (c * r, c), c, kiln.zeros(0, 3))[0]

    same_gradients(last, tensor(3))


def test_length_without_slices() -> None:
    def f(c: kiln.Tensor) -> Any:
        return kiln.scan(lambda c, x: (c * 2, (c, x, x is None and c.sum())), c, length=5)

    same(f, tensor(3))


def test_random_numbers_in_turns() -> None:
    def f(x: kiln.Tensor) -> Any:
        walk = kiln.scan(lambda c, r: (c + r * kiln.randn(3), kiln.rand(2)), kiln.zeros(3), x)
        return walk, kiln.rand(1)

    compiled = kiln.compile(fullgraph=True)(f)
    for _ in range(2):
        kiln.manual_seed(11)
        wanted = f(tensor(4, 3)), kiln.rand(1)
        kiln.manual_seed(11)
        equal((compiled(tensor(4, 3)), kiln.rand(1)), wanted)


def test_map() -> None:
    same(lambda x, w: kiln.map(lambda row, w: (row @ w, row.max()), x, w), tensor(5, 3), tensor(3, 2, seed=1))
    wide = kiln.float64
    slope(lambda x, w: kiln.map(lambda r: (r * w).exp().sum(), x), tensor(5, 3, dtype=wide), tensor(3, dtype=wide))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: kiln.scan(lambda c, r: c, x[0], x), ArgumentError, "f returns a Tensor, not"),
        (lambda x: kiln.scan(lambda c, r: (c, c), x[0]), ArgumentError, "neither xs nor length"),
        (lambda x: kiln.scan(lambda c, r: (c, c), x[0], x, length=7), ShapeError, r"turns: \[3, 7\]"),
        (lambda x: kiln.scan(lambda c, r: (c, c), x[0], (x, x.T[:2])), ShapeError, "different numbers of turns"),
        (lambda x: kiln.scan(lambda c, r: (c, c), x[0], x.sum()), ShapeError, "a first dimension"),
        (
            lambda x: kiln.scan(lambda c, r: (c.sum(), c), x[0], x),
            ShapeError,
            r"the first result of f is of shape \[\]",
        ),
        (lambda x: kiln.scan(lambda c, r: (c, 1), x[0], x), ArgumentError, "y is a int"),
        (lambda x: kiln.scan(lambda c, r: (c, r.add_(1)), x[0], x), GradError, "read-only"),
        (lambda x: kiln.scan(lambda c, r: (c, r), x[0], x, length=True), ArgumentError, "length is True"),
    ],
)
def test_what_a_scan_does_not_take(call: Function, error: type[Exception], match: str) -> None:
    for function in (call, kiln.compile(fullgraph=True)(call)):
        with pytest.raises(error, match=match):
            function(tensor(3, 3))


# ------------------------------------------------------------------------------------------ together


def nested(x: kiln.Tensor, w: kiln.Tensor) -> Any:
    """A branch in a loop in a scan."""

    def turn(c: kiln.Tensor, r: kiln.Tensor) -> Any:
        def step(i: kiln.Tensor, y: kiln.Tensor) -> Any:
            y = kiln.cond(y.sum() > 0, lambda a: a * w - r, lambda a: (a - w).sin(), (y,))
            return i + 1, y

        count = (r.sum() > 0).to(kiln.int64) + 1
        _, c = kiln.while_loop(lambda i, y: i < count, step, (kiln.tensor(0), c))
        return c, c * r

    return kiln.scan(turn, w, x)


def test_a_branch_in_a_loop_in_a_scan() -> None:
    x, w = tensor(6, 3), tensor(3, seed=1)
    compiled = same(nested, x, w)
    text = str(compiled.regions()[0].graph)
    assert all(name in text for name in ("scan(", "while_loop(", "cond("))
    assert str(parse_graph(text)) == str(parse_graph(str(parse_graph(text))))
    wide = kiln.float64
    slope(lambda x, w: nested(x, w)[0], tensor(4, 3, dtype=wide), tensor(3, seed=1, dtype=wide))


def test_a_library_in_a_loop() -> None:
    def f(a: kiln.Tensor, b: kiln.Tensor) -> Any:
        def step(c: kiln.Tensor, x: kiln.Tensor) -> Any:
            c = kiln.cond(c.sum() > 0, lambda: kiln.linalg.solve(a, c + x), lambda: c - x)
            return c, kiln.linalg.det(a * c[0]) * x

        return kiln.scan(step, b[0], b)

    wide = kiln.float64
    a = tensor(3, 3, dtype=wide) + 4 * kiln.eye(3, dtype=wide)
    compiled = same(f, a, tensor(5, 3, seed=1, dtype=wide))
    entries = compiled.regions()[0].forward.program.entries
    assert any(type(e).__name__ == "LoopCall" for e in entries)
    same_gradients(lambda a, b: f(a, b)[0], a, tensor(5, 3, seed=1, dtype=wide))


def test_a_gradient_inside_the_body() -> None:
    """Gradient descent as a scan."""

    def descend(w: kiln.Tensor, xs: kiln.Tensor) -> Any:
        def step(w: kiln.Tensor, x: kiln.Tensor) -> Any:
            v = w.detach().requires_grad_()
            loss = ((v * x).sum() - 1) ** 2
            (g,) = kiln.autograd.grad(loss, [v])
            return w - 0.1 * g, loss.detach()

        return kiln.scan(step, w, xs)

    same(descend, tensor(3), tensor(20, 3, seed=1))


def test_modules_in_turns() -> None:
    cell = kiln.nn.Linear(3, 3)

    def f(x: kiln.Tensor) -> kiln.Tensor:
        return kiln.scan(lambda h, r: (cell(h + r).tanh(), None), kiln.zeros(3), x)[0]

    x = tensor(5, 3)
    compiled = kiln.compile(fullgraph=True)(f)
    wanted = []
    for function in (f, compiled, compiled):
        cell.zero_grad()
        function(x).sum().backward()
        wanted.append([p.grad.clone() for p in cell.parameters() if p.grad is not None])
    equal(wanted[1], wanted[0])
    equal(wanted[2], wanted[0])


def _turns(x: kiln.Tensor, w: kiln.Tensor) -> Any:
    return kiln.scan(lambda c, r: ((c * w + r).sin(), c * r), w, x)


def _branch(x: kiln.Tensor, w: kiln.Tensor) -> Any:
    return [kiln.cond(x.sum() > 0, lambda: (x * w).sin() * w, lambda: (x * w * w).exp())]


def _while(x: kiln.Tensor, w: kiln.Tensor) -> Any:
    def turn(i: kiln.Tensor, c: kiln.Tensor) -> Any:
        return i + 1, (c * w + x[0]).sin() * c

    return [kiln.while_loop(lambda i, c: i < 5, turn, (kiln.tensor(0), w))[1]]


def _nested(x: kiln.Tensor, w: kiln.Tensor) -> Any:
    def row(c: kiln.Tensor, r: kiln.Tensor) -> Any:
        def turns() -> Any:
            return kiln.while_loop(lambda i, c: i < 3, lambda i, c: (i + 1, (c * w + r).sin()), (kiln.tensor(0), c))[1]

        return kiln.cond(r.sum() > 0, lambda: turns() * w, lambda: c * r + w.detach()), (c * r).sum()

    return kiln.scan(row, w, x, reverse=True)


def _around(x: kiln.Tensor, w: kiln.Tensor) -> Any:
    y = (x * w).tanh()
    a, b = kiln.scan(lambda c, r: ((c * w + r).sin(), (c * r).cos()), w * 2, y)
    return [(a * w).sum() * b, kiln.cond(a.sum() > 0, lambda: y * a, lambda: y * w)]


@pytest.mark.parametrize("f", [_turns, _branch, _while, _nested, _around])
@pytest.mark.parametrize("seed", [0, 3])
def test_second_derivatives(f: Function, seed: int) -> None:
    """Outside of the compiled function to the bit, inside of it to rounding."""
    arrays = [np.random.default_rng(seed + k).normal(size=shape) for k, shape in enumerate(((4, 3), (3,)))]
    xs = leaves(arrays)
    made = differentiable(flatten(f(*xs))[0])
    grads = [g.requires_grad_() for g in along(made, "control", seed)]
    weights = along(xs, "weights", seed)

    def both(function: Function) -> list[Any]:
        return bits(second_order(first_order(lambda *xs: flatten(function(*xs))[0], grads), grads, weights)(*xs))

    wanted = both(f)
    compiled = kiln.compile(fullgraph=True)(f)
    inside = kiln.compile(fullgraph=True)(second_order(first_order(f, grads), grads, weights))
    for _ in range(2):  # the call that is captured, and its program
        assert bits_equal(both(compiled), wanted)
        for got, want in zip(bits(inside(*xs)), wanted, strict=True):
            assert np.allclose(0.0 if got is None else got, 0.0 if want is None else want, rtol=1e-11, atol=1e-13)


def test_second_derivatives_of_what_is_gone() -> None:
    compiled = kiln.compile(fullgraph=True)(lambda x: kiln.map(lambda r: r * r * r, x).sum())
    for _ in range(2):
        x = tensor(4).requires_grad_()
        y = compiled(x)
        (g,) = kiln.autograd.grad(y, [x], create_graph=True)
        kiln.autograd.grad(g.sum(), [x])
        with pytest.raises(GradError, match="already walked"):
            kiln.autograd.grad(g.sum(), [x])
        z = compiled(x)
        z.backward()
        with pytest.raises(GradError, match="already walked"):
            kiln.autograd.grad(z, [x], create_graph=True)


def test_without_gradients() -> None:
    x, w = tensor(6, 3), tensor(3, seed=1).requires_grad_()
    with kiln.no_grad():
        compiled = same(nested, x, w)
        assert not compiled(x, w)[0].requires_grad
