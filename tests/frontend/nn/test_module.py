"""Modules: the tree, state, conversions, layers and initial values."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict

import numpy as np
import pytest

import kiln
from kiln import nn


class Block(nn.Module):
    """Parameters, a submodule, buffers and a plain attribute."""

    def __init__(self) -> None:
        self.scale = nn.Parameter(kiln.ones(3))
        self.inner = nn.Linear(3, 2)
        self.register_buffer("mean", kiln.zeros(3))
        self.register_buffer("scratch", kiln.zeros(1), persistent=False)
        self.register_parameter("absent", None)
        self.note = "plain"

    def forward(self, x: kiln.Tensor) -> kiln.Tensor:
        return self.inner((x - self.mean) * self.scale)


def test_parameters_and_buffers_are_found_by_type() -> None:
    block = Block()
    assert [n for n, _ in block.named_parameters()] == ["scale", "inner.weight", "inner.bias"]
    assert [n for n, _ in block.named_parameters(recurse=False)] == ["scale"]
    assert [n for n, _ in block.named_parameters(prefix="a")] == ["a.scale", "a.inner.weight", "a.inner.bias"]
    assert [n for n, _ in block.named_buffers()] == ["mean", "scratch"]
    assert [n for n, _ in block.named_children()] == ["inner"]
    assert all(p.requires_grad and p.is_leaf for p in block.parameters())
    assert not any(b.requires_grad for b in block.buffers())
    assert list(block.state_dict()) == ["scale", "mean", "inner.weight", "inner.bias"]


def test_shared_parts_appear_once_but_are_saved_under_each_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert len(model.state_dict()) == 4
    twice = nn.Sequential(model[0], model[0])
    assert len(list(twice.modules())) == 2 and len(list(twice.children())) == 1 and len(twice) == 2
    assert len(list(twice.parameters())) == 2


def test_modules_compute_and_train() -> None:
    block = Block()
    x = kiln.randn(5, 3)
    y = block(x)
    wanted = x.numpy() @ block.inner.weight.detach().numpy().T + block.inner.bias.detach().numpy()
    assert np.allclose(y.detach().numpy(), wanted, rtol=1e-6, atol=1e-6)
    y.sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    block.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any().item() for p in block.parameters())
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())


def test_state_dict_shares_memory_and_loading_copies() -> None:
    a, b = Block(), Block()
    weight = b.inner.weight
    assert b.load_state_dict(a.state_dict()) == ([], [])
    assert b.inner.weight is weight and weight.requires_grad
    assert (weight == a.inner.weight).all().item()
    a.state_dict()["scale"].fill_(5.0)
    assert a.scale.tolist() == [5.0] * 3 and b.scale.tolist() == [1.0] * 3


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    block = Block()
    before = {k: v.clone() for k, v in block.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    del state["mean"]
    state["scale"] = kiln.ones(4)
    state["other"] = kiln.ones(1)
    with pytest.raises(kiln.LoadError) as error:
        block.load_state_dict(state)
    assert str(error.value).startswith(
        "Error(s) in loading state_dict for Block:\n"
        '\tMissing key(s) in state_dict: "mean". \n'
        '\tUnexpected key(s) in state_dict: "other". \n'
        "\tsize mismatch for scale: copying a param with shape [4] from checkpoint, "
        "the shape in current model is [3].\n"
    )
    assert isinstance(error.value, RuntimeError)
    assert all((v == before[k]).all().item() for k, v in block.state_dict().items())
    with pytest.raises(kiln.LoadError, match='"scale", expected a tensor but received float'):
        block.load_state_dict({"scale": 1.0}, strict=False)  # type: ignore[dict-item]
    del state["scale"]
    assert block.load_state_dict(state, strict=False) == (["scale", "mean"], ["other"])
    assert (block.inner.bias == before["inner.bias"] + 1).all().item()


def test_modes_and_apply() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    assert model.training and not model.eval().training
    assert not any(m.training for m in model.modules())
    assert model.train() is model and all(m.training for m in model.modules())
    visited: list[str] = []
    model.apply(lambda m: visited.append(type(m).__name__))
    assert visited == ["Linear", "ReLU", "Sequential", "Sequential"]
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())


def test_to_keeps_the_parameter_objects() -> None:
    block = Block()
    block(kiln.ones(1, 3)).sum().backward()
    weight = block.inner.weight
    before = weight.detach().clone()
    assert block.to(kiln.float64) is block
    assert block.inner.weight is weight and weight.dtype is kiln.float64 and weight.requires_grad
    assert weight.grad is not None and weight.grad.dtype is kiln.float64
    assert (weight.detach().to(kiln.float32) == before).all().item()
    assert block.mean.dtype is kiln.float64
    assert block(kiln.ones(1, 3, dtype=kiln.float64)).dtype is kiln.float64
    with pytest.raises(kiln.DTypeError):
        block.to(kiln.int64)


def test_deep_copies_are_independent() -> None:
    block = Block()
    other = copy.deepcopy(block)
    assert isinstance(other.scale, nn.Parameter) and other.scale is not block.scale
    with kiln.no_grad():
        other.scale.fill_(9.0)
    assert block.scale.tolist() == [1.0] * 3
    assert [n for n, _ in other.named_buffers()] == ["mean", "scratch"]


def test_wrong_assignments_are_refused() -> None:
    block = Block()
    with pytest.raises(kiln.ArgumentError, match=r"nn\.Parameter"):
        block.scale = kiln.ones(3)
    with pytest.raises(kiln.ArgumentError, match="must be a tensor"):
        block.register_buffer("x", 3)  # type: ignore[arg-type]
    with pytest.raises(kiln.ArgumentError, match="must be a Parameter"):
        block.register_parameter("x", kiln.ones(1))  # type: ignore[arg-type]
    for name in ("a.b", "", "forward"):
        with pytest.raises(kiln.InvalidValueError):
            block.add_module(name, nn.ReLU())
    with pytest.raises(kiln.ArgumentError):
        nn.Parameter([1.0])  # type: ignore[arg-type]
    with pytest.raises(kiln.DTypeError):
        nn.Parameter(kiln.tensor([1, 2]))
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)


def test_submodules_by_name() -> None:
    model = nn.Sequential(OrderedDict([("first", nn.Linear(2, 3)), ("act", nn.Tanh())]))
    assert model.get_submodule("first") is model[0] and model.get_submodule("") is model
    with pytest.raises(AttributeError, match="no submodule 'third'"):
        model.get_submodule("third")
    assert isinstance(model[1:], nn.Sequential) and len(model[1:]) == 1
    assert model[-1] is model[1]
    model.append(nn.Linear(3, 1))
    assert model(kiln.ones(4, 2)).shape == (4, 1)
    with pytest.raises(IndexError):
        model[3]
    with pytest.raises(kiln.ArgumentError):
        nn.Sequential(3)  # type: ignore[arg-type]


def test_repr() -> None:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Sequential(nn.GELU("tanh"), nn.Softmax(1)))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=3, bias=False)\n"
        "  (1): Sequential(\n"
        "    (0): GELU(approximate='tanh')\n"
        "    (1): Softmax(dim=1)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Parameter(kiln.ones(1))).startswith("Parameter containing:\ntensor(")


def test_layers_are_the_functions() -> None:
    x = kiln.randn(3, 4)
    pairs = [
        (nn.Identity(), lambda v: v),
        (nn.ReLU(), kiln.relu),
        (nn.GELU(), kiln.gelu),
        (nn.Tanh(), kiln.tanh),
        (nn.Sigmoid(), kiln.sigmoid),
        (nn.Softmax(1), lambda v: kiln.softmax(v, 1)),
        (nn.Flatten(), lambda v: v),
    ]
    for layer, function in pairs:
        assert layer(x).numpy().tobytes() == function(x).numpy().tobytes(), layer
    assert nn.Flatten()(kiln.ones(2, 3, 4)).shape == (2, 12)
    target, labels = kiln.randn(3, 4), kiln.tensor([0, 3, 1])
    F = nn.functional
    for reduction in ("mean", "sum", "none"):
        assert (
            nn.MSELoss(reduction=reduction)(x, target).tolist() == F.mse_loss(x, target, reduction=reduction).tolist()
        )
        ours = nn.CrossEntropyLoss(ignore_index=3, reduction=reduction)(x, labels)
        assert ours.tolist() == F.cross_entropy(x, labels, ignore_index=3, reduction=reduction).tolist()
    with pytest.raises(kiln.InvalidValueError):
        nn.MSELoss(reduction="average")
    with pytest.raises(kiln.ArgumentError, match="reduction='sum' by name"):
        nn.MSELoss("sum")  # type: ignore[arg-type]


def test_linear_starts_like_torch() -> None:
    kiln.manual_seed(0)
    layer = nn.Linear(100, 400)
    bound = 1 / math.sqrt(100)
    for p in layer.parameters():
        values = p.detach().numpy()
        assert abs(values).max() <= bound and values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    kiln.manual_seed(0)
    again = nn.Linear(100, 400)
    assert (again.weight == layer.weight).all().item()
    assert nn.Linear(2, 3, dtype=kiln.float64).weight.dtype is kiln.float64
    assert nn.Linear(0, 3)(kiln.ones(2, 0)).tolist() == [[0.0] * 3] * 2
    with pytest.raises(kiln.ArgumentError):
        nn.Linear(2.0, 3)  # type: ignore[arg-type]
    with pytest.raises(kiln.ShapeError):
        layer(kiln.ones(2, 3))


@pytest.mark.parametrize(
    ("fill", "std", "top"),
    [
        (lambda t: nn.init.uniform_(t, -2, 2), 2 / math.sqrt(3), 2),
        (lambda t: nn.init.normal_(t, 0, 0.5), 0.5, None),
        (nn.init.xavier_uniform_, math.sqrt(2 / 500), math.sqrt(6 / 500)),
        (nn.init.xavier_normal_, math.sqrt(2 / 500), None),
        (lambda t: nn.init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(2 / 200), math.sqrt(6 / 200)),
        (lambda t: nn.init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 300), None),
    ],
    ids=["uniform", "normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"],
)
def test_init_distributions(fill: object, std: float, top: float | None) -> None:
    kiln.manual_seed(3)
    p = nn.Parameter(kiln.zeros(300, 200))
    assert fill(p) is p  # type: ignore[operator]
    values = p.detach().numpy()
    assert p.is_leaf and abs(values.mean()) < 0.02 * std + 0.01 * std
    assert values.std() == pytest.approx(std, rel=0.02)
    assert top is None or top * 0.99 < abs(values).max() <= top


def test_init_constants_and_errors() -> None:
    p = nn.Parameter(kiln.zeros(2))
    assert nn.init.ones_(p).tolist() == [1.0, 1.0]
    assert nn.init.constant_(p, 3.0).tolist() == [3.0, 3.0]
    assert nn.init.zeros_(p).tolist() == [0.0, 0.0]
    assert nn.init.calculate_gain("leaky_relu", 1.0) == 1.0
    with pytest.raises(kiln.ShapeError, match="two dimensions"):
        nn.init.xavier_uniform_(p)
    with pytest.raises(kiln.InvalidValueError):
        nn.init.calculate_gain("swish")
