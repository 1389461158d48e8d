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
there the rows of a tile are channels of x, k is a position, and the gradient is what is packed (`conv_weight.py`); of
few channels, pairs of channel and tap (`conv_few.py`).
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
    variables,
)
from kiln.codegen.conv_tiles import GRAIN, PACK_GRAIN, VECTORS, Family
from kiln.codegen.conv_weight import Weight
from kiln.codegen.layout import Layout
from kiln.codegen.llvm.emit import emit_module
from kiln.codegen.plan import Argument, Pointer, Step, pointer
from kiln.ir import loops as L
from kiln.ir.graph import Operation, Value
from kiln.ir.loops import INDEX, Alloc, Buffer, Carry, Expr, For, If, Invoke, Kernel, Stmt, Store, Var
from kiln.ir.ops.conv import axes
from kiln.ir.order import KBLOCK
from kiln.ir.program import Module
from kiln.ir.target import Target
from kiln.ir.types import Dim, DType, product, row_major

DTYPES: Final = ("float32", "float64")
PIXELS: Final = 512
"""Positions per task: their results stay in the second-level cache until they are put in order."""

PIXEL: Final = 32
"""What a position costs beside its products, in vector multiply-adds."""


def conv_module(dtype: DType, target: Target) -> Module:
    """The module that exports `kiln_conv_<dtype>` and `kiln_conv_weight_<dtype>` for float32 and float64 (TypeError
    for others). Their arguments stand at `_Forward.kernel` and `Weight.kernel`."""
    return _module(dtype, target)


@functools.cache
def _module(dtype: DType, target: Target) -> Module:
    return emit_module(f"conv_{dtype.name}", kernels(dtype, target), target, leading={f"kiln_conv_{dtype.name}"})


def kernels(dtype: DType, target: Target) -> list[Kernel]:
    """The kernels of the module, innermost first."""
    if dtype.name not in DTYPES:
        raise TypeError(f"no convolution of {dtype}")
    family = Family(dtype, target)
    return [
        *(family.tile(vectors) for vectors in (1, VECTORS)),
        family.append(),
        family.pack(),
        family.line(),
        _Axis(family).kernel(),
        _Forward(family).segments(),
        _Forward(family).pixels(),
        _Forward(family).kernel(),
        *Weight(family).kernels(),
    ]


class _Axis:
    """Which taps the positions along one dimension meet, as a table: the number of runs of positions with equal taps;
    for each run (and one more, for the end) its first place in the sequence, first tap, number of taps; then the
    positions in the sequence, then for each the element that its first tap meets.

    Tap number `tap` of position p meets element t / up, where t = p * down + offset + tap * spread, if that is whole
    and lies among the elements. Then so does every `step`-th tap, `along` elements further. The sequence is ascending
    for each remainder by `up`, which is what decides which taps are whole."""

    SIZES: Final = "positions taps elements down up offset spread step along"

    def __init__(self, family: Family) -> None:
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

    def __init__(self, family: Family) -> None:
        self.family = family
        self.axis = _Axis(family)
        self.stem = family.stem

    def segments(self) -> Kernel:
        """The table of a pair of runs: their taps, each with all channels; of one channel, each row of taps."""
        table = self.family.numbers("table")
        params = variables("blocks taps_w channels x_step tap_h n_h step_h move_h tap_w n_w step_w move_w in_rows")
        blocks, taps_w, channels, x_step, tap_h, n_h, step_h, move_h, tap_w, n_w, step_w, move_w, in_rows = params
        a, b = variables("a b")
        row = L.mul(L.add(tap_h, L.mul(a, step_h)), taps_w)
        k = L.mul(L.add(row, L.add(tap_w, L.mul(b, step_w))), channels)
        place = L.add(L.mul(a, move_h), L.mul(b, move_w))
        apart = is_(in_rows, 0)
        each, some = L.select(apart, channels, n_w), L.select(apart, n_w, minimum(n_w, 1))
        append = self.family.invoke_append((table, L.index(0)), blocks, k, each, place, x_step)
        taps = For("serial", a, L.index(0), n_h, (For("serial", b, L.index(0), some, (append,)),))
        start, finish = self.family.start(table, L.index(0)), self.family.finish(table, L.index(0), blocks)
        return Kernel(f"{self.stem}_segments", (table, *params), (*start, taps, *finish))

    def pixels(self) -> Kernel:
        """Tiles over the positions of a pair of runs, of all images of a task; the last tile repeats the last one.
        Row number (image * rows + row) * columns + column of c is for (image, i - i0, position along the columns)."""
        family, rows = self.family, self.family.rows
        x, w, c = (family.memory(n) for n in ("x", "w", "c"))
        table, high, wide, spots = (family.numbers(n) for n in ("table", "high", "wide", "spots"))
        params = variables("blocks images i0 i_from i_to j_from j_to out_h out_w rows narrow x_n x_step x_h x_w")
        blocks, images, i0, i_from, i_to, j_from, j_to, out_h, out_w, some, narrow, x_n, x_step, x_h, x_w = params
        n, i, j, q, r = variables("n i j q r")
        top = Names()
        down, across = top.let("down", L.sub(i_to, i_from)), top.let("across", L.sub(j_to, j_from))
        total = top.let("total", L.mul(images, L.mul(down, across)))
        each = Names()
        begin = each.let("begin", L.add(L.mul(n, x_n), L.mul(_Axis.source(high, out_h, i), x_h)))
        line = each.let("line", L.mul(L.add(L.mul(n, some), L.sub(i, i0)), out_w))
        first = each.let("first", L.sub(L.mul(L.add(L.mul(n, down), L.sub(i, i_from)), across), j_from))
        at = L.add(first, j) * 2
        place = Store(spots, (at,), L.add(begin, L.mul(_Axis.source(wide, out_w, j), x_w)))
        target = Store(spots, (at + 1,), L.add(line, _Axis.position(wide, out_w, j)))
        each.add(For("serial", j, j_from, j_to, (place, target)))
        top.add(For("serial", n, L.index(0), images, (For("serial", i, i_from, i_to, each.block()),)))
        end = L.add(total, r) * 2
        again = [Store(spots, (end + f,), L.load(spots, (total * 2 - (2 - f),))) for f in range(2)]
        top.add(For("serial", r, L.index(0), L.index(rows - 1), tuple(again)))
        buffers = (*((b, L.index(0)) for b in (x, w, c, table)), (spots, q * 2))
        tile = family.invoke_tile(negation(is_(narrow, 0)), buffers, (blocks, x_step))
        top.add(For("serial", q, L.index(0), total, (tile,), rows))
        return Kernel(f"{self.stem}_pixels", (x, w, c, table, high, wide, spots, *params), top.block())

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
        each = L.mul(L.mul(pixels, minimum(together, s["images"])), k * VECTORS + PIXEL)
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
        most = L.add(L.mul(L.mul(images, rows), s["out_w"]), L.index(family.rows))
        spots = family.numbers("spots", most * 2, "workspace")
        names.add(Alloc(c), Alloc(table), Alloc(spots))

        a, b = variables("run_h run_w")
        run = Names()
        i_from = run.let("i_from", maximum(_Axis.run(high, a, 0), i0))
        i_to = run.let("i_to", minimum(_Axis.run(high, a + 1, 0), i1))
        taps = [run.let(n, _Axis.run(high, a, f)) for f, n in ((1, "tap_h"), (2, "n_h"))]
        each = Names()
        along = [each.let(n, _Axis.run(wide, b, f)) for f, n in ((1, "tap_w"), (2, "n_w"))]
        moves = [L.mul(s[f"along_{d}"], s[f"x_{d}"]) for d in "hw"]
        # Taps of one channel that follow one another are one segment.
        in_rows = names.let("in_rows", conjunction(is_(s["channels"], 1), is_(s["step_w"], 1)))
        flag = names.let("flag", L.select(in_rows, L.index(1), L.index(0)))
        x_step = names.let("x_step", L.select(in_rows, moves[1], s["x_c"]))
        sizes = (blocks, s["taps_w"], s["channels"], x_step)
        zero = L.index(0)
        each.add(
            Invoke(
                f"{self.stem}_segments",
                ((table, zero), *sizes, *taps, s["step_h"], moves[0], *along, s["step_w"], moves[1], flag),
            )
        )
        j_from, j_to = _Axis.run(wide, b, 0), _Axis.run(wide, b + 1, 0)
        where = ((x, x_at), (packed, w_at), (c, zero), (table, zero), (high, zero), (wide, zero), (spots, zero))
        numbers = (blocks, images, i0, i_from, i_to, j_from, j_to, s["out_h"], s["out_w"], rows, narrow)
        strides = (s["x_n"], x_step, s["x_h"], s["x_w"])
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
    return row_major(v.type.shape) if layout is None else layout.strides


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
    w_g = product((results, w_o))
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
    """The arguments in the order of `Weight.SCALARS`."""
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
