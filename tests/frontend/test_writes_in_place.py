"""Compiled writes into parts of what comes from outside: only these parts are touched, and nobody can tell."""

from __future__ import annotations

import re

import pytest

import kiln
from tests.frontend.writing import HAZARDS, READS, WRITES, Function, arguments, outcome

CACHE = 4 * 6 * 4
ALL = WRITES | READS | HAZARDS


@pytest.mark.parametrize("name", ALL)
def test_nobody_can_tell(name: str) -> None:
    compiled = kiln.compile(ALL[name])
    for position in (1, 0, 2, 2):
        for seed in (0, 10):
            wanted = outcome(ALL[name], arguments(position, seed=seed))
            assert outcome(compiled, arguments(position, seed=seed)) == wanted


def plans(function: Function) -> tuple[str, str]:
    """What a program does, on the CPU and on a GPU."""
    explained = kiln.explain(function, *arguments(1))
    return explained["plan"], explained.cuda().plan()


def whole(plan: str) -> int:
    """How many caches would fit into the memory that a program needs besides inputs and outputs."""
    found = re.match(r"arena:? ([\d,]+) bytes", plan)
    assert found is not None
    return int(found[1].replace(",", "")) // CACHE


@pytest.mark.parametrize("name", [*WRITES, *READS])
def test_only_what_changes_is_written(name: str) -> None:
    fused = kiln.explain(ALL[name], *arguments(1))["fused"]
    made = re.findall(r"^  %\d+ = (\w+)\(.*\{(.*)\} : float32\[4, 6\]", fused, re.M)
    assert all("in_place=true" in attrs or op in ("reshape", "permute") for op, attrs in made), fused
    assert name == "nothing" or "in_place=true" in fused
