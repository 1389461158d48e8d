"""Run a program as it is and converted, and compare all that can be seen."""

from __future__ import annotations

import contextlib
import io
import itertools
import linecache
import traceback
import types
from collections.abc import Callable
from typing import Any

from kiln.convert import PythonHooks, State, converted
from kiln.convert.find import Refused

_NUMBERS = itertools.count()


class Staged:
    """The truth of a plain value, dressed up as something to be staged."""

    def __init__(self, truth: bool) -> None:
        self.truth = truth

    def __bool__(self) -> bool:
        raise AssertionError("the truth of what is staged was asked for")


class Staging(PythonHooks):
    """Hooks that stage everything and then do what Python does: all branches run as functions of their own.

    After a branch, what it bound is taken out and put back, as a capture would.
    """

    def __init__(self) -> None:
        self.sites: list[tuple[str, int]] = []

    @staticmethod
    def test(value: Any) -> Any:  # type: ignore[override]
        return value if isinstance(value, Staged) else Staged(bool(value))

    @staticmethod
    def truth(value: Any) -> bool:  # type: ignore[override]
        return value.truth if isinstance(value, Staged) else bool(value)

    @staticmethod
    def not_(value: Any) -> bool:  # type: ignore[override]
        return not Staging.truth(value)

    @staticmethod
    def staged(value: Any) -> bool:
        return True

    @staticmethod
    def stages(slot: list[Any], site: Any) -> bool:
        return not isinstance(slot[0], types.GeneratorType)  # a traceback would keep it open

    def _at(self, state: State, site: Any) -> None:
        self.sites.append((site.kind, site.line))
        before = state.get()
        state.set([None] * len(before))
        state.set(before)
        assert all(a is b for a, b in zip(before, state.get(), strict=True))

    def if_(self, test: Any, then: Any, orelse: Any, state: State, site: Any) -> None:
        self._at(state, site)
        (then if test.truth else orelse)()

    def while_(self, test: Any, again: Any, body: Any, state: State, site: Any) -> None:
        while self.truth(test):
            self._at(state, site)
            body()
            test = again()

    def for_(self, iterable: Any, body: Any, state: State, site: Any) -> None:
        for item in iterable:
            self._at(state, site)
            body(item)
            if site.exit is not None and state.get()[site.names.index(site.exit)]:
                break

    def ifexp(self, test: Any, then: Any, orelse: Any, state: State, site: Any) -> Any:
        self._at(state, site)
        return (then if test.truth else orelse)()

    def and_(self, left: Any, right: Any, state: State, site: Any) -> Any:
        self._at(state, site)
        return right() if self.truth(left) else left

    def or_(self, left: Any, right: Any, state: State, site: Any) -> Any:
        self._at(state, site)
        return left if self.truth(left) else right()

    def assert_(self, test: Any, message: Any, state: State, site: Any) -> None:
        self._at(state, site)
        if not test.truth:
            if message is None:
                raise AssertionError
            raise AssertionError(message())


def load(text: str) -> Any:
    """A module made from text whose source can be found."""
    name = f"<program {next(_NUMBERS)}>"
    lines = [line + "\n" for line in text.splitlines()]
    linecache.cache[name] = (len(text), None, lines, name)
    module = types.ModuleType("program")
    exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
    return module


def observe(module: Any, call: Callable[..., Any], arguments: Any, exact: bool) -> list[Any]:
    """All that can be seen of one call."""
    out = io.StringIO()
    result: Any = None
    seen: list[Any] = []
    with contextlib.redirect_stdout(out):
        try:
            result = call(*arguments)
            if isinstance(result, types.GeneratorType):
                items, result = result, None
                result = list(items)
        except BaseException as error:  # noqa: BLE001 what it is, is compared
            seen = _error(error, module.__file__ if hasattr(module, "__file__") else "", exact)
    state = {k: _shown(v) for k, v in vars(module).items() if not k.startswith("__") and k not in _CODE}
    return [_shown(result), out.getvalue(), seen, _shown(arguments), state]


_CODE = frozenset({"run", "p", "T"})


def _shown(x: Any) -> str:
    if isinstance(x, (types.FunctionType, type, types.ModuleType, types.MethodType)):
        return f"<{getattr(x, '__qualname__', x.__name__)}>"
    if type(x).__repr__ is object.__repr__:
        return f"<{type(x).__qualname__} {_shown(vars(x)) if hasattr(x, '__dict__') else ''}>"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{_shown(k)}: {_shown(v)}" for k, v in x.items()) + "}"
    if isinstance(x, (list, tuple)):
        return type(x).__name__ + "[" + ", ".join(map(_shown, x)) + "]"
    return f"{type(x).__name__} {x!r}"


def _error(error: BaseException, file: str, exact: bool) -> list[Any]:
    kind: Any = type(error)
    message = str(error)
    if not exact and kind in (NameError, UnboundLocalError):
        kind, message = NameError, message.split("'")[1]  # a branch sees the variable from outside
    frames = [
        (code.co_filename, tb.tb_lineno, code.co_name, list(code.co_positions())[tb.tb_lasti // 2])
        for tb in _walk(error.__traceback__)
        if (code := tb.tb_frame.f_code).co_filename != __file__
    ]
    if not exact:
        frames = [frame for frame in frames if frame[0].startswith("<program")]
    frames = [(line, name, where) for _, line, name, where in frames]
    notes = [_error(e, file, exact) if e is not None else None for e in (error.__cause__, error.__context__)]
    if isinstance(error, BaseExceptionGroup):
        notes += [_error(e, file, exact) for e in error.exceptions]
    if not exact:
        return [kind, message, frames[-1][0] if frames else None, [n and n[:2] for n in notes]]
    return [kind, message, frames, notes, error.__suppress_context__]


def _walk(tb: Any) -> Any:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def differences(text: str, arguments: list[Any], get: str = "run") -> list[str]:
    """What differs between a program as it is, converted, and converted with everything staged."""
    found = []
    for hooks in (PythonHooks(), Staging()):
        exact = type(hooks) is PythonHooks
        for make in arguments:
            plain, other = load(text), load(text)
            try:
                converted_run = converted(eval(get, other.__dict__), hooks)
            except Refused as refused:
                return [f"refused: {refused}"]
            wanted = observe(plain, eval(get, plain.__dict__), make(), exact)
            try:
                given = observe(other, converted_run, make(), exact)
            except Exception:  # noqa: BLE001 the harness or the converter failed: show where
                given = [traceback.format_exc()]
            if wanted != given:
                pairs = [(w, g) for w, g in zip(wanted, given, strict=False) if w != g]
                found.append(f"{type(hooks).__name__}: " + "\n".join(f"wanted {w}\ngot    {g}" for w, g in pairs))
    return found
