"""Operands for every op, in one table: what the op tests run eagerly, compiled, through the references, and
through the derivative rules.

`samples(name)` are calls that work (all dtypes; 0-d, empty, transposed, strided, repeated memory; infinities, NaN,
signed zeros, denormals), `smooth_samples(name)` float64 calls at points where finite differences make sense,
`error_samples(name)` calls that the type rule must refuse. A test fails when an op has none. Larger families of ops
have a module of their own, listed in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kiln.ir.graph import Constant
from kiln.ir.halves import converted
from kiln.ir.types import DTYPES, bool_, float32, float64, int64
from tests.ops import (
    samples_attention,
    samples_complex,
    samples_conv,
    samples_fft,
    samples_gamma,
    samples_gather,
    samples_linalg,
    samples_pointwise,
    samples_pool,
    samples_scan,
    samples_series,
    samples_transcendental,
    samples_transfer,
)
from tests.ops.sampling import (
    ANY,
    FLOATS,
    HALVES,
    INTS,
    MAIN,
    NUMERIC,
    Array,
    ErrorSample,
    Sample,
    draw,
    generator,
    layouts,
    specials,
)
from tests.ops.sampling import t as _t

FAMILIES: tuple[Any, ...] = (
    samples_attention,
    samples_complex,
    samples_conv,
    samples_fft,
    samples_gamma,
    samples_gather,
    samples_linalg,
    samples_pointwise,
    samples_pool,
    samples_scan,
    samples_series,
    samples_transcendental,
    samples_transfer,
)
"""Modules of further families, with `SAMPLES`, `SMOOTH` and `ERRORS` (see `sampling.py`)."""

# -------------------------------------------------------------------------------------- elementwise

_DTYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "copy"), ANY),
    **dict.fromkeys(("sub", "neg", "abs", "sign", "relu"), NUMERIC),
    **dict.fromkeys(("div", "floor", "sqrt", "exp", "log", "sin", "cos", "tanh", "erf"), FLOATS),
    **dict.fromkeys(("sigmoid", "gelu", "pow"), FLOATS),
    **dict.fromkeys(("logical_and", "logical_or", "logical_not"), ("bool",)),
}
_UNARY = (
    "neg",
    "abs",
    "sign",
    "relu",
    "floor",
    "sqrt",
    "exp",
    "log",
    "sin",
    "cos",
    "tanh",
    "erf",
    "sigmoid",
    "gelu",
)
_ARITY = {name: 1 if name in (*_UNARY, "logical_not", "copy") else 2 for name in _DTYPES}


def _elementwise(name: str) -> list[Sample]:
    found, arity = [], _ARITY[name]
    for dtype in _DTYPES[name]:
        rng = generator(name, dtype)
        for label, make in layouts(rng, dtype):
            found.append(Sample(f"{dtype}-{label}", tuple(make() for _ in range(arity))))
        special = specials(dtype)
        grid = np.meshgrid(*[special] * arity, indexing="ij")
        found.append(Sample(f"{dtype}-special", tuple(np.ascontiguousarray(g) for g in grid)))
        if arity == 2:
            mixed = (draw(rng, (6, 9), dtype).T, draw(rng, (9, 6), dtype))
            found.append(Sample(f"{dtype}-mixed", mixed))
    return found


def _where() -> list[Sample]:
    found = []
    for dtype in ANY:
        rng = generator("where", dtype)
        shaped = dict(layouts(rng, "bool"))
        for label, make in layouts(rng, dtype):
            found.append(Sample(f"{dtype}-{label}", (shaped[label](), make(), make())))
        a, b = np.meshgrid(specials(dtype), specials(dtype))
        found.append(Sample(f"{dtype}-special", (a == a.T, a, b)))
    return found


def _cast() -> list[Sample]:
    found = []
    for old in ANY:
        for new in ANY:
            rng = generator("cast", old, new)
            for label, make in layouts(rng, old):
                if label in ("0-d", "empty", "line", "strided") and (label == "line" or {old, new} <= set(MAIN)):
                    found.append(Sample(f"{old}-{new}-{label}", (make(),), {"dtype": DTYPES[new]}))
            found.append(Sample(f"{old}-{new}-special", (specials(old),), {"dtype": DTYPES[new]}))
    around = [-129.0, 127.9, 128, 255.9, 256, 300, 32768, 65536.5, 2**31 - 0.25, 2**31, -(2**31) - 0.5, -(2**31) - 1]
    for dtype in FLOATS:
        limits = converted(np.array([*around, 3e9, 1e10 + 3, -1e20, np.nan]), DTYPES[dtype])
        found += [Sample(f"{dtype}-{to}-limits", (limits,), {"dtype": DTYPES[to]}) for to in INTS]
    wide = [1.0, 1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-11 - 2.0**-40, 65519.999, 65520, 2.0**-25, 2.0**-25 + 2.0**-60]
    wide = np.array([*wide, 2.0**-134, 2.0**-134 * (1 + 2.0**-30), 2.0**-133, 3.3961775e38, 1e39, 1e300, 5e-324])
    found += [Sample(f"float64-{t}-once", (np.concatenate([wide, -wide]),), {"dtype": DTYPES[t]}) for t in HALVES]
    edges = np.array([2.0**63, -(2.0**63), 2.0**63 - 1024, 1e300, -0.9, 16777217.5])
    found.append(Sample("float64-int64-edges", (edges,), {"dtype": int64}))
    halfway = np.array([2**53 + 1, 2**24 + 1, -(2**24) - 3, 2**63 - 1])
    found += [Sample(f"int64-{t}-halfway", (halfway,), {"dtype": t}) for t in (float32, float64)]
    return found


# --------------------------------------------------------------------------------------- reductions

_REDUCED: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = (
    ("row", (37,), (0,)),
    ("one", (1,), (0,)),
    ("rows", (5, 130), (1,)),
    ("columns", (300, 7), (0,)),
    ("all", (3, 4, 70), (0, 1, 2)),
    ("outer", (6, 5, 3), (0, 1)),
    ("middle", (2, 9, 19), (1,)),
    ("ends", (3, 4, 33), (0, 2)),
    ("kept-empty", (0, 5), (1,)),
    ("single", (4, 1, 3), (1,)),
)


def _reduction(name: str) -> list[Sample]:
    found = []
    dtypes = ("bool",) if name in ("any", "all") else NUMERIC if name in ("sum", "prod") else ANY
    for dtype in dtypes:
        rng = generator(name, dtype)
        for label, shape, dims in _REDUCED:
            if dtype not in MAIN and label not in ("rows", "columns", "ends"):
                continue
            found.append(Sample(f"{dtype}-{label}", (draw(rng, shape, dtype),), {"dims": dims}))
        turned = draw(rng, (40, 6), dtype).T
        found.append(Sample(f"{dtype}-transposed", (turned,), {"dims": (1,)}))
        found.append(Sample(f"{dtype}-strided", (draw(rng, (8, 100), dtype)[::2, ::-3][:, ::-1],), {"dims": (0,)}))
        ties = np.repeat(draw(rng, (4, 5), dtype), 3, axis=1)
        found.append(Sample(f"{dtype}-ties", (ties,), {"dims": (1,)}))
        special = specials(dtype)
        grid = np.stack([np.roll(special, k) for k in range(len(special))])
        found += [Sample(f"{dtype}-special{d}", (grid,), {"dims": (d,)}) for d in (0, 1)]
        if name in ("sum", "prod", "any", "all"):
            empty = [
                ("empty-last", (3, 0), (1,)),
                ("empty-first", (0, 3), (0,)),
                ("empty-all", (3, 0), (0, 1)),
            ]
            found += [Sample(f"{dtype}-{label}", (draw(rng, s, dtype),), {"dims": d}) for label, s, d in empty]
    if name in ("sum", "amax"):
        for dtype in FLOATS:
            rng = generator(name, dtype, "long")
            found.append(Sample(f"{dtype}-long", (draw(rng, (2, 4096 + 70), dtype),), {"dims": (1,)}))
            found.append(Sample(f"{dtype}-tall", (draw(rng, (600, 18), dtype),), {"dims": (0,)}))
            found.append(Sample(f"{dtype}-minus-zero", (np.full((3, 5), -0.0, DTYPES[dtype].numpy),), {"dims": (1,)}))
    if name == "argmax":
        found = [s for s in found if len(s.attrs["dims"]) == 1]
        low = np.full((2, 70), -np.inf, np.float32)
        found.append(Sample("float32-all-low", (low,), {"dims": (1,)}))
        late = low.copy()
        late[0, 66:] = np.nan
        found.append(Sample("float32-late-nan", (late,), {"dims": (1,)}))
    return found


# ----------------------------------------------------------------------------------------- movement


def _x(*shape: int, dtype: str = "float32") -> Array:
    return draw(generator("movement", shape, dtype), shape, dtype)


def _reshape() -> list[Sample]:
    cases = [
        ("flatten", _x(2, 3, 4), (24,)),
        ("split", _x(24), (2, 3, 4)),
        ("regroup", _x(4, 6), (3, 8)),
        ("partly", _x(2, 3, 4, 5), (6, 20)),
        ("ones", _x(1, 5, 1), (5, 1, 1, 1)),
        ("to-0-d", _x(1, 1), ()),
        ("from-0-d", _x(), (1, 1)),
        ("empty", _x(0, 3), (6, 0)),
        ("same", _x(3, 4), (3, 4)),
        ("transposed", _x(4, 6).T, (24,)),
        ("transposed-split", _x(4, 6).T, (2, 3, 4)),
        ("strided", _x(4, 12)[:, ::2], (2, 2, 6)),
        ("int64", _x(2, 6, dtype="int64"), (3, 4)),
        ("bool", _x(2, 6, dtype="bool"), (12,)),
    ]
    return [Sample(label, (x,), {"shape": shape}) for label, x, shape in cases]


def _permute() -> list[Sample]:
    cases = [
        ("matrix", _x(3, 5), (1, 0)),
        ("cube", _x(2, 3, 4), (2, 0, 1)),
        ("same", _x(2, 3), (0, 1)),
        ("0-d", _x(), ()),
        ("empty", _x(0, 3, 2), (2, 0, 1)),
        ("strided", _x(6, 8, dtype="float64")[::2, 1::2], (1, 0)),
        ("bool", _x(4, 3, dtype="bool"), (1, 0)),
    ]
    return [Sample(label, (x,), {"dims": dims}) for label, x, dims in cases]


def _broadcast() -> list[Sample]:
    cases: list[tuple[str, Array, tuple[int, ...], tuple[int, ...]]] = [
        ("rows", _x(5), (3, 5), (1,)),
        ("columns", _x(3), (3, 5), (0,)),
        ("stretch", _x(3, 1, 4), (3, 2, 4), (0, 1, 2)),
        ("0-d", _x(), (2, 3), ()),
        ("0-d-0-d", _x(), (), ()),
        ("middle", _x(3, 2), (4, 3, 5, 2), (1, 3)),
        ("same", _x(2, 3), (2, 3), (0, 1)),
        ("to-empty", _x(1, 3), (0, 3), (0, 1)),
        ("strided", _x(4, 6)[:, ::2], (2, 4, 3), (1, 2)),
        ("int64", _x(1, dtype="int64"), (7,), (0,)),
    ]
    return [Sample(label, (x,), {"shape": shape, "dims": dims}) for label, x, shape, dims in cases]


_CUTS: tuple[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    ("line", (10,), (2,), (9,), (1,)),
    ("steps", (20,), (3,), (20,), (4,)),
    ("box", (5, 6, 7), (1, 0, 2), (4, 6, 7), (1, 1, 2)),
    ("whole", (3, 4), (0, 0), (3, 4), (1, 1)),
    ("empty", (3, 4), (0, 4), (3, 4), (1, 1)),
    ("of-empty", (0, 4), (0, 1), (0, 3), (1, 1)),
    ("0-d", (), (), (), ()),
    ("row", (6, 33), (2, 0), (3, 33), (1, 1)),
)


def _cut(starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]) -> dict[str, Any]:
    return {"starts": starts, "stops": stops, "steps": steps}


def _slice() -> list[Sample]:
    found = [Sample(label, (_x(*shape),), _cut(*cut)) for label, shape, *cut in _CUTS]
    found.append(Sample("transposed", (_x(6, 8).T,), _cut((1, 0), (8, 6), (3, 2))))
    found.append(Sample("int64", (_x(9, dtype="int64"),), _cut((1,), (8,), (2,))))
    return found


def _slice_scatter() -> list[Sample]:
    found = []
    for cut in _slice():
        (base,) = cut.operands
        region = base[tuple(map(slice, *(cut.attrs[k] for k in ("starts", "stops", "steps"))))] if base.ndim else base
        value = draw(generator("scatter", cut.label), np.shape(region), base.dtype.name)
        found.append(Sample(cut.label, (base, value), cut.attrs))
    return found


def _cat() -> list[Sample]:
    cases: list[tuple[str, tuple[Array, ...], int]] = [
        ("lines", (_x(3), _x(4), _x(1)), 0),
        ("rows", (_x(2, 5), _x(3, 5)), 0),
        ("columns", (_x(4, 2), _x(4, 17), _x(4, 3)), 1),
        ("one", (_x(3, 2),), 1),
        ("with-empty", (_x(0, 3), _x(2, 3), _x(0, 3)), 0),
        ("all-empty", (_x(0, 3), _x(0, 3)), 0),
        ("layouts", (_x(5, 4).T, _x(8, 5)[::2]), 1),
        ("int64", (_x(3, dtype="int64"), _x(3, dtype="int64") * 2), 0),
        ("bool", (_x(3, dtype="bool"), _x(2, dtype="bool")), 0),
    ]
    return [Sample(label, parts, {"dim": dim}) for label, parts, dim in cases]


def _pick() -> list[Sample]:
    rng = generator("pick")
    found = []
    for dtype in ANY:
        found.append(Sample(f"{dtype}-rows", (_x(9, 5, dtype=dtype), rng.integers(0, 5, 9))))
    found.append(Sample("vector", (_x(6), np.array(3))))
    found.append(Sample("cube", (_x(2, 3, 4), rng.integers(0, 4, (2, 3)))))
    found.append(Sample("empty", (_x(0, 4), np.zeros((0,), np.int64))))
    found.append(Sample("empty-of-nothing", (_x(0, 0), np.zeros((0,), np.int64))))
    found.append(Sample("transposed", (_x(5, 40).T, rng.integers(0, 5, 80)[::2])))
    return found


# ------------------------------------------------------------------------------------ linear algebra


def _matmul() -> list[Sample]:
    found = []
    for dtype in NUMERIC:
        rng = generator("matmul", dtype)
        cases: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
            ("one", (1, 1), (1, 1)),
            ("small", (3, 4), (4, 5)),
            ("odd", (7, 13), (13, 19)),
            ("batch", (2, 3, 4), (2, 4, 5)),
            ("deep-batch", (2, 1, 3, 2), (2, 1, 2, 3)),
            ("blocks", (2, 300), (300, 3)),
            ("no-k", (2, 0), (0, 3)),
            ("no-m", (0, 2), (2, 3)),
            ("no-batch", (0, 2, 2), (0, 2, 2)),
            ("row", (1, 20), (20, 17)),
            ("column", (18, 5), (5, 1)),
        ]
        if dtype not in MAIN:
            cases = [case for case in cases if case[0] in ("odd", "batch", "blocks", "no-k")]
        for label, a, b in cases:
            found.append(Sample(f"{dtype}-{label}", (draw(rng, a, dtype), draw(rng, b, dtype))))
        left, right = draw(rng, (5, 4), dtype), draw(rng, (6, 5), dtype)
        found.append(Sample(f"{dtype}-transposed", (left.T, right.T)))
        found.append(
            Sample(f"{dtype}-strided", (draw(rng, (8, 10), dtype)[::2, ::2], draw(rng, (5, 9), dtype)[:, 1::3]))
        )
        if dtype in HALVES:
            wide = (draw(rng, (2, 3, 300), dtype), draw(rng, (2, 300, 5), dtype))
            found.append(Sample(f"{dtype}-to-float32", wide, {"dtype": float32}))
        repeated = np.broadcast_to(draw(rng, (1, 3, 4), dtype), (2, 3, 4))
        found.append(Sample(f"{dtype}-repeated", (repeated, draw(rng, (2, 4, 2), dtype))))
    special = specials("float32")
    found.append(Sample("float32-special", (np.stack([special, special[::-1]]), np.stack([special, special]).T)))
    return found


def _addmm() -> list[Sample]:
    found = []
    for dtype in NUMERIC:
        rng = generator("addmm", dtype)
        cases = [("plain", (3, 4), (4, 5)), ("batch", (2, 7, 300), (2, 300, 5)), ("no-k", (2, 0), (0, 3))]
        for label, a, b in cases if dtype in MAIN or dtype in HALVES else cases[:1]:
            c = (*a[:-2], b[-1])
            found.append(Sample(f"{dtype}-{label}", (draw(rng, a, dtype), draw(rng, b, dtype), draw(rng, c, dtype))))
    return found


# ------------------------------------------------------------------------------------ create, random


def _full() -> list[Sample]:
    cases: list[tuple[tuple[int, ...], Any, Any]] = [
        ((3, 4), float32, 1.5), ((), float64, -0.0), ((), float64, 0.0), ((0, 2), float32, 1.0), ((5,), float32, 0.1),
        ((5,), float64, 0.1), ((2,), float32, float("nan")), ((2,), float32, float("-inf")), ((2,), float32, 1e300),
        ((3,), int64, -7), ((3,), int64, -(2**63)), ((2, 2), bool_, True), ((2,), float32, 3), ((33,), float32, 1e-45),
    ]  # fmt: skip
    return [
        Sample(f"{dtype}-{value}-{len(shape)}", (), {"shape": shape, "dtype": dtype, "value": value})
        for shape, dtype, value in cases
    ]


def _iota() -> list[Sample]:
    cases = [
        ((7,), int64, 0),
        ((3, 20), float32, 1),
        ((3, 20), float64, 0),
        ((2, 3, 4), int64, 1),
        ((0, 2), int64, 0),
    ]
    return [Sample(f"{t}-{s}-{d}", (), {"shape": s, "dtype": t, "dim": d}) for s, t, d in cases]


def _constant() -> list[Sample]:
    datas = [specials(dtype) for dtype in ANY]
    datas += [_x(2, 3).T, np.array(1.25), np.zeros((0, 2), np.float32), np.array(-0.0, np.float32)]
    return [Sample(f"{x.dtype}-{x.shape}", (), {"data": Constant(x)}) for x in datas]


def _random() -> list[Sample]:
    states = {"zero": (0, 0), "seeded": (12345678901234, 7), "negative": (-1, -3), "far": (1, 2**32 - 5)}
    found = []
    for label, state in states.items():
        for dtype in (float32, float64):
            for shape in ((), (37,), (3, 11), (0, 2)):
                attrs = {"shape": shape, "dtype": dtype}
                found.append(Sample(f"{label}-{dtype}-{list(shape)}", (np.array(state, np.int64),), attrs))
    return found


_TABLE: dict[str, Callable[[], list[Sample]]] = {
    "where": _where, "cast": _cast, "reshape": _reshape, "permute": _permute, "broadcast": _broadcast,
    "slice": _slice, "slice_scatter": _slice_scatter, "cat": _cat, "pick": _pick, "matmul": _matmul, "addmm": _addmm,
    "full": _full, "iota": _iota, "constant": _constant, "uniform": _random, "normal": _random,
}  # fmt: skip
_REDUCTIONS = ("sum", "prod", "amax", "amin", "argmax", "any", "all")


def samples(name: str) -> list[Sample]:
    """Calls of op `name` that must work; KeyError when the table has none."""
    found = _samples(name)
    return [*found, *samples_complex.more(name, found)]


def _samples(name: str) -> list[Sample]:
    for family in FAMILIES:
        if name in family.SAMPLES:
            made: list[Sample] = family.SAMPLES[name]()
            return made
    if name in _DTYPES:
        return _elementwise(name)
    if name in _REDUCTIONS:
        return _reduction(name)
    return _TABLE[name]()


# -------------------------------------------------------------------------------------- derivatives

_DOMAIN: dict[str, tuple[float, float]] = {
    "sqrt": (0.3, 3),
    "log": (0.3, 3),
    "abs": (0.2, 2),
    "relu": (0.2, 2),
}


def _signed(x: Array, rng: np.random.Generator) -> Array:
    return x * rng.choice([-1.0, 1.0], x.shape)


def smooth_samples(name: str) -> list[Sample]:
    """float64 calls at points where the op is differentiable (or, for ties, where the rule's choice is what the
    test of that rule states). Empty for ops without a derivative."""
    return [*_smooth_samples(name), *samples_complex.more_smooth(name)]


def _smooth_samples(name: str) -> list[Sample]:
    for family in FAMILIES:
        if name in family.SAMPLES:
            made: list[Sample] = family.SMOOTH[name]() if name in family.SMOOTH else []
            return made
    rng = generator("smooth", name)
    if name in ("abs", "relu"):
        low, high = _DOMAIN[name]
        return [Sample("signed", (_signed(rng.uniform(low, high, (3, 4)), rng),))]
    if name in ("sign", "floor"):
        return [Sample("plain", (rng.integers(-3, 3, (3, 4)) + 0.5,))]
    if name == "div":
        return [Sample("plain", (rng.normal(size=(3, 2)), _signed(rng.uniform(0.5, 2, (3, 2)), rng)))]
    if name == "pow":
        return [Sample("plain", (rng.uniform(0.3, 2, (3, 2)), rng.normal(size=(3, 2))))]
    if name in ("maximum", "minimum"):
        a = rng.normal(size=(3, 4))
        return [Sample("apart", (a, a + _signed(rng.uniform(0.2, 1, a.shape), rng)))]
    if name in ("amax", "amin"):
        apart = rng.permutation(24).reshape(2, 3, 4) / 3.0
        return [Sample(str(dims), (apart,), {"dims": dims}) for dims in ((0,), (2,), (0, 2), (0, 1, 2))]
    if name in _DTYPES and name in (*_UNARY, "copy"):
        low, high = _DOMAIN.get(name, (-2, 2))
        return [
            Sample("plain", (rng.uniform(low, high, (3, 4)),)),
            Sample("0-d", (rng.uniform(low, high, ()),)),
        ]
    if name in ("add", "sub", "mul"):
        return [Sample("plain", (rng.normal(size=(3, 4)), rng.normal(size=(3, 4))))]
    if name == "where":
        cond = draw(rng, (3, 4), "bool")
        return [Sample("plain", (cond, rng.normal(size=(3, 4)), rng.normal(size=(3, 4))))]
    if name == "cast":
        return [Sample("plain", (rng.normal(size=(3, 4)),), {"dtype": float64})]
    if name == "matmul":
        shapes = [((2, 3), (3, 4)), ((2, 2, 3), (2, 3, 2))]
        return [Sample(str(a), (rng.normal(size=a), rng.normal(size=b))) for a, b in shapes]
    if name == "addmm":
        return [Sample("plain", tuple(rng.normal(size=s) for s in ((2, 2, 3), (2, 3, 4), (2, 4))))]
    if name == "prod":
        x = rng.normal(size=(2, 3, 4))
        x[0, 1, 2] = x[1, 0, 3] = x[1, 1, 3] = 0.0  # the gradient is right beside zeros too
        return [Sample(str(dims), (x,), {"dims": dims}) for dims in ((0,), (1,), (2,), (0, 2), (0, 1, 2))]
    if name == "sum":
        x = rng.normal(size=(2, 3, 4))
        return [Sample(str(dims), (x,), {"dims": dims}) for dims in ((0,), (2,), (1, 2), (0, 1, 2))]
    if name in ("reshape", "permute", "broadcast", "slice", "slice_scatter", "cat", "pick"):
        small = [s for s in samples(name) if all(x.size < 150 for x in s.operands) and s.operands[0].dtype.kind == "f"]
        as_double = [tuple(x.astype(np.float64) if x.dtype.kind == "f" else x for x in s.operands) for s in small]
        return [Sample(s.label, x, s.attrs) for s, x in zip(small, as_double, strict=True)]
    return []


# ------------------------------------------------------------------------------------------- errors


_F = _t("float32", 2, 3)


def _elementwise_errors(name: str) -> list[ErrorSample]:
    dtypes, arity = _DTYPES[name], _ARITY[name]
    found = [ErrorSample((_F,) * (arity + 1), {}, "value", f"takes {arity} operand")]
    refused = [d for d in (*ANY, "uint16", "uint32") if d not in dtypes]
    if name != "copy":
        found += [ErrorSample((_t(d, 3),) * arity, {}, "dtype", f"not defined for {d}") for d in refused]
    if arity == 2:
        ok = dtypes[-1]
        found.append(ErrorSample((_t(ok, 2, 3), _t(ok, 3, 2)), {}, "shape", "operands have types"))
        found.append(ErrorSample((_t(ok, 3), _t(ok, 1)), {}, "shape", "operands have types"))
        other = "int64" if ok != "int64" else "float32"
        found.append(ErrorSample((_t(ok, 3), _t(other, 3)), {}, "dtype", "operands have dtypes"))
    return found


def _reduction_errors(name: str) -> list[ErrorSample]:
    ok = "bool" if name in ("any", "all") else "float32"
    x = _t(ok, 2, 3)
    found = [
        ErrorSample((x,), {"dims": ()}, "value", "at least one dimension"),
        ErrorSample((x,), {"dims": (2,)}, "dim", "out of range"),
        ErrorSample((x,), {"dims": (-1,)}, "dim", "out of range"),
        ErrorSample((x,), {"dims": (1, 0)}, "value", "sorted"),
        ErrorSample((x,), {"dims": (1, 1)}, "value", "sorted"),
    ]
    wrong = "float32" if ok == "bool" else "bool" if name in ("sum", "prod") else "uint32"
    found.append(ErrorSample((_t(wrong, 3),), {"dims": (0,)}, "dtype", "not defined"))
    if name in ("amax", "amin", "argmax"):
        found.append(ErrorSample((_t(ok, 0, 3),), {"dims": (0,)}, "dim", "is empty"))
    if name == "argmax":
        found.append(ErrorSample((x,), {"dims": (0, 1)}, "value", "one dimension"))
    return found


_ERRORS: dict[str, list[ErrorSample]] = {
    "where": [
        ErrorSample((_F, _F, _F), {}, "dtype", "not bool"),
        ErrorSample((_t("bool", 3), _F, _F), {}, "shape", "the condition has type"),
        ErrorSample((_t("bool", 2, 3), _F, _t("float64", 2, 3)), {}, "dtype", "dtypes"),
    ],
    "cast": [ErrorSample((_F,), {"dtype": DTYPES["uint32"]}, "dtype", "can't convert float32 to uint32")],
    "reshape": [
        ErrorSample((_F,), {"shape": (4,)}, "shape", "number of elements"),
        ErrorSample((_F,), {"shape": (-1,)}, "value", "negative"),
    ],
    "permute": [
        ErrorSample((_F,), {"dims": (0,)}, "dim", "not a permutation"),
        ErrorSample((_F,), {"dims": (0, 0)}, "dim", "not a permutation"),
    ],
    "broadcast": [
        ErrorSample((_F,), {"shape": (2, 4), "dims": (0, 1)}, "shape", "can't become"),
        ErrorSample((_F,), {"shape": (2, 3), "dims": (1, 0)}, "dim", "does not place"),
        ErrorSample((_F,), {"shape": (2, 3), "dims": (0,)}, "dim", "does not place"),
        ErrorSample((_F,), {"shape": (2, 3), "dims": (0, 2)}, "dim", "does not place"),
    ],
    "slice": [
        ErrorSample((_F,), _cut((0,), (2,), (1,)), "value", "one start"),
        ErrorSample((_F,), _cut((0, 0), (2, 4), (1, 1)), "dim", "does not lie"),
        ErrorSample((_F,), _cut((0, 2), (2, 1), (1, 1)), "dim", "does not lie"),
        ErrorSample((_F,), _cut((-1, 0), (2, 1), (1, 1)), "dim", "does not lie"),
        ErrorSample((_F,), _cut((0, 0), (2, 3), (1, 0)), "value", "not positive"),
    ],
    "slice_scatter": [
        ErrorSample((_F, _t("float32", 2, 2)), _cut((0, 0), (2, 3), (1, 1)), "shape", "has shape"),
        ErrorSample((_F, _t("float64", 2, 3)), _cut((0, 0), (2, 3), (1, 1)), "dtype", "dtypes"),
        ErrorSample((_F, _F), _cut((0, 0), (3, 3), (1, 1)), "dim", "does not lie"),
    ],
    "cat": [
        ErrorSample((), {"dim": 0}, "value", "at least one"),
        ErrorSample((_F, _F), {"dim": 2}, "dim", "out of range"),
        ErrorSample((_F, _t("float32", 3, 3)), {"dim": 1}, "shape", "differ outside"),
        ErrorSample((_F, _t("float32", 3)), {"dim": 0}, "shape", "differ outside"),
        ErrorSample((_F, _t("int64", 2, 3)), {"dim": 0}, "dtype", "dtypes"),
    ],
    "pick": [
        ErrorSample((_F, _t("float32", 2)), {}, "dtype", "not int64"),
        ErrorSample((_F, _t("int64", 3)), {}, "shape", "can't pick"),
        ErrorSample((_t("float32"), _t("int64")), {}, "shape", "can't pick"),
        ErrorSample((_t("float32", 2, 0), _t("int64", 2)), {}, "dim", "is empty"),
    ],
    "matmul": [
        ErrorSample((_F, _F), {}, "shape", "columns"),
        ErrorSample((_F, _t("float64", 3, 2)), {}, "dtype", "dtypes"),
        ErrorSample((_t("bool", 2, 3), _t("bool", 3, 2)), {}, "dtype", "not defined"),
        ErrorSample((_t("float32", 2, 3), _t("float32", 3, 2)), {"dtype": float64}, "dtype", "gives float32"),
        ErrorSample((_t("float32", 3), _t("float32", 3)), {}, "shape", "stacks of matrices"),
        ErrorSample((_t("float32", 2, 2, 3), _t("float32", 3, 3, 2)), {}, "shape", "batch"),
    ],
    "addmm": [
        ErrorSample((_F, _t("float32", 3, 2), _t("float32", 3)), {}, "shape", "no row for each"),
        ErrorSample((_F, _t("float32", 3, 2), _t("float64", 2)), {}, "dtype", "what is added"),
        ErrorSample((_F, _F, _t("float32", 3)), {}, "shape", "columns"),
        ErrorSample((_F, _t("float32", 3, 2), _t("float32", 2)), {"library": "no"}, "dtype", "nn, nt, tn or tt"),
        ErrorSample((_t("int32", 2, 3), _t("int32", 3, 2), _t("int32", 2)), {"library": "nn"}, "dtype", "no library"),
    ],
    "full": [
        ErrorSample((), {"shape": (2,), "dtype": int64, "value": 1.5}, "value", "no int64"),
        ErrorSample((), {"shape": (2,), "dtype": int64, "value": 2**63}, "value", "no int64"),
        ErrorSample((), {"shape": (2,), "dtype": bool_, "value": 1}, "value", "not a bool"),
        ErrorSample((), {"shape": (-2,), "dtype": float32, "value": 1.0}, "value", "negative"),
        ErrorSample((), {"shape": (2,), "dtype": DTYPES["uint32"], "value": 1}, "dtype", "can't make"),
        ErrorSample((), {"shape": (2,), "dtype": float32, "value": "1"}, "value", "not a number"),
    ],
    "iota": [
        ErrorSample((), {"shape": (2,), "dtype": int64, "dim": 1}, "dim", "out of range"),
        ErrorSample((), {"shape": (2,), "dtype": bool_, "dim": 0}, "dtype", "can't make"),
    ],
    "constant": [
        ErrorSample((), {"data": 3}, "value", "not a Constant"),
        ErrorSample((), {"data": Constant(np.zeros(2, np.uint16))}, "dtype", "uint16"),
    ],
    "uniform": [
        ErrorSample((_t("int64", 3),), {"shape": (2,), "dtype": float32}, "dtype", "the state is"),
        ErrorSample((_t("int64", 2),), {"shape": (2,), "dtype": int64}, "dtype", "can't make"),
    ],
    "normal": [ErrorSample((_t("float32", 2),), {"shape": (2,), "dtype": float32}, "dtype", "the state is")],
}


def error_samples(name: str) -> list[ErrorSample]:
    """Calls of op `name` that must be refused; KeyError when the table has none."""
    return [*_error_samples(name), *samples_complex.more_errors(name)]


def _error_samples(name: str) -> list[ErrorSample]:
    for family in FAMILIES:
        if name in family.SAMPLES:
            found: list[ErrorSample] = family.ERRORS[name]
            return found
    if name in _DTYPES:
        return _elementwise_errors(name)
    return _reduction_errors(name) if name in _REDUCTIONS else _ERRORS[name]
