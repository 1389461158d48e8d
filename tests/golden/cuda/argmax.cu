extern "C" __global__ void __launch_bounds__(32, 1)
k_argmax(const float *in0, long long *out0)
{
    const long long thread1 = threadIdx.x;
    for (long long group2 = blockIdx.x; group2 < 3ll; group2 += gridDim.x) {
        const long long t1 = (long long)((unsigned long long)group2 * (unsigned long long)2ll);
        const long long t2 = thread1 >> 4ll;
        const long long t3 = (long long)((unsigned long long)t1 + (unsigned long long)t2);
        const bool t4 = t3 < 5ll;
        const long long t5 = t3 < 4ll ? t3 : 4ll;
        float acc6[4];
        long long acc7[4];
        #pragma unroll
        for (long long cell8 = 0ll; cell8 < 4ll; cell8 += 1) {
            acc6[cell8] = __int_as_float((int)0xff800000u);
            acc7[cell8] = 9223372036854775807ll;
        }
        for (long long base9 = 0ll; base9 < 64ll; base9 += 64) {
            const long long t6 = thread1 & 15ll;
            const long long t7 = t6 & 15ll;
            const long long t8 = (long long)((unsigned long long)base9 + (unsigned long long)t7);
            float in0_part13[4];
            #pragma unroll
            for (long long step11 = 0ll; step11 < 1ll; step11 += 1) {
                #pragma unroll
                for (long long cell12 = 0ll; cell12 < 4ll; cell12 += 1) {
                    const long long t9 = (long long)((unsigned long long)step11 * (unsigned long long)4ll);
                    const long long t10 = (long long)((unsigned long long)t9 + (unsigned long long)cell12);
                    const long long t11 = (long long)((unsigned long long)t5 * (unsigned long long)77ll);
                    const long long t12 = (long long)((unsigned long long)step11 * (unsigned long long)64ll);
                    const long long t13 = (long long)((unsigned long long)t8 + (unsigned long long)t12);
                    const long long t14 = (long long)((unsigned long long)cell12 * (unsigned long long)16ll);
                    const long long t15 = (long long)((unsigned long long)t13 + (unsigned long long)t14);
                    const long long t16 = (long long)((unsigned long long)t11 + (unsigned long long)t15);
                    const float t17 = in0[t16];
                    in0_part13[t10] = t17;
                }
            }
            #pragma unroll
            for (long long step11 = 0ll; step11 < 1ll; step11 += 1) {
                #pragma unroll
                for (long long cell12 = 0ll; cell12 < 4ll; cell12 += 1) {
                    const long long t18 = (long long)((unsigned long long)step11 * (unsigned long long)4ll);
                    const long long t19 = (long long)((unsigned long long)t18 + (unsigned long long)cell12);
                    const float t20 = in0_part13[t19];
                    const float t21 = acc6[cell12];
                    const bool t22 = t20 > t21;
                    const bool t23 = t20 != t20;
                    const bool t24 = t21 != t21;
                    const bool t25 = !t24;
                    const bool t26 = t23 & t25;
                    const bool t27 = t22 | t26;
                    const bool t28 = t21 == t20;
                    const bool t29 = t24 & t23;
                    const bool t30 = t28 | t29;
                    const long long t31 = (long long)((unsigned long long)step11 * (unsigned long long)64ll);
                    const long long t32 = (long long)((unsigned long long)t8 + (unsigned long long)t31);
                    const long long t33 = (long long)((unsigned long long)cell12 * (unsigned long long)16ll);
                    const long long t34 = (long long)((unsigned long long)t32 + (unsigned long long)t33);
                    const long long t35 = acc7[cell12];
                    const bool t36 = t34 < t35;
                    const bool t37 = t30 & t36;
                    const bool t38 = t27 | t37;
                    const float t39 = t38 ? t20 : t21;
                    const long long t40 = t38 ? t34 : t35;
                    acc6[cell12] = t39;
                    acc7[cell12] = t40;
                }
            }
        }
        for (long long base16 = 64ll; base16 < 77ll; base16 += 64) {
            const long long t41 = thread1 & 15ll;
            const long long t42 = t41 & 15ll;
            const long long t43 = (long long)((unsigned long long)base16 + (unsigned long long)t42);
            float in0_part20[4];
            #pragma unroll
            for (long long step18 = 0ll; step18 < 1ll; step18 += 1) {
                #pragma unroll
                for (long long cell19 = 0ll; cell19 < 4ll; cell19 += 1) {
                    const long long t44 = (long long)((unsigned long long)step18 * (unsigned long long)4ll);
                    const long long t45 = (long long)((unsigned long long)t44 + (unsigned long long)cell19);
                    const long long t46 = (long long)((unsigned long long)step18 * (unsigned long long)64ll);
                    const long long t47 = (long long)((unsigned long long)t43 + (unsigned long long)t46);
                    const long long t48 = (long long)((unsigned long long)cell19 * (unsigned long long)16ll);
                    const long long t49 = (long long)((unsigned long long)t47 + (unsigned long long)t48);
                    const bool t50 = t49 < 77ll;
                    const long long t51 = (long long)((unsigned long long)t5 * (unsigned long long)77ll);
                    const long long t52 = (long long)((unsigned long long)t51 + (unsigned long long)t49);
                    const float t53 = t50 ? in0[t52] : 0.0f;
                    in0_part20[t45] = t53;
                }
            }
            #pragma unroll
            for (long long step18 = 0ll; step18 < 1ll; step18 += 1) {
                #pragma unroll
                for (long long cell19 = 0ll; cell19 < 4ll; cell19 += 1) {
                    const long long t54 = (long long)((unsigned long long)step18 * (unsigned long long)64ll);
                    const long long t55 = (long long)((unsigned long long)t43 + (unsigned long long)t54);
                    const long long t56 = (long long)((unsigned long long)cell19 * (unsigned long long)16ll);
                    const long long t57 = (long long)((unsigned long long)t55 + (unsigned long long)t56);
                    const bool t58 = t57 < 77ll;
                    if (t58) {
                        const long long t59 = (long long)((unsigned long long)step18 * (unsigned long long)4ll);
                        const long long t60 = (long long)((unsigned long long)t59 + (unsigned long long)cell19);
                        const float t61 = in0_part20[t60];
                        const float t62 = acc6[cell19];
                        const bool t63 = t61 > t62;
                        const bool t64 = t61 != t61;
                        const bool t65 = t62 != t62;
                        const bool t66 = !t65;
                        const bool t67 = t64 & t66;
                        const bool t68 = t63 | t67;
                        const bool t69 = t62 == t61;
                        const bool t70 = t65 & t64;
                        const bool t71 = t69 | t70;
                        const long long t72 = acc7[cell19];
                        const bool t73 = t57 < t72;
                        const bool t74 = t71 & t73;
                        const bool t75 = t68 | t74;
                        const float t76 = t75 ? t61 : t62;
                        const long long t77 = t75 ? t57 : t72;
                        acc6[cell19] = t76;
                        acc7[cell19] = t77;
                    }
                }
            }
        }
        const float t78 = acc6[3ll];
        const float t79 = acc6[2ll];
        const bool t80 = t78 > t79;
        const bool t81 = t78 != t78;
        const bool t82 = t79 != t79;
        const bool t83 = !t82;
        const bool t84 = t81 & t83;
        const bool t85 = t80 | t84;
        const bool t86 = t79 == t78;
        const bool t87 = t82 & t81;
        const bool t88 = t86 | t87;
        const long long t89 = acc7[3ll];
        const long long t90 = acc7[2ll];
        const bool t91 = t89 < t90;
        const bool t92 = t88 & t91;
        const bool t93 = t85 | t92;
        const float t94 = t93 ? t78 : t79;
        const float t95 = acc6[1ll];
        const float t96 = acc6[0ll];
        const bool t97 = t95 > t96;
        const bool t98 = t95 != t95;
        const bool t99 = t96 != t96;
        const bool t100 = !t99;
        const bool t101 = t98 & t100;
        const bool t102 = t97 | t101;
        const bool t103 = t96 == t95;
        const bool t104 = t99 & t98;
        const bool t105 = t103 | t104;
        const long long t106 = acc7[1ll];
        const long long t107 = acc7[0ll];
        const bool t108 = t106 < t107;
        const bool t109 = t105 & t108;
        const bool t110 = t102 | t109;
        const float t111 = t110 ? t95 : t96;
        const bool t112 = t94 > t111;
        const bool t113 = t94 != t94;
        const bool t114 = t111 != t111;
        const bool t115 = !t114;
        const bool t116 = t113 & t115;
        const bool t117 = t112 | t116;
        const bool t118 = t111 == t94;
        const bool t119 = t114 & t113;
        const bool t120 = t118 | t119;
        const long long t121 = t93 ? t89 : t90;
        const long long t122 = t110 ? t106 : t107;
        const bool t123 = t121 < t122;
        const bool t124 = t120 & t123;
        const bool t125 = t117 | t124;
        const float t126 = t125 ? t94 : t111;
        const long long t127 = t125 ? t121 : t122;
        const float t128 = __shfl_xor_sync(0xffffffffu, t126, 8);
        const long long t129 = __shfl_xor_sync(0xffffffffu, t127, 8);
        const bool t130 = t128 > t126;
        const bool t131 = t128 != t128;
        const bool t132 = t126 != t126;
        const bool t133 = !t132;
        const bool t134 = t131 & t133;
        const bool t135 = t130 | t134;
        const bool t136 = t126 == t128;
        const bool t137 = t132 & t131;
        const bool t138 = t136 | t137;
        const bool t139 = t129 < t127;
        const bool t140 = t138 & t139;
        const bool t141 = t135 | t140;
        const float t142 = t141 ? t128 : t126;
        const long long t143 = t141 ? t129 : t127;
        const float t144 = __shfl_xor_sync(0xffffffffu, t142, 4);
        const long long t145 = __shfl_xor_sync(0xffffffffu, t143, 4);
        const bool t146 = t144 > t142;
        const bool t147 = t144 != t144;
        const bool t148 = t142 != t142;
        const bool t149 = !t148;
        const bool t150 = t147 & t149;
        const bool t151 = t146 | t150;
        const bool t152 = t142 == t144;
        const bool t153 = t148 & t147;
        const bool t154 = t152 | t153;
        const bool t155 = t145 < t143;
        const bool t156 = t154 & t155;
        const bool t157 = t151 | t156;
        const float t158 = t157 ? t144 : t142;
        const long long t159 = t157 ? t145 : t143;
        const float t160 = __shfl_xor_sync(0xffffffffu, t158, 2);
        const long long t161 = __shfl_xor_sync(0xffffffffu, t159, 2);
        const bool t162 = t160 > t158;
        const bool t163 = t160 != t160;
        const bool t164 = t158 != t158;
        const bool t165 = !t164;
        const bool t166 = t163 & t165;
        const bool t167 = t162 | t166;
        const bool t168 = t158 == t160;
        const bool t169 = t164 & t163;
        const bool t170 = t168 | t169;
        const bool t171 = t161 < t159;
        const bool t172 = t170 & t171;
        const bool t173 = t167 | t172;
        const float t174 = t173 ? t160 : t158;
        const long long t175 = t173 ? t161 : t159;
        const float t176 = __shfl_xor_sync(0xffffffffu, t174, 1);
        const long long t177 = __shfl_xor_sync(0xffffffffu, t175, 1);
        const bool t178 = t176 > t174;
        const bool t179 = t176 != t176;
        const bool t180 = t174 != t174;
        const bool t181 = !t180;
        const bool t182 = t179 & t181;
        const bool t183 = t178 | t182;
        const bool t184 = t174 == t176;
        const bool t185 = t180 & t179;
        const bool t186 = t184 | t185;
        const bool t187 = t177 < t175;
        const bool t188 = t186 & t187;
        const bool t189 = t183 | t188;
        const long long t190 = t189 ? t177 : t175;
        const long long t191 = thread1 & 15ll;
        const bool t192 = t191 == 0ll;
        const bool t193 = t192 & t4;
        if (t193) {
            out0[t5] = t190;
        }
    }
}
