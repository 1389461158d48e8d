"""The fake CuPy's arrays: only what shares memory with others (DLPack, the interface of CUDA's arrays), as CuPy 14.

What a capsule holds is read and written here once more, so that a mistake in kiln's own account of it shows.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any, Final

import ml_dtypes
import numpy as np

from tests.gpu import fake_cupy, fake_device
from tests.gpu.fake_device import state

CODES: Final = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
BFLOAT: Final = 4
COPIED: Final = 2
READONLY: Final = 1
given: Final[dict[int, Any]] = {}
"""What capsules hold that were made here, by address, until they are told that nobody uses it."""


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32), ("code", c_uint8),
        ("bits", c_uint8), ("lanes", c_uint16), ("shape", POINTER(c_int64)), ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )  # fmt: skip


Deleter: Final = ctypes.CFUNCTYPE(None, c_void_p)


class Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("context", c_void_p), ("deleter", Deleter))


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", c_uint32), ("minor", c_uint32), ("context", c_void_p), ("deleter", Deleter), ("flags", c_uint64),
        ("tensor", Tensor),
    )  # fmt: skip


_Destructor: Final = ctypes.CFUNCTYPE(None, c_void_p)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, c_char_p, _Destructor)(("PyCapsule_New", ctypes.pythonapi))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, c_void_p, c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(c_void_p, c_void_p, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))
_NAMES: Final = (b"dltensor", b"dltensor_versioned")
_USED: Final = (b"used_dltensor", b"used_dltensor_versioned")


@Deleter
def _delete(address: int) -> None:
    del given[address]  # once


@_Destructor
def _destroy(capsule: int) -> None:
    """Of a capsule that nobody took."""
    for name in _NAMES:
        if _is_valid(capsule, name):
            _delete(_pointer(capsule, name))


def capsule(
    data: int, dtype: np.dtype[Any], shape: Sequence[int], strides: Sequence[int] | None, *, device: tuple[int, int],
    owner: object, versioned: bool = True, flags: int = 0, byte_offset: int = 0, major: int = 1,
) -> Any:  # fmt: skip
    """A capsule; strides in elements, None for row-major ones."""
    made: Any = (Versioned if versioned else Managed)()
    if versioned:
        made.major, made.flags = major, flags
    made.deleter = _delete
    t, n = made.tensor, len(shape)
    t.data, t.byte_offset, t.ndim, t.lanes = data, byte_offset, n, 1
    t.device_type, t.device_id = device
    t.code = BFLOAT if dtype.name == "bfloat16" else CODES[dtype.kind]
    t.bits = dtype.itemsize * 8
    arrays = [(c_int64 * n)(*each) for each in (shape, strides) if each is not None]
    t.shape = arrays[0]
    if strides is not None:
        t.strides = arrays[1]
    given[ctypes.addressof(made)] = made, arrays, owner
    return _new(ctypes.addressof(made), _NAMES[versioned], _destroy)


class UnownedMemory:
    """Memory of somebody else."""

    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        if device_id < 0:
            if ptr == 0:
                raise RuntimeError("UnownedMemory requires explicit device ID for a null pointer.")
            found = state.device_of(ptr)
            assert found is not None, "an address of the host"
            device_id = found.index
        self.ptr, self.size, self.device_id, self._owner = ptr, size, device_id, owner


class DLPackMemory(UnownedMemory):
    """Memory that a capsule brought, which now is used up."""

    def __init__(self, capsule: Any) -> None:
        which = [k for k, name in enumerate(_NAMES) if _is_valid(id(capsule), name)]
        if not which:
            raise ValueError(f"A DLPack tensor object cannot be consumed multiple times. Got: {capsule!r}")
        address = _pointer(id(capsule), _NAMES[which[0]])
        self.managed: Any = (Managed, Versioned)[which[0]].from_address(address)
        _rename(capsule, _USED[which[0]])
        self.address = address
        if which[0] and self.managed.major > 1:
            raise BufferError("DLPack exported too new major version.")
        self.tensor = self.managed.tensor
        if self.tensor.device_type not in (2, 13):
            raise RuntimeError("CuPy is built against CUDA, different from the backend that backs the DLPack tensor")
        super().__init__(self.tensor.data or 0, 0, None, self.tensor.device_id)

    def __del__(self) -> None:
        if managed := getattr(self, "managed", None):
            managed.deleter(self.address)


_pool: Final = fake_cupy.MemoryPool()


class ndarray:
    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        dense = np.empty(self.shape, np.uint8).strides
        self.strides = tuple(strides) if strides is not None else tuple(s * self.dtype.itemsize for s in dense)
        self.data = _pool.malloc(self.nbytes) if memptr is None else memptr

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def _span(self) -> tuple[int, int]:
        reach = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + self.dtype.itemsize

    def _view(self, host: np.ndarray[Any, Any], low: int) -> np.ndarray[Any, Any]:
        return np.ndarray(self.shape, self.dtype, host, -low, self.strides)

    def get(self) -> np.ndarray[Any, Any]:
        """A copy on the host, after what the current stream has."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        low, high = self._span()
        host, stream = np.empty(high - low, np.uint8), fake_cupy.get_current_stream()
        fake_device.copy(host.ctypes.data, self.data.ptr + low, host.nbytes, 2, stream.ptr)
        stream.synchronize()
        return self._view(host, low).copy()

    def set(self, arr: Any) -> None:
        """Put values there, in the order of the current stream."""
        low, high = self._span()
        host = np.zeros(high - low, np.uint8)
        self._view(host, low)[...] = arr
        fake_device.copy(self.data.ptr + low, host.ctypes.data, host.nbytes, 1, fake_cupy.get_current_stream().ptr)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.data.device_id

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("unsupported device requested.")
        if copy is True:
            raise BufferError("copy=True only supported for copy to CPU.")
        current = fake_cupy.get_current_stream()
        wanted = 1 if stream is None else stream
        if wanted < -1:
            raise ValueError(f"On CUDA, the valid stream for the DLPack protocol is -1, 1, 2, or larger, but {stream}")
        if wanted == 0:
            warnings.warn("Stream 0 is passed from a library that you are converting to", stacklevel=2)
        if wanted >= 0 and (wanted or 1) != (current.ptr or 1):
            event = current.record()
            fake_cupy.streamWaitEvent(wanted, event.ptr)
        size = self.dtype.itemsize
        return capsule(
            self.data.ptr, self.dtype, self.shape, [s // size for s in self.strides],
            device=self.__dlpack_device__(), owner=self,
            versioned=max_version is not None and max_version[0] >= 1,
        )  # fmt: skip


def _dtype(t: Tensor) -> np.dtype[Any]:
    assert t.lanes == 1
    if t.code == BFLOAT:
        assert t.bits == 16
        return np.dtype(ml_dtypes.bfloat16)
    kind = next(k for k, code in CODES.items() if code == t.code)
    return np.dtype("?" if kind == "b" else f"{kind}{t.bits // 8}")


def from_dlpack(array: Any, *, device: Any = None, copy: bool | None = None) -> ndarray:
    if device is not None:
        raise NotImplementedError("from_dlpack() does not support device yet.")
    if not hasattr(array, "__dlpack_device__"):
        return _taken(array)
    kind, index = array.__dlpack_device__()
    if kind != 2:
        raise TypeError(f"Unsupported array type: {kind}")
    before = fake_cupy.getDevice()
    fake_cupy.setDevice(index)
    try:
        stream = fake_cupy.get_current_stream().ptr or 1
        return _taken(array.__dlpack__(stream=stream, max_version=(1, 0), copy=copy))
    finally:
        fake_cupy.setDevice(before)


def _taken(capsule: Any) -> ndarray:
    memory = DLPackMemory(capsule)
    t = memory.tensor
    dtype = _dtype(t)
    pointer = fake_cupy.MemoryPointer(memory, t.byte_offset)
    strides = [t.strides[k] * dtype.itemsize for k in range(t.ndim)] if t.strides else None
    return ndarray([t.shape[k] for k in range(t.ndim)], dtype, pointer, strides)


def asarray(a: Any) -> ndarray:
    """Of what has the interface of CUDA's arrays."""
    told = a.__cuda_array_interface__
    assert told["version"] == 3 and isinstance(told["shape"], tuple) and told.get("mask") is None
    ptr, readonly = told["data"]
    assert isinstance(ptr, int) and isinstance(readonly, bool)
    shape, dtype, strides = told["shape"], np.dtype(told["typestr"]), told["strides"]
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if strides is not None:
        nbytes = max([0, *(abs(n * s) for n, s in zip(shape, strides, strict=True))])
    memory = UnownedMemory(ptr, nbytes, a, fake_cupy.getDevice() if nbytes == 0 else -1)
    assert told["stream"] != 0
    if told["stream"] is not None:
        fake_cupy.streamSynchronize(told["stream"])
    return ndarray(shape, dtype, fake_cupy.MemoryPointer(memory, 0), strides)


fake_cupy._cupy.__dict__.update({f.__name__: f for f in (ndarray, asarray, from_dlpack)})
for _module in (fake_cupy._cuda, fake_cupy._memory):
    _module.__dict__["UnownedMemory"] = UnownedMemory
