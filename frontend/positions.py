"""Where elements are that are not zero. How many there are is data, so the size of the result is.

Eagerly they are found on the host. A capture is asked only for the count, and finds them by ops of the graph; so does
a GPU, which the host then asks for one number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kiln import dispatch
from kiln.answers import extent, ones
from kiln.base import MODES
from kiln.ir import types as T
from kiln.ir.ops.base import OPS
from kiln.promotion import apply, cast_to, full_like_number

if TYPE_CHECKING:
    from kiln.tensor import Tensor


def host_tensor(array: np.ndarray[Any, Any], like: Tensor) -> Tensor:
    """A tensor that owns a host result, where `like` is."""
    from kiln.creation import from_numpy  # lies above `tensor`, which lies above this file

    return cast("Tensor", dispatch.moved(from_numpy(np.array(array, order="C")), like.device))


def counters(n: int, like: Tensor) -> Tensor:
    """0, 1, ..., n - 1 as int64, where `like` is."""
    from kiln.creation import arange

    return arange(n, device=like.device)


def how_many(flags: Tensor, what: str) -> int:
    """How many elements of a bool tensor hold; a GPU counts them. `what` asks for it."""
    if flags.device.type != "cuda":
        return ones(flags._read(what, ones))
    return extent(apply(OPS["sum"], _line(flags), dims=(0,))._read(what, extent))


def _line(flags: Tensor) -> Tensor:
    """The elements as one line of int64."""
    return cast_to(apply(OPS["reshape"], flags, shape=(flags.numel(),)), T.int64)


def flat_positions(flags: Tensor, what: str) -> Tensor:
    """Where a contiguous bool tensor holds, ascending, as int64 positions in row-major order. `what` asks for it."""
    if flags.device.type == "cuda":
        return _on_gpu(flags, how_many(flags, what))
    data = flags._read(what, ones)
    if MODES.recorder is None:
        return host_tensor(np.flatnonzero(data), flags)
    count = ones(data)
    line = apply(OPS["reshape"], flags, shape=(flags.numel(),))
    return compressed(line, counters(flags.numel(), flags), count)


def _on_gpu(flags: Tensor, count: int) -> Tensor:
    """The same by work side by side: number k is where the count of ones reaches k + 1."""
    line = _line(flags)
    ranks = apply(OPS["cumsum"], line, dim=0, reverse=False)
    wanted = apply(OPS["cumsum"], full_like_number(line, T.int64, 1, (count,)), dim=0, reverse=False)
    return apply(OPS["searchsorted"], ranks, wanted, right=False)


def compressed(flags: Tensor, values: Tensor, count: int) -> Tensor:
    """The int64 `values` [n] where `flags` [n] hold, of which there are `count`."""
    minus_one = full_like_number(values, T.int64, -1, values.shape)
    place = apply(OPS["add"], apply(OPS["cumsum"], cast_to(flags, T.int64), dim=0, reverse=False), minus_one)
    last = full_like_number(values, T.int64, count, values.shape)
    spread = apply(OPS["where"], flags, place, last)  # what is not wanted goes behind the end
    room = full_like_number(values, T.int64, 0, (count + 1,))
    made = apply(OPS["scatter"], room, values, spread, at=(0,), place=(-1,), wrap=False)
    return made[:count]


def positions(flags: Tensor, what: str) -> list[Tensor]:
    """The indices of a bool tensor's ones along each dimension (of one element: along one), row-major."""
    shape = flags.shape or (1,)
    if MODES.recorder is None and flags.device.type != "cuda":
        data = flags._read(what, ones)
        return [host_tensor(p, flags) for p in np.nonzero(np.atleast_1d(data))]
    rest = flat_positions(flags, what)
    found: list[Tensor] = []
    for n in reversed(shape[1:]):
        size = full_like_number(rest, T.int64, max(n, 1), rest.shape)
        found.append(apply(OPS["remainder_int"], rest, size))
        rest = apply(OPS["floor_divide_int"], rest, size)
    return [rest, *found[::-1]]
