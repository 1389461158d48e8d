"""Which operations become one kernel.

A *group* has a domain: a full shape F and a set R of its dimensions that its reductions run over (maybe none).
Each value in it lives on the full domain or on the kept one (F without R). Operations join when every value that one
reads of the other is read at the very position that is being computed, or, for a full value, anywhere along
the reduced dimensions of the same row: then one pass over the rows computes all of it. Groups must not form cycles.

The result is again a Graph, whose `fusion` operations hold graphs. Views of materialised values stay outside (they
are layouts); views of members and cheap constants are repeated inside each group that reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kiln.codegen.layout import Layout, is_view
from kiln.ir import loops as L
from kiln.ir.graph import Attrs, Constant, Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.loops import Expr, Vec
from kiln.ir.ops.base import Dense, ElementContext, OpDef, Reduction, Template, ints_attr
from kiln.ir.ops.fusion import fusion
from kiln.ir.types import Shape, Sym

MAX_OPERATIONS: Final = 64
COLUMN_LIMIT: Final = 1 << 18
"""Kernels that reduce over columns walk the full domain column by column: only worth it while it stays cached."""


@dataclass(frozen=True, slots=True)
class Domain:
    """F and R of a group."""

    full: Shape
    reduced: tuple[int, ...] = ()

    @property
    def kept(self) -> Shape:
        return tuple(d for i, d in enumerate(self.full) if i not in self.reduced)

    def by_rows(self) -> bool:
        """Whether the last logical dimension is reduced."""
        return bool(self.reduced) and self.reduced[-1] == len(self.full) - 1


def stripped(shape: Shape) -> Shape:
    """A shape without its dimensions of size one."""
    return tuple(d for d in shape if d != 1)


def align(shape: Shape, domain: Domain, coords: Sequence[Expr]) -> tuple[Expr, ...] | None:
    """The index of a value of `shape` at the point `coords` of the domain; None when it lives on neither the
    full nor the kept domain."""
    plain = stripped(shape)
    if plain == stripped(domain.full):
        left = iter([c for c, d in zip(coords, domain.full, strict=True) if d != 1])
    elif domain.reduced and plain == stripped(domain.kept):
        kept = [(c, d) for i, (c, d) in enumerate(zip(coords, domain.full, strict=True)) if i not in domain.reduced]
        left = iter([c for c, d in kept if d != 1])
    else:
        return None
    return tuple(L.index(0) if d == 1 else next(left) for d in shape)


def same_index(a: Expr, b: Expr) -> bool:
    """Whether two index expressions are the same object or equal literals."""
    return a is b or (isinstance(a, L.Const) and isinstance(b, L.Const) and a.value == b.value)


def definition(op: Operation) -> OpDef:
    assert isinstance(op.op, OpDef)
    return op.op


def is_literal(op: Operation) -> bool:
    """Constants that cost nothing to repeat: fills, counters, single numbers."""
    if op.op.name == "constant":
        data = op.attrs["data"]
        return isinstance(data, Constant) and data.data.size == 1
    return "constant" in definition(op).traits


def domain_of(op: Operation) -> Domain:
    """The domain of an operation by itself."""
    if isinstance(definition(op).lower, Reduction):
        return Domain(op.operands[0].type.shape, ints_attr(op.attrs, "dims"))
    return Domain(op.result.type.shape)


def operand_indices(op: Operation, index: tuple[Expr, ...]) -> list[tuple[int, tuple[Expr, ...]]]:
    """Where a Dense operation reads its operands when it computes its result at `index`."""
    lower = definition(op).lower
    assert isinstance(lower, Dense)
    if lower.pointwise:
        return [(k, index) for k in range(len(op.operands))]
    reads: list[tuple[int, tuple[Expr, ...]]] = []

    def read(k: int, index: tuple[Expr, ...], where: Expr | None = None) -> Expr:
        reads.append((k, index))
        return L.Var(Vec(op.operands[k].type.dtype), f"operand{k}")

    def check(ok: Expr, kind: str, message: str, value: Expr) -> None:
        """Where it reads is all that is asked here."""

    context = ElementContext(
        tuple(v.type for v in op.operands), op.result.type, op.attrs, read, check, lambda d: extent_of(d)
    )
    lower.element(context, index)
    return reads


def extent_of(d: object) -> Expr:
    """A dimension as an index expression."""
    return L.index(d) if isinstance(d, int) else L.Var(L.INDEX, str(d))


class Group:
    """Operations that will be one kernel."""

    __slots__ = ("domain", "operations", "serial")

    def __init__(self, op: Operation, serial: int) -> None:
        self.operations = [op]
        self.domain = domain_of(op) if isinstance(definition(op).lower, Dense | Reduction) else Domain(())
        self.serial = serial


class _Partition:
    """The grouping of one graph while it is being found."""

    def __init__(self, graph: Graph, layouts: dict[Value, Layout | None], fuse: bool) -> None:
        self.graph = graph
        self.layouts = layouts
        self.uses = graph.uses()
        self.positions = {op: i for i, op in enumerate(graph.operations)}
        self.outputs = set(graph.outputs)
        self.group: dict[Operation, Group] = {}
        for serial, op in enumerate(graph.operations):
            if self.transparent(op) or is_literal(op):
                continue
            self.group[op] = Group(op, serial)
            if fuse and isinstance(definition(op).lower, Dense | Reduction):
                self._join(op)

    def transparent(self, op: Operation) -> bool:
        """A view that is a mere layout, or that groups see through."""
        return is_view(op) and self.layouts[op.result] is not None

    def source(self, v: Value) -> Value:
        """What a value is a view of."""
        while v.producer is not None and self.transparent(v.producer):
            v = v.producer.operands[0]
        return v

    def predecessors(self, group: Group) -> Iterator[Group]:
        for op in group.operations:
            for v in op.operands:
                producer = self.source(v).producer
                if producer is not None and producer in self.group and self.group[producer] is not group:
                    yield self.group[producer]

    # ------------------------------------------------------------------------------------- joining

    def _join(self, op: Operation) -> None:
        for v in op.operands:
            producer = self.source(v).producer
            if producer is None or producer not in self.group:
                continue
            before, here = self.group[producer], self.group[op]
            stays_memory = isinstance(definition(producer).lower, Template) or producer.op.name == "constant"
            if before is here or stays_memory:
                continue
            domain = self._unify(before, here)
            if domain is not None and self._worthwhile(before, here, domain) and not self._cyclic(before, here):
                self._merge(before, here, domain)

    def _unify(self, a: Group, b: Group) -> Domain | None:
        """A domain on which all of both groups' values live at matching positions."""
        if len(a.operations) + len(b.operations) > MAX_OPERATIONS:
            return None
        da, db = a.domain, b.domain
        if da.reduced and db.reduced:
            domain = da if da == db else None
        elif stripped(da.full) == stripped(db.full):
            domain = db if db.reduced else da
        elif da.reduced and stripped(db.full) == stripped(da.kept):
            domain = da
        elif db.reduced and stripped(da.full) == stripped(db.kept):
            domain = db
        else:
            domain = None
        if domain is None or not (self._legal(a, b, domain) and self._legal(b, a, domain)):
            return None
        return domain

    def _legal(self, producers: Group, readers: Group, domain: Domain) -> bool:
        """Whether `readers` read values of `producers` only where the row being computed has them."""
        coords = coordinates(domain)
        for op in readers.operations:
            if isinstance(definition(op).lower, Reduction):
                reads = [(0, tuple(coords))] if op.operands[0].type.shape == domain.full else []
                if not reads:
                    return False
            else:
                index = align(op.result.type.shape, domain, coords)
                if index is None:
                    return False
                interesting = [self.source(v).producer for v in op.operands]
                if not any(p in self.group and self.group[p] is producers for p in interesting if p is not None):
                    continue
                reads = operand_indices(op, index)
            for k, at in reads:
                if not self._reads_in_row(op.operands[k], at, producers, domain, coords):
                    return False
        return True

    def _reads_in_row(
        self, v: Value, at: tuple[Expr, ...], producers: Group, domain: Domain, coords: Sequence[Expr]
    ) -> bool:
        while v.producer is not None and self.transparent(v.producer):
            ((_, at),) = operand_indices(v.producer, at)
            v = v.producer.operands[0]
        if v.producer is None or self.group.get(v.producer) is not producers:
            return True
        canonical = align(v.type.shape, domain, coords)
        if canonical is None:
            return False
        free = {id(coords[d]) for d in domain.reduced}
        is_reduction = isinstance(definition(v.producer).lower, Reduction)
        return all(same_index(a, c) or (id(c) in free and not is_reduction) for a, c in zip(at, canonical, strict=True))

    def _worthwhile(self, a: Group, b: Group, domain: Domain) -> bool:
        """Column reductions walk memory against its grain: large full results are better left to a kernel of
        their own."""
        if not domain.reduced or domain.by_rows():
            return True
        size = math.prod(d for d in domain.full if isinstance(d, int))
        if size <= COLUMN_LIMIT:
            return True
        members = {*a.operations, *b.operations}
        for op in members:
            if stripped(op.result.type.shape) == stripped(domain.full) and self.escapes(op.result, members):
                return False
        return True

    def escapes(self, v: Value, members: set[Operation]) -> bool:
        """Whether a value, or a view of it, is needed outside."""
        if v in self.outputs:
            return True
        for user, _ in self.uses[v]:
            if user in members:
                continue
            if not self.transparent(user) or self.escapes(user.result, members):
                return True
        return False

    def _cyclic(self, a: Group, b: Group) -> bool:
        """Whether a path from `a` to `b` leads through a third group."""
        seen: set[int] = set()
        stack = [g for g in self.predecessors(b) if g is not a]
        while stack:
            g = stack.pop()
            if g is a:
                return True
            if id(g) not in seen:
                seen.add(id(g))
                stack.extend(self.predecessors(g))
        seen.clear()
        stack = [g for g in self.predecessors(a) if g is not b]
        while stack:
            g = stack.pop()
            if g is b:
                return True
            if id(g) not in seen:
                seen.add(id(g))
                stack.extend(self.predecessors(g))
        return False

    def _merge(self, a: Group, b: Group, domain: Domain) -> None:
        a.operations = sorted({*a.operations, *b.operations}, key=self._position)
        a.domain = domain
        a.serial = max(a.serial, b.serial)
        for op in b.operations:
            self.group[op] = a

    def _position(self, op: Operation) -> int:
        return self.positions[op]

    # -------------------------------------------------------------------------------------- result

    def ordered(self) -> list[Group]:
        """Groups such that each comes after what it reads, otherwise as late as their last operation."""
        groups = list({id(g): g for g in self.group.values()}.values())
        waiting = {id(g): {id(p) for p in self.predecessors(g)} for g in groups}
        done: list[Group] = []
        groups.sort(key=lambda g: g.serial)
        while groups:
            ready = next(g for g in groups if not waiting[id(g)])
            groups.remove(ready)
            done.append(ready)
            for needs in waiting.values():
                needs.discard(id(ready))
        return done


def coordinates(domain: Domain) -> list[Expr]:
    """One index variable per dimension of the full domain; 0 where the size is one and nothing is reduced."""
    return [
        L.index(0) if d == 1 and i not in domain.reduced else L.Var(L.INDEX, f"i{i}") for i, d in enumerate(domain.full)
    ]


def fuse(graph: Graph, layouts: dict[Value, Layout | None], enabled: bool = True) -> Graph:
    """The fused graph: `fusion` and template operations, constants in memory, and views of materialised values."""
    static = not any(isinstance(d, Sym) for v in graph.values() for d in v.type.shape)
    partition = _Partition(graph, layouts, enabled and static)
    builder, mapped = rebuild(graph)
    for group in partition.ordered():
        _emit(partition, group, builder, mapped)
    outputs = [_outside(partition, builder, mapped, v) for v in graph.outputs]
    return builder.build(outputs, graph.aliases)


def _outside(partition: _Partition, builder: GraphBuilder, mapped: dict[Value, Value], v: Value) -> Value:
    """A value in the fused graph; views and constants are made on demand."""
    found = mapped.get(v)
    if found is None:
        op = v.producer
        assert op is not None
        operands = [_outside(partition, builder, mapped, x) for x in op.operands]
        found = mapped[v] = builder.clone(op, operands)[v.index]
    return found


def _emit(partition: _Partition, group: Group, builder: GraphBuilder, mapped: dict[Value, Value]) -> None:
    """Append one group: templates and memory constants as they are, everything else as a fusion."""
    first = group.operations[0]
    if isinstance(definition(first).lower, Template) or (first.op.name == "constant" and not is_literal(first)):
        operands = [_outside(partition, builder, mapped, v) for v in first.operands]
        mapped.update(zip(first.results, builder.clone(first, operands), strict=True))
        return
    members = set(group.operations)
    body = GraphBuilder(_name(group.operations))
    inside: dict[Value, Value] = {}
    externals: list[Value] = []

    def enter(v: Value) -> Value:
        """A value inside the body: a member's, a repeated view or literal, or a new input."""
        found = inside.get(v)
        if found is not None:
            return found
        root, producer = partition.source(v).producer, v.producer
        repeated = producer is not None and root is not None and (root in members or is_literal(root))
        if repeated and producer is not None and producer not in members:
            made = body.clone(producer, [enter(x) for x in producer.operands])[v.index]
        else:
            made = body.input(v.type, v.hint)
            externals.append(v)
        inside[v] = made
        return made

    for op in group.operations:
        results = body.clone(op, [enter(v) for v in op.operands])
        inside.update(zip(op.results, results, strict=True))
    escaping = [r for op in group.operations for r in op.results if partition.escapes(r, members)]
    if not escaping:  # kept for its checks alone
        escaping = [group.operations[-1].result]
    graph = body.build([inside[v] for v in escaping])
    attrs: Attrs = {"body": graph}
    operands = [_outside(partition, builder, mapped, v) for v in externals]
    results = builder.add(fusion, operands, attrs, group.operations[-1].loc)
    mapped.update(zip(escaping, results, strict=True))


def _name(operations: Iterable[Operation]) -> str:
    """A short readable name of a kernel: its most telling operations."""
    names = [op.op.name for op in operations]
    dull = {"cast", "copy", "where", "add", "mul", "sub"}
    telling = [n for n in dict.fromkeys(names) if n not in dull] or list(dict.fromkeys(names))
    return "_".join(telling[:4])
