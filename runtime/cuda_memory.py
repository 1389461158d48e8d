"""Memory of GPUs: buffers from CuPy's pools, and copies between host and GPUs.

All on the current stream: memory that Python dropped may be reused at once, since what uses it next comes later on the
same stream. Who uses it on another stream says so (`DeviceBuffer.record_stream`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from kiln.runtime.cuda_driver import ANYWHERE, TO_DEVICE, TO_HOST, WITHIN, Gpu, Stream, gpu
from kiln.runtime.memory import Buffer

STAGED: Final = 1 << 16
"""Bytes up to which a copy to a GPU goes through memory of kiln's own, so that nobody waits."""
STAGED_ASYNC: Final = 1 << 26  # the same where the caller asked not to wait
MOST_STAGED: Final = 1 << 28


class DeviceBuffer(Buffer):
    """Bytes on a GPU: `ptr` is an address of the GPU `device`."""

    __slots__ = ("_memory", "_users", "device")

    def __init__(self, ptr: int, nbytes: int, memory: Any, device: int) -> None:
        super().__init__(ptr, nbytes, None, 0)
        self._memory = memory
        self._users: dict[int, Stream] | None = None
        self.device = device

    @staticmethod
    def allocate(nbytes: int, index: int = 0) -> DeviceBuffer:
        """Uninitialised memory, 512-byte aligned, for the current stream. CudaError of kind "memory" when there is no
        more."""
        return DeviceBuffer.allocator(nbytes, index)()

    @staticmethod
    def allocator(nbytes: int, index: int = 0) -> Callable[[], DeviceBuffer]:
        """`allocate` for those who need this size often."""
        place = gpu(index)

        def take() -> DeviceBuffer:
            if place.fault:
                place.check()
            before = place.enter()
            try:
                memory = place.malloc(nbytes, place.stream())
            finally:
                place.leave(before)
            return DeviceBuffer(memory.ptr, nbytes, memory, index)

        return take

    def record_stream(self, stream: Stream) -> None:
        """Work on `stream` uses this memory, which was allocated for another: when Python drops it, it is not reused
        before what that stream then has is done."""
        if self._users is None:
            self._users = {}
        self._users[stream.ptr] = stream

    def __del__(self) -> None:
        if self._users:
            users = list(self._users.values())
            users[0].device.lend(users, self._memory)

    def as_numpy(
        self,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int = 0,
        readonly: bool = True,
    ) -> np.ndarray[Any, Any]:
        """A copy on the host (strides and offset in bytes), read-only whatever `readonly` says: writing to it would not
        write to the GPU. Waits for the current stream."""
        if 0 in shape:
            made = np.empty(shape, dtype)
            made.flags.writeable = False
            return made
        reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
        first = sum(r for r in reach if r < 0)
        last = sum(r for r in reach if r > 0) + dtype.itemsize
        host = np.empty(last - first, np.uint8)
        copy_to_host(host.ctypes.data, self, offset + first, last - first)
        host.flags.writeable = False
        return np.ndarray(shape, dtype, host, -first, strides)


def copy_to_device(dst: DeviceBuffer, dst_offset: int, src_ptr: int, nbytes: int, non_blocking: bool = False) -> None:
    """From host memory, which may be changed or freed at once afterwards. With `non_blocking` the host does not wait
    for earlier work, unless more than 64 MiB are copied."""
    if nbytes == 0:
        return
    place = gpu(dst.device)
    stream = place.stream()
    with place.guarded(f"copying {nbytes:,} bytes to the GPU"):
        if nbytes <= (STAGED_ASYNC if non_blocking else STAGED):
            with place.staging:
                pinned = _staging(place, nbytes)
                ctypes.memmove(pinned.ptr, src_ptr, nbytes)
                place.session.copy(dst.ptr + dst_offset, pinned.ptr, nbytes, TO_DEVICE, stream.ptr)
                event = place.new_event()
                stream.handle.record(event)
                place.staged.append((event, pinned, nbytes))
                place.staged_bytes += nbytes
        else:
            place.session.copy(dst.ptr + dst_offset, src_ptr, nbytes, TO_DEVICE, stream.ptr)
            stream.wait()


def _staging(place: Gpu, nbytes: int) -> Any:
    """Pinned memory, after what copies have read is given back."""
    while place.staged:
        event, _, size = place.staged[0]
        if not event.done:
            if place.staged_bytes + nbytes <= MOST_STAGED:
                break
            event.synchronize()
        place.staged.popleft()
        place.staged_bytes -= size
    return place.session.cupy.cuda.alloc_pinned_memory(nbytes)


def copy_to_host(dst_ptr: int, src: DeviceBuffer, src_offset: int, nbytes: int) -> None:
    """To host memory, on the current stream. Returns when it is done."""
    if nbytes == 0:
        return
    place = gpu(src.device)
    stream = place.stream()
    with place.guarded(f"copying {nbytes:,} bytes from the GPU"):
        place.session.copy(dst_ptr, src.ptr + src_offset, nbytes, TO_HOST, stream.ptr)
        stream.wait()


def copy_on_device(dst: DeviceBuffer, dst_offset: int, src: DeviceBuffer, src_offset: int, nbytes: int) -> None:
    """Within a GPU, or from one to another: after what the current streams of both have, and before what they get."""
    if nbytes == 0:
        return
    place = gpu(src.device)
    stream = place.stream()
    with place.guarded(f"copying {nbytes:,} bytes"):
        if dst.device == src.device:
            place.session.copy(dst.ptr + dst_offset, src.ptr + src_offset, nbytes, WITHIN, stream.ptr)
            return
        other = gpu(dst.device)
        there = other.stream()
        with other.guarded("waiting for another GPU"):
            ready = other.new_event()
            there.handle.record(ready)
        stream.handle.wait_event(ready)
        place.session.copy(dst.ptr + dst_offset, src.ptr + src_offset, nbytes, ANYWHERE, stream.ptr)
        done = place.new_event()
        stream.handle.record(done)
        with other.guarded("waiting for another GPU"):
            there.handle.wait_event(done)
