"""What is seldom used, or has a newer name. `test_golden.py` holds many of these against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.checking import compiles, differentiates

INTEGERS = [kiln.int8, kiln.int16, kiln.int32, kiln.int64]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_piecewise_activations_of_integers(dtype: kiln.dtype) -> None:
    x = kiln.tensor([-3, 0, 2, 9], dtype=dtype)
    for got, wanted in [
        (F.relu6(x), [0, 0, 2, 6]),
        (F.hardtanh(x), [-1, 0, 1, 1]),
        (F.hardtanh(x, -0.5, 2.5), [0, 0, 2, 2]),
        (F.threshold(x, 1, 7), [7, 7, 2, 9]),
        (F.threshold(x, 0.5, 2.7), [2, 2, 2, 9]),
        (nn.Threshold(1, 7)(x), [7, 7, 2, 9]),
    ]:
        assert got.tolist() == wanted and got.dtype is dtype
    assert F.softsign(x).tolist() == F.softsign(x.float()).tolist()
    assert F.tanhshrink(x).dtype is kiln.float32
    assert F.relu6(x, inplace=True) is x and x.tolist() == [0, 0, 2, 6]


def test_bytes_and_bools() -> None:
    x = kiln.tensor([253, 0, 2, 9], dtype=kiln.uint8)
    assert F.relu6(x).tolist() == [6, 0, 2, 6] and F.threshold(x, 1, 7).tolist() == [253, 7, 2, 9]
    with pytest.raises(kiln.InvalidValueError, match="min_val -1 is negative"):
        F.hardtanh(x)
    flags = kiln.tensor([True])
    calls: list[Callable[[], Any]] = [lambda: F.relu6(flags), lambda: F.softsign(flags), lambda: F.elu(x)]
    for call in calls:
        with pytest.raises(kiln.DTypeError, match="not defined for"):
            call()


IN_PLACE: list[tuple[Any, Any, tuple[Any, ...]]] = [
    (F.relu_, F.relu, ()),
    (F.elu_, F.elu, (0.7,)),
    (F.selu_, F.selu, ()),
    (F.celu_, F.celu, (0.7,)),
    (F.leaky_relu_, F.leaky_relu, (0.3,)),
    (F.hardtanh_, F.hardtanh, (-0.4, 0.6)),
    (F.threshold_, F.threshold, (0.1, -3.0)),
    (F.rrelu_, F.rrelu, (0.1, 0.4)),
]


@pytest.mark.parametrize(("write", "function", "rest"), IN_PLACE, ids=[w.__name__ for w, _, _ in IN_PLACE])
def test_in_place(write: Any, function: Any, rest: tuple[Any, ...]) -> None:
    values = np.random.default_rng(1).normal(size=(4, 6))
    x = kiln.from_numpy(values.copy())
    view = x[1:, ::2]
    assert write(view, *rest) is view
    wanted = values.copy()
    wanted[1:, ::2] = function(kiln.from_numpy(values[1:, ::2].copy()), *rest).numpy()
    assert (x.numpy() == wanted).all()
    compiles(lambda x: write(x.clone(), *rest), values)
    differentiates(lambda x: write(x.clone(), *rest), values)
    differentiates(lambda x: write(x * 2.0, *rest), values)


def test_methods() -> None:
    x = kiln.tensor([-1.0, -0.2, 0.3, 2.0])
    assert x.hardshrink(0.25).tolist() == F.hardshrink(x, 0.25).tolist()
    assert x.prelu(kiln.tensor([0.5])).tolist() == F.prelu(x, kiln.tensor([0.5])).tolist()


# ------------------------------------------------------------------------------------ adaptive softmax


def test_adaptive_softmax_is_a_distribution() -> None:
    kiln.manual_seed(3)
    layer = nn.AdaptiveLogSoftmaxWithLoss(16, 20, [4, 9, 15], div_value=2.0)
    assert [[m.out_features for m in part] for part in layer.tail] == [[8, 5], [4, 6], [2, 5]]
    x, target = kiln.randn(30, 16), kiln.arange(30) % 20
    every = layer.log_prob(x)
    np.testing.assert_allclose(every.exp().sum(1).detach().numpy(), np.ones(30), rtol=1e-5)
    out = layer(x, target)
    picked = every.gather(1, target.unsqueeze(1)).squeeze(1)
    np.testing.assert_allclose(out.output.detach().numpy(), picked.detach().numpy(), rtol=1e-5)
    assert np.isclose(out.loss.item(), -picked.mean().item(), rtol=1e-5)
    assert layer.predict(x).equal(every.argmax(1))
    one = layer(x[0], target[0])
    assert one.output.shape == () and one.output.item() == out.output[0].item()
    before = layer.head.weight.clone()
    layer.reset_parameters()
    assert not layer.head.weight.equal(before)


def test_adaptive_softmax_refuses() -> None:
    for cutoffs in ([], [3, 2], [0, 3], [3, 10], [2, 2]):
        with pytest.raises(kiln.InvalidValueError, match="cutoffs must be"):
            nn.AdaptiveLogSoftmaxWithLoss(4, 10, cutoffs)
    layer = nn.AdaptiveLogSoftmaxWithLoss(4, 10, [3])
    for target in (10, -1):
        with pytest.raises(kiln.KilnIndexError):
            layer(kiln.ones(1, 4), kiln.tensor([target]))
    for shapes in (((2, 4), (3,)), ((4,), (1,)), ((2, 4), (2, 4))):
        with pytest.raises(kiln.ShapeError, match="expects samples"):
            layer(kiln.ones(shapes[0]), kiln.zeros(shapes[1], dtype=kiln.int64))


# ------------------------------------------------------------------------------------------------ norms


@pytest.mark.parametrize(("size", "half"), [(1, 0), (3, 1), (4, 1), (5, 2)])
def test_cross_map_lrn(size: int, half: int) -> None:
    x = np.random.default_rng(2).normal(size=(2, 7, 2, 3))
    squares = x**2
    total = np.zeros_like(x)
    for c in range(7):
        channels = {0, *range(max(0, c - half), min(7, c + half + 1))}  # 0 for all, as PyTorch
        total[:, c] = squares[:, sorted(channels)].sum(1)
    wanted = x * (1.5 + 0.3 / size * total) ** -0.6
    layer = nn.CrossMapLRN2d(size, 0.3, 0.6, 1.5)
    np.testing.assert_allclose(layer(kiln.from_numpy(x)).numpy(), wanted, rtol=1e-12)
    assert repr(layer) == f"CrossMapLRN2d({size}, alpha=0.3, beta=0.6, k=1.5)"
    differentiates(layer, x)


def test_sync_batch_norm() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, affine=False), nn.Sequential(nn.BatchNorm1d(4)))
    net[2].eval()
    made = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert type(made[1]) is nn.SyncBatchNorm and type(made[2][0]) is nn.SyncBatchNorm and type(made[0]) is nn.Conv2d
    assert made[1].training and not made[2][0].training and made[2][0].num_features == 4
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm3d(2))) is nn.SyncBatchNorm
    x, plain, sync = kiln.randn(4, 3, 2, 2), nn.BatchNorm2d(3), nn.SyncBatchNorm(3)
    assert sync(x).equal(plain(x)) and sync.running_var.equal(plain.running_var)
    with pytest.raises(kiln.NotYetError, match="process groups"):
        nn.SyncBatchNorm(3, process_group=1)
    with pytest.raises(kiln.ShapeError, match="at least 2D"):
        sync(kiln.ones(3))


# ----------------------------------------------------------------------------------------- older names


def test_older_names_warn() -> None:
    image = kiln.arange(8.0).reshape(1, 2, 2, 2)
    for call, wanted in [
        (lambda: F.upsample(image, scale_factor=2), F.interpolate(image, scale_factor=2)),
        (lambda: F.upsample_nearest(image, 3), F.interpolate(image, 3)),
        (
            lambda: F.upsample_bilinear(image, scale_factor=2),
            F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=True),
        ),
    ]:
        with pytest.warns(UserWarning, match="is deprecated. Use `nn.functional.interpolate` instead"):
            assert call().equal(wanted)
    with pytest.warns(FutureWarning, match="NLLLoss2d"):
        loss = nn.NLLLoss2d(ignore_index=1)
    assert isinstance(loss, nn.NLLLoss) and loss.ignore_index == 1


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("uniform", (-1.0, 2.0)), ("normal", (1.0, 3.0)), ("constant", (2.0,)), ("eye", ()), ("orthogonal", ()),
        ("sparse", (0.5,)), ("xavier_uniform", ()), ("xavier_normal", (2.0,)), ("kaiming_uniform", ()),
        ("kaiming_normal", ()),
    ],
)  # fmt: skip
def test_initial_values_under_older_names(name: str, rest: tuple[Any, ...]) -> None:
    kiln.manual_seed(1)
    wanted = getattr(nn.init, f"{name}_")(kiln.empty(3, 4), *rest)
    kiln.manual_seed(1)
    given = kiln.empty(3, 4)
    message = f"`nn.init.{name}` is now deprecated in favor of `nn.init.{name}_`."
    with pytest.warns(FutureWarning, match=message):
        assert getattr(nn.init, name)(given, *rest) is given
    assert given.equal(wanted)
