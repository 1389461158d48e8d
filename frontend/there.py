"""Memory and programs off the CPU: what `dispatch.py` needs of `kiln.runtime.cuda`, in the frontend's terms.

Nothing here is imported before a tensor is put on a GPU but this file itself.
"""

from __future__ import annotations

import functools
import os
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

_PART: Final = 64
"""Bytes that what lies in one copy is aligned to."""
_checked: Final[set[Device]] = set()
_multiplies: Final[dict[int, bool]] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_checked.clear)  # CUDA can't be used there: `check` says so


def current() -> int:
    """The number of the GPU that "cuda" means on this thread."""
    driver = sys.modules.get("kiln.runtime.cuda_driver")  # else nobody has chosen one
    return 0 if driver is None else int(driver.current_device())


def used() -> frozenset[Device]:
    """The devices, besides the CPU, that tensors were put on."""
    return frozenset(_checked)


def queue(device: Device) -> int:
    """This thread's current stream on a GPU: what is put there in its order is not there yet for other streams."""
    driver = sys.modules.get("kiln.runtime.cuda_driver")
    stream = None if driver is None else driver.local.streams.get(device.slot)
    return 0 if stream is None else int(stream.ptr)


def settle(device: Device) -> None:
    """Wait until what this thread's current stream put on a GPU is there for other streams, too."""
    from kiln.runtime import cuda

    if cuda.recording() is None:
        place = cuda.gpu(device.slot)
        with place.guarded("placing constants"):
            place.stream().handle.synchronize()  # not `wait`, which may be forbidden: this happens once


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


def multiplies(device: Device) -> bool:
    """Whether a library is there for matrix products on `device`."""
    found = _multiplies.get(device.slot)  # devices take long to hash
    if found is None:
        from kiln.runtime import cuda

        try:
            found = cuda.products_library(device.slot) is not None
        except cuda.CudaError as error:
            raise errors.from_cuda(error, "matmul") from None
        _multiplies[device.slot] = found
    return found


@functools.cache
def has_tensor_cores(device: Device) -> bool:
    """Whether a GPU has the instructions that kernels of 16-bit floats multiply with."""
    from kiln.cuda import get_device_capability  # loaded already, as tensors are there

    return get_device_capability(device.slot) >= (8, 0)


def build(
    graph: Graph,
    strides: Sequence[tuple[Dim, ...] | None],
    name: str,
    passes: bool = True,
    donated: Sequence[int] = (),
) -> CudaProgram:
    """The program of a graph for a GPU."""
    from kiln.codegen.cuda.pipeline import compile_cuda

    return compile_cuda(graph, strides, name=name, passes=passes, donated=donated, bounds=bounds())


def bounds() -> bool:
    """Whether kernels are made that stop at accesses beyond their buffers."""
    from kiln.runtime.cuda_driver import debugging

    return debugging()


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
    failure = cuda.CudaError
    try:
        take = cuda.DeviceBuffer.allocator(layout.nbytes, layout.device.slot)
    except failure as error:
        raise errors.from_cuda(error, "allocate") from None

    def allocate() -> Buffer:
        try:
            return take()
        except failure as error:
            raise errors.from_cuda(error, "allocate") from None

    return allocate


def pinned(nbytes: int) -> Buffer:
    """Memory of the host that GPUs copy from and to by themselves. DeviceError where there is no GPU."""
    from kiln.runtime import cuda

    try:
        return cuda.PinnedBuffer.allocate(nbytes)
    except cuda.CudaError as error:
        raise errors.from_cuda(error, "pin_memory") from None


def uploaded(ptr: int, nbytes: int, device: Device) -> DeviceBuffer:
    """A copy of `nbytes` of the host's memory, for constants."""
    from kiln.runtime import cuda

    check(device, "allocate")
    try:
        return cuda.DeviceBuffer.constant(ptr, nbytes, device.slot)
    except cuda.CudaError as error:
        raise errors.from_cuda(error, "to") from None


def together(tensors: Sequence[Any], device: Device) -> tuple[DeviceBuffer, list[int]]:
    """A copy of the bytes of contiguous tensors of the CPU, and where each of them lies in it."""
    from kiln.runtime import cuda

    check(device, "to")
    parts, total = [], 0
    for t in tensors:
        parts.append((total, t._ptr, t._layout.nbytes))
        total += -(-t._layout.nbytes // _PART) * _PART
    try:
        buffer = cuda.DeviceBuffer.allocate(total, device.slot)
        cuda.copy_parts_to_device(buffer, 0, parts, total)
    except cuda.CudaError as error:
        raise errors.from_cuda(error, "to") from None
    return buffer, [offset for offset, _, _ in parts]


def copy(out: Any, source: Any, non_blocking: bool) -> None:
    """The bytes of contiguous `source` to contiguous `out`, of which at least one is on a GPU."""
    from kiln.runtime import cuda

    nbytes = source._layout.nbytes
    if not nbytes:
        return
    to, start = out._ptr - out._buffer.ptr, source._ptr - source._buffer.ptr
    try:
        if out._layout.device is CPU:
            cuda.copy_to_host(out._ptr, source._buffer, start, nbytes, non_blocking, out._buffer)
        elif source._layout.device is CPU:
            cuda.copy_to_device(out._buffer, to, source._ptr, nbytes, non_blocking, source._buffer)
        else:
            cuda.copy_on_device(out._buffer, to, source._buffer, start, nbytes)
    except cuda.CudaError as error:
        raise errors.from_cuda(error, "to") from None
