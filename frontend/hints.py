"""Whether values are what annotations say: of arguments and results of scripted functions, and `kiln.jit.isinstance`.

`List[T]`, `Dict[K, V]`, `Tuple[...]`, `Optional`, `Union`, `Any`, numbers, strings, tensors, classes. As in TorchScript
an int or a bool passes for a float, and a bool for an int; a list passes for a tuple and a tuple for a list. An
annotation that can't be looked up, or of another kind (a protocol, a callable), says nothing.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Final, TypeVar

from kiln.base import TensorBase
from kiln.errors import ArgumentError

T = TypeVar("T")

_SEQUENCES: Final = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_MAPPINGS: Final = (dict, collections.abc.Mapping)
_UNIONS: Final = (typing.Union, types.UnionType)


def fits(x: Any, kind: Any) -> bool:
    """Whether a value is what an annotation says."""
    return misfit(x, kind, "") is None


def misfit(x: Any, kind: Any, path: str) -> tuple[str, Any, Any] | None:
    """Where a value is not what an annotation says: (path, what is there, what the annotation says of it)."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    wrong = (path, x, kind)
    if origin in (typing.Annotated, typing.Final, typing.ClassVar):
        return misfit(x, inner[0], path)
    if origin in _UNIONS:
        return None if any(misfit(x, k, path) is None for k in inner) else wrong
    if origin is typing.Literal:
        return None if any(type(x) is type(k) and x == k for k in inner) else wrong
    if origin in _SEQUENCES:
        if not isinstance(x, list | tuple):
            return wrong
        if origin is tuple and not (len(inner) == 2 and inner[1] is ...):
            return wrong if len(x) != len(inner) else _first(x, inner, path)
        return _first(x, [inner[0]] * len(x), path)
    if origin in _MAPPINGS:
        if not isinstance(x, dict):
            return wrong
        for k, v in x.items():
            found = misfit(k, inner[0], f"a key of {path}") or misfit(v, inner[1], f"{path}[{k!r}]")
            if found is not None:
                return found
        return None
    return None if _is(x, kind) else wrong


def _first(items: Any, kinds: Any, path: str) -> tuple[str, Any, Any] | None:
    found = (misfit(v, k, f"{path}[{n}]") for n, (v, k) in enumerate(zip(items, kinds, strict=True)))
    return next((f for f in found if f is not None), None)


def _is(x: Any, kind: Any) -> bool:
    if kind is None or kind is type(None):
        return x is None
    if kind is Any:
        return True
    if kind is float:
        return isinstance(x, float | int)
    if kind is complex:
        return isinstance(x, complex | float | int)
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    if issubclass(kind, TensorBase):
        return isinstance(x, TensorBase)  # a parameter, too, is a tensor; and a tensor may stand for one
    return isinstance(x, kind)


def told(kind: Any) -> str:
    """An annotation as it is written."""
    if kind is type(None) or kind is None:
        return "None"
    if isinstance(kind, type) and typing.get_origin(kind) is None:
        return kind.__qualname__
    return str(kind).replace("typing.", "").replace("kiln.tensor.", "")


def told_value(x: Any) -> str:
    """What a value is, in words."""
    if isinstance(x, TensorBase):
        return f"a tensor ({x.ttype})"
    return "None" if x is None else f"{type(x).__name__} {x!r}"[:60]


class Annotations:
    """What a function's annotations say."""

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            self.signature = inspect.signature(function)
        except (TypeError, ValueError):  # a callable of C that has none
            self.signature = inspect.signature(lambda *args, **kwargs: None)
        space = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__globals__", {})
        self.kinds = {p.name: _resolved(p.annotation, space) for p in self.signature.parameters.values()}
        self.returned = _resolved(self.signature.return_annotation, space)
        self.any = self.returned is not Any or any(k is not Any for k in self.kinds.values())

    def check(self, name: str, args: Any, kwargs: Any) -> None:
        """ArgumentError for arguments that do not fit. Whether they can be passed at all, the call itself will say."""
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError:
            return
        for key, x in bound.items():
            kind = self.signature.parameters[key].kind
            rows = {key: x}
            if kind is inspect.Parameter.VAR_POSITIONAL:
                rows = {f"{key}[{n}]": v for n, v in enumerate(x)}
            elif kind is inspect.Parameter.VAR_KEYWORD:
                rows = x
            for path, v in rows.items():
                found = misfit(v, self.kinds[key], path)
                if found is not None:
                    raise ArgumentError(
                        f"{found[0]} is {told_value(found[1])}, and is annotated as {told(found[2])}",
                        op=name,
                        fix="pass what the annotation says, or change the annotation",
                    )

    def check_returned(self, name: str, x: Any) -> None:
        """ArgumentError for a result that does not fit."""
        found = misfit(x, self.returned, "the result")
        if found is not None:
            raise ArgumentError(
                f"{found[0]} is {told_value(found[1])}, and is annotated as {told(found[2])}",
                op=name,
                fix="return what the annotation says, or change the annotation",
            )


def _resolved(annotation: Any, space: dict[str, Any]) -> Any:
    """What an annotation stands for; Any where there is none, or where its names can't be found."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {**vars(typing), **space})  # as typing.get_type_hints does
    except (NameError, AttributeError, SyntaxError, TypeError):
        return Any


def annotate(the_type: Any, the_value: T) -> T:
    """`the_value`, which must be what `the_type` says. ArgumentError if it is not.

    >>> import kiln
    >>> from typing import List
    >>> kiln.jit.annotate(List[int], [])
    []
    """
    found = misfit(the_value, the_type, "the value")
    if found is not None:
        raise ArgumentError(f"{found[0]} is {told_value(found[1])}, not {told(found[2])}", op="annotate")
    return the_value


def is_instance(obj: Any, target_type: Any) -> bool:
    """Whether a value is of a type, containers with what they hold; of a tuple of types, of any of them.

    >>> import kiln
    >>> from typing import Dict, List
    >>> kiln.jit.isinstance([1, 2], List[int]), kiln.jit.isinstance({"a": 1}, Dict[str, str])
    (True, False)
    """
    kinds = target_type if type(target_type) is tuple else (target_type,)
    return any(fits(obj, kind) for kind in kinds)
