"""NVRTC without a GPU: CUDA text to machine code, and what ptxas says of it.

The library comes from NVIDIA's wheel (`pip install "nvidia-cuda-nvrtc==13.0.*"`), the system, or KILN_NVRTC, its path.
Without it tests are skipped, unless KILN_REQUIRE_GPU_TESTS is 1: then they fail.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from kiln.ir.gpu_program import OPTIONS, CudaText

ARCHITECTURES: Final = ("sm_80", "sm_90")


@dataclass(frozen=True)
class Usage:
    """What a kernel needs, as ptxas says: registers per thread, bytes of shared memory per block and of stack per
    thread, and bytes of registers that are spilt to it."""

    registers: int
    shared: int
    stack: int
    spills: int


@functools.cache
def _found() -> Any:
    """The library; None where there is none."""
    candidates: list[str] = [p for p in (os.environ.get("KILN_NVRTC"),) if p]
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        candidates += [str(p) for p in sorted(Path(root).glob("*/lib/libnvrtc.so.*")) if "alt" not in p.name]
    candidates += [p for p in (ctypes.util.find_library("nvrtc"),) if p]
    if not candidates:
        return None
    for builtins in sorted(Path(candidates[0]).parent.glob("libnvrtc-builtins.so.*")):
        if "alt" not in builtins.name:
            ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)  # which the library would look for elsewhere
    return ctypes.CDLL(candidates[0])


def need() -> Any:
    """The library, for a test that can't do without."""
    if (found := _found()) is not None:
        return found
    why = 'no NVRTC: pip install "nvidia-cuda-nvrtc==13.0.*"'
    if os.environ.get("KILN_REQUIRE_GPU_TESTS") == "1":
        pytest.fail(why)
    pytest.skip(why)


def version() -> tuple[int, int]:
    """The library's."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    need().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def compiled(source: str, architecture: str = "sm_80") -> tuple[bytes, str]:
    """The machine code of a text for an architecture, and the log; AssertionError with the log when it fails."""
    nvrtc, program = need(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kiln.cu", 0, None, None)
    options = [o.encode() for o in (*OPTIONS, f"-arch={architecture}", "--ptxas-options=-v")]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode() + "\n" + source
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return code.raw, log.value.decode()


def assembly(source: str, architecture: str = "sm_80") -> str:
    """The PTX of a text."""
    nvrtc, program, size = need(), ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kiln.cu", 0, None, None)
    options = [o.encode() for o in (*OPTIONS, f"-arch={architecture}")]
    assert nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) == 0
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx.value.decode()


def usage(log: str) -> dict[str, Usage]:
    """What the log says of each kernel."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:

        def number(pattern: str, part: str = part) -> int:
            match = re.search(pattern, part)
            return int(match[1]) if match else 0

        spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
        stack = number(r"(\d+) bytes stack frame")
        found[part[: part.index("'")]] = Usage(
            number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), stack, spills
        )
    return found


def warnings(log: str) -> list[str]:
    """Lines of the log that warn."""
    return [line for line in log.splitlines() if "warning" in line.lower()]


class MachineCode:
    """What a cubin (an ELF file) says of itself: `functions`, the global ones; `parameters` of each kernel, as (offset,
    size) in bytes; where it ends, for which `machine` it is, and for which `architecture`, as 90."""

    def __init__(self, code: bytes) -> None:
        assert code[:6] == b"\x7fELF\x02\x01"
        header = struct.unpack_from("<HHIQQQIHHHHHH", code, 16)
        _, self.machine, _, _, phoff, shoff, flags, _, phsize, phs, shsize, shs, names = header
        self.architecture = flags >> 8 & 0xFF
        self._code = code
        sections = [struct.unpack_from("<IIQQQQIIQQ", code, shoff + k * shsize) for k in range(shs)]
        ends = [shoff + shs * shsize, phoff + phs * phsize, *(s[4] + s[5] for s in sections if s[1] != 8)]
        self.end = max(ends)
        self.functions: set[str] = set()
        self.parameters: dict[str, list[tuple[int, int]]] = {}
        for section in sections:
            at, end, size = section[4], section[4] + section[5], section[9]
            if section[1] == 2:  # symbols
                found = [struct.unpack_from("<IB", code, k) for k in range(at, end, size)]
                strings = sections[section[6]][4]
                self.functions |= {self._name(strings + name) for name, info in found if info == 0x12}
            _, info, kernel = self._name(sections[names][4] + section[0]).partition(".nv.info.")
            if info:
                self.parameters[kernel] = self._parameters(at, end)

    def _name(self, at: int) -> str:
        return self._code[at : self._code.index(b"\0", at)].decode()

    def _parameters(self, at: int, end: int) -> list[tuple[int, int]]:
        found = {}
        while at < end:
            form, attribute, size = struct.unpack_from("<BBH", self._code, at)
            at += 4
            if form == 4:  # else the size is the value
                if attribute == 0x17:  # KPARAM_INFO
                    _, number, offset, packed = struct.unpack_from("<IHHI", self._code, at)
                    found[number] = offset, packed >> 18
                at += size
        return [found[k] for k in sorted(found)]


def text(kernels: Sequence[CudaText]) -> str:
    """Kernels as one text, every helper once."""
    helpers = dict.fromkeys(h for k in kernels for h in k.helpers)
    return "\n".join([*helpers, *(k.function for k in kernels)])
