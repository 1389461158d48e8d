"""Tensors that other libraries share: DLPack, on CPUs through NumPy, and the interface of CUDA's arrays.

Nobody copies, nobody waits: whoever takes memory of a GPU names a stream of its own, and whoever gives it lets that
stream come after its own. The memory lives as long as somebody has it.
https://data-apis.org/array-api/latest/API_specification/generated/array_api.array.__dlpack__.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from kiln import dispatch, there
from kiln.base import READONLY, layout_of
from kiln.device import placed
from kiln.errors import ArgumentError, DeviceError, ExportError, GradError, InvalidValueError, from_cuda
from kiln.ir.types import CPU, Device, bfloat16, device_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from kiln.base import Layout
    from kiln.runtime.dlpack import Taken
    from kiln.tensor import Tensor

__all__ = ["from_dlpack"]

_CPU, _CUDA, _PINNED = 1, 2, 3
"""Kinds of devices; the last is the host's memory, too."""
_KINDS: Final = {13: "memory that CPU and GPU share (cudaMallocManaged)", 10: "an AMD GPU", 8: "Metal", 7: "Vulkan"}
_NO_SYNC: Final = -1


# ------------------------------------------------------------------------------------------------------------ giving


def exported(
    t: Tensor,
    stream: int | None,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> Any:
    """`Tensor.__dlpack__`."""
    if t.requires_grad:
        raise GradError("a tensor that requires a gradient can't be exported", op="__dlpack__", fix="use detach()")
    own = t.__dlpack_device__()
    target = own if dl_device is None else (int(dl_device[0]), int(dl_device[1]))
    if own == target == (_CPU, 0):
        _no_stream(stream)
        array = t._read("__dlpack__", None)
        if t.dtype is not bfloat16:
            given: dict[str, Any] = {"max_version": max_version, "dl_device": dl_device, "copy": copy}
            return _refused(t, lambda: array.__dlpack__(**{k: v for k, v in given.items() if v is not None}))
        if copy:
            t = t.clone()
            array = t._read("__dlpack__", None)
        return _capsule(t, array, own, max_version, bool(copy))
    t.data_ptr()  # which is an error in captures and transforms
    if target != own:
        if copy is False:
            raise ExportError(
                f"a tensor on {t.device} can't be given on {_named(target)} without a copy",
                op="__dlpack__", operands=[t.ttype], fix="leave dl_device out, or copy=None",
            )  # fmt: skip
        return _given(t.to(_device(target)), stream, max_version, True)
    return _given(t.clone() if copy else t, stream, max_version, bool(copy))


def _given(t: Tensor, stream: int | None, max_version: tuple[int, int] | None, copied: bool) -> Any:
    """A capsule on the very memory of a tensor."""
    if t._layout.device is CPU:  # the stream is that of the device it came from, for which the copy has waited
        return exported(t, None, max_version, None, None)
    from kiln.runtime import cuda

    number, buffer = _number(stream), cast("Any", t._buffer)
    if number != _NO_SYNC:
        try:
            cuda.hand_over(buffer, number)
        except cuda.CudaError as error:
            raise from_cuda(error, "__dlpack__") from None
    return _capsule(t, buffer, t.__dlpack_device__(), max_version, copied)


def _capsule(
    t: Tensor, owner: object, place: tuple[int, int], max_version: tuple[int, int] | None, copied: bool
) -> Any:
    from kiln.runtime import dlpack

    layout, size = t._layout, t._layout.dtype.itemsize
    return _refused(
        t,
        lambda: dlpack.exported(
            owner,
            place,
            t._ptr,
            layout.dtype.numpy,
            layout.shape,
            tuple([s * size for s in layout.strides]),
            readonly=bool(t._flags & READONLY),
            versioned=max_version is not None and max_version[0] >= 1,
            copied=copied,
        ),
    )


def _refused(t: Tensor, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except BufferError as error:
        raise ExportError(str(error), op="__dlpack__", operands=[t.ttype], fix="pass max_version=(1, 0)") from None


def _number(stream: Any) -> int:
    """A taker's stream as CUDA numbers it; -1 for no order."""
    if stream is None:
        return 1
    if isinstance(stream, bool) or not isinstance(stream, int):
        raise ArgumentError(f"a stream is told by its number, not by a {type(stream).__name__}", op="__dlpack__")
    if stream < _NO_SYNC or stream == 0:
        fix = "1 is the default stream, 2 that of the thread, -1 none"
        raise InvalidValueError(f"there is no stream {stream} in DLPack", op="__dlpack__", fix=fix)
    return stream


def _no_stream(stream: Any) -> None:
    if stream not in (None, _NO_SYNC):
        raise DeviceError("there are no streams on the CPU", op="__dlpack__")


def _device(place: tuple[int, int]) -> Device:
    if place == (_CPU, 0):
        return CPU
    if place[0] == _CUDA:
        return placed("__dlpack__", device_at("cuda", place[1]))
    raise ExportError(f"there are no tensors on {_named(place)}", op="__dlpack__", fix="(1, 0): the CPU, (2, n): GPU n")


def _named(place: tuple[int, int]) -> str:
    kind, number = place
    if kind in (_CPU, _CUDA):
        return "the CPU" if kind == _CPU else f"cuda:{number}"
    return _KINDS.get(kind, f"a device of type {kind}, number {number}")


def array_interface(t: Tensor) -> dict[str, Any]:
    """`Tensor.__cuda_array_interface__`."""
    layout = t._layout
    if layout.device is CPU:
        raise AttributeError("__cuda_array_interface__ is what tensors on a GPU have")
    if t.requires_grad:
        fix = "use detach()"
        raise GradError("a tensor that requires a gradient can't be exported", op="cuda_array_interface", fix=fix)
    from kiln.cuda import current_stream

    address = t.data_ptr() if layout.numel else 0
    strides = None if layout.contiguous else tuple([n * layout.dtype.itemsize for n in layout.strides])
    return {
        "version": 3,
        "shape": layout.shape,
        "typestr": layout.dtype.numpy.str,
        "descr": layout.dtype.numpy.descr,
        "data": (address, bool(t._flags & READONLY)),
        "strides": strides,
        "stream": current_stream(layout.device).cuda_stream or 1,  # 1: the default stream, as there is no 0
    }


# ------------------------------------------------------------------------------------------------------------ taking


class _Capsule:
    """A bare DLPack capsule as the object that NumPy expects."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        from kiln.runtime import dlpack

        try:
            return dlpack.place_of(self._capsule)
        except BufferError as error:
            raise ExportError(str(error), op="from_dlpack") from None


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of another library's tensor, on the CPU or a GPU, or of a DLPack capsule; a copy of it if
    `copy`, or on another `device` than it is on.

    The memory lives as long as the tensor, and the current stream comes after what the other library has done. Who
    passes a capsule sees to that order. DeviceError for memory of other devices, ArgumentError for other objects,
    ExportError for capsules that were used, and where `copy=False` can't be kept.

    ```python
    x = kiln.from_dlpack(cupy.arange(6))     # on a GPU, without a copy
    y = torch.from_dlpack(x * 2)
    ```
    """
    target = None if device is None else placed("from_dlpack", device)
    source = ext_tensor
    if type(source).__name__ == "PyCapsule":
        source = _Capsule(source)
    if not hasattr(source, "__dlpack__"):
        raise ArgumentError(f"a {type(source).__name__} does not export DLPack", op="from_dlpack")
    kind, number = map(int, source.__dlpack_device__())
    made = _taken(source, kind, number)
    if copy is False and target is not None and target is not made.device:
        raise ExportError(f"a tensor on {made.device} can't be on {target} without a copy", op="from_dlpack")
    made = made.clone() if copy else made
    return made if target is None else made.to(target)


def _taken(source: Any, kind: int, number: int) -> Tensor:
    """A tensor on the memory of `source`."""
    if kind not in (_CPU, _PINNED, _CUDA):
        raise DeviceError(
            f"the tensor is on {_named((kind, number))}, of which kiln takes no memory",
            op="from_dlpack", fix="move it to the CPU or a GPU of CUDA's",
        )  # fmt: skip
    from kiln.runtime import dlpack

    def ask(**how: Any) -> Any:
        if not dlpack.VERSIONED:
            return source.__dlpack__(**how)
        try:
            return source.__dlpack__(max_version=dlpack.VERSION, **how)
        except TypeError:  # from before there were versions
            return source.__dlpack__(**how)

    try:
        if kind != _CUDA:
            return _on_host(dlpack.Taken(ask()))
        there.check(device_at("cuda", number), "from_dlpack")
        return _on_gpu(dlpack.Taken(ask() if isinstance(source, _Capsule) else _in_order(number, ask)))
    except BufferError as error:
        raise ExportError(str(error), op="from_dlpack") from None


def _in_order(number: int, ask: Callable[..., Any]) -> Any:
    """What a library hands over, after what it has done there."""
    from kiln.runtime import cuda

    try:
        return cuda.taken(number, lambda stream: ask(stream=stream))
    except cuda.CudaError as error:
        raise from_cuda(error, "from_dlpack") from None


def _on_host(taken: Taken) -> Tensor:
    from kiln import creation

    if taken.kind == _CUDA:
        raise ExportError("a GPU's memory, of which its library says that it is the CPU's", op="from_dlpack")
    return creation.from_numpy(taken.array.view(bfloat16.numpy) if taken.bfloat16 else taken.array)


def _on_gpu(taken: Taken) -> Tensor:
    from kiln import creation

    if taken.kind != _CUDA:
        raise ExportError("the CPU's memory, of which its library says that it is a GPU's", op="from_dlpack")
    dtype = bfloat16 if taken.bfloat16 else creation.numpy_dtype(taken.dtype)
    size, device = dtype.itemsize, device_at("cuda", taken.device)
    if 0 in taken.shape:
        return creation.zeros(taken.shape, dtype=dtype, device=device)
    steps = [(s, n) for s, n in zip(taken.strides, taken.shape, strict=True) if n > 1]
    if any(s < 0 or s % size for s, _ in steps) or taken.ptr % size:
        raise InvalidValueError("negative or unaligned strides", op="from_dlpack", fix="copy it first, where it is")
    strides = tuple([s // size if n > 1 else 1 for s, n in zip(taken.strides, taken.shape, strict=True)])
    span = size * (1 + sum((n - 1) * s // size for s, n in steps))
    from kiln.runtime import cuda

    buffer = cuda.foreign(taken.ptr, span, taken.array, taken.device)
    flags = READONLY if taken.readonly else 0
    made: Tensor = dispatch.tensor_on(buffer, taken.ptr, _layout(dtype, taken.shape, strides, device), flags)
    return made


def _layout(dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], device: Device) -> Layout:
    """Row-major strides where these are, but for dimensions of one element."""
    dense = layout_of(dtype, shape, None, device)
    same = all(n == 1 or a == b for n, a, b in zip(shape, strides, dense.strides, strict=True))
    return dense if same else layout_of(dtype, shape, strides, device)
