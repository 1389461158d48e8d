"""Every way through a function that tensor data may take, captured with its first call.

`kiln.jit.script` answers no questions about data while it captures. Where a branch can't be staged (`staging.py`), what
comes after it is captured once for each answer: the function is run again, as often as there are ways, with answers
that are given instead of looked up. Nothing of that is seen: what the function changes is put back (`kept.py`), and
what it computes does not matter, since a way holds for whatever data leads there. The tree that results (`tree.py`) is
closed: no call asks what it has no answer for, except for sizes that data decide, which are to a program what the
shapes of arguments are.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kiln import dispatch
from kiln.answers import left_open, truth
from kiln.base import MODES, TensorBase
from kiln.errors import CaptureError, KilnError
from kiln.kept import Kept
from kiln.recording import Recording
from kiln.region import Region
from kiln.traced import Entangled, Query, because
from kiln.tree import Eager

MAX_WAYS: Final = 128
"""Ways through one function. One that has more is refused."""


class Way(NamedTuple):
    """The questions on a way, and its end."""

    queries: Sequence[Query]
    end: Region | Eager
    recording: Recording


class Memory:
    """What tensors from outside held before a recording wrote to them, or at some other time."""

    def __init__(self, saved: list[tuple[TensorBase, TensorBase]]) -> None:
        self._saved = saved

    @classmethod
    def before(cls, recording: Recording) -> Memory:
        """What they held before that."""
        capture = recording.capture
        held = capture.before or {}
        return cls([(t, held[id(t)]) for _, t in capture.inputs if id(t) in held])

    def now(self) -> Memory:
        """What the same tensors hold now."""
        return Memory([(t, _copied(t)) for t, _ in self._saved])

    def restore(self) -> None:
        """They hold it again."""
        for t, copy in self._saved:
            dispatch.restore(t, copy._array())


def _copied(t: Any) -> Any:
    with _unwatched():
        return t.detach().clone()


@contextlib.contextmanager
def _unwatched() -> Iterator[None]:
    recorder, MODES.recorder = MODES.recorder, None
    try:
        yield
    finally:
        MODES.recorder = recorder


class Explorer:
    """All ways of one call. `make` gives a recording of the call with what is to be answered; `avoid` are the places
    that turn out not to be stageable."""

    def __init__(self, name: str, make: Callable[[Sequence[bool]], Recording], avoid: Mapping[Hashable, str]) -> None:
        self._name = name
        self._make = make
        self._avoid = avoid

    def ways(self, world: Kept) -> list[Way]:
        """Try them all. CaptureError for what can't be captured, or if there are too many."""
        while True:
            known = len(self._avoid)
            found = self._all(world, known)
            if found is not None:
                return found

    def _all(self, world: Kept, known: int) -> list[Way] | None:
        """None when a place turned out not to be stageable: ways that were found before know it as staged."""
        found: list[Way] = []
        todo: deque[list[bool]] = deque([[]])  # those that part early come first: they soon show how many there are
        while todo:
            given = todo.popleft()
            recording = self._make(given)
            way = self._one(recording, world)
            if len(self._avoid) != known:
                return None
            answers = [bool(q.answer) for q in recording.capture.queries if q.fold is truth]
            todo += [[*answers[:k], not answers[k]] for k in range(len(given), len(answers))]
            if len(found) + len(todo) > MAX_WAYS:
                self._refuse(recording)
            if way is not None:
                found.append(way)
        return found

    def _one(self, recording: Recording, world: Kept) -> Way | None:
        """One way; None if trying it told nothing of it: a call that goes there will."""
        capture = recording.capture
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                recording.run()
        except Entangled:
            return None  # and a place is known not to be stageable
        except (CaptureError, KeyboardInterrupt):
            raise
        except KilnError:
            return None  # what is computed on ways that are not taken may be nonsense
        except BaseException:  # noqa: BLE001 (a call that goes this way raises it)
            end: Region | Eager = Eager(capture, recording.arguments)
            return Way(_first(capture.queries), end, recording)
        finally:
            Memory.before(recording).restore()
            world.restore()
        if recording.end is None:
            return None
        for query in capture.queries:
            if query.fold is not truth and not left_open(query.fold):
                raise CaptureError(
                    f"{query.what} asks for tensor data while a function is captured; the compiled program could not "
                    "ask again",
                    fix="compute with tensors (kiln.where instead of if), or move this line out of the function",
                    loc=query.loc,
                )
        return Way(capture.queries, recording.end, recording)

    def _refuse(self, recording: Recording) -> None:
        last = next(q for q in reversed(recording.capture.queries) if q.fold is truth)
        raise CaptureError(
            f"there are more than {MAX_WAYS} ways through {self._name}, depending on tensor data"
            + because(recording.capture),
            fix="let both ways do the same kind of thing to tensors, and nothing else; or use kiln.where",
            loc=last.loc,
        )


def _first(queries: Sequence[Query]) -> list[Query]:
    """The questions up to the first one whose answers are not all known."""
    found: list[Query] = []
    for query in queries:
        if query.fold is not truth and not left_open(query.fold):
            break
        found.append(query)
    while found and found[-1].fold is not truth:
        found.pop()
    return found
