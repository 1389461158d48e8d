"""CUDA programs on disk: what is read is what was written, and nothing is taken for what it is not."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

import kiln
from kiln.codegen.cuda import pipeline
from kiln.codegen.cuda.pipeline import compile_cuda
from kiln.ir.gpu_program import every
from kiln.ir.parser import parse_graph
from kiln.ir.stored import StoredError
from kiln.ir.stored_gpu import decode, encode
from tests.codegen.test_control import LIBRARY
from tests.gpu.conftest import Gpu
from tests.gpu.test_runtime import ADD, ATTENTION, CONSTANT, CUMULATE, GATHER, SORT
from tests.ir.test_control import PROGRAM

TEXTS = [ADD, ATTENTION, CONSTANT, CUMULATE, GATHER, SORT, PROGRAM, LIBRARY.replace("REVERSE", "true")]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_there_and_back(text: str) -> None:
    graph = parse_graph(text)
    program = compile_cuda(graph)
    stored = encode(program, graph)
    same = decode(stored, graph)
    assert encode(same, graph) == stored and str(same) == str(program)
    assert same.checks == program.checks and same.slots == program.slots and same.aliases == program.aliases
    assert (same.input_types, same.output_types) == (program.input_types, program.output_types)
    assert [type(s) for s in every(same.steps)] == [type(s) for s in every(program.steps)]


def test_bytes_that_are_no_program() -> None:
    graph = parse_graph(ATTENTION)
    stored = encode(compile_cuda(graph), graph)
    text = zlib.decompress(stored).decode()
    for wrong in (
        text[:-1],
        "[]",
        "3",
        '["Nothing"]',
        '["Look"]',
        json.dumps(["", 1]),
        text.replace('"Launch"', '"Lunch"'),
    ):
        with pytest.raises(StoredError):
            decode(zlib.compress(wrong.encode()), graph)
    with pytest.raises(StoredError):
        decode(stored[:-9], graph)


def test_a_second_process_makes_no_code(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_CACHE_DIR", str(tmp_path))

    def fresh() -> kiln.Tensor:
        @kiln.compile
        def scaled(x: kiln.Tensor) -> kiln.Tensor:
            return x * 2 + kiln.tensor([1.0, 2.0, 3.0], device="cuda")

        made: kiln.Tensor = scaled(kiln.ones(3, device="cuda"))
        return made

    first = fresh()
    calls: list[object] = []
    monkeypatch.setattr(pipeline, "compile_cuda", lambda *a, **k: calls.append(a))
    again = fresh()
    assert not calls
    np.testing.assert_array_equal(first.cpu().numpy(), again.cpu().numpy())
