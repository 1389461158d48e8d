"""The texts of sorts on a GPU: tiles sorted in shared memory, and merges of sorted runs by many blocks of threads.

In a tile each thread sorts `EACH` neighbours in registers (odd-even transposition, which keeps the order of equals);
then runs are merged by two, and every thread makes `EACH` elements of the result: where those begin in either run a
search along the diagonal says (Odeh et al., 2012, "merge path"). Of equals the left run's come first. Between memory
and memory a block makes a tile of the result in the same way; a warp searches together.

Rows of few elements are a warp's, which counts how many elements come before each.

`K` is a key's type, `P` that of a place; shared memory has a gap after every `EACH` elements.
"""

from __future__ import annotations

from typing import Final

EACH: Final = 8
"""Elements of a thread."""

MERGE: Final = """\
__device__ __forceinline__ int k_sort_at(int i) { return i + i / 8; }
template <class K, class P>
__device__ __forceinline__ void k_sort_merge(
    const K *keys, const P *places, int left, int from, int right, int all, int diagonal, K (&own)[8], P (&of)[8])
{
    // The left run lies from `left` on to `from`, the right one from there to `right`; `all` are wanted at most.
    int low = diagonal > right - from ? diagonal - (right - from) : 0;
    int high = diagonal < from - left ? diagonal : from - left;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (keys[k_sort_at(from + diagonal - 1 - middle)] < keys[k_sort_at(left + middle)]) high = middle;
        else low = middle + 1;
    }
    int i = left + low, j = from + diagonal - low;
    #pragma unroll
    for (int k = 0; k < 8; k++) {
        if (diagonal + k >= all) continue;
        bool takes = i >= from;
        if (!takes && j < right) takes = keys[k_sort_at(j)] < keys[k_sort_at(i)];
        const int here = k_sort_at(takes ? j : i);
        own[k] = keys[here], of[k] = places[here];
        i += !takes, j += takes;
    }
}"""

_TILE: Final = """
    #pragma unroll
    for (int k = 0; k < 8; k++) own[k] = keys[k_sort_at(thread * 8 + k)], of[k] = (unsigned short)(thread * 8 + k);
    #pragma unroll
    for (int turn = 0; turn < 8; turn++)
        #pragma unroll
        for (int k = turn % 2; k < 7; k += 2)
            if (own[k + 1] < own[k]) {
                const @K@ key = own[k];
                const unsigned short place = of[k];
                own[k] = own[k + 1], own[k + 1] = key, of[k] = of[k + 1], of[k + 1] = place;
            }
    for (int width = 8;; width *= 2) {
        #pragma unroll
        for (int k = 0; k < 8; k++) keys[k_sort_at(thread * 8 + k)] = own[k], places[k_sort_at(thread * 8 + k)] = of[k];
        __syncthreads();
        if (width >= @TILE@) break;
        const int left = thread * 8 / (2 * width) * (2 * width);
        k_sort_merge(keys, places, left, left + width, left + 2 * width, 2 * width, thread * 8 - left, own, of);
        __syncthreads();
    }"""
_HEAD: Final = """
__shared__ @K@ keys[@TILE@ / 8 * 9];
__shared__ @P@ places[@TILE@ / 8 * 9];
const int thread = threadIdx.x;
@K@ own[8];
@P@ of[8];"""

SORT: Final = f"""{_HEAD.replace("@P@", "unsigned short")}
const long long tiles = (n + @TILE@ - 1) / @TILE@;
for (long long at = blockIdx.x; at < lines * tiles; at += gridDim.x) {{
    const long long line = at / tiles, base = at % tiles * @TILE@;
    const int count = n - base < @TILE@ ? (int)(n - base) : @TILE@;
    for (int q = thread; q < @TILE@; q += @N@)
        keys[k_sort_at(q)] = q < count ? @key@(in0[@at@ + (base + q) * in0_step]) : @MOST@;
    __syncthreads();{_TILE}
    for (int q = thread; q < count; q += @N@) {{
        const long long place = base + places[k_sort_at(q)];
        @store@
    }}
    __syncthreads();
}}"""
"""Tiles of rows, of which one is the result where there are no others."""
TO_RESULT: Final = "out0[line * n + base + q] = place;"
TO_RUNS: Final = "keys0[line * n + base + q] = keys[k_sort_at(q)], places0[line * n + base + q] = (@P@)place;"

MERGE_RUNS: Final = f"""{_HEAD}
__shared__ long long cuts[2];
const @K@ *const from_keys = turn % 2 ? keys1 : keys0;
const @P@ *const from_places = turn % 2 ? places1 : places0;
@K@ *const to_keys = turn % 2 ? keys0 : keys1;
@P@ *const to_places = turn % 2 ? places0 : places1;
const long long tiles = (n + @TILE@ - 1) / @TILE@, width = (long long)@TILE@ << turn;
for (long long at = blockIdx.x; at < lines * tiles; at += gridDim.x) {{
    const long long line = at / tiles, base = at % tiles * @TILE@, start = base / (2 * width) * (2 * width);
    const long long left = n - start < width ? n - start : width;
    const long long right = n - start - left < width ? n - start - left : width;
    const @K@ *const a = from_keys + line * n + start, *const b = a + left;
    const @P@ *const a_places = from_places + line * n + start, *const b_places = a_places + left;
    const int count = left + right - (base - start) < @TILE@ ? (int)(left + right - (base - start)) : @TILE@;
    if (thread < 64) {{
        const long long diagonal = base - start + (thread < 32 ? 0 : count);
        long long low = diagonal > right ? diagonal - right : 0, high = diagonal < left ? diagonal : left;
        while (low < high) {{
            const long long step = (high - low + 31) / 32, middle = low + (thread & 31) * step;
            const bool before = middle < high && !(b[diagonal - 1 - middle] < a[middle]);
            const int found = __popc(__ballot_sync(0xffffffffu, before));
            high = found == 0 ? low : low + found * step < high ? low + found * step : high;
            low = found == 0 ? low : low + (found - 1) * step + 1;
        }}
        if ((thread & 31) == 0) cuts[thread / 32] = low;
    }}
    __syncthreads();
    const long long first = cuts[0], second = base - start - first;
    const int lefts = (int)(cuts[1] - first);
    for (int q = thread; q < count; q += @N@) {{
        keys[k_sort_at(q)] = q < lefts ? a[first + q] : b[second + q - lefts];
        places[k_sort_at(q)] = q < lefts ? a_places[first + q] : b_places[second + q - lefts];
    }}
    __syncthreads();
    if (thread * 8 < count) k_sort_merge(keys, places, 0, lefts, count, count, thread * 8, own, of);
    __syncthreads();
    #pragma unroll
    for (int k = 0; k < 8; k++)
        if (thread * 8 + k < count) keys[k_sort_at(thread * 8 + k)] = own[k], places[k_sort_at(thread * 8 + k)] = of[k];
    __syncthreads();
    const bool last = 2 * width >= n;
    for (int q = thread; q < count; q += @N@) {{
        const long long to = line * n + base + q;
        if (last) out0[to] = (long long)places[k_sort_at(q)];
        else to_keys[to] = keys[k_sort_at(q)], to_places[to] = places[k_sort_at(q)];
    }}
    __syncthreads();
}}"""
"""Runs of `@TILE@ << turn` elements merged by two; the last time places are the result."""

FIRST: Final = f"""{_HEAD.replace("@P@", "unsigned short")}
@start@
const long long tiles = (m + @TILE@ - 1) / @TILE@;
for (long long at = blockIdx.x; at < lines * tiles; at += gridDim.x) {{
    const long long line = at / tiles, base = at % tiles * @TILE@;
    const int count = m - base < @TILE@ ? (int)(m - base) : @TILE@;
    for (int q = thread; q < @TILE@; q += @N@) keys[k_sort_at(q)] = q < count ? @bring@ : @MOST@;
    __syncthreads();{_TILE}
    for (int q = thread; q < (int)few; q += @N@) {{
        const long long from = base + places[k_sort_at(q)];
        @store@
    }}
    __syncthreads();
}}"""
"""Of each tile of a row the first `few`; of those in turn, until there is one tile."""
NARROWED: Final = """long long m = n;
for (long long t = 0; t < turn; t++) m = (m + @TILE@ - 1) / @TILE@ * few;"""
WHOLE: Final = "const long long m = n;"
"""How many are left of a row."""

RANKS: Final = """
const int lane = threadIdx.x & 31;
const long long warp = ((long long)blockIdx.x * @N@ + threadIdx.x) / 32;
for (long long line = warp; line < lines; line += (long long)gridDim.x * (@N@ / 32)) {
    @K@ own[@M@];
    int rank[@M@];
    #pragma unroll
    for (int i = 0; i < @M@; i++) {
        const long long q = i * 32 + lane;
        own[i] = q < n ? @key@(in0[@at@ + q * in0_step]) : @MOST@, rank[i] = 0;
    }
    #pragma unroll
    for (int j = 0; j < @M@; j++)
        #pragma unroll
        for (int k = 0; k < 32; k++) {
            const @K@ other = __shfl_sync(0xffffffffu, own[j], k);
            #pragma unroll
            for (int i = 0; i < @M@; i++)
                rank[i] += other < own[i] || (other == own[i] && j * 32 + k < i * 32 + lane);
        }
    #pragma unroll
    for (int i = 0; i < @M@; i++)
        if (i * 32 + lane < n && rank[i] < few) out0[line * few + rank[i]] = i * 32 + lane;
}"""
"""Rows of up to 32 `M` elements, a warp's each: an element's place is how many come before it."""
