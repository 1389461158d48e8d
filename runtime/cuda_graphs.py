"""CUDA graphs: what a program gives a stream is recorded once and then given as a whole, which costs the host one call
however many kernels there are.

A graph has the addresses that its kernels were given when it was recorded. So a `Replay` has memory of its own for what
a program needs besides inputs and outputs, and knows where those were. What is where it was needs nothing; what is
elsewhere at every call has a fixed place, which it is copied to before the launches, or from after them. Sizes and
streams have replays of their own. Whatever else changes from call to call (numbers, learning rates, states of
generators) lies in inputs' memory, which kernels read when they run.

What the host does between kernels (checks, branches, loops, libraries) it does between graphs.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kiln.ir.gpu_program import CudaStep, Launch, Loop, Memory, Product, number
from kiln.ir.types import Dim
from kiln.runtime.cuda_driver import WITHIN, CudaError, Stream, local
from kiln.runtime.sequence import ProgramError

if TYPE_CHECKING:
    from kiln.runtime.cuda_program import CudaExecutable, Frame

Strides: TypeAlias = "tuple[Dim, ...] | None"

_MOVES: Final = 2
"""Calls that find something elsewhere than the one before after which it gets a fixed place."""
_MOST_RECORDED: Final = 16
"""Recordings after which whatever moves gets one at once."""
_MOST_NODES: Final = 4096
"""Pieces of work in a loop up to which all of its turns become part of a graph."""
_MOST_COPIED: Final = 64 << 20
"""Bytes a call; more takes longer than the launches do."""
_MOST_REPLAYS: Final = 16
"""Sizes and streams for which a program keeps graphs; the oldest make room."""
_ALIGN: Final = 256


def given(step: CudaStep) -> bool:
    """Whether a step gives the stream work and no more: launches and products, and loops of a known length of these."""
    if isinstance(step, Loop):
        return step.pred is None and all(map(given, step.body)) and amount(step) <= _MOST_NODES
    return isinstance(step, Launch | Product)


def amount(step: CudaStep) -> int:
    """How many pieces of work a step is."""
    return step.length * sum(map(amount, step.body)) if isinstance(step, Loop) else 1


def pointers(step: CudaStep) -> set[int]:
    """Which pointers, of loops around it, say what a step that is `given` works on."""
    if isinstance(step, Loop):
        inner = set[int]().union(*map(pointers, step.body))
        own = {p for c in step.carried for p in (c.read, c.written)} | {s.pointer for s in step.sliced}
        places = [m for c in step.carried for m in (c.source, c.first, c.second)] + [s.start for s in step.sliced]
        return (inner - own) | _moved(places)
    if isinstance(step, Product):
        return _moved([*[x.memory for x in step.operands], step.result])
    assert isinstance(step, Launch), type(step).__name__
    return _moved([a for a in step.args if isinstance(a, Memory)])


def _moved(places: Sequence[Memory]) -> set[int]:
    return {m.index for m in places if m.kind == "pointer"}


class Graphs:
    """The graphs of one program on one GPU."""

    def __init__(
        self, executable: CudaExecutable, strides: Sequence[Strides], segments: int, work: int, between: set[str]
    ) -> None:
        """`strides`: of the inputs, None for contiguous ones. `segments`: how many runs of steps are worth a graph;
        `work`: how many launches these are; `between`: what the host does besides."""
        self.executable = executable
        self.strides = strides
        self.segments = segments
        self.work = work
        self.between = between
        self.refusals: dict[str, None] = {}
        """Why runs are not given as graphs."""
        self._replays: dict[tuple[int, tuple[int, ...]], Replay] = {}
        self._lock = threading.Lock()
        if not segments:
            self.refusals["no two launches follow each other"] = None

    def replay(self, stream: Stream, sizes: tuple[int, ...]) -> Replay:
        """For runs of these sizes on this stream."""
        found = self._replays.get((stream.ptr, sizes))
        if found is None:
            with self._lock:
                found = self._replays.get((stream.ptr, sizes)) or Replay(self, stream, sizes)
                self._replays[stream.ptr, sizes] = found
                while len(self._replays) > _MOST_REPLAYS:
                    del self._replays[next(iter(self._replays))]
        return found

    def refuse(self, why: str) -> None:
        """Runs are not given as graphs; the report will say so."""
        self.refusals[why] = None

    def told(self) -> str:
        """For reports."""
        name = self.executable.program.name
        if self.refusals:
            return f"{name}: launches one by one, since {'; '.join(self.refusals)}"
        launches = self.work
        counted = "one graph" if self.segments == 1 else f"{self.segments} graphs"
        host = f", between them the host: {', '.join(sorted(self.between))}" if self.between else ""
        return f"{name}: {launches} launches in {counted}{host}"


class Replay:
    """Runs of a program for one tuple of sizes on one stream, one at a time."""

    def __init__(self, graphs: Graphs, stream: Stream, sizes: tuple[int, ...]) -> None:
        self.graphs = graphs
        self.stream = stream
        self._sizes = sizes
        self._lock = threading.Lock()
        self._recorded = 0
        self._last: Sequence[int] = ()
        self._moves: list[int] = []
        self._fixed: set[int] = set()  # which pointers have places of this replay's own
        self._regions: list[tuple[int, int]] = []
        self._written: set[int] = set()
        self._frame: Frame | None = None  # None also while it is not ready
        self._known: Callable[[Sequence[int]], Any] = tuple
        self._there: Any = None
        self._given: list[tuple[int, int, int, int]] = []  # pointer, fixed place, where its bytes begin, how many
        self._taken: list[tuple[int, int, int, int]] = []
        self._memory: Any = None
        self._leased: list[Any] = []
        self._recording = False
        self._segments: dict[int, Any] = {}  # the graphs, by number
        self._ran: set[int] = set()

    def run(self, values: Sequence[int]) -> bool:
        """A run, if it can be given as graphs; False: it is for the caller to do."""
        if self.graphs.refusals:
            return False
        with self._lock:
            if not self._last:
                self._look(values)
                return False
            if (self._frame is None or self._known(values) != self._there) and not self._place(values):
                return False
            self._replay(values)
            return True

    # ------------------------------------------------------------------------------------------ where things are

    def _look(self, values: Sequence[int]) -> None:
        """Note what there is, and where, before anything is recorded."""
        executable = self.graphs.executable
        inputs = len(executable.program.input_types)
        self._regions = _regions(executable, self.graphs.strides, self._sizes)
        self._moves = [0] * len(self._regions)
        self._written = {
            k for o, i in executable.program.aliases if values[inputs + o] == values[i] for k in (i, inputs + o)
        }
        self._last = list(values[: len(self._regions)])

    def _note(self, values: Sequence[int]) -> None:
        enough = 1 if self._recorded >= _MOST_RECORDED else _MOVES
        for k, address in enumerate(self._last):
            if values[k] != address and k not in self._fixed:
                self._moves[k] += 1
                if self._moves[k] >= enough:
                    self._fixed.add(k)
        self._last = list(values[: len(self._last)])

    def _place(self, values: Sequence[int]) -> bool:
        """Get ready for recordings with things where they are now; False if that is not worth it."""
        self._note(values)
        self._frame = None
        self._segments.clear()
        self._memory = None
        self._leased.clear()
        graphs, executable = self.graphs, self.graphs.executable
        moving = self._fixed & self._written
        if moving:
            graphs.refuse(f"what it writes to in place ({len(moving) // 2 or 1}) lies elsewhere at every call")
            return False
        copied = sum(self._regions[k][1] for k in self._fixed)
        if copied > _MOST_COPIED:
            graphs.refuse(f"{copied:,} bytes of inputs and results lie elsewhere at every call")
            return False
        places: dict[int, int] = {}
        sized = executable.measured(self._sizes)
        total = -(-sized.nbytes // _ALIGN) * _ALIGN
        for k in sorted(self._fixed):
            places[k] = total
            total += -(-self._regions[k][1] // _ALIGN) * _ALIGN
        self._memory = executable.place.malloc(total, self.stream) if total else None
        start = 0 if self._memory is None else self._memory.ptr
        inputs = len(executable.program.input_types)
        own, self._given, self._taken = list(values), [], []
        for k, offset in places.items():
            low, nbytes = self._regions[k]
            own[k] = start + offset - low
            if nbytes:
                (self._given if k < inputs else self._taken).append((k, start + offset, low, nbytes))
        stays = [k for k in range(len(self._last)) if k not in self._fixed]
        self._known = itemgetter(*stays) if stays else _nothing
        self._there = self._known(values)
        self._frame = executable.frame(self.stream)
        executable.fill(self._frame, own, sized, self.stream, start)
        self._frame.replay = self
        return True

    # ------------------------------------------------------------------------------------------ a run

    def _replay(self, values: Sequence[int]) -> None:
        executable, frame = self.graphs.executable, self._frame
        assert frame is not None
        copy, queue = executable.place.session.copy, self.stream.ptr
        for k, place, low, nbytes in self._given:
            copy(place, values[k] + low, nbytes, WITHIN, queue)
        self._frame = None  # unless all goes well: the error record may not be clean
        try:
            executable.carry_out(frame)
        except ProgramError:
            if frame.error:
                executable.clean(frame)
            self._frame = frame
            raise
        self._frame = frame
        for k, place, low, nbytes in self._taken:
            copy(values[k] + low, place, nbytes, WITHIN, queue)

    def lease(self, nbytes: int) -> Any:
        """Memory for a step: for as long as the graphs, if it becomes part of one."""
        memory = self.graphs.executable.place.malloc(nbytes, self.stream)
        if self._recording:
            self._leased.append(memory)
        return memory

    def segment(self, number: int, frame: Frame, plain: Callable[[Frame], None]) -> None:
        """Segment `number` of the program, which `plain` issues one by one: the first time so, then as a graph."""
        if number not in self._ran:  # kernels are loaded when they are first launched, which can't be recorded
            self._ran.add(number)
            plain(frame)
            return
        found = self._segments.get(number)
        if found is None:
            found = self._record(frame, plain)
            if found is None:
                plain(frame)
                return
            self._segments[number] = found
        found.launch(self.stream.handle)

    def _record(self, frame: Frame, plain: Callable[[Frame], None]) -> Any:
        """A graph; None, and a refusal, if CUDA objects."""
        place = self.graphs.executable.place
        objections: tuple[type[Exception], ...] = (CudaError, *place.session.errors)
        self._recorded += 1
        with place.recording:
            queue = Stream(place, place.session.cupy.cuda.Stream(non_blocking=True))
            queue.handle.begin_capture()
            frame.stream, self._recording, local.captures = queue, True, True
            try:
                try:
                    plain(frame)
                finally:
                    frame.stream, self._recording, local.captures = self.stream, False, False
                    made = queue.handle.end_capture()
            except objections as error:
                place.check()
                why = f"CUDA can't record it ({error})"
                self.graphs.refuse(why)
                warnings.warn(f"{self.graphs.executable.program.name}: no CUDA graph: {why}", UserWarning, stacklevel=2)
                return None
        return made


def _nothing(values: Sequence[int]) -> Any:
    return ()


def _regions(executable: CudaExecutable, strides: Sequence[Strides], sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Of each input and output: where its bytes begin, from its first element, and how many they are."""
    program = executable.program
    named = executable.named(sizes)
    found = []
    outputs: list[Strides] = [None] * len(program.output_types)
    for t, steps in zip((*program.input_types, *program.output_types), (*strides, *outputs), strict=True):
        shape = [number(d, named) for d in t.shape]
        low, high = 0, 1
        if 0 in shape:
            high = 0
        elif steps is None:
            for n in shape:
                high *= n
        else:
            reach = [(n - 1) * number(s, named) for n, s in zip(shape, steps, strict=True)]
            low = sum(r for r in reach if r < 0)
            high = sum(r for r in reach if r > 0) + 1
        found.append((low * t.dtype.itemsize, (high - low) * t.dtype.itemsize))
    return found
