"""The matrix product: four small kernels that are written once and shared by every program, eager or compiled.

Sizes and strides are run-time numbers. Whatever path they lead to, an element of the result is the same chain of
fused multiply-adds (`ir/order.py`, "contraction"): blocks of `KBLOCK` along k, each ascending from +0, block sums
added ascending. Packing, tiling and threads only decide when an element is computed, never how. From the inside out:

- *tile* keeps rows x vectors of the result in registers and walks along k: for each k it loads a few vectors of b
  and broadcasts one element of a per row. It knows pointers and strides only, so it reads a and b packed or in
  place, and there is one per tile shape.
- *strip* runs tiles down the rows of one panel (as many columns as a full tile has).
- *pack* copies panels of b to a workspace, so that a panel lies in one run of memory; where b is transposed it
  turns blocks of lanes x lanes in registers. Another one packs strips of a's rows, when a is transposed.
- *product* cuts the result into panels and blocks of rows, packs where that pays and shares the tiles among threads.

The function that programs call, `kiln_matmul_<dtype>`, only brings the result's rows into unit stride: it exchanges
the roles of a and b if the columns lie contiguous instead, or copies. The method is that of Goto and van de Geijn,
"Anatomy of high-performance matrix multiplication" (2008), with panels of b shared between threads.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from kiln.codegen.llvm.emit import emit_module
from kiln.ir import loops as L
from kiln.ir.loops import INDEX, Block, Buffer, Carry, Expr, For, If, Invoke, Kernel, Let, Stmt, Store, Var, Vec
from kiln.ir.program import Module
from kiln.ir.target import Target
from kiln.ir.types import DType

ROW_BLOCK: Final = 128
"""Rows of a that one task multiplies with a panel: with KBLOCK columns they stay in the second-level cache."""
PANEL_GROUP: Final = 4
"""Panels of b per task: a's rows are then read from the cache that many times."""
K_CHUNK: Final = 4096
"""Most rows of b that are packed at once, a multiple of KBLOCK."""
WORKSPACE: Final = 1 << 21
"""Most elements that b's packed panels take at once."""
DIRECT_ROWS: Final = 24
"""With no more rows than these (three tiles), b is read in place if its rows are contiguous: it is read too few
times for packing to pay."""
GRAIN: Final = 1 << 14
"""Vector multiply-adds that are worth a thread (some microseconds)."""

TARGET_DTYPES: Final = ("float32", "float64", "int64")


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
    """The module that exports `kiln_matmul_<dtype>`, for float32, float64 and int64 (TypeError for others):

    `i32 (ptr ctx, ptr A, ptr B, ptr C, i64 batch, i64 M, i64 N, i64 K, i64 a_batch, i64 a_m, i64 a_k, i64 b_batch,
    i64 b_k, i64 b_n, i64 c_batch, i64 c_m, i64 c_n)`: C[i, m, n] = sum over k of A[i, m, k] * B[i, k, n]. Strides
    count elements. C overlaps neither A nor B. K = 0 gives +0; integers wrap.
    """
    return emit_module(f"matmul_{dtype.name}", kernels(dtype, target), target)


def kernels(dtype: DType, target: Target) -> list[Kernel]:
    """The kernels of the module, innermost first; the last one is `kiln_matmul_<dtype>`."""
    if dtype.name not in TARGET_DTYPES:
        raise TypeError(f"no matrix product of {dtype}")
    shape = tile_shape(dtype, target)
    family = _Family(dtype, shape)
    return [
        *(family.tile(rows, vectors, masked) for rows, vectors, masked in family.tiles()),
        family.strip(),
        family.pack_b(),
        family.pack_a(),
        family.product(),
        family.entry(),
    ]


def _vars(names: str) -> list[Var]:
    return [Var(INDEX, name) for name in names.split()]


def _min(a: Expr, b: Expr | int) -> Expr:
    return L.apply("min", a, L.as_index(b))


def _max(a: Expr, b: Expr | int) -> Expr:
    return L.apply("max", a, L.as_index(b))


def _div(a: Expr, b: Expr | int) -> Expr:
    return L.apply("div", a, L.as_index(b))


def _mod(a: Expr, b: Expr | int) -> Expr:
    return L.apply("mod", a, L.as_index(b))


def _ceil_div(a: Expr, b: int) -> Expr:
    return _div(a + (b - 1), b)


def _is(a: Expr, b: int) -> Expr:
    return L.apply("eq", a, L.index(b))


def _or(a: Expr, b: Expr) -> Expr:
    return L.apply("or", a, b)


def _and(a: Expr, b: Expr) -> Expr:
    return L.apply("and", a, b)


def _not(a: Expr) -> Expr:
    return L.apply("not", a)


class _Names:
    """Lets in a row: `names.let("k", e)` adds a Let to `statements` and gives the variable."""

    def __init__(self) -> None:
        self.statements: list[Stmt] = []

    def let(self, name: str, value: Expr) -> Var:
        var = Var(value.type, name)
        self.statements.append(Let(var, value))
        return var

    def add(self, *statements: Stmt) -> None:
        self.statements.extend(statements)

    def block(self) -> Block:
        return tuple(self.statements)


class _Family:
    """The kernels of one dtype and tile shape."""

    def __init__(self, dtype: DType, shape: Shape) -> None:
        self.dtype = dtype
        self.shape = shape
        self.stem = f"kiln_matmul_{dtype.name}"
        self.vec = Vec(dtype, shape.lanes)

    def memory(self, name: str, scope: str = "global") -> Buffer:
        """Memory that is only passed on, addressed by element."""
        return Buffer(name, self.dtype, (1,), (1,), scope)

    # ------------------------------------------------------------------------------------------- tile

    def tiles(self) -> list[tuple[int, int, bool]]:
        """(rows, vectors, masked) of every tile kernel: full width, and masked ones for the last columns."""
        heights = [self.shape.rows, 4, 2, 1]
        widths = [(self.shape.vectors, False), *((v, True) for v in range(1, self.shape.vectors + 1))]
        return [(rows, vectors, masked) for vectors, masked in widths for rows in heights]

    def tile_name(self, rows: int, vectors: int, masked: bool) -> str:
        return f"{self.stem}_tile{rows}x{vectors}{'m' if masked else ''}"

    def tile(self, rows: int, vectors: int, masked: bool) -> Kernel:
        """c[rows, n] (+)= a[rows, kc] b[kc, n]: one block of the contraction order. With `masked` the last
        vector's columns from n on are neither read nor written."""
        lanes, vec = self.shape.lanes, self.vec
        n, kc, a_m, a_k, b_k, c_m, more = params = _vars("n kc a_m a_k b_k c_m more")
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
        row = [L.splat(L.load(a, (L.index(i), k)), lanes) for i in range(rows)]
        column = [L.load(b, (k, columns[j]), masks[j]) for j in range(vectors)]
        carried, sums = [], []
        for i in range(rows):
            for j in range(vectors):
                partial, total = Var(vec, f"x{i}_{j}"), Var(vec, f"sum{i}_{j}")
                carried.append(Carry(partial, L.const(0, vec), self.multiply_add(row[i], column[j], partial), total))
                sums.append((i, j, total))
        walk = For("serial", k, L.index(0), kc, (), carried=tuple(carried))
        again, first = [], []
        for i, j, total in sums:
            at = (L.index(i), columns[j])
            again.append(Store(c, at, L.add(L.load(c, at, masks[j]), total), masks[j]))
            first.append(Store(c, at, total, masks[j]))
        body: list[Stmt] = [Let(mask, inside)] if masked else []
        body += [walk, If(_is(more, 0), tuple(first), tuple(again))]
        return Kernel(self.tile_name(rows, vectors, masked), (a, b, c, *params), tuple(body))

    def multiply_add(self, a: Expr, b: Expr, c: Expr) -> Expr:
        if self.dtype.is_floating_point:
            return L.apply("fma", a, b, c)
        return L.add(c, L.mul(a, b))

    # ------------------------------------------------------------------------------------------ strip

    def strip(self) -> Kernel:
        """Tiles down the m rows of a panel of n columns; a_strip is the distance of a's tiles in memory."""
        m, n, kc, a_strip, a_m, a_k, b_k, c_m, more = params = _vars("m n kc a_strip a_m a_k b_k c_m more")
        a, b, c = (self.memory(name) for name in "abc")

        def tiles(vectors: int, masked: bool) -> Block:
            def call(rows: int, i: Expr, at: Expr) -> Stmt:
                where = ((a, at), (b, L.index(0)), (c, L.mul(i, c_m)))
                return Invoke(self.tile_name(rows, vectors, masked), (*where, n, kc, a_m, a_k, b_k, c_m, more))

            height = self.shape.rows
            names = _Names()
            i = Var(INDEX, "i")
            left = names.let("left", _mod(m, height))
            full = names.let("full", L.sub(m, left))
            tile_at = L.mul(_div(i, height), a_strip)
            names.add(For("serial", i, L.index(0), full, (call(height, i, tile_at),), height))
            row, at = full, names.let("at", L.mul(_div(full, height), a_strip))
            for rows in (4, 2, 1):
                has = names.let(f"has{rows}", L.apply("ne", L.apply("and", left, L.index(rows)), L.index(0)))
                names.add(If(has, (call(rows, row, at),)))
                step = L.select(has, L.index(rows), L.index(0))
                row, at = names.let(f"row{rows}", row + step), names.let(f"at{rows}", at + L.mul(step, a_m))
            return names.block()

        choice = tiles(self.shape.vectors, True)
        for vectors in reversed(range(1, self.shape.vectors)):
            fits = L.apply("le", n, L.index(vectors * self.shape.lanes))
            choice = (If(fits, tiles(vectors, True), choice),)
        body = (If(_is(n, self.shape.panel), tiles(self.shape.vectors, False), choice),)
        return Kernel(f"{self.stem}_strip", (a, b, c, *params), body)

    # ---------------------------------------------------------------------------------------- packing

    def pack_b(self) -> Kernel:
        """packed[k, 0:n] = b[k, 0:n]; rows of `packed` have the width of a panel."""
        lanes = self.shape.lanes
        n, kn, b_k, b_n = params = _vars("n kn b_k b_n")
        b, packed = self.memory("b"), self.memory("packed")
        j, k = _vars("j k")
        mask = L.apply("lt", L.ramp(j, lanes), L.splat(n, lanes))
        here = L.ramp(k * self.shape.panel + j, lanes)
        there = L.mul(k, b_k)

        def rows(lo: Expr, source: Expr) -> Stmt:
            return For("serial", k, lo, kn, (Store(packed, (here,), L.load(b, (source,), mask)),))

        contiguous = L.ramp(L.add(there, j), lanes)
        spread = L.apply("mul", L.ramp(j, lanes), L.splat(b_n, lanes))
        scattered = L.apply("add", L.splat(there, lanes), spread)
        turned = _Names()
        whole = turned.let("whole", L.sub(kn, _mod(kn, lanes)))
        turned.add(*self._turn(b, packed, n, b_n, j, whole), rows(whole, scattered))
        unit = _or(_is(b_n, 1), _is(n, 1))
        otherwise = If(_is(b_k, 1), turned.block(), (rows(L.index(0), scattered),))
        choice = If(unit, (rows(L.index(0), contiguous),), (otherwise,))
        return Kernel(f"{self.stem}_pack_b", (b, packed, *params), (For("serial", j, L.index(0), n, (choice,), lanes),))

    def _turn(self, b: Buffer, packed: Buffer, n: Expr, b_n: Expr, j: Expr, whole: Expr) -> list[Stmt]:
        """Lanes columns of b, each contiguous, to rows of `packed`: blocks of lanes x lanes, turned in registers.
        Columns behind the last one repeat it, so that nothing outside b is read; their copies are never used."""
        lanes = self.shape.lanes
        k = Var(INDEX, "k")
        names = _Names()
        last = n - 1
        starts = [names.let(f"column{e}", L.mul(_min(j + e, last), b_n)) for e in range(lanes)]
        columns: list[Expr] = [L.load(b, (L.ramp(L.add(s, k), lanes),)) for s in starts]
        stores = [
            Store(packed, (L.ramp((k + e) * self.shape.panel + j, lanes),), row)
            for e, row in enumerate(transposed(columns))
        ]
        names.add(For("serial", k, L.index(0), whole, tuple(stores), lanes))
        return names.statements

    def pack_a(self) -> Kernel:
        """packed[s, k, r] = a[rows * s + r, k]: strips of a tile's rows, side by side for each k. The rows behind
        the last whole strip are packed for the small tiles: as narrow as they are."""
        rows = self.shape.rows
        m, kc, a_m, a_k = params = _vars("m kc a_m a_k")
        a, packed = self.memory("a"), self.memory("packed")
        i, k, r = _vars("i k r")
        height = _min(L.sub(m, i), rows)
        source = L.add(L.mul(i, a_m), L.mul(k, a_k))
        here = L.add(L.mul(i, kc), k * rows)
        one = Store(packed, (L.add(here, r),), L.load(a, (L.add(source, L.mul(r, a_m)),)))
        scalar = For("serial", r, L.index(0), height, (one,))
        unit = _and(_is(a_m, 1), _is(height, rows))
        lanes = rows if rows & (rows - 1) == 0 else 2
        wide = [
            Store(packed, (L.ramp(here + e, lanes),), L.load(a, (L.ramp(source + e, lanes),)))
            for e in range(0, rows, lanes)
        ]
        body = If(unit, tuple(wide), (scalar,))
        loops = For("serial", i, L.index(0), m, (For("serial", k, L.index(0), kc, (body,)),), rows)
        return Kernel(f"{self.stem}_pack_a", (a, packed, *params), (loops,))

    # ---------------------------------------------------------------------------------------- product

    def product(self) -> Kernel:
        """C = A B for a result whose rows are contiguous (c_n is 1 or N is)."""
        return _Product(self).kernel()

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


class _Product:
    """The product kernel. All of b that is packed at once is one "slab": up to K_CHUNK rows of some panels, of one
    matrix or (where matrices are small) of several; the slabs follow one another, their panels and tiles run in
    parallel."""

    def __init__(self, family: _Family) -> None:
        self.family = family
        self.stem = family.stem
        self.panel = family.shape.panel
        self.a, self.b, self.c = (family.memory(name) for name in "abc")
        self.sizes = self.batch, self.m, self.n, self.k = _vars("batch m n k")
        self.strides = _vars("a_batch a_m a_k b_batch b_k b_n c_batch c_m")
        self.a_batch, self.a_m, self.a_k, self.b_batch, self.b_k, self.b_n, self.c_batch, self.c_m = self.strides

    def kernel(self) -> Kernel:
        top = _Names()
        self.panels = top.let("panels", _ceil_div(self.n, self.panel))
        self.row_block = top.let("row_block", self._rows_per_task())
        self.row_blocks = top.let("row_blocks", _div(L.add(self.m, self.row_block - 1), self.row_block))
        direct = _and(_or(_is(self.b_n, 1), _is(self.n, 1)), L.apply("le", self.m, L.index(DIRECT_ROWS)))
        depth = top.let("depth", _max(_min(self.k, K_CHUNK), 1))
        most = _max(_div(L.index(WORKSPACE), depth * self.panel), 1)
        wide = top.let("wide", _max(_min(self.panels, most), 1))  # panels of one matrix in a slab
        deep = top.let("deep", _max(_div(most, wide), 1))  # matrices in a slab

        self.k0, self.q0, self.j0 = _vars("k0 q0 j0")
        slab = _Names()
        self.rows = slab.let("rows", _min(L.sub(self.k, self.k0), K_CHUNK))
        self.matrices = slab.let("matrices", _min(L.sub(self.batch, self.q0), deep))
        self.here = slab.let("here", _min(L.sub(self.panels, self.j0), wide))
        slab.add(If(direct, self._tasks(None, self.a_packing(False)), self._packed()))
        # The product's loops over slabs: with k = 0 there is one, of no rows, which stores zeros.
        body: Block = slab.block()
        body = (self._stepping(self.j0, self.panels, wide, body),)
        body = (self._stepping(self.q0, self.batch, deep, body),)
        body = (For("serial", self.k0, L.index(0), _max(self.k, 1), body, K_CHUNK),)
        top.add(*body)
        params = (self.a, self.b, self.c, *self.sizes, *self.strides)
        return Kernel(f"{self.stem}_product", params, top.block())
