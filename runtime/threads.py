"""The persistent thread pool behind `parallel_for`. Results never depend on the number of threads.

The pool itself is `pool.ll`, LLVM IR text compiled (or fetched from the cache) like any kernel. Workers are
detached native threads that never touch Python; they are started when first wanted, survive until the process
ends, and are started anew in a forked child.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kiln.ir.program import Module
from kiln.runtime import targets
from kiln.runtime.modules import load_module

MAX_THREADS: Final = 256
_SYMBOLS: Final = ("pthread_create", "pthread_detach", "syscall", "aligned_alloc", "free")
_PYTHON: Final = ("PyGILState_Ensure", "PyGILState_Release", "PyErr_CheckSignals", "PyErr_Fetch")
_EXPORTS: Final = (
    "kiln_host_call",
    "kiln_allocate",
    "kiln_free",
    "kiln_parallel_for",
    "kiln_start_worker",
    "kiln_set_workers",
    "kiln_pool_reset",
    "kiln_exchange_csr",
)


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses for the native context, and the pool's controls."""

    allocate: int
    free: int
    parallel_for: int
    host_call: int
    start_worker: Any
    set_workers: Any
    reset: Any
    exchange_csr: Any


_lock = threading.Lock()
_started = 0
_wanted: int | None = None


@functools.cache
def _module_addresses() -> dict[str, int]:
    text = Path(__file__).with_name("pool.ll").read_text()
    libc = ctypes.CDLL(None)

    def resolve(name: str) -> int | None:
        home = libc if name in _SYMBOLS else ctypes.pythonapi if name in _PYTHON else None
        return None if home is None else ctypes.cast(getattr(home, name), ctypes.c_void_p).value

    # The baseline target: the pool has no vectors, and one object serves every machine.
    module = Module("pool", text, _EXPORTS, (*_SYMBOLS, *_PYTHON), plain=True)
    return load_module(module, targets.LEVELS["baseline"], resolve)


@functools.cache
def pool() -> Pool:
    """The loaded pool, with `get_num_threads()` threads taking part."""
    at = _module_addresses()
    loaded = Pool(
        at["kiln_allocate"],
        at["kiln_free"],
        at["kiln_parallel_for"],
        at["kiln_host_call"],
        ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64)(at["kiln_start_worker"]),
        ctypes.CFUNCTYPE(None, ctypes.c_int32)(at["kiln_set_workers"]),
        ctypes.CFUNCTYPE(None)(at["kiln_pool_reset"]),
        ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_int32)(at["kiln_exchange_csr"]),
    )
    _staff(loaded)
    return loaded


def _staff(loaded: Pool) -> None:
    """Start the workers that are wanted and not yet there."""
    global _started
    with _lock:
        workers = get_num_threads() - 1
        while _started < workers:
            if loaded.start_worker(_started) != 0:
                raise RuntimeError(f"the system refused thread {_started + 2} of {workers + 1}")
            _started += 1
        loaded.set_workers(workers)


def get_num_threads() -> int:
    """Threads that one parallel region uses, the caller included. First $KILN_NUM_THREADS, else the CPUs this
    process may run on."""
    if _wanted is not None:
        return _wanted
    chosen = os.environ.get("KILN_NUM_THREADS", "")
    if chosen:
        return _checked(int(chosen) if chosen.isdigit() else 0, f"KILN_NUM_THREADS={chosen!r}")
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(n: int) -> None:
    """Use `n` threads from now on (1 to 256). Numbers do not change, only the time."""
    global _wanted
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"set_num_threads: takes an int, got {type(n).__name__}")
    _wanted = _checked(n, f"set_num_threads({n})")
    if pool.cache_info().currsize:
        _staff(pool())


def _checked(n: int, what: str) -> int:
    if not 1 <= n <= MAX_THREADS:
        raise ValueError(f"{what}: the number of threads is from 1 to {MAX_THREADS}")
    return n


def _after_fork_in_child() -> None:
    """A forked child has none of the parent's workers: start its own."""
    global _started, _lock
    _lock = threading.Lock()  # the parent's may have been held
    _started = 0
    if pool.cache_info().currsize:
        pool().reset()
        _staff(pool())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
