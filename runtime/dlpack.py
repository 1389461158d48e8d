"""DLPack: NumPy makes and takes the capsules, of a GPU's memory as arrays at addresses that nobody reads, and what it
can't say (where the memory is, bfloat16) is written into them here.

So who keeps whom alive is NumPy's affair: a capsule holds the array that it was made of, an array the capsule that it
came from, and these the memory.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any, Final

import numpy as np

CPU: Final = 1
CUDA: Final = 2
PINNED: Final = 3
"""Kinds of devices (kDLCPU, kDLCUDA, kDLCUDAHost)."""
VERSION: Final = (1, 0)
"""The newest that is made, and that others are asked for."""
_UNSIGNED, _BFLOAT = 1, 4
_COPIED: Final = 2
VERSIONED: Final = np.lib.NumpyVersion(np.__version__) >= "2.1.0"
"""Whether NumPy knows of versions; before, no capsule has one."""


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("byte_offset", c_uint64),
    )


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned. DLManagedTensor begins with the tensor."""

    _fields_ = (
        ("major", c_uint32),
        ("minor", c_uint32),
        ("context", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", _Tensor),
    )


_name: Any = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_pointer: Any = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _opened(capsule: Any) -> tuple[_Tensor, _Versioned | None]:
    """What a capsule that nobody has taken holds. BufferError."""
    name = _name(capsule)
    if name == b"dltensor":
        return _Tensor.from_address(_pointer(capsule, name)), None
    if name != b"dltensor_versioned":
        raise BufferError(f"a capsule that holds no tensor any more, or never did ({name!r})")
    managed = _Versioned.from_address(_pointer(capsule, name))
    if managed.major > VERSION[0]:
        raise BufferError(f"version {managed.major}.{managed.minor} of DLPack, and kiln knows {VERSION[0]}.x")
    return managed.tensor, managed


class _Window:
    """What NumPy needs to make an array of foreign addresses; keeps `owner` alive."""

    def __init__(self, owner: object, interface: dict[str, Any]) -> None:
        self.owner = owner
        self.__array_interface__ = interface


class _Capsule:
    """A bare capsule as the object that NumPy expects."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0


def exported(
    owner: object,
    place: tuple[int, int],
    ptr: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    readonly: bool,
    versioned: bool,
    copied: bool,
) -> Any:
    """A capsule over elements that begin at `ptr`, in memory of a device that `owner` keeps (strides in bytes).
    BufferError for read-only memory, which only a `versioned` one can say; `copied`, which only such a one says:
    nobody else has this memory."""
    bfloat16 = dtype.name == "bfloat16"
    interface = {
        "data": (ptr, readonly),
        "shape": shape,
        "strides": strides,
        "typestr": "<u2" if bfloat16 else dtype.str,
        "version": 3,
    }
    array = np.asarray(_Window(owner, interface))
    capsule = array.__dlpack__(max_version=VERSION) if versioned and VERSIONED else array.__dlpack__()
    tensor, managed = _opened(capsule)
    tensor.data = ptr if 0 not in shape else None
    tensor.device_type, tensor.device_id = place
    if bfloat16:
        tensor.code = _BFLOAT
    if managed is not None and copied:
        managed.flags |= _COPIED
    return capsule


def place_of(capsule: Any) -> tuple[int, int]:
    """The kind of device that a capsule's memory is of, and its number. BufferError."""
    tensor, _ = _opened(capsule)
    return tensor.device_type, tensor.device_id


class Taken:
    """A tensor on the CPU or a GPU that a capsule brought: from now on it is ours. BufferError for other devices, and
    for types of elements that NumPy lacks but bfloat16 (which `array` has as integers). `strides` are in bytes."""

    def __init__(self, capsule: Any) -> None:
        tensor, managed = _opened(capsule)
        kind, index = tensor.device_type, tensor.device_id
        if kind not in (CPU, PINNED, CUDA):
            raise BufferError(f"memory of a device of type {kind}, which is neither the CPU nor a GPU of CUDA's")
        if managed is not None and not VERSIONED:
            raise BufferError(f"a capsule with a version, which NumPy {np.__version__} does not know (2.1 does)")
        code = tensor.code
        self.bfloat16 = code == _BFLOAT and tensor.bits == 16
        tensor.device_type, tensor.device_id = CPU, 0
        tensor.code = _UNSIGNED if self.bfloat16 else code
        try:
            array = np.from_dlpack(_Capsule(capsule))
        except (BufferError, RuntimeError) as error:  # the capsule still is somebody's
            tensor.device_type, tensor.device_id, tensor.code = kind, index, code
            raise BufferError(str(error)) from None
        self.kind: int = kind
        self.device: int = index
        self.dtype = array.dtype
        self.shape, self.strides = array.shape, array.strides
        self.ptr = int(array.__array_interface__["data"][0])
        self.readonly = managed is not None and not array.flags.writeable  # NumPy is in doubt about others
        self.array = array
        """Keeps the memory until it is dropped; not to be read where that is a GPU's."""
