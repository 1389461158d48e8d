"""`range` over bounds that tensors decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kiln.base import TensorBase
from kiln.ir import types as T
from kiln.promotion import cast_to
from kiln.staging_numbers import Number, known

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
