"""`range` over bounds that tensors decide."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kiln.base import TensorBase
from kiln.convert import Site, State
from kiln.ir import types as T
from kiln.promotion import cast_to
from kiln.staging_loops import Loop
from kiln.staging_numbers import Number, known

if TYPE_CHECKING:
    from kiln.staging import StagingHooks

_STEP = 1 << 20


def staged_range(*args: Any) -> Any:
    """`range(*args)`, to be staged if a bound is data and the step is a small number."""
    if any(isinstance(x, (Number, TensorBase)) for x in args) and 1 <= len(args) <= 3:
        start, stop, step = (0, *args, 1) if len(args) == 1 else (*args, 1)[:3]
        ends = [_bound(x) for x in (start, stop)]
        if type(step) is int and 0 < abs(step) <= _STEP and all(end is not None for end in ends):
            return StagedRange(args, ends[0], ends[1], step)
    return range(*map(known, args))


def _bound(x: Any) -> Any:
    """A bound as a number; None where `range` would not take it."""
    if isinstance(x, Number):
        return x if x.kind is int else None
    if isinstance(x, TensorBase):
        whole = x.dtype in (T.int8, T.int16, T.int32, T.int64, T.uint8) and not x.ndim
        return Number(int, cast_to(x, T.int64)) if whole else None
    return x if type(x) is int else None


class StagedRange:
    """A range that a loop may be staged over; anything else that is done with it asks for its bounds."""

    def __init__(self, args: tuple[Any, ...], start: Any, stop: Any, step: int) -> None:
        self._args = args
        self.start, self.stop, self.step = start, stop, step

    def known(self) -> range:
        """Python's own."""
        return range(*map(known, self._args))

    def now(self) -> range:
        """That of this very call."""
        start, stop = (int(x.now()) if isinstance(x, Number) else int(x) for x in (self.start, self.stop))
        return range(start, stop, self.step)

    def __iter__(self) -> Iterator[int]:
        return iter(self.known())

    def __len__(self) -> int:
        return len(self.known())

    def __getitem__(self, k: Any) -> Any:
        return self.known()[known(k)]

    def __contains__(self, x: Any) -> bool:
        return known(x) in self.known()

    def __reversed__(self) -> Iterator[int]:
        return reversed(self.known())


def left(state: State, site: Site) -> Any:
    """The flag that says that the loop was left."""
    return False if site.exit is None else state.get()[state.names.index(site.exit)]


def going(state: State, site: Site) -> None:
    """A turn begins: the flag is not set."""
    if site.exit is not None:
        state.cells[state.names.index(site.exit)].cell_contents = False


def loop_over(hooks: StagingHooks, span: StagedRange, body: Callable[[Any], None], state: State, site: Site) -> None:
    """A `for` loop: staged, or left to Python and its questions."""
    up = span.step > 0

    def test(i: Any) -> Any:
        inside = hooks.as_bool(i < span.stop if up else i > span.stop)
        out = left(state, site)
        if out is False:
            return inside
        return inside and not out if isinstance(inside, bool) else hooks.both_of(inside, hooks.not_(out))

    def turn(i: Any) -> Sequence[Any]:
        going(state, site)
        body(i)
        return (i + span.step,)

    def real() -> Sequence[Any]:
        i = start
        for i in itertools.islice(span.now(), hooks.turns()):
            body(i)
            if left(state, site) is True:
                break
        return (span.stop.now() if isinstance(span.stop, Number) else span.stop,)

    start = span.start.now() if isinstance(span.start, Number) else span.start
    if hooks.may_stage(site):
        with hooks.attempt(site) as attempt:
            first = Number(int, span.start.tensor) if isinstance(span.start, Number) else span.start
            attempt.append(Loop(hooks, (first,), test, turn, real, state, site))
        if attempt:
            attempt[0].commit()
            return
    for i in span.known():
        body(i)
        out = left(state, site)
        if out is True or (out is not False and bool(out)):
            break
