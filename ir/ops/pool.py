"""Pooling over windows of the last two dimensions: the largest element, its place, the sum. The gradient of the largest
is written to its place; that of the sum is an op of its own, in gather form: each element collects from the windows it
lies in. Both add in ascending order of the windows.

Attributes: `kernel` (2), `stride` (2), `padding` (before and behind the rows, before and behind the columns),
`dilation` (2, of maxima only); `size` (2) is that of the images where a gradient goes. Padding is not there: no window
reads it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir import order
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, Dense, ElementContext, OpDef, OpTypeError, ints_attr, quiet, register
from kiln.ir.ops.conv import Axis, axes, positions
from kiln.ir.ops.create import zeros_of
from kiln.ir.ops.elementwise import NUMERIC
from kiln.ir.ops.gather import gather, scatter_add
from kiln.ir.ops.movement import reshape
from kiln.ir.types import DType, TensorType, dtype_of_numpy, float32, float64, int64

MOST_TAPS: Final = 1024
"""Elements of the largest window: kernels write every one of them out."""
SUMMED: Final = (float32, float64)
"""Sums of half types are sums in float32 (frontend/pooling.py)."""
WINDOW: Final = ("kernel", "stride", "padding", "dilation")


def _walks(attrs: Attrs) -> tuple[tuple[Axis, int], tuple[Axis, int]]:
    """Axis and taps of rows and columns."""
    rows, columns = axes({"dilation": (1, 1), **attrs})
    kernel = ints_attr(attrs, "kernel")
    return (rows, kernel[0]), (columns, kernel[1])


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
        ("size", 2, 0),
    ):
        if key in attrs:
            values = ints_attr(attrs, key)
            if len(values) != count or any(v < least for v in values):
                raise OpTypeError(op, f"{key} must be {count} numbers of at least {least}, got {values}", "value")
    kernel = ints_attr(attrs, "kernel")
    if kernel[0] * kernel[1] > MOST_TAPS:
        raise OpTypeError(op, f"a window of {kernel[0]} x {kernel[1]} is larger than {MOST_TAPS} elements", "value")


def _pooled(op: str, t: TensorType, attrs: Attrs, dtype: DType) -> TensorType:
    """The type of one number per window of `t`."""
    sizes = [
        positions(op, axis, n, taps, dim)
        for (axis, taps), n, dim in zip(_walks(attrs), t.shape[-2:], ("rows", "columns"), strict=True)
    ]
    return TensorType(dtype, (*t.shape[:-2], *sizes), t.device)


def _spread(op: str, t: TensorType, attrs: Attrs) -> TensorType:
    """The type of images of `size` whose windows have the numbers `t`."""
    size = ints_attr(attrs, "size")
    for (axis, taps), n, got, dim in zip(_walks(attrs), size, t.shape[-2:], ("rows", "columns"), strict=True):
        if isinstance(got, int) and axis.size(n, taps) != got:
            raise OpTypeError(op, f"{n} {dim} have {axis.size(n, taps)} windows, {t} has {got}")
    return TensorType(t.dtype, (*t.shape[:-2], *size), t.device)


def _pool_types(op: str, among: Sequence[DType], to: DType | None = None) -> Any:
    def infer(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        _checked(op, operands[0], attrs, among)
        return (_pooled(op, operands[0], attrs, to or operands[0].dtype),)

    return infer


# ----------------------------------------------------------------------------------------- elements

Index = tuple[L.Expr, ...]


def _tap(axis: Axis, taps: int, position: L.Expr, tap: int, size: L.Expr) -> tuple[L.Expr, list[L.Expr]]:
    """The element that a position meets at a tap, and the tests that say whether it is there, as few as padding
    needs."""
    ahead = tap * axis.dilation - axis.before
    place = position * axis.stride + ahead
    tests = [L.apply("ge", place, L.index(0))] if ahead < 0 else []
    if tap * axis.dilation > (taps - 1) * axis.dilation - axis.behind:
        tests.append(L.apply("lt", place, size))
    return place, tests


def _all(tests: Sequence[L.Expr]) -> L.Expr | None:
    whole: L.Expr | None = None
    for test in tests:
        whole = test if whole is None else L.apply("and", whole, test)
    return whole


def _window(ctx: ElementContext, index: Index) -> Iterator[tuple[L.Expr, L.Expr, L.Expr | None]]:
    """The elements of a window in row-major order: value, flat place in the image, whether it is there."""
    (rows, taps_h), (columns, taps_w) = _walks(ctx.attrs)
    height, width = (ctx.extent(d) for d in ctx.operand_types[0].shape[-2:])
    for i, j in itertools.product(range(taps_h), range(taps_w)):
        row, row_tests = _tap(rows, taps_h, index[-2], i, height)
        column, column_tests = _tap(columns, taps_w, index[-1], j, width)
        there = _all([*row_tests, *column_tests])
        yield ctx.read(0, (*index[:-2], row, column), there), L.add(L.mul(row, width), column), there


def _max_element(ctx: ElementContext, index: Index) -> L.Expr:
    """The first one of the largest; NaN is larger than all."""
    dtype = ctx.result_type.dtype
    best: L.Expr = L.const(order.identity("max", dtype), dtype)
    for k, (value, _, there) in enumerate(_window(ctx, index)):
        larger = value if k == 0 and there is None else L.apply("max", value, best)
        best = larger if there is None else L.select(there, larger, best)
    return best


def _index_element(ctx: ElementContext, index: Index) -> L.Expr:
    dtype = ctx.operand_types[0].dtype
    best: L.Expr = L.const(order.identity("max", dtype), dtype)
    at: L.Expr = L.index(-1)
    certain = False  # whether an element has been met, wherever the window lies
    for k, (value, place, there) in enumerate(_window(ctx, index)):
        if k == 0 and there is None:
            best, at, certain = value, place, True
            continue
        takes = L.apply("and", L.apply("eq", best, best), L.apply("not", L.apply("le", value, best)))
        if not certain:  # the first one counts, whatever it is
            takes = L.apply("or", L.apply("lt", at, L.index(0)), takes)
        if there is None:
            certain = True
        else:
            takes = L.apply("and", there, takes)
        best, at = L.select(takes, value, best), L.select(takes, place, at)
    return at


def _sum_element(ctx: ElementContext, index: Index) -> L.Expr:
    dtype = ctx.result_type.dtype
    total: L.Expr = L.const(-0.0, dtype)
    for k, (value, _, there) in enumerate(_window(ctx, index)):
        more = value if k == 0 and there is None else L.apply("add", total, value)
        total = more if there is None else L.select(there, more, total)
    return total


def _windows(axis: Axis, taps: int, place: L.Expr, count: L.Expr) -> Iterator[tuple[L.Expr, L.Expr, L.Expr]]:
    """The windows along one dimension that may reach an element, ascending: number, whether there is such a window,
    how far into it the element lies."""
    span = (taps - 1) * axis.dilation + 1
    last = L.apply("div", place + axis.before, L.index(axis.stride))
    for back in reversed(range(-(-span // axis.stride))):
        number = last - back
        exists = L.apply("and", L.apply("ge", number, L.index(0)), L.apply("lt", number, count))
        yield number, exists, L.sub(place + axis.before, number * axis.stride)


def _sum_input_element(ctx: ElementContext, index: Index) -> L.Expr:
    (rows, taps_h), (columns, taps_w) = _walks(ctx.attrs)
    counts = [ctx.extent(d) for d in ctx.operand_types[0].shape[-2:]]
    dtype = ctx.result_type.dtype
    total: L.Expr = L.const(0.0, dtype)
    for (p, p_exists, p_depth), (q, q_exists, q_depth) in itertools.product(
        _windows(rows, taps_h, index[-2], counts[0]), _windows(columns, taps_w, index[-1], counts[1])
    ):
        inside = [L.apply("lt", p_depth, L.index(taps_h)), L.apply("lt", q_depth, L.index(taps_w))]
        test = _all([p_exists, q_exists, *inside])
        assert test is not None
        total = L.select(test, L.apply("add", total, ctx.read(0, (*index[:-2], p, q), test)), total)
    return total


# --------------------------------------------------------------------------------------- references


def _met(attrs: Attrs, shape: Sequence[int]) -> Iterator[tuple[Any, Any]]:
    """For each tap of a window in order: which row and column each position meets (-1: none)."""
    tables = [order.taps(axis, n, taps) for (axis, taps), n in zip(_walks(attrs), shape, strict=True)]
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
    high, wide = (order.taps(a, n, t) for (a, t), n in zip(_walks(attrs), attrs["size"], strict=True))
    height, width = (np.arange(n) for n in attrs["size"])
    out = np.zeros((*g.shape[:-2], len(height), len(width)), g.dtype)
    for p, q in np.ndindex(*g.shape[-2:]):
        inside = np.isin(height, high[p])[:, None] & np.isin(width, wide[q])[None, :]
        out = np.where(inside, out + g[..., p, q][..., None, None], out)
    return out


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
    index = _flat(max_pool2d_index(call.operands[0], **call.attrs))
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
        "max_pool2d_index(x; kernel, stride, padding, dilation): int64, row * columns + column of the first largest "
        "element of each window; NaN is the largest.",
        _pool_types("max_pool2d_index", NUMERIC, int64),
        quiet(_index_ref),
        Dense(_index_element),
        traits=frozenset({"exact"}),
        arity=1,
    )
)

max_pool2d: Final[OpDef] = register(
    OpDef(
        "max_pool2d",
        "max_pool2d(x; kernel, stride, padding, dilation): the largest element of each window; NaN wins. The gradient "
        "goes to the first of the largest.",
        _pool_types("max_pool2d", NUMERIC),
        quiet(_max_ref),
        Dense(_max_element),
        vjp=_max_vjp,
        jvp=_max_jvp,
        traits=frozenset({"exact"}),
        saved_operands=(0,),
        arity=1,
    )
)


sum_pool2d: Final[OpDef] = register(
    OpDef(
        "sum_pool2d",
        "sum_pool2d(x; kernel, stride, padding): the sum of each window, in row-major order.",
        _pool_types("sum_pool2d", SUMMED),
        quiet(_sum_ref),
        Dense(_sum_element),
        vjp=lambda call, g: (sum_pool2d_input(g, size=_image_size(call), **_window_attrs(call)),),
        jvp=lambda call, t: (None if t is None else sum_pool2d(t, **call.attrs),),
        traits=frozenset({"exact"}),
        arity=1,
    )
)


def _sum_input_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    _checked("sum_pool2d_input", operands[0], attrs, SUMMED)
    return (_spread("sum_pool2d_input", operands[0], attrs),)


sum_pool2d_input: Final[OpDef] = register(
    OpDef(
        "sum_pool2d_input",
        "sum_pool2d_input(g; size, kernel, stride, padding): images of `size` in which each element is the sum, from "
        "+0 and in ascending order, of g over the windows that contain it.",
        _sum_input_types,
        quiet(_sum_input_ref),
        Dense(_sum_input_element),
        vjp=lambda call, t: (sum_pool2d(t, **_window_attrs(call)),),
        jvp=lambda call, t: (None if t is None else sum_pool2d_input(t, **call.attrs),),
        traits=frozenset({"exact"}),
        arity=1,
    )
)
