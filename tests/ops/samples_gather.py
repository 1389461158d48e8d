"""Samples of gather and the scatters: one list of schemes (which dimensions the index tensors say) serves them all.
Likewise of affine views and their scatters, and of reverse."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.ops.sampling import ANY, MAIN, NUMERIC, Array, ErrorSample, Sample, draw, generator, layouts, specials, t

SCATTERS = ("scatter", "scatter_add", "scatter_mul", "scatter_max", "scatter_min")
AFFINE_SCATTERS = ("affine_scatter", "affine_scatter_add")


@dataclass(frozen=True)
class Scheme:
    """A table's shape, the shape of the elements and of the index tensors, and the attributes that join them."""

    label: str
    table: tuple[int, ...]
    elements: tuple[int, ...]
    index: tuple[int, ...]
    at: tuple[int, ...]
    place: tuple[int, ...]
    wrap: bool = False

    @property
    def attrs(self) -> dict[str, Any]:
        return {"at": self.at, "place": self.place, "wrap": self.wrap}

    def indices(self, rng: np.random.Generator) -> list[Array]:
        """Random positions, with repetitions where there are many."""
        sizes = [n for n, p in zip(self.table, self.place, strict=True) if p < 0]
        return [np.asarray(rng.integers(-n if self.wrap else 0, n, self.index)) for n in sizes]


SCHEMES = (
    Scheme("line", (7,), (20,), (20,), (0,), (-1,), True),
    Scheme("rows", (5, 3), (9, 3), (9,), (0,), (-1, 1), True),
    Scheme("wide-rows", (6, 300), (8, 300), (8,), (0,), (-1, 1)),
    Scheme("columns", (3, 5), (3, 8), (8,), (1,), (0, -1)),
    Scheme("middle", (2, 5, 19), (2, 6, 19), (6,), (1,), (0, -1, 2)),
    Scheme("rows-of-rows", (5, 3), (2, 4, 3), (2, 4), (0, 1), (-1, 2), True),
    Scheme("along-0", (3, 18), (4, 17), (4, 17), (0, 1), (-1, 1)),
    Scheme("along-1", (3, 5), (2, 7), (2, 7), (0, 1), (0, -1)),
    Scheme("along-middle", (2, 4, 3), (2, 5, 3), (2, 5, 3), (0, 1, 2), (0, -1, 2)),
    Scheme("pair-apart", (4, 3, 5), (6, 3), (6,), (0,), (-1, 1, -1), True),
    Scheme("pair-beside", (2, 4, 5), (2, 7), (7,), (1,), (0, -1, -1)),
    Scheme("every", (2, 3, 2), (3, 5), (3, 5), (0, 1), (-1, -1, -1), True),
    Scheme("turned", (4, 3), (5, 3, 2), (2, 5), (2, 0), (-1, 1)),
    Scheme("number", (4, 6), (6,), (), (), (-1, 0)),
    Scheme("0-d", (4,), (), (), (), (-1,), True),
    Scheme("single", (1, 4), (3, 4), (3,), (0,), (-1, 1)),
    Scheme("no-index", (3, 4), (0, 4), (0,), (0,), (-1, 1)),
    Scheme("empty-table", (3, 0), (5, 0), (5,), (0,), (-1, 1)),
)


def _schemes(dtype: str) -> list[Scheme]:
    """All of them, or for dtypes that change nothing but the arithmetic a few."""
    return [s for s in SCHEMES if dtype in MAIN or s.label in ("line", "wide-rows", "every", "columns")]


def _tables(rng: np.random.Generator, dtype: str) -> Iterator[tuple[str, Array]]:
    """Tables of shape (6, 5) whose memory lies awkwardly."""
    yield "transposed", draw(rng, (5, 6), dtype).T
    yield "strided", draw(rng, (12, 15), dtype)[::2, 1::3]
    yield "repeated", np.broadcast_to(draw(rng, (6, 1), dtype), (6, 5))
    yield "one-number", np.broadcast_to(draw(rng, (), dtype), (6, 5))


def _gather() -> list[Sample]:
    found = []
    for dtype in ANY:
        rng = generator("gather", dtype)
        for s in _schemes(dtype):
            found.append(Sample(f"{dtype}-{s.label}", (draw(rng, s.table, dtype), *s.indices(rng)), s.attrs))
        for label, table in _tables(rng, dtype):
            index = rng.integers(0, 6, (8,))[::2]
            found.append(Sample(f"{dtype}-{label}", (table, index), {"at": (0,), "place": (-1, 1), "wrap": False}))
        odd = specials(dtype)
        index = rng.integers(0, len(odd), 40)
        found.append(Sample(f"{dtype}-special", (odd, index), {"at": (0,), "place": (-1,), "wrap": False}))
    return found


def _scatter(name: str) -> list[Sample]:
    found = []
    for dtype in NUMERIC if name == "scatter_mul" else ANY:
        rng = generator(name, dtype)
        for s in _schemes(dtype):
            operands = (draw(rng, s.table, dtype), draw(rng, s.elements, dtype), *s.indices(rng))
            found.append(Sample(f"{dtype}-{s.label}", operands, s.attrs))
        for label, table in _tables(rng, dtype):
            rows = {"at": (0,), "place": (-1, 1), "wrap": False}
            operands = (table, draw(rng, (5, 4), dtype).T, rng.integers(0, 6, (8,))[::2])
            found.append(Sample(f"{dtype}-{label}", operands, rows))
        odd = specials(dtype)
        values = np.concatenate([odd, odd[::-1], odd])
        line = {"at": (0,), "place": (-1,), "wrap": False}
        found.append(Sample(f"{dtype}-special", (odd, values, rng.integers(0, len(odd), len(values))), line))
    return found


def _smooth_gather() -> list[Sample]:
    rng = generator("smooth", "gather")
    return [Sample(s.label, (rng.normal(size=s.table), *s.indices(rng)), s.attrs) for s in SCHEMES if 0 not in s.table]


def _smooth_scatter(name: str) -> list[Sample]:
    """Far from ties for the extrema: distinct multiples of a step, in random order. Products also with zeros."""
    found = []
    for s in SCHEMES:
        if 0 in s.table or s.label == "wide-rows":
            continue
        rng = generator("smooth", name, s.label)
        sizes = [int(np.prod(shape)) for shape in (s.table, s.elements)]
        numbers = (rng.permutation(sum(sizes)) - sum(sizes) / 2 + 0.25) / sum(sizes) * 3
        table, value = numbers[: sizes[0]].reshape(s.table), numbers[sizes[0] :].reshape(s.elements)
        found.append(Sample(s.label, (table, value, *s.indices(rng)), s.attrs))
    return found


def _gather_errors() -> list[ErrorSample]:
    rows = {"at": (0,), "place": (-1, 1), "wrap": False}
    x, i = t("float32", 4, 3), t("int64", 5)
    return [
        ErrorSample((x, t("float32", 5)), rows, "dtype", "not int64"),
        ErrorSample((x, i), {**rows, "place": (-1,)}, "value", "do not join"),
        ErrorSample((x, i, i), rows, "value", "do not join"),
        ErrorSample((x, i), {**rows, "at": (0, 1)}, "value", "do not join"),
        ErrorSample((x, i), {**rows, "place": (-1, 2)}, "value", "do not join"),
        ErrorSample((x, i, t("int64", 4)), {"at": (0,), "place": (-1, -1), "wrap": False}, "shape", "index tensors"),
        ErrorSample((t("float32", 0, 3), i), rows, "dim", "nothing to index"),
        ErrorSample((x, t("int64", 2, 4)), {"at": (0, 1), "place": (-1, 1), "wrap": False}, "shape", "longer than"),
    ]


def _scatter_errors(name: str) -> list[ErrorSample]:
    rows = {"at": (0,), "place": (-1, 1), "wrap": False}
    x, v, i = t("float32", 4, 3), t("float32", 5, 3), t("int64", 5)
    found = [ErrorSample((e.operands[0], v, *e.operands[1:]), e.attrs, e.kind, e.match) for e in _gather_errors()]
    found += [
        ErrorSample((x,), rows, "value", "got 1 operands"),
        ErrorSample((x, t("float64", 5, 3), i), rows, "dtype", "dtypes"),
        ErrorSample((x, t("float32", 5, 2), i), rows, "shape", "does not have the shape"),
    ]
    if name == "scatter_mul":
        found.append(ErrorSample((t("bool", 4, 3), t("bool", 5, 3), i), rows, "dtype", "not defined"))
    return found


# ------------------------------------------------------------------------------------ affine, reverse


@dataclass(frozen=True)
class Affine:
    """A table's and the elements' shape, and the attributes that join them."""

    label: str
    table: tuple[int, ...]
    elements: tuple[int, ...]
    starts: tuple[int, ...]
    steps: tuple[int, ...]
    alone: bool = True

    @property
    def attrs(self) -> dict[str, Any]:
        return {"starts": self.starts, "steps": self.steps}


AFFINE = (
    Affine("diagonal", (4, 5), (4,), (0, 0), (1, 1)),
    Affine("off-diagonal", (5, 4), (3,), (2, 0), (1, 1)),
    Affine("diagonals", (3, 20, 21), (3, 20), (0, 0, 1), (1, 0, 0, 1, 0, 1)),
    Affine("diagonals-last", (4, 3, 18), (18, 3), (0, 0, 0), (0, 1, 0, 1, 1, 0)),
    Affine("blocks", (6,), (3, 2), (0,), (2, 1)),
    Affine("windows", (7, 2), (5, 2, 3), (0, 0), (1, 0, 1, 0, 1, 0), False),
    Affine("far-windows", (40,), (8, 19), (1,), (2, 1), False),
    Affine("strides", (2, 40), (2, 18), (0, 2), (1, 0, 0, 2)),
    Affine("one", (2, 3), (), (1, 2), ()),
    Affine("empty", (3, 3), (0,), (0, 3), (1, 1)),
)


def _affine() -> list[Sample]:
    found = []
    for dtype in ANY:
        rng = generator("affine", dtype)
        for a in AFFINE:
            found.append(Sample(f"{dtype}-{a.label}", (draw(rng, a.table, dtype),), {**a.attrs, "shape": a.elements}))
        turned = draw(rng, (9, 6), dtype)[::2].T
        found.append(Sample(f"{dtype}-turned", (turned,), {"starts": (1, 0), "steps": (1, 1), "shape": (5,)}))
    return found


def _affine_scatter(name: str) -> list[Sample]:
    found = []
    for dtype in ANY:
        rng = generator(name, dtype)
        for a in AFFINE:
            if a.alone or name == "affine_scatter_add":
                operands = (draw(rng, a.table, dtype), draw(rng, a.elements, dtype))
                found.append(Sample(f"{dtype}-{a.label}", operands, a.attrs))
        turned = (draw(rng, (9, 6), dtype)[::2].T, draw(rng, (10,), dtype)[::2])
        found.append(Sample(f"{dtype}-turned", turned, {"starts": (1, 0), "steps": (1, 1)}))
    return found


def _smooth_affine(name: str) -> list[Sample]:
    found, rng = [], generator("smooth", name)
    for a in AFFINE:
        tables = [rng.normal(size=a.table)]
        if name == "affine":
            found.append(Sample(a.label, tuple(tables), {**a.attrs, "shape": a.elements}))
        elif a.alone or name == "affine_scatter_add":
            found.append(Sample(a.label, (*tables, rng.normal(size=a.elements)), a.attrs))
    return found


def _affine_errors(name: str) -> list[ErrorSample]:
    diagonal = {"starts": (0, 0), "steps": (1, 1)}
    x, v = t("float32", 3, 4), t("float32", 3)
    values: tuple[Any, ...] = () if name == "affine" else (v,)
    shape = {"shape": (3,)} if name == "affine" else {}
    found = [
        ErrorSample((x, *values), {**diagonal, **shape, "starts": (0,)}, "value", "do not fit"),
        ErrorSample((x, *values), {**diagonal, **shape, "steps": (1, 1, 1)}, "value", "do not fit"),
        ErrorSample((x, *values), {**diagonal, **shape, "starts": (1, 0)}, "dim", "does not lie"),
        ErrorSample((x, *values), {**diagonal, **shape, "starts": (0, -1)}, "dim", "does not lie"),
    ]
    if name != "affine":
        found.append(ErrorSample((x, t("float64", 3)), diagonal, "dtype", "dtypes"))
    else:
        found.append(ErrorSample((x,), {**diagonal, "shape": (-1,)}, "value", "negative dimension"))
    if name == "affine_scatter":
        windows = {"starts": (0,), "steps": (1, 1)}
        found.append(ErrorSample((t("float32", 5), t("float32", 3, 2)), windows, "value", "share one place"))
    return found


def _reverse() -> list[Sample]:
    found = []
    for dtype in ANY:
        rng = generator("reverse", dtype)
        for label, make in layouts(rng, dtype):
            x = make()
            for dims in {(), (0,), tuple(range(x.ndim)), (x.ndim - 1,)}:
                if all(0 <= d < x.ndim for d in dims):
                    found.append(Sample(f"{dtype}-{label}-{dims}", (x,), {"dims": dims}))
        found.append(Sample(f"{dtype}-special", (specials(dtype),), {"dims": (0,)}))
    return found


def _smooth_reverse() -> list[Sample]:
    return [Sample(f"{dims}", (generator("smooth").normal(size=(3, 4)),), {"dims": dims}) for dims in ((0,), (1, 0))]


_REVERSE_ERRORS = [
    ErrorSample((t("float32", 2, 3),), {"dims": (2,)}, "dim", "distinct dimensions"),
    ErrorSample((t("float32", 2, 3),), {"dims": (0, 0)}, "dim", "distinct dimensions"),
]

# ------------------------------------------------------------------------------------------- sorting


def _argsort() -> list[Sample]:
    found = []
    for dtype in ANY:
        rng = generator("argsort", dtype)
        for descending in (False, True):
            attrs, end = {"descending": descending}, "down" if descending else "up"
            for label, make in layouts(rng, dtype):
                if label != "0-d":
                    found.append(Sample(f"{dtype}-{label}-{end}", (make(),), attrs))
            rows = np.stack([rng.permutation(np.tile(specials(dtype), 3)) for _ in range(3)])
            found.append(Sample(f"{dtype}-special-{end}", (rows,), attrs))
            found.append(Sample(f"{dtype}-long-{end}", (draw(rng, (1025,), dtype, 100.0),), attrs))
    return found


def _topk() -> list[Sample]:
    found = []
    for dtype in ANY:
        rng = generator("topk", dtype)
        for descending in (False, True):
            end = "down" if descending else "up"
            for label, make in layouts(rng, dtype):
                x = make()
                if x.ndim and x.shape[-1]:
                    found.append(Sample(f"{dtype}-{label}-{end}", (x,), {"k": 1, "descending": descending}))
            rows = np.stack([rng.permutation(np.tile(specials(dtype), 3)) for _ in range(3)])
            for k in (2, rows.shape[-1]):
                found.append(Sample(f"{dtype}-special-{k}-{end}", (rows,), {"k": k, "descending": descending}))
            for k in (5, 128):
                row = draw(rng, (1025,), dtype, 100.0)
                found.append(Sample(f"{dtype}-long-{k}-{end}", (row,), {"k": k, "descending": descending}))
    return found


def _searchsorted() -> list[Sample]:
    found = []
    for dtype in NUMERIC:
        rng = generator("searchsorted", dtype)
        odd = specials(dtype)
        odd = np.sort(odd[odd == odd])
        for right in (False, True):
            attrs, end = {"right": right}, "right" if right else "left"
            row = np.sort(draw(rng, (40,), dtype))
            found.append(Sample(f"{dtype}-row-{end}", (row, np.concatenate([row, draw(rng, (30,), dtype)])), attrs))
            rows, values = np.sort(draw(rng, (2, 3, 17), dtype)), draw(rng, (5, 3, 2), dtype).T
            found.append(Sample(f"{dtype}-rows-{end}", (rows, values), attrs))
            found.append(Sample(f"{dtype}-special-{end}", (odd, specials(dtype)), attrs))
            found.append(Sample(f"{dtype}-none-{end}", (row[:0], row[::3]), attrs))
            found.append(Sample(f"{dtype}-nothing-{end}", (row, row[:0]), attrs))
    return found


_ARGSORT_ERRORS = [
    ErrorSample((t("float32", 1 << 32),), {"descending": False}, "value", "too long"),
    ErrorSample((t("float32"),), {"descending": False}, "shape", "no dimension"),
    ErrorSample((t("uint32", 3),), {"descending": False}, "dtype", "not defined for uint32"),
]
_TOPK_ERRORS = [
    ErrorSample((t("float32"),), {"k": 1, "descending": False}, "shape", "no dimension"),
    ErrorSample((t("uint32", 3),), {"k": 1, "descending": False}, "dtype", "not defined for uint32"),
    ErrorSample((t("float32", 3),), {"k": 0, "descending": False}, "value", "k is 0"),
    ErrorSample((t("float32", 3),), {"k": 4, "descending": True}, "value", "have 3 elements"),
    ErrorSample((t("float32", 300),), {"k": 129, "descending": True}, "value", "from 1 to 128"),
]
_SEARCH_ERRORS = [
    ErrorSample((t("float32", 3), t("float64", 2)), {"right": False}, "dtype", "dtypes"),
    ErrorSample((t("bool", 3), t("bool", 2)), {"right": False}, "dtype", "not defined"),
    ErrorSample((t("float32", 2, 3), t("float32", 3, 3)), {"right": False}, "shape", "looked up"),
    ErrorSample((t("float32"), t("float32")), {"right": False}, "shape", "looked up"),
]

SAMPLES: dict[str, Callable[[], list[Sample]]] = {
    "gather": _gather,
    **{name: functools.partial(_scatter, name) for name in SCATTERS},
    "affine": _affine,
    **{name: functools.partial(_affine_scatter, name) for name in AFFINE_SCATTERS},
    "reverse": _reverse,
    "argsort": _argsort,
    "topk": _topk,
    "searchsorted": _searchsorted,
}
SMOOTH: dict[str, Callable[[], list[Sample]]] = {
    "gather": _smooth_gather,
    **{name: functools.partial(_smooth_scatter, name) for name in SCATTERS},
    **{name: functools.partial(_smooth_affine, name) for name in ("affine", *AFFINE_SCATTERS)},
    "reverse": _smooth_reverse,
}
ERRORS: dict[str, list[ErrorSample]] = {
    "gather": _gather_errors(),
    **{name: _scatter_errors(name) for name in SCATTERS},
    **{name: _affine_errors(name) for name in ("affine", *AFFINE_SCATTERS)},
    "reverse": _REVERSE_ERRORS,
    "argsort": _ARGSORT_ERRORS,
    "topk": _TOPK_ERRORS,
    "searchsorted": _SEARCH_ERRORS,
}
