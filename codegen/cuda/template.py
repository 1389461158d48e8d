"""Kernels whose text is written by hand: ops that are no loop nests (factorisations, transforms, attention).

A template looks at an op and where its operands lie, and gives the kernels that compute it, in launch order. Every
kernel of a step takes the same arguments: the operands' and the results' pointers, the workspaces, the constants, then
`sizes`, and last, where a step launches one kernel many times, the launch's number in `turns`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from kiln.codegen.layout import Layout
from kiln.ir.gpu_program import CudaText, Workspace
from kiln.ir.graph import Constant, Operation, Value
from kiln.ir.program import CheckSite
from kiln.ir.types import Dim


@dataclass(frozen=True, slots=True)
class Filled:
    """What a template makes of an op: the texts of its launches, in order, among which one may be there again. The
    functions' names stand alone on the line before "(", as everywhere. Equal texts may have different `blocks`."""

    texts: tuple[CudaText, ...]
    workspaces: tuple[Workspace, ...] = ()
    sizes: tuple[Dim, ...] = ()
    turns: tuple[int, ...] = ()
    """None, or one number per launch: its last argument before the error record."""
    constants: tuple[Constant, ...] = ()
    """Tables that lie in the device's memory from the beginning."""


Template: TypeAlias = "Callable[[Operation, Mapping[Value, Layout | None], list[CheckSite]], Filled | None]"
"""None: not for these operands; the op is then lowered in another way. What can fail adds its check to the list."""
