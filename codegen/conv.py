"""Convolution and its two gradients: a few small kernels that are written once and shared by every program.

All three are sums of products over a space of k (`ir/order.py`, "convolution"): taps and channels, or the positions of
all images. What is missing there (padding, the gaps of a stride) is skipped, so a result has a list of *segments*: runs
of consecutive k that do exist, with the place of the first x. From the inside out:

- *tile* computes `rows` results times vectors of channels in registers. It walks the blocks of k, in a block the
  segments, in a segment k by k: a few vectors of packed weights, times one broadcast x per row.
- Results that miss the same taps share one list. *axis* finds, along rows and along columns, runs of positions with
  equal taps; *segments* makes the list for a pair of runs; *pixels* leads the tile through the positions of such a
  pair, of several images, so that also corners come in full tiles.
- *pack* brings weights (or gradients) into panels: for each k a few vectors of channels. *line* brings finished tiles
  back into the order of the images, turning blocks in registers.

`kiln_conv_<dtype>` convolves, forwards or transposed; `kiln_conv_weight_<dtype>` computes the gradient by the weights:
there the rows of a tile are channels of x, k is a position, and the gradient is what is packed.
"""

from __future__ import annotations

import functools
import math
from typing import Final

from kiln.codegen.blocks import (
    Names,
    ceil_div,
    conjunction,
    is_,
    maximum,
    minimum,
    negation,
    quotient,
    remainder,
    transposed,
    variables,
)
from kiln.codegen.layout import Layout, row_major
from kiln.codegen.llvm.emit import emit_module
from kiln.codegen.plan import Argument, Pointer, Step, pointer
from kiln.ir import loops as L
from kiln.ir import types as T
from kiln.ir.graph import Operation, Value
from kiln.ir.loops import INDEX, Alloc, Buffer, Carry, Expr, For, If, Invoke, Kernel, Let, Stmt, Store, Var, Vec
from kiln.ir.ops.conv import axes
from kiln.ir.order import KBLOCK
from kiln.ir.program import Module
from kiln.ir.target import Target
from kiln.ir.types import Dim, DType, Sym

DTYPES: Final = ("float32", "float64")
PIXELS: Final = 512
"""Positions per task: their results stay in the second-level cache until they are put in order."""
GRAIN: Final = 1 << 16
"""Vector multiply-adds that are worth a thread."""
PACK_GRAIN: Final = 1 << 14
"""Packed elements that are worth a thread."""
VECTORS: Final = 2
"""Vectors of channels in a panel; narrow panels have one."""


def conv_module(dtype: DType, target: Target) -> Module:
    """The module that exports `kiln_conv_<dtype>` and `kiln_conv_weight_<dtype>` for float32 and float64 (TypeError
    for others). Their arguments stand at `_Forward.kernel` and `_Weight.kernel`."""
    return _module(dtype, target)


@functools.cache
def _module(dtype: DType, target: Target) -> Module:
    return emit_module(f"conv_{dtype.name}", kernels(dtype, target), target)


def kernels(dtype: DType, target: Target) -> list[Kernel]:
    """The kernels of the module, innermost first."""
    if dtype.name not in DTYPES:
        raise TypeError(f"no convolution of {dtype}")
    family = _Family(dtype, target)
    return [
        *(family.tile(vectors) for vectors in (1, VECTORS)),
        family.append(),
        family.pack(),
        family.line(),
        _Axis(family).kernel(),
        _Forward(family).segments(),
        _Forward(family).pixels(),
        _Forward(family).kernel(),
        _Weight(family).segments(),
        _Weight(family).kernel(),
    ]


class _Family:
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
        """c[row, :] = sum over k of x[k] * w[k, :]: for each of `rows` results its place in x (a k adds the place of
        the segment) and its row of c."""
        x, w, c, table = self.memory("x"), self.memory("w"), self.memory("c"), self.numbers("table")
        blocks, x_step = variables("blocks x_step")
        places = [Var(INDEX, f"x{r}") for r in range(self.rows)]
        targets = [Var(INDEX, f"c{r}") for r in range(self.rows)]
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
        return Kernel(self.tile_name(vectors), (x, w, c, table, blocks, x_step, *places, *targets), (body,))

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


class _Axis:
    """Which taps the positions along one dimension meet, as a table: the number of runs of positions with equal taps;
    for each run (and one more, for the end) its first place in the sequence, first tap, number of taps; then the
    positions in the sequence, then for each the element that its first tap meets.

    Tap number `tap` of position p meets element t / up, where t = p * down + offset + tap * spread, if that is whole
    and lies among the elements. Then so does every `step`-th tap, `along` elements further. The sequence is ascending
    for each remainder by `up`, which is what decides which taps are whole."""

    SIZES: Final = "positions taps elements down up offset spread step along"

    def __init__(self, family: _Family) -> None:
        self.family = family

    @staticmethod
    def size(positions: Expr) -> Expr:
        return positions * 5 + 4

    @staticmethod
    def position(table: Buffer, positions: Expr, i: Expr) -> Expr:
        return L.load(table, (L.add(positions * 3 + 4, i),))

    @staticmethod
    def source(table: Buffer, positions: Expr, i: Expr) -> Expr:
        return L.load(table, (L.add(positions * 4 + 4, i),))

    @staticmethod
    def run(table: Buffer, r: Expr, field: int) -> Expr:
        """First place in the sequence (0), first tap (1), number of taps (2)."""
        return L.load(table, (r * 3 + 1 + field,))

    @property
    def name(self) -> str:
        return f"{self.family.stem}_axis"

    def kernel(self) -> Kernel:
        table = self.family.numbers("table")
        positions, taps, elements, down, up, offset, spread, step, along = params = variables(self.SIZES)
        phase, turn, k = variables("phase turn k")
        names = Names()
        p = names.let("p", L.add(phase, L.mul(turn, up)))
        t = names.let("t", L.add(L.mul(p, down), offset))
        first, found = variables("first found")
        whole = is_(remainder(L.add(t, L.mul(k, spread)), up), 0)
        new = L.select(conjunction(whole, L.apply("lt", first, L.index(0))), k, first)
        names.add(For("serial", k, L.index(0), step, (), carried=(Carry(first, L.index(-1), new, found),)))
        source = names.let("source", quotient(L.add(t, L.mul(found, spread)), up))
        forwards = L.apply("gt", along, L.index(0))
        pace = names.let("pace", L.select(forwards, along, L.sub(L.index(0), along)))
        ahead = names.let("ahead", L.select(forwards, source, L.sub(elements - 1, source)))
        low = names.let("low", maximum(ceil_div(L.sub(L.index(0), ahead), pace), 0))
        ends = minimum(ceil_div(L.sub(taps, found), step), ceil_div(L.sub(elements, ahead), pace))
        none = L.apply("lt", found, L.index(0))
        count = names.let("count", L.select(none, L.index(0), maximum(L.sub(ends, low), 0)))
        empty = names.let("empty", is_(count, 0))
        tap = names.let("tap", L.select(empty, L.index(0), L.add(found, L.mul(low, step))))
        met = L.select(empty, L.index(0), L.add(source, L.mul(low, along)))

        def carries(level: str, inits: tuple[Expr, ...], nexts: tuple[Expr, ...] | None) -> tuple[list[Var], list[Var]]:
            return variables(" ".join(f"{n}_{level}" for n in kept)), variables(
                " ".join(f"{n}_{level}_out" for n in kept)
            )

        kept = ("i", "runs", "tap", "count")
        zeros = (L.index(0), L.index(0), L.index(-1), L.index(-1))
        outer, outer_out = carries("phase", zeros, None)
        inner, inner_out = carries("turn", zeros, None)
        i, runs, last_tap, last_count = inner
        same = conjunction(L.apply("eq", tap, last_tap), L.apply("eq", count, last_count))
        run = names.let("run", L.select(same, runs, runs + 1))
        at = runs * 3 + 1
        begin = [Store(table, (at + f,), value) for f, value in enumerate((i, tap, count))]
        names.add(If(negation(same), tuple(begin)))
        names.add(Store(table, (L.add(positions * 3 + 4, i),), p), Store(table, (L.add(positions * 4 + 4, i),), met))
        nexts = (i + 1, run, tap, count)
        steps = tuple(Carry(v, o, n, out) for v, o, n, out in zip(inner, outer, nexts, inner_out, strict=True))
        turns = For("serial", turn, L.index(0), ceil_div(L.sub(positions, phase), up), names.block(), 1, steps)
        chain = tuple(Carry(v, z, n, out) for v, z, n, out in zip(outer, zeros, inner_out, outer_out, strict=True))
        phases = For("serial", phase, L.index(0), up, (turns,), 1, chain)
        end = (Store(table, (L.index(0),), outer_out[1]), Store(table, (outer_out[1] * 3 + 1,), positions))
        return Kernel(self.name, (table, *params), (phases, *end))


class _Forward:
    """`kiln_conv_<dtype>`."""

    def __init__(self, family: _Family) -> None:
        self.family = family
        self.axis = _Axis(family)
        self.stem = family.stem

    def segments(self) -> Kernel:
        """The table of a pair of runs: their taps, each with all channels."""
        table = self.family.numbers("table")
        params = variables("blocks taps_w channels x_c tap_h n_h step_h move_h tap_w n_w step_w move_w")
        blocks, taps_w, channels, x_c, tap_h, n_h, step_h, move_h, tap_w, n_w, step_w, move_w = params
        a, b = variables("a b")
        row = L.mul(L.add(tap_h, L.mul(a, step_h)), taps_w)
        k = L.mul(L.add(row, L.add(tap_w, L.mul(b, step_w))), channels)
        place = L.add(L.mul(a, move_h), L.mul(b, move_w))
        append = self.family.invoke_append((table, L.index(0)), blocks, k, channels, place, x_c)
        taps = For("serial", a, L.index(0), n_h, (For("serial", b, L.index(0), n_w, (append,)),))
        start, finish = self.family.start(table, L.index(0)), self.family.finish(table, L.index(0), blocks)
        return Kernel(f"{self.stem}_segments", (table, *params), (*start, taps, *finish))

    def pixels(self) -> Kernel:
        """Tiles over the positions of a pair of runs, of all images of a task; the last tile repeats the last one.
        Row number (image * rows + row) * columns + column of c is for (image, i - i0, position along the columns)."""
        family, rows = self.family, self.family.rows
        x, w, c = (family.memory(n) for n in ("x", "w", "c"))
        table, high, wide = (family.numbers(n) for n in ("table", "high", "wide"))
        params = variables("blocks images i0 i_from i_to j_from j_to out_h out_w rows narrow x_n x_c x_h x_w")
        blocks, images, i0, i_from, i_to, j_from, j_to, out_h, out_w, some, narrow, x_n, x_c, x_h, x_w = params
        top = Names()
        total = top.let("total", L.mul(images, L.mul(L.sub(i_to, i_from), L.sub(j_to, j_from))))
        q = Var(INDEX, "q")
        n, i, j = state = variables("n i j")
        body = Names()
        places: list[Expr] = []
        targets: list[Expr] = []
        at: tuple[Expr, Expr, Expr] = (n, i, j)
        for r in range(rows):
            image, row, column = at
            moved = L.add(L.mul(_Axis.source(high, out_h, row), x_h), L.mul(_Axis.source(wide, out_w, column), x_w))
            places.append(body.let(f"x{r}", L.add(L.mul(image, x_n), moved)))
            line = L.add(L.mul(image, some), L.sub(row, i0))
            targets.append(body.let(f"c{r}", L.add(L.mul(line, out_w), _Axis.position(wide, out_w, column))))
            column_ends = body.let(f"column_ends{r}", L.apply("eq", column + 1, j_to))
            row_ends = body.let(f"row_ends{r}", conjunction(column_ends, L.apply("eq", row + 1, i_to)))
            stays = L.apply("ge", q + (r + 1), total)
            next_column = L.select(column_ends, j_from, column + 1)
            next_row = L.select(row_ends, i_from, L.select(column_ends, row + 1, row))
            next_image = L.select(row_ends, image + 1, image)
            moves = ((next_image, image), (next_row, row), (next_column, column))
            stay = body.let(f"stays{r}", stays)
            new = [body.let(f"{s}{r}", L.select(stay, old, to)) for s, (to, old) in zip("nij", moves, strict=True)]
            at = (new[0], new[1], new[2])
        buffers = tuple((b, L.index(0)) for b in (x, w, c, table))
        scalars = (blocks, x_c, *places, *targets)
        body.add(family.invoke_tile(negation(is_(narrow, 0)), buffers, scalars))
        begins = (L.index(0), i_from, j_from)
        outs = variables("n_out i_out j_out")
        carried = tuple(Carry(v, b, e, o) for v, b, e, o in zip(state, begins, at, outs, strict=True))
        top.add(For("serial", q, L.index(0), total, body.block(), rows, carried))
        return Kernel(f"{self.stem}_pixels", (x, w, c, table, high, wide, *params), top.block())

    SCALARS: Final = (
        "images groups channels results height width out_h out_w taps_h taps_w "
        "down_h up_h offset_h spread_h step_h along_h down_w up_w offset_w spread_w step_w along_w "
        "x_n x_c x_h x_w w_g w_o w_c w_h w_w"
    )

    def kernel(self) -> Kernel:
        """`i32 (ptr ctx, ptr x, ptr w, ptr out, i64 ...)` with the numbers of `SCALARS`: channels and results are those
        of a group; position and tap meet as `_Axis` says; out is row-major [images, groups * results, out_h, out_w].
        """
        family = self.family
        x, w, out = (family.memory(n) for n in ("x", "w", "out"))
        scalars = variables(self.SCALARS)
        s = {v.name: v for v in scalars}
        top = Names()
        k = top.let("k", L.mul(L.mul(s["taps_h"], s["taps_w"]), s["channels"]))
        blocks = top.let("blocks", maximum(ceil_div(k, KBLOCK), 1))
        panels = top.let("panels", ceil_div(s["results"], family.panel))
        high, wide = (
            family.numbers(n, _Axis.size(s[f"out_{d}"]), "workspace") for n, d in (("high", "h"), ("wide", "w"))
        )
        for table, d, elements in ((high, "h", "height"), (wide, "w", "width")):
            names = (f"out_{d}", f"taps_{d}", elements, *(f"{n}_{d}" for n in _Axis.SIZES.split()[3:]))
            top.add(Alloc(table), Invoke(self.axis.name, ((table, L.index(0)), *(s[n] for n in names))))
        packed = family.memory("packed", "workspace", L.mul(L.mul(s["groups"], panels), k * family.panel))
        top.add(Alloc(packed), self._pack(w, packed, s, k, panels))

        rows = top.let("rows", minimum(maximum(quotient(L.index(PIXELS), maximum(s["out_w"], 1)), 1), s["out_h"]))
        pixels = top.let("pixels", maximum(L.mul(rows, s["out_w"]), 1))
        some = maximum(quotient(L.index(PIXELS), pixels), 1)
        together = top.let("together", L.select(L.apply("eq", rows, s["out_h"]), some, L.index(1)))
        task = self._task((x, packed, out, high, wide), s, k, blocks, panels, rows, together)
        count = L.mul(ceil_div(s["images"], together), ceil_div(s["out_h"], maximum(rows, 1)))
        count = L.mul(count, L.mul(s["groups"], panels))
        each = L.mul(L.mul(pixels, minimum(together, s["images"])), k * VECTORS)
        grain = quotient(L.index(GRAIN), maximum(each, 1)) + 1
        top.add(For("parallel", task[0], L.index(0), count, task[1], grain=grain))
        return Kernel(self.stem, (x, w, out, *scalars), top.block())

    def _pack(self, w: Buffer, packed: Buffer, s: dict[str, Var], k: Expr, panels: Expr) -> Stmt:
        """All panels of all groups."""
        family = self.family
        t = Var(INDEX, "t_pack")
        names = Names()
        g, p = names.split(t, panels)
        left = names.let("left", minimum(L.sub(s["results"], p * family.panel), family.panel))
        source = L.add(L.mul(g, s["w_g"]), L.mul(p * family.panel, s["w_o"]))
        sizes = (s["taps_h"], s["taps_w"], s["channels"], s["w_h"], s["w_w"], s["w_c"], s["w_o"])
        target = (packed, L.mul(t, k * family.panel))
        names.add(Invoke(f"{self.stem}_pack", ((w, source), target, *sizes, left, family.pitch(left))))
        grain = quotient(L.index(PACK_GRAIN), maximum(k * family.panel, 1)) + 1
        return For("parallel", t, L.index(0), L.mul(s["groups"], panels), names.block(), grain=grain)

    def _task(
        self,
        buffers: tuple[Buffer, ...],
        s: dict[str, Var],
        k: Expr,
        blocks: Expr,
        panels: Expr,
        rows: Expr,
        together: Expr,
    ) -> tuple[Var, tuple[Stmt, ...]]:
        """A panel of channels at some rows of some images."""
        family = self.family
        x, packed, out, high, wide = buffers
        t = Var(INDEX, "t")
        names = Names()
        rest, p = names.split(t, panels)
        rest, g = names.split(rest, s["groups"])
        image_task, row_task = names.split(rest, ceil_div(s["out_h"], rows))
        n0 = names.let("n0", L.mul(image_task, together))
        images = names.let("here", minimum(L.sub(s["images"], n0), together))
        i0 = names.let("i0", L.mul(row_task, rows))
        i1 = names.let("i1", minimum(L.add(i0, rows), s["out_h"]))
        first = names.let("first", p * family.panel)
        left = names.let("left", minimum(L.sub(s["results"], first), family.panel))
        pitch = names.let("pitch", family.pitch(left))
        narrow = L.select(L.apply("eq", pitch, L.index(family.lanes)), L.index(1), L.index(0))
        x_at = names.let("x_at", L.add(L.mul(n0, s["x_n"]), L.mul(L.mul(g, s["channels"]), s["x_c"])))
        w_at = names.let("w_at", L.mul(L.add(L.mul(g, panels), p), k * family.panel))
        size = L.mul(L.add(L.mul(L.mul(images, rows), s["out_w"]), L.index(family.lanes)), pitch)
        c = family.memory("c", "workspace", size)
        pieces = L.add(L.mul(s["taps_h"], s["taps_w"]), blocks)
        table = family.numbers("table", family.table_size(blocks, pieces), "workspace")
        names.add(Alloc(c), Alloc(table))

        a, b = variables("run_h run_w")
        run = Names()
        i_from = run.let("i_from", maximum(_Axis.run(high, a, 0), i0))
        i_to = run.let("i_to", minimum(_Axis.run(high, a + 1, 0), i1))
        taps = [run.let(n, _Axis.run(high, a, f)) for f, n in ((1, "tap_h"), (2, "n_h"))]
        each = Names()
        along = [each.let(n, _Axis.run(wide, b, f)) for f, n in ((1, "tap_w"), (2, "n_w"))]
        moves = [L.mul(s[f"along_{d}"], s[f"x_{d}"]) for d in "hw"]
        sizes = (blocks, s["taps_w"], s["channels"], s["x_c"])
        zero = L.index(0)
        each.add(
            Invoke(
                f"{self.stem}_segments",
                ((table, zero), *sizes, *taps, s["step_h"], moves[0], *along, s["step_w"], moves[1]),
            )
        )
        j_from, j_to = _Axis.run(wide, b, 0), _Axis.run(wide, b + 1, 0)
        where = ((x, x_at), (packed, w_at), (c, zero), (table, zero), (high, zero), (wide, zero))
        numbers = (blocks, images, i0, i_from, i_to, j_from, j_to, s["out_h"], s["out_w"], rows, narrow)
        strides = (s["x_n"], s["x_c"], s["x_h"], s["x_w"])
        each.add(Invoke(f"{self.stem}_pixels", (*where, *numbers, *strides)))
        across = For("serial", b, zero, L.load(wide, (zero,)), each.block())
        run.add(If(L.apply("lt", i_from, i_to), (across,)))
        names.add(For("serial", a, zero, L.load(high, (zero,)), run.block()))
        names.add(self._unpack(c, out, high, s, (n0, images, i0, i1, rows), (g, first, left, pitch)))
        return t, names.block()

    def _unpack(
        self,
        c: Buffer,
        out: Buffer,
        high: Buffer,
        s: dict[str, Var],
        where: tuple[Expr, ...],
        panel: tuple[Expr, ...],
    ) -> Stmt:
        """The results of a task to their places: all rows of an image at once if they follow one another."""
        n0, images, i0, i1, rows = where
        g, first, left, pitch = panel
        n, i = variables("image line")
        plane = L.mul(s["out_h"], s["out_w"])
        channel = L.add(L.mul(L.add(L.mul(L.add(n0, n), s["groups"]), g), s["results"]), first)
        names = Names()
        at = names.let("at", L.mul(channel, plane))
        begin = names.let("begin", L.mul(L.mul(n, rows), s["out_w"]))

        def line(row: Expr, position: Expr, count: Expr) -> Stmt:
            source = (c, L.mul(L.add(begin, L.mul(row, s["out_w"])), pitch))
            target = (out, L.add(at, L.mul(position, s["out_w"])))
            return Invoke(f"{self.stem}_line", (source, target, count, left, pitch, plane))

        whole = line(L.index(0), i0, L.mul(L.sub(i1, i0), s["out_w"]))
        position = _Axis.position(high, s["out_h"], L.add(i0, i))
        rowwise = For("serial", i, L.index(0), L.sub(i1, i0), (line(i, position, s["out_w"]),))
        names.add(If(is_(s["up_h"], 1), (whole,), (rowwise,)))
        return For("serial", n, L.index(0), images, names.block())


class _Weight:
    """`kiln_conv_weight_<dtype>`."""

    SCALARS: Final = (
        "images groups channels results height width out_h out_w taps_h taps_w stride_h stride_w before_h before_w "
        "spread_h spread_w x_n x_c x_h x_w g_n g_c g_h g_w"
    )

    def __init__(self, family: _Family) -> None:
        self.family = family
        self.stem = f"kiln_conv_weight_{family.dtype.name}"

    def segments(self) -> Kernel:
        """The table of a tap: in each row of each image the `length` positions from `column` on."""
        table = self.family.numbers("table")
        params = variables("blocks images out_h out_w row_from row_to column length x_at x_n x_row x_step")
        blocks, images, out_h, out_w, row_from, row_to, column, length, x_at, x_n, x_row, x_step = params
        n, i = variables("n i")
        k = L.add(L.mul(L.add(L.mul(n, out_h), i), out_w), column)
        place = L.add(L.add(x_at, L.mul(n, x_n)), L.mul(i, x_row))
        append = self.family.invoke_append((table, L.index(0)), blocks, k, length, place, x_step)
        rows = For("serial", i, row_from, row_to, (append,))
        fill = If(L.apply("lt", L.index(0), length), (For("serial", n, L.index(0), images, (rows,)),))
        start, finish = self.family.start(table, L.index(0)), self.family.finish(table, L.index(0), blocks)
        return Kernel(f"{self.stem}_segments", (table, *params), (*start, fill, *finish))

    def kernel(self) -> Kernel:
        """`i32 (ptr ctx, ptr x, ptr g, ptr out, i64 ...)` with the numbers of `SCALARS`: channels and results are those
        of a group; out is row-major [groups * results, channels, taps_h, taps_w]."""
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
        where = ((x, x_at), (packed, w_at), (c, zero), (tables, L.mul(tap, room)))
        targets = [L.index(r) for r in range(family.rows)]
        x_step = L.mul(s["stride_w"], s["x_w"])
        narrow = L.apply("eq", pitch, L.index(family.lanes))
        names.add(family.invoke_tile(narrow, where, (blocks, x_step, *places, *targets)))
        r, o = variables("r o")
        result = L.add(L.mul(group, s["results"]), L.add(first, o))
        there = L.add(L.mul(L.add(L.mul(result, s["channels"]), L.add(channel, r)), taps), tap)
        store = Store(out, (there,), L.load(c, (L.add(L.mul(r, pitch), o),)))
        some = minimum(L.sub(s["channels"], channel), family.rows)
        names.add(For("serial", r, zero, some, (For("serial", o, zero, left, (store,)),)))
        count = L.mul(L.mul(s["groups"], panels), L.mul(taps, tiles))
        grain = quotient(L.index(GRAIN), maximum(positions * (VECTORS * family.rows), 1)) + 1
        top.add(For("parallel", t, zero, count, names.block(), grain=grain))
        return Kernel(self.stem, (x, g, out, *scalars), top.block())

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
        grain = quotient(L.index(PACK_GRAIN), maximum(room, 1)) + 1
        return For("parallel", tap, L.index(0), taps, names.block(), grain=grain)


# ------------------------------------------------------------------------------------------------ steps


def conv_step(op: Operation, layouts: dict[Value, Layout | None], target: Target) -> Step:
    """One call of an entry for an operation of `ir/ops/conv.py`."""
    a, b = op.operands
    name, dtype = op.op.name, a.type.dtype
    module = conv_module(dtype, target)
    groups = op.attrs["groups"]
    assert isinstance(groups, int)
    places = [layouts[v] for v in (a, b)]
    pointers = [pointer(v, p) for v, p in zip((a, b), places, strict=True)]
    strides = [_strides(v, p) for v, p in zip((a, b), places, strict=True)]
    numbers = _weight_numbers if name == "conv2d_weight" else _forward_numbers
    symbol = f"kiln_conv_{'weight_' if name == 'conv2d_weight' else ''}{dtype}"
    return Step(op, symbol, (module,), (*pointers, Pointer(op.result), *numbers(op, groups, strides)))


def _strides(v: Value, layout: Layout | None) -> tuple[Dim, ...]:
    if layout is not None:
        return layout.strides
    shape = v.type.shape
    if not any(isinstance(d, Sym) for d in shape):
        return row_major(shape)
    inner = ("*".join(str(x) for x in shape[d + 1 :]) for d in range(len(shape) - 1))
    return (*(Sym(s) for s in inner), 1)


def _whole(n: Dim) -> int:
    assert isinstance(n, int), "channels and taps have known sizes"
    return n


def _forward_numbers(op: Operation, groups: int, strides: list[tuple[Dim, ...]]) -> list[Argument]:
    """The arguments in the order of `_Forward.SCALARS`. Forwards, position p meets element p * stride - before +
    tap * dilation; transposed, it meets element (p + before - tap * dilation) / stride."""
    (x, w), result = (v.type for v in op.operands), op.result.type
    results, channels = _whole(w.shape[0]) // groups, _whole(w.shape[1])
    w_o, w_c, w_h, w_w = strides[1]
    turned = op.op.name == "conv2d_input"
    w_g: Dim = Sym(f"{results}*{w_o}") if isinstance(w_o, Sym) else results * w_o
    if turned:
        results, channels, w_o, w_c = channels, results, w_c, w_o
    walks: list[Argument] = []
    for axis in axes(op.attrs):
        down, up = (1, axis.stride) if turned else (axis.stride, 1)
        offset, spread = (axis.before, -axis.dilation) if turned else (-axis.before, axis.dilation)
        step = up // math.gcd(up, axis.dilation)
        walks += [down, up, offset, spread, step, step * spread // up]
    shapes = (x.shape[0], groups, channels, results, *x.shape[2:], *result.shape[2:], *w.shape[2:])
    return [*shapes, *walks, *strides[0], w_g, w_o, w_c, w_h, w_w]


def _weight_numbers(op: Operation, groups: int, strides: list[tuple[Dim, ...]]) -> list[Argument]:
    """The arguments in the order of `_Weight.SCALARS`."""
    (x, g), (o, c, *taps) = (v.type for v in op.operands), op.result.type.shape
    rows, columns = axes(op.attrs)
    walk = (rows.stride, columns.stride, rows.before, columns.before, rows.dilation, columns.dilation)
    sizes = (x.shape[0], groups, c, _whole(o) // groups, *x.shape[2:], *g.shape[2:], *taps)
    return [*sizes, *walk, *strides[0], *strides[1]]


def conv_work(op: Operation) -> int:
    """Multiplications and additions."""
    x, y = op.operands[0].type, op.result.type
    sizes: tuple[Dim, ...]
    if op.op.name == "conv2d_weight":
        sizes = (*op.operands[1].type.shape, *y.shape[1:])
    elif op.op.name == "conv2d":
        sizes = (*y.shape, *op.operands[1].type.shape[1:])
    else:
        sizes = (*x.shape, *op.operands[1].type.shape[1:])
    return 2 * math.prod(d for d in sizes if isinstance(d, int))
