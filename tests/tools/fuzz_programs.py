"""Random tensor programs: a generator, and a slow float64 NumPy evaluation that carries directional derivatives.

A program is a list of instructions over a growing list of values. It is generated *by running it* on NumPy in
float64, so every choice sees real numbers: logarithms get positive operands, and comparisons whose outcome a
rounding error could change are noticed (`Program.fragile`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kiln.ir.halves import converted, is_float, widened
from kiln.ir.types import DTYPES

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
HALVES = ("float16", "bfloat16")
FLOATS = ("float32", "float64", *HALVES)
INTS = ("uint8", "int8", "int16", "int32", "int64")
ALL = ("float32", "float64", *HALVES, "bool", *INTS)
CHANCES = (0.2, 0.15, 0.08, 0.08, 0.12, 0.05, 0.05, 0.05, 0.07, 0.15)
"""How likely the dtypes of `ALL` are for further inputs, and for casts."""
LIMITS = {
    "float16": (65504.0, 2.0**-24),
    "bfloat16": (float.fromhex("0x1.fep127"), 2.0**-133),
    "float32": (float(np.finfo(np.float32).max), 2.0**-149),
    "float64": (float(np.finfo(np.float64).max), 2.0**-1074),
}
"""The largest number and the smallest above 0."""
VERF = np.vectorize(math.erf, otypes=[np.float64])


@dataclass
class Dual:
    """A value in float64 (or an integer type, bool) with its derivative along one direction; `dtype` is kiln's."""

    v: Array
    t: Array | None
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.v.shape

    def tangent(self) -> Array:
        return np.zeros(self.v.shape) if self.t is None else self.t


@dataclass(frozen=True)
class Instr:
    """One step: op name, operand positions (or Python scalars), attributes."""

    op: str
    args: tuple[Any, ...]
    attrs: tuple[tuple[str, Any], ...] = ()
    view: str = ""

    def attr(self, name: str) -> Any:
        return dict(self.attrs)[name]


@dataclass(frozen=True)
class Scalar:
    """A Python number as an operand."""

    value: float | int | bool


@dataclass
class Program:
    """Inputs (arrays and how they are laid out), instructions, and what they should give."""

    inputs: list[Array]
    layouts: list[str]
    instrs: list[Instr]
    values: list[Dual]
    direction: list[Array]
    fragile: bool = False
    special: bool = False
    outputs: list[int] = field(default_factory=list)
    writes: list[tuple[int, int, str]] = field(default_factory=list)  # (input, value, kind)


# ----------------------------------------------------------------------------- the ops, in float64


def promote(a: Dual | Scalar, b: Dual | Scalar) -> str:
    """torch's result dtype of two operands."""
    order = ("bool", *INTS, "float16", "bfloat16", "float32", "float64")
    both = {frozenset({"uint8", "int8"}): "int16", frozenset(HALVES): "float32"}

    def rank(x: Dual | Scalar) -> int:
        """0: Python scalar, 1: 0-d tensor, 2: tensor with dimensions."""
        return 0 if isinstance(x, Scalar) else (2 if x.v.ndim else 1)

    def kind(x: Dual | Scalar) -> str:
        if isinstance(x, Dual):
            return x.dtype
        return "bool" if isinstance(x.value, bool) else "int64" if isinstance(x.value, int) else "float32"

    def category(d: str) -> int:
        return 0 if d == "bool" else 1 if d in INTS else 2

    ka, kb, ra, rb = kind(a), kind(b), rank(a), rank(b)
    if ra == rb:
        return both.get(frozenset({ka, kb})) or max(ka, kb, key=order.index)
    strong, weak = (ka, kb) if ra > rb else (kb, ka)
    return weak if category(weak) > category(strong) else strong


def as_float(dtype: str) -> str:
    return dtype if dtype in FLOATS else "float32"


def held(v: Any, dtype: str) -> Array:
    """Numbers as a `Dual` of this dtype holds them; floats become integers by truncation, integers wrap."""
    if dtype in FLOATS:
        return np.asarray(v).astype(np.float64)
    return np.asarray(v).astype(np.int64 if dtype in INTS and np.asarray(v).dtype.kind == "f" else dtype).astype(dtype)


def value_of(x: Dual | Scalar) -> Array:
    return np.asarray(x.value) if isinstance(x, Scalar) else x.v


def tangent_of(x: Dual | Scalar) -> Array:
    return np.zeros(()) if isinstance(x, Scalar) else x.tangent()


def unary(f: Callable[[Array], Array], df: Callable[[Array], Array]) -> Callable[[Dual], Dual]:
    def run(x: Dual) -> Dual:
        v = x.v.astype(np.float64)
        return Dual(f(v), df(v) * x.tangent(), as_float(x.dtype))

    return run


def sigmoid(v: Array) -> Array:
    return np.where(v >= 0, 1 / (1 + np.exp(-np.abs(v))), np.exp(-np.abs(v)) / (1 + np.exp(-np.abs(v))))


PDF = 1 / math.sqrt(2 * math.pi)
UNARY: dict[str, Callable[[Dual], Dual]] = {
    "exp": unary(np.exp, np.exp),
    "log": unary(np.log, lambda v: 1 / v),
    "tanh": unary(np.tanh, lambda v: 1 - np.tanh(v) ** 2),
    "sqrt": unary(np.sqrt, lambda v: 0.5 / np.sqrt(v)),
    "erf": unary(VERF, lambda v: 2 / math.sqrt(math.pi) * np.exp(-v * v)),
    "sigmoid": unary(sigmoid, lambda v: sigmoid(v) * (1 - sigmoid(v))),
    "gelu": unary(
        lambda v: 0.5 * v * (1 + VERF(v / math.sqrt(2))),
        lambda v: 0.5 * (1 + VERF(v / math.sqrt(2))) + v * PDF * np.exp(-v * v / 2),
    ),
    "sin": unary(np.sin, np.cos),
    "cos": unary(np.cos, lambda v: -np.sin(v)),
}
KINKED: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda v: np.where(v > 0, v, 0), lambda v: (v > 0) * 1.0),
    "abs": (np.abs, np.sign),
}
COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater}
ARITH = ("add", "sub", "mul", "div", "maximum", "minimum")


def arithmetic(op: str, a: Dual | Scalar, b: Dual | Scalar) -> Dual:
    """add, sub, mul, div, maximum and minimum with torch's promotion."""
    dtype = promote(a, b)
    x, y, dx, dy = value_of(a), value_of(b), tangent_of(a), tangent_of(b)
    if op == "div":
        dtype = as_float(dtype)
    x, y = held(x, dtype), held(y, dtype)
    v: Array
    t: Array
    match op:
        case "add":
            v, t = (x | y if dtype == "bool" else x + y), dx + dy
        case "sub":
            v, t = x - y, dx - dy
        case "mul":
            v, t = (x & y if dtype == "bool" else x * y), dx * y + x * dy
        case "div":
            v, t = x / y, dx / y - x * dy / (y * y)
        case _:
            take = x > y if op == "maximum" else x < y
            v, t = np.where(take, x, y), np.where(take, dx, dy)
    t = np.broadcast_to(t, np.shape(v))
    return Dual(np.asarray(v), np.array(t) if dtype in FLOATS else None, dtype)


def reduce(op: str, x: Dual, dims: tuple[int, ...], keep: bool) -> Dual:
    v = x.v
    if op in ("sum", "mean"):
        n = math.prod(v.shape[d] for d in dims)
        scale = 1 / n if op == "mean" else 1
        dtype = x.dtype if x.dtype in FLOATS else ("float32" if op == "mean" else "int64")
        whole = None if dtype in FLOATS else np.int64
        total = v.sum(dims, dtype=whole, keepdims=keep) * (scale if op == "mean" else 1)
        return Dual(np.asarray(total), None if x.t is None else np.asarray(x.t.sum(dims, keepdims=keep) * scale), dtype)
    pick = v.max if op == "amax" else v.min
    out = np.asarray(pick(dims, keepdims=keep))
    t = None
    if x.t is not None:
        wide = pick(dims, keepdims=True)
        hit = (v == wide) * 1.0
        t = np.asarray((x.t * hit).sum(dims, keepdims=keep) / hit.sum(dims, keepdims=keep))
    return Dual(out, t, x.dtype)


def softmax(x: Dual, dim: int, log: bool) -> Dual:
    shifted = x.v - x.v.max(dim, keepdims=True)
    p = np.exp(shifted)
    p /= p.sum(dim, keepdims=True)
    mean = (p * x.tangent()).sum(dim, keepdims=True)
    if log:
        return Dual(shifted - np.log(np.exp(shifted).sum(dim, keepdims=True)), x.tangent() - mean, x.dtype)
    return Dual(p, p * (x.tangent() - mean), x.dtype)


def both(x: Dual, f: Callable[[Array], Array]) -> Dual:
    """A movement: the same for value and tangent."""
    return Dual(f(x.v), None if x.t is None else f(x.t), x.dtype)


def index_of(spec: tuple[Any, ...]) -> Any:
    """Index items as stored in an instruction -> what `x[...]` takes."""
    return tuple(slice(*i) if isinstance(i, tuple) else (Ellipsis if i == "..." else i) for i in spec)


def step(instr: Instr, values: list[Dual]) -> Dual:
    """One instruction in float64."""
    a = [x if isinstance(x, Scalar) else values[x] for x in instr.args]
    first = a[0]
    assert isinstance(first, Dual) or instr.op in ARITH
    if instr.op in ARITH:
        return arithmetic(instr.op, a[0], a[1])
    assert isinstance(first, Dual)
    match instr.op:
        case "neg":
            return both(first, np.negative)
        case "relu" | "abs":
            f, df = KINKED[instr.op]
            keep = first.dtype in FLOATS
            return Dual(f(first.v), df(first.v) * first.tangent() if keep else None, first.dtype)
        case "where":
            x, y = a[1], a[2]
            dtype = promote(x, y)
            t = np.where(first.v, tangent_of(x), tangent_of(y)) if dtype in FLOATS else None
            return Dual(np.where(first.v, held(value_of(x), dtype), held(value_of(y), dtype)), t, dtype)
        case "logical_not":
            return Dual(~first.v.astype(bool), None, "bool")
        case "logical_and":
            assert isinstance(a[1], Dual)
            return Dual(first.v.astype(bool) & a[1].v.astype(bool), None, "bool")
        case "sum" | "mean" | "amax" | "amin":
            return reduce(instr.op, first, instr.attr("dim"), instr.attr("keepdim"))
        case "softmax" | "log_softmax":
            return softmax(first, instr.attr("dim"), instr.op == "log_softmax")
        case "reshape":
            return both(first, lambda v: v.reshape(instr.attr("shape")))
        case "permute":
            return both(first, lambda v: v.transpose(instr.attr("dims")))
        case "expand":
            return both(first, lambda v: np.broadcast_to(v, instr.attr("shape")).copy())
        case "index":
            return both(first, lambda v: np.asarray(v[index_of(instr.attr("index"))]))
        case "cat":
            parts = [x for x in a if isinstance(x, Dual)]
            t = np.concatenate([x.tangent() for x in parts], instr.attr("dim"))
            return Dual(np.concatenate([x.v for x in parts], instr.attr("dim")), t, first.dtype)
        case "matmul":
            assert isinstance(a[1], Dual)
            v = first.v @ a[1].v
            return Dual(np.asarray(v), np.asarray(first.tangent() @ a[1].v + first.v @ a[1].tangent()), first.dtype)
        case "cast":
            to = instr.attr("dtype")
            return Dual(held(first.v, to), first.tangent() if to in FLOATS else None, to)
        case "cross_entropy":
            assert isinstance(a[1], Dual)
            lp = softmax(first, 1, True)
            rows = np.arange(len(a[1].v))
            n = len(rows)
            return Dual(
                np.asarray(-lp.v[rows, a[1].v].sum() / n),
                np.asarray(-lp.tangent()[rows, a[1].v].sum() / n),
                first.dtype,
            )
        case op if op in COMPARE:
            dtype = promote(a[0], a[1])
            return Dual(np.asarray(COMPARE[op](*(held(value_of(x), dtype) for x in a))), None, "bool")
        case op:
            return UNARY[op](first)


# ------------------------------------------------------------------------------------ generation


def close(a: Array, b: Array) -> bool:
    """Some comparison between a and b could flip under rounding."""
    with np.errstate(all="ignore"):
        gap, size = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
        return bool(np.any((gap < 1e-4 * (1 + size)) & (gap > 0) | (gap == 0) & (size > 0)))


class Generator:
    """Draws one program."""

    def __init__(self, rng: Rng, length: int) -> None:
        self.rng = rng
        self.length = length
        self.values: list[Dual] = []
        self.instrs: list[Instr] = []
        self.fragile = False

    def draw(self) -> Program:
        rng = self.rng
        rank = int(rng.integers(1, 4))
        base = tuple(int(rng.choice([1, 2, 3, 5, 8, 17, 33, 70])) for _ in range(rank))
        if rng.random() < 0.06:
            base = (*base[:-1], int(rng.choice([300, 1030, 4200])))
        if rng.random() < 0.04:
            base = (*base[:-1], 0)
        while math.prod(base) > 12000:
            base = tuple(max(1, d // 2) for d in base)
        inputs, layouts, direction = [], [], []
        main = str(rng.choice(["float32", "float64", *HALVES], p=[0.6, 0.2, 0.1, 0.1]))
        for i in range(int(rng.integers(2, 5))):
            shape = base if i == 0 or rng.random() < 0.6 else self.broadcastable(base)
            dtype = main if i < 2 or rng.random() < 0.6 else str(rng.choice(ALL, p=CHANCES))
            x = self.array(shape, dtype)
            inputs.append(x)
            layouts.append(str(rng.choice(["plain", "transposed", "stepped", "offset"], p=[0.55, 0.15, 0.15, 0.15])))
            d = rng.standard_normal(shape) if dtype in FLOATS else np.zeros(shape)
            direction.append(d)
            self.values.append(
                Dual(widened(x).astype(np.float64) if dtype in FLOATS else x, d if dtype in FLOATS else None, dtype)
            )
        tries = 0
        while len(self.instrs) < self.length and tries < 20 * self.length:
            tries += 1
            with np.errstate(all="ignore"):
                self.extend()
        return self.finish(inputs, layouts, direction)

    def finish(self, inputs: list[Array], layouts: list[str], direction: list[Array]) -> Program:
        rng, n = self.rng, len(inputs)
        floats = [i for i, d in enumerate(self.values) if i >= n and d.dtype in FLOATS]
        rest = [i for i in range(n, len(self.values)) if i not in floats]
        outputs = floats[-2:] + list(rest[-1:]) or [len(self.values) - 1]
        writes = []
        for i in range(n):
            same = [
                j
                for j in floats
                if self.values[j].dtype == self.values[i].dtype and self.values[j].shape == inputs[i].shape
            ]
            if same and rng.random() < 0.3:
                writes.append((i, int(rng.choice(same)), str(rng.choice(["copy_", "add_", "slice", "mul_"]))))
        special = rng.random() < 0.25
        # Rounding to 16 bits adds up to more than any tolerance: what these programs must do is agree.
        fragile = self.fragile or any(d.dtype in HALVES for d in self.values)
        program = Program(inputs, layouts, self.instrs, self.values, direction, fragile, special, outputs, writes)
        if special:
            self.poison(program)
        return program

    def poison(self, program: Program) -> None:
        """Put infinities, NaN, zeros of both signs and subnormals into the float inputs."""
        for x in program.inputs:
            if is_float(x.dtype) and x.size:
                most, tiny = LIMITS[x.dtype.name]
                numbers = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, tiny, -3 * tiny, most])
                odd = converted(numbers, DTYPES[x.dtype.name])
                hit = self.rng.random(x.shape) < 0.15
                x[hit] = self.rng.choice(odd, int(hit.sum()))

    def broadcastable(self, base: tuple[int, ...]) -> tuple[int, ...]:
        kept = [d if self.rng.random() < 0.5 else 1 for d in base]
        return tuple(kept[int(self.rng.integers(0, len(base) + 1)) :])

    def array(self, shape: tuple[int, ...], dtype: str) -> Array:
        if dtype == "bool":
            return np.asarray(self.rng.random(shape) < 0.5)
        if dtype in INTS:
            return np.asarray(self.rng.integers(0 if dtype == "uint8" else -4, 5, shape)).astype(dtype)
        return converted(np.asarray(self.rng.standard_normal(shape)), DTYPES[dtype])

    def pick(self, want: Callable[[Dual], bool] = lambda d: True) -> int | None:
        """A value, later ones more likely."""
        good = [i for i, d in enumerate(self.values) if want(d)]
        if not good:
            return None
        weight = np.array([1.0 + i for i in good])
        return int(self.rng.choice(good, p=weight / weight.sum()))

    def add(self, instr: Instr) -> None:
        out = step(instr, self.values)
        if out.v.size > 40000:
            return
        if out.dtype in FLOATS and out.v.size and not (np.abs(out.v).max() < 1e4 and np.abs(out.tangent()).max() < 1e5):
            return
        self.values.append(out)
        self.instrs.append(instr)

    def extend(self) -> None:
        kinds: list[Callable[[], None]] = [
            self.unary, self.unary, self.binary, self.binary, self.binary, self.compare, self.where,
            self.reduction, self.reduction, self.rowwise, self.movement, self.movement, self.movement,
            self.matmul, self.cast, self.joined, self.labels, self.logic,
        ]  # fmt: skip
        kinds[int(self.rng.integers(len(kinds)))]()

    def risky(self, flips: bool) -> bool:
        """Whether to drop an instruction whose outcome rounding could flip; a few stay, marked."""
        if flips and self.rng.random() < 0.9:
            return True
        self.fragile = self.fragile or flips
        return False

    def unary(self) -> None:
        op = str(self.rng.choice([*UNARY, *KINKED, "neg"]))
        i = self.pick(lambda d: d.dtype in FLOATS)
        if i is None:
            return
        v = self.values[i].v
        if v.size and (
            (op == "log" and v.min() < 0.05) or (op == "sqrt" and v.min() < 0.05) or (op == "exp" and v.max() > 6)
        ):
            return
        if op in KINKED and self.risky(close(v, np.zeros(()))):
            return
        self.add(Instr(op, (i,)))

    def partner(self, i: int) -> int | None:
        shape = self.values[i].shape

        def fits(d: Dual) -> bool:
            try:
                np.broadcast_shapes(shape, d.shape)
            except ValueError:
                return False
            return True

        return self.pick(fits)

    def binary(self) -> None:
        op = str(self.rng.choice(ARITH))
        i = self.pick()
        assert i is not None
        other: Any = self.partner(i)
        if self.rng.random() < 0.25:
            other = Scalar([0.5, -1.25, 2, 3, True][int(self.rng.integers(5))])
        args = (
            (i, other)
            if self.rng.random() < 0.7 or (isinstance(other, Scalar) and op in ("maximum", "minimum"))
            else (other, i)
        )
        ops = [x if isinstance(x, Scalar) else self.values[x] for x in args]
        if op in ("maximum", "minimum") and any(isinstance(x, Scalar) for x in ops):
            return
        if op == "sub" and any((x.dtype if isinstance(x, Dual) else type(x.value).__name__) == "bool" for x in ops):
            return
        if op == "div" and np.any(np.abs(value_of(ops[1]).astype(np.float64)) < 0.2):
            return
        if op in ("maximum", "minimum") and self.risky(
            close(value_of(ops[0]).astype(float), value_of(ops[1]).astype(float))
        ):
            return
        self.add(Instr(op, args))

    def compare(self) -> None:
        i = self.pick()
        assert i is not None
        j = self.partner(i)
        if j is None:
            return
        inexact = self.values[i].dtype in FLOATS or self.values[j].dtype in FLOATS
        if inexact and self.risky(close(self.values[i].v.astype(float), self.values[j].v.astype(float))):
            return
        self.add(Instr(str(self.rng.choice(list(COMPARE))), (i, j)))

    def where(self) -> None:
        c = self.pick(lambda d: d.dtype == "bool")
        if c is None:
            return
        i = self.partner(c)
        if i is None:
            return
        wide = np.broadcast_shapes(self.values[c].shape, self.values[i].shape)
        j = self.pick(lambda d: d.shape == wide)
        if j is not None:
            self.add(Instr("where", (c, i, j)))

    def logic(self) -> None:
        i = self.pick(lambda d: d.dtype == "bool")
        if i is None:
            return
        if self.rng.random() < 0.5:
            self.add(Instr("logical_not", (i,)))
        else:
            j = self.pick(lambda d: d.dtype == "bool" and d.shape == self.values[i].shape)
            self.add(Instr("logical_and", (i, i if j is None else j)))

    def reduction(self) -> None:
        op = str(self.rng.choice(["sum", "sum", "mean", "amax", "amin"]))
        i = self.pick(lambda d: d.v.ndim > 0 and (op != "mean" or d.dtype in FLOATS) and d.dtype != "bool")
        if i is None:
            return
        v = self.values[i].v
        n = int(self.rng.integers(1, v.ndim + 1))
        dims = tuple(sorted(int(d) for d in self.rng.choice(v.ndim, n, replace=False)))
        if op != "sum" and any(v.shape[d] == 0 for d in dims):
            return
        if op in ("amax", "amin") and v.size:
            top = np.sort(v.astype(float), axis=None)
            if self.values[i].dtype in FLOATS and len(top) > 1 and self.risky(close(top[1:], top[:-1])):
                return
        self.add(Instr(op, (i,), (("dim", dims), ("keepdim", bool(self.rng.random() < 0.4)))))

    def rowwise(self) -> None:
        i = self.pick(lambda d: d.dtype in FLOATS and d.v.ndim > 0 and d.v.size > 0)
        if i is not None:
            dim = int(self.rng.integers(self.values[i].v.ndim))
            self.add(Instr(str(self.rng.choice(["softmax", "log_softmax"])), (i,), (("dim", dim),)))

    def movement(self) -> None:
        i = self.pick(lambda d: d.v.ndim > 0)
        if i is None:
            return
        v, rng = self.values[i].v, self.rng
        kind = str(rng.choice(["reshape", "permute", "expand", "slice", "step", "int", "newaxis"]))
        if kind == "permute":
            self.add(Instr("permute", (i,), (("dims", tuple(int(d) for d in rng.permutation(v.ndim))),), "permute"))
        elif kind == "reshape":
            shape: tuple[int, ...] = (v.size,) if rng.random() < 0.5 or not v.size else self.refactor(v.size)
            self.add(Instr("reshape", (i,), (("shape", shape),), "reshape"))
        elif kind == "expand":
            shape = (int(rng.integers(1, 4)), *(int(rng.integers(1, 5)) if d == 1 else d for d in v.shape))
            self.add(Instr("expand", (i,), (("shape", shape),), "expand"))
        else:
            self.add(Instr("index", (i,), (("index", self.index(v.shape, kind)),), kind))

    def refactor(self, n: int) -> tuple[int, ...]:
        a = next((k for k in (5, 3, 2, 8, 7) if n % k == 0), 1)
        return (a, n // a) if self.rng.random() < 0.5 else (n // a, 1, a)

    def index(self, shape: tuple[int, ...], kind: str) -> tuple[Any, ...]:
        rng, axis = self.rng, int(self.rng.integers(len(shape)))
        d = shape[axis]
        item: Any = (None, None, None)
        if kind == "slice" and d:
            lo = int(rng.integers(0, d))
            item = (lo, int(rng.integers(lo, d + 1)), None)
        elif kind == "step":
            item = (int(rng.integers(0, d + 1)), None, int(rng.integers(2, 4)))
        elif kind == "int" and d:
            item = int(rng.integers(-d, d))
        lead: tuple[Any, ...] = ((None, None, None),) * axis
        return (*lead, None, item) if kind == "newaxis" else (*lead, item)

    def matmul(self) -> None:
        i = self.pick(lambda d: d.dtype in FLOATS and d.v.ndim >= 1)
        if i is None:
            return
        a = self.values[i]

        def fits(d: Dual) -> bool:
            if d.dtype != a.dtype or not 1 <= d.v.ndim <= 3:
                return False
            try:
                return bool(np.size(a.v @ d.v) <= 20000)
            except ValueError:
                return False

        j = self.pick(fits)
        if j is not None:
            self.add(Instr("matmul", (i, j)))
        elif a.v.ndim == 2:
            self.add(Instr("permute", (i,), (("dims", (1, 0)),), "permute"))
            if self.values[-1].v.shape == a.v.shape[::-1]:
                self.add(Instr("matmul", (i, len(self.values) - 1)))

    def cast(self) -> None:
        i = self.pick()
        assert i is not None
        to = str(self.rng.choice(ALL, p=CHANCES))
        v = self.values[i].v
        truncates = self.values[i].dtype in FLOATS and to not in FLOATS
        if truncates and self.risky(bool(v.size) and close(v, np.rint(v))):
            return
        self.add(Instr("cast", (i,), (("dtype", to),)))

    def joined(self) -> None:
        i = self.pick(lambda d: d.v.ndim > 0 and d.dtype in FLOATS)
        if i is None:
            return
        a = self.values[i]
        j = self.pick(lambda d: d.dtype == a.dtype and d.v.ndim == a.v.ndim and d.shape[1:] == a.shape[1:])
        if j is not None:
            self.add(Instr("cat", (i, j, i), (("dim", 0),)))

    def labels(self) -> None:
        i = self.pick(lambda d: d.dtype in FLOATS and d.v.ndim == 2 and d.v.size > 0)
        if i is None:
            return
        n, c = self.values[i].shape
        k = self.pick(lambda d: d.dtype == "int64" and d.shape == (n,) and bool(np.all((d.v >= 0) & (d.v < c))))
        if k is None:  # make labels out of a comparison: false, true -> 0, 1 (or all 0 with one class)
            self.add(Instr("index", (i,), (("index", ((None, None, None), 0)),), "int"))
            self.add(
                Instr("gt", (len(self.values) - 1, Scalar(0.1)))
                if c > 1
                else Instr("lt", (len(self.values) - 1, Scalar(-1e6)))
            )
            if self.values[-1].dtype != "bool":
                return
            self.fragile = self.fragile or (c > 1 and close(self.values[-2].v, np.asarray(0.1)))
            self.add(Instr("cast", (len(self.values) - 1,), (("dtype", "int64"),)))
            k = len(self.values) - 1
        self.add(Instr("cross_entropy", (i, k)))
