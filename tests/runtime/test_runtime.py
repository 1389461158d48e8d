"""Memory, object cache, loader, thread pool, executables."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kiln.ir.program import CheckSite, Module, Program, Slot
from kiln.runtime import cache, loader, memory, targets, threads
from kiln.runtime.executable import Executable, ProgramError, load
from kiln.runtime.llvm import CompileError, compile_object

BODY = """
define internal void @body(ptr %ctx, ptr %args, i64 %begin, i64 %end) {
  %x = load ptr, ptr %args
  %yp = getelementptr ptr, ptr %args, i64 1
  %y = load ptr, ptr %yp
  br label %head
head:
  %i = phi i64 [%begin, %0], [%i1, %head]
  %p = getelementptr float, ptr %x, i64 %i
  %q = getelementptr float, ptr %y, i64 %i
  %v = load float, ptr %p
  %w = fadd float %v, 1.0
  store float %w, ptr %q
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %end
  br i1 %more, label %head, label %done
done:
  ret void
}
define i32 @add_one(ptr %ctx, ptr %args) {
  %slot = getelementptr ptr, ptr %ctx, i64 2
  %parallel_for = load ptr, ptr %slot
  %np = getelementptr i64, ptr %args, i64 2
  %n = load i64, ptr %np
  %status = call i32 %parallel_for(ptr %ctx, ptr @body, ptr %args, i64 %n, i64 64)
  ret i32 %status
}
"""
FAILING = """
define i32 @fails(ptr %ctx, ptr %args) {
  %slot = getelementptr ptr, ptr %ctx, i64 4
  %error = load ptr, ptr %slot
  store i64 1, ptr %error
  %p1 = getelementptr i64, ptr %error, i64 1
  store i64 0, ptr %p1
  %p2 = getelementptr i64, ptr %error, i64 2
  store i64 42, ptr %p2
  ret i32 1
}
"""


def program(text: str, entry: str, slots: tuple[Slot, ...], **more: Any) -> Program:
    return Program(entry, targets.host_target(), (Module(entry, text, (entry,)),), (entry,), slots, (), (), **more)


@pytest.fixture
def add_one() -> Executable:
    return load(program(BODY, "add_one", (Slot("input"), Slot("output"), Slot("size", 0, "n"))))


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def run(executable: Executable, n: int) -> np.ndarray[Any, Any]:
    x = memory.Buffer.allocate(4 * n).as_numpy(np.dtype("f4"), (n,), (4,))
    y = memory.Buffer.allocate(4 * n).as_numpy(np.dtype("f4"), (n,), (4,))
    x[:] = np.arange(n) % 1000
    y[:] = 0
    executable.run([x.__array_interface__["data"][0], y.__array_interface__["data"][0], n])
    return np.asarray(y - x)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_element_is_computed_once_with_any_number_of_threads(
    add_one: Executable, count: int, restore_threads: None
) -> None:
    threads.set_num_threads(count)
    for n in (1, 63, 64, 65, 1000, 100_003):
        assert np.all(run(add_one, n) == 1)


def test_concurrent_callers(add_one: Executable, restore_threads: None) -> None:
    threads.set_num_threads(3)
    wrong: list[int] = []

    def work() -> None:
        for n in (5000, 70_001, 3) * 8:
            if not np.all(run(add_one, n) == 1):
                wrong.append(n)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_a_forked_child_has_threads_of_its_own(add_one: Executable, restore_threads: None) -> None:
    threads.set_num_threads(2)
    run(add_one, 10_000)
    child = os.fork()
    if child == 0:  # no test machinery in the child
        os._exit(0 if np.all(run(add_one, 200_000) == 1) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("bad", [0, -1, 1000])
def test_thread_counts_out_of_range(bad: int) -> None:
    with pytest.raises(ValueError, match="from 1 to"):
        threads.set_num_threads(bad)
    with pytest.raises(TypeError, match="int"):
        threads.set_num_threads(1.5)  # type: ignore[arg-type]


def test_a_failed_check_raises_with_site_and_value() -> None:
    site = CheckSite("index", "pick", "index {value} is bad")
    executable = load(program(FAILING, "fails", (), checks=(site,)))
    for _ in range(2):  # the record is cleared in between
        with pytest.raises(ProgramError, match="index 42 is bad") as caught:
            executable.run([])
        assert caught.value.site is site


def test_the_number_of_slots_is_checked(add_one: Executable) -> None:
    with pytest.raises(ValueError, match="takes 3 slots"):
        add_one.run([1, 2])


# ------------------------------------------------------------------------------------------- memory


def test_memory_is_aligned_and_reused() -> None:
    for n in (0, 1, 64, 65, 1000, 5000, 1 << 20, 3 << 20):
        assert memory.Buffer.allocate(n).ptr % memory.ALIGN == 0
    gc.collect()
    first = memory.Buffer.allocate(777).ptr
    assert memory.Buffer.allocate(777).ptr == first  # the first one was freed at once


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1024, 1025, 4096, 5000, 123_456, 10**9])
def test_size_classes_hold_what_they_serve(n: int) -> None:
    size = memory.size_class(n)
    assert size >= n
    assert size % memory.ALIGN == 0
    assert memory.size_class(size) == size
    assert size <= max(1.26 * n, n + 64)


def test_a_window_keeps_its_buffer_alive() -> None:
    array = memory.Buffer.allocate(64).as_numpy(np.dtype("f8"), (8,), (8,))
    array[:] = 3.0
    others = [memory.Buffer.allocate(64).as_numpy(np.dtype("f8"), (8,), (8,)) for _ in range(10)]
    for other in others:
        other[:] = 0.0
    assert np.all(array == 3.0)


def test_too_much_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="refused"):
        memory.Buffer.allocate(1 << 60)


# -------------------------------------------------------------------------------------------- cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KILN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_warned", set())
    return tmp_path


def test_objects_are_built_once(folder: Path) -> None:
    built: list[int] = []

    def build() -> bytes:
        built.append(1)
        return b"object"

    target = targets.host_target()
    assert [cache.fetch("d", target, build) for _ in range(3)] == [b"object"] * 3
    assert built == [1]
    assert cache.fetch("d", targets.LEVELS["baseline"], build) == b"object"
    assert built == [1, 1]
    assert not list(folder.rglob("tmp*"))


def test_a_damaged_object_is_rebuilt_with_one_warning(folder: Path) -> None:
    target = targets.host_target()
    for digest in ("a", "b"):
        cache.fetch(digest, target, lambda: b"good")
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.warns(cache.CacheWarning, match="damaged") as caught:
        assert cache.fetch("a", target, lambda: b"good") == b"good"
        assert cache.fetch("b", target, lambda: b"good") == b"good"
    assert len(caught) == 1
    assert cache.fetch("a", target, lambda: b"never called") == b"good"


def test_a_folder_that_cannot_be_written_is_done_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("KILN_CACHE_DIR", str(folder / "file" / "below"))
    with pytest.warns(cache.CacheWarning):
        assert cache.fetch("x", targets.host_target(), lambda: b"built") == b"built"


# ------------------------------------------------------------------------------------ code and targets


def test_unknown_symbols_are_refused() -> None:
    text = "declare i32 @nowhere()\ndefine i32 @f() { %r = call i32 @nowhere()\n ret i32 %r }"
    data = compile_object(Module("text", text, ()), targets.host_target())
    assert loader.undefined_symbols(data) == {"nowhere"}
    with pytest.raises(loader.LoadError, match="'nowhere'"):
        loader.load_object(data, lambda name: None)


@pytest.mark.parametrize("data", [b"", b"not an object", b"\x7fELF\x02\x01" + bytes(58)])
def test_damaged_objects_are_typed_errors(data: bytes) -> None:
    with pytest.raises(loader.LoadError):
        loader.load_object(data, lambda name: None)


def test_invalid_text_is_a_typed_error() -> None:
    with pytest.raises(CompileError, match="mine"):
        compile_object(Module("mine", "define i32 @f( {", ()), targets.host_target())


def test_targets_by_name() -> None:
    assert targets.named("baseline").vector_bits == 128
    with pytest.raises(targets.TargetError, match="known"):
        targets.named("pentium")
    with targets.use_target(targets.LEVELS["baseline"]) as t:
        assert targets.host_target() is t
    assert targets.host_target() is not targets.LEVELS["baseline"]


def test_the_runtime_loads_without_frontend_and_llvm() -> None:
    code = (
        "import sys, kiln.runtime.executable\n"
        "bad = {'llvmlite', 'llvmlite.binding', 'networkx', 'kiln.tensor', 'kiln.codegen'} & set(sys.modules)\n"
        "print(sorted(bad))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_dirty_floating_point_modes_change_nothing() -> None:
    """Flush-to-zero set by somebody else in this thread must not reach kernels."""
    import kiln

    code = """
    define void @dirty(i32 %v) {
      %p = alloca i32
      store i32 %v, ptr %p
      call void @llvm.x86.sse.ldmxcsr(ptr %p)
      ret void
    }
    declare void @llvm.x86.sse.ldmxcsr(ptr)
    """
    import ctypes

    address = loader.load_object(compile_object(Module("code", code, ()), targets.host_target()), lambda name: None)[
        "dirty"
    ]
    dirty = ctypes.CFUNCTYPE(None, ctypes.c_uint32)(address)
    tiny = kiln.full((40,), 1e-40)
    clean = (tiny * 0.5).numpy().copy()
    assert np.all(clean > 0)
    dirty(0x9FC0)  # flush to zero, denormals are zero
    try:
        again = tiny * 0.5
    finally:
        dirty(0x1F80)
    assert again.numpy().tobytes() == clean.tobytes()
