"""Convolution layers, and patches: parameters, names and initial values as PyTorch has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kiln import convolution as C
from kiln.convolution import Sizes, at_least, sizes
from kiln.creation import empty
from kiln.errors import ArgumentError, InvalidValueError
from kiln.ir.types import DType
from kiln.nn import init
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.padding import pad
from kiln.tensor import Tensor

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


_CONVOLVE = {1: C.conv1d, 2: C.conv2d, 3: C.conv3d}
_TRANSPOSE = {1: C.conv_transpose1d, 2: C.conv_transpose2d, 3: C.conv_transpose3d}


class _ConvNd(Module):
    """What the layers share: weight and bias, uniform in +-1/sqrt(elements that a result sees)."""

    dims: int
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes,
        padding: Sizes | str,
        dilation: Sizes,
        output_padding: Sizes,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: DType | None,
    ) -> None:
        op, dims = type(self).__name__, self.dims
        at_least(op, "groups", sizes(op, "groups", groups, 1), 1)
        for name, n in (("in_channels", in_channels), ("out_channels", out_channels)):
            at_least(op, name, sizes(op, name, n, 1), 0)
            if n % groups:
                raise InvalidValueError(f"{name} {n} can't be divided into {groups} groups", op=op)
        if padding_mode not in _PADDING_MODES or (self.transposed and padding_mode != "zeros"):
            raise InvalidValueError(f"padding_mode {padding_mode!r} is none of {_PADDING_MODES}", op=op)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = sizes(op, "kernel_size", kernel_size, dims)
        self.stride, self.dilation = sizes(op, "stride", stride, dims), sizes(op, "dilation", dilation, dims)
        self.padding: tuple[int, ...] | str = (
            padding if isinstance(padding, str) else sizes(op, "padding", padding, dims)
        )
        if isinstance(self.padding, str) and self.padding not in ("same", "valid"):
            raise InvalidValueError(f'padding must be numbers, "same" or "valid", got {padding!r}', op=op)
        if self.padding == "same" and any(s != 1 for s in self.stride):
            raise InvalidValueError('padding="same" needs stride 1', op=op)
        self.output_padding = sizes(op, "output_padding", output_padding, dims)
        self.padding_mode = padding_mode
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self.weight = Parameter(empty(first, second // groups, *self.kernel_size, device=device, dtype=dtype))
        self.bias = Parameter(empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        seen = math.prod(self.weight.shape[1:])
        if not seen:
            return
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(seen)
            init.uniform_(self.bias, -bound, bound)

    def around(self) -> list[int]:
        """Padding as `nn.functional.pad` takes it: last dimension first."""
        pairs: list[Sequence[int]] = []
        for d in reversed(range(self.dims)):
            if isinstance(self.padding, str):
                total = self.dilation[d] * (self.kernel_size[d] - 1) if self.padding == "same" else 0
                pairs.append((total // 2, total - total // 2))
            else:
                pairs.append((self.padding[d],) * 2)
        return [n for pair in pairs for n in pair]

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        zeros = (0,) * self.dims
        if self.padding != zeros:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.dims:
            text += f", dilation={self.dilation}"
        if self.output_padding != zeros:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Forward(_ConvNd):
    """Convolution of `dims` dimensions."""

    def __init__(
        self,
        in_channels: int,
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
        walk = (kernel_size, stride, padding, dilation, 0)
        super().__init__(in_channels, out_channels, *walk, groups, bias, padding_mode, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        padding: tuple[int, ...] | str = self.padding
        if self.padding_mode != "zeros":
            input, padding = pad(input, self.around(), mode=self.padding_mode), "valid"
        rest = (self.stride, padding, self.dilation, self.groups)
        return _CONVOLVE[self.dims](input, self.weight, self.bias, *rest)


class Conv1d(_Forward):
    """`nn.functional.conv1d`: [N, in_channels, L] -> [N, out_channels, L']. weight [out_channels, in_channels / groups,
    K] and bias [out_channels] start uniform in +-1/sqrt(in_channels / groups * K)."""

    dims = 1


class Conv2d(_Forward):
    """`nn.functional.conv2d`: [N, in_channels, H, W] -> [N, out_channels, H', W']. weight [out_channels, in_channels /
    groups, KH, KW] and bias [out_channels] start uniform in +-1/sqrt(in_channels / groups * KH * KW)."""

    dims = 2


class Conv3d(_Forward):
    """`nn.functional.conv3d`: [N, in_channels, D, H, W] -> [N, out_channels, D', H', W']. weight [out_channels,
    in_channels / groups, KD, KH, KW] and bias [out_channels] start uniform in +-1/sqrt(in_channels / groups * KD * KH *
    KW)."""

    dims = 3


class _ConvTransposeNd(_ConvNd):
    """Transposed convolution of `dims` dimensions."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
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
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            sizes(type(self).__name__, "padding", padding, self.dims),
            dilation,
            output_padding,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The result; with `output_size`, its spatial sizes (or its shape), with the output padding that makes it that
        large."""
        assert not isinstance(self.padding, str)
        more = self.output_padding if output_size is None else self._reaching(input, output_size)
        rest = (self.stride, self.padding, more, self.groups, self.dilation)
        return _TRANSPOSE[self.dims](input, self.weight, self.bias, *rest)

    def _reaching(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """The output padding for a result of this size."""
        op, dims, wanted = type(self).__name__, self.dims, list(output_size)
        if len(wanted) == input.ndim:
            wanted = wanted[-dims:]
        if len(wanted) != dims:
            message = f"output_size must have {dims} or {input.ndim} numbers, got {len(wanted)}"
            raise ArgumentError(message, op=op, operands=[input.ttype])
        assert not isinstance(self.padding, str)
        least = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                input.shape[-dims:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        ]
        most = [n + s - 1 for n, s in zip(least, self.stride, strict=True)]
        if any(not low <= n <= high for low, n, high in zip(least, wanted, most, strict=True)):
            message = f"output_size {wanted} must lie between {least} and {most}"
            raise InvalidValueError(message, op=op, operands=[input.ttype])
        return tuple([n - low for n, low in zip(wanted, least, strict=True)])


class ConvTranspose1d(_ConvTransposeNd):
    """`nn.functional.conv_transpose1d`; weight [in_channels, out_channels / groups, K]."""

    dims = 1


class ConvTranspose2d(_ConvTransposeNd):
    """`nn.functional.conv_transpose2d`; weight [in_channels, out_channels / groups, KH, KW]."""

    dims = 2


class ConvTranspose3d(_ConvTransposeNd):
    """`nn.functional.conv_transpose3d`; weight [in_channels, out_channels / groups, KD, KH, KW]."""

    dims = 3


class Unfold(Module):
    """`nn.functional.unfold`: the patches that a convolution sees."""

    def __init__(self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> None:
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return C.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        walk = f"dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        return f"kernel_size={self.kernel_size}, {walk}"


class Fold(Module):
    """`nn.functional.fold`: patches added to an image."""

    def __init__(
        self,
        output_size: Sizes,
        kernel_size: Sizes,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        stride: Sizes = 1,
    ) -> None:
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return C.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        walk = f"dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        return f"output_size={self.output_size}, kernel_size={self.kernel_size}, {walk}"
