"""A CuPy without a GPU: the few names of CuPy 14 that kiln's runtime uses, over the devices of `fake_device`.

`install()` puts the modules into `sys.modules`. What is compiled with `nvrtc` are libraries for the CPU (`fake_nvrtc`).
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import operator
import os
import sys
import types
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.gpu import fake_device, fake_nvrtc, shim
from tests.gpu.fake_device import CUDADriverError, CUDARuntimeError, StreamState, Work, locked, state

VERSION: Final = "14.2.0"
_over: Final[list[bool]] = []
"""Not empty when the process ends."""
atexit.register(_over.append, True)


def _native(run: Callable[[Any], None]) -> Any:
    """`run` as a `__del__` that no capture sees, whose function may be running: CuPy's is not Python."""
    space = {"__name__": "kiln.runtime.cupy", "over": _over, "run": run}
    exec("def __del__(self):\n    if not over: run(self)", space)
    return space["__del__"]


def _module(name: str, members: dict[str, Any]) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(members)
    return made


def _unsigned(value: Any) -> int:
    """As an argument of the C type unsigned int."""
    number = operator.index(value)
    if not 0 <= number < 1 << 32:
        raise OverflowError("can't convert to unsigned int")
    return number


def _size(value: Any) -> int:
    """As an argument of the C type size_t."""
    number = operator.index(value)
    if number < 0:
        raise OverflowError("can't convert negative value to size_t")
    return number


# ----------------------------------------------------------------------------------------------- cupy.cuda.runtime


def getDeviceCount() -> int:
    state.alive()
    if not state.devices:
        raise CUDARuntimeError(100)
    return len(state.devices)


def getDeviceProperties(device: int) -> dict[str, Any]:
    if not 0 <= device < len(state.devices):
        raise CUDARuntimeError(101)
    return {
        "name": b"Fake GPU",
        "totalGlobalMem": state.devices[device].total,
        "major": 9,
        "minor": 0,
        "multiProcessorCount": 4,
        "warpSize": 32,
        "maxThreadsPerBlock": 1024,
        "sharedMemPerBlock": 48 << 10,
        "sharedMemPerBlockOptin": 227 << 10,
    }


@locked
def memGetInfo() -> tuple[int, int]:
    device = state.device()
    return device.total - device.taken, device.total


def driverGetVersion() -> int:
    return 13000


def runtimeGetVersion() -> int:
    return 13020


def setDevice(device: int) -> None:
    state.alive()
    if not 0 <= device < len(state.devices):
        raise CUDARuntimeError(101 if state.devices else 100)
    state.local.device, state.local.bound = device, True


def getDevice() -> int:
    state.alive()
    if not state.devices:
        raise CUDARuntimeError(100)
    return int(getattr(state.local, "device", 0))


@locked
def deviceSynchronize() -> None:
    state.counts["synchronize"] += 1
    state.device().synchronize()


def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    fake_device.copy(dst, src, _size(size), kind, stream)


def memsetAsync(ptr: int, value: int, size: int, stream: int) -> None:
    fake_device.fill(ptr, value, _size(size), stream)


def _status(ask: Callable[[], bool]) -> int:
    """What a query returns: 0, 600 (not ready), or the number of an error, which is not raised."""
    try:
        return 0 if ask() else 600
    except CUDARuntimeError as error:
        return error.status


@locked
def streamQuery(stream: int) -> int:
    def ask() -> bool:
        queue = state.stream(stream)
        queue.refuse()
        return _done(queue.last) and queue.device.check() is None

    return _status(ask)


@locked
def streamSynchronize(stream: int) -> None:
    state.counts["synchronize"] += 1
    queue = state.stream(stream)
    queue.refuse()
    if queue is queue.device.null:
        for other in queue.device.streams.values():
            if other.blocking:
                fake_device.finish(other.last)
    fake_device.finish(queue.last)
    queue.device.check()


@locked
def eventQuery(event: int) -> int:
    def ask() -> bool:
        found = _events.get(event)
        if found is None:
            raise CUDARuntimeError(400)
        found._settled()
        return _done(found.work) and found.device.check() is None

    return _status(ask)


@locked
def streamWaitEvent(stream: int, event: int, flags: int = 0) -> None:
    assert not flags, "not in the subset"
    queue, found = state.stream(stream), _events.get(event)
    if found is None:
        raise CUDARuntimeError(400)
    if found.mark is not None:
        capture, seen = found.mark
        if queue.capture is None and capture.origin.capture is capture:
            queue.capture = capture  # it takes part from now on
            capture.streams[queue] = Counter()
        if queue.capture is not capture:
            raise CUDARuntimeError(907)
        capture.streams[queue] |= seen
        return
    if found.work is None:
        return
    if queue.capture is not None:
        queue.capture.invalid = True
        raise CUDARuntimeError(905)
    if not found.work.done:
        queue.device.issue(queue, lambda: None).after.append(found.work)


# -------------------------------------------------------------------------------------------- streams and events


class Graph:
    """Work that a stream was given while it captured, to be done any number of times."""

    def __init__(self, device: fake_device.Device, captured: list[Callable[[], None]]) -> None:
        self._device, self._captured = device, captured
        self.graph, self.graphExec = state.handle(), state.handle()

    @locked
    def launch(self, stream: Stream | None = None) -> None:
        queue = state.stream((get_current_stream() if stream is None else stream).ptr)
        queue.refuse()
        if queue.device is not self._device:
            raise CUDARuntimeError(400, "the graph and the stream are of different devices")
        state.counts["graph launch"] += 1
        captured = self._captured

        def run() -> None:
            for each in captured:
                if self._device.error is None:
                    each()

        self._device.issue(queue, run)


def _done(work: Work | None) -> bool:
    """As a query tells; something more of it gets done for the next one."""
    if work is None or work.done:
        return True
    fake_device.finish(work)
    return False


class Stream:
    """Of the current device; the null stream is that of whatever device is current."""

    null: Stream

    @locked
    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        assert not ptds and priority is None, "not in the subset"
        self.ptr, self.device_id = 0, -1
        if not null:
            device = state.device()
            self.ptr, self.device_id = state.handle(), device.index
            made = StreamState(device, self.ptr, not non_blocking)
            state.streams[self.ptr] = device.streams[self.ptr] = made

    def _drop(self) -> None:
        if ptr := getattr(self, "ptr", 0):
            state.alive()
            state.drop(lambda: state.streams.pop(ptr, None))

    __del__ = _native(_drop)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def _here(self) -> int:
        if self.device_id not in (-1, getDevice()):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the current device"
                f" ({getDevice()})"
            )
        return getDevice()

    def use(self) -> Stream:
        _current_streams()[self._here()] = self
        return self

    def __enter__(self) -> Stream:
        device = self._here()
        _entered().append((device, _current_streams()[device]))
        return self.use()

    def __exit__(self, *args: object) -> None:
        device, before = _entered().pop()
        _current_streams()[device] = before

    @locked
    def begin_capture(self, mode: int | None = None) -> None:
        """In CuPy's mode, in which memory can be allocated meanwhile."""
        assert mode is None, "not in the subset"
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        stream = state.stream(self.ptr)
        stream.refuse()
        assert not stream.blocking, "not in the subset: work of the default stream would end the capture"
        stream.capture = fake_device.Capture(stream)
        state.counts["capture"] += 1

    @locked
    def end_capture(self) -> Graph:
        stream = state.stream(self.ptr)
        capture = stream.capture
        if capture is None or capture.origin is not stream:
            raise CUDARuntimeError(400 if capture is None else 903)
        for each in capture.streams:
            each.capture = None
        if capture.invalid:
            raise CUDARuntimeError(901)
        if not capture.joined():
            raise CUDARuntimeError(904)
        return Graph(stream.device, capture.work)

    def is_capturing(self) -> bool:
        return state.stream(self.ptr).captured is not None

    @property
    def done(self) -> bool:
        """False also after an error, which is not raised."""
        return streamQuery(self.ptr) == 0

    def synchronize(self) -> None:
        streamSynchronize(self.ptr)

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        streamWaitEvent(self.ptr, event.ptr)


Stream.null = Stream(null=True)


def _current_streams() -> dict[int, Stream]:
    if not hasattr(state.local, "streams"):
        state.local.streams = dict.fromkeys(range(len(state.devices)), Stream.null)
    made: dict[int, Stream] = state.local.streams
    return made


def _entered() -> list[tuple[int, Stream]]:
    if not hasattr(state.local, "entered"):
        state.local.entered = []
    made: list[tuple[int, Stream]] = state.local.entered
    return made


def get_current_stream(device_id: int = -1) -> Stream:
    return _current_streams()[getDevice() if device_id == -1 else device_id]


class Event:
    """Of the current device."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        self.device = state.device()
        self.ptr = state.handle()
        self.timed = not disable_timing
        self.work: Work | None = None
        self.mark: tuple[fake_device.Capture, Counter[StreamState]] | None = None  # where in a capture it is
        _events[self.ptr] = self

    __del__ = _native(lambda self: state.alive())

    def _settled(self) -> None:
        """Nothing may be asked of an event that a capture has: the capture is lost."""
        if self.mark is not None:
            self.mark[0].invalid = True
            raise CUDARuntimeError(907)

    @property
    def done(self) -> bool:
        """False also after an error, which is not raised."""
        return eventQuery(self.ptr) == 0

    @locked
    def record(self, stream: Stream | None = None) -> None:
        queue = state.stream((get_current_stream() if stream is None else stream).ptr)
        if queue.device is not self.device:
            raise CUDARuntimeError(400, "the event and the stream are of different devices")
        capture = queue.capture
        self.mark = None if capture is None else (capture, Counter(capture.streams[queue]))
        self.work = self.device.issue(queue, lambda: None) if capture is None else None

    @locked
    def synchronize(self) -> None:
        state.counts["synchronize"] += 1
        self._settled()
        fake_device.finish(self.work)
        self.device.check()


_events: Final[weakref.WeakValueDictionary[int, Event]] = weakref.WeakValueDictionary()


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds."""
    for event in (start_event, end_event):
        if event.work is None or not event.timed:
            raise CUDARuntimeError(400, "an event that was not recorded, or without a time")
        if not event.work.done:
            raise CUDARuntimeError(600)
    assert start_event.work is not None and end_event.work is not None
    return (end_event.work.time - start_event.work.time) * 1000


class Device:
    """A device by its number, current inside `with`."""

    def __init__(self, device: int | Device | None = None) -> None:
        self.id = getDevice() if device is None else int(device)
        self._before: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def use(self) -> None:
        setDevice(self.id)

    def __enter__(self) -> Device:
        before = getDevice()
        self.use()
        self._before.append(before)
        return self

    def __exit__(self, *args: object) -> None:
        setDevice(self._before.pop())

    def synchronize(self) -> None:
        with self:
            deviceSynchronize()

    @property
    def compute_capability(self) -> str:
        made = getDeviceProperties(self.id)
        return f"{made['major']}{made['minor']}"

    @property
    def mem_info(self) -> tuple[int, int]:
        with self:
            return memGetInfo()


# ----------------------------------------------------------------------------------------------------- memory


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        limited = f", limit set to: {limit:,} bytes" if limit else ""
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes{limited}).")


class PooledMemory:
    """What goes back to its pool when nobody holds it."""

    def __init__(self, pool: _DevicePool, nbytes: int, rounded: int) -> None:
        self.device, self.size, self._pool = pool.device, rounded, pool
        self.device_id = pool.device.index
        current = get_current_stream()
        self._stream = state.stream(current.ptr)
        self._captured = self._stream.captured is not None
        self.ptr = pool.device.allocate(nbytes) if nbytes else 0

    def free(self) -> None:
        ptr, self.ptr = self.ptr, 0
        if not ptr:
            return
        pool, stream, size, captured = self._pool, self._stream, self.size, self._captured

        def drop() -> None:
            pool.used -= size
            pool.kept.append((stream.handle, size))
            if captured or stream.captured is not None:  # graphs use it as long as nobody else gets it
                pool.parked.append(ptr)
                return
            # Memory is used again in the order of the stream on which it was allocated.
            pool.device.issue(stream, lambda: pool.device.free(ptr))

        state.drop(drop)

    __del__ = _native(lambda self: self.free())


class MemoryPointer:
    def __init__(self, mem: Any, offset: int) -> None:
        assert mem.ptr != 0 or offset == 0
        self.mem, self.ptr = mem, mem.ptr + offset
        self.device_id = mem.device_id

    def __int__(self) -> int:
        return self.ptr


class _DevicePool:
    """Counts as CuPy's pool does, in units of 512 bytes; the memory itself is new each time."""

    def __init__(self, device: fake_device.Device) -> None:
        self.device, self.used, self.total, self.limit = device, 0, 0, 0
        self.kept: list[tuple[int, int]] = []  # what was freed: by stream, and its size
        self.parked: list[int] = []  # what was freed by streams that captured

    @locked
    def malloc(self, nbytes: int) -> MemoryPointer:
        rounded = (nbytes + 511) // 512 * 512
        stream = get_current_stream().ptr
        fits = sorted(size for s, size in self.kept if s == stream and size >= rounded)
        if not nbytes:
            return MemoryPointer(PooledMemory(self, 0, 0), 0)
        if any(s.captured is not None for s in self.device.streams.values()):
            state.counts["malloc while capturing"] += 1
        else:
            self.unpark()
        if fits:
            self.kept.remove((stream, fits[0]))
            if fits[0] > rounded:
                self.kept.append((stream, fits[0] - rounded))
        else:
            self._grow(rounded)
        self.used += rounded
        state.counts["malloc"] += 1
        return MemoryPointer(PooledMemory(self, nbytes, rounded), 0)

    def unpark(self) -> None:
        """Memory that graphs use is given to others, and what it had is gone."""
        while self.parked:
            self.device.free(self.parked.pop())

    def _grow(self, rounded: int) -> None:
        if self.limit and self.total + rounded > self.limit:
            raise OutOfMemoryError(rounded, self.total, self.limit)
        if self.device.taken + rounded > self.device.total:
            self.free_all_blocks()
        if self.device.taken + rounded > self.device.total:
            raise OutOfMemoryError(rounded, self.total, self.limit)
        self.total += rounded
        self.device.taken += rounded

    @locked
    def free_all_blocks(self, stream: Stream | None = None) -> None:
        gone = [kept for kept in self.kept if stream is None or kept[0] == stream.ptr]
        if gone:  # cudaFree may wait for the device
            for capture in {s.capture for s in self.device.streams.values() if s.capture is not None}:
                capture.invalid = True
        self.kept = [kept for kept in self.kept if kept not in gone]
        self.total -= sum(size for _, size in gone)
        self.device.taken -= sum(size for _, size in gone)


class MemoryPool:
    """Memory of whatever device is current."""

    def __init__(self, allocator: Callable[[int], Any] | None = None) -> None:
        assert allocator is None, "not in the subset"
        self._pools: dict[int, _DevicePool] = {}

    def __del__(self) -> None:
        if not sys.is_finalizing():
            for pool in self._pools.values():
                state.drop(pool.unpark)

    def _pool(self) -> _DevicePool:
        device = state.device()
        return self._pools.setdefault(device.index, _DevicePool(device))

    def malloc(self, size: int) -> MemoryPointer:
        return self._pool().malloc(_size(size))

    @locked
    def used_bytes(self) -> int:
        return self._pool().used

    @locked
    def total_bytes(self) -> int:
        return self._pool().total

    @locked
    def free_bytes(self) -> int:
        pool = self._pool()
        return pool.total - pool.used

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        self._pool().free_all_blocks(stream)

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        pool = self._pool()
        pool.limit = int((fraction or 0) * pool.device.total) if size is None else size

    def get_limit(self) -> int:
        return self._pool().limit


class PinnedMemoryPointer:
    """Memory of the host that copies use while the program goes on. Freed memory is given out again at once."""

    _free: Final[dict[int, list[Any]]] = {}

    def __init__(self, nbytes: int) -> None:
        self._rounded = max(512, 1 << (nbytes - 1).bit_length())
        kept = self._free.setdefault(self._rounded, [])
        self._block = kept.pop() if kept else ctypes.create_string_buffer(self._rounded)
        self.ptr = ctypes.addressof(self._block)
        ctypes.memset(self.ptr, 0xA5, self._rounded)
        state.pinned[self.ptr] = self._rounded

    @property
    def mem(self) -> PinnedMemoryPointer:
        return self

    def size(self) -> int:
        return self._rounded

    def _give_back(self) -> None:
        ctypes.memset(self.ptr, 0xA5, self._rounded)
        self._free[self._rounded].append(self._block)

    __del__ = _native(_give_back)


# ----------------------------------------------------------------------------------------------- modules, launches


class Function:
    """A kernel on one device: `ptr` is what launchKernel takes."""

    def __init__(self, kernel: shim.Kernel, device: fake_device.Device) -> None:
        self.ptr = state.handle()
        self.name = kernel.name
        fake_device.functions[self.ptr] = (kernel, device)


_modules: dict[tuple[str, int], shim.Library] = {}
"""By path and device, for ever, as CuPy keeps them: a file that changes under its name is not read again."""


@locked
def _load(path: str) -> shim.Library:
    device = state.device()
    if (path, device.index) not in _modules:
        if not Path(path).exists():
            raise CUDADriverError(301, path)
        content, found, tail = Path(path).read_bytes().removesuffix(b"\0").rpartition(b"\nfake cubin ")
        arch = tail.decode(errors="replace").partition(" ")[0]
        if not found or found + tail != fake_nvrtc.mark(content, arch):
            raise CUDADriverError(200, f"{path} is cut or changed")
        properties = getDeviceProperties(device.index)
        if arch.rstrip("abcdefghijklmnopqrstuvwxyz") not in _runs_on(properties["major"], properties["minor"]):
            raise CUDADriverError(209, f"{path} is for {arch}")
        library = shim.folder() / f"{hashlib.sha256(content).hexdigest()[:32]}-loaded.so"
        if not library.exists():
            part = library.with_suffix(f".{os.getpid()}")
            part.write_bytes(content)
            os.replace(part, library)
        state.counts["load"] += 1
        _modules[path, device.index] = shim.loaded(library)
    return _modules[path, device.index]


def _runs_on(major: int, minor: int) -> set[str]:
    """Machine code runs on devices of the same major number and no lower minor one."""
    return {f"sm_{major}{m}" for m in range(minor + 1)}


class RawKernel:
    """A kernel of a module: loaded for each device when it is first asked for."""

    def __init__(self, path: str, name: str) -> None:
        self.name, self._path = name, path
        self._functions: dict[int, Function] = {}

    @property
    def kernel(self) -> Function:
        index = getDevice()
        if index not in self._functions:
            library = _load(self._path)
            try:
                kernel = library[self.name]
            except KeyError:
                raise CUDADriverError(500, self.name) from None
            self._functions[index] = Function(kernel, state.device())
        return self._functions[index]


class RawModule:
    def __init__(self, code: str | None = None, *, path: str | None = None) -> None:
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        assert code is None, "not in the subset: CuPy would compile it with -ftz=true"
        if not isinstance(path, str):
            raise TypeError("Argument 'path' has incorrect type (expected str)")
        self.file_path = path

    def get_function(self, name: str) -> RawKernel:
        made = RawKernel(self.file_path, name)
        _ = made.kernel  # loaded now
        return made


def launchKernel(
    f: int,
    grid_dim_x: int,
    grid_dim_y: int,
    grid_dim_z: int,
    block_dim_x: int,
    block_dim_y: int,
    block_dim_z: int,
    shared_mem_bytes: int,
    stream: int,
    kernel_params: int,
    extra: int,
) -> None:
    grid = tuple(map(_unsigned, (grid_dim_x, grid_dim_y, grid_dim_z)))
    block = tuple(map(_unsigned, (block_dim_x, block_dim_y, block_dim_z)))
    assert not extra, "not in the subset"
    fake_device.launch(f, grid, block, _unsigned(shared_mem_bytes), stream, kernel_params)


# ----------------------------------------------------------------------------------------------------- the modules

_COPIES: Final = {
    f"memcpy{kind}": number
    for number, kind in enumerate(("HostToHost", "HostToDevice", "DeviceToHost", "DeviceToDevice", "Default"))
}


def _named(*functions: Callable[..., Any]) -> dict[str, Any]:
    return {f.__name__: f for f in functions}


_RUNTIME: Final = _named(
    getDeviceCount, getDeviceProperties, memGetInfo, driverGetVersion, runtimeGetVersion, setDevice, getDevice,
    deviceSynchronize, memcpyAsync, memsetAsync, streamQuery, streamSynchronize, streamWaitEvent, eventQuery,
    CUDARuntimeError,
)  # fmt: skip
_NVRTC: Final = _named(
    fake_nvrtc.getVersion, fake_nvrtc.createProgram, fake_nvrtc.compileProgram, fake_nvrtc.getCUBIN,
    fake_nvrtc.getProgramLog, fake_nvrtc.destroyProgram, fake_nvrtc.NVRTCError,
)  # fmt: skip
_runtime = _module("cupy.cuda.runtime", {"streamNonBlocking": 1, **_COPIES, **_RUNTIME})
_driver = _module("cupy.cuda.driver", _named(CUDADriverError, launchKernel))
_nvrtc = _module("cupy.cuda.nvrtc", _NVRTC)
_memory = _module(
    "cupy.cuda.memory",
    {"OutOfMemoryError": OutOfMemoryError, "MemoryPool": MemoryPool, "MemoryPointer": MemoryPointer},
)
_cuda = _module(
    "cupy.cuda",
    {
        "__path__": [],
        "runtime": _runtime,
        "driver": _driver,
        "nvrtc": _nvrtc,
        "memory": _memory,
        "MemoryPool": MemoryPool,
        "MemoryPointer": MemoryPointer,
        "alloc_pinned_memory": PinnedMemoryPointer,
        "PinnedMemoryPointer": PinnedMemoryPointer,
        "Device": Device,
        "Stream": Stream,
        "Graph": Graph,
        "Event": Event,
        "get_elapsed_time": get_elapsed_time,
        "get_current_stream": get_current_stream,
        "is_available": lambda: bool(state.devices),
    },
)
_cupy = _module("cupy", {"__path__": [], "__version__": VERSION, "cuda": _cuda, "RawModule": RawModule})
MODULES: Final = {m.__name__: m for m in (_cupy, _cuda, _runtime, _driver, _nvrtc, _memory)}


def install() -> None:
    """From now on `import cupy` gives this one."""
    sys.modules.update(MODULES)
