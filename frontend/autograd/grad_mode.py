"""Whether ops are put on the tape: per thread, as context managers and decorators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from kiln.base import MODES
from kiln.errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")


class _Mode:
    """A `with` block or decorator that sets modes on entry and restores them; may be entered again and nested."""

    def __init__(self) -> None:
        self._before: list[tuple[bool, bool]] = []

    def _set(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> None:
        self._before.append((MODES.grad_enabled, MODES.inference))
        self._set()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODES.grad_enabled, MODES.inference = self._before.pop()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate: `function` runs in this mode."""
        return decorated(self, function)


def decorated(mode: AbstractContextManager[Any], function: Callable[P, R]) -> Callable[P, R]:
    """`function` in a mode; of a generator, every step of it."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
            return _stepping(mode, function(*args, **kwargs))

        return cast("Callable[P, R]", steps)

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with mode:
            return function(*args, **kwargs)

    return wrapped


def _stepping(mode: AbstractContextManager[Any], generator: Any) -> Generator[Any, Any, Any]:
    """Run a generator so that the mode holds inside it, and not between its steps."""
    try:
        with mode:
            produced = next(generator)
        while True:
            try:
                sent = yield produced
            except GeneratorExit:
                with mode:
                    generator.close()
                raise
            except BaseException as error:  # noqa: BLE001 (thrown into the generator, whatever it is)
                with mode:
                    produced = generator.throw(error)
            else:
                with mode:
                    produced = generator.send(sent)
    except StopIteration as end:
        return end.value


class GradMode(_Mode):
    """The mode that is given."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self._mode = mode

    def _set(self) -> None:
        MODES.grad_enabled = self._mode


class _Bare(_Mode):
    """A mode that needs no argument: also `@no_grad`, without parentheses."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        made = super().__new__(cls)
        if function is None:
            return made
        if not callable(function):
            raise ArgumentError(f"takes no {type(function).__name__}", op=cls.__name__, fix=f"{cls.__name__}()")
        made.__init__()  # type: ignore[misc]
        return decorated(made, function)

    def __init__(self) -> None:
        super().__init__()


class no_grad(_Bare):
    """`with no_grad():`, `@no_grad()` or `@no_grad`: ops leave no trace on the tape."""

    def _set(self) -> None:
        MODES.grad_enabled = False


class enable_grad(_Bare):
    """`with enable_grad():` or `@enable_grad()`: the tape records again inside a `no_grad` block."""

    def _set(self) -> None:
        MODES.grad_enabled = True


class inference_mode(_Mode):
    """`no_grad` that says so: `is_inference_mode_enabled()` is True inside. `inference_mode(False)` turns both off.

    Tensors made inside are ordinary ones and may be used anywhere later.
    """

    def __new__(cls, mode: Any = True) -> Any:
        made = super().__new__(cls)
        if not callable(mode):
            return made
        made.__init__()  # type: ignore[misc]
        return decorated(made, mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self._mode = bool(mode)

    def _set(self) -> None:
        MODES.inference = self._mode
        MODES.grad_enabled = not self._mode


class set_grad_enabled(_Mode):
    """Turn the tape on or off for this thread: at once, within a `with` block, or around a function."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self._outside = MODES.grad_enabled
        self._mode = bool(mode)
        MODES.grad_enabled = self._mode

    def _set(self) -> None:
        MODES.grad_enabled = self._mode

    def __enter__(self) -> None:
        self._before.append((self._outside, MODES.inference))
        MODES.grad_enabled = self._mode

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate: `function` runs in this mode (which then does not last outside)."""
        MODES.grad_enabled = self._outside
        return decorated(GradMode(self._mode), function)


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require gradients are recorded now."""
    return MODES.grad_enabled


def is_inference_mode_enabled() -> bool:
    """Whether this runs inside `inference_mode`."""
    return MODES.inference
