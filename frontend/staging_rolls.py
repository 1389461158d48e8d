"""Loops whose number of turns is known, over a `range`, the rows of tensors, or `enumerate` and `zip` of these: one
turn of the body in the program, whatever their number.

Short loops are left to Python, which unrolls them: what stands in one line fuses. So are those that can't be staged;
unrolled they are right, too. A loop that data may end early is a `while_loop`, any other one a `scan`: what it goes
over and what it appends to lists lies in tensors, of which a turn reads and writes its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from kiln import dispatch
from kiln.base import MODES, READONLY, TensorBase, layout_of
from kiln.capture import Capture, Entangled
from kiln.control_capture import Inner, _written
from kiln.convert import Site, State
from kiln.guards import same
from kiln.ir.ops.base import OPS
from kiln.pytree import flatten, unflatten
from kiln.staging_choice import real_numbers, took
from kiln.staging_grown import Grown, Rows, lists_of, replaced
from kiln.staging_loops import Loop, empty
from kiln.staging_merge import in_plain_python, plain, registered, symbolic, values_in
from kiln.staging_numbers import fits
from kiln.staging_places import part_of
from kiln.staging_ranges import going, left
from kiln.staging_trial import Trial, Unstaged, locals_of
from kiln.traced import edge, entangle
from kiln.world import paused

if TYPE_CHECKING:
    from kiln.staging import StagingHooks

LEAST: Final = 16
"""So many turns make a loop worth an operation of its own."""
_END: Final = 1 << 53


@dataclass
class Source:
    """What a loop goes over: `counters` are the starts and steps of numbers that count, `rows` tensors that it walks
    along; `item` makes of such numbers and rows what a turn gets."""

    length: int
    counters: list[tuple[int, int]]
    rows: list[Any]
    item: Callable[[Sequence[Any], Sequence[Any]], Any]

    def turn(self, k: int) -> Any:
        """What the k-th turn gets."""
        return self.item([start + k * step for start, step in self.counters], [x[k] for x in self.rows])

    def rest(self) -> Source:
        """Without the first turn."""
        counters = [(start + step, step) for start, step in self.counters]
        return Source(self.length - 1, counters, [x[1:] for x in self.rows], self.item)


class Deferred:
    """A tensor whose rows are taken when the first one is asked for."""

    def __init__(self, x: Any) -> None:
        self._x = x

    def __iter__(self) -> Iterator[Any]:
        yield from self._x


class Counted(enumerate[Any]):
    """`enumerate` of what a loop can be rolled over. `source` as long as nothing was taken from it."""

    source: Source | None

    def __next__(self) -> Any:
        self.source = None
        return super().__next__()


class Zipped(zip):  # type: ignore[type-arg]
    """`zip` of such things."""

    source: Source | None

    def __next__(self) -> Any:
        self.source = None
        return super().__next__()


def source_of(x: Any) -> Source | None:
    """What a loop over `x` goes over; None where it can't be rolled, or is too short."""
    if type(x) is range:
        ends = x.start, x.start + len(x) * x.step
        if len(x) < LEAST or not all(fits(end) and abs(end) < _END for end in ends):
            return None
        return Source(len(x), [(x.start, x.step)], [], lambda numbers, rows: numbers[0])
    if type(x) is dispatch.tensor_class():
        if not x.ndim or x.shape[0] < LEAST:
            return None
        return Source(x.shape[0], [], [x], lambda numbers, rows: rows[0])
    if type(x) in (Counted, Zipped):
        return x.source  # type: ignore[no-any-return]
    return None


def counted(*args: Any, **kwargs: Any) -> Any:
    """`enumerate`, of what can be rolled."""
    given = dict(zip(("iterable", "start"), args, strict=False)) | kwargs
    start = given.get("start", 0)
    source = source_of(given.get("iterable"))
    if source is None or set(given) - {"iterable", "start"} or type(start) is not int or abs(start) >= _END:
        return None
    made = Counted(_deferred(given["iterable"]), start)
    made.source = replace(
        source,
        counters=[(start, 1), *source.counters],
        item=lambda numbers, rows: (numbers[0], source.item(numbers[1:], rows)),
    )
    return made


def zipped(*args: Any, strict: bool = False, **unknown: Any) -> Any:
    """`zip`, of what can be rolled."""
    sources = [source_of(x) for x in args]
    known = [s for s in sources if s is not None]
    if unknown or not known or len(known) < len(sources):
        return None
    length = min(s.length for s in known)
    if any((s.rows or strict) and s.length != length for s in known):
        return None
    made = Zipped(*map(_deferred, args))

    def item(numbers: Sequence[Any], rows: Sequence[Any]) -> Any:
        found: list[Any] = []
        n = r = 0
        for s in known:
            found.append(s.item(numbers[n : n + len(s.counters)], rows[r : r + len(s.rows)]))
            n, r = n + len(s.counters), r + len(s.rows)
        return tuple(found)

    made.source = Source(length, [c for s in known for c in s.counters], [x for s in known for x in s.rows], item)
    return made


def _deferred(x: Any) -> Any:
    return Deferred(x) if isinstance(x, TensorBase) else x


def roll(hooks: StagingHooks, iterable: Any, body: Callable[[Any], None], state: State, site: Site) -> None:
    """A `for` loop: staged, or left to Python, which unrolls it. Where only what is there before the first turn is of
    another kind than what turns leave (`total = 0`), the first turn is Python's."""
    source = source_of(iterable)
    assert source is not None
    hooks.drifted.discard(site)
    if _roll(hooks, source, body, state, site):
        return
    with locals_of(state, hooks.outer):
        first = 0
        if site in hooks.drifted and site.exit is None and source.length > LEAST:
            body(source.turn(0))
            if _roll(hooks, source.rest(), body, state, site):
                hooks.avoid.pop(site, None)
                return
            first = 1
        for k in range(first, source.length):
            body(source.turn(k))
            if left(state, site) is True:
                break


def _roll(hooks: StagingHooks, source: Source, body: Callable[[Any], None], state: State, site: Site) -> bool:
    """Stage a loop; False if that can't be."""

    def real() -> Sequence[Any]:
        turns = 0
        with paused():  # the trial was watched
            while turns < source.length and left(state, site) is not True:
                body(source.turn(turns))
                turns += 1
        return [start + turns * step for start, step in source.counters]

    with hooks.attempt(site, optional=True) as attempt:
        if site.exit is None:
            attempt.append(Roll(hooks, source, body, real, state, site))
        else:
            attempt.append(_ending(hooks, source, body, real, state, site))
    if attempt:
        attempt[0].commit()
    return bool(attempt)


def _ending(
    hooks: StagingHooks,
    source: Source,
    body: Callable[[Any], None],
    real: Callable[[], Sequence[Any]],
    state: State,
    site: Site,
) -> Loop:
    """A loop that may be left early: rows are taken by a number that counts."""
    starts = [start for start, _ in source.counters]
    steps = [step for _, step in source.counters]

    def turn(k: Any, *numbers: Any) -> Sequence[Any]:
        going(state, site)
        rows = [part_of(x, (k.tensor,)) for x in source.rows]
        body(source.item(numbers, rows))
        return (k + 1, *(n + step for n, step in zip(numbers, steps, strict=True)))

    def test(k: Any, *_: Any) -> Any:
        inside, out = hooks.as_bool(k < source.length), left(state, site)
        return inside if out is False else hooks.both_of(inside, hooks.not_(out))

    def counted_real() -> Sequence[Any]:
        ends = real()
        return [0, *ends]

    return Loop(hooks, (0, *starts), test, turn, counted_real, state, site, sure=True)


class Roll(Loop):
    """A loop of a known number of turns that can be staged. Made inside an attempt; `commit` does it."""

    def __init__(
        self,
        hooks: StagingHooks,
        source: Source,
        body: Callable[[Any], None],
        real: Callable[[], Sequence[Any]],
        state: State,
        site: Site,
    ) -> None:
        self._source = source
        self._rows = list(source.rows)
        """What is walked along: after what the loop goes over, tensors of which a turn reads the row of its number."""
        self._wishes: list[Any] = []
        noted = hooks.noted() if isinstance(MODES.recorder, Inner) else ()
        self._lists = [grown for grown in lists_of(state, hooks.outer) if id(grown.held) not in noted]
        counters = source.counters

        def turn(*numbers: Any) -> Sequence[Any]:
            body(source.item(numbers, self._parts[: len(source.rows)]))
            return [n + step for n, (_, step) in zip(numbers, counters, strict=True)]

        self._last: set[int] = set()  # variables that end as a row
        try:
            super().__init__(hooks, [start for start, _ in counters], None, turn, real, state, site, sure=True)
        except BaseException:
            self._forget()  # a traceback may keep this
            raise

    def _forget(self) -> None:
        """So that again only the variables know the lists."""
        for grown in self._lists:
            grown.held = []
        self._lists = []

    # ------------------------------------------------------------------------------------------- trials

    def _try_turn(self) -> tuple[Trial, list[Any]]:
        self._rows += self._wishes
        self._wishes = []
        self._parts = [_part(x) for x in self._rows]
        hooks = self._hooks
        hooks.rolling.append(self)
        try:
            trial, after = self._try_lists()
        finally:
            hooks.rolling.pop()
        for t in (*self._given, *self._parts):
            if trial.entries[id(t)].storage.stamp:
                raise Unstaged("a loop that writes in place to what the turn before it left")
        return trial, after

    def _try_lists(self) -> tuple[Trial, list[Any]]:
        """Try a turn. A list that it reads is no list that it appends to, and is left as it is."""
        hidden, first = self._start[: self._hidden], self._start[self._hidden :]
        hooks, given = self._hooks, [*self._given, *self._parts]
        while True:
            looked_at: list[Grown] = []

            def fail(grown: Grown, why: str, looked_at: list[Grown] = looked_at) -> Any:
                looked_at.append(grown)
                hooks.fail(why)

            def run(fail: Callable[[Grown, str], Any] = fail) -> Any:
                return replaced(self._lists, lambda: self._turn(*hidden), self._capture, fail)

            tried: list[tuple[Trial, list[Any]]] = []
            with hooks.retrying(looked_at):
                trial, returned, after = hooks.run_trial("a loop", run, self._state, first, given)
                tried.append((trial, [*returned, *after]))
            if tried:
                return tried[0]
            self._lists = [grown for grown in self._lists if all(grown is not each for each in looked_at)]

    def _changes(self, after: Sequence[Any]) -> list[tuple[int, int]]:
        """As for any loop; and what ends as the row of a turn is the last row, which no turn may read."""
        found: list[tuple[int, int]] = []
        for k in range(self._hidden, len(after)):
            if k not in self._last and any(after[k] is part for part in self._parts):
                self._last.add(k)
                self._fresh.add(k)
                found.append((k, -1))
        return found or super()._changes(after)

    def _unsettled(self) -> bool:
        return bool(self._wishes)

    def row(self, x: Any, i: Any) -> Any:
        """x[i] inside a turn, where `i` counts from 0 in steps of 1 over the rows of a tensor from outside."""
        for k, counter in enumerate(self._source.counters):
            if counter == (0, 1) and i is self._start[k].tensor and x.ndim and x.shape[0] == self._source.length:
                break
        else:
            return None
        for known, part in zip(self._rows, self._parts, strict=True):
            if known is x:
                return part
        if type(x) is dispatch.tensor_class() and not _flows(x) and self._from_outside(x):
            self._wishes.append(x)
        return None

    def _from_outside(self, x: Any) -> bool:
        """Whether a tensor is there before the loop."""
        at: Any = MODES.recorder
        while at is not None and at is not self._capture:
            entry = at.entries.get(id(x))
            if entry is not None and (entry.storage.input is None or any(entry.storage.root is g for g in at.given)):
                return False
            at = getattr(at, "parent", None)
        return at is not None

    # ---------------------------------------------------------------------------------------- operation

    def _build(self) -> None:
        leaves = self._join()
        body = self._body
        self._check_rows(leaves)
        self._states = list(body.states.values())
        self._collect(leaves)
        outputs = body.values([*values_in(body, leaves), *self._states, *self._stacked])
        known = {id(t) for t in self._states}
        self._constants = [t for t in body.lifted() if id(t) not in known]
        order = [*self._given, *self._states, *self._parts, *self._constants]
        self._look(body, leaves)
        self._gives = len(outputs)
        self._attrs = {
            "body": body.graph(outputs, order),
            "carried": len(self._given) + len(self._states),
            "xs": len(self._parts),
            "length": self._source.length,
            "reverse": False,
        }

    def _check_rows(self, leaves: Sequence[Any]) -> None:
        for x in self._rows:
            if _flows(x):
                raise Unstaged("a loop over the rows of a tensor through which gradients flow")
        for leaf in leaves:
            if isinstance(leaf, TensorBase):
                entry = self._body.entries.get(id(leaf))
                if entry is not None and any(entry.storage.root is part for part in self._parts):
                    raise Unstaged("a loop that leaves a row of a tensor in a variable")

    def _look(self, body: Trial, leaves: Sequence[Any]) -> None:
        """What moves from one variable to another is no other name of what is there now: it was made turns ago."""
        super()._look(body, leaves)
        ends = [self._end(body, leaves, k) for k in range(len(leaves))]
        found = self._aliases.pairs
        found[:] = [(k, j) for k, j in found if ends[k] is None or leaves[k] is not self._given[j]]
        known = [k for k, end in enumerate(ends) if end is not None]
        found += [(a, b) for a in known for b in known if a < b and ends[a] == ends[b]]

    def _end(self, body: Trial, leaves: Sequence[Any], k: int) -> tuple[int, int] | None:
        """The memory that a turn made and that a variable holds in the end, and how many turns ago that was; None where
        it may be another one."""
        for ago in range(min(len(leaves) + 1, self._source.length)):
            if not isinstance(leaves[k], TensorBase):
                return None
            storage = (body.entries.get(id(leaves[k])) or body._lift(leaves[k])).storage
            if id(storage) in body.entangled:
                return None
            if storage.input is None:
                return id(storage), ago
            starts = [j for j, given in enumerate(self._given) if leaves[k] is given]
            if not starts:
                return None
            k = starts[0]
        return None

    def _collect(self, leaves: Sequence[Any]) -> None:
        """What the turn appended to lists: `_stacked` are the tensors of it that every turn makes."""
        self._stacked: list[Any] = []
        self._grown = [grown for grown in self._lists if grown.items]
        carried = {id(leaf): k for k, leaf in enumerate(leaves)}
        for grown in self._grown:
            containers: list[Any] = []
            for x in flatten(grown.items, containers)[0]:
                if isinstance(x, TensorBase):
                    self._append(x, leaves, carried)
                elif not isinstance(x, (str, bool, int, float, type(None))):
                    raise Unstaged(f"a loop that appends a {type(x).__qualname__} to a list")
            if len(containers) > 1:
                raise Unstaged("a loop that appends lists or dicts to a list")

    def _append(self, t: Any, leaves: Sequence[Any], carried: dict[int, int]) -> None:
        if any(t is known for known in self._stacked):
            return
        body = self._body
        entry = body.entries.get(id(t)) or body._lift(t)
        storage = entry.storage
        starts = [k for k, g in enumerate(self._given) if t is g]
        whole = not entry.chain and storage.root is t and id(storage) not in body.entangled
        if storage.input is not None and not starts:
            if not whole or any(storage.root is part for part in self._parts):
                raise Unstaged("a loop that appends a view to a list")
            return  # the same tensor in every turn
        if starts:  # what the turn before left
            left = leaves[starts[0]]
            made = body.entries.get(id(left))
            whole = whole and made is not None and made.storage.input is None and not made.chain
            whole = whole and made is not None and made.storage.root is left and id(made.storage) not in body.entangled
        if not whole or not plain(t):
            raise Unstaged("a loop that appends to a list what is no tensor of its own")
        if isinstance(self._capture, Inner) and any(leaf is g for leaf in leaves for g in self._given):
            raise Unstaged("a loop that appends to a list, and whose variables pass on what they hold")
        if isinstance(self._capture, Inner) and starts and id(leaves[starts[0]]) in map(id, self._stacked):
            raise Unstaged("a loop that appends one tensor in two turns")
        self._stacked.append(t)

    def commit(self, first: Any = None) -> None:
        carried, starts = self._starts()
        if isinstance(self._capture, Inner):
            self._inside(starts)
        else:
            self._for_real(starts, None)
        self._bind_rows()
        self._forget()
        if any(not isinstance(x, TensorBase) for x in carried[self._hidden :]):
            self._hooks.numbers()

    def _bind_rows(self) -> None:
        """Variables that end as a row hold the last one."""
        if MODES.recorder is not self._capture:
            return
        found: dict[int, Any] = {}
        values = list(self._state.get())
        for k in sorted(self._last):
            if self._names[k] in self._live:
                (n,) = (n for n, part in enumerate(self._parts) if part is self._after[k])
                if n not in found:
                    found[n] = self._rows[n][self._source.length - 1]
                values[k - self._hidden] = found[n]
        if found:
            self._state.set(values)

    def _inside(self, starts: Sequence[Any]) -> None:
        operands = [*starts, *self._states, *self._rows, *self._constants]
        bound = list(OPS["scan"].bind(operands, self._attrs)) if self._gives else []
        count, states = len(starts), len(self._states)
        made = _written(
            self._capture,
            "scan",
            [*bound[:count], *bound[count + states :], *bound[count : count + states]],
            self._states,
        )
        self._tell(made, starts)
        after = symbolic(self._joined, self._after, made[:count])
        self._state.set(after[self._hidden :])
        if self._grown:
            self._grow_inside(made, starts)

    def _grow_inside(self, made: Sequence[Any], starts: Sequence[Any]) -> None:
        """The lists of a trial, with the rows of all turns."""
        capture, n = self._capture, self._source.length
        count = len(starts)
        tensors: dict[int, list[Any]] = {}
        for t, whole in zip(self._stacked, made[count:], strict=True):
            rows = [empty(t) for _ in range(n)]
            for k, g in enumerate(self._given):
                if t is g and isinstance(starts[k], TensorBase):
                    rows[0] = starts[k]
            for k, leaf in enumerate(self._joined.results):
                if leaf[0] is t:
                    rows[-1] = made[k]
                    storage = capture.entries[id(made[k])].storage
                    entangle(capture, storage, storage, self._site)
            Rows(rows, capture.value_of(whole), whole, self._site).tell(capture)
            tensors[id(t)] = rows
        for grown in self._grown:
            leaves, tree = flatten(grown.items)
            for k in range(n):
                grown.held += unflatten(tree, iter([tensors[id(x)][k] if id(x) in tensors else x for x in leaves]))
            self._hooks.noted().forget(grown.held)

    def _for_real(self, starts: Sequence[Any], first: Any) -> None:
        capture = self._capture
        operands = [capture.value_of(t) for t in (*starts, *self._states, *self._rows, *self._constants)]
        capture._settle()
        made = capture.builder.add(OPS["scan"], operands, self._attrs) if self._gives else ()
        self._hooks.staged_here += 1
        sizes = [len(grown.held) for grown in self._grown]
        with real_numbers(self._state):
            hidden = in_plain_python(self._real)
            after = self._state.get()
        count = len(starts)
        rows = [self._real_rows(size, grown) for size, grown in zip(sizes, self._grown, strict=True)]
        large = any(type(x) is int and abs(x) >= 1 << 63 for x in flatten([*hidden, *after])[0])
        if large or any(found is None for found in rows):
            told = "what a staged loop left in a list or a number is not what its trial was of"
            capture.give_up(Entangled(told, frozenset({self._site})))
            return
        slots, tensors = registered(capture, self._joined, [*hidden, *after], made[:count], self._site)
        self._tell(tensors, starts)
        values = dict(zip(map(id, self._stacked), made[count + len(self._states) :], strict=True))
        for found in rows:
            for key, of_turns in (found or {}).items():
                Rows(of_turns, values[key], None, self._site).tell(capture)
        for t, value in zip(self._states, made[count : count + len(self._states)], strict=True):
            took(capture, t, value)
        self._state.set(slots[self._hidden :])

    def _real_rows(self, size: int, grown: Grown) -> dict[int, list[Any]] | None:
        """What each stacked tensor was in each turn, of those in a list; None where that can't be said."""
        found: dict[int, list[Any]] = {}
        leaves, tree = flatten(grown.items)
        items, each = grown.held[size:], len(grown.items)
        if len(items) != self._source.length * each:
            return None
        stacked = {id(t) for t in self._stacked}
        for k in range(0, len(items), each):
            real, other = flatten(items[k : k + each])
            if other != tree:
                return None
            new: set[int] = set()
            for x, t in zip(leaves, real, strict=True):
                if id(x) not in stacked:
                    if x is not t and (isinstance(x, TensorBase) or not same(x, t)):
                        return None
                elif id(x) not in new:
                    new.add(id(x))
                    if type(t) is not type(x) or t.ttype != x.ttype or not plain(t) or t._view is not None:
                        return None
                    found.setdefault(id(x), []).append(t)
        return found


def _flows(x: Any) -> bool:
    """Whether gradients flow to a tensor."""
    return MODES.grad_enabled and edge(x)


def _part(x: Any) -> Any:
    """A row of a tensor, without data; nothing may be written to it."""
    layout = layout_of(x.dtype, x._layout.shape[1:], None, x.device)
    made = dispatch.empty(layout)
    return dispatch.tensor_on(made._buffer, made._ptr, layout, READONLY)


def is_rolled(hooks: StagingHooks, x: Any, site: Site) -> bool:
    """Whether a `for` loop over `x` may be rolled."""
    if not isinstance(MODES.recorder, Capture) or MODES.layers or site in hooks.avoid:
        return False
    return source_of(x) is not None and hooks.may_stage(site)
