__device__ __forceinline__ int k_f32_to_i32(float a)
{
#ifdef __CUDA_ARCH__
    return a < 0x1p31f ? __float2int_rz(a) : (int)0x80000000u;  // which has the least integer for what is less
#else
    return a >= -0x1p31f && a < 0x1p31f ? (int)a : (int)0x80000000u;
#endif
}
template <class T, int N> struct __align__(sizeof(T) * N) k_pack { T at[N]; };
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
}
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
}
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
}
__device__ __forceinline__ void k_arrive()
{
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
extern "C" __global__ void __launch_bounds__(32, 1)
k_softmax(const float *in0, float *out0)
{
    const long long thread1 = threadIdx.x;
    __align__(16) __shared__ float in0_row[2000];
    for (long long group3 = blockIdx.x; group3 < 3ll; group3 += gridDim.x) {
        const long long t1 = (long long)((unsigned long long)group3 * (unsigned long long)2ll);
        const long long t2 = thread1 >> 4ll;
        const long long t3 = (long long)((unsigned long long)t1 + (unsigned long long)t2);
        const long long t4 = thread1 & 15ll;
        const long long t5 = (long long)((unsigned long long)t4 * (unsigned long long)4ll);
        for (long long at2 = t5; at2 < 1000ll; at2 += 64) {
            const long long t6 = (long long)((unsigned long long)t3 * (unsigned long long)1000ll);
            const long long t7 = (long long)((unsigned long long)t6 + (unsigned long long)at2);
            const long long t8 = thread1 >> 4ll;
            const long long t9 = (long long)((unsigned long long)t8 * (unsigned long long)1000ll);
            const long long t10 = (long long)((unsigned long long)t9 + (unsigned long long)at2);
            const long long t11 = (long long)((unsigned long long)1000ll - (unsigned long long)at2);
            k_fetch<4>(in0_row + t10, in0, t7, t11);
        }
        k_arrive();
        float acc5[4];
        #pragma unroll
        for (long long cell6 = 0ll; cell6 < 4ll; cell6 += 1) {
            acc5[cell6] = __int_as_float((int)0xff800000u);
        }
        for (long long base7 = 0ll; base7 < 512ll; base7 += 512) {
            const long long t12 = thread1 & 15ll;
            const long long t13 = t12 & 15ll;
            const long long t14 = (long long)((unsigned long long)t13 * (unsigned long long)4ll);
            const long long t15 = (long long)((unsigned long long)base7 + (unsigned long long)t14);
            float in0_row_part11[32];
            #pragma unroll
            for (long long step9 = 0ll; step9 < 8ll; step9 += 1) {
                const long long t16 = thread1 >> 4ll;
                const long long t17 = (long long)((unsigned long long)t16 * (unsigned long long)1000ll);
                const long long t18 = (long long)((unsigned long long)step9 * (unsigned long long)64ll);
                const long long t19 = (long long)((unsigned long long)t15 + (unsigned long long)t18);
                const long long t20 = (long long)((unsigned long long)t17 + (unsigned long long)t19);
                const long long t21 = (long long)((unsigned long long)step9 * (unsigned long long)4ll);
                k_get<4>(in0_row_part11 + t21, in0_row, t20, 4ll);
            }
            #pragma unroll
            for (long long step9 = 0ll; step9 < 8ll; step9 += 1) {
                #pragma unroll
                for (long long cell10 = 0ll; cell10 < 4ll; cell10 += 1) {
                    const float t22 = acc5[cell10];
                    const long long t23 = (long long)((unsigned long long)step9 * (unsigned long long)4ll);
                    const long long t24 = (long long)((unsigned long long)t23 + (unsigned long long)cell10);
                    const float t25 = in0_row_part11[t24];
                    const float t26 = t22 != t22 || t22 > t25 ? t22 : t25;
                    acc5[cell10] = t26;
                }
            }
        }
        for (long long base13 = 512ll; base13 < 1000ll; base13 += 512) {
            const long long t27 = thread1 & 15ll;
            const long long t28 = t27 & 15ll;
            const long long t29 = (long long)((unsigned long long)t28 * (unsigned long long)4ll);
            const long long t30 = (long long)((unsigned long long)base13 + (unsigned long long)t29);
            float in0_row_part17[32];
            #pragma unroll
            for (long long step15 = 0ll; step15 < 8ll; step15 += 1) {
                const long long t31 = thread1 >> 4ll;
                const long long t32 = (long long)((unsigned long long)t31 * (unsigned long long)1000ll);
                const long long t33 = (long long)((unsigned long long)step15 * (unsigned long long)64ll);
                const long long t34 = (long long)((unsigned long long)t30 + (unsigned long long)t33);
                const long long t35 = (long long)((unsigned long long)t32 + (unsigned long long)t34);
                const long long t36 = (long long)((unsigned long long)step15 * (unsigned long long)4ll);
                const long long t37 = (long long)((unsigned long long)1000ll - (unsigned long long)t34);
                k_get<4>(in0_row_part17 + t36, in0_row, t35, t37);
            }
            #pragma unroll
            for (long long step15 = 0ll; step15 < 8ll; step15 += 1) {
                #pragma unroll
                for (long long cell16 = 0ll; cell16 < 4ll; cell16 += 1) {
                    const long long t38 = (long long)((unsigned long long)step15 * (unsigned long long)64ll);
                    const long long t39 = (long long)((unsigned long long)t30 + (unsigned long long)t38);
                    const long long t40 = (long long)((unsigned long long)t39 + (unsigned long long)cell16);
                    const bool t41 = t40 < 1000ll;
                    if (t41) {
                        const float t42 = acc5[cell16];
                        const long long t43 = (long long)((unsigned long long)step15 * (unsigned long long)4ll);
                        const long long t44 = (long long)((unsigned long long)t43 + (unsigned long long)cell16);
                        const float t45 = in0_row_part17[t44];
                        const float t46 = t42 != t42 || t42 > t45 ? t42 : t45;
                        acc5[cell16] = t46;
                    }
                }
            }
        }
        const float t47 = acc5[0ll];
        const float t48 = acc5[1ll];
        const float t49 = acc5[2ll];
        const float t50 = acc5[3ll];
        const float t51 = __shfl_xor_sync(0xffffffffu, t47, 4);
        const float t52 = __shfl_xor_sync(0xffffffffu, t48, 4);
        const float t53 = __shfl_xor_sync(0xffffffffu, t49, 4);
        const float t54 = __shfl_xor_sync(0xffffffffu, t50, 4);
        const long long t55 = thread1 & 4ll;
        const bool t56 = t55 != 0ll;
        const float t57 = t56 ? t51 : t47;
        const float t58 = t56 ? t47 : t51;
        const float t59 = t57 != t57 || t57 > t58 ? t57 : t58;
        const long long t60 = thread1 & 4ll;
        const bool t61 = t60 != 0ll;
        const float t62 = t61 ? t52 : t48;
        const float t63 = t61 ? t48 : t52;
        const float t64 = t62 != t62 || t62 > t63 ? t62 : t63;
        const long long t65 = thread1 & 4ll;
        const bool t66 = t65 != 0ll;
        const float t67 = t66 ? t53 : t49;
        const float t68 = t66 ? t49 : t53;
        const float t69 = t67 != t67 || t67 > t68 ? t67 : t68;
        const long long t70 = thread1 & 4ll;
        const bool t71 = t70 != 0ll;
        const float t72 = t71 ? t54 : t50;
        const float t73 = t71 ? t50 : t54;
        const float t74 = t72 != t72 || t72 > t73 ? t72 : t73;
        const float t75 = __shfl_xor_sync(0xffffffffu, t59, 8);
        const float t76 = __shfl_xor_sync(0xffffffffu, t64, 8);
        const float t77 = __shfl_xor_sync(0xffffffffu, t69, 8);
        const float t78 = __shfl_xor_sync(0xffffffffu, t74, 8);
        const long long t79 = thread1 & 8ll;
        const bool t80 = t79 != 0ll;
        const float t81 = t80 ? t75 : t59;
        const float t82 = t80 ? t59 : t75;
        const float t83 = t81 != t81 || t81 > t82 ? t81 : t82;
        const long long t84 = thread1 & 8ll;
        const bool t85 = t84 != 0ll;
        const float t86 = t85 ? t76 : t64;
        const float t87 = t85 ? t64 : t76;
        const float t88 = t86 != t86 || t86 > t87 ? t86 : t87;
        const long long t89 = thread1 & 8ll;
        const bool t90 = t89 != 0ll;
        const float t91 = t90 ? t77 : t69;
        const float t92 = t90 ? t69 : t77;
        const float t93 = t91 != t91 || t91 > t92 ? t91 : t92;
        const long long t94 = thread1 & 8ll;
        const bool t95 = t94 != 0ll;
        const float t96 = t95 ? t78 : t74;
        const float t97 = t95 ? t74 : t78;
        const float t98 = t96 != t96 || t96 > t97 ? t96 : t97;
        const float t99 = __shfl_xor_sync(0xffffffffu, t83, 2);
        const float t100 = __shfl_xor_sync(0xffffffffu, t88, 2);
        const float t101 = __shfl_xor_sync(0xffffffffu, t93, 2);
        const float t102 = __shfl_xor_sync(0xffffffffu, t98, 2);
        const long long t103 = thread1 & 2ll;
        const bool t104 = t103 != 0ll;
        const float t105 = t104 ? t99 : t83;
        const float t106 = t104 ? t83 : t99;
        const float t107 = t105 != t105 || t105 > t106 ? t105 : t106;
        const long long t108 = thread1 & 2ll;
        const bool t109 = t108 != 0ll;
        const float t110 = t109 ? t100 : t88;
        const float t111 = t109 ? t88 : t100;
        const float t112 = t110 != t110 || t110 > t111 ? t110 : t111;
        const long long t113 = thread1 & 2ll;
        const bool t114 = t113 != 0ll;
        const float t115 = t114 ? t101 : t93;
        const float t116 = t114 ? t93 : t101;
        const float t117 = t115 != t115 || t115 > t116 ? t115 : t116;
        const long long t118 = thread1 & 2ll;
        const bool t119 = t118 != 0ll;
        const float t120 = t119 ? t102 : t98;
        const float t121 = t119 ? t98 : t102;
        const float t122 = t120 != t120 || t120 > t121 ? t120 : t121;
        const float t123 = __shfl_xor_sync(0xffffffffu, t107, 1);
        const float t124 = __shfl_xor_sync(0xffffffffu, t112, 1);
        const float t125 = __shfl_xor_sync(0xffffffffu, t117, 1);
        const float t126 = __shfl_xor_sync(0xffffffffu, t122, 1);
        const long long t127 = thread1 & 1ll;
        const bool t128 = t127 != 0ll;
        const float t129 = t128 ? t123 : t107;
        const float t130 = t128 ? t107 : t123;
        const float t131 = t129 != t129 || t129 > t130 ? t129 : t130;
        const long long t132 = thread1 & 1ll;
        const bool t133 = t132 != 0ll;
        const float t134 = t133 ? t125 : t117;
        const float t135 = t133 ? t117 : t125;
        const float t136 = t134 != t134 || t134 > t135 ? t134 : t135;
        const float t137 = t131 != t131 || t131 > t136 ? t131 : t136;
        const long long t138 = thread1 & 1ll;
        const bool t139 = t138 != 0ll;
        const float t140 = t139 ? t124 : t112;
        const float t141 = t139 ? t112 : t124;
        const float t142 = t140 != t140 || t140 > t141 ? t140 : t141;
        const long long t143 = thread1 & 1ll;
        const bool t144 = t143 != 0ll;
        const float t145 = t144 ? t126 : t122;
        const float t146 = t144 ? t122 : t126;
        const float t147 = t145 != t145 || t145 > t146 ? t145 : t146;
        const float t148 = t142 != t142 || t142 > t147 ? t142 : t147;
        const float t149 = t137 != t137 || t137 > t148 ? t137 : t148;
        float acc51[4];
        #pragma unroll
        for (long long cell52 = 0ll; cell52 < 4ll; cell52 += 1) {
            acc51[cell52] = -0.0f;
        }
        for (long long base53 = 0ll; base53 < 896ll; base53 += 128) {
            const long long t150 = thread1 & 15ll;
            const long long t151 = t150 & 15ll;
            const long long t152 = (long long)((unsigned long long)t151 * (unsigned long long)4ll);
            const long long t153 = (long long)((unsigned long long)base53 + (unsigned long long)t152);
            float in0_row_part57[8];
            #pragma unroll
            for (long long step55 = 0ll; step55 < 2ll; step55 += 1) {
                const long long t154 = thread1 >> 4ll;
                const long long t155 = (long long)((unsigned long long)t154 * (unsigned long long)1000ll);
                const long long t156 = (long long)((unsigned long long)step55 * (unsigned long long)64ll);
                const long long t157 = (long long)((unsigned long long)t153 + (unsigned long long)t156);
                const long long t158 = (long long)((unsigned long long)t155 + (unsigned long long)t157);
                const long long t159 = (long long)((unsigned long long)step55 * (unsigned long long)4ll);
                k_get<4>(in0_row_part57 + t159, in0_row, t158, 4ll);
            }
            float in0_row_part58[8];
            #pragma unroll
            for (long long step55 = 0ll; step55 < 2ll; step55 += 1) {
                #pragma unroll
                for (long long cell56 = 0ll; cell56 < 4ll; cell56 += 1) {
                    const long long t160 = (long long)((unsigned long long)step55 * (unsigned long long)4ll);
                    const long long t161 = (long long)((unsigned long long)t160 + (unsigned long long)cell56);
                    const float t162 = in0_row_part57[t161];
                    const float t163 = t162 - t149;
                    const bool t164 = t163 != t163;
                    const bool t165 = t163 < -104.5f;
                    const bool t166 = t163 > 89.0f;
                    const float t167 = t166 ? 89.0f : t163;
                    const float t168 = t165 ? -104.5f : t167;
                    const float t169 = t168 * 0x1.7154760000000p+0f;
                    const float t170 = rintf(t169);
                    const float t171 = fmaf(t170, -0x1.62e4000000000p-1f, t168);
                    const float t172 = fmaf(t170, -0x1.7f7d1c0000000p-20f, t171);
                    const float t173 = t172 * t172;
                    const float t174 = fmaf(0x1.6a23ac0000000p-10f, t172, 0x1.123a6c0000000p-7f);
                    const float t175 = fmaf(t174, t172, 0x1.5558f40000000p-5f);
                    const float t176 = fmaf(t175, t172, 0x1.5554900000000p-3f);
                    const float t177 = fmaf(t176, t172, 0x1.fffffc0000000p-2f);
                    const float t178 = fmaf(t173, t177, t172);
                    const float t179 = t178 + 1.0f;
                    const int t180 = k_f32_to_i32(t170);
                    const int t181 = t180 >> 1;
                    const int t182 = (int)((unsigned int)t181 + (unsigned int)127);
                    const int t183 = (int)((unsigned int)t182 << 23);
                    const float t184 = __int_as_float(t183);
                    const float t185 = t179 * t184;
                    const int t186 = (int)((unsigned int)t180 - (unsigned int)t181);
                    const int t187 = (int)((unsigned int)t186 + (unsigned int)127);
                    const int t188 = (int)((unsigned int)t187 << 23);
                    const float t189 = __int_as_float(t188);
                    const float t190 = t185 * t189;
                    const float t191 = t164 ? t163 : t190;
                    const float t192 = t191;
                    in0_row_part58[t161] = t192;
                    const float t193 = acc51[cell56];
                    const float t194 = t193 + t192;
                    acc51[cell56] = t194;
                }
            }
            #pragma unroll
            for (long long step55 = 0ll; step55 < 2ll; step55 += 1) {
                const long long t195 = thread1 >> 4ll;
                const long long t196 = (long long)((unsigned long long)t195 * (unsigned long long)1000ll);
                const long long t197 = (long long)((unsigned long long)step55 * (unsigned long long)64ll);
                const long long t198 = (long long)((unsigned long long)t153 + (unsigned long long)t197);
                const long long t199 = (long long)((unsigned long long)t196 + (unsigned long long)t198);
                const long long t200 = (long long)((unsigned long long)step55 * (unsigned long long)4ll);
                k_put<4>(in0_row_part58 + t200, in0_row, t199, 4ll);
            }
        }
        for (long long base60 = 896ll; base60 < 1000ll; base60 += 64) {
            const long long t201 = thread1 & 15ll;
            const long long t202 = t201 & 15ll;
            const long long t203 = (long long)((unsigned long long)t202 * (unsigned long long)4ll);
            const long long t204 = (long long)((unsigned long long)base60 + (unsigned long long)t203);
            float in0_row_part64[4];
            #pragma unroll
            for (long long step62 = 0ll; step62 < 1ll; step62 += 1) {
                const long long t205 = thread1 >> 4ll;
                const long long t206 = (long long)((unsigned long long)t205 * (unsigned long long)1000ll);
                const long long t207 = (long long)((unsigned long long)step62 * (unsigned long long)64ll);
                const long long t208 = (long long)((unsigned long long)t204 + (unsigned long long)t207);
                const long long t209 = (long long)((unsigned long long)t206 + (unsigned long long)t208);
                const long long t210 = (long long)((unsigned long long)step62 * (unsigned long long)4ll);
                const long long t211 = (long long)((unsigned long long)1000ll - (unsigned long long)t208);
                k_get<4>(in0_row_part64 + t210, in0_row, t209, t211);
            }
            float in0_row_part65[4];
            #pragma unroll
            for (long long step62 = 0ll; step62 < 1ll; step62 += 1) {
                #pragma unroll
                for (long long cell63 = 0ll; cell63 < 4ll; cell63 += 1) {
                    const long long t212 = (long long)((unsigned long long)step62 * (unsigned long long)64ll);
                    const long long t213 = (long long)((unsigned long long)t204 + (unsigned long long)t212);
                    const long long t214 = (long long)((unsigned long long)t213 + (unsigned long long)cell63);
                    const bool t215 = t214 < 1000ll;
                    if (t215) {
                        const long long t216 = (long long)((unsigned long long)step62 * (unsigned long long)4ll);
                        const long long t217 = (long long)((unsigned long long)t216 + (unsigned long long)cell63);
                        const float t218 = in0_row_part64[t217];
                        const float t219 = t218 - t149;
                        const bool t220 = t219 != t219;
                        const bool t221 = t219 < -104.5f;
                        const bool t222 = t219 > 89.0f;
                        const float t223 = t222 ? 89.0f : t219;
                        const float t224 = t221 ? -104.5f : t223;
                        const float t225 = t224 * 0x1.7154760000000p+0f;
                        const float t226 = rintf(t225);
                        const float t227 = fmaf(t226, -0x1.62e4000000000p-1f, t224);
                        const float t228 = fmaf(t226, -0x1.7f7d1c0000000p-20f, t227);
                        const float t229 = t228 * t228;
                        const float t230 = fmaf(0x1.6a23ac0000000p-10f, t228, 0x1.123a6c0000000p-7f);
                        const float t231 = fmaf(t230, t228, 0x1.5558f40000000p-5f);
                        const float t232 = fmaf(t231, t228, 0x1.5554900000000p-3f);
                        const float t233 = fmaf(t232, t228, 0x1.fffffc0000000p-2f);
                        const float t234 = fmaf(t229, t233, t228);
                        const float t235 = t234 + 1.0f;
                        const int t236 = k_f32_to_i32(t226);
                        const int t237 = t236 >> 1;
                        const int t238 = (int)((unsigned int)t237 + (unsigned int)127);
                        const int t239 = (int)((unsigned int)t238 << 23);
                        const float t240 = __int_as_float(t239);
                        const float t241 = t235 * t240;
                        const int t242 = (int)((unsigned int)t236 - (unsigned int)t237);
                        const int t243 = (int)((unsigned int)t242 + (unsigned int)127);
                        const int t244 = (int)((unsigned int)t243 << 23);
                        const float t245 = __int_as_float(t244);
                        const float t246 = t241 * t245;
                        const float t247 = t220 ? t219 : t246;
                        const float t248 = t247;
                        in0_row_part65[t217] = t248;
                        const float t249 = acc51[cell63];
                        const float t250 = t249 + t248;
                        acc51[cell63] = t250;
                    }
                }
            }
            #pragma unroll
            for (long long step62 = 0ll; step62 < 1ll; step62 += 1) {
                const long long t251 = thread1 >> 4ll;
                const long long t252 = (long long)((unsigned long long)t251 * (unsigned long long)1000ll);
                const long long t253 = (long long)((unsigned long long)step62 * (unsigned long long)64ll);
                const long long t254 = (long long)((unsigned long long)t204 + (unsigned long long)t253);
                const long long t255 = (long long)((unsigned long long)t252 + (unsigned long long)t254);
                const long long t256 = (long long)((unsigned long long)step62 * (unsigned long long)4ll);
                const long long t257 = (long long)((unsigned long long)1000ll - (unsigned long long)t254);
                k_put<4>(in0_row_part65 + t256, in0_row, t255, t257);
            }
        }
        const float t258 = acc51[0ll];
        const float t259 = acc51[1ll];
        const float t260 = acc51[2ll];
        const float t261 = acc51[3ll];
        const float t262 = __shfl_xor_sync(0xffffffffu, t258, 4);
        const float t263 = __shfl_xor_sync(0xffffffffu, t259, 4);
        const float t264 = __shfl_xor_sync(0xffffffffu, t260, 4);
        const float t265 = __shfl_xor_sync(0xffffffffu, t261, 4);
        const float t266 = t258 + t262;
        const float t267 = t259 + t263;
        const float t268 = t260 + t264;
        const float t269 = t261 + t265;
        const float t270 = __shfl_xor_sync(0xffffffffu, t266, 8);
        const float t271 = __shfl_xor_sync(0xffffffffu, t267, 8);
        const float t272 = __shfl_xor_sync(0xffffffffu, t268, 8);
        const float t273 = __shfl_xor_sync(0xffffffffu, t269, 8);
        const float t274 = t266 + t270;
        const float t275 = t267 + t271;
        const float t276 = t268 + t272;
        const float t277 = t269 + t273;
        const float t278 = __shfl_xor_sync(0xffffffffu, t274, 2);
        const float t279 = __shfl_xor_sync(0xffffffffu, t275, 2);
        const float t280 = __shfl_xor_sync(0xffffffffu, t276, 2);
        const float t281 = __shfl_xor_sync(0xffffffffu, t277, 2);
        const float t282 = t274 + t278;
        const float t283 = t275 + t279;
        const float t284 = t276 + t280;
        const float t285 = t277 + t281;
        const float t286 = __shfl_xor_sync(0xffffffffu, t282, 1);
        const float t287 = __shfl_xor_sync(0xffffffffu, t283, 1);
        const float t288 = __shfl_xor_sync(0xffffffffu, t284, 1);
        const float t289 = __shfl_xor_sync(0xffffffffu, t285, 1);
        const bool t290 = 1000ll == 0ll;
        const float t291 = t282 + t286;
        const float t292 = t284 + t288;
        const float t293 = t291 + t292;
        const float t294 = t283 + t287;
        const float t295 = t285 + t289;
        const float t296 = t294 + t295;
        const float t297 = t293 + t296;
        const float t298 = t290 ? 0.0f : t297;
        for (long long base99 = 0ll; base99 < 512ll; base99 += 512) {
            const long long t299 = thread1 & 15ll;
            const long long t300 = t299 & 15ll;
            const long long t301 = (long long)((unsigned long long)t300 * (unsigned long long)4ll);
            const long long t302 = (long long)((unsigned long long)base99 + (unsigned long long)t301);
            float in0_row_part103[32];
            #pragma unroll
            for (long long step101 = 0ll; step101 < 8ll; step101 += 1) {
                const long long t303 = thread1 >> 4ll;
                const long long t304 = (long long)((unsigned long long)t303 * (unsigned long long)1000ll);
                const long long t305 = (long long)((unsigned long long)step101 * (unsigned long long)64ll);
                const long long t306 = (long long)((unsigned long long)t302 + (unsigned long long)t305);
                const long long t307 = (long long)((unsigned long long)t304 + (unsigned long long)t306);
                const long long t308 = (long long)((unsigned long long)step101 * (unsigned long long)4ll);
                k_get<4>(in0_row_part103 + t308, in0_row, t307, 4ll);
            }
            float out0_part104[32];
            #pragma unroll
            for (long long step101 = 0ll; step101 < 8ll; step101 += 1) {
                #pragma unroll
                for (long long cell102 = 0ll; cell102 < 4ll; cell102 += 1) {
                    const long long t309 = (long long)((unsigned long long)step101 * (unsigned long long)4ll);
                    const long long t310 = (long long)((unsigned long long)t309 + (unsigned long long)cell102);
                    const float t311 = in0_row_part103[t310];
                    const float t312 = __fdiv_rn(t311, t298);
                    out0_part104[t310] = t312;
                }
            }
            #pragma unroll
            for (long long step101 = 0ll; step101 < 8ll; step101 += 1) {
                const long long t313 = (long long)((unsigned long long)t3 * (unsigned long long)1000ll);
                const long long t314 = (long long)((unsigned long long)step101 * (unsigned long long)64ll);
                const long long t315 = (long long)((unsigned long long)t302 + (unsigned long long)t314);
                const long long t316 = (long long)((unsigned long long)t313 + (unsigned long long)t315);
                const long long t317 = (long long)((unsigned long long)step101 * (unsigned long long)4ll);
                k_put<4>(out0_part104 + t317, out0, t316, 4ll);
            }
        }
        for (long long base105 = 512ll; base105 < 1000ll; base105 += 512) {
            const long long t318 = thread1 & 15ll;
            const long long t319 = t318 & 15ll;
            const long long t320 = (long long)((unsigned long long)t319 * (unsigned long long)4ll);
            const long long t321 = (long long)((unsigned long long)base105 + (unsigned long long)t320);
            float in0_row_part109[32];
            #pragma unroll
            for (long long step107 = 0ll; step107 < 8ll; step107 += 1) {
                const long long t322 = thread1 >> 4ll;
                const long long t323 = (long long)((unsigned long long)t322 * (unsigned long long)1000ll);
                const long long t324 = (long long)((unsigned long long)step107 * (unsigned long long)64ll);
                const long long t325 = (long long)((unsigned long long)t321 + (unsigned long long)t324);
                const long long t326 = (long long)((unsigned long long)t323 + (unsigned long long)t325);
                const long long t327 = (long long)((unsigned long long)step107 * (unsigned long long)4ll);
                const long long t328 = (long long)((unsigned long long)1000ll - (unsigned long long)t325);
                k_get<4>(in0_row_part109 + t327, in0_row, t326, t328);
            }
            float out0_part110[32];
            #pragma unroll
            for (long long step107 = 0ll; step107 < 8ll; step107 += 1) {
                #pragma unroll
                for (long long cell108 = 0ll; cell108 < 4ll; cell108 += 1) {
                    const long long t329 = (long long)((unsigned long long)step107 * (unsigned long long)64ll);
                    const long long t330 = (long long)((unsigned long long)t321 + (unsigned long long)t329);
                    const long long t331 = (long long)((unsigned long long)t330 + (unsigned long long)cell108);
                    const bool t332 = t331 < 1000ll;
                    if (t332) {
                        const long long t333 = (long long)((unsigned long long)step107 * (unsigned long long)4ll);
                        const long long t334 = (long long)((unsigned long long)t333 + (unsigned long long)cell108);
                        const float t335 = in0_row_part109[t334];
                        const float t336 = __fdiv_rn(t335, t298);
                        out0_part110[t334] = t336;
                    }
                }
            }
            #pragma unroll
            for (long long step107 = 0ll; step107 < 8ll; step107 += 1) {
                const long long t337 = (long long)((unsigned long long)t3 * (unsigned long long)1000ll);
                const long long t338 = (long long)((unsigned long long)step107 * (unsigned long long)64ll);
                const long long t339 = (long long)((unsigned long long)t321 + (unsigned long long)t338);
                const long long t340 = (long long)((unsigned long long)t337 + (unsigned long long)t339);
                const long long t341 = (long long)((unsigned long long)step107 * (unsigned long long)4ll);
                const long long t342 = (long long)((unsigned long long)1000ll - (unsigned long long)t339);
                k_put<4>(out0_part110 + t341, out0, t340, t342);
            }
        }
    }
}
