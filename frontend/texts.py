"""Text that is made after a program ran: constants, and what is spelled from results of the program.

In a capture the parts are found out, with a tensor of the capture where data go in (`staging_text.py`); a region knows
these as positions among its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from kiln.ir.halves import widened
from kiln.printing import Described

Array: TypeAlias = "np.ndarray[Any, Any]"
Part: TypeAlias = "str | Hole | Within | Chosen"


@dataclass(frozen=True)
class Hole:
    """Where data go in: `make` spells what `at` holds."""

    at: Any
    make: Callable[[Array], str]


@dataclass(frozen=True)
class Within:
    """Text that `make` turns into other text."""

    parts: tuple[Part, ...]
    make: Callable[[str], str]


@dataclass(frozen=True)
class Chosen:
    """One text or another, as the truth of `flag` decides; `now`: which string it is in the very call that is captured,
    if that must not be looked up."""

    flag: Any
    first: tuple[Part, ...]
    second: tuple[Part, ...]
    now: str | None = None


@dataclass(frozen=True)
class Shown:
    """Spells a tensor as `repr` does."""

    described: Described
    before: str

    def __call__(self, data: Array) -> str:
        return self.before + self.described.text(widened(data))


@dataclass(frozen=True)
class Spelled:
    """Spells the only element as a Python number: of the type `kind`, or as `item()` gives it."""

    kind: type | None
    conversion: str
    spec: str

    def __call__(self, data: Array) -> str:
        x = widened(data).item()
        x = x if self.kind is None else self.kind(x)
        return self.spec % x if self.conversion == "%" else CONVERSIONS[self.conversion](x, self.spec)


@dataclass(frozen=True)
class Respelled:
    """What `format`, `repr` or `%` makes of a string, or `ascii` of what has it as its `repr`."""

    conversion: str
    spec: str

    def __call__(self, text: str) -> str:
        return self.spec % text if self.conversion == "%" else CONVERSIONS[self.conversion](text, self.spec)


CONVERSIONS: dict[str, Callable[[Any, str], str]] = {
    "format": format,
    "str": lambda x, _: str(x),
    "repr": lambda x, _: repr(x),
    "ascii": lambda x, _: ascii(x),
    "escape": lambda x, _: x.encode("ascii", "backslashreplace").decode(),
}


def spelled(parts: Sequence[Part], read: Callable[[Any], Array]) -> str:
    """The text; `read` gives the elements of what a hole is at."""
    found = []
    for part in parts:
        if isinstance(part, Hole):
            part = part.make(read(part.at))
        elif isinstance(part, Within):
            part = part.make(spelled(part.parts, read))
        elif isinstance(part, Chosen):
            if part.now is None:
                part = spelled(part.first if read(part.flag).item() else part.second, read)
            else:
                part = part.now
        found.append(part)
    return "".join(found)


def moved(parts: Sequence[Part], place: Callable[[Any], Any]) -> tuple[Part, ...]:
    """The same text, of what `place` gives for what each hole is at."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Hole):
            part = replace(part, at=place(part.at))
        elif isinstance(part, Within):
            part = Within(moved(part.parts, place), part.make)
        elif isinstance(part, Chosen):
            first, second = moved(part.first, place), moved(part.second, place)
            part = replace(part, flag=place(part.flag), first=first, second=second, now=None)
        found.append(part)
    return tuple(found)


@dataclass(frozen=True)
class Print:
    """What `print` is called with, once the program ran."""

    texts: tuple[Any, ...]
    """Strings, and templates of such."""
    sep: str | None
    end: str | None
    flush: bool

    def commit(self, scene: Any) -> None:
        """Print, to what `sys.stdout` is now."""
        texts = [text.make(scene.made) if isinstance(text, Template) else text for text in self.texts]
        print(*texts, sep=self.sep, end=self.end, flush=self.flush)


@dataclass(frozen=True)
class Template:
    """A text of a region: its holes are at results."""

    parts: tuple[Part, ...]

    def make(self, made: Sequence[Any]) -> str:
        """The text, of the results of a call."""
        return spelled(self.parts, lambda k: made[k]._array())
