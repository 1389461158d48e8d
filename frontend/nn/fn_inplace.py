"""Activation functions that write their result into the input, under names of their own."""

from __future__ import annotations

from kiln.activation import celu, elu, hardtanh, leaky_relu, selu
from kiln.activation import threshold as _threshold
from kiln.base import TensorBase
from kiln.nn.fn_activation import relu, rrelu
from kiln.tensor import Tensor

__all__ = ["celu_", "elu_", "hardtanh_", "leaky_relu_", "relu_", "rrelu_", "selu_", "threshold_"]


def relu_(input: TensorBase) -> Tensor:
    """`relu` in place."""
    return relu(input, inplace=True)


def elu_(input: TensorBase, alpha: float = 1.0) -> Tensor:
    """`elu` in place."""
    return elu(input, alpha, inplace=True)


def selu_(input: TensorBase) -> Tensor:
    """`selu` in place."""
    return selu(input, inplace=True)


def celu_(input: TensorBase, alpha: float = 1.0) -> Tensor:
    """`celu` in place."""
    return celu(input, alpha, inplace=True)


def leaky_relu_(input: TensorBase, negative_slope: float = 0.01) -> Tensor:
    """`leaky_relu` in place."""
    return leaky_relu(input, negative_slope, inplace=True)


def hardtanh_(input: TensorBase, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`hardtanh` in place."""
    return hardtanh(input, min_val, max_val, inplace=True)


def threshold_(input: TensorBase, threshold: float, value: float) -> Tensor:
    """`threshold` in place."""
    return _threshold(input, threshold, value, inplace=True)


def rrelu_(input: TensorBase, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """`rrelu` in place."""
    return rrelu(input, lower, upper, training, inplace=True)
