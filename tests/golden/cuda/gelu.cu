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
extern "C" __global__ void __launch_bounds__(32, 1)
k_gelu(const float *in0, float *out0)
{
    for (long long point1 = (long long)blockIdx.x * 32 + threadIdx.x; point1 < 250ll; point1 += (long long)gridDim.x * 32) {
        const long long t1 = (long long)((unsigned long long)point1 * (unsigned long long)4ll);
        const long long t2 = (long long)((unsigned long long)1000ll - (unsigned long long)t1);
        float in0_part6[4];
        k_get<4>(in0_part6, in0, t1, t2);
        float out0_part7[4];
        #pragma unroll
        for (long long lane5 = 0ll; lane5 < 4ll; lane5 += 1) {
            const float t3 = in0_part6[lane5];
            const float t4 = t3 * 0.5f;
            const float t5 = t3 * 0x1.6a09e60000000p-1f;
            const bool t6 = t5 != t5;
            const float t7 = fabsf(t5);
            const bool t8 = t7 < 0x1.d70a3e0000000p-1f;
            const float t9 = t5 * t5;
            const float t10 = fmaf(0x1.5f8e5a0000000p-14f, t9, -0x1.ab0e580000000p-11f);
            const float t11 = fmaf(t10, t9, 0x1.54dee20000000p-8f);
            const float t12 = fmaf(t11, t9, -0x1.b810e20000000p-6f);
            const float t13 = fmaf(t12, t9, 0x1.ce2e240000000p-4f);
            const float t14 = fmaf(t13, t9, -0x1.8127440000000p-2f);
            const float t15 = fmaf(t14, t9, 0x1.06eba80000000p-3f);
            const float t16 = fmaf(t5, t15, t5);
            const bool t17 = t7 > 4.0f;
            const float t18 = t17 ? 4.0f : t7;
            const float t19 = fmaf(-0x1.e920560000000p-22f, t18, -0x1.fee4100000000p-17f);
            const float t20 = fmaf(t19, t18, 0x1.a59f9c0000000p-12f);
            const float t21 = fmaf(t20, t18, -0x1.0acf5c0000000p-8f);
            const float t22 = fmaf(t21, t18, 0x1.9877800000000p-6f);
            const float t23 = fmaf(t22, t18, -0x1.ba99a80000000p-4f);
            const float t24 = fmaf(t23, t18, -0x1.445b4e0000000p-1f);
            const float t25 = fmaf(t24, t18, -0x1.2123900000000p+0f);
            const float t26 = fmaf(t25, t18, 0x1.5616ba0000000p-13f);
            const bool t27 = t26 != t26;
            const bool t28 = t26 < -104.5f;
            const bool t29 = t26 > 89.0f;
            const float t30 = t29 ? 89.0f : t26;
            const float t31 = t28 ? -104.5f : t30;
            const float t32 = t31 * 0x1.7154760000000p+0f;
            const float t33 = rintf(t32);
            const float t34 = fmaf(t33, -0x1.62e4000000000p-1f, t31);
            const float t35 = fmaf(t33, -0x1.7f7d1c0000000p-20f, t34);
            const float t36 = t35 * t35;
            const float t37 = fmaf(0x1.6a23ac0000000p-10f, t35, 0x1.123a6c0000000p-7f);
            const float t38 = fmaf(t37, t35, 0x1.5558f40000000p-5f);
            const float t39 = fmaf(t38, t35, 0x1.5554900000000p-3f);
            const float t40 = fmaf(t39, t35, 0x1.fffffc0000000p-2f);
            const float t41 = fmaf(t36, t40, t35);
            const float t42 = t41 + 1.0f;
            const int t43 = k_f32_to_i32(t33);
            const int t44 = t43 >> 1;
            const int t45 = (int)((unsigned int)t44 + (unsigned int)127);
            const int t46 = (int)((unsigned int)t45 << 23);
            const float t47 = __int_as_float(t46);
            const float t48 = t42 * t47;
            const int t49 = (int)((unsigned int)t43 - (unsigned int)t44);
            const int t50 = (int)((unsigned int)t49 + (unsigned int)127);
            const int t51 = (int)((unsigned int)t50 << 23);
            const float t52 = __int_as_float(t51);
            const float t53 = t48 * t52;
            const float t54 = t27 ? t26 : t53;
            const float t55 = 1.0f - t54;
            const int t56 = __float_as_int(t55);
            const int t57 = __float_as_int(t5);
            const int t58 = t57 & (-2147483647 - 1);
            const int t59 = t56 | t58;
            const float t60 = __int_as_float(t59);
            const float t61 = t8 ? t16 : t60;
            const float t62 = t6 ? t5 : t61;
            const float t63 = t62;
            const float t64 = t63 + 1.0f;
            const float t65 = t4 * t64;
            out0_part7[lane5] = t65;
        }
        k_put<4>(out0_part7, out0, t1, t2);
    }
}
