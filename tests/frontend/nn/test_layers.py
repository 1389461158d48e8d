"""What stored results can't show: chance, edge cases, errors, representations, float32 accuracy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn

F = nn.functional


def bits(x: Any) -> bytes:
    return bytes(x.detach().numpy().tobytes())


# ------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("name", ["Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout"])
def test_dropout_keeps_the_right_share(name: str) -> None:
    kiln.manual_seed(1)
    layer = getattr(nn, name)(0.25)
    shape = (200, 100, 4, 3) if name in ("Dropout2d", "FeatureAlphaDropout") else (200, 100, 4)
    x = kiln.ones(shape, requires_grad=True)
    y = layer(x)
    values = np.unique(y.detach().numpy())
    assert len(values) == 2  # dropped and kept
    kept = (y.detach().numpy() == values.max()).reshape(200, 100, -1)
    by_channel = name not in ("Dropout", "AlphaDropout")
    assert (kept.all(-1) | ~kept.any(-1)).all() == by_channel
    assert kept.mean() == pytest.approx(0.75, abs=0.01)
    if "Alpha" not in name:
        assert values.tolist() == [0.0, np.float32(1 / 0.75)]
    y.sum().backward()
    scale = values.max() if "Alpha" not in name else 1 / math.sqrt((1.7580993408473766**2 * 0.25 + 1) * 0.75)
    assert np.allclose(x.grad.numpy().reshape(200, 100, -1), kept * scale, rtol=1e-6)  # type: ignore[union-attr]
    layer.eval()
    assert layer(x) is x


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    kiln.manual_seed(0)
    y = nn.AlphaDropout(0.3)(kiln.randn(100_000)).numpy()
    assert abs(y.mean()) < 0.02 and y.std() == pytest.approx(1, abs=0.02)


def test_dropout_in_place_and_single_samples() -> None:
    x = kiln.ones(5, 8)
    assert nn.Dropout(0.5, inplace=True)(x) is x and sorted(set(x.reshape(-1).tolist())) == [0.0, 2.0]
    single = kiln.ones(50, 4)
    y = F.dropout1d(single, 0.5, inplace=True)
    assert y is single and (y.numpy() == y.numpy()[:, :1]).all()
    with pytest.raises(kiln.ShapeError):
        F.dropout1d(kiln.ones(2), 0.5)
    with pytest.raises(kiln.ShapeError):
        F.dropout2d(kiln.ones(2), 0.5)
    for p in (-0.1, 1.5):
        with pytest.raises(kiln.InvalidValueError, match="probability"):
            nn.Dropout(p)
        with pytest.raises(kiln.InvalidValueError):
            F.dropout(kiln.ones(2), p)


def test_dropout_draws_anew_in_every_compiled_call() -> None:
    layer = nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5))
    x = kiln.ones(4, 8, 2, 2)

    def calls(f: Any) -> list[bytes]:
        kiln.manual_seed(7)
        return [bits(f(x)) for _ in range(4)]

    eager = calls(layer)
    assert len(set(eager)) == 4
    assert calls(kiln.compile(layer)) == eager


# ------------------------------------------------------------------------------------------ normalisation


def test_running_statistics_by_hand() -> None:
    layer = nn.BatchNorm1d(1, momentum=0.5)
    layer(kiln.tensor([[1.0], [3.0]]))
    assert layer.running_mean.tolist() == [1.0] and layer.running_var.tolist() == [1.5]  # type: ignore[union-attr]
    assert layer.num_batches_tracked.item() == 1  # type: ignore[union-attr]
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0.0] and layer.running_var.tolist() == [1.0]  # type: ignore[union-attr]
    layer.eval()
    before = layer.state_dict()["running_mean"].clone()
    layer(kiln.randn(3, 1))
    assert layer.running_mean.tolist() == before.tolist()  # type: ignore[union-attr]


def test_float32_norms_are_accurate_far_from_zero() -> None:
    x = kiln.randn(8, 64, dtype=kiln.float64) + 1000.0
    for layer in (nn.LayerNorm(64), nn.BatchNorm1d(64), nn.GroupNorm(4, 64)):
        exact = layer.double()(x).detach().numpy()
        got = layer.float()(x.float()).detach().numpy()
        assert abs(got - exact).max() < 2e-4, layer  # the input itself is rounded to 6e-5


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: nn.BatchNorm1d(3)(kiln.ones(2, 3, 4, 5)), kiln.ShapeError),
        (lambda: nn.BatchNorm2d(3)(kiln.ones(2, 3)), kiln.ShapeError),
        (lambda: nn.BatchNorm1d(3)(kiln.ones(2, 4)), kiln.ShapeError),
        (lambda: nn.BatchNorm1d(3)(kiln.ones(1, 3)), kiln.InvalidValueError),
        (lambda: F.batch_norm(kiln.ones(2, 3), None, None), kiln.InvalidValueError),
        (lambda: nn.InstanceNorm1d(3)(kiln.ones(2, 3, 1)), kiln.InvalidValueError),
        (lambda: nn.InstanceNorm2d(3)(kiln.ones(2, 3)), kiln.ShapeError),
        (lambda: nn.InstanceNorm1d(3, affine=True)(kiln.ones(2, 4, 2)), kiln.ShapeError),
        (lambda: nn.LayerNorm(3)(kiln.ones(2, 4)), kiln.ShapeError),
        (lambda: nn.LayerNorm("a"), kiln.ArgumentError),
        (lambda: F.layer_norm(kiln.ones(2, 3), (3,), kiln.ones(4)), kiln.ShapeError),
        (lambda: F.layer_norm(kiln.arange(3), (3,)), kiln.DTypeError),
        (lambda: F.rms_norm([1.0], (1,)), kiln.ArgumentError),
        (lambda: nn.GroupNorm(2, 3), kiln.InvalidValueError),
        (lambda: F.group_norm(kiln.ones(2, 3), 2), kiln.InvalidValueError),
        (lambda: F.group_norm(kiln.ones(2), 1), kiln.ShapeError),
        (lambda: F.local_response_norm(kiln.ones(2, 3), 1), kiln.ShapeError),
        (lambda: nn.LayerNorm(3, device="cuda"), kiln.DeviceError),
        (lambda: nn.Bilinear(2, 3, 4)(kiln.ones(2, 3), kiln.ones(2, 3)), kiln.ShapeError),
        (lambda: nn.Bilinear(0, 3, 4), kiln.InvalidValueError),
        (lambda: nn.Linear(-1, 4), kiln.InvalidValueError),
        (lambda: nn.Unflatten(1, (4, 2))(kiln.ones(2, 6)), kiln.ShapeError),
        (lambda: nn.Softmax2d()(kiln.ones(2, 6)), kiln.ShapeError),
        (lambda: nn.GELU("erf"), kiln.InvalidValueError),
    ],
)  # fmt: skip
def test_errors(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_empty_and_strided_inputs() -> None:
    assert nn.LayerNorm(3)(kiln.ones(0, 3)).shape == (0, 3)
    assert nn.GroupNorm(1, 3)(kiln.ones(0, 3, 2)).shape == (0, 3, 2)
    assert nn.BatchNorm1d(3).eval()(kiln.ones(0, 3)).shape == (0, 3)
    assert nn.Dropout(0.5)(kiln.ones(0)).shape == (0,)
    assert F.normalize(kiln.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
    x = kiln.randn(6, 4, 5)
    strided = x.permute(2, 1, 0)[::2]
    for layer in (nn.LayerNorm(6), nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4), nn.RMSNorm(6)):
        assert bits(layer(strided)) == bits(layer(strided.contiguous())), layer


def test_the_norm_of_a_zero_vector_has_gradient_zero() -> None:
    x = kiln.zeros(2, 3, requires_grad=True)
    F.normalize(x).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()  # type: ignore[union-attr]
    d = kiln.zeros(2, 3, requires_grad=True)
    F.pairwise_distance(d, kiln.zeros(2, 3), eps=0.0).sum().backward()
    assert not d.grad.any().item()  # type: ignore[union-attr]


def test_rows_do_not_depend_on_the_batch() -> None:
    x = kiln.randn(9, 33)
    layer = nn.LayerNorm(33)
    assert bits(layer(x)[2]) == bits(layer(x[2]))


def test_representations() -> None:
    expected = {
        "BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)": nn.BatchNorm1d(3),
        "InstanceNorm2d(3, eps=1e-05, momentum=0.1, affine=False, bias=False, track_running_stats=False)":
            nn.InstanceNorm2d(3),
        "LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)": nn.LayerNorm(3),
        "GroupNorm(2, 4, eps=1e-05, affine=True, bias=True)": nn.GroupNorm(2, 4),
        "RMSNorm((3,), eps=None, elementwise_affine=True)": nn.RMSNorm(3),
        "Dropout2d(p=0.2, inplace=False)": nn.Dropout2d(0.2),
        "Bilinear(in1_features=1, in2_features=2, out_features=3, bias=True)": nn.Bilinear(1, 2, 3),
        "LocalResponseNorm(2, alpha=0.0001, beta=0.75, k=1.0)": nn.LocalResponseNorm(2),
        "Unflatten(dim=1, unflattened_size=(2, 3))": nn.Unflatten(1, (2, 3)),
        "ReLU(inplace=True)": nn.ReLU(inplace=True),
        "Softmax(dim=None)": nn.Softmax(),
    }  # fmt: skip
    for text, layer in expected.items():
        assert repr(layer) == text


def test_softmax_without_a_dim_follows_the_rank() -> None:
    for shape, dim in (((3,), 0), ((2, 3), 1), ((2, 3, 4), 0), ((2, 3, 4, 5), 1)):
        x = kiln.randn(shape)
        assert bits(nn.Softmax()(x)) == bits(kiln.softmax(x, dim))


def test_relu_in_place() -> None:
    x = kiln.tensor([-1.0, 2.0])
    assert nn.ReLU(True)(x) is x and x.tolist() == [0.0, 2.0]


# ------------------------------------------------------------------------------------------- activations


def test_random_slopes() -> None:
    kiln.manual_seed(0)
    x = -kiln.ones(10_000)
    y = nn.RReLU(0.2, 0.4)(x).numpy()
    assert y.max() < -0.2 and y.min() > -0.4 and y.mean() == pytest.approx(-0.3, abs=0.002)
    assert nn.RReLU(0.2, 0.4).eval()(x[:1]).tolist() == pytest.approx([-0.3])
    with pytest.raises(kiln.InvalidValueError):
        F.rrelu(x, 0.5, 0.4)


def test_gumbel_softmax_draws_by_probability() -> None:
    kiln.manual_seed(0)
    logits = kiln.tensor(np.log([0.1, 0.2, 0.7])).float().expand(20_000, 3).clone().requires_grad_()
    y = F.gumbel_softmax(logits, tau=0.5, hard=True)
    assert set(np.unique(y.detach().numpy().round(5))) == {0.0, 1.0}
    assert np.allclose(y.detach().numpy().mean(0), [0.1, 0.2, 0.7], atol=0.02)
    (y * kiln.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert logits.grad is not None and logits.grad.any().item()
    soft = F.gumbel_softmax(logits, dim=0)
    assert np.allclose(soft.detach().numpy().sum(0), 1, atol=1e-4)


def test_activations_in_place_and_shown() -> None:
    for make in (
        nn.ReLU6,
        nn.SiLU,
        nn.ELU,
        nn.LeakyReLU,
        nn.Hardtanh,
        nn.RReLU,
        lambda **k: nn.Threshold(0.0, 1.0, **k),
    ):
        x = kiln.tensor([-1.0, 0.5, 7.0])
        wanted = make().eval()(x).tolist()
        layer = make(inplace=True).eval()
        assert layer(x) is x and x.tolist() == wanted and repr(layer).endswith("inplace=True)")
    x = kiln.tensor([-1.0, 2.0])
    assert F.relu(x, True) is x
    shown = "ELU(alpha=1.0)|Hardtanh(min_val=-1.0, max_val=1.0)|Softshrink(0.5)|Threshold(threshold=1, value=2)"
    layers = [nn.ELU(), nn.Hardtanh(), nn.Softshrink(), nn.Threshold(1, 2)]
    assert "|".join(map(repr, layers)) == shown
    assert repr(nn.PReLU(3)) == "PReLU(num_parameters=3)" and repr(nn.GLU()) == "GLU(dim=-1)"
    assert nn.Hardtanh(min_value=-2.0).min_val == -2.0
    with pytest.raises(kiln.InvalidValueError):
        nn.Hardtanh(1.0, -1.0)
