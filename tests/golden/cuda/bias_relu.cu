__device__ __forceinline__ long long k_div_i64(long long a, long long b)
{
    if (((unsigned long long)(a | b) >> 32) == 0 && b != 0) return (unsigned int)a / (unsigned int)b;
    return b == 0 ? 0 : b == -1 ? (long long)(0ull - (unsigned long long)a) : a / b;
}
__device__ __forceinline__ long long k_mod_i64(long long a, long long b)
{
    if (((unsigned long long)(a | b) >> 32) == 0 && b != 0) return (unsigned int)a % (unsigned int)b;
    return b == 0 || b == -1 ? 0 : a % b;
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
k_bias_relu(const float *in0, const float *in1, float *out0)
{
    for (long long point1 = (long long)blockIdx.x * 32 + threadIdx.x; point1 < 160ll; point1 += (long long)gridDim.x * 32) {
        const long long t1 = (long long)k_mod_i64(point1, 5ll);
        const long long t2 = (long long)k_div_i64(point1, 5ll);
        const long long t3 = (long long)((unsigned long long)t1 * (unsigned long long)4ll);
        const long long t4 = (long long)((unsigned long long)20ll - (unsigned long long)t3);
        float in1_part8[4];
        k_get<4>(in1_part8, in1, t3, t4);
        float in0_part9[4];
        const long long t5 = (long long)((unsigned long long)t2 * (unsigned long long)20ll);
        const long long t6 = (long long)((unsigned long long)t5 + (unsigned long long)t3);
        k_get<4>(in0_part9, in0, t6, t4);
        float out0_part10[4];
        #pragma unroll
        for (long long lane7 = 0ll; lane7 < 4ll; lane7 += 1) {
            const float t7 = in0_part9[lane7];
            const float t8 = in1_part8[lane7];
            const float t9 = t7 + t8;
            const bool t10 = t9 <= 0.0f;
            const float t11 = t10 ? 0.0f : t9;
            out0_part10[lane7] = t11;
        }
        const long long t12 = (long long)((unsigned long long)t2 * (unsigned long long)20ll);
        const long long t13 = (long long)((unsigned long long)t12 + (unsigned long long)t3);
        k_put<4>(out0_part10, out0, t13, t4);
    }
}
