"""Forward and backward hooks."""

from __future__ import annotations

from typing import Any

import pytest

import kiln
from kiln import nn


def test_forward_hooks_see_and_replace() -> None:
    layer = nn.Linear(2, 2)
    seen: list[Any] = []
    x = kiln.ones(1, 2)
    plain = layer(x)
    with layer.register_forward_pre_hook(lambda m, args: seen.append(("pre", args[0] is x))):
        layer(x)
    assert seen == [("pre", True)]
    handle = layer.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    assert layer(x).tolist() == layer.forward(x * 2).tolist()
    handle.remove()
    handle.remove()
    layer.register_forward_hook(lambda m, args, out: out + 1)
    layer.register_forward_hook(lambda m, args, out: out * 2)
    layer.register_forward_hook(lambda m, args, out: None)
    assert layer(x).tolist() == ((plain + 1) * 2).tolist()
    layer.register_forward_hook(lambda m, args, out: out - plain, prepend=True)
    assert layer(x).tolist() == [[2.0, 2.0]]


class Scaled(nn.Module):
    def forward(self, x: kiln.Tensor, *, by: float = 1.0) -> kiln.Tensor:
        if by < 0:
            raise ValueError("negative")
        return x * by


def test_hooks_with_kwargs_and_always() -> None:
    module = Scaled()
    module.register_forward_pre_hook(lambda m, args, kwargs: (args, {"by": kwargs["by"] * 2}), with_kwargs=True)
    seen: list[Any] = []
    module.register_forward_hook(lambda m, args, kwargs, out: seen.append(kwargs["by"]), with_kwargs=True)
    module.register_forward_hook(lambda m, args, out: seen.append(out), always_call=True)
    assert module(kiln.ones(1), by=3.0).tolist() == [6.0]
    assert seen[0] == 6.0
    with pytest.raises(ValueError, match="negative"):
        module(kiln.ones(1), by=-1.0)
    assert len(seen) == 3 and seen[-1] is None
    module.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(kiln.ArgumentError, match="pre-hook with kwargs"):
        module(kiln.ones(1), by=1.0)
    with pytest.raises(kiln.ArgumentError, match="a hook is a function"):
        module.register_forward_hook(3)  # type: ignore[arg-type]


def test_backward_hooks_see_and_replace() -> None:
    class Product(nn.Module):
        def forward(self, a: kiln.Tensor, n: int, b: kiln.Tensor) -> tuple[kiln.Tensor, kiln.Tensor]:
            return a * b * n, a + b

    module = Product()
    seen: list[Any] = []
    module.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    a, b = kiln.tensor([2.0], requires_grad=True), kiln.tensor([3.0], requires_grad=True)
    p, s = module(a, 5, b)
    (p + 2 * s).sum().backward()
    assert a.grad is not None and a.grad.tolist() == [17.0]
    ((gi, go),) = seen
    assert [None if g is None else g.tolist() for g in gi] == [[17.0], None, [12.0]]
    assert [g.tolist() for g in go] == [[1.0], [2.0]]
    a.grad = b.grad = None
    module.register_full_backward_hook(lambda m, gi, go: (gi[0] * 10, None, gi[2]))
    module.register_full_backward_pre_hook(lambda m, go: (go[0], None))
    p, s = module(a, 5, b)
    (p + 2 * s).sum().backward()
    assert a.grad is not None and a.grad.tolist() == [150.0]
    assert b.grad is not None and b.grad.tolist() == [10.0]


def test_backward_hooks_without_input_gradients() -> None:
    layer = nn.Linear(2, 1)
    seen: list[Any] = []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].tolist())))
    layer(kiln.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1.0]])]
    with kiln.no_grad():
        layer(kiln.ones(1, 2))
    assert len(seen) == 1


def test_backward_hooks_in_a_chain_and_twice() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    order: list[str] = []
    for name, m in net.named_children():
        m.register_full_backward_hook(lambda m, gi, go, name=name: order.append(name))
    x = kiln.ones(1, 2, requires_grad=True)
    y = net(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert order == ["2", "1", "0"] * 2
    (g,) = kiln.grad(net(x).sum(), [x], create_graph=True)
    assert g.requires_grad


def test_results_behind_backward_hooks_are_read_only() -> None:
    layer = nn.Linear(2, 1)
    layer.register_full_backward_hook(lambda m, gi, go: None)
    with pytest.raises(kiln.GradError, match="read-only"):
        layer(kiln.ones(1, 2)).add_(1.0)


def test_a_hook_that_returns_too_little() -> None:
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda m, gi, go: ())
    with pytest.raises(kiln.ArgumentError, match="0 gradients instead of 1"):
        layer(kiln.ones(1, requires_grad=True)).sum().backward()


def test_hooks_and_capture() -> None:
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(_twice)
    x = kiln.randn(3, 2)
    compiled = kiln.compile(layer, fullgraph=True)
    for _ in range(2):
        assert compiled(x).tolist() == layer(x).tolist()
    layer.register_full_backward_hook(lambda m, gi, go: None)
    with pytest.raises(kiln.CaptureError, match="backward hooks"):
        compiled(x)


def _twice(module: Any, args: Any, out: kiln.Tensor) -> kiln.Tensor:
    return out * 2
