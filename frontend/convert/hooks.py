"""What converted code asks: the hooks, and those that do what Python does."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CellType, MappingProxyType
from typing import Any, Final, Protocol

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Unbound:
    """What `State.get` has for a variable that is not bound."""

    def __repr__(self) -> str:
        return "UNBOUND"


UNBOUND: Final = Unbound()


@dataclass(frozen=True)
class Site:
    """A place in a function where control flow may be staged."""

    kind: str
    """"if", "while", "for", "ifexp", "and", "or" or "assert"."""
    file: str
    line: int
    function: str
    """The qualified name of the user's function."""
    names: tuple[str, ...]
    """Variables that may be bound, changed or deleted inside: the user's, and flags and temporaries of the converter
    (which begin and end with two underscores). Each is a variable of the function or of one around it."""
    exit: str | None
    """Of a loop that can be left early: the flag among `names` that says that it was."""
    live: Callable[[], frozenset[str]] = field(default=frozenset, compare=False, repr=False)
    """Those variables whose values may be read once the place was passed (before it comes to the place again, in a loop
    around it: then, too)."""


class State:
    """The variables that a staged region may change, in one activation of its function."""

    __slots__ = ("cells", "names", "visible")

    def __init__(self, names: tuple[str, ...], cells: Sequence[CellType], visible: Mapping[str, CellType]) -> None:
        self.names = names
        self.visible = visible
        """All variables that the region mentions, by name (private names as Python mangles them)."""
        self.cells = cells

    def get(self) -> tuple[Any, ...]:
        """Their values, UNBOUND for those that have none."""
        return tuple(map(_value, self.cells))

    def set(self, values: Iterable[Any]) -> None:
        """Give them values; UNBOUND unbinds."""
        for cell, value in zip(self.cells, values, strict=True):
            if value is not UNBOUND:
                cell.cell_contents = value
            elif _value(cell) is not UNBOUND:
                del cell.cell_contents


def _value(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return UNBOUND


class Hooks(Protocol):
    """What converted code calls. Those of `PythonHooks` are Python's own C functions where there is one, so that no
    frame of kiln's stands between the user's code and what it calls, and an error's traceback is the original's.

    A test comes in two steps. `test` gets the value: it answers True or False, or with anything else, which means:
    stage this. Only then are the branches handed over, to `if_`, `while_` and their like. Branches are functions
    without parameters over the variables of the function, which `state` reads and writes.
    """

    def test(self, value: Any) -> Any:
        """The truth of a value: True, False, or what is to be staged (handed on as `test` below)."""

    def truth(self, value: Any) -> bool:
        """The truth of a value (or of what `test` returned) where staging is not possible: in comprehensions'
        conditions, generators, class bodies, `match` guards, around jumps that could not be lowered."""

    def staged(self, value: Any) -> bool:
        """Whether `value and ...`, `value or ...` are to be staged. True for all that `test` hands on."""

    def stages(self, slot: list[Any], site: Site, /) -> bool:
        """Whether a `for` loop over `slot[0]` is to be staged. May replace what the slot holds."""

    def iterate(self, iterable: Any) -> Any:
        """What a comprehension iterates over."""

    def if_(self, test: Any, then: Callable[[], None], orelse: Callable[[], None], state: State, site: Site, /) -> None:
        """A staged `if`."""

    def while_(
        self, test: Any, again: Callable[[], Any], body: Callable[[], None], state: State, site: Site, /
    ) -> None:
        """A staged `while`, from an evaluation of its condition on: `test` is what that gave, `again` evaluates it
        anew (True, False, or to be staged). Early exits are part of the condition."""

    def for_(self, iterable: Any, body: Callable[[Any], None], state: State, site: Site, /) -> None:
        """A staged `for`: `body` takes an item. Once the flag `site.exit` is set, it does nothing."""

    def ifexp(self, test: Any, then: Callable[[], Any], orelse: Callable[[], Any], state: State, site: Site, /) -> Any:
        """A staged `then() if test else orelse()`."""

    def and_(self, left: Any, right: Callable[[], Any], state: State, site: Site, /) -> Any:
        """A staged `left and right()`: its value or, in a condition, what is to be staged in turn."""

    def or_(self, left: Any, right: Callable[[], Any], state: State, site: Site, /) -> Any:
        """A staged `left or right()`."""

    def assert_(self, test: Any, message: Callable[[], Any] | None, state: State, site: Site, /) -> None:
        """A staged `assert`; `message` evaluates the user's, if there is one."""

    def not_(self, value: Any, /) -> Any:
        """`not value`, for True, False, or what is to be staged."""

    def is_(self, a: Any, b: Any, /) -> Any:
        """`a is b`."""

    def is_not(self, a: Any, b: Any, /) -> Any:
        """`a is not b`."""

    def contains(self, container: Any, item: Any, /) -> Any:
        """`item in container`."""

    def callee(self, function: Any, /) -> Any:
        """What is called in place of `function`: itself, its conversion, or something that stands in for a built-in
        function. The call follows, from the user's own line."""

    def begin(self, runtime: Any, /) -> None:
        """A function was converted; its code calls the hooks as attributes of `runtime`, which may be set."""

    def load_attr(self, x: Any, name: str, /) -> Any:
        """`x.name`."""

    def store_attr(self, x: Any, name: str, value: Any, /) -> None:
        """`x.name = value`."""

    def delete_attr(self, x: Any, name: str, /) -> None:
        """`del x.name`."""

    def load_item(self, x: Any, key: Any, /) -> Any:
        """`x[key]`."""

    def open_item(self, x: Any, key: Any, /) -> Any:
        """`x[key]` where an operator in place is to change it, and `store_item` follows: `x[key] += 1`."""

    def store_item(self, x: Any, key: Any, value: Any, /) -> None:
        """`x[key] = value`."""

    def delete_item(self, x: Any, key: Any, /) -> None:
        """`del x[key]`."""

    def load_global(self, name: str, value: Any, /) -> Any:
        """A global or built-in name was read."""

    def store_global(self, space: dict[str, Any], name: str, value: Any, /) -> None:
        """`name = value` where name is declared global."""

    def load_local(self, name: str, value: Any, /) -> Any:
        """A variable was read that a staged region may have bound on one path only."""

    def joined(self, parts: tuple[str, ...], /) -> str:
        """An f-string, of its parts."""

    def mod(self, a: Any, b: Any, /) -> Any:
        """`a % b`, which may be text."""

    def subject(self, value: Any, /) -> Any:
        """What `match` looks at."""

    def handed_out(self, value: Any, /) -> Any:
        """What a lambda expression, or a method that Python calls for text, gives to whoever calls it."""

    def format_(self, value: Any, spec: str, /) -> str:
        """A replacement field of an f-string."""

    def repr_(self, value: Any, /) -> str:
        """The conversion `!r` in an f-string; `str_` and `ascii_` are for `!s` and `!a`."""

    def str_(self, value: Any, /) -> str:
        """See `repr_`."""

    def ascii_(self, value: Any, /) -> str:
        """See `repr_`."""


class PythonHooks:
    """Hooks that do what Python does: nothing is staged, so those that stage are not there.

    Derive from it, and define what is to be different.
    """

    test = staticmethod(operator.truth)
    truth = staticmethod(operator.truth)
    not_ = staticmethod(operator.not_)
    is_ = staticmethod(operator.is_)
    is_not = staticmethod(operator.is_not)
    contains = staticmethod(operator.contains)
    load_attr = staticmethod(getattr)
    store_attr = staticmethod(setattr)
    delete_attr = staticmethod(delattr)
    load_item = open_item = staticmethod(operator.getitem)
    store_item = staticmethod(operator.setitem)
    delete_item = staticmethod(operator.delitem)
    load_global = load_local = staticmethod(_NOTHING.get)  # the value
    store_global = staticmethod(operator.setitem)
    joined = staticmethod("".join)
    mod = staticmethod(operator.mod)
    format_ = staticmethod(format)
    repr_ = staticmethod(repr)
    str_ = staticmethod(str)
    ascii_ = staticmethod(ascii)

    def staged(self, value: Any) -> bool:
        return False

    def stages(self, slot: list[Any], site: Site, /) -> bool:
        return False

    def iterate(self, iterable: Any) -> Any:
        return iterable

    def subject(self, value: Any) -> Any:
        return value

    def handed_out(self, value: Any) -> Any:
        return value

    def callee(self, function: Any) -> Any:
        return function

    def begin(self, runtime: Any) -> None:
        pass
