// What CUDA C needs to be compiled for a CPU: no other header, so that nothing is known here that NVRTC does not know.
// The runtime (shim_runtime.cpp) runs the threads of a block as fibers; shim.py puts both around a kernel's text.
#define __global__ __attribute__((visibility("hidden")))
#define __device__ static
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __restrict__ __restrict
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
    const unsigned char *sizes, *pointers;  // of the parameters
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
    static constexpr unsigned char sizes[] = {sizeof(P)..., 0}, pointers[] = {ShimPointer<P>::is..., 0};
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
