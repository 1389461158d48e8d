"""Programs as research users write them, and programs that touch hidden state, through every way into capture: what a
user can observe is what eager calls show, or the call is refused. What became of them stands in the docs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.frontend.battery import doors
from tests.frontend.battery.doors import DOORS, Door, Program, eagerly, through

FOLDER = Path(__file__).parent / "battery"


def family(prefix: str) -> dict[str, Program]:
    """The programs of all files whose names begin so."""
    names = sorted(p.stem for p in FOLDER.glob(f"{prefix}_*.py"))
    return doors.named([importlib.import_module(f"tests.frontend.battery.{n}") for n in names])


RESEARCH = family("research")
STATE = family("state")


@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
@pytest.mark.parametrize("door", DOORS, ids=lambda d: d.name)
@pytest.mark.parametrize("name", [*RESEARCH, *STATE])
def test_as_eagerly_or_refused(name: str, door: Door) -> None:
    program = (RESEARCH | STATE)[name]
    assert "exception of the program" not in eagerly(program, False).labels
    seen = through(program, door)
    assert seen.kind != "wrong", seen.why
