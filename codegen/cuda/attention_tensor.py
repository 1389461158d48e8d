"""Attention of 16-bit floats by tensor cores: products of 16 x 8 results over 16 elements (mma.sync), added in float32.

A block of four warps has a tile of 64 queries, 16 to a warp, and meets the keys KEYS at a time; the gradient of keys
and values has tiles of 64 keys, which meet the queries STEP at a time. What a warp holds as results of one product it
hands to the next one from registers: lane 4 * g + t has columns 2 * t and 2 * t + 1 of rows g and g + 8, which is also
how a left operand lies. Tiles come to shared memory by copies that go on while products are computed (cp.async), where
addresses allow; their rows are 16 bytes longer than needed, so that rows lie in different banks.

Scores are in units of log 2, as ex2 takes them. Weights and gradients of scores are rounded to the 16-bit type before
they are multiplied; sums, maxima and all else are float32.
"""

from __future__ import annotations

from typing import Final

THREADS: Final = 128

EXP2: Final = """\
__device__ __forceinline__ float k_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}"""

TILES: Final = """\
struct k_reach {
    int queries, keys, ahead;
    __device__ __forceinline__ bool sees(int query, int key) const
    { return query < queries && key < keys && key - query <= ahead; }
    __device__ __forceinline__ bool all(int query, int key) const
    { return query <= queries && key <= keys && key - 1 <= ahead; }
};
__device__ __forceinline__ int k_clipped(long long x) { return (int)(x < -9999 ? -9999 : x > 9999 ? 9999 : x); }
__device__ __forceinline__ k_reach k_reached(long long query, long long l, long long key, long long s, bool causal)
{ return {k_clipped(l - query), k_clipped(s - key), causal ? k_clipped(query - key) : 9999}; }
__device__ __forceinline__ bool k_even(k_view<const unsigned short> from, int size)
{ return size % 8 == 0 && from.d == 1 && from.l % 8 == 0 && (unsigned long long)from.at % 16 == 0; }
template <int ROWS, int WIDTH> __device__ __forceinline__ void
k_tile(unsigned short *to, k_view<const unsigned short> from, long long row, long long rows, int size, bool even)
{
    constexpr int TURN = 128 / (WIDTH / 8);  // rows at a time; of 96 columns 10, by 120 threads
    const int left = (int)(rows - row < ROWS ? rows - row : ROWS);
    const int first = threadIdx.x / (WIDTH / 8), at = threadIdx.x % (WIDTH / 8) * 8;
    #pragma unroll 1
    for (int line = first; line < ROWS && first < TURN; line += TURN) {
        const bool inside = line < left && at < size;
        const unsigned short *const some = from.at + (inside ? (row + line) * from.l + at * from.d : 0);
        unsigned short *const place = to + line * (WIDTH + 8) + at;
        if (even) {
            k_copy_start(__cvta_generic_to_shared(place), some, inside);
        } else {
            #pragma unroll 1
            for (int k = 0; k < 8; k++) place[k] = inside && at + k < size ? some[k * from.d] : (unsigned short)0;
        }
    }
}
template <int WIDTH> __device__ __forceinline__ unsigned long long k_left(const unsigned short *tile, int row, int at)
{
    const int lane = threadIdx.x & 31;
    return __cvta_generic_to_shared(tile + (lane & 15) * (WIDTH + 8) + (lane >> 4) * 8) + 2 * (row * (WIDTH + 8) + at);
}
template <int WIDTH> __device__ __forceinline__ unsigned long long k_right(const unsigned short *tile, int row, int at)
{
    const int lane = threadIdx.x & 31, line = (lane & 7) + (lane >> 4) * 8;
    return __cvta_generic_to_shared(tile + line * (WIDTH + 8) + (lane >> 3 & 1) * 8) + 2 * (row * (WIDTH + 8) + at);
}
template <class F, int WIDTH, int COUNT> __device__ __forceinline__ void
k_rows_by_rows(float (&sum)[COUNT][4], const unsigned (&left)[WIDTH / 16][4], const unsigned short *right)
{
    #pragma unroll
    for (int c = 0; c < COUNT; c++) sum[c][0] = sum[c][1] = sum[c][2] = sum[c][3] = 0;
    #pragma unroll
    for (int depth = 0; depth < WIDTH / 16; depth++)
        #pragma unroll
        for (int c = 0; c < COUNT; c += 2) {
            unsigned some[4];
            k_matrices(some, k_right<WIDTH>(right, c * 8, depth * 16));
            F::mma(sum[c], left[depth], some[0], some[1]);
            F::mma(sum[c + 1], left[depth], some[2], some[3]);
        }
}
template <class F, int WIDTH, int COUNT> __device__ __forceinline__ void
k_rows_of_tile(float (&sum)[COUNT][4], const unsigned short *tile, int row, const unsigned short *right)
{
    #pragma unroll
    for (int c = 0; c < COUNT; c++) sum[c][0] = sum[c][1] = sum[c][2] = sum[c][3] = 0;
    #pragma unroll
    for (int depth = 0; depth < WIDTH / 16; depth++) {
        unsigned left[4];
        k_matrices(left, k_left<WIDTH>(tile, row, depth * 16));
        #pragma unroll
        for (int c = 0; c < COUNT; c += 2) {
            unsigned some[4];
            k_matrices(some, k_right<WIDTH>(right, c * 8, depth * 16));
            F::mma(sum[c], left, some[0], some[1]);
            F::mma(sum[c + 1], left, some[2], some[3]);
        }
    }
}
template <class F, int WIDTH, int COUNT> __device__ __forceinline__ void
k_mix_rows(float (&sum)[WIDTH / 8][4], const float (&weights)[COUNT][4], const unsigned short *rows)
{
    #pragma unroll
    for (int c = 0; c < COUNT; c += 2) {
        const unsigned left[4] = {
            F::pair(weights[c][0], weights[c][1]), F::pair(weights[c][2], weights[c][3]),
            F::pair(weights[c + 1][0], weights[c + 1][1]), F::pair(weights[c + 1][2], weights[c + 1][3])};
        #pragma unroll
        for (int k = 0; k < WIDTH / 8; k += 2) {
            unsigned some[4];
            k_matrices_turned(some, k_left<WIDTH>(rows, c * 8, k * 8));
            F::mma(sum[k], left, some[0], some[1]);
            F::mma(sum[k + 1], left, some[2], some[3]);
        }
    }
}
template <class F, int COUNT> __device__ __forceinline__ void
k_put_rows(const float (&sum)[COUNT][4], unsigned short *to, long long row, long long rows, int size, float f, float h)
{
    const int lane = threadIdx.x & 31;
    #pragma unroll
    for (int c = 0; c < COUNT; c++)
        #pragma unroll
        for (int k = 0; k < 2; k++) {
            const long long line = row + (lane >> 2) + 8 * k;
            const int at = c * 8 + (lane & 3) * 2;
            const unsigned both = F::pair(sum[c][2 * k] * (k ? h : f), sum[c][2 * k + 1] * (k ? h : f));
            if (line >= rows || at >= size) continue;
            if (size % 2 == 0) {
                *(unsigned *)(to + line * size + at) = both;
            } else {
                to[line * size + at] = (unsigned short)both;
                if (at + 1 < size) to[line * size + at + 1] = (unsigned short)(both >> 16);
            }
        }
}"""
"""What a tile of queries sees of a tile of keys, which begin there; tiles to shared memory; products of a warp's 16
rows with the rows of a tile, and mixtures of the rows of one; 16 rows of results to row-major memory, times a factor
for rows g and one for rows g + 8."""

FORWARD: Final = """\
template <class F, int WIDTH, int KEYS, class M> __device__ __forceinline__ void
k_attend_tensor(unsigned short *room, k_view<const unsigned short> q, k_view<const unsigned short> k,
                k_view<const unsigned short> v, M mask, unsigned short *out, float *lse, long long row, long long l,
                long long s, int d, int width, float scale, bool causal)
{
    unsigned short *const keys = room, *const values = room + KEYS * (WIDTH + 8);
    const int lane = threadIdx.x & 31, from = (threadIdx.x >> 5) * 16;
    const bool even_k = k_even(k, d), even_v = k_even(v, width);
    const float factor = fmaxf(fabsf(scale) * 0x1.715476p+0f, 1e-30f), unit = M::adds ? 1.0f : factor;
    unsigned queries[WIDTH / 16][4];
    float sum[KEYS / 8][4], mixed[WIDTH / 8][4], top[2] = {F::least(), F::least()}, total[2] = {0, 0};
    __syncthreads();
    k_tile<64, WIDTH>(room, q, row, l, d, k_even(q, d));
    k_copies_end();
    __syncthreads();
    #pragma unroll
    for (int depth = 0; depth < WIDTH / 16; depth++) {
        k_matrices(queries[depth], k_left<WIDTH>(room, from, depth * 16));
        #pragma unroll
        for (int e = 0; e < 4; e++) queries[depth][e] ^= scale < 0 ? 0x80008000u : 0u;
    }
    __syncthreads();
    #pragma unroll
    for (int c = 0; c < WIDTH / 8; c++) mixed[c][0] = mixed[c][1] = mixed[c][2] = mixed[c][3] = 0;
    const long long end = causal && row + 64 < s ? row + 64 : s;
    if (end > 0) k_tile<KEYS, WIDTH>(keys, k, 0, s, d, even_k);
    for (long long start = 0; start < end; start += KEYS) {
        k_copies_end();
        __syncthreads();  // the keys are there, and nobody reads the values of before
        k_tile<KEYS, WIDTH>(values, v, start, s, width, even_v);
        k_rows_by_rows<F, WIDTH, KEYS / 8>(sum, queries, keys);
        const k_reach reach = k_reached(row + from, l, start, s, causal);
        if (M::hides || M::adds || !reach.all(16, KEYS)) {
            #pragma unroll
            for (int c = 0; c < KEYS / 8; c++)
                #pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int query = (lane >> 2) + (e >> 1) * 8, key = c * 8 + (lane & 3) * 2 + (e & 1);
                    float score = M::adds ? sum[c][e] * factor : sum[c][e];
                    const bool seen = reach.sees(query, key) && mask(score, row + from + query, start + key);
                    sum[c][e] = seen ? score : F::least();
                }
        }
        k_copies_end();
        __syncthreads();  // the values are there, and nobody reads these keys
        if (start + KEYS < end) k_tile<KEYS, WIDTH>(keys, k, start + KEYS, s, d, even_k);
        #pragma unroll
        for (int r = 0; r < 2; r++) {
            float high = top[r];
            #pragma unroll
            for (int c = 0; c < KEYS / 8; c++) high = fmaxf(high, fmaxf(sum[c][2 * r], sum[c][2 * r + 1]));
            high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
            high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
            const float base = high == F::least() ? 0.0f : high * unit, shrink = k_exp2(fmaf(top[r], unit, -base));
            float more = 0;
            #pragma unroll
            for (int c = 0; c < KEYS / 8; c++)
                #pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++) {
                    sum[c][e] = k_exp2(fmaf(sum[c][e], unit, -base));
                    more += sum[c][e];
                }
            total[r] = fmaf(total[r], shrink, more);
            top[r] = high;
            #pragma unroll
            for (int c = 0; c < WIDTH / 8; c++) {
                mixed[c][2 * r] *= shrink;
                mixed[c][2 * r + 1] *= shrink;
            }
        }
        k_mix_rows<F, WIDTH, KEYS / 8>(mixed, sum, values);
    }
    #pragma unroll
    for (int r = 0; r < 2; r++) {
        const long long query = row + from + (lane >> 2) + 8 * r;
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
        if (total[r] == 0 && (M::hides || M::adds || s == 0)) total[r] = 1;
        const float base = top[r] == F::least() ? 0.0f : top[r] * unit;
        if ((lane & 3) == 0 && query < l) lse[query] = fmaf(base, 0x1.62e43p-1f, F::log(total[r]));
        total[r] = __fdiv_rn(1.0f, total[r]);
    }
    k_put_rows<F, WIDTH / 8>(mixed, out, row + from, l, width, total[0], total[1]);
}"""

BACKWARD: Final = """\
template <class F, int WIDTH, int KEYS, class M> __device__ __forceinline__ void
k_attend_queries_tensor(unsigned short *room, k_view<const unsigned short> q, k_view<const unsigned short> k,
                        k_view<const unsigned short> v, k_view<const unsigned short> g, k_view<const float> lse,
                        k_view<const float> delta, M mask, unsigned short *to, long long row, long long l, long long s,
                        int d, int width, float scale, bool causal)
{
    unsigned short *const keys = room, *const values = room + KEYS * (WIDTH + 8);
    const int lane = threadIdx.x & 31, from = (threadIdx.x >> 5) * 16;
    const bool even_k = k_even(k, d), even_v = k_even(v, width);
    const float factor = scale * 0x1.715476p+0f;
    unsigned queries[WIDTH / 16][4], back[WIDTH / 16][4];
    float sum[KEYS / 8][4], slope[KEYS / 8][4], mixed[WIDTH / 8][4], past[2], less[2];
    __syncthreads();
    k_tile<64, WIDTH>(room, q, row, l, d, k_even(q, d));
    k_copies_end();
    __syncthreads();
    #pragma unroll
    for (int depth = 0; depth < WIDTH / 16; depth++)
        k_matrices(queries[depth], k_left<WIDTH>(room, from, depth * 16));
    __syncthreads();
    k_tile<64, WIDTH>(room, g, row, l, width, k_even(g, width));
    k_copies_end();
    __syncthreads();
    #pragma unroll
    for (int depth = 0; depth < WIDTH / 16; depth++) k_matrices(back[depth], k_left<WIDTH>(room, from, depth * 16));
    __syncthreads();
    #pragma unroll
    for (int r = 0; r < 2; r++) {
        const long long query = row + from + (lane >> 2) + 8 * r;
        past[r] = query < l ? lse.at[query * lse.l] * 0x1.715476p+0f : 0.0f;
        less[r] = query < l ? delta.at[query * delta.l] : 0.0f;
    }
    #pragma unroll
    for (int c = 0; c < WIDTH / 8; c++) mixed[c][0] = mixed[c][1] = mixed[c][2] = mixed[c][3] = 0;
    const long long end = causal && row + 64 < s ? row + 64 : s;
    if (end > 0) k_tile<KEYS, WIDTH>(values, v, 0, s, width, even_v);
    k_copies_group();
    if (end > 0) k_tile<KEYS, WIDTH>(keys, k, 0, s, d, even_k);
    k_copies_group();
    for (long long start = 0; start < end; start += KEYS) {
        k_copies_but_last();
        __syncthreads();  // the values are there
        k_rows_by_rows<F, WIDTH, KEYS / 8>(slope, back, values);
        k_copies_end();
        __syncthreads();  // the keys are there, and nobody reads these values
        if (start + KEYS < end) k_tile<KEYS, WIDTH>(values, v, start + KEYS, s, width, even_v);
        k_copies_group();
        k_rows_by_rows<F, WIDTH, KEYS / 8>(sum, queries, keys);
        const k_reach reach = k_reached(row + from, l, start, s, causal);
        const bool all = !M::hides && !M::adds && reach.all(16, KEYS);
        #pragma unroll
        for (int c = 0; c < KEYS / 8; c++)
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                float score = M::adds ? sum[c][e] * factor : sum[c][e];
                bool seen = all;
                if (!all) {
                    const int query = (lane >> 2) + (e >> 1) * 8, key = c * 8 + (lane & 3) * 2 + (e & 1);
                    seen = reach.sees(query, key) && mask(score, row + from + query, start + key);
                }
                const float weight = k_exp2(M::adds ? score - past[e >> 1] : fmaf(score, factor, -past[e >> 1]));
                sum[c][e] = seen ? weight * (slope[c][e] - less[e >> 1]) : 0.0f;
            }
        k_mix_rows<F, WIDTH, KEYS / 8>(mixed, sum, keys);
        __syncthreads();  // nobody reads these keys
        if (start + KEYS < end) k_tile<KEYS, WIDTH>(keys, k, start + KEYS, s, d, even_k);
        k_copies_group();
    }
    k_put_rows<F, WIDTH / 8>(mixed, to, row + from, l, d, scale, scale);
}
template <class F, int WIDTH, int STEP, class M> __device__ __forceinline__ void
k_attend_keys_tensor(unsigned short *room, float (&past)[STEP], float (&less)[STEP], k_view<const unsigned short> q,
                     k_view<const unsigned short> k, k_view<const unsigned short> v, k_view<const unsigned short> g,
                     k_view<const float> lse, k_view<const float> delta, M mask, unsigned short *to_k,
                     unsigned short *to_v, long long batch, long long head, int repeat, long long row, long long l,
                     long long s, int d, int width, float scale, bool causal)
{
    unsigned short *const keys = room, *const queries = room + 64 * (WIDTH + 8);
    unsigned short *const back = queries + STEP * (WIDTH + 8);
    const int lane = threadIdx.x & 31, from = (threadIdx.x >> 5) * 16;
    const float factor = scale * 0x1.715476p+0f;
    unsigned values[WIDTH / 16][4];
    float sum[STEP / 8][4], slope[STEP / 8][4], of_k[WIDTH / 8][4], of_v[WIDTH / 8][4];
    __syncthreads();
    k_tile<64, WIDTH>(keys, v, row, s, width, k_even(v, width));
    k_copies_end();
    __syncthreads();
    #pragma unroll
    for (int depth = 0; depth < WIDTH / 16; depth++) k_matrices(values[depth], k_left<WIDTH>(keys, from, depth * 16));
    __syncthreads();  // nobody reads the values
    k_tile<64, WIDTH>(keys, k, row, s, d, k_even(k, d));
    #pragma unroll
    for (int c = 0; c < WIDTH / 8; c++) {
        of_k[c][0] = of_k[c][1] = of_k[c][2] = of_k[c][3] = 0;
        of_v[c][0] = of_v[c][1] = of_v[c][2] = of_v[c][3] = 0;
    }
    const long long first = causal ? row : 0;
    const int tiles = first < l ? (int)((l - first + STEP - 1) / STEP) : 0;
    int here = 0, next = 0;  // tiles of queries: the one that is there, and the one to be fetched
    int turn = (int)head * repeat, coming = turn, last = turn + repeat;  // their heads
    bool ready = false, more = tiles > 0;
    while (ready || more) {
        const k_view<const unsigned short> some = q.head(batch, coming), grads = g.head(batch, coming);
        if (ready) {
            k_copies_but_last();
            __syncthreads();  // the gradients are there
            k_rows_by_rows<F, WIDTH, STEP / 8>(slope, values, back);
            k_copies_end();
            __syncthreads();  // the queries are there
            k_rows_of_tile<F, WIDTH, STEP / 8>(sum, keys, from, queries);
            const k_reach reach = k_reached(first + here * STEP, l, row + from, s, causal);
            const bool all = !M::hides && !M::adds && reach.all(STEP, 16);
            const M shown = mask.head(batch, turn);
            #pragma unroll
            for (int c = 0; c < STEP / 8; c++)
                #pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int column = c * 8 + (lane & 3) * 2 + (e & 1);
                    float score = M::adds ? sum[c][e] * factor : sum[c][e];
                    bool seen = all;
                    if (!all) {
                        const int key = (lane >> 2) + (e >> 1) * 8;
                        seen = reach.sees(column, key) && shown(score, first + here * STEP + column, row + from + key);
                    }
                    const float weight = k_exp2(M::adds ? score - past[column] : fmaf(score, factor, -past[column]));
                    sum[c][e] = seen ? weight : 0.0f;
                    slope[c][e] = seen ? weight * (slope[c][e] - less[column]) : 0.0f;
                }
            k_mix_rows<F, WIDTH, STEP / 8>(of_v, sum, back);
            __syncthreads();  // nobody reads these gradients
        }
        if (more) {
            k_tile<STEP, WIDTH>(back, grads, first + next * STEP, l, width, k_even(grads, width));
            if (threadIdx.x < STEP) {
                const k_view<const float> rows = lse.head(batch, coming), others = delta.head(batch, coming);
                const long long query = first + next * STEP + threadIdx.x;
                past[threadIdx.x] = query < l ? rows.at[query * rows.l] * 0x1.715476p+0f : -F::least();
                less[threadIdx.x] = query < l ? others.at[query * others.l] : 0.0f;
            }
        }
        k_copies_group();
        if (ready) {
            k_mix_rows<F, WIDTH, STEP / 8>(of_k, slope, queries);
            __syncthreads();  // nobody reads these queries
        }
        if (more) k_tile<STEP, WIDTH>(queries, some, first + next * STEP, l, d, k_even(some, d));
        k_copies_group();
        ready = more;
        here = next;
        turn = coming;
        if (++next == tiles) {
            next = 0;
            coming++;
        }
        more = more && coming < last;
    }
    k_put_rows<F, WIDTH / 8>(of_k, to_k, row + from, s, d, scale, scale);
    k_put_rows<F, WIDTH / 8>(of_v, to_v, row + from, s, width, 1, 1);
}"""
"""The gradient of a tile of queries; and of a tile of keys and values, over the heads that share them."""
