"""Scatters on a GPU whose values may all meet: blocks of threads claim elements, and look for the values that they get.

Which block of threads an element belongs to, and which of its groups of threads, a hash of the element's place says.
Every block reads all places, some at a time, and keeps the numbers of the values that are for its own elements, in
order. Its threads then walk those: a group takes the values for its elements, its threads their columns. So the values
of an element meet it one after another, in ascending order, and nobody else writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from kiln.codegen.blocks import conjunction
from kiln.codegen.cuda.chains import Names, Scheduled, flatten, product
from kiln.ir import loops as L
from kiln.ir.gpu_program import number
from kiln.ir.loops import Alloc, Barrier, Block, Buffer, Carry, Expr, For, If, Kernel, Let, Load, Stmt, Store, Var
from kiln.ir.loops_gpu import Rank
from kiln.ir.loops_walk import evaluated, reachable, substituted
from kiln.ir.types import int32, int64

THREADS: Final = 256
BLOCKS: Final = 512
EACH: Final = 8
"""Places that a thread looks at in a round."""
FEW: Final = 4
"""Values per block of threads, at least, where it is known how many there are."""
SPREAD: Final = 0x9E3779B97F4A7C15 - 2**64
"""Neighbouring places times this differ in all bits."""
FROM: Final = 32


@dataclass(frozen=True, slots=True)
class Claim:
    """Values that are walked by `loops`: what is computed of each, whether it goes anywhere (`ok`), and what it does
    then; `key` is the same for values that may meet one element. `outer`: independent loops around, each with values of
    its own. `columns`: one that no place depends on. The innermost loop of `inner`, if there is one, is shared out."""

    outer: tuple[For, ...]
    columns: For | None
    loops: tuple[For, ...]
    before: Block
    ok: Expr
    inner: Block
    key: Expr


def claimed(block: Block) -> Claim | None:
    """The claim of a kernel's body; None where it has another form."""
    around, loops = list[For](), list[For]()
    while len(block) == 1 and isinstance(block[0], For) and not block[0].carried:
        loop = block[0]
        plain = isinstance(loop.lo, L.Const) and loop.lo.value == 0 and loop.step == 1
        bound = {x.var for x in (*around, *loops)}
        if not plain or bound & set(reachable([loop.hi])) or (loop.kind == "parallel" and loops):
            return None
        (loops if loop.kind == "serial" else around).append(loop)
        block = loop.body
    count = product(loops)
    alone = isinstance(count, L.Const) and int(count.value) <= 1
    if alone or not block or not isinstance(block[-1], If) or block[-1].orelse:
        return None
    before, last = block[:-1], block[-1]
    inner, shared = last.then, list[For]()
    if len(inner) == 1 and isinstance(inner[0], For) and inner[0].kind == "vector":
        shared, inner = [inner[0]], inner[0].body
    if any(_nothing(loop.hi) for loop in (*around, *shared)):
        return None  # nothing is computed, and names would be left over
    stores = [s for s in inner if isinstance(s, Store)]
    simple = all(isinstance(s, Let | L.Verify) for s in before) and all(isinstance(s, Let | Store) for s in inner)
    if not simple or len(stores) != 1 or stores[0].mask is not None:
        return None
    return _claim(around, loops, (before, last), shared, (inner, stores[0]))


def _nothing(count: Expr) -> bool:
    """Whether it is known to be 0."""
    return not any(isinstance(x, Var) for x in reachable([count])) and number(count, {}) == 0


def _claim(
    around: list[For], loops: list[For], values: tuple[Block, If], shared: list[For], of: tuple[Block, Store]
) -> Claim | None:
    (before, last), (inner, store) = values, of
    if any(
        isinstance(e, Load) and e.buffer is store.buffer and e.indices != store.indices
        for e in reachable(evaluated((*before, last)))
    ):
        return None  # elements that meet others
    memo: dict[Expr, Expr] = {loop.var: L.index(0) for loop in shared}
    depends = set(reachable([*evaluated(before), last.cond]))
    free = [loop for loop in around if loop.var not in depends]
    if len(free) > 1 or any(loop.var in depends for loop in around[len(around) - len(free) :] if loop in free):
        return None
    memo.update((loop.var, L.index(0)) for loop in free)
    for s in (*before, *inner):
        if isinstance(s, Let):
            memo[s.var] = substituted(s.value, memo) if s in inner else s.var
    if len(store.indices) != 1 or store.buffer.strides != (1,):
        return None
    key = substituted(store.indices[0], memo)
    if any(isinstance(e, Load) and e.buffer is store.buffer for e in reachable([key])):
        return None
    outer = tuple(loop for loop in around if loop not in free)
    return Claim(outer, free[0] if free else None, tuple(loops), before, last.cond, last.then, key)


def schedule_claim(kernel: Kernel, c: Claim, names: Names) -> Scheduled:
    """The launch of a kernel whose body is a claim."""
    count, outer = product(list(c.loops)), product(list(c.outer))
    blocks = BLOCKS
    while blocks > 1 and isinstance(outer, L.Const) and int(outer.value) * blocks > BLOCKS:
        blocks //= 2
    while blocks > 1 and isinstance(count, L.Const) and int(count.value) < blocks * FEW:
        blocks //= 2
    thread, owner, flat = names.var("thread"), names.var("owner"), names.var("outer")
    walk_all = _Walk(kernel, c, names, thread, owner, count, blocks)
    if c.outer:
        task = names.var("task")
        split: Block = (
            Let(owner, L.apply("and", task, L.index(blocks - 1))),
            Let(flat, L.apply("shr", task, L.index(blocks.bit_length() - 1))),
        )
        body = (*split, *flatten(list(c.outer), flat, names), *walk_all.rounds())
        grid = For("grid", task, L.index(0), L.mul(outer, L.index(blocks)), body)
    else:
        grid = For("grid", owner, L.index(0), L.index(blocks), walk_all.rounds())
    block = For("block", thread, L.index(0), L.index(THREADS), (*map(Alloc, walk_all.shared), grid))
    return Scheduled(replace(kernel, body=(block,)), THREADS, L.mul(outer, L.index(blocks)))


class _Walk:
    def __init__(
        self, kernel: Kernel, c: Claim, names: Names, thread: Var, owner: Var, count: Expr, blocks: int
    ) -> None:
        self.c, self.names, self.thread, self.owner, self.count, self.blocks = c, names, thread, owner, count, blocks
        self.found = Buffer("found", int64, (THREADS * EACH,), (1,), "shared")
        self.ranks = Buffer("ranks", int32, (THREADS // 32,), (1,), "shared")
        self.shared = (self.found, self.ranks)

    def hash(self) -> Expr:
        mixed = L.apply("mul", self.c.key, L.index(SPREAD))
        return L.apply("and", L.apply("shr", mixed, L.index(FROM)), L.index(2**31 - 1))

    def rounds(self) -> Block:
        """All values: some at a time are looked at, and those of this block then meet their elements."""
        names, base = self.names, self.names.var("base")
        first, total, u = names.var("first"), names.var("total"), names.var("u")
        mine = Buffer(names.var("mine").name, int64, (EACH,), (1,), "register")
        number = L.add(base, L.add(L.mul(self.thread, L.index(EACH)), u))
        many, counted = names.var("many"), names.var("counted")
        look = For("unrolled", u, L.index(0), L.index(EACH), self._look(mine, u, number))
        tally = Carry(many, L.index(0), L.add(many, L.load(mine, (u,))), counted)
        count = For("unrolled", u, L.index(0), L.index(EACH), (), carried=(tally,))
        place, ended, held = names.var("place"), names.var("ended"), L.load(mine, (u,))
        note = If(L.apply("ne", held, L.index(0)), (Store(self.found, (place,), number),))
        keep = For(
            "unrolled", u, L.index(0), L.index(EACH), (note,), carried=(Carry(place, first, L.add(place, held), ended),)
        )
        body: Block = (
            Alloc(mine),
            look,
            count,
            Rank(counted, self.ranks, first, total),
            keep,
            Barrier(),
            self._meet(total),
            Barrier(),
        )
        return (For("serial", base, L.index(0), self.count, body, step=THREADS * EACH),)

    def _look(self, mine: Buffer, u: Var, number: Expr) -> Block:
        """Whether a value is for this block of threads."""
        owned = L.apply("eq", L.apply("and", self.hash(), L.index(self.blocks - 1)), self.owner)
        named, flag = self.names.var("number"), self.names.var("flag")
        goes = conjunction(self.c.ok, owned)
        last = (Let(flag, L.select(goes, L.index(1), L.index(0))), Store(mine, (u,), flag))
        checks = tuple(s for s in self.c.before if not isinstance(s, Let))
        lets = (*flatten(list(self.c.loops), named, self.names), *self.c.before)
        inside = (*(s for s in lets if s in checks or s in _needed(lets, (*checks, *last))), *last)
        return (
            Store(mine, (u,), L.index(0)),
            Let(named, number),
            If(L.apply("lt", named, self.count), inside),
        )

    def _meet(self, total: Var) -> Stmt:
        """The values that were found meet their elements."""
        c, k, named = self.c, self.names.var("k"), self.names.var("value")
        columns = next((s for s in c.inner if isinstance(s, For)), None)
        wide = 1
        while columns is not None and wide < THREADS:
            if isinstance(columns.hi, L.Const) and int(columns.hi.value) <= wide:
                break
            wide *= 2
        groups = THREADS // wide
        bits = self.blocks.bit_length() - 1
        group = L.apply("shr", self.thread, L.index(wide.bit_length() - 1))
        theirs = L.apply("and", L.apply("shr", self.hash(), L.index(bits)), L.index(groups - 1))
        inner: Block = c.inner
        if columns is not None:
            start = L.add(columns.lo, L.apply("and", self.thread, L.index(wide - 1)))
            inner = (replace(columns, kind="serial", lo=start, step=wide),)
        if c.columns is not None:
            inner = (replace(c.columns, kind="serial", body=inner),)
        if groups > 1:
            inner = (If(L.apply("eq", theirs, group), inner),)
        lets: Block = tuple(s for s in c.before if isinstance(s, Let))
        lets = (Let(named, L.load(self.found, (k,))), *flatten(list(c.loops), named, self.names), *lets)
        body = (*_needed(lets, inner), *inner)
        return For("serial", k, L.index(0), total, body)


def _needed(lets: Block, block: Block) -> Block:
    """Those of the Lets that a block needs."""
    needs, found = set(reachable(evaluated(block))), list[Stmt]()
    for s in reversed(lets):
        if isinstance(s, Let) and s.var in needs:
            found.insert(0, s)
            needs |= set(reachable([s.value]))
    return tuple(found)
