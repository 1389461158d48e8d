"""`ir/interpreter.py`: a graph run again, over values and over references."""

from __future__ import annotations

import numpy as np
import pytest

from kiln.ir.graph import Graph, GraphBuilder
from kiln.ir.interpreter import InterpretError, evaluate_ref, run
from kiln.ir.ops import OPS
from kiln.ir.types import TensorType, float32


def sample_graph() -> Graph:
    builder = GraphBuilder("sample")
    x, y = builder.input(TensorType(float32, (2, 3))), builder.input(TensorType(float32, (2, 3)))
    (two,) = OPS["full"].bind((), {"shape": (2, 3), "dtype": float32, "value": 2.0}, receiver=x)
    total = OPS["sum"](OPS["mul"](OPS["add"](x, y), two), dims=(1,))
    return builder.build([total, x])


def test_references_give_the_numbers() -> None:
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32)
    total, same = evaluate_ref(sample_graph(), [x, y])
    assert total.tolist() == [12.0, 30.0] and total.dtype == np.float32
    assert (same == x).all()


def test_run_over_values_copies_the_graph() -> None:
    graph = sample_graph()
    builder = GraphBuilder("copy")
    inputs = [builder.input(v.type) for v in graph.inputs]
    copied = builder.build(run(graph, inputs))
    assert [o.op for o in copied.operations] == [o.op for o in graph.operations]
    assert [o.attrs for o in copied.operations] == [o.attrs for o in graph.operations]
    assert copied.outputs[1] is copied.inputs[0]
    assert not set(copied.values()) & set(graph.values())


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(InterpretError, match="takes 2 inputs, got 1"):
        evaluate_ref(sample_graph(), [np.zeros((2, 3), np.float32)])


def test_ops_without_operands_need_a_receiver() -> None:
    inner = GraphBuilder("inner")
    x = inner.input(TensorType(float32, ()))
    (one,) = OPS["full"].bind((), {"shape": (), "dtype": float32, "value": 1.0}, receiver=x)
    graph = inner.build([one])
    bare = Graph(graph.name, (), graph.operations, graph.outputs).verify()
    with pytest.raises(InterpretError, match="receiver"):
        run(bare, [])
    outer = GraphBuilder("outer")
    receiver = outer.input(TensorType(float32, ()))
    (again,) = run(bare, [], receiver)
    assert outer.build([again]).operations[0].attrs["value"] == 1.0


def test_a_reference_that_breaks_its_rule_is_caught() -> None:
    """Inputs of another dtype than declared show up at the first op that notices."""
    with pytest.raises(InterpretError, match="ref of add"):
        evaluate_ref(sample_graph(), [np.zeros((2, 3)), np.zeros((2, 3))])
