"""A CUDA program in this process: kernels are loaded, constants lie on the GPU, and `run` issues the launches.

A run costs a few µs and one launch call of the driver per kernel. All arguments of all launches are 64-bit numbers of
one block of memory; what a launch gets is an array of addresses into it, made once. So a run computes each number once
and writes them in one go, however many launches share them. Sizes, grids and places in the arena are found once per
tuple of sizes. Whatever runs at the same time has a block of its own (`Frame`). `cuda_graphs.py` gives all launches as
one graph, for those who ask for it.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from kiln.ir.arena import place as placed
from kiln.ir.gpu_program import (
    MOST_BLOCKS,
    MOST_WORDS,
    Array,
    Branch,
    CudaProgram,
    CudaStep,
    HostCall,
    Launch,
    Look,
    Loop,
    Memory,
    Product,
    number,
)
from kiln.ir.ops.base import LibraryError
from kiln.ir.program import LibraryCall, Place
from kiln.ir.types import Dim
from kiln.runtime.cuda_blas import Refused, blas, failure
from kiln.runtime.cuda_driver import TO_DEVICE, TO_HOST, WITHIN, Gpu, Stream, gpu, local, unrecorded
from kiln.runtime.cuda_graphs import Graphs, Replay, Strides, amount, given, pointers
from kiln.runtime.cuda_kernels import functions
from kiln.runtime.cuda_memory import DeviceBuffer
from kiln.runtime.cuda_products import Multiply, Sized, sized
from kiln.runtime.library import Performer
from kiln.runtime.sequence import ProgramError

if TYPE_CHECKING:
    from kiln.runtime.cuda_recording import Recording

_FIRST_KINDS: Final = ("input", "output", "size")
_ALIGN: Final = 256
_MAX_SIZED: Final = 1024
"""Tuples of sizes for which a program remembers its grids and places."""
_ERROR_BYTES: Final = 24

_BETWEEN: Final[dict[type, str]] = {Look: "checks", Branch: "branches", Loop: "loops"}

Run: TypeAlias = "Callable[[Frame], None]"


class Measured:
    """What follows from the sizes of a run: grids, numbers among the arguments, and places in the run's memory."""

    __slots__ = ("blocks", "nbytes", "numbers", "places", "products", "spare")

    def __init__(self, program: CudaProgram, dims: Sequence[Dim], sizes: dict[str, int], place: Gpu) -> None:
        self.blocks = [min(number(launch.blocks, sizes), MOST_BLOCKS) for launch in program.launches]
        self.numbers = [number(d, sizes) for d in dims]
        for launch in program.launches:
            if launch.pieces:
                self.numbers += launch.numbers(sizes)
        locals_at, local_bytes = placed(program.locals, sizes)
        self.places = [0, *locals_at]
        total = max(program.arena_bytes, local_bytes)
        for w in program.workspaces:
            total = -(-total // _ALIGN) * _ALIGN
            self.places.append(total)
            total += number(w.size, sizes) * w.dtype.itemsize
        self.products = self._products(program, sizes, place)
        self.spare = -(-total // _ALIGN) * _ALIGN
        """Where memory begins that each product has while it runs."""
        self.nbytes = self.spare + max(p.nbytes for p in self.products) if self.products else total

    def _products(self, program: CudaProgram, sizes: dict[str, int], place: Gpu) -> list[Sized]:
        made = []
        for k, p in enumerate(program.products):
            try:
                made.append(sized(p, sizes, partial(blas, place)))
            except Refused as refusal:
                raise failure(refusal, place, f"product {k} of {program.name}", "matmul", p.loc) from None
        return made


class Frame:
    """The arguments of one run at a time, as the driver takes them."""

    __slots__ = ("address", "bases", "block", "calls", "error", "host", "keep", "pack", "replay", "sized", "stream")

    sized: Measured
    stream: Stream
    bases: list[int]

    def __init__(self, slots: int, spare: int, launches: Sequence[tuple[int, int, Sequence[int]]]) -> None:
        """`slots` arguments, with so many `spare` words behind them."""
        self.block = (ctypes.c_int64 * (slots + spare))()
        self.address = ctypes.addressof(self.block)
        self.pack = struct.Struct(f"{slots}q").pack_into
        params = (ctypes.c_uint64 * sum(len(args) for _, _, args in launches))()
        self.keep: list[Any] = [params]
        self.calls: list[tuple[int, int, int]] = []  # function, threads, address of the arguments' addresses
        at = 0
        for function, threads, args in launches:
            self.calls.append((function, threads, ctypes.addressof(params) + 8 * at))
            for arg in args:
                params[at] = self.address + 8 * arg
                at += 1
        self.error = 0
        self.host = 0
        self.replay: Replay | None = None
        """What runs its launches as graphs."""

    def lease(self, place: Gpu, nbytes: int) -> Any:
        """Memory for a step, which may be dropped when the step is issued."""
        if self.replay is None:
            return place.malloc(nbytes, self.stream)
        return self.replay.lease(nbytes)


class CudaExecutable:
    """A CUDA program on one GPU. Thread-safe and re-entrant."""

    def __init__(self, program: CudaProgram, place: Gpu) -> None:
        self.program = program
        self.place = place
        self._graphs: Graphs | None = None
        kinds = [slot.kind for slot in program.slots]
        self._count = sum(kind in _FIRST_KINDS for kind in kinds)
        if any(kind in _FIRST_KINDS for kind in kinds[self._count :]):
            raise ValueError(f"program {program.name}: slots are not in the order inputs, outputs, sizes, rest")
        names = [slot.name for slot in program.slots if slot.kind == "size"]
        self._names = names
        self._first_size = self._count - len(names)
        later = {m.dense.kernel for p in program.products for m in p.operands}  # where one is needed
        later -= {launch.kernel for launch in program.launches}
        handles = functions(place, program.name, [k for k in program.kernels if k.name not in later])
        self._constants = [_constant(c.data, place) for c in program.constants]
        self._fixed = [c.ptr for c in self._constants]
        self._unset = [0] * program.pointers
        self._launches: list[Launch] = list(program.launches)
        self._checked = any(launch.error for launch in self._launches)
        self._prepare(handles)
        self._sized: dict[tuple[int, ...], Measured] = {}
        self._frames: list[Frame] = []
        self._next = self._next_product = 0
        self._segments = self._work = 0
        self._within = False
        self._between: set[str] = set()
        self.carry_out = self._in_order(program.steps)
        """The steps of a run whose arguments are written."""
        del self._next, self._next_product

    # ------------------------------------------------------------------------------------------ what is fixed

    def _prepare(self, handles: dict[str, int]) -> None:
        """Number what arguments are made of (`bases`), the arguments, and for each launch which of them it gets."""
        program = self.program
        order = [(s.kind, 0 if s.kind == "size" else s.index) for s in program.slots[: self._count]]
        base = {key: k for k, key in enumerate(order) if key[0] != "size"}
        for output, taken in program.aliases:
            base.setdefault(("output", output), base["input", taken])
        at = self._count
        for kind, count in (
            ("constant", len(program.constants)),
            ("arena", 1),
            ("local", len(program.locals)),
            ("workspace", len(program.workspaces)),
            ("pointer", program.pointers),
            ("error", 1),
        ):
            base |= {(kind, k): at + k for k in range(count)}
            at += count
        known: dict[Dim, int] = {}
        for a in [a for x in self._launches for a in x.args if not isinstance(a, Memory)]:
            known.setdefault(a, at + len(known))
        at += len(known)
        self._slots: list[tuple[int, int]] = []
        slots: dict[tuple[int, int], int] = {}

        def word(a: Memory | Dim) -> tuple[int, int]:
            return (base[a.kind, a.index], a.offset) if isinstance(a, Memory) else (known[a], 0)

        def slot(key: tuple[int, int]) -> int:
            if key not in slots:
                slots[key] = len(self._slots)
                self._slots.append(key)
            return slots[key]

        self._calls: list[tuple[int, int, list[int]]] = []
        for x in self._launches:
            if x.pieces:  # one argument, whose words follow each other
                args = [len(self._slots)]
                numbers = [(at + k, 0) for k in range(len(x.pieces) + 3)]
                self._slots += x.words(numbers, [*map(word, x.args)])
                at += len(numbers)
            else:
                args = [slot(word(a)) for a in (*x.args, *([Memory("error")] if x.error else []))]
            self._calls.append((handles[x.kernel], x.threads, args))
        # Kernels take tables of some lengths only.
        self._spare = MOST_WORDS if any(x.pieces for x in self._launches) else 0
        self.base = base
        self._dims = list(known)
        self._moved: list[list[tuple[int, int]]] = [[] for _ in range(program.pointers)]
        for k, (index, offset) in enumerate(self._slots):
            if 0 <= (pointer := index - base.get(("pointer", 0), at)) < program.pointers:
                self._moved[pointer].append((k, offset))

    def measured(self, sizes: tuple[int, ...]) -> Measured:
        """What follows from sizes."""
        found = self._sized.get(sizes)
        if found is None:
            if len(self._sized) >= _MAX_SIZED:
                self._sized.clear()
            found = self._sized[sizes] = Measured(self.program, self._dims, self.named(sizes), self.place)
        return found

    def named(self, sizes: Sequence[int]) -> dict[str, int]:
        """Sizes by name."""
        return dict(zip(self._names, sizes, strict=True))

    def record(self, strides: Sequence[Strides]) -> Graphs:
        """Run as CUDA graphs from now on, where that can be. `strides`: of the inputs, None for contiguous ones."""
        if self._graphs is None:
            self._graphs = Graphs(self, strides, self._segments, self._work, self._between)
        return self._graphs

    def told(self) -> str:
        """What becomes of `record`; empty if nobody asked."""
        return "" if self._graphs is None else self._graphs.told()

    def frame(self, stream: Stream) -> Frame:
        """What one run at a time needs, from now on."""
        made = Frame(len(self._slots), self._spare, self._calls)
        session = self.place.session
        if not all(map(given, self.program.steps)):
            pinned = session.cupy.cuda.alloc_pinned_memory(_ERROR_BYTES + 8)
            made.keep.append(pinned)
            made.host = pinned.ptr
        if self._checked:
            memory = self.place.malloc(_ERROR_BYTES, stream)
            made.keep.append(memory)
            made.error = memory.ptr
            made.stream = stream
            self.clean(made)
        return made

    def clean(self, frame: Frame) -> None:
        """No check has failed."""
        self.place.session.runtime.memsetAsync(frame.error, 0, _ERROR_BYTES, frame.stream.ptr)

    # ------------------------------------------------------------------------------------------ a run

    def run(self, values: Sequence[int]) -> None:
        """Run once, on the current stream. `values`: one 64-bit number per slot of kind input, output and size, in slot
        order (pointers to first elements, and sizes). Raises `ProgramError` when a check fails; then no input has been
        changed. `CudaError` when there is not enough memory, or the GPU fails. The caller keeps the memory alive until
        it gives it back in the order of the current stream."""
        if len(values) != self._count:
            raise ValueError(f"program {self.program.name} takes {self._count} slots, got {len(values)}")
        place = self.place
        if place.fault:
            place.check()
        place.last = self.program.name
        before = place.enter()
        try:
            self._start(place, values)
        except place.session.errors as error:
            raise place.failure(error, f"running {self.program.name}") from None
        finally:
            place.leave(before)

    def _start(self, place: Gpu, values: Sequence[int]) -> None:
        sizes = tuple(values[self._first_size :])
        stream = place.stream()
        if local.recording is not None:
            return self._record(local.recording, stream, sizes, values)
        if self._graphs is not None and not place.session.debug and self._graphs.replay(stream, sizes).run(values):
            return
        sized = self.measured(sizes)
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self.frame(stream)
        memory = place.malloc(sized.nbytes, stream) if sized.nbytes else None
        self.fill(frame, values, sized, stream, 0 if memory is None else memory.ptr)
        self.carry_out(frame)
        # Not after an error: the error record is not clean then.
        self._frames.append(frame)

    def _record(self, recording: Recording, stream: Stream, sizes: tuple[int, ...], values: Sequence[int]) -> None:
        """A run that becomes part of a graph of the user's, with a frame and memory that stay."""
        place = self.place
        if recording.place is not place:
            unrecorded(f"work of GPU {place.index}")
        sized, frame = self.measured(sizes), self.frame(stream)
        memory = place.malloc(sized.nbytes, stream) if sized.nbytes else None
        self.fill(frame, values, sized, stream, 0 if memory is None else memory.ptr)
        self.carry_out(frame)
        recording.ran(self, frame, values[: self._first_size])

    def fill(self, frame: Frame, values: Sequence[int], sized: Measured, stream: Stream, start: int) -> None:
        """Write the arguments of a run, whose own memory begins at `start`."""
        frame.sized, frame.stream = sized, stream
        frame.bases = bases = [
            *values,
            *self._fixed,
            *[start + offset for offset in sized.places],
            *self._unset,
            frame.error,
            *sized.numbers,
        ]
        frame.pack(frame.block, 0, *[bases[k] + offset for k, offset in self._slots])

    def _launch(self, frame: Frame, first: int, last: int) -> None:
        """Launches number `first` to `last` - 1."""
        session = self.place.session
        launch, stream, calls, grids = session.launch, frame.stream.ptr, frame.calls, frame.sized.blocks
        k = first
        try:
            if session.debug and local.recording is None:
                for k in range(first, last):
                    self._launch_alone(frame, k)
                return
            for k in range(first, last):
                if blocks := grids[k]:
                    function, threads, address = calls[k]
                    launch(function, blocks, 1, 1, threads, 1, 1, 0, stream, address, 0)
        except session.errors as error:
            failed = self._launches[k]
            what = f"launch {k} of {self.program.name}"
            raise self.place.failure(error, what, failed.kernel, failed.loc) from None

    def _launch_alone(self, frame: Frame, k: int) -> None:
        """Launch number `k`, and wait for it; its pieces one by one."""
        launch, queue = self.place.session.launch, frame.stream
        (function, threads, address), made = frame.calls[k], self._launches[k]
        if not made.pieces:
            if grid := frame.sized.blocks[k]:
                launch(function, grid, 1, 1, threads, 1, 1, 0, queue.ptr, address, 0)
                queue.handle.synchronize()
            return
        start = self._calls[k][2][0]
        firsts = [frame.block[start + place] for place in made.firsts()]
        for piece, (first, after) in zip(made.pieces, itertools.pairwise(firsts), strict=True):
            if first == after:
                continue
            frame.block[start] = first
            try:
                launch(function, after - first, 1, 1, threads, 1, 1, 0, queue.ptr, address, 0)
                queue.handle.synchronize()
            except self.place.session.errors as error:
                what = f"launch {k} of {self.program.name}"
                raise self.place.failure(error, what, made.kernel, piece.loc) from None
        frame.block[start] = 0

    def at(self, memory: Memory) -> Callable[[Frame], int]:
        """Where something lies in a run."""
        index, offset = self.base[memory.kind, memory.index], memory.offset
        return lambda frame: frame.bases[index] + offset

    # ------------------------------------------------------------------------------------------ steps

    def _in_order(self, steps: Sequence[CudaStep]) -> Run:
        runs: list[Run] = []
        k = 0
        while k < len(steps):
            step = steps[k]
            if given(step):
                first = k
                while k < len(steps) and given(steps[k]):
                    k += 1
                runs.append(self._segment(steps[first:k]))
                continue
            k += 1
            self._between.add(_BETWEEN.get(type(step), "libraries"))
            match step:
                case Look():
                    runs.append(self._look)
                case HostCall():
                    runs.append(_Host(self, step).run)
                case Branch():
                    runs.append(self._branch(step))
                case Loop():
                    runs.append(self._loop(step))
        if len(runs) == 1:
            return runs[0]

        def run(frame: Frame) -> None:
            for each in runs:
                each(frame)

        return run

    def _segment(self, steps: Sequence[CudaStep]) -> Run:
        """Steps that only give the stream work, one behind the other: what can be one graph."""
        within, self._within = self._within, True  # a loop's body is part of what the loop is part of
        runs = self._given(steps)
        self._within = within

        def plain(frame: Frame) -> None:
            for each in runs:
                each(frame)

        work = sum(map(amount, steps))
        if self._within or work < 2 or any(map(pointers, steps)):
            return runs[0] if len(runs) == 1 else plain
        number = self._segments
        self._segments += 1
        self._work += work

        def run(frame: Frame) -> None:
            if frame.replay is None:
                plain(frame)
            else:
                frame.replay.segment(number, frame, plain)

        return run

    def _given(self, steps: Sequence[CudaStep]) -> list[Run]:
        runs: list[Run] = []
        k = 0
        while k < len(steps):
            step = steps[k]
            if isinstance(step, Product):
                runs.append(Multiply(self, step, self._next_product).run)
                self._next_product += 1
                k += 1
                continue
            if isinstance(step, Loop):
                runs.append(self._loop(step))
                k += 1
                continue
            first = self._next
            while k < len(steps) and isinstance(steps[k], Launch):
                k += 1
                self._next += 1
            runs.append(partial(self._launch, first=first, last=self._next))
        return runs

    def _look(self, frame: Frame) -> None:
        if local.recording is not None:
            return  # a replay looks at its end
        self.place.session.copy(frame.host, frame.error, _ERROR_BYTES, TO_HOST, frame.stream.ptr)
        frame.stream.wait()
        code, site, value = (ctypes.c_int64 * 3).from_address(frame.host)
        if code:
            raise ProgramError(self.program.checks[site], value)

    def _true(self, memory: Memory) -> Callable[[Frame], bool]:
        at = self.at(memory)

        def true(frame: Frame) -> bool:
            self.place.session.copy(frame.host + _ERROR_BYTES, at(frame), 1, TO_HOST, frame.stream.ptr)
            frame.stream.wait()
            return ctypes.c_uint8.from_address(frame.host + _ERROR_BYTES).value != 0

        return true

    def _branch(self, step: Branch) -> Run:
        true = self._true(step.pred)
        then, other = self._in_order(step.then), self._in_order(step.other)
        return lambda frame: (then if true(frame) else other)(frame)

    def _point(self, frame: Frame, pointer: int, address: int) -> None:
        """Move a pointer, and the arguments made of it."""
        frame.bases[self.base["pointer", pointer]] = address
        for k, offset in self._moved[pointer]:
            frame.block[k] = address + offset

    def _loop(self, step: Loop) -> Run:
        true = None if step.pred is None else self._true(step.pred)
        test = self._in_order(step.test) if step.pred is not None else None
        body = self._in_order(step.body)
        carried = [(c, self.at(c.source), self.at(c.first), self.at(c.second)) for c in step.carried]
        sliced = [(s, self.at(s.start)) for s in step.sliced]

        def run(frame: Frame) -> None:
            starts = [start(frame) for _, start in sliced]
            places = [(first(frame), second(frame)) for _, _, first, second in carried]
            now = [source(frame) for _, source, _, _ in carried]
            turn = 0
            while true is not None or turn < step.length:
                at = step.length - 1 - turn if step.reverse else turn
                following = [first if turn % 2 == 0 else second for first, second in places]
                for (s, _), start in zip(sliced, starts, strict=True):
                    self._point(frame, s.pointer, start + at * s.pace)
                for (c, *_), read, written in zip(carried, now, following, strict=True):
                    self._point(frame, c.read, read)
                    self._point(frame, c.written, written)
                if true is not None and test is not None:
                    test(frame)
                    if not true(frame):
                        break
                body(frame)
                now = following
                turn += 1
            for (c, *_), read, (first, _) in zip(carried, now, places, strict=True):
                if read != first:
                    self.place.session.copy(first, read, c.nbytes, WITHIN, frame.stream.ptr)

        return run


class _Host:
    """A library call: operands are copied to the host, and results back."""

    def __init__(self, executable: CudaExecutable, call: HostCall) -> None:
        self.executable = executable
        self.check = call.check
        operands, results = [_region(a) for a in call.operands], [_region(a) for a in call.results]
        places = [
            Place(k, -low, a.type, a.strides)
            for k, (a, (low, _)) in enumerate(zip((*call.operands, *call.results), operands + results, strict=True))
        ]
        split = len(call.operands)
        where = tuple(places[:split]), tuple(places[split:])
        self.perform = Performer(LibraryCall(call.op, call.attrs, *where, call.check))
        self.operands = [(executable.at(a.memory), *r) for a, r in zip(call.operands, operands, strict=True)]
        self.results = [(executable.at(a.memory), *r) for a, r in zip(call.results, results, strict=True)]

    def run(self, frame: Frame) -> None:
        if local.recording is not None:
            unrecorded(f"{self.executable.program.name}, which a library computes on the host,")
        copy = self.executable.place.session.copy
        stream = frame.stream
        hosts = [np.empty(max(1, nbytes), np.uint8) for _, _, nbytes in (*self.operands, *self.results)]
        given, made = hosts[: len(self.operands)], hosts[len(self.operands) :]
        for host, (at, low, nbytes) in zip(given, self.operands, strict=True):
            if nbytes:
                copy(host.ctypes.data, at(frame) + low, nbytes, TO_HOST, stream.ptr)
        stream.wait()
        try:
            self.perform([host.ctypes.data for host in hosts])
        except LibraryError as refusal:
            site = self.executable.program.checks[self.check]
            raise ProgramError(replace(site, message=str(refusal)), 0) from None
        for host, (at, low, nbytes) in zip(made, self.results, strict=True):
            if nbytes:
                copy(at(frame) + low, host.ctypes.data, nbytes, TO_DEVICE, stream.ptr)
        stream.wait()


def _region(a: Array) -> tuple[int, int]:
    """The bytes that a value spans: where they begin, from its first element, and how many."""
    shape = a.type.static_shape()
    if 0 in shape:
        return 0, 0
    reach = [(n - 1) * s for n, s in zip(shape, a.strides, strict=True)]
    low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
    size = a.type.dtype.itemsize
    return low * size, (high - low + 1) * size


def _constant(data: np.ndarray[Any, Any], place: Gpu) -> DeviceBuffer:
    """Literal data on the GPU, there for all streams."""
    data = np.ascontiguousarray(data)
    if local.recording is not None:
        return DeviceBuffer.constant(data.ctypes.data, data.nbytes, place.index)
    made = DeviceBuffer.allocate(data.nbytes, place.index)
    stream = place.stream()
    if data.nbytes:
        with place.guarded("placing constants"):
            place.session.copy(made.ptr, data.ctypes.data, data.nbytes, TO_DEVICE, stream.ptr)
            stream.handle.synchronize()  # not `wait`, which may be forbidden: this happens once
    return made


def load(program: CudaProgram, index: int = 0) -> CudaExecutable:
    """Compile what is new, load it on GPU `index`, place the constants, and make the program callable."""
    place = gpu(index)
    place.check()
    return CudaExecutable(program, place)
