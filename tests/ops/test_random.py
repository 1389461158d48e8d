"""Random ops: the generator against published vectors, distributions, and dependence on the position alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kiln.ir.ops import OPS
from kiln.ir.ops.random import philox_words
from kiln.ir.types import DTYPES

Array = np.ndarray[Any, Any]
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [  # The vectors of Random123's kat_vectors file for philox4x32, 10 rounds.
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (PI, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], wanted: tuple[int, ...]) -> None:
    a, b, c, d = (np.array([x], np.uint64) for x in counter)
    assert tuple(int(w[0]) for w in philox_words((a, b, c, d), key)) == wanted


def draw(name: str, state: tuple[int, int], shape: tuple[int, ...], dtype: str) -> Array:
    return np.asarray(OPS[name].ref(np, np.array(state, np.int64), shape=shape, dtype=DTYPES[dtype]))


@pytest.mark.parametrize("name", ["uniform", "normal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_element_depends_on_its_position_alone(name: str, dtype: str) -> None:
    long = draw(name, (5, 100), (60,), dtype)
    assert (draw(name, (5, 100), (4, 15), dtype) == long.reshape(4, 15)).all()
    assert (draw(name, (5, 107), (20,), dtype) == long[7:27]).all()
    assert not (draw(name, (6, 100), (60,), dtype) == long).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_distributions(dtype: str) -> None:
    """Means and variances within five standard errors, and nothing outside the stated range."""
    n = 1 << 16
    u, z = (draw(name, (1, 0), (n,), dtype).astype(np.float64) for name in ("uniform", "normal"))
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    assert np.isfinite(z).all()
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / np.sqrt(n)
