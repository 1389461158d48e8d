"""Writes into a part of an input, done in the input's own memory.

A captured write is a value: the whole table with a part replaced (the scatters, `slice_scatter`), which in the end is
the new content of an input. Computed as it stands, all of the table is copied for the few elements that change, and
once more at the end. Here such operations are marked `in_place`: the memory of their result is that of their table
(`layout.assign`), so that only the part is written, and whoever reads the new value reads the input's memory.

Nobody may be able to tell. So there must be an order of the operations in which

- what reads the memory as it was comes before the write that changes it,
- what may fail on account of data comes before all such writes: a call that fails has changed nothing. Indices, also of
  what is read later, are checked by operations of their own, which need nothing but the indices.

Where there is none (a result needs what was there both before and after), the write stays a value.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from kiln.codegen.domain import definition, is_literal
from kiln.codegen.layout import Layout, Strides, assign, is_in_place, is_view, place
from kiln.ir.graph import Alias, Attrs, Graph, Operation, Value, rebuild
from kiln.ir.ops import OPS
from kiln.ir.ops.base import Scatter, ints_attr
from kiln.ir.passes.dce import dce
from kiln.ir.types import Sym, int64

Layouts = dict[Value, Layout | None]


def may_refuse(op: Operation) -> bool:
    """Whether an operation, or one inside it, may fail on account of data."""
    if is_in_place(op) or op.attrs.get("checked", False):
        return False
    own = "check" in getattr(op.op, "traits", ())
    return own or any(may_refuse(inner) for graph in op.graphs() for inner in graph.operations)


def source_is_literal(v: Value) -> bool:
    """Whether a value, or what it is a view of, has no memory unless it is given some."""
    while v.producer is not None and is_view(v.producer):
        v = v.producer.operands[0]
    return v.producer is not None and is_literal(v.producer)


def is_settled(graph: Graph, alias: Alias, layouts: Layouts) -> bool:
    """Whether the output of an alias is in its input's memory already."""
    v, source = graph.outputs[alias.output], graph.inputs[alias.input]
    return _same(v, place(v, layouts), place(source, layouts))


def _same(v: Value, a: Layout, b: Layout) -> bool:
    """Whether two layouts of a value are one."""
    if 0 in v.type.shape:
        return a.root is b.root
    steps = zip(v.type.shape, a.strides, b.strides, strict=True)
    return a.root is b.root and a.offset == b.offset and all(n == 1 or s == t for n, s, t in steps)


def write_in_place(graph: Graph, strides: Sequence[Strides | None]) -> Graph:
    """`graph` with such writes marked and its operations in such an order; `graph` itself where there are none."""
    found = {alias: spine for alias in graph.aliases if (spine := _spine(graph, alias))}
    while found:
        marked = _Marking(graph, found, strides).run()
        unfit = _unfit(marked, found, strides) or _unordered(marked, found, strides)
        if isinstance(unfit, Graph):
            return unfit
        del found[unfit]
    return graph


# --------------------------------------------------------------------------------- what is written where

_WRITE: Final = "write"
_PART: Final = "part"
_JOIN: Final = "join"
"""What becomes of an operation: a scatter into its table; a slice that is written; nothing, as the slice has been
written in place before."""
Spine = dict[Operation, str]


def _written(graph: Graph, alias: Alias) -> Value:
    """What an input's new content is a copy of."""
    v = graph.outputs[alias.output]
    while v.producer is not None and v.producer.op.name == "copy":
        v = v.producer.operands[0]
    return v


def _spine(graph: Graph, alias: Alias) -> Spine:
    """The writes that lead from an input to its new content, in order; empty if other operations do."""
    source = graph.inputs[alias.input]
    return _walk(_written(graph, alias), source, None) or {}


def _walk(v: Value, source: Value | None, part: Operation | None) -> Spine | None:
    """The writes from `source` to `v`, or from the slice that `part` replaces; None if `v` is something else."""
    found: list[Spine] = []
    while v is not source and not (part is not None and _is_slice(v, part)):
        op = v.producer
        if op is None or (part is not None and v is part.operands[0]):
            return None
        lower = definition(op).lower
        if op.op.name == "slice_scatter" and _plain(op):
            within = _walk(op.operands[1], None, op)
            found.append(within | {op: _JOIN} if within else {op: _PART})
        elif isinstance(lower, Scatter) and not (op.result.type.dtype.is_half and lower.combine != "set"):
            found.append({op: _WRITE})  # sums of 16-bit floats are kept in float32, elsewhere
        elif not is_view(op):
            return None
        v = op.operands[0]
    return {op: kind for each in reversed(found) for op, kind in each.items()}


def _is_slice(v: Value, part: Operation) -> bool:
    """Whether `v` is the slice that `part` replaces."""
    op = v.producer
    return op is not None and op.op.name == "slice" and op.operands[0] is part.operands[0] and op.attrs == part.attrs


def _plain(op: Operation) -> bool:
    """Whether a slice is at places that are known."""
    bounds = [d for key in ("starts", "stops", "steps") if isinstance(at := op.attrs[key], tuple) for d in at]
    return not any(isinstance(d, Sym) for d in bounds)


class _Marking:
    """A graph with writes marked: indices checked before, and copies of what lies in memory that is written."""

    def __init__(self, graph: Graph, spines: dict[Alias, Spine], strides: Sequence[Strides | None]) -> None:
        self.graph = graph
        self.kinds = {op: kind for spine in spines.values() for op, kind in spine.items()}
        self.written = {a.output: _written(graph, a) for a in spines}
        self.inside = {v: v for a in spines for v in [graph.inputs[a.input]]}
        """The values whose memory is an input's that is written, and which one's."""
        sizes = {v: (*v.type.shape, *(s or ())) for v, s in zip(graph.inputs, strides, strict=True)}
        self.named = {v for v, numbers in sizes.items() if any(isinstance(n, Sym) for n in numbers)}
        self.later: set[Value] = set()
        """What depends on a write."""
        self.checked: dict[object, Value] = {}
        self.builder, self.mapped = rebuild(graph)

    def run(self) -> Graph:
        for op in self.graph.operations:
            kind = self.kinds.get(op)
            if (kind is not None or is_view(op)) and op.operands[0] in self.inside:
                self.inside[op.result] = self.inside[op.operands[0]]
            if kind is not None:
                made = self._mark(op)
            elif self._is_checked_early(op):
                made = self._checked(op)
            else:
                made = self.builder.clone(op, [self.mapped[v] for v in op.operands])
            if kind is not None or not self.later.isdisjoint(op.operands):
                self.later.update(op.results)
            self.mapped.update(zip(op.results, made, strict=True))
        outputs = [
            self.mapped[self.written[k]] if k in self.written else self._apart(v)
            for k, v in enumerate(self.graph.outputs)
        ]
        return dce(self.builder.build(outputs, self.graph.aliases))  # without the copies at the end

    def _apart(self, v: Value) -> Value:
        """`v` in memory that no write changes."""
        if v not in self.inside and not source_is_literal(v):
            return self.mapped[v]
        return self.builder.add(OPS["copy"], [self.mapped[v]], {})[0]

    def _mark(self, op: Operation) -> tuple[Value, ...]:
        table, value = op.operands[:2]
        base = self.mapped[table]
        if self.kinds[op] == _JOIN:
            return self._append(op, op.op.name, [base, self.mapped[value]], op.attrs)
        if self.kinds[op] == _PART:
            return self._write_part(op, base, self._apart(value))
        return self._append(op, op.op.name, [base, self._apart(value), *self._positions(op)], op.attrs)

    def _write_part(self, op: Operation, base: Value, value: Value) -> tuple[Value, ...]:
        """The slice is a table of its own, so that one kernel writes all slices of a shape; but where sizes have names,
        the kernel knows where the slice is."""
        steps = ints_attr(op.attrs, "steps")
        if self.inside[op.operands[0]] in self.named:
            return self._append(op, "affine_scatter", [base, value], _diagonal(ints_attr(op.attrs, "starts"), steps))
        (part,) = self.builder.add(OPS["slice"], [base], op.attrs, op.loc)
        whole = _diagonal((0,) * len(steps), (1,) * len(steps))
        (made,) = self.builder.add(OPS["affine_scatter"], [part, value], {**whole, "in_place": True}, op.loc)
        return self._append(op, op.op.name, [base, made], op.attrs)

    def _append(self, op: Operation, name: str, operands: list[Value], attrs: Attrs) -> tuple[Value, ...]:
        types = [r.type for r in op.results]
        return self.builder.append(OPS[name], operands, {**attrs, "in_place": True}, types, op.loc)

    def _is_checked_early(self, op: Operation) -> bool:
        """Whether an operation that checks indices depends on a write: the indices may not."""
        return "place" in op.attrs and not op.attrs.get("checked", False) and not self.later.isdisjoint(op.operands)

    def _checked(self, op: Operation) -> tuple[Value, ...]:
        """The operation without a check, behind one."""
        operands = [*(self.mapped[v] for v in op.operands[: _first_index(op)]), *self._positions(op)]
        types = [r.type for r in op.results]
        return self.builder.append(op.op, operands, {**op.attrs, "checked": True}, types, op.loc)

    def _positions(self, op: Operation) -> list[Value]:
        """The index tensors, checked."""
        indices = op.operands[_first_index(op) :]
        if not indices:
            return []
        dims = [d for d, p in enumerate(ints_attr(op.attrs, "place")) if p < 0]
        return [self._position(op, v, d) for v, d in zip(indices, dims, strict=True)]

    def _position(self, op: Operation, v: Value, d: int) -> Value:
        """An index tensor of dimension `d`, looked up in a counter: the same numbers, from 0 on, if they are in range;
        else the error that the operation has for them."""
        index, table = self._apart(v), op.operands[0].type
        key = (index, d, table.rank, table.shape[d], op.attrs["wrap"])
        if key not in self.checked:
            rank = index.type.rank
            others = iter(range(rank, rank + table.rank))
            counter = tuple(n if i == d else 1 for i, n in enumerate(table.shape))
            place = tuple(-1 if i == d else next(others) for i in range(table.rank))
            scheme: Attrs = {"at": tuple(range(rank)), "place": place, "wrap": op.attrs["wrap"]}
            (line,) = self.builder.add(OPS["iota"], (), {"shape": counter, "dtype": int64, "dim": d}, op.loc)
            (found,) = self.builder.add(OPS["gather"], [line, index], scheme, op.loc)
            (self.checked[key],) = self.builder.add(OPS["reshape"], [found], {"shape": index.type.shape}, op.loc)
        return self.checked[key]


def _diagonal(starts: tuple[int, ...], steps: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The attributes of an affine scatter to a slice."""
    return {
        "starts": starts,
        "steps": tuple(s if d == k else 0 for d, s in enumerate(steps) for k in range(len(steps))),
    }


def _first_index(op: Operation) -> int:
    """Which operand of a `gather` or a scatter is the first index tensor."""
    return 1 if op.op.name == "gather" else 2


# ------------------------------------------------------------------------------------------ whether it is right


def _unfit(graph: Graph, spines: dict[Alias, Spine], strides: Sequence[Strides | None]) -> Alias | None:
    """One of the aliases whose writes, marked, do not leave the new content where it belongs."""
    layouts = assign(graph, strides)
    for alias in spines:
        if not is_settled(graph, alias, layouts):
            return alias
        source = graph.inputs[alias.input]
        for op in filter(is_in_place, graph.operations):
            if place(op.result, layouts).root is source and not _lies_inside(op, layouts):
                return alias
    return None


def _lies_inside(op: Operation, layouts: Layouts) -> bool:
    """Whether the slice that `op` replaces, if it does, is where its value is."""
    if op.op.name != "slice_scatter":
        return True
    base, value = (place(v, layouts) for v in op.operands)
    starts, steps = ints_attr(op.attrs, "starts"), ints_attr(op.attrs, "steps")
    if any(isinstance(s, Sym) for s in base.strides):
        return False
    known = [s for s in base.strides if isinstance(s, int)]
    offset = base.offset + sum(a * s for a, s in zip(starts, known, strict=True))
    there = Layout(base.root, offset, tuple(n * s for n, s in zip(steps, known, strict=True)))
    return _same(op.operands[1], value, there)


def _unordered(graph: Graph, spines: dict[Alias, Spine], strides: Sequence[Strides | None]) -> Graph | Alias:
    """`graph` in an order that is right, or an alias whose writes are in the way of one."""
    layouts = assign(graph, strides)
    before = _constraints(graph, {graph.inputs[a.input] for a in spines}, layouts)
    order = _sorted(graph, before)
    if len(order) == len(graph.operations):
        return _in_order(graph, order)
    late = set(graph.operations) - set(order)
    roots = {place(op.operands[0], layouts).root for op in late if is_in_place(op)}
    return next(a for a in spines if graph.inputs[a.input] in roots)


def _constraints(graph: Graph, roots: set[Value], layouts: Layouts) -> dict[Operation, set[Operation]]:
    """For each operation those that must come before it."""
    versions = dict.fromkeys(roots, 0)
    """How many writes what lies in an input's memory has seen."""
    writes: dict[Value, list[Operation]] = {root: [] for root in roots}
    reads: list[tuple[Operation, Value, int]] = []
    before = {op: {v.producer for v in op.operands if v.producer is not None} for op in graph.operations}
    for op in graph.operations:
        if is_in_place(op) and (root := place(op.operands[0], layouts).root) in roots:
            if op.op.name == "slice_scatter":
                versions[op.result] = versions[op.operands[1]]
                continue
            writes[root].append(op)
            versions[op.result] = versions[op.operands[0]] + 1
            continue
        for v in op.operands:
            if (root := place(v, layouts).root) not in roots:
                continue
            if is_view(op) and layouts[op.result] is not None:
                versions[op.result] = versions[v]
            else:
                reads.append((op, root, versions[v]))
    for op, root, version in reads:
        if version < len(writes[root]):
            before[writes[root][version]].add(op)
    checks = set(filter(may_refuse, graph.operations))
    for first in (found[0] for found in writes.values() if found):
        before[first] |= checks
    return before


def _sorted(graph: Graph, before: dict[Operation, set[Operation]]) -> list[Operation]:
    """The operations in an order that keeps `before`, else as they stand, but for what checks indices, which comes
    early. Those in cycles are left out."""
    rank: dict[Operation, tuple[int, int]] = {}
    for k, op in enumerate(graph.operations):
        rank[op] = (k, 0)
    for op in graph.operations:
        if op.op.name == "gather" and (line := op.operands[0].producer) is not None and line.op.name == "iota":
            index = op.operands[1].producer
            rank[op] = (-1 if index is None else rank[index][0], 1)
            rank[line] = (-1, 0)
    after: dict[Operation, list[Operation]] = {op: [] for op in graph.operations}
    waiting = {op: len(needs) for op, needs in before.items()}
    for op, needs in before.items():
        for each in needs:
            after[each].append(op)
    ready = [(rank[op], k, op) for k, op in enumerate(graph.operations) if not waiting[op]]
    number = {op: k for k, op in enumerate(graph.operations)}
    heapq.heapify(ready)
    order: list[Operation] = []
    while ready:
        op = heapq.heappop(ready)[2]
        order.append(op)
        for user in after[op]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (rank[user], number[user], user))
    return order


def _in_order(graph: Graph, order: Sequence[Operation]) -> Graph:
    builder, mapped = rebuild(graph)
    for op in order:
        mapped.update(zip(op.results, builder.clone(op, [mapped[v] for v in op.operands]), strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)
