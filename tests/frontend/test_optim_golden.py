"""Optimisers and schedules against what torch computed: `tests/golden/optim.json`, from `optim_cases.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.optim import lr_scheduler
from tests.frontend import optim_cases as cases

GOLDEN: dict[str, Any] = json.loads((Path(__file__).resolve().parents[1] / "golden" / "optim.json").read_text())


def name_of(case: tuple[str, dict[str, Any]]) -> str:
    return "-".join([case[0], *case[1]])


@pytest.mark.parametrize("k", range(len(cases.OPTIMISERS)), ids=map(name_of, cases.OPTIMISERS))
def test_optimisers(k: int) -> None:
    got = cases.optimised(kiln, *cases.OPTIMISERS[k], kiln.float64)
    np.testing.assert_allclose(got, GOLDEN["optimisers"][k], rtol=1e-13, atol=1e-14)
    got = cases.optimised(kiln, *cases.OPTIMISERS[k], kiln.float32)
    np.testing.assert_allclose(got, GOLDEN["float32"][k], rtol=3e-6, atol=3e-7)


@pytest.mark.parametrize("k", range(len(cases.MATRICES)), ids=map(name_of, cases.MATRICES))
def test_optimisers_of_matrices(k: int) -> None:
    got = cases.of_matrices(kiln, *cases.MATRICES[k], kiln.float64)
    np.testing.assert_allclose(got, GOLDEN["matrices"][k], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("k", range(len(cases.LBFGS)))
def test_lbfgs(k: int) -> None:
    for got, wanted in zip(cases.valley(kiln, cases.LBFGS[k]), GOLDEN["LBFGS"][k], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", cases.SCHEDULES)
def test_schedules(name: str) -> None:
    np.testing.assert_allclose(cases.scheduled(kiln, name), GOLDEN["schedules"][name], rtol=1e-13, atol=1e-16)


def test_no_optimiser_and_no_schedule_is_left_out() -> None:
    optimisers = {name for name in vars(kiln.optim) if isinstance(getattr(kiln.optim, name), type)}
    assert optimisers == {*(name for name, _ in cases.OPTIMISERS + cases.MATRICES), "LBFGS", "Optimizer"}
    assert {name.split()[0] for name in cases.SCHEDULES} == {*lr_scheduler.__all__} - {"LRScheduler"}
    assert len(GOLDEN["optimisers"]) == len(GOLDEN["float32"]) == len(cases.OPTIMISERS)
