"""Tensors and the world around them: Python numbers and containers, copying and pickling, NumPy, DLPack, devices.

`InteropMethods` is mixed into `Tensor`.
"""

from __future__ import annotations

import copyreg
import html
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from kiln import functional as F
from kiln import printing
from kiln.answers import contents, truth
from kiln.base import LAYERED, MODES, READONLY, REQUIRES_GRAD, TensorBase, on_memory
from kiln.device import gpu_named, placed
from kiln.errors import ArgumentError, DeviceError, DTypeError, GradError, ShapeError
from kiln.ir.halves import widened
from kiln.ir.types import CPU, Device, DType, device_named, dtype_named
from kiln.promotion import cast_to, transferred

if TYPE_CHECKING:
    from kiln.tensor import Tensor

__all__ = ["InteropMethods", "is_tensor", "numel"]

Self = TypeVar("Self", bound="InteropMethods")


class InteropMethods(TensorBase):
    """The part of `Tensor` that deals with the outside."""

    __slots__ = ()

    # ------------------------------------------------------------------------------------------- Python

    def _read(self, what: str, fold: Callable[[Any], Hashable] | None = contents) -> np.ndarray[Any, Any]:
        """The elements as a NumPy view. A capture notes that `what` asked for `fold` of them, and refuses if that is
        too much; or in any case, without one: then they stay in sight."""
        if MODES.recorder is not None:
            if fold is None:
                MODES.recorder.forbid(cast("Tensor", self), what)
            else:
                MODES.recorder.ask(cast("Tensor", self), what, fold)
        return self._array()

    def _hosted(self, what: str, fix: str = "use .cpu()") -> None:
        """DeviceError unless the memory is the CPU's."""
        if self._layout.device is not CPU:
            raise DeviceError(f"the tensor is on {self._layout.device}", op=what, operands=[self.ttype], fix=fix)

    def item(self) -> bool | int | float:
        """The only element as a Python number; ShapeError when there are more or none."""
        if self._layout.numel != 1:
            raise ShapeError("needs a tensor of one element", op="item", operands=[self.ttype], fix="use tolist()")
        return cast("bool | int | float", widened(self._read("item()")).item())

    def tolist(self) -> Any:
        """Nested lists of Python numbers; a number for a 0-d tensor."""
        return widened(self._read("tolist()")).tolist()

    def __complex__(self) -> complex:
        return complex(self.item())

    def __repr__(self, **_: Any) -> str:
        return printing.tensor_repr(cast("Tensor", self), widened(self._read("repr()")))

    def _repr_html_(self) -> str:
        """The same text in a notebook, in one width."""
        return f"<pre>{html.escape(repr(self))}</pre>"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self.ndim else format(repr(self), spec)

    # --------------------------------------------------------------------------------- copies and pickles

    def __copy__(self: Self) -> Self:
        """A new object on the same memory, with the same history."""
        made = _on_memory(type(self), self)
        made._flags |= self._flags & REQUIRES_GRAD
        made._node, made._index, made._view = self._node, self._index, self._view
        _set_attributes(made, attributes_of(self))
        return made

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        """A leaf with a copy of the data and of the gradient. GradError for other tensors than leaves."""
        if self._node is not None:
            raise GradError("only leaves can be deep-copied", op="deepcopy", operands=[self.ttype], fix="detach()")
        known: Self | None = memo.get(id(self))
        if known is not None:
            return known
        source = cast("Tensor", self)
        made = memo[id(self)] = _on_memory(type(self), F.clone(source.detach()))
        made._flags = self._flags & REQUIRES_GRAD
        if source.grad is not None:
            cast("Tensor", made).grad = source.grad.__deepcopy__(memo)
        _set_attributes(made, deepcopy(attributes_of(self), memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled by value: dtype, shape, elements and device, contiguous, `requires_grad`; without history and
        gradient."""
        array = np.ascontiguousarray(self._read("pickle")).reshape(self.shape)
        bits = array if array.dtype.isbuiltin == 1 else array.view(f"u{array.itemsize}")
        state = (type(self), self.dtype.name, bits, bool(self._flags & REQUIRES_GRAD), attributes_of(self))
        return _unpickled, state if self._layout.device is CPU else (*state, str(self._layout.device))

    # -------------------------------------------------------------------------------------------- NumPy

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """A NumPy array on the same memory. GradError when gradients are required: detach() first, or `force`.
        DeviceError for a tensor on another device than the CPU, of which `force` gives a copy."""
        if cast("Tensor", self).requires_grad and not force:
            raise GradError("numpy() on a tensor that requires a gradient", fix="use detach().numpy()")
        if not force:
            self._hosted("numpy")
        return self._read("numpy()", None)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise DTypeError(f"{self.dtype} as {dtype} needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """What NumPy's functions make of tensors is a tensor, where there is a dtype for it."""
        from kiln import creation

        return creation.from_numpy(np.asarray(array))

    # ------------------------------------------------------------------------------------------- DLPack

    def __dlpack_device__(self) -> tuple[int, int]:
        """(1, 0): the CPU; (2, n): GPU number n."""
        device = self._layout.device
        return (1, 0) if device is CPU else (2, device.slot)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule on this memory, which stays alive as long as whoever takes it; a copy of it if `copy` says so or
        `dl_device` is another device than the tensor's.

        `stream` is the taker's, of a GPU (None or 1: the default stream; -1: no order is wanted): what it does comes
        after what the current stream has. ExportError for read-only memory unless the taker knows of it
        (`max_version`), GradError where gradients are required.
        """
        from kiln import exchange

        return exchange.exported(cast("Tensor", self), stream, max_version, dl_device, copy)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """How other libraries (`cupy.asarray(x)`) find memory of a GPU, version 3: they share it, and wait for the work
        of the current stream. AttributeError for tensors on the CPU, GradError where gradients are required."""
        from kiln import exchange

        return exchange.array_interface(cast("Tensor", self))

    # ------------------------------------------------------------------------------- devices and dtypes

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """to(dtype), to(device), to(device, dtype), to(other), each with non_blocking and copy: with another dtype, on
        another device; the very tensor if nothing changes and `copy` is False. With `non_blocking`, memory that
        `pin_memory` gave may still be read after the call returned. DeviceError for a device that is not there."""
        dtype, device, non_blocking, copy = _target("to", args, kwargs)
        source = cast("Tensor", self)
        converted = source if dtype is None else cast_to(source, dtype)
        if device is not None and device is not self._layout.device:
            return transferred(converted, device, non_blocking)
        return F.clone(converted) if copy and converted is source else converted

    def cpu(self, memory_format: Any = None) -> Tensor:
        """This tensor on the CPU; itself if it is there."""
        del memory_format
        return transferred(self, CPU)

    def cuda(self, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
        """This tensor on a GPU (the current one unless told); itself if it is there. DeviceError when there is none."""
        del memory_format
        return transferred(self, gpu_named("cuda", device), non_blocking)

    @property
    def is_cuda(self) -> bool:
        """Whether the memory is a GPU's."""
        return self._layout.device.kind == "cuda"

    @property
    def is_cpu(self) -> bool:
        """Whether the memory is the CPU's."""
        return self._layout.device is CPU

    def get_device(self) -> int:
        """The number of the GPU that has the memory; -1 for the CPU."""
        return -1 if self._layout.device is CPU else self._layout.device.slot

    def record_stream(self, stream: Any) -> None:
        """Let the memory, once this tensor is gone, be used again only when `stream` has done what it was told so far.
        ArgumentError for a tensor on the CPU, or what is no `kiln.cuda.Stream`."""
        if self._layout.device is CPU:
            raise ArgumentError("the tensor is on the CPU", op="record_stream", operands=[self.ttype])
        queue = getattr(stream, "queue", None)
        if queue is None:
            raise ArgumentError(f"expected a kiln.cuda.Stream, got a {type(stream).__name__}", op="record_stream")
        cast("Any", self._buffer).record_stream(queue)

    def is_same_size(self, other: Tensor) -> bool:
        """Whether the shapes are equal."""
        return self.shape == other.shape

    # ---------------------------------------------------------------------------------- tensors like it

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """A new tensor of `data`, by default of this one's dtype, on its device."""
        from kiln import creation

        kind = self.dtype if dtype is None else dtype
        there = self.device if device is None else device
        return creation.tensor(data, dtype=kind, device=there, requires_grad=requires_grad)

    def new_full(
        self, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
    ) -> Tensor:
        """`fill_value` in a shape, by default of this one's dtype, on its device."""
        from kiln import creation

        kind = self.dtype if dtype is None else dtype
        there = self.device if device is None else device
        return creation.like(self, creation.full(size, fill_value, dtype=kind, device=there), requires_grad)

    def new_zeros(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """Zeros of a shape, by default of this one's dtype."""
        shape = F.size_tuple("new_zeros", size)
        return self.new_full(shape, 0, dtype=dtype, device=device, requires_grad=requires_grad)

    def new_ones(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """Ones of a shape, by default of this one's dtype."""
        shape = F.size_tuple("new_ones", size)
        return self.new_full(shape, 1, dtype=dtype, device=device, requires_grad=requires_grad)

    def new_empty(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """Zeros, as `kiln.empty` gives them."""
        return self.new_zeros(*size, dtype=dtype, device=device, requires_grad=requires_grad)


def _target(op: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[DType | None, Device | None, bool, bool]:
    """The dtype and the device (None: as it is), whether not to wait and whether to copy, of the arguments of `to`."""
    known = ("device", "dtype", "other", "non_blocking", "copy", "memory_format")
    for name in kwargs:
        if name not in known:
            raise ArgumentError(f"has no argument {name}", op=op, fix=f"it has {', '.join(known)}")
    flags = [x for x in args if isinstance(x, bool)]
    wanted = [x for x in args if not isinstance(x, bool)] + [
        kwargs[k] for k in ("device", "dtype", "other") if kwargs.get(k) is not None
    ]
    dtype: DType | None = None
    device: Device | None = None
    for x in wanted:
        if isinstance(x, DType):
            dtype = x
        elif isinstance(x, TensorBase):
            dtype, device = x.dtype, x.device
        elif isinstance(x, (str, int, Device)):
            device = placed(op, x)
        elif x is not None:
            raise ArgumentError(f"takes dtypes, devices and tensors, not {type(x).__name__}", op=op)
    if not wanted and not flags and not kwargs:
        raise ArgumentError("takes a dtype, a device or a tensor", op=op)
    non_blocking = bool(flags[0] if flags else kwargs.get("non_blocking", False))
    return dtype, device, non_blocking, bool(flags[1] if len(flags) > 1 else kwargs.get("copy", False))


# -------------------------------------------------------------------------------------- copies and pickles


def _on_memory(cls: type[Self], source: TensorBase) -> Self:
    """A tensor of class `cls` on the memory of `source`, without history."""
    made: Self = on_memory(cls, source._buffer, source._ptr, source._layout, source._flags & READONLY)
    return made


def attributes_of(t: Any) -> dict[str, Any]:
    """What a subclass added to its instances."""
    slots = [name for name in copyreg._slotnames(type(t)) if name not in TensorBase.__slots__]  # type: ignore[attr-defined]
    return {**getattr(t, "__dict__", {}), **{name: getattr(t, name) for name in slots if hasattr(t, name)}}


def _set_attributes(t: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        object.__setattr__(t, name, value)


def _unpickled(
    cls: Any, dtype: str, bits: np.ndarray[Any, Any], requires_grad: bool, attributes: Any, device: str = "cpu"
) -> Any:
    """The other end of `__reduce_ex__`."""
    from kiln import creation, dispatch

    array = np.array(bits).view(dtype_named(dtype).numpy)  # memory of its own, which may be written
    made: Any = _on_memory(cls, dispatch.moved(creation.from_numpy(array), placed("unpickle", device_named(device))))
    made._flags = REQUIRES_GRAD if requires_grad else 0
    _set_attributes(made, attributes)
    return made


# ------------------------------------------------------------------------------------------------ functions


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a tensor."""
    return isinstance(obj, TensorBase)


def numel(input: Tensor) -> int:
    """Number of elements."""
    return input.numel()


def truth_of(x: Tensor) -> bool:
    """bool(x); ShapeError unless it has one element."""
    if x._layout.numel != 1:
        raise ShapeError(
            "the truth of a tensor of more than one element, or none, is ambiguous",
            operands=[x.ttype],
            fix="use .any() or .all()",
        )
    if MODES.recorder is None or x._flags & LAYERED:
        return truth(x._read("bool()", truth))
    return bool(MODES.recorder.ask(x, "bool()", truth))


def real_item(x: Tensor, to: str) -> Any:
    """The only element; DTypeError for a complex number with an imaginary part (PyTorch's rule)."""
    value = x.item()
    if not isinstance(value, complex):
        return value
    if value.imag:
        raise DTypeError(f"{value} has an imaginary part, {to}() takes none", operands=[x.ttype], fix=f"{to}(x.real)")
    return value.real
