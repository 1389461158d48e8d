"""GPUs that are none: memory of their own, streams, events, launches, as CUDA's runtime has them.

A device address is the address of guarded memory with bits set that no real address has: the host can't read what it
forgot to copy, nor a kernel what is the host's or another device's. Work is done as it is issued; in deferred mode only
when somebody waits for it, and then no more of it than was waited for, so that a missing wait shows.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

from tests.gpu import shim

ERRORS: Final = {
    1: ("InvalidValue", "INVALID_VALUE", "invalid argument"),
    2: ("MemoryAllocation", "OUT_OF_MEMORY", "out of memory"),
    3: ("InitializationError", "NOT_INITIALIZED", "initialization error"),
    21: ("InvalidMemcpyDirection", "UNKNOWN", "invalid copy direction for memcpy"),
    35: (
        "InsufficientDriver",
        "STUB_LIBRARY",
        "CUDA driver version is insufficient for CUDA runtime version",
    ),
    100: ("NoDevice", "NO_DEVICE", "no CUDA-capable device is detected"),
    101: ("InvalidDevice", "INVALID_DEVICE", "invalid device ordinal"),
    201: ("DeviceUninitialized", "INVALID_CONTEXT", "invalid device context"),
    200: ("InvalidKernelImage", "INVALID_IMAGE", "device kernel image is invalid"),
    209: ("NoKernelImageForDevice", "NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"),
    301: ("FileNotFound", "FILE_NOT_FOUND", "file not found"),
    400: ("InvalidResourceHandle", "INVALID_HANDLE", "invalid resource handle"),
    500: ("SymbolNotFound", "NOT_FOUND", "named symbol not found"),
    600: ("NotReady", "NOT_READY", "device not ready"),
    700: ("IllegalAddress", "ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    719: ("LaunchFailure", "LAUNCH_FAILED", "unspecified launch failure"),
    900: (
        "StreamCaptureUnsupported",
        "STREAM_CAPTURE_UNSUPPORTED",
        "operation not permitted when stream is capturing",
    ),
    901: (
        "StreamCaptureInvalidated",
        "STREAM_CAPTURE_INVALIDATED",
        "operation failed due to a previous error during capture",
    ),
    903: (
        "StreamCaptureUnmatched",
        "STREAM_CAPTURE_UNMATCHED",
        "capture was not ended in the same stream as it began",
    ),
    904: (
        "StreamCaptureUnjoined",
        "STREAM_CAPTURE_UNJOINED",
        "capturing stream has unjoined work",
    ),
    905: (
        "StreamCaptureIsolation",
        "STREAM_CAPTURE_ISOLATION",
        "dependency created on uncaptured work in another stream",
    ),
    907: ("CapturedEvent", "CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"),
}
_TAG: Final = 1 << 52
F = TypeVar("F", bound=Callable[..., Any])
NULL_STREAMS: Final = (0, 1)
PER_THREAD: Final = 2


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int, detail: str = "") -> None:
        self.status = status
        super().__init__(f"cudaError{ERRORS[status][0]}: {ERRORS[status][2]}")
        if detail:
            self.add_note(detail)


class CUDADriverError(RuntimeError):
    def __init__(self, status: int, detail: str = "") -> None:
        self.status = status
        super().__init__(f"CUDA_ERROR_{ERRORS[status][1]}: {ERRORS[status][2]}")
        if detail:
            self.add_note(detail)


class Work:
    """Something that a device was told to do, and what must be done before."""

    __slots__ = ("after", "device", "done", "run", "time")

    def __init__(self, device: Device, run: Callable[[], None], after: list[Work]) -> None:
        self.device, self.run, self.after = device, run, after
        self.done = False
        self.time = 0.0


class Capture:
    """What streams are given between the begin and the end of a capture on one of them, in that order."""

    def __init__(self, origin: StreamState) -> None:
        self.origin = origin
        self.work: list[Callable[[], None]] = []
        self.invalid = False
        self.streams: dict[StreamState, Counter[StreamState]] = {origin: Counter()}
        """Those that take part: the origin, and whatever waited for one of them. For each, how much of the work of
        which of them comes before what it is given next."""

    def add(self, stream: StreamState, run: Callable[[], None]) -> None:
        self.work.append(run)
        self.streams[stream][stream] += 1

    def joined(self) -> bool:
        """Whether the origin comes after all that the others were given."""
        known = self.streams[self.origin]
        return all(known[s] >= seen[s] for s, seen in self.streams.items())


class StreamState:
    def __init__(self, device: Device, handle: int, blocking: bool) -> None:
        self.device, self.handle, self.blocking = device, handle, blocking
        self.last: Work | None = None
        self.capture: Capture | None = None  # takes what it is given, while this is not None

    @property
    def captured(self) -> list[Callable[[], None]] | None:
        return None if self.capture is None else self.capture.work

    def refuse(self) -> None:
        """What may not be asked of a stream that is capturing: the capture is lost."""
        if self.capture is not None:
            self.capture.invalid = True
            raise CUDARuntimeError(900)


class Device:
    """One device: what is allocated, its streams, and the error after which nothing works on it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.tag = _TAG | index << 53
        self.total = int(os.environ.get("KILN_FAKE_GPU_BYTES", 4 << 30))
        self.taken = 0  # by pools
        self.starts: list[int] = []
        self.sizes: dict[int, int] = {}
        self.told: set[int] = set()  # which of them are known to be damaged
        self.null = StreamState(self, 0, True)
        self.streams: dict[int, StreamState] = {}
        self.error: tuple[int, str] | None = None

    def check(self) -> None:
        if self.error is not None:
            raise CUDARuntimeError(*self.error)

    def fail(self, status: int, detail: str) -> None:
        self.error = self.error or (status, f"device {self.index}: {detail}")

    # ------------------------------------------------------------------------------------------ memory

    def allocate(self, nbytes: int) -> int:
        address = shim.allocate(nbytes, low=len(self.sizes) % 2 == 1) | self.tag  # a guard page on one side
        bisect.insort(self.starts, address)
        self.sizes[address] = nbytes
        return address

    def free(self, address: int) -> None:
        nbytes = self.sizes.pop(address)
        self.starts.remove(address)
        self._intact(address, nbytes, "found when it was freed")
        self.told.discard(address)
        shim.free(address ^ self.tag, nbytes)

    def holds(self, address: int, nbytes: int) -> bool:
        """These bytes lie in one allocation."""
        k = bisect.bisect_right(self.starts, address) - 1
        return k >= 0 and address + nbytes <= self.starts[k] + self.sizes[self.starts[k]]

    def intact(self, address: int, who: str) -> None:
        """Fail if something was written beside the allocation of this address."""
        k = bisect.bisect_right(self.starts, address) - 1
        if k >= 0:
            self._intact(self.starts[k], self.sizes[self.starts[k]], who)

    def _intact(self, start: int, nbytes: int, who: str) -> None:
        side = shim.damaged(start ^ self.tag, nbytes)
        if side and start not in self.told:
            self.told.add(start)
            self.fail(700, f"{who}: something was written {side} {start:#x}, which has {nbytes} bytes")

    # ------------------------------------------------------------------------------------------ work

    def issue(self, stream: StreamState, run: Callable[[], None]) -> Work:
        if stream.capture is not None:
            stream.capture.add(stream, run)
            return Work(self, lambda: None, [])
        after = [stream.last]
        if stream is self.null:
            after += [s.last for s in self.streams.values() if s.blocking]
        elif stream.blocking:
            after.append(self.null.last)
        work = stream.last = Work(self, run, [w for w in after if w is not None and not w.done])
        if not state.deferred:
            finish(work)
        return work

    def synchronize(self) -> None:
        for stream in self.streams.values():
            stream.refuse()
        for stream in [self.null, *self.streams.values()]:
            finish(stream.last)
        for handle in [h for h, s in self.streams.items() if h not in state.streams]:
            del self.streams[handle]  # which the program has dropped
        self.check()


def finish(work: Work | None) -> None:
    """Do this, and before it all that it depends on."""
    todo = [work] if work is not None else []
    while todo:
        top = todo[-1]
        before = [w for w in top.after if not w.done]
        if top.done or before:
            if top.done:
                todo.pop()
            todo += before
            continue
        todo.pop()
        if top.device.error is None:
            top.run()
        top.done, top.after, top.time = True, [], time.perf_counter()


class State:
    """All devices, and what a thread has chosen."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.devices = [Device(k) for k in range(int(os.environ.get("KILN_FAKE_GPUS", "2")))]
        self.streams: dict[int, StreamState] = {}
        self.handles = 0x1000
        self.deferred = False
        self.counts: Counter[str] = Counter()
        self.pinned: dict[int, int] = {}
        self.local = threading.local()
        self.dropped: deque[Callable[[], object]] = deque()
        self._lock, self._depth = threading.RLock(), 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One thread at a time. Memory is dropped whenever Python finds it unused; that waits until nobody is here."""
        with self._lock:
            self._depth += 1
            try:
                if self._depth == 1:
                    self._drop()
                yield
                if self._depth == 1:
                    self._drop()
            finally:
                self._depth -= 1

    def drop(self, what: Callable[[], object]) -> None:
        """Now, or as soon as nobody is inside."""
        self.dropped.append(what)
        if self._lock.acquire(blocking=False):
            try:
                with self.locked():
                    pass
            finally:
                self._lock.release()

    def _drop(self) -> None:
        while self.dropped:
            self.dropped.popleft()()

    def alive(self) -> None:
        """There is no CUDA in a forked child."""
        if os.getpid() != self.process:
            raise CUDARuntimeError(3)

    def device(self) -> Device:
        """The current device, usable. This thread has its context then."""
        self.alive()
        if not self.devices:
            raise CUDARuntimeError(100)
        self.local.bound = True
        device = self.devices[getattr(self.local, "device", 0)]
        device.check()
        return device

    def handle(self) -> int:
        self.handles += 0x10
        return self.handles

    def stream(self, handle: int) -> StreamState:
        if handle in NULL_STREAMS:
            return self.device().null
        if handle == PER_THREAD:
            device = self.device()
            made: dict[int, StreamState] = self.local.__dict__.setdefault("per_thread", {})
            return made.setdefault(device.index, StreamState(device, PER_THREAD, True))
        if handle not in self.streams:
            raise CUDARuntimeError(400, f"{handle:#x} is no stream")
        stream = self.streams[handle]
        stream.device.check()
        return stream

    def device_of(self, address: int) -> Device | None:
        """Whose memory this address is; None: the host's."""
        return next((d for d in self.devices if address >> 52 == d.tag >> 52), None)

    def is_pinned(self, address: int, nbytes: int) -> bool:
        return any(p <= address and address + nbytes <= p + n for p, n in self.pinned.items())


state = State()


def locked(function: F) -> F:
    """A call of CUDA: one at a time."""

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        with state.locked():
            return function(*args, **named)

    return cast("F", call)


@contextmanager
def deferred(on: bool = True) -> Iterator[None]:
    """Work waits until somebody waits for it."""
    before, state.deferred = state.deferred, on
    try:
        yield
    finally:
        finish_all()
        state.deferred = before


@locked
def finish_all() -> None:
    """Do all work that is left."""
    for device in state.devices:
        for stream in [device.null, *device.streams.values()]:
            finish(stream.last)


@locked
def clear() -> list[str]:
    """Do all work that is left, and go on after errors: returns those."""
    finish_all()
    for device in state.devices:
        for start in device.starts:
            device.intact(start, "found at the end")
    said = [d.error[1] for d in state.devices if d.error is not None]
    for device in state.devices:
        device.error = None
    state.local.device = 0
    return said


# ------------------------------------------------------------------------------------------------------- copies


def _real(address: int) -> int:
    device = state.device_of(address)
    return address if device is None else address ^ device.tag


@locked
def copy(dst: int, src: int, nbytes: int, kind: int, handle: int) -> None:
    """cudaMemcpyAsync. From memory that is not pinned it reads at once, and to such memory it waits."""
    stream = state.stream(handle)
    state.counts["memcpy"] += 1
    if not 0 <= kind <= 4:
        raise CUDARuntimeError(21)
    to, source = state.device_of(dst), state.device_of(src)
    wanted = (source is not None) * 2 + (to is not None)  # 0 HtoH, 1 HtoD, 2 DtoH, 3 DtoD
    if kind not in (wanted, 4):
        names = ("host to host", "host to device", "device to host", "device to device")
        raise CUDARuntimeError(1, f"a copy {names[kind]} was asked for, the pointers are {names[wanted]}")
    for device, address, name in ((to, dst, "dst"), (source, src, "src")):
        if device is not None and nbytes and not device.holds(address, nbytes):
            raise CUDARuntimeError(1, f"{name}: {nbytes} bytes at {address:#x} are not in one allocation")
    if not nbytes:
        return
    staged = None
    if source is None and not state.is_pinned(src, nbytes):
        stream.refuse()
        staged = ctypes.string_at(src, nbytes)

    def run() -> None:
        for device, address in ((to, dst), (source, src)):
            if device is not None and not device.holds(address, nbytes):
                return stream.device.fail(700, f"a copy of {nbytes} bytes uses {address:#x} after it was freed")
        ctypes.memmove(_real(dst), _real(src) if staged is None else staged, nbytes)

    if to is None and not state.is_pinned(dst, nbytes):
        stream.refuse()
    work = stream.device.issue(stream, run)
    if to is None and not state.is_pinned(dst, nbytes):
        finish(work)
        stream.device.check()


@locked
def fill(address: int, value: int, nbytes: int, handle: int) -> None:
    """cudaMemsetAsync."""
    stream = state.stream(handle)
    state.counts["memset"] += 1
    device = state.device_of(address)
    if device is None or not device.holds(address, nbytes):
        raise CUDARuntimeError(1, f"{nbytes} bytes at {address:#x} are not in one allocation")

    def run() -> None:
        if not device.holds(address, nbytes):
            return stream.device.fail(700, f"a memset of {nbytes} bytes uses {address:#x} after it was freed")
        ctypes.memset(_real(address), value & 0xFF, nbytes)

    stream.device.issue(stream, run)


# ------------------------------------------------------------------------------------------------------ launches

functions: dict[int, tuple[shim.Kernel, Device]] = {}
"""Loaded functions, by handle."""


@locked
def launch(function: int, grid: tuple[int, ...], block: tuple[int, ...], shared: int, handle: int, params: int) -> None:
    """cuLaunchKernel: the arguments are read now, the kernel runs when its turn comes."""
    if not getattr(state.local, "bound", False):
        raise CUDADriverError(201, "no call of the runtime has given this thread a context")
    if function not in functions:
        raise CUDADriverError(400, f"{function:#x} is no function")
    kernel, device = functions[function]
    try:
        stream = state.stream(handle)
    except CUDARuntimeError as error:
        raise CUDADriverError(error.status, "; ".join(getattr(error, "__notes__", ()))) from None
    if stream.device is not device:
        raise CUDADriverError(400, f"{kernel.name} is loaded on device {device.index}, not {stream.device.index}")
    threads = block[0] * block[1] * block[2]
    if not all(0 < n <= most for n, most in zip(grid + block, (2**31 - 1, 65535, 65535, 1024, 1024, 64), strict=True)):
        raise CUDADriverError(1, f"{kernel.name}: grid {grid}, block {block}")
    if threads > kernel.threads or shared + kernel.shared > 48 << 10:  # more must be asked for (funcSetAttribute)
        raise CUDADriverError(1, f"{kernel.name}: {threads} threads, {shared} bytes of dynamic shared memory")
    if kernel.sizes and not params:
        raise CUDADriverError(1, f"{kernel.name}: no arguments")
    if sum(kernel.sizes) > 4096:
        raise CUDADriverError(1, f"{kernel.name}: {sum(kernel.sizes)} bytes of arguments")
    state.counts["launch"] += 1
    places = (ctypes.c_void_p * len(kernel.sizes)).from_address(params) if kernel.sizes else ()
    values = [ctypes.create_string_buffer(ctypes.string_at(p, n), n) for p, n in zip(places, kernel.sizes, strict=True)]

    def run() -> None:
        pointers = (ctypes.c_void_p * max(1, len(values)))(*map(ctypes.addressof, values))
        try:
            kernel.launch(grid, block, ctypes.addressof(pointers), shared=shared, tag=device.tag)
        except shim.KernelError as error:
            return device.fail(error.status, str(error))
        for value, is_pointer in zip(values, kernel.pointers, strict=True):
            words = [int.from_bytes(value.raw[k : k + 8], "little") for k in range(0, len(value.raw), 8)]
            for word in words:
                if is_pointer or (len(words) > 1 and word >> 52 == device.tag >> 52):
                    device.intact(word, kernel.name)

    device.issue(stream, run)
