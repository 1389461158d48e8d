"""`kiln.jit.script`: one graph for all data, or an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from kiln.answers import truth
from kiln.base import MODES
from kiln.capture import current
from kiln.capturing import Door
from kiln.compiled_function import CompiledFunction, Methods
from kiln.entry import Call, Entry, Manner
from kiln.errors import ArgumentError
from kiln.hints import Annotations
from kiln.marks import Left, exported
from kiln.recording import Recording
from kiln.region import Region
from kiln.tracing import TracedFunction


class ScriptFunction(CompiledFunction):
    """A function that `script` made. Reads like a compiled one, with `.graph` and `.code` of its latest capture."""

    _door: ClassVar[Door] = "script"

    def __init__(self, function: Callable[..., Any]) -> None:
        module = hasattr(type(function), "named_parameters")
        self._annotations = Annotations(function.forward if module else function)  # type: ignore[attr-defined]
        super().__init__(function)

    def _inside(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In a trace, branches and loops are staged all the same."""
        capture = current()
        if capture is None or MODES.door != "trace" or capture.staging is None:
            return super()._inside(args, kwargs)
        MODES.door, capture.hooks = "script", capture.staging()
        try:
            return capture.hooks.asked_for(capture.callee(self._function)(*args, **kwargs))
        finally:
            MODES.door, capture.hooks = "trace", None

    def _reason(self, key: tuple[Any, ...], begun: Entry | None) -> str:
        return "data decided on another size, or error" if begun is not None else super()._reason(key, begun)

    def _admit(self, call: Call, why: str) -> None:
        if self._annotations.any:
            self._annotations.check(self._name, call.args, call.kwargs)

    def _approve(self, returned: Any) -> None:
        if self._annotations.any:
            self._annotations.check_returned(self._name, returned)

    def _record(self, call: Call, recorded: Call, entry: Entry, manner: Manner, why: str) -> Any:
        """The call, and then every way that data may take through the function."""
        from kiln.exploring import Explorer, Memory  # lie above this file
        from kiln.kept import Kept

        def recording(given: Sequence[bool] | None = None) -> Recording:
            made = Recording(self._name, self._function, entry.reached, recorded, manner, given)
            made.approve = self._approve
            return made

        things = [*entry.reached.seen.values(), call.args, call.kwargs]
        tensors = [*entry.reached.guards.tensors.values(), *recorded.tensors]
        before = Kept(things, tensors)
        real = recording()
        try:
            returned = real.run()
        except BaseException:
            self._enter(call, entry, real, why)
            raise
        if real.end is not None and not any(q.fold is truth for q in real.capture.queries):
            self._enter(call, entry, real, why)
            return returned
        after, written = Kept(things, tensors), Memory.before(real)
        changed = written.now()
        before.restore()
        written.restore()
        try:
            ways = Explorer(self._name, recording, manner.avoid).ways(before)
        finally:
            changed.restore()
            after.restore()
        for way in ways:
            entry.tree.grow(way.queries, way.end)
            if isinstance(way.end, Region):
                self._latest = call.key, entry, way.end
                self._follow(call, entry, way.recording)
        self._keep(call.key, entry)
        self.log.append(f"{why}; {len(ways)} ways through it")
        return returned

    def _again(self, function: Callable[..., Any]) -> CompiledFunction:
        return type(self)(function)


class ScriptModule(Methods, ScriptFunction):
    """A module that `script` made: a call of it, and of each method marked with `kiln.jit.export`, is captured."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._methods = {
            name: ScriptFunction(getattr(function, name)) for name in exported(type(function)) if name != "forward"
        }
        super().__init__(function)


def script(obj: Any, optimize: None = None, *, example_inputs: Sequence[Any] | Mapping[Any, Any] | None = None) -> Any:
    """Capture a function, a method, or a module (with the methods marked with `kiln.jit.export`) as one graph each.

    The first call of each signature (structure, dtypes, shapes, Python values) is captured; `example_inputs`, a list of
    tuples of arguments (for several methods of a module, a dict of such lists by name), are captured at once. What
    tensors decide, `if`, `while` and `for` as they stand, becomes part of the graph, and nothing runs outside of it:
    CaptureError, with the line and a fix, for what can't. Annotations are optional; an argument or a result that is not
    what they say is an ArgumentError. A decorator, too.

    >>> import kiln
    >>> f = kiln.jit.script(lambda x: x * 2)
    >>> f(kiln.ones(2))
    tensor([2., 2.])
    >>> def count(n: int) -> kiln.Tensor:
    ...     return kiln.arange(n)
    >>> kiln.jit.script(count)("3")
    Traceback (most recent call last):
        ...
    kiln.errors.ArgumentError: count: n is str '3', and is annotated as int...
    """
    if optimize is not None:
        raise ArgumentError("optimize has no meaning: everything is always optimised", op="script", fix="leave it out")
    if isinstance(obj, ScriptFunction | TracedFunction):
        return obj
    function = obj._function if isinstance(obj, CompiledFunction) else obj
    if isinstance(function, type):
        fix = "pass an instance" if hasattr(function, "named_parameters") else "script the functions that use it"
        raise ArgumentError(f"{function.__name__} is a class", op="script", fix=fix)
    if isinstance(function, Left):
        return function
    if not callable(function):
        raise ArgumentError(f"takes a function or a module, not {type(function).__name__}", op="script")
    made = (ScriptModule if hasattr(type(function), "named_parameters") else ScriptFunction)(function)
    examples = example_inputs or ()
    rows = examples if isinstance(examples, Mapping) else {None: examples}
    for name, each in rows.items():
        called = made if name in (None, "forward", function) else getattr(made, getattr(name, "__name__", str(name)))
        for example in each:
            called(*(example if isinstance(example, tuple) else (example,)))
    return made
