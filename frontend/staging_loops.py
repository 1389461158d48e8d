"""Loops that tensors end: a `while` of converted code, or a `for` over a range whose bounds are data, as one operation.

What a turn changes is carried. Which variables these are is found by trying: the body is run on what is known to be
carried so far, until a run changes nothing else. A variable that every turn sets before it reads it, and that nobody
reads afterwards, is not carried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kiln import dispatch
from kiln.base import MODES, TensorBase, layout_of
from kiln.capture import Capture, Entangled
from kiln.control_capture import Inner, _union, _written
from kiln.convert import UNBOUND, Site, State
from kiln.ir.graph import AttrValue
from kiln.ir.ops.base import OPS
from kiln.pytree import flatten, unflatten
from kiln.staging_choice import real_numbers, took
from kiln.staging_merge import (
    SAME,
    VALUE,
    Aliases,
    Joined,
    Slot,
    as_tensor,
    in_plain_python,
    plain,
    registered,
    symbolic,
    unset_like,
    values_in,
)
from kiln.staging_numbers import DTYPES, Number, like
from kiln.staging_trial import Trial, Unstaged
from kiln.traced import Twin

if TYPE_CHECKING:
    from kiln.staging import StagingHooks, Test

_MAX_ROUNDS = 12
"""Trials until it is known what is carried."""


def empty(t: Any) -> Any:
    """A tensor without data, like `t`."""
    layout = layout_of(t.dtype, t._layout.shape, None, t.device)
    made = dispatch.empty(layout)
    return dispatch.tensor_on(made._buffer, made._ptr, layout)


class Loop:
    """A loop that can be staged. Made inside an attempt; `commit` does it. `hidden` are numbers that the loop itself
    carries before the variables: `test(*hidden)` and `turn(*hidden)` get them, and `turn` returns the new ones.
    `real` is the loop in plain Python, and returns the last hidden numbers. `sure`: it takes a turn at least."""

    def __init__(
        self,
        hooks: StagingHooks,
        hidden: Sequence[Any],
        test: Callable[..., Any] | None,
        turn: Callable[..., Sequence[Any]],
        real: Callable[[], Sequence[Any]],
        state: State,
        site: Site,
        sure: bool = False,
    ) -> None:
        self._hooks, self._test, self._turn, self._real, self._state, self._site = hooks, test, turn, real, state, site
        self._sure = sure
        capture = MODES.recorder
        assert isinstance(capture, Capture)
        self._capture = capture
        self._live = site.live()
        self._before = [*hidden, *state.get()]
        self._hidden = len(hidden)
        self._names = [*(f"a number of the loop {k}" for k in range(len(hidden))), *state.names]
        self._fresh: set[int] = set()  # variables that every turn sets anew, and nobody reads afterwards
        self._carried = {(k, 0) for k in range(self._hidden) if sure}  # (variable, leaf)
        self._assigns = False  # whether the test does
        self._settle()
        self._build()

    # ---------------------------------------------------------------------------------- what is carried

    def _settle(self) -> None:
        """Try until nothing new is found to be carried."""
        for _ in range(_MAX_ROUNDS):
            self._begin()
            self._body, after = self._try_turn()
            changed = self._changes(after)
            if not changed and not self._unsettled():
                self._after = after
                return
            for k, leaf in changed:
                self._carry(k, leaf, after[k])
        raise Unstaged("a loop whose variables never settle")

    def _unsettled(self) -> bool:
        """Whether another trial would know more."""
        return False

    def _begin(self) -> None:
        """The variables as a turn finds them, carried leaves as tensors without data."""
        self._given: list[Any] = []
        self._places: list[tuple[int, int]] = []
        self._start: list[Any] = []
        for k, x in enumerate(self._before):
            if k in self._fresh:
                self._start.append(UNBOUND)
                continue
            mine = sorted(leaf for n, leaf in self._carried if n == k)
            if not mine:
                self._start.append(x)
                continue
            leaves, tree = flatten(x)
            for leaf in mine:
                old = leaves[leaf]
                made = empty(old if isinstance(old, TensorBase) else self._typed(old))
                leaves[leaf] = made if isinstance(old, TensorBase) else like(old, made)
                self._given.append(made)
                self._places.append((k, leaf))
            self._start.append(unflatten(tree, iter(leaves)))

    def _typed(self, x: Any) -> Any:
        return x.tensor if isinstance(x, Number) else dispatch.constant((), DTYPES[type(x)], x)

    def _try_turn(self) -> tuple[Trial, list[Any]]:
        hidden = self._start[: self._hidden]

        def run() -> Any:
            if self._test_assigns():
                assert self._test is not None
                self._test(*hidden)
            return self._turn(*hidden)

        first = self._start[self._hidden :]
        trial, returned, after = self._hooks.run_trial("a loop", run, self._state, first, self._given)
        return trial, [*returned, *after]

    def _test_assigns(self) -> bool:
        """Whether the test changes variables. Then each turn begins with it."""
        hidden, first = self._start[: self._hidden], self._start[self._hidden :]
        run, test = self._hooks.run_trial, self._test
        assert test is not None
        trial, answer, after = run("a test", lambda: test(*hidden), self._state, first, self._given)
        self._tested = trial, answer
        self._assigns = any(a is not b for a, b in zip(first, after, strict=True))
        return self._assigns

    def _changes(self, after: Sequence[Any]) -> list[tuple[int, int]]:
        """Leaves that a turn changes and that are not carried yet."""
        found: list[tuple[int, int]] = []
        for k, (old, new) in enumerate(zip(self._start, after, strict=True)):
            if new is old or k in self._fresh:
                continue
            if old is UNBOUND and new is not UNBOUND and (self._names[k] == VALUE or self._binds(k)):
                self._before[k] = unset_like(new)
                found.append((k, -1))
                continue
            if old is UNBOUND or new is UNBOUND:
                if self._names[k] in self._live:
                    raise Unstaged(f"{self._names[k]} may be unbound after the loop, and is read there")
                self._fresh.add(k)
                found.append((k, -1))
                continue
            olds, tree = flatten(old)
            made: list[Any] = []
            news, other = flatten(new, made)
            if tree != other or any(type(c) not in (list, dict) for c in made):
                self._reset(k, "is of another structure after a turn of the loop")
                found.append((k, -1))
                continue
            found += [
                (k, n)
                for n, (a, b) in enumerate(zip(olds, news, strict=True))
                if a is not b and (k, n) not in self._carried and not _equal(a, b)
            ]
        return found

    def _binds(self, k: int) -> bool:
        """Whether the first turn binds a variable that is read after the loop."""
        return self._sure and self._names[k] in self._live

    def _reset(self, k: int, why: str) -> None:
        """A variable that can't be carried: perhaps no turn reads what the one before it left there."""
        self._hooks.drifted.add(self._site)
        if k < self._hidden or self._names[k] in self._live or k in self._fresh:
            raise Unstaged(f"{self._names[k]} {why}")
        self._carried = {(n, leaf) for n, leaf in self._carried if n != k}
        self._fresh.add(k)

    def _carry(self, k: int, leaf: int, after: Any) -> None:
        if leaf < 0:
            return
        old, new = flatten(self._before[k])[0][leaf], flatten(after)[0][leaf]
        if isinstance(old, TensorBase) and isinstance(new, TensorBase):
            fits = plain(old) and plain(new) and old.ttype == new.ttype
        else:
            fits = kind(old) is kind(new) and kind(old) in DTYPES
        if fits:
            self._carried.add((k, leaf))
        else:
            told = [str(x.ttype) if isinstance(x, TensorBase) else f"a {kind(x).__name__}" for x in (old, new)]
            self._reset(k, f"is {told[0]} before a turn of the loop and {told[1]} after it")

    # ------------------------------------------------------------------------------------ the operation

    def _join(self) -> list[Any]:
        """What the turn leaves of what is carried."""
        self._joined = Joined(self._hooks.noted())
        leaves: list[Any] = []
        numbers: dict[tuple[int, int], int] = {place: n for n, place in enumerate(self._places)}
        for k, x in enumerate(self._after):
            mine = [(k, n) for n in range(len(flatten(x)[0]))] if any(p[0] == k for p in self._places) else []
            if not mine:
                self._check_same(k, x)
                self._joined.slots.append(Slot(None, [], UNBOUND if k in self._fresh else self._before[k]))
                continue
            found, tree = flatten(x)
            kept = flatten(self._before[k])[0]
            self._joined.slots.append(Slot(tree, [numbers.get(p, SAME) for p in mine], kept))
            leaves += [found[p[1]] for p in mine if p in numbers]
        for start, leaf, t in zip(self._places, leaves, self._given, strict=True):
            self._check(start, leaf, t)
        self._joined.results = [(leaf,) for leaf in leaves]
        return leaves

    def _check_same(self, k: int, x: Any) -> None:
        """A variable that is not carried: it is the same object after a turn, or nobody looks."""
        made: list[Any] = []
        flatten(x, made)
        if made and x is not self._start[k] and self._names[k] in self._live:
            raise Unstaged(f"{self._names[k]} is a new {type(made[0]).__name__} after a turn of the loop")

    def _look(self, body: Trial, leaves: Sequence[Any]) -> None:
        self._aliases = Aliases()
        self._aliases.look(body, leaves, self._given)

    def _build(self) -> None:
        leaves = self._join()
        body, (test, answer) = self._body, self._tested
        if test.states:
            raise Unstaged("a test that draws random numbers")
        tested = test.values([self._scalar(test, answer)])
        self._states = list(body.states.values())
        outputs = body.values([*values_in(body, leaves), *self._states])
        known = {id(t) for t in self._states}
        self._constants = [t for t in _union(test.lifted(), body.lifted()) if id(t) not in known]
        order = [*self._given, *self._states, *self._constants]
        self._look(body, leaves)
        self._attrs: dict[str, AttrValue] = {"test": test.graph(tested, order), "body": body.graph(outputs, order)}

    def _check(self, place: tuple[int, int], leaf: Any, t: Any) -> None:
        name = self._names[place[0]]
        if isinstance(leaf, TensorBase):
            if not plain(leaf) or leaf.ttype != t.ttype:
                raise Unstaged(f"{name} is {t.ttype} before a turn of the loop and {leaf.ttype} after it")
        elif DTYPES.get(kind(leaf)) is not t.dtype:
            raise Unstaged(f"{name} changes its type in a loop")

    def _scalar(self, trial: Trial, answer: Any) -> Any:
        outer, MODES.recorder = MODES.recorder, trial
        try:
            answer = self._hooks.test(answer)
            if isinstance(answer, bool):
                return as_tensor(answer)
            return answer.scalar()
        finally:
            MODES.recorder = outer

    def _starts(self) -> tuple[list[Any], list[Any]]:
        """What is carried into the first turn, and as tensors."""
        carried = [flatten(self._before[k])[0][leaf] for k, leaf in self._places]
        return carried, [as_tensor(x) for x in carried]

    def commit(self, first: Test | None = None) -> None:
        """Record the operation, run the loop, and enter what it gives. `first`: the test that says whether there is a
        turn at all, if it is known."""
        carried, starts = self._starts()
        if isinstance(self._capture, Inner):
            self._inside(starts)
        else:
            self._for_real(starts, first)
        if any(not isinstance(x, TensorBase) for x in carried):
            self._hooks.numbers()
        if self._assigns:  # what the last evaluation of the test assigned
            assert self._test is not None
            self._test()

    def _inside(self, starts: Sequence[Any]) -> None:
        made = list(OPS["while_loop"].bind([*starts, *self._states, *self._constants], self._attrs))
        made = _written(self._capture, "while_loop", made, self._states)
        self._tell(made, starts)
        after = symbolic(self._joined, self._after, made)
        self._state.set(after[self._hidden :])

    def _for_real(self, starts: Sequence[Any], first: Test | None) -> None:
        capture = self._capture
        flag = None if first is None else first.scalar()
        operands = [capture.value_of(t) for t in (*starts, *self._states, *self._constants)]
        capture._settle()
        made = capture.builder.add(OPS["while_loop"], operands, self._attrs)
        self._hooks.staged_here += 1
        with real_numbers(self._state):
            hidden = in_plain_python(self._real)
            after = self._state.get()
        count = len(starts)
        if any(type(x) is int and abs(x) >= 1 << 63 for x in flatten([*hidden, *after])[0]):
            capture.give_up(Entangled("a number of a staged loop is beyond 64 bits", frozenset({self._site})))
            return
        slots, tensors = registered(capture, self._joined, [*hidden, *after], made[:count], self._site)
        self._tell(tensors, starts, twins=flag is not None)
        for (k, leaf), t in zip(self._places, tensors, strict=True):
            old = flatten(self._before[k])[0][leaf]
            if flag is not None and isinstance(old, TensorBase) and isinstance(t, TensorBase):
                capture.twins[id(t)] = Twin(t, old, flag, False)
        for t, value in zip(self._states, made[count:], strict=True):
            took(capture, t, value)
        self._state.set(slots[self._hidden :])

    def _tell(self, tensors: Sequence[Any], starts: Sequence[Any], twins: bool = False) -> None:
        """If there is no turn, results are what they were before; a later turn may leave one where another was."""
        before = [(n, flatten(self._before[k])[0][leaf]) for n, (k, leaf) in enumerate(self._places)]
        firsts = {b: a for a, b in enumerate(range(len(starts)))}
        self._aliases.outside += [(a, starts[b]) for a, b in self._aliases.pairs if b in firsts]
        sure = self._sure
        old = [(n, t) for n, t in before if isinstance(t, TensorBase) and (not sure or n in self._aliases.kept)]
        self._aliases.tell(self._capture, tensors, self._site, old, twins)


def kind(x: Any) -> type:
    """The type of what Python takes to be a number, or of anything else."""
    return x.kind if isinstance(x, Number) else type(x)


def _equal(a: Any, b: Any) -> bool:
    """Python objects that are the same, whichever."""
    from kiln.guards import same

    return not isinstance(a, (TensorBase, Number)) and not isinstance(b, (TensorBase, Number)) and same(a, b)
