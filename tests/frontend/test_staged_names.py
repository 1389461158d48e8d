"""Which tensor a result is, when data decides whether a staged loop makes a new one: the same one as without
`kiln.compile`, sharing the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import kiln
from kiln.errors import CaptureError
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


def part_of_what_is_stacked(a: Any, b: Any) -> Any:
    return kiln.stack([a, b])[1] if a.sum() > 0 else a * 2


def part_from_before(a: Any, b: Any) -> Any:
    row = kiln.stack([a, b])[1]
    return (row if a.sum() > 0 else a * 2), a.sum()


def part_of_each_turn(a: Any, b: Any) -> Any:
    x = a * 1
    while x.sum() > 0:
        x = kiln.stack([b, x - 1])[1]
    return x


def part_that_no_turn_changes(a: Any, b: Any) -> Any:
    x = kiln.stack([b, a])[1]
    for _ in range(a.sum().long()):
        x = x - 1
    return x


def part_in_an_inner_branch(a: Any, b: Any) -> Any:
    x = b * 1
    if a.sum() > -5:
        x = kiln.stack([a, b])[1] if a.sum() > 0 else a * 1
    return x


def part_after_a_loop_without_a_turn(a: Any, b: Any) -> Any:
    x = kiln.stack([b, a])[1]
    while x.sum() > 0:
        x = x - 1
    return x


@pytest.mark.parametrize(
    "f",
    [
        part_of_what_is_stacked,
        part_from_before,
        part_of_each_turn,
        part_that_no_turn_changes,
        part_in_an_inner_branch,
        part_after_a_loop_without_a_turn,
    ],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("door", [kiln.compile, kiln.jit.script])
def test_results_that_may_be_parts_of_larger_memory(f: Callable[..., Any], door: Any) -> None:
    compiled = door(f)
    if door is kiln.jit.script and f in (part_of_each_turn, part_that_no_turn_changes):
        with pytest.raises(CaptureError, match=r"data (are asked|while)"):
            compiled(kiln.tensor([2.0, 2.0]), kiln.ones(2))
        return
    for n in [2.0, -2.0, 0.25, 0.0, -9.0] * 3:
        found, expected = (flatten(g(kiln.tensor([n, n]), kiln.ones(2)))[0][0] for g in (compiled, f))
        assert found.tolist() == expected.tolist()
        assert found.storage_offset() == expected.storage_offset()
        assert found.untyped_storage().nbytes() == expected.untyped_storage().nbytes()


def test_a_part_that_is_only_computed_with_is_staged() -> None:
    compiled = kiln.compile(lambda a, b: (kiln.stack([a, b])[1] if a.sum() > 0 else a * 2) + 1)
    assert [compiled(kiln.tensor([n]), kiln.ones(1)).tolist() for n in (1.0, -1.0, 2.0)] == [[2.0], [-1.0], [2.0]]
    assert compiled.report().staged == 2


def asks_by_name(a: Any, c: Any) -> Any:
    x = a
    if c.sum() > 0:
        x = a * 2
    return c + (1 if x is a else 0)


def asks_in_a_branch(a: Any, c: Any) -> Any:
    x = a
    if c.sum() > 0:
        x = a * 2
    y = c * 1
    if c.sum() > -10:
        y = y + 1 if x is not a else y
    return y


def asks_after_a_write(a: Any, c: Any) -> Any:
    x = a
    if c.sum() > 0:
        x = a * 2
    a.add_(1)
    return c + (1 if x is a else 0), x


def asks_a_list(a: Any, c: Any) -> Any:
    x = a
    if c.sum() > 0:
        x = a * 2
    return c * 1, c if a in [x] else None, [u is a for u in (x, c)]


def leaves_out(a: Any, c: Any) -> Any:
    x = a
    if c.sum() > 0:
        x = a * 2
    return sum(u for u in (a, c) if u is not x)


def wants_gradients(a: Any, c: Any) -> Any:
    x = a
    if c.sum() > 0:
        x = a * 2
    x.requires_grad_()
    return c * 1


def sets_a_gradient(a: Any, c: Any) -> Any:
    x = a
    if c.sum() > 0:
        x = a * 2
    x.grad = c * 1
    return c * 1


@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
@pytest.mark.parametrize(
    "f",
    [
        asks_by_name,
        asks_in_a_branch,
        asks_after_a_write,
        asks_a_list,
        leaves_out,
        wants_gradients,
        sets_a_gradient,
    ],
    ids=lambda f: f.__name__,
)
def test_python_asks_which_tensor_it_is(f: Callable[..., Any]) -> None:
    compiled = kiln.compile(f)
    for n in [-2.0, 2.0, -1.0, 3.0, 2.0, -2.0]:
        seen = []
        for g in (compiled, f):
            a = kiln.tensor([2.0])
            returned = g(a, kiln.tensor([n]))
            leaves = [x.tolist() if isinstance(x, kiln.Tensor) else x for x in flatten(returned)[0]]
            seen.append((leaves, a.tolist(), a.requires_grad, None if a.grad is None else a.grad.tolist()))
        assert seen[0] == seen[1]


class Keeper:
    def __init__(self) -> None:
        self.last: Any = None
        self.seen: list[Any] = []
        self.by_name: dict[str, Any] = {}
        self.weight = kiln.zeros(2, requires_grad=True)


def keeps_an_attribute(k: Keeper, a: Any, x: Any) -> None:
    k.last = x


def keeps_in_a_list(k: Keeper, a: Any, x: Any) -> None:
    k.seen.append(x)
    k.seen.append([x, (x, a)])


def keeps_in_a_dict(k: Keeper, a: Any, x: Any) -> None:
    k.by_name["x"] = x
    k.by_name.update(y={"x": x}, a=a)


def keeps_a_gradient(k: Keeper, a: Any, x: Any) -> None:
    k.weight.grad = x


def keeps_before_an_error(k: Keeper, a: Any, x: Any) -> None:
    k.last = (x, 1)
    raise ValueError("no")


@pytest.mark.filterwarnings("ignore::kiln.errors.CaptureWarning")
@pytest.mark.parametrize(
    "keep",
    [keeps_an_attribute, keeps_in_a_list, keeps_in_a_dict, keeps_a_gradient, keeps_before_an_error],
    ids=lambda f: f.__name__,
)
def test_what_outlives_the_call_is_the_tensor_itself(keep: Callable[..., Any]) -> None:
    def f(k: Keeper, a: Any, c: Any) -> Any:
        x = a
        if c.sum() > 0:
            x = a * 2
        keep(k, a, x)
        return [x]

    a = kiln.tensor([2.0, 3.0])
    worlds = Keeper(), Keeper()
    compiled = kiln.compile(f)
    for n in [-2.0, 2.0, -1.0, 3.0, 2.0, -2.0]:
        seen = []
        for g, k in zip((compiled, f), worlds, strict=True):
            try:
                returned = g(k, a, kiln.tensor([n]))
            except ValueError as error:
                returned = str(error)
            leaves = flatten([returned, k.last, k.seen, k.by_name, k.weight.grad])[0]
            seen.append([("a" if x is a else x.tolist()) if isinstance(x, kiln.Tensor) else x for x in leaves])
        assert seen[0] == seen[1]
