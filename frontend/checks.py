"""Checks on data: eager code looks at it, a compiled call checks it while it runs."""

from __future__ import annotations

from kiln import functional as F
from kiln.base import LAYERED, MODES, TensorBase
from kiln.errors import DivisionByZeroError
from kiln.ir import types as T
from kiln.pointwise import floor_divide
from kiln.promotion import cast_to

__all__ = ["holds"]


def holds(valid: TensorBase) -> bool:
    """Whether all of a bool tensor is true; taken for granted inside of `vmap` and its like, where a tensor stands for
    many.

    While a capture listens, the check becomes part of what is recorded (as a division by zero: operations that may fail
    are never left out). A compiled call that fails it runs eagerly, so that the caller's exception is raised there.
    Where the captured code may catch that exception, and go on, the check is a question about data.
    """
    if valid._flags & LAYERED:
        return True
    whole = F.all(valid)
    if MODES.recorder is None or MODES.recorder.caught:
        return bool(whole)
    try:
        floor_divide(1, cast_to(whole, T.int32))
    except DivisionByZeroError:
        return False
    return True
