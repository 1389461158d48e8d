"""kiln.func: derivatives and batching of functions, against autograd and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln import func, nn
from kiln.autograd import functional as AF

RNG = np.random.default_rng(7)
X, W = kiln.from_numpy(RNG.normal(size=(5, 3))), kiln.from_numpy(RNG.normal(size=(3, 2)))


def loss(w: Any, x: Any) -> Any:
    return (kiln.tanh(x @ w) ** 2).sum()


def same(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)


def test_grad() -> None:
    w, x = W.clone().requires_grad_(), X.clone().requires_grad_()
    wanted = kiln.grad(loss(w, x), [w, x])
    found = func.grad(loss)(W, X)
    same(found, wanted[0])
    assert not found.requires_grad
    for got, v in zip(func.grad(loss, argnums=(0, -1))(W, X), wanted, strict=True):
        same(got, v)
    same(kiln.compile(func.grad(loss))(W, X), wanted[0])


def test_grad_of_nested_arguments_and_more_results() -> None:
    def f(p: Any, x: Any) -> Any:
        return (x @ p["w"] + p["b"]).sin().sum(), x * 2

    p = {"w": W, "b": kiln.ones(2, dtype=kiln.float64)}
    found, (value, aux) = func.grad_and_value(f, has_aux=True)(p, X)
    inner = X @ W + 1.0
    same(found["w"], X.t() @ inner.cos())
    same(found["b"], inner.cos().sum(0))
    same(value, inner.sin().sum())
    same(aux, X * 2)
    assert func.grad(f, has_aux=True)(p, X)[1].tolist() == aux.tolist()


def test_grad_of_grad() -> None:
    def slope(z: Any) -> Any:
        return func.grad(lambda y: (y**3).sum())(z).sum()

    same(func.grad(slope)(X), 6 * X)
    outer = X.clone().requires_grad_()
    func.grad(lambda y: (y**3).sum())(outer).sum().backward()
    assert outer.grad is not None
    same(outer.grad, 6 * X)
    same(func.grad(lambda x: kiln.ones(()).sum() + 0 * x.sum())(X), X * 0)


def test_products_and_jacobians() -> None:
    f = lambda w: kiln.tanh(X @ w)  # noqa: E731
    v, u = kiln.from_numpy(RNG.normal(size=(5, 2))), kiln.from_numpy(RNG.normal(size=(3, 2)))
    out, product = func.vjp(f, W)
    same(out, f(W))
    same(product(v)[0], AF.vjp(f, W, v)[1])
    same(product(2 * v)[0], 2 * AF.vjp(f, W, v)[1])
    out, pushed = func.jvp(f, (W,), (u,))
    same(pushed, AF.jvp(f, W, u)[1])
    for transform in (func.jacrev, func.jacfwd):
        same(transform(f)(W), AF.jacobian(f, W))
    a, b = func.jacrev(lambda w, x: x @ w, argnums=(0, 1))(W, X)
    assert a.shape == (5, 2, 3, 2) and b.shape == (5, 2, 5, 3)
    g = lambda w: (kiln.tanh(X @ w) ** 2).sum()  # noqa: E731
    same(func.hessian(g)(W), AF.hessian(g, W))
    found, aux = func.jacrev(lambda w: (f(w), w.sum()), has_aux=True)(W)
    assert found.shape == (5, 2, 3, 2) and aux.item() == W.sum().item()
    _, _, aux = func.vjp(lambda w: (f(w), 3), W, has_aux=True)
    assert aux == 3


def test_vmap() -> None:
    same(func.vmap(lambda a, b: (a * b).sum())(X, X), (X * X).sum(1))
    same(kiln.vmap(lambda a, w: a @ w, in_dims=(0, None), out_dims=1)(X, W), (X @ W).t())
    found = func.vmap(lambda d, c: {"s": d["a"] + c, "c": c}, in_dims=({"a": 1}, 0))({"a": W}, kiln.arange(2.0))
    same(found["s"], W.t() + kiln.arange(2.0)[:, None])
    assert found["c"].tolist() == [0, 1]
    rows = func.vmap(func.grad(loss), in_dims=(None, 0))(W, X)
    for row, x in zip(rows, X, strict=True):
        same(row, func.grad(loss)(W, x))
    same(kiln.compile(kiln.vmap(lambda a: a.cumsum(0)))(X), X.cumsum(1))
    for call, kind in (
        (lambda: kiln.vmap(lambda a, b: a)(X, W.t()[:1]), kiln.InvalidValueError),
        (lambda: kiln.vmap(lambda a: a, in_dims=(0, 0))(X), kiln.InvalidValueError),
        (lambda: kiln.vmap(lambda a: 3)(X), kiln.InvalidValueError),
        (lambda: kiln.vmap(lambda: 3)(), kiln.InvalidValueError),
    ):
        with pytest.raises(kind, match="vmap"):
            call()


def test_ensembles() -> None:
    models = [nn.Linear(3, 2).double() for _ in range(3)]
    parameters, buffers = func.stack_module_state(models)

    def call(p: Any, b: Any, x: Any) -> Any:
        return func.functional_call(models[0], (p, b), (x,))

    found = kiln.vmap(call, in_dims=(0, 0, None))(parameters, buffers, X)
    for got, model in zip(found, models, strict=True):
        same(got.detach(), model(X).detach())


@pytest.mark.parametrize(
    "call, kind",
    [
        (lambda: func.grad(lambda x: x * 2)(X), kiln.GradError),
        (lambda: func.grad(lambda x: x.sum(), argnums=1)(X), kiln.InvalidValueError),
        (lambda: func.grad(lambda x: x.sum())(kiln.tensor([1])), kiln.ArgumentError),
        (lambda: func.jvp(lambda x: x, (X,), (W,)), kiln.ShapeError),
        (lambda: func.jacrev(lambda x: x["a"])({"a": 3}), kiln.ArgumentError),
        (lambda: func.stack_module_state([]), kiln.InvalidValueError),
    ],
)
def test_refusals(call: Any, kind: Any) -> None:
    with pytest.raises(kind):
        call()
