"""What the benchmarks share: paired timing, the peers that are installed, and this machine's floors.

Machines are shared and clocks wander, so candidates are never timed one after the other: each round runs every
candidate once, in a new order, and medians over the rounds are compared. Before each sample there is a short rest,
so that the threads of the library before, which spin for a while, are asleep. Nothing here asserts a time.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import ctypes
import functools
import gc
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Run = Callable[[], Any]
SAMPLE = 2e-3
"""Seconds that one sample should take: short candidates are repeated within it."""
REST = 10e-3
"""Seconds of rest before a sample."""


def arguments(about: str) -> argparse.Namespace:
    """The options that every benchmark takes; thread counts are set before any library starts its threads."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for kiln and the peers")
    parser.add_argument("--rounds", type=int, default=25, help="samples per candidate")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    options = parser.parse_args()
    if os.environ.get("KILN_NUM_THREADS") != str(options.threads):
        # Libraries read these when they are imported, so this process starts anew. JAX knows no such variable:
        # it takes as many threads as there are CPUs to run on.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KILN_NUM_THREADS"):
            os.environ[name] = str(options.threads)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
        os.execv(sys.executable, [sys.executable, *sys.argv])
    return options


# ------------------------------------------------------------------------------------------------ peers


@functools.cache
def torch() -> Any:
    """The torch module with its threads set, or None; says so once when it is missing."""
    try:
        import torch
    except ImportError:
        print("torch is not installed: left out", file=sys.stderr)
        return None
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return torch


@functools.cache
def torch_compiles() -> bool:
    """Whether torch.compile can work here: it needs a C++ compiler."""
    if torch() is None:
        return False
    if not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")):
        print("no C++ compiler: torch.compile is left out", file=sys.stderr)
        return False
    return True


@functools.cache
def jax() -> Any:
    """The jax module on the CPU, or None; says so once when it is missing."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
    except ImportError:
        print("jax is not installed: left out", file=sys.stderr)
        return None
    return jax


# ------------------------------------------------------------------------------------------------ timing


def paired(candidates: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of one call of each candidate, interleaved."""
    repeats = {}
    for name, run in candidates.items():
        run()  # compiles, fills caches
        started = time.perf_counter()
        run()
        repeats[name] = max(1, round(SAMPLE / max(time.perf_counter() - started, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            run, n = candidates[name], repeats[name]
            time.sleep(REST)
            run()  # wakes the threads, warms the caches
            started = time.perf_counter()
            for _ in range(n):
                run()
            samples[name].append((time.perf_counter() - started) / n)
    return {name: statistics.median(times) for name, times in samples.items()}


@dataclass
class Case:
    """One workload: candidates that compute the same, and the work they cannot avoid."""

    name: str
    candidates: dict[str, Run]
    flops: float = 0.0
    bytes: float = 0.0
    result: Callable[[Any], Any] = field(default=lambda x: x)
    tolerance: float = 1e-4


def check(case: Case) -> None:
    """Raise unless all candidates give about the same numbers: a wrong answer is not timed."""
    results = {name: np.asarray(case.result(run()), np.float64) for name, run in case.candidates.items()}
    reference, wanted = next(iter(results.items()))
    for name, got in results.items():
        scale = np.abs(wanted).max() + 1e-30
        if got.shape != wanted.shape or not np.abs(got - wanted).max() <= case.tolerance * scale:
            raise AssertionError(f"{case.name}: {name} and {reference} differ")


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keeps collections (and the libraries' hooks on them) out of what is timed, as timeit does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def report(case: Case, rounds: int, floors: Floors | None = None) -> dict[str, float]:
    """Time a case and print a line per candidate: microseconds, ratio to the first (kiln's best), GF/s."""
    with no_garbage_collection():
        check(case)
        times = paired(case.candidates, rounds)
    base = next(iter(times.values()))
    print(f"\n{case.name}")
    for name, seconds in times.items():
        rate = f"{case.flops / seconds / 1e9:8.1f} GF/s" if case.flops else ""
        speed = f"{case.bytes / seconds / 1e9:8.1f} GB/s" if case.bytes else ""
        print(f"  {name:22}{seconds * 1e6:12.1f} us {seconds / base:7.2f}x {rate}{speed}")
    if floors is not None:
        floor = max(case.flops / floors.flops, case.bytes / floors.bandwidth)
        print(f"  {'floor of this machine':22}{floor * 1e6:12.1f} us {floor / base:7.2f}x")
    return times


# ------------------------------------------------------------------------------------------------ floors


@dataclass
class Floors:
    """What this machine can do at best, with the threads of this run."""

    flops: float  # float32 operations per second, a multiply-add being two
    bandwidth: float  # bytes per second, read and written, of a copy larger than the caches


def floors(threads: int) -> Floors:
    """Measured now: multiply-adds in registers, by the innermost kernel of the matrix product, on every thread at
    once; and a copy of 128 MB."""
    import kiln

    source, target = kiln.zeros(1 << 25), kiln.zeros(1 << 25)
    copy = paired({"copy": lambda: target.copy_(source)}, 15)["copy"]
    best = Floors(threads * _multiply_adds(threads), 2 * 4 * source.numel() / copy)
    print(f"{threads} thread(s): {best.flops / 1e9:.0f} GF/s float32, copy {best.bandwidth / 1e9:.1f} GB/s")
    return best


def _multiply_adds(threads: int) -> float:
    """float32 operations per second and thread. With strides of 0 the tile stays on one row and column."""
    from kiln.codegen.matmul import matmul_module, tile_shape
    from kiln.ir.types import float32
    from kiln.runtime.modules import load_module
    from kiln.runtime.targets import host_target

    target = host_target()
    shape = tile_shape(float32, target)
    name = f"kiln_matmul_float32_tile{shape.rows}x{shape.vectors}"
    address = load_module(matmul_module(float32, target), target, lambda symbol: None)[name]
    tile = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 8)(address)
    a, steps = np.zeros(shape.panel, np.float32), 200_000

    def run(_: int) -> float:
        c = np.zeros((shape.rows, shape.panel), np.float32)
        pointers = [x.__array_interface__["data"][0] for x in (a, a, c)]
        best = float("inf")
        for _ in range(20):
            started = time.perf_counter()
            tile(None, *pointers, shape.rows, shape.panel, steps, 0, 0, 0, shape.panel, 0)
            best = min(best, time.perf_counter() - started)
        return 2 * steps * shape.rows * shape.panel / best

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return statistics.median(pool.map(run, range(threads)))


def candidates(
    write: Callable[[Any], Callable[..., Any]],
    write_for_jax: Callable[[Any], Callable[..., Any]],
    arrays: Sequence[np.ndarray[Any, Any]],
    compiled_by_torch: bool = True,
) -> dict[str, Callable[[], Any]]:
    """Ways to run one function of `arrays`: `write(kiln)` and `write(torch)` give its text for these, eager and
    compiled, `write_for_jax(jax)` what JAX compiles. Peers that are not there are left out."""
    import kiln

    mine = [kiln.from_numpy(a) for a in arrays]
    eager, compiled = write(kiln), kiln.compile(write(kiln))
    made: dict[str, Callable[[], Any]] = {"kiln compiled": lambda: compiled(*mine), "kiln eager": lambda: eager(*mine)}
    if (library := torch()) is not None:
        theirs = [library.from_numpy(a) for a in arrays]
        as_is = write(library)
        made["torch eager"] = lambda: as_is(*theirs)
        if compiled_by_torch and torch_compiles():
            compiled_too = library.compile(write(library))
            made["torch.compile"] = lambda: compiled_too(*theirs)
    if (peer := jax()) is not None:
        jitted, placed = peer.jit(write_for_jax(peer)), [peer.numpy.asarray(a) for a in arrays]
        made["jax loop"] = lambda: peer.block_until_ready(jitted(*placed))
    return made
