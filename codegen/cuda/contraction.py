"""Matrix products and convolutions on a GPU: one tiled kernel, told where its operands lie.

A block of threads computes a square piece of the result, each thread `side` x `side` elements of it: 8 x 8 of float32
where the product is large, else 4 x 4. It walks k in steps of STEP: the threads bring that much of both operands to
shared memory, neighbouring threads neighbouring memory, then each continues its elements' chains. Behind the end of k
lie zeros, which change no chain: one that begins with +0 is never -0.
The order is the contract's (`ir/order.py`, "contraction"): blocks of `KBLOCK` along k, each one ascending chain of
fused multiply-adds from +0, block sums added ascending. A convolution is the product of the matrices of its taps; a tap
that meets nothing is skipped, not multiplied by zero, so the tiles say of every element whether it exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from kiln.codegen.blocks import Names, ceil_div, conjunction, is_, minimum, quotient, remainder
from kiln.codegen.cuda.schedule import Scheduled
from kiln.codegen.layout import Layout
from kiln.ir import loops as L
from kiln.ir.gpu_program import number
from kiln.ir.graph import Operation, Value
from kiln.ir.loops import BOOL, INDEX, Alloc, Barrier, Block, Buffer, Carry, Expr, For, If, Kernel, Store, Var
from kiln.ir.loops_walk import expr_children
from kiln.ir.ops.conv import axes
from kiln.ir.order import KBLOCK
from kiln.ir.types import Dim, DType, float32

THREADS: Final = 256
ROW: Final = 16
"""Threads along a side of the tile."""
STEP: Final = 16
GROUP: Final = 4
"""Neighbouring elements of a thread along a side; the next ones are ROW * GROUP further."""
SMALL: Final = 4
LARGE: Final = 8
ENOUGH: Final = 64
"""Large tiles that keep a GPU busy."""

Element = Callable[[Expr, Expr, Expr, Expr], tuple[Expr, "Expr | None"]]
"""(matrix, row or column, k, whether that lies in the matrices) -> the element, and whether it exists."""


@dataclass(frozen=True)
class Product:
    """A stack of matrix products: sizes, elements of the left matrices at (q, m, k) and of the right ones at (q, n, k),
    where the result's (q, m, n) lies, and the dtype that is computed with. `deep`: of which operands neighbouring
    elements lie along k. `dense`: every element in the matrices exists."""

    params: tuple[Buffer | Var, ...]
    sizes: tuple[Expr, Expr, Expr, Expr]  # q, m, n, k
    left: Element
    right: Element
    out: Buffer
    place: Callable[[Expr, Expr, Expr], tuple[Expr, ...]]
    dtype: DType
    deep: tuple[bool, bool] = (True, True)
    dense: bool = False


def product_kernels(p: Product) -> list[Scheduled]:
    """The kernels, scheduled by construction. Where sizes are symbolic there may be two, of which one has no blocks."""
    count, m, n, _ = p.sizes
    small = _kernel(p, SMALL)
    if p.dtype is not float32 or not p.dense:
        return [small]
    large = _kernel(p, LARGE)
    wanted = minimum(quotient(large.blocks, ENOUGH), 1)
    for size in (m, n):
        wanted = L.mul(wanted, minimum(quotient(size, ROW * LARGE * 3 // 4), 1))
    if not any(map(_symbolic, (count, m, n))):
        return [large if number(wanted, {}) else small]
    other = L.mul(small.blocks, L.sub(L.index(1), wanted))
    return [replace(large, blocks=L.mul(large.blocks, wanted)), replace(small, blocks=other)]


def _symbolic(e: Expr) -> bool:
    """Whether a size is symbolic."""
    return isinstance(e, Var) or any(map(_symbolic, expr_children(e)))


def _kernel(p: Product, side: int) -> Scheduled:
    count, m, n, _ = p.sizes
    thread, tile = Var(INDEX, "thread"), Var(INDEX, "tile")
    down, across = ceil_div(m, ROW * side), ceil_div(n, ROW * side)
    total = L.mul(L.mul(count, down), across)
    body = _Tile(p, thread, side).block(tile, down, across)
    grid = For("grid", tile, L.index(0), total, body)
    block = For("block", thread, L.index(0), L.index(THREADS), (grid,))
    return Scheduled(Kernel("kernel", p.params, (block,)), THREADS, total)


class _Tile:
    """What a block of threads does for one tile."""

    def __init__(self, p: Product, thread: Var, side: int) -> None:
        self.p = p
        self.thread = thread
        self.side = side
        self.tile = ROW * side
        self.pitch = self.tile + GROUP  # so that columns lie in different banks
        self.cells = [(i, j) for i in range(side) for j in range(side)]
        self.shared = [Buffer(x, p.dtype, (STEP * self.pitch,), (1,), "shared") for x in ("left", "right")]
        self.exists: list[Buffer | None] = [None, None]

    def offset(self, i: int) -> Expr:
        """Where the i-th element of a thread lies along a side, from its first one."""
        return L.index(i // GROUP * GROUP * ROW + i % GROUP)

    def block(self, tile: Var, down: Expr, across: Expr) -> Block:
        p, names = self.p, Names()
        _, m, n, k = p.sizes
        rest = names.let("tile_row", quotient(tile, across))
        first_n = names.let("first_n", L.mul(remainder(tile, across), L.index(self.tile)))
        first_m = names.let("first_m", L.mul(remainder(rest, down), L.index(self.tile)))
        q = names.let("matrix", quotient(rest, down))
        row = names.let("thread_row", L.mul(quotient(self.thread, ROW), L.index(GROUP)))
        column = names.let("thread_column", L.mul(remainder(self.thread, ROW), L.index(GROUP)))
        start = Var(INDEX, "block_k")
        walk, sums = self._walk(q, first_m, first_n, row, column, start)
        totals = {cell: Var(L.Vec(p.dtype), f"total{cell[0]}_{cell[1]}") for cell in self.cells}
        results = {cell: Var(L.Vec(p.dtype), f"result{cell[0]}_{cell[1]}") for cell in self.cells}
        zero, opening = L.const(0, p.dtype), is_(start, 0)
        carried = tuple(
            Carry(totals[c], zero, L.select(opening, sums[c], L.add(totals[c], sums[c])), results[c])
            for c in self.cells
        )
        blocks = For("serial", start, L.index(0), k, walk, KBLOCK, carried)
        names.add(*(Alloc(b) for b in (*self.shared, *self.exists) if b is not None), blocks)
        for i, j in self.cells:
            at_m, at_n = L.add(L.add(first_m, row), self.offset(i)), L.add(L.add(first_n, column), self.offset(j))
            inside = conjunction(L.apply("lt", at_m, m), L.apply("lt", at_n, n))
            store = Store(p.out, p.place(q, at_m, at_n), L.cast(results[i, j], p.out.dtype))
            names.add(If(inside, (store,)))
        return names.block()

    def _walk(
        self, q: Expr, first_m: Expr, first_n: Expr, row: Expr, column: Expr, start: Var
    ) -> tuple[Block, dict[tuple[int, int], Expr]]:
        """One block of k: what brings its steps to shared memory and adds them up, and the sums."""
        p, names = self.p, Names()
        _, m, n, k = p.sizes
        stop = names.let("stop", minimum(L.add(start, L.index(KBLOCK)), k))
        first_k = Var(INDEX, "first_k")
        fetch_left = self._fetch(0, p.left, q, (first_m, m), first_k, stop)
        fetch_right = self._fetch(1, p.right, q, (first_n, n), first_k, stop)
        inner, after = self._step(row, column)
        vec = L.Vec(p.dtype)
        sums = {cell: Var(vec, f"sum{cell[0]}_{cell[1]}") for cell in self.cells}
        results = {cell: Var(vec, f"block{cell[0]}_{cell[1]}") for cell in self.cells}
        zero = L.const(0, p.dtype)
        carried = tuple(Carry(sums[c], zero, after(c), results[c]) for c in self.cells)
        body = (Barrier(), fetch_left, fetch_right, Barrier(), inner(sums))
        names.add(For("serial", first_k, start, stop, body, STEP, carried))
        return names.block(), dict(results)

    def _fetch(self, side: int, element: Element, q: Expr, line: tuple[Expr, Expr], first_k: Expr, stop: Expr) -> For:
        """STEP elements of each line of the tile to shared memory."""
        e, names = Var(INDEX, f"fetch{side}"), Names()
        slot = names.let(f"slot{side}", L.add(e, self.thread))
        fast = STEP if self.p.deep[side] else self.tile
        low = names.let(f"low{side}", L.apply("and", slot, L.index(fast - 1)))
        high = names.let(f"high{side}", L.apply("shr", slot, L.index(fast.bit_length() - 1)))
        depth, along = (low, high) if self.p.deep[side] else (high, low)
        at, k = names.let(f"at{side}", L.add(line[0], along)), names.let(f"k{side}", L.add(first_k, depth))
        inside = names.let(f"inside{side}", conjunction(L.apply("lt", at, line[1]), L.apply("lt", k, stop)))
        value, exists = element(q, at, k, inside)
        place = (L.add(L.mul(depth, L.index(self.pitch)), along),)
        names.add(Store(self.shared[side], place, L.cast(value, self.p.dtype)))
        if exists is not None:
            flags = Buffer(f"exists{side}", BOOL.dtype, (STEP * self.pitch,), (1,), "shared")
            self.exists[side] = flags
            names.add(Store(flags, place, exists))
        return For("unrolled", e, L.index(0), L.index(STEP * self.tile), names.block(), THREADS, grain=L.index(2))

    def _step(
        self, row: Expr, column: Expr
    ) -> tuple[Callable[[dict[tuple[int, int], Var]], For], Callable[[tuple[int, int]], Expr]]:
        """The loop over the k that lie in shared memory, and what each element's chain is after it."""
        vec, depth = L.Vec(self.p.dtype), Var(INDEX, "depth")
        after = {cell: Var(vec, f"after{cell[0]}_{cell[1]}") for cell in self.cells}
        sums = {cell: Var(vec, f"chain{cell[0]}_{cell[1]}") for cell in self.cells}

        def loop(inits: dict[tuple[int, int], Var]) -> For:
            names = Names()
            base = names.let("base", L.mul(depth, L.index(self.pitch)))
            places = [[L.add(L.add(base, first), self.offset(i)) for i in range(self.side)] for first in (row, column)]
            values = [
                [names.let(f"{b.name}{i}", L.load(b, (at,))) for i, at in enumerate(some)]
                for b, some in zip(self.shared, places, strict=True)
            ]
            flags = [
                None if b is None else [names.let(f"{b.name}_{i}", L.load(b, (at,))) for i, at in enumerate(some)]
                for b, some in zip(self.exists, places, strict=True)
            ]
            carried = []
            for i, j in self.cells:
                more = self._multiply_add(values[0][i], values[1][j], sums[i, j])
                for flag in (None if flags[0] is None else flags[0][i], None if flags[1] is None else flags[1][j]):
                    more = more if flag is None else L.select(flag, more, sums[i, j])
                carried.append(Carry(sums[i, j], inits[i, j], more, after[i, j]))
            return For(
                "unrolled", depth, L.index(0), L.index(STEP), names.block(), carried=tuple(carried), grain=L.index(4)
            )

        return loop, after.__getitem__

    def _multiply_add(self, a: Expr, b: Expr, c: Expr) -> Expr:
        return L.apply("fma", a, b, c) if self.p.dtype.is_floating_point else L.add(c, L.mul(a, b))


# ------------------------------------------------------------------------------------------ operations


class _Sizes:
    """Dimensions as expressions; symbolic ones are parameters."""

    def __init__(self) -> None:
        self.symbols: dict[str, Var] = {}

    def dim(self, d: Dim) -> Expr:
        if isinstance(d, int):
            return L.index(d)
        total: Expr = L.index(1)
        for factor in d.name.split("*"):
            known = L.index(int(factor)) if factor.isdigit() else None
            total = L.mul(total, known or self.symbols.setdefault(factor, Var(INDEX, factor)))
        return total

    def buffer(self, name: str, v: Value, layout: Layout | None) -> Buffer:
        sizes = [self.dim(d) for d in v.type.shape]
        if layout is not None:
            steps = [self.dim(d) for d in layout.strides]
        else:
            steps = []
            step: Expr = L.index(1)
            for size in reversed(sizes):
                steps.insert(0, step)
                step = L.mul(step, size)
        return Buffer(name, v.type.dtype, tuple(map(_plain, sizes)), tuple(map(_plain, steps)))

    def params(self, *buffers: Buffer) -> tuple[Buffer | Var, ...]:
        return (*buffers, *(self.symbols[n] for n in sorted(self.symbols)))


def _plain(e: Expr) -> int | Expr:
    return int(e.value) if isinstance(e, L.Const) else e


def _digits(e: Expr, sizes: list[Expr]) -> list[Expr]:
    """A flat index as one index per dimension, the last one fastest."""
    found: list[Expr] = []
    for size in reversed(sizes[1:]):
        found.insert(0, remainder(e, size))
        e = quotient(e, size)
    return [e, *found]


def _total(sizes: list[Expr]) -> Expr:
    total: Expr = L.index(1)
    for size in sizes:
        total = L.mul(total, size)
    return total


def contraction(op: Operation, layouts: dict[Value, Layout | None]) -> tuple[list[Scheduled], tuple[str, ...]]:
    """The kernels of a matmul or of a convolution (or one of its gradients), and the names of its sizes."""
    sizes = _Sizes()
    a, b = (sizes.buffer(f"in{k}", v, layouts[v]) for k, v in enumerate(op.operands))
    out = sizes.buffer("out0", op.result, None)
    make = _MAKE[op.op.name]
    made = make(op, sizes, a, b, out)
    return product_kernels(made), tuple(sorted(sizes.symbols))


def _matmul(op: Operation, sizes: _Sizes, a: Buffer, b: Buffer, out: Buffer) -> Product:
    shape = [sizes.dim(d) for d in op.operands[0].type.shape]
    *batch, m, k = shape
    n = sizes.dim(op.result.type.shape[-1])

    def left(q: Expr, row: Expr, k: Expr, inside: Expr) -> tuple[Expr, Expr | None]:
        return L.load(a, (*_batch(q), row, k), inside), None

    def right(q: Expr, column: Expr, k: Expr, inside: Expr) -> tuple[Expr, Expr | None]:
        return L.load(b, (*_batch(q), k, column), inside), None

    def _batch(q: Expr) -> list[Expr]:
        return _digits(q, batch) if batch else []

    def place(q: Expr, row: Expr, column: Expr) -> tuple[Expr, ...]:
        return (*_batch(q), row, column)

    wide = float32 if a.dtype.is_half else a.dtype
    params = sizes.params(a, b, out)
    deep = a.strides[-2] != 1, b.strides[-1] != 1
    return Product(params, (_total(batch), m, n, k), left, right, out, place, wide, deep, dense=True)


def _met(axis: tuple[int, int, int], position: Expr, tap: Expr, size: Expr) -> tuple[Expr, Expr]:
    """Which element a position meets at a tap, and whether there is one."""
    stride, before, dilation = axis
    at = L.sub(L.add(L.mul(position, L.index(stride)), L.mul(tap, L.index(dilation))), L.index(before))
    return at, conjunction(L.apply("ge", at, L.index(0)), L.apply("lt", at, size))


def _meeting(axis: tuple[int, int, int], element: Expr, tap: Expr, size: Expr) -> tuple[Expr, Expr]:
    """Which position meets an element at a tap, and whether there is one."""
    stride, before, dilation = axis
    far = L.sub(L.add(element, L.index(before)), L.mul(tap, L.index(dilation)))
    at = quotient(far, stride)
    whole = conjunction(L.apply("ge", far, L.index(0)), is_(remainder(far, stride), 0))
    return at, conjunction(whole, L.apply("lt", at, size))


def _convolution(op: Operation, sizes: _Sizes, a: Buffer, b: Buffer, out: Buffer) -> Product:
    """x [N, C, H, W] (or the gradient) with w [O, C/groups, KH, KW]; k is (kh, kw, channel)."""
    turned = op.op.name == "conv2d_input"
    images, _, height, width = (sizes.dim(d) for d in op.operands[0].type.shape)
    out_h, out_w = (sizes.dim(d) for d in op.result.type.shape[2:])
    results, channels, kh, kw = (sizes.dim(d) for d in op.operands[1].type.shape)
    groups = L.index(_groups(op))
    results = _share(results, groups)
    if turned:
        results, channels = channels, results
    rows, columns = ((axis.stride, axis.before, axis.dilation) for axis in axes(op.attrs))
    met = _meeting if turned else _met

    def left(q: Expr, position: Expr, k: Expr, inside: Expr) -> tuple[Expr, Expr | None]:
        image, i, j = _digits(position, [images, out_h, out_w])
        tap_h, tap_w, channel = _digits(k, [kh, kw, channels])
        at_h, ok_h = met(rows, i, tap_h, height)
        at_w, ok_w = met(columns, j, tap_w, width)
        exists = conjunction(inside, conjunction(ok_h, ok_w))
        return L.load(a, (image, L.add(L.mul(q, channels), channel), at_h, at_w), exists), exists

    def right(q: Expr, result: Expr, k: Expr, inside: Expr) -> tuple[Expr, Expr | None]:
        tap_h, tap_w, channel = _digits(k, [kh, kw, channels])
        if turned:
            return L.load(b, (L.add(L.mul(q, channels), channel), result, tap_h, tap_w), inside), None
        return L.load(b, (L.add(L.mul(q, results), result), channel, tap_h, tap_w), inside), None

    def place(q: Expr, position: Expr, result: Expr) -> tuple[Expr, ...]:
        image, i, j = _digits(position, [images, out_h, out_w])
        return (image, L.add(L.mul(q, results), result), i, j)

    positions, taps = _total([images, out_h, out_w]), _total([kh, kw, channels])
    counts = (groups, positions, results, taps)
    return Product(sizes.params(a, b, out), counts, left, right, out, place, a.dtype, (False, True))


def _weight(op: Operation, sizes: _Sizes, a: Buffer, b: Buffer, out: Buffer) -> Product:
    """The gradient by the weights: x with g; rows are results, columns (c, kh, kw), k is (image, row, column)."""
    images, _, height, width = (sizes.dim(d) for d in op.operands[0].type.shape)
    out_h, out_w = (sizes.dim(d) for d in op.operands[1].type.shape[2:])
    results, channels, kh, kw = (sizes.dim(d) for d in op.result.type.shape)
    groups = L.index(_groups(op))
    results = _share(results, groups)
    rows, columns = ((axis.stride, axis.before, axis.dilation) for axis in axes(op.attrs))

    def left(q: Expr, result: Expr, k: Expr, inside: Expr) -> tuple[Expr, Expr | None]:
        image, i, j = _digits(k, [images, out_h, out_w])
        return L.load(b, (image, L.add(L.mul(q, results), result), i, j), inside), None

    def right(q: Expr, weight: Expr, k: Expr, inside: Expr) -> tuple[Expr, Expr | None]:
        channel, tap_h, tap_w = _digits(weight, [channels, kh, kw])
        image, i, j = _digits(k, [images, out_h, out_w])
        at_h, ok_h = _met(rows, i, tap_h, height)
        at_w, ok_w = _met(columns, j, tap_w, width)
        exists = conjunction(inside, conjunction(ok_h, ok_w))
        return L.load(a, (image, L.add(L.mul(q, channels), channel), at_h, at_w), exists), exists

    def place(q: Expr, result: Expr, weight: Expr) -> tuple[Expr, ...]:
        channel, tap_h, tap_w = _digits(weight, [channels, kh, kw])
        return (L.add(L.mul(q, results), result), channel, tap_h, tap_w)

    counts = (groups, results, _total([channels, kh, kw]), _total([images, out_h, out_w]))
    return Product(sizes.params(a, b, out), counts, left, right, out, place, a.dtype)


def _groups(op: Operation) -> int:
    groups = op.attrs["groups"]
    assert isinstance(groups, int)
    return groups


def _share(a: Expr, b: Expr) -> Expr:
    """a / b, folded where both are known."""
    if isinstance(a, L.Const) and isinstance(b, L.Const):
        return L.index(int(a.value) // int(b.value))
    return quotient(a, b)


_MAKE: Final = {"matmul": _matmul, "conv2d": _convolution, "conv2d_input": _convolution, "conv2d_weight": _weight}
CONTRACTIONS: Final = frozenset(_MAKE)
