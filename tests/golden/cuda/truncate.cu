__device__ __forceinline__ long long k_f64_to_i64(double a)
{ return a >= -0x1p63 && a < 0x1p63 ? (long long)a : (long long)0x8000000000000000ull; }
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
extern "C" __global__ void __launch_bounds__(256, 1)
k_truncate(const double *in0, long long *out0)
{
    for (long long point1 = (long long)blockIdx.x * 256 + threadIdx.x; point1 < 25ll; point1 += (long long)gridDim.x * 256) {
        const long long t1 = (long long)((unsigned long long)point1 * (unsigned long long)2ll);
        const long long t2 = (long long)((unsigned long long)50ll - (unsigned long long)t1);
        double in0_part6[2];
        k_get(in0_part6, &in0[t1], t2);
        long long out0_part7[2];
        #pragma unroll
        for (long long lane5 = 0ll; lane5 < 2ll; lane5 += 1) {
            const double t3 = in0_part6[lane5];
            const long long t4 = k_f64_to_i64(t3);
            const long long t5 = (long long)((unsigned long long)t4 * (unsigned long long)t4);
            out0_part7[lane5] = t5;
        }
        k_put(out0_part7, &out0[t1], t2);
    }
}
