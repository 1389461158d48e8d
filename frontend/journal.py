"""The journal of a compiled call: what it does to Python besides computing, once its program has run.

A captured call may change Python state: `self.steps += 1`, `cache[n] = table`, `history.append(loss)`. What it left is
compared with what was there before (`places.py`), and the difference becomes a list of *effects*, each of which knows
where to write and a *recipe* of what: the same object as in the capture, a tensor that the program made, an argument,
or a new container of such. A warm call commits them in order, when nothing can fail any more. A call that raises
commits nothing: it is run eagerly, which does what comes before the error.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from kiln.base import TensorBase
from kiln.constants import Size
from kiln.errors import CaptureError
from kiln.guards import MISSING, Guards, may_move, same
from kiln.ir.types import Device, DType
from kiln.places import CLASS, RECORD, SEQUENCES, SET, Kind, Spot, kind_of
from kiln.pytree import is_named_tuple, is_record
from kiln.reach import is_library, is_plain
from kiln.texts import Template


class Instead(NamedTuple):
    """What a leaf is instead where the result `flag` holds `when`."""

    flag: int
    when: bool
    leaf: tuple[int, Any]


def leaf_of(made: Sequence[Any], k: int, x: Any) -> Any:
    """A leaf of what a call leaves, of the results that its program `made`: see `Region._leaf`."""
    if k < 0:
        return x
    if x is None:
        return made[k]
    if isinstance(x, Instead):
        return leaf_of(made, *x.leaf) if made[x.flag]._array().item() is x.when else made[k]
    if isinstance(x, Template):
        return x.make(made)
    return x(made[k]._array().item())


@dataclass(slots=True)
class Scene:
    """A warm call after its program ran: the results, and the lists, dicts and records among its arguments."""

    made: Sequence[Any]
    containers: Sequence[Any]
    built: dict[int, Any] = field(default_factory=dict)
    """What recipes have made so far, by their numbers."""


class Effect(Protocol):
    """Something that a warm call does after its program. Must not raise, but for what eager would raise, too."""

    def commit(self, scene: Scene) -> None:
        """Do it."""


class Recipe(Protocol):
    """How a warm call comes to an object."""

    def build(self, scene: Scene) -> Any:
        """The object."""


@dataclass(frozen=True, slots=True)
class Known:
    """The object of the capture itself."""

    x: Any

    def build(self, scene: Scene) -> Any:
        return self.x


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor or a number that the program made, or a tensor that it was given."""

    k: int
    x: Any

    def build(self, scene: Scene) -> Any:
        return leaf_of(scene.made, self.k, self.x)


@dataclass(frozen=True, slots=True)
class Counted:
    """The number that is at a place, and so much more."""

    kind: Kind
    container: Any
    key: Any
    amount: int

    def build(self, scene: Scene) -> Any:
        return self.kind.get(self.container, self.key) + self.amount


@dataclass(frozen=True, slots=True)
class Given:
    """A list, dict or record among the arguments."""

    n: int

    def build(self, scene: Scene) -> Any:
        return scene.containers[self.n]


@dataclass(slots=True)
class New:
    """A list, dict, tuple or plain instance that each call makes anew: once, however many names it has."""

    kind: type
    keys: tuple[Any, ...] = ()
    parts: tuple[Recipe, ...] = ()

    def build(self, scene: Scene) -> Any:
        found = scene.built.get(id(self), MISSING)
        if found is not MISSING:
            return found
        if issubclass(self.kind, tuple):
            made: Any = tuple.__new__(self.kind, [part.build(scene) for part in self.parts])
            scene.built[id(self)] = made
        elif self.kind is list:
            made = scene.built[id(self)] = []
            made.extend([part.build(scene) for part in self.parts])
        else:
            made = scene.built[id(self)] = {} if self.kind is dict else object.__new__(self.kind)
            entries = made if self.kind is dict else vars(made)
            for key, part in zip(self.keys, self.parts, strict=True):
                entries[key] = part.build(scene)
        return made


@dataclass(frozen=True, slots=True)
class Puts:
    """Entries of one dict, of the attributes of a class, of a cell: those that go, and then those that come or change,
    in order; None is what the call found there."""

    kind: Kind
    target: Recipe
    dropped: tuple[Any, ...]
    puts: tuple[tuple[Any, Recipe | None], ...]

    def commit(self, scene: Scene) -> None:
        target = self.target.build(scene)
        before = self.kind.held(target) if any(recipe is None for _, recipe in self.puts) else {}
        fresh = [(key, before[key] if recipe is None else recipe.build(scene)) for key, recipe in self.puts]
        for key in self.dropped:
            self.kind.drop(target, key)
        for key, x in fresh:
            self.kind.put(target, key, x)


@dataclass(frozen=True, slots=True)
class Fills:
    """Items of one list or deque, from a position on."""

    kind: Kind
    target: Recipe
    start: int
    items: tuple[Recipe, ...]

    def commit(self, scene: Scene) -> None:
        self.kind.put(self.target.build(scene), self.start, [item.build(scene) for item in self.items])


# ------------------------------------------------------------------------------------- after a capture


class StateChanged(CaptureError):
    """The call changed Python state in a way that is not repeated; the next one may not (what is made once is there
    then)."""


def unrepeatable(path: str, why: str = "") -> StateChanged:
    return StateChanged(
        f"the call changed Python state: {path}{f' ({why})' if why else ''}; a compiled call could not repeat that",
        fix="keep what changes in tensors (and change them in place), or move it out of the function",
    )


class Draft:
    """Writes recipes. `leaf`: describes tensors and numbers (`Region._leaf`), `owned`: ids of objects that outlive the
    call, `given`: the containers among the arguments, by their ids. `leaves`: the tensors and numbers met so far."""

    def __init__(self, leaf: Callable[[Any], tuple[int, Any]], owned: Container[int], given: dict[int, int]) -> None:
        self._leaf = leaf
        self._owned = owned
        self._given = given
        self._new: dict[int, tuple[Any, New]] = {}
        self._open: set[int] = set()  # tuples whose items are being described
        self.leaves: list[Any] = []

    def of(self, x: Any, path: str) -> Recipe:
        """How to come to `x` again. StateChanged, about the place `path`, if there is no way."""
        if isinstance(x, TensorBase) or hasattr(type(x), "__kiln_number__") or hasattr(type(x), "__kiln_text__"):
            self.leaves.append(x)
            return Leaf(*self._leaf(x))
        if id(x) in self._given:
            return Given(self._given[id(x)])
        if id(x) in self._owned or _is_value(x):
            return Known(x)
        if isinstance(x, type) and is_library(x.__module__):
            return Known(x)
        if id(x) in self._open:
            raise unrepeatable(path, "a tuple that holds itself")
        if id(x) not in self._new:
            self._anew(x, path)
        return self._new[id(x)][1]

    def _anew(self, x: Any, path: str) -> None:
        kind = type(x)
        made = New(kind)
        self._new[id(x)] = x, made
        if kind is tuple or is_named_tuple(x):
            self._open.add(id(x))
            made.parts = tuple([self.of(v, path) for v in x])
            self._open.discard(id(x))
        elif kind is list:
            made.parts = tuple([self.of(v, path) for v in x])
        elif kind is dict or self._is_plain(kind):
            entries = x if kind is dict else vars(x)
            made.keys = tuple([self.key(k, path) for k in entries])
            made.parts = tuple([self.of(v, path) for v in entries.values()])
        else:
            raise unrepeatable(path, f"to a new {kind.__module__}.{kind.__qualname__}")

    def _is_plain(self, kind: type) -> bool:
        """Whether instances are nothing but their attributes, and the class is there at the next call, too."""
        if id(kind) not in self._owned or not is_plain(kind) or hasattr(kind, "__del__"):
            return False
        return kind.__basicsize__ == _Plain.__basicsize__ and not kind.__itemsize__

    def key(self, key: Any, path: str) -> Any:
        """A key of a dict, which must be the same at each call."""
        if not is_constant(key) and not (id(key) in self._owned and type(key).__hash__ in _BY_IDENTITY):
            raise unrepeatable(path, f"a {type(key).__qualname__} as a key")
        return key

    def returned(self, x: Any) -> Recipe | None:
        """How to come to what a call returns, where a container in it has another name, too; else None."""
        met: set[int] = set()
        todo = [x]
        while todo:
            each = todo.pop()
            kind = type(each)
            if id(each) in self._new:
                return self.of(x, "")
            if kind in (list, dict, tuple) or is_named_tuple(each) or is_record(each):
                if each != () and (id(each) in met or id(each) in self._given or id(each) in self._owned):
                    return self.of(x, "")
                met.add(id(each))
                todo += each if isinstance(each, (list, tuple)) else (each if kind is dict else vars(each)).values()
        return None


class _Plain:
    """What the size of plain instances is seen by."""


_BY_IDENTITY: Final = (object.__hash__, TensorBase.__hash__)
_VALUES: Final = frozenset({bool, int, float, complex, str, bytes, type(None), type(...), Size, range, DType, Device})


def _is_value(x: Any) -> bool:
    """Whether an object is nothing but what it says, so that nobody cares which one it is."""
    return type(x) in _VALUES or isinstance(x, (enum.Enum, np.dtype)) or type(x) in _NUMPY


_NUMPY: Final = frozenset(np.sctypeDict.values()) - {np.void, np.object_}


def is_constant(x: Any) -> bool:
    """Whether that is so of an object, or of all that a tuple holds."""
    return all(map(is_constant, x)) if type(x) is tuple else _is_value(x)


class Journal:
    """The places that a call may change, as they are before it. `containers`: those among its arguments."""

    def __init__(self, guards: Guards, containers: Sequence[Any]) -> None:
        self._guards = guards
        self._counted = {(id(slot.container), slot.key) for slot in guards.counted}
        self._spots = [spot for each in guards.everything() for spot in each.spots.values()]
        self._targets: list[Recipe] = [Known(spot.container) for spot in self._spots]
        self.given = {id(x): n for n, x in enumerate(containers)}
        for n in self.given.values():
            container = containers[n]
            kind = kind_of(container) or RECORD
            spot = Spot("an argument", kind, container)
            spot.names = None
            self._spots.append(spot)
            self._targets.append(Given(n))
        for spot in self._spots:
            spot.before = spot.held()
        self.changed: list[tuple[Spot, Recipe]] = []

    def places(self) -> Sequence[Spot]:
        """The places, with what they held before the call."""
        return self._spots

    def entangled(self, owned: Container[int]) -> bool:
        """Whether a container among the arguments is one that the function reaches by itself, too."""
        return any(key in owned for key in self.given)

    def look(self) -> None:
        """See what the call has changed. StateChanged if it is something that can't be written."""
        broken = self._guards.tensors_broken()
        if broken:
            raise unrepeatable(broken)
        self.changed = [
            (spot, target)
            for spot, target in zip(self._spots, self._targets, strict=True)
            if not _alike(spot.before, spot.held())
        ]
        explained = {id(spot) for spot, _ in self.changed}
        for guards in self._guards.everything():
            for fact in guards.facts:
                if not fact.holds() and id(fact.spot) not in explained:
                    raise unrepeatable(fact.path)

    def moved(self) -> Iterator[tuple[Any, Any]]:
        """Containers and keys where the call has put one tensor in place of another."""
        for spot, target in self.changed:
            if isinstance(target, Given) or spot.kind is SET or spot.kind is CLASS:
                continue
            before, now = spot.before, spot.held()
            if spot.kind in SEQUENCES:
                before, now = dict(enumerate(before)), dict(enumerate(now))
            for key, x in before.items():
                y = now.get(key)
                if x is not y and may_move(x) and may_move(y) and is_constant(key):
                    yield spot.container, key

    def effects(self, draft: Draft) -> list[Effect]:
        """What a warm call has to do."""
        return [self._effect(spot, target, draft) for spot, target in self.changed]

    def counted(self) -> Iterator[tuple[Spot, Any]]:
        """Places (and keys) of named numbers that the call has made larger or smaller."""
        for spot, target in self.changed:
            if spot.named and not isinstance(target, Given):
                now = spot.held()
                for key, x in spot.before.items():
                    y = now.get(key)
                    if type(x) is type(y) is int and x != y:
                        yield spot, key

    def _effect(self, spot: Spot, target: Recipe, draft: Draft) -> Effect:
        before, now, path = spot.before, spot.held(), spot.path
        if spot.kind in SEQUENCES:
            start = next((k for k, (a, b) in enumerate(zip(before, now, strict=False)) if not same(a, b)), len(now))
            start = min(start, len(before))
            return Fills(spot.kind, target, start, tuple([draft.of(x, path) for x in now[start:]]))
        if type(now) is set:
            added = now - before
            if before - now or len(added) != 1:
                raise unrepeatable(path, "a set")
            return Puts(spot.kind, target, (), tuple([(draft.key(x, path), Known(x)) for x in added]))
        kept, fresh = _split(before, now)
        puts: list[tuple[Any, Recipe | None]] = []
        for k in kept:
            if not same(before[k], now[k]):
                puts.append((draft.key(k, path), self._value(spot, k, now[k], draft)))
        for k in fresh:
            same_value = k in before and same(before[k], now[k])
            puts.append((draft.key(k, path), None if same_value else self._value(spot, k, now[k], draft)))
        staying = set(kept)
        return Puts(spot.kind, target, tuple([draft.key(k, path) for k in before if k not in staying]), tuple(puts))

    def _value(self, spot: Spot, key: Any, now: Any, draft: Draft) -> Recipe:
        if (id(spot.container), key) in self._counted and type(now) is int:
            return Counted(spot.kind, spot.container, key, now - spot.before[key])
        return draft.of(now, spot.path)


def _alike(before: Any, now: Any) -> bool:
    """Whether a place holds the same, in the same order."""
    if type(before) is set:
        return bool(before == now)
    if len(before) != len(now) or not all(map(same, before, now)):
        return False
    return not isinstance(before, dict) or all(map(same, before.values(), now.values()))


def _split(before: dict[Any, Any], now: dict[Any, Any]) -> tuple[list[Any], list[Any]]:
    """The keys that stayed where they were, and those that were entered (again) after them."""
    positions = {k: n for n, k in enumerate(before)}
    keys, last = list(now), -1
    for n, k in enumerate(keys):
        if positions.get(k, -1) <= last:
            return keys[:n], keys[n:]
        last = positions[k]
    return keys, []
