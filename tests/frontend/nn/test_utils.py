"""nn.utils, kiln.func.functional_call and nn.init's newer functions."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn.utils import parametrizations, parametrize

U = nn.utils


def with_grads(*values: list[float]) -> list[Any]:
    params = []
    for v in values:
        p = nn.Parameter(kiln.zeros(len(v)))
        p.grad = kiln.tensor(v)
        params.append(p)
    return [*params, nn.Parameter(kiln.zeros(1))]  # one without


# ------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(("p", "total"), [(2.0, 13.0), (1.0, 19.0), (math.inf, 12.0), (3.0, 1819 ** (1 / 3))])
def test_clip_grad_norm(p: float, total: float) -> None:
    params = with_grads([3.0, -4.0], [12.0, 0.0])
    assert U.clip_grad_norm_(params, 100.0, p).item() == pytest.approx(total, rel=1e-6)
    assert params[0].grad.tolist() == [3.0, -4.0]
    before = params[0].grad
    U.clip_grad_norm_(iter(params), 1.0, p)
    assert params[0].grad is before
    assert np.allclose(before.numpy(), np.array([3.0, -4.0]) / total, rtol=1e-5)
    assert U.get_total_norm([q.grad for q in params[:2]], p).item() == pytest.approx(1.0, rel=1e-5)


def test_clipping_edges() -> None:
    assert U.clip_grad_norm_([], 1.0).item() == 0.0
    single = with_grads([6.0, 8.0])[0]
    assert U.clip_grad_norm_(single, 5.0).item() == 10.0
    assert single.grad.tolist() == pytest.approx([3.0, 4.0], rel=1e-5)
    bad = with_grads([math.inf])
    assert U.clip_grad_norm_(bad, 1.0).item() == math.inf
    with pytest.raises(kiln.InvalidValueError, match="total norm"):
        U.clip_grad_norm_(with_grads([math.nan]), 1.0, error_if_nonfinite=True)
    params = with_grads([-3.0, 0.5, 2.0])
    U.clip_grad_value_(params, 1.0)
    assert params[0].grad.tolist() == [-1.0, 0.5, 1.0]


def test_clipping_in_a_compiled_step() -> None:
    def run(compiled: bool) -> list[Any]:
        kiln.manual_seed(0)
        net = nn.Linear(3, 2)
        opt = kiln.optim.SGD(net.parameters(), lr=0.5)
        x = kiln.randn(4, 3) * 10

        def step() -> kiln.Tensor:
            opt.zero_grad()
            (net(x) * net(x)).sum().backward()
            norm = U.clip_grad_norm_(net.parameters(), 0.3)
            U.clip_grad_value_(net.parameters(), 0.2)
            opt.step()
            return norm

        f = kiln.compile(step) if compiled else step
        return [[f().item() for _ in range(3)], [p.tolist() for p in net.parameters()]]

    assert run(True) == run(False)


def test_parameters_as_a_vector() -> None:
    net = nn.Linear(3, 2)
    vector = U.parameters_to_vector(net.parameters())
    assert vector.shape == (8,) and vector.requires_grad
    U.vector_to_parameters(kiln.arange(8.0), net.parameters())
    assert net.weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and net.bias.tolist() == [6.0, 7.0]  # type: ignore[union-attr]
    with pytest.raises(kiln.ShapeError):
        U.vector_to_parameters(kiln.arange(7.0), net.parameters())
    with pytest.raises(kiln.ArgumentError):
        U.parameters_to_vector([])


# --------------------------------------------------------------------------------------- parametrisations


def test_weight_norm() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone().numpy()
    assert parametrizations.weight_norm(layer) is layer
    assert list(layer.state_dict()) == [
        "bias",
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
    ]
    assert repr(layer).startswith(
        "ParametrizedLinear(\n  in_features=3, out_features=2, bias=True\n  (parametrizations)"
    )
    assert np.allclose(layer.weight.detach().numpy(), before, rtol=1e-6)
    with kiln.no_grad():
        layer.parametrizations.weight.original0.fill_(2.0)
    assert np.allclose(np.linalg.norm(layer.weight.detach().numpy(), axis=1), 2.0, rtol=1e-6)
    layer(kiln.randn(4, 3)).sum().backward()
    v = layer.parametrizations.weight.original1
    assert v.grad is not None
    assert np.allclose((v.grad.numpy() * v.detach().numpy()).sum(1), 0, atol=1e-5)  # the direction only turns
    whole = parametrizations.weight_norm(nn.Linear(3, 2), dim=None)
    assert whole.parametrizations.weight.original0.shape == ()
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and isinstance(layer.weight, nn.Parameter) and "weight" in layer._parameters
    assert np.allclose(np.linalg.norm(layer.weight.detach().numpy(), axis=1), 2.0, rtol=1e-6)


def test_spectral_norm() -> None:
    kiln.manual_seed(0)
    layer = nn.Linear(6, 4)
    original = layer.weight
    parametrizations.spectral_norm(layer)
    assert layer.parametrizations.weight.original is original
    assert list(layer.state_dict())[1:] == [f"parametrizations.weight.{n}" for n in ("original", "0._u", "0._v")]
    x = kiln.randn(2, 6)
    for _ in range(100):
        layer(x)
    assert np.linalg.svd(layer.weight.detach().numpy())[1][0] == pytest.approx(1.0, rel=1e-4)
    layer.eval()
    held = layer.parametrizations.weight[0]._u.clone()
    layer(x).sum().backward()
    assert layer.parametrizations.weight[0]._u.tolist() == held.tolist() and original.grad is not None
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert layer.weight is original
    flat = parametrizations.spectral_norm(nn.Linear(6, 4), "bias")
    assert np.linalg.norm(flat.bias.detach().numpy()) == pytest.approx(1.0, rel=1e-5)  # type: ignore[union-attr]


class Symmetric(nn.Module):
    def forward(self, x: kiln.Tensor) -> kiln.Tensor:
        return (x + x.t()) * 0.5


class Doubled(nn.Module):
    def forward(self, x: kiln.Tensor) -> kiln.Tensor:
        return x * 2

    def right_inverse(self, x: kiln.Tensor) -> kiln.Tensor:
        return x / 2


def test_own_parametrisations() -> None:
    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    w = layer.weight.detach().numpy()
    assert (w == w.T).all()
    with pytest.raises(kiln.InvalidValueError, match="right_inverse"):
        layer.weight = kiln.ones(3, 3)  # type: ignore[assignment]
    bias = layer.bias.tolist()  # type: ignore[union-attr]
    parametrize.register_parametrization(layer, "bias", Doubled())
    parametrize.register_parametrization(layer, "bias", Doubled())
    assert layer.bias.tolist() == bias  # type: ignore[union-attr]
    assert layer.parametrizations.bias.original.tolist() == [b / 4 for b in bias]
    layer.bias = kiln.ones(3)  # type: ignore[assignment]
    assert layer.parametrizations.bias.original.tolist() == [0.25] * 3
    x = kiln.randn(2, 3)
    compiled = kiln.compile(layer)
    for _ in range(2):
        assert compiled(x).tolist() == layer(x).tolist()
    twin = copy.deepcopy(layer)
    assert twin(x).tolist() == layer(x).tolist()
    assert twin.parametrizations.bias.original is not layer.parametrizations.bias.original


def test_refused_parametrisations() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.tolist()
    with pytest.raises(kiln.ShapeError, match="would become"):
        parametrize.register_parametrization(layer, "weight", nn.Flatten(0))
    assert layer.weight.tolist() == before and type(layer) is nn.Linear
    with pytest.raises(kiln.InvalidValueError, match="no parameter or buffer 'w'"):
        parametrize.register_parametrization(layer, "w", Symmetric())
    with pytest.raises(kiln.InvalidValueError):
        parametrize.remove_parametrizations(layer, "weight")
    with pytest.raises(kiln.InvalidValueError):
        parametrizations.spectral_norm(layer, "w")


@pytest.mark.parametrize("make", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_training_compiles(make: Any) -> None:
    def run(compiled: bool) -> list[Any]:
        kiln.manual_seed(5)
        layer = make(nn.Linear(3, 2))
        opt = kiln.optim.SGD(layer.parameters(), lr=0.1)
        x = kiln.randn(4, 3)

        def step() -> kiln.Tensor:
            loss = (layer(x) - 1.0).square().mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss

        f = kiln.compile(step) if compiled else step
        return [[f().item() for _ in range(4)], [v.tolist() for v in layer.state_dict().values()]]

    assert run(True) == run(False)


# ---------------------------------------------------------------------------------------- functional_call


def test_functional_call() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    x = kiln.randn(5, 2)
    held = {k: v.clone() for k, v in net.state_dict().items()}
    weight = kiln.zeros(2, 2, requires_grad=True)
    mean = kiln.zeros(2)
    out = kiln.func.functional_call(net, {"0.weight": weight, "1.running_mean": mean}, x)
    assert np.allclose(out.detach().numpy(), 0.0, atol=1e-3) and mean.any().item()
    out.sum().backward()
    assert weight.grad is not None and net[0].weight.grad is None
    assert net[0].weight.tolist() == held["0.weight"].tolist()
    assert net[1].running_mean.tolist() == held["1.running_mean"].tolist()
    with pytest.raises(ValueError, match="expected"):
        kiln.func.functional_call(Failing(), {}, (x,))
    with pytest.raises(kiln.InvalidValueError, match=r"'0\.w'"):
        kiln.func.functional_call(net, {"0.w": weight}, x)
    with pytest.raises(kiln.InvalidValueError, match=r"'0\.bias'"):
        kiln.func.functional_call(net, {"0.weight": weight}, x, strict=True)
    with pytest.raises(kiln.InvalidValueError, match="in two dicts"):
        kiln.func.functional_call(net, [{"0.weight": weight}, {"0.weight": weight}], x)


class Failing(nn.Module):
    def forward(self, x: kiln.Tensor) -> kiln.Tensor:
        raise ValueError("expected")


def test_functional_call_of_tied_weights() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    x = kiln.ones(1, 2)
    eye = kiln.eye(2)
    assert kiln.func.functional_call(net, {"0.weight": eye}, x).tolist() == [[1.0, 1.0]]
    untied = kiln.func.functional_call(net, {"0.weight": eye}, x, tie_weights=False)
    assert untied.tolist() == net[1](x).tolist()
    with pytest.raises(kiln.InvalidValueError, match="one tensor"):
        kiln.func.functional_call(net, {"0.weight": eye, "1.weight": eye * 2}, x)


def test_functional_call_in_a_capture() -> None:
    net = nn.Linear(2, 2)

    def f(w: kiln.Tensor, x: kiln.Tensor) -> kiln.Tensor:
        return kiln.func.functional_call(net, {"weight": w}, (x,))

    compiled = kiln.compile(f)
    for _ in range(2):
        w, x = kiln.randn(2, 2), kiln.randn(3, 2)
        assert compiled(w, x).tolist() == f(w, x).tolist()


# -------------------------------------------------------------------------------------------------- init


def test_truncated_normal() -> None:
    kiln.manual_seed(0)
    p = nn.Parameter(kiln.zeros(300, 100))
    assert nn.init.trunc_normal_(p) is p and p.requires_grad
    x = p.detach().numpy()
    assert abs(x).max() <= 2.0 and x.std() == pytest.approx(0.8796, rel=0.02) and abs(x.mean()) < 0.02
    far = nn.init.trunc_normal_(kiln.zeros(1000), mean=0.0, std=1.0, a=3.0, b=4.0).numpy()
    assert far.min() >= 3.0 and far.max() <= 4.0 and far.mean() == pytest.approx(3.26, abs=0.03)
    again = kiln.Generator(3)
    first = nn.init.trunc_normal_(kiln.zeros(5), generator=again.manual_seed(3)).tolist()
    assert nn.init.trunc_normal_(kiln.zeros(5), generator=again.manual_seed(3)).tolist() == first


def test_orthogonal_sparse_eye_dirac() -> None:
    for shape in ((5, 3), (3, 5), (4, 2, 3)):
        q = nn.init.orthogonal_(kiln.zeros(shape, dtype=kiln.float64), gain=2.0).numpy().reshape(shape[0], -1)
        product = q @ q.T if q.shape[0] < q.shape[1] else q.T @ q
        assert np.allclose(product, 4 * np.eye(len(product)), atol=1e-12)
    x = nn.init.sparse_(kiln.zeros(10, 50), 0.35, std=1.0).numpy()
    assert ((x == 0).sum(0) == 4).all() and x[x != 0].std() == pytest.approx(1.0, abs=0.15)
    assert nn.init.eye_(kiln.zeros(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    d = nn.init.dirac_(kiln.zeros(4, 2, 3), groups=2).numpy()
    expected = np.zeros((4, 2, 3))
    expected[[0, 1, 2, 3], [0, 1, 0, 1], 1] = 1
    assert (d == expected).all()
    assert nn.init.calculate_gain("conv2d") == 1.0 and nn.init.calculate_gain("conv_transpose3d") == 1.0


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: nn.init.eye_(kiln.zeros(2)), kiln.ShapeError),
        (lambda: nn.init.dirac_(kiln.zeros(2, 2)), kiln.ShapeError),
        (lambda: nn.init.dirac_(kiln.zeros(3, 2, 2), groups=2), kiln.InvalidValueError),
        (lambda: nn.init.orthogonal_(kiln.zeros(2)), kiln.ShapeError),
        (lambda: nn.init.sparse_(kiln.zeros(2), 0.5), kiln.ShapeError),
        (lambda: nn.init.kaiming_uniform_(kiln.zeros(2, 2), mode="fan"), kiln.InvalidValueError),
    ],
)
def test_init_errors(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
