"""Capture of a call, and what is kept of it: the part of a captured function that a warm call does not need."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias, cast

from kiln.dims import Dynamic, Ranges, is_marked
from kiln.dynamic import Family
from kiln.entry import Call, Entry, Manner, watched
from kiln.errors import ArgumentError, CaptureError, CaptureWarning, GradError
from kiln.journal import StateChanged
from kiln.location import frames_of_kiln
from kiln.places import CELL, Moving
from kiln.reach import reach
from kiln.reasons import difference
from kiln.recording import Recording
from kiln.region import Region
from kiln.tally import Tally
from kiln.tree import Eager

if TYPE_CHECKING:
    from kiln.donation import Donate, Donations

MAX_REGIONS = 256
"""Captures that one compiled function keeps; the one unused for longest makes room."""
MAX_CAPTURES = 1024
"""Captures of one compiled function in all. One that needs more is told so, once, and runs eagerly what is new."""
MAX_ATTEMPTS = 4
"""Captures of one signature that may fail because the call changes Python state; from then on it runs eagerly."""

MAX_DRIFTS = 16
"""Captures of one signature that may leave state in which the next call is captured again; later ones run eagerly."""

OnRecompile: TypeAlias = Literal["ignore", "warn", "raise"]
Mode: TypeAlias = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None
GRAPH_MODES: Final = ("reduce-overhead", "max-autotune")
"""Those in which programs of GPUs run as CUDA graphs."""
Door: TypeAlias = Literal["compile", "script", "trace"]


class Capturing:
    """See the module."""

    _door: ClassVar[Door] = "compile"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        fullgraph: bool = False,
        on_recompile: OnRecompile = "ignore",
        dynamic: Dynamic = None,
        check_nan: bool = False,
        donate: Donate = (),
        mode: Mode = None,
    ) -> None:
        if not callable(function):
            raise ArgumentError(f"takes a function or a module, not {type(function).__name__}", op=self._door)
        functools.update_wrapper(cast("Any", self), function, updated=())
        self._function = function
        self._strict = fullgraph or self._door != "compile"
        self._frozen: frozenset[int] = frozenset()
        self._on_recompile = on_recompile
        self._check_nan = check_nan
        self._donate = donate
        self._mode = mode
        self._donations: Donations | None = None
        if donate != ():
            from kiln.donation import Donations  # few functions need it

            self._donations = Donations(function, donate)
        self._entries: dict[tuple[Any, ...], list[Entry]] = {}
        self._brief: dict[tuple[Any, ...], list[Entry]] = {}  # the same, by the keys of `signature.brief`
        self._failures: dict[tuple[Any, ...], int] = {}
        self._unstaged: dict[tuple[Any, ...], dict[Hashable, str]] = {}
        """Places in the code that are left to decisions, and why, for calls of one signature."""
        self._moving = Moving()
        self._drifts: dict[tuple[Any, ...], int] = {}
        """Captures that left Python's state such that they do not fit themselves."""
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

    @property
    def _given_up(self) -> frozenset[int]:
        """Ids of the tensors that the caller of this thread has donated."""
        return frozenset() if self._donations is None else self._donations.current

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

    # ------------------------------------------------------------------------------------ captures

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
                reached = reach(self._function, watched(call), self._door == "script", self._moving)
                entry = Entry(reached, call.tensors, call.objects, self._family)
            except CaptureError as error:
                self._failures[call.key] = MAX_ATTEMPTS
                return self._eagerly(error, call.args, call.kwargs)
        self._tally.captured += 1
        avoid = self._unstaged.setdefault(call.key, {})
        recorded = self._mode in GRAPH_MODES
        manner = Manner(
            self._strict, self._door, avoid, self._frozen, self._family, self._check_nan, recorded, self._given_up
        )
        given = entry.given(call.tensors)
        if given is None:  # another thread has changed it just now
            return self._uncompiled(call.args, call.kwargs)
        return self._record(call, call._replace(tensors=list(given)), entry, manner, why)

    def _record(self, call: Call, recorded: Call, entry: Entry, manner: Manner, why: str) -> Any:
        """Run the function, recorded, and keep what came of it. `recorded`: the call, with the tensors that are read
        where calls put them."""
        recording = Recording(self._name, self._function, entry.reached, recorded, manner)
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
                    self._follow(call, entry, recording)
                    end.idle = end.is_empty() and end.shared is None and not self._strict
                    later = end.idle or self._dynamic or is_marked(call.tensors) or end.effects
                    if end.shared is not None or not later:
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

    def _follow(self, call: Call, entry: Entry, recording: Recording) -> None:
        """If a call has changed Python state, next time its tensors are read where they are put."""
        if not recording.journal.changed:
            return
        for container, key in recording.journal.moved():
            self._moving.add(container, key)
        for spot, key in recording.journal.counted():
            if entry.reached.only_counts(spot.path if spot.kind is CELL else str(key)):
                self._moving.add(spot.container, key)
        if entry.reached.guards.broken() or entry.given(call.tensors) is None:
            self._drifts[call.key] = drifts = self._drifts.get(call.key, 0) + 1
            if drifts >= MAX_DRIFTS and not self._strict:
                self._failures[call.key] = MAX_ATTEMPTS
                path = recording.journal.changed[0][0].path
                self._warn(
                    CaptureError(
                        f"each call finds other Python state than the one before: {path}",
                        fix="keep what changes in tensors (and change them in place), or move it out of the function",
                    )
                )

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
