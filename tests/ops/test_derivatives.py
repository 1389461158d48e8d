"""Derivative rules: against finite differences in float64, against each other, and to second order.

All on the references (`ir/interpreter.py`), so these tests hold whatever the compiler does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kiln.ir.graph import Graph, rebuild
from kiln.ir.interpreter import evaluate_ref
from kiln.ir.ops import OPS
from kiln.ir.ops.base import OpDef
from kiln.ir.types import TensorType
from tests import tolerances as tol
from tests.ops.derive import call_of, difference, gradient, graph_of, tangent
from tests.ops.samples import Sample, generator, smooth_samples
from tests.ops.sampling import APART, direction, product

Array = np.ndarray[Any, Any]
CALLS = [
    pytest.param(op, s, id=f"{name}-{s.label}")
    for name, op in OPS.items()
    if op.vjp and name not in APART
    for s in smooth_samples(name)
]


def like(arrays: Sequence[Array], *seed: object) -> list[Array]:
    """Random directions for the floating-point arrays."""
    rng = generator("direction", *seed)
    return [direction(rng, x) for x in arrays if x.dtype.kind in "fc"]


def near(got: Array, wanted: Array, tolerance: float) -> bool:
    return bool((np.abs(got - wanted) <= tolerance * (1 + np.abs(wanted))).all())


def inner(xs: Sequence[Array], ys: Sequence[Array]) -> float:
    return sum(product(x, y) for x, y in zip(xs, ys, strict=True))


def test_every_derivative_is_tested() -> None:
    for name, op in OPS.items():
        if name not in APART:
            assert bool(op.vjp) == bool(smooth_samples(name)), name


def setup(op: OpDef, sample: Sample) -> tuple[Graph, list[Array], list[Array], list[Array]]:
    """The op's graph, its arrays, a direction of the inputs, gradients of the outputs."""
    graph = graph_of(op, sample)
    arrays = [np.array(x) for x in sample.operands]
    outputs = evaluate_ref(graph, arrays)
    return graph, arrays, like(arrays, op.name, sample.label), like(outputs, "grad", op.name, sample.label)


@pytest.mark.parametrize(("op", "sample"), CALLS)
def test_first_order(op: OpDef, sample: Sample) -> None:
    """The tangent against differences, and the gradient, which is the tangent transposed."""
    graph, arrays, along, grads = setup(op, sample)
    numeric = difference(graph, arrays, along, tol.DIFFERENCE_STEP)
    forward = evaluate_ref(tangent(graph), [*arrays, *along])
    backward = inner(evaluate_ref(gradient(graph), [*arrays, *grads]), along)
    for got, wanted in zip(forward, numeric, strict=True):
        assert near(got, wanted, tol.DIFFERENCE)
    assert near(np.asarray(backward), np.asarray(inner(grads, numeric)), tol.DIFFERENCE)
    assert near(np.asarray(backward), np.asarray(inner(grads, forward)), tol.TRANSPOSE)


@pytest.mark.parametrize(("op", "sample"), CALLS)
def test_second_order(op: OpDef, sample: Sample) -> None:
    """The gradient of the gradient, and the tangent of the gradient, against differences of the gradient."""
    graph, arrays, _, grads = setup(op, sample)
    first = gradient(graph)
    inputs = [*arrays, *grads]
    along = like(inputs, "second", op.name, sample.label)
    weights = like(evaluate_ref(first, inputs), "weights", op.name, sample.label)
    numeric = inner(weights, difference(first, inputs, along, tol.DIFFERENCE_STEP))
    reverse = inner(evaluate_ref(gradient(first), [*inputs, *weights]), along)
    forward = inner(weights, evaluate_ref(tangent(first), [*inputs, *along]))
    assert near(np.asarray(reverse), np.asarray(numeric), tol.SECOND_DIFFERENCE)
    assert near(np.asarray(forward), np.asarray(reverse), tol.TRANSPOSE)


def run_gradient(name: str, *operands: Any, attrs: dict[str, Any] | None = None) -> list[list[float]]:
    """Gradients of the sum of an op's result."""
    arrays = [np.asarray(x) for x in operands]
    graph = graph_of(OPS[name], Sample("", tuple(arrays), attrs or {}))
    (out,) = evaluate_ref(graph, arrays)
    return [g.tolist() for g in evaluate_ref(gradient(graph), [*arrays, np.ones_like(out)])]


def test_gradients_at_ties_and_kinks_follow_torch() -> None:
    nan = float("nan")
    assert run_gradient("maximum", [1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == [[0.5, 0, 1], [0.5, 1, 0]]
    assert run_gradient("minimum", [1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == [[0.5, 1, 0], [0.5, 0, 1]]
    assert run_gradient("maximum", [nan, 1.0], [1.0, nan]) == [[1, 1], [1, 1]]
    assert run_gradient("abs", [0.0, -0.0, -2.0]) == [[0, 0, -1]]
    assert run_gradient("relu", [0.0, -0.0, 1.0, -1.0, nan]) == [[0, 0, 1, 0, 1]]
    assert run_gradient("amax", [[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]], attrs={"dims": (1,)}) == [
        [[0, 0.5, 0.5], [1, 0, 0]]
    ]
    assert run_gradient("pow", [0.0, 0.0, 2.0], [0.0, 2.0, 0.0]) == [[0, 0, 0], [0, 0, np.log(2.0)]]


def test_only_what_is_needed_is_computed() -> None:
    """A rule asked for no operand's gradient computes nothing (constants may be made ahead: they cost nothing)."""

    class Untouchable:
        def __init__(self, ttype: TensorType) -> None:
            self.ttype = ttype

        def __kiln_bind__(self, op: Any, operands: Any, attrs: Any) -> Any:
            assert op.arity == 0, f"{op.name} computed for nobody"
            return (self,)

    for name in ("add", "mul", "div", "pow", "maximum", "matmul", "where", "cat", "slice_scatter"):
        sample, op = smooth_samples(name)[0], OPS[name]
        operation = graph_of(op, sample).operations[0]
        known = {v: Untouchable(v.type) for v in (*operation.operands, *operation.results)}
        call = call_of(operation, known, (False,) * len(operation.operands))
        assert op.vjp is not None
        assert all(g is None for g in op.vjp(call, Untouchable(operation.result.type))), name


@pytest.mark.parametrize("op", [pytest.param(op, id=name) for name, op in OPS.items() if op.saved_for])
def test_one_gradient_alone_reads_only_what_it_says(op: OpDef) -> None:
    """The rule, given types for what the op does not save when one operand alone wants a gradient, and never less."""
    sample = smooth_samples(op.name)[0]
    for wanted in range(op.arity or 0):
        needs = tuple(k == wanted for k in range(op.arity or 0))
        graph = graph_of(op, sample)
        builder, known = rebuild(graph)
        (operation,) = graph.operations
        known.update(
            zip(operation.results, builder.clone(operation, [known[v] for v in operation.operands]), strict=True)
        )
        given = [builder.input(v.type) for v in operation.results]
        assert op.vjp is not None
        grads = op.vjp(call_of(operation, known, needs), *given)
        made = builder.build([g for g, need in zip(grads, needs, strict=True) if need and g is not None])
        read = {v for each in made.operations[1:] for v in each.operands}
        reads, kept = op.saved(needs)
        assert {k for k, v in enumerate(made.inputs[: len(needs)]) if v in read} <= set(reads)
        assert set(reads) <= set(op.saved_operands)
        assert set(kept) <= set(op.saved_results)
