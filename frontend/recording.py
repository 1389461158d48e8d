"""One real call of a function under a capture, and what came of it: the end of a way through a tree."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from operator import is_
from typing import Any

from kiln.base import MODES, STAGES
from kiln.capture import Entangled
from kiln.entry import Call as Call
from kiln.errors import CaptureError, GradError
from kiln.lenient import LenientCapture
from kiln.pytree import flatten
from kiln.reach import Reached
from kiln.region import Region
from kiln.signature import modes, signature
from kiln.tree import Eager
from kiln.world import Audit, branches


class StateChanged(CaptureError):
    """The call changed Python state; the next one may not (what is made once is there then)."""


class Recording:
    """`run` calls the function, recorded. Then `end` is what a warm call can do, and `capture` what was recorded.

    `strict`: CaptureError is raised where a call can't be compiled; else the call goes on eagerly, `end` says so, and
    is None if the call changed Python state. `door`: where the call came in (`kiln.jit`): a trace stages nothing, and
    only `compile` answers questions about data. `avoid`: places in the code that are not staged."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        reached: Reached,
        call: Call,
        strict: bool,
        door: str,
        avoid: set[Hashable],
    ) -> None:
        self.name = name
        self._function = function
        self._reached = reached
        self._call = call
        self._strict = strict
        self.error: CaptureError | GradError | None = None
        self.end: Region | Eager | None = None
        self._avoid = avoid
        self.approve: Callable[[Any], None] = lambda returned: None
        """Told of what the call returned, before that is kept."""
        self.capture = LenientCapture(name, call.tensors, reached.guards.tensors, self._stop, strict)
        self._audit = Audit(reached.code, reached.dormant, None if strict else self.capture.leave)
        self.capture.answers = door == "compile"
        self._door = door
        self.capture.staging = self._stage
        if door != "trace" and STAGES.enabled and branches(reached.code):
            self.capture.hooks = self._stage()

    def _stage(self) -> Any:
        from kiln.staging import StagingHooks  # few functions need it

        return StagingHooks(self.capture, self._audit, self._reached.code, self._avoid)

    @contextlib.contextmanager
    def _through_door(self) -> Iterator[None]:
        before, MODES.door = MODES.door, self._door
        try:
            yield
        finally:
            MODES.door = before

    def _stop(self) -> None:
        self._audit.stop()

    def run(self) -> Any:
        """The function's result."""
        call, capture = self._call, self.capture
        containers: list[Any] = []
        before = flatten((call.args, call.kwargs), containers, call.keep)[0]
        with capture, self._through_door():
            try:
                function = self.capture.callee(self._function)
                with self._audit:
                    returned = function(*call.args, **call.kwargs)
            except Exception:
                self._look_for_refusal()
                raise
            hooks = self.capture.hooks
            if hooks is not None:
                returned = hooks.settled(returned)
            if not self._look_for_refusal():
                try:
                    self.approve(returned)
                    self._check(before)
                    _check_containers(returned, containers, self._reached.seen)
                    self.end = Region(capture, call.tensors, returned, self._reached.seen, self.name)
                except Entangled as found:
                    self._avoid |= found.sites
                except (CaptureError, GradError) as error:
                    self._fail(error)
        return returned if hooks is None else hooks.plain(returned)

    def _look_for_refusal(self) -> bool:
        """Whether there was one, even if the function's own code caught it: it went a way then that it does not go
        outside a capture. Raised if that is so."""
        refused = self._audit.refused or self.capture.refused
        if refused is None:
            return False
        if isinstance(refused, Entangled):  # the call was right, but what was recorded of it is not: once more
            self._avoid |= refused.sites
            return True
        if self._audit.hopeless:
            raise refused
        self._fail(refused)
        return True

    def _fail(self, error: CaptureError | GradError) -> None:
        if self._strict:
            raise error
        self.error = error
        if not isinstance(error, StateChanged):
            self.end = Eager(self.capture, self._call.tensors)

    def _check(self, before: Sequence[Any]) -> None:
        """CaptureError when the call changed Python state."""
        call, guards = self._call, self._reached.guards
        for path, read in self.capture.reads:
            guards.referent(path, read)
        if not self.capture.differentiated and not self.capture.queries:
            self._reached.no_gradients()
        changed = guards.broken()
        after = flatten((call.args, call.kwargs), keep=call.keep)[0]
        now = signature(call.keep, call.args, call.kwargs)[0]
        if not all(map(is_, before, after)) or (now[0], *now[2:]) != (call.key[0], *call.key[2:]):
            changed = "an argument: its items, its contents, or whether it requires a gradient"
        if changed:
            raise StateChanged(
                f"the call changed Python state: {changed}; a compiled call could not repeat that",
                fix="keep what changes in tensors (and change them in place), or move it out of the function",
            )
        if modes() != call.key[1]:
            raise CaptureError(
                "the call left gradients, inference mode or the default dtype changed", fix="use a with block"
            )


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
