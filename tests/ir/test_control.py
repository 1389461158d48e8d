"""Control flow as operations: type rules, text, interpretation, and the passes that see through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln.ir import interpreter
from kiln.ir.graph import Graph, GraphBuilder, VerifyError
from kiln.ir.interpreter import evaluate_ref
from kiln.ir.ops import OPS
from kiln.ir.ops.base import OpTypeError
from kiln.ir.parser import ParseError, parse_graph
from kiln.ir.passes.cse import cse
from kiln.ir.passes.dce import can_fail, dce
from kiln.ir.passes.fold import fold
from kiln.ir.passes.inside import everywhere, prune
from kiln.ir.passes.merge import merge
from kiln.ir.types import TensorType, bool_, float32, int64

Array = np.ndarray[Any, Any]
FLOAT, COUNT, TRUTH = TensorType(float32, ()), TensorType(int64, ()), TensorType(bool_, ())

PROGRAM = """\
graph main(%0 x: float32[3], %1 rows: float32[4, 3], %2 n: int64[]) {
  %3 = full() {dtype=int64, shape=(), value=0} : int64[]
  %4, %5, %6 = while_loop(%3, %0, %0, %2) {body=graph body(%0: int64[], %1: float32[3], %2: float32[3], %3: int64[]) {
    %4 = full() {dtype=int64, shape=(), value=1} : int64[]
    %5 = add(%0, %4) : int64[]
    %6 = sin(%1) : float32[3]
    %7 = add(%6, %2) : float32[3]
    return %5, %7, %2
  }, test=graph test(%0: int64[], %1: float32[3], %2: float32[3], %3: int64[]) {
    %4 = lt(%0, %3) : bool[]
    return %4
  }} : int64[], float32[3], float32[3]
  %7 = lt(%4, %2) : bool[]
  %8, %9 = cond(%7, %5, %6) {else=graph no(%0: float32[3], %1: float32[3]) {
    %2 = add(%0, %1) : float32[3]
    return %2, %0
  }, then=graph yes(%0: float32[3], %1: float32[3]) {
    %2 = neg(%0) : float32[3]
    return %2, %1
  }} : float32[3], float32[3]
  %10, %11, %12 = scan(%8, %9, %1) {body=graph turn(%0: float32[3], %1: float32[3], %2: float32[3]) {
    %3 = add(%0, %2) : float32[3]
    %4 = mul(%1, %2) : float32[3]
    return %3, %4, %3
  }, carried=2, length=4, reverse=true, xs=1} : float32[3], float32[3], float32[4, 3]
  return %10, %12
}"""


def operands(n: int = 3) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=3).astype("f"), rng.normal(size=(4, 3)).astype("f"), np.array(n)]


def test_it_prints_and_parses() -> None:
    graph = parse_graph(PROGRAM)
    assert str(graph) == PROGRAM


def test_the_references_follow_it() -> None:
    x, rows, n = operands()
    y = x
    for _ in range(3):
        y = np.sin(y) + x
    y = y + x
    stacked = np.zeros_like(rows)
    for k in reversed(range(4)):
        y = y + rows[k]
        stacked[k] = y
    got = evaluate_ref(parse_graph(PROGRAM), [x, rows, n])
    assert np.allclose(got[0], y) and np.allclose(got[1], stacked)


def test_it_runs_on_tensors() -> None:
    graph, arrays = parse_graph(PROGRAM), operands()
    got = interpreter.run(graph, [kiln.from_numpy(x) for x in arrays])
    for a, b in zip(got, evaluate_ref(graph, arrays), strict=True):
        assert np.allclose(a.numpy(), b, rtol=1e-6)


@pytest.mark.parametrize("rewrite", [everywhere(fold), everywhere(cse), everywhere(dce), prune, merge])
@pytest.mark.parametrize("n", [0, 2])
def test_passes_change_nothing_that_is_computed(rewrite: Any, n: int) -> None:
    graph = parse_graph(PROGRAM)
    changed = rewrite(graph).verify()
    for a, b in zip(evaluate_ref(changed, operands(n)), evaluate_ref(graph, operands(n)), strict=True):
        assert (a == b).all()


def test_prune_drops_what_nothing_needs() -> None:
    """The second carried value of the scan, with the second result of the branch; the loop's constant carried one is
    no longer carried."""
    graph = dce(prune(parse_graph(PROGRAM)))
    loop, branch, scan = (op for op in graph.operations if op.op.name in ("while_loop", "cond", "scan"))
    assert (len(loop.results), len(loop.operands)) == (2, 4)
    assert (len(branch.results), len(branch.operands)) == (1, 3)
    assert (len(scan.results), len(scan.operands)) == (2, 2)
    assert prune(graph) is graph


def test_prune_keeps_what_can_fail() -> None:
    text = """graph main(%0: bool[], %1: float32[3], %2: int64[]) {
      %3 = cond(%0, %1, %2) {then=graph a(%0: float32[3], %1: int64[]) {
        %2 = gather(%0, %1) {at=(), place=(-1,), wrap=false} : float32[]
        return %2
      }, else=graph b(%0: float32[3], %1: int64[]) {
        %2 = sum(%0) {dims=(0,)} : float32[]
        return %2
      }} : float32[]
      return %1
    }"""
    graph = parse_graph(text)
    assert can_fail(graph.operations[0])
    assert len(dce(prune(graph)).operations) == 1
    safe = parse_graph(text.replace("gather(%0, %1) {at=(), place=(-1,), wrap=false}", "sum(%0) {dims=(0,)}"))
    assert not dce(prune(safe)).operations


def test_passes_reach_nested_graphs() -> None:
    text = """graph main(%0: bool[], %1: float32[3]) {
      %2 = cond(%0, %1) {then=graph a(%0: float32[3]) {
        %1 = neg(%0) : float32[3]
        %2 = neg(%1) : float32[3]
        %3 = detach(%2) : float32[3]
        %4 = sin(%3) : float32[3]
        %5 = sin(%3) : float32[3]
        %6 = add(%4, %5) : float32[3]
        return %6
      }, else=graph b(%0: float32[3]) {
        return %0
      }} : float32[3]
      return %2
    }"""
    graph = parse_graph(text)
    for rewrite in (everywhere(fold), everywhere(cse), prune, dce):
        graph = rewrite(graph)
    then = graph.operations[0].attrs["then"]
    assert isinstance(then, Graph) and [op.op.name for op in then.operations] == ["sin", "add"]


def counting(more: bool) -> Graph:
    """A loop, and the same loop with a counter besides if `more`."""
    builder = GraphBuilder("main")
    x, n = builder.input(FLOAT), builder.input(FLOAT)

    def loop(count: bool) -> Any:
        test, body = GraphBuilder("test"), GraphBuilder("body")
        types = [FLOAT, *([COUNT] if count else []), FLOAT]
        a, b = [test.input(t) for t in types], [body.input(t) for t in types]
        (one,) = body.add(OPS["add"], [b[0], b[-1]], {})
        outputs = [one]
        if count:
            (step,) = body.add(OPS["full"], [], {"dtype": int64, "shape": (), "value": 1})
            outputs += body.add(OPS["add"], [b[1], step], {})
        graphs = {"test": test.build(test.add(OPS["lt"], [a[0], a[-1]], {})), "body": body.build(outputs)}
        zero = builder.add(OPS["full"], [], {"dtype": int64, "shape": (), "value": 0}) if count else ()
        return builder.add(OPS["while_loop"], [x, *zero, n], graphs)

    first = loop(False)
    second = loop(more)
    return builder.build([first[0], second[-1]])


def test_merge_makes_one_of_two() -> None:
    graph = counting(True)
    merged = merge(graph)
    assert [op.op.name for op in merged.operations].count("while_loop") == 1
    arrays = [np.float32(1), np.float32(20)]
    for a, b in zip(evaluate_ref(merged, arrays), evaluate_ref(graph, arrays), strict=True):
        assert a == b


# ------------------------------------------------------------------------------------------- errors


def graph_of(*types: TensorType, outputs: Any = (0,), name: str = "g") -> Graph:
    builder = GraphBuilder(name)
    values = [builder.input(t) for t in types]
    return builder.build([values[k] for k in outputs])


def refused(name: str, types: list[TensorType], attrs: dict[str, Any], kind: str, match: str) -> None:
    with pytest.raises(OpTypeError, match=match) as caught:
        OPS[name].infer_types(types, attrs)
    assert caught.value.kind == kind


def test_type_rules_of_branches() -> None:
    one, two = graph_of(FLOAT), graph_of(COUNT)
    refused("cond", [FLOAT, FLOAT], {"then": one, "else": one}, "dtype", r"a predicate of type bool\[\], not")
    refused("cond", [TRUTH], {"then": one, "else": one}, "value", "then takes 1 operands and is given 0")
    refused("cond", [TRUTH, FLOAT], {"then": one, "else": two}, "dtype", "operand 0 of else is a int64")
    wide = graph_of(FLOAT, outputs=(0, 0))
    refused("cond", [TRUTH, FLOAT], {"then": one, "else": wide}, "value", r"else gives .* which should be \(float32")
    none = graph_of(FLOAT, outputs=())
    refused("cond", [TRUTH, FLOAT], {"then": none, "else": none}, "value", "give no results")


def test_type_rules_of_loops() -> None:
    body, test = graph_of(FLOAT, TRUTH), graph_of(FLOAT, TRUTH, outputs=(1,))
    assert OPS["while_loop"].infer_types([FLOAT, TRUTH], {"test": test, "body": body}) == (FLOAT,)
    refused("while_loop", [FLOAT, TRUTH], {"test": body, "body": body}, "dtype", "test gives")
    swapped = graph_of(FLOAT, TRUTH, outputs=(1,))
    refused("while_loop", [FLOAT, TRUTH], {"test": test, "body": swapped}, "dtype", "body gives")
    refused("while_loop", [FLOAT], {"test": test, "body": body}, "value", "takes 2 operands and is given 1")


def test_type_rules_of_scans() -> None:
    rows, row = TensorType(float32, (4, 2)), TensorType(float32, (2,))
    attrs = {"body": graph_of(row, row, outputs=(1, 0)), "carried": 1, "xs": 1, "length": 4, "reverse": False}
    assert OPS["scan"].infer_types([row, rows], attrs) == (row, rows)
    refused("scan", [row, rows], attrs | {"length": 5}, "shape", "can't be walked along 5 slices")
    refused("scan", [row, FLOAT], attrs, "shape", "can't be walked")
    refused("scan", [row], attrs, "value", "do not fit 1 . 1")
    refused("scan", [row, rows], attrs | {"length": -1}, "value", "a length of -1")
    drift = graph_of(row, row, TensorType(float32, (3,)), outputs=(2,))
    refused("scan", [row, rows, TensorType(float32, (3,))], attrs | {"body": drift}, "shape", "body carries")


def test_nested_graphs_are_verified() -> None:
    inner = graph_of(FLOAT)
    broken = Graph("g", inner.inputs, (), (graph_of(FLOAT).inputs[0],))
    builder = GraphBuilder("main")
    p, x = builder.input(TRUTH), builder.input(FLOAT)
    made = builder.add(OPS["cond"], [p, x], {"then": inner, "else": broken})
    with pytest.raises(VerifyError, match="is not defined"):
        builder.build(made)


def test_text_that_is_no_control_flow() -> None:
    with pytest.raises(ParseError, match="%1 is not defined"):
        parse_graph(
            "graph m(%0: bool[], %1: float32[]) { %2 = cond(%0) {then=graph a() { return %1 }, "
            "else=graph b() { return %1 }} : float32[] return %2 }"
        )
