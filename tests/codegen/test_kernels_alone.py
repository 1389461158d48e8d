"""Scatters, sorting, searching and scans as loops: evaluated, scheduled, and natively on every target, they agree with
the references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kiln.codegen.scan import SCANS, lower_scan
from kiln.codegen.scatter import lower_scatter
from kiln.codegen.sort import SORTS, lower_sort
from kiln.ir.graph import GraphBuilder, Operation
from kiln.ir.ops import OPS
from kiln.ir.program import CheckSite
from tests.codegen.kernels import agree, same_bits
from tests.ops.samples import samples
from tests.ops.sampling import Sample

SCATTERS = (
    "scatter",
    "scatter_add",
    "scatter_mul",
    "scatter_max",
    "scatter_min",
    "affine_scatter",
    "affine_scatter_add",
)
CALLS = [
    pytest.param(name, s, id=f"{name}-{s.label}")
    for name in (*SCATTERS, *SORTS, *SCANS)
    for s in samples(name)
    if s.label.startswith("float32") and "long" not in s.label and "wide" not in s.label
]


def operation(name: str, sample: Sample) -> Operation:
    builder = GraphBuilder(name)
    inputs = [builder.input(t) for t in sample.types()]
    (result,) = builder.add(OPS[name], inputs, sample.attrs)
    assert result.producer is not None
    return result.producer


def memory(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """At least one element, as a buffer has."""
    return np.append(x.reshape(-1), np.zeros(1, x.dtype))


@pytest.mark.parametrize(("name", "sample"), CALLS)
def test_every_way_gives_the_reference(name: str, sample: Sample) -> None:
    op, sites = operation(name, sample), list[CheckSite]()
    strides = [None] * len(sample.operands)
    lower = lower_scan if name in SCANS else lower_sort
    lowered = lower_scatter(op, None, strides, sites) if name in SCATTERS else lower(op, strides)
    wanted = np.asarray(OPS[name].ref(np, *sample.operands, **sample.attrs))
    arrays = {f"in{k}": memory(x) for k, x in enumerate(sample.operands)}
    arrays["out0"] = np.zeros(wanted.size + 1, wanted.dtype)
    got, failures = agree(lowered.kernel, arrays)
    assert not failures
    assert same_bits(got["out0"][:-1].reshape(wanted.shape), wanted)


def test_a_scatter_reports_what_is_out_of_range() -> None:
    rows = {"at": (0,), "place": (-1, 1), "wrap": True}
    sample = Sample("", (np.zeros((3, 2)), np.ones((3, 2)), np.array([0, 3, -4])), rows)
    sites = list[CheckSite]()
    lowered = lower_scatter(operation("scatter_add", sample), 5.0, [None] * 3, sites)
    arrays = {"in1": np.ones(6), "in2": np.array([0, 3, -4]), "out0": np.zeros(6)}
    got, failures = agree(lowered.kernel, arrays)
    assert sorted(set(failures)) == [(0, -4), (0, 3)]
    assert got["out0"].tolist() == [6, 6, 5, 5, 5, 5]
    assert sites[0].kind == "index" and "dimension 0 with size 3" in sites[0].message
