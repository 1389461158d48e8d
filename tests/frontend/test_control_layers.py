"""cond, while_loop and scan inside transforms, against a call for each element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import func
from tests.ops.test_declarations import same_bits

RNG = np.random.default_rng(8)
X, V = (kiln.from_numpy(RNG.normal(size=(4, 3))) for _ in range(2))
WHOLE = kiln.tensor(True)


def chosen(x: Any) -> Any:
    return kiln.cond(x.sum() > 0, lambda a: a * 2, lambda a: a.sin(), (x,))


def whole(x: Any) -> Any:
    return kiln.cond(WHOLE, lambda a: a * 2, lambda a: a.sin(), (x,))


def doubled(x: Any) -> Any:
    return kiln.while_loop(lambda n, a: a.abs().sum() < 9, lambda n, a: (n + 1, a * 1.5), (kiln.zeros(()), x))[1]


def fixed(x: Any) -> Any:
    return kiln.while_loop(lambda n, a: n < 3, lambda n, a: (n + 1, a.sin()), (kiln.tensor(0), x))[1]


def scanned(x: Any) -> Any:
    carry, ys = kiln.scan(lambda c, y: (c + y, {"y": c * y}), x[0], x, reverse=True)
    return ys["y"] + carry


def none(x: Any) -> Any:
    carry, ys = kiln.scan(lambda c, y: (c + y, c * y), x[0], x[:0])
    return kiln.cat([carry[None], ys])


CALLS: dict[str, Callable[[Any], Any]] = {
    f.__name__: f for f in (chosen, whole, doubled, fixed, scanned, none)
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_under_transforms(name: str) -> None:
    f = CALLS[name]
    wanted = np.stack([f(x).numpy() for x in X])
    assert same_bits(kiln.vmap(f)(X).numpy(), wanted)
    slope = func.grad(lambda x: f(x).sum())
    each = np.stack([slope(x).numpy() for x in X])
    np.testing.assert_allclose(kiln.vmap(slope)(X).numpy(), each, rtol=1e-12)
    np.testing.assert_allclose(func.grad(lambda x: kiln.vmap(f)(x).sum())(X).numpy(), each, rtol=1e-12)
    pushed = kiln.vmap(lambda x, v: func.jvp(lambda y: f(y).sum(), (x,), (v,))[1])(X, V)
    np.testing.assert_allclose(pushed.numpy(), (each * V.numpy()).sum(1), rtol=1e-12)


@pytest.mark.parametrize("name", ["chosen", "scanned"])
def test_compiled(name: str) -> None:
    f = CALLS[name]
    compiled = kiln.compile(kiln.vmap(f))
    for _ in range(2):
        assert same_bits(compiled(X).numpy(), kiln.vmap(f)(X).numpy())


def test_branches_must_agree() -> None:
    with pytest.raises(kiln.ShapeError, match="cond"):
        kiln.vmap(lambda x: kiln.cond(x.sum() > 0, lambda a: a, lambda a: a.sum(), (x,)))(X)
