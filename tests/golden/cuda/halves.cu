__device__ __forceinline__ long long k_mod_i64(long long a, long long b)
{
    if (((unsigned long long)(a | b) >> 32) == 0 && b != 0) return (unsigned int)a % (unsigned int)b;
    return b == 0 || b == -1 ? 0 : a % b;
}
extern "C" __global__ void __launch_bounds__(64, 1)
k_halves(const unsigned short *in0, const double *in1, unsigned short *out0)
{
    const long long thread2 = threadIdx.x;
    __align__(16) __shared__ float meet0[64];
    for (long long row1 = blockIdx.x; row1 < 4ll; row1 += gridDim.x) {
        float total17 = -0.0f;
        for (long long start3 = 0ll; start3 < 50ll; start3 += 4096) {
            const long long t1 = (long long)((unsigned long long)start3 + (unsigned long long)thread2);
            const long long t2 = (long long)((unsigned long long)start3 + (unsigned long long)4096ll);
            const long long t3 = t2 < 50ll ? t2 : 50ll;
            float acc5 = -0.0f;
            for (long long r_1 = t1; r_1 < t3; r_1 += 64) {
                const long long t4 = (long long)((unsigned long long)row1 * (unsigned long long)50ll);
                const long long t5 = (long long)((unsigned long long)t4 + (unsigned long long)r_1);
                const unsigned short t6 = in0[t5];
                const unsigned short t7 = (unsigned short)t6;
                const unsigned int t8 = (unsigned int)t7;
                const unsigned int t9 = (unsigned int)((unsigned int)t8 << 16u);
                const float t10 = __uint_as_float(t9);
                const float t11 = t10;
                const unsigned short t12 = (unsigned short)t6;
                const unsigned int t13 = (unsigned int)t12;
                const unsigned int t14 = (unsigned int)((unsigned int)t13 << 16u);
                const float t15 = __uint_as_float(t14);
                const float t16 = t15;
                const float t17 = t11 * t16;
                const bool t18 = t17 != t17;
                const unsigned int t19 = __float_as_uint(t17);
                const unsigned int t20 = t19 | 4194304u;
                const unsigned int t21 = t19 + 32767u;
                const unsigned int t22 = t19 >> 16u;
                const unsigned int t23 = t22 & 1u;
                const unsigned int t24 = t21 + t23;
                const unsigned int t25 = t18 ? t20 : t24;
                const unsigned int t26 = t25 >> 16u;
                const unsigned short t27 = (unsigned short)t26;
                const unsigned short t28 = (unsigned short)t27;
                const unsigned short t29 = t28;
                const unsigned short t30 = (unsigned short)t29;
                const unsigned int t31 = (unsigned int)t30;
                const unsigned int t32 = (unsigned int)((unsigned int)t31 << 16u);
                const float t33 = __uint_as_float(t32);
                const float t34 = t33;
                const float t35 = acc5 + t34;
                acc5 = t35;
            }
            meet0[thread2] = acc5;
            __syncthreads();
            const long long t36 = (long long)k_mod_i64(thread2, 16ll);
            const float t37 = meet0[t36];
            const long long t38 = (long long)((unsigned long long)t36 + (unsigned long long)16ll);
            const float t39 = meet0[t38];
            const float t40 = t37 + t39;
            const long long t41 = (long long)((unsigned long long)t36 + (unsigned long long)32ll);
            const float t42 = meet0[t41];
            const long long t43 = (long long)((unsigned long long)t36 + (unsigned long long)48ll);
            const float t44 = meet0[t43];
            const float t45 = t42 + t44;
            const float t46 = t40 + t45;
            const float t47 = __shfl_xor_sync(0xffffffffu, t46, 8);
            const float t48 = t46 + t47;
            const float t49 = __shfl_xor_sync(0xffffffffu, t48, 4);
            const float t50 = t48 + t49;
            const float t51 = __shfl_xor_sync(0xffffffffu, t50, 2);
            const float t52 = t50 + t51;
            const float t53 = __shfl_xor_sync(0xffffffffu, t52, 1);
            const float t54 = t52 + t53;
            __syncthreads();
            const bool t55 = thread2 == 0ll;
            if (t55) {
                meet0[0ll] = t54;
            }
            __syncthreads();
            const float t56 = meet0[0ll];
            __syncthreads();
            const float t57 = total17 + t56;
            total17 = t57;
        }
        const bool t58 = 50ll == 0ll;
        const float t59 = t58 ? 0.0f : total17;
        const bool t60 = t59 != t59;
        const unsigned int t61 = __float_as_uint(t59);
        const unsigned int t62 = t61 | 4194304u;
        const unsigned int t63 = t61 + 32767u;
        const unsigned int t64 = t61 >> 16u;
        const unsigned int t65 = t64 & 1u;
        const unsigned int t66 = t63 + t65;
        const unsigned int t67 = t60 ? t62 : t66;
        const unsigned int t68 = t67 >> 16u;
        const unsigned short t69 = (unsigned short)t68;
        const unsigned short t70 = (unsigned short)t69;
        const unsigned short t71 = t70;
        const double t72 = in1[row1];
        const float t73 = (float)t72;
        const unsigned int t74 = __float_as_uint(t73);
        const double t75 = (double)t73;
        const double t76 = fabs(t75);
        const double t77 = fabs(t72);
        const bool t78 = t76 > t77;
        const unsigned int t79 = (unsigned int)t78;
        const unsigned int t80 = t74 - t79;
        const bool t81 = t75 != t72;
        const unsigned int t82 = (unsigned int)t81;
        const unsigned int t83 = t80 | t82;
        const float t84 = __uint_as_float(t83);
        const bool t85 = t84 != t84;
        const unsigned int t86 = __float_as_uint(t84);
        const unsigned int t87 = t86 | 4194304u;
        const unsigned int t88 = t86 + 32767u;
        const unsigned int t89 = t86 >> 16u;
        const unsigned int t90 = t89 & 1u;
        const unsigned int t91 = t88 + t90;
        const unsigned int t92 = t85 ? t87 : t91;
        const unsigned int t93 = t92 >> 16u;
        const unsigned short t94 = (unsigned short)t93;
        const unsigned short t95 = (unsigned short)t94;
        const unsigned short t96 = t95;
        const unsigned short t97 = (unsigned short)t71;
        const unsigned int t98 = (unsigned int)t97;
        const unsigned int t99 = (unsigned int)((unsigned int)t98 << 16u);
        const float t100 = __uint_as_float(t99);
        const float t101 = t100;
        const unsigned short t102 = (unsigned short)t96;
        const unsigned int t103 = (unsigned int)t102;
        const unsigned int t104 = (unsigned int)((unsigned int)t103 << 16u);
        const float t105 = __uint_as_float(t104);
        const float t106 = t105;
        const float t107 = t101 + t106;
        const bool t108 = t107 != t107;
        const unsigned int t109 = __float_as_uint(t107);
        const unsigned int t110 = t109 | 4194304u;
        const unsigned int t111 = t109 + 32767u;
        const unsigned int t112 = t109 >> 16u;
        const unsigned int t113 = t112 & 1u;
        const unsigned int t114 = t111 + t113;
        const unsigned int t115 = t108 ? t110 : t114;
        const unsigned int t116 = t115 >> 16u;
        const unsigned short t117 = (unsigned short)t116;
        const unsigned short t118 = (unsigned short)t117;
        const unsigned short t119 = t118;
        const bool t120 = thread2 == 0ll;
        if (t120) {
            out0[row1] = t119;
        }
    }
}
