"""Samples of `ir/ops/scan.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.sampling import ANY, MAIN, NUMERIC, Array, ErrorSample, Sample, draw, generator, specials, t

DTYPES = {"cumsum": NUMERIC, "recur": NUMERIC, "cumargmax": ANY}
SHAPES: tuple[tuple[str, tuple[int, ...], int], ...] = (
    ("line", (37,), 0),
    ("one", (1,), 0),
    ("none", (0,), 0),
    ("rows", (5, 40), 1),
    ("columns", (40, 21), 0),
    ("cube", (3, 7, 18), 1),
    ("last", (2, 3, 9), 2),
    ("first", (6, 2, 17), 0),
    ("empty", (3, 0, 2), 2),
    ("nothing", (3, 0, 2), 1),
)


def _attrs(name: str, dim: int) -> list[dict[str, Any]]:
    return [{"dim": dim}] if name == "cumargmax" else [{"dim": dim, "reverse": r} for r in (False, True)]


def _samples(name: str) -> list[Sample]:
    found, arity = [], 2 if name == "recur" else 1

    def add(label: str, operands: tuple[Array, ...], dim: int) -> None:
        for attrs in _attrs(name, dim):
            found.append(Sample(f"{label}{'-reverse' if attrs.get('reverse') else ''}", operands, attrs))

    for dtype in DTYPES[name]:
        rng = generator(name, dtype)
        for label, shape, dim in SHAPES:
            if dtype in MAIN or label in ("line", "columns", "last"):
                add(f"{dtype}-{label}", tuple(draw(rng, shape, dtype, 1.0) for _ in range(arity)), dim)
        add(f"{dtype}-transposed", tuple(draw(rng, (40, 6), dtype).T for _ in range(arity)), 1)
        add(f"{dtype}-strided", tuple(draw(rng, (8, 60), dtype)[::2, 1::3] for _ in range(arity)), 0)
        special = specials(dtype)
        grid = np.stack([np.roll(special, k) for k in range(len(special))])
        add(f"{dtype}-special", (grid, np.ascontiguousarray(grid.T))[:arity], 1)
        ties = np.repeat(draw(rng, (4, 5), dtype), 3, axis=1)
        add(f"{dtype}-ties", (ties, ties)[:arity], 1)
    return found


def _smooth(name: str) -> list[Sample]:
    rng = generator("smooth", name)
    found = []
    for shape, dim in (((3, 5), 1), ((3, 5), 0), ((1, 4), 0), ((2, 3, 2), 1)):
        for attrs in _attrs(name, dim):
            operands = tuple(rng.normal(size=shape) for _ in range(2 if name == "recur" else 1))
            found.append(Sample(f"{shape}-{dim}-{attrs['reverse']}", operands, attrs))
    return found


def _errors(name: str) -> list[ErrorSample]:
    arity, attrs = 2 if name == "recur" else 1, _attrs(name, 0)[0]
    x = t("float32", 2, 3)
    wrong = "uint32" if name == "cumargmax" else "bool"
    found = [
        ErrorSample((x,) * arity, {**attrs, "dim": 2}, "dim", "out of range"),
        ErrorSample((t("float32"),) * arity, attrs, "dim", "out of range"),
        ErrorSample((t(wrong, 3),) * arity, attrs, "dtype", "not defined"),
        ErrorSample((x,) * (arity + 1), attrs, "value", f"takes {arity} operand"),
    ]
    if arity == 2:
        found.append(ErrorSample((x, t("float64", 2, 3)), attrs, "dtype", "dtypes"))
        found.append(ErrorSample((x, t("float32", 3, 2)), attrs, "shape", "types"))
    return found


SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_samples, name) for name in DTYPES}
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_smooth, name) for name in ("cumsum", "recur")}
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in DTYPES}
