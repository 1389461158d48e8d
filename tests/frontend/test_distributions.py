"""`kiln.distributions` against what torch's said (`tests/golden/distributions.json`), and its errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import distributions as D
from tests.frontend import distribution_cases as cases

GOLDEN: dict[str, Any] = json.loads((Path(__file__).resolve().parents[1] / "golden" / "distributions.json").read_text())


def tensor(x: Any) -> kiln.Tensor:
    return kiln.tensor(x, dtype=kiln.float64)


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    before = kiln.get_default_dtype()
    kiln.set_default_dtype(kiln.float64)
    yield
    kiln.set_default_dtype(before)


def agree(got: Any, wanted: Any, within: float, what: object) -> None:
    if got == wanted or isinstance(wanted, str) or isinstance(got, str):
        assert got == wanted, what
        return
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert a.shape == b.shape, (what, got, wanted)
    with np.errstate(invalid="ignore"):
        close = (a == b) | (np.abs(a - b) <= within * (1 + np.abs(b))) | (np.isnan(a) & np.isnan(b))
    assert close.all(), (what, got, wanted)


LOOSE = {"VonMises": 2e-7}  # torch's Bessel functions are polynomials of float32's precision


@pytest.mark.parametrize("name", list(cases.DISTRIBUTIONS))
@pytest.mark.filterwarnings("ignore:Low df")
def test_distribution(name: str) -> None:
    wanted = GOLDEN["distributions"][name]
    got = cases.described(D, tensor, name)
    assert got.keys() == wanted.keys()
    for what, value in wanted.items():
        if what == "cdf" and name in ("Gamma", "Chi2", "InverseGamma") and not hasattr(kiln.special, "gammainc"):
            assert got[what] == "not implemented"
            continue
        agree(got[what], value, LOOSE.get(name, 1e-12), (name, what))


@pytest.mark.parametrize("name", list(cases.DISTRIBUTIONS))
@pytest.mark.filterwarnings("ignore:Low df")
def test_representation(name: str) -> None:
    wanted = GOLDEN["repr"][name]
    if name.startswith("Mixture"):  # torch keeps what was computed on the way, and then shows it
        wanted = wanted.replace(", logits: (2, 3)", "")
    assert cases.text(cases.DISTRIBUTIONS[name][0](D, tensor)) == wanted


@pytest.mark.parametrize("name", list(cases.TRANSFORMS))
def test_transform(name: str) -> None:
    wanted = GOLDEN["transforms"][name]
    got = cases.transformed(D, tensor, name)
    for what, value in wanted.items():
        agree(got[what], value, 1e-12, (name, what))


@pytest.mark.parametrize("name", list(cases.CONSTRAINTS))
def test_constraint(name: str) -> None:
    wanted = GOLDEN["constraints"][name]
    got = cases.constrained(D, tensor, name)
    assert got["repr"] == wanted["repr"]
    for what in ("dims", "biject_to", "transform_to"):
        agree(got[what], wanted[what], 1e-12, (name, what))
    for k, (a, b) in enumerate(zip(got["check"], wanted["check"], strict=True)):
        agree(a, b, 0.0, (name, k))


FAMILIES = [(p, family) for family in (cases.PAIRS, cases.PAIRS_OF_VECTORS) for p in family]


@pytest.mark.parametrize(("p", "family"), FAMILIES, ids=[p for p, _ in FAMILIES])
@pytest.mark.filterwarnings("ignore:Low df")
def test_divergence(p: str, family: list[str]) -> None:
    for q in family:
        wanted = GOLDEN["divergences"].get(f"{p}, {q}")
        if wanted is not None:
            agree(cases.divergence(D, tensor, p, q), wanted, 1e-11, (p, q))
