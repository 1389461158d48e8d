"""Normalised, orthogonal and fused weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn.utils import parametrizations, parametrize
from tests.frontend.checking import same_bits

RNG = np.random.default_rng(3)
X = kiln.from_numpy(RNG.normal(size=(4, 3)))


def layer(inputs: int = 3, outputs: int = 5) -> nn.Linear:
    m = nn.Linear(inputs, outputs).double()
    with kiln.no_grad():
        for p in m.parameters():
            p.copy_(kiln.from_numpy(RNG.normal(size=p.shape)))
    return m


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim: int | None) -> None:
    m = layer()
    w = m.weight.detach().numpy().copy()
    wanted = m(X).detach()
    assert nn.utils.weight_norm(m, dim=dim) is m
    axis = None if dim is None else 1 - dim
    np.testing.assert_allclose(m.weight_g.detach().numpy(), np.linalg.norm(w, axis=axis, keepdims=dim is not None))
    assert sorted(m.state_dict()) == ["bias", "weight_g", "weight_v"] and repr(m).startswith("Linear(")
    np.testing.assert_allclose(m(X).detach().numpy(), wanted.numpy(), rtol=1e-12)
    m(X).sum().backward()
    assert m.weight_g.grad is not None and m.weight_v.grad is not None
    assert abs((m.weight_v.grad * m.weight_v).sum().item()) < 1e-10  # lengths do not matter
    compiled = kiln.compile(m)
    for _ in range(2):
        assert same_bits(compiled(X).detach().numpy(), m(X).detach().numpy())
    nn.utils.remove_weight_norm(m)
    assert type(m) is nn.Linear and sorted(m.state_dict()) == ["bias", "weight"] and len(list(m.parameters())) == 2
    np.testing.assert_allclose(m(X).detach().numpy(), wanted.numpy(), rtol=1e-12)
    with pytest.raises(kiln.InvalidValueError, match="remove_weight_norm"):
        nn.utils.remove_weight_norm(m)
    with pytest.raises(kiln.InvalidValueError, match="weight_norm"):
        nn.utils.weight_norm(m, "nothing")


def test_spectral_norm() -> None:
    m = layer()
    w = m.weight.detach().numpy().copy()
    nn.utils.spectral_norm(m, n_power_iterations=30)
    assert sorted(m.state_dict()) == ["bias", "weight_orig", "weight_u", "weight_v"]
    np.testing.assert_allclose(m.weight.detach().numpy(), w / np.linalg.svd(w)[1][0], rtol=1e-8)
    u = m.weight_u.clone()
    m.eval()
    result = m(X).detach()
    assert m.weight_u.tolist() == u.tolist()
    m(X).sum().backward()
    assert m.weight_orig.grad is not None
    nn.utils.remove_spectral_norm(m)
    assert sorted(m.state_dict()) == ["bias", "weight"] and m(X).tolist() == result.tolist()
    conv = nn.utils.spectral_norm(nn.ConvTranspose2d(2, 3, 3))
    assert conv.weight_u.shape == (3,) and conv.weight_v.shape == (18,)


def test_spectral_norm_goes_on_while_training() -> None:
    """One step begins with v, as PyTorch's older function does."""
    m = layer()
    w = m.weight.detach().numpy().copy()
    nn.utils.spectral_norm(m)
    u = m.weight_u.numpy().copy()
    m(X)
    v = w.T @ u
    v /= np.linalg.norm(v)
    u = w @ v
    np.testing.assert_allclose(m.weight_v.numpy(), v, rtol=1e-12)
    np.testing.assert_allclose(m.weight_u.numpy(), u / np.linalg.norm(u), rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
@pytest.mark.parametrize("how", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("trivial", [True, False])
def test_orthogonal(shape: tuple[int, int], how: str, trivial: bool) -> None:
    m = layer(*shape)
    before = m.weight.detach().numpy().copy()
    if how == "householder" and not trivial:
        with pytest.raises(kiln.NotYetError, match="orthogonal"):
            parametrizations.orthogonal(m, orthogonal_map=how, use_trivialization=trivial)
        return
    parametrizations.orthogonal(m, orthogonal_map=how, use_trivialization=trivial)
    w = m.weight.detach().numpy()
    product = w @ w.T if w.shape[0] < w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, np.eye(min(w.shape)), atol=1e-12)
    if trivial:
        q, r = np.linalg.qr(before if before.shape[0] >= before.shape[1] else before.T)
        nearest = q * np.sign(np.diag(r))
        np.testing.assert_allclose(w if w.shape[0] >= w.shape[1] else w.T, nearest, atol=1e-12)
    m.weight.sum().backward()
    (original,) = [p for k, p in m.named_parameters() if k.endswith("original")]
    assert original.grad is not None and not original.grad.isnan().any()
    if not trivial:
        with pytest.raises(kiln.NotYetError, match="orthogonal"):
            m.weight = kiln.eye(*w.shape, dtype=kiln.float64)
    parametrize.remove_parametrizations(m, "weight")
    assert type(m) is nn.Linear and m.weight.detach().numpy().tolist() == w.tolist()


def test_orthogonal_stays_so_while_training() -> None:
    m = layer(4, 4)
    parametrizations.orthogonal(m)
    optimiser = kiln.optim.SGD(m.parameters(), 0.1)
    x, y = kiln.from_numpy(RNG.normal(size=(8, 4))), kiln.from_numpy(RNG.normal(size=(8, 4)))
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = ((m(x) - y) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    w = m.weight.detach().numpy()
    np.testing.assert_allclose(w @ w.T, np.eye(4), atol=1e-12)
    assert losses[-1] < losses[0]
    for call, kind in (
        (lambda: parametrizations.orthogonal(m, "bias"), kiln.ShapeError),
        (lambda: parametrizations.orthogonal(layer(), orthogonal_map="other"), kiln.InvalidValueError),
        (lambda: parametrizations.orthogonal(layer(), "nothing"), kiln.InvalidValueError),
    ):
        with pytest.raises(kind, match="orthogonal"):
            call()


def test_cached() -> None:
    m: Any = parametrizations.weight_norm(layer())
    assert m.weight is not m.weight
    with parametrize.cached():
        first = m.weight
        with parametrize.cached():
            assert m.weight is first
        assert m.weight is first
        m.weight = kiln.ones(5, 3, dtype=kiln.float64)
        assert m.weight is not first and m.weight.tolist() == pytest.approx(np.ones((5, 3)))
    assert m.weight is not m.weight

    def f(x: Any) -> Any:
        with parametrize.cached():
            return m(x)

    with pytest.raises(kiln.CaptureError, match="cached"):
        kiln.compile(f, fullgraph=True)(X)


def test_fused_convolution() -> None:
    for bias, affine in ((True, True), (False, False)):
        conv, norm = nn.Conv2d(3, 4, 3, bias=bias).double(), nn.BatchNorm2d(4, affine=affine).double()
        norm.running_mean.copy_(kiln.from_numpy(RNG.normal(size=4)))
        norm.running_var.copy_(kiln.from_numpy(RNG.uniform(1, 2, 4)))
        with pytest.raises(kiln.InvalidValueError, match="fuse_conv_bn_eval"):
            nn.utils.fuse_conv_bn_eval(conv, norm)
        images = kiln.from_numpy(RNG.normal(size=(2, 3, 5, 5)))
        fused = nn.utils.fuse_conv_bn_eval(conv.eval(), norm.eval())
        np.testing.assert_allclose(
            fused(images).detach().numpy(), norm(conv(images)).detach().numpy(), rtol=1e-10, atol=1e-12
        )
    assert nn.utils.skip_init(nn.Linear, 2, 3).weight.shape == (3, 2)
