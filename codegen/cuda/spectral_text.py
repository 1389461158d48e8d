"""The texts of spectra on a GPU: reflections, implicit QL with shifts, one-sided Jacobi rotations.

A block of threads works on one matrix of a stack; what is done column by column (products of reflections, what is
stored at the end) is shared out among all warps. Sums are those of 32 lanes, which then add in a tree, so that no
result depends on how many threads there are. Matrices are scaled by a power of two first, the largest element to 1.
Lengths, angles and tridiagonal matrices are doubles whatever the numbers are.
"""

from __future__ import annotations

from typing import Final

WARPS: Final = """\
__device__ __forceinline__ double k_warp_sum(double x)
{
    #pragma unroll
    for (int k = 16; k; k >>= 1) x += __shfl_xor_sync(0xffffffffu, x, k);
    return x;
}
template <class T> __device__ __forceinline__ T k_warp_total(T x)
{
    #pragma unroll
    for (int k = 16; k; k >>= 1) x = k_add(x, k_swapped(x, k));
    return x;
}
template <class T> __device__ __forceinline__ double k_square(T x)
{
    const double re = k_re(x), im = k_im(x);
    return fma(re, re, im * im);
}
template <class T> __device__ __forceinline__ T k_scaled(T x, double by)
{
    k_set(x, (typename k_real<T>::type)(k_re(x) * by), (typename k_real<T>::type)(k_im(x) * by));
    return x;
}
__device__ __forceinline__ bool k_finite(double x) { return fabs(x) <= 0x1.fffffffffffffp1023; }
__device__ __forceinline__ double k_block_most(double x, double *room)
{
    #pragma unroll
    for (int k = 16; k; k >>= 1) {
        const double other = __shfl_xor_sync(0xffffffffu, x, k);
        if (other > x || other != other) x = other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    for (unsigned k = 0; k < blockDim.x / 32; k++)
        if (room[k] > x || room[k] != room[k]) x = room[k];
    return x;
}
__device__ __forceinline__ double k_power(double most)
{
    long long e = __double_as_longlong(most) >> 52;
    e = e < 1 || most == 0 ? (most == 0 ? 1023 : 1) : e > 2045 ? 2045 : e;
    return __longlong_as_double(e << 52);
}"""
"""k_block_most(x, room): the largest x of a block's threads, NaN if there is one. k_power(x): the power of two below
x > 0, 1 for 0; its reciprocal is a number, too."""

REFLECT: Final = """\
template <class T> __device__ __forceinline__ double k_reflect(T *x, long long first, long long n, bool turned, T *tau)
{
    const int lane = threadIdx.x & 31;
    double rest = 0;
    #pragma unroll 1
    for (long long i = first + 1 + lane; i < n; i += 32) rest += k_square(x[i]);
    rest = k_warp_sum(rest);
    const double re = k_re(x[first]), im = turned ? -(double)k_im(x[first]) : (double)k_im(x[first]);
    const double all = fma(re, re, fma(im, im, rest));
    __syncwarp();
    if (all < 1e-200 || (rest == 0 && im == 0)) {
        if (lane == 0) k_set(*tau, 0, 0);
        #pragma unroll 1
        for (long long i = first + lane; i < n; i += 32) k_set(x[i], i == first, 0);
        return all < 1e-200 ? 0 : re;
    }
    const double length = __dsqrt_rn(all), beta = re > 0 ? -length : length;
    const double p = re - beta, square = fma(p, p, im * im), a = __ddiv_rn(p, square), b = -__ddiv_rn(im, square);
    #pragma unroll 1
    for (long long i = first + lane; i < n; i += 32) {
        const double u = k_re(x[i]), v = turned ? -(double)k_im(x[i]) : (double)k_im(x[i]);
        if (i == first) k_set(x[i], 1, 0);
        else k_set(x[i], (typename k_real<T>::type)fma(u, a, -(v * b)), (typename k_real<T>::type)fma(u, b, v * a));
    }
    typedef typename k_real<T>::type R;
    if (lane == 0) k_set(*tau, (R)__ddiv_rn(beta - re, beta), (R)-__ddiv_rn(im, beta));
    return beta;
}
template <class T>
__device__ __forceinline__ void k_apply(const T *v, T tau, T *x, long long first, long long n)
{
    const int lane = threadIdx.x & 31;
    const long long start = first - first % 32 + lane + (lane < first % 32 ? 32 : 0);
    T sum = k_number<T>(0);
    for (long long i = start; i < n; i += 32) sum = k_fma(k_conj(v[i]), x[i], sum);
    const T factor = k_mul(tau, k_warp_total(sum));
    for (long long i = start; i < n; i += 32) x[i] = k_fms(v[i], factor, x[i]);
}"""
"""k_reflect: a warp finds v and tau, with which 1 - conj(tau) v v' turns x[first:n] (`turned`: its conjugate) to the
returned number and zeros; v, which begins with 1, takes the place of x. k_apply: a warp takes tau v (v' x) from x; each
lane has elements of its own."""

TRIDIAGONAL: Final = """
__shared__ double room[16];
const int t = threadIdx.x, lane = t % 32, warp = t / 32, count = blockDim.x, warps = count / 32;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    @T@ *const a = work + b * n * n, *const p = taus + 2 * n * b + n, *const tau = taus + 2 * n * b;
    double *const d = numbers + b * (4 * n + 1), *const e = d + n;
    const @T@ *const from = @at@;
    double most = 0;
    #pragma unroll 1
    for (long long k = t; k < n * n; k += count) {
        const long long i = (unsigned)k / (unsigned)n, j = (unsigned)k % (unsigned)n;
        @T@ x = (upper ? i <= j : i >= j) ? from[i * in0_r + j * in0_c] : k_conj(from[j * in0_r + i * in0_c]);
        if (i == j) k_set(x, k_re(x), 0);
        a[k] = x;
        const double own = k_most(x);
        most = own > most || own != own ? own : most;
    }
    most = k_block_most(most, room);
    if (t == 0) info[b] = k_finite(most) ? 0 : 1;
    if (!k_finite(most)) continue;
    const double back = k_power(most), scale = __ddiv_rn(1, back);
    if (t == 0) d[4 * n] = back;
    #pragma unroll 1
    for (long long k = t; k < n * n; k += count) a[k] = k_scaled(a[k], scale);
    __syncthreads();
    for (long long k = 0; k + 1 < n; k++) {
        @T@ *const v = a + k * n;
        if (warp == 0) {
            const double found = k_reflect(v, k + 1, n, true, tau + k);
            if (lane == 0) d[k] = k_re(v[k]), e[k] = found;
        }
        __syncthreads();
        const @T@ turn = tau[k];
        for (long long i = k + 1 + warp; i < n; i += warps) {
            @T@ sum = k_number<@T@>(0);
            for (long long j = k + 1 + lane; j < n; j += 32) sum = k_fma(a[i * n + j], v[j], sum);
            sum = k_mul(turn, k_warp_total(sum));
            if (lane == 0) p[i] = sum;
        }
        __syncthreads();
        @T@ sum = k_number<@T@>(0);
        for (long long i = k + 1 + lane; i < n; i += 32) sum = k_fma(k_conj(p[i]), v[i], sum);
        const @T@ half = k_times(k_mul(turn, k_warp_total(sum)), (@R@)-0.5);
        __syncthreads();
        #pragma unroll 1
        for (long long i = k + 1 + t; i < n; i += count) p[i] = k_fma(half, v[i], p[i]);
        __syncthreads();
        for (long long i = k + 1 + warp; i < n; i += warps) {
            const @T@ vi = v[i], pi = p[i];
            for (long long j = k + 1 + lane; j < n; j += 32) {
                const @T@ x = k_fms(vi, k_conj(p[j]), a[i * n + j]);
                a[i * n + j] = k_fms(pi, k_conj(v[j]), x);
            }
        }
        __syncthreads();
    }
    if (t == 0 && n > 0) d[n - 1] = k_re(a[n * n - 1]), e[n - 1] = 0;
    __syncthreads();
}"""
"""Householder's reduction of Hermitian matrices to real tridiagonal ones: row k of `work` keeps reflection k."""

FORM: Final = """
const int lane = threadIdx.x % 32;
const long long step = (long long)gridDim.x * 8;
for (long long at = (long long)blockIdx.x * 8 + threadIdx.x / 32; at < batch * n; at += step) {
    const long long b = at / n, j = at % n;
    if (info[b]) continue;
    const @T@ *const a = work + b * n * n, *const tau = taus + 2 * n * b;
    @T@ *const x = basis + at * n;
    #pragma unroll 1
    for (long long i = lane; i < n; i += 32) k_set(x[i], i == j, 0);
    for (long long k = j - 1; k >= 0; k--) k_apply(a + k * n, tau[k], x, k + 1, n);
}"""
"""The product of the reflections, column by column."""

QL: Final = """
__shared__ long long low, high;
const int t = threadIdx.x, lane = t % 32, count = blockDim.x;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    if (info[b]) continue;
    @T@ *const v = basis + b * n * n;
    double *const d = numbers + b * (4 * n + 1), *const e = d + n, *const turns = e + n;
    long long at = 0, left = 50;
    for (;;) {
        if (t < 32) {
            long long m = at;
            for (; at < n && left > 0; at++, left = 50) {
                for (m = at; m < n - 1; m += 32) {
                    const long long i = m + lane;
                    const bool ends = i >= n - 1 || fabs(e[i]) <= @small@ * (fabs(d[i]) + fabs(d[i + 1])) + 1e-150;
                    const unsigned found = __ballot_sync(0xffffffffu, ends);
                    if (found) { m += __ffs(found) - 1; break; }
                }
                if (m > n - 1) m = n - 1;
                if (m != at) break;
            }
            if (lane == 0) {
                low = at < n && left > 0 ? at : -1, high = m;
                if (at < n && left == 0) info[b] = 2;
                if (low >= 0) {
                    double g = __ddiv_rn(d[at + 1] - d[at], 2 * e[at]);
                    const double wide = g > 1e8 || g < -1e8 ? fabs(g) : __dsqrt_rn(fma(g, g, 1.0));
                    g = d[m] - d[at] + __ddiv_rn(e[at], g < 0 ? g - wide : g + wide);
                    double s = 1, c = 1, p = 0;
                    long long i = m - 1;
                    for (; i >= at; i--) {
                        const double f = s * e[i], h = c * e[i], r = __dsqrt_rn(fma(f, f, g * g));
                        e[i + 1] = r;
                        if (r == 0) break;
                        s = __ddiv_rn(f, r), c = __ddiv_rn(g, r);
                        turns[2 * i] = c, turns[2 * i + 1] = s;
                        g = d[i + 1] - p;
                        const double q = fma(d[i] - g, s, 2 * c * h);
                        p = s * q;
                        d[i + 1] = g + p;
                        g = fma(c, q, -h);
                    }
                    if (i >= at) {
                        d[i + 1] -= p;
                        for (; i >= at; i--) turns[2 * i] = 1, turns[2 * i + 1] = 0;
                    } else {
                        d[at] -= p, e[at] = g;
                    }
                    e[m] = 0;
                }
            }
            left--;
        }
        __syncthreads();
        const long long start = low, stop = high;
        if (start < 0) break;
        for (long long k = t; k < n; k += count) {
            @T@ x = v[stop * n + k];
            for (long long i = stop - 1; i >= start; i -= 4) {
                @T@ y[4];
                #pragma unroll
                for (int q = 0; q < 4; q++) if (i - q >= start) y[q] = v[(i - q) * n + k];
                #pragma unroll
                for (int q = 0; q < 4; q++) {
                    if (i - q < start) break;
                    const @R@ c = (@R@)turns[2 * (i - q)], s = (@R@)turns[2 * (i - q) + 1];
                    v[(i - q + 1) * n + k] = k_add(k_times(y[q], s), k_times(x, c));
                    x = k_sub(k_times(y[q], c), k_times(x, s));
                }
            }
            v[start * n + k] = x;
        }
        __syncthreads();
    }
    __syncthreads();
}"""
"""Implicit QL with Wilkinson's shift (Wilkinson and Reinsch, II/4): one thread finds the rotations of a sweep, all
apply them to the columns. `small`: what an element beside the diagonal is neglected below, relative to its
neighbours."""

LARGEST: Final = """\
template <class T> __device__ __forceinline__ T k_phase(const T *x, long long n)
{
    double most = -1;
    long long place = 0;
    #pragma unroll 1
    for (long long i = threadIdx.x & 31; i < n; i += 32) {
        const double own = k_square(x[i]);
        if (own > most) most = own, place = i;
    }
    #pragma unroll
    for (int k = 16; k; k >>= 1) {
        const double own = __shfl_xor_sync(0xffffffffu, most, k);
        const long long there = __shfl_xor_sync(0xffffffffu, place, k);
        if (own > most || (own == most && there < place)) most = own, place = there;
    }
    T turn = k_number<T>(1);
    if (most > 0) {
        const double over = __ddiv_rn(1, __dsqrt_rn(most));
        const T y = x[place];
        if (sizeof(T) == sizeof(typename k_real<T>::type)) k_set(turn, k_re(y) < 0 ? -1 : 1, 0);
        else k_set(turn, (typename k_real<T>::type)(k_re(y) * over), (typename k_real<T>::type)(-k_im(y) * over));
    }
    return turn;
}"""
"""A number of magnitude 1 that makes the largest element of a column (the first of equals) positive; by a warp."""

EIGH_STORE: Final = """
const int lane = threadIdx.x % 32;
const long long step = (long long)gridDim.x * 8;
for (long long at = (long long)blockIdx.x * 8 + threadIdx.x / 32; at < batch * n; at += step) {
    const long long b = at / n, j = at % n;
    if (info[b]) continue;
    const double *const d = numbers + b * (4 * n + 1);
    const double own = d[j];
    double before = 0;
    #pragma unroll 1
    for (long long i = lane; i < n; i += 32) before += d[i] < own || (d[i] == own && i < j);
    const long long place = (long long)k_warp_sum(before);
    if (lane == 0) w[b * n + place] = (@R@)(own * d[4 * n]);
    const @T@ *const x = basis + at * n;
    const @T@ turn = k_phase(x, n);
    #pragma unroll 1
    for (long long i = lane; i < n; i += 32) v[(b * n + i) * n + place] = k_mul(x[i], turn);
}"""
"""Eigenvalues and vectors in ascending order."""

SVD_FACTOR: Final = """
__shared__ double room[16];
const int t = threadIdx.x, lane = t % 32, warp = t / 32, count = blockDim.x, warps = count / 32;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    @T@ *const a = work + b * k * m, *const tau = taus + 2 * b * k;
    double *const beta = numbers + b * (3 * k + 1);
    const @T@ *const from = @at@;
    double most = 0;
    #pragma unroll 1
    for (long long q = t; q < k * m; q += count) {
        const long long j = (unsigned)q / (unsigned)m, i = (unsigned)q % (unsigned)m;
        const @T@ own = flip ? k_conj(from[j * in0_r + i * in0_c]) : from[i * in0_r + j * in0_c];
        a[q] = own;
        const double far = k_most(own);
        most = far > most || far != far ? far : most;
    }
    most = k_block_most(most, room);
    if (t == 0) info[b] = k_finite(most) ? 0 : 1;
    if (!k_finite(most)) continue;
    const double back = k_power(most), scale = __ddiv_rn(1, back);
    if (t == 0) beta[3 * k] = back;
    #pragma unroll 1
    for (long long q = t; q < k * m; q += count) a[q] = k_scaled(a[q], scale);
    __syncthreads();
    for (long long j = 0; j < k; j++) {
        if (warp == 0) {
            const double found = k_reflect(a + j * m, j, m, false, tau + j);
            if (lane == 0) beta[j] = found;
        }
        __syncthreads();
        for (long long i = j + 1 + warp; i < k; i += warps) k_apply(a + j * m, k_conj(tau[j]), a + i * m, j, m);
        __syncthreads();
    }
}"""
"""Matrices of k <= m columns, or their adjoints, scaled: a = q r."""

SVD_ROTATE: Final = """
__shared__ int turned;
const int t = threadIdx.x, lane = t % 32, warp = t / 32, count = blockDim.x, warps = count / 32;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    if (info[b]) continue;
    const @T@ *const a = work + b * k * m;
    @T@ *const x = squares + 2 * b * k * k, *const y = x + k * k;
    const double *const beta = numbers + b * (3 * k + 1);
    #pragma unroll 1
    for (long long q = t; q < k * k; q += count) {
        const long long j = (unsigned)q / (unsigned)k, i = (unsigned)q % (unsigned)k;
        if (i < j) k_set(x[q], 0, 0);
        else if (i == j) k_set(x[q], (@R@)beta[j], 0);
        else x[q] = k_conj(a[i * m + j]);
        k_set(y[q], i == j, 0);
    }
    const long long even = k + k % 2;
    const double near = @unit@ * (8 + __dsqrt_rn((double)k));
    int sweeps = 0, again = k > 1;
    for (; again && sweeps < 40; sweeps++) {
        __syncthreads();
        if (t == 0) turned = 0;
        __syncthreads();
        for (long long r = 0; r < even - 1; r++) {
            for (long long pair = warp; pair < even / 2; pair += warps) {
                const long long last = even - 1, far = even - 2 - pair + r;
                const long long one = pair == 0 ? 0 : pair + r - (pair + r > last ? last : 0);
                const long long two = 1 + far - (far >= last ? last : 0);
                const long long i = one < two ? one : two, j = one < two ? two : one;
                if (j < k && k_rotate(x + i * k, x + j * k, y + i * k, y + j * k, k, near) && lane == 0) turned = 1;
            }
            __syncthreads();
        }
        again = turned;
    }
    if (t == 0 && again) info[b] = 2;
    __syncthreads();
}"""
"""r' y = x with orthogonal columns x (Hestenes, 1958; Drmac and Veselic, 2008)."""

SVD_ARRANGE: Final = """
const int t = threadIdx.x, lane = t % 32, warp = t / 32, count = blockDim.x, warps = count / 32;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    if (info[b]) continue;
    @T@ *const x = squares + 2 * b * k * k, *const tau = taus + 2 * b * k;
    double *const size = numbers + b * (3 * k + 1) + k, *const signs = size + k;
    for (long long j = warp; j < k; j += warps) {
        double sum = 0;
        #pragma unroll 1
        for (long long i = lane; i < k; i += 32) sum += k_square(x[j * k + i]);
        sum = __dsqrt_rn(k_warp_sum(sum));
        if (lane == 0) size[j] = sum;
    }
    __syncthreads();
    for (long long j = t; j < k; j += count) {
        const double own = size[j];
        long long place = 0;
        #pragma unroll 1
        for (long long i = 0; i < k; i++) place += size[i] > own || (size[i] == own && i < j);
        order[b * k + place] = j;
    }
    __syncthreads();
    const long long *const nth = order + b * k;
    for (long long j = 0; j < k; j++) {
        if (warp == 0) {
            const double found = k_reflect(x + nth[j] * k, j, k, false, tau + k + j);
            if (lane == 0) signs[j] = found < 0 ? -1 : 1;
        }
        __syncthreads();
        for (long long i = j + 1 + warp; i < k; i += warps)
            k_apply(x + nth[j] * k, k_conj(tau[k + j]), x + nth[i] * k, j, k);
        __syncthreads();
    }
}"""
"""In descending order x is reflected to a diagonal: a = q y x' with all columns of length 1, of zeros, too."""

ROTATE: Final = """\
template <class T>
__device__ __forceinline__ bool k_rotate(T *x, T *y, T *u, T *v, long long n, double near)
{
    typedef typename k_real<T>::type R;
    const int lane = threadIdx.x & 31;
    double p = 0, q = 0, re = 0, im = 0;
    for (long long i = lane; i < n; i += 32) {
        const double a = k_re(x[i]), b = k_im(x[i]), c = k_re(y[i]), d = k_im(y[i]);
        p += fma(a, a, b * b), q += fma(c, c, d * d);
        re += fma(a, c, b * d), im += fma(a, d, -(b * c));
    }
    p = k_warp_sum(p), q = k_warp_sum(q), re = k_warp_sum(re), im = k_warp_sum(im);
    const double h = __dsqrt_rn(fma(re, re, im * im));
    if (!(h > near * __dsqrt_rn(p) * __dsqrt_rn(q) && h > (sizeof(R) == 4 ? 1e-30 : 1e-140))) return false;
    const double zeta = __ddiv_rn(q - p, 2 * h), root = __dsqrt_rn(fma(zeta, zeta, 1.0));
    const double tangent = __ddiv_rn(zeta < 0 ? -1.0 : 1.0, fabs(zeta) + root);
    const double cosine = __ddiv_rn(1, __dsqrt_rn(fma(tangent, tangent, 1.0)));
    const R sine = (R)(tangent * cosine), half = (R)__ddiv_rn(tangent * cosine, 1 + cosine);
    T turn = k_number<T>(1);
    k_set(turn, (R)__ddiv_rn(re, h), (R)-__ddiv_rn(im, h));
    const T back = k_conj(turn);
    for (long long i = lane; i < n; i += 32) {
        const T a = x[i], b = y[i], c = u[i], d = v[i];
        x[i] = k_sub(a, k_times(k_fma(b, turn, k_times(a, half)), sine));
        y[i] = k_add(b, k_times(k_sub(k_mul(a, back), k_times(b, half)), sine));
        u[i] = k_sub(c, k_times(k_fma(d, turn, k_times(c, half)), sine));
        v[i] = k_add(d, k_times(k_sub(k_mul(c, back), k_times(d, half)), sine));
    }
    return true;
}"""
"""A warp makes two columns x and y orthogonal, unless they are within `near`, and turns u and v alike. Rotations are
written with the tangent of half the angle (Rutishauser, 1966), so that many of them keep lengths."""

SVD_STORE: Final = """
const int lane = threadIdx.x % 32;
const long long step = (long long)gridDim.x * 8;
for (long long at = (long long)blockIdx.x * 8 + threadIdx.x / 32; at < batch * left; at += step) {
    const long long b = at / left, c = at % left;
    if (info[b]) continue;
    const @T@ *const a = work + b * k * m, *const x = squares + 2 * b * k * k, *const y = x + k * k;
    const @T@ *const tau = taus + 2 * b * k;
    const double *const size = numbers + b * (3 * k + 1) + k, *const signs = size + k;
    const long long *const nth = order + b * k;
    @T@ *const one = ones + at * m, turn = k_number<@T@>(1);
    if (c < k) {
        @T@ *const two = twos + (b * k + c) * k;
        #pragma unroll 1
        for (long long i = lane; i < k; i += 32) k_set(two[i], i == c ? (@R@)signs[c] : (@R@)0, 0);
        for (long long j = c; j >= 0; j--) k_apply(x + nth[j] * k, tau[k + j], two, j, k);
        __syncwarp();
        turn = k_phase(two, k);
        if (lane == 0) s[b * k + c] = (@R@)(size[nth[c]] * signs[k]);
        #pragma unroll 1
        for (long long i = lane; i < k; i += 32) {
            const @T@ z = k_mul(two[i], turn);
            if (flip) u[(b * k + i) * k + c] = z;
            else vh[(b * k + c) * k + i] = k_conj(z);
        }
    }
    #pragma unroll 1
    for (long long i = lane; i < m; i += 32) {
        if (c < k) one[i] = i < k ? y[nth[c] * k + i] : k_number<@T@>(0);
        else k_set(one[i], i == c, 0);
    }
    for (long long j = k - 1; j >= 0; j--) k_apply(a + j * m, tau[j], one, j, m);
    #pragma unroll 1
    for (long long i = lane; i < m; i += 32) {
        const @T@ z = k_mul(one[i], turn);
        if (flip) vh[(b * left + c) * m + i] = k_conj(z);
        else u[(b * m + i) * left + c] = z;
    }
}"""
"""Singular vectors column by column, and values."""

REFUSALS: Final = """
__shared__ int most[256];
int kind = 0;
for (long long b = threadIdx.x; b < batch; b += 256)
    if (info[b] != 0 && kind != 1) kind = info[b];
most[threadIdx.x] = kind;
__syncthreads();
if (threadIdx.x == 0) {
    for (int k = 1; k < 256; k++)
        if (most[k] != 0 && kind != 1) kind = most[k];
    if (kind) k_fail(error, site + kind - 1, 0);
}"""
"""Check `site` failed if a number is not finite; else `site` + 1 if an iteration did not converge."""

INVERSE: Final = """
for (long long at = (long long)blockIdx.x * 256 + threadIdx.x; at < batch * rows * columns;
     at += (long long)gridDim.x * 256) {
    const long long b = at / (rows * columns), i = at / rows % columns, j = at % rows;
    if (info[b]) continue;
    const @R@ *const size = @size@ + b * k;
    const @R@ most = @most@, relative = (@R@)@rtol@ * most, least = (@R@)@atol@;
    const @R@ limit = relative > least ? relative : least;
    @T@ sum = k_number<@T@>(0);
    for (long long c = 0; c < k; c++) {
        const @R@ own = @own@;
        if (own > limit) sum = k_fma(k_times(@right@, k_re(k_over(k_number<@R@>(@sign@), own))), k_conj(@left@), sum);
    }
    y[at] = sum;
}"""
"""The pseudoinverse out of singular values and vectors, or of eigenvalues."""
