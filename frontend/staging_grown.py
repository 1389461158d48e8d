"""Lists that a loop appends to: in the program, one tensor of all turns.

While a turn is tried out, such a list is not in the variables: in its place is a `Growing`, which can be appended to
and nothing else. Only a list that nobody else knows may be replaced so, since all else that is done to it would show.

Afterwards the list is Python's, with the tensors of all turns. Each is a row of the whole tensor to the capture, which
takes it out of that (`Rows.enter`) when it is used; `stack` and `cat` of many of them take the whole (`joined`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import CellType
from typing import Any, Final

import numpy as np

from kiln import dispatch
from kiln import functional as F
from kiln.base import MODES, layout_of
from kiln.capture import Capture
from kiln.convert import State
from kiln.ir.graph import Value
from kiln.ir.ops.base import OPS
from kiln.movement import movedim, narrow
from kiln.traced import Entry, Storage, entangle

_MOST_IN_A_TURN: Final = 8
"""So many items that a turn appends to a list are put together again."""


class Growing(list[Any]):
    """Stands for a list while a turn is tried out. `fail` is told of what can't be done to it; `around` is the capture
    that the trial is inside of: in a branch, or in a loop in the turn, it can't be appended to."""

    def __init__(self, around: Any, fail: Callable[[str], Any]) -> None:
        super().__init__()
        self.around = around
        self.fail = fail

    def append(self, x: Any) -> None:
        self._check()
        super().append(x)

    def extend(self, items: Any) -> None:
        self._check()
        super().extend(items)

    def __iadd__(self, items: Any) -> Growing:  # type: ignore[misc]
        self._check()
        super().extend(items)
        return self

    def _check(self) -> None:
        if getattr(MODES.recorder, "parent", None) is not self.around:
            self.fail("a loop with a branch or a loop in it that appends to a list")

    def taken(self) -> list[Any]:
        """What was appended."""
        return [list.__getitem__(self, k) for k in range(list.__len__(self))]


def _refused(name: str) -> Callable[..., Any]:
    def refuse(self: Growing, *_: Any, **__: Any) -> Any:
        return self.fail(f"a loop that appends to a list, and reads or changes it otherwise ({name.strip('_')})")

    return refuse


for _name in (
    "__add__", "__radd__", "__contains__", "__delitem__", "__eq__", "__ge__", "__getitem__", "__gt__", "__imul__",
    "__iter__", "__le__", "__len__", "__lt__", "__mul__", "__ne__", "__repr__", "__str__", "__format__", "__reversed__",
    "__rmul__", "__setitem__", "__bool__", "__reduce__", "__reduce_ex__", "__copy__", "__deepcopy__", "clear", "copy",
    "count", "index", "insert", "pop", "remove", "reverse", "sort",
):  # fmt: skip
    setattr(Growing, _name, _refused(_name))


@dataclass
class Grown:
    """A list that nobody but these cells knows, and what the turn that was tried last appended."""

    cells: list[CellType]
    held: list[Any]
    items: list[Any]


def _references(cells: Sequence[CellType]) -> int:
    """References to what the cells hold, besides theirs."""
    x = cells[0].cell_contents
    for cell in cells:
        cell.cell_contents = None
    count = sys.getrefcount(x)
    for cell in cells:
        cell.cell_contents = x
    return count


def lists_of(state: State, outer: Container[int]) -> list[Grown]:
    """The lists that only these variables of the function know."""
    found: dict[int, list[CellType]] = {}
    for cell in state.visible.values():
        with suppress(ValueError):  # not bound
            if type(cell.cell_contents) is list and id(cell) not in outer:
                found.setdefault(id(cell.cell_contents), []).append(cell)
    alone = _references([CellType([])])
    kept = [cells for cells in found.values() if _references(cells) == alone]
    return [Grown(cells, cells[0].cell_contents, []) for cells in kept]


def replaced(lists: Sequence[Grown], run: Callable[[], Any], around: Any, fail: Callable[[Grown, str], Any]) -> Any:
    """What `run` returns, with a `Growing` in place of each of the lists."""
    growing = [(grown, Growing(around, partial(fail, grown))) for grown in lists]
    for grown, made in growing:
        for cell in grown.cells:
            cell.cell_contents = made
    try:
        return run()
    finally:
        for grown, made in growing:
            for cell in grown.cells:
                with suppress(ValueError):
                    if cell.cell_contents is made:
                        cell.cell_contents = grown.held
            grown.items = made.taken()


# -------------------------------------------------------------------------------------------------- rows


class Rows:
    """The tensors that the turns of a loop appended, in order, and what they are rows of."""

    def __init__(self, tensors: Sequence[Any], value: Value, whole: Any, site: Any) -> None:
        self.tensors = tensors
        self.value = value
        self.site = site
        self._whole = whole

    def tell(self, capture: Capture) -> None:
        """Let the capture know. Those that it knows already stay what they are."""
        for k, t in enumerate(self.tensors):
            capture.rows.setdefault(id(t), (self, k))

    def enter(self, capture: Capture, k: int) -> Entry:
        """The k-th of them is used."""
        t = self.tensors[k]
        shape = self.value.type.static_shape()
        starts, stops = (k, *(0 for _ in shape[1:])), (k + 1, *shape[1:])
        (part,) = capture.builder.add(
            OPS["slice"], [self.value], {"starts": starts, "stops": stops, "steps": (1,) * len(shape)}
        )
        (row,) = capture.builder.add(OPS["reshape"], [part], {"shape": shape[1:]})
        entry = capture.entries[id(t)] = Entry(t, Storage(t, row, None), (), row)
        if self._whole is not None:  # in a trial nobody looks which of them are one object
            entangle(capture, entry.storage, entry.storage, self.site)
        return entry

    def whole(self, capture: Capture) -> Any:
        """The tensor of all rows."""
        if self._whole is not None:
            return self._whole
        data = np.stack([t._array() for t in self.tensors])
        t = self.value.type
        made = dispatch.host_array(data, layout_of(t.dtype, t.static_shape(), None, self.tensors[0].device))
        capture.entries[id(made)] = Entry(made, Storage(made, self.value, None), (), self.value)
        return made


def joined(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """What `stack` or `cat` gives, from the rows taken together; None where there are none among what is joined, or
    where they are not alike."""
    capture = MODES.recorder
    if not isinstance(capture, Capture) or MODES.layers or not args or len(args) + len(kwargs) > 2:
        return None
    parts, dim = args[0], args[1] if args[1:] else kwargs.get("dim", None if kwargs else 0)
    if type(parts) not in (list, tuple) or not parts or type(dim) is not int:
        return None
    if not any(id(t) in capture.rows for t in parts):
        return None
    plain = dispatch.tensor_class()
    if any(type(t) is not plain or t._flags or t.ttype != parts[0].ttype for t in parts):
        return None
    stacks = function.__name__ == "stack"
    if not stacks and not parts[0].ndim:
        return None
    limit = parts[0].ndim + stacks
    if not -limit <= dim < limit:
        return None
    pieces = _pieces(capture, parts)
    if len(pieces) == len(parts):
        return None
    whole = pieces[0] if len(pieces) == 1 else F.cat(pieces, 0)
    whole = movedim(whole, 0, dim % limit)
    if not stacks:
        shape = list(parts[0].shape)
        shape[dim % limit] *= len(parts)
        whole = F.reshape(whole, tuple(shape))
    return F.clone(whole)


def _pieces(capture: Capture, parts: Sequence[Any]) -> list[Any]:
    """Tensors that are, one after the other, the `parts` stacked."""
    pieces: list[Any] = []
    k = 0
    while k < len(parts):
        found = [_row(capture, t) for t in parts[k : k + _MOST_IN_A_TURN]]
        each, count = _turns(capture, parts, k, found)
        if count < 2:
            pieces.append(F.unsqueeze(parts[k], 0))
            k += 1
            continue
        columns = [_rows_of(capture, rows, first, count) for rows, first in found[:each]]
        whole = columns[0] if each == 1 else F.reshape(F.stack(columns, 1), (count * each, *parts[k].shape))
        pieces.append(whole)
        k += count * each
    return pieces


def _row(capture: Capture, t: Any) -> tuple[Any, int]:
    return capture.rows.get(id(t), (None, 0))


def _turns(capture: Capture, parts: Sequence[Any], k: int, found: Sequence[tuple[Any, int]]) -> tuple[int, int]:
    """How many of the `parts`, from `k` on, are of each turn of a loop, and how many turns follow each other."""
    best = 1, 0
    for each in range(1, len(found) + 1):
        if found[each - 1][0] is None:
            break
        count = 0
        while all(_is_row(capture, parts, k + count * each + q, found[q], count) for q in range(each)):
            count += 1
        if count > 1 and count * each > best[0] * best[1]:
            best = each, count
            if k + count * each == len(parts):
                break
    return best


def _is_row(capture: Capture, parts: Sequence[Any], at: int, rows: tuple[Any, int], turn: int) -> bool:
    """Whether a part is the row that so many turns later was appended at the same place, and nothing was written."""
    of, first = rows
    if at >= len(parts) or first + turn >= len(of.tensors) or parts[at] is not of.tensors[first + turn]:
        return False
    entry = capture.entries.get(id(parts[at]))
    return entry is None or not entry.storage.stamp


def _rows_of(capture: Capture, rows: Any, first: int, count: int) -> Any:
    whole = rows.whole(capture)
    return whole if count == len(rows.tensors) else narrow(whole, 0, first, count)
