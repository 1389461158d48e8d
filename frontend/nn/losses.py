"""Losses as modules: each calls the function of its name."""

from __future__ import annotations

from kiln import functional as F
from kiln.errors import InvalidValueError
from kiln.nn.module import Module
from kiln.tensor import Tensor

__all__ = ["CrossEntropyLoss", "MSELoss"]


class CrossEntropyLoss(Module):
    """`nn.functional.cross_entropy` with its options."""

    def __init__(self, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        _check_reduction("CrossEntropyLoss", reduction)
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(input, target, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(Module):
    """`nn.functional.mse_loss` with its options."""

    def __init__(self, reduction: str = "mean") -> None:
        _check_reduction("MSELoss", reduction)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


def _check_reduction(op: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise InvalidValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}', op=op)
