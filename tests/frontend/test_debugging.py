"""`kiln.debug` and `kiln.bisect`."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import kiln
from kiln.ir.graph import Graph, rebuild


def test_debug_runs_the_users_own_lines() -> None:
    lines: list[Any] = []

    def inner(x: Any) -> Any:
        lines.append(inspect.currentframe().f_lineno)  # type: ignore[union-attr]
        return x * 2

    compiled = kiln.compile(inner)
    outer = kiln.compile(lambda x: compiled(x) + 1)
    for _ in range(3):
        assert kiln.debug(outer)(kiln.ones(2)).tolist() == [3.0, 3.0]
    assert len(lines) == 3
    assert outer.report().captured == compiled.report().captured == 0
    with pytest.raises(kiln.ArgumentError, match="debug"):
        kiln.debug(3)  # type: ignore[arg-type]


def test_bisect_finds_nothing_where_nothing_is_wrong() -> None:
    total = kiln.zeros(3)

    def f(x: Any, k: int) -> Any:
        total.add_(x)
        return (total * k).exp(), kiln.rand(2), x[1:], k

    found = kiln.bisect(f, kiln.ones(3), 2)
    assert found.stage is None
    assert found.stages[0] == "capture"
    assert found.stages[-1] == "kernels"
    assert "every stage" in str(found)


def test_bisect_names_a_faulty_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from kiln.codegen import pipeline

    def halved(graph: Graph) -> Graph:
        """Takes every multiplication for an addition."""
        builder, mapped = rebuild(graph)
        for op in graph.operations:
            kind = kiln.ir.ops.OPS["add"] if op.op.name == "mul" else op.op
            mapped.update(zip(op.results, builder.add(kind, [mapped[v] for v in op.operands], op.attrs), strict=True))
        return builder.build([mapped[v] for v in graph.outputs], graph.aliases)

    monkeypatch.setattr(pipeline, "PASSES", (*pipeline.PASSES[:2], halved, *pipeline.PASSES[2:]))
    found = kiln.bisect(lambda x: (x * 3).sum(), kiln.ones(3))
    assert found.stage == "halved"
    assert "add(" in found.graph
    assert str(found).startswith("the results change in halved")
