"""Complex tensors: against NumPy on awkward memory, compiled as eager, gradients by differences of real functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.checking import Array, agrees, differentiates

DTYPES = ("complex64", "complex128")
T = kiln.Tensor


def numbers(shape: tuple[int, ...], dtype: str = "complex128", seed: int = 0) -> Array:
    rng = np.random.default_rng([seed, *shape])
    return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


MOVES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "transpose": (lambda t: t.T, lambda a: a.T),
    "flip": (lambda t: t.flip(0), lambda a: np.flip(a, 0)),
    "slice": (lambda t: t[1:, ::2], lambda a: a[1:, ::2]),
    "reshape": (lambda t: t.t().reshape(-1), lambda a: a.T.reshape(-1)),
    "cat": (lambda t: kiln.cat([t, t * 2], 1), lambda a: np.concatenate([a, a * 2], 1)),
    "stack": (lambda t: kiln.stack([t, t]), lambda a: np.stack([a, a])),
    "expand": (lambda t: t.expand(3, *t.shape).clone(), lambda a: np.broadcast_to(a, (3, *a.shape)).copy()),
    "where": (lambda t: kiln.where(t.real > 0, t, 0), lambda a: np.where(a.real > 0, a, 0).astype(a.dtype)),
    "index": (lambda t: t[:, kiln.tensor([1, 0, 1])], lambda a: a[:, [1, 0, 1]]),
    "roll": (lambda t: kiln.roll(t, 3, 1), lambda a: np.roll(a, 3, 1)),
    "tril": (kiln.tril, np.tril),
    "repeat": (lambda t: t.repeat(2, 3), lambda a: np.tile(a, (2, 3))),
    "conj": (kiln.conj, np.conj),
    "mH": (lambda t: t.mH, lambda a: a.T.conj()),
    "real": (lambda t: t.real.clone(), lambda a: a.real.copy()),
    "imag": (lambda t: t.imag * 1, lambda a: a.imag.copy()),
    "view_as_real": (lambda t: kiln.view_as_real(t) * 1, lambda a: np.stack([a.real, a.imag], -1)),
    "complex": (lambda t: kiln.complex(t.imag, t.real), lambda a: (a.imag + 1j * a.real).astype(a.dtype)),
    "neg": (lambda t: -t, np.negative),
    "add": (lambda t: t + (1 - 2j), lambda a: a + a.dtype.type(1 - 2j)),
    "sub": (lambda t: 1 - t, lambda a: 1 - a),
    "eq": (lambda t: t == t.conj(), lambda a: a == a.conj()),
    "ne": (lambda t: t != t.flip(0), lambda a: a != np.flip(a, 0)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(MOVES))
def test_what_is_exact(name: str, dtype: str) -> None:
    ours, theirs = MOVES[name]
    for a in (numbers((4, 6), dtype), numbers((35, 4), dtype).T, numbers((6, 12), dtype)[::2, 1::3]):
        agrees(ours, theirs, a)


@pytest.mark.parametrize("name", sorted(set(MOVES) - {"eq", "ne"}))
def test_gradients_of_moves(name: str) -> None:
    differentiates(MOVES[name][0], numbers((4, 5)))
