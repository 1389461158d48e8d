"""Transforms of transforms, in forward and reverse mode, compiled and not, with writes in place and closures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
import kiln.autograd.forward_ad as fwAD
from kiln import func, nn
from kiln.autograd import functional as AF
from tests.ops.test_declarations import same_bits

RNG = np.random.default_rng(5)
X, V = (kiln.from_numpy(RNG.normal(size=(4, 3))) for _ in range(2))
x0, v0, v1 = X[0], V[0], V[1]


def f(x: Any) -> Any:
    return (x.sin() * x.exp()).sum()


def first(x: Any) -> Any:
    return x.exp() * (x.sin() + x.cos())


def second(x: Any) -> Any:
    return 2 * x.exp() * x.cos()


def cubes(x: Any) -> Any:
    return kiln.vmap(lambda t: t**3)(x).sum()


def written(x: Any) -> Any:
    y = x.clone()
    y.mul_(x)
    y[0] = x[1] * 2
    y[1:] += 1
    z = kiln.zeros_like(x)
    z[:2] = y[:2]
    z[2] = x[0] * x[1]
    z.view(3, 1).mul_(2)
    return (z * z * y).sum()


H = kiln.diag(second(x0))
CASES: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "jvp(grad)": (lambda x: func.jvp(func.grad(f), (x,), (v0,))[1], x0, second(x0) * v0),
    "grad(jvp)": (func.grad(lambda x: func.jvp(f, (x,), (v0,))[1]), x0, second(x0) * v0),
    "grad(grad)": (func.grad(lambda x: func.grad(f)(x).sum()), x0, second(x0)),
    "jvp(jvp)": (
        lambda x: func.jvp(lambda y: func.jvp(f, (y,), (v0,))[1], (x,), (v1,))[1], x0, (second(x0) * v0 * v1).sum()
    ),
    "jacfwd(jacfwd)": (func.jacfwd(func.jacfwd(f)), x0, H),
    "jacrev(jacrev)": (func.jacrev(func.jacrev(f)), x0, H),
    "jacfwd(jacrev)": (func.hessian(f), x0, H),
    "jacrev(jacfwd)": (func.jacrev(func.jacfwd(f)), x0, H),
    "vmap(hessian)": (kiln.vmap(func.hessian(f)), X, kiln.stack([kiln.diag(second(x)) for x in X])),
    "vmap(vmap(grad))": (kiln.vmap(kiln.vmap(func.grad(lambda t: t**3))), X, 3 * X * X),
    "vmap(grad(vmap))": (kiln.vmap(func.grad(cubes)), X, 3 * X * X),
    "grad(vmap(grad))": (func.grad(lambda x: kiln.vmap(func.grad(lambda t: t**3))(x).sum()), x0, 6 * x0),
    "jvp(vmap)": (lambda x: func.jvp(kiln.vmap(f), (x,), (V,))[1], X, (first(X) * V).sum(1)),
    "vmap(jvp)": (
        lambda x: kiln.vmap(lambda a, b: func.jvp(f, (a,), (b,))[1])(x, V), X, (first(X) * V).sum(1)
    ),
    "vmap(linearize)": (
        lambda x: kiln.vmap(lambda a, b: func.linearize(f, a)[1](b))(x, V), X, (first(X) * V).sum(1)
    ),
    "vmap(vjp)": (lambda x: kiln.vmap(lambda a, b: func.vjp(kiln.sin, a)[1](b)[0])(x, V), X, X.cos() * V),
    "closure of grad": (
        func.grad(lambda x: func.grad(lambda y: (x * y * y).sum())(v0).sum()), x0, 2 * v0
    ),
    "closure of jvp": (
        lambda x: func.jvp(lambda y: y * func.jvp(lambda z: y + z, (v1,), (v0,))[1], (x,), (v1,))[1], x0, v0 * v1
    ),
    "grad(written)": (func.grad(written), x0, AF.vjp(written, x0)[1]),
    "vmap(grad(written))": (kiln.vmap(func.grad(written)), X, kiln.stack([AF.vjp(written, x)[1] for x in X])),
    "jvp(written)": (lambda x: func.jvp(written, (x,), (v0,))[1], x0, (AF.vjp(written, x0)[1] * v0).sum()),
    "hessian(written)": (func.hessian(written), x0, AF.hessian(written, x0)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_composed(name: str) -> None:
    function, at, wanted = CASES[name]
    found = function(at)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-11, atol=1e-13)
    assert not found.requires_grad
    compiled = kiln.compile(function)
    for _ in range(2):
        assert same_bits(compiled(at).numpy(), found.numpy())


@pytest.mark.parametrize("name", ["hessian", "grad", "jacrev", "jacfwd", "linearize"])
def test_of_compiled_functions(name: str) -> None:
    transforms: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
        "hessian": func.hessian,
        "grad": func.grad,
        "jacrev": func.jacrev,
        "jacfwd": func.jacfwd,
        "linearize": lambda g: lambda x: func.linearize(g, x)[1](v0),
    }
    transform = transforms[name]
    compiled = kiln.compile(f)
    for _ in range(2):
        assert same_bits(transform(compiled)(x0).numpy(), transform(f)(x0).numpy())
    for g in (kiln.vmap(kiln.compile(transform(f))), kiln.vmap(transform(compiled))):
        assert same_bits(g(X).numpy(), np.stack([transform(f)(x).numpy() for x in X]))


def test_histories_outside() -> None:
    """What the function closes over keeps its own gradients, through every transform."""
    for call, wanted in (
        (lambda w: func.grad(lambda y: (w * w * y).sum())(v0).sum(), 2 * x0),
        (lambda w: kiln.vmap(func.grad(lambda y: (w * w * y).sum()))(X).sum(), 8 * x0),
        (lambda w: func.jvp(lambda x: (w * x * x).sum(), (v1,), (v0,))[1], 2 * v0 * v1),
        (lambda w: func.jacrev(lambda x: w * x)(v0).sum(), kiln.ones(3)),
        (lambda w: func.jacfwd(lambda x: w * x)(v0).sum(), kiln.ones(3)),
        (lambda w: func.linearize(lambda x: w * x, v1)[1](v0).sum(), v0),
        (lambda w: func.vjp(lambda x: w * x, v1)[1](v0)[0].sum(), v0),
    ):
        w = x0.clone().requires_grad_()
        call(w).backward()
        np.testing.assert_allclose(w.grad.numpy(), wanted.numpy(), rtol=1e-12)


def test_nests() -> None:
    p = {"a": x0, "b": v0[:2]}
    g = lambda p: {"o": p["a"] * p["b"].sum()}  # noqa: E731
    for transform in (func.jacrev, func.jacfwd):
        found = transform(g)(p)["o"]
        assert found["a"].shape == (3, 3) and found["b"].shape == (3, 2)
        pair = transform(lambda a, b: (a * b, b.sum()), argnums=(0, 1))(x0, v0)
        assert [t.shape for each in pair for t in each] == [(3, 3), (3, 3), (3,), (3,)]
        value, aux = transform(lambda a: (a * a, a + 1), has_aux=True)(x0)
        assert value.tolist() == kiln.diag(2 * x0).tolist() and aux.tolist() == (x0 + 1).tolist()
    h = func.hessian(lambda a, b: (a * b).sum(), argnums=(0, 1))(x0, v0)
    assert h[0][1].tolist() == kiln.eye(3).tolist() and h[1][1].tolist() == kiln.zeros(3, 3).tolist()
    assert func.jacrev(lambda x: x**2, chunk_size=2)(x0).tolist() == kiln.diag(2 * x0).tolist()
    assert func.jacrev(lambda x: x * 2)(X[:0]).shape == func.jacfwd(lambda x: x * 2)(X[:0]).shape == (0, 3, 0, 3)
    noise = func.jacfwd(lambda x: x * kiln.rand(3, dtype=kiln.float64), randomness="same")(x0)
    assert np.count_nonzero(noise.numpy()) == 3


def test_linearize() -> None:
    calls = []

    def g(x: Any) -> Any:
        calls.append(1)
        return {"s": x.sin() * x, "one": kiln.ones(2)}

    out, linear = func.linearize(g, x0)
    for v in (v0, v1, 2 * v0):
        assert linear(v)["s"].tolist() == func.jvp(lambda x: x.sin() * x, (x0,), (v,))[1].tolist()
        assert linear(v)["one"].tolist() == [0.0, 0.0]
    assert len(calls) == 1 and out["s"].tolist() == (x0.sin() * x0).tolist()
    w = X[1].clone()
    stale = func.linearize(lambda x: x * w, x0)[1]
    w.add_(1)
    with pytest.raises(kiln.GradError, match="modified in place"):
        stale(v0)
    with pytest.raises(kiln.errors.TransformError, match="in-place"):
        func.linearize(written, x0)


def test_jacobian_strategies() -> None:
    g = lambda a, b: (a.sin() * b, (a * b).sum())  # noqa: E731
    wanted = AF.jacobian(g, (x0, v0))
    for found in (
        AF.jacobian(g, (x0, v0), vectorize=True),
        AF.jacobian(g, (x0, v0), vectorize=True, strategy="forward-mode"),
    ):
        for row, known in zip(found, wanted, strict=True):
            for a, b in zip(row, known, strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
    assert AF.jacobian(kiln.sin, x0, vectorize=True, strategy="forward-mode").tolist() == kiln.diag(x0.cos()).tolist()
    with pytest.raises(kiln.InvalidValueError):
        AF.jacobian(kiln.sin, x0, strategy="sideways")
    with pytest.raises(kiln.InvalidValueError):
        AF.jacobian(kiln.sin, x0, strategy="forward-mode")


def test_batched_gradients() -> None:
    x = x0.clone().requires_grad_()
    (found,) = kiln.grad(x * x, x, kiln.eye(3, dtype=kiln.float64), is_grads_batched=True)
    assert found.tolist() == kiln.diag(2 * x0).tolist()
    y = v0.clone().requires_grad_()
    used, unused = kiln.grad(
        x * 2, (x, y), kiln.eye(3, dtype=kiln.float64), is_grads_batched=True, allow_unused=True
    )  # fmt: skip
    assert used.tolist() == (2 * kiln.eye(3)).tolist() and unused is None


def test_dual_levels() -> None:
    model = nn.Linear(3, 2).double()
    with fwAD.dual_level():
        x = fwAD.make_dual(x0, v0)
        primal, tangent = fwAD.unpack_dual(f(x))
        assert primal.tolist() == f(x0).tolist()
        np.testing.assert_allclose(tangent.numpy(), (first(x0) * v0).sum().numpy(), rtol=1e-12)
        moved = fwAD.unpack_dual(model(x)).tangent
        moved.sum().backward()  # the tangent has a history of its own
        assert fwAD.unpack_dual(x0) == (x0, None)
        assert x.tolist() == x0.tolist()
        with pytest.raises(kiln.GradError, match="do not nest"):
            fwAD.enter_dual_level()
        with pytest.raises(kiln.ShapeError):
            fwAD.make_dual(x0, v0[:2])
        with pytest.raises(kiln.DTypeError):
            fwAD.make_dual(x0, v0.float())
    np.testing.assert_allclose(moved.detach().numpy(), (v0 @ model.weight.detach().t()).numpy(), rtol=1e-12)
    np.testing.assert_allclose(model.weight.grad.numpy(), np.stack([v0.numpy()] * 2), rtol=1e-12)
    for call in (lambda: fwAD.make_dual(x0, v0), lambda: fwAD.unpack_dual(x0), fwAD.exit_dual_level):
        with pytest.raises(kiln.GradError):
            call()
    with pytest.raises(kiln.errors.TransformError, match="over"):
        x + 1


@pytest.mark.parametrize(
    "call, kind",
    [
        (lambda: func.jvp(f, x0, v0), kiln.ArgumentError),
        (lambda: func.jvp(f, (x0,), (v0, v0)), kiln.ArgumentError),
        (lambda: func.jvp(f, (x0,), (v0.float(),)), kiln.ShapeError),
        (lambda: func.jvp(lambda x: 3, (x0,), (v0,)), kiln.ArgumentError),
        (lambda: func.jvp(lambda x: kiln.ones(2), (x0,), (v0,), strict=True), kiln.GradError),
        (lambda: func.jvp(lambda x: (v0 * 0).add_(x), (x0,), (v0,)), kiln.errors.TransformError),
        (lambda: func.jvp(lambda x: kiln.nextafter(x, x + 1), (x0,), (v0,)), kiln.GradError),
        (lambda: func.vjp(lambda x: 3, x0), kiln.ArgumentError),
        (lambda: func.vjp(lambda x: (x, x), x0)[1](v0), kiln.ShapeError),
        (lambda: func.linearize(f, x0)[1](v0, v0), kiln.ArgumentError),
        (lambda: func.grad(f, has_aux=True)(x0), kiln.InvalidValueError),
        (lambda: func.jacfwd(f, argnums=2)(x0), kiln.InvalidValueError),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: Any) -> None:
    with pytest.raises(kind):
        call()
