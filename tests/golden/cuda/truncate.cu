__device__ __forceinline__ long long k_f64_to_i64(double a)
{ return a >= -0x1p63 && a < 0x1p63 ? (long long)a : (long long)0x8000000000000000ull; }
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
k_truncate(const double *in0, long long *out0)
{
    for (long long point1 = (long long)blockIdx.x * 32 + threadIdx.x; point1 < 25ll; point1 += (long long)gridDim.x * 32) {
        const long long t1 = (long long)((unsigned long long)point1 * (unsigned long long)2ll);
        const long long t2 = (long long)((unsigned long long)50ll - (unsigned long long)t1);
        double in0_part6[2];
        k_get<2>(in0_part6, in0, t1, t2);
        long long out0_part7[2];
        #pragma unroll
        for (long long lane5 = 0ll; lane5 < 2ll; lane5 += 1) {
            const double t3 = in0_part6[lane5];
            const long long t4 = k_f64_to_i64(t3);
            const long long t5 = (long long)((unsigned long long)t4 * (unsigned long long)t4);
            out0_part7[lane5] = t5;
        }
        k_put<2>(out0_part7, out0, t1, t2);
    }
}
