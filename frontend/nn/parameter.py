"""`Parameter`: a tensor that a module owns and an optimiser trains."""

from __future__ import annotations

from typing import Any

from kiln.base import REQUIRES_GRAD
from kiln.errors import ArgumentError
from kiln.tensor import Tensor


class Parameter(Tensor):
    """A leaf on the memory of `data` that requires a gradient; a module finds it among its attributes.

    Results of ops on parameters are plain tensors. ArgumentError unless `data` is a tensor, DTypeError unless it is
    floating point (or `requires_grad` is False).
    """

    __slots__ = ()

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        if not isinstance(data, Tensor):
            raise ArgumentError(f"a parameter is made of a tensor, not {type(data).__name__}", op="Parameter")
        data = data.detach()
        super().__init__(data._buffer, data._ptr, data._layout, data._flags & ~REQUIRES_GRAD)
        self.requires_grad_(requires_grad)

    def __repr__(self, **_: Any) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copied = memo[id(self)] = Parameter(self.detach().clone(), self.requires_grad)
        return copied
