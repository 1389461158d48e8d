"""What is written in place has the gradient of the same thing written elsewhere, whatever the derivative reads."""

from __future__ import annotations

from typing import Any

import pytest

import kiln
import kiln.nn.functional as F

ACTIVATIONS = (
    *("relu", "silu", "elu", "celu", "selu", "leaky_relu", "hardtanh", "relu6", "hardsigmoid", "hardswish", "mish"),
    *("rrelu", "softplus", "logsigmoid"),
)


def gradient(function: Any, x: Any) -> list[float]:
    x = x.detach().requires_grad_()
    base = x.clone()
    out = function(base)
    (out * out).sum().backward()
    return x.grad.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_in_place(name: str) -> None:
    function = getattr(F, name)
    x = kiln.tensor([-2.5, -0.5, 0.25, 1.5, 7.0])
    wanted = gradient(function, x)
    assert gradient(lambda t: function(t, inplace=True), x) == wanted
    assert gradient(kiln.compile(lambda t: function(t.clone(), inplace=True)), x) == wanted


@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_reduced_into_what_has_no_gradient(reduce: str) -> None:
    """The derivative of the values reads the tensor as it was, also where that needs no gradient."""
    values, index = kiln.tensor([5.0, 1.0, 2.0]), kiln.tensor([0, 1, 0])
    wanted = gradient(lambda v: kiln.scatter_reduce(kiln.ones(2), 0, index, v, reduce), values)
    assert gradient(lambda v: kiln.ones(2).scatter_reduce_(0, index, v, reduce), values) == wanted
    if reduce != "sum":
        assert gradient(lambda v: kiln.ones(2).index_reduce_(0, index, v, reduce), values) == wanted
