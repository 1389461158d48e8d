"""Memory: a caching, 64-byte aligned allocator, and `Buffer`, bytes with an owner and a version.

Fresh pages cost several times as much as the arithmetic on them, so freed blocks are kept by size class and handed
out again. Small classes are cut from slabs; large blocks are mapped on their own, with huge pages where the
system grants them, and returned to it when too much lies idle.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np

ALIGN: Final = 64
SLAB: Final = 1 << 20
LARGE: Final = 1 << 18  # from here on a block is a mapping of its own
HUGE_PAGE: Final = 1 << 21
MAX_IDLE: Final = 1 << 30  # bytes of large free blocks that are kept
_alive = True  # None once the interpreter, as it ends, has begun to take this module apart

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_MADV_HUGEPAGE: Final = 14


def size_class(nbytes: int) -> int:
    """The block size that serves a request: multiples of 64 up to 1 KiB, then four steps per doubling."""
    if nbytes <= 1024:
        return max(ALIGN, -(-nbytes // ALIGN) * ALIGN)
    step = 1 << (nbytes - 1).bit_length() - 3
    return -(-nbytes // step) * step


def _map(nbytes: int) -> int:
    prot = mmap.PROT_READ | mmap.PROT_WRITE
    ptr = _libc.mmap(None, nbytes, prot, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if ptr is None or ptr == ctypes.c_void_p(-1).value:
        raise MemoryError(f"the system refused {nbytes:,} bytes ({idle_bytes():,} bytes lie idle in kiln's cache)")
    if nbytes >= HUGE_PAGE:
        _libc.madvise(ptr, nbytes, _MADV_HUGEPAGE)  # advice: a refusal changes nothing but speed
    return int(ptr)


_free: dict[int, list[int]] = {}
_lock = threading.Lock()
_slab = [0, 0]  # next free address, end
_idle_large = 0


def _allocate(size: int) -> int:
    """A block of exactly one size class."""
    blocks = _free.get(size)
    if blocks:
        try:
            ptr = blocks.pop()  # atomic under the interpreter lock
        except IndexError:
            pass
        else:
            if size >= LARGE:
                _count_idle(-size)
            return ptr
    if size >= LARGE:
        try:
            return _map(size)
        except MemoryError:
            release_idle()
            return _map(size)
    with _lock:
        if _slab[0] + size > _slab[1]:
            _slab[0] = _map(SLAB)
            _slab[1] = _slab[0] + SLAB
        ptr = _slab[0]
        _slab[0] += size
        return ptr


def _release(ptr: int, size: int) -> None:
    if size >= LARGE:
        if _idle_large + size > MAX_IDLE:
            _libc.munmap(ptr, size)
            return
        _count_idle(size)
    _free.setdefault(size, []).append(ptr)


def _count_idle(change: int) -> None:
    global _idle_large
    with _lock:
        _idle_large += change


def idle_bytes() -> int:
    """Bytes that are free and kept for reuse."""
    return sum(size * len(blocks) for size, blocks in list(_free.items()))


def release_idle() -> None:
    """Give all large free blocks back to the system."""
    for size, blocks in list(_free.items()):
        while size >= LARGE and blocks:
            try:
                ptr = blocks.pop()
            except IndexError:
                break
            _libc.munmap(ptr, size)
            _count_idle(-size)


class _Window:
    """What NumPy needs to look at a buffer; it keeps the buffer alive."""

    __slots__ = ("__array_interface__", "buffer")

    def __init__(self, buffer: Buffer, interface: dict[str, Any]) -> None:
        self.buffer = buffer
        self.__array_interface__ = interface


class Buffer:
    """Bytes on the CPU. `version` counts in-place writes by whoever makes them; `owner` keeps foreign memory
    alive (None for memory of this allocator, which returns to it when the buffer is collected)."""

    __slots__ = ("__weakref__", "_size", "nbytes", "owner", "ptr", "version")

    pinned: ClassVar[bool] = False
    """Whether a GPU copies from and to this memory by itself."""

    def __init__(self, ptr: int, nbytes: int, owner: object, size: int) -> None:
        self.ptr = ptr
        self.nbytes = nbytes
        self.owner = owner
        self.version = 0
        self._size = size

    @staticmethod
    def allocate(nbytes: int) -> Buffer:
        """Uninitialised memory, 64-byte aligned. MemoryError when the system has no more."""
        size = size_class(nbytes)
        return Buffer(_allocate(size), nbytes, None, size)

    @staticmethod
    def allocator(nbytes: int) -> Callable[[], Buffer]:
        """`allocate` for those who need this size often."""
        size = size_class(nbytes)
        if size >= LARGE:
            return lambda: Buffer(_allocate(size), nbytes, None, size)
        blocks = _free.setdefault(size, [])

        def take() -> Buffer:
            try:
                ptr = blocks.pop()
            except IndexError:
                ptr = _allocate(size)
            return Buffer(ptr, nbytes, None, size)

        return take

    @staticmethod
    def wrap(ptr: int, nbytes: int, owner: object) -> Buffer:
        """Memory of somebody else, kept alive through `owner`."""
        return Buffer(ptr, nbytes, owner, 0)

    def __del__(self) -> None:
        if self._size and _alive:
            _release(self.ptr, self._size)

    def as_numpy(
        self,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int = 0,
        readonly: bool = False,
    ) -> np.ndarray[Any, Any]:
        """An array over this memory (strides and offset in bytes) that keeps it alive."""
        interface = {
            "data": (self.ptr + offset, readonly),
            "shape": shape,
            "strides": strides,
            "typestr": dtype.str if dtype.kind != "V" else f"<u{dtype.itemsize}",
            "version": 3,
        }
        # The protocol has no name for the dtypes of ml_dtypes: their bits come over as integers.
        return np.asarray(_Window(self, interface)).view(dtype)
