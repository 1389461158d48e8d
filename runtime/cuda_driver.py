"""CuPy, and what kiln keeps per GPU: streams, memory, loaded kernels, and the fault that ended it.

The only file that imports CuPy, when something first asks for a GPU. CuPy is used for its driver calls, its memory
pools and NVRTC; none of its arrays or kernels.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

from kiln.ir.graph import SourceLoc

if TYPE_CHECKING:
    from kiln.runtime.cuda_recording import Pool, Recording

TO_DEVICE: Final = 1
TO_HOST: Final = 2
WITHIN: Final = 3
ANYWHERE: Final = 4
"""Kinds of copies, as cudaMemcpyAsync numbers them; the last finds out by itself."""

STREAMS: Final = 32
"""Streams per GPU besides the default stream."""

_NO_MEMORY: Final = 2
_NOT_INITIALIZED: Final = 3
_NOT_READY: Final = 600
_NO_DRIVER: Final = (34, 35, 803, 804)  # stub library, too old or absent, does not fit, does not fit forward
_STICKY: Final = frozenset({214, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911})
"""After these no call of the process on that GPU works any more."""


def debugging() -> bool:
    """Whether what runs on GPUs is to say where it fails, at the cost of its speed (KILN_CUDA_DEBUG)."""
    return os.environ.get("KILN_CUDA_DEBUG", "0") not in ("", "0")


class CudaError(Exception):
    """What a GPU, or the way to it, refused. `kind`: "cupy" (not installed), "driver" (none, or it does not fit),
    "device" (no such GPU), "memory", "compile" (a kernel's text, or no NVRTC), "launch" (a kernel or a copy failed).
    `op`: the IR node, where one is known, and `loc` its line."""

    def __init__(self, kind: str, message: str, fix: str = "", op: str = "", loc: SourceLoc | None = None) -> None:
        text = f"{op}: {message}" if op else message
        text += f"\n  at {loc}" if loc is not None else ""
        super().__init__(text + (f"\n  fix: {fix}" if fix else ""))
        self.kind = kind
        self.message = message
        self.fix = fix
        self.op = op
        self.loc = loc


class Stream:
    """A queue of work of one GPU. `handle` is CuPy's, `ptr` CUDA's; 0 is the default stream."""

    __slots__ = ("device", "handle", "ptr")

    def __init__(self, device: Gpu, handle: Any) -> None:
        self.device = device
        self.handle = handle
        self.ptr: int = handle.ptr

    def wait(self) -> None:
        """Until all work on it is done; CudaError when some of it failed."""
        if local.recording is not None:
            unrecorded("waiting for a GPU")
        if _waits.mode:
            _waits.notice()
        with self.device.guarded("waiting for the GPU"):
            self.handle.synchronize()

    def done(self) -> bool:
        """Whether all work on it is done; CudaError when some of it failed."""
        with self.device.guarded("asking for a stream's state"):
            return self.device.session.ready(self.device.session.runtime.streamQuery(self.ptr))


class _Thread(threading.local):
    """What each thread has of its own: kiln's current device, the current streams, the devices it has used, and the
    graph that it records."""

    def __init__(self) -> None:
        self.recording: Recording | None = None
        self.device = 0
        self.streams: dict[int, Stream] = {}
        self.bound = False
        self.captures = False  # a program of this thread is recorded as a graph


local: Final = _Thread()


def unrecorded(what: str) -> NoReturn:
    """CudaError for what can't be part of a CUDA graph."""
    raise CudaError(
        "launch",
        f"{what} can't be part of a CUDA graph, which is being recorded",
        "do it outside of the recording; what happens the first time only (code, constants, generators) has happened "
        "once the same calls were made before",
    )


class _Waits:
    """What happens when the host has to wait for a GPU: nothing (0), a warning (1) or an error (2)."""

    mode = 0

    def notice(self) -> None:
        if self.mode == 2:
            raise CudaError(
                "launch",
                "the host has to wait for the GPU here, which set_sync_debug_mode forbids",
                'keep the value on the GPU, or kiln.cuda.set_sync_debug_mode("default")',
            )
        import warnings

        warnings.warn("the host waits for the GPU here", UserWarning, stacklevel=4)


_waits: Final = _Waits()


def set_wait_mode(mode: int) -> None:
    """See `_Waits`."""
    _waits.mode = mode


def wait_mode() -> int:
    """What `set_wait_mode` was told."""
    return _waits.mode


class Gpu:
    """One GPU: its memory, its streams, its kernels, by text, and its fault."""

    def __init__(self, session: Session, index: int) -> None:
        self.session = session
        self.index = index
        self.fault = ""
        self.last = ""  # the program that ran last
        self.kernels: dict[str, int] = {}
        self.modules: list[Any] = []
        self.peak = 0
        self.peak_reserved = 0
        self.staged: deque[tuple[Any, Any, int]] = deque()  # (event, pinned memory that a copy reads, bytes)
        self.staged_bytes = 0
        self.staging = threading.Lock()
        self.recording = threading.Lock()  # one graph of a program at a time
        self.lent: deque[tuple[list[Any], Any]] = deque()  # (events, memory that other streams may use until then)
        self._pool = session.cupy.cuda.MemoryPool()
        self.pools: weakref.WeakSet[Pool] = weakref.WeakSet()  # for graphs that programs record
        self._streams: list[Stream] = []
        self._next_stream = 0
        found = session.runtime.getDeviceProperties(index)
        self.properties: dict[str, Any] = found
        self.arch = f"sm_{found['major']}{found['minor']}"
        self.default = Stream(self, session.cupy.cuda.Stream(null=True))

    # ------------------------------------------------------------------------------------------ the current device

    def enter(self) -> int:
        """Make it CUDA's current device on this thread, with its context, which launches need; what was, for `leave`,
        or -1 if nothing changed. CudaError."""
        session = self.session
        if session.count == 1 and local.bound:
            return -1
        try:
            before: int = session.runtime.getDevice()
            if before == self.index and local.bound:
                return -1
            session.runtime.setDevice(self.index)
        except session.errors as error:
            raise self.failure(error, "choosing a GPU") from None
        local.bound = True
        return before

    def leave(self, before: int) -> None:
        """Undo `enter`: other libraries have their own idea of a current device."""
        if before >= 0:
            self.session.runtime.setDevice(before)

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Calls of CuPy on this device, whose errors become `CudaError`s."""
        self.check()
        try:
            before = self.enter()
            try:
                yield
            finally:
                self.leave(before)
        except self.session.errors as error:
            raise self.failure(error, what) from None

    def check(self) -> None:
        """CudaError if this GPU has failed in a way that nothing mends."""
        if self.fault:
            raise CudaError(
                "launch",
                f"GPU {self.index} can't be used any more by this process, since an earlier call failed: {self.fault}",
                "restart the process",
            )

    def failure(self, error: Any, what: str, op: str = "", loc: SourceLoc | None = None) -> CudaError:
        """What an error of CuPy's means."""
        if error.status == _NO_MEMORY:
            return self.no_memory(what)
        message = f"{what} failed: {error}"
        if error.status not in _STICKY:
            return CudaError("launch", message, op=op, loc=loc)
        if self.fault:
            return CudaError("launch", f"{message} (since an earlier call failed: {self.fault})", "restart the process")
        self.fault = f"{op}: {message}" if op else message
        fix = "restart the process"
        if not self.session.debug:
            if self.last and not op:
                message += f"; the last program that was launched is {self.last}, the fault may be in one before"
            fix += "; with KILN_CUDA_DEBUG=1 every launch is waited for, and the kernel that fails is named"
        return CudaError("launch", message, fix, op, loc)

    # ------------------------------------------------------------------------------------------ streams

    def stream(self) -> Stream:
        """This thread's current stream."""
        return local.streams.get(self.index) or self.default

    def use(self, stream: Stream) -> None:
        """Make it this thread's current stream."""
        if stream is self.default:
            local.streams.pop(self.index, None)
        else:
            local.streams[self.index] = stream

    def choose(self) -> None:
        """Make it this thread's current device, for kiln and for other libraries."""
        self.check()
        self.enter()  # to stay
        local.device = self.index

    def wait_for(self, event: Any) -> None:
        """Until what an event marks is done; CudaError when some of it failed."""
        if local.recording is not None:
            unrecorded("waiting for an event")
        if _waits.mode:
            _waits.notice()
        with self.guarded("waiting for an event"):
            event.synchronize()

    def done(self, event: Any) -> bool:
        """Whether what an event marks is done; CudaError when some of it failed (CuPy's `event.done` is then false for
        ever)."""
        with self.guarded("asking for an event's state"):
            return self.session.ready(self.session.runtime.eventQuery(event.ptr))

    def new_stream(self) -> Stream:
        """A stream that does not wait for the default stream: one of `STREAMS` in turn, which are never given back, so
        that memory that was freed for one of them stays in its order."""
        with _lock:
            k = self._next_stream % STREAMS
            self._next_stream += 1
            if k == len(self._streams):
                with self.guarded("making a stream"):
                    self._streams.append(Stream(self, self.session.cupy.cuda.Stream(non_blocking=True)))
            return self._streams[k]

    def known(self, ptr: int) -> Stream | None:
        """The stream of `new_stream` that CUDA knows by this handle, if it is one of these."""
        return next((s for s in self._streams if s.ptr == ptr), None)

    def new_event(self, timing: bool = False) -> Any:
        """An event of CuPy's."""
        return self.session.cupy.cuda.Event(disable_timing=not timing)

    # ------------------------------------------------------------------------------------------ memory

    def malloc(self, nbytes: int, stream: Stream) -> Any:
        """Memory for a stream, while this is CUDA's current device: freed memory is reused in the order of that stream.
        CudaError of kind "memory" when there is none, even with all idle memory given back."""
        if self.lent and local.recording is None:
            self._take_back()
        try:
            memory = self._taken(nbytes, stream)
        except (self.session.out_of_memory, *self.session.errors) as error:
            if getattr(error, "status", _NO_MEMORY) != _NO_MEMORY:
                raise self.failure(error, f"allocating {nbytes:,} bytes") from None
            if local.recording is not None or local.captures:  # no wait is allowed
                raise self.no_memory(f"allocating {nbytes:,} bytes") from None
            memory = self._malloc_again(nbytes, stream)
        used = self._pool.used_bytes()
        if used > self.peak:
            self.peak = used
        return memory

    def _taken(self, nbytes: int, stream: Stream) -> Any:
        recording = local.recording
        pool = self._pool
        if recording is not None and recording.place is self and stream.ptr:
            pool = recording.memory
        # CuPy's pool has its memory by CuPy's current stream, which is the program's to choose.
        if self.session.current_stream().ptr == stream.ptr:
            return pool.malloc(nbytes or 1)
        with stream.handle:
            return pool.malloc(nbytes or 1)

    def _malloc_again(self, nbytes: int, stream: Stream) -> Any:
        """Once more, without what only waited to be collected; idle memory the pool has given back itself."""
        self.peak_reserved = max(self.peak_reserved, self.reserved())
        gc.collect()
        self.settle()
        self._take_back()
        try:
            return self._taken(nbytes, stream)
        except (self.session.out_of_memory, *self.session.errors):
            raise self.no_memory(f"allocating {nbytes:,} bytes") from None

    def settle(self) -> None:
        """Wait for all of its work, while this is CUDA's current device and this thread records nothing. What another
        thread records as a graph would be lost by it: that comes first."""
        with self.recording:
            self.session.runtime.deviceSynchronize()

    def no_memory(self, what: str) -> CudaError:
        """With all sizes."""
        message = f"out of memory on GPU {self.index}, {what}"
        fix = "use smaller batches, drop tensors that are not needed, or look for other processes on this GPU"
        runtime = self.session.runtime
        try:
            before = runtime.getDevice()
            runtime.setDevice(self.index)
            try:
                free, total = runtime.memGetInfo()
                used, held = self.used(), self.reserved()
            finally:
                runtime.setDevice(before)
        except self.session.errors as error:  # not even a context has room
            return CudaError("memory", f"{message} ({error})", fix)
        message += f": {used:,} bytes are used by tensors and programs, {held - used:,} more are kept for reuse, "
        return CudaError("memory", f"{message}and {free:,} of the GPU's {total:,} bytes are free", fix)

    def release_idle(self) -> None:
        """Give what the pool keeps for reuse back to the GPU, while this is CUDA's current device."""
        if local.recording is not None:
            unrecorded("giving memory back")
        self.peak_reserved = max(self.peak_reserved, self.reserved())
        with self.recording:  # cudaFree may wait for the GPU
            self._pool.free_all_blocks()  # not of `pools`: graphs use them

    def used(self) -> int:
        """Bytes in use, while this is CUDA's current device."""
        return int(self._pool.used_bytes()) + sum(int(pool.memory.used_bytes()) for pool in self.pools)

    def reserved(self) -> int:
        """Bytes taken from the GPU, while this is CUDA's current device."""
        return int(self._pool.total_bytes()) + sum(int(pool.memory.total_bytes()) for pool in self.pools)

    def lend(self, streams: Iterable[Stream], memory: Any) -> None:
        """Keep memory that was freed until what these streams have now is done."""
        if local.recording is not None:  # whose streams have it again with every replay
            local.recording.keep.append(memory)
            return
        events = []
        try:
            for stream in streams:
                with stream.device.guarded("keeping memory for another stream"):
                    event = stream.device.new_event()
                    stream.handle.record(event)
                    events.append(event)
        except CudaError:  # the GPU has failed, which the next call says: nobody will use this memory
            return
        if not all(event.done for event in events):
            self.lent.append((events, memory))

    def _take_back(self) -> None:
        for _ in range(len(self.lent)):
            try:
                events, memory = self.lent.popleft()
            except IndexError:  # another thread was here
                return
            if not all(event.done for event in events):
                self.lent.append((events, memory))


class Session:
    """What kiln holds of one CuPy."""

    def __init__(self, cupy: Any) -> None:
        cuda = cupy.cuda
        self.cupy = cupy
        self.runtime = cuda.runtime
        self.nvrtc = cuda.nvrtc
        self.launch: Callable[..., None] = cuda.driver.launchKernel
        self.copy: Callable[[int, int, int, int, int], None] = cuda.runtime.memcpyAsync
        self.errors: tuple[type[Exception], ...] = (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError)
        self.current_stream: Callable[[], Any] = cuda.get_current_stream
        self.out_of_memory: type[Exception] = cuda.memory.OutOfMemoryError
        self.debug = debugging()
        try:
            self.count: int = self.runtime.getDeviceCount()
        except self.errors as error:
            status = getattr(error, "status", 0)
            if status in _NO_DRIVER:
                message = f"there is no NVIDIA driver that CuPy can use ({error})"
                raise CudaError("driver", message, "install one, or use the CPU") from None
            if status == _NOT_INITIALIZED:
                message = f"CUDA can't be used in this process ({error}): as after a fork of one that had used it"
                raise CudaError("driver", message, _SPAWN) from None
            raise CudaError("device", f"there is no GPU ({error})", "use the CPU") from None
        self.gpus = [Gpu(self, index) for index in range(self.count)]

    def ready(self, status: int) -> bool:
        """What the status of a query means: done, or not yet. Anything else is raised as CuPy's error."""
        if status not in (0, _NOT_READY):
            raise self.runtime.CUDARuntimeError(status)
        return status == 0


def said(error: BaseException) -> str:
    """What an error says, in one line: CuPy's may be a page, with what went wrong below."""
    return " ".join(re.sub("={9,}", "", str(error).rpartition("Original error:")[2]).split())


_lock: Final = threading.Lock()
_opened: list[Session] = []
_inherited: Final[list[Session]] = []
_forked = False
_SPAWN: Final = 'start processes with multiprocessing.set_start_method("spawn")'


def session() -> Session:
    """The session; CudaError of kind "cupy" or "driver" when there can't be one."""
    found = _opened[0] if _opened else None
    if found is not None and sys.modules.get("cupy") is found.cupy:
        return found
    if _forked:
        raise CudaError(
            "driver",
            "CUDA was used before this process was forked, and can't be used in a child",
            _SPAWN,
        )
    with _lock:
        try:
            import cupy
        except ImportError as error:
            fix = "pip install 'cupy-cuda13x[ctk]', or use the CPU"
            raise CudaError("cupy", f"GPUs need CuPy, which can't be imported ({said(error)})", fix) from None
        if not _opened or _opened[0].cupy is not cupy:
            made = Session(cupy)
            _opened[:] = [made]
        return _opened[0]


def opened() -> bool:
    """Whether something has asked for a GPU yet."""
    return bool(_opened)


def gpu(index: int = 0) -> Gpu:
    """A GPU by number; CudaError says why there is none."""
    gpus = session().gpus
    if not 0 <= index < len(gpus):
        have = "no GPU" if not gpus else "one GPU, number 0" if len(gpus) == 1 else f"{len(gpus)} GPUs, from number 0"
        raise CudaError("device", f"there is no GPU {index}: this machine has {have}", 'device="cuda:0", or the CPU')
    return gpus[index]


def current_device() -> int:
    """The number of this thread's current GPU, whether or not there is one."""
    return local.device


def device_count() -> int:
    """How many GPUs kiln can use; 0 without CuPy or a driver."""
    try:
        return session().count
    except CudaError:
        return 0


def check(index: int = 0) -> None:
    """CudaError when GPU `index` can't be used: no CuPy, no driver, no such GPU, or it has failed."""
    gpu(index).check()


def synchronize(index: int = 0) -> None:
    """Wait for all work of a GPU; CudaError when some of it failed."""
    found = gpu(index)
    if local.recording is not None:
        unrecorded("waiting for a GPU")
    if _waits.mode:
        _waits.notice()
    with found.guarded("waiting for the GPU"):
        found.settle()


def _after_fork() -> None:
    global _forked
    if _opened:
        _forked = True
        for each in _opened[0].gpus:
            each.fault = "CUDA was used before this process was forked, and can't be used in a child"
        _inherited.extend(_opened)  # CuPy's streams and events would be destroyed with it, which fails in a child
        _opened.clear()


os.register_at_fork(after_in_child=_after_fork)
