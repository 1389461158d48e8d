"""`autograd.Function` under transforms: its backward is its derivative there too, forward mode included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import func
from kiln.autograd import Function

RNG = np.random.default_rng(9)
X, V = (kiln.from_numpy(RNG.normal(size=(4, 3))) for _ in range(2))
W = kiln.from_numpy(RNG.normal(size=3))


class Cube(Function):
    """x**3 * w, with saved operands."""

    @staticmethod
    def forward(x: Any, w: Any) -> Any:
        return x**3 * w

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, w = ctx.saved_tensors
        return g * 3 * x**2 * w, g * x**3


class Exp(Function):
    """exp, with a saved result; and a count that has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = x.exp()
        ctx.save_for_backward(y)
        count = (x > 0).sum()
        ctx.mark_non_differentiable(count)
        return y, count

    @staticmethod
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        (y,) = ctx.saved_tensors
        return g * y


class Through(Function):
    """sign whose gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g


def own(x: Any, w: Any = W) -> Any:
    return (Cube.apply(x, w) * Exp.apply(x)[0]).sum()


def plain(x: Any, w: Any = W) -> Any:
    return (x**3 * w * x.exp()).sum()


CASES: dict[str, tuple[Callable[[Any], Callable[[Any], Any]], Any]] = {
    "vmap": (kiln.vmap, X),
    "grad": (func.grad, W),
    "vmap(grad)": (lambda f: kiln.vmap(func.grad(f)), X),
    "vmap(grad by what is whole)": (lambda f: lambda x: kiln.vmap(func.grad(f, 1), (0, None))(x, W), X),
    "grad(vmap)": (lambda f: func.grad(lambda x: kiln.vmap(f)(x).sum()), X),
    "grad by what is whole(vmap)": (lambda f: func.grad(lambda w: kiln.vmap(f, (0, None))(X, w).sum()), W),
    "jvp": (lambda f: lambda x: func.jvp(f, (x,), (V,))[1], X),
    "linearize": (lambda f: lambda x: func.linearize(f, x)[1](V), X),
    "hessian": (func.hessian, W),
    "jacrev(jacrev)": (lambda f: func.jacrev(func.jacrev(f)), W),
    "jacfwd(jacfwd)": (lambda f: func.jacfwd(func.jacfwd(f)), W),
    "jacrev(jacfwd)": (lambda f: func.jacrev(func.jacfwd(f)), W),
    "vmap(hessian)": (lambda f: kiln.vmap(func.hessian(f)), X),
    "grad(vmap(grad))": (lambda f: func.grad(lambda x: kiln.vmap(func.grad(f))(x).sum()), X),
    "grad(jvp)": (lambda f: func.grad(lambda x: func.jvp(f, (x,), (V,))[1]), X),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str) -> None:
    transform, at = CASES[name]
    wanted = transform(plain)(at).numpy()
    np.testing.assert_allclose(transform(own)(at).numpy(), wanted, rtol=1e-10, atol=1e-12)
    compiled = kiln.compile(transform(own))
    for _ in range(2):
        np.testing.assert_allclose(compiled(at).numpy(), wanted, rtol=1e-10, atol=1e-12)


def test_nested_batches() -> None:
    def each(w: Any, f: Any) -> Any:
        return kiln.vmap(lambda row: kiln.vmap(lambda x: f(x, w))(row).sum())(X).sum()

    for transform in (func.grad, lambda g: func.jacfwd(func.grad(g))):
        found = transform(lambda w: each(w, lambda x, v: Cube.apply(x * v, v)))(W[0])
        wanted = transform(lambda w: each(w, lambda x, v: (x * v) ** 3 * v))(W[0])
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-10)


def test_the_backward_counts() -> None:
    assert func.jvp(Through.apply, (X,), (V,))[1].tolist() == V.tolist()
    assert kiln.vmap(func.grad(lambda x: (Through.apply(x) * 2).sum()))(X).tolist() == kiln.full((4, 3), 2.0).tolist()
    assert kiln.vmap(lambda x: Exp.apply(x)[1])(X).tolist() == (X > 0).sum(1).tolist()


def test_refused() -> None:
    class Dirty(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(2)

    with pytest.raises(kiln.errors.TransformError, match="mark_dirty"):
        kiln.vmap(lambda x: Dirty.apply(x.clone()))(X)
