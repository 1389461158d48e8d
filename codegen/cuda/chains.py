"""What GPU schedules have in common: loops as one flat index, and reductions as chains of one thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from kiln.codegen.blocks import ceil_div
from kiln.codegen.schedule import combine_state
from kiln.ir import loops as L
from kiln.ir.intrinsics import MATH_FUNCTIONS
from kiln.ir.loops import INDEX, Block, Expr, For, If, Kernel, Let, Reduce, Stmt, Var
from kiln.ir.loops_walk import evaluated, reachable
from kiln.ir.order import ROWS, identity

PACE: Final = 32
"""Links of a chain that are written out, so that they are read before the first of them is needed."""
WEIGHT: Final = 640
"""The most operations that are written out."""
COSTLY: Final = 40
"""Operations of a function that is expanded."""


def weight(roots: Sequence[Expr]) -> int:
    """Operations, roughly."""
    every = reachable(roots)
    return max(1, sum(COSTLY if isinstance(e, L.Apply) and e.fn in MATH_FUNCTIONS else 1 for e in every))


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A kernel for one launch: `threads` per block, and how many blocks cover it (an int64 expression over
    the kernel's scalar parameters; more or fewer blocks are right too, the loops stride by the grid)."""

    kernel: Kernel
    threads: int
    blocks: Expr


class Unsupported(Exception):
    """The kernel has a form that this schedule does not cover yet."""


class Names:
    """Fresh variables."""

    def __init__(self) -> None:
        self._count = 0

    def var(self, stem: str, type: L.Vec = INDEX) -> Var:
        self._count += 1
        return Var(type, f"{stem}{self._count}")


def outer_loops(block: Block, kinds: tuple[str, ...]) -> tuple[list[For], Block]:
    """The perfectly nested loops of these kinds at the top of a block, and what lies inside them."""
    loops: list[For] = []
    while len(block) == 1 and isinstance(block[0], For) and block[0].kind in kinds:
        loop = block[0]
        if not (isinstance(loop.lo, L.Const) and loop.lo.value == 0 and loop.step == 1):
            raise Unsupported(f"loop {loop.var.name} does not run from 0 in steps of 1")
        if any(outer.var in reachable((loop.hi,)) for outer in loops):
            break
        loops.append(loop)
        block = loop.body
    return loops, block


def flatten(loops: list[For], flat: Var, names: Names) -> Block:
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


def product(loops: list[For]) -> Expr:
    total: Expr = L.index(1)
    for loop in loops:
        total = L.mul(total, loop.hi)
    return total


def parts(count: Expr, size: int) -> Expr:
    """How many parts of `size` cover `count`."""
    if isinstance(count, L.Const):
        return L.index(-(-int(count.value) // size))
    return ceil_div(count, size)


def start_state(combine: str, values: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The neutral state. For "argmax" its index is beyond every other, so that any candidate wins a tie."""
    first = L.const(identity(combine, values[0].dtype), values[0].type)
    return (first, L.index(2**63 - 1)) if combine == "argmax" else (first,)


def finish(s: Reduce, state: tuple[Expr, ...], count: Expr) -> Block:
    """Bind the results; an empty floating sum is +0.0."""
    if s.combine == "add" and state[0].dtype.is_floating_point:
        empty = L.apply("eq", count, L.index(0))
        state = (L.select(empty, L.const(0.0, state[0].type), state[0]),)
    return tuple(Let(var, value) for var, value in zip(s.results, state, strict=True))


def carry(names: Names, stem: str, init: tuple[Expr, ...]) -> tuple[tuple[Var, ...], tuple[Var, ...]]:
    """Loop variables and results for a carried state."""
    return tuple(names.var(stem, e.type) for e in init), tuple(names.var(stem, e.type) for e in init)


def chain(
    s: Reduce, names: Names, var: Var, lo: Expr, hi: Expr, step: int, before: Block, body: Block
) -> tuple[For, tuple[Expr, ...]]:
    """A serial loop that folds the reduction's values from the identity; returns it and the final state."""
    init = start_state(s.combine, s.values)
    inner, results = carry(names, "acc", init)
    after = combine_state(s.combine, inner, s.values)
    carried = tuple(L.Carry(v, i, n, r) for v, i, n, r in zip(inner, init, after, results, strict=True))
    return chained(var, lo, hi, step, (*before, *body), carried), results


def chained(var: Var, lo: Expr, hi: Expr, step: int, inside: Block, carried: tuple[L.Carry, ...]) -> For:
    """A serial loop, some rounds of which are written out, so that their reads do not wait for each other."""
    pace = 0
    if all(isinstance(x, Let) for x in inside):
        pace = min(PACE, WEIGHT // weight([*(c.next for c in carried), *evaluated(inside)]))
    kind, grain = ("unrolled", L.index(pace)) if pace > 1 else ("serial", None)
    return For(kind, var, lo, hi, inside, step=step, carried=carried, grain=grain)


def blocks(s: Reduce, names: Names, count: Expr, size: int, inside: tuple[Var, Block, tuple[Expr, ...]]) -> Block:
    """A serial loop over blocks of `size` whose block results combine ascending, then the results."""
    start, body, part = inside
    init = start_state(s.combine, s.values)
    totals, results = carry(names, "total", init)
    after = combine_state(s.combine, totals, part)
    carried = tuple(L.Carry(v, i, n, r) for v, i, n, r in zip(totals, init, after, results, strict=True))
    loop = For("serial", start, L.index(0), count, body, step=size, carried=carried)
    return (loop, *finish(s, results, count))


def serial(block: Block, names: Names) -> Block:
    """A block run by one thread: inner vector loops become serial, reductions become chains."""
    out: list[Stmt] = []
    for s in block:
        if isinstance(s, Reduce):
            out.extend(serial_reduce(s, serial(s.body, names), names))
        elif isinstance(s, For):
            kind = "serial" if s.kind in ("vector", "parallel") else s.kind
            out.append(replace(s, kind=kind, body=serial(s.body, names)))
        elif isinstance(s, If):
            out.append(If(s.cond, serial(s.then, names), serial(s.orelse, names)))
        elif isinstance(s, L.While):
            out.append(replace(s, body=serial(s.body, names)))
        else:
            out.append(s)
    return tuple(out)


def serial_reduce(s: Reduce, body: Block, names: Names) -> Block:
    count: Expr = L.index(1)
    for _, extent in s.axes:
        count = L.mul(count, extent)
    start, point = names.var("start"), names.var("i")
    loops = [For("serial", var, L.index(0), extent, ()) for var, extent in s.axes]
    stop = L.apply("min", L.add(start, L.index(ROWS)), count)
    walk, state = chain(s, names, point, start, stop, 1, flatten(loops, point, names), body)
    return blocks(s, names, count, ROWS, (start, (walk,), state))
