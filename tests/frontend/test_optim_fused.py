"""Steps as native calls of their own: the same bits, versions and errors as the ops one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import dispatch, optim
from kiln.errors import GradError
from kiln.optim import fused

DTYPES = [kiln.float32, kiln.float64, kiln.bfloat16, kiln.float16]
CASES: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "sgd nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "adam": lambda p: optim.Adam(p, weight_decay=0.1),
    "adam amsgrad": lambda p: optim.Adam(p, lr=kiln.tensor(0.01), amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, maximize=True),
    "rmsprop": lambda p: optim.RMSprop(p, momentum=0.9, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr_decay=0.1),
    "adadelta": lambda p: optim.Adadelta(p),
    "adamax": lambda p: optim.Adamax(p),
    "nadam": lambda p: optim.NAdam(p, weight_decay=0.1, decoupled_weight_decay=True),
    "radam": lambda p: optim.RAdam(p),
    "rprop": lambda p: optim.Rprop(p),
    "asgd": lambda p: optim.ASGD(p, weight_decay=0.1),
}


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ops that run one by one meanwhile."""
    seen: list[str] = []
    with monkeypatch.context() as patch:
        run, write = dispatch.run, dispatch.write
        patch.setattr(dispatch, "run", lambda op, *rest: (seen.append(op.name), run(op, *rest))[1])
        patch.setattr(dispatch, "write", lambda t, op, *rest: (seen.append(op.name), write(t, op, *rest))[1])
        yield seen


def contents(t: Any) -> tuple[str, tuple[int, ...], bytes]:
    return str(t.dtype), t.shape, t.detach().double().numpy().tobytes()


def left(opt: optim.Optimizer) -> list[Any]:
    """Everything that steps change: contents and versions of parameters and state."""
    tensors = [t for p in opt._order() for t in (p, *opt.state[p].values())]
    return [(*contents(t), t._version) for t in tensors]


def trained(make: Callable[[Any], optim.Optimizer], dtype: Any, alone: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    rng = np.random.default_rng(0)

    def drawn(shape: tuple[int, ...]) -> kiln.Tensor:
        return kiln.tensor(np.asarray(rng.standard_normal(shape))).to(dtype)

    with monkeypatch.context() as patch:
        if alone:
            patch.setattr(fused, "_elementwise", set())
        params = [kiln.nn.Parameter(drawn(shape)) for shape in [(3, 50), (1,), (), (70,), (0, 3), (2, 1, 5000)]]
        opt = make(params)
        for step in range(6):
            for k, p in enumerate(params):
                p.grad = None if k == step else drawn(p.shape) * 3
            opt.param_groups[0]["lr"] = opt.param_groups[0]["lr"] * 0.9
            opt.step()
        return left(opt)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_bits_and_versions(case: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained(CASES[case], dtype, True, monkeypatch)
    assert trained(CASES[case], dtype, False, monkeypatch) == expected


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_compiled_steps_agree(case: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(wrap: Callable[[Any], Any]) -> list[Any]:
        rng = np.random.default_rng(1)
        p = kiln.nn.Parameter(kiln.tensor(rng.standard_normal((7, 9))).to(dtype))
        opt = CASES[case]([p])

        def step(grad: kiln.Tensor) -> None:
            p.grad = grad
            opt.step()

        call = wrap(step)
        for _ in range(4):
            call(kiln.tensor(rng.standard_normal((7, 9))).to(dtype))
        return [contents(t) for t in (p, *opt.state[p].values())]

    assert run(kiln.compile) == run(lambda f: f)


def test_no_op_runs_alone_and_no_rate_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    params = [kiln.nn.Parameter(kiln.ones(n)) for n in (3, 4)]
    opt = optim.AdamW(params)
    for rate in (0.1, 0.2, 0.3):
        for p in params:
            p.grad = kiln.ones_like(p)
        opt.param_groups[0]["lr"] = rate
        with counted(monkeypatch) as seen:
            if rate > 0.1:  # the first step may compile
                monkeypatch.setattr(dispatch, "build", None)
            opt.step()
        assert rate == 0.1 or not seen


def test_what_does_not_fit_runs_op_by_op(monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped(p: Any, grad: Any, opt: Any = None) -> list[str]:
        opt = opt or optim.SGD([p], lr=0.5)
        p.grad = grad
        with counted(monkeypatch) as seen:
            opt.step()
        return seen

    p = kiln.arange(6.0).reshape(2, 3).t().detach().requires_grad_()
    assert stepped(p, kiln.ones(3, 2))
    assert p.detach().numpy().tolist() == [[-0.5, 2.5], [0.5, 3.5], [1.5, 4.5]]
    p = kiln.ones(4).requires_grad_()
    assert stepped(p, p.detach())  # the gradient is the parameter's own memory
    assert p.detach().numpy().tolist() == [0.5] * 4
    memory = np.ones(6, np.float32)
    p = kiln.from_numpy(memory[:4]).requires_grad_()
    assert stepped(p, kiln.from_numpy(memory[2:]))
    assert memory.tolist() == [0.5] * 4 + [1.0] * 2
    apart = np.ones(8, np.float32)
    p = kiln.from_numpy(apart[:4]).requires_grad_()
    assert not stepped(p, kiln.from_numpy(apart[4:]))
    assert apart.tolist() == [0.5] * 4 + [1.0] * 4


def test_an_update_of_the_users_runs_as_it_is() -> None:
    calls = []

    class Loud(optim.SGD):
        def update(self, p: Any, grad: Any, state: Any, group: Any) -> None:
            calls.append(type(group["lr"]))
            super().update(p, grad, state, group)

    p = kiln.nn.Parameter(kiln.ones(3))
    p.grad = kiln.ones(3)
    Loud([p], lr=0.5).step()
    assert calls == [float]
    assert p.detach().numpy().tolist() == [0.5] * 3


def test_read_only_parameters_are_refused() -> None:
    fixed = np.ones(3, np.float32)
    fixed.flags.writeable = False
    p = kiln.from_numpy(fixed).requires_grad_()
    p.grad = kiln.ones(3)
    opt = optim.SGD([p])
    with pytest.raises(GradError, match="read-only"):
        opt.step()


def test_options_may_change_and_many_changes_do_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = dispatch.build
    monkeypatch.setattr(dispatch, "build", lambda *a, **k: (built.append(a), build(*a, **k))[1])
    p, q = kiln.nn.Parameter(kiln.ones(3)), np.ones(3)
    opt = optim.SGD([p], lr=0.5)
    for k in range(3 * fused._MAX_VARIANTS):
        opt.param_groups[0]["weight_decay"] = k / 64
        p.grad = kiln.ones(3)
        opt.step()
        q = (q - (1 + q * (k / 64)) * 0.5).astype(np.float32)
        assert np.allclose(p.detach().numpy(), q, rtol=1e-5)
    assert len(built) < 2 * fused._MAX_VARIANTS + 10


def test_a_list_among_options_is_read_every_time() -> None:
    p = kiln.nn.Parameter(kiln.ones(3))
    opt = optim.Adam([{"params": [p], "betas": [0.5, 0.9]}])
    opt.param_groups[0]["betas"][0] = 0.0
    p.grad = kiln.ones(3)
    opt.step()
    opt.param_groups[0]["betas"][0] = 0.5
    p.grad = kiln.zeros(3)
    opt.step()
    assert opt.state[p]["exp_avg"].numpy().tolist() == [0.5] * 3


def test_an_optimiser_that_has_stepped_can_be_copied() -> None:
    p = kiln.nn.Parameter(kiln.ones(3))
    opt = optim.Adam([p])
    p.grad = kiln.ones(3)
    opt.step()
    other = copy.deepcopy(opt)
    (q,) = other.param_groups[0]["params"]
    q.grad = p.grad = kiln.ones(3)
    opt.step()
    other.step()
    assert [x[:3] for x in left(opt)] == [x[:3] for x in left(other)]
