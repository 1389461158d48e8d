"""Mixed precision on a GPU: what computes in float16 there, scaled gradients, and how often they make the CPU wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import casting, nn
from tests.gpu.conftest import Gpu

pytestmark = pytest.mark.usefixtures("gpu")
F = nn.functional


@pytest.fixture
def _one_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU has the rules of GPUs."""
    monkeypatch.setitem(casting.TABLES, "cpu", casting.TABLES["cuda"])
    monkeypatch.setattr(casting, "CHOICES", dict.fromkeys(("cpu", "cuda"), casting.CHOICES["cuda"]))
    casting.rules.cache_clear()
    yield
    monkeypatch.undo()
    casting.rules.cache_clear()


def trained(device: str, compiled: bool) -> list[bytes]:
    """Losses and parameters of some steps, of which one overflows."""
    kiln.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).to(device)
    x, y = kiln.randn(4, 5).to(device), kiln.tensor([0, 2, 1, 0], device=device)
    optimiser = kiln.optim.SGD(net.parameters(), lr=0.1)
    scaler = kiln.amp.GradScaler(device, init_scale=2.0**24, backoff_factor=2.0**-14)

    def loss(x: Any, y: Any) -> Any:
        with kiln.autocast(device, dtype=kiln.float16):
            return F.cross_entropy(net(x), y)

    run = kiln.compile(loss, fullgraph=True) if compiled else loss
    losses, scales = [], []
    for _ in range(3):
        optimiser.zero_grad()
        made = run(x, y)
        scaler.scale(made).backward()
        scaler.step(optimiser)
        scaler.update()
        scales.append(scaler.get_scale())
        losses.append(made)
    assert scales == [1024.0] * 3 and bits(losses[0]) == bits(losses[1]) != bits(losses[2])
    return [bits(t) for t in (*losses, *net.parameters())]


def bits(x: Any) -> bytes:
    return np.ascontiguousarray(x.detach().cpu().numpy()).tobytes()


@pytest.mark.usefixtures("_one_table")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_scaled_step_in_float16_has_the_cpus_bits(compiled: bool) -> None:
    assert trained("cuda", compiled) == trained("cpu", False)


def test_gradients_are_looked_at_without_a_wait(gpu: Gpu) -> None:
    ps = [kiln.ones(n, device="cuda", requires_grad=True) for n in (3, 4, 5)]
    optimiser, scaler = kiln.optim.SGD(ps, lr=1.0), kiln.amp.GradScaler(init_scale=4.0)
    for p in ps:
        p.grad = kiln.full_like(p, 8.0)
    scaler.scale(ps[0].sum())
    for again in range(2):  # the first time there is code to compile
        before = gpu.counts.copy()
        scaler.unscale_(optimiser)
        made = gpu.counts - before
        if again and not gpu.real:
            assert not made["synchronize"] and made["launch"] <= 3 * len(ps) + 5
        before = gpu.counts.copy()
        scaler.step(optimiser)
        scaler.update()
        if again and not gpu.real:
            assert (gpu.counts - before)["synchronize"] <= 1
    assert ps[2].tolist() == [1.0 - 2.0 - 0.5] * 5


def test_regions_are_of_one_kind_of_device() -> None:
    x = kiln.ones(2, 2)
    y = x.cuda()
    with kiln.autocast("cuda"):
        assert (y @ y).dtype is kiln.float16 and (x @ x).dtype is kiln.float32
        with kiln.autocast("cpu"):
            assert (y @ y).dtype is kiln.float16 and (x @ x).dtype is kiln.bfloat16
        assert y.half().sum().dtype is kiln.float32 and x.half().sum().dtype is kiln.float16
        assert (y.double() @ y.double()).dtype is kiln.float64
    with kiln.cuda.amp.autocast(dtype=kiln.bfloat16):
        assert (y @ y).dtype is kiln.bfloat16
        out, _ = nn.GRU(2, 3).cuda()(y)
        assert out.dtype is kiln.bfloat16
