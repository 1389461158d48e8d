"""`kiln.jit.trace`: a function as it ran on examples, and nothing else.

A trace has one way through the function. What would make that wrong for other data, a question about tensor data
(`if x.sum() > 0`, `x.item()`, `int(x)`), is refused with the user's line; so a trace is right for all arguments of its
examples' structure, dtypes and shapes, and says so where it is called with others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kiln import dispatch
from kiln.autograd.grad_mode import no_grad
from kiln.base import MODES, TensorBase
from kiln.capturing import Door
from kiln.compiled_function import CompiledFunction, Methods
from kiln.entry import Call
from kiln.errors import ArgumentError, CaptureError, InvalidValueError, KilnError
from kiln.guards import same
from kiln.location import user_frames
from kiln.pytree import flatten, map_tree
from kiln.reach import reach
from kiln.region import Region
from kiln.signature import signature

Example = tuple[tuple[Any, ...], dict[str, Any]]


class TracingCheckError(KilnError, RuntimeError):
    """A traced function gave other bits than the Python function."""


class TracedFunction(CompiledFunction):
    """A function that `trace` made. Reads like a compiled one, with `.graph` and `.code` of its latest example."""

    _door: ClassVar[Door] = "trace"

    def __init__(self, function: Callable[..., Any]) -> None:
        self._shown: set[tuple[Any, ...]] = set()
        super().__init__(function)

    def show(self, args: tuple[Any, ...], kwargs: dict[str, Any], check: bool) -> None:
        """Trace an example."""
        self._shown.add(signature((), args, kwargs)[0])
        if not check:
            self(*args, **kwargs)
            return
        before = Before(self._function, args, kwargs)
        returned = self(*args, **kwargs)
        if self._latest is None:
            raise CaptureError(
                "a trace can't be made inside another capture or a transform, or while anomalies are looked for",
                fix="trace it before",
            )
        before.compare(self._name, self._latest[2], returned)

    def _admit(self, call: Call, why: str) -> None:
        if call.key not in self._shown or call.key in self._entries:
            raise CaptureError(
                f"a traced function was called in a way its example did not show: {why}",
                fix="trace it with such an example, or use kiln.compile",
            )

    def _again(self, function: Callable[..., Any]) -> CompiledFunction:
        made = type(self)(function)
        made._shown = set(self._shown)  # the copy traces itself on its first call
        return made


class TracedModule(Methods, TracedFunction):
    """A module that `trace` made, with the methods that `trace_module` was given examples of."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._methods = {}
        super().__init__(function)

    def _again(self, function: Callable[..., Any]) -> CompiledFunction:
        made = super()._again(function)
        assert isinstance(made, TracedModule)
        for name, method in self._methods.items():
            again = method._again(getattr(function, name))
            assert isinstance(again, TracedFunction)
            made._methods[name] = again
        return made


def trace(
    func: Callable[..., Any],
    example_inputs: Any = None,
    optimize: None = None,
    check_trace: bool = True,
    check_inputs: Sequence[Any] | None = None,
    check_tolerance: float = 1e-5,
    strict: bool = True,
    *,
    example_kwarg_inputs: Any = None,
) -> Any:
    """Capture `func`, a function or a module, as it runs on examples.

    `example_inputs`: a tuple of arguments, one argument, or a list of such tuples, each of which is traced; or in their
    place `example_kwarg_inputs`: a dict, or a list of dicts. The result takes arguments of the structure, dtypes,
    shapes and Python values of one of the examples; CaptureError for others, and for a function whose way depends on
    tensor data. With `check_trace` the program is run on the example once more, and `check_inputs`, a list of further
    tuples (or dicts), on the function and on the trace: other bits are a TracingCheckError. Bits must agree, so
    `check_tolerance` is met whatever it is; containers are rebuilt as they are, so `strict` makes no difference.

    >>> import kiln
    >>> f = kiln.jit.trace(lambda x: x.sum(0), [(kiln.ones(2, 3),), (kiln.ones(4, 3),)])
    >>> f(kiln.full((4, 3), 2.0))
    tensor([8., 8., 8.])
    """
    examples = _examples("trace", example_inputs, example_kwarg_inputs)
    try:
        return _traced(func, {None: examples}, optimize, check_trace, {None: check_inputs or ()}, check_tolerance)
    except CaptureError as refusal:
        raise refusal.with_traceback(user_frames(refusal.__traceback__)) from None


def trace_module(
    mod: Any,
    inputs: Mapping[str, Any],
    optimize: None = None,
    check_trace: bool = True,
    check_inputs: Sequence[Mapping[str, Any]] | None = None,
    check_tolerance: float = 1e-5,
    strict: bool = True,
    *,
    example_inputs_is_kwarg: bool = False,
) -> TracedModule:
    """`trace` for several methods of a module: `inputs` says for each name what its examples are.

    >>> import kiln
    >>> traced = kiln.jit.trace_module(kiln.nn.Linear(2, 1), {"forward": kiln.ones(1, 2)})
    >>> traced(kiln.zeros(1, 2)).shape
    kiln.Size([1, 1])
    """
    if not hasattr(type(mod), "named_parameters"):
        raise ArgumentError(f"takes a module, not {type(mod).__name__}", op="trace_module", fix="use kiln.jit.trace")
    if not isinstance(inputs, Mapping):
        raise ArgumentError(
            f"inputs is a {type(inputs).__name__}", op="trace_module", fix='pass {"forward": example, ...}'
        )
    parts: dict[str | None, Sequence[Example]] = {
        name: _examples("trace_module", *((None, x) if example_inputs_is_kwarg else (x, None)))
        for name, x in inputs.items()
    }
    checks: dict[str | None, list[Any]] = {name: [] for name in inputs}
    for row in check_inputs or ():
        for name, x in row.items():
            checks[name].append(x)
    try:
        made = _traced(mod, parts, optimize, check_trace, checks, check_tolerance)
    except CaptureError as refusal:
        raise refusal.with_traceback(user_frames(refusal.__traceback__)) from None
    assert isinstance(made, TracedModule)
    return made


def _examples(op: str, inputs: Any, named: Any) -> list[Example]:
    """Examples as positional and keyword arguments."""
    if (inputs is None) == (named is None):
        raise ArgumentError(
            "takes example_inputs or example_kwarg_inputs, one of the two", op=op, fix="pass a tuple of arguments"
        )
    if named is not None:
        rows = named if isinstance(named, list) else [named]
        if not rows or not all(isinstance(row, dict) for row in rows):
            raise ArgumentError("example_kwarg_inputs is a dict, or a list of dicts", op=op)
        return [((), row) for row in rows]
    if isinstance(inputs, list) and inputs and all(type(row) is tuple for row in inputs):
        return [(row, {}) for row in inputs]
    return [(_arguments(inputs), {})]


def _arguments(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _traced(
    func: Any,
    parts: Mapping[str | None, Sequence[Example]],
    optimize: None,
    check_trace: bool,
    checks: Mapping[str | None, Sequence[Any]],
    tolerance: float,
) -> Any:
    if optimize is not None:
        raise ArgumentError("optimize has no meaning: everything is always optimised", op="trace", fix="leave it out")
    if not tolerance >= 0:
        raise InvalidValueError(f"check_tolerance is {tolerance}", op="trace", fix="leave it out: bits are compared")
    if MODES.recorder is not None or MODES.layers:
        raise CaptureError("trace inside a captured function, or a transform", fix="trace before")
    if isinstance(func, CompiledFunction) and func._door != "compile":
        return func
    function = func._function if isinstance(func, CompiledFunction) else func
    module = hasattr(type(function), "named_parameters")
    made: Any = (TracedModule if module else TracedFunction)(function)
    for name, examples in parts.items():
        called = made
        if name not in (None, "forward"):
            called = made._methods[name] = TracedFunction(getattr(function, name))
        for args, kwargs in examples:
            called.show(args, kwargs, check_trace)
        for x in checks.get(name, ()):
            _check(called, *(((), x) if isinstance(x, dict) else (_arguments(x), {})))
    return made


# ----------------------------------------------------------------------------------------------- checks


class Before:
    """The tensors that a call can read, as they are before it."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        leaves = flatten((args, kwargs))[0]
        self.arguments = list({id(x): x for x in leaves if isinstance(x, TensorBase)}.values())
        found: list[Any] = [*self.arguments, *reach(function).guards.tensors.values()]
        found += [t._grad for t in found if t._grad is not None]
        self.grads = {id(t): (t, t._grad) for t in found}
        self.data = {id(t): _copy(t) for t in found}

    def compare(self, name: str, region: Region, returned: Any) -> None:
        """TracingCheckError unless the program gives what the call has returned and written."""
        inputs = []
        for k, t in enumerate(region.inputs.objects):
            if t is None:
                position, owner = region.inputs.source(k)
                t = self.arguments[position] if position is not None else owner
                t = t if owner is None else self.grads[id(t)][1]
            inputs.append(t)
        if any(id(t) not in self.data for t in inputs):
            return  # an attribute of a tensor; there is no way to tell what it was
        with no_grad():
            copies = [self.data[id(t)] for t in inputs]
            buffers = region.compile().run(copies, dispatch.execute_region)
            made: list[Any] = []
            for result in region.results:
                made.append(result.build(copies, buffers, made))
            pairs = [(inputs[k], copies[k]) for k in region.written]
            leaves = [] if region.recipe is not None else flatten(returned)[0]
            for leaf, (k, known) in zip(leaves, region.leaves, strict=region.recipe is None):
                if k >= 0:
                    pairs.append((leaf, made[k]))
                elif not same(leaf, known):
                    _differ(name)
        if any(_bits(a) != _bits(b) for a, b in pairs):
            _differ(name)

    def restore(self) -> None:
        """Put everything back."""
        with no_grad():
            for t, grad in self.grads.values():
                if _bits(t) != _bits(self.data[id(t)]):
                    t.copy_(self.data[id(t)])
                t._grad = grad


def _check(traced: CompiledFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Compare a trace with its function on other arguments, of which copies are given to both."""

    def leaves(function: Callable[..., Any]) -> list[Any]:
        given = _copied((args, kwargs))
        with _undone(traced._function, given):
            found = flatten((function(*given[0], **given[1]), given))[0]
            return [_bits(x) if isinstance(x, TensorBase) else x for x in found]

    pairs = zip(leaves(traced._function), leaves(traced), strict=True)
    if not all(a == b if isinstance(a, tuple) else same(a, b) for a, b in pairs):
        _differ(traced._name)


@contextlib.contextmanager
def _undone(function: Callable[..., Any], given: Any) -> Iterator[None]:
    """What is written to tensors from outside inside the block is undone after it."""
    before = Before(function, *given)
    try:
        yield
    finally:
        before.restore()


def _differ(name: str) -> None:
    raise TracingCheckError(
        f"the trace of {name} gives other bits than Python", fix="report it: kiln.bisect(function, ...) finds the stage"
    )


def _copied(x: Any) -> Any:
    return map_tree(lambda leaf: _copy(leaf) if isinstance(leaf, TensorBase) else leaf, x)


def _copy(t: Any) -> Any:
    """The same data in memory of its own, laid out alike."""
    with no_grad():
        if t._layout.contiguous or not t.numel():
            return t.detach().clone()
        span = 1 + sum((n - 1) * stride for n, stride in zip(t.shape, t.stride(), strict=True))
        memory = t.detach().as_strided((span,), (1,)).clone()  # elements may share places
        return memory.as_strided(t.shape, t.stride())


def _bits(t: Any) -> tuple[Any, bytes]:
    return t.ttype, np.ascontiguousarray(t._array()).tobytes()
