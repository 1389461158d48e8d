"""Layers that learn the size of their input from their first call.

Until then their parameters are `UninitializedParameter`s: without shape, of use to no op. The first call, or loading a
state, makes them parameters (the same objects), and then the layer is one of the ordinary class.
"""

from __future__ import annotations

from typing import Any

from kiln.convolution import Sizes
from kiln.creation import empty
from kiln.errors import InvalidValueError, ShapeError
from kiln.ir import types as T
from kiln.ir.types import DType
from kiln.nn import normalization as N
from kiln.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from kiln.nn.linear import Linear
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter, UninitializedBuffer, UninitializedParameter, UninitializedTensorMixin
from kiln.tensor import Tensor

__all__ = [
    "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d", "LazyConv3d",
    "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d", "LazyInstanceNorm1d", "LazyInstanceNorm2d",
    "LazyInstanceNorm3d", "LazyLinear", "UninitializedBuffer", "UninitializedParameter",
]  # fmt: skip


class LazyModuleMixin(Module):
    """Base of lazy layers, before the layer's own class: `initialize_parameters` is called with the arguments of the
    first call, and then the layer becomes a `cls_to_become`."""

    cls_to_become: type[Module] | None = None

    def _await_call(self) -> None:
        self._initialize_hook = self.register_forward_pre_hook(self._infer_parameters, with_kwargs=True)

    def has_uninitialized_params(self) -> bool:
        """Whether any parameter or buffer of this module itself waits for its shape."""
        own = (*self._parameters.values(), *self._buffers.values())
        return any(isinstance(x, UninitializedTensorMixin) for x in own)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Materialize the parameters for these arguments of `forward`; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define initialize_parameters()")

    def _infer_parameters(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise InvalidValueError(f"{type(self).__name__} still has uninitialized parameters after a call")
        self._initialize_hook.remove()
        del self._initialize_hook
        if self.cls_to_become is not None:
            object.__setattr__(self, "__class__", self.cls_to_become)


class LazyLinear(LazyModuleMixin, Linear):
    """`Linear`, with in_features from the first call."""

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: DType | None = None) -> None:
        Linear.__init__(self, 0, 0, False, device, dtype)
        self.out_features = out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)
        self._await_call()

    def reset_parameters(self) -> None:
        """Draw new initial values, once there is something to fill."""
        if not self.has_uninitialized_params() and self.in_features:
            Linear.reset_parameters(self)

    def initialize_parameters(self, input: Tensor) -> None:
        """Materialize for an input [..., in_features]."""
        if self.has_uninitialized_params():
            self.in_features = input.shape[-1]
            _materialize(self.weight, (self.out_features, self.in_features))
            _materialize(self.bias, (self.out_features,))
            self.reset_parameters()
        if not self.in_features:
            self.in_features = input.shape[-1]


def _materialize(x: Tensor | None, shape: tuple[int, ...]) -> None:
    if isinstance(x, UninitializedTensorMixin):
        x.materialize(shape)


class _LazyConvolution(LazyModuleMixin):
    """What the lazy convolutions share; the layer's own class is a base too."""

    weight: Parameter
    bias: Parameter | None
    dims: int
    transposed: bool
    in_channels: int
    out_channels: int
    groups: int
    kernel_size: tuple[int, ...]

    def _wait(self, out_channels: int, bias: bool, dtype: DType | None) -> None:
        self.out_channels = out_channels
        self.weight = UninitializedParameter(dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(dtype=dtype)
        self._await_call()

    def reset_parameters(self) -> None:
        """Draw new initial values, once there is something to fill."""
        if not self.has_uninitialized_params() and self.in_channels:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor, *_: Any) -> None:
        """Materialize for an input [N, in_channels, ...] or [in_channels, ...]."""
        name = type(self).__name__
        if input.ndim not in (self.dims + 1, self.dims + 2):
            raise ShapeError(f"expects {self.dims + 1} or {self.dims + 2} dimensions", op=name, operands=[input.ttype])
        channels = input.shape[-self.dims - 1]
        if self.has_uninitialized_params():
            self.in_channels = channels
            if channels % self.groups:
                raise InvalidValueError(f"{channels} channels can't be divided into {self.groups} groups", op=name)
            first, second = self.out_channels, channels
            if self.transposed:
                first, second = second, first
            _materialize(self.weight, (first, second // self.groups, *self.kernel_size))
            _materialize(self.bias, (self.out_channels,))
            self.reset_parameters()
        if not self.in_channels:
            self.in_channels = channels


class _LazyForward(_LazyConvolution):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        if out_channels % groups:
            raise InvalidValueError(
                f"out_channels {out_channels} can't be divided into {groups} groups", op=type(self).__name__
            )
        args = (0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode)
        super().__init__(*args, device, dtype)  # type: ignore[call-arg]
        self._wait(out_channels, bias, dtype)


class _LazyTransposed(_LazyConvolution):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        if out_channels % groups:
            raise InvalidValueError(
                f"out_channels {out_channels} can't be divided into {groups} groups", op=type(self).__name__
            )
        args = (0, 0, kernel_size, stride, padding, output_padding, groups, False, dilation, padding_mode)
        super().__init__(*args, device, dtype)  # type: ignore[call-arg]
        self._wait(out_channels, bias, dtype)


class LazyConv1d(_LazyForward, Conv1d):
    """`Conv1d`, with in_channels from the first call."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyForward, Conv2d):
    """`Conv2d`, with in_channels from the first call."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyForward, Conv3d):
    """`Conv3d`, with in_channels from the first call."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):
    """`ConvTranspose1d`, with in_channels from the first call."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):
    """`ConvTranspose2d`, with in_channels from the first call."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):
    """`ConvTranspose3d`, with in_channels from the first call."""

    cls_to_become = ConvTranspose3d


class _LazyNorm(LazyModuleMixin):
    """What lazy batch and instance normalisation share; the layer's own class is a base too."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_features: int

    def _wait(self, affine: bool, track_running_stats: bool, bias: bool, dtype: DType | None) -> None:
        self.affine, self.track_running_stats = affine, track_running_stats
        if affine:
            self.weight = UninitializedParameter(dtype=dtype)
            if bias:
                self.bias = UninitializedParameter(dtype=dtype)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(dtype=dtype)
            self.running_var = UninitializedBuffer(dtype=dtype)
            self.num_batches_tracked = empty((), dtype=T.int64).zero_()
        self._await_call()

    def reset_parameters(self) -> None:
        """Weights 1, biases 0, once there is something to fill."""
        if not self.has_uninitialized_params() and self.num_features:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor) -> None:
        """Materialize for an input [N, num_features, ...]."""
        self._check_input_dim(input)
        if self.has_uninitialized_params():
            self.num_features = input.shape[1]
            for x in (*self._parameters.values(), *self._buffers.values()):
                _materialize(x, (self.num_features,))
            self.reset_parameters()
        if not self.num_features:
            self.num_features = input.shape[1]


class _LazyBatchNorm(_LazyNorm):
    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(0, eps, momentum, False, False, device, dtype)  # type: ignore[call-arg]
        self._wait(affine, track_running_stats, bias, dtype)


class _LazyInstanceNorm(_LazyNorm):
    """`affine` and `track_running_stats` are not the defaults of the layer that it becomes, as in PyTorch."""

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(0, eps, momentum, False, False, device, dtype)  # type: ignore[call-arg]
        self._wait(affine, track_running_stats, bias, dtype)


class LazyBatchNorm1d(_LazyBatchNorm, N.BatchNorm1d):  # type: ignore[misc]
    """`BatchNorm1d`, with num_features from the first call."""

    cls_to_become = N.BatchNorm1d


class LazyBatchNorm2d(_LazyBatchNorm, N.BatchNorm2d):  # type: ignore[misc]
    """`BatchNorm2d`, with num_features from the first call."""

    cls_to_become = N.BatchNorm2d


class LazyBatchNorm3d(_LazyBatchNorm, N.BatchNorm3d):  # type: ignore[misc]
    """`BatchNorm3d`, with num_features from the first call."""

    cls_to_become = N.BatchNorm3d


class LazyInstanceNorm1d(_LazyInstanceNorm, N.InstanceNorm1d):  # type: ignore[misc]
    """`InstanceNorm1d`, with num_features from the first call."""

    cls_to_become = N.InstanceNorm1d


class LazyInstanceNorm2d(_LazyInstanceNorm, N.InstanceNorm2d):  # type: ignore[misc]
    """`InstanceNorm2d`, with num_features from the first call."""

    cls_to_become = N.InstanceNorm2d


class LazyInstanceNorm3d(_LazyInstanceNorm, N.InstanceNorm3d):  # type: ignore[misc]
    """`InstanceNorm3d`, with num_features from the first call."""

    cls_to_become = N.InstanceNorm3d
