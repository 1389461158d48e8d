"""What convolution and its gradient by the weights share: the register tile, tables of segments, panels (`conv.py`)."""

from __future__ import annotations

from typing import Final

from kiln.codegen.blocks import Names, is_, maximum, minimum, quotient, transposed, variables
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.loops import INDEX, Buffer, Carry, Expr, For, If, Invoke, Kernel, Let, Stmt, Store, Var, Vec
from kiln.ir.order import KBLOCK
from kiln.ir.target import Target
from kiln.ir.types import DType

GRAIN: Final = 1 << 16
"""Vector multiply-adds that are worth a thread."""
PACK_GRAIN: Final = 1 << 14
"""Packed elements that are worth a thread."""
VECTORS: Final = 2
"""Vectors of channels in a panel; narrow panels have one."""


class Family:
    """The kernels of one dtype that both entries use."""

    def __init__(self, dtype: DType, target: Target) -> None:
        self.dtype = dtype
        self.lanes = max(2, target.vector_bits // dtype.bits)
        self.rows = 8 if target.vector_bits >= 512 or target.arch == "aarch64" else 6
        self.panel = self.lanes * VECTORS
        self.stem = f"kiln_conv_{dtype.name}"
        self.vec = Vec(dtype, self.lanes)

    def memory(self, name: str, scope: str = "global", size: Expr | int = 1) -> Buffer:
        """Memory addressed by element."""
        return Buffer(name, self.dtype, (size,), (1,), scope)

    def numbers(self, name: str, size: Expr | int = 1, scope: str = "global") -> Buffer:
        """A table of int64."""
        return Buffer(name, T.int64, (size,), (1,), scope)

    def pitch(self, width: Expr) -> Expr:
        """Elements per k in a panel that holds `width` channels."""
        return L.select(L.apply("le", width, L.index(self.lanes)), L.index(self.lanes), L.index(self.panel))

    # ------------------------------------------------------------------------------------------- tile

    def tile_name(self, vectors: int) -> str:
        return f"{self.stem}_tile{self.rows}x{vectors}"

    def tile(self, vectors: int) -> Kernel:
        """c[row, :] = sum over k of x[k] * w[k, :]: `spots` holds for each of `rows` results its place in x (a k adds
        the place of the segment) and its row of c."""
        x, w, c = (self.memory(n) for n in ("x", "w", "c"))
        table, spots = self.numbers("table"), self.numbers("spots")
        blocks, x_step = variables("blocks x_step")
        places = [Var(INDEX, f"x{r}") for r in range(self.rows)]
        targets = [Var(INDEX, f"c{r}") for r in range(self.rows)]
        known = [
            Let(v, L.load(spots, (L.index(f),)))
            for f, v in enumerate(v for p in zip(places, targets, strict=True) for v in p)
        ]
        pitch = vectors * self.lanes
        cells = [(r, v) for r in range(self.rows) for v in range(vectors)]
        zero = L.const(0, self.vec)

        block, segment, i = variables("block segment i")
        base = segment * 3 + blocks + 3
        place, k, count = (Var(INDEX, name) for name in ("place", "k", "count"))
        fields = [Let(var, L.load(table, (base + f,))) for f, var in enumerate((place, k, count))]
        here = L.add(place, L.mul(i, x_step))
        at = L.add(k, i) * pitch
        column = [L.load(w, (L.ramp(at + v * self.lanes, self.lanes),)) for v in range(vectors)]
        row = [L.splat(L.load(x, (L.add(p, here),)), self.lanes) for p in places]

        def carry(level: str, cell: tuple[int, int]) -> tuple[Var, Var]:
            r, v = cell
            return Var(self.vec, f"{level}{r}_{v}"), Var(self.vec, f"{level}_out{r}_{v}")

        outer = {cell: carry("segment", cell) for cell in cells}
        inner = {cell: carry("sum", cell) for cell in cells}
        steps = [
            Carry(var, outer[r, v][0], L.apply("fma", row[r], column[v], var), out)
            for (r, v), (var, out) in inner.items()
        ]
        walk = For("serial", i, L.index(0), count, (), carried=tuple(steps))
        chain = [Carry(var, zero, inner[cell][1], out) for cell, (var, out) in outer.items()]
        first, last = L.load(table, (block + 2,)), L.load(table, (block + 3,))
        segments = For("serial", segment, first, last, (*fields, walk), carried=tuple(chain))
        again: list[Stmt] = []
        stores: list[Stmt] = []
        fresh: list[Stmt] = []
        for r, v in cells:
            there = (L.ramp(targets[r] * pitch + v * self.lanes, self.lanes),)
            total = Var(self.vec, f"total{r}_{v}")
            again.append(Let(total, L.add(L.load(c, there), outer[r, v][1])))
            stores.append(Store(c, there, total))
            fresh.append(Store(c, there, outer[r, v][1]))
        again += stores  # after all loads: rows may be the same one
        body = For("serial", block, L.index(0), blocks, (segments, If(is_(block, 0), tuple(fresh), tuple(again))))
        return Kernel(self.tile_name(vectors), (x, w, c, table, spots, blocks, x_step), (*known, body))

    def invoke_tile(self, narrow: Expr, buffers: tuple[tuple[Buffer, Expr], ...], scalars: tuple[Expr, ...]) -> Stmt:
        one, full = (Invoke(self.tile_name(v), (*buffers, *scalars)) for v in (1, VECTORS))
        return If(narrow, (one,), (full,))

    # --------------------------------------------------------------------------------------- segments

    def table_size(self, blocks: Expr, segments: Expr) -> Expr:
        """A table: number of segments, block of the last one, then for each block its first segment (one more for the
        end), then the segments: place of x, k, length."""
        return L.add(L.add(blocks, segments * 3), L.index(3))

    def append(self) -> Kernel:
        """Add the k from `k` to `k + length` to a table, cut at blocks; x lies at `place`, `x_step` further per k."""
        table = self.numbers("table")
        blocks, k, length, place, x_step = params = variables("blocks k length place x_step")
        names = Names()
        end = names.let("end", L.add(k, length))
        known, current = (names.let(n, L.load(table, (L.index(f),))) for f, n in enumerate(("known", "current")))

        b, s, last, fill = variables("b s last fill")
        body = Names()
        count = L.index(KBLOCK)
        low = body.let("low", maximum(k, L.mul(b, count)))
        high = body.let("high", minimum(end, L.mul(b + 1, count)))
        at = body.let("at", s * 3 + blocks + 3)
        begin = Store(table, (fill + 2,), s)
        body.add(For("serial", fill, last + 1, b + 1, (begin,)))
        fields = (L.add(place, L.mul(L.sub(low, k), x_step)), low, L.sub(high, low))
        stores = tuple(Store(table, (at + f,), value) for f, value in enumerate(fields))
        some = L.apply("lt", low, high)
        body.add(If(some, stores))
        s_after, last_after = variables("s_after last_after")
        more = L.select(some, L.index(1), L.index(0))
        carried = (Carry(s, known, L.add(s, more), s_after), Carry(last, current, b, last_after))
        names.add(
            For("serial", b, quotient(k, KBLOCK), quotient(L.add(end, count - 1), KBLOCK), body.block(), 1, carried)
        )
        names.add(Store(table, (L.index(0),), s_after), Store(table, (L.index(1),), last_after))
        return Kernel(f"{self.stem}_append", (table, *params), names.block())

    def start(self, table: Buffer, at: Expr) -> list[Stmt]:
        """An empty table at `at`."""
        return [Store(table, (at + f,), L.index(0)) for f in range(3)]

    def finish(self, table: Buffer, at: Expr, blocks: Expr) -> list[Stmt]:
        """The blocks behind the last segment are empty."""
        names = Names()
        known = names.let("known_now", L.load(table, (at,)))
        current = names.let("current_now", L.load(table, (at + 1,)))
        fill = Var(INDEX, "empty")
        names.add(For("serial", fill, current + 1, blocks + 1, (Store(table, (L.add(at, fill) + 2,), known),)))
        return names.statements

    def invoke_append(self, table: tuple[Buffer, Expr], *scalars: Expr) -> Stmt:
        return Invoke(f"{self.stem}_append", (table, *scalars))

    # ------------------------------------------------------------------------------- into and out of panels

    def pack(self) -> Kernel:
        """target[(a, b, c), 0:pitch] = source[a, b, c, 0:width]: rows of channels, which lie `s_lane` apart."""
        source, target = self.memory("source"), self.memory("target")
        params = variables("n_a n_b n_c s_a s_b s_c s_lane width pitch")
        n_a, n_b, n_c, s_a, s_b, s_c, s_lane, width, pitch = params
        a, b, c, v = variables("a b c v")
        outer = Names()
        there = outer.let("there", L.add(L.mul(a, s_a), L.mul(b, s_b)))
        here = outer.let("here", L.mul(L.add(L.mul(a, n_b), b), n_c))
        channel = L.ramp(v, self.lanes)
        inside = L.apply("lt", channel, L.splat(width, self.lanes))
        spread = L.apply("mul", channel, L.splat(s_lane, self.lanes))
        at = L.apply("add", L.splat(L.add(there, L.mul(c, s_c)), self.lanes), spread)
        move = Store(
            target, (L.ramp(L.add(L.mul(L.add(here, c), pitch), v), self.lanes),), L.load(source, (at,), inside)
        )
        one_by_one = For("serial", c, L.index(0), n_c, (For("serial", v, L.index(0), pitch, (move,), self.lanes),))
        turned = self._turned(source, target, there, here, params)
        outer.add(If(is_(s_c, 1), (turned,), (one_by_one,)))
        body = For("serial", a, L.index(0), n_a, (For("serial", b, L.index(0), n_b, outer.block()),))
        return Kernel(f"{self.stem}_pack", (source, target, *params), (body,))

    def _turned(self, source: Buffer, target: Buffer, there: Expr, here: Expr, params: list[Var]) -> Stmt:
        """The rows of `pack` where each channel lies in one run: square blocks, turned in registers. Channels behind
        the last one repeat it; their copies are never used."""
        n_c, s_lane, width, pitch = (params[k] for k in (2, 6, 7, 8))
        c, v = variables("c_block v_block")
        body = Names()
        inside = body.let("some", L.apply("lt", L.ramp(c, self.lanes), L.splat(n_c, self.lanes)))
        rows: list[Expr] = []
        for e in range(self.lanes):
            channel = minimum(v + e, width - 1)
            rows.append(L.load(source, (L.ramp(L.add(L.add(there, L.mul(channel, s_lane)), c), self.lanes),), inside))
        for e, row in enumerate([body.let(f"turned{e}", row) for e, row in enumerate(transposed(rows))]):
            at = L.ramp(L.add(L.mul(L.add(here, c + e), pitch), v), self.lanes)
            body.add(If(L.apply("lt", c + e, n_c), (Store(target, (at,), row),)))
        along = For("serial", v, L.index(0), pitch, body.block(), self.lanes)
        return For("serial", c, L.index(0), n_c, (along,), self.lanes)

    def line(self) -> Kernel:
        """out[channel, position] = c[position, channel] for `count` positions, in blocks that are turned in registers.
        Up to `lanes` rows of c behind the last position are read, and not used."""
        c, out = self.memory("c"), self.memory("out")
        count, width, pitch, out_c = params = variables("count width pitch out_c")
        o, p = variables("o p")
        rows: list[Expr] = [L.load(c, (L.ramp(L.add(L.mul(p + e, pitch), o), self.lanes),)) for e in range(self.lanes)]
        body = Names()
        inside = body.let("inside", L.apply("lt", L.ramp(p, self.lanes), L.splat(count, self.lanes)))
        turned = [body.let(f"turned{e}", row) for e, row in enumerate(transposed(rows))]
        for e, row in enumerate(turned):
            store = Store(out, (L.ramp(L.add(L.mul(o + e, out_c), p), self.lanes),), row, inside)
            body.add(If(L.apply("lt", o + e, width), (store,)))
        along = For("serial", p, L.index(0), count, body.block(), self.lanes)
        return Kernel(
            f"{self.stem}_line", (c, out, *params), (For("serial", o, L.index(0), width, (along,), self.lanes),)
        )
