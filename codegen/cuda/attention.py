"""Attention and its gradient on a GPU: which kernels, and what they are told.

Scores are never in memory: a kernel has a tile of queries (or of keys, for their gradient), meets the others tile by
tile and keeps the softmax up to date as it goes (Dao et al., "FlashAttention", 2022). The gradient has a kernel for
queries and one for keys and values, which compute the weights again from what the forward kernel kept of each row, so
nothing is added up by atomics. 16-bit floats with heads of up to 128 are multiplied by tensor cores
(`attention_tensor.py`), all others by fused multiply-adds (`attention_plain.py`). Tiles depend on the dtype, the
size of heads and whether there is a mask: no bit depends on lengths, batch or strides.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from kiln.codegen.blocks import ceil_div
from kiln.codegen.cuda import attention_plain as plain
from kiln.codegen.cuda import attention_tensor as tensors
from kiln.codegen.cuda import tensor_cores
from kiln.codegen.cuda.function import emit_function
from kiln.codegen.cuda.literals import C_TYPES, literal
from kiln.codegen.cuda.template import Filled, Template
from kiln.codegen.layout import Layout, place
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaText
from kiln.ir.graph import Operation, Value
from kiln.ir.ops.attention import totals
from kiln.ir.program import CheckSite
from kiln.ir.types import Dim, DType, TensorType, bool_, float64

AXES: Final = "nhld"
TENSOR_MOST: Final = 128
"""The largest heads that tensor cores multiply."""

VIEW: Final = """\
template <class T> struct k_view {
    T *at;
    long long n, h, l, d;
    __device__ __forceinline__ k_view head(long long i, long long j) const { return {at + i * n + j * h, n, h, l, d}; }
};"""
"""A tensor [N, heads, length, size] by its strides; or one head of it."""

MASKS: Final = """\
template <class F> struct k_unmasked {
    enum { hides = 0, adds = 0 };
    __device__ __forceinline__ k_unmasked head(long long, long long) const { return *this; }
    __device__ __forceinline__ bool operator()(typename F::C &, long long, long long) const { return true; }
};
template <class F> struct k_masked {
    enum { hides = 1, adds = 0 };
    k_view<const bool> at;
    __device__ __forceinline__ k_masked head(long long i, long long j) const { return {at.head(i, j)}; }
    __device__ __forceinline__ bool operator()(typename F::C &, long long query, long long key) const
    { return at.at[query * at.l + key * at.d]; }
};
template <class F> struct k_biased {
    enum { hides = 0, adds = 1 };
    k_view<const typename F::T> at;
    __device__ __forceinline__ k_biased head(long long i, long long j) const { return {at.head(i, j)}; }
    __device__ __forceinline__ bool operator()(typename F::C &score, long long query, long long key) const
    { score += F::get(at.at[query * at.l + key * at.d]) * F::unit(); return true; }
};"""
"""What a mask does to a score, and whether the query sees the key. `unit`: what a score of 1 is."""

FORWARD: Final = ("out", "lse")
BACKWARD: Final = ("of_q", "of_k", "of_v")


@dataclass(frozen=True)
class Heads:
    """One op: the operands as the kernels see them, and its numbers."""

    op: Operation
    names: tuple[str, ...]
    layouts: Mapping[Value, Layout | None]

    @property
    def dtype(self) -> DType:
        return self.op.operands[0].type.dtype

    @property
    def total(self) -> DType:
        return totals(self.dtype)

    @property
    def shape(self) -> tuple[Dim, ...]:
        """N, H, L, S."""
        return (*self.op.operands[0].type.shape[:3], self.op.operands[1].type.shape[2])

    @property
    def sizes(self) -> tuple[int, int]:
        """Of a head of queries and of a head of values."""
        return cast("tuple[int, int]", tuple(v.type.shape[3] for v in (self.op.operands[0], self.op.operands[2])))

    @property
    def repeat(self) -> int:
        return cast("int", self.op.attrs["repeat"])

    @property
    def mask(self) -> TensorType | None:
        return self.op.operands[self.names.index("mask")].type if "mask" in self.names else None

    @property
    def mask_type(self) -> str:
        return "k_unmasked" if self.mask is None else "k_masked" if self.mask.dtype is bool_ else "k_biased"

    def numbers(self) -> list[tuple[str, Dim]]:
        """The scalar parameters by name: sizes, the operands' strides, attributes (of `scale` the bits)."""
        found: list[tuple[str, Dim]] = list(zip(("heads", "queries", "keys"), self.shape[1:], strict=True))
        for name, v in zip(self.names, self.op.operands, strict=True):
            found += [
                (f"{name}_{axis}", step) for axis, step in zip(AXES, place(v, self.layouts).strides, strict=False)
            ]
        (d, width), attrs = self.sizes, self.op.attrs
        (bits,) = struct.unpack("q", struct.pack("d", attrs["scale"]))
        more = {"batches": self.shape[0], "d": d, "width": width, "repeat": self.repeat, "scale": bits}
        return [*more.items(), ("causal", int(bool(attrs["causal"]))), *found]

    def parameters(self, results: Sequence[str]) -> str:
        """Of a kernel, as text."""
        values = zip(self.names, self.op.operands, strict=True)
        pointers = [f"const {C_TYPES[v.type.dtype]} *{name}" for name, v in values]
        made = zip(results, self.op.results, strict=True)
        pointers += [f"{C_TYPES[v.type.dtype]} *{name}" for name, v in made]
        return ", ".join([*pointers, *(f"const long long {name}" for name, _ in self.numbers())])

    def view(self, name: str) -> str:
        """An operand as text: its address and strides."""
        v = self.op.operands[self.names.index(name)]
        steps = [f"{name}_{axis}" if k < v.type.rank else "0" for k, axis in enumerate(AXES)]
        return f"k_view<const {C_TYPES[v.type.dtype]}>{{{', '.join((name, *steps))}}}"

    def masked(self) -> str:
        """The mask, as text."""
        inside = "" if self.mask is None else self.view("mask")
        return f"{self.mask_type}<{self.format}>{{{inside}}}"

    @property
    def tensor(self) -> bool:
        """Whether tensor cores multiply."""
        return self.dtype.is_half and max(self.sizes) <= TENSOR_MOST

    @property
    def format(self) -> str:
        return format_name(self.dtype, self.tensor)


def number_format(dtype: DType, tensor: bool) -> tuple[str, ...]:
    """The texts of the struct that says how numbers of a dtype are stored (T) and computed with (C); for tensor cores,
    with the instructions that they have for it."""
    total = totals(dtype)
    x, wide = L.Var(L.Vec(dtype), "x"), L.Var(L.Vec(total), "x")
    texts = [*emit_function(f"k_log_{total}", wide, L.apply("log", wide))]
    if not tensor:
        texts += emit_function(f"k_exp_{total}", wide, L.apply("exp", wide))
    get = put = "x"
    if dtype is not total:
        texts += emit_function(f"k_get_{dtype}", x, L.cast(x, total))
        texts += emit_function(f"k_put_{dtype}", wide, L.cast(wide, dtype))
        get, put = f"k_get_{dtype}(x)", f"k_put_{dtype}(x)"
    c, f, least = C_TYPES[total], "" if total is float64 else "f", L.const(float("-inf"), L.Vec(total))
    functions = [
        f"C get(T x) {{ return {get}; }}",
        f"C log(C x) {{ return k_log_{total}(x); }}",
        f"C least() {{ return {literal(least)}; }}",
        f"C unit() {{ return {'0x1.715476p+0f' if tensor else '1'}; }}",
    ]
    if tensor:
        texts += [tensor_cores.products(dtype.name), tensors.EXP2, tensor_cores.ASSEMBLY]
        functions += [
            f"void mma(C (&sum)[4], const unsigned (&a)[4], unsigned b, unsigned c) {{ k_mma_{dtype}(sum, a, b, c); }}",
            f"unsigned pair(C low, C high) {{ return k_pair_{dtype}(low, high); }}",
        ]
    else:
        functions += [
            f"T put(C x) {{ return {put}; }}",
            f"C fma(C a, C b, C c) {{ return ::fma{f}(a, b, c); }}",
            f"C div(C a, C b) {{ return {'__ddiv_rn' if total is float64 else '__fdiv_rn'}(a, b); }}",
            f"C exp(C x) {{ return k_exp_{total}(x); }}",
        ]
    lines = "\n".join(f"    static __device__ __forceinline__ {text}" for text in functions)
    name = format_name(dtype, tensor)
    return (*texts, f"struct {name} {{\n    typedef {C_TYPES[dtype]} T;\n    typedef {c} C;\n{lines}\n}};")


def format_name(dtype: DType, tensor: bool) -> str:
    return f"k_tensor_{dtype}" if tensor else f"k_{dtype}"


def attention(op: Operation, layouts: Mapping[Value, Layout | None], sites: list[CheckSite]) -> Filled:
    """The forward kernel."""
    del sites
    heads = Heads(op, ("q", "k", "v", "mask")[: len(op.operands)], layouts)
    return Filled(
        (_tensor_forward(heads) if heads.tensor else _plain_forward(heads),), (), tuple(n for _, n in heads.numbers())
    )


def attention_backward(op: Operation, layouts: Mapping[Value, Layout | None], sites: list[CheckSite]) -> Filled:
    """The gradient's: of queries, and of keys and values."""
    del sites
    heads = Heads(op, ("q", "k", "v", "g", "lse", "delta", "mask")[: len(op.operands)], layouts)
    return Filled(
        _tensor_backward(heads) if heads.tensor else _plain_backward(heads), (), tuple(n for _, n in heads.numbers())
    )


TEMPLATES: Final[dict[str, Template]] = {"attention": attention, "attention_backward": attention_backward}


# ------------------------------------------------------------------------------------------ kernels


def _index(d: Dim) -> L.Expr:
    return L.index(d) if isinstance(d, int) else L.Var(L.INDEX, d.name)


def _kernel(heads: Heads, results: Sequence[str], shared: str, body: str, over: str, tile: int) -> tuple[str, L.Expr]:
    """A kernel's text, with a block for each tile along the "queries" or the "keys" of a head, and how many."""
    total, gathers = C_TYPES[heads.total], over == "keys"
    threads = tensors.THREADS if heads.tensor else plain.THREADS
    text = f"""\
extern "C" __global__ void __launch_bounds__({threads}, 1)
kernel({heads.parameters(results)})
{{
    {shared}
    const long long tiles = ({over} + {tile - 1}) / {tile}, groups = {"heads / repeat" if gathers else "heads"};
    const {total} factor = __longlong_as_double(scale);
    for (long long block = blockIdx.x; block < batches * groups * tiles; block += gridDim.x) {{
        const long long row = (tiles - 1 - block % tiles) * {tile};
        const long long i = block / tiles / groups, j = block / tiles % groups;
        {body}
    }}
}}
"""
    n, h, length = (_index(heads.shape[k]) for k in (0, 1, 3 if gathers else 2))
    groups = L.apply("div", h, L.index(heads.repeat if gathers else 1))
    return text, L.mul(L.mul(n, groups), ceil_div(length, tile))


Body = Callable[[Heads, str, str], str]
"""(op, function with its template's arguments, shared memory) -> the call."""


def _forward_body(heads: Heads, function: str, shared: str) -> str:
    return f"""\
{function}(
            {shared}, {heads.view("q")}.head(i, j), {heads.view("k")}.head(i, j / repeat),
            {heads.view("v")}.head(i, j / repeat), {heads.masked()}.head(i, j), out + (i * heads + j) * queries * width,
            lse + (i * heads + j) * queries, row, queries, keys, (int)d, (int)width, factor, causal != 0);"""


def _queries_body(heads: Heads, function: str, shared: str) -> str:
    return f"""\
{function}(
            {shared}, {heads.view("q")}.head(i, j), {heads.view("k")}.head(i, j / repeat),
            {heads.view("v")}.head(i, j / repeat), {heads.view("g")}.head(i, j), {heads.view("lse")}.head(i, j),
            {heads.view("delta")}.head(i, j), {heads.masked()}.head(i, j), of_q + (i * heads + j) * queries * d,
            row, queries, keys, (int)d, (int)width, factor, causal != 0);"""


def _keys_body(heads: Heads, function: str, shared: str) -> str:
    return f"""\
{function}(
            {shared}, {heads.view("q")}, {heads.view("k")}.head(i, j), {heads.view("v")}.head(i, j),
            {heads.view("g")}, {heads.view("lse")}, {heads.view("delta")}, {heads.masked()},
            of_k + (i * groups + j) * keys * d, of_v + (i * groups + j) * keys * width, i, j, (int)repeat, row,
            queries, keys, (int)d, (int)width, factor, causal != 0);"""


def _plain(heads: Heads, results: Sequence[str], body: Body, function: str, helper: str, over: str) -> CudaText:
    columns = -(-max(heads.sizes) // 16)
    columns = next(n for n in (1, 2, 3, 4, 6, 8, 12, 16) if n >= columns)
    side, step = (2, 8) if heads.total is float64 else (4, 16)
    tile = 16 * side
    shared = (
        f"__shared__ {C_TYPES[heads.total]} left[16][{tile + 1}], right[16][{tile + 1}], weights[{tile}][{tile + 1}], "
        f"part[{step}][{16 * columns}];"
    )
    call = body(heads, f"{function}<{heads.format}, {side}, {columns}, {step}>", "left, right, weights, part")
    text, blocks = _kernel(heads, results, shared, call, over, tile)
    helpers = (VIEW, *number_format(heads.dtype, False), MASKS, plain.ROWS, plain.MIX, helper)
    return CudaText("kernel", text, helpers, plain.THREADS, blocks, False)


def _plain_forward(heads: Heads) -> CudaText:
    return _plain(heads, FORWARD, _forward_body, "k_attend", plain.FORWARD, "queries")


def _plain_backward(heads: Heads) -> tuple[CudaText, ...]:
    return (
        _plain(heads, BACKWARD, _queries_body, "k_attend_queries", plain.BACKWARD, "queries"),
        _plain(heads, BACKWARD, _keys_body, "k_attend_keys", plain.BACKWARD, "keys"),
    )


def _tensor(heads: Heads, results: Sequence[str], body: Body, function: str, helper: str, over: str) -> CudaText:
    width = next(n for n in (32, 64, 96, 128) if n >= max(heads.sizes))
    gathers, step = over == "keys", 64 if width <= 64 or results == FORWARD else 32
    if gathers and (width > 96 or (width > 32 and heads.mask is not None)):
        step //= 2  # as many registers as there are
    rows = 64 + 2 * step if gathers else 2 * step
    shared = f"__align__(16) __shared__ unsigned short room[{rows} * {width + 8}];"
    if gathers:
        shared += f"\n    __shared__ float past[{step}], less[{step}];"
    given = "room, past, less" if gathers else "room"
    call = body(heads, f"{function}<{heads.format}, {width}, {step}>", given)
    text, blocks = _kernel(heads, results, shared, call, over, 64)
    helpers = (VIEW, *number_format(heads.dtype, True), MASKS, tensors.TILES, helper)
    return CudaText("kernel", text, helpers, tensors.THREADS, blocks, False)


def _tensor_forward(heads: Heads) -> CudaText:
    return _tensor(heads, FORWARD, _forward_body, "k_attend_tensor", tensors.FORWARD, "queries")


def _tensor_backward(heads: Heads) -> tuple[CudaText, ...]:
    return (
        _tensor(heads, BACKWARD, _queries_body, "k_attend_queries_tensor", tensors.BACKWARD, "queries"),
        _tensor(heads, BACKWARD, _keys_body, "k_attend_keys_tensor", tensors.BACKWARD, "keys"),
    )
