"""Attention in plain fused multiply-adds: the kernels of float32 and float64, and of 16-bit floats with large heads.

A block of 16 x 16 threads has a tile of 16 * SIDE queries, and meets the keys tile by tile. Thread (y, x) has the
scores of rows y, y + 16, ... and columns x, x + 16, ... of the two tiles, and columns x, x + 16, ... of its rows of the
result. Operands come through shared memory: 16 elements of each row at a time for products of rows with rows
(`k_rows`), some whole rows at a time for what is mixed of them (`k_mix`). The gradient of keys and values has tiles of
keys, which meet the queries.

Weights are exp(score - top), where `top` is the largest score so far: when it grows, what was summed up shrinks. A
query that a mask lets see nothing has a result of zeros; without a mask, one whose products are all -inf has NaN.
"""

from __future__ import annotations

from typing import Final

THREADS: Final = 256

ROWS: Final = """\
template <class F, int TILE> __device__ __forceinline__ void
k_deep(typename F::C (&to)[16][TILE + 1], k_view<const typename F::T> from, long long row, long long rows, int first,
       int size)
{
    for (int e = threadIdx.x; e < 16 * TILE; e += 256) {
        const int depth = e & 15, line = e >> 4;
        const bool inside = row + line < rows && first + depth < size;
        to[depth][line] = inside ? F::get(from.at[(row + line) * from.l + (first + depth) * from.d]) : 0;
    }
}
template <class F, int SIDE> __device__ __forceinline__ void
k_rows(typename F::C (&sum)[SIDE][SIDE], typename F::C (&left)[16][16 * SIDE + 1], k_view<const typename F::T> a,
       long long a_row, long long a_rows, typename F::C (&right)[16][16 * SIDE + 1], k_view<const typename F::T> b,
       long long b_row, long long b_rows, int size)
{
    const int y = threadIdx.x >> 4, x = threadIdx.x & 15;
    #pragma unroll
    for (int r = 0; r < SIDE; r++)
        #pragma unroll
        for (int c = 0; c < SIDE; c++) sum[r][c] = 0;
    for (int first = 0; first < size; first += 16) {
        __syncthreads();
        k_deep<F, 16 * SIDE>(left, a, a_row, a_rows, first, size);
        k_deep<F, 16 * SIDE>(right, b, b_row, b_rows, first, size);
        __syncthreads();
        #pragma unroll
        for (int depth = 0; depth < 16; depth++) {
            #pragma unroll
            for (int r = 0; r < SIDE; r++)
                #pragma unroll
                for (int c = 0; c < SIDE; c++)
                    sum[r][c] = F::fma(left[depth][y + 16 * r], right[depth][x + 16 * c], sum[r][c]);
        }
    }
}"""
"""The products of a tile of rows of `a` with one of `b`."""

MIX: Final = """\
template <class F, int SIDE, int WIDTH, int STEP> __device__ __forceinline__ void
k_mix(typename F::C (&sum)[SIDE][WIDTH], typename F::C (&weights)[16 * SIDE][16 * SIDE + 1],
      typename F::C (&part)[STEP][16 * WIDTH], k_view<const typename F::T> b, long long row, long long rows, int size)
{
    const int y = threadIdx.x >> 4, x = threadIdx.x & 15;
    for (int first = 0; first < 16 * SIDE && row + first < rows; first += STEP) {
        __syncthreads();
        for (int e = threadIdx.x; e < STEP * 16 * WIDTH; e += 256) {
            const int line = e / (16 * WIDTH), at = e % (16 * WIDTH);
            const bool inside = row + first + line < rows && at < size;
            part[line][at] = inside ? F::get(b.at[(row + first + line) * b.l + at * b.d]) : 0;
        }
        __syncthreads();
        #pragma unroll
        for (int line = 0; line < STEP; line++) {
            #pragma unroll
            for (int r = 0; r < SIDE; r++)
                #pragma unroll
                for (int c = 0; c < WIDTH; c++)
                    sum[r][c] = F::fma(weights[y + 16 * r][first + line], part[line][x + 16 * c], sum[r][c]);
        }
    }
}
template <class F, int SIDE, int WIDTH> __device__ __forceinline__ void
k_store(const typename F::C (&sum)[SIDE][WIDTH], typename F::T *to, long long row, long long rows, int size,
        typename F::C factor)
{
    const int y = threadIdx.x >> 4, x = threadIdx.x & 15;
    #pragma unroll
    for (int r = 0; r < SIDE; r++)
        #pragma unroll
        for (int c = 0; c < WIDTH; c++)
            if (row + y + 16 * r < rows && x + 16 * c < size)
                to[(row + y + 16 * r) * size + x + 16 * c] = F::put(sum[r][c] * factor);
}"""
"""Rows of `b`, as many as a tile has, summed up with weights; and a tile of rows put to row-major memory."""

FORWARD: Final = """\
template <class C> __device__ __forceinline__ C k_larger(C a, C b) { return a != a || a > b ? a : b; }
template <class F, int SIDE, int WIDTH, int STEP, class M> __device__ __forceinline__ void
k_attend(typename F::C (&left)[16][16 * SIDE + 1], typename F::C (&right)[16][16 * SIDE + 1],
         typename F::C (&weights)[16 * SIDE][16 * SIDE + 1], typename F::C (&part)[STEP][16 * WIDTH],
         k_view<const typename F::T> q, k_view<const typename F::T> k, k_view<const typename F::T> v, M mask,
         typename F::T *out, typename F::C *lse, long long row, long long l, long long s, int d, int width,
         typename F::C scale, bool causal)
{
    typedef typename F::C C;
    constexpr int TILE = 16 * SIDE;
    const int y = threadIdx.x >> 4, x = threadIdx.x & 15;
    C sum[SIDE][SIDE], mixed[SIDE][WIDTH], top[SIDE], total[SIDE];
    #pragma unroll
    for (int r = 0; r < SIDE; r++) {
        top[r] = F::least();
        total[r] = 0;
        #pragma unroll
        for (int c = 0; c < WIDTH; c++) mixed[r][c] = 0;
    }
    const long long end = causal && row + TILE < s ? row + TILE : s;
    for (long long start = 0; start < end; start += TILE) {
        k_rows<F, SIDE>(sum, left, q, row, l, right, k, start, s, d);
        #pragma unroll
        for (int r = 0; r < SIDE; r++) {
            const long long query = row + y + 16 * r;
            C high = top[r];
            #pragma unroll
            for (int c = 0; c < SIDE; c++) {
                const long long key = start + x + 16 * c;
                C score = sum[r][c] * scale;
                const bool seen = query < l && key < s && (!causal || key <= query) && mask(score, query, key);
                sum[r][c] = seen ? score : F::least();
                high = k_larger(high, sum[r][c]);
            }
            #pragma unroll
            for (int far = 8; far; far >>= 1) high = k_larger(high, __shfl_xor_sync(0xffffffffu, high, far));
            const C base = high == F::least() ? (C)0 : high, shrink = F::exp(top[r] - base);
            C more = 0;
            #pragma unroll
            for (int c = 0; c < SIDE; c++) {
                const C weight = F::exp(sum[r][c] - base);
                weights[y + 16 * r][x + 16 * c] = weight;
                more += weight;
            }
            #pragma unroll
            for (int far = 8; far; far >>= 1) more += __shfl_xor_sync(0xffffffffu, more, far);
            total[r] = total[r] * shrink + more;
            top[r] = high;
            #pragma unroll
            for (int c = 0; c < WIDTH; c++) mixed[r][c] *= shrink;
        }
        k_mix<F, SIDE, WIDTH, STEP>(mixed, weights, part, v, start, s, width);
    }
    #pragma unroll
    for (int r = 0; r < SIDE; r++) {
        const C all = total[r] == 0 && (M::hides || M::adds || s == 0) ? (C)1 : total[r];
        #pragma unroll
        for (int c = 0; c < WIDTH; c++) mixed[r][c] = F::div(mixed[r][c], all);
        if (x == 0 && row + y + 16 * r < l)
            lse[row + y + 16 * r] = (top[r] == F::least() ? (C)0 : top[r]) + F::log(all);
    }
    k_store<F, SIDE, WIDTH>(mixed, out, row, l, width, 1);
}"""

BACKWARD: Final = """\
template <class F, int SIDE, int WIDTH, int STEP, class M> __device__ __forceinline__ void
k_attend_queries(typename F::C (&left)[16][16 * SIDE + 1], typename F::C (&right)[16][16 * SIDE + 1],
                 typename F::C (&weights)[16 * SIDE][16 * SIDE + 1], typename F::C (&part)[STEP][16 * WIDTH],
                 k_view<const typename F::T> q, k_view<const typename F::T> k, k_view<const typename F::T> v,
                 k_view<const typename F::T> g, k_view<const typename F::C> lse, k_view<const typename F::C> delta,
                 M mask, typename F::T *to, long long row, long long l, long long s, int d, int width,
                 typename F::C scale, bool causal)
{
    typedef typename F::C C;
    constexpr int TILE = 16 * SIDE;
    const int y = threadIdx.x >> 4, x = threadIdx.x & 15;
    C sum[SIDE][SIDE], slope[SIDE][SIDE], mixed[SIDE][WIDTH], past[SIDE], less[SIDE];
    #pragma unroll
    for (int r = 0; r < SIDE; r++) {
        const long long query = row + y + 16 * r;
        past[r] = query < l ? lse.at[query * lse.l] : (C)0;
        less[r] = query < l ? delta.at[query * delta.l] : (C)0;
        #pragma unroll
        for (int c = 0; c < WIDTH; c++) mixed[r][c] = 0;
    }
    const long long end = causal && row + TILE < s ? row + TILE : s;
    for (long long start = 0; start < end; start += TILE) {
        k_rows<F, SIDE>(sum, left, q, row, l, right, k, start, s, d);
        k_rows<F, SIDE>(slope, left, g, row, l, right, v, start, s, width);
        #pragma unroll
        for (int r = 0; r < SIDE; r++)
            #pragma unroll
            for (int c = 0; c < SIDE; c++) {
                const long long query = row + y + 16 * r, key = start + x + 16 * c;
                C score = sum[r][c] * scale;
                const bool seen = query < l && key < s && (!causal || key <= query) && mask(score, query, key);
                weights[y + 16 * r][x + 16 * c] = seen ? F::exp(score - past[r]) * (slope[r][c] - less[r]) : (C)0;
            }
        k_mix<F, SIDE, WIDTH, STEP>(mixed, weights, part, k, start, s, d);
    }
    k_store<F, SIDE, WIDTH>(mixed, to, row, l, d, scale);
}
template <class F, int SIDE, int WIDTH, int STEP, class M> __device__ __forceinline__ void
k_attend_keys(typename F::C (&left)[16][16 * SIDE + 1], typename F::C (&right)[16][16 * SIDE + 1],
              typename F::C (&weights)[16 * SIDE][16 * SIDE + 1], typename F::C (&part)[STEP][16 * WIDTH],
              k_view<const typename F::T> q, k_view<const typename F::T> k, k_view<const typename F::T> v,
              k_view<const typename F::T> g, k_view<const typename F::C> lse, k_view<const typename F::C> delta, M mask,
              typename F::T *to_k, typename F::T *to_v, long long batch, long long head, int repeat, long long row,
              long long l, long long s, int d, int width, typename F::C scale, bool causal)
{
    typedef typename F::C C;
    constexpr int TILE = 16 * SIDE;
    const int y = threadIdx.x >> 4, x = threadIdx.x & 15;
    C sum[SIDE][SIDE], slope[SIDE][SIDE], of_k[SIDE][WIDTH], of_v[SIDE][WIDTH];
    #pragma unroll
    for (int r = 0; r < SIDE; r++) {
        #pragma unroll
        for (int c = 0; c < WIDTH; c++) of_k[r][c] = 0;
        #pragma unroll
        for (int c = 0; c < WIDTH; c++) of_v[r][c] = 0;
    }
    for (int turn = 0; turn < repeat; turn++) {
        const long long at = head * repeat + turn;
        const k_view<const typename F::T> some = q.head(batch, at), back = g.head(batch, at);
        const k_view<const C> past = lse.head(batch, at), less = delta.head(batch, at);
        const M shown = mask.head(batch, at);
        for (long long start = causal ? row : 0; start < l; start += TILE) {
            k_rows<F, SIDE>(sum, left, k, row, s, right, some, start, l, d);
            k_rows<F, SIDE>(slope, left, v, row, s, right, back, start, l, width);
            #pragma unroll
            for (int r = 0; r < SIDE; r++)
                #pragma unroll
                for (int c = 0; c < SIDE; c++) {
                    const long long key = row + y + 16 * r, query = start + x + 16 * c;
                    C score = sum[r][c] * scale;
                    const bool seen = query < l && key < s && (!causal || key <= query) && shown(score, query, key);
                    const C weight = seen ? F::exp(score - past.at[query * past.l]) : (C)0;
                    weights[y + 16 * r][x + 16 * c] = weight;
                    sum[r][c] = seen ? weight * (slope[r][c] - less.at[query * less.l]) : (C)0;
                }
            k_mix<F, SIDE, WIDTH, STEP>(of_v, weights, part, back, start, l, width);
            __syncthreads();
            #pragma unroll
            for (int r = 0; r < SIDE; r++)
                #pragma unroll
                for (int c = 0; c < SIDE; c++) weights[y + 16 * r][x + 16 * c] = sum[r][c];
            k_mix<F, SIDE, WIDTH, STEP>(of_k, weights, part, some, start, l, d);
        }
    }
    k_store<F, SIDE, WIDTH>(of_k, to_k, row, s, d, scale);
    k_store<F, SIDE, WIDTH>(of_v, to_v, row, s, width, 1);
}"""
"""The gradient of a tile of queries; and of a tile of keys and values, over the heads that share them."""
