__device__ __forceinline__ long long k_mod_i64(long long a, long long b)
{
    if (((unsigned long long)(a | b) >> 32) == 0 && b != 0) return (unsigned int)a % (unsigned int)b;
    return b == 0 || b == -1 ? 0 : a % b;
}
extern "C" __global__ void __launch_bounds__(64, 1)
k_long_rows(const float *in0, float *out0)
{
    const long long thread2 = threadIdx.x;
    __align__(16) __shared__ float meet0[64];
    for (long long row1 = blockIdx.x; row1 < 3ll; row1 += gridDim.x) {
        float total17 = -0.0f;
        for (long long start3 = 0ll; start3 < 9001ll; start3 += 4096) {
            const long long t1 = (long long)((unsigned long long)start3 + (unsigned long long)thread2);
            const long long t2 = (long long)((unsigned long long)start3 + (unsigned long long)4096ll);
            const long long t3 = t2 < 9001ll ? t2 : 9001ll;
            float acc5 = -0.0f;
            for (long long r_1 = t1; r_1 < t3; r_1 += 64) {
                const long long t4 = (long long)((unsigned long long)row1 * (unsigned long long)9001ll);
                const long long t5 = (long long)((unsigned long long)t4 + (unsigned long long)r_1);
                const float t6 = in0[t5];
                const float t7 = acc5 + t6;
                acc5 = t7;
            }
            meet0[thread2] = acc5;
            __syncthreads();
            const long long t8 = (long long)k_mod_i64(thread2, 16ll);
            const float t9 = meet0[t8];
            const long long t10 = (long long)((unsigned long long)t8 + (unsigned long long)16ll);
            const float t11 = meet0[t10];
            const float t12 = t9 + t11;
            const long long t13 = (long long)((unsigned long long)t8 + (unsigned long long)32ll);
            const float t14 = meet0[t13];
            const long long t15 = (long long)((unsigned long long)t8 + (unsigned long long)48ll);
            const float t16 = meet0[t15];
            const float t17 = t14 + t16;
            const float t18 = t12 + t17;
            const float t19 = __shfl_xor_sync(0xffffffffu, t18, 8);
            const float t20 = t18 + t19;
            const float t21 = __shfl_xor_sync(0xffffffffu, t20, 4);
            const float t22 = t20 + t21;
            const float t23 = __shfl_xor_sync(0xffffffffu, t22, 2);
            const float t24 = t22 + t23;
            const float t25 = __shfl_xor_sync(0xffffffffu, t24, 1);
            const float t26 = t24 + t25;
            __syncthreads();
            const bool t27 = thread2 == 0ll;
            if (t27) {
                meet0[0ll] = t26;
            }
            __syncthreads();
            const float t28 = meet0[0ll];
            __syncthreads();
            const float t29 = total17 + t28;
            total17 = t29;
        }
        const bool t30 = 9001ll == 0ll;
        const float t31 = t30 ? 0.0f : total17;
        const bool t32 = thread2 == 0ll;
        if (t32) {
            out0[row1] = t31;
        }
    }
}
