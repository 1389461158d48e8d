"""The minimum cut behind recomputation, against all cuts of small random networks."""

from __future__ import annotations

import itertools
import random

import pytest

from kiln.ir.passes.mincut import _SINK, _SOURCE, _beyond

Edges = dict[tuple[str, str], int | None]


def cheapest(edges: Edges) -> tuple[int, set[str]] | None:
    """The price of a cheapest cut and, of the cheapest, the smallest sink's side; None when all are not for sale."""
    names = sorted({n for edge in edges for n in edge} - {_SOURCE, _SINK})
    found: dict[int, list[set[str]]] = {}
    for size in range(len(names) + 1):
        for some in itertools.combinations(names, size):
            beyond = {*some, _SINK}
            cut = [p for (a, b), p in edges.items() if a not in beyond and b in beyond]
            prices = [p for p in cut if p is not None]
            if len(prices) == len(cut):
                found.setdefault(sum(prices), []).append(beyond)
    return (least := min(found), min(found[least], key=len)) if found else None


@pytest.mark.parametrize("seed", range(200))
def test_the_cut_is_the_cheapest(seed: int) -> None:
    rng = random.Random(seed)
    names = [_SOURCE, _SINK, *(f"n{k}" for k in range(rng.randint(1, 6)))]
    edges: Edges = {}
    for _ in range(rng.randint(1, 20)):
        start, end = rng.sample(names, 2)
        if start != _SINK and end != _SOURCE:
            edges[start, end] = rng.choice([None, 1, 2, 3, 5, 8])
    best = cheapest(edges)
    if best is not None:
        assert _beyond(edges) == best[1]  # type: ignore[arg-type]
