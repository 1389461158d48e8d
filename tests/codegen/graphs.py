"""Graphs for the tests of codegen: a terse builder, well-known compositions, random graphs, and running them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kiln.codegen.pipeline import compile_graph
from kiln.ir.graph import Alias, Graph, GraphBuilder, Value
from kiln.ir.ops import OPS
from kiln.ir.ops.base import OpTypeError
from kiln.ir.ops.fusion import body_of
from kiln.ir.program import Program
from kiln.ir.types import DType, TensorType, bool_, float32, float64, int64
from kiln.runtime.executable import load
from kiln.runtime.targets import host_target

Array = np.ndarray[Any, Any]
GOLDEN = Path(__file__).parents[1] / "golden"


class Maker:
    """`m.add(a, b)`, `m.sum(x, dims=(0,))`, ...: every op by name on the values of one graph."""

    def __init__(self, name: str = "test") -> None:
        self.builder = GraphBuilder(name)

    def input(self, *shape: int, dtype: DType = float32) -> Value:
        return self.builder.input(TensorType(dtype, shape))

    def __getattr__(self, op: str) -> Callable[..., Value]:
        def apply(*operands: Value, **attrs: Any) -> Value:
            return self.builder.add(OPS[op], operands, attrs)[0]

        return apply

    def like(self, x: Value, value: float) -> Value:
        return self.full(shape=x.type.shape, dtype=x.type.dtype, value=value)

    def spread(self, x: Value, *shape: int, dims: tuple[int, ...]) -> Value:
        return self.broadcast(x, shape=shape, dims=dims)

    def per_row(self, x: Value, rows: int, columns: int) -> Value:
        """[rows] to [rows, columns], by way of [rows, 1] as keepdim does it."""
        return self.spread(self.reshape(x, shape=(rows, 1)), rows, columns, dims=(0, 1))

    def softmax(self, x: Value) -> Value:
        rows, columns = x.type.static_shape()
        e = self.exp(self.sub(x, self.per_row(self.amax(x, dims=(1,)), rows, columns)))
        return self.div(e, self.per_row(self.sum(e, dims=(1,)), rows, columns))

    def log_softmax(self, x: Value) -> Value:
        rows, columns = x.type.static_shape()
        d = self.sub(x, self.per_row(self.amax(x, dims=(1,)), rows, columns))
        total = self.log(self.sum(self.exp(d), dims=(1,)))
        return self.sub(d, self.per_row(total, rows, columns))

    def build(self, *outputs: Value, aliases: Sequence[tuple[int, int]] = ()) -> Graph:
        return self.builder.build(outputs, [Alias(o, i) for o, i in aliases])


def compiled(graph: Graph, arrays: Sequence[Array] | None = None, **options: Any) -> Program:
    """The program for arrays of these strides (row-major without)."""
    strides = None if arrays is None else [_strides(a) for a in arrays]
    return compile_graph(graph, host_target(), strides, **options)


def _strides(a: Array) -> tuple[int, ...] | None:
    return None if a.flags.c_contiguous else tuple(s // a.itemsize for s in a.strides)


def run(graph: Graph, arrays: Sequence[Array], *, fuse: bool = True) -> list[Array]:
    """The outputs; aliased ones are their input arrays, which are written."""
    return execute(compiled(graph, arrays, passes=fuse), arrays)


def execute(program: Program, arrays: Sequence[Array]) -> list[Array]:
    written = dict(program.aliases)
    outputs = [
        arrays[written[k]] if k in written else np.empty(t.static_shape(), t.dtype.numpy)
        for k, t in enumerate(program.output_types)
    ]
    load(program).run([a.__array_interface__["data"][0] for a in (*arrays, *outputs)])
    return outputs


def same_bits(a: Array, b: Array) -> bool:
    """Equal, signed zeros included; NaNs are all alike."""
    if a.dtype != b.dtype or a.shape != b.shape or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return False
    return a.dtype.kind != "f" or bool(((np.signbit(a) == np.signbit(b)) | np.isnan(a)).all())


def fused_equals_unfused(graph: Graph, arrays: Sequence[Array]) -> bool:
    """Whether the program as one, and op by op, gives the same bits (and writes the same)."""
    one, many = [a.copy() for a in arrays], [a.copy() for a in arrays]
    results = zip(run(graph, one), run(graph, many, fuse=False), strict=True)
    return all(same_bits(a, b) for a, b in results) and all(map(same_bits, one, many))


def kernels(program: Program) -> list[str]:
    """The names of the generated kernels, without their hashes, and of templates."""
    return [m.name.rpartition("_")[0] for m in program.modules[:-1]]


def bodies(fused: Graph) -> list[list[str]]:
    """The op names in each fusion of a fused graph."""
    return [[o.op.name for o in body_of(op.attrs).operations] for op in fused.operations if op.op.name == "fusion"]


def floats(seed: int, *shape: int, dtype: str = "float32", special: bool = False) -> Array:
    """Normal numbers; with `special`, a quarter are zeros, infinities, NaNs and denormals."""
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.standard_normal(shape))
    if special:
        odd = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42], shape)
        x = np.where(rng.random(shape) < 0.25, odd, x)
    return np.asarray(x, dtype)


def check_golden(name: str, text: str, update: bool) -> None:
    """Compare with tests/golden/`name`; `--update-golden` rewrites it."""
    path = GOLDEN / name
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"no golden file {name}: run pytest --update-golden"
    assert text == path.read_text()


# ------------------------------------------------------------------------------------ random graphs

DOMAINS = ((3, 5), (1, 7, 20), (4, 33), (2, 3, 17), (70, 3), (1, 1, 6), (8,), (300, 20), (2, 300), (5, 1), (2, 64))


class RandomGraph:
    """A random graph over a few shapes that broadcast to each other, so that much of it can fuse."""

    def __init__(self, seed: int, operations: int = 25) -> None:
        self.random, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.maker, self.arrays, self.values = Maker(f"random{seed}"), list[Array](), list[Value]()
        shape = self.random.choice(DOMAINS)
        for _ in range(3):
            self._input(shape, float32)
        for dtype in (int64, bool_):
            self._input(shape, dtype)
        for part in (shape[1:], shape[-1:], shape[:-1], ()):
            self._input(part, float32)
        self.inputs = len(self.values)
        while len(self.values) < self.inputs + operations:
            try:
                made = self._step()
            except OpTypeError:
                continue
            if made is not None and made.type.numel() < 40_000:
                self.values.append(made)

    def graph(self, outputs: int = 4) -> Graph:
        """Some of the values, and the last, as outputs."""
        made = self.values[self.inputs :]
        chosen = [*self.random.sample(made[:-1], outputs), made[-1]]
        return self.maker.build(*chosen)

    def writing_graph(self) -> Graph:
        """Some values become the new content of inputs of their type."""
        outputs: list[Value] = []
        aliases: list[tuple[int, int]] = []
        free = list(range(self.inputs))
        for v in self.values[self.inputs :]:
            fitting = [k for k in free if self.values[k].type == v.type]
            if fitting and self.random.random() < 0.3:
                k = self.random.choice(fitting)
                free.remove(k)
                aliases.append((len(outputs), k))
                outputs.append(v)
            elif self.random.random() < 0.1:
                outputs.append(v)
        return self.maker.build(*outputs, aliases=aliases)

    def _input(self, shape: tuple[int, ...], dtype: DType) -> None:
        self.values.append(self.maker.input(*shape, dtype=dtype))
        if dtype is bool_:
            self.arrays.append(self.numbers.random(shape) < 0.5)
        elif dtype is int64:
            self.arrays.append(np.asarray(self.numbers.integers(-5, 6, shape)))
        else:
            self.arrays.append(floats(self.random.randrange(1 << 30), *shape, special=True))

    def _like(self, v: Value) -> Value:
        return self.random.choice([u for u in self.values if u.type == v.type])

    def _step(self) -> Value | None:
        v = self.random.choice(self.values[-8:] if self.random.random() < 0.7 else self.values)
        kinds = (self._pointwise, self._function, self._reduction, self._broadcast, self._movement, self._other)
        return self.random.choices(kinds, (35, 20, 15, 15, 10, 5))[0](v)

    def _pointwise(self, v: Value) -> Value:
        if v.type.dtype is bool_:
            return self.maker.logical_and(v, self._like(v))
        names = ["add", "sub", "mul", "maximum", "minimum", *(["div"] if v.type.dtype.is_floating_point else [])]
        return getattr(self.maker, self.random.choice(names))(v, self._like(v))

    def _function(self, v: Value) -> Value:
        if v.type.dtype is bool_:
            return self.maker.where(
                v, *[self.random.choice([u for u in self.values if u.type.shape == v.type.shape])] * 2
            )
        names = ["neg", "abs", "relu"]
        if v.type.dtype.is_floating_point:
            names += ["exp", "sqrt", "sigmoid", "tanh"]
        return getattr(self.maker, self.random.choice(names))(v)

    def _reduction(self, v: Value) -> Value | None:
        rank = v.type.rank
        if not rank:
            return None
        dims = tuple(sorted(self.random.sample(range(rank), self.random.randint(1, rank))))
        if v.type.dtype is bool_:
            return getattr(self.maker, self.random.choice(["any", "all"]))(v, dims=dims)
        name = self.random.choice(["sum", "sum", "amax", "amin", "argmax"])
        return getattr(self.maker, name)(v, dims=dims[:1] if name == "argmax" else dims)

    def _broadcast(self, v: Value) -> Value:
        rank = v.type.rank
        places = []
        for shape in {u.type.static_shape() for u in self.values}:
            spots = [tuple(range(i, i + rank)) for i in range(len(shape) - rank + 1)]
            if rank == len(shape) - 1:
                spots += [tuple(x for x in range(len(shape)) if x != skip) for skip in range(len(shape))]
            places += [
                (shape, spot)
                for spot in spots
                if all(n in (1, shape[d]) for n, d in zip(v.type.shape, spot, strict=True))
            ]
        shape, dims = self.random.choice(sorted(places))
        return self.maker.broadcast(v, shape=shape, dims=dims)

    def _movement(self, v: Value) -> Value | None:
        shape, rank = v.type.static_shape(), v.type.rank
        if not rank:
            return None
        smaller = tuple(max(1, n - 1) for n in shape)
        ones, zeros = (1,) * rank, (0,) * rank
        match self.random.randrange(7):
            case 0:
                return self.maker.permute(v, dims=tuple(self.random.sample(range(rank), rank)))
            case 1:
                return self.maker.reshape(v, shape=(v.type.numel(),))
            case 2:
                return self.maker.reshape(v, shape=(*shape[:1], 1, *shape[1:])) if rank < 4 else None
            case 3:
                return self.maker.slice(v, starts=zeros, stops=smaller, steps=ones)
            case 4:
                return self.maker.cat(v, self._like(v), dim=self.random.randrange(rank))
            case 5:
                starts = tuple(n - s for n, s in zip(shape, smaller, strict=True))
                part = self.maker.slice(self._like(v), starts=starts, stops=shape, steps=ones)
                return self.maker.slice_scatter(v, part, starts=zeros, stops=smaller, steps=ones)
            case _:
                if v.type.dtype is bool_:
                    return None
                return self.maker.pick(self._like(v), self.maker.argmax(v, dims=(rank - 1,)))

    def _other(self, v: Value) -> Value:
        if self.random.random() < 0.5 and v.type.rank:
            return self.maker.iota(shape=v.type.shape, dtype=float32, dim=0)
        return self.maker.cast(v, dtype=self.random.choice([float32, float64, int64, bool_]))


def restrided(a: Array, seed: int) -> Array:
    """The same content in memory of another layout."""
    kind = random.Random(seed).randrange(4)
    if a.ndim == 0 or kind == 0:
        return a.copy()
    if kind == 1:
        return a.T.copy().T
    wide = np.zeros([2 * n + 1 for n in a.shape] if kind == 2 else [*a.shape[:-1], a.shape[-1] + 3], a.dtype)
    view = wide[tuple(slice(0, 2 * n, 2) for n in a.shape)] if kind == 2 else wide[..., 2 : 2 + a.shape[-1]]
    view[...] = a
    return view
