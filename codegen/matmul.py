"""The matrix product: a few small kernels that are written once and shared by every program, eager or compiled.

Sizes and strides are run-time numbers. Whatever path they lead to, an element of the result is the same chain of
fused multiply-adds (`ir/order.py`, "contraction"): blocks of `KBLOCK` along k, each ascending from +0, block sums
added ascending. Packing, tiling and threads only decide when an element is computed, never how. From the inside out:

- *tile* keeps rows x vectors of the result in registers and walks along k: for each k it loads a few vectors of b
  and broadcasts one element of a per row. It knows pointers and strides only, so it reads a and b packed or in
  place, and there is one per tile shape.
- *strip* runs tiles down the rows of one panel (as many columns as a full tile has).
- *pack* copies panels of b to a workspace, so that a panel lies in one run of memory; where b is transposed it
  turns small square blocks in registers.
- *tasks* shares blocks of rows times groups of panels among threads; each task walks down k, block by block.
- *product* decides: how big tasks are, and whether b is read in place, packed panel by panel by the tasks, or packed
  beforehand for all of them.

The function that programs call, `kiln_matmul_<dtype>`, only brings the result's rows into unit stride: it exchanges
the roles of a and b if the columns lie contiguous instead, or copies. 16-bit floats are multiplied as float32: a is
widened beforehand, b as its panels are packed (always), and the result is rounded once, at the end, or not at all
(`kiln_matmul_<dtype>_float32`). The method is that of Goto and van de Geijn,
"Anatomy of high-performance matrix multiplication" (2008), with panels of b shared between threads.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from kiln.codegen.blocks import Names as _Names
from kiln.codegen.blocks import ceil_div as _ceil_div
from kiln.codegen.blocks import conjunction as _and
from kiln.codegen.blocks import disjunction as _or
from kiln.codegen.blocks import is_ as _is
from kiln.codegen.blocks import maximum as _max
from kiln.codegen.blocks import minimum as _min
from kiln.codegen.blocks import negation as _not
from kiln.codegen.blocks import quotient as _div
from kiln.codegen.blocks import remainder as _mod
from kiln.codegen.blocks import transposed
from kiln.codegen.blocks import variables as _vars
from kiln.codegen.halves import expand
from kiln.codegen.llvm.emit import emit_module
from kiln.codegen.schedule import schedule
from kiln.ir import loops as L
from kiln.ir.loops import (
    BOOL,
    INDEX,
    Alloc,
    Block,
    Buffer,
    Carry,
    Expr,
    For,
    If,
    Invoke,
    Kernel,
    Let,
    Stmt,
    Store,
    Var,
    Vec,
)
from kiln.ir.order import KBLOCK
from kiln.ir.program import Module
from kiln.ir.target import Target
from kiln.ir.types import DType, float32

ROW_BLOCK: Final = 128
"""Rows of a that one task multiplies with a panel: with KBLOCK columns they stay in the second-level cache."""
PANEL_GROUP: Final = 4
"""Panels of b per task: a's rows are then read from the cache that many times."""
K_CHUNK: Final = 4096
"""Most rows of b that are packed at once, a multiple of KBLOCK."""
WORKSPACE: Final = 1 << 21
"""Most elements that packed panels of one matrix take at once."""
NEAR_WORKSPACE: Final = 1 << 17
"""The same for panels of several matrices: these should still be in the second-level cache when they are used."""
DIRECT_ROWS: Final = 24
"""With no more rows than these (three tiles), b is read in place if its rows are contiguous: it is read too few
times for packing to pay."""
DIRECT_BYTES: Final = 1 << 18
"""So is a b that fits the second-level cache well."""
TURN: Final = 8
"""Side of the blocks that packing a transposed b turns in registers (narrow panels: theirs)."""
FEW_TASKS: Final = 16
"""A product of fewer tasks is cut finer: into blocks of FEW_ROWS rows and single panels."""
FEW_ROWS: Final = 32
GRAIN: Final = 1 << 16
"""Vector multiply-adds that are worth a thread (ten to twenty microseconds: waking one takes some)."""
PACK_GRAIN: Final = 1 << 15
"""Elements that are worth a thread's packing."""

LEADING: Final = ("_tasks", "_product")
"""Kernels (by how their names end) without loops over elements."""

DTYPES: Final = ("float32", "float64", "float16", "bfloat16", "uint8", "int8", "int16", "int32", "int64")
CONVERT_GRAIN: Final = 1 << 15
"""Elements whose conversion is worth a thread."""


@dataclass(frozen=True)
class Shape:
    """A register tile: `rows` x `vectors` vectors of `lanes` elements."""

    lanes: int
    rows: int
    vectors: int

    @property
    def panel(self) -> int:
        """Columns of a full tile."""
        return self.lanes * self.vectors


def tile_shape(dtype: DType, target: Target) -> Shape:
    """The tile that fills the target's registers: 32 of them take 8 x 3 sums, 3 vectors of b and one broadcast;
    16 take 6 x 2. Edges use fewer rows (4, 2, 1) and vectors."""
    lanes = max(2, target.vector_bits // dtype.bits)
    many = target.vector_bits >= 512 or target.arch == "aarch64"
    return Shape(lanes, 8, 3) if many else Shape(lanes, 6, 2)


@functools.cache
def matmul_module(dtype: DType, target: Target) -> Module:
    """The module that exports `kiln_matmul_<dtype>`, for the dtypes in `DTYPES` (TypeError for others):

    `i32 (ptr ctx, ptr A, ptr B, ptr C, i64 batch, i64 M, i64 N, i64 K, i64 a_batch, i64 a_m, i64 a_k, i64 b_batch,
    i64 b_k, i64 b_n, i64 c_batch, i64 c_m, i64 c_n)`: C[i, m, n] = sum over k of A[i, m, k] * B[i, k, n]. Strides
    count elements. C overlaps neither A nor B. K = 0 gives +0; integers wrap.
    """
    made = kernels(dtype, target)
    leading = {k.name for k in made if k.name.endswith(LEADING)}
    return emit_module(f"matmul_{dtype.name}", made, target, leading)


def kernels(dtype: DType, target: Target) -> list[Kernel]:
    """The kernels of the module, innermost first; the last one is `kiln_matmul_<dtype>`."""
    if dtype.name not in DTYPES:
        raise TypeError(f"no matrix product of {dtype}")
    if dtype.is_half:
        family = _Family(float32, tile_shape(float32, target), dtype, target)
    else:
        family = _Family(dtype, tile_shape(dtype, target), dtype, target)
    halves = [family.convert(dtype, float32), family.convert(float32, dtype)] if dtype.is_half else []
    entries = [family.half_entry(float32), family.half_entry(dtype)] if dtype.is_half else [family.entry()]
    return [
        *halves,
        *(family.tile(rows, vectors, masked) for rows, vectors, masked in family.tiles()),
        family.strip(),
        family.pack_b(),
        _Product(family).tasks(),
        _Product(family).kernel(),
        *entries,
    ]


class _Family:
    """The kernels of one dtype and tile shape. `source` is the dtype of a and b in memory, `dtype` what is computed
    with: they differ for 16-bit floats."""

    def __init__(self, dtype: DType, shape: Shape, source: DType, target: Target) -> None:
        self.dtype = dtype
        self.shape = shape
        self.source = source
        self.target = target
        self.stem = f"kiln_matmul_{source.name}"
        self.vec = Vec(dtype, shape.lanes)
        self.turn = min(TURN, shape.panel)

    def memory(self, name: str, scope: str = "global") -> Buffer:
        """Memory that is only passed on, addressed by element."""
        return Buffer(name, self.dtype, (1,), (1,), scope)

    def read(self, buffer: Buffer, indices: tuple[Expr, ...], mask: Expr | None = None) -> Expr:
        """A load of an operand, widened."""
        found = L.load(buffer, indices, mask)
        return found if found.dtype is self.dtype else expand(L.cast(found, self.dtype), self.target.fma)

    # ------------------------------------------------------------------------------------------- tile

    def tiles(self) -> list[tuple[int, int, bool]]:
        """(rows, vectors, masked) of every tile kernel: of full width, and masked ones for the last columns, whose last
        rows may be fewer. They are few because they are what a first process waits for."""
        full = [(rows, self.shape.vectors, False) for rows in (self.shape.rows, 4, 2, 1)]
        return [*full, *((self.shape.rows, v, True) for v in range(1, self.shape.vectors + 1))]

    def tile_name(self, rows: int, vectors: int, masked: bool) -> str:
        return f"{self.stem}_tile{rows}x{vectors}{'m' if masked else ''}"

    def tile(self, rows: int, vectors: int, masked: bool) -> Kernel:
        """c[rows, n] (+)= a[rows, kc] b[kc, n]: one block of the contraction order. With `masked` the last
        vector's columns from n on are neither read nor written, and rows from m on are the last one again."""
        lanes, vec = self.shape.lanes, self.vec
        m, n, kc, a_m, a_k, b_k, c_m, more = params = _vars("m n kc a_m a_k b_k c_m more")
        a = Buffer("a", self.dtype, (rows, kc), (a_m, a_k))
        b = Buffer("b", self.dtype, (kc, vectors * lanes), (b_k, 1))
        c = Buffer("c", self.dtype, (rows, vectors * lanes), (c_m, 1))
        columns = [L.ramp(L.index(j * lanes), lanes) for j in range(vectors)]
        inside = L.apply("lt", columns[-1], L.splat(n, lanes))
        mask = Var(inside.type, "mask")
        masks: list[Expr | None] = [None] * vectors
        if masked:
            masks[-1] = mask

        k = Var(INDEX, "k")
        places: list[Expr] = [L.index(i) for i in range(rows)]
        if masked:
            places[1:] = [Var(INDEX, f"i{i}") for i in range(1, rows)]
        row = [L.splat(L.load(a, (i, k)), lanes) for i in places]
        column = [L.load(b, (k, columns[j]), masks[j]) for j in range(vectors)]
        carried, sums = [], []
        for i in range(rows):
            for j in range(vectors):
                partial, total = Var(vec, f"x{i}_{j}"), Var(vec, f"sum{i}_{j}")
                carried.append(Carry(partial, L.const(0, vec), self.multiply_add(row[i], column[j], partial), total))
                sums.append((i, j, total))
        walk = For("serial", k, L.index(0), kc, (), carried=tuple(carried))
        again: list[Stmt] = []
        stores: list[Stmt] = []
        first: list[Stmt] = []
        for i, j, total in sums:
            at, both = (places[i], columns[j]), Var(vec, f"both{i}_{j}")
            again.append(Let(both, L.add(L.load(c, at, masks[j]), total)))
            stores.append(Store(c, at, both, masks[j]))
            first.append(Store(c, at, total, masks[j]))
        again += stores  # after all loads: rows may be the same one
        body: list[Stmt] = [Let(v, _min(L.index(i), m - 1)) for i, v in enumerate(places) if isinstance(v, Var)]
        body += [Let(mask, inside)] if masked else []
        body += [walk, If(_is(more, 0), tuple(first), tuple(again))]
        return Kernel(self.tile_name(rows, vectors, masked), (a, b, c, *params), tuple(body))

    def multiply_add(self, a: Expr, b: Expr, c: Expr) -> Expr:
        if self.dtype.is_floating_point:
            return L.apply("fma", a, b, c)
        return L.add(c, L.mul(a, b))

    # ------------------------------------------------------------------------------------------ strip

    def strip(self) -> Kernel:
        """Tiles down the m rows of a panel of n columns."""
        m, n, kc, a_m, a_k, b_k, c_m, more = params = _vars("m n kc a_m a_k b_k c_m more")
        a, b, c = (self.memory(name) for name in "abc")

        height, width = self.shape.rows, self.shape.vectors

        def call(rows: int, vectors: int, masked: bool, i: Expr) -> Stmt:
            where = ((a, L.mul(i, a_m)), (b, L.index(0)), (c, L.mul(i, c_m)))
            scalars = (L.sub(m, i), n, kc, a_m, a_k, b_k, c_m, more)
            return Invoke(self.tile_name(rows, vectors, masked), (*where, *scalars))

        def masked(vectors: int) -> Block:
            i = Var(INDEX, "i")
            return (For("serial", i, L.index(0), m, (call(height, vectors, True, i),), height),)

        names = _Names()
        i = Var(INDEX, "i")
        left = names.let("left", _mod(m, height))
        row = names.let("full", L.sub(m, left))
        names.add(For("serial", i, L.index(0), row, (call(height, width, False, i),), height))
        for rows in (4, 2, 1):
            some = names.let(f"has{rows}", L.apply("and", left, L.index(rows)))
            names.add(If(_not(_is(some, 0)), (call(rows, width, False, row),)))
            row = names.let(f"row{rows}", L.add(row, some))

        choice = masked(width)
        for vectors in reversed(range(1, width)):
            fits = L.apply("le", n, L.index(vectors * self.shape.lanes))
            choice = (If(fits, masked(vectors), choice),)
        body = (If(_is(n, self.shape.panel), names.block(), choice),)
        return Kernel(f"{self.stem}_strip", (a, b, c, *params), body)

    # ---------------------------------------------------------------------------------------- packing

    def pack_b(self) -> Kernel:
        """packed[k, 0:n] = b[k, 0:n]; rows of `packed` have the width of a panel."""
        lanes = self.shape.lanes
        n, kn, b_k, b_n = params = _vars("n kn b_k b_n")
        b, packed = Buffer("b", self.source, (1,), (1,)), self.memory("packed")
        j, k = _vars("j k")
        here, there = k * self.shape.panel, L.mul(k, b_k)

        # Contiguous rows: the whole width, row by row.
        names = _Names()
        copies = []
        for v in range(self.shape.vectors):
            column = L.ramp(L.index(v * lanes), lanes)
            mask = names.let(f"mask{v}", L.apply("lt", column, L.splat(n, lanes)))
            source = L.ramp(L.add(there, L.index(v * lanes)), lanes)
            copies.append(Store(packed, (L.ramp(here + v * lanes, lanes),), self.read(b, (source,), mask)))
        names.add(For("serial", k, L.index(0), kn, tuple(copies)))
        contiguous = names.block()

        # Any strides: gathers, a vector's width at a time.
        inside = L.apply("lt", L.ramp(j, lanes), L.splat(n, lanes))
        spread = L.apply("mul", L.ramp(j, lanes), L.splat(b_n, lanes))
        gather = self.read(b, (L.apply("add", L.splat(there, lanes), spread),), inside)
        move = Store(packed, (L.ramp(L.add(here, j), lanes),), gather)

        names = _Names()
        turns = _and(_is(b_k, 1), L.apply("ge", kn, L.index(self.turn)))
        whole = names.let("whole", L.select(turns, L.sub(kn, _mod(kn, self.turn)), L.index(0)))
        names.add(If(turns, (self._turn(b, packed, n, b_n, whole),)))
        names.add(For("serial", j, L.index(0), n, (For("serial", k, whole, kn, (move,)),), lanes))
        choice = If(_or(_is(b_n, 1), _is(n, 1)), contiguous, names.block())
        return Kernel(f"{self.stem}_pack_b", (b, packed, *params), (choice,))

    def _turn(self, b: Buffer, packed: Buffer, n: Expr, b_n: Expr, whole: Expr) -> Stmt:
        """Columns of b, each contiguous, to rows of `packed`: blocks of `turn` x `turn`, turned in registers. Columns
        behind the last one repeat it, so that nothing outside b is read; their copies are never used."""
        j, k = _vars("j k")
        names = _Names()
        last = n - 1
        starts = [names.let(f"column{e}", L.mul(_min(j + e, last), b_n)) for e in range(self.turn)]
        columns = [self.read(b, (L.ramp(L.add(s, k), self.turn),)) for s in starts]
        at = L.add(k * self.shape.panel, j)
        rows = enumerate(transposed(columns))
        stores = [Store(packed, (L.ramp(at + e * self.shape.panel, self.turn),), row) for e, row in rows]
        names.add(For("serial", k, L.index(0), whole, tuple(stores), self.turn))
        return For("serial", j, L.index(0), n, names.block(), self.turn)

    # ---------------------------------------------------------------------------------------- product

    def entry(self) -> Kernel:
        """`kiln_matmul_<dtype>`: see `matmul_module`."""
        sizes = batch, m, n, k = _vars("batch m n k")
        strides = _vars("a_batch a_m a_k b_batch b_k b_n c_batch c_m c_n")
        a_batch, a_m, a_k, b_batch, b_k, b_n, c_batch, c_m, c_n = strides
        a, b, c = (self.memory(name) for name in "abc")
        zero = L.index(0)

        def product(out: Buffer, row: Expr, matrix: Expr) -> Stmt:
            scalars = (batch, m, n, k, a_batch, a_m, a_k, b_batch, b_k, b_n, matrix, row)
            return Invoke(f"{self.stem}_product", ((a, zero), (b, zero), (out, zero), *scalars))

        scalars = (batch, n, m, k, b_batch, b_n, b_k, a_batch, a_k, a_m, c_batch, c_n)
        exchanged = Invoke(f"{self.stem}_product", ((b, zero), (a, zero), (c, zero), *scalars))
        rows, columns = _or(_is(c_n, 1), _is(n, 1)), _or(_is(c_m, 1), _is(m, 1))

        size = L.mul(m, n)
        work = Buffer("work", self.dtype, (L.mul(batch, size),), (1,), "workspace")
        q, i, j = _vars("q i j")
        here = L.add(L.add(L.mul(q, size), L.mul(i, n)), j)
        there = L.add(L.add(L.mul(q, c_batch), L.mul(i, c_m)), L.mul(j, c_n))
        copy: Stmt = Store(c, (there,), L.load(work, (here,)))
        for var, hi in ((j, n), (i, m), (q, batch)):
            copy = For("serial", var, zero, hi, (copy,))
        through = (Alloc(work), product(work, n, size), copy)
        body = If(rows, (product(c, c_m, c_batch),), (If(columns, (exchanged,), through),))
        return Kernel(self.stem, (a, b, c, *sizes, *strides), (body,))

    # ---------------------------------------------------------------------------------- 16-bit floats

    def convert(self, source: DType, to: DType) -> Kernel:
        """y[i, j, k] = x[i, j, k] as another dtype, for any strides; rows without gaps go by whole vectors."""
        batch, m, n, *strides = scalars = _vars("batch m n x_batch x_m x_n y_batch y_m y_n")
        sizes = (batch, m, n)
        x, y = (Buffer(s, d, sizes, tuple(strides[i : i + 3])) for s, d, i in (("x", source, 0), ("y", to, 3)))
        x_rows, y_rows = (Buffer(f"{b.name}_rows", b.dtype, sizes, (*b.strides[:2], 1)) for b in (x, y))
        q, i, t, j = _vars("q i t j")

        def row(x: Buffer, y: Buffer) -> For:
            store = Store(y, (q, i, j), L.cast(L.load(x, (q, i, j)), to))
            return For("vector", j, L.index(0), n, (store,))

        whole = _and(_is(strides[2], 1), _is(strides[5], 1))
        places = (Let(q, _div(t, m)), Let(i, _mod(t, m)))
        body = (*places, If(whole, (row(x_rows, y_rows),), (row(x, y),)))
        grain = _div(L.index(CONVERT_GRAIN), _max(n, 1)) + 1
        rows = For("parallel", t, L.index(0), L.mul(batch, m), body, grain=grain)
        name = f"{self.stem}_{'widen' if source.is_half else 'round'}"
        return schedule(Kernel(name, (x, x_rows, y, y_rows, *scalars), (rows,)), self.target)

    def half_entry(self, to: DType) -> Kernel:
        """`kiln_matmul_<dtype>` of 16-bit floats: a and the result pass through float32 workspaces; or with a float32
        result, whose rows must be contiguous."""
        sizes = batch, m, n, k = _vars("batch m n k")
        strides = _vars("a_batch a_m a_k b_batch b_k b_n c_batch c_m c_n")
        a_batch, a_m, a_k, b_batch, b_k, b_n, c_batch, c_m, c_n = strides
        a, b, c = (Buffer(name, d, (1,), (1,)) for name, d in zip("abc", (self.source, self.source, to), strict=True))
        wide = Buffer("wide", self.dtype, (L.mul(batch, L.mul(m, k)),), (1,), "workspace")
        sums = Buffer("sums", self.dtype, (L.mul(batch, L.mul(m, n)),), (1,), "workspace")
        zero, one = L.index(0), L.index(1)
        rows, results = L.mul(m, k), L.mul(m, n)
        from_a = ((a, zero), (a, zero), (wide, zero), (wide, zero), batch, m, k, a_batch, a_m, a_k, rows, k, one)
        to_c = ((sums, zero), (sums, zero), (c, zero), (c, zero), batch, m, n, results, n, one, c_batch, c_m, c_n)
        scalars = (batch, m, n, k, rows, k, one, b_batch, b_k, b_n)
        head = (Alloc(wide), Invoke(f"{self.stem}_widen", from_a))

        def product(out: Buffer, batch_step: Expr, step: Expr) -> Stmt:
            places = ((wide, zero), (b, zero), (out, zero))
            return Invoke(f"{self.stem}_product", (*places, *scalars, batch_step, step))

        if to is self.dtype:
            return Kernel(f"{self.stem}_{to}", (a, b, c, *sizes, *strides), (*head, product(c, c_batch, c_m)))
        rounding = Invoke(f"{self.stem}_round", to_c)
        return Kernel(self.stem, (a, b, c, *sizes, *strides), (*head, Alloc(sums), product(sums, results, n), rounding))


class _Product:
    """The product kernel and that of its tasks. What is packed of b at once is a "slab": up to K_CHUNK rows of some
    panels, of one matrix or (where matrices are small) of several. Slabs follow one another; a slab's panels are
    packed in parallel, then its tasks run in parallel: a block of rows times a group of panels each."""

    def __init__(self, family: _Family) -> None:
        self.family = family
        self.rows_of_tile = family.shape.rows
        self.panel = family.shape.panel
        self.a, self.b, self.c = (family.memory(name) for name in "abc")
        self.widens = family.source is not family.dtype
        if self.widens:
            self.b = Buffer("b", family.source, (1,), (1,))

    def kernel(self) -> Kernel:
        """C = A B for a result whose rows are contiguous."""
        batch, m, n, k, *strides = scalars = _vars("batch m n k a_batch a_m a_k b_batch b_k b_n c_batch c_m")
        a_batch, a_m, a_k, b_batch, b_k, b_n, c_batch, c_m = strides
        top = _Names()
        panels = top.let("panels", _ceil_div(n, self.panel))
        row_block, group = self._task_size(top, batch, m, panels)
        small = L.apply("le", L.mul(k, n), L.index(DIRECT_BYTES // self.family.dtype.itemsize))
        little = _or(small, L.apply("le", m, L.index(DIRECT_ROWS)))
        direct = top.let("direct", _and(_or(_is(b_n, 1), _is(n, 1)), little))
        if self.widens:
            direct = top.let("never", L.const(False, BOOL))
        # A panel that one task alone uses is packed by that task, just before it is used.
        alone = top.let("alone", L.apply("le", m, row_block))
        in_place = top.let("in_place", direct if self.widens else _or(direct, alone))
        depth = _max(_min(k, K_CHUNK), 1)
        most = top.let("most", _max(_div(L.index(WORKSPACE), depth * self.panel), 1))
        some = top.let("some", _max(_min(panels, most), 1))
        near = _div(L.index(NEAR_WORKSPACE), depth * self.panel)
        wide = top.let("wide", _max(L.select(in_place, panels, some), 1))  # panels of one matrix in a slab
        deep = top.let("deep", _max(L.select(in_place, batch, _div(near, some)), 1))  # matrices in a slab

        # The slab: rows from k0, matrices from q0, panels from j0.
        k0, q0, j0 = _vars("k0 q0 j0")
        slab = _Names()
        rows = slab.let("rows", _min(L.sub(k, k0), K_CHUNK))
        matrices = slab.let("matrices", _min(L.sub(batch, q0), deep))
        here = slab.let("here", _min(L.sub(panels, j0), wide))
        first = slab.let("first", j0 * self.panel)
        columns = slab.let("columns", _min(L.sub(n, first), here * self.panel))
        a = (self.a, slab.let("a_at", L.add(L.mul(q0, a_batch), L.mul(k0, a_k))))
        b_at = L.add(L.add(L.mul(q0, b_batch), L.mul(k0, b_k)), L.mul(first, b_n))
        b = (self.b, slab.let("b_at", b_at))
        c = (self.c, slab.let("c_at", L.add(L.mul(q0, c_batch), first)))

        def tasks(b: tuple[Buffer, Expr], packs: Expr, *b_strides: Expr) -> Stmt:
            counts = (matrices, m, columns, rows, k0, row_block, group, packs)
            return Invoke(f"{self.family.stem}_tasks", (a, b, c, *counts, a_batch, a_m, a_k, *b_strides, c_batch, c_m))

        count = L.mul(matrices, here)
        step = rows * self.panel
        packed = Buffer("packed", self.family.dtype, (L.mul(count, step),), (1,), "workspace")
        whole = (packed, L.index(0))
        pack = self._pack(b, packed, (count, here, columns, rows), (b_batch, b_k, b_n))
        packs = L.select(direct, L.index(0), L.index(1))
        from_b = tasks(b, packs, b_batch, b_n * self.panel, b_k, b_n)
        from_slab = tasks(whole, L.index(0), L.mul(here, step), step, L.index(self.panel), L.index(1))
        packed_first = (Alloc(packed), pack, from_slab)
        slab.add(*packed_first) if self.widens else slab.add(If(in_place, (from_b,), packed_first))
        across = _steps(j0, panels, wide, slab.block())
        through = _steps(q0, batch, deep, (across,))
        # With k = 0 there is one chunk of no rows: it stores zeros.
        top.add(For("serial", k0, L.index(0), _max(k, 1), (through,), K_CHUNK))
        return Kernel(f"{self.family.stem}_product", (self.a, self.b, self.c, *scalars), top.block())

    def _task_size(self, top: _Names, batch: Expr, m: Expr, panels: Expr) -> tuple[Expr, Expr]:
        """Rows and panels of a task: big tasks read the caches less often, small ones leave every thread some."""
        big, small = (n // self.rows_of_tile * self.rows_of_tile for n in (ROW_BLOCK, FEW_ROWS))
        tasks = L.mul(batch, L.mul(_ceil_div(m, big), _ceil_div(panels, PANEL_GROUP)))
        few = top.let("few", L.apply("lt", tasks, L.index(FEW_TASKS)))
        rows = top.let("row_block", L.select(few, L.index(small), L.index(big)))
        return rows, top.let("group", L.select(few, L.index(1), L.index(PANEL_GROUP)))

    def _pack(self, b: tuple[Buffer, Expr], packed: Buffer, sizes: tuple[Expr, ...], strides: tuple[Expr, ...]) -> Stmt:
        """All panels of the slab to the workspace, one after the other."""
        count, here, columns, rows = sizes
        b_batch, b_k, b_n = strides
        t = Var(INDEX, "t")
        names = _Names()
        q, j = names.split(t, here)
        column = names.let("column", j * self.panel)
        width = _min(L.sub(columns, column), self.panel)
        source = L.add(b[1], L.add(L.mul(q, b_batch), L.mul(column, b_n)))
        target = L.mul(t, rows * self.panel)
        names.add(Invoke(f"{self.family.stem}_pack_b", ((b[0], source), (packed, target), width, rows, b_k, b_n)))
        grain = _div(L.index(PACK_GRAIN), _max(rows * self.panel, 1)) + 1
        return For("parallel", t, L.index(0), count, names.block(), grain=grain)

    def tasks(self) -> Kernel:
        """The tasks of a slab, in parallel. b's panels lie b_panel apart, wherever they are; with `packs` a task
        copies each block of a panel before it uses it."""
        scalars = _vars(
            "matrices m columns rows k0 row_block group packs a_batch a_m a_k b_batch b_panel b_k b_n c_batch c_m"
        )
        matrices, m, columns, rows, k0, row_block, group, packs, *strides = scalars
        a_batch, a_m, a_k, b_batch, b_panel, b_k, b_n, c_batch, c_m = strides
        top = _Names()
        here = self.family.memory("b")  # what is widened lies in packed panels
        panels = top.let("panels", _ceil_div(columns, self.panel))
        row_blocks = top.let("row_blocks", _ceil_div(m, row_block))
        groups = top.let("groups", _ceil_div(panels, group))

        t = Var(INDEX, "t")
        task = _Names()
        rest, g = task.split(t, groups)
        q, r = task.split(rest, row_blocks)
        row = task.let("row", L.mul(r, row_block))
        height = task.let("height", _min(L.sub(m, row), row_block))
        first = task.let("first", L.mul(g, group))
        stop = task.let("stop", _min(panels, L.add(first, group)))
        a_at = task.let("a_at", L.add(L.mul(q, a_batch), L.mul(row, a_m)))
        b_at = task.let("b_at", L.mul(q, b_batch))
        c_at = task.let("c_at", L.add(L.mul(q, c_batch), L.mul(row, c_m)))

        kb, j = _vars("kb j")
        block = _Names()
        kc = block.let("kc", _min(L.sub(rows, kb), KBLOCK))
        more = block.let("more", L.add(k0, kb))  # all but the first block of k add to what is there
        a = (self.a, block.let("a_block", L.add(a_at, L.mul(kb, a_k))))
        b_block = block.let("b_block", L.add(b_at, L.mul(kb, b_k)))
        column = j * self.panel
        width = _min(L.sub(columns, column), self.panel)
        b, c = (here, L.add(b_block, L.mul(j, b_panel))), (self.c, L.add(c_at, column))

        def strip(b: tuple[Buffer, Expr], b_k: Expr) -> Stmt:
            return Invoke(f"{self.family.stem}_strip", (a, b, c, height, width, kc, a_m, a_k, b_k, c_m, more))

        packed = Buffer("packed", self.family.dtype, (KBLOCK * self.panel,), (1,), "workspace")
        start = (packed, L.index(0))
        pack = Invoke(f"{self.family.stem}_pack_b", (b, start, width, kc, b_k, b_n))
        packing = (Alloc(packed), pack, strip(start, L.index(self.panel)))
        either = strip(b, b_k) if self.widens else If(_is(packs, 0), (strip(b, b_k),), packing)
        block.add(For("serial", j, first, stop, (either,)))
        task.add(For("serial", kb, L.index(0), _max(rows, 1), block.block(), KBLOCK))

        each = L.mul(_min(m, row_block), L.mul(_min(panels, group), rows)) * self.family.shape.vectors
        grain = _div(L.index(GRAIN), _max(each, 1)) + 1
        count = L.mul(L.mul(matrices, row_blocks), groups)
        top.add(For("parallel", t, L.index(0), count, task.block(), grain=grain))
        return Kernel(f"{self.family.stem}_tasks", (self.a, here, self.c, *scalars), top.block())


def _steps(var: Var, hi: Expr, step: Expr, body: Block) -> For:
    """for var in range(0, hi, step), for a step known at run time."""
    number = Var(INDEX, f"{var.name}_step")
    return For("serial", number, L.index(0), _ceil_div(hi, step), (Let(var, L.mul(number, step)), *body))
