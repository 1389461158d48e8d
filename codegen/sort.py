"""Sorting and searching as loops over rows.

Elements are compared by keys: integers in the order wanted, so every dtype is sorted alike.

A row is sorted by merging from the bottom up: runs of 1, 2, 4, ... elements, pairwise, to and fro between two pairs of
rows (keys and positions). The merge takes the left one of equals, which makes it stable. Rows are shared out among
threads; a single row's merges are.

The first few of a row are found in one walk: they lie sorted beside, and the row passes by in windows, whose least keys
are taken as long as they come before the last one that lies there. Most windows of a long row give none, so that a row
costs about as much as its minimum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from kiln.codegen.lower import CPU, GRAIN, Lowered, Steps, Style
from kiln.ir import loops as L
from kiln.ir.graph import Operation
from kiln.ir.loops import INDEX, Alloc, Block, Buffer, Carry, Expr, For, Kernel, Let, Stmt, Store, Var, While
from kiln.ir.types import Dim, DType, Sym, TensorType, float32, float64, int32, int64

SORTS: Final = ("argsort", "topk", "searchsorted")
STEPS: Final = 64
"""Operations per element of a sorted row, and per element looked up, roughly."""
WALK: Final = 8
"""Operations per element of a row whose first few are looked for, roughly."""
WINDOW: Final = 256
"""Elements that such a walk looks at together."""


def lower_sort(op: Operation, strides: Sequence[Steps]) -> Lowered:
    """The kernel of an op of `SORTS`; its result is row-major. `strides`: of its operands (None: row-major)."""
    lowering = Lowering(op, strides)
    return lowering.lowered(lowering.body())


class Lowering:
    """The loops of all of them, over the leading dimensions and inside a row."""

    def __init__(self, op: Operation, strides: Sequence[Steps], style: Style = CPU) -> None:
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
        n = self.n
        names = ("keys", "other_keys", "other_places")
        kinds = (self.kind, self.kind, int64)
        keys, other_keys, other_places = (
            Buffer(x, kind, (_plain(n),), (1,), "workspace") for x, kind in zip(names, kinds, strict=True)
        )
        i = Var(INDEX, "i")
        value = L.load(self.inputs[0], (*self.lead, i))
        fill = (Store(keys, (i,), self.key(value)), Store(self.out, (*self.lead, i), i))

        def place(k: Expr) -> tuple[Expr, ...]:
            return (*self.lead, k)

        width, done = Var(INDEX, "width"), Var(INDEX, "done")
        there = self._merge("a", width, (keys, self.out, place), (other_keys, other_places, lambda k: (k,)))
        twice = L.mul(width, L.index(2))
        back = self._merge("b", twice, (other_keys, other_places, lambda k: (k,)), (keys, self.out, place))
        carried = Carry(width, L.index(1), L.mul(width, L.index(4)), done)
        body: Block = (
            Alloc(keys),
            Alloc(other_keys),
            Alloc(other_places),
            For("serial", i, L.index(0), n, fill),
            While(L.apply("lt", width, n), (*there, *back), (carried,)),
        )
        return self.rows(body, L.mul(n, L.index(STEPS)))

    def key(self, x: Expr) -> Expr:
        """An integer in the order of the elements: NaN is the largest number, zeros are equal."""
        kind = self.kind
        if x.dtype.is_floating_point:
            real = float32 if kind is int32 else float64
            wide = L.add(L.cast(x, real), L.const(0.0, real))
            bits = L.bitcast(wide, kind)
            flip = L.apply("and", L.apply("shr", bits, L.const(kind.bits - 1, kind)), L.const(kind.most, kind))
            key = L.select(L.apply("ne", wide, wide), L.const(kind.most, kind), L.apply("xor", bits, flip))
        else:
            key = L.cast(x, kind)
        return L.apply("not", key) if self.op.attrs["descending"] else key

    def _merge(self, tag: str, width: Expr, source: _Rows, target: _Rows) -> Block:
        """Runs of `width` of the source merged by two into the target."""
        n = self.n
        (keys, places, at), (to_keys, to_places, to) = source, target

        def var(stem: str) -> Var:
            return Var(INDEX, f"{stem}_{tag}")

        run, k, left, right = var("run"), var("k"), var("left"), var("right")
        low, middle, high = var("low"), var("middle"), var("high")
        span = L.mul(width, L.index(2))
        head: tuple[Stmt, ...] = (
            Let(low, L.mul(run, span)),
            Let(middle, L.apply("min", L.add(low, width), n)),
            Let(high, L.apply("min", L.add(low, span), n)),
        )
        one = L.index(1)
        left_at, right_at = var("left_at"), var("right_at")
        left_key, right_key = (Var(L.Vec(self.kind), f"{side}_key_{tag}") for side in ("left", "right"))
        take, chosen = Var(L.BOOL, f"take_{tag}"), var("chosen")
        left_over = L.apply("ge", left, middle)
        smaller = L.apply("or", left_over, L.apply("lt", right_key, left_key))
        body: Block = (
            Let(left_at, L.apply("min", left, L.sub(middle, one))),
            Let(right_at, L.apply("min", right, L.sub(high, one))),
            Let(left_key, L.load(keys, (left_at,))),
            Let(right_key, L.load(keys, (right_at,))),
            Let(take, L.apply("and", L.apply("lt", right, high), smaller)),
            Let(chosen, L.select(take, right_at, left_at)),
            Store(to_keys, (k,), L.select(take, right_key, left_key)),
            Store(to_places, to(k), L.load(places, at(chosen))),
        )
        step = L.cast(take, int64)
        carried = (
            Carry(left, low, L.add(left, L.sub(one, step)), var("left_end")),
            Carry(right, middle, L.add(right, step), var("right_end")),
        )
        merge = For("serial", k, low, high, body, carried=carried)
        runs = L.apply("div", L.sub(L.add(n, span), one), span)
        grain = L.add(L.apply("div", L.index(GRAIN // 16), span), one)
        return (For("parallel", run, L.index(0), runs, (*head, merge), grain=grain),)

    # ------------------------------------------------------------------------------- the first few

    def top(self) -> Block:
        """The first k by insertion; then every window gives what comes before the last of them, least first."""
        k, n = self.op.attrs["k"], self.n
        assert isinstance(k, int)
        best, window = (
            Buffer("best", self.kind, (k,), (1,), "stack"),
            Buffer("window", self.kind, (WINDOW,), (1,), "stack"),
        )
        i, start, j = Var(INDEX, "i"), Var(INDEX, "start"), Var(INDEX, "j")
        width, rest = L.index(WINDOW), Var(INDEX, "rest")
        count = Var(INDEX, "count")
        no_key = L.const(self.kind.most, self.kind)
        first, here = self._key_at("first", i), L.load(self.inputs[0], (*self.lead, L.add(start, j)))
        body: Block = (
            Alloc(best),
            Alloc(window),
            For("serial", i, L.index(0), L.index(k), (first, *self._insert("first", best, first.var, i, i))),
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

    def _key_at(self, tag: str, i: Expr) -> Let:
        """The key of a row's element under a name."""
        return Let(Var(L.Vec(self.kind), f"key_{tag}"), self.key(L.load(self.inputs[0], (*self.lead, i))))

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


_Rows = tuple[Buffer, Buffer, Callable[[Expr], tuple[Expr, ...]]]
"""Keys, positions, and the index of an element of the positions."""


def key_type(dtype: DType) -> DType:
    """The integers that elements are compared by."""
    return int64 if dtype.bits == 64 else int32


def _plain(e: Expr) -> int | Expr:
    """Literals as plain ints, as buffers hold them."""
    return int(e.value) if isinstance(e, L.Const) else e
