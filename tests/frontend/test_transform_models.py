"""Ten models under grad, vmap and compile in all orders: gradients for each sample, and of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
import kiln.nn.functional as NF
from kiln import func, nn
from kiln.pytree import flatten
from tests.ops.test_declarations import same_bits

RNG = np.random.default_rng(3)
BATCH = 3


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.inner(x, x, x)[0].mean(1)


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 5)

    def forward(self, x: Any) -> Any:
        h = kiln.zeros(x.shape[0], 5)
        for k in range(x.shape[1]):
            h = self.cell(x[:, k], h)
        return h


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.inner(x)[0][:, -1]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.GroupNorm(3, 3)

    def forward(self, x: Any) -> Any:
        return NF.relu(x + self.two(NF.relu(self.norm(self.one(x))))).flatten(1)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = nn.Linear(4, 4), nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        x = x + NF.gelu(self.rows(x.transpose(1, 2))).transpose(1, 2)
        return (x + NF.silu(self.columns(x))).flatten(1)


def numbers(*shape: int) -> Any:
    return kiln.from_numpy(RNG.normal(size=(BATCH, *shape)).astype(np.float32))


MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "logistic": (lambda: nn.Linear(5, 3), lambda: numbers(5)),
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), lambda: numbers(5)),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)
        ).eval(),
        lambda: numbers(2, 6, 6),
    ),
    "attention": (Attention, lambda: numbers(4, 8)),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        lambda: numbers(4, 8),
    ),
    "cells": (Cells, lambda: numbers(3, 4)),
    "recurrent": (Recurrent, lambda: numbers(3, 4)),
    "words": (
        lambda: nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 3)),
        lambda: kiln.from_numpy(RNG.integers(0, 7, size=(BATCH, 3))),
    ),
    "residual": (Residual, lambda: numbers(3, 5, 5)),
    "mixer": (Mixer, lambda: numbers(4, 6)),
}


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, x in a.items():
        assert same_bits(x.detach().numpy(), b[name].detach().numpy()), name


@pytest.mark.parametrize("name", MODELS)
def test_all_orders(name: str) -> None:
    make, data = MODELS[name]
    kiln.manual_seed(0)
    model, xs = make(), data()
    parameters = {k: p.detach() for k, p in model.named_parameters()}
    jit = kiln.compile

    def loss(p: Any, x: Any) -> Any:
        return (func.functional_call(model, p, (x.unsqueeze(0),)) ** 2).sum()

    alone = [func.grad(loss)(parameters, x) for x in xs]
    wanted = {k: kiln.stack([each[k] for each in alone]) for k in parameters}
    dims = (None, 0)
    for transformed in (
        kiln.vmap(func.grad(loss), in_dims=dims),
        jit(kiln.vmap(func.grad(loss), in_dims=dims)),
        kiln.vmap(jit(func.grad(loss)), in_dims=dims),
        kiln.vmap(func.grad(jit(loss)), in_dims=dims),
    ):
        for _ in range(2):  # the second call of a compiled function is the program
            same(transformed(parameters, xs), wanted)

    def whole(f: Any) -> Callable[[Any, Any], Any]:
        return lambda p, x: kiln.vmap(f, in_dims=dims)(p, x).sum()

    batched = func.grad(whole(loss))(parameters, xs)
    for transformed in (jit(func.grad(whole(loss))), func.grad(jit(whole(loss))), func.grad(whole(jit(loss)))):
        for _ in range(2):
            same(transformed(parameters, xs), batched)
    for k, x in batched.items():
        np.testing.assert_allclose(x.numpy(), wanted[k].sum(0).numpy(), rtol=2e-4, atol=2e-5)


OFTEN = ("mlp", "cells")
TRANSFORMS: dict[str, Callable[[Any, Any], Callable[[Any, Any], Any]]] = {
    "grad": lambda f, v: func.grad(f),
    "grad_and_value": lambda f, v: func.grad_and_value(lambda t, x: (f(t, x), {"twice": t * 2}), has_aux=True),
    "jvp": lambda f, v: lambda t, x: func.jvp(lambda t: f(t, x), (t,), (v,)),
    "vjp": lambda f, v: lambda t, x: func.vjp(lambda t: f(t, x), t)[1](kiln.ones(()))[0],
    "linearize": lambda f, v: lambda t, x: func.linearize(lambda t: f(t, x), t)[1](v),
    "jacrev": lambda f, v: func.jacrev(f),
    "jacfwd": lambda f, v: func.jacfwd(f),
    "hessian": lambda f, v: func.hessian(f),
    "grad(grad)": lambda f, v: func.grad(lambda t, x: (func.grad(f)(t, x) * v).sum()),
    "jvp(grad)": lambda f, v: lambda t, x: func.jvp(lambda t: func.grad(f)(t, x), (t,), (v,))[1],
}


def marked() -> list[Any]:
    return [
        pytest.param(model, transform, marks=[] if model in OFTEN else [pytest.mark.slow])
        for model in MODELS
        for transform in TRANSFORMS
    ]


@pytest.mark.parametrize(("name", "transform"), marked())
def test_every_transform_with_compile_in_every_place(name: str, transform: str) -> None:
    """By a change of the model's last parameter: alone and of a batch."""
    make, data = MODELS[name]
    kiln.manual_seed(0)
    model, xs = make(), data()
    parameters = {k: p.detach() for k, p in model.named_parameters()}
    last = list(parameters)[-1]
    rng = np.random.default_rng(8)
    t, v = (kiln.from_numpy(rng.normal(size=parameters[last].shape).astype(np.float32) * 0.1) for _ in range(2))
    jit = kiln.compile

    def loss(t: Any, x: Any) -> Any:
        return (func.functional_call(model, {**parameters, last: parameters[last] + t}, (x.unsqueeze(0),)) ** 2).sum()

    def over(f: Any) -> Any:
        return TRANSFORMS[transform](f, v)

    def flat(found: Any) -> list[Any]:
        return [each.detach().numpy() for each in flatten(found)[0]]

    each = [flat(over(loss)(t, x)) for x in xs]
    wanted = [np.stack(column) for column in zip(*each, strict=True)]
    for transformed in (jit(over(loss)), over(jit(loss))):
        for _ in range(2):
            assert all(map(same_bits, flat(transformed(t, xs[0])), each[0]))
    for transformed in (
        kiln.vmap(over(loss), in_dims=(None, 0)),
        jit(kiln.vmap(over(loss), in_dims=(None, 0))),
        kiln.vmap(jit(over(loss)), in_dims=(None, 0)),
        jit(kiln.vmap(jit(over(jit(loss))), in_dims=(None, 0))),
    ):
        for _ in range(2):
            assert all(map(same_bits, flat(transformed(t, xs)), wanted))
