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


def halves_what_it_read(x: kiln.Tensor, w: kiln.Tensor) -> list[kiln.Tensor]:
    """The gradient of the first result needs what was overwritten; that of the second does not."""
    y = x * w
    z = x * x
    with kiln.no_grad():
        x.mul_(0.5)
    return [z * 1, w * 2 + y.detach()]


def overwrites_a_result(x: kiln.Tensor, w: kiln.Tensor) -> list[kiln.Tensor]:
    z = kiln.tanh(x * w)
    y = kiln.tanh(z)
    y[:] = z.abs().cumsum(0)
    return [y, z]


@pytest.mark.parametrize("wrap", [kiln.compile, kiln.jit.script])
@pytest.mark.parametrize("function", [halves_what_it_read, overwrites_a_result])
def test_derivatives_that_pass_by_what_was_overwritten(function: Any, wrap: Any) -> None:
    """A higher derivative is refused where eager's tape refuses it, and only there."""

    def walked(function: Any) -> list[Any]:
        found: list[Any] = []
        for number in (0, 1, 0):
            for wanted in (0, 1):
                x = kiln.tensor([1.0, 2.0, 3.0], requires_grad=True)
                w = kiln.tensor([0.5, -1.0, 2.0], requires_grad=True)
                result = function(x, w)[number].square().sum()
                try:
                    (g,) = kiln.autograd.grad(result, [[x, w][wanted]], create_graph=True, allow_unused=True)
                    found.append(None if g is None else g.tolist())
                    if g is not None:
                        g.square().sum().backward()
                    found += [None if t.grad is None else t.grad.tolist() for t in (x, w)]
                except kiln.errors.GradError:
                    found.append("refused")
        return found

    wanted = walked(function)
    assert "refused" in wanted or function is overwrites_a_result
    opened = wrap(function)
    for _ in range(2):
        assert walked(opened) == wanted
