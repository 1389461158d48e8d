"""`kiln.compile` and `kiln.jit.trace`: two doors to one capture.

A compiled function keeps *regions*, one per signature (structure of the arguments, their dtypes, shapes and strides,
Python values, modes) and state of what the function reaches (`guards.py`). The first call with a new signature is a
capture: it runs eagerly and its results are eager's. Later calls run one program.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Container, Sequence
from operator import is_
from types import MethodType
from typing import Any, Final

import numpy as np

from kiln.autograd import refresh
from kiln.autograd.tape import ANOMALY
from kiln.base import MODES, READONLY, REQUIRES_GRAD, TensorBase
from kiln.capture import Capture
from kiln.dispatch import CheckFailed
from kiln.errors import ArgumentError, CaptureError
from kiln.guards import SCALARS, Guards
from kiln.pytree import flatten
from kiln.reach import reach
from kiln.region import Region
from kiln.world import Audit

MAX_REGIONS = 64
"""Captures that one compiled function keeps; the one unused for longest makes room."""


class _Entry:
    """A region with the guards under which it holds, which say also which arguments are tensors that the function
    reaches by itself."""

    __slots__ = ("guards", "known", "objects", "region")

    def __init__(self, guards: Guards, region: Region, tensors: Sequence[Any], objects: Sequence[Any]) -> None:
        self.guards = guards
        self.region = region
        self.objects = objects  # kept alive: the signature knows them by id
        self.known = [id(t) if id(t) in guards.tensors else 0 for t in tensors]

    def fits(self, tensors: Sequence[Any]) -> bool:
        """Whether the region may answer a call with these tensor arguments."""
        reached = self.guards.tensors
        for t, known in zip(tensors, self.known, strict=True):
            if known != (id(t) if id(t) in reached else 0):
                return False
        return self.guards.hold()


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
        return self._run((), args, kwargs)

    def _run_on(self, instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call as a method: what is read of the instance is for the guards to find out."""
        return self._run((id(instance),), (instance, *args), kwargs)

    def _run(self, keep: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Inside another capture or a transform it is part of that; where NaNs are looked for, each op has to be seen.
        if MODES.recorder is not None or MODES.layers or ANOMALY.enabled:
            return self._function(*args, **kwargs)
        key, tensors, objects = _signature(keep, args, kwargs)
        found = self._find(key, tensors)
        if found is None:
            with self._lock:
                found = self._find(key, tensors)  # another thread may have captured it meanwhile
                if found is None:
                    return self._capture(key, tensors, objects, keep, args, kwargs)
        region, inputs = found
        try:
            return region.run(inputs, tensors)
        except CheckFailed:  # nothing was written: eager does what comes before the error, and raises it
            return self._function(*args, **kwargs)

    def _find(self, key: tuple[Any, ...], tensors: list[Any]) -> tuple[Region, list[Any]] | None:
        """The region that may answer a call, with its input tensors."""
        for entry in self._entries.get(key, ()):
            if entry.fits(tensors):
                inputs = entry.region.gather(tensors)
                if inputs is not None:
                    return entry.region, inputs
        return None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method, bound like a function."""
        return self if instance is None else functools.partial(self._run_on, instance)

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

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The type; for a compiled module the module's, so that it is a submodule of what holds it."""
        function = self.__dict__.get("_function")
        return type(function) if type(self) is CompiledModule else CompiledFunction

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledFunction:
        """Compiled anew, of a copy of the function or module."""
        return _made(copy.deepcopy(self._function, memo), self._fixed)

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
        keep: tuple[int, ...],
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
        containers: list[Any] = []
        leaves, _ = flatten((args, kwargs), containers, keep)
        kinds = [type(x) for x in containers if type(x) not in (list, dict)]
        reached = reach(self._function, (*[x for x in objects if not isinstance(x, np.ndarray)], *kinds))
        with Capture(name, tensors, reached.guards.tensors) as capture:
            audit = Audit(reached.code, reached.dormant)
            try:
                with audit:
                    returned = self._function(*args, **kwargs)
            except Exception:
                self._check_refused(audit, capture)
                raise
            self._check_refused(audit, capture)
            for path, read in capture.reads:
                reached.guards.referent(path, read)
            if not capture.differentiated:
                reached.no_gradients()
            changed = reached.guards.broken()
            after = flatten((args, kwargs), keep=keep)[0]
            now = _signature(keep, args, kwargs)[0]
            if not all(map(is_, leaves, after)) or (now[0], *now[2:]) != (key[0], *key[2:]):
                changed = "an argument: its items, its contents, or whether it requires a gradient"
            if changed:
                raise CaptureError(
                    f"the call changed Python state: {changed}; a compiled call could not repeat that",
                    fix="keep what changes in tensors (and change them in place), or move it out of the function",
                )
            if _modes() != key[1]:
                raise CaptureError(
                    "the call left gradients, inference mode or the default dtype changed", fix="use a with block"
                )
            _check_containers(returned, containers, reached.seen)
            region = Region(capture, tensors, returned, reached.seen, name)
        region.compile()
        self._keep(key, _Entry(reached.guards, region, tensors, objects))
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
            return f"{broken} changed" if broken else "gradients, or which tensors the arguments are, changed"
        known = next(reversed(self._entries))
        if known[0] != key[0]:
            return "the arguments have another structure"
        for k, (a, b) in enumerate(zip(known[3:], key[3:], strict=False)):
            if a != b:
                return f"argument leaf {k}: {_told(b)}, known was {_told(a)}"
        return (
            "gradients, inference mode or the default dtype changed" if known[1] != key[1] else "the arguments differ"
        )


def _signature(keep: tuple[int, ...], args: Any, kwargs: Any) -> tuple[tuple[Any, ...], list[Any], list[Any]]:
    """(key, tensor arguments without repetition, other objects to guard)."""
    containers: list[Any] = []
    try:
        leaves, tree = flatten((args, kwargs), containers, keep)
    except RecursionError:
        raise CaptureError(
            "an argument holds itself, directly or through others", fix="keep it in a variable that the function reads"
        ) from None
    key: list[Any] = [tree, _modes(), _repeated(containers)]
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
            key.append((x._layout, x._flags, x._node is None, tied, position, shared, x.__class__))
        elif x.__class__ in _BY_VALUE:
            key.append((x.__class__, repr(x) if isinstance(x, float | complex | np.generic) else x))
        else:
            key.append(_known_by(x))
            objects.append(x)
    return tuple(key), tensors, objects


class CompiledModule(CompiledFunction):
    """A compiled module: a container's items are reached through it, too."""

    def __len__(self) -> int:
        return len(self._function)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> Any:
        return self._function[index]  # type: ignore[index]

    def __iter__(self) -> Any:
        return iter(self._function)  # type: ignore[call-overload]

    def __contains__(self, item: Any) -> bool:
        return item in self._function  # type: ignore[operator]


def _made(function: Callable[..., Any], fixed: bool = False) -> CompiledFunction:
    module = hasattr(type(function), "named_parameters")
    return (CompiledModule if module else CompiledFunction)(function, fixed=fixed)


def _modes() -> tuple[Any, ...]:
    """What holds for the thread and decides what a call does."""
    return MODES.grad_enabled, MODES.inference, MODES.default_dtype


_BY_VALUE: Final = frozenset({*SCALARS, range}) - {np.generic} | set(np.sctypeDict.values())
"""Types of leaves that are told by what they are."""


def _known_by(x: Any) -> Any:
    """What tells an object among the arguments: its contents where those are all, else which object it is."""
    if type(x) is np.ndarray and not x.dtype.hasobject:
        return (np.ndarray, x.dtype.str, x.shape, x.tobytes())
    if type(x) is slice and all(type(part) in (int, type(None)) for part in (x.start, x.stop, x.step)):
        return (slice, x.start, x.stop, x.step)
    if type(x) is MethodType:
        return (MethodType, id(x.__self__), id(x.__func__))
    return id(x)


def _repeated(containers: Sequence[Any]) -> tuple[int, ...]:
    """For each list and dict, where the same one came first; empty when all differ (but for the keyword arguments)."""
    if len(containers) < 3:
        return ()
    first: dict[int, int] = {}
    places = tuple([first.setdefault(id(x), k) for k, x in enumerate(containers)])
    return () if len(first) == len(places) else places


def _check_containers(returned: Any, given: Sequence[Any], owned: Container[int]) -> None:
    """Refuse a returned list or dict that was there before: a warm call makes new ones."""
    before = set(map(id, given))
    found: list[Any] = []
    flatten(returned, found, owned)
    for x in found:
        if id(x) in before or id(x) in owned:
            raise CaptureError(
                f"the call returned a {type(x).__name__} that it was given or found outside",
                fix="return a new one, or its items",
            )


def _told(part: Any) -> str:
    """A part of a signature in words."""
    if isinstance(part, tuple) and len(part) == 7:
        layout, flags, leaf = part[:3]
        words = f"{layout.ttype} with strides {list(layout.strides)}"
        if flags & REQUIRES_GRAD:
            words += ", requires grad" if leaf else ", computed with gradients"
        return words + (", read-only" if flags & READONLY else "")
    if isinstance(part, tuple) and len(part) == 2:
        return f"{part[0].__name__} {part[1]}"
    if isinstance(part, tuple):
        return f"another {part[0].__name__}"
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
    return _made(function)


def trace(function: Callable[..., Any], example_inputs: Any) -> CompiledFunction:
    """Capture `function` with `example_inputs` (a tensor or a tuple of arguments) now.

    The result takes only arguments of the examples' structure, dtypes and shapes; CaptureError for others.
    """
    traced = _made(function, fixed=True)
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    traced(*arguments)
    return traced
