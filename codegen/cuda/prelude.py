"""The CUDA C that generated kernels may call: header-free, shared with the CPU shim, only what is used is emitted.

`k_div_i64` and `k_mod_i64` divide indices, which mostly have 32 bits: that is several times faster. `k_get` and `k_put`
move neighbouring elements from place `at` on between memory and registers, 16 bytes at a time where all exist and lie
so that it can be (of those that don't exist not even the address is made); `k_fetch` asks for them in shared
memory, where they are after `k_arrive`. A kernel of several pieces has a `k_table` of its arguments, in which
`k_piece` finds the row of the last piece that begins at `block` or before; rows begin at `start`.

Kernels are compiled with `-fmad=false` and without flush-to-zero, so `a * b + c` is two rounded operations and
`fma` one. Division and square root use the intrinsics that are correctly rounded whatever the flags.
"""

from __future__ import annotations

from typing import Final

HELPERS: Final[dict[str, str]] = {
    "k_div_i64": """\
__device__ __forceinline__ long long k_div_i64(long long a, long long b)
{
    if (((unsigned long long)(a | b) >> 32) == 0 && b != 0) return (unsigned int)a / (unsigned int)b;
    return b == 0 ? 0 : b == -1 ? (long long)(0ull - (unsigned long long)a) : a / b;
}""",
    "k_mod_i64": """\
__device__ __forceinline__ long long k_mod_i64(long long a, long long b)
{
    if (((unsigned long long)(a | b) >> 32) == 0 && b != 0) return (unsigned int)a % (unsigned int)b;
    return b == 0 || b == -1 ? 0 : a % b;
}""",
    "k_f32_to_i64": """\
__device__ __forceinline__ long long k_f32_to_i64(float a)
{ return a >= -0x1p63f && a < 0x1p63f ? (long long)a : (long long)0x8000000000000000ull; }""",
    "k_f64_to_i64": """\
__device__ __forceinline__ long long k_f64_to_i64(double a)
{ return a >= -0x1p63 && a < 0x1p63 ? (long long)a : (long long)0x8000000000000000ull; }""",
    "k_f32_to_i32": """\
__device__ __forceinline__ int k_f32_to_i32(float a)
{
#ifdef __CUDA_ARCH__
    return a < 0x1p31f ? __float2int_rz(a) : (int)0x80000000u;  // which has the least integer for what is less
#else
    return a >= -0x1p31f && a < 0x1p31f ? (int)a : (int)0x80000000u;
#endif
}""",
    "k_f64_to_i32": """\
__device__ __forceinline__ int k_f64_to_i32(double a)
{ return a > -0x1.00000002p31 && a < 0x1p31 ? (int)a : (int)0x80000000u; }""",
    "k_pack": """\
template <class T, int N> struct __align__(sizeof(T) * N) k_pack { T at[N]; };""",
    "k_get": """\
template <int N, class T> __device__ __forceinline__ void k_get(T *to, const T *from, long long at, long long count)
{
    constexpr int M = N * sizeof(T) <= 16 ? N : 16 / sizeof(T);
    if (count >= N && (unsigned long long)(from + at) % (sizeof(T) * M) == 0) {
        #pragma unroll
        for (int k = 0; k < N; k += M) {
            const k_pack<T, M> all = *(const k_pack<T, M> *)(from + at + k);
            #pragma unroll
            for (int i = 0; i < M; i++) to[k + i] = all.at[i];
        }
    } else {
        #pragma unroll
        for (int k = 0; k < N; k++) to[k] = k < count ? from[at + k] : T();
    }
}""",
    "k_put": """\
template <int N, class T> __device__ __forceinline__ void k_put(const T *from, T *to, long long at, long long count)
{
    constexpr int M = N * sizeof(T) <= 16 ? N : 16 / sizeof(T);
    if (count >= N && (unsigned long long)(to + at) % (sizeof(T) * M) == 0) {
        #pragma unroll
        for (int k = 0; k < N; k += M) {
            k_pack<T, M> all;
            #pragma unroll
            for (int i = 0; i < M; i++) all.at[i] = from[k + i];
            *(k_pack<T, M> *)(to + at + k) = all;
        }
    } else {
        #pragma unroll
        for (int k = 0; k < N; k++) if (k < count) to[at + k] = from[k];
    }
}""",
    "k_fetch": """\
template <int N, class T> __device__ __forceinline__ void k_fetch(T *to, const T *from, long long at, long long count)
{
#ifdef __CUDA_ARCH__
    constexpr int M = N * sizeof(T) <= 16 ? N : 16 / sizeof(T), bytes = M * sizeof(T);
    if constexpr (bytes >= 4) {
        const unsigned int there = (unsigned int)__cvta_generic_to_shared(to);
        if (count >= N && ((unsigned long long)(from + at) | there) % bytes == 0) {
            #pragma unroll
            for (int k = 0; k < N; k += M)
                asm volatile("cp.async.ca.shared.global [%0], [%1], %2;"
                    :: "r"(there + k * (int)sizeof(T)), "l"(from + at + k), "n"(bytes) : "memory");
            return;
        }
    }
#endif
    #pragma unroll
    for (int k = 0; k < N; k++) if (k < count) to[k] = from[at + k];
}""",
    "k_arrive": """\
__device__ __forceinline__ void k_arrive()
{
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}""",
    "k_rank": """\
__device__ __forceinline__ long long k_rank(long long count, int *room, long long &total)
{
    const unsigned int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int upto = (int)count;
    #pragma unroll
    for (int k = 1; k < 32; k *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, upto, k);
        upto += lane >= k ? other : 0;
    }
    if (lane == 31) room[warp] = upto;
    __syncthreads();
    int before = 0, all = 0;
    for (unsigned int k = 0; k < blockDim.x >> 5; k++) {
        before += k < warp ? room[k] : 0;
        all += room[k];
    }
    total = all;
    return before + upto - count;
}""",
    "k_table": """\
template <int N> struct k_table { long long at[N]; };
template <int N> __device__ __forceinline__ int k_piece(const k_table<N> &table, long long block, int start, int width)
{
    int low = 0, high = (int)table.at[1];
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (table.at[start + middle * width] <= block) low = middle;
        else high = middle;
    }
    return start + low * width;
}""",
    "k_within": """\
__device__ __forceinline__ void k_within(long long first, long long count, long long low, long long high)
{ if (count > 0 && (first < low || first + count > high)) __trap(); }""",
    "k_fail": """\
__device__ __forceinline__ void k_fail(long long *error, long long site, long long value)
{ if (atomicCAS((unsigned long long *)error, 0ull, 1ull) == 0ull) { error[1] = site; error[2] = value; } }""",
}
"""Helper functions by name. `k_fail` records the first failed check of a launch."""
