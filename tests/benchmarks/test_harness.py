"""The benchmarks' own machinery: no times are asserted, only that the right things are compared."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import harness

HERE = Path(__file__).parent


def test_paired_tells_slow_from_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "REST", 0.0)
    times = harness.paired({"slow": lambda: time.sleep(0.004), "fast": lambda: None}, 3)
    assert times["fast"] < times["slow"]


def test_wrong_answers_are_not_timed() -> None:
    good = {"a": lambda: np.ones(3), "b": lambda: np.ones(3) + 1e-6}
    harness.check(harness.Case("x", good))
    for bad in (np.zeros(3), np.ones(4), np.full(3, np.nan)):
        case = harness.Case("x", {**good, "c": lambda bad=bad: bad})
        with pytest.raises(AssertionError, match="c and a differ"):
            harness.check(case)


@pytest.mark.parametrize("script", ["bench_ops.py", "bench_mlp_step.py"])
def test_a_benchmark_runs(script: str) -> None:
    """One round, small cases, on one thread."""
    run = subprocess.run(
        [sys.executable, str(HERE / script), "--threads", "1", "--rounds", "1", "--only", "4x4"],
        capture_output=True,
        text=True,
        env={**os.environ, "KILN_NUM_THREADS": ""},
    )
    assert run.returncode == 0, run.stderr
    assert "kiln compiled" in run.stdout and "GF/s" in run.stdout
