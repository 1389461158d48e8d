"""Scheduled kernel to LLVM IR text, statement by statement: the sibling of `codegen/cuda/emit.py`.

A kernel becomes `i32 @name(ptr %ctx, <ptr or i64 per parameter>)`. A parallel loop's body is outlined into a
function of its own that finds what it needs of the surrounding values in a closure on the stack, and runs through
the context's `parallel_for`. Loops are phi loops tested at the head; expressions are in `exprs.py`.
"""

from __future__ import annotations

from collections.abc import Collection

from kiln.codegen.llvm.exprs import Expressions
from kiln.codegen.llvm.text import function_attributes, llvm_type, memory_type
from kiln.ir import loops as L
from kiln.ir.loops import Block, Buffer, Expr, Kernel, Stmt, Var, Vec
from kiln.ir.program import CTX_FIELDS, Module
from kiln.ir.target import Target

RECORD = """\
define internal void @record(ptr %ctx, i64 %code, i64 %site, i64 %value) nounwind noinline {
  %slot = getelementptr ptr, ptr %ctx, i64 4
  %error = load ptr, ptr %slot
  %r = cmpxchg ptr %error, i64 0, i64 %code acq_rel monotonic
  %first = extractvalue {i64, i1} %r, 1
  br i1 %first, label %write, label %out
write:
  %p1 = getelementptr i64, ptr %error, i64 1
  store i64 %site, ptr %p1
  %p2 = getelementptr i64, ptr %error, i64 2
  store i64 %value, ptr %p2
  br label %out
out:
  ret void
}
"""
CHECK_FAILED, OUT_OF_MEMORY = 1, 2
UNOPTIMISED = " optnone noinline"
"""Attributes of functions that are not worth LLVM's time."""


def emit_kernel(kernel: Kernel, target: Target) -> Module:
    """The module of one scheduled kernel; it exports `kernel.name`."""
    return emit_module(kernel.name, [kernel], target)


def emit_module(name: str, kernels: list[Kernel], target: Target, leading: Collection[str] = ()) -> Module:
    """One module of several kernels, which may invoke each other. Those called `leading` have no loops over elements:
    they lead others, and are compiled without optimising, which takes far less time."""
    parts: list[str] = []
    declarations: dict[str, str] = {}
    needs_record = False
    invoked: set[str] = set()
    for kernel in kernels:
        function = _Function(kernel.name, target, declarations)
        if kernel.name in leading:
            function.shared.attributes += UNOPTIMISED
        function.kernel(kernel)
        parts.extend(function.finished())
        needs_record = needs_record or function.shared.records
        invoked |= function.shared.invoked
    own = {k.name for k in kernels}
    for symbol in own:
        declarations.pop(symbol, None)
    head = [RECORD] if needs_record else []
    text = "\n".join([*head, *parts, *(declarations[k] for k in sorted(declarations)), ""])
    return Module(name, text, tuple(k.name for k in kernels), tuple(sorted(invoked - own)))


class _Shared:
    """What the functions of one kernel share."""

    def __init__(self, name: str, target: Target) -> None:
        self.name = name
        self.attributes = function_attributes(target)
        self.functions: list[str] = []
        self.records = False
        self.invoked: set[str] = set()
        self.bodies = 0


class _Function(Expressions):
    """One LLVM function being written: a kernel, or the outlined body of a parallel loop inside `parent`."""

    def __init__(
        self, name: str, target: Target, declarations: dict[str, str], parent: _Function | None = None
    ) -> None:
        super().__init__(target.arch == "x86_64" and target.vector_bits == 512)
        self.target = target
        self.declarations = declarations
        self.parent = parent
        self.shared: _Shared = _Shared(name, target) if parent is None else parent.shared
        self.buffers: dict[Buffer, str] = {}
        self.captures: dict[tuple[str, str], str] = {}  # (type, outer name) -> inner name
        self.label = "entry"
        self.entry: list[str] = []
        self.workspaces: list[str] = []

    # ------------------------------------------------------------------------- names from outside

    def lookup(self, e: Expr) -> str | None:
        found = super().lookup(e)
        if found is None and self.parent is not None:
            outer = self.parent.lookup(e)
            if outer is not None:
                return self._capture(llvm_type(e.type), outer)
        return found

    def pointer(self, buffer: Buffer) -> str:
        found = self.buffers.get(buffer)
        if found is None:
            if self.parent is None:
                raise KeyError(f"buffer {buffer.name} is not bound here")
            found = self._capture("ptr", self.parent.pointer(buffer))
            self.buffers[buffer] = found
        return found

    def _capture(self, type_text: str, outer: str) -> str:
        if not outer.startswith("%"):
            return outer
        key = (type_text, outer)
        return self.captures.setdefault(key, f"%c{len(self.captures)}")

    def stack_slot(self, type_text: str) -> str:
        name = self.fresh("slot")
        self.entry.append(f"  {name} = alloca {type_text}, align 64")
        return name

    # ----------------------------------------------------------------------------------- functions

    def kernel(self, kernel: Kernel) -> None:
        params = ["ptr %ctx"]
        for k, p in enumerate(kernel.params):
            name = f"%a{k}"
            if isinstance(p, Var):
                params.append(f"i64 {name}")
                self.bind(p, name)
            else:
                params.append(f"ptr {name}")
                self.buffers[p] = name
        self.block(kernel.body)
        status = "0"
        if self.shared.records or self.shared.invoked or self.shared.bodies:
            slot = self.set(f"getelementptr ptr, ptr %ctx, i64 {CTX_FIELDS.index('error')}")
            error = self.set(f"load ptr, ptr {slot}")
            code = self.set(f"load i64, ptr {error}")
            status = self.set(f"trunc i64 {code} to i32")
        self.emit(f"ret i32 {status}")
        attributes = self.shared.attributes
        if self.shared.bodies and self.label == "entry" and UNOPTIMISED not in attributes:
            attributes += UNOPTIMISED  # one straight line that hands its loop to the threads
        head = f"define i32 @{kernel.name}({', '.join(params)}) {attributes} {{"
        self.shared.functions.append("\n".join([head, "entry:", *self.entry, *self.lines, "}", ""]))

    def finished(self) -> list[str]:
        return self.shared.functions

    def goto(self, label: str) -> None:
        """End the current basic block with a jump and start `label`."""
        self.emit(f"br label %{label}")
        self.start(label)

    def start(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.label = label

    # ---------------------------------------------------------------------------------- statements

    def block(self, block: Block, then: tuple[Expr, ...] = ()) -> list[str]:
        """A nested scope; returns the operands of `then`, evaluated at its end."""
        self.scopes.append({})
        live = len(self.workspaces)
        for s in block:
            self.stmt(s)
        values = [self.value(e) for e in then]
        for p in reversed(self.workspaces[live:]):
            self._context_call("void", "free", [("ptr", p)])
        del self.workspaces[live:]
        self.scopes.pop()
        return values

    def stmt(self, s: Stmt) -> None:
        match s:
            case L.Let():
                self.bind(s.var, self.value(s.value))
            case L.Store():
                self.store(s)
            case L.For(kind="parallel"):
                self._parallel(s)
            case L.For():
                self._for(s)
            case L.If():
                self._if(s)
            case L.While():
                self._while(s)
            case L.Verify():
                self._verify(s)
            case L.Alloc():
                self._alloc(s.buffer)
            case L.Invoke():
                self._invoke(s)
            case _:
                raise TypeError(f"{self.shared.name}: no LLVM text for {type(s).__name__} (is the kernel scheduled?)")

    def _for(self, s: L.For) -> None:
        if s.kind not in ("serial", "unrolled"):
            raise TypeError(f"{self.shared.name}: a {s.kind} loop must be scheduled first")
        lo, hi = self.value(s.lo), self.value(s.hi)
        inits = [self.value(c.init) for c in s.carried]
        head, body, out = (self.fresh(x)[1:] for x in ("head", "body", "out"))
        before = self.label
        self.goto(head)
        at = len(self.lines)  # phis go here once the end of the body is known
        i = self.fresh("i")
        names = [self.fresh("x") for _ in s.carried]
        test = self.set(f"icmp slt i64 {i}, {hi}")
        self.emit(f"br i1 {test}, label %{body}, label %{out}")
        self.start(body)
        self.scopes.append({s.var: i, **{c.var: n for c, n in zip(s.carried, names, strict=True)}})
        nexts = self.block(s.body, tuple(c.next for c in s.carried))
        self.scopes.pop()
        step = self.set(f"add i64 {i}, {s.step}")
        latch = self.label
        self.emit(f"br label %{head}")
        phis = [f"  {i} = phi i64 [{lo}, %{before}], [{step}, %{latch}]"]
        for c, name, init, after in zip(s.carried, names, inits, nexts, strict=True):
            phis.append(f"  {name} = phi {llvm_type(c.var.type)} [{init}, %{before}], [{after}, %{latch}]")
        self.lines[at:at] = phis
        self.start(out)
        for c, name in zip(s.carried, names, strict=True):
            self.bind(c.result, name)

    def _while(self, s: L.While) -> None:
        if s.test.lanes != 1:
            raise TypeError(f"{self.shared.name}: a vector While must be scheduled into masked form first")
        inits = [self.value(c.init) for c in s.carried]
        head, body, out = (self.fresh(x)[1:] for x in ("head", "body", "out"))
        before = self.label
        self.goto(head)
        at = len(self.lines)
        names = [self.fresh("x") for _ in s.carried]
        self.scopes.append({c.var: n for c, n in zip(s.carried, names, strict=True)})
        test = self.value(s.test)
        self.emit(f"br i1 {test}, label %{body}, label %{out}")
        self.start(body)
        nexts = self.block(s.body, tuple(c.next for c in s.carried))
        self.scopes.pop()
        latch = self.label
        self.emit(f"br label %{head}")
        self.lines[at:at] = [
            f"  {name} = phi {llvm_type(c.var.type)} [{init}, %{before}], [{after}, %{latch}]"
            for c, name, init, after in zip(s.carried, names, inits, nexts, strict=True)
        ]
        self.start(out)
        for c, name in zip(s.carried, names, strict=True):
            self.bind(c.result, name)

    def _if(self, s: L.If) -> None:
        test = self.value(s.cond)
        then, orelse, out = (self.fresh(x)[1:] for x in ("then", "else", "endif"))
        self.emit(f"br i1 {test}, label %{then}, label %{orelse if s.orelse else out}")
        self.start(then)
        self.block(s.then)
        self.emit(f"br label %{out}")
        if s.orelse:
            self.start(orelse)
            self.block(s.orelse)
            self.emit(f"br label %{out}")
        self.start(out)

    def _context_call(self, result: str, field: str, args: list[tuple[str, str]]) -> str:
        """Call a function of the native context."""
        slot = self.set(f"getelementptr ptr, ptr %ctx, i64 {CTX_FIELDS.index(field)}")
        function = self.set(f"load ptr, ptr {slot}")
        text = f"call {result} {function}({', '.join(['ptr %ctx', *(f'{t} {v}' for t, v in args)])})"
        if result == "void":
            self.emit(text)
            return ""
        return self.set(text)

    def _parallel(self, s: L.For) -> None:
        """Outline the body; a parallel loop inside a parallel body just runs there, serially."""
        if s.carried:
            raise TypeError(f"{self.shared.name}: a parallel loop carries values")
        if self.parent is not None:
            self._for(L.For("serial", s.var, s.lo, s.hi, s.body, s.step))
            return
        self.shared.bodies += 1
        name = f"{self.shared.name}.body{self.shared.bodies}"
        inner = _Function(name, self.target, self.declarations, self)
        begin, end = Var(L.INDEX, "begin"), Var(L.INDEX, "end")
        inner.bind(begin, "%begin")
        inner.bind(end, "%end")
        step = L.index(s.step)
        first, last = L.add(s.lo, L.mul(begin, step)), L.add(s.lo, L.mul(end, step))
        inner.stmt(L.For("serial", s.var, first, last, s.body, s.step))
        inner.emit("ret void")
        fields = ", ".join(t for t, _ in inner.captures)
        loads: list[str] = []
        for k, ((t, _), local) in enumerate(inner.captures.items()):
            loads.append(f"  {local}.p = getelementptr {{ {fields} }}, ptr %closure, i64 0, i32 {k}")
            loads.append(f"  {local} = load {t}, ptr {local}.p")
        head = (
            f'define internal void @"{name}"(ptr %ctx, ptr %closure, i64 %begin, i64 %end) {self.shared.attributes} {{'
        )
        self.shared.functions.append("\n".join([head, "entry:", *inner.entry, *loads, *inner.lines, "}", ""]))
        closure = self.stack_slot(f"{{ {fields} }}")
        for k, (t, outer) in enumerate(inner.captures):
            p = self.set(f"getelementptr {{ {fields} }}, ptr {closure}, i64 0, i32 {k}")
            self.emit(f"store {t} {outer}, ptr {p}")
        count: Expr = L.sub(s.hi, s.lo)
        if s.step != 1:
            count = L.apply("div", L.add(count, L.index(s.step - 1)), step)
        grain = L.index(1) if s.grain is None else s.grain
        n, g = self.value(count), self.value(grain)
        self._context_call("i32", "parallel_for", [("ptr", f'@"{name}"'), ("ptr", closure), ("i64", n), ("i64", g)])

    def _verify(self, s: L.Verify) -> None:
        self.shared.records = True
        lanes = max(s.ok.lanes, s.value.lanes, 1 if s.mask is None else s.mask.lanes)
        bad = L.apply("not", L.splat(s.ok, lanes))
        if s.mask is not None:
            bad = L.apply("and", bad, L.splat(s.mask, lanes))
        failed, fine = self.fresh("failed")[1:], self.fresh("fine")[1:]
        flags, any_bad = self.value(bad), ""
        if lanes > 1:
            flags = self.set(f"bitcast {llvm_type(bad.type)} {flags} to i{lanes}")
            any_bad = self.set(f"icmp ne i{lanes} {flags}, 0")
        value = self.value(L.splat(s.value, lanes))
        self.emit(f"br i1 {any_bad or flags}, label %{failed}, label %{fine}")
        self.start(failed)
        if lanes > 1:
            first = self.call(f"i{lanes}", f"llvm.cttz.i{lanes}", [(f"i{lanes}", flags), ("i1", "false")])
            value = self.set(f"extractelement <{lanes} x i64> {value}, i{lanes} {first}")
        self.emit(f"call void @record(ptr %ctx, i64 {CHECK_FAILED}, i64 {s.site}, i64 {value})")
        self.emit(f"br label %{fine}")
        self.start(fine)

    def _alloc(self, buffer: Buffer) -> None:
        size: Expr = L.index(1)
        for d in buffer.shape:
            size = L.mul(size, L.as_index(d))
        element = memory_type(Vec(buffer.dtype))
        if buffer.scope in ("stack", "register"):
            if not isinstance(size, L.Const):
                raise TypeError(f"{self.shared.name}: stack buffer {buffer.name} has no constant size")
            self.buffers[buffer] = self.stack_slot(f"[{int(size.value)} x {element}]")
            return
        if buffer.scope != "workspace":
            raise TypeError(f"{self.shared.name}: no {buffer.scope} memory on a CPU")
        self.shared.records = True
        nbytes = self.value(L.mul(size, L.index(buffer.dtype.itemsize)))
        p = self._context_call("ptr", "allocate", [("i64", nbytes)])
        missing = self.set(f"icmp eq ptr {p}, null")
        failed, fine = self.fresh("failed")[1:], self.fresh("fine")[1:]
        self.emit(f"br i1 {missing}, label %{failed}, label %{fine}")
        self.start(failed)
        self.emit(f"call void @record(ptr %ctx, i64 {OUT_OF_MEMORY}, i64 0, i64 {nbytes})")
        for live in reversed(self.workspaces):
            self._context_call("void", "free", [("ptr", live)])
        self.emit("ret void" if self.parent is not None else f"ret i32 {OUT_OF_MEMORY}")
        self.start(fine)
        self.workspaces.append(p)
        self.buffers[buffer] = p

    def _invoke(self, s: L.Invoke) -> None:
        self.shared.invoked.add(s.symbol)
        args = [("ptr", "%ctx")]
        for a in s.args:
            if isinstance(a, tuple):
                args.append(("ptr", self.address(*a)))
            else:
                args.append((llvm_type(a.type), self.value(a)))
        self.call("i32", s.symbol, args)
