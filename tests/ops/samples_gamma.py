"""Samples of the rows of `ir/ops/gamma.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.sampling import FLOATS, ErrorSample, Sample, generator, layouts, specials, t

DOMAINS: dict[str, tuple[float, float]] = {
    "erfinv": (-0.8, 0.8),
    **dict.fromkeys(("lgamma", "digamma", "polygamma"), (0.3, 3.0)),
}
"""Where the function is smooth."""


def _attrs(name: str) -> list[dict[str, Any]]:
    return [{"n": 1}, {"n": 2}] if name == "polygamma" else [{}]


def _samples(name: str) -> list[Sample]:
    found = []
    for attrs in _attrs(name):
        order = "".join(f"-{n}" for n in attrs.values())
        for dtype in FLOATS:
            rng = generator(name, dtype)
            for label, make in layouts(rng, dtype):
                found.append(Sample(f"{dtype}-{label}{order}", (make(),), attrs))
            found.append(Sample(f"{dtype}-special{order}", (specials(dtype),), attrs))
    return found


def _smooth(name: str) -> list[Sample]:
    rng = generator("smooth", name)
    low, high = DOMAINS[name]
    found = []
    for attrs in _attrs(name):
        label = "".join(map(str, attrs.values())) or "plain"
        found.append(Sample(label, (rng.uniform(low, high, (3, 4)),), attrs))
    if name in ("lgamma", "digamma"):
        found.append(Sample("negative", (np.array([-0.4, -1.6, -2.3]),)))
    return found


def _errors(name: str) -> list[ErrorSample]:
    x, (attrs, *_) = t("float32", 2, 3), _attrs(name)
    found = [ErrorSample((x, x), attrs, "value", "takes 1 operand")]
    found += [ErrorSample((t(d, 3),), attrs, "dtype", f"not defined for {d}") for d in ("bool", "int64")]
    if name == "polygamma":
        found.append(ErrorSample((x,), {"n": 0}, "value", "not a positive number"))
    return found


SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_samples, name) for name in DOMAINS}
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_smooth, name) for name in DOMAINS}
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in DOMAINS}
