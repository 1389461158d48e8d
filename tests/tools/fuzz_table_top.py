"""More of the table of `fuzz_table`: copies of views, and what stands at the top level beside `nn.functional`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fuzz_programs import FLOATS
from fuzz_table import ANY, COMPLEX, NUMERIC, TABLE, VIEWS, Draw, Drawn, Unfit, calling, entry, through

import kiln

Arguments = Callable[[Draw, int], tuple[Any, ...]]


def add_top(name: str, arguments: Arguments = lambda d, k: (), lo: int = 1, hi: int = 4, dtypes: Any = ANY) -> None:
    """A function of a tensor and of numbers that depend on its shape."""

    def draw(d: Draw) -> Drawn:
        k = d.take(dtypes, lo, hi)
        return [k], calling(getattr(kiln, name), *arguments(d, k)), None

    TABLE[name] = draw


def _part(d: Draw, k: int) -> tuple[Any, ...]:
    dim = d.dim(k)
    start = d.int(0, d.size(k)[dim])
    return dim, start, d.int(0, d.size(k)[dim] - start)


def _place(d: Draw, k: int) -> tuple[Any, ...]:
    dim = d.dim(k)
    if not d.size(k)[dim]:
        raise Unfit
    return dim, d.int(-d.size(k)[dim], d.size(k)[dim] - 1)


def _few(d: Draw, k: int) -> tuple[Any, ...]:
    dim = d.dim(k)
    if d.size(k)[dim] > 6:
        raise Unfit
    return (dim,)


def _sizes(d: Draw, k: int) -> tuple[Any, ...]:
    dim = d.dim(k)
    first = d.int(0, d.size(k)[dim])
    return [first, d.size(k)[dim] - first], dim


def _windows(d: Draw, k: int) -> tuple[Any, ...]:
    dim = d.dim(k)
    if not d.size(k)[dim]:
        raise Unfit
    return dim, d.int(1, d.size(k)[dim]), d.int(1, 3)


add_top("alias_copy", lo=0)
add_top("detach", lo=0)
add_top("detach_copy", lo=0)
add_top("squeeze_copy", lo=0)
add_top("t_copy", hi=2)
add_top("view_as_real_copy", dtypes=COMPLEX)
add_top("diagonal_copy", lambda d, k: (d.int(-2, 2),), lo=2)
add_top("expand_copy", lambda d, k: ((2, *d.size(k)),), hi=3)
add_top("narrow_copy", _part)
add_top("permute_copy", lambda d, k: (tuple(map(int, d.rng.permutation(len(d.size(k))))),))
add_top("select_copy", _place)
add_top("slice_copy", lambda d, k: (d.dim(k), d.int(0, 2), d.one([None, 3, 40, -1]), d.int(1, 3)))
add_top("transpose_copy", lambda d, k: (d.dim(k), d.dim(k)))
add_top("unbind_copy", _few)
add_top("unfold_copy", _windows)
add_top("unsqueeze_copy", lambda d, k: (d.int(0, len(d.size(k))),), lo=0)
for _name in ("split_copy", "unsafe_split"):
    add_top(_name, lambda d, k: (d.int(3, 40), d.dim(k)))
for _name in ("split_with_sizes_copy", "unsafe_split_with_sizes"):
    add_top(_name, _sizes)
add_top("unsafe_chunk", lambda d, k: (d.int(1, 4), d.dim(k)))
add_top("fill", lambda d, k: (d.one([0, 1, 2.5]),), dtypes=NUMERIC)
add_top("constant_pad_nd", lambda d, k: ((d.int(0, 2), d.int(0, 2)), d.one([0, 3])))
add_top("frobenius_norm", lambda d, k: ((d.dim(k),), d.flip()), dtypes=(*FLOATS, *COMPLEX))
add_top("nuclear_norm", lo=2, hi=2, dtypes=("float32", "float64"))


@entry("view_copy")
def _(d: Draw) -> Drawn:
    k = d.take(ANY, 1)
    shape = tuple(reversed(d.size(k)))
    return [k], lambda x: kiln.view_copy(x.contiguous(), shape), None


@entry("view_as_complex_copy")
def _(d: Draw) -> Drawn:
    k = d.new((*d.shape(d.int(0, 2)), 2), d.one(["float32", "float64"]))
    return [k], lambda x: kiln.view_as_complex_copy(x.clone(memory_format=kiln.contiguous_format)), None


@entry("rsub")
def _(d: Draw) -> Drawn:
    k = d.take(NUMERIC)
    return [k, d.partner(k, NUMERIC)], calling(kiln.rsub, alpha=d.one([1, 2, -3])), None


@entry("nonzero_static")
def _(d: Draw) -> Drawn:
    k, size = d.take(ANY, 1, 3), d.int(0, 20)

    def oracle(v: Any) -> Any:
        found = np.argwhere(v)[:size]
        return np.concatenate([found, np.full((size - len(found), v.ndim), -1)])

    return [k], calling(kiln.nonzero_static, size=size), oracle


@entry("range")
def _(d: Draw) -> Drawn:
    start, count = d.int(-3, 3), d.int(0, 20)
    return [d.take(NUMERIC)], lambda x: kiln.range(start, start + count, dtype=kiln.float32) * x.sum(), None


@entry("scalar_tensor")
def _(d: Draw) -> Drawn:
    number = d.one([2, -0.5, True])
    return [d.take(NUMERIC)], lambda x: x * kiln.scalar_tensor(number), None


def add_dropout(name: str) -> None:
    def draw(d: Draw) -> Drawn:
        k = d.new((d.int(1, 3), d.int(1, 5), 3, 2) if "feature" in name else d.shape(2), d.dtype(FLOATS))
        run = calling(getattr(kiln, name), d.one([0.0, 0.1, 0.5, 1.0]), True)
        return [k], through(d.int(0, VIEWS), run) if name.endswith("_") else run, None

    TABLE[name] = draw


for _name in ("alpha_dropout_", "dropout_", "feature_alpha_dropout_", "feature_dropout", "feature_dropout_"):
    add_dropout(_name)


def add_cell(name: str, gates: int) -> None:
    def draw(d: Draw) -> Drawn:
        rows, inputs, hidden, dtype = d.int(1, 4), d.int(1, 5), d.int(1, 5), d.dtype(FLOATS)
        shapes = [(rows, inputs), (rows, hidden), (gates * hidden, inputs), (gates * hidden, hidden)]
        operands = [d.new(shape, dtype) for shape in [*shapes, (gates * hidden,), (gates * hidden,)]]
        cell = getattr(kiln, name)
        if name == "lstm_cell":
            c = d.new((rows, hidden), dtype)
            return [*operands, c], lambda x, h, w, u, b, v, c: cell(x, (h, c), w, u, b, v), None
        return operands, cell, None

    TABLE[name] = draw


for _name, _gates in (("lstm_cell", 4), ("gru_cell", 3), ("rnn_relu_cell", 1), ("rnn_tanh_cell", 1)):
    add_cell(_name, _gates)
