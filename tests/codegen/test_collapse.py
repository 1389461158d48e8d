"""Merged dimensions: what merges, what must not, and that nothing but the shape of the loops changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kiln.codegen.collapse import collapse
from kiln.codegen.lower import _domain
from kiln.ir import types as T
from kiln.ir.graph import Graph, GraphBuilder
from kiln.ir.interpreter import evaluate_ref
from kiln.ir.ops import OPS
from kiln.ir.types import Sym, TensorType

Array = np.ndarray[Any, Any]


def graph(inputs: list[tuple[Any, ...]], make: Any) -> Graph:
    builder = GraphBuilder("body")
    values = [builder.input(TensorType(T.float32, shape)) for shape in inputs]

    def op(name: str, *operands: Any, **attrs: Any) -> Any:
        return builder.add(OPS[name], operands, attrs)[0]

    made = make(op, *values)
    return builder.build(list(made) if isinstance(made, tuple) else [made])


def shapes(body: Graph) -> list[tuple[Any, ...]]:
    return [v.type.shape for v in (*body.inputs, *body.outputs)]


def merged(body: Graph, strides: list[Any]) -> tuple[Graph, list[Any]]:
    return collapse(body, _domain(body), strides)


def test_a_repeated_bias_merges_what_it_repeats_along() -> None:
    body = graph([(4, 3, 2, 5)] * 2, lambda op, x, b: op("relu", op("add", x, b)))
    new, strides = merged(body, [None, (0, 1, 0, 0)])
    assert shapes(new) == [(4, 3, 10)] * 3
    assert strides == [None, (0, 1, 0)]


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ((30, 10, 5, 1), (120,)),
        ((40, 10, 5, 1), (4, 30)),
        ((1, 4, 12, 24), (4, 3, 2, 5)),
        ((60, 20, 10, 2), (120,)),
        ((0, 0, 0, 0), (120,)),
    ],
)
def test_memory_decides(steps: tuple[int, ...], shape: tuple[int, ...]) -> None:
    body = graph([(4, 3, 2, 5)], lambda op, x: op("relu", x))
    new, strides = merged(body, [steps])
    assert new.outputs[0].type.shape == shape
    assert strides[0] is not None and strides[0][-1] == steps[-1]


def test_dimensions_of_one_join_either_side() -> None:
    body = graph([(6, 1, 4)], lambda op, x: op("relu", x))
    new, strides = merged(body, [(1, 77, 6)])
    assert shapes(new) == [(6, 4)] * 2 and strides == [(1, 6)]
    ones, strides = merged(graph([(1, 1)], lambda op, x: op("relu", x)), [(5, 9)])
    assert shapes(ones) == [(1,)] * 2 and strides == [(9,)]


def test_orders_of_reductions_stay() -> None:
    """A run along the last dimension keeps its length; reduced dimensions before it join each other."""
    for dims, wanted, kept in [
        ((2, 3), (12, 2, 5), (12,)),
        ((0, 1), (12, 10), (10,)),
        ((0, 1, 3), (12, 2, 5), (2,)),
        ((3,), (24, 5), (24,)),
    ]:
        body = graph([(4, 3, 2, 5)], lambda op, x, dims=dims: op("sum", op("relu", x), dims=dims))
        new, _ = merged(body, [None])
        assert shapes(new) == [wanted, kept]
        x = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype(np.float32)
        old, got = (evaluate_ref(g, [v])[0] for g, v in ((body, x), (new, x.reshape(wanted))))
        assert got.tobytes() == old.tobytes()


def test_kept_values_spread_again() -> None:
    def centred(op: Any, x: Any) -> Any:
        total = op("sum", x, dims=(2,))
        return op("sub", x, op("broadcast", total, shape=(4, 3, 5), dims=(0, 1))), total

    body = graph([(4, 3, 5)], centred)
    new, _ = merged(body, [None])
    assert shapes(new) == [(12, 5), (12, 5), (12,)]
    x = np.random.default_rng(1).normal(size=(4, 3, 5)).astype(np.float32)
    for old, got in zip(evaluate_ref(body, [x]), evaluate_ref(new, [x.reshape(12, 5)]), strict=True):
        assert old.tobytes() == got.tobytes()


def test_what_does_more_than_walk_is_left_alone() -> None:
    for body, strides in [
        (graph([(4, 5)], lambda op, x: op("permute", op("relu", x), dims=(1, 0))), [None]),
        (graph([(4, 5)], lambda op, x: op("slice", x, starts=(0, 0), stops=(2, 5), steps=(1, 1))), [None]),
        (graph([(5, Sym("n"))], lambda op, x: op("relu", x)), [None]),
        (graph([(4, 5)], lambda op, x: op("relu", x)), [(Sym("s"), 1)]),
    ]:
        assert merged(body, strides)[0] is body


def test_a_symbolic_dimension_takes_known_ones_in() -> None:
    body, strides = merged(graph([(Sym("n"), 4, 5)], lambda op, x: op("relu", x)), [None])
    assert body.inputs[0].type.shape == (Sym("20*n"),)
    assert strides == [None]
