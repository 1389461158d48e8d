"""Statements of GPU kernels only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kiln.ir.loops import Buffer, Expr, Stmt, Var


@dataclass(frozen=True, slots=True, eq=False)
class Move(Stmt):
    """Neighbouring elements of `memory`, from `indices` on, to `registers`, or with `store` from there: those of them
    that exist, which are the first `count`; the others are zeros in registers. One access, if it can be. `lanes`
    elements from the linear place `at` of the registers on, or all of them. `later`: to shared memory, where they are
    only after `Arrive`, for the thread that asked."""

    memory: Buffer
    indices: tuple[Expr, ...]
    registers: Buffer
    count: Expr
    store: bool
    at: Expr | None = None
    lanes: int | None = None
    later: bool = False

    @property
    def width(self) -> int:
        """How many elements at most."""
        return self.lanes or math.prod(d for d in self.registers.shape if isinstance(d, int))


@dataclass(frozen=True, slots=True, eq=False)
class Arrive(Stmt):
    """A thread waits for what it moves `later`."""


@dataclass(frozen=True, slots=True, eq=False)
class Rank(Stmt):
    """All threads of a block give a `count`; `first` is the sum of those of the threads before, `total` that of all.
    `room`: shared memory, an int32 per warp."""

    count: Expr
    room: Buffer
    first: Var
    total: Var
