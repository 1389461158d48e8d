"""Programs that are no single native call: those that call libraries. Native functions and library calls take turns,
all on the same slots; where a branch or a loop holds a library call, Python runs it. No lock and no thread of the pool
is held between two calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from kiln.ir.ops.base import LibraryError
from kiln.ir.program import BranchCall, CheckSite, Entry, LibraryCall, LoopCall, Place, Program
from kiln.runtime.library import Performer

Slots: TypeAlias = "memoryview[int]"
Run: TypeAlias = Callable[[int, Any, Slots], int]
"""run(context, slots as native code takes them, slots) -> status"""


class ProgramError(Exception):
    """A check of a program failed: `site` says which, `value` is the offending number."""

    def __init__(self, site: CheckSite, value: int) -> None:
        super().__init__(f"{site.op}: {site.told(value)}")
        self.site = site
        self.value = value


def sequence(program: Program, native: Callable[[int], Any], symbols: Mapping[str, int]) -> Callable[[int, bytes], int]:
    """The entries of `program` as if they were one function; `native` makes one of an address."""

    def made(entries: Sequence[Entry]) -> Run:
        return _in_order([one(e) for e in entries])

    def one(entry: Entry) -> Run:
        match entry:
            case str():
                return _native(native(symbols[entry]))
            case LibraryCall():
                return _library(Performer(entry), program.checks)
            case BranchCall():
                return _branch(entry, made(entry.then), made(entry.other))
            case LoopCall():
                return _loop(entry, made(entry.test), made(entry.body))

    run = made(program.entries)

    def call(ctx: int, packed: bytes) -> int:
        memory = bytearray(packed)  # loops move pointers in it
        return run(ctx, (ctypes.c_char * len(memory)).from_buffer(memory), memoryview(memory).cast("q"))

    return call


def _in_order(runs: Sequence[Run]) -> Run:
    def run(ctx: int, packed: Any, slots: Slots) -> int:
        for each in runs:
            if status := each(ctx, packed, slots):
                return status
        return 0

    return run


def _native(function: Any) -> Run:
    return lambda ctx, packed, slots: int(function(ctx, packed))


def _library(perform: Performer, checks: Sequence[CheckSite]) -> Run:
    def run(ctx: int, packed: Any, slots: Slots) -> int:
        try:
            perform(slots)
        except LibraryError as refusal:
            raise ProgramError(replace(checks[perform.call.check], message=str(refusal)), 0) from None
        return 0

    return run


def _address(place: Place, slots: Slots) -> int:
    return slots[place.slot] + place.offset


def _true(place: Place, slots: Slots) -> bool:
    return ctypes.c_uint8.from_address(_address(place, slots)).value != 0


def _branch(call: BranchCall, then: Run, other: Run) -> Run:
    return lambda ctx, packed, slots: (then if _true(call.pred, slots) else other)(ctx, packed, slots)


def _loop(call: LoopCall, test: Run, body: Run) -> Run:
    def run(ctx: int, packed: Any, slots: Slots) -> int:
        places = [(_address(c.first, slots), _address(c.second, slots)) for c in call.carried]
        starts = [_address(s.start, slots) for s in call.sliced]
        for c, (first, _) in zip(call.carried, places, strict=True):
            slots[c.read], slots[c.written] = _address(c.source, slots), first
        turn = 0
        while True:
            if call.pred is None:
                if turn == call.length:
                    break
            else:
                if status := test(ctx, packed, slots):
                    return status
                if not _true(call.pred, slots):
                    break
            at = call.length - 1 - turn if call.reverse else turn
            for s, start in zip(call.sliced, starts, strict=True):
                slots[s.pointer] = start + at * s.pace
            if status := body(ctx, packed, slots):
                return status
            for c, (first, second) in zip(call.carried, places, strict=True):
                slots[c.read] = slots[c.written]
                slots[c.written] = second if slots[c.read] == first else first
            turn += 1
        for c, (first, _) in zip(call.carried, places, strict=True):
            if slots[c.read] != first:
                ctypes.memmove(first, slots[c.read], c.first.type.numel() * c.first.type.dtype.itemsize)
        return 0

    return run
