"""Passes: text in, text out. Each rewrites what it should, leaves the rest, and returns its argument if nothing
changed."""

from __future__ import annotations

import pytest

from kiln.ir.ops import OPS
from kiln.ir.parser import parse_graph
from kiln.ir.passes.autodiff import NoDerivative, differentiate
from kiln.ir.passes.cse import cse
from kiln.ir.passes.dce import dce
from kiln.ir.passes.fold import fold
from kiln.ir.printer import print_graph


def lines(*body: str, inputs: str = "%0: float32[2, 3]") -> str:
    return "\n".join([f"graph f({inputs}) {{", *(f"  {x}" for x in body), "}"])


def test_dce_drops_what_nothing_needs_and_keeps_what_can_fail() -> None:
    text = lines(
        "%2 = neg(%0) : float32[2, 3]",
        "%3 = pick(%0, %1) : float32[2]",
        "%4 = exp(%0) : float32[2, 3]",
        "return %4",
        inputs="%0: float32[2, 3], %1: int64[2]",
    )
    out = print_graph(dce(parse_graph(text)))
    assert "neg" not in out
    assert "pick" in out
    clean = parse_graph(lines("%1 = exp(%0) : float32[2, 3]", "return %1"))
    assert dce(clean) is clean


def test_cse_merges_equal_operations_only() -> None:
    graph = parse_graph(
        lines(
            "%1 = exp(%0) : float32[2, 3]",
            "%2 = exp(%0) : float32[2, 3]",
            "%3 = add(%1, %2) : float32[2, 3]",
            "return %3",
        )
    )
    assert print_graph(cse(graph)) == lines(
        "%1 = exp(%0) : float32[2, 3]", "%2 = add(%1, %1) : float32[2, 3]", "return %2"
    )


def test_cse_tells_zeros_apart() -> None:
    graph = parse_graph(
        lines(
            "%0 = full() {dtype=float32, shape=(), value=0.0} : float32[]",
            "%1 = full() {dtype=float32, shape=(), value=-0.0} : float32[]",
            "return %0, %1",
            inputs="",
        )
    )
    assert cse(graph) is graph


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (["%1 = neg(%0) : float32[2, 3]", "%2 = neg(%1) : float32[2, 3]", "return %2"], "return %0"),
        (["%1 = cast(%0) {dtype=float32} : float32[2, 3]", "return %1"], "return %0"),
        (["%1 = reshape(%0) {shape=(2, 3)} : float32[2, 3]", "return %1"], "return %0"),
        (
            [
                "%1 = permute(%0) {dims=(1, 0)} : float32[3, 2]",
                "%2 = permute(%1) {dims=(1, 0)} : float32[2, 3]",
                "return %2",
            ],
            "{dims=(0, 1)}",
        ),
        (
            [
                "%1 = full() {dtype=float32, shape=(), value=2.0} : float32[]",
                "%2 = mul(%1, %1) : float32[]",
                "return %2",
            ],
            "value=4.0",
        ),
    ],
)
def test_fold(body: list[str], result: str) -> None:
    assert result in print_graph(fold(parse_graph(lines(*body))))


def test_fold_leaves_inexact_identities() -> None:
    graph = parse_graph(
        lines(
            "%1 = full() {dtype=float32, shape=(2, 3), value=0.0} : float32[2, 3]",
            "%2 = add(%0, %1) : float32[2, 3]",
            "return %2",
        )
    )
    assert fold(graph) is graph


def test_gradients_fold_uses_in_reverse_program_order() -> None:
    graph = parse_graph(
        lines(
            "%1 = exp(%0) : float32[2, 3]",
            "%2 = tanh(%0) : float32[2, 3]",
            "%3 = mul(%1, %2) : float32[2, 3]",
            "return %3",
        )
    )
    found = differentiate(graph, [graph.outputs[0]], [True], [0], [False], frozenset(graph.operations))
    last = found.backward.operations[-1]
    # tanh comes after exp in the program, so its contribution stands on the left of the sum.
    assert last.op.name == "add"
    left = last.operands[0].producer
    assert left is not None
    names, todo = set(), [left]
    while todo:
        op = todo.pop()
        names.add(op.op.name)
        todo += [v.producer for v in op.operands if v.producer is not None]
    assert "sub" in names or "full" in names  # 1 - tanh^2
    assert len(found.forward.outputs) == 1 + sum(not is_input for is_input, _ in found.saved)


def test_running_gradients_continue_the_fold() -> None:
    graph = parse_graph(lines("%1 = neg(%0) : float32[2, 3]", "return %1"))
    found = differentiate(graph, [graph.outputs[0]], [True], [0], [True], frozenset(graph.operations))
    last = found.backward.operations[-1]
    assert last.op.name == "add"
    assert last.operands[0] is found.backward.inputs[-1]


def test_a_missing_rule_is_named() -> None:
    graph = parse_graph(lines("%1 = floor(%0) : float32[2, 3]", "return %1"))
    rule = OPS["floor"].vjp
    object.__setattr__(OPS["floor"], "vjp", None)
    try:
        with pytest.raises(NoDerivative, match="floor"):
            differentiate(graph, [graph.outputs[0]], [True], [0], [False], frozenset(graph.operations))
    finally:
        object.__setattr__(OPS["floor"], "vjp", rule)
