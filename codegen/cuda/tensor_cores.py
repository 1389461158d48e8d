"""What kernels need of a GPU's tensor cores, as device functions of one instruction each: products of 16 x 8 results
over 16 elements (mma.sync), fragments from shared memory, and copies to it that go on meanwhile (cp.async).

Lane 4 * g + t of a warp has elements 2 * t and 2 * t + 1 of rows g and g + 8: of results, and of what is multiplied.
"""

from __future__ import annotations

from typing import Final

_PRODUCT: Final = """\
__device__ __forceinline__ void k_mma_{name}(float (&sum)[4], const unsigned (&a)[4], unsigned b, unsigned c)
{{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.{type}.{type}.f32 "
                 "{{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(c));
}}
__device__ __forceinline__ unsigned k_pair_{name}(float low, float high)
{{
    unsigned both;
    asm("cvt.rn.{type}x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}}"""

ASSEMBLY: Final = """\
__device__ __forceinline__ void k_matrices(unsigned (&to)[4], unsigned long long row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)row) : "memory");
}
__device__ __forceinline__ void k_matrices_turned(unsigned (&to)[4], unsigned long long row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)row) : "memory");
}
__device__ __forceinline__ void k_copy_start(unsigned long long to, const unsigned short *from, bool exists)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((unsigned)to), "l"(from), "r"(exists ? 16 : 0) : "memory");
}
__device__ __forceinline__ void k_copies_group()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
__device__ __forceinline__ void k_copies_but_last()
{
    asm volatile("cp.async.wait_group 1;" ::: "memory");
}
__device__ __forceinline__ void k_copies_end()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}"""
"""One instruction each. `k_matrices`: lane i gives the address of row i % 8 of the i / 8-th of four matrices 8 x 8, and
gets elements 2 * t, 2 * t + 1 of row g of each; `_turned`: of their transposes. `k_copy_start` copies 16 bytes, or puts
zeros; `k_copies_end` waits for those of this thread, `k_copies_but_last` for all but the last group of them. The CPU
shim has functions of its own for them."""


def products(dtype: str) -> str:
    """The instructions of one 16-bit type."""
    return _PRODUCT.format(name=dtype, type={"float16": "f16", "bfloat16": "bf16"}[dtype])
