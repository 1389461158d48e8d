"""Which sizes of a compiled function's arguments change, and between what: `Dim`, and marks on tensors.

Nothing here decides what is right: a capture finds out by itself. For dimensions that are said to change no code is
made for one size that comes once, and a size out of its range is an error.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from kiln.base import TensorBase
from kiln.errors import ArgumentError, InvalidValueError, KilnIndexError, ShapeError

__all__ = ["Dim", "mark_dynamic"]


@dataclass(frozen=True, eq=False)
class Dim:
    """A size that changes, by name, from `min` to `max` (None: no limit). Two dimensions with the same Dim object are
    always equal.

    >>> import kiln
    >>> batch = kiln.Dim("batch", max=64)
    >>> f = kiln.compile(lambda x, y: x + y, dynamic={"x": {0: batch}, "y": {0: batch}})
    >>> f(kiln.ones(3), kiln.ones(3))
    tensor([2., 2., 2.])
    >>> f(kiln.ones(65), kiln.ones(65))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    kiln.errors.ShapeError: compile: dimension 0 of x is 65, but batch is at most 64
    ...
    """

    name: str
    min: int = field(default=0, kw_only=True)
    max: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ArgumentError(f"the name of a Dim is a string, not {self.name!r}", op="Dim")
        if self.min < 0 or (self.max is not None and self.max < self.min):
            raise InvalidValueError(f"{self.name} can't be from {self.min} to {self.max}", op="Dim")

    def check(self, size: int, where: str) -> None:
        """ShapeError when a size is out of range."""
        if size < self.min:
            raise ShapeError(f"{where} is {size}, but {self.name} is at least {self.min}", op="compile", fix=_FIX)
        if self.max is not None and size > self.max:
            raise ShapeError(f"{where} is {size}, but {self.name} is at most {self.max}", op="compile", fix=_FIX)


_FIX: Final = "give it a wider range, or call the function itself"

Dynamic: TypeAlias = "bool | Mapping[str, Mapping[int, Dim | None]] | None"
"""What `kiln.compile` takes as `dynamic`."""

_marks: dict[int, tuple[weakref.ref[TensorBase], dict[int, Dim]]] = {}


def mark_dynamic(t: TensorBase, index: int | Sequence[int], *, min: int | None = None, max: int | None = None) -> None:
    """Say that dimensions `index` of the tensor `t` change from call to call, between `min` and `max`: a compiled
    function that is given it makes no code for a size that comes once. A size out of range, when the function is called
    with this very tensor, is an error. (`torch._dynamo.mark_dynamic`)

    ArgumentError for what is no tensor, KilnIndexError for a dimension that is not there.
    """
    if not isinstance(t, TensorBase):
        raise ArgumentError(f"a mark goes on a tensor, not on a {type(t).__name__}", op="mark_dynamic")
    rank, key = t.ttype.rank, id(t)
    for d in (index,) if isinstance(index, int) else tuple(index):
        if not -rank <= d < rank:
            raise KilnIndexError(f"dimension {d} is out of range", op="mark_dynamic", operands=[t.ttype])
        if key not in _marks:
            _marks[key] = weakref.ref(t, lambda _: _marks.pop(key, None)), {}
        _marks[key][1][d % rank] = Dim(f"dimension {d % rank}", min=min or 0, max=max)


def pass_marks_on(t: TensorBase, heir: TensorBase) -> None:
    """`heir` stands for `t` from here on."""
    for d, dim in _marks[id(t)][1].items() if id(t) in _marks else ():
        mark_dynamic(heir, d, min=dim.min, max=dim.max)


def is_marked(tensors: Sequence[TensorBase]) -> bool:
    """Whether some of these have marks."""
    return bool(_marks) and any(id(t) in _marks for t in tensors)


def check_marks(tensors: Sequence[TensorBase]) -> None:
    """ShapeError when a marked size is out of its range."""
    if _marks:
        for k, t in enumerate(tensors):
            for d, dim in _marks[id(t)][1].items() if id(t) in _marks else ():
                dim.check(t.ttype.static_shape()[d], f"dimension {d} of tensor {k}")


class Ranges:
    """What `dynamic={...}` says of the arguments of a function. ArgumentError when it can't be so."""

    def __init__(self, function: Callable[..., Any], dims: Mapping[str, Mapping[int, Dim | None]]) -> None:
        target = getattr(function, "forward", function) if hasattr(type(function), "named_parameters") else function
        self._signature = inspect.signature(target)
        self._dims = {name: {d: dim for d, dim in places.items() if dim is not None} for name, places in dims.items()}
        for name, places in dims.items():
            if name not in self._signature.parameters:
                raise ArgumentError(
                    f"dynamic names {name!r}, which is no argument",
                    op="compile",
                    fix=f"one of {', '.join(self._signature.parameters)}",
                )
            for d, dim in places.items():
                if not isinstance(d, int) or not isinstance(dim, Dim | None):
                    raise ArgumentError(f"dynamic[{name!r}] maps dimensions to Dims (or None)", op="compile")

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """ShapeError when a size is out of range, or two that are one Dim differ."""
        given = self._signature.bind(*args, **kwargs).arguments
        sizes: dict[Dim, tuple[int, str]] = {}
        for name, places in self._dims.items():
            t = given.get(name)
            if not isinstance(t, TensorBase):
                continue
            shape = t.ttype.static_shape()
            for d, dim in places.items():
                if not -len(shape) <= d < len(shape):
                    raise ShapeError(
                        f"{name} has no dimension {d}, which is said to be {dim.name}", op="compile", operands=[t.ttype]
                    )
                where = f"dimension {d} of {name}"
                dim.check(shape[d], where)
                size, other = sizes.setdefault(dim, (shape[d], where))
                if size != shape[d]:
                    raise ShapeError(
                        f"{where} is {shape[d]}, but {other} is {size}, and both are {dim.name}",
                        op="compile",
                        fix="use another Dim for sizes that may differ",
                    )
