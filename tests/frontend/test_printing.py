"""Texts of tensors against PyTorch's, character for character."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import kiln
from kiln import nn
from tests.frontend.printing_cases import texts

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "printing.json"


@pytest.fixture(autouse=True)
def default_options() -> Iterator[None]:
    yield
    kiln.set_printoptions(profile="default")


def test_as_torch() -> None:
    wanted = json.loads(GOLDEN.read_text())
    printed = [text.replace("kiln.", "torch.") for text in texts(kiln)]
    assert len(printed) == len(wanted) > 100
    for k, (a, b) in enumerate(zip(printed, wanted, strict=True)):
        assert a == b, f"case {k}\n{a}\n{b}"


def test_special_tensors() -> None:
    assert repr(kiln.tensor([])) == "tensor([])"
    assert repr(kiln.zeros(2, 0)) == "tensor([], size=(2, 0))"
    assert repr(kiln.zeros(0, dtype=kiln.int64)) == "tensor([], dtype=kiln.int64)"
    assert repr(kiln.tensor([float("nan"), 1.0, -float("inf")])) == "tensor([nan, 1., -inf])"
    assert repr(kiln.tensor(True)) == "tensor(True)"
    assert repr(kiln.ones(2).requires_grad_().exp()) == "tensor([2.7183, 2.7183], grad_fn=<ExpBackward0>)"
    assert repr(nn.Parameter(kiln.ones(2))) == "Parameter containing:\ntensor([1., 1.], requires_grad=True)"
    assert kiln.tensor([1.0])._repr_html_() == "<pre>tensor([1.])</pre>"
    assert "&lt;" in kiln.ones(2).requires_grad_().exp()._repr_html_()
    assert repr(kiln.from_numpy(np.arange(3)[::1])) == "tensor([0, 1, 2])"


def test_options() -> None:
    for wrong in ({"profile": "huge"}, {"precision": -1}, {"linewidth": -3}):
        with pytest.raises(ValueError, match="set_printoptions"):
            kiln.set_printoptions(**wrong)  # type: ignore[arg-type]
    kiln.set_printoptions(precision=1)
    assert repr(kiln.tensor([1.25, 2.0])) == "tensor([1.2, 2.0])"
    kiln.set_printoptions(threshold=3, edgeitems=0)
    assert repr(kiln.arange(9)) == "tensor([...], size=(9,))"
