"""Trying out a branch or a loop's body: it is run on tensors without data, and leaves no trace.

What it may touch besides tensors is little: variables of its function (put back afterwards), containers that it makes
itself, and code that was converted or is known to be pure. Anything else, and any exception, makes it a failure, and
what was tried is left to Python.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, CellType, FunctionType, MethodType
from typing import Any, Final, NoReturn

import numpy as np

from kiln.base import MODES, TensorBase
from kiln.capture import Capture
from kiln.control_capture import Inner
from kiln.convert import State
from kiln.errors import CaptureError
from kiln.kept import MUTABLE, held, put_back
from kiln.location import is_kiln
from kiln.staging_grown import Growing

_MAX_NOTED: Final = 4096
"""Containers that are looked at for changes in one trial."""
_PURE_FILES: Final = frozenset(
    {"activation", "amp", "base", "bessel", "complexes", "composite", "contraction", "convolution", "creation"}
    | {
        "cumulative",
        "differences",
        "distances",
        "factorizations",
        "fft",
        "functional",
        "gathering",
        "hints",
        "indexing",
        "inplace",
    }
    | {"integers", "interop", "linalg", "lowrank", "marks", "maths", "methods", "movement", "padding", "pointwise"}
    | {"polynomials", "pooling", "promotion", "random_methods", "ranges", "reductions", "resampling", "segments"}
    | {"selection", "shape_methods"}
    | {"sorting", "special", "spectral", "statistics", "systems", "tensor", "unpooling", "volumes", "windows", "layers"}
    | {"control", "free", "legacy", "batched", "convert", "staging", "staging_grown"}
)
"""Files of kiln's whose functions change nothing but tensors."""
_PURE_RANDOM: Final = frozenset(
    {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like", "poisson"}
)
_ON_THE_TAPE: Final = frozenset({"backward", "retain_grad", "register_hook", "register_post_accumulate_grad_hook"})
"""Methods of tensors that do more than compute: they leave gradients and hooks."""
_PURE_CLASSES: Final = frozenset({"no_grad", "enable_grad", "inference_mode", "autocast"})


class Unstaged(CaptureError):
    """Something can't be staged; it is left to Python."""


class Trial(Inner):
    """The recording of a branch that may turn out not to be possible as a graph."""

    def hook(self, tensor: TensorBase, what: str) -> NoReturn:
        self.refuse(f"{what} inside {self.what}")


class Snapshot:
    """What a capture, and those around it, knew when a trial began."""

    def __init__(self, capture: Capture) -> None:
        self._captures: list[Any] = []
        at: Capture | None = capture
        while at is not None:
            self._captures.append((at, self._state(at)))
            at = getattr(at, "parent", None)
        self._modes = MODES.grad_enabled, MODES.inference, MODES.recorder, MODES.autocast

    def _state(self, c: Capture) -> tuple[Any, ...]:
        c._settle()
        values = [(e, e.value, e.stamp) for e in c.entries.values()]
        grads = {k: (slot, slot.before, slot.final, slot.read, slot.written) for k, slot in c.grads.items()}
        sizes = len(c.inputs), len(c.builder.inputs()), c.builder.count, len(c.reads), len(c.queries)
        sets = set(c.taped), set(c.rederived), set(c.severed), dict(c.produced), dict(c.hooked)
        return dict(c.entries), values, grads, sizes, sets, (c.refused, c.differentiated)

    def restore(self) -> None:
        """As it was."""
        for c, (entries, values, grads, sizes, sets, (c.refused, c.differentiated)) in self._captures:
            c.entries.clear()
            c.entries.update(entries)
            for entry, value, stamp in values:
                entry.value, entry.stamp = value, stamp
            c.grads.clear()
            for k, (slot, slot.before, slot.final, slot.read, slot.written) in grads.items():
                c.grads[k] = slot
            lists = c.inputs, c.builder.inputs(), c.builder.operations(), c.reads, c.queries
            for each, size in zip(lists, sizes, strict=True):
                del each[size:]
            c.taped, c.rederived, c.severed, c.produced, c.hooked = sets
            c._latest = None
        MODES.grad_enabled, MODES.inference, MODES.recorder, MODES.autocast = self._modes


class Noted:
    """Containers that were there before a trial, as they were."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, tuple[Any, ...]]] = {}

    def __contains__(self, key: object) -> bool:
        """Whether a container, by its id, was there before."""
        return key in self._known

    def note(self, x: Any) -> None:
        """`x` is from outside. Unstaged for what can change unseen."""
        todo = [x]
        while todo:
            x = todo.pop()
            if isinstance(x, (TensorBase, str, bytes, int, float, complex, type(None), type, Growing)):
                continue
            if id(x) in self._known:
                continue
            if isinstance(x, (*MUTABLE, tuple, frozenset)):
                inside = held(x)
                self._known[id(x)] = (x, inside)
                if len(self._known) > _MAX_NOTED:
                    raise Unstaged("a branch that sees very many containers")
                todo += inside
            elif isinstance(x, np.ndarray) or hasattr(type(x), "__next__"):
                raise Unstaged(f"a branch that sees a {type(x).__qualname__}")

    def forget(self, x: Any) -> None:
        """A container that was noted was made in the trial."""
        self._known.pop(id(x), None)

    def restore(self, forget: bool = True) -> bool:
        """Put back what was changed, and forget it all; whether anything was."""
        changed = False
        for x, before in self._known.values():
            if not isinstance(x, (tuple, frozenset)):
                changed |= put_back(x, before)
        if forget:
            self._known.clear()  # who knows a list may be asked (`staging_grown.py`)
        return changed


def harmless(function: Any, made: Callable[[Any], bool]) -> bool:
    """Whether a call in a trial changes nothing but tensors, as far as that is not watched otherwise: what converted
    code does goes through hooks, what the user's other Python code does is refused, and of what is written in C the
    world knows what is pure."""
    if isinstance(function, MethodType):
        owner = function.__self__
        if isinstance(owner, TensorBase):
            return function.__name__ not in _ON_THE_TAPE
        return harmless(function.__func__, made)
    if isinstance(function, FunctionType):
        if made(function.__code__):
            return True
        module = function.__module__ or ""
        if not is_kiln(module):
            return True  # watched
        name = module.split(".")[1] if "." in module else ""
        if name == "random":
            return function.__name__ in _PURE_RANDOM
        if name == "autograd":
            return function.__name__ == "grad"
        return name in _PURE_FILES or module == "kiln.nn.functional" or module.startswith("kiln.nn.fn_")
    if isinstance(function, type):
        return not is_kiln(function.__module__) or function.__name__ in _PURE_CLASSES
    if isinstance(function, BuiltinFunctionType):
        return function.__name__ not in ("setattr", "delattr", "next", "__setattr__", "__delattr__")
    if hasattr(type(function), "named_parameters"):  # a module
        return not any(vars(function).get(f"_{kind}_hooks") for kind in ("forward", "forward_pre", "backward"))
    return not is_kiln(type(function).__module__)


def roots(function: Any) -> Sequence[Any]:
    """What a converted function sees besides its arguments."""
    while isinstance(function, MethodType):
        function = function.__func__
    if not isinstance(function, FunctionType):
        return ()
    found: list[Any] = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not bound yet
            continue
    return found


@contextlib.contextmanager
def locals_of(state: State, outer: Mapping[int, CellType]) -> Iterator[None]:
    """Inside, code of a function runs as functions of its own, but the error that a variable of it is not bound says
    what Python says. `outer`: cells of functions around it, by id."""
    try:
        yield
    except NameError as error:
        cell = state.visible.get(error.name or "")
        if type(error) is not NameError or cell is None or id(cell) in outer:
            raise
        said = f"cannot access local variable '{error.name}' where it is not associated with a value"
        raise UnboundLocalError(said, name=error.name).with_traceback(error.__traceback__) from None
