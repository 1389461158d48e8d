"""What a function can reach: the walk that fills its guards.

From the function we follow closure cells, default arguments, the globals that its code names (modules only as far as
the code looks into them), bound instances, classes, and the attributes and items of what lies there. Everything on
the way is of a kind whose changes we can see; an object of another kind (an iterator, a generator of random
numbers, a file's handle, a cache) is refused by name, since its hidden state could change a result unseen.
"""

from __future__ import annotations

import collections
import datetime
import dis
import enum
import functools
import operator
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any, Final

import numpy as np

from kiln.base import HOOKED, Layout, TensorBase
from kiln.errors import CaptureError
from kiln.guards import MISSING, SCALARS, Guards
from kiln.ir.graph import Constant
from kiln.ir.ops.base import OpDef
from kiln.ir.types import Device, DType, Sym
from kiln.location import is_kiln
from kiln.random import default_generator

_MAX_FACTS: Final = 20_000

_FIELD: Final = type(vars(collections.namedtuple("_Example", "x"))["x"])
_FIXED: Final = (
    *SCALARS,
    *(range, slice, type(...), type(NotImplemented), CodeType, np.dtype, np.ufunc, enum.Enum, re.Pattern),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, GenericAlias, UnionType),
    *(DType, Device, Sym, OpDef, Constant, Layout),
    *(type(threading.Lock()), type(threading.RLock())),
    *(MethodDescriptorType, WrapperDescriptorType, ClassMethodDescriptorType),
    *(GetSetDescriptorType, MemberDescriptorType, _FIELD),
    *(operator.attrgetter, operator.itemgetter, operator.methodcaller),
)
"""Kinds that never change what they are; which object it is has been noted where it was found."""

_CONTAINERS: Final = (list, tuple, set, frozenset, collections.deque)
_PURE_MODULES: Final = frozenset({"logging", "threading", "typing", "abc", "warnings"})
"""Standard modules whose objects are taken as they are: using them is judged by `world.py` when it happens."""


_CODE: Final = (FunctionType, staticmethod, classmethod, property)


@dataclass(frozen=True)
class Reached:
    """Guards on all state, all code that the function can run as far as this walk can see, and every object that was
    met, by id (kept alive with it)."""

    guards: Guards
    code: frozenset[CodeType]
    seen: dict[int, Any]


def reach(function: Callable[..., Any], objects: tuple[Any, ...] = ()) -> Reached:
    """Walk from a function, and from objects that it was given as arguments. CaptureError for what can't be tracked."""
    walk = _Walk()
    walk.visit(function, getattr(function, "__name__", type(function).__name__))
    for k, x in enumerate(objects):
        walk.visit(x, f"argument {k}")
    walk.visit(default_generator, "the default generator")  # through kiln.rand and its like
    walk.look_into_modules()
    walk.guards.freeze()
    return Reached(walk.guards, frozenset(walk.code), walk.seen)


_DEPENDENCIES: Final = frozenset(
    {"numpy", "llvmlite", "ml_dtypes", "networkx", "safetensors", "platformdirs", "filelock"}
)


def is_library(module: str | None) -> bool:
    """Modules whose code is not the user's: kiln itself, what it needs, the standard library."""
    root = (module or "").split(".")[0]
    return is_kiln(module or "") or root in _DEPENDENCIES or (root in sys.stdlib_module_names and root != "__main__")


class _Walk:
    def __init__(self) -> None:
        self.guards = Guards()
        self.code: set[CodeType] = set()
        self.seen: dict[int, Any] = {}
        self.modules: dict[int, tuple[ModuleType, set[str]]] = {}  # looked into by any name
        self.names: set[str] = set()  # attribute names in all code
        self.entries: set[tuple[int, str]] = set()

    def visit(self, x: Any, path: str) -> None:
        """Note the state of one object and of all below it."""
        if x is MISSING or isinstance(x, _FIXED) or id(x) in self.seen:
            return
        if len(self.guards.facts) > _MAX_FACTS:
            raise CaptureError(
                f"more than {_MAX_FACTS} containers are reachable from the captured function, at last through {path}",
                fix="keep large Python structures out of what the function reads",
            )
        self.seen[id(x)] = x
        if isinstance(x, TensorBase):
            self.guards.tensors[id(x)] = x
            if x._flags & HOOKED:
                self.visit(x._hooks.tensor, f"the hooks of {path}")
                self.visit(x._hooks.after, f"the hooks of {path}")
        elif isinstance(x, FunctionType):
            self._function(x, path)
        elif isinstance(x, MethodType):
            self.visit(x.__self__, f"{path}.__self__")
            self.visit(x.__func__, path)
        elif isinstance(x, (BuiltinFunctionType, MethodWrapperType)):
            self._builtin(x, path)
        elif isinstance(x, type):
            self._class(x, path)
        elif isinstance(x, ModuleType):
            self._module(x, (), path)
        elif isinstance(x, CellType):
            self.visit(self.guards.attribute(path, x, "cell_contents"), path)
        elif isinstance(x, dict):
            keys, values = self.guards.mapping(path, x)
            for k, v in zip(keys, values, strict=True):
                self.visit(k, f"a key of {path}")
                self.visit(v, f"{path}[{k!r}]" if isinstance(k, SCALARS) else f"{path}[...]")
            self._object(x, path)
        elif isinstance(x, _CONTAINERS):
            for n, v in enumerate(self.guards.items(path, x)):
                self.visit(v, f"{path}[{n}]")
            self._object(x, path)
        else:
            self._other(x, path)

    def _other(self, x: Any, path: str) -> None:
        kind = type(x)
        if isinstance(x, (staticmethod, classmethod)):
            self.visit(x.__func__, path)
        elif isinstance(x, property):
            for f in (x.fget, x.fset, x.fdel):
                self.visit(f, path)
        elif isinstance(x, functools.partial):
            for part in (x.func, x.args, x.keywords):
                self.visit(part, path)
        elif isinstance(x, weakref.ref):
            self.visit(self.guards.referent(path, x), path)
        elif kind is np.ndarray and not x.dtype.hasobject:
            self.guards.array(path, x)
        elif hasattr(kind, "__kiln_reach__"):
            for part in x.__kiln_reach__():
                self.visit(part, path)
        elif not _taken_as_it_is(x):
            self._object(x, path)

    def _builtin(self, x: Any, path: str) -> None:
        """A C function; a bound one leads to its object."""
        if _draws(x):
            self._refuse(x, path)
        if x.__self__ is not None and not isinstance(x.__self__, (ModuleType, type)):
            self.visit(x.__self__, f"{path}.__self__")

    def _refuse(self, x: Any, path: str) -> None:
        raise CaptureError(
            f"{path} is a {type(x).__module__}.{type(x).__qualname__}, whose state can't be seen; a compiled call "
            "would not notice when it changes",
            fix="pass what is needed of it as an argument, or keep it out of what the function reads",
        )

    # ------------------------------------------------------------------------------- objects, classes

    def _object(self, x: Any, path: str) -> None:
        """Attributes of an instance, and its class."""
        kind = type(x)
        if any(map(_has_hidden_state, kind.__mro__)):
            self._refuse(x, path)
        attributes = getattr(x, "__dict__", None)
        if isinstance(attributes, dict):
            self.guards.attribute(f"the class of {path}", x, "__class__")
            self.guards.attribute(f"the attributes of {path}", x, "__dict__")
            keys, values = self.guards.mapping(f"the attributes of {path}", attributes)
            for k, v in zip(keys, values, strict=True):
                self.visit(v, f"{path}.{k}")
        for name in _slots(kind):
            self.visit(self.guards.attribute(f"{path}.{name}", x, name), f"{path}.{name}")
        self.visit(kind, kind.__qualname__)

    def _class(self, cls: type, path: str) -> None:
        """Attributes of a class of the user's and of its bases."""
        for c in cls.__mro__:
            if is_library(c.__module__) or (c is not cls and id(c) in self.seen):
                continue
            self.seen[id(c)] = c
            keys, values = self.guards.mapping(f"the class {c.__qualname__}", vars(c))
            for k, v in zip(keys, values, strict=True):
                dunder = k.startswith("__") and k.endswith("__")
                if k != "_abc_impl" and (not dunder or isinstance(v, _CODE)):
                    self.visit(v, f"{c.__qualname__}.{k}")
        if type(cls) is not type:
            self.visit(type(cls), type(cls).__qualname__)

    # ------------------------------------------------------------------------------- functions, modules

    def _function(self, f: FunctionType, path: str) -> None:
        """Cells and defaults; the globals too, unless the code is a library's (then they are its own affair)."""
        cells = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
        for name, cell in cells.items():
            self.visit(cell, name)
        self.visit(f.__defaults__, f"the defaults of {path}")
        self.visit(f.__kwdefaults__, f"the defaults of {path}")
        if is_library(f.__globals__.get("__name__")):
            if _draws(f):
                self._refuse(f, path)
            return
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            self.guards.attribute(f"{name} of {path}", f, name)
        self.visit(vars(f), f"the attributes of {path}")
        self.code.update(_nested(f.__code__))
        uses = _uses(f.__code__)
        self.names |= uses.attributes
        for root, *rest in uses.globals:
            self._global(f.__globals__, root, tuple(rest), root)
        for root, *rest in uses.cells:
            if root in cells:
                module = getattr(cells[root], "cell_contents", None) if _bound(cells[root]) else None
                if isinstance(module, ModuleType):
                    self._module(module, tuple(rest), root)
        package = f.__globals__.get("__package__") or ""
        for name, level in uses.imports:
            for full in (name, f"{package}.{name}" if name else package):
                if (level == 0) == (full == name) and isinstance(sys.modules.get(full), ModuleType):
                    self._module(sys.modules[full], (), full)

    def _global(self, space: dict[str, Any], name: str, rest: tuple[str, ...], path: str) -> None:
        """A name of a module's name space, and the attributes read behind it."""
        if (id(space), name) not in self.entries:
            self.entries.add((id(space), name))
            self.guards.entry(f"the global {path}", space, name)
        x = space.get(name, MISSING)
        if isinstance(x, ModuleType):
            self._module(x, rest, path)
        else:
            self.visit(x, path)

    def _module(self, module: ModuleType, chain: tuple[str, ...], path: str) -> None:
        """A module: only what is read of it, where code says so; otherwise every name that any code mentions."""
        if is_kiln(module.__name__):
            return
        if module.__name__.startswith("numpy.random"):
            self._refuse(module, path)
        if chain:
            self._global(vars(module), chain[0], chain[1:], f"{path}.{chain[0]}")
        elif not is_library(module.__name__):
            self.modules.setdefault(id(module), (module, set()))

    def look_into_modules(self) -> None:
        """Modules that were found without a name behind them, until nothing new turns up."""
        while True:
            before = len(self.names), len(self.modules)
            for module, done in list(self.modules.values()):
                for name in sorted(self.names - done):
                    done.add(name)
                    self._global(vars(module), name, (), f"{module.__name__}.{name}")
            if (len(self.names), len(self.modules)) == before:
                return


def _bound(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not MISSING
    except ValueError:
        return False


def _taken_as_it_is(x: Any) -> bool:
    """Loggers and such, and NumPy's functions."""
    root = type(x).__module__.split(".")[0]
    return root in _PURE_MODULES or (root == "numpy" and callable(x) and not _draws(x))


def _draws(x: Any) -> bool:
    """Whether a callable belongs to NumPy's random numbers."""
    return str(getattr(x, "__module__", "") or "").startswith("numpy.random")


def _slots(kind: type) -> Iterator[str]:
    for c in kind.__mro__:
        names = c.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__"):
                yield f"_{c.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name


_OPEN: Final = frozenset(
    {object, *_CONTAINERS, dict, str, bytes, int, float, complex, BaseException, type, ModuleType}
    | {collections.OrderedDict, collections.defaultdict, SimpleNamespace}
)
"""C types whose contents are tracked above."""


def _has_hidden_state(cls: type) -> bool:
    """Whether a class is implemented in C (it has methods of its own that are C functions) and not tracked."""
    if cls in _OPEN or issubclass(cls, BaseException):
        return False
    c_methods = (MethodDescriptorType, WrapperDescriptorType)
    return any(isinstance(v, c_methods) and v.__objclass__ is cls for v in vars(cls).values())


# ------------------------------------------------------------------------------------------- byte code


@dataclass(frozen=True)
class _Uses:
    """Names in code: globals and cells with the attributes read right behind them, imports, all attributes."""

    globals: frozenset[tuple[str, ...]]
    cells: frozenset[tuple[str, ...]]
    imports: frozenset[tuple[str, int]]
    attributes: frozenset[str]


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A code object and those of functions, comprehensions and classes inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


_ATTRIBUTE: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR", "IMPORT_FROM"})
_GLOBAL: Final = frozenset(
    {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "STORE_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
)
_CELL: Final = frozenset({"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"})
_BETWEEN: Final = frozenset({"PUSH_NULL", "COPY", "NOP", "CACHE", "EXTENDED_ARG"})


@functools.lru_cache(maxsize=1024)
def _uses(code: CodeType) -> _Uses:
    """What a code object and all nested in it name."""
    chains: dict[str, set[tuple[str, ...]]] = {"global": set(), "cell": set()}
    imports: set[tuple[str, int]] = set()
    attributes: set[str] = set()
    for part in _nested(code):
        kind, level = "", 0
        chain: tuple[str, ...] = ()
        for instruction in dis.get_instructions(part):
            name, argument = instruction.opname, instruction.argval
            if name in _ATTRIBUTE:
                attributes.add(argument)
                chain = (*chain, argument)
                continue
            if name in _BETWEEN:
                continue
            if kind:
                chains[kind].add(chain)
            kind, chain = "", ()
            if name in _GLOBAL:
                kind, chain = "global", (argument,)
            elif name in _CELL:
                kind, chain = "cell", (argument,)
            elif name == "LOAD_CONST" and isinstance(argument, int):
                level = argument
            elif name == "IMPORT_NAME":
                imports.add((argument, level))
        attributes.update(c for c in part.co_consts if isinstance(c, str) and c.isidentifier())
    return _Uses(frozenset(chains["global"]), frozenset(chains["cell"]), frozenset(imports), frozenset(attributes))
