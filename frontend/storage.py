"""The memory of tensors as such: storages, other dtypes' looks at it, strides by hand. None of this can be captured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from kiln import dispatch
from kiln import functional as F
from kiln.base import MODES, READONLY, REQUIRES_GRAD, Layout, TensorBase, layout_of
from kiln.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    GradError,
    InvalidValueError,
    KilnIndexError,
    NotYetError,
    ShapeError,
)
from kiln.ir import types as T
from kiln.ir.halves import widened
from kiln.ir.ops.base import OPS
from kiln.ir.types import CPU, Device, DType, contiguous_strides, device_at
from kiln.promotion import broadcast_to, tensor_arg
from kiln.runtime.memory import Buffer
from kiln.there import as_numpy

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["TypedStorage", "UntypedStorage", "empty_strided", "frombuffer", "is_storage"]

Self = TypeVar("Self", bound="StorageMethods")


class UntypedStorage:
    """The bytes that a tensor and its views lie in; read and written as numbers from 0 to 255.

    >>> import kiln
    >>> x = kiln.zeros(2, 3)
    >>> x[1].untyped_storage().nbytes(), x[1].untyped_storage().data_ptr() == x.data_ptr()
    (24, True)
    """

    dtype: DType = T.uint8

    def __init__(self, size: int = 0, *, device: Any = None) -> None:
        from kiln.creation import empty

        self._buffer: Buffer = empty(size, dtype=self.dtype, device=device)._buffer
        self._readonly = False

    @classmethod
    def _of(cls, x: TensorBase, dtype: DType) -> Any:
        made = object.__new__(cls)
        made.dtype, made._buffer, made._readonly = dtype, x._buffer, bool(x._flags & READONLY)
        return made

    def _elements(self) -> np.ndarray[Any, Any]:
        count = self.size()
        return as_numpy(self._buffer, self.dtype.numpy, (count,), (self.dtype.itemsize,), 0, self._readonly)

    def nbytes(self) -> int:
        """Number of bytes."""
        return self._buffer.nbytes

    def size(self) -> int:
        """Number of elements."""
        return self._buffer.nbytes // self.dtype.itemsize

    __len__ = size

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def data_ptr(self) -> int:
        """Address of the first byte."""
        return self._buffer.ptr

    @property
    def device(self) -> Device:
        """Where the memory is."""
        slot = getattr(self._buffer, "device", None)  # which the CPU's memory does not have
        return CPU if slot is None else device_at("cuda", slot)

    @property
    def is_cuda(self) -> bool:
        """Whether the memory is a GPU's."""
        return self.device is not CPU

    def is_shared(self) -> bool:
        """False: processes do not share memory."""
        return False

    def tolist(self) -> list[Any]:
        """The elements as Python numbers."""
        return cast("list[Any]", widened(self._elements()).tolist())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.tolist()[index]
        return self._at(index).item()

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if self._readonly:
            raise GradError("would write to read-only memory", op="storage", fix="write to a clone()")
        if self.device is not CPU:
            raise DeviceError(f"the storage is on {self.device}", op="storage", fix="write to a tensor on it")
        if not isinstance(index, slice):
            self._at(index)
        self._elements()[index] = value
        self._buffer.version += 1

    def _at(self, index: int) -> Any:
        count = self.size()
        if not -count <= index < count:
            raise KilnIndexError(f"element {index} of {count}", op="storage")
        return widened(self._elements()[index : index + 1 or None])[0]

    def clone(self) -> Any:
        """The same elements in memory of their own."""
        from kiln.creation import from_numpy

        made = dispatch.moved(from_numpy(self._elements().copy()), self.device)
        return type(self)._of(made, self.dtype)

    def untyped(self) -> UntypedStorage:
        """The bytes."""
        made = object.__new__(UntypedStorage)
        made._buffer, made._readonly = self._buffer, self._readonly
        return made

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.size()} {self.dtype}>"


class TypedStorage(UntypedStorage):
    """The memory that a tensor and its views lie in, as elements of its dtype."""

    def __init__(self, size: int = 0, *, dtype: DType | None = None, device: Any = None) -> None:
        from kiln.creation import empty

        made = empty(size, dtype=dtype, device=device)
        self._buffer, self.dtype, self._readonly = made._buffer, made.dtype, False


def is_storage(obj: object) -> bool:
    """Whether `obj` is the storage of a tensor."""
    return isinstance(obj, UntypedStorage)


class StorageMethods(TensorBase):
    """The part of `Tensor` that deals with memory as such."""

    __slots__ = ()

    def untyped_storage(self) -> UntypedStorage:
        """The bytes that this tensor lies in."""
        _placed(self, "untyped_storage()")
        return cast("UntypedStorage", UntypedStorage._of(self, T.uint8))

    def storage(self) -> TypedStorage:
        """The memory that this tensor lies in, as elements of its dtype."""
        _placed(self, "storage()")
        return cast("TypedStorage", TypedStorage._of(self, self._layout.dtype))

    def const_data_ptr(self) -> int:
        """Address of the first element."""
        _placed(self, "const_data_ptr()")
        return self._ptr

    def is_set_to(self, tensor: TensorBase) -> bool:
        """Whether both are the same part of the same memory."""
        _placed(self, "is_set_to()")
        return self._buffer is tensor._buffer and self._ptr == tensor._ptr and self._layout is tensor._layout

    def dim_order(self) -> tuple[int, ...]:
        """The dimensions in the order in which they lie in memory, the outermost first."""
        strides = self._layout.strides
        return tuple(sorted(range(len(strides)), key=lambda d: -strides[d]))

    def set_(self: Self, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None) -> Self:
        """Let this tensor show the memory of `source`, a tensor or a storage, from element `storage_offset` on, with a
        shape and strides (row-major by default); without a source, nothing. GradError for a tensor that requires a
        gradient, InvalidValueError where elements lie outside the memory."""
        if self._flags & REQUIRES_GRAD:
            raise GradError("a tensor that requires a gradient can't be set", op="set_", operands=[self.ttype])
        _placed(self, "set_()")
        dtype = self._layout.dtype
        if source is None:
            source, size = UntypedStorage(), (0,)
        if isinstance(source, TensorBase):
            if source._layout.dtype is not dtype:
                raise DTypeError(f"the source is of {source._layout.dtype}", op="set_", operands=[self.ttype])
            if size is None:
                return _shown(self, source._buffer, source._ptr, source._layout, source._flags)
            source = StorageMethods.untyped_storage(cast("Any", source))
        if not isinstance(source, UntypedStorage):
            raise ArgumentError(f"takes a tensor or a storage, not {type(source).__name__}", op="set_")
        shape = (source.nbytes() // dtype.itemsize,) if size is None else F.size_tuple("set_", (size,))
        layout = layout_of(dtype, shape, None if stride is None else tuple(stride), source.device)
        last = storage_offset + _span(layout.shape, layout.strides)
        if storage_offset < 0 or last * dtype.itemsize > source.nbytes():
            raise InvalidValueError(f"elements {storage_offset}..{last - 1} lie outside the memory", op="set_")
        ptr = source.data_ptr() + storage_offset * dtype.itemsize
        return _shown(self, source._buffer, ptr, layout, READONLY if source._readonly else 0)

    def new_empty_strided(
        self, size: Any, stride: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
    ) -> Tensor:
        """`kiln.empty_strided`, by default of this dtype."""
        kind = self._layout.dtype if dtype is None else dtype
        return empty_strided(size, stride, dtype=kind, device=device, requires_grad=requires_grad)

    # ------------------------------------------------------------------------- Python for every element

    def apply_(self: Self, callable: Callable[[Any], Any]) -> Self:
        """Every element becomes `callable` of it. Slow, and not differentiable: for tests and small data."""
        return _mapped(self, "apply_", callable)

    def map_(self: Self, tensor: TensorBase, callable: Callable[[Any, Any], Any]) -> Self:
        """Every element becomes `callable` of it and its partner in `tensor`, which is broadcast."""
        return _mapped(self, "map_", callable, tensor)

    def map2_(self: Self, x: TensorBase, y: TensorBase, callable: Callable[[Any, Any, Any], Any]) -> Self:
        """Every element becomes `callable` of it and its partners in `x` and `y`, which are broadcast."""
        return _mapped(self, "map2_", callable, x, y)


def _placed(x: TensorBase, what: str) -> None:
    """Where a tensor lies may differ between calls that are alike in all else."""
    if MODES.recorder is not None:
        MODES.recorder.forbid(cast("Tensor", x), what)


def _shown(x: Self, buffer: Buffer, ptr: int, layout: Layout, flags: int) -> Self:
    x._buffer, x._ptr, x._layout, x._view = buffer, ptr, layout, None
    x._flags = (x._flags & ~READONLY) | (flags & READONLY)
    return x


def _mapped(x: Self, name: str, function: Callable[..., Any], *others: TensorBase) -> Self:
    from kiln.creation import tensor

    if x._flags & REQUIRES_GRAD:
        raise GradError("has no derivative", op=name, operands=[x.ttype], fix="detach() first")
    whole = [cast("Any", x), *[broadcast_to(tensor_arg(name, t), x._layout.shape) for t in others]]
    columns = [widened(t._read(name)).reshape(-1).tolist() for t in whole]
    made = [function(*values) for values in zip(*columns, strict=True)]
    dtype = x._layout.dtype
    new = tensor(made, dtype=dtype if dtype.is_inexact or not made else None)
    cast("Any", x).copy_(F.reshape(new, x._layout.shape))
    return x


def _span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first one to the last, both included."""
    return 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def empty_strided(
    size: Any, stride: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of shape `size` with strides in elements, in memory of their own. ShapeError unless there are as many
    strides as sizes, InvalidValueError for negative ones."""
    from kiln.creation import zeros

    shape, strides = F.size_tuple("empty_strided", (size,)), F.size_tuple("empty_strided", (stride,))
    if len(shape) != len(strides):
        raise ShapeError(f"{len(shape)} sizes with {len(strides)} strides", op="empty_strided")
    if any(n < 0 for n in (*shape, *strides)):
        raise InvalidValueError(f"a size or a stride is negative: {shape}, {strides}", op="empty_strided")
    memory = zeros(_span(shape, strides), dtype=dtype, device=device)
    made = dispatch.tensor_on(memory._buffer, memory._ptr, layout_of(memory.dtype, shape, strides, memory.device))
    _placed(made, "empty_strided()")
    return cast("Tensor", made.requires_grad_(requires_grad))


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A tensor on the memory of an object that shows it (bytes, bytearray, memoryview, array): `count` elements
    (-1: all) from byte `offset` on. That of read-only memory refuses in-place writes. InvalidValueError where it does
    not fit.

    >>> import kiln
    >>> kiln.frombuffer(bytearray(b"abcd"), dtype=kiln.uint8, offset=1)
    tensor([ 98,  99, 100], dtype=kiln.uint8)
    """
    from kiln.creation import from_numpy

    view = memoryview(buffer).cast("B")
    rest = len(view) - offset
    if not len(view) or not count:
        raise InvalidValueError(f"no elements: {len(view)} bytes, count {count}", op="frombuffer")
    if offset < 0 or rest <= 0:
        raise InvalidValueError(f"offset {offset} in {len(view)} bytes", op="frombuffer")
    if count < 0 and rest % dtype.itemsize:
        raise InvalidValueError(f"{rest} bytes are no whole number of {dtype} elements", op="frombuffer")
    number = rest // dtype.itemsize if count < 0 else count
    if number * dtype.itemsize > rest:
        raise InvalidValueError(f"{number} elements of {dtype} are more than {rest} bytes", op="frombuffer")
    array: np.ndarray[Any, Any] = np.frombuffer(view, dtype.numpy, number, offset)
    if not array.flags.aligned:
        raise InvalidValueError(
            f"byte {offset} is not aligned for {dtype}", op="frombuffer", fix="copy the bytes first"
        )
    made = from_numpy(array)
    return made.requires_grad_() if requires_grad else made


def seen_as(x: TensorBase, dtype: DType) -> Tensor:
    """`x.view(dtype)`: the same memory as elements of another dtype, without history. Of another size of elements, the
    last dimension, whose stride must be 1, becomes longer or shorter. ShapeError where that is not possible."""
    _placed(x, "view(dtype)")
    old, layout = x._layout.dtype, x._layout
    if dtype is T.bool_ and old is not T.bool_:
        raise NotYetError("bytes that are neither 0 nor 1 are no bools", op="view", fix="use to(kiln.bool)")
    shape, strides, here, new = list(layout.shape), list(layout.strides), old.itemsize, dtype.itemsize
    if here != new:
        ratio = max(here, new) // min(here, new)
        offset = (x._ptr - x._buffer.ptr) // here
        wrong = ""
        if not shape:
            wrong = "a 0-d tensor has no dimension to change"
        elif strides[-1] != 1 and 0 not in shape and shape[-1] != 1:
            wrong = f"the last stride is {strides[-1]}, it must be 1"
        elif here < new and (shape[-1] % ratio or offset % ratio or any(s % ratio for s in strides[:-1])):
            wrong = f"the last size, the offset and the other strides must be divisible by {ratio}"
        if wrong:
            raise ShapeError(f"{old} can't be seen as {dtype}: {wrong}", op="view", operands=[x.ttype], fix="clone()")
        up, down = max(1, here // new), max(1, new // here)
        shape[-1] = shape[-1] * up // down
        strides = [*[s * up // down for s in strides[:-1]], 1]
    if 0 in shape:
        strides = list(contiguous_strides(tuple(shape)))
    layout = layout_of(dtype, tuple(shape), tuple(strides), x.device)
    return cast("Tensor", dispatch.tensor_on(x._buffer, x._ptr, layout, x._flags & READONLY))


def grown(x: TensorBase, shape: tuple[int, ...]) -> tuple[Buffer, int, Layout]:
    """What `resize_` makes of `x`: a row-major layout from its first element on, in its memory if there is room, else
    in new memory that begins with what was there and goes on with zeros."""
    layout = layout_of(x._layout.dtype, shape, None, x._layout.device)
    begin = x._ptr - x._buffer.ptr
    if begin + layout.nbytes <= x._buffer.nbytes:
        return x._buffer, x._ptr, layout
    made = np.zeros(layout.nbytes, np.uint8)
    there = as_numpy(x._buffer, np.dtype(np.uint8), (x._buffer.nbytes - begin,), (1,), begin)
    made[: len(there)] = there
    host = dispatch.host_array(made, layout_of(T.uint8, made.shape))
    new = dispatch.moved(host, layout.device) if layout.device is not CPU else dispatch.run(OPS["copy"], (host,), {})[0]
    return new._buffer, new._ptr, layout
