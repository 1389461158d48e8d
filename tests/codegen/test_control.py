"""Branches and loops in programs: the plan, the entry's text, and the bits."""

from __future__ import annotations

import re
import signal
import threading
from typing import Any

import numpy as np
import pytest

from kiln.codegen.pipeline import compile_graph
from kiln.ir.graph import Graph
from kiln.ir.interpreter import evaluate_ref
from kiln.ir.parser import parse_graph
from kiln.ir.program import BranchCall, LibraryCall, LoopCall, Program
from kiln.ir.stored import StoredError, decode, encode
from kiln.runtime.executable import ProgramError, load
from kiln.runtime.targets import LEVELS, host_target
from tests.codegen.graphs import check_golden, execute, same_bits
from tests.ir.test_control import PROGRAM, operands

Array = np.ndarray[Any, Any]

COUNT = """\
graph count(%0 x: float32[8], %1 n: int64[]) {
  %2 = full() {dtype=int64, shape=(), value=0} : int64[]
  %3, %4 = while_loop(%2, %0, %1) {body=graph body(%0: int64[], %1: float32[8], %2: int64[]) {
    %3 = full() {dtype=int64, shape=(), value=1} : int64[]
    %4 = add(%0, %3) : int64[]
    %5 = add(%1, %1) : float32[8]
    return %4, %5
  }, test=graph test(%0: int64[], %1: float32[8], %2: int64[]) {
    %3 = lt(%0, %2) : bool[]
    return %3
  }} : int64[], float32[8]
  return %4
}"""

LIBRARY = """\
graph main(%0: float64[3, 3], %1: float64[5, 3, 3], %2: int64[]) {
  %3, %4, %5 = scan(%0, %1, %2) {body=graph s(%0: float64[3, 3], %1: float64[3, 3], %2: int64[]) {
    %3 = add(%0, %1) : float64[3, 3]
    %4 = sum(%3) {dims=(0, 1)} : float64[]
    %5 = full() {dtype=float64, shape=(), value=2.0} : float64[]
    %6 = lt(%4, %5) : bool[]
    %7 = cond(%6, %3) {else=graph e(%0: float64[3, 3]) {
      return %0
    }, then=graph t(%0: float64[3, 3]) {
      %1, %2 = eigh(%0) {upper=true} : float64[3], float64[3, 3]
      return %2
    }} : float64[3, 3]
    %8 = full() {dtype=int64, shape=(), value=0} : int64[]
    %9, %10 = while_loop(%8, %7, %2) {body=graph b(%0: int64[], %1: float64[3, 3], %2: int64[]) {
      %3 = full() {dtype=int64, shape=(), value=1} : int64[]
      %4 = add(%0, %3) : int64[]
      %5 = inv(%1) {check=true} : float64[3, 3]
      return %4, %5
    }, test=graph t(%0: int64[], %1: float64[3, 3], %2: int64[]) {
      %3 = lt(%0, %2) : bool[]
      return %3
    }} : int64[], float64[3, 3]
    return %10, %4, %0
  }, carried=1, length=5, reverse=REVERSE, xs=1} : float64[3, 3], float64[5], float64[5, 3, 3]
  return %3, %4, %5
}"""


def compiled(text: str | Graph, **options: Any) -> Program:
    return compile_graph(parse_graph(text) if isinstance(text, str) else text, host_target(), **options)


def test_the_plan_and_the_entry(request: pytest.FixtureRequest) -> None:
    """Two places for what is carried, and phis that swap them."""
    program = compile_graph(parse_graph(COUNT), LEVELS["baseline"], stages=True)
    stages = dict(program.stages)
    text = re.sub(r"_[0-9a-f]{12}\b", "", f"{stages['fused']}\n\n{stages['plan']}\n\n{stages['entry']}")
    check_golden("while_loop.txt", text, request.config.getoption("--update-golden"))
    assert program.entries == (program.modules[-1].name,)
    assert program.work == 0  # nobody knows: the interpreter's lock is given away


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_any_number_of_turns(n: int) -> None:
    x = np.arange(8, dtype=np.float32)
    (got,) = execute(compiled(COUNT), [x, np.array(n)])
    assert same_bits(got, x * 2**n)


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("passes", [False, True])
def test_it_computes_what_the_ops_do(n: int, passes: bool) -> None:
    """The bits are those of the kernels one by one, so also with and without passes."""
    one, other = (execute(compiled(PROGRAM, passes=p), operands(n)) for p in (passes, True))
    for got, same, wanted in zip(one, other, evaluate_ref(parse_graph(PROGRAM), operands(n)), strict=True):
        assert same_bits(got, same) and np.allclose(got, wanted, rtol=1e-5)


def test_strided_operands() -> None:
    x, rows, n = operands()
    wide = np.zeros((3, 8), np.float32)
    wide[:, ::2] = rows.T
    views = [np.repeat(x, 2)[::2], wide[:, ::2].T, n]
    program = compiled(PROGRAM, input_strides=[(2,), (2, 8), None])
    for got, wanted in zip(execute(program, views), execute(compiled(PROGRAM), operands()), strict=True):
        assert same_bits(got, wanted)


def test_a_body_is_compiled_once() -> None:
    short, long = (PROGRAM.replace("4, 3", f"{n}, 3").replace("length=4", f"length={n}") for n in (4, 4000))
    assert len(compiled(short).modules) == len(compiled(long).modules)
    assert abs(len(compiled(short).modules[-1].text) - len(compiled(long).modules[-1].text)) < 50


def test_memory_is_reused_inside() -> None:
    """Ten products in a turn need two places besides those of what is carried."""
    lines = [f"%{k} = matmul(%{k - 1}, %0) : float32[16, 16]" for k in range(1, 11)]
    text = f"""graph m(%0: float32[16, 16]) {{
      %1 = scan(%0) {{body=graph b(%0: float32[16, 16]) {{ {chr(10).join(lines)} return %10 }},
        carried=1, length=3, reverse=false, xs=0}} : float32[16, 16]
      return %1 }}"""
    assert compiled(text).arena_bytes == 3 * 16 * 16 * 4


@pytest.mark.parametrize("reverse", ["false", "true"])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_libraries_in_branches_and_loops(reverse: str, n: int) -> None:
    graph = parse_graph(LIBRARY.replace("REVERSE", reverse))
    program = compiled(graph)
    (loop,) = program.entries
    assert isinstance(loop, LoopCall) and loop.length == 5
    branch = next(e for e in loop.body if isinstance(e, BranchCall))
    assert isinstance(branch.then[0], LibraryCall)
    inner = next(e for e in loop.body if isinstance(e, LoopCall))
    assert inner.pred is not None
    rng = np.random.default_rng(n)
    arrays = [rng.normal(size=(3, 3)), rng.normal(size=(5, 3, 3)), np.array(n)]
    stored = decode(encode(program, graph), graph, host_target())
    assert stored == program
    for got, again, wanted in zip(
        execute(program, arrays), execute(stored, arrays), evaluate_ref(graph, arrays), strict=True
    ):
        assert np.allclose(got, wanted, rtol=1e-9) and same_bits(got, again)


def test_a_damaged_record_is_noticed() -> None:
    graph = parse_graph(COUNT)
    with pytest.raises(StoredError):
        decode(b"\x00" + encode(compiled(graph), graph), graph, host_target())


def test_a_refusal_inside_names_its_line() -> None:
    graph = parse_graph(LIBRARY.replace("REVERSE", "false"))
    arrays = [np.zeros((3, 3)), np.zeros((5, 3, 3)), np.array(1)]
    arrays[1][:] = 1.0  # their sum is not small: no eigenvectors, but the inverse of ones
    with pytest.raises(ProgramError, match="inv: "):
        execute(compiled(graph), arrays)


def test_a_check_in_a_branch() -> None:
    text = """graph main(%0: bool[], %1: float32[3], %2: int64[]) {
      %3 = cond(%0, %1, %2) {then=graph a(%0: float32[3], %1: int64[]) {
        %2 = gather(%0, %1) {at=(), place=(-1,), wrap=false} : float32[]
        return %2
      }, else=graph b(%0: float32[3], %1: int64[]) {
        %2 = sum(%0) {dims=(0,)} : float32[]
        return %2
      }} : float32[]
      return %3
    }"""
    program, x = compiled(text), np.ones(3, np.float32)
    assert execute(program, [np.array(False), x, np.array(9)])[0] == 3
    with pytest.raises(ProgramError, match="index 9 is out of bounds"):
        execute(program, [np.array(True), x, np.array(9)])
    assert execute(program, [np.array(True), x, np.array(2)])[0] == 1


def test_runs_at_the_same_time_do_not_meet() -> None:
    program, wanted = load(compiled(COUNT)), np.arange(8, dtype=np.float32) * 2.0**20
    bad: list[Array] = []

    def many() -> None:
        for _ in range(200):
            x, n, out = np.arange(8, dtype=np.float32), np.array(20), np.empty(8, np.float32)
            program.run([x.ctypes.data, n.ctypes.data, out.ctypes.data])
            if not same_bits(out, wanted):
                bad.append(out)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad


class Late(Exception):
    """Raised by a signal handler."""


def test_a_signal_handler_stops_a_loop() -> None:
    def late(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    program, x = compiled(COUNT), np.zeros(8, np.float32)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Late):
            execute(program, [x, np.array(1 << 60)])
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert same_bits(execute(program, [x, np.array(3)])[0], x)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
