"""Exponentials of matrices on a GPU: scaling, a diagonal Padé approximant of order 13, and squaring (Higham, 2005), in
double precision as on a CPU (`ir.ops.lapack`). A small matrix is one block's; the products and the system of larger
ones are shared out among many, in a launch for each."""

from __future__ import annotations

from typing import Final

from kiln.codegen.cuda.linalg_blocks import DOWNDATE, LU, ORDER, PRODUCT, SUBSTITUTE
from kiln.codegen.cuda.linalg_lu import Launches, Layouts
from kiln.codegen.cuda.linalg_text import (
    ARITHMETIC,
    BLOCK_MAX,
    BLOCK_SUM,
    LOAD,
    NAN,
    NUMBERS,
    Signature,
    batch_of,
    filled,
    functions,
    grid,
    is_small,
    pointer,
    spread,
    stack,
    strips,
)
from kiln.codegen.cuda.template import Filled
from kiln.ir import loops as L
from kiln.ir.gpu_program import Workspace
from kiln.ir.graph import Operation
from kiln.ir.ops.lapack import PADE, PADE_RADIUS
from kiln.ir.program import CheckSite
from kiln.ir.types import float64, int32

MATRICES: Final = 6
"""That one exponential needs memory for."""

_SQUARINGS: Final = """\
template <int N> __device__ __noinline__ int k_squarings(double *a, long long n, double radius, double *room)
{
    double norm = 0;
    #pragma unroll 1
    for (long long j = threadIdx.x; j < n; j += N) {
        double sum = 0;
        for (long long i = 0; i < n; i++) sum += fabs(a[i * n + j]);
        norm = sum > norm || sum != sum ? sum : norm;
    }
    norm = k_block_max<N>(norm, room);
    if (!(norm < __longlong_as_double(0x7ff0000000000000ll))) return -1;
    int squarings = 0;
    double scale = 1;
    while (norm > radius * scale && squarings < 1100) scale *= 2, squarings++;
    #pragma unroll 1
    for (long long k = threadIdx.x; k < n * n; k += N) a[k] = __ddiv_rn(a[k], scale);
    __syncthreads();
    return squarings;
}"""
"""Divides a by a power of two, so that its norm is at most `radius`, and returns which; -1: its norm is not finite."""

_COMBINE: Final = """\
template <int N>
__device__ __noinline__ void k_combine(const double *six, const double *four, const double *two, double *to,
    long long n, double x, double y, double z, double one, bool adds)
{
    #pragma unroll 1
    for (long long k = threadIdx.x; k < n * n; k += N) {
        const double sum = fma(x, six[k], fma(y, four[k], fma(z, two[k], k / n == k % n ? one : 0)));
        to[k] = adds ? to[k] + sum : sum;
    }
    __syncthreads();
}"""
"""x * six + y * four + z * two + one * the identity, in place of `to` or added to it."""

_BODY: Final = """
__shared__ double left[1024], right[1024];
__shared__ int places[8];
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    const @T@ *const from = @from@;
    @T@ *const to = out0 + b * n * n;
    double *const a = room + b * 6 * n * n, *two = a + n * n, *four = two + n * n;
    double *const six = four + n * n, *const odd = six + n * n, *const even = odd + n * n;
    int *const pivot = pivots + b * 2 * n, *const order = pivot + n;
    for (long long k = threadIdx.x; k < n * n; k += 256) a[k] = from[k / n * in0_r + k % n * in0_c];
    __syncthreads();
    if (n == 1) {
        if (threadIdx.x == 0) to[0] = (@T@)k_exp(a[0]);
        continue;
    }
    const int squarings = k_squarings<256>(a, n, @radius@, left);
    if (squarings < 0) {
        for (long long k = threadIdx.x; k < n * n; k += 256) to[k] = k_nan<@T@>();
        __syncthreads();
        continue;
    }
    k_product(a, a, two, n, 0, 1, left, right);
    k_product(two, two, four, n, 0, 1, left, right);
    k_product(four, two, six, n, 0, 1, left, right);
    k_combine<256>(six, four, two, even, n, @b13@, @b11@, @b9@, 0, false);
    k_product(six, even, odd, n, 0, 1, left, right);
    k_combine<256>(six, four, two, odd, n, @b7@, @b5@, @b3@, @b1@, true);
    k_product(a, odd, even, n, 0, 1, left, right);
    k_combine<256>(six, four, two, odd, n, @b12@, @b10@, @b8@, 0, false);
    k_product(six, odd, a, n, 0, 1, left, right);
    k_combine<256>(six, four, two, a, n, @b6@, @b4@, @b2@, @b0@, true);
    for (long long k = threadIdx.x; k < n * n; k += 256) {
        const double x = a[k], y = even[k];
        two[k] = x - y, four[k] = x + y;
    }
    __syncthreads();
    k_lu(two, n, n, n, pivot, 0, left, places);
    k_order(pivot, 1, n, n, order);
    for (long long k = threadIdx.x; k < n * n; k += 256) a[k] = four[order[k / n] * n + k % n];
    __syncthreads();
    #pragma unroll 1
    for (long long c = 0; c < n; c += 32)
        #pragma unroll 1
        for (int u = 0; u < 2; u++)
            k_substitute(two, n, 1, a + c, n, n, n - c < 32 ? (int)(n - c) : 32, u != 0, u == 0, left);
    double *found = a, *other = six;
    #pragma unroll 1
    for (int k = 0; k < squarings; k++) {
        k_product(found, found, other, n, 0, 1, left, right);
        double *const next = other;
        other = found;
        found = next;
    }
    for (long long k = threadIdx.x; k < n * n; k += 256) to[k] = (@T@)found[k];
    __syncthreads();
}"""


_SCALE: Final = """
__shared__ double scratch[256];
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    const int found = k_squarings<256>(base + b * n * n, n, @radius@, scratch);
    if (threadIdx.x == 0) squarings[b] = found;
    __syncthreads();
}"""
_PRODUCT: Final = """
__shared__ double left[1024], right[1024];
const long long across = (n + 31) / 32, tiles = across * across;
const double *x = turn == 0 ? base : turn == 1 ? two : turn == 2 ? four : turn == 4 ? base : six, *y = odd;
double *to = turn == 0 ? two : turn == 1 ? four : turn == 2 ? six : turn == 3 ? odd : turn == 4 ? even : lu;
if (turn <= 2) y = turn == 0 ? base : two;
if (turn == 3) y = even;
if (turn >= 6) {
    y = turn % 2 == 0 ? base : six;
    x = y;
    to = turn % 2 == 0 ? six : base;
}
for (long long at = blockIdx.x; at < batch * tiles; at += gridDim.x) {
    const long long b = at / tiles, start = b * n * n;
    if (squarings[b] < 0 || (turn >= 6 && turn - 6 >= squarings[b])) continue;
    k_product(x + start, y + start, to + start, n, at % tiles, tiles, left, right);
}"""
_SUM: Final = """
double *const to = turn == 0 ? even : turn <= 2 ? odd : lu;
for (long long k = (long long)blockIdx.x * 256 + threadIdx.x; k < batch * n * n; k += (long long)gridDim.x * 256) {
    const double p = six[k], q = four[k], r = two[k], one = k / n % n == k % n ? 1 : 0;
    if (turn == 0) to[k] = fma(@b13@, p, fma(@b11@, q, @b9@ * r));
    if (turn == 1) to[k] += fma(@b7@, p, fma(@b5@, q, fma(@b3@, r, @b1@ * one)));
    if (turn == 2) to[k] = fma(@b12@, p, fma(@b10@, q, @b8@ * r));
    if (turn == 3) {
        const double x = lu[k] + fma(@b6@, p, fma(@b4@, q, fma(@b2@, r, @b0@ * one))), y = even[k];
        lu[k] = x - y;
        even[k] = x + y;
    }
}"""
_REST: Final = """
__shared__ double left[1024], right[1024];
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    #pragma unroll 1
    for (int k = @done@; k < squarings[b]; k++) {
        const double *const x = (k % 2 == 0 ? base : six) + b * n * n;
        k_product(x, x, (k % 2 == 0 ? six : base) + b * n * n, n, 0, 1, left, right);
    }
}"""
_STORE: Final = """
for (long long k = (long long)blockIdx.x * 256 + threadIdx.x; k < batch * n * n; k += (long long)gridDim.x * 256) {
    const int count = squarings[k / (n * n)];
    out0[k] = count < 0 ? k_nan<@kind@>() : (@kind@)(count % 2 == 0 ? base : six)[k];
}"""
_SQUARED: Final = 12
"""Launches of squarings, of the matrices that need them; more (of norms above 20,000) are one block's."""


def _large(op: Operation, layouts: Layouts, powers: dict[str, str]) -> Filled:
    """The system's matrix is made in `lu`, its right sides in `even`, and its solution in `base`."""
    t = op.operands[0].type
    n, batch, source = t.static_shape()[-1], batch_of(t), stack("in0", op.operands[0], layouts)
    work = tuple((float64, name, batch * n * n) for name in ("base", "two", "four", "six", "odd", "even", "lu"))
    integers = (("squarings", batch), ("info", batch), ("pivots", batch * n), ("orders_of", batch * n))
    work = (*work, *((int32, name, count) for name, count in integers))
    signature = Signature(
        (pointer(t.dtype, "in0", True), pointer(t.dtype, "out0"), *(pointer(d, name) for d, name, _ in work)),
        (*source.names, "batch", "m", "n", "least", "columns", "turn"),
    )
    made = Launches(signature, source, float64, (n, n), batch)
    elements, tiles = spread(batch * n * n), batch * strips(n) ** 2

    def product(turn: int) -> None:
        made.add("product", _PRODUCT, PRODUCT, blocks=tiles, turn=turn)

    def add(turn: int) -> None:
        made.add("sum", filled(_SUM, **powers), blocks=elements, turn=turn)

    made.add("load", LOAD, blocks=elements, to="base")
    made.add("scale", _SCALE, BLOCK_MAX, _SQUARINGS, blocks=batch, radius=repr(PADE_RADIUS))
    for turn in range(3):
        product(turn)
    for turn in range(3):
        add(turn)
        product(3 + turn)
    add(3)
    made.factored()
    made.solution("even[b * n * n + order[k / 32] * n + start + k % 32]", "base", n)
    for turn in range(_SQUARED):
        product(6 + turn)
    made.add("rest", _REST, PRODUCT, blocks=batch, done=_SQUARED)
    made.add("store", _STORE, NAN, blocks=elements, kind=NUMBERS[t.dtype])
    return made.filled((batch, n, n, n, n), work)


def matrix_exp(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    """Of one launch, or of many."""
    powers = {f"b{k}": f"{float(b)!r}" for k, b in reversed([*enumerate(PADE)])}
    t = op.operands[0].type
    n, batch, source = t.static_shape()[-1], batch_of(t), stack("in0", op.operands[0], layouts)
    if n > 1 and not is_small(n, n, float64):
        return _large(op, layouts, powers)
    signature = Signature(
        (pointer(t.dtype, "in0", True), pointer(t.dtype, "out0"), pointer(float64, "room"), pointer(int32, "pivots")),
        (*source.names, "batch", "n"),
    )
    body = filled(_BODY, **{"from": source.at}, T=NUMBERS[t.dtype], radius=repr(PADE_RADIUS), **powers)
    arithmetic = (ARITHMETIC, NAN, *functions("exp"), BLOCK_SUM, BLOCK_MAX)
    helpers = (*arithmetic, LU, ORDER, DOWNDATE, SUBSTITUTE, PRODUCT, _SQUARINGS, _COMBINE)
    text = signature.text("exp", body, helpers, threads=256, blocks=grid(batch))
    work = (Workspace(float64, L.index(batch * MATRICES * n * n)), Workspace(int32, L.index(batch * 2 * n)))
    return Filled((text,), work, (*source.sizes, batch, n))
