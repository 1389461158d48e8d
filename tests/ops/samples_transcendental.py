"""Samples of the rows of `ir/ops/transcendental.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from tests.ops.sampling import FLOATS, ErrorSample, Sample, draw, generator, layouts, specials, t

UNARY = (
    *("log1p", "log2", "log10", "exp2", "expm1", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh"),
    *("atanh", "erfc"),
)
_RANGE: dict[str, tuple[float, float]] = {  # where the derivative exists and is tame
    "log1p": (-0.6, 3),
    "log2": (0.3, 3),
    "log10": (0.3, 3),
    "tan": (-1.2, 1.2),
    "asin": (-0.8, 0.8),
    "acos": (-0.8, 0.8),
    "atanh": (-0.8, 0.8),
    "acosh": (1.3, 4),
}


def _samples(name: str) -> list[Sample]:
    found, arity = [], 1 if name in UNARY else 2
    for dtype in FLOATS:
        rng = generator(name, dtype)
        for label, make in layouts(rng, dtype):
            found.append(Sample(f"{dtype}-{label}", tuple(make() for _ in range(arity))))
        grid = np.meshgrid(*[specials(dtype)] * arity, indexing="ij")
        found.append(Sample(f"{dtype}-special", tuple(np.ascontiguousarray(g) for g in grid)))
        if arity == 2:
            found.append(Sample(f"{dtype}-mixed", (draw(rng, (6, 9), dtype).T, draw(rng, (9, 6), dtype))))
    return found


def _smooth(name: str) -> list[Sample]:
    rng = generator("smooth", name)
    low, high = _RANGE.get(name, (-2, 2))
    if name in UNARY:
        return [Sample("plain", (rng.uniform(low, high, (3, 4)),)), Sample("0-d", (rng.uniform(low, high, ()),))]
    return [Sample("plain", (rng.uniform(0.5, 2, (3, 2)), rng.uniform(-2, -0.5, (3, 2))))]


def _errors(name: str) -> list[ErrorSample]:
    arity = 1 if name in UNARY else 2
    found = [ErrorSample((t("float32", 2),) * (arity + 1), {}, "value", f"takes {arity} operand")]
    return found + [ErrorSample((t(d, 3),) * arity, {}, "dtype", f"not defined for {d}") for d in ("bool", "int64")]


NAMES = (*UNARY, "atan2")
SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_samples, name) for name in NAMES}
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_smooth, name) for name in NAMES}
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in NAMES}
