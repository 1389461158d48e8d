"""The ways into capture, and what becomes of a program that goes through one.

A program is a function of one argument, `c`: `c(f)` opens a door for `f`. Each call of what comes back is observed as
a user could: result, gradients, arguments and everything that the function reaches, printed text, warnings,
exceptions, generators. The same program, built anew and run eagerly, must show the same.
"""

from __future__ import annotations

import contextlib
import functools
import io
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

import kiln
from kiln.errors import CaptureError, CaptureWarning, GradError
from tests.frontend.battery.kit import Outcome
from tests.frontend.battery.shots import Shots, generators

Program = Callable[[Any], None]


class Programs(list[Program]):
    """A table of programs: each is entered by being decorated with it."""

    def __call__(self, program: Program) -> Program:
        assert all(p.__name__ != program.__name__ for p in self), f"{program.__name__} is there twice"
        self.append(program)
        return program


def named(families: list[ModuleType]) -> dict[str, Program]:
    """The programs of these modules, by their names."""
    return {f"{m.__name__.rpartition('.')[2]}-{p.__name__}": p for m in families for p in m.PROGRAMS}


@dataclass(frozen=True)
class Door:
    """A way to open a function: `open(function, arguments of its first call)`. `example`: the function is run once for
    that, before the call. `lenient`: nothing may be refused."""

    name: str
    open: Callable[[Any, tuple[Any, ...]], Any]
    example: bool = False
    lenient: bool = False


def _script(function: Any, _: tuple[Any, ...]) -> Any:
    return kiln.jit.script(function)  # type: ignore[attr-defined]


DOORS = [
    Door("compile", lambda f, _: kiln.compile(f), lenient=True),
    Door("compile, fullgraph", lambda f, _: kiln.compile(f, fullgraph=True)),
    Door("trace", kiln.jit.trace, example=True),
    *([Door("script", _script)] if getattr(kiln.jit, "script", None) else []),
]
EAGER = Door("eager", lambda f, _: f)

KINDS = ("compiled", "staged", "tree", "eager", "refused", "wrong")
"""What may become of a program: the worst that happened to one of its calls."""


@dataclass
class Seen:
    """What a run showed. `labels` name the observations; `kind` is one of `KINDS`; `why`: what was refused, or what ran
    eagerly; `staged`: whether a call had staged branches or loops."""

    log: list[Any] = field(default_factory=list)
    unnamed: list[Any] = field(default_factory=list)
    """The same, whichever tensors are which: a tensor that comes out of a staged branch is one of its own."""
    labels: list[str] = field(default_factory=list)
    kind: str = "compiled"
    why: str = ""
    staged: bool = False

    def worse(self, kind: str, why: str = "") -> None:
        if KINDS.index(kind) > KINDS.index(self.kind):
            self.kind, self.why = kind, why


class Refused(BaseException):
    """Ends a program; no program catches it."""


class Run:
    """`c` of the programs: opens a door for functions, and observes them."""

    def __init__(self, door: Door, example: bool) -> None:
        self.door = door
        self.example = example  # whether functions are run once before their first call
        self.seen = Seen()
        self.shots = Shots()
        self.unnamed = Shots(named=False)
        self.printed = io.StringIO()
        self.opened: list[Opened] = []

    def __call__(self, function: Any) -> Opened:
        self.opened.append(Opened(self, function))
        return self.opened[-1]

    def see(self, *values: Any) -> None:
        """Observe these, too."""
        self.shoot("seen", *values)

    def shoot(self, label: str, *values: Any) -> list[Any]:
        """Describe values in the log. Returns the tensors among them."""
        self.note(label, self.shots.shot(*values), self.unnamed.shot(*values))
        return self.shots.tensors

    def note(self, label: str, value: Any, unnamed: Any = None) -> None:
        """Add to the log."""
        self.seen.labels.append(label)
        self.seen.log.append(value)
        self.seen.unnamed.append(value if unnamed is None else unnamed)


class Opened:
    """A function behind a door."""

    def __init__(self, run: Run, function: Any) -> None:
        self._run = run
        self._function = function
        self._opened: Any = None
        self._calls = 0
        self.lost = False
        """Whether the latest capture could not be kept, since the call changed Python state."""
        functools.update_wrapper(self, function, updated=())
        del self.__wrapped__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The call, observed. Raises what it raises."""
        run, self._calls = self._run, self._calls + 1
        label = f"call {self._calls} of {getattr(self._function, '__name__', type(self._function).__name__)}"
        error = result = None
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(run.printed):
            warnings.simplefilter("always")
            try:
                result = self._called(args, kwargs)
            except CaptureError as refusal:
                run.seen.worse("refused", _first_line(refusal))
                raise Refused from refusal
            except Exception as raised:  # noqa: BLE001 (whatever it is, it is what is observed)
                error = raised
        told = [(w.category.__name__, str(w.message)) for w in warned if w.category is not CaptureWarning]
        run.note(f"printed by {label}", run.printed.getvalue())
        run.note(f"warnings of {label}", told)
        run.note(f"exception of {label}", None if error is None else (type(error).__name__, str(error)))
        results = run.shoot(f"result of {label}", result)
        state = run.shoot(f"arguments and state after {label}", error, args, kwargs, self._function)
        run.note(f"generators after {label}", generators())
        run.note(f"gradients of {label}", _gradients(run.shots, results, [*results, *state]))
        if error is not None:
            raise error
        return result

    def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = self._run
        if self._opened is None:
            if run.door is EAGER:
                if run.example:
                    self._function(*args, **kwargs)
                self._opened = self._function
            elif kwargs and run.example:
                raise CaptureError("examples are positional")
            else:
                self._opened = run.door.open(self._function, args)
        if run.door is EAGER:
            return self._opened(*args, **kwargs)
        before = self._opened.report()
        try:
            result = self._opened(*args, **kwargs)
        except CaptureError:
            raise
        except Exception:
            after = self._opened.report()  # what raises runs eagerly, so that it raises at its line
            _judge(run.seen, before, after, ran_eagerly=False)
            raise
        after = self._opened.report()
        run.seen.staged |= any(region.staged for region in self._opened.regions())
        self.lost = after.captured > before.captured and len(after.captures) == len(before.captures)
        _judge(run.seen, before, after, ran_eagerly=after.eager > before.eager)
        return result


def _judge(seen: Seen, before: Any, after: Any, ran_eagerly: bool) -> None:
    """What became of a call, from the reports before and after it."""
    if after.decided > before.decided or "a question about tensor data" in str(after.captures):
        seen.worse("tree")
    if after.staged > before.staged:
        seen.worse("staged")
    if ran_eagerly or len(after.refusals) > len(before.refusals):
        why = after.refusals[-1].partition(" runs eagerly, not compiled: ")[2] if after.refusals else ""
        seen.worse("eager", why.partition("\n")[0] or "a check failed")


def _gradients(shots: Shots, results: list[Any], reached: list[Any]) -> Any:
    """Gradients of what a call gave, for all leaves in sight."""
    outputs = [t for t in results if t.requires_grad and not t.is_leaf]
    leaves = list({id(t): t for t in reached if t.requires_grad and t.is_leaf}.values())
    if not outputs or not leaves:
        return None
    try:
        with kiln.enable_grad():
            total = sum((t.abs() if t.is_complex() else t.sin()).sum().double() for t in outputs)
            grads = kiln.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
    except GradError as error:
        return type(error).__name__
    except RuntimeError as error:
        return type(error).__name__, str(error)
    return shots.shot(*[None if g is None else (str(g.ttype), g.detach().numpy().tobytes()) for g in grads])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _observed(program: Program, door: Door, example: bool) -> Seen:
    kiln.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    run = Run(door, example)
    try:
        program(run)
    except Refused:
        return run.seen
    except Exception as error:  # noqa: BLE001 (a program may end so where it is run twice over)
        run.note("exception of the program", (type(error).__name__, str(error)))
    run.note("generators", generators())
    if any(function.lost for function in run.opened):
        run.seen.worse("eager", "the call changed Python state")
    return run.seen


@functools.cache
def eagerly(program: Program, example: bool) -> Seen:
    """What a program does without capture."""
    return _observed(program, EAGER, example)


@functools.cache
def through(program: Program, door: Door) -> Seen:
    """What becomes of a program behind a door; `why` tells what is wrong, if something is."""
    expected = eagerly(program, door.example)
    seen = _observed(program, door, door.example)
    pairs = (expected.unnamed, seen.unnamed) if seen.staged else (expected.log, seen.log)
    for label, a, b in zip(expected.labels, *pairs, strict=False):
        if a != b:
            seen.worse("wrong", f"{label}: {difference(a, b)}")
            return seen
    if seen.kind != "refused" and len(seen.log) != len(expected.log):
        seen.worse("wrong", "another number of observations")
    return seen


def difference(a: Any, b: Any) -> str:
    """Where two observations differ first."""
    if type(a) is type(b) and isinstance(a, (tuple, list)) and len(a) == len(b):
        return next((difference(x, y) for x, y in zip(a, b, strict=True) if x != y), "")
    return f"eagerly {_short(a)}, behind the door {_short(b)}"


def _short(x: Any) -> str:
    text = repr(x)
    return text if len(text) < 400 else f"{text[:400]}..."


def summary(outcome: Outcome) -> str:
    """What became of one of the short programs."""
    if outcome.refused is not None:
        return "refused"
    reports = [f.report() for f in outcome.functions]
    if any(r.eager or r.refusals for r in reports):
        return "eager"
    if any(r.decided or "a question about tensor data" in str(r.captures) for r in reports):
        return "tree"
    return "staged" if any(r.staged for r in reports) else "compiled"
