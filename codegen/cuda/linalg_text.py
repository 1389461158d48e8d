"""What the texts of factorisations and spectra are made of: arithmetic of the four kinds of numbers, stacks of matrices
as arguments, the function around a body, and reports of matrices that are refused.

`T` is a kernel's number: float, double, float2 or double2 (`NUMBERS`), `k_real<T>::type` the real one. Functions are
overloaded, so that one template serves all four. Products are added with `fma`, each part by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kiln.codegen.cuda.function import emit_function
from kiln.codegen.cuda.prelude import HELPERS
from kiln.codegen.layout import Layout, place
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaText
from kiln.ir.graph import Operation, Value
from kiln.ir.program import CheckSite
from kiln.ir.types import DType, TensorType, complex64, complex128, float32, float64, int32, int64

NUMBERS: Final[dict[DType, str]] = {float32: "float", float64: "double", complex64: "float2", complex128: "double2"}
"""The C types of a kernel's numbers."""
_TYPES: Final = {**NUMBERS, int32: "int", int64: "long long"}

_REAL: Final = """\
__device__ __forceinline__ R k_re(R a) { return a; }
__device__ __forceinline__ R k_im(R) { return 0; }
__device__ __forceinline__ void k_set(R &to, R re, R) { to = re; }
__device__ __forceinline__ R k_conj(R a) { return a; }
__device__ __forceinline__ R k_neg(R a) { return -a; }
__device__ __forceinline__ R k_add(R a, R b) { return a + b; }
__device__ __forceinline__ R k_sub(R a, R b) { return a - b; }
__device__ __forceinline__ R k_mul(R a, R b) { return a * b; }
__device__ __forceinline__ R k_fma(R a, R b, R c) { return fma_(a, b, c); }
__device__ __forceinline__ R k_fms(R a, R b, R c) { return fma_(-a, b, c); }
__device__ __forceinline__ R k_times(R a, R s) { return a * s; }
__device__ __forceinline__ R k_div(R a, R b) { return div_(a, b); }
__device__ __forceinline__ R k_over(R a, R s) { return div_(a, s); }
__device__ __forceinline__ R k_root(R a) { return root_(a); }
__device__ __forceinline__ R k_size(R a) { return abs_(a); }
__device__ __forceinline__ R k_most(R a) { return abs_(a); }
__device__ __forceinline__ bool k_is_zero(R a) { return a == 0; }
__device__ __forceinline__ R k_swapped(R a, int lane) { return __shfl_xor_sync(0xffffffffu, a, lane); }
__device__ __forceinline__ R k_hypot(R a, R b)
{
    const R p = abs_(a), q = abs_(b), big = q > p ? q : p, small = q > p ? p : q;
    if (!(big > 0) || big == inf_) return big + small;
    const R part = div_(small, big);
    return big * root_(fma_(part, part, (R)1));
}
__device__ __forceinline__ R k_abs(R a) { return abs_(a); }"""

_COMPLEX: Final = """\
template <> struct k_real<C> { typedef R type; };
__device__ __forceinline__ R k_re(C a) { return a.x; }
__device__ __forceinline__ R k_im(C a) { return a.y; }
__device__ __forceinline__ void k_set(C &to, R re, R im) { to.x = re; to.y = im; }
__device__ __forceinline__ C k_conj(C a) { return make_C(a.x, -a.y); }
__device__ __forceinline__ C k_neg(C a) { return make_C(-a.x, -a.y); }
__device__ __forceinline__ C k_add(C a, C b) { return make_C(a.x + b.x, a.y + b.y); }
__device__ __forceinline__ C k_sub(C a, C b) { return make_C(a.x - b.x, a.y - b.y); }
__device__ __forceinline__ C k_mul(C a, C b)
{ return make_C(fma_(a.x, b.x, -(a.y * b.y)), fma_(a.x, b.y, a.y * b.x)); }
__device__ __forceinline__ C k_fma(C a, C b, C c)
{ return make_C(fma_(-a.y, b.y, fma_(a.x, b.x, c.x)), fma_(a.y, b.x, fma_(a.x, b.y, c.y))); }
__device__ __forceinline__ C k_fms(C a, C b, C c)
{ return make_C(fma_(a.y, b.y, fma_(-a.x, b.x, c.x)), fma_(-a.y, b.x, fma_(-a.x, b.y, c.y))); }
__device__ __forceinline__ C k_times(C a, R s) { return make_C(a.x * s, a.y * s); }
__device__ __forceinline__ C k_over(C a, R s) { return make_C(div_(a.x, s), div_(a.y, s)); }
__device__ __forceinline__ C k_div(C a, C b)
{
    if (abs_(b.x) >= abs_(b.y)) {
        if (b.x == 0 && b.y == 0) return k_over(a, abs_(b.x));
        const R part = div_(b.y, b.x), whole = fma_(b.y, part, b.x);
        return make_C(div_(fma_(a.y, part, a.x), whole), div_(fma_(-a.x, part, a.y), whole));
    }
    const R part = div_(b.x, b.y), whole = fma_(b.x, part, b.y);
    return make_C(div_(fma_(a.x, part, a.y), whole), div_(fma_(a.y, part, -a.x), whole));
}
__device__ __forceinline__ R k_size(C a) { return abs_(a.x) + abs_(a.y); }
__device__ __forceinline__ R k_most(C a)
{
    const R p = abs_(a.x), q = abs_(a.y);
    return p > q || p != p ? p : q;
}
__device__ __forceinline__ bool k_is_zero(C a) { return a.x == 0 && a.y == 0; }
__device__ __forceinline__ C k_swapped(C a, int lane) { return make_C(k_swapped(a.x, lane), k_swapped(a.y, lane)); }
__device__ __forceinline__ R k_abs(C a) { return k_hypot(a.x, a.y); }"""


def _of(text: str, real: str) -> str:
    """Functions of a real type, or of the complex one made of it."""
    single = real == "float"
    words = {
        "fma_": "fmaf" if single else "fma",
        "div_": "__fdiv_rn" if single else "__ddiv_rn",
        "root_": "__fsqrt_rn" if single else "__dsqrt_rn",
        "abs_": "fabsf" if single else "fabs",
        "inf_": "__int_as_float(0x7f800000)" if single else "__longlong_as_double(0x7ff0000000000000ll)",
        "make_C": f"make_{real}2",
        "<C>": f"<{real}2>",
    }
    for word, meant in words.items():
        text = text.replace(word, meant)
    for word, meant in (("R", real), ("C", f"{real}2")):
        text = re.sub(rf"\b{word}\b", meant, text)
    return text


ARITHMETIC: Final = "\n".join(
    [
        "template <class T> struct k_real { typedef T type; };",
        *(_of(text, real) for real in ("float", "double") for text in (_REAL, _COMPLEX)),
        "template <class T> __device__ __forceinline__ T k_number(typename k_real<T>::type re)",
        "{ T made; k_set(made, re, 0); return made; }",
    ]
)
"""k_fma(a, b, c) is c + a * b, k_fms(a, b, c) is c - a * b; k_times and k_over are by a real number. k_size is |re| +
|im|, k_most the larger one of both, k_abs the magnitude; k_swapped is __shfl_xor_sync. k_number<T>(x) is a real x."""

BLOCK_SUM: Final = """\
template <int N, class T> __device__ __forceinline__ T k_block_sum(T x, T *room)
{
    const int t = threadIdx.x;
    __syncthreads();
    room[t] = x;
    __syncthreads();
    if (t < 16) {
        for (int k = t + 16; k < N; k += 16) x = k_add(x, room[k]);
        room[t] = x;
    }
    __syncthreads();
    x = room[0];
    for (int k = 1; k < 16; k++) x = k_add(x, room[k]);
    return x;
}"""
"""The sum over the block's N threads, to all of them, in one order; `room`: N numbers in shared memory. Memory written
before is seen by the block's threads after."""

BLOCK_MAX: Final = """\
template <int N, class R> __device__ __forceinline__ R k_block_max(R x, R *room)
{
    const int t = threadIdx.x;
    __syncthreads();
    room[t] = x;
    __syncthreads();
    if (t < 16) {
        for (int k = t + 16; k < N; k += 16) x = room[k] > x || room[k] != room[k] ? room[k] : x;
        room[t] = x;
    }
    __syncthreads();
    x = room[0];
    for (int k = 1; k < 16; k++) x = room[k] > x || room[k] != room[k] ? room[k] : x;
    return x;
}"""
"""The largest over the block's N threads, to all of them; NaN if there is one."""


def functions(fn: str) -> tuple[str, ...]:
    """kiln's own function (exp, log, ...) of a float and of a double, as C functions `k_{fn}`."""
    numbers = [L.Var(L.Vec(dtype), "x") for dtype in (float32, float64)]
    texts = [t for x in numbers for t in emit_function(f"k_{fn}", x, L.apply(fn, x))]
    return tuple(dict.fromkeys(texts))


# ------------------------------------------------------------------------------------- stacks of matrices


@dataclass(frozen=True, slots=True)
class Stack:
    """An operand as arguments of a kernel: C parameters `names` with the values `sizes`, among them `{name}_r` and
    `{name}_c`, the strides from row to row and from column to column; `at`: a C expression for the pointer to matrix
    number `b`."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    at: str


def stack(name: str, value: Value, layouts: Mapping[Value, Layout | None], inner: int = 2) -> Stack:
    """An operand of any strides; the last `inner` dimensions (2, or 1: vectors with the stride `{name}_c`) are what is
    stacked."""
    shape = value.type.static_shape()
    strides = [s for s in place(value, dict(layouts)).strides if isinstance(s, int)]
    assert len(strides) == len(shape), "these ops know their strides"
    lead = len(shape) - inner
    parts: list[tuple[int, int]] = []  # sizes and strides of the stack, neighbours taken together where they are one
    for n, s in zip(shape[:lead], strides[:lead], strict=True):
        if n == 1:
            continue
        if parts and parts[-1][1] == n * s:
            parts[-1] = (parts[-1][0] * n, s)
        else:
            parts.append((n, s))
    names, sizes, at, rest = [], [], name, "b"
    for k in reversed(range(len(parts))):
        names.append(f"{name}_s{k}")
        sizes.append(parts[k][1])
        if k == 0:
            at += f" + {rest} * {name}_s0"
            break
        names.append(f"{name}_d{k}")
        sizes.append(parts[k][0])
        at += f" + {rest} % {name}_d{k} * {name}_s{k}"
        rest = f"{rest} / {name}_d{k}"
    own = (f"{name}_r", f"{name}_c")[2 - inner :]
    return Stack((*names, *own), (*sizes, *strides[lead:]), at)


def batch_of(t: TensorType, inner: int = 2) -> int:
    """How many matrices a stack has."""
    shape = t.static_shape()
    return math.prod(shape[: len(shape) - inner])


# ------------------------------------------------------------------------------------------------ shapes

SMALL: Final = 14336
"""Bytes of a matrix that is worked on in shared memory, beside what else a kernel has there (48 KiB in all)."""
PANEL: Final = 32
"""Columns that are factored, or rows that are substituted, one by one; what is beyond them by products."""
MOST: Final = 1 << 20
"""Blocks of a launch; each takes every so many matrices."""


def is_small(m: int, n: int, dtype: DType) -> bool:
    """Whether a matrix is worked on in shared memory, where its rows lie an odd number of elements apart."""
    return m * (n | 1) * dtype.itemsize <= SMALL


def room(m: int, n: int, dtype: DType) -> int:
    """The elements of shared memory for a small matrix: one of few numbers, so that texts are few."""
    return next(b // dtype.itemsize for b in (1024, 4096, SMALL) if m * (n | 1) * dtype.itemsize <= b)


def team(m: int, n: int, dtype: DType) -> int:
    """Threads for a small matrix."""
    return 64 if m * (n | 1) * dtype.itemsize <= 1024 else 256


def strips(columns: int) -> int:
    """How many strips of 32 columns, or panels, there are."""
    return -(-columns // PANEL)


def grid(blocks: int) -> int:
    return min(blocks, MOST)


def spread(elements: int) -> int:
    """Blocks of 256 threads for so many elements."""
    return min(-(-elements // 1024), 1 << 14)


# ---------------------------------------------------------------------------------------- functions


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters that all kernels of a step have: C declarations of pointers and the names of sizes."""

    pointers: tuple[str, ...]
    sizes: tuple[str, ...]

    def text(
        self, name: str, body: str, helpers: Sequence[str], *, threads: int, blocks: int, check: bool = False
    ) -> CudaText:
        """A kernel with this body, of `threads` threads in a block."""
        parameters = [*self.pointers, *(f"const long long {s}" for s in self.sizes)]
        parameters += ["long long *error"] if check else []
        head = f'extern "C" __global__ void __launch_bounds__({threads}, 1)\n{name}({", ".join(parameters)})'
        lines = "\n".join("    " + line if line.strip() else "" for line in body.strip("\n").split("\n"))
        needed = (*helpers, *([HELPERS["k_fail"]] if check else []))
        return CudaText(
            name, f"{head}\n{{\n{lines}\n}}\n", tuple(dict.fromkeys(needed)), threads, L.index(blocks), check
        )


def pointer(dtype: DType, name: str, read: bool = False) -> str:
    """A pointer parameter."""
    return f"{'const ' if read else ''}{_TYPES[dtype]} *{name}"


def filled(text: str, **words: object) -> str:
    """A text with every @word@ replaced, one word after the other: what is put in may hold later ones."""
    for word, meant in words.items():
        text = text.replace(f"@{word}@", str(meant))
    assert "@" not in text, text
    return text


LOAD: Final = """
for (long long k = (long long)blockIdx.x * 256 + threadIdx.x; k < batch * m * n; k += (long long)gridDim.x * 256) {
    const long long b = k / (m * n), i = k / n % m, j = k % n;
    (void)b;
    @to@[k] = (@from@)[i * in0_r + j * in0_c];
}"""
"""The body of a kernel that copies a stack of matrices into row-major memory."""
SMALL_LOAD: Final = """
    const @T@ *const from = @from@;
    for (int k = threadIdx.x; k < (int)(m * n); k += @N@)
        a[k / (int)n * ld + k % (int)n] = from[k / (int)n * in0_r + k % (int)n * in0_c];
    __syncthreads();"""
"""The same of one matrix into shared memory."""

NAN: Final = """\
template <class R> __device__ __forceinline__ R k_nan() { return (R)__int_as_float(0x7fc00000); }"""


def refusals(op: Operation, message: str, orders: int, sites: list[CheckSite]) -> int:
    """The number of the check that says which matrix was refused."""
    shape = op.operands[0].type.static_shape()
    sites.append(CheckSite("linalg", op.op.name, message, op.loc, shape[:-2], orders))
    return len(sites) - 1


def report(signature: Signature, name: str = "refusals") -> CudaText:
    """The kernel that looks for the first matrix number b whose `info[b]` is not 0, and reports b * `orders` + info[b]
    as the value of check number `site` (`info`, `orders`, `site` and `batch` are among the parameters)."""
    body = """
__shared__ long long firsts[256];
long long first = batch;
for (long long b = threadIdx.x; b < batch && first == batch; b += 256)
    if (info[b] != 0) first = b;
firsts[threadIdx.x] = first;
__syncthreads();
if (threadIdx.x == 0) {
    for (int k = 1; k < 256; k++) first = firsts[k] < first ? firsts[k] : first;
    if (first < batch) k_fail(error, site, first * orders + info[first]);
}"""
    return signature.text(name, body, (), threads=256, blocks=1, check=True)
