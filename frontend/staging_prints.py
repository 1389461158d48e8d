"""Hooks for text (`staging_text.py`), for exceptions that hold text, and for prints.

A print is an effect of the program: the captured call prints at once, and each compiled call once its program ran.
"""

from __future__ import annotations

import builtins
import functools
import re
import sys
from collections.abc import Callable, Sequence, Set
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, WrapperDescriptorType
from typing import Any, Final

from kiln.base import MODES, TensorBase
from kiln.capture import Capture, current
from kiln.control_capture import Inner
from kiln.convert import PythonHooks
from kiln.errors import CaptureError
from kiln.staging_numbers import NOW, Lazy, known, mapped, with_python_numbers
from kiln.staging_spelling import CONSTANT, PLAIN, lazy_in, of_fields, of_printf, parts_of
from kiln.staging_text import Text, text_of
from kiln.texts import Part, Print
from kiln.world import paused


def _printed(x: Any, known: Set[CodeType]) -> Any:
    """What `print` makes of something: a text, or the parts of one; None if a compiled call could not make it again."""
    kind: Any = type(x)
    parts = parts_of(x, "str")
    if parts is not None:
        return parts
    if kind in CONSTANT or kind is type or isinstance(x, (Lazy, TensorBase)):
        return (str(x),)
    if kind in (list, tuple, dict):
        inside = [*x, *x.values()] if kind is dict else x
        return (str(x),) if all(_printed(item, known) is not None for item in inside) else None
    if isinstance(x, BaseException):
        plain = isinstance(kind.__str__, WrapperDescriptorType) and isinstance(kind.__repr__, WrapperDescriptorType)
        return (str(x),) if plain and all(_printed(item, known) is not None for item in x.args) else None
    spells = kind.__str__ if kind.__str__ is not object.__str__ else kind.__repr__
    return (str(x),) if isinstance(spells, FunctionType) and spells.__code__ in known else None


def _is_recomputed() -> bool:
    """Whether the caller is inside a checkpoint, which calls it again on the way back."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != "kiln.utils.checkpoint":
        frame = frame.f_back
    return frame is not None


def _listening() -> bool:
    return isinstance(MODES.recorder, Capture)


class TextHooks(PythonHooks):
    """Hooks that make text of what tensors decide. `known` is the user's code."""

    def __init__(self, known: Set[CodeType]) -> None:
        self._known = known
        self._stdout = sys.stdout
        self._errors: list[BaseException] = []

    def refuse_call(self, what: str, why: str) -> None:
        """A call that can't be repeated."""

    def silent(self) -> bool:
        """Whether nothing may be printed."""
        return False

    def numbers(self) -> None:
        """From here on there may be what tensors decide."""

    def _text(self, spell: Callable[..., Sequence[Part] | None], *of: Any) -> Any:
        """A text, or a string where it has no holes; None where the string must be asked for."""
        try:
            parts = spell(*of)
        except CaptureError as refusal:
            capture = current()
            if capture is None:  # it let go
                return None
            capture.give_up(refusal)
            return None
        if parts is None:
            return None
        self.numbers()
        return text_of(parts)

    # --------------------------------------------------------------------------------------- f-strings

    def format_(self, value: Any, spec: Any = "") -> Any:
        """See `Hooks`."""
        spec = known(spec)
        made = self._text(parts_of, value, "format", spec) if _listening() and type(spec) is str else None
        return format(value, spec) if made is None else made

    def repr_(self, value: Any) -> Any:
        """See `Hooks`."""
        return self._spell(value, "repr")

    def str_(self, value: Any) -> Any:  # type: ignore[override]
        """See `Hooks`."""
        return self._spell(value, "str")

    def ascii_(self, value: Any) -> Any:
        """See `Hooks`."""
        return self._spell(value, "ascii")

    def _spell(self, value: Any, conversion: str) -> Any:
        made = self._text(parts_of, value, conversion) if _listening() else None
        return PLAIN[conversion](value) if made is None else made

    def joined(self, parts: tuple[Any, ...]) -> Any:  # type: ignore[override]
        """See `Hooks`."""
        if any(isinstance(part, Text) for part in parts):
            return Text([p for part in parts for p in (part.parts if isinstance(part, Text) else (part,))])
        return "".join(parts)

    def mod(self, a: Any, b: Any) -> Any:
        """See `Hooks`."""
        if type(a) is str and _listening() and lazy_in(b) and type(b) is not dict:
            made = self._text(of_printf, a, b if type(b) is tuple else (b,))
            return a % with_python_numbers(b) if made is None else made
        return a % b

    def subject(self, value: Any) -> Any:
        """See `Hooks`."""
        return with_python_numbers(value)

    def handed_out(self, value: Any) -> Any:
        """See `Hooks`. Who calls a lambda may be code in C, which takes nothing for a string but strings."""
        return value.known() if isinstance(value, Text) else value

    # ------------------------------------------------------------------------------------------- calls

    def text_callee(self, function: Any) -> Any:
        """What is called in place of a built-in function that makes text; None for others."""
        kind = type(function)
        if kind is BuiltinFunctionType:
            name, owner = function.__name__, function.__self__
            if type(owner) is str and name in ("format", "join"):
                return _Method(self, owner, name)
            if owner is builtins and name == "print":
                return self._print
            if owner is builtins and name in ("repr", "format", "ascii"):
                return functools.partial(self._builtin, function)
            if type(owner) is re.Pattern and name in ("sub", "subn"):
                return functools.partial(_substituted, function, 0)
        elif function is str:
            return self._make_string
        elif function is re.sub or function is re.subn:
            return functools.partial(_substituted, function, 1)
        elif kind is type and _is_plain_error(function):
            return functools.partial(self._make_error, function)
        return None

    def _builtin(self, function: Callable[..., str], *args: Any, **kwargs: Any) -> Any:
        """A call of `repr`, `ascii` or `format`."""
        name = function.__name__
        if not kwargs and len(args) == 1:
            return self.format_(args[0]) if name == "format" else self._spell(args[0], name)
        if not kwargs and len(args) == 2 and name == "format":
            return self.format_(*args)
        return function(*args, **kwargs)

    def _make_string(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs:
            return self.str_(args[0])
        return str(*map(with_python_numbers, args), **with_python_numbers(kwargs))

    def _make_error(self, kind: type[BaseException], *args: Any, **kwargs: Any) -> BaseException:
        """An exception, whose arguments may be what tensors decide as long as the call goes on."""
        error = kind(*args, **kwargs)
        if lazy_in(args):
            self._errors.append(error)
        return error

    def settle_errors(self, raised: BaseException | None) -> None:
        """Exceptions have Python's own arguments again, and so has what was `raised` with those that led to it."""
        todo = [*self._errors, *([] if raised is None else [raised])]
        seen: set[int] = set()
        while todo:
            error = todo.pop()
            if id(error) not in seen:
                seen.add(id(error))
                args = mapped(error.args, NOW)
                if args is not error.args:
                    error.args = args
                todo += [e for e in (error.__cause__, error.__context__) if e is not None]
        self._errors = []

    def _print(self, *args: Any, **kwargs: Any) -> None:
        """A call of `print`: it prints now, as every capture does what it records, and in each compiled call."""
        capture = current()
        if capture is None and self.silent():
            return
        if capture is None or not _PRINT_TAKES.issuperset(kwargs):
            print(*map(with_python_numbers, args), **with_python_numbers(kwargs))
            return
        file = kwargs.pop("file", None)
        options = [known(kwargs.get(name, default)) for name, default in (("sep", " "), ("end", "\n"))]
        flush = known(kwargs.get("flush", False))
        plain = all(type(x) in (str, type(None)) for x in options) and type(flush) in (bool, int)
        here = (file is None or file is sys.stdout) and sys.stdout is self._stdout
        texts = [self._text(_printed, x, self._known) for x in args]
        if isinstance(capture, Inner) or not (plain and here) or any(x is None for x in texts) or _is_recomputed():
            self.refuse_call("print", "a branch that prints")
            with paused():
                print(*map(with_python_numbers, args), sep=options[0], end=options[1], file=file, flush=flush)
            return
        now = [x.now() if isinstance(x, Text) else x for x in texts]

        def said(place: Callable[[Any], int]) -> Print:
            placed = [x.__kiln_text__(place) if isinstance(x, Text) else x for x in texts]
            return Print(tuple(placed), options[0], options[1], bool(flush))

        capture.prints.append(said)
        if self.silent():
            return
        with paused():
            print(*now, sep=options[0], end=options[1], flush=flush)


def _is_plain_error(kind: type) -> bool:
    """Whether instances of an exception class do nothing with what they are given but keep it."""
    init: Any = getattr(kind, "__init__")  # noqa: B009
    if not issubclass(kind, BaseException) or not isinstance(init, WrapperDescriptorType):
        return False
    own = any("__new__" in vars(c) for c in kind.__mro__ if c.__module__ != "builtins")
    return not own and init.__objclass__.__basicsize__ == BaseException.__basicsize__


_PRINT_TAKES: Final = frozenset({"sep", "end", "file", "flush"})


def _substituted(function: Callable[..., Any], place: int, /, *args: Any, **kwargs: Any) -> Any:
    """A call of `re.sub`, whose function, at a place among the arguments, must give strings."""

    def wrapped(x: Any) -> Any:
        return (lambda match: known(x(match))) if isinstance(x, (FunctionType, MethodType)) else x

    args = tuple([wrapped(x) if k == place else x for k, x in enumerate(with_python_numbers(args))])
    kwargs = {name: wrapped(x) if name == "repl" else x for name, x in with_python_numbers(kwargs).items()}
    return function(*args, **kwargs)


class _Method:
    """`format` or `join` of a string."""

    def __init__(self, hooks: TextHooks, owner: str, name: str) -> None:
        self._hooks, self._owner, self._name = hooks, owner, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._name == "join" and len(args) == 1 and not kwargs:
            return self._join(args[0])
        if self._name == "format" and lazy_in([*args, *kwargs.values()]):
            made = self._hooks._text(of_fields, self._owner, args, kwargs)
            if made is not None:
                return made
        return getattr(self._owner, self._name)(*map(with_python_numbers, args), **with_python_numbers(kwargs))

    def _join(self, items: Any) -> Any:
        items = items if type(items) in (list, tuple) else list(items)
        if not any(isinstance(x, Text) for x in items) or not all(isinstance(x, (str, Text)) for x in items):
            return self._owner.join(map(known, items))
        found: list[Part] = []
        for n, x in enumerate(items):
            found += [self._owner] if n else []
            found += x.parts if isinstance(x, Text) else ["".join((x, ""))]
        return Text(found)
