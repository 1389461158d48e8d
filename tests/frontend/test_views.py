"""Views and in-place writes against a table of torch's answers: values, strides, shared memory, gradients, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from tests.frontend.views import loss_of, play

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "views.json").read_text())


def leaf_of(shape: list[int]) -> kiln.Tensor:
    x = (kiln.arange(int(np.prod(shape)), dtype=kiln.float64) / 4).reshape(shape)
    return x.detach().requires_grad_()


def strides_that_matter(shape: Any, strides: Any) -> list[int]:
    """A dimension of size one is never stepped through, nor is any of an empty tensor."""
    return [s for n, s in zip(shape, strides, strict=True) if n > 1] if 0 not in shape else []


@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_torch_says_so(number: int) -> None:
    case = GOLDEN[number]
    leaf = leaf_of(case["shape"])
    tensors, refused = play(leaf.clone(), case["steps"], (kiln.KilnError,))
    assert refused == case["refused"]
    for k, (t, wanted) in enumerate(zip(tensors, case["tensors"], strict=True)):
        assert list(t.shape) == wanted["shape"]
        np.testing.assert_allclose(t.detach().numpy().ravel(), wanted["values"], rtol=1e-8, atol=1e-8)
        if case["memory"][k] != k:
            assert strides_that_matter(t.shape, t.stride()) == strides_that_matter(t.shape, wanted["strides"])
    memory = [t._buffer for t in tensors]
    assert [memory.index(b) for b in memory] == case["memory"]
    if case["gradient"] is None:
        with pytest.raises(kiln.GradError):
            loss_of(leaf, tensors).backward()
        return
    loss_of(leaf, tensors).backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy().ravel(), case["gradient"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("number", [n for n, c in enumerate(GOLDEN) if not c["refused"]][::4])
def test_captured(number: int) -> None:
    """The same sequence as one program, twice: values, and the gradient where there is one."""
    case = GOLDEN[number]
    steps, has_gradient = case["steps"], case["gradient"] is not None

    @kiln.compile
    def whole(leaf: kiln.Tensor) -> list[kiln.Tensor]:
        tensors, _ = play(leaf.clone(), steps, ())
        found = [t.detach().clone() for t in tensors]
        return [*found, *kiln.grad(loss_of(leaf, tensors), [leaf])] if has_gradient else found

    for _ in range(2):
        made = whole(leaf_of(case["shape"]))
        for t, wanted in zip(made, case["tensors"], strict=False):
            np.testing.assert_allclose(t.numpy().ravel(), wanted["values"], rtol=1e-8, atol=1e-8)
        if has_gradient:
            np.testing.assert_allclose(made[-1].numpy().ravel(), case["gradient"], rtol=1e-8, atol=1e-8)
