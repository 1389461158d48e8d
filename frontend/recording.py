"""One real call of a function under a capture, and what came of it: the end of a way through a tree."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Sequence
from operator import is_
from typing import Any, NamedTuple

from kiln.base import STAGES
from kiln.capture import Entangled
from kiln.errors import CaptureError, GradError
from kiln.lenient import LenientCapture
from kiln.pytree import flatten
from kiln.reach import Reached
from kiln.region import Region
from kiln.signature import modes, signature
from kiln.tree import Eager
from kiln.world import Audit, branches


class Call(NamedTuple):
    """A call, and what `signature` says of it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keep: tuple[int, ...]
    key: tuple[Any, ...]
    tensors: list[Any]
    objects: list[Any]


class StateChanged(CaptureError):
    """The call changed Python state; the next one may not (what is made once is there then)."""


class Recording:
    """`run` calls the function, recorded. Then `end` is what a warm call can do, and `capture` what was recorded.

    `strict`: CaptureError is raised where a call can't be compiled; else the call goes on eagerly, `end` says so, and
    is None if the call changed Python state. `answers`: whether questions about data are allowed."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        reached: Reached,
        call: Call,
        strict: bool,
        answers: bool,
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
        self.capture = LenientCapture(name, call.tensors, reached.guards.tensors, self._stop, strict)
        self._audit = Audit(reached.code, reached.dormant, None if strict else self.capture.leave)
        self.capture.answers = answers
        if STAGES.enabled and branches(reached.code):
            from kiln.staging import StagingHooks  # few functions need it

            self.capture.hooks = StagingHooks(self.capture, self._audit, reached.code, avoid)

    def _stop(self) -> None:
        self._audit.stop()

    def run(self) -> Any:
        """The function's result."""
        try:
            return self._recorded()
        finally:
            if self.capture.hooks is not None:
                self.capture.hooks.settle()

    def _recorded(self) -> Any:
        call, capture = self._call, self.capture
        containers: list[Any] = []
        before = flatten((call.args, call.kwargs), containers, call.keep)[0]
        with capture:
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
        if self.capture.failed:
            raise CaptureError(
                f"{self.capture.failed.op} failed because of tensor data, and the error was caught; a compiled call "
                "would not fail likewise",
                fix="ask for what would fail beforehand, and don't try it",
            )
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
