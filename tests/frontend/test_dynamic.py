"""Code for many sizes (`kiln.dynamic`): made at most twice, and right, bit for bit, for every size."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.errors import ArgumentError, InvalidValueError, KilnIndexError, ShapeError

F = nn.functional
SIZES = (0, 1, 2, 7, 64, 1024)


def same(a: Any, b: Any) -> bool:
    """Equal bits; NaNs count as equal."""
    x, y = a.detach().numpy(), b.detach().numpy()
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if x.dtype.kind == "f":
        x, y = (np.where(np.isnan(z), z.dtype.type(7), z) for z in (x, y))
    return bool(x.tobytes() == y.tobytes())


def assert_shared(f: Callable[..., Any], make: Callable[[int], Sequence[Any]], sizes: Sequence[int] = SIZES) -> Any:
    """Compiled calls for all sizes, cold and warm, equal eager ones."""
    compiled = kiln.compile(f)
    for n in sizes:
        arguments = make(n)
        wanted = f(*arguments)
        for _ in range(2):
            assert same(compiled(*arguments), wanted), n
    assert compiled.report().generated <= 2, compiled.report()
    return compiled


def gradients(f: Callable[..., Any], arguments: Sequence[Any], times: int) -> list[Any]:
    """A result and the gradients of the arguments, added up over `times` calls."""
    leaves = [t.clone().detach().requires_grad_() for t in arguments]
    for _ in range(times):
        out = f(*leaves)
        out.backward(kiln.arange(out.numel(), dtype=out.dtype).reshape(out.shape) * 0.01 + 0.3)
    return [out, *[leaf.grad for leaf in leaves]]


def assert_gradients_shared(
    f: Callable[..., Any], make: Callable[[int], Sequence[Any]], sizes: Sequence[int] = SIZES
) -> Any:
    """As `assert_shared`, with gradients, fresh ones and such as are added to others."""
    compiled = kiln.compile(f)
    for n in sizes:
        arguments = make(n)
        wanted = gradients(f, arguments, 2)
        for _ in range(2):
            for a, b in zip(gradients(compiled, arguments, 2), wanted, strict=True):
                assert (a is None) == (b is None)
                assert a is None or same(a, b), n
    assert compiled.report().generated <= 2, compiled.report()
    backward = {id(c.code) for region in compiled.regions() for _, c in region.backwards.values()}
    assert len(backward) <= 4, "two patterns of gradients, fresh and running, twice each"
    return compiled


W1, B1, W2 = kiln.randn(16, 32), kiln.randn(32), kiln.randn(32, 10)


def heads(x: Any) -> Any:
    q = (x @ W1).reshape(x.shape[0], 4, 4, 2).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(1)


FORWARD: dict[str, Callable[[Any], Any]] = {
    "chain": lambda x: (x * 2 + 1).exp() / 3 - x.sin().abs().sqrt(),
    "mlp": lambda x: F.relu(x @ W1 + B1) @ W2,
    "sum over the batch": lambda x: (x * 2).sum(0),
    "mean of rows": lambda x: (x * 2).mean(1),
    "mean of all": lambda x: x.mean(),
    "variance over the batch": lambda x: x.var(0),
    "deviation of rows": lambda x: x.std(1, keepdim=True) * x,
    "largest": lambda x: x.argmax(1),
    "softmax of rows": lambda x: F.softmax(x, -1),
    "softmax over the batch": lambda x: F.softmax(x, 0),
    "log_softmax": lambda x: F.log_softmax(x @ W1, -1),
    "layer_norm": lambda x: F.layer_norm(x @ W1, (32,), B1, B1),
    "attention": heads,
    "cat": lambda x: kiln.cat([x, x * 2], 0) + 1,
    "cat of columns": lambda x: kiln.cat([x, x * 2, x[:, :3]], 1) * 2,
    "stack": lambda x: kiln.stack([x, x + 1], 1).sum(1),
    "flatten": lambda x: x.reshape(x.shape[0], 4, 4).flatten(1) @ W1,
    "view": lambda x: (x * 2).view(-1),
    "reshape to rows": lambda x: (x * 3).reshape(-1, 4).sum(1),
    "transpose": lambda x: (x.transpose(0, 1) * 2).contiguous() + x.T,
    "slices": lambda x: x[:, 3:7] * 2 + x[:, :4],
    "every second": lambda x: x[:, ::2] * x[:, 1::2],
    "cumsum": lambda x: x.cumsum(0) + x.cumsum(1),
    "sort": lambda x: x.sort(1)[0],
    "outer": lambda x: x.unsqueeze(1) * x.unsqueeze(2),
    "batched": lambda x: x.reshape(x.shape[0], 4, 4) @ x.reshape(x.shape[0], 4, 4).transpose(1, 2),
    "gram": lambda x: x @ x.T,
    "gram of columns": lambda x: x.T @ x,
    "where": lambda x: kiln.where(x > 0, x, x * 0.1),
    "counted": lambda x: x * kiln.arange(x.shape[0], dtype=kiln.float32).unsqueeze(1),
    "scaled by the size": lambda x: x / max(1, x.shape[0]),
    "half": lambda x: (x.to(kiln.bfloat16) * 2).sum(1),
}


@pytest.mark.parametrize("name", FORWARD)
def test_results(name: str) -> None:
    assert_shared(FORWARD[name], lambda n: (kiln.randn(n, 16),))


GRADIENTS: dict[str, Callable[..., Any]] = {
    "mlp": lambda x, w, b, v: F.relu(x @ w + b) @ v,
    "gelu": lambda x, w, b, v: F.gelu(x @ w + b) @ v,
    "softmax": lambda x, w, b, v: F.softmax(x @ w, -1) @ v,
    "softmax over the batch": lambda x, w, b, v: F.softmax(x * x, 0),
    "mean": lambda x, w, b, v: (x * x).mean(),
    "mean over the batch": lambda x, w, b, v: (x @ w).mean(0) * b,
    "layer_norm": lambda x, w, b, v: F.layer_norm(x @ w, (32,), b, b),
    "cat": lambda x, w, b, v: kiln.cat([x, x * 2], 0) @ w,
    "slices": lambda x, w, b, v: x[:, 3:9] * x[:, :6],
    "attention": lambda x, w, b, v: heads(x) @ w.T,
    "cross_entropy": lambda x, w, b, v: F.cross_entropy((x @ w + b) @ v, kiln.arange(x.shape[0]) % 10),
    "cumsum": lambda x, w, b, v: (x @ w).cumsum(0) * x.sum(1, keepdim=True),
    "maximum": lambda x, w, b, v: (x @ w).max(1)[0] + (x @ w).amax(1),
    "used three times": lambda x, w, b, v: (x * b[:16] + x / 2 - x * x) * b[:16],
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    def make(n: int) -> tuple[Any, ...]:
        return kiln.randn(n, 16), kiln.randn(16, 32), kiln.randn(32), kiln.randn(32, 10)

    assert_gradients_shared(GRADIENTS[name], make)


def test_a_training_step() -> None:
    def made() -> tuple[Any, Callable[..., Any]]:
        kiln.manual_seed(0)
        net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 10))
        optimizer = kiln.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return net, step

    (eager, step), (net, other) = made(), made()
    compiled = kiln.compile(other)
    for n in (1, 2, 7, 64, 1024, 3, 64, 1):
        for _ in range(2):
            x, y = kiln.randn(n, 16), kiln.arange(n) % 10
            assert same(step(x, y), compiled(x, y))
            assert all(map(same, eager.parameters(), net.parameters())), n
    assert compiled.report().generated <= 2, compiled.report()
    assert compiled.report().eager == 0


def test_two_sizes_at_once() -> None:
    """Each keeps a name of its own."""

    def f(x: Any, y: Any) -> Any:
        return kiln.cat([x * 2, y], 0).sum(1)

    compiled = kiln.compile(f)
    for m, n in ((3, 5), (4, 9), (6, 2), (5, 5), (1, 8), (8, 1)):
        x, y = kiln.randn(m, 4), kiln.randn(n, 4)
        assert same(compiled(x, y), f(x, y))
    assert compiled.report().generated == 2


def test_a_changing_number() -> None:
    """Python numbers that become values of tensors are read when the code runs."""

    def f(x: Any, scale: float) -> Any:
        return x * scale + 1

    compiled = kiln.compile(f)
    x = kiln.randn(5)
    for scale in (0.5, 2.0, -0.0, float("inf"), 1e-30):
        assert same(compiled(x, scale), f(x, scale))
    assert compiled.report().generated == 2


def test_another_graph_has_code_of_its_own() -> None:
    """Python may look at sizes as it likes."""

    def f(x: Any) -> Any:
        return x.sum(0) if x.shape[0] > 10 else x.exp().sum(0)

    compiled = kiln.compile(f)
    for n in (2, 3, 20, 30, 4, 40):
        x = kiln.randn(n, 3)
        for _ in range(2):
            assert same(compiled(x), f(x))
    assert compiled.report().generated == 4


def test_sizes_that_are_not_in_proportion_are_told_apart() -> None:
    """A form that fits two sizes by chance does not fit a third."""

    def f(x: Any) -> Any:
        wide = {2: 4, 3: 6, 5: 11}[x.shape[0]]
        return x.sum() + kiln.zeros(wide).sum() + kiln.ones(x.shape[0], wide).sum(1)

    compiled = kiln.compile(f)
    for n in (2, 3, 5):
        x = kiln.randn(n)
        for _ in range(2):
            assert same(compiled(x), f(x))
    assert compiled.report().generated == 3


def test_false_makes_code_for_each_size() -> None:
    compiled = kiln.compile(lambda x: x * 2, dynamic=False)
    for n in (2, 3, 4):
        compiled(kiln.ones(n))
    assert compiled.report().generated == 3


def test_true_waits_for_a_second_size() -> None:
    compiled = kiln.compile(lambda x: (x * 2).sum(0), dynamic=True)
    for n in (2, 3, 4, 2):
        x = kiln.randn(n, 3)
        assert same(compiled(x), (x * 2).sum(0))
    assert compiled.report().generated == 1


def test_true_with_one_size_makes_code_when_it_comes_again() -> None:
    compiled = kiln.compile(lambda x: x * 2, dynamic=True)
    compiled(kiln.ones(3))
    assert compiled.report().generated == 0
    assert same(compiled(kiln.ones(3)), kiln.ones(3) * 2)
    assert compiled.report().generated == 1


def test_the_first_size_takes_code_that_was_made_for_others() -> None:
    compiled = kiln.compile(lambda x, w: (x * w).sum(0), dynamic=True)
    for _ in range(2):
        for n in (5, 2, 3):
            x, w = kiln.randn(n, 3).requires_grad_(), kiln.randn(3).requires_grad_()
            out = compiled(x, w)
            out.backward(kiln.ones(3))
            assert same(out, (x * w).sum(0))
            assert same(w.grad, x.detach().sum(0))
    assert compiled.report().generated == 1


def test_a_marked_tensor() -> None:
    compiled = kiln.compile(lambda x: x * 2)
    for n in (2, 3, 4):
        x = kiln.randn(n, 3)
        kiln.mark_dynamic(x, 0, max=4)
        compiled(x)
    assert compiled.report().generated == 1
    x = kiln.randn(5, 3)
    kiln.mark_dynamic(x, -2, min=1, max=4)
    with pytest.raises(ShapeError, match="dimension 0 of tensor 0 is 5"):
        compiled(x)
    with pytest.raises(KilnIndexError, match="mark_dynamic"):
        kiln.mark_dynamic(x, 2)


def test_ranges() -> None:
    batch, length = kiln.Dim("batch", min=1, max=8), kiln.Dim("length")

    class Net(nn.Module):
        def forward(self, x: Any, mask: Any, scale: float = 1.0) -> Any:
            return (x * mask * scale).sum(1)

    compiled = kiln.compile(Net(), dynamic={"x": {0: batch, 1: length}, "mask": {0: batch, 1: None}})
    for n in (2, 3, 8):
        assert same(compiled(kiln.ones(n, 4), mask=kiln.ones(n, 4)), kiln.ones(n) * 4)
    assert compiled.report().generated == 1
    with pytest.raises(ShapeError, match="dimension 0 of x is 9, but batch is at most 8"):
        compiled(kiln.ones(9, 4), kiln.ones(9, 4))
    with pytest.raises(ShapeError, match="dimension 0 of x is 0, but batch is at least 1"):
        compiled(kiln.ones(0, 4), kiln.ones(0, 4))
    with pytest.raises(ShapeError, match="dimension 0 of mask is 1, but dimension 0 of x is 2, and both are batch"):
        compiled(kiln.ones(2, 4), kiln.ones(1, 4))
    with pytest.raises(ShapeError, match="x has no dimension 1"):
        compiled(kiln.ones(2), kiln.ones(2))


def test_bad_descriptions() -> None:
    with pytest.raises(ArgumentError, match="'y', which is no argument"):
        kiln.compile(lambda x: x, dynamic={"y": {0: None}})
    with pytest.raises(ArgumentError, match="maps dimensions to Dims"):
        kiln.compile(lambda x: x, dynamic={"x": {0: 5}})  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match="dynamic is 3"):
        kiln.compile(lambda x: x, dynamic=3)  # type: ignore[call-overload]
    with pytest.raises(InvalidValueError, match="can't be from 3 to 2"):
        kiln.Dim("n", min=3, max=2)
    with pytest.raises(ArgumentError, match="name of a Dim"):
        kiln.Dim(3)  # type: ignore[arg-type]


def test_staged_branches() -> None:
    """What tensors decide: both branches are part of the code."""

    def f(x: Any) -> Any:
        if x.sum() > 0:
            y = x.relu().mean(0)
        else:
            y = (x * x).sum(0) / (x.shape[0] + 3) - 1
        return y * 2

    compiled = kiln.compile(f)
    for n in (2, 3, 5, 7, 64, 4):
        for sign in (1, -1):
            for _ in range(2):
                x = kiln.randn(n, 16).abs() * sign
                assert same(compiled(x), f(x)), n
    assert compiled.report().generated == 2, compiled.report()
    assert compiled.report().staged


def test_gradients_of_branches() -> None:
    def f(x: Any, w: Any) -> Any:
        h = x @ w
        rows = x.shape[0] + 3
        return kiln.cond(h.sum() > 0, lambda h: h.relu().mean(0), lambda h: (h * h).sum(0) / rows - 1, (h,)) * 2

    compiled = kiln.compile(f)
    w = kiln.randn(16, 8).abs()
    for n in (2, 3, 5, 7, 64, 4):
        for sign in (1, -1):
            arguments = kiln.randn(n, 16).abs() * sign, w
            wanted = gradients(f, arguments, 1)
            for _ in range(2):
                assert all(map(same, gradients(compiled, arguments, 1), wanted)), n
    assert compiled.report().generated == 2, compiled.report()


def test_loops_take_known_sizes_only() -> None:
    def f(x: Any) -> Any:
        while x.sum() < 10:
            x = x + 1
        return x

    compiled = kiln.compile(f)
    for n in (2, 3, 5):
        for _ in range(2):
            assert same(compiled(kiln.ones(n)), f(kiln.ones(n)))
    assert compiled.report().generated == 3


def test_questions() -> None:
    """What Python decides on data: each answer's way has code for many sizes."""

    def f(x: Any) -> Any:
        scale = {True: 2.0, False: 0.5}[bool(x.sum() > 0)]
        return (x * scale).exp()

    compiled = kiln.compile(f)
    for n in (2, 3, 5, 8):
        for sign in (1, -1):
            for _ in range(2):
                x = kiln.full((n,), 1.0 * sign)
                assert same(compiled(x), f(x))
    assert compiled.report().generated <= 4
    assert compiled.report().decided


def test_programs_come_from_the_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_CACHE_DIR", str(tmp_path))

    def f(x: Any) -> Any:
        return F.softmax(x @ x.T, 1).sum(0)

    for _ in range(2):
        compiled = kiln.compile(f)
        for n in (3, 5, 9, 4):
            x = kiln.randn(n, 4)
            for _ in range(2):
                assert same(compiled(x), f(x))
        assert compiled.report().generated == 2


def test_convolutions() -> None:
    weight, bias = kiln.randn(8, 3, 3, 3), kiln.randn(8)

    def f(x: Any, w: Any, b: Any) -> Any:
        return F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2).flatten(1)

    assert_gradients_shared(f, lambda n: (kiln.randn(n, 3, 8, 8), weight, bias), (2, 3, 7, 1, 0, 16))


def test_images_of_any_size() -> None:
    weight = kiln.randn(8, 3, 3, 3)
    assert_shared(
        lambda x: F.conv2d(x, weight, stride=2).mean((2, 3)), lambda n: (kiln.randn(2, 3, n, n + 3),), (9, 12, 7)
    )


def test_images_of_any_size_and_few_channels() -> None:
    weight = kiln.randn(2, 1, 3, 3)
    assert_shared(lambda x: F.conv2d(x, weight, groups=2), lambda n: (kiln.randn(2, 2, n, n + 3),), (9, 12, 7))


def test_operations_that_one_size_lacks() -> None:
    def f(x: Any, y: Any) -> Any:
        total = x[0]
        for t in range(1, x.shape[0]):
            total = (total[:, None] + y).logsumexp(0) + x[t]
        return total.logsumexp(0)

    compiled = kiln.compile(f)
    for n in (3, 2, 3):
        x, y = kiln.randn(n, 2, requires_grad=True), kiln.randn(2, 2, requires_grad=True)
        a, b = compiled(x, y), f(x, y)
        for p, q in zip((a, *kiln.autograd.grad(a, [x, y])), (b, *kiln.autograd.grad(b, [x, y])), strict=True):
            assert same(p.detach(), q.detach())


def test_what_takes_known_sizes_only_has_code_of_its_own() -> None:
    compiled = kiln.compile(lambda x: kiln.linalg.inv(x))
    for n in (2, 3, 4):
        x = kiln.eye(n) * 2
        for _ in range(2):
            assert same(compiled(x), kiln.linalg.inv(x))
    assert compiled.report().generated == 3
    assert any("known sizes only" in why for why in compiled.report().refusals)


def test_a_table() -> None:
    def f(table: Any, i: Any) -> Any:
        return F.embedding(i, table).sum(1)

    table = kiln.randn(50, 6)
    compiled = kiln.compile(f)
    for n in (2, 3, 7, 1, 0, 16):
        i = kiln.arange(n * 4).reshape(n, 4) % 50
        found = []
        for g in (f, compiled, compiled):
            leaf = table.clone().requires_grad_()
            g(leaf, i).backward(kiln.ones(n, 6))
            found.append(leaf.grad)
        assert same(found[0], found[1])
        assert same(found[0], found[2])
    assert compiled.report().generated <= 2


def test_random_numbers() -> None:
    compiled = kiln.compile(lambda x: F.dropout(x * 2, 0.5))
    for n in (2, 3, 7, 1, 16):
        x = kiln.randn(n, 4)
        kiln.manual_seed(n)
        wanted = [F.dropout(x * 2, 0.5) for _ in range(3)]
        kiln.manual_seed(n)
        assert all(map(same, [compiled(x) for _ in range(3)], wanted))
    assert compiled.report().generated <= 2


def test_strided_arguments() -> None:
    """Of one element, any stride is as good as another."""
    assert_shared(lambda x: x * 2 + 1, lambda n: (kiln.randn(16, n).T,), (7, 1, 3, 0, 9))
    assert_shared(lambda x: (x * 2).sum(0), lambda n: (kiln.randn(n, 32)[:, ::2],), (1, 7, 3, 0, 9))
    assert_shared(lambda x: x.exp(), lambda n: (kiln.randn(16).expand(n, 16),), (4, 7, 3, 9))


def test_a_size_that_is_another_one_by_chance() -> None:
    def f(x: Any, w: Any, b: Any, v: Any) -> Any:
        return F.softmax(x @ w + b, 1) @ v

    w, b, v = kiln.randn(16, 16), kiln.randn(16), kiln.randn(16, 16)
    assert_gradients_shared(f, lambda n: (kiln.randn(n, 16), w, b, v), (16, 3, 5, 16, 32))
    assert_gradients_shared(f, lambda n: (kiln.randn(n, 16), w, b, v), (3, 16, 1, 32))


def test_derivatives_of_gradients() -> None:
    compiled = kiln.compile(lambda x: (x.tanh() * x).sum(0))
    for n in (2, 3, 7, 1):
        found = []
        x = kiln.randn(n, 4)
        for f in (lambda x: (x.tanh() * x).sum(0), compiled, compiled):
            leaf = x.clone().requires_grad_()
            (first,) = kiln.autograd.grad(f(leaf).sum(), leaf, create_graph=True)
            (second,) = kiln.autograd.grad((first * first).sum(), leaf)
            found.append((first, second))
        assert all(same(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    assert compiled.report().generated <= 2


def test_under_vmap() -> None:
    compiled = kiln.compile(lambda x: (x * 2).sum(0))
    for n in (2, 3, 7):
        leaf = kiln.randn(n, 4).requires_grad_()
        out = compiled(leaf)
        rows = kiln.vmap(lambda g, out=out, leaf=leaf: kiln.autograd.grad(out, leaf, g, retain_graph=True)[0])(
            kiln.eye(4)
        )
        assert same(rows, kiln.eye(4).unsqueeze(1).expand(4, n, 4) * 2)


def test_shared_code_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = kiln.compile(lambda x: x.mean(0))
    for n in (2, 3):
        monkeypatch.setenv("KILN_DUMP", "plan" if n == 3 else "0")
        compiled(kiln.ones(n, 4))
    assert "arena" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ at random

POINTWISE: tuple[Callable[[Any], Any], ...] = (
    lambda x: x * 2 + 1,
    lambda x: x.tanh(),
    lambda x: F.gelu(x),
    lambda x: x.abs().sqrt(),
    lambda x: kiln.where(x > 0, x, -x * 0.5),
    lambda x: x / (1 + x * x),
)
SHAPED: tuple[Callable[[Any], Any], ...] = (
    lambda x: x - x.mean(1, keepdim=True),
    lambda x: x + x.sum(0),
    lambda x: x - x.amax(0, keepdim=True) if x.shape[0] else x,
    lambda x: F.softmax(x, 1),
    lambda x: x.T.contiguous().T + x,
    lambda x: x.reshape(x.shape[0], 2, 3).transpose(1, 2).flatten(1),
    lambda x: x.reshape(-1).reshape(x.shape[0], 6) * 3,
    lambda x: kiln.cat([x[:, 2:], x[:, :2]], 1),
    lambda x: kiln.cat([x, x], 0)[: x.shape[0]],
    lambda x: x @ kiln.ones(6, 6) * 0.1,
    lambda x: x @ (x.T @ x) * 0.01,
    lambda x: x.cumsum(0) * 0.1,
    lambda x: x.flip(0) + x,
    lambda x: F.layer_norm(x, (6,)),
    lambda x: (x.unsqueeze(1) * x.unsqueeze(2)).sum(2),
    lambda x: x.expand(2, *x.shape).mean(0),
)
ENDS: tuple[Callable[[Any], Any], ...] = (
    lambda x: x,
    lambda x: x.sum(),
    lambda x: x.mean(0),
    lambda x: x.var(1),
    lambda x: x[:, 0] * 2,
)


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(seed: int) -> None:
    choose = random.Random(seed)
    parts = [choose.choice(POINTWISE if choose.random() < 0.4 else SHAPED) for _ in range(choose.randint(2, 6))]
    end = choose.choice(ENDS)

    def f(x: Any, y: Any) -> Any:
        z = x
        for k, part in enumerate(parts):
            z = part(z) + y if k == 1 else part(z)
        return end(z)

    sizes = choose.sample(range(2, 40), 3)
    compiled = kiln.compile(f)
    for n in (*sizes, choose.choice((0, 1)), sizes[0]):
        arguments = kiln.randn(n, 6), kiln.randn(n, 6)
        wanted = gradients(f, arguments, 1)
        for _ in range(2):
            assert all(map(same, gradients(compiled, arguments, 1), wanted)), n
    few = [region for region in compiled.regions() if region.graph.inputs[0].type.shape[0] in sizes]
    assert len({id(region.forward.code) for region in few}) <= 2, compiled.report()
