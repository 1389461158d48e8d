"""CUDA programs without a GPU: the CPU shim runs them."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kiln.ir.arena import place
from kiln.ir.gpu_program import (
    MOST_BLOCKS,
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
from kiln.ir.program import LibraryCall, Place
from kiln.runtime.library import Performer
from tests.gpu import shim

Array = np.ndarray[Any, Any]


class _Guarded:
    """Copies of arrays in memory between guard pages."""

    def __init__(self, low: bool) -> None:
        self.blocks: list[tuple[int, int]] = []
        self.low = low

    def new(self, nbytes: int) -> int:
        """The address of new memory."""
        self.blocks.append((shim.allocate(nbytes, self.low), nbytes))
        return self.blocks[-1][0]

    def put(self, x: Array) -> tuple[int, Array]:
        """The address of a copy's first element, and the copy, which has the same strides."""
        if not x.size:
            return self.new(0), x
        reach = [(n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)]
        low, high = sum(min(0, r) for r in reach), sum(max(0, r) for r in reach) + x.itemsize
        start = self.new(high - low)
        ctypes.memmove(start, x.ctypes.data + low, high - low)
        memory = (ctypes.c_char * (high - low)).from_address(start)
        return start - low, np.ndarray(x.shape, x.dtype, memory, -low, x.strides)

    def free(self) -> list[str]:
        """What was written beside the memory."""
        damage = [f"{side} {n} bytes" for address, n in self.blocks if (side := shim.damaged(address, n))]
        for block in self.blocks:
            shim.free(*block)
        return damage


class Host:
    """Kernels of some programs, compiled for the CPU, and what runs the programs."""

    def __init__(self, programs: Iterable[CudaProgram]) -> None:
        kernels = {k.name: k for p in programs for k in p.kernels}
        helpers = dict.fromkeys(h for k in kernels.values() for h in k.helpers)
        self.library = shim.loaded(shim.compiled("\n".join([*helpers, *(k.function for k in kernels.values())])))

    def run(
        self,
        program: CudaProgram,
        inputs: Sequence[Array],
        sizes: Mapping[str, int] | None = None,
        order: str = "natural",
    ) -> tuple[list[Array], tuple[int, int] | None]:
        """The outputs (of aliased ones the input) and the check that failed: its number and value. `inputs` lie as the
        program was told; threads run in this order of `shim.ORDERS`. In the reverse one a guard page is before the
        memory, in the others behind it."""
        sizes, memory = sizes or {}, _Guarded(low=order == "reverse")
        given = [memory.put(x) for x in inputs]
        outputs = [np.full([number(d, sizes) for d in t.shape], 77).astype(t.dtype.numpy) for t in program.output_types]
        made = [memory.put(x) for x in outputs]
        for o, i in program.aliases:
            made[o] = given[i]
        offsets, total = place(program.locals, sizes)
        arena, moving = memory.new(max(total, program.arena_bytes)), [0] * program.pointers
        starts = {
            "input": [address for address, _ in given],
            "output": [address for address, _ in made],
            "constant": [memory.put(np.ascontiguousarray(c.data))[0] for c in program.constants],
            "workspace": [memory.new(number(w.size, sizes) * w.dtype.itemsize) for w in program.workspaces],
            "arena": [arena],
            "local": [arena + offset for offset in offsets],
            "pointer": moving,
        }
        record, error = memory.put(np.zeros(3, np.int64))
        failed = None
        try:
            _Run(self, starts, moving, sizes, (record, error), order).steps(program.steps)
        except _CheckFailed:
            failed = int(error[1]), int(error[2])
        assert failed or not error[0], "a check failed and nobody has looked"
        written = {i for _, i in program.aliases}
        for i, (x, (_, copy)) in enumerate(zip(inputs, given, strict=True)):
            if i in written:
                x[...] = copy
            assert x.tobytes() == copy.tobytes(), f"input {i} was written"
        results = [copy.copy() for _, copy in made]
        for o, i in program.aliases:
            results[o] = inputs[i]
        damage = memory.free()
        assert not damage, f"something was written {damage[0]}"
        return results, failed


class _CheckFailed(Exception):
    """A look at the error record has found something."""


class _Run:
    """Carries out steps."""

    def __init__(
        self,
        host: Host,
        starts: Mapping[str, list[int]],
        moving: list[int],
        sizes: Mapping[str, int],
        error: tuple[int, Array],
        order: str,
    ) -> None:
        self.host, self.starts, self.moving, self.sizes = host, starts, moving, sizes
        self.record, self.error = error
        self.order = order

    def at(self, m: Memory) -> int:
        return self.starts[m.kind][m.index] + m.offset

    def true(self, m: Memory) -> bool:
        assert not self.error[0], "data are used after a failed check"
        return ctypes.c_uint8.from_address(self.at(m)).value != 0

    def steps(self, steps: Sequence[CudaStep]) -> None:
        for step in steps:
            match step:
                case Launch():
                    self.launch(step)
                case Look():
                    if self.error[0]:
                        raise _CheckFailed
                case HostCall():
                    self.call(step)
                case Branch():
                    self.steps(step.then if self.true(step.pred) else step.other)
                case Loop():
                    self.loop(step)

    def launch(self, launch: Launch) -> None:
        args = [self.at(a) if isinstance(a, Memory) else number(a, self.sizes) for a in launch.args]
        blocks = min(number(launch.blocks, self.sizes), MOST_BLOCKS)
        if launch.pieces:
            args = launch.words(launch.numbers(self.sizes), args)
            args += [0] * (self.host.library[launch.kernel].sizes[0] // 8 - len(args))
        if blocks:
            record = [self.record] * launch.error
            self.host.library[launch.kernel](blocks, launch.threads, *args, *record, order=self.order)

    def call(self, call: HostCall) -> None:
        assert not self.error[0], "data are used after a failed check"
        arrays = (*call.operands, *call.results)
        places = tuple(Place(k, 0, a.type, a.strides) for k, a in enumerate(arrays))
        count = len(call.operands)
        Performer(LibraryCall(call.op, call.attrs, places[:count], places[count:]))([self.at(a.memory) for a in arrays])

    def loop(self, loop: Loop) -> None:
        places = [(self.at(c.first), self.at(c.second)) for c in loop.carried]
        starts = [self.at(s.start) for s in loop.sliced]
        for c, (first, _) in zip(loop.carried, places, strict=True):
            self.moving[c.read], self.moving[c.written] = self.at(c.source), first
        for turn in itertools.count():
            if loop.pred is None and turn == loop.length:
                break
            at = loop.length - 1 - turn if loop.reverse else turn
            for s, start in zip(loop.sliced, starts, strict=True):
                self.moving[s.pointer] = start + at * s.pace
            self.steps(loop.test)
            if loop.pred is not None and not self.true(loop.pred):
                break
            self.steps(loop.body)
            for c, (first, second) in zip(loop.carried, places, strict=True):
                self.moving[c.read] = self.moving[c.written]
                self.moving[c.written] = second if self.moving[c.read] == first else first
        for c, (first, _) in zip(loop.carried, places, strict=True):
            if self.moving[c.read] != first:
                ctypes.memmove(first, self.moving[c.read], c.nbytes)
