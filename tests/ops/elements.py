"""A small evaluator of `Dense.element`: the scalar expression of an op, on NumPy arrays, all positions at once.

Independent of codegen (it follows the words of `ir/intrinsics.py`), so that it can hold the lowering of each op
against its reference.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kiln.ir import loops as L
from kiln.ir import order
from kiln.ir.halves import converted, is_half, widened
from kiln.ir.ops import OPS
from kiln.ir.ops.base import Dense, ElementContext, OpDef, State
from kiln.ir.ops.pairs import joined
from kiln.ir.types import DType, Sym, TensorType

Array = np.ndarray[Any, Any]


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    low = a.dtype.kind == "i" and (a == np.iinfo(a.dtype).min) & (b == -1)
    safe = np.where((b == 0) | low, a.dtype.type(1), b)
    quotient = a // safe
    quotient += (quotient * safe != a) & ((a < 0) != (safe < 0))  # towards zero
    return np.where(b == 0, a.dtype.type(0), np.where(low, a, quotient)).astype(a.dtype)


def _convert(a: Array, to: DType) -> Array:
    if to.is_half or is_half(a.dtype):
        a = widened(a)
        if to.is_half:
            return converted(a, to)
    if a.dtype.kind == "f" and to.kind in ("int", "uint"):
        info = np.iinfo(to.numpy)
        inside = (a >= float(info.min)) & (a < float(info.max) + (1.0 if to.bits == 32 else 0.0))
        return np.where(inside, a, a.dtype.type(info.min)).astype(to.numpy)
    return a.astype(to.numpy)


def _round(a: Array) -> Array:
    return np.rint(a)


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _divide,
    "mod": lambda a, b: np.where(b == 0, 0, a - _divide(a, b) * b).astype(a.dtype),
    "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "rint": _round, "floor": np.floor,
    "max": lambda a, b: np.where((a != a) | (a > b), a, b), "min": lambda a, b: np.where((a != a) | (a < b), a, b),
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "real": lambda z: z.real.copy(), "imag": lambda z: z.imag.copy(), "complex": joined,
    "shl": np.left_shift, "shr": np.right_shift, "select": np.where,
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "pow": np.power,
    "fma": order.fma,
    "fmod": np.fmod, "log1p": np.log1p, "log2": np.log2, "log10": np.log10, "exp2": np.exp2, "expm1": np.expm1,
    "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "atan": np.arctan, "asin": np.arcsin, "acos": np.arccos, "atan2": np.arctan2,
    "erfc": lambda a: np.vectorize(math.erfc, otypes=[np.float64])(a.astype(np.float64)).astype(a.dtype),
    "erf": lambda a: np.vectorize(math.erf, otypes=[np.float64])(a.astype(np.float64)).astype(a.dtype),
    "sinpi": lambda a: (np.sin(np.pi * (a - np.rint(a))) * (1 - 2 * (np.fmod(np.rint(a), 2) != 0))).astype(a.dtype),
    **{name: functools.partial(OPS[name].ref, np) for name in ("erfinv", "lgamma", "digamma")},
    "cospi": lambda a: np.cos(np.pi * np.fmod(a.astype(np.float64), 2)).astype(a.dtype),
}  # fmt: skip


@dataclass
class Evaluation:
    """One run over all positions of a result: loop variables, memory, and the checks that failed."""

    size: int
    variables: dict[str, Array]
    memory: dict[str, Array]
    failed: list[tuple[str, str, int]] = field(default_factory=list)
    memo: dict[L.Expr, Array] = field(default_factory=dict)

    def value(self, e: L.Expr) -> Array:
        found = self.memo.get(e)
        if found is None:
            with np.errstate(all="ignore"):
                found = self.memo[e] = self._compute(e)
            assert found.dtype == e.dtype.numpy, f"{e} gave {found.dtype}"
            assert found.shape == (self.size,)
        return found

    def _compute(self, e: L.Expr) -> Array:
        if isinstance(e, L.Const):
            return np.full(self.size, e.value, e.dtype.numpy)
        if isinstance(e, L.Var):
            return self.variables[e.name]
        if isinstance(e, L.Load):
            return self._load(e)
        assert isinstance(e, L.Apply), e
        args = [self.value(a) for a in e.args]
        if e.fn == "cast":
            return _convert(args[0], e.dtype)
        if e.fn == "bitcast":
            return args[0].view(e.dtype.numpy)
        return FUNCTIONS[e.fn](*args)

    def _load(self, e: L.Load) -> Array:
        data = self.memory[e.buffer.name]
        index = [self.value(i) for i in e.indices]
        on = np.ones(self.size, bool) if e.mask is None else self.value(e.mask)
        for i, n in zip(index, data.shape, strict=True):
            assert ((i >= 0) & (i < n))[on].all(), f"read out of bounds: {i[on]} in {n}"
        out = np.zeros(self.size, data.dtype)
        out[on] = data[tuple(i[on] for i in index)] if index else data
        return out


def evaluate_element(
    op: OpDef,
    operands: tuple[Array, ...],
    attrs: dict[str, Any],
    types: list[TensorType],
    sizes: Mapping[str, int] | None = None,
) -> tuple[Array, list[tuple[str, str, int]]]:
    """The result of `op` by its `Dense.element`, and the failed checks as (kind, message, value). `types` and shapes in
    `attrs` may be symbolic; `sizes` then says what the names stand for."""
    lower = op.lower
    assert isinstance(lower, Dense)
    (result,) = op.infer_types(types, attrs)

    def number(d: Any) -> int:
        return (sizes or {})[d.name] if isinstance(d, Sym) else int(d)

    shape = tuple(map(number, result.shape))
    grid = np.indices(shape).reshape(len(shape), -1) if shape else np.zeros((0, 1), np.int64)
    positions = {f"i{d}": grid[d].astype(np.int64) for d in range(len(shape))}
    size = int(np.prod(shape, dtype=np.int64))
    run = Evaluation(size, positions, {f"x{k}": x for k, x in enumerate(operands)})
    buffers = [
        L.Buffer(f"x{k}", t.dtype, x.shape, (0,) * x.ndim) for k, (t, x) in enumerate(zip(types, operands, strict=True))
    ]
    index = tuple(L.Var(L.INDEX, f"i{d}") for d in range(len(shape)))

    def read(k: int, at: tuple[L.Expr, ...], where: L.Expr | None = None) -> L.Expr:
        assert not lower.pointwise or at == index, "a pointwise op must read at its own index"
        return L.load(buffers[k], at, where)

    def check(ok: L.Expr, kind: str, message: str, value: L.Expr) -> None:
        for good, number in zip(run.value(ok), run.value(value), strict=True):
            if not good:
                run.failed.append((kind, message, int(number)))

    def loop(extent: L.Expr, state: State, step: Callable[[L.Expr, State], State]) -> State:
        for k in range(int(run.value(extent).max(initial=0))):
            after = step(L.index(k), state)
            state = tuple(L.Var(e.type, f"state{len(run.variables) + i}") for i, e in enumerate(after))
            found = [run.value(e) for e in after]  # now: expressions of all rounds would be too deep
            run.variables.update((e.name, value) for e, value in zip(state, found, strict=True))
        return state

    context = ElementContext(tuple(types), result, attrs, read, check, lambda d: L.index(number(d)), loop)
    return run.value(lower.at(context, index)).reshape(shape), run.failed
