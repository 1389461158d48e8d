"""Fewer, longer dimensions for a kernel: neighbours merge where every operand steps through them evenly.

A bias that is added to [64, 32, 8, 8] repeats along the last two dimensions, so the kernel may as well walk
[64, 32, 64]: rows of 64 elements fill vectors that rows of 8 leave half empty. The order of a reduction stays what it
is: a run along the last dimension is never made longer, and what is reduced merges with what is reduced only.
"""

from __future__ import annotations

from collections.abc import Sequence

from kiln.codegen.domain import Domain, definition, is_reduction
from kiln.ir.graph import Attrs, Graph, GraphBuilder, Operation, Value
from kiln.ir.ops.base import Dense, ints_attr
from kiln.ir.types import Dim, Shape, TensorType, product

Steps = tuple[Dim, ...] | None
Groups = tuple[tuple[int, ...], ...]


def collapse(body: Graph, domain: Domain, strides: Sequence[Steps]) -> tuple[Graph, list[Steps]]:
    """A fusion's body over merged dimensions, and the strides of its inputs; its outputs are row-major. The body itself
    where nothing merges, or where an operation does more than walk the domain."""
    sides = _sides(body, domain)
    if sides is None:
        return body, list(strides)
    groups: list[tuple[int, ...]] = []
    for d in range(len(domain.full)):
        if groups and _merges(body, domain, strides, sides, groups[-1], d):
            groups[-1] = (*groups[-1], d)
        else:
            groups.append((d,))
    if len(groups) == len(domain.full):
        return body, list(strides)
    return _rebuilt(body, domain, strides, sides, tuple(groups))


def _sides(body: Graph, domain: Domain) -> dict[Value, tuple[int, ...]] | None:
    """For every value the domain's dimensions that it has; None unless all lie on the full or on the kept domain, and
    all operations are pointwise, reductions, or between the two."""
    full = tuple(range(len(domain.full)))
    kept = tuple(d for d in full if d not in domain.reduced)
    found: dict[Value, tuple[int, ...]] = {}
    for v in body.values():
        if v.type.shape == domain.full:
            found[v] = full
        elif domain.reduced and v.type.shape == domain.kept:
            found[v] = kept
        else:
            return None
    for op in body.operations:
        lower = definition(op).lower
        sides = {found[v] for v in (*op.operands, *op.results)}
        if is_reduction(op):
            fits = ints_attr(op.attrs, "dims") == domain.reduced and found[op.operands[0]] == full
        elif op.op.name == "broadcast":
            fits = ints_attr(op.attrs, "dims") == found[op.operands[0]] and found[op.result] == full
        else:
            pointwise = isinstance(lower, Dense) and lower.pointwise and bool(op.operands)
            fits = (pointwise or op.op.name == "full") and len(sides) == 1
        if not fits:
            return None
    return found


def _merges(
    body: Graph,
    domain: Domain,
    strides: Sequence[Steps],
    sides: dict[Value, tuple[int, ...]],
    group: tuple[int, ...],
    inner: int,
) -> bool:
    """Whether a dimension can join those before it."""
    wide = [d for d in group if domain.full[d] != 1]
    outer = wide[-1] if wide else group[-1]
    reduced = [d in domain.reduced for d in (outer, inner)]
    if reduced[0] != reduced[1] or (reduced[1] and inner == len(domain.full) - 1):
        return False
    n = domain.full[inner]
    if not isinstance(n, int):
        return False
    for v, steps in zip(body.inputs, strides, strict=True):
        if steps is None or outer not in sides[v]:
            continue
        a, b = (steps[sides[v].index(d)] for d in (outer, inner))
        if wide and n != 1 and not (isinstance(a, int) and isinstance(b, int) and a == b * n):
            return False
    return True


def _rebuilt(
    body: Graph,
    domain: Domain,
    strides: Sequence[Steps],
    sides: dict[Value, tuple[int, ...]],
    groups: Groups,
) -> tuple[Graph, list[Steps]]:
    place = {d: k for k, group in enumerate(groups) for d in group}

    def on(v: Value) -> list[tuple[int, ...]]:
        return [group for group in groups if group[0] in sides[v]]

    def shape(v: Value) -> Shape:
        return tuple(product(domain.full[d] for d in group) for group in on(v))

    def steps(v: Value, given: Steps) -> Steps:
        """Of each group the stride of its last dimension that is longer than one."""
        if given is None:
            return None
        kept = []
        for group in on(v):
            wide = [d for d in group if domain.full[d] != 1] or [group[-1]]
            kept.append(given[sides[v].index(wide[-1])])
        return tuple(kept)

    def attrs(op: Operation) -> Attrs:
        changed = dict(op.attrs)
        if "dims" in changed:
            changed["dims"] = tuple(dict.fromkeys(place[d] for d in ints_attr(op.attrs, "dims")))
        if "shape" in changed:
            changed["shape"] = shape(op.result)
        return changed

    builder = GraphBuilder(body.name)
    mapped = {v: builder.input(TensorType(v.type.dtype, shape(v), v.type.device), v.hint) for v in body.inputs}
    for op in body.operations:
        made = builder.add(definition(op), [mapped[v] for v in op.operands], attrs(op), op.loc)
        mapped.update(zip(op.results, made, strict=True))
    merged = builder.build([mapped[v] for v in body.outputs])
    return merged, [steps(v, s) for v, s in zip(body.inputs, strides, strict=True)]
