"""Passes and nested graphs: any pass applied to the graphs inside a graph, and `prune`, which narrows the operations
that hold them.

`prune` drops results that nothing needs, with all that is computed for them inside, operands that nothing inside reads,
and makes constants of values that a loop carries unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from kiln.ir.graph import AttrValue, Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.ops.control import CONTROL, nested, number
from kiln.ir.passes.dce import can_fail, dce

Rewrite = Callable[[Graph], Graph]


def everywhere(rewrite: Rewrite) -> Rewrite:
    """The pass that applies `rewrite` to the graphs inside control flow, innermost first, and then to the graph."""

    @functools.wraps(rewrite)
    def run(graph: Graph) -> Graph:
        return rewrite(inner_changed(graph, lambda op, key, inner: run(inner)))

    return run


def inner_changed(graph: Graph, change: Callable[[Operation, str, Graph], Graph]) -> Graph:
    """`graph` with `change(operation, attribute, inner)` for each graph that control flow in it holds."""
    changed: dict[Operation, dict[str, AttrValue]] = {}
    for op in graph.operations:
        if op.op.name in CONTROL:
            for key, inner in op.attrs.items():
                if isinstance(inner, Graph) and (made := change(op, key, inner)) is not inner:
                    changed.setdefault(op, dict(op.attrs))[key] = made
    if not changed:
        return graph
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        attrs = changed.get(op)  # of the others, types are known that rules can't find for sizes without numbers
        results = builder.clone(op, operands) if attrs is None else builder.add(op.op, operands, attrs, op.loc)
        mapped.update(zip(op.results, results, strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)


# -------------------------------------------------------------------------------------------- prune


class _Narrowed:
    """An operation of control flow made narrow: its attributes, and which of its operands and results are left; of
    the others, `unchanged` are those that are the operand itself."""

    def __init__(self, attrs: dict[str, AttrValue], operands: Sequence[int], results: Sequence[int]) -> None:
        self.attrs = attrs
        self.operands = list(operands)
        self.results = list(results)
        self.unchanged: dict[int, int] = {}


def prune(graph: Graph) -> Graph:
    """`graph` with its control flow narrowed, at all depths; `graph` itself when nothing is to be dropped."""
    live: set[Value] = set(graph.outputs)
    narrowed: dict[Operation, _Narrowed] = {}
    for op in reversed(graph.operations):
        if op.op.name not in CONTROL:
            live.update(op.operands)
            continue
        made = _narrow(op, [r in live for r in op.results])
        narrowed[op] = made
        live.update(op.operands[k] for k in (*made.operands, *made.unchanged.values()))
    whole = all(
        len(made.results) == len(op.results)
        and len(made.operands) == len(op.operands)
        and all(made.attrs[k] is op.attrs[k] for k, v in op.attrs.items() if isinstance(v, Graph))
        for op, made in narrowed.items()
    )
    if whole:
        return graph
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        if op not in narrowed:
            mapped.update(zip(op.results, builder.clone(op, [mapped[v] for v in op.operands]), strict=True))
            continue
        made = narrowed[op]
        mapped.update({op.results[k]: mapped[op.operands[n]] for k, n in made.unchanged.items()})
        if made.results:
            operands = [mapped[op.operands[k]] for k in made.operands]
            results = builder.add(op.op, operands, made.attrs, op.loc)
            mapped.update(zip([op.results[k] for k in made.results], results, strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)


def _narrow(op: Operation, live: Sequence[bool]) -> _Narrowed:
    return {"cond": _narrow_cond, "while_loop": _narrow_while, "scan": _narrow_scan}[op.op.name](op, live)


def _cleaned(graph: Graph) -> Graph:
    return dce(prune(graph))


def _with_outputs(graph: Graph, kept: Sequence[int]) -> Graph:
    """`graph` with these of its outputs, and what they need."""
    if len(kept) < len(graph.outputs):
        graph = Graph(graph.name, graph.inputs, graph.operations, tuple(graph.outputs[k] for k in kept))
    return _cleaned(graph)


def _read(graph: Graph) -> set[int]:
    """The positions of the inputs that operations or outputs read."""
    used = {v for op in graph.operations for v in op.operands} | set(graph.outputs)
    return {k for k, v in enumerate(graph.inputs) if v in used}


def _fails(graph: Graph) -> bool:
    return any(map(can_fail, graph.operations))


def _narrow_cond(op: Operation, live: Sequence[bool]) -> _Narrowed:
    results = [k for k, is_live in enumerate(live) if is_live]
    graphs = {key: nested(op.attrs, key) for key in ("then", "else")}
    if not results:
        if not any(map(_fails, graphs.values())):
            return _Narrowed({}, [], [])
        results = [0]
    cut = {key: _with_outputs(graph, results) for key, graph in graphs.items()}
    used = sorted(set().union(*map(_read, cut.values())))
    attrs: dict[str, AttrValue] = {key: _reordered(graph, used) for key, graph in cut.items()}
    return _Narrowed(attrs, [0, *(k + 1 for k in used)], results)


def _needed(graph: Graph, carried: int, wanted: set[int]) -> set[int]:
    """The inputs that the outputs `wanted` of a loop's body need, directly or through what is carried."""
    wanted = set(wanted)
    while True:
        live = {graph.outputs[k] for k in wanted}
        for op in reversed(graph.operations):
            if can_fail(op) or any(r in live for r in op.results):
                live.update(op.operands)
        read = {k for k, v in enumerate(graph.inputs) if v in live}
        more = wanted | {k for k in read if k < carried}
        if more == wanted:
            return read
        wanted = more


def _narrow_while(op: Operation, live: Sequence[bool]) -> _Narrowed:
    test, body = nested(op.attrs, "test"), nested(op.attrs, "body")
    carried = len(live)
    fixed = {k for k in range(carried) if body.outputs[k] is body.inputs[k]}
    tested = _read(dce(test))
    wanted = {k for k in range(carried) if live[k] or k in tested} - fixed
    if not any(k not in fixed and live[k] for k in range(carried)) and not _fails(body) and not _fails(test):
        made = _Narrowed({}, [], [])
        made.unchanged = {k: k for k in fixed if live[k]}
        return made
    needed = _needed(body, carried, wanted) | tested | wanted
    results = [k for k in range(carried) if k in needed and k not in fixed] or [0]
    constants = [k for k in sorted(fixed) if k in needed and k not in results]
    operands = [*results, *constants, *(k for k in range(carried, len(op.operands)) if k in needed)]
    attrs: dict[str, AttrValue] = {
        "test": _reordered(_cleaned(test), operands),
        "body": _reordered(_with_outputs(body, results), operands),
    }
    made = _Narrowed(attrs, operands, results)
    made.unchanged = {k: k for k in fixed if live[k] and k not in results}
    return made


def _reordered(graph: Graph, order: Sequence[int]) -> Graph:
    """`graph` with its inputs, or those of them that it reads, in another order."""
    if list(order) == list(range(len(graph.inputs))):
        return graph
    builder = GraphBuilder(graph.name)
    mapped = {graph.inputs[k]: builder.input(graph.inputs[k].type, graph.inputs[k].hint) for k in order}
    for op in graph.operations:
        mapped.update(zip(op.results, builder.clone(op, [mapped[v] for v in op.operands]), strict=True))
    return builder.build([mapped[v] for v in graph.outputs])


def _narrow_scan(op: Operation, live: Sequence[bool]) -> _Narrowed:
    body, count, xs = nested(op.attrs, "body"), number(op.attrs, "carried"), number(op.attrs, "xs")
    fixed = {k for k in range(count) if body.outputs[k] is body.inputs[k]}
    wanted = {k for k, is_live in enumerate(live) if is_live} - fixed
    made = _Narrowed({}, [], [])
    made.unchanged = {k: k for k in fixed if live[k]}
    if not wanted and not _fails(body):
        return made
    needed = _needed(body, count, wanted)
    results = [k for k in range(len(live)) if k in wanted or (k < count and k in needed and k not in fixed)] or [0]
    made.unchanged = {k: n for k, n in made.unchanged.items() if k not in results}
    kept = set(_read(_with_outputs(body, results)))
    carried = [k for k in results if k < count]
    kept |= set(carried)
    sliced = [k for k in range(count, count + xs) if k in kept]
    constants = [k for k in range(len(body.inputs)) if k in kept and k not in carried and k not in sliced]
    order = [*carried, *sliced, *constants]
    made.attrs = dict(op.attrs) | {
        "body": _reordered(_with_outputs(body, results), order),
        "carried": len(carried),
        "xs": len(sliced),
    }
    made.operands, made.results = order, results
    return made
