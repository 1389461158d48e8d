"""`Parameter`: a tensor that a module owns and an optimiser trains. `Buffer`: one that only belongs to its state."""

from __future__ import annotations

from typing import Any, Self

from kiln.base import REQUIRES_GRAD
from kiln.creation import empty
from kiln.errors import ArgumentError
from kiln.overriding import disabled_torch_function
from kiln.tensor import Tensor


class Parameter(Tensor):
    """A leaf on the memory of `data` that requires a gradient; a module registers it when it is assigned to an
    attribute.

    Results of ops on parameters are plain tensors. ArgumentError unless `data` is a tensor (without it: an empty one),
    DTypeError unless it is floating point (or `requires_grad` is False).
    """

    __slots__ = ()
    __torch_function__ = disabled_torch_function

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return object.__new__(cls)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        _share(self, "Parameter", data)
        self.requires_grad_(requires_grad)

    def __repr__(self, **_: Any) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copied = memo[id(self)] = Parameter(self.detach().clone(), self.requires_grad)
        return copied


class Buffer(Tensor):
    """A tensor on the memory of `data` that a module registers as a buffer when it is assigned to an attribute;
    `persistent`: it is saved with the module."""

    __slots__ = ("persistent",)
    __torch_function__ = disabled_torch_function

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return object.__new__(cls)

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        _share(self, "Buffer", data)
        self.persistent = persistent

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        copied = memo[id(self)] = Buffer(self.detach().clone(), persistent=self.persistent)
        return copied


def _share(x: Tensor, kind: str, data: Tensor | None) -> None:
    """Make the new tensor `x` a leaf on the memory of `data`."""
    if data is None:
        data = empty(0)
    if not isinstance(data, Tensor):
        raise ArgumentError(
            f"a {kind.lower()} is made of a tensor, not {type(data).__name__}", op=kind, fix="wrap it in kiln.tensor"
        )
    data = data.detach()
    x._place(data._buffer, data._ptr, data._layout, data._flags & ~REQUIRES_GRAD)
