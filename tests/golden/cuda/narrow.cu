__device__ __forceinline__ int k_f32_to_i32(float a)
{ return a >= -0x1p31f && a < 0x1p31f ? (int)a : (int)0x80000000u; }
extern "C" __global__ void __launch_bounds__(256, 1)
k_narrow(const short *in0, const float *in1, unsigned char *out0)
{
    for (long long point1 = (long long)blockIdx.x * 256 + threadIdx.x; point1 < 50ll; point1 += (long long)gridDim.x * 256) {
        const float t1 = in1[point1];
        const int t2 = k_f32_to_i32(t1);
        const unsigned char t3 = (unsigned char)t2;
        const short t4 = in0[point1];
        const short t5 = (short)((unsigned int)t4 * (unsigned int)t4);
        const unsigned char t6 = (unsigned char)t5;
        const unsigned char t7 = t3 > t6 ? t3 : t6;
        out0[point1] = t7;
    }
}
