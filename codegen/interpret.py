"""The loop IR by definition: kernels, logical or scheduled, run node by node on NumPy arrays.

Slow and plain. What it computes is what the emitters' code must compute, bit for bit (NaNs count as equal whatever
their payload): intrinsics as `ir/intrinsics.py` says, reductions by the functions of `ir/order.py`, an expression
once in the block where it is first needed. It also notices what native code does not: accesses outside of a buffer,
and (`backward=True`) parallel iterations that are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from kiln.codegen.mathlib import expand
from kiln.ir import loops as L
from kiln.ir import order
from kiln.ir.halves import converted, widened
from kiln.ir.intrinsics import MATH_FUNCTIONS
from kiln.ir.loops import Block, Buffer, Expr, Kernel, Stmt, Var
from kiln.ir.loops_walk import operands_first
from kiln.ir.types import DType

Array = np.ndarray[Any, Any]
Failure = tuple[int, int]
"""A failed `Verify`: site and value."""


class EvaluationError(Exception):
    """A kernel that does what no kernel may: it leaves a buffer, or uses a name that is not bound."""


def evaluate(
    kernel: Kernel,
    arrays: Mapping[str, Array],
    scalars: Mapping[str, int] | None = None,
    *,
    functions: Mapping[str, Kernel] | None = None,
    backward: bool = False,
) -> list[Failure]:
    """Run `kernel` and return its failed checks in program order (native code reports the first).

    arrays: the memory of each buffer parameter by name, 1-D and of the buffer's dtype; element 0 is where the
    parameter points. They are written in place and may share memory. scalars: the int64 parameters by name.
    functions: the kernels that `Invoke` may call, by symbol. backward: loops whose iterations are independent run
    from their end. GPU nodes (Barrier, Warp, grid loops) and vector While loops raise NotImplementedError."""
    run = _Run(functions or {}, backward)
    values = [(scalars or {})[p.name] if isinstance(p, Var) else arrays[p.name] for p in kernel.params]
    with np.errstate(all="ignore"):
        run.kernel(kernel, values)
    return run.failures


class _Run:
    """The state of one evaluation. A value is an array of shape [lanes], memory is an array of shape [n]."""

    def __init__(self, functions: Mapping[str, Kernel], backward: bool) -> None:
        self.functions = functions
        self.backward = backward
        self.failures: list[Failure] = []
        self.known: dict[Expr, Array] = {}
        self.scopes: list[list[tuple[Expr, Array | None]]] = []
        """Of each block around: what became known in it, and as what it was known before."""
        self.memory: dict[Buffer, Array] = {}
        self.expansions: dict[Expr, Expr] = {}

    def kernel(self, kernel: Kernel, values: list[Any]) -> None:
        """Run a kernel with scopes of its own; `values` in the order of its parameters."""
        saved = self.known, self.scopes, self.memory
        self.known, self.scopes, self.memory = {}, [[]], {}
        for p, value in zip(kernel.params, values, strict=True):
            if isinstance(p, Var):
                self.bind(p, np.array([value], np.int64))
                continue
            if value.ndim != 1 or value.dtype != p.dtype.numpy:
                raise TypeError(f"{p.name} takes a 1-D {p.dtype} array, got {value.dtype}{list(value.shape)}")
            self.memory[p] = value
        self.block(kernel.body)
        self.known, self.scopes, self.memory = saved

    # ---------------------------------------------------------------------------------- statements

    def block(self, block: Block, then: tuple[Expr, ...] = (), bind: Mapping[Expr, Array] | None = None) -> list[Array]:
        """A scope in which `bind` holds; the values of `then` at its end."""
        self.enter(bind or {})
        for s in block:
            self.stmt(s)
        values = [self.value(e) for e in then]
        self.leave()
        return values

    def enter(self, bind: Mapping[Expr, Array]) -> None:
        self.scopes.append([])
        for e, value in bind.items():
            self.bind(e, value)

    def leave(self) -> None:
        for e, before in reversed(self.scopes.pop()):
            if before is None:
                del self.known[e]
            else:
                self.known[e] = before

    def bind(self, e: Expr, value: Array) -> None:
        """What `e` is until its block ends."""
        self.scopes[-1].append((e, self.known.get(e)))
        self.known[e] = value

    def stmt(self, s: Stmt) -> None:
        match s:
            case L.Let():
                self.bind(s.var, self.value(s.value))
            case L.Store():
                self.store(s)
            case L.For():
                self.loop(s)
            case L.While():
                self.while_(s)
            case L.If():
                self.block(s.then if self.value(s.cond)[0] else s.orelse)
            case L.Reduce():
                for var, value in zip(s.results, self.reduce(s), strict=True):
                    self.bind(var, value)
            case L.Verify():
                self.verify(s)
            case L.Alloc():
                size = math.prod(self.number(d) for d in s.buffer.shape)
                # What a fresh buffer holds is undefined; a value that spoils results shows who relies on it.
                spoilt = math.nan if s.buffer.dtype.is_inexact else 77
                self.memory[s.buffer] = np.full(size, spoilt, s.buffer.dtype.numpy)
            case L.Invoke():
                self.invoke(s)
            case _:
                raise NotImplementedError(f"the evaluator has no {type(s).__name__}")

    def loop(self, s: L.For) -> None:
        if s.kind not in ("serial", "unrolled", "parallel", "vector"):
            raise NotImplementedError(f"the evaluator has no {s.kind} loops")
        if s.carried and s.kind in ("parallel", "vector"):
            raise EvaluationError(f"a {s.kind} loop carries values")
        span = range(self.number(s.lo), self.number(s.hi), s.step)
        state = [self.value(c.init) for c in s.carried]
        independent = s.kind in ("parallel", "vector")
        for i in reversed(span) if self.backward and independent else span:
            bind: dict[Expr, Array] = {
                s.var: _index(i),
                **{c.var: v for c, v in zip(s.carried, state, strict=True)},
            }
            state = self.block(s.body, tuple(c.next for c in s.carried), bind)
        for c, v in zip(s.carried, state, strict=True):
            self.bind(c.result, v)

    def while_(self, s: L.While) -> None:
        if s.test.lanes != 1:
            raise NotImplementedError("the evaluator has no vector While")
        state = [self.value(c.init) for c in s.carried]
        while True:
            # the body may use what the test computed
            self.enter({c.var: v for c, v in zip(s.carried, state, strict=True)})
            going = bool(self.value(s.test)[0])
            if going:
                state = self.block(s.body, tuple(c.next for c in s.carried))
            self.leave()
            if not going:
                break
        for c, v in zip(s.carried, state, strict=True):
            self.bind(c.result, v)

    def reduce(self, s: L.Reduce) -> list[Array]:
        """The results of a reduction: all its points first, then the named order over them."""
        points = [
            self.block(s.body, s.values, {v: _index(i) for (v, _), i in zip(s.axes, at, strict=True)})
            for at in np.ndindex(*(self.number(extent) for _, extent in s.axes))
        ]
        dtype, lanes = s.values[0].dtype, s.values[0].lanes
        neutral = order.identity(s.combine, dtype)
        if s.combine == "argmax":
            return _argmax(points, neutral, dtype)
        if not points:
            empty = 0.0 if s.combine == "add" and dtype.is_floating_point else neutral
            return [np.full(lanes, empty, dtype.numpy)]
        rows = np.array([p[0] for p in points])
        combine = _COMBINE[s.combine]
        if s.order == "serial":
            return [np.asarray(order.fold_serial(rows, combine, neutral))]
        if s.order == "lanes":
            return [np.asarray(order.fold_lanes(rows.T, combine, neutral))]
        raise EvaluationError(f"no order called {s.order!r}")

    def verify(self, s: L.Verify) -> None:
        ok, value, mask = np.broadcast_arrays(self.value(s.ok), self.value(s.value), self.mask(s.mask))
        self.failures.extend((s.site, int(v)) for o, v, m in zip(ok, value, mask, strict=True) if m and not o)

    def invoke(self, s: L.Invoke) -> None:
        if s.symbol not in self.functions:
            raise EvaluationError(f"no kernel called {s.symbol!r} was given")
        values: list[Any] = []
        for a in s.args:
            if isinstance(a, tuple):
                values.append(self.memory_of(a[0])[self.number(a[1]) :])
            else:
                values.append(int(self.value(a)[0]))
        self.kernel(self.functions[s.symbol], values)

    # -------------------------------------------------------------------------------------- memory

    def memory_of(self, buffer: Buffer) -> Array:
        if buffer not in self.memory:
            raise EvaluationError(f"buffer {buffer.name} is not bound here")
        return self.memory[buffer]

    def mask(self, mask: Expr | None) -> Array:
        return np.array([True]) if mask is None else self.value(mask)

    def places(
        self, buffer: Buffer, indices: tuple[Expr, ...], mask: Expr | None, lanes: int
    ) -> tuple[Array, Array | slice]:
        """(offset, whether it is accessed) for each lane; offsets that are accessed lie inside the buffer."""
        size = self.memory_of(buffer).size
        if lanes == 1 and mask is None:  # the usual case, cheaply
            at = sum(self.number(i) * self.number(s) for i, s in zip(indices, buffer.strides, strict=True))
            if 0 <= at < size:
                return np.array([at]), slice(None)
        offset = np.zeros(lanes, np.int64)
        for i, stride in zip(indices, buffer.strides, strict=True):
            offset = offset + self.value(i) * self.number(stride)
        live = np.broadcast_to(self.mask(mask), (lanes,))
        outside = live & ((offset < 0) | (offset >= size))
        if outside.any():
            raise EvaluationError(f"{buffer.name} has {size} elements, offset {int(offset[outside][0])} is accessed")
        return offset, live

    def load(self, e: L.Load) -> Array:
        offset, live = self.places(e.buffer, e.indices, e.mask, e.lanes)
        out = np.zeros(e.lanes, e.dtype.numpy)
        out[live] = self.memory_of(e.buffer)[offset[live]]
        return out

    def store(self, s: L.Store) -> None:
        lanes = max(i.lanes for i in (*s.indices, s.value))
        if lanes > 1 and all(i.lanes == 1 for i in s.indices):
            raise EvaluationError(f"the lanes of a store to {s.buffer.name} all hit one element")
        value = np.broadcast_to(self.value(s.value), (lanes,))
        offset, live = self.places(s.buffer, s.indices, s.mask, lanes)
        self.memory_of(s.buffer)[offset[live]] = value[live]

    # --------------------------------------------------------------------------------- expressions

    def number(self, e: int | Expr) -> int:
        """A size, stride or bound."""
        return e if isinstance(e, int) else int(self.value(e)[0])

    def value(self, e: Expr) -> Array:
        found = self.known.get(e)
        if found is not None:
            return found
        for x in operands_first(e, self.known.__contains__):
            if isinstance(x, L.Const):
                found = self.known[x] = np.full(x.lanes, x.value, x.dtype.numpy)  # everywhere
                continue
            found = self.compute(x)
            if found.shape != (x.lanes,) or found.dtype != x.dtype.numpy:
                raise EvaluationError(f"{type(x).__name__} of type {x.type} gave {found.dtype}{list(found.shape)}")
            self.bind(x, found)
        assert found is not None
        return found

    def compute(self, e: Expr) -> Array:
        match e:
            case L.Apply() if e.fn not in MATH_FUNCTIONS:
                return self.apply(e)
            case L.Load():
                return self.load(e)
            case L.Var():
                raise EvaluationError(f"variable {e.name} is not bound here")
            case L.Ramp():
                return self.value(e.base) + np.arange(e.lanes)
            case L.Splat():
                return np.repeat(self.value(e.value), e.lanes)
            case L.Shuffle():
                return np.concatenate([self.value(o) for o in e.operands])[list(e.picks)]
            case L.Apply():
                expanded = self.expansions.setdefault(e, e)
                if expanded is e:
                    expanded = self.expansions[e] = expand(e.fn, e.args)
                return self.value(expanded)
            case _:
                raise NotImplementedError(f"the evaluator has no {type(e).__name__}")

    def apply(self, e: L.Apply) -> Array:
        args = [self.value(a) for a in e.args]
        dtype = e.args[-1].dtype
        if e.fn == "cast":
            return cast(args[0], dtype, e.dtype)
        if e.fn in ("real", "imag"):
            return np.array(getattr(args[0], e.fn))
        if e.fn == "complex":
            return np.stack(args, -1).view(e.dtype.numpy)[:, 0]
        if dtype.is_complex and e.fn != "select":
            raise EvaluationError(f"{e.fn} of {dtype}: complex numbers are computed with by their parts")
        if e.fn == "bitcast":
            return args[0].view(e.dtype.numpy)
        if dtype.is_half and e.fn != "select":
            raise EvaluationError(f"{e.fn} of {dtype}: 16-bit floats are computed with as float32")
        if e.fn in ("div", "mod") and not dtype.is_floating_point:
            return _integer_division(e.fn, args[0], args[1], dtype)
        if e.fn not in _INTRINSICS:
            raise EvaluationError(f"no intrinsic called {e.fn!r}")
        return np.asarray(_INTRINSICS[e.fn](*args))


def _index(i: int) -> Array:
    return np.array([i], np.int64)


# ------------------------------------------------------------------------------------------ intrinsics


def maximum(a: Array, b: Array) -> Array:
    """a if a is NaN, else a if a > b, else b."""
    return np.where((a != a) | (a > b), a, b)


def minimum(a: Array, b: Array) -> Array:
    """a if a is NaN, else a if a < b, else b."""
    return np.where((a != a) | (a < b), a, b)


_INTRINSICS: Final[dict[str, Callable[..., Any]]] = {
    "add": np.add,  # on bool NumPy's add is or, its multiply is and
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "fma": order.fma,
    "rint": np.rint,
    "floor": np.floor,
    "max": maximum,
    "min": minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "select": np.where,
}
_COMBINE: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "add": np.add,
    "mul": np.multiply,
    "max": maximum,
    "min": minimum,
    "or": np.bitwise_or,
    "and": np.bitwise_and,
}


def _wrapped(values: Iterator[int], dtype: DType) -> Array:
    """Integers reduced to the width of `dtype`."""
    unsigned = np.array([v % 2**dtype.bits for v in values], f"u{dtype.itemsize}")
    return unsigned.view(dtype.numpy)


def _integer_division(fn: str, a: Array, b: Array, dtype: DType) -> Array:
    """C's quotient and remainder, total: x/0 = x%0 = 0."""

    def one(x: int, y: int) -> int:
        if y == 0:
            return 0
        quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        return quotient if fn == "div" else x - quotient * y

    return _wrapped((one(int(x), int(y)) for x, y in zip(a, b, strict=True)), dtype)


def cast(x: Array, source: DType, target: DType) -> Array:
    """Value conversion; floats that are NaN or out of range give the least integer."""
    if target.is_half:
        return converted(x, target)
    x = widened(x)
    if target.kind == "bool":
        return np.not_equal(x, 0)
    if source.is_floating_point and not target.is_floating_point:
        signed = target.kind == "int"
        least = -(2 ** (target.bits - 1)) if signed else 0
        most = 2 ** (target.bits - signed) - 1

        def one(v: float) -> int:
            return math.trunc(v) if math.isfinite(v) and least <= math.trunc(v) <= most else least

        return _wrapped((one(float(v)) for v in x), target)
    return x.astype(target.numpy)


def _argmax(points: list[list[Array]], lowest: int | float | bool, dtype: DType) -> list[Array]:
    """The largest candidate and its index: NaN wins over numbers, the lowest index wins ties."""
    best: tuple[Any, int] = (dtype.numpy.type(lowest), 2**63 - 1)
    for (value,), (at,) in points:
        better = value > best[0] or (value != value and best[0] == best[0])
        same = value == best[0] or (value != value and best[0] != best[0])
        if better or (same and at < best[1]):
            best = (value, int(at))
    return [np.array([best[0]], dtype.numpy), _index(best[1])]
