"""`kiln.overrides`: torch.overrides' tools for `__torch_function__`. Importing it makes kiln's functions look for
objects that define one, be they tensors or not; a subclass of `Tensor` does so when it is defined."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from kiln import overriding
from kiln.base import TensorBase
from kiln.overriding import THREAD, arm, ask, overloaded, public_functions, use_modes, watches
from kiln.overriding import DisableTorchFunction as DisableTorchFunction
from kiln.overriding import DisableTorchFunctionSubclass as DisableTorchFunctionSubclass

__all__ = [
    "BaseTorchFunctionMode", "DisableTorchFunction", "DisableTorchFunctionSubclass", "TorchFunctionMode",
    "get_default_nowrap_functions", "get_ignored_functions", "get_overridable_functions", "handle_torch_function",
    "has_torch_function", "has_torch_function_unary", "has_torch_function_variadic", "is_tensor_like",
    "is_tensor_method_or_property", "resolve_name", "wrap_torch_function",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

arm()


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether one of the arguments wants to see the call, or a mode is active."""
    return bool(THREAD.modes) or (THREAD.enabled and any(map(watches, relevant_args)))


def has_torch_function_unary(obj: Any) -> bool:
    """`has_torch_function` of one argument."""
    return has_torch_function((obj,))


def has_torch_function_variadic(*args: Any) -> bool:
    """`has_torch_function` of its arguments."""
    return has_torch_function(args)


def handle_torch_function(
    public_api: Callable[..., Any], relevant_args: Iterable[Any], *args: Any, **kwargs: Any
) -> Any:
    """What the mode that is active, or the first of `relevant_args` that does not decline, makes of the call
    `public_api(*args, **kwargs)`. ArgumentError when all decline."""
    return ask(public_api, overloaded(relevant_args) if THREAD.enabled else [], args, kwargs)


def wrap_torch_function(dispatcher: Callable[..., Iterable[Any]]) -> Callable[[F], F]:
    """Decorates a function of the user's to be seen like kiln's own; `dispatcher` gets its arguments and returns those
    that may want to see the call."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            relevant = tuple(dispatcher(*args, **kwargs))
            if has_torch_function(relevant):
                return handle_torch_function(wrapped, relevant, *args, **kwargs)
            return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    return decorate


def is_tensor_like(inp: Any) -> bool:
    """Whether `inp` is a tensor or an object whose class defines `__torch_function__`."""
    return isinstance(inp, TensorBase) or hasattr(inp, "__torch_function__")


def get_default_nowrap_functions() -> set[Callable[..., Any]]:
    """Functions whose results the default `__torch_function__` does not make ones of the subclass."""
    return set(overriding.nowrap())


@functools.cache
def _names() -> dict[Any, str]:
    named: dict[Any, str] = {}
    for name, function in public_functions().items():
        if function not in named or name == f"kiln.{function.__name__}":  # before its other names
            named[function] = name
    return named


def _properties() -> dict[Any, str]:
    from kiln.tensor import Tensor

    return {
        found.__get__: f"kiln.Tensor.{name}.__get__"
        for base in Tensor.__mro__
        for name, found in vars(base).items()
        if isinstance(found, property)
    }


def resolve_name(f: Callable[..., Any]) -> str | None:
    """Where users find a function: "kiln.add", "kiln.Tensor.size", "kiln.Tensor.T.__get__"; None for any other.

    A function that is a method as well goes by the name in kiln.
    """
    return _names().get(f) or _properties().get(f)


def is_tensor_method_or_property(func: Callable[..., Any]) -> bool:
    """Whether `func` is a method of tensors, or reads a property of theirs."""
    from kiln.tensor import Tensor

    return func in _properties() or (isinstance(func, FunctionType) and func in vars_of(Tensor))


def vars_of(kind: type) -> set[FunctionType]:
    """All functions that are methods of a class."""
    return {f for base in kind.__mro__ for f in vars(base).values() if isinstance(f, FunctionType)}


def get_overridable_functions() -> dict[Any, list[Callable[..., Any]]]:
    """Every function that `__torch_function__` may see, by the module or class that users find it in."""
    import importlib

    from kiln.tensor import Tensor

    spaces: dict[ModuleType | type, list[Callable[..., Any]]] = {}
    for name, function in public_functions().items():
        space = name.rpartition(".")[0]
        home: Any = Tensor if space == "kiln.Tensor" else importlib.import_module(space)
        spaces.setdefault(home, []).append(function)
    return spaces


def get_ignored_functions() -> set[Callable[..., Any]]:
    """Public functions of kiln that nobody is asked about."""
    import importlib

    package: Any = importlib.import_module("kiln")
    seen = set(public_functions().values())
    found = [getattr(package, name) for name in package._HOMES]
    return {f for f in found if isinstance(f, FunctionType) and f not in seen}


class TorchFunctionMode:
    """In a `with` block sees the calls of all public functions, also those of plain tensors and of none; a subclass
    defines `__torch_function__(self, func, types, args=(), kwargs=None)`. In there the mode is not active: it may call
    `func`. Modes nest: the innermost is asked first. Properties are seen of subclasses of Tensor only.

    >>> import kiln
    >>> class Names(kiln.overrides.TorchFunctionMode):
    ...     def __torch_function__(self, func, types, args=(), kwargs=None):
    ...         print(func.__name__)
    ...         return func(*args, **(kwargs or {}))
    >>> with Names():
    ...     x = kiln.ones(2).sum()
    ones
    sum
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        raise NotImplementedError

    def __enter__(self) -> TorchFunctionMode:
        use_modes()
        THREAD.modes = (*THREAD.modes, self)
        return self

    def __exit__(self, *_: object) -> None:
        THREAD.modes = THREAD.modes[:-1]


class BaseTorchFunctionMode(TorchFunctionMode):
    """The mode that changes nothing."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        del types
        return func(*args, **(kwargs or {}))
