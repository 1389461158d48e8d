"""CUDA C on the CPU: a C++ compiler makes a library of its kernels, which run block after block as fibers.

Threads of a block run one at a time, each until it meets the others; in which order is `ORDERS`. Shared memory is full
of NaNs before each block, and memory of `allocate` lies between guard pages, so that a missing barrier or an overrun
is a wrong result or an error of that launch in at least one order.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ORDERS: Final = {"natural": 0, "reverse": 1, "shuffled": 2}
"""Of the threads within a block and of the blocks within a grid."""
ILLEGAL_ADDRESS: Final = 700
LAUNCH_FAILURE: Final = 719
FLAGS: Final = ("-std=c++17", "-O1", "-w", "-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti", "-fPIC", "-shared")
_KERNEL: Final = re.compile(r"\b__global__\s+void\s+(?:__launch_bounds__\s*\(\s*(\d+)[^)]*\)\s*)?(\w+)\s*\(")
_FUNCTION: Final = re.compile(r"^__device__ __forceinline__ [^\n]*\n\{\n.*?^\}\n?", re.M | re.S)
"""Of one signature line."""
_DYNAMIC: Final = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s*)?([\w ]+?)\s*(\w+)\s*\[\s*\]\s*;")


class CompileError(Exception):
    """The text is not C++; the message is the compiler's."""


class KernelError(Exception):
    """A launch that went wrong: `status` as CUDA numbers it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@functools.cache
def compiler() -> tuple[str, ...]:
    """The command of the C++ compiler; () when there is none."""
    if not sys.platform.startswith("linux"):
        return ()
    for name in ("g++", "clang++"):
        if found := shutil.which(name):
            return (found,)
    if importlib.util.find_spec("ziglang") is not None:
        target = f"{platform.machine()}-linux-gnu.2.36"
        return (sys.executable, "-m", "ziglang", "c++", "-target", target, "-fno-sanitize=undefined", "-nostdlib++")
    return ()


def missing() -> str | None:
    """Why kernels don't run here; None when they do. With KILN_REQUIRE_GPU_TESTS=1 they must, with 0 they must not."""
    if os.environ.get("KILN_REQUIRE_GPU_TESTS") == "0":
        return "KILN_REQUIRE_GPU_TESTS=0"
    if compiler():
        return None
    why = "no C++ compiler: install g++, clang++ or the wheel ziglang"
    if not sys.platform.startswith("linux"):
        why = "the CPU shim needs Linux"
    if os.environ.get("KILN_REQUIRE_GPU_TESTS") == "1":
        raise RuntimeError(why)
    return why


def folder() -> Path:
    """Where compiled libraries are kept, by their content."""
    given = os.environ.get("KILN_SHIM_CACHE") or os.environ.get("KILN_CACHE_DIR") or tempfile.gettempdir()
    place = Path(given) / "kiln-cpu-shim"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _checks() -> tuple[str, ...]:
    """An index beyond an array whose length the text states is a trap, and so is an address that a GPU would not take
    for values of that size."""
    if Path(compiler()[0]).name == "g++":
        return ("-fsanitize=bounds,alignment", "-fsanitize-undefined-trap-on-error")
    return ("-fsanitize=array-bounds,alignment", "-fsanitize-trap=array-bounds,alignment")


@functools.cache
def _machine_flags() -> tuple[str, ...]:
    """Instructions for fma and rounding, where this CPU has them: else each is a call."""
    if platform.machine() != "x86_64":
        return ()
    words = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text().partition("\n\n")[0]))
    return ("-mfma", "-msse4.1") if {"fma", "sse4_1"} <= words else ()


def _made(source: str, flags: Sequence[str]) -> Path:
    """The library of a C++ text, compiled unless it is there already."""
    command = [*compiler(), *FLAGS, *flags]
    stem = hashlib.sha256("\n".join([*command, source]).encode()).hexdigest()[:32]
    library = folder() / f"{stem}.so"
    if not library.exists():
        part = folder() / f"{stem}-{uuid.uuid4().hex}"
        try:
            part.with_suffix(".cpp").write_text(source)
            output = ["-o", str(part.with_suffix(".so")), str(part.with_suffix(".cpp"))]
            done = subprocess.run([*command, *output], capture_output=True, text=True, check=False)
            if done.returncode:
                raise CompileError(done.stderr.replace(str(part.with_suffix(".cpp")), "kernel.cu"))
            os.replace(part.with_suffix(".so"), library)
        finally:
            for suffix in (".cpp", ".so"):
                part.with_suffix(suffix).unlink(missing_ok=True)
    return library


def _only_assembly(function: str) -> bool:
    """Whether the shim has one of its own for it (shim_kernel.h), as it says nothing for other machines."""
    return re.search(r"\basm\b", function) is not None and "__CUDA_ARCH__" not in function


def compiled(source: str, *, contract: bool = False, name: str = "kernel.cu") -> Path:
    """The library of CUDA C, with every kernel that it has; `contract`: a compiler may fuse `a * b + c`, as NVRTC does
    without -fmad=false. CompileError."""
    text = _DYNAMIC.sub(r"\1 *\2 = (\1 *)shim_dynamic;", source)
    text = _FUNCTION.sub(lambda f: "\n" * f[0].count("\n") if _only_assembly(f[0]) else f[0], text)
    parts, line, done = [_prelude(), f'#line 1 "{name}"\n'], 1, 0
    for found in _KERNEL.finditer(text):
        start = text.rfind("\n", 0, found.start()) + 1
        line += text.count("\n", done, start)
        # The shared memory of each kernel has a section of its own.
        parts += [text[done:start], f"#undef SHIM_NAME\n#define SHIM_NAME {found[2]}\n#line {line}\n"]
        done = start
    entries = [f"SHIM_KERNEL({found[2]}, {found[1] or 1024})\n" for found in _KERNEL.finditer(text)]
    # Compilers fuse only with more optimisation than is worth its time.
    how = ("-ffp-contract=fast", "-O2") if contract else ("-ffp-contract=off",)
    whole = "".join([*parts, text[done:], "\n", *entries])
    return _made(whole, [*_machine_flags(), *_checks(), *how, "-nostdlib"])


@functools.cache
def _prelude() -> str:
    return (HERE / "shim_kernel.h").read_text()


# ------------------------------------------------------------------------------------------------------------ running


class _Entry(ctypes.Structure):
    """`ShimKernel` of shim_kernel.h."""

    _fields_ = (
        ("body", ctypes.c_void_p),
        ("sizes", ctypes.POINTER(ctypes.c_ushort)),
        ("pointers", ctypes.POINTER(ctypes.c_ushort)),
        ("shared_begin", ctypes.c_void_p),
        ("shared_end", ctypes.c_void_p),
        ("count", ctypes.c_uint),
        ("threads", ctypes.c_uint),
    )


@functools.cache
def runtime() -> ctypes.PyDLL:
    """The fibers and the memory. A PyDLL, as one kernel runs at a time."""
    source = (HERE / "shim_runtime.cpp").read_text().replace('#include "shim_kernel.h"', _prelude())
    library = ctypes.PyDLL(str(_made(source, [])), mode=ctypes.RTLD_GLOBAL)
    word, size = ctypes.c_void_p, ctypes.c_size_t
    library.shim_launch.argtypes = [word, word, word, ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, word, size]
    library.shim_allocate.argtypes, library.shim_allocate.restype = [size, ctypes.c_int], word
    library.shim_free.argtypes = library.shim_damaged.argtypes = [word, size]
    return library


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be launched. `sizes` are those of its parameters in bytes, `pointers` says which are; `threads`
    is the most that a block may have; `shared` the bytes of its shared memory."""

    name: str
    entry: int
    sizes: tuple[int, ...]
    pointers: tuple[bool, ...]
    threads: int
    shared: int

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        params: int,
        *,
        shared: int = 0,
        order: str | None = None,
        seed: int | None = None,
        tag: int = 0,
    ) -> None:
        """Run all blocks; KernelError. `params` is the address of an array of pointers to the parameters; `order` one
        of `ORDERS`, by default KILN_SHIM_ORDER or natural; the bits `tag` are taken away from pointers."""
        how = ORDERS[order or os.environ.get("KILN_SHIM_ORDER", "natural")]
        draw = int(os.environ.get("KILN_SHIM_SEED", "0")) if seed is None else seed
        size = (ctypes.c_uint * 7)(*grid, *block, shared)
        said = ctypes.create_string_buffer(512)
        status = runtime().shim_launch(self.entry, size, params, how, draw, tag, said, len(said))
        if status:
            raise KernelError(status, f"{self.name}: {said.value.decode()}")

    def __call__(self, blocks: int, threads: int, *args: int | float, **options: Any) -> None:
        """Launch on plain addresses and 64-bit numbers, which may also be the words of a table."""
        values = [ctypes.c_double(a) if isinstance(a, float) else ctypes.c_int64(a) for a in args]
        if len(self.sizes) == 1 < len(values):
            values = [(ctypes.c_int64 * len(values))(*args)]  # type: ignore[list-item]
        assert [ctypes.sizeof(v) for v in values] == list(self.sizes), f"{self.name} takes {self.sizes}"
        params = (ctypes.c_void_p * max(1, len(values)))(*(ctypes.addressof(v) for v in values))
        self.launch((blocks, 1, 1), (threads, 1, 1), ctypes.addressof(params), **options)


class Library:
    """A loaded library of kernels."""

    def __init__(self, path: Path) -> None:
        runtime()  # which it needs
        self._library = ctypes.PyDLL(str(path))

    def __getitem__(self, name: str) -> Kernel:
        """KeyError when there is no such kernel."""
        try:
            entry = _Entry.in_dll(self._library, f"shim_kernel_{name}")
        except ValueError:
            raise KeyError(name) from None
        shared = (entry.shared_end or 0) - (entry.shared_begin or 0)
        sizes, pointers = tuple(entry.sizes[: entry.count]), tuple(map(bool, entry.pointers[: entry.count]))
        return Kernel(name, ctypes.addressof(entry), sizes, pointers, entry.threads, shared)


@functools.cache
def loaded(path: Path) -> Library:
    return Library(path)


def allocate(nbytes: int, low: bool = False) -> int:
    """The address of memory between guard pages, full of 0xA5: it ends at one (but for less than 16 bytes), or begins
    at one (`low`)."""
    address = runtime().shim_allocate(nbytes, low)
    if not address:
        raise MemoryError(f"{nbytes} bytes")
    return int(address)


def damaged(address: int, nbytes: int) -> str | None:
    """What was written beside this memory, where no guard page is: "before" or "after"."""
    return (None, "before", "after")[runtime().shim_damaged(address, nbytes)]


def free(address: int, nbytes: int) -> None:
    """Whoever still uses it will fault."""
    runtime().shim_free(address, nbytes)
