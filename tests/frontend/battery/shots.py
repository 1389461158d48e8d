"""What a user could observe of objects: everything below them, with identities, in values that can be compared.

Two runs of a program make different objects, so identity is the order in which objects were first met.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import hashlib
import inspect
import io
import random
import threading
import types
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

import kiln
from kiln.base import TensorBase
from kiln.convert.sites import HOOKS
from kiln.location import is_kiln
from kiln.reach import is_library

_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, type(...), range, slice)
_ADDRESS = 1 << 32
"""Numbers above this are taken for what `id` gave: they differ between runs."""
_CODE = (
    *(types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.GenericAlias),
)


class Shots:
    """Descriptions of objects, from one run. What was described is kept alive, so that ids stay good. `named`: whether
    it matters which tensor one is, and which memory it has."""

    def __init__(self, named: bool = True) -> None:
        self._named = named
        self._numbers: dict[int, tuple[int, Any]] = {}
        self._seen: set[int] = set()
        self.tensors: list[Any] = []
        """Tensors that the latest shot met."""

    def shot(self, *values: Any) -> Any:
        """A description of values: what one of them holds is told once."""
        self._seen = set()
        self.tensors = []
        return tuple(self._one(x) for x in values)

    def _number(self, x: Any) -> int:
        return self._numbers.setdefault(id(x), (len(self._numbers), x))[0]

    def _one(self, x: Any) -> Any:
        if type(x) is int and x > _ADDRESS:
            return "int", "an address"
        if isinstance(x, _PLAIN) and type(x).__module__ in ("builtins", "numpy"):
            return type(x).__name__, repr(x)
        if type(x) is tuple:
            return "tuple", [self._one(v) for v in x]
        if isinstance(x, TensorBase) and not self._named:
            return type(x).__name__, self._tensor(x)
        name = f"{type(x).__name__} {self._number(x)}"
        if id(x) in self._seen:
            return name
        self._seen.add(id(x))
        return (name, *self._parts(x))

    def _parts(self, x: Any) -> Iterator[Any]:
        if isinstance(x, TensorBase):
            yield self._tensor(x)
        elif isinstance(x, dict):
            yield [(self._one(k), self._one(v)) for k, v in dict.items(x)]
        elif isinstance(x, (list, tuple, collections.deque)):
            yield [self._one(v) for v in x]
        elif isinstance(x, (set, frozenset)):
            yield sorted([repr(v) for v in x if isinstance(v, _PLAIN)]), len(x)
        elif isinstance(x, np.ndarray):
            yield x.dtype.str, x.shape, x.tobytes(), x.flags.writeable, x.__array_interface__["data"][1]
        elif isinstance(x, type):
            yield from self._class(x)
        elif isinstance(x, types.FunctionType):
            yield from self._function(x)
        elif not isinstance(x, _CODE):
            yield from _hidden(self, x)
        if not isinstance(x, (type, types.FunctionType, types.MethodType, TensorBase, types.ModuleType, *_CODE)):
            yield from self._attributes(x)

    def _attributes(self, x: Any) -> Iterator[Any]:
        kind = type(x)
        if isinstance(x, kiln.optim.Optimizer):  # the rest of it is how it works
            groups = [self._one(dict(group)) for group in x.param_groups]
            yield groups, self._one(dict(x.state)), self._one(x.defaults)
        elif isinstance(getattr(x, "__dict__", None), dict):
            attributes = x.__dict__ if isinstance(x, threading.local) else object.__getattribute__(x, "__dict__")
            yield [(k, self._one(v)) for k, v in attributes.items()]
        for c in kind.__mro__:
            names = () if is_kiln(c.__module__) else c.__dict__.get("__slots__", ())
            for n in (names,) if isinstance(names, str) else names:
                if n not in ("__dict__", "__weakref__") and hasattr(x, n):
                    yield n, self._one(getattr(x, n))
        if isinstance(x, BaseException):
            yield self._one(x.args), self._one(x.__cause__), getattr(x, "__notes__", None)
        if not is_library(kind.__module__):
            yield self._one(kind)

    def _class(self, cls: type) -> Iterator[Any]:
        if not is_library(cls.__module__):
            yield [self._one(c) for c in cls.__mro__[1:]]
            yield [
                (k, self._one(v)) for k, v in vars(cls).items() if not k.startswith("__") and not k.startswith("_abc_")
            ]

    def _function(self, f: types.FunctionType) -> Iterator[Any]:
        if is_library(f.__module__):
            return
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            if name == HOOKS:
                continue  # of a function that converted code made
            try:
                yield self._one(cell.cell_contents)
            except ValueError:
                yield "unbound"
        yield self._one(f.__defaults__)
        yield self._one(f.__kwdefaults__)
        yield self._one(vars(f))
        for name in f.__code__.co_names:
            held = f.__globals__.get(name)
            if name in f.__globals__ and not isinstance(held, types.ModuleType):
                yield name, self._one(held)

    def _tensor(self, x: Any, gradient: bool = False) -> Any:
        requires_grad = x.requires_grad  # brings the history of views up to date
        self.tensors.append(x)
        array = x.detach().numpy()
        grad = x._grad
        place = "" if gradient else f" at {x.storage_offset()}"
        return (
            f"memory {self._number(x._buffer)}{place}" if self._named else "",
            f"{x.ttype} {[s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1]}",
            array.tobytes(),
            repr(array.tolist()) if array.size < 20 else "",
            f"requires_grad {requires_grad} leaf {x.is_leaf} flags {x._flags}",
            [(k, self._one(v)) for k, v in (getattr(x, "__dict__", None) or {}).items()],
            None if grad is None else (self._number(grad) if self._named else 0, self._tensor(grad, gradient=True)),
        )


def _hidden(shots: Shots, x: Any) -> Iterator[Any]:
    """State that no attribute shows."""
    if isinstance(x, types.MethodType):
        yield shots._one(x.__self__), shots._one(x.__func__)
    elif isinstance(x, functools.partial):
        yield shots._one(x.func), shots._one(x.args), shots._one(x.keywords)
    elif isinstance(x, (staticmethod, classmethod)):
        yield shots._one(x.__func__)
    elif isinstance(x, property):
        yield shots._one(x.fget), shots._one(x.fset)
    elif isinstance(x, functools._lru_cache_wrapper):
        yield tuple(x.cache_info())
    elif isinstance(x, types.GeneratorType):
        yield inspect.getgeneratorstate(x)
    elif isinstance(x, weakref.ref):
        yield shots._one(x())
    elif isinstance(x, io.StringIO):
        yield "closed" if x.closed else (x.getvalue(), x.tell())
    elif isinstance(x, random.Random):
        yield _digest(x.getstate())
    elif isinstance(x, np.random.Generator):
        yield repr(x.bit_generator.state)
    elif isinstance(x, np.random.RandomState):
        yield _digest(x.get_state())
    elif isinstance(x, contextvars.ContextVar):
        yield shots._one(x.get(None))
    elif isinstance(x, kiln.Generator):
        yield repr(x.state)
    elif isinstance(x, Iterator) and type(x).__module__ in ("builtins", "itertools"):
        yield _iterator(shots, x)
    elif type(x).__module__ in ("fractions", "decimal", "datetime", "enum", "pathlib"):
        yield repr(x)


def _iterator(shots: Shots, x: Any) -> Any:
    """How far an iterator is: what pickling it would keep."""
    try:
        reduced = x.__reduce__()
    except TypeError:
        return "iterator"
    return [shots._one(part) for part in reduced[1:]]


def _digest(x: Any) -> str:
    return hashlib.sha256(repr(x).encode()).hexdigest()


def generators() -> Any:
    """The states of the random number generators, and the modes that a call must leave as they were."""
    return (
        repr(kiln.default_generator.state),
        _digest(random.getstate()),
        _digest([np.asarray(part).tolist() for part in np.random.get_state()]),
        kiln.is_grad_enabled(),
        kiln.get_default_dtype(),
    )
