"""The texts of scans on a GPU: states that are joined, chains of them, and tiles that many threads scan together.

A state is what is known of a stretch of a line, and `k_join` makes that of two stretches out of theirs: a sum; what a
recurrence multiplies the number before by, and what it adds; the largest element and its place. Text is C++ over a
struct `S` with `k_join`, `k_up` and `k_from` (shuffles), so that one body serves all of them.

The order of a tile: each thread chains `E` neighbours, a warp joins those of its threads by doubling distances, then
the warps are chained, then the tiles. What comes before an element is joined to it last. Lines along the last
dimension come through shared memory, others are read as they lie, each thread a piece of a line; the order is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kiln.codegen.cuda.function import emit_function
from kiln.codegen.cuda.literals import C_TYPES
from kiln.codegen.cuda.prelude import HELPERS
from kiln.ir import loops as L
from kiln.ir.types import DType, bool_, float32, float64, int32, int64

TAME: Final = 65536.0
"""Recurrences of floats whose factors are at most 1, and whose terms are at most this, are scanned in tiles."""


@dataclass(frozen=True, slots=True)
class State:
    """The struct of a scan of elements `dtype`: C types and names of its members and the dtypes that hold them in
    memory, and its helper functions."""

    name: str
    members: tuple[tuple[str, DType], ...]
    text: tuple[str, ...]


def accumulator(dtype: DType) -> DType:
    """What sums and products of these elements are kept in; unsigned of this width if integers."""
    if dtype.is_floating_point:
        return float64 if dtype.bits == 64 else float32
    return int64 if dtype.bits == 64 else int32


def memory_type(dtype: DType) -> str:
    """The C type of an element in memory; of a bool its byte."""
    return "unsigned char" if dtype is bool_ else C_TYPES[dtype]


def _number_type(dtype: DType, wraps: bool) -> str:
    return ("unsigned " if wraps and not dtype.is_floating_point else "") + C_TYPES[dtype]


def _conversions(name: str, dtype: DType) -> tuple[str, str, tuple[str, ...]]:
    """C functions to the accumulator and back, and their texts."""
    if not dtype.is_half:
        return "", "", ()
    wide, narrow = L.Var(L.Vec(dtype), "x"), L.Var(L.Vec(float32), "x")
    texts = emit_function(f"{name}_wide", wide, L.cast(wide, float32))
    texts += emit_function(f"{name}_narrow", narrow, L.cast(narrow, dtype))
    return f"{name}_wide", f"{name}_narrow", tuple(dict.fromkeys(texts))


_JOINS: Final = {
    "cumsum": "l.a = l.a + r.a;\n    return l;",
    "recur": "l.a = l.a * r.a, l.b = r.a * l.b + r.b;\n    return l;",
    "cumargmax": "return @takes@ ? r : l;",
}


def state(op: str, dtype: DType) -> State:
    """The state of an op of `SCANS`: `k_join(l, r)`, shuffles, `{name}_of(x, y, place)` of one element, `{name}_out`,
    what is stored, and `{name}_keep` and `{name}_kept`, to memory and back."""
    name, held = f"k_{op}_{dtype.name}", accumulator(dtype)
    number = _number_type(held, op != "cumargmax")
    members = {"cumsum": [(number, held)], "recur": [(number, held)] * 2}.get(
        op, [(number, held), ("long long", int64)]
    )
    widen, narrow, texts = _conversions(name, dtype)
    join = _JOINS[op].replace("@takes@", _takes(dtype))
    made = [f"({number}){widen}({x})" for x in ("x", "y")]
    first = {"cumsum": made[:1], "recur": made}.get(op, [made[0], "place"])
    last = {"cumsum": "s.a", "recur": "s.b"}.get(op, "s.b")
    back = "" if op == "cumargmax" else narrow
    kind = "long long" if op == "cumargmax" else memory_type(dtype)
    names = "ab"[: len(members)]
    element = memory_type(dtype)
    pointers = ", ".join(f"{t} *k{n}" for n, (t, _) in zip(names, members, strict=True))
    head = "__device__ __forceinline__"
    lines = [
        f"struct {name} {{ {' '.join(f'{t} {n};' for n, (t, _) in zip(names, members, strict=True))} }};",
        f"{head} {name} k_join({name} l, {name} r)\n{{\n    {join}\n}}",
        *(
            f"{head} {name} {fn}({name} s, int k)\n{{\n"
            + "".join(f"    s.{n} = {shuffle}(0xffffffffu, s.{n}, k);\n" for n in names)
            + "    return s;\n}"
            for fn, shuffle in (("k_up", "__shfl_up_sync"), ("k_from", "__shfl_sync"))
        ),
        f"{head} {name} {name}_of({element} x, {element} y, long long place)\n"
        f"{{\n    (void)y, (void)place;\n    return {name}{{{', '.join(first)}}};\n}}",
        f"{head} {kind} {name}_out({name} s)\n{{ return ({kind}){back}({last}); }}",
        f"{head} void {name}_keep({pointers}, long long at, {name} s)\n"
        f"{{ {' '.join(f'k{n}[at] = s.{n};' for n in names)} }}",
        f"{head} {name} {name}_kept({pointers}, long long at)\n"
        f"{{ return {name}{{{', '.join(f'k{n}[at]' for n in names)}}}; }}",
    ]
    return State(name, tuple(members), (*texts, *lines))


def _takes(dtype: DType) -> str:
    """Whether the right one of two is the larger, the last of equals, NaN being the largest."""
    if not dtype.is_floating_point:
        return "r.a >= l.a"
    return "(l.a == l.a && r.a >= l.a) || r.a != r.a"


# ---------------------------------------------------------------------------------------- shared memory

_BRING: Final = """\
template <int E, int N, class T>
__device__ __forceinline__ void k_bring(T *room, const T *from, long long step, long long low, int count, bool turned)
{
    constexpr int V = 16 / sizeof(T);
    if (step == 1) {
        const int skew = (int)((unsigned long long)(from + low) % 16 / sizeof(T));
        for (int q = (int)threadIdx.x * V - skew; q < count; q += N * V) {
            T v[V];
            if (q >= 0) k_get<V>(v, from, low + q, (long long)count - q);
            #pragma unroll
            for (int k = 0; k < V; k++) {
                if (q + k < 0 || q + k >= count) continue;
                const int p = turned ? count - 1 - q - k : q + k;
                room[p / E * (E + 1) + p % E] = q < 0 ? from[low + q + k] : v[k];
            }
        }
    } else {
        for (int q = threadIdx.x; q < count; q += N) {
            const int p = turned ? count - 1 - q : q;
            room[p / E * (E + 1) + p % E] = from[(low + q) * step];
        }
    }
    for (int p = count + (int)threadIdx.x; p < E * N; p += N) room[p / E * (E + 1) + p % E] = T();
}"""
_SPREAD: Final = """\
template <int E, int N, class T>
__device__ __forceinline__ void k_spread(const T *room, T *to, long long low, int count, bool turned)
{
    constexpr int V = 16 / sizeof(T);
    const int skew = (int)((unsigned long long)(to + low) % 16 / sizeof(T));
    for (int q = (int)threadIdx.x * V - skew; q < count; q += N * V) {
        T v[V];
        #pragma unroll
        for (int k = 0; k < V; k++) {
            const int p = turned ? count - 1 - q - k : q + k;
            v[k] = p < 0 || p >= count ? T() : room[p / E * (E + 1) + p % E];
            if (q < 0 && q + k >= 0 && q + k < count) to[low + q + k] = v[k];
        }
        if (q >= 0) k_put<V>(v, to, low + q, (long long)count - q);
    }
}"""
ACROSS: Final = """\
template <int W, class S>
__device__ __forceinline__ void k_across(S last, S *totals, bool &any, S &before, S &total)
{
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    #pragma unroll
    for (int k = 1; k < 32; k *= 2) {
        const S other = k_up(last, k);
        if (lane >= k) last = k_join(other, last);
    }
    if (lane == 31) totals[warp] = last;
    before = k_up(last, 1), any = lane > 0;
    __syncthreads();
    total = totals[0];
    #pragma unroll
    for (int k = 1; k < W; k++) {
        if (k == warp) before = any ? k_join(total, before) : total, any = true;
        total = k_join(total, totals[k]);
    }
}"""
HELP: Final = (HELPERS["k_pack"], HELPERS["k_get"], HELPERS["k_put"], _BRING, _SPREAD, ACROSS)
"""`k_bring` and `k_spread` move neighbours (`turned`: from the last one on) between memory and shared memory, where
pieces of E lie E + 1 apart, so that threads meet other banks. `k_across` is called with the state of each thread's own
piece: `before` is then that of all threads before, if there are `any`, `total` that of all."""


# ----------------------------------------------------------------------------------------------- bodies

CHAIN: Final = """
@rooms@
for (long long first = (long long)blockIdx.x * @G@; first < lines; first += (long long)gridDim.x * @G@) {
    @leave@
    @S@ s = {};
    for (long long base = 0; base < n; base += @P@) {
        const int count = n - base < @P@ ? (int)(n - base) : @P@;
        const long long low = reverse ? n - base - count : base;
        for (int q = threadIdx.x; q < @G@ * count; q += @N@) {
            const long long line = first + q / count;
            const int p = q % count, at = q / count * (@P@ + 1) + (reverse ? count - 1 - p : p);
            if (line >= lines@skip@) continue;
            @fetch@
        }
        __syncthreads();
        if (threadIdx.x < @G@ && first + threadIdx.x < lines) {
            #pragma unroll 4
            for (int p = 0; p < count; p++) {
                const int at = (int)threadIdx.x * (@P@ + 1) + p;
                const @S@ own = @S@_of(room0[at], @second@[at], base + p);
                s = base + p ? k_join(s, own) : own;
                made[at] = @S@_out(s);
            }
        }
        __syncthreads();
        for (int q = threadIdx.x; q < @G@ * count; q += @N@) {
            const long long line = first + q / count;
            const int p = q % count, at = q / count * (@P@ + 1) + (reverse ? count - 1 - p : p);
            if (line >= lines@skip@) continue;
            out0[line / inner * inner * n + line % inner + (low + p) * inner] = made[at];
        }
        __syncthreads();
    }
}"""
"""One chain per line, of G lines together, P elements after the other in shared memory."""

CHAINS_ACROSS: Final = """
for (long long line = (long long)blockIdx.x * @N@ + threadIdx.x; line < lines; line += (long long)gridDim.x * @N@) {
    @O@ *const to = out0 + line / inner * inner * n + line % inner;
    @S@ s = {};
    for (long long base = 0; base < n; base += 8) {
        @ahead@
        #pragma unroll
        for (int k = 0; k < 8; k++) {
            const long long m = reverse ? n - 1 - base - k : base + k;
            if (base + k >= n) continue;
            @few@
        }
        #pragma unroll
        for (int k = 0; k < 8; k++) {
            const long long m = reverse ? n - 1 - base - k : base + k;
            if (base + k >= n) continue;
            const @S@ own = @S@_of(x0[k], @second@[k], base + k);
            s = base + k ? k_join(s, own) : own;
            to[m * inner] = @S@_out(s);
        }
    }
}"""
"""One chain per line and thread, where lines are neighbours in memory."""

_TILE_HEAD: Final = """
@rooms@
__shared__ @S@ totals[@W@];
const int thread = threadIdx.x;
const long long tiles = (n + @TILE@ - 1) / @TILE@;"""
_TILE: Final = """
    const long long base = tile * @TILE@;
    const int count = n - base < @TILE@ ? (int)(n - base) : @TILE@;
    const long long low = reverse ? n - base - count : base;
    @bring@
    __syncthreads();
    @S@ own[@E@], before, total;
    bool any;
    #pragma unroll
    for (int k = 0; k < @E@; k++) {
        const int at = thread * (@E@ + 1) + k;
        own[k] = @S@_of(room0[at], @second@[at], base + thread * @E@ + k);
        @look@
        if (k) own[k] = k_join(own[k - 1], own[k]);
    }
    k_across<@W@>(own[@E@ - 1], totals, any, before, total);"""
_TILE_STORE: Final = """
    if (tile > 0) before = any ? k_join(carry, before) : carry, any = true;
    #pragma unroll
    for (int k = 0; k < @E@; k++)
        made[thread * (@E@ + 1) + k] = @S@_out(any ? k_join(before, own[k]) : own[k]);
    __syncthreads();
    k_spread<@E@, @N@>(made, out0 + line * n, low, count, reverse);
    __syncthreads();"""

SUMS: Final = f"""{_TILE_HEAD}
for (long long at = blockIdx.x; at < lines * tiles; at += gridDim.x) {{
    const long long line = at / tiles, tile = at % tiles;{_TILE}
    if (thread == 0) @S@_keep(@kept@, at, total);
    __syncthreads();
}}"""
"""The state of every tile."""
APPLY: Final = f"""{_TILE_HEAD}
for (long long at = blockIdx.x; at < lines * tiles; at += gridDim.x) {{
    const long long line = at / tiles, tile = at % tiles;
    @leave@{_TILE}
    @S@ carry = {{}};
    if (tile > 0) carry = @S@_kept(@kept@, at - 1);{_TILE_STORE}
}}"""
"""The tiles, with what comes before them."""
WALK: Final = f"""{_TILE_HEAD}
for (long long line = blockIdx.x; line < lines; line += gridDim.x) {{
    @S@ carry = {{}};
    for (long long tile = 0; tile < tiles; tile++) {{{_TILE.replace(chr(10) + " ", chr(10) + "     ")}
    {_TILE_STORE.replace(chr(10) + " ", chr(10) + "     ")}
        carry = tile > 0 ? k_join(carry, total) : total;
    }}
}}"""
"""The few tiles of a line, one after the other."""
CARRIES: Final = """
__shared__ @S@ totals[@W@];
const long long tiles = (n + @TILE@ - 1) / @TILE@;
for (long long line = blockIdx.x; line < lines; line += gridDim.x) {
    @S@ carry = {};
    for (long long base = 0; base < tiles; base += @N@ * 8) {
        const long long start = base + threadIdx.x * 8;
        @S@ own[8], before, total;
        bool any;
        #pragma unroll
        for (int k = 0; k < 8; k++) {
            own[k] = @S@{};
            if (start + k < tiles) own[k] = @S@_kept(@kept@, line * tiles + start + k);
            if (k) own[k] = k_join(own[k - 1], own[k]);
        }
        k_across<@W@>(own[7], totals, any, before, total);
        if (base > 0) before = any ? k_join(carry, before) : carry, any = true;
        #pragma unroll
        for (int k = 0; k < 8; k++)
            if (start + k < tiles)
                @S@_keep(@kept@, line * tiles + start + k, any ? k_join(before, own[k]) : own[k]);
        carry = base > 0 ? k_join(carry, total) : total;
        __syncthreads();
    }
}"""
"""The states of the tiles to those of all up to each, with the order of a tile."""

_ACROSS_HEAD: Final = """
__shared__ @S@ sums[@W@ * @N@];
const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
const int column = thread % @W@, row = thread / @W@;
const long long tiles = (n + @TILE@ - 1) / @TILE@, groups = (lines + @W@ - 1) / @W@;
for (long long at = blockIdx.x; at < groups * tiles; at += gridDim.x) {
    const long long tile = at % tiles, base = tile * @TILE@, line = at / tiles * @W@ + column;
    const bool exists = line < lines@skip@;"""
_ACROSS_PIECE: Final = """
    for (int piece = row; piece < @N@; piece += @N@ / @W@) {
        @S@ own[@E@];
        #pragma unroll
        for (int k = 0; k < @E@; k++) {
            const long long p = base + piece * @E@ + k, m = reverse ? n - 1 - p : p;
            own[k] = @S@{};
            if (exists && p < n) {
                own[k] = @S@_of(@first_here@, @second_here@, p);
                @look@
            }
            if (k) own[k] = k_join(own[k - 1], own[k]);
        }"""
_ACROSS_JOIN: Final = """
        sums[column * @N@ + piece] = own[@E@ - 1];
    }
    __syncthreads();
    @S@ total = {};
    for (int k = 0; k < @W@; k++) {
        @S@ *const here = sums + warp * @N@ + k * 32 + lane;
        @S@ upto = *here;
        #pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const @S@ other = k_up(upto, d);
            if (lane >= d) upto = k_join(other, upto);
        }
        @S@ before = k_up(upto, 1);
        const @S@ all = k_from(upto, 31);
        if (k > 0) before = lane ? k_join(total, before) : total;
        total = k ? k_join(total, all) : all;
        *here = before;
    }"""
SUMS_ACROSS: Final = f"""{_ACROSS_HEAD}{_ACROSS_PIECE}{_ACROSS_JOIN}
    const long long mine = at / tiles * @W@ + warp;
    if (lane == 0 && mine < lines) @S@_keep(@kept@, mine * tiles + tile, total);
    __syncthreads();
}}"""
APPLY_ACROSS: Final = f"""{_ACROSS_HEAD}{_ACROSS_PIECE}{_ACROSS_JOIN}
    __syncthreads();
    @S@ carry = {{}};
    if (exists && tile > 0) carry = @S@_kept(@kept@, line * tiles + tile - 1);{_ACROSS_PIECE}
        @S@ before = sums[column * @N@ + piece];
        if (tile > 0) before = piece ? k_join(carry, before) : carry;
        #pragma unroll
        for (int k = 0; k < @E@; k++) {{
            const long long p = base + piece * @E@ + k, m = reverse ? n - 1 - p : p;
            if (exists && p < n)
                out0[line / inner * inner * n + line % inner + m * inner] =
                    @S@_out(piece > 0 || tile > 0 ? k_join(before, own[k]) : own[k]);
        }}
    }}
    __syncthreads();
}}"""
"""The same where lines are neighbours in memory: as many as a block has warps; each joins one line's pieces."""

START: Final = """
for (long long line = (long long)blockIdx.x * @N@ + threadIdx.x; line < lines; line += (long long)gridDim.x * @N@)
    wild[line] = 0;"""
LOOK: Final = (
    f"if (@place@ < n && !(fabs(own[k].b) <= {TAME} && (@place@ == 0 || fabs(own[k].a) <= 1)))\n"
    "            wild[line] = 1;"
)
"""Notes that a line is not to be scanned in tiles: products of factors might overflow where its numbers do not."""


def filled(text: str, words: Sequence[tuple[str, str]]) -> str:
    """A text with every @word@ replaced, one word after the other: what is put in may hold later ones."""
    for word, meant in words:
        text = text.replace(f"@{word}@", meant)
    assert "@" not in text, text
    return text
