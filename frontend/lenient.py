"""A capture that lets go: where it would refuse, the call goes on eagerly, and is not compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Concatenate, ParamSpec, cast

from kiln.base import MODES, TensorBase
from kiln.capture import Capture, Entangled
from kiln.errors import CaptureError

P = ParamSpec("P")


def _unless_gone(
    listen: Callable[Concatenate[LenientCapture, P], None],
) -> Callable[Concatenate[LenientCapture, P], None]:
    """What tensors report, up to the first refusal."""

    @functools.wraps(listen)
    def wrapped(self: LenientCapture, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.refused is None:
            try:
                listen(self, *args, **kwargs)
            except CaptureError as refusal:
                self.give_up(refusal)

    return cast("Callable[Concatenate[LenientCapture, P], None]", wrapped)


class LenientCapture(Capture):
    """See the module. `left` is called once, with the refusal, when the capture lets go. A `strict` one does so only
    where what was staged turns out to be something else than what Python does (`Entangled`)."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[TensorBase],
        reachable: dict[int, TensorBase],
        left: Callable[[], None],
        strict: bool = False,
    ) -> None:
        super().__init__(name, arguments, reachable)
        self._left = left
        self._strict = strict

    def leave(self, refusal: CaptureError) -> None:
        """Stop listening; the call goes on."""
        if self.refused is None:
            self.refused = refusal
        MODES.recorder = None
        self._left()

    def give_up(self, refusal: CaptureError) -> None:
        if self._strict and not isinstance(refusal, Entangled):
            raise refusal
        if self.forced is not None:  # a call that nobody waits for: what it would still write could not be put back
            self.refused = self.refused or refusal
            raise refusal
        self.leave(refusal)

    def ask(self, tensor: TensorBase, what: str, fold: Callable[[Any], Hashable]) -> Hashable:
        if self.refused is None:
            try:
                return super().ask(tensor, what, fold)
            except CaptureError as refusal:
                self.give_up(refusal)
        return fold(tensor._array())

    record = _unless_gone(Capture.record)
    record_write = _unless_gone(Capture.record_write)
    writing = _unless_gone(Capture.writing)
    forbid = _unless_gone(Capture.forbid)
    reject = _unless_gone(Capture.reject)
    grad_read = _unless_gone(Capture.grad_read)
    grad_write = _unless_gone(Capture.grad_write)
    hook = _unless_gone(Capture.hook)
    change = _unless_gone(Capture.change)
    pass_on = _unless_gone(Capture.pass_on)
    walk = _unless_gone(Capture.walk)
    depend = _unless_gone(Capture.depend)
