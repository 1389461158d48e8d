"""`kiln.compile`; `kiln.jit.script` and `kiln.jit.trace` (`doors.py`) are other doors to the same capture."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, get_args, overload

from kiln.capturing import Mode, OnRecompile
from kiln.compiled_function import CompiledFunction as CompiledFunction
from kiln.compiled_function import CompiledModule as CompiledModule
from kiln.dims import Dynamic
from kiln.errors import ArgumentError, InvalidValueError

if TYPE_CHECKING:
    from kiln.donation import Donate
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
    donate: Donate = (),
    mode: Mode = None,
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
    donate: Donate = (),
    mode: Mode = None,
) -> Callable[[Callable[..., Any]], CompiledFunction]: ...


def compile(
    function: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: Dynamic = None,
    on_recompile: OnRecompile = "ignore",
    disable: bool = False,
    check_nan: bool = False,
    donate: Donate = (),
    mode: Mode = None,
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

    `donate`: arguments whose tensors the caller gives up, by name or position, or a sequence of these; in a container,
    all of them. Results may take over their memory, and using such a tensor after the call is a SpentError. What others
    share the memory of, or what requires gradients, is refused (ArgumentError). See docs/doors.md.

    With `mode` "reduce-overhead" (or "max-autotune": nothing is tuned) programs on a GPU run as CUDA graphs, one launch
    for all kernels, where they can; `report()` says what became of each. See docs/cuda.md.

    >>> import kiln
    >>> @kiln.compile
    ... def f(x):
    ...     return (x * 2 + 1).sum() if x[0] > 0 else x.sum()
    >>> f(kiln.arange(3.0)), f(kiln.arange(3.0) + 1)
    (tensor(3.), tensor(15.))
    """
    if function is None:
        given = {"fullgraph": fullgraph, "on_recompile": on_recompile, "disable": disable}
        return functools.partial(compile, **given, dynamic=dynamic, check_nan=check_nan, donate=donate, mode=mode)
    if on_recompile not in ("ignore", "warn", "raise"):
        raise InvalidValueError(f"on_recompile is {on_recompile!r}", op="compile", fix="ignore, warn or raise")
    if not isinstance(dynamic, bool | Mapping | None):
        raise ArgumentError(f"dynamic is {dynamic!r}", op="compile", fix="a bool, None, or a mapping of arguments")
    if mode not in (modes := (*get_args(get_args(Mode)[0]), None)):
        raise InvalidValueError(f"mode is {mode!r}", op="compile", fix=f"one of {', '.join(map(repr, modes))}")
    if disable:
        return function
    made = CompiledModule if hasattr(type(function), "named_parameters") else CompiledFunction
    how: dict[str, Any] = {
        "fullgraph": fullgraph,
        "on_recompile": on_recompile,
        "check_nan": check_nan,
        "donate": donate,
        "mode": mode,
    }
    return made(function, **how, dynamic=dynamic)


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
