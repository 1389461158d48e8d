"""What a compiled function keeps for its gradient: bytes, never times; and the gradient is eager's, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kiln
import kiln.nn.functional as F

ROWS, WIDTH = 6, 8
FLOATS = ROWS * WIDTH * 4


def bits(t: Any) -> bytes:
    return bytes(t.numpy().tobytes())


def inputs() -> tuple[Any, Any, Any]:
    kiln.manual_seed(2)
    return kiln.randn(ROWS, WIDTH), kiln.randn(WIDTH, WIDTH).requires_grad_(), kiln.randn(WIDTH).requires_grad_()


def gradients(f: Callable[..., Any]) -> list[bytes]:
    x, w, b = inputs()
    kiln.manual_seed(5)
    f(x, w, b).sum().backward()
    assert w.grad is not None
    return [bits(w.grad)] + ([bits(b.grad)] if b.grad is not None else [])


def chain_of_gelus(x: Any, w: Any, b: Any) -> Any:
    return kiln.gelu(kiln.gelu(kiln.gelu(x @ w)))


def dropped(x: Any, w: Any, b: Any) -> Any:
    return F.dropout(kiln.gelu(x @ w), 0.5) @ w


def normalised(x: Any, w: Any, b: Any) -> Any:
    return F.layer_norm(x @ w, (WIDTH,), b, b) @ w


def rectified(x: Any, w: Any, b: Any) -> Any:
    return (x @ w + b).relu() * 2


def attended(x: Any, w: Any, b: Any) -> Any:
    return F.softmax(x @ w, -1) @ x.t()


@pytest.mark.parametrize(
    ("f", "stored"),
    [
        (chain_of_gelus, FLOATS),
        (dropped, FLOATS + FLOATS // 4),  # the product, and the mask as bools
        (rectified, FLOATS // 4),
        (normalised, FLOATS + 2 * ROWS * 4),
        (attended, FLOATS + ROWS * 4),
    ],
)
def test_only_what_is_needed_is_kept(f: Callable[..., Any], stored: int) -> None:
    compiled = kiln.compile(f)
    wanted = gradients(f)
    for _ in range(3):
        assert gradients(compiled) == wanted
    (region,) = compiled.regions()
    assert region.plan is not None
    assert region.plan.stored_bytes <= stored
    assert region.plan.stored_bytes < region.plan.plain_bytes


def test_a_result_that_is_kept_anyway_is_not_stored_twice() -> None:
    f = kiln.compile(lambda x: x.exp())
    x = kiln.ones(3).requires_grad_()
    for _ in range(2):
        y = f(x)
    y.sum().backward()
    assert x.grad is not None
    assert bits(x.grad) == bits(x.detach().exp())
    assert f.regions()[0].plan.stored_bytes == 0
    y = f(x)
    with kiln.no_grad():
        y.zero_()
    with pytest.raises(kiln.GradError, match="modified in place"):
        y.sum().backward()


@pytest.mark.parametrize("write", [0, 1])
def test_what_eager_may_overwrite_may_be_overwritten(write: int) -> None:
    def f(x: Any, shift: Any) -> Any:
        return (x + shift).exp() * 2, x.tanh() + shift

    found = []
    for g in (f, kiln.compile(f), kiln.compile(f)):
        for _ in range(2):
            x, shift = kiln.ones(4).requires_grad_(), kiln.full((4,), 0.5)
            both = g(x, shift)
            shift.zero_()
            with kiln.no_grad():
                both[write].zero_()
            both[0].sum().backward()
            assert x.grad is not None
            found.append(bits(x.grad))
    assert len(set(found)) == 1


def test_other_patterns_of_gradients_use_what_is_stored() -> None:
    def f(x: Any) -> Any:
        h = (x @ x).relu()
        return kiln.gelu(h).sum(), (h * h).exp().sum(), h.tanh()

    found: dict[Any, set[bytes]] = {}
    fast = kiln.compile(f)
    for g in (f, fast, fast):
        for pattern in [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)]:
            x = (kiln.arange(9.0) / 9).reshape(3, 3).requires_grad_()
            out = g(x)
            sum((out[k].sum() for k in pattern), x.sum()).backward()
            assert x.grad is not None
            found.setdefault(pattern, set()).add(bits(x.grad))
    assert all(len(each) == 1 for each in found.values())


def test_explain_says_what_is_stored() -> None:
    text = str(kiln.explain(rectified, *inputs()))
    assert f"stored for backward: {FLOATS // 4} bytes (bool[{ROWS}, {WIDTH}])" in text
    assert f"without recomputation: {FLOATS} bytes" in text


def test_a_warm_process_takes_the_choice_from_the_cache(tmp_path: Path) -> None:
    script = (
        "import sys, kiln\n"
        "from kiln import nn\n"
        "kiln.manual_seed(0)\n"
        "f = kiln.compile(nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)))\n"
        "f(kiln.ones(3, 4)).sum().backward()\n"
        "f(kiln.ones(3, 4)).sum().backward()\n"
        "print('kiln.ir.passes.mincut' in sys.modules, f[0].weight.grad.sum().item())\n"
    )
    env = {**os.environ, "KILN_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert [run[0] for run in runs] == ["True", "False"]
    assert runs[0][1] == runs[1][1]
