"""What the host does between launches: branches, loops, libraries, and when it looks for failed checks. The bits are
those of the CPU's programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kiln.codegen.cuda import pipeline
from kiln.codegen.cuda.pipeline import compile_cuda
from kiln.ir.gpu_program import Branch, CudaProgram, HostCall, Look, Loop, every
from kiln.ir.parser import parse_graph
from tests.codegen.cuda_host import Host
from tests.codegen.graphs import execute, same_bits
from tests.codegen.test_control import COUNT, LIBRARY, compiled
from tests.gpu import shim
from tests.ir.test_control import PROGRAM, operands

Array = np.ndarray[Any, Any]
pytestmark = pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))

CHECKED = """graph main(%0: bool[], %1: float32[3], %2: int64[]) {
  %3 = cond(%0, %1, %2) {then=graph a(%0: float32[3], %1: int64[]) {
    %2 = gather(%0, %1) {at=(), place=(-1,), wrap=false} : float32[]
    return %2
  }, else=graph b(%0: float32[3], %1: int64[]) {
    %2 = sum(%0) {dims=(0,)} : float32[]
    return %2
  }} : float32[]
  return %3
}"""

STEPS = """graph main(%0: float32[3], %1: int64[4]) {
  %2 = while_loop(%0, %1) {body=graph b(%0: float32[3], %1: int64[4]) {
    %2 = gather(%0, %1) {at=(0,), place=(-1,), wrap=false} : float32[4]
    %3 = sum(%2) {dims=(0,)} : float32[]
    %4 = broadcast(%3) {dims=(), shape=(3,)} : float32[3]
    %5 = add(%0, %4) : float32[3]
    return %5
  }, test=graph t(%0: float32[3], %1: int64[4]) {
    %2 = sum(%0) {dims=(0,)} : float32[]
    %3 = full() {dtype=float32, shape=(), value=100.0} : float32[]
    %4 = lt(%2, %3) : bool[]
    return %4
  }} : float32[3]
  return %2
}"""


def both(text: str, arrays: list[Array], **options: Any) -> tuple[CudaProgram, list[Array], tuple[int, int] | None]:
    """The CUDA program and what it gives; it must be what the CPU's gives, unless a check fails."""
    made = compile_cuda(parse_graph(text), **options)
    got, failed = Host([made]).run(made, arrays)
    if failed is None:
        assert all(map(same_bits, got, execute(compiled(text, **options), arrays)))
    return made, got, failed


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_any_number_of_turns(n: int) -> None:
    made, got, failed = both(COUNT, [np.arange(8, dtype=np.float32), np.array(n)])
    assert failed is None and same_bits(got[0], np.arange(8, dtype=np.float32) * 2**n)
    assert made.pointers == 4  # two values, read and written


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("passes", [False, True])
def test_branches_loops_and_scans(n: int, passes: bool) -> None:
    assert both(PROGRAM, operands(n), passes=passes)[2] is None


def test_strided_operands() -> None:
    x, rows, n = operands()
    wide = np.zeros((3, 8), np.float32)
    wide[:, ::2] = rows.T
    views = [np.repeat(x, 2)[::2], wide[:, ::2].T, n]
    assert both(PROGRAM, views, input_strides=[(2,), (2, 8), None])[2] is None


@pytest.mark.parametrize("reverse", ["false", "true"])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_libraries_in_branches_and_loops(reverse: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are for ops that have no kernels."""
    monkeypatch.setattr(pipeline, "TEMPLATES", {})
    rng = np.random.default_rng(n)
    arrays = [rng.normal(size=(3, 3)), rng.normal(size=(5, 3, 3)), np.array(n)]
    made, _, failed = both(LIBRARY.replace("REVERSE", reverse), arrays)
    assert failed is None
    kinds = [type(step) for step in every(made.steps)]
    assert kinds.count(Loop) == 2 and kinds.count(Branch) == 1 and kinds.count(HostCall) == 2


def test_the_plan_tells_what_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "TEMPLATES", {})
    plan = compile_cuda(parse_graph(LIBRARY.replace("REVERSE", "true"))).plan()
    for part in ("5 times backwards", "while ", "if ", "then", "else", "test", "body", "host eigh(", "host inv("):
        assert part in plan


def test_a_check_in_a_branch() -> None:
    x = np.ones(3, np.float32)
    assert both(CHECKED, [np.array(False), x, np.array(9)])[2] is None
    made, _, failed = both(CHECKED, [np.array(True), x, np.array(9)])
    assert failed is not None and failed[1] == 9 and made.checks[failed[0]].op == "gather"
    assert isinstance(made.steps[-1], Look)


def test_a_check_in_a_loop_is_looked_for_before_the_next_turn() -> None:
    x, good = np.array([1, 2, 3], np.float32), np.array([0, 1, 2, 0])
    assert both(STEPS, [x, good])[2] is None
    made, _, failed = both(STEPS, [x, np.array([0, 1, 2, 7])])
    assert failed is not None and failed[1] == 7
    (loop,) = made.steps
    assert isinstance(loop, Loop) and isinstance(loop.test[-1], Look)


def test_values_of_any_size_share_an_arena() -> None:
    """Where sizes are symbolic, the arena is divided when they are known."""
    text = """graph main(%0: float32[n, m], %1: float32[m, n]) {
      %2 = matmul(%0, %1) : float32[n, n]
      %3 = matmul(%2, %0) : float32[n, m]
      %4 = sum(%3) {dims=(0,)} : float32[m]
      return %4
    }"""
    made = compile_cuda(parse_graph(text))
    assert len(made.locals) == 2
    a, b = (np.random.default_rng(0).normal(size=s).astype("f") for s in ((5, 7), (7, 5)))
    (got,), failed = Host([made]).run(made, [a, b], {"n": 5, "m": 7})
    assert failed is None
    static = (
        text.replace("n,", "5,").replace(" n]", " 5]").replace("m]", "7]").replace("[m,", "[7,").replace("[n,", "[5,")
    )
    assert same_bits(got, execute(compiled(static), [a, b])[0])
