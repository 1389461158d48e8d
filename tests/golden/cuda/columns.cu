extern "C" __global__ void __launch_bounds__(32, 1)
k_columns(const double *in0, double *out0)
{
    for (long long point1 = (long long)blockIdx.x * 32 + threadIdx.x; point1 < 40ll; point1 += (long long)gridDim.x * 32) {
        double total7 = -0.0;
        for (long long start2 = 0ll; start2 < 700ll; start2 += 256) {
            const long long t1 = (long long)((unsigned long long)start2 + (unsigned long long)256ll);
            const long long t2 = t1 < 700ll ? t1 : 700ll;
            double acc5 = -0.0;
            #pragma unroll 32
            for (long long i3 = start2; i3 < t2; i3 += 1) {
                const long long t3 = (long long)((unsigned long long)i3 * (unsigned long long)40ll);
                const long long t4 = (long long)((unsigned long long)t3 + (unsigned long long)point1);
                const double t5 = in0[t4];
                const double t6 = acc5 + t5;
                acc5 = t6;
            }
            const double t7 = total7 + acc5;
            total7 = t7;
        }
        const bool t8 = 700ll == 0ll;
        const double t9 = t8 ? 0.0 : total7;
        out0[point1] = t9;
    }
}
