"""Text that tensors decide, in a captured function: it is made after the program ran.

A `Text` acts as the string in converted code. Put together, printed, returned or given to an exception, it stays text
that depends on data; for anything else (comparing, slicing, a dict's key, a call of what was not converted) the string
itself is asked for, as a question about data: a decision, or a refusal where there are none.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kiln.answers import truth
from kiln.capture import Capture, Entangled, current
from kiln.staging_numbers import Lazy, known
from kiln.texts import Chosen, Hole, Part, Template, Within, moved, spelled

_MAX_TEXT: Final = 1024
"""Characters of a text that may decide how a call goes on."""


@dataclass(frozen=True)
class Pale(Hole):
    """Where data go in of a branch that was staged at `site`: this very call does not have them."""

    site: Any


@dataclass(frozen=True)
class PaleChoice(Chosen):
    """A choice in a branch that was staged at `site`."""

    site: Any = None


class Text(Lazy):
    """See the module. The string of this very call is made at once, as everything in a capture is."""

    __slots__ = ("parts", "value")

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(parts)
        self.value = spelled(self.parts, _elements)

    def now(self) -> str:
        """The string in this very call, which nothing is told of."""
        return self.value

    def known(self) -> str:
        """The string, asked for as a question about data."""
        capture = current()
        if capture is not None:
            if len(self.value) > _MAX_TEXT:
                capture.reject(
                    "text of that many characters decides how the call goes on", "compare what it is made of"
                )
            text = _asked(capture, self.parts)
            if current() is capture:
                return text  # where answers are given, perhaps another one
        return self.value

    def __kiln_text__(self, place: Callable[[Any], int]) -> Template:
        """The text of a region, where tensors are results."""
        return Template(moved(self.parts, place))

    def __str__(self) -> str:
        return self.known()

    def __repr__(self) -> str:
        return repr(self.known())

    def __format__(self, spec: str) -> str:
        return format(self.known(), spec)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.known(), name)

    def __add__(self, other: Any) -> Any:
        parts = _of_text(other)
        return self.known() + other if parts is None else Text((*self.parts, *parts))

    def __radd__(self, other: Any) -> Any:
        parts = _of_text(other)
        return other + self.known() if parts is None else Text((*parts, *self.parts))

    def __hash__(self) -> int:
        return hash(self.known())

    def __bool__(self) -> bool:
        return bool(self.known())


def _install() -> None:
    for name in ("eq", "ne"):
        setattr(Text, f"__{name}__", lambda a, b, same=name == "eq": _equal(a, b, same))
    for name in ("lt", "le", "gt", "ge", "mod"):
        plain = getattr(operator, name)
        setattr(Text, f"__{name}__", lambda a, b, plain=plain: plain(a.known(), known(b)))
    for name in ("mul", "rmul", "getitem", "contains"):
        plain = operator.contains if name == "contains" else operator.getitem if name == "getitem" else operator.mul
        setattr(Text, f"__{name}__", lambda a, b, plain=plain: plain(a.known(), known(b)))
    setattr(Text, "__hash__", lambda a: hash(a.known()))  # noqa: B010
    setattr(Text, "__len__", lambda a: len(a.known()))  # noqa: B010
    setattr(Text, "__iter__", lambda a: iter(a.known()))  # noqa: B010


def _equal(a: Text, b: Any, same: bool) -> Any:
    if type(b) in (type(None), bool, int, float, bytes, list, tuple, dict):
        return not same
    return (a.known() == known(b)) is same


_install()


def _elements(t: Any) -> Any:
    return t._array()


def _asked(capture: Capture, parts: Sequence[Part]) -> str:
    """The string, where everything that decides it was asked for."""
    found = []
    for part in parts:
        if isinstance(part, (Pale, PaleChoice)):
            message = "the string itself is needed of text that a staged branch made"
            capture.give_up(Entangled(message, frozenset({part.site})))
            part = "" if isinstance(part, Pale) else part.now or ""
        elif isinstance(part, Hole):
            capture.ask(part.at, "text", part.make)
            part = part.make(_elements(part.at))
        elif isinstance(part, Within):
            part = part.make(_asked(capture, part.parts))
        elif isinstance(part, Chosen):
            answer = capture.ask(part.flag, "text", truth)
            part = _asked(capture, part.first if answer else part.second)
        found.append(part)
    return "".join(found)


def paled(
    parts: Sequence[Part], is_own: Callable[[Any], bool], place: Callable[[Any], Any], site: Any
) -> tuple[Part, ...]:
    """The same text, where tensors of a staged branch's own, and those only, are placed."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Hole) and is_own(part.at):
            part = Pale(place(part.at), part.make, site)
        elif isinstance(part, Within):
            part = Within(paled(part.parts, is_own, place, site), part.make)
        elif isinstance(part, Chosen):
            first, second = (paled(side, is_own, place, site) for side in (part.first, part.second))
            if is_own(part.flag):
                part = PaleChoice(place(part.flag), first, second, part.now, site)
            else:
                part = Chosen(part.flag, first, second, part.now)
        found.append(part)
    return tuple(found)


def text_of(parts: Sequence[Part]) -> Any:
    """A text, or the string where no data go in."""
    return Text(parts) if any(not isinstance(part, str) for part in parts) else "".join(map(str, parts))


def _of_text(x: Any) -> Sequence[Part] | None:
    """The parts of a string of either sort."""
    if isinstance(x, Text):
        return x.parts
    return (x,) if type(x) is str else None
