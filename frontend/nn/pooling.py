"""Pooling, padding and resizing layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kiln import padding as B
from kiln import pooling as P
from kiln import unpooling as U
from kiln.convolution import Sizes, sizes
from kiln.errors import ArgumentError, InvalidValueError
from kiln.nn.module import Module
from kiln.pooling import OutputSizes
from kiln.tensor import Tensor

# --------------------------------------------------------------------------------------------- windows


_MAX = {1: P.max_pool1d, 2: P.max_pool2d, 3: P.max_pool3d}
_LP = {1: P.lp_pool1d, 2: P.lp_pool2d, 3: P.lp_pool3d}
_UNPOOL = {1: U.max_unpool1d, 2: U.max_unpool2d, 3: U.max_unpool3d}
_FRACTIONAL = {2: U.fractional_max_pool2d, 3: U.fractional_max_pool3d}


class _MaxPoolNd(Module):
    dims: int

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        shape = (self.kernel_size, self.stride, self.padding, self.dilation)
        return _MAX[self.dims](input, *shape, ceil_mode=self.ceil_mode, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        window = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{window}, dilation={self.dilation}, ceil_mode={self.ceil_mode}"


class MaxPool1d(_MaxPoolNd):
    """`nn.functional.max_pool1d`."""

    dims = 1


class MaxPool2d(_MaxPoolNd):
    """`nn.functional.max_pool2d`."""

    dims = 2


class MaxPool3d(_MaxPoolNd):
    """`nn.functional.max_pool3d`."""

    dims = 3


class _MaxUnpoolNd(Module):
    dims: int

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        op, dims = type(self).__name__, self.dims
        self.kernel_size = sizes(op, "kernel_size", kernel_size, dims)
        self.stride = self.kernel_size if stride is None else sizes(op, "stride", stride, dims)
        self.padding = sizes(op, "padding", padding, dims)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return _UNPOOL[self.dims](input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpoolNd):
    """`nn.functional.max_unpool1d`."""

    dims = 1


class MaxUnpool2d(_MaxUnpoolNd):
    """`nn.functional.max_unpool2d`."""

    dims = 2


class MaxUnpool3d(_MaxUnpoolNd):
    """`nn.functional.max_unpool3d`."""

    dims = 3


class _FractionalMaxPool(Module):
    dims: int

    def __init__(
        self,
        kernel_size: Sizes,
        output_size: Sizes | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:
        op, dims = type(self).__name__, self.dims
        self.kernel_size, self.return_indices = sizes(op, "kernel_size", kernel_size, dims), return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else sizes(op, "output_size", output_size, dims)
        if (output_size is None) == (output_ratio is None):
            raise ArgumentError("takes either output_size or output_ratio", op=op)
        self.output_ratio: tuple[float, ...] | None = None
        if output_ratio is not None:
            ratios = output_ratio if isinstance(output_ratio, Sequence) else (output_ratio,) * dims
            if any(not 0 < r < 1 for r in ratios):
                raise InvalidValueError(f"output_ratio must lie between 0 and 1, got {output_ratio}", op=op)
            self.output_ratio = tuple(ratios)

    def forward(self, input: Tensor) -> Any:
        pool, size = _FRACTIONAL[self.dims], (self.output_size, self.output_ratio)
        return pool(input, self.kernel_size, *size, self.return_indices, _random_samples=self._random_samples)


class FractionalMaxPool2d(_FractionalMaxPool):
    """`nn.functional.fractional_max_pool2d`."""

    dims = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """`nn.functional.fractional_max_pool3d`."""

    dims = 3


class AvgPool1d(Module):
    """`nn.functional.avg_pool1d`."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = sizes("AvgPool1d", "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else sizes("AvgPool1d", "stride", stride, 1)
        self.padding = sizes("AvgPool1d", "padding", padding, 1)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding)
        return P.avg_pool1d(input, *window, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPoolNd(Module):
    pool: Callable[..., Tensor]

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return type(self).pool(input, *window, self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPoolNd):
    """`nn.functional.avg_pool2d`."""

    pool = staticmethod(P.avg_pool2d)


class AvgPool3d(_AvgPoolNd):
    """`nn.functional.avg_pool3d`."""

    pool = staticmethod(P.avg_pool3d)


class _LPPoolNd(Module):
    dims: int

    def __init__(
        self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
    ) -> None:
        self.norm_type, self.kernel_size = norm_type, kernel_size
        self.stride, self.ceil_mode = stride, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return _LP[self.dims](input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        window = f"kernel_size={self.kernel_size}, stride={self.stride}, ceil_mode={self.ceil_mode}"
        return f"norm_type={self.norm_type}, {window}"


class LPPool1d(_LPPoolNd):
    """`nn.functional.lp_pool1d`."""

    dims = 1


class LPPool2d(_LPPoolNd):
    """`nn.functional.lp_pool2d`."""

    dims = 2


class LPPool3d(_LPPoolNd):
    """`nn.functional.lp_pool3d`."""

    dims = 3


class _Adaptive(Module):
    def __init__(self, output_size: OutputSizes) -> None:
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_Adaptive):
    """`nn.functional.adaptive_avg_pool1d`."""

    def forward(self, input: Tensor) -> Tensor:
        return P.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_Adaptive):
    """`nn.functional.adaptive_avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return P.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_Adaptive):
    """`nn.functional.adaptive_avg_pool3d`."""

    def forward(self, input: Tensor) -> Tensor:
        return P.adaptive_avg_pool3d(input, self.output_size)


class _AdaptiveMax(_Adaptive):
    def __init__(self, output_size: OutputSizes, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices


class AdaptiveMaxPool1d(_AdaptiveMax):
    """`nn.functional.adaptive_max_pool1d`."""

    def forward(self, input: Tensor) -> Any:
        return P.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMax):
    """`nn.functional.adaptive_max_pool2d`."""

    def forward(self, input: Tensor) -> Any:
        return P.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(_AdaptiveMax):
    """`nn.functional.adaptive_max_pool3d`."""

    def forward(self, input: Tensor) -> Any:
        return P.adaptive_max_pool3d(input, self.output_size, self.return_indices)


# --------------------------------------------------------------------------------------------- padding


class _PadNd(Module):
    dims: int
    mode: str

    def __init__(self, padding: int | Sequence[int]) -> None:
        self.padding = sizes(type(self).__name__, "padding", padding, 2 * self.dims)

    def forward(self, input: Tensor) -> Tensor:
        return B.pad(input, self.padding, mode=self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    mode = "constant"

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return B.pad(input, self.padding, value=self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """`value` before and behind the last dimension."""

    dims = 1


class ConstantPad2d(_ConstantPadNd):
    """`value` around the last two dimensions: left, right, above, below."""

    dims = 2


class _ZeroPad(_ConstantPadNd):
    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Zeros before and behind the last dimension."""

    dims = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around the last two dimensions: left, right, above, below."""

    dims = 2


class ReflectionPad1d(_PadNd):
    """The elements before the edge again, in reverse."""

    dims, mode = 1, "reflect"


class ReflectionPad2d(_PadNd):
    """`ReflectionPad1d` of both dimensions: left, right, above, below."""

    dims, mode = 2, "reflect"


class ReplicationPad1d(_PadNd):
    """The edge again."""

    dims, mode = 1, "replicate"


class ReplicationPad2d(_PadNd):
    """`ReplicationPad1d` of both dimensions: left, right, above, below."""

    dims, mode = 2, "replicate"


class CircularPad1d(_PadNd):
    """The elements of the other end."""

    dims, mode = 1, "circular"


class CircularPad2d(_PadNd):
    """`CircularPad1d` of both dimensions: left, right, above, below."""

    dims, mode = 2, "circular"


class ConstantPad3d(_ConstantPadNd):
    """`value` around the last three dimensions: left, right, above, below, before, behind."""

    dims = 3


class ZeroPad3d(_ZeroPad):
    """Zeros around the last three dimensions: left, right, above, below, before, behind."""

    dims = 3


class ReflectionPad3d(_PadNd):
    """`ReflectionPad1d` of three dimensions: left, right, above, below, before, behind."""

    dims, mode = 3, "reflect"


class ReplicationPad3d(_PadNd):
    """`ReplicationPad1d` of three dimensions: left, right, above, below, before, behind."""

    dims, mode = 3, "replicate"


class CircularPad3d(_PadNd):
    """`CircularPad1d` of three dimensions: left, right, above, below, before, behind."""

    dims, mode = 3, "circular"


# -------------------------------------------------------------------------------------------- resizing


class Upsample(Module):
    """`nn.functional.interpolate`."""

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        self.size = size
        if isinstance(scale_factor, (tuple, list)):
            self.scale_factor: Any = tuple([float(f) for f in scale_factor])
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return B.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        how = f"scale_factor={self.scale_factor!r}" if self.scale_factor is not None else f"size={self.size!r}"
        return f"{how}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` with mode "nearest"."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor)


class UpsamplingBilinear2d(Upsample):
    """`Upsample` with mode "bilinear" and align_corners."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "bilinear", True)


class PixelShuffle(Module):
    """`nn.functional.pixel_shuffle`."""

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return B.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """`nn.functional.pixel_unshuffle`."""

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return B.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """`nn.functional.channel_shuffle`."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return B.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
