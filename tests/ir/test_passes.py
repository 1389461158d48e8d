"""Passes: text in, text out. Each rewrites what it should, leaves the rest, and returns its argument if nothing
changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kiln.ir.graph import Graph, Operation
from kiln.ir.interpreter import evaluate_ref
from kiln.ir.ops import OPS
from kiln.ir.parser import parse_graph
from kiln.ir.passes.autodiff import Joint, NoDerivative, differentiate
from kiln.ir.passes.cse import cse
from kiln.ir.passes.dce import dce
from kiln.ir.passes.fold import fold
from kiln.ir.passes.mincut import choose
from kiln.ir.passes.partition import AtHand, Differentiated, Early, another, can_repeat, split
from kiln.ir.passes.spell import spell, spell_own
from kiln.ir.passes.stay import stay
from kiln.ir.passes.turn import turn
from kiln.ir.printer import print_graph


def lines(*body: str, inputs: str = "%0: float32[2, 3]") -> str:
    return "\n".join([f"graph f({inputs}) {{", *(f"  {x}" for x in body), "}"])


def test_what_is_brought_from_elsewhere_is_there() -> None:
    moved = lines(
        '%1 = transfer(%0) {source="cpu", target="cuda"} : float32[2, 3]',
        "%2 = exp(%1) : float32[2, 3]",
        '%3 = transfer(%2) {source="cuda", target="cpu"} : float32[2, 3]',
        "return %3, %1",
    )
    wanted = lines("%1 = exp(%0) : float32[2, 3]", "return %1, %0")
    assert print_graph(stay(parse_graph(moved))).strip() == wanted
    plain = parse_graph(wanted)
    assert stay(plain) is plain


def test_products_read_transposed_are_made_so() -> None:
    """All uses must be the one permutation; an output is read as it is."""
    both = "%0: float32[2, 5, 3], %1: float32[2, 3, 4]"
    text = lines(
        "%2 = matmul(%0, %1) : float32[2, 5, 4]",
        "%3 = permute(%2) {dims=(0, 2, 1)} : float32[2, 4, 5]",
        "%4 = exp(%3) : float32[2, 4, 5]",
        "return %3, %4",
        inputs=both,
    )
    wanted = lines(
        "%2 = permute(%0) {dims=(0, 2, 1)} : float32[2, 3, 5]",
        "%3 = permute(%1) {dims=(0, 2, 1)} : float32[2, 4, 3]",
        "%4 = matmul(%3, %2) : float32[2, 4, 5]",
        "%5 = exp(%4) : float32[2, 4, 5]",
        "return %4, %5",
        inputs=both,
    )
    assert print_graph(turn(parse_graph(text))).strip() == wanted
    for kept in (
        text.replace("return %3", "return %2"),
        text.replace("exp(%3)", "exp(%2)").replace(
            "%4 = exp(%2) : float32[2, 4, 5]", "%4 = exp(%2) : float32[2, 5, 4]"
        ),
        text.replace("(0, 2, 1)} : float32[2, 4, 5]", "(2, 0, 1)} : float32[4, 2, 5]").replace(
            "exp(%3) : float32[2, 4, 5]", "exp(%3) : float32[4, 2, 5]"
        ),
        text.replace("matmul(%0, %1)", 'matmul(%0, %1) {library="nn"}'),
    ):
        graph = parse_graph(kept)
        assert turn(graph) is graph


def test_addmm_is_spelled_out() -> None:
    """But for a library's, where that is wanted."""
    inputs = "%0: bfloat16[2, 5, 3], %1: bfloat16[2, 3, n], %2: bfloat16[2, n]"
    text = lines("%3 = addmm(%0, %1, %2) : bfloat16[2, 5, n]", "return %3", inputs=inputs)
    wanted = lines(
        "%3 = matmul(%0, %1) {dtype=float32} : float32[2, 5, n]",
        "%4 = cast(%2) {dtype=float32} : float32[2, n]",
        "%5 = broadcast(%4) {dims=(0, 2), shape=(2, 5, $n)} : float32[2, 5, n]",
        "%6 = add(%3, %5) : float32[2, 5, n]",
        "%7 = cast(%6) {dtype=bfloat16} : bfloat16[2, 5, n]",
        "return %7",
        inputs=inputs,
    )
    assert print_graph(spell(parse_graph(text))).strip() == wanted == print_graph(spell_own(parse_graph(text))).strip()
    whole = parse_graph(text.replace("addmm(%0, %1, %2)", 'addmm(%0, %1, %2) {library="nn"}'))
    assert spell_own(whole) is whole
    assert print_graph(spell(whole)).strip() == wanted


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


def joint_of(graph: Graph, given: bool = True, running: bool = False) -> Joint:
    return differentiate(graph, [graph.outputs[0]], [given], [0], [running], frozenset(graph.operations))


def parted(graph: Graph, at_hand: AtHand | None = None, *, running: bool = False) -> Differentiated:
    """Differentiated by the first input and cut in two; all that eager's tape may save is at hand."""
    inputs = frozenset(range(len(graph.inputs)))
    at_hand = AtHand(inputs, inputs) if at_hand is None else at_hand
    numbering: dict[object, int] = {}
    early = Early(joint_of(graph, running=running), numbering)
    return split(early, numbering, choose(early, at_hand), at_hand)


def test_gradients_fold_uses_in_reverse_program_order() -> None:
    graph = parse_graph(
        lines(
            "%1 = exp(%0) : float32[2, 3]",
            "%2 = tanh(%0) : float32[2, 3]",
            "%3 = mul(%1, %2) : float32[2, 3]",
            "return %3",
        )
    )
    found = parted(graph)
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


def test_running_gradients_continue_the_fold() -> None:
    graph = parse_graph(lines("%1 = neg(%0) : float32[2, 3]", "return %1"))
    found = parted(graph, running=True)
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


# ---------------------------------------------------------------------------------------- partition


CHAIN = lines(
    "%2 = matmul(%0, %1) : float32[3, 3]",
    "%3 = relu(%2) : float32[3, 3]",
    "%4 = exp(%3) : float32[3, 3]",
    "%5 = permute(%4) {dims=(1, 0)} : float32[3, 3]",
    "%6 = mul(%5, %2) : float32[3, 3]",
    "return %6",
    inputs="%0: float32[3, 3], %1: float32[3, 3]",
)


def in_numpy(found: Differentiated, arrays: list[Any], extra: list[Any]) -> list[Any]:
    """Backward's outputs by the ops' references, from what forward stored."""
    outputs = evaluate_ref(found.forward, arrays)
    return evaluate_ref(found.backward, [*((arrays if own else outputs)[k] for own, k in found.operands), *extra])


@pytest.mark.parametrize("at_hand", [AtHand(), AtHand(frozenset({0, 1})), AtHand(frozenset({0, 1}), frozenset({0, 1}))])
@pytest.mark.parametrize("running", [False, True])
def test_a_cut_changes_no_bit(at_hand: AtHand, running: bool) -> None:
    graph = parse_graph(CHAIN)
    arrays = [np.random.default_rng(k).standard_normal((3, 3)).astype(np.float32) for k in range(4)]
    extra = arrays[2 : 3 + running]
    whole = evaluate_ref(joint_of(graph, running=running).graph, [*arrays[:2], *extra])
    usual = parted(graph, at_hand)
    found = another(joint_of(graph, running=running), usual)
    assert [x.tobytes() for x in in_numpy(found, arrays[:2], extra)] == [x.tobytes() for x in whole]
    assert "matmul" not in " ".join(found.repeated)


def test_what_is_not_at_hand_is_stored() -> None:
    graph = parse_graph(lines("%1 = neg(%0) : float32[2, 3]", "%2 = gelu(%1) : float32[2, 3]", "return %2"))
    assert parted(graph).stored_bytes == 0
    assert parted(graph, AtHand()).stored_bytes == 24
    assert parted(graph, AtHand(frozenset({0}))).stored_bytes == 24  # eager's tape has not saved it for neg


def test_a_view_is_stored_as_what_it_views() -> None:
    graph = parse_graph(
        lines(
            "%1 = sum(%0) {dims=(1,)} : float32[2]",
            "%2 = reshape(%1) {shape=(2, 1)} : float32[2, 1]",
            "%3 = broadcast(%2) {dims=(0, 1), shape=(2, 3)} : float32[2, 3]",
            "%4 = exp(%3) : float32[2, 3]",
            "return %4",
        )
    )
    found = parted(graph, AtHand())
    assert found.stored_bytes == 8
    assert found.plain_bytes == 24
    assert found.repeated == ("1 exp",)


@pytest.mark.parametrize("name", ["sum", "matmul", "uniform", "floor_divide_int", "max_pool2d", "sort"])
def test_what_is_expensive_random_or_can_fail_is_done_once(name: str) -> None:
    op = OPS.get(name)
    if op is not None:
        assert not can_repeat(Operation(op, (), {}, (), None))


@pytest.mark.parametrize(("length", "stored"), [(1, 0), (2, 24), (3, 24)])
def test_the_price_of_repeating_grows_with_a_chain(length: int, stored: int) -> None:
    chain = [f"%{k + 2} = exp(%{k + 1}) : float32[2, 3]" for k in range(length)]
    body = [*chain, f"%{length + 2} = mul(%0, %{length + 1}) : float32[2, 3]", f"return %{length + 2}"]
    inputs = "%0: float32[2, 3], %1: float32[2, 3]"
    assert parted(parse_graph(lines(*body, inputs=inputs))).stored_bytes == stored


def test_masks_are_computed_ahead() -> None:
    found = parted(
        parse_graph(lines("%1 = neg(%0) : float32[2, 3]", "%2 = relu(%1) : float32[2, 3]", "return %2")), AtHand()
    )
    assert str(found) == (
        "stored for backward: 6 bytes (bool[2, 3])\nwithout recomputation: 24 bytes\n"
        "computed again in backward: nothing"
    )
