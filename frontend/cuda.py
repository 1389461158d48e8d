"""`kiln.cuda`: GPUs by number, their memory, streams and events, with PyTorch's names and meanings.

```python
if kiln.cuda.is_available():
    x = kiln.randn(4, 4, device="cuda")
    print(kiln.cuda.get_device_name(), kiln.cuda.memory_allocated())
```

Launches and copies go to the current stream of the tensors' device, which each thread chooses with `stream`.
docs/cuda.md says what runs on GPUs, and how.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from kiln import cuda_amp as amp
from kiln.base import MODES, TensorBase
from kiln.device import device as _device
from kiln.errors import ArgumentError, DeviceError, InvalidValueError, from_check, from_cuda
from kiln.errors import OutOfMemoryError as OutOfMemoryError
from kiln.ir.types import Device, device_at
from kiln.runtime.sequence import ProgramError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from kiln.random import Generator
    from kiln.runtime import cuda as _types
    from kiln.runtime.cuda_driver import Gpu
    from kiln.tensor import Tensor

__all__ = [
    "CUDAGraph", "Event", "OutOfMemoryError", "Stream", "StreamContext", "amp", "current_device", "current_stream",
    "default_stream", "device", "device_count", "device_of", "empty_cache", "get_device_capability",
    "get_device_name", "get_device_properties", "get_rng_state", "get_rng_state_all", "get_sync_debug_mode",
    "graph", "graph_pool_handle", "init", "initial_seed", "is_available", "is_bf16_supported",
    "is_current_stream_capturing", "is_initialized", "make_graphed_callables", "manual_seed", "manual_seed_all",
    "max_memory_allocated", "max_memory_reserved", "mem_get_info", "memory_allocated", "memory_reserved",
    "memory_stats", "memory_summary", "reset_peak_memory_stats", "seed", "seed_all", "set_device",
    "set_launch_blocking", "set_rng_state", "set_rng_state_all", "set_stream", "set_sync_debug_mode", "stream",
    "synchronize",
]  # fmt: skip

_NOW = frozenset({
    "Stream", "current_stream", "empty_cache", "mem_get_info", "memory_stats", "memory_summary",
    "reset_peak_memory_stats", "synchronize",
})  # fmt: skip
"""What is about the moment of the call."""
_Stream = TypeVar("_Stream", bound="Stream")


def _runtime() -> Any:
    """`kiln.runtime.cuda`, which is not imported before somebody asks for a GPU."""
    from kiln.runtime import cuda

    return cuda


def _gpu(op: str, wanted: Any = None) -> Gpu:
    """The GPU that an argument names; None is the current one. DeviceError when it is not there."""
    if op in _NOW and MODES.recorder is not None:
        MODES.recorder.reject(
            f"kiln.cuda.{op}() tells or changes what a compiled call could not do again",
            fix="call it outside the compiled function",
        )
    runtime = _runtime()
    index = _index(op, wanted)
    try:
        found: Gpu = runtime.gpu(runtime.current_device() if index is None else index)
        found.check()
    except runtime.CudaError as error:
        raise from_cuda(error, op) from None
    return found


def _index(op: str, wanted: Any) -> int | None:
    """The number that a device argument has; None when it does not say."""
    if wanted is None or (isinstance(wanted, int) and not isinstance(wanted, bool)):
        return wanted
    if wanted == "cuda":
        return None
    found: Device = _device(wanted)
    if found.kind != "cuda":
        raise InvalidValueError(f"expected a GPU, got {found}", op=op, fix='for example "cuda:0"')
    return found.slot


# ------------------------------------------------------------------------------------------------- which GPUs there are


def is_available() -> bool:
    """Whether tensors can be put on a GPU: there are CuPy, a driver and a GPU."""
    return device_count() > 0


def device_count() -> int:
    """How many GPUs there are; 0 without CuPy or a driver."""
    return int(_runtime().device_count())


def is_initialized() -> bool:
    """Whether something has used a GPU in this process yet."""
    return bool(_runtime().opened())


def init() -> None:
    """Import CuPy and look for GPUs now, which the first use does otherwise. DeviceError when there are none."""
    _gpu("init")


def current_device() -> int:
    """The number of the GPU that "cuda" means on this thread."""
    return _gpu("current_device").index


def set_device(device: Any) -> None:
    """Make this GPU the one that "cuda" means on this thread. A negative number or None changes nothing."""
    index = _index("set_device", device)
    if index is not None and index >= 0:
        _gpu("set_device", index).choose()
        MODES.gpu = index


class device:
    """`with kiln.cuda.device(1):` "cuda" means this GPU on this thread. A negative number or None changes nothing."""

    def __init__(self, device: Any) -> None:
        found = _index("device", device)
        self.idx = -1 if found is None else found
        self.prev_idx = -1

    def __enter__(self) -> None:
        if self.idx >= 0:
            self.prev_idx = current_device()
            set_device(self.idx)

    def __exit__(self, *_: object) -> None:
        set_device(self.prev_idx)


class device_of(device):
    """`with kiln.cuda.device_of(tensor):` the GPU of that tensor; for one on the CPU nothing changes."""

    def __init__(self, obj: Any) -> None:
        place = obj.device if isinstance(obj, TensorBase) else None
        super().__init__(place.slot if place is not None and place.kind == "cuda" else -1)


@dataclass(frozen=True)
class DeviceProperties:
    """What `get_device_properties` tells: `name`, compute capability `major`.`minor`, `total_memory` in bytes, and
    `multi_processor_count`."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int


def get_device_properties(device: Any = None) -> DeviceProperties:
    """Name, compute capability, memory and multiprocessors of a GPU."""
    found = _gpu("get_device_properties", device).properties
    return DeviceProperties(
        found["name"].decode(errors="replace"),
        found["major"],
        found["minor"],
        found["totalGlobalMem"],
        found["multiProcessorCount"],
    )


def get_device_name(device: Any = None) -> str:
    """The name of a GPU."""
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The compute capability of a GPU: (9, 0) for one that machine code for sm_90 runs on."""
    found = get_device_properties(device)
    return found.major, found.minor


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether there is arithmetic on bfloat16: as everywhere in kiln, it is rounded from float32."""
    return including_emulation and is_available()


# ------------------------------------------------------------------------------------------------------------- memory


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, total) bytes of a GPU, whoever uses the rest."""
    place = _gpu("mem_get_info", device)
    with place.guarded("asking for free memory"):
        free, total = place.session.runtime.memGetInfo()
    return int(free), int(total)


def memory_stats(device: Any = None) -> dict[str, int]:
    """Bytes by name: "allocated_bytes.all.current" and ".peak", those of tensors and programs in 512-byte steps;
    "reserved_bytes.all.current" and ".peak", those taken from the GPU, of which the rest is kept for reuse. Empty
    before a GPU was used."""
    if not is_initialized():
        return {}
    place = _gpu("memory_stats", device)
    with place.guarded("asking for memory in use"):
        used, reserved = place.used(), place.reserved()
    return {
        "allocated_bytes.all.current": used,
        "allocated_bytes.all.peak": max(place.peak, used),
        "reserved_bytes.all.current": reserved,
        "reserved_bytes.all.peak": max(place.peak_reserved, reserved),
    }


def memory_allocated(device: Any = None) -> int:
    """Bytes in use by tensors and programs."""
    return memory_stats(device).get("allocated_bytes.all.current", 0)


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that were in use since `reset_peak_memory_stats`."""
    return memory_stats(device).get("allocated_bytes.all.peak", 0)


def memory_reserved(device: Any = None) -> int:
    """Bytes taken from the GPU, in use or kept for reuse."""
    return memory_stats(device).get("reserved_bytes.all.current", 0)


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes that were taken from the GPU since `reset_peak_memory_stats`."""
    return memory_stats(device).get("reserved_bytes.all.peak", 0)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Let the peaks begin again at what is in use now."""
    place = _gpu("reset_peak_memory_stats", device)
    with place.guarded("asking for memory in use"):
        place.peak, place.peak_reserved = place.used(), place.reserved()


def empty_cache() -> None:
    """Give memory that is kept for reuse back to the GPUs."""
    if not is_initialized():
        return
    for index in range(device_count()):
        place = _gpu("empty_cache", index)
        with place.guarded("giving memory back"):
            place.release_idle()


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The statistics as a table to read."""
    place = _gpu("memory_summary", device)
    free, total = mem_get_info(place.index)
    stats = memory_stats(place.index)
    rows = [(f"kiln memory summary, GPU {place.index}", "current", "peak")]
    for name, key in (("in use", "allocated_bytes"), ("taken from the GPU", "reserved_bytes")):
        rows.append((name, f"{stats[f'{key}.all.current']:,}", f"{stats[f'{key}.all.peak']:,}"))
    if not abbreviated:
        rows += [("free on the GPU", f"{free:,}", ""), ("on the GPU in all", f"{total:,}", "")]
    return "\n".join(f"{name:<32}{now:>20}{peak:>20}" for name, now, peak in rows)


# -------------------------------------------------------------------------------------------------- streams and events


class Stream:
    """A queue of work of one GPU: what is in different queues may run at the same time.

    `Stream(device)` is one of 32 per GPU, in turn, which do not wait for the default stream. `priority` changes
    nothing. As in PyTorch, who uses a tensor on another stream than it was made on sees to the order (`wait_stream`)
    and tells the tensor's memory (`Tensor.record_stream`).
    """

    __slots__ = ("_context", "queue")

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        place = _gpu("Stream", device)
        with _typed("Stream"):
            self.queue: _types.Stream = place.new_stream()
        self._context: list[StreamContext] = []

    @classmethod
    def _of(cls: type[_Stream], queue: _types.Stream) -> _Stream:
        made = cls.__new__(cls)
        made.queue, made._context = queue, []
        return made

    @property
    def device(self) -> Device:
        """The GPU that it belongs to."""
        return device_at("cuda", self.queue.device.index)

    @property
    def cuda_stream(self) -> int:
        """CUDA's handle; 0 is the default stream."""
        return self.queue.ptr

    def __cuda_stream__(self) -> tuple[int, int]:
        """How other libraries take it: `cupy.cuda.Stream.from_external(stream)`."""
        return 0, self.queue.ptr

    def synchronize(self) -> None:
        """Wait until all work on it is done."""
        with _typed("Stream.synchronize"):
            self.queue.wait()

    def query(self) -> bool:
        """Whether all work on it is done."""
        with _typed("Stream.query"):
            return self.queue.done()

    def wait_event(self, event: Event) -> None:
        """What comes next on this stream runs after what the event marks."""
        event.wait(self)

    def wait_stream(self, stream: Stream) -> None:
        """What comes next on this stream runs after what `stream` has now."""
        self.wait_event(stream.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        """Mark with an event, by default a new one, what this stream has now; returns it."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def __enter__(self: _Stream) -> _Stream:
        self._context.append(stream(self))
        self._context[-1].__enter__()
        return self

    def __exit__(self, *of: Any) -> None:
        self._context.pop().__exit__(*of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.queue.ptr == self.queue.ptr and other.device == self.device

    def __hash__(self) -> int:
        return hash((self.queue.ptr, self.queue.device.index))

    def __repr__(self) -> str:
        return f"<kiln.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


class Event:
    """A mark in a stream: others can wait for it, and with `enable_timing` tell the time between two of them."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        if interprocess:
            raise InvalidValueError("events are of one process", op="Event", fix="leave interprocess= out")
        self._timing = enable_timing
        self._handle: Any = None
        self._queue: _types.Stream | None = None

    def record(self, stream: Stream | None = None) -> None:
        """Mark what `stream`, by default the current one, has now. DeviceError if it was recorded on another GPU."""
        queue = (current_stream() if stream is None else stream).queue
        if self._queue is not None and self._queue.device is not queue.device:
            have = f"cuda:{self._queue.device.index}"
            raise DeviceError(f"the event is of {have}, the stream of cuda:{queue.device.index}", op="Event.record")
        with _typed("Event.record"), queue.device.guarded("recording an event"):
            if self._handle is None:
                self._handle = queue.device.new_event(self._timing)
            queue.handle.record(self._handle)
        self._queue = queue

    def wait(self, stream: Stream | None = None) -> None:
        """What comes next on `stream`, by default the current one, runs after what this event marks."""
        queue = (current_stream() if stream is None else stream).queue
        if self._handle is not None:
            with _typed("Event.wait"), queue.device.guarded("waiting for an event"):
                queue.handle.wait_event(self._handle)

    def query(self) -> bool:
        """Whether what it marks is done; true before anything was marked."""
        if self._queue is None:
            return True
        with _typed("Event.query"):
            return self._queue.device.done(self._handle)

    def synchronize(self) -> None:
        """Wait until what it marks is done."""
        if self._queue is not None:
            with _typed("Event.synchronize"):
                self._queue.device.wait_for(self._handle)

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds between this mark and `end_event`, both of which must be done."""
        if not (self._timing and end_event._timing):
            raise InvalidValueError("both events need a clock", op="elapsed_time", fix="Event(enable_timing=True)")
        if self._queue is None or end_event._queue is None:
            raise InvalidValueError("both events must be recorded first", op="elapsed_time")
        if not (self.query() and end_event.query()):
            raise InvalidValueError("an event is not done", op="elapsed_time", fix="end_event.synchronize()")
        place = self._queue.device
        with _typed("elapsed_time"), place.guarded("asking for a time"):
            return float(place.session.cupy.cuda.get_elapsed_time(self._handle, end_event._handle))

    def __repr__(self) -> str:
        return "<kiln.cuda.Event uninitialized>" if self._handle is None else f"<kiln.cuda.Event {self._handle.ptr:#x}>"


class StreamContext:
    """What `stream` returns."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream
        self._before: list[tuple[Stream, Stream]] = []

    def __enter__(self) -> None:
        if self.stream is not None:
            self._before.append((current_stream(), current_stream(self.stream.device)))
            set_stream(self.stream)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.stream is not None:
            here, there = self._before.pop()
            set_stream(there)
            set_stream(here)


def stream(stream: Stream | None) -> StreamContext:
    """`with kiln.cuda.stream(s):` launches and copies of this thread on that GPU go to `s`, and its GPU is the current
    one. None changes nothing."""
    if stream is not None and not isinstance(stream, Stream):
        raise ArgumentError(f"expected a kiln.cuda.Stream, got a {type(stream).__name__}", op="stream")
    return StreamContext(stream)


def set_stream(stream: Stream) -> None:
    """Make `stream` the current one of its GPU, and that the current GPU, for this thread."""
    place = stream.queue.device
    place.use(stream.queue)
    set_device(place.index)


def current_stream(device: Any = None) -> Stream:
    """Where launches and copies of this thread on a GPU go."""
    return Stream._of(_gpu("current_stream", device).stream())


def default_stream(device: Any = None) -> Stream:
    """The stream that is current unless a thread has chosen another."""
    return Stream._of(_gpu("default_stream", device).default)


def synchronize(device: Any = None) -> None:
    """Wait for all work of a GPU. DeviceError when some of it failed."""
    place = _gpu("synchronize", device)
    with _typed("synchronize"):
        _runtime().synchronize(place.index)


class _typed:
    """Errors of the runtime as kiln's, named after what was asked for."""

    def __init__(self, op: str) -> None:
        self.op = op

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        runtime = _runtime()
        if isinstance(error, runtime.CudaError):
            raise from_cuda(error, self.op) from None


# -------------------------------------------------------------------------------------------------------------- graphs


class CUDAGraph:
    """Work of a GPU that is recorded once, between `capture_begin` and `capture_end` (see `graph`), and then given to
    it as a whole by `replay`, however many kernels there are.

    A replay does the same work on the same memory: what it reads is to be put there (`copy_`), and what it made lies
    where it was made, until the next replay overwrites it. The graph keeps all memory that its kernels use alive.
    Nothing of what is recorded is done while it is recorded; so nothing in it may wait for the GPU, copy from or to the
    host, or be compiled for the first time. `kiln.compile(..., mode="reduce-overhead")` knows none of these limits.
    """

    def __init__(self) -> None:
        self._recording: _types.Recording | None = None
        self._pool: _types.Pool | None = None
        self._recorded = False

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        """Record what this thread gives its current stream, which can't be the default one. `pool`: of another graph
        that is never replayed at the same time, whose memory this one may use."""
        op = "CUDAGraph.capture_begin"
        if capture_error_mode not in ("global", "thread_local", "relaxed"):
            raise InvalidValueError(f"unknown mode {capture_error_mode!r}", op=op, fix='leave it at "global"')
        if self._recording is not None:
            raise InvalidValueError("the graph has been recorded", op=op, fix="reset() it, or make another one")
        runtime = _runtime()
        if runtime.recording() is not None:
            raise InvalidValueError("this thread records a graph already", op=op, fix="end that first")
        queue = current_stream().queue
        if queue.ptr == 0:
            raise InvalidValueError(
                "the default stream can't be recorded", op=op, fix="with kiln.cuda.graph(g), or kiln.cuda.stream(s)"
            )
        with _typed(op):
            self._pool = runtime.Pool(queue.device) if pool is None else pool._pool_of(queue.device)
            made = runtime.Recording(self._pool, queue)
            made.begin()
        self._recording = made

    def capture_end(self) -> None:
        """The end of what is recorded. DeviceError when something in it could not be."""
        if self._recording is None or _runtime().recording() is not self._recording:
            raise InvalidValueError("this thread does not record this graph", op="CUDAGraph.capture_end")
        try:
            with _typed("CUDAGraph.capture_end"):
                self._recording.end()
            self._recorded = True
        finally:
            if not self._recorded:
                self.reset()

    def replay(self) -> None:
        """Give the current stream what was recorded. If it checks something (indices), this waits, and raises the error
        of the first check that failed; what the graph writes in place is written then."""
        if self._recording is None or not self._recorded:
            raise InvalidValueError("nothing has been recorded", op="CUDAGraph.replay", fix="with kiln.cuda.graph(g)")
        with _typed("CUDAGraph.replay"):
            try:
                self._recording.replay(self._recording.place.stream())
            except ProgramError as failure:
                raise from_check(failure.site, failure.value) from None

    def reset(self) -> None:
        """Forget what was recorded, and let go of its memory."""
        self._recording, self._recorded = None, False

    def pool(self) -> Any:
        """For the `pool` of other graphs: they share memory with this one."""
        handle = graph_pool_handle()
        handle.pool = self._pool
        return handle


class _PoolHandle:
    """Memory that graphs share, made when the first of them needs it."""

    def __init__(self) -> None:
        self.pool: _types.Pool | None = None

    def _pool_of(self, place: Gpu) -> _types.Pool:
        if self.pool is None:
            self.pool = _runtime().Pool(place)
        if self.pool.place is not place:
            have = f"cuda:{self.pool.place.index}"
            raise DeviceError(f"the pool is of {have}, the graph of cuda:{place.index}", op="CUDAGraph.capture_begin")
        return self.pool


def graph_pool_handle() -> Any:
    """For the `pool` of graphs that are never replayed at the same time: they share memory."""
    return _PoolHandle()


class graph:
    """`with kiln.cuda.graph(g):` what is done inside is recorded in the `CUDAGraph` `g`, and not done before
    `g.replay()`. Goes to `stream`, by default to one of its own.

    ```python
    static = kiln.zeros(64, 784, device="cuda")
    model(static)                     # once as it is: what happens the first time only can't be recorded
    g = kiln.cuda.CUDAGraph()
    with kiln.cuda.graph(g), kiln.no_grad():
        scores = model(static)
    for x in batches:
        static.copy_(x)
        g.replay()                    # scores holds the results for x
    ```
    """

    def __init__(
        self, cuda_graph: CUDAGraph, pool: Any = None, stream: Stream | None = None, capture_error_mode: str = "global"
    ) -> None:
        self.cuda_graph = cuda_graph
        self._how = {"pool": pool, "capture_error_mode": capture_error_mode}
        self._stream = stream

    def __enter__(self) -> None:
        synchronize()
        gc.collect()
        self._context = StreamContext(Stream() if self._stream is None else self._stream)
        self._context.__enter__()
        try:
            self.cuda_graph.capture_begin(**self._how)
        except BaseException:
            self._context.__exit__(None, None, None)
            raise

    def __exit__(self, kind: Any, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if error is None:
                self.cuda_graph.capture_end()
            elif (recording := self.cuda_graph._recording) is not None:
                self.cuda_graph.reset()
                recording.give_up()
        finally:
            self._context.__exit__(kind, error, traceback)


def is_current_stream_capturing() -> bool:
    """Whether this thread records a graph."""
    return is_initialized() and _runtime().recording() is not None


def make_graphed_callables(
    callables: Any, sample_args: Any, num_warmup_iters: int = 3, allow_unused_input: bool = False, pool: Any = None
) -> Any:
    """Functions or modules that run as CUDA graphs, forward and backward: `kiln.compile` of them with
    mode="reduce-overhead", called `num_warmup_iters` times with `sample_args` (a tuple for each of them) so that their
    code is there. Of a module, its `forward` becomes that. Unlike PyTorch's they take other sizes too.
    `allow_unused_input` and `pool` change nothing."""
    from kiln.jit import compile

    several = isinstance(callables, tuple)
    made = []
    for each, args in zip(*((callables, sample_args) if several else ((callables,), (sample_args,))), strict=True):
        if hasattr(type(each), "named_parameters"):
            each.forward = compile(each.forward, mode="reduce-overhead")
            made.append(each)
        else:
            made.append(compile(each, mode="reduce-overhead"))
        for _ in range(num_warmup_iters):
            made[-1](*args)
    return tuple(made) if several else made[0]


# ----------------------------------------------------------------------------------------------------------- debugging


def set_sync_debug_mode(debug_mode: int | str) -> None:
    """Where the host waits for a GPU: nothing happens ("default" or 0), a warning ("warn" or 1), an error ("error" or
    2). Copies to the host, `item()`, checks of programs, branches and loops on tensors, and ops that a library computes
    wait."""
    modes = ("default", "warn", "error")
    if debug_mode not in (*modes, 0, 1, 2):
        raise InvalidValueError(f"the mode is one of {modes} or 0, 1, 2, not {debug_mode!r}", op="set_sync_debug_mode")
    _runtime().set_wait_mode(modes.index(debug_mode) if isinstance(debug_mode, str) else debug_mode)


def get_sync_debug_mode() -> int:
    """The mode as a number."""
    return int(_runtime().wait_mode())


def set_launch_blocking(enabled: bool) -> None:
    """Wait after every launch, so that an error names the kernel that failed: as with KILN_CUDA_DEBUG=1 in the
    environment. Slow."""
    _gpu("set_launch_blocking").session.debug = bool(enabled)


# ------------------------------------------------------------------------------------------------------ random numbers


def _generators(op: str, device: Any = None, all_of_them: bool = False) -> list[Generator]:
    """The default generators of a GPU, or of all; none without a GPU."""
    if not is_available():
        return []
    from kiln.random import default_generator_of

    indices = range(device_count()) if all_of_them else [_gpu(op, device).index]
    return [default_generator_of(device_at("cuda", index)) for index in indices]


def manual_seed(seed: int) -> None:
    """Seed the current GPU's default generator; without a GPU, nothing."""
    for generator in _generators("manual_seed"):
        generator.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed the default generators of all GPUs; without a GPU, nothing."""
    for generator in _generators("manual_seed_all", all_of_them=True):
        generator.manual_seed(seed)


def seed() -> None:
    """Seed the current GPU's default generator from the system; without a GPU, nothing."""
    for generator in _generators("seed"):
        generator.seed()


def seed_all() -> None:
    """Seed the default generators of all GPUs from the system, alike; without a GPU, nothing."""
    generators = _generators("seed_all", all_of_them=True)
    if generators:
        number = generators[0].seed()
        for generator in generators[1:]:
            generator.manual_seed(number)


def initial_seed() -> int:
    """The seed that the current GPU's default generator started from."""
    return _generator("initial_seed").initial_seed()


def get_rng_state(device: Any = "cuda") -> Tensor:
    """A copy of the state of a GPU's default generator, int64[2] on the CPU."""
    return _generator("get_rng_state", device).get_state()


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Give a GPU's default generator a state that `get_rng_state` gave."""
    generator = _generator("set_rng_state", device)
    generator.set_state(new_state)


def get_rng_state_all() -> list[Tensor]:
    """The states of the default generators of all GPUs."""
    return [generator.get_state() for generator in _generators("get_rng_state_all", all_of_them=True)]


def set_rng_state_all(new_states: Sequence[Tensor]) -> None:
    """Give the default generators of all GPUs the states that `get_rng_state_all` gave."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)


def _generator(op: str, device: Any = None) -> Generator:
    from kiln.random import default_generator_of

    return default_generator_of(device_at("cuda", _gpu(op, device).index))


sys.modules[f"{__name__}.amp"] = amp  # so that `from kiln.cuda.amp import autocast` finds it
