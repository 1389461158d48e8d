"""`kiln.compile` and `kiln.jit.trace`: two doors to one capture.

A compiled function keeps *regions*, one per signature (structure of the arguments, their dtypes, shapes and strides,
Python values, modes) and state of what the function reaches (`guards.py`), as ends of a tree of decisions on tensor
data (`tree.py`). The first call that goes a new way is a capture: it runs eagerly and its results are eager's. Later
calls run compiled programs. Calls that can't be compiled run eagerly.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np

from kiln.autograd.tape import ANOMALY
from kiln.base import MODES
from kiln.composite import plain_classes
from kiln.dispatch import CheckFailed
from kiln.errors import ArgumentError, CaptureError, CaptureWarning, GradError, InvalidValueError
from kiln.location import frames_of_kiln
from kiln.pytree import flatten
from kiln.reach import Reached, reach
from kiln.reasons import difference
from kiln.recording import Call, Recording, StateChanged
from kiln.region import Region
from kiln.signature import signature
from kiln.tally import Tally
from kiln.tree import Eager, Found, Tree

MAX_REGIONS = 64
"""Captures that one compiled function keeps; the one unused for longest makes room."""
MAX_CAPTURES = 256
"""Captures of one compiled function in all. One that needs more is told so, once, and runs eagerly what is new."""
MAX_ATTEMPTS = 4
"""Captures of one signature that may fail because the call changes Python state; from then on it runs eagerly."""


OnRecompile: TypeAlias = Literal["ignore", "warn", "raise"]


class _Entry:
    """The ways that calls can go while the guards hold, which say also which arguments are tensors that the function
    reaches by itself."""

    __slots__ = ("known", "objects", "reached", "tree")

    def __init__(self, reached: Reached, tensors: Sequence[Any], objects: Sequence[Any]) -> None:
        self.reached = reached
        self.tree = Tree()
        self.objects = objects  # kept alive: the signature knows them by id
        self.known = [id(t) if id(t) in reached.guards.tensors else 0 for t in tensors]

    def fits(self, tensors: Sequence[Any]) -> bool:
        """Whether calls with these tensor arguments go one of these ways."""
        reached = self.reached.guards.tensors
        for t, known in zip(tensors, self.known, strict=True):
            if known != (id(t) if id(t) in reached else 0):
                return False
        return self.reached.guards.hold()


class CompiledFunction:
    """A function that captures itself on its first call per signature and runs compiled from then on.

    Attributes of the wrapped function or module are reachable through it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        fullgraph: bool = False,
        fixed: bool = False,
        on_recompile: OnRecompile = "ignore",
    ) -> None:
        if not callable(function):
            raise ArgumentError(f"compile takes a function or a module, not {type(function).__name__}", op="compile")
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._strict = fullgraph or fixed
        self._fixed = fixed
        self._on_recompile = on_recompile
        self._entries: dict[tuple[Any, ...], list[_Entry]] = {}
        self._failures: dict[tuple[Any, ...], int] = {}
        self._unstaged: dict[tuple[Any, ...], set[Hashable]] = {}
        """Places in the code that are left to decisions, for calls of one signature."""
        self._told: dict[str, None] = {}
        self._tally = Tally()
        name = getattr(function, "__name__", type(function).__name__)
        self._name = name if name.isidentifier() else "main"
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
        if MODES.recorder is not None or MODES.layers or ANOMALY.enabled or not MODES.compiling:
            return self._function(*args, **kwargs)
        try:
            call = Call(args, kwargs, keep, *signature(keep, args, kwargs))
            _, found = self._find(call)
            if isinstance(found, Found):
                returned = found.region.run(found.inputs, call.tensors, found.carried)
                if found.decided:
                    self._tally.decided += 1
                elif found.region.staged:
                    self._tally.staged += 1
                else:
                    self._tally.compiled += 1
                return returned
        except CheckFailed:  # nothing was written: eager does what comes before the error, and raises it
            return self._uncompiled(args, kwargs)
        except CaptureError as error:  # the arguments can't be told apart, or share memory
            return self._eagerly(error, args, kwargs)
        if found is None:
            with self._lock:
                entry, found = self._find(call)  # another thread may have captured it meanwhile
                if found is None:
                    return self._capture(call, entry)
        return self._run(keep, args, kwargs) if isinstance(found, Found) else self._uncompiled(args, kwargs)

    def _uncompiled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An eager call."""
        self._tally.eager += 1
        return self._function(*args, **kwargs)

    def _find(self, call: Call) -> tuple[_Entry | None, Found | Eager | None]:
        """Where a call ends, if that is known; else, perhaps, an entry whose ways begin like its."""
        begun = None
        for entry in self._entries.get(call.key, ()):
            if entry.fits(call.tensors):
                found = entry.tree.find(call.tensors)
                if found is not None:
                    return entry, found
                begun = entry if entry.tree.decisions else begun
        return begun, None

    def _eagerly(self, error: CaptureError | GradError, args: Any, kwargs: Any) -> Any:
        """A call that can't be compiled."""
        if self._strict:
            raise error
        self._warn(error)
        return self._uncompiled(args, kwargs)

    def _complain(self, why: str) -> None:
        """The function is about to be captured again."""
        error = CaptureError(f"{self._name} has to be captured again: {why}")
        if self._on_recompile == "raise":
            raise error
        warnings.warn(str(error), CaptureWarning, stacklevel=frames_of_kiln())

    def _warn(self, error: CaptureError | GradError) -> None:
        """Say, once for each reason, that calls run eagerly."""
        message = f"{self._name} runs eagerly, not compiled: {error}"
        if message not in self._told:
            self._told[message] = None
            warnings.warn(message, CaptureWarning, stacklevel=frames_of_kiln())

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
        return _made(copy.deepcopy(self._function, memo), self._strict, self._fixed, self._on_recompile)

    def __kiln_reach__(self) -> tuple[Any, ...]:
        """What guards of other captured functions look at."""
        return (self._function,)

    def __repr__(self) -> str:
        count = len(self.regions())
        return f"<compiled {getattr(self._function, '__name__', self._function)!s}, {count} captures>"

    def report(self) -> Tally:
        """What became of the calls so far.

        >>> import kiln
        >>> f = kiln.compile(lambda x: x * x.sum().item())
        >>> values = [f(kiln.tensor([n])).item() for n in (1.0, 1.0, -1.0, -1.0)]
        >>> print(f.report())
        0 compiled, 0 staged, 2 decided, 2 captured, 0 eager
        captured: first call
        captured: a question about tensor data had another answer
        """
        return dataclasses.replace(self._tally, captures=tuple(self.log), refusals=tuple(self._told))

    def regions(self) -> list[Region]:
        """All compiled regions, oldest first."""
        return [r for entries in self._entries.values() for entry in entries for r in entry.tree.regions()]

    @property
    def compile_seconds(self) -> float:
        """Seconds spent generating code for this function so far."""
        return sum(region.seconds for region in self.regions())

    # -------------------------------------------------------------------------------------- capture

    def _capture(self, call: Call, entry: _Entry | None) -> Any:
        """Run the function for real, recorded, and keep what was recorded. Its results are the call's. `entry`: whose
        ways begin like this call's, if any."""
        why = self._reason(call.key, entry)
        if self._fixed and self._entries:
            raise CaptureError(
                f"a traced function was called in a way its example did not show: {why}",
                fix="trace it with such an example, or use kiln.compile",
            )
        if self._failures.get(call.key, 0) >= MAX_ATTEMPTS:
            return self._uncompiled(call.args, call.kwargs)
        if self._tally.captured >= MAX_CAPTURES:
            often = CaptureError(f"it was captured {MAX_CAPTURES} times", fix="see why in report().captures")
            return self._eagerly(often, call.args, call.kwargs)
        if self.log and self._on_recompile != "ignore":
            self._complain(why)
        if entry is None:
            try:
                entry = _Entry(reach(self._function, _watched(call)), call.tensors, call.objects)
            except CaptureError as error:
                self._failures[call.key] = MAX_ATTEMPTS
                return self._eagerly(error, call.args, call.kwargs)
        self._tally.captured += 1
        avoid = self._unstaged.setdefault(call.key, set())
        recording = Recording(self._name, self._function, entry.reached, call, self._strict, not self._fixed, avoid)
        try:
            returned = recording.run()
        finally:
            self._enter(call.key, entry, recording, why)
        return returned

    def _enter(self, key: tuple[Any, ...], entry: _Entry, recording: Recording, why: str) -> None:
        """Keep what came of a call."""
        end, error = recording.end, recording.error
        if end is not None:
            try:
                entry.tree.grow(recording.capture.queries, end)
            except CaptureError as refusal:
                if self._strict:
                    raise
                error = refusal
                self._failures[key] = MAX_ATTEMPTS
            else:
                if isinstance(end, Region):
                    end.compile()
                    self.log.append(why)
                self._keep(key, entry)
        if isinstance(error, StateChanged) or (isinstance(end, Eager) and entry.reached.guards.broken()):
            self._failures[key] = self._failures.get(key, 0) + 1  # nothing that was kept will fit
            if self._failures[key] < MAX_ATTEMPTS and end is None:
                return  # state that is made once is there now
        if error is not None:
            self._warn(error)

    def _keep(self, key: tuple[Any, ...], entry: _Entry) -> None:
        entries = [e for e in self._entries.pop(key, []) if e is not entry]
        self._entries[key] = [entry, *entries][:4]
        while len(self._entries) > MAX_REGIONS:
            oldest = next(iter(self._entries))
            del self._entries[oldest]
            self._unstaged.pop(oldest, None)

    def _reason(self, key: tuple[Any, ...], begun: _Entry | None) -> str:
        """Why no region fits, for `explain` and for errors."""
        if begun is not None:
            return "a question about tensor data had another answer"
        if not self._entries:
            return "first call"
        for entry in self._entries.get(key, ()):
            broken = entry.reached.guards.broken()
            return f"{broken} changed" if broken else "gradients, or which tensors the arguments are, changed"
        return difference(self._function, next(reversed(self._entries)), key)


def _watched(call: Call) -> tuple[Any, ...]:
    """What guards look at among the arguments: objects that the signature knows only by which they are, and classes of
    containers and of tensors."""
    containers: list[Any] = []
    flatten((call.args, call.kwargs), containers, call.keep)
    kinds = [type(x) for x in containers if type(x) not in (list, dict)]
    kinds += [type(x) for x in call.tensors if type(x) not in plain_classes()]
    return (*[x for x in call.objects if not isinstance(x, np.ndarray)], *kinds)


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


def _made(
    function: Callable[..., Any], fullgraph: bool = False, fixed: bool = False, on_recompile: OnRecompile = "ignore"
) -> CompiledFunction:
    made = CompiledModule if hasattr(type(function), "named_parameters") else CompiledFunction
    return made(function, fullgraph=fullgraph, fixed=fixed, on_recompile=on_recompile)


@overload
def compile(
    function: Callable[..., Any],
    *,
    fullgraph: bool = False,
    on_recompile: OnRecompile = "ignore",
    disable: bool = False,
) -> CompiledFunction: ...


@overload
def compile(
    function: None = None, *, fullgraph: bool = False, on_recompile: OnRecompile = "ignore", disable: bool = False
) -> Callable[[Callable[..., Any]], CompiledFunction]: ...


def compile(
    function: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    on_recompile: OnRecompile = "ignore",
    disable: bool = False,
) -> Any:
    """Compile a function or a module; also a decorator, with or without arguments.

    The result gives the same numbers, bit for bit, as the function itself, for any arguments: tensors (of a new shape:
    captured anew), Python numbers and strings (compiled in), containers of these, and objects. Branches and loops on
    tensor *data* (`if x.sum() > 0`) become part of the program where they can; otherwise each answer that comes up
    has compiled code of its own. What a compiled call could not repeat (changes of Python state, `print`, clocks) makes calls of that kind run eagerly, with one
    CaptureWarning that says why; with `fullgraph` it raises CaptureError instead. `on_recompile`: what to do when the
    function must be captured again (a new shape, another answer): "ignore", or "warn" or "raise" with what differs.
    With `disable` the function itself is returned.

    >>> import kiln
    >>> @kiln.compile
    ... def f(x):
    ...     return (x * 2 + 1).sum() if x[0] > 0 else x.sum()
    >>> f(kiln.arange(3.0)), f(kiln.arange(3.0) + 1)
    (tensor(3.), tensor(15.))
    """
    if function is None:
        return functools.partial(compile, fullgraph=fullgraph, on_recompile=on_recompile, disable=disable)
    if on_recompile not in ("ignore", "warn", "raise"):
        raise InvalidValueError(f"on_recompile is {on_recompile!r}", op="compile", fix="ignore, warn or raise")
    return function if disable else _made(function, fullgraph, on_recompile=on_recompile)


def trace(function: Callable[..., Any], example_inputs: Any) -> CompiledFunction:
    """Capture `function` with `example_inputs` (a tensor or a tuple of arguments) now.

    The result takes only arguments of the examples' structure, dtypes and shapes; CaptureError for others.
    """
    traced = _made(function, fixed=True)
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    traced(*arguments)
    return traced
