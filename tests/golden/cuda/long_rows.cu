__device__ __forceinline__ long long k_div_i64(long long a, long long b)
{
    if (((unsigned long long)(a | b) >> 32) == 0 && b != 0) return (unsigned int)a / (unsigned int)b;
    return b == 0 ? 0 : b == -1 ? (long long)(0ull - (unsigned long long)a) : a / b;
}
extern "C" __global__ void __launch_bounds__(64, 1)
k_long_rows(const float *in0, float *out0)
{
    const long long thread1 = threadIdx.x;
    __align__(16) __shared__ float meet0[4];
    for (long long group2 = blockIdx.x; group2 < 3ll; group2 += gridDim.x) {
        float acc4[4];
        float sum31 = -0.0f;
        for (long long round6 = 0ll; round6 < 9001ll; round6 += 16384) {
            #pragma unroll
            for (long long cell5 = 0ll; cell5 < 4ll; cell5 += 1) {
                acc4[cell5] = -0.0f;
            }
            const long long t1 = thread1 & 63ll;
            const long long t2 = t1 >> 4ll;
            const long long t3 = (long long)((unsigned long long)t2 * (unsigned long long)4096ll);
            const long long t4 = (long long)((unsigned long long)round6 + (unsigned long long)t3);
            const long long t5 = (long long)((unsigned long long)t4 + (unsigned long long)4096ll);
            const long long t6 = t5 < 9001ll ? t5 : 9001ll;
            const long long t7 = (long long)((unsigned long long)t6 - (unsigned long long)t4);
            const long long t8 = t7 > 0ll ? t7 : 0ll;
            const long long t9 = (long long)k_div_i64(t8, 512ll);
            const long long t10 = (long long)((unsigned long long)t9 * (unsigned long long)512ll);
            const long long t11 = (long long)((unsigned long long)t4 + (unsigned long long)t10);
            for (long long base9 = t4; base9 < t11; base9 += 512) {
                const long long t12 = thread1 & 63ll;
                const long long t13 = t12 & 15ll;
                const long long t14 = (long long)((unsigned long long)base9 + (unsigned long long)t13);
                float in0_part13[32];
                #pragma unroll
                for (long long step11 = 0ll; step11 < 8ll; step11 += 1) {
                    #pragma unroll
                    for (long long cell12 = 0ll; cell12 < 4ll; cell12 += 1) {
                        const long long t15 = (long long)((unsigned long long)step11 * (unsigned long long)4ll);
                        const long long t16 = (long long)((unsigned long long)t15 + (unsigned long long)cell12);
                        const long long t17 = (long long)((unsigned long long)group2 * (unsigned long long)9001ll);
                        const long long t18 = (long long)((unsigned long long)step11 * (unsigned long long)64ll);
                        const long long t19 = (long long)((unsigned long long)t14 + (unsigned long long)t18);
                        const long long t20 = (long long)((unsigned long long)cell12 * (unsigned long long)16ll);
                        const long long t21 = (long long)((unsigned long long)t19 + (unsigned long long)t20);
                        const long long t22 = (long long)((unsigned long long)t17 + (unsigned long long)t21);
                        const float t23 = in0[t22];
                        in0_part13[t16] = t23;
                    }
                }
                #pragma unroll
                for (long long step11 = 0ll; step11 < 8ll; step11 += 1) {
                    #pragma unroll
                    for (long long cell12 = 0ll; cell12 < 4ll; cell12 += 1) {
                        const float t24 = acc4[cell12];
                        const long long t25 = (long long)((unsigned long long)step11 * (unsigned long long)4ll);
                        const long long t26 = (long long)((unsigned long long)t25 + (unsigned long long)cell12);
                        const float t27 = in0_part13[t26];
                        const float t28 = t24 + t27;
                        acc4[cell12] = t28;
                    }
                }
            }
            const long long t29 = (long long)((unsigned long long)t4 + (unsigned long long)4096ll);
            const long long t30 = t29 < 9001ll ? t29 : 9001ll;
            for (long long base15 = t11; base15 < t30; base15 += 512) {
                const long long t31 = thread1 & 63ll;
                const long long t32 = t31 & 15ll;
                const long long t33 = (long long)((unsigned long long)base15 + (unsigned long long)t32);
                float in0_part19[32];
                #pragma unroll
                for (long long step17 = 0ll; step17 < 8ll; step17 += 1) {
                    #pragma unroll
                    for (long long cell18 = 0ll; cell18 < 4ll; cell18 += 1) {
                        const long long t34 = (long long)((unsigned long long)step17 * (unsigned long long)4ll);
                        const long long t35 = (long long)((unsigned long long)t34 + (unsigned long long)cell18);
                        const long long t36 = (long long)((unsigned long long)step17 * (unsigned long long)64ll);
                        const long long t37 = (long long)((unsigned long long)t33 + (unsigned long long)t36);
                        const long long t38 = (long long)((unsigned long long)cell18 * (unsigned long long)16ll);
                        const long long t39 = (long long)((unsigned long long)t37 + (unsigned long long)t38);
                        const long long t40 = (long long)((unsigned long long)t4 + (unsigned long long)4096ll);
                        const long long t41 = t40 < 9001ll ? t40 : 9001ll;
                        const bool t42 = t39 < t41;
                        const long long t43 = (long long)((unsigned long long)group2 * (unsigned long long)9001ll);
                        const long long t44 = (long long)((unsigned long long)t43 + (unsigned long long)t39);
                        const float t45 = t42 ? in0[t44] : 0.0f;
                        in0_part19[t35] = t45;
                    }
                }
                #pragma unroll
                for (long long step17 = 0ll; step17 < 8ll; step17 += 1) {
                    #pragma unroll
                    for (long long cell18 = 0ll; cell18 < 4ll; cell18 += 1) {
                        const long long t46 = (long long)((unsigned long long)step17 * (unsigned long long)64ll);
                        const long long t47 = (long long)((unsigned long long)t33 + (unsigned long long)t46);
                        const long long t48 = (long long)((unsigned long long)cell18 * (unsigned long long)16ll);
                        const long long t49 = (long long)((unsigned long long)t47 + (unsigned long long)t48);
                        const long long t50 = (long long)((unsigned long long)t4 + (unsigned long long)4096ll);
                        const long long t51 = t50 < 9001ll ? t50 : 9001ll;
                        const bool t52 = t49 < t51;
                        if (t52) {
                            const float t53 = acc4[cell18];
                            const long long t54 = (long long)((unsigned long long)step17 * (unsigned long long)4ll);
                            const long long t55 = (long long)((unsigned long long)t54 + (unsigned long long)cell18);
                            const float t56 = in0_part19[t55];
                            const float t57 = t53 + t56;
                            acc4[cell18] = t57;
                        }
                    }
                }
            }
            const float t58 = acc4[0ll];
            const float t59 = acc4[1ll];
            const float t60 = t58 + t59;
            const float t61 = acc4[2ll];
            const float t62 = acc4[3ll];
            const float t63 = t61 + t62;
            const float t64 = t60 + t63;
            const float t65 = __shfl_xor_sync(0xffffffffu, t64, 8);
            const float t66 = t64 + t65;
            const float t67 = __shfl_xor_sync(0xffffffffu, t66, 4);
            const float t68 = t66 + t67;
            const float t69 = __shfl_xor_sync(0xffffffffu, t68, 2);
            const float t70 = t68 + t69;
            const float t71 = __shfl_xor_sync(0xffffffffu, t70, 1);
            const long long t72 = thread1 & 63ll;
            const long long t73 = t72 & 15ll;
            const bool t74 = t73 == 0ll;
            if (t74) {
                const long long t75 = t72 >> 4ll;
                const float t76 = t70 + t71;
                meet0[t75] = t76;
            }
            __syncthreads();
            float sums33 = sum31;
            #pragma unroll
            for (long long team32 = 0ll; team32 < 4ll; team32 += 1) {
                const float t77 = meet0[team32];
                const float t78 = sums33 + t77;
                sums33 = t78;
            }
            __syncthreads();
            sum31 = sums33;
        }
        const bool t79 = 9001ll == 0ll;
        const float t80 = t79 ? 0.0f : sum31;
        const long long t81 = thread1 & 63ll;
        const bool t82 = t81 == 0ll;
        if (t82) {
            out0[group2] = t80;
        }
    }
}
