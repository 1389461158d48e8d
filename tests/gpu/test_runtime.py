"""Programs, memory, copies and faults of `kiln.runtime.cuda`, on the fake CuPy."""

from __future__ import annotations

import gc
import os
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kiln.codegen.cuda import pipeline
from kiln.codegen.cuda.pipeline import compile_cuda
from kiln.codegen.cuda.prelude import HELPERS
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaProgram, CudaText, Launch, Memory, Piece, number
from kiln.ir.graph import SourceLoc
from kiln.ir.parser import parse_graph
from kiln.ir.program import Slot
from kiln.ir.types import TensorType, contiguous_strides, float32
from kiln.runtime import cuda, cuda_driver
from kiln.runtime.cuda import CudaError, DeviceBuffer
from kiln.runtime.sequence import ProgramError
from tests.codegen.graphs import execute, same_bits
from tests.codegen.test_control import COUNT, LIBRARY, compiled
from tests.gpu import fake_device
from tests.gpu.conftest import Gpu
from tests.ir.test_control import PROGRAM, operands

Array = np.ndarray[Any, Any]

ATTENTION = """graph attention(%0: float32[6, 70]) {
  %1 = permute(%0) {dims=(1, 0)} : float32[70, 6]
  %2 = matmul(%0, %1) : float32[6, 6]
  %3 = amax(%2) {dims=(1,)} : float32[6]
  %4 = broadcast(%3) {dims=(0,), shape=(6, 6)} : float32[6, 6]
  %5 = sub(%2, %4) : float32[6, 6]
  %6 = exp(%5) : float32[6, 6]
  %7 = matmul(%6, %0) : float32[6, 70]
  return %7 }"""
ADD = """graph add_two(%0: float32[n, 5], %1: float32[n, 5]) {
  %2 = add(%0, %1) : float32[n, 5]
  %3 = sum(%2) {dims=(1,)} : float32[n]
  return %2, %3 }"""
GATHER = """graph take(%0: float32[8, 3], %1: int64[4]) {
  %2 = gather(%0, %1) {at=(0,), place=(-1, 1), wrap=false} : float32[4, 3]
  return %2 }"""
CONSTANT = """graph constant(%0: float32[3]) {
  %1 = constant() {data=const(float32[3], "0000803f0000004000008040")} : float32[3]
  %2 = mul(%0, %1) : float32[3]
  return %2 }"""
SORT = """graph sorted(%0: float32[3, 700]) {
  %1 = argsort(%0) {descending=false} : int64[3, 700]
  return %1 }"""
INVERT = """graph main(%0: float32[3, 3]) {
  %1 = inv(%0) {check=true} : float32[3, 3]
  %2 = neg(%1) : float32[3, 3]
  return %2 }"""
CUMULATE = """graph sums(%0: float32[4, 33]) {
  %1 = cumsum(%0) {dim=1} : float32[4, 33]
  return %1 }"""


def two_gpus() -> None:
    if cuda.device_count() < 2:
        pytest.skip("needs two GPUs")


@pytest.fixture(autouse=True)
def _clean(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own, GPUs that know no kernels, and no faults left behind."""
    monkeypatch.setenv("KILN_CACHE_DIR", str(tmp_path))
    session = cuda_driver.session()
    for each in session.gpus:
        each.kernels.clear()
    gpu.counts.clear()
    yield
    cuda.set_wait_mode(0)
    session.debug = False
    for each in session.gpus:
        each.fault = ""
        each.use(each.default)


def uploaded(x: Array, index: int = 0) -> DeviceBuffer:
    x = np.ascontiguousarray(x)
    made = DeviceBuffer.allocate(x.nbytes, index)
    cuda.copy_to_device(made, 0, x.ctypes.data, x.nbytes)
    return made


def downloaded(buffer: DeviceBuffer, t: TensorType, sizes: dict[str, int]) -> Array:
    shape = tuple(number(d, sizes) for d in t.shape)
    strides = tuple(s * t.dtype.itemsize for s in contiguous_strides(shape))
    return buffer.as_numpy(t.dtype.numpy, shape, strides)


class Call:
    """A program with memory for one call at a time."""

    def __init__(self, program: CudaProgram, arrays: Sequence[Array], index: int = 0, **sizes: int) -> None:
        self.program, self.sizes = program, sizes
        self.executable = cuda.load(program, index)
        self.inputs = [uploaded(x, index) for x in arrays]
        self.outputs = [
            DeviceBuffer.allocate(np.prod([number(d, sizes) for d in t.shape], dtype=int) * t.dtype.itemsize, index)
            for t in program.output_types
        ]

    def values(self) -> list[int]:
        def value(slot: Slot) -> int:
            if slot.kind == "size":
                return self.sizes[slot.name]
            return (self.inputs if slot.kind == "input" else self.outputs)[slot.index].ptr

        return [value(s) for s in self.program.slots if s.kind in ("input", "output", "size")]

    def __call__(self) -> list[Array]:
        self.executable.run(self.values())
        return self.results()

    def results(self) -> list[Array]:
        taken = dict(self.program.aliases)
        return [
            downloaded(self.inputs[taken[k]] if k in taken else self.outputs[k], t, self.sizes)
            for k, t in enumerate(self.program.output_types)
        ]


def program_of(text: str) -> CudaProgram:
    return compile_cuda(parse_graph(text))


def random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def assert_as_cpu(text: str, arrays: list[Array], index: int = 0) -> None:
    got = Call(program_of(text), arrays, index)()
    assert all(map(same_bits, got, execute(compiled(text), arrays)))


# ------------------------------------------------------------------------------------------------------------ programs


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("text", [ATTENTION, SORT, CUMULATE, CONSTANT], ids=["attention", "sort", "cumsum", "constant"])
def test_results_are_those_of_the_cpu(text: str, index: int) -> None:
    if index:
        two_gpus()
    (value,) = parse_graph(text).inputs
    assert_as_cpu(text, [random(*value.type.static_shape())], index)
    assert cuda_driver.session().runtime.getDevice() == 0, "the current device is as it was"


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_loops_and_branches(turns: int) -> None:
    assert_as_cpu(PROGRAM, operands(turns))
    assert_as_cpu(COUNT, [random(8), np.array(turns)])


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_libraries_in_loops_and_branches(reverse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are for ops that have no kernels."""
    monkeypatch.setattr(pipeline, "TEMPLATES", {})
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(3, 3)), rng.normal(size=(5, 3, 3)), np.array(3)]
    assert_as_cpu(LIBRARY.replace("REVERSE", reverse), arrays)
    assert_as_cpu(INVERT, [np.eye(3, dtype=np.float32) * 2])


def test_sizes_come_with_the_call(fake: Gpu) -> None:
    program = program_of(ADD)
    executable = None
    for n in (3, 700, 3, 0):
        a, b = random(n, 5), random(n, 5)
        call = Call(program, [a, b], n=n)
        executable = call.executable = executable or call.executable
        fake.counts.clear()
        total, sums = call()
        assert same_bits(total, a + b) and sums.shape == (n,)
        assert fake.counts["launch"] == (len(program.launches) if n else 0), "a launch of no blocks is left out"


def test_the_number_of_values_is_checked() -> None:
    call = Call(program_of(ATTENTION), [random(6, 70)])
    with pytest.raises(ValueError, match="takes 2 slots, got 1"):
        call.executable.run(call.values()[:1])


def test_programs_without_checks_never_wait(fake: Gpu) -> None:
    call = Call(program_of(ATTENTION), [random(6, 70)])
    fake.counts.clear()
    with fake.deferred():
        for _ in range(3):
            call.executable.run(call.values())
        assert fake.counts["synchronize"] == 0 and fake.counts["memcpy"] == 0
        (got,) = call.results()
    (again,) = call()
    assert same_bits(got, again)


def test_failed_checks_name_the_site_and_leave_a_clean_record() -> None:
    program = program_of(GATHER)
    table = random(8, 3)
    good, bad = (Call(program, [table, np.array(at)]) for at in ([0, 7, 3, 3], [0, 70, 3, -9]))
    bad.executable = good.executable
    for _ in range(3):
        with pytest.raises(ProgramError) as caught:
            bad()
        assert caught.value.site.op == "gather" and caught.value.value in (70, -9)
        assert same_bits(good()[0], table[[0, 7, 3, 3]])


@pytest.mark.parametrize("hosted", [False, True])
def test_a_matrix_that_is_refused_is_a_failed_check(hosted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a kernel, or by a library on the host."""
    if hosted:
        monkeypatch.setattr(pipeline, "TEMPLATES", {})
    with pytest.raises(ProgramError, match="singular") as caught:
        Call(program_of(INVERT), [np.zeros((3, 3), np.float32)])()
    assert caught.value.site.op == "inv"


def test_threads_do_not_share_memory(gpu: Gpu) -> None:
    program = program_of(ATTENTION)
    arrays = [random(6, 70) * k for k in range(1, 7)]
    calls = [Call(program, [a]) for a in arrays]
    shared = calls[0].executable
    for call in calls:
        call.executable = shared
    wanted = [call()[0] for call in calls]
    wrong: list[object] = []

    def work(k: int) -> None:
        try:
            for _ in range(20):
                if not same_bits(calls[k]()[0], wanted[k]):
                    wrong.append(k)
        except CudaError as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ------------------------------------------------------------------------------------------------------------- kernels


def test_kernels_are_compiled_once_and_together(fake: Gpu) -> None:
    program = program_of(ATTENTION)
    assert len(program.kernels) > 1
    Call(program, [random(6, 70)])()
    assert fake.counts["compile"] == fake.counts["load"] == 1
    Call(program, [random(6, 70)])()
    assert fake.counts["compile"] == fake.counts["load"] == 1
    cuda.load(program, 1)
    assert (fake.counts["compile"], fake.counts["load"]) == (1, 2), "another GPU takes the code from the cache"


def test_a_new_process_takes_code_from_the_cache(fake: Gpu, tmp_path: Path) -> None:
    program = program_of(ATTENTION)
    Call(program, [random(6, 70)])()
    cuda_driver.gpu(0).kernels.clear()
    Call(program, [random(6, 70)])()
    assert fake.counts["compile"] == 1
    (kept,) = (tmp_path / "cubins").glob("*/*")
    assert kept.read_bytes().endswith(b"\0"), "the byte that CuPy takes off"
    kept.write_bytes(kept.read_bytes()[:-5] + b"wrong")
    cuda_driver.gpu(0).kernels.clear()
    with pytest.warns(UserWarning, match="damaged"):
        Call(program, [random(6, 70)])()
    assert fake.counts["compile"] == 2
    assert not list((tmp_path / "cubins").rglob("tmp*"))


def test_without_a_cache(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_CACHE", "0")
    assert_as_cpu(CONSTANT, [random(3)])
    assert fake.counts["compile"] == 1


def written(body: str, name: str = "k") -> CudaProgram:
    """A program of one launch of a kernel of that body, with parameters `x`, `y` and 40 threads."""
    text = f'extern "C" __global__ void __launch_bounds__(40)\n{name}(const float *x, float *y)\n{{\n{body}\n}}\n'
    kernel = CudaText(name, text, (), 40, L.index(1), False)
    loc = SourceLoc("model.py", 12, "forward")
    launch = Launch(name, 40, L.index(1), (Memory("input"), Memory("output")), False, loc)
    t = TensorType(float32, (40,))
    slots = (Slot("input"), Slot("output"))
    return CudaProgram("step", (kernel,), (launch,), slots, (t,), (t,), (), 0, (), (), (), ())


COPY = "    y[threadIdx.x] = x[threadIdx.x];"
OVERRUN = "    y[threadIdx.x + 1] = x[threadIdx.x];"


def test_a_kernel_that_does_not_compile_is_named() -> None:
    good, bad = written(COPY, "good"), written("    y[0] = undefined_name;", "bad")
    program = replace(good, kernels=good.kernels + bad.kernels)
    with pytest.raises(CudaError) as caught:
        cuda.load(program)
    assert caught.value.kind == "compile" and caught.value.op == "bad"
    assert "undefined_name" in caught.value.message
    Call(good, [random(40)])()


# -------------------------------------------------------------------------------------------------------------- faults


def test_an_overrun_is_told_of_and_ends_the_gpu(fake: Gpu) -> None:
    good, bad = Call(written(COPY, "good"), [random(40)]), Call(written(OVERRUN, "overrun"), [random(40)])
    with fake.deferred():
        bad.executable.run(bad.values())
        with pytest.raises(CudaError, match="KILN_CUDA_DEBUG=1") as caught:
            cuda.synchronize()
    assert caught.value.kind == "launch"
    for use in (good, lambda: DeviceBuffer.allocate(5), lambda: uploaded(random(3)), cuda.synchronize, cuda.check):
        with pytest.raises(CudaError, match="can't be used any more by this process, since an earlier call failed"):
            use()
    cuda.check(1)
    assert fake.errors()


def test_debugging_names_the_kernel_and_the_line(fake: Gpu) -> None:
    cuda_driver.session().debug = True
    first, then = written(COPY, "first"), written(OVERRUN, "overrun")
    program = replace(first, kernels=first.kernels + then.kernels, steps=first.steps + then.steps)
    call = Call(program, [random(40)])
    with fake.deferred(), pytest.raises(CudaError) as caught:
        call.executable.run(call.values())
    assert caught.value.op == "overrun" and caught.value.loc == SourceLoc("model.py", 12, "forward")
    assert "launch 1 of step" in caught.value.message and "model.py:12" in str(caught.value)
    assert fake.errors()


def test_debugging_names_the_line_of_the_piece(fake: Gpu) -> None:
    """Of one launch for several lines, the one that fails."""
    cuda_driver.session().debug = True
    text = """extern "C" __global__ void __launch_bounds__(40)
k(const k_table<64> table)
{
    const int piece = k_piece(table, table.at[0] + blockIdx.x, 3, 2);
    ((float *)table.at[piece + 1])[threadIdx.x] = ((const float *)table.at[2])[threadIdx.x];
}
"""
    plain = written(COPY)
    kernel = CudaText("k", text, (HELPERS["k_table"],), 40, L.index(3), False)
    locs = [SourceLoc("model.py", line, "forward") for line in (11, 12, 13)]
    places = tuple(Memory("output", offset=4 * (n == 1)) for n in range(3))
    parts = tuple(Piece(L.index(1), loc) for loc in locs)
    launch = Launch("k", 40, L.index(3), (Memory("input"), *places), False, locs[0], parts, 1)
    good = replace(launch, args=(Memory("input"), *[Memory("output")] * 3))
    x = random(40)
    assert same_bits(Call(replace(plain, kernels=(kernel,), steps=(good,)), [x])()[0], x)
    fake.counts.clear()
    call = Call(replace(plain, kernels=(kernel,), steps=(launch,)), [random(40)])
    with fake.deferred(), pytest.raises(CudaError) as caught:
        call.executable.run(call.values())
    assert caught.value.op == "k" and caught.value.loc == locs[1]
    assert "launch 0 of step" in caught.value.message and "model.py:12" in str(caught.value)
    assert fake.counts["launch"] == 2 and fake.errors()


def test_a_launch_that_is_refused_ends_nothing() -> None:
    program = written(COPY)
    launch = program.steps[0]
    assert isinstance(launch, Launch)
    call = Call(replace(program, steps=(replace(launch, threads=2000),)), [random(40)])
    with pytest.raises(CudaError) as caught:
        call()
    assert (caught.value.kind, caught.value.op) == ("launch", "k")
    x = random(40)
    assert same_bits(Call(program, [x])()[0], x)


def test_out_of_memory_says_how_much(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_driver.gpu(0).release_idle()
    device = fake_device.state.devices[0]
    monkeypatch.setattr(device, "total", device.taken + (64 << 20))
    kept = DeviceBuffer.allocate(40 << 20)
    with pytest.raises(CudaError) as caught:
        DeviceBuffer.allocate(30 << 20)
    assert caught.value.kind == "memory"
    used = cuda_driver.gpu(0).used()  # what other tests left, too
    assert used >= kept.nbytes
    for part in ("31,457,280 bytes", f"{used:,} bytes are used", f"{device.total:,}"):
        assert part in caught.value.message, caught.value.message
    del kept
    DeviceBuffer.allocate(60 << 20)


def test_idle_memory_of_other_streams_is_given_back_first(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    place = cuda_driver.gpu(0)
    place.release_idle()
    device = fake_device.state.devices[0]
    monkeypatch.setattr(device, "total", device.taken + (64 << 20))
    place.use(place.new_stream())
    DeviceBuffer.allocate(40 << 20)
    place.use(place.default)
    loop: list[object] = [DeviceBuffer.allocate(10 << 20)]
    loop.append(loop)
    del loop
    DeviceBuffer.allocate(60 << 20)


def test_a_program_that_finds_no_memory_can_run_again(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(program_of(ATTENTION), [random(6, 70)])
    place, device = cuda_driver.gpu(0), fake_device.state.devices[0]
    place.release_idle()
    with monkeypatch.context() as tight:
        tight.setattr(device, "total", device.taken)
        with pytest.raises(CudaError) as caught:
            call()
        assert caught.value.kind == "memory"
    call()


def test_no_cupy(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert cuda.device_count() == 0
    with pytest.raises(CudaError, match="cupy-cuda13x") as caught:
        cuda.check()
    assert caught.value.kind == "cupy"


@pytest.mark.parametrize(("status", "kind"), [(35, "driver"), (3, "driver"), (100, "device")])
def test_no_driver_and_no_gpu(fake: Gpu, status: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sys.modules["cupy"]

    def none() -> int:
        error = fake_device.CUDARuntimeError(100)
        error.status = status
        raise error

    other = types.ModuleType("cupy")
    other.cuda = types.SimpleNamespace(**vars(real.cuda))  # type: ignore[attr-defined]
    other.cuda.runtime = types.SimpleNamespace(**{**vars(real.cuda.runtime), "getDeviceCount": none})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", other)
    assert cuda.device_count() == 0
    with pytest.raises(CudaError) as caught:
        cuda.check()
    assert caught.value.kind == kind


def test_a_gpu_that_has_no_room_for_a_context(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where other processes have it all: CUDA says so when the GPU is chosen."""
    runtime = sys.modules["cupy"].cuda.runtime
    cuda.check()

    def refuse(device: int = 0) -> None:
        raise runtime.CUDARuntimeError(2)

    monkeypatch.setattr(runtime, "setDevice", refuse)
    said: list[str] = []

    def use() -> None:
        try:
            DeviceBuffer.allocate(100)
        except CudaError as error:
            said.append(f"{error.kind}: {error}")

    thread = threading.Thread(target=use)  # which has no context yet
    thread.start()
    thread.join()
    assert said and said[0].startswith("memory: out of memory on GPU 0, choosing a GPU (cudaErrorMemoryAllocation")


def test_an_import_that_fails_is_told_in_a_line(fake: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "\n==========\nFailed to import CuPy.\n\nOriginal error:\n  OSError: no libnvrtc\n==========\n"
    (tmp_path / "cupy.py").write_text(f"raise ImportError({text!r})")
    for name in [n for n in sys.modules if n == "cupy" or n.startswith("cupy.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CudaError) as caught:
        cuda.check()
    assert caught.value.message == "GPUs need CuPy, which can't be imported (OSError: no libnvrtc)"


@pytest.mark.parametrize("index", [-1, 2, 9])
def test_no_such_gpu(fake: Gpu, index: int) -> None:
    for use in (lambda: cuda.check(index), lambda: cuda.load(written(COPY), index), lambda: cuda.synchronize(index)):
        with pytest.raises(CudaError, match=f"there is no GPU {index}: this machine has 2 GPUs") as caught:
            use()
        assert caught.value.kind == "device"


def test_no_nvrtc(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise RuntimeError('Failure finding "libnvrtc.so.13": No such file\n')

    monkeypatch.setattr(sys.modules["cupy"].cuda.nvrtc, "getVersion", missing)
    with pytest.raises(CudaError, match=r"libnvrtc\.so\.13") as caught:
        cuda.load(written(COPY))
    assert caught.value.kind == "compile" and "ctk" in caught.value.fix


def test_no_folder_for_machine_code(fake: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(CudaError, match="loaded from a file, and none can be written") as caught:
        cuda.load(written(COPY))
    assert caught.value.kind == "compile" and "TMPDIR" in caught.value.fix


def test_a_forked_child_says_what_is_wrong(fake: Gpu) -> None:
    call = Call(written(COPY), [random(40)])
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 2)
        said = []
        for use in (call, cuda.check):
            try:
                use()
            except CudaError as error:
                said.append(str(error))
        gc.collect()  # nothing that is dropped calls CUDA
        os.write(write, "|".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    os.waitpid(child, 0)
    assert said.count("forked") == 2 and "ignored" not in said, said
    call()


# -------------------------------------------------------------------------------------------------- memory and copies


def test_buffers_are_what_the_frontend_expects() -> None:
    buffer = DeviceBuffer.allocate(100)
    assert (buffer.nbytes, buffer.version, buffer.owner, buffer.device) == (100, 0, None, 0)
    take = DeviceBuffer.allocator(1 << 20)
    a, b = take(), take()
    assert a.ptr != b.ptr and a.device == 0
    assert DeviceBuffer.allocate(0).ptr


@pytest.mark.parametrize("nbytes", [1, 1000, 1 << 16, (1 << 16) + 1, 1 << 20])
@pytest.mark.parametrize("non_blocking", [False, True])
def test_the_source_of_a_copy_may_change_at_once(gpu: Gpu, nbytes: int, non_blocking: bool) -> None:
    source = np.arange(nbytes, dtype=np.uint8)
    wanted = source.copy()
    with gpu.deferred():
        buffer = DeviceBuffer.allocate(nbytes + 7)
        cuda.copy_to_device(buffer, 7, source.ctypes.data, nbytes, non_blocking)
        source[:] = 0
    got = np.zeros(nbytes, np.uint8)
    cuda.copy_to_host(got.ctypes.data, buffer, 7, nbytes)
    assert (got == wanted).all()


def test_small_copies_and_those_that_need_not_block_do_not_wait(fake: Gpu) -> None:
    source = np.zeros(1 << 20, np.uint8)
    buffer = DeviceBuffer.allocate(source.nbytes)
    fake.counts.clear()
    with fake.deferred():
        cuda.copy_to_device(buffer, 0, source.ctypes.data, 100)
        cuda.copy_to_device(buffer, 0, source.ctypes.data, source.nbytes, True)
        assert fake.counts["synchronize"] == 0
        cuda.copy_to_device(buffer, 0, source.ctypes.data, source.nbytes)
        assert fake.counts["synchronize"] == 1


def test_pinned_memory_is_given_back(fake: Gpu) -> None:
    source = np.zeros(1 << 12, np.uint8)
    buffer = DeviceBuffer.allocate(source.nbytes)
    place = cuda_driver.gpu(0)
    with fake.deferred():
        for _ in range(50):
            cuda.copy_to_device(buffer, 0, source.ctypes.data, source.nbytes)
        assert place.staged_bytes == sum(n for _, _, n in place.staged) > 0
    cuda.synchronize()
    cuda.copy_to_device(buffer, 0, source.ctypes.data, source.nbytes)
    assert place.staged_bytes == source.nbytes and len(place.staged) == 1


def test_copies_of_nothing() -> None:
    a = DeviceBuffer.allocate(0)
    cuda.copy_to_device(a, 0, 0, 0)
    cuda.copy_to_host(0, a, 0, 0)
    cuda.copy_on_device(a, 0, a, 0, 0)


@pytest.mark.parametrize("to", [0, 1])
def test_copies_between_gpus_keep_the_order(gpu: Gpu, to: int) -> None:
    if to:
        two_gpus()
    x = random(300)
    with gpu.deferred():
        a = uploaded(x)
        b = uploaded(np.zeros(301, np.float32), to)
        cuda.copy_on_device(b, 4, a, 0, x.nbytes)
        del a
        cuda.synchronize(0)
        c = DeviceBuffer.allocate(x.nbytes, to)
        cuda.copy_on_device(c, 0, b, 4, x.nbytes)
        del b
        assert same_bits(c.as_numpy(np.dtype(np.float32), (300,), (4,)), x)


def test_views_as_numpy() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    buffer = uploaded(x)
    f32 = np.dtype(np.float32)
    for view in (x, x[1:, ::2], x.T, x[::-1, ::-2], np.broadcast_to(x[2], (3, 6)), x[:0], x[3, 5:].reshape(())):
        offset = 24 * 4 - 4 if view.ndim == 0 else view.ctypes.data - x.ctypes.data if view.size else 0
        got = buffer.as_numpy(f32, view.shape, view.strides, offset)
        assert same_bits(got, view.copy()) and not got.flags.writeable
        if got.size:
            assert not np.shares_memory(got, x)


def test_a_dropped_buffer_is_reused_in_the_order_of_the_stream(gpu: Gpu) -> None:
    x = random(40)
    with gpu.deferred():
        call = Call(written(COPY), [x])
        call.executable.run(call.values())
        call.inputs.clear()
        again = uploaded(random(40) * 0)
        assert same_bits(call.results()[0], x)
        del again


def test_memory_for_other_streams_waits_for_them(fake: Gpu) -> None:
    place = cuda_driver.gpu(0)
    other = place.new_stream()
    x = random(40)
    with fake.deferred():
        call = Call(written(COPY), [x])
        cuda.synchronize()
        place.use(other)
        call.executable.run(call.values())
        call.inputs[0].record_stream(other)
        place.use(place.default)
        call.inputs.clear()
        gc.collect()
        assert len(place.lent) == 1
        uploaded(random(40) * 0)
        place.default.wait()
        other.wait()
        assert same_bits(call.results()[0], x)
    DeviceBuffer.allocate(3)
    DeviceBuffer.allocate(3)
    assert not place.lent


# ------------------------------------------------------------------------------------------------------------- streams


def test_programs_run_on_the_current_stream(fake: Gpu) -> None:
    place = cuda_driver.gpu(0)
    with fake.deferred():
        call = Call(program_of(ATTENTION), [random(6, 70)])
        cuda.synchronize()
        stream = place.new_stream()
        place.use(stream)
        call.executable.run(call.values())
        assert not stream.handle.done
        place.use(place.default)
        stream.wait()
        assert stream.handle.done
    assert all(map(same_bits, call.results(), execute(compiled(ATTENTION), [random(6, 70)])))


def test_streams_are_reused_in_turn() -> None:
    place = cuda_driver.gpu(0)
    streams = [place.new_stream() for _ in range(cuda_driver.STREAMS + 1)]
    assert len({s.ptr for s in streams}) == cuda_driver.STREAMS and 0 not in {s.ptr for s in streams}


def test_each_thread_has_its_own_current_stream() -> None:
    place = cuda_driver.gpu(0)
    place.use(place.new_stream())
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(place.stream()))
    thread.start()
    thread.join()
    assert seen == [place.default] and place.stream() is not place.default


def test_two_streams_at_once_do_not_share_an_arena(gpu: Gpu) -> None:
    place = cuda_driver.gpu(0)
    program = program_of(ATTENTION)
    arrays = [random(6, 70), random(6, 70) * 3]
    with gpu.deferred():
        calls = [Call(program, [a]) for a in arrays]
        calls[1].executable = calls[0].executable
        cuda.synchronize()
        for call in calls:
            place.use(place.new_stream())
            call.executable.run(call.values())
        cuda.synchronize()
        place.use(place.default)
        for call, a in zip(calls, arrays, strict=True):
            assert all(map(same_bits, call.results(), execute(compiled(ATTENTION), [a])))


@pytest.mark.parametrize("mode", [1, 2])
def test_waits_are_told_of(mode: int) -> None:
    call = Call(program_of(GATHER), [random(8, 3), np.array([1, 2, 3, 4])])
    cuda.set_wait_mode(mode)
    for use in (lambda: call.executable.run(call.values()), call.results, cuda.synchronize):
        if mode == 1:
            with pytest.warns(UserWarning, match="the host waits"):
                use()
        else:
            with pytest.raises(CudaError, match="forbids"):
                use()
