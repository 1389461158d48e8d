"""Scans as loops: the scanned dimension is walked serially, the others side by side.

16 neighbours along the last dimension are the lanes of a vector, which share one walk; blocks of 16 and the dimensions
before are shared out among threads. Every element of a result is made as if alone, whatever the shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from kiln.codegen.lower import GRAIN, Lowered, Steps
from kiln.ir import loops as L
from kiln.ir.graph import Operation
from kiln.ir.loops import INDEX, Block, Buffer, Carry, Expr, For, Kernel, Store, Var, Vec
from kiln.ir.ops.scan import SCANS as SCANS
from kiln.ir.order import LANES, identity
from kiln.ir.types import Dim, Sym, TensorType, float32

COST: Final = 8
"""Operations per element, roughly: a step waits for the one before."""


def lower_scan(op: Operation, strides: Sequence[Steps]) -> Lowered:
    """The kernel of a scan; its result is row-major. `strides`: of its operands (None: row-major)."""
    lowering = _Lowering(op, strides)
    body = lowering.loops()
    names = tuple(sorted(lowering.symbols))
    params: tuple[Buffer | Var, ...] = (*lowering.inputs, lowering.out, *(lowering.symbols[n] for n in names))
    work = COST * math.prod(n for n in op.result.type.shape if isinstance(n, int))
    return Lowered(Kernel("kernel", params, body), names, {}, [()], False, work)


class _Lowering:
    def __init__(self, op: Operation, strides: Sequence[Steps]) -> None:
        self.op = op
        self.symbols: dict[str, Var] = {}
        pairs = zip(op.operands, strides, strict=True)
        self.inputs = [self._buffer(f"in{k}", v.type, s) for k, (v, s) in enumerate(pairs)]
        self.out = self._buffer("out0", op.result.type, None)
        dim = op.attrs["dim"]
        assert isinstance(dim, int)
        self.dim = dim
        self.sizes = [self.extent(d) for d in op.result.type.shape]
        self.index: list[Expr] = [Var(INDEX, f"i{d}") for d in range(len(self.sizes))]

    def extent(self, d: Dim) -> Expr:
        if isinstance(d, Sym):
            return self.symbols.setdefault(d.name, Var(INDEX, d.name))
        return L.index(d)

    def _buffer(self, name: str, t: TensorType, strides: Steps) -> Buffer:
        sizes, steps = [self.extent(d) for d in t.shape], [self.extent(d) for d in strides or ()]
        if strides is None:
            step: Expr = L.index(1)
            for size in reversed(sizes):
                steps.insert(0, step)
                step = L.mul(step, size)
        return Buffer(name, t.dtype, tuple(map(_plain, sizes)), tuple(map(_plain, steps)))

    def loops(self) -> Block:
        """The loops around the scan: those of the dimensions but the last, the blocks of lanes, the lanes. A scan along
        the last dimension has no lanes: neighbours would lie a row apart, and a row is read fastest from end to end."""
        others = [d for d in range(len(self.sizes)) if d != self.dim]
        work = L.mul(self.sizes[self.dim], L.index(COST))
        around: list[tuple[Expr, Expr]] = []
        body = self._walk()
        if others and others[-1] > self.dim:
            last = others.pop()
            body, block, blocks = self._lanes(last)
            around.append((block, blocks))
            work = L.mul(work, L.index(LANES))
        around[:0] = [(self.index[d], self.sizes[d]) for d in others]
        for k, (var, count) in reversed(list(enumerate(around))):
            assert isinstance(var, Var)
            grain = None
            if k == 0:
                grain = L.add(L.apply("div", L.index(GRAIN), L.apply("max", work, L.index(1))), L.index(1))
            body = (For("serial" if k else "parallel", var, L.index(0), count, body, grain=grain),)
            work = L.mul(work, count)
        return body

    def _lanes(self, last: int) -> tuple[Block, Expr, Expr]:
        """One block of lanes along the last dimension, the blocks' variable and how many there are."""
        size, block, lane = self.sizes[last], Var(INDEX, "block"), Var(INDEX, "lane")
        first = L.mul(block, L.index(LANES))
        self.index[last] = L.add(first, lane)
        lanes = L.apply("min", L.sub(size, first), L.index(LANES))
        body: Block = (For("vector", lane, L.index(0), lanes, self._walk()),)
        return body, block, L.apply("div", L.add(size, L.index(LANES - 1)), L.index(LANES))

    # ------------------------------------------------------------------------------------ one walk

    def _walk(self) -> Block:
        """The scan along its dimension, at one place of the others."""
        n, k = self.sizes[self.dim], Var(INDEX, "k")
        at = L.sub(L.sub(n, L.index(1)), k) if self.op.attrs.get("reverse") else k
        index = (*self.index[: self.dim], at, *self.index[self.dim + 1 :])
        loads = [L.load(b, index) for b in self.inputs]
        values = [L.cast(v, float32) if v.dtype.is_half else v for v in loads]
        start = L.apply("eq", k, L.index(0))
        if self.op.op.name == "cumargmax":
            return self._extremum(n, k, values[0], start, index)
        if self.op.op.name == "cumsum":
            (x,) = values
            state = Var(x.type, "sum")
            after, first = L.apply("add", state, x), identity("add", x.dtype)
        else:
            a, b = values
            state = Var(b.type, "y")
            after, first = L.select(start, b, L.apply("add", L.apply("mul", a, state), b)), 0
        carried = Carry(state, L.const(first, state.type), after, Var(state.type, "end"))
        store = Store(self.out, index, L.cast(after, self.out.dtype))
        return (For("serial", k, L.index(0), n, (store,), carried=(carried,)),)

    def _extremum(self, n: Expr, k: Var, x: Expr, start: Expr, index: tuple[Expr, ...]) -> Block:
        best, place = Var(x.type, "best"), Var(INDEX, "place")
        takes = L.apply("ge", x, best)
        if x.dtype.is_floating_point:
            takes = L.apply("and", takes, L.apply("eq", best, best))
            takes = L.apply("or", takes, L.apply("ne", x, x))
        takes = L.apply("or", start, takes)
        value, found = L.select(takes, x, best), L.select(takes, k, place)
        carried = (
            Carry(best, L.const(0, x.type), value, Var(x.type, "last")),
            Carry(place, L.index(0), found, Var(Vec(INDEX.dtype), "end")),
        )
        return (For("serial", k, L.index(0), n, (Store(self.out, index, found),), carried=carried),)


def _plain(e: Expr) -> int | Expr:
    return int(e.value) if isinstance(e, L.Const) else e
