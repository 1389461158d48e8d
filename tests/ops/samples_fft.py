"""Samples of Fourier transforms: one and several dimensions in any order, sizes odd, even, prime, one and large, empty
stacks, memory of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.sampling import COMPLEX, WIDE_FLOATS, Array, ErrorSample, Sample, draw, generator, t

Shape = tuple[int, ...]

# label, shape of the numbers (not of half spectra), dims, norm
_CASES: tuple[tuple[str, Shape, tuple[int, ...], str], ...] = (
    ("one", (1,), (0,), "one"),
    ("two", (2,), (0,), "root"),
    ("even", (3, 8), (1,), "one"),
    ("odd", (2, 9), (1,), "all"),
    ("prime", (2, 31), (1,), "one"),
    ("large", (360,), (0,), "root"),
    ("first", (6, 5), (0,), "one"),
    ("both", (4, 6), (0, 1), "root"),
    ("turned-round", (4, 5, 6), (2, 0), "all"),
    ("cube", (3, 4, 5), (0, 1, 2), "one"),
    ("no-stack", (0, 4), (1,), "one"),
)
_TYPES = {"fft": COMPLEX, "rfft": WIDE_FLOATS, "irfft": COMPLEX}


def _shape(name: str, shape: Shape, dims: tuple[int, ...]) -> Shape:
    if name != "irfft":
        return shape
    return tuple(n // 2 + 1 if d == dims[-1] else n for d, n in enumerate(shape))


def _attrs(name: str, shape: Shape, dims: tuple[int, ...], norm: str) -> list[dict[str, Any]]:
    attrs: dict[str, Any] = {"dims": dims, "norm": norm}
    if name == "fft":
        return [{**attrs, "inverse": inverse} for inverse in (False, True)]
    return [{**attrs, "size": shape[dims[-1]]} if name == "irfft" else attrs]


def _samples(name: str) -> list[Sample]:
    found = []
    for dtype in _TYPES[name]:
        rng = generator(name, dtype)
        for label, shape, dims, norm in _CASES:
            for attrs in _attrs(name, shape, dims, norm):
                x = draw(rng, _shape(name, shape, dims), dtype)
                found.append(Sample(f"{dtype}-{label}{'-inverse' * attrs.get('inverse', False)}", (x,), attrs))
        memory: dict[str, Array] = {
            "transposed": draw(rng, (6, 4), dtype).T,
            "strided": draw(rng, (8, 18), dtype)[::2, 1::3],
            "repeated": np.broadcast_to(draw(rng, (1, 6), dtype), (4, 6)),
        }
        size = 10 if name == "irfft" else 6
        for label, x in memory.items():
            found.append(Sample(f"{dtype}-{label}", (x,), _attrs(name, (4, size), (0, 1), "one")[0]))
    return found


def _smooth(name: str) -> list[Sample]:
    found = []
    for label, shape, dims, norm in _CASES:
        if label in ("one", "two", "odd", "both", "turned-round"):
            rng = generator("smooth", name, label)
            for attrs in _attrs(name, shape, dims, norm):
                x = draw(rng, _shape(name, shape, dims), _TYPES[name][1], 1.0)
                found.append(Sample(label + "-inverse" * attrs.get("inverse", False), (x,), attrs))
    return found


def _errors(name: str) -> list[ErrorSample]:
    dtype, other = _TYPES[name][0], {"rfft": "complex64"}.get(name, "float32")
    size = 6 if name == "irfft" else 4
    (attrs, *_) = _attrs(name, (3, size), (1,), "one")
    good = t(dtype, 3, 4)
    found = [
        ErrorSample((t(other, 3, 4),), attrs, "dtype", "not defined for"),
        ErrorSample((t("float16", 3, 4),), attrs, "dtype", "not defined for float16"),
        ErrorSample((good,), {**attrs, "dims": (2,)}, "dim", "no dimensions"),
        ErrorSample((good,), {**attrs, "dims": ()}, "dim", "no dimensions"),
        ErrorSample((good,), {**attrs, "dims": (1, 1)}, "dim", "no dimensions"),
        ErrorSample((good,), {**attrs, "norm": "ortho"}, "value", "norm"),
        ErrorSample((t(dtype, 0, 4),), {**attrs, "dims": (0, 1)}, "shape", "nothing to transform"),
    ]
    if name == "irfft":
        found += [
            ErrorSample((good,), {**attrs, "size": 0}, "value", "size"),
            ErrorSample((good,), {**attrs, "size": 4}, "shape", "4 numbers have 3 frequencies"),
        ]
    return found


SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: lambda name=name: _samples(name) for name in _TYPES}  # type: ignore[misc]
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: lambda name=name: _smooth(name) for name in _TYPES}  # type: ignore[misc]
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in _TYPES}
