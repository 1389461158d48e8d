"""Which operations become one kernel.

A *group* has a domain (`codegen/domain.py`). Operations join when every value that one reads of the other is read at
the very position that is being computed, or, for a full value, anywhere along the reduced dimensions of the same
row: then one pass over the rows computes all of it. Groups must not form cycles.

The result is again a Graph, whose `fusion` operations hold graphs. Views of materialised values stay outside (they
are layouts); views of members and cheap constants are repeated inside each group that reads them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import Final

from kiln.codegen.domain import (
    Domain,
    Index,
    align,
    coordinates,
    definition,
    domain_of,
    is_literal,
    is_reduction,
    operand_indices,
    same_index,
    stripped,
)
from kiln.codegen.layout import Layout, is_in_place, is_view
from kiln.codegen.writes import may_refuse
from kiln.ir.graph import Attrs, Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.ops.base import Template
from kiln.ir.ops.fusion import fusion

MAX_OPERATIONS: Final = 64
COLUMN_LIMIT: Final = 1 << 20
"""Kernels that reduce over columns walk the full domain in narrow strips: full results of more elements than this
are written faster by a kernel of their own."""
FEW_ROWS: Final = 4
"""Row reductions run a row per thread: with so few long rows, full results are better left to other kernels."""
LONG_ROW: Final = 1 << 16


def stands_alone(op: Operation) -> bool:
    """Templates, constants in memory and writes in place: never part of a generated kernel."""
    return isinstance(definition(op).lower, Template) or op.op.name == "constant" or is_in_place(op)


class Group:
    """Operations that will be one kernel, and the groups whose results they need."""

    __slots__ = (
        "ancestors",
        "bits",
        "checks",
        "domain",
        "fallible",
        "gathers",
        "needs",
        "operations",
        "serial",
        "users",
        "windows",
        "writes",
    )

    def __init__(self, op: Operation, serial: int) -> None:
        self.operations = [op]
        self.domain = Domain(()) if stands_alone(op) else domain_of(op)
        self.serial = serial
        self.bits = 1 << serial
        self.needs: set[Group] = set()
        self.users: set[Group] = set()
        self.ancestors = 0  # the bits of all groups that must run before
        self.writes = False  # holds the new content of an input
        self.fallible = False  # something that can fail comes from it
        self.checks = "check" in definition(op).traits
        self.windows = "window" in definition(op).traits
        self.gathers = False  # a full value in it is read in part only


class _Partition:
    """The grouping of one graph while it is being found."""

    def __init__(self, graph: Graph, layouts: dict[Value, Layout | None], fuse: bool) -> None:
        self.graph = graph
        self.layouts = layouts
        self.uses = graph.uses()
        self.serial = {op: i for i, op in enumerate(graph.operations)}
        self.outputs = set(graph.outputs)
        self.group: dict[Operation, Group] = {}
        self.gathered = False  # by the merge that is being considered
        self.source: dict[Value, Value] = {v: v for v in graph.inputs}
        """What each value is a view of."""
        self.touching: dict[Value, list[Operation]] = {}
        """By what has the memory, the operations that touched it since it was last written in place, and that write."""
        self.refusing: list[Operation] = []
        written = {graph.outputs[a.output] for a in graph.aliases}
        fallible = self._fallible()
        for serial, op in enumerate(graph.operations):
            view = self.transparent(op)
            self.source.update({r: self.source[op.operands[0]] if view else r for r in op.results})
            if view or is_literal(op):
                continue
            group = self.group[op] = Group(op, serial)
            group.writes = any(r in written for r in op.results)
            group.fallible = op in fallible
            self._link(group, self.producers(op))
            self._keep_order(op, group)
            if fuse and not stands_alone(op):
                self._join(op)

    def _fallible(self) -> set[Operation]:
        """The operations from which a failure can follow: a check, or a template that needs memory."""
        found: set[Operation] = set()
        for op in reversed(self.graph.operations):
            own = isinstance(definition(op).lower, Template) or "check" in definition(op).traits
            if own or any(user in found for r in op.results for user, _ in self.uses[r]):
                found.add(op)
        return found

    def transparent(self, op: Operation) -> bool:
        """A view that is a mere layout of something materialised, or that groups see through."""
        return is_view(op) and self.layouts[op.result] is not None

    def producers(self, op: Operation) -> Iterator[Group]:
        """The groups whose results an operation reads."""
        for v in op.operands:
            producer = self.source[v].producer
            if producer is not None and producer in self.group:
                yield self.group[producer]

    # ------------------------------------------------------------------------------------ order

    def _link(self, group: Group, needs: Iterable[Group]) -> None:
        for before in needs:
            group.needs.add(before)
            before.users.add(group)
            group.ancestors |= before.ancestors | before.bits

    def _keep_order(self, op: Operation, group: Group) -> None:
        """A write in place comes after what touched the memory before, and after all that may refuse the data."""
        if may_refuse(op):
            self.refusing.append(op)
        places = [self.layouts[v] for v in op.operands]
        roots = [v if p is None else p.root for v, p in zip(op.operands, places, strict=True)]
        for root in dict.fromkeys(roots):
            touching = self.touching.setdefault(root, [])
            if is_in_place(op) and root is roots[0]:
                self._link(group, {self.group[before] for before in (*touching, *self.refusing)} - {group})
                touching.clear()
            touching.append(op)

    def _cyclic(self, a: Group, b: Group) -> bool:
        """Whether a path from one to the other leads through a third group."""
        return any(x is not a and x.ancestors & a.bits for x in b.needs) or any(
            x is not b and x.ancestors & b.bits for x in a.needs
        )

    def _merge(self, a: Group, b: Group, domain: Domain) -> None:
        """`b` becomes part of `a`."""
        a.operations = sorted([*a.operations, *b.operations], key=self.serial.__getitem__)
        a.domain = domain
        a.serial = max(a.serial, b.serial)
        a.bits |= b.bits
        a.ancestors = (a.ancestors | b.ancestors) & ~a.bits
        a.writes |= b.writes
        a.fallible |= b.fallible
        a.checks |= b.checks
        a.windows |= b.windows
        a.gathers |= b.gathers or self.gathered
        for x in b.needs:
            x.users.discard(b)
            x.users.add(a)
        for x in b.users:
            x.needs.discard(b)
            x.needs.add(a)
        a.needs = (a.needs | b.needs) - {a, b}
        a.users = (a.users | b.users) - {a, b}
        for op in b.operations:
            self.group[op] = a
        pending = list(a.users)
        while pending:
            x = pending.pop()
            more = x.ancestors | a.ancestors | a.bits
            if more != x.ancestors:
                x.ancestors = more
                pending.extend(x.users)

    def ordered(self) -> list[Group]:
        """Groups such that each comes after what it reads; those that write inputs as late as can be, so that
        what can fail has come before; otherwise in program order."""
        groups = set(self.group.values())
        waiting = {g: len(g.needs) for g in groups}
        ready = [(g.writes, g.serial, g) for g in groups if not waiting[g]]
        heapq.heapify(ready)
        done: list[Group] = []
        while ready:
            group = heapq.heappop(ready)[2]
            done.append(group)
            for user in group.users:
                waiting[user] -= 1
                if not waiting[user]:
                    heapq.heappush(ready, (user.writes, user.serial, user))
        assert len(done) == len(groups), "groups form a cycle"
        return done

    # ---------------------------------------------------------------------------------- joining

    def _join(self, op: Operation) -> None:
        """Merge the group of a new operation with those of its producers, as far as that is right and good."""
        for v in op.operands:
            producer = self.source[v].producer
            if producer is None or producer not in self.group:
                continue
            before, here = self.group[producer], self.group[op]
            if before is here or stands_alone(producer):
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
        self.gathered = False
        # A check must run for every element: what it guards must not be read in part only.
        if domain is None or (a.gathers and b.checks) or (b.gathers and a.checks):
            return None
        # Each pass over a row computes its full values again.
        if domain.reduced and (a.windows or b.windows):
            return None
        return domain if self._legal(a, b, domain) and self._legal(b, a, domain) else None

    def _legal(self, producers: Group, readers: Group, domain: Domain) -> bool:
        """Whether `readers` read values of `producers` only where the row being computed has them."""
        if producers not in readers.needs:
            return True
        coords = tuple(coordinates(domain))
        for op in readers.operations:
            if all(g is not producers for g in self.producers(op)):
                continue
            if is_reduction(op):
                reads = [(0, coords)]
            else:
                index = align(op.result.type.shape, domain, coords)
                if index is None:
                    return False
                reads = operand_indices(op, index)
            if not all(self._in_row(op.operands[k], at, producers, domain, coords) for k, at in reads):
                return False
        return True

    def _in_row(self, v: Value, at: Index, producers: Group, domain: Domain, coords: Index) -> bool:
        """Whether reading `v` at `at` while computing the point `coords` is reading what that row has."""
        view = v.producer
        if view is not None and self.transparent(view):
            places = [place for _, place in operand_indices(view, at)]  # several: the parts of a complex number
            return all(self._in_row(view.operands[0], place, producers, domain, coords) for place in places)
        if v.producer is None or self.group.get(v.producer) is not producers:
            return True
        canonical = align(v.type.shape, domain, coords)
        if canonical is None:
            return False
        exact = [same_index(a, c) for a, c in zip(at, canonical, strict=True)]
        if all(exact):
            return True
        self.gathered = True
        free = {id(coords[d]) for d in domain.reduced}
        whole = is_reduction(v.producer) or producers.checks
        return not whole and all(same or id(c) in free for same, c in zip(exact, canonical, strict=True))

    def _worthwhile(self, a: Group, b: Group, domain: Domain) -> bool:
        """Whether one kernel is better than two."""
        for writer, other in ((a, b), (b, a)):
            if writer.writes and not writer.fallible and other.fallible:
                return False  # what can fail would come after the write, which then could not be done in place
        if not domain.reduced:
            return True
        size = math.prod(d for d in domain.full if isinstance(d, int))
        if domain.by_rows():
            rows = math.prod(d for d in domain.kept if isinstance(d, int))
            narrow = rows <= FEW_ROWS and size > rows * LONG_ROW
        else:
            narrow = size > COLUMN_LIMIT
        if not narrow:
            return True
        members = {*a.operations, *b.operations}
        full = stripped(domain.full)
        return not any(stripped(op.result.type.shape) == full and self.escapes(op.result, members) for op in members)

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


# ----------------------------------------------------------------------------------- the fused graph


def fuse(graph: Graph, layouts: dict[Value, Layout | None], enabled: bool = True) -> Graph:
    """The fused graph: `fusion` and template operations, constants in memory, and views of materialised values.

    `layouts` says which views are mere strides (`layout.assign`). Not `enabled`, every operation is a kernel by
    itself."""
    partition = _Partition(graph, layouts, enabled)
    builder, mapped = rebuild(graph)
    for group in partition.ordered():
        _emit(partition, group, builder, mapped)
    outputs = [_outside(builder, mapped, v) for v in graph.outputs]
    return builder.build(outputs, graph.aliases)


def _outside(builder: GraphBuilder, mapped: dict[Value, Value], v: Value) -> Value:
    """A value in the fused graph; views and constants are made on demand."""
    found = mapped.get(v)
    if found is None:
        op = v.producer
        assert op is not None
        operands = [_outside(builder, mapped, x) for x in op.operands]
        found = mapped[v] = builder.clone(op, operands)[v.index]
    return found


def _emit(partition: _Partition, group: Group, builder: GraphBuilder, mapped: dict[Value, Value]) -> None:
    """Append one group: templates and memory constants as they are, everything else as a fusion."""
    first = group.operations[0]
    if stands_alone(first):
        operands = [_outside(builder, mapped, v) for v in first.operands]
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
        root, producer = partition.source[v].producer, v.producer
        repeated = root is not None and (root in members or is_literal(root))
        if repeated and producer is not None and producer not in members:
            made = body.clone(producer, [enter(x) for x in producer.operands])[v.index]
        else:
            made = body.input(v.type, v.hint)
            externals.append(v)
        inside[v] = made
        return made

    for op in group.operations:
        made = body.clone(op, [enter(v) for v in op.operands])
        inside.update(zip(op.results, made, strict=True))
    # What nothing uses is there for its check (dead code has been dropped): it must be computed too.
    results = [r for op in group.operations for r in op.results]
    escaping = [r for r in results if partition.escapes(r, members) or not partition.uses[r]]
    if not escaping:  # only views that nothing uses
        escaping = results[-1:]
    graph = body.build([inside[v] for v in escaping])
    attrs: Attrs = {"body": graph}
    operands = [_outside(builder, mapped, v) for v in externals]
    mapped.update(zip(escaping, builder.add(fusion, operands, attrs, group.operations[-1].loc), strict=True))


def _name(operations: Iterable[Operation]) -> str:
    """A short readable name of a kernel: its most telling operations."""
    names = [op.op.name for op in operations]
    dull = {"cast", "copy", "where", "add", "mul", "sub"}
    telling = [n for n in dict.fromkeys(names) if n not in dull] or list(dict.fromkeys(names))
    return "_".join(telling[:4])
