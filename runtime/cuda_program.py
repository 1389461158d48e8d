"""A CUDA program in this process: kernels are loaded, constants lie on the GPU, and `run` issues the launches.

A run costs a few µs and one launch call of the driver per kernel. All arguments of all launches are 64-bit numbers of
one block of memory; what a launch gets is an array of addresses into it, made once. So a run computes each number once
and writes them in one go, however many launches share them. Sizes, grids and places in the arena are found once per
tuple of sizes. Whatever runs at the same time has a block of its own (`_Frame`).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np

from kiln.ir.arena import place as placed
from kiln.ir.gpu_program import (
    MOST_BLOCKS,
    Array,
    Branch,
    CudaProgram,
    CudaStep,
    HostCall,
    Launch,
    Look,
    Loop,
    Memory,
    number,
)
from kiln.ir.ops.base import LibraryError
from kiln.ir.program import LibraryCall, Place
from kiln.ir.types import Dim
from kiln.runtime.cuda_driver import TO_DEVICE, TO_HOST, WITHIN, Gpu, Stream, gpu
from kiln.runtime.cuda_kernels import functions
from kiln.runtime.cuda_memory import DeviceBuffer
from kiln.runtime.library import Performer
from kiln.runtime.sequence import ProgramError

_FIRST_KINDS: Final = ("input", "output", "size")
_ALIGN: Final = 256
_MAX_SIZED: Final = 1024
"""Tuples of sizes for which a program remembers its grids and places."""
_ERROR_BYTES: Final = 24

Run: TypeAlias = "Callable[[_Frame], None]"


class _Sized:
    """What follows from the sizes of a run: grids, numbers among the arguments, and places in the run's memory."""

    __slots__ = ("blocks", "nbytes", "numbers", "places")

    def __init__(self, program: CudaProgram, dims: Sequence[Dim], sizes: dict[str, int]) -> None:
        self.blocks = [min(number(launch.blocks, sizes), MOST_BLOCKS) for launch in program.launches]
        self.numbers = [number(d, sizes) for d in dims]
        locals_at, local_bytes = placed(program.locals, sizes)
        self.places = [0, *locals_at]
        total = max(program.arena_bytes, local_bytes)
        for w in program.workspaces:
            total = -(-total // _ALIGN) * _ALIGN
            self.places.append(total)
            total += number(w.size, sizes) * w.dtype.itemsize
        self.nbytes = total


class _Frame:
    """The arguments of one run at a time, as the driver takes them."""

    __slots__ = ("address", "bases", "block", "calls", "error", "host", "keep", "pack", "sized", "stream")

    sized: _Sized
    stream: Stream
    bases: list[int]

    def __init__(self, slots: int, launches: Sequence[tuple[int, int, Sequence[int]]]) -> None:
        self.block = (ctypes.c_int64 * slots)()
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


class CudaExecutable:
    """A CUDA program on one GPU. Thread-safe and re-entrant."""

    def __init__(self, program: CudaProgram, place: Gpu) -> None:
        self.program = program
        self._place = place
        kinds = [slot.kind for slot in program.slots]
        self._count = sum(kind in _FIRST_KINDS for kind in kinds)
        if any(kind in _FIRST_KINDS for kind in kinds[self._count :]):
            raise ValueError(f"program {program.name}: slots are not in the order inputs, outputs, sizes, rest")
        names = [slot.name for slot in program.slots if slot.kind == "size"]
        self._names = names
        self._first_size = self._count - len(names)
        handles = functions(place, program.name, program.kernels)
        self._constants = [_constant(c.data, place) for c in program.constants]
        self._fixed = [c.ptr for c in self._constants]
        self._unset = [0] * program.pointers
        self._launches: list[Launch] = list(program.launches)
        self._checked = any(launch.error for launch in self._launches)
        self._prepare(handles)
        self._sized: dict[tuple[int, ...], _Sized] = {}
        self._frames: list[_Frame] = []
        self._next = 0
        self._run = self._in_order(program.steps)
        del self._next

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
        dims: dict[Dim, int] = {}
        slots: dict[tuple[int, int], int] = {}

        def slot(a: Memory | Dim) -> int:
            if isinstance(a, Memory):
                key = (base[a.kind, a.index], a.offset)
            else:
                key = (at + dims.setdefault(a, len(dims)), 0)
            return slots.setdefault(key, len(slots))

        self._calls = [
            (handles[x.kernel], x.threads, [*map(slot, x.args), *([slot(Memory("error"))] if x.error else [])])
            for x in self._launches
        ]
        self._base = base
        self._dims = list(dims)
        self._slots = list(slots)
        self._moved: list[list[tuple[int, int]]] = [[] for _ in range(program.pointers)]
        for (index, offset), k in slots.items():
            if 0 <= (pointer := index - base.get(("pointer", 0), at)) < program.pointers:
                self._moved[pointer].append((k, offset))

    def _size(self, sizes: tuple[int, ...]) -> _Sized:
        if len(self._sized) >= _MAX_SIZED:
            self._sized.clear()
        named = dict(zip(self._names, sizes, strict=True))
        made = self._sized[sizes] = _Sized(self.program, self._dims, named)
        return made

    def _frame(self, stream: Stream) -> _Frame:
        made = _Frame(len(self._slots), self._calls)
        session = self._place.session
        if any(not isinstance(step, Launch) for step in self.program.steps):
            pinned = session.cupy.cuda.alloc_pinned_memory(_ERROR_BYTES + 8)
            made.keep.append(pinned)
            made.host = pinned.ptr
        if self._checked:
            memory = self._place.malloc(_ERROR_BYTES, stream)
            session.runtime.memsetAsync(memory.ptr, 0, _ERROR_BYTES, stream.ptr)
            made.keep.append(memory)
            made.error = memory.ptr
        return made

    # ------------------------------------------------------------------------------------------ a run

    def run(self, values: Sequence[int]) -> None:
        """Run once, on the current stream. `values`: one 64-bit number per slot of kind input, output and size, in slot
        order (pointers to first elements, and sizes). Raises `ProgramError` when a check fails; then no input has been
        changed. `CudaError` when there is not enough memory, or the GPU fails. The caller keeps the memory alive until
        it gives it back in the order of the current stream."""
        if len(values) != self._count:
            raise ValueError(f"program {self.program.name} takes {self._count} slots, got {len(values)}")
        place = self._place
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
        sized = self._sized.get(sizes) or self._size(sizes)
        stream = place.stream()
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._frame(stream)
        memory = place.malloc(sized.nbytes, stream) if sized.nbytes else None
        start = 0 if memory is None else memory.ptr
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
        self._run(frame)
        # Not after an error: the error record is not clean then.
        self._frames.append(frame)

    def _launch(self, frame: _Frame, first: int, last: int) -> None:
        """Launches number `first` to `last` - 1."""
        session = self._place.session
        launch, stream, calls, grids = session.launch, frame.stream.ptr, frame.calls, frame.sized.blocks
        k = first
        try:
            if session.debug:
                for k in range(first, last):
                    function, threads, address = calls[k]
                    if grids[k]:
                        launch(function, grids[k], 1, 1, threads, 1, 1, 0, stream, address, 0)
                        frame.stream.handle.synchronize()
                return
            for k in range(first, last):
                if blocks := grids[k]:
                    function, threads, address = calls[k]
                    launch(function, blocks, 1, 1, threads, 1, 1, 0, stream, address, 0)
        except session.errors as error:
            failed = self._launches[k]
            what = f"launch {k} of {self.program.name}"
            raise self._place.failure(error, what, failed.kernel, failed.loc) from None

    def _at(self, memory: Memory) -> Callable[[_Frame], int]:
        """Where something lies in a run."""
        index, offset = self._base[memory.kind, memory.index], memory.offset
        return lambda frame: frame.bases[index] + offset

    # ------------------------------------------------------------------------------------------ steps

    def _in_order(self, steps: Sequence[CudaStep]) -> Run:
        runs: list[Run] = []
        k = 0
        while k < len(steps):
            step = steps[k]
            if isinstance(step, Launch):
                first = self._next
                while k < len(steps) and isinstance(steps[k], Launch):
                    k += 1
                    self._next += 1
                runs.append(self._launching(first, self._next))
                continue
            k += 1
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

        def run(frame: _Frame) -> None:
            for each in runs:
                each(frame)

        return run

    def _launching(self, first: int, last: int) -> Run:
        return lambda frame: self._launch(frame, first, last)

    def _look(self, frame: _Frame) -> None:
        self._place.session.copy(frame.host, frame.error, _ERROR_BYTES, TO_HOST, frame.stream.ptr)
        frame.stream.wait()
        code, site, value = (ctypes.c_int64 * 3).from_address(frame.host)
        if code:
            raise ProgramError(self.program.checks[site], value)

    def _true(self, memory: Memory) -> Callable[[_Frame], bool]:
        at = self._at(memory)

        def true(frame: _Frame) -> bool:
            self._place.session.copy(frame.host + _ERROR_BYTES, at(frame), 1, TO_HOST, frame.stream.ptr)
            frame.stream.wait()
            return ctypes.c_uint8.from_address(frame.host + _ERROR_BYTES).value != 0

        return true

    def _branch(self, step: Branch) -> Run:
        true = self._true(step.pred)
        then, other = self._in_order(step.then), self._in_order(step.other)
        return lambda frame: (then if true(frame) else other)(frame)

    def _point(self, frame: _Frame, pointer: int, address: int) -> None:
        """Move a pointer, and the arguments made of it."""
        frame.bases[self._base["pointer", pointer]] = address
        for k, offset in self._moved[pointer]:
            frame.block[k] = address + offset

    def _loop(self, step: Loop) -> Run:
        true = None if step.pred is None else self._true(step.pred)
        test = self._in_order(step.test) if step.pred is not None else None
        body = self._in_order(step.body)
        carried = [(c, self._at(c.source), self._at(c.first), self._at(c.second)) for c in step.carried]
        sliced = [(s, self._at(s.start)) for s in step.sliced]

        def run(frame: _Frame) -> None:
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
                    self._place.session.copy(first, read, c.nbytes, WITHIN, frame.stream.ptr)

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
        self.operands = [(executable._at(a.memory), *r) for a, r in zip(call.operands, operands, strict=True)]
        self.results = [(executable._at(a.memory), *r) for a, r in zip(call.results, results, strict=True)]

    def run(self, frame: _Frame) -> None:
        copy = self.executable._place.session.copy
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
