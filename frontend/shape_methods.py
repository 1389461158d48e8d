"""Methods of tensors that change what they are without touching elements, and small answers: mixed into `Tensor`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kiln import functional as F
from kiln import movement as M
from kiln.base import MODES, REQUIRES_GRAD, TensorBase, layout_of, on_memory
from kiln.errors import CaptureError, DeviceError, GradError, InvalidValueError, ShapeError
from kiln.ir.types import CPU, DType
from kiln.storage import StorageMethods, grown

if TYPE_CHECKING:
    from kiln.tensor import Tensor

Self = TypeVar("Self", bound="ShapeMethods")


def _become(self: Any, view_of: Callable[[Any], Any], name: str) -> Any:
    """`self` turned into a view of itself: the same object, with the view's shape and history. What it was goes on as a
    tensor of its own, which the view is of."""
    if MODES.recorder is not None:
        MODES.recorder.change(self, name)
    if MODES.grad_enabled and self._node is None and self._flags & REQUIRES_GRAD:
        raise GradError(
            "a leaf that requires a gradient can't be changed in place",
            op=name,
            operands=[self.ttype],
            fix=f"assign the result of {name[:-1]}() instead",
        )
    before = on_memory(type(self), self._buffer, self._ptr, self._layout, self._flags)
    before._node, before._index, before._view = self._node, self._index, self._view
    if MODES.recorder is not None:
        MODES.recorder.pass_on(self, before)
    view = view_of(before)
    if MODES.recorder is not None:
        MODES.recorder.pass_on(view, self)
    self._ptr, self._layout, self._buffer = view._ptr, view._layout, view._buffer
    self._node, self._index, self._view = view._node, view._index, view._view
    self._flags = view._flags
    return self


class ShapeMethods(StorageMethods):
    """The part of `Tensor` that tells of and changes shapes in place."""

    __slots__ = ()

    def squeeze_(self: Self, dim: Any = None) -> Self:
        """`squeeze`, of the tensor itself."""
        return cast("Self", _become(self, lambda t: F.squeeze(t, dim), "squeeze_"))

    def unsqueeze_(self: Self, dim: int) -> Self:
        """`unsqueeze`, of the tensor itself."""
        return cast("Self", _become(self, lambda t: F.unsqueeze(t, dim), "unsqueeze_"))

    def transpose_(self: Self, dim0: int, dim1: int) -> Self:
        """`transpose`, of the tensor itself."""
        return cast("Self", _become(self, lambda t: F.transpose(t, dim0, dim1), "transpose_"))

    swapaxes_ = swapdims_ = transpose_

    def t_(self: Self) -> Self:
        """`t`, of the tensor itself."""
        return cast("Self", _become(self, F.t, "t_"))

    def as_strided_(self: Self, size: Any, stride: Any, storage_offset: int | None = None) -> Self:
        """`as_strided`, of the tensor itself."""
        return cast("Self", _become(self, lambda t: M.as_strided(t, size, stride, storage_offset), "as_strided_"))

    def fill_diagonal_(self: Self, fill_value: float, wrap: bool = False) -> Self:
        """The main diagonal becomes `fill_value`; of more than two dimensions, which must be equal, x[i, i, i]. With
        `wrap` the diagonal of a tall matrix begins again after each square and a row."""
        shape = self.shape
        if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
            raise ShapeError(
                "expects a matrix, or more dimensions of one size", op="fill_diagonal_", operands=[self.ttype]
            )
        height, width = shape[0], shape[1]
        tall = wrap and len(shape) == 2
        for begin in range(0, height, width + 1) if tall else (0,):
            line = M.diagonal(self[begin : begin + width] if tall else self)
            while line.ndim > 1:
                line = M.diagonal(line, 0, 0, -1)
            line.fill_(fill_value)
        return self

    def resize_(self: Self, *sizes: Any, memory_format: Any = None) -> Self:
        """Another shape, on the same memory if there is room: the elements that lie there in row-major order. More
        elements take new memory, which this tensor alone moves to; they begin as zeros, and can't be captured."""
        del memory_format
        shape = F.size_tuple("resize_", sizes)
        if any(n < 0 for n in shape):
            raise InvalidValueError(f"negative size in {list(shape)}", op="resize_", fix="sizes are 0 or more")
        count = math.prod(shape)
        if self._flags & REQUIRES_GRAD:
            raise GradError("a tensor that requires a gradient can't be resized", op="resize_", operands=[self.ttype])
        if count > self._layout.numel or not self._layout.contiguous:
            if MODES.recorder is not None:
                MODES.recorder.forbid(cast("Tensor", self), "resize_() to more elements")
            self._buffer, self._ptr, self._layout = grown(self, shape)
            self._view = None
            return self
        return cast("Self", _become(self, lambda t: F.reshape(F.reshape(t, (-1,))[:count], shape), "resize_"))

    def resize_as_(self: Self, the_template: TensorBase, *, memory_format: Any = None) -> Self:
        """resize_() to the shape of another tensor."""
        return self.resize_(the_template.shape, memory_format=memory_format)

    # ---------------------------------------------------------------------------------------- answers

    def ndimension(self) -> int:
        """Number of dimensions."""
        return self.ndim

    def nelement(self) -> int:
        """Number of elements."""
        return self._layout.numel

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._layout.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._layout.nbytes

    @property
    def layout(self) -> Any:
        """kiln.strided: tensors are dense."""
        from kiln.constants import strided

        return strided

    is_sparse = is_quantized = is_meta = is_mkldnn = is_mps = is_xpu = is_sparse_csr = is_nested = property(
        lambda self: False, doc="False: tensors are dense, and on the CPU."
    )
    name = property(lambda self: None, doc="None: tensors have no names.")

    def is_nonzero(self) -> bool:
        """Whether the only element is not zero."""
        return bool(self)

    def is_pinned(self, device: Any = None) -> bool:
        """Whether a GPU copies from and to this memory by itself: `pin_memory`."""
        del device
        return self._buffer.pinned

    def pin_memory(self: Self, device: Any = None) -> Self:
        """A copy in memory that the system keeps where it is, so that copies from and to a GPU with `non_blocking` go
        on while the program does; itself if it is in such memory. DeviceError for a tensor on a GPU, and where there
        is none."""
        from kiln import dispatch, there

        del device
        if self._layout.device is not CPU:
            raise DeviceError("only memory of the CPU can be pinned", op="pin_memory", operands=[self.ttype])
        if self._buffer.pinned:
            return self
        if MODES.recorder is not None:
            raise CaptureError("memory can't be pinned in a compiled function", op="pin_memory", fix="pin it outside")
        layout = layout_of(self._layout.dtype, self._layout.shape)
        buffer = there.pinned(layout.nbytes)
        made = cast("Tensor", dispatch.tensor_on(buffer, buffer.ptr, layout))
        return cast("Self", made.copy_(self))

    def is_neg(self) -> bool:
        """False: negative numbers are negated."""
        return False

    def is_distributed(self) -> bool:
        """False."""
        return False

    def to_dense(self: Self, dtype: DType | None = None, *, masked_grad: bool | None = None) -> Self:
        """Itself, of `dtype` if there is one: all tensors are dense."""
        del masked_grad
        return self if dtype is None else cast("Self", cast("Tensor", self).to(dtype))

    def is_shared(self) -> bool:
        """False: processes do not share tensors."""
        return False

    def sum_to_size(self, *size: Any) -> Tensor:
        """The sum over the dimensions that `size` would be broadcast along."""
        shape = F.size_tuple("sum_to_size", size)
        lead = self.ndim - len(shape)
        if lead < 0 or any(n not in (1, m) for n, m in zip(shape, self.shape[lead:], strict=True)):
            raise ShapeError(f"{list(shape)} can't be broadcast to it", op="sum_to_size", operands=[self.ttype])
        dims = [d for d, n in enumerate(self.shape) if d < lead or (shape[d - lead] == 1 and n != 1)]
        return F.reshape(F.sum(self, dims) if dims else cast("Tensor", self), shape)

    def new(self, *args: Any) -> Tensor:
        """A tensor of this dtype: of data, or of a shape with elements that are not set."""
        from kiln.creation import empty, tensor

        if len(args) == 1 and not isinstance(args[0], int):
            return tensor(args[0], dtype=self.dtype, device=self.device)
        return empty(*args if args else (0,), dtype=self.dtype, device=self.device)
