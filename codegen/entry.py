"""The entries of a program as LLVM text: load the slots, call the steps in order, stop at the first failure.

There is one, unless steps of a library lie between: those are no native code, and each run of others has its own.
Branches and loops are basic blocks of the entry; the pointers that a loop moves are its phis.
"""

from __future__ import annotations

from collections.abc import Sequence

from kiln.codegen.control import Flow, nbytes
from kiln.codegen.llvm.text import function_attributes
from kiln.codegen.plan import Plan, Pointer, Step
from kiln.codegen.steps import step_work
from kiln.ir.graph import Value
from kiln.ir.program import CTX_FIELDS, Module, Slot
from kiln.ir.target import Target
from kiln.ir.types import Dim

DEFAULT_MXCSR = 0x1F80
"""Round to nearest, subnormals kept, no traps."""


def emit_entry(name: str, plan: Plan, steps: Sequence[Step], slots: tuple[Slot, ...], target: Target) -> Module:
    """`i32 @name(ptr ctx, ptr args)`; a run of the plan's steps, whose symbols it imports."""
    return _Entry(plan, slots, target).emit(name, steps)


class _Entry:
    """One function while it is written."""

    def __init__(self, plan: Plan, slots: tuple[Slot, ...], target: Target) -> None:
        self.plan = plan
        self.target = target
        self.lines: list[str] = []
        self.places: dict[object, str] = {}
        """LLVM names of all slots: values by (kind, index), sizes by name, the arena by "arena"."""
        self.declarations: dict[str, str] = {}
        self.symbols: set[str] = set()
        self.exits: list[tuple[str, str]] = []  # a status, and the block that it comes from
        self.block = "start"
        self.count = 0
        self._load_slots(slots)

    def emit(self, name: str, steps: Sequence[Step]) -> Module:
        x86 = self.target.arch == "x86_64"
        if x86:
            self.lines += [
                "  %csr.old = alloca i32",
                "  %csr.new = alloca i32",
                "  call void @llvm.x86.sse.stmxcsr(ptr %csr.old)",
                f"  store i32 {DEFAULT_MXCSR}, ptr %csr.new",
                "  call void @llvm.x86.sse.ldmxcsr(ptr %csr.new)",
            ]
            for intrinsic in ("stmxcsr", "ldmxcsr"):
                self.declarations[intrinsic] = f"declare void @llvm.x86.sse.{intrinsic}(ptr)"
        self._steps(steps, last=True)
        restore = ["  call void @llvm.x86.sse.ldmxcsr(ptr %csr.old)"] if x86 else []
        if not self.exits:
            self.lines += [*restore, "  ret i32 0"]
        else:
            sources = ", ".join(f"[{status}, %{block}]" for status, block in self.exits)
            self.lines += ["  br label %out", "out:", f"  %status = phi i32 {sources}", *restore, "  ret i32 %status"]
        head = f"define i32 @{name}(ptr %ctx, ptr %args) {function_attributes(self.target)} {{"
        declarations = [self.declarations[k] for k in sorted(self.declarations)]
        text = "\n".join([head, "start:", *self.lines, "}", *declarations, ""])
        plain = not any(isinstance(step, Flow) for step in steps)  # loops are worth LLVM's while
        return Module(name, text, (name,), tuple(sorted(self.symbols)), plain)

    # ---------------------------------------------------------------------------------------- steps

    def _steps(self, steps: Sequence[Step], last: bool = False) -> None:
        """`last`: nothing comes after them, so that the status of the last one is the function's."""
        for step in steps:
            if isinstance(step, Flow):
                self._flow(step)
                if last and step is steps[-1]:
                    self.exits.append(("0", self.block))
            else:
                self._call(step, last and step is steps[-1])

    def _call(self, step: Step, last: bool) -> None:
        k = self._number()
        args = ["ptr %ctx"]
        for j, a in enumerate(step.args):
            if isinstance(a, Pointer):
                args.append(f"ptr {self._pointer(a, f'%p{k}.{j}')}")
            else:
                args.append(f"i64 {self._size(a, f'%n{k}.{j}')}")
        types = ", ".join(a.split(" ", 1)[0] for a in args)
        self.declarations[step.symbol] = f"declare i32 @{step.symbol}({types})"
        self.symbols.add(step.symbol)
        self.lines.append(f"  %s{k} = call i32 @{step.symbol}({', '.join(args)})")
        self.exits.append((f"%s{k}", self.block))
        if not last:
            self._leave_if(f"%f{k} = icmp ne i32 %s{k}, 0", f"%f{k}", f"step{k + 1}")

    def _leave_if(self, compare: str, failed: str, following: str) -> None:
        self.lines += [f"  {compare}", f"  br i1 {failed}, label %out, label %{following}"]
        self._start(following)

    def _start(self, block: str) -> None:
        self.lines.append(f"{block}:")
        self.block = block

    def _number(self) -> int:
        self.count += 1
        return self.count - 1

    # --------------------------------------------------------------------------- branches and loops

    def _flow(self, flow: Flow) -> None:
        if flow.operation.op.name == "cond":
            self._branch(flow)
        else:
            self._loop(flow)

    def _truth(self, pointer: Pointer, n: int) -> str:
        """The bool at a place."""
        at = self._pointer(pointer, f"%at{n}")
        self.lines += [f"  %byte{n} = load i8, ptr {at}", f"  %truth{n} = icmp ne i8 %byte{n}, 0"]
        return f"%truth{n}"

    def _branch(self, flow: Flow) -> None:
        n = self._number()
        truth = self._truth(flow.source[0], n)
        self.lines.append(f"  br i1 {truth}, label %then{n}, label %else{n}")
        for label, inner in zip((f"then{n}", f"else{n}"), flow.inner, strict=True):
            self._start(label)
            self._steps(inner.steps)
            self.lines.append(f"  br label %join{n}")
        self._start(f"join{n}")

    def _loop(self, flow: Flow) -> None:
        """The phis stand at the head; what moves to what is known at the end only."""
        n, count = self._number(), flow.carried
        moving = self.plan.moving[flow.operation]
        written = len(flow.inner[-1].graph.outputs)
        first = [self._pointer(Pointer(r), f"%first{n}.{k}") for k, r in enumerate(flow.operation.results[:count])]
        second = [self._pointer(Pointer(v), f"%second{n}.{k}") for k, v in enumerate(flow.spare)]
        source = [self._pointer(p, f"%source{n}.{k}") for k, p in enumerate(flow.source[: len(moving) - written])]
        ys = [self._pointer(Pointer(r), f"%ys{n}.{k}") for k, r in enumerate(flow.operation.results[count:])]
        before, back = self.block, f"again{n}"
        self.lines.append(f"  br label %loop{n}")
        self._start(f"loop{n}")
        self.lines.append(f"  %turn{n} = phi i64 [0, %{before}], [%next{n}, %{back}]")
        for k in range(count):
            self.lines += [
                f"  %read{n}.{k} = phi ptr [{source[k]}, %{before}], [%write{n}.{k}, %{back}]",
                f"  %write{n}.{k} = phi ptr [{first[k]}, %{before}], [%other{n}.{k}, %{back}]",
            ]
            self.places["pointer", moving[k]] = f"%read{n}.{k}"
            self.places["pointer", moving[len(moving) - written + k]] = f"%write{n}.{k}"
        if flow.operation.op.name == "scan":
            self.lines.append(f"  %truth{n} = icmp slt i64 %turn{n}, {flow.length}")
        else:
            test = flow.inner[0]
            self._steps(test.steps)
            self._truth(Pointer(test.graph.outputs[0]), n)
        self.lines.append(f"  br i1 %truth{n}, label %body{n}, label %done{n}")
        self._start(f"body{n}")
        if flow.operation.op.name == "scan":
            pointers = [*moving[count : len(moving) - written], *moving[len(moving) - written + count :]]
            self._slices(flow, n, [*source[count:], *ys], pointers)
        self._steps(flow.inner[-1].steps)
        self._poll(flow, n)
        self.lines.append(f"  br label %{back}")
        self._start(back)
        self.lines.append(f"  %next{n} = add i64 %turn{n}, 1")
        for k in range(count):
            self.lines += [
                f"  %flip{n}.{k} = icmp eq ptr %write{n}.{k}, {first[k]}",
                f"  %other{n}.{k} = select i1 %flip{n}.{k}, ptr {second[k]}, ptr {first[k]}",
            ]
        self.lines.append(f"  br label %loop{n}")
        self._start(f"done{n}")
        for k, v in enumerate(flow.operation.results[:count]):
            self._settle(f"{n}.{k}", first[k], f"%read{n}.{k}", nbytes(v))

    def _slices(self, flow: Flow, n: int, bases: Sequence[str], pointers: Sequence[int]) -> None:
        """Point to the slices of this turn."""
        place = f"%turn{n}"
        if flow.operation.attrs["reverse"]:
            place = f"%place{n}"
            self.lines.append(f"  {place} = sub i64 {flow.length - 1}, %turn{n}")
        for k, (base, number, pace) in enumerate(zip(bases, pointers, flow.pace, strict=True)):
            self.lines += [
                f"  %far{n}.{k} = mul i64 {place}, {pace}",
                f"  %slice{n}.{k} = getelementptr i8, ptr {base}, i64 %far{n}.{k}",
            ]
            self.places["pointer", number] = f"%slice{n}.{k}"

    def _settle(self, name: str, first: str, found: str, size: int) -> None:
        """The last value lies in the first place."""
        self.declarations["memcpy"] = "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)"
        self.lines += [
            f"  %there{name} = icmp eq ptr {found}, {first}",
            f"  br i1 %there{name}, label %settled{name}, label %settle{name}",
            f"settle{name}:",
            f"  call void @llvm.memcpy.p0.p0.i64(ptr {first}, ptr {found}, i64 {size}, i1 false)",
            f"  br label %settled{name}",
        ]
        self._start(f"settled{name}")

    def _poll(self, flow: Flow, n: int) -> None:
        """Leave when someone asks the program to stop; of long loops, ask now and then."""
        turns = _turns_between(flow)
        if not turns:
            return
        self._context(f"flag{n}", "interrupt")
        self.lines.append(f"  %flag{n} = load atomic i32, ptr %flag{n}.at monotonic, align 4")
        self.exits.append((f"%flag{n}", self.block))
        self._leave_if(f"%stop{n} = icmp ne i32 %flag{n}, 0", f"%stop{n}", f"going{n}")
        self.lines += [
            f"  %since{n} = and i64 %turn{n}, {turns - 1}",
            f"  %due{n} = icmp eq i64 %since{n}, {turns - 1}",
            f"  br i1 %due{n}, label %ask{n}, label %turned{n}",
        ]
        self._start(f"ask{n}")
        self._context(f"host{n}", "host_call")
        self.lines.append(f"  %told{n} = call i32 %host{n}.at(ptr %ctx, i64 0, ptr null)")
        self.exits.append((f"%told{n}", self.block))
        self._leave_if(f"%end{n} = icmp ne i32 %told{n}, 0", f"%end{n}", f"turned{n}")

    def _context(self, name: str, field: str) -> None:
        """Load a pointer from the context."""
        self.lines += [
            f"  %{name}.field = getelementptr i64, ptr %ctx, i64 {CTX_FIELDS.index(field)}",
            f"  %{name}.at = load ptr, ptr %{name}.field",
        ]

    # ------------------------------------------------------------------------------------- operands

    def _load_slots(self, slots: tuple[Slot, ...]) -> None:
        for k, slot in enumerate(slots):
            self.lines.append(f"  %slot{k} = getelementptr i64, ptr %args, i64 {k}")
            kind = "i64" if slot.kind == "size" else "ptr"
            self.lines.append(f"  %arg{k} = load {kind}, ptr %slot{k}")
            if slot.kind == "size":
                self.places[slot.name] = f"%arg{k}"
            elif slot.kind == "arena":
                self.places["arena"] = f"%arg{k}"
            else:
                self.places[slot.kind, slot.index] = f"%arg{k}"

    def _base(self, root: Value, offset: int) -> tuple[str, int]:
        if root in self.plan.arena:
            return self.places["arena"], offset + self.plan.arena[root]
        return self.places[self.plan.targets[root]], offset

    def _pointer(self, a: Pointer, name: str) -> str:
        """The operand for a pointer argument."""
        base, offset = self._base(*self.plan.locate(a))
        if offset == 0:
            return base
        self.lines.append(f"  {name} = getelementptr i8, ptr {base}, i64 {offset}")
        return name

    def _size(self, a: Dim, name: str) -> str:
        """The operand for a size argument; a symbol may be a product of sizes ("k*n")."""
        if isinstance(a, int):
            return str(a)
        factors = [f if f.isdigit() else self.places[f] for f in a.name.split("*")]
        product = factors[0]
        for i, factor in enumerate(factors[1:]):
            self.lines.append(f"  {name}.{i} = mul i64 {product}, {factor}")
            product = f"{name}.{i}"
        return product


_PATIENCE = 1 << 24
"""Scalar operations between two questions whether to go on: some milliseconds."""


def _turns_between(flow: Flow) -> int:
    """After how many turns (a power of two) a loop asks whether to go on; 0: it is over soon."""
    turn = max(1, sum(step_work(s) for inner in flow.inner for s in inner.steps))
    if flow.operation.op.name == "scan" and flow.length * turn < _PATIENCE:
        return 0  # what spins inside asks by itself
    return 1 << max(0, min(20, (_PATIENCE // turn).bit_length() - 1))
