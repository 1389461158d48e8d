"""Sorting and searching as loops over rows.

Elements are compared by keys: integers in the order wanted, so every dtype is sorted alike.

A row is sorted by merging from the bottom up: sorted runs of 16, 32, 64, ... elements, pairwise, to and fro between two
halves of a buffer. A merge takes the left one of equals, which makes it stable; it works from both ends at once, two
chains that don't wait for each other. Keys of 32 bits share an integer with their positions: no two are equal then, and
a network of comparisons sorts 16 runs side by side, whose order of equals is none of its business. Keys of 64 bits have
their positions beside them, and their runs begin with one element. Rows are shared out among threads; a single row's
merges are.

The first few of a row are found in one walk: they lie sorted beside, and the row passes by in windows, whose least keys
are taken as long as they come before the last one that lies there. Most windows of a long row give none, so that a row
costs about as much as its minimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kiln.codegen.lower import CPU, GRAIN, Lowered, Steps, Style
from kiln.ir import loops as L
from kiln.ir.graph import Operation
from kiln.ir.loops import INDEX, Alloc, Block, Buffer, Carry, Expr, For, If, Kernel, Let, Stmt, Store, Var, While
from kiln.ir.order import LANES
from kiln.ir.types import Dim, DType, Sym, TensorType, float32, float64, int32, int64

SORTS: Final = ("argsort", "topk", "searchsorted")
STEPS: Final = 64
"""Operations per element of a sorted row, and per element looked up, roughly."""
RUN: Final = 16
"""Elements that a network of comparisons sorts."""
SHORT: Final = 24
"""Rows of so many elements are sorted by insertion."""
LOW: Final = (1 << 32) - 1
"""The part of a key with a position that is the position."""
WALK: Final = 8
"""Operations per element of a row whose first few are looked for, roughly."""
WINDOW: Final = 256
"""Elements that such a walk looks at together."""


def lower_sort(op: Operation, strides: Sequence[Steps], style: Style = CPU) -> Lowered:
    """The kernel of an op of `SORTS`; its result is row-major. `strides`: of its operands (None: row-major)."""
    lowering = _Lowering(op, strides, style)
    return lowering.lowered(lowering.body())


class _Lowering:
    """The loops of all of them, over the leading dimensions and inside a row."""

    def __init__(self, op: Operation, strides: Sequence[Steps], style: Style) -> None:
        self.op = op
        self.nested = style.nested
        self.symbols: dict[str, Var] = {}
        pairs = zip(op.operands, strides, strict=True)
        self.inputs = [self.buffer(f"in{k}", v.type, s) for k, (v, s) in enumerate(pairs)]
        self.out = self.buffer("out0", op.result.type, None)
        *lead, last = op.operands[0].type.shape
        self.lead = [Var(INDEX, f"i{d}") for d in range(len(lead))]
        self.sizes = [self.dim(n) for n in lead]
        self.n = self.dim(last)
        self.kind = key_type(op.operands[0].type.dtype)

    def body(self) -> Block:
        """What the kernel does."""
        return {"argsort": self.sort, "topk": self.top, "searchsorted": self.search}[self.op.op.name]()

    def dim(self, d: Dim) -> Expr:
        if isinstance(d, Sym):
            return self.symbols.setdefault(d.name, Var(INDEX, d.name))
        return L.index(d)

    def buffer(self, name: str, t: TensorType, strides: Steps) -> Buffer:
        """Memory for a tensor of type `t`."""
        sizes, steps = [self.dim(d) for d in t.shape], list(map(self.dim, strides or ()))
        if strides is None:
            step: Expr = L.index(1)
            for size in reversed(sizes):
                steps.insert(0, step)
                step = L.mul(step, size)
        return Buffer(name, t.dtype, tuple(map(_plain, sizes)), tuple(map(_plain, steps)))

    def lowered(self, body: Block) -> Lowered:
        """The kernel with this body."""
        names = tuple(sorted(self.symbols))
        params: tuple[Buffer | Var, ...] = (*self.inputs, self.out, *(self.symbols[n] for n in names))
        if self.op.op.name == "topk":
            work = WALK * math.prod(n for n in self.op.operands[0].type.shape if isinstance(n, int))
        else:
            work = STEPS * math.prod(n for n in self.op.result.type.shape if isinstance(n, int))
        return Lowered(Kernel("kernel", params, body), names, {}, [()], True, work)

    def rows(self, body: Block, work: Expr) -> Block:
        """The loops over the leading dimensions; `work` is that of one row."""
        inner: Expr = work
        for d in reversed(range(len(self.lead))):
            grain = None
            if d == 0:
                grain = L.add(L.apply("div", L.index(GRAIN), L.apply("max", inner, L.index(1))), L.index(1))
            body = (For(self.nested if d else "parallel", self.lead[d], L.index(0), self.sizes[d], body, grain=grain),)
            inner = L.mul(inner, self.sizes[d])
        return body

    # ------------------------------------------------------------------------------------- sorting

    def sort(self) -> Block:
        """Runs, then merges from one half of the buffers to the other, then the positions."""
        n = self.n
        twice = (_plain(L.mul(n, L.index(2))),)
        row = _Row(Buffer("keys", int64, twice, (1,), "workspace"), None)
        if self.kind is int64:
            row = _Row(row.keys, Buffer("places", int64, twice, (1,), "workspace"))
        width, base, i = Var(INDEX, "width"), Var(INDEX, "base"), Var(INDEX, "i")
        last, found = Var(INDEX, "last"), Var(INDEX, "found")
        carried = (
            Carry(width, L.index(1 if row.places else RUN), L.mul(width, L.index(2)), last),
            Carry(base, L.index(0), L.sub(n, base), found),
        )
        place: Expr = L.load(row.places or row.keys, (L.add(found, i),))
        if row.places is None:
            place = L.apply("and", place, L.index(LOW))
        long: Block = (
            *map(Alloc, (b for b in (row.keys, row.places) if b)),
            self._singles(row) if row.places else self._runs(row.keys),
            While(L.apply("lt", width, n), self._merges(row, width, base), carried),
            For("vector", i, L.index(0), n, (Store(self.out, (*self.lead, i), place),)),
        )
        if isinstance(n, L.Const):
            body = long if int(n.value) > SHORT else self._short()
        else:
            body = (If(L.apply("gt", n, L.index(SHORT)), long, self._short()),)
        return self.rows(body, L.mul(n, L.index(STEPS)))

    def _short(self) -> Block:
        """A row of no more than `SHORT` elements: one after the other is put where it belongs."""
        best = Buffer("best", self.kind, (SHORT,), (1,), "stack")
        return (Alloc(best), self._insertions(best, self.n))

    def _insertions(self, best: Buffer, count: Expr) -> For:
        """The first `count` elements in order."""
        i = Var(INDEX, "first")
        key = Var(L.Vec(self.kind), "key_first")
        let = Let(key, self.key(L.load(self.inputs[0], (*self.lead, i))))
        return For("serial", i, L.index(0), count, (let, *self._insert("first", best, key, i, i)))

    def _singles(self, row: _Row) -> For:
        """Runs of one element."""
        assert row.places is not None
        i = Var(INDEX, "single")
        key = self.key(L.load(self.inputs[0], (*self.lead, i)))
        return For("vector", i, L.index(0), self.n, (Store(row.keys, (i,), key), Store(row.places, (i,), i)))

    def _runs(self, keys: Buffer) -> For:
        """Runs of `RUN` elements, each sorted in a lane of vectors; what is not there comes last."""
        n, block, lane = self.n, Var(INDEX, "block"), Var(INDEX, "lane")
        first = L.add(L.mul(block, L.index(RUN * LANES)), L.mul(lane, L.index(RUN)))
        body: list[Stmt] = []
        wires: list[Expr] = []
        inside: list[Expr] = []
        at = [L.add(first, L.index(k)) for k in range(RUN)]
        for k, i in enumerate(at):
            there, wire = Var(L.BOOL, f"there{k}"), Var(INDEX, f"wire{k}")
            x = L.load(self.inputs[0], (*self.lead, i), there)
            numbered = L.apply("or", L.apply("shl", L.cast(self.key(x), int64), L.index(32)), i)
            body += [Let(there, L.apply("lt", i, n)), Let(wire, L.select(there, numbered, L.index(int64.most)))]
            wires.append(wire)
            inside.append(there)
        for low, high in network(RUN):
            a, b = wires[low], wires[high]
            wires[low], wires[high] = L.apply("min", a, b), L.apply("max", a, b)
        body += [Store(keys, (i,), wire, there) for i, wire, there in zip(at, wires, inside, strict=True)]
        width = L.index(RUN * LANES)
        blocks = L.apply("div", L.sub(L.add(n, width), L.index(1)), width)
        lanes = For("vector", lane, L.index(0), L.index(LANES), tuple(body))
        return For("parallel", block, L.index(0), blocks, (lanes,), grain=L.index(GRAIN // (RUN * LANES * STEPS) + 1))

    def key(self, x: Expr) -> Expr:
        """What an element is compared by."""
        return key_of(x, bool(self.op.attrs["descending"]))

    def _merges(self, row: _Row, width: Expr, base: Expr) -> Block:
        """Runs of `width` from `base` on, merged by two into the other half."""
        n, run = self.n, Var(INDEX, "run")
        low, middle, high = (Var(INDEX, x) for x in ("low", "middle", "high"))
        span = L.mul(width, L.index(2))
        whole = L.apply("eq", L.sub(high, low), span)
        body: Block = (
            Let(low, L.mul(run, span)),
            Let(middle, L.apply("min", L.add(low, width), n)),
            Let(high, L.apply("min", L.add(low, span), n)),
            If(
                whole,
                (_from_both_ends(row, width, base, L.sub(n, base), low),),
                (_merge(row, n, base, low, middle, high),),
            ),
        )
        runs = L.apply("div", L.sub(L.add(n, span), L.index(1)), span)
        grain = L.add(L.apply("div", L.index(GRAIN // 16), span), L.index(1))
        return (For("parallel", run, L.index(0), runs, body, grain=grain),)

    # ------------------------------------------------------------------------------- the first few

    def top(self) -> Block:
        """The first k by insertion; then every window gives what comes before the last of them, least first."""
        k, n = self.op.attrs["k"], self.n
        assert isinstance(k, int)
        best, window = (
            Buffer("best", self.kind, (k,), (1,), "stack"),
            Buffer("window", self.kind, (WINDOW,), (1,), "stack"),
        )
        start, j = Var(INDEX, "start"), Var(INDEX, "j")
        width, rest = L.index(WINDOW), Var(INDEX, "rest")
        count = Var(INDEX, "count")
        no_key = L.const(self.kind.most, self.kind)
        here = L.load(self.inputs[0], (*self.lead, L.add(start, j)))
        body: Block = (
            Alloc(best),
            Alloc(window),
            self._insertions(best, L.index(k)),
            For(
                "serial",
                start,
                L.index(k),
                n,
                (
                    Let(count, L.apply("min", L.sub(n, start), width)),
                    For("vector", j, L.index(0), count, (Store(window, (j,), self.key(here)),)),
                    For(
                        "vector", rest, L.index(0), L.sub(width, count), (Store(window, (L.add(count, rest),), no_key),)
                    ),
                    *self._take(best, window, start, k),
                ),
                WINDOW,
            ),
        )
        return self.rows(body, L.mul(n, L.index(WALK)))

    def _take(self, best: Buffer, window: Buffer, start: Expr, k: int) -> Block:
        """While the least key of the window comes before the last of the best: it is taken out and put there. What has
        been taken out is the largest key, which comes before none."""
        kind = L.Vec(self.kind)
        least, next_least, found = Var(kind, "least"), Var(kind, "next_least"), Var(kind, "found")
        worst, at, place = Var(kind, "worst"), Var(kind, "at"), Var(INDEX, "place")
        last = L.index(k - 1)
        j = Var(INDEX, "j_equal")
        number = L.cast(j, self.kind)
        equal = L.apply("eq", L.load(window, (j,)), least)
        candidate = L.select(equal, number, L.const(WINDOW, self.kind))
        body: Block = (
            L.Reduce((at,), "min", "lanes", ((j, L.index(WINDOW)),), (), (candidate,)),
            Let(place, L.cast(at, int64)),
            Store(window, (place,), L.const(self.kind.most, self.kind)),
            *self._insert("next", best, least, L.add(start, place), last),
            self._least("again", window, next_least),
        )
        carried = (
            Carry(least, found, next_least, Var(kind, "least_end")),
            Carry(worst, L.load(best, (last,)), L.load(best, (last,)), Var(kind, "worst_end")),
        )
        return (self._least("first", window, found), While(L.apply("lt", least, worst), body, carried))

    def _least(self, tag: str, window: Buffer, result: Var) -> L.Reduce:
        j = Var(INDEX, f"j_{tag}")
        return L.Reduce((result,), "min", "lanes", ((j, L.index(WINDOW)),), (), (L.load(window, (j,)),))

    def _insert(self, tag: str, best: Buffer, key: Expr, place: Expr, free: Expr) -> Block:
        """A key among the sorted ones before the slot `free`, behind its equals, and the place of its element."""
        slot, at = Var(INDEX, f"slot_{tag}"), Var(INDEX, f"at_{tag}")
        before = L.apply("max", L.sub(slot, L.index(1)), L.index(0))
        larger = L.load(best, (before,))
        moves = L.apply("and", L.apply("gt", slot, L.index(0)), L.apply("gt", larger, key))
        move: Block = (
            Store(best, (slot,), larger),
            Store(self.out, (*self.lead, slot), L.load(self.out, (*self.lead, before))),
        )
        return (
            While(moves, move, (Carry(slot, free, L.sub(slot, L.index(1)), at),)),
            Store(best, (at,), key),
            Store(self.out, (*self.lead, at), place),
        )

    # ------------------------------------------------------------------------------------ searching

    def search(self) -> Block:
        table, values = self.inputs
        count = self.dim(self.op.operands[1].type.shape[-1])
        j, low, high, middle = (Var(INDEX, x) for x in ("j", "low", "high", "middle"))
        kind = float32 if values.dtype.is_half else values.dtype  # 16-bit floats compare as float32
        value = Var(L.Vec(kind), "value")
        here: Expr = L.load(table, (*self.lead, middle))
        here = L.cast(here, kind) if values.dtype.is_half else here
        beyond = Var(L.BOOL, "beyond")
        test = L.apply("gt" if self.op.attrs["right"] else "ge", here, value)
        body: Block = (
            Let(middle, L.apply("div", L.add(low, high), L.index(2))),
            Let(beyond, test),
        )
        found = Var(INDEX, "found")
        carried = (
            Carry(low, L.index(0), L.select(beyond, low, L.add(middle, L.index(1))), found),
            Carry(high, self.n, L.select(beyond, middle, high), Var(INDEX, "end")),
        )
        wanted = L.load(values, (*self.lead, j))
        search: Block = (
            Let(value, L.cast(wanted, kind) if values.dtype.is_half else wanted),
            While(L.apply("lt", low, high), body, carried),
            Store(self.out, (*self.lead, j), found),
        )
        grain = L.index(GRAIN // STEPS)
        row: Block = (For("parallel", j, L.index(0), count, search, grain=grain),)
        return self.rows(row, L.mul(count, L.index(STEPS)))


def network(n: int) -> list[tuple[int, int]]:
    """The comparisons, in order, that sort n wires (a power of two): Batcher's merges of odd and even ones."""
    found = []
    p = 1
    while p < n:
        k = p
        while k:
            for j in range(k % p, n - k, 2 * k):
                for i in range(j, min(j + k, n - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        found.append((i, i + k))
            k //= 2
        p *= 2
    return found


@dataclass(frozen=True)
class _Row:
    """Two halves of keys, and of positions unless those are part of the keys."""

    keys: Buffer
    places: Buffer | None

    def put(self, to: Expr, key: Expr, place: Expr) -> Block:
        """Write a key, and the position that lies at `place`."""
        key_there = Store(self.keys, (to,), key)
        return (key_there, Store(self.places, (to,), L.load(self.places, (place,)))) if self.places else (key_there,)


def _from_both_ends(row: _Row, width: Expr, base: Expr, other: Expr, low: Expr) -> For:
    """The 2·`width` elements from `low` on: the smallest ones ascending, and at the same time the largest ones
    descending. Neither run can be over before the last step."""
    t, one = Var(INDEX, "t"), L.index(1)
    i, j, p, q = (Var(INDEX, x) for x in "ijpq")
    a, b, c, d = (Var(INDEX, f"key_{x}") for x in "ijpq")
    right_first, left_last = Var(L.BOOL, "right_first"), Var(L.BOOL, "left_last")
    start = L.add(base, low)
    end = L.add(start, L.mul(width, L.index(2)))
    up, down = L.add(L.add(other, low), t), L.sub(L.sub(L.add(other, L.sub(end, base)), one), t)
    body: Block = (
        *(Let(key, L.load(row.keys, (at,))) for key, at in ((a, i), (b, j), (c, p), (d, q))),
        Let(right_first, L.apply("lt", b, a)),
        Let(left_last, L.apply("gt", c, d)),
        *row.put(up, L.select(right_first, b, a), L.select(right_first, j, i)),
        *row.put(down, L.select(left_last, c, d), L.select(left_last, p, q)),
    )
    right, left = L.cast(right_first, int64), L.cast(left_last, int64)
    middle = L.add(start, width)
    carried = (
        Carry(i, start, L.sub(L.add(i, one), right), Var(INDEX, "i_end")),
        Carry(j, middle, L.add(j, right), Var(INDEX, "j_end")),
        Carry(p, L.sub(middle, one), L.sub(p, left), Var(INDEX, "p_end")),
        Carry(q, L.sub(end, one), L.add(L.sub(q, one), left), Var(INDEX, "q_end")),
    )
    return For("serial", t, L.index(0), width, body, carried=carried)


def _merge(row: _Row, n: Expr, base: Expr, low: Expr, middle: Expr, high: Expr) -> For:
    """Two runs, of which the right one may be short, or none."""
    k, left, right, one = Var(INDEX, "k"), Var(INDEX, "left"), Var(INDEX, "right"), L.index(1)
    left_at, right_at = Var(INDEX, "left_at"), Var(INDEX, "right_at")
    left_key, right_key = Var(INDEX, "left_key"), Var(INDEX, "right_key")
    take = Var(L.BOOL, "take")
    smaller = L.apply("or", L.apply("ge", left, middle), L.apply("lt", right_key, left_key))
    body: Block = (
        Let(left_at, L.add(base, L.apply("min", left, L.sub(middle, one)))),
        Let(right_at, L.add(base, L.apply("min", right, L.sub(high, one)))),
        Let(left_key, L.load(row.keys, (left_at,))),
        Let(right_key, L.load(row.keys, (right_at,))),
        Let(take, L.apply("and", L.apply("lt", right, high), smaller)),
        *row.put(L.add(L.sub(n, base), k), L.select(take, right_key, left_key), L.select(take, right_at, left_at)),
    )
    step = L.cast(take, int64)
    carried = (
        Carry(left, low, L.add(left, L.sub(one, step)), Var(INDEX, "left_end")),
        Carry(right, middle, L.add(right, step), Var(INDEX, "right_end")),
    )
    return For("serial", k, low, high, body, carried=carried)


def key_of(x: Expr, descending: bool) -> Expr:
    """An integer in the order of the elements: NaN is the largest number, zeros are equal."""
    kind = key_type(x.dtype)
    if x.dtype.is_floating_point:
        real = float32 if kind is int32 else float64
        wide = L.add(L.cast(x, real), L.const(0.0, real))
        bits = L.bitcast(wide, kind)
        flip = L.apply("and", L.apply("shr", bits, L.const(kind.bits - 1, kind)), L.const(kind.most, kind))
        key = L.select(L.apply("ne", wide, wide), L.const(kind.most, kind), L.apply("xor", bits, flip))
    else:
        key = L.cast(x, kind)
    return L.apply("not", key) if descending else key


def key_type(dtype: DType) -> DType:
    """The integers that elements are compared by."""
    return int64 if dtype.bits == 64 else int32


def _plain(e: Expr) -> int | Expr:
    """Literals as plain ints, as buffers hold them."""
    return int(e.value) if isinstance(e, L.Const) else e
