"""A branch that tensors decide, as one operation: an `if` of converted code, a ternary, an `and` or `or`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kiln.base import MODES, TensorBase
from kiln.capture import Capture, Entangled
from kiln.control_capture import Inner, _union, _written
from kiln.convert import Site, State
from kiln.ir.graph import AttrValue, Graph
from kiln.ir.ops.base import OPS
from kiln.pytree import flatten
from kiln.staging_merge import Aliases, Joined, in_plain_python, registered, symbolic, values_in
from kiln.staging_numbers import NOW, mapped

if TYPE_CHECKING:
    from kiln.staging import StagingHooks

Branch = Callable[[], Any]


class Choice:
    """A branch that can be staged. Made inside an attempt; `commit` does it."""

    def __init__(self, hooks: StagingHooks, test: Any, then: Branch, orelse: Branch, state: State, site: Site) -> None:
        self._hooks, self._test, self._branches, self._state, self._site = hooks, test, (then, orelse), state, site
        capture = MODES.recorder
        assert isinstance(capture, Capture)
        self._capture = capture
        self._before = state.get()
        sides = [hooks.run_trial("a branch", b, state, self._before) for b in self._branches]
        trials = [trial for trial, _, _ in sides]
        self._joined = Joined(hooks._noted or (), lambda n, t: _is_own(trials[n], t))
        live = site.live()
        for k, name in enumerate(state.names):
            if name in live:
                self._joined.add(name, [after[k] for _, _, after in sides])
            else:
                self._joined.skip()
        self._joined.add("the value", [returned for _, returned, _ in sides])
        self._sides = sides
        self._states = _union(*(list(trial.states.values()) for trial, _, _ in sides))
        self._aliases = Aliases()
        outputs = []
        for n, (trial, _, _) in enumerate(sides):
            leaves = [each[n] for each in self._joined.results]
            self._aliases.look(trial, leaves)
            outputs.append(trial.values([*values_in(trial, leaves), *self._states]))
        self._order = _union(self._states, *(trial.lifted() for trial, _, _ in sides))
        self._graphs: list[Graph] = [
            trial.graph(values, self._order) for (trial, _, _), values in zip(sides, outputs, strict=True)
        ]

    def commit(self) -> Any:
        """Record the operation, run the branch that is taken, and enter what it gives. Returns what it returns."""
        if isinstance(self._capture, Inner):
            return self._inside()
        return self._for_real()

    def _attrs(self) -> dict[str, AttrValue]:
        return dict(zip(("then", "else"), self._graphs, strict=True))

    def _inside(self) -> Any:
        """In a trial around this one: nothing is run."""
        results: list[Any] = []
        if self._joined.results or self._states:
            operands = [self._test.scalar(), *self._order]
            results = list(OPS["cond"].bind(operands, self._attrs()))
            _write_states(self._capture, self._states, results)
        _, returned, after = self._sides[0]
        slots = symbolic(self._joined, [*after, returned], results)
        self._aliases.tell(self._capture, results, self._site)
        self._state.set(slots[:-1])
        return self._done(slots[-1])

    def _for_real(self) -> Any:
        capture, hooks = self._capture, self._hooks
        results: Sequence[Any] = ()
        if self._joined.results or self._states:
            operands = [capture.value_of(t) for t in (self._test.scalar(), *self._order)]
            capture._settle()
            results = capture.builder.add(OPS["cond"], operands, self._attrs())
        with real_numbers(self._state):
            self._joined.taken = self._test.now()
            returned = in_plain_python(self._branches[0] if self._joined.taken else self._branches[1])
            after = self._state.get()
        if any(type(x) is int and abs(x) >= 1 << 63 for x in flatten([*after, returned])[0]):
            capture.give_up(Entangled("a number of a staged branch is beyond 64 bits", frozenset({self._site})))
            return returned
        hooks.staged_here += bool(results)
        count = len(self._joined.results)
        slots, tensors = registered(capture, self._joined, [*after, returned], results[:count], self._site)
        self._aliases.tell(capture, tensors, self._site)
        for t, value in zip(self._states, results[count:], strict=True):
            took(capture, t, value)
        self._state.set(slots[:-1])
        return self._done(slots[-1])

    def _done(self, returned: Any) -> Any:
        if any(not isinstance(each[0], TensorBase) for each in self._joined.results):
            self._hooks.numbers()
        return returned


def _is_own(trial: Inner, t: Any) -> bool:
    """Whether a tensor of a text was made in a branch."""
    entry = trial.entries.get(id(t))
    return entry is not None and entry.storage.input is None


def took(capture: Capture, t: Any, value: Any) -> None:
    """The memory of `t` was written, by code that the capture did not see, with what the graph has as `value`."""
    storage = capture.entries[id(t)].storage
    entry = capture.entries[id(t)]
    storage.value, storage.version = value, t._buffer.version
    storage.stamp += 1
    entry.value, entry.stamp = value, storage.stamp


def _write_states(capture: Capture, states: Sequence[Any], results: list[Any]) -> None:
    """In a trial: the states of generators, which are the last results, are written."""
    results[:] = _written(capture, "cond", results, states)


@contextlib.contextmanager
def real_numbers(state: State) -> Iterator[None]:
    """Inside, variables hold Python's own numbers."""
    changed = []
    for cell in state.visible.values():
        try:
            x = cell.cell_contents
        except ValueError:  # not bound
            continue
        real = mapped(x, NOW)
        if real is not x:
            cell.cell_contents = real
            changed.append((cell, real, x))
    try:
        yield
    finally:
        for cell, real, x in changed:
            with contextlib.suppress(ValueError):
                if cell.cell_contents is real:
                    cell.cell_contents = x
