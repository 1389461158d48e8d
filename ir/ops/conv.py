"""Convolution: one sum of products of three things, and each of them as the result of the other two.

With images x [N, C, H, W], weights w [O, C/groups, KH, KW] and results y [N, O, OH, OW], position (oh, ow) of y meets
position (oh * stride - padding + kh * dilation, likewise) of x at tap (kh, kw). `conv2d` sums over taps and channels,
`conv2d_input` over taps and the channels of y, `conv2d_weight` over the positions of all images. A tap that meets
nothing (padding) does not exist: it is skipped, never multiplied by zero. The derivative of each one is the other two.

Attributes: `stride` (2), `padding` (before and behind the rows, before and behind the columns), `dilation` (2),
`groups`; `size` (2) is that of the images for `conv2d_input` and of the taps for `conv2d_weight`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kiln.ir import order
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import BILINEAR, Call, OpDef, OpTypeError, Template, ints_attr, quiet, register
from kiln.ir.ops.elementwise import FLOATS, add
from kiln.ir.types import Dim, Sym, TensorType

ARGUMENTS: Final = ("stride", "padding", "dilation", "groups")


class Axis(NamedTuple):
    """How one spatial dimension is walked."""

    stride: int
    before: int
    behind: int
    dilation: int

    def size(self, n: int, taps: int) -> int:
        """The number of positions of `taps` over n elements; below one where there is none."""
        return (n + self.before + self.behind - self.dilation * (taps - 1) - 1) // self.stride + 1


def axes(attrs: Attrs) -> tuple[Axis, Axis]:
    """Rows and columns."""
    stride, padding, dilation = (ints_attr(attrs, key) for key in ("stride", "padding", "dilation"))
    above, below, left, right = padding
    return Axis(stride[0], above, below, dilation[0]), Axis(stride[1], left, right, dilation[1])


def _groups(attrs: Attrs) -> int:
    groups = attrs["groups"]
    assert isinstance(groups, int)
    return groups


def _checked(op: str, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, TensorType]:
    """The two operands, whose dtypes, ranks and attributes make sense."""
    a, b = operands
    if a.dtype is not b.dtype:
        raise OpTypeError(op, f"operands have dtypes {a.dtype} and {b.dtype}", "dtype", fix="cast one with .to()")
    if a.dtype not in FLOATS or a.dtype.is_half:
        raise OpTypeError(op, f"is not defined for {a.dtype}", "dtype")
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


def _shared(op: str, n: Dim, groups: int, what: str) -> int:
    """n / groups, which must be whole. Channels and taps have known sizes."""
    if isinstance(n, Sym):
        raise OpTypeError(op, f"{what} of symbolic size {n}", "value")
    if n % groups:
        raise OpTypeError(op, f"{n} {what} can't be divided into {groups} groups", "value")
    return n // groups


def _same(op: str, a: Dim, b: Dim, message: str) -> None:
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


def _conv2d_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, w = _checked("conv2d", operands, attrs)
    groups = _groups(attrs)
    shared = _shared("conv2d", x.shape[1], groups, "channels")
    _same(
        "conv2d", shared, w.shape[1], f"{x} has {x.shape[1]} channels in {groups} groups, {w} takes {w.shape[1]} each"
    )
    _shared("conv2d", w.shape[0], groups, "results")
    rows, columns = axes(attrs)
    oh = positions("conv2d", rows, x.shape[2], w.shape[2], "rows")
    ow = positions("conv2d", columns, x.shape[3], w.shape[3], "columns")
    return (TensorType(x.dtype, (x.shape[0], w.shape[0], oh, ow), x.device),)


def _input_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    g, w = _checked("conv2d_input", operands, attrs)
    groups, size = _groups(attrs), ints_attr(attrs, "size")
    _same("conv2d_input", g.shape[1], w.shape[0], f"{g} has {g.shape[1]} channels, {w} makes {w.shape[0]}")
    _shared("conv2d_input", w.shape[0], groups, "results")
    for axis, n, taps, got, dim in zip(axes(attrs), size, w.shape[2:], g.shape[2:], ("rows", "columns"), strict=True):
        if isinstance(got, int) and isinstance(taps, int):
            wanted = axis.size(n, taps)
            _same("conv2d_input", wanted, got, f"{n} {dim} give {wanted}, {g} has {got}")
    channels = _shared("conv2d_input", w.shape[1], 1, "channels") * groups
    return (TensorType(g.dtype, (g.shape[0], channels, *size), g.device),)


def _weight_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, g = _checked("conv2d_weight", operands, attrs)
    groups, size = _groups(attrs), ints_attr(attrs, "size")
    _same("conv2d_weight", x.shape[0], g.shape[0], f"{x} and {g} are of {x.shape[0]} and {g.shape[0]} images")
    shared = _shared("conv2d_weight", x.shape[1], groups, "channels")
    _shared("conv2d_weight", g.shape[1], groups, "results")
    for axis, n, taps, got, dim in zip(axes(attrs), x.shape[2:], size, g.shape[2:], ("rows", "columns"), strict=True):
        if isinstance(got, int) and isinstance(n, int):
            wanted = axis.size(n, taps)
            _same("conv2d_weight", wanted, got, f"{n} {dim} give {wanted}, {g} has {got}")
    return (TensorType(x.dtype, (g.shape[1], shared, *size), x.device),)


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


# --------------------------------------------------------------------------------------- derivatives


def _arguments(call: Call) -> dict[str, Any]:
    return {key: call.attrs[key] for key in ARGUMENTS}


def _spatial(x: Any) -> tuple[int, ...]:
    return tuple(x.ttype.shape[2:])


def _bilinear_jvp(op: str) -> Any:
    """The tangent of a product of two operands."""

    def jvp(call: Call, ta: Any, tb: Any) -> Sequence[Any]:
        a, b = call.operands
        apply = {"conv2d": conv2d, "conv2d_input": conv2d_input, "conv2d_weight": conv2d_weight}[op]
        parts = [] if ta is None else [apply(ta, b, **call.attrs)]
        parts += [] if tb is None else [apply(a, tb, **call.attrs)]
        return (None if not parts else parts[0] if len(parts) == 1 else add(*parts),)

    return jvp


def _conv2d_vjp(call: Call, g: Any) -> Sequence[Any]:
    (x, w), given = call.operands, _arguments(call)
    return (
        conv2d_input(g, w, size=_spatial(x), **given) if call.needs[0] else None,
        conv2d_weight(x, g, size=_spatial(w), **given) if call.needs[1] else None,
    )


def _input_vjp(call: Call, t: Any) -> Sequence[Any]:
    (g, w), given = call.operands, _arguments(call)
    return (
        conv2d(t, w, **given) if call.needs[0] else None,
        conv2d_weight(t, g, size=_spatial(w), **given) if call.needs[1] else None,
    )


def _weight_vjp(call: Call, t: Any) -> Sequence[Any]:
    (x, g), given = call.operands, _arguments(call)
    return (
        conv2d_input(g, t, size=_spatial(x), **given) if call.needs[0] else None,
        conv2d(x, t, **given) if call.needs[1] else None,
    )


def _declare(name: str, doc: str, infer: Any, ref: Any, vjp: Any) -> OpDef:
    return register(
        OpDef(
            name,
            doc,
            infer,
            quiet(ref),
            Template(name),
            vjp=vjp,
            jvp=_bilinear_jvp(name),
            saved_operands=(0, 1),
            saved_for=BILINEAR,
            arity=2,
        )
    )


conv2d: Final[OpDef] = _declare(
    "conv2d",
    "conv2d(x, w; stride, padding, dilation, groups): x [N, C, H, W], w [O, C/groups, KH, KW] -> [N, O, OH, OW]. k is "
    "(kh, kw, c) in the contraction order of ir/order.py; taps outside x are skipped.",
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
