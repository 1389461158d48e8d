"""Guards: the Python state that a captured function can reach, and whether it is still the same.

`reach.py` walks from the function to everything it could read, and notes here what each container, attribute and
global held. A call may be answered by a compiled region only while all of that is so: the same objects, where numbers
and strings that were replaced by equal ones still count as the same. The same notes, looked at right after a capture,
show whether the captured call changed Python state, which a compiled call could not repeat.

Checking is a few passes of C functions over flat tuples, some 20 ns an object; only when one fails are the
facts looked at one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from operator import attrgetter, call, is_
from typing import Any, Final

import numpy as np

from kiln.autograd import refresh
from kiln.base import READONLY, REQUIRES_GRAD, TensorBase

SCALARS: Final = (bool, int, float, complex, str, bytes, type(None), np.generic)
"""Values that are guarded by what they are, not by which object they are."""

MISSING: Final = object()
"""Stands for an attribute or a global that is not there."""

_layout_of = attrgetter("_layout")
_flags_of = attrgetter("_flags")


class Fact:
    """What one place held: `read` gives its objects now, `path` names it to the user."""

    __slots__ = ("objects", "path", "read")

    def __init__(self, path: str, read: Callable[[], tuple[Any, ...]]) -> None:
        self.path = path
        self.read = read
        self.objects = read()

    def holds(self) -> bool:
        """Whether the same objects are there, or equal numbers and strings (which are then noted instead)."""
        now = self.read()
        if len(now) != len(self.objects) or not all(map(same, self.objects, now)):
            return False
        self.objects = now
        return True


def same(a: Any, b: Any) -> bool:
    """The same object, or equal scalars of one type; 0.0 is not -0.0, and NaN is NaN."""
    return a is b or (type(a) is type(b) and isinstance(a, SCALARS) and repr(a) == repr(b))


class Guards:
    """Facts about Python state. `reach.reach` fills them in; then `freeze` makes them quick to check.

    Each kind of place has its own pair of lists: where to look, and the fact that says what was there.
    """

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.tensors: dict[int, TensorBase] = {}
        """Every tensor that was found, by id."""
        self.paths: dict[int, str] = {}
        """Where each was found first."""
        self._iterables: list[Iterable[Any]] = []
        self._members: list[Fact] = []
        self._values: list[Callable[[], Iterable[Any]]] = []
        self._held: list[Fact] = []
        self._owners: list[tuple[Any, str]] = []
        self._attributes: list[Fact] = []
        self._spaces: list[tuple[dict[str, Any], str]] = []
        self._globals: list[Fact] = []
        self._slow: list[Fact] = []
        self.more: list[Guards] = []
        """Further facts that must hold, noted apart from these."""
        self.ignored = 0
        """Flags of tensors that may change."""

    # -------------------------------------------------------------------------------------- noting

    def _note(self, kind: list[Fact], path: str, read: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        fact = Fact(path, read)
        self.facts.append(fact)
        kind.append(fact)
        return fact.objects

    def items(self, path: str, container: Any) -> tuple[Any, ...]:
        """What a list, tuple, set or deque holds; of a mapping, its keys."""
        iterate = type(container).__iter__ if isinstance(container, dict) else None
        if iterate is not None and iterate is not dict.__iter__:  # a subclass, perhaps with an order of its own
            kind = OrderedDict if isinstance(container, OrderedDict) else dict
            return self._note(self._slow, path, lambda: tuple(kind.__iter__(container)))
        self._iterables.append(container)
        return self._note(self._members, path, lambda: tuple(container))

    def mapping(self, path: str, mapping: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Keys and values of a dict or of the attributes of a class."""
        keys = self.items(f"the keys of {path}", mapping)
        kind = OrderedDict if isinstance(mapping, OrderedDict) else dict
        values = (lambda: kind.values(mapping)) if isinstance(mapping, dict) else mapping.values
        if type(mapping) is dict:
            values = mapping.values
        self._values.append(values)
        return keys, self._note(self._held, path, lambda: tuple(values()))

    def attribute(self, path: str, owner: Any, name: str) -> Any:
        """An attribute; MISSING when it is not there."""

        def read() -> tuple[Any, ...]:
            try:
                return (getattr(owner, name, MISSING),)
            except ValueError:  # a closure cell that is not bound yet
                return (MISSING,)

        self._owners.append((owner, name))
        return self._note(self._attributes, path, read)[0]

    def entry(self, path: str, space: dict[str, Any], name: str) -> Any:
        """One name of a module's name space; MISSING when it is not there."""
        self._spaces.append((space, name))
        return self._note(self._globals, path, lambda: (space.get(name, MISSING),))[0]

    def referent(self, path: str, read: Callable[[], Any]) -> Any:
        """What a call gives (a weak reference, state that was met during the capture)."""
        return self._note(self._slow, path, lambda: (read(),))[0]

    def array(self, path: str, x: np.ndarray[Any, Any]) -> None:
        """The contents of a NumPy array: compared on every call."""
        self._note(self._slow, path, lambda: (f"{x.dtype.str}{x.shape}", x.tobytes()))

    # ------------------------------------------------------------------------------------ checking

    def freeze(self) -> None:
        """Lay the facts out flat. Call when all are noted, and before the call that is captured."""
        self._owner, self._name = _unzip(self._owners)
        self._space, self._key = _unzip(self._spaces)
        self._tensor = tuple(self.tensors.values())
        for t in self._tensor:
            if t._view is not None:
                refresh(t)
        self._layouts = tuple(map(_layout_of, self._tensor))
        self._flags = tuple(map(_flags_of, self._tensor))
        self._views = tuple(t for t in self._tensor if t._view is not None)
        self._flatten()

    def _flatten(self) -> None:
        self._lengths = tuple(len(f.objects) for f in self._members)
        self._flat = (
            _joined(self._members),
            _joined(self._held),
            _joined(self._attributes),
            _joined(self._globals),
        )

    def hold(self) -> bool:
        """Whether everything is as it was."""
        if self._tensors_changed():
            return False
        members, held, attributes, bound = self._flat
        try:
            if (
                tuple(map(len, self._iterables)) == self._lengths  # type: ignore[arg-type]
                and all(map(is_, chain.from_iterable(self._iterables), members))
                and all(map(is_, chain.from_iterable(map(call, self._values)), held))
                and all(map(is_, map(getattr, self._owner, self._name, repeat(MISSING)), attributes))
                and all(map(is_, map(dict.get, self._space, self._key, repeat(MISSING)), bound))
                and all(map(Fact.holds, self._slow))
            ):
                return all(map(Guards.hold, self.more))
        except (ValueError, RuntimeError):  # an unbound cell; a container that another thread is changing
            pass
        if not all(map(Fact.holds, self.facts)):
            return False
        self._flatten()
        return all(map(Guards.hold, self.more))

    def _tensors_changed(self) -> bool:
        for t in self._views:
            refresh(t)
        flags = tuple(map(_flags_of, self._tensor))
        if flags != self._flags and any((a ^ b) & ~self.ignored for a, b in zip(flags, self._flags, strict=True)):
            return True
        return not all(map(is_, map(_layout_of, self._tensor), self._layouts))

    def broken(self) -> str:
        """What changed first, in words; empty when nothing did."""
        for t, layout, flags in zip(self._tensor, self._layouts, self._flags, strict=True):
            if t._layout is not layout:
                return f"the dtype or shape of a tensor (it was {layout.ttype})"
            if (t._flags ^ flags) & REQUIRES_GRAD:
                return f"requires_grad of a tensor ({layout.ttype})"
            if (t._flags ^ flags) & READONLY:
                return f"whether a tensor ({layout.ttype}) may be written"
        here = next((fact.path for fact in self.facts if not fact.holds()), "")
        return here or next(filter(None, (guards.broken() for guards in self.more)), "")


def _unzip(pairs: Sequence[tuple[Any, str]]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)


def _joined(facts: Iterable[Fact]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(f.objects for f in facts))
