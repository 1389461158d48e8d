extern "C" __global__ void __launch_bounds__(32, 1)
k_halves(const unsigned short *in0, const double *in1, unsigned short *out0)
{
    const long long thread1 = threadIdx.x;
    for (long long group2 = blockIdx.x; group2 < 1ll; group2 += gridDim.x) {
        const long long t1 = (long long)((unsigned long long)group2 * (unsigned long long)4ll);
        const long long t2 = thread1 >> 3ll;
        const long long t3 = (long long)((unsigned long long)t1 + (unsigned long long)t2);
        float acc4[8];
        #pragma unroll
        for (long long cell5 = 0ll; cell5 < 8ll; cell5 += 1) {
            acc4[cell5] = -0.0f;
        }
        for (long long base6 = 0ll; base6 < 50ll; base6 += 64) {
            const long long t4 = thread1 & 7ll;
            const long long t5 = t4 & 7ll;
            const long long t6 = (long long)((unsigned long long)base6 + (unsigned long long)t5);
            unsigned short in0_part10[8];
            #pragma unroll
            for (long long step8 = 0ll; step8 < 1ll; step8 += 1) {
                #pragma unroll
                for (long long cell9 = 0ll; cell9 < 8ll; cell9 += 1) {
                    const long long t7 = (long long)((unsigned long long)step8 * (unsigned long long)8ll);
                    const long long t8 = (long long)((unsigned long long)t7 + (unsigned long long)cell9);
                    const long long t9 = (long long)((unsigned long long)step8 * (unsigned long long)64ll);
                    const long long t10 = (long long)((unsigned long long)t6 + (unsigned long long)t9);
                    const long long t11 = (long long)((unsigned long long)cell9 * (unsigned long long)8ll);
                    const long long t12 = (long long)((unsigned long long)t10 + (unsigned long long)t11);
                    const bool t13 = t12 < 50ll;
                    const long long t14 = (long long)((unsigned long long)t3 * (unsigned long long)50ll);
                    const long long t15 = (long long)((unsigned long long)t14 + (unsigned long long)t12);
                    const unsigned short t16 = t13 ? in0[t15] : (unsigned short)0x0;
                    in0_part10[t8] = t16;
                }
            }
            #pragma unroll
            for (long long step8 = 0ll; step8 < 1ll; step8 += 1) {
                #pragma unroll
                for (long long cell9 = 0ll; cell9 < 8ll; cell9 += 1) {
                    const long long t17 = (long long)((unsigned long long)step8 * (unsigned long long)64ll);
                    const long long t18 = (long long)((unsigned long long)t6 + (unsigned long long)t17);
                    const long long t19 = (long long)((unsigned long long)cell9 * (unsigned long long)8ll);
                    const long long t20 = (long long)((unsigned long long)t18 + (unsigned long long)t19);
                    const bool t21 = t20 < 50ll;
                    if (t21) {
                        const long long t22 = (long long)((unsigned long long)step8 * (unsigned long long)8ll);
                        const long long t23 = (long long)((unsigned long long)t22 + (unsigned long long)cell9);
                        const unsigned short t24 = in0_part10[t23];
                        const unsigned short t25 = (unsigned short)t24;
                        const unsigned int t26 = (unsigned int)t25;
                        const unsigned int t27 = (unsigned int)((unsigned int)t26 << 16u);
                        const float t28 = __uint_as_float(t27);
                        const float t29 = t28;
                        const unsigned short t30 = (unsigned short)t24;
                        const unsigned int t31 = (unsigned int)t30;
                        const unsigned int t32 = (unsigned int)((unsigned int)t31 << 16u);
                        const float t33 = __uint_as_float(t32);
                        const float t34 = t33;
                        const float t35 = t29 * t34;
                        const bool t36 = t35 != t35;
                        const unsigned int t37 = __float_as_uint(t35);
                        const unsigned int t38 = t37 | 4194304u;
                        const unsigned int t39 = t37 + 32767u;
                        const unsigned int t40 = t37 >> 16u;
                        const unsigned int t41 = t40 & 1u;
                        const unsigned int t42 = t39 + t41;
                        const unsigned int t43 = t36 ? t38 : t42;
                        const unsigned int t44 = t43 >> 16u;
                        const unsigned short t45 = (unsigned short)t44;
                        const unsigned short t46 = (unsigned short)t45;
                        const unsigned short t47 = t46;
                        const float t48 = acc4[cell9];
                        const unsigned short t49 = (unsigned short)t47;
                        const unsigned int t50 = (unsigned int)t49;
                        const unsigned int t51 = (unsigned int)((unsigned int)t50 << 16u);
                        const float t52 = __uint_as_float(t51);
                        const float t53 = t52;
                        const float t54 = t48 + t53;
                        acc4[cell9] = t54;
                    }
                }
            }
        }
        const float t55 = acc4[0ll];
        const float t56 = acc4[2ll];
        const float t57 = t55 + t56;
        const float t58 = acc4[4ll];
        const float t59 = acc4[6ll];
        const float t60 = t58 + t59;
        const float t61 = t57 + t60;
        const float t62 = acc4[1ll];
        const float t63 = acc4[3ll];
        const float t64 = t62 + t63;
        const float t65 = acc4[5ll];
        const float t66 = acc4[7ll];
        const float t67 = t65 + t66;
        const float t68 = t64 + t67;
        const float t69 = t61 + t68;
        const float t70 = __shfl_xor_sync(0xffffffffu, t69, 4);
        const float t71 = t69 + t70;
        const float t72 = __shfl_xor_sync(0xffffffffu, t71, 2);
        const float t73 = t71 + t72;
        const float t74 = __shfl_xor_sync(0xffffffffu, t73, 1);
        const bool t75 = 50ll == 0ll;
        const float t76 = t73 + t74;
        const float t77 = t75 ? 0.0f : t76;
        const bool t78 = t77 != t77;
        const unsigned int t79 = __float_as_uint(t77);
        const unsigned int t80 = t79 | 4194304u;
        const unsigned int t81 = t79 + 32767u;
        const unsigned int t82 = t79 >> 16u;
        const unsigned int t83 = t82 & 1u;
        const unsigned int t84 = t81 + t83;
        const unsigned int t85 = t78 ? t80 : t84;
        const unsigned int t86 = t85 >> 16u;
        const unsigned short t87 = (unsigned short)t86;
        const unsigned short t88 = (unsigned short)t87;
        const unsigned short t89 = t88;
        const double t90 = in1[t3];
        const float t91 = (float)t90;
        const unsigned int t92 = __float_as_uint(t91);
        const double t93 = (double)t91;
        const double t94 = fabs(t93);
        const double t95 = fabs(t90);
        const bool t96 = t94 > t95;
        const unsigned int t97 = (unsigned int)t96;
        const unsigned int t98 = t92 - t97;
        const bool t99 = t93 != t90;
        const unsigned int t100 = (unsigned int)t99;
        const unsigned int t101 = t98 | t100;
        const float t102 = __uint_as_float(t101);
        const bool t103 = t102 != t102;
        const unsigned int t104 = __float_as_uint(t102);
        const unsigned int t105 = t104 | 4194304u;
        const unsigned int t106 = t104 + 32767u;
        const unsigned int t107 = t104 >> 16u;
        const unsigned int t108 = t107 & 1u;
        const unsigned int t109 = t106 + t108;
        const unsigned int t110 = t103 ? t105 : t109;
        const unsigned int t111 = t110 >> 16u;
        const unsigned short t112 = (unsigned short)t111;
        const unsigned short t113 = (unsigned short)t112;
        const unsigned short t114 = t113;
        const unsigned short t115 = (unsigned short)t89;
        const unsigned int t116 = (unsigned int)t115;
        const unsigned int t117 = (unsigned int)((unsigned int)t116 << 16u);
        const float t118 = __uint_as_float(t117);
        const float t119 = t118;
        const unsigned short t120 = (unsigned short)t114;
        const unsigned int t121 = (unsigned int)t120;
        const unsigned int t122 = (unsigned int)((unsigned int)t121 << 16u);
        const float t123 = __uint_as_float(t122);
        const float t124 = t123;
        const float t125 = t119 + t124;
        const bool t126 = t125 != t125;
        const unsigned int t127 = __float_as_uint(t125);
        const unsigned int t128 = t127 | 4194304u;
        const unsigned int t129 = t127 + 32767u;
        const unsigned int t130 = t127 >> 16u;
        const unsigned int t131 = t130 & 1u;
        const unsigned int t132 = t129 + t131;
        const unsigned int t133 = t126 ? t128 : t132;
        const unsigned int t134 = t133 >> 16u;
        const unsigned short t135 = (unsigned short)t134;
        const unsigned short t136 = (unsigned short)t135;
        const unsigned short t137 = t136;
        const long long t138 = thread1 & 7ll;
        const bool t139 = t138 == 0ll;
        if (t139) {
            out0[t3] = t137;
        }
    }
}
