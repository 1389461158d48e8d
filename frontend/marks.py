"""Marks on functions, for `kiln.jit.script`: what is a door of its own, and what stays in Python."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any, Final, TypeVar

from kiln.base import MODES
from kiln.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])

_EXPORTED: Final = "__kiln_export__"
_SAID: Final = {
    "ignore": "is Python's (kiln.jit.ignore), and a scripted function is one graph, which can't call Python",
    "unused": "must not be called in a scripted function (kiln.jit.unused)",
}


def is_scripting() -> bool:
    """Whether a scripted function is being captured. In Python's own calls it is False."""
    return MODES.door == "script"


def is_tracing() -> bool:
    """Whether `trace` is capturing a function."""
    return MODES.door == "trace"


def export(fn: F) -> F:
    """A decorator: this method, too, is captured when its module is scripted, and is called as `scripted.method(...)`.

    >>> import kiln
    >>> class Model(kiln.nn.Module):
    ...     def forward(self, x):
    ...         return self.double(x) + 1
    ...     @kiln.jit.export
    ...     def double(self, x):
    ...         return x * 2
    >>> scripted = kiln.jit.script(Model())
    >>> scripted.double(kiln.ones(2)), scripted(kiln.ones(2))
    (tensor([2., 2.]), tensor([3., 3.]))
    """
    setattr(fn, _EXPORTED, True)
    return fn


def exported(kind: type) -> list[str]:
    """The names of a class's methods with that mark."""
    return [name for name in dir(kind) if getattr(getattr(kind, name, None), _EXPORTED, False)]


class Left:
    """A function that scripted ones leave to Python; elsewhere the function itself."""

    __kiln_left__ = True

    def __init__(self, function: Callable[..., Any], why: str) -> None:
        if not callable(function):
            raise ArgumentError(f"takes a function, not {type(function).__name__}", op=why)
        functools.update_wrapper(self, function)
        self._function = function
        self._why = why

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if MODES.recorder is not None and is_scripting():
            MODES.recorder.reject(
                f"{getattr(self._function, '__qualname__', 'a function')} {_SAID[self._why]}",
                "call it outside of the scripted function, or where kiln.jit.is_scripting() is False",
            )
        return self._function(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __kiln_reach__(self) -> tuple[Any, ...]:
        """What guards look at, where it is called."""
        return (self._function,)
