"""Places in one piece of memory for values that are alive at different times: reused, best fit first, largest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kiln.ir.types import Dim, size_of

ALIGN: Final = 64


@dataclass(frozen=True, slots=True)
class Local:
    """A value in an arena: its bytes, and the first and the last step that need it."""

    nbytes: Dim
    born: int
    dies: int


def place(values: Sequence[Local], sizes: Mapping[str, int]) -> tuple[list[int], int]:
    """The byte offset of each value, and the bytes of the whole, where the names of sizes have these `sizes`."""
    needed = [max(1, size_of(v.nbytes, sizes)) for v in values]
    offsets, total = [0] * len(values), 0
    placed: list[tuple[int, int, int, int]] = []  # offset, end, born, dies
    for k in sorted(range(len(values)), key=lambda k: -needed[k]):
        v, size = values[k], -(-needed[k] // ALIGN) * ALIGN
        busy = sorted((o, e) for o, e, b, d in placed if b <= v.dies and v.born <= d)
        offset, best = 0, None
        for start, end in busy:
            if start - offset >= size and (best is None or start - offset < best[1]):
                best = (offset, start - offset)
            offset = max(offset, end)
        offsets[k] = best[0] if best is not None else offset
        placed.append((offsets[k], offsets[k] + size, v.born, v.dies))
        total = max(total, offsets[k] + size)
    return offsets, total
