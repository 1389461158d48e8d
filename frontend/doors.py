"""The names of `kiln.jit` besides `compile`: the doors `script`, `trace` and `freeze`, and what code says to them."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from kiln import hints
from kiln.capture import current
from kiln.errors import ArgumentError, KilnError
from kiln.freezing import freeze as freeze
from kiln.freezing import optimize_for_inference as optimize_for_inference
from kiln.marks import Left
from kiln.marks import export as export
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
    "TracingCheckError", "annotate", "export", "freeze", "ignore", "is_scripting", "is_tracing", "isinstance",
    "optimize_for_inference", "script", "script_if_tracing", "trace", "trace_module", "unused",
]  # fmt: skip

T = TypeVar("T")

Error: typing.TypeAlias = KilnError
"""What a scripted function raises of its own accord."""


class Attribute(NamedTuple):
    """A value and its type, as modules written for TorchScript keep them; here `value` is all that counts."""

    value: Any
    type: Any


def is_scripting() -> bool:
    """Whether a scripted function is being captured. In Python's own calls it is False."""
    capture = current()
    return capture is not None and capture.door == "script"


def is_tracing() -> bool:
    """Whether `trace` is capturing a function."""
    capture = current()
    return capture is not None and capture.door == "trace"


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


def annotate(the_type: Any, the_value: T) -> T:
    """`the_value`, which must be what `the_type` says. ArgumentError if it is not.

    >>> import kiln
    >>> from typing import List
    >>> kiln.jit.annotate(List[int], [])
    []
    """
    found = hints.misfit(the_value, the_type, "the value")
    if found is not None:
        raise ArgumentError(f"{found[0]} is {hints.told_value(found[1])}, not {hints.told(found[2])}", op="annotate")
    return the_value


def isinstance(obj: Any, target_type: Any) -> bool:
    """Whether a value is of a type, containers with what they hold; of a tuple of types, of any of them.

    >>> import kiln
    >>> from typing import Dict, List
    >>> kiln.jit.isinstance([1, 2], List[int]), kiln.jit.isinstance({"a": 1}, Dict[str, str])
    (True, False)
    """
    kinds = target_type if type(target_type) is tuple else (target_type,)
    return any(hints.fits(obj, kind) for kind in kinds)


def script_if_tracing(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: inside `trace`, the function is captured as `script` would, its branches and loops included."""
    scripted = script(fn)

    def either(*args: Any, **kwargs: Any) -> Any:
        return (scripted if is_tracing() else fn)(*args, **kwargs)

    return functools.update_wrapper(either, fn)
