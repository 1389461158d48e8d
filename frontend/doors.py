"""The names of `kiln.jit` besides `compile`: the doors `script`, `trace` and `freeze`, and what code says to them."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kiln.errors import KilnError
from kiln.freezing import freeze as freeze
from kiln.freezing import optimize_for_inference as optimize_for_inference
from kiln.hints import annotate as annotate
from kiln.hints import is_instance as isinstance  # noqa: F401
from kiln.marks import Left
from kiln.marks import export as export
from kiln.marks import is_scripting as is_scripting
from kiln.marks import is_tracing as is_tracing
from kiln.scripting import ScriptFunction as ScriptFunction
from kiln.scripting import ScriptModule as ScriptModule
from kiln.scripting import script as script
from kiln.tracing import TracedFunction as TracedFunction
from kiln.tracing import TracedModule as TracedModule
from kiln.tracing import TracingCheckError as TracingCheckError
from kiln.tracing import trace as trace
from kiln.tracing import trace_module as trace_module

__all__ = [
    "Attribute", "Error", "Final", "ScriptFunction", "ScriptModule", "TracedFunction", "TracedModule",
    "TracingCheckError", "annotate", "export", "freeze", "ignore", "is_scripting", "is_tracing",
    "optimize_for_inference", "script", "script_if_tracing", "trace", "trace_module", "unused",
]  # fmt: skip

Error: typing.TypeAlias = KilnError
"""What a scripted function raises of its own accord."""


class Attribute(NamedTuple):
    """A value and its type, as modules written for TorchScript keep them; here `value` is all that counts."""

    value: Any
    type: Any


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """A decorator: Python's part of a module or program. Called as ever outside of scripts; a scripted function that
    calls it can't be one graph, so capturing that raises CaptureError. With `drop` the same as `unused`.

    >>> import kiln
    >>> @kiln.jit.ignore
    ... def log(x):
    ...     print("mean", x.mean().item())
    >>> log(kiln.ones(2))
    mean 1.0
    """
    if callable(drop):
        return Left(drop, "ignore")
    return functools.partial(Left, why="unused" if drop else "ignore")


def unused(fn: Callable[..., Any]) -> Any:
    """A decorator: what scripted functions must not come to. Called as ever outside of scripts, whatever it does; a
    scripted function that calls it raises CaptureError when it is captured."""
    return Left(fn, "unused")


def script_if_tracing(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: inside `trace`, the function is captured as `script` would, its branches and loops included."""
    scripted = script(fn)

    def either(*args: Any, **kwargs: Any) -> Any:
        return (scripted if is_tracing() else fn)(*args, **kwargs)

    return functools.update_wrapper(either, fn)
