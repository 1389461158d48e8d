"""The gradient of a convolution by its weights where there are few channels: a part of `conv_weight.py`.

A row of a tile is a pair of channel and tap then, so that tiles are full. Such rows do not miss the same positions, so
there are no segments: every row meets every position of a copy of x with a margin around, and a table says, for each
position of an image (rows that miss the same taps share theirs) and each row of the tile, whether the tap is there; if
not, the sum stays what it is. Blocks of k are chains of their own and computed in parallel, some at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kiln.codegen.blocks import Names, ceil_div, conjunction, is_, maximum, minimum, quotient, variables
from kiln.codegen.conv_tiles import GRAIN, PACK_GRAIN, VECTORS, Family
from kiln.ir import loops as L
from kiln.ir.loops import INDEX, Alloc, Buffer, Carry, Expr, For, If, Invoke, Kernel, Let, Stmt, Store, Var
from kiln.ir.order import KBLOCK

ROUND: Final = 64
"""Blocks whose sums are kept before they are added."""
Scalars = dict[str, Var]
PackGradient = Callable[[Buffer, Buffer, Scalars, Expr, Expr], Stmt]


class Few:
    """The kernels of one dtype."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.rows = 9 if family.rows == 8 else family.rows
        """Rows of a tile: nine taps are usual, and eighteen sums leave registers for the rest."""
        self.stem = f"kiln_conv_weight_{family.dtype.name}_few"

    def worth(self, channels: Expr) -> Expr:
        """Whether channels are few: these tiles also look up what is there."""
        return L.apply("le", channels, L.index(self.family.rows * 2 // 3))

    # ------------------------------------------------------------------------------------------- tile

    def tile(self, vectors: int) -> Kernel:
        """c[row, :] = sum of x * g over the positions from `begin` to `end`, which lie in one block; `spots` holds the
        place in x of each row at the first position."""
        family = self.family
        x, g, c, there = (family.memory(n) for n in ("x", "g", "c", "there"))
        params = variables("begin end out_h out_w low high x_n x_row x_step")
        begin, end, out_h, out_w, low, high, x_n, x_row, x_step = params
        spots = family.numbers("spots")
        places = [Var(INDEX, f"x{r}") for r in range(self.rows)]
        given = [Let(v, L.load(spots, (L.index(r),))) for r, v in enumerate(places)]
        cells = [(r, v) for r in range(self.rows) for v in range(vectors)]
        vec, lanes, pitch = family.vec, family.lanes, vectors * family.lanes
        line, j = variables("line j")
        names = Names()
        image, row = names.split(line, out_h)
        first = names.let("first", L.mul(line, out_w))
        start = names.let("start", maximum(begin, first))
        stop = names.let("stop", minimum(end, L.add(first, out_w)))
        column = names.let("column", L.sub(start, first))
        here = L.add(L.add(L.mul(image, x_n), L.mul(row, x_row)), L.mul(column, x_step))
        place = names.let("place", here)
        known = names.let("known", L.add(L.mul(self.kind(row, low, high), out_w), column) * self.rows)

        def carry(level: str, cell: tuple[int, int]) -> tuple[Var, Var]:
            r, v = cell
            return Var(vec, f"{level}{r}_{v}"), Var(vec, f"{level}_out{r}_{v}")

        outer = {cell: carry("line", cell) for cell in cells}
        inner = {cell: carry("sum", cell) for cell in cells}
        at = L.add(start, j) * pitch
        columns = [L.load(g, (L.ramp(at + v * lanes, lanes),)) for v in range(vectors)]
        moved = L.add(place, L.mul(j, x_step))
        marks = L.add(known, j * self.rows)
        one = L.const(1, vec)
        met = [L.apply("eq", L.splat(L.load(there, (marks + r,)), lanes), one) for r in range(self.rows)]
        row_x = [L.splat(L.load(x, (L.add(p, moved),)), lanes) for p in places]
        steps = [
            Carry(var, outer[r, v][0], L.select(met[r], L.apply("fma", row_x[r], columns[v], var), var), out)
            for (r, v), (var, out) in inner.items()
        ]
        names.add(For("serial", j, L.index(0), L.sub(stop, start), (), carried=tuple(steps)))
        chain = [Carry(var, L.const(0, vec), inner[cell][1], out) for cell, (var, out) in outer.items()]
        lines = (quotient(begin, out_w), ceil_div(end, out_w))
        walk = For("serial", line, *lines, names.block(), carried=tuple(chain))
        stores = [Store(c, (L.ramp(L.index(r * pitch + v * lanes), lanes),), outer[r, v][1]) for r, v in cells]
        return Kernel(self._tile(vectors), (x, g, c, there, spots, *params), (*given, walk, *stores))

    def _tile(self, vectors: int) -> str:
        return f"{self.stem}_tile{self.rows}x{vectors}"

    @staticmethod
    def kind(row: Expr, low: Expr, high: Expr) -> Expr:
        """The number of a row's kind: those from `low` to `high` meet all taps, each other one is a kind of its own."""
        return L.add(minimum(row, low), maximum(L.sub(row, high - 1), 0))

    # ------------------------------------------------------------------------------------------ kernel

    def kernel(self, scalars: list[Var], pack: PackGradient) -> Kernel:
        """The entry's arguments."""
        family = self.family
        x, g, out = (family.memory(n) for n in ("x", "g", "out"))
        s = {v.name: v for v in scalars}
        top = Names()
        positions = top.let("positions", L.mul(L.mul(s["images"], s["out_h"]), s["out_w"]))
        blocks = top.let("blocks", maximum(ceil_div(positions, KBLOCK), 1))
        panels = top.let("panels", ceil_div(s["results"], family.panel))
        packed = family.memory("packed", "workspace", L.mul(L.mul(s["groups"], panels), positions * family.panel))
        top.add(Alloc(packed), pack(g, packed, s, positions, panels))
        tall, wide = (top.let(f"framed_{d}", self._span(s, d)) for d in "hw")
        plane = top.let("plane", L.mul(tall, wide))
        planes = top.let("planes", L.mul(s["groups"], s["channels"]))
        framed = family.memory("framed", "workspace", L.mul(L.mul(s["images"], planes), plane))
        top.add(Alloc(framed), self._frame(x, framed, s, planes, tall, wide))
        taps = top.let("taps", L.mul(s["taps_h"], s["taps_w"]))
        count = top.let("count", L.mul(taps, s["channels"]))
        tiles = top.let("tiles", ceil_div(count, self.rows))
        low, high, kinds = self._kinds(top, s)
        room = top.let("room", L.mul(kinds, s["out_w"]) * self.rows)
        there = family.memory("there", "workspace", L.mul(tiles, room))
        top.add(Alloc(there), self._there(there, s, (tiles, taps, count, low, high, kinds, room)))

        tasks = top.let("tasks", L.mul(L.mul(s["groups"], panels), tiles))
        cells = self.rows * family.panel
        sums = family.memory("sums", "workspace", L.mul(tasks, minimum(blocks, ROUND)) * cells)
        totals = family.memory("totals", "workspace", tasks * cells)
        top.add(Alloc(sums), Alloc(totals))

        turn, t = variables("turn t")
        some = Names()
        block0 = some.let("block0", turn * ROUND)
        here = some.let("here", minimum(L.sub(blocks, block0), ROUND))
        each = Names()
        task, b = each.split(t, here)
        rest, tile = each.split(task, tiles)
        group, p = each.split(rest, panels)
        left = minimum(L.sub(s["results"], p * family.panel), family.panel)
        begin = each.let("begin", L.add(block0, b) * KBLOCK)
        spots = family.numbers("spots", self.rows, "stack")
        r = Var(INDEX, "r")
        place = Names()
        channel, kh, kw = self._row(place, s, taps, minimum(L.add(tile * self.rows, r), count - 1))
        down = L.add(L.mul(channel, tall), L.mul(kh, s["spread_h"]))
        place.add(Store(spots, (r,), L.add(L.mul(down, wide), L.mul(kw, s["spread_w"]))))
        each.add(Alloc(spots), For("serial", r, L.index(0), L.index(self.rows), place.block()))
        where = (
            (framed, each.let("x_at", L.mul(L.mul(group, s["channels"]), plane))),
            (packed, each.let("g_at", L.mul(rest, positions * family.panel))),
            (sums, t * cells),
            (there, L.mul(tile, room)),
            (spots, L.index(0)),
        )
        end = minimum(begin + KBLOCK, positions)
        walk = (L.mul(planes, plane), L.mul(s["stride_h"], wide), s["stride_w"])
        numbers = (begin, end, s["out_h"], s["out_w"], low, high, *walk)
        one, full = (Invoke(self._tile(v), (*where, *numbers)) for v in (1, VECTORS))
        each.add(If(L.apply("le", left, L.index(family.lanes)), (one,), (full,)))
        grain = L.index(GRAIN // (KBLOCK * VECTORS * self.rows) + 1)
        some.add(For("parallel", t, L.index(0), L.mul(tasks, here), each.block(), grain=grain))
        some.add(self._add(sums, totals, tasks, here, block0))
        top.add(For("serial", turn, L.index(0), ceil_div(blocks, ROUND), some.block()))
        top.add(self._write(totals, out, s, (tasks, tiles, panels, count)))
        return Kernel(self.stem, (x, g, out, *scalars), top.block())

    @staticmethod
    def _span(s: Scalars, d: str) -> Expr:
        """The elements between the first and the last one that taps meet along a dimension, also outside x."""
        return L.add(L.mul(s[f"out_{d}"] - 1, s[f"stride_{d}"]), L.mul(s[f"taps_{d}"] - 1, s[f"spread_{d}"])) + 1

    def _row(self, names: Names, s: Scalars, taps: Expr, number: Expr) -> tuple[Expr, Expr, Expr]:
        """Channel and tap of a row."""
        channel, tap = names.split(number, taps)
        kh, kw = names.split(tap, s["taps_w"])
        return channel, kh, kw

    def _frame(self, x: Buffer, framed: Buffer, s: Scalars, planes: Expr, tall: Expr, wide: Expr) -> Stmt:
        """x with what taps meet around it; what lies there is never used."""
        lanes = self.family.lanes
        t, r, v = variables("t_frame r v")
        names = Names()
        n, c = names.split(t, planes)
        base = names.let("base", L.add(L.mul(n, s["x_n"]), L.mul(c, s["x_c"])))
        body = Names()
        row = body.let("row", L.sub(r, s["before_h"]))
        some = conjunction(L.apply("le", L.index(0), row), L.apply("lt", row, s["height"]))
        at = body.let("at", L.add(base, L.mul(row, s["x_h"])))
        column = L.ramp(L.sub(v, s["before_w"]), lanes)
        inside = conjunction(
            L.apply("le", L.splat(L.index(0), lanes), column), L.apply("lt", column, L.splat(s["width"], lanes))
        )
        mask = conjunction(L.splat(some, lanes), inside)
        to = L.ramp(L.add(L.mul(L.add(L.mul(t, tall), r), wide), v), lanes)
        ends = L.apply("lt", L.ramp(v, lanes), L.splat(wide, lanes))
        spread = L.apply("add", L.splat(at, lanes), L.apply("mul", column, L.splat(s["x_w"], lanes)))

        def copied(source: Expr) -> Stmt:
            return For("serial", v, L.index(0), wide, (Store(framed, (to,), L.load(x, (source,), mask), ends),), lanes)

        near, far = copied(L.ramp(L.add(at, L.sub(v, s["before_w"])), lanes)), copied(spread)
        body.add(If(is_(s["x_w"], 1), (near,), (far,)))
        names.add(For("serial", r, L.index(0), tall, body.block()))
        grain = quotient(L.index(PACK_GRAIN), maximum(L.mul(tall, wide), 1)) + 1
        return For("parallel", t, L.index(0), L.mul(s["images"], planes), names.block(), grain=grain)

    def _kinds(self, top: Names, s: Scalars) -> tuple[Expr, Expr, Expr]:
        """The rows of a result that meet all taps (none: behind the last one), and the number of kinds of rows."""
        reach = L.mul(s["taps_h"] - 1, s["spread_h"])
        first = top.let("all_from", ceil_div(s["before_h"], s["stride_h"]))
        ends = L.sub(L.add(s["height"], s["before_h"]), reach)
        last = top.let("all_to", minimum(ceil_div(ends, s["stride_h"]), s["out_h"]))
        none = top.let("none", L.apply("le", last, first))
        low = top.let("low", L.select(none, s["out_h"], first))
        high = top.let("high", L.select(none, s["out_h"] + 1, last))
        return low, high, top.let("kinds", self.kind(s["out_h"] - 1, low, high) + 1)

    def _there(self, there: Buffer, s: Scalars, numbers: tuple[Expr, ...]) -> Stmt:
        """1 where the tap of a row is there, else 0: [tile, kind, column, row of the tile]."""
        tiles, taps, count, low, high, kinds, room = numbers
        tile, kind, j, r = variables("tile_there kind j_there r_there")
        names = Names()
        _, kh, kw = self._row(names, s, taps, minimum(L.add(tile * self.rows, r), count - 1))
        beyond = L.select(L.apply("lt", low, kind), L.sub(high - 1, low), L.index(0))
        i = names.let("i", L.add(kind, beyond))
        tests = []
        for d, p, k, size in (("h", i, kh, "height"), ("w", j, kw, "width")):
            met = names.let(
                f"met_{d}", L.sub(L.add(L.mul(p, s[f"stride_{d}"]), L.mul(k, s[f"spread_{d}"])), s[f"before_{d}"])
            )
            tests += [L.apply("le", L.index(0), met), L.apply("lt", met, s[size])]
        whole = conjunction(conjunction(*tests[:2]), conjunction(*tests[2:]))
        at = L.add(L.mul(tile, room), L.add(L.add(L.mul(kind, s["out_w"]), j) * self.rows, r))
        dtype = self.family.dtype
        names.add(Store(there, (at,), L.select(whole, L.const(1, dtype), L.const(0, dtype))))
        rows = For("serial", r, L.index(0), L.index(self.rows), names.block())
        columns = For("serial", j, L.index(0), s["out_w"], (rows,))
        kinds_of = For("serial", kind, L.index(0), kinds, (columns,))
        return For(
            "parallel", tile, L.index(0), tiles, (kinds_of,), grain=quotient(L.index(GRAIN), maximum(room, 1)) + 1
        )

    def _add(self, sums: Buffer, totals: Buffer, tasks: Expr, here: Expr, block0: Expr) -> Stmt:
        """The sums of the blocks of a round, ascending, to what there is."""
        family, cells = self.family, self.rows * self.family.panel
        t, v, b = variables("t_add v_add b")
        zero = L.const(-0.0, family.vec)
        to = (L.ramp(L.add(t * cells, v), family.lanes),)
        total, found = Var(family.vec, "total"), Var(family.vec, "found")
        block = L.load(sums, (L.ramp(L.add(L.add(L.mul(t, here), b) * cells, v), family.lanes),))
        before = Var(family.vec, "before")
        begin = Let(before, L.select(L.splat(is_(block0, 0), family.lanes), zero, L.load(totals, to)))
        chain = For("serial", b, L.index(0), here, (), carried=(Carry(total, before, L.add(total, block), found),))
        each = For("serial", v, L.index(0), L.index(cells), (begin, chain, Store(totals, to, found)), family.lanes)
        grain = quotient(L.index(PACK_GRAIN), maximum(here * cells, 1)) + 1
        return For("parallel", t, L.index(0), tasks, (each,), grain=grain)

    def _write(self, totals: Buffer, out: Buffer, s: Scalars, numbers: tuple[Expr, ...]) -> Stmt:
        """out[result, channel, tap] = totals[row of tile, result]."""
        tasks, tiles, panels, count = numbers
        family = self.family
        t, r, o = variables("t_write r_write o")
        names = Names()
        rest, tile = names.split(t, tiles)
        group, p = names.split(rest, panels)
        first = names.let("first", p * family.panel)
        left = names.let("left", minimum(L.sub(s["results"], first), family.panel))
        pitch = names.let("pitch", family.pitch(left))
        row = tile * self.rows
        some = names.let("some", minimum(L.sub(count, row), self.rows))
        result = L.add(L.mul(group, s["results"]), L.add(first, o))
        source = L.add(t * (self.rows * family.panel), L.add(L.mul(r, pitch), o))
        store = Store(out, (L.add(L.mul(result, count), L.add(row, r)),), L.load(totals, (source,)))
        names.add(For("serial", o, L.index(0), left, (For("serial", r, L.index(0), some, (store,)),)))
        grain = L.index(PACK_GRAIN // (self.rows * family.panel) + 1)
        return For("parallel", t, L.index(0), tasks, names.block(), grain=grain)
