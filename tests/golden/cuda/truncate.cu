__device__ __forceinline__ long long k_f64_to_i64(double a)
{ return a >= -0x1p63 && a < 0x1p63 ? (long long)a : (long long)0x8000000000000000ull; }
extern "C" __global__ void __launch_bounds__(256, 1)
k_truncate(const double *in0, long long *out0)
{
    for (long long point1 = (long long)blockIdx.x * 256 + threadIdx.x; point1 < 50ll; point1 += (long long)gridDim.x * 256) {
        const double t1 = in0[point1];
        const long long t2 = k_f64_to_i64(t1);
        const long long t3 = (long long)((unsigned long long)t2 * (unsigned long long)t2);
        out0[point1] = t3;
    }
}
