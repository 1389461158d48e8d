"""Kernels: CUDA texts become functions of a GPU, through NVRTC or the cache on disk, once per process and GPU."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Sequence
from typing import Any, Final

from kiln.ir.gpu_program import OPTIONS, CudaText
from kiln.runtime import cache
from kiln.runtime.cuda_driver import CudaError, Gpu, said

_KIND: Final = "cubins"
_LOG_LINES: Final = 8
_lock: Final = threading.Lock()


def functions(place: Gpu, name: str, kernels: Sequence[CudaText]) -> dict[str, int]:
    """The handles of a program's kernels, by name. Those that this process has not seen on this GPU are compiled
    together. CudaError of kind "compile" names a kernel that NVRTC refuses."""
    sources = {kernel.name: kernel.source for kernel in kernels}
    if any(source not in place.kernels for source in sources.values()):
        with _lock:
            fresh = [k for k in kernels if sources[k.name] not in place.kernels]
            if fresh:
                with place.guarded(f"loading the kernels of {name}"):
                    _load(place, fresh, _cubin(place, name, fresh))
    return {kernel: place.kernels[source] for kernel, source in sources.items()}


def _load(place: Gpu, kernels: Sequence[CudaText], cubin: bytes) -> None:
    path = _written(cubin)  # CuPy loads from files
    try:
        module = place.session.cupy.RawModule(path=path)
        for kernel in kernels:
            function = module.get_function(kernel.name).kernel
            place.modules.append(function)
            place.kernels[kernel.source] = function.ptr
    finally:
        os.unlink(path)


def _written(cubin: bytes) -> str:
    """The path of a new file."""
    path = ""
    try:
        handle, path = tempfile.mkstemp(suffix=".cubin", prefix="kiln")
        with os.fdopen(handle, "wb") as file:
            file.write(cubin)
    except OSError as error:
        if path:
            os.unlink(path)
        message = f"machine code is loaded from a file, and none can be written ({error})"
        raise CudaError("compile", message, "set TMPDIR to a folder with room for it") from None
    return path


def _cubin(place: Gpu, name: str, kernels: Sequence[CudaText]) -> bytes:
    helpers = list(dict.fromkeys(h for k in kernels for h in k.helpers))
    parts = [*helpers, *(k.function for k in kernels)]
    source = "\n".join(parts)
    options = (*OPTIONS, f"-arch={place.arch}")
    version = _nvrtc_version(place)
    whole = f"{cache.FORMAT}|{options}|{version}|{source}"
    key = hashlib.sha256(whole.encode()).hexdigest()
    found = cache.read(_KIND, key)
    if found is None:
        found = _compile(place, name, source, options, kernels)
        cache.write(_KIND, key, found)
    return found


def _nvrtc_version(place: Gpu) -> str:
    try:
        return str(place.session.nvrtc.getVersion())
    except (RuntimeError, OSError, ImportError) as error:  # which one depends on how CuPy was installed
        raise CudaError(
            "compile",
            f"NVRTC, which compiles kernels, was not found ({said(error)})",
            "pip install 'cupy-cuda13x[ctk]'",
        ) from None


def _compile(place: Gpu, name: str, source: str, options: Sequence[str], kernels: Sequence[CudaText]) -> bytes:
    nvrtc: Any = place.session.nvrtc
    program = nvrtc.createProgram(source, f"{re.sub('[^A-Za-z0-9_]', '_', name) or 'kernels'}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        # CuPy takes a byte off the end, which is the terminator of a text but part of a binary.
        return bytes(nvrtc.getCUBIN(program)) + b"\0"
    except nvrtc.NVRTCError as error:
        raise _refused(nvrtc.getProgramLog(program), source, kernels, error) from None
    finally:
        nvrtc.destroyProgram(program)


def _refused(log: str, source: str, kernels: Sequence[CudaText], error: Exception) -> CudaError:
    lines = [line for line in log.splitlines() if line.strip()]
    first = next((k for k, line in enumerate(lines) if "error" in line), 0)
    told = "\n    ".join(lines[first : first + _LOG_LINES])
    where = re.search(r"\.cu[(:](\d+)", lines[first]) if lines else None
    kernel = _kernel_at(int(where[1]), source, kernels) if where is not None else None
    op = kernel.name if kernel is not None else kernels[0].name if len(kernels) == 1 else ""
    fix = "this is a fault of kiln's: please report it with this text"
    if "INVALID_OPTION" in str(error):
        fix = "this NVRTC may be too old for the GPU: a newer one comes with pip install -U 'cupy-cuda13x[ctk]'"
    return CudaError("compile", f"NVRTC refused the kernel ({error}):\n    {told}", fix, op=op)


def _kernel_at(line: int, source: str, kernels: Sequence[CudaText]) -> CudaText | None:
    """The kernel whose text is at a line of the source; None in a helper."""
    found = None
    for kernel in kernels:
        start = source[: source.index(kernel.function)].count("\n") + 1
        if start <= line <= start + kernel.function.count("\n"):
            found = kernel
    return found
