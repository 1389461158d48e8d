"""Activations as modules: each calls the function of its name."""

from __future__ import annotations

from typing import Any

from kiln import activation as A
from kiln import functional as F
from kiln.creation import full
from kiln.errors import InvalidValueError, ShapeError
from kiln.ir.types import DType
from kiln.nn import fn_activation
from kiln.nn.attention import MultiheadAttention as MultiheadAttention  # whose path this is in PyTorch
from kiln.nn.init import constant_
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.tensor import Tensor

__all__ = [
    "CELU", "ELU", "GELU", "GLU", "SELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU",
    "LogSigmoid", "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Softmax", "Softmax2d",
    "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold",
]  # fmt: skip


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
        return A.gelu(input, approximate=self.approximate)

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


class _Listed(_InPlace):
    """An activation with numbers as options, shown by name."""

    _options: tuple[str, ...] = ()

    def extra_repr(self) -> str:
        shown = [f"{name}={getattr(self, name)}" for name in self._options]
        return ", ".join([*shown, *(["inplace=True"] if self.inplace else [])])


class ReLU6(_InPlace):
    """`nn.functional.relu6`: min(max(input, 0), 6)."""

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.relu6(input))


class Hardsigmoid(_InPlace):
    """`nn.functional.hardsigmoid`: relu6(input + 3) / 6."""

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.hardsigmoid(input))


class Hardswish(_InPlace):
    """`nn.functional.hardswish`: input * relu6(input + 3) / 6."""

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.hardswish(input))


class SELU(_InPlace):
    """`nn.functional.selu`."""

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.selu(input))


class SiLU(_InPlace):
    """`nn.functional.silu`: input * sigmoid(input)."""

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.silu(input))


class Mish(_InPlace):
    """`nn.functional.mish`: input * tanh(softplus(input))."""

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.mish(input))


class LogSigmoid(_Plain):
    """`nn.functional.logsigmoid`: log(sigmoid(input))."""

    def forward(self, input: Tensor) -> Tensor:
        return A.logsigmoid(input)


class Softsign(_Plain):
    """`nn.functional.softsign`: input / (1 + |input|)."""

    def forward(self, input: Tensor) -> Tensor:
        return A.softsign(input)


class Tanhshrink(_Plain):
    """`nn.functional.tanhshrink`: input - tanh(input)."""

    def forward(self, input: Tensor) -> Tensor:
        return A.tanhshrink(input)


class ELU(_Listed):
    """`nn.functional.elu`: alpha * (exp(input) - 1) below 0."""

    _options = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.elu(input, self.alpha))


class CELU(_Listed):
    """`nn.functional.celu`: alpha * (exp(input / alpha) - 1) below 0."""

    _options = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.celu(input, self.alpha))


class LeakyReLU(_Listed):
    """`nn.functional.leaky_relu`: negative_slope * input below 0."""

    _options = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.leaky_relu(input, self.negative_slope))


class Threshold(_Listed):
    """`nn.functional.threshold`: `value` where input is at most `threshold`."""

    _options = (
        "threshold",
        "value",
    )

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold, self.value = threshold, value

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.threshold(input, self.threshold, self.value))


class Softplus(_Listed):
    """`nn.functional.softplus`: log(1 + exp(beta * input)) / beta."""

    _options = (
        "beta",
        "threshold",
    )

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.softplus(input, self.beta, self.threshold))


class Hardtanh(_Listed):
    """`nn.functional.hardtanh`: input between min_val and max_val. min_value and max_value are older spellings."""

    _options = ("min_val", "max_val")

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        super().__init__(inplace)
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        if self.min_val >= self.max_val:
            raise InvalidValueError(f"min_val {self.min_val} must be below max_val {self.max_val}", op="Hardtanh")

    def forward(self, input: Tensor) -> Tensor:
        return self._put(input, A.hardtanh(input, self.min_val, self.max_val))


class _Shrink(Module):
    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = lambd

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(_Shrink):
    """`nn.functional.hardshrink`: 0 where |input| is at most lambd."""

    def forward(self, input: Tensor) -> Tensor:
        return A.hardshrink(input, self.lambd)


class Softshrink(_Shrink):
    """`nn.functional.softshrink`: input brought towards 0 by lambd."""

    def forward(self, input: Tensor) -> Tensor:
        return A.softshrink(input, self.lambd)


class RReLU(_Listed):
    """`nn.functional.rrelu`: below 0 times a slope, in training drawn between `lower` and `upper`, otherwise their
    mean."""

    _options = ("lower", "upper")

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.lower, self.upper = lower, upper

    def forward(self, input: Tensor) -> Tensor:
        return fn_activation.rrelu(input, self.lower, self.upper, self.training, self.inplace)


class PReLU(Module):
    """`nn.functional.prelu`: below 0 times a trained weight, one or `num_parameters` (one per channel, dimension 1)."""

    weight: Parameter

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: DType | None = None
    ) -> None:
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(full((num_parameters,), float(init), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """`init` everywhere."""
        constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        return A.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class GLU(Module):
    """`nn.functional.glu`: the first half of `dim` times the sigmoid of the second."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return A.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class _AlongDim(Module):
    """`dim` None: 0 for tensors of 0, 1 or 3 dimensions, else 1."""

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """softmax along `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return fn_activation.softmax(input, self.dim)


class LogSoftmax(_AlongDim):
    """log_softmax along `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return fn_activation.log_softmax(input, self.dim)


class Softmin(_AlongDim):
    """softmax(-input) along `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return fn_activation.softmin(input, self.dim)


class Softmax2d(_Plain):
    """softmax over the channels of [N, C, H, W] or [C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ShapeError("expects 3 or 4 dimensions", op="Softmax2d", operands=[input.ttype])
        return F.softmax(input, -3)
