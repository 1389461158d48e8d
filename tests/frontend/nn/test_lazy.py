"""Layers that learn their input's size from the first call."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.LazyConv2d(8, 3, groups=2), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5, bias=False)
    )


SHAPES = [(8, 2, 3, 3), (8,), (8,), (8,), (5, 128)]


def test_the_first_call_makes_ordinary_layers() -> None:
    m = net()
    parameters = list(m.parameters())
    assert all(isinstance(p, nn.UninitializedParameter) for p in parameters)
    assert isinstance(m[1].running_mean, nn.UninitializedBuffer)
    assert repr(m[4]) == "LazyLinear(in_features=0, out_features=5, bias=False)"
    kiln.manual_seed(1)
    assert m(kiln.ones(3, 4, 6, 6)).shape == (3, 5)
    assert [p.shape for p in m.parameters()] == SHAPES
    assert all(p is q for p, q in zip(parameters, m.parameters(), strict=True))
    assert all(type(p) is nn.Parameter and p.requires_grad for p in parameters)
    assert [type(x) for x in m] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.Linear]
    assert m[0].in_channels == 4 and m[1].num_features == 8 and m[4].in_features == 128
    assert m[1].num_batches_tracked.item() == 1 and not m[0]._forward_pre_hooks
    assert float(m[4].weight.abs().max()) <= 128**-0.5


@pytest.mark.parametrize(
    "layer, shape, become, result, state",
    [
        (lambda: nn.LazyConv1d(3, 2, padding="same"), (4, 5), nn.Conv1d, (3, 5), [(3, 4, 2), (3,)]),
        (lambda: nn.LazyConv3d(3, 2, device="cpu"), (4, 5, 5, 5), nn.Conv3d, (3, 4, 4, 4), [(3, 4, 2, 2, 2), (3,)]),
        (
            lambda: nn.LazyConvTranspose3d(2, 2),
            (1, 4, 2, 2, 2),
            nn.ConvTranspose3d,
            (1, 2, 3, 3, 3),
            [(4, 2, 2, 2, 2), (2,)],
        ),
        (lambda: nn.LazyConvTranspose1d(3, 2), (2, 4, 5), nn.ConvTranspose1d, (2, 3, 6), [(4, 3, 2), (3,)]),
        (
            lambda: nn.LazyConvTranspose2d(4, 2, groups=2, bias=False),
            (2, 4, 5, 5),
            nn.ConvTranspose2d,
            (2, 4, 6, 6),
            [(4, 2, 2, 2)],
        ),
        (
            lambda: nn.LazyInstanceNorm1d(affine=True, track_running_stats=True),
            (2, 4, 5),
            nn.InstanceNorm1d,
            (2, 4, 5),
            [(4,), (4,), (4,), (4,), ()],
        ),
        (lambda: nn.LazyInstanceNorm2d(), (2, 4, 5, 5), nn.InstanceNorm2d, (2, 4, 5, 5), [*[(4,)] * 4, ()]),
        (
            lambda: nn.LazyInstanceNorm3d(affine=False),
            (2, 4, 3, 3, 3),
            nn.InstanceNorm3d,
            (2, 4, 3, 3, 3),
            [(4,), (4,), ()],
        ),
        (lambda: nn.LazyBatchNorm1d(affine=False), (2, 4), nn.BatchNorm1d, (2, 4), [(4,), (4,), ()]),
        (
            lambda: nn.LazyBatchNorm3d(track_running_stats=False),
            (2, 4, 2, 2, 2),
            nn.BatchNorm3d,
            (2, 4, 2, 2, 2),
            [(4,), (4,)],
        ),
    ],
)
def test_layers(layer: Any, shape: Any, become: Any, result: Any, state: Any) -> None:
    made = layer()
    assert made(kiln.randn(shape)).shape == result
    assert type(made) is become and [x.shape for x in made.state_dict().values()] == state


def test_states() -> None:
    m, other = net(), net()
    x = kiln.randn(3, 4, 6, 6)
    assert list(m.state_dict()) == list(other.state_dict())
    assert isinstance(m.state_dict()["0.weight"], nn.UninitializedParameter)
    m(x)
    assert str(other.load_state_dict(m.state_dict())) == "<All keys matched successfully>"
    assert [p.shape for p in other.parameters()] == SHAPES and type(other[0]) is nn.LazyConv2d
    assert (other.eval()(x) == m.eval()(x)).all() and type(other[0]) is nn.Conv2d and other[0].in_channels == 4
    assigned = net()
    assigned.load_state_dict(m.state_dict(), assign=True)
    assert (assigned.eval()(x) == m(x)).all()
    with pytest.raises(kiln.LoadError, match="has no shape in the state"):
        m.load_state_dict(net().state_dict())
    net().load_state_dict(net().state_dict())  # nothing to copy


def test_copies_and_dtypes() -> None:
    m = copy.deepcopy(net()).double()
    assert m[0].weight.dtype is kiln.float64
    m(kiln.randn(3, 4, 6, 6, dtype=kiln.float64))
    assert {x.dtype for x in m.state_dict().values()} == {kiln.float64, kiln.int64}
    copied = copy.deepcopy(first := nn.LazyLinear(2))
    copied(kiln.ones(1, 3))
    assert type(first) is nn.LazyLinear and first.has_uninitialized_params()


def test_training_and_compiling() -> None:
    m = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(1))
    x = kiln.randn(6, 3)
    with pytest.raises(kiln.CaptureError, match="lazy"):
        kiln.compile(m, fullgraph=True)(x)
    wanted = m(x)
    np.testing.assert_array_equal(kiln.compile(m)(x).detach().numpy(), wanted.detach().numpy())
    wanted.sum().backward()
    assert all(p.grad is not None for p in m.parameters())


def test_refusals() -> None:
    layer = nn.LazyLinear(3)
    for use in (lambda: layer.weight.shape, lambda: layer.weight + 1.0, lambda: layer.weight.sum()):
        with pytest.raises(ValueError, match="uninitialized parameter"):
            use()
    with pytest.raises(kiln.ShapeError, match="LazyConv2d"):
        nn.LazyConv2d(3, 3)(kiln.ones(3, 3))
    with pytest.raises(kiln.ShapeError, match="LazyBatchNorm2d"):
        nn.LazyBatchNorm2d()(kiln.ones(3, 3))
    with pytest.raises(kiln.InvalidValueError, match="divided"):
        nn.LazyConv2d(3, 3, groups=2)
    with pytest.raises(kiln.InvalidValueError, match="divided"):
        nn.LazyConv2d(4, 3, groups=2)(kiln.ones(1, 3, 5, 5))
