"""Pooling over windows of the last two dimensions: the largest element, its place, the sum. Gradients are ops of their
own, in gather form: each element collects from the windows it lies in (from those whose largest it is), in ascending
order of the windows.

Attributes: either `kernel` (2), `stride` (2), `padding` (before and behind the rows, before and behind the columns),
`dilation` (2, of maxima only); or `bins` (2): that many windows, which together cover the images, window i of n over
`size` elements from floor(i * size / n) to ceil((i + 1) * size / n). `size` (2) is that of the images where a gradient
goes. Padding is not there: no window reads it.

Kernels go through a window in a loop (`ElementContext.fold`), so that they are as short for large ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from kiln.ir import loops as L
from kiln.ir import order
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, Dense, ElementContext, OpDef, OpTypeError, State, ints_attr, quiet, register
from kiln.ir.ops.conv import Axis, Place, all_of, axes, positions
from kiln.ir.ops.create import zeros_of
from kiln.ir.ops.elementwise import NUMERIC
from kiln.ir.ops.gather import gather, scatter_add
from kiln.ir.ops.movement import reshape
from kiln.ir.types import Dim, DType, TensorType, dtype_of_numpy, float32, float64, int64

SUMMED: Final = (float32, float64)
"""Sums of half types are sums in float32 (frontend/pooling.py)."""
WINDOW: Final = ("kernel", "stride", "padding", "dilation", "bins")


class _Strided(NamedTuple):
    """Windows of `taps` elements at equal distances, along one dimension."""

    axis: Axis
    taps: int

    def windows(self, op: str, n: Dim, dim: str) -> Dim:
        return positions(op, self.axis, n, self.taps, dim)

    def table(self, n: int) -> np.ndarray[Any, Any]:
        """Which of n elements each window meets at each tap (-1: none)."""
        return order.taps(self.axis, n, self.taps)

    def rounds(self, n: Dim, extent: L.Expr) -> L.Expr:
        return L.index(self.taps)

    def tap(self, window: L.Expr, k: L.Expr, n: Dim, extent: L.Expr) -> Place:
        """The k-th element of a window."""
        return self.axis.tap(window, k, self.taps, extent)

    def most(self, n: int) -> int:
        """Windows that one element may lie in."""
        return min(-(-self._span() // self.axis.stride), max(1, self.axis.size(n, self.taps)))

    def window(self, place: L.Expr, k: L.Expr, n: int) -> Place:
        """The k-th window that may reach an element."""
        axis, span, count = self.axis, self._span(), self.axis.size(n, self.taps)
        ahead = place + axis.before
        last = ahead
        if axis.stride == 2:  # which vectors read from neighbours (codegen/schedule.py)
            last = L.apply("shr", ahead, L.index(1))
        elif axis.stride > 2:
            last = L.apply("div", ahead, L.index(axis.stride))
        back = -(-span // axis.stride) - 1
        first = L.sub(last, L.index(back))
        tests = []
        if (n - 1 + axis.before) // axis.stride >= count:
            tests.append(L.apply("lt", L.add(first, k), L.index(count)))
        if back > 0 and self.most(n) <= back:  # there are fewer windows: all of them, in turn
            first = L.index(0)
            tests = [L.apply("le", k, last)]
        elif back > 0:
            tests.append(L.apply("ge", L.add(first, k), L.index(0)))
        number = L.add(first, k)
        if span % axis.stride or isinstance(first, L.Const):
            tests.append(L.apply("lt", L.sub(ahead, number * axis.stride), L.index(span)))
        return number, tests

    def _span(self) -> int:
        return (self.taps - 1) * self.axis.dilation + 1


class _Bins(NamedTuple):
    """So many windows, which cover a dimension."""

    bins: int

    def windows(self, op: str, n: Dim, dim: str) -> Dim:
        if n == 0:
            raise OpTypeError(op, f"there are no {dim}")
        return self.bins

    def spans(self, n: int) -> list[range]:
        return [range(i * n // self.bins, -(-(i + 1) * n // self.bins)) for i in range(self.bins)]

    def table(self, n: int) -> np.ndarray[Any, Any]:
        spans = self.spans(n)
        longest = max(map(len, spans), default=0)
        return np.array([[*s, *[-1] * (longest - len(s))] for s in spans], np.int64).reshape(self.bins, longest)

    def rounds(self, n: Dim, extent: L.Expr) -> L.Expr:
        if isinstance(n, int):
            return L.index(max(map(len, self.spans(n)), default=0))
        return L.apply("div", extent, L.index(max(1, self.bins))) + 2

    def tap(self, window: L.Expr, k: L.Expr, n: Dim, extent: L.Expr) -> Place:
        bins = L.index(self.bins)
        if isinstance(n, int) and n % self.bins == 0:
            return window * (n // self.bins) + k, []
        place = L.apply("div", L.mul(window, extent), bins) + k
        end = L.apply("div", L.mul(window + 1, extent) + (self.bins - 1), bins)
        return place, [L.apply("lt", place, end)]

    def most(self, n: int) -> int:
        return max((((e + 1) * self.bins - 1) // n - e * self.bins // n + 1 for e in range(n)), default=1)

    def window(self, place: L.Expr, k: L.Expr, n: int) -> Place:
        if n % self.bins == 0:
            return L.apply("div", place, L.index(n // self.bins)), []
        first = L.apply("div", place * self.bins, L.index(n))
        last = L.apply("div", (place + 1) * self.bins - 1, L.index(n))
        number = L.add(first, k)
        return number, [L.apply("le", number, last)] if self.most(n) > 1 else []


Walk = _Strided | _Bins


def _walks(attrs: Attrs) -> tuple[Walk, Walk]:
    """The windows along rows and along columns."""
    if "bins" in attrs:
        bins = ints_attr(attrs, "bins")
        return _Bins(bins[0]), _Bins(bins[1])
    rows, columns = axes({"dilation": (1, 1), **attrs})
    kernel = ints_attr(attrs, "kernel")
    return _Strided(rows, kernel[0]), _Strided(columns, kernel[1])


def _checked(op: str, t: TensorType, attrs: Attrs, among: Sequence[DType]) -> None:
    if t.dtype not in among:
        raise OpTypeError(op, f"is not defined for {t.dtype}", "dtype")
    if t.rank < 2:
        raise OpTypeError(op, f"needs rows and columns, got {t}")
    for key, count, least in (
        ("kernel", 2, 1),
        ("stride", 2, 1),
        ("padding", 4, 0),
        ("dilation", 2, 1),
        ("bins", 2, 1),
        ("size", 2, 0),
    ):
        if key in attrs:
            values = ints_attr(attrs, key)
            if len(values) != count or any(v < least for v in values):
                raise OpTypeError(op, f"{key} must be {count} numbers of at least {least}, got {values}", "value")


def _pooled(op: str, t: TensorType, attrs: Attrs, dtype: DType) -> TensorType:
    """The type of one number per window of `t`."""
    sizes = [
        walk.windows(op, n, dim) for walk, n, dim in zip(_walks(attrs), t.shape[-2:], ("rows", "columns"), strict=True)
    ]
    return TensorType(dtype, (*t.shape[:-2], *sizes), t.device)


def _spread(op: str, t: TensorType, attrs: Attrs) -> TensorType:
    """The type of images of `size` whose windows have the numbers `t`."""
    size = ints_attr(attrs, "size")
    for walk, n, got, dim in zip(_walks(attrs), size, t.shape[-2:], ("rows", "columns"), strict=True):
        wanted = walk.axis.size(n, walk.taps) if isinstance(walk, _Strided) else walk.bins
        if isinstance(got, int) and wanted != got:
            raise OpTypeError(op, f"{n} {dim} have {wanted} windows, {t} has {got}")
    return TensorType(t.dtype, (*t.shape[:-2], *size), t.device)


def _pool_types(op: str, among: Sequence[DType], to: DType | None = None) -> Any:
    def infer(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        _checked(op, operands[0], attrs, among)
        return (_pooled(op, operands[0], attrs, to or operands[0].dtype),)

    return infer


# ----------------------------------------------------------------------------------------- elements

Index = tuple[L.Expr, ...]


Step = Callable[[L.Expr, L.Expr, "L.Expr | None", State], State]


def _over_window(ctx: ElementContext, index: Index, state: State, step: Step) -> State:
    """`step(value, flat place in the image, whether it is there, state)` for the elements of a window in row-major
    order."""
    walks, sizes = _walks(ctx.attrs), ctx.operand_types[0].shape[-2:]
    extents = [ctx.extent(d) for d in sizes]

    def visit(taps: Index, state: State) -> State:
        (row, row_tests), (column, column_tests) = (
            walk.tap(at, k, n, extent)
            for walk, at, k, n, extent in zip(walks, index[-2:], taps, sizes, extents, strict=True)
        )
        there = all_of([*row_tests, *column_tests])
        value = ctx.read(0, (*index[:-2], row, column), there)
        return step(value, L.add(L.mul(row, extents[1]), column), there, state)

    rounds = [walk.rounds(n, extent) for walk, n, extent in zip(walks, sizes, extents, strict=True)]
    return ctx.fold(rounds, state, visit)


def _max_element(ctx: ElementContext, index: Index) -> L.Expr:
    """The first one of the largest; NaN is larger than all."""
    dtype = ctx.result_type.dtype

    def step(value: L.Expr, place: L.Expr, there: L.Expr | None, state: State) -> State:
        (best,) = state
        larger = value if isinstance(best, L.Const) else L.apply("max", value, best)
        return (larger if there is None else L.select(there, larger, best),)

    return _over_window(ctx, index, (L.const(order.identity("max", dtype), dtype),), step)[0]


def _index_element(ctx: ElementContext, index: Index) -> L.Expr:
    """The place of the first one of the largest. Without padding that is the first of the window until a larger one is
    found; else the first that is there counts, whatever it is."""
    dtype, padded = (
        ctx.operand_types[0].dtype,
        any(ints_attr(ctx.attrs, "padding")) if "bins" not in ctx.attrs else False,
    )

    def step(value: L.Expr, place: L.Expr, there: L.Expr | None, state: State) -> State:
        best, at = state
        takes = L.apply("not", L.apply("le", value, best))
        if dtype.is_floating_point:  # once NaN is found, it stays
            takes = L.apply("and", L.apply("eq", best, best), takes)
        if padded:
            takes = L.apply("or", L.apply("lt", at, L.index(0)), takes)
        takes = takes if there is None else L.apply("and", there, takes)
        return L.select(takes, value, best), L.select(takes, place, at)

    first = L.index(-1) if padded else _first(ctx, index)
    return _over_window(ctx, index, (L.const(order.identity("max", dtype), dtype), first), step)[1]


def _first(ctx: ElementContext, index: Index) -> L.Expr:
    """The flat place of a window's first element."""
    sizes = ctx.operand_types[0].shape[-2:]
    extents = [ctx.extent(d) for d in sizes]
    (row, _), (column, _) = (
        walk.tap(at, L.index(0), n, extent)
        for walk, at, n, extent in zip(_walks(ctx.attrs), index[-2:], sizes, extents, strict=True)
    )
    return L.add(L.mul(row, extents[1]), column)


def _sum_element(ctx: ElementContext, index: Index) -> L.Expr:
    def step(value: L.Expr, place: L.Expr, there: L.Expr | None, state: State) -> State:
        (total,) = state
        more = value if isinstance(total, L.Const) else L.apply("add", total, value)
        return (more if there is None else L.select(there, more, total),)

    return _over_window(ctx, index, (L.const(-0.0, ctx.result_type.dtype),), step)[0]


def _sum_input_element(ctx: ElementContext, index: Index) -> L.Expr:
    """From +0 and in ascending order of the windows that an element lies in."""
    walks, size = _walks(ctx.attrs), ints_attr(ctx.attrs, "size")

    def visit(steps: Index, state: State) -> State:
        (p, p_tests), (q, q_tests) = (
            walk.window(at, k, n) for walk, at, k, n in zip(walks, index[-2:], steps, size, strict=True)
        )
        there, (total,) = all_of([*p_tests, *q_tests]), state
        more = L.apply("add", total, ctx.read(0, (*index[:-2], p, q), there))
        return (more if there is None else L.select(there, more, total),)

    rounds = [L.index(walk.most(n)) for walk, n in zip(walks, size, strict=True)]
    return ctx.fold(rounds, (L.const(0.0, ctx.result_type.dtype),), visit)[0]


def _max_input_element(ctx: ElementContext, index: Index) -> L.Expr:
    """From +0 and in ascending order of the windows whose largest element this is."""
    walks, size = _walks(ctx.attrs), ints_attr(ctx.attrs, "size")
    place = L.add(index[-2] * size[1], index[-1])

    def visit(steps: Index, state: State) -> State:
        (p, p_tests), (q, q_tests) = (
            walk.window(at, k, n) for walk, at, k, n in zip(walks, index[-2:], steps, size, strict=True)
        )
        there, (total,) = all_of([*p_tests, *q_tests]), state
        window = (*index[:-2], p, q)
        takes = L.apply("eq", ctx.read(1, window, there), place)
        takes = takes if there is None else L.apply("and", there, takes)
        return (L.select(takes, L.apply("add", total, ctx.read(0, window, there)), total),)

    rounds = [L.index(walk.most(n)) for walk, n in zip(walks, size, strict=True)]
    return ctx.fold(rounds, (L.const(0.0, ctx.result_type.dtype),), visit)[0]


# --------------------------------------------------------------------------------------- references


def _met(attrs: Attrs, shape: Sequence[int]) -> Iterator[tuple[Any, Any]]:
    """For each tap of a window in order: which row and column each position meets (-1: none)."""
    tables = [walk.table(n) for walk, n in zip(_walks(attrs), shape, strict=True)]
    for i, j in itertools.product(*(range(t.shape[1]) for t in tables)):
        yield tables[0][:, i], tables[1][:, j]


def _scan(x: Any, attrs: Attrs) -> tuple[Any, Any]:
    """(largest, its place in the image) of every window."""
    dtype = dtype_of_numpy(x.dtype)
    assert dtype is not None
    best: Any = None
    at: Any = None
    for rows, columns in _met(attrs, x.shape[-2:]):
        value = x[..., rows[:, None], columns[None, :]]
        there = (rows[:, None] >= 0) & (columns[None, :] >= 0)
        if best is None:
            best = np.full(value.shape, order.identity("max", dtype), x.dtype)
            at = np.full(value.shape, -1, np.int64)
        takes = there & ((at < 0) | ((best == best) & ~(value <= best)))
        best = np.where(takes, value, best)
        at = np.where(takes, rows[:, None] * x.shape[-1] + columns[None, :], at)
    return best, at


def _max_ref(xp: Any, x: Any, **attrs: Any) -> Any:
    return _scan(x, attrs)[0]


def _index_ref(xp: Any, x: Any, **attrs: Any) -> Any:
    return _scan(x, attrs)[1]


def _sum_ref(xp: Any, x: Any, **attrs: Any) -> Any:
    total: Any = None
    for rows, columns in _met(attrs, x.shape[-2:]):
        value = x[..., rows[:, None], columns[None, :]]
        total = np.full(value.shape, -0.0, x.dtype) if total is None else total
        total = np.where((rows[:, None] >= 0) & (columns[None, :] >= 0), total + value, total)
    return total


def _sum_input_ref(xp: Any, g: Any, **attrs: Any) -> Any:
    high, wide = (walk.table(n) for walk, n in zip(_walks(attrs), attrs["size"], strict=True))
    height, width = (np.arange(n) for n in attrs["size"])
    out = np.zeros((*g.shape[:-2], len(height), len(width)), g.dtype)
    for p, q in np.ndindex(*g.shape[-2:]):
        inside = np.isin(height, high[p])[:, None] & np.isin(width, wide[q])[None, :]
        out = np.where(inside, out + g[..., p, q][..., None, None], out)
    return out


def _max_input_ref(xp: Any, g: Any, index: Any, **attrs: Any) -> Any:
    height, width = attrs["size"]
    out = np.zeros((*g.shape[:-2], height * width), g.dtype)
    for p, q in np.ndindex(*g.shape[-2:]):
        mine = np.arange(height * width) == index[..., p, q][..., None]
        out = np.where(mine, out + g[..., p, q][..., None], out)
    return out.reshape(*g.shape[:-2], height, width)


# ------------------------------------------------------------------------------------- declarations


def _window_attrs(call: Call) -> dict[str, Any]:
    return {key: call.attrs[key] for key in WINDOW if key in call.attrs}


def _image_size(call: Call) -> tuple[int, ...]:
    return tuple(call.operands[0].ttype.shape[-2:])


def _flat(x: Any) -> Any:
    """The last two dimensions as one."""
    shape = x.ttype.shape
    return reshape(x, shape=(*shape[:-2], shape[-2] * shape[-1]))


def _along(x: Any) -> dict[str, Any]:
    """The attributes of `gather` for an index along the last dimension of flattened images."""
    rank = x.ttype.rank - 1
    return {"at": tuple(range(rank)), "place": (*range(rank - 1), -1), "wrap": False}


def _max_vjp(call: Call, g: Any) -> Sequence[Any]:
    """Each number goes to the place of its window, windows in ascending order."""
    t: TensorType = call.operands[0].ttype
    places = max_pool2d_index(call.operands[0], **call.attrs)
    if t.dtype in SUMMED:
        return (max_pool2d_input(g, places, size=_image_size(call), **call.attrs),)
    index = _flat(places)
    images = TensorType(t.dtype, (*t.shape[:-2], t.static_shape()[-2] * t.static_shape()[-1]), t.device)
    return (reshape(scatter_add(zeros_of(images, g), _flat(g), index, **_along(g)), shape=t.shape),)


def _max_jvp(call: Call, t: Any) -> Sequence[Any]:
    if t is None:
        return (None,)
    index = max_pool2d_index(call.operands[0], **call.attrs)
    return (reshape(gather(_flat(t), _flat(index), **_along(t)), shape=index.ttype.shape),)


max_pool2d_index: Final[OpDef] = register(
    OpDef(
        "max_pool2d_index",
        "max_pool2d_index(x; kernel, stride, padding, dilation or bins): int64, row * columns + column of the first "
        "largest element of each window; NaN is the largest.",
        _pool_types("max_pool2d_index", NUMERIC, int64),
        quiet(_index_ref),
        Dense(_index_element),
        traits=frozenset({"exact", "window"}),
        arity=1,
    )
)

max_pool2d: Final[OpDef] = register(
    OpDef(
        "max_pool2d",
        "max_pool2d(x; kernel, stride, padding, dilation or bins): the largest element of each window; NaN wins. The "
        "gradient goes to the first of the largest.",
        _pool_types("max_pool2d", NUMERIC),
        quiet(_max_ref),
        Dense(_max_element),
        vjp=_max_vjp,
        jvp=_max_jvp,
        traits=frozenset({"exact", "window"}),
        saved_operands=(0,),
        arity=1,
    )
)


sum_pool2d: Final[OpDef] = register(
    OpDef(
        "sum_pool2d",
        "sum_pool2d(x; kernel, stride, padding or bins): the sum of each window, in row-major order.",
        _pool_types("sum_pool2d", SUMMED),
        quiet(_sum_ref),
        Dense(_sum_element),
        vjp=lambda call, g: (sum_pool2d_input(g, size=_image_size(call), **_window_attrs(call)),),
        jvp=lambda call, t: (None if t is None else sum_pool2d(t, **call.attrs),),
        traits=frozenset({"exact", "window"}),
        arity=1,
    )
)


def _sum_input_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    _checked("sum_pool2d_input", operands[0], attrs, SUMMED)
    return (_spread("sum_pool2d_input", operands[0], attrs),)


sum_pool2d_input: Final[OpDef] = register(
    OpDef(
        "sum_pool2d_input",
        "sum_pool2d_input(g; size, kernel, stride, padding or bins): images of `size`; each element is the sum, "
        "from +0 and in ascending order, of g over the windows that contain it.",
        _sum_input_types,
        quiet(_sum_input_ref),
        Dense(_sum_input_element),
        vjp=lambda call, t: (sum_pool2d(t, **_window_attrs(call)),),
        jvp=lambda call, t: (None if t is None else sum_pool2d_input(t, **call.attrs),),
        traits=frozenset({"exact", "window"}),
        arity=1,
    )
)


def _max_input_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (g, index), op = operands, "max_pool2d_input"
    _checked(op, g, attrs, SUMMED)
    if index.dtype is not int64:
        raise OpTypeError(op, f"takes places of int64, got {index}", "dtype")
    if index.shape != g.shape:
        raise OpTypeError(op, f"{g} and {index} differ in shape")
    return (_spread(op, g, attrs),)


def _max_input_vjp(call: Call, t: Any) -> Sequence[Any]:
    index = call.operands[1]
    return reshape(gather(_flat(t), _flat(index), **_along(t)), shape=index.ttype.shape), None


max_pool2d_input: Final[OpDef] = register(
    OpDef(
        "max_pool2d_input",
        "max_pool2d_input(g, index; size, kernel, stride, padding, dilation or bins): images of `size`; each element "
        "is the sum, from +0 and in ascending order, of g over the windows around it whose index is its place.",
        _max_input_types,
        quiet(_max_input_ref),
        Dense(_max_input_element),
        vjp=_max_input_vjp,
        jvp=lambda call, t, _: (None if t is None else max_pool2d_input(t, call.operands[1], **call.attrs),),
        traits=frozenset({"exact", "window"}),
        saved_operands=(1,),
        arity=2,
    )
)
