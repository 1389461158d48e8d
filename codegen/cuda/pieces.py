"""Several launches as one kernel: its blocks are shared out among *pieces*, each with arguments of its own.

Launches are of one *form* if their texts differ in nothing but numbers: int64 literals (sizes, strides) and the names
of symbolic sizes. Such pieces share one body. What differs between them lies in a table, the kernel's only parameter
(`ir.gpu_program.Launch` says in which order); a block finds its piece in it, and then does what a block of the launch
by itself would do. So there is one text however many pieces there are, and no bit changes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kiln.codegen.cuda.chains import Scheduled, parts
from kiln.codegen.cuda.emit import Emitter
from kiln.codegen.cuda.literals import literal
from kiln.codegen.cuda.prelude import HELPERS
from kiln.ir import gpu_program as G
from kiln.ir import loops as L
from kiln.ir.graph import SourceLoc
from kiln.ir.loops import INDEX, Const, Expr, For
from kiln.ir.types import Dim

_NUMBER: Final = re.compile("\0(\\d+)\0")
"""The place of a number in the text of a form."""
_STRIDE: Final = "\1"
"""The place of the number of threads."""
_OWN: Final = ("table", "here", "piece", "block", "blocks")
"""Names of the kernel around the body."""
_LEAST_WORDS: Final = 64
ENOUGH: Final = 1 << 18
"""Threads of a launch that keeps a GPU busy, where dividing by what is not a literal costs more than a launch."""


@dataclass(frozen=True, slots=True)
class Form:
    """What launches have in common that can be pieces of one. `params`: types and names. `threads`: 0 if any number
    will do. `fixed`: numbers that have to be equal, too."""

    params: tuple[tuple[str, str], ...]
    body: str
    helpers: tuple[str, ...]
    threads: int
    fixed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Formed:
    """A launch as its form and the rest. `points`: how many threads have something to do, where the form leaves open
    how many of them are a block; `blocks` otherwise."""

    form: Form
    numbers: tuple[int, ...]
    threads: int
    points: Expr | None
    blocks: Expr

    def grid(self, threads: int) -> Expr:
        """Blocks of so many threads."""
        return self.blocks if self.points is None else parts(self.points, threads)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece: its launch, the arguments, and the user's line."""

    formed: Formed
    args: tuple[G.Memory | Dim, ...]
    loc: SourceLoc | None


def formed(scheduled: Scheduled, bounds: bool) -> Formed | None:
    """The form of a launch; None if it can't be a piece, since it checks something."""
    return _Former(bounds).formed(scheduled)


class _Former(Emitter):
    """Writes a launch as ever, but marks in place of numbers."""

    def __init__(self, bounds: bool) -> None:
        super().__init__(bounds)
        self._taken.update(_OWN)
        self._literal = self._marked
        self._numbers: list[int] = []
        self._free = False

    def formed(self, scheduled: Scheduled) -> Formed | None:
        grid = scheduled.kernel.body[0]
        points = None
        if isinstance(grid, For) and grid.kind == "grid" and 1 < grid.step == scheduled.threads:
            self._free, points = True, grid.hi
        params = self._parameters(scheduled.kernel, "size")
        self._block(scheduled.kernel.body)
        if self._checks:
            return None
        body, numbers = "\n".join(self._lines), tuple(self._numbers)
        large = isinstance(scheduled.blocks, L.Const) and int(scheduled.blocks.value) * scheduled.threads >= ENOUGH
        divides = bool(self._helpers & {"k_div_i64", "k_mod_i64"})
        helpers = tuple(HELPERS[name] for name in HELPERS if name in self._helpers | {"k_table"})
        threads = 0 if self._free else scheduled.threads
        form = Form(tuple(params), body, helpers, threads, numbers if large and divides else ())
        return Formed(form, numbers, scheduled.threads, points, scheduled.blocks)

    def _marked(self, e: Const) -> str:
        if e.type != INDEX:
            return literal(e)
        self._numbers.append(int(e.value))
        return f"\0{len(self._numbers) - 1}\0"

    def _fresh(self, name: str) -> str:
        return super()._fresh(name + "_" if re.fullmatch(r"w\d+", name) else name)  # which are numbers of the table

    def _grid(self, s: For) -> tuple[str, str]:
        if s.step == 1:
            return "block", "blocks"
        step = _STRIDE if self._free else str(s.step)
        return f"block * {step} + threadIdx.x", f"blocks * {step}"


@dataclass(frozen=True, slots=True)
class _Column:
    """A word of the table for every piece, and its declaration in the kernel, up to the word itself."""

    head: str
    values: tuple[G.Memory | Dim, ...]

    @property
    def common(self) -> bool:
        return len(set(self.values)) == 1


def together(all_parts: Sequence[Part]) -> list[tuple[G.CudaText, G.Launch]] | None:
    """Launches, with their kernels, that do what these parts of one form do, as few as arguments allow; None if that is
    one for each. Kernels are named "kernel"."""
    form, threads = all_parts[0].formed.form, max(p.formed.threads for p in all_parts)
    columns, body = _columns(form, all_parts)
    body = body.replace(_STRIDE, str(threads))
    common, own = [c for c in columns if c.common], [c for c in columns if not c.common]
    most = (G.MOST_WORDS - 3 - len(common)) // (len(own) + 1)
    if most < 2:
        return None
    count = -(-len(all_parts) // most)
    ends = [len(all_parts) * k // count for k in range(count + 1)]
    found = []
    for start, end in itertools.pairwise(ends):
        chosen = all_parts[start:end]
        words = _words(len(chosen), len(common), len(own))
        text = _text(form, threads, words, common, own, body)
        pieces = tuple(G.Piece(_capped(p.formed.grid(threads), len(chosen)), p.loc) for p in chosen)
        total: Expr = L.index(0)
        for p in pieces:
            total = L.add(total, p.blocks)
        args = [c.values[0] for c in common] + [c.values[k] for k in range(start, end) for c in own]
        made = G.CudaText("kernel", text, form.helpers, threads, total, False)
        found.append((made, G.Launch("kernel", threads, total, tuple(args), False, chosen[0].loc, pieces, len(common))))
    return found


def _columns(form: Form, all_parts: Sequence[Part]) -> tuple[list[_Column], str]:
    """What the table holds, and the body with the names of that, and with literals where pieces do not differ."""
    columns = []
    for k, (kind, name) in enumerate(form.params):
        if re.search(rf"\b{name}\b", form.body):
            cast = f"({kind.strip()})" if kind.endswith("*") else ""
            columns.append(_Column(f"{kind}{name} = {cast}", tuple(p.args[k] for p in all_parts)))
    known: dict[tuple[int, ...], str] = {}

    def number(found: re.Match[str]) -> str:
        values = tuple(p.formed.numbers[int(found[1])] for p in all_parts)
        if len(set(values)) == 1:
            return literal(L.index(values[0]))
        if values not in known:
            known[values] = f"w{len(known)}"
            columns.append(_Column(f"const long long {known[values]} = ", values))
        return known[values]

    return columns, _NUMBER.sub(number, form.body)


def _text(form: Form, threads: int, words: int, common: Sequence[_Column], own: Sequence[_Column], body: str) -> str:
    start = 2 + len(common)
    lines = [
        f'extern "C" __global__ void __launch_bounds__({threads}, 1)',
        f"kernel(const k_table<{words}> table)",
        "{",
        "    const long long here = table.at[0] + blockIdx.x;",
        f"    const int piece = k_piece(table, here, {start}, {1 + len(own)});",
        "    const long long block = here - table.at[piece];",
        f"    const long long blocks = table.at[piece + {1 + len(own)}] - table.at[piece];",
    ]
    lines += [f"    {c.head}table.at[{2 + k}];" for k, c in enumerate(common)]
    lines += [f"    {c.head}table.at[piece + {1 + k}];" for k, c in enumerate(own)]
    return "\n".join([*lines, body, "}", ""])


def _words(pieces: int, common: int, own: int) -> int:
    """The length of a table, rounded up, so that there are few texts for many numbers of pieces."""
    least, found = 3 + common + (1 + own) * pieces, _LEAST_WORDS
    while found < least:
        found *= 2
    return found


def _capped(blocks: Expr, pieces: int) -> Expr:
    """Fewer than a grid has for all pieces; each strides by its own."""
    most = G.MOST_BLOCKS // pieces
    if isinstance(blocks, L.Const):
        return L.index(min(int(blocks.value), most))
    return L.apply("min", blocks, L.index(most))
