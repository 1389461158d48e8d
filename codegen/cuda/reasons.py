"""What has no CUDA text, with the reasons: one table, by how an op is lowered. docs/cuda.md prints it; a test walks all
ops and holds it to the truth."""

from __future__ import annotations

from typing import Final

from kiln.ir.ops.base import Control, Library, Lowering, OpDef

REASONS: Final[dict[type[Lowering], str]] = {
    Control: "branches and loops run on the CPU, as part of a program's native code; a GPU has none yet",
    Library: "a library (LAPACK, pocketfft) computes it on the host; a GPU needs one of its own for it",
}


def reason(op: OpDef) -> str | None:
    """Why an op has no CUDA text; None for the ops that have one."""
    return REASONS.get(type(op.lower))


class NoCudaText(Exception):
    """An op that has no CUDA text: its name and the reason."""

    def __init__(self, op: str, why: str) -> None:
        super().__init__(f"{op} has no CUDA text: {why}")
        self.op = op
        self.reason = why
