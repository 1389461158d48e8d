"""A cublasLt for the fake GPUs: a library built from fake_cublaslt.cpp, whose work goes through their streams."""

from __future__ import annotations

import ctypes
import functools
from collections import Counter
from ctypes import c_char_p, c_int, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Final

from tests.gpu import shim
from tests.gpu.fake_device import state

_HERE: Final = Path(__file__).resolve().parent


class _Operand(ctypes.Structure):
    _fields_ = (
        ("at", c_uint64), ("type", c_int), ("rows", c_uint64), ("columns", c_uint64), ("ld", c_int64),
        ("pace", c_int64),
    )  # fmt: skip


class Job(ctypes.Structure):
    """One product, as `Job` of the C++ file begins."""

    _fields_ = (
        ("a", _Operand), ("b", _Operand), ("d", _Operand), ("bias", c_uint64), ("workspace", c_uint64),
        ("workspace_bytes", c_uint64), ("bytes", c_uint64 * 5), ("turned_a", c_int), ("turned_b", c_int),
        ("tf32", c_int), ("batch", c_int), ("bias_type", c_int), ("lanes", c_int),
    )  # fmt: skip


class Seen:
    """What was asked of the library since the test began."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.statuses: dict[str, int] = {}
        """What the next calls answer, by name."""
        self.products: list[dict[str, Any]] = []


seen: Final = Seen()


@functools.cache
def path() -> str:
    """The library's path."""
    return str(shim._made((_HERE / "fake_cublaslt.cpp").read_text(), []))


@functools.cache
def library() -> ctypes.CDLL:
    """The library, connected to the fake GPUs."""
    made = ctypes.CDLL(path())
    made.fake_run.argtypes, made.fake_done.argtypes = [c_void_p, c_uint64], [c_void_p]
    made.fake_run.restype = made.fake_done.restype = None
    made.fake_alive.restype = c_int64
    made.fake_setup.argtypes = [c_void_p, c_void_p]
    made.fake_setup(ctypes.cast(_issue, c_void_p), ctypes.cast(_fail, c_void_p))
    return made


@ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
def _issue(job: int, handle: int | None) -> None:
    found = Job.from_address(job)
    seen.calls["Matmul"] += 1
    seen.products.append(
        {
            "turned": (bool(found.turned_b), bool(found.turned_a)),
            "sizes": (found.batch, found.d.columns, found.d.rows),
            "bias": bool(found.bias),
            "tf32": bool(found.tf32),
            "ld": (found.b.ld, found.a.ld),
            "pace": (found.b.pace, found.a.pace),
            "workspace": found.workspace_bytes,
        }
    )
    with state.locked():
        _queue(job, found, handle or 0)


def _queue(job: int, found: Job, handle: int) -> None:
    stream = state.stream(handle)
    device = stream.device
    places = zip((found.a.at, found.b.at, found.d.at, found.bias, found.workspace), found.bytes, strict=True)
    captured = stream.captured is not None
    extents = [(at, n) for at, n in places if n]

    def run() -> None:
        wrong = [f"{n} bytes at {at:#x}" for at, n in extents if not device.holds(at, n)]
        if wrong:
            return device.fail(700, f"a product uses memory that is not there: {', '.join(wrong)}")
        library().fake_run(job, device.tag)
        if not captured:  # else graphs do it any number of times
            library().fake_done(job)

    device.issue(stream, run)


@ctypes.CFUNCTYPE(c_int, c_char_p)
def _fail(name: bytes) -> int:
    seen.calls["heuristics" if name == b"MatmulAlgoGetHeuristic" else "tried"] += 1
    return seen.statuses.pop(name.decode(), 0)
