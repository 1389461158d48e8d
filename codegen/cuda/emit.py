"""GPU kernel to CUDA C text, node by node: the sibling of `codegen/llvm/emit.py`.

One `extern "C"` function per kernel: pointers and int64 sizes in the order of the kernel's parameters, then, if
it has checks, a pointer to the error record. Every expression becomes one named C constant, so the text reads
like the loop IR and NVRTC sees the sharing that the IR states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from kiln.codegen import halves
from kiln.codegen.blocks import minimum
from kiln.codegen.cuda.literals import C_TYPES, literal
from kiln.codegen.cuda.prelude import HELPERS
from kiln.codegen.cuda.schedule import Scheduled, schedule
from kiln.codegen.mathlib import expand
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.gpu_program import CudaText
from kiln.ir.intrinsics import MATH_FUNCTIONS
from kiln.ir.loops import Block, Buffer, Const, Expr, Kernel, Stmt, Var
from kiln.ir.loops_gpu import Arrive, Move, Rank
from kiln.ir.loops_walk import operands_first, walk
from kiln.ir.types import DType

INFIX: Final = {
    "add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
BITCASTS: Final = {
    ("float32", "uint32"): "__float_as_uint",
    ("float32", "int32"): "__float_as_int",
    ("uint32", "float32"): "__uint_as_float",
    ("int32", "float32"): "__int_as_float",
    ("float64", "int64"): "__double_as_longlong",
    ("int64", "float64"): "__longlong_as_double",
    ("float64", "uint64"): "(unsigned long long)__double_as_longlong",
    ("uint64", "float64"): "__longlong_as_double",
}
UNSIGNED: Final = {
    **dict.fromkeys((T.int8, T.int16, T.int32, T.uint8, T.uint16), "unsigned int"),
    T.int64: "unsigned long long",
}
"""The unsigned type in which integers wrap; C's own promotion of the narrow ones is to int, which could overflow."""


def emit_kernel(kernel: Kernel) -> CudaText:
    """CUDA C for a logical kernel that is one launch; `schedule.Unsupported` when no GPU schedule covers it."""
    return emit_scheduled(schedule(kernel))


def emit_scheduled(scheduled: Scheduled, bounds: bool = False) -> CudaText:
    """CUDA C for one launch. With `bounds` it stops at an access that is not to its buffers, and does not carry it
    out."""
    return Emitter(bounds).emit(scheduled)


def extent(buffer: Buffer) -> tuple[Expr, Expr]:
    """The first of a buffer's elements and the one behind the last, from its beginning on; strides that are not known
    are positive."""
    low: Expr = L.index(0)
    high: Expr = L.index(1)
    for n, stride in zip(buffer.shape, buffer.strides, strict=True):
        reach = L.mul(L.sub(L.as_index(n), L.index(1)), L.as_index(stride))
        if isinstance(stride, int) and stride < 0:
            low = L.add(low, reach)
        else:
            high = L.add(high, reach)
    return low, high


class Emitter:
    """Walks the blocks once, writing lines; `_names` maps each expression to the C name that holds it."""

    def __init__(self, bounds: bool = False) -> None:
        self._bounds = bounds
        self._literal: Callable[[Const], str] = literal
        self._lines: list[str] = []
        self._depth = 1
        self._count = 0
        self._names: dict[Expr, str] = {}
        self._taken: set[str] = {"error"}
        self._buffers: dict[Buffer, str] = {}
        self._helpers: set[str] = set()
        self._checks = False

    def emit(self, scheduled: Scheduled) -> CudaText:
        kernel = scheduled.kernel
        params = ["".join(p) for p in self._parameters(kernel)]
        self._block(kernel.body)
        params += ["long long *error"] * self._checks
        helpers = tuple(HELPERS[name] for name in HELPERS if name in self._helpers)
        head = f'extern "C" __global__ void __launch_bounds__({scheduled.threads}, 1)\n{kernel.name}('
        text = "\n".join([head + ", ".join(params) + ")", "{", *self._lines, "}", ""])
        return CudaText(kernel.name, text, helpers, scheduled.threads, scheduled.blocks, self._checks)

    def _parameters(self, kernel: Kernel, size: str = "") -> list[tuple[str, str]]:
        """The types and the names of a kernel's parameters; `size`: what sizes are called, if not by their names."""
        written = {s.buffer for s in walk(kernel.body) if isinstance(s, L.Store)}
        written |= {s.memory for s in walk(kernel.body) if isinstance(s, Move) and s.store}
        params = []
        for p in kernel.params:
            if isinstance(p, Var):
                self._names[p] = self._fresh(size or p.name)
                params.append(("const long long ", self._names[p]))
            else:
                self._buffers[p] = self._fresh(p.name)
                params.append((f"{'' if p in written else 'const '}{C_TYPES[p.dtype]} *", self._buffers[p]))
        return params

    # ---------------------------------------------------------------------------------- statements

    def _line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    def _fresh(self, name: str) -> str:
        """A C name like this one that is free in the scopes around."""
        stem = name if name.isidentifier() else "".join(c if c.isalnum() else "_" for c in f"n_{name}")
        found, k = stem, 1
        while found in self._taken:
            found, k = f"{stem}_{k + 1}", k + 1
        self._taken.add(found)
        return found

    def _block(self, block: Block) -> None:
        """Statements of a nested scope: names made inside are forgotten at its end."""
        saved, taken = dict(self._names), set(self._taken)
        for s in block:
            self._stmt(s)
        self._names, self._taken = saved, taken

    def _stmt(self, s: Stmt) -> None:
        match s:
            case L.Let():
                self._names[s.var] = self._expr(s.value)
            case L.Store():
                test = "" if s.mask is None else f"if ({self._expr(s.mask)}) "
                place, value = self._place(s.buffer, s.indices, s.mask), self._expr(s.value)
                self._line(f"{test}{place} = {value};")
            case L.For():
                self._for(s)
            case L.While():
                self._while(s)
            case L.If():
                self._line(f"if ({self._expr(s.cond)}) {{")
                self._nested(s.then)
                if s.orelse:
                    self._line("} else {")
                    self._nested(s.orelse)
                self._line("}")
            case L.Verify():
                self._verify(s)
            case L.Alloc():
                size = math.prod(d for d in s.buffer.shape if isinstance(d, int))
                scope = "__align__(16) __shared__ " if s.buffer.scope == "shared" else ""
                self._buffers[s.buffer] = self._fresh(s.buffer.name)
                self._line(f"{scope}{C_TYPES[s.buffer.dtype]} {self._buffers[s.buffer]}[{size}];")
            case Move():
                self._move(s)
            case Rank():
                self._rank(s)
            case Arrive():
                self._helpers.add("k_arrive")
                self._line("k_arrive();")
            case L.Barrier():
                self._line("__syncthreads();")
                self._forget_loads()
            case _:
                raise TypeError(f"no CUDA text for {type(s).__name__}")

    def _nested(self, block: Block) -> None:
        self._depth += 1
        self._block(block)
        self._depth -= 1

    def _for(self, s: L.For) -> None:
        lo, hi = self._expr(s.lo), self._expr(s.hi)
        if s.kind == "block":
            name = self._names[s.var] = self._fresh(s.var.name)
            self._line(f"const long long {name} = threadIdx.x;")
            for inner in s.body:
                self._stmt(inner)
            return
        self._start(s.carried)
        saved, taken = dict(self._names), set(self._taken)
        name = self._names[s.var] = self._fresh(s.var.name)
        if s.kind == "grid":
            first, stride = self._grid(s)
            self._line(f"for (long long {name} = {first}; {name} < {hi}; {name} += {stride}) {{")
        else:
            if s.kind == "unrolled":
                rounds = f" {s.grain.value}" if isinstance(s.grain, Const) else ""
                self._line(f"#pragma unroll{rounds}")
            self._line(f"for (long long {name} = {lo}; {name} < {hi}; {name} += {s.step}) {{")
        self._rounds(s.carried, s.body, None)
        self._names, self._taken = saved, taken
        self._forget_loads()

    def _grid(self, s: L.For) -> tuple[str, str]:
        """The first round of a thread, and how far it is to the next one."""
        if s.step > 1:
            return f"(long long)blockIdx.x * {s.step} + threadIdx.x", f"(long long)gridDim.x * {s.step}"
        return "blockIdx.x", "gridDim.x"

    def _while(self, s: L.While) -> None:
        self._start(s.carried)
        saved, taken = dict(self._names), set(self._taken)
        self._line("for (;;) {")
        self._rounds(s.carried, s.body, s.test)
        self._names, self._taken = saved, taken
        self._forget_loads()

    def _start(self, carried: tuple[L.Carry, ...]) -> None:
        """The C variables that carry values through a loop; after it they are the results."""
        inits = [self._expr(c.init) for c in carried]
        for c, init in zip(carried, inits, strict=True):
            name = self._names[c.result] = self._fresh(c.result.name)
            self._line(f"{C_TYPES[c.var.dtype]} {name} = {init};")

    def _rounds(self, carried: tuple[L.Carry, ...], body: Block, test: Expr | None) -> None:
        """What a loop does each time, and its closing brace."""
        self._depth += 1
        results = [self._names[c.result] for c in carried]
        self._forget_loads()
        for c, name in zip(carried, results, strict=True):
            self._names[c.var] = name
        if test is not None:
            self._line(f"if (!{self._expr(test)}) break;")
        for inner in body:
            self._stmt(inner)
        nexts = [self._expr(c.next) for c in carried]
        for k, (c, name) in enumerate(zip(carried, results, strict=True)):
            if nexts[k] in results and nexts[k] != name:  # a value about to be overwritten
                self._line(f"const {C_TYPES[c.var.dtype]} {name}_next = {nexts[k]};")
                nexts[k] = f"{name}_next"
        for name, value in zip(results, nexts, strict=True):
            self._line(f"{name} = {value};")
        self._depth -= 1
        self._line("}")

    def _forget_loads(self) -> None:
        """Memory may have changed: what was loaded, and what was computed from a carried C variable that is
        assigned in place, must be read anew."""
        self._names = {e: n for e, n in self._names.items() if isinstance(e, Var)}

    def _move(self, s: Move) -> None:
        place, helper = self._offset(s.memory, s.indices), "k_put" if s.store else "k_fetch" if s.later else "k_get"
        self._helpers |= {helper} if s.later else {"k_pack", helper}
        part = self._buffers[s.registers] + (f" + {self._expr(s.at)}" if s.at is not None else "")
        count = self._expr(s.count)
        if self._bounds:
            self._within(s.memory, place, minimum(s.count, s.width))
        self._line(f"{helper}<{s.width}>({part}, {self._buffers[s.memory]}, {place}, {count});")

    def _rank(self, s: Rank) -> None:
        self._helpers.add("k_rank")
        first, total = (self._fresh(x.name) for x in (s.first, s.total))
        self._line(f"long long {total};")
        self._line(f"const long long {first} = k_rank({self._expr(s.count)}, {self._buffers[s.room]}, {total});")
        self._names |= {s.first: first, s.total: total}

    def _verify(self, s: L.Verify) -> None:
        self._checks = True
        self._helpers.add("k_fail")
        test = f"!{self._expr(s.ok)}"
        if s.mask is not None:
            test = f"{self._expr(s.mask)} && {test}"
        self._line(f"if ({test}) k_fail(error, {s.site}, {self._expr(s.value)});")

    # --------------------------------------------------------------------------------- expressions

    def _offset(self, buffer: Buffer, indices: tuple[Expr, ...]) -> str:
        """An element's place from the buffer's beginning."""
        linear: Expr = L.index(0)
        for i, stride in zip(indices, buffer.strides, strict=True):
            linear = L.add(linear, L.mul(i, L.as_index(stride)))
        return self._expr(linear)

    def _place(self, buffer: Buffer, indices: tuple[Expr, ...], mask: Expr | None = None) -> str:
        offset = self._offset(buffer, indices)
        if self._bounds:
            self._within(buffer, offset, L.index(1) if mask is None else L.cast(mask, T.int64))
        return f"{self._buffers[buffer]}[{offset}]"

    def _within(self, buffer: Buffer, offset: str, count: Expr) -> None:
        """Stop unless as many elements from there on are the buffer's."""
        low, high = extent(buffer)
        self._helpers.add("k_within")
        self._line(f"k_within({offset}, {self._expr(count)}, {self._expr(low)}, {self._expr(high)});")

    def _expr(self, e: Expr) -> str:
        """The C name or literal that holds `e`, emitting what it needs."""
        if e.lanes != 1:
            raise TypeError(f"CUDA text is scalar, got {e.type}")
        if isinstance(e, Const):
            return self._literal(e)
        found = self._names.get(e)
        if found is not None:
            return found
        for x in operands_first(e, lambda x: isinstance(x, Const) or x in self._names):
            if isinstance(x, Var):
                raise KeyError(f"{x.name} is not bound here")
            text = self._compute(x)
            self._count += 1
            self._names[x] = self._fresh(f"t{self._count}")
            self._line(f"const {C_TYPES[x.dtype]} {self._names[x]} = {text};")
        return self._names[e]

    def _compute(self, e: Expr) -> str:
        match e:
            case L.Load(mask=None):
                return self._place(e.buffer, e.indices)
            case L.Load():
                assert e.mask is not None
                zero = f"{C_TYPES[e.dtype]}()" if e.dtype.is_complex else literal(L.const(0, e.type))
                return f"{self._expr(e.mask)} ? {self._place(e.buffer, e.indices, e.mask)} : {zero}"
            case L.Warp():
                return f"__shfl_xor_sync(0xffffffffu, {self._expr(e.value)}, {e.xor})"
            case L.Apply():
                if e.fn in MATH_FUNCTIONS:
                    return self._expr(expand(e.fn, e.args))
                if halves.is_conversion(e):
                    return self._expr(halves.expand(e))
                return self._apply(e, [self._expr(a) for a in e.args])
            case _:
                raise TypeError(f"no CUDA text for {type(e).__name__}")

    def _apply(self, e: L.Apply, a: list[str]) -> str:
        dtype = e.args[0].dtype
        fn, is_float, is_bool = e.fn, dtype.is_floating_point, dtype is T.bool_
        f = "f" if dtype is T.float32 else ""
        if fn in ("div", "mod") and dtype.kind == "uint":
            return f"{a[1]} == 0 ? 0 : {a[0]} {'/' if fn == 'div' else '%'} {a[1]}"
        if fn in ("div", "mod") and not is_float:
            self._helpers.add(f"k_{fn}_i64")
            return f"({C_TYPES[dtype]})k_{fn}_i64({a[0]}, {a[1]})"
        if fn in ("add", "sub", "mul") and dtype in UNSIGNED:  # signed overflow is undefined in C
            u = UNSIGNED[dtype]
            return f"({C_TYPES[dtype]})(({u}){a[0]} {INFIX[fn]} ({u}){a[1]})"
        if fn in ("lt", "ge") and dtype.kind == "uint" and isinstance(e.args[1], Const) and e.args[1].value == 0:
            return "false" if fn == "lt" else "true"  # compilers warn of such comparisons
        if fn in INFIX:
            op = {"add": "|", "mul": "&"}.get(fn, INFIX[fn]) if is_bool else INFIX[fn]
            return f"{a[0]} {op} {a[1]}"
        match fn:
            case "div":
                return f"{'__fdiv_rn' if f else '__ddiv_rn'}({a[0]}, {a[1]})"
            case "sqrt":
                return f"{'__fsqrt_rn' if f else '__dsqrt_rn'}({a[0]})"
            case "fma" | "rint" | "floor":
                return f"{fn}{f}({', '.join(a)})"
            case "neg" if not is_float:
                return f"({C_TYPES[dtype]})(0 - ({UNSIGNED.get(dtype, C_TYPES[dtype])}){a[0]})"
            case "neg":
                return f"-{a[0]}" if a[0][0] != "-" else a[0][1:]
            case "abs" if is_float:
                return f"fabs{f}({a[0]})"
            case "abs" if dtype.kind == "uint":
                return a[0]
            case "abs":
                return f"{a[0]} < 0 ? ({C_TYPES[dtype]})(0 - ({UNSIGNED.get(dtype, C_TYPES[dtype])}){a[0]}) : {a[0]}"
            case "max" | "min":
                nan = f"{a[0]} != {a[0]} || " if is_float else ""
                return f"{nan}{a[0]} {'>' if fn == 'max' else '<'} {a[1]} ? {a[0]} : {a[1]}"
            case "not":
                return f"{'!' if is_bool else '~'}{a[0]}"
            case "shl":
                return f"({C_TYPES[dtype]})(({UNSIGNED.get(dtype, C_TYPES[dtype])}){a[0]} << {a[1]})"
            case "shr":
                return f"{a[0]} >> {a[1]}"
            case "select":
                return f"{a[0]} ? {a[1]} : {a[2]}"
            case "real" | "imag":
                return f"{a[0]}.{'x' if fn == 'real' else 'y'}"
            case "complex":
                return f"make_{C_TYPES[e.dtype]}({a[0]}, {a[1]})"
            case "bitcast":
                return self._bitcast(dtype, e.dtype, a[0])
            case "cast":
                return self._cast(dtype, e.dtype, a[0])
            case _:
                raise TypeError(f"no CUDA text for intrinsic {fn}")

    def _bitcast(self, source: DType, to: DType, a: str) -> str:
        named = BITCASTS.get((source.name, to.name))
        return f"{named}({a})" if named else f"({C_TYPES[to]}){a}"

    def _cast(self, source: DType, to: DType, a: str) -> str:
        if to is T.bool_:
            return f"{a} != 0"
        if source.is_floating_point and not to.is_floating_point:
            if to.kind != "int":
                raise TypeError(f"no CUDA text for a cast of {source} to {to}")
            helper = f"k_f{source.bits}_to_i{to.bits}"
            self._helpers.add(helper)
            return f"{helper}({a})"
        return f"({C_TYPES[to]}){a}"
