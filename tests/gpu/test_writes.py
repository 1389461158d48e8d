"""Compiled writes into parts of what comes from outside, on a GPU (`tests/frontend/test_writes_in_place.py`)."""

from __future__ import annotations

import pytest

import kiln
from tests.frontend.writing import HAZARDS, READS, WRITES, arguments, outcome

pytestmark = pytest.mark.usefixtures("gpu")
ALL = WRITES | READS | HAZARDS
DECIDED = ("refused_by_a_factorization",)  # computed by a library on the host; part of other tests


@pytest.mark.parametrize("name", [n for n in ALL if n not in DECIDED])
def test_nobody_can_tell(name: str) -> None:
    compiled = kiln.compile(ALL[name])
    for position in (1, 2):
        wanted = outcome(ALL[name], arguments(position))
        assert outcome(compiled, arguments(position, "cuda")) == wanted
