"""What one block of threads does to a matrix, as C templates over its numbers: the steps of LU,
Cholesky and QR factorisations, substitution, products, determinants.

Matrices are row-major: element (i, j) of `a` is a[i * ld + j]; those that are only read may have any strides (`r` from
row to row, `c` from column to column). Work goes by panels of 32 columns (or rows): a panel is factored column by
column, what is right of it (in strips of 32 columns) is then changed by products. Where threads add to one number, the
order of the additions follows from the sizes alone. Every function ends with all threads seeing what was written,
unless it says otherwise.
"""

from __future__ import annotations

from typing import Final

LU: Final = """\
template <class R> __device__ __forceinline__ bool k_pivots_before(R s, long long i, R t, long long j)
{
    const bool more = s > t || (s != s && t == t), less = t > s || (t != t && s == s);
    return more || (!less && i < j);
}
template <class T, class R>
__device__ __noinline__ void k_lu(T *a, long long ld, long long m, long long n, int *pivots, long long first,
    R *sizes, int *places)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    R best = -1;
    long long at = 0;
    if (lane == 0)
        #pragma unroll 4
        for (long long i = warp; i < m; i += warps) {
            const R s = k_size(a[i * ld]);
            if (k_pivots_before(s, i, best, at)) best = s, at = i;
        }
    #pragma unroll 1
    for (long long j = 0; j < m && j < n; j++) {
        if (lane == j % 32) sizes[warp] = best, places[warp] = at;
        __syncthreads();
        best = sizes[0], at = places[0];
        for (int w = 1; w < warps; w++)
            if (k_pivots_before(sizes[w], (long long)places[w], best, at)) best = sizes[w], at = places[w];
        const long long p = at;
        if (threadIdx.x == 0) pivots[j] = (int)(first + p + 1);
        if (p != j)
            #pragma unroll 1
            for (long long c = threadIdx.x; c < n; c += blockDim.x) {
                const T x = a[j * ld + c];
                a[j * ld + c] = a[p * ld + c];
                a[p * ld + c] = x;
            }
        __syncthreads();
        const T pivot = a[j * ld + j];
        #pragma unroll 1
        for (long long i = j + 1 + threadIdx.x; i < m && !k_is_zero(pivot); i += blockDim.x)
            a[i * ld + j] = k_div(a[i * ld + j], pivot);
        __syncthreads();
        best = -1, at = j + 1;
        #pragma unroll 1
        for (long long i = j + 1 + warp; i < m; i += 4 * warps) {
            #pragma unroll 1
            for (long long c = j - j % 32 + lane; c < n; c += 32) if (c > j) {
                const T right = a[j * ld + c];
                #pragma unroll
                for (int q = 0; q < 4; q++) {
                    const long long k = i + q * warps;
                    if (k < m) {
                        const T y = k_fms(a[k * ld + j], right, a[k * ld + c]);
                        a[k * ld + c] = y;
                        if (c == j + 1 && k_pivots_before(k_size(y), k, best, at)) best = k_size(y), at = k;
                    }
                }
            }
        }
    }
    __syncthreads();
}"""
"""Gaussian elimination of an m x n matrix with partial pivoting: the pivot is the first of the largest by |re| + |im|,
or the first NaN. `pivots` are counted from `first` + 1. A column of zeros is passed. `sizes`, `places`: one
per warp, in shared memory."""

FIRST_ZERO: Final = """\
template <class T> __device__ int k_first_zero(const T *a, long long step, long long n, int *found)
{
    if (threadIdx.x == 0) *found = 0x7fffffff;
    __syncthreads();
    for (long long i = threadIdx.x; i < n; i += blockDim.x) if (k_is_zero(a[i * step])) atomicMin(found, (int)i + 1);
    __syncthreads();
    const int first = *found;
    __syncthreads();
    return first == 0x7fffffff ? 0 : first;
}"""
"""Where on a diagonal, whose elements lie `step` apart, the first zero is, from 1, to all threads; 0: nowhere. `found`:
an int in shared memory."""

ORDER: Final = """\
template <class I> __device__ void k_order(const int *pivots, long long step, long long k, long long rows, I *order)
{
    for (long long i = threadIdx.x; i < rows; i += blockDim.x) order[i] = (I)i;
    __syncthreads();
    if (threadIdx.x == 0)
        for (long long j = 0; j < k; j++) {
            const long long p = (long long)pivots[j * step] - 1;
            if (p < 0 || p >= rows) continue;
            const I moved = order[j];
            order[j] = order[p];
            order[p] = moved;
        }
    __syncthreads();
}"""
"""The order of rows after exchanges; what is none is left out."""

DOWNDATE: Final = """\
template <class T>
__device__ __noinline__ void k_downdate(const T *a, long long r, long long c, T *x, long long ld, long long rows,
    int inner, int columns, const T *y)
{
    const int wide = columns > 16 ? 32 : columns > 8 ? 16 : columns > 4 ? 8 : columns > 2 ? 4 : columns;
    const int at = threadIdx.x % wide, step = blockDim.x / wide;
    if (at < columns)
        #pragma unroll 1
        for (long long i = threadIdx.x / wide; i < rows; i += 4 * step) {
            T sum[4];
            #pragma unroll
            for (int q = 0; q < 4; q++) if (i + q * step < rows) sum[q] = x[(i + q * step) * ld + at];
            #pragma unroll 2
            for (int k = 0; k < inner; k++) {
                const T right = y[k * 32 + at];
                #pragma unroll
                for (int q = 0; q < 4; q++)
                    if (i + q * step < rows) sum[q] = k_fms(a[(i + q * step) * r + k * c], right, sum[q]);
            }
            #pragma unroll
            for (int q = 0; q < 4; q++) if (i + q * step < rows) x[(i + q * step) * ld + at] = sum[q];
        }
    __syncthreads();
}"""
"""x -= a @ y, up to 32 columns wide; y: at most 32 rows of 32 in shared memory. Ascending one by one."""

SUBSTITUTE: Final = """\
template <class T>
__device__ __noinline__ void k_solve_few(const T *a, long long r, long long c, T *x, long long ld, int n, int columns,
    bool upper, bool unit, T *y)
{
    #pragma unroll 2
    for (int k = threadIdx.x; k < n * 32; k += blockDim.x) if (k % 32 < columns) y[k] = x[k / 32 * ld + k % 32];
    __syncthreads();
    if (threadIdx.x < columns)
        #pragma unroll 1
        for (int k = 0; k < n; k++) {
            const int i = upper ? n - 1 - k : k;
            T sum = y[i * 32 + threadIdx.x];
            for (int q = 0; q < k; q++) {
                const int j = upper ? n - 1 - q : q;
                sum = k_fms(a[i * r + j * c], y[j * 32 + threadIdx.x], sum);
            }
            y[i * 32 + threadIdx.x] = unit ? sum : k_div(sum, a[i * r + i * c]);
        }
    __syncthreads();
    #pragma unroll 1
    for (int k = threadIdx.x; k < n * 32; k += blockDim.x) if (k % 32 < columns) x[k / 32 * ld + k % 32] = y[k];
}
template <class T>
__device__ __noinline__ void k_substitute(const T *a, long long r, long long c, T *x, long long ld, long long n,
    int columns, bool upper, bool unit, T *y)
{
    #pragma unroll 1
    for (long long k = 0; k < n; k += 32) {
        const long long start = upper ? (n - 1) / 32 * 32 - k : k, stop = start + 32 < n ? start + 32 : n;
        const int inner = (int)(stop - start);
        k_solve_few(a + start * (r + c), r, c, x + start * ld, ld, inner, columns, upper, unit, y);
        const long long first = upper ? 0 : stop, rows = upper ? start : n - stop;
        k_downdate(a + first * r + start * c, r, c, x + first * ld, ld, rows, inner, columns, y);
    }
}"""
"""k_substitute solves t @ x = x for a triangle t of a, up to 32 columns at a time; y: 32 x 32 numbers of shared memory.
k_solve_few is the same of up to 32 rows; it leaves the solution in y, and others must not read x before they meet."""

CHOLESKY: Final = """\
template <class T>
__device__ __noinline__ long long k_cholesky(T *a, long long ld, long long m, long long n, T *column)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    #pragma unroll 1
    for (long long j = 0; j < n; j++) {
        const typename k_real<T>::type pivot = k_re(a[j * ld + j]);
        if (pivot <= 0) return j;
        const typename k_real<T>::type root = k_root(pivot);
        __syncthreads();
        #pragma unroll 1
        for (long long i = j + threadIdx.x; i < m; i += blockDim.x) {
            const T x = i == j ? k_number<T>(root) : k_over(a[i * ld + j], root);
            a[i * ld + j] = x;
            if (i < n) column[i] = k_conj(x);
        }
        __syncthreads();
        for (long long i = j + 1 + warp; i < m; i += blockDim.x / 32) {
            const T l = a[i * ld + j];
            #pragma unroll 1
            for (long long c = j + 1 + lane; c < n && c <= i; c += 32)
                a[i * ld + c] = k_fms(l, column[c], a[i * ld + c]);
        }
        __syncthreads();
    }
    return n;
}"""
"""The first n columns of the Cholesky factor of what has m >= n rows, of which the lower triangle is read and written.
Returns n, or the first column whose pivot is zero or negative; that and what follows is then not the factor's.
`column`: n numbers of shared memory."""

HOUSEHOLDER: Final = """\
template <int N, class T>
__device__ __noinline__ void k_householder(T *a, long long ld, long long m, int n, T *t, T *part, T *along)
{
    typedef typename k_real<T>::type R;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = N / 32;
    #pragma unroll 1
    for (int j = 0; j < n && j < m; j++) {
        const T alpha = a[j * ld + j];
        R big = 0;
        for (long long i = j + 1 + threadIdx.x; i < m; i += N) {
            const R s = k_most(a[i * ld + j]);
            big = s > big || s != s ? s : big;
        }
        big = k_block_max<N>(big, (R *)part);
        R sum = 0;
        if (big != 0)
            #pragma unroll 1
            for (long long i = j + 1 + threadIdx.x; i < m; i += N) {
                const T x = k_over(a[i * ld + j], big);
                sum = k_fma(k_re(x), k_re(x), k_fma(k_im(x), k_im(x), sum));
            }
        sum = k_block_sum<N>(sum, (R *)part);
        T tau = k_number<T>(0);
        if (big != 0 || k_im(alpha) != 0) {
            const R size = k_hypot(k_abs(alpha), big * k_root(sum));
            const R beta = k_re(alpha) < 0 || (k_re(alpha) == 0 && k_over((R)1, k_re(alpha)) < 0) ? size : -size;
            const T less = k_sub(alpha, k_number<T>(beta));
            tau = k_over(k_neg(less), beta);
            if (threadIdx.x == 0) a[j * ld + j] = k_number<T>(beta);
            const T scale = k_div(k_number<T>(1), less);
            for (long long i = j + 1 + threadIdx.x; i < m; i += N) a[i * ld + j] = k_mul(a[i * ld + j], scale);
        }
        __syncthreads();
        T dot = k_number<T>(0);
        if (lane < n)
            for (long long i = j + warp; i < m; i += warps) {
                const T v = i == j ? k_number<T>(1) : a[i * ld + j], x = a[i * ld + lane];
                if (lane > j) dot = k_fma(k_conj(v), x, dot);
                if (lane < j) dot = k_fma(k_conj(x), v, dot);
            }
        part[warp * 32 + lane] = dot;
        __syncthreads();
        dot = part[lane];
        for (int w = 1; w < warps; w++) dot = k_add(dot, part[w * 32 + lane]);
        if (lane > j && lane < n) {
            const T factor = k_mul(k_conj(tau), dot);
            for (long long i = j + warp; i < m; i += warps) {
                const T v = i == j ? k_number<T>(1) : a[i * ld + j];
                a[i * ld + lane] = k_fms(v, factor, a[i * ld + lane]);
            }
        }
        if (warp == 0) along[lane] = dot;
        __syncthreads();
        if (threadIdx.x < j) {
            dot = k_number<T>(0);
            #pragma unroll 1
            for (int k = threadIdx.x; k < j; k++) dot = k_fma(t[threadIdx.x * 32 + k], along[k], dot);
            t[threadIdx.x * 32 + j] = k_neg(k_mul(tau, dot));
        }
        if (threadIdx.x == j) t[j * 32 + j] = tau;
        __syncthreads();
    }
}
template <int N, class T>
__device__ __noinline__ void k_reflect(const T *v, long long ld, const T *t, T *x, long long to, long long m,
    int inner, int columns, bool adjoint, T *part, T *z)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = N / 32;
    #pragma unroll 1
    for (int first = 0; first < inner; first += 4) {
        T sum[4];
        #pragma unroll
        for (int q = 0; q < 4; q++) sum[q] = k_number<T>(0);
        if (lane < columns)
            #pragma unroll 2
            for (long long i = first + warp; i < m; i += warps) {
                const T y = x[i * to + lane];
                #pragma unroll
                for (int q = 0; q < 4; q++) {
                    const int k = first + q;
                    if (k < inner && i == k) sum[q] = k_add(sum[q], y);
                    if (k < inner && i > k) sum[q] = k_fma(k_conj(v[i * ld + k]), y, sum[q]);
                }
            }
        #pragma unroll
        for (int q = 0; q < 4; q++) part[(warp * 4 + q) * 32 + lane] = sum[q];
        __syncthreads();
        if (warp < 4) {
            T all = part[warp * 32 + lane];
            for (int w = 1; w < warps; w++) all = k_add(all, part[(w * 4 + warp) * 32 + lane]);
            z[(first + warp) * 32 + lane] = all;
        }
        __syncthreads();
    }
    #pragma unroll 1
    for (int i = warp; i < inner; i += warps) {
        T sum = k_number<T>(0);
        #pragma unroll 2
        for (int k = adjoint ? 0 : i; k < (adjoint ? i + 1 : inner); k++)
            sum = k_fma(adjoint ? k_conj(t[k * 32 + i]) : t[i * 32 + k], z[k * 32 + lane], sum);
        part[i * 32 + lane] = sum;
    }
    __syncthreads();
    if (lane < columns)
        #pragma unroll 1
        for (long long i = warp; i < m; i += warps) {
            T y = x[i * to + lane];
            for (int k = 0; k < inner && k <= i; k++)
                y = k_fms(k == i ? k_number<T>(1) : v[i * ld + k], part[k * 32 + lane], y);
            x[i * to + lane] = y;
        }
    __syncthreads();
}"""
"""k_householder: the QR factorisation of m x n numbers, n <= 32: r above the diagonal and on it, below it v, the
vectors of the reflections 1 - v tau v' (LAPACK's, geqrf), and t such that their product is 1 - v t v' (larft). `part`:
N numbers in shared memory, `along`: 32. k_reflect: x = (1 - v t v') @ x, with t' for t if `adjoint`, up to 32 columns
wide and of `inner` <= 32 reflections; `part`, `z`: 1024 numbers each in shared memory; N = 256."""

PRODUCT: Final = """\
template <class T>
__device__ __noinline__ void k_product(const T *a, const T *b, T *c, long long n, long long first, long long step,
    T *left, T *right)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long across = (n + 31) / 32;
    for (long long tile = first; tile < across * across; tile += step) {
        const long long top = tile / across * 32, start = tile % across * 32;
        T sum[4];
        #pragma unroll
        for (int q = 0; q < 4; q++) sum[q] = k_number<T>(0);
        for (long long k = 0; k < n; k += 32) {
            #pragma unroll
            for (int q = 0; q < 4; q++) {
                const int row = warp + 8 * q;
                const bool in = k + lane < n && top + row < n, has = k + row < n && start + lane < n;
                left[row * 32 + lane] = in ? a[(top + row) * n + k + lane] : k_number<T>(0);
                right[row * 32 + lane] = has ? b[(k + row) * n + start + lane] : k_number<T>(0);
            }
            __syncthreads();
            for (int p = 0; p < 32 && k + p < n; p++) {
                const T y = right[p * 32 + lane];
                #pragma unroll
                for (int q = 0; q < 4; q++) sum[q] = k_fma(left[(warp + 8 * q) * 32 + p], y, sum[q]);
            }
            __syncthreads();
        }
        #pragma unroll
        for (int q = 0; q < 4; q++)
            if (top + warp + 8 * q < n && start + lane < n) c[(top + warp + 8 * q) * n + start + lane] = sum[q];
    }
    __syncthreads();
}"""
"""c = a @ b of n x n matrices by 256 threads: tiles of 32 x 32 number `first`, `first` + `step`, ...; `left`, `right`:
1024 numbers each in shared memory. Ascending one by one."""

DETERMINANT: Final = """\
__device__ __forceinline__ int k_exponent(float x)
{ return (int)(__float_as_uint(x) >> 23 & 0xff) - 126; }
__device__ __forceinline__ int k_exponent(double x)
{ return (int)((unsigned long long)__double_as_longlong(x) >> 52 & 0x7ff) - 1022; }
__device__ __forceinline__ float k_power(int e, float) { return __uint_as_float((unsigned int)(e + 127) << 23); }
__device__ __forceinline__ double k_power(int e, double)
{ return __longlong_as_double((long long)(e + 1023) << 52); }
template <class T> __device__ void k_scaled(T &x, long long &e)
{
    typedef typename k_real<T>::type R;
    const int low = sizeof(R) == 4 ? -125 : -1021, high = sizeof(R) == 4 ? 128 : 1024;
    R most = k_most(x);
    if (most > 0 && k_exponent(most) < low) {
        x = k_times(x, k_power(64, most));
        most = k_most(x);
        e -= 64;
    }
    const int found = k_exponent(most);
    if (!(most > 0) || found > high) return;
    x = k_times(k_times(x, k_power(-(found / 2), most)), k_power(-(found - found / 2), most));
    e += found;
}
template <class T> __device__ T k_unscaled(T x, long long e)
{
    typedef typename k_real<T>::type R;
    const int most = sizeof(R) == 4 ? 126 : 1022;
    #pragma unroll 1
    for (int k = 0; k < 4 && e != 0; k++) {
        const int part = (int)(e > most ? most : e < -most ? -most : e);
        x = k_times(x, k_power(part, (R)0));
        e -= part;
    }
    return x;
}
template <int N, class T>
__device__ __noinline__ T k_determinant(const T *a, long long step, long long n, const int *pivots, T *room,
    long long *exponents)
{
    T x = k_number<T>(1);
    long long e = 0;
    bool none = false;
    #pragma unroll 1
    for (long long i = threadIdx.x; i < n; i += N) {
        none = none || k_is_zero(a[i * step]);
        x = k_mul(x, pivots[i] == i + 1 ? a[i * step] : k_neg(a[i * step]));
        k_scaled(x, e);
    }
    typedef typename k_real<T>::type R;
    none = k_block_max<N>(none ? (R)1 : (R)0, (R *)room) != 0;
    __syncthreads();
    room[threadIdx.x] = x, exponents[threadIdx.x] = e;
    __syncthreads();
    #pragma unroll 1
    for (int width = N / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) {
            x = k_mul(x, room[threadIdx.x + width]), e += exponents[threadIdx.x + width];
            k_scaled(x, e);
            room[threadIdx.x] = x, exponents[threadIdx.x] = e;
        }
        __syncthreads();
    }
    return none ? k_number<T>(0) : k_unscaled(room[0], exponents[0]);
}
template <int N, class T>
__device__ __forceinline__ void k_logarithm(const T *a, long long step, long long n, const int *pivots, T &sign,
    typename k_real<T>::type &log, T *room)
{
    typedef typename k_real<T>::type R;
    T turn = k_number<T>(1);
    R sum = 0;
    bool none = false;
    #pragma unroll 1
    for (long long i = threadIdx.x; i < n; i += N) {
        const T x = pivots[i] == i + 1 ? a[i * step] : k_neg(a[i * step]);
        const R size = k_abs(x);
        none = none || k_is_zero(x);
        turn = k_mul(turn, sizeof(T) == sizeof(R) ? k_number<T>(k_re(x) < 0 ? (R)-1 : (R)1) : k_over(x, size));
        sum += k_log(size);
    }
    sum = k_block_sum<N>(sum, (R *)room);
    none = k_block_max<N>(none ? (R)1 : (R)0, (R *)room) != 0;
    __syncthreads();
    room[threadIdx.x] = turn;
    __syncthreads();
    #pragma unroll 1
    for (int width = N / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) room[threadIdx.x] = k_mul(room[threadIdx.x], room[threadIdx.x + width]);
        __syncthreads();
    }
    sign = none ? k_number<T>(0) : room[0];
    log = none ? k_log((R)0) : sum;
}"""
"""The determinant of a factored matrix whose diagonal lies `step` apart, as a product whose parts keep exponents of
their own, so that it overflows only if its value does; and its sign and the logarithm of its magnitude. `room`,
`exponents`: N each in shared memory."""
