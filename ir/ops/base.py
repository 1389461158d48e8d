"""How an op is declared: one `OpDef` per op, everything about it in one place.

A primitive is few and dumb: it takes operands of exactly matching dtypes and shapes; broadcasting, type
promotion and argument sugar live in `frontend/functional.py`, and everything else composes primitives.

The *operand protocol*: an operand (a graph `Value`, an eager `Tensor`) has `ttype: TensorType` and
`__kiln_bind__(op, operands, attrs) -> results`. `op(...)` asks its operands to do it, so one derivative
rule serves the eager tape, the captured graph and every higher order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, cast

import numpy as np

from kiln.ir.graph import Attrs, AttrValue
from kiln.ir.halves import converted, is_half, round_number, widened
from kiln.ir.loops import Apply, Const, Expr, Vec, apply, const, select
from kiln.ir.loops import cast as cast_expr
from kiln.ir.types import CPU, Device, DType, Shape, TensorType, dtype_of_numpy, float32, int64


class Operand(Protocol):
    """Anything an op can be applied to."""

    @property
    def ttype(self) -> TensorType: ...

    def __kiln_bind__(self, op: Any, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]: ...


class OpTypeError(Exception):
    """An op's type rule was broken. `kind` is "dtype", "shape", "dim", "value" or "device"; the frontend turns it into
    its own exception tree, with operands and the user's line."""

    def __init__(self, op: str, message: str, kind: str = "shape", fix: str = "") -> None:
        super().__init__(f"{op}: {message}")
        self.op, self.message, self.kind, self.fix = op, message, kind, fix


def apart(op: str, a: Device, b: Device) -> OpTypeError:
    """The error of operands on different devices."""
    there = b if a == CPU else a
    return OpTypeError(op, f"operands are on {a} and on {b}", "device", f"bring them together: .to({str(there)!r})")


class Read(Protocol):
    """Inside `Dense.element`: the element of operand `k` at `index`; where `where` is false nothing is
    loaded and the result is unspecified (the caller selects it away)."""

    def __call__(self, k: int, index: tuple[Expr, ...], where: Expr | None = None) -> Expr: ...


class Check(Protocol):
    """Inside `Dense.element`: raise `kind` ("index", "value", "zero") with `message` after the kernel unless
    `ok`; `{value}` in the message is replaced by `value`. Execution goes on with whatever the op clamps to."""

    def __call__(self, ok: Expr, kind: str, message: str, value: Expr) -> None: ...


State = tuple[Expr, ...]


class Loop(Protocol):
    """Inside `Dense.element`: `state` after `step(k, state)` for k = 0, 1, ..., extent - 1, as a loop."""

    def __call__(self, extent: Expr, state: State, step: Callable[[Expr, State], State]) -> State: ...


UNROLLED: Final = 16
"""Rounds of a fold that are written out one after another instead of being a loop."""


@dataclass(frozen=True)
class ElementContext:
    """What `Dense.element` may look at: types (dimensions may be `Sym`), attributes, the dimensions as
    index expressions, reads, checks and loops."""

    operand_types: tuple[TensorType, ...]
    result_type: TensorType
    attrs: Attrs
    read: Read
    check: Check
    extent: Callable[[int | object], Expr]  # a Dim -> int64 scalar expression
    loop: Loop

    def fold(self, extents: Sequence[Expr], state: State, step: Callable[[tuple[Expr, ...], State], State]) -> State:
        """`state` after `step(index, state)` for every index of a space in row-major order. Inner dimensions of few
        rounds are unrolled, the others are loops; the extents are the same wherever the result lies."""
        if not extents:
            return step((), state)
        rounds = [e.value if isinstance(e, Const) else UNROLLED + 1 for e in extents]
        first, rest = extents[0], extents[1:]

        def inner(k: Expr, state: State) -> State:
            return self.fold(rest, state, lambda index, state: step((k, *index), state))

        if math.prod(rounds) > UNROLLED:
            return self.loop(first, state, inner)
        for k in range(int(rounds[0])):
            state = inner(const(k, Vec(int64)), state)
        return state


def _wide(t: TensorType) -> TensorType:
    return replace(t, dtype=float32) if t.dtype.is_half else t


def literal(value: int | float | complex | bool, type: Vec | DType) -> Expr:
    """As `const`, of any type: a complex literal is made of two real ones."""
    t = type if isinstance(type, Vec) else Vec(type)
    if not t.dtype.is_complex:
        assert not isinstance(value, complex)
        return const(value, t)
    pair, part = complex(value), Vec(t.dtype.part, t.lanes)
    return apply("complex", const(pair.real, part), const(pair.imag, part))


def narrowed(e: Expr, dtype: DType) -> Expr:
    """`e` rounded to `dtype` if that is a 16-bit float. What was one before, or a choice of such, is not rounded."""
    if not dtype.is_half or e.dtype is dtype:
        return e
    known = _was(e, dtype)
    return cast_expr(e, dtype) if known is None else known


def _was(e: Expr, dtype: DType) -> Expr | None:
    """The expression of `dtype` that `e` is the widened value of; None when there is none."""
    if isinstance(e, Const):
        return const(e.value, Vec(dtype, e.lanes)) if round_number(e.value, dtype) == e.value else None
    if not isinstance(e, Apply):
        return None
    if e.fn == "cast" and e.args[0].dtype is dtype:
        return e.args[0]
    if e.fn == "select":
        a, b = _was(e.args[1], dtype), _was(e.args[2], dtype)
        return None if a is None or b is None else select(e.args[0], a, b)
    return None


@dataclass(frozen=True)
class Dense:
    """Lowering of every op whose result element is a function of its index and of operand elements.

    `element(ctx, index)` builds the scalar loop expression of the result at `index` (int64 expressions, one
    per result dimension). `pointwise` says that it reads each operand at exactly `index`."""

    element: Callable[[ElementContext, tuple[Expr, ...]], Expr]
    pointwise: bool = False

    def at(self, ctx: ElementContext, index: tuple[Expr, ...]) -> Expr:
        """`element` as kernels compute it. 16-bit floats are widened to float32 when they are read, and the result is
        rounded to them once: `element` sees float32 operands and, with them, a float32 result."""
        types, result = ctx.operand_types, ctx.result_type
        if not any(t.dtype.is_half for t in types):
            return narrowed(self.element(ctx, index), result.dtype)

        def read(k: int, index: tuple[Expr, ...], where: Expr | None = None) -> Expr:
            e = ctx.read(k, index, where)
            return cast_expr(e, float32) if e.dtype.is_half else e

        wide = replace(ctx, operand_types=tuple(map(_wide, types)), result_type=_wide(result), read=read)
        return narrowed(self.element(wide, index), result.dtype)


@dataclass(frozen=True)
class Reduction:
    """Lowering of a reduction over `attrs["dims"]` (sorted tuple; reduced dimensions are dropped), in the
    order of `ir/order.py`. `combine` is "add", "mul", "max", "min", "or", "and" or "argmax" (tuple state: value and
    index; the lowest index wins; over one dimension)."""

    combine: str


@dataclass(frozen=True)
class Template:
    """Lowering by a named kernel family of codegen ("matmul", "scatter")."""

    name: str


@dataclass(frozen=True)
class Scatter(Template):
    """Lowering of the scatters of `ir/ops/gather.py`: the loops of `codegen/scatter.py`. `combine` is what an
    element becomes when a value meets it: "set", "add", "mul", "max" or "min"."""

    combine: str


@dataclass(frozen=True)
class Composed(Template):
    """Lowering of ops that GPUs have kernels for. Elsewhere an op is what `parts(*operands, **attrs)` makes of others:
    the tuple of its results."""

    parts: Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Library(Template):
    """Lowering of ops that a library carries out, as a step of the program between its native functions.

    `run(*arrays, **attrs)` takes row-major NumPy arrays and gives the result, or the tuple of results, as arrays of the
    types that the op's rule says. Eager execution calls the very same function. What the numbers make impossible it
    says by a `LibraryError`."""

    run: Callable[..., Any]


@dataclass(frozen=True)
class Control(Template):
    """Lowering of `ir/ops/control.py`: the operation's graphs become steps of the program, run as the data say."""


class LibraryError(Exception):
    """A library op can't be carried out on these numbers (a singular matrix, ...). The message is for the user."""


Lowering = Dense | Reduction | Template

ViewRule = Callable[
    [tuple[int, ...], tuple[int, ...], int, Attrs], "tuple[tuple[int, ...], tuple[int, ...], int] | None"
]
"""(shape, strides, offset of the operand, attrs) -> the same of the result, or None when a copy is needed.
Strides and offset count elements, those of the operand and those of the result."""


@dataclass(frozen=True)
class Call:
    """One application of an op as its derivative rule sees it."""

    operands: tuple[Any, ...]
    results: tuple[Any, ...]
    attrs: Attrs
    needs: tuple[bool, ...]  # which operands want a gradient
    running: tuple[Any, ...] = ()
    """Of ops with the trait "folds": the gradients of the operands so far (None: none). Their rules add to them what
    the call contributes, use by use, and give the sums."""


Vjp = Callable[..., Sequence[Any]]
"""vjp(call, *result gradients) -> one gradient (or None) per operand. A result gradient is None when that
result does not influence the output. Only `saved` operands and results may be read; of the others only `ttype`."""

Reads = tuple[tuple[int, ...], tuple[int, ...]]
"""Positions of operands and positions of results."""

BILINEAR: Final[tuple[Reads, Reads]] = (((1,), ()), ((0,), ()))
"""`OpDef.saved_for` of a product: each operand's gradient reads the other one."""

Jvp = Callable[..., Sequence[Any]]
"""jvp(call, *operand tangents) -> one tangent per result; a tangent is None where it is zero."""


@dataclass(frozen=True, eq=False)
class OpDef:
    """The declaration of one op. Identity is the name; see the module docstring for the protocol."""

    name: str
    doc: str
    infer: Callable[[Sequence[TensorType], Attrs], tuple[TensorType, ...]]
    ref: Callable[..., Any]
    """ref(xp, *arrays, **attrs) -> array or tuple of arrays: the oracle, in NumPy's (or CuPy's) terms."""
    lower: Lowering
    vjp: Vjp | None = None
    jvp: Jvp | None = None
    view: ViewRule | None = None
    traits: frozenset[str] = frozenset()
    """Of: "elementwise", "view", "commutative", "exact" (correctly rounded or integer), "foldable"
    (NumPy's result is bit-equal, NUMERICS 7), "random", "constant" (no operands), "parts" (real and linear: applied to
    complex operands, it is applied to their real and to their imaginary parts), "window" (an element costs as much as
    its window is large), "folds" (see `Call.running`; the rule may read all operands)."""
    saved_operands: tuple[int, ...] = ()
    """Positions of the operands that the derivative rule reads; those that a call does not have count nothing."""
    saved_results: tuple[int, ...] = ()
    saved_for: tuple[Reads, ...] = ()
    """Where it matters which operands want a gradient: by operand, what of the saved its gradient reads."""
    underived: tuple[int, ...] = ()
    """Positions of the operands towards which there is no derivative: to want one is an error."""
    arity: int | None = None  # None: any number of operands

    def derives(self, needs: Sequence[bool]) -> bool:
        """Whether there is a rule for the operands that want a gradient."""
        return self.vjp is not None and not any(needs[k] for k in self.underived if k < len(needs))

    @functools.cached_property
    def saves(self) -> bool:
        """Whether `saved` depends on the call."""
        return bool(self.saved_for) or "folds" in self.traits

    def saved(self, needs: Sequence[bool]) -> Reads:
        """The positions of the operands and of the results that the derivative rule reads for the operands that want a
        gradient."""
        if "folds" in self.traits:
            return tuple(range(len(needs))), ()
        if not self.saved_for or all(needs):
            return self.saved_operands, self.saved_results
        reads = [r for r, need in zip(self.saved_for, needs, strict=True) if need]
        operands, results = (tuple(sorted({i for r in reads for i in r[k]})) for k in (0, 1))
        return operands, results

    def infer_types(self, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        """Result types by the op's own rule; OpTypeError when it is broken."""
        if self.arity is not None and len(operands) != self.arity:
            raise OpTypeError(self.name, f"takes {self.arity} operands, got {len(operands)}", "value")
        for t in operands:
            if t.device is not CPU:
                return self._infer_there(operands, attrs)
        return self.infer(operands, attrs)

    def _infer_there(self, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        """The rules speak of dtypes and shapes alone; results are where all operands are, but for single numbers of the
        CPU: those join."""
        device = next(t.device for t in operands if t.device is not CPU)
        for t in operands:
            if t.device != device and (t.device != CPU or t.shape):
                raise apart(
                    self.name, operands[0].device, next(o.device for o in operands if o.device != operands[0].device)
                )
        return tuple([t.on(device) for t in self.infer([t.on(CPU) for t in operands], attrs)])

    def bind(self, operands: Sequence[Any], attrs: Attrs, receiver: Any = None) -> tuple[Any, ...]:
        """Apply to operands; `receiver` decides where ops without operands go (default: operand 0)."""
        if "parts" in self.traits and operands[0].ttype.dtype.is_complex:
            return self._by_parts(operands, attrs)
        target = receiver if receiver is not None else operands[0]
        return cast("tuple[Any, ...]", target.__kiln_bind__(self, operands, attrs))

    def _by_parts(self, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]:
        def part(name: str) -> tuple[Any, ...]:
            return self.bind([OPS[name](x) if x.ttype.dtype.is_complex else x for x in operands], attrs)

        return tuple(OPS["complex"](re, im) for re, im in zip(part("real"), part("imag"), strict=True))

    def __call__(self, *operands: Any, **attrs: AttrValue) -> Any:
        """Apply to operands; the single result, or the tuple of results."""
        results = self.bind(operands, attrs)
        return results[0] if len(results) == 1 else results

    def __repr__(self) -> str:
        return f"<op {self.name}>"


OPS: Final[dict[str, OpDef]] = {}
"""Every op by name; filled by `register` as the family modules of `kiln.ir.ops` are imported."""


def register(op: OpDef) -> OpDef:
    """Add an op to the table; names are unique. Its reference is given 16-bit floats as float32, and its results are
    rounded once."""
    if op.name in OPS:
        raise ValueError(f"op {op.name!r} is declared twice")
    if not isinstance(op.lower, Control):  # those ask other ops
        op = replace(op, ref=_in_float32(op))
    OPS[op.name] = op
    return op


def _in_float32(op: OpDef) -> Callable[..., Any]:
    @functools.wraps(op.ref)
    def run(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        if not any(is_half(x.dtype) for x in arrays):
            return op.ref(xp, *arrays, **attrs)
        types = [TensorType(cast("DType", dtype_of_numpy(x.dtype)), x.shape) for x in arrays]
        wanted = op.infer(types, attrs)
        found = op.ref(xp, *map(widened, arrays), **attrs)
        results = found if isinstance(found, tuple) else (found,)
        pairs = zip(results, wanted, strict=True)
        rounded = tuple(converted(np.asarray(r), t.dtype) if t.dtype.is_half else r for r, t in pairs)
        return rounded if isinstance(found, tuple) else rounded[0]

    return run


def quiet(ref: Callable[..., Any]) -> Callable[..., Any]:
    """`ref` without NumPy's floating-point warnings: division by zero and the like are defined results here."""

    @functools.wraps(ref)
    def run(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        with np.errstate(all="ignore"):
            return ref(xp, *arrays, **attrs)

    return run


def same_types(op: str, operands: Sequence[TensorType], among: Sequence[object] = ()) -> TensorType:
    """The common type of `operands`; OpTypeError unless they agree (and have a dtype of `among`)."""
    first = operands[0]
    for t in operands[1:]:
        if t.dtype is not first.dtype:
            raise OpTypeError(op, f"operands have dtypes {first.dtype} and {t.dtype}", "dtype")
        if t != first:
            raise OpTypeError(op, f"operands have types {first} and {t}")
    if among and first.dtype not in among:
        raise OpTypeError(op, f"is not defined for {first.dtype}", "dtype")
    return first


def shape_attr(attrs: Attrs, key: str) -> Shape:
    """A shape-valued attribute."""
    return cast("Shape", attrs[key])


def ints_attr(attrs: Attrs, key: str) -> tuple[int, ...]:
    """An attribute that is a tuple of ints."""
    return cast("tuple[int, ...]", attrs[key])
