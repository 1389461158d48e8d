__device__ __forceinline__ long long k_mod_i64(long long a, long long b)
{
    if (((unsigned long long)(a | b) >> 32) == 0 && b != 0) return (unsigned int)a % (unsigned int)b;
    return b == 0 || b == -1 ? 0 : a % b;
}
__device__ __forceinline__ int k_f32_to_i32(float a)
{ return a >= -0x1p31f && a < 0x1p31f ? (int)a : (int)0x80000000u; }
template <class T, int N> struct __align__(sizeof(T) * N) k_pack { T at[N]; };
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
}
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
}
extern "C" __global__ void __launch_bounds__(64, 1)
k_softmax(const float *in0, float *out0)
{
    const long long thread2 = threadIdx.x;
    __align__(16) __shared__ float in0_row3[1000];
    __align__(16) __shared__ float meet0[64];
    for (long long row1 = blockIdx.x; row1 < 6ll; row1 += gridDim.x) {
        const long long t1 = (long long)((unsigned long long)thread2 * (unsigned long long)4ll);
        for (long long at4 = t1; at4 < 1000ll; at4 += 256) {
            const long long t2 = (long long)((unsigned long long)1000ll - (unsigned long long)at4);
            float in0_row3_part[4];
            const long long t3 = (long long)((unsigned long long)row1 * (unsigned long long)1000ll);
            const long long t4 = (long long)((unsigned long long)t3 + (unsigned long long)at4);
            k_get(in0_row3_part, &in0[t4], t2);
            k_put(in0_row3_part, &in0_row3[at4], t2);
        }
        __syncthreads();
        __align__(16) __shared__ float row0[1000];
        float total20 = __int_as_float((int)0xff800000u);
        for (long long start6 = 0ll; start6 < 1000ll; start6 += 4096) {
            const long long t5 = (long long)((unsigned long long)start6 + (unsigned long long)thread2);
            const long long t6 = (long long)((unsigned long long)start6 + (unsigned long long)4096ll);
            const long long t7 = t6 < 1000ll ? t6 : 1000ll;
            float acc8 = __int_as_float((int)0xff800000u);
            for (long long r_1 = t5; r_1 < t7; r_1 += 64) {
                const float t8 = in0_row3[r_1];
                const float t9 = acc8 != acc8 || acc8 > t8 ? acc8 : t8;
                acc8 = t9;
            }
            meet0[thread2] = acc8;
            __syncthreads();
            const long long t10 = (long long)k_mod_i64(thread2, 16ll);
            const float t11 = meet0[t10];
            const long long t12 = (long long)((unsigned long long)t10 + (unsigned long long)16ll);
            const float t13 = meet0[t12];
            const float t14 = t11 != t11 || t11 > t13 ? t11 : t13;
            const long long t15 = (long long)((unsigned long long)t10 + (unsigned long long)32ll);
            const float t16 = meet0[t15];
            const long long t17 = (long long)((unsigned long long)t10 + (unsigned long long)48ll);
            const float t18 = meet0[t17];
            const float t19 = t16 != t16 || t16 > t18 ? t16 : t18;
            const float t20 = t14 != t14 || t14 > t19 ? t14 : t19;
            const float t21 = __shfl_xor_sync(0xffffffffu, t20, 8);
            const float t22 = t20 != t20 || t20 > t21 ? t20 : t21;
            const float t23 = __shfl_xor_sync(0xffffffffu, t22, 4);
            const float t24 = t22 != t22 || t22 > t23 ? t22 : t23;
            const float t25 = __shfl_xor_sync(0xffffffffu, t24, 2);
            const float t26 = t24 != t24 || t24 > t25 ? t24 : t25;
            const float t27 = __shfl_xor_sync(0xffffffffu, t26, 1);
            const float t28 = t26 != t26 || t26 > t27 ? t26 : t27;
            __syncthreads();
            const bool t29 = thread2 == 0ll;
            if (t29) {
                meet0[0ll] = t28;
            }
            __syncthreads();
            const float t30 = meet0[0ll];
            __syncthreads();
            const float t31 = total20 != total20 || total20 > t30 ? total20 : t30;
            total20 = t31;
        }
        float total35 = -0.0f;
        for (long long start21 = 0ll; start21 < 1000ll; start21 += 4096) {
            const long long t32 = (long long)((unsigned long long)start21 + (unsigned long long)thread2);
            const long long t33 = (long long)((unsigned long long)start21 + (unsigned long long)4096ll);
            const long long t34 = t33 < 1000ll ? t33 : 1000ll;
            float acc23 = -0.0f;
            for (long long r_3 = t32; r_3 < t34; r_3 += 64) {
                const float t35 = in0_row3[r_3];
                const float t36 = t35 - total20;
                const bool t37 = t36 != t36;
                const bool t38 = t36 < -104.5f;
                const bool t39 = t36 > 89.0f;
                const float t40 = t39 ? 89.0f : t36;
                const float t41 = t38 ? -104.5f : t40;
                const float t42 = t41 * 0x1.7154760000000p+0f;
                const float t43 = rintf(t42);
                const float t44 = fmaf(t43, -0x1.62e4000000000p-1f, t41);
                const float t45 = fmaf(t43, -0x1.7f7d1c0000000p-20f, t44);
                const float t46 = t45 * t45;
                const float t47 = fmaf(0x1.6a23ac0000000p-10f, t45, 0x1.123a6c0000000p-7f);
                const float t48 = fmaf(t47, t45, 0x1.5558f40000000p-5f);
                const float t49 = fmaf(t48, t45, 0x1.5554900000000p-3f);
                const float t50 = fmaf(t49, t45, 0x1.fffffc0000000p-2f);
                const float t51 = fmaf(t46, t50, t45);
                const float t52 = t51 + 1.0f;
                const int t53 = k_f32_to_i32(t43);
                const int t54 = t53 >> 1;
                const int t55 = (int)((unsigned int)t54 + (unsigned int)127);
                const int t56 = (int)((unsigned int)t55 << 23);
                const float t57 = __int_as_float(t56);
                const float t58 = t52 * t57;
                const int t59 = (int)((unsigned int)t53 - (unsigned int)t54);
                const int t60 = (int)((unsigned int)t59 + (unsigned int)127);
                const int t61 = (int)((unsigned int)t60 << 23);
                const float t62 = __int_as_float(t61);
                const float t63 = t58 * t62;
                const float t64 = t37 ? t36 : t63;
                const float t65 = t64;
                row0[r_3] = t65;
                const float t66 = acc23 + t65;
                acc23 = t66;
            }
            meet0[thread2] = acc23;
            __syncthreads();
            const long long t67 = (long long)k_mod_i64(thread2, 16ll);
            const float t68 = meet0[t67];
            const long long t69 = (long long)((unsigned long long)t67 + (unsigned long long)16ll);
            const float t70 = meet0[t69];
            const float t71 = t68 + t70;
            const long long t72 = (long long)((unsigned long long)t67 + (unsigned long long)32ll);
            const float t73 = meet0[t72];
            const long long t74 = (long long)((unsigned long long)t67 + (unsigned long long)48ll);
            const float t75 = meet0[t74];
            const float t76 = t73 + t75;
            const float t77 = t71 + t76;
            const float t78 = __shfl_xor_sync(0xffffffffu, t77, 8);
            const float t79 = t77 + t78;
            const float t80 = __shfl_xor_sync(0xffffffffu, t79, 4);
            const float t81 = t79 + t80;
            const float t82 = __shfl_xor_sync(0xffffffffu, t81, 2);
            const float t83 = t81 + t82;
            const float t84 = __shfl_xor_sync(0xffffffffu, t83, 1);
            const float t85 = t83 + t84;
            __syncthreads();
            const bool t86 = thread2 == 0ll;
            if (t86) {
                meet0[0ll] = t85;
            }
            __syncthreads();
            const float t87 = meet0[0ll];
            __syncthreads();
            const float t88 = total35 + t87;
            total35 = t88;
        }
        const bool t89 = 1000ll == 0ll;
        const float t90 = t89 ? 0.0f : total35;
        for (long long r_7 = thread2; r_7 < 1000ll; r_7 += 64) {
            const float t91 = row0[r_7];
            const float t92 = __fdiv_rn(t91, t90);
            const long long t93 = (long long)((unsigned long long)row1 * (unsigned long long)1000ll);
            const long long t94 = (long long)((unsigned long long)t93 + (unsigned long long)r_7);
            out0[t94] = t92;
        }
        __syncthreads();
    }
}
