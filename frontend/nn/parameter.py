"""`Parameter`: a tensor that a module trains."""

from __future__ import annotations

from typing import Any

from kiln.base import REQUIRES_GRAD
from kiln.errors import DTypeError
from kiln.tensor import Tensor


class Parameter(Tensor):
    """A leaf tensor on the memory of `data` that requires gradients and that modules register by itself."""

    __slots__ = ()

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        if requires_grad and not data.is_floating_point():
            raise DTypeError(f"a parameter of {data.dtype} can't require gradients", op="Parameter")
        super().__init__(data._buffer, data._ptr, data._layout, REQUIRES_GRAD if requires_grad else 0)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copied = Parameter(self.detach().clone(), self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __repr__(self, **_: Any) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
