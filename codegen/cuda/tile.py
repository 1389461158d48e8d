"""Transposes: elementwise loops that write along one dimension of memory and read along another.

A block of threads takes a SIDE x SIDE tile of the two dimensions. What lies the other way comes to shared memory
first, read along its own dimension; then the threads walk the tile along the written one. Both ways neighbouring
threads access neighbouring memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kiln.codegen.blocks import conjunction
from kiln.codegen.cuda.vector import step
from kiln.ir import loops as L
from kiln.ir.loops import Alloc, Barrier, Block, Buffer, Expr, For, If, Let, Load, Stmt, Store, Var
from kiln.ir.loops_walk import reachable, stmt_exprs, substituted

SIDE: Final = 32
THREADS: Final = 256
FEW: Final = 16
"""Dimensions of fewer elements are not worth a tile."""
ROOM: Final = 40 << 10
"""Bytes of shared memory for all tiles of a kernel."""


@dataclass(frozen=True, slots=True)
class Crossed:
    """Loops `loops[across]`, along which `loads` lie, and the last one, along which everything is written."""

    loops: Sequence[For]
    across: int
    loads: tuple[Load, ...]


def crossed(loops: Sequence[For], inside: Block) -> Crossed | None:
    """What of a nest of independent loops is read across; None if nothing is, or where there is no form."""
    if len(loops) < 2 or not all(isinstance(s, Let | Store) for s in inside):
        return None
    lets = {s.var: s.value for s in inside if isinstance(s, Let)}
    stores = [s for s in inside if isinstance(s, Store)]
    if any(s.mask is not None or step(s.buffer, s.indices, loops[-1].var, lets) != 1 for s in stores):
        return None
    found: dict[int, list[Load]] = {}
    for e in reachable([e for s in inside for e in stmt_exprs(s)]):
        if not isinstance(e, Load) or e.mask is not None or step(e.buffer, e.indices, loops[-1].var, lets) in (0, 1):
            continue
        along = [k for k, loop in enumerate(loops[:-1]) if step(e.buffer, e.indices, loop.var, lets) == 1]
        if along and not any(isinstance(x, Load) for i in e.indices for x in reachable([i])):
            found.setdefault(along[-1], []).append(e)
    if not found:
        return None
    across = max(found, key=lambda k: len(found[k]))
    extents = (loops[across].hi, loops[-1].hi)
    short = any(isinstance(n, L.Const) and int(n.value) < FEW for n in extents)
    nbytes = sum(SIDE * (SIDE + 1) * e.dtype.itemsize for e in found[across])
    return None if short or nbytes > ROOM else Crossed(loops, across, tuple(found[across]))


def tile(
    c: Crossed, inside: Block, first: tuple[Expr, Expr], thread: Var, fresh: Callable[[str], Var]
) -> tuple[Block, Block]:
    """The allocations, and what a block of threads does for the tile whose first point is `first` (of the loop
    across, and of the last one)."""
    rows, columns = c.loops[c.across], c.loops[-1]
    lets = [s for s in inside if isinstance(s, Let)]
    tiles = [Buffer(f"tile{k}", e.dtype, (SIDE, SIDE + 1), (SIDE + 1, 1), "shared") for k, e in enumerate(c.loads)]

    def walk(across_fastest: bool, body: Callable[[dict[Expr, Expr], Expr, Expr], Sequence[Stmt]]) -> For:
        """Each thread's points of the tile: `body` for those that exist."""
        point, fast, slow = fresh("point"), fresh("fast"), fresh("slow")
        row, column = (fast, slow) if across_fastest else (slow, fast)
        at_row, at_column = fresh("row"), fresh("column")
        memo: dict[Expr, Expr] = {rows.var: at_row, columns.var: at_column}
        for s in lets:
            memo[s.var] = substituted(s.value, memo)
        exists = conjunction(L.apply("lt", at_row, rows.hi), L.apply("lt", at_column, columns.hi))
        block = (
            Let(fast, L.apply("and", point, L.index(SIDE - 1))),
            Let(slow, L.apply("shr", point, L.index(SIDE.bit_length() - 1))),
            Let(at_row, L.add(first[0], row)),
            Let(at_column, L.add(first[1], column)),
            If(exists, tuple(body(memo, row, column))),
        )
        return For("serial", point, thread, L.index(SIDE * SIDE), block, THREADS)

    def bring(memo: dict[Expr, Expr], row: Expr, column: Expr) -> list[Stmt]:
        return [Store(t, (column, row), substituted(e, memo)) for t, e in zip(tiles, c.loads, strict=True)]

    def compute(memo: dict[Expr, Expr], row: Expr, column: Expr) -> list[Stmt]:
        memo = {x: y for x, y in memo.items() if x in (rows.var, columns.var)}
        memo.update((e, L.load(t, (column, row))) for t, e in zip(tiles, c.loads, strict=True))
        out: list[Stmt] = []
        for s in inside:
            if isinstance(s, Let):
                memo[s.var] = substituted(s.value, memo)
            elif isinstance(s, Store):
                indices = tuple(substituted(i, memo) for i in s.indices)
                out.append(Store(s.buffer, indices, substituted(s.value, memo)))
        return out

    return tuple(map(Alloc, tiles)), (walk(True, bring), Barrier(), walk(False, compute), Barrier())
