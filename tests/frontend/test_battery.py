"""Small programs as users write them: compiled, each must do exactly what it does eagerly, or be refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.frontend.battery import (
    arguments,
    autograd,
    closures,
    functions,
    hooks,
    inside,
    library,
    names,
    objects,
    reading,
    results,
    tensors,
    training,
    world,
    writes,
)
from tests.frontend.battery.doors import summary
from tests.frontend.battery.kit import Outcome, Program, behind, ran
from tests.frontend.conftest import Notes

PROGRAMS = [
    pytest.param(p, id=f"{family.__name__.rpartition('.')[2]}-{p.name}", marks=_marks)
    for family in (
        closures,
        names,
        objects,
        functions,
        reading,
        arguments,
        tensors,
        results,
        writes,
        autograd,
        inside,
        training,
        hooks,
        library,
        world,
    )
    for p in family.PROGRAMS
    for _marks in [[pytest.mark.xfail(strict=True, reason=p.wrong)] if p.wrong else []]
]


def through(program: Program, door: str) -> Outcome:
    """What a run of a program showed whose functions went through a door."""
    if door in ("script", "trace"):
        return behind(program, door)
    return ran(program, compiled=True, fullgraph=door == "compile, fullgraph")


def kind(program: Program, door: str, notes: Notes) -> str:
    """What became of it, in a word."""
    name = f"{program.run.__module__.rpartition('.')[2]} {program.name}, {door}"
    return str(notes.find(name, lambda: summary(through(program, door))))


@pytest.mark.parametrize("program", PROGRAMS)
def test_compiled_as_eager_or_refused(program: Program, notes: Notes) -> None:
    eager = ran(program, compiled=False)
    assert eager.refused is None, f"refused without a capture: {eager.refused}"
    if eager.error is not None:
        raise eager.error
    compiled = through(program, "compile, fullgraph")
    kind(program, "compile, fullgraph", notes)  # the page counts it
    if compiled.error is not None:
        raise AssertionError(f"only when compiled: {compiled.error!r}") from compiled.error
    for k, (a, b) in enumerate(zip(eager.witness.log, compiled.witness.log, strict=False)):
        assert b == a, f"observation {k} differs"
    outcome: Any = "right" if compiled.refused is None else "refused"
    assert outcome in program.expected, compiled.refused
    if outcome == "right":
        assert len(compiled.witness.log) == len(eager.witness.log)
        if program.captures is not None:
            logs = [f.log for f in compiled.functions]
            assert compiled.captures <= program.captures, f"captured too often: {logs}"


@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.values[0].expected != "right"])
def test_compiled_or_eager_it_is_right(program: Program, notes: Notes) -> None:
    eager = ran(program, compiled=False)
    compiled = through(program, "compile")
    kind(program, "compile", notes)
    if program.expected == "always refused":
        assert compiled.refused is not None
        return
    assert compiled.refused is None, compiled.refused
    if compiled.error is not None:
        raise AssertionError(f"only when compiled: {compiled.error!r}") from compiled.error
    assert compiled.witness.log == eager.witness.log


@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
@pytest.mark.parametrize("door", ["script", "trace"])
@pytest.mark.parametrize("program", [pytest.param(p.values[0], id=p.id) for p in PROGRAMS])
def test_through_the_other_doors(program: Program, door: str, notes: Notes) -> None:
    """As eagerly, or refused on the way."""
    eager = ran(program, compiled=False) if door == "script" else behind(program, "twice")
    opened = through(program, door)
    kind(program, door, notes)
    if opened.error is not None and eager.error is None:
        raise AssertionError(f"only behind {door}: {opened.error!r}") from opened.error
    for k, (a, b) in enumerate(zip(eager.witness.log, opened.witness.log, strict=False)):
        assert b == a, f"observation {k} differs"
    if opened.refused is None:
        assert len(opened.witness.log) == len(eager.witness.log)
