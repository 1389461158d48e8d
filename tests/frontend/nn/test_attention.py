"""Attention where stored results don't reach: masks that hide everything, chance, invariances, errors, training."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn

F = nn.functional
sdpa = F.scaled_dot_product_attention


def same(a: Any, b: Any) -> None:
    assert a.shape == b.shape and a.detach().numpy().tobytes() == b.detach().numpy().tobytes()


def test_a_query_that_sees_nothing_gets_zeros_and_no_gradient() -> None:
    q, k, v = (kiln.randn(2, 3, 4).requires_grad_() for _ in range(3))
    mask = kiln.tensor([[True, False, True], [False, False, False], [True, True, True]])
    out = sdpa(q, k, v, mask)
    assert not out[:, 1].any().item()
    out.sum().backward()
    for x in (q, k, v):
        assert x.grad is not None and np.isfinite(x.grad.numpy()).all()
    assert not q.grad[:, 1].any().item()  # type: ignore[index]


def test_masks_that_say_the_same() -> None:
    q, k, v = (kiln.randn(2, 5, 4) for _ in range(3))
    mask = kiln.tensor(np.tril(np.ones((5, 5), bool)))
    same(sdpa(q, k, v, is_causal=True), sdpa(q, k, v, mask))
    same(sdpa(q, k, v, mask), sdpa(q, k, v, nn.Transformer.generate_square_subsequent_mask(5)))


def test_a_query_does_not_depend_on_the_others() -> None:
    q, k, v = kiln.randn(3, 7, 8), kiln.randn(3, 9, 8), kiln.randn(3, 9, 8)
    whole = sdpa(q, k, v)
    same(whole[1, 4:5], sdpa(q[1, 4:5], k[1], v[1]))
    groups = sdpa(q.reshape(1, 3, 7, 8), k[:1].unsqueeze(0), v[:1].unsqueeze(0), enable_gqa=True)
    same(groups[0, 2], sdpa(q[2], k[0], v[0]))


def test_dropout_of_weights() -> None:
    kiln.manual_seed(0)
    q = kiln.zeros(1, 400, 4)
    out = sdpa(q, q, kiln.ones(1, 400, 1), dropout_p=0.5)
    assert out.numpy().mean() == pytest.approx(1.0, abs=0.02) and out.numpy().std() > 0.01
    layer = nn.MultiheadAttention(4, 2, dropout=0.5)
    x = kiln.randn(3, 2, 4)
    assert layer(x, x, x)[0].tolist() != layer(x, x, x)[0].tolist()
    layer.eval()
    same(layer(x, x, x)[0], layer(x, x, x)[0])


def test_weights_are_returned_as_asked() -> None:
    layer = nn.MultiheadAttention(6, 3, batch_first=True)
    x = kiln.randn(2, 4, 6)
    out, weights = layer(x, x, x)
    assert out.shape == (2, 4, 6) and weights.shape == (2, 4, 4)
    assert np.allclose(weights.detach().numpy().sum(-1), 1, atol=1e-6)
    each = layer(x, x, x, average_attn_weights=False)[1]
    assert each.shape == (2, 3, 4, 4)
    same(each.mean(1), weights)
    plain, none = layer(x, x, x, need_weights=False)
    assert none is None and np.allclose(plain.detach().numpy(), out.detach().numpy(), atol=1e-6)
    assert layer(x[0], x[0], x[0])[1].shape == (4, 4)
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    hinted = layer(x, x, x, attn_mask=mask, need_weights=False, is_causal=True)[0]
    assert np.allclose(hinted.detach().numpy(), layer(x, x, x, attn_mask=mask)[0].detach().numpy(), atol=1e-6)


def test_attention_starts_like_torch() -> None:
    kiln.manual_seed(1)
    layer = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    bound = math.sqrt(6 / (4 * 64))
    w = layer.in_proj_weight.detach().numpy()  # type: ignore[union-attr]
    assert abs(w).max() <= bound and w.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not layer.in_proj_bias.any().item()  # type: ignore[union-attr]
    assert not layer.out_proj.bias.any().item()  # type: ignore[union-attr]
    assert list(layer.state_dict()) == [
        "in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj.weight", "out_proj.bias",
    ]  # fmt: skip


def test_encoder_copies_its_layer() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(4))
    assert encoder.layers[0].linear1.weight is not layer.linear1.weight
    same(encoder.layers[0].linear1.weight, encoder.layers[1].linear1.weight)
    twin = copy.deepcopy(encoder).eval()
    x = kiln.randn(3, 2, 4)
    same(twin(x), encoder.eval()(x))
    custom = nn.TransformerEncoderLayer(4, 2, 8, activation=kiln.tanh)
    assert custom(x).shape == (3, 2, 4)


def test_training_step_compiled() -> None:
    def losses(compiled: bool) -> list[float]:
        kiln.manual_seed(2)
        net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), 2)
        opt = kiln.optim.Adam(net.parameters(), lr=0.01)
        x = kiln.randn(4, 5, 8)
        mask = nn.Transformer.generate_square_subsequent_mask(5)

        def step(x: kiln.Tensor) -> kiln.Tensor:
            loss = F.mse_loss(net(x, mask, is_causal=True), x.tanh())
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss

        f = kiln.compile(step) if compiled else step
        return [f(x).item() for _ in range(8)]

    eager = losses(False)
    assert eager[-1] < eager[0] and losses(True) == eager


x = kiln.ones(3, 2, 4)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: sdpa(x, kiln.ones(3, 2, 5), x), kiln.ShapeError),
        (lambda: sdpa(x, x, kiln.ones(3, 4, 4)), kiln.ShapeError),
        (lambda: sdpa(x, x, x, kiln.ones(2, 2), is_causal=True), kiln.InvalidValueError),
        (lambda: sdpa(x, kiln.ones(2, 2, 4), kiln.ones(2, 2, 4), enable_gqa=True), kiln.ShapeError),
        (lambda: sdpa(x, x, x, dropout_p=2.0), kiln.InvalidValueError),
        (lambda: nn.MultiheadAttention(5, 2), kiln.InvalidValueError),
        (lambda: nn.MultiheadAttention(6, 2)(x, x, x), kiln.ShapeError),
        (lambda: nn.MultiheadAttention(4, 2)(x, x, x[:2]), kiln.ShapeError),
        (lambda: nn.MultiheadAttention(4, 2)(x, x, x, is_causal=True), kiln.InvalidValueError),
        (lambda: nn.MultiheadAttention(4, 2)(x, x, x, attn_mask=kiln.ones(3, 4)), kiln.ShapeError),
        (lambda: nn.MultiheadAttention(4, 2)(x, x, x, attn_mask=kiln.arange(3)), kiln.DTypeError),
        (lambda: nn.MultiheadAttention(4, 2)(x, x, x, kiln.ones(3, 3)), kiln.ShapeError),
        (lambda: nn.MultiheadAttention(4, 2, device="cuda"), kiln.DeviceError),
        (lambda: nn.TransformerEncoderLayer(4, 2, activation="swish"), kiln.InvalidValueError),
        (lambda: nn.TransformerEncoderLayer(4, 2, activation=3), kiln.ArgumentError),
        (lambda: nn.Transformer(4, 2, 1, 1, 8)(x, kiln.ones(3, 1, 4)), kiln.ShapeError),
        (lambda: nn.Transformer(6, 2, 1, 1, 8)(x, x), kiln.ShapeError),
    ],
)  # fmt: skip
def test_errors(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
