"""Rows that are read once: a block of threads brings them to shared memory, 16 bytes per access, before it walks them.

What the row loops of a kernel read at neighbouring places of memory comes there when the row begins; each pass over the
row then reads it there. Where the length of a row is symbolic, one that is too long is read where it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from kiln.codegen.cuda.vector import BYTES, reachable, step
from kiln.ir import loops as L
from kiln.ir.loops import Alloc, Barrier, Block, Buffer, Expr, For, If, Let, Load, Reduce, Stmt, Store, Var
from kiln.ir.loops_gpu import Move
from kiln.ir.loops_walk import map_expr, stmt_blocks, stmt_exprs, walk

MOST: Final = 1 << 14
"""Bytes of a row that are kept, where its length is symbolic."""
ROOM: Final = 40 << 10
"""Bytes of shared memory for all rows of a kernel."""
SHORT: Final = 128
"""Rows of fewer elements are read where they lie."""


@dataclass
class _Row:
    """A row that is read: by which loads, with which loop variable."""

    buffer: Buffer
    extent: Expr
    indices: tuple[Expr, ...]
    var: Var
    loads: list[tuple[Load, Var]] = field(default_factory=list)


def staged(
    inside: Block, written: set[Buffer], known: set[Var], thread: Var, threads: int, fresh: Callable[[str], Var]
) -> tuple[Block, Block, Block]:
    """Allocations, what brings rows to shared memory, and `inside` reading them there. `written`: buffers that the
    kernel writes. `known`: the variables around."""
    rows = _rows(inside, written, known)
    room = ROOM - sum(_nbytes(s.buffer) for s in inside if isinstance(s, Alloc))
    allocs: list[Stmt] = []
    bring: list[Stmt] = []
    memo: dict[Expr, Expr] = {}
    for row in sorted(rows, key=lambda row: -len(row.loads)):
        size = row.buffer.dtype.itemsize
        static = int(row.extent.value) if isinstance(row.extent, L.Const) else None
        length = MOST // size if static is None else static
        if length * size > min(room, MOST) or length < SHORT:
            continue
        room -= length * size
        there = Buffer(f"{row.buffer.name}_{fresh('row').name}", row.buffer.dtype, (length,), (1,), "shared")
        allocs.append(Alloc(there))
        copy = _copy(row, there, thread, threads, fresh)
        fits: Expr | None = None
        if static is not None:
            bring.append(copy)
        else:
            fits = Var(L.BOOL, fresh("fits").name)
            bring += [Let(fits, L.apply("le", row.extent, L.index(length))), If(fits, (copy,))]
        memo.update((load, _read(load, there, var, fits)) for load, var in row.loads)
    if not memo:
        return (), (), inside
    return tuple(allocs), (*bring, Barrier()), tuple(_mapped(s, memo) for s in inside)


def _nbytes(b: Buffer) -> int:
    return b.dtype.itemsize * max(1, *(d for d in b.shape if isinstance(d, int)))


def _copy(row: _Row, there: Buffer, thread: Var, threads: int, fresh: Callable[[str], Var]) -> For:
    lanes = max(1, BYTES // row.buffer.dtype.itemsize)
    at, count = fresh("at"), fresh("count")
    part = Buffer(f"{there.name}_part", there.dtype, (lanes,), (1,), "register")
    indices = tuple(map_expr(i, lambda x: x, {row.var: at}) for i in row.indices)
    body = (
        Let(count, L.sub(row.extent, at)),
        Alloc(part),
        Move(row.buffer, indices, part, count, False),
        Move(there, (at,), part, count, True),
    )
    first = L.mul(thread, L.index(lanes))
    return For("serial", at, first, row.extent, body, step=threads * lanes)


def _read(load: Load, there: Buffer, var: Var, fits: Expr | None) -> Expr:
    if fits is None:
        return L.load(there, (var,))
    far = L.load(load.buffer, load.indices, L.apply("not", fits))
    return L.select(fits, L.load(there, (var,), fits), far)


def _rows(inside: Block, written: set[Buffer], known: set[Var]) -> list[_Row]:
    found: dict[object, _Row] = {}
    for var, extent, body, values in _loops(inside):
        lets = {s.var: s.value for s in walk(body) if isinstance(s, Let)}
        every = reachable([*values, *(e for s in walk(body) for e in _all_exprs(s))])
        for e in every:
            if not isinstance(e, Load) or e.mask is not None or e.buffer.scope != "global" or e.buffer in written:
                continue
            if step(e.buffer, e.indices, var, lets) != 1:
                continue
            free = {x for x in reachable(e.indices) if isinstance(x, Var)} - {var}
            if not free <= known or any(isinstance(x, Load) for x in reachable(e.indices)):
                continue
            key = (e.buffer, _key(extent, var), *(_key(i, var) for i in e.indices))
            found.setdefault(key, _Row(e.buffer, extent, e.indices, var)).loads.append((e, var))
    return list(found.values())


def _loops(block: Block) -> Iterator[tuple[Var, Expr, Block, tuple[Expr, ...]]]:
    """The loops along the row: variable, extent, body, and what is evaluated at its end."""
    for s in block:
        if isinstance(s, Reduce) and s.order == "lanes":
            yield *s.axes[0], s.body, s.values
        elif isinstance(s, For) and s.kind == "vector" and isinstance(s.lo, L.Const) and s.lo.value == 0:
            yield s.var, s.hi, s.body, ()


def _all_exprs(s: Stmt) -> tuple[Expr, ...]:
    return (*stmt_exprs(s), *(e for _, ends in stmt_blocks(s) for e in ends))


def _key(e: Expr, var: Var) -> object:
    """What expressions over different loop variables have in common."""
    if e is var:
        return "var"
    if isinstance(e, L.Const):
        return ("const", e.value)
    if isinstance(e, L.Apply):
        return (e.fn, *(_key(a, var) for a in e.args))
    return e


def _mapped(s: Stmt, memo: dict[Expr, Expr]) -> Stmt:
    """A statement with its expressions replaced."""

    def of(e: Expr) -> Expr:
        return map_expr(e, lambda x: x, memo)

    def block(b: Block) -> Block:
        return tuple(_mapped(x, memo) for x in b)

    match s:
        case Let():
            return Let(s.var, of(s.value))
        case Store():
            mask = None if s.mask is None else of(s.mask)
            return Store(s.buffer, tuple(map(of, s.indices)), of(s.value), mask)
        case If():
            return If(of(s.cond), block(s.then), block(s.orelse))
        case For():
            carried = tuple(replace(c, init=of(c.init), next=of(c.next)) for c in s.carried)
            return replace(s, lo=of(s.lo), hi=of(s.hi), body=block(s.body), carried=carried)
        case L.While():
            carried = tuple(replace(c, init=of(c.init), next=of(c.next)) for c in s.carried)
            return replace(s, test=of(s.test), body=block(s.body), carried=carried)
        case Reduce():
            return replace(s, body=block(s.body), values=tuple(map(of, s.values)))
        case L.Verify():
            return replace(s, ok=of(s.ok), value=of(s.value), mask=None if s.mask is None else of(s.mask))
        case _:
            return s
