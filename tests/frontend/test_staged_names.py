"""Which tensor a result is, when data decides whether a staged loop makes a new one: the same one as without
`kiln.compile`, sharing the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import kiln
from kiln.pytree import flatten


def also_the_argument(a: Any, b: Any) -> Any:
    x = a
    while x.sum() < 4:
        x = x + 1
    return x, a


def two_of_one_argument(a: Any, b: Any) -> Any:
    x = a
    while x.sum() < 4:
        x = x + 1
    y = a
    while y.sum() < 2:
        y = y + 1
    return x, y


def one_after_another(a: Any, b: Any) -> Any:
    x = a
    while x.sum() < 4:
        x = x + 1
    while x.sum() < 8:
        x = x * 2
    return {"x": x, "l": [x, b]}


def in_turn(a: Any, b: Any) -> Any:
    x, y = a, b
    while x.sum() < 4:
        x, y = y, x + 1
    return x, y


def views(a: Any, b: Any) -> Any:
    x = a
    while x.sum() < 4:
        x = x + 1
    return x.view(-1), a.view(2)


def another_argument(a: Any, b: Any) -> Any:
    x = a
    while x.sum() < 4:
        x = b
    return x


def the_one_before(a: Any, b: Any) -> Any:
    x = a
    y = x
    while x.sum() < 4:
        y = x
        x = x + 1
    return x, y


def chosen_first(a: Any, b: Any) -> Any:
    x = a if a.sum() > 0 else b
    while x.sum() < 4:
        x = x + 1
    return x


def written_afterwards(a: Any, b: Any) -> Any:
    x = a
    while x.sum() < 4:
        x = x + 1
    x += 1
    return x


def twice(a: Any, b: Any) -> Any:
    x = a
    while x.sum() < 4:
        x = x + 1
    return [x, x], x * 2


STAGED = [also_the_argument, two_of_one_argument, one_after_another, twice]
DECIDED = [in_turn, views, another_argument, the_one_before, chosen_first, written_afterwards]


def pattern(returned: Any, *arguments: Any) -> Any:
    """Values, which of all tensors are the same one, and which share memory."""
    found = [*flatten(returned)[0], *arguments]
    same = [[a is b for b in found] for a in found]
    return [t.tolist() for t in found], same, [[a._buffer is b._buffer for b in found] for a in found]


@pytest.mark.parametrize("f", [*STAGED, *DECIDED], ids=lambda f: f.__name__)
def test_results_are_the_tensors_that_python_gives(f: Callable[..., Any]) -> None:
    compiled = kiln.compile(f)
    for v in (1.0, 5.0, 0.7, 3.0, 2.0, 0.5, 7.0) * 2:
        seen = []
        for call in (f, compiled):
            a, b = kiln.tensor([v, v]), kiln.tensor([9.0, v])
            seen.append(pattern(call(a, b), a, b))
        assert seen[0] == seen[1]
    assert bool(compiled.report().staged) == (f in STAGED)
    assert compiled.report().eager == 0
