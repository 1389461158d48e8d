"""Samples of the rows of `ir/ops/pointwise.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from kiln.ir.halves import converted
from kiln.ir.types import DTYPES as DTYPE_TABLE
from tests.ops.sampling import (
    FLOATS,
    INTS,
    WIDE_FLOATS,
    Array,
    ErrorSample,
    Sample,
    draw,
    generator,
    layouts,
    specials,
    t,
)

BITS = ("bool", *INTS)

DTYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ceil", "trunc", "round"), FLOATS),
    **dict.fromkeys(("floor_divide", "fmod", "remainder", "copysign"), FLOATS),
    "nextafter": WIDE_FLOATS,
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"), BITS),
    **dict.fromkeys(("shift_left", "shift_right", "pow_int"), INTS),
    **dict.fromkeys(("floor_divide_int", "trunc_divide_int", "remainder_int", "fmod_int"), INTS),
}
UNARY = ("ceil", "trunc", "round", "bitwise_not")
DIVISIONS = ("floor_divide_int", "trunc_divide_int", "remainder_int", "fmod_int")


def _prepared(name: str, operands: tuple[Array, ...]) -> tuple[Array, ...]:
    """The operands, without divisors 0 where those are errors."""
    if name not in DIVISIONS:
        return operands
    a, b = operands
    if b.size and not b.all():
        b = np.where(b == 0, b.dtype.type(5), b)
    return a, b


def _samples(name: str) -> list[Sample]:
    found, arity = [], 1 if name in UNARY else 2
    for dtype in DTYPES[name]:
        rng = generator(name, dtype)
        for label, make in layouts(rng, dtype):
            found.append(Sample(f"{dtype}-{label}", _prepared(name, tuple(make() for _ in range(arity)))))
        grid = np.meshgrid(*[specials(dtype)] * arity, indexing="ij")
        found.append(Sample(f"{dtype}-special", _prepared(name, tuple(np.ascontiguousarray(g) for g in grid))))
        if arity == 2:
            mixed = (draw(rng, (6, 9), dtype).T, draw(rng, (9, 6), dtype))
            found.append(Sample(f"{dtype}-mixed", _prepared(name, mixed)))
        found += [Sample(f"{dtype}-{label}", operands) for label, operands in _more(name, dtype)]
    return found


def _more(name: str, dtype: str) -> list[tuple[str, tuple[Array, ...]]]:
    rng = generator(name, dtype, "more")
    if name in ("ceil", "trunc", "round"):
        return [("halves", (converted(np.arange(-7, 8) / 2, DTYPE_TABLE[dtype]),))]
    if name in ("fmod", "remainder", "floor_divide") and dtype in WIDE_FLOATS:
        top = 126 if dtype == "float32" else 1022
        a, b = (np.asarray(rng.normal(size=200) * np.exp2(rng.uniform(-top, top - 3, 200)), dtype) for _ in range(2))
        with np.errstate(over="ignore"):
            near = np.asarray(rng.integers(1, 1000, 200) * b, dtype)
            beside = np.nextafter(near, np.asarray(rng.normal(size=200), dtype))
        return [("far", (a, b)), ("near", (near, b)), ("beside", (beside, b))]
    if name in ("shift_left", "shift_right"):
        amounts = np.arange(-2, 8 * np.dtype(dtype).itemsize + 3).astype(dtype)
        return [("amounts", (np.repeat(draw(rng, (3, 1), dtype), len(amounts), 1), np.stack([amounts] * 3)))]
    if name == "pow_int":
        return [("small", (draw(rng, (7, 40), dtype), np.asarray(rng.integers(0, 70, (7, 40)), dtype)))]
    return []


def _smooth(name: str) -> list[Sample]:
    """float64 calls away from jumps."""
    rng = generator("smooth", name)
    if name in UNARY:
        return [Sample("plain", (rng.integers(-3, 3, (3, 4)) + 0.3,))]
    b = rng.uniform(0.7, 1.4, (3, 2)) * rng.choice([-1.0, 1.0], (3, 2))
    whole = rng.integers(-3, 4, (3, 2)) + rng.uniform(0.2, 0.8, (3, 2))
    return [Sample("plain", (whole * b, b))]


def _errors(name: str) -> list[ErrorSample]:
    dtypes, arity = DTYPES[name], 1 if name in UNARY else 2
    ok = "float64" if "float64" in dtypes else "int64"
    found = [ErrorSample((t(ok, 2, 3),) * (arity + 1), {}, "value", f"takes {arity} operand")]
    refused = [d for d in ("bool", "int64", "float32", "uint32") if d not in dtypes]
    found += [ErrorSample((t(d, 3),) * arity, {}, "dtype", f"not defined for {d}") for d in refused]
    if arity == 2:
        found.append(ErrorSample((t(ok, 2, 3), t(ok, 3, 2)), {}, "shape", "operands have types"))
        other = "float32" if ok == "int64" else "int64"
        found.append(ErrorSample((t(ok, 3), t(other, 3)), {}, "dtype", "operands have dtypes"))
    return found


DIFFERENTIABLE = ("ceil", "trunc", "round", "floor_divide", "fmod", "remainder", "copysign")
SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_samples, name) for name in DTYPES}
SMOOTH: dict[str, Callable[[], list[Sample]]] = {name: functools.partial(_smooth, name) for name in DIFFERENTIABLE}
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in DTYPES}
