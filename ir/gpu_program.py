"""`CudaProgram`: a graph as CUDA C texts and the plan of their launches. Plain data, for whoever has a GPU.

A run takes the memory of the inputs, allocates the outputs, one arena and the workspaces, and issues the launches in
order on one stream; each sees what those before it have stored. A launch of zero blocks is left out. Kernels compiled
with other options than `OPTIONS` do not have the bits that are promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kiln.ir import loops as L
from kiln.ir.graph import Constant
from kiln.ir.loops import Expr
from kiln.ir.program import CheckSite, Slot
from kiln.ir.types import Dim, DType, Sym, TensorType

OPTIONS: Final = ("-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true", "--std=c++17")
"""Compiler options that the numerics contract needs."""
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
    "arena", or "workspace" (`CudaProgram.workspaces`)."""

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
class Launch:
    """One kernel launch: arguments are pointers and int64 sizes (a `Sym` may be a product, "k*n"); `error` says that
    the error record follows them."""

    kernel: str
    threads: int
    blocks: Expr
    args: tuple[Memory | Dim, ...]
    error: bool

    def __str__(self) -> str:
        args = ", ".join([*map(str, self.args), *(["error"] if self.error else [])])
        return f"{self.kernel}<<<{formula(self.blocks)}, {self.threads}>>>({args})"


@dataclass(frozen=True, slots=True)
class CudaProgram:
    """A compiled program: kernels by name, launches in order, and what memory they need."""

    name: str
    kernels: tuple[CudaText, ...]
    launches: tuple[Launch, ...]
    slots: tuple[Slot, ...]
    input_types: tuple[TensorType, ...]
    output_types: tuple[TensorType, ...]
    aliases: tuple[tuple[int, int], ...]  # (output, input): that output is written to that input's memory
    arena_bytes: int
    workspaces: tuple[Workspace, ...]
    constants: tuple[Constant, ...]
    checks: tuple[CheckSite, ...]

    def plan(self) -> str:
        """The host's part: memory, then the launches. `check error` stands where the host must look at the error
        record before it goes on, since what follows overwrites an input."""
        lines = [f"arena: {self.arena_bytes:,} bytes"]
        for k, w in enumerate(self.workspaces):
            lines.append(f"workspace{k}: {w.dtype}[{formula(w.size)}]")
        written = {Memory("input", i) for _, i in self.aliases} | {Memory("output", o) for o, _ in self.aliases}
        unchecked = False
        for k, launch in enumerate(self.launches):
            if unchecked and written & {Memory(a.kind, a.index) for a in launch.args if isinstance(a, Memory)}:
                lines.append("     check error")
                unchecked = False
            lines.append(f"{k:4} {launch}")
            unchecked = unchecked or launch.error
        if unchecked:
            lines.append("     check error")
        return "\n".join(lines)

    def source(self) -> str:
        """The text of all kernels."""
        helpers = dict.fromkeys(h for k in self.kernels for h in k.helpers)
        return "\n".join([*helpers, *(k.function for k in self.kernels)])

    def __str__(self) -> str:
        return f"// nvrtc {' '.join(OPTIONS)}\n\n{self.source()}\n/* launches\n{self.plan()}\n*/\n"


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
