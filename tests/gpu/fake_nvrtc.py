"""NVRTC as CuPy has it, without a GPU: what is compiled are libraries for the CPU (`shim`).

A "cubin" is such a library and a line about it, so that it can lie in a cache on disk like a real one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from tests.gpu import shim
from tests.gpu.fake_device import locked, state


class NVRTCError(RuntimeError):
    def __init__(self, status: int) -> None:
        self.status = status
        names = {4: "INVALID_PROGRAM", 5: "INVALID_OPTION", 6: "COMPILATION"}
        super().__init__(f"NVRTC_ERROR_{names[status]} ({status})")


class _Program:
    def __init__(self, source: str, name: str) -> None:
        self.source, self.name, self.log = source, name, ""
        self.cubin: bytes | None = None


_programs: dict[int, _Program] = {}
_KNOWN: Final = re.compile(
    r"--?(gpu-architecture|arch|fmad|ftz|prec-div|prec-sqrt|std|ptxas-options|use_fast_math|default-device|device-as-default-"
    r"execution-space|lineinfo|generate-line-info|extra-device-vectorization|[DIw].*)(=.*)?"
)


def _program(prog: int) -> _Program:
    if prog not in _programs:
        raise NVRTCError(4)
    return _programs[prog]


def getVersion() -> tuple[int, int]:
    return 13, 1  # raised with what shim_runtime.cpp takes, since "cubins" lie in caches


def createProgram(src: str, name: str, headers: Sequence[str], include_names: Sequence[str]) -> int:
    if not isinstance(src, str) or not isinstance(name, str):
        raise TypeError("Argument 'src' has incorrect type (expected str)")
    assert not headers and not include_names, "not in the subset"
    handle = state.handle()
    _programs[handle] = _Program(src, name)
    return handle


@locked
def compileProgram(prog: int, options: Sequence[str]) -> None:
    program = _program(prog)
    len(options)  # which CuPy asks for
    given: dict[str, str] = {}
    program.cubin, program.log = None, ""
    for option in options:
        text = option.encode().decode()
        if not _KNOWN.fullmatch(text):
            program.log = f"nvrtc: error: unrecognized option {text} found\n"
            raise NVRTCError(5)
        key, _, value = text.lstrip("-").partition("=")
        given[key] = value
    unlike = [k for k, v in (("ftz", "true"), ("prec-div", "false"), ("prec-sqrt", "false")) if given.get(k) == v]
    assert not unlike and "use_fast_math" not in given, f"the CPU has no such arithmetic: {unlike}"
    arch = given.get("arch", given.get("gpu-architecture", "sm_75"))
    if not re.fullmatch(r"(sm|compute)_\d+[a-z]?", arch):
        program.log = f"nvrtc: error: invalid value for --gpu-architecture (-arch): {arch}\n"
        raise NVRTCError(5)
    state.counts["compile"] += 1
    try:
        library = shim.compiled(program.source, contract=given.get("fmad", "true") != "false", name=program.name)
    except shim.CompileError as error:
        program.log = str(error)
        raise NVRTCError(6) from None
    if arch.startswith("sm_"):
        content = library.read_bytes()
        program.cubin = content + mark(content, arch) + b"\0"


def mark(content: bytes, arch: str) -> bytes:
    """The line that makes a "cubin" of a library."""
    return f"\nfake cubin {arch} {hashlib.sha256(content).hexdigest()}\n".encode()


def getCUBIN(prog: int) -> bytes:
    program = _program(prog)
    if program.cubin is None:
        raise RuntimeError("cubin is requested, but the real arch (sm_XX) is not provided")
    return program.cubin[:-1]  # as CuPy does


def getProgramLog(prog: int) -> str:
    return _program(prog).log


def destroyProgram(prog: int) -> None:
    _program(prog)
    del _programs[prog]
