"""Graphs print, parse back equal, and the parser says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from kiln.ir.graph import Alias, Constant, GraphBuilder, SourceLoc, VerifyError
from kiln.ir.ops import OPS
from kiln.ir.parser import ParseError, parse_graph
from kiln.ir.printer import attribute, print_graph
from kiln.ir.types import Sym, TensorType, bool_, float32, int64


def example() -> str:
    b = GraphBuilder("main")
    x = b.input(TensorType(float32, (2, 3)), "x")
    state = b.input(TensorType(int64, (2,)))
    (full,) = b.add(OPS["full"], [], {"shape": (2, 3), "dtype": float32, "value": -0.0}, SourceLoc("train.py", 12))
    (y,) = b.add(OPS["add"], [x, full], {})
    (s,) = b.add(OPS["sum"], [y], {"dims": (1,)})
    (pair,) = b.add(OPS["constant"], [], {"data": Constant(np.array([0, 7]))})
    (after,) = b.add(OPS["add"], [state, pair], {})
    return str(b.build([s, after], [Alias(1, 1)]))


def test_a_graph_prints_as_documented() -> None:
    text = example()
    assert text.startswith("graph main(%0 x: float32[2, 3], %1: int64[2]) {")
    assert "value=-0.0" in text
    assert "# train.py:12" in text
    assert text.endswith("return %4, %6 alias 1->1\n}")


def test_text_parses_back_equal() -> None:
    text = example()
    bare = print_graph(parse_graph(text), locations=False)
    assert print_graph(parse_graph(bare), locations=False) == bare
    assert bare == text.replace("  # train.py:12", "")


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1 / 3, 1e300, float("inf"), float("-inf"), 5e-324, -7.25])
def test_floats_are_exact(value: float) -> None:
    graph = parse_graph(
        f"graph f() {{ %0 = full() {{dtype=float64, shape=(), value={attribute(value)}}} : float64[] return %0 }}"
    )
    found = graph.operations[0].attrs["value"]
    assert isinstance(found, float)
    assert found.hex() == value.hex()


def test_nan_and_nested_graphs_and_symbols() -> None:
    text = (
        "graph f(%0: float32[n, 3]) {\n"
        "  %1 = fusion(%0) {body=graph inner(%0: float32[n, 3]) {\n"
        "    %1 = full() {dtype=float32, shape=($n, 3), value=nan} : float32[n, 3]\n"
        "    %2 = add(%0, %1) : float32[n, 3]\n"
        "    return %2\n"
        "  }} : float32[n, 3]\n"
        "  return %1\n"
        "}"
    )
    graph = parse_graph(text)
    assert graph.inputs[0].type.shape == (Sym("n"), 3)
    assert print_graph(graph) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("graph f(%0: float32[2]) { return %1 }", "%1 is not defined"),
        ("graph f(%0: float7[2]) { return %0 }", "no dtype"),
        ("graph f(%0: float32[2]) { %1 = nope(%0) : float32[2] return %1 }", "no op"),
        ("graph f(%0: float32[2]) { %1 = neg(%0) : float32[3] return %1 }", "gives"),
        ("graph f(%0: float32[2]) { return %0", "expected"),
        ("graph f(%0: float32[2]) { return %0 } more", "expected"),
        ("graph ? {}", "unexpected"),
    ],
)
def test_the_parser_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_graph(text)


def test_the_verifier_rejects_bad_aliases_and_foreign_values() -> None:
    b = GraphBuilder()
    x, y = b.input(TensorType(float32, (2,))), b.input(TensorType(bool_, (2,)))
    with pytest.raises(VerifyError, match="different types"):
        b.build([x], [Alias(0, 1)])
    with pytest.raises(VerifyError, match="another graph"):
        GraphBuilder().add(OPS["neg"], [y], {})
