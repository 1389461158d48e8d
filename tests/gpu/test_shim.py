"""The CPU shim finds what it is there for: missing and divergent barriers, overruns, wrong exchanges. In which order
threads run is not seen in what a right kernel stores."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kiln.codegen.cuda import tensor_cores
from kiln.ir import types as T
from kiln.ir.halves import converted
from tests.gpu import shim

pytestmark = pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))
ROOT = Path(__file__).resolve().parents[2]

HEAD = """extern "C" __global__ void __launch_bounds__(64, 1)
k(const float *x, float *y, const long long n)
{
    __shared__ float part[64];
    const long long t = threadIdx.x;
"""
REVERSED = HEAD + "part[t] = x[blockIdx.x * 64 + t]; BARRIER y[blockIdx.x * 64 + t] = part[63 - t]; }\n"
TWICE = HEAD + "part[t] = x[t]; __syncthreads(); float v = part[63 - t]; BARRIER part[t] = v; __syncthreads(); "
TWICE += "y[t] = part[t]; }\n"
SUM = (
    HEAD
    + """
    float v = x[blockIdx.x * 64 + t];
    for (int k = 16; k; k >>= 1) v += __shfl_xor_sync(0xffffffffu, v, k);
    if (t % 32 == 0) part[t / 32] = v;
    __syncthreads();
    if (t == 0) y[blockIdx.x] = part[0] + part[1];
}
"""
)


class Buffer:
    """An array in guarded memory."""

    def __init__(self, x: np.ndarray[Any, Any]) -> None:
        self.address, self.nbytes = shim.allocate(x.nbytes), x.nbytes
        memory = (shim.ctypes.c_char * x.nbytes).from_address(self.address)
        self.array = np.frombuffer(memory, x.dtype).reshape(x.shape)
        self.array[...] = x


def kernel(source: str, name: str = "k") -> shim.Kernel:
    return shim.loaded(shim.compiled(source))[name]


def floats(n: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=n).astype(np.float32)


def run(source: str, x: np.ndarray[Any, Any], size: int, order: str, blocks: int = 1, seed: int = 0) -> Any:
    given, made = Buffer(x), Buffer(np.full(size, 77, np.float32))
    kernel(source)(blocks, 64, given.address, made.address, x.size, order=order, seed=seed)
    return made.array.copy()


def wrong_orders(source: str, x: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> set[str]:
    return {order for order in shim.ORDERS if run(source, x, wanted.size, order).tobytes() != wanted.tobytes()}


# --------------------------------------------------------------------------------------------------- planted faults


def test_a_missing_barrier_after_a_write_is_found() -> None:
    x = floats(64)
    assert not wrong_orders(REVERSED.replace("BARRIER", "__syncthreads();"), x, x[::-1])
    assert wrong_orders(REVERSED.replace("BARRIER", ""), x, x[::-1]) == {"natural", "reverse", "shuffled"}


def test_a_missing_barrier_before_a_write_is_found() -> None:
    x = floats(64)
    assert not wrong_orders(TWICE.replace("BARRIER", "__syncthreads();"), x, x[::-1])
    assert wrong_orders(TWICE.replace("BARRIER", ""), x, x[::-1])


def test_shared_memory_is_not_what_the_block_before_left() -> None:
    source = HEAD + "if (blockIdx.x == 0) part[t] = x[t]; __syncthreads(); y[blockIdx.x * 64 + t] = part[t]; }\n"
    x = floats(64)
    made = run(source, x, 128, "natural", blocks=2)
    assert (made[:64] == x).all() and np.isnan(made[64:]).all()


def test_a_race_between_blocks_is_found() -> None:
    source = HEAD + "y[t] = blockIdx.x; }\n"
    assert len({run(source, floats(64), 64, order, blocks=9).tobytes() for order in shim.ORDERS}) > 1


@pytest.mark.parametrize(
    "body, said",
    [
        ("y[t] = x[t + 1];", "illegal memory access"),
        ("y[t + 1] = x[t];", "illegal memory access"),
        ("y[t] = x[t - 1024];", "illegal memory access"),
        ("y[t] = x[1ll << 45];", "illegal memory access"),
        ("part[t + 1] = x[t]; y[t] = part[t];", "beyond a shared or local array"),
        ("part[t] = x[t]; y[t] = part[t + 1];", "beyond a shared or local array"),
        ("if (t == 3) *(float4 *)(y + t) = *(const float4 *)(x + 4 * t);", "misaligned address|illegal memory access"),
        ("if (t == 3) *(float4 *)(y + 4 * t) = *(const float4 *)(x + t);", "misaligned address|illegal memory access"),
    ],
)
def test_overruns_are_errors_of_the_launch(body: str, said: str) -> None:
    for order in shim.ORDERS:
        with pytest.raises(shim.KernelError, match=said) as caught:
            run(HEAD + body + "}\n", floats(64), 64, order)
        assert re.search(r"^k: .*: block \(0, 0, 0\), thread \(\d+, 0, 0\), ", str(caught.value))
        assert caught.value.status == shim.ILLEGAL_ADDRESS
    assert (run(SUM, np.ones(64, np.float32), 1, "natural") == 64).all()  # and all goes on


def test_what_is_written_beside_small_memory_is_found() -> None:
    made = Buffer(np.zeros(1, np.float32))
    other = Buffer(floats(64))
    kernel(HEAD + "if (t < 2) y[t] = x[t]; }\n")(1, 64, other.address, made.address, 64)
    assert shim.damaged(made.address, made.nbytes) == "after"
    assert shim.damaged(other.address, other.nbytes) is None


def test_what_is_read_before_memory_is_found() -> None:
    before = kernel(HEAD + "y[t] = t < 4 ? x[t - 4] : 0; }\n")
    y = Buffer(floats(64))
    before(1, 64, shim.allocate(256), y.address, 64)
    with pytest.raises(shim.KernelError, match="illegal memory access"):
        before(1, 64, shim.allocate(256, low=True), y.address, 64)


def test_freed_memory_faults() -> None:
    x, y = Buffer(floats(64)), Buffer(floats(64))
    shim.free(x.address, x.nbytes)
    with pytest.raises(shim.KernelError, match="illegal memory access"):
        kernel(SUM)(1, 64, x.address, y.address, 64)


@pytest.mark.parametrize(
    "body, said",
    [
        ("if (t < 32) __syncthreads();", "ended before a barrier"),
        ("if (t < 32) {\n__syncthreads();\n} else {\n__syncthreads();\n}", "different barriers"),
        ("if (t < 7) y[t] = __shfl_xor_sync(0xffffffffu, x[t], 1); else __syncthreads();", "not all lanes"),
        ("if (t < 7) y[t] = __shfl_xor_sync(0xffffffffu, x[t], 8);", "has ended"),
        ("if (t < 8) y[t] = __shfl_xor_sync(0xffu, x[t], 8);", "leaves out"),
        ("if (t < 9) y[t] = __shfl_xor_sync(0xffu, x[t], 1);", "leaves it out"),
    ],
)
def test_threads_that_do_not_meet_are_an_error(body: str, said: str) -> None:
    for order in shim.ORDERS:
        with pytest.raises(shim.KernelError, match=said) as caught:
            run(HEAD + body + "}\n", floats(64), 64, order)
        assert caught.value.status == shim.LAUNCH_FAILURE


def test_the_host_still_dies_of_its_own_faults() -> None:
    """The handler of faults is a kernel's alone."""
    code = "import ctypes; from tests.gpu import test_shim as t; t.run(t.SUM, t.floats(64), 1, 'natural'); "
    dead = subprocess.run([sys.executable, "-c", code + "ctypes.string_at(8)"], cwd=ROOT, env=os.environ, check=False)
    assert dead.returncode == -11


# ------------------------------------------------------------------------------------------------------- what is right


def test_orders_give_the_same_bits() -> None:
    x = floats(64 * 50)
    for source in (SUM, REVERSED.replace("BARRIER", "__syncthreads();")):
        size = 50 if source is SUM else x.size
        runs = [run(source, x, size, order, blocks=50, seed=seed) for order in shim.ORDERS for seed in range(3)]
        assert len({made.tobytes() for made in runs}) == 1
    assert not np.isnan(runs[0]).any()


def test_orders_differ() -> None:
    """Each thread takes a number; every order gives every thread one."""
    source = HEAD + "unsigned *next = (unsigned *)y; y[1 + blockIdx.x * 64 + t] = atomicAdd(next, 1u); }\n"
    x = np.zeros(1, np.float32)

    def taken(order: str, seed: int = 0) -> list[float]:
        given, made = Buffer(x), Buffer(np.zeros(129, np.float32))
        kernel(source)(2, 64, given.address, made.address, 1, order=order, seed=seed)
        return list(made.array[1:])

    assert taken("natural") == list(range(128))
    assert taken("reverse") == list(range(128))[::-1]
    assert sorted(taken("shuffled")) == list(range(128)) != taken("shuffled")
    assert taken("shuffled", 1) != taken("shuffled", 2)


@pytest.mark.parametrize("count", [1, 7, 32, 33, 64])
def test_warps(count: int) -> None:
    """Exchanges by each function, in blocks of any size."""
    source = """extern "C" __global__ void __launch_bounds__(64)
    k(const long long *x, long long *y, const long long n)
    {
        const unsigned t = threadIdx.x, left = n - t / 32 * 32, all = left < 32 ? (1u << left) - 1 : ~0u;
        long long *row = y + 5 * t;
        row[0] = __shfl_sync(all, x[t], 0);
        row[1] = __shfl_up_sync(all, x[t], 1);
        row[2] = left < 32 ? t + 3 : __shfl_down_sync(all, x[t], 3);
        row[3] = __ballot_sync(all, x[t] % 2);
        row[4] = __any_sync(all, x[t] == 6) * 2 + __all_sync(all, x[t] >= 0);
        __syncwarp(all);
    }
    """
    x, y = Buffer(np.arange(count)), Buffer(np.zeros((count, 5), np.int64))
    for order in shim.ORDERS:
        kernel(source)(1, count, x.address, y.address, count, order=order)
        for t in range(count):
            first = t // 32 * 32
            odd = sum(1 << (k - first) for k in range(first, min(first + 32, count)) if k % 2)
            down = t if first + 32 <= count and t + 3 >= first + 32 else t + 3
            has_six = first <= 6 < min(first + 32, count)
            assert y.array[t].tolist() == [first, max(first, t - 1), down, odd, has_six * 2 + 1]


def test_grids_and_blocks_of_three_dimensions_and_dynamic_shared_memory() -> None:
    source = """extern "C" __global__ void k(int *y)
    {
        extern __shared__ __align__(16) int line[];
        const int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        const int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        line[t] = t + 100 * b;
        __syncthreads();
        y[b * 24 + t] = line[23 - t];
    }
    """
    y = Buffer(np.zeros(24 * 24, np.int32))
    value = shim.ctypes.c_void_p(y.address)
    params = (shim.ctypes.c_void_p * 1)(shim.ctypes.addressof(value))
    for order in shim.ORDERS:
        y.array[...] = 0
        kernel(source).launch((4, 3, 2), (2, 3, 4), shim.ctypes.addressof(params), shared=96, order=order)
        assert y.array.tolist() == [23 - t + 100 * b for b in range(24) for t in range(24)]
    with pytest.raises(shim.KernelError, match="illegal memory access"):
        kernel(source).launch((1, 1, 1), (2, 3, 4), shim.ctypes.addressof(params), shared=80)


def test_a_product_and_a_sum_are_fused_only_where_that_is_allowed() -> None:
    source = """extern "C" __global__ void k(const double *x, double *y) { y[0] = x[0] * x[0] - x[1]; }\n"""
    a = 1 + 2.0**-30
    x, y = Buffer(np.array([a, a * a])), Buffer(np.zeros(1))
    shim.loaded(shim.compiled(source))["k"](1, 1, x.address, y.address)
    assert y.array[0] == 0
    if "-mfma" in shim._machine_flags():
        shim.loaded(shim.compiled(source, contract=True))["k"](1, 1, x.address, y.address)
        assert y.array[0] == 2.0**-60


def test_what_no_gpu_knows_is_refused() -> None:
    for text in ("return INFINITY;", "return 1", "memcpy(0, 0, 0); return 0;"):
        with pytest.raises(shim.CompileError, match=r"here\.cu:2:"):
            shim.compiled("\n__device__ float f() { " + text + " }\n", name="here.cu")
    with pytest.raises(KeyError):
        kernel(SUM, "other")


def test_a_library_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KILN_SHIM_CACHE", str(tmp_path))
    calls = []
    ran = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: calls.append(a) or ran(*a, **k))
    source = SUM.replace("64, 1", "64, 2")
    assert shim.compiled(source) == shim.compiled(source)
    assert len(calls) == 1
    assert [p.suffix for p in (tmp_path / "kiln-cpu-shim").iterdir()] == [".so"]


@pytest.mark.slow
def test_fibers_of_any_machine() -> None:
    """Where there is no x86-64, ucontext switches threads."""
    code = """import tests.gpu.shim as shim
read, shim._prelude = shim._prelude, lambda: "#define SHIM_UCONTEXT 1\\n" + read()
import tests.gpu.test_shim as t
t.test_orders_give_the_same_bits(); t.test_warps(33); t.test_orders_differ()
t.test_overruns_are_errors_of_the_launch("y[t] = x[t + 1];", "illegal memory access")
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=True)


# ---------------------------------------------------------------------------------- what kernels have assembly for

PRODUCT = """extern "C" __global__ void __launch_bounds__(32, 1)
k(const unsigned short *a, const unsigned short *b, const unsigned short *turned, float *y, const long long n)
{
    __align__(16) __shared__ unsigned short tiles[48][24];
    const int lane = threadIdx.x;
    for (int e = lane; e < 96; e += 32) {
        const unsigned short *from = e < 32 ? a : e < 64 ? b : turned;
        k_copy_start(__cvta_generic_to_shared(&tiles[e / 2][e % 2 * 8]), from + e % 32 * 8, true);
    }
    k_copy_start(__cvta_generic_to_shared(&tiles[lane][16]), nullptr, false);
    k_copies_end();
    __syncthreads();
    unsigned left[4], right[4], other[4];
    float sum[2][4] = {};
    k_matrices(left, __cvta_generic_to_shared(&tiles[lane % 16][lane / 16 * 8]));
    k_matrices(right, __cvta_generic_to_shared(&tiles[16 + lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]));
    k_matrices_turned(other, __cvta_generic_to_shared(&tiles[32 + lane % 16][lane / 16 * 8]));
    for (int half = 0; half < 2; half++) {
        k_mma_TYPE(sum[half], left, right[2 * half], right[2 * half + 1]);
        k_mma_TYPE(sum[half], left, other[2 * half], other[2 * half + 1]);
        for (int e = 0; e < 4; e++)
            y[(lane / 4 + e / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + e % 2] = sum[half][e];
    }
    y[256 + lane] = tiles[lane][16 + lane % 8];
}
"""
NUMBERS = """extern "C" __global__ void __launch_bounds__(64, 1)
k(const float *x, float *y, const long long n)
{
    for (int e = threadIdx.x; e < n; e += 64) {
        ((unsigned *)y)[e] = k_pair_TYPE(x[e], -x[e]);
        y[n + e] = k_exp2(x[e]);
    }
}
"""


@pytest.mark.parametrize("dtype", [T.float16, T.bfloat16], ids=str)
def test_products_of_fragments_are_products_of_matrices(dtype: T.DType) -> None:
    """a @ b' + a @ turned, of small numbers, whose sums are exact; and zeros where a copy has nothing to copy."""
    rng = np.random.default_rng(0)
    a, b, turned = (rng.integers(-8, 9, (16, 16)).astype(dtype.numpy) for _ in range(3))
    source = tensor_cores.products(dtype.name) + "\n" + tensor_cores.ASSEMBLY + "\n"
    wanted = a.astype(np.float32) @ b.astype(np.float32).T + a.astype(np.float32) @ turned.astype(np.float32)
    for order in shim.ORDERS:
        given, made = [Buffer(x.view(np.uint16)) for x in (a, b, turned)], Buffer(np.full(288, 77, np.float32))
        run_one = kernel(source + PRODUCT.replace("TYPE", dtype.name))
        run_one(1, 32, *(x.address for x in given), made.address, 0, order=order)
        assert (made.array[:256].reshape(16, 16) == wanted).all() and not made.array[256:].any()


@pytest.mark.parametrize("dtype", [T.float16, T.bfloat16], ids=str)
def test_pairs_are_rounded_once(dtype: T.DType) -> None:
    edges = [
        0,
        1,
        1 + 2.0**-11,
        1 + 3 * 2.0**-11,
        1 + 2.0**-8,
        65519.9,
        65520,
        2.0**-24,
        2.0**-25,
        3 * 2.0**-26,
        1e30,
        np.inf,
    ]
    x = np.concatenate([np.array(edges, np.float32), floats(200) * np.float32(9)])
    source = tensor_cores.products(dtype.name) + "\n" + tensor_cores.ASSEMBLY + "\n"
    made = run(source + NUMBERS.replace("TYPE", dtype.name), x, 2 * x.size, "natural")
    with np.errstate(over="ignore"):
        low, high = (converted(v, dtype).view(np.uint16).astype(np.uint32) for v in (x, -x))
        powers = np.exp2(x.astype(np.float64)).astype(np.float32)
    assert (made[: x.size].view(np.uint32) == low + (high << 16)).all()
    assert np.allclose(made[x.size :], powers, rtol=1e-6, atol=0)
