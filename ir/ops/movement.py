"""Ops that move elements and compute nothing: views (no memory is touched where strides can say it), slices
written back, concatenation, picking by index.

Every op has an exact index map (`Dense.element`), so that it can be fused; views have a `view` rule on strides
besides, which never fails except for `reshape` of memory whose strides do not merge.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final, cast

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import (
    OPS,
    Call,
    Dense,
    ElementContext,
    OpDef,
    OpTypeError,
    ints_attr,
    register,
    shape_attr,
)
from kiln.ir.ops.create import check_shape, zeros_of
from kiln.ir.ops.elementwise import eq, where
from kiln.ir.types import Dim, Shape, Sym, TensorType, int64, product, row_major

View = tuple[tuple[int, ...], tuple[int, ...], int]

# ------------------------------------------------------------------------------------------- reshape


def _size(shape: Shape) -> tuple[int, tuple[str, ...]]:
    """The number of elements: a known factor and the sorted names of the symbolic ones."""
    size = product(shape)
    if isinstance(size, int):
        return size, ()
    return size.factors()


def _reshape_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,), shape = operands, shape_attr(attrs, "shape")
    check_shape("reshape", shape)
    known = not any(isinstance(d, Sym) for d in (*t.shape, *shape))  # of symbolic sizes, more may be known elsewhere
    if known and _size(t.shape) != _size(shape):
        raise OpTypeError("reshape", f"{t} does not have the number of elements of shape {list(shape)}")
    return (TensorType(t.dtype, shape, t.device),)


def _groups(old: Shape, new: Shape) -> list[tuple[range, range]]:
    """Runs of dimensions of equal size in both shapes, as short as can be: (2, 3, 4) and (6, 4) give
    [(0..1, 0), (2, 1)]. Sizes count as equal when they are so for every value of the symbols."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        i0, j0 = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while _size(old[i0:i]) != _size(new[j0:j]) and (i < len(old) or j < len(new)):
            a, b = _size(old[i0:i]), _size(new[j0:j])
            grow_old = i < len(old) and (j == len(new) or (len(a[1]), a[0]) <= (len(b[1]), b[0]))
            i, j = (i + 1, j) if grow_old else (i, j + 1)
        groups.append((range(i0, i), range(j0, j)))
    return groups


def _reshape_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    """The index of the operand, run by run: row-major position in the result's run, split for the operand's."""
    old, new = ctx.operand_types[0].shape, ctx.result_type.shape
    source: list[L.Expr] = []
    for olds, news in _groups(old, new):
        position: L.Expr = L.index(0)
        for d in news:
            if new[d] != 1:
                position = L.add(L.mul(position, ctx.extent(new[d])), index[d])
        parts: list[L.Expr] = []
        wide = [d for d in olds if old[d] != 1]
        for d in reversed(olds):
            if old[d] == 1:
                parts.append(L.index(0))
            elif d == wide[0]:
                parts.append(position)
            else:
                parts.append(L.apply("mod", position, ctx.extent(old[d])))
                position = L.apply("div", position, ctx.extent(old[d]))
        source += reversed(parts)
    return ctx.read(0, tuple(source))


def _reshape_view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, attrs: Attrs) -> View | None:
    """New strides where every run of merged dimensions steps evenly; None where a copy is needed."""
    new = ints_attr(attrs, "shape")
    if 0 in shape:
        return new, cast("tuple[int, ...]", row_major(new)), offset
    out = [0] * len(new)
    for olds, news in _groups(shape, new):
        wide = [d for d in olds if shape[d] != 1]
        for outer, inner in itertools.pairwise(wide):
            if strides[outer] != strides[inner] * shape[inner]:
                return None
        step = strides[wide[-1]] if wide else 1
        for d in reversed(news):
            out[d] = step
            step *= new[d]
    return new, tuple(out), offset


reshape: Final[OpDef] = register(
    OpDef(
        "reshape",
        "reshape(a; shape): the same elements in row-major order under another shape of as many elements.",
        _reshape_types,
        lambda xp, x, *, shape: xp.reshape(x, shape),
        Dense(_reshape_element),
        vjp=lambda call, g: (reshape(g, shape=call.operands[0].ttype.shape),),
        jvp=lambda call, t: (None if t is None else reshape(t, **call.attrs),),
        view=_reshape_view,
        traits=frozenset({"view", "exact", "foldable"}),
        arity=1,
    )
)


# ------------------------------------------------------------------------------------------- permute


def _permute_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,), dims = operands, ints_attr(attrs, "dims")
    if sorted(dims) != list(range(t.rank)):
        raise OpTypeError("permute", f"{dims} is not a permutation of the dimensions of {t}", "dim")
    return (TensorType(t.dtype, tuple(t.shape[d] for d in dims), t.device),)


def inverse(dims: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `dims`."""
    return tuple(sorted(range(len(dims)), key=dims.__getitem__))


def _permute_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    return ctx.read(0, tuple(index[d] for d in inverse(ints_attr(ctx.attrs, "dims"))))


def _permute_view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, attrs: Attrs) -> View:
    dims = ints_attr(attrs, "dims")
    return tuple(shape[d] for d in dims), tuple(strides[d] for d in dims), offset


permute: Final[OpDef] = register(
    OpDef(
        "permute",
        "permute(a; dims): result dimension i is operand dimension dims[i].",
        _permute_types,
        lambda xp, x, *, dims: xp.transpose(x, dims),
        Dense(_permute_element),
        vjp=lambda call, g: (permute(g, dims=inverse(ints_attr(call.attrs, "dims"))),),
        jvp=lambda call, t: (None if t is None else permute(t, **call.attrs),),
        view=_permute_view,
        traits=frozenset({"view", "exact", "foldable"}),
        arity=1,
    )
)


# ----------------------------------------------------------------------------------------- broadcast


def _broadcast_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,), shape, dims = operands, shape_attr(attrs, "shape"), ints_attr(attrs, "dims")
    check_shape("broadcast", shape)
    if len(dims) != t.rank or list(dims) != sorted(set(dims)) or any(not 0 <= d < len(shape) for d in dims):
        raise OpTypeError("broadcast", f"{dims} does not place the dimensions of {t} in shape {list(shape)}", "dim")
    for n, d in zip(t.shape, dims, strict=True):
        if n not in (1, shape[d]):
            raise OpTypeError("broadcast", f"dimension {n} of {t} can't become {shape[d]}")
    return (TensorType(t.dtype, shape, t.device),)


def _broadcast_ref(xp: Any, x: Any, *, shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    padded = [1] * len(shape)
    for n, d in zip(x.shape, dims, strict=True):
        padded[d] = n
    return xp.broadcast_to(x.reshape(padded), shape)


def _broadcast_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    dims, shape = ints_attr(ctx.attrs, "dims"), ctx.operand_types[0].shape
    return ctx.read(0, tuple(L.index(0) if n == 1 else index[d] for n, d in zip(shape, dims, strict=True)))


def _broadcast_view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, attrs: Attrs) -> View:
    new = ints_attr(attrs, "shape")
    steps = [0] * len(new)
    for n, step, d in zip(shape, strides, ints_attr(attrs, "dims"), strict=True):
        steps[d] = step if n == new[d] else 0
    return new, tuple(steps), offset


def _broadcast_vjp(call: Call, g: Any) -> Sequence[Any]:
    """The sum over what was repeated, in one reduction; dimensions of size one come back by a view."""
    t: TensorType = call.operands[0].ttype
    placed = dict(zip(ints_attr(call.attrs, "dims"), t.shape, strict=True))
    dims = tuple(d for d, n in enumerate(shape_attr(call.attrs, "shape")) if placed.get(d) != n)
    if dims:
        g = OPS["sum"](g, dims=dims)
    return (g if g.ttype.shape == t.shape else reshape(g, shape=t.shape),)


broadcast: Final[OpDef] = register(
    OpDef(
        "broadcast",
        "broadcast(a; shape, dims): operand dimension i becomes result dimension dims[i] (ascending), of the same "
        "size or repeated from size 1; all other result dimensions repeat.",
        _broadcast_types,
        _broadcast_ref,
        Dense(_broadcast_element),
        vjp=_broadcast_vjp,
        jvp=lambda call, t: (None if t is None else broadcast(t, **call.attrs),),
        view=_broadcast_view,
        traits=frozenset({"view", "exact", "foldable"}),
        arity=1,
    )
)


# --------------------------------------------------------------------------------------------- slice


def _region(op: str, t: TensorType, attrs: Attrs) -> Shape:
    """The shape of a[starts:stops:steps]; OpTypeError unless 0 <= start <= stop <= size and step >= 1."""
    starts, stops, steps = ints_attr(attrs, "starts"), shape_attr(attrs, "stops"), ints_attr(attrs, "steps")
    if not len(starts) == len(stops) == len(steps) == t.rank:
        raise OpTypeError(op, f"{t} needs one start, stop and step per dimension", "value")
    shape: list[Dim] = []
    for d, (n, start, stop, step) in enumerate(zip(t.shape, starts, stops, steps, strict=True)):
        if step < 1:
            raise OpTypeError(op, f"step {step} is not positive", "value")
        if start == 0 and step == 1 and stop == n:
            shape.append(n)
        elif isinstance(stop, int) and isinstance(n, int) and 0 <= start <= stop <= n:
            shape.append(-((start - stop) // step))
        else:
            raise OpTypeError(op, f"{start}:{stop} does not lie in dimension {d} of {t}", "dim")
    return tuple(shape)


def _slice_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,) = operands
    return (TensorType(t.dtype, _region("slice", t, attrs), t.device),)


def _slices(starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(*s) for s in zip(starts, stops, steps, strict=True))


def _slice_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    starts, steps = shape_attr(ctx.attrs, "starts"), ints_attr(ctx.attrs, "steps")
    places = (L.add(i * step, ctx.extent(start)) for i, start, step in zip(index, starts, steps, strict=True))
    return ctx.read(0, tuple(places))


def _slice_view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, attrs: Attrs) -> View:
    starts, stops, steps = (ints_attr(attrs, key) for key in ("starts", "stops", "steps"))
    sizes = tuple(-((a - b) // c) for a, b, c in zip(starts, stops, steps, strict=True))
    if 0 not in sizes:  # an empty slice may start past the end: it keeps the operand's address
        offset += sum(a * s for a, s in zip(starts, strides, strict=True))
    return sizes, tuple(s * c for s, c in zip(strides, steps, strict=True)), offset


def _slice_vjp(call: Call, g: Any) -> Sequence[Any]:
    return (slice_scatter(zeros_of(call.operands[0].ttype, g), g, **call.attrs),)


slice_: Final[OpDef] = register(
    OpDef(
        "slice",
        "slice(a; starts, stops, steps): a[start:stop:step] in every dimension, 0 <= start <= stop <= size, step >= 1.",
        _slice_types,
        lambda xp, x, *, starts, stops, steps: x[_slices(starts, stops, steps)],
        Dense(_slice_element),
        vjp=_slice_vjp,
        jvp=lambda call, t: (None if t is None else slice_(t, **call.attrs),),
        view=_slice_view,
        traits=frozenset({"view", "exact", "foldable"}),
        arity=1,
    )
)


def _scatter_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    base, value = operands
    if base.dtype is not value.dtype:
        raise OpTypeError("slice_scatter", f"operands have dtypes {base.dtype} and {value.dtype}", "dtype")
    region = _region("slice_scatter", base, attrs)
    if region != value.shape:
        raise OpTypeError("slice_scatter", f"the slice of {base} has shape {list(region)}, the value is {value}")
    return (base,)


def _scatter_ref(xp: Any, base: Any, value: Any, **attrs: Any) -> Any:
    out = xp.array(base)
    out[_slices(**attrs)] = value
    return out


def _scatter_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    """The value where the index lies in the slice, else the base."""
    inside: L.Expr | None = None
    source: list[L.Expr] = []
    starts, stops = shape_attr(ctx.attrs, "starts"), shape_attr(ctx.attrs, "stops")
    steps = ints_attr(ctx.attrs, "steps")
    for i, n, start, stop, step in zip(index, ctx.result_type.shape, starts, stops, steps, strict=True):
        shifted = L.sub(i, ctx.extent(start))
        source.append(shifted if step == 1 else L.apply("div", shifted, L.index(step)))
        tests = [L.apply("ge", i, ctx.extent(start))] if start else []
        tests += [L.apply("lt", i, ctx.extent(stop))] if stop != n else []
        tests += [L.apply("eq", L.apply("mod", shifted, L.index(step)), L.index(0))] if step != 1 else []
        for test in tests:
            inside = test if inside is None else L.apply("and", inside, test)
    if inside is None:
        return ctx.read(1, tuple(source))
    return L.select(inside, ctx.read(1, tuple(source), inside), ctx.read(0, index))


def _scatter_vjp(call: Call, g: Any) -> Sequence[Any]:
    value: TensorType = call.operands[1].ttype
    return (
        slice_scatter(g, zeros_of(value, g), **call.attrs) if call.needs[0] else None,
        slice_(g, **call.attrs) if call.needs[1] else None,
    )


def _scatter_jvp(call: Call, tb: Any, tv: Any) -> Sequence[Any]:
    if tb is None and tv is None:
        return (None,)
    base, value = (x.ttype for x in call.operands)
    tb = zeros_of(base, tv) if tb is None else tb
    tv = zeros_of(value, tb) if tv is None else tv
    return (slice_scatter(tb, tv, **call.attrs),)


slice_scatter: Final[OpDef] = register(
    OpDef(
        "slice_scatter",
        "slice_scatter(base, value; starts, stops, steps): base with the slice of these attributes replaced by value.",
        _scatter_types,
        _scatter_ref,
        Dense(_scatter_element),
        vjp=_scatter_vjp,
        jvp=_scatter_jvp,
        traits=frozenset({"exact", "foldable"}),
        arity=2,
    )
)


# ------------------------------------------------------------------------------------------- reverse


def _reverse_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,), dims = operands, ints_attr(attrs, "dims")
    if len(set(dims)) != len(dims) or any(not 0 <= d < t.rank for d in dims):
        raise OpTypeError("reverse", f"{dims} are not distinct dimensions of {t}", "dim")
    return (t,)


def _reverse_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    dims, shape = ints_attr(ctx.attrs, "dims"), ctx.result_type.shape
    flipped = [L.sub(ctx.extent(n), L.index(1)) for n in shape]
    return ctx.read(0, tuple(L.sub(flipped[d], i) if d in dims else i for d, i in enumerate(index)))


reverse: Final[OpDef] = register(
    OpDef(
        "reverse",
        "reverse(a; dims): the elements along each of `dims` in reverse order.",
        _reverse_types,
        lambda xp, x, *, dims: xp.flip(x, dims),
        Dense(_reverse_element),
        vjp=lambda call, g: (reverse(g, **call.attrs),),
        jvp=lambda call, t: (None if t is None else reverse(t, **call.attrs),),
        traits=frozenset({"exact", "foldable"}),
        arity=1,
    )
)


# ----------------------------------------------------------------------------------------------- cat


def _cat_dim(attrs: Attrs, t: TensorType) -> int:
    dim = attrs["dim"]
    if not isinstance(dim, int) or not 0 <= dim < t.rank:
        raise OpTypeError("cat", f"dimension {dim} is out of range for {t}", "dim")
    return dim


def _cat_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if not operands:
        raise OpTypeError("cat", "needs at least one operand", "value")
    first = operands[0]
    dim = _cat_dim(attrs, first)
    size: Dim = first.shape[dim]
    for t in operands[1:]:
        if t.dtype is not first.dtype:
            raise OpTypeError("cat", f"operands have dtypes {first.dtype} and {t.dtype}", "dtype")
        if t.rank != first.rank or any(
            a != b for d, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if d != dim
        ):
            raise OpTypeError(
                "cat", f"{first} and {t} differ outside dimension {dim}", fix="make the other sizes equal"
            )
        more = t.shape[dim]
        if isinstance(size, Sym) or isinstance(more, Sym):
            raise OpTypeError("cat", "sums of symbolic sizes can't be written in a type yet", "value")
        size += more
    return (TensorType(first.dtype, (*first.shape[:dim], size, *first.shape[dim + 1 :]), first.device),)


def _cat_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    """From the last operand to the first: each is chosen where the index lies before its end."""
    types, dim = ctx.operand_types, _cat_dim(ctx.attrs, ctx.operand_types[0])
    if len(types) == 1:
        return ctx.read(0, index)
    i, chosen = index[dim], None
    starts: list[L.Expr] = [L.index(0)]
    for t in types:
        starts.append(L.add(starts[-1], ctx.extent(t.shape[dim])))
    for k in reversed(range(len(types))):
        start, end = starts[k], starts[k + 1]
        if types[k].shape[dim] != 0:
            at = (*index[:dim], L.sub(i, start), *index[dim + 1 :])
            first = isinstance(start, L.Const) and start.value == 0
            after = None if first else L.apply("ge", i, start)
            if chosen is None:
                chosen = ctx.read(k, at, after)
            else:
                before = L.apply("lt", i, end)
                mine = before if after is None else L.apply("and", before, after)
                chosen = L.select(before, ctx.read(k, at, mine), chosen)
    return ctx.read(0, index) if chosen is None else chosen  # all empty: no element is ever computed


def _cat_parts(call: Call) -> list[dict[str, Any]]:
    """The slice attributes that cut each operand out of the result."""
    shape = call.results[0].ttype.shape
    dim, at, parts = _cat_dim(call.attrs, call.results[0].ttype), 0, []
    for x in call.operands:
        end = at + x.ttype.shape[dim] if len(call.operands) > 1 else shape[dim]
        starts, stops = [0] * len(shape), list(shape)
        starts[dim], stops[dim] = at, end
        parts.append({"starts": tuple(starts), "stops": tuple(stops), "steps": (1,) * len(shape)})
        at = end
    return parts


def _cat_vjp(call: Call, g: Any) -> Sequence[Any]:
    return tuple(slice_(g, **part) if need else None for part, need in zip(_cat_parts(call), call.needs, strict=True))


def _cat_jvp(call: Call, *tangents: Any) -> Sequence[Any]:
    known = next((t for t in tangents if t is not None), None)
    if known is None:
        return (None,)
    filled = [zeros_of(x.ttype, known) if t is None else t for x, t in zip(call.operands, tangents, strict=True)]
    return (cat(*filled, **call.attrs),)


cat: Final[OpDef] = register(
    OpDef(
        "cat",
        "cat(a, b, ...; dim): operands of equal dtype and of equal shape outside `dim`, one after the other along it.",
        _cat_types,
        lambda xp, *arrays, dim: xp.concatenate(arrays, axis=dim),
        Dense(_cat_element),
        vjp=_cat_vjp,
        jvp=_cat_jvp,
        traits=frozenset({"exact", "foldable"}),
    )
)


# ---------------------------------------------------------------------------------------------- pick


def _pick_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, i = operands
    if i.dtype is not int64:
        raise OpTypeError("pick", f"the index is {i.dtype}, not int64", "dtype")
    if x.rank == 0 or x.shape[:-1] != i.shape:
        raise OpTypeError("pick", f"an index of type {i} can't pick from the last dimension of {x}")
    if x.shape[-1] == 0 and 0 not in i.shape:
        raise OpTypeError("pick", f"the last dimension of {x} is empty", "dim")
    return (TensorType(x.dtype, i.shape, x.device),)


def _pick_ref(xp: Any, x: Any, i: Any) -> Any:
    if i.size and not ((i >= 0) & (i < x.shape[-1])).all():
        raise IndexError("pick: index is out of bounds")
    return xp.take_along_axis(x, i[..., None], axis=-1)[..., 0]


def _pick_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    i = ctx.read(1, index)
    size = ctx.extent(ctx.operand_types[0].shape[-1])
    ok = L.apply("and", L.apply("ge", i, L.index(0)), L.apply("lt", i, size))
    ctx.check(ok, "index", "index {value} is out of bounds", i)
    return ctx.read(0, (*index, L.select(ok, i, L.index(0))))


def _pick_vjp(call: Call, g: Any) -> Sequence[Any]:
    """g where the position is the picked one, else 0: no scatter, so it fuses."""
    t: TensorType = call.operands[0].ttype
    lead = tuple(range(t.rank - 1))
    position: dict[str, Any] = {"shape": t.shape, "dtype": int64, "dim": t.rank - 1}
    picked = eq(OPS["iota"].bind((), position, receiver=g)[0], broadcast(call.operands[1], shape=t.shape, dims=lead))
    return (where(picked, broadcast(g, shape=t.shape, dims=lead), zeros_of(t, g)), None)


pick: Final[OpDef] = register(
    OpDef(
        "pick",
        "pick(a, index): a[..., index[...]]; a [..., C], index int64 [...]. An index outside 0..C-1 is an error.",
        _pick_types,
        _pick_ref,
        Dense(_pick_element),
        vjp=_pick_vjp,
        jvp=lambda call, t, _: (None if t is None else pick(t, call.operands[1]),),
        traits=frozenset({"exact", "check"}),
        saved_operands=(1,),
        arity=2,
    )
)


# ------------------------------------------------------------------------------------ copy, transfer

copy: Final[OpDef] = register(
    OpDef(
        "copy",
        "copy(a): the same elements in fresh, contiguous memory.",
        lambda operands, attrs: (operands[0],),
        lambda xp, x: xp.array(x, order="C"),
        Dense(lambda ctx, index: ctx.read(0, index), pointwise=True),
        vjp=lambda call, g: (g,),
        jvp=lambda call, t: (t,),
        traits=frozenset({"elementwise", "exact", "foldable"}),
        arity=1,
    )
)


def _transfer_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    for key in ("source", "target"):
        if not isinstance(attrs.get(key), str):
            raise OpTypeError("transfer", f"{key} is {attrs.get(key)!r}, not the name of a device", "value")
    return (operands[0],)


def _transferred_back(call: Call, g: Any) -> Sequence[Any]:
    return (transfer(g, source=call.attrs["target"], target=call.attrs["source"]),)


def _transferred(call: Call, t: Any) -> Sequence[Any]:
    return (None if t is None else transfer(t, **call.attrs),)


transfer: Final[OpDef] = register(
    OpDef(
        "transfer",
        "transfer(a; source, target): the same elements in fresh, contiguous memory, brought from device `source` to "
        "device `target`. A graph runs in one place, where this is a copy; tensors are moved.",
        _transfer_types,
        lambda xp, x, source, target: xp.array(x, order="C"),
        Dense(lambda ctx, index: ctx.read(0, index), pointwise=True),
        vjp=_transferred_back,
        jvp=_transferred,
        traits=frozenset({"elementwise", "exact", "foldable"}),
        arity=1,
    )
)
