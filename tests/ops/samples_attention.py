"""Samples of attention and its gradient: masks, causal, shared heads, lengths that fill no tile, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kiln.ir.ops import OPS
from kiln.ir.ops.attention import FLOATS, totals
from kiln.ir.types import DTYPES
from tests.ops.sampling import Array, ErrorSample, Sample, draw, generator, t

Attrs = dict[str, Any]
Shape = tuple[int, ...]


def attrs(scale: float = 0.5, causal: bool = False, repeat: int = 1) -> Attrs:
    return {"scale": scale, "causal": causal, "repeat": repeat}


# label, (N, G, L, S, D, V), attributes, mask
_CASES: tuple[tuple[str, Shape, Attrs, str], ...] = (
    ("plain", (2, 3, 5, 7, 4, 6), attrs(), ""),
    ("causal", (1, 2, 70, 40, 8, 8), attrs(0.35, True), ""),
    ("groups", (2, 1, 4, 9, 3, 3), attrs(repeat=3), ""),
    ("bools", (1, 2, 6, 5, 8, 8), attrs(), "bool"),
    ("numbers", (2, 1, 3, 66, 16, 16), attrs(repeat=2), "float"),
    ("nothing-seen", (1, 1, 4, 3, 2, 2), attrs(), "none"),
    ("no-keys", (1, 2, 3, 0, 4, 4), attrs(), ""),
    ("no-queries", (1, 2, 0, 3, 4, 4), attrs(), ""),
    ("no-batch", (0, 2, 3, 3, 4, 4), attrs(causal=True), ""),
    ("backwards", (1, 1, 3, 4, 5, 2), attrs(-0.7), ""),
    ("wide", (1, 1, 3, 5, 72, 136), attrs(0.1, True), ""),
)


def _mask(kind: str, shape: Shape, dtype: str, *seed: object) -> list[Array]:
    rng = generator("mask", *seed)
    if not kind:
        return []
    if kind == "float":
        numbers = draw(rng, shape, dtype)
        numbers[..., ::5] = -np.inf
        return [numbers]
    seen = draw(rng, shape, "bool") if kind == "bool" else np.ones(shape, bool)
    seen[:, :, 0] = kind == "bool"  # one query sees all, or nothing
    return [seen]


def _operands(name: str, dtype: str, case: tuple[str, Shape, Attrs, str], spread: float = 1.0) -> tuple[Array, ...]:
    label, (n, g, rows, columns, d, width), given, kind = case
    rng = generator("attention", dtype, label)
    heads = g * given["repeat"]
    q, k = draw(rng, (n, heads, rows, d), dtype, spread), draw(rng, (n, g, columns, d), dtype, spread)
    v, mask = draw(rng, (n, g, columns, width), dtype, spread), _mask(kind, (n, heads, rows, columns), dtype, label)
    if name == "attention":
        return (q, k, v, *mask)
    grad = draw(rng, (n, heads, rows, width), dtype, spread)
    _, lse = OPS["attention"].ref(np, q, k, v, *mask, **given)
    delta = draw(rng, (n, heads, rows), totals(DTYPES[dtype]).name, spread)
    return (q, k, v, grad, np.asarray(lse), delta, *mask)


def _samples(name: str) -> list[Sample]:
    found = []
    for dtype in FLOATS:
        for case in _CASES if dtype in ("float32", "bfloat16") else _CASES[:5]:
            found.append(Sample(f"{dtype}-{case[0]}", _operands(name, dtype, case), case[2]))
    plain = _operands(name, "float32", ("strided", (2, 4, 6, 6, 8, 8), attrs(), ""))
    turned = [np.ascontiguousarray(np.swapaxes(x, 1, 2)).swapaxes(1, 2) for x in plain[:4]]
    found.append(Sample("float32-turned", (*turned[: len(plain)], *plain[4:]), attrs(0.3)))
    columns = [np.ascontiguousarray(np.swapaxes(x, 2, 3)).swapaxes(2, 3) for x in plain[:3]]
    found.append(Sample("float32-columns", (*columns, *plain[3:]), attrs(0.3, True)))
    q = plain[0]
    mask = np.broadcast_to(draw(generator("row"), (1, 1, 1, 6), "bool"), (2, 4, 6, 6))
    found.append(Sample("float32-one-mask", (*plain, mask), attrs(0.3)))
    one = np.broadcast_to(plain[1][:, :1], q.shape)
    found.append(Sample("float32-one-head", (q, one, one, *plain[3:]), attrs(0.3)))
    return found


def _smooth(name: str) -> list[Sample]:
    cases = [
        ("plain", (1, 2, 3, 4, 3, 2), attrs(0.6), ""),
        ("causal", (1, 1, 4, 3, 2, 3), attrs(0.6, True), ""),
        ("groups", (1, 1, 2, 3, 2, 2), attrs(0.6, repeat=2), ""),
        ("bools", (1, 1, 3, 3, 2, 2), attrs(0.6), "none"),
    ]
    return [Sample(case[0], _operands(name, "float64", case, 0.8), case[2]) for case in cases]


_NAMES = ("attention", "attention_backward")
SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: lambda name=name: _samples(name) for name in _NAMES}  # type: ignore[misc]
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: lambda name=name: _smooth(name) for name in _NAMES}  # type: ignore[misc]

_Q, _K = t("float32", 1, 2, 3, 4), t("float32", 1, 2, 5, 4)
_WRONG = (
    ((t("int64", 1, 2, 3, 4), _K, _K), attrs(), "dtype", "is not defined for int64"),
    ((_Q, _K, t("float64", 1, 2, 5, 4)), attrs(), "dtype", "operands have dtypes"),
    ((_Q, t("float32", 2, 5, 4), _K), attrs(), "shape", "takes tensors"),
    ((_Q, _K, t("float32", 1, 2, 6, 4)), attrs(), "shape", "are no queries, keys and values"),
    ((_Q, _K, _K), attrs(repeat=2), "shape", "has not 2 times the heads"),
    ((t("float32", 1, 2, 3, 300), t("float32", 1, 2, 3, 300), t("float32", 1, 2, 3, 4)), attrs(), "value", "not 300"),
)
ERRORS: dict[str, list[ErrorSample]] = {
    "attention": (
        *(ErrorSample(types, given, kind, match) for types, given, kind, match in _WRONG),
        ErrorSample((_Q, _K), attrs(), "value", "takes 3 or 4 operands"),
        ErrorSample((_Q, _K, _K, t("int64", 1, 2, 3, 5)), attrs(), "dtype", "a mask holds bools or float32"),
        ErrorSample((_Q, _K, _K, t("bool", 1, 2, 3, 4)), attrs(), "shape", "is no mask"),
    ),
    "attention_backward": (
        ErrorSample((_Q, _K, _K), attrs(), "value", "takes 6 or 7 operands"),
        ErrorSample((_Q, _K, _K, _K, *[t("float32", 1, 2, 3)] * 2), attrs(), "shape", "is no gradient"),
        ErrorSample((_Q, _K, _K, _Q, *[t("float32", 1, 2, 4)] * 2), attrs(), "shape", "is not a number for each query"),
        ErrorSample((_Q, _K, t("float64", 1, 2, 5, 4), _Q, *[t("float32", 1, 2, 3)] * 2), attrs(), "dtype", "dtypes"),
    ),
}
