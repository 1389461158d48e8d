"""What the tables of samples are made of: calls, error calls, and arrays whose values and memory are awkward.

A family of ops has a module of its own (`samples.py` is the first) with three tables by op name: `SAMPLES` and `SMOOTH`
of functions that make its calls, and `ERRORS`. `samples.FAMILIES` lists the modules.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kiln.ir.graph import Constant
from kiln.ir.halves import converted
from kiln.ir.ops.base import OPS, OpDef
from kiln.ir.ops.matrix import adjoint
from kiln.ir.types import DTYPES, TensorType

Array = np.ndarray[Any, Any]

APART = frozenset({"fusion", "cond", "while_loop", "scan", "detach", "through"})
"""Ops without samples: those that hold graphs of the others, which have tests of their own, and `detach`, whose
derivative is not that of the function that it computes."""

FLOATS = ("float32", "float64", "float16", "bfloat16")
HALVES = ("float16", "bfloat16")
WIDE_FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
INTS = ("int64", "int32", "int16", "int8", "uint8")
NUMERIC = (*INTS, *FLOATS)
ANY = ("bool", *NUMERIC)
MAIN = ("bool", "int64", "float32", "float64")
"""The dtypes that are sampled in every layout; the others in `FEW_LAYOUTS`, since a kernel's loops do not depend on
the dtype."""
FEW_LAYOUTS = ("0-d", "line", "strided")


@dataclass(frozen=True, eq=False)
class Sample:
    """One call. `label` names it in test ids. `symmetric`: derivatives of the op are those along symmetric matrices, so
    tests of them take them of the op after its operand was made symmetric. `fixed`: the op has no derivative by its
    first operand, so they take them of the op of a constant."""

    label: str
    operands: tuple[Array, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    symmetric: bool = False
    fixed: bool = False

    def bind(self, op: OpDef, operands: Sequence[Any], receiver: Any = None) -> tuple[Any, ...]:
        """`op` as derivatives are taken of it, on anything that it can be applied to."""
        if self.symmetric:
            x = operands[0]
            half = OPS["full"].bind((), {"shape": x.ttype.shape, "dtype": x.ttype.dtype, "value": 0.5}, receiver=x)[0]
            operands = [OPS["mul"](OPS["add"](x, adjoint(x)), half), *operands[1:]]
        if self.fixed:
            first = OPS["constant"].bind((), {"data": Constant(self.operands[0])}, receiver=operands[1])
            operands = [*first, *operands[1:]]
        return op.bind(operands, self.attrs, receiver=receiver)

    def types(self) -> list[TensorType]:
        return [TensorType(DTYPES[x.dtype.name], x.shape) for x in self.operands]


@dataclass(frozen=True, eq=False)
class ErrorSample:
    """A call that the op's type rule must refuse, with an `OpTypeError` of this kind whose message matches."""

    operands: tuple[TensorType, ...]
    attrs: dict[str, Any]
    kind: str
    match: str


# ------------------------------------------------------------------------------------------- arrays


def specials(dtype: str) -> Array:
    """Values at which arithmetic goes wrong first."""
    if dtype == "bool":
        return np.array([False, True])
    if dtype == "int64":
        top = 2**63 - 1
        return np.array([0, 1, -1, 2, -3, 7, 1 << 31, -(1 << 53) - 1, top, -top, -top - 1])
    if dtype in INTS:
        limits = np.iinfo(dtype)
        low = [-1, -3, limits.min, limits.min + 1] if limits.min else []
        return np.array([0, 1, 2, 7, limits.max // 2 + 1, limits.max - 1, limits.max, *low], dtype)
    if dtype in HALVES:
        bits = [0, 1, 2, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0x7C00, 0x7E00, 0x42, 0x7F, 0x80, 0x3F80, 0x7F7F, 0x7F80, 0x7FC0]
        return np.array([*bits, *(b | 0x8000 for b in bits)], np.uint16).view(DTYPES[dtype].numpy)
    info = np.finfo(dtype)
    tiny, small = float(info.smallest_subnormal), float(info.tiny)
    values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -2.5,
        3.0,
        88.0,
        -104.0,
        1e-4,
        709.0,
        -745.5,
        1e10,
        tiny,
        -tiny,
        small / 2,
        small,
    ]
    values += [-small, float(info.max), float(info.min), np.inf, -np.inf, np.nan, 1 + float(info.eps)]
    return np.array(values, dtype)


def generator(*seed: object) -> np.random.Generator:
    """The same numbers for the same words in every run."""
    return np.random.default_rng(zlib.crc32(repr(seed).encode()))


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, scale: float = 2.0) -> Array:
    """Random values: normal floats, small integers, bools."""
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), bool)
    if dtype in COMPLEX:
        return np.asarray((rng.normal(size=shape) + 1j * rng.normal(size=shape)) * scale, dtype)
    if dtype == "int64":
        return np.asarray(rng.integers(-9, 10, shape))
    if dtype in INTS:
        return np.asarray(rng.integers(0 if dtype == "uint8" else -9, 10, shape), dtype)
    return converted(rng.normal(size=shape) * scale, DTYPES[dtype])


def direction(rng: np.random.Generator, x: Array) -> Array:
    """A random array like `x`, of floats or complex numbers."""
    drawn = np.asarray(rng.normal(size=x.shape))
    return np.asarray(drawn + 1j * rng.normal(size=x.shape)) if x.dtype.kind == "c" else drawn


def product(x: Array, y: Array) -> float:
    """The sum of products of numbers, complex ones being pairs of such."""
    return float((x.conj() * y).real.sum())


def layouts(rng: np.random.Generator, dtype: str) -> Iterator[tuple[str, Callable[[], Array]]]:
    """Makers of arrays of one shape per label whose memory lies differently."""
    makers: dict[str, Callable[[], Array]] = {
        "0-d": lambda: draw(rng, (), dtype),
        "empty": lambda: draw(rng, (3, 0, 2), dtype),
        "one": lambda: draw(rng, (1,), dtype),
        "line": lambda: draw(rng, (67,), dtype),
        "cube": lambda: draw(rng, (2, 3, 17), dtype),
        "transposed": lambda: draw(rng, (19, 6), dtype).T,
        "strided": lambda: draw(rng, (4, 40), dtype)[::2, 1::3],
        "repeated": lambda: np.broadcast_to(draw(rng, (5, 1), dtype), (5, 18)),
    }
    return iter([(k, v) for k, v in makers.items() if dtype in MAIN or k in FEW_LAYOUTS])


def t(dtype: str, *shape: int) -> TensorType:
    """A type, for error samples."""
    return TensorType(DTYPES[dtype], shape)
