__device__ __forceinline__ int k_f32_to_i32(float a)
{ return a >= -0x1p31f && a < 0x1p31f ? (int)a : (int)0x80000000u; }
extern "C" __global__ void __launch_bounds__(256, 1)
k_gelu(const float *in0, float *out0)
{
    for (long long point1 = (long long)blockIdx.x * 256 + threadIdx.x; point1 < 1000ll; point1 += (long long)gridDim.x * 256) {
        const float t1 = in0[point1];
        const float t2 = t1 * 0.5f;
        const float t3 = t1 * 0x1.6a09e60000000p-1f;
        const bool t4 = t3 != t3;
        const float t5 = fabsf(t3);
        const bool t6 = t5 < 0x1.d70a3e0000000p-1f;
        const float t7 = t3 * t3;
        const float t8 = fmaf(0x1.5f8e5a0000000p-14f, t7, -0x1.ab0e580000000p-11f);
        const float t9 = fmaf(t8, t7, 0x1.54dee20000000p-8f);
        const float t10 = fmaf(t9, t7, -0x1.b810e20000000p-6f);
        const float t11 = fmaf(t10, t7, 0x1.ce2e240000000p-4f);
        const float t12 = fmaf(t11, t7, -0x1.8127440000000p-2f);
        const float t13 = fmaf(t12, t7, 0x1.06eba80000000p-3f);
        const float t14 = fmaf(t3, t13, t3);
        const bool t15 = t5 > 4.0f;
        const float t16 = t15 ? 4.0f : t5;
        const float t17 = fmaf(-0x1.e920560000000p-22f, t16, -0x1.fee4100000000p-17f);
        const float t18 = fmaf(t17, t16, 0x1.a59f9c0000000p-12f);
        const float t19 = fmaf(t18, t16, -0x1.0acf5c0000000p-8f);
        const float t20 = fmaf(t19, t16, 0x1.9877800000000p-6f);
        const float t21 = fmaf(t20, t16, -0x1.ba99a80000000p-4f);
        const float t22 = fmaf(t21, t16, -0x1.445b4e0000000p-1f);
        const float t23 = fmaf(t22, t16, -0x1.2123900000000p+0f);
        const float t24 = fmaf(t23, t16, 0x1.5616ba0000000p-13f);
        const bool t25 = t24 != t24;
        const bool t26 = t24 < -104.5f;
        const bool t27 = t24 > 89.0f;
        const float t28 = t27 ? 89.0f : t24;
        const float t29 = t26 ? -104.5f : t28;
        const float t30 = t29 * 0x1.7154760000000p+0f;
        const float t31 = rintf(t30);
        const float t32 = fmaf(t31, -0x1.62e4000000000p-1f, t29);
        const float t33 = fmaf(t31, -0x1.7f7d1c0000000p-20f, t32);
        const float t34 = t33 * t33;
        const float t35 = fmaf(0x1.6a23ac0000000p-10f, t33, 0x1.123a6c0000000p-7f);
        const float t36 = fmaf(t35, t33, 0x1.5558f40000000p-5f);
        const float t37 = fmaf(t36, t33, 0x1.5554900000000p-3f);
        const float t38 = fmaf(t37, t33, 0x1.fffffc0000000p-2f);
        const float t39 = fmaf(t34, t38, t33);
        const float t40 = t39 + 1.0f;
        const int t41 = k_f32_to_i32(t31);
        const int t42 = t41 >> 1;
        const int t43 = (int)((unsigned int)t42 + (unsigned int)127);
        const int t44 = (int)((unsigned int)t43 << 23);
        const float t45 = __int_as_float(t44);
        const float t46 = t40 * t45;
        const int t47 = (int)((unsigned int)t41 - (unsigned int)t42);
        const int t48 = (int)((unsigned int)t47 + (unsigned int)127);
        const int t49 = (int)((unsigned int)t48 << 23);
        const float t50 = __int_as_float(t49);
        const float t51 = t46 * t50;
        const float t52 = t25 ? t24 : t51;
        const float t53 = 1.0f - t52;
        const int t54 = __float_as_int(t53);
        const int t55 = __float_as_int(t3);
        const int t56 = t55 & (-2147483647 - 1);
        const int t57 = t54 | t56;
        const float t58 = __int_as_float(t57);
        const float t59 = t6 ? t14 : t58;
        const float t60 = t4 ? t3 : t59;
        const float t61 = t60;
        const float t62 = t61 + 1.0f;
        const float t63 = t2 * t62;
        out0[point1] = t63;
    }
}
