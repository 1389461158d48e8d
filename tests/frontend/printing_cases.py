"""Tensors to print, with options: what PyTorch prints for them stands in tests/golden/printing.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

OPTIONS: tuple[dict[str, Any], ...] = (
    {"profile": "default"},
    {"profile": "default", "precision": 2, "sci_mode": True},
    {"profile": "short"},
    {"profile": "full", "linewidth": 50},
    {"profile": "default", "threshold": 5, "edgeitems": 1},
    {"profile": "default", "sci_mode": False},
    {"profile": "default"},
)


def _data(kind: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    normal = rng.standard_normal(shape)
    if kind == 0:
        return np.asarray(normal)
    if kind == 1:
        return np.round(normal * 100)
    if kind == 2:
        return np.asarray(normal * 10.0 ** rng.integers(-9, 9))
    if kind == 3:
        return np.asarray(rng.integers(-1000, 1000, shape))
    if kind == 4:
        return np.asarray(normal > 0)
    if kind == 5:
        with_nan = np.where(rng.random(shape) < 0.2, np.nan, normal)
        return np.where(rng.random(shape) < 0.2, -np.inf, with_nan)
    if kind == 6:
        return np.zeros(shape)
    return np.round(normal * 10.0 ** rng.integers(1, 10))


def texts(library: Any) -> Iterator[str]:
    """What a library with PyTorch's names prints."""
    rng = np.random.default_rng(0)
    for i in range(140):
        shape = tuple(int(n) for n in rng.integers(0 if i % 7 == 0 else 1, 7, rng.integers(0, 4)))
        if i % 20 == 0:
            shape = (int(rng.integers(900, 1100)),) if i % 7 != 3 else (30,)
        if i % 20 == 1:
            shape = (40, int(rng.integers(26, 40)))
        if i % 20 == 2:
            shape = (4, 8, int(rng.integers(32, 40)))
        data = _data(i % 8, shape, rng)
        if data.dtype == np.float64 and i % 3:
            data = data.astype(np.float32)
        options = OPTIONS[i % len(OPTIONS)]
        if options.get("profile") == "full" and data.size > 60:
            options = OPTIONS[0]
        library.set_printoptions(**options)
        t = library.tensor(data)
        if i % 5 == 0 and data.dtype.kind == "f":
            t.requires_grad_()
            if i % 2:
                t = t * 1
        yield repr(t)
    yield from _complex_texts(library, rng)
    library.set_printoptions(profile="default")


def _complex_texts(library: Any, rng: np.random.Generator) -> Iterator[str]:
    for i in range(42):
        shape = tuple(int(n) for n in rng.integers(0 if i % 7 == 0 else 1, 7, rng.integers(0, 4)))
        shape = (1100,) if i == 20 else shape
        data = np.empty(shape, np.complex128 if i % 3 else np.complex64)
        data.real, data.imag = _data(i % 8, shape, rng), _data((i + i // 8) % 8, shape, rng)
        library.set_printoptions(**OPTIONS[i % len(OPTIONS)] if data.size < 60 else OPTIONS[0])
        t = library.tensor(data)
        yield repr(t.requires_grad_() if i % 5 == 0 else t)
