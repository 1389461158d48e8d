"""What a question about a tensor's data is about: functions from its elements to something small and hashable.

A compiled call that comes to a question goes on as it did when the answer was the same (`tree.py`), so the less an
answer says, the fewer ways there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from kiln.ir.halves import widened
from kiln.runtime.library import refusal

Array: TypeAlias = "np.ndarray[Any, Any]"


def contents(data: Array) -> bytes:
    """Everything."""
    return data.tobytes()


def truth(data: Array) -> bool:
    """Whether the only element is not zero."""
    return bool(widened(data).item())


def ones(data: Array) -> int:
    """How many elements are not zero."""
    return int(np.count_nonzero(data))


def extent(data: Array) -> int:
    """The only element, an integer that says how much there is of something."""
    return int(data.item())


def extremes(data: Array) -> tuple[bytes, bytes] | None:
    """The least and the largest element."""
    return (data.min().tobytes(), data.max().tobytes()) if data.size else None


@dataclass(frozen=True)
class Refusal:
    """Why a library op can't be carried out on a matrix; None where it can."""

    op: str
    attrs: tuple[tuple[str, Any], ...]

    def __call__(self, data: Array) -> str | None:
        return refusal(self.op, data, dict(self.attrs))


def left_open(fold: Any) -> bool:
    """Whether the answers are not looked into beforehand, but taken as they come."""
    return isinstance(fold, Refusal) or fold in SIZES


SIZES: Final = frozenset({ones, extremes, extent})
"""What sizes of results are about. They are to a program what the shapes of its arguments are."""
