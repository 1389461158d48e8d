"""Whole training steps on a GPU, eager and compiled: the CPU's bits, for the user's code as it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.errors import CaptureError, KilnIndexError
from tests.gpu.conftest import Gpu

pytestmark = pytest.mark.usefixtures("gpu")
F = nn.functional


def bits(x: Any) -> bytes:
    return np.ascontiguousarray(x.detach().cpu().numpy()).tobytes()


# -------------------------------------------------------------------------------------------------- models


class Attention(nn.Module):
    """One block of a transformer, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.norm = nn.LayerNorm(8)
        self.projections = nn.Linear(8, 24)
        self.out = nn.Linear(8, 7)

    def forward(self, tokens: Any) -> Any:
        x = self.table(tokens)
        q, k, v = self.projections(self.norm(x)).chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(F.dropout(x, 0.1)).reshape(-1, 7)


def mlp() -> tuple[Any, Any, Any]:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), kiln.randn(4, 5), kiln.tensor([0, 2, 1, 0])


def cnn() -> tuple[Any, Any, Any]:
    layers = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(*layers), kiln.randn(2, 1, 4, 4), kiln.tensor([1, 2])


def transformer() -> tuple[Any, Any, Any]:
    return Attention(), kiln.tensor([[1, 2, 3], [4, 5, 6]]), kiln.tensor([2, 3, 4, 5, 6, 0])


Optimiser = Callable[[Any], kiln.optim.Optimizer]
sgd: Optimiser = lambda p: kiln.optim.SGD(p, lr=0.1, momentum=0.9)  # noqa: E731
adam: Optimiser = lambda p: kiln.optim.Adam(p, lr=0.01)  # noqa: E731
adamw: Optimiser = lambda p: kiln.optim.AdamW(p, lr=0.01)  # noqa: E731


def trained(make: Any, optimiser: Optimiser, device: str, compiled: bool, steps: int = 3) -> tuple[list[bytes], Any]:
    """What is left after some steps: losses, parameters, buffers, the optimiser's state; and the step."""
    kiln.manual_seed(0)
    model, x, y = make()
    model, x, y = model.to(device), x.to(device), y.to(device)
    opt = optimiser(model.parameters())
    kiln.manual_seed(1)

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    run = kiln.compile(step) if compiled else step
    losses = [run(x, y) for _ in range(steps)]
    state = [t for p in model.parameters() for t in opt.state[p].values()]
    assert all(t.device.type == device for t in (*losses, *model.parameters(), *model.buffers(), *state))
    return [bits(t) for t in (*losses, *model.parameters(), *model.buffers(), *state)], run


CASES = [(mlp, adam), (cnn, sgd), (transformer, adamw)]
MORE = [(make, optimiser) for make in (mlp, cnn, transformer) for optimiser in (sgd, adam, adamw)]
ALL = [
    *[pytest.param(*case, False, id=f"{case[0].__name__}") for case in CASES[:1]],
    *[pytest.param(*case, True, id=f"{case[0].__name__}-compiled") for case in CASES],
    *[
        pytest.param(make, optimiser, compiled, marks=pytest.mark.slow, id=f"more-{make.__name__}-{n}-{compiled}")
        for n, (make, optimiser) in enumerate(MORE)
        for compiled in (False, True)
    ],
]


@pytest.mark.parametrize(("make", "optimiser", "compiled"), ALL)
def test_training_has_the_cpus_bits(make: Any, optimiser: Optimiser, compiled: bool) -> None:
    made, step = trained(make, optimiser, "cuda", compiled)
    wanted, _ = trained(make, optimiser, "cpu", False)
    if make is transformer:  # a GPU's attention has bits of its own; noise in gradients that are 0 is a step of Adam's
        losses = [np.frombuffer(b"".join(found[:3]), np.float32) for found in (made, wanted)]
        assert np.allclose(*losses, atol=1e-4)
    else:
        assert made == wanted
    if compiled:
        assert step.report().compiled == 2, step.report()


# ------------------------------------------------------------------------------------------- one launch for many


def test_few_launches(fake: Gpu) -> None:
    """Of a step of AdamW, eagerly and as part of a compiled step, for 7 parameters; before there were 42 and 49."""
    made = {}
    for compiled in (False, True):
        model, x, y = transformer()
        model, x, y = model.cuda(), x.cuda(), y.cuda()
        opt = adamw(model.parameters())

        def backward(model: Any, x: Any, y: Any, opt: Any) -> None:
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()

        def step(*args: Any) -> None:
            backward(*args)
            args[-1].step()

        run = kiln.compile(step) if compiled else step
        run(model, x, y, opt)
        if not compiled:
            backward(model, x, y, opt)
        before = fake.counts["launch"]
        run(model, x, y, opt) if compiled else opt.step()
        made[compiled] = fake.counts["launch"] - before
    assert made[False] <= 5, made
    assert made[True] <= 34, made


@pytest.mark.parametrize("order", ["natural", "reverse", "shuffled"])
def test_one_launch_for_many_parameters_has_the_cpus_bits(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_SHIM_ORDER", order)
    wanted, _ = trained(mlp, adamw, "cpu", False)
    for compiled in (False, True):
        assert trained(mlp, adamw, "cuda", compiled)[0] == wanted


def test_gradients_that_lie_in_one_buffer(fake: Gpu) -> None:
    """As those of buckets do: their parameters are updated together all the same."""
    found = []
    for device in ("cpu", "cuda"):
        params = [kiln.ones(n, device=device).requires_grad_() for n in (3, 5, 8)]
        flat = kiln.arange(16.0, device=device)
        for p, grad in zip(params, flat.split([3, 5, 8]), strict=True):
            p.grad = grad
        opt = kiln.optim.SGD(params, lr=0.1)
        opt.step()
        before = fake.counts["launch"]
        opt.step()
        found.append([bits(p) for p in params])
    assert found[0] == found[1]
    assert fake.counts["launch"] - before == 2


def test_steps_of_parameters_that_share_memory(fake: Gpu) -> None:
    """One after the other, and in order; others are one launch."""
    found = []
    for device in ("cpu", "cuda"):
        flat = kiln.arange(12.0, device=device)
        params = [kiln.ones(n, device=device) for n in (3, 5)]
        params += [flat[:6].detach(), flat[3:9].detach(), flat[9:].detach(), kiln.ones((), device=device)]
        for k, p in enumerate(params):
            p.requires_grad_().grad = kiln.full_like(p, k + 1.0)
        opt = kiln.optim.SGD(params, lr=0.1, momentum=0.9)
        for _ in range(2):
            before = fake.counts["launch"]
            opt.step()
        found.append([bits(t) for t in (flat, *params)])
    assert found[0] == found[1]
    assert fake.counts["launch"] - before >= 6


def test_more_parameters_than_one_program_takes(fake: Gpu) -> None:
    found = []
    for device in ("cpu", "cuda"):
        params = [kiln.arange(n + 1.0, device=device).requires_grad_() for n in range(70)]
        opt = kiln.optim.SGD(params, lr=0.5)
        for count in (70, 3):  # the second time the others have no gradient
            for p in params:
                p.grad = p.detach() + 1 if p.numel() <= count else None
            before = fake.counts["launch"]
            opt.step()
            launches = fake.counts["launch"] - before
            assert device == "cpu" or launches <= (9 if count == 70 else 3), launches
        found.append([bits(p) for p in params])
    assert found[0] == found[1]


# ----------------------------------------------------------------------------------------- compiled functions


def test_captures_are_of_one_device(gpu: Gpu) -> None:
    f = kiln.compile(lambda x: (x * 2 + 1).sum())
    x = kiln.arange(4.0)
    for _ in range(2):
        assert f(x).is_cpu
        made = f(x.cuda())
        assert made.is_cuda and made.item() == 16.0
    assert f.report().captured == 2 and f.report().compiled == 2
    launches = gpu.counts["launch"]
    f(x.cuda())
    assert gpu.real or gpu.counts["launch"] in (launches + 1, launches + 2)


def test_gradients_of_a_compiled_function() -> None:
    def f(x: Any, w: Any) -> Any:
        return (x @ w).tanh().sum()

    compiled, x, w = kiln.compile(f), kiln.randn(3, 4), kiln.randn(4, 2)
    found = []
    for device, function in (("cpu", f), ("cuda", compiled), ("cuda", compiled)):
        a, b = x.to(device).requires_grad_(), w.to(device).requires_grad_()
        g, h = kiln.autograd.grad(function(a, b), (a, b), create_graph=True)
        (gg,) = kiln.autograd.grad((g * g).sum() + (h * h).sum(), a)
        found.append([bits(t) for t in (g, h, gg)])
    assert found[0] == found[1] == found[2]


def test_questions_and_staged_branches() -> None:
    def asked(x: Any) -> Any:
        return x * 2 if x.sum().item() > 0 else x - 1

    def staged(x: Any) -> Any:
        y = x
        for _ in range(3):
            if y.sum() > 4:
                y = y - 1
            else:
                y = y * 2
        return y

    for f in (asked, staged):
        compiled, x = kiln.compile(f), kiln.tensor([1.0, -0.5, 2.0])
        for sign in (1, -1, 1, -1):
            made = compiled((x * sign).cuda())
            assert made.is_cuda and bits(made) == bits(f(x * sign))


def moved(x: Any) -> Any:
    y = x.cpu() * 3
    return y.to(x.device) + x, y


def joined(x: Any) -> Any:
    return x * 2, kiln.ones(3, device="cpu") + 1, kiln.arange(3, device=x.device) + x


@pytest.mark.parametrize("f", [moved, joined])
def test_both_devices_in_one_capture(f: Callable[[Any], Any]) -> None:
    """Transfers and tensors of both devices: what eager gives, where eager has it."""
    compiled, x = kiln.compile(f), kiln.tensor([1.0, 2.0, 3.0])
    for k in range(3):
        made, wanted = compiled((x + k).cuda()), f((x + k).cuda())
        assert [t.device for t in made] == [t.device for t in wanted]
        assert [bits(t) for t in made] == [bits(t) for t in wanted] == [bits(t) for t in f(x + k)]
    assert compiled.report().compiled == 2


def test_arguments_on_both_devices() -> None:
    """With gradients that go back to either, writes to either, and numbers of the CPU."""

    def f(x: Any, y: Any, scale: Any, count: Any) -> Any:
        count.add_(1)
        return (x.to(y.device) * y * scale).sum()

    found = []
    for function, device in ((f, "cpu"), (f, "cuda"), (kiln.compile(f), "cuda")):
        for k in range(2):
            x = (kiln.arange(6.0).reshape(2, 3).t() + k).requires_grad_()  # not contiguous
            y = (kiln.ones(3, 2) * 2).to(device).requires_grad_()
            scale, count = kiln.tensor(1.5, requires_grad=True), kiln.zeros(2, dtype=kiln.int64)
            out = function(x, y, scale, count)
            grads = kiln.autograd.grad(out, (x, y, scale), create_graph=True)
            (second,) = kiln.autograd.grad(grads[1].sum(), x)
            assert [g.device.type for g in (*grads, second)] == ["cpu", device, "cpu", "cpu"]
            assert count.is_cpu and count.tolist() == [1, 1] and out.device.type == device
            found.append((k, [bits(t) for t in (out, *grads, second)]))
    for k in range(2):
        assert len({tuple(b) for n, b in found if n == k}) == 1


def test_random_numbers_of_a_compiled_function() -> None:
    f = kiln.compile(lambda x: x + kiln.rand_like(x))
    kiln.manual_seed(4)
    wanted = [bits(kiln.zeros(3) + kiln.rand(3)) for _ in range(3)]
    x = kiln.zeros(3, device="cuda")
    kiln.rand(1, device="cuda")  # its generator is there
    kiln.manual_seed(4)
    assert [bits(f(x)) for _ in range(3)] == wanted
    assert f.report().compiled == 2


def test_failed_checks_of_a_compiled_function() -> None:
    f = kiln.compile(lambda x, i: x[i] * 2)
    x = kiln.arange(3.0, device="cuda")
    for k in (0, 2):
        assert f(x, kiln.tensor([k], device="cuda")).tolist() == [2.0 * k]
    with pytest.raises(KilnIndexError):
        f(x, kiln.tensor([3], device="cuda"))


def test_scripts_and_traces() -> None:
    def f(x: Any) -> Any:
        return (x.cpu() + 1).to(x.device) * 2

    x = kiln.arange(3.0, device="cuda")
    for made in (kiln.jit.script(f), kiln.jit.trace(f, (x,)), kiln.compile(f, fullgraph=True)):
        for _ in range(2):
            y = made(x)
            assert y.is_cuda and y.tolist() == [2.0, 4.0, 6.0]


def test_what_a_capture_refuses() -> None:
    f = kiln.compile(lambda x: kiln.from_numpy(x.cpu().numpy()) + 1, fullgraph=True)
    with pytest.raises(CaptureError, match="numpy"):
        f(kiln.ones(2, device="cuda"))
