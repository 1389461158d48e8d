"""Memory of GPUs that other libraries share: DLPack both ways, its streams and lifetimes, CUDA's array interface."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kiln
from kiln.errors import CaptureWarning
from kiln.ir.types import TENSOR_DTYPES
from kiln.runtime import cuda_driver, dlpack
from tests.gpu import fake_array, fake_device
from tests.gpu.conftest import Gpu


@pytest.fixture(autouse=True)
def _clean(gpu: Gpu) -> Iterator[None]:
    """Everything that was given is let go of."""
    session = cuda_driver.session()
    yield
    for each in session.gpus:
        each.use(each.default)
        gc.collect()
        kiln.cuda.synchronize(each.index)
        kiln.zeros(1, device=f"cuda:{each.index}")  # takes back what was lent
    assert not fake_array.given


@pytest.fixture
def cupy(gpu: Gpu) -> Any:
    return cuda_driver.session().cupy


VERSIONS = pytest.mark.skipif(not dlpack.VERSIONED, reason="NumPy before 2.1 knows no capsules with versions")


def values(shape: tuple[int, ...] = (3, 4), dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return (np.arange(np.prod(shape, dtype=int)) % 7).reshape(shape).astype(dtype)


def theirs(cupy: Any, array: np.ndarray[Any, Any]) -> Any:
    made = cupy.ndarray(array.shape, array.dtype)
    made.set(array)
    return made


def same(a: Any, b: np.ndarray[Any, Any]) -> bool:
    found = a.numpy(force=True) if isinstance(a, kiln.Tensor) else a.get()
    return bool(found.dtype == b.dtype and found.shape == b.shape and found.tobytes() == b.tobytes())


# --------------------------------------------------------------------------------------------------------------- what


@pytest.mark.parametrize("dtype", TENSOR_DTYPES, ids=str)
def test_every_dtype_both_ways_without_a_copy(dtype: Any, cupy: Any) -> None:
    host = values(dtype=dtype.numpy)
    x = kiln.from_numpy(host).cuda()
    a = cupy.from_dlpack(x)
    assert a.data.ptr == x.data_ptr() and same(a, host)
    y = kiln.from_dlpack(theirs(cupy, host))
    assert y.dtype is dtype and y.device == kiln.device("cuda:0") and same(y, host)
    again = kiln.from_dlpack(a)
    assert again.data_ptr() == x.data_ptr() and same(again, host)
    if dtype is not kiln.bool:
        assert same(again + again, host + host)


def test_strides_offsets_and_sizes(cupy: Any) -> None:
    host = values((4, 6))
    x = kiln.from_numpy(host).cuda()
    for part in (np.s_[1:, ::2], np.s_[2, 3], np.s_[:, 2:3], np.s_[1:1], np.s_[..., None], np.s_[3]):
        mine, want = x[part], np.ascontiguousarray(host[part]).reshape(host[part].shape)
        a = cupy.from_dlpack(mine)
        assert same(a, want) and a.data.ptr == (mine.data_ptr() if want.size else 0)
        back = kiln.from_dlpack(a)
        assert back.shape == mine.shape and same(back, want) and same(back * 1, want)
        assert kiln.from_dlpack(mine).is_contiguous() == mine.is_contiguous()
    assert same(cupy.from_dlpack(x.t()), np.ascontiguousarray(host.T))
    wide = cupy.from_dlpack(kiln.from_numpy(host[0]).cuda().expand(3, 6))
    assert same(wide, np.repeat(host[:1], 3, 0)) and wide.strides == (0, 4)


def test_writes_show_on_both_sides(cupy: Any) -> None:
    x = kiln.zeros(5, device="cuda")
    a = cupy.from_dlpack(x)
    x[2] = 3
    assert a.get().tolist() == [0, 0, 3, 0, 0]
    y = kiln.from_dlpack(a)
    a.set(np.arange(5, dtype=np.float32))
    assert x.tolist() == y.tolist() == [0, 1, 2, 3, 4]


@VERSIONS
def test_capsules_without_versions_strides_and_with_an_offset(cupy: Any, fake: Gpu) -> None:
    source = theirs(cupy, values((3, 4)))

    def bare(**more: Any) -> Any:
        how: dict[str, Any] = {"device": (2, 0), "owner": source, "strides": None} | more
        return fake_array.capsule(source.data.ptr, np.dtype(np.float32), (2, 4), **how)

    for versioned in (False, True):
        y = kiln.from_dlpack(bare(versioned=versioned, byte_offset=16))
        assert y.data_ptr() == source.data.ptr + 16 and same(y, values((3, 4))[1:])
        y.add_(0)
    with pytest.raises(kiln.GradError, match="read-only"):
        kiln.from_dlpack(bare(flags=fake_array.READONLY)).add_(0)
    for match, how in (("version 2", {"major": 2}), ("negative or unaligned", {"byte_offset": 2})):
        with pytest.raises((kiln.ExportError, kiln.InvalidValueError), match=match):
            kiln.from_dlpack(bare(**how))
    with pytest.raises(kiln.InvalidValueError, match="negative or unaligned"):
        kiln.from_dlpack(bare(strides=(-4, 1), byte_offset=16))
    used = bare()
    kiln.from_dlpack(used)
    with pytest.raises(kiln.ExportError, match="holds no tensor any more"):
        kiln.from_dlpack(used)


def test_libraries_of_before_there_were_versions(cupy: Any) -> None:
    class Old:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, stream: Any = None) -> Any:
            return self.array.__dlpack__(stream=stream)

    assert same(kiln.from_dlpack(Old(theirs(cupy, values()))), values())


@VERSIONS
def test_versions_copies_and_readers(cupy: Any, fake: Gpu) -> None:
    x = kiln.from_numpy(values()).cuda()
    names = [repr(x.__dlpack__(max_version=v)).split('"')[1] for v in (None, (0, 8), (1, 0), (1, 3))]
    assert names == ["dltensor", "dltensor", "dltensor_versioned", "dltensor_versioned"]
    copied = cupy.from_dlpack(x, copy=True)
    assert copied.data.ptr != x.data_ptr() and same(copied, values())
    assert copied.data.mem.managed.flags == fake_array.COPIED
    assert cupy.from_dlpack(x).data.mem.managed.flags == 0
    host = values()
    host.flags.writeable = False
    still = kiln.from_dlpack(fake_array.capsule(
        x.data_ptr(), np.dtype(np.float32), (4,), None, device=(2, 0), owner=x, flags=fake_array.READONLY
    ))  # fmt: skip
    with pytest.raises(BufferError, match="readonly") as caught:
        still.__dlpack__()
    assert isinstance(caught.value, kiln.ExportError) and "max_version" in caught.value.fix
    assert cupy.from_dlpack(still).data.mem.managed.flags == fake_array.READONLY


# ------------------------------------------------------------------------------------------------------- for how long


def test_the_taker_keeps_kilns_memory(cupy: Any) -> None:
    used = []
    for _ in range(3):
        x = kiln.full((1000,), 3.0, device="cuda")
        a, capsule = cupy.from_dlpack(x), x.__dlpack__()
        del x
        gc.collect()
        junk = kiln.full((1000,), 7.0, device="cuda")
        assert a.get().sum() == 3000 and junk[0].item() == 7
        del junk, a
        gc.collect()
        used.append(kiln.cuda.memory_allocated())
        del capsule  # which nobody took
        gc.collect()
        used.append(kiln.cuda.memory_allocated())
    assert used[-2] >= used[-1] + 4000 and used[-1] == used[-3]


def test_kiln_keeps_the_givers_memory_until_its_own_work_is_done(cupy: Any, fake: Gpu) -> None:
    a = theirs(cupy, values((1000,)))
    seen = weakref.ref(a)
    with fake.deferred():
        x = kiln.from_dlpack(a)[1:]
        del a
        y = x * 2
        del x
        gc.collect()
        assert seen() is not None  # the kernel has not run
        kiln.cuda.synchronize()
    z = y + 1  # takes back what was lent
    gc.collect()
    assert seen() is None and same(z, values((1000,))[1:] * 2 + 1)


# ------------------------------------------------------------------------------------------------------ in what order


def test_a_takers_stream_comes_after_kilns(cupy: Any, fake: Gpu) -> None:
    x, s = kiln.from_numpy(values((64,))).cuda(), kiln.cuda.Stream()
    kiln.cuda.synchronize()
    want = values((64,)) * 2
    queue = cupy.cuda.Stream(non_blocking=True)

    def taken(stream: int | None) -> bool:
        with kiln.cuda.stream(s):
            y = x * 2
            capsule = y.__dlpack__(stream=stream)
        with queue:
            return same(cupy.from_dlpack(capsule), want)

    with fake.deferred():
        assert taken(queue.ptr)
        assert not taken(-1)
        assert not taken(1)  # another stream than the one that reads
        with kiln.cuda.stream(s):
            y = x * 2
        with queue:
            assert not same(cupy.from_dlpack(y), want)  # y is of s, and the current stream is not
        with kiln.cuda.stream(s), queue:
            assert same(cupy.from_dlpack(x * 2), want)
        for stream in (None, 1, 2):
            with kiln.cuda.stream(s):
                capsule = (x * 2).__dlpack__(stream=stream)
            host = np.empty(64, np.float32)
            array = cupy.from_dlpack(capsule)
            fake_device.copy(host.ctypes.data, array.data.ptr, 256, 2, stream or 0)
            cupy.cuda.runtime.streamSynchronize(stream or 0)
            assert host.tobytes() == want.tobytes()


def test_kilns_stream_comes_after_the_givers(cupy: Any, gpu: Gpu) -> None:
    queue, s = cupy.cuda.Stream(non_blocking=True), kiln.cuda.Stream()
    asked: list[Any] = []

    class Told:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, **how: Any) -> Any:
            asked.append(how["stream"])
            return self.array.__dlpack__(**how)

    with gpu.deferred():
        for stream in (None, s):
            with queue, kiln.cuda.stream(stream):
                y = kiln.from_dlpack(Told(theirs(cupy, values((64,)))))
                assert same(y, values((64,)))
    assert asked == [1, s.cuda_stream]


def test_memory_that_the_default_stream_reads_is_not_given_to_others(cupy: Any, fake: Gpu) -> None:
    s = kiln.cuda.Stream()
    with fake.deferred():
        with kiln.cuda.stream(s):
            x = kiln.full((64,), 3.0, device="cuda")
            a = cupy.from_dlpack(x)
        host = np.empty(64, np.float32)
        pinned = cupy.cuda.alloc_pinned_memory(256)
        fake_device.copy(pinned.ptr, a.data.ptr, 256, 2, 0)
        del x, a
        gc.collect()
        with kiln.cuda.stream(s):
            junk = kiln.full((64,), 9.0, device="cuda")
        s.synchronize()
        cupy.cuda.Stream.null.synchronize()
        host = np.frombuffer(pinned.mem._block, np.float32, 64)
        assert (host == 3).all() and junk[0].item() == 9


# ------------------------------------------------------------------------------------------------------------- where


@VERSIONS
def test_devices(cupy: Any, fake: Gpu) -> None:
    x = kiln.from_numpy(values()).to("cuda:1")
    assert x.__dlpack_device__() == (2, 1) and cupy.from_dlpack(x).data.device_id == 1
    with cupy.cuda.Device(1):
        a = theirs(cupy, values())
    y = kiln.from_dlpack(a)
    assert y.device == kiln.device("cuda:1") and same(y, values()) and cuda_driver.session().runtime.getDevice() == 0
    assert kiln.from_dlpack(a, device="cuda:1").data_ptr() == y.data_ptr()
    assert kiln.from_dlpack(a, device="cuda:0").device == kiln.device("cuda:0")
    assert same(kiln.from_dlpack(a, device="cpu"), values())
    assert kiln.from_dlpack(values(), device="cuda").is_cuda
    with pytest.raises(BufferError, match=r"cuda:1 can't be on cpu without a copy"):
        kiln.from_dlpack(a, device="cpu", copy=False)
    assert kiln.from_dlpack(a, copy=True).data_ptr() != y.data_ptr()

    moved = fake_array._taken(x.__dlpack__(dl_device=(2, 0), max_version=(1, 0)))
    assert moved.data.device_id == 0 and same(moved, values()) and moved.data.mem.managed.flags == fake_array.COPIED
    with cupy.cuda.Device(1):
        up = fake_array._taken(x.cpu().__dlpack__(dl_device=(2, 1)))
        assert up.data.device_id == 1 and same(up, values())
    host = kiln.from_dlpack(x.__dlpack__(dl_device=(1, 0), max_version=(1, 0), stream=5))
    assert host.device == kiln.device("cpu") and same(host, values())
    assert (np.from_dlpack(x, device="cpu") == values()).all()
    with pytest.raises(RuntimeError):
        np.from_dlpack(x)
    for place in ((1, 0), (2, 0)):
        with pytest.raises(BufferError, match="without a copy"):
            x.__dlpack__(dl_device=place, copy=False)
    with pytest.raises(BufferError, match="cudaMallocManaged"):
        x.__dlpack__(dl_device=(13, 0))
    with pytest.raises(kiln.DeviceError, match="there is no GPU 7"):
        x.__dlpack__(dl_device=(2, 7))


def test_memory_that_is_no_gpus(cupy: Any) -> None:
    class There:
        def __init__(self, kind: int, number: int = 0, array: Any = None) -> None:
            self.kind, self.number, self.array = kind, number, array

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.kind, self.number

        def __dlpack__(self, **how: Any) -> Any:
            return self.array.__dlpack__()

    for kind, name in ((13, "cudaMallocManaged"), (10, "AMD"), (15, "type 15")):
        with pytest.raises(kiln.DeviceError, match=name):
            kiln.from_dlpack(There(kind))
    with pytest.raises(kiln.DeviceError, match="there is no GPU 9"):
        kiln.from_dlpack(There(2, 9))
    with pytest.raises(kiln.ExportError, match="the CPU's memory, of which its library says"):
        kiln.from_dlpack(There(2, 0, values()))
    host = values()
    pinned = kiln.from_dlpack(There(3, 0, host))  # the host's, too
    assert pinned.device == kiln.device("cpu") and pinned.data_ptr() == host.ctypes.data
    mine = kiln.ones(3).pin_memory()
    assert mine.__dlpack_device__() == (1, 0) and np.from_dlpack(mine).tolist() == [1, 1, 1]


# ------------------------------------------------------------------------------------------------------------ what not


@VERSIONS
def test_errors(cupy: Any, fake: Gpu) -> None:
    x = kiln.ones(3, device="cuda")
    with pytest.raises(kiln.GradError, match="requires a gradient"):
        x.clone().requires_grad_().__dlpack__()
    for stream in (0, -2):
        with pytest.raises(kiln.InvalidValueError, match=f"no stream {stream} in DLPack"):
            x.__dlpack__(stream=stream)
    for wrong in (True, "1", kiln.cuda.Stream()):
        with pytest.raises(kiln.ArgumentError, match="told by its number"):
            x.__dlpack__(stream=wrong)  # type: ignore[arg-type]
    with pytest.raises(kiln.DeviceError, match="invalid resource handle"):
        x.__dlpack__(stream=12345)
    with pytest.raises(kiln.TransformError):
        kiln.vmap(lambda row: row.__dlpack__())(kiln.ones(2, 3, device="cuda"))
    unknown = np.ones(3, ml_dtypes.float8_e5m2)
    capsule = fake_array.capsule(x.data_ptr(), np.dtype(np.int16), (1,), None, device=(2, 0), owner=x)
    fake_array.given[next(iter(fake_array.given))][0].tensor.code = 77
    with pytest.raises(kiln.ExportError, match="dtype"):
        kiln.from_dlpack(capsule)
    del capsule, unknown
    with pytest.raises(kiln.DTypeError, match="uint32"):
        kiln.from_dlpack(theirs(cupy, values(dtype=np.uint32)))


def test_recordings(cupy: Any) -> None:
    x, a = kiln.ones(64, device="cuda"), theirs(cupy, values((64,)))
    g = kiln.cuda.CUDAGraph()
    with kiln.cuda.graph(g):
        y = x * 2
        for give in (lambda: y.__dlpack__(stream=1), lambda: kiln.from_dlpack(a)):
            with pytest.raises(kiln.DeviceError, match="can't be part of a CUDA graph"):
                give()
        own = y.__dlpack__(stream=kiln.cuda.current_stream().cuda_stream)
        free = y.__dlpack__(stream=-1)
    g.replay()
    assert (cupy.from_dlpack(own).get() == 2).all() and (cupy.from_dlpack(free).get() == 2).all()


def test_captures_do_not_give_memory_away(cupy: Any) -> None:
    @kiln.compile
    def f(x: Any) -> Any:
        (x * 2).__dlpack__()
        return x + 6

    with pytest.warns(CaptureWarning, match=r"data_ptr"):
        assert f(kiln.ones(3, device="cuda")).tolist() == [7, 7, 7]


# ----------------------------------------------------------------------------------------- CUDA's interface of arrays


def test_the_interface_of_cudas_arrays(cupy: Any, gpu: Gpu) -> None:
    host, s = values((4, 6)), kiln.cuda.Stream()
    x = kiln.from_numpy(host).cuda()
    kiln.cuda.synchronize()
    for part in (x, x.t(), x[1:, ::2], x[2, 3], x[:0]):
        a = cupy.asarray(part)
        assert same(a, np.ascontiguousarray(part.numpy(force=True)).reshape(part.shape))
        assert set(part.__cuda_array_interface__) == {
            "version", "shape", "typestr", "descr", "data", "strides", "stream",
        }  # fmt: skip
    assert x.__cuda_array_interface__["stream"] == 1
    with gpu.deferred(), kiln.cuda.stream(s):
        y = x * 2
        assert y.__cuda_array_interface__["stream"] == s.cuda_stream
        assert same(cupy.asarray(y), host * 2)
    before = cupy.asarray(kiln.full((9,), 4.0, device="cuda"))
    gc.collect()
    kiln.full((9,), 5.0, device="cuda")
    assert (before.get() == 4).all()
