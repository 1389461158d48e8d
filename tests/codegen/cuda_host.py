"""CUDA programs without a GPU: NVRTC compiles their text where it is installed, and a C++ compiler runs it on the CPU.

The shim runs block after block. The threads of a block are fibers: each runs until it meets the others at a barrier or
a warp exchange; threads that meet at different ones are an error.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib.util
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from kiln.ir.arena import place
from kiln.ir.gpu_program import (
    MOST_BLOCKS,
    OPTIONS,
    Branch,
    CudaProgram,
    CudaStep,
    CudaText,
    HostCall,
    Launch,
    Look,
    Loop,
    Memory,
    number,
)
from kiln.ir.program import LibraryCall, Place
from kiln.runtime.library import Performer

Array = np.ndarray[Any, Any]
COMPILER: Final = shutil.which("g++") or shutil.which("clang++")

SHIM: Final = r"""
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __shared__ static
struct float2 { float x, y; };
struct double2 { double x, y; };
static float2 make_float2(float x, float y) { return {x, y}; }
static double2 make_double2(double x, double y) { return {x, y}; }
struct Index { int x; };
static Index threadIdx, blockIdx, gridDim;

enum { RUNNING, BARRIER, EXCHANGE, DONE };
struct Fiber { ucontext_t context; int state; std::vector<char> stack; };
static std::vector<Fiber> fibers(1024);
static ucontext_t scheduler;
static int current, failed;
static unsigned long long exchanged[1024];
static void (*work)(long long *);
static long long *work_args;

static void meet(int state) {
    int me = current;
    fibers[me].state = state;
    swapcontext(&fibers[me].context, &scheduler);
    fibers[me].state = RUNNING;
}
#define __syncthreads() meet(BARRIER)
template <class T> static T __shfl_xor_sync(unsigned, T value, int mask) {
    std::memcpy(&exchanged[current], &value, sizeof(T));
    meet(EXCHANGE);
    T other;
    std::memcpy(&other, &exchanged[current ^ mask], sizeof(T));
    meet(EXCHANGE);
    return other;
}
static void enter() { work(work_args); meet(DONE); }

static void run_block(int threads) {
    for (int t = 0; t < threads; t++) {
        Fiber &f = fibers[t];
        f.stack.resize(1 << 17);
        f.state = RUNNING;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.data();
        f.context.uc_stack.ss_size = f.stack.size();
        f.context.uc_link = nullptr;
        makecontext(&f.context, enter, 0);
    }
    for (;;) {
        for (int t = 0; t < threads; t++) {
            current = t;
            threadIdx.x = t;
            swapcontext(&scheduler, &fibers[t].context);
        }
        for (int t = 1; t < threads; t++) if (fibers[t].state != fibers[0].state) { failed = 1; return; }
        if (fibers[0].state == DONE) return;
    }
}
static int launch(void (*kernel)(long long *), long long *args, long long blocks, int threads, int meets) {
    work = kernel; work_args = args; gridDim.x = (int)blocks; failed = 0;
    for (long long b = 0; b < blocks && !failed; b++) {
        blockIdx.x = (int)b;
        if (meets) run_block(threads);
        else for (int t = 0; t < threads; t++) { threadIdx.x = t; kernel(args); }
    }
    return failed;
}
template <class... P, std::size_t... I>
static void spread(void (*f)(P...), long long *a, std::index_sequence<I...>) { f((P)a[I]...); }
template <class... P> static void call(void (*f)(P...), long long *a) { spread(f, a, std::index_sequence_for<P...>()); }

static unsigned long long atomicCAS(unsigned long long *p, unsigned long long old, unsigned long long fresh) {
    unsigned long long found = *p;
    if (found == old) *p = fresh;
    return found;
}
template <class To, class From> static To same_bits(From x) { To y; std::memcpy(&y, &x, sizeof(To)); return y; }
static unsigned int __float_as_uint(float x) { return same_bits<unsigned int>(x); }
static int __float_as_int(float x) { return same_bits<int>(x); }
static float __uint_as_float(unsigned int x) { return same_bits<float>(x); }
static float __int_as_float(int x) { return same_bits<float>(x); }
static long long __double_as_longlong(double x) { return same_bits<long long>(x); }
static double __longlong_as_double(long long x) { return same_bits<double>(x); }
static float __fdiv_rn(float a, float b) { return a / b; }
static double __ddiv_rn(double a, double b) { return a / b; }
static float __fsqrt_rn(float a) { return std::sqrt(a); }
static double __dsqrt_rn(double a) { return std::sqrt(a); }
"""


def nvrtc() -> Any:
    """The NVRTC library, from KILN_NVRTC, the system, or NVIDIA's wheels; None where there is none."""
    candidates: list[str] = [p for p in (os.environ.get("KILN_NVRTC"), ctypes.util.find_library("nvrtc")) if p]
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        candidates += [str(p) for p in sorted(Path(root).glob("*/lib/libnvrtc.so.*"))]
    if not candidates:
        return None
    for builtins in sorted(Path(candidates[0]).parent.glob("libnvrtc-builtins.so.*")):
        if "alt" not in builtins.name:
            ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)  # which the library would look for elsewhere
    return ctypes.CDLL(candidates[0])


def compile_with_nvrtc(library: Any, source: str) -> None:
    """Compile for a current GPU, to machine code; AssertionError with the log when it fails."""
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kiln.cu", 0, None, None)
    options = [o.encode() for o in (*OPTIONS, "-arch=sm_80")]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    assert status == 0, log.value.decode() + "\n" + source


class Host:
    """Kernels of some programs, compiled for the CPU, and what runs the programs."""

    def __init__(self, programs: Iterable[CudaProgram], folder: Path) -> None:
        assert COMPILER is not None
        self.kernels = {k.name: k for p in programs for k in p.kernels}
        helpers = dict.fromkeys(h for k in self.kernels.values() for h in k.helpers)
        texts = [SHIM, *helpers, *(self._wrapped(k) for k in self.kernels.values())]
        source = "\n".join(texts)
        stem = hashlib.sha256(source.encode()).hexdigest()[:16]
        path, made = folder / f"{stem}.cpp", folder / f"{stem}.so"
        path.write_text(source)
        flags = ["-std=c++17", "-O1", "-w", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC"]
        subprocess.run([COMPILER, *flags, "-o", str(made), str(path)], check=True)
        self.library = ctypes.CDLL(str(made))

    def _wrapped(self, k: CudaText) -> str:
        meets = int("__syncthreads" in k.function or "__shfl" in k.function)
        call = f"launch([](long long *a) {{ call({k.name}, a); }}, args, blocks, {k.threads}, {meets})"
        return f'{k.function}extern "C" int run_{k.name}(long long *args, long long blocks) {{ return {call}; }}\n'

    def run(
        self, program: CudaProgram, inputs: Sequence[Array], sizes: Mapping[str, int] | None = None
    ) -> tuple[list[Array], tuple[int, int] | None]:
        """The outputs (of aliased ones the input) and the check that failed: its number and value. `inputs` lie as the
        program was told."""
        sizes = sizes or {}
        outputs = [np.full([number(d, sizes) for d in t.shape], 77).astype(t.dtype.numpy) for t in program.output_types]
        for o, i in program.aliases:
            outputs[o] = inputs[i]
        spare = [np.full(max(1, number(w.size, sizes)), 77).astype(w.dtype.numpy) for w in program.workspaces]
        constants = [np.ascontiguousarray(c.data) for c in program.constants]
        offsets, total = place(program.locals, sizes)
        arena = np.full(max(total, program.arena_bytes) + 64, 0xA5, np.uint8)
        error, moving = np.zeros(3, np.int64), [0] * program.pointers
        starts = {
            "input": addresses(inputs),
            "output": addresses(outputs),
            "constant": addresses(constants),
            "workspace": addresses(spare),
            "arena": addresses([arena]),
            "local": [arena.ctypes.data + offset for offset in offsets],
            "pointer": moving,
        }
        try:
            _Run(self, starts, moving, sizes, error).steps(program.steps)
        except _CheckFailed:
            return outputs, (int(error[1]), int(error[2]))
        assert not error[0], "a check failed and nobody has looked"
        return outputs, None


def addresses(arrays: Sequence[Array]) -> list[int]:
    return [x.ctypes.data for x in arrays]


class _CheckFailed(Exception):
    """A look at the error record has found something."""


class _Run:
    """Carries out steps."""

    def __init__(
        self, host: Host, starts: Mapping[str, list[int]], moving: list[int], sizes: Mapping[str, int], error: Array
    ) -> None:
        self.host, self.starts, self.moving, self.sizes, self.error = host, starts, moving, sizes, error

    def at(self, m: Memory) -> int:
        return self.starts[m.kind][m.index] + m.offset

    def true(self, m: Memory) -> bool:
        assert not self.error[0], "data are used after a failed check"
        return ctypes.c_uint8.from_address(self.at(m)).value != 0

    def steps(self, steps: Sequence[CudaStep]) -> None:
        for step in steps:
            match step:
                case Launch():
                    self.launch(step)
                case Look():
                    if self.error[0]:
                        raise _CheckFailed
                case HostCall():
                    self.call(step)
                case Branch():
                    self.steps(step.then if self.true(step.pred) else step.other)
                case Loop():
                    self.loop(step)

    def launch(self, launch: Launch) -> None:
        args = [self.at(a) if isinstance(a, Memory) else number(a, self.sizes) for a in launch.args]
        args.append(self.error.ctypes.data)
        blocks = min(number(launch.blocks, self.sizes), MOST_BLOCKS)
        run = getattr(self.host.library, f"run_{launch.kernel}")
        failed = run((ctypes.c_longlong * len(args))(*args), ctypes.c_longlong(blocks))
        assert not failed, f"{launch.kernel}: the threads of a block met at different barriers"

    def call(self, call: HostCall) -> None:
        assert not self.error[0], "data are used after a failed check"
        arrays = (*call.operands, *call.results)
        places = tuple(Place(k, 0, a.type, a.strides) for k, a in enumerate(arrays))
        count = len(call.operands)
        Performer(LibraryCall(call.op, call.attrs, places[:count], places[count:]))([self.at(a.memory) for a in arrays])

    def loop(self, loop: Loop) -> None:
        places = [(self.at(c.first), self.at(c.second)) for c in loop.carried]
        starts = [self.at(s.start) for s in loop.sliced]
        for c, (first, _) in zip(loop.carried, places, strict=True):
            self.moving[c.read], self.moving[c.written] = self.at(c.source), first
        for turn in itertools.count():
            if loop.pred is None and turn == loop.length:
                break
            at = loop.length - 1 - turn if loop.reverse else turn
            for s, start in zip(loop.sliced, starts, strict=True):
                self.moving[s.pointer] = start + at * s.pace
            self.steps(loop.test)
            if loop.pred is not None and not self.true(loop.pred):
                break
            self.steps(loop.body)
            for c, (first, second) in zip(loop.carried, places, strict=True):
                self.moving[c.read] = self.moving[c.written]
                self.moving[c.written] = second if self.moving[c.read] == first else first
        for c, (first, _) in zip(loop.carried, places, strict=True):
            if self.moving[c.read] != first:
                ctypes.memmove(first, self.moving[c.read], c.nbytes)
