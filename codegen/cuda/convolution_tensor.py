"""Convolutions of 16-bit floats by tensor cores, as text: products of 16 x 8 results over 16 elements, in float32.

A convolution is the product of the matrix of its weights, a row for each result, with that of what its positions meet,
a column for each position; k goes over the taps and, within each, over the channels, 8 at a time. A block of threads
has a tile of rows x columns, and walks k in steps of 32. Tiles come to shared memory by copies that go on while
products are computed (cp.async), two steps ahead, 16 bytes each: so channels are to be neighbours in memory; where
they are not, or are no multiple of 8, numbers are loaded one by one. What meets nothing is zeros. Rows of tiles have no
gaps; their pieces of 16 bytes are exchanged so that those which are read together lie in different banks.

For the gradient by the weights k goes over the positions. Tiles then lie as memory does, with k along their columns,
and are turned as they are read. Several blocks share out the positions; a second kernel adds what they found, in order.

A gradient by the images with strides has a class of positions for each remainder by the strides: whether a tap meets
something then follows from the class, and what meets nothing anywhere is left out.
"""

from __future__ import annotations

from typing import Final

STEP: Final = 32
"""Elements of k between two barriers."""
STAGES: Final = 3
"""Steps in shared memory: one is multiplied, two are on their way."""

WALK: Final = """\
template <int TAPS_H, int TAPS_W, int STRIDE_H, int STRIDE_W, int BEFORE_H, int BEFORE_W, int SPREAD_H, int SPREAD_W,
          int DEPTH, int RESULTS, int GROUPS, bool TURNED> struct k_walk {
    static constexpr int taps_h = TAPS_H, taps_w = TAPS_W, stride_h = STRIDE_H, stride_w = STRIDE_W, depth = DEPTH;
    static constexpr int results = RESULTS, groups = GROUPS, pieces = DEPTH ? (DEPTH + 7) / 8 : 1;
    static constexpr int classes = TURNED ? STRIDE_H * STRIDE_W : 1;
    static constexpr bool turned = TURNED;
    static __device__ __forceinline__ bool meets_h(int tap, int row)
    { return !TURNED || (row + BEFORE_H - tap * SPREAD_H) % STRIDE_H == 0; }
    static __device__ __forceinline__ bool meets_w(int tap, int column)
    { return !TURNED || (column + BEFORE_W - tap * SPREAD_W) % STRIDE_W == 0; }
    static __device__ __forceinline__ int shift_h(int tap, int row)
    { return TURNED ? (row + BEFORE_H - tap * SPREAD_H) / STRIDE_H : tap * SPREAD_H - BEFORE_H; }
    static __device__ __forceinline__ int shift_w(int tap, int column)
    { return TURNED ? (column + BEFORE_W - tap * SPREAD_W) / STRIDE_W : tap * SPREAD_W - BEFORE_W; }
    static __device__ __forceinline__ int steps(int row, int column)
    {
        int h = 0, w = 0;
        #pragma unroll 1
        for (int tap = 0; tap < TAPS_H; tap++) h += meets_h(tap, row);
        #pragma unroll 1
        for (int tap = 0; tap < TAPS_W; tap++) w += meets_w(tap, column);
        return (h * w * pieces + 3) / 4;
    }
};
template <class W> struct k_tap {
    int h, w, piece, row, column;
    __device__ __forceinline__ k_tap(int row, int column, int pieces) : h(0), w(-1), piece(0), row(row), column(column)
    {
        next();
        ahead(pieces);
    }
    __device__ __forceinline__ void next()
    {
        do {
            if (++w == W::taps_w) {
                w = 0;
                h++;
            }
        } while (h < W::taps_h && !(W::meets_h(h, row) && W::meets_w(w, column)));
    }
    __device__ __forceinline__ void ahead(int pieces)
    {
        piece += pieces;
        #pragma unroll 1
        while (piece >= W::pieces && h < W::taps_h) {
            piece -= W::pieces;
            next();
        }
    }
    __device__ __forceinline__ int channels() const
    { return h < W::taps_h ? W::depth - piece * 8 : 0; }
};"""
"""What a convolution is, with numbers that the text knows: its taps, and which row or column a tap meets, counted from
where a position is (`shift`). TURNED: it is the gradient by the images, whose positions are of the class (row, column).
`k_tap`: where a thread is on its way along k, in pieces of 8 channels."""

TILES: Final = """\
struct k_images {
    const unsigned short *at;
    long long n, c, h, w;
    int height, width;
};
__device__ __forceinline__ bool k_even(const unsigned short *at, long long along, long long a, long long b, long long c)
{ return along == 1 && (a | b | c) % 8 == 0 && (unsigned long long)at % 16 == 0; }
__device__ __forceinline__ void
k_piece(unsigned short *to, const unsigned short *from, long long step, int count, bool even)
{
    if (even) {
        k_copy_start(__cvta_generic_to_shared(to), from, count > 0);
    } else {
        #pragma unroll 1
        for (int k = 0; k < 8; k++) to[k] = k < count ? from[k * step] : (unsigned short)0;
    }
}
__device__ __forceinline__ int k_spot(int row, int piece) { return row * 32 + (piece ^ (row >> 1 & 3)) * 8; }
template <int WIDTH> __device__ __forceinline__ int k_turned_spot(int row, int piece)
{ return row * WIDTH + (piece ^ (row & 7)) * 8; }
template <class F, int M, int N> __device__ __forceinline__ void
k_multiply(float (&sum)[M][N][4], const unsigned short *left, const unsigned short *right, int row, int column)
{
    const int lane = threadIdx.x & 31;
    #pragma unroll
    for (int depth = 0; depth < 2; depth++) {
        unsigned a[M][4];
        #pragma unroll
        for (int m = 0; m < M; m++)
            k_matrices(a[m], __cvta_generic_to_shared(
                left + k_spot(row + m * 16 + (lane & 15), depth * 2 + (lane >> 4))));
        #pragma unroll
        for (int n = 0; n < N; n += 2) {
            unsigned b[4];
            k_matrices(b, __cvta_generic_to_shared(
                right + k_spot(column + n * 8 + (lane & 7) + (lane >> 4) * 8, depth * 2 + (lane >> 3 & 1))));
            #pragma unroll
            for (int m = 0; m < M; m++) {
                F::mma(sum[m][n], a[m], b[0], b[1]);
                F::mma(sum[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}
template <class F, int WIDTH, int M, int N> __device__ __forceinline__ void
k_multiply_turned(float (&sum)[M][N][4], const unsigned short *left, const unsigned short *right, int row, int column)
{
    const int lane = threadIdx.x & 31;
    #pragma unroll
    for (int depth = 0; depth < 2; depth++) {
        unsigned a[M][4];
        #pragma unroll
        for (int m = 0; m < M; m++)
            k_matrices_turned(a[m], __cvta_generic_to_shared(left + k_turned_spot<WIDTH>(
                depth * 16 + (lane & 7) + (lane >> 4) * 8, (row + m * 16) / 8 + (lane >> 3 & 1))));
        #pragma unroll
        for (int n = 0; n < N; n += 2) {
            unsigned b[4];
            k_matrices_turned(b, __cvta_generic_to_shared(right + k_turned_spot<WIDTH>(
                depth * 16 + (lane & 15), (column + n * 8) / 8 + (lane >> 4))));
            #pragma unroll
            for (int m = 0; m < M; m++) {
                F::mma(sum[m][n], a[m], b[0], b[1]);
                F::mma(sum[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}
template <int M, int N> __device__ __forceinline__ void k_clear(float (&sum)[M][N][4])
{
    #pragma unroll
    for (int m = 0; m < M; m++)
        #pragma unroll
        for (int n = 0; n < N; n++) sum[m][n][0] = sum[m][n][1] = sum[m][n][2] = sum[m][n][3] = 0;
}"""
"""Images by their strides. `k_piece` brings 8 numbers along k to shared memory, or as many as there are and zeros.
`k_spot`: where a piece lies in a tile with rows of 32, `k_turned_spot` in one with k along its columns. A warp's
products of 16 * M rows from `row` on and 8 * N columns from `column` on, over one step of k."""

FORWARD: Final = """\
template <class F, int M, int N> __device__ __forceinline__ void
k_put_tile(const float (&sum)[M][N][4], unsigned short *tile, const long long *places, unsigned short *out,
           long long step, int rows, int height, int width, int row, int column, bool even)
{
    const int lane = threadIdx.x & 31, pitch = width + 8;
    #pragma unroll
    for (int m = 0; m < M; m++)
        #pragma unroll
        for (int n = 0; n < N; n++)
            #pragma unroll
            for (int k = 0; k < 2; k++)
                *(unsigned *)(tile + (row + m * 16 + (lane >> 2) + 8 * k) * pitch + column + n * 8 + (lane & 3) * 2) =
                    F::pair(sum[m][n][2 * k], sum[m][n][2 * k + 1]);
    __syncthreads();  // the tile and the places are there
    const int most = rows < height ? rows : height;
    if (even) {
        for (int k = threadIdx.x; k < most * (width / 8); k += blockDim.x) {
            const int line = k / (width / 8), at = k % (width / 8) * 8;
            if (places[at] < 0) continue;
            *(float4 *)(out + places[at] + line * step) = *(const float4 *)(tile + line * pitch + at);
        }
    } else {
        for (int k = threadIdx.x; k < most * width; k += blockDim.x) {
            const int line = k / width, at = k % width;
            if (places[at] >= 0) out[places[at] + line * step] = tile[line * pitch + at];
        }
    }
}
template <class F, int M, int N> __device__ __forceinline__ void
k_put_tile(const float (&sum)[M][N][4], unsigned short *, const long long *places, float *out, long long step, int rows,
           int, int, int row, int column, bool)
{
    const int lane = threadIdx.x & 31;
    __syncthreads();  // the places are there
    #pragma unroll
    for (int n = 0; n < N; n++)
        #pragma unroll
        for (int e = 0; e < 2; e++) {
            const long long place = places[column + n * 8 + (lane & 3) * 2 + e];
            #pragma unroll
            for (int m = 0; m < M; m++)
                #pragma unroll
                for (int k = 0; k < 2; k++) {
                    const int line = row + m * 16 + (lane >> 2) + 8 * k;
                    if (place >= 0 && line < rows) out[place + line * step] = sum[m][n][2 * k + e];
                }
        }
}
template <class F, class W, int DOWN, int ACROSS, int M, int N, class OUT> __device__ __forceinline__ void
k_convolve(unsigned short *room, const k_images &x, const unsigned short *weights, long long w_row, long long w_depth,
           long long w_h, long long w_w, OUT *out, long long group, long long first_row, long long first, int turn,
           long long images, int out_h, int out_w, bool even_x, bool even_w)
{
    constexpr int HEIGHT = DOWN * M * 16, WIDTH = ACROSS * N * 8, THREADS = DOWN * ACROSS * 32;
    constexpr int LEFT = HEIGHT * 4 / THREADS, RIGHT = WIDTH * 4 / THREADS, STAGE = (HEIGHT + WIDTH) * 32;
    const int class_h = W::turned ? turn / W::stride_w : 0, class_w = W::turned ? turn % W::stride_w : 0;
    const int high = W::turned ? (out_h + W::stride_h - 1) / W::stride_h : out_h;  // positions of a class
    const int wide = W::turned ? (out_w + W::stride_w - 1) / W::stride_w : out_w;
    const long long positions = images * high * wide;
    const int line = threadIdx.x / 4, slot = threadIdx.x % 4;  // the thread's piece of every step
    const int rows = (int)(W::results - first_row < HEIGHT ? W::results - first_row : HEIGHT);
    long long base[RIGHT];
    int at_h[RIGHT], at_w[RIGHT];
    #pragma unroll
    for (int r = 0; r < RIGHT; r++) {
        const long long position = first + line + r * (THREADS / 4), above = position / wide;
        const long long image = above / high;
        const bool inside = position < positions;
        base[r] = inside ? image * x.n + group * W::depth * x.c : 0;
        at_h[r] = inside ? (int)(above % high) * (W::turned ? 1 : W::stride_h) : -(1 << 30);
        at_w[r] = (int)(position % wide) * (W::turned ? 1 : W::stride_w);
    }
    const unsigned short *const lines = weights + (first_row + line) * w_row;
    const int steps = W::steps(class_h, class_w);
    k_tap<W> tap(class_h, class_w, slot);
    float sum[M][N][4];
    k_clear(sum);
    const auto fetch = [&](int stage) {
        unsigned short *const left = room + stage * STAGE, *const right = left + HEIGHT * 32;
        const int channels = tap.channels(), h = W::shift_h(tap.h, class_h), w = W::shift_w(tap.w, class_w);
        const long long of_w = tap.h * w_h + tap.w * w_w + tap.piece * 8 * w_depth, of_x = tap.piece * 8 * x.c;
        #pragma unroll
        for (int r = 0; r < LEFT; r++) {
            const int row = line + r * (THREADS / 4);
            const bool exists = row < rows && channels > 0;
            k_piece(left + k_spot(row, slot), exists ? lines + r * (THREADS / 4) * w_row + of_w : weights, w_depth,
                    exists ? channels : 0, even_w);
        }
        #pragma unroll
        for (int r = 0; r < RIGHT; r++) {
            const int y = at_h[r] + h, z = at_w[r] + w;
            const bool exists = channels > 0 && y >= 0 && y < x.height && z >= 0 && z < x.width;
            k_piece(right + k_spot(line + r * (THREADS / 4), slot),
                    exists ? x.at + base[r] + y * x.h + z * x.w + of_x : x.at, x.c, exists ? channels : 0, even_x);
        }
        tap.ahead(4);
    };
    const int warp = threadIdx.x / 32, row = warp / ACROSS * (M * 16), column = warp % ACROSS * (N * 8);
    __syncthreads();  // nobody reads the tiles of before
    #pragma unroll 1
    for (int step = 0; step < 2; step++) {
        if (step < steps) fetch(step);
        k_copies_group();
    }
    int stage = 0;
    #pragma unroll 1
    for (int step = 0; step < steps; step++) {
        k_copies_but_last();
        __syncthreads();  // this step is there, and nobody reads the one before
        if (step + 2 < steps) fetch(stage ? stage - 1 : 2);
        k_copies_group();
        const unsigned short *const left = room + stage * STAGE;
        k_multiply<F, M, N>(sum, left, left + HEIGHT * 32, row, column);
        stage = stage < 2 ? stage + 1 : 0;
    }
    __syncthreads();  // nobody reads the last step
    long long *const places = (long long *)(room + HEIGHT * (WIDTH + 8));
    const long long plane = (long long)out_h * out_w;
    if (threadIdx.x < WIDTH) {
        const long long position = first + threadIdx.x, above = position / wide;
        const long long i = above % high * (W::turned ? W::stride_h : 1) + class_h;
        const long long j = position % wide * (W::turned ? W::stride_w : 1) + class_w;
        const bool inside = position < positions && i < out_h && j < out_w;
        const long long result = above / high * (W::groups * W::results) + group * W::results + first_row;
        places[threadIdx.x] = inside ? result * plane + i * out_w + j : -1;
    }
    const bool even = W::classes == 1 && plane % 8 == 0 && (unsigned long long)out % 16 == 0;
    k_put_tile<F, M, N>(sum, room, places, out, plane, rows, HEIGHT, WIDTH, row, column, even);
}"""
"""One tile of results x positions; `turn` is the class of the positions. A 16-bit tile goes through shared memory, so
that memory is written 16 bytes at a time where positions allow it."""

WEIGHT: Final = """\
template <class F, class W, int DOWN, int ACROSS, int M, int N> __device__ __forceinline__ void
k_correlate(unsigned short *room, const k_images &x, const k_images &g, float *part, long long group, int first_row,
            int first_column, long long start, long long stop, bool even_x, bool even_g)
{
    constexpr int SIDE = DOWN * M * 16, THREADS = DOWN * ACROSS * 32, TURN = THREADS / (SIDE / 8), LINES = 32 / TURN;
    constexpr int STAGE = SIDE * 2 * 32, COLUMNS = W::taps_h * W::taps_w * W::pieces * 8;
    const int line = threadIdx.x / (SIDE / 8), slot = threadIdx.x % (SIDE / 8);
    const int piece = first_column / 8 + slot, tap = piece / W::pieces, channel = piece % W::pieces * 8;
    const int rows = W::results - first_row - slot * 8, channels = tap < W::taps_h * W::taps_w ? W::depth - channel : 0;
    const int shift_h = W::shift_h(tap / W::taps_w, 0), shift_w = W::shift_w(tap % W::taps_w, 0);
    const long long of_g = (group * W::results + first_row + slot * 8) * g.c;
    const long long of_x = (group * W::depth + channel) * x.c;
    const int plane = 32 % ((long long)g.height * g.width > 32 ? 33 : g.height * g.width);  // 32 positions further
    const int more_n = (long long)g.height * g.width > 32 ? 0 : 32 / (g.height * g.width);
    const int more_h = plane / g.width, more_w = plane % g.width;
    int image[LINES], i[LINES], j[LINES];
    #pragma unroll
    for (int r = 0; r < LINES; r++) {
        const long long position = start + line + r * TURN, above = position / g.width;
        j[r] = (int)(position % g.width);
        i[r] = (int)(above % g.height);
        image[r] = (int)(above / g.height);
    }
    float sum[M][N][4];
    k_clear(sum);
    const auto fetch = [&](int stage, long long step) {
        unsigned short *const left = room + stage * STAGE, *const right = left + SIDE * 32;
        #pragma unroll
        for (int r = 0; r < LINES; r++) {
            const bool inside = start + step * 32 + line + r * TURN < stop;
            const int y = i[r] * W::stride_h + shift_h, z = j[r] * W::stride_w + shift_w;
            const bool meets = inside && channels > 0 && y >= 0 && y < x.height && z >= 0 && z < x.width;
            k_piece(left + k_turned_spot<SIDE>(line + r * TURN, slot),
                    inside && rows > 0 ? g.at + image[r] * g.n + i[r] * g.h + j[r] * g.w + of_g : g.at, g.c,
                    inside ? rows : 0, even_g);
            k_piece(right + k_turned_spot<SIDE>(line + r * TURN, slot),
                    meets ? x.at + image[r] * x.n + y * x.h + z * x.w + of_x : x.at, x.c, meets ? channels : 0, even_x);
            j[r] += more_w;
            i[r] += more_h;
            if (j[r] >= g.width) {
                j[r] -= g.width;
                i[r]++;
            }
            image[r] += more_n;
            if (i[r] >= g.height) {
                i[r] -= g.height;
                image[r]++;
            }
        }
    };
    const int warp = threadIdx.x / 32, row = warp / ACROSS * (M * 16), column = warp % ACROSS * (N * 8);
    const long long steps = stop > start ? (stop - start + 31) / 32 : 0;
    __syncthreads();  // nobody reads the tiles of before
    #pragma unroll 1
    for (int step = 0; step < 2; step++) {
        if (step < steps) fetch(step, step);
        k_copies_group();
    }
    int stage = 0;
    #pragma unroll 1
    for (long long step = 0; step < steps; step++) {
        k_copies_but_last();
        __syncthreads();  // this step is there, and nobody reads the one before
        if (step + 2 < steps) fetch(stage ? stage - 1 : 2, step + 2);
        k_copies_group();
        const unsigned short *const left = room + stage * STAGE;
        k_multiply_turned<F, SIDE, M, N>(sum, left, left + SIDE * 32, row, column);
        stage = stage < 2 ? stage + 1 : 0;
    }
    const int lane = threadIdx.x & 31;
    #pragma unroll
    for (int m = 0; m < M; m++)
        #pragma unroll
        for (int k = 0; k < 2; k++) {
            const int result = first_row + row + m * 16 + (lane >> 2) + 8 * k;
            #pragma unroll
            for (int n = 0; n < N; n++) {
                const int at = first_column + column + n * 8 + (lane & 3) * 2;
                if (result < W::results && at < COLUMNS)
                    *(float2 *)(part + (group * W::results + result) * COLUMNS + at) =
                        make_float2(sum[m][n][2 * k], sum[m][n][2 * k + 1]);
            }
        }
}"""
"""One tile of results x (tap, channel), of the positions from `start` to `stop`; sums go to `part` as they are."""
