"""QR factorisations on a GPU, by Householder reflections with LAPACK's signs.

Panels of 32 columns are factored column by column, what is right of them is changed by all 32 reflections at once
(1 - v t v', Schreiber and Van Loan, 1989), and so is q made, from the last panel to the first. A small matrix is one
block's, in shared memory; a larger one takes two launches per panel, and one more for q.
"""

from __future__ import annotations

from typing import Final

from kiln.codegen.cuda.linalg_blocks import HOUSEHOLDER
from kiln.codegen.cuda.linalg_lu import Layouts
from kiln.codegen.cuda.linalg_text import (
    ARITHMETIC,
    BLOCK_MAX,
    BLOCK_SUM,
    LOAD,
    NUMBERS,
    PANEL,
    SMALL_LOAD,
    Signature,
    batch_of,
    filled,
    grid,
    is_small,
    pointer,
    room,
    spread,
    stack,
    strips,
)
from kiln.codegen.cuda.template import Filled
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaText, Workspace
from kiln.ir.graph import Operation
from kiln.ir.program import CheckSite

_SHARED: Final = """
__shared__ @T@ part[1024], z[1024];"""
_SMALL: Final = f"""
__shared__ @T@ a[@room@];{_SHARED}
const long long ld = n | 1;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {{{SMALL_LOAD}
    @T@ *const q = out0 + b * m * across, *const ts = t + b * 1024 * panels;
    #pragma unroll 1
    for (long long s = 0; s < least; s += 32) {{
        const int wide = least - s < 32 ? (int)(least - s) : 32;
        k_householder<256>(a + s * (ld + 1), ld, m - s, wide, ts + s * 32, part, z);
        #pragma unroll 1
        for (long long c = s + wide; c < n; c += 32)
            k_reflect<256>(a + s * (ld + 1), ld, ts + s * 32, a + s * ld + c, ld, m - s, wide,
                           n - c < 32 ? (int)(n - c) : 32, true, part, z);
    }}
    for (int k = threadIdx.x; k < (int)(down * n); k += 256) {{
        const int i = k / (int)n, j = k % (int)n;
        out1[b * down * n + k] = i <= j ? a[i * ld + j] : k_number<@T@>(0);
    }}
    for (long long k = threadIdx.x; k < m * across; k += 256) q[k] = k_number<@T@>(k / across == k % across ? 1 : 0);
    __syncthreads();
    #pragma unroll 1
    for (long long s = (least - 1) / 32 * 32; s >= 0 && least > 0; s -= 32) {{
        const int wide = least - s < 32 ? (int)(least - s) : 32;
        #pragma unroll 1
        for (long long c = s; c < across; c += 32)
            k_reflect<256>(a + s * (ld + 1), ld, ts + s * 32, q + s * across + c, across, m - s, wide,
                           across - c < 32 ? (int)(across - c) : 32, false, part, z);
    }}
}}"""
_PANEL: Final = f"""{_SHARED}
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {{
    const int wide = least - turn < 32 ? (int)(least - turn) : 32;
    k_householder<256>(a + b * m * n + turn * (n + 1), n, m - turn, wide, t + (b * panels * 32 + turn) * 32, part, z);
}}"""
_STRIPS: Final = f"""{_SHARED}
const long long wide = least - turn < 32 ? least - turn : 32, first = @first@, to = @to@;
const long long count = (to - first + 31) / 32;
for (long long at = blockIdx.x; at < batch * count; at += gridDim.x) {{
    const long long b = at / count, c = first + at % count * 32;
    k_reflect<256>(a + b * m * n + turn * (n + 1), n, t + (b * panels * 32 + turn) * 32,
                   @x@ + b * m * to + turn * to + c, to, m - turn, (int)wide, to - c < 32 ? (int)(to - c) : 32,
                   @adjoint@, part, z);
}}"""
_RESULTS: Final = """
const long long step = (long long)gridDim.x * 256, start = (long long)blockIdx.x * 256 + threadIdx.x;
for (long long k = start; k < batch * down * n; k += step) {
    const long long b = k / (down * n), i = k / n % down, j = k % n;
    out1[k] = i <= j ? a[b * m * n + i * n + j] : k_number<@T@>(0);
}
for (long long k = start; k < batch * m * across; k += step)
    out0[k] = k_number<@T@>(k / across % m == k % across ? 1 : 0);"""
_HELPERS: Final = (ARITHMETIC, BLOCK_SUM, BLOCK_MAX, HOUSEHOLDER)


def qr(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    """`qr` and `qr_complete`: q is `across` columns wide, r has `down` rows."""
    t = op.operands[0].type
    (m, n), batch, source = t.static_shape()[-2:], batch_of(t), stack("in0", op.operands[0], layouts)
    across, down = op.results[0].type.static_shape()[-1], op.results[1].type.static_shape()[-2]
    least, small = min(m, n), is_small(m, n, t.dtype)
    panels = strips(least)
    work = {"t": batch * panels * PANEL * PANEL}
    if not small:
        work["a"] = batch * m * n
    signature = Signature(
        (
            pointer(t.dtype, "in0", True),
            *(pointer(t.dtype, name) for name in ("out0", "out1", *work)),
        ),
        (*source.names, "batch", "m", "n", "least", "across", "down", "panels", "turn"),
    )
    words = {"from": source.at, "T": NUMBERS[t.dtype], "N": 256}
    texts: list[CudaText] = []
    turns: list[int] = []

    def add(name: str, body: str, blocks: int, turn: int = 0, **more: object) -> None:
        text = filled(body, **more, **words)
        texts.append(signature.text(name, text, _HELPERS, threads=256, blocks=grid(blocks)))
        turns.append(turn)

    if small:
        add("small", _SMALL, batch, room=room(m, n, t.dtype))
    else:
        add("load", LOAD, spread(batch * m * n), to="a")
        for turn in range(0, least, PANEL):
            add("panel", _PANEL, batch, turn)
            count = strips(n - min(turn + PANEL, least))
            add("strips", _STRIPS, batch * count, turn, first="turn + wide", to="n", x="a", adjoint="true")
        add("results", _RESULTS, spread(batch * (down * n + m * across)))
        for turn in reversed(range(0, least, PANEL)):
            count = strips(across - turn)
            add("q", _STRIPS, batch * count, turn, first="turn", to="across", x="out0", adjoint="false")
    spaces = tuple(Workspace(t.dtype, L.index(count)) for count in work.values())
    return Filled(tuple(texts), spaces, (*source.sizes, batch, m, n, least, across, down, panels), tuple(turns))
