"""Shuffled channels, padded volumes, and the margin loss of several labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.checking import Array, agrees, compiles, differentiates

RNG = np.random.default_rng(9)


def test_channel_shuffle() -> None:
    x = RNG.normal(size=(2, 6, 3))
    order = [0, 2, 4, 1, 3, 5]
    agrees(lambda t: F.channel_shuffle(t, 3), lambda a: a[:, order], x)
    agrees(lambda t: kiln.channel_shuffle(t, 3), lambda a: a[:, order], RNG.normal(size=(3, 6, 2)).T)
    assert nn.ChannelShuffle(3)(kiln.from_numpy(x)).tolist() == x[:, order].tolist()
    assert repr(nn.ChannelShuffle(3)) == "ChannelShuffle(groups=3)"
    differentiates(lambda t: F.channel_shuffle(t, 2), x)
    with pytest.raises(kiln.ShapeError, match="channel_shuffle"):
        F.channel_shuffle(kiln.from_numpy(x), 4)


@pytest.mark.parametrize(
    "layer, options",
    [
        (nn.ZeroPad3d, {"mode": "constant"}),
        (lambda p: nn.ConstantPad3d(p, 2.5), {"mode": "constant", "constant_values": 2.5}),
        (nn.ReflectionPad3d, {"mode": "reflect"}),
        (nn.ReplicationPad3d, {"mode": "edge"}),
        (nn.CircularPad3d, {"mode": "wrap"}),
    ],
)
def test_padded_volumes(layer: Any, options: dict[str, Any]) -> None:
    x = RNG.normal(size=(2, 3, 3, 4, 3))
    widths = [(0, 0), (0, 0), (2, 1), (0, 1), (1, 2)]
    made = layer((1, 2, 0, 1, 2, 1))
    agrees(lambda t: made(t), lambda a: np.pad(a, widths, **options), x)
    differentiates(lambda t: layer(1)(t), x)


def margin(x: Array, y: Array) -> float:
    labels = [int(k) for k in y[: [*y, -1].index(-1)]]  # up to the first -1
    others = [c for c in range(len(x)) if c not in labels]
    return sum(max(0.0, 1 - x[k] + x[c]) for k in labels for c in others) / len(x)


def test_multilabel_margin_loss() -> None:
    x, y = RNG.normal(size=(4, 4)), np.array([[3, 0, -1, 1], [-1, 0, 1, 2], [0, 1, 2, 3], [2, -1, -1, -1]])
    wanted = [margin(a, b) for a, b in zip(x, y, strict=True)]
    t, target = kiln.from_numpy(x), kiln.from_numpy(y)
    np.testing.assert_allclose(F.multilabel_margin_loss(t, target, reduction="none").numpy(), wanted, rtol=1e-13)
    assert nn.MultiLabelMarginLoss()(t, target).item() == pytest.approx(np.mean(wanted), rel=1e-13)
    assert F.multilabel_margin_loss(t[0], target[0]).item() == pytest.approx(wanted[0], rel=1e-13)
    compiles(F.multilabel_margin_loss, x.astype(np.float32), y)
    differentiates(lambda v: F.multilabel_margin_loss(v, target), x)
    with pytest.raises(kiln.ShapeError, match="multilabel_margin_loss"):
        F.multilabel_margin_loss(t, target[:2])
