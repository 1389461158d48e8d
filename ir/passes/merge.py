"""Control flow that is applied twice to the same operands, once with further results (`ir/passes/flow.py` does so for
what the gradient needs), becomes one operation."""

from __future__ import annotations

from collections.abc import Sequence

from kiln.ir.graph import Graph, Operation, Value, rebuild
from kiln.ir.ops.control import CONTROL, nested
from kiln.ir.passes.cse import structural_key


def merge(graph: Graph) -> Graph:
    """`graph` with such operations merged, where the first of them stands; `graph` itself when there are none."""
    flows = [op for op in graph.operations if op.op.name in CONTROL]
    leads: dict[Operation, tuple[Operation, Sequence[int]]] = {}
    for k, op in enumerate(flows):
        for other in flows[k + 1 :]:
            if op in leads or other in leads:
                continue
            whole, part = (other, op) if len(other.results) >= len(op.results) else (op, other)
            places = _within(part, whole)
            if places is not None and _before(whole, flows[k]):
                leads[part] = whole, places
    if not leads:
        return graph
    builder, mapped = rebuild(graph)
    made: dict[Operation, Sequence[Value]] = {}

    def results(op: Operation) -> Sequence[Value]:
        if op in leads:
            whole, places = leads[op]
            found = results(whole)
            return [found[k] for k in places]
        if op not in made:
            made[op] = builder.clone(op, [get(v) for v in op.operands])
        return made[op]

    def get(v: Value) -> Value:
        """A value in the new graph; a literal that only a merged operation needs so early is made on the way."""
        if v not in mapped:
            assert v.producer is not None
            mapped.update(zip(v.producer.results, results(v.producer), strict=True))
        return mapped[v]

    for op in graph.operations:
        if op.results[0] not in mapped:
            mapped.update(zip(op.results, results(op), strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)


def _before(whole: Operation, first: Operation) -> bool:
    """Whether `whole` can be done where `first` stands: what it has besides are operands of `first` or literals."""
    return all(v in first.operands or (v.producer is not None and not v.producer.operands) for v in whole.operands)


def _within(part: Operation, whole: Operation) -> Sequence[int] | None:
    """Which results of `whole` those of `part` are; None if it does not compute them."""
    if part.op is not whole.op:
        return None
    more = 0
    if part.op.name == "while_loop":
        more = len(whole.results) - len(part.results)
    count = len(part.results)
    # A loop carries what it has besides behind what the other one carries.
    among = [*range(count), *range(count + more, len(whole.operands))] if more else list(range(len(whole.operands)))
    if [whole.operands[k] for k in among] != list(part.operands):
        return None
    for key, value in part.attrs.items():
        other = whole.attrs[key]
        if isinstance(value, Graph):
            if not _prefix(value, nested(whole.attrs, key), among):
                return None
        elif structural_key(value) != structural_key(other):
            return None
    return range(count)


def _prefix(part: Graph, whole: Graph, among: Sequence[int]) -> bool:
    """Whether `whole` gives first what `part` gives; it may have operations and outputs besides."""
    places = among if len(whole.inputs) > len(part.inputs) else range(len(part.inputs))
    known = {whole.inputs[k]: v for k, v in zip(places, part.inputs, strict=True)}
    if len(whole.operations) < len(part.operations) or len(whole.outputs) < len(part.outputs):
        return False
    for a, b in zip(part.operations, whole.operations, strict=False):
        if a.op is not b.op or [known.get(v) for v in b.operands] != list(a.operands):
            return False
        if a.attrs.keys() != b.attrs.keys() or any(
            structural_key(a.attrs[k]) != structural_key(b.attrs[k]) for k in a.attrs
        ):
            return False
        known.update(zip(b.results, a.results, strict=True))
    return [known.get(v) for v in whole.outputs[: len(part.outputs)]] == list(part.outputs)
