"""Faults of capture to plant, each of a kind that a compiler like this one gets: the fuzzer must find every one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from fuzz_faults import as_kiln, dropped_write_back, stale_views

from kiln import capture, dispatch, guards, kept, recording, region, signature, texts, tree
from kiln.guards import MISSING
from kiln.journal import Instead
from kiln.random import default_generator


def unguarded_attributes() -> AbstractContextManager[Any]:
    """What attributes and globals were is not noted."""

    def entry(self: Any, path: str, space: dict[str, Any], name: str) -> Any:
        return space.get(name, MISSING)

    return mock.patch.object(guards.Guards, "entry", as_kiln(entry))


def unguarded_containers() -> AbstractContextManager[Any]:
    """What lists and dicts held is not noted."""
    return mock.patch.object(guards.Guards, "items", as_kiln(lambda self, path, container: tuple(container)))


@contextlib.contextmanager
def unchecked_aliases() -> Iterator[None]:
    """Inputs that share memory are taken for apart."""

    def nothing(inputs: Any, written: Any) -> None:
        pass

    with (
        mock.patch.object(capture, "check_separate", as_kiln(nothing)),
        mock.patch.object(region, "check_separate", as_kiln(nothing)),
        mock.patch.object(capture.Capture, "_check_version", as_kiln(nothing)),
    ):
        yield


def forgotten_generator() -> AbstractContextManager[Any]:
    """The state of the generator of random numbers is not written back."""
    right = capture.Capture.storages

    def storages(self: Any) -> Sequence[Any]:
        return [s for s in right(self) if s.root is not default_generator.state]

    return mock.patch.object(capture.Capture, "storages", as_kiln(storages))


def ignored_answer() -> AbstractContextManager[Any]:
    """A decision goes the way that was captured first, whatever the data says."""
    right = tree.Decision.answer

    def first(self: Any, arguments: Any, known: Any) -> Any:
        answer = right(self, arguments, known)
        return answer if answer is None else next(iter(self.answers))

    return mock.patch.object(tree.Decision, "answer", as_kiln(first))


def lost_effects_of_a_failure() -> AbstractContextManager[Any]:
    """Where a compiled call fails midway, what eager does before the error is not done."""
    right = region.Region.run

    def run(self: Any, inputs: Any, arguments: Any, carried: Any = ()) -> Any:
        try:
            return right(self, inputs, arguments, carried)
        except dispatch.CheckFailed as error:
            raise IndexError(str(error)) from None

    return mock.patch.object(region.Region, "run", as_kiln(run))


def lost_gradients() -> AbstractContextManager[Any]:
    """Gradients that a call sets are forgotten."""
    return mock.patch.object(region.Region, "_grad_write", as_kiln(lambda self, slot, listening, owned: None))


def another_tensor() -> AbstractContextManager[Any]:
    """An argument that is returned comes back as another tensor on its memory."""
    right = region.Region._on_input

    def on_input(self: Any, t: Any, listening: Any) -> Any:
        return replace(right(self, t, listening), same=False)

    return mock.patch.object(region.Region, "_on_input", as_kiln(on_input))


@contextlib.contextmanager
def forgotten_modes() -> Iterator[None]:
    """Whether gradients are enabled tells no calls apart."""
    with (
        mock.patch.object(signature, "modes", as_kiln(lambda: ())),
        mock.patch.object(recording, "modes", as_kiln(lambda: ())),
    ):
        yield


def unnoticed_changes() -> AbstractContextManager[Any]:
    """A call that changes Python state is compiled all the same."""
    return mock.patch.object(recording.Recording, "_check", as_kiln(lambda self, *of: None))


def lost_prints() -> AbstractContextManager[Any]:
    """A compiled call does not print."""
    return mock.patch.object(texts.Print, "commit", as_kiln(lambda self, scene: None))


@contextlib.contextmanager
def old_texts() -> Iterator[None]:
    """A text is made once, of the data that came first."""
    made: dict[int, tuple[Any, str]] = {}
    right = texts.Template.make

    def make(self: Any, results: Any) -> str:
        return made.setdefault(id(self), (self, right(self, results)))[1]

    with mock.patch.object(texts.Template, "make", as_kiln(make)):
        yield


@contextlib.contextmanager
def old_numbers() -> Iterator[None]:
    """A number that a compiled call returns is that of the call before."""
    right = region.leaf_of
    last: dict[int, Any] = {}

    def leaf_of(made: Any, k: int, x: Any) -> Any:
        now = right(made, k, x)
        if k < 0 or x is None or isinstance(x, (Instead, texts.Template)):
            return now
        before, last[k] = last.get(k, now), now
        return before

    with mock.patch.object(region, "leaf_of", as_kiln(leaf_of)):
        yield


def forgotten_names() -> AbstractContextManager[Any]:
    """What a staged loop without a turn leaves is a new tensor."""
    right = region.leaf_of

    def leaf_of(made: Any, k: int, x: Any) -> Any:
        return made[k] if isinstance(x, Instead) else right(made, k, x)

    return mock.patch.object(region, "leaf_of", as_kiln(leaf_of))


def unknown_names() -> AbstractContextManager[Any]:
    """What a staged branch gives is a tensor of its own, whatever it was in the branch."""
    return mock.patch.object(region, "check_names", as_kiln(lambda *of: None))


def traces_of_trials() -> AbstractContextManager[Any]:
    """What a script's function does to Python where its other ways are looked into stays."""
    return mock.patch.object(kept.Kept, "restore", as_kiln(lambda self: None))


@dataclass(frozen=True)
class Fault:
    """How to plant a fault, and the families of templates whose programs are searched."""

    plant: Callable[[], AbstractContextManager[Any]]
    families: tuple[str, ...]
    first: int = 0
    """The seed to begin at: what it takes to show the fault is rare."""


FAULTS: dict[str, Fault] = {
    "unguarded attributes": Fault(unguarded_attributes, ("attributes", "globals")),
    "unguarded containers": Fault(unguarded_containers, ("containers", "attributes"), 20),
    "unchecked aliases": Fault(unchecked_aliases, ("writes",), 35),
    "forgotten generator": Fault(forgotten_generator, ("random",)),
    "ignored answer": Fault(ignored_answer, ("raising", "returns")),
    "lost effects of a failure": Fault(lost_effects_of_a_failure, ("slices", "raising"), 33),
    "lost gradients": Fault(lost_gradients, ("gradients",)),
    "another tensor": Fault(another_tensor, ("returns", "functions")),
    "forgotten modes": Fault(forgotten_modes, ("parameters", "gradients", "modes")),
    "unnoticed changes": Fault(unnoticed_changes, ("attribute writes", "container writes")),
    "lost prints": Fault(lost_prints, ("prints",)),
    "old texts": Fault(old_texts, ("prints",)),
    "old numbers": Fault(old_numbers, ("numbers",)),
    "forgotten names": Fault(forgotten_names, ("names",)),
    "unknown names": Fault(unknown_names, ("names",)),
    "traces of trials": Fault(traces_of_trials, ("container writes", "early")),
    "dropped write-back": Fault(dropped_write_back, ("writes",)),
    "stale views": Fault(stale_views, ("views", "slices")),
}
