"""Samples of `ir/ops/series.py` and `ir/ops/incomplete.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.sampling import FLOATS, ErrorSample, Sample, draw, generator, layouts, specials, t

SERIES: dict[str, dict[str, Any]] = {
    "five": {"c": (0.5, -1.25, 0.75, 0.1, -0.03)},
    "two": {"c": (1.0, 2.0)},
}
PAIRS: dict[str, tuple[list[float], list[float]]] = {
    "gammainc": ([0.0, 1e-9, 0.2, 0.7, 3.0, 19.0, 20.0, 45.0, 700.0, 4e4],
                 [0.3, 1.0, 1.9, 2.5, 9.0, 30.0, 650.0, 4.1e4]),
    "zeta": ([1.0, 1.5, 2.0, 3.0, 11.0, 80.0], [0.0, 1e-3, 0.5, 1.0, 4.0, 300.0]),
}  # fmt: skip
PAIRS["gammaincc"] = PAIRS["gammainc"]


def _series() -> list[Sample]:
    found = []
    for label, attrs in SERIES.items():
        for dtype in FLOATS:
            rng = generator("chebyshev", dtype)
            found += [Sample(f"{dtype}-{where}-{label}", (make(),), attrs) for where, make in layouts(rng, dtype)]
            found.append(Sample(f"{dtype}-special-{label}", (specials(dtype),), attrs))
    return found


def _pairs(name: str) -> list[Sample]:
    found = []
    rng = generator(name)
    for label, make in layouts(rng, "float64"):
        x = make()
        y = np.abs(draw(rng, x.shape, "float64"))
        found.append(Sample(label, (np.asarray(np.abs(x) + (1.0 if name == "zeta" else 0.0)), np.asarray(y))))
    a, b = np.meshgrid(*PAIRS[name])
    found.append(Sample("grid", (a.copy(), b.copy())))
    edges = [-1.0, 0.0, 0.5, 1.0, 3.0, np.inf, np.nan]
    a, b = np.meshgrid(edges, edges)
    return [*found, Sample("special", (a.copy(), b.copy()))]


def _smooth(name: str) -> list[Sample]:
    rng = generator("smooth", name)
    if name == "chebyshev":
        return [Sample(label, (rng.uniform(-0.9, 0.9, (3, 4)),), attrs) for label, attrs in SERIES.items()]
    least = 1.5 if name == "zeta" else 0.3
    return [Sample("plain", (rng.uniform(least, least + 3, (3, 4)), rng.uniform(0.4, 3, (3, 4))), fixed=True)]


def _errors(name: str) -> list[ErrorSample]:
    x = t("float64", 2, 3)
    if name != "chebyshev":
        return [
            ErrorSample((x,), {}, "value", "takes 2 operands"),
            ErrorSample((x, t("float64", 3)), {}, "shape", "operands have types"),
            *(ErrorSample((t(d, 3), t(d, 3)), {}, "dtype", f"not defined for {d}") for d in ("int64", "float32")),
        ]
    return [
        ErrorSample((x, x), SERIES["two"], "value", "takes 1 operand"),
        ErrorSample((t("int64", 3),), SERIES["two"], "dtype", "not defined for int64"),
        ErrorSample((x,), {"c": (1.0,)}, "value", "not two or more floats"),
        ErrorSample((x,), {"c": (1, 2)}, "value", "not two or more floats"),
    ]


NAMES = ("chebyshev", *PAIRS)
SAMPLES: dict[str, Callable[[], list[Sample]]] = {
    "chebyshev": _series,
    **{name: functools.partial(_pairs, name) for name in PAIRS},
}
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_smooth, name) for name in NAMES}
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in NAMES}
