"""Sorting and searching as loops over rows.

A row is sorted by merging from the bottom up: runs of 1, 2, 4, ... elements, pairwise, to and fro between two pairs of
rows (keys and positions). Keys are int64 in the order wanted, so every dtype is sorted alike; the merge takes the left
one of equals, which makes it stable. Rows are shared out among threads; a single row's merges are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from kiln.codegen.lower import CPU, GRAIN, Lowered, Steps, Style
from kiln.ir import loops as L
from kiln.ir.graph import Operation
from kiln.ir.loops import INDEX, Alloc, Block, Buffer, Carry, Expr, For, Kernel, Let, Stmt, Store, Var, While
from kiln.ir.types import Dim, Sym, TensorType, float32, float64, int64

TOP: Final = 2**63 - 1
STEPS: Final = 64
"""Operations per element of a sorted row, and per element looked up, roughly."""


def lower_sort(op: Operation, strides: Sequence[Steps]) -> Lowered:
    """The kernel of an argsort or searchsorted; its result is row-major. `strides`: of its operands (None:
    row-major)."""
    lowering = Lowering(op, strides)
    return lowering.lowered(lowering.sort() if op.op.name == "argsort" else lowering.search())


class Lowering:
    """The loops of both, over the leading dimensions and inside a row."""

    def __init__(self, op: Operation, strides: Sequence[Steps], style: Style = CPU) -> None:
        self.op = op
        self.nested = style.nested
        self.symbols: dict[str, Var] = {}
        pairs = zip(op.operands, strides, strict=True)
        self.inputs = [self._buffer(f"in{k}", v.type, s) for k, (v, s) in enumerate(pairs)]
        self.out = self._buffer("out0", op.result.type, None)
        *lead, last = op.operands[0].type.shape
        self.lead = [Var(INDEX, f"i{d}") for d in range(len(lead))]
        self.sizes = [self.dim(n) for n in lead]
        self.n = self.dim(last)

    def dim(self, d: Dim) -> Expr:
        if isinstance(d, Sym):
            return self.symbols.setdefault(d.name, Var(INDEX, d.name))
        return L.index(d)

    def _buffer(self, name: str, t: TensorType, strides: Steps) -> Buffer:
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
        keys, other_keys, other_places = (Buffer(x, int64, (_plain(n),), (1,), "workspace") for x in names)
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
        """int64 in the order of the elements: NaN is the largest number, zeros are equal."""
        if x.dtype.is_floating_point:
            wide = L.add(L.cast(x, float64), L.const(0.0, float64))
            bits = L.bitcast(wide, int64)
            flip = L.apply("and", L.apply("shr", bits, L.index(63)), L.index(TOP))
            key = L.select(L.apply("ne", wide, wide), L.index(TOP), L.apply("xor", bits, flip))
        else:
            key = L.cast(x, int64)
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
        left_key, right_key = var("left_key"), var("right_key")
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


def _plain(e: Expr) -> int | Expr:
    """Literals as plain ints, as buffers hold them."""
    return int(e.value) if isinstance(e, L.Const) else e
