"""Convolution: one sum of products of three things, and each of them as the result of the other two.

With images x [N, C, H, W], weights w [O, C/groups, KH, KW] and results y [N, O, OH, OW], position (oh, ow) of y meets
position (oh * stride - padding + kh * dilation, likewise) of x at tap (kh, kw). `conv2d` sums over taps and channels,
`conv2d_input` over taps and the channels of y, `conv2d_weight` over the positions of all images. A tap that meets
nothing (padding) does not exist: it is skipped, never multiplied by zero. The derivative of each one is the other two.

Attributes: `stride` (2), `padding` (before and behind the rows, before and behind the columns), `dilation` (2),
`groups`; `size` (2) is that of the images for `conv2d_input` and of the taps for `conv2d_weight`. With `tensor_cores`,
which 16-bit floats need, a GPU's tensor cores multiply, in their own order; sums are float32, rounded once, or with
dtype=float32 not at all. Elsewhere it is float32's convolution, rounded in the same way (`ir/passes/spell.py`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from kiln.ir import loops as L
from kiln.ir import order
from kiln.ir.graph import Attrs
from kiln.ir.halves import converted, is_half, widened
from kiln.ir.ops.base import (
    BILINEAR,
    Call,
    Dense,
    ElementContext,
    Lowering,
    OpDef,
    OpTypeError,
    State,
    Template,
    ints_attr,
    quiet,
    register,
)
from kiln.ir.ops.cast import cast
from kiln.ir.ops.elementwise import FLOATS, add
from kiln.ir.ops.movement import copy, permute, reshape
from kiln.ir.order import KBLOCK
from kiln.ir.types import Dim, DType, Sym, TensorType, dtype_named, float32

ARGUMENTS: Final = ("stride", "padding", "dilation", "groups", "tensor_cores")
Place = tuple[L.Expr, list[L.Expr]]
"""An index along one dimension, and the tests that say whether it is there, as few as are needed."""


class Axis(NamedTuple):
    """How one spatial dimension is walked."""

    stride: int
    before: int
    behind: int
    dilation: int

    def size(self, n: int, taps: int) -> int:
        """The number of positions of `taps` over n elements; below one where there is none."""
        return (n + self.before + self.behind - self.dilation * (taps - 1) - 1) // self.stride + 1

    def tap(self, position: L.Expr, tap: L.Expr, taps: int, extent: L.Expr) -> Place:
        """The element that a position meets at a tap, among `extent`."""
        known = int(tap.value) if isinstance(tap, L.Const) else None
        place = position * self.stride + tap * self.dilation - self.before
        tests = []
        if self.before > (known or 0) * self.dilation:
            tests.append(L.apply("ge", place, L.index(0)))
        if self.behind > (0 if known is None else taps - 1 - known) * self.dilation:
            tests.append(L.apply("lt", place, extent))
        return place, tests

    def met(self, place: L.Expr, tap: L.Expr, taps: int, count: L.Expr) -> Place:
        """The position, of `count`, that meets an element at a tap."""
        ahead = L.sub(place + self.before, tap * self.dilation)
        tests = []
        if self.before < (taps - 1) * self.dilation:
            tests.append(L.apply("ge", ahead, L.index(0)))
        if self.stride == 1:
            return ahead, [*tests, L.apply("lt", ahead, count)]
        halved = self.stride == 2  # which vectors read from neighbours (codegen/schedule.py)
        position = L.apply("shr", ahead, L.index(1)) if halved else L.apply("div", ahead, L.index(self.stride))
        whole = L.apply("eq", position * self.stride, ahead)
        return position, [*tests, whole, L.apply("lt", position, count)]


def axes(attrs: Attrs) -> tuple[Axis, Axis]:
    """Rows and columns."""
    stride, padding, dilation = (ints_attr(attrs, key) for key in ("stride", "padding", "dilation"))
    above, below, left, right = padding
    return Axis(stride[0], above, below, dilation[0]), Axis(stride[1], left, right, dilation[1])


def _groups(attrs: Attrs) -> int:
    groups = attrs["groups"]
    assert isinstance(groups, int)
    return groups


def all_of(tests: Sequence[L.Expr]) -> L.Expr | None:
    """Whether all tests hold; None without any."""
    whole: L.Expr | None = None
    for test in tests:
        whole = test if whole is None else L.apply("and", whole, test)
    return whole


def _checked(op: str, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, TensorType]:
    """The two operands, whose dtypes, ranks and attributes make sense."""
    a, b = operands
    if a.dtype is not b.dtype:
        raise OpTypeError(op, f"operands have dtypes {a.dtype} and {b.dtype}", "dtype", fix="cast one with .to()")
    cores = bool(attrs.get("tensor_cores"))
    if a.dtype not in FLOATS or a.dtype.is_half is not cores:
        raise OpTypeError(op, f"is not defined for {a.dtype} {'by' if cores else 'without'} tensor cores", "dtype")
    if a.rank != 4 or b.rank != 4:
        raise OpTypeError(op, f"takes two operands of four dimensions, got {a} and {b}")
    for key, count, least in (("stride", 2, 1), ("padding", 4, 0), ("dilation", 2, 1), ("size", 2, 0)):
        if key in attrs:
            values = ints_attr(attrs, key)
            if len(values) != count or any(v < least for v in values):
                raise OpTypeError(op, f"{key} must be {count} numbers of at least {least}, got {values}", "value")
    if _groups(attrs) < 1:
        raise OpTypeError(op, f"groups must be at least 1, got {attrs['groups']}", "value")
    return a, b


def _rounded(op: str, a: TensorType, attrs: Attrs) -> DType:
    """The dtype of the result: that of the operands, or float32."""
    to = attrs.get("dtype", a.dtype)
    if not isinstance(to, DType) or (to is not a.dtype and not (a.dtype.is_half and to is float32)):
        raise OpTypeError(op, f"gives {a.dtype}, not {to}", "dtype", "only 16-bit floats can give float32")
    return to


def _shared(op: str, n: Dim, groups: int, what: str) -> int:
    """n / groups, which must be whole. Channels and taps have known sizes."""
    if isinstance(n, Sym):
        raise OpTypeError(op, f"{what} of symbolic size {n}", "value")
    if n % groups:
        raise OpTypeError(op, f"{n} {what} can't be divided into {groups} groups", "value")
    return n // groups


def _same(op: str, a: object, b: object, message: str) -> None:
    if a != b:
        raise OpTypeError(op, message)


def positions(op: str, axis: Axis, n: Dim, taps: Dim, dim: str) -> Dim:
    """The size of y along a dimension. Of a symbolic one it is a size of its own, named after what it follows from."""
    if isinstance(n, Sym) or isinstance(taps, Sym):
        return Sym(f"{n}_{taps}_{'_'.join(map(str, axis))}_{dim}")
    count = axis.size(n, taps)
    if count < 1:
        padded = n + axis.before + axis.behind
        spread = axis.dilation * (taps - 1) + 1
        raise OpTypeError(op, f"a kernel that spans {spread} does not fit in {padded} {dim} (padding included)")
    return count


def _conv2d_types(op: str, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, w = _checked(op, operands, attrs)
    groups = _groups(attrs)
    shared = _shared(op, x.shape[1], groups, "channels")
    _same(op, shared, w.shape[1], f"{x} has {x.shape[1]} channels in {groups} groups, {w} takes {w.shape[1]} each")
    _shared(op, w.shape[0], groups, "results")
    rows, columns = axes(attrs)
    oh = positions(op, rows, x.shape[2], w.shape[2], "rows")
    ow = positions(op, columns, x.shape[3], w.shape[3], "columns")
    return (TensorType(_rounded(op, x, attrs), (x.shape[0], w.shape[0], oh, ow), x.device),)


def _input_types(op: str, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    g, w = _checked(op, operands, attrs)
    groups, size = _groups(attrs), ints_attr(attrs, "size")
    _same(op, g.shape[1], w.shape[0], f"{g} has {g.shape[1]} channels, {w} makes {w.shape[0]}")
    _shared(op, w.shape[0], groups, "results")
    for axis, n, taps, got, dim in zip(axes(attrs), size, w.shape[2:], g.shape[2:], ("rows", "columns"), strict=True):
        if isinstance(got, int) and isinstance(taps, int):
            wanted = axis.size(n, taps)
            _same(op, wanted, got, f"{n} {dim} give {wanted}, {g} has {got}")
    channels = _shared(op, w.shape[1], 1, "channels") * groups
    return (TensorType(_rounded(op, g, attrs), (g.shape[0], channels, *size), g.device),)


def _weight_types(op: str, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, g = _checked(op, operands, attrs)
    groups, size = _groups(attrs), ints_attr(attrs, "size")
    _same(op, x.shape[0], g.shape[0], f"{x} and {g} are of {x.shape[0]} and {g.shape[0]} images")
    shared = _shared(op, x.shape[1], groups, "channels")
    _shared(op, g.shape[1], groups, "results")
    for axis, n, taps, got, dim in zip(axes(attrs), x.shape[2:], size, g.shape[2:], ("rows", "columns"), strict=True):
        if isinstance(got, int) and isinstance(n, int):
            wanted = axis.size(n, taps)
            _same(op, wanted, got, f"{n} {dim} give {wanted}, {g} has {got}")
    return (TensorType(_rounded(op, x, attrs), (g.shape[1], shared, *size), x.device),)


def _depthwise_types(op: str, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, g = _checked(op, operands, {**attrs, "groups": 1})
    _same(op, (x.shape[0], x.shape[3]), (g.shape[0], g.shape[3]), f"{x} and {g} differ in images or channels")
    size = ints_attr(attrs, "size")
    for axis, n, taps, got, dim in zip(axes(attrs), x.shape[1:3], size, g.shape[1:3], ("rows", "columns"), strict=True):
        if isinstance(got, int) and isinstance(n, int):
            wanted = axis.size(n, taps)
            _same(op, wanted, got, f"{n} {dim} give {wanted}, {g} has {got}")
    return (TensorType(x.dtype, (*size, x.shape[3]), x.device),)


# ------------------------------------------------------------------------------------------- elements

Index = tuple[L.Expr, ...]
Term = Callable[[Index], tuple[L.Expr, L.Expr, "L.Expr | None"]]


def _chain(ctx: ElementContext, sizes: Sequence[Dim], term: Term) -> L.Expr:
    """The contraction order over a space of k: `term(index)` says what is multiplied, and whether it is there. The sum
    of a block is added where the next one begins."""
    dtype, extents = ctx.result_type.dtype, [ctx.extent(n) for n in sizes]
    zero = L.const(0.0, dtype)

    def step(index: Index, state: State) -> State:
        a, b, there = term(index)
        *total, acc = state
        if total:
            k = L.add(L.mul(L.add(L.mul(index[0], extents[1]), index[1]), extents[2]), index[2])
            begins = L.apply("eq", L.apply("mod", k + (KBLOCK - 1), L.index(KBLOCK)), L.index(KBLOCK - 1))
            later = L.apply("and", begins, L.apply("lt", L.index(0), k))
            total = [L.select(later, L.apply("add", total[0], acc), total[0])]
            acc = L.select(later, zero, acc)
        more = L.apply("fma", a, b, acc)
        return (*total, more if there is None else L.select(there, more, acc))

    if all(isinstance(n, int) for n in sizes) and math.prod(map(_static, sizes)) <= KBLOCK:
        return ctx.fold(extents, (zero,), step)[0]
    total, acc = ctx.fold(extents, (L.const(-0.0, dtype), zero), step)
    return L.apply("add", total, acc)


def _direct_element(ctx: ElementContext, index: Index) -> L.Expr:
    (_, _, height, width), w = (t.shape for t in ctx.operand_types)
    each, channels, taps_h, taps_w = (_static(n) for n in w)
    rows, columns = axes(ctx.attrs)
    n, o, i, j = index
    first = _of_group(o, each // max(1, _groups(ctx.attrs)), channels)

    def term(k: Index) -> tuple[L.Expr, L.Expr, L.Expr | None]:
        row, row_tests = rows.tap(i, k[0], taps_h, ctx.extent(height))
        column, column_tests = columns.tap(j, k[1], taps_w, ctx.extent(width))
        there = all_of([*row_tests, *column_tests])
        return ctx.read(0, (n, L.add(first, k[2]), row, column), there), ctx.read(1, (o, k[2], *k[:2])), there

    return _chain(ctx, (taps_h, taps_w, channels), term)


def _direct_input_element(ctx: ElementContext, index: Index) -> L.Expr:
    (_, _, out_h, out_w), w = (t.shape for t in ctx.operand_types)
    results, channels, taps_h, taps_w = (_static(n) for n in w)
    results //= _groups(ctx.attrs)
    rows, columns = axes(ctx.attrs)
    n, c, i, j = index
    first = _of_group(c, channels, results)
    channel = L.index(0) if channels == 1 else L.apply("mod", c, L.index(channels))

    def term(k: Index) -> tuple[L.Expr, L.Expr, L.Expr | None]:
        row, row_tests = rows.met(i, k[0], taps_h, ctx.extent(out_h))
        column, column_tests = columns.met(j, k[1], taps_w, ctx.extent(out_w))
        there, o = all_of([*row_tests, *column_tests]), L.add(first, k[2])
        return ctx.read(0, (n, o, row, column), there), ctx.read(1, (o, channel, *k[:2])), there

    return _chain(ctx, (taps_h, taps_w, results), term)


def _depthwise_weight_element(ctx: ElementContext, index: Index) -> L.Expr:
    (_, height, width, _), (images, out_h, out_w, _) = (t.shape for t in ctx.operand_types)
    taps_h, taps_w = ints_attr(ctx.attrs, "size")
    rows, columns = axes(ctx.attrs)

    def term(k: Index) -> tuple[L.Expr, L.Expr, L.Expr | None]:
        row, row_tests = rows.tap(k[1], index[0], taps_h, ctx.extent(height))
        column, column_tests = columns.tap(k[2], index[1], taps_w, ctx.extent(width))
        there = all_of([*row_tests, *column_tests])
        return ctx.read(0, (k[0], row, column, index[2]), there), ctx.read(1, (*k, index[2])), there

    return _chain(ctx, (images, out_h, out_w), term)


def _of_group(channel: L.Expr, each: int, others: int) -> L.Expr:
    """Where the channels begin, `others` for each group, that belong to the group of a channel of the other side, which
    has `each` for each group."""
    group = channel if each == 1 else L.apply("div", channel, L.index(max(1, each)))
    return group * others


def _static(n: Dim) -> int:
    assert isinstance(n, int), "channels and taps have known sizes"
    return n


# ---------------------------------------------------------------------------------------- references


def _conv2d_ref(xp: Any, x: Any, w: Any, *, groups: int, **attrs: Any) -> Any:
    rows, columns = axes(attrs)
    sources = [order.taps(axis, n, k) for axis, n, k in zip((rows, columns), x.shape[2:], w.shape[2:], strict=True)]
    return order.convolve(x, w, sources[0], sources[1], groups)


def _input_ref(xp: Any, g: Any, w: Any, *, groups: int, size: tuple[int, int], **attrs: Any) -> Any:
    sources = []
    for axis, n, k in zip(axes(attrs), size, w.shape[2:], strict=True):
        met = order.taps(axis, n, k)
        turned = order.no_taps(n, k)
        for position, tap in zip(*(met >= 0).nonzero(), strict=True):
            turned[met[position, tap], tap] = position
        sources.append(turned)
    o, c, kh, kw = w.shape
    turned_w = w.reshape(groups, o // groups, c, kh, kw).swapaxes(1, 2).reshape(groups * c, o // groups, kh, kw)
    return order.convolve(g, turned_w, sources[0], sources[1], groups)


def _weight_ref(xp: Any, x: Any, g: Any, *, groups: int, size: tuple[int, int], **attrs: Any) -> Any:
    rows, columns = axes(attrs)
    sources = [order.taps(axis, n, k) for axis, n, k in zip((rows, columns), x.shape[2:], size, strict=True)]
    return order.correlate(x, g, sources[0], sources[1], groups)


def _depthwise_ref(xp: Any, x: Any, g: Any, *, size: tuple[int, int], **attrs: Any) -> Any:
    x, g = np.moveaxis(x, 3, 1), np.moveaxis(g, 3, 1)
    found = _weight_ref(xp, x, g, groups=x.shape[1], size=size, **attrs)
    return np.ascontiguousarray(found[:, 0].transpose(1, 2, 0))


def _rounded_once(ref: Callable[..., Any]) -> Callable[..., Any]:
    """`ref` of 16-bit floats: in float32, and rounded once."""

    @functools.wraps(ref)
    def run(xp: Any, a: Any, b: Any, *, tensor_cores: bool = False, dtype: DType | None = None, **attrs: Any) -> Any:
        found = ref(xp, widened(a), widened(b), **attrs)
        return converted(found, dtype_named(a.dtype.name)) if is_half(a.dtype) and dtype is None else found

    return run


# --------------------------------------------------------------------------------------- derivatives


def _arguments(call: Call) -> dict[str, Any]:
    return {key: call.attrs[key] for key in ARGUMENTS if key in call.attrs}


def _as_operands(call: Call, g: Any) -> Any:
    """The gradient of a result in the dtype of the operands."""
    dtype = call.operands[0].ttype.dtype
    return g if g.ttype.dtype is dtype else cast(g, dtype=dtype)


def _spatial(x: Any) -> tuple[int, ...]:
    return tuple(x.ttype.shape[2:])


def _bilinear_jvp(op: str) -> Any:
    """The tangent of a product of two operands."""

    def jvp(call: Call, ta: Any, tb: Any) -> Sequence[Any]:
        a, b = call.operands
        apply = {
            "conv2d": conv2d,
            "conv2d_input": conv2d_input,
            "conv2d_weight": conv2d_weight,
            "depthwise_weight": depthwise_weight,
        }[op]
        parts = [] if ta is None else [apply(ta, b, **call.attrs)]
        parts += [] if tb is None else [apply(a, tb, **call.attrs)]
        return (None if not parts else parts[0] if len(parts) == 1 else add(*parts),)

    return jvp


FIRST: Final = (0, 3, 1, 2)
LAST: Final = (0, 2, 3, 1)
"""The dimensions of images with channels first or last, in terms of the other."""


def _by_weights(x: Any, g: Any, size: tuple[int, ...], given: dict[str, Any]) -> Any:
    """conv2d_weight. Where every channel is a group, with channels last, so that they fill vectors: the same order."""
    channels = x.ttype.shape[1]
    if "tensor_cores" in given or not (given["groups"] == channels == g.ttype.shape[1] and channels > 1):
        return conv2d_weight(x, g, size=size, **given)
    last = [copy(permute(v, dims=LAST)) for v in (x, g)]
    walk = {k: v for k, v in given.items() if k != "groups"}
    found = depthwise_weight(*last, size=size, **walk)
    return permute(reshape(found, shape=(*size, 1, channels)), dims=(3, 2, 0, 1))


def _depthwise_vjp(call: Call, t: Any) -> Sequence[Any]:
    x, g = (permute(v, dims=FIRST) for v in call.operands)
    kh, kw, channels = t.ttype.shape
    w = permute(reshape(t, shape=(kh, kw, 1, channels)), dims=(3, 2, 0, 1))
    given = {**_arguments(call), "groups": channels}
    return (
        permute(conv2d_input(g, w, size=_spatial(x), **given), dims=LAST) if call.needs[0] else None,
        permute(conv2d(x, w, **given), dims=LAST) if call.needs[1] else None,
    )


def _conv2d_vjp(call: Call, g: Any) -> Sequence[Any]:
    (x, w), given, g = call.operands, _arguments(call), _as_operands(call, g)
    return (
        conv2d_input(g, w, size=_spatial(x), **given) if call.needs[0] else None,
        _by_weights(x, g, _spatial(w), given) if call.needs[1] else None,
    )


def _input_vjp(call: Call, t: Any) -> Sequence[Any]:
    (g, w), given, t = call.operands, _arguments(call), _as_operands(call, t)
    return (
        conv2d(t, w, **given) if call.needs[0] else None,
        _by_weights(t, g, _spatial(w), given) if call.needs[1] else None,
    )


def _weight_vjp(call: Call, t: Any) -> Sequence[Any]:
    (x, g), given, t = call.operands, _arguments(call), _as_operands(call, t)
    return (
        conv2d_input(g, t, size=_spatial(x), **given) if call.needs[0] else None,
        conv2d(x, t, **given) if call.needs[1] else None,
    )


def _declare(name: str, doc: str, infer: Any, ref: Any, vjp: Any, lower: Lowering | None = None) -> OpDef:
    return register(
        OpDef(
            name,
            doc,
            functools.partial(infer, name),
            quiet(_rounded_once(ref)),
            lower or Template(name),
            vjp=vjp,
            jvp=_bilinear_jvp(name.removesuffix("_direct")),
            traits=frozenset() if lower is None else frozenset({"window"}),
            saved_operands=(0, 1),
            saved_for=BILINEAR,
            arity=2,
        )
    )


conv2d: Final[OpDef] = _declare(
    "conv2d",
    "conv2d(x, w; stride, padding, dilation, groups): x [N, C, H, W], w [O, C/groups, KH, KW] -> [N, O, OH, OW]. k is "
    "(kh, kw, c) in the contraction order of ir/order.py; taps outside x are skipped. tensor_cores and dtype: see the "
    "module.",
    _conv2d_types,
    _conv2d_ref,
    _conv2d_vjp,
)
conv2d_input: Final[OpDef] = _declare(
    "conv2d_input",
    "conv2d_input(g, w; size, ...): g [N, O, OH, OW], w [O, C/groups, KH, KW] -> [N, C, *size], the gradient of conv2d "
    "by x, and a transposed convolution. k is (kh, kw, o) in the contraction order.",
    _input_types,
    _input_ref,
    _input_vjp,
)
conv2d_weight: Final[OpDef] = _declare(
    "conv2d_weight",
    "conv2d_weight(x, g; size, ...): x [N, C, H, W], g [N, O, OH, OW] -> [O, C/groups, *size], the gradient of conv2d "
    "by w. k is (n, oh, ow) in the contraction order; positions whose tap lies outside x are skipped.",
    _weight_types,
    _weight_ref,
    _weight_vjp,
)
conv2d_direct: Final[OpDef] = _declare(
    "conv2d_direct",
    "conv2d_direct(x, w; ...): conv2d, one result after another, as part of a generated kernel; for groups of so few "
    "results that vectors of channels would be empty (codegen/direct.py).",
    _conv2d_types,
    _conv2d_ref,
    _conv2d_vjp,
    Dense(_direct_element),
)
conv2d_input_direct: Final[OpDef] = _declare(
    "conv2d_input_direct",
    "conv2d_input_direct(g, w; size, ...): conv2d_input, likewise.",
    _input_types,
    _input_ref,
    _input_vjp,
    Dense(_direct_input_element),
)
depthwise_weight: Final[OpDef] = register(
    OpDef(
        "depthwise_weight",
        "depthwise_weight(x, g; size, stride, padding, dilation): conv2d_weight where each channel is a group, "
        "channels last: x [N, H, W, C], g [N, OH, OW, C] -> [KH, KW, C].",
        functools.partial(_depthwise_types, "depthwise_weight"),
        quiet(_depthwise_ref),
        Dense(_depthwise_weight_element),
        vjp=_depthwise_vjp,
        jvp=_bilinear_jvp("depthwise_weight"),
        traits=frozenset({"window"}),
        saved_operands=(0, 1),
        arity=2,
    )
)
