"""`kiln.cuda`: devices, memory statistics, streams and events, as a program sees them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import kiln
from kiln.runtime import cuda_driver
from tests.gpu import fake_device
from tests.gpu.conftest import Gpu

DOUBLE = 1 << 20


@pytest.fixture(autouse=True)
def _clean(gpu: Gpu) -> Iterator[None]:
    session = cuda_driver.session()
    yield
    kiln.cuda.set_sync_debug_mode(0)
    cuda_driver.local.device = 0
    session.debug = False
    for each in session.gpus:
        each.fault = ""
        each.use(each.default)


def on_gpu(n: int = 64, device: str = "cuda") -> kiln.Tensor:
    return kiln.arange(n).float().to(device)


def test_what_there_is(fake: Gpu) -> None:
    assert kiln.cuda.is_available() and kiln.cuda.device_count() == 2
    kiln.cuda.init()
    assert kiln.cuda.is_initialized()
    assert kiln.cuda.get_device_name() == kiln.cuda.get_device_name("cuda:1") == "Fake GPU"
    properties = kiln.cuda.get_device_properties(kiln.device("cuda", 1))
    assert (properties.major, properties.minor) == kiln.cuda.get_device_capability() == (9, 0)
    assert properties.total_memory == kiln.cuda.mem_get_info()[1] and properties.multi_processor_count == 4
    assert kiln.cuda.is_bf16_supported()


def test_nothing_without_cupy(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert not kiln.cuda.is_available() and kiln.cuda.device_count() == 0
    before = kiln.get_rng_state()
    kiln.cuda.manual_seed(3)
    kiln.cuda.manual_seed_all(3)
    assert (kiln.get_rng_state() == before).all()
    for use in (kiln.cuda.init, kiln.cuda.current_device, kiln.cuda.Stream, kiln.cuda.synchronize):
        with pytest.raises(kiln.DeviceError, match="cupy-cuda13x"):
            use()


def test_the_current_device(fake: Gpu) -> None:
    assert kiln.cuda.current_device() == 0
    with kiln.cuda.device(1):
        assert kiln.cuda.current_device() == 1 and kiln.device("cuda") == kiln.device("cuda:1")
        assert on_gpu().device == kiln.device("cuda:1")
        with kiln.cuda.device(None), kiln.cuda.device(-1), kiln.cuda.device_of(kiln.ones(2)):
            assert kiln.cuda.current_device() == 1
        with kiln.cuda.device_of(on_gpu(device="cuda:0")):
            assert kiln.cuda.current_device() == 0
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(kiln.cuda.current_device()))
        thread.start()
        thread.join()
        assert seen == [0]
    assert kiln.cuda.current_device() == 0
    kiln.cuda.set_device("cuda:1")
    kiln.cuda.set_device(-1)
    assert kiln.cuda.current_device() == 1 and cuda_driver.session().runtime.getDevice() == 1
    with pytest.raises(kiln.DeviceError, match="no GPU 5"):
        kiln.cuda.set_device(5)
    with pytest.raises(kiln.KilnError, match="expected a GPU, got cpu"):
        kiln.cuda.set_device("cpu")
    kiln.cuda.set_device(0)


def test_memory_statistics() -> None:
    kiln.zeros(DOUBLE, device="cuda")
    kiln.cuda.empty_cache()
    kiln.cuda.reset_peak_memory_stats()
    before, free = kiln.cuda.memory_allocated(), kiln.cuda.mem_get_info()[0]
    x = kiln.zeros(DOUBLE, device="cuda")
    assert kiln.cuda.memory_allocated() == before + 4 * DOUBLE
    assert kiln.cuda.mem_get_info()[0] <= free - 4 * DOUBLE
    del x
    assert kiln.cuda.memory_allocated() == before and kiln.cuda.max_memory_allocated() >= before + 4 * DOUBLE
    assert kiln.cuda.memory_reserved() >= 4 * DOUBLE
    kiln.cuda.empty_cache()
    assert kiln.cuda.memory_reserved() < 4 * DOUBLE <= kiln.cuda.max_memory_reserved()
    kiln.cuda.reset_peak_memory_stats()
    assert kiln.cuda.max_memory_allocated() == before and kiln.cuda.max_memory_reserved() < 4 * DOUBLE
    stats = kiln.cuda.memory_stats()
    assert stats["allocated_bytes.all.current"] == before
    assert f"{stats['reserved_bytes.all.current']:,}" in kiln.cuda.memory_summary()


def test_out_of_memory(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kiln.cuda.OutOfMemoryError is kiln.OutOfMemoryError
    with pytest.raises(kiln.cuda.OutOfMemoryError, match="40,000,000,000 bytes") as caught:
        kiln.zeros(10**10, device="cuda")
    assert isinstance(caught.value, RuntimeError) and caught.value.loc is not None
    assert caught.value.loc.file == __file__


def test_a_query_tells_of_a_failure(fake: Gpu) -> None:
    """A loop that waits for `query` ends."""
    event, stream = kiln.cuda.Event(), kiln.cuda.Stream()
    event.record(stream)
    kiln.cuda.synchronize()
    assert event.query() and stream.query()
    for query in (event.query, stream.query):
        fake_device.state.devices[0].fail(700, "on purpose")
        with pytest.raises(kiln.DeviceError, match="cudaErrorIllegalAddress"):
            query()
        assert fake.errors()
        cuda_driver.session().gpus[0].fault = ""


def test_memory_is_of_kilns_stream_whatever_cupys_is(fake: Gpu) -> None:
    place = cuda_driver.gpu(0)
    pool = place._pool._pool()
    kiln.cuda.empty_cache()
    theirs, mine = place.session.cupy.cuda.Stream(non_blocking=True), kiln.cuda.Stream()
    with theirs:
        on_gpu()
        with kiln.cuda.stream(mine):
            on_gpu()
    with mine.queue.handle:
        on_gpu()
    assert {stream for stream, _ in pool.kept} == {0, mine.cuda_stream}


def test_no_wait_for_the_gpu_while_another_thread_records(fake: Gpu) -> None:
    place = cuda_driver.gpu(0)
    for wait in (kiln.cuda.synchronize, kiln.cuda.empty_cache):
        thread = threading.Thread(target=wait)
        with place.recording:
            thread.start()
            thread.join(0.05)
            assert thread.is_alive()
        thread.join()


def test_streams_are_equal_by_what_they_are(fake: Gpu) -> None:
    s = kiln.cuda.Stream()
    assert s == s and s != kiln.cuda.Stream() and s.device == kiln.device("cuda:0") and s.cuda_stream
    assert kiln.cuda.default_stream() == kiln.cuda.current_stream() != kiln.cuda.default_stream(1)
    assert kiln.cuda.default_stream().cuda_stream == 0 and len({s, s, kiln.cuda.default_stream()}) == 2
    assert "cuda:0" in repr(s) and s.__cuda_stream__() == (0, s.cuda_stream)


def test_work_goes_to_the_current_stream(fake: Gpu) -> None:
    s = kiln.cuda.Stream()
    x = on_gpu()
    kiln.cuda.synchronize()
    with fake.deferred():
        with kiln.cuda.stream(s):
            assert kiln.cuda.current_stream() == s
            y = x * 2
            with kiln.cuda.stream(None):
                assert kiln.cuda.current_stream() == s
        assert kiln.cuda.current_stream() == kiln.cuda.default_stream()
        assert not s.query() and kiln.cuda.default_stream().query()
        s.synchronize()
        assert s.query()
        np.testing.assert_array_equal(y.cpu().numpy(), np.arange(64) * 2.0)


def test_a_stream_of_another_device_makes_it_current(fake: Gpu) -> None:
    s = kiln.cuda.Stream(1)
    with kiln.cuda.stream(s):
        assert kiln.cuda.current_device() == 1 and kiln.cuda.current_stream() == s
    assert kiln.cuda.current_device() == 0 and kiln.cuda.current_stream(1) == kiln.cuda.default_stream(1)
    with s, s:
        assert kiln.cuda.current_stream() == s
    assert kiln.cuda.current_device() == 0


def test_streams_wait_for_each_other(gpu: Gpu) -> None:
    a, b = kiln.cuda.Stream(), kiln.cuda.Stream()
    x = on_gpu()
    kiln.cuda.synchronize()
    with gpu.deferred():
        with kiln.cuda.stream(a):
            y = x + 1
        b.wait_stream(a)
        with kiln.cuda.stream(b):
            z = y * 3
        b.synchronize()
        assert a.query()
        with kiln.cuda.stream(b):
            np.testing.assert_array_equal(z.cpu().numpy(), (np.arange(64) + 1.0) * 3)


def test_memory_of_a_tensor_that_another_stream_uses(gpu: Gpu) -> None:
    s = kiln.cuda.Stream()
    with gpu.deferred():
        x = on_gpu()
        s.wait_stream(kiln.cuda.current_stream())
        with kiln.cuda.stream(s):
            y = x * 2
        x.record_stream(s)
        del x
        other = kiln.zeros(64, device="cuda")
        kiln.cuda.current_stream().synchronize()
        with kiln.cuda.stream(s):
            np.testing.assert_array_equal(y.cpu().numpy(), np.arange(64) * 2.0)
        del other
    with pytest.raises(kiln.KilnError, match=r"expected a kiln\.cuda\.Stream"):
        on_gpu().record_stream(3)


def test_memory_that_another_gpu_reads(fake: Gpu) -> None:
    y, s = kiln.zeros(64, device="cuda:1"), kiln.cuda.Stream()
    kiln.cuda.synchronize(1)
    with fake.deferred():
        with kiln.cuda.stream(s):
            x = on_gpu()
        s.synchronize()
        with cuda_driver.session().cupy.cuda.Device(1):
            fake_device.copy(y.data_ptr(), x.data_ptr(), 256, 4, 0)
        for index in (1, 0):  # CUDA has one number for both
            x.record_stream(kiln.cuda.default_stream(index))
        del x
        with kiln.cuda.stream(s):
            other = kiln.zeros(64, device="cuda")
        s.synchronize()
        np.testing.assert_array_equal(y.cpu().numpy(), np.arange(64))
        del other


def test_events(fake: Gpu) -> None:
    first, last = kiln.cuda.Event(enable_timing=True), kiln.cuda.Event(enable_timing=True)
    assert first.query() and "uninitialized" in repr(first)
    x = on_gpu()
    with fake.deferred():
        first.record()
        x = x * 2
        assert kiln.cuda.current_stream().record_event(last) is last
        with pytest.raises(kiln.KilnError, match="not done"):
            first.elapsed_time(last)
        last.synchronize()
        assert first.query() and first.elapsed_time(last) >= 0
    with pytest.raises(kiln.KilnError, match="enable_timing"):
        first.elapsed_time(kiln.cuda.Event())
    with pytest.raises(kiln.KilnError, match="recorded first"):
        first.elapsed_time(kiln.cuda.Event(enable_timing=True))
    with pytest.raises(kiln.DeviceError, match="cuda:0"):
        first.record(kiln.cuda.Stream(1))
    kiln.cuda.Event().wait()
    kiln.cuda.Stream(1).wait_event(last)


def test_seeds() -> None:
    def drawn() -> list[float]:
        numbers: list[float] = kiln.rand(3, device="cuda").tolist()
        return numbers

    before = kiln.get_rng_state()
    kiln.cuda.manual_seed_all(5)
    assert kiln.cuda.initial_seed() == 5
    first, state, second = drawn(), kiln.cuda.get_rng_state(), drawn()
    kiln.cuda.manual_seed(5)
    assert drawn() == first != second
    kiln.cuda.set_rng_state(state)
    assert drawn() == second
    kiln.cuda.set_rng_state_all(kiln.cuda.get_rng_state_all())
    assert (kiln.get_rng_state() == before).all()
    kiln.manual_seed(5)
    assert drawn() == first == kiln.rand(3).tolist(), "a seed gives the same numbers everywhere"
    kiln.cuda.seed()
    kiln.cuda.seed_all()
    assert drawn() != first


def test_waiting_can_be_forbidden() -> None:
    x = on_gpu()
    assert kiln.cuda.get_sync_debug_mode() == 0
    kiln.cuda.set_sync_debug_mode("warn")
    with pytest.warns(UserWarning, match="the host waits"):
        x.cpu()
    kiln.cuda.set_sync_debug_mode("error")
    y = x * 2 + 1
    with pytest.raises(kiln.DeviceError, match="forbids"):
        y[3].item()
    kiln.cuda.set_sync_debug_mode(0)
    assert y[3].item() == 7
    with pytest.raises(kiln.KilnError, match="the mode is one of"):
        kiln.cuda.set_sync_debug_mode("loud")


def test_faults_come_as_kilns_own(fake: Gpu) -> None:
    x = on_gpu()
    fake_device.state.devices[0].fail(700, "an illegal address")
    for use in (kiln.cuda.synchronize, lambda: (x * 3).cpu(), kiln.cuda.Stream, kiln.cuda.current_stream):
        with pytest.raises(kiln.DeviceError, match="restart the process"):
            use()
    assert fake.errors()


def test_importing_kiln_imports_no_cupy() -> None:
    code = """if 1:
        import sys, kiln
        kiln.ones(3) + 1
        kiln.cuda
        assert not [m for m in sys.modules if m.startswith(("cupy", "kiln.runtime.cuda"))]
        assert not kiln.cuda.is_initialized()"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_streams_have_constants_of_their_own(fake: Gpu) -> None:
    x = on_gpu()
    x * 3
    kiln.cuda.synchronize()
    first, second = kiln.cuda.Stream(), kiln.cuda.Stream()
    with kiln.cuda.stream(first):
        a = x * 7.25  # the number is on its way when the other stream needs it
    with kiln.cuda.stream(second):
        made = (x * 7.25).cpu().numpy()
    assert np.array_equal(made, np.arange(64) * 7.25)
    first.synchronize()
    assert np.array_equal(a.cpu().numpy(), made)


def test_numbers_of_the_cpu_come_in_one_copy(fake: Gpu) -> None:
    model = kiln.nn.Sequential(kiln.nn.Linear(3, 3), kiln.nn.Linear(3, 3)).cuda()
    opt = kiln.optim.Adam(model.parameters(), lr=0.1)
    for p in model.parameters():
        p.grad = kiln.ones_like(p)
    numbers = [kiln.tensor(float(k)) for k in range(4)]
    f = kiln.compile(lambda x, a, b, c, d: (x * a + b, c - x, d * x))
    x = on_gpu(4)
    wanted = f(x, *numbers)
    opt.step()
    for run in (opt.step, lambda: f(x, *numbers)):
        run()
        fake.counts.clear()
        made = run()
        assert fake.counts["memcpy"] == 1 and fake.counts["synchronize"] == 0, fake.counts
    assert all((a == b).all() for a, b in zip(made, wanted, strict=True))
