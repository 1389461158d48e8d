"""Linear layers, and those that only change the shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kiln import functional as F
from kiln.creation import empty
from kiln.errors import ArgumentError, InvalidValueError
from kiln.ir.types import DType
from kiln.nn import fn_linear, init
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.tensor import Tensor

__all__ = [
    "Bilinear", "CosineSimilarity", "Flatten", "Identity", "Linear", "NonDynamicallyQuantizableLinear",
    "PairwiseDistance", "Unflatten",
]  # fmt: skip


def check_sizes(op: str, **sizes: Any) -> None:
    """ArgumentError for a size that is no int, InvalidValueError for a negative one."""
    for name, n in sizes.items():
        if not isinstance(n, int) or isinstance(n, bool):
            raise ArgumentError(f"{name} must be an int, not {type(n).__name__}", op=op)
        if n < 0:
            raise InvalidValueError(f"{name} is {n}", op=op)


class Identity(Module):
    """Returns its argument; takes any arguments when made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        return input


class Linear(Module):
    """input @ weight.T + bias: [..., in_features] -> [..., out_features].

    weight [out_features, in_features] and bias [out_features] start uniform in +-1/sqrt(in_features).
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        if not self.in_features:
            return
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


class NonDynamicallyQuantizableLinear(Linear):
    """`Linear`: the name that PyTorch gives to the last layer of attention."""


class Bilinear(Module):
    """`nn.functional.bilinear`: [..., in1_features] and [..., in2_features] -> [..., out_features].

    weight [out_features, in1_features, in2_features] and bias start uniform in +-1/sqrt(in1_features).
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        check_sizes("Bilinear", in1_features=in1_features, in2_features=in2_features, out_features=out_features)
        if not in1_features:
            raise InvalidValueError("in1_features must be positive", op="Bilinear")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = Parameter(empty(out_features, in1_features, in2_features, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return fn_linear.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


class Flatten(Module):
    """Dimensions start_dim..end_dim made one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Dimension `dim` made several of sizes `unflattened_size` (one may be -1)."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        if not isinstance(dim, int):
            raise ArgumentError(f"a dimension must be an int, got {type(dim).__name__}", op="Unflatten")
        self.dim, self.unflattened_size = dim, F.size_tuple("Unflatten", tuple(unflattened_size))

    def forward(self, input: Tensor) -> Tensor:
        d = F.dim_index("Unflatten", self.dim, input.ndim)
        before, after = input.shape[:d], input.shape[d + 1 :]
        sizes = self.unflattened_size
        if -1 in sizes:
            rest = -math.prod(sizes)
            sizes = tuple(input.shape[d] // rest if n == -1 and rest > 0 else n for n in sizes)
        return F.reshape(input, (*before, *sizes, *after))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class CosineSimilarity(Module):
    """`nn.functional.cosine_similarity`."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return fn_linear.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """`nn.functional.pairwise_distance`."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return fn_linear.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
