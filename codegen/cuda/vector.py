"""Several neighbouring points per thread, 16 bytes per access: the form of elementwise loops whose memory is dense.

A thread takes the chunk [first, first + lanes) of the innermost loop. What is read at neighbouring places comes to
registers first, by `Move`, the points are computed one by one in an unrolled loop, and what they store goes to memory
by `Move` again. A chunk at the end of a row, or at an address that does not allow it, moves element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kiln.codegen.cuda.chains import WEIGHT, weight
from kiln.ir import loops as L
from kiln.ir.loops import INDEX, Alloc, Block, Buffer, Expr, For, If, Let, Load, Store, Var
from kiln.ir.loops_gpu import Move
from kiln.ir.loops_walk import expr_children, reachable, stmt_exprs, substituted

BYTES: Final = 16
"""The widest access."""
CHUNKS: Final = 2
"""Those of a thread, where there are many: enough bytes are then on their way."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a thread computes: the first point along the innermost loop, the variables of the loops around it by those
    of the kernel, and whether there is such a chunk (None: there is)."""

    first: Expr
    around: dict[Expr, Expr]
    exists: Expr | None


@dataclass(frozen=True, slots=True)
class Chunks:
    """`lanes` neighbouring points of the innermost loop, at most `many` times; `block` computes them."""

    lanes: int
    many: int
    block: Callable[[Sequence[Chunk]], Block]


def vectorised(loop: For, alone: bool, inside: Block, fresh: Callable[[str], Var]) -> Chunks | None:
    """How a thread takes several points of `loop`, whose body is `inside`. None where that has no form, or is worth
    nothing. `alone`: there are no loops around it, whose rounds would begin at addresses that do not allow wide
    accesses."""
    lets = {s.var: s.value for s in inside if isinstance(s, Let)}
    stores = [s for s in inside if isinstance(s, Store)]
    if len(lets) + len(stores) != len(inside):
        return None
    if any(s.mask is not None or step(s.buffer, s.indices, loop.var, lets) != 1 for s in stores):
        return None
    every = reachable([e for s in inside for e in stmt_exprs(s)])
    moved, rest = [], False
    for e in every:
        if isinstance(e, Load):
            found = None if e.mask is not None else step(e.buffer, e.indices, loop.var, lets)
            if found == 1:
                moved.append(e)
            rest = rest or found not in (0, 1)
    sizes = [b.dtype.itemsize for b in (*(e.buffer for e in moved), *(s.buffer for s in stores))]
    lanes = BYTES // max(sizes)
    work = weight(every)
    extent = int(loop.hi.value) if isinstance(loop.hi, L.Const) else None

    def fits(lanes: int) -> bool:
        return extent is None or (extent >= lanes if alone else extent % lanes == 0)

    while lanes > 1 and not (lanes * work <= WEIGHT and fits(lanes)):
        lanes //= 2
    if lanes < 2:
        return None
    many = CHUNKS if CHUNKS * lanes * work <= WEIGHT else 1
    return Chunks(lanes, many, lambda chunks: _block(loop, inside, moved, rest, lanes, chunks, fresh))


def _block(
    loop: For,
    inside: Block,
    moved: Sequence[Load],
    rest: bool,
    lanes: int,
    chunks: Sequence[Chunk],
    fresh: Callable[[str], Var],
) -> Block:
    """All that chunks read comes first, so that they wait for memory together."""
    got, done = list[L.Stmt](), list[L.Stmt]()
    for chunk in chunks:
        get, compute = _chunk(loop, inside, moved, rest, lanes, chunk, fresh)
        got += get
        done += compute
    return (*got, *done)


def _chunk(
    loop: For,
    inside: Block,
    moved: Sequence[Load],
    rest: bool,
    lanes: int,
    chunk: Chunk,
    fresh: Callable[[str], Var],
) -> tuple[Block, Block]:
    """What reads a chunk, and what computes and writes it."""
    count, lane = fresh("count"), fresh("lane")
    left = L.sub(loop.hi, chunk.first)
    out: list[L.Stmt] = [Let(count, left if chunk.exists is None else L.select(chunk.exists, left, L.index(0)))]
    at_first: dict[Expr, Expr] = {**chunk.around, loop.var: chunk.first}
    at_lane: dict[Expr, Expr] = {**chunk.around, loop.var: L.add(chunk.first, lane)}
    put: list[L.Stmt] = []
    points: list[L.Stmt] = []

    def registers(of: Buffer) -> Buffer:
        made = Buffer(f"{of.name}_{fresh('part').name}", of.dtype, (lanes,), (1,), "register")
        out.append(Alloc(made))
        return made

    def there(e: Expr) -> Expr:
        return substituted(e, at_first)

    for s in inside:
        if isinstance(s, Let):
            at_first[s.var] = there(s.value)
    for e in moved:
        part = registers(e.buffer)
        out.append(Move(e.buffer, tuple(map(there, e.indices)), part, count, False))
        at_lane[e] = L.load(part, (lane,))
    for s in inside:
        if isinstance(s, Let):
            at_lane[s.var] = substituted(s.value, at_lane)
        elif isinstance(s, Store):
            part = registers(s.buffer)
            points.append(Store(part, (lane,), substituted(s.value, at_lane)))
            put.append(Move(s.buffer, tuple(map(there, s.indices)), part, count, True))
    body = (If(L.apply("lt", lane, count), tuple(points)),) if rest else tuple(points)
    return tuple(out), (For("unrolled", lane, L.index(0), L.index(lanes), body), *put)


def step(buffer: Buffer, indices: Sequence[Expr], var: Var, lets: dict[Var, Expr]) -> int | None:
    """By how many elements the place that is indexed moves with `var`; None where that is not one number."""
    total, known = 0, dict[Expr, "int | None"]()
    for i, stride in zip(indices, buffer.strides, strict=True):
        each = slope(i, var, lets, known)
        if each is None or (each != 0 and not isinstance(stride, int)):
            return None
        total += each * stride if isinstance(stride, int) else 0
    return total


def slope(e: Expr, var: Var, lets: dict[Var, Expr], known: dict[Expr, int | None]) -> int | None:
    """By how much an index grows when `var` grows by 1; None where that is not one number."""
    if e not in known:
        known[e] = _slope(e, var, lets, known)
    return known[e]


def _slope(e: Expr, var: Var, lets: dict[Var, Expr], known: dict[Expr, int | None]) -> int | None:
    if isinstance(e, Var):
        return 1 if e is var else slope(lets[e], var, lets, known) if e in lets else 0
    parts = [slope(x, var, lets, known) for x in expr_children(e)]
    if all(p == 0 for p in parts):
        return 0
    if isinstance(e, L.Apply) and e.type == INDEX and None not in parts:
        a, b = (*parts, 0)[:2]
        assert a is not None and b is not None
        if e.fn == "add":
            return a + b
        if e.fn == "sub":
            return a - b
        if e.fn == "mul" and isinstance(e.args[1], L.Const):
            return a * int(e.args[1].value)
        if e.fn == "mul" and isinstance(e.args[0], L.Const):
            return b * int(e.args[0].value)
    return None
