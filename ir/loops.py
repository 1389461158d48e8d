"""The loop IR: what one kernel computes, read by both back ends.

A *logical* kernel is scalar: nests of `For`, `Let`, `Store`, and `Reduce` statements that carry their order
by name. A per-target *schedule* rewrites it (vector expressions, masks, parallel or grid axes); the emitters
then translate node by node. `codegen/interpret.py` evaluates both forms and is the living definition.

Expressions are immutable and compared by identity; sharing one object means computing it once in the block
where it is first needed. Types are explicit: `Vec(dtype, lanes)`, one lane being a scalar. Index arithmetic
is int64. Every intrinsic is total: what C leaves undefined is defined in `ir/intrinsics.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kiln.ir import types as T
from kiln.ir.halves import round_number
from kiln.ir.intrinsics import INTRINSICS as INTRINSICS
from kiln.ir.intrinsics import MATH_FUNCTIONS as MATH_FUNCTIONS
from kiln.ir.types import DType


@dataclass(frozen=True, slots=True)
class Vec:
    """The type of an expression."""

    dtype: DType
    lanes: int = 1

    def __str__(self) -> str:
        return self.dtype.name if self.lanes == 1 else f"{self.dtype.name}x{self.lanes}"


INDEX: Final = Vec(T.int64)
BOOL: Final = Vec(T.bool_)


# ---------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True, eq=False)
class Expr:
    """Base of all expressions."""

    type: Vec

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def lanes(self) -> int:
        return self.type.lanes

    # Index arithmetic reads better with operators; float code uses the named functions below as well.
    def __add__(self, other: Expr | int) -> Expr:
        return add(self, _like(self, other))

    def __sub__(self, other: Expr | int) -> Expr:
        return sub(self, _like(self, other))

    def __mul__(self, other: Expr | int) -> Expr:
        return mul(self, _like(self, other))


@dataclass(frozen=True, slots=True, eq=False)
class Const(Expr):
    """A literal; vector types mean the same value in every lane. Float values are exact for the dtype."""

    value: int | float | bool


@dataclass(frozen=True, slots=True, eq=False)
class Var(Expr):
    """A name bound by a kernel parameter, a loop, a Let or a Reduce."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Expr):
    """An intrinsic of `INTRINSICS` applied lane by lane."""

    fn: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Load(Expr):
    """An element, or with a `Ramp` among the indices a vector, of a buffer. Lanes whose `mask` is false are
    not read and give zero."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    mask: Expr | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ramp(Expr):
    """base, base + 1, ..., base + lanes - 1 (int64)."""

    base: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Splat(Expr):
    """A scalar in every lane."""

    value: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Shuffle(Expr):
    """Lanes picked from the concatenation of the operands; one picked lane gives a scalar."""

    operands: tuple[Expr, ...]
    picks: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Warp(Expr):
    """GPU: the value that the lane whose number is this one's xor `xor` holds (`__shfl_xor_sync`)."""

    value: Expr
    xor: int


# ------------------------------------------------------------------------------------------- buffers


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """A named piece of memory with a layout. scope: "global" (a kernel parameter), "stack", "workspace",
    "register", "shared". Shape and strides (in elements) are ints or int64 expressions."""

    name: str
    dtype: DType
    shape: tuple[int | Expr, ...]
    strides: tuple[int | Expr, ...]
    scope: str = "global"


# ----------------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True, eq=False)
class Stmt:
    """Base of all statements."""


Block = tuple[Stmt, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Let(Stmt):
    """Names a value for the rest of the block."""

    var: Var
    value: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Store(Stmt):
    """Writes an element or, with a Ramp index, the lanes whose mask is true."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr
    mask: Expr | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Carry:
    """A loop-carried value: `var` inside the body starts as `init`, then is `next`; after the loop `result`
    holds the last one (`init` when the loop ran zero times)."""

    var: Var
    init: Expr
    next: Expr
    result: Var


@dataclass(frozen=True, slots=True, eq=False)
class For(Stmt):
    """for var in range(lo, hi, step). kind: "serial", "parallel" (iterations independent, any order),
    "vector" (logical only: may be vectorised, iterations independent), "unrolled", or the GPU axes "grid",
    "block", "lane". Carried values only in serial and unrolled loops. `grain` (of parallel loops, and of vector
    loops that may be cut into parallel chunks) is the least number of iterations worth a thread: fewer run on
    the caller; of unrolled loops of a GPU, how many rounds become one."""

    kind: str
    var: Var
    lo: Expr
    hi: Expr
    body: Block
    step: int = 1
    carried: tuple[Carry, ...] = ()
    grain: Expr | None = None


@dataclass(frozen=True, slots=True, eq=False)
class While(Stmt):
    """Runs `body` while `test` (over the carried vars) holds; a vector test runs lanes under a mask."""

    test: Expr
    body: Block
    carried: tuple[Carry, ...]


@dataclass(frozen=True, slots=True, eq=False)
class If(Stmt):
    """Runs one of two blocks; the condition is a scalar."""

    cond: Expr
    then: Block
    orelse: Block = ()


@dataclass(frozen=True, slots=True, eq=False)
class Reduce(Stmt):
    """results = the combination of `values` over all of `axes`, in a named order of `ir/order.py`.

    order: "lanes" (one axis: the last logical dimension) or "serial" (axes flattened row-major). combine:
    "add", "mul", "max", "min", "or", "and", or "argmax" (values: the candidate and its int64 index; results
    likewise; NaN wins over numbers, the lowest index wins ties). `body` runs per point before `values`.
    An empty reduction gives the identity (+0.0 for "add")."""

    results: tuple[Var, ...]
    combine: str
    order: str
    axes: tuple[tuple[Var, Expr], ...]
    body: Block
    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Verify(Stmt):
    """Unless `ok` (every lane whose mask is true), record error `site` with `value` (int64) and go on."""

    ok: Expr
    site: int
    value: Expr
    mask: Expr | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Alloc(Stmt):
    """Makes a buffer for the rest of the block: "stack", "shared" and "register" of constant size,
    "workspace" (64-byte aligned, from the context's allocator, freed at the block's end) of any size."""

    buffer: Buffer


@dataclass(frozen=True, slots=True, eq=False)
class Barrier(Stmt):
    """GPU: all threads of the block meet."""


@dataclass(frozen=True, slots=True, eq=False)
class Invoke(Stmt):
    """Calls another kernel or function by symbol with buffers (pointers at an offset) and scalars."""

    symbol: str
    args: tuple[Expr | tuple[Buffer, Expr], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """One function: parameters (global buffers, int64 scalars) and a body."""

    name: str
    params: tuple[Buffer | Var, ...]
    body: Block

    def __str__(self) -> str:
        from kiln.ir.loops_text import print_kernel

        return print_kernel(self)


# -------------------------------------------------------------------------------------- constructors


def const(value: int | float | bool, type: Vec | DType) -> Const:
    """A literal of `type`; floats are rounded to the dtype, integers wrap."""
    t = type if isinstance(type, Vec) else Vec(type)
    if t.dtype.is_floating_point:
        return Const(t, round_number(value, t.dtype))
    if t.dtype.kind == "bool":
        return Const(t, bool(value))
    return Const(t, t.dtype.wrapped(int(value)))


def index(value: int) -> Const:
    """An int64 scalar literal."""
    return Const(INDEX, value)


def as_index(value: int | Expr) -> Expr:
    return index(value) if isinstance(value, int) else value


def _like(e: Expr, other: Expr | int | float) -> Expr:
    return other if isinstance(other, Expr) else const(other, e.type)


def apply(fn: str, *args: Expr, to: Vec | None = None) -> Expr:
    """Apply intrinsic `fn`; operand types must agree (select: the last two), lanes too. `to` for casts."""
    info = INTRINSICS[fn]
    if len(args) != info.arity:
        raise TypeError(f"{fn} takes {info.arity} arguments, got {len(args)}")
    typed = args[1:] if fn == "select" else args
    if any(a.type != typed[0].type for a in typed) or args[0].lanes != typed[0].lanes:
        raise TypeError(f"{fn} of mixed types {', '.join(str(a.type) for a in args)}")
    if info.result == "given":
        if to is None:
            raise TypeError(f"{fn} needs a target type")
        return Apply(to, fn, args)
    of = args[-1].dtype
    kinds = {"bool": T.bool_, "part": of.part, "pair": of.paired}
    return Apply(Vec(kinds.get(info.result, of), args[-1].lanes), fn, args)


def _is_const(e: Expr, value: int) -> bool:
    return isinstance(e, Const) and not e.dtype.is_inexact and e.value == value


def add(a: Expr, b: Expr) -> Expr:
    """a + b; integer zeros and literals fold, so that index arithmetic stays readable."""
    if a.dtype.is_integer:
        if _is_const(a, 0):
            return b
        if _is_const(b, 0):
            return a
        if a.type == INDEX and isinstance(a, Const) and isinstance(b, Const):
            return index(int(a.value) + int(b.value))
    return apply("add", a, b)


def sub(a: Expr, b: Expr) -> Expr:
    if a.type == INDEX and isinstance(b, Const):
        if b.value == 0:
            return a
        if isinstance(a, Const):
            return index(int(a.value) - int(b.value))
    return apply("sub", a, b)


def mul(a: Expr, b: Expr) -> Expr:
    """a * b; integer ones, zeros and literals fold."""
    if a.type == INDEX:
        if _is_const(a, 1) or _is_const(b, 0):
            return b
        if _is_const(b, 1) or _is_const(a, 0):
            return a
        if isinstance(a, Const) and isinstance(b, Const):
            return index(int(a.value) * int(b.value))
    return apply("mul", a, b)


def select(cond: Expr, a: Expr, b: Expr) -> Expr:
    return apply("select", cond, a, b)


def cast(e: Expr, dtype: DType) -> Expr:
    """Value conversion; the same dtype is the expression itself."""
    return e if e.dtype is dtype else apply("cast", e, to=Vec(dtype, e.lanes))


def bitcast(e: Expr, dtype: DType) -> Expr:
    if e.dtype.bits != dtype.bits:
        raise TypeError(f"bitcast of {e.dtype} to {dtype}")
    return e if e.dtype is dtype else apply("bitcast", e, to=Vec(dtype, e.lanes))


def load(buffer: Buffer, indices: Sequence[Expr], mask: Expr | None = None) -> Load:
    """A load; lanes follow from the indices."""
    lanes = max((i.lanes for i in indices), default=1)
    if len(indices) != len(buffer.shape):
        raise TypeError(f"{buffer.name} has {len(buffer.shape)} dimensions, indexed by {len(indices)}")
    return Load(Vec(buffer.dtype, lanes), buffer, tuple(indices), mask)


def ramp(base: Expr, lanes: int) -> Ramp:
    return Ramp(Vec(T.int64, lanes), base)


def splat(value: Expr, lanes: int) -> Expr:
    """A scalar in `lanes` lanes; constants stay constants."""
    if lanes == 1 or value.lanes == lanes:
        return value
    if isinstance(value, Const):
        return Const(Vec(value.dtype, lanes), value.value)
    return Splat(Vec(value.dtype, lanes), value)


def shuffle(operands: Sequence[Expr], picks: Sequence[int]) -> Shuffle:
    return Shuffle(Vec(operands[0].dtype, len(picks)), tuple(operands), tuple(picks))
