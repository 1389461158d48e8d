"""The whole of kiln in one screen: a user's two lines, eager and compiled, down to the printed stages."""

from __future__ import annotations

import numpy as np
import pytest

import kiln


def two_lines(x: kiln.Tensor, w: kiln.Tensor) -> kiln.Tensor:
    h = (x @ w).tanh()
    return kiln.softmax(h * 2 + 1, dim=1)


def test_compiling_changes_no_bit() -> None:
    kiln.manual_seed(0)
    x, w = kiln.randn(7, 5), kiln.randn(5, 33)
    eager = two_lines(x, w)
    fast = kiln.compile(two_lines)
    for _ in range(2):  # the first call captures, the second runs the compiled program
        assert fast(x, w).numpy().tobytes() == eager.numpy().tobytes()


def test_a_training_step_is_one_program() -> None:
    def train(step_of: object) -> list[float]:
        kiln.manual_seed(1)
        model = kiln.nn.Linear(4, 3)
        optimizer = kiln.optim.SGD(model.parameters(), lr=0.1)
        x, y = kiln.randn(8, 4), kiln.tensor([0, 1, 2, 0, 1, 2, 0, 1])

        def step() -> kiln.Tensor:
            optimizer.zero_grad()
            loss = kiln.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = step_of(step)  # type: ignore[operator]
        return [run().item() for _ in range(5)]

    eager, compiled = train(lambda f: f), train(kiln.compile)
    assert eager == compiled
    assert eager[-1] < eager[0]


def test_every_stage_prints() -> None:
    text = str(kiln.explain(two_lines, kiln.ones(4, 5), kiln.ones(5, 16)))
    for stage in ("matmul", "fusion", "define i32", "for "):
        assert stage in text


def test_data_dependent_control_flow_names_the_line() -> None:
    def branch(x: kiln.Tensor) -> kiln.Tensor:
        if x.sum() > 0:  # the line that the error must show
            return x
        return -x

    with pytest.raises(kiln.errors.CaptureError, match=r"if x\.sum\(\) > 0"):
        kiln.jit.trace(branch, kiln.from_numpy(np.ones(3, np.float32)))
