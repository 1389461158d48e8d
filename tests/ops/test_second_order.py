"""Second derivatives of every op through compiled functions: `gradcheck` and `gradgradcheck` of them, and eager's bits.

One small sample of each op, and one of complex numbers; with `--slow` all of them. No op is excepted: where a gradient
is the same everywhere (`sign`, `floor`, ...), the checks want differences that are zero.
"""

from __future__ import annotations

from typing import Any

import pytest

from kiln.ir.ops import OPS
from kiln.ir.ops.base import OpDef
from tests.ops.samples import Sample, smooth_samples
from tests.ops.sampling import APART
from tests.ops.second_order import demand_differences, demand_eager_bits

DERIVED = [name for name, op in OPS.items() if op.vjp is not None and name not in APART]


def size(sample: Sample) -> tuple[bool, int]:
    """Small samples come first, but for those without elements."""
    numbers = sum(x.size for x in sample.operands)
    return any(not x.size for x in sample.operands), numbers


def calls() -> list[Any]:
    found = []
    for name in DERIVED:
        kinds: set[bool] = set()
        for sample in sorted(smooth_samples(name), key=size):
            of_complex = any(x.dtype.kind == "c" for x in sample.operands)
            marks = [pytest.mark.slow] if of_complex in kinds else []
            kinds.add(of_complex)
            found.append(pytest.param(OPS[name], sample, id=f"{name}-{sample.label}", marks=marks))
    return found


@pytest.mark.parametrize(("op", "sample"), calls())
def test_second_order_through_compiled_functions(op: OpDef, sample: Sample) -> None:
    def function(*operands: Any) -> list[Any]:
        return [r for r in sample.bind(op, operands, operands[0]) if r.dtype.is_inexact]

    demand_differences(function, sample.operands)
    demand_eager_bits(function, sample.operands, op.name, sample.label)
