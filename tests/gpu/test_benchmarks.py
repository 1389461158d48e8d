"""The benchmarks for GPUs run, and say what is missing where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kiln
from tests.benchmarks import gpu as benchmarks
from tests.gpu.conftest import Gpu

ROOT = Path(__file__).parents[2]


def test_they_run(fake: Gpu, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmarks, "SAMPLE", 1e-9)
    monkeypatch.setattr(benchmarks, "ROUNDS", 1)
    monkeypatch.setattr(benchmarks, "torch_module", lambda: None)
    assert benchmarks.main(["--small", "--only", "rows"]) == 0
    said = capsys.readouterr().out
    assert "softmax 3x70" in said and "% of a copy's" in said and "all sections worked" in said


@pytest.mark.slow
@pytest.mark.parametrize("section", ["graphs", "host", "scans", "training"])
def test_others_run(section: str, fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "SAMPLE", 1e-9)
    monkeypatch.setattr(benchmarks, "ROUNDS", 1)
    monkeypatch.setattr(benchmarks, "torch_module", lambda: None)
    assert benchmarks.main(["--small", "--only", section]) == 0


def test_they_say_what_is_missing() -> None:
    if kiln.cuda.is_available():
        pytest.skip("there is a GPU")
    script = ROOT / "tests" / "tools" / "gpu_check.sh"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([script, sys.executable], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1 and "no GPU can be measured: init: " in done.stdout and "fix: " in done.stdout
