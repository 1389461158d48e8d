"""Graphs as text that a person reads and `parser.py` reads back.

    graph main(%0 x: float32[64, 10], %1: int64[64]) {
      %2 = amax(%0) {dims=(1,)} : float32[64]  # train.py:12
      return %2 alias 0->1
    }

Names are numbers in definition order, so equal graphs print equally. Floats print exactly; nested graphs
print in place; the user's lines are comments.
"""

from __future__ import annotations

import json

from kiln.ir.graph import AttrValue, Constant, Graph, Operation, Value
from kiln.ir.types import DType, Sym


def print_graph(graph: Graph, *, locations: bool = True) -> str:
    """The text of a graph. `locations`: with the user's lines as comments."""
    return "\n".join(_lines(graph, locations))


def _lines(graph: Graph, locations: bool) -> list[str]:
    names = {v: f"%{i}" for i, v in enumerate(graph.values())}
    params = ", ".join(f"{names[v]}{' ' + v.hint if v.hint.isidentifier() else ''}: {v.type}" for v in graph.inputs)
    lines = [f"graph {graph.name or 'main'}({params}) {{"]
    for op in graph.operations:
        lines += ["  " + line for line in _operation(op, names, locations)]
    result = ", ".join(names[v] for v in graph.outputs)
    aliases = "".join(f" alias {a.output}->{a.input}" for a in graph.aliases)
    lines += [f"  return {result}{aliases}".rstrip(), "}"]
    return lines


def _operation(op: Operation, names: dict[Value, str], locations: bool) -> list[str]:
    results = ", ".join(names[r] for r in op.results)
    operands = ", ".join(names[v] for v in op.operands)
    attrs = ", ".join(f"{k}={attribute(v, locations)}" for k, v in op.attrs.items())
    types = ", ".join(str(r.type) for r in op.results)
    text = f"{results} = {op.op.name}({operands}){' {' + attrs + '}' if attrs else ''} : {types}"
    if locations and op.loc is not None:
        text += f"  # {op.loc}"
    return text.split("\n")


def attribute(value: AttrValue, locations: bool = True) -> str:
    """The text of an attribute: exact, and of another form for each type."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case complex():
            return f"complex({value.real!r}, {value.imag!r})"
        case str():
            return json.dumps(value)
        case DType():
            return value.name
        case Sym():
            return f"${value.name}"
        case Constant():
            data = value.data
            return f"const({data.dtype.name}{list(data.shape)}, {json.dumps(data.tobytes().hex())})"
        case Graph():
            return "\n".join(_lines(value, locations))
        case tuple():
            inside = ", ".join(attribute(x, locations) for x in value)
            return f"({inside},)" if len(value) == 1 else f"({inside})"
    raise TypeError(f"{type(value).__name__} is not an attribute")
