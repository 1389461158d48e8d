"""Samples of convolution and its gradients: strides, uneven padding, dilation, groups, more k than one block, narrow
and wide panels, memory of every kind, and values that a multiplied padding tap would spoil."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.sampling import DTYPES, WIDE_FLOATS, Array, ErrorSample, Sample, draw, generator, specials, t

PLAIN: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
Shape = tuple[int, ...]

# label, images, weights, attributes other than PLAIN's
_CASES: tuple[tuple[str, Shape, Shape, dict[str, Any]], ...] = (
    ("one", (1, 1, 1, 1), (1, 1, 1, 1), {}),
    ("plain", (2, 3, 5, 4), (4, 3, 3, 2), {}),
    ("padded", (3, 2, 4, 5), (3, 2, 3, 3), {"padding": (1, 1, 1, 1)}),
    ("uneven", (1, 2, 4, 3), (2, 2, 2, 4), {"padding": (0, 1, 1, 2)}),
    ("strided", (2, 2, 7, 6), (3, 2, 3, 2), {"stride": (2, 3), "padding": (1, 0, 0, 1)}),
    ("dilated", (1, 2, 7, 6), (2, 2, 3, 2), {"stride": (2, 1), "padding": (2, 1, 1, 1), "dilation": (2, 3)}),
    ("gaps", (1, 1, 9, 8), (2, 1, 2, 2), {"stride": (4, 2), "dilation": (2, 4), "padding": (1, 2, 2, 0)}),
    ("groups", (2, 4, 4, 4), (6, 2, 2, 2), {"groups": 2, "padding": (1, 0, 1, 0)}),
    ("depthwise", (2, 3, 4, 4), (3, 1, 3, 3), {"groups": 3, "padding": (1, 1, 1, 1)}),
    ("line", (2, 3, 1, 19), (2, 3, 1, 4), {"stride": (1, 2), "padding": (0, 0, 2, 2)}),
    ("wide-panel", (1, 1, 3, 3), (35, 1, 2, 2), {}),
    ("two-blocks", (1, 33, 3, 2), (2, 33, 3, 3), {"padding": (1, 1, 1, 1)}),
    ("far", (1, 1, 2, 2), (1, 1, 3, 3), {"padding": (5, 4, 4, 5), "stride": (3, 2)}),
    ("no-channels", (2, 0, 3, 3), (2, 0, 2, 2), {}),
    ("no-images", (0, 2, 3, 3), (2, 2, 2, 2), {}),
    ("no-results", (2, 2, 3, 3), (0, 2, 2, 2), {}),
)


def _attrs(name: str, x: Shape, w: Shape, given: dict[str, Any]) -> dict[str, Any]:
    attrs = {**PLAIN, **given}
    size = {"conv2d_input": x[2:], "conv2d_weight": w[2:]}.get(name.removesuffix("_direct"))
    return attrs if size is None else {"size": size, **attrs}


def _result(x: Shape, w: Shape, given: dict[str, Any]) -> Shape:
    """The shape of conv2d's result, counted out."""
    attrs = {**PLAIN, **given}
    sizes = []
    for d in range(2):
        room = x[2 + d] + sum(attrs["padding"][2 * d : 2 * d + 2])
        span = attrs["dilation"][d] * (w[2 + d] - 1) + 1
        sizes.append(len(range(0, room - span + 1, attrs["stride"][d])))
    return (x[0], w[0], *sizes)


def _operand_shapes(name: str, x: Shape, w: Shape, given: dict[str, Any]) -> tuple[Shape, Shape]:
    y = _result(x, w, given)
    return {"conv2d": (x, w), "conv2d_input": (y, w), "conv2d_weight": (x, y)}[name.removesuffix("_direct")]


def _strange(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    values = draw(rng, shape, dtype)
    special = specials(dtype)
    places = rng.integers(0, 4, shape) == 0
    values[places] = special[rng.integers(0, len(special), int(places.sum()))]
    return values


def _samples(name: str) -> list[Sample]:
    found = []
    for dtype in WIDE_FLOATS:
        rng = generator(name, dtype)
        for label, x, w, given in _CASES:
            shapes = _operand_shapes(name, x, w, given)
            operands = tuple(draw(rng, shape, dtype) for shape in shapes)
            found.append(Sample(f"{dtype}-{label}", operands, _attrs(name, x, w, given)))
        _, x, w, given = _CASES[2]
        attrs, shapes = _attrs(name, x, w, given), _operand_shapes(name, x, w, given)
        turned = tuple(draw(rng, shape[::-1], dtype).T for shape in shapes)
        spread = tuple(draw(rng, (*shape[:2], 2 * shape[2], 3 * shape[3]), dtype)[:, :, ::2, 1::3] for shape in shapes)
        repeated = tuple(np.broadcast_to(draw(rng, (1, shape[1], 1, 1), dtype), shape) for shape in shapes)
        found.append(Sample(f"{dtype}-transposed", turned, attrs))
        found.append(Sample(f"{dtype}-spread", spread, attrs))
        found.append(Sample(f"{dtype}-repeated", repeated, attrs))
        found.append(Sample(f"{dtype}-special", tuple(_strange(rng, shape, dtype) for shape in shapes), attrs))
        if name == "conv2d_weight":  # positions of more than one block
            x, w, given = (3, 1, 10, 10), (2, 1, 2, 2), {"padding": (1, 0, 0, 1)}
            operands = tuple(draw(rng, shape, dtype) for shape in _operand_shapes(name, x, w, given))
            found.append(Sample(f"{dtype}-blocks", operands, _attrs(name, x, w, given)))
    return found if name.endswith("_direct") else found + _halves(name)


def _halves(name: str) -> list[Sample]:
    """16-bit floats, which tensor cores multiply where there are any."""
    found = []
    for dtype in ("float16", "bfloat16"):
        rng = generator(name, dtype)
        for label, x, w, given in _CASES:
            if label in ("one", "strided", "gaps", "groups", "no-images"):
                shapes = _operand_shapes(name, x, w, given)
                operands = tuple(draw(rng, shape, dtype, 1.0) for shape in shapes)
                found.append(Sample(f"{dtype}-{label}", operands, {**_attrs(name, x, w, given), "tensor_cores": True}))
        _, x, w, given = ("even", (2, 16, 5, 4), (24, 16, 3, 2), {"padding": (1, 1, 1, 1), "dilation": (2, 1)})
        operands = tuple(draw(rng, shape, dtype, 1.0) for shape in _operand_shapes(name, x, w, given))
        attrs = {**_attrs(name, x, w, given), "tensor_cores": True}
        found += [Sample(f"{dtype}-unrounded", operands, {**attrs, "dtype": DTYPES["float32"]})]
        found += [Sample(f"{dtype}-even", operands, attrs)]
    return found


def _smooth(name: str) -> list[Sample]:
    found = []
    for label, x, w, given in _CASES:
        if label in ("plain", "padded", "strided", "gaps", "groups"):
            rng = generator("smooth", name, label)
            operands = tuple(rng.normal(size=shape) for shape in _operand_shapes(name, x, w, given))
            found.append(Sample(label, operands, _attrs(name, x, w, given)))
    return found


_X, _W, _Y = t("float32", 2, 3, 5, 5), t("float32", 4, 3, 3, 3), t("float32", 2, 4, 3, 3)


def _errors(name: str) -> list[ErrorSample]:
    a, b = {"conv2d": (_X, _W), "conv2d_input": (_Y, _W), "conv2d_weight": (_X, _Y)}[name.removesuffix("_direct")]
    plain = _attrs(name, (2, 3, 5, 5), (4, 3, 3, 3), {})

    def wrong(kind: str, match: str, operands: tuple[Any, ...] = (a, b), **attrs: Any) -> ErrorSample:
        return ErrorSample(operands, {**plain, **attrs}, kind, match)

    other, whole = t("float64", *b.static_shape()), t("int64", 2, 3, 5, 5)
    found = [
        wrong("dtype", "dtypes", (a, other)),
        wrong("dtype", "not defined for int64", (whole, whole)),
        wrong("dtype", "not defined for float32 by tensor cores", tensor_cores=True),
        wrong("dtype", "gives float32, not float64", dtype=DTYPES["float64"]),
        wrong("shape", "four dimensions", (t("float32", 3, 5, 5), b)),
        wrong("value", "stride must be", stride=(0, 1)),
        wrong("value", "padding must be", padding=(1, 1)),
        wrong("value", "dilation must be", dilation=(1, 0)),
        wrong("value", "groups must be", groups=0),
    ]
    if name == "conv2d":
        found += [
            wrong("shape", "channels in 1 groups", (t("float32", 2, 4, 5, 5), b)),
            wrong("value", "3 channels can't be divided into 2 groups", groups=2),
            wrong("value", "4 results can't", (a, t("float32", 4, 1, 3, 3)), groups=3),
            wrong("shape", "does not fit in 2 rows", (t("float32", 2, 3, 2, 5), b)),
        ]
    if name == "conv2d_input":
        found += [
            wrong("value", "size must be", size=(5,)),
            wrong("shape", "makes 4", (t("float32", 2, 3, 3, 3), b)),
            wrong("shape", "6 rows give 4", size=(6, 5)),
        ]
    if name == "conv2d_weight":
        found += [
            wrong("shape", "2 and 1 images", (a, t("float32", 1, 4, 3, 3))),
            wrong("shape", "5 columns give 4", size=(3, 2)),
            wrong("value", "3 channels can't", groups=2),
        ]
    return found


_NAMES = ("conv2d", "conv2d_input", "conv2d_weight", "conv2d_direct", "conv2d_input_direct")
SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: lambda name=name: _samples(name) for name in _NAMES}  # type: ignore[misc]
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: lambda name=name: _smooth(name) for name in _NAMES}  # type: ignore[misc]
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in _NAMES}


def _depthwise(smooth: bool = False) -> list[Sample]:
    found = []
    for dtype in ("float64",) if smooth else WIDE_FLOATS:
        rng = generator("depthwise_weight", dtype)
        for label, x, w, given in (
            ("padded", (2, 4, 5, 3), (3, 3), {"padding": (1, 1, 1, 1)}),
            ("strided", (1, 7, 6, 18), (3, 2), {"stride": (2, 3), "padding": (1, 0, 0, 1), "dilation": (2, 1)}),
            ("blocks", (3, 10, 10, 2), (2, 2), {"padding": (1, 0, 0, 1)}),
            ("no-images", (0, 3, 3, 2), (2, 2), {}),
        ):
            n, h, v, c = x
            y = _result((n, c, h, v), (c, 1, *w), given)
            operands = (draw if smooth else _strange)(rng, x, dtype), draw(rng, (n, *y[2:], c), dtype)
            attrs = {**PLAIN, **given, "size": w}
            del attrs["groups"]
            found.append(Sample(f"{dtype}-{label}", operands, attrs))
    return found


_LAST, _LAST_G = t("float32", 2, 5, 5, 4), t("float32", 2, 3, 3, 4)
_LAST_ATTRS = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "size": (3, 3)}
SAMPLES["depthwise_weight"] = _depthwise
SMOOTH["depthwise_weight"] = lambda: _depthwise(smooth=True)[:2]
ERRORS["depthwise_weight"] = [
    ErrorSample((_LAST, t("float64", 2, 3, 3, 4)), _LAST_ATTRS, "dtype", "dtypes"),
    ErrorSample((_LAST, t("float32", 2, 3, 3, 5)), _LAST_ATTRS, "shape", "images or channels"),
    ErrorSample((_LAST, _LAST_G), {**_LAST_ATTRS, "size": (2, 3)}, "shape", "5 rows give 4"),
]
