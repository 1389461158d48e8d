"""Training steps that are one program: equal to eager ones bit for bit, and one compilation for every learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import kiln
from kiln import nn, optim
from tests.frontend import optim_cases as cases

Run = list[Any]


def train(
    make: Callable[[Any], optim.Optimizer],
    compiled: bool,
    steps: int = 6,
    dtype: Any = kiln.float32,
    between: Callable[[optim.Optimizer, int], None] = lambda o, k: None,
) -> tuple[Run, int]:
    """Losses and final parameters, a 0-d one among them, and how often was captured."""
    kiln.manual_seed(3)
    w = kiln.randn(3, 4, dtype=dtype).requires_grad_()
    b = kiln.tensor(0.5, dtype=dtype, requires_grad=True)
    x = kiln.randn(6, 3, dtype=dtype)
    optimizer = make([w, b])

    def step() -> kiln.Tensor:
        optimizer.zero_grad()
        loss = ((x @ w).tanh() + b).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    call = kiln.compile(step) if compiled else step
    losses = []
    for k in range(steps):
        losses.append(call().item())
        between(optimizer, k)
    state = [t.tolist() for s in optimizer.state.values() for t in s.values()]
    return [losses, w.tolist(), b.item(), state], len(call.log) if isinstance(call, kiln.jit.CompiledFunction) else 0


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.float64], ids=str)
@pytest.mark.parametrize("case", cases.OPTIMISERS, ids=lambda case: "-".join([case[0], *case[1]]))
def test_every_optimiser(case: tuple[str, dict[str, Any]], dtype: Any) -> None:
    name, options = case
    eager, _ = train(lambda p: getattr(optim, name)(p, **options), False, dtype=dtype)
    compiled, captures = train(lambda p: getattr(optim, name)(p, **options), True, dtype=dtype)
    assert compiled == eager
    assert captures == 1


def train_matrices(name: str, options: dict[str, Any], compiled: bool) -> Run:
    kiln.manual_seed(3)
    w, v = kiln.randn(3, 4).requires_grad_(), kiln.randn(4, 2).requires_grad_()
    x = kiln.randn(6, 3)
    optimizer = getattr(optim, name)([w, v], **options)

    def step() -> kiln.Tensor:
        optimizer.zero_grad()
        loss = ((x @ w).tanh() @ v).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    call = kiln.compile(step) if compiled else step
    losses = []
    for k in range(6):
        losses.append(call().item())
        optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)
    return [losses, w.tolist(), v.tolist(), [t.tolist() for s in optimizer.state.values() for t in s.values()]]


@pytest.mark.parametrize("case", cases.MATRICES, ids=lambda case: "-".join([case[0], *case[1]]))
def test_optimisers_of_matrices(case: tuple[str, dict[str, Any]]) -> None:
    assert train_matrices(*case, True) == train_matrices(*case, False)


ONES_THAT_READ: list[tuple[str, Callable[[Any], optim.Optimizer]]] = [
    ("SGD", lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True)),
    ("Adam", lambda p: optim.Adam(p, 0.1, weight_decay=0.01)),
    ("AdamW", lambda p: optim.AdamW(p, 0.1)),
    ("RMSprop", lambda p: optim.RMSprop(p, 0.01, momentum=0.5)),
    ("NAdam", lambda p: optim.NAdam(p, 0.1, weight_decay=0.01, decoupled_weight_decay=True)),
    ("RAdam", lambda p: optim.RAdam(p, 0.1, weight_decay=0.01, decoupled_weight_decay=True)),
    ("Adagrad", lambda p: optim.Adagrad(p, 0.1, lr_decay=0.1)),
    ("ASGD", lambda p: optim.ASGD(p, 0.1)),
]


@pytest.mark.parametrize("make", [m for _, m in ONES_THAT_READ], ids=[n for n, _ in ONES_THAT_READ])
def test_twenty_learning_rates_are_one_compilation(make: Callable[[Any], optim.Optimizer]) -> None:
    def between(optimizer: optim.Optimizer, k: int) -> None:
        group = optimizer.param_groups[0]
        group["lr"] = 0.1 * 0.9**k if k != 7 else 0.0
        if "betas" in group:
            group["betas"] = (0.9 - 0.01 * k, 0.99)
        elif group.get("momentum"):
            group["momentum"] = 0.9 - 0.01 * k

    eager, _ = train(make, False, 20, between=between)
    compiled, captures = train(make, True, 20, between=between)
    assert compiled == eager and captures == 1
    constant, _ = train(make, True, 20)
    assert constant != compiled


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR", "CosineAnnealingLR", "LinearLR", "MultiStepLR"])
@pytest.mark.parametrize("cls", [optim.SGD, optim.AdamW])
def test_a_compiled_step_follows_a_schedule(cls: Any, name: str) -> None:
    def run(compiled: bool) -> tuple[Run, int]:
        schedules: list[Any] = []

        def make(p: Any) -> optim.Optimizer:
            extra = {"momentum": 0.9} if cls is optim.SGD else {}
            groups = [{"params": p[:1]}, {"params": p[1:], "lr": 0.3}]
            optimizer: optim.Optimizer = cls(groups, lr=0.1, **extra)
            schedules.append(cases.SCHEDULES[name](optim.lr_scheduler, optimizer))
            return optimizer

        return train(make, compiled, 20, between=lambda o, k: schedules[0].step())

    eager, _ = run(False)
    compiled, captures = run(True)
    assert compiled == eager and captures == 1


def test_momentum_that_comes_later() -> None:
    def between(optimizer: optim.Optimizer, k: int) -> None:
        optimizer.param_groups[0]["momentum"] = [0.0, 0.5, 0.6, 0.0, 0.7, 0.8][k]

    eager, _ = train(lambda p: optim.SGD(p, 0.1), False, between=between)
    compiled, captures = train(lambda p: optim.SGD(p, 0.1), True, between=between)
    assert compiled == eager
    assert captures <= 6


def test_a_rate_that_is_read_in_a_captured_function_is_guarded() -> None:
    p = nn.Parameter(kiln.ones(2))
    optimizer = optim.SGD([p], lr=0.5)
    x = kiln.ones(3)

    @kiln.compile
    def rate() -> tuple[float, kiln.Tensor]:
        now: float = optimizer.param_groups[0]["lr"]
        return now, x * now

    for lr in (0.5, 0.5, 0.25, 0.25, 0.5):
        optimizer.param_groups[0]["lr"] = lr
        number, scaled = rate()
        assert number == lr and scaled.tolist() == [lr] * 3
    assert len(rate.log) <= 3 and "an optimiser's 'lr'" in rate.log[1]


def test_other_options_that_change_are_seen() -> None:
    def between(optimizer: optim.Optimizer, k: int) -> None:
        optimizer.param_groups[0]["eps"] = 10.0**-k

    eager, _ = train(lambda p: optim.Adam(p, 0.1), False, between=between)
    compiled, _ = train(lambda p: optim.Adam(p, 0.1), True, between=between)
    assert compiled == eager


def test_a_tensor_as_rate_is_the_user_s_own() -> None:
    rate = kiln.tensor(0.1)

    def make(p: Any) -> optim.Optimizer:
        rate.fill_(0.1)
        return optim.SGD(p, lr=rate, momentum=0.9)

    def between(optimizer: optim.Optimizer, k: int) -> None:
        assert optimizer.param_groups[0]["lr"] is rate
        rate.mul_(0.5)

    eager, _ = train(make, False, between=between)
    compiled, captures = train(make, True, between=between)
    assert compiled == eager and captures == 1


def test_setting_an_option_inside_is_refused() -> None:
    p = nn.Parameter(kiln.ones(2))
    optimizer = optim.SGD([p], lr=0.5)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    @kiln.compile(fullgraph=True)
    def direct() -> kiln.Tensor:
        optimizer.param_groups[0]["lr"] = 0.1
        return p.detach() * 2

    @kiln.compile(fullgraph=True)
    def by_schedule() -> kiln.Tensor:
        schedule.step()
        return p.detach() * 2

    for call in (direct, by_schedule):
        with pytest.raises(kiln.CaptureError, match="lr"):
            call()


def test_lbfgs_inside_is_refused_and_its_closure_may_be_compiled() -> None:
    p = nn.Parameter(kiln.tensor([3.0, -2.0]))
    optimizer = optim.LBFGS([p], line_search_fn="strong_wolfe")

    def closure() -> kiln.Tensor:
        optimizer.zero_grad()
        loss = ((p - 1.0) * (p - 1.0)).sum()
        loss.backward()
        return loss.detach()

    with pytest.raises(kiln.CaptureError, match=r"LBFGS"):
        kiln.compile(lambda: optimizer.step(closure), fullgraph=True)()
    fast = kiln.compile(closure)
    assert optimizer.step(fast).item() == 13.0
    assert p.detach().numpy() == pytest.approx([1.0, 1.0])
    with pytest.raises(kiln.ArgumentError):
        optimizer.step()


class Lion(optim.Optimizer):
    """An optimiser as torch users write them."""

    def __init__(self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @kiln.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if len(state) == 0:
                    state["exp_avg"] = kiln.zeros_like(p)
                m = state["exp_avg"]
                p.add_((m * beta1 + p.grad * (1 - beta1)).tanh(), alpha=-group["lr"])
                m.mul_(beta2).add_(p.grad, alpha=1 - beta2)


def test_an_optimiser_of_one_s_own() -> None:
    def run(compiled: bool) -> tuple[Run, int]:
        p = kiln.tensor([1.0, -2.0, 0.5], requires_grad=True)
        optimizer = Lion([p], lr=0.1)
        schedule = optim.lr_scheduler.StepLR(optimizer, 3)

        def step() -> kiln.Tensor:
            optimizer.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        step()  # makes its state, which a captured call must not
        call = kiln.compile(step) if compiled else step
        losses = []
        for _ in range(9):
            losses.append(call().item())
            schedule.step()
        captures = len(call.log) if isinstance(call, kiln.jit.CompiledFunction) else 0
        return [losses, p.tolist(), optimizer.param_groups[0]["lr"]], captures

    eager, _ = run(False)
    compiled, captures = run(True)
    assert compiled == eager
    assert captures == 3  # its code reads the rate as a number: one for each


def test_state_that_appears_in_a_captured_step_is_there_afterwards() -> None:
    def run(compiled: bool) -> list[Any]:
        p = kiln.tensor([1.0, -2.0, 0.5], requires_grad=True)
        optimizer = Lion([p], lr=0.1)
        step = kiln.compile(lambda: optimizer.step(), fullgraph=True) if compiled else optimizer.step
        seen = []
        for k in range(5):
            p.grad = kiln.tensor([1.0, -1.0, 2.0]) * (k - 2)
            step()
            seen.append((p.tolist(), {name: x.tolist() for name, x in optimizer.state[p].items()}))
        return seen

    assert run(True) == run(False)


def test_hooks_are_part_of_a_compiled_step() -> None:
    def run(compiled: bool) -> Run:
        def make(p: Any) -> optim.Optimizer:
            optimizer = optim.SGD(p, lr=0.1)
            optimizer.register_step_pre_hook(halve)
            return optimizer

        return train(make, compiled)[0]

    def halve(optimizer: optim.Optimizer, args: Any, kwargs: Any) -> None:
        for p in optimizer.param_groups[0]["params"]:
            p.grad.mul_(0.5)

    assert run(True) == run(False) != train(lambda p: optim.SGD(p, lr=0.1), False)[0]
