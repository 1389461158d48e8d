"""The closed world: what code a captured call may run.

A compiled call repeats what was done to tensors, and nothing else. So while a call is captured, every Python function
and every C function that it calls is looked at (through `sys.setprofile`): kiln's own are recorded or refused by
themselves; code that the guards walked is the user's; of everything else only what is listed here as pure may run.
A clock, a file, `print`, a random number from elsewhere: refused at the line that asks for it, before it happens.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import dis
import functools
import gc
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Set
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, GeneratorType, MappingProxyType, ModuleType
from typing import Any, Final, NoReturn

import numpy as np

from kiln.base import TensorBase
from kiln.errors import CaptureError
from kiln.location import is_kiln
from kiln.reach import is_library, is_library_code
from kiln.runtime import threads

_BUILTINS: Final = frozenset(
    {abs, all, any, ascii, bin, callable, chr, delattr, divmod, format, getattr, hasattr, hex, isinstance}
    | {issubclass, iter, len, max, min, next, oct, ord, pow, repr, round, setattr, sorted, sum}
    | {builtins.__build_class__}
)
_C_MODULES: Final = frozenset(
    {"math", "cmath", "_operator", "itertools", "_functools", "_collections", "_collections_abc", "_bisect", "_heapq"}
    | {"_struct", "_abc", "_stat", "_statistics", "_string", "_sre", "_typing", "_weakref", "numpy"}
    | {"unicodedata", "copyreg"}
)
_PYTHON_MODULES: Final = frozenset(
    {"abc", "bisect", "collections", "_collections_abc", "contextlib", "copy", "copyreg", "dataclasses", "enum"}
    | {"fractions", "functools", "heapq", "importlib", "inspect", "itertools", "keyword", "math", "numbers"}
    | {"numpy", "operator", "re", "reprlib", "statistics", "string", "types", "typing", "weakref"}
    | {"_weakrefset"}
)
_TYPES: Final = (
    *(str, bytes, bytearray, int, float, complex, bool, type(None), list, dict, tuple, set, frozenset, range, slice),
    *(collections.deque, MappingProxyType, GeneratorType, FunctionType, property, functools.partial, BaseException),
    *(re.Pattern, re.Match, np.ndarray, np.generic, np.dtype, np.ufunc, TensorBase),
)
"""Instances of these may be used: they are the function's own, or guarded."""

_EFFECTS: Final = frozenset({"time", "posix", "nt", "_random", "_socket", "_io", "io", "_thread", "_signal"})
"""C modules that pure library code must not reach."""


_NEVER: Final = frozenset(
    {importlib.import_module.__code__, importlib.reload.__code__, inspect.currentframe.__code__, inspect.stack.__code__}
)
"""Library code that the user's must not call: what it imports can't be seen beforehand, what it sees is the capture."""
_FRAMES: Final = frozenset({inspect.currentframe.__code__, inspect.stack.__code__})
_TRANSPARENT: Final = frozenset(
    {"kiln.staging", "kiln.staging_calls", "kiln.staging_loads", "kiln.staging_prints", "kiln.staging_spelling"}
)
"""What converted code calls in place of the user's own operations."""
_THREADS: Final = frozenset({threads.get_num_threads.__code__, threads.set_num_threads.__code__})

_OWN: Final[dict[int, CodeType]] = {}
"""Kiln's own code that was met, by id: what it calls and who calls it makes no difference. Most calls are such."""
PASSING: Final[set[CodeType]] = set()
"""Code of kiln's that does nothing but call what the user's code calls."""


class Audit:
    """Watches this thread's calls inside a `with` block. `known` is the code that may run.

    The first refusal is raised where it happens and kept in `refused`, in case the user's code catches it.
    """

    def __init__(
        self,
        known: Set[CodeType],
        dormant: dict[CodeType, Callable[[], None]],
        leave: Callable[[CaptureError], None] | None = None,
    ) -> None:
        self.known = known  # grows as dormant code wakes
        self.dormant = dormant
        self.refused: CaptureError | None = None
        self.hopeless = False
        """Whether what was refused would not be right eagerly either: it looks at the frames of callers."""
        self.made: Callable[[CodeType], bool] = _none
        """Whether code is the user's, converted."""
        self.object: Callable[[str], NoReturn] | None = None
        """While something is tried out: told of what must not be done then."""
        self.aside: Callable[[CaptureError], NoReturn] | None = None
        """In the meantime, told of what is refused in place of all others."""
        self.entered: Callable[[FrameType], None] | None = None
        """Told of the user's own functions that are entered."""
        self._leave = leave
        """Told of the first refusal, in place of the user's code; nothing is watched after that."""
        self._before: Any = None
        self._watching = False

    def __enter__(self) -> Audit:
        self._before = sys.getprofile()
        # Garbage collection would run other people's callbacks and finalisers in the middle of the call.
        self._collects = gc.isenabled()
        gc.disable()
        self._watching = True
        sys.setprofile(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def resume(self) -> None:
        """Watch again, if an exception from here ended it (Python forgets what watches then)."""
        if self._watching and sys.getprofile() is None:
            sys.setprofile(self._watch)

    def stop(self) -> None:
        """Watch no more."""
        if self._watching:
            self._watching = False
            _resume(self._before)
            if self._collects:
                gc.enable()

    def _watch(self, frame: FrameType, event: str, argument: Any) -> None:
        if id(frame.f_code) in _OWN:
            return
        if event == "call":
            self._python(frame)
        elif event == "c_call":
            self._native(frame, argument)

    def _python(self, frame: FrameType) -> None:
        """A Python function is entered."""
        code = frame.f_code
        if self.made(code):
            return
        if code in self.known:
            if self.object is not None:
                self.object(f"{code.co_qualname}() runs as it is")
            if self.entered is not None:
                self.entered(frame)
            return
        wake = self.dormant.pop(code, None)
        if wake is not None:
            self._notice(wake)
            return
        module = frame.f_globals.get("__name__") or ""
        if is_kiln(module) or code.co_name == "__del__":
            if code in _THREADS and frame.f_back is not None and self._is_users(frame.f_back.f_code):
                self.refuse(f"{module}.{code.co_name}")
            if is_kiln(module) and code not in _THREADS and code not in PASSING:
                _OWN[id(code)] = code
            return
        if is_library_code(frame.f_globals):
            pure = module.split(".")[0] in _PYTHON_MODULES and not module.startswith("numpy.random")
            if (not pure or code in _NEVER) and self._of_user(frame.f_back):
                self.hopeless = self.hopeless or (code in _FRAMES and self.object is None)
                self.refuse(f"{module}.{code.co_name}")
        elif not _is_made(code, module) and (self._of_user(frame.f_back) or _may_be_users(frame.f_back)):
            self.refuse(f"{module}.{code.co_name}", unseen=True)

    def _notice(self, wake: Callable[[], None]) -> None:
        """Note what code reaches that is about to run."""
        try:
            wake()
        except CaptureError as error:
            self._report(error)

    def _native(self, frame: FrameType, function: BuiltinFunctionType) -> None:
        """A C function is about to be called from `frame`."""
        while frame.f_code in PASSING and frame.f_back is not None:
            frame = frame.f_back
        caller = frame.f_globals.get("__name__") or ""
        if _in_kiln(frame) or not self._of_user(frame):
            return
        owner = getattr(function, "__self__", None)
        name = function.__name__
        if self.object is not None and name in ("setattr", "delattr"):
            self.object(f"{name}() changes an object")
        module = owner.__name__ if isinstance(owner, ModuleType) else (function.__module__ or "")
        if is_library(caller):
            effect = module in _EFFECTS or (module == "builtins" and name in ("open", "print", "input"))
            if effect:
                self.refuse(f"{module}.{name}")
        elif owner is None or isinstance(owner, ModuleType):
            pure = function in _BUILTINS if module == "builtins" else module.split(".")[0] in _C_MODULES
            if not pure or module.startswith("numpy.random"):
                self.hopeless = self.hopeless or (function is sys._getframe and self.object is None)
                self.refuse(name if module == "builtins" else f"{module}.{name}")
        elif isinstance(owner, type):
            if name == "__subclasses__":
                self.refuse(f"{owner.__qualname__}.{name}")
            if is_library(owner.__module__) and not issubclass(owner, _TYPES) and owner is not object:
                self.refuse(f"{owner.__qualname__}.{name}")
        elif not isinstance(owner, _TYPES) and is_library(type(owner).__module__):
            self.refuse(f"{type(owner).__qualname__}.{name}")

    def _of_user(self, frame: FrameType | None) -> bool:
        """Whether a frame works for the user's function; kiln's own work may run what it likes."""
        while frame is not None:
            if self._is_users(frame.f_code):
                return True
            if _in_kiln(frame) and frame.f_globals["__name__"] not in _TRANSPARENT:
                return False
            frame = frame.f_back
        return False

    def _is_users(self, code: CodeType) -> bool:
        return code in self.known or self.made(code)

    def refuse(self, what: str, unseen: bool = False) -> None:
        """A call of `what` is about to be made, which must not be."""
        reason = (
            "runs code that could not be seen beforehand; what it reads would not be noticed when it changes"
            if unseen
            else "does or reads something besides tensors, which a compiled call could not repeat"
        )
        fix = (
            "import it at the top of the file, and call it by name"
            if unseen
            else "call it outside the compiled function, and pass what it gives as an argument"
        )
        self._report(CaptureError(f"{what}() {reason}", fix=fix))

    def _report(self, error: CaptureError) -> None:
        if self.aside is not None:
            self.aside(error)
        if self.object is not None:
            self.object(error.message)
        if self.refused is None:
            self.refused = error
        if self._leave is None or self.hopeless:
            raise error
        self._leave(error)


def converts(known: Set[CodeType]) -> bool:
    """Whether some of this code branches or loops, or makes Python numbers of tensors, or text."""
    return makes(known) or any(map(_branches, known))


@functools.lru_cache(maxsize=4096)
def _branches(code: CodeType) -> bool:
    return not _JUMPS.isdisjoint(code.co_code[::2])


_JUMPS: Final = frozenset(
    n for name, n in dis.opmap.items() if ("JUMP" in name and "_IF_" in name) or name == "FOR_ITER"
)


def makes(known: Iterable[CodeType]) -> bool:
    """Whether some of this code makes Python numbers of tensors, or makes or prints text."""
    return any(_takes(code) or _spells(code) for code in known)


@functools.lru_cache(maxsize=4096)
def _spells(code: CodeType) -> bool:
    if not (_FORMATS.isdisjoint(code.co_code[::2]) and _WORDS.isdisjoint(code.co_names)):
        return True
    return any(type(x) is str and "%" in x for x in code.co_consts)


_FORMATS: Final = frozenset(n for name, n in dis.opmap.items() if name.startswith("FORMAT_"))
_WORDS: Final = frozenset({"print", "str", "repr", "ascii", "format", "join"})


@functools.lru_cache(maxsize=4096)
def _takes(code: CodeType) -> bool:
    names = code.co_names
    return not _TAKING.isdisjoint(names) or (not _CONVERTING.isdisjoint(names) and _calls(code))


_TAKING: Final = frozenset({"item", "tolist"})
_CONVERTING: Final = frozenset({"bool", "float", "int"})


def _calls(code: CodeType) -> bool:
    """Whether code calls one of Python's numbers by name, rather than to mention it."""
    at = [k for k, name in enumerate(code.co_names) if name in _CONVERTING]
    load = dis.opmap["LOAD_GLOBAL"]
    pairs = zip(code.co_code[::2], code.co_code[1::2], strict=True)
    return any(op == load and argument & 1 and argument >> 1 in at for op, argument in pairs) or max(at) > 127


def catches(known: Set[CodeType]) -> bool:
    """Whether some of this code has an `except`."""
    return any(map(_catches, known))


@functools.lru_cache(maxsize=4096)
def _catches(code: CodeType) -> bool:
    if not code.co_exceptiontable:
        return False
    ops = code.co_code[::2]
    return ops.count(dis.opmap["PUSH_EXC_INFO"]) > ops.count(dis.opmap["WITH_EXCEPT_START"])


def _none(code: CodeType) -> bool:
    return False


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """What kiln does for itself inside a capture, without this thread's audit."""
    watcher = sys.getprofile()
    if not isinstance(getattr(watcher, "__self__", None), Audit):
        yield
        return
    sys.setprofile(None)
    try:
        yield
    finally:
        _resume(watcher)


def _resume(watcher: Any) -> None:
    """Put a profiler back. Those in C (cProfile) show themselves as an object that is to be enabled again."""
    if watcher is None or callable(watcher):
        sys.setprofile(watcher)
    else:
        watcher.enable()


def _is_made(code: CodeType, module: str) -> bool:
    """Code that the standard library made from text, for dataclasses and named tuples."""
    made = code.co_filename.startswith("<") and code.co_name.startswith("__")
    return made or (code.co_filename == "<string>" and module.startswith("namedtuple_"))


def _may_be_users(caller: FrameType | None) -> bool:
    """Whether code that is called from here may be the user's: kiln calls that in many places, its runtime never."""
    return _in_kiln(caller) and not str(caller and caller.f_globals["__name__"]).startswith("kiln.runtime.")


def _in_kiln(frame: FrameType | None) -> bool:
    return frame is not None and is_kiln(frame.f_globals.get("__name__") or "")
