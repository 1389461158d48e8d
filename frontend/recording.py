"""One real call of a function under a capture, and what came of it: the end of a way through a tree."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

from kiln import nans
from kiln.base import MODES, STAGES
from kiln.capture import Entangled
from kiln.entry import Call, Manner
from kiln.errors import CaptureError, GradError
from kiln.journal import Journal, StateChanged, unrepeatable
from kiln.lenient import LenientCapture
from kiln.pytree import flatten
from kiln.reach import Reached
from kiln.region import Region
from kiln.signature import modes, signature
from kiln.traced import Given
from kiln.tree import Eager
from kiln.world import Audit, catches, converts


class CheckCaught(StateChanged):
    """The call caught the error of a check on data. One that passes it can be captured, and then runs compiled; where
    a compiled call fails it, the call runs eagerly."""


class Recording:
    """`run` calls the function, recorded. Then `end` is what a warm call can do, and `capture` what was recorded.
    `given`: the first answers to what is asked for its truth, whatever the data say (`exploring.py`)."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        reached: Reached,
        call: Call,
        how: Manner,
        given: Sequence[bool] | None = None,
    ) -> None:
        self.name = name
        self._function = function
        self._reached = reached
        self._call = call
        self._how = how
        self.error: CaptureError | GradError | None = None
        self.end: Region | Eager | None = None
        self.approve: Callable[[Any], None] = lambda returned: None
        """Told of what the call returned, before that is kept."""
        self.capture = LenientCapture(name, call.tensors, reached.guards.tensors, self._stop, how.strict)
        self.journal: Journal
        """What the call changed in Python, once it has run."""
        self._audit = Audit(reached.code, reached.dormant, None if how.strict else self.capture.leave)
        self.capture.answers = how.door == "compile"
        self.capture.explored = how.door == "script"
        self.capture.caught = how.door != "trace" and catches(reached.code)
        self.capture.before = {} if how.check_nan else None
        if given is not None:
            self.capture.forced, self.capture.answers = Given(given), True
        if how.door == "script":
            self.capture.before = {}
        self.capture.frozen = how.frozen
        self.capture.staging = self._stage
        self.capture.bridging = self._bridge
        if how.door != "trace" and STAGES.enabled and converts(reached.code):
            self.capture.hooks = self._stage()

    @property
    def arguments(self) -> list[Any]:
        """The tensors that the call was given."""
        return self._call.tensors

    def _stage(self) -> Any:
        from kiln.staging import StagingHooks  # few functions need it

        return StagingHooks(self.capture, self._audit, self._reached.code, self._how.avoid)

    def _bridge(self, node: Any, arguments: Sequence[Any], outputs: Sequence[Any]) -> None:
        """A user's function with a derivative of its own was called."""
        from kiln.function_capture import Bridges  # few calls have such

        if self.capture.bridges is None:
            self.capture.bridges = Bridges(self.capture, self._audit, self.journal)
        self.capture.bridges.add(node, arguments, outputs)

    @contextlib.contextmanager
    def _through_door(self) -> Iterator[None]:
        before, MODES.door = MODES.door, self._how.door
        try:
            yield
        finally:
            MODES.door = before

    def _stop(self) -> None:
        self._audit.stop()

    def run(self) -> Any:
        """The function's result."""
        try:
            return self._recorded()
        except Exception as error:
            if self.capture.hooks is not None:
                self.capture.hooks.settle_errors(error)
            raise
        finally:
            if self.capture.hooks is not None:
                call = self._call
                given = [call.args, call.kwargs, *self._reached.guards.containers()]
                self.capture.hooks.settle(given, vars(self).get("journal"))

    def _recorded(self) -> Any:
        call, capture = self._call, self.capture
        containers: list[Any] = []
        before = flatten((call.args, call.kwargs), containers, call.keep)[0]
        journal = self.journal = Journal(self._reached.guards, containers)
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
                    self.approve(returned if hooks is None else hooks.shown(returned))
                    self._check(before, journal)
                    owned = self._reached.seen
                    if self._how.door == "trace":
                        _check_containers(returned, containers, owned)
                    self.end = Region(capture, call.tensors, returned, owned, self.name, self._how.family, journal)
                    self.end.recorded = self._how.recorded
                    self.end.give_up(capture, self._how.donated)
                except Entangled as found:
                    self._how.avoid.update(dict.fromkeys(found.sites, found.message))
                except (CaptureError, GradError) as error:
                    self._fail(error)
        if self._how.check_nan and isinstance(self.end, Region):
            self.end.check_nan = True
            nans.look_at_capture(self.end, capture, returned)
        if hooks is None:
            return returned
        hooks.settle_errors(None)
        return hooks.plain(returned)

    def _look_for_refusal(self) -> bool:
        """Whether there was one, even if the function's own code caught it: it went a way then that it does not go
        outside a capture. Raised if that is so."""
        refused = self._audit.refused or self.capture.refused
        if refused is None:
            return False
        if isinstance(refused, Entangled):  # the call was right, but what was recorded of it is not: once more
            self._how.avoid.update(dict.fromkeys(refused.sites, refused.message))
            return True
        if self._audit.hopeless:
            raise refused
        self._fail(refused)
        return True

    def _fail(self, error: CaptureError | GradError) -> None:
        if self._how.strict:
            raise error
        self.error = error
        if not isinstance(error, StateChanged):
            self.end = Eager(self.capture, self._call.tensors)

    def _check(self, before: Sequence[Any], journal: Journal) -> None:
        """CaptureError when the call changed what a compiled call can't change, or went on after a check that another
        call may pass."""
        if self.capture.failed is not None:
            raise CheckCaught(
                f"the call caught an error that depends on tensor data: {self.capture.failed.message}",
                loc=self.capture.failed.loc,
                fix="test the data (a comparison, kiln.isfinite, kiln.linalg.inv_ex) in place of try",
            )
        call, guards = self._call, self._reached.guards
        for path, read in self.capture.reads:
            guards.referent(path, read)
        if not self.capture.differentiated and not self.capture.queries:
            self._reached.no_gradients()
        self._reached.check_counted()
        journal.look()
        if signature(call.keep, tuple(before), {})[0][3:] != call.key[3:]:
            raise unrepeatable("an argument: its contents, or whether it requires a gradient")
        if journal.changed and self._how.door == "trace":
            raise unrepeatable(journal.changed[0][0].path)
        if journal.changed and journal.entangled(self._reached.seen):
            raise unrepeatable("an argument that the function also reaches by itself")
        if modes() != call.key[1]:
            raise CaptureError(
                "the call left gradients, inference mode, autocast or the default dtype changed", fix="use a with block"
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
