"""`fusion`: several operations that become one kernel. Its body is a graph, so a fused graph prints and parses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kiln.ir.graph import Attrs, Graph
from kiln.ir.ops.base import OpDef, OpTypeError, Template, register
from kiln.ir.types import TensorType


def body_of(attrs: Attrs) -> Graph:
    """The graph inside a fusion."""
    body = attrs["body"]
    assert isinstance(body, Graph)
    return body


def _types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    body = body_of(attrs)
    if [v.type for v in body.inputs] != list(operands):
        raise OpTypeError("fusion", f"operands {', '.join(map(str, operands))} do not fit body {body.name}")
    return tuple(v.type for v in body.outputs)


def _ref(xp: Any, *arrays: Any, body: Graph) -> Any:
    from kiln.ir.interpreter import evaluate_ref

    results = evaluate_ref(body, arrays)
    return results[0] if len(results) == 1 else tuple(results)


fusion: Final[OpDef] = register(
    OpDef(
        "fusion",
        "fusion(operands; body): the results of graph `body`, computed by one kernel. Made by codegen only.",
        _types,
        _ref,
        Template("fusion"),
    )
)
