"""More of the table of `fuzz_table`: elementary functions, rounding and division, cumulative functions, statistics,
norms, activations, attention, and every method that writes in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from fuzz_programs import FLOATS, INTS
from fuzz_table import (
    ANY,
    NUMERIC,
    TABLE,
    VIEWS,
    Draw,
    Drawn,
    F,
    Run,
    Unfit,
    add_binary,
    add_unary,
    calling,
    either,
    entry,
    method,
    through,
)

import kiln

Oracle = Callable[..., Any] | None

# ---- one operand

UNARY: dict[str, Oracle] = {
    "acos": np.arccos, "arccos": np.arccos, "acosh": np.arccosh, "arccosh": np.arccosh, "asin": np.arcsin,
    "arcsin": np.arcsin, "asinh": np.arcsinh, "arcsinh": np.arcsinh, "atan": np.arctan, "arctan": np.arctan,
    "atanh": np.arctanh, "arctanh": np.arctanh, "cosh": np.cosh, "deg2rad": np.deg2rad, "digamma": None,
    "erfc": np.vectorize(math.erfc, otypes=[float]), "erfinv": None, "exp2": np.exp2, "expm1": np.expm1,
    "lgamma": None, "log10": np.log10, "log1p": np.log1p, "log2": np.log2, "logit": None, "rad2deg": np.rad2deg,
    "sinc": None, "sinh": np.sinh, "tan": None, "absolute": np.abs, "ceil": np.ceil, "fix": np.trunc,
    "floor": np.floor, "frac": None, "negative": np.negative, "round": np.rint, "sgn": np.sign, "sign": np.sign,
    "trunc": np.trunc, "positive": np.positive, "signbit": np.signbit, "isfinite": np.isfinite, "isinf": np.isinf,
    "isnan": np.isnan, "isneginf": None, "isposinf": None, "isreal": None, "nan_to_num": None,
    "bitwise_not": np.invert,
}  # fmt: skip
EXACT = ("absolute", "bitwise_not", "ceil", "fix", "floor", "negative", "positive", "round", "trunc")
"""What integers stay integers of."""


def in_float64(oracle: Oracle) -> Oracle:
    """NumPy computes the functions of small integers in float16."""
    return None if oracle is None else lambda *v: oracle(*(x.astype(np.float64) for x in v))


for _name, _oracle in UNARY.items():
    add_unary(_name, ANY, _oracle if _name in EXACT else in_float64(_oracle))

ABOVE = {"acosh": 1.5, "arccosh": 1.5, "erfinv": 0.0, "log": 0.1, "logit": 0.0, "sqrt": 0.1}
"""Functions that most numbers are outside of, and what to add to numbers in (0.1, 0.9) to be inside."""


def inside(d: Draw, name: str, lo: int = 0) -> int:
    """An operand, most often one that the function is defined for."""
    if name not in ABOVE or d.flip(0.2):
        return d.take(ANY, lo, 3)
    dtype = d.dtype(FLOATS)
    numbers = d.numbers(d.shape(d.int(max(1, lo), 3)), dtype, positive=True)
    return d.put((numbers + ABOVE[name]).astype(numbers.dtype), True)


def add_inside(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        return [inside(d, name)], either(d, name), in_float64(UNARY.get(name))

    TABLE[name] = draw


for _name in ("acosh", "arccosh", "erfinv", "logit"):
    add_inside(_name)


@entry("round to decimals")
def _(d: Draw) -> Drawn:
    return [d.take(FLOATS)], either(d, "round", decimals=d.one([-1, 1, 2])), None


@entry("logit with eps")
def _(d: Draw) -> Drawn:
    return [d.take(ANY)], either(d, "logit", d.one([0.1, 1e-6])), None


# ---- two operands

BINARY: dict[str, Oracle] = {
    "atan2": None, "arctan2": None, "hypot": in_float64(np.hypot), "logaddexp": in_float64(np.logaddexp),
    "logaddexp2": in_float64(np.logaddexp2),
    "xlogy": None, "xlog1py": None, "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor, "copysign": None, "divide": None,
    "heaviside": None, "ldexp": None, "float_power": None, "multiply": None, "subtract": None,
    "logical_xor": np.logical_xor, "fmax": None, "fmin": None,
}  # fmt: skip
TENSORS_ONLY = ("fmax", "fmin", "heaviside", "ldexp", "logaddexp", "logaddexp2", "logical_xor")
INTEGERS_ONLY = ("bitwise_and", "bitwise_or", "bitwise_xor")
for _name, _oracle in BINARY.items():
    add_binary(_name, ANY, _oracle, numbers=_name not in (*TENSORS_ONLY, *INTEGERS_ONLY))


@entry("nextafter", "nextafter_")
def _(d: Draw) -> Drawn:
    """It has no derivative."""
    k = d.take(FLOATS, 1, 3)
    if d.flip():
        return [k, d.like(k)], lambda x, y: kiln.nextafter(x, y), None
    return [k, d.like(k)], through(d.int(0, VIEWS), lambda x, y: x.nextafter_(y)), None


def shifted(d: Draw) -> tuple[int, int]:
    """An integer tensor and shifts that are no larger than its width."""
    k = d.take(INTS)
    return k, d.put(np.asarray(d.rng.integers(0, 7, d.size(k))).astype(d.name(k)))


@entry("bitwise_left_shift")
def _(d: Draw) -> Drawn:
    return list(shifted(d)), either(d, "bitwise_left_shift"), None


@entry("bitwise_right_shift")
def _(d: Draw) -> Drawn:
    return list(shifted(d)), either(d, "bitwise_right_shift"), np.right_shift


def divisor(d: Draw, k: int) -> int:
    """What k can be divided by: an integer 0 is an error."""
    name = d.name(k) if d.flip(0.7) and d.name(k) != "bool" else d.dtype(NUMERIC)
    return d.new(d.size(k), name, positive=name in INTS)


def add_division(name: str, run: Callable[[Draw], Run]) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(ANY)
        return [k, divisor(d, k)], run(d), None

    TABLE[name] = draw


add_division("divide and round", lambda d: either(d, "div", rounding_mode=d.one(["floor", "trunc"])))
for _name in ("floor_divide", "fmod", "remainder"):
    add_division(_name, lambda d, name=_name: either(d, name))  # type: ignore[misc]


@entry("isclose")
def _(d: Draw) -> Drawn:
    k = d.take(ANY)
    return [k, d.like(k)], either(d, "isclose", equal_nan=d.flip()), None


def add_question(name: str) -> None:
    """What answers with a Python bool."""

    def draw(d: Draw) -> Drawn:
        k = d.take(ANY)
        j = k if d.flip() else d.like(k)
        fn = getattr(kiln, name)
        ours = np.array_equal if name == "equal" else None
        return [k, j], lambda x, y: kiln.tensor(fn(x, y)), ours

    TABLE[name] = draw


add_question("allclose")
add_question("equal")


# ---- three operands


def add_limits(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(ANY)
        if name == "clip":
            return [k], either(d, name, *d.one([(-1, 1), (None, 0.5), (0, None)])), None
        if d.flip():
            return [k, d.partner(k)], either(d, name), None
        return [k], either(d, name, d.one([-1, 0.5, 2])), None

    TABLE[name] = draw


for _name in ("clip", "clamp_min", "clamp_max"):
    add_limits(_name)


def add_product(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(ANY)
        more = {"value": d.one([1, 2, -1] if d.name(k) in INTS else [1, 0.5, -2])}
        return [k, d.like(k), d.like(k)], either(d, name, **more), None

    TABLE[name] = draw


add_product("addcdiv")
add_product("addcmul")


@entry("lerp")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS)
    if d.flip():
        return [k, d.like(k), d.like(k)], either(d, "lerp"), None
    return [k, d.like(k)], either(d, "lerp", d.one([0.0, 0.25, 0.5, 0.75, 1.0])), None


# ---- cumulative


def add_scan(name: str, oracle: Oracle) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(ANY, 1)
        dim = d.dim(k)
        run = either(d, name, dim)
        return [k], run, None if oracle is None else lambda v: oracle(whole(v), axis=dim)

    TABLE[name] = draw


def whole(v: Any) -> Any:
    """Integers and bools as sums of them are: int64."""
    return v if v.dtype.kind == "f" else v.astype(np.int64)


for _name, _oracle in (("cumsum", np.cumsum), ("cumprod", None), ("cummax", None), ("cummin", None),
                       ("logcumsumexp", None)):  # fmt: skip
    add_scan(_name, _oracle)


@entry("cumsum to a dtype")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    dtype = getattr(kiln, d.one(["float32", "float64", "int32"]))
    return [k], either(d, d.one(["cumsum", "cumprod"]), d.dim(k), dtype=dtype), None


@entry("diff")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    n, dim = d.int(0, 3), d.dim(k)
    return [k], either(d, "diff", n, dim), None


def add_area(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(ANY, 1)
        if d.flip():
            return [k, d.like(k)], calling(getattr(kiln, name), dim=d.dim(k)), None
        return [k], calling(getattr(kiln, name), dx=d.one([1, 0.5]), dim=d.dim(k)), None

    TABLE[name] = draw


for _name in ("trapezoid", "trapz", "cumulative_trapezoid"):
    add_area(_name)


# ---- reductions and statistics


def add_statistic(name: str, several: bool, one_way: bool, oracle: Oracle = None) -> None:
    """`several`: over more dimensions than one; `one_way`: also over all."""

    def draw(d: Draw) -> Drawn:
        k = d.take(ANY, 1, want=lambda t: 0 not in t.shape)
        if one_way and d.flip(0.3):
            return [k], either(d, name), None if oracle is None else oracle
        dim: Any = d.dim(k)
        if several and d.flip(0.4):
            dim = tuple(int(x) for x in d.rng.choice(d.of(k).ndim, d.int(1, d.of(k).ndim), replace=False))
        more = {} if name == "count_nonzero" else {"keepdim": d.flip(0.4)}
        return [k], either(d, name, dim=dim, **more), None if oracle is None else lambda v: oracle(v, axis=dim, **(
            {"keepdims": more["keepdim"]} if more else {}))  # fmt: skip

    TABLE[name] = draw


for _name, _several, _one_way, _oracle in (
    ("prod", False, True, None), ("nansum", True, True, None), ("nanmean", True, True, None),
    ("count_nonzero", True, True, np.count_nonzero), ("logsumexp", True, False, None), ("std", True, True, None),
    ("var", True, True, None), ("std_mean", True, True, None), ("var_mean", True, True, None),
    ("median", False, True, None), ("nanmedian", False, True, None), ("mode", False, False, None),
    ("aminmax", False, True, None),
):  # fmt: skip
    add_statistic(_name, _several, _one_way, _oracle)


@entry("var with a correction")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS, 1, want=lambda t: 0 not in t.shape)
    return [k], either(d, d.one(["var", "std"]), dim=d.dim(k), correction=d.one([0, 1, 0.5])), None


@entry("norm")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, want=lambda t: 0 not in t.shape)
    return [k], either(d, "norm", d.one([2, 1, 0, 3, math.inf, -math.inf, 0.5]), d.one([None, d.dim(k)])), None


@entry("dist")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, want=lambda t: 0 not in t.shape)
    return [k, d.like(k)], either(d, "dist", d.one([2, 1, math.inf])), None


@entry("linalg.vector_norm")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, want=lambda t: 0 not in t.shape)
    order = d.one([2, 1, 0, 3, math.inf, -math.inf, 0.5])
    return [k], calling(kiln.linalg.vector_norm, order, d.one([None, d.dim(k)]), d.flip()), None


@entry("linalg.matrix_norm")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 2, want=lambda t: 0 not in t.shape)
    return [k], calling(kiln.linalg.matrix_norm, d.one(["fro", 1, -1, math.inf, -math.inf]), keepdim=d.flip()), None


@entry("linalg.norm")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, want=lambda t: 0 not in t.shape)
    if d.of(k).ndim > 1 and d.flip():
        return [k], calling(kiln.linalg.norm, d.one(["fro", 1, math.inf]), (-2, -1)), None
    return [k], calling(kiln.linalg.norm, d.one([None, 2, 1, math.inf]), d.dim(k)), None


def add_quantile(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(ANY, 1, want=lambda t: 0 not in t.shape)
        q = d.one([0.0, 0.25, 0.5, 0.9, 1.0])
        how = {"interpolation": d.one(["linear", "lower", "higher", "midpoint", "nearest"])}
        dim = d.one([None, d.dim(k)])
        ours = np.quantile if name == "quantile" else np.nanquantile
        oracle = lambda v: ours(v, q, axis=dim, method=how["interpolation"])  # noqa: E731
        if d.name(k) in ("float32", "float64") and d.flip(0.4):
            shares = d.new((3,), d.name(k), positive=True)
            return [k, shares], either(d, name, dim, **how), None
        # A rank that float32 rounds to or from a whole number picks another element than float64's.
        return [k], either(d, name, q, dim, **how), oracle if how["interpolation"] == "linear" else None

    TABLE[name] = draw


add_quantile("quantile")
add_quantile("nanquantile")


@entry("cov")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1, 2, want=lambda t: t.shape[-1] > 2)
    n = d.size(k)[-1]
    if d.flip(0.3):
        return [k, d.put(np.asarray(d.rng.integers(1, 4, n)))], lambda x, f: kiln.cov(x, fweights=f), None
    if d.flip(0.3):
        w = d.new((n,), d.dtype(("float32", "float64")), positive=True)
        return [k, w], lambda x, a: kiln.cov(x, aweights=a), None
    rest = d.one([0, 1])
    return [k], either(d, "cov", correction=rest), lambda v: np.cov(v, ddof=rest)


@entry("corrcoef")
def _(d: Draw) -> Drawn:
    return [d.take(ANY, 1, 2, want=lambda t: t.shape[-1] > 2)], either(d, "corrcoef"), None


# ---- activations, elsewhere and in place


def add_activation(name: str, attributes: Sequence[dict[str, Any]], inplace: bool) -> None:
    def draw(d: Draw) -> Drawn:
        fn, more = getattr(F, name), d.one(attributes)
        k = d.take(FLOATS, 1)
        if inplace and d.flip(0.4):
            view = d.int(0, VIEWS)
            return [k], through(view, lambda x: fn(x, inplace=True, **more)), None
        return [k], calling(fn, **more), None

    TABLE[name] = draw


for _name, _attributes, _inplace in (
    ("celu", [{}, {"alpha": 0.5}], True), ("elu", [{}, {"alpha": 1.5}], True),
    ("hardshrink", [{}, {"lambd": 1}], False),
    ("hardsigmoid", [{}], True), ("hardswish", [{}], True), ("hardtanh", [{}, {"min_val": -0.5}], True),
    ("leaky_relu", [{}, {"negative_slope": 0.3}], True), ("logsigmoid", [{}], False), ("mish", [{}], True),
    ("relu6", [{}], True), ("rrelu", [{}, {"training": True}], True), ("selu", [{}], True), ("silu", [{}], True),
    ("softplus", [{}, {"beta": 2, "threshold": 1}], False), ("softshrink", [{}, {"lambd": 1}], False),
    ("softsign", [{}], False), ("tanhshrink", [{}], False), ("threshold", [{"threshold": 0.1, "value": -1}], True),
    ("softmin", [{"dim": 0}, {"dim": -1}], False),
):  # fmt: skip
    add_activation(_name, _attributes, _inplace)


@entry("gumbel_softmax")
def _(d: Draw) -> Drawn:
    hard = d.flip()  # which of no elements is the largest is not defined
    k = d.take(FLOATS, 1, want=lambda t: not hard or t.numel() > 0)
    return [k], calling(F.gumbel_softmax, d.one([1, 0.5]), hard), None


@entry("glu")
def _(d: Draw) -> Drawn:
    shape = (*d.shape(d.int(0, 2)), 2 * d.int(1, 9))
    return [d.new(shape, d.dtype(FLOATS))], calling(F.glu, -1), None


@entry("prelu")
def _(d: Draw) -> Drawn:
    k = d.take(FLOATS, 2)
    return [k, d.new((d.one([1, d.size(k)[1]]),), d.name(k))], calling(F.prelu), None


@entry("embedding_bag")
def _(d: Draw) -> Drawn:
    rows, mode = d.int(1, 17), d.one(["sum", "mean", "max"])
    w = d.new((rows, d.int(1, 9)), d.dtype(("float32", "float64")))
    if d.flip():
        return [d.index(rows, (d.int(1, 5), d.int(1, 6))), w], calling(F.embedding_bag, mode=mode), None
    i = d.index(rows, (d.int(1, 20),))
    starts = d.put(np.sort(np.concatenate([[0], d.rng.integers(0, d.size(i)[0], 3)])))
    return [i, w, starts], calling(F.embedding_bag, mode=mode), None


@entry("scaled_dot_product_attention")
def _(d: Draw) -> Drawn:
    lead, rows, keys, size = (d.int(1, 2), d.int(1, 3)), d.int(1, 9), d.int(1, 9), d.int(1, 8)
    dtype = d.dtype(FLOATS)
    args = [d.new((*lead, n, size), dtype) for n in (rows, keys, keys)]
    more: dict[str, Any] = {"dropout_p": d.one([0.0, 0.0, 0.3])}
    if d.flip(0.3):
        args.append(d.new((rows, keys), d.one(["bool", dtype])))
    else:
        more["is_causal"] = d.flip()
    return args, calling(F.scaled_dot_product_attention, **more), None


@entry("multi_head_attention_forward")
def _(d: Draw) -> Drawn:
    rows, keys, batch, heads = d.int(1, 5), d.int(1, 5), d.int(1, 3), d.int(1, 2)
    size, dtype, weights = heads * d.int(1, 4), d.dtype(("float32", "float64")), d.flip()
    shapes = ((rows, batch, size), (keys, batch, size), (3 * size, size), (3 * size,), (size, size), (size,))
    args = [d.new(s, dtype) for s in shapes]

    def run(q: Any, x: Any, w: Any, b: Any, ow: Any, ob: Any) -> Any:
        out, seen = F.multi_head_attention_forward(
            q, x, x, size, heads, w, b, None, None, False, 0.0, ow, ob, need_weights=weights
        )
        return (out, seen) if weights else out

    return args, run, None


# ---- in place: into a view of a copy, from tensors of its shape, from numbers, and from the same memory

OVERLAPPING = VIEWS + 1


def overlapping(name: str) -> Run:
    """A write to x[1:] of what is read from x[:-1]: as if all were read first. No gradient: it might read what is
    overwritten."""

    def run(x: Any) -> Any:
        base = x.detach().clone()
        getattr(base[1:], name)(base[:-1])
        return base

    return run


def add_unary_write(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = inside(d, name.removesuffix("_"), 1)
        rest = {"cumsum_": [0], "cumprod_": [-1]}.get(name, [])
        return [k], through(d.int(0, VIEWS), method(name, *rest)), None

    TABLE[name] = draw


def add_binary_write(name: str, numbers: Sequence[float]) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(ANY, 1, 3)
        view = d.int(0, OVERLAPPING)
        if "shift" in name:
            k, j = shifted(d)
            if not d.of(k).ndim:
                raise Unfit
            return [k, j], through(min(view, VIEWS), method(name)), None
        if view == OVERLAPPING:
            return [k], overlapping(name), None
        if numbers and d.flip(0.3):
            return [k], through(view, method(name, d.one(numbers))), None
        other = k if d.flip(0.1) else d.like(k) if d.flip(0.7) else d.like(k, ANY, same=False)
        return [k, other], through(view, method(name)), None

    TABLE[name] = draw


def written(names: str) -> list[str]:
    return [f"{n}_" for n in names.split()]


for _name in written(
    "abs absolute acos acosh asin asinh atan atanh bitwise_not ceil cos cosh cumprod cumsum deg2rad digamma erf erfc "
    "erfinv exp exp2 expm1 fix floor frac lgamma log log10 log1p log2 logical_not logit nan_to_num neg negative "
    "rad2deg reciprocal relu round rsqrt sgn sigmoid sign sin sinc sinh sqrt square tan tanh trunc"
):
    add_unary_write(_name)
for _name in written(
    "bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor hypot ldexp logical_and logical_or "
    "logical_xor xlogy atan2 heaviside"
):
    add_binary_write(_name, ())
for _name in written("add sub mul divide multiply subtract copysign eq ge gt le lt ne floor_divide fmod remainder"):
    add_binary_write(_name, (2, 3))
add_binary_write("div_", (2, 0.3))
add_binary_write("pow_", (2, 3, 0.5))
add_binary_write("float_power_", (2, 0.5))
for _name in ("clamp_max_", "clamp_min_"):
    add_binary_write(_name, (1, 0.5))


def add_limits_write(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        limits = d.one([(-1, 1), (None, 1), (0, None)])
        return [d.take(ANY, 1, 3)], through(d.int(0, VIEWS), method(name, *limits)), None

    TABLE[name] = draw


add_limits_write("clamp_")
add_limits_write("clip_")


def add_ternary_write(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.take(ANY, 1, 3)
        if name == "lerp_" and d.flip():
            return [k, d.like(k)], through(d.int(0, VIEWS), method(name, 0.25)), None
        return [k, d.like(k), d.like(k)], through(d.int(0, VIEWS), method(name)), None

    TABLE[name] = draw


for _name in ("addcdiv_", "addcmul_", "lerp_"):
    add_ternary_write(_name)


# ---- attributes


def add_attribute(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        return [d.take(ANY, 2, 2)], lambda x: getattr(x, name) * 1, np.transpose

    TABLE[f"Tensor.{name}"] = draw


for _name in ("T", "H", "mH"):
    add_attribute(_name)


@entry("Tensor.detach")
def _(d: Draw) -> Drawn:
    return [d.take(ANY)], lambda x: x.detach() * 1, None
