"""What can be seen of a world: one canonical picture of everything that a program can reach, to compare two of them.

Objects are numbered when they are first met, and keep their numbers from call to call: so a picture says not only what
a list holds but whether it is the list that was there before, and which tensors share memory.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import io
import linecache
import re
import traceback
import warnings
from types import CodeType
from typing import Any

from fuzz_effects_table import PRELUDE
from fuzz_effects_write import Program, Step

import kiln
from kiln.base import Layout
from kiln.errors import CaptureError, CaptureWarning

ROOTS = ("R", "OLD", "X", "Y", "G", "COUNT", "LIST", "DICT", "SET", "DEQUE", "box", "net", "LIMITS")


@functools.cache
def _prelude() -> CodeType:
    return _code(PRELUDE, "<effects>")


def _code(source: str, file: str) -> CodeType:
    """Compiled, so that its source is found."""
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    return compile(source, file, "exec")


@functools.lru_cache(maxsize=1024)
def _line(text: str) -> CodeType:
    return compile(text, "<step>", "exec")


_PLAIN = frozenset({type(None), bool, int, float, str, bytes, type(kiln.float32), kiln.Size})
"""Values that are what they are."""


class Refused(Exception):
    """A strict call was refused."""


class World:
    """A program's own objects, and how they looked after each step."""

    def __init__(self, program: Program, jit: Any) -> None:
        self.program = program
        self.numbers: dict[int, int] = {}
        self.memories: dict[int, int] = {}
        self.kept: list[Any] = []  # so that ids stay theirs
        self.versions: dict[int, int] = {}
        kiln.manual_seed(program.seed)
        self.space: dict[str, Any] = {"__name__": "effects", "kiln": kiln, "jit": jit, "R": None, "OLD": None}
        exec(_prelude(), self.space)
        self.file = f"<effects {program.seed}>"
        self.raised: collections.Counter[int] = collections.Counter()
        """The lines that raised, and how often."""
        exec(_code(program.source(), self.file), self.space)
        words = set(re.findall(r"\w+", program.short()))
        if words & {"inner", "opt"}:
            words.add("net")
        self.roots = [name for name in ROOTS if name in words or name.title() in words or name in ("R", "OLD")]
        self.optimises = "opt" in words
        cells = self.space["cells"]
        self.cells = dict(zip(cells.__code__.co_freevars, cells.__closure__, strict=True))

    # ------------------------------------------------------------------------------------------- steps

    def step(self, step: Step) -> Any:
        """Do a step; how the world looks after it."""
        text, told = io.StringIO(), ""
        space = self.space
        with contextlib.redirect_stdout(text), warnings.catch_warnings():
            warnings.simplefilter("ignore", CaptureWarning)
            for line in step.before:
                told += self.do(line)
            space["OLD"] = space["R"]
            with kiln.no_grad() if step.without_gradients else contextlib.nullcontext():
                told += self.do(f"R = {step.call}", strict=True)
            between = self.picture()
            for line in step.after:
                told += self.do(line, vague=True)
        return told, text.getvalue(), between, self.picture() if step.after else None

    def do(self, line: str, vague: bool = False, strict: bool = False) -> str:
        """Run a line; what it raised. `vague`: only the type is told, since the tape names its nodes otherwise."""
        try:
            exec(_line(line), self.space)
        except CaptureError as error:
            if strict:
                raise Refused(str(error)) from None
            return f"{type(error).__name__};"
        except Exception as error:  # noqa: BLE001  (programs may raise what they like)
            if strict:
                self.space["R"] = type(error).__name__
                frames = traceback.extract_tb(error.__traceback__)
                self.raised.update([f.lineno or 0 for f in frames if f.filename == self.file][:1])
            return f"{type(error).__name__};" if vague else f"{type(error).__name__}: {error};"
        return ""

    # ----------------------------------------------------------------------------------------- picture

    def picture(self) -> dict[str, Any]:
        """All that can be seen now, by the names of its roots."""
        met: set[int] = set()
        seen = {name: self.see(self.space[name], met) for name in self.roots}
        seen |= {f"cell {name}": self.see(cell.cell_contents, met) for name, cell in self.cells.items()}
        if "box" in self.roots:
            seen["Box"] = [(k, self.see(v, met)) for k, v in sorted(vars(self.space["Box"]).items()) if k[0] != "_"]
        if self.optimises:
            seen["optimiser"] = self.see(self.space["opt"].state_dict(), met)
        seen["generator"] = kiln.default_generator.state._array().tobytes()
        seen["modes"] = (kiln.is_grad_enabled(), repr(kiln.get_default_dtype()))
        return seen

    def number(self, x: Any, of: dict[int, int]) -> int:
        if id(x) not in of:
            self.kept.append(x)
            of[id(x)] = len(of)
        return of[id(x)]

    def see(self, x: Any, met: set[int]) -> Any:
        kind = type(x)
        if kind in _PLAIN:
            return repr(x)
        number = self.number(x, self.numbers)
        if id(x) in met:
            return ("again", number)
        met.add(id(x))
        if isinstance(x, kiln.Tensor):
            return (number, *self.tensor(x, met))
        if kind in (list, tuple, collections.deque):
            return (number, kind.__name__, [self.see(v, met) for v in x])
        if isinstance(x, dict):
            return (number, kind.__name__, [(self.see(k, met), self.see(v, met)) for k, v in x.items()])
        if kind is set:
            return (number, sorted(map(repr, x)))
        if not hasattr(x, "__dict__") or (callable(x) and not hasattr(x, "parameters")):
            return kind.__name__ if not callable(x) else "code"
        return (number, kind.__name__, [(k, self.see(v, met)) for k, v in vars(x).items() if k != "function"])

    def tensor(self, t: Any, met: set[int]) -> tuple[Any, ...]:
        buffer, layout = t._buffer, t._layout
        number = self.number(buffer, self.memories)
        version, before = t._version, self.versions.get(id(buffer), t._version)
        self.versions[id(buffer)] = version
        data = ctypes.string_at(t._ptr, layout.nbytes) if layout.contiguous else t._array().tobytes()
        history = (t.requires_grad, t.is_leaf, t.grad_fn is None, type(t).__name__)
        grad = self.see(t.grad, met) if t.is_leaf else None
        return (*_kind(layout), data, history, ("memory", number, t._ptr - buffer.ptr), version > before, grad)


@functools.lru_cache(maxsize=1024)
def _kind(layout: Layout) -> tuple[str, tuple[int, ...]]:
    return repr(layout.dtype), layout.shape
