"""A loaded program: text became code, and `run` is one native call.

Life of a load: every `Module` of the program is compiled (or fetched from the object cache) and mapped by our own
loader, once per process; imports are resolved among the program's modules; the entry's address becomes a function of
Python's (`calls.py`). Life of a run: one leased arena, one call with all 64-bit slots, one look at the status. Where a
library carries out some of the ops, native calls and calls of the library take turns, all on the same slots.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kiln.ir.arena import place
from kiln.ir.program import Program
from kiln.runtime import calls, context
from kiln.runtime.memory import Buffer
from kiln.runtime.modules import load_module
from kiln.runtime.sequence import ProgramError as ProgramError
from kiln.runtime.sequence import sequence

KEEP_GIL_BELOW: Final = 20_000
"""Programs of fewer scalar operations (about 10 µs) keep the interpreter lock: handing it over costs more."""

OUT_OF_MEMORY: Final = 2
"""Error code of a kernel whose workspace could not be allocated (1 is a failed check)."""

INTERRUPTED: Final = 3
"""Error code of a loop that a signal handler of Python's stopped."""

_MAX_PLACED: Final = 1024
"""Tuples of sizes for which a program remembers how its arena is divided."""

_FIRST_KINDS: Final = ("input", "output", "size")


class Executable:
    """A program in this process. Thread-safe and re-entrant: each run leases its own arena."""

    __slots__ = ("_arenas", "_call", "_constants", "_count", "_moving", "_names", "_placed", "program")

    def __init__(self, program: Program, symbols: Mapping[str, int]) -> None:
        kinds = [slot.kind for slot in program.slots]
        self._count = sum(kind in _FIRST_KINDS for kind in kinds)
        if any(kind in _FIRST_KINDS for kind in kinds[self._count :]):
            raise ValueError(f"program {program.name}: slots are not in the order inputs, outputs, sizes, rest")
        self.program = program
        self._call = _function(program, symbols)
        self._moving = (0,) * kinds.count("pointer")
        self._constants = tuple(
            program.constants[slot.index].data.__array_interface__["data"][0]
            for slot in program.slots
            if slot.kind == "constant"
        )
        self._arenas: list[Buffer] = []
        self._names = [slot.name for slot in program.slots if slot.kind == "size"]
        self._placed: dict[tuple[int, ...], tuple[list[int], int]] = {}

    def run(self, values: Sequence[int]) -> None:
        """Run once. `values`: one 64-bit number per slot of kind input, output and size, in slot order
        (pointers to first elements, and sizes). Raises `ProgramError` when a check fails; then no input has been
        changed. The caller keeps the memory alive."""
        if len(values) != self._count:
            raise ValueError(f"program {self.program.name} takes {self._count} slots, got {len(values)}")
        ctx = context.current()
        if self.program.locals:
            offsets, total = self._places(tuple(values[self._count - len(self._names) :]))
            try:
                arena = self._arenas.pop()
            except IndexError:
                arena = Buffer.allocate(total)
            if arena.nbytes < total:
                arena = Buffer.allocate(total)
            places = [arena.ptr + offset for offset in offsets]
            status = self._call(ctx.address, *values, *self._constants, *places, *self._moving)
            self._arenas.append(arena)
        elif self.program.arena_bytes:
            try:
                arena = self._arenas.pop()
            except IndexError:
                arena = Buffer.allocate(self.program.arena_bytes)
            status = self._call(ctx.address, *values, *self._constants, arena.ptr, *self._moving)
            self._arenas.append(arena)
        else:
            status = self._call(ctx.address, *values, *self._constants, *self._moving)
        if status:
            self._fail(ctx)

    def _places(self, sizes: tuple[int, ...]) -> tuple[list[int], int]:
        """Where in an arena everything lies, and how large that is, for these sizes."""
        found = self._placed.get(sizes)
        if found is None:
            if len(self._placed) >= _MAX_PLACED:
                self._placed.clear()
            found = self._placed[sizes] = place(self.program.locals, dict(zip(self._names, sizes, strict=True)))
        return found

    def runner(self) -> Callable[..., None]:
        """`run` for those who run often: a function of the numbers themselves, which are not counted first."""
        if self.program.arena_bytes or self.program.locals or self._constants or self._moving:
            return lambda *values: self.run(values)
        call, current, fail = self._call, context.current, self._fail

        def run(*values: int) -> None:
            ctx = current()
            if call(ctx.address, *values):
                fail(ctx)

        return run

    def _fail(self, ctx: context.Context) -> None:
        if ctx.error[0] == INTERRUPTED:
            ctx.raise_again()
        code, site, value = ctx.take_error()
        if code == OUT_OF_MEMORY:
            raise MemoryError(f"program {self.program.name}: the system refused workspace memory")
        if code != 1:
            raise RuntimeError(f"program {self.program.name} failed without an error record (code {code})")
        raise ProgramError(self.program.checks[site], value)


def _function(program: Program, symbols: Mapping[str, int]) -> Callable[..., int]:
    """The entries of a program as one function of the context and the slots, which returns the status."""
    keeps_lock = 0 < program.work < KEEP_GIL_BELOW
    (first,) = program.entries if len(program.entries) == 1 else (None,)
    if isinstance(first, str) and (found := calls.caller(symbols[first], len(program.slots), keeps_lock)) is not None:
        return found
    prototype = ctypes.PYFUNCTYPE if keeps_lock else ctypes.CFUNCTYPE
    native = prototype(ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p)
    packed = native(symbols[first]) if isinstance(first, str) else sequence(program, native, symbols)
    pack = struct.Struct(f"{len(program.slots)}q").pack
    return lambda ctx, *slots: packed(ctx, pack(*slots))


def load(program: Program) -> Executable:
    """Compile what is new, link, and make the program callable."""
    symbols: dict[str, int] = {}
    for module in program.modules:
        symbols.update(load_module(module, program.target, symbols.get))
    return Executable(program, symbols)
