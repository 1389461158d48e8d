"""Expressions of the loop IR as LLVM IR, one instruction or a few per node.

No fast-math flags, no nsw/nuw, no poison: each intrinsic is total, as `ir/intrinsics.py` defines it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kiln.codegen.llvm.text import BITS, alignment, constant, llvm_type, mangled, memory_type, scalar_type
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.loops import Apply, Buffer, Const, Expr, Load, Ramp, Shuffle, Splat, Var, Vec
from kiln.ir.loops_walk import operands_first

_FLOAT_OPS: Final = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_OPS: Final = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor", "shl": "shl"}
_BOOL_OPS: Final = {"add": "or", "mul": "and", "and": "and", "or": "or", "xor": "xor"}
_FLOAT_TESTS: Final = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_CALLS: Final = {"sqrt": "sqrt", "fma": "fma", "rint": "rint", "floor": "floor", "abs": "fabs"}


def linear_index(buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[Expr | None, int | None, Expr]:
    """(ramp, its coefficient, the uniform rest) of an access's element offset. The ramp is None for a scalar
    access; the coefficient is None when the lanes are not evenly and statically spaced, and then the rest is
    the whole vector offset."""
    uniform: Expr = L.index(0)
    vectors: list[tuple[Expr, int | Expr]] = []
    for i, stride in zip(indices, buffer.strides, strict=True):
        if i.lanes == 1:
            uniform = L.add(uniform, L.mul(i, L.as_index(stride)))
        elif stride != 0:
            vectors.append((i, stride))
    if not vectors:
        return None, 0, uniform
    if all(isinstance(i, Ramp) and isinstance(s, int) for i, s in vectors):
        coefficient = 0
        for i, s in vectors:
            assert isinstance(i, Ramp) and isinstance(s, int)
            coefficient += s
            uniform = L.add(uniform, L.mul(i.base, L.index(s)))
        return vectors[0][0], coefficient, uniform
    lanes = vectors[0][0].lanes
    total: Expr = L.splat(uniform, lanes)
    for i, stride in vectors:
        total = L.add(total, L.apply("mul", i, L.splat(L.as_index(stride), lanes)))
    return vectors[0][0], None, total


def _lanes_below(mask: Expr | None) -> int | None:
    """How many lanes a mask like that of a loop's tail has, if it is known now: ramp(base) < limit."""
    match mask:
        case Apply(fn="lt", args=(Ramp(base=Const(value=int(base))), Const(value=int(limit)))):
            return max(0, min(mask.lanes, limit - base))
        case _:
            return None


class Expressions:
    """Writes instructions for expressions into `lines`; remembers what is computed, scope by scope."""

    def __init__(self, masked_operands: bool) -> None:
        self.masked_operands = masked_operands
        """Whether the machine's arithmetic has masks and operands in memory."""
        self.lines: list[str] = []
        self.declarations: dict[str, str] = {}
        self.scopes: list[dict[Expr, str]] = [{}]
        self._count = 0

    # ------------------------------------------------------------------------------------ plumbing

    def fresh(self, stem: str = "t") -> str:
        self._count += 1
        return f"%{stem}{self._count}"

    def emit(self, text: str) -> None:
        self.lines.append("  " + text)

    def set(self, text: str, stem: str = "t") -> str:
        """Assign an instruction's result to a fresh name."""
        name = self.fresh(stem)
        self.emit(f"{name} = {text}")
        return name

    def call(self, result: str, function: str, args: list[tuple[str, str]]) -> str:
        """Call a declared function; returns the result's name ("" for void)."""
        types = ", ".join(t for t, _ in args)
        self.declarations.setdefault(function, f"declare {result} @{function}({types})")
        text = f"call {result} @{function}({', '.join(f'{t} {v}' for t, v in args)})"
        if result == "void":
            self.emit(text)
            return ""
        return self.set(text)

    def bind(self, e: Expr, name: str) -> None:
        self.scopes[-1][e] = name

    def lookup(self, e: Expr) -> str | None:
        for scope in reversed(self.scopes):
            found = scope.get(e)
            if found is not None:
                return found
        return None

    def pointer(self, buffer: Buffer) -> str:
        """The LLVM value that points to a buffer's first element."""
        raise NotImplementedError

    # --------------------------------------------------------------------------------- expressions

    def value(self, e: Expr) -> str:
        """The operand text that holds `e`, emitting what it needs."""
        if isinstance(e, Const):
            return constant(e.type, e.value)
        found = self.lookup(e)
        if found is not None:
            return found
        for x in operands_first(e, lambda x: isinstance(x, Const) or self.lookup(x) is not None):
            found = self._compute(x)
            self.bind(x, found)
        assert found is not None
        return found

    def typed(self, e: Expr) -> str:
        return f"{llvm_type(e.type)} {self.value(e)}"

    def _compute(self, e: Expr) -> str:
        match e:
            case Apply():
                return self._apply(e)
            case Load():
                return self._load(e)
            case Splat():
                return self.splat(self.value(e.value), e.type)
            case Ramp():
                steps = ", ".join(f"i64 {k}" for k in range(e.lanes))
                base = self.splat(self.value(e.base), e.type)
                return self.set(f"add {llvm_type(e.type)} {base}, <{steps}>")
            case Shuffle():
                return self._shuffle(e)
            case Var():
                raise KeyError(f"variable {e.name} is not bound here")
            case _:
                raise TypeError(f"no LLVM text for {type(e).__name__}")

    def splat(self, scalar: str, vec: Vec) -> str:
        """A scalar operand in all lanes."""
        t = llvm_type(vec)
        if vec.dtype.is_complex:
            return self._parts(scalar_type(vec.dtype), scalar, "poison", (0, 1) * vec.lanes)
        one = self.set(f"insertelement {t} poison, {scalar_type(vec.dtype)} {scalar}, i64 0")
        return self.set(f"shufflevector {t} {one}, {t} poison, <{vec.lanes} x i32> zeroinitializer")

    def _shuffle(self, e: Shuffle) -> str:
        a = e.operands[0]
        t = llvm_type(a.type)
        b = self.value(e.operands[1]) if len(e.operands) > 1 else "poison"
        if a.dtype.is_complex:
            return self._parts(t, self.value(a), b, [2 * k + j for k in e.picks for j in (0, 1)])
        if len(e.picks) == 1:
            source, lane = (self.value(a), e.picks[0]) if e.picks[0] < a.lanes else (b, e.picks[0] - a.lanes)
            return self.set(f"extractelement {t} {source}, i64 {lane}")
        picks = ", ".join(f"i32 {k}" for k in e.picks)
        return self.set(f"shufflevector {t} {self.value(a)}, {t} {b}, <{len(e.picks)} x i32> <{picks}>")

    def _parts(self, t: str, a: str, b: str, picks: Sequence[int]) -> str:
        """The elements at `picks` of two vectors of type `t`."""
        mask = ", ".join(f"i32 {k}" for k in picks)
        return self.set(f"shufflevector {t} {a}, {t} {b}, <{len(picks)} x i32> <{mask}>")

    def _part(self, k: int, operand: Vec, v: str) -> str:
        """The real (0) or the imaginary (1) parts of complex numbers."""
        t = llvm_type(operand)
        if operand.lanes == 1:
            return self.set(f"extractelement {t} {v}, i64 {k}")
        return self._parts(t, v, "poison", range(k, 2 * operand.lanes, 2))

    def _paired(self, part: Vec, re: str, im: str) -> str:
        """Complex numbers of their parts."""
        n = part.lanes
        if n == 1:
            t = llvm_type(Vec(part.dtype.paired))
            first = self.set(f"insertelement {t} poison, {llvm_type(part)} {re}, i64 0")
            return self.set(f"insertelement {t} {first}, {llvm_type(part)} {im}, i64 1")
        return self._parts(llvm_type(part), re, im, [k + j * n for k in range(n) for j in (0, 1)])

    def _mask_of_parts(self, mask: str, vec: Vec) -> str:
        """A mask over lanes as one over the parts of complex numbers in them."""
        if vec.lanes == 1 or not vec.dtype.is_complex:
            return mask
        return self._parts(f"<{vec.lanes} x i1>", mask, "poison", [k for k in range(vec.lanes) for _ in (0, 1)])

    def _apply(self, e: Apply) -> str:
        fn, args = e.fn, e.args
        operand = args[-1].type
        t = llvm_type(operand)
        is_float, is_bool = operand.dtype.is_floating_point, operand.dtype.kind == "bool"
        if fn == "select":
            c, a, b = args
            mask = self._mask_of_parts(self.value(c), e.type)
            bits = f"<{2 * e.lanes} x i1>" if e.dtype.is_complex and e.lanes > 1 else llvm_type(c.type)
            return self.set(f"select {bits} {mask}, {self.typed(a)}, {self.typed(b)}")
        if fn in ("real", "imag"):
            return self._part(int(fn == "imag"), operand, self.value(args[0]))
        if fn == "complex":
            return self._paired(operand, self.value(args[0]), self.value(args[1]))
        if operand.dtype.is_complex:
            raise TypeError(f"{fn} of {operand}: complex numbers are computed with by their parts")
        if fn == "cast":
            return self._cast(args[0], e.type)
        if operand.dtype.is_half and fn != "bitcast":
            raise TypeError(f"{fn} of {operand}: 16-bit floats are computed with as float32")
        if fn == "bitcast":
            return self.set(f"bitcast {self.typed(args[0])} to {llvm_type(e.type)}")
        v = [self.value(a) for a in args]
        if e.type.dtype.kind == "bool" and fn in _FLOAT_TESTS:
            return self._test(fn, operand, v)
        if fn in ("max", "min"):
            return self._extreme(fn, operand, v)
        if (fn == "div" and not is_float) or fn == "mod":
            return self._divide(fn, operand, args[1], v)
        if is_float and fn in _FLOAT_OPS:
            return self.set(f"{_FLOAT_OPS[fn]} {t} {v[0]}, {v[1]}")
        if is_bool and fn in _BOOL_OPS:
            return self.set(f"{_BOOL_OPS[fn]} {t} {v[0]}, {v[1]}")
        if fn in _INT_OPS and not is_float:
            return self.set(f"{_INT_OPS[fn]} {t} {v[0]}, {v[1]}")
        if fn == "shr":
            return self.set(f"{'lshr' if operand.dtype.kind == 'uint' else 'ashr'} {t} {v[0]}, {v[1]}")
        if fn == "not":
            return self.set(f"xor {t} {v[0]}, {constant(operand, True if is_bool else -1)}")
        if fn == "neg":
            return self.set(f"fneg {t} {v[0]}" if is_float else f"sub {t} {constant(operand, 0)}, {v[0]}")
        if fn == "abs" and operand.dtype.kind == "uint":
            return v[0]
        if fn == "abs" and not is_float:
            return self.call(t, f"llvm.abs.{mangled(t)}", [(t, v[0]), ("i1", "false")])
        if fn in _CALLS and is_float:
            return self.call(t, f"llvm.{_CALLS[fn]}.{mangled(t)}", [(t, x) for x in v])
        raise TypeError(f"no LLVM text for intrinsic {fn} of {operand}")

    def _test(self, fn: str, operand: Vec, v: list[str]) -> str:
        t = llvm_type(operand)
        if operand.dtype.is_floating_point:
            return self.set(f"fcmp {_FLOAT_TESTS[fn]} {t} {v[0]}, {v[1]}")
        sign = "" if fn in ("eq", "ne") else ("s" if operand.dtype.kind == "int" else "u")
        return self.set(f"icmp {sign}{fn} {t} {v[0]}, {v[1]}")

    def _extreme(self, fn: str, operand: Vec, v: list[str]) -> str:
        """a if a is NaN, else a if a > b (a < b), else b."""
        t, mask = llvm_type(operand), llvm_type(Vec(T.bool_, operand.lanes))
        better = self._test("gt" if fn == "max" else "lt", operand, v)
        best = self.set(f"select {mask} {better}, {t} {v[0]}, {t} {v[1]}")
        if not operand.dtype.is_floating_point:
            return best
        nan = self.set(f"fcmp uno {t} {v[0]}, {v[0]}")
        return self.set(f"select {mask} {nan}, {t} {v[0]}, {t} {best}")

    def _divide(self, fn: str, operand: Vec, divisor: Expr, v: list[str]) -> str:
        """C's division, but total: x/0 = 0, x%0 = 0, x/-1 = -x (wrapping), x%-1 = 0."""
        t, mask = llvm_type(operand), llvm_type(Vec(T.bool_, operand.lanes))
        signed = operand.dtype.kind == "int"
        instruction = ("s" if signed else "u") + ("div" if fn == "div" else "rem")
        if isinstance(divisor, Const) and divisor.value not in (0, -1):
            return self.set(f"{instruction} {t} {v[0]}, {v[1]}")
        zero, one = constant(operand, 0), constant(operand, 1)
        by_zero = self.set(f"icmp eq {t} {v[1]}, {zero}")
        unsafe = by_zero
        by_minus_one = ""
        if signed:
            by_minus_one = self.set(f"icmp eq {t} {v[1]}, {constant(operand, -1)}")
            unsafe = self.set(f"or {mask} {by_zero}, {by_minus_one}")
        safe = self.set(f"select {mask} {unsafe}, {t} {one}, {t} {v[1]}")
        result = self.set(f"{instruction} {t} {v[0]}, {safe}")
        if signed:
            special = zero if fn == "mod" else self.set(f"sub {t} {zero}, {v[0]}")
            result = self.set(f"select {mask} {by_minus_one}, {t} {special}, {t} {result}")
        return self.set(f"select {mask} {by_zero}, {t} {zero}, {t} {result}")

    def _cast(self, a: Expr, to: Vec) -> str:
        """Value conversion; out-of-range floats and NaN give the smallest integer."""
        source, target = a.type.dtype, to.dtype
        s, t, v = llvm_type(a.type), llvm_type(to), self.value(a)
        if source is target:
            return v
        if target.kind == "bool":
            zero = constant(a.type, 0)
            return self.set(f"fcmp une {s} {v}, {zero}" if source.is_floating_point else f"icmp ne {s} {v}, {zero}")
        if source is T.float16 and target is T.float32:  # left to targets that have an exact instruction
            half = Vec(source, to.lanes)
            typed = llvm_type(half).replace("i16", "half")
            return self.set(f"fpext {typed} {self.set(f'bitcast {s} {v} to {typed}')} to {t}")
        if source.is_half or target.is_half:
            raise TypeError(f"the cast of {source} to {target} must be expanded first (codegen/halves.py)")
        if source.is_floating_point and target.is_floating_point:
            return self.set(f"{'fpext' if target.bits > source.bits else 'fptrunc'} {s} {v} to {t}")
        if target.is_floating_point:
            return self.set(f"{'sitofp' if source.kind == 'int' else 'uitofp'} {s} {v} to {t}")
        if source.is_floating_point:
            return self._truncate(a.type, to, v)
        if target.bits == source.bits:
            return self.set(f"bitcast {s} {v} to {t}")
        if target.bits < source.bits:
            return self.set(f"trunc {s} {v} to {t}")
        return self.set(f"{'sext' if source.kind == 'int' else 'zext'} {s} {v} to {t}")

    def _truncate(self, source: Vec, to: Vec, v: str) -> str:
        signed = to.dtype.kind == "int"
        s, t, mask = llvm_type(source), llvm_type(to), llvm_type(Vec(T.bool_, to.lanes))
        bits = to.dtype.bits - signed
        low, high = (-(2.0**bits) if signed else 0.0), 2.0**bits
        # Below the least integer but truncating to it (like -0.5 for unsigned) is in range too.
        above = self.set(f"fcmp {'oge' if signed else 'ogt'} {s} {v}, {constant(source, low if signed else -1.0)}")
        if signed and to.dtype.bits < source.dtype.bits and source.dtype is T.float64:
            above = self.set(f"fcmp ogt {s} {v}, {constant(source, low - 1)}")
        below = self.set(f"fcmp olt {s} {v}, {constant(source, high)}")
        fits = self.set(f"and {mask} {above}, {below}")
        safe = self.set(f"select {mask} {fits}, {s} {v}, {s} {constant(source, 0.0)}")
        whole = self.set(f"{'fptosi' if signed else 'fptoui'} {s} {safe} to {t}")
        least = constant(to, -(2**bits) if signed else 0)
        return self.set(f"select {mask} {fits}, {t} {whole}, {t} {least}")

    # -------------------------------------------------------------------------------------- memory

    def address(self, buffer: Buffer, offset: Expr) -> str:
        """A scalar pointer to the element at `offset`."""
        element = memory_type(Vec(buffer.dtype))
        base = self.pointer(buffer)
        if isinstance(offset, Const) and offset.value == 0:
            return base
        return self.set(f"getelementptr {element}, ptr {base}, i64 {self.value(offset)}")

    def _load(self, e: Load) -> str:
        ramp, coefficient, offset = linear_index(e.buffer, e.indices)
        wide = e.lanes > 1
        if wide and (coefficient == 0 or ramp is None) and e.mask is None:  # one element for all lanes
            scalar = self._narrow(self.set(self._plain_load(e.buffer, offset, 1)), Vec(e.dtype))
            return self.splat(scalar, e.type)
        mask = None if e.mask is None else self.value(e.mask)
        if not wide:
            return self._scalar_load(e, offset, mask)
        t = memory_type(e.type)
        if coefficient == 1:
            if mask is None:
                return self._narrow(self.set(self._plain_load(e.buffer, offset, e.lanes)), e.type)
            bits = f"<{2 * e.lanes} x i1>" if e.dtype.is_complex else llvm_type(Vec(T.bool_, e.lanes))
            loaded = self.call(
                t,
                f"llvm.masked.load.{mangled(t)}.p0",
                [
                    ("ptr", self.address(e.buffer, offset)),
                    ("i32", str(alignment(e.dtype))),
                    (bits, self._mask_of_parts(mask, e.type)),
                    (t, "zeroinitializer"),
                ],
            )
            return self._narrow(self._kept(t, loaded), e.type)
        pointers = self._pointers(e.buffer, e.lanes, coefficient, offset)
        if e.dtype.is_complex:
            part = Vec(e.dtype.part, e.lanes)
            return self._paired(part, *[self._gather(part, p, mask) for p in self._places_of_parts(part, pointers)])
        return self._narrow(self._gather(e.type, pointers, mask), e.type)

    def _kept(self, t: str, loaded: str) -> str:
        """What a masked load gave, kept apart from the arithmetic on it.

        LLVM 22 makes such a load an operand of arithmetic under the same mask, and where registers ask for it takes
        it out again, but now without the mask: it would touch memory that is not there. An assembly text of no
        instructions merges with nothing."""
        if not self.masked_operands:
            return loaded
        count, _, element = t[1:-1].partition(" x ")
        lanes, bits = int(count), BITS[element]
        size = min(512, max(128, 1 << (lanes * bits - 1).bit_length())) // bits  # lanes of a register
        register = f"<{size} x {element}>"
        pieces = [
            self.set(f'call {register} asm "", "=v,0"({register} {self._resized(t, loaded, start, size)})')
            for start in range(0, lanes, size)
        ]
        while len(pieces) > 1:
            t = f"<{size} x {element}>"
            pieces = [self._parts(t, a, b, range(2 * size)) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
            size *= 2
        return self._resized(f"<{size} x {element}>", pieces[0], 0, lanes)

    def _resized(self, t: str, v: str, start: int, lanes: int) -> str:
        """`lanes` elements of a vector of type `t` from `start` on; beyond its end anything."""
        have = int(t[1:-1].partition(" x ")[0])
        if have == lanes:
            return v
        picks = [k if k < have else have for k in range(start, start + lanes)]
        return self._parts(t, v, "poison", picks)

    def _gather(self, vec: Vec, pointers: str, mask: str | None) -> str:
        """The elements at `pointers`; zero where the mask is false."""
        t = memory_type(vec)
        return self.call(
            t,
            f"llvm.masked.gather.{mangled(t)}.v{vec.lanes}p0",
            [
                (f"<{vec.lanes} x ptr>", pointers),
                ("i32", str(alignment(vec.dtype))),
                (llvm_type(Vec(T.bool_, vec.lanes)), mask or "splat (i1 true)"),
                (t, "zeroinitializer"),
            ],
        )

    def _places_of_parts(self, part: Vec, pointers: str) -> tuple[str, str]:
        """Where the real and the imaginary parts lie of complex numbers at `pointers`."""
        element = memory_type(Vec(part.dtype))
        return pointers, self.set(f"getelementptr {element}, <{part.lanes} x ptr> {pointers}, i64 1")

    def _plain_load(self, buffer: Buffer, offset: Expr, lanes: int) -> str:
        t = memory_type(Vec(buffer.dtype, lanes))
        return f"load {t}, ptr {self.address(buffer, offset)}, align {alignment(buffer.dtype)}"

    def _scalar_load(self, e: Load, offset: Expr, mask: str | None) -> str:
        """A masked scalar load reads a harmless place (a zero on the stack) when the mask is false."""
        if mask is None:
            return self._narrow(self.set(self._plain_load(e.buffer, offset, 1)), e.type)
        t = memory_type(e.type)
        zero = self.stack_slot(t)
        self.emit(f"store {t} zeroinitializer, ptr {zero}")
        place = self.set(f"select i1 {mask}, ptr {self.address(e.buffer, offset)}, ptr {zero}")
        return self._narrow(self.set(f"load {t}, ptr {place}, align {alignment(e.dtype)}"), e.type)

    def stack_slot(self, type_text: str) -> str:
        """A stack variable, allocated once at function entry."""
        raise NotImplementedError

    def _pointers(self, buffer: Buffer, lanes: int, coefficient: int | None, offset: Expr) -> str:
        """One pointer per lane."""
        element = memory_type(Vec(buffer.dtype))
        if coefficient is not None:
            steps = ", ".join(f"i64 {k * coefficient}" for k in range(lanes))
            start = self.address(buffer, offset)
            return self.set(f"getelementptr {element}, ptr {start}, <{lanes} x i64> <{steps}>")
        return self.set(f"getelementptr {element}, ptr {self.pointer(buffer)}, {self.typed(offset)}")

    def _narrow(self, loaded: str, vec: Vec) -> str:
        """Memory form to register form: bytes to bits for bool."""
        if vec.dtype.kind != "bool":
            return loaded
        t = memory_type(vec)
        return self.set(f"icmp ne {t} {loaded}, {'zeroinitializer' if vec.lanes > 1 else '0'}")

    def store(self, s: L.Store) -> None:
        """Write lanes to memory, under the mask."""
        lanes = max([i.lanes for i in s.indices] + [1])
        value = s.value if s.value.lanes == lanes else L.splat(s.value, lanes)
        ramp, coefficient, offset = linear_index(s.buffer, s.indices)
        t = memory_type(value.type)
        v = self.value(value)
        if value.dtype.kind == "bool":
            v = self.set(f"zext {llvm_type(value.type)} {v} to {t}")
        align = alignment(s.buffer.dtype)
        if lanes == 1 or (coefficient == 1 and s.mask is None):
            if s.mask is not None:
                raise TypeError("a masked scalar store is an If")
            self.emit(f"store {t} {v}, ptr {self.address(s.buffer, offset)}, align {align}")
            return
        bits = llvm_type(Vec(T.bool_, lanes))
        mask = "splat (i1 true)" if s.mask is None else self.value(s.mask)
        if coefficient == 1 and _lanes_below(s.mask) == 1:
            # A masked store of narrowed integers under a constant mask of one lane: LLVM 22 would write the wide one.
            complex_ = value.dtype.is_complex
            first = self._parts(t, v, "poison", (0, 1)) if complex_ else self.set(f"extractelement {t} {v}, i64 0")
            self.emit(
                f"store {memory_type(Vec(value.dtype))} {first}, ptr {self.address(s.buffer, offset)}, align {align}"
            )
            return
        if coefficient == 1:
            place = ("ptr", self.address(s.buffer, offset))
            if value.dtype.is_complex:
                bits, mask = f"<{2 * lanes} x i1>", self._mask_of_parts(mask, value.type)
            self.call("void", f"llvm.masked.store.{mangled(t)}.p0", [(t, v), place, ("i32", str(align)), (bits, mask)])
            return
        if ramp is None:
            raise TypeError(f"lanes of a store to {s.buffer.name} all hit one element")
        pointers = self._pointers(s.buffer, lanes, coefficient, offset)
        if not value.dtype.is_complex:
            self._scatter(memory_type(value.type), v, lanes, pointers, align, mask)
            return
        part = Vec(value.dtype.part, lanes)
        for k, places in enumerate(self._places_of_parts(part, pointers)):
            self._scatter(memory_type(part), self._part(k, value.type, v), lanes, places, align, mask)

    def _scatter(self, t: str, v: str, lanes: int, pointers: str, align: int, mask: str) -> None:
        """Write lanes of type `t` to `pointers`, under the mask."""
        self.call(
            "void",
            f"llvm.masked.scatter.{mangled(t)}.v{lanes}p0",
            [(t, v), (f"<{lanes} x ptr>", pointers), ("i32", str(align)), (llvm_type(Vec(T.bool_, lanes)), mask)],
        )
