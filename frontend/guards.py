"""Guards: the Python state that a captured function can reach, and whether it is still the same.

`reach.py` walks from the function to everything it could read, and notes here what each container, attribute and
global held. A call may be answered by a compiled region only while all of that is so: the same objects, where numbers
and strings that were replaced by equal ones still count as the same. The same notes, looked at right after a capture,
show whether the captured call changed Python state, which a compiled call could not repeat.

Checking is one native call over a flat table (`runtime/facts.py`, docs/decisions/0016): a few ns an object. What that
can't look at (sets, order in ordered dicts, weak references, arrays; everything, where there is no native checking) is
looked at by passes of C functions over flat tuples. Only when one of these finds a difference are the facts looked at
one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from operator import attrgetter, call, is_
from types import CellType, FunctionType, GetSetDescriptorType, MappingProxyType, MemberDescriptorType
from typing import Any, Final

import numpy as np

from kiln.autograd import refresh
from kiln.base import HOOKED, READONLY, REQUIRES_GRAD, TensorBase
from kiln.composite import plain_classes
from kiln.places import CELL, CLASS, DICT, SEQUENCES, Kind, Moving, Slot, Spot, kind_of, slots
from kiln.places import MISSING as MISSING
from kiln.runtime import facts as native
from kiln.runtime import places

SCALARS: Final = (bool, int, float, complex, str, bytes, type(None), np.generic)
"""Values that are guarded by what they are, not by which object they are."""

ANY: Final = object()
"""Stands for a value that does not matter."""

_layout_of = attrgetter("_layout")
_flags_of = attrgetter("_flags")


class Fact:
    """What one place held: `read` gives its objects now, `path` names it to the user."""

    __slots__ = ("objects", "path", "read", "spot", "wild")

    def __init__(self, path: str, read: Callable[[], tuple[Any, ...]]) -> None:
        self.path = path
        self.read = read
        self.objects = read()
        self.wild = False
        """Whether some of it may be anything."""
        self.spot: Spot | None = None
        """The place, if it is one whose changes can be repeated."""

    def let(self, places: Sequence[int]) -> None:
        """These of the objects may be any."""
        if places:
            read = self.read

            def others() -> tuple[Any, ...]:
                found = list(read())
                for k in places:
                    found[k : k + 1] = [ANY] * len(found[k : k + 1])
                return tuple(found)

            self.read, self.objects, self.wild = others, others(), True

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


class _Passes:
    """Facts that C functions of Python's look at, each kind of place with its own pair of lists: where to look, and
    the fact that says what was there."""

    def __init__(self) -> None:
        self.iterables: list[Iterable[Any]] = []
        self.members: list[Fact] = []
        self.values: list[Callable[[], Iterable[Any]]] = []
        self.held: list[Fact] = []
        self.owners: list[Any] = []
        self.names: list[str] = []
        self.attributes: list[Fact] = []
        self.spaces: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.globals: list[Fact] = []
        self.slow: list[Fact] = []

    def flatten(self) -> None:
        """Note what the facts say now."""
        self._lengths = tuple(len(f.objects) for f in self.members)
        self._flat = tuple(map(_joined, (self.members, self.held, self.attributes, self.globals)))
        self.any = any((self.members, self.held, self.attributes, self.globals, self.slow))

    def hold(self) -> bool:
        """Whether everything is as it was."""
        members, held, attributes, bound = self._flat
        try:
            return (
                tuple(map(len, self.iterables)) == self._lengths  # type: ignore[arg-type]
                and all(map(is_, chain.from_iterable(self.iterables), members))
                and all(map(is_, chain.from_iterable(map(call, self.values)), held))
                and all(map(is_, map(getattr, self.owners, self.names, repeat(MISSING)), attributes))
                and all(map(is_, map(dict.get, self.spaces, self.keys, repeat(MISSING)), bound))
                and all(map(Fact.holds, self.slow))
            )
        except (ValueError, RuntimeError):  # an unbound cell; a container that another thread is changing
            return False


class _Space:
    """What is known of one dict: its keys, all values or some."""

    __slots__ = ("keys", "mapping", "some", "values")

    def __init__(self, mapping: dict[Any, Any]) -> None:
        self.mapping = mapping
        self.keys: Fact | None = None
        self.values: Fact | None = None
        self.some: dict[str, Fact] = {}

    def lay(self, table: native.Facts) -> None:
        """Put it into a table."""
        if self.keys is None:
            for key, fact in self.some.items():
                table.entry(self.mapping, key, fact.objects[0], MISSING)
            return
        keys = self.keys.objects
        if self.values is None:
            held: Sequence[Any] = [self.some[k].objects[0] if k in self.some else ANY for k in keys]
        else:
            held = self.values.objects
        table.entries(self.mapping, keys, held, ANY)


class Guards:
    """Facts about Python state. `reach.reach` fills them in; then `freeze` makes them quick to check."""

    def __init__(self, moving: Moving | None = None) -> None:
        self._moving = moving or Moving()
        self.moved: list[Slot] = []
        """Places whose tensors calls read there, since others are put there."""
        self.counted: list[Slot] = []
        """Places whose whole numbers code counts up or down, and does nothing else with (`counting.py`)."""
        self.facts: list[Fact] = []
        self.tensors: dict[int, TensorBase] = {}
        """Every tensor that was found, by id."""
        self.paths: dict[int, str] = {}
        """Where each was found first."""
        self._spaces: dict[int, _Space] = {}
        self._lists: list[tuple[list[Any], Fact]] = []
        self._rest: list[Callable[[native.Facts], None]] = []  # other rows of the table
        self._slots: dict[int, set[str]] = {}
        self._passes = _Passes()
        self._native = native.available()
        self.more: list[Guards] = []
        """Further facts that must hold, noted apart from these."""
        self.ignored = 0
        """Flags of tensors that may change."""
        self.spots: dict[int, Spot] = {}
        """The places that the facts are about, by the ids of the containers."""
        self._broken: Fact | None = None
        self._plain = False  # whether the table is all there is to look at

    # -------------------------------------------------------------------------------------- noting

    def _note(self, path: str, read: Callable[[], tuple[Any, ...]]) -> Fact:
        fact = Fact(path, read)
        self.facts.append(fact)
        return fact

    def _place(self, fact: Fact, container: Any, kind: Kind | None, name: str | None = None) -> None:
        """`fact` is about a container: all of it, or one name."""
        if kind is None:
            return
        spot = fact.spot = self.spots.setdefault(
            id(container), Spot(fact.path.removeprefix("the keys of "), kind, container)
        )
        if name is None:
            spot.names = None
        elif spot.names is not None:
            spot.names.add(name)

    def _let(
        self,
        path: str,
        container: Any,
        kind: Kind | None,
        keys: Iterable[Any],
        values: Sequence[Any],
        named: bool = False,
    ) -> list[int]:
        """The positions of what moves in a container; numbers do so only where they are `named`."""
        moving = self._moving.keys(container)
        if not moving or kind is None:
            return []
        places = []
        for n, (key, value) in enumerate(zip(keys, values, strict=True)):
            counted = named and type(value) is int
            if key in moving and (counted or may_move(value)):
                places.append(n)
                slots = self.counted if counted else self.moved
                if not any(slot.container is container and slot.key == key for slot in slots):
                    slots.append(Slot(path if kind is CELL else f"{path}[{key!r}]", kind, container, key))
        return places

    def _space(self, mapping: dict[Any, Any]) -> _Space:
        return self._spaces.setdefault(id(mapping), _Space(mapping))

    def _dict(self, mapping: Any) -> dict[Any, Any] | None:
        """The dict to look at for what a dict or a class holds, if the native table can."""
        if not self._native:
            return None
        if isinstance(mapping, MappingProxyType):
            return places.dict_of(mapping)
        plain = isinstance(mapping, dict) and type(mapping).__iter__ is dict.__iter__
        return mapping if plain else None

    def items(self, path: str, container: Any) -> tuple[Any, ...]:
        """What a list, tuple, set or deque holds; of a mapping, its keys."""
        if isinstance(container, dict) and type(container).__iter__ is not dict.__iter__:
            # a subclass, perhaps with an order of its own
            kind = OrderedDict if isinstance(container, OrderedDict) else dict
            fact = self._note(path, lambda: tuple(kind.__iter__(container)))
            self._passes.slow.append(fact)
            self._place(fact, container, kind_of(container))
            return fact.objects
        fact = self._note(path, lambda: tuple(container))
        place = kind_of(container)
        self._place(fact, container, place)
        if place in SEQUENCES:
            fact.let(self._let(path, container, place, range(len(fact.objects)), fact.objects))
        mapping = self._dict(container)
        if mapping is not None:
            self._space(mapping).keys = fact
        elif fact.wild:
            self._passes.slow.append(fact)
        elif type(container) is list and self._native:
            self._lists.append((container, fact))
        elif type(container) is set and not container and self._native:
            self._rest.append(lambda table: table.empty(container))
        elif type(container) not in (tuple, frozenset):  # those never change
            self._passes.iterables.append(container)
            self._passes.members.append(fact)
        return fact.objects

    def mapping(self, path: str, mapping: Any, owner: type | None = None) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Keys and values of a dict or of the attributes of a class, its `owner`."""
        keys = self.items(f"the keys of {path}", mapping)
        kind = OrderedDict if isinstance(mapping, OrderedDict) else dict
        values = (lambda: kind.values(mapping)) if isinstance(mapping, dict) else mapping.values
        if type(mapping) is dict:
            values = mapping.values
        fact = self._note(path, lambda: tuple(values()))
        if owner is None:
            place = kind_of(mapping)
            self._place(fact, mapping, place)
            if fact.spot is not None:
                fact.spot.named = False
            fact.let(self._let(path, mapping, place, keys, fact.objects))
        else:
            self._place(self.facts[-2], owner, CLASS)  # the keys
            self._place(fact, owner, CLASS)
        found = self._dict(mapping)
        if found is not None:
            self._space(found).values = fact
        elif fact.wild:
            self._passes.slow.append(fact)
        else:
            self._passes.values.append(values)
            self._passes.held.append(fact)
        return keys, fact.objects

    def attribute(self, path: str, owner: Any, name: str) -> Any:
        """An attribute; MISSING when it is not there."""

        def read() -> tuple[Any, ...]:
            try:
                return (getattr(owner, name, MISSING),)
            except ValueError:  # a closure cell that is not bound yet
                return (MISSING,)

        fact = self._note(path, read)
        if type(owner) is CellType:
            self._place(fact, owner, CELL)
            fact.let(self._let(path, owner, CELL, ("cell_contents",), fact.objects, named=True))
        elif isinstance(_home(type(owner), name), MemberDescriptorType):
            self._place_slot(fact, owner, name)
        row = _row(owner, name, fact) if self._native and not fact.wild else None
        if fact.wild:
            return ANY
        if row is not None:
            self._rest.append(row)
        else:
            self._passes.owners.append(owner)
            self._passes.names.append(name)
            self._passes.attributes.append(fact)
        return fact.objects[0]

    def _place_slot(self, fact: Fact, owner: Any, name: str) -> None:
        # An object may be a container, too; what it holds in slots is a place of its own.
        names = self._slots.setdefault(id(owner), set())
        names.add(name)
        fact.spot = self.spots.setdefault(~id(owner), Spot(fact.path, slots(names), owner))
        fact.spot.names = None
        fact.let(self._let(fact.path, owner, fact.spot.kind, (name,), fact.objects))

    def entry(self, path: str, space: dict[str, Any], name: str, whole: bool = False) -> Any:
        """One name of a module's name space, or of the attributes of an object (`whole`: others matter, too, if the
        call changes them); MISSING when it is not there."""
        fact = self._note(path, lambda: (space.get(name, MISSING),))
        self._place(fact, space, kind_of(space), None if whole else name)
        fact.let(self._let(path, space, DICT, (name,), fact.objects, named=True))
        if fact.wild:
            return ANY
        if self._native:
            self._space(space).some[name] = fact
        else:
            self._passes.spaces.append(space)
            self._passes.keys.append(name)
            self._passes.globals.append(fact)
        return fact.objects[0]

    def referent(self, path: str, read: Callable[[], Any]) -> Any:
        """What a call gives (a weak reference, state that was met during the capture)."""
        fact = self._note(path, lambda: (read(),))
        self._passes.slow.append(fact)
        self._plain = False
        return fact.objects[0]

    def array(self, path: str, x: np.ndarray[Any, Any]) -> None:
        """The contents of a NumPy array: compared on every call."""
        self._passes.slow.append(self._note(path, lambda: (f"{x.dtype.str}{x.shape}", x.tobytes())))

    def containers(self) -> list[Any]:
        """The lists and dicts that were found, without those that hold modules' names."""
        spaces = [space.mapping for space in self._spaces.values() if not space.some]
        found = [*(x for x, _ in self._lists), *spaces, *self._passes.iterables]
        return [*found, *(x for guards in self.more for x in guards.containers())]

    # ------------------------------------------------------------------------------------ checking

    def freeze(self) -> None:
        """Lay the facts out flat. Call when all are noted, and before the call that is captured."""
        self._tensor = tuple(self.tensors.values())
        for t in self._tensor:
            if t._view is not None:
                refresh(t)
        self._layouts = tuple(map(_layout_of, self._tensor))
        self._flags = tuple(map(_flags_of, self._tensor))
        self._views = tuple(t for t in self._tensor if t._view is not None)
        self._flatten()

    def _flatten(self) -> None:
        self._passes.flatten()
        table = native.Facts()
        if self._native:
            layout, flags = places.word_of(TensorBase, "_layout"), places.word_of(TensorBase, "_flags")
            for t, there in zip(self._tensor, self._layouts, strict=True):
                table.word(id(t) + layout, there)
                table.word(id(t) + flags, t._flags)
        for row in self._rest:
            row(table)
        for space in self._spaces.values():
            space.lay(table)
        for container, fact in self._lists:
            table.items(container, fact.objects)
        # What was noted stays alive with the table: else another object could take the address of one that is gone.
        noted = [fact.objects for fact in self.facts]
        self._unchanged: Callable[[], bool] = table.seal(noted) if self._native else _true
        self._plain = self._native and not (self._views or self._passes.any)

    def hold(self) -> bool:
        """Whether everything is as it was."""
        if self._unchanged() and (self._plain or self._others_hold()):
            return not self.more or all(map(Guards.hold, self.more))
        return self._look()

    def _others_hold(self) -> bool:
        """Whether that is as it was which the table does not look at."""
        for t in self._views:
            refresh(t)
        # A view may have taken part in its base's history just now, and there may be no table.
        return not self._tensors_changed() and self._passes.hold()

    def _look(self) -> bool:
        """Look at the facts one by one, and note equal values that took the place of others. What did not hold last
        time comes first."""
        if self._broken is not None and not self._broken.holds():
            return False
        for t in self._views:
            refresh(t)
        if self._tensors_changed():
            return False
        self._broken = next((fact for fact in self.facts if not fact.holds()), None)
        if self._broken is not None:
            return False
        self._flatten()
        return all(map(Guards.hold, self.more))

    def _tensors_changed(self) -> bool:
        flags = tuple(map(_flags_of, self._tensor))
        if flags != self._flags and any((a ^ b) & ~self.ignored for a, b in zip(flags, self._flags, strict=True)):
            return True
        return not all(map(is_, map(_layout_of, self._tensor), self._layouts))

    def broken(self) -> str:
        """What changed first, in words; empty when nothing did."""
        here = self.tensors_broken() or next((fact.path for fact in self.facts if not fact.holds()), "")
        return here or next(filter(None, (guards.broken() for guards in self.more)), "")

    def tensors_broken(self) -> str:
        """What changed first about the tensors, in words; empty when nothing did."""
        for t, layout, flags in zip(self._tensor, self._layouts, self._flags, strict=True):
            if t._layout is not layout:
                return f"the dtype or shape of a tensor (it was {layout.ttype})"
            if (t._flags ^ flags) & REQUIRES_GRAD:
                return f"requires_grad of a tensor ({layout.ttype})"
            if (t._flags ^ flags) & READONLY:
                return f"whether a tensor ({layout.ttype}) may be written"
        return ""

    def everything(self) -> list[Guards]:
        """These and all further ones."""
        return [self, *(each for guards in self.more for each in guards.everything())]


def may_move(x: Any) -> bool:
    """Whether a tensor is one that calls may find in place of another."""
    return x.__class__ in plain_classes() and not x._flags & HOOKED


def _true() -> bool:
    return True


def _joined(facts: Iterable[Fact]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(f.objects for f in facts))


def _home(kind: type, name: str) -> Any:
    """What a class or one of its bases keeps at a name."""
    return next((vars(c)[name] for c in kind.__mro__ if name in vars(c)), None)


def _row(owner: Any, name: str, fact: Fact) -> Callable[[native.Facts], None] | None:
    """What enters an attribute into a native table; None for one that only Python can look up."""
    kind = type(owner)
    if kind is FunctionType and name in ("__code__", "__defaults__", "__kwdefaults__"):
        return lambda table: table.code(owner, name, fact.objects[0])
    if kind is CellType and name == "cell_contents":
        return lambda table: table.cell(owner, fact.objects[0], MISSING)
    home = _home(kind, name)
    if name == "__class__" and home is vars(object)["__class__"] and fact.objects[0] is kind:
        return lambda table: table.kind(owner, fact.objects[0])
    lookup: Any = kind.__getattribute__
    if lookup is not object.__getattribute__ and lookup is not type.__getattribute__:
        return None
    if name == "__dict__" and isinstance(home, GetSetDescriptorType) and isinstance(fact.objects[0], dict):
        return lambda table: table.space(owner, fact.objects[0])
    if name == "__mro__" and home is vars(type)["__mro__"]:
        return lambda table: table.bases(owner, fact.objects[0])
    if isinstance(home, MemberDescriptorType) and not hasattr(kind, "__getattr__"):
        return lambda table: table.attribute(owner, name, fact.objects[0], MISSING)
    return None
