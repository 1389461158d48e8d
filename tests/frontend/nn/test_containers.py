"""Sequential, lists and dicts of modules and parameters."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

import kiln
from kiln import nn


def names(container: Any) -> list[str]:
    return [f"{n}:{type(m).__name__}" for n, m in container.named_children()]


def test_sequential_edits() -> None:
    net = nn.Sequential(nn.Tanh(), nn.ReLU())
    net.insert(1, nn.Sigmoid()).append(nn.GELU())
    assert names(net) == ["0:Tanh", "1:Sigmoid", "2:ReLU", "3:GELU"]
    net[0] = nn.Identity()
    del net[1]
    assert names(net) == ["0:Identity", "1:ReLU", "2:GELU"]
    assert isinstance(net.pop(-1), nn.GELU)
    net.extend([nn.Tanh(), nn.Tanh()])
    del net[2:]
    assert names(net) == ["0:Identity", "1:ReLU"]
    assert names(net + nn.Sequential(nn.Tanh())) == ["0:Identity", "1:ReLU", "2:Tanh"]
    assert len(net * 2) == 4 and (2 * net)[3] is net[1]
    net *= 2
    assert isinstance(net, nn.Sequential) and len(net) == 4
    net += nn.Sequential(nn.Tanh())
    assert len(net) == 5
    for wrong, error in [
        (lambda: net.insert(9, nn.ReLU()), kiln.KilnIndexError),
        (lambda: net.insert(0, 3), kiln.ArgumentError),
        (lambda: net["0"], kiln.ArgumentError),
        (lambda: net * 0, kiln.InvalidValueError),
        (lambda: net * "a", kiln.ArgumentError),
        (lambda: net + 3, kiln.ArgumentError),
        (lambda: nn.Sequential(None), kiln.ArgumentError),  # type: ignore[arg-type]
    ]:
        with pytest.raises(error):
            wrong()


def test_sequential_slices_keep_names() -> None:
    net = nn.Sequential(OrderedDict(a=nn.Tanh(), b=nn.ReLU(), c=nn.Sigmoid()))
    assert names(net[1:]) == ["b:ReLU", "c:Sigmoid"] and net.a is net[0]


def test_module_list() -> None:
    layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    assert len(list(layers.parameters())) == 6
    assert list(layers.state_dict())[:2] == ["0.weight", "0.bias"]
    assert names(layers[1:]) == ["0:Linear", "1:Linear"] and layers[1:][0] is layers[1]
    joined = layers + nn.ModuleList([nn.ReLU()])
    assert names(joined)[-1] == "3:ReLU"
    layers.insert(0, nn.Tanh())
    layers += [nn.ReLU()]
    assert names(layers)[0] == "0:Tanh" and len(layers) == 5
    with pytest.raises(NotImplementedError):
        layers(1)
    assert repr(nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh()])) == (
        "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Tanh()\n)"
    )
    assert repr(nn.ModuleList()) == "ModuleList()"


def test_module_dict() -> None:
    d = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.ReLU()})
    d["c"] = nn.Tanh()
    d.update([("a", nn.Tanh())])
    assert list(d) == ["a", "b", "c"] and "b" in d and len(d) == 3
    assert [type(m).__name__ for m in d.values()] == ["Tanh", "ReLU", "Tanh"]
    assert isinstance(d.pop("b"), nn.ReLU) and [k for k, _ in d.items()] == ["a", "c"]
    d.update(nn.ModuleDict({"z": nn.ReLU()}))
    del d["a"]
    assert list(d.keys()) == ["c", "z"]
    d.clear()
    assert not len(d) and repr(d) == "ModuleDict()"
    with pytest.raises(kiln.InvalidValueError):
        d.update([("a", nn.ReLU(), 3)])  # type: ignore[list-item]
    with pytest.raises(kiln.ArgumentError):
        d.update(3)  # type: ignore[arg-type]


def test_parameter_list() -> None:
    ps = nn.ParameterList([kiln.ones(2, 3), nn.Parameter(kiln.zeros(1))])
    assert all(isinstance(p, nn.Parameter) for p in ps) and list(ps.state_dict()) == ["0", "1"]
    ps.append(kiln.ones(1)).extend([kiln.zeros(1)])
    assert len(ps) == 4 and len(ps[1:3]) == 2
    ps[0] = kiln.zeros(2)
    assert ps[0].shape == (2,) and ps[-1].tolist() == [0.0]
    assert ps.pop().tolist() == [0.0] and len(ps) == 3
    assert repr(nn.ParameterList([kiln.ones(2, 3), 5])) == (
        "ParameterList(\n  (0): Parameter containing: [kiln.float32 of size 2x3]\n  (1): Object of type: int\n)"
    )
    with pytest.raises(kiln.KilnIndexError):
        ps[3]
    with pytest.raises(kiln.ArgumentError):
        ps.extend(kiln.ones(2))


def test_parameter_dict() -> None:
    d = nn.ParameterDict({"w": kiln.ones(2), "b": nn.Parameter(kiln.zeros(1))})
    assert list(d.state_dict()) == ["w", "b"] and len(list(d.parameters())) == 2
    d["n"] = 3
    assert d.get("n") == 3 and d.get("m", 1) == 1 and "n" in d and list(reversed(d)) == ["n", "b", "w"]
    assert d.setdefault("w") is d["w"] and d.popitem() == ("n", 3)
    joined = d | nn.ParameterDict({"v": kiln.ones(1)})
    assert list(joined) == ["w", "b", "v"] and joined["w"] is d["w"]
    assert list(d.fromkeys(["x", "y"], kiln.ones(1)).keys()) == ["x", "y"]
    del d["w"]
    with pytest.raises(KeyError):
        d["w"]
    d.clear()
    assert len(d) == 0 and repr(d) == "ParameterDict()"
    with pytest.raises(kiln.InvalidValueError):
        d["forward"] = kiln.ones(1)


def test_containers_compile() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])
            self.acts = nn.ModuleDict({"tanh": nn.Tanh(), "relu": nn.ReLU()})
            self.scales = nn.ParameterList([kiln.ones(2), kiln.ones(2) * 2])

        def forward(self, x: kiln.Tensor) -> kiln.Tensor:
            for layer, act, scale in zip(self.layers, self.acts.values(), self.scales, strict=True):
                x = act(layer(x)) * scale
            return x

    net = Net()
    x = kiln.randn(3, 2)
    compiled = kiln.compile(net)
    for _ in range(2):
        assert compiled(x).tolist() == net(x).tolist()
