"""LU factorisations on a GPU, and what is made of them: systems, inverses, determinants.

A small matrix is one block's, in shared memory. A larger one is factored by panels of 32 columns, two launches for
each: one block per matrix factors the panel, then one per strip of 32 columns exchanges rows and changes what is right
of the panel. Pivots are LAPACK's up to rounding. Where a zero on the diagonal of u is an error, `info` takes its row,
from 1, and a last kernel reports the first matrix of the stack that has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kiln.codegen.cuda.linalg_blocks import DETERMINANT, DOWNDATE, FIRST_ZERO, LU, ORDER, SUBSTITUTE
from kiln.codegen.cuda.linalg_text import (
    ARITHMETIC,
    BLOCK_MAX,
    BLOCK_SUM,
    LOAD,
    NAN,
    NUMBERS,
    PANEL,
    SMALL_LOAD,
    Signature,
    Stack,
    batch_of,
    filled,
    functions,
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
from kiln.codegen.cuda.template import Filled
from kiln.codegen.layout import Layout
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaText, Workspace
from kiln.ir.graph import Operation, Value
from kiln.ir.program import CheckSite
from kiln.ir.types import DType, int32, int64

Layouts = Mapping[Value, Layout | None]

_SHARED: Final = """
__shared__ @R@ sizes[@N@ / 32];
__shared__ int places[@N@ / 32];"""
_SMALL: Final = f"""
__shared__ @T@ a[@room@];{_SHARED}@shared@
const long long ld = n | 1;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {{{SMALL_LOAD}
    int *const pivot = pivots + b * least;
    k_lu(a, ld, m, n, pivot, 0, sizes, places);@then@
    __syncthreads();
}}"""
_PANEL: Final = f"""{_SHARED}
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {{
    const long long wide = least - turn < 32 ? least - turn : 32;
    k_lu(lu + b * m * n + turn * (n + 1), n, m - turn, wide, pivots + b * least + turn, turn, sizes, places);
}}"""
_STRIPS: Final = """
__shared__ @T@ y[1024];
const long long stop = turn + 32 < least ? turn + 32 : least, left = turn / 32, count = left + (n - stop + 31) / 32;
for (long long at = blockIdx.x; at < batch * count; at += gridDim.x) {
    const long long b = at / count, strip = at % count;
    const long long start = strip < left ? strip * 32 : stop + (strip - left) * 32;
    const int columns = n - start < 32 ? (int)(n - start) : 32, inner = (int)(stop - turn);
    @T@ *const a = lu + b * m * n;
    if (threadIdx.x < columns)
        for (long long j = turn; j < stop; j++) {
            const long long p = pivots[b * least + j] - 1;
            if (p == j) continue;
            const @T@ x = a[j * n + start + threadIdx.x];
            a[j * n + start + threadIdx.x] = a[p * n + start + threadIdx.x];
            a[p * n + start + threadIdx.x] = x;
        }
    __syncthreads();
    if (strip < left) continue;
    k_solve_few(a + turn * (n + 1), n, 1, a + turn * n + start, n, inner, columns, false, true, y);
    k_downdate(a + stop * n + turn, n, 1, a + stop * n + start, n, m - stop, inner, columns, y);
}"""


@dataclass(slots=True)
class Launches:
    """The launches of an op that factors its first operand into `lu`, so far, and what their kernels need."""

    signature: Signature
    source: Stack
    dtype: DType
    shape: tuple[int, int]
    batch: int
    texts: list[CudaText] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)

    def kinds(self, threads: int) -> dict[str, object]:
        """What all bodies are filled with."""
        return {"from": self.source.at, "T": NUMBERS[self.dtype], "R": NUMBERS[self.dtype.part], "N": threads}

    def add(
        self, name: str, body: str, *helpers: str, blocks: int, threads: int = 256, turn: int = 0, **words: Any
    ) -> None:
        """One more; the words that its body holds come before the numbers' types."""
        text = filled(body, **words, **self.kinds(threads))
        needed = (ARITHMETIC, *helpers)
        self.texts.append(self.signature.text(name, text, needed, threads=threads, blocks=grid(blocks)))
        self.turns.append(turn)

    def small(self, then: str, *helpers: str, shared: str = "", **words: Any) -> None:
        """All of it in one launch; `then` follows the factorisation of a, whose rows lie `ld` apart."""
        m, n = self.shape
        threads = team(m, n, self.dtype)
        body = filled(_SMALL, shared=shared, then=then, **words, room=room(m, n, self.dtype), **self.kinds(threads))
        helpers = (LU, *helpers)
        self.add("small", body, *helpers, blocks=self.batch, threads=threads)

    def factored(self) -> None:
        """The factorisation of what lies in `lu`, panel by panel."""
        m, n = self.shape
        for turn in range(0, min(m, n), PANEL):
            self.add("panel", _PANEL, LU, blocks=self.batch, threads=512, turn=turn)
            count = turn // PANEL + strips(n - min(turn + PANEL, m, n))
            self.add("strips", _STRIPS, DOWNDATE, SUBSTITUTE, blocks=self.batch * count, turn=turn)

    def solution(self, side: str, to: str, columns: int) -> None:
        """The solution of a factored system in `to`, whose right sides are `side`."""
        self.add("ready", _READY, FIRST_ZERO, ORDER, blocks=self.batch)
        blocks = self.batch * strips(columns)
        self.add("solution", _SOLUTION, DOWNDATE, SUBSTITUTE, NAN, blocks=blocks, to=to, side=side)

    def report(self) -> None:
        self.texts.append(report(self.signature))
        self.turns.append(0)

    def filled(self, sizes: tuple[int, ...], work: tuple[tuple[DType, str, int], ...]) -> Filled:
        spaces = tuple(Workspace(dtype, L.index(count)) for dtype, _, count in work)
        return Filled(tuple(self.texts), spaces, (*self.source.sizes, *sizes), tuple(self.turns))


# ----------------------------------------------------------------------------------------------- factors

_SMALL_FACTORS: Final = """
    for (int k = threadIdx.x; k < (int)(m * n); k += @N@) lu[b * m * n + k] = a[k / (int)n * ld + k % (int)n];"""
_SMALL_ZEROS: Final = """
    const int zero = k_first_zero(a, ld + 1, least, &found);
    if (threadIdx.x == 0) info[b] = zero;"""
_ZEROS: Final = """
__shared__ int found;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    const int zero = k_first_zero(lu + b * m * n, n + 1, least, &found);
    if (threadIdx.x == 0) info[b] = zero;
}"""


def lu_factor(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    """The factors are made where the result lies."""
    t, check = op.operands[0].type, bool(op.attrs["check"])
    (m, n), batch, source = t.static_shape()[-2:], batch_of(t), stack("in0", op.operands[0], layouts)
    least, site = min(m, n), 0
    if check:
        message = "{matrix} is singular: the factor u has a zero on its diagonal in row {row}"
        site = refusals(op, message, least + 1, sites)
    work = ((int32, "info", batch),) if check else ()
    pointers = [pointer(t.dtype, "in0", True), pointer(t.dtype, "lu"), pointer(int32, "pivots")]
    signature = Signature(
        (*pointers, *(pointer(dtype, name) for dtype, name, _ in work)),
        (*source.names, "batch", "m", "n", "least", "orders", "site", "turn"),
    )
    made = Launches(signature, source, t.dtype, (m, n), batch)
    if is_small(m, n, t.dtype):
        shared = "\n__shared__ int found;" if check else ""
        made.small(_SMALL_FACTORS + _SMALL_ZEROS * check, *[FIRST_ZERO] * check, shared=shared)
    else:
        made.add("load", LOAD, blocks=spread(batch * m * n), to="lu")
        made.factored()
        if check:
            made.add("zeros", _ZEROS, FIRST_ZERO, blocks=batch)
    if check:
        made.report()
    return made.filled((batch, m, n, least, least + 1, site), work)


_PERMUTATION: Final = """
__shared__ int few[8192];
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    const int *const pivots = @from@;
    for (long long j = threadIdx.x; j < k; j += 256)
        if (pivots[j * in0_c] < 1 || pivots[j * in0_c] > rows) k_fail(error, site, 0);
    if (rows <= 8192) {
        k_order(pivots, in0_c, k, rows, few);
        for (long long i = threadIdx.x; i < rows; i += 256) out0[b * rows + i] = few[i];
    } else k_order(pivots, in0_c, k, rows, out0 + b * rows);
    __syncthreads();
}"""


def lu_permutation(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    """Exchanges are done one after the other."""
    t, rows = op.operands[0].type, op.result.type.static_shape()[-1]
    source, batch = stack("in0", op.operands[0], layouts, 1), batch_of(t, 1)
    sites.append(CheckSite("linalg", op.op.name, f"the pivots must be rows from 1 to {rows}", op.loc))
    signature = Signature(
        (pointer(int32, "in0", True), pointer(int64, "out0")), (*source.names, "batch", "k", "rows", "site")
    )
    body = filled(_PERMUTATION, **{"from": source.at})
    text = signature.text("order", body, (ORDER,), threads=256, blocks=grid(batch), check=True)
    return Filled((text,), (), (*source.sizes, batch, t.static_shape()[-1], rows, len(sites) - 1))


# ----------------------------------------------------------------------------------------------- systems

_SMALL_SOLUTION: Final = """
    const int zero = k_first_zero(a, ld + 1, n, &found);
    if (threadIdx.x == 0) info[b] = zero;
    k_order(pivot, 1, n, n, order);
    for (long long start = 0; start < columns; start += 32) {
        const int wide = columns - start < 32 ? (int)(columns - start) : 32;
        @T@ *const x = out0 + b * n * columns + start;
        for (long long k = threadIdx.x; k < n * 32; k += @N@) if (k % 32 < wide) {
            @T@ side = @side@;
            if (zero) k_set(side, k_nan<@R@>(), 0);
            x[k / 32 * columns + k % 32] = side;
        }
        __syncthreads();
        if (zero) continue;
        #pragma unroll 1
        for (int u = 0; u < 2; u++) k_substitute(a, ld, 1, x, columns, n, wide, u != 0, u == 0, y);
    }"""
_SMALL_ROOM: Final = """
__shared__ @T@ y[1024];
__shared__ int order[128], found;"""
_READY: Final = """
__shared__ int few[8192], found;
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {
    const int zero = k_first_zero(lu + b * n * n, n + 1, n, &found);
    if (threadIdx.x == 0) info[b] = zero;
    if (n <= 8192) {
        k_order(pivots + b * n, 1, n, n, few);
        for (long long i = threadIdx.x; i < n; i += 256) orders_of[b * n + i] = few[i];
    } else k_order(pivots + b * n, 1, n, n, orders_of + b * n);
    __syncthreads();
}"""
_SOLUTION: Final = """
__shared__ @T@ y[1024];
const long long count = (columns + 31) / 32;
for (long long at = blockIdx.x; at < batch * count; at += gridDim.x) {
    const long long b = at / count, start = at % count * 32;
    const int wide = columns - start < 32 ? (int)(columns - start) : 32;
    const @T@ *const a = lu + b * n * n;
    const int *const order = orders_of + b * n;
    @T@ *const x = @to@ + b * n * columns + start;
    const bool none = info[b] != 0;
    for (long long k = threadIdx.x; k < n * 32; k += @N@) if (k % 32 < wide) {
        @T@ side = @side@;
        if (none) k_set(side, k_nan<@R@>(), 0);
        x[k / 32 * columns + k % 32] = side;
    }
    __syncthreads();
    if (none) continue;
    #pragma unroll 1
    for (int u = 0; u < 2; u++) k_substitute(a, n, 1, x, columns, n, wide, u != 0, u == 0, y);
}"""


def system(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    """`solve`, and `inv`: of the system whose right sides are the unit vectors."""
    t, right = op.operands[0].type, op.operands[1] if len(op.operands) > 1 else None
    n, batch, source = t.static_shape()[-1], batch_of(t), stack("in0", op.operands[0], layouts)
    columns = op.result.type.static_shape()[-1]
    names, sizes, given = source.names, source.sizes, [pointer(t.dtype, "in0", True)]
    side = "k_number<@T@>(order[k / 32] == start + k % 32 ? 1 : 0)"
    if right is not None:
        sides = stack("in1", right, layouts)
        names, sizes = (*names, *sides.names), (*sizes, *sides.sizes)
        given.append(pointer(t.dtype, "in1", True))
        side = f"({sides.at})[order[k / 32] * in1_r + (start + k % 32) * in1_c]"
    check = bool(op.attrs["check"])
    site = refusals(op, "{matrix} is singular", n + 1, sites) if check else 0
    small = is_small(n, n, t.dtype)
    work: tuple[tuple[DType, str, int], ...] = ((int32, "info", batch), (int32, "pivots", batch * n))
    if not small:
        work = (*work, (int32, "orders_of", batch * n), (t.dtype, "lu", batch * n * n))
    signature = Signature(
        (*given, pointer(t.dtype, "out0"), *(pointer(d, name) for d, name, _ in work)),
        (*names, "batch", "m", "n", "least", "columns", "orders", "site", "turn"),
    )
    made = Launches(signature, Stack(names, sizes, source.at), t.dtype, (n, n), batch)
    if small:
        helpers = (DOWNDATE, SUBSTITUTE, FIRST_ZERO, ORDER, NAN)
        made.small(_SMALL_SOLUTION, *helpers, shared=_SMALL_ROOM, side=side)
    else:
        made.add("load", LOAD, blocks=spread(batch * n * n), to="lu")
        made.factored()
        made.solution(side, "out0", columns)
    if check:
        made.report()
    return made.filled((batch, n, n, n, columns, n + 1, site), work)


# ------------------------------------------------------------------------------------------ determinants

_DET: Final = """
    const @T@ made = k_determinant<@N@>(@a@, @step@, n, pivots + b * n, scratch, exponents);
    if (threadIdx.x == 0) out0[b] = made;
    __syncthreads();"""
_SLOGDET: Final = """
    @T@ sign;
    @R@ log;
    k_logarithm<@N@>(@a@, @step@, n, pivots + b * n, sign, log, scratch);
    if (threadIdx.x == 0) out0[b] = sign, out1[b] = log;
    __syncthreads();"""
_EACH: Final = """@shared@
for (long long b = blockIdx.x; b < batch; b += gridDim.x) {@then@
}"""


def determinant(op: Operation, layouts: Layouts, sites: list[CheckSite]) -> Filled:
    """`det` and `slogdet`, of the diagonal of u."""
    t = op.operands[0].type
    n, batch, source = t.static_shape()[-1], batch_of(t), stack("in0", op.operands[0], layouts)
    small, logs = is_small(n, n, t.dtype), op.op.name == "slogdet"
    work: tuple[tuple[DType, str, int], ...] = ((int32, "pivots", batch * n),)
    if not small:
        work = (*work, (t.dtype, "lu", batch * n * n))
    results = [pointer(r.type.dtype, f"out{k}") for k, r in enumerate(op.results)]
    signature = Signature(
        (pointer(t.dtype, "in0", True), *results, *(pointer(d, name) for d, name, _ in work)),
        (*source.names, "batch", "m", "n", "least", "turn"),
    )
    made = Launches(signature, source, t.dtype, (n, n), batch)
    then, shared = (_SLOGDET if logs else _DET), "\n__shared__ @T@ scratch[@N@];"
    shared += "" if logs else "\n__shared__ long long exponents[@N@];"
    helpers = (BLOCK_SUM, BLOCK_MAX, *functions("log"), DETERMINANT)
    if small:
        made.small(then, *helpers, shared=shared, a="a", step="(ld + 1)")
    else:
        made.add("load", LOAD, blocks=spread(batch * n * n), to="lu")
        made.factored()
        add, a, step = made.add, "lu + b * n * n", "(n + 1)"
        add("determinant", _EACH, *helpers, blocks=batch, shared=shared, then=then, a=a, step=step)
    return made.filled((batch, n, n, n), work)
