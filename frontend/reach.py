"""What a function can reach: the walk that fills its guards.

From the function we follow closure cells, default arguments, the globals that its code names (modules only as far as
the code looks into them), bound instances, classes, and the attributes and items of what lies there. Everything on
the way is of a kind whose changes we can see; an object of another kind (an iterator, a generator of random
numbers, a file's handle, a cache) is refused by name, since its hidden state could change a result unseen.
"""

from __future__ import annotations

import abc
import builtins
import collections
import copyreg
import datetime
import dis
import enum
import functools
import operator
import os
import re
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence, Set
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
from kiln.counting import only_counted
from kiln.errors import CaptureError
from kiln.guards import ANY, MISSING, SCALARS, Guards
from kiln.ir.graph import Constant
from kiln.ir.ops.base import OpDef
from kiln.ir.types import CPU, Device, DType, Sym
from kiln.location import is_kiln
from kiln.places import Moving, Slot
from kiln.random import default_generators

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


_PARTS: Final[dict[type, tuple[str, ...]]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.partial: ("func", "args", "keywords"),
}
"""What these consist of."""
_GETTERS: Final = (operator.attrgetter, operator.methodcaller)
_CODE: Final = (FunctionType, staticmethod, classmethod, property)


@dataclass(frozen=True)
class Reached:
    """Guards on all state, all code that the function can run as far as this walk can see, and every object that was
    met, by id (kept alive with it)."""

    guards: Guards
    code: set[CodeType]
    seen: dict[int, Any]
    hooks: Guards | None
    """What only hooks of tensors reach: one of the further guards until `no_gradients` says that they did not run."""
    dormant: dict[CodeType, Callable[[], None]]
    """Code that Python made, for data classes, which names all of their fields: looked at when it runs."""
    attributes: Callable[[], Set[str]]
    """The names of attributes in all code, with some of `_DYNAMIC` where code may read any."""

    def only_counts(self, name: str) -> bool:
        """Whether code does nothing but count with the numbers that a name stands for."""
        names = self.attributes()
        return not names & _DYNAMIC and only_counted(name, {*self.code, *self.dormant}, names)

    def check_counted(self) -> None:
        """CaptureError if code was met on the way that reads what was only counted."""
        for slot in self.guards.counted:
            if not self.only_counts(name_of(slot)):
                raise CaptureError(f"{slot.path} is read by code that was found late", fix="read it in the function")

    def no_gradients(self) -> None:
        """No gradient was taken: hooks of tensors matter only outside of the call."""
        self.guards.ignored |= HOOKED
        if self.hooks is not None and len(self.guards.more) == 1:  # what woke may need what hooks had led to
            self.guards.more.remove(self.hooks)
            for key in self.hooks.tensors:
                del self.guards.tensors[key]


def reach(
    function: Callable[..., Any],
    objects: tuple[Any, ...] = (),
    scripted: bool = False,
    moving: Moving | None = None,
) -> Reached:
    """Walk from a function, and from objects that it was given as arguments. CaptureError for what can't be tracked.
    `scripted`: past what scripts leave to Python (`marks.py`); `moving`: places whose tensors are left to calls."""
    while True:
        reached = _reach(function, objects, scripted, moving)
        read = [slot for slot in reached.guards.counted if not reached.only_counts(name_of(slot))]
        if not read or moving is None:
            return reached
        for slot in read:
            moving.forget(slot.container, slot.key)


def name_of(slot: Slot) -> str:
    """What code calls what is there."""
    return slot.path if type(slot.container) is CellType else str(slot.key)


def _reach(function: Callable[..., Any], objects: tuple[Any, ...], scripted: bool, moving: Moving | None) -> Reached:
    walk = _Walk(scripted, moving)
    walk.visit(function, getattr(function, "__name__", type(function).__name__))
    for k, x in enumerate(objects):
        walk.visit(x, f"argument {k}")
    for device, generator in default_generators().items():  # through kiln.rand and its like
        walk.visit(generator, f"the default generator{'' if device == CPU else f' of {device}'}")
    walk.look_by_name()
    hooks = None
    if walk.hooks:
        hooks = walk.apart(moving)
        for x, path in walk.hooks:
            walk.visit(x, path)
        walk.look_by_name()
        hooks.freeze()
    walk.main.freeze()
    return Reached(walk.main, walk.code, walk.seen, hooks, walk.dormant, walk.attributes)


_DEPENDENCIES: Final = frozenset({"numpy", "llvmlite", "ml_dtypes", "networkx", "platformdirs", "filelock", "cupy"})


def is_library(module: str | None) -> bool:
    """Modules whose code is not the user's: kiln itself, what it needs, the standard library."""
    root = (module or "").split(".")[0]
    return is_kiln(module or "") or root in _DEPENDENCIES or (root in sys.stdlib_module_names and _is_standard(root))


def is_library_code(space: dict[str, Any]) -> bool:
    """Whether code with these globals is a library's, and not that of a module made by hand with a library's name."""
    name = space.get("__name__")
    if not isinstance(name, str) or not is_library(name):
        return False
    return space.get("__spec__") is not None or getattr(sys.modules.get(name), "__dict__", None) is space


def _is_standard(root: str) -> bool:
    """Whether a module with the name of a standard one is that: a file of the user's may hide it."""
    file = getattr(sys.modules.get(root), "__file__", None)
    return root != "__main__" and (file is None or file.startswith(_STANDARD))


_STANDARD: Final = tuple({sysconfig.get_path(kind) + os.sep for kind in ("stdlib", "platstdlib")})


class _Walk:
    def __init__(self, scripted: bool, moving: Moving | None) -> None:
        self.scripted = scripted
        self.main = Guards(moving)
        self.guards = self.main  # where facts are noted now
        self.hooks: list[tuple[Any, str]] = []  # of tensors
        self.dormant: dict[CodeType, Callable[[], None]] = {}
        self.code: set[CodeType] = set()
        self.seen: dict[int, Any] = {}
        self.modules: dict[int, tuple[ModuleType, set[str]]] = {}  # looked into by any name
        self.objects: dict[int, tuple[dict[str, Any], str, set[str]]] = {}  # plain instances, likewise
        self.models: dict[int, tuple[dict[str, Any], str, set[str]]] = {}  # modules of the user's own making
        self.members: list[tuple[type, str, Any, str]] = []  # of plain classes: class, name, value, path
        self.constructed: set[int] = set()  # classes that code may call
        self.names: set[str] = set()  # attribute names in all code
        self.dynamic = False  # whether code may read attributes by names made up at run time
        self.entries: set[tuple[int, str]] = set()

    def visit(self, x: Any, path: str) -> None:
        """Note the state of one object and of all below it."""
        if isinstance(x, _GETTERS) or x is operator.attrgetter or x is operator.methodcaller:
            self.dynamic = True
        if x is type:
            self.names.add("__class__")  # type(x)(...) may call any class
        if isinstance(x, type):
            self.constructed.update(map(id, x.__mro__))
        if x is MISSING or x is ANY or id(x) in self.seen or _is_fixed(x):
            return
        if len(self.guards.facts) > _MAX_FACTS:
            raise CaptureError(
                f"more than {_MAX_FACTS} containers are reachable from the captured function, at last through {path}",
                fix="keep large Python structures out of what the function reads",
            )
        self.seen[id(x)] = x
        if isinstance(x, TensorBase):
            self.guards.tensors[id(x)] = self.main.tensors[id(x)] = x
            self.main.paths[id(x)] = path
            if x._flags & HOOKED:
                self.hooks += [(part, f"the hooks of {path}") for part in (x._hooks.tensor, x._hooks.after)]
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

    def attributes(self) -> Set[str]:
        """See `Reached`."""
        return self.names | _DYNAMIC if self.dynamic else self.names

    def apart(self, moving: Moving | None = None) -> Guards:
        """From now on facts are noted in guards of their own, which must hold, too."""
        self.guards = Guards(moving)
        self.guards.moved, self.guards.counted = self.main.moved, self.main.counted
        self.main.more.append(self.guards)
        return self.guards

    def _wake(self, x: Any, path: str) -> None:
        """Code that was left aside is about to run: note what it can reach. What it reads is as it was before the
        call: code that was met would have named it to change it."""
        guards = self.apart()
        self.visit(x, path)
        self.look_by_name()
        guards.freeze()

    def _other(self, x: Any, path: str) -> None:
        kind = type(x)
        parts = next((names for kind, names in _PARTS.items() if isinstance(x, kind)), ())
        if parts:  # they change when somebody calls __init__ or __setstate__ again
            for name in parts:
                self.visit(self.guards.attribute(path, x, name), path)
        elif isinstance(x, weakref.ref):
            self.visit(self.guards.referent(path, x), path)
        elif kind is np.ndarray and not x.dtype.hasobject:
            self.guards.array(path, x)
        elif hasattr(kind, "__kiln_reach__"):
            for part in () if self.scripted and getattr(kind, "__kiln_left__", False) else x.__kiln_reach__():
                self.visit(part, path)
        elif not _taken_as_it_is(x):
            self._object(x, path)

    def _builtin(self, x: Any, path: str) -> None:
        """A C function; a bound one leads to its object."""
        if _draws(x):
            self._refuse(x, path)
        self.dynamic = self.dynamic or x in _READERS
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
        settle = getattr(kind, "before_capture", None)  # optimisers have one
        if isinstance(settle, FunctionType) and is_kiln(settle.__module__):
            settle(x)
        attributes = getattr(x, "__dict__", None)
        if isinstance(attributes, dict):
            self.guards.attribute(f"the class of {path}", x, "__class__")
            self.guards.attribute(f"the attributes of {path}", x, "__dict__")
            if is_plain(kind):
                self.objects[id(x)] = (attributes, path, set())  # only what is named in code that could read it
            elif _is_model(kind):
                self.guards.items(f"the names of attributes of {path}", attributes)
                self.models[id(x)] = (attributes, path, set())
                self._named(self.models[id(x)], _registers(kind))
            else:
                self._all_attributes(attributes, path)
        elif kind not in _OPEN:
            self.guards.attribute(f"the class of {path}", x, "__class__")
        for name in (*_slots(kind), *(("args",) if isinstance(x, BaseException) else ())):
            self.visit(self.guards.attribute(f"{path}.{name}", x, name), f"{path}.{name}")
        if id(kind) not in self.seen:
            self.seen[id(kind)] = kind
            self._class(kind, kind.__qualname__)

    def _all_attributes(self, attributes: dict[str, Any], path: str) -> None:
        keys, values = self.guards.mapping(f"the attributes of {path}", attributes)
        for k, v in zip(keys, values, strict=True):
            self.visit(v, f"{path}.{k}")

    def _class(self, cls: type, path: str) -> None:
        """Attributes of a class of the user's and of its bases."""
        for c in cls.__mro__:
            if c.__module__.startswith("kiln.nn") and (c is cls or id(c) not in self.seen):
                self._layer(c)
            if is_library(c.__module__) or (c is not cls and id(c) in self.seen):
                continue
            self.seen[id(c)] = c
            self.guards.attribute(f"the bases of {c.__qualname__}", c, "__mro__")
            _note_slots(c)
            keys, values = self.guards.mapping(f"the class {c.__qualname__}", vars(c), c)
            plain, model = is_plain(c), _is_model(c)
            for k, v in zip(keys, values, strict=True):
                dunder = k.startswith("__") and k.endswith("__")
                if (plain or (model and k not in _registers(c))) and (k in _CONSTRUCTORS or not dunder):
                    self.members.append((c, k, v, f"{c.__qualname__}.{k}"))
                elif k in _GENERATED and (made := _generated(v)) is not None:
                    self.dormant[made.__code__] = functools.partial(self._wake, made, f"{c.__qualname__}.{k}")
                elif k != "_abc_impl" and (not dunder or isinstance(v, _CODE)):
                    self.visit(v, f"{c.__qualname__}.{k}")
        if getattr(cls, "_is_protocol", False):  # typing looks for its members by name
            self.names.update(name for c in cls.__mro__ for name in vars(c).get("__annotations__", ()))
        if isinstance(cls, abc.ABCMeta):
            self.guards.referent("what is registered with abstract classes", abc.get_cache_token)
        if type(cls) is not type:
            self.visit(type(cls), type(cls).__qualname__)

    def _layer(self, cls: type) -> None:
        """A layer class of kiln's: its methods are known, unless somebody replaced them."""
        self.seen[id(cls)] = cls
        _note_slots(cls)
        _, values = self.guards.mapping(f"the class {cls.__qualname__}", vars(cls), cls)
        for v in values:
            if isinstance(v, FunctionType) and not is_library_code(v.__globals__):
                self.visit(v, f"{cls.__qualname__}.{v.__name__}")

    # ------------------------------------------------------------------------------- functions, modules

    def _function(self, f: FunctionType, path: str) -> None:
        """Cells and defaults; the globals too, unless the code is a library's (then they are its own affair)."""
        cells = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
        for name, cell in cells.items():
            self.visit(cell, name)
        self.visit(f.__defaults__, f"the defaults of {path}")
        self.visit(f.__kwdefaults__, f"the defaults of {path}")
        if is_library_code(f.__globals__):
            if _draws(f):
                self._refuse(f, path)
            self.dynamic = self.dynamic or f.__globals__["__name__"] in _READING_MODULES
            return
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            self.guards.attribute(f"{name} of {path}", f, name)
        self.visit(vars(f), f"the attributes of {path}")
        self.code.update(_nested(f.__code__))
        uses = _uses(f.__code__)
        self.names |= uses.attributes
        for root, *rest in uses.globals:
            self._global(f.__globals__, root, tuple(rest), root, root in uses.plain)
        for root, *rest in uses.cells:
            if root in cells:
                module = getattr(cells[root], "cell_contents", None) if _bound(cells[root]) else None
                if isinstance(module, ModuleType):
                    self._module(module, tuple(rest), root)
        package = f.__globals__.get("__package__") or ""
        for name, level in uses.imports:
            if level:  # relative: the package, one level up for each further dot
                base = package.rsplit(".", level - 1)[0] if level > 1 else package
                name = f"{base}.{name}" if name else base
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                module = sys.modules.get(".".join(parts[:end]))
                if isinstance(module, ModuleType):
                    self._module(module, (), module.__name__)

    def _global(self, space: dict[str, Any], name: str, rest: tuple[str, ...], path: str, plain: bool = False) -> None:
        """A name of a module's name space, and the attributes read behind it. `plain`: if it is one of `_READERS`, the
        names that it is called with stand in the code."""
        if (id(space), name) not in self.entries:
            self.entries.add((id(space), name))
            self.guards.entry(f"the global {path}", space, name)
        x = space.get(name, MISSING)
        if any(slot.container is space and slot.key == name for slot in self.main.moved):
            return
        if x is MISSING and space is not vars(builtins):
            self._global(vars(builtins), name, rest, path, plain)
        elif isinstance(x, ModuleType):
            self._module(x, rest, path)
        elif not (plain and isinstance(x, BuiltinFunctionType) and x in _READERS):
            self.visit(x, path)

    def _module(self, module: ModuleType, chain: tuple[str, ...], path: str) -> None:
        """A module: only what is read of it, where code says so; otherwise every name that any code mentions."""
        if module.__name__.startswith("numpy.random"):
            self._refuse(module, path)
        if chain and chain[0] not in _DYNAMIC:
            if is_kiln(module.__name__):
                getattr(module, chain[0], None)  # kiln's names are loaded on first use
            self._global(vars(module), chain[0], chain[1:], f"{path}.{chain[0]}")
        elif not is_library(module.__name__):
            self.modules.setdefault(id(module), (module, set()))

    def look_by_name(self) -> None:
        """Modules that were found without a name behind them, and attributes of plain objects, by every name in any
        code, until nothing new turns up; all of them where code looks names up at run time."""
        done: set[int] = set()
        while True:
            before = (
                len(self.names),
                len(self.modules),
                len(self.objects),
                len(self.models),
                len(done),
                len(self.members),
            )
            members, self.members = self.members, []
            for member in members:
                if self._may_be_read(member[0], member[1]):
                    self.visit(member[2], member[3])
                else:
                    self.members.append(member)
            if self.dynamic or self.names & _DYNAMIC:
                for space, path in self._not_yet(done):
                    self._all_attributes(space, path)
            else:
                for module, named in list(self.modules.values()):
                    for name in sorted(self.names - named):
                        named.add(name)
                        self._global(vars(module), name, (), f"{module.__name__}.{name}")
                for each in list(self.objects.values()):
                    self._named(each, self.names)
                for each in list(self.models.values()):
                    self._named(each, self.names & each[0].keys())
            if (
                len(self.names),
                len(self.modules),
                len(self.objects),
                len(self.models),
                len(done),
                len(self.members),
            ) == before:
                return

    def _named(self, space: tuple[dict[str, Any], str, set[str]], names: Set[str]) -> None:
        """Attributes of an object by their names."""
        attributes, path, known = space
        for name in sorted(names - known):
            known.add(name)
            self.visit(self.guards.entry(f"{path}.{name}", attributes, name, whole=True), f"{path}.{name}")

    def _may_be_read(self, cls: type, name: str) -> bool:
        """Whether code that was met may read this attribute of a class."""
        if self.dynamic or name in self.names or self.names & _DYNAMIC:
            return True
        return name in _CONSTRUCTORS and (id(cls) in self.constructed or "__class__" in self.names)

    def _not_yet(self, done: set[int]) -> list[tuple[dict[str, Any], str]]:
        """The name spaces of modules and objects that are not in `done`, which they are added to."""
        found = [(vars(m), m.__name__) for m, _ in self.modules.values()]
        found += [(attributes, path) for attributes, path, _ in (*self.objects.values(), *self.models.values())]
        fresh = [(space, path) for space, path in found if id(space) not in done]
        done.update(id(space) for space, _ in fresh)
        return fresh


def _note_slots(cls: type) -> None:
    """Have a class note its slots, as the first copy of an instance would: that is no change to tell captures of."""
    if "__slotnames__" not in vars(cls):
        copyreg._slotnames(cls)  # type: ignore[attr-defined]


def is_plain(kind: type) -> bool:
    """Whether only the user's code works with instances: no library's base class does."""
    return all(c is object or not is_library(c.__module__) for c in kind.__mro__)


def _is_model(kind: type) -> bool:
    """Whether a class is a module whose only base of kiln's is `Module`, whose code is known to read nothing but its
    registers (and to call what overrides its methods)."""
    library = [c for c in kind.__mro__ if c is not object and is_library(c.__module__)]
    return [(c.__module__, c.__qualname__) for c in library] == [("kiln.nn.module", "Module")]


def _registers(kind: type) -> Set[str]:
    """The names of what `Module` itself reads of an instance or calls."""
    (base,) = [c for c in kind.__mro__ if c.__module__ == "kiln.nn.module"]
    return {*base.__annotations__, *vars(base)} - _CONSTRUCTORS


_CONSTRUCTORS: Final = frozenset({"__init__", "__new__", "__post_init__"})
"""What runs only when code calls the class, and not when Python works with an instance."""
_READERS: Final = frozenset({getattr, hasattr, setattr, delattr, vars, dir})
_READING_MODULES: Final = frozenset({"copy", "dataclasses", "inspect", "copyreg", "string"})
_DYNAMIC: Final = frozenset({"__dict__", "__getattribute__", "__getstate__", "format_map"})
"""What may read attributes by names that stand nowhere in code: C functions, Python modules, names in code."""


_GENERATED: Final = frozenset({"__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__"})


def _generated(x: Any) -> FunctionType | None:
    """A method as the dataclass decorator made it, without what guards it against recursion."""
    while isinstance(x, FunctionType) and is_library_code(x.__globals__) and hasattr(x, "__wrapped__"):
        x = x.__wrapped__
    made = isinstance(x, FunctionType) and x.__code__.co_filename == "<string>" and x.__code__.co_name in _GENERATED
    return x if made else None


def _is_fixed(x: Any) -> bool:
    """Whether an object can't change: of a fixed kind, and without attributes that somebody gave it."""
    return isinstance(x, _FIXED) and (type(x) in _FIXED or not getattr(x, "__dict__", None))


def _bound(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not MISSING
    except ValueError:
        return False


def _taken_as_it_is(x: Any) -> bool:
    """Loggers and such, and NumPy's functions."""
    if isinstance(x, type(np.sum)):
        return not _draws(x)
    return type(x).__module__.split(".")[0] in _PURE_MODULES


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
    plain: frozenset[str]
    """Globals named as `_READERS` that are only called with names that stand in the code (and in `attributes`)."""


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


def _words(code: CodeType) -> Iterator[str]:
    """Names in constants (of patterns' keywords), and a stand-in for whatever format strings may hold."""
    if "format" in code.co_names:
        yield "format_map"
    for c in code.co_consts:
        if isinstance(c, tuple):
            yield from (word for word in c if isinstance(word, str))


@functools.lru_cache(maxsize=1024)
def _uses(code: CodeType) -> _Uses:
    """What a code object and all nested in it name."""
    chains: dict[str, set[tuple[str, ...]]] = {"global": set(), "cell": set()}
    imports: set[tuple[str, int]] = set()
    attributes: set[str] = set()
    open_readers: set[str] = set()
    for part in _nested(code):
        for reader, constant in _read_names(part):
            if constant is None:
                open_readers.add(reader)
            else:
                attributes.add(constant)
        kind, level = "", 0
        chain: tuple[str, ...] = ()
        for instruction in dis.get_instructions(part):
            name, argument = instruction.opname, instruction.argval
            if name == "MATCH_CLASS":
                attributes.add("__dict__")  # the pattern names attributes by the class's __match_args__
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
        attributes.update(_words(part))
    plain = frozenset({"getattr", "hasattr", "setattr", "delattr"} - open_readers)
    return _Uses(
        frozenset(chains["global"]), frozenset(chains["cell"]), frozenset(imports), frozenset(attributes), plain
    )


_PUSHES: Final = frozenset(
    {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_CONST"}
)


def _read_names(code: CodeType) -> Iterator[tuple[str, str | None]]:
    """For each use of a global named as `getattr` and its like: the name that it is called with, if the call is of the
    plainest form (a variable or attributes of one, a literal, and at most one such expression more); else None."""
    instructions = [
        i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL")
    ]
    for at, instruction in enumerate(instructions):
        if instruction.opname in _GLOBAL and instruction.argval in ("getattr", "hasattr", "setattr", "delattr"):
            yield instruction.argval, _constant_name(instructions[at + 1 :])


def _constant_name(rest: Sequence[dis.Instruction]) -> str | None:
    """The second argument of the call that the instructions after its function are, if it is a literal string."""
    arguments: list[dis.Instruction] = []  # the last instruction of each
    for instruction in rest:
        name = instruction.opname
        if name in _PUSHES:
            arguments.append(instruction)
        elif name == "LOAD_ATTR" and arguments and instruction.arg is not None and not _is_method(instruction):
            arguments[-1] = instruction
        elif name == "CALL" and instruction.arg == len(arguments) and len(arguments) in (2, 3):
            second = arguments[1]
            literal = second.opname == "LOAD_CONST" and isinstance(second.argval, str)
            return second.argval if literal else None
        elif name != "PRECALL":
            return None
    return None


def _is_method(instruction: dis.Instruction) -> bool:
    """Whether a LOAD_ATTR pushes a second thing, for a call of a method (since Python 3.12)."""
    return sys.version_info >= (3, 12) and bool((instruction.arg or 0) & 1)
