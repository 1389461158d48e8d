"""Common subexpressions: equal operations on equal operands become one.

Ops are pure functions of operands and attributes (random ops of their state), so this is exact. It runs after
automatic differentiation only: a gradient's order of additions follows the uses in the program as written.
"""

from __future__ import annotations

from kiln.ir.graph import AttrValue, Constant, Graph, Value, rebuild
from kiln.ir.printer import attribute


def structural_key(value: AttrValue) -> object:
    """A hashable form that tells apart all attributes that differ: 1, 1.0 and True; 0.0 and -0.0."""
    match value:
        case tuple():
            return ("tuple", *(structural_key(x) for x in value))
        case float():
            return ("float", value.hex())
        case Constant():
            return ("constant", value.digest())
        case Graph():
            return ("graph", attribute(value, locations=False))
        case _:
            return (type(value).__name__, value)


def cse(graph: Graph) -> Graph:
    """`graph` with repeated operations merged; `graph` itself when there are none."""
    builder, mapped = rebuild(graph)
    seen: dict[tuple[object, ...], tuple[Value, ...]] = {}
    merged = False
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        key = (op.op.name, *operands, *((k, structural_key(v)) for k, v in op.attrs.items()))
        results = seen.get(key)
        if results is None:
            results = seen[key] = builder.clone(op, operands)
        else:
            merged = True
        mapped.update(zip(op.results, results, strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases) if merged else graph
