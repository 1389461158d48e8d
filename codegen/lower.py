"""A fusion's body to a logical loop kernel.

The loops run over the kept domain; every value is an expression at an index, built by its op's `Dense.element` from
the expressions of its operands there (nothing is named by position, so index maps compose by themselves). Reductions
become `Reduce` statements in the row that needs them, in the contract's orders. What is on the kept domain is computed
once per row; what is on the full domain is computed where it is used, again in each pass over the row: that is exact,
and cheaper than memory, but for costly functions, whose row is kept on the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from kiln.codegen.collapse import collapse
from kiln.codegen.domain import (
    Domain,
    Index,
    align,
    coordinates,
    definition,
    domain_of,
    is_reduction,
    same_indices,
    stripped,
)
from kiln.ir import loops as L
from kiln.ir.graph import Graph, Operation, Value
from kiln.ir.intrinsics import MATH_FUNCTIONS
from kiln.ir.loops import INDEX, Buffer, Expr, For, Kernel, Let, Reduce, Stmt, Var, Vec
from kiln.ir.ops.base import UNROLLED, Dense, ElementContext, Reduction, State, ints_attr
from kiln.ir.order import LANES
from kiln.ir.program import CheckSite
from kiln.ir.types import Dim, Sym, float32, row_major

GRAIN: Final = 1 << 18
"""Scalar operations and memory accesses worth a thread: about 10 µs."""
FEW: Final = 64
"""An outer loop of fewer iterations is merged with the next ones, so that there is something to share out."""
STACK_BYTES: Final = 1 << 17
"""Longest row that is kept on the stack, and at most two of them."""


@dataclass(frozen=True, slots=True)
class Style:
    """What a target wants of a kernel's loops. `nested`: the kind of loops inside a parallel one whose iterations are
    independent too. `stack_bytes`: the longest row that is kept on the stack."""

    nested: str = "serial"
    stack_bytes: int = STACK_BYTES


CPU: Final = Style()
COSTLY: Final = MATH_FUNCTIONS | {"sigmoid", "gelu", "uniform", "normal", "remainder", "floor_divide", "pow_int", "tan"}
COSTLIER_THAN_MEMORY: Final = COSTLY | {"div", "sqrt"}


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


def lower(
    body: Graph,
    strides: Sequence[Steps],
    out_strides: Sequence[Steps],
    sites: list[CheckSite],
    style: Style = CPU,
) -> Lowered:
    """Lower a fusion's body. `strides` and `out_strides`: of its inputs and outputs (None: row-major). Checks
    are appended to `sites`."""
    if all(steps is None for steps in out_strides):
        body, strides = collapse(body, _domain(body), strides)
    return _Lowering(body, strides, out_strides, sites, style).run()


class _Lowering:
    def __init__(
        self,
        body: Graph,
        strides: Sequence[Steps],
        out_strides: Sequence[Steps],
        sites: list[CheckSite],
        style: Style,
    ) -> None:
        self.body = body
        self.style = style
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
        self.writes: list[Index] = [()] * len(self.outputs)
        self.pending = set(range(len(self.outputs)))
        """Outputs that are still to be stored."""
        self.window_work = 0
        """Per point: what is read, compared and chosen in windows."""
        self.checked: set[tuple[Operation, str]] = set()
        self.count = 0
        self.coords: list[Expr] = []
        self.row = _Body()
        self.kept: dict[Value, Var] = {}
        self.rows_kept: dict[Value, Buffer] = {}
        self.rows_storing: set[Value] = set()
        """Kept rows that the pass being built stores. Nothing may read them yet: what the row needs of them before
        that pass is placed before its loop."""
        self.rows_stored: set[Value] = set()
        """Kept rows that a finished pass has stored."""

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
            if s is not None and any(step != 0 for step in s) and s != row_major(v.type.shape):
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

    def _product(self, shape: Sequence[Dim]) -> Expr:
        size: Expr = L.index(1)
        for d in shape:
            size = L.mul(size, self.dim(d))
        return size

    def var(self, stem: str, type: Vec = INDEX) -> Var:
        self.count += 1
        return Var(type, f"{stem}_{self.count}")

    # --------------------------------------------------------------------------------- the kernel

    def run(self) -> Lowered:
        statements = self._flat_loop() if self.flat else self._row_loops()
        names = tuple(sorted(self.symbols))
        params: tuple[Buffer | Var, ...] = (*self.inputs.values(), *self.outputs, *(self.symbols[n] for n in names))
        kernel = Kernel("kernel", params, tuple(statements))
        size = self._product(self.domain.full)
        work = int(size.value) * self._point_work() if isinstance(size, L.Const) else 0
        return Lowered(kernel, names, self.reads, self.writes, len(self.sites) > self.first_site, work)

    def _flat_loop(self) -> list[Stmt]:
        """One vector loop over everything."""
        n = self._product(self.domain.full)
        if isinstance(n, L.Const) and n.value == 1:
            self.coords = [L.index(0)]
            self._store_all(self.row)
            return self.row.statements
        i = self.var("i")
        self.coords = [i]
        self._store_all(self.row)
        return [For("vector", i, L.index(0), n, tuple(self.row.statements), grain=self._grain(L.index(1)))]

    def _row_loops(self) -> list[Stmt]:
        """Loops over the kept domain around one row. The last kept dimension is the vector loop, unless the
        row itself is (`by_rows`)."""
        domain = self.domain
        self.coords = coordinates(domain)
        moving = [d for d, c in enumerate(self.coords) if not isinstance(c, L.Const)]
        outer = [d for d in moving if d not in domain.reduced]
        vector = outer.pop() if outer and not domain.by_rows() else None
        first = domain.full[outer[0]] if outer else 0
        few = self.style.nested == "serial" and (not isinstance(first, int) or first < FEW)
        merged = self._merge_loops(outer) if len(outer) > 1 and few else None
        self._keep_rows()
        for op in self.body.operations:  # in program order, so that the first pass over a row comes first
            if is_reduction(op):
                self._reduced(op, self._canonical(op.result))
        if domain.reduced and any(self._is_full(self.body.outputs[k]) for k in self.pending):
            self.row.statements.extend(self._full_loop())
        self._store_all(self.row)
        statements, inner = self.row.statements, self._product([domain.full[d] for d in domain.reduced])
        if vector is not None:
            var, hi = self._loop_var(vector), self.dim(domain.full[vector])
            grain = None if outer else self._grain(inner)
            kind = self.style.nested if self._gathers_few(domain.full[vector]) else "vector"
            statements = [For(kind, var, L.index(0), hi, tuple(statements), grain=grain)]
            inner = L.mul(inner, hi)
        if merged is not None:
            total = self._product([domain.full[d] for d in outer])
            return [For("parallel", merged, L.index(0), total, tuple(statements), grain=self._grain(inner))]
        for d in reversed(outer):
            var, hi = self._loop_var(d), self.dim(domain.full[d])
            parallel = d == outer[0]
            grain = self._grain(inner) if parallel else None
            kind = "parallel" if parallel else self.style.nested
            statements = [For(kind, var, L.index(0), hi, tuple(statements), grain=grain)]
            inner = L.mul(inner, hi)
        return statements

    def _gathers_few(self, size: Dim) -> bool:
        """Whether a row would leave vectors half empty that are gathered from windows with a stride: reading elements
        one by one is faster (every second element is not gathered)."""
        strided = any(
            ints_attr(op.attrs, "stride")[-1] > 2 if "stride" in op.attrs else "bins" in op.attrs
            for op in self.body.operations
        )
        return strided and isinstance(size, int) and 2 * size <= LANES

    def _loop_var(self, d: int) -> Var:
        var = self.coords[d]
        assert isinstance(var, Var)
        return var

    def _merge_loops(self, dims: Sequence[int]) -> Var:
        """One loop variable for several dimensions, row-major; theirs are recovered at the start of the row."""
        merged = self.var("row")
        rest: Expr = merged
        for d in reversed(dims[1:]):
            size = self.dim(self.domain.full[d])
            outer = self.var("rest")
            self.row.statements.append(Let(self._loop_var(d), L.apply("mod", rest, size)))
            self.row.statements.append(Let(outer, L.apply("div", rest, size)))
            rest = outer
        self.row.statements.append(Let(self._loop_var(dims[0]), rest))
        return merged

    def _point_work(self) -> int:
        """Scalar operations and memory accesses per point of the full domain, roughly."""
        operations = sum(16 if op.op.name in COSTLY else 1 for op in self.body.operations)
        return operations + self.window_work + len(self.inputs) + len(self.outputs)

    def _grain(self, points: Expr) -> Expr:
        """How many iterations of that many points each are worth a thread."""
        work = L.mul(points, L.index(self._point_work()))
        if isinstance(work, L.Const):
            return L.index(GRAIN // max(1, int(work.value)) + 1)
        return L.add(L.apply("div", L.index(GRAIN), L.apply("max", work, L.index(1))), L.index(1))

    def _is_full(self, v: Value) -> bool:
        """Whether a value of a reducing kernel lives on the full domain (and not on the kept one)."""
        return not (self.domain.reduced and stripped(v.type.shape) == stripped(self.domain.kept))

    # ------------------------------------------------------------------------------------- stores

    def _store_all(self, body: _Body, only_full: bool = False) -> None:
        """Store what is still to be stored. All values come first, then the stores: an output may lie in the
        memory of an input."""
        outputs = [k for k in sorted(self.pending) if not only_full or self._is_full(self.body.outputs[k])]
        found = []
        for k in outputs:
            index = self._canonical(self.body.outputs[k])
            found.append((k, index, self.value(self.body.outputs[k], index, body)))
        for k, index, value in found:
            self._store(k, index, value, body)

    def _store(self, k: int, index: Index, value: Expr, body: _Body) -> None:
        body.statements.append(L.Store(self.outputs[k], index, value))
        self.writes[k] = index
        self.pending.discard(k)

    def _store_computed(self, inner: _Body) -> None:
        """At the end of a pass over the row: store the full outputs that it has computed anyway."""
        for k in sorted(self.pending):
            v = self.body.outputs[k]
            index = self._canonical(v)
            value = inner.known.get(_key(v, index, None)) if self._is_full(v) else None
            if value is not None:
                self._store(k, index, value, inner)
                if self.rows_kept.get(v) is self.outputs[k]:
                    self.rows_storing.add(v)

    def _full_loop(self) -> list[Stmt]:
        """The full outputs that no reduction has stored, in one more pass over the row."""
        inner = _Body(self.row)
        saved = list(self.coords)
        for d in self.domain.reduced:
            self.coords[d] = self.var("r")
        self._store_all(inner, only_full=True)
        statements: list[Stmt] = inner.statements
        for k, d in enumerate(reversed(self.domain.reduced)):
            kind = "vector" if k == 0 and self.domain.by_rows() else "serial"
            size = self.dim(self.domain.full[d])
            statements = [For(kind, self._loop_var(d), L.index(0), size, tuple(statements))]
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
        here = self.flat or same_indices(index, align(v.type.shape, self.domain, self.coords) or ())
        if here:
            where = None  # the point being computed is always in range
        home = self.row if here and self.domain.reduced and not self._is_full(v) else body
        key = _key(v, index, where)
        found = home.find(key)
        if found is None:
            found = self._element(op, index, home, where, here)
            if not isinstance(found, L.Const | Var):
                name = self.var(op.op.name, found.type)
                home.statements.append(Let(name, found))
                found = name
            home.known[key] = found
            if here and home is not self.row:
                self._remember_row(v, index, home, found)
        return found

    def _load(self, v: Value, index: Index, body: _Body, where: Expr | None) -> Expr:
        key = _key(v, index, where)
        found = body.find(key)
        if found is None:
            at = (self.coords[0],) if self.flat else index
            found = body.known[key] = L.load(self.inputs[v], at, where)
        self.reads.setdefault(self.position[v], []).append(index)
        return found

    def _element(self, op: Operation, index: Index, body: _Body, where: Expr | None, here: bool) -> Expr:
        lower = definition(op).lower
        assert isinstance(lower, Dense), f"{op.op.name} can't be part of a kernel"
        kept_row = self.rows_kept.get(op.result)
        if kept_row is not None and op.result in self.rows_stored:
            return L.load(kept_row, index[-1:] if kept_row.scope == "stack" else index, where)

        outer, rounds, reads = where, 1, 0

        def read(k: int, index: Index, where: Expr | None = None) -> Expr:
            nonlocal reads
            reads += rounds
            if where is None or outer is None:
                guard = outer if where is None else where
            else:
                guard = L.apply("and", outer, where)
            return self.value(op.operands[k], index, body, guard)

        def loop(extent: Expr, state: State, step: Callable[[Expr, State], State]) -> State:
            nonlocal body, rounds
            outside, body, before = body, _Body(body), rounds
            rounds *= int(extent.value) if isinstance(extent, L.Const) else UNROLLED
            var = self.var("round")
            names = tuple(self.var("state", e.type) for e in state)
            after = step(var, names)
            results = tuple(self.var("state", e.type) for e in state)
            carried = tuple(map(L.Carry, names, state, after, results))
            inside, body, rounds = body, outside, before
            body.statements.append(For("serial", var, L.index(0), extent, tuple(inside.statements), carried=carried))
            return results

        def check(ok: Expr, kind: str, message: str, value: Expr) -> None:
            if (op, message) in self.checked:
                return
            if here:
                self.checked.add((op, message))
            self.sites.append(CheckSite(kind, op.op.name, message, op.loc))
            if outer is not None:
                ok = L.apply("or", ok, L.apply("not", outer))
            body.statements.append(L.Verify(ok, len(self.sites) - 1, value))

        types = tuple(x.type for x in op.operands)
        found = lower.at(ElementContext(types, op.result.type, op.attrs, read, check, self.dim, loop), index)
        self.window_work += 4 * max(0, reads - len(op.operands))
        return found

    # --------------------------------------------------------------------------------- reductions

    def _reduced(self, op: Operation, index: Index) -> Expr:
        """The result of a reduction at the current row; its statement is added to the row on first use."""
        found = self.kept.get(op.result)
        if found is None:
            canonical = self._canonical(op.result)
            assert same_indices(index, canonical), op.op.name
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
        self._store_computed(inner)
        self.coords = saved
        extent = {d: self.dim(op.operands[0].type.shape[d]) for d in dims}
        if value.dtype.is_half:  # accumulated in float32, rounded once at the end
            value = L.cast(value, float32)
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
                return self._finish_pass(op, row, results)
            block, values = (row,), results
            results = (self.var(op.op.name, value.type),)
        outer = tuple((axes[d], extent[d]) for d in others)
        return self._finish_pass(op, Reduce(results, lower.combine, "serial", outer, block, values), results)

    def _finish_pass(self, op: Operation, loop: Reduce, results: tuple[Var, ...]) -> Var:
        """Add a pass to the row; from here on the rows that it stores can be read."""
        self.row.statements.append(loop)
        self.rows_stored |= self.rows_storing
        self.rows_storing.clear()
        dtype = op.result.type.dtype
        if not dtype.is_half:
            return results[-1]
        rounded = self.var(op.op.name, Vec(dtype))
        self.row.statements.append(Let(rounded, L.cast(results[-1], dtype)))
        return rounded

    # --------------------------------------------------------- costly full values, kept on the stack

    def _keep_rows(self) -> None:
        """Choose the costly full values that more than one pass over the row needs: outputs are read again, for
        others there is a row on the stack."""
        domain = self.domain
        single = domain.by_rows() and len(domain.reduced) == 1
        size = domain.full[-1] if single else None
        for v, passes in _passes(self.body, self).items():
            if passes < 2:
                continue
            if v in self.body.outputs:
                self.rows_kept[v] = self.outputs[self.body.outputs.index(v)]
                continue
            fits = isinstance(size, int) and size >= 16 and size * v.type.dtype.itemsize <= self.style.stack_bytes
            if isinstance(size, int) and fits and sum(b.scope == "stack" for b in self.rows_kept.values()) < 2:
                buffer = Buffer(f"row{len(self.rows_kept)}", v.type.dtype, (size,), (1,), "stack")
                self.rows_kept[v] = buffer
                self.row.statements.append(L.Alloc(buffer))

    def _remember_row(self, v: Value, index: Index, inner: _Body, value: Expr) -> None:
        """The first pass over the row that computes a kept value stores it."""
        buffer = self.rows_kept.get(v)
        if buffer is not None and buffer.scope == "stack" and v not in self.rows_stored | self.rows_storing:
            inner.statements.append(L.Store(buffer, index[-1:], value))
            self.rows_storing.add(v)


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
        if v.producer is not None and v.producer.op.name in COSTLIER_THAN_MEMORY and v.type.shape == shape
    }


def _domain(body: Graph) -> Domain:
    """The domain of a fusion's body: that of its reductions, or of its results."""
    for op in body.operations:
        if isinstance(definition(op).lower, Reduction):
            return domain_of(op)
    shapes = [v.type.shape for v in body.outputs]
    return Domain(max(shapes, key=len))


def _plain(e: Expr) -> int | Expr:
    """Literals as plain ints, as buffers hold them."""
    return int(e.value) if isinstance(e, L.Const) else e


def _key(v: Value, index: Index, where: Expr | None) -> tuple[object, ...]:
    """What a value at an index is known by: literals count by value, other expressions by identity."""
    return (v, where, *(e.value if isinstance(e, L.Const) else e for e in index))
