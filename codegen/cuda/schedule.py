"""Logical kernel to GPU kernels: what is launched, which loop becomes the grid, which the threads of a block.

A kernel's workspaces become parameters, and each of its loops, if it is made of several, a launch of its own: the next
one starts when it has ended. Five shapes of launch exist.

*Points* (no row reduction inside): every point of the outer parallel and vector loops is one thread; the loops
become one flat index over a grid of blocks of `POINT_THREADS`. Serial reductions run inside the thread, in the
order of the contract. Where memory is dense, a thread takes several neighbouring points (`vector.py`).

*Tiles* (what is read lies across what is written): a block of threads per tile, through shared memory (`tile.py`).

*Rows* (a "lanes" reduction inside): teams of threads carry the contract's accumulators (`rows.py`).

*Blocks* (independent loops inside what must run in order): one block of threads per point of the outer loops. All its
threads walk the ordered loops together and share out each independent loop, and meet at its end.

*Claims* (values that meet elements of a table in order): blocks of threads look for the values of the elements that
are theirs (`claims.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kiln.codegen.blocks import minimum
from kiln.codegen.cuda.chains import Names, flatten, outer_loops, parts, product, serial, serial_reduce
from kiln.codegen.cuda.chains import Scheduled as Scheduled
from kiln.codegen.cuda.chains import Unsupported as Unsupported
from kiln.codegen.cuda.claims import claimed, schedule_claim
from kiln.codegen.cuda.rows import schedule_rows
from kiln.codegen.cuda.split import Stage, split
from kiln.codegen.cuda.tile import SIDE, Crossed, crossed, tile
from kiln.codegen.cuda.tile import THREADS as TILE_THREADS
from kiln.codegen.cuda.vector import Chunk, Chunks, vectorised
from kiln.ir import loops as L
from kiln.ir.loops import Block, Buffer, Expr, For, If, Kernel, Let, Reduce, Stmt, Store, Var
from kiln.ir.loops_walk import walk

POINT_THREADS: Final = 256
FEW_THREADS: Final = 32
PROCESSORS: Final = 128
"""Those of a GPU, roughly, which should all have something to do."""
ENOUGH: Final = 1 << 18
"""Threads that keep a GPU busy."""
BLOCK_THREADS: Final = 256


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
    stages: list[Stage] = []
    for body in bodies:
        more, between = _stages(replace(kernel, params=params, body=body))
        stages += more
        scratch += between
    params = (*buffers, *scratch, *sizes)
    return tuple(_launch(replace(kernel, params=params, body=s.body), s) for s in stages), scratch


def _stages(kernel: Kernel) -> tuple[list[Stage], tuple[Buffer, ...]]:
    """A kernel's launches, and the workspaces between them."""
    found = split(kernel)
    if found is None:
        return [Stage(kernel.body)], ()
    stages: list[Stage] = []
    scratch = found[1]
    for stage in found[0]:
        if stage.segment is not None or stage.scheduled is not None:
            stages.append(stage)
            continue
        more, between = _stages(replace(kernel, body=stage.body))
        stages += more
        scratch += between
    return stages, scratch


def _launch(kernel: Kernel, stage: Stage) -> Scheduled:
    if stage.scheduled is not None:
        made = stage.scheduled
        return replace(made, kernel=replace(made.kernel, params=kernel.params))
    return schedule(kernel) if stage.segment is None else schedule_rows(kernel, Names(), stage.segment)


def schedule(kernel: Kernel) -> Scheduled:
    """The GPU form of a logical kernel that is one launch; `Unsupported` says what is missing."""
    names = Names()
    if any(isinstance(s, Reduce) and s.order == "lanes" for s in walk(kernel.body)):
        return schedule_rows(kernel, names)
    loops, inside = outer_loops(kernel.body, ("parallel", "vector"))
    claim = claimed(kernel.body)
    if claim is not None:
        return schedule_claim(kernel, claim, names)
    if any(isinstance(s, For) and s.kind in ("parallel", "vector") for s in walk(inside)):
        return _blocks_of_threads(kernel, names)
    across = crossed(loops, inside)
    if across is not None:
        return _tiles(kernel, names, across, inside)
    return _points(kernel, names)


def _points(kernel: Kernel, names: Names) -> Scheduled:
    loops, inside = outer_loops(kernel.body, ("parallel", "vector"))
    point = names.var("point")
    chunks = vectorised(loops[-1], len(loops) == 1, inside, names.var) if loops else None
    if chunks is not None:
        loops = [*loops[:-1], replace(loops[-1], hi=parts(loops[-1].hi, chunks.lanes))]
    total, threads, many = product(loops), POINT_THREADS, 1
    while isinstance(total, L.Const) and threads > FEW_THREADS and int(total.value) < threads * PROCESSORS:
        threads //= 2
    if chunks is None:
        body: Block = (*flatten(loops, point, names), *serial(inside, names))
    else:
        if not isinstance(total, L.Const) or int(total.value) >= chunks.many * ENOUGH:
            many = chunks.many
        body = _chunked(chunks, loops, (point, total, threads, many), names)
    grid = For("grid", point, L.index(0), total, body, step=threads * many)
    return Scheduled(replace(kernel, body=(grid,)), threads, parts(total, threads * many))


def _chunked(chunks: Chunks, loops: list[For], grid: tuple[Var, Expr, int, int], names: Names) -> Block:
    """Several chunks of a thread, a block of threads apart; where there is none any more, the last one stands in."""
    point, total, threads, many = grid
    out: list[Stmt] = []
    made: list[Chunk] = []
    for k in range(many):
        flat, exists = point, None
        if k:
            flat, exists = names.var("flat"), names.var("exists", L.BOOL)
            beyond = L.add(point, L.index(k * threads))
            out += [Let(exists, L.apply("lt", beyond, total)), Let(flat, minimum(beyond, L.sub(total, L.index(1))))]
        own = [replace(loop, var=names.var(loop.var.name)) for loop in loops]
        out += flatten(own, flat, names)
        around: dict[Expr, Expr] = {a.var: b.var for a, b in zip(loops, own, strict=True)}
        first = names.var("first")
        out.append(Let(first, L.mul(own[-1].var, L.index(chunks.lanes))))
        made.append(Chunk(first, around, exists))
    return (*out, *chunks.block(made))


def _tiles(kernel: Kernel, names: Names, across: Crossed, inside: Block) -> Scheduled:
    point, thread = names.var("point"), names.var("thread")
    tiles = {k: names.var("tile") for k in (across.across, len(across.loops) - 1)}
    loops = [
        For("parallel", tiles[k], L.index(0), parts(loop.hi, SIDE), ()) if k in tiles else loop
        for k, loop in enumerate(across.loops)
    ]
    row, column = (L.mul(t, L.index(SIDE)) for t in tiles.values())
    shared, body = tile(across, inside, (row, column), thread, names.var)
    total = product(loops)
    grid = For("grid", point, L.index(0), total, (*flatten(loops, point, names), *body))
    block = For("block", thread, L.index(0), L.index(TILE_THREADS), (*shared, grid))
    return Scheduled(replace(kernel, body=(block,)), TILE_THREADS, total)


def _blocks_of_threads(kernel: Kernel, names: Names) -> Scheduled:
    loops, inside = outer_loops(kernel.body, ("parallel",))
    point, thread = names.var("point"), names.var("thread")
    total = product(loops)
    body = (*flatten(loops, point, names), *_shared_out(inside, thread, names))
    grid = For("grid", point, L.index(0), total, body)
    block = For("block", thread, L.index(0), L.index(BLOCK_THREADS), (grid,))
    return Scheduled(replace(kernel, body=(block,)), BLOCK_THREADS, total)


def _shared_out(block: Block, thread: Var, names: Names) -> Block:
    """A block run by all threads together. They meet after every loop that they share and after every store, since
    what follows may read it."""
    out: list[Stmt] = []
    for s in block:
        if isinstance(s, Reduce):
            out += serial_reduce(replace(s, body=()), _shared_out(s.body, thread, names), names)
        elif isinstance(s, For) and s.kind in ("parallel", "vector"):
            body, first = serial(s.body, names), L.add(s.lo, thread)
            out += [replace(s, kind="serial", lo=first, step=BLOCK_THREADS, body=body), L.Barrier()]
        elif isinstance(s, For):
            out.append(replace(s, kind="serial", body=_shared_out(s.body, thread, names)))
        elif isinstance(s, L.While):
            out.append(replace(s, body=_shared_out(s.body, thread, names)))
        elif isinstance(s, If):
            out.append(If(s.cond, _shared_out(s.then, thread, names), _shared_out(s.orelse, thread, names)))
        elif isinstance(s, Store):
            out += [If(L.apply("eq", thread, L.index(0)), (s,)), L.Barrier()]
        else:
            out.append(s)
    return tuple(out)
