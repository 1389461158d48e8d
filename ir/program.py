"""`Program`: what codegen returns and runtime loads. Plain data: texts, a buffer plan, checks.

The native ABI (docs/architecture.md states it for other languages):

- `i32 entry(ptr ctx, ptr args)` runs a whole program (or, if a library carries out some of its steps, those between
  two such steps); 0 means success, anything else that the context's error record is filled.
  `args` is an array of 64-bit slots in the order of `Program.slots`: data pointers (to the first element, offset
  applied) and int64 sizes or strides.
- `ctx` points to 64-bit fields, see `CTX_FIELDS`. The functions in it have these signatures:
  allocate: `ptr (ptr ctx, i64 bytes)`; free: `void (ptr ctx, ptr)`;
  parallel_for: `i32 (ptr ctx, ptr body, ptr closure, i64 n, i64 grain)` where
  body: `void (ptr ctx, ptr closure, i64 begin, i64 end)`; host_call: `i32 (ptr ctx, i64 id, ptr args)`, which long
  loops call now and then (with id 0 and no args): other than 0 stops the program with that status.
- the error record is 4 int64: code (0: none), check number, value, spare. The first error in program order
  wins: a kernel writes only while code is 0, and `entry` returns after the first kernel that failed.
- no other external symbols but those of `Module.imports` (other modules' exports), memcpy, memset, libm.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from kiln.ir.arena import Local
from kiln.ir.graph import AttrValue, Constant, SourceLoc
from kiln.ir.target import Target
from kiln.ir.types import TensorType

CTX_FIELDS: Final = (
    "allocate",
    "free",
    "parallel_for",
    "host_call",
    "error",
    "interrupt",
    "threads",
)
"""Fields of the context in order, 8 bytes each. `error` points to the record, `interrupt` to an int32."""


@dataclass(frozen=True, slots=True)
class Module:
    """One LLVM module as text. Modules are compiled once per digest and target and shared by programs."""

    name: str
    text: str
    exports: tuple[str, ...]
    imports: tuple[str, ...] = ()
    plain: bool = False
    """Whether nothing is won by optimising it: no loops over elements. It is compiled in a tenth of the time."""

    def digest(self) -> str:
        """SHA-256 of the text, and of how it is compiled: the module's identity in caches."""
        return hashlib.sha256(f"{self.plain}|{self.text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Slot:
    """One 64-bit argument of `entry`. kind: "input", "output", "constant" (index says which), "arena" (bytes the caller
    provides, 64-byte aligned), "local" (one value in such an arena: `Program.locals`), "size" (an int64 named `name`),
    or "pointer" (which a loop moves that is not native: see `LoopCall`)."""

    kind: str
    index: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class CheckSite:
    """What a failed check means: exception kind ("index", "value", "zero", "linalg"), message with {value}, the user's
    line. With `stack` the value is a matrix of a stack of these sizes and an order from 1 to `orders` - 1, as
    matrix * orders + order, and the message is one with {matrix}, {order} and {row} (the order less 1)."""

    kind: str
    op: str
    message: str
    loc: SourceLoc | None = None
    stack: tuple[int, ...] | None = None
    orders: int = 1

    def told(self, value: int) -> str:
        """The message for a value."""
        message = self.message.replace("{value}", str(value))
        if self.stack is None:
            return message
        number, order = divmod(value, self.orders)
        at: list[int] = []
        for n in reversed(self.stack):
            number, k = divmod(number, n)
            at.insert(0, k)
        what = f"matrix {tuple(at) if len(at) > 1 else at[0]} of the stack" if at else "the matrix"
        return message.replace("{matrix}", what).replace("{order}", str(order)).replace("{row}", str(order - 1))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a library call finds an operand or leaves a result: `offset` bytes behind the pointer in slot `slot`."""

    slot: int
    offset: int
    type: TensorType
    strides: tuple[int, ...]  # in elements


@dataclass(frozen=True, slots=True)
class LibraryCall:
    """A step that a library carries out (`ir.ops.base.Library`): the op by name, on memory that the plan gave it.

    `check` is the position in `Program.checks` of what it means when the library refuses; -1 outside a program."""

    op: str
    attrs: tuple[tuple[str, AttrValue], ...]
    operands: tuple[Place, ...]
    results: tuple[Place, ...]
    check: int = -1


@dataclass(frozen=True, slots=True)
class BranchCall:
    """A branch that holds library calls: one of two runs of entries, by the bool at `pred`."""

    pred: Place
    then: tuple[Entry, ...]
    other: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class CarriedPlace:
    """A value that a loop carries: `source` is its first content, `first` and `second` what turns write, in turn; it
    ends in `first`. Slots `read` and `written` point to what a turn reads and writes."""

    read: int
    written: int
    source: Place
    first: Place
    second: Place


@dataclass(frozen=True, slots=True)
class SlicedPlace:
    """Something that a loop walks along: slot `pointer` points `pace` bytes further in each turn."""

    pointer: int
    start: Place
    pace: int


@dataclass(frozen=True, slots=True)
class LoopCall:
    """A loop that holds library calls: `body` while the bool at `pred` is true after `test`, or, with no `pred`,
    `length` times, from the last slice with `reverse`."""

    test: tuple[Entry, ...]
    pred: Place | None
    body: tuple[Entry, ...]
    carried: tuple[CarriedPlace, ...]
    sliced: tuple[SlicedPlace, ...]
    length: int
    reverse: bool


Entry: TypeAlias = "str | LibraryCall | BranchCall | LoopCall"
"""What a run calls: a native function by name, a library, or others as the data say."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled program as text and plans."""

    name: str
    target: Target
    modules: tuple[Module, ...]  # in dependency order; the entries last
    entries: tuple[Entry, ...]
    """What a run calls, in order, all with the same slots: native functions, and library calls between them. Without
    ops for a library it is one function."""
    slots: tuple[Slot, ...]
    input_types: tuple[TensorType, ...]
    output_types: tuple[TensorType, ...]
    aliases: tuple[tuple[int, int], ...] = ()  # (output, input): that output is written to that input's memory
    arena_bytes: int = 0
    locals: tuple[Local, ...] = ()  # what lies in the arena where sizes are symbolic: run finds the places
    constants: tuple[Constant, ...] = ()
    checks: tuple[CheckSite, ...] = ()
    work: int = 0  # estimated scalar operations of one run; 0 when sizes are symbolic
    stages: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # (stage, text) when asked for
