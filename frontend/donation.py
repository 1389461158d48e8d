"""Donated arguments of compiled functions: tensors that a caller gives up, so that results may take over their memory.

A call is given stand-ins: tensors on the memory of the donated ones, which are spent from then on. To be spent is to be
of class `Spent`, all of whose attributes raise, so that no use of such a tensor goes unnoticed. If the call raises,
its donated tensors are as before, but for those whose memory was written.
"""

from __future__ import annotations

import gc
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np

from kiln.base import LAYERED, MODES, READONLY, REQUIRES_GRAD, SPENT, TensorBase, on_memory
from kiln.dims import pass_marks_on
from kiln.errors import ArgumentError, SpentError
from kiln.location import user_line
from kiln.pytree import LEAF, Tree, flatten, unflatten
from kiln.tensor import Tensor

Donate: TypeAlias = "str | int | Sequence[str | int]"
Run: TypeAlias = Callable[[tuple[int, ...], tuple[Any, ...], dict[str, Any]], Any]

_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None), np.generic)
"""What may be in a donated container besides tensors."""


class Donation:
    """What is known of a tensor that was given up: leaf `index` of argument `name`, whose structure is `tree`, of
    `call`."""

    __slots__ = ("call", "index", "name", "tree")

    def __init__(self, call: _Call, name: str, tree: Tree, index: int) -> None:
        self.call = call
        self.name = name
        self.tree = tree
        self.index = index

    @property
    def path(self) -> str:
        """Which tensor: the argument, and the way to it in containers."""
        return self.name + list(_paths(self.tree))[self.index]

    def complain(self) -> NoReturn:
        """The tensor was used."""
        if self.call.running:
            raise ArgumentError(
                f"{self.path} is donated to {self.call.function}, and used in another way while that call runs",
                fix="let the function reach it through that argument alone, or pass a copy (clone())",
            )
        raise SpentError(
            f"{self.path} was donated to {self.call.function}{self.call.where}: its memory may hold a result now",
            fix="use what the call returned, or donate a copy (clone())",
        )


def _paths(tree: Tree) -> Iterator[str]:
    if tree.kind is None:
        yield ""
        return
    named = tuple(getattr(tree.kind, "_fields", ()))
    for k, child in enumerate(tree.children):
        if tree.kind is dict:
            step = f"[{tree.keys[k]!r}]"
        elif tree.keys or named:
            step = f".{(tree.keys or named)[k]}"
        else:
            step = f"[{k}]"
        for rest in _paths(child):
            yield step + rest


class Spent(Tensor):
    """A tensor that was donated: every use of it raises SpentError."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # which Python itself asks for
            return Spent
        _donation(self).complain()

    def __setattr__(self, name: str, value: Any) -> None:
        _donation(self).complain()

    def __delattr__(self, name: str) -> None:
        _donation(self).complain()

    def __repr__(self, **_: Any) -> str:
        _donation(self).complain()

    def __str__(self) -> str:
        _donation(self).complain()

    def __format__(self, spec: str) -> str:
        _donation(self).complain()


def _donation(t: TensorBase) -> Donation:
    found: Donation = object.__getattribute__(t, "_hooks")  # the slot is free: no gradient comes to it
    return found


_lock = threading.Lock()
"""Of two calls that are given the same tensor one gets it."""


def _holders(x: Any) -> int:
    return sys.getrefcount(x._buffer)


class _Holder:
    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = object()


_ALONE: Final = _holders(_Holder())
"""What `_holders` says of memory that one object has."""


def _is_shared(t: Any) -> bool:
    """Whether anything but `t` has its memory. What it is a view of does not count if nothing else has that."""
    if t._view is None:
        return _holders(t) > _ALONE
    known = sys.getrefcount(t._view) > _ALONE or sys.getrefcount(t._view._base) > _ALONE
    return known or t._view._base._view is not None or _holders(t) > _ALONE + (t._view._base._buffer is t._buffer)


def _is_foreign(holder: Any, slot: str) -> bool:
    """Whether the memory behind an attribute is somebody else's, and not of an array that nothing else has."""
    if sys.getrefcount(getattr(holder, slot)) > _ALONE or type(getattr(holder, slot)) is not np.ndarray:
        return True
    array = getattr(holder, slot)
    return not array.flags.owndata and _is_foreign(array, "base")


class _Call:
    """A call, and its donated tensors: each with its stand-in; and copies of the containers that held them."""

    __slots__ = ("_containers", "_donations", "_line", "_originals", "_stand_ins", "function", "running")

    def __init__(self, function: str) -> None:
        self.function = function
        self.running = True
        self._line = user_line()
        self._donations: dict[int, Donation] = {}  # by the ids of the tensors
        self._originals: list[Any] = []
        self._stand_ins: list[Any] = []
        self._containers: list[tuple[Any, Any, Any]] = []
        """(the caller's, what the call is given in its place, what was in that)"""

    @property
    def where(self) -> str:
        """The line of the call, for messages."""
        return "" if self._line is None else f" at {self._line[0].co_filename}:{self._line[1]}"

    @property
    def ids(self) -> frozenset[int]:
        """Of the stand-ins."""
        return frozenset([id(t) for t in self._stand_ins])

    def swap(self, argument: Any, name: str) -> Any:
        """What the call is given for an argument. Nothing is changed if it raises."""
        if isinstance(argument, TensorBase):
            return self._stand_in(argument, Donation(self, name, LEAF, 0))
        before: list[Any] = []
        leaves, tree = flatten(argument, before)
        given: list[Any] = []
        for index, x in enumerate(leaves):
            if isinstance(x, TensorBase):
                given.append(self._stand_in(x, Donation(self, name, tree, index)))
                continue
            if not isinstance(x, _PLAIN):
                _refuse(Donation(self, name, tree, index), f"is a {type(x).__name__}", _NO_OBJECTS)
            given.append(x)
        if tree.kind is None:
            return argument
        made = unflatten(tree, iter(given))
        after: list[Any] = []
        flatten(made, after)
        self._containers += [(a, b, _contents(b)) for a, b in zip(before, after, strict=True)]
        return made

    def _stand_in(self, t: Any, donation: Donation) -> Any:
        first = self._donations.get(id(t))
        if first is not None:
            _refuse(donation, f"is the same tensor as {first.path}", "pass it once, or a copy (clone())")
        _check(t, donation)
        stand_in = on_memory(Tensor, t._buffer, t._ptr, t._layout, t._flags)
        pass_marks_on(t, stand_in)
        self._donations[id(t)] = donation
        self._originals.append(t)
        self._stand_ins.append(stand_in)
        return stand_in

    def begin(self) -> None:
        """The donated tensors are spent."""
        for t, donation in zip(self._originals, self._donations.values(), strict=True):
            t._hooks = donation
            t._buffer = t._view = None
            t.__class__ = Spent

    def end(self) -> None:
        """The call is over: what it did to containers is done to the caller's."""
        self.running = False
        if not self._containers:
            return
        back = {id(s): t for s, t in zip(self._stand_ins, self._originals, strict=True)}
        back.update((id(copy), own) for own, copy, _ in self._containers)
        for own, copy, put in self._containers:
            now = _contents(copy)
            if len(now) == len(put) and all(a is b for a, b in zip(now, put, strict=True)):
                continue
            if isinstance(own, list):
                own[:] = [back.get(id(x), x) for x in copy]
            else:
                mine, its = (own, copy) if isinstance(own, dict) else (vars(own), vars(copy))
                changed = {k: back.get(id(x), x) for k, x in its.items()}
                mine.clear()
                mine.update(changed)

    def forget(self) -> None:
        """What is kept for messages alone remains."""
        self._stand_ins, self._originals, self._containers, self._donations = [], [], [], {}

    def undo(self) -> None:
        """The call has raised."""
        for t, stand_in in zip(self._originals, self._stand_ins, strict=True):
            if stand_in._flags & SPENT == 0:
                object.__setattr__(t, "__class__", Tensor)
                del t._hooks
                t._buffer = stand_in._buffer


_NO_OBJECTS: Final = "donate tensors, or lists, tuples, dicts and data classes of tensors"


def _contents(x: Any) -> list[Any]:
    """What is in a container, to be compared by identity."""
    if isinstance(x, list):
        return list(x)
    fields = x if isinstance(x, dict) else vars(x)
    return [*fields, *fields.values()]


def _refuse(donation: Donation, what: str, fix: str) -> NoReturn:
    raise ArgumentError(f"{donation.path} {what}, and is donated to {donation.call.function}", op="compile", fix=fix)


def _check(t: Any, donation: Donation) -> None:
    """ArgumentError for a tensor that can't be given up."""
    if type(t) is Spent:
        _donation(t).complain()
    if type(t) is not Tensor:
        _refuse(donation, f"is a {type(t).__name__}", "donate plain tensors, as detach() gives them")
    if t._flags & (REQUIRES_GRAD | LAYERED) or t._node is not None:
        _refuse(donation, "requires gradients", "donate what detach() gives, once nothing else has the memory")
    if t._flags & READONLY:
        _refuse(donation, "lies in memory that is read-only", "donate a copy (clone())")
    if t._buffer.owner is not None and _is_foreign(t._buffer, "owner"):
        _refuse(donation, "lies in memory of somebody else (NumPy's, a file's)", "donate a copy (clone())")
    if _is_shared(t):
        gc.collect()  # what is left of earlier calls may be in reference cycles
        if _is_shared(t):
            _refuse(
                donation,
                "shares its memory with another tensor, an array, or a gradient that is still to be computed",
                "donate a copy (clone()), or let go of the other one",
            )


class Donations:
    """Which arguments of a function are donated. ArgumentError for what is no argument of it."""

    def __init__(self, function: Any, donate: Donate) -> None:
        target = getattr(function, "forward", function) if hasattr(type(function), "named_parameters") else function
        parameters = list(inspect.signature(target).parameters.values())
        names = [p.name for p in parameters]
        self._positions: dict[int, str] = {}
        self._names: set[str] = set()
        self._rest: tuple[int, str] | None = None
        self._extra = False
        self._known = frozenset(names)
        self._local = threading.local()
        wanted = [donate] if isinstance(donate, str | int) else donate
        if not isinstance(wanted, Sequence) or any(isinstance(x, bool) or not isinstance(x, str | int) for x in wanted):
            raise ArgumentError(f"donate is {donate!r}", op="compile", fix="a name, a position, or a sequence of these")
        for each in wanted:
            chosen = self._chosen(each, parameters)
            if chosen is None:
                what = f"names {each!r}" if isinstance(each, str) else f"has {each}"
                raise ArgumentError(
                    f"donate {what}, which is no argument", op="compile", fix=f"one of {', '.join(names) or 'none'}"
                )
            self._add(chosen, parameters)

    @staticmethod
    def _chosen(each: str | int, parameters: Sequence[inspect.Parameter]) -> inspect.Parameter | None:
        if isinstance(each, str):
            return next((p for p in parameters if p.name == each), None)
        return parameters[each] if -len(parameters) <= each < len(parameters) else None

    def _add(self, p: inspect.Parameter, parameters: Sequence[inspect.Parameter]) -> None:
        at = parameters.index(p)
        if p.kind is p.VAR_POSITIONAL:
            self._rest = at, p.name
        elif p.kind is p.VAR_KEYWORD:
            self._extra = True
        else:
            if p.kind is not p.KEYWORD_ONLY:
                self._positions[at] = p.name
            if p.kind is not p.POSITIONAL_ONLY:
                self._names.add(p.name)

    @property
    def current(self) -> frozenset[int]:
        """Ids of the tensors that stand for donated ones in the call of this thread."""
        return getattr(self._local, "ids", frozenset())

    def call(self, run: Run, name: str, keep: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that spends the donated arguments. As part of another capture or a transform it donates nothing."""
        if MODES.recorder is not None or MODES.layers:
            return run(keep, args, kwargs)
        call = _Call(name)
        with _lock:
            args, kwargs = self._swapped(call, args, kwargs)
            call.begin()
        before, self._local.ids = self.current, call.ids
        returned = False
        try:
            result = run(keep, args, kwargs)
            returned = True
        finally:
            self._local.ids = before
            call.end()
            if not returned:
                call.undo()
            call.forget()
        return result

    def _swapped(
        self, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that the call is given."""
        given = list(args)
        for k, x in enumerate(given):
            if k in self._positions:
                given[k] = call.swap(x, self._positions[k])
            elif self._rest is not None and k >= self._rest[0]:
                given[k] = call.swap(x, f"{self._rest[1]}[{k - self._rest[0]}]")
        if not kwargs:
            return tuple(given), kwargs
        named = dict(kwargs)
        for key, x in kwargs.items():
            if key in self._names or (self._extra and key not in self._known):
                named[key] = call.swap(x, key)
        return tuple(given), named
