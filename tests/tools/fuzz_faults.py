"""Faults to plant, each of a kind that a compiler like this one gets: the fuzzer must find every one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any
from unittest import mock

from kiln import capture, dispatch, promotion
from kiln.codegen import halves, scan, steps
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.loops import Apply, Block, Expr, For, If, Kernel, Let, Reduce, Stmt, Store
from kiln.ir.ops import OPS


def as_kiln(f: Callable[..., Any]) -> Callable[..., Any]:
    """The same function as if it were kiln's own code: a capture would refuse to call a stranger's."""
    return FunctionType(
        f.__code__, {**f.__globals__, "__name__": "kiln.planted"}, f.__name__, f.__defaults__, f.__closure__
    )


@contextlib.contextmanager
def fresh_kernels() -> Iterator[None]:
    """No kernel made before is used inside, none made inside is used afterwards."""
    dispatch._kernels.clear()
    dispatch._launches.clear()
    try:
        yield
    finally:
        dispatch._kernels.clear()
        dispatch._launches.clear()


@contextlib.contextmanager
def rewritten(before: Callable[[Kernel], Kernel], after: Callable[[Kernel], Kernel]) -> Iterator[None]:
    """Kernels pass through `before` and `after` around the schedule."""
    schedule = steps.schedule
    with fresh_kernels(), mock.patch.object(steps, "schedule", lambda k, target: after(schedule(before(k), target))):
        yield


def map_statements(block: Block, f: Callable[[Stmt], Stmt]) -> Block:
    """Every statement replaced by f of it, inner ones first."""
    out: list[Stmt] = []
    for s in block:
        if isinstance(s, For | Reduce):
            s = replace(s, body=map_statements(s.body, f))
        elif isinstance(s, If):
            s = replace(s, then=map_statements(s.then, f), orelse=map_statements(s.orelse, f))
        out.append(f(s))
    return tuple(out)


def contracted(kernel: Kernel) -> Kernel:
    """a * b + c becomes one fused multiply-add: what a careless fusion does."""
    known: dict[Expr, Expr] = {}

    def product(e: Expr) -> Expr | None:
        e = known.get(e, e)
        return e if isinstance(e, Apply) and e.fn == "mul" and e.dtype.is_floating_point else None

    def fuse(e: Expr) -> Expr:
        if isinstance(e, Apply) and e.fn == "add":
            for a, b in (e.args, e.args[::-1]):
                m = product(a)
                if isinstance(m, Apply):
                    return L.apply("fma", *m.args, b)
        return e

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Let):
            known[s.var] = s.value
            return Let(s.var, fuse(s.value))
        return replace(s, value=fuse(s.value)) if isinstance(s, Store) else s

    return replace(kernel, body=map_statements(kernel.body, visit))


def without_tail(kernel: Kernel) -> Kernel:
    """Row reductions forget what is left behind the last whole vector."""

    def whole(extent: Expr) -> Expr:
        if isinstance(extent, L.Const):
            return L.index(int(extent.value) // 16 * 16 if int(extent.value) > 16 else int(extent.value))
        return L.select(L.apply("gt", extent, L.index(16)), L.apply("and", extent, L.index(-16)), extent)

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Reduce) and s.order == "lanes":
            return replace(s, axes=tuple((v, whole(e)) for v, e in s.axes))
        return s

    return replace(kernel, body=map_statements(kernel.body, visit))


@contextlib.contextmanager
def wrong_fusion() -> Iterator[None]:
    with rewritten(lambda k: k, contracted):
        yield


@contextlib.contextmanager
def wrong_reduction_tail() -> Iterator[None]:
    with rewritten(without_tail, lambda k: k):
        yield


@contextlib.contextmanager
def dropped_write_back() -> Iterator[None]:
    """Captured in-place writes to inputs are forgotten."""
    with mock.patch.object(capture.Capture, "storages", as_kiln(lambda self: [])):
        yield


@contextlib.contextmanager
def wrong_vjp() -> Iterator[None]:
    """The derivative of tanh loses its 1 -."""
    op = OPS["tanh"]
    right = op.vjp

    def wrong(call: Any, g: Any) -> Any:
        (y,) = call.results
        return (OPS["mul"](g, OPS["mul"](y, y)),)

    object.__setattr__(op, "vjp", as_kiln(wrong))
    try:
        yield
    finally:
        object.__setattr__(op, "vjp", right)


@contextlib.contextmanager
def wrong_promotion() -> Iterator[None]:
    """int64 with float32 gives float64, as NumPy has it."""
    right = promotion.result_type

    def wrong(*operands: Any) -> T.DType:
        found = right(*operands)
        if found is T.float32 and any(getattr(x, "dtype", None) is T.int64 for x in operands):
            return T.float64
        return found

    with mock.patch.object(promotion, "result_type", as_kiln(wrong)):
        yield


@contextlib.contextmanager
def wrong_scan_start() -> Iterator[None]:
    """Sums along a dimension begin at 1."""
    with fresh_kernels(), mock.patch.object(scan, "identity", as_kiln(lambda fn, dtype: 1)):
        yield


@contextlib.contextmanager
def wrong_half_rounding() -> Iterator[None]:
    """bfloat16 is cut off instead of rounded."""

    def cut(x: Expr, bits: Expr) -> Expr:
        return L.apply("shr", bits, L.const(16, bits.type))

    with fresh_kernels(), mock.patch.object(halves, "_to_bfloat16", as_kiln(cut)):
        yield


@contextlib.contextmanager
def forgotten_overlap() -> Iterator[None]:
    """An in-place op reads elements of its own memory that it has written already."""
    with fresh_kernels(), mock.patch.object(dispatch, "_private", as_kiln(lambda target, operand: operand)):
        yield


@contextlib.contextmanager
def stale_views() -> Iterator[None]:
    """In a capture, a view does not see what was written to its memory after it was made."""
    right = capture.Capture.value_of

    def stale(self: Any, t: Any) -> Any:
        entry = self.entries.get(id(t))
        return entry.value if entry is not None and entry.chain else right(self, t)

    with mock.patch.object(capture.Capture, "value_of", as_kiln(stale)):
        yield


@dataclass(frozen=True)
class Fault:
    """How to plant a fault, and the rows of the table whose programs are searched; none: the other family's."""

    plant: Callable[[], contextlib.AbstractContextManager[None]]
    rows: tuple[str, ...] = ()


FAULTS: dict[str, Fault] = {
    "wrong fusion": Fault(wrong_fusion),
    "wrong reduction tail": Fault(wrong_reduction_tail),
    "dropped write-back": Fault(dropped_write_back),
    "wrong vjp": Fault(wrong_vjp),
    "wrong promotion": Fault(wrong_promotion),
    "wrong scan start": Fault(wrong_scan_start, ("cumsum", "cumsum_", "cumprod", "diff", "trapezoid")),
    "wrong half rounding": Fault(wrong_half_rounding, ("cast", "Tensor.bfloat16", "add", "mul")),
    "forgotten overlap": Fault(forgotten_overlap, ("add_", "mul_", "sub_", "multiply_", "fmod_")),
    "stale views": Fault(stale_views, ("exp_", "add_", "clamp_", "abs_", "floor_")),
}
