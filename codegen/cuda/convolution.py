"""Convolutions of 16-bit floats by tensor cores (ops with `tensor_cores`): which kernels, and what they are told.

Tiles are 128 or 64 results by 128 positions, or 64 by 64 where there are few: that changes no bit, since every result
is one sum over k in ascending order. The sum over the positions, for the gradient by the weights, is shared out among
several blocks: in how many parts follows from the sizes of the images alone, and parts are added in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from kiln.codegen.blocks import ceil_div, maximum, minimum, quotient
from kiln.codegen.cuda import convolution_tensor as texts
from kiln.codegen.cuda.literals import C_TYPES
from kiln.codegen.cuda.template import Filled, Template
from kiln.codegen.cuda.tensor_cores import ASSEMBLY, products
from kiln.codegen.layout import Layout, place
from kiln.ir import loops as L
from kiln.ir.gpu_program import CudaText, Workspace, number
from kiln.ir.graph import Operation, Value
from kiln.ir.loops import Expr
from kiln.ir.ops.conv import axes
from kiln.ir.program import CheckSite
from kiln.ir.types import Dim, Sym, float32

ENOUGH: Final = 128
"""Blocks of large tiles that keep a GPU busy."""
BUSY: Final = 264
"""Blocks that share out a sum over positions: two for each multiprocessor of the largest GPUs."""
LEAST: Final = 512
"""Positions that are worth a part of their own."""


@dataclass(frozen=True)
class Tile:
    """A block's tile: how many warps along its rows and columns, and what each has, in 16 rows and 8 columns."""

    down: int
    across: int
    m: int
    n: int

    @property
    def height(self) -> int:
        return self.down * self.m * 16

    @property
    def width(self) -> int:
        return self.across * self.n * 8

    @property
    def threads(self) -> int:
        return self.down * self.across * 32

    @property
    def arguments(self) -> str:
        return f"{self.down}, {self.across}, {self.m}, {self.n}"

    @property
    def room(self) -> int:
        """Elements of shared memory."""
        return texts.STAGES * (self.height + self.width) * texts.STEP

    @property
    def bounds(self) -> str:
        """Registers are for 512 threads of a multiprocessor at least."""
        return f"__launch_bounds__({self.threads}, {512 // self.threads})"


TALL: Final = Tile(2, 4, 4, 4)  # 128 x 128
WIDE: Final = Tile(1, 4, 4, 4)  # 64 x 128
SMALL: Final = Tile(2, 2, 2, 4)  # 64 x 64


def convolution(op: Operation, layouts: Mapping[Value, Layout | None], sites: list[CheckSite]) -> Filled | None:
    """The kernels of `conv2d` and its gradients; None where tensor cores are not asked for."""
    del sites
    if not op.attrs.get("tensor_cores"):
        return None
    of = _Convolution(op, layouts)
    return of.by_weights() if op.op.name == "conv2d_weight" else of.forward()


TEMPLATES: Final[dict[str, Template]] = dict.fromkeys(("conv2d", "conv2d_input", "conv2d_weight"), convolution)


class _Convolution:
    """One op: its numbers, and the words of its kernels' texts."""

    def __init__(self, op: Operation, layouts: Mapping[Value, Layout | None]) -> None:
        self.op = op
        self.turned = op.op.name == "conv2d_input"
        weights = op.result if op.op.name == "conv2d_weight" else op.operands[1]
        results, channels, *taps = (_known(d) for d in weights.type.shape)
        self.groups = cast("int", op.attrs["groups"])
        self.taps = taps
        results //= self.groups
        self.depth, self.results = (results, channels) if self.turned else (channels, results)
        self.places = [place(v, layouts).strides for v in op.operands]

    # -------------------------------------------------------------------------------------- words

    @property
    def cores(self) -> str:
        return f"k_cores_{self.op.operands[0].type.dtype}"

    @property
    def walk(self) -> str:
        """The type that says what is convolved."""
        rows, columns = axes(self.op.attrs)
        pairs = [self.taps, (rows.stride, columns.stride), (rows.before, columns.before)]
        numbers = [n for pair in (*pairs, (rows.dilation, columns.dilation)) for n in pair]
        numbers += [self.depth, self.results, self.groups]
        return f"k_walk<{', '.join(map(str, numbers))}, {'true' if self.turned else 'false'}>"

    def helpers(self, what: str) -> tuple[str, ...]:
        dtype = self.op.operands[0].type.dtype.name
        cores = f"""\
struct k_cores_{dtype} {{
    static __device__ __forceinline__ void mma(float (&sum)[4], const unsigned (&a)[4], unsigned b, unsigned c)
    {{ k_mma_{dtype}(sum, a, b, c); }}
    static __device__ __forceinline__ unsigned pair(float low, float high) {{ return k_pair_{dtype}(low, high); }}
}};"""
        return products(dtype), ASSEMBLY, cores, texts.WALK, texts.TILES, what

    def numbers(self, names: Sequence[str], values: Sequence[Value]) -> list[tuple[str, Dim]]:
        """The scalar parameters by name: sizes of the images on both sides, and the operands' strides."""
        sides = [v.type.shape for v in values]
        found: list[tuple[str, Dim]] = [("images", sides[0][0])]
        found += zip(("height", "width", "out_h", "out_w"), (*sides[0][2:], *sides[1][2:]), strict=True)
        for name, strides in zip(names, self.places, strict=True):
            found += [(f"{name}_{axis}", step) for axis, step in zip("nchw", strides, strict=True)]
        return found

    def text(
        self, pointers: str, numbers: Sequence[tuple[str, Dim]], tile: Tile, body: str, helper: str, blocks: Expr
    ) -> CudaText:
        scalars = ", ".join(f"const long long {name}" for name, _ in numbers)
        function = f"""\
extern "C" __global__ void {tile.bounds}
kernel({pointers}, {scalars})
{{
    typedef {self.walk} W;
    __align__(16) __shared__ unsigned short room[{tile.room}];
{body}
}}
"""
        return CudaText("kernel", function, self.helpers(helper), tile.threads, blocks, False)

    # ------------------------------------------------------------------------------------ kernels

    def forward(self) -> Filled:
        """Of `conv2d` and `conv2d_input`: large tiles or small ones; where sizes are symbolic, one has no blocks."""
        numbers = self.numbers(("x", "w"), (self.op.operands[0], self.op.result))
        large, small = TALL if self.results > WIDE.height else WIDE, SMALL
        many = self._tiles(large)
        wanted = minimum(quotient(many, ENOUGH), 1)
        sizes = tuple(n for _, n in numbers)
        if not any(isinstance(d, Sym) for d in self.op.result.type.shape):
            tile = large if number(wanted, {}) else small
            return Filled((self._forward(tile, numbers, self._tiles(tile)),), (), sizes)
        few = L.mul(self._tiles(small), L.sub(L.index(1), wanted))
        chosen = (large, L.mul(many, wanted)), (small, few)
        return Filled(tuple(self._forward(tile, numbers, blocks) for tile, blocks in chosen), (), sizes)

    def _tiles(self, tile: Tile) -> Expr:
        """How many of them there are."""
        images, _, height, width = map(_index, self.op.result.type.shape)
        classes = 1
        if self.turned:
            steps = [axis.stride for axis in axes(self.op.attrs)]
            height, width, classes = ceil_div(height, steps[0]), ceil_div(width, steps[1]), steps[0] * steps[1]
        across = ceil_div(L.mul(images, L.mul(height, width)), tile.width)
        return L.mul(across, L.index(classes * self.groups * -(-self.results // tile.height)))

    def _forward(self, tile: Tile, numbers: Sequence[tuple[str, Dim]], blocks: Expr) -> CudaText:
        dtype, out = (C_TYPES[v.type.dtype] for v in (self.op.operands[0], self.op.result))
        row, depth, group = ("w_c", "w_n", "W::depth") if self.turned else ("w_n", "w_c", "W::results")
        spread = [f"(out_{d} + W::stride_{d} - 1) / W::stride_{d}" if self.turned else f"out_{d}" for d in "hw"]
        body = f"""\
    const k_images x = {{in0, x_n, x_c, x_h, x_w, (int)height, (int)width}};
    const bool even_x = W::depth % 8 == 0 && k_even(in0, x_c, x_n, x_h, x_w);
    const bool even_w = W::depth % 8 == 0 && k_even(in1, {depth}, {row}, w_h, w_w);
    constexpr int down = {max(1, -(-self.results // tile.height))};
    const long long across = (images * ({spread[0]}) * ({spread[1]}) + {tile.width - 1}) / {tile.width};
    for (long long block = blockIdx.x; block < across * down * W::groups * W::classes; block += gridDim.x) {{
        const long long group = block / down / across % W::groups;
        k_convolve<{self.cores}, W, {tile.arguments}>(
            room, x, in1 + group * {group} * w_n, {row}, {depth}, w_h, w_w, out0, group, block % down * {tile.height},
            block / down % across * {tile.width}, (int)(block / down / across / W::groups), images, (int)out_h,
            (int)out_w, even_x, even_w);
    }}"""
        pointers = f"const {dtype} *in0, const {dtype} *in1, {out} *out0"
        return self.text(pointers, numbers, tile, body, texts.FORWARD, blocks)

    def by_weights(self) -> Filled:
        """Of `conv2d_weight`: the sums of parts, and the sum of these."""
        x, g = self.op.operands
        numbers = self.numbers(("x", "g"), (x, g))
        columns = self.taps[0] * self.taps[1] * max(1, -(-self.depth // 8)) * 8
        side = TALL if min(self.results, columns) > SMALL.height else SMALL
        down, across = -(-self.results // side.height), -(-columns // side.width)
        most = max(1, BUSY // max(1, self.groups * down * across))
        images, _, height, width = map(_index, g.type.shape)
        positions = L.mul(images, L.mul(height, width))
        parts = maximum(minimum(ceil_div(positions, LEAST), most), 1)
        size = self.groups * self.results * columns
        counted = f"""\
    const long long positions = images * out_h * out_w, wanted = (positions + {LEAST - 1}) / {LEAST};
    const long long parts = wanted < 1 ? 1 : wanted < {most} ? wanted : {most};"""
        body = f"""\
    const k_images x = {{in0, x_n, x_c, x_h, x_w, (int)height, (int)width}};
    const k_images g = {{in1, g_n, g_c, g_h, g_w, (int)out_h, (int)out_w}};
    const bool even_x = W::depth % 8 == 0 && k_even(in0, x_c, x_n, x_h, x_w);
    const bool even_g = W::results % 8 == 0 && k_even(in1, g_c, g_n, g_h, g_w);
    constexpr int down = {max(1, down)}, across = {max(1, across)};
{counted}
    const long long each = ((positions + parts - 1) / parts + 31) / 32 * 32;
    for (long long block = blockIdx.x; block < parts * down * across * W::groups; block += gridDim.x) {{
        const long long part = block / down / across / W::groups, start = part * each;
        k_correlate<{self.cores}, W, {side.arguments}>(
            room, x, g, sums + part * {size}, block / down / across % W::groups, (int)(block % down) * {side.height},
            (int)(block / down % across) * {side.width}, start, start + each < positions ? start + each : positions,
            even_x, even_g);
    }}"""
        pointers = f"const {C_TYPES[x.type.dtype]} *in0, const {C_TYPES[g.type.dtype]} *in1"
        pointers += f", {C_TYPES[self.op.result.type.dtype]} *out0, float *sums"
        blocks = L.mul(parts, L.index(down * across * self.groups))
        made = self.text(pointers, numbers, side, body, texts.WEIGHT, blocks)
        added = self._added(pointers, numbers, counted, columns)
        workspace = Workspace(float32, L.mul(parts, L.index(size)))
        return Filled((made, added), (workspace,), tuple(n for _, n in numbers))

    def _added(self, pointers: str, numbers: Sequence[tuple[str, Dim]], counted: str, columns: int) -> CudaText:
        """The kernel that adds the parts of each weight's gradient, in ascending order, and rounds once."""
        taps, total = self.taps[0] * self.taps[1], self.groups * self.results * self.depth * self.taps[0] * self.taps[1]
        half = self.op.result.type.dtype.is_half
        rounded = f"(unsigned short){self.cores}::pair(sum, 0)" if half else "sum"
        scalars = ", ".join(f"const long long {name}" for name, _ in numbers)
        function = f"""\
extern "C" __global__ void __launch_bounds__(256)
kernel({pointers}, {scalars})
{{
{counted}
    for (long long k = blockIdx.x * 256ll + threadIdx.x; k < {total}; k += gridDim.x * 256ll) {{
        const long long at = k / {max(1, self.depth * taps)} * {columns}
                             + k % {taps} * {max(1, -(-self.depth // 8)) * 8} + k / {taps} % {max(1, self.depth)};
        float sum = sums[at];
        for (long long part = 1; part < parts; part++) sum += sums[part * {self.groups * self.results * columns} + at];
        out0[k] = {rounded};
    }}
}}
"""
        return CudaText("kernel", function, self.helpers(""), 256, ceil_div(L.index(total), 256), False)


def _known(d: Dim) -> int:
    assert isinstance(d, int), "channels and taps have known sizes"
    return d


def _index(d: Dim) -> Expr:
    return L.index(d) if isinstance(d, int) else L.Var(L.INDEX, d.name)
