// What CUDA C needs to be compiled for a CPU: no other header, so that nothing is known here that NVRTC does not know.
// The runtime (shim_runtime.cpp) runs the threads of a block as fibers; shim.py puts both around a kernel's text.
#define __global__ __attribute__((visibility("hidden")))
#define __device__ __attribute__((visibility("hidden")))
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __restrict__ __restrict
#define __trap __builtin_trap
#define SHIM_SECTION_OF(name) __attribute__((section("shim_" #name)))
#define SHIM_SECTION(name) SHIM_SECTION_OF(name)
#define __shared__ static SHIM_SECTION(SHIM_NAME)

struct uint3 { unsigned x, y, z; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }

struct ShimThread { uint3 index; unsigned lane; };
struct ShimKernel {
    void (*body)(void **);
    const unsigned short *sizes, *pointers;  // of the parameters
    char *shared_begin, *shared_end;
    unsigned count, threads;
};
extern "C" {
extern ShimThread *shim_thread;
extern uint3 shim_block, shim_block_size, shim_grid_size;
extern char *shim_dynamic;
void shim_barrier(int line);
void shim_exchange(unsigned mask, const void *value, unsigned bytes, int op, int line);
bool shim_lane(void *value, unsigned bytes, unsigned lane);
void shim_copy(void *to, const void *from, unsigned bytes);
void shim_copies_group();
void shim_copies_end(unsigned but);
}
#define threadIdx (shim_thread->index)
#define blockIdx shim_block
#define blockDim shim_block_size
#define gridDim shim_grid_size
#define warpSize 32

// ------------------------------------------------------------------------------------------- threads that meet
static inline void __syncthreads(int line = __builtin_LINE()) { shim_barrier(line); }
static inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) { shim_exchange(mask, &mask, 4, 1, line); }
template <class T> static inline T shim_shuffle(unsigned mask, T value, unsigned lane, bool moves, int op, int line) {
    shim_exchange(mask, &value, sizeof(T), op, line);
    if (moves) shim_lane(&value, sizeof(T), lane);
    return value;
}
template <class T> static inline T __shfl_sync(unsigned m, T v, int from, int width = 32, int line = __builtin_LINE()) {
    return shim_shuffle(m, v, (shim_thread->lane & ~(width - 1)) | (from & (width - 1)), true, 2, line);
}
template <class T> static inline T __shfl_xor_sync(unsigned m, T v, int x, int width = 32, int line = __builtin_LINE()) {
    const unsigned from = shim_thread->lane ^ x;
    return shim_shuffle(m, v, from, from / width <= shim_thread->lane / width, 3, line);
}
template <class T> static inline T __shfl_down_sync(unsigned m, T v, unsigned d, int width = 32, int line = __builtin_LINE()) {
    const unsigned lane = shim_thread->lane;
    return shim_shuffle(m, v, lane + d, (lane & (width - 1)) + d < (unsigned)width, 4, line);
}
template <class T> static inline T __shfl_up_sync(unsigned m, T v, unsigned d, int width = 32, int line = __builtin_LINE()) {
    const unsigned lane = shim_thread->lane;
    return shim_shuffle(m, v, lane - d, (lane & (width - 1)) >= d, 5, line);
}
static inline unsigned __ballot_sync(unsigned m, int p, int line = __builtin_LINE()) {
    unsigned all = 0;
    shim_exchange(m, &p, 4, 6, line);
    for (unsigned k = 0; k < 32; k++) {
        int q = 0;
        if (m >> k & 1 && shim_lane(&q, 4, k) && q) all |= 1u << k;
    }
    return all;
}
static inline int __any_sync(unsigned m, int p, int line = __builtin_LINE()) { return __ballot_sync(m, p, line) != 0; }
static inline int __all_sync(unsigned m, int p, int line = __builtin_LINE()) { return __ballot_sync(m, !p, line) == 0; }

// Threads run one at a time between two meetings, so that plain reads and writes are atomic.
template <class T> static inline T atomicAdd(T *p, T v) { T old = *p; *p = old + v; return old; }
template <class T> static inline T atomicMax(T *p, T v) { T old = *p; if (v > old) *p = v; return old; }
template <class T> static inline T atomicMin(T *p, T v) { T old = *p; if (v < old) *p = v; return old; }
template <class T> static inline T atomicOr(T *p, T v) { T old = *p; *p = old | v; return old; }
template <class T> static inline T atomicExch(T *p, T v) { T old = *p; *p = v; return old; }
template <class T> static inline T atomicCAS(T *p, T want, T v) { T old = *p; if (old == want) *p = v; return old; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <class T> static inline T __ldg(const T *p) { return *p; }

// ------------------------------------------------------------------------------------------------- arithmetic
template <class To, class From> static inline To shim_bits(From x) { To y; __builtin_memcpy(&y, &x, sizeof(To)); return y; }
static inline unsigned __float_as_uint(float x) { return shim_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return shim_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return shim_bits<float>(x); }
static inline float __int_as_float(int x) { return shim_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return shim_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return shim_bits<double>(x); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
static inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }
static inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline float fabsf(float a) { return __builtin_fabsf(a); }
static inline double fabs(double a) { return __builtin_fabs(a); }
static inline float rintf(float a) { return __builtin_rintf(a); }
static inline double rint(double a) { return __builtin_rint(a); }
static inline float floorf(float a) { return __builtin_floorf(a); }
static inline double floor(double a) { return __builtin_floor(a); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }

// ---------------------------------------------------------------------------- what kernels have assembly for
// Fragments lie as PTX says: lane 4 * g + t, registers of two 16-bit numbers each.
#define __cvta_generic_to_shared(p) ((unsigned long long)(p))
static inline float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
static inline float shim_widen_bfloat16(unsigned x) { return __uint_as_float(x << 16); }
static inline float shim_widen_float16(unsigned x) {
    const unsigned e = x >> 10 & 31, m = x & 1023, sign = (x & 0x8000) << 16;
    if (e == 31) return __uint_as_float(sign | 0x7f800000 | m << 13);
    if (e) return __uint_as_float(sign | (e + 112) << 23 | m << 13);
    return __uint_as_float(sign | __float_as_uint(m * 0x1p-24f));
}
static inline unsigned shim_round_bfloat16(float f) {
    const unsigned x = __float_as_uint(f);
    return f != f ? 0x7fff : (x + 0x7fff + (x >> 16 & 1)) >> 16;
}
static inline unsigned shim_round_float16(float f) {
    const unsigned sign = __float_as_uint(f) >> 16 & 0x8000;
    const float a = fabsf(f);
    if (f != f) return 0x7fff;
    if (a >= 65520) return sign | 0x7c00;
    if (a < 0x1p-14f) return sign | (unsigned)rintf(a * 0x1p24f);
    const unsigned x = __float_as_uint(a) - (112u << 23);
    return sign | (x + 0xfff + (x >> 13 & 1)) >> 13;
}
static inline unsigned k_pair_bfloat16(float low, float high) { return shim_round_bfloat16(low) | shim_round_bfloat16(high) << 16; }
static inline unsigned k_pair_float16(float low, float high) { return shim_round_float16(low) | shim_round_float16(high) << 16; }
static inline float k_exp2(float x) {  // within a few units of the last place, as ex2.approx is
    if (x != x) return x;
    if (x >= 128) return __uint_as_float(0x7f800000);
    if (x < -126) return 0;
    const float whole = rintf(x), t = (x - whole) * 0x1.62e43p-1f;
    float sum = 1;
    for (int k = 7; k; k--) sum = 1 + sum * t / k;
    return sum * __uint_as_float((unsigned)((int)whole + 127) << 23);
}
struct ShimOperands { unsigned a[4], b[2]; };
template <float (*widen)(unsigned)>
static inline void shim_mma(float (&sum)[4], const unsigned (&a)[4], unsigned b, unsigned c, int line) {
    const ShimOperands mine = {{a[0], a[1], a[2], a[3]}, {b, c}};
    shim_exchange(~0u, &mine, sizeof mine, 7, line);
    const unsigned g = shim_thread->lane >> 2, t = shim_thread->lane & 3;
    float rows[2][16], columns[2][16];
    for (unsigned from = 0; from < 4; from++) {  // elements 2 * from, 2 * from + 1, and those 8 further
        ShimOperands left, right[2];
        shim_lane(&left, sizeof left, g * 4 + from);
        for (unsigned k = 0; k < 2; k++) shim_lane(&right[k], sizeof mine, (2 * t + k) * 4 + from);
        for (unsigned k = 0; k < 2; k++)
            for (unsigned far = 0; far < 2; far++)
                for (unsigned half = 0; half < 2; half++) {
                    const unsigned at = far * 8 + 2 * from + half;
                    rows[k][at] = widen(left.a[k + 2 * far] >> 16 * half & 0xffff);
                    columns[k][at] = widen(right[k].b[far] >> 16 * half & 0xffff);
                }
    }
    for (unsigned e = 0; e < 4; e++)
        for (unsigned k = 0; k < 16; k++) sum[e] += rows[e >> 1][k] * columns[e & 1][k];
}
static inline void k_mma_bfloat16(float (&d)[4], const unsigned (&a)[4], unsigned b, unsigned c, int line = __builtin_LINE()) {
    shim_mma<shim_widen_bfloat16>(d, a, b, c, line);
}
static inline void k_mma_float16(float (&d)[4], const unsigned (&a)[4], unsigned b, unsigned c, int line = __builtin_LINE()) {
    shim_mma<shim_widen_float16>(d, a, b, c, line);
}
static inline void shim_matrices(unsigned (&to)[4], unsigned long long row, bool turned, int line) {
    if (row % 16) __builtin_trap();
    shim_exchange(~0u, &row, sizeof row, turned ? 9 : 8, line);
    const unsigned g = shim_thread->lane >> 2, t = shim_thread->lane & 3;
    for (unsigned k = 0; k < 4; k++) {
        to[k] = 0;
        for (unsigned half = 0; half < 2; half++) {
            unsigned long long from;
            shim_lane(&from, sizeof from, k * 8 + (turned ? 2 * t + half : g));
            to[k] |= ((const unsigned short *)from)[turned ? g : 2 * t + half] << 16 * half;
        }
    }
}
static inline void k_matrices(unsigned (&to)[4], unsigned long long row, int line = __builtin_LINE()) { shim_matrices(to, row, false, line); }
static inline void k_matrices_turned(unsigned (&to)[4], unsigned long long row, int line = __builtin_LINE()) { shim_matrices(to, row, true, line); }
static inline void k_copy_start(unsigned long long to, const unsigned short *from, bool exists) {
    if (to % 16 || (exists && (unsigned long long)from % 16)) __builtin_trap();
    shim_copy((void *)to, exists ? from : nullptr, 16);
}
static inline void k_copies_group() { shim_copies_group(); }
static inline void k_copies_but_last() { shim_copies_end(1); }
static inline void k_copies_end() { shim_copies_end(~0u); }

// --------------------------------------------------------------------------------- what the runtime calls a kernel by
template <int... I> struct ShimIndices {};
#ifdef __clang__
template <class T, T... I> struct ShimMake { typedef ShimIndices<I...> made; };
template <int N> using ShimFirst = typename __make_integer_seq<ShimMake, int, N>::made;
#else
template <int N> using ShimFirst = ShimIndices<__integer_pack(N)...>;
#endif
template <class T> struct ShimPointer { enum { is = 0 }; };
template <class T> struct ShimPointer<T *> { enum { is = 1 }; };
template <class T> struct ShimPlain { typedef T type; };
template <class T> struct ShimPlain<const T> { typedef T type; };
template <class... P> struct ShimSignature {
    enum { count = sizeof...(P) };
    static constexpr unsigned short sizes[] = {sizeof(P)..., 0}, pointers[] = {ShimPointer<P>::is..., 0};
    template <int... I> static inline void call(void (*kernel)(P...), void **a, ShimIndices<I...>) {
        kernel(*(typename ShimPlain<P>::type *)a[I]...);
    }
};
template <class... P> ShimSignature<P...> shim_signature(void (*)(P...));
#define SHIM_KERNEL(name, most)                                                                                     \
    extern "C" char __start_shim_##name[] __attribute__((weak, visibility("hidden")));                              \
    extern "C" char __stop_shim_##name[] __attribute__((weak, visibility("hidden")));                               \
    typedef decltype(shim_signature(name)) ShimSignature_##name;                                                    \
    static void shim_body_##name(void **a) {                                                                        \
        ShimSignature_##name::call(name, a, ShimFirst<ShimSignature_##name::count>());                              \
    }                                                                                                               \
    extern "C" __attribute__((visibility("default"))) const ShimKernel shim_kernel_##name;                          \
    const ShimKernel shim_kernel_##name = {                                                                         \
        shim_body_##name, ShimSignature_##name::sizes, ShimSignature_##name::pointers,                              \
        __start_shim_##name, __stop_shim_##name, ShimSignature_##name::count, most};
