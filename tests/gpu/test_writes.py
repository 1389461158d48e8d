"""Compiled writes into parts of what comes from outside, on a GPU (`tests/frontend/test_writes_in_place.py`)."""

from __future__ import annotations

import pytest

import kiln
from tests.frontend.writing import HAZARDS, READS, WRITES, arguments, outcome

pytestmark = pytest.mark.usefixtures("gpu")
ALL = WRITES | READS | HAZARDS


@pytest.mark.parametrize("name", ALL)
def test_nobody_can_tell(name: str) -> None:
    compiled = kiln.compile(ALL[name])
    for position in (1, 2):
        assert outcome(compiled, arguments(position, "cuda")) == outcome(ALL[name], arguments(position))
