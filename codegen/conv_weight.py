"""The gradient of a convolution by its weights: `kiln_conv_weight_<dtype>` (`conv.py` tells how)."""

from __future__ import annotations

from typing import Final

from kiln.codegen.blocks import Names, ceil_div, conjunction, is_, maximum, minimum, quotient, variables
from kiln.codegen.conv_few import Few
from kiln.codegen.conv_tiles import GRAIN, PACK_GRAIN, VECTORS, Family
from kiln.ir import loops as L
from kiln.ir.loops import INDEX, Alloc, Buffer, Expr, For, If, Invoke, Kernel, Stmt, Store, Var
from kiln.ir.order import KBLOCK


class Weight:
    """`kiln_conv_weight_<dtype>`."""

    SCALARS: Final = (
        "images groups channels results height width out_h out_w taps_h taps_w stride_h stride_w before_h before_w "
        "spread_h spread_w x_n x_c x_h x_w g_n g_c g_h g_w"
    )

    def __init__(self, family: Family) -> None:
        self.family = family
        self.stem = f"kiln_conv_weight_{family.dtype.name}"

    def segments(self) -> Kernel:
        """The table of a tap: in each row of each image the `length` positions from `column` on."""
        table = self.family.numbers("table")
        params = variables("blocks images out_h out_w row_from row_to column length x_at x_n x_row x_step")
        blocks, images, out_h, out_w, row_from, row_to, column, length, x_at, x_n, x_row, x_step = params
        n, i = variables("n i")
        # Whole rows that follow one another are one segment.
        joined = conjunction(L.apply("eq", length, out_w), L.apply("eq", x_row, L.mul(out_w, x_step)))
        each = L.select(joined, L.mul(length, maximum(L.sub(row_to, row_from), 0)), length)
        stop = L.select(joined, minimum(row_to, row_from + 1), row_to)
        k = L.add(L.mul(L.add(L.mul(n, out_h), i), out_w), column)
        place = L.add(L.add(x_at, L.mul(n, x_n)), L.mul(i, x_row))
        append = self.family.invoke_append((table, L.index(0)), blocks, k, each, place, x_step)
        rows = For("serial", i, row_from, stop, (append,))
        fill = If(L.apply("lt", L.index(0), length), (For("serial", n, L.index(0), images, (rows,)),))
        start, finish = self.family.start(table, L.index(0)), self.family.finish(table, L.index(0), blocks)
        return Kernel(f"{self.stem}_segments", (table, *params), (*start, fill, *finish))

    def kernels(self) -> list[Kernel]:
        """The entry, behind what it invokes."""
        few = Few(self.family)
        return [
            self.segments(),
            self.many(),
            *(few.tile(vectors) for vectors in (1, VECTORS)),
            few.kernel(variables(self.SCALARS), self._pack),
            self.kernel(few),
        ]

    def kernel(self, few: Few) -> Kernel:
        """`i32 (ptr ctx, ptr x, ptr g, ptr out, i64 ...)` with the numbers of `SCALARS`: channels and results are those
        of a group; out is row-major [groups * results, channels, taps_h, taps_w]."""
        buffers = [self.family.memory(n) for n in ("x", "g", "out")]
        scalars = variables(self.SCALARS)
        (channels,) = (v for v in scalars if v.name == "channels")
        given: tuple[tuple[Buffer, Expr] | Expr, ...] = (*((b, L.index(0)) for b in buffers), *scalars)
        either = If(few.worth(channels), (Invoke(few.stem, given),), (Invoke(f"{self.stem}_many", given),))
        return Kernel(self.stem, (*buffers, *scalars), (either,))

    def many(self) -> Kernel:
        """The entry's arguments. Rows of a tile are channels at one tap."""
        family = self.family
        x, g, out = (family.memory(n) for n in ("x", "g", "out"))
        scalars = variables(self.SCALARS)
        s = {v.name: v for v in scalars}
        top = Names()
        positions = top.let("positions", L.mul(L.mul(s["images"], s["out_h"]), s["out_w"]))
        blocks = top.let("blocks", maximum(ceil_div(positions, KBLOCK), 1))
        panels = top.let("panels", ceil_div(s["results"], family.panel))
        packed = family.memory("packed", "workspace", L.mul(L.mul(s["groups"], panels), positions * family.panel))
        top.add(Alloc(packed), self._pack(g, packed, s, positions, panels))
        taps = top.let("taps", L.mul(s["taps_h"], s["taps_w"]))
        pieces = L.add(L.mul(s["images"], s["out_h"]), blocks)
        room = top.let("room", family.table_size(blocks, pieces))
        tables = family.numbers("tables", L.mul(taps, room), "workspace")
        top.add(Alloc(tables), self._tables(tables, s, taps, room, blocks))

        t = Var(INDEX, "t")
        names = Names()
        tiles = top.let("tiles", ceil_div(s["channels"], family.rows))
        rest, tile = names.split(t, tiles)
        rest, tap = names.split(rest, taps)
        group, p = names.split(rest, panels)
        first = names.let("first", p * family.panel)
        left = names.let("left", minimum(L.sub(s["results"], first), family.panel))
        pitch = names.let("pitch", family.pitch(left))
        channel = names.let("channel", tile * family.rows)
        x_at = names.let("x_at", L.mul(L.mul(group, s["channels"]), s["x_c"]))
        w_at = names.let("w_at", L.mul(L.add(L.mul(group, panels), p), positions * family.panel))
        c = family.memory("c", "stack", family.rows * family.panel)
        names.add(Alloc(c))
        last = s["channels"] - 1
        places = [names.let(f"x{r}", L.mul(minimum(channel + r, last), s["x_c"])) for r in range(family.rows)]
        zero = L.index(0)
        spots = family.numbers("spots", 2 * family.rows, "stack")
        names.add(Alloc(spots))
        for number, place in enumerate(places):
            spot = L.index(2 * number)
            names.add(Store(spots, (spot,), place), Store(spots, (spot + 1,), L.index(number)))
        where = ((x, x_at), (packed, w_at), (c, zero), (tables, L.mul(tap, room)), (spots, zero))
        x_step = L.mul(s["stride_w"], s["x_w"])
        narrow = L.apply("eq", pitch, L.index(family.lanes))
        names.add(family.invoke_tile(narrow, where, (blocks, x_step)))
        r, o = variables("r o")
        result = L.add(L.mul(group, s["results"]), L.add(first, o))
        there = L.add(L.mul(L.add(L.mul(result, s["channels"]), L.add(channel, r)), taps), tap)
        store = Store(out, (there,), L.load(c, (L.add(L.mul(r, pitch), o),)))
        some = minimum(L.sub(s["channels"], channel), family.rows)
        names.add(For("serial", r, zero, some, (For("serial", o, zero, left, (store,)),)))
        count = L.mul(L.mul(s["groups"], panels), L.mul(taps, tiles))
        grain = quotient(L.index(GRAIN), maximum(positions * (VECTORS * family.rows), 1)) + 1
        top.add(For("parallel", t, zero, count, names.block(), grain=grain))
        return Kernel(f"{self.stem}_many", (x, g, out, *scalars), top.block())

    def _pack(self, g: Buffer, packed: Buffer, s: dict[str, Var], positions: Expr, panels: Expr) -> Stmt:
        """All panels of all groups, image by image."""
        family = self.family
        t = Var(INDEX, "t_pack")
        names = Names()
        rest, n = names.split(t, s["images"])
        group, p = names.split(rest, panels)
        first = names.let("first", p * family.panel)
        left = names.let("left", minimum(L.sub(s["results"], first), family.panel))
        pitch = names.let("pitch", family.pitch(left))
        channel = L.add(L.mul(group, s["results"]), first)
        source = L.add(L.mul(n, s["g_n"]), L.mul(channel, s["g_c"]))
        image = L.mul(s["out_h"], s["out_w"])
        target = L.add(L.mul(rest, positions * family.panel), L.mul(L.mul(n, image), pitch))
        whole = names.let("whole", conjunction(is_(s["g_w"], 1), L.apply("eq", s["g_h"], s["out_w"])))
        rows, columns = L.select(whole, L.index(1), s["out_h"]), L.select(whole, image, s["out_w"])
        sizes = (L.index(1), rows, columns, L.index(0), s["g_h"], s["g_w"], s["g_c"])
        names.add(Invoke(f"{family.stem}_pack", ((g, source), (packed, target), *sizes, left, pitch)))
        count = L.mul(L.mul(s["groups"], panels), s["images"])
        grain = quotient(L.index(PACK_GRAIN), maximum(image * family.panel, 1)) + 1
        return For("parallel", t, L.index(0), count, names.block(), grain=grain)

    def _tables(self, tables: Buffer, s: dict[str, Var], taps: Expr, room: Expr, blocks: Expr) -> Stmt:
        """The table of every tap."""
        tap = Var(INDEX, "tap")
        names = Names()
        kh, kw = names.split(tap, s["taps_w"])
        ends = []
        for d, k, size in (("h", kh, "height"), ("w", kw, "width")):
            ahead = names.let(f"ahead_{d}", L.sub(L.mul(k, s[f"spread_{d}"]), s[f"before_{d}"]))
            stride = s[f"stride_{d}"]
            low = names.let(f"low_{d}", maximum(ceil_div(L.sub(L.index(0), ahead), stride), 0))
            high = minimum(ceil_div(L.sub(s[size], ahead), stride), s[f"out_{d}"])
            ends.append((ahead, low, names.let(f"high_{d}", high), L.mul(stride, s[f"x_{d}"])))
        (ahead_h, low_h, high_h, x_row), (ahead_w, low_w, high_w, x_step) = ends
        x_at = L.add(L.add(L.mul(ahead_h, s["x_h"]), L.mul(ahead_w, s["x_w"])), L.mul(low_w, x_step))
        sizes = (blocks, s["images"], s["out_h"], s["out_w"], low_h, high_h, low_w, L.sub(high_w, low_w))
        table = (tables, L.mul(tap, room))
        names.add(Invoke(f"{self.stem}_segments", (table, *sizes, x_at, s["x_n"], x_row, x_step)))
        grain = quotient(L.index(PACK_GRAIN), maximum(room * 4, 1)) + 1
        return For("parallel", tap, L.index(0), taps, names.block(), grain=grain)
