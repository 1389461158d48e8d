"""Compiled writes into parts of what comes from outside: only these parts are touched, and nobody can tell."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import kiln
from kiln.errors import GradError
from tests.frontend.writing import HAZARDS, READS, WRITES, arguments, outcome

ALL = WRITES | READS | HAZARDS


@pytest.mark.parametrize("name", ALL)
def test_nobody_can_tell(name: str) -> None:
    compiled = kiln.compile(ALL[name])
    for position in (1, 0, 2, 2):
        for seed in (0, 10):
            found = outcome(compiled, arguments(position, seed=seed))  # first: freed memory must not hold the answer
            assert found == outcome(ALL[name], arguments(position, seed=seed))


@pytest.mark.parametrize("name", [*WRITES, *READS])
def test_only_what_changes_is_written(name: str) -> None:
    fused = kiln.explain(ALL[name], *arguments(1))["fused"]
    made = re.findall(r"^  %\d+ = (\w+)\(.*\{(.*)\} : float32\[4, 6\]", fused, re.M)
    assert all("in_place=true" in attrs or op in ("reshape", "permute") for op, attrs in made), fused
    assert name == "nothing" or "in_place=true" in fused


@pytest.mark.parametrize("name", ["index_add", "index_put_that_adds", "index_copy", "slice_of_rows"])
def test_halves(name: str) -> None:
    """Their sums are kept in float32 and rounded once."""
    compiled = kiln.compile(WRITES[name])
    for position in (1, 0):
        wanted = outcome(WRITES[name], arguments(position, dtype=kiln.float16))
        assert outcome(compiled, arguments(position, dtype=kiln.float16)) == wanted


def test_parts_of_complex_numbers() -> None:
    def write(z: kiln.Tensor, x: kiln.Tensor, i: kiln.Tensor) -> kiln.Tensor:
        kiln.view_as_real(z)[1, :, 0] = x
        kiln.view_as_real(z).index_copy_(0, i, kiln.stack([x, x], -1)[None])
        z[3] = z[1] * 2
        return z.imag.sum(1)

    def given(position: int) -> list[kiln.Tensor]:
        c, d, x, i = arguments(position)
        return [kiln.complex(c, d), x, i]

    compiled = kiln.compile(write)
    for position in (1, 0, 0):
        assert outcome(compiled, given(position)) == outcome(write, given(position))


@pytest.mark.parametrize("again", [False, True])
def test_what_derivatives_need_is_kept(again: bool) -> None:
    """What was there before, what was written, and a later write, of which a derivative is told."""

    def step(c: kiln.Tensor, x: kiln.Tensor, i: kiln.Tensor, w: kiln.Tensor) -> kiln.Tensor:
        y = (c.clone() * w).sum()
        c.index_copy_(0, i, (x * w).detach()[None])
        return y + (c @ w).sum() * w.sum()

    def gradient(function: Callable[..., kiln.Tensor], position: int) -> object:
        c, _, x, i = arguments(position)
        w = kiln.arange(6.0, requires_grad=True)
        loss = function(c, x, i, w)
        if again:
            function(c, x, i, w)

        try:
            loss.backward()
        except GradError:  # which names the op in eager code
            return GradError
        assert w.grad is not None
        return w.grad.numpy().tobytes(), c.numpy().tobytes()

    compiled = kiln.compile(step)
    for position in (1, 0, 0):
        assert gradient(compiled, position) == gradient(step, position)
    assert (gradient(step, 1) is GradError) is again
