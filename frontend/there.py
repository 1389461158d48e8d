"""Memory and programs off the CPU: what `dispatch.py` needs of `kiln.runtime.cuda`, in the frontend's terms.

Nothing here is imported before a tensor is put on a GPU but this file itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kiln import errors
from kiln.ir.types import CPU, Device

if TYPE_CHECKING:
    from kiln.base import Layout
    from kiln.ir.gpu_program import CudaProgram
    from kiln.ir.graph import Graph
    from kiln.ir.types import Dim
    from kiln.runtime.cuda import CudaError, CudaExecutable, DeviceBuffer
    from kiln.runtime.memory import Buffer

_checked: Final[set[Device]] = set()


def current() -> int:
    """The number of the GPU that "cuda" means on this thread."""
    driver = sys.modules.get("kiln.runtime.cuda_driver")  # else nobody has chosen one
    return 0 if driver is None else int(driver.current_device())


def used() -> frozenset[Device]:
    """The devices, besides the CPU, that tensors were put on."""
    return frozenset(_checked)


def faults() -> tuple[type[CudaError], ...]:
    """What calls of a GPU raise: for `except`, which asks only once something was raised."""
    driver = sys.modules.get("kiln.runtime.cuda_driver")
    return () if driver is None else (driver.CudaError,)


def check(device: Device, op: str) -> None:
    """DeviceError unless tensors can be put on `device`."""
    if device in _checked or device == CPU:
        return
    if device.kind != "cuda":
        raise errors.DeviceError(f"there is no device {device}", op=op, fix='use "cpu" or "cuda"')
    from kiln.runtime import cuda

    try:
        cuda.check(device.slot)
    except cuda.CudaError as error:
        raise errors.from_cuda(error, op) from None
    _checked.add(device)


def build(
    graph: Graph,
    strides: Sequence[tuple[Dim, ...] | None],
    name: str,
    passes: bool = True,
    donated: Sequence[int] = (),
) -> CudaProgram:
    """The program of a graph for a GPU."""
    from kiln.codegen.cuda.pipeline import compile_cuda

    return compile_cuda(graph, strides, name=name, passes=passes, donated=donated)


def stages(graph: Graph, strides: Sequence[tuple[Dim, ...] | None], name: str) -> tuple[tuple[str, str], ...]:
    """The stages of making it, as text."""
    from kiln.codegen.cuda.pipeline import compile_cuda

    found: list[tuple[str, str]] = []
    compile_cuda(graph, strides, name=name, note=lambda stage, what: found.append((stage, str(what))))
    return tuple(found)


def load(program: CudaProgram, device: Device) -> CudaExecutable:
    """A program on a device."""
    from kiln.runtime import cuda

    try:
        return cuda.load(program, device.slot)
    except cuda.CudaError as error:
        raise errors.from_cuda(error, program.name) from None


def as_numpy(buffer: Buffer, *view: Any) -> np.ndarray[Any, Any]:
    """`Buffer.as_numpy`; of memory on a GPU it is a copy."""
    try:
        return buffer.as_numpy(*view)
    except faults() as fault:
        raise errors.from_cuda(fault, "copy to the host") from None


def allocator(layout: Layout) -> Callable[[], Buffer]:
    """What makes memory for tensors of a contiguous layout."""
    from kiln.runtime import cuda

    check(layout.device, "allocate")
    take, failure = cuda.DeviceBuffer.allocator(layout.nbytes, layout.device.slot), cuda.CudaError

    def allocate() -> Buffer:
        try:
            return take()
        except failure as error:
            raise errors.from_cuda(error, "allocate") from None

    return allocate


def uploaded(ptr: int, nbytes: int, device: Device) -> DeviceBuffer:
    """A copy of `nbytes` of the host's memory."""
    from kiln.runtime import cuda

    check(device, "allocate")
    try:
        buffer = cuda.DeviceBuffer.allocate(nbytes, device.slot)
        if nbytes:
            cuda.copy_to_device(buffer, 0, ptr, nbytes)
    except cuda.CudaError as error:
        raise errors.from_cuda(error, "to") from None
    return buffer


def copy(out: Any, source: Any, non_blocking: bool) -> None:
    """The bytes of contiguous `source` to contiguous `out`, of which at least one is on a GPU."""
    from kiln.runtime import cuda

    nbytes = source._layout.nbytes
    if not nbytes:
        return
    to, start = out._ptr - out._buffer.ptr, source._ptr - source._buffer.ptr
    try:
        if out._layout.device is CPU:
            cuda.copy_to_host(out._ptr, source._buffer, start, nbytes)
        elif source._layout.device is CPU:
            cuda.copy_to_device(out._buffer, to, source._ptr, nbytes, non_blocking)
        else:
            cuda.copy_on_device(out._buffer, to, source._buffer, start, nbytes)
    except cuda.CudaError as error:
        raise errors.from_cuda(error, "to") from None
