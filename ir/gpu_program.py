"""`CudaProgram`: a graph as CUDA C texts and the plan of what a host does with them. Plain data, for the runtime.

A run takes the memory of the inputs, allocates the outputs, one arena and the workspaces, and carries out the steps in
order. Launches go to one stream; each sees what those before it have stored. A launch of zero blocks is left out.
Some matrix products are a library's of the GPU (`Product`), which goes to the same stream. What a library computes on
the host (`HostCall`), and what is decided by data (`Branch`, `Loop`), the host does between launches.
Kernels compiled with other options than `OPTIONS` do not have the bits that are promised.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from kiln.ir import loops as L
from kiln.ir.arena import Local
from kiln.ir.graph import AttrValue, Constant, SourceLoc
from kiln.ir.loops import Expr
from kiln.ir.program import CheckSite, Slot
from kiln.ir.types import Dim, DType, Sym, TensorType

T = TypeVar("T")
OPTIONS: Final = ("-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true", "--std=c++17")
"""Compiler options that the numerics contract needs."""
MOST_WORDS: Final = 512
"""How many 64-bit arguments a kernel can take: 4096 bytes."""
MOST_BLOCKS: Final = 2**31 - 1
"""What a grid may have along its first dimension; kernels stride by the grid, so fewer blocks than wanted are right."""


@dataclass(frozen=True, slots=True)
class CudaText:
    """A kernel as text: its function and the helpers that this calls, `threads` per block, and the number of blocks
    as an expression over the kernel's scalar parameters. With `has_checks` its last parameter is the error record:
    three int64, of which the first is 0 until a check fails; then the check's number and the value follow."""

    name: str
    function: str
    helpers: tuple[str, ...]
    threads: int
    blocks: Expr
    has_checks: bool

    @property
    def source(self) -> str:
        """The whole text, for NVRTC with the options `OPTIONS`."""
        return "\n".join([*self.helpers, self.function])


@dataclass(frozen=True, slots=True)
class Memory:
    """A pointer argument: `offset` bytes into what `kind` and `index` name. kind: "input", "output", "constant",
    "arena", "local" (one value in the arena, where sizes are symbolic: `CudaProgram.locals`), "workspace"
    (`CudaProgram.workspaces`), "pointer" (which a `Loop` moves), or "dense" (a copy that a `Product` makes)."""

    kind: str
    index: int = 0
    offset: int = 0

    def __str__(self) -> str:
        name = self.kind if self.kind == "arena" else f"{self.kind}{self.index}"
        return name + (f"+{self.offset}" if self.offset else "")


@dataclass(frozen=True, slots=True)
class Workspace:
    """Memory for the launches of one step: its elements, over the sizes of the program."""

    dtype: DType
    size: Expr


@dataclass(frozen=True, slots=True)
class Piece:
    """What a launch of several pieces does for one node: in `blocks` blocks of its own, for the line `loc`."""

    blocks: Expr
    loc: SourceLoc | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch: arguments are pointers and int64 sizes (a `Sym` may be a product, "k*n"); `error` says that
    the error record follows them. `loc`: the user's line that it computes.

    With `pieces` all this is one parameter, a table of 64-bit words (`words`): the number of the grid's first block (0,
    as long as all pieces are launched together), that of pieces, the `common` arguments that all pieces take, for each
    piece the number of its first block and the arguments of its own, and the number of all blocks."""

    kernel: str
    threads: int
    blocks: Expr
    args: tuple[Memory | Dim, ...]
    error: bool
    loc: SourceLoc | None = None
    pieces: tuple[Piece, ...] = ()
    common: int = 0

    @property
    def own(self) -> int:
        """How many arguments are each piece's own."""
        return (len(self.args) - self.common) // len(self.pieces)

    def numbers(self, sizes: Mapping[str, int]) -> list[int]:
        """0, how many pieces there are, the numbers of their first blocks, and that of all blocks."""
        blocks = [number(p.blocks, sizes) for p in self.pieces]
        return [0, len(blocks), *itertools.accumulate(blocks, initial=0)]

    def words(self, numbers: Sequence[T], args: Sequence[T]) -> list[T]:
        """The table of what `numbers` and the arguments are."""
        first = list(args[: self.common])
        rows = [args[k : k + self.own] for k in range(self.common, len(args), self.own)]
        each = [x for n, row in zip(numbers[2:], rows, strict=False) for x in (n, *row)]
        return [*numbers[:2], *first, *each, numbers[-1]]

    def firsts(self) -> range:
        """Where the table has the numbers of first blocks, and last that of all blocks."""
        start, step = 2 + self.common, 1 + self.own
        return range(start, start + step * len(self.pieces) + 1, step)

    def __str__(self) -> str:
        args = [str(a) for a in self.args] + ["error"] * self.error
        head = f"{self.kernel}<<<{formula(self.blocks)}, {self.threads}>>>"
        if not self.pieces:
            return f"{head}({', '.join(args)})"
        lines = [f"{head}({', '.join(args[: self.common])}) in {len(self.pieces)} pieces"]
        for k, piece in enumerate(self.pieces):
            own = args[self.common + self.own * k : self.common + self.own * (k + 1)]
            lines.append(f"     {formula(piece.blocks)}: {', '.join(own)}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Look:
    """The host waits for the launches so far and reads the error record. When a check has failed, the run ends here:
    what follows overwrites an input, is decided by data, or is the end."""

    def __str__(self) -> str:
        return "check error"


@dataclass(frozen=True, slots=True)
class Matrix:
    """An operand of a `Product`: a stack of matrices, with strides in elements. The library is given their rows, or
    with `turned` their columns, one after the other in memory. Where they do not lie so, `dense` copies them to a place
    where they do, without gaps: it takes the matrices, Memory("dense"), and sizes."""

    memory: Memory
    strides: tuple[Dim, ...]
    turned: bool
    dense: Launch

    def __str__(self) -> str:
        return f"{self.memory} [{', '.join(map(str, self.strides))}]" + " turned" * self.turned


@dataclass(frozen=True, slots=True)
class Product:
    """Matrix products by a library: [*batch, m, k] times [*batch, k, n], elements of `dtype`, accumulated in at least
    float32 in an order that depends on these sizes, the types, and which operands are turned, not on where they lie.
    The result is row-major, of elements `out`. `bias`: [*batch, n], added to every row before rounding. With `tf32` the
    library may round elements of float32 to 10 bits before it multiplies them."""

    left: Matrix
    right: Matrix
    bias: Matrix | None
    result: Memory
    batch: tuple[Dim, ...]
    m: Dim
    n: Dim
    k: Dim
    dtype: DType
    out: DType
    tf32: bool
    loc: SourceLoc | None = None

    @property
    def operands(self) -> tuple[Matrix, ...]:
        """All that it reads."""
        return (self.left, self.right, *([self.bias] if self.bias else []))

    def __str__(self) -> str:
        sizes = ", ".join(map(str, (*self.batch, self.m, self.n)))
        text = f"product {self.left} @ {self.right}" + (f" + {self.bias}" if self.bias else "")
        return f"{text} -> {self.result}: {self.out}[{sizes}], k {self.k} of {'tf32' if self.tf32 else self.dtype}"


@dataclass(frozen=True, slots=True)
class Array:
    """A whole value in memory: its type, whose sizes are known, and its strides in elements."""

    memory: Memory
    type: TensorType
    strides: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.memory}: {self.type}"


@dataclass(frozen=True, slots=True)
class HostCall:
    """A step that a library carries out on the host (`ir.ops.base.Library`, by name): the operands are copied to the
    host, the results, which are row-major, from there. `check` is the position in `CudaProgram.checks` of what it means
    when the library refuses (`LibraryError`, whose message is then the check's); nothing has been written then."""

    op: str
    attrs: tuple[tuple[str, AttrValue], ...]
    operands: tuple[Array, ...]
    results: tuple[Array, ...]
    check: int

    def __str__(self) -> str:
        return f"host {self.op}({', '.join(map(str, self.operands))}) -> {', '.join(map(str, self.results))}"


@dataclass(frozen=True, slots=True)
class Branch:
    """One of two runs of steps, by the bool (a byte, not 0) at `pred`, which the host reads."""

    pred: Memory
    then: tuple[CudaStep, ...]
    other: tuple[CudaStep, ...]

    def __str__(self) -> str:
        return f"if {self.pred}"


@dataclass(frozen=True, slots=True)
class Carried:
    """A value of `nbytes` that a loop carries. Pointer `read` is where a turn reads it: at `source` in the first turn,
    then where the turn before has written. Pointer `written` is where a turn writes it: `first`, `second`, `first`, and
    so on. After the last turn the value is copied to `first` if it is not there (as after no turn at all)."""

    read: int
    written: int
    source: Memory
    first: Memory
    second: Memory
    nbytes: int


@dataclass(frozen=True, slots=True)
class Sliced:
    """What a loop walks along: in the turn of slice k, pointer `pointer` is `start` plus `pace` * k bytes."""

    pointer: int
    start: Memory
    pace: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Turns of `body`. With `pred`: `test` before each turn, and where the bool at `pred` is then false, the loop has
    ended. Without: `length` turns, of slices 0 to length - 1, or from the last one with `reverse`. The pointers are set
    before `test`, and hold for it too."""

    test: tuple[CudaStep, ...]
    pred: Memory | None
    body: tuple[CudaStep, ...]
    carried: tuple[Carried, ...]
    sliced: tuple[Sliced, ...]
    length: int
    reverse: bool

    def __str__(self) -> str:
        parts = [f"pointer{c.read}/{c.written} = {c.source} then {c.first}, {c.second}" for c in self.carried]
        parts += [f"pointer{s.pointer} = {s.start} by {s.pace}" for s in self.sliced]
        turns = f"while {self.pred}" if self.pred else f"{self.length} times" + " backwards" * self.reverse
        return f"loop {turns} ({', '.join(parts)})"


CudaStep: TypeAlias = "Launch | Product | Look | HostCall | Branch | Loop"


@dataclass(frozen=True, slots=True)
class CudaProgram:
    """A compiled program: kernels by name, steps in order, and what memory they need."""

    name: str
    kernels: tuple[CudaText, ...]
    steps: tuple[CudaStep, ...]
    slots: tuple[Slot, ...]
    input_types: tuple[TensorType, ...]
    output_types: tuple[TensorType, ...]
    aliases: tuple[tuple[int, int], ...]  # (output, input): that output is written to that input's memory
    arena_bytes: int
    locals: tuple[Local, ...]
    """What lies in the arena where sizes are symbolic: `ir.arena.place` finds the places and the bytes of all."""
    workspaces: tuple[Workspace, ...]
    constants: tuple[Constant, ...]
    checks: tuple[CheckSite, ...]
    pointers: int = 0
    """How many pointers loops move."""

    @property
    def launches(self) -> tuple[Launch, ...]:
        """All launches, once each, those in branches and loops among them."""
        return tuple(step for step in every(self.steps) if isinstance(step, Launch))

    @property
    def products(self) -> tuple[Product, ...]:
        """All products of the library, once each, in the same order."""
        return tuple(step for step in every(self.steps) if isinstance(step, Product))

    def plan(self) -> str:
        """The host's part: memory, then the steps."""
        lines = [f"arena: {self.arena_bytes:,} bytes"]
        lines += [f"local{k}: {v.nbytes} bytes in steps {v.born} to {v.dies}" for k, v in enumerate(self.locals)]
        for k, w in enumerate(self.workspaces):
            lines.append(f"workspace{k}: {w.dtype}[{formula(w.size)}]")
        return "\n".join(lines + _lines(self.steps, ""))

    def source(self) -> str:
        """The text of all kernels."""
        helpers = dict.fromkeys(h for k in self.kernels for h in k.helpers)
        return "\n".join([*helpers, *(k.function for k in self.kernels)])

    def __str__(self) -> str:
        return f"// nvrtc {' '.join(OPTIONS)}\n\n{self.source()}\n/* launches\n{self.plan()}\n*/\n"


def parts(step: CudaStep) -> tuple[tuple[str, tuple[CudaStep, ...]], ...]:
    """The runs of steps that a step holds, by name."""
    if isinstance(step, Branch):
        return (("then", step.then), ("else", step.other))
    if isinstance(step, Loop):
        return ((("test", step.test),) if step.pred else ()) + (("body", step.body),)
    return ()


def every(steps: Sequence[CudaStep]) -> Iterator[CudaStep]:
    """All steps, those inside others after them."""
    for step in steps:
        yield step
        for _, inner in parts(step):
            yield from every(inner)


def _lines(steps: Sequence[CudaStep], indent: str) -> list[str]:
    lines = []
    for k, step in enumerate(steps):
        lines.append(f"{indent}{k:4} " + str(step).replace("\n", f"\n{indent}"))
        for name, inner in parts(step):
            lines += [f"{indent}     {name}", *_lines(inner, indent + "    ")]
    return lines


_SIGNS: Final = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%"}


def formula(e: Expr) -> str:
    """An expression over sizes, as text."""
    if isinstance(e, L.Const):
        return str(e.value)
    if isinstance(e, L.Var):
        return e.name
    assert isinstance(e, L.Apply), type(e).__name__
    args = [formula(a) for a in e.args]
    return f"({args[0]} {_SIGNS[e.fn]} {args[1]})" if e.fn in _SIGNS else f"{e.fn}({', '.join(args)})"


def number(e: Expr | Dim, sizes: Mapping[str, int]) -> int:
    """An expression over sizes, or a dimension, as a number."""
    if isinstance(e, int):
        return e
    if isinstance(e, L.Const):
        return int(e.value)
    if isinstance(e, L.Var | Sym):
        total = 1
        for factor in e.name.split("*"):
            total *= int(factor) if factor.isdigit() else sizes[factor]
        return total
    assert isinstance(e, L.Apply), type(e).__name__
    a, b = (number(x, sizes) for x in e.args)
    if e.fn in ("div", "mod"):
        quotient = 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if e.fn == "div" else (0 if b == 0 else a - quotient * b)
    return {"add": a + b, "sub": a - b, "mul": a * b, "max": max(a, b), "min": min(a, b)}[e.fn]
