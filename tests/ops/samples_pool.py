"""Samples of pooling: overlapping and separated windows, padding that leaves part of a window, dilation, ties, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kiln.ir.ops import OPS
from tests.ops.sampling import MAIN, NUMERIC, Array, ErrorSample, Sample, draw, generator, specials, t

Attrs = dict[str, Any]
Shape = tuple[int, ...]


def window(kernel: Shape, stride: Shape, padding: Shape = (0, 0, 0, 0), dilation: Shape = (1, 1)) -> Attrs:
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}


# label, images, window
_CASES: tuple[tuple[str, Shape, Attrs], ...] = (
    ("halves", (2, 3, 4, 6), window((2, 2), (2, 2))),
    ("left-over", (1, 2, 5, 7), window((2, 3), (2, 3))),
    ("overlapping", (2, 6, 7), window((3, 3), (2, 1), (1, 1, 1, 1))),
    ("uneven", (2, 1, 4, 5), window((3, 2), (2, 2), (1, 2, 0, 1))),
    ("apart", (2, 9, 8), window((2, 2), (3, 4))),
    ("rows", (3, 1, 20), window((1, 4), (1, 3), (0, 0, 2, 2))),
    ("matrix", (5, 5), window((5, 5), (1, 1))),
    ("one", (1, 1), window((1, 1), (1, 1))),
    ("empty", (0, 2, 4, 4), window((2, 2), (2, 2))),
    ("wide", (2, 3, 40), window((2, 2), (1, 1))),
    ("large", (2, 9, 11), window((7, 9), (1, 2), (3, 2, 1, 4))),
    ("strided", (3, 37, 75), window((2, 3), (1, 2), (0, 1, 2, 1))),
    ("long", (2, 1, 70), window((1, 40), (1, 20), (0, 0, 20, 10))),
    ("bins", (2, 3, 5, 20), {"bins": (3, 6)}),
    ("even bins", (2, 6, 10), {"bins": (3, 2)}),
    ("more bins", (2, 3, 4), {"bins": (5, 4)}),
    ("one bin", (3, 6, 7), {"bins": (1, 1)}),
)
_DILATED = ("dilated", (2, 2, 8, 7), window((3, 2), (2, 1), (1, 1, 1, 1), (2, 3)))


def _counts(shape: Shape, attrs: Attrs) -> Shape:
    """The shape of one number per window, counted out."""
    if "bins" in attrs:
        return (*shape[:-2], *attrs["bins"])
    sizes = []
    for d in range(2):
        room = shape[len(shape) - 2 + d] + sum(attrs["padding"][2 * d : 2 * d + 2])
        span = attrs["dilation"][d] * (attrs["kernel"][d] - 1) + 1
        sizes.append(len(range(0, room - span + 1, attrs["stride"][d])))
    return (*shape[:-2], *sizes)


def _cases(name: str) -> list[tuple[str, Shape, Attrs]]:
    return [*_CASES, _DILATED] if name.startswith("max") else list(_CASES)


def _attrs(name: str, shape: Shape, attrs: Attrs) -> Attrs:
    given = {k: v for k, v in attrs.items() if name.startswith("max") or k != "dilation"}
    return {"size": shape[-2:], **given} if name.endswith("_input") else given


def _operands(name: str, rng: np.random.Generator, shape: Shape, attrs: Attrs, dtype: str) -> tuple[Array, ...]:
    if name.endswith("_input"):
        g = draw(rng, _counts(shape, attrs), dtype)
        return (g,) if name == "sum_pool2d_input" else (g, _places(rng, shape, attrs))
    return (draw(rng, shape, dtype),)


def _places(rng: np.random.Generator, shape: Shape, attrs: Attrs) -> Array:
    """Of each window the place of some element, as of images with equal numbers in different order."""
    image = rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)
    found: Array = OPS["max_pool2d_index"].ref(np, image, **attrs)
    return found


def _samples(name: str) -> list[Sample]:
    found = []
    for dtype in NUMERIC if name in ("max_pool2d", "max_pool2d_index") else ("float32", "float64"):
        rng = generator(name, dtype)
        for label, shape, attrs in _cases(name):
            if dtype not in MAIN and label not in ("overlapping", "uneven", "bins"):
                continue
            operands = _operands(name, rng, shape, attrs, dtype)
            found.append(Sample(f"{dtype}-{label}", operands, _attrs(name, shape, attrs)))
        _, shape, attrs = _CASES[2]
        operands = _operands(name, rng, shape, attrs, dtype)
        turned = tuple(np.ascontiguousarray(x.T).T for x in operands)
        found.append(Sample(f"{dtype}-transposed", turned, _attrs(name, shape, attrs)))
        special = specials(dtype)
        strange = (special[rng.integers(0, len(special), operands[0].shape)], *operands[1:])
        found.append(Sample(f"{dtype}-special", strange, _attrs(name, shape, attrs)))
        equal = (np.broadcast_to(operands[0][:1, :1, :1], operands[0].shape), *operands[1:])
        found.append(Sample(f"{dtype}-repeated", equal, _attrs(name, shape, attrs)))
    return found


def _smooth(name: str) -> list[Sample]:
    found = []
    for label, shape, attrs in _cases(name):
        if label in ("halves", "overlapping", "uneven", "apart", "dilated", "bins", "large"):
            rng = generator("smooth", name, label)
            operands = _operands(name, rng, shape, attrs, "float64")
            if name == "max_pool2d":  # no two elements near each other
                operands = (rng.permutation(operands[0].size).reshape(shape) * 0.1,)
            found.append(Sample(label, operands, _attrs(name, shape, attrs)))
    return found


def _errors(name: str) -> list[ErrorSample]:
    plain = _attrs(name, (2, 4, 6), window((2, 2), (2, 2)))
    image, pooled = t("float32", 2, 4, 6), t("float32", 2, 2, 3)
    places = t("int64", *pooled.static_shape())
    operands = {"sum_pool2d_input": (pooled,), "max_pool2d_input": (pooled, places)}.get(name, (image,))
    boolean = (t("bool", *operands[0].static_shape()), *operands[1:])
    flat = (t("float32", 6), *operands[1:])
    found = [
        ErrorSample(boolean, plain, "dtype", "not defined for bool"),
        ErrorSample(flat, plain, "shape", "rows and columns"),
        ErrorSample(operands, {**plain, "kernel": (0, 2)}, "value", "kernel must be"),
        ErrorSample(operands, {**plain, "stride": (2,)}, "value", "stride must be"),
        ErrorSample(operands, {**plain, "padding": (0, 0, -1, 0)}, "value", "padding must be"),
        ErrorSample(operands, {**plain, "bins": (0, 3)}, "value", "bins must be"),
    ]
    if name == "max_pool2d_input":
        found.append(ErrorSample((pooled, pooled), plain, "dtype", "places of int64"))
        found.append(ErrorSample((pooled, t("int64", 2, 2, 2)), plain, "shape", "differ in shape"))
    if name.endswith("_input"):
        found.append(ErrorSample(operands, {**plain, "size": (8, 6)}, "shape", "8 rows have 4 windows"))
    else:
        found.append(ErrorSample(operands, {**plain, "kernel": (5, 2)}, "shape", "does not fit in 4 rows"))
        found.append(ErrorSample((t("float32", 2, 4, 0),), {"bins": (2, 3)}, "shape", "there are no columns"))
    return found


_NAMES = ("max_pool2d", "max_pool2d_index", "max_pool2d_input", "sum_pool2d", "sum_pool2d_input")
_DERIVED = tuple(name for name in _NAMES if name != "max_pool2d_index")
SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: lambda name=name: _samples(name) for name in _NAMES}  # type: ignore[misc]
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: lambda name=name: _smooth(name) for name in _DERIVED}  # type: ignore[misc]
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in _NAMES}
