"""Losses where stored results don't reach: limits, errors, state, classes out of range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn

F = nn.functional


def grad(f: Any, *values: Any) -> list[Any]:
    tensors = [kiln.tensor(v, requires_grad=True) for v in values]
    f(*tensors).sum().backward()
    return [t.grad.tolist() for t in tensors]  # type: ignore[union-attr]


def test_binary_cross_entropy_at_certainty() -> None:
    p, t = kiln.tensor([0.0, 1.0, 0.0, 1.0]), kiln.tensor([0.0, 1.0, 1.0, 0.0])
    assert F.binary_cross_entropy(p, t, reduction="none").tolist() == [0.0, 0.0, 100.0, 100.0]
    (g,) = grad(lambda p: F.binary_cross_entropy(p, t, reduction="none"), p.tolist())
    assert np.allclose(g[2:], [-1e12, 1e12], rtol=1e-6) and np.isfinite(g).all()
    assert math.isnan(F.binary_cross_entropy(kiln.tensor([1.5]), kiln.tensor([1.0])).item())


def test_logits_of_any_size() -> None:
    x = kiln.tensor([-1e30, -200.0, 0.0, 200.0, 1e30])
    for t, expected in ((0.0, [0.0, 0.0, math.log(2), 200.0, 1e30]), (1.0, [1e30, 200.0, math.log(2), 0.0, 0.0])):
        got = F.binary_cross_entropy_with_logits(x, kiln.full((5,), t), reduction="none").numpy()
        assert np.allclose(got, expected, rtol=1e-6)
    assert F.soft_margin_loss(x, kiln.ones(5), reduction="none").tolist()[0] == pytest.approx(1e30)
    (g,) = grad(lambda x: F.binary_cross_entropy_with_logits(x, kiln.full((5,), 0.25), reduction="none"), x.tolist())
    assert np.allclose(g, [-0.25, -0.25, 0.25, 0.75, 0.75])


def test_divergence_of_impossible_targets() -> None:
    x = kiln.tensor([-1.0, -2.0])
    assert F.kl_div(x, kiln.tensor([0.0, 1.0]), reduction="none").tolist() == [0.0, 2.0]
    (gx, gt) = grad(lambda x, t: F.kl_div(x, t, reduction="none"), [-1.0, -2.0], [0.0, 1.0])
    assert gx == [0.0, -1.0] and np.isfinite(gt).all()


def test_smooth_losses_meet_at_the_edge() -> None:
    for loss in (lambda x: F.smooth_l1_loss(x, kiln.zeros(3)), lambda x: F.huber_loss(x, kiln.zeros(3))):
        (g,) = grad(loss, [-1.0, 0.0, 1.0])
        assert np.allclose(g, [-1 / 3, 0.0, 1 / 3])


def test_classes_out_of_range_and_ignored() -> None:
    x = kiln.zeros(2, 3)
    for f in (F.cross_entropy, F.nll_loss, F.multi_margin_loss):
        for y in ([0, 3], [0, -1]):
            with pytest.raises(kiln.KilnIndexError):
                f(x, kiln.tensor(y))
    assert math.isnan(F.nll_loss(x, kiln.tensor([-100, -100])).item())
    assert F.nll_loss(x, kiln.tensor([-100, -100]), reduction="sum").item() == 0.0
    assert F.cross_entropy(x, kiln.tensor([0, 7]), ignore_index=7).item() == pytest.approx(math.log(3))


def test_class_weights_are_state() -> None:
    loss = nn.CrossEntropyLoss(weight=kiln.ones(3))
    assert list(loss.state_dict()) == ["weight"] and repr(loss) == "CrossEntropyLoss()"
    assert list(nn.BCEWithLogitsLoss(pos_weight=kiln.ones(2)).state_dict()) == ["pos_weight"]
    assert list(nn.CrossEntropyLoss().state_dict()) == []
    assert loss.double().weight.dtype is kiln.float64  # type: ignore[union-attr]
    assert nn.MSELoss(reduce=False).reduction == "none" and nn.MSELoss(size_average=False).reduction == "sum"


def test_strided_and_empty_inputs() -> None:
    x = kiln.randn(4, 6).t()[::2]
    y = kiln.tensor([0, 3, 1])
    assert F.cross_entropy(x, y).item() == F.cross_entropy(x.contiguous(), y).item()
    assert math.isnan(F.mse_loss(kiln.zeros(0), kiln.zeros(0)).item())
    assert F.l1_loss(kiln.zeros(0), kiln.zeros(0), reduction="sum").item() == 0.0
    assert F.cross_entropy(kiln.zeros(0, 3), kiln.zeros(0, dtype=kiln.int64), reduction="none").shape == (0,)


@pytest.mark.parametrize("loss", [F.l1_loss, F.mse_loss, F.smooth_l1_loss, F.huber_loss])
def test_what_is_broadcast_is_warned_of(loss: Any) -> None:
    """(n, 1) beside (n,) is a mistake that trains."""
    with pytest.warns(UserWarning, match=r"target size \(kiln.Size\(\[3\]\)\) that is different") as caught:
        loss(kiln.zeros(3, 1), kiln.zeros(3))
    assert caught[0].filename == __file__


a, b, c3 = kiln.ones(2, 3), kiln.ones(3, 2), kiln.tensor([0, 1])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: F.l1_loss(a, b), kiln.ShapeError),
        (lambda: F.l1_loss(a, a, reduction="average"), kiln.InvalidValueError),
        (lambda: nn.L1Loss(reduction="batchmean"), kiln.InvalidValueError),
        (lambda: F.mse_loss(a, a, weight=kiln.ones(3)), kiln.InvalidValueError),
        (lambda: F.smooth_l1_loss(a, a, beta=-1.0), kiln.InvalidValueError),
        (lambda: F.huber_loss(a, a, delta=0.0), kiln.InvalidValueError),
        (lambda: F.nll_loss(a, kiln.ones(2)), kiln.DTypeError),
        (lambda: F.nll_loss(a, kiln.tensor([0])), kiln.ShapeError),
        (lambda: F.nll_loss(kiln.ones(()), c3), kiln.ShapeError),
        (lambda: F.nll_loss(a, c3, kiln.ones(2)), kiln.ShapeError),
        (lambda: F.cross_entropy(a, c3, label_smoothing=1.5), kiln.InvalidValueError),
        (lambda: F.cross_entropy(a, c3, label_smoothing=0.5, weight=kiln.ones(1)), kiln.ShapeError),
        (lambda: F.binary_cross_entropy(a, kiln.ones(3)), kiln.ShapeError),
        (lambda: F.binary_cross_entropy_with_logits(a, kiln.ones(3)), kiln.InvalidValueError),
        (lambda: F.gaussian_nll_loss(a, a, kiln.ones(7)), kiln.InvalidValueError),
        (lambda: F.cosine_embedding_loss(a, a, kiln.ones(2, 1)), kiln.ShapeError),
        (lambda: F.margin_ranking_loss(a, a, kiln.ones(3)), kiln.ShapeError),
        (lambda: F.triplet_margin_loss(a, a, kiln.ones(3)), kiln.ShapeError),
        (lambda: F.triplet_margin_loss(a, a, a, margin=0.0), kiln.InvalidValueError),
        (lambda: F.multilabel_soft_margin_loss(a, b), kiln.ShapeError),
        (lambda: F.multi_margin_loss(a, c3, p=3), kiln.InvalidValueError),
        (lambda: F.multi_margin_loss(kiln.ones(1, 2, 3), c3), kiln.ShapeError),
    ],
)  # fmt: skip
def test_errors(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
