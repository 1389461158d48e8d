"""CUDA graphs that a program records itself (`kiln.cuda.graph`): whatever a thread gives its stream between a begin and
an end, eager ops and compiled functions alike.

What is recorded has the addresses of its memory for ever. So memory that is allocated meanwhile comes from a pool that
belongs to graphs, and the recording keeps every other memory alive that its kernels were given.
"""

from __future__ import annotations

import ctypes
import gc
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kiln.runtime.cuda_driver import TO_HOST, CudaError, Gpu, Stream, local, unrecorded
from kiln.runtime.cuda_memory import DeviceBuffer
from kiln.runtime.sequence import ProgramError

if TYPE_CHECKING:
    from kiln.runtime.cuda_program import CudaExecutable, Frame

_ERROR_BYTES = 24


class Pool:
    """Memory for recordings of one GPU, which nobody else gets."""

    def __init__(self, place: Gpu) -> None:
        self.place = place
        self.memory = place.session.cupy.cuda.MemoryPool()
        place.pools.add(self)


class Recording:
    """One graph: recorded between `begin` and `end`, then replayed."""

    def __init__(self, pool: Pool, stream: Stream) -> None:
        self.pool = pool
        self.place = pool.place
        self.memory = pool.memory
        self.stream = stream
        self.keep: list[Any] = []
        self._addresses: set[int] = set()
        self._before: list[DeviceBuffer] = []
        self._checks: list[tuple[CudaExecutable, Frame]] = []
        self._graph: Any = None

    def begin(self) -> None:
        """From now on this thread's work is recorded and not done. The stream must be its current one."""
        with self.place.guarded("recording a CUDA graph"):
            # Also what is dropped meanwhile must stay.
            self._before = [x for x in gc.get_objects() if type(x) is DeviceBuffer and x.device == self.place.index]
            self.stream.handle.begin_capture()
        local.recording = self

    def end(self) -> None:
        """The end of what is recorded. CudaError when something in it could not be."""
        local.recording = None
        try:
            with self.place.guarded("recording a CUDA graph"):
                self._graph = self.stream.handle.end_capture()
        finally:
            self._before.sort(key=lambda b: b.ptr)
            starts = [b.ptr for b in self._before]
            found = {bisect_right(starts, address) - 1 for address in self._addresses}
            self.keep += [self._before[k] for k in found if k >= 0]
            self._before = []

    def give_up(self) -> None:
        """The end of a recording that nobody will replay."""
        local.recording = None
        self._before = []
        try:
            with self.place.guarded("recording a CUDA graph"):
                self.stream.handle.end_capture()
        except CudaError:  # which the error that led here explains
            self.place.check()

    def replay(self, stream: Stream) -> None:
        """Give `stream` the whole of it. ProgramError if there are checks, for which this waits, and one failed: all
        has been done then, what is written in place too."""
        if local.recording is not None:
            unrecorded("replaying a graph")
        session = self.place.session
        with self.place.guarded("replaying a CUDA graph"):
            self._graph.launch(stream.handle)
            for _, frame in self._checks:
                session.copy(frame.host, frame.error, _ERROR_BYTES, TO_HOST, stream.ptr)
        if not self._checks:
            return
        stream.wait()
        for executable, frame in self._checks:
            code, site, value = (ctypes.c_int64 * 3).from_address(frame.host)
            if code:
                raise ProgramError(executable.program.checks[site], value)

    # ------------------------------------------------------------------------------------------ while it is recorded

    def ran(self, executable: CudaExecutable, frame: Frame, pointers: Sequence[int]) -> None:
        """A program was recorded, in a frame of its own."""
        self.keep.append((executable, frame))
        self._addresses.update(pointers)
        if frame.error:
            self._checks.append((executable, frame))


def recording() -> Recording | None:
    """What this thread records now."""
    return local.recording
