"""Row reductions on a GPU: teams of threads carry the accumulators of the contract's lanes order in registers.

A team takes up to BLOCK elements of a row. Its threads walk them in steps of 64 neighbouring elements; in a step each
has `width` of them, 16 bytes where they lie so, and so carries `width` of the 64 accumulators. At the end the threads
of a team, which are in one warp, combine them by shuffles. Every pass over a row shares it out in the same way, so that
threads read what they have stored themselves, and need not wait for each other.

- Rows of up to BLOCK elements: a team each, several in a block of threads. Of rows of fewer than 64 elements only the
  accumulators that exist take part, in smaller teams.
- Longer ones: the teams of a block of threads take BLOCK elements each, round after round, and meet in shared memory,
  where the sums of the blocks are added ascending.
- A row that several passes read comes to shared memory, asked for as a whole before anything is computed; so does a
  row that a CPU keeps on its stack.

Where teams are more than there are rows, they work on the last one and store nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kiln.codegen.blocks import conjunction, maximum, minimum, quotient
from kiln.codegen.cuda.chains import (
    WEIGHT,
    Names,
    Scheduled,
    finish,
    flatten,
    outer_loops,
    parts,
    product,
    serial,
    serial_reduce,
    start_state,
    weight,
)
from kiln.codegen.cuda.vector import BYTES, step
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
from kiln.ir.loops_gpu import Arrive, Move
from kiln.ir.loops_walk import evaluated, map_expr, reachable, rewritten, stmt_blocks, substituted, walk
from kiln.ir.order import BLOCK, GROUPS, LANES
from kiln.ir.types import DType

CELLS: Final = GROUPS * LANES
"""Accumulators of a block."""
THREADS: Final = 256
WARP: Final = 32
ENOUGH: Final = 512
"""Blocks of threads that keep a GPU busy."""
ROOM: Final = 44 << 10
"""Bytes of shared memory for the rows of a block of threads."""
WIDE_ROOM: Final = 8 << 10
"""Bytes of shared memory per row from which more threads share it."""
TEAMS: Final = 16
AHEAD: Final = 8
"""Steps whose elements are read before the first of them is used."""

State = tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """How rows are shared out: elements of a thread (neighbours if `packed`, else `threads` apart), threads of a
    team, teams of a row, rows of a block of threads."""

    width: int
    threads: int
    teams: int
    rows: int
    packed: bool

    @property
    def span(self) -> int:
        """Elements of a team's step."""
        return self.width * self.threads

    @property
    def whole(self) -> int:
        """Threads of a block."""
        return max(self.threads * self.teams * self.rows, 1)


@dataclass(frozen=True)
class Pass:
    """A loop along the row: what is read and written side by side, and the operations per element."""

    var: Var
    count: Expr
    body: Block
    values: tuple[Expr, ...]
    moved: tuple[Load, ...]
    put: tuple[Store, ...]
    weight: int


def schedule_rows(kernel: Kernel, names: Names, segment: Var | None = None) -> Scheduled:
    """The launch of a kernel with row reductions inside; of a single one only that block of the row."""
    loops, inside = outer_loops(kernel.body, ("parallel",))
    return _Rows(kernel, loops, inside, names, segment).scheduled()


def row_loops(block: Block) -> Iterator[Reduce | For]:
    """The loops along the row at the top of a block."""
    for s in block:
        if (isinstance(s, Reduce) and s.order == "lanes") or (
            isinstance(s, For) and s.kind == "vector" and isinstance(s.lo, L.Const) and s.lo.value == 0
        ):
            yield s


def _every_row_loop(block: Block) -> Iterator[Reduce | For]:
    yield from row_loops(block)
    for s in block:
        if not (isinstance(s, Reduce) and s.order == "lanes") and not (isinstance(s, For) and s.kind == "vector"):
            for inner, _ in stmt_blocks(s):
                yield from _every_row_loop(inner)


def _pass(s: Reduce | For) -> Pass:
    var, count = (s.var, s.hi) if isinstance(s, For) else s.axes[0]
    values = s.values if isinstance(s, Reduce) else ()
    body = serial(s.body, Names())
    every = reachable([*values, *evaluated(body)])
    lets = {x.var: x.value for x in body if isinstance(x, Let)}
    inner = _bound_inside(body)
    stored = {x.buffer for x in walk(body) if isinstance(x, Store)}
    before = {(x.buffer, *(_key(i, var) for i in x.indices)) for x in _stores(body) if x.buffer.scope == "shared"}

    def beside(buffer: Buffer, indices: tuple[Expr, ...]) -> bool:
        """Whether neighbouring elements of the row lie side by side."""
        if buffer.scope not in ("global", "workspace", "shared") or step(buffer, indices, var, lets) != 1:
            return False
        needs, at = set[Expr](), list(indices)
        while at:
            found = reachable(at)
            at = [lets[x] for x in found if isinstance(x, Var) and x in lets and x not in needs]
            needs |= set(found)
        return not any(isinstance(x, Load) or x in inner for x in needs)

    loads = [e for e in every if isinstance(e, Load) and e.mask is None]
    # A row of the stack may lie where one was brought: then its elements are read before they are written.
    loads = [e for e in loads if e.buffer not in stored or (e.buffer, *(_key(i, var) for i in e.indices)) in before]
    moved = tuple(e for e in loads if beside(e.buffer, e.indices))
    put = tuple(x for x in body if isinstance(x, Store) and x.mask is None and beside(x.buffer, x.indices))
    return Pass(var, count, body, values, moved, put, weight(every))


def _bound_inside(block: Block) -> set[Expr]:
    """What the statements of a block bind, but for its own Lets."""
    found: set[Expr] = set()
    for s in walk(block):
        if isinstance(s, For | L.While):
            found |= {c.var for c in s.carried} | {c.result for c in s.carried}
        if isinstance(s, For):
            found.add(s.var)
        if isinstance(s, Let) and s not in block:
            found.add(s.var)
    return found


def _stores(block: Block) -> list[Store]:
    return [s for s in walk(block) if isinstance(s, Store)]


def _power(n: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, n - 1).bit_length()


class _Rows:
    def __init__(
        self, kernel: Kernel, loops: list[For], inside: Block, names: Names, segment: Var | None = None
    ) -> None:
        self.kernel, self.loops, self.names, self.segment = kernel, loops, names, segment
        self.total = product(loops)
        self.written = {s.buffer for s in walk(kernel.body) if isinstance(s, Store)}
        self.known = {p for p in kernel.params if isinstance(p, Var)} | {loop.var for loop in loops}
        self.thread = names.var("thread")
        self.shared: dict[object, Buffer] = {}
        sizes = {p.count.value if isinstance(p.count, L.Const) else None for p in map(_pass, _every_row_loop(inside))}
        self.length = int(sizes.pop() or 0) if len(sizes) == 1 and None not in sizes else None
        stack = [s.buffer for s in inside if isinstance(s, Alloc)]
        staged = self._repeated(inside)
        while True:
            lent = self._lent(inside, stack, staged)
            nbytes = sum(self._nbytes(b) for b in (*stack, *staged) if b not in lent)
            self.form = self._form(inside, nbytes)
            if not staged or self.form.rows * nbytes <= ROOM:
                break
            staged.pop(max(staged, key=self._nbytes))
        per_row = self.form.threads * self.form.teams
        self.lane, self.slot = _low(self.thread, per_row), _high(self.thread, per_row)
        if self.form.rows == 1:
            self.slot = L.index(0)
        self.exists: Expr | None = None
        self.bring: list[Stmt] = []
        self.inside = self._with_rows(inside, stack, staged, lent)
        self.meet_after = self._foreign()
        self.used = set(reachable(evaluated(self.inside)))

    # ------------------------------------------------------------------------------------ the form

    def _nbytes(self, b: Buffer) -> int:
        """Bytes of shared memory for a row of this buffer."""
        length = b.shape[0] if b.scope == "stack" else self.length
        assert isinstance(length, int)
        return -(-length * b.dtype.itemsize // BYTES) * BYTES

    def _repeated(self, inside: Block) -> dict[Buffer, list[tuple[Load, Var]]]:
        """What several passes read at the same places of rows that nothing writes."""
        if self.length is None:
            return {}
        found: dict[Buffer, dict[object, list[tuple[int, Load, Var]]]] = {}
        for k, s in enumerate(row_loops(inside)):
            p = _pass(s)
            for e in p.moved:
                free = {x for x in reachable(e.indices) if isinstance(x, Var)} - {p.var}
                if e.buffer.scope == "global" and e.buffer not in self.written and free <= self.known:
                    key: object = tuple(_key(i, p.var) for i in e.indices)
                    found.setdefault(e.buffer, {}).setdefault(key, []).append((k, e, p.var))
        alone = {b: next(iter(keys.values())) for b, keys in found.items() if len(keys) == 1}
        return {b: [(e, var) for _, e, var in at] for b, at in alone.items() if len({k for k, _, _ in at}) > 1}

    def _form(self, inside: Block, nbytes: int) -> Form:
        passes = [_pass(s) for s in _every_row_loop(inside)]
        buffers = [e.buffer for p in passes for e in p.moved] + [s.buffer for p in passes for s in p.put]
        widest = max((b.dtype.itemsize for b in buffers), default=4)
        width, n = min(8, max(2, BYTES // widest)), self.length
        if n is not None and nbytes > WIDE_ROOM:
            width = 2
        packed = n is None or n % width == 0
        threads = CELLS // width if n is None or n >= CELLS else _power(-(-n // width))
        if (n is None or n > BLOCK) and self.segment is None:
            least = max(1, WARP // threads)
            return Form(width, threads, max(least, min(TEAMS, _power(-(-n // BLOCK)))) if n else least * 2, 1, packed)
        rows, least = THREADS // threads, max(1, WARP // threads)
        while rows > least and rows * nbytes > ROOM * 3 // 4:
            rows //= 2
        while rows > least and isinstance(self.total, L.Const) and int(self.total.value) < rows * ENOUGH:
            rows //= 2
        return Form(width, threads, 1, rows, packed)

    # --------------------------------------------------------------------- rows in shared memory

    def _lent(
        self, inside: Block, stack: Sequence[Buffer], staged: dict[Buffer, list[tuple[Load, Var]]]
    ) -> dict[Buffer, Buffer]:
        """Rows of the stack that take the place of one that was brought: the pass that stores them is the last one that
        reads it."""
        found: dict[Buffer, Buffer] = {}
        for b in stack:
            stores = [k for k, s in enumerate(row_loops(inside)) if any(x.buffer is b for x in _stores((s,)))]
            for of, loads in staged.items():
                reads = [k for k, s in enumerate(row_loops(inside)) if _pass(s).var in {var for _, var in loads}]
                if stores and of.dtype is b.dtype and max(reads) <= stores[0] and of not in found.values():
                    found.setdefault(b, of)
        return found

    def _with_rows(
        self,
        inside: Block,
        stack: Sequence[Buffer],
        staged: dict[Buffer, list[tuple[Load, Var]]],
        lent: dict[Buffer, Buffer],
    ) -> Block:
        """The inside, with its rows in shared memory."""
        places = {b: self._row(b) for b in (*stack, *staged) if b not in lent}
        places.update((b, places[of]) for b, of in lent.items())
        memo: dict[Expr, Expr] = {}
        for b, loads in staged.items():
            memo.update((e, L.load(places[b], (self.slot, var))) for e, var in loads)
            self._fetch(b, *loads[0], places[b])

        def load(e: Expr) -> Expr:
            if isinstance(e, Load) and e.buffer in stack:
                return L.load(places[e.buffer], (self.slot, *e.indices), e.mask)
            return e

        def of(e: Expr) -> Expr:
            return map_expr(e, load, memo)

        def store(s: Store) -> Store:
            return replace(s, buffer=places[s.buffer], indices=(self.slot, *s.indices)) if s.buffer in stack else s

        rest = tuple(s for s in inside if not isinstance(s, Alloc))
        return rewritten(rest, of, store)

    def _row(self, b: Buffer) -> Buffer:
        length = self._nbytes(b) // b.dtype.itemsize
        made = Buffer(f"{b.name}_row", b.dtype, (self.form.rows, length), (length, 1), "shared")
        self.shared[b] = made
        return made

    def _fetch(self, b: Buffer, load: Load, var: Var, there: Buffer) -> None:
        """Ask for the elements of a row, each thread for those that it will read."""
        form, at = self.form, self.names.var("at")
        assert self.length is not None
        lanes = form.width if form.packed else 1
        indices = tuple(substituted(i, {var: at}) for i in load.indices)
        place = L.add(L.mul(self.slot, L.as_index(there.strides[0])), at)
        n = L.index(self.length)
        move = Move(b, indices, there, L.sub(n, at), False, place, lanes, True)
        first = L.mul(self.lane, L.index(lanes))
        self.bring.append(For("serial", at, first, n, (move,), step=form.threads * form.teams * lanes))

    def _foreign(self) -> set[Buffer]:
        """What threads write and others of their block read."""
        own: set[Expr] = {e for s in _every_row_loop(self.inside) for e in _pass(s).moved}
        written = {s.buffer for s in walk(self.inside) if isinstance(s, Store)}
        every = reachable(evaluated(self.inside))
        return {e.buffer for e in every if isinstance(e, Load) and e not in own and e.buffer in written}

    # ----------------------------------------------------------------------------------- the launch

    def scheduled(self) -> Scheduled:
        form, names, group = self.form, self.names, self.names.var("group")
        threads = form.whole
        row = names.var("row")
        groups = parts(self.total, form.rows)
        raw = L.add(L.mul(group, L.index(form.rows)), self.slot)
        inner: list[Stmt] = []
        if form.rows > 1 and not (isinstance(self.total, L.Const) and int(self.total.value) % form.rows == 0):
            named, real = names.var("named"), names.var("exists", L.BOOL)
            inner += [Let(named, raw), Let(real, L.apply("lt", named, self.total))]
            self.exists, raw = real, minimum(named, L.sub(self.total, L.index(1)))
        if self.loops:
            inner += [Let(row, raw), *flatten(self.loops, row, names)]
        inner += self.bring
        if self.bring:
            inner.append(Arrive())
            inner += [Barrier()] * (form.teams > 1)
        inner += self.block(self.inside)
        if self.meet_after or (self.bring and form.teams > 1):
            inner.append(Barrier())  # nobody starts the next row while this one's is still read
        grid = For("grid", group, L.index(0), groups, tuple(inner))
        body = (*map(Alloc, self.shared.values()), grid)
        block = For("block", self.thread, L.index(0), L.index(threads), body)
        return Scheduled(replace(self.kernel, body=(block,)), threads, groups)

    def block(self, block: Block) -> Block:
        out: list[Stmt] = []
        for s in block:
            if isinstance(s, Reduce) and s.order == "lanes":
                out += self._meeting(s, self._reduce(s))
            elif isinstance(s, Reduce):
                out += serial_reduce(replace(s, body=()), self.block(s.body), self.names)
            elif isinstance(s, For) and s.kind == "vector":
                out += self._meeting(s, self._along(_pass(s), []))
            elif isinstance(s, For):
                out.append(replace(s, kind="serial", body=self.block(s.body)))
            elif isinstance(s, L.While):
                out.append(replace(s, body=self.block(s.body)))
            elif isinstance(s, If):
                out.append(If(s.cond, self.block(s.then), self.block(s.orelse)))
            elif isinstance(s, Store):
                out += self._meeting(s, (If(self._guarded(L.apply("eq", self.lane, L.index(0))), (s,)),))
            else:
                out.append(self._masked(s))
        return tuple(out)

    def _meeting(self, s: Stmt, block: Block) -> Block:
        """Others read what this stores only when all have stored it, and before it is stored again."""
        if any(isinstance(x, Store) and x.buffer in self.meet_after for x in walk((s,))):
            return (Barrier(), *block, Barrier())
        return block

    def _guarded(self, test: Expr) -> Expr:
        return test if self.exists is None else conjunction(test, self.exists)

    def _masked(self, s: Stmt) -> Stmt:
        """A check holds of rows that exist."""
        if self.exists is None or not isinstance(s, L.Verify):
            return s
        return replace(s, mask=self.exists if s.mask is None else conjunction(s.mask, self.exists))

    # ------------------------------------------------------------------------------ along the row

    def _along(self, p: Pass, acc: Sequence[Buffer], combine: str = "") -> Block:
        """All that this thread does of a pass, without a meeting."""
        if self.form.teams == 1:
            return self._part(p, *self._range(p), acc, combine)
        start, team = self.names.var("start"), self._team()
        stop = minimum(L.add(start, L.index(BLOCK)), p.count)
        body = self._part(p, start, stop, self._regular(), acc, combine)
        first, far = L.mul(team, L.index(BLOCK)), BLOCK * self.form.teams
        return (For("serial", start, first, p.count, body, step=far),)

    def _range(self, p: Pass) -> tuple[Expr, Expr, int | None]:
        """What a row's only team walks, and how many elements those are."""
        if self.segment is None:
            return L.index(0), p.count, self.length
        start = L.mul(self.segment, L.index(BLOCK))
        return start, minimum(L.add(start, L.index(BLOCK)), p.count), self._regular()

    def _team(self) -> Expr:
        return _high(self.lane, self.form.threads)

    def _regular(self) -> int | None:
        """BLOCK, where all blocks have so many elements and all teams one in every round."""
        return BLOCK if self.length and self.length % (BLOCK * self.form.teams) == 0 else None

    def _part(self, p: Pass, start: Expr, stop: Expr, length: int | None, acc: Sequence[Buffer], combine: str) -> Block:
        """The elements [start, stop), `length` of them, up to a block: whole rounds of steps, and the rest."""
        span, width = self.form.span, self.form.width
        ahead = AHEAD
        while ahead > 1 and ahead * width * p.weight > WEIGHT:
            ahead //= 2
        if length is not None:
            ahead = min(ahead, max(1, length // span))
            whole = length // (span * ahead) * span * ahead
            out = self._rounds(p, start, L.add(start, L.index(whole)), ahead, stop, True, acc, combine) if whole else ()
            rest = min(ahead, -(-(length - whole) // span)) if ahead >= AHEAD // 2 else 1
            if length > whole:
                out += self._rounds(p, L.add(start, L.index(whole)), stop, rest, stop, False, acc, combine)
            return out
        middle, far = self.names.var("middle"), L.index(span * ahead)
        count = maximum(L.sub(stop, start), L.index(0))
        return (
            Let(middle, L.add(start, L.mul(quotient(count, far), far))),
            *self._rounds(p, start, middle, ahead, stop, True, acc, combine),
            *self._rounds(p, middle, stop, ahead, stop, False, acc, combine),
        )

    def _rounds(
        self, p: Pass, lo: Expr, hi: Expr, ahead: int, stop: Expr, whole: bool, acc: Sequence[Buffer], combine: str
    ) -> Block:
        """Rounds of `ahead` steps from lo to hi: reads, then elements, then writes. `whole`: all elements exist."""
        form, names = self.form, self.names
        base, first, u, e = (names.var(x) for x in ("base", "first", "step", "cell"))
        inner = _low(self.lane, form.threads)
        lanes = form.width if form.packed else 1
        out: list[Stmt] = [Let(first, L.add(base, L.mul(inner, L.index(lanes))))]
        here = L.add(first, L.mul(u, L.index(form.span)))
        cell = L.add(L.mul(u, L.index(form.width)), e)
        at = L.add(here, e if form.packed else L.mul(e, L.index(form.threads)))
        count = L.index(form.width) if whole else L.sub(stop, here)
        reads, writes = list[Stmt](), list[Stmt]()
        known: dict[Expr, Expr] = {}

        def part_of(b: Buffer) -> Buffer:
            made = Buffer(f"{b.name}_{names.var('part').name}", b.dtype, (ahead * form.width,), (1,), "register")
            out.append(Alloc(made))
            return made

        def place(indices: Sequence[Expr], spot: Expr) -> tuple[Expr, ...]:
            memo: dict[Expr, Expr] = {p.var: spot}
            for s in p.body:
                if isinstance(s, Let) and not any(isinstance(x, Load) for x in reachable([s.value])):
                    memo[s.var] = substituted(s.value, memo)
            return tuple(substituted(i, memo) for i in indices)

        def each(*body: Stmt) -> For:
            return For("unrolled", e, L.index(0), L.index(form.width), body)

        exists = None if whole else L.apply("lt", at, stop)
        for load in p.moved:
            part = part_of(load.buffer)
            known[load] = L.load(part, (cell,))
            if form.packed:
                reads.append(
                    Move(
                        load.buffer,
                        place(load.indices, here),
                        part,
                        count,
                        False,
                        L.mul(u, L.index(form.width)),
                        form.width,
                    )
                )
            else:
                reads.append(each(Store(part, (cell,), L.load(load.buffer, place(load.indices, at), exists))))
        if reads:
            out.append(For("unrolled", u, L.index(0), L.index(ahead), tuple(reads)))
        parts_of: dict[Store, Buffer] = {}
        for s in p.put:
            if form.packed:
                part = parts_of[s] = part_of(s.buffer)
                kept = (
                    count
                    if self.exists is None or s.buffer.scope == "shared"
                    else L.select(self.exists, count, L.index(0))
                )
                writes.append(
                    Move(s.buffer, place(s.indices, here), part, kept, True, L.mul(u, L.index(form.width)), form.width)
                )
        spots = {s: (b, cell) for s, b in parts_of.items()}
        element = self._element(p, at, exists, known, spots, acc, combine, e)
        out.append(For("unrolled", u, L.index(0), L.index(ahead), (each(*element),)))
        if writes:
            out.append(For("unrolled", u, L.index(0), L.index(ahead), tuple(writes)))
        return (For("serial", base, lo, hi, tuple(out), step=form.span * ahead),)

    def _element(
        self,
        p: Pass,
        at: Expr,
        exists: Expr | None,
        known: dict[Expr, Expr],
        parts_of: dict[Store, tuple[Buffer, Expr]],
        acc: Sequence[Buffer],
        combine: str,
        e: Var,
    ) -> Block:
        """One element: the body with what has been read, then the accumulators."""
        memo = {**known, p.var: at}
        put = {id(s): parts_of[s] for s in parts_of}

        def of(x: Expr) -> Expr:
            return substituted(x, memo)

        out: list[Stmt] = []
        for s in p.body:
            if id(s) in put:
                assert isinstance(s, Store)
                out.append(Store(put[id(s)][0], (put[id(s)][1],), of(s.value)))
                continue
            (made,) = rewritten((s,), of)
            stores = any(isinstance(x, Store) and x.buffer.scope == "global" for x in walk((made,)))
            out.append(If(self.exists, (made,)) if stores and self.exists is not None else self._masked(made))
        if acc:
            values = tuple(map(of, p.values))
            before = tuple(L.load(a, (e,)) for a in acc)
            after = combine_state(combine, before, values)
            named = tuple(self.names.var("next", x.type) for x in after)
            out += [Let(v, x) for v, x in zip(named, after, strict=True)]
            out += [Store(a, (e,), v) for a, v in zip(acc, named, strict=True)]
        return tuple(out) if exists is None else (If(exists, tuple(out)),)

    # --------------------------------------------------------------------------------- reductions

    def _reduce(self, s: Reduce) -> Block:
        form, names, p = self.form, self.names, _pass(s)
        init = start_state(s.combine, s.values)
        acc = [Buffer(names.var("acc").name, x.dtype, (form.width,), (1,), "register") for x in init]
        e = names.var("cell")
        stores = tuple(Store(a, (e,), x) for a, x in zip(acc, init, strict=True))
        clear = For("unrolled", e, L.index(0), L.index(form.width), stores)
        start: list[Stmt] = [*map(Alloc, acc), clear]
        if form.teams == 1:
            state = list(self._part(p, *self._range(p), acc, s.combine))
            result = self._tree(s.combine, acc, state)
            return (*start, *state, *self._named(finish(s, result, p.count)))
        base, team = names.var("round"), self._team()
        first = names.var("start")
        stop = minimum(L.add(first, L.index(BLOCK)), p.count)
        body: list[Stmt] = [clear, Let(first, L.add(base, L.mul(team, L.index(BLOCK))))]
        body += self._part(p, first, stop, self._regular(), acc, s.combine)
        mine = self._tree(s.combine, acc, body)
        slots = [self._meet(i, x.dtype) for i, x in enumerate(mine)]
        leads = L.apply("eq", _low(self.lane, form.threads), L.index(0))
        body += [If(leads, tuple(Store(b, (team,), x) for b, x in zip(slots, mine, strict=True))), Barrier()]
        totals = tuple(names.var("total", x.type) for x in init)
        inner, results = (tuple(names.var("sum", x.type) for x in init) for _ in range(2))
        k, ends = names.var("team"), tuple(names.var("sums", x.type) for x in init)
        after = combine_state(s.combine, inner, tuple(L.load(b, (k,)) for b in slots))
        carried = tuple(map(Carry, inner, totals, after, ends))
        body += [For("unrolled", k, L.index(0), L.index(form.teams), (), carried=carried), Barrier()]
        rounds = tuple(map(Carry, totals, init, ends, results))
        loop = For("serial", base, L.index(0), p.count, tuple(body), step=BLOCK * form.teams, carried=rounds)
        return (*map(Alloc, acc), loop, *self._named(finish(s, results, p.count)))

    def _named(self, results: Block) -> Block:
        """Those of the results that something needs."""
        return tuple(s for s in results if not isinstance(s, Let) or s.var in self.used)

    def _meet(self, i: int, dtype: DType) -> Buffer:
        key = (i, dtype)
        if key not in self.shared:
            self.shared[key] = Buffer(f"meet{i}", dtype, (self.form.teams,), (1,), "shared")
        return self.shared[key]

    def _tree(self, combine: str, acc: Sequence[Buffer], out: list[Stmt]) -> State:
        """The team's accumulators combined, by all its threads alike: groups, then lanes from far to near."""
        form = self.form
        live: dict[int, State] = {e: tuple(L.load(a, (L.index(e),)) for a in acc) for e in range(form.width)}
        inside, outside = (range(form.width.bit_length() - 1), range(form.threads.bit_length() - 1))
        bits = [("cell", b) for b in inside], [("lane", b) for b in outside]
        order = (*bits[0], *bits[1]) if form.packed else (*bits[1], *bits[0])
        for bit in (4, 5, 3, 2, 1, 0):  # of the accumulators' numbers
            if bit >= len(order):
                continue
            kind, b = order[bit]
            if kind == "cell":
                live = {e: combine_state(combine, x, live[e | 1 << b]) for e, x in live.items() if not e & 1 << b}
            else:
                live = {e: self._bind(out, x) for e, x in live.items()}
                live = {e: self._exchanged(combine, x, 1 << b, out) for e, x in live.items()}
        return live[0]

    def _exchanged(self, combine: str, mine: State, xor: int, out: list[Stmt]) -> State:
        """What two threads have, combined; the one with the lower number comes first."""
        other = self._bind(out, tuple(L.Warp(x.type, x, xor) for x in mine))
        if combine not in ("max", "min") or not mine[0].dtype.is_floating_point:
            return combine_state(combine, mine, other)
        later = L.apply("ne", L.apply("and", self.thread, L.index(xor)), L.index(0))
        (a,), (b,) = mine, other
        return combine_state(combine, (L.select(later, b, a),), (L.select(later, a, b),))

    def _bind(self, out: list[Stmt], values: State) -> State:
        bound = tuple(self.names.var("v", e.type) for e in values)
        out.extend(Let(v, e) for v, e in zip(bound, values, strict=True))
        return bound


def _low(e: Expr, n: int) -> Expr:
    """The remainder by a power of two."""
    return L.index(0) if n == 1 else L.apply("and", e, L.index(n - 1))


def _high(e: Expr, n: int) -> Expr:
    """The quotient by a power of two."""
    return e if n == 1 else L.apply("shr", e, L.index(n.bit_length() - 1))


def _key(e: Expr, var: Var) -> object:
    """What expressions over different loop variables have in common."""
    if e is var:
        return "var"
    if isinstance(e, L.Const):
        return ("const", e.value)
    if isinstance(e, L.Apply):
        return (e.fn, *(_key(a, var) for a in e.args))
    return e
