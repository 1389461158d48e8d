"""Native code as functions of Python's."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading

import pytest

import kiln
from kiln.runtime import calls

SEEN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64))


def entry(slots: int, found: list[object]) -> object:
    """A native function that notes its context and its slots, and returns their number."""

    def seen(context: int, values: object) -> int:
        found.append((context, [values[k] for k in range(slots)], holds_lock()))  # type: ignore[index]
        return slots - 3

    return SEEN(seen)


def holds_lock() -> bool:
    return bool(ctypes.pythonapi.PyGILState_Check())


@pytest.mark.parametrize("keeps_lock", [False, True])
@pytest.mark.parametrize("slots", [0, 1, 3, 1000])
def test_slots_and_status_arrive(slots: int, keeps_lock: bool) -> None:
    found: list[object] = []
    native = entry(slots, found)
    at = ctypes.cast(native, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert at is not None
    # A function of ctypes takes the lock itself, and asks for it again where it is held.
    call = calls.caller(at, slots, keeps_lock)
    assert call is not None
    values = [(-1) ** k * (2**62 + k) for k in range(slots)]
    gc.collect()  # the table must live as long as the function
    assert call(2**47, *values) == slots - 3
    assert found == [(2**47, values, True)]


@pytest.mark.parametrize(
    "wrong", [(), (1,), (1, 2), (1, 2, 3, 4), (1, 2, None), (1, 2, 0.5), (1, 2, 2**63), ("", 1, 2)]
)
def test_wrong_arguments_never_reach_native_code(wrong: tuple[object, ...]) -> None:
    found: list[object] = []
    native = entry(2, found)
    call = calls.caller(ctypes.cast(native, ctypes.c_void_p).value or 0, 2, True)  # type: ignore[arg-type]
    assert call is not None
    with pytest.raises((TypeError, OverflowError)):
        call(*wrong)  # type: ignore[arg-type]
    assert found == []


@pytest.mark.parametrize("size", [8, 300])
def test_more_slots_than_the_stack_should_hold(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are packed by Python. The larger one hands the lock over."""
    assert calls.caller(1, 5000, True) is None
    monkeypatch.setattr(calls, "_MAX_SLOTS", 1)
    compiled = kiln.compile(lambda x, y: (x @ y).exp().sum(0) - y)
    x, y = kiln.rand(size, size), kiln.rand(size, size)
    with kiln.no_grad():
        wanted = compiled(x, y).tolist()
        assert compiled(x, y).tolist() == wanted
    assert compiled.report().compiled == 1
    (region,) = compiled.regions()
    assert "lambda" in repr(region.compile().executable._call)


def test_the_lock_is_handed_over() -> None:
    """While long native code runs, other threads do."""
    x = kiln.rand(700, 700)
    product = kiln.compile(lambda x: x @ x @ x @ x)
    with kiln.no_grad():
        product(x), product(x)
    ran, go = [False], threading.Event()

    def work() -> None:
        go.wait(60)
        ran[0] = True

    interval = sys.getswitchinterval()
    worker = threading.Thread(target=work)
    worker.start()
    try:
        sys.setswitchinterval(100.0)  # the lock is not taken from a thread: it must be given
        go.set()
        before = ran[0]
        with kiln.no_grad():
            product(x)
        after = ran[0]
    finally:
        sys.setswitchinterval(interval)
        worker.join()
    assert not before
    assert after
