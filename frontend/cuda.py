"""`kiln.cuda`: what programs ask before they use a GPU. This version keeps tensors on the CPU.

What it has for GPUs is text: `kiln.explain(f, x).cuda()` is the CUDA C of a captured function, and how it is launched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiln.ir.gpu_program import CudaProgram
    from kiln.ir.graph import Graph
    from kiln.ir.types import Dim

__all__ = ["device_count", "is_available"]


def is_available() -> bool:
    """Whether tensors can be put on a GPU: False."""
    return False


def device_count() -> int:
    """How many GPUs can hold tensors: 0."""
    return 0


def program_of(graph: Graph, strides: Sequence[tuple[Dim, ...] | None], name: str) -> CudaProgram:
    """The CUDA program of a captured graph on inputs of these strides."""
    from kiln.codegen.cuda.pipeline import compile_cuda

    return compile_cuda(graph, strides, name=name)
