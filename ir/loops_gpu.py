"""Statements of GPU kernels only."""

from __future__ import annotations

from dataclasses import dataclass

from kiln.ir.loops import Buffer, Expr, Stmt


@dataclass(frozen=True, slots=True, eq=False)
class Move(Stmt):
    """Neighbouring elements of `memory`, from `indices` on, to all of `registers`, or with `store` from there:
    those of them that exist, which are the first `count`; the others are zeros in registers. One access, if it can
    be."""

    memory: Buffer
    indices: tuple[Expr, ...]
    registers: Buffer
    count: Expr
    store: bool
