"""The runs of optimisers and schedules whose values `tests/golden/optim.json` holds, as PyTorch computed them.

`tests/tools/make_optim_golden.py` runs these functions on torch and writes the file, `test_optim_golden.py` runs them
on kiln and compares. So they use only what both have; `lib` is the one or the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

STEPS = 20
EPOCHS = 50

OPTIMISERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True, "betas": (0.8, 0.9)}),
    ("Adam", {"lr": 0.05, "maximize": True, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True}),
    ("RMSprop", {"lr": 0.05}),
    ("RMSprop", {"lr": 0.05, "centered": True, "momentum": 0.9, "weight_decay": 0.1, "alpha": 0.9}),
    ("Adagrad", {"lr": 0.05}),
    ("Adagrad", {"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {"lr": 0.05}),
    ("Adamax", {"lr": 0.05, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.05}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "momentum_decay": 0.1}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.05}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.9)}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("Rprop", {"lr": 0.05}),
    ("Rprop", {"lr": 0.05, "etas": (0.4, 1.5), "step_sizes": (0.04, 0.1)}),
    ("ASGD", {"lr": 0.1}),
    ("ASGD", {"lr": 0.1, "lambd": 0.01, "alpha": 0.6, "t0": 3.0, "weight_decay": 0.1}),
    ("Adafactor", {}),
    ("Adafactor", {"lr": 0.5, "beta2_decay": -0.6, "eps": (1e-4, 0.01), "d": 1.5, "weight_decay": 0.1}),
]

MATRICES: list[tuple[str, dict[str, Any]]] = [
    ("Adafactor", {"lr": 0.1}),
    ("Adafactor", {"lr": 0.5, "eps": (1e-4, 0.01), "d": 1.5, "weight_decay": 0.1, "maximize": True}),
    ("Muon", {"lr": 0.05}),
    ("Muon", {"lr": 0.05, "nesterov": False, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}),
    ("Muon", {"lr": 0.1, "momentum": 0.8, "ns_steps": 3, "adjust_lr_fn": "original"}),
]
"""Runs on matrices."""


def gradient(step: int) -> list[float]:
    """Numbers whose signs change now and then."""
    return [math.sin(1.7 * step / (i + 1) + 0.9 * i * i + 0.3) * (1 + 0.2 * i) for i in range(5)]


def optimised(lib: Any, name: str, options: dict[str, Any], dtype: Any) -> list[list[float]]:
    """The parameter after some of the steps."""
    p = lib.tensor([0.5, -1.0, 2.0, -0.25, 0.0], dtype=dtype, requires_grad=True)
    optimizer = getattr(lib.optim, name)([p], **options)
    seen = []
    for step in range(1, STEPS + 1):
        p.grad = lib.tensor(gradient(step), dtype=dtype)
        optimizer.step()
        if step in (1, 2, 7, STEPS):
            seen.append(p.tolist())
    return seen


def of_matrices(lib: Any, name: str, options: dict[str, Any], dtype: Any) -> list[list[float]]:
    """Two parameters, one wide and one high, after some of the steps, end to end."""
    numbers = [math.cos(0.8 * i) for i in range(12)]
    p = lib.tensor([numbers[i : i + 4] for i in (0, 4, 8)], dtype=dtype, requires_grad=True)
    q = lib.tensor([[x, -x] for x in numbers[:5]], dtype=dtype, requires_grad=True)
    optimizer = getattr(lib.optim, name)([p, q], **options)
    seen = []
    for step in range(1, STEPS + 1):
        p.grad = lib.tensor([gradient(step + k)[1:] for k in range(3)], dtype=dtype)
        q.grad = lib.tensor([gradient(step - k)[:2] for k in range(5)], dtype=dtype)
        optimizer.step()
        if step in (1, 2, 7, STEPS):
            seen.append([x for row in [*p.tolist(), *q.tolist()] for x in row])
    return seen


LBFGS: list[dict[str, Any]] = [
    {"line_search_fn": "strong_wolfe", "max_iter": 6},
    {"line_search_fn": "strong_wolfe", "max_iter": 30, "history_size": 3, "lr": 0.5},
    {"lr": 0.002, "max_iter": 5},
]


def valley(lib: Any, options: dict[str, Any]) -> list[list[float]]:
    """Rosenbrock's function: the parameters after each of five steps, then the loss before the last."""
    a = lib.tensor([-1.2], dtype=lib.float64, requires_grad=True)
    b = lib.tensor([1.0, 0.5], dtype=lib.float64, requires_grad=True)
    optimizer = lib.optim.LBFGS([a, b], **options)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (100 * (b - a * a) ** 2.0).sum() + ((1 - a) ** 2.0).sum()
        loss.backward()
        return loss

    seen = []
    for _ in range(5):
        loss = optimizer.step(closure)
        seen.append([*a.tolist(), *b.tolist()])
    return [*seen, [loss.item()]]


Made = Callable[[Any, Any], Any]

SCHEDULES: dict[str, Made] = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, [lambda e: 0.95**e, lambda e: 1 / (1 + e)]),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda e: 0.95 + 0.001 * e),
    "StepLR": lambda s, o: s.StepLR(o, 7, gamma=0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [3, 10, 10, 30], gamma=0.5),
    "ConstantLR": lambda s, o: s.ConstantLR(o, factor=0.25, total_iters=8),
    "LinearLR": lambda s, o: s.LinearLR(o, start_factor=0.1, end_factor=0.9, total_iters=12),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.93),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, total_iters=40, power=1.5),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 15, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, 2, eta_min=0.01),
    "CyclicLR": lambda s, o: s.CyclicLR(o, [0.01, 0.02], 0.3, step_size_up=6, step_size_down=9),
    "CyclicLR triangular2": lambda s, o: s.CyclicLR(o, 0.01, 0.3, 6, mode="triangular2"),
    "CyclicLR exp_range": lambda s, o: s.CyclicLR(o, 0.01, 0.3, 6, mode="exp_range", gamma=0.97),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.5, total_steps=EPOCHS),
    "OneCycleLR linear": lambda s, o: s.OneCycleLR(
        o, [0.5, 0.2], epochs=6, steps_per_epoch=10, anneal_strategy="linear", three_phase=True
    ),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=2, cooldown=1, min_lr=[0.01, 0.02]),
    "ReduceLROnPlateau max": lambda s, o: s.ReduceLROnPlateau(
        o, "max", factor=0.5, patience=3, threshold=0.1, threshold_mode="abs"
    ),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=5), s.CosineAnnealingLR(o, 20), s.ExponentialLR(o, 0.9)], [5, 30]
    ),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 10), s.ExponentialLR(o, 0.95)]),
    "ChainedScheduler in SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.ChainedScheduler([s.ConstantLR(o, 0.5, 3), s.ExponentialLR(o, 0.9)]), s.StepLR(o, 4, 0.5)], [6]
    ),
}


def measure(epoch: int) -> float:
    """A measure that becomes better more and more slowly, with setbacks."""
    return 1 / (1 + 0.3 * epoch) + 0.2 * math.sin(epoch)


def scheduled(lib: Any, name: str) -> list[list[float]]:
    """The rates of two groups, and the momentum of the first, at each epoch."""
    a, b = (lib.tensor([1.0], requires_grad=True) for _ in range(2))
    optimizer = lib.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.2, momentum=0.9)
    schedule = SCHEDULES[name](lib.optim.lr_scheduler, optimizer)
    seen = []
    for epoch in range(EPOCHS):
        seen.append([*schedule.get_last_lr(), optimizer.param_groups[0]["momentum"]])
        assert [group["lr"] for group in optimizer.param_groups] == seen[-1][:2]
        optimizer.step()
        if "Plateau" in name:
            schedule.step(measure(epoch))
        else:
            schedule.step()
    return seen
