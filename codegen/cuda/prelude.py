"""The CUDA C that generated kernels may call: header-free, shared with the CPU shim, only what is used is emitted.

`k_div_i64` and `k_mod_i64` divide indices, which mostly have 32 bits: that is several times faster. `k_get` and `k_put`
move neighbouring elements between memory and registers in one access where all exist and lie so that it can be.

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
{ return a >= -0x1p31f && a < 0x1p31f ? (int)a : (int)0x80000000u; }""",
    "k_f64_to_i32": """\
__device__ __forceinline__ int k_f64_to_i32(double a)
{ return a > -0x1.00000002p31 && a < 0x1p31 ? (int)a : (int)0x80000000u; }""",
    "k_pack": """\
template <class T, int N> struct __align__(sizeof(T) * N) k_pack { T at[N]; };""",
    "k_get": """\
template <class T, int N> __device__ __forceinline__ void k_get(T (&to)[N], const T *from, long long count)
{
    if (count >= N && (unsigned long long)from % (sizeof(T) * N) == 0) {
        const k_pack<T, N> all = *(const k_pack<T, N> *)from;
        #pragma unroll
        for (int k = 0; k < N; k++) to[k] = all.at[k];
    } else {
        #pragma unroll
        for (int k = 0; k < N; k++) to[k] = k < count ? from[k] : T();
    }
}""",
    "k_put": """\
template <class T, int N> __device__ __forceinline__ void k_put(const T (&from)[N], T *to, long long count)
{
    if (count >= N && (unsigned long long)to % (sizeof(T) * N) == 0) {
        k_pack<T, N> all;
        #pragma unroll
        for (int k = 0; k < N; k++) all.at[k] = from[k];
        *(k_pack<T, N> *)to = all;
    } else {
        #pragma unroll
        for (int k = 0; k < N; k++) if (k < count) to[k] = from[k];
    }
}""",
    "k_fail": """\
__device__ __forceinline__ void k_fail(long long *error, long long site, long long value)
{ if (atomicCAS((unsigned long long *)error, 0ull, 1ull) == 0ull) { error[1] = site; error[2] = value; } }""",
}
"""Helper functions by name. `k_fail` records the first failed check of a launch."""
