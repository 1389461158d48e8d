"""Looking into compiled functions: `debug` runs one without compiling, `bisect` finds the stage of compilation that
changed a result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kiln import dispatch
from kiln.autograd.grad_mode import no_grad
from kiln.base import MODES, TensorBase
from kiln.compiled import Code, Compiled
from kiln.creation import zeros
from kiln.errors import ArgumentError
from kiln.guards import same
from kiln.inputs import device_of
from kiln.ir import interpreter
from kiln.ir.graph import Graph
from kiln.jit import CompiledFunction
from kiln.journal import Instead
from kiln.pytree import flatten
from kiln.region import Region, Result
from kiln.texts import Template

__all__ = ["Bisection", "bisect", "debug"]


def debug(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as Python runs it: nothing inside a call is compiled, so that `breakpoint()`, `print` and a debugger
    meet the user's own lines with real values. Compiled or not makes no difference to any number.

    >>> import kiln
    >>> f = kiln.compile(lambda x: x * 2)
    >>> kiln.debug(f)(kiln.ones(2))
    tensor([2., 2.])
    """
    if not callable(function):
        raise ArgumentError(f"takes a function or a module, not {type(function).__name__}", op="debug")

    def eager(*args: Any, **kwargs: Any) -> Any:
        before = MODES.compiling
        MODES.compiling = False
        try:
            return function(*args, **kwargs)
        finally:
            MODES.compiling = before

    return functools.update_wrapper(eager, function, updated=())


@dataclass(frozen=True)
class Bisection:
    """What `bisect` found: the `stage` after which results are no longer eager's (None: none), and the graph that came
    out of it, as text."""

    stage: str | None
    stages: tuple[str, ...]
    graph: str = ""

    def __str__(self) -> str:
        if self.stage is None:
            return f"every stage gives eager's bits: {', '.join(self.stages)}"
        return f"the results change in {self.stage}\n{self.graph}".rstrip()


def bisect(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Bisection:
    """Which stage of compiling `function` for these arguments changes a result, should one ever: "capture" (what was
    recorded is not what the function does), a pass by its name, or "kernels" (code generation).

    The function is called twice, for real. The recorded graph is then run op by op as captured and after each pass, and
    as a compiled program; bits are compared. CaptureError for what can't be compiled.

    >>> import kiln
    >>> print(kiln.bisect(lambda x: (x * 2).sum(), kiln.ones(3)))
    every stage gives eager's bits: capture, merge, turn, fold, cse, prune, dce, kernels
    """
    inner = function._function if isinstance(function, CompiledFunction) else function
    compiled = CompiledFunction(inner, fullgraph=True)
    compiled(*args, **kwargs)
    region = compiled.regions()[-1]
    tensors = [x for x in flatten((args, kwargs))[0] if isinstance(x, TensorBase)]
    found = region.inputs.gather(list({id(t): t for t in tensors}.values()))
    if found is None:
        raise ArgumentError("the second call finds other gradients than the first", op="bisect")
    with no_grad():
        before = _copies(found)
    returned = inner(*args, **kwargs)
    from kiln.codegen.pipeline import PASSES  # only here are the passes wanted one by one

    names = ("capture", *(p.__name__ for p in PASSES), "kernels")
    with no_grad():
        graph, outputs = region.graph, _run(region.graph, before)
        if not _as_eager(region, outputs, flatten(returned)[0], found):
            return Bisection("capture", names, str(graph))
        reference = _bits(outputs)
        for rewrite in PASSES:
            graph = rewrite(graph)
            if _bits(_run(graph, before)) != reference:
                return Bisection(rewrite.__name__, names, str(graph))
        if _bits(_compiled(region, before)) != reference:
            return Bisection("kernels", names, str(graph))
    return Bisection(None, names)


def _copies(tensors: Sequence[Any]) -> list[Any]:
    return [t.detach().clone() for t in tensors]


def _bits(tensors: Sequence[Any]) -> list[bytes]:
    return [np.ascontiguousarray(t._array()).tobytes() for t in tensors]


def _run(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a graph, op by op."""
    return interpreter.run(graph, _copies(inputs), zeros((), device=device_of(inputs)))


def _compiled(region: Region, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a region's graph, by its program."""
    given = _copies(inputs)
    device = device_of(given)
    program = Compiled(Code(region.graph, [None] * len(given), f"{region.name}_bisected", device=device))
    made = [
        None if b is None or layout is None else dispatch.tensor_on(b, b.ptr, layout)
        for b, layout in zip(program.run(given), program.layouts, strict=True)
    ]
    for alias in region.graph.aliases:
        made[alias.output] = given[alias.input]
    return made


def _part(outputs: Sequence[Any], result: Result) -> Any:
    """What a result is among the outputs of the graph; None for one on the memory of an input."""
    if result.input is not None:
        return None
    whole = outputs[result.output]
    return dispatch.tensor_on(whole._buffer, whole._ptr + result.delta, result.layout)


def _as_eager(region: Region, outputs: Sequence[Any], leaves: Sequence[Any], inputs: Sequence[Any]) -> bool:
    """Whether what was recorded gives what the function returned, and what it wrote."""
    parts = [_part(outputs, result) for result in region.results]
    for leaf, (k, known) in zip(leaves, region.leaves, strict=True):
        if k < 0 or isinstance(known, Template):
            if not same(leaf, known if k < 0 else known.make(parts)):
                return False
            continue
        part = parts[k]
        if part is not None:
            if known is not None and not isinstance(known, Instead):  # a Python number
                if not same(leaf, known(part._array().item())):
                    return False
                continue
            if _bits([part]) != _bits([leaf]):
                return False
    written = [(a.output, a.input) for a in region.graph.aliases]
    return _bits([outputs[o] for o, _ in written]) == _bits([inputs[i] for _, i in written])
