"""Averaged weights. Expected rates were computed by PyTorch 2.13."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.optim import SGD, swa_utils


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()


def steps(m: nn.Module, averaged: list[swa_utils.AveragedModel], count: int) -> list[list[Any]]:
    """Train, and keep the state after each step."""
    x, optimiser = kiln.randn(5, 3, dtype=kiln.float64), SGD(m.parameters(), 0.1)
    seen = []
    for _ in range(count):
        optimiser.zero_grad()
        (m(x) ** 2).mean().backward()
        optimiser.step()
        for each in averaged:
            each.update_parameters(m)
        seen.append([v.clone().numpy() for v in m.state_dict().values()])
    return seen


def test_averages() -> None:
    m = model()
    plain = swa_utils.AveragedModel(m)
    ema = swa_utils.AveragedModel(m, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    other = swa_utils.AveragedModel(m, avg_fn=swa_utils.get_ema_avg_fn(0.9), use_buffers=True)
    seen = steps(m, [plain, ema, other], 4)
    keys, last = list(m.state_dict()), seen[-1]
    moving = list(seen[0])
    for state in seen[1:]:
        moving = [0.9 * a + 0.1 * b for a, b in zip(moving, state, strict=True)]
    for k, key in enumerate(keys):
        got = {n: a.module.state_dict()[key].numpy() for n, a in (("plain", plain), ("ema", ema), ("other", other))}
        buffer = "running" in key or "num" in key
        mean = np.mean([s[k] for s in seen], axis=0)
        np.testing.assert_allclose(got["plain"], last[k] if buffer else mean, rtol=1e-12)
        np.testing.assert_allclose(got["ema"], last[k] if buffer else moving[k], rtol=1e-12)
        if "num" not in key:
            np.testing.assert_allclose(got["other"], moving[k], rtol=1e-12)
    assert plain.n_averaged.item() == 4 and next(iter(plain.state_dict())) == "n_averaged"
    x = kiln.ones(2, 3, dtype=kiln.float64)
    assert plain.eval()(x).tolist() == plain.module(x).tolist()
    with pytest.raises(kiln.ArgumentError, match="AveragedModel"):
        swa_utils.AveragedModel(m, avg_fn=swa_utils.get_swa_avg_fn(), multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    with pytest.raises(kiln.InvalidValueError, match="decay"):
        swa_utils.get_ema_avg_fn(1.5)


def test_update_bn() -> None:
    m = model().eval()
    batches = [kiln.randn(6, 3, dtype=kiln.float64) for _ in range(3)]
    swa_utils.update_bn([[b, 0] for b in batches], m)
    outputs = [m[0](b).detach().numpy() for b in batches]
    np.testing.assert_allclose(m[1].running_mean.numpy(), np.mean([o.mean(0) for o in outputs], 0), rtol=1e-12)
    np.testing.assert_allclose(m[1].running_var.numpy(), np.mean([o.var(0, ddof=1) for o in outputs], 0), rtol=1e-12)
    assert m[1].momentum == 0.1 and not m.training


@pytest.mark.parametrize(
    "options, wanted",
    [
        ({"swa_lr": 0.1, "anneal_epochs": 4, "anneal_strategy": "linear"}, [0.775, 0.55, 0.325, 0.1, 0.1, 0.1]),
        ({"swa_lr": 0.05, "anneal_epochs": 3}, [0.7625, 0.2875, 0.05, 0.05, 0.05, 0.05]),
        ({"swa_lr": [0.5], "anneal_epochs": 0}, [0.5] * 6),
    ],
)
def test_rates(options: dict[str, Any], wanted: list[float]) -> None:
    optimiser = SGD([kiln.ones(1, requires_grad=True)], 1.0)
    schedule = swa_utils.SWALR(optimiser, **options)
    rates = []
    for _ in wanted:
        optimiser.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    np.testing.assert_allclose(rates, wanted, rtol=1e-12)
    with pytest.raises(kiln.InvalidValueError, match="SWALR"):
        swa_utils.SWALR(optimiser, 0.1, anneal_strategy="step")
