"""Every differentiable op's smooth samples in forward mode: against finite differences and against reverse mode; and
batches of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kiln
from kiln import func
from kiln.ir.ops import OPS
from tests import tolerances as tol
from tests.ops.samples import Sample, smooth_samples
from tests.ops.sampling import direction, generator
from tests.ops.test_declarations import same_bits

DERIVED = [name for name, op in OPS.items() if op.vjp is not None]
FEW = 6


def function(name: str, sample: Sample) -> tuple[Any, list[Any], list[Any]]:
    """The op as a function of the operands that can be moved, those, and directions to move them in."""
    moved = [k for k, x in enumerate(sample.operands) if x.dtype.kind in "fc"]
    fixed = [kiln.from_numpy(x) for x in sample.operands]

    def run(*xs: Any) -> tuple[Any, ...]:
        given = list(fixed)
        for k, x in zip(moved, xs, strict=True):
            given[k] = x
        return tuple([r for r in sample.bind(OPS[name], given) if r.dtype.is_inexact])

    rng = generator(name, sample.label)
    ways = [direction(rng, sample.operands[k]).astype(sample.operands[k].dtype) for k in moved]
    return run, [fixed[k] for k in moved], [kiln.from_numpy(w) for w in ways]


@pytest.mark.parametrize("name", DERIVED)
def test_forward_mode(name: str) -> None:
    for sample in smooth_samples(name)[:FEW]:
        run, xs, ways = function(name, sample)
        out, pushed = func.jvp(run, tuple(xs), tuple(ways))
        assert all(same_bits(a.numpy(), b.numpy()) for a, b in zip(out, run(*xs), strict=True))

        step = tol.DIFFERENCE_STEP
        above, below = (run(*[x + w * s for x, w in zip(xs, ways, strict=True)]) for s in (step, -step))
        for got, a, b in zip(pushed, above, below, strict=True):
            wanted = (a.numpy() - b.numpy()) / (2 * step)
            assert (np.abs(got.numpy() - wanted) <= tol.DIFFERENCE * (1 + np.abs(wanted))).all(), sample.label

        again, linear = func.linearize(run, *xs)
        assert all(same_bits(a.numpy(), b.numpy()) for a, b in zip(again, out, strict=True))
        assert all(same_bits(a.numpy(), b.numpy()) for a, b in zip(linear(*ways), pushed, strict=True))


@pytest.mark.parametrize("name", DERIVED)
def test_batches_of_derivatives(name: str) -> None:
    """A batch of tangents, and one of gradients, are those of one after the other bit for bit."""
    for sample in smooth_samples(name)[:2]:
        run, xs, ways = function(name, sample)
        rows = [[w * s for w in ways] for s in (1.0, -0.5)]
        together = [kiln.stack(list(c)) for c in zip(*rows, strict=True)]
        found = kiln.vmap(lambda *w, f=run, x=xs: func.jvp(f, tuple(x), w)[1])(*together)
        alone = [func.jvp(run, tuple(xs), tuple(row))[1] for row in rows]
        for got, *each in zip(found, *alone, strict=True):
            assert same_bits(got.numpy(), np.stack([x.numpy() for x in each])), sample.label

        out, back = func.vjp(run, *xs)
        rng = generator(name, "back")
        seeds = [[kiln.from_numpy(direction(rng, t.numpy()).astype(t.numpy().dtype)) for t in out] for _ in range(2)]
        found = kiln.vmap(lambda *g, f=back: f(g))(*[kiln.stack(list(c)) for c in zip(*seeds, strict=True)])
        alone = [back(tuple(row)) for row in seeds]
        for got, *each in zip(found, *alone, strict=True):
            assert same_bits(got.numpy(), np.stack([x.numpy() for x in each])), sample.label
