"""Every kind of refusal: what it says (`tests/golden/refusals/`), and that its fix works.

Each row: a function that is refused, and the same function with the fix that the message names.
"""

from __future__ import annotations

import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.errors import CaptureError
from kiln.location import is_kiln
from kiln.pytree import flatten

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "refusals"


class Refusal(NamedTuple):
    """`door` makes the function one that is captured; `args` makes its arguments anew for each call."""

    refused: Callable[..., Any]
    fixed: Callable[..., Any]
    args: Callable[[], tuple[Any, ...]]
    door: Callable[..., Any]
    given: Callable[[], tuple[Any, ...]]
    """Arguments of the fixed one, where it takes others."""


ROWS: dict[str, Refusal] = {}


def x3() -> tuple[Any, ...]:
    return (kiln.arange(3.0),)


def leaf() -> tuple[Any, ...]:
    return (kiln.arange(3.0).requires_grad_(),)


def computed() -> tuple[Any, ...]:
    return (leaf()[0] * 2,)


def full(f: Any) -> Any:
    return kiln.compile(f, fullgraph=True)


def traced(f: Any) -> Any:
    """Traces itself with the arguments of its first call."""
    return lambda *args: kiln.jit.trace(f, args)(*args)


def row(
    fixed: Callable[..., Any],
    args: Callable[[], tuple[Any, ...]] = x3,
    door: Callable[..., Any] = full,
    given: Callable[[], tuple[Any, ...]] | None = None,
) -> Callable[[Any], Any]:
    """Enter a function that is refused."""

    def enter(refused: Any) -> Any:
        ROWS[refused.__name__] = Refusal(refused, fixed, args, door, given or args)
        return refused

    return enter


# --------------------------------------------------------------------------------- questions about data


@row(lambda x: kiln.where(x.sum() > 0, x, -x), door=traced)
def branch_in_a_trace(x: Any) -> Any:
    if x.sum() > 0:
        return x
    return -x


@row(lambda x: x * x.mean(), door=traced)
def item_in_a_trace(x: Any) -> Any:
    return x * x.mean().item()


@row(lambda x: kiln.sort(x)[0])
def numpy_of_a_tensor(x: Any) -> Any:
    return kiln.from_numpy(np.sort(x.numpy()))


@row(lambda x: x * 2, door=kiln.jit.script)
def clock_in_a_script(x: Any) -> Any:
    return x * 2 if time.monotonic() > 0 else x


@row(lambda x: kiln.cond(x.sum() > 0, lambda: kiln.where(x > 1, x, -x), lambda: x * 1))
def question_in_a_cond(x: Any) -> Any:
    return kiln.cond(x.sum() > 0, lambda: x * {1: 2.0}[int(x.max())], lambda: x * 1)


# ----------------------------------------------------------------------------- tensors from somewhere


ONES = kiln.ones(3)


@row(lambda x: x + ONES)
def stray_tensor(x: Any) -> Any:
    return x + kiln.from_numpy(np.ones(3, np.float32))


@row(lambda x: x.detach().requires_grad_().sum().requires_grad)
def leaf_from_outside(x: Any) -> Any:
    return x.requires_grad_().sum().requires_grad


@row(lambda x, y: x.clone().add_(1) + y, lambda: (lambda t: (t, t[1:2]))(kiln.arange(3.0)))
def shared_memory_that_is_written(x: Any, y: Any) -> Any:
    return x.add_(1) + y


@row(lambda x: x.clone().mul_(2), computed)
def written_input_with_a_history(x: Any) -> Any:
    return x.mul_(2)


@row(lambda x: x.detach().requires_grad_().sum().backward(), computed)
def gradient_past_the_call(x: Any) -> Any:
    x.sum().backward()


OUTSIDE = kiln.ones(3).requires_grad_()


@row(lambda x: (x * OUTSIDE, OUTSIDE))
def leaf_made_inside(x: Any) -> Any:
    made = kiln.ones(3).requires_grad_()
    return x * made, made


class Double(kiln.autograd.Function):
    """Python on the tape."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2 if g.sum() > 0 else g


@row(lambda x: kiln.autograd.grad(Double.apply(x).sum(), x)[0], leaf)
def gradient_through_python(x: Any) -> Any:
    return Double.apply(x)


# -------------------------------------------------------------------------------------- Python's state


CALLS: list[Any] = []
COUNT = kiln.zeros(())


@row(lambda x: COUNT.add_(1) * 0 + x)
def changed_list(x: Any) -> Any:
    CALLS.append(lambda: 1)
    return x


@row(lambda x, xs: [*xs, x], lambda: (kiln.ones(1), []))
def changed_argument(x: Any, xs: Any) -> Any:
    xs.append({1, 2})
    return xs


def no_grad_sum(x: Any) -> Any:
    with kiln.no_grad():
        return x.sum()


@row(no_grad_sum)
def modes_left_changed(x: Any) -> Any:
    kiln.set_grad_enabled(not kiln.is_grad_enabled())
    return x.sum()


def itself() -> tuple[Any, ...]:
    made: list[Any] = [kiln.ones(1)]
    made.append(made)
    return (made,)


KEPT = itself()[0]


@row(lambda: KEPT[0] * 2, itself, given=tuple)
def argument_that_holds_itself(xs: Any) -> Any:
    return xs[0] * 2


class Plain:
    """An object of the user's."""

    def __init__(self, x: Any) -> None:
        self.x = x


@row(lambda x: {"x": x})
def returned_object(x: Any) -> Any:
    return Plain(x)


@row(lambda x: {"x": x})
def returned_dict_with_an_object_as_key(x: Any) -> Any:
    return {Plain(1): x}


# -------------------------------------------------------------------------------------------- the world


@row(lambda x, now: x + now, lambda: (kiln.ones(1), 1.0))
def clock(x: Any, now: Any) -> Any:
    return x + time.time()


STREAM: Iterator[int] = iter(range(100))


@row(lambda x, n: x + n, lambda: (kiln.ones(1), 1))
def iterator_from_outside(x: Any, n: Any) -> Any:
    return x + next(STREAM)


RANDOM = np.random.default_rng(0)


@row(lambda x: x + kiln.rand(()) * 0)
def random_numbers_of_another_kind(x: Any) -> Any:
    return x + RANDOM.random()


# ------------------------------------------------------------------------------------------ control flow


@row(lambda x: x.copy_(kiln.cond(x.sum() > 0, lambda: x + 1, lambda: x * 1)))
def branch_that_writes(x: Any) -> Any:
    return kiln.cond(x.sum() > 0, lambda: x.add_(1), lambda: x * 1)


# ------------------------------------------------------------------------------------------------- nn


LAYER = nn.Linear(3, 2)
HALF = nn.Linear(3, 2).double()


@row(lambda x: HALF(x.double()))
def converted_module(x: Any) -> Any:
    return LAYER.double()(x.double())


WEIGHT = nn.Parameter(kiln.ones(3))
OPTIMISER = kiln.optim.SGD([WEIGHT], lr=0.1)


@row(lambda x: x * OPTIMISER.param_groups[0]["lr"])
def changed_option_of_an_optimiser(x: Any) -> Any:
    OPTIMISER.param_groups[0]["lr"] = 0.2
    return x * 0.1


@row(lambda x: x.double())
def default_dtype(x: Any) -> Any:
    kiln.set_default_dtype(kiln.float64)
    return x.double()


# -------------------------------------------------------------------------------------------- the doors


@row(
    lambda x: x * 2,
    door=lambda f: lambda x: kiln.jit.trace(f, [(kiln.ones(2),), (x,)][: 2 if f is not other_shape else 1])(x),
)
def other_shape(x: Any) -> Any:
    return x * 2


@row(lambda x: kiln.where(x.sum() > 0, x + 1, x * 2), door=kiln.jit.script)
def clock_in_a_branch_of_a_script(x: Any) -> Any:
    if x.sum() > 0:
        return x + time.monotonic()
    return x * 2


@row(lambda x: x * x.sum(), door=kiln.jit.script)
def number_as_a_key_in_a_script(x: Any) -> Any:
    return x * {3: 2.0}[int(x.sum())]


@kiln.jit.ignore
def told(x: Any) -> None:
    print(x.tolist())


def tells(x: Any) -> Any:
    if not kiln.jit.is_scripting():
        told(x)
    return x * 2


@row(tells, door=kiln.jit.script)
def ignored_function_in_a_script(x: Any) -> Any:
    told(x)
    return x * 2


@kiln.jit.unused
def never(x: Any) -> Any:
    return x


@row(lambda x: x * 2, door=kiln.jit.script)
def unused_function_in_a_script(x: Any) -> Any:
    return never(x) * 2


@row(lambda x: x * 2, door=lambda f: lambda x: f(x) if f is not trace_in_a_capture else full(f)(x))
def trace_in_a_capture(x: Any) -> Any:
    return kiln.jit.trace(lambda y: y * 2, x)(x)


def bits(x: Any) -> list[Any]:
    return [
        (x.ttype, np.ascontiguousarray(x.detach().numpy()).tobytes()) if isinstance(x, kiln.Tensor) else x
        for x in flatten(x)[0]
    ]


@pytest.mark.parametrize("name", sorted(ROWS))
def test_refusals_are_golden(name: str, request: pytest.FixtureRequest) -> None:
    refusal = ROWS[name]
    modes = kiln.is_grad_enabled(), kiln.get_default_dtype()
    try:
        with pytest.raises(CaptureError) as caught:
            refusal.door(refusal.refused)(*refusal.args())
    finally:
        kiln.set_grad_enabled(modes[0])
        kiln.set_default_dtype(modes[1])
    error = caught.value
    text = re.sub(r"\S*test_refusals\.py:\d+", "test_refusals.py:LINE", str(error)) + "\n"
    assert text.count("\n") <= 15
    assert error.fix and f"\n  fix: {error.fix}" in text
    assert error.loc is not None and error.loc.file == __file__
    assert "^" in text
    frames = [f for f, _ in traceback.walk_tb(error.__traceback__)]
    assert sum(is_kiln(f.f_globals["__name__"]) for f in frames) <= 2
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("name", sorted(ROWS))
def test_fixes_work(name: str) -> None:
    refusal = ROWS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured = refusal.door(refusal.fixed)
        for _ in range(2):
            assert bits(captured(*refusal.given())) == bits(refusal.fixed(*refusal.given()))


def test_every_golden_file_has_its_row() -> None:
    assert {p.stem for p in GOLDEN.iterdir()} == set(ROWS)
