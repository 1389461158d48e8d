"""Staging: the control flow of a captured function as it stands in Python becomes operations that hold graphs.

`StagingHooks` answers the questions of converted code (`convert/`). A test of a tensor is staged: both branches, or the
body of the loop, are tried out on tensors without data (`staging_trial.py`), what they leave in variables is joined
(`staging_merge.py`), and one operation is recorded. The call itself is a real one: Python runs the branch that is
taken, or the loop, as it would without a capture, and its results are entered as those of the operation. What can't be
staged asks for the truth of the tensor, as every test did: a decision (`tree.py`), or, where a capture answers no
questions (`Capture.answers`), a refusal at the user's line.

A capture stages when it has hooks: `capture.hooks = StagingHooks(capture, audit, code, avoid)`, and `capture.callee(f)`
is `f` converted. `Recording` does both for every function that branches or loops, so whoever records a call with
`answers=False` gets a function that is staged or refused.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence, Set, Sized
from operator import is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import Any, Final, NoReturn

from kiln import functional as F
from kiln import movement
from kiln.base import MODES, TensorBase
from kiln.capture import Capture, Entangled
from kiln.control_capture import Inner
from kiln.convert import Refused, Site, State, converted, made
from kiln.errors import CaptureError
from kiln.ir.ops.base import OPS
from kiln.journal import Journal
from kiln.pytree import flatten, unflatten
from kiln.staging_calls import among, standing, taking, with_numbers
from kiln.staging_choice import Branch, Choice
from kiln.staging_grown import joined
from kiln.staging_loads import NAMES, Loads, Stores
from kiln.staging_loops import Loop
from kiln.staging_merge import in_plain_python
from kiln.staging_names import Originals
from kiln.staging_numbers import KNOWN, NOW, Lazy, Number, keyed, known, mapped, scalar, with_numbers_of_now
from kiln.staging_prints import TextHooks
from kiln.staging_ranges import StagedRange, loop_over, staged_range
from kiln.staging_rolls import counted, is_rolled, roll, zipped
from kiln.staging_spelling import lazy_in
from kiln.staging_text import Text
from kiln.staging_trial import Noted, Snapshot, Trial, Unstaged, harmless, locals_of, roots
from kiln.world import Audit, makes, paused

_FEW: Final = 4


class Test:
    """A test that may be staged: of a tensor of one element, or of a number that tensors decide."""

    __slots__ = ("of",)

    def __init__(self, of: Any) -> None:
        self.of = of

    def __bool__(self) -> bool:
        return bool(self.of)

    def scalar(self) -> Any:
        """Its truth as a 0-d bool tensor."""
        return scalar(self.of.truth().tensor if isinstance(self.of, Number) else self.of)

    def now(self) -> bool:
        """Its truth in this very call, which nothing is told of."""
        return bool(self.of.now()) if isinstance(self.of, Number) else in_plain_python(bool, self.of)


class StagingHooks(TextHooks):
    """See the module. `known` is the user's code, `avoid` the sites that are left to decisions, to which those are
    added that can't be staged."""

    def __init__(self, capture: Capture, audit: Audit, known: Set[CodeType], avoid: dict[Hashable, str]) -> None:
        super().__init__(known)
        self.capture = capture
        self.avoid = avoid
        self.staged_here = 0
        """How many operations were recorded."""
        self._audit = audit
        self._runtimes: list[Any] = []
        self._converted: dict[int, tuple[Any, Any]] = {}
        self.twins: dict[int, tuple[Any, Any]] = {}
        """Tensors that stand for one that a branch gave, by id, with that."""
        self._originals = Originals(self._real)
        self.outer: dict[int, CellType] = {}
        """Cells that were there before the call, by id."""
        self._noted: Noted | None = None
        self._loads: Loads | None = None
        self._stores = Stores(avoid)
        self._sites: list[Site] = []
        self.rolling: list[Any] = []
        """The loops of known length that are being tried, the innermost last."""
        self.drifted: set[Site] = set()
        """Loops that had a variable of another kind before a turn than after it."""
        self._failure: CaptureError | None = None
        self._why: dict[Hashable, str] = {}
        self._numbers = makes(known) or makes(audit.dormant)
        """Whether there may be numbers or text that tensors decide. An expression has its hooks before it makes one."""
        self.quiet = 0
        """Whether code runs that knows nothing of them: functions of libraries, which may call the user's."""
        self.asked: tuple[Site, str] | None = None
        """What asked last for the truth of a tensor, since it could not be staged, and why."""
        audit.made = made

    # ------------------------------------------------------------------------------------- converting

    def settled(self, returned: Any) -> Any:
        """What a call returned, whose dicts and sets have Python's own numbers as keys."""
        return keyed(returned) if self._numbers else returned

    def plain(self, returned: Any) -> Any:
        """What a call returned, with Python's own numbers, and the tensors that its branches gave."""
        returned = self._originals.of(returned) if self.twins else returned
        leaves, tree = flatten(returned)
        real = [self._real(x) for x in leaves]
        return returned if all(map(is_, leaves, real)) else unflatten(tree, iter(real))

    def shown(self, returned: Any) -> Any:
        """The same as far as its kinds matter: a copy, in which twins remain."""
        return mapped(returned, NOW)

    def asked_for(self, returned: Any) -> Any:
        """The same, for code that is not converted."""
        return self.plain(mapped(self.settled(returned), KNOWN))

    def _real(self, x: Any) -> Any:
        while id(x) in self.twins:
            _, x = self.twins[id(x)]
        return x.now() if isinstance(x, Lazy) else x

    def settle(self, containers: Iterable[Any], journal: Journal | None) -> None:
        """What outlives the call, and these containers from outside, hold Python's own numbers, and the tensors that
        branches gave."""
        if self.twins:
            self._originals.settle(journal, list(self.capture.grads.values()))
            self._originals.tell([t for t, _ in self.twins.values()])
        if self._numbers:
            for x in containers:
                with_numbers_of_now(x)
        for cell in self.outer.values():
            with contextlib.suppress(ValueError):  # not bound
                x = cell.cell_contents
                real = mapped(x, NOW) if self._numbers else x
                if real is not x:
                    cell.cell_contents = real

    def begin(self, runtime: Any) -> None:
        self._runtimes.append(runtime)
        _set(runtime, self._source())

    def callee(self, function: Any) -> Any:
        if MODES.recorder is not None or self.capture.forced is not None:
            stand_in = self.text_callee(function)
            if stand_in is not None:
                return stand_in
        if MODES.recorder is not None:
            if function is range:
                return staged_range
            if id(function) in _STAND_INS:
                return _STAND_INS[id(function)]
            stand_in = taking(function) or (standing(function) if self._numbers else None)
            if stand_in is not None:
                return stand_in
        if type(function) is FunctionType or type(function) is MethodType:
            function = self._conversion(function)
        elif not isinstance(function, (type, BuiltinFunctionType, TensorBase)):
            function = self._conversion(_unwrapped(function))
        if self._noted is not None:
            self._try_call(function)
        return with_numbers(function) if self._numbers else function

    def _conversion(self, function: Any) -> Any:
        """The user's function, converted if it can be."""
        if type(function) is MethodType:
            plain = function.__func__
            if type(plain) is not FunctionType:
                return function
            made_of = self._conversion(plain)
            return function if made_of is plain else MethodType(made_of, function.__self__)
        if type(function) is FunctionType:
            if function.__code__ not in self._known or made(function.__code__):
                return function
        elif not self._is_users(type(function)):
            return function
        key = id(function)
        if key not in self._converted:
            self.outer.update((id(cell), cell) for cell in getattr(function, "__closure__", None) or ())
            try:
                with paused():
                    self._converted[key] = function, converted(function, self)
            except Refused:
                self._converted[key] = function, function
        return self._converted[key][1]

    def _is_users(self, kind: type) -> bool:
        call = next((vars(c)["__call__"] for c in kind.__mro__ if "__call__" in vars(c)), None)
        return type(call) is FunctionType and call.__code__ in self._known

    # ----------------------------------------------------------------------------------------- asking

    def test(self, value: Any) -> Any:
        if isinstance(value, TensorBase):
            if value._layout.numel == 1 and not MODES.layers and isinstance(MODES.recorder, (Inner, Capture)):
                return Test(value)
        elif isinstance(value, Number) and MODES.recorder is not None:
            return Test(value)
        elif isinstance(value, Test):
            return value
        return bool(value)

    def truth(self, value: Any) -> bool:
        return bool(value)

    def staged(self, value: Any) -> bool:
        if isinstance(value, Number) and MODES.recorder is not None:
            return not value.settled()
        return isinstance(value, Test)

    def not_(self, value: Any) -> Any:
        if isinstance(value, Number) and value.kind is bool and MODES.recorder is not None:
            value = Test(value)
        if not isinstance(value, Test) or MODES.recorder is None:
            return not value
        return Number(bool, OPS["logical_not"](value.scalar()))

    def is_(self, a: Any, b: Any) -> bool:
        if isinstance(a, Number) or isinstance(b, Number):
            others = [x for x in (a, b) if not isinstance(x, (Number, bool, int, float))]
            return not others and (a is b or known(a) is known(b))
        if a is not b and isinstance(a, TensorBase) and isinstance(b, TensorBase):
            self._names_matter(a, b)
            return self._real(a) is self._real(b)
        return a is b

    def is_not(self, a: Any, b: Any) -> bool:
        return not self.is_(a, b)

    def contains(self, container: Any, item: Any) -> Any:
        if isinstance(item, TensorBase) and not isinstance(container, TensorBase):
            self._names_matter(item)
            inside = container if isinstance(container, Collection) else ()
            if id(item) in self.twins or any(id(x) in self.twins for x in inside):
                return self._real(item) in [self._real(x) for x in container]
        if isinstance(item, Text):
            item = item.known()
        found = among(container, item) if self._numbers and MODES.recorder is not None else None
        return super().contains(container, item) if found is None else found

    def _names_matter(self, a: Any, b: Any = None) -> None:
        """Python asks whether two tensors, or one and any other, are the same one, which may depend on a staged
        branch."""
        capture = MODES.recorder
        while isinstance(capture, Capture):
            one, other = (capture.entries.get(id(t)) for t in (a, b))
            for entry, partner in ((one, other), (other, one)):
                sites, partners = (
                    (frozenset(), ()) if entry is None else capture.entangled.get(id(entry.storage), (frozenset(), ()))
                )
                if sites and (b is None or (partner is not None and any(s is partner.storage for s in partners))):
                    found = Entangled("which tensor a name is of depends on data", sites)
                    if isinstance(MODES.recorder, Inner):
                        raise found
                    capture.give_up(found)
                    return
            capture = getattr(capture, "parent", None)

    # --------------------------------------------------------------------------------------- branches

    def if_(self, test: Any, then: Branch, orelse: Branch, state: State, site: Site, /) -> None:
        self._choose(test, then, orelse, state, site)

    def ifexp(self, test: Any, then: Branch, orelse: Branch, state: State, site: Site, /) -> Any:
        return self._choose(test, then, orelse, state, site)

    def and_(self, left: Any, right: Branch, state: State, site: Site, /) -> Any:
        if isinstance(left, Number):
            return self._choose(left, right, lambda: _own(left), state, site)
        return self._choose(left, lambda: self.as_bool(right()), lambda: False, state, site)

    def or_(self, left: Any, right: Branch, state: State, site: Site, /) -> Any:
        if isinstance(left, Number):
            return self._choose(left, lambda: _own(left), right, state, site)
        return self._choose(left, lambda: True, lambda: self.as_bool(right()), state, site)

    def as_bool(self, value: Any) -> Any:
        """What a condition gives, as a bool."""
        value = self.test(value)
        return Number(bool, value.scalar()) if isinstance(value, Test) else value

    def assert_(self, test: Any, message: Branch | None, state: State, site: Site, /) -> None:
        if not test:
            raise AssertionError(*(() if message is None else (known(message()),)))

    def _choose(self, test: Any, then: Branch, orelse: Branch, state: State, site: Site) -> Any:
        """A branch on a test; what the branch returns."""
        test = self.test(test)
        if isinstance(test, Test) and self.may_stage(site):
            with self.attempt(site) as attempt:
                staged = Choice(self, test, then, orelse, state, site)
                attempt.append(staged)
            if attempt:
                return attempt[0].commit()
        with locals_of(state, self.outer):
            return then() if self._asked(test, site) else orelse()

    def _asked(self, test: Any, site: Site) -> bool:
        """The truth of what is not staged: a question about data."""
        capture = MODES.recorder
        if isinstance(capture, Capture) and not isinstance(capture, Inner) and site in self.avoid:
            self.asked = site, self.avoid[site]
            if capture.answers or capture.explored:
                return bool(test)
            capture.refuse(
                f"this {site.kind} depends on tensor data, and can't be part of the program: {self.avoid[site]}",
                fix="let both ways do the same kind of thing to tensors, and nothing else; or use kiln.where",
            )
        return bool(test)

    def may_stage(self, site: Site) -> bool:
        if self._sites.count(site) or not isinstance(MODES.recorder, Capture):
            return False  # a function that calls itself under a condition of tensors would be expanded without end
        return site not in self.avoid

    # ------------------------------------------------------------------------------------------ loops

    def while_(self, test: Any, again: Branch, body: Branch, state: State, site: Site, /) -> None:
        def real() -> Sequence[Any]:
            going, rest = start.now(), self.turns()
            while going and rest:
                body()
                going, rest = bool(again()), rest - 1
            return ()

        def turn() -> Sequence[Any]:
            body()
            return ()

        start = self.test(test)
        if isinstance(start, Test) and self.may_stage(site):
            with self.attempt(site) as attempt:
                attempt.append(Loop(self, (), again, turn, real, state, site))
            if attempt:
                attempt[0].commit(start)
                return
        with locals_of(state, self.outer):
            while self._asked(test, site):
                body()
                test = again()

    def stages(self, slot: list[Any], site: Site, /) -> bool:
        return (isinstance(slot[0], StagedRange) and MODES.recorder is not None) or is_rolled(self, slot[0], site)

    def for_(self, iterable: Any, body: Callable[[Any], None], state: State, site: Site, /) -> None:
        if isinstance(iterable, StagedRange):
            loop_over(self, iterable, body, state, site)
        else:
            roll(self, iterable, body, state, site)

    def turns(self) -> int:
        """How many turns of a loop are run for real: where answers are given, data may be such that it never ends."""
        return _FEW if self.capture.forced is not None else sys.maxsize

    def both_of(self, a: Any, b: Any) -> Any:
        """Two conditions that cost nothing, joined."""
        one, other = self.test(a), self.test(b)
        if not isinstance(one, Test):
            return other if one else False
        if not isinstance(other, Test):
            return one if other else False
        return Number(bool, OPS["logical_and"](one.scalar(), other.scalar()))

    def noted(self) -> Any:
        """The containers that were there before what is being tried."""
        return self._noted or ()

    # ----------------------------------------------------------------------------------------- trials

    @contextlib.contextmanager
    def attempt(self, site: Site, optional: bool = False) -> Iterator[list[Any]]:
        """Try something out. The list that is given is empty afterwards if it failed, and all is as it was before. If
        that is `optional`, a trial around it goes on."""
        capture = MODES.recorder
        assert isinstance(capture, Capture)
        outermost = self._noted is None
        snapshot = Snapshot(capture)
        result: list[Any] = []
        if outermost:
            self._noted = Noted()
            self._loads = Loads(self._noted, self.avoid, self.rolling)
            self._audit.object = self.fail
            self._switch(self._loads)
            self._failure = None
        self._sites.append(site)
        noted, failure = self._noted, self._failure
        try:
            yield result
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever a branch does that is perhaps not taken)
            result.clear()
            told = f"it raises {type(error).__name__}" + ("" if lazy_in(error.args) else f": {error}")
            self._why[site] = error.message if isinstance(error, CaptureError) else told
            self._failure = self._failure or (error if isinstance(error, CaptureError) else None)
        finally:
            self._sites.pop()
            if outermost:
                changed = noted.restore() if noted is not None else False
                if changed or self._failure is not None:
                    result.clear()
                    self._why.setdefault(site, "it changes a container from outside")
                self._noted = self._loads = self._audit.object = self._failure = None
                self._switch(self._source())
                self._audit.resume()
            elif optional:
                self._failure = failure
        if not result:
            snapshot.restore()
            if outermost:
                self.avoid[site] = self._why[site]

    def silent(self) -> bool:
        """Whether what is run is a way that is looked into, and not taken."""
        return self.capture.forced is not None

    def refuse_call(self, what: str, why: str) -> None:
        """A call that can't be repeated, nor tried out: "what() why"."""
        if self._noted is not None:
            self.fail(why)
        self._audit.refuse(what)

    @contextlib.contextmanager
    def retrying(self, again: Sized) -> Iterator[None]:
        """What fails inside is as if it had not been tried, if `again` holds something then."""
        assert isinstance(MODES.recorder, Capture)
        snapshot, failure = Snapshot(MODES.recorder), self._failure
        try:
            yield
        except Exception:  # whatever came of it
            if not len(again):
                raise
            snapshot.restore()
            self._failure = failure

    def fail(self, why: str) -> NoReturn:
        self._failure = self._failure or Unstaged(why)
        raise self._failure

    def _source(self) -> Any:
        """Whose loads and stores converted code calls now."""
        return self._loads or (self._stores if self._numbers else self)

    def numbers(self) -> None:
        """From here on there may be numbers that tensors decide."""
        if not self._numbers:
            self._numbers = True
            self._switch(self._source())

    def _switch(self, source: Any) -> None:
        for runtime in self._runtimes:
            _set(runtime, source)

    def _try_call(self, function: Any) -> None:
        """A call is about to be made in a trial."""
        if not harmless(function, made):
            self.fail(f"a branch that calls {getattr(function, '__qualname__', type(function).__qualname__)}")
        assert self._noted is not None
        for x in roots(function):
            self._noted.note(x)

    def run_trial(
        self, what: str, branch: Callable[..., Any], state: State, before: Sequence[Any], given: Sequence[Any] = ()
    ) -> tuple[Trial, Any, tuple[Any, ...]]:
        """Run a branch on tensors without data, from `before`: what it returns, and what it leaves in the variables.
        These are put back."""
        capture = MODES.recorder
        assert isinstance(capture, Capture) and self._noted is not None
        kept = state.get()
        for cell in state.visible.values():
            with contextlib.suppress(ValueError):
                self._noted.note(cell.cell_contents)
        state.set(before)
        trial = Trial(capture, what, given)
        try:
            returned = trial.run(_nothing, branch)
            after = state.get()
            for name, cell, old, new in zip(state.names, state.cells, before, after, strict=True):
                if old is not new and id(cell) in self.outer:
                    raise Unstaged(f"a branch that sets {name}, a variable of a function around it")
        finally:
            state.set(kept)
            changed = self._noted.restore(forget=False)  # before another branch may undo it
        if changed:
            self.fail("it changes a container from outside")
        if self._failure is not None:  # and the user's code caught it
            raise self._failure
        return trial, returned, after


def _nothing() -> None:
    """Has no variables."""


def _own(x: Any) -> Any:
    """A number as the code around it has it: Python's own where no capture listens."""
    return known(x) if MODES.recorder is None else x


def _unwrapped(function: Any) -> Any:
    """What a compiled function is inside a capture: the function itself."""
    from kiln.jit import CompiledFunction  # lies above this file

    while issubclass(type(function), CompiledFunction):
        function = function._function
    return function


def _stand_in(function: Any, special: Any) -> Any:
    """A function that does what `special` does, and where that gives None what `function` does."""

    def instead(*args: Any, **kwargs: Any) -> Any:
        made = special(*args, **kwargs)
        return function(*args, **kwargs) if made is None else made

    return instead


_STAND_INS: Final = {
    id(f): _stand_in(f, special)
    for f, special in (
        (enumerate, counted),
        (zip, zipped),
        *((f, functools.partial(joined, f)) for f in (F.stack, F.cat, movement.concat)),
    )
}


def _set(runtime: Any, source: Any) -> None:
    for name in NAMES:
        setattr(runtime, name, getattr(source, name))
