__device__ __forceinline__ long long k_div_i64(long long a, long long b)
{ return b == 0 ? 0 : b == -1 ? (long long)(0ull - (unsigned long long)a) : a / b; }
__device__ __forceinline__ long long k_mod_i64(long long a, long long b)
{ return b == 0 || b == -1 ? 0 : a % b; }
extern "C" __global__ void __launch_bounds__(256, 1)
k_bias_relu(const float *in0, const float *in1, float *out0)
{
    for (long long point1 = (long long)blockIdx.x * 256 + threadIdx.x; point1 < 640ll; point1 += (long long)gridDim.x * 256) {
        const long long t1 = (long long)k_mod_i64(point1, 20ll);
        const long long t2 = (long long)k_div_i64(point1, 20ll);
        const float t3 = in1[t1];
        const long long t4 = (long long)((unsigned long long)t2 * (unsigned long long)20ll);
        const long long t5 = (long long)((unsigned long long)t4 + (unsigned long long)t1);
        const float t6 = in0[t5];
        const float t7 = t6 + t3;
        const bool t8 = t7 <= 0.0f;
        const float t9 = t8 ? 0.0f : t7;
        const long long t10 = (long long)((unsigned long long)t2 * (unsigned long long)20ll);
        const long long t11 = (long long)((unsigned long long)t10 + (unsigned long long)t1);
        out0[t11] = t9;
    }
}
