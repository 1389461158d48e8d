"""float16 and bfloat16 as a user meets them: compositions, gradients, in-place writes, training, saving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
import kiln.nn.functional as F
from kiln import nn
from kiln.ir.halves import converted, widened
from kiln.ir.types import DType

HALVES = [kiln.float16, kiln.bfloat16]


def random(dtype: DType, *shape: int, seed: int = 0) -> kiln.Tensor:
    return kiln.from_numpy(converted(np.random.default_rng(seed).standard_normal(shape), dtype))


def same(a: kiln.Tensor, b: kiln.Tensor) -> bool:
    return a.dtype is b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def both(f: Callable[..., kiln.Tensor], *args: kiln.Tensor) -> kiln.Tensor:
    """The result of `f`, which the compiled one must equal bit for bit."""
    eager, compiled = f(*args), kiln.compile(f)
    for _ in range(2):
        assert same(compiled(*args), eager)
    return eager


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_compositions_round_once(dtype: DType) -> None:
    """What counts as one op is float32's result, rounded."""
    x, y = random(dtype, 7, 33), random(dtype, 7, 33, seed=1)
    labels = kiln.tensor([3, 1, 4, 1, 5, 9, 2])
    calls: list[Callable[..., kiln.Tensor]] = [
        lambda x, y: kiln.softmax(x, 1),
        lambda x, y: kiln.log_softmax(x, 0),
        lambda x, y: kiln.mean(x, 1),
        lambda x, y: kiln.rsqrt(kiln.abs(x)),
        lambda x, y: kiln.gelu(x, approximate="tanh"),
        lambda x, y: F.mse_loss(x, y),
        lambda x, y: F.cross_entropy(x, labels),
    ]
    for call in calls:
        got = both(call, x, y)
        assert got.dtype is dtype
        assert same(got, call(x.float(), y.float()).to(dtype))
    assert kiln.softmax(x, 1, dtype=kiln.float32).dtype is kiln.float32


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_linear_rounds_after_the_bias(dtype: DType) -> None:
    x, w, b = random(dtype, 5, 300), random(dtype, 40, 300, seed=1), random(dtype, 40, seed=2)
    got = both(lambda x, w, b: F.linear(x, w, b), x, w, b)
    wide = F.linear(x.float(), w.float(), b.float())
    assert same(got, wide.to(dtype))
    assert not same(got, (x @ w.t()) + b)
    assert same(F.linear(x, w), F.linear(x.float(), w.float()).to(dtype))
    for shape in ((300,), (2, 3, 300)):
        z = random(dtype, *shape, seed=3)
        assert same(F.linear(z, w, b), F.linear(z.float(), w.float(), b.float()).to(dtype))
    with pytest.raises(kiln.DTypeError):
        F.linear(x, w, b.float())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_gradients(dtype: DType) -> None:
    """Close to float32's, of the dtype of the operand, and the same compiled."""

    def loss(x: kiln.Tensor, w: kiln.Tensor, b: kiln.Tensor) -> kiln.Tensor:
        return kiln.softmax(kiln.tanh(F.linear(x, w, b)) * 2.0, 1).square().sum()

    def gradients(x: kiln.Tensor, w: kiln.Tensor, b: kiln.Tensor) -> tuple[kiln.Tensor, ...]:
        return kiln.grad(loss(x, w, b), [x, w, b])

    values = [random(dtype, 4, 9), random(dtype, 6, 9, seed=1), random(dtype, 6, seed=2)]
    operands = [v.requires_grad_() for v in values]
    wide = [v.detach().float().requires_grad_() for v in values]
    step = 2.0**-10 if dtype is kiln.float16 else 2.0**-7
    for got, wanted in zip(gradients(*operands), gradients(*wide), strict=True):
        assert got.dtype is dtype
        assert np.abs(widened(got.numpy()) - wanted.numpy()).max() < 16 * step * float(wanted.abs().max())
    compiled = kiln.compile(gradients)
    for _ in range(2):
        assert all(map(same, compiled(*operands), gradients(*operands)))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_training_step(dtype: DType) -> None:
    """A module of 16-bit parameters learns, compiled as eagerly."""

    def train(compiled: bool) -> list[float]:
        kiln.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)
        optimizer = kiln.optim.SGD(model.parameters(), lr=0.2)
        x, labels = random(dtype, 30, 8), kiln.arange(30) * 0 + kiln.tensor([0, 1, 2] * 10)

        def step(x: kiln.Tensor, labels: kiln.Tensor) -> kiln.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss.detach()

        run: Any = kiln.compile(step) if compiled else step
        return [run(x, labels).item() for _ in range(12)]

    losses = train(compiled=False)
    assert losses == train(compiled=True)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_in_place_and_views(dtype: DType) -> None:
    x = kiln.zeros(4, 6, dtype=dtype)
    x[1:3, ::2] = 1.5
    x += 0.25
    x.T[0] *= 2
    assert x.tolist()[0] == [0.5, *[0.25] * 5] and x.tolist()[1] == [3.5, 0.25, 1.75, 0.25, 1.75, 0.25]
    x += kiln.ones(4, 6)  # float32: the result is cast back
    assert x.dtype is dtype
    assert both(lambda x: kiln.cat([x[:, :2], x.T[:4, :2]], 1) + x[0, 0], x).shape == (4, 4)
    assert (x.argmax() == 6).item() and x.max().item() == 4.5


def test_numbers_from_python_are_rounded_once() -> None:
    value = 1 + 2.0**-8 + 2.0**-40  # by way of float32 it would be a tie
    made = [
        kiln.tensor(value, dtype=kiln.bfloat16),
        kiln.full((), value, dtype=kiln.bfloat16),
        kiln.from_numpy(np.array(value)).to(kiln.bfloat16),
        kiln.where(kiln.tensor(True), value, kiln.zeros((), dtype=kiln.bfloat16)),
        kiln.compile(lambda x: x.fill_(value))(kiln.zeros((), dtype=kiln.bfloat16)),
        kiln.compile(lambda x: x.bfloat16())(kiln.tensor(value, dtype=kiln.float64)),
    ]
    assert {x.item() for x in made} == {1 + 2.0**-7}
    assert kiln.tensor([1e10], dtype=kiln.float16).item() == float("inf")
    assert kiln.arange(0, 3, 0.5, dtype=kiln.bfloat16).tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


def test_printing() -> None:
    assert repr(kiln.tensor([1.0, 2.5], dtype=kiln.bfloat16)) == "tensor([1.0000, 2.5000], dtype=kiln.bfloat16)"
    assert repr(kiln.tensor([1.0, -2.0], dtype=kiln.float16)) == "tensor([ 1., -2.], dtype=kiln.float16)"
    x = kiln.tensor(0.1, dtype=kiln.bfloat16)
    assert float(x) == 0.10009765625 and f"{x:.3f}" == "0.100" and bool(x)


@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "int32", "float16", "bfloat16"])
def test_saving(name: str, tmp_path: Path) -> None:
    x = kiln.tensor([[0, 1, 2], [3, 100, 5]], dtype=getattr(kiln, name))
    kiln.save({"x": x, "t": x.T}, tmp_path / "x")
    loaded = kiln.load(tmp_path / "x")
    assert same(loaded["x"], x) and same(loaded["t"], x.T.contiguous())


def test_random_numbers() -> None:
    kiln.manual_seed(3)
    for dtype, digits in ((kiln.float16, 11), (kiln.bfloat16, 8)):
        u = kiln.rand(5000, dtype=dtype).double()
        assert u.max().item() < 1 and u.min().item() == 0 and (u * 2.0**digits == (u * 2.0**digits).long()).all()
        assert abs(u.mean().item() - 0.5) < 0.02
        assert abs(kiln.randn(5000, dtype=dtype).double().mean().item()) < 0.05


def test_limits() -> None:
    info = kiln.finfo(kiln.bfloat16)
    assert (info.eps, info.max, info.tiny, info.bits) == (2.0**-7, 3.3895313892515355e38, 2.0**-126, 16)
    info = kiln.finfo(kiln.float16)
    assert (info.eps, info.max, info.tiny) == (2.0**-10, 65504.0, 2.0**-14)
    assert kiln.half is kiln.float16
    assert kiln.promote_types(kiln.float16, kiln.bfloat16) is kiln.float32


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_normalisation_rounds_once(dtype: DType) -> None:
    x, w, b = random(dtype, 4, 6, 9), random(dtype, 6, seed=1), random(dtype, 6, seed=2)
    last = random(dtype, 9, seed=3)
    mean, var = random(dtype, 6, seed=4), random(dtype, 6, seed=5).square() + 1.0
    calls: list[Callable[..., kiln.Tensor]] = [
        lambda x, w, b, last, mean, var: F.layer_norm(x, (9,), last, last),
        lambda x, w, b, last, mean, var: F.rms_norm(x, (9,), last, 1e-3),
        lambda x, w, b, last, mean, var: F.group_norm(x, 3, w, b),
        lambda x, w, b, last, mean, var: F.instance_norm(x, None, None, w, b),
        lambda x, w, b, last, mean, var: F.batch_norm(x, mean, var, w, b),
        lambda x, w, b, last, mean, var: F.batch_norm(x, None, None, w, b, training=True),
        lambda x, w, b, last, mean, var: F.normalize(x, dim=2),
        lambda x, w, b, last, mean, var: F.cosine_similarity(x, last, dim=2),
    ]
    operands = (x, w, b, last, mean, var)
    for call in calls:
        got = both(call, *operands)
        assert same(got, call(*(t.float() for t in operands)).to(dtype))
    running = kiln.zeros(6), kiln.ones(6)  # float32 beside 16-bit values
    assert F.batch_norm(x, *running, training=True).dtype is dtype
    assert running[0].dtype is kiln.float32 and (running[0] != 0).all()
    assert same(F.mse_loss(x, x.float() + 1.0), kiln.tensor(1.0).reshape(()))


def test_modules_change_their_dtype() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    for dtype, change in ((kiln.float16, model.half), (kiln.bfloat16, model.bfloat16), (kiln.float32, model.float)):
        assert {p.dtype for p in change().parameters()} == {dtype}
        assert model(random(dtype, 2, 3) if dtype.is_half else kiln.ones(2, 3)).dtype is dtype


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_numbers_in_arithmetic_are_float32s(dtype: DType) -> None:
    x = random(dtype, 50, 7)
    for value in (0.1, 1 / 3, 0.5, 3, 1001, 1e6):
        calls: list[Callable[[kiln.Tensor], kiln.Tensor]] = [
            lambda x, v=value: x + v,  # type: ignore[misc]
            lambda x, v=value: v - x,  # type: ignore[misc]
            lambda x, v=value: x * v,  # type: ignore[misc]
            lambda x, v=value: x / v,  # type: ignore[misc]
            lambda x, v=value: v / x,  # type: ignore[misc]
        ]
        for call in calls:
            assert same(both(call, x), call(x.float()).to(dtype))
        y = x.clone()
        y *= value
        assert same(y, x * value)
    assert not same(x * 0.1, x * kiln.full_like(x, 0.1))
    assert (kiln.tensor([0.1], dtype=dtype) == 0.1).item()  # comparisons take the rounded number, as PyTorch's do
    g = kiln.grad((x.requires_grad_() * 0.1).sum(), [x])[0]
    assert g.dtype is dtype and (g == kiln.tensor(0.1, dtype=dtype)).all()
    with pytest.raises(kiln.InvalidValueError):
        x.detach() * 10**400


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_convolution_pooling_and_scatters(dtype: DType) -> None:
    """Sums of products, of windows and of values that meet are float32's, rounded once."""
    x, w, b = random(dtype, 2, 3, 9, 8), random(dtype, 4, 3, 3, 3, seed=1), random(dtype, 4, seed=2)
    index = kiln.tensor([[0, 1, 1], [1, 0, 0]])
    values, table = random(dtype, 2, 3, seed=3), random(dtype, 2, 3, seed=4)
    operands = (x, w, b, values, table)
    calls: list[Callable[..., kiln.Tensor]] = [
        lambda x, w, b, v, t: F.conv2d(x, w, b, padding=1),
        lambda x, w, b, v, t: F.conv_transpose2d(x, w.transpose(0, 1)),
        lambda x, w, b, v, t: F.avg_pool2d(x, 3),
        lambda x, w, b, v, t: F.max_pool2d(x, 2),
        lambda x, w, b, v, t: t.scatter_add(0, index, v),
    ]
    for call in calls:
        got = both(call, *operands)
        assert same(got, call(*(t.float() for t in operands)).to(dtype))
    w.requires_grad_()
    assert kiln.grad(F.conv2d(x, w, b).sum(), [w])[0].dtype is dtype
    many = kiln.zeros(1, dtype=dtype).scatter_add(0, kiln.zeros(3000).long(), kiln.ones(3000, dtype=dtype))
    assert many.item() == 3000.0 if dtype is kiln.float16 else many.item() == 3008.0
