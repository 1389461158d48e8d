"""Which convolutions become part of generated kernels."""

from __future__ import annotations

from kiln.codegen.direct import direct
from kiln.ir.graph import Graph, GraphBuilder
from kiln.ir.ops import OPS
from kiln.ir.types import TensorType, float32


def convolution(results: int, channels: int, groups: int) -> Graph:
    builder = GraphBuilder("f")
    x = builder.input(TensorType(float32, (2, channels * groups, 8, 8)))
    w = builder.input(TensorType(float32, (results, channels, 3, 3)))
    attrs = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": groups}
    (y,) = builder.add(OPS["conv2d"], [x, w], attrs)
    (back,) = builder.add(OPS["conv2d_input"], [y, w], {**attrs, "size": (8, 8)})
    return builder.build([y, back])


def names(graph: Graph) -> list[str]:
    return [op.op.name for op in graph.operations]


def test_few_results_per_group_are_computed_directly() -> None:
    graph = convolution(6, 1, 6)
    found = direct(graph)
    assert names(found) == ["conv2d_direct", "conv2d_input_direct"]
    assert [v.type for v in found.outputs] == [v.type for v in graph.outputs]
    assert names(direct(convolution(8, 3, 4))) == ["conv2d_direct", "conv2d_input"]
    assert names(direct(convolution(16, 2, 4))) == ["conv2d", "conv2d_input_direct"]


def test_others_stay() -> None:
    graph = convolution(16, 16, 1)
    assert direct(graph) is graph
