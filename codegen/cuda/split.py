"""Reductions of few, long runs as several launches, so that all of a GPU works on them.

The contract's orders are made of blocks that do not need each other: of BLOCK elements along the last dimension, of
ROWS rows along others. So one launch computes the blocks, each by itself, into a workspace, and the next one adds them
up, ascending. What a kernel does with a row after its reduction becomes a launch too: elementwise work over all rows.
What lies between, a value per row, is in workspaces as far as it comes out of a reduction, and computed anew otherwise.

Whether that is worth it, sizes say: kernels with enough rows for all threads stay one launch, and so do short ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from kiln.codegen.blocks import minimum
from kiln.codegen.cuda.chains import (
    PACE,
    Names,
    Scheduled,
    carry,
    chain,
    chained,
    finish,
    flatten,
    outer_loops,
    parts,
    product,
    serial,
    start_state,
)
from kiln.codegen.schedule import combine_state
from kiln.ir import loops as L
from kiln.ir.loops import (
    Alloc,
    Barrier,
    Block,
    Buffer,
    Carry,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Reduce,
    Stmt,
    Store,
    Var,
)
from kiln.ir.loops_walk import evaluated, reachable, rewritten, substituted
from kiln.ir.order import BLOCK, ROWS
from kiln.ir.types import DType

SEVERAL: Final = 16
"""Rows that a team does not take one after another."""
FEW_ROWS: Final = 4096
"""Rows that do not keep a GPU busy when a team of threads takes each of them one by one."""
FEW_COLUMNS: Final = 1 << 17
"""Columns that do not keep a GPU busy, a thread each."""
TALL: Final = 3 * ROWS
"""Elements of a column from which its blocks are worth a launch more."""
FEW_TEAMS: Final = 1024
"""Teams of threads that do not keep a GPU busy."""
TEAMS: Final = 16
"""Blocks of a long row that are computed at the same time in one launch."""
THREADS: Final = 256
TOGETHER: Final = 2048
"""Sums of blocks that are brought to shared memory at a time."""
MANY: Final = 32
"""More sums of blocks are added by a block of threads, whose reads do not wait for each other."""

State = tuple[Expr, ...]
Sums = tuple[list[Buffer], bool, Expr]
"""Workspaces of the sums of blocks, whether the block is their first dimension or their last one, and how many."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One launch: a logical kernel's body, of whose rows only the block `segment` is reduced, or one that is scheduled
    already."""

    body: Block = ()
    segment: Var | None = None
    scheduled: Scheduled | None = None


def split(kernel: Kernel) -> tuple[list[Stage], tuple[Buffer, ...]] | None:
    """The launches of a kernel and the workspaces between them; None where one launch is as good."""
    loops, inside = outer_loops(kernel.body, ("parallel", "vector"))
    known = all(isinstance(s, Let | Reduce | For | Store | L.Verify) for s in inside)
    if not known or not any(isinstance(s, Reduce) for s in inside):
        return None
    made = _Split(kernel, loops)
    if not any(made.worthwhile(s) for s in inside if isinstance(s, Reduce)):
        return None
    return made.run(inside), tuple(made.workspaces)


def _size(e: Expr, unknown: int) -> int:
    return int(e.value) if isinstance(e, L.Const) else unknown


class _Split:
    def __init__(self, kernel: Kernel, loops: list[For]) -> None:
        self.kernel, self.loops, self.names = kernel, loops, Names()
        self.workspaces: list[Buffer] = []
        self.stages: list[Stage] = []
        self.before: list[Stmt] = []
        """What is computed per row: Lets, and checks that no launch has made yet."""

    # -------------------------------------------------------------------------------------- worth

    def worthwhile(self, s: Reduce) -> bool:
        """Whether a reduction is better computed by several launches."""
        rows, count = product(self.loops), _count(s)
        if s.order == "lanes":
            return self._long(rows, count)
        if _lanes_inside(s) is not None:
            return _size(count, ROWS) >= SEVERAL and _size(rows, FEW_ROWS - 1) < FEW_ROWS
        return self._tall(rows, count)

    def _long(self, rows: Expr, count: Expr) -> bool:
        """Whether the blocks of rows should be shared out among blocks of threads."""
        if not isinstance(count, L.Const):
            return False
        blocks, lines = -(-int(count.value) // BLOCK), _size(rows, FEW_TEAMS)
        return blocks >= 4 and lines * min(TEAMS, blocks) < FEW_TEAMS and lines * blocks > TEAMS

    def _tall(self, rows: Expr, count: Expr) -> bool:
        """Whether the blocks of columns should."""
        return _size(count, FEW_ROWS) > TALL and _size(rows, 0) < FEW_COLUMNS

    # ----------------------------------------------------------------------------------- launches

    def run(self, inside: Block) -> list[Stage]:
        stores = tuple(s for s in inside if isinstance(s, Store))
        last = max(k for k, s in enumerate(inside) if isinstance(s, Reduce))
        merged = bool(stores) and not self._overwritten(stores, inside, last)
        at = 0
        while at < len(inside):
            s = inside[at]
            at += 1
            if isinstance(s, Reduce):
                group, after, at = self._group(inside, at)
                then = stores if merged and at > last else ()
                lets = [*after, *(x for x in inside[at:] if isinstance(x, Let))]
                later = tuple(x for x in inside[at:] if not isinstance(x, Let) and x not in then)
                passes, everything = _uses(later, lets), _uses((*later, *then), lets)
                kept = [bool(set(x.results) & (passes if x is group[-1] else everything)) for x in group]
                self._reduce(group, kept, lets, then)
                self.before += after
            elif isinstance(s, For):
                self._pass(s)
            elif not isinstance(s, Store):
                self.before.append(s)
        if stores and not merged:
            self.stages.append(Stage(_nest(self.loops, self._needed(stores))))
        return self.stages

    def _group(self, inside: Block, at: int) -> tuple[list[Reduce], list[Let], int]:
        """The reduction before `at` and those that follow, of the same extents, that do not need each other; what
        is computed of their results; and where they end."""
        first = inside[at - 1]
        assert isinstance(first, Reduce)
        group, after, end = [first], list[Let](), at
        lets, waiting = [s for s in inside if isinstance(s, Let)], list[Let]()
        for k in range(at, len(inside)):
            s = inside[k]
            made = {x for r in group for x in r.results}
            if isinstance(s, Let):
                waiting.append(s)
                continue
            alike = isinstance(s, Reduce) and s.order == first.order == "serial" and _extents(s) == _extents(first)
            if not (isinstance(s, Reduce) and alike) or made & _uses((s,), lets):
                break
            for let in waiting:
                of_these = (made | {x.var for x in after}) & set(reachable([let.value]))
                (after if of_these else self.before).append(let)
            waiting, end = [], k + 1
            group.append(s)
        return group, after, end

    def _overwritten(self, stores: Block, inside: Block, last: int) -> bool:
        """Whether passes after the last reduction may read what these stores overwrite: an output may lie in an input's
        memory where both have one shape."""
        passes = tuple(s for s in inside[last:] if isinstance(s, For))
        used = _uses(passes, [s for s in inside if isinstance(s, Let)])
        read = {e.buffer for e in used if isinstance(e, Load) and e.buffer.scope == "global"}
        written = {(s.buffer.dtype, s.buffer.shape) for s in stores if isinstance(s, Store)}
        return any((b.dtype, b.shape) in written for b in read)

    def _needed(self, body: Block, skip: Block = ()) -> Block:
        """What is computed per row for this, and this. Checks are made once."""
        lets = [s for s in self.before if isinstance(s, Let) and s not in skip]
        checks = [s for s in self.before if isinstance(s, L.Verify)]
        needs = _uses((*checks, *body), lets)
        before = [s for s in self.before if s in checks or (s in lets and isinstance(s, Let) and s.var in needs)]
        self.before = [s for s in self.before if s not in checks]
        return (*before, *body)

    def _pass(self, s: For) -> None:
        """A pass over all rows, elementwise: along the last dimension in memory, which is the last one around where the
        pass is over others."""
        loops: list[For] = []
        body: Block = (s,)
        while len(body) == 1 and isinstance(body[0], For) and not body[0].carried:
            loop = body[0]
            loops.append(replace(loop, kind="vector" if loop.kind == "vector" else "parallel"))
            body = loop.body
        if loops[-1].kind == "vector" or not self.loops:
            loops = [*self.loops, *loops]
        else:
            loops = [*self.loops[:-1], *loops, self.loops[-1]]
        self.stages.append(Stage(_nest(loops, self._needed(body))))

    # --------------------------------------------------------------------------------- reductions

    def _reduce(self, group: list[Reduce], kept: Sequence[bool], lets: Sequence[Let], stores: Block) -> None:
        """The launches of reductions that share their reads. What is `kept` of them later ones read in a workspace; the
        last of their own also carries out `stores`, with what comes to that of `lets`."""
        own = tuple(loop.var for loop in self.loops)
        extents = [loop.hi for loop in self.loops]
        keep: list[Block] = []
        loads: list[list[Let]] = []
        for s, needed in zip(group, kept, strict=True):
            results = [self._workspace(x.dtype, extents) for x in s.results] if needed else []
            keep.append(tuple(Store(b, own, x) for b, x in zip(results, s.results, strict=False)))
            loads.append([Let(x, L.load(b, own)) for x, b in zip(s.results, results, strict=False)])
        if _lanes_inside(group[0]) is not None and self.worthwhile(group[0]):
            group = self._rows_of(group)
        first, rows = group[0], product(self.loops)
        if first.order == "lanes" and self._long(rows, _count(first)):
            self._two(group, [self._segments(first)], keep, loads, lets, stores)
        elif first.order == "serial" and _lanes_inside(first) is None and self._tall(rows, _count(first)):
            self._two(group, self._columns(group), keep, loads, lets, stores)
        else:
            body = self._needed(tuple(group))
            self.stages.append(Stage(_nest(self.loops, (*body, *self._then(keep, [], lets, stores)))))
        self.before += [let for each in loads for let in each]

    def _then(self, keep: Sequence[Block], known: Sequence[Let], lets: Sequence[Let], stores: Block) -> Block:
        """What a launch does with results: those to `keep`, and `stores` with what they need."""
        before = list(self.before)
        self.before += [*known, *lets]
        then = self._needed((*(x for block in keep for x in block), *stores))
        self.before = before
        return then

    def _rows_of(self, group: list[Reduce]) -> list[Reduce]:
        """Reductions over several dimensions, the last one among them: the rows first, into workspaces; what is left
        is some over the others."""
        first = group[0]
        loops = [*self.loops, *(For("parallel", var, L.index(0), n, ()) for var, n in first.axes)]
        at, body, left = tuple(loop.var for loop in loops), list[Stmt](), list[Reduce]()
        for s in group:
            if s is not first:  # in terms of the first one, so that equal reads are found to be equal
                memo: dict[Expr, Expr] = {var: other for (var, _), (other, _) in zip(s.axes, first.axes, strict=True)}
                of = partial(substituted, memo=memo)
                s = replace(s, body=rewritten(s.body, of), values=tuple(map(of, s.values)))
            made = [self._workspace(x.dtype, [loop.hi for loop in loops]) for x in s.values]
            body += [*s.body, *(Store(b, at, x) for b, x in zip(made, s.values, strict=True))]
            axes = tuple((self.names.var("row"), n) for _, n in s.axes)
            where = (*(loop.var for loop in self.loops), *(var for var, _ in axes))
            left.append(replace(s, axes=axes, body=(), values=tuple(L.load(b, where) for b in made)))
        stores = [s for s in body if isinstance(s, Store)]
        body = [*(s for s in body if not isinstance(s, Store)), *stores]
        self.stages.append(Stage(_nest(loops, self._needed(tuple(body)))))
        return left

    def _segments(self, s: Reduce) -> Sums:
        """A launch for the blocks of rows; where their sums are, behind the rows, and how many there are."""
        segment, count = self.names.var("segment"), parts(_count(s), BLOCK)
        around = [*self.loops, For("parallel", segment, L.index(0), count, ())]
        made = [self._workspace(x.dtype, [loop.hi for loop in around]) for x in s.results]
        at = tuple(loop.var for loop in around)
        stores = tuple(Store(b, at, x) for b, x in zip(made, s.results, strict=True))
        self.stages.append(Stage(_nest(around, self._needed((s, *stores))), segment))
        return made, False, count

    def _columns(self, group: list[Reduce]) -> list[Sums]:
        """A launch for the blocks of columns, each a chain of one thread; where their sums are, before the columns."""
        names, block, point = self.names, self.names.var("part"), self.names.var("point")
        rows = _count(group[0])
        count = parts(rows, ROWS)
        around = [For("parallel", block, L.index(0), count, ()), *self.loops]
        start = L.mul(block, L.index(ROWS))
        stop = minimum(L.add(start, L.index(ROWS)), rows)
        inside, carried, stores, found = list[Stmt](), list[Carry](), list[Stmt](), list[Sums]()
        for s in group:
            made = [self._workspace(x.dtype, [loop.hi for loop in around]) for x in s.results]
            loops = [For("serial", var, L.index(0), n, ()) for var, n in s.axes]
            walk, state = chain(s, names, point, start, stop, 1, flatten(loops, point, names), serial(s.body, names))
            inside += walk.body
            carried += walk.carried
            stores += [Store(b, tuple(loop.var for loop in around), x) for b, x in zip(made, state, strict=True)]
            found.append((made, True, count))
        both = chained(point, start, stop, 1, tuple(inside), tuple(carried))
        self.stages.append(Stage(_nest(around, self._needed((both, *stores)))))
        return found

    def _two(
        self,
        group: Sequence[Reduce],
        found: Sequence[Sums],
        keep: Sequence[Block],
        loads: Sequence[Sequence[Let]],
        lets: Sequence[Let],
        stores: Block,
    ) -> None:
        """The launches that add up the sums of blocks."""
        own = tuple(loop.var for loop in self.loops)
        count = found[0][2]

        def load(k: Expr, of: int) -> State:
            sums, leading, _ = found[of]
            return tuple(L.load(b, (k, *own) if leading else (*own, k)) for b in sums)

        if _size(count, MANY + 1) > MANY and _size(product(self.loops), 0) <= FEW_ROWS:
            for k, s in enumerate(group):
                then = keep[k]
                if s is group[-1]:
                    known = [x for some in loads[:-1] for x in some]
                    then = self._then(keep[-1:], known, lets, stores)
                self.stages.append(Stage(scheduled=self._together(s, count, partial(load, of=k), then)))
            return
        body: list[Stmt] = []
        for k, s in enumerate(group):
            adds, state = self._chain(s, count, partial(load, of=k), self.names.var("k"))
            body += [adds, *finish(s, state, _count(s))]
        self.stages.append(Stage(_nest(self.loops, (*body, *self._then(keep, [], lets, stores)))))

    def _chain(self, s: Reduce, count: Expr, load: Callable[[Expr], State], k: Var) -> tuple[For, State]:
        """One ascending chain over `count` sums."""
        init = start_state(s.combine, s.values)
        inner, results = carry(self.names, "total", init)
        after = combine_state(s.combine, inner, load(k))
        carried = tuple(map(Carry, inner, init, after, results))
        return For("unrolled", k, L.index(0), count, (), carried=carried, grain=L.index(PACE)), results

    def _together(self, s: Reduce, count: Expr, load: Callable[[Expr], State], then: Block) -> Scheduled:
        """A block of threads per row brings the sums to shared memory, many at a time; all its threads add them up."""
        names = self.names
        thread, row, base, k, i = (names.var(x) for x in ("thread", "row", "base", "k", "i"))
        init = start_state(s.combine, s.values)
        there = [Buffer(names.var("sums").name, x.dtype, (TOGETHER,), (1,), "shared") for x in init]
        some = names.var("some")
        values = load(L.add(base, k))
        bring = For(
            "serial", k, thread, some, tuple(Store(b, (k,), x) for b, x in zip(there, values, strict=True)), THREADS
        )
        totals, results = carry(names, "total", init)
        inner, ends = carry(names, "sum", init)
        after = combine_state(s.combine, inner, tuple(L.load(b, (i,)) for b in there))
        adds = For("unrolled", i, L.index(0), some, (), 1, tuple(map(Carry, inner, totals, after, ends)), L.index(PACE))
        body = (Let(some, minimum(L.sub(count, base), TOGETHER)), bring, Barrier(), adds, Barrier())
        rounds = For("serial", base, L.index(0), count, body, TOGETHER, tuple(map(Carry, totals, init, ends, results)))
        first = L.apply("eq", thread, L.index(0))
        guarded = tuple(If(first, (x,)) if isinstance(x, Store) else x for x in then)
        total = product(self.loops)
        inside = (*flatten(self.loops, row, names), rounds, *finish(s, results, _count(s)), *guarded)
        grid = For("grid", row, L.index(0), total, inside)
        block = For("block", thread, L.index(0), L.index(THREADS), (*map(Alloc, there), grid))
        return Scheduled(replace(self.kernel, body=(block,)), THREADS, total)

    def _workspace(self, dtype: DType, extents: Sequence[Expr]) -> Buffer:
        steps: list[int | Expr] = []
        step: Expr = L.index(1)
        for n in reversed(extents):
            steps.insert(0, _plain(step))
            step = L.mul(step, n)
        made = Buffer(f"work{len(self.workspaces)}", dtype, tuple(map(_plain, extents)), tuple(steps), "workspace")
        self.workspaces.append(made)
        return made


def _uses(block: Block, lets: Sequence[Let]) -> set[Expr]:
    """What a block evaluates, with what it needs of the Lets before it."""
    needs = set(reachable(evaluated(block)))
    for s in reversed(lets):
        if s.var in needs:
            needs |= set(reachable([s.value]))
    return needs


def _extents(s: Reduce) -> list[object]:
    return [n.value if isinstance(n, L.Const) else n for _, n in s.axes]


def _count(s: Reduce) -> Expr:
    """Points of a reduction."""
    total: Expr = L.index(1)
    for _, n in s.axes:
        total = L.mul(total, n)
    return total


def _lanes_inside(s: Reduce) -> Reduce | None:
    """The row reduction inside one over other dimensions."""
    return next((x for x in s.body if isinstance(x, Reduce) and x.order == "lanes"), None)


def _nest(loops: Sequence[For], body: Block) -> Block:
    for loop in reversed(loops):
        body = (replace(loop, body=body),)
    return body


def _plain(e: Expr) -> int | Expr:
    return int(e.value) if isinstance(e, L.Const) else e
