"""What modules register: attributes of every kind, names, state with its hooks, conversions."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import kiln
from kiln import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Linear(3, 1, bias=False)
        self.register_buffer("count", kiln.zeros(()))
        self.shift = nn.Buffer(kiln.ones(1), persistent=False)

    def forward(self, x: kiln.Tensor) -> kiln.Tensor:
        return self.second(self.first(x)) + self.shift


def test_assignments_sort_by_type() -> None:
    net = Net()
    assert list(net._modules) == ["first", "second"] and list(net._buffers) == ["count", "shift"]
    assert list(net.state_dict()) == ["count", "first.weight", "first.bias", "second.weight"]
    net.count = kiln.ones(())
    assert net._buffers["count"] is net.count
    net.count = None
    assert net.count is None and "count" not in net.state_dict()
    net.first = nn.Identity()
    assert list(net._modules) == ["first", "second"]
    net.first = None
    assert net.first is None and [n for n, _ in net.named_children()] == ["second"]
    net.second = nn.Parameter(kiln.ones(2))  # a parameter takes the place of anything
    assert "second" in net._parameters and "second" not in net._modules
    net.second = None
    assert net.second is None and list(net.parameters()) == []
    net.plain = 3
    net.plain = nn.ReLU()
    assert "plain" not in vars(net) and net.plain is net._modules["plain"]
    del net.plain
    assert not hasattr(net, "plain")
    with pytest.raises(AttributeError):
        del net.plain


def test_refused_assignments() -> None:
    net = Net()
    with pytest.raises(kiln.ArgumentError, match="is a submodule"):
        net.first = 3
    with pytest.raises(kiln.ArgumentError, match="is a buffer"):
        net.count = 3
    with pytest.raises(kiln.ArgumentError, match="was computed"):
        net.register_parameter("p", _computed())
    with pytest.raises(kiln.InvalidValueError, match="'first' already"):
        net.register_buffer("first", kiln.ones(1))
    with pytest.raises(kiln.ArgumentError, match="name must be a string"):
        net.add_module(3, nn.ReLU())  # type: ignore[arg-type]


def _computed() -> Any:
    p = nn.Parameter(kiln.ones(1), requires_grad=False)
    return p.add_(nn.Parameter(kiln.ones(1)))


def test_missing_attributes_are_suggested() -> None:
    net = Net()
    with pytest.raises(AttributeError, match=r"'Net' object has no attribute 'frst'. Did you mean: 'first'\?"):
        net.frst  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        net.zzz  # noqa: B018
    assert {"first", "second", "count"} <= set(dir(net))


def test_names_with_and_without_duplicates() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert [n for n, _ in net.named_parameters(remove_duplicate=False)] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
    ]
    twice = nn.Sequential(net, net)
    assert [n for n, _ in twice.named_modules()] == ["", "0", "0.0", "0.1"]
    assert [n for n, _ in twice.named_modules(remove_duplicate=False)] == ["", "0", "0.0", "0.1", "1", "1.0", "1.1"]
    assert [n for n, _ in net.named_modules(prefix="a")] == ["a", "a.0", "a.1"]
    assert [n for n, _ in twice.named_children()] == ["0"]
    bn = nn.Module()
    bn.register_buffer("b", kiln.ones(1))
    both = nn.Sequential(bn, bn)
    assert [n for n, _ in both.named_buffers()] == ["0.b"]
    assert [n for n, _ in both.named_buffers(remove_duplicate=False)] == ["0.b", "1.b"]


def test_parts_by_dotted_name() -> None:
    net = nn.Sequential(Net(), nn.ReLU())
    assert net.get_parameter("0.first.weight") is net[0].first.weight
    assert net.get_buffer("0.count") is net[0].count
    for get, name in [
        (net.get_parameter, "0.first.w"),
        (net.get_parameter, "0.count"),
        (net.get_buffer, "0.first.weight"),
        (net.get_submodule, "0.third"),
    ]:
        with pytest.raises(AttributeError, match="looking for"):
            get(name)
    replacement = nn.Tanh()
    net.set_submodule("0.second", replacement)
    assert net[0].second is replacement
    with pytest.raises(AttributeError):
        net.set_submodule("0.third", replacement, strict=True)


def test_state_with_prefix_destination_and_vars() -> None:
    net = Net()
    target: dict[str, Any] = {"before": 1}
    state = net.state_dict(destination=target, prefix="net.", keep_vars=True)
    assert state is target and list(target)[:2] == ["before", "net.count"]
    assert target["net.first.weight"] is net.first.weight
    assert not net.state_dict()["first.weight"].requires_grad


def test_assign_takes_the_tensors_over() -> None:
    net, other = Net(), Net()
    state = {k: v.clone().to(kiln.float64) for k, v in other.state_dict().items()}
    net.second.weight.requires_grad_(False)
    assert repr(net.load_state_dict(state, assign=True)) == "<All keys matched successfully>"
    assert isinstance(net.first.weight, nn.Parameter) and net.first.weight.dtype is kiln.float64
    assert net.first.weight.data_ptr() == state["first.weight"].data_ptr()
    assert net.first.weight.requires_grad and not net.second.weight.requires_grad
    assert net.count is state["count"]


class WithExtra(nn.Module):
    def __init__(self, extra: Any) -> None:
        self.extra = extra

    def get_extra_state(self) -> Any:
        return {"extra": self.extra}

    def set_extra_state(self, state: Any) -> None:
        self.extra = state["extra"]


def test_extra_state() -> None:
    a, b = nn.Sequential(WithExtra(1)), nn.Sequential(WithExtra(2))
    state = a.state_dict()
    assert state == {"0._extra_state": {"extra": 1}}
    b.load_state_dict(state)
    assert b[0].extra == 1
    with pytest.raises(kiln.LoadError, match=r"Missing key.*0\._extra_state"):
        b.load_state_dict({})
    with pytest.raises(NotImplementedError):
        nn.ReLU().get_extra_state()


def test_state_hooks() -> None:
    net = Net()
    calls: list[str] = []
    net.register_state_dict_pre_hook(lambda m, prefix, keep: calls.append(f"save {prefix}"))
    net.register_state_dict_post_hook(lambda m, state, prefix, meta: state.update({prefix + "more": 1}))
    state = net.state_dict(prefix="p.")
    assert calls == ["save p."] and state["p.more"] == 1
    old = {k.replace("first", "fc"): v for k, v in Net().state_dict().items()}

    def rename(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for key in [k for k in state if k.startswith(prefix + "fc")]:
            state[key.replace("fc", "first")] = state.pop(key)

    net.register_load_state_dict_pre_hook(rename)
    handle = net.register_load_state_dict_post_hook(lambda m, keys: calls.append(repr(keys)))
    net.load_state_dict(old)
    assert calls[-1] == "<All keys matched successfully>" and "fc.weight" in old
    handle.remove()
    net.load_state_dict(old)
    assert len(calls) == 2


def test_to_and_its_forms() -> None:
    net = Net()
    assert net.to("cpu") is net and net.cpu() is net
    assert net.to("cpu", kiln.float64).first.weight.dtype is kiln.float64
    assert net.to(dtype=kiln.float32).count.dtype is kiln.float32
    assert net.to(kiln.ones(1, dtype=kiln.float64)).first.bias.dtype is kiln.float64
    assert net.float().first.weight.dtype is kiln.float32
    assert net.type(kiln.float64).first.weight.dtype is kiln.float64
    if not kiln.cuda.is_available():
        with pytest.raises(kiln.DeviceError):
            net.to("cuda")
    with pytest.raises(kiln.ArgumentError):
        net.to(3.0)
    with pytest.raises(kiln.ArgumentError):
        net.to(dtpe=kiln.float32)


def test_deepcopy_keeps_sharing() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), Net())
    net[1].weight = net[0].weight
    net[2].register_forward_hook(_double)
    twin = copy.deepcopy(net)
    assert twin[1].weight is twin[0].weight and twin[1].weight is not net[1].weight
    assert list(twin.state_dict()) == list(net.state_dict())
    assert "shift" in twin[2]._non_persistent_buffers_set
    x = kiln.randn(3, 2)
    assert twin(x).tolist() == net(x).tolist()


def _double(module: Any, args: Any, result: Any) -> Any:
    return result * 2


def test_buffers_written_in_a_compiled_call() -> None:
    class Count(nn.Module):
        def __init__(self) -> None:
            self.register_buffer("n", kiln.zeros(()))

        def forward(self, x: kiln.Tensor) -> kiln.Tensor:
            self.n.add_(1.0)
            return x * self.n

    eager, module = Count(), Count()
    compiled = kiln.compile(module)
    for _ in range(3):
        assert compiled(kiln.ones(2)).tolist() == eager(kiln.ones(2)).tolist()
    assert module.n.item() == 3.0


def test_assigning_attributes_in_a_compiled_call() -> None:
    class Change(nn.Module):
        def __init__(self) -> None:
            self.register_buffer("n", kiln.zeros(()))

        def forward(self, x: kiln.Tensor) -> kiln.Tensor:
            self.n = self.n + 1
            return x * self.n

    module = Change()
    compiled = kiln.compile(module, fullgraph=True)
    for n in range(1, 6):
        assert compiled(kiln.ones(2)).tolist() == [n, n]
        assert module.n.item() == n
        assert dict(module.named_buffers())["n"] is module.n
    assert compiled.report().compiled > 0


def test_modules_in_a_training_step_compile() -> None:
    def run(compiled: bool) -> list[Any]:
        kiln.manual_seed(1)
        net = Net()
        opt = kiln.optim.SGD(net.parameters(), lr=0.1)

        def step(x: kiln.Tensor) -> kiln.Tensor:
            loss = (net(x) * net(x)).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss

        f = kiln.compile(step) if compiled else step
        losses = [f(kiln.ones(4, 2)).item() for _ in range(3)]
        return [losses, [p.tolist() for p in net.parameters()]]

    assert run(True) == run(False)
