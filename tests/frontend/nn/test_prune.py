"""Pruning: masks by hand, what a module then holds, pruning further, undoing it; compiled as eager."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.nn.utils import prune

WEIGHT = [[1.0, -6.0, 3.0, 0.5], [-2.0, 4.0, -0.1, 7.0], [0.2, 5.0, -8.0, 9.0]]


def layer() -> nn.Linear:
    made = nn.Linear(4, 3)
    with kiln.no_grad():
        made.weight.copy_(kiln.tensor(WEIGHT))
        made.bias.copy_(kiln.tensor([1.0, -2.0, 3.0]))
    return made


def test_what_a_pruned_module_holds() -> None:
    net = layer()
    original, x = net.weight, kiln.randn(2, 4)
    assert prune.l1_unstructured(net, "weight", 3) is net
    assert net.weight_mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 1], [0, 1, 1, 1]]
    assert list(net.state_dict()) == ["bias", "weight_orig", "weight_mask"]
    assert net.weight_orig is original and type(net).__name__ == "Linear" and isinstance(net, nn.Linear)
    assert net.weight.equal(original * net.weight_mask)
    y = net(x)
    assert y.equal(nn.functional.linear(x, original * net.weight_mask, net.bias))
    y.sum().backward()
    assert original.grad is not None
    assert original.grad.equal(x.sum(0).expand(3, 4) * net.weight_mask)
    with kiln.no_grad():
        original.mul_(2.0)
    assert net.weight.equal(original * net.weight_mask)


def test_pruning_further_takes_what_is_left() -> None:
    net = layer()
    prune.l1_unstructured(net, "weight", 0.25)
    prune.l1_unstructured(net, "weight", 2)
    assert net.weight_mask.tolist() == [[0, 1, 1, 0], [0, 1, 0, 1], [0, 1, 1, 1]]
    prune.ln_structured(net, "weight", 1, n=2, dim=1)
    assert net.weight_mask.tolist() == [[0, 1, 0, 0], [0, 1, 0, 1], [0, 1, 0, 1]]
    prune.ln_structured(net, "weight", 0.5, n=float("inf"), dim=0)
    assert net.weight_mask.sum(1).tolist() == [0, 0, 2]
    held = prune.custom_from_mask(net, "weight", kiln.tensor([[1.0] * 4] * 2 + [[1.0, 0.0, 1.0, 1.0]]))
    assert held.weight_mask.sum().item() == 1
    method = prune.Identity.apply(net, "weight")
    assert isinstance(method, prune.PruningContainer) and len(method) == 6
    assert [type(m).__name__ for m in method][-2:] == ["CustomFromMask", "Identity"]
    assert isinstance(method[0], prune.L1Unstructured)


def test_importance_scores() -> None:
    net = layer()
    prune.l1_unstructured(net, "weight", 2, importance_scores=kiln.arange(12.0).reshape(3, 4))
    assert net.weight_mask.tolist() == [[0, 0, 1, 1], [1] * 4, [1] * 4]
    scores = kiln.tensor([[9.0] * 4, [1.0] * 4, [5.0] * 4])
    prune.ln_structured(net, "weight", 1, 1, 0, importance_scores=scores)
    assert net.weight_mask.sum(1).tolist() == [2, 0, 4]
    with pytest.raises(kiln.ShapeError, match="importance_scores"):
        prune.l1_unstructured(net, "bias", 1, importance_scores=scores)


def test_random_pruning() -> None:
    kiln.manual_seed(0)
    net = nn.Linear(20, 30)
    prune.random_unstructured(net, "weight", 0.4)
    assert net.weight_mask.sum().item() == 360
    prune.random_structured(net, "weight", 5, dim=-1)
    assert (net.weight_mask.sum(0) == 0).sum().item() == 5
    kiln.manual_seed(0)
    again = nn.Linear(20, 30)
    prune.random_unstructured(again, "weight", 0.4)
    prune.random_structured(again, "weight", 5, dim=-1)
    assert again.weight_mask.equal(net.weight_mask)


def test_several_parameters_as_one() -> None:
    net = nn.Sequential(layer(), nn.ReLU(), layer())
    parts = [(net[0], "weight"), (net[2], "bias")]
    prune.global_unstructured(parts, pruning_method=prune.L1Unstructured, amount=5)
    assert net[0].weight_mask.tolist() == [[0, 1, 1, 0], [1, 1, 0, 1], [0, 1, 1, 1]]
    assert net[2].bias_mask.tolist() == [0, 1, 1]
    scores = {(net[2], "bias"): kiln.tensor([0.0, 1e-9, 1e-8])}
    prune.global_unstructured(iter(parts), prune.L1Unstructured, scores, amount=1)
    assert net[2].bias_mask.tolist() == [0, 0, 1] and net[0].weight_mask.sum().item() == 8
    assert prune.is_pruned(net) and not prune.is_pruned(nn.Sequential(layer()))
    with pytest.raises(kiln.ArgumentError, match="unstructured"):
        prune.global_unstructured(parts, prune.LnStructured, amount=1, n=2)


def test_a_method_of_ones_own() -> None:
    class EverySecond(prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t: kiln.Tensor, default_mask: kiln.Tensor) -> kiln.Tensor:
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask

    net = layer()
    EverySecond.apply(net, "weight")
    assert net.weight_mask.tolist() == [[0, 1, 0, 1]] * 3
    EverySecond.apply(net, "weight")
    assert net.weight_mask.tolist() == [[0, 0, 0, 1]] * 3
    assert prune.L1Unstructured(2).prune(kiln.tensor([3.0, -1.0, 2.0, 0.5])).tolist() == [3, 0, 2, 0]


def test_removing() -> None:
    net = layer()
    original = net.weight
    prune.l1_unstructured(net, "weight", 6)
    prune.identity(net, "bias")
    pruned = net.weight.detach().clone()
    prune.remove(net, "weight")
    assert net.weight is original and net.weight.equal(pruned) and prune.is_pruned(net)
    prune.remove(net, "bias")
    assert sorted(net.state_dict()) == ["bias", "weight"] and type(net) is nn.Linear and not prune.is_pruned(net)
    with pytest.raises(kiln.InvalidValueError, match="'weight' of Linear is not pruned"):
        prune.remove(net, "weight")


def test_copies_are_their_own() -> None:
    net = layer()
    prune.l1_unstructured(net, "weight", 6)
    prune.identity(net, "bias")
    twin, loaded = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    prune.remove(twin, "weight")
    assert prune.is_pruned(net) and "weight_orig" in net.state_dict() and net.weight.equal(twin.weight)
    assert loaded.weight.equal(net.weight) and prune.is_pruned(loaded)
    prune.l1_unstructured(loaded, "weight", 1)
    assert loaded.weight_mask.sum().item() == 5 and net.weight_mask.sum().item() == 6
    fresh = nn.Linear(4, 3)
    prune.identity(fresh, "weight")
    prune.identity(fresh, "bias")
    fresh.load_state_dict(net.state_dict())
    assert fresh.weight.equal(net.weight)


def test_a_copy_of_a_normed_module_can_be_made_plain() -> None:
    net = nn.utils.weight_norm(layer())
    twin = copy.deepcopy(net)
    nn.utils.remove_weight_norm(twin)
    assert "weight_g" in net.state_dict() and net(kiln.ones(1, 4)).shape == (1, 3)
    with pytest.raises(kiln.InvalidValueError, match="has no parameter 'weight'"):
        nn.utils.weight_norm(net)
    with pytest.raises(kiln.InvalidValueError, match="is normalised"):
        prune.identity(net, "weight")


def test_training_compiles() -> None:
    def run(compiled: bool) -> list[Any]:
        kiln.manual_seed(2)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 2))
        prune.ln_structured(net[0], "weight", 2, n=1, dim=0)
        prune.random_unstructured(net[2], "weight", 0.5)
        opt = kiln.optim.SGD(net.parameters(), lr=0.1)
        x = kiln.randn(3, 2, 4, 4)

        def step(x: kiln.Tensor) -> kiln.Tensor:
            opt.zero_grad()
            loss = (net(x) ** 2).mean()
            loss.backward()
            opt.step()
            return loss

        f = kiln.compile(step) if compiled else step
        return [[f(x).item() for _ in range(3)], [p.tolist() for p in net.parameters()]]

    assert run(True) == run(False)


def test_refusals() -> None:
    net = layer()
    for match, error, call in [
        ("amount must be", kiln.InvalidValueError, lambda: prune.l1_unstructured(net, "weight", -1)),
        ("amount must be", kiln.InvalidValueError, lambda: prune.l1_unstructured(net, "weight", 1.5)),
        ("amount must be a number", kiln.ArgumentError, lambda: prune.l1_unstructured(net, "weight", "a")),  # type: ignore[arg-type]
        ("20 can't be pruned of 12", kiln.InvalidValueError, lambda: prune.l1_unstructured(net, "weight", 20)),
        ("two dimensions", kiln.ShapeError, lambda: prune.ln_structured(net, "bias", 1, 2, 0)),
        ("dimension", kiln.KilnIndexError, lambda: prune.random_structured(net, "weight", 1, 2)),
        ("no parameter 'w'", kiln.InvalidValueError, lambda: prune.identity(net, "w")),
        ("mask must have the shape", kiln.ShapeError, lambda: prune.custom_from_mask(net, "weight", kiln.ones(3))),
        ("no parameter is pruned", kiln.InvalidValueError, lambda: prune.Identity().apply_mask(net)),
    ]:
        with pytest.raises(error, match=match):
            call()
    assert sorted(net.state_dict()) == ["bias", "weight"]
    method = prune.Identity.apply(net, "bias")
    other = prune.Identity.apply(net, "weight")
    with pytest.raises(kiln.InvalidValueError, match="prune 'bias', this one 'weight'"):
        prune.PruningContainer(method, other)
    np.testing.assert_array_equal(net.weight.detach().numpy(), np.array(WEIGHT, np.float32))


FUSED: list[tuple[Any, Any, tuple[int, ...], bool]] = [
    (lambda: nn.Conv2d(3, 4, 2, bias=False), lambda: nn.BatchNorm2d(4), (2, 3, 5, 5), False),
    (lambda: nn.Conv3d(3, 4, 2), lambda: nn.BatchNorm3d(4, affine=False), (2, 3, 3, 3, 3), False),
    (lambda: nn.ConvTranspose1d(3, 4, 2), lambda: nn.BatchNorm1d(4), (2, 3, 5), True),
    (lambda: nn.Linear(3, 4), lambda: nn.BatchNorm1d(4), (5, 3), False),
    (lambda: nn.Linear(3, 4, bias=False), lambda: nn.BatchNorm1d(1), (5, 3), False),
]


@pytest.mark.parametrize(("layer", "norm", "shape", "transposed"), FUSED)
def test_fusing_with_batch_norm(layer: Any, norm: Any, shape: tuple[int, ...], transposed: bool) -> None:
    first, bn = layer().double(), norm().double()
    for _ in range(3):
        bn(kiln.randn(6, bn.num_features, *[3] * (len(shape) - 2), dtype=kiln.float64) * 2.0 + 1.0)
    if bn.weight is not None:
        nn.init.uniform_(bn.weight)
        nn.init.uniform_(bn.bias)
    with pytest.raises(kiln.InvalidValueError, match="fusing is for evaluation"):
        nn.utils.fuse_conv_bn_eval(first, bn)
    first.eval()
    bn.eval()
    x = kiln.randn(*shape, dtype=kiln.float64)
    if isinstance(first, nn.Linear):
        fused = nn.utils.fuse_linear_bn_eval(first, bn)
        y = first(x)
        wanted = bn(y) if bn.num_features > 1 else bn(y.reshape(-1, 1)).reshape(y.shape)
    else:
        fused, wanted = nn.utils.fuse_conv_bn_eval(first, bn, transposed), bn(first(x))
    np.testing.assert_allclose(fused(x).detach().numpy(), wanted.detach().numpy(), rtol=1e-12, atol=1e-12)
    assert fused is not first and type(fused) is type(first)
    if isinstance(first, nn.Linear):
        with pytest.raises(kiln.InvalidValueError, match="4 features can't be normalised as 3"):
            nn.utils.fuse_linear_bn_eval(first, nn.BatchNorm1d(3).eval())
        with pytest.raises(kiln.InvalidValueError, match="tracks no statistics"):
            nn.utils.fuse_linear_bn_eval(first, nn.BatchNorm1d(4, track_running_stats=False).eval())


def test_clipping_under_its_older_name() -> None:
    p = nn.Parameter(kiln.zeros(2))
    p.grad = kiln.tensor([3.0, 4.0])
    with pytest.warns(FutureWarning, match="clip_grad_norm_"):
        total = nn.utils.clip_grad_norm(p, 1.0)
    assert total.item() == 5.0 and np.isclose(p.grad.norm().item(), 1.0)
