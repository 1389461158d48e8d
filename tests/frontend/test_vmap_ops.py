"""Every op's samples under vmap, against the op on each element: equal bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.batching_rules import RULES
from kiln.errors import KilnError
from kiln.ir.ops import OPS
from kiln.ir.ops.base import Library, OpDef
from tests import tolerances as tol
from tests.ops.samples import Sample, samples
from tests.ops.test_declarations import same_bits

Array = np.ndarray[Any, Any]
SIZE = 3
FEW = 10
"""Samples of one op that are tried, spread over its table."""
OF_GRAPHS = {"fusion", "cond", "while_loop", "scan", "through"}
"""Ops that no transform meets (`test_control_layers.py`)."""
OPERATORS = [name for name, op in OPS.items() if name not in OF_GRAPHS and "constant" not in op.traits]
LOOPED = {"uniform", "normal"}
"""Ops that have no rule: they are applied to each element."""


def chosen(name: str) -> Sequence[Sample]:
    known = samples(name)
    return known if len(known) <= FEW else [known[len(known) * k // FEW] for k in range(FEW)]


def variants(op: OpDef, x: Array) -> list[Array]:
    """SIZE operands like `x`, with the same numbers in other places where that makes sense."""
    if isinstance(op.lower, Library):
        return [x * (j + 1) if x.dtype.kind in "fc" else x for j in range(SIZE)]
    return [np.roll(x.reshape(-1), j).reshape(x.shape) for j in range(SIZE)]


def outcome(call: Any) -> list[Array] | type[KilnError]:
    try:
        return [r.numpy() for r in call()]
    except KilnError as error:
        return type(error)


def check(op: OpDef, sample: Sample, batched: Sequence[bool], dim: int) -> bool:
    """Whether there were results to compare. `dim`: where the operands that are batched have the batch (-1: last)."""
    groups = [variants(op, x) for x in sample.operands]

    def element(j: int) -> list[Array] | type[KilnError]:
        xs = [kiln.from_numpy(g[j if b else 0].copy()) for g, b in zip(groups, batched, strict=True)]
        return outcome(lambda: op.bind(xs, sample.attrs))

    rows = [element(j) for j in range(SIZE)]
    given = [kiln.from_numpy(np.stack(g, dim) if b else g[0].copy()) for g, b in zip(groups, batched, strict=True)]
    dims = tuple(dim if b else None for b in batched)
    found = outcome(lambda: kiln.vmap(lambda *xs: op.bind(xs, sample.attrs), in_dims=dims)(*given))
    if any(isinstance(r, type) for r in rows):
        assert isinstance(found, type), (op.name, sample.label)
        return False
    assert not isinstance(found, type), (op.name, sample.label, found)
    for column, got in zip(zip(*rows, strict=True), found, strict=True):
        wanted = np.stack(column)
        if op.name in tol.BATCHED:
            np.testing.assert_allclose(got, wanted, **tol.BATCHED[op.name], err_msg=sample.label)
        else:
            assert same_bits(got, wanted), (op.name, sample.label, batched, dim)
    return True


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "detach"])  # captures make it, not users
def test_batched_is_each(name: str) -> None:
    op, compared = OPS[name], 0
    for n, sample in enumerate(chosen(name)):
        count = len(sample.operands)
        compared += check(op, sample, [True] * count, 0 if n % 2 else -1)
        if count > 1:
            compared += check(op, sample, [j == n % count for j in range(count)], 0)
    assert compared


def test_every_op_has_a_rule() -> None:
    assert {name for name in OPERATORS if name not in RULES} == LOOPED
    assert set(RULES) <= set(OPERATORS)
