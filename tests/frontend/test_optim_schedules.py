"""Schedules: saving and going on, tensors as rates, epochs given, and wrong arguments. Values: test_optim_golden.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kiln
from kiln import nn, optim
from kiln.optim import lr_scheduler as S
from tests.frontend import optim_cases as cases


def made(lr: Any = 0.2, groups: int = 2) -> optim.SGD:
    return optim.SGD([{"params": [nn.Parameter(kiln.ones(1))]} for _ in range(groups)], lr=lr, momentum=0.9)


@pytest.mark.parametrize("name", cases.SCHEDULES)
def test_a_saved_schedule_goes_on(name: str, tmp_path: Path) -> None:
    def go(optimizer: optim.Optimizer, schedule: Any, epochs: range) -> list[Any]:
        seen = []
        for epoch in epochs:
            seen.append([[group["lr"], group["momentum"]] for group in optimizer.param_groups])
            schedule.step(*([cases.measure(epoch)] if "Plateau" in name else []))
        return seen

    first = made()
    schedule = cases.SCHEDULES[name](S, first)
    go(first, schedule, range(13))
    assert "optimizer" not in schedule.state_dict()
    kiln.save([first.state_dict(), schedule.state_dict()], tmp_path / "saved")
    saved = kiln.load(tmp_path / "saved")
    second = made(0.05)
    other = cases.SCHEDULES[name](S, second)
    second.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    assert (
        other.get_last_lr() == schedule.get_last_lr() and other.last_epoch == 13 if hasattr(other, "last_epoch") else 1
    )
    assert go(second, other, range(13, 50)) == go(first, schedule, range(13, 50))


def test_last_epoch_goes_on_from_initial_rates() -> None:
    optimizer = made()
    with pytest.raises(kiln.InvalidValueError, match="initial_lr"):
        S.StepLR(optimizer, 3, last_epoch=4)
    schedule = S.CosineAnnealingLR(optimizer, 10)
    for _ in range(4):
        schedule.step()
    again = S.CosineAnnealingLR(optimizer, 10, last_epoch=schedule.last_epoch - 1)
    assert again.get_last_lr() == pytest.approx(schedule.get_last_lr())


@pytest.mark.parametrize(
    "name", ["StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "PolynomialLR", "CosineAnnealingLR"]
)
def test_an_epoch_that_is_given_uses_the_closed_form(name: str) -> None:
    stepped, jumped = made(), made()
    a, b = cases.SCHEDULES[name](S, stepped), cases.SCHEDULES[name](S, jumped)
    for epoch in range(1, 30):
        a.step()
        b.step(epoch)
        assert b.get_last_lr() == pytest.approx(a.get_last_lr(), rel=1e-12, abs=1e-15)


def test_warm_restarts_jump_to_fractions_of_epochs() -> None:
    for factor in (1, 2):
        a, b = (S.CosineAnnealingWarmRestarts(made(), 4, factor) for _ in range(2))
        for epoch in range(1, 30):
            a.step()
            b.step(epoch)
            assert b.get_last_lr() == pytest.approx(a.get_last_lr(), rel=1e-9)
        a.step(0.5)
        assert a.get_last_lr()[0] == pytest.approx(0.2 * (1 + 2**-0.5 * 1.3065629648763766) / 2, rel=1e-6)
        with pytest.raises(kiln.InvalidValueError):
            a.step(-1)


def test_a_tensor_keeps_its_identity() -> None:
    rate = kiln.tensor(0.5, dtype=kiln.float64)
    optimizer = made(rate, groups=1)
    schedule = S.ExponentialLR(optimizer, 0.5)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.25
    assert schedule.get_last_lr() == [0.25]


def test_betas_are_cycled() -> None:
    optimizer = optim.Adam([nn.Parameter(kiln.ones(1))], lr=0.1)
    schedule = S.OneCycleLR(optimizer, 0.5, total_steps=10)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.999)
    for _ in range(2):
        schedule.step()
    assert optimizer.param_groups[0]["betas"] == (0.85, 0.999)
    for _ in range(8):
        schedule.step()
    with pytest.raises(kiln.InvalidValueError, match="of 10 steps"):
        schedule.step()


def test_callable_objects_are_saved_by_their_attributes() -> None:
    class Halving:
        def __init__(self) -> None:
            self.base = 2.0

        def __call__(self, epoch: float) -> float:
            return self.base**-epoch

    a, b = Halving(), Halving()
    a.base = 4.0
    saved = S.LambdaLR(made(), [a, lambda e: 1.0]).state_dict()
    assert saved["lr_lambdas"] == [{"base": 4.0}, None]
    S.LambdaLR(made(), [b, lambda e: 1.0]).load_state_dict(saved)
    assert b.base == 4.0
    c = Halving()
    saved = S.CyclicLR(made(), 0.1, 0.2, scale_fn=a).state_dict()
    S.CyclicLR(made(), 0.1, 0.2, scale_fn=c).load_state_dict(saved)
    assert c.base == 4.0


def test_a_schedule_of_one_s_own() -> None:
    class Third(S.LRScheduler):
        def get_lr(self) -> list[float]:
            return [base / 3**self.last_epoch for base in self.base_lrs]

    optimizer = made()
    schedule = Third(optimizer)
    schedule.step()
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.2 / 3)


def test_wrong_arguments() -> None:
    o, other = made(), made()
    plain = optim.Adagrad([nn.Parameter(kiln.ones(1))])
    for make in (
        lambda: S.ConstantLR(o, factor=1.5),
        lambda: S.LinearLR(o, start_factor=0.0),
        lambda: S.LinearLR(o, end_factor=1.5),
        lambda: S.LambdaLR(o, [lambda e: 1.0]),
        lambda: S.CosineAnnealingWarmRestarts(o, 0),
        lambda: S.CosineAnnealingWarmRestarts(o, 2, T_mult=1.5),  # type: ignore[arg-type]
        lambda: S.CyclicLR(o, 0.1, 0.2, mode="square"),
        lambda: S.CyclicLR(o, [0.1], 0.2),
        lambda: S.CyclicLR(plain, 0.1, 0.2),
        lambda: S.OneCycleLR(plain, 0.1, total_steps=5),
        lambda: S.OneCycleLR(o, 0.1),
        lambda: S.OneCycleLR(o, 0.1, total_steps=0),
        lambda: S.OneCycleLR(o, 0.1, total_steps=5, pct_start=2.0),
        lambda: S.OneCycleLR(o, 0.1, total_steps=5, anneal_strategy="jump"),
        lambda: S.ReduceLROnPlateau(o, factor=1.0),
        lambda: S.ReduceLROnPlateau(o, mode="up"),
        lambda: S.ReduceLROnPlateau(o, threshold_mode="up"),
        lambda: S.ReduceLROnPlateau(o, min_lr=[0.1]),
        lambda: S.SequentialLR(o, [S.StepLR(o, 1)], [2]),
        lambda: S.SequentialLR(o, [S.StepLR(o, 1), S.StepLR(other, 1)], [2]),
        lambda: S.ChainedScheduler([]),
        lambda: S.ChainedScheduler([S.ReduceLROnPlateau(o)]),
    ):
        with pytest.raises(kiln.InvalidValueError):
            make()
    with pytest.raises(kiln.ArgumentError, match="takes an optimiser"):
        S.StepLR(nn.Linear(1, 1), 2)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        S.LRScheduler(o)
