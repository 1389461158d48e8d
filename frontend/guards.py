"""Guards: the Python state that a captured function can reach, and whether it is still the same.

From the function we follow closure cells, the globals that its code (and the code of functions it reaches) names,
bound instances, and the attributes and items of what lies there: modules of parameters, optimisers, lists, dicts,
plain objects. Every container on the way becomes a fact: which objects it held. Checking a fact is one comparison of
object identities; numbers and strings that were replaced by equal ones still count as equal.

The same facts, checked right after a capture, show whether the captured call changed Python state, which a compiled
call could not repeat.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from kiln.base import TensorBase
from kiln.location import is_kiln

_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_OPAQUE = (type, BuiltinFunctionType, CodeType, ModuleType)
_MAX_FACTS = 20000


class Fact:
    """What one container held: `read` gives its objects now."""

    __slots__ = ("ids", "objects", "path", "read")

    def __init__(self, path: str, read: Callable[[], tuple[Any, ...]]) -> None:
        self.path = path
        self.read = read
        self.objects = read()
        self.ids = tuple(map(id, self.objects))

    def holds(self) -> bool:
        """Whether the container holds the same objects, or equal numbers and strings."""
        now = self.read()
        if tuple(map(id, now)) == self.ids:
            return True
        if len(now) != len(self.objects):
            return False
        for a, b in zip(self.objects, now, strict=True):
            if a is not b and not (type(a) is type(b) and isinstance(a, _SCALARS) and _same_number(a, b)):
                return False
        self.objects, self.ids = now, tuple(map(id, now))
        return True


def _same_number(a: Any, b: Any) -> bool:
    return repr(a) == repr(b)  # tells 0.0 from -0.0, and takes NaN for NaN


class Guards:
    """All facts about what a function reaches, and the tensors found on the way."""

    def __init__(self, function: Callable[..., Any], extra: tuple[Any, ...] = ()) -> None:
        self.facts: list[Fact] = []
        self.tensors: dict[int, TensorBase] = {}
        self._seen: dict[int, Any] = {}
        self._visit(function, getattr(function, "__name__", type(function).__name__))
        for k, x in enumerate(extra):
            self._visit(x, f"argument {k}")

    def hold(self) -> bool:
        """Whether everything is as it was."""
        return all(map(Fact.holds, self.facts))

    def broken(self) -> str:
        """The path of the first container that changed; empty when none did."""
        return next((fact.path for fact in self.facts if not fact.holds()), "")

    # ------------------------------------------------------------------------------------- walking

    def _fact(self, path: str, read: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        if len(self.facts) >= _MAX_FACTS:
            raise RecursionError(f"more than {_MAX_FACTS} containers are reachable from the captured function")
        fact = Fact(path, read)
        self.facts.append(fact)
        return fact.objects

    def _visit(self, x: Any, path: str) -> None:
        if isinstance(x, _SCALARS + _OPAQUE) or id(x) in self._seen:
            return
        self._seen[id(x)] = x
        if isinstance(x, TensorBase):
            self.tensors[id(x)] = x
        elif isinstance(x, FunctionType):
            self._function(x, path)
        elif isinstance(x, MethodType):
            self._visit(x.__self__, f"{path}.__self__")
            self._visit(x.__func__, path)
        elif isinstance(x, dict):
            keys = self._fact(f"the keys of {path}", lambda: tuple(x))
            for k, v in zip(keys, self._fact(path, lambda: tuple(x.values())), strict=True):
                if not isinstance(k, _SCALARS):
                    self._visit(k, f"a key of {path}")
                self._visit(v, f"{path}[{k!r}]" if isinstance(k, _SCALARS) else f"{path}[...]")
        elif isinstance(x, list | tuple):
            for k, v in enumerate(self._fact(path, lambda: tuple(x))):
                self._visit(v, f"{path}[{k}]")
        elif isinstance(x, CellType):
            self._cell(x, path)
        else:
            self._object(x, path)

    def _object(self, x: Any, path: str) -> None:
        """Attributes of an instance; code of its class when that is the user's."""
        attributes = getattr(x, "__dict__", None)
        if isinstance(attributes, dict):
            keys = self._fact(f"the attributes of {path}", lambda: tuple(attributes))
            for k, v in zip(keys, self._fact(path, lambda: tuple(attributes.values())), strict=True):
                self._visit(v, f"{path}.{k}")
        for name in _slots(type(x)):
            self._fact(f"{path}.{name}", lambda name=name: (getattr(x, name, None),))  # type: ignore[misc]
            self._visit(getattr(x, name, None), f"{path}.{name}")
        if not _is_library(type(x).__module__):
            for cls in type(x).__mro__:
                if not _is_library(cls.__module__):
                    for v in vars(cls).values():
                        if isinstance(v, FunctionType):
                            self._visit(v, v.__qualname__)

    def _function(self, f: FunctionType, path: str) -> None:
        if _is_library(f.__module__):
            return
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            self._cell(cell, name)
        if f.__defaults__:
            self._visit(f.__defaults__, f"the defaults of {path}")
        if f.__kwdefaults__:
            self._visit(f.__kwdefaults__, f"the defaults of {path}")
        space = f.__globals__
        for name in _names(f.__code__):
            if name in space:
                self._fact(f"the global {name}", lambda name=name: (space.get(name),))  # type: ignore[misc]
                self._global(space[name], name, f.__code__)

    def _global(self, x: Any, name: str, code: CodeType) -> None:
        """A global; of a module of the user's, the attributes that the code may read."""
        if isinstance(x, ModuleType):
            if not _is_library(x.__name__):
                for attribute in _names(code):
                    if attribute in vars(x):
                        read = lambda a=attribute: (vars(x).get(a),)  # noqa: E731
                        self._fact(f"{name}.{attribute}", read)
                        self._visit(vars(x)[attribute], f"{name}.{attribute}")
            return
        self._visit(x, name)

    def _cell(self, cell: CellType, name: str) -> None:
        def read() -> tuple[Any, ...]:
            try:
                return (cell.cell_contents,)
            except ValueError:  # not bound yet
                return ()

        for x in self._fact(name, read):
            self._visit(x, name)


def _names(code: CodeType) -> Iterator[str]:
    """Global and attribute names that a code object, or one nested in it, mentions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _slots(cls: type) -> Iterator[str]:
    for c in cls.__mro__:
        slots = c.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and not _is_library(c.__module__):
                yield name


_ROOTS = frozenset({"numpy", "builtins", "typing", "collections", "functools"})


@functools.cache
def _is_library(module: str | None) -> bool:
    """Modules whose code is not the user's: kiln itself, NumPy, the standard library, installed packages."""
    name = module or ""
    root = name.split(".")[0]
    if is_kiln(name) or root in _ROOTS or root in sys.stdlib_module_names - {"__main__"}:
        return True
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file
