"""`kiln.compile` and `kiln.jit.trace`: two doors to one capture.

A compiled function keeps *regions*, one per signature (structure of the arguments, their dtypes, shapes and strides,
Python values, modes) and state of what the function reaches (`guards.py`). The first call with a new signature is a
capture: it runs eagerly and its results are eager's. Later calls run one program.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Container, Sequence
from operator import is_
from typing import Any

import numpy as np

from kiln.autograd import refresh
from kiln.base import MODES, READONLY, REQUIRES_GRAD, TensorBase
from kiln.capture import Capture
from kiln.errors import ArgumentError, CaptureError
from kiln.guards import SCALARS, Guards
from kiln.pytree import Tree, containers, flatten
from kiln.reach import reach
from kiln.region import Region
from kiln.world import Audit

MAX_REGIONS = 64
"""Captures that one compiled function keeps; the one unused for longest makes room."""


class _Entry:
    """A region with the guards under which it holds."""

    __slots__ = ("guards", "region")

    def __init__(self, guards: Guards, region: Region) -> None:
        self.guards = guards
        self.region = region


class CompiledFunction:
    """A function that captures itself on its first call per signature and runs compiled from then on.

    Attributes of the wrapped function or module are reachable through it.
    """

    def __init__(self, function: Callable[..., Any], *, fixed: bool = False) -> None:
        if not callable(function):
            raise ArgumentError(f"compile takes a function or a module, not {type(function).__name__}", op="compile")
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._fixed = fixed
        self._entries: dict[tuple[Any, ...], list[_Entry]] = {}
        self.log: list[str] = []
        """Why each capture happened, in order."""
        self._lock = threading.RLock()  # the last of this object's own attributes, see __setattr__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if MODES.recorder is not None:  # inside another capture: part of it
            return self._function(*args, **kwargs)
        leaves, tree = flatten((args, kwargs))
        key, tensors, objects = _signature(leaves, tree)
        for entry in self._entries.get(key, ()):
            if entry.guards.hold():
                inputs = entry.region.gather(tensors)
                if inputs is not None:
                    return entry.region.run(inputs, tensors)
        with self._lock:
            return self._capture(key, tensors, objects, args, kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method, bound like a function."""
        return self if instance is None else functools.partial(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_function" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._function, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Attributes go to the wrapped function or module, but for this object's own."""
        own = "_lock" not in self.__dict__ or name in self.__dict__
        if own or name.startswith("__"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._function, name, value)

    def __kiln_reach__(self) -> tuple[Any, ...]:
        """What guards of other captured functions look at."""
        return (self._function,)

    def __repr__(self) -> str:
        count = sum(map(len, self._entries.values()))
        return f"<compiled {getattr(self._function, '__name__', self._function)!s}, {count} captures>"

    def regions(self) -> list[Region]:
        """All compiled regions, oldest first."""
        return [entry.region for entries in self._entries.values() for entry in entries]

    @property
    def compile_seconds(self) -> float:
        """Seconds spent generating code for this function so far."""
        return sum(region.seconds for region in self.regions())

    # -------------------------------------------------------------------------------------- capture

    def _capture(
        self,
        key: tuple[Any, ...],
        tensors: list[Any],
        objects: list[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run the function for real, recorded, and keep what was recorded. Its results are the call's."""
        why = self._reason(key)
        if self._fixed and self._entries:
            raise CaptureError(
                f"a traced function was called in a way its example did not show: {why}",
                fix="trace it with such an example, or use kiln.compile",
            )
        name = getattr(self._function, "__name__", type(self._function).__name__)
        name = name if name.isidentifier() else "main"
        leaves, tree = flatten((args, kwargs))
        reached = reach(self._function, tuple(objects))
        modes = MODES.grad_enabled
        with Capture(name, tensors, dict(reached.guards.tensors)) as capture:
            audit = Audit(reached.code)
            try:
                with audit:
                    returned = self._function(*args, **kwargs)
            except Exception:
                self._check_refused(audit, capture)
                raise
            self._check_refused(audit, capture)
            changed = reached.guards.broken()
            after, tree_after = flatten((args, kwargs))
            if tree_after != tree or not all(map(is_, leaves, after)):
                changed = "a list or dict among the arguments"
            if changed:
                raise CaptureError(
                    f"the call changed Python state: {changed}; a compiled call could not repeat that",
                    fix="keep what changes in tensors (and change them in place), or move it out of the function",
                )
            if MODES.grad_enabled != modes:
                raise CaptureError("the call left gradients switched on or off", fix="use a with block")
            _check_containers(returned, (args, kwargs), reached.seen)
            region = Region(capture, tensors, returned, reached.seen, name)
        region.compile()
        self._keep(key, _Entry(reached.guards, region))
        self.log.append(why)
        return returned

    def _check_refused(self, audit: Audit, capture: Capture) -> None:
        """Raise a refusal that the function's own code caught: it went a way that it does not go outside a capture."""
        refused = audit.refused or capture.refused
        if refused is not None:
            raise refused

    def _keep(self, key: tuple[Any, ...], entry: _Entry) -> None:
        entries = self._entries.pop(key, [])
        self._entries[key] = [entry, *entries][:4]
        while len(self._entries) > MAX_REGIONS:
            del self._entries[next(iter(self._entries))]

    def _reason(self, key: tuple[Any, ...]) -> str:
        """Why no region fits, for `explain` and for errors."""
        if not self._entries:
            return "first call"
        for entry in self._entries.get(key, ()):
            broken = entry.guards.broken()
            return f"{broken} changed" if broken else "gradients, or a tensor the function reads, changed"
        known = next(reversed(self._entries))
        if known[0] != key[0]:
            return "the arguments have another structure"
        for k, (a, b) in enumerate(zip(known[2:], key[2:], strict=False)):
            if a != b:
                return f"argument leaf {k}: {_told(b)}, known was {_told(a)}"
        return "gradients are switched on or off" if known[1] != key[1] else "the arguments differ"


def _signature(leaves: Sequence[Any], tree: Tree) -> tuple[tuple[Any, ...], list[Any], list[Any]]:
    """(key, tensor arguments without repetition, other objects to guard)."""
    key: list[Any] = [tree, MODES.grad_enabled, MODES.default_dtype]
    tensors: list[Any] = []
    objects: list[Any] = []
    known: dict[int, int] = {}
    buffers: dict[int, int] = {}
    for x in leaves:
        if isinstance(x, TensorBase):
            position = known.setdefault(id(x), len(tensors))
            if position == len(tensors):
                tensors.append(x)
            shared = buffers.setdefault(id(x._buffer), position)
            tied = False
            if x._view is not None:
                refresh(x)
                tied = bool(x._view.base._flags & REQUIRES_GRAD)
            key.append((x._layout, x._flags, x._node is None, tied, position, shared))
        elif isinstance(x, SCALARS):
            key.append((type(x), repr(x) if isinstance(x, float | complex | np.generic) else x))
        else:
            key.append(id(x))
            objects.append(x)
    return tuple(key), tensors, objects


def _check_containers(returned: Any, arguments: Any, owned: Container[int]) -> None:
    """Refuse a returned list or dict that was there before: a warm call makes new ones."""
    before = {id(x) for x in containers(arguments)}
    for x in containers(returned):
        if id(x) in before or id(x) in owned:
            raise CaptureError(
                f"the call returned a {type(x).__name__} that it was given or found outside",
                fix="return a new one, or its items",
            )


def _told(part: Any) -> str:
    """A part of a signature in words."""
    if isinstance(part, tuple) and len(part) == 6:
        layout, flags, leaf = part[:3]
        words = f"{layout.ttype} with strides {list(layout.strides)}"
        if flags & REQUIRES_GRAD:
            words += ", requires grad" if leaf else ", computed with gradients"
        return words + (", read-only" if flags & READONLY else "")
    if isinstance(part, tuple):
        return f"{part[0].__name__} {part[1]}"
    return "another object"


def compile(function: Callable[..., Any]) -> CompiledFunction:
    """Compile a function or a module; also a decorator.

    The result gives the same numbers, bit for bit, as the function itself, for any arguments: tensors (of a new shape:
    captured anew), Python numbers and strings (compiled in), containers of these, and objects. Control flow on tensor
    *data* raises CaptureError, as does a call that changes Python state.

    >>> import kiln
    >>> @kiln.compile
    ... def f(x):
    ...     return (x * 2 + 1).sum()
    >>> f(kiln.arange(3.0)), f(kiln.arange(3.0))
    (tensor(9.), tensor(9.))
    """
    return CompiledFunction(function)


def trace(function: Callable[..., Any], example_inputs: Any) -> CompiledFunction:
    """Capture `function` with `example_inputs` (a tensor or a tuple of arguments) now.

    The result takes only arguments of the examples' structure, dtypes and shapes; CaptureError for others.
    """
    traced = CompiledFunction(function, fixed=True)
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    traced(*arguments)
    return traced
