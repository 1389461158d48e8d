"""The fake CuPy does what CuPy does, and tells of what CUDA would leave undefined."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu import fake_device, shim
from tests.gpu.conftest import Gpu

OPTIONS = ("-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true", "--std=c++17", "-arch=sm_90")
SCALE = r"""
extern "C" __global__ void __launch_bounds__(128)
scale(const float *x, float *y, const float by, const long long n)
{
    const long long i = (long long)blockIdx.x * 128 + threadIdx.x;
    if (i < n) y[i] = by * x[i];
}
"""


@pytest.fixture
def cupy(fake: Gpu) -> Iterator[Any]:
    """It works at once unless a test says otherwise."""
    import cupy

    with fake.deferred(False):
        yield cupy


def built(cupy: Any, source: str, folder: Path, name: str) -> Any:
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(source, "k.cu", (), ())
    nvrtc.compileProgram(program, OPTIONS)
    path = folder / "k.cubin"
    path.write_bytes(nvrtc.getCUBIN(program))
    nvrtc.destroyProgram(program)
    return cupy.RawModule(path=str(path)).get_function(name)


def launch(cupy: Any, kernel: Any, blocks: int, threads: int, *args: Any, stream: int = 0) -> None:
    """Arguments as ctypes values. Nothing of the call is left when it returns."""
    pointers = (ctypes.c_void_p * len(args))(*map(ctypes.addressof, args))
    address = ctypes.addressof(pointers)
    cupy.cuda.driver.launchKernel(kernel.kernel.ptr, blocks, 1, 1, threads, 1, 1, 0, stream, address, 0)
    ctypes.memset(address, 0, ctypes.sizeof(pointers))
    for a in args:
        ctypes.memset(ctypes.addressof(a), 0, ctypes.sizeof(a))


class Arrays:
    """Arrays on a device, by CuPy's raw calls."""

    def __init__(self, cupy: Any) -> None:
        self.runtime, self.pool = cupy.cuda.runtime, cupy.cuda.MemoryPool()

    def put(self, x: np.ndarray[Any, Any]) -> Any:
        made = self.pool.malloc(x.nbytes)
        self.runtime.memcpyAsync(made.ptr, x.ctypes.data, x.nbytes, 1, 0)
        return made

    def get(self, memory: Any, like: np.ndarray[Any, Any], stream: int = 0) -> np.ndarray[Any, Any]:
        made = np.empty_like(like)
        self.runtime.memcpyAsync(made.ctypes.data, memory.ptr, made.nbytes, 2, stream)
        return made


@pytest.mark.parametrize("deferred", [False, True])
def test_compile_load_launch_copy(cupy: Any, gpu: Gpu, tmp_path: Path, deferred: bool) -> None:
    arrays = Arrays(cupy)
    kernel = built(cupy, SCALE, tmp_path, "scale")
    x = np.arange(1000, dtype=np.float32)
    with gpu.deferred(deferred):
        a, b = arrays.put(x), arrays.pool.malloc(x.nbytes)
        by, n = ctypes.c_float(3), ctypes.c_int64(1000)
        launch(cupy, kernel, 8, 128, ctypes.c_void_p(a.ptr), ctypes.c_void_p(b.ptr), by, n)
        assert (arrays.get(b, x) == 3 * x).all()


def test_new_memory_has_a_pattern_and_the_host_cannot_read_it(cupy: Any) -> None:
    arrays = Arrays(cupy)
    memory = arrays.pool.malloc(100)
    assert set(arrays.get(memory, np.empty(100, np.uint8))) == {0xA5}
    assert memory.ptr >> 47  # no address of the host


@pytest.mark.parametrize(
    "dst, src, kind",
    [("host", "device", 1), ("device", "host", 2), ("host", "host", 2), ("device", "device", 1), ("device", "host", 3)],
)
def test_mixed_up_pointers(cupy: Any, dst: str, src: str, kind: int) -> None:
    arrays = Arrays(cupy)
    x = np.zeros(10)
    memory, other = arrays.put(x), np.zeros(10)
    at = {"host": other.ctypes.data, "device": memory.ptr}
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidValue: invalid argument") as caught:
        cupy.cuda.runtime.memcpyAsync(at[dst], at[src], 80, kind, 0)
    assert caught.value.status == 1


def test_copies_beyond_an_allocation(cupy: Any) -> None:
    arrays = Arrays(cupy)
    x = np.zeros(10)
    memory = arrays.put(x)
    gone = arrays.put(x)
    address = gone.ptr
    del gone
    for call in (
        lambda: cupy.cuda.runtime.memcpyAsync(memory.ptr, x.ctypes.data, 81, 1, 0),
        lambda: cupy.cuda.runtime.memcpyAsync(memory.ptr + 8, x.ctypes.data, 80, 1, 0),
        lambda: cupy.cuda.runtime.memsetAsync(memory.ptr - 1, 0, 8, 0),
        lambda: cupy.cuda.runtime.memcpyAsync(x.ctypes.data, address, 80, 2, 0),
    ):
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError) as caught:
            call()
        assert caught.value.status == 1


def test_compile_errors(cupy: Any, tmp_path: Path) -> None:
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram('\nextern "C" __global__ void f(int *a) { *a = INFINITY; }', "k.cu", (), ())
    with pytest.raises(nvrtc.NVRTCError, match=r"NVRTC_ERROR_COMPILATION \(6\)"):
        nvrtc.compileProgram(program, OPTIONS)
    log = nvrtc.getProgramLog(program)
    assert "k.cu:2:" in log and "INFINITY" in log
    with pytest.raises(nvrtc.NVRTCError, match="NVRTC_ERROR_INVALID_OPTION"):
        nvrtc.compileProgram(program, ("--nope",))
    with pytest.raises(RuntimeError, match="real arch"):
        nvrtc.getCUBIN(program)
    nvrtc.destroyProgram(program)
    with pytest.raises(nvrtc.NVRTCError, match="INVALID_PROGRAM"):
        nvrtc.getProgramLog(program)


def test_bad_cubins(cupy: Any, tmp_path: Path) -> None:
    driver = cupy.cuda.driver
    kernel = built(cupy, SCALE, tmp_path, "scale")
    whole = (tmp_path / "k.cubin").read_bytes()
    assert cupy.RawModule(path=str(tmp_path / "k.cubin")).get_function("scale").kernel.ptr != kernel.kernel.ptr
    (tmp_path / "cut").write_bytes(whole[:-100])
    (tmp_path / "old").write_bytes(whole.replace(b"sm_90", b"sm_80"))
    for name, status in (("none", 301), ("cut", 200), ("old", 209)):
        with pytest.raises(driver.CUDADriverError) as caught:
            _ = cupy.RawModule(path=str(tmp_path / name)).get_function("scale").kernel
        assert caught.value.status == status
    with pytest.raises(driver.CUDADriverError, match="CUDA_ERROR_NOT_FOUND"):
        _ = cupy.RawModule(path=str(tmp_path / "k.cubin")).get_function("other").kernel


def test_bad_launches(cupy: Any, tmp_path: Path) -> None:
    kernel = built(cupy, SCALE, tmp_path, "scale").kernel
    for size in ((0, 1, 1, 128, 1, 1), (1, 1, 1, 129, 1, 1), (1, 65536, 1, 128, 1, 1)):
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
            cupy.cuda.driver.launchKernel(kernel.ptr, *size, 0, 0, 1, 0)
    with pytest.raises(OverflowError):
        cupy.cuda.driver.launchKernel(kernel.ptr, -1, 1, 1, 128, 1, 1, 0, 0, 1, 0)
    with cupy.cuda.Device(1), pytest.raises(cupy.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_HANDLE"):
        cupy.cuda.driver.launchKernel(kernel.ptr, 1, 1, 1, 128, 1, 1, 0, 0, 1, 0)


def test_devices_have_memory_of_their_own(cupy: Any, gpu: Gpu, tmp_path: Path) -> None:
    arrays = Arrays(cupy)
    x = np.arange(8, dtype=np.float32)
    a = arrays.put(x)
    with cupy.cuda.Device(1):
        assert cupy.cuda.runtime.getDevice() == 1
        assert arrays.pool.used_bytes() == 0
        b = arrays.pool.malloc(x.nbytes)
        cupy.cuda.runtime.memcpyAsync(b.ptr, a.ptr, x.nbytes, 3, 0)
        kernel = built(cupy, SCALE, tmp_path, "scale")
        by, n = ctypes.c_float(3), ctypes.c_int64(8)
        launch(cupy, kernel, 1, 128, ctypes.c_void_p(b.ptr), ctypes.c_void_p(b.ptr), by, n)
        assert (arrays.get(b, x) == 3 * x).all()
        by, n = ctypes.c_float(3), ctypes.c_int64(8)
        launch(cupy, kernel, 1, 128, ctypes.c_void_p(a.ptr), ctypes.c_void_p(b.ptr), by, n)
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorIllegalAddress"):
            cupy.cuda.runtime.deviceSynchronize()
    assert arrays.pool.used_bytes() == 512
    cupy.cuda.runtime.deviceSynchronize()  # the other device still works
    (said,) = gpu.errors()
    assert "device 1: scale: an illegal memory access" in said
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="invalid device ordinal"), cupy.cuda.Device(2):
        pass


def test_a_host_pointer_and_an_overrun_are_errors_of_the_kernel(cupy: Any, gpu: Gpu, tmp_path: Path) -> None:
    arrays = Arrays(cupy)
    kernel = built(cupy, SCALE, tmp_path, "scale")
    x = np.arange(1000, dtype=np.float32)
    a, b = arrays.put(x), arrays.put(x)
    for source, count in ((x.ctypes.data, 1000), (a.ptr, 1001)):
        by, n = ctypes.c_float(3), ctypes.c_int64(count)
        launch(cupy, kernel, 8, 128, ctypes.c_void_p(source), ctypes.c_void_p(b.ptr), by, n)
        for _ in range(2):  # from then on nothing works
            with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorIllegalAddress"):
                arrays.get(b, x)
        assert len(gpu.errors()) == 1
    short = arrays.put(x[:1])
    by, n = ctypes.c_float(3), ctypes.c_int64(2)  # beside the memory, where no guard page is
    launch(cupy, kernel, 1, 128, ctypes.c_void_p(a.ptr), ctypes.c_void_p(short.ptr), by, n)
    (said,) = gpu.errors()
    assert "scale: something was written after" in said


def test_the_pool(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = cupy.cuda.MemoryPool()
    a, b = pool.malloc(1), pool.malloc(513)
    assert (pool.used_bytes(), pool.total_bytes()) == (1536, 1536)
    assert a.mem.size == 512 and a.ptr == a.mem.ptr and a.mem.device_id == 0
    del a
    assert (pool.used_bytes(), pool.total_bytes()) == (1024, 1536)
    c = pool.malloc(100)
    assert (pool.used_bytes(), pool.total_bytes()) == (1536, 1536)
    del b, c
    pool.free_all_blocks()
    assert (pool.used_bytes(), pool.total_bytes()) == (0, 0)
    pool.set_limit(size=1024)
    kept = pool.malloc(1000)
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="Out of memory allocating 512 bytes") as caught:
        pool.malloc(1)
    assert "allocated so far: 1,024 bytes, limit set to: 1,024 bytes" in str(caught.value)
    free, total = cupy.cuda.runtime.memGetInfo()
    assert total - free >= kept.mem.size
    pool.set_limit()
    monkeypatch.setattr(fake_device.state.devices[0], "total", fake_device.state.devices[0].taken)
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        pool.malloc(4096)
    assert pool.malloc(0).ptr == 0


# ---------------------------------------------------------------------------------------------- missing waits


def test_a_missing_wait_between_streams(cupy: Any, gpu: Gpu, tmp_path: Path) -> None:
    """What one stream writes another reads: only with an event between."""
    arrays = Arrays(cupy)
    kernel = built(cupy, SCALE, tmp_path, "scale")
    x = np.arange(8, dtype=np.float32)
    one, two = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    a = arrays.put(x)

    def run(waits: bool) -> bool:
        b = arrays.put(x)
        by, n = ctypes.c_float(3), ctypes.c_int64(8)
        launch(cupy, kernel, 1, 128, ctypes.c_void_p(a.ptr), ctypes.c_void_p(b.ptr), by, n, stream=one.ptr)
        if waits:
            two.wait_event(one.record(cupy.cuda.Event(disable_timing=True)))
        right = bool((arrays.get(b, x, two.ptr) == 3 * x).all())
        one.synchronize()
        assert (arrays.get(b, x, two.ptr) == 3 * x).all()
        return right

    with gpu.deferred():
        assert not run(False)
        assert run(True)
    assert run(False)  # all at once


def test_queries_get_on_and_the_null_stream_waits_for_the_others(cupy: Any, gpu: Gpu, tmp_path: Path) -> None:
    arrays = Arrays(cupy)
    x = np.arange(8, dtype=np.float32)
    a = arrays.put(x)
    with gpu.deferred():
        stream, apart = cupy.cuda.Stream(), cupy.cuda.Stream(non_blocking=True)
        cupy.cuda.runtime.memsetAsync(a.ptr, 0, 4, stream.ptr)
        cupy.cuda.runtime.memsetAsync(a.ptr + 4, 0, 4, apart.ptr)
        event = apart.record()
        assert not event.done and event.done
        cupy.cuda.runtime.memsetAsync(a.ptr + 8, 0, 4, apart.ptr)
        assert arrays.get(a, x).tolist() == [0, 0, 2, 3, 4, 5, 6, 7]
        assert not apart.done and apart.done
        assert arrays.get(a, x).tolist() == [0, 0, 0, 3, 4, 5, 6, 7]


def test_queries_return_errors_and_do_not_raise_them(cupy: Any, gpu: Gpu) -> None:
    runtime = cupy.cuda.runtime
    event = cupy.cuda.Stream.null.record()
    assert event.done and runtime.eventQuery(event.ptr) == runtime.streamQuery(0) == 0
    fake_device.state.devices[0].fail(700, "on purpose")
    assert not event.done and runtime.eventQuery(event.ptr) == runtime.streamQuery(0) == 700
    with pytest.raises(runtime.CUDARuntimeError, match="illegal memory access"):
        event.synchronize()
    assert gpu.errors() and event.done


def test_other_streams_join_a_capture_and_must_come_back(cupy: Any, gpu: Gpu) -> None:
    arrays, runtime = Arrays(cupy), cupy.cuda.runtime
    x = np.arange(4, dtype=np.float32)
    a = arrays.put(x)
    one, two = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    before = two.record()

    def capture(back: bool, ask: Any = None) -> Any:
        one.begin_capture()
        two.wait_event(one.record())
        assert two.is_capturing()
        runtime.memsetAsync(a.ptr, 0, 8, two.ptr)
        end = two.record()
        if back:
            one.wait_event(end)
        if ask is not None:
            ask(end)
        return one.end_capture()

    graph = capture(True)
    assert (arrays.get(a, x) == x).all() and not two.is_capturing()
    graph.launch(two)
    two.synchronize()
    assert arrays.get(a, x).tolist() == [0, 0, 2, 3]
    for back, ask, name in (
        (False, None, "Unjoined"),
        (True, lambda end: end.done, "Invalidated"),
        (True, lambda end: two.done, "Invalidated"),
    ):
        with pytest.raises(runtime.CUDARuntimeError, match=f"cudaErrorStreamCapture{name}"):
            capture(back, ask)
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureIsolation"):
        capture(True, lambda end: one.wait_event(before))
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        one.end_capture()
    pool = cupy.cuda.MemoryPool()
    pool.malloc(512)  # dropped, and kept for reuse
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        capture(True, lambda end: pool.free_all_blocks())  # cudaFree
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureUnmatched"):
        capture(True, lambda end: two.end_capture())
    one.end_capture()


def test_a_launch_needs_a_context_and_little_shared_memory(cupy: Any, tmp_path: Path) -> None:
    kernel = built(cupy, SCALE, tmp_path, "scale").kernel
    said: list[str] = []

    def launched(*before: Any) -> None:
        for call in before:
            call()
        try:
            cupy.cuda.driver.launchKernel(kernel.ptr, 1, 1, 1, 1, 1, 1, 49 << 10, 0, 0, 0)
        except cupy.cuda.driver.CUDADriverError as error:
            said.append(str(error))

    for before in ((), (lambda: cupy.cuda.runtime.setDevice(0),)):
        thread = threading.Thread(target=launched, args=before)
        thread.start()
        thread.join()
    assert said[0].startswith("CUDA_ERROR_INVALID_CONTEXT") and said[1].startswith("CUDA_ERROR_INVALID_VALUE")


def test_pinned_memory_is_read_when_the_copy_is_done(cupy: Any, gpu: Gpu) -> None:
    arrays = Arrays(cupy)
    x = np.arange(8, dtype=np.float32)
    pinned, a, b = cupy.cuda.alloc_pinned_memory(32), arrays.put(x), arrays.put(x)
    with gpu.deferred():
        ctypes.memmove(pinned.ptr, x.ctypes.data, 32)
        cupy.cuda.runtime.memcpyAsync(a.ptr, pinned.ptr, 32, 1, 0)
        ctypes.memset(pinned.ptr, 0, 32)  # too early
        assert (arrays.get(a, x) == 0).all()
        cupy.cuda.runtime.memcpyAsync(pinned.ptr, b.ptr, 32, 2, 0)
        assert ctypes.string_at(pinned.ptr, 32) == bytes(32)
        cupy.cuda.Stream.null.synchronize()
        assert ctypes.string_at(pinned.ptr, 32) == x.tobytes()


def test_memory_is_freed_in_the_order_of_its_stream(cupy: Any, gpu: Gpu, tmp_path: Path) -> None:
    """A program may drop what a queued kernel uses, unless the kernel is on another stream."""
    arrays = Arrays(cupy)
    kernel = built(cupy, SCALE, tmp_path, "scale")
    x = np.arange(8, dtype=np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    for of_kernel in (0, stream.ptr):
        with gpu.deferred():
            a, b = arrays.put(x), arrays.put(x)
            by, n = ctypes.c_float(3), ctypes.c_int64(8)
            launch(cupy, kernel, 1, 128, ctypes.c_void_p(a.ptr), ctypes.c_void_p(b.ptr), by, n, stream=of_kernel)
            del a
            arrays.get(b, x)
        assert bool(gpu.errors()) == bool(of_kernel)


def test_time(cupy: Any) -> None:
    stream = cupy.cuda.Stream()
    a, b = cupy.cuda.Event(), cupy.cuda.Event()
    a.record(stream)
    b.record(stream)
    b.synchronize()
    assert cupy.cuda.get_elapsed_time(a, b) >= 0
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="invalid resource handle"):
        cupy.cuda.get_elapsed_time(a, cupy.cuda.Event())
    assert shim.missing() is None


def test_threads(cupy: Any, tmp_path: Path) -> None:
    """They allocate, launch and drop at the same time; each chooses its own device."""
    kernel = built(cupy, SCALE, tmp_path, "scale")
    right = []

    def work(k: int) -> None:
        arrays, x = Arrays(cupy), np.full(200 + k, k, np.float32)
        with cupy.cuda.Device(k % 2):
            for _ in range(20):
                a, b = arrays.put(x), arrays.pool.malloc(x.nbytes)
                by, n = ctypes.c_float(3), ctypes.c_int64(x.size)
                launch(cupy, kernel, 2, 128, ctypes.c_void_p(a.ptr), ctypes.c_void_p(b.ptr), by, n)
                right.append(bool((arrays.get(b, x) == 3 * x).all()))
                gc.collect(0)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 80
