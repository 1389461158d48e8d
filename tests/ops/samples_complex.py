"""Samples of the ops of `ir/ops/pairs.py`, of `modulus`, and complex calls of the ops of other families (`more`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kiln.ir.graph import Constant
from kiln.ir.ops.pairs import joined
from kiln.ir.types import complex64, complex128
from tests.ops.sampling import Array, ErrorSample, Sample, draw, generator, layouts, specials, t

COMPLEX = ("complex64", "complex128")
PART = {"complex64": "float32", "complex128": "float64"}

EXACT = {"add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "eq": 2, "ne": 2, "copy": 1, "conj": 1, "real": 1, "imag": 1}
"""Ops without a tolerance, and how many operands they take: these see infinities, NaN and signed zeros."""
FUNCTIONS: dict[str, float] = {  # and how large their operands are
    **dict.fromkeys(("exp", "log", "sin", "cos", "tanh", "sigmoid", "sqrt", "log1p", "log2", "log10", "exp2"), 2.0),
    **dict.fromkeys(("expm1", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "pow"), 2.0),
}
MOVES = (
    *("reshape", "permute", "broadcast", "slice", "slice_scatter", "cat", "pick", "gather", "scatter", "affine"),
    "affine_scatter",
)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, scale: float = 2.0) -> Array:
    part = PART[dtype]
    return np.asarray(joined(draw(rng, shape, part, scale), draw(rng, shape, part, scale)))


def turned(x: Array, dtype: str) -> Array:
    """Complex numbers whose real parts are those of `x`, and whose imaginary parts are others of `x`, negated; in the
    memory order of `x`."""
    z = np.empty_like(x, dtype)
    z.real, z.imag = x, -(x[::-1] if x.ndim else x)
    return z


def in_layouts(rng: np.random.Generator, dtype: str) -> list[tuple[str, Array]]:
    """One array per layout."""
    found = []
    for label, make in layouts(rng, PART[dtype]):
        x = make()
        z = turned(x, dtype)
        if label in ("strided", "repeated"):
            rows = numbers(rng, (2 * x.shape[0], 3 * x.shape[1]), dtype)
            z = rows[::2, ::3] if label == "strided" else np.broadcast_to(rows[: len(x), :1], x.shape)
        found.append((label, z))
    return found


def special(dtype: str, few: int) -> Array:
    """Complex numbers of every pair of `few` special parts."""
    values = specials(PART[dtype])
    chosen = np.concatenate([values[: few - 4], values[-4:]]) if few < len(values) else values
    re, im = np.meshgrid(chosen, chosen)
    return np.asarray(joined(re.reshape(-1), im.reshape(-1)))


def _exact(name: str) -> list[Sample]:
    arity, found = EXACT[name], []
    for dtype in COMPLEX:
        rng = generator("complex", name, dtype)
        for label, z in in_layouts(rng, dtype):
            others = [np.array(z[::-1] if z.ndim else z) for _ in range(arity - 1)]
            found.append(Sample(f"{dtype}-{label}", (z, *others)))
        grid = np.meshgrid(*[special(dtype, 10)] * arity) if arity > 1 else [special(dtype, 24)]
        found.append(Sample(f"{dtype}-special", tuple(np.ascontiguousarray(g) for g in grid)))
    return found


def _functions(name: str) -> list[Sample]:
    found, arity = [], 2 if name == "pow" else 1
    for dtype in COMPLEX:
        rng = generator("complex", name, dtype)
        operands = [numbers(rng, (130,), dtype, FUNCTIONS[name]) for _ in range(arity)]
        found.append(Sample(f"{dtype}-line", tuple(operands)))
        found.append(Sample(f"{dtype}-turned", tuple(numbers(rng, (5, 7), dtype).T for _ in range(arity))))
        found.append(Sample(f"{dtype}-empty", tuple(numbers(rng, (0, 2), dtype) for _ in range(arity))))
    return found


def _complexified(found: Sequence[Sample]) -> list[Sample]:
    """Calls on float64 made calls on complex128, and one on complex64."""
    real = [s for s in found if any(x.dtype == np.float64 for x in s.operands)]

    def of(s: Sample, dtype: str) -> Sample:
        operands = [turned(x, dtype) if x.dtype == np.float64 else x for x in s.operands]
        return replace(s, label=f"{dtype}-{s.label}", operands=tuple(operands))

    return [*(of(s, "complex128") for s in real), *(of(s, "complex64") for s in real[:1])]


def more(name: str, found: Sequence[Sample]) -> list[Sample]:
    """Complex calls of an op whose other calls are `found`."""
    if name in SAMPLES:
        return []
    if name in EXACT:
        return _exact(name)
    if name in FUNCTIONS:
        return _functions(name)
    if name in MOVES:
        return _complexified(found)
    rng = generator("complex", name)
    if name == "where":
        masks = [
            ("line", draw(rng, (67,), "bool")),
            ("rows", draw(rng, (19, 3), "bool").T),
            ("0-d", draw(rng, (), "bool")),
        ]
        return [
            Sample(f"{d}-{label}", (m, numbers(rng, m.shape, d), numbers(rng, m.shape, d)))
            for d in COMPLEX
            for label, m in masks
        ]
    if name == "full":
        calls: list[dict[str, Any]] = [{"shape": s, "dtype": d} for s in ((), (3, 7)) for d in (complex64, complex128)]
        return [
            Sample(f"{s['dtype']}-{v}-{len(s['shape'])}", (), {**s, "value": v})
            for s in calls
            for v in (1.5 - 0.1j, complex(-0.0, 2.0), 3.0)
        ]
    if name == "constant":
        return [
            Sample(f"{d}-{len(shape)}", (), {"data": Constant(numbers(rng, shape, d))})
            for d in COMPLEX
            for shape in ((3, 5), ())
        ]
    return []


def more_smooth(name: str) -> list[Sample]:
    """complex128 calls at points where an op of another family is differentiable."""
    rng = generator("complex smooth", name)

    def tame(shape: tuple[int, ...]) -> Array:  # off the cuts and poles
        signs = rng.choice([-1.0, 1.0], shape) + 1j * rng.choice([-1.0, 1.0], shape)
        z = rng.uniform(0.3, 0.9, shape) + 1j * rng.uniform(0.3, 0.9, shape)
        return np.asarray(joined(z.real * signs.real, z.imag * signs.imag))

    if name in SAMPLES or name in ("eq", "ne"):
        return []
    if name in EXACT or name in FUNCTIONS:
        return [Sample("complex", tuple(tame((3, 2)) for _ in range(2 if name == "pow" else EXACT.get(name, 1))))]
    if name == "where":
        return [Sample("complex", (draw(rng, (3, 4), "bool"), tame((3, 4)), tame((3, 4))))]
    return []


# ------------------------------------------------------------------------------ the ops of this family


def _samples(name: str) -> list[Sample]:
    if name in ("real", "imag", "conj"):
        return _exact(name)
    found = []
    for dtype in COMPLEX:
        rng, part = generator("pairs", name, dtype), PART[dtype]
        if name == "view_as_real":
            found += [Sample(f"{dtype}-{label}", (z,)) for label, z in in_layouts(rng, dtype)]
        elif name == "view_as_complex":
            shapes = {"0-d": (2,), "empty": (0, 2), "line": (67, 2), "cube": (2, 3, 17, 2)}
            found += [Sample(f"{dtype}-{label}", (draw(rng, shape, part),)) for label, shape in shapes.items()]
            found.append(Sample(f"{dtype}-turned", (draw(rng, (5, 19, 2), part).transpose(1, 0, 2),)))
            found.append(Sample(f"{dtype}-copied", (draw(rng, (2, 67), part).T,)))
            found.append(Sample(f"{dtype}-odd", (draw(rng, (9, 5), part)[:, 1:3],)))
        else:
            for label, make in layouts(rng, part):
                found.append(Sample(f"{dtype}-{label}", (make(), make())))
            grid = np.meshgrid(specials(part), specials(part))
            if name == "modulus":  # NumPy's hypot has other ideas of what is one unit of the smallest number
                grid = [np.where(np.abs(g) < 1e-30, 0, g).astype(part) for g in grid]
            found.append(Sample(f"{dtype}-special", tuple(map(np.ascontiguousarray, grid))))
            found.append(Sample(f"{dtype}-mixed", (draw(rng, (6, 9), part).T, draw(rng, (9, 6), part))))
    return found


def _smooth(name: str) -> list[Sample]:
    rng = generator("smooth", name)
    if name in ("complex", "modulus"):
        return [Sample("plain", (rng.uniform(0.3, 2, (3, 4)), -rng.uniform(0.3, 2, (3, 4))))]
    if name == "view_as_complex":
        return [Sample("plain", (rng.normal(size=(3, 4, 2)),)), Sample("line", (rng.normal(size=2),))]
    return [Sample("plain", (numbers(rng, (3, 4), "complex128"),)), Sample("0-d", (numbers(rng, (), "complex128"),))]


def _errors(name: str) -> list[ErrorSample]:
    if name in ("complex", "modulus"):
        return [
            ErrorSample((t("float32", 2), t("float64", 2)), {}, "dtype", "operands have dtypes"),
            ErrorSample((t("float32", 2), t("float32", 3)), {}, "shape", "operands have types"),
            *[
                ErrorSample((t(d, 2), t(d, 2)), {}, "dtype", "is not defined")
                for d in ("int64", "float16", "complex64")
            ],
        ]
    if name == "view_as_complex":
        return [
            ErrorSample((t("float32", 2, 3),), {}, "shape", "does not have size 2"),
            ErrorSample((t("float32"),), {}, "shape", "does not have size 2"),
            ErrorSample((t("int64", 2),), {}, "dtype", "is not defined"),
        ]
    return [
        ErrorSample((t("complex64", 2), t("complex64", 2)), {}, "value", "takes 1 operand"),
        *[ErrorSample((t(d, 2),), {}, "dtype", "is not defined") for d in ("bool", "int64", "float32")],
    ]


NAMES = ("real", "imag", "complex", "conj", "view_as_real", "view_as_complex", "modulus")
SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_samples, name) for name in NAMES}
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_smooth, name) for name in NAMES}
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in NAMES}
REFUSING = (
    *("maximum", "minimum", "lt", "le", "gt", "ge", "abs", "sign", "relu", "floor", "erf", "gelu", "logical_and"),
    *("ceil", "trunc", "round", "fmod", "remainder", "floor_divide", "copysign", "nextafter", "erfc", "atan2"),
)
"""Ops of other families that must refuse complex numbers."""


def more_errors(name: str) -> list[ErrorSample]:
    arity = 1 if name in ("abs", "sign", "relu", "floor", "erf", "gelu", "ceil", "trunc", "round", "erfc") else 2
    refused = ErrorSample((t("complex64", 3),) * arity, {}, "dtype", "not defined for complex64")
    return [refused] if name in REFUSING else []
