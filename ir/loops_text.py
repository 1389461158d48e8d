"""Loop kernels as text that reads like Python: the printed form of `loops.py`.

    def softmax(in0: float32[64, 10], out0: float32[64, 10]):
      for i in parallel(64) grain 128:
        m = max(in0[i, r] for r in 10 by lanes)

Every value that is used more than once in a block, and every `Let`, gets a name; the rest is written where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable

from kiln.ir import loops as L
from kiln.ir.loops import Block, Buffer, Expr, Kernel, Stmt
from kiln.ir.loops_gpu import Arrive, Move, Rank
from kiln.ir.loops_walk import expr_children, stmt_exprs

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%", "eq": "==", "ne": "!=", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
}  # fmt: skip
_LONG = 60


def print_kernel(kernel: Kernel) -> str:
    """The text of a kernel; equal kernels print equally."""
    return "\n".join(_Printer().kernel(kernel)) + "\n"


class _Printer:
    def __init__(self) -> None:
        self.names: dict[Expr, str] = {}
        self.taken: dict[str, int] = {}
        self.lines: list[str] = []
        self.depth = 0

    def kernel(self, kernel: Kernel) -> list[str]:
        params = ", ".join(self.buffer(p) if isinstance(p, Buffer) else self.bind(p) for p in kernel.params)
        self.lines.append(f"def {kernel.name}({params}):")
        self.block(kernel.body)
        return self.lines

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def bind(self, var: L.Var) -> str:
        """A readable name that is free: the variable's own without its number, numbered anew."""
        stem = var.name.rstrip("0123456789").rstrip("_") or var.name
        n = self.taken.get(stem, 0)
        self.taken[stem] = n + 1
        name = self.names[var] = stem if n == 0 else f"{stem}{n}"
        return name

    def buffer(self, b: Buffer) -> str:
        shape = ", ".join(self.size(d) for d in b.shape)
        strides = ", ".join(self.size(d) for d in b.strides)
        return f"{b.name}: {b.dtype}[{shape}] strides ({strides})"

    def size(self, d: int | Expr) -> str:
        return str(d) if isinstance(d, int) else d.name if isinstance(d, L.Var) else self.expr(d)

    # ---------------------------------------------------------------------------------- statements

    def block(self, block: Block, ends: Iterable[Expr] = ()) -> list[str]:
        """The statements of a block one level deeper; the texts of the expressions evaluated at its end."""
        saved = dict(self.names)
        self.depth += 1
        shared = _shared(block, tuple(ends))
        for s in block:
            self.stmt(s, shared)
        texts = [self.expr(e, shared) for e in ends]
        self.depth -= 1
        self.names = saved
        return texts

    def stmt(self, s: Stmt, shared: set[Expr]) -> None:
        match s:
            case L.Let():
                value = self.expr(s.value, shared)
                self.line(f"{self.bind(s.var)} = {value}")
            case L.Store():
                self.line(
                    f"{self.place(s.buffer, s.indices, shared)} = {self.expr(s.value, shared)}{self.mask(s.mask)}"
                )
            case L.For():
                self.loop(s, shared)
            case L.If():
                self.line(f"if {self.expr(s.cond, shared)}:")
                self.block(s.then)
                if s.orelse:
                    self.line("else:")
                    self.block(s.orelse)
            case L.While():
                self.while_(s, shared)
            case L.Reduce():
                self.reduce(s, shared)
            case L.Verify():
                ok, value = self.expr(s.ok, shared), self.expr(s.value, shared)
                self.line(f"verify {ok} site {s.site} value {value}{self.mask(s.mask)}")
            case L.Alloc():
                self.line(f"{s.buffer.scope} {self.buffer(s.buffer)}")
            case L.Barrier():
                self.line("barrier")
            case Move():
                memory, part = self.expr(L.load(s.memory, s.indices), shared), s.registers.name
                if s.at is not None:
                    part += f"+{self.expr(s.at, shared)}"
                text = f"{memory} <- {part}" if s.store else f"{part} <- {memory}"
                self.line(f"move {text} of {self.expr(s.count, shared)}")
            case Rank():
                count = self.expr(s.count, shared)
                self.line(f"{self.bind(s.first)}, {self.bind(s.total)} = rank of {count}")
            case Arrive():
                self.line("arrive")
            case L.Invoke():
                args = [
                    f"{a[0].name}+{self.expr(a[1], shared)}" if isinstance(a, tuple) else self.expr(a, shared)
                    for a in s.args
                ]
                self.line(f"{s.symbol}({', '.join(args)})")
            case _:
                raise TypeError(f"no text for {type(s).__name__}")

    def loop(self, s: L.For, shared: set[Expr]) -> None:
        lo, hi = self.expr(s.lo, shared), self.expr(s.hi, shared)
        span = hi if lo == "0" and s.step == 1 else f"{lo}, {hi}" + (f", {s.step}" if s.step != 1 else "")
        grain = f" grain {self.expr(s.grain, shared)}" if s.grain is not None else ""
        inits = [self.expr(c.init, shared) for c in s.carried]
        outer = dict(self.names)
        var = self.bind(s.var)
        carried = [f"{self.bind(c.var)} = {init}" for c, init in zip(s.carried, inits, strict=True)]
        kind = "range" if s.kind == "serial" else s.kind
        head = f"for {var} in {kind}({span}){grain}"
        self.line(f"{head} carrying {', '.join(carried)}:" if carried else f"{head}:")
        nexts = self.block(s.body, tuple(c.next for c in s.carried))
        for c, text in zip(s.carried, nexts, strict=True):
            self.line(f"  {self.names[c.var]} <- {text}")
        ends = [(c.result, self.names[c.var]) for c in s.carried]
        self.names = outer
        for result, name in ends:
            self.names[result] = name

    def while_(self, s: L.While, shared: set[Expr]) -> None:
        inits = [self.expr(c.init, shared) for c in s.carried]
        outer = dict(self.names)
        carried = [f"{self.bind(c.var)} = {init}" for c, init in zip(s.carried, inits, strict=True)]
        self.line(f"while {self.expr(s.test)} carrying {', '.join(carried)}:")
        nexts = self.block(s.body, tuple(c.next for c in s.carried))
        for c, text in zip(s.carried, nexts, strict=True):
            self.line(f"  {self.names[c.var]} <- {text}")
        ends = [(c.result, self.names[c.var]) for c in s.carried]
        self.names = {**outer, **dict(ends)}

    def reduce(self, s: L.Reduce, shared: set[Expr]) -> None:
        extents = [self.expr(e, shared) for _, e in s.axes]
        outer = dict(self.names)
        axes = ", ".join(f"{self.bind(v)} in {e}" for (v, _), e in zip(s.axes, extents, strict=True))
        at = len(self.lines)
        values = self.block(s.body, s.values)
        self.names = outer
        results = ", ".join(self.bind(r) for r in s.results)
        head = f"{results} = {s.combine} over {axes} by {s.order}"
        self.lines.insert(at, "  " * self.depth + f"{head}:")
        self.line(f"  yield {', '.join(values)}")

    def mask(self, mask: Expr | None) -> str:
        return "" if mask is None else f" where {self.expr(mask)}"

    # --------------------------------------------------------------------------------- expressions

    def place(self, buffer: Buffer, indices: tuple[Expr, ...], shared: set[Expr]) -> str:
        return f"{buffer.name}[{', '.join(self.expr(i, shared) for i in indices)}]"

    def expr(self, e: Expr, shared: set[Expr] | None = None) -> str:
        """The text of an expression; shared and long ones are bound to a name first."""
        if isinstance(e, L.Const):
            text = repr(e.value) if not isinstance(e.value, float) else repr(float(e.value))
            return text if e.lanes == 1 else f"splat({text})"
        found = self.names.get(e)
        if found is not None:
            return found
        if isinstance(e, L.Var):
            return e.name
        text = self.compute(e, shared)
        if shared is not None and (e in shared or len(text) > _LONG):
            n = self.taken.get("t", 0)
            self.taken["t"] = n + 1
            name = self.names[e] = f"t{n}"
            self.line(f"{name} = {text}")
            return name
        return text

    def compute(self, e: Expr, shared: set[Expr] | None) -> str:
        sub = [self.expr(c, shared) for c in expr_children(e)]
        match e:
            case L.Load():
                inside = ", ".join(sub[: len(e.indices)])
                return f"{e.buffer.name}[{inside}]" + (f" where {sub[-1]}" if e.mask is not None else "")
            case L.Ramp():
                return f"ramp({sub[0]})"
            case L.Splat():
                return f"splat({sub[0]})"
            case L.Warp():
                return f"shuffle_xor({sub[0]}, {e.xor})"
            case L.Shuffle():
                return f"shuffle({', '.join(sub)}; {', '.join(map(str, e.picks))})"
            case L.Apply(fn="cast" | "bitcast"):
                return f"{e.fn}({sub[0]}, {e.type})"
            case L.Apply() if e.fn in _INFIX:
                return f"({sub[0]} {_INFIX[e.fn]} {sub[1]})"
            case L.Apply():
                return f"{e.fn}({', '.join(sub)})"
            case _:
                raise TypeError(f"no text for {type(e).__name__}")


def _shared(block: Block, ends: tuple[Expr, ...]) -> set[Expr]:
    """Expressions that a block's own statements use more than once (loads of an index, a scalar twice)."""
    counts: dict[Expr, int] = {}

    def visit(e: Expr) -> None:
        if isinstance(e, L.Const | L.Var):
            return
        counts[e] = counts.get(e, 0) + 1
        if counts[e] == 1:
            for c in expr_children(e):
                visit(c)

    for s in block:
        for e in stmt_exprs(s):
            visit(e)
    for e in ends:
        visit(e)
    return {e for e, n in counts.items() if n > 1}
