"""Running a logical kernel every way there is: evaluated, scheduled and evaluated, and natively on every target."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kiln.codegen.interpret import Failure, evaluate
from kiln.codegen.llvm.emit import emit_module
from kiln.codegen.schedule import schedule
from kiln.ir import loops as L
from kiln.ir.loops import Buffer, Expr, Kernel, Var
from kiln.ir.types import DType, contiguous_strides
from kiln.runtime import context, targets
from kiln.runtime.modules import load_module

Array = np.ndarray[Any, Any]
HOST = targets.detect()
TARGETS = {n: t for n, t in targets.LEVELS.items() if t.arch == HOST.arch and t.vector_bits <= HOST.vector_bits}
MARGIN = 64
"""Elements before and after every buffer that native code must leave alone."""


def buffer(name: str, dtype: DType, *shape: int | Expr, strides: Sequence[int | Expr] | None = None) -> Buffer:
    """A global buffer; without strides row-major (of constant shape)."""
    if strides is None:
        strides = contiguous_strides(tuple(d for d in shape if isinstance(d, int)))
    assert len(strides) == len(shape)
    return Buffer(name, dtype, tuple(shape), tuple(strides))


def var(name: str, dtype: DType | None = None) -> Var:
    return Var(L.INDEX if dtype is None else L.Vec(dtype), name)


def values(dtype: DType, n: int, seed: int = 0) -> Array:
    """Ordinary numbers, every fourth one special."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "bool":
        return rng.random(n) < 0.5
    if not dtype.is_floating_point:
        info = np.iinfo(dtype.numpy)
        x = rng.integers(info.min, info.max, n, dtype.numpy, endpoint=True)
        odd = np.array([0, 1, 2, info.max, info.min, info.max - 6, info.min + 1], dtype.numpy)
        return np.where(rng.random(n) < 0.3, rng.choice(odd, n), x).astype(dtype.numpy)
    info = np.finfo(dtype.numpy)
    x = (rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4, n)).astype(dtype.numpy)
    odd = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        np.inf,
        -np.inf,
        np.nan,
        info.max,
        -info.max,
        info.tiny,
        -info.smallest_subnormal,
    ]
    return np.where(rng.random(n) < 0.25, rng.choice(np.array(odd, dtype.numpy), n), x).astype(dtype.numpy)


def ordinary(dtype: DType, n: int, seed: int = 0) -> Array:
    """Numbers whose sums depend on their order and are finite."""
    rng = np.random.default_rng(seed)
    if dtype.is_floating_point:
        return (rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4, n)).astype(dtype.numpy)
    return rng.integers(0, 2 if dtype.kind == "bool" else 1000, n).astype(dtype.numpy)


def same_bits(a: Array, b: Array) -> bool:
    """Equal, signed zeros included; NaNs are all alike. Of complex numbers, both parts."""
    if a.dtype.kind == "c":
        return a.dtype == b.dtype and same_bits(a.real, b.real) and same_bits(a.imag, b.imag)
    if a.dtype != b.dtype or a.shape != b.shape or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return False
    return a.dtype.kind != "f" or bool(((np.signbit(a) == np.signbit(b)) | np.isnan(a)).all())


def native(
    kernels: Sequence[Kernel], level: str, arrays: Mapping[str, Array], scalars: Mapping[str, int]
) -> Failure | None:
    """Run the first of some scheduled kernels on `arrays`; the check that failed."""
    kernel, target = kernels[0], TARGETS[level]
    module = emit_module(kernel.name, list(kernels), target)
    address = load_module(module, target, lambda name: None)[kernel.name]
    guarded: dict[str, Array] = {}
    for name, a in arrays.items():
        guarded[name] = np.zeros(a.size + 2 * MARGIN, a.dtype)
        guarded[name].view(np.uint8)[:] = 0xA5
        guarded[name][MARGIN : MARGIN + a.size] = a
    types: list[Any] = [ctypes.c_void_p]
    args: list[int] = [context.current().address]
    for p in kernel.params:
        types.append(ctypes.c_int64 if isinstance(p, Var) else ctypes.c_void_p)
        args.append(scalars[p.name] if isinstance(p, Var) else guarded[p.name][MARGIN:].ctypes.data)
    status = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(address)(*args)
    for name, a in arrays.items():
        edges = np.delete(guarded[name], slice(MARGIN, MARGIN + a.size)).view(np.uint8)
        assert (edges == 0xA5).all(), f"{level}: {name} was written outside of its bounds"
        a[:] = guarded[name][MARGIN : MARGIN + a.size]
    code, site, value = context.current().take_error()
    assert status == code
    assert code in (0, 1)
    return (site, value) if code else None


def agree(
    kernel: Kernel,
    arrays: Mapping[str, Array],
    scalars: Mapping[str, int] | None = None,
    helpers: Sequence[Kernel] = (),
    levels: Sequence[str] = tuple(TARGETS),
    orders: Sequence[bool] = (False, True),
) -> tuple[dict[str, Array], list[Failure]]:
    """Run a logical kernel every way from the same memory, assert equal memory afterwards and equal failures; the
    memory and the failures. `helpers` are the kernels it invokes. `orders`: whether iterations that are independent are
    evaluated backward."""
    scalars = scalars or {}
    wanted = {k: a.copy() for k, a in arrays.items()}
    functions = {h.name: h for h in helpers}
    failures = evaluate(kernel, wanted, scalars, functions=functions)

    def check(how: str, got: Mapping[str, Array]) -> None:
        for name, a in got.items():
            if not same_bits(a, wanted[name]):
                where = [k for k in range(a.size) if not same_bits(a[k : k + 1], wanted[name][k : k + 1])]
                k = where[0]
                raise AssertionError(
                    f"{how}: {name} differs in {len(where)}, first at {k}: {a[k]!r}, not {wanted[name][k]!r}"
                )

    flat = schedule(kernel, HOST)
    others = [schedule(h, HOST) for h in helpers]
    ways = [("logical", kernel, functions, backward) for backward in orders if backward]
    ways += [("scheduled", flat, {h.name: h for h in others}, backward) for backward in orders]
    for how, k, known, backward in ways:
        how += ", backward" * backward
        got = {name: a.copy() for name, a in arrays.items()}
        found = evaluate(k, got, scalars, functions=known, backward=backward)
        assert sorted(found) == sorted(failures), how
        check(how, got)
    for level in levels:
        if TARGETS[level].fma != HOST.fma:  # the schedule depends on that
            flat, *others = (schedule(k, TARGETS[level]) for k in (kernel, *helpers))
        got = {name: a.copy() for name, a in arrays.items()}
        error = native([flat, *others], level, got, scalars)
        assert (error in failures) if failures else error is None, f"{level}: {error}, not {failures}"
        check(level, got)
    return wanted, failures
