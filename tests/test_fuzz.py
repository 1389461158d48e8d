"""The fuzzer's workers: a process that dies is a fault of the program it was at, and the rest still runs."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated")  # functions under older names are drawn too
TOOLS = Path(__file__).parent / "tools"


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    import fuzz_jobs

    return fuzz_jobs


def test_a_worker_that_dies_is_a_fault(jobs: Any) -> None:
    outcomes = []

    def report(outcome: Any) -> bool:
        outcomes.append(outcome)
        if len(outcomes) == 1:
            for child in multiprocessing.active_children():
                child.kill()
        return True

    jobs.run_workers(range(40, 46), 1, "oracle", False, report)
    died = [o for o in outcomes if o.fault]
    assert len(died) == 1 and "the process died (exit code -9)" in died[0].fault
    assert {o.seed for o in outcomes} == set(range(40, 46))
    assert died[0].seed != outcomes[0].seed


def test_every_program_of_a_seed_is_the_same(jobs: Any) -> None:
    from fuzz_check import describe, draw

    for seed in (7, 8):
        assert describe(draw(seed)) == describe(draw(seed))


def test_every_public_function_is_drawn(jobs: Any) -> None:
    from fuzz_table import TABLE
    from fuzz_table_draw import public

    assert not public() - set(TABLE)
    assert str(TOOLS) in sys.path


def test_control_flow_on_data_is_eagers(jobs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import fuzz_flow

    assert fuzz_flow.main(["--n", "12", "--seed", "500"]) == 0
    assert "12 programs, 0 differences" in capsys.readouterr().out
    assert fuzz_flow.main(["--n", "1", "--seed", "40021"]) == 0  # sizes without numbers, beside a staged loop


def test_a_wrong_answer_is_found(
    jobs: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fuzz_flow

    from kiln import base, tree

    right = tree.Decision.answer

    def lying(self: Any, arguments: Any, known: Any) -> Any:
        answer = right(self, arguments, known)
        return (not answer[0],) if answer is not None and answer[0] in (True, False) else answer

    monkeypatch.setattr(tree.Decision, "answer", lying)
    monkeypatch.setattr(base.STAGES, "enabled", False)  # so that every question about data is a decision
    assert fuzz_flow.main(["--n", "12", "--seed", "512"]) == 1
    assert "seed 5" in capsys.readouterr().out


def test_what_compiled_calls_do_to_the_world_is_eagers(jobs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import fuzz_effects

    assert fuzz_effects.main(["--n", "30", "--seed", "703"]) == 0
    assert "30 programs, 0 differences" in capsys.readouterr().out
    assert fuzz_effects.main(["--n", "10", "--seed", "735", "--strict"]) == 0
    assert fuzz_effects.main(["--n", "2", "--seed", "703", "--codegen"]) == 0


@pytest.mark.parametrize(
    "fault",
    [
        "unguarded attributes",
        "unchecked aliases",
        "forgotten generator",
        "ignored answer",
        "lost effects of a failure",
        "lost gradients",
        "another tensor",
        "lost prints",
        pytest.param("old texts", marks=pytest.mark.slow),
        pytest.param("old numbers", marks=pytest.mark.slow),
        pytest.param("unknown names", marks=pytest.mark.slow),
        pytest.param("traces of trials", marks=pytest.mark.slow),
        pytest.param("ignored derivatives", marks=pytest.mark.slow),
        "dropped write-back",
        pytest.param("stale views", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_effect_is_found(jobs: Any, fault: str) -> None:
    import fuzz_effects

    assert fuzz_effects.found_after(fault, range(60))


def test_a_program_that_differs_is_made_smaller(jobs: Any, tmp_path: Path) -> None:
    import fuzz_effects
    from fuzz_effects_faults import FAULTS
    from fuzz_effects_run import draw, interpreting, smaller

    fault = FAULTS["another tensor"]
    with interpreting(), fault.plant():
        program = next(p for s in range(20) if fuzz_effects.attempt(p := draw(s, fault.families)[0], False))
        small = smaller(program, lambda p: bool(fuzz_effects.attempt(p, False)))
    assert len(small.short()) < len(program.short())
    assert len(small.steps) == 2
    (tmp_path / "program.py").write_text(small.script())
    subprocess.run([sys.executable, str(tmp_path / "program.py")], check=True, capture_output=True)
