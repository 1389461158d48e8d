"""Ops that a library carries out, as steps of programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kiln.codegen.pipeline import compile_graph
from kiln.ir.graph import Alias, Graph, GraphBuilder, SourceLoc
from kiln.ir.interpreter import evaluate_ref
from kiln.ir.ops import OPS
from kiln.ir.ops.base import Library, LibraryError, OpDef
from kiln.ir.program import LibraryCall, Program
from kiln.ir.stored import StoredError, decode, encode
from kiln.ir.types import TensorType, float64
from kiln.runtime import library
from kiln.runtime.executable import ProgramError, load
from kiln.runtime.targets import host_target
from kiln.runtime.threads import pool
from tests.codegen.graphs import execute

Array = np.ndarray[Any, Any]
SQUARE = TensorType(float64, (3, 3))


def sandwich(aliases: bool = False) -> Graph:
    """Generated code, a library's step, generated code, a library's step."""
    builder = GraphBuilder("sandwich")
    a, b = builder.input(SQUARE, "a"), builder.input(SQUARE, "b")
    (twice,) = builder.add(OPS["add"], [a, a], {})
    (turned,) = builder.add(OPS["permute"], [b], {"dims": (1, 0)})
    (x,) = builder.add(OPS["solve"], [twice, turned], {"check": True}, SourceLoc("user.py", 7))
    (y,) = builder.add(OPS["mul"], [x, a], {})
    w, v = builder.add(OPS["eigh"], [y], {"upper": True})
    return builder.build([v, w, y], [Alias(2, 1)] if aliases else [])


def compiled(graph: Graph, **options: Any) -> Program:
    return compile_graph(graph, host_target(), **options)


def operands() -> list[Array]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=(3, 3)) for _ in range(2)]


def test_it_is_a_step_that_prints() -> None:
    program = compiled(sandwich(), stages=True)
    kinds = [e.op if isinstance(e, LibraryCall) else "native" for e in program.entries]
    assert kinds == ["native", "solve", "native", "eigh"]
    plan = dict(program.stages)["plan"]
    assert "library solve {check=true} (arena+0, input1, arena+" in plan.replace("arena+64, input1", "arena+0, input1")
    assert "library eigh {upper=true} (" in plan


def test_programs_without_are_one_native_call() -> None:
    builder = GraphBuilder("plain")
    x = builder.input(SQUARE)
    program = compiled(builder.build(builder.add(OPS["exp"], [x], {})))
    (entry,) = program.entries
    assert isinstance(entry, str)


@pytest.mark.parametrize("strided", [False, True])
def test_it_computes_what_the_references_do(strided: bool) -> None:
    a, b = operands()
    strides = [(1, 3), (6, 2)] if strided else [None, None]
    program = compiled(sandwich(), input_strides=strides)
    given = [a, b]
    if strided:
        wide = np.zeros((3, 6))
        wide[:, ::2] = b
        given = [np.asfortranarray(a), wide[:, ::2]]
    for got, wanted in zip(execute(program, given), evaluate_ref(sandwich(), [a, b]), strict=True):
        assert (got == wanted).all()


def test_a_refusal_names_its_line_and_leaves_inputs_alone() -> None:
    program = compiled(sandwich(aliases=True))
    a, b = operands()
    kept = b.copy()
    a[1] = 0
    results = [np.zeros((3, 3)), np.zeros(3)]
    pointers = [x.__array_interface__["data"][0] for x in (a, b, *results, b)]
    executable = load(program)
    for _ in range(2):
        with pytest.raises(ProgramError, match="the matrix is singular") as caught:
            executable.run(pointers)
        assert caught.value.site.op == "solve" and str(caught.value.site.loc) == "user.py:7"
        assert (b == kept).all()
    a[1] = [1, 5, 2]
    wanted = evaluate_ref(sandwich(), [a, kept])
    executable.run(pointers)
    assert (b == wanted[2]).all() and (results[1] == wanted[1]).all()


def test_it_goes_to_disk_and_back() -> None:
    graph = sandwich()
    program = compiled(graph)
    back = decode(encode(program, graph), graph, program.target)
    assert back == program
    assert all(type(e) is str or isinstance(e, LibraryCall) for e in back.entries)
    a, b = operands()
    for x, y in zip(execute(back, [a, b]), execute(program, [a, b]), strict=True):
        assert (x == y).all()


def test_a_stored_program_of_an_op_that_is_gone_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = sandwich()
    data = encode(compiled(graph), graph)
    monkeypatch.delitem(OPS, "eigh")
    with pytest.raises(StoredError):
        decode(data, graph, host_target())


def test_a_dead_step_stays_where_it_can_fail() -> None:
    def kept(name: str, **attrs: Any) -> int:
        builder = GraphBuilder("dead")
        x = builder.input(SQUARE)
        builder.add(OPS[name], [x], attrs)
        program = compiled(builder.build(builder.add(OPS["exp"], [x], {})))
        return sum(isinstance(e, LibraryCall) for e in program.entries)

    assert kept("cholesky", check=True) == 1
    assert kept("qr") == 0


def test_the_library_sees_the_control_register_of_generated_code(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = pool().exchange_csr
    seen = []

    def run(x: Array) -> Array:
        seen.append(exchange(0x1F80))
        return x

    probe = OpDef("probe", "", lambda types, attrs: tuple(types), lambda xp, x: x, Library("library", run))
    monkeypatch.setitem(OPS, "probe", probe)
    x = np.ones(2)
    address = x.__array_interface__["data"][0]
    place = library.Place(0, 0, TensorType(float64, (2,)), (1,))
    before = exchange(0x9FC0)  # flush to zero, subnormals as zeros
    try:
        library.Performer(LibraryCall("probe", (), (place,), (place,)))([address])
    finally:
        after = exchange(before)
    assert [csr & ~0x3F for csr in seen] == [0x1F80]
    assert after & ~0x3F == 0x9FC0 & ~0x3F


def test_refusals_are_errors_of_ours_alone() -> None:
    with pytest.raises(LibraryError, match="matrix 1 of the stack"):
        OPS["inv"].ref(np, np.stack([np.eye(2), np.zeros((2, 2))]), check=True)
    with pytest.raises(LibraryError, match=r"matrix \(0, 1\) of the stack .* leading minor of order 2"):
        OPS["cholesky"].ref(np, np.array([[np.eye(2), [[1, 2], [2, 1]]]]), check=True)
