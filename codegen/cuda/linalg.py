"""Cholesky factorisations and triangular systems on a GPU, and the table of all ops of matrices that have kernels.

How work is shared out is as in `linalg_lu`: small matrices are one block's, in shared memory, larger ones go by panels
of 32 columns. A Cholesky factor's row that has none, from 1, is kept in `info`.
"""

from __future__ import annotations

from typing import Final

from kiln.codegen.cuda.linalg_blocks import CHOLESKY, DOWNDATE, SUBSTITUTE
from kiln.codegen.cuda.linalg_exp import matrix_exp
from kiln.codegen.cuda.linalg_lu import Layouts, determinant, lu_factor, lu_permutation, system
from kiln.codegen.cuda.linalg_qr import qr
from kiln.codegen.cuda.linalg_text import (
    ARITHMETIC,
    LOAD,
    NAN,
    NUMBERS,
    PANEL,
    SMALL_LOAD,
    Signature,
    batch_of,
    filled,
    grid,
    is_small,
    pointer,
    refusals,
    report,
    room,
    spread,
    stack,
    strips,
    team,
)
from kiln.codegen.cuda.template import Filled, Template
from kiln.ir import loops as L
from kiln.ir.gpu_program import Workspace
from kiln.ir.graph import Operation
from kiln.ir.program import CheckSite
from kiln.ir.types import int32

# ----------------------------------------------------------------------------------------------- cholesky

_SMALL: Final = f"""
__shared__ @T@ a[@room@], column[128];
const long long ld = n | 1;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {{{SMALL_LOAD}
    const int rows = (int)k_cholesky(a, ld, n, n, column);
    if (threadIdx.x == 0) info[b] = rows < n ? rows + 1 : 0;
    for (int k = threadIdx.x; k < (int)(n * n); k += @N@) {{
        const int i = k / (int)n, j = k % (int)n;
        @T@ x = j > i ? k_number<@T@>(0) : a[i * ld + j];
        if (i >= rows) k_set(x, k_nan<@R@>(), 0);
        out0[b * n * n + k] = x;
    }}
    __syncthreads();
}}"""
_START: Final = """
const long long step = (long long)gridDim.x * 256;
for (long long b = (long long)blockIdx.x * 256 + threadIdx.x; b < batch; b += step) info[b] = 0;"""
_PANEL: Final = """
__shared__ @T@ column[32];
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    if (info[b]) continue;
    const long long wide = n - turn < 32 ? n - turn : 32;
    const long long rows = k_cholesky(out0 + b * n * n + turn * (n + 1), n, n - turn, wide, column);
    __syncthreads();
    if (threadIdx.x == 0 && rows < wide) info[b] = (int)(turn + rows) + 1;
}"""
_STRIPS: Final = """
__shared__ @T@ y[1024];
const long long stop = turn + 32, count = (n - stop + 31) / 32;
for (long long at = blockIdx.x; at < batch * count; at += gridDim.x) {
    const long long b = at / count, start = stop + at % count * 32;
    if (info[b]) continue;
    const int columns = n - start < 32 ? (int)(n - start) : 32;
    @T@ *const a = out0 + b * n * n;
    for (int k = threadIdx.x; k < 1024; k += 256)
        if (k / 32 < columns) y[k % 32 * 32 + k / 32] = k_conj(a[(start + k / 32) * n + turn + k % 32]);
    __syncthreads();
    k_downdate(a + start * n + turn, n, 1, a + start * n + start, n, n - start, 32, columns, y);
}"""
_FINISH: Final = """
for (long long k = (long long)blockIdx.x * 256 + threadIdx.x; k < batch * n * n; k += (long long)gridDim.x * 256) {
    const long long b = k / (n * n), i = k / n % n, j = k % n;
    if (info[b] && i + 1 >= info[b]) k_set(out0[k], k_nan<@R@>(), 0);
    else if (j > i) out0[k] = k_number<@T@>(0);
}"""


def cholesky(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    """The factor is made where the result lies."""
    t, check = op.operands[0].type, bool(op.attrs["check"])
    n, batch, source = t.static_shape()[-1], batch_of(t), stack("in0", op.operands[0], layouts)
    message = "{matrix} is not positive definite (its leading minor of order {order} is not)"
    site = refusals(op, message, n + 1, sites) if check else 0
    signature = Signature(
        (pointer(t.dtype, "in0", True), pointer(t.dtype, "out0"), pointer(int32, "info")),
        (*source.names, "batch", "m", "n", "orders", "site", "turn"),
    )
    kinds = {"from": source.at, "T": NUMBERS[t.dtype], "R": NUMBERS[t.dtype.part]}
    text = signature.text
    if is_small(n, n, t.dtype):
        threads = team(n, n, t.dtype)
        body = filled(_SMALL, room=room(n, n, t.dtype), N=threads, **kinds)
        texts = [text("small", body, (ARITHMETIC, CHOLESKY, NAN), threads=threads, blocks=grid(batch))]
        turns = [0]
    else:
        kinds["N"] = "256"
        every = spread(batch * n * n)
        texts = [
            text("start", _START, (), threads=256, blocks=spread(batch)),
            text("load", filled(LOAD, to="out0", **kinds), (), threads=256, blocks=every),
        ]
        turns = [0, 0]
        panel = text("panel", filled(_PANEL, **kinds), (ARITHMETIC, CHOLESKY), threads=256, blocks=grid(batch))
        for turn in range(0, n, PANEL):
            texts.append(panel)
            turns.append(turn)
            if count := strips(max(0, n - turn - PANEL)):
                body, blocks = filled(_STRIPS, **kinds), grid(batch * count)
                texts.append(text("strips", body, (ARITHMETIC, DOWNDATE), threads=256, blocks=blocks))
                turns.append(turn)
        texts.append(text("finish", filled(_FINISH, **kinds), (ARITHMETIC, NAN), threads=256, blocks=every))
        turns.append(0)
    if check:
        texts.append(report(signature))
        turns.append(0)
    sizes = (*source.sizes, batch, n, n, n + 1, site)
    return Filled(tuple(texts), (Workspace(int32, L.index(batch)),), sizes, tuple(turns))


# ------------------------------------------------------------------------------------- triangular systems

_TRIANGULAR: Final = """
__shared__ @T@ y[1024];
const long long count = (columns + 31) / 32;
for (long long at = blockIdx.x; at < batch * count; at += gridDim.x) {
    const long long b = at / count, start = at % count * 32;
    const int wide = columns - start < 32 ? (int)(columns - start) : 32;
    const @T@ *const a = @from@, *const side = (@side@) + start * in1_c;
    @T@ *const x = out0 + b * n * columns + start;
    for (long long k = threadIdx.x; k < n * 32; k += @N@)
        if (k % 32 < wide) x[k / 32 * columns + k % 32] = side[k / 32 * in1_r + k % 32 * in1_c];
    __syncthreads();
    k_substitute(a, in0_r, in0_c, x, columns, n, wide, upper != 0, unit != 0, y);
}"""


def triangular_solve(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    """One launch: a block for every strip of right sides."""
    a, b = op.operands
    t, (n, columns), batch = a.type, b.type.static_shape()[-2:], batch_of(b.type)
    source, side = stack("in0", a, layouts), stack("in1", b, layouts)
    signature = Signature(
        (pointer(t.dtype, "in0", True), pointer(t.dtype, "in1", True), pointer(t.dtype, "out0")),
        (*source.names, *side.names, "batch", "n", "columns", "upper", "unit"),
    )
    threads = 64 if n <= 16 else 256
    words = {"from": source.at, "side": side.at, "T": NUMBERS[t.dtype], "N": threads}
    body, blocks = filled(_TRIANGULAR, **words), grid(batch * strips(columns))
    text = signature.text("substitute", body, (ARITHMETIC, DOWNDATE, SUBSTITUTE), threads=threads, blocks=blocks)
    options = int(bool(op.attrs["upper"])), int(bool(op.attrs["unit"]))
    return Filled((text,), (), (*source.sizes, *side.sizes, batch, n, columns, *options))


TEMPLATES: Final[dict[str, Template]] = {
    "cholesky": cholesky,
    "det": determinant,
    "inv": system,
    "lu_factor": lu_factor,
    "lu_permutation": lu_permutation,
    "matrix_exp": matrix_exp,
    "qr": qr,
    "qr_complete": qr,
    "slogdet": determinant,
    "solve": system,
    "triangular_solve": triangular_solve,
}
"""Ops of matrices with kernels of their own."""
