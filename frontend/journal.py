"""The journal of a compiled call: what it does to Python besides computing, once its program has run.

A captured call may change Python state: `self.steps += 1`, `cache[n] = table`, `history.append(loss)`. What it left is
compared with what was there before (`places.py`), and the difference becomes a list of *effects*, each of which knows
where to write and a *recipe* of what: the same object as in the capture, a tensor that the program made, an argument,
or a new container of such. A warm call commits them in order, when nothing can fail any more. A call that raises
commits nothing: it is run eagerly, which does what comes before the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

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
class Given:
    """A list, dict or record among the arguments."""

    n: int

    def build(self, scene: Scene) -> Any:
        return scene.containers[self.n]


@dataclass(slots=True)
class New:
    """A container that each call makes anew, once, however many names it has."""

    number: int
    kind: type
    keys: tuple[Any, ...]
    parts: list[Recipe]

    def build(self, scene: Scene) -> Any:
        if self.number in scene.built:
            return scene.built[self.number]
        if issubclass(self.kind, tuple):
            parts = [part.build(scene) for part in self.parts]
            made: Any = tuple.__new__(self.kind, parts)
            scene.built[self.number] = made
            return made
        made = scene.built[self.number] = self.kind.__new__(self.kind)
        if self.kind is list:
            made.extend([part.build(scene) for part in self.parts])
        else:
            target = made if self.kind is dict else vars(made)
            for key, part in zip(self.keys, self.parts, strict=True):
                target[key] = part.build(scene)
        return made


@dataclass(frozen=True, slots=True)
class Kind:
    """How places of one kind are read and written, past whatever their classes make of that."""

    held: Callable[[Any], Any]
    """What is there: a dict or a list of it."""
    put: Callable[[Any, Any, Any], None]
    drop: Callable[[Any, Any], None]
    """Set and delete one entry. Of sequences: put these items in place of those from a position on."""


@dataclass(frozen=True, slots=True)
class Puts:
    """Entries of one dict, of the attributes of a class, of a cell: those that go, and then those that come or change,
    in order."""

    kind: Kind
    target: Recipe
    dropped: tuple[Any, ...]
    puts: tuple[tuple[Any, Recipe], ...]

    def commit(self, scene: Scene) -> None:
        target = self.target.build(scene)
        fresh = [(key, recipe.build(scene)) for key, recipe in self.puts]
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
