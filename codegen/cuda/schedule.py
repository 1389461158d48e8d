"""Logical kernel to GPU kernels: what is launched, which loop becomes the grid, which the threads of a block.

A kernel's workspaces become parameters, and each of its loops, if it is made of several, a launch of its own: the next
one starts when it has ended. Five shapes of launch exist.

*Points* (no row reduction inside): every point of the outer parallel and vector loops is one thread; the loops
become one flat index over a grid of blocks of `POINT_THREADS`. Serial reductions run inside the thread, in the
order of the contract. Where memory is dense, a thread takes several neighbouring points (`vector.py`).

*Tiles* (what is read lies across what is written): a block of threads per tile, through shared memory (`tile.py`).

*Rows* (a "lanes" reduction inside): one block of `ROW_THREADS` = GROUPS x LANES threads per row, so that thread t
carries exactly the accumulator t of the contract's lanes order: the groups meet in shared memory, the lanes by
warp shuffles. A row reduction therefore gives the same bits as on a CPU. A row that a CPU keeps on its stack lies in
shared memory; so do rows that are read (`stage.py`).

*Blocks* (independent loops inside what must run in order): one block of threads per point of the outer loops. All its
threads walk the ordered loops together and share out each independent loop, and meet at its end.

*Owners* (values that meet elements of a table in order, with nothing else to tell them apart): `OWNERS` threads walk
all values, and each stores only those elements whose place it owns. An element's values meet it in ascending order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from kiln.codegen.blocks import ceil_div
from kiln.codegen.cuda.stage import staged
from kiln.codegen.cuda.tile import SIDE, Crossed, crossed, tile
from kiln.codegen.cuda.tile import THREADS as TILE_THREADS
from kiln.codegen.cuda.vector import vectorised
from kiln.codegen.schedule import combine_state
from kiln.ir import loops as L
from kiln.ir.loops import INDEX, Block, Buffer, Expr, For, If, Kernel, Let, Reduce, Stmt, Store, Var
from kiln.ir.loops_walk import expr_children, stmt_blocks, stmt_exprs, walk
from kiln.ir.order import BLOCK, GROUPS, LANES, ROWS, identity
from kiln.ir.types import DType

POINT_THREADS: Final = 256
ROW_THREADS: Final = GROUPS * LANES
BLOCK_THREADS: Final = 256
OWNERS: Final = 4096


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A kernel for one launch: `threads` per block, and how many blocks cover it (an int64 expression over
    the kernel's scalar parameters; more or fewer blocks are right too, the loops stride by the grid). With `rows`,
    the threads of a block share what a CPU would keep on its stack."""

    kernel: Kernel
    threads: int
    blocks: Expr
    rows: bool = False


class Unsupported(Exception):
    """The kernel has a form that this schedule does not cover yet."""


def launches(kernel: Kernel) -> tuple[tuple[Scheduled, ...], tuple[Buffer, ...]]:
    """The launches of a logical kernel, in order, and its workspaces, which every one takes behind the other
    parameters."""
    scratch = tuple(s.buffer for s in kernel.body if isinstance(s, L.Alloc) and s.buffer.scope == "workspace")
    rest = tuple(s for s in kernel.body if not (isinstance(s, L.Alloc) and s.buffer in scratch))
    buffers = tuple(p for p in kernel.params if isinstance(p, Buffer))
    sizes = tuple(p for p in kernel.params if isinstance(p, Var))
    params: tuple[Buffer | Var, ...] = (*buffers, *scratch, *sizes)
    alone = len(rest) > 1 and all(isinstance(s, For) for s in rest)
    bodies = [(s,) for s in rest] if alone else [rest]
    return tuple(schedule(replace(kernel, params=params, body=body)) for body in bodies), scratch


def schedule(kernel: Kernel) -> Scheduled:
    """The GPU form of a logical kernel that is one launch; `Unsupported` says what is missing."""
    names = _Names()
    if any(isinstance(s, Reduce) and s.order == "lanes" for s in walk(kernel.body)):
        return _rows(kernel, names)
    loops, inside = _outer_loops(kernel.body, ("parallel", "vector"))
    if any(isinstance(s, For) and s.kind in ("parallel", "vector") for s in walk(inside)):
        return _blocks_of_threads(kernel, names)
    across = crossed(loops, inside)
    if across is not None:
        return _tiles(kernel, names, across, inside)
    owned = None if loops else _owned(inside)
    return _points(kernel, names) if owned is None else _owners(kernel, names, owned)


class _Names:
    """Fresh variables."""

    def __init__(self) -> None:
        self._count = 0

    def var(self, stem: str, type: L.Vec = INDEX) -> Var:
        self._count += 1
        return Var(type, f"{stem}{self._count}")


def _outer_loops(block: Block, kinds: tuple[str, ...]) -> tuple[list[For], Block]:
    """The perfectly nested loops of these kinds at the top of a block, and what lies inside them."""
    loops: list[For] = []
    while len(block) == 1 and isinstance(block[0], For) and block[0].kind in kinds:
        loop = block[0]
        if not (isinstance(loop.lo, L.Const) and loop.lo.value == 0 and loop.step == 1):
            raise Unsupported(f"loop {loop.var.name} does not run from 0 in steps of 1")
        if any(outer.var in _within((loop.hi,)) for outer in loops):
            break
        loops.append(loop)
        block = loop.body
    return loops, block


def _flatten(loops: list[For], flat: Var, names: _Names) -> Block:
    """Lets that recover the loop variables from one flat index, last loop fastest."""
    lets: list[Stmt] = []
    rest: Expr = flat
    for loop in reversed(loops[1:]):
        lets.append(Let(loop.var, L.apply("mod", rest, loop.hi)))
        quotient = names.var("q")
        lets.append(Let(quotient, L.apply("div", rest, loop.hi)))
        rest = quotient
    if loops:
        lets.append(Let(loops[0].var, rest))
    return tuple(lets)


def _product(loops: list[For]) -> Expr:
    total: Expr = L.index(1)
    for loop in loops:
        total = L.mul(total, loop.hi)
    return total


def _points(kernel: Kernel, names: _Names) -> Scheduled:
    loops, inside = _outer_loops(kernel.body, ("parallel", "vector"))
    point = names.var("point")
    many = vectorised(loops[-1], len(loops) == 1, inside, names.var) if loops else None
    if many is None:
        body = (*_flatten(loops, point, names), *_serial(inside, names))
    else:
        lanes, chunk_of = many
        chunk, first = names.var("chunk"), names.var("first")
        loops = [*loops[:-1], For("parallel", chunk, L.index(0), _parts(loops[-1].hi, lanes), ())]
        start = Let(first, L.mul(chunk, L.index(lanes)))
        body = (*_flatten(loops, point, names), start, *chunk_of(first))
    total = _product(loops)
    grid = For("grid", point, L.index(0), total, body, step=POINT_THREADS)
    return Scheduled(replace(kernel, body=(grid,)), POINT_THREADS, _parts(total, POINT_THREADS))


def _tiles(kernel: Kernel, names: _Names, across: Crossed, inside: Block) -> Scheduled:
    point, thread = names.var("point"), names.var("thread")
    tiles = {k: names.var("tile") for k in (across.across, len(across.loops) - 1)}
    loops = [
        For("parallel", tiles[k], L.index(0), _parts(loop.hi, SIDE), ()) if k in tiles else loop
        for k, loop in enumerate(across.loops)
    ]
    row, column = (L.mul(t, L.index(SIDE)) for t in tiles.values())
    shared, body = tile(across, inside, (row, column), thread, names.var)
    total = _product(loops)
    grid = For("grid", point, L.index(0), total, (*_flatten(loops, point, names), *body))
    block = For("block", thread, L.index(0), L.index(TILE_THREADS), (*shared, grid))
    return Scheduled(replace(kernel, body=(block,)), TILE_THREADS, total)


def _parts(count: Expr, size: int) -> Expr:
    """How many parts of `size` cover `count`."""
    if isinstance(count, L.Const):
        return L.index(-(-int(count.value) // size))
    return ceil_div(count, size)


def _owned(block: Block) -> Store | None:
    """The only store of a block of ordered loops, if all that is read of its buffer is the element that it writes."""
    stores = [s for s in walk(block) if isinstance(s, Store)]
    if len(stores) != 1 or not any(isinstance(s, For) for s in block):
        return None
    (store,) = stores
    for e in _expressions(block):
        if isinstance(e, L.Load) and e.buffer is store.buffer:
            same = all(a is b for a, b in zip(e.indices, store.indices, strict=True))
            if not same:
                return None
    nested = all(isinstance(s, For | If | Let | L.Verify | Store) for s in walk(block))
    carries = any(isinstance(s, For) and s.carried for s in walk(block))
    return store if nested and not carries and len(store.indices) == 1 else None


def _expressions(block: Block) -> set[Expr]:
    """Everything that a block computes."""
    return _within([e for s in walk(block) for e in (*stmt_exprs(s), *(e for _, ends in stmt_blocks(s) for e in ends))])


def _within(expressions: Sequence[Expr]) -> set[Expr]:
    """These and all that they are made of."""
    found: set[Expr] = set()
    stack = list(expressions)
    while stack:
        e = stack.pop()
        if e not in found:
            found.add(e)
            stack += expr_children(e)
    return found


def _owners(kernel: Kernel, names: _Names, store: Store) -> Scheduled:
    owner = names.var("owner")
    mine = L.apply("eq", L.apply("mod", store.indices[0], L.index(OWNERS)), owner)

    def guarded(block: Block) -> Block:
        out: list[Stmt] = []
        for s in block:
            if isinstance(s, For):
                out.append(replace(s, body=guarded(s.body)))
            elif isinstance(s, If):
                out.append(If(s.cond, guarded(s.then), guarded(s.orelse)))
            else:
                out.append(If(mine, (s,)) if s is store else s)
        return tuple(out)

    grid = For("grid", owner, L.index(0), L.index(OWNERS), guarded(kernel.body), step=POINT_THREADS)
    return Scheduled(replace(kernel, body=(grid,)), POINT_THREADS, L.index(OWNERS // POINT_THREADS))


def _blocks_of_threads(kernel: Kernel, names: _Names) -> Scheduled:
    loops, inside = _outer_loops(kernel.body, ("parallel",))
    point, thread = names.var("point"), names.var("thread")
    total = _product(loops)
    body = (*_flatten(loops, point, names), *_Rows(thread, names, BLOCK_THREADS, True).block(inside))
    grid = For("grid", point, L.index(0), total, body)
    block = For("block", thread, L.index(0), L.index(BLOCK_THREADS), (grid,))
    return Scheduled(replace(kernel, body=(block,)), BLOCK_THREADS, total)


def _rows(kernel: Kernel, names: _Names) -> Scheduled:
    loops, inside = _outer_loops(kernel.body, ("parallel",))
    row, thread = names.var("row"), names.var("thread")
    total = _product(loops)
    rows = _Rows(thread, names)
    written = {s.buffer for s in walk(kernel.body) if isinstance(s, Store)}
    known = {p for p in kernel.params if isinstance(p, Var)} | {loop.var for loop in loops}
    kept, bring, inside = staged(inside, written, known, thread, ROW_THREADS, names.var)
    body: Block = (*_flatten(loops, row, names), *bring, *rows.block(inside))
    if bring or any(isinstance(s, L.Alloc) for s in inside):
        body = (*body, L.Barrier())  # nobody starts the next row while this one's is still read
    grid = For("grid", row, L.index(0), total, body)
    block = For("block", thread, L.index(0), L.index(ROW_THREADS), (*kept, *rows.shared(), grid))
    return Scheduled(replace(kernel, body=(block,)), ROW_THREADS, total, True)


def start_state(combine: str, values: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The neutral state. For "argmax" its index is beyond every other, so that any candidate wins a tie."""
    first = L.const(identity(combine, values[0].dtype), values[0].type)
    return (first, L.index(2**63 - 1)) if combine == "argmax" else (first,)


def _finish(s: Reduce, state: tuple[Expr, ...], count: Expr) -> Block:
    """Bind the results; an empty floating sum is +0.0."""
    if s.combine == "add" and state[0].dtype.is_floating_point:
        empty = L.apply("eq", count, L.index(0))
        state = (L.select(empty, L.const(0.0, state[0].type), state[0]),)
    return tuple(Let(var, value) for var, value in zip(s.results, state, strict=True))


def _carry(names: _Names, stem: str, init: tuple[Expr, ...]) -> tuple[tuple[Var, ...], tuple[Var, ...]]:
    """Loop variables and results for a carried state."""
    return tuple(names.var(stem, e.type) for e in init), tuple(names.var(stem, e.type) for e in init)


def _chain(
    s: Reduce, names: _Names, var: Var, lo: Expr, hi: Expr, step: int, before: Block, body: Block
) -> tuple[For, tuple[Expr, ...]]:
    """A serial loop that folds the reduction's values from the identity; returns it and the final state."""
    init = start_state(s.combine, s.values)
    inner, results = _carry(names, "acc", init)
    after = combine_state(s.combine, inner, s.values)
    carried = tuple(L.Carry(v, i, n, r) for v, i, n, r in zip(inner, init, after, results, strict=True))
    return For("serial", var, lo, hi, (*before, *body), step=step, carried=carried), results


def _blocks(s: Reduce, names: _Names, count: Expr, size: int, inside: tuple[Var, Block, tuple[Expr, ...]]) -> Block:
    """A serial loop over blocks of `size` whose block results combine ascending, then the results."""
    start, body, part = inside
    init = start_state(s.combine, s.values)
    totals, results = _carry(names, "total", init)
    after = combine_state(s.combine, totals, part)
    carried = tuple(L.Carry(v, i, n, r) for v, i, n, r in zip(totals, init, after, results, strict=True))
    loop = For("serial", start, L.index(0), count, body, step=size, carried=carried)
    return (loop, *_finish(s, results, count))


def _serial(block: Block, names: _Names) -> Block:
    """A block run by one thread: inner vector loops become serial, reductions become chains."""
    out: list[Stmt] = []
    for s in block:
        if isinstance(s, Reduce):
            out.extend(_serial_reduce(s, _serial(s.body, names), names))
        elif isinstance(s, For):
            kind = "serial" if s.kind in ("vector", "parallel") else s.kind
            out.append(replace(s, kind=kind, body=_serial(s.body, names)))
        elif isinstance(s, If):
            out.append(If(s.cond, _serial(s.then, names), _serial(s.orelse, names)))
        elif isinstance(s, L.While):
            out.append(replace(s, body=_serial(s.body, names)))
        else:
            out.append(s)
    return tuple(out)


def _serial_reduce(s: Reduce, body: Block, names: _Names) -> Block:
    count: Expr = L.index(1)
    for _, extent in s.axes:
        count = L.mul(count, extent)
    start, point = names.var("start"), names.var("i")
    loops = [For("serial", var, L.index(0), extent, ()) for var, extent in s.axes]
    stop = L.apply("min", L.add(start, L.index(ROWS)), count)
    chain, state = _chain(s, names, point, start, stop, 1, _flatten(loops, point, names), body)
    return _blocks(s, names, count, ROWS, (start, (chain,), state))


class _Rows:
    """Rewrites the inside of a row for one block of threads. With `meet` they meet after every loop that they share
    and after every store, since what follows may read it."""

    def __init__(self, thread: Var, names: _Names, threads: int = ROW_THREADS, meet: bool = False) -> None:
        self._thread = thread
        self._names = names
        self._threads = threads
        self._end: Block = (L.Barrier(),) if meet else ()
        self._shared_kinds = ("parallel", "vector") if meet else ("vector",)
        self._shared: dict[object, Buffer] = {}

    def shared(self) -> Block:
        """Allocations of the shared memory that the reductions meet in."""
        return tuple(L.Alloc(b) for b in self._shared.values())

    def block(self, block: Block) -> Block:
        out: list[Stmt] = []
        for s in block:
            if isinstance(s, Reduce) and s.order == "lanes":
                out.extend(self._reduce(s))
            elif isinstance(s, Reduce):
                out.extend(self._outer_reduce(s))
            elif isinstance(s, For) and s.kind in self._shared_kinds:
                body, first = _serial(s.body, self._names), L.add(s.lo, self._thread)
                out += [replace(s, kind="serial", lo=first, step=self._threads, body=body), *self._end]
            elif isinstance(s, For):
                out.append(replace(s, kind="serial", body=self.block(s.body)))
            elif isinstance(s, L.While):
                out.append(replace(s, body=self.block(s.body)))
            elif isinstance(s, If):
                out.append(If(s.cond, self.block(s.then), self.block(s.orelse)))
            elif isinstance(s, Store):
                out += [If(L.apply("eq", self._thread, L.index(0)), (s,)), *self._end]
            else:
                out.append(s)
        return tuple(out)

    def _outer_reduce(self, s: Reduce) -> Block:
        """A serial reduction around row reductions: every thread runs the same chain over rows."""
        return _serial_reduce(replace(s, body=()), self.block(s.body), self._names)

    def _reduce(self, s: Reduce) -> Block:
        (var, count), names = s.axes[0], self._names
        start = names.var("start")
        stop = L.apply("min", L.add(start, L.index(BLOCK)), count)
        chain, state = _chain(s, names, var, L.add(start, self._thread), stop, ROW_THREADS, (), _serial(s.body, names))
        meet, met = self._meet(s, state)
        return _blocks(s, names, count, BLOCK, (start, (chain, *meet), met))

    def _meet(self, s: Reduce, state: tuple[Expr, ...]) -> tuple[Block, tuple[Expr, ...]]:
        """Groups through shared memory, lanes through shuffles, the result back to all threads."""
        slots = [self._buffer(i, e.dtype) for i, e in enumerate(state)]
        out: list[Stmt] = [L.Store(b, (self._thread,), e) for b, e in zip(slots, state, strict=True)]
        out.append(L.Barrier())
        lane = L.apply("mod", self._thread, L.index(LANES))

        def group(g: int) -> tuple[Expr, ...]:
            return tuple(L.load(b, (L.add(lane, L.index(g * LANES)),)) for b in slots)

        low = combine_state(s.combine, group(0), group(1))
        value = combine_state(s.combine, low, combine_state(s.combine, group(2), group(3)))
        value = self._bind(out, value)
        for xor in (8, 4, 2, 1):
            other = self._bind(out, tuple(L.Warp(e.type, e, xor) for e in value))
            value = self._bind(out, combine_state(s.combine, value, other))
        out.append(L.Barrier())
        first = L.apply("eq", self._thread, L.index(0))
        zero = (L.index(0),)
        out.append(L.If(first, tuple(L.Store(b, zero, e) for b, e in zip(slots, value, strict=True))))
        out.append(L.Barrier())
        result = self._bind(out, tuple(L.load(b, zero) for b in slots))
        out.append(L.Barrier())
        return tuple(out), result

    def _bind(self, out: list[Stmt], values: tuple[Expr, ...]) -> tuple[Expr, ...]:
        bound = tuple(self._names.var("v", e.type) for e in values)
        out.extend(Let(v, e) for v, e in zip(bound, values, strict=True))
        return bound

    def _buffer(self, i: int, dtype: DType) -> Buffer:
        key = (i, dtype)
        if key not in self._shared:
            self._shared[key] = Buffer(f"meet{len(self._shared)}", dtype, (ROW_THREADS,), (1,), "shared")
        return self._shared[key]
