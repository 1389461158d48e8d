"""Memory of GPUs: buffers from CuPy's pools, and copies between host and GPUs.

All on the current stream: memory that Python dropped may be reused at once, since what uses it next comes later on the
same stream. Who uses it on another stream says so (`DeviceBuffer.record_stream`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from kiln.runtime.cuda_driver import (
    ANYWHERE,
    TO_DEVICE,
    TO_HOST,
    WITHIN,
    CudaError,
    Gpu,
    Stream,
    current_device,
    gpu,
    local,
    unrecorded,
)
from kiln.runtime.memory import Buffer

LEGACY: Final = 1
"""The default stream, as other libraries number it, for whom 0 is none."""
STAGED: Final = 1 << 16
"""Bytes up to which a copy to a GPU goes through memory of kiln's own, so that nobody waits."""
STAGED_ASYNC: Final = 1 << 26  # the same where the caller asked not to wait
MOST_STAGED: Final = 1 << 28


class PinnedBuffer(Buffer):
    """Bytes of the host, which the system keeps where they are, so that GPUs copy from and to them by themselves."""

    __slots__ = ()
    pinned = True

    @staticmethod
    def allocate(nbytes: int) -> PinnedBuffer:
        """Uninitialised memory, for all GPUs. CudaError without a GPU, and when the system pins no more."""
        place = gpu(current_device())
        try:
            with place.guarded(f"pinning {nbytes:,} bytes"):
                memory = place.session.cupy.cuda.alloc_pinned_memory(max(1, nbytes))
        except CudaError as error:
            if error.kind != "memory":
                raise
            message = f"the system pins no {nbytes:,} bytes more of the host's memory"
            raise CudaError("memory", message, "pin less, or raise the limit (ulimit -l)") from None
        return PinnedBuffer(memory.ptr, nbytes, memory, 0)


class DeviceBuffer(Buffer):
    """Bytes on a GPU: `ptr` is an address of the GPU `device`."""

    __slots__ = ("_memory", "_users", "device")

    def __init__(self, ptr: int, nbytes: int, memory: Any, device: int) -> None:
        super().__init__(ptr, nbytes, None, 0)
        self._memory = memory
        self._users: dict[Stream, None] | None = None
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

    @staticmethod
    def constant(ptr: int, nbytes: int, index: int = 0) -> DeviceBuffer:
        """A copy of the host's memory that nobody will write to, for the current stream. May be made while a graph is
        recorded, which then reads it."""
        place, recording = gpu(index), local.recording
        if recording is None:
            made = DeviceBuffer.allocate(nbytes, index)
            copy_to_device(made, 0, ptr, nbytes)
            return made
        chosen, local.recording = place.stream(), None
        place.use(place.default)
        try:
            made = DeviceBuffer.allocate(nbytes, index)
            if nbytes:
                with place.guarded("placing constants"):
                    place.session.copy(made.ptr, ptr, nbytes, TO_DEVICE, place.default.ptr)
                    place.default.handle.synchronize()
        finally:
            place.use(chosen)
            local.recording = recording
        recording.keep.append(made)
        return made

    def record_stream(self, stream: Stream) -> None:
        """Work on `stream` uses this memory, which was allocated for another: when Python drops it, it is not reused
        before what that stream then has is done."""
        if self._users is None:
            self._users = {}
        self._users[stream] = None

    def __del__(self) -> None:
        if self._users:
            users = list(self._users)
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


def copy_to_device(
    dst: DeviceBuffer, dst_offset: int, src_ptr: int, nbytes: int, non_blocking: bool = False, src: Buffer | None = None
) -> None:
    """From host memory, which may be changed or freed at once afterwards. With `non_blocking` the host does not wait
    for earlier work, unless more than 64 MiB are copied that are not pinned. If they lie in a pinned buffer `src`, they
    are read when their turn comes, and are not to be changed before."""
    if nbytes == 0:
        return
    if non_blocking and src is not None and src.pinned:
        _copy_pinned(dst, dst.ptr + dst_offset, src_ptr, nbytes, TO_DEVICE, src)
        return
    if nbytes <= (STAGED_ASYNC if non_blocking else STAGED):
        copy_parts_to_device(dst, dst_offset, [(0, src_ptr, nbytes)], nbytes)
        return
    if local.recording is not None:
        unrecorded("copying from the host")
    place = gpu(dst.device)
    stream = place.stream()
    with place.guarded(f"copying {nbytes:,} bytes to the GPU"):
        place.session.copy(dst.ptr + dst_offset, src_ptr, nbytes, TO_DEVICE, stream.ptr)
        stream.wait()


def copy_parts_to_device(
    dst: DeviceBuffer, dst_offset: int, parts: Sequence[tuple[int, int, int]], nbytes: int
) -> None:
    """As one copy of `nbytes`, without a wait: several pieces (where each comes to lie, its address, its bytes)."""
    if local.recording is not None:
        unrecorded("copying from the host")
    place = gpu(dst.device)
    stream = place.stream()
    with place.guarded(f"copying {nbytes:,} bytes to the GPU"), place.staging:
        pinned = _staging(place, nbytes)
        for offset, address, size in parts:
            ctypes.memmove(pinned.ptr + offset, address, size)
        place.session.copy(dst.ptr + dst_offset, pinned.ptr, nbytes, TO_DEVICE, stream.ptr)
        event = place.new_event()
        stream.handle.record(event)
        place.staged.append((event, pinned, nbytes))
        place.staged_bytes += nbytes


def _copy_pinned(there: DeviceBuffer, dst: int, src: int, nbytes: int, kind: int, pinned: Buffer) -> None:
    """Without a wait: the pinned buffer is kept until it is done."""
    place = gpu(there.device)
    stream = place.stream()
    recording = local.recording
    with place.guarded(f"copying {nbytes:,} bytes"), place.staging:
        if recording is not None:  # replays read and write what is there then
            recording.keep += [there, pinned]
        else:
            _give_back(place)
        place.session.copy(dst, src, nbytes, kind, stream.ptr)
        if recording is None:
            event = place.new_event()
            stream.handle.record(event)
            place.staged.append((event, pinned, 0))


def _give_back(place: Gpu) -> None:
    """What copies have used that are done."""
    while place.staged and place.staged[0][0].done:
        place.staged_bytes -= place.staged.popleft()[2]


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


def copy_to_host(
    dst_ptr: int, src: DeviceBuffer, src_offset: int, nbytes: int, non_blocking: bool = False, dst: Buffer | None = None
) -> None:
    """To host memory, on the current stream. Returns when it is done; with `non_blocking`, if that lies in a pinned
    buffer `dst`, at once: what is there before the stream has come so far is not it yet."""
    if nbytes == 0:
        return
    if non_blocking and dst is not None and dst.pinned:
        _copy_pinned(src, dst_ptr, src.ptr + src_offset, nbytes, TO_HOST, dst)
        return
    if local.recording is not None:
        unrecorded("copying to the host")
    place = gpu(src.device)
    stream = place.stream()
    with place.guarded(f"copying {nbytes:,} bytes from the GPU"):
        place.session.copy(dst_ptr, src.ptr + src_offset, nbytes, TO_HOST, stream.ptr)
        stream.wait()


def copy_on_device(dst: DeviceBuffer, dst_offset: int, src: DeviceBuffer, src_offset: int, nbytes: int) -> None:
    """Within a GPU, or from one to another: after what the current streams of both have, and before what they get."""
    if nbytes == 0:
        return
    if local.recording is not None:
        if dst.device != src.device:
            unrecorded("copying to another GPU")
        local.recording.keep += [dst, src]
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


# ------------------------------------------------------------------------------------------- other libraries' memory


def foreign(ptr: int, nbytes: int, owner: object, index: int) -> DeviceBuffer:
    """Memory of another library on a GPU: `owner` is kept until nobody uses it, and what the current stream has by then
    is done."""
    made = DeviceBuffer(ptr, nbytes, owner, index)
    made.record_stream(gpu(index).stream())
    return made


def taken(index: int, ask: Callable[[int], Any]) -> Any:
    """What `ask` returns: another library hands over memory of a GPU, for a stream whose number it is told. What we do
    there comes after what it has done."""
    if local.recording is not None:
        unrecorded("taking another library's memory")
    place = gpu(index)
    with place.guarded("taking another library's memory"):
        return ask(place.stream().ptr or LEGACY)


def hand_over(buffer: DeviceBuffer, stream: int) -> None:
    """Another library's stream uses this memory from now on, after what the current stream has. When it is dropped, it
    is not reused before that stream is done, if that is the default stream or one of kiln's."""
    place = gpu(buffer.device)
    queue = place.stream()
    if stream == (queue.ptr or LEGACY):
        return
    if local.recording is not None:
        unrecorded("handing memory to another stream")
    with place.guarded("handing memory to another library"):
        event = place.new_event()
        queue.handle.record(event)
        place.session.runtime.streamWaitEvent(stream, event.ptr)
    ours = place.default if stream == LEGACY else place.known(stream)
    if ours is not None:
        buffer.record_stream(ours)
