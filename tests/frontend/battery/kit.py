"""What the battery of small programs is run with.

A program is a function of two arguments: `c` wraps a function (with `kiln.compile`, or eagerly not at all), and `see`
notes what a user could observe. It is run twice, and what was seen must be the same.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

import kiln
from kiln.base import TensorBase
from kiln.errors import ArgumentError, CaptureError, KilnError
from kiln.tally import Tally

_numbers = itertools.count()


@dataclass(frozen=True)
class Program:
    """One row of the battery. `expected`: "right", "refused" with `fullgraph` (and else right), or "always refused".
    `captures`: how many there may be at most in all (none:
    not looked at). `wrong`: what is known to be wrong about it."""

    name: str
    run: Callable[[Any, Any], None]
    expected: str
    captures: int | None
    wrong: str


class Table(list[Program]):
    """Programs, entered by decorators."""

    def right(self, captures: int | None = None, wrong: str = "") -> Callable[[Any], Any]:
        """The compiled program does what the eager one does, with at most so many captures."""
        return self._entry("right", captures, wrong)

    def refused(self, wrong: str = "", always: bool = False) -> Callable[[Any], Any]:
        """CaptureError, at the first call or a later one: with `fullgraph`, or always."""
        return self._entry("always refused" if always else "refused", None, wrong)

    def _entry(self, expected: str, captures: int | None, wrong: str) -> Callable[[Any], Any]:
        def enter(function: Any) -> Any:
            assert all(p.name != function.__name__ for p in self), f"{function.__name__} is there twice"
            self.append(Program(function.__name__, function, expected, captures, wrong))
            return function

        return enter


class Witness:
    """Notes values: tensors with data, layout, flags, gradients, identity and shared memory."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self._tensors: dict[int, tuple[int, Any]] = {}
        self._buffers: dict[int, tuple[int, Any]] = {}

    def __call__(self, *values: Any) -> None:
        self.log.append(tuple(self._shot(x) for x in values))

    def attempt(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call, and note the result or the exception (of kiln's own errors only the type)."""
        try:
            result = function(*args, **kwargs)
        except CaptureError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, it is what is observed)
            told = "" if isinstance(error, KilnError) else str(error)
            self.log.append(("raised", type(error).__name__, told))
            return None
        self(result)
        return result

    def _shot(self, x: Any) -> Any:
        if isinstance(x, TensorBase):
            return self._tensor(x)
        if isinstance(x, dict):
            return type(x).__name__, [(self._shot(k), self._shot(v)) for k, v in x.items()]
        if isinstance(x, (list, tuple)):
            return type(x).__name__, [self._shot(v) for v in x]
        if isinstance(x, (set, frozenset)):
            return type(x).__name__, sorted(map(repr, x))
        if isinstance(x, np.ndarray):
            return "array", x.dtype.str, x.shape, x.tobytes()
        if x is None or isinstance(x, (bool, int, float, complex, str, bytes, np.generic)):
            return type(x).__name__, repr(x)
        return "object", type(x).__name__

    def _tensor(self, x: Any, gradient: bool = False) -> Any:
        requires_grad = x.requires_grad  # brings the history of views up to date
        number = self._tensors.setdefault(id(x), (len(self._tensors), x))[0]
        memory = self._buffers.setdefault(id(x._buffer), (len(self._buffers), x._buffer))[0]
        array = x.detach().numpy()
        grad = x._grad
        return (
            f"tensor {number} on memory {memory}" + ("" if gradient else f" at {x.storage_offset()}"),
            f"{type(x).__name__} {x.ttype} {[s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1]}",
            array.tobytes(),
            repr(array.tolist()) if array.size < 20 else "",
            f"requires_grad {requires_grad} leaf {x.is_leaf} flags {x._flags}",
            None if grad is None else self._tensor(grad, gradient=True),
        )


class Outcome:
    """What a run showed."""

    def __init__(self) -> None:
        self.witness = Witness()
        self.refused: CaptureError | None = None
        self.error: Exception | None = None
        self.functions: list[Any] = []

    @property
    def captures(self) -> int:
        return sum(len(f.log) for f in self.functions)


class Traced:
    """A function that `kiln.jit.trace` gets with the arguments of its first call, or one that is called twice then."""

    def __init__(self, function: Any, eager: bool) -> None:
        self._function = function
        self._eager = eager
        self._opened: Any = None
        functools.update_wrapper(self, function, updated=())
        del self.__wrapped__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._opened is None:
            if kwargs:
                raise Unfit
            if self._eager:
                self._function(*args)
            self._opened = self._function if self._eager else kiln.jit.trace(self._function, args)
        return self._opened(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_function"], name)

    def report(self) -> Any:
        """That of the traced function."""
        return Tally() if self._opened is None else self._opened.report()


class Unfit(BaseException):
    """A program can't go through a door as it stands. No program catches it."""


@functools.cache
def behind(program: Program, door: str) -> Outcome:
    """What a run showed of a program whose functions went through a door: "script", "trace", or "twice", which is what
    a trace is to be compared with."""
    outcome = Outcome()
    if door != "script" and any(word in inspect.getsource(program.run) for word in ("CaptureError", "Thread")):
        outcome.refused = CaptureError("what it shows depends on whether, and in which thread, it is refused")
        return outcome

    def opened(function: Any) -> Any:
        if door == "script":
            try:
                made = kiln.jit.script(function)
            except ArgumentError:
                raise Unfit from None
        else:
            made = Traced(function, eager=door == "twice")
        outcome.functions.append(made)
        return made

    return _observed(program, opened, outcome)


@functools.cache
def ran(program: Program, compiled: bool, fullgraph: bool = True) -> Outcome:
    """What a run of a program showed, run once."""
    return run(program, compiled, fullgraph)


def run(program: Program, compiled: bool, fullgraph: bool = True) -> Outcome:
    """Run a program; what it raises is part of the outcome."""
    outcome = Outcome()

    def compile(function: Any) -> Any:
        if not compiled:
            return function
        outcome.functions.append(kiln.compile(function, fullgraph=fullgraph))
        return outcome.functions[-1]

    return _observed(program, compile, outcome)


def _observed(program: Program, opened: Callable[[Any], Any], outcome: Outcome) -> Outcome:
    kiln.manual_seed(7)
    try:
        program.run(opened, outcome.witness)
    except Unfit:
        outcome.refused = CaptureError("a program that can't go through this door")
    except CaptureError as refusal:
        outcome.refused = refusal
    except Exception as error:  # noqa: BLE001 (compared with what the other run raised)
        outcome.error = error
    else:
        outcome.witness(kiln.default_generator.state)
    return outcome


# ------------------------------------------------------------------------------------------ for programs


def module(source: str, name: str | None = None, **names: Any) -> ModuleType:
    """A user's module, made from text, with `kiln`, `nn` and `np` imported."""
    name = name or f"user_module_{next(_numbers)}"
    made = ModuleType(name)
    made.__file__ = f"/nowhere/{name}_{next(_numbers)}.py"
    vars(made).update(kiln=kiln, nn=kiln.nn, np=np, **names)
    linecache.cache[made.__file__] = (len(source), None, source.splitlines(True), made.__file__)
    exec(compile(source, made.__file__, "exec"), vars(made))
    return made


@contextmanager
def importable(*modules: ModuleType) -> Iterator[None]:
    """These modules can be imported."""
    before = {m.__name__: sys.modules.get(m.__name__) for m in modules}
    sys.modules.update({m.__name__: m for m in modules})
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old


def vector(*numbers: float, grad: bool = False) -> Any:
    """A float32 tensor."""
    return kiln.tensor([float(x) for x in numbers], requires_grad=grad)


def linear(inputs: int = 2, outputs: int = 2, seed: int = 3) -> Any:
    """A Linear layer with known weights."""
    state = kiln.default_generator.get_state()
    kiln.manual_seed(seed)
    layer = kiln.nn.Linear(inputs, outputs)
    kiln.default_generator.set_state(state)
    return layer


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Any:
    """A float32 tensor of normal numbers, the same ones for a seed."""
    numbers = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return kiln.tensor(numbers, requires_grad=grad)
