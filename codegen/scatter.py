"""The scatters as loops: the table is copied, then every value meets its element, in ascending row-major order of the
values.

What must be in order is only what can hit one element: values that differ in a dimension that walks along the table
hit different ones. So those dimensions are the outer, parallel loops (and a vector loop, if the last one is among
them), and the dimensions of the index tensors alone are serial loops inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kiln.codegen.lower import CPU, GRAIN, Lowered, Steps, Style
from kiln.ir import loops as L
from kiln.ir.graph import Operation
from kiln.ir.loops import INDEX, Block, Buffer, Expr, For, If, Kernel, Let, Stmt, Store, Var
from kiln.ir.ops.affine import place_of, step_matrix
from kiln.ir.ops.base import OpDef, Scatter, ints_attr, literal
from kiln.ir.ops.gather import checked_position
from kiln.ir.program import CheckSite
from kiln.ir.types import Dim, Sym, TensorType, float32

Fill = bool | int | float | complex | None
CHUNK: Final = 256
"""Columns that a thread takes when rows of values meet rows of the table: each thread walks all rows."""


def lower_scatter(
    op: Operation, fill: Fill, strides: Sequence[Steps], sites: list[CheckSite], style: Style = CPU
) -> Lowered:
    """The kernel of a scatter; its result is row-major. `strides`: of its operands (None: row-major). With `fill` the
    table is that number everywhere, and is no parameter; nor is it where the operation says `in_place`: then the result
    has the table's strides."""
    return _Lowering(op, fill, strides, sites, style).run()


class _Lowering:
    def __init__(
        self, op: Operation, fill: Fill, strides: Sequence[Steps], sites: list[CheckSite], style: Style
    ) -> None:
        assert isinstance(op.op, OpDef) and isinstance(op.op.lower, Scatter)
        self.op = op
        self.nested = style.nested
        self.combine = op.op.lower.combine
        self.affine = "steps" in op.attrs
        self.in_place = bool(op.attrs.get("in_place", False))
        self.checked = self.in_place or bool(op.attrs.get("checked", False))
        self.sites = sites
        self.symbols: dict[str, Var] = {}
        self.fill = fill
        self.shape = op.result.type.shape
        table = strides[0]
        self.one_run = fill is not None or table is None or all(s == 0 for s in table)
        """Whether the table is copied as one run of memory, or one repeated element."""
        size = _plain(self._product(self.shape))
        dtype = op.result.type.dtype
        self.strided = self.in_place and table is not None
        if self.strided:
            self.out = self._buffer("out0", op.result.type, table)
        else:
            self.out = Buffer("out0", dtype, (size,), (1,))
        self.sums = self.out
        """Where values meet: of 16-bit floats a float32 copy, which is rounded at the end."""
        if dtype.is_half and self.combine != "set":
            self.sums = Buffer("sums", float32, (size,), (1,), "workspace")
        if self.one_run:
            self.table = Buffer("in0", dtype, (size,), (1 if table is None else 0,))
        else:
            self.table = self._buffer("in0", op.operands[0].type, table)
        self.value = self._buffer("in1", op.operands[1].type, strides[1])
        self.indices = [self._buffer(f"in{k}", op.operands[k].type, strides[k]) for k in range(2, len(op.operands))]

    def run(self) -> Lowered:
        body: Block = self._writes() if self.in_place else (*self._copy(), *self._writes())
        if self.sums is not self.out:
            body = (L.Alloc(self.sums), *body, self._round())
        names = tuple(sorted(self.symbols))
        alone = self.fill is not None or self.in_place
        given = [self.value, *self.indices] if alone else [self.table, self.value, *self.indices]
        kernel = Kernel("kernel", (*given, self.out, *(self.symbols[n] for n in names)), body)
        touched = self.op.operands[1:2] if self.in_place else self.op.operands[:2]
        sizes = [self._product(v.type.shape) for v in touched]
        work = sum(int(n.value) * 4 for n in sizes if isinstance(n, L.Const))
        return Lowered(kernel, names, {}, [()], not self.affine and not self.checked, work)

    # ------------------------------------------------------------------------------------ set-up

    def dim(self, d: Dim) -> Expr:
        if isinstance(d, Sym):
            return self.symbols.setdefault(d.name, Var(INDEX, d.name))
        return L.index(d)

    def _product(self, shape: Sequence[Dim]) -> Expr:
        size: Expr = L.index(1)
        for d in shape:
            size = L.mul(size, self.dim(d))
        return size

    def _row_major(self, shape: Sequence[Dim]) -> list[Expr]:
        return [self._product(shape[d + 1 :]) for d in range(len(shape))]

    def _buffer(self, name: str, t: TensorType, strides: Steps) -> Buffer:
        steps = self._row_major(t.shape) if strides is None else [self.dim(s) for s in strides]
        return Buffer(name, t.dtype, tuple(_plain(self.dim(d)) for d in t.shape), tuple(map(_plain, steps)))

    def _place(self, at: Sequence[Expr]) -> tuple[Expr, ...]:
        """The result's element at an index: where its memory is row-major, by its position there."""
        if self.strided:
            return tuple(at)
        position: Expr = L.index(0)
        for i, step in zip(at, self._row_major(self.shape), strict=True):
            position = L.add(position, L.mul(i, step))
        return (position,)

    def _grain(self, inner: Sequence[Dim], work: int) -> Expr:
        """How many iterations, of so many points each, are worth a thread."""
        points = L.mul(self._product(inner), L.index(work))
        if isinstance(points, L.Const):
            return L.index(GRAIN // max(1, int(points.value)) + 1)
        return L.add(L.apply("div", L.index(GRAIN), L.apply("max", points, L.index(1))), L.index(1))

    # ------------------------------------------------------------------------------------- the table

    def _copy(self) -> Block:
        """out = table."""
        if self.one_run:
            i, size = Var(INDEX, "t"), self._product(self.shape)
            value = L.load(self.table, (i,)) if self.fill is None else literal(self.fill, self.out.dtype)
            store = Store(self.sums, (i,), self._wide(value))
            return (For("vector", i, L.index(0), size, (store,), grain=self._grain((), 2)),)
        loops = [Var(INDEX, f"t{d}") for d in range(len(self.shape))]
        body: Block = (Store(self.sums, self._place(loops), self._wide(L.load(self.table, loops))),)
        for d in reversed(range(len(loops))):
            outermost, last = d == 0, d == len(loops) - 1
            grain = self._grain(self.shape[1:], 2) if outermost else None
            kind = "vector" if last else "parallel" if outermost else self.nested
            body = (For(kind, loops[d], L.index(0), self.dim(self.shape[d]), body, grain=grain),)
        return body

    # ------------------------------------------------------------------------------------- the values

    def _writes(self) -> Block:
        """The loops over the values."""
        shape = self.op.operands[1].type.shape
        rank = len(shape)
        along, turning = self._independent(rank)
        serial = [p for p in range(rank) if p not in along]
        index: list[Expr] = [Var(INDEX, f"v{p}") for p in range(rank)]
        row = along.pop() if along and along[-1] == rank - 1 else None
        wide = row is not None and row not in turning
        loops = {p: i for p, i in enumerate(index) if isinstance(i, Var)}
        chunk, column = Var(INDEX, "chunk"), Var(INDEX, "column")
        if row is not None and not along:
            index[row] = L.add(L.mul(chunk, L.index(CHUNK)), column)
        checks, ok, position = self._position(index)
        meet = self._meet(index, position)
        body: Block
        if wide:
            assert row is not None
            body = (*checks, If(ok, self._row(row, loops[row], chunk, column, bool(along), "vector", meet)))
        else:
            body = (*checks, If(ok, meet))
            if row is not None:
                body = self._row(row, loops[row], chunk, column, bool(along), "serial", body)
        for p in reversed(serial):
            body = (For("serial", loops[p], L.index(0), self.dim(shape[p]), body),)
        if row is not None and not along:
            count = L.apply("div", L.add(self.dim(shape[row]), L.index(CHUNK - 1)), L.index(CHUNK))
            grain = self._grain([shape[p] for p in serial], 4 * CHUNK)
            return (For("parallel", chunk, L.index(0), count, body, grain=grain),)
        for p in reversed(along[1:]):
            body = (For(self.nested, loops[p], L.index(0), self.dim(shape[p]), body),)
        if along:
            grain = self._grain([n for p, n in enumerate(shape) if p != along[0]], 4)
            body = (For("parallel", loops[along[0]], L.index(0), self.dim(shape[along[0]]), body, grain=grain),)
        return body

    def _independent(self, rank: int) -> tuple[list[int], Sequence[int]]:
        """The dimensions of the values that walk along the table, each along one of its own; and those in which the
        way to the element is not a plain step."""
        if not self.affine:
            place = ints_attr(self.op.attrs, "place")
            return [p for p in range(rank) if p in place], ints_attr(self.op.attrs, "at")
        rows = [{p: s for p, s in enumerate(row) if s} for row in step_matrix(self.op.attrs, len(self.shape))]
        walks = [[row for row in rows if p in row] for p in range(rank)]
        along = [p for p in range(rank) if len(walks[p]) == 1 and len(walks[p][0]) == 1]
        return along, [p for p in along if rows[-1] != {p: 1}]

    def _row(self, p: int, loop: Var, chunk: Var, column: Var, whole: bool, kind: str, body: Block) -> Block:
        """The loop over the last dimension, whole or a chunk of it."""
        size = self.dim(self.op.operands[1].type.shape[p])
        if whole:
            return (For(kind, loop, L.index(0), size, body),)
        left = L.sub(size, L.mul(chunk, L.index(CHUNK)))
        return (For(kind, column, L.index(0), L.apply("min", left, L.index(CHUNK)), body),)

    def _position(self, index: Sequence[Expr]) -> tuple[list[Stmt], Expr, list[Expr]]:
        """Where the value at `index` goes: the statements that check it, whether it goes anywhere, the index.

        Indices that have been checked are not again: no program waits for that."""
        if self.affine:
            return [], L.const(True, L.BOOL), list(place_of(self.op.attrs, len(self.shape), index))
        at, place = ints_attr(self.op.attrs, "at"), ints_attr(self.op.attrs, "place")
        statements: list[Stmt] = []
        here = tuple(index[p] for p in at)
        inside: Expr = L.const(True, L.BOOL)
        position: list[Expr] = []
        buffers = iter(self.indices)

        def check(ok: Expr, kind: str, message: str, value: Expr) -> None:
            if self.checked:
                return
            self.sites.append(CheckSite(kind, self.op.op.name, message, self.op.loc))
            statements.append(L.Verify(ok, len(self.sites) - 1, value))

        for d, (p, n) in enumerate(zip(place, self.shape, strict=True)):
            if p >= 0:
                position.append(index[p])
                continue
            number = Var(INDEX, f"index{d}")
            statements.append(Let(number, L.load(next(buffers), here)))
            found, ok = checked_position(number, self.dim(n), d, n, bool(self.op.attrs["wrap"]), check)
            inside = ok if isinstance(inside, L.Const) else L.apply("and", inside, ok)
            position.append(found)
        return statements, inside, position

    def _meet(self, index: Sequence[Expr], position: Sequence[Expr]) -> Block:
        value: Expr = L.load(self.value, index)
        place = self._place(position)
        if self.combine != "set":
            value = L.apply(self.combine, L.load(self.sums, place), self._wide(value))
        return (Store(self.sums, place, value),)

    def _wide(self, value: Expr) -> Expr:
        """A value as it meets others."""
        return L.cast(value, self.sums.dtype)

    def _round(self) -> Stmt:
        """out = sums."""
        i = Var(INDEX, "t")
        store = Store(self.out, (i,), L.cast(L.load(self.sums, (i,)), self.out.dtype))
        return For("vector", i, L.index(0), self._product(self.shape), (store,), grain=self._grain((), 2))


def _plain(e: Expr) -> int | Expr:
    """Literals as plain ints, as buffers hold them."""
    return int(e.value) if isinstance(e, L.Const) else e
