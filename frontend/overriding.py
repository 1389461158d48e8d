"""Calls that tensor-like objects want to see: PyTorch's `__torch_function__` protocol.

Until somebody asks for it nothing is looked at, so that plain tensors pay nothing. The first subclass of `Tensor`, the
first mode and `import kiln.overrides` *arm* the protocol: from then on every public function looks at the classes of
its arguments first. So does the first autocast region: `casting.py` is the last to see a call. Users may have imported
functions already, and keep them in tables: so it is the function's code that is exchanged, and the function stays the
object that it was (docs/decisions/0013).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import CodeType, FunctionType, NoneType, TracebackType
from typing import Any, Final, TypeVar, cast

from kiln import dispatch
from kiln.base import MODES, READONLY, REQUIRES_GRAD, TensorBase, on_memory
from kiln.errors import ArgumentError
from kiln.ir.ops.base import OPS
from kiln.ir.types import Device, DType
from kiln.location import is_kiln

__all__ = ["DisableTorchFunction", "DisableTorchFunctionSubclass"]

T = TypeVar("T", bound=TensorBase)


class _Thread(threading.local):
    """Of the current thread: whether classes are asked, and the modes that are active, the innermost last."""

    enabled: bool = True
    modes: tuple[Any, ...] = ()


THREAD: Final = _Thread()


class _Disable:
    """Functions run as they are in a `with` block."""

    with_modes = False

    def __enter__(self) -> None:
        self._before = THREAD.enabled, THREAD.modes
        THREAD.enabled = False
        if self.with_modes:
            THREAD.modes = ()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        THREAD.enabled, THREAD.modes = self._before


class DisableTorchFunctionSubclass(_Disable):
    """In a `with` block no class's `__torch_function__` is called; modes are."""


class DisableTorchFunction(_Disable):
    """In a `with` block neither classes nor modes are called."""

    with_modes = True


def disabled_torch_function(cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """The `__torch_function__` of classes that are treated as plain tensors: nobody calls it."""
    del cls, types
    with DisableTorchFunctionSubclass():
        return func(*args, **(kwargs or {}))


def opted_out(kind: Any) -> bool:
    """Whether tensors of this class are treated as plain ones."""
    return kind.__torch_function__ is disabled_torch_function


def watches(x: Any) -> bool:
    """Whether the class of `x` wants to see calls."""
    kind = type(x)
    if kind in _PLAIN or kind is dispatch.tensor_class():
        return False
    found: Any = getattr(kind, "__torch_function__", None)
    return found is not None and found is not disabled_torch_function


_PLAIN: Final = frozenset({NoneType, bool, int, float, complex, str, slice, DType, Device, type(...), dict, range})


def overloaded(relevant: Iterable[Any]) -> list[Any]:
    """Of objects that may be asked those that are, in order: one of each class, subclasses before their bases."""
    asked: list[Any] = []
    for x in relevant:
        if not watches(x) or any(type(x) is type(y) for y in asked):
            continue
        place = next((k for k, y in enumerate(asked) if issubclass(type(x), type(y))), len(asked))
        asked.insert(place, x)
    return asked


def _arguments(values: Iterable[Any]) -> Iterator[Any]:
    """The arguments of a call, and what lists and tuples among them hold."""
    for x in values:
        if type(x) in (list, tuple):
            yield from _arguments(x)
        else:
            yield x


def ask(func: Any, asked: Sequence[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the innermost mode, or else the first of the objects that does not decline, makes of a call of `func`.
    ArgumentError when all decline."""
    result = _answer(func, asked, args, kwargs)
    if result is NotImplemented:
        names = ", ".join(type(x).__name__ for x in (*THREAD.modes[-1:], *asked))
        message = f"__torch_function__ of {names} returned NotImplemented"
        raise ArgumentError(message, op=name_of(func), fix="handle the function there")
    return result


def operator_result(func: Any, a: Any, b: Any) -> Any:
    """The result of an operator between a tensor and an object that is neither tensor nor number."""
    asked = overloaded((a, b)) if THREAD.enabled else []
    return _answer(func, asked, (a, b), {}) if asked else NotImplemented


def _answer(func: Any, asked: Sequence[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    types = tuple(map(type, asked))
    modes = THREAD.modes
    if modes:
        THREAD.modes = modes[:-1]
        try:
            result = modes[-1].__torch_function__(func, types, args, dict(kwargs))
        finally:
            THREAD.modes = modes
        if result is not NotImplemented:
            return result
    for x in asked:
        result = x.__torch_function__(func, types, args, dict(kwargs))
        if result is not NotImplemented:
            return result
    return NotImplemented


def name_of(func: Any) -> str:
    """What messages call a function."""
    return str(getattr(func, "__name__", func))


class Overridable(TensorBase):
    """The part of `Tensor` that lets subclasses see calls, and makes results of theirs."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        tensor = dispatch.tensor_class()
        if tensor is TensorBase:  # `Tensor` itself is being made
            return
        if is_kiln(cls.__module__):  # kiln's own classes are treated as plain tensors, and what derives from them
            cls.__torch_function__ = disabled_torch_function  # type: ignore[method-assign,assignment]
        if opted_out(cls):
            return
        for base in tensor.__mro__:
            for name, found in vars(base).items():
                if isinstance(found, property) and name[0] != "_" and name != "ttype" and getattr(cls, name) is found:
                    setattr(cls, name, _watched(found))
        arm()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Called in place of public functions that get a tensor of a subclass: runs `func`, and makes the tensors of
        its result ones of `cls`. NotImplemented unless `cls` is a subclass of all `types`.

        A subclass may define its own, and call `super().__torch_function__(func, types, args, kwargs)` in it.
        """
        if not all(issubclass(cls, t) for t in types):
            return NotImplemented
        with DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            return result if func in nowrap() else _converted(result, cls)

    def as_subclass(self, cls: type[T]) -> T:
        """This tensor as one of class `cls`: on the same memory, with its history. ArgumentError unless `cls` is a
        subclass of Tensor."""
        if not (isinstance(cls, type) and issubclass(cls, TensorBase)):
            raise ArgumentError(f"{cls!r} is no subclass of Tensor", op="as_subclass")
        (alias,) = OPS["reshape"].bind((self,), {"shape": self._layout.shape})
        return adopted(cls, alias)

    @staticmethod
    def _make_subclass(cls: type[T], data: Any, require_grad: bool = False) -> T:
        """A leaf of class `cls` on the memory of `data`."""
        made = adopted(cls, data.detach())
        cast("Any", made).requires_grad_(require_grad)
        return made


def adopted(cls: type[T], alias: Any) -> T:
    """The tensor `alias`, which nobody else holds, as one of class `cls`."""
    flags = alias._flags & (REQUIRES_GRAD | READONLY)
    made: T = on_memory(cls, alias._buffer, alias._ptr, alias._layout, flags)
    made._node, made._index, made._view = alias._node, alias._index, alias._view
    if MODES.recorder is not None:
        MODES.recorder.pass_on(alias, cast("Any", made))
    return made


def _converted(result: Any, cls: type[Any]) -> Any:
    """A result of a function with its tensors as ones of class `cls`."""
    if cls is dispatch.tensor_class():
        return result
    if isinstance(result, TensorBase):
        return result if isinstance(result, cls) else cast("Any", result).as_subclass(cls)
    if isinstance(result, (tuple, list)) and any(isinstance(x, (TensorBase, tuple, list)) for x in result):
        items = [_converted(x, cls) for x in result]
        return result._make(items) if hasattr(result, "_make") else type(result)(items)
    return result


def nowrap() -> frozenset[Callable[..., Any]]:
    """Functions whose results the default `__torch_function__` returns as they are."""
    return frozenset({dispatch.tensor_class().grad.__get__})


def _watched(plain: property) -> property:
    """A property of tensors that asks the class of the tensor."""

    def get(self: Any) -> Any:
        if THREAD.modes or (THREAD.enabled and watches(self)):
            return ask(plain.__get__, (self,) if THREAD.enabled else (), (self,), {})
        return plain.__get__(self)

    return property(get, plain.fset, plain.fdel, plain.__doc__)


# --------------------------------------------------------------------------------------------------- arming


def _enter(*args: Any, _kiln_route: Any, **kwargs: Any) -> Any:
    return _kiln_route(args, kwargs)


@functools.cache
def _entry(cells: int) -> CodeType:
    """The code of `_enter` for functions with so many cells: it has to bring them to its frames, or whoever looks at
    those (a debugger, a failing test) makes the interpreter crash."""
    if not cells:
        return _enter.__code__
    names = ", ".join(f"cell{k}" for k in range(cells))
    body = f"def enter(*args, _kiln_route, **kwargs):\n  return _kiln_route(args, kwargs)\n  {names}"
    space: dict[str, Any] = {}
    exec(f"def around({names}):\n {body}\n return enter.__code__", space)
    made: CodeType = space["around"](*range(cells))
    return made.replace(co_filename=__file__, co_firstlineno=_enter.__code__.co_firstlineno)


_casting: Final[list[Callable[..., Any]]] = []


def register_casting(call: Callable[..., Any]) -> None:
    """`call(public, original, args, kwargs)` is what a call comes to in an autocast region; called once by
    `kiln.casting`, which lies above this file."""
    _casting[:] = [call]


def _route(original: Callable[..., Any], public: Callable[..., Any]) -> Callable[..., Any]:
    """What a call of `public` does, which by itself does what `original` does."""
    plain = _PLAIN | importlib.import_module("kiln.composite").plain_classes()

    def route(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _modes_used and not kwargs:
            for x in args:
                if x.__class__ not in plain:
                    break
            else:
                return original(*args) if MODES.autocast is None else _casting[0](public, original, args, kwargs)
        asked = overloaded(_arguments((*args, *kwargs.values()))) if THREAD.enabled else []
        if asked or THREAD.modes:
            return ask(public, asked, args, kwargs)
        return original(*args, **kwargs) if MODES.autocast is None else _casting[0](public, original, args, kwargs)

    return route


_modes_used = False
_armed = False
_lock = threading.Lock()


def use_modes() -> None:
    """Look for modes, too; called before the first one is entered."""
    global _modes_used
    arm()
    _modes_used = True


def arm() -> None:
    """Let every public function look at the classes of its arguments."""
    global _armed
    if _armed:
        return
    with _lock, dispatch.unwatched():
        if not _armed:
            for function in dict.fromkeys(public_functions().values()):
                _exchange(function)
            _armed = True


def _exchange(function: FunctionType) -> None:
    """Have `function` enter through its route: the same object, with other code."""
    original = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    original.__kwdefaults__ = function.__kwdefaults__
    original.__qualname__ = function.__qualname__
    signature = inspect.signature(function)
    cells: tuple[str, ...] = function.__code__.co_freevars
    entry = _entry(len(cells)).replace(co_freevars=cells, co_name=function.__name__)
    function.__code__, function.__defaults__ = entry, None
    function.__kwdefaults__ = {"_kiln_route": _route(original, function)}
    function.__signature__ = signature  # type: ignore[attr-defined]


_UNSEEN: Final = frozenset(
    f"kiln.{home}" for home in (
        "amp", "autograd", "constants", "device", "dtypes", "errors", "explain", "ir.types", "jit", "overriding",
        "printing", "runtime.threads", "serialization", "settings", "transforms",
    )
)  # fmt: skip
"""Homes of public functions that are called whatever their arguments are."""
_UNSEEN_NAMES: Final = frozenset({
    "as_subclass", "can_cast", "default_generator", "get_default_dtype", "get_rng_state", "initial_seed", "is_tensor",
    "manual_seed", "promote_types", "seed", "set_default_dtype", "set_rng_state",
})  # fmt: skip
_SPACES: Final = ("kiln.nn.functional", "kiln.linalg", "kiln.fft", "kiln.special")
_DUNDERS: Final = frozenset(
    f"__{name}__" for name in (
        "abs", "array", "bool", "complex", "contains", "deepcopy", "float", "format", "getitem", "index", "int",
        "invert", "len", "neg", "pos", "repr", "setitem",
    )
)  # fmt: skip


def public_functions() -> dict[str, FunctionType]:
    """Functions that are announced, by dotted name: those of kiln's name spaces, and methods of `Tensor`."""
    package: Any = importlib.import_module("kiln")
    found: dict[str, Any] = {}
    for name, (home, _) in package._HOMES.items():
        if home not in _UNSEEN and name not in _UNSEEN_NAMES:
            found[f"kiln.{name}"] = getattr(package, name)
    for space in _SPACES:
        module = importlib.import_module(space)
        for name in getattr(module, "__all__", vars(module)):
            found.setdefault(f"{space}.{name}", getattr(module, name))
    for base in dispatch.tensor_class().__mro__[:-1]:
        for name, method in vars(base).items():
            if (name[0] != "_" or name in _DUNDERS) and name not in _UNSEEN_NAMES:
                found.setdefault(f"kiln.Tensor.{name}", method)
    return {k: f for k, f in found.items() if isinstance(f, FunctionType) and f.__name__ not in _UNSEEN_NAMES}
