"""`kiln.compile`; `kiln.jit.script` and `kiln.jit.trace` (`doors.py`) are other doors to the same capture."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, overload

from kiln.capturing import OnRecompile
from kiln.compiled_function import CompiledFunction as CompiledFunction
from kiln.compiled_function import CompiledModule as CompiledModule
from kiln.dims import Dynamic
from kiln.errors import ArgumentError, InvalidValueError

if TYPE_CHECKING:
    from kiln.doors import *  # noqa: F403


@overload
def compile(
    function: Callable[..., Any],
    *,
    fullgraph: bool = False,
    dynamic: Dynamic = None,
    on_recompile: OnRecompile = "ignore",
    disable: bool = False,
    check_nan: bool = False,
) -> CompiledFunction: ...


@overload
def compile(
    function: None = None,
    *,
    fullgraph: bool = False,
    on_recompile: OnRecompile = "ignore",
    disable: bool = False,
    dynamic: Dynamic = None,
    check_nan: bool = False,
) -> Callable[[Callable[..., Any]], CompiledFunction]: ...


def compile(
    function: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: Dynamic = None,
    on_recompile: OnRecompile = "ignore",
    disable: bool = False,
    check_nan: bool = False,
) -> Any:
    """Compile a function or a module; also a decorator, with or without arguments.

    The result gives the same numbers, bit for bit, as the function itself, for any arguments: tensors (of a new shape:
    captured anew), Python numbers and strings (compiled in), containers of these, and objects. Branches and loops on
    tensor *data* (`if x.sum() > 0`) become part of the program where they can; otherwise each answer that comes up
    has compiled code of its own. What a compiled call could not repeat (clocks, files, prints to elsewhere than
    `sys.stdout`) makes calls of that kind run eagerly, with one CaptureWarning that says why; with `fullgraph` it
    raises CaptureError instead. `on_recompile`: what to do when the function must be captured again (a new shape,
    another answer): "ignore", or "warn" or "raise" with what differs. With `disable` the function itself is returned.

    With `check_nan`, a compiled call whose results or gradients hold a NaN that it was not given raises NanError, which
    names the op that made the first one, its line, and the turns of the loops around it; what the call wrote to is then
    as before. For finding faults: every result is looked at.
    `dynamic`: what to do about sizes that change. None: code is made for the sizes of the first call, and at the second
    sight of others code for all (as far as the recorded operations are the same). True: code for one size is made only
    if a call repeats it first. False: every size has code of its own. Or a mapping from arguments' names to
    {dimension: `Dim` or None}, as True, with ranges: a size out of its range is a ShapeError.

    >>> import kiln
    >>> @kiln.compile
    ... def f(x):
    ...     return (x * 2 + 1).sum() if x[0] > 0 else x.sum()
    >>> f(kiln.arange(3.0)), f(kiln.arange(3.0) + 1)
    (tensor(3.), tensor(15.))
    """
    if function is None:
        given = {"fullgraph": fullgraph, "on_recompile": on_recompile, "disable": disable}
        return functools.partial(compile, **given, dynamic=dynamic, check_nan=check_nan)
    if on_recompile not in ("ignore", "warn", "raise"):
        raise InvalidValueError(f"on_recompile is {on_recompile!r}", op="compile", fix="ignore, warn or raise")
    if not isinstance(dynamic, bool | Mapping | None):
        raise ArgumentError(f"dynamic is {dynamic!r}", op="compile", fix="a bool, None, or a mapping of arguments")
    if disable:
        return function
    made = CompiledModule if hasattr(type(function), "named_parameters") else CompiledFunction
    return made(function, fullgraph=fullgraph, on_recompile=on_recompile, dynamic=dynamic, check_nan=check_nan)


_DOORS: Final = frozenset(
    {"Attribute", "Error", "ScriptFunction", "ScriptModule", "TracedFunction", "TracedModule", "TracingCheckError"}
    | {"annotate", "export", "freeze", "ignore", "is_scripting", "is_tracing", "isinstance", "optimize_for_inference"}
    | {"script", "script_if_tracing", "trace", "trace_module", "unused"}
)
"""The other doors (`kiln.doors`), which are loaded when they are asked for."""


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'kiln.jit' has no attribute {name!r}")
    made = globals()[name] = getattr(importlib.import_module("kiln.doors"), name)
    return made


def __dir__() -> list[str]:
    return sorted({*globals(), *_DOORS})
