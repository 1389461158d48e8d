__device__ __forceinline__ void k_fail(long long *error, long long site, long long value)
{ if (atomicCAS((unsigned long long *)error, 0ull, 1ull) == 0ull) { error[1] = site; error[2] = value; } }
extern "C" __global__ void __launch_bounds__(32, 1)
k_labels(const float *in0, const long long *in1, float *out0, long long *error)
{
    for (long long point1 = (long long)blockIdx.x * 32 + threadIdx.x; point1 < 9ll; point1 += (long long)gridDim.x * 32) {
        const long long t1 = in1[point1];
        const bool t2 = t1 >= 0ll;
        const bool t3 = t1 < 10ll;
        const bool t4 = t2 & t3;
        if (!t4) k_fail(error, 0, t1);
        const long long t5 = (long long)((unsigned long long)point1 * (unsigned long long)10ll);
        const long long t6 = t4 ? t1 : 0ll;
        const long long t7 = (long long)((unsigned long long)t5 + (unsigned long long)t6);
        const float t8 = in0[t7];
        out0[point1] = t8;
    }
}
