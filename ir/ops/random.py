"""Random numbers as pure functions of a state: element i depends on the seed and on offset + i alone.

The state is int64[2]: (seed, offset). Philox4x32-10 (Salmon et al., 2011: "Parallel random numbers: as easy as
1, 2, 3") turns counter offset + i and key seed into four words; i is the row-major position in the logical shape, so
results depend on neither strides nor threads. Advancing the offset is the caller's explicit write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.halves import PARAMETERS, converted
from kiln.ir.ops import philox
from kiln.ir.ops.base import Dense, ElementContext, OpDef, OpTypeError, register
from kiln.ir.ops.create import checked_type
from kiln.ir.ops.elementwise import FLOATS
from kiln.ir.types import DType, TensorType, float32, int64

Words = tuple[Any, Any, Any, Any]


def _types(name: str) -> Callable[[Sequence[TensorType], Attrs], tuple[TensorType, ...]]:
    def infer(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        (state,) = operands
        if state.dtype is not int64 or state.shape != (2,):
            raise OpTypeError(name, f"the state is {state}, not int64[2]", "dtype")
        return (checked_type(name, attrs, FLOATS),)

    return infer


def _element(distribution: str) -> Callable[[ElementContext, tuple[L.Expr, ...]], L.Expr]:
    def element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
        position: L.Expr = L.index(0)
        for i, n in zip(index, ctx.result_type.shape, strict=True):
            position = L.add(L.mul(position, ctx.extent(n)), i)
        seed, offset = ctx.read(0, (L.index(0),)), ctx.read(0, (L.index(1),))
        words = philox.philox(L.add(offset, position), seed)
        make = philox.uniform if distribution == "uniform" else philox.normal
        return make(words, ctx.result_type.dtype)

    return element


def philox_words(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10 in NumPy: four arrays of 32-bit words, held in uint64, of four such arrays and two words."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1 = (p1 >> half) ^ x1 ^ np.uint64(k0), p1 & low
        x2, x3 = (p0 >> half) ^ x3 ^ np.uint64(k1), p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return x0, x1, x2, x3


def _words(state: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Words:
    """The words of every element: counter state[1] + position, key state[0]."""
    count = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        counter = (state[1] + np.arange(count, dtype=np.int64)).astype(np.uint64).reshape(shape)
    key, zero = int(state[0]), np.zeros_like(counter)
    words = (counter & np.uint64(0xFFFFFFFF), counter >> np.uint64(32), zero, zero)
    return philox_words(words, (key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF))


def _fraction(high: Any, low: Any, dtype: DType) -> Any:
    """A float64 in [0, 1): 24 bits of `high` for float32 (float16: 11, bfloat16: 8), 53 of both for float64."""
    if dtype.is_half:
        digits = PARAMETERS[dtype.name][0] + 1
        return (high >> np.uint64(32 - digits)).astype(np.float64) * 2.0**-digits
    if dtype.bits == 32:
        return (high >> np.uint64(8)).astype(np.float64) * 2.0**-24
    return ((high << np.uint64(21)) | (low >> np.uint64(11))).astype(np.float64) * 2.0**-53


def _uniform_ref(xp: Any, state: Any, *, shape: tuple[int, ...], dtype: DType) -> Any:
    w0, w1, _, _ = _words(np.asarray(state), shape)
    return xp.asarray(converted(_fraction(w0, w1, dtype), dtype))


def _normal_ref(xp: Any, state: Any, *, shape: tuple[int, ...], dtype: DType) -> Any:
    """Box and Muller (1958): sqrt(-2 log u1) * cos(2 pi u2) with u1 in (0, 1]."""
    w0, w1, w2, w3 = _words(np.asarray(state), shape)
    final, dtype = dtype, float32 if dtype.is_half else dtype
    first, second = ((w0, w0), (w1, w1)) if dtype.bits == 32 else ((w0, w1), (w2, w3))
    u1 = _fraction(*first, dtype) + (2.0**-24 if dtype.bits == 32 else 2.0**-53)
    u2 = _fraction(*second, dtype)
    return xp.asarray(converted((np.sqrt(-2 * np.log(u1)) * np.cos(2 * np.pi * u2)).astype(dtype.numpy), final))


def _random(name: str, doc: str, ref: Callable[..., Any]) -> OpDef:
    return register(OpDef(name, doc, _types(name), ref, Dense(_element(name)), traits=frozenset({"random"}), arity=1))


uniform: Final[OpDef] = _random(
    "uniform",
    "uniform(state; shape, dtype): floats in [0, 1), exactly the same on every machine.",
    _uniform_ref,
)
normal: Final[OpDef] = _random(
    "normal",
    "normal(state; shape, dtype): standard normal floats by Box and Muller.",
    _normal_ref,
)
