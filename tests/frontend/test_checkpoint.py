"""kiln.utils.checkpoint: gradients are those without it, bit for bit; what the function computes is not kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import kiln
from kiln import func, nn
from kiln.utils.checkpoint import checkpoint, checkpoint_sequential

kiln.manual_seed(0)
MODEL = nn.Sequential(
    nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 8), nn.GELU(), nn.BatchNorm1d(8), nn.Linear(8, 4)
)
X = kiln.randn(5, 8)


def outcome(call: Callable[[Any], Any]) -> list[Any]:
    """The result, all gradients, and where the generator is left."""
    MODEL.zero_grad()
    x = X.clone().requires_grad_()
    kiln.manual_seed(3)
    out = call(x * 1.5) + x[:, :4]
    (out * 2 + 1).pow(2).sum().backward()
    grads = [p.grad.tolist() for p in MODEL.parameters()]
    return [out.tolist(), x.grad.tolist(), *grads, kiln.rand(1).tolist()]


@pytest.mark.parametrize(
    "call",
    [
        lambda y: checkpoint(MODEL, y, use_reentrant=False),
        lambda y: checkpoint(lambda z: MODEL[3:](checkpoint(MODEL[:3], z)), y),
        lambda y: MODEL[4:](checkpoint(lambda d: MODEL[:4](d["x"]), {"x": y})),
        lambda y: checkpoint_sequential(MODEL, 3, y, use_reentrant=False),
        lambda y: checkpoint_sequential(list(MODEL), 1, y),
        lambda y: checkpoint(kiln.compile(MODEL), y),
    ],
)
def test_same_bits(call: Callable[[Any], Any]) -> None:
    for _ in range(2):
        assert outcome(call) == outcome(MODEL)


def f(z: Any, w: Any) -> tuple[Any, Any, int]:
    return z.sin() * z * w, z.exp(), 3


@pytest.mark.parametrize("plain", [False, True])
def test_several_results_and_higher_orders(plain: bool) -> None:
    w = kiln.tensor([0.3, -1.2, 0.7], requires_grad=True, dtype=kiln.float64)
    call = f if plain else lambda z, v: checkpoint(f, z, v)
    z = w * 2
    a, b, three = call(z, w)
    assert three == 3
    (first,) = kiln.grad((a * b).sum(), z, create_graph=True)
    (second,) = kiln.grad(first.sum(), w)
    x = w.detach()
    wanted = func.grad(lambda y: func.grad(lambda z: (f(z, y)[0] * f(z, y)[1]).sum())(y * 2).sum())(x)
    assert abs(second - wanted).max() < 1e-12
    a, b, _ = call(w, w)
    once = kiln.grad((a * b).sum(), w, retain_graph=True)[0].tolist()
    assert kiln.grad((a * b).sum(), w)[0].tolist() == once
    with pytest.raises(kiln.GradError, match="already walked"):
        kiln.grad(a.sum(), w)
    inner = lambda u: ((e := u.exp()), e * u)  # noqa: E731
    e, g = inner(w) if plain else checkpoint(inner, w)
    assert kiln.grad(g.sum(), e)[0].tolist() == x.tolist()


def test_nothing_is_kept() -> None:
    seen: list[Any] = []

    def g(x: Any) -> Any:
        y = x.exp()
        seen.append(weakref.ref(y))
        return y * y

    x = kiln.ones(3, requires_grad=True)
    out = checkpoint(g, x)
    gc.collect()
    assert len(seen) == 1 and seen[0]() is None
    out.sum().backward()
    assert len(seen) == 2 and seen[1]() is None
    assert x.grad.tolist() == (2 * kiln.ones(3).exp() * kiln.ones(3).exp()).tolist()


def test_where_nothing_is_computed_again() -> None:
    calls: list[int] = []

    def g(x: Any) -> Any:
        calls.append(1)
        return x * x

    with kiln.no_grad():
        checkpoint(g, X)
    assert checkpoint(lambda x: (x, 4), X)[0] is X
    assert len(calls) == 1
    assert kiln.vmap(func.grad(lambda x: checkpoint(g, x).sum()))(X).tolist() == (2 * X).tolist()
    compiled = kiln.compile(func.grad(lambda x: checkpoint(lambda y: y * y, x).sum()))
    assert compiled(X).tolist() == (2 * X).tolist()


def test_contexts() -> None:
    log: list[str] = []

    class Noted:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            log.append(self.name)

        def __exit__(self, *_: object) -> None:
            log.append(f"end {self.name}")

    x = X.clone().requires_grad_()
    out = checkpoint(lambda y: y.exp(), x, use_reentrant=False, context_fn=lambda: (Noted("first"), Noted("again")))
    assert log == ["first", "end first"]
    out.sum().backward()
    assert log[2:] == ["again", "end again"]


def test_refused() -> None:
    sizes = iter((3, 2, 2))
    x = X.clone().requires_grad_()
    out = checkpoint(lambda y: y[: next(sizes)] * 2, x)
    with pytest.raises(kiln.GradError, match="called again"):
        out.sum().backward()
    y = kiln.ones(3)
    out = checkpoint(lambda a, b: a * b, x[0, :3], y)
    y.add_(1)
    with pytest.raises(kiln.GradError, match="modified in place"):
        out.sum().backward()
    others = [x * 1, x.clone()]
    out = checkpoint(lambda: others.pop() * 2)
    with pytest.raises(kiln.GradError, match="other tensors"):
        out.sum().backward()
    for call, kind in (
        (lambda: checkpoint(f, x, use_reentrant=True, w=x), kiln.ArgumentError),
        (lambda: checkpoint(f, x, x, determinism_check="some"), kiln.InvalidValueError),
        (lambda: checkpoint_sequential(MODEL, 0, x), kiln.InvalidValueError),
        (lambda: checkpoint_sequential(MODEL, 2, x, bad=1), kiln.ArgumentError),
    ):
        with pytest.raises(kind):
            call()
