"""Converted code when it runs: the object `__h__` that it calls, and the branches that it can hand to hooks.

A branch is the user's own statements once more, in a function over the same variables. It is compiled when a hook
first asks for it: as long as all tests are plain Python values, there is none.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CellType, CodeType, FunctionType
from typing import Any, Final

from kiln.convert.hooks import PythonHooks, Site, State

HOOKS: Final = "__h__"
"""The name under which converted code finds its `Runtime`."""
_INPLACE: Final = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow")
_INPLACE_BITS: Final = ("lshift", "rshift", "or", "xor", "and")


@dataclass(eq=False)
class Part:
    """A branch, a loop's body, an operand: what becomes a function when it is staged."""

    body: list[ast.stmt]
    parameter: str | None = None
    code: CodeType | None = None


@dataclass(eq=False)
class Plan:
    """A site, and what its branches are compiled from."""

    site: Site
    parts: tuple[Part | None, ...]
    cells: tuple[str, ...]
    """Those of `Site.names` as cells are named: mangled."""
    compile: Callable[[Part, Sequence[str]], CodeType]
    """From a part and the variables that it finds around it."""


@dataclass(eq=False)
class Context:
    """What a conversion keeps for its sites."""

    file: str
    plans: list[Plan] = field(default_factory=list)


class _Pending:
    """Stands for the left operand of a staged `and` or `or` until `result`: as true or false as it takes to keep Python
    from evaluating the right one."""

    __slots__ = ("_truth", "value")

    def __init__(self, value: Any, truth: bool) -> None:
        self.value = value
        self._truth = truth

    def __bool__(self) -> bool:
        return self._truth


class Runtime:
    """The hooks as converted code calls them: `__h__`."""

    def __init__(self, context: Context, hooks: Any, space: dict[str, Any]) -> None:
        self.hooks = hooks
        self.globals = space
        self._plans = context.plans
        for name in _DIRECT:
            setattr(self, name, getattr(hooks, name))
        self.slice = slice
        for name in _INPLACE:
            setattr(self, f"i{name}", getattr(operator, f"i{name}"))
        for name in _INPLACE_BITS:
            setattr(self, f"i{name}", getattr(operator, f"i{name}"))
        hooks.begin(self)

    def if_(self, test: Any, k: int, scope: FunctionType) -> None:
        (then, orelse), state, site = self._at(k, scope)
        self.hooks.if_(test, then, orelse, state, site)

    def while_(self, test: Any, k: int, scope: FunctionType) -> None:
        (again, body), state, site = self._at(k, scope)
        self.hooks.while_(test, again, body, state, site)

    def stages(self, slot: list[Any], k: int) -> bool:
        return bool(self.hooks.stages(slot, self._plans[k].site))

    def for_(self, iterable: Any, k: int, scope: FunctionType) -> None:
        (body,), state, site = self._at(k, scope)
        self.hooks.for_(iterable, body, state, site)

    def ifexp(self, test: Any, k: int, scope: FunctionType) -> Any:
        (then, orelse), state, site = self._at(k, scope)
        return self.hooks.ifexp(test, then, orelse, state, site)

    def assert_(self, test: Any, k: int, scope: FunctionType) -> bool:
        (message,), state, site = self._at(k, scope)
        self.hooks.assert_(test, message, state, site)
        return True

    def both(self, value: Any) -> Any:
        """The left operand of `and`."""
        if type(value) is bool or not self.hooks.staged(value):
            return value
        return _Pending(value, False)

    def either(self, value: Any) -> Any:
        """The left operand of `or`."""
        if type(value) is bool or not self.hooks.staged(value):
            return value
        return _Pending(value, True)

    def result(self, value: Any, k: int, scope: FunctionType) -> Any:
        """The value of `and` or `or`."""
        if type(value) is not _Pending:
            return value
        (right,), state, site = self._at(k, scope)
        combine = self.hooks.and_ if site.kind == "and" else self.hooks.or_
        return combine(value.value, right, state, site)

    def super_(self, kind: Any, cls: type, instance: Any) -> tuple[Any, ...]:
        """What `super()` is called with, unless it is a name of the user's."""
        return (cls, instance) if kind is super else ()

    def _at(self, k: int, scope: FunctionType) -> tuple[list[Any], State, Site]:
        """The branches of a site as functions over the variables that `scope` sees."""
        plan = self._plans[k]
        visible: dict[str, CellType] = dict(zip(scope.__code__.co_freevars, scope.__closure__ or (), strict=True))
        branches: list[Any] = []
        for part in plan.parts:
            if part is None:
                branches.append(None)
                continue
            if part.code is None:
                part.code = plan.compile(part, list(visible))
            closure = tuple([visible[name] for name in part.code.co_freevars])
            branches.append(FunctionType(part.code, self.globals, closure=closure))
        cells = [visible[name] for name in plan.cells]
        state = State(plan.site.names, cells, {n: c for n, c in visible.items() if n != HOOKS})
        return branches, state, plan.site


_DIRECT: Final = tuple(name for name in vars(PythonHooks) if not name.startswith("_") and name != "stages")
