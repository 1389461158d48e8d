"""Optimisers against the formulas in float64, and their state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn, optim

Array = np.ndarray[Any, Any]


def sgd(
    p: Array, grads: list[Array], lr: float, momentum: float, dampening: float, decay: float, nesterov: bool
) -> Array:
    """torch's documented algorithm."""
    buffer = None
    for grad in grads:
        g = grad + decay * p
        if momentum:
            buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
            g = g + momentum * buffer if nesterov else buffer
        p = p - lr * g
    return p


def adam(
    p: Array, grads: list[Array], lr: float, b1: float, b2: float, eps: float, decay: float, decoupled: bool
) -> Array:
    """torch's documented algorithm."""
    m = v = np.zeros_like(p)
    for t, grad in enumerate(grads, 1):
        if decoupled:
            p = p * (1 - lr * decay)
        g = grad if decoupled else grad + decay * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        p = p - lr / (1 - b1**t) * m / (np.sqrt(v) / np.sqrt(1 - b2**t) + eps)
    return p


def steps(
    make: Callable[[list[kiln.Tensor]], optim.Optimizer], dtype: Any, n: int = 7
) -> tuple[Array, Array, list[Array]]:
    """(start, end, gradients) of n steps with random gradients."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 5))
    grads = [rng.standard_normal((3, 5)) for _ in range(n)]
    p = nn.Parameter(kiln.tensor(start, dtype=dtype))
    optimizer = make([p])
    for g in grads:
        p.grad = kiln.tensor(g, dtype=dtype)
        optimizer.step()
        assert p.grad.tolist() == kiln.tensor(g, dtype=dtype).tolist()  # a step leaves the gradient alone
    return start, p.detach().numpy(), grads


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.float64], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True},
    ],
    ids=lambda o: "+".join(o) or "plain",
)
def test_sgd(options: dict[str, Any], dtype: Any) -> None:
    start, end, grads = steps(lambda p: optim.SGD(p, lr=0.1, **options), dtype)
    full = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, **options}
    wanted = sgd(start, grads, 0.1, full["momentum"], full["dampening"], full["weight_decay"], full["nesterov"])
    assert np.abs(end - wanted).max() < 64 * np.finfo(dtype.numpy).eps


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.float64], ids=str)
@pytest.mark.parametrize("cls", [optim.Adam, optim.AdamW])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam(cls: Any, decay: float, dtype: Any) -> None:
    start, end, grads = steps(lambda p: cls(p, lr=0.01, betas=(0.8, 0.99), weight_decay=decay), dtype)
    wanted = adam(start, grads, 0.01, 0.8, 0.99, 1e-8, decay, cls is optim.AdamW)
    assert np.abs(end - wanted).max() < 64 * np.finfo(dtype.numpy).eps


def test_adam_without_memory() -> None:
    start, end, grads = steps(lambda p: optim.Adam(p, lr=0.01, betas=(0.0, 0.99)), kiln.float64)
    assert np.abs(end - adam(start, grads, 0.01, 0.0, 0.99, 1e-8, 0.0, False)).max() < 1e-13


def test_a_tensor_as_learning_rate() -> None:
    rate = kiln.tensor(0.01)
    _, end, _ = steps(lambda p: optim.AdamW(p, lr=rate, weight_decay=0.1), kiln.float32)
    _, wanted, _ = steps(lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1), kiln.float32)
    assert np.allclose(end, wanted, rtol=1e-6, atol=1e-7)


def test_parameters_without_gradient_are_skipped() -> None:
    a, b = nn.Parameter(kiln.ones(2)), nn.Parameter(kiln.ones(2))
    optimizer = optim.Adam([a, b], lr=0.1)
    a.grad = kiln.ones(2)
    optimizer.step()
    assert b.tolist() == [1.0, 1.0] and optimizer.state[b]["step"].item() == 0
    assert optimizer.state[a]["step"].item() == 1 and a.tolist() != [1.0, 1.0]


def test_zero_grad_and_closure() -> None:
    p = nn.Parameter(kiln.ones(2))
    optimizer = optim.SGD([p], lr=0.5)

    def closure() -> kiln.Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with kiln.no_grad():
        assert optimizer.step(closure).item() == 2.0
    assert p.tolist() == [0.0, 0.0]
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is not None and p.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert p.grad is None


def test_groups() -> None:
    a, b, c = (nn.Parameter(kiln.ones(1)) for _ in range(3))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.25}], lr=0.5)
    optimizer.add_param_group({"params": [c], "lr": 1.0})
    for p in (a, b, c):
        p.grad = kiln.ones(1)
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == [0.5, 0.75, 0.0]
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert a.item() == 0.5
    assert "lr: 0.25" in repr(optimizer)


def test_state_is_there_from_the_start_and_survives_saving() -> None:
    kiln.manual_seed(0)

    def made() -> tuple[nn.Linear, optim.Adam]:
        model = nn.Linear(3, 2)
        return model, optim.Adam(model.parameters(), lr=0.05)

    def train(model: nn.Linear, optimizer: optim.Adam) -> None:
        optimizer.zero_grad()
        (model(kiln.ones(4, 3)) * 2).square().sum().backward()
        optimizer.step()

    model, optimizer = made()
    identities = [id(t) for s in optimizer.state.values() for t in s.values()]
    assert len(identities) == 6
    train(model, optimizer)
    assert identities == [id(t) for s in optimizer.state.values() for t in s.values()]

    other, second = made()
    other.load_state_dict(model.state_dict())
    held = [id(t) for s in second.state.values() for t in s.values()]
    second.load_state_dict(optimizer.state_dict())
    assert held == [id(t) for s in second.state.values() for t in s.values()]
    train(model, optimizer)
    train(other, second)
    assert other.weight.tolist() == model.weight.tolist()


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    p, q = nn.Parameter(kiln.ones(2)), nn.Parameter(kiln.ones(3))
    optimizer = optim.Adam([p], lr=0.5)
    good = optimizer.state_dict()
    bad: list[Any] = [
        {},
        {"state": {}, "param_groups": []},
        optim.Adam([q]).state_dict(),
        optim.SGD([p], momentum=0.5).state_dict(),
        {**good, "param_groups": [{**good["param_groups"][0], "lr": -1.0}]},
    ]
    for state in bad:
        with pytest.raises((kiln.LoadError, kiln.InvalidValueError)):
            optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.5 and optimizer.state[p]["step"].item() == 0


def test_wrong_arguments() -> None:
    p = nn.Parameter(kiln.ones(1))
    for make in (
        lambda: optim.SGD([]),
        lambda: optim.SGD([p, p]),
        lambda: optim.SGD([p * 2]),
        lambda: optim.SGD([p], lr=-1.0),
        lambda: optim.SGD([p], nesterov=True),
        lambda: optim.Adam([p], betas=(0.9, 1.0)),
        lambda: optim.Adam([p], eps=-1.0),
    ):
        with pytest.raises(kiln.InvalidValueError):
            make()
    with pytest.raises(kiln.ArgumentError):
        optim.SGD(p)  # type: ignore[arg-type]
    with pytest.raises(kiln.ArgumentError):
        optim.SGD([1.0])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "make",
    [lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.1), lambda p: optim.AdamW(p, 0.1)],
    ids=["sgd", "adamw"],
)
def test_a_captured_step_stays_right(make: Callable[[Any], optim.Optimizer]) -> None:
    def run(compiled: bool) -> list[float]:
        kiln.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = make(model.parameters())
        x = kiln.randn(6, 3)

        def step() -> kiln.Tensor:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        call = kiln.compile(step) if compiled else step
        return [call().item() for _ in range(6)]

    assert run(True) == run(False)


def test_names_and_options_of_one_s_own() -> None:
    a, b = nn.Parameter(kiln.ones(1)), nn.Parameter(kiln.ones(1))
    optimizer = optim.SGD([("a", a), ("b", b)], lr=0.5)
    assert optimizer.param_groups[0]["param_names"] == ["a", "b"] and optimizer.param_groups[0]["params"] == [a, b]
    optimizer = optim.SGD([{"params": [a], "name": "first"}, {"params": [b]}], lr=0.5)
    assert [group.get("name") for group in optimizer.param_groups] == ["first", None]
    assert dict(**optimizer.param_groups[1])["lr"] == 0.5 and len(optimizer.param_groups[1]) == 7
    del optimizer.param_groups[0]["name"]
    assert "name" not in optimizer.param_groups[0]


def test_a_state_as_torch_saves_it() -> None:
    p = nn.Parameter(kiln.ones(2))
    optimizer = optim.SGD([p], lr=0.5, momentum=0.5, dampening=0.5)
    assert optim.SGD([p], lr=0.5).state_dict()["state"] == {}
    torch_like: dict[str, Any] = {
        "state": {0: {"momentum_buffer": kiln.tensor([2.0, 4.0])}},
        "param_groups": [{"lr": 0.25, "momentum": 0.5, "dampening": 0.5, "foreach": None, "params": [0]}],
    }
    optimizer.load_state_dict(torch_like)
    p.grad = kiln.ones(2)
    optimizer.step()
    assert p.tolist() == [1 - 0.25 * 1.5, 1 - 0.25 * 2.5]
    assert optimizer.param_groups[0]["foreach"] is None

    adam = optim.Adam([p], lr=0.5)
    state = {"step": 3, "exp_avg": kiln.zeros(2), "exp_avg_sq": kiln.ones(2)}
    adam.load_state_dict({"state": {0: state}, "param_groups": adam.state_dict()["param_groups"]})
    assert adam.state[p]["step"].item() == 3
    adam.load_state_dict({"state": {}, "param_groups": adam.state_dict()["param_groups"]})
    assert adam.state[p]["step"].item() == 0 and adam.state[p]["exp_avg_sq"].tolist() == [0.0, 0.0]


def test_loaded_options_bring_their_state() -> None:
    p, q = nn.Parameter(kiln.ones(2)), nn.Parameter(kiln.ones(2))
    first, second = optim.SGD([p], lr=0.5, momentum=0.5), optim.SGD([q], lr=0.1)
    p.grad = kiln.ones(2)
    first.step()
    second.load_state_dict(first.state_dict())
    q.grad = kiln.ones(2)
    second.step()
    assert q.tolist() == [1 - 0.5 * 1.5] * 2
    plain = optim.SGD([q], lr=0.1)
    second.load_state_dict(plain.state_dict())
    assert second.state[q] == {}


def test_lbfgs_is_saved() -> None:
    def made(p: nn.Parameter) -> tuple[optim.LBFGS, Callable[[], kiln.Tensor]]:
        optimizer = optim.LBFGS([p], lr=0.1, max_iter=3)

        def closure() -> kiln.Tensor:
            optimizer.zero_grad()
            loss = ((p - 1.0) * (p - 1.0) * kiln.tensor([1.0, 5.0])).sum()
            loss.backward()
            return loss

        return optimizer, closure

    p = nn.Parameter(kiln.tensor([3.0, -2.0]))
    first, closure = made(p)
    first.step(closure)
    q = nn.Parameter(p.detach().clone())
    second, closure_of_second = made(q)
    second.load_state_dict(first.state_dict())
    assert first.step(closure).item() == second.step(closure_of_second).item()
    assert p.tolist() == q.tolist()


def test_an_optimiser_of_one_s_own() -> None:
    class Signed(optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    state["n"] = state.get("n", 0) + 1
                    with kiln.no_grad():
                        p -= group["lr"] * p.grad

    p = nn.Parameter(kiln.ones(2))
    optimizer = Signed([p], lr=0.5)
    p.grad = kiln.ones(2)
    optimizer.step()
    assert p.tolist() == [0.5, 0.5] and optimizer.state_dict()["state"] == {0: {"n": 1}}
    other = Signed([p], lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[p] == {"n": 1} and other.param_groups[0]["lr"] == 0.5


def test_keywords_that_choose_an_implementation() -> None:
    p = nn.Parameter(kiln.ones(2))
    optim.AdamW([p], foreach=True, fused=False, capturable=True, differentiable=False)
    with pytest.raises(kiln.NotYetError):
        optim.Adam([p], differentiable=True)
    with pytest.raises(kiln.ArgumentError, match="'momentum'"):
        optim.Adam([p], momentum=True)


@pytest.mark.parametrize("cls", [optim.SGD, optim.LBFGS])
def test_hooks_around_a_step(cls: Any) -> None:
    p = nn.Parameter(kiln.ones(2))
    optimizer = cls([p], lr=0.5)
    seen: list[Any] = []

    def closure() -> kiln.Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    def before(given: optim.Optimizer, args: Any, kwargs: Any) -> Any:
        seen.append(("before", given is optimizer, len(args), p.tolist()))
        return (closure,), kwargs

    first = optimizer.register_step_pre_hook(before)
    second = optimizer.register_step_post_hook(
        lambda o, a, k: seen.append(("after", o is optimizer, len(a), p.tolist()))
    )
    assert optimizer.step().item() == 2.0
    moved = p.tolist()
    assert seen == [("before", True, 0, [1.0, 1.0]), ("after", True, 1, moved)] and moved != [1.0, 1.0]
    first.remove()
    second.remove()
    optimizer.step(closure)
    assert len(seen) == 2
    optimizer.register_step_pre_hook(lambda o, a, k: 1)
    with pytest.raises(kiln.ArgumentError):
        optimizer.step(closure)


def test_a_step_that_calls_its_base_has_its_hooks_once() -> None:
    class Twice(optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            return super().step(closure)

    p = nn.Parameter(kiln.ones(1))
    optimizer = Twice([p], lr=0.25)
    seen = []
    optimizer.register_step_post_hook(lambda o, a, k: seen.append(1))
    p.grad = kiln.ones(1)
    optimizer.step()
    assert p.tolist() == [0.5] and seen == [1]


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda p: kiln.optim.SGD(p, lr=-1.0), r"SGD: lr must be in \[0.0, inf\), got -1.0"),
        (lambda p: kiln.optim.Adam(p, betas=(0.9, 1.0)), r"Adam: betas\[1\] must be in \[0.0, 1.0\), got 1.0"),
        (lambda p: kiln.optim.AdamW(p, betas=(0.9,)), "AdamW: betas must be a pair"),
        (lambda p: kiln.optim.Adam(p, betas=0.9), "Adam: betas must be a pair"),
        (lambda p: kiln.optim.RMSprop(p, lr="1"), "RMSprop: lr must be in"),
        (lambda p: kiln.optim.LBFGS(p, lr=-1), "LBFGS: lr must be in"),
    ],
)
def test_numbers_out_of_range_name_optimiser_and_fix(make: Any, match: str) -> None:
    with pytest.raises(kiln.InvalidValueError, match=match) as caught:
        make([kiln.ones(2, requires_grad=True)])
    assert caught.value.fix


def test_optimisers_of_matrices_refuse() -> None:
    w, v = kiln.ones(2, 3, requires_grad=True), kiln.ones(3, requires_grad=True)
    for options in ({"lr": -1.0}, {"beta2_decay": 0.1}, {"d": 0.5}, {"eps": (-1.0, 0.1)}, {"weight_decay": -0.1}):
        with pytest.raises(kiln.InvalidValueError, match="Adafactor"):
            optim.Adafactor([w], **options)  # type: ignore[arg-type]
    for other in (
        {"lr": -1.0},
        {"momentum": -0.1},
        {"ns_steps": 100},
        {"adjust_lr_fn": "x"},
        {"ns_coefficients": (1,)},
    ):
        with pytest.raises(kiln.InvalidValueError, match="Muon"):
            optim.Muon([w], **other)  # type: ignore[arg-type]
    with pytest.raises(kiln.ShapeError, match="matrices"):
        optim.Muon([w, v])
    for cls in (optim.Adafactor, optim.Muon):
        with pytest.raises(kiln.DTypeError, match="complex"):
            cls([w.detach().cfloat().requires_grad_()])
    adafactor = optim.Adafactor([w, v])
    assert {k: t.shape for k, t in adafactor.state[w].items()} == {"step": (), "row_var": (2, 1), "col_var": (1, 3)}
    assert set(adafactor.state[v]) == {"step", "variance"}
    second = optim.Adafactor([w, v])
    w.grad, v.grad = kiln.ones(2, 3), kiln.ones(3)
    adafactor.step()
    second.load_state_dict(adafactor.state_dict())
    assert second.state[w]["row_var"].tolist() == adafactor.state[w]["row_var"].tolist() == [[1.0], [1.0]]
