"""A fusion's body to a logical loop kernel.

The loops run over the kept domain; every value is an expression at an index, built by its op's `Dense.element` from
the expressions of its operands there (nothing is named by position, so index maps compose by themselves). Reductions
become `Reduce` statements in the row that needs them, in the contract's orders. What is on the kept domain is computed
once per row; what is on the full domain is computed where it is used, again in each pass over the row: that is exact,
and cheaper than memory, but for costly functions, whose row is kept on the stack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kiln.codegen.domain import Domain, align, coordinates, definition, domain_of, same_index, stripped
from kiln.ir import loops as L
from kiln.ir.graph import Graph, Operation, Value
from kiln.ir.intrinsics import MATH_FUNCTIONS
from kiln.ir.loops import INDEX, Buffer, Expr, For, Kernel, Let, Reduce, Stmt, Var, Vec
from kiln.ir.ops.base import Dense, ElementContext, Reduction, ints_attr
from kiln.ir.program import CheckSite
from kiln.ir.types import Dim, Shape, Sym, contiguous_strides

Index = tuple[Expr, ...]
GRAIN: Final = 1 << 15
"""Scalar operations worth a thread."""
CHUNK: Final = 4096
"""Elements of one parallel chunk of a flat loop."""
STACK_ROW: Final = 4096
"""Longest row, in elements, that is kept on the stack."""
COSTLY: Final = MATH_FUNCTIONS | {"sigmoid", "gelu", "uniform", "normal"}


@dataclass
class Lowered:
    """A logical kernel and what the plan must know of it: at which index each input is read and each output
    is written, and in whose terms."""

    kernel: Kernel
    symbols: tuple[str, ...]  # names of the scalar parameters, after the buffers
    reads: dict[int, list[Index]]
    writes: list[Index]
    checks: bool
    work: int


@dataclass
class _Body:
    """A block being built, with what is already known in it."""

    outer: _Body | None = None
    statements: list[Stmt] = field(default_factory=list)
    known: dict[tuple[object, ...], Expr] = field(default_factory=dict)

    def find(self, key: tuple[object, ...]) -> Expr | None:
        found = self.known.get(key)
        return found if found is not None or self.outer is None else self.outer.find(key)


Steps = tuple[Dim, ...] | None


def lower(body: Graph, strides: Sequence[Steps], out_strides: Sequence[Steps], sites: list[CheckSite]) -> Lowered:
    """Lower a fusion's body. `strides` and `out_strides`: of its inputs and outputs (None: row-major). Checks
    are appended to `sites`."""
    return _Lowering(body, strides, out_strides, sites).run()


class _Lowering:
    def __init__(
        self,
        body: Graph,
        strides: Sequence[Steps],
        out_strides: Sequence[Steps],
        sites: list[CheckSite],
    ) -> None:
        self.body = body
        self.sites = sites
        self.first_site = len(sites)
        self.symbols: dict[str, Var] = {}
        self.domain = _domain(body)
        self.flat = self._is_flat([*strides, *out_strides])
        inputs, outputs = zip(body.inputs, strides, strict=True), zip(body.outputs, out_strides, strict=True)
        self.inputs = {v: self._buffer(f"in{k}", v, s) for k, (v, s) in enumerate(inputs)}
        self.outputs = [self._buffer(f"out{k}", v, s) for k, (v, s) in enumerate(outputs)]
        self.position = {v: k for k, v in enumerate(body.inputs)}
        self.reads: dict[int, list[Index]] = {}
        self.writes: list[Index] = []
        self.count = 0
        self.coords: list[Expr] = []
        self.row = _Body()
        self.kept: dict[Value, Var] = {}
        self.rows_kept: dict[Value, Buffer] = {}
        self.rows_stored: dict[Value, _Body] = {}  # by which pass

    # ------------------------------------------------------------------------------------ set-up

    def _is_flat(self, strides: Sequence[Steps]) -> bool:
        """Whether the whole domain can be walked as one row: only pointwise operations, and every operand
        row-major or one repeated element."""
        if self.domain.reduced:
            return False
        for op in self.body.operations:
            pointwise = isinstance(definition(op).lower, Dense) and getattr(definition(op).lower, "pointwise", False)
            if not pointwise and op.op.name != "full":
                return False
        values = [*self.body.inputs, *self.body.outputs]
        plain = stripped(self.domain.full)
        for v, s in zip(values, strides, strict=True):
            if stripped(v.type.shape) != plain:
                return False
            if s is not None and any(step != 0 for step in s) and s != _row_major(v.type.shape):
                return False
        return True

    def dim(self, d: object) -> Expr:
        if isinstance(d, int):
            return L.index(d)
        assert isinstance(d, Sym)
        return self.symbols.setdefault(d.name, Var(INDEX, d.name))

    def _buffer(self, name: str, v: Value, strides: Steps) -> Buffer:
        shape = v.type.shape
        if self.flat:
            repeated = strides is not None and all(s == 0 for s in strides) and bool(strides)
            size = self._product(shape)
            return Buffer(name, v.type.dtype, (_plain(size),), (0 if repeated else 1,))
        sizes = tuple(_plain(self.dim(d)) for d in shape)
        if strides is not None:
            return Buffer(name, v.type.dtype, sizes, tuple(_plain(self.dim(s)) for s in strides))
        steps: list[int | Expr] = []
        step: Expr = L.index(1)
        for d in reversed(shape):
            steps.append(_plain(step))
            step = L.mul(step, self.dim(d) if d != 0 else L.index(1))
        return Buffer(name, v.type.dtype, sizes, tuple(reversed(steps)))

    def _product(self, shape: Shape) -> Expr:
        size: Expr = L.index(1)
        for d in shape:
            size = L.mul(size, self.dim(d))
        return size

    def var(self, stem: str, type: Vec = INDEX) -> Var:
        self.count += 1
        return Var(type, f"{stem}_{self.count}")

    # --------------------------------------------------------------------------------- the kernel

    def run(self) -> Lowered:
        if self.flat:
            statements = self._flat_loops()
        else:
            statements = self._row_loops()
        names = tuple(sorted(self.symbols))
        params: tuple[Buffer | Var, ...] = (*self.inputs.values(), *self.outputs, *(self.symbols[n] for n in names))
        kernel = Kernel("kernel", params, tuple(statements))
        size = self._static(self.domain.full)
        work = size * max(1, len(self.body.operations)) if size is not None else 0
        return Lowered(kernel, names, self.reads, self.writes, len(self.sites) > self.first_site, work)

    def _static(self, shape: Shape) -> int | None:
        return math.prod(d for d in shape if isinstance(d, int)) if all(isinstance(d, int) for d in shape) else None

    def _flat_loops(self) -> list[Stmt]:
        """One vector loop, in parallel chunks when it may be long."""
        n = self._product(self.domain.full)
        if isinstance(n, L.Const) and n.value == 1:
            self.coords = [L.index(0)]
            self._store_all(self.row, range(len(self.outputs)))
            return self.row.statements
        i = self.var("i")
        operations = max(1, sum(8 if op.op.name in COSTLY else 1 for op in self.body.operations))
        if isinstance(n, L.Const) and int(n.value) * operations <= 2 * GRAIN:
            self.coords = [i]
            self.row = _Body()
            self._store_all(self.row, range(len(self.outputs)))
            return [For("vector", i, L.index(0), n, tuple(self.row.statements))]
        chunk = self.var("chunk")
        self.coords = [L.add(L.mul(chunk, L.index(CHUNK)), i)]
        self.row = _Body()
        self._store_all(self.row, range(len(self.outputs)))
        left = L.sub(n, L.mul(chunk, L.index(CHUNK)))
        size = L.apply("min", left, L.index(CHUNK))
        inner = For("vector", i, L.index(0), size, tuple(self.row.statements))
        chunks = L.apply("div", L.add(n, L.index(CHUNK - 1)), L.index(CHUNK))
        grain = L.index(max(1, GRAIN // (CHUNK * operations)))
        return [For("parallel", chunk, L.index(0), chunks, (inner,), grain=grain)]

    def _row_loops(self) -> list[Stmt]:
        """Loops over the kept domain around one row."""
        domain = self.domain
        self.coords = coordinates(domain)
        moving = [d for d, c in enumerate(self.coords) if not isinstance(c, L.Const)]
        kept = [d for d in moving if d not in domain.reduced]
        full = [k for k, v in enumerate(self.body.outputs) if self._is_full(v)]
        rest = [k for k in range(len(self.outputs)) if k not in full]
        self._keep_rows()
        for op in self.body.operations:  # in program order, so that the first pass over a row comes first
            if isinstance(definition(op).lower, Reduction):
                self._reduced(op, self._canonical(op.result))
        if domain.reduced and full:
            self.row.statements.extend(self._full_loop(full))
        else:
            rest = [*full, *rest]
        self._store_all(self.row, rest)
        statements: list[Stmt] = self.row.statements
        vector = kept[-1] if kept and not domain.by_rows() else None
        inner = self._row_work()
        for d in reversed(kept):
            var = self.coords[d]
            assert isinstance(var, Var)
            hi = self.dim(domain.full[d])
            if d == vector and d != kept[0]:
                statements = [For("vector", var, L.index(0), hi, tuple(statements))]
                inner = L.mul(inner, hi)
            elif d == vector:  # the only loop; columns are not split among threads yet
                statements = [For("vector", var, L.index(0), hi, tuple(statements))]
            elif d == kept[0]:
                grain = L.add(L.apply("div", L.index(GRAIN), L.apply("max", inner, L.index(1))), L.index(1))
                if isinstance(inner, L.Const):
                    grain = L.index(GRAIN // max(1, int(inner.value)) + 1)
                statements = [For("parallel", var, L.index(0), hi, tuple(statements), grain=grain)]
            else:
                statements = [For("serial", var, L.index(0), hi, tuple(statements))]
                inner = L.mul(inner, hi)
        return statements

    def _row_work(self) -> Expr:
        """Scalar operations per row (or per element of the vector loop)."""
        work: Expr = L.index(max(1, sum(8 if op.op.name in COSTLY else 1 for op in self.body.operations)))
        for d in self.domain.reduced:
            work = L.mul(work, self.dim(self.domain.full[d]))
        return work

    def _is_full(self, v: Value) -> bool:
        """Whether a value of a reducing kernel lives on the full domain (and not on the kept one)."""
        plain = stripped(v.type.shape)
        is_kept = bool(self.domain.reduced) and plain == stripped(self.domain.kept)
        return not is_kept

    def _store_all(self, body: _Body, outputs: Sequence[int]) -> None:
        """All values first, then the stores: an output may lie in the memory of an input."""
        stores: list[Stmt] = []
        for k in outputs:
            v = self.body.outputs[k]
            index = self._canonical(v)
            stores.append(L.Store(self.outputs[k], index, self.value(v, index, body)))
            self._note_write(k, index)
        body.statements.extend(stores)

    def _note_write(self, k: int, index: Index) -> None:
        while len(self.writes) <= k:
            self.writes.append(())
        self.writes[k] = index

    def _full_loop(self, outputs: Sequence[int]) -> list[Stmt]:
        """Full values, stored in one pass over the row."""
        inner = _Body(self.row)
        saved = list(self.coords)
        for d in self.domain.reduced:
            self.coords[d] = self.var("r")
        self._store_all(inner, outputs)
        statements: list[Stmt] = inner.statements
        loops = [(self.coords[d], self.domain.full[d]) for d in self.domain.reduced]
        for k, (var, size) in enumerate(reversed(loops)):
            assert isinstance(var, Var)
            kind = "vector" if k == 0 and self.domain.by_rows() else "serial"
            statements = [For(kind, var, L.index(0), self.dim(size), tuple(statements))]
        self.coords = saved
        return statements

    def _canonical(self, v: Value) -> Index:
        """The index of a value at the current point."""
        if self.flat:
            return (self.coords[0],)
        found = align(v.type.shape, self.domain, self.coords)
        assert found is not None, f"{v.type} does not live on {self.domain}"
        return found

    # ------------------------------------------------------------------------------------- values

    def value(self, v: Value, index: Index, body: _Body, where: Expr | None = None) -> Expr:
        """The expression of a value at an index. `where`: lanes that matter (inputs are not read elsewhere)."""
        if v in self.inputs:
            return self._load(v, index, body, where)
        op = v.producer
        assert op is not None
        if isinstance(definition(op).lower, Reduction):
            return self._reduced(op, index)
        home = self._home(v, index, body)
        key = (v, where, *(_identity(i) for i in index))
        found = home.find(key)
        if found is None:
            found = self._element(op, index, home, where)
            if not isinstance(found, L.Const | Var):
                name = self.var(op.op.name, found.type)
                home.statements.append(Let(name, found))
                found = name
            home.known[key] = found
            self._remember_row(v, index, home, found)
        return found

    def _home(self, v: Value, index: Index, body: _Body) -> _Body:
        """Values of the kept domain at the current row are computed in the row's own block."""
        if body is self.row or not self.domain.reduced or self._is_full(v):
            return body
        canonical = align(v.type.shape, self.domain, self.coords)
        at_row = canonical is not None and all(same_index(a, b) for a, b in zip(index, canonical, strict=True))
        return self.row if at_row else body

    def _load(self, v: Value, index: Index, body: _Body, where: Expr | None) -> Expr:
        key = (v, where, *(_identity(i) for i in index))
        found = body.find(key)
        if found is None:
            at = (self.coords[0],) if self.flat else index
            found = body.known[key] = L.load(self.inputs[v], at, where)
        self.reads.setdefault(self.position[v], []).append(index)
        return found

    def _element(self, op: Operation, index: Index, body: _Body, where: Expr | None) -> Expr:
        lower = definition(op).lower
        assert isinstance(lower, Dense), f"{op.op.name} can't be part of a kernel"
        kept_row = self.rows_kept.get(op.result)
        if kept_row is not None and self.rows_stored.get(op.result, body) is not body:
            return L.load(kept_row, (self._row_position(index),), where)

        outer = where

        def read(k: int, index: Index, where: Expr | None = None) -> Expr:
            if where is None or outer is None:
                guard = outer if where is None else where
            else:
                guard = L.apply("and", outer, where)
            return self.value(op.operands[k], index, body, guard)

        def check(ok: Expr, kind: str, message: str, value: Expr) -> None:
            self.sites.append(CheckSite(kind, op.op.name, message, op.loc))
            if outer is not None:
                ok = L.apply("or", ok, L.apply("not", outer))
            body.statements.append(L.Verify(ok, len(self.sites) - 1, value))

        types = tuple(x.type for x in op.operands)
        return lower.element(ElementContext(types, op.result.type, op.attrs, read, check, self.dim), index)

    # --------------------------------------------------------------------------------- reductions

    def _reduced(self, op: Operation, index: Index) -> Expr:
        """The result of a reduction at the current row; its statement is added to the row on first use."""
        found = self.kept.get(op.result)
        if found is None:
            canonical = self._canonical(op.result)
            assert all(same_index(a, b) for a, b in zip(index, canonical, strict=True)), op.op.name
            found = self.kept[op.result] = self._reduce(op)
        return found

    def _reduce(self, op: Operation) -> Var:
        lower = definition(op).lower
        assert isinstance(lower, Reduction)
        dims = ints_attr(op.attrs, "dims")
        rank = op.operands[0].type.rank
        saved = list(self.coords)
        axes = {d: self.var("r") for d in dims}
        for d, var in axes.items():
            self.coords[d] = var
        inner = _Body(self.row)
        value = self.value(op.operands[0], tuple(self.coords), inner)
        self.coords = saved
        extent = {d: self.dim(op.operands[0].type.shape[d]) for d in dims}
        values: tuple[Expr, ...] = (value,)
        results: tuple[Var, ...] = (self.var(op.op.name, value.type),)
        if lower.combine == "argmax":
            values, results = (value, axes[dims[0]]), (self.var("best", value.type), self.var("argmax"))
        block = tuple(inner.statements)
        others = [d for d in dims if d != rank - 1]
        if rank - 1 in dims:
            last = rank - 1
            row = Reduce(results, lower.combine, "lanes", ((axes[last], extent[last]),), block, values)
            if not others:
                self.row.statements.append(row)
                return results[-1]
            block, values = (row,), results
            results = (self.var(op.op.name, value.type),)
        outer = tuple((axes[d], extent[d]) for d in others)
        self.row.statements.append(Reduce(results, lower.combine, "serial", outer, block, values))
        return results[-1]

    # --------------------------------------------------------- costly full values, kept on the stack

    def _keep_rows(self) -> None:
        """Choose the costly full values that more than one pass over the row needs."""
        domain = self.domain
        if len(domain.reduced) != 1 or not domain.by_rows():
            return
        size = domain.full[domain.reduced[0]]
        if not isinstance(size, int) or not 16 <= size <= STACK_ROW:
            return
        for v, passes in _passes(self.body, self).items():
            if passes > 1 and len(self.rows_kept) < 2:
                buffer = Buffer(f"row{len(self.rows_kept)}", v.type.dtype, (size,), (1,), "stack")
                self.rows_kept[v] = buffer
                self.row.statements.append(L.Alloc(buffer))

    def _row_position(self, index: Index) -> Expr:
        return index[-1]

    def _remember_row(self, v: Value, index: Index, home: _Body, value: Expr) -> None:
        """The first pass over the row that computes a kept value stores it."""
        buffer = self.rows_kept.get(v)
        if buffer is None or v in self.rows_stored or home is self.row:
            return
        canonical = align(v.type.shape, self.domain, self.coords)
        if canonical is None or not all(same_index(a, b) for a, b in zip(index, canonical, strict=True)):
            return
        home.statements.append(L.Store(buffer, (index[-1],), value))
        self.rows_stored[v] = home


def _passes(body: Graph, lowering: _Lowering) -> dict[Value, int]:
    """For each costly full value: in how many passes over the row (reductions, and the final stores) it is used."""
    passes: dict[Value, set[object]] = {}

    def visit(v: Value, which: object) -> None:
        op = v.producer
        if op is None or which in passes.setdefault(v, set()):
            return
        passes[v].add(which)
        if isinstance(definition(op).lower, Reduction):
            visit(op.operands[0], op)
            return
        for x in op.operands:
            visit(x, which)

    for v in body.outputs:
        visit(v, "stores" if lowering._is_full(v) else "row")
    shape = lowering.domain.full
    return {
        v: len(which)
        for v, which in passes.items()
        if v.producer is not None and v.producer.op.name in COSTLY and v.type.shape == shape
    }


def _domain(body: Graph) -> Domain:
    """The domain of a fusion's body: that of its reductions, or of its results."""
    for op in body.operations:
        if isinstance(definition(op).lower, Reduction):
            return domain_of(op)
    shapes = [v.type.shape for v in body.outputs]
    return Domain(max(shapes, key=len))


def _row_major(shape: Shape) -> Steps:
    static = tuple(d for d in shape if isinstance(d, int))
    return contiguous_strides(static) if len(static) == len(shape) else None


def _plain(e: Expr) -> int | Expr:
    """Literals as plain ints, as buffers hold them."""
    return int(e.value) if isinstance(e, L.Const) else e


def _identity(e: Expr) -> object:
    """What tells index expressions apart: literals by value, others by identity."""
    return e.value if isinstance(e, L.Const) else e
