"""Samples of the ops that LAPACK carries out: empty matrices and stacks, one element, more rows than one block, tall
and wide, memory of every kind; and matrices that can't be inverted or factored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.sampling import WIDE_FLOATS, Array, ErrorSample, Sample, generator, t

Shape = tuple[int, ...]

_SQUARE: tuple[tuple[str, Shape], ...] = (
    ("none", (0, 0)),
    ("no-stack", (2, 0, 3, 3)),
    ("one", (1, 1)),
    ("small", (3, 3)),
    ("blocks", (40, 40)),
    ("stack", (2, 3, 4, 4)),
)
_ANY: tuple[tuple[str, Shape], ...] = (
    *_SQUARE,
    ("tall", (5, 3)),
    ("wide", (2, 3, 7)),
    ("tall-blocks", (50, 35)),
    ("wide-blocks", (34, 50)),
    ("no-rows", (0, 3)),
    ("no-columns", (2, 3, 0)),
)
_SIDES: dict[str, int] = {"none": 2, "no-stack": 2, "one": 3, "small": 1, "blocks": 5, "stack": 0}
"""How many right sides the systems have; "stack" has three, the table's none being "no-sides"."""


def plain(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    """Matrices with singular values well apart from zero: dominant diagonals."""
    x = rng.normal(size=shape) / max(1, shape[-1]) ** 0.5
    k = min(shape[-2:])
    x[..., range(k), range(k)] += 2 * rng.choice([-1.0, 1.0], (*shape[:-2], k))
    return x.astype(dtype)


def symmetric(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    x = rng.normal(size=shape)
    return (x + np.swapaxes(x, -1, -2)).astype(dtype)


def definite(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    x = rng.normal(size=shape)
    return (x @ np.swapaxes(x, -1, -2) / max(1, shape[-1]) + np.eye(shape[-1])).astype(dtype)


Maker = Callable[[np.random.Generator, Shape, str], Array]

_MAKERS: dict[str, Maker] = {"cholesky": definite, "eigh": symmetric}
_ATTRS: dict[str, list[dict[str, Any]]] = {
    "inv": [{"check": True}],
    "solve": [{"check": True}],
    "cholesky": [{"check": True}],
    "triangular_solve": [{"upper": u, "unit": n} for u in (False, True) for n in (False, True)],
    "lu_factor": [{"check": False}],
    "qr": [{}],
    "qr_complete": [{}],
    "eigh": [{"upper": False}, {"upper": True}],
    "svd": [{"full": False}, {"full": True}],
    "det": [{}],
    "slogdet": [{}],
    "pinv": [{"atol": 0.0, "rtol": 1e-5, "hermitian": False}, {"atol": 0.0, "rtol": 1e-5, "hermitian": True}],
    "matrix_exp": [{}],
}
_SYSTEMS = ("solve", "triangular_solve")
_RECTANGULAR = ("lu_factor", "qr", "qr_complete", "svd", "pinv")


def _square_only(name: str, attrs: dict[str, Any]) -> bool:
    return name not in _RECTANGULAR or bool(attrs.get("hermitian"))


def _is_symmetric(name: str, attrs: dict[str, Any]) -> bool:
    return name in _MAKERS or bool(attrs.get("hermitian"))


def _text(attrs: dict[str, Any]) -> str:
    return "".join(f"-{k}" for k, v in attrs.items() if v and k != "check")


def _samples(name: str) -> list[Sample]:
    found = []
    for dtype in WIDE_FLOATS:
        rng = generator(name, dtype)
        for attrs in _ATTRS[name]:
            make = symmetric if attrs.get("hermitian") else _MAKERS.get(name, plain)
            for label, shape in _SQUARE if _square_only(name, attrs) else _ANY:
                operands = [make(rng, shape, dtype)]
                if name in _SYSTEMS:
                    operands.append(rng.normal(size=(*shape[:-1], _SIDES[label])).astype(dtype))
                found.append(Sample(f"{dtype}-{label}{_text(attrs)}", tuple(operands), attrs))
            square = make(rng, (3, 4, 4), dtype)
            sides = [rng.normal(size=(4, 3, 2)).astype(dtype).transpose(1, 0, 2)] if name in _SYSTEMS else []
            turned = np.asfortranarray(square.transpose(0, 2, 1)).transpose(0, 2, 1)
            spread = np.zeros((6, 8, 12), dtype)[::2, ::2, 1::3]
            spread[...] = square
            repeated = np.broadcast_to(square[:1], square.shape)
            for label, x in (("turned", turned), ("spread", spread), ("repeated", repeated)):
                found.append(Sample(f"{dtype}-{label}{_text(attrs)}", (x, *sides), attrs))
        found += _hopeless(name, dtype)
    return found


def _hopeless(name: str, dtype: str) -> list[Sample]:
    """Matrices that have no inverse or factor, where that is no error; NaN and infinities."""
    nan, inf = np.nan, np.inf
    flawed = np.array(
        [[[2, 1], [1, 2]], [[1, 2], [2, 4]], [[1, 2], [2, 1]], [[-1, 0], [0, 1]], [[0, 0], [0, 0]]], dtype
    )
    if name in ("inv", "cholesky"):
        return [Sample(f"{dtype}-unchecked", (flawed,), {"check": False})]
    if name == "solve":
        sides = np.arange(10, dtype=dtype).reshape(5, 2, 1)
        return [Sample(f"{dtype}-unchecked", (flawed, sides), {"check": False})]
    if name == "triangular_solve":
        x, b = np.array([[2, nan], [3, 0]], dtype), np.array([[1], [2]], dtype)
        return [Sample(f"{dtype}-zero", (x, b), {"upper": False, "unit": False})]
    if name == "matrix_exp":
        large = np.array([[[30, 1], [-2, 3]], [[0, 0], [0, 0]], [[-90, 3], [4, -80]]], dtype)
        return [Sample(f"{dtype}-large", (large,)), Sample(f"{dtype}-inf", (np.array([[inf]], dtype),))]
    if name == "pinv":
        attrs = _ATTRS[name][0]
        return [Sample(f"{dtype}-flawed", (flawed,), attrs), Sample(f"{dtype}-all", (flawed,), {**attrs, "atol": 9.0})]
    if name in ("lu_factor", "qr", "det", "slogdet"):
        attrs = _ATTRS[name][0]
        return [Sample(f"{dtype}-{k}", (x,), attrs) for k, x in (("flawed", flawed), ("inf", np.array([[inf]], dtype)))]
    return []


def _pivots() -> list[Sample]:
    cases = {
        "none": (np.zeros((0,), np.int32), 0),
        "only-rows": (np.zeros((2, 0), np.int32), 3),
        "small": (np.array([3, 2, 3], np.int32), 3),
        "tall": (np.array([[5, 5], [1, 2], [2, 4]], np.int32), 5),
        "strided": (np.arange(24, dtype=np.int32).reshape(2, 12)[:, 1:8:3] % 4 + 1, 4),
    }
    return [Sample(label, (pivots,), {"rows": rows}) for label, (pivots, rows) in cases.items()]


def _smooth(name: str) -> list[Sample]:
    found = []
    for attrs in _ATTRS[name]:
        shapes: list[tuple[str, Shape]] = [("small", (3, 3)), ("stack", (2, 2, 2))]
        if not _square_only(name, attrs):
            shapes += [("tall", (4, 2)), ("wide", (2, 4))]
        for label, shape in shapes:
            if name == "svd" and attrs["full"] and shape[-1] != shape[-2]:
                continue  # its further columns are arbitrary
            rng = generator("smooth", name, label)
            operands = [_MAKERS.get(name, plain)(rng, shape, "float64")]
            if name in ("svd", "eigh"):  # values well apart
                k = min(shape[-2:])
                operands[0][..., range(k), range(k)] += 3 * np.arange(k)
            if name in _SYSTEMS:
                operands.append(rng.normal(size=(*shape[:-1], 2)))
            found.append(Sample(label + _text(attrs), tuple(operands), attrs, _is_symmetric(name, attrs)))
    return found


def _errors(name: str) -> list[ErrorSample]:
    attrs = _ATTRS[name][-1]
    side = (t("float32", 3, 2),) if name in _SYSTEMS else ()
    found = [
        ErrorSample((t("int64", 3, 3), *side), attrs, "dtype", "not defined for int64"),
        ErrorSample((t("float16", 3, 3), *side), attrs, "dtype", "not defined for float16"),
        ErrorSample((t("float32", 3), *side), attrs, "shape", "at least 2 dimensions"),
    ]
    if _square_only(name, attrs):
        found.append(ErrorSample((t("float32", 2, 3), *side), attrs, "shape", "square"))
    if name == "pinv":
        found.append(ErrorSample((t("float32", 3, 3),), {**attrs, "atol": 0}, "value", "must be floats"))
    if name in _SYSTEMS:
        found += [
            ErrorSample((t("float32", 3, 3), t("float64", 3, 2)), attrs, "dtype", "dtypes"),
            ErrorSample((t("float32", 3, 3), t("float32", 2, 3)), attrs, "shape", "no right sides"),
            ErrorSample((t("float32", 3, 3), t("float32", 3)), attrs, "shape", "no right sides"),
        ]
    return found


_PIVOT_ERRORS = [
    ErrorSample((t("int64", 3),), {"rows": 3}, "dtype", "int32"),
    ErrorSample((t("int32", 3),), {"rows": 2}, "shape", "no exchanges"),
    ErrorSample((t("int32"),), {"rows": 2}, "shape", "no exchanges"),
]

SAMPLES: dict[str, Callable[[], list[Sample]]] = {name: lambda name=name: _samples(name) for name in _ATTRS}  # type: ignore[misc]
SAMPLES["lu_permutation"] = _pivots
SMOOTH: dict[str, Callable[[], list[Sample]]] = {
    name: lambda name=name: _smooth(name)  # type: ignore[misc]
    for name in _ATTRS
    if name != "qr_complete"
}
ERRORS: dict[str, list[ErrorSample]] = {name: _errors(name) for name in _ATTRS} | {"lu_permutation": _PIVOT_ERRORS}
