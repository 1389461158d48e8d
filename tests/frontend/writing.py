"""Functions that write into parts of their arguments, in ways that leave an array of 4 x 6 numbers elsewhere unchanged,
and in ways in which somebody could tell if they were written too early, too late, or twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kiln
from kiln.errors import KilnError

Function = Callable[[Any, Any, Any, Any], Any]
"""Of a cache c [4, 6], another one d of that size, a row x [6], and an int64 vector i of one position."""

WRITES: dict[str, Function] = {}
"""Only what is written is touched."""
READS: dict[str, Function] = {}
"""As `WRITES`, and the new content is read."""
HAZARDS: dict[str, Function] = {}


def _into(table: dict[str, Function]) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        table[function.__name__] = function
        return function

    return add


# ------------------------------------------------------------------------------------------------- kinds


@_into(WRITES)
def index_copy(c: Any, d: Any, x: Any, i: Any) -> None:
    c.index_copy_(0, i, x[None])


@_into(WRITES)
def index_copy_of_columns(c: Any, d: Any, x: Any, i: Any) -> None:
    c.index_copy_(1, i, x[:4, None])


@_into(WRITES)
def index_put(c: Any, d: Any, x: Any, i: Any) -> None:
    c[i] = x


@_into(WRITES)
def index_put_of_a_pair(c: Any, d: Any, x: Any, i: Any) -> None:
    c[i, i + 1] = x[0]


@_into(WRITES)
def index_put_of_a_number(c: Any, d: Any, x: Any, i: Any) -> None:
    c[i - 4] = 5.0


@_into(WRITES)
def index_put_that_adds(c: Any, d: Any, x: Any, i: Any) -> None:
    c.index_put_((kiln.cat([i, i]),), x, accumulate=True)


@_into(WRITES)
def index_add(c: Any, d: Any, x: Any, i: Any) -> None:
    c.index_add_(0, i, x[None])


@_into(WRITES)
def index_fill(c: Any, d: Any, x: Any, i: Any) -> None:
    c.index_fill_(0, i, 3.0)


@_into(WRITES)
def scatter(c: Any, d: Any, x: Any, i: Any) -> None:
    c.scatter_(1, i[:, None], x[None])


@_into(WRITES)
def scatter_of_the_largest(c: Any, d: Any, x: Any, i: Any) -> None:
    c.scatter_reduce_(0, i[:, None], x[None], "amax")


@_into(WRITES)
def slice_of_rows(c: Any, d: Any, x: Any, i: Any) -> None:
    c[1:3] = x


@_into(WRITES)
def slice_with_steps(c: Any, d: Any, x: Any, i: Any) -> None:
    c[::2, 1::3] = x[:2]


@_into(WRITES)
def one_row(c: Any, d: Any, x: Any, i: Any) -> None:
    c[1] = x


@_into(WRITES)
def one_element(c: Any, d: Any, x: Any, i: Any) -> None:
    c[1, 2] = 7.0


@_into(WRITES)
def part_of_a_row(c: Any, d: Any, x: Any, i: Any) -> None:
    c[1][2:4].copy_(x[:2])


@_into(WRITES)
def positions_of_a_row(c: Any, d: Any, x: Any, i: Any) -> None:
    c[1].index_copy_(0, i, x[:1])


@_into(WRITES)
def transposed(c: Any, d: Any, x: Any, i: Any) -> None:
    c.t()[2].copy_(x[:4])
    c.t().index_copy_(0, i, x[None, :4])


@_into(WRITES)
def reshaped(c: Any, d: Any, x: Any, i: Any) -> None:
    c.view(2, 2, 6)[1, 0] = x


@_into(WRITES)
def diagonal(c: Any, d: Any, x: Any, i: Any) -> None:
    c.diagonal().copy_(x[:4])


@_into(WRITES)
def nothing(c: Any, d: Any, x: Any, i: Any) -> None:
    c[2:2] = 1.0
    c.index_copy_(0, i[:0], x[None][:0])


@_into(WRITES)
def several(c: Any, d: Any, x: Any, i: Any) -> None:
    c[0] = x
    c.index_add_(0, i, x[None])
    c[:, 2:4] = x[:2]
    c[i] = x
    d[i] = x


@_into(READS)
def a_sum(c: Any, d: Any, x: Any, i: Any) -> Any:
    c.index_copy_(0, i, x[None])
    return c.sum(0)


@_into(READS)
def a_product(c: Any, d: Any, x: Any, i: Any) -> Any:
    c[i] = x
    d[i] = x + 1
    return (c @ x).softmax(0) @ d


@_into(READS)
def between_writes(c: Any, d: Any, x: Any, i: Any) -> Any:
    c[0] = x
    y = c.sum(0)
    c[i] = y
    z = c.sum(0)
    c[2:3] = z
    return y, z, c.sum()


@_into(READS)
def a_part(c: Any, d: Any, x: Any, i: Any) -> Any:
    c[i] = x
    return c[1:3].sum(1), c.t()[2] * 2


@_into(READS)
def a_part_by_index(c: Any, d: Any, x: Any, i: Any) -> Any:
    c[2] = x
    return c[i] * 2, c.index_select(1, i)


@_into(READS)
def a_branch(c: Any, d: Any, x: Any, i: Any) -> Any:
    c[i] = x
    return kiln.cond(c.sum() > 0, lambda c, x: c[1] + x, lambda c, x: c[2] - x, (c, x))


@_into(READS)
def a_loop(c: Any, d: Any, x: Any, i: Any) -> Any:
    c[i] = x
    (_, y) = kiln.while_loop(lambda k, y: k < 3, lambda k, y: (k + 1, y + c[1]), (kiln.tensor(0, device=c.device), x))
    return y


# ----------------------------------------------------------------------------------------------- hazards


@_into(HAZARDS)
def old_beside_new(c: Any, d: Any, x: Any, i: Any) -> Any:
    old = c * 2
    c[i] = x
    return old + c.sum(), old - c


@_into(HAZARDS)
def a_copy_from_before(c: Any, d: Any, x: Any, i: Any) -> Any:
    old = c[:2].clone()
    c[0] = x
    return old, old + c[:2]


@_into(HAZARDS)
def old_in_a_result(c: Any, d: Any, x: Any, i: Any) -> Any:
    old = c.clone()
    c[i] = x
    new = c.clone()
    c[1] = x
    return old, new


@_into(HAZARDS)
def shifted(c: Any, d: Any, x: Any, i: Any) -> None:
    c[1:] = c[:-1]


@_into(HAZARDS)
def shifted_columns(c: Any, d: Any, x: Any, i: Any) -> None:
    c[:, :-1] = c[:, 1:]
    c[:, -1] = x[:4]


@_into(HAZARDS)
def rows_of_its_own(c: Any, d: Any, x: Any, i: Any) -> None:
    c.index_copy_(0, kiln.arange(4, device=c.device), c[kiln.arange(3, -1, -1, device=c.device)])
    c.index_copy_(0, kiln.arange(1, 4, device=c.device), c[:3])


@_into(HAZARDS)
def columns_of_its_transpose(c: Any, d: Any, x: Any, i: Any) -> None:
    c[:4, :4] = c[:4, :4].t()


@_into(HAZARDS)
def swapped(c: Any, d: Any, x: Any, i: Any) -> None:
    row = c[1].clone()
    c[1] = d[1]
    d[1] = row


@_into(HAZARDS)
def one_into_the_other(c: Any, d: Any, x: Any, i: Any) -> Any:
    c[1] = d[1]
    d[1] = c[0] + c[1]
    c[2] = d[1]
    return c + d


@_into(HAZARDS)
def index_from_the_table(c: Any, d: Any, x: Any, i: Any) -> None:
    c[c[0, :1].long()] = x
    c[c[1, :1].abs().long() % 4] = x * 2


def but_for_two(i: Any, other: int) -> Any:
    """The position, or `other` in place of 2: functions that always fail are never compiled."""
    return kiln.where(i == 2, other, i)


@_into(HAZARDS)
def refused_at_once(c: Any, d: Any, x: Any, i: Any) -> None:
    c.index_add_(0, kiln.cat([i, but_for_two(i, 9)]), kiln.stack([x, x]))


@_into(HAZARDS)
def refused_after_a_write(c: Any, d: Any, x: Any, i: Any) -> None:
    c.index_add_(0, i, x[None])
    d.index_add_(0, but_for_two(i, 9), x[None])


@_into(HAZARDS)
def refused_beside_what_was_written(c: Any, d: Any, x: Any, i: Any) -> Any:
    c.index_add_(0, i, x[None])
    y = d[but_for_two(i, -9)] * c.sum()
    c[0] += 1
    return y


@_into(HAZARDS)
def refused_by_what_was_written(c: Any, d: Any, x: Any, i: Any) -> Any:
    c.index_add_(0, i, x[None])
    return d[but_for_two(i, 4) + (c.sum() * 0).long()]


@_into(HAZARDS)
def refused_after_all_was_written(c: Any, d: Any, x: Any, i: Any) -> Any:
    c.mul_(2.0)
    return d[but_for_two(i, 4) + (c.sum() * 0).long()]


@_into(HAZARDS)
def refused_by_a_factorization(c: Any, d: Any, x: Any, i: Any) -> Any:
    c.index_add_(0, i, x[None])
    return kiln.linalg.cholesky(kiln.eye(4, device=c.device) * (2 - i + c.sum() * 0))


@_into(HAZARDS)
def refused_in_a_branch(c: Any, d: Any, x: Any, i: Any) -> Any:
    c.index_add_(0, i, x[None])
    return kiln.cond(i.sum() == 2, lambda c, i: c[i + (c.sum() * 0).long() + 9], lambda c, i: c[i], (c, i))


@_into(HAZARDS)
def refused_from_below(c: Any, d: Any, x: Any, i: Any) -> None:
    j = but_for_two(i, -1)
    c[j] = x
    d.index_copy_(0, j, x[None])


@_into(HAZARDS)
def refused_in_one_dimension(c: Any, d: Any, x: Any, i: Any) -> None:
    j = but_for_two(i, 5)
    c.index_copy_(1, j, x[:4, None])
    c.index_copy_(0, j, x[None])


@_into(HAZARDS)
def returned_and_written(c: Any, d: Any, x: Any, i: Any) -> Any:
    made = c.index_copy(0, i, x[None])
    c.copy_(made)
    c[0] = 9.0
    c[1] = c.sum(0)
    return made


@_into(HAZARDS)
def through_another_view(c: Any, d: Any, x: Any, i: Any) -> None:
    c.copy_(c.view(6, 4).t().index_copy(0, i, x[None]))


@_into(HAZARDS)
def a_part_turned_round(c: Any, d: Any, x: Any, i: Any) -> None:
    c[:4, :4] = c[:4, :4].index_copy(0, i, x[None, :4]).t()


@_into(HAZARDS)
def a_part_of_a_larger_part(c: Any, d: Any, x: Any, i: Any) -> None:
    c[1:2] = c[0:3].index_copy(0, i, x[None])[1:2]


@_into(HAZARDS)
def a_part_of_before(c: Any, d: Any, x: Any, i: Any) -> None:
    made = c[1:2].index_copy(0, i * 0, x[None])
    c[1, 0:3] = 7.0
    c[1:2] = made


@_into(HAZARDS)
def decided_by_what_was_written(c: Any, d: Any, x: Any, i: Any) -> Any:
    c.index_add_(0, i, x[None])
    if c.sum() > 0:
        c[0] = x
        return c * 2
    d[1] = x
    return str(float(c[0, 0]))


@_into(HAZARDS)
def written_whole_and_in_part(c: Any, d: Any, x: Any, i: Any) -> Any:
    c *= 2
    c[i] = x
    d.fill_(1.0)
    d[1] = x
    c += d
    return c.sum()


@_into(HAZARDS)
def another_part_of_the_same_row(c: Any, d: Any, x: Any, i: Any) -> Any:
    row = c[1]
    row.index_copy_(0, i, x[:1])
    c[2] = row
    row[3:] = x[3:]
    return row.sum(), c.sum()


@_into(HAZARDS)
def part_of_what_another_makes(c: Any, d: Any, x: Any, i: Any) -> Any:
    other = c.index_copy(0, i, x[None])
    c[0:1] = other[0:1]
    d[:, :3] = d.slice_scatter(x[None].expand(4, 6)[:, :2], 1, 1, 3)[:, :3]
    return other


def numbers(seed: int, *shape: int) -> Any:
    """Small numbers, the same for a seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def arguments(position: int, device: str = "cpu", seed: int = 0, dtype: Any = kiln.float32) -> list[Any]:
    """c, d, x and i."""
    made = [kiln.from_numpy(numbers(seed + k, *shape)).to(dtype) for k, shape in enumerate([(4, 6), (4, 6), (6,)])]
    return [t.clone().to(device) for t in (*made, kiln.tensor([position]))]


def told(x: Any) -> Any:
    """Tensors as bytes."""
    if isinstance(x, kiln.Tensor):
        return str(x.dtype), tuple(x.shape), x.detach().cpu().contiguous().numpy().tobytes()
    return [told(y) for y in x] if isinstance(x, (list, tuple)) else x


def outcome(function: Callable[..., Any], given: list[Any]) -> Any:
    """What a call gives or raises, and what its arguments are then."""
    try:
        result = told(function(*given))
    except KilnError as error:
        result = type(error).__name__, str(error).splitlines()[0]
    return result, told(given), [t._version > 0 for t in given]
