"""Activations as modules: each calls the function of its name."""

from __future__ import annotations

from typing import Any

from kiln import functional as F
from kiln.errors import InvalidValueError, ShapeError
from kiln.nn.module import Module
from kiln.tensor import Tensor

__all__ = ["GELU", "LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Softmax2d", "Softmin", "Tanh"]


class _Plain(Module):
    """An activation without options; takes any arguments when made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


class _InPlace(Module):
    """An activation that may write its result over its argument (`inplace`)."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def _put(self, input: Tensor, result: Tensor) -> Tensor:
        return input.copy_(result) if self.inplace else result

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(_InPlace):
    """max(input, 0)."""

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, F.relu(input))


class GELU(Module):
    """input * Phi(input); `approximate`: "none" (by erf) or "tanh"."""

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise InvalidValueError(f'approximate must be "none" or "tanh", got {approximate!r}', op="GELU")
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Tanh(_Plain):
    """Hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Sigmoid(_Plain):
    """1 / (1 + exp(-input))."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class _AlongDim(Module):
    """`dim` None: 0 for tensors of 0, 1 or 3 dimensions, else 1."""

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def _dim(self, input: Tensor) -> int:
        if self.dim is not None:
            return self.dim
        return 0 if input.ndim in (0, 1, 3) else 1

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """softmax along `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self._dim(input))


class LogSoftmax(_AlongDim):
    """log_softmax along `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self._dim(input))


class Softmin(_AlongDim):
    """softmax(-input) along `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(F.neg(input), self._dim(input))


class Softmax2d(_Plain):
    """softmax over the channels of [N, C, H, W] or [C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ShapeError("expects 3 or 4 dimensions", op="Softmax2d", operands=[input.ttype])
        return F.softmax(input, -3)
