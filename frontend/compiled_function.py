"""Functions that capture themselves: what `kiln.compile` gives, and what the other doors derive from.

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
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

from kiln.autograd.tape import ANOMALY
from kiln.base import MODES
from kiln.compiled import Code
from kiln.dims import Dynamic, Ranges, check_marks, is_marked
from kiln.dispatch import CheckFailed
from kiln.dynamic import Family
from kiln.entry import Call, Entry, Manner, find, watched
from kiln.errors import ArgumentError, CaptureError, CaptureWarning, GradError
from kiln.location import frames_of_kiln, user_frames
from kiln.reach import reach
from kiln.readable import Readable
from kiln.reasons import difference
from kiln.recording import Recording, StateChanged
from kiln.region import Region
from kiln.signature import brief, signature
from kiln.tally import Tally
from kiln.tree import Eager

MAX_REGIONS = 256
"""Captures that one compiled function keeps; the one unused for longest makes room."""
MAX_CAPTURES = 1024
"""Captures of one compiled function in all. One that needs more is told so, once, and runs eagerly what is new."""
MAX_ATTEMPTS = 4
"""Captures of one signature that may fail because the call changes Python state; from then on it runs eagerly."""

OnRecompile: TypeAlias = Literal["ignore", "warn", "raise"]
Door: TypeAlias = Literal["compile", "script", "trace"]


class CompiledFunction(Readable):
    """A function that captures itself on its first call per signature and runs compiled from then on.

    Attributes of the wrapped function or module are reachable through it.
    """

    _door: ClassVar[Door] = "compile"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        fullgraph: bool = False,
        on_recompile: OnRecompile = "ignore",
        dynamic: Dynamic = None,
        check_nan: bool = False,
    ) -> None:
        if not callable(function):
            raise ArgumentError(f"takes a function or a module, not {type(function).__name__}", op=self._door)
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._strict = fullgraph or self._door != "compile"
        self._frozen: frozenset[int] = frozenset()
        self._on_recompile = on_recompile
        self._check_nan = check_nan
        self._entries: dict[tuple[Any, ...], list[Entry]] = {}
        self._brief: dict[tuple[Any, ...], list[Entry]] = {}  # the same, by the keys of `signature.brief`
        self._failures: dict[tuple[Any, ...], int] = {}
        self._unstaged: dict[tuple[Any, ...], dict[Hashable, str]] = {}
        """Places in the code that are left to decisions, and why, for calls of one signature."""
        self._told: dict[str, None] = {}
        self._tally = Tally()
        self._dynamic = dynamic
        self._family = None if dynamic is False or self._door == "trace" else Family()
        self._ranges = Ranges(function, dynamic) if isinstance(dynamic, Mapping) else None
        self._latest: tuple[tuple[Any, ...], Entry, Region] | None = None
        name = getattr(function, "__name__", type(function).__name__)
        self._name = name if name.isidentifier() else "main"
        self.log: list[str] = []
        """Why each capture happened, in order."""
        self._lock = threading.RLock()  # the last of this object's own attributes, see __setattr__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._run((), args, kwargs)
        except CaptureError as refusal:
            raise refusal.with_traceback(user_frames(refusal.__traceback__)) from None

    def _run_on(self, instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call as a method: what is read of the instance is for the guards to find out."""
        return self._run((id(instance),), (instance, *args), kwargs)

    def _run(self, keep: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Inside another capture or a transform it is part of that; where NaNs are looked for, each op has to be seen.
        if MODES.recorder is not None or MODES.layers or ANOMALY.enabled or not MODES.compiling:
            return self._inside(args, kwargs)
        plain = None if kwargs else brief(keep, args)
        try:
            if self._ranges is not None:
                self._ranges.check(args, kwargs)
            if plain is not None and (entries := self._brief.get(plain[0])) is not None:
                check_marks(plain[1])
                _, found = find(entries, plain[1])
                if found.__class__ is tuple and not found[0].idle:
                    return self._warm(found, plain[1])
            call = Call(args, kwargs, keep, *signature(keep, args, kwargs))
            check_marks(call.tensors)
            entries = self._entries.get(call.key, [])
            _, found = find(entries, call.tensors)
            if found.__class__ is tuple:
                if found[0].idle and found[0].rests():
                    return self._uncompiled(args, kwargs)
                if plain is not None:
                    self._remember(plain[0], entries)
                return self._warm(found, call.tensors)
        except CheckFailed:  # nothing was written: eager does what comes before the error, and raises it
            return self._uncompiled(args, kwargs)
        except CaptureError as error:  # the arguments can't be told apart, or share memory
            return self._eagerly(error, args, kwargs)
        if found is None:
            with self._lock:
                # Another thread may have captured it meanwhile.
                entry, found = find(self._entries.get(call.key, []), call.tensors)
                if found is None:
                    return self._capture(call, entry)
        return self._run(keep, args, kwargs) if isinstance(found, tuple) else self._uncompiled(args, kwargs)

    def _warm(self, found: Any, tensors: list[Any]) -> Any:
        """A call of a compiled region."""
        region, inputs, carried, decided = found
        returned = region.run(inputs, tensors, carried)
        if decided and self._door != "script":  # that has all ways from the first call on
            self._tally.decided += 1
        elif decided or region.staged:
            self._tally.staged += 1
        else:
            self._tally.compiled += 1
        return returned

    def _remember(self, key: tuple[Any, ...], entries: list[Entry]) -> None:
        """Where calls of this brief key are found, until something is captured."""
        with self._lock:
            if entries in self._entries.values():
                if len(self._brief) >= MAX_CAPTURES:
                    self._brief.clear()
                self._brief[key] = entries

    def _inside(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call as part of something else."""
        return self._function(*args, **kwargs)

    def _uncompiled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An eager call."""
        self._tally.eager += 1
        return self._function(*args, **kwargs)

    def _eagerly(self, error: CaptureError | GradError, args: Any, kwargs: Any) -> Any:
        """A call that can't be compiled."""
        if self._strict:
            raise error
        self._warn(error)
        return self._uncompiled(args, kwargs)

    def _complain(self, why: str) -> None:
        """The function is about to be captured again."""
        error = CaptureError(
            f"{self._name} has to be captured again: {why}", fix='call it as before, or leave on_recompile at "ignore"'
        )
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
        return type(function) if issubclass(type(self), CompiledModule) else type(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledFunction:
        """Compiled anew, of a copy of the function or module."""
        return self._again(copy.deepcopy(self._function, memo))

    def _again(self, function: Callable[..., Any]) -> CompiledFunction:
        """Another function, compiled like this one."""
        return type(self)(
            function,
            fullgraph=self._strict,
            on_recompile=self._on_recompile,
            dynamic=self._dynamic,
            check_nan=self._check_nan,
        )

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
        return dataclasses.replace(
            self._tally,
            captures=tuple(self.log),
            refusals=(*self._told, *(self._family.refusals if self._family else ())),
            generated=len({id(r.forward.code) for r in self.regions() if r.forward is not None}),
        )

    def regions(self) -> list[Region]:
        """All compiled regions, oldest first."""
        return [r for entries in self._entries.values() for entry in entries for r in entry.tree.regions()]

    @property
    def compile_seconds(self) -> float:
        """Seconds spent generating code for this function so far."""
        return sum(code.seconds for code in self.pieces())

    def pieces(self) -> list[Code]:
        """What was compiled, each piece once, however many regions share it."""
        return list(dict.fromkeys(code for region in self.regions() for code in region.code()))

    # -------------------------------------------------------------------------------------- capture

    def _capture(self, call: Call, entry: Entry | None) -> Any:
        """Run the function for real, recorded, and keep what was recorded. Its results are the call's. `entry`: whose
        ways begin like this call's, if any."""
        why = self._reason(call.key, entry)
        self._admit(call, why)
        if self._failures.get(call.key, 0) >= MAX_ATTEMPTS:
            return self._uncompiled(call.args, call.kwargs)
        if self._tally.captured >= MAX_CAPTURES:
            often = CaptureError(f"it was captured {MAX_CAPTURES} times", fix="see why in report().captures")
            return self._eagerly(often, call.args, call.kwargs)
        if self.log and self._on_recompile != "ignore":
            self._complain(why)
        if entry is None:
            try:
                reached = reach(self._function, watched(call), self._door == "script")
                entry = Entry(reached, call.tensors, call.objects, self._family)
            except CaptureError as error:
                self._failures[call.key] = MAX_ATTEMPTS
                return self._eagerly(error, call.args, call.kwargs)
        self._tally.captured += 1
        avoid = self._unstaged.setdefault(call.key, {})
        manner = Manner(self._strict, self._door, avoid, self._frozen, self._family, self._check_nan)
        try:
            return self._record(call, entry, manner, why)
        except CaptureError:
            self._unstaged.pop(call.key, None)  # the next call is told the same
            raise

    def _record(self, call: Call, entry: Entry, manner: Manner, why: str) -> Any:
        """Run the function, recorded, and keep what came of it."""
        recording = Recording(self._name, self._function, entry.reached, call, manner)
        recording.approve = self._approve
        try:
            return recording.run()
        finally:
            self._enter(call, entry, recording, why)

    def _admit(self, call: Call, why: str) -> None:
        """A call is about to be captured, since `why`; a door may object."""

    def _approve(self, returned: Any) -> None:
        """What a captured call returned; a door may object."""

    def _enter(self, call: Call, entry: Entry, recording: Recording, why: str) -> None:
        """Keep what came of a call."""
        key, end, error = call.key, recording.end, recording.error
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
                    end.idle = end.is_empty() and end.shared is None and not self._strict
                    if end.shared is not None or not (end.idle or self._dynamic or is_marked(call.tensors)):
                        end.compile()
                    self.log.append(f"{why}; code is shared" if end.shares else why)
                    self._latest = key, entry, end
                self._keep(key, entry)
        if isinstance(error, StateChanged) or (isinstance(end, Eager) and entry.reached.guards.broken()):
            self._failures[key] = self._failures.get(key, 0) + 1  # nothing that was kept will fit
            if self._failures[key] < MAX_ATTEMPTS and end is None:
                return  # state that is made once is there now
        if error is not None:
            self._warn(error)

    def _keep(self, key: tuple[Any, ...], entry: Entry) -> None:
        entries = [e for e in self._entries.pop(key, []) if e is not entry]
        self._entries[key] = [entry, *entries][:4]
        self._brief.clear()
        while len(self._entries) > MAX_REGIONS:
            oldest = next(iter(self._entries))
            del self._entries[oldest]
            self._unstaged.pop(oldest, None)

    def _reason(self, key: tuple[Any, ...], begun: Entry | None) -> str:
        """Why no region fits, for `explain` and for errors."""
        if begun is not None:
            return "a question about tensor data had another answer"
        if not self._entries:
            return "first call"
        for entry in self._entries.get(key, ()):
            broken = entry.reached.guards.broken()
            return f"{broken} changed" if broken else "gradients, or which tensors the arguments are, changed"
        return difference(self._function, next(reversed(self._entries)), key)


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


class Methods(CompiledModule):
    """A module with several doors: itself, and methods by their names."""

    _methods: dict[str, Any]

    @property
    def original_name(self) -> str:
        """The class of the module."""
        return type(self._function).__name__

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The captured call."""
        return self(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        method = self.__dict__.get("_methods", {}).get(name)
        return super().__getattr__(name) if method is None else method
